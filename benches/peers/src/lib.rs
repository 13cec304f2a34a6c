//! LeNet-5 in Rust frameworks, for scripts/bench.py: the part that is the same in each of them.
//!
//! The arguments, the measurements and the figures are those of scripts/bench_peers.py.

mod data;

use std::fmt::Debug;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::json;

pub use data::{CLASSES, Images, SIDE};

/// Learning rate of `train`.
const LEARNING_RATE: f64 = 0.05;
/// Momentum of SGD.
pub const MOMENTUM: f64 = 0.9;
/// Steps or predictions before the measurement.
const WARM_UP: usize = 30;
/// `train` measures this part of an epoch.
const PART: usize = 5;
/// `infer` measures for this time.
const INFERENCE_TIME: Duration = Duration::from_millis(1500);

/// A network in one framework.
pub trait Peer {
    /// Images, ready for `predict`.
    type Input;

    /// Stores the training set; called once.
    fn prepare(&mut self, images: &Images) -> Result<()>;

    /// Trains one step on the images with these indices.
    fn step(&mut self, indices: &[u32], learning_rate: f64) -> Result<()>;

    /// Returns when the last step is done.
    fn wait(&self) -> Result<()> {
        Ok(())
    }

    /// Converts images (N, 32, 32) for `predict`.
    fn input(&self, pixels: &[f32]) -> Result<Self::Input>;

    /// Computes the logits (N, 10).
    fn predict(&self, input: &Self::Input) -> Result<Vec<f32>>;
}

/// Activation and pooling of the network.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Tanh and average pooling, in `train` and `infer`.
    Tanh,
    /// ReLU and max pooling, in `accuracy`.
    Relu,
}

/// Measures LeNet-5 in a Rust framework, and prints the figures as JSON.
#[derive(Parser)]
struct Arguments {
    what: What,
    /// Backend of the framework
    #[arg(long, default_value = "")]
    variant: String,
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Epochs of `accuracy`
    #[arg(long, default_value_t = 4)]
    epochs: u64,
    /// Largest learning rate of `accuracy`
    #[arg(long, default_value_t = 0.05)]
    learning_rate: f64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Train,
    Infer,
    Accuracy,
}

/// Runs a peer's program: `new` receives the variant.
pub fn run<P: Peer>(new: impl FnOnce(&str, Form) -> Result<P>) -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.batch_size == 0 || arguments.threads == 0 {
        bail!("--batch-size and --threads: expected 1 or more");
    }
    for name in ["RAYON_NUM_THREADS", "MATMUL_NUM_THREADS"] {
        // SAFETY: the process has no other thread yet.
        unsafe { std::env::set_var(name, arguments.threads.to_string()) };
    }
    let form = if matches!(arguments.what, What::Accuracy) { Form::Relu } else { Form::Tanh };
    let peer = new(&arguments.variant, form)?;
    let figures = match arguments.what {
        What::Train => train(peer, arguments.batch_size)?,
        What::Infer => infer(peer, arguments.batch_size)?,
        What::Accuracy => accuracy(peer, &arguments)?,
    };
    println!("{figures}");
    Ok(())
}

fn train(mut peer: impl Peer, batch_size: usize) -> Result<serde_json::Value> {
    let images = Images::read("train")?;
    peer.prepare(&images)?;
    let order = shuffled(images.len(), 1);
    let epoch: Vec<_> = order.chunks(batch_size).collect();
    for indices in epoch.iter().take(WARM_UP) {
        peer.step(indices, LEARNING_RATE)?;
    }
    peer.wait()?;
    let part = &epoch[..epoch.len() / PART];
    let start = Instant::now();
    for indices in part {
        peer.step(indices, LEARNING_RATE)?;
    }
    peer.wait()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds * images.len() as f64 / (part.len() * batch_size) as f64 }))
}

fn infer(peer: impl Peer, batch_size: usize) -> Result<serde_json::Value> {
    let input = peer.input(Images::read("t10k")?.first(batch_size))?;
    for _ in 0..WARM_UP {
        black_box(peer.predict(&input)?);
    }
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < INFERENCE_TIME {
        black_box(peer.predict(&input)?);
        count += batch_size;
    }
    Ok(json!({ "images_per_second": count as f64 / start.elapsed().as_secs_f64() }))
}

fn accuracy(mut peer: impl Peer, arguments: &Arguments) -> Result<serde_json::Value> {
    let (images, test) = (Images::read("train")?, Images::read("t10k")?);
    peer.prepare(&images)?;
    let steps = arguments.epochs as usize * images.len().div_ceil(arguments.batch_size);
    let (start, mut done) = (Instant::now(), 0);
    for epoch in 0..arguments.epochs {
        for indices in shuffled(images.len(), epoch).chunks(arguments.batch_size) {
            peer.step(indices, one_cycle(arguments.learning_rate, done, steps))?;
            done += 1;
        }
    }
    peer.wait()?;
    let seconds = start.elapsed().as_secs_f64();
    let mut errors = 0;
    for (pixels, labels) in test.chunks(1000) {
        let logits = peer.predict(&peer.input(pixels)?)?;
        let predictions = logits.as_chunks::<CLASSES>().0.iter().map(largest);
        errors += predictions.zip(labels).filter(|(class, label)| class != *label).count();
    }
    let percent = 100.0 * errors as f64 / test.len() as f64;
    Ok(json!({ "seconds": seconds, "test_error_percent": percent }))
}

/// Returns the indices of an epoch's images in random order.
fn shuffled(count: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<_> = (0..count as u32).collect();
    order.shuffle(&mut StdRng::seed_from_u64(seed));
    order
}

/// PyTorch's OneCycleLR: the rate rises during 30 % of the steps, then falls to almost 0.
fn one_cycle(largest: f64, step: usize, steps: usize) -> f64 {
    let (step, last) = (step as f64, steps as f64 - 1.0);
    let peak = 0.3 * steps as f64 - 1.0;
    let (start, end, part) = if step > peak {
        (largest, largest / 25e4, (step - peak) / (last - peak))
    } else {
        (largest / 25.0, largest, step / peak)
    };
    end + (start - end) / 2.0 * (1.0 + (std::f64::consts::PI * part).cos())
}

/// Returns the class with the largest logit.
fn largest(logits: &[f32; CLASSES]) -> u8 {
    let classes = 0..CLASSES as u8;
    classes.max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize])).unwrap_or(0)
}
