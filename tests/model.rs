//! Tests of the layers, shapes, counts and loading of parameters.

use lenet5::data::to_input;

use lenet5::libtorch::Generator;
use lenet5::model::{Activation, C5, LeNet5, ModelConfig, Pooling, Summary};
use tch::nn::Module;
use tch::{Device, IndexOp, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

pub fn new(config: &ModelConfig) -> LeNet5 {
    let draw = || LeNet5::random(config, Device::Cpu);
    Generator::seeded(1).unwrap().draw(draw).unwrap().unwrap()
}

#[test]
fn parameters_are_the_papers() {
    for c5 in [C5::Convolution, C5::Linear] {
        let model = new(&ModelConfig { c5, ..ModelConfig::default() });
        let parameters = model.parameters();
        let names: Vec<_> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "c1.weight",
                "c1.bias",
                "c3.weight",
                "c3.bias",
                "c5.weight",
                "c5.bias",
                "f6.weight",
                "f6.bias",
                "output.weight",
                "output.bias"
            ]
        );
        let counts: Vec<_> =
            parameters.chunks(2).map(|layer| layer[0].1.numel() + layer[1].1.numel()).collect();
        assert_eq!(counts, [156, 2_416, 48_120, 10_164, 850]);
        assert_eq!(counts.iter().sum::<usize>(), 61_706);
    }
}

#[test]
fn summary_counts() {
    let summary = Summary::new(&ModelConfig::default());
    let rows: Vec<_> = summary
        .layers
        .iter()
        .map(|l| (l.name, l.output_shape.as_slice(), l.parameters, l.connections, l.macs))
        .collect();
    // The paper states 122,304 connections in c1 and 48,120 in c5.
    let expected: [(&str, &[usize], usize, usize, usize); 7] = [
        ("c1", &[6, 28, 28], 156, 122_304, 117_600),
        ("s2", &[6, 14, 14], 0, 4_704, 1_176),
        ("c3", &[16, 10, 10], 2_416, 241_600, 240_000),
        ("s4", &[16, 5, 5], 0, 1_600, 400),
        ("c5", &[120], 48_120, 48_120, 48_000),
        ("f6", &[84], 10_164, 10_164, 10_080),
        ("output", &[10], 850, 850, 840),
    ];
    assert_eq!(rows, expected);
    let total = summary.total;
    assert_eq!((total.parameters, total.connections, total.macs), (61_706, 429_342, 418_096));
    let max = Summary::new(&ModelConfig { pooling: Pooling::Max, ..ModelConfig::default() });
    assert_eq!(max.total.macs, 418_096 - 1_176 - 400);
}

#[test]
fn forward_shapes() {
    for c5 in [C5::Convolution, C5::Linear] {
        let model = new(&ModelConfig { c5, classes: 47, ..ModelConfig::default() });
        for images in [1, 3] {
            let logits = model.forward(&Tensor::zeros([images, 1, 32, 32], CPU));
            assert_eq!(logits.size(), [images, 47]);
        }
    }
}

#[test]
fn c5_as_convolution_and_as_linear_layer_agree() {
    let convolution = new(&ModelConfig::default());
    let config = ModelConfig { c5: C5::Linear, ..ModelConfig::default() };
    let linear = new(&config);
    let mut state = convolution.parameters();
    state[4].1 = state[4].1.reshape([120, 400]);
    linear.load_state(&state).unwrap();
    let images = {
        let mut generator = Generator::seeded(2).unwrap();
        generator.draw(|| Tensor::rand([16, 1, 32, 32], CPU)).unwrap()
    };
    let difference = (convolution.forward(&images) - linear.forward(&images)).abs().max();
    // The sums of 400 products are computed in another order. They differ by a few units of 2^-24,
    // as logits are below 1 here.
    assert!(difference.double_value(&[]) < 1e-6, "{difference}");
}

#[test]
fn activation_and_pooling_make_a_difference() {
    let images = Tensor::ones([1, 1, 32, 32], CPU).tril(0);
    let mut all = Vec::new();
    for activation in [Activation::Tanh, Activation::Relu, Activation::Sigmoid] {
        for pooling in [Pooling::Avg, Pooling::Max] {
            let model = new(&ModelConfig { activation, pooling, ..ModelConfig::default() });
            all.push(Vec::<f32>::try_from(model.forward(&images).flatten(0, -1)).unwrap());
        }
    }
    for (i, logits) in all.iter().enumerate() {
        assert!(!all[..i].contains(logits), "configuration {i}");
    }
}

#[test]
fn input_is_scaled_padded_normalised() {
    let bytes = Tensor::full([1, 28, 28], 51, (Kind::Uint8, Device::Cpu));
    let input = to_input(&bytes, &ModelConfig::default());
    assert_eq!(input.size(), [1, 1, 32, 32]);
    assert_eq!(input.double_value(&[0, 0, 2, 2]), f64::from(0.2f32));
    assert_eq!(input.double_value(&[0, 0, 1, 2]), 0.0);
    assert_eq!(input.double_value(&[0, 0, 29, 29]), f64::from(0.2f32));
    assert_eq!(input.double_value(&[0, 0, 29, 30]), 0.0);
    let whole = to_input(
        &Tensor::zeros([2, 32, 32], (Kind::Uint8, Device::Cpu)),
        &ModelConfig { mean: 0.5, std: 0.25, ..ModelConfig::default() },
    );
    assert_eq!(whole, Tensor::full([2, 1, 32, 32], -2.0, CPU));
}

#[test]
fn load_state_is_strict() {
    let model = new(&ModelConfig::default());
    let state = || model.parameters();
    let error = |state: &[(String, Tensor)]| model.load_state(state).unwrap_err().to_string();
    model.load_state(&state()).unwrap();

    assert_eq!(error(&state()[..9]), "output.bias: missing");
    assert_eq!(error(&[]), "c1.weight: missing");
    let mut extra = state();
    extra.push(("c2.bias".to_owned(), Tensor::zeros([6], CPU)));
    assert_eq!(error(&extra), "c2.bias: no such parameter in LeNet-5");
    let mut shape = state();
    shape[8].1 = Tensor::zeros([26, 84], CPU);
    assert_eq!(error(&shape), "output.weight: expected shape [10, 84], found [26, 84]");
    let mut same_size = state();
    same_size[4].1 = same_size[4].1.reshape([120, 400]);
    assert_eq!(error(&same_size), "c5.weight: expected shape [120, 16, 5, 5], found [120, 400]");
}

#[test]
fn load_state_copies() {
    let model = new(&ModelConfig::default());
    let other = new(&ModelConfig { classes: 10, ..ModelConfig::default() });
    let _no_grad = tch::no_grad_guard();
    let state: Vec<_> = other.parameters().into_iter().map(|(n, t)| (n, t * 2.0)).collect();
    model.load_state(&state).unwrap();
    let _ = state[1].1.shallow_clone().zero_();
    let bias = model.parameters()[1].1.i(0);
    assert_ne!(bias.double_value(&[]), 0.0);
    assert_eq!(bias, other.parameters()[1].1.i(0) * 2.0);
}

#[test]
fn settings_are_checked() {
    let default = ModelConfig::default;
    let table = [
        (ModelConfig { classes: 1, ..default() }, "classes: expected 2 to 1000, found 1"),
        (ModelConfig { classes: 1001, ..default() }, "classes: expected 2 to 1000, found 1001"),
        (ModelConfig { mean: f64::NAN, ..default() }, "mean: expected a finite number, found NaN"),
        (ModelConfig { std: 0.0, ..default() }, "std: expected a positive number, found 0"),
        (
            ModelConfig { std: f64::INFINITY, ..default() },
            "std: expected a positive number, found inf",
        ),
    ];
    for (config, message) in table {
        assert_eq!(config.validate().unwrap_err().to_string(), message);
    }
    for classes in [2, 1000] {
        ModelConfig { classes, ..default() }.validate().unwrap();
    }
}
