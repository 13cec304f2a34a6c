//! Tests weights on a data set: `cargo run --release --bin evaluate`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lenet5::cli::{self, ReadOptions};
use lenet5::data::{Dataset, Split};
use lenet5::evaluate::{Evaluation, logits};
use lenet5::script::Script;
use lenet5::weights::{self, Weights};
use lenet5::{DeviceChoice, charts};
use tch::Tensor;
use tch::nn::Module;

/// Prints the error, a table of the classes and the confusion matrix.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// TorchScript, torch.save of any age, or safetensors, of which nothing is executed [default: those
    /// shipped, weights/lenet5.*]
    #[arg(long, value_name = "FILE", conflicts_with = "torchscript")]
    weights: Option<PathBuf>,
    /// Run any TorchScript classifier as it is. This EXECUTES THE CODE IN THE FILE, which may do
    /// anything: only for files that you trust.
    #[arg(long, value_name = "FILE")]
    torchscript: Option<PathBuf>,
    #[command(flatten)]
    read: ReadOptions,
    /// Folder of IDX files, gzip or not [default: the embedded MNIST]
    #[arg(long)]
    data: Option<PathBuf>,
    /// The part of the data set.
    #[arg(long, value_enum, default_value = "test")]
    split: Split,
    /// One JSON object instead of the tables: samples, errors, error_percent, loss, confusion.
    #[arg(long)]
    json: bool,
    /// Write `logits` (N, classes; float32) and `labels` (N; int64) as safetensors.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Write the confusion matrix as DIR/confusion.png.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// auto, cpu, cuda, cuda:N or mps.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<i32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run(|| evaluate(&arguments))
}

fn evaluate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    cli::set_threads(arguments.threads)?;
    let (logits, labels) = match &arguments.torchscript {
        Some(path) => run_script(arguments, path)?,
        None => run_weights(arguments)?,
    };
    let evaluation = Evaluation::new(&logits, &labels)?;
    if let Some(path) = &arguments.logits {
        weights::write_tensors(
            path,
            &[("logits".to_owned(), logits), ("labels".to_owned(), labels)],
        )?;
    }
    if let Some(folder) = &arguments.report {
        report(folder, &evaluation)?;
    }
    if arguments.json {
        cli::print(serde_json::to_string(&evaluation)? + "\n")?;
    } else {
        cli::print(&evaluation)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Logits and labels.
fn run_weights(arguments: &Arguments) -> anyhow::Result<(Tensor, Tensor)> {
    let weights = match &arguments.weights {
        Some(path) => arguments.read.read(path)?,
        None => {
            let mut weights = Weights::shipped()?;
            weights.set(&arguments.read.model)?;
            weights
        }
    };
    let (device, _) = arguments.device.open()?;
    let data = Dataset::open(arguments.data.as_deref(), arguments.split, weights.config.classes)?;
    let (_store, model) = weights.build(device)?;
    let forward = |images: &Tensor| Ok(model.forward(images));
    Ok((logits(&forward, &data.to_device(device), model.config())?, data.labels().copy()))
}

fn run_script(arguments: &Arguments, path: &Path) -> anyhow::Result<(Tensor, Tensor)> {
    let (device, _) = arguments.device.open()?;
    let limits = arguments.read.limits.limits();
    let script = Script::load(path, &arguments.read.model, &limits, device)?;
    let config = script.config();
    cli::note(format_args!(
        "note: {}: running its code on {} input, mean {}, std {}",
        path.display(),
        config.input,
        config.mean,
        config.std
    ));
    let data = Dataset::open(arguments.data.as_deref(), arguments.split, config.classes)?;
    let forward = |images: &Tensor| script.forward(images);
    Ok((logits(&forward, &data.to_device(device), config)?, data.labels().copy()))
}

fn report(folder: &Path, evaluation: &Evaluation) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join("confusion.png");
    charts::confusion(&path, &evaluation.confusion)?;
    cli::note(format_args!("wrote {}", path.display()));
    Ok(())
}
