//! The kernels of the fused engine, each by itself, and what they are parts of: `cargo bench`
//!
//! The modern network with tanh and average pooling, on the widest instruction set. An item is an image.

use divan::Bencher;
use divan::counter::ItemsCount;
use lenet5::engine::fused::{Engine, Images, Parameters, Phase, Settings, Single};

const BATCH: usize = 128;
const SETTINGS: Settings = Settings { relu: false, max: false, corner: false };

fn main() {
    divan::main();
}

/// A random sequence from -1 to 1.
fn random() -> impl Iterator<Item = f32> {
    std::iter::successors(Some(1_u64), |x| {
        Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    })
    .map(|x| (x >> 40) as f32 / (1 << 23) as f32 - 1.0)
}

fn parameters() -> Parameters {
    let mut parameters = Parameters::zeros(10);
    for (parameter, x) in parameters.0.iter_mut().zip(random()) {
        *parameter = 0.1 * x;
    }
    parameters
}

fn images(count: usize) -> Vec<[f32; 1024]> {
    let pixels: Vec<f32> = random().take(count * 1024).map(|x| x.max(0.0)).collect();
    pixels.as_chunks().0.to_vec()
}

/// A phase on a group of samples; those of the linear layers on two.
#[divan::bench(args = Phase::ALL[..16].iter().map(|(phase, ..)| *phase))]
fn phase(bencher: Bencher, phase: Phase) {
    let (parameters, images, labels) = (parameters(), images(BATCH), [3; BATCH]);
    let images = Images::Pixels(&images);
    let mut engine = Engine::new(SETTINGS, 10);
    engine.gradient(&parameters, images, &labels, &mut parameters.clone());
    bencher
        .counter(ItemsCount::new(engine.lanes()))
        .bench_local(|| engine.repeat(phase, &parameters, images, &labels));
}

#[divan::bench(args = [1, 2])]
fn gradient_of_a_batch(bencher: Bencher, threads: usize) {
    let (parameters, images, labels) = (parameters(), images(BATCH), [3; BATCH]);
    let mut gradient = parameters.clone();
    let mut engine = Engine::new(SETTINGS, 10).with_threads(threads);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        engine.gradient(&parameters, Images::Pixels(&images), &labels, &mut gradient)
    });
}

#[divan::bench(args = [1, 2])]
fn logits_of_1000(bencher: Bencher, threads: usize) {
    let (parameters, images) = (parameters(), images(1000));
    let mut engine = Engine::new(SETTINGS, 10).with_threads(threads);
    bencher
        .counter(ItemsCount::new(1000_usize))
        .bench_local(|| engine.logits(&parameters, Images::Pixels(&images), 1000));
}

#[divan::bench]
fn logits_of_one(bencher: Bencher) {
    let images = images(1);
    let mut single = Single::new(SETTINGS, &parameters());
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| single.logits(&images[0])[0]);
}
