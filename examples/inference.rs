//! How many images per second an engine reads on the CPU, for scripts/bench.py.
//!
//! Run: cargo run --release --example inference -- ENGINE BATCH THREADS    (ENGINE: fused or libtorch)
//! Prints: {"images_per_second": N}

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lenet5::data::{Dataset, Split, to_input};
use lenet5::engine::fused::{Engine, Images, Parameters, Single};
use lenet5::model::{LeNet5, ModelConfig};
use tch::Device;
use tch::nn::{Module, VarStore};

const WARM_UP: usize = 30;
const TIME: Duration = Duration::from_millis(1500);

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [engine, batch, threads] = &arguments[..] else { bail!("expected ENGINE BATCH THREADS") };
    let batch: usize = batch.parse().context("BATCH")?;
    if !(1..=10_000).contains(&batch) {
        bail!("BATCH: expected 1 to 10000, found {batch}");
    }
    lenet5::cli::set_threads(Some(threads.parse().context("THREADS")?))?;
    println!("{{\"images_per_second\": {}}}", images_per_second(engine, batch)?);
    Ok(())
}

fn images_per_second(engine: &str, batch: usize) -> Result<f64> {
    let config = ModelConfig::default();
    let store = VarStore::new(Device::Cpu);
    let model = LeNet5::new(&store.root(), &config)?;
    let images =
        to_input(Dataset::embedded(Split::Test, 10)?.first(batch as i64).images(), &config);
    let pixels = Vec::<f32>::try_from(images.flatten(0, -1))?;
    let mut read: Box<dyn FnMut()> = match engine {
        "libtorch" => Box::new(|| drop(tch::no_grad(|| model.forward(&images)))),
        "fused" if batch == 1 => {
            let mut single = Single::of(&model);
            Box::new(move || {
                black_box(single.logits(&pixels.as_chunks().0[0]));
            })
        }
        "fused" => {
            let mut engine = Engine::of(&config);
            let parameters = Parameters::of(&model);
            Box::new(move || {
                let images = Images::Pixels(pixels.as_chunks().0);
                black_box(engine.logits(&parameters, images, batch));
            })
        }
        other => bail!("expected fused or libtorch, found {other}"),
    };
    for _ in 0..WARM_UP {
        read();
    }
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        read();
        count += batch;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
