//! Measures the SIMD kernels, one by one and together: `cargo bench`
//!
//! They use the widest instruction set. The network is the modern one with tanh and average
//! pooling; the last benchmark takes the network of 1998. An item is an image.

use divan::Bencher;
use divan::counter::ItemsCount;
use lenet5_core::kernels::batch::{
    BatchForm, BatchImages, BatchKernels, ParameterVector, Phase, SingleKernels,
};
use lenet5_core::kernels::pattern::{LearningRates, PatternNetwork, PatternParameters};
use lenet5_core::model::{Activation, Pooling};
use lenet5_core::training::Loss;

const BATCH: usize = 128;
const FORM: BatchForm =
    BatchForm { activation: Activation::Tanh, pooling: Pooling::Avg, unpadded: false };

fn main() {
    divan::main();
}

/// A pseudorandom sequence of numbers from -1 to 1.
fn random() -> impl Iterator<Item = f32> {
    std::iter::successors(Some(1_u64), |x| {
        Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .map(|x| (x >> 40) as f32 / (1 << 23) as f32 - 1.0)
}

fn parameters() -> ParameterVector {
    let mut parameters = ParameterVector::zeros(10);
    for (parameter, x) in parameters.0.iter_mut().zip(random()) {
        *parameter = 0.1 * x;
    }
    parameters
}

fn images(count: usize) -> Vec<[f32; 1024]> {
    let pixels: Vec<f32> = random().take(count * 1024).map(|x| x.max(0.0)).collect();
    pixels.as_chunks().0.to_vec()
}

/// One phase on one group of samples; the phases of the linear layers take two groups.
#[divan::bench(args = Phase::ALL[..16].iter().map(|(phase, ..)| *phase))]
fn phase(bencher: Bencher, phase: Phase) {
    let (parameters, images, labels) = (parameters(), images(BATCH), [3; BATCH]);
    let images = BatchImages::Inputs(&images);
    let mut kernels = BatchKernels::new(FORM, 10);
    kernels.gradient(&parameters, images, &labels, &mut parameters.clone());
    bencher
        .counter(ItemsCount::new(kernels.lanes()))
        .bench_local(|| kernels.repeat(phase, &parameters, images, &labels));
}

#[divan::bench(args = [1, 2])]
fn gradient_of_a_batch(bencher: Bencher, threads: usize) {
    let (parameters, images, labels) = (parameters(), images(BATCH), [3; BATCH]);
    let mut gradient = parameters.clone();
    let mut kernels = BatchKernels::new(FORM, 10).with_threads(threads);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        kernels.gradient(&parameters, BatchImages::Inputs(&images), &labels, &mut gradient)
    });
}

#[divan::bench(args = [1, 2])]
fn logits_of_1000(bencher: Bencher, threads: usize) {
    let (parameters, images) = (parameters(), images(1000));
    let mut kernels = BatchKernels::new(FORM, 10).with_threads(threads);
    bencher
        .counter(ItemsCount::new(1000_usize))
        .bench_local(|| kernels.logits(&parameters, BatchImages::Inputs(&images), 1000));
}

#[divan::bench]
fn logits_of_one(bencher: Bencher) {
    let (kernels, images) = (SingleKernels::new(FORM, &parameters()), images(1));
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| kernels.logits(&images[0]));
}

#[divan::bench]
fn step_of_the_network_of_1998(bencher: Bencher) {
    let codes: Vec<f32> = random().take(10 * 84).collect();
    let mut network =
        PatternNetwork::new(&PatternParameters::zeros(), &codes, 0.025, Loss::Distance);
    let (images, rates) = (images(1), LearningRates::constant(1e-4));
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| network.step(&images[0], 3, &rates));
}
