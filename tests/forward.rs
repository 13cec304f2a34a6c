//! The core's plain forward pass gives the same results as libtorch for all settings.

use lenet5::ForwardPass;
use lenet5::libtorch::Generator;
use lenet5::model::{
    Activation, C5, HiddenActivation, Input, LayerOrder, LeNet5, ModelConfig, Pooling,
};
use lenet5_core::Choice;
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

/// The largest permitted difference of logits, as a part of the largest logit, or absolute if all
/// are below 1.
const TOLERANCE: f64 = 1e-5;

/// Returns the largest difference between the core's logits and libtorch's, on images of random
/// pixels.
fn difference(config: &ModelConfig, seed: i64) -> f64 {
    let size = config.input.size() as i64;
    let draw = || {
        let images = Tensor::rand([2, 1, size, size], (Kind::Float, Device::Cpu));
        (LeNet5::random(config, Device::Cpu).unwrap(), images)
    };
    let (model, images) = Generator::seeded(seed).unwrap().draw(draw).unwrap();
    let pass = ForwardPass::new(&model.weights().unwrap()).unwrap();
    let expected =
        Vec::<f64>::try_from(model.forward(&images).detach().to_kind(Kind::Double).flatten(0, -1))
            .unwrap();
    let pixels = Vec::<f32>::try_from(images.flatten(0, -1)).unwrap();
    let single: Vec<f64> = pass.logits(&pixels).unwrap().into_iter().map(f64::from).collect();
    let pixels: Vec<f64> = pixels.into_iter().map(f64::from).collect();
    let double: Vec<f64> = pass.logits(&pixels).unwrap();
    assert_eq!((single.len(), double.len()), (expected.len(), expected.len()));
    let largest = expected.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
    let differences = single.iter().zip(&expected).chain(double.iter().zip(&expected));
    differences.map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f64::max) / largest
}

#[test]
fn logits_are_libtorchs_for_all_settings() {
    tch::set_num_threads(1);
    let mut count = 0;
    let mut check = |config: ModelConfig| {
        count += 1;
        let found = difference(&config, count);
        assert!(found <= TOLERANCE, "{found:e}: {config:?}");
    };
    for (activation, ..) in Activation::CHOICES {
        for (pooling, ..) in Pooling::CHOICES {
            for (layer_order, ..) in LayerOrder::CHOICES {
                for (hidden_activation, ..) in HiddenActivation::CHOICES {
                    for (c5, ..) in C5::CHOICES {
                        for (input, ..) in Input::CHOICES {
                            check(ModelConfig {
                                activation: *activation,
                                pooling: *pooling,
                                layer_order: *layer_order,
                                hidden_activation: *hidden_activation,
                                c5: *c5,
                                input: *input,
                                ..ModelConfig::default()
                            });
                        }
                    }
                }
            }
        }
    }
    check(ModelConfig { classes: 1000, ..ModelConfig::default() });
    check(ModelConfig { classes: 2, ..ModelConfig::default() });
    check(ModelConfig::original());
    check(ModelConfig { classes: 96, train_rbf: true, rbf_scale: 0.02, ..ModelConfig::original() });
    assert_eq!(count, 4 * 2 * 2 * 2 * 2 * 4 + 4);
}

#[test]
fn layers_are_libtorchs() {
    tch::set_num_threads(1);
    for config in [ModelConfig::default(), ModelConfig::original()] {
        let draw = || {
            let images = Tensor::rand([1, 1, 32, 32], (Kind::Float, Device::Cpu));
            (LeNet5::random(&config, Device::Cpu).unwrap(), images)
        };
        let (model, images) = Generator::seeded(1).unwrap().draw(draw).unwrap();
        let pass = ForwardPass::new(&model.weights().unwrap()).unwrap();
        let pixels = Vec::<f32>::try_from(images.flatten(0, -1)).unwrap();
        let ours = pass.layers(&pixels, 32).unwrap();
        let theirs = model.layers(&images);
        assert_eq!(ours.len(), theirs.len());
        for ((name, ours), (expected, theirs)) in ours.iter().zip(&theirs) {
            assert_eq!(name, expected);
            assert_eq!(ours.values.len(), theirs.numel(), "{name}");
            let theirs = Vec::<f32>::try_from(theirs.detach().flatten(0, -1)).unwrap();
            let largest = theirs.iter().fold(1.0, |largest: f32, x| largest.max(x.abs()));
            for (ours, theirs) in ours.values.iter().zip(&theirs) {
                assert!((ours - theirs).abs() <= TOLERANCE as f32 * largest, "{name}");
            }
        }
    }
}
