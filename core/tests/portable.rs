//! Small tests of the portable kernels, which Miri can run: `cargo +nightly miri test -p lenet5-core portable`.
//!
//! Under Miri only the smallest work is done.

use lenet5_core::data::to_input;
use lenet5_core::kernels::batch::{
    BatchForm, BatchImages, BatchKernels, BatchOptimizer, GreyImages, ParameterVector,
    SingleKernels,
};
use lenet5_core::kernels::distortion::distort;
use lenet5_core::kernels::pattern::{LearningRates, PIXELS, PatternNetwork};
use lenet5_core::kernels::simd::Isa;
use lenet5_core::model::ModelConfig;
use lenet5_core::training::{Distortions, Loss, OptimizerConfig};

use crate::common::{RandomNumbers, difference, weights};
use crate::reference::Reference;

fn portable() -> Isa {
    let isa = *Isa::available().last().unwrap();
    assert_eq!(isa.name(), "portable");
    if cfg!(miri) {
        assert_eq!(Isa::available().len(), 1);
    }
    isa
}

#[test]
fn one_image() {
    let config = ModelConfig::default();
    let weights = weights(&config, &mut RandomNumbers(1));
    let parameters = ParameterVector::of(&weights);
    let image: [f32; 1024] = RandomNumbers(2).pixels(1024).try_into().unwrap();
    let form = BatchForm::of(&config).unwrap();
    let mut single = SingleKernels::new(form, &parameters).with_isa(portable());
    let expected = Reference::new(&weights).compute(&image, 3);
    assert!(difference(single.logits(&image), &expected.logits) < 1e-5);
}

#[test]
fn a_batch_and_an_update() {
    let config = ModelConfig::default();
    let weights = weights(&config, &mut RandomNumbers(1));
    let mut parameters = ParameterVector::of(&weights);
    let grey: Vec<u8> = (0..784).map(|i| (i * 7 % 256) as u8).collect();
    let images = GreyImages::new(grey.clone(), 28, &config);
    let mut kernels = BatchKernels::new(BatchForm::of(&config).unwrap(), 10).with_isa(portable());
    let mut gradient = ParameterVector::zeros(10);
    let loss = kernels.gradient(&parameters, BatchImages::Grey(&images, &[0]), &[4], &mut gradient);
    let expected = Reference::new(&weights).compute(&to_input(&grey, 28, &config), 4);
    assert!((loss - expected.loss).abs() < 1e-5);
    for (found, expected) in gradient.to_arrays(&config).iter().zip(&expected.gradient) {
        assert!(difference(&found.to_f32(), expected) < 1e-5);
    }
    let rule =
        OptimizerConfig::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    let before = parameters.clone();
    kernels.update(&mut parameters, &gradient, &mut BatchOptimizer::new(rule, 10), 0.5);
    for ((before, after), g) in before.0.iter().zip(&parameters.0).zip(&gradient.0) {
        assert!((before - 0.5 * g - after).abs() < 1e-6);
    }
}

#[test]
fn a_step_of_the_original_network() {
    let weights = weights(&ModelConfig::original(), &mut RandomNumbers(1));
    let mut network =
        PatternNetwork::of(&weights, Loss::CrossEntropy).unwrap().with_isa(portable());
    let image: [f32; PIXELS] = RandomNumbers(2).pixels(PIXELS).try_into().unwrap();
    let rates = LearningRates::constant(1e-3);
    let first = network.step(&image, 3, &rates);
    // Under Miri one step is enough.
    if cfg!(not(miri)) {
        assert!(network.step(&image, 3, &rates) < first);
    }
    assert!(first.is_finite());
}

#[test]
fn distorted_pictures() {
    let count = if cfg!(miri) { 1 } else { 20 };
    let pictures = RandomNumbers(2).pixels(count * 784);
    let drawn: Vec<_> = (0..count as i64).map(|i| Distortions::best().draw(28, 1, 1, i)).collect();
    let distorted = distort(&pictures, 28, &drawn);
    assert!(distorted.iter().all(|pixel| (-1e-5..=1.00001).contains(pixel)));
    assert_ne!(distorted, pictures);
}
