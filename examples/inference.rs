//! Measures how many images per second are classified on the CPU, for scripts/bench.py.
//!
//! Run: cargo run --release --example inference -- ENGINE BATCH THREADS    (ENGINE: fused or
//! libtorch) Prints: {"images_per_second": N}
//!
//! With `fused`, `Recognizer::classify` gets pictures of 28x28 bytes and returns probabilities; with
//! `libtorch`, the network gets tensors of 32x32 floats and returns logits.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lenet5::Recognizer;
use lenet5::data::{Dataset, Split, to_input};
use lenet5::model::{LeNet5, ModelConfig};
use tch::Device;
use tch::nn::Module;

const WARM_UP: usize = 30;
const TIME: Duration = Duration::from_millis(1500);

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [engine, batch, threads] = &arguments[..] else { bail!("expected ENGINE BATCH THREADS") };
    let batch: usize = batch.parse().context("BATCH")?;
    if !(1..=10_000).contains(&batch) {
        bail!("BATCH: expected 1 to 10000, found {batch}");
    }
    let threads: i32 = threads.parse().context("THREADS")?;
    lenet5::libtorch::set_threads(Some(threads))?;
    rayon::ThreadPoolBuilder::new().num_threads(threads as usize).build_global()?;
    let rate = images_per_second(engine, batch)?;
    println!("{{\"images_per_second\": {rate}}}");
    Ok(())
}

fn images_per_second(engine: &str, batch: usize) -> Result<f64> {
    let config = ModelConfig::default();
    let model = LeNet5::random(&config, Device::Cpu)?;
    let data = Dataset::embedded(Split::Test, 10)?.first(batch as i64);
    let mut classify: Box<dyn FnMut()> = match engine {
        "libtorch" => {
            let images = to_input(data.images(), &config);
            Box::new(move || drop(tch::no_grad(|| model.forward(&images))))
        }
        "fused" => {
            let recognizer = Recognizer::new(&model.weights()?)?;
            let pixels = Vec::<u8>::try_from(data.images().flatten(0, -1))?;
            Box::new(move || drop(black_box(recognizer.classify(pixels.as_chunks().0))))
        }
        other => bail!("expected fused or libtorch, found {other}"),
    };
    for _ in 0..WARM_UP {
        classify();
    }
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        classify();
        count += batch;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
