//! The plain forward pass: shapes, settings, values computed by hand.

use lenet5_core::model::{
    Activation, C3_TABLE, C5, HiddenActivation, Input, LayerOrder, ModelConfig, Network, Pooling,
};
use lenet5_core::{Array, ForwardPass, Maps, Weights};

use crate::common::{RandomNumbers, weights};

fn layers(weights: &Weights, input: &[f64], width: usize) -> Vec<(&'static str, Maps<f64>)> {
    ForwardPass::new(weights).unwrap().layers(input, width).unwrap()
}

fn layer<'a>(layers: &'a [(&'static str, Maps<f64>)], name: &str) -> &'a Maps<f64> {
    &layers.iter().find(|(other, _)| *other == name).unwrap().1
}

fn image(size: usize) -> Vec<f64> {
    RandomNumbers(2).pixels(size).into_iter().map(f64::from).collect()
}

/// Sets each value of a tensor to a function of its index.
fn set(weights: &mut Weights, name: &str, value: impl Fn(usize) -> f32) {
    let (_, array) = weights.tensors.iter_mut().find(|(other, _)| other == name).unwrap();
    let values: Vec<f32> = (0..array.len()).map(value).collect();
    *array = Array::from_f32(array.shape(), &values);
}

fn zeros(config: &ModelConfig) -> Weights {
    let tensors = config.state().into_iter().map(|(name, shape)| (name, Array::zeros(&shape)));
    Weights::new(config.clone(), tensors.collect()).unwrap()
}

#[test]
fn layers_have_their_shapes() {
    for (network, input, s4) in [
        (Network::Modern, Input::Padded, 5),
        (Network::Modern, Input::Unpadded, 4),
        (Network::Original, Input::Padded, 5),
    ] {
        let modern = network == Network::Modern;
        let config = if modern {
            ModelConfig { input, classes: 26, ..ModelConfig::default() }
        } else {
            ModelConfig::original()
        };
        let size = input.size();
        let found = layers(&weights(&config, &mut RandomNumbers(1)), &image(size * size), size);
        let shapes: Vec<_> =
            found.iter().map(|(name, maps)| (*name, maps.count, maps.height, maps.width)).collect();
        let half = (size - 4) / 2;
        let expected = [
            ("c1", 6, size - 4, size - 4),
            ("s2", 6, half, half),
            ("c3", 16, half - 4, half - 4),
            ("s4", 16, s4, s4),
            ("c5", 120, 1, 1),
            ("f6", 84, 1, 1),
            ("output", config.classes, 1, 1),
        ];
        assert_eq!(shapes, expected);
        assert!(
            found
                .iter()
                .all(|(_, maps)| maps.values.len() == maps.count * maps.height * maps.width)
        );
    }
}

#[test]
fn float32_is_close_to_float64() {
    for config in [ModelConfig::default(), ModelConfig::original()] {
        let weights = weights(&config, &mut RandomNumbers(1));
        let pass = ForwardPass::new(&weights).unwrap();
        let image = image(3 * 1024);
        let rounded: Vec<f32> = image.iter().map(|x| *x as f32).collect();
        let (exact, found) = (pass.logits(&image).unwrap(), pass.logits(&rounded).unwrap());
        assert_eq!((exact.len(), pass.config()), (3 * config.classes, &config));
        for (a, b) in exact.iter().zip(&found) {
            assert!((a - f64::from(*b)).abs() < 1e-5 * a.abs().max(1.0), "{a} {b}");
        }
        // Each image alone gives the same logits.
        for (image, logits) in image.chunks_exact(1024).zip(exact.chunks_exact(config.classes)) {
            assert_eq!(layer(&pass.layers(image, 32).unwrap(), "output").values, logits);
        }
    }
}

#[test]
fn a_wider_image_gives_the_outputs_of_its_windows() {
    for config in [ModelConfig::default(), ModelConfig::original()] {
        let weights = weights(&config, &mut RandomNumbers(1));
        // Each pooling halves the resolution, so windows are four columns apart.
        let (width, windows) = (32 + 4 * 3, 4);
        let wide = image(32 * width);
        let found = layers(&weights, &wide, width);
        let output = layer(&found, "output");
        assert_eq!((output.count, output.height, output.width), (config.classes, 1, windows));
        for window in 0..windows {
            let rows = wide.chunks_exact(width).flat_map(|row| &row[4 * window..][..32]);
            let narrow: Vec<f64> = rows.copied().collect();
            let expected = layers(&weights, &narrow, 32);
            for (class, expected) in layer(&expected, "output").values.iter().enumerate() {
                let found = output.values[class * windows + window];
                assert!((found - expected).abs() < 1e-12, "{found} {expected}");
            }
        }
    }
}

#[test]
fn relu_and_max_pooling_may_change_places() {
    let config = |layer_order, activation, pooling| ModelConfig {
        layer_order,
        activation,
        pooling,
        ..ModelConfig::default()
    };
    let outputs = |activation, pooling| {
        [LayerOrder::ActivationFirst, LayerOrder::PoolingFirst].map(|order| {
            let weights = weights(&config(order, activation, pooling), &mut RandomNumbers(1));
            layers(&weights, &image(1024), 32)
        })
    };
    // With monotonic activations and max pooling, the order changes c1 and c3, but no other layer.
    for activation in [Activation::Relu, Activation::Tanh] {
        let [first, second] = outputs(activation, Pooling::Max);
        for name in ["s2", "s4", "c5", "f6", "output"] {
            assert_eq!(layer(&first, name), layer(&second, name), "{name}");
        }
        assert_ne!(layer(&first, "c1"), layer(&second, "c1"));
    }
    let [first, second] = outputs(Activation::Relu, Pooling::Avg);
    assert_ne!(layer(&first, "s2"), layer(&second, "s2"));
}

#[test]
fn hidden_layers_without_activation_are_linear() {
    let config =
        ModelConfig { hidden_activation: HiddenActivation::None, ..ModelConfig::default() };
    let weights = weights(&config, &mut RandomNumbers(1));
    let found = layers(&weights, &image(1024), 32);
    let tensor = |name: &str| weights.get(name).unwrap().to_f64();
    for (input, name) in [("s4", "c5"), ("c5", "f6"), ("f6", "output")] {
        let (x, output) = (&layer(&found, input).values, &layer(&found, name).values);
        let (weight, bias) = (tensor(&format!("{name}.weight")), tensor(&format!("{name}.bias")));
        for ((row, bias), output) in weight.chunks_exact(x.len()).zip(bias).zip(output) {
            let sum = bias + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
            assert!((sum - output).abs() < 1e-12, "{name}");
        }
    }
    let same = ModelConfig { hidden_activation: HiddenActivation::Same, ..config };
    let same = layers(&Weights::new(same, weights.tensors).unwrap(), &image(1024), 32);
    for (linear, activated) in layer(&found, "c5").values.iter().zip(&layer(&same, "c5").values) {
        assert_eq!(linear.tanh(), *activated);
    }
}

#[test]
fn c5_is_the_same_as_a_convolution_and_as_a_linear_layer() {
    let convolution = weights(&ModelConfig::default(), &mut RandomNumbers(1));
    let config = ModelConfig { c5: C5::Linear, ..ModelConfig::default() };
    let tensors = config.state().into_iter().zip(&convolution.tensors);
    let tensors = tensors.map(|((name, shape), (_, array))| (name, array.clone().reshaped(&shape)));
    let linear = Weights::new(config.clone(), tensors.collect()).unwrap();
    assert_eq!(layers(&linear, &image(1024), 32), layers(&convolution, &image(1024), 32));
}

#[test]
fn c3_of_the_original_network_has_the_connections_of_the_paper() {
    let config = ModelConfig::original();
    let mut weights = weights(&config, &mut RandomNumbers(1));
    let before = layers(&weights, &image(1024), 32);
    for input in 0..6 {
        let mut changed = Weights::new(config.clone(), weights.tensors.clone()).unwrap();
        let coefficients = weights.get("s2.coefficient").unwrap().to_f32();
        set(&mut changed, "s2.coefficient", |map| {
            coefficients[map] + if map == input { 0.5 } else { 0.0 }
        });
        let after = layers(&changed, &image(1024), 32);
        for (map, inputs) in C3_TABLE.iter().enumerate() {
            let values = |layers: &[(&'static str, Maps<f64>)]| {
                layer(layers, "c3").values[map * 100..][..100].to_vec()
            };
            assert_eq!(values(&before) != values(&after), inputs.contains(&input), "{map} {input}");
        }
    }
    // Weights of connections that do not exist change nothing.
    let c3 = weights.get("c3.weight").unwrap().to_f32();
    set(&mut weights, "c3.weight", |i| match C3_TABLE[i / 150].contains(&(i / 25 % 6)) {
        true => c3[i],
        false => 7.0,
    });
    assert_eq!(layers(&weights, &image(1024), 32), before);
}

#[test]
fn values_computed_by_hand() {
    // Each value of c1 is 2 times the pixel in the middle of its window, plus 1.
    let config = ModelConfig { activation: Activation::Relu, ..ModelConfig::default() };
    let mut weights = zeros(&config);
    set(&mut weights, "c1.weight", |i| if i % 25 == 12 { 2.0 } else { 0.0 });
    set(&mut weights, "c1.bias", |_| 1.0);
    // c3's map 0 sums the first value of each window over all six maps of s2, minus 100.
    set(&mut weights, "c3.weight", |i| if i < 150 && i % 25 == 0 { 1.0 } else { 0.0 });
    set(&mut weights, "c3.bias", |map| if map == 0 { -100.0 } else { -1.0 });
    // Unit 0 of c5 and f6 is the upper left value of s4's map 0; output k is k times it, plus 0.5.
    set(&mut weights, "c5.weight", |i| if i == 0 { 1.0 } else { 0.0 });
    set(&mut weights, "f6.weight", |i| if i == 0 { 1.0 } else { 0.0 });
    set(&mut weights, "output.weight", |i| if i % 84 == 0 { (i / 84) as f32 } else { 0.0 });
    set(&mut weights, "output.bias", |_| 0.5);
    let input: Vec<f64> = (0..1024).map(|i| (i / 32 + i % 32) as f64).collect();
    for (pooling, s2_corner, s4_corner) in [
        // c1 at (y, x) is 2 (y + x + 4) + 1; s2 at (y, x) is 4 (y + x) + 11, or 4 (y + x) + 13 with max pooling.
        (Pooling::Avg, 11.0, (0.0 + 0.0 + 0.0 + (6.0 * 19.0 - 100.0)) / 4.0),
        (Pooling::Max, 13.0, 6.0 * 21.0 - 100.0),
    ] {
        weights.config.pooling = pooling;
        let found = layers(&weights, &input, 32);
        let c1 = layer(&found, "c1");
        assert_eq!(c1.values[..3], [9.0, 11.0, 13.0]);
        assert_eq!(c1.values[5 * 784 + 28 * 3 + 2], 2.0 * 9.0 + 1.0);
        let s2 = layer(&found, "s2");
        assert_eq!((s2.values[0], s2.values[1]), (s2_corner, s2_corner + 4.0));
        // All maps of c3 except map 0 are relu(-1).
        assert!(layer(&found, "c3").values[100..].iter().all(|x| *x == 0.0));
        let expected = s4_corner;
        assert_eq!(layer(&found, "s4").values[0], expected);
        assert_eq!(
            (layer(&found, "c5").values[0], layer(&found, "f6").values[0]),
            (expected, expected)
        );
        let output = &layer(&found, "output").values;
        assert_eq!(output[3], 3.0 * expected + 0.5);
    }
}

#[test]
fn penalties_of_the_original_network_by_hand() {
    // f6 is 0 everywhere, and each code has 84 values of 1 or -1: every class has the distance 84.
    let config = ModelConfig { rbf_scale: 0.25, ..ModelConfig::original() };
    let mut weights = zeros(&config);
    set(&mut weights, "output.weight", |i| if i % 3 == 0 { 1.0 } else { -1.0 });
    let found = layers(&weights, &image(1024), 32);
    assert_eq!(layer(&found, "output").values, [-0.25 * 84.0; 10]);
    // s2 is the activation of 4 times the mean of c1's block, times the coefficient, plus the bias.
    set(&mut weights, "c1.bias", |_| 0.3);
    set(&mut weights, "s2.coefficient", |map| map as f32);
    set(&mut weights, "s2.bias", |_| 0.125);
    let found = layers(&weights, &image(1024), 32);
    let activation = |x: f64| 1.7159 * (2.0 / 3.0 * x).tanh();
    for map in 0..6 {
        let expected = activation(4.0 * map as f64 * activation(f64::from(0.3_f32)) + 0.125);
        assert!((layer(&found, "s2").values[map * 196 + 7] - expected).abs() < 1e-12);
    }
}

#[test]
fn inputs_of_a_wrong_size_are_refused() {
    let pass = ForwardPass::new(&zeros(&ModelConfig::default())).unwrap();
    for (values, width) in [(1023, 32), (31 * 32, 32), (32 * 31, 31), (0, 0), (1024, 0)] {
        let error = pass.layers(&vec![0.0_f32; values], width).unwrap_err().to_string();
        let expected =
            format!("expected an input of 32x32 or more, found {values} values in rows of {width}");
        assert_eq!(error, expected);
    }
    let error = pass.logits(&[0.0_f32; 1000]).unwrap_err().to_string();
    assert_eq!(error, "expected images of 32x32, found 1000 values");
}
