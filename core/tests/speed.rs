//! Times of the kernels: `cargo test --release -p lenet5-core speed -- --ignored --nocapture`.

use std::time::Instant;

use lenet5_core::kernels::batch::{
    BatchForm, BatchImages, BatchKernels, ParameterVector, SingleKernels,
};
use lenet5_core::kernels::pattern::{LearningRates, PIXELS, PatternNetwork};
use lenet5_core::kernels::simd::Isa;
use lenet5_core::model::ModelConfig;
use lenet5_core::training::Loss;

use crate::common::{RandomNumbers, weights};

const BATCH: usize = 128;

/// The shortest time of many repetitions, in microseconds.
fn best(mut work: impl FnMut()) -> f64 {
    let times = (0..400).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    1e6 * times.fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "measures times"]
fn speed() {
    let mut random = RandomNumbers(1);
    let pixels = random.pixels(BATCH * PIXELS);
    let images = pixels.as_chunks::<PIXELS>().0;
    let labels: Vec<u8> = (0..BATCH as u8).map(|i| i % 10).collect();
    for isa in Isa::available() {
        let config = ModelConfig::default();
        let weights_of_modern = weights(&config, &mut random);
        let (form, parameters) =
            (BatchForm::of(&config).unwrap(), ParameterVector::of(&weights_of_modern));
        let mut gradient = parameters.clone();
        let mut kernels = BatchKernels::new(form, 10).with_isa(isa);
        let batch = best(|| {
            kernels.gradient(&parameters, BatchImages::Inputs(images), &labels, &mut gradient);
        });
        let mut single = SingleKernels::new(form, &parameters).with_isa(isa);
        let one = best(|| {
            single.logits(&images[0]);
        });
        let weights = weights(&ModelConfig::original(), &mut random);
        let mut network = PatternNetwork::of(&weights, Loss::Distance).unwrap().with_isa(isa);
        let rates = LearningRates::constant(1e-4);
        let mut index = 0;
        let step = best(|| {
            network.step(&images[index % BATCH], index % 10, &rates);
            index += 1;
        });
        println!(
            "{:8}: gradient of {BATCH} images {batch:8.1} µs, one image {one:6.2} µs, one step {step:6.2} µs",
            isa.name()
        );
    }
}
