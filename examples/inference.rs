//! Measures how many images per second an engine classifies on the CPU, for scripts/bench.py.
//!
//! Run: cargo run --release --example inference -- ENGINE BATCH THREADS    (ENGINE: fused or
//! libtorch) Prints: {"images_per_second": N}

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lenet5::data::{Dataset, Split, to_input};
use lenet5::model::{LeNet5, ModelConfig};
use lenet5_core::kernels::batch::{BatchForm, BatchImages, BatchKernels, ParameterVector};
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
    let rate = images_per_second(engine, batch, threads as usize)?;
    println!("{{\"images_per_second\": {rate}}}");
    Ok(())
}

fn images_per_second(engine: &str, batch: usize, threads: usize) -> Result<f64> {
    let config = ModelConfig::default();
    let model = LeNet5::random(&config, Device::Cpu)?;
    let images =
        to_input(Dataset::embedded(Split::Test, 10)?.first(batch as i64).images(), &config);
    let pixels = Vec::<f32>::try_from(images.flatten(0, -1))?;
    let form = BatchForm::of(&config).map_err(anyhow::Error::msg)?;
    let parameters = ParameterVector::of(&model.weights()?);
    let mut classify: Box<dyn FnMut()> = match engine {
        "libtorch" => Box::new(|| drop(tch::no_grad(|| model.forward(&images)))),
        "fused" => {
            let mut kernels = BatchKernels::new(form, config.classes).with_threads(threads);
            Box::new(move || {
                let images = BatchImages::Inputs(pixels.as_chunks().0);
                black_box(kernels.logits(&parameters, images, batch));
            })
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
