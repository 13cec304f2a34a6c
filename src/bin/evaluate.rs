//! Tests weights on a data set: `cargo run --release --bin evaluate`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lenet5::data::{Dataset, Split};
use lenet5::evaluate::{Evaluation, logits};
use lenet5::weights::{self, Weights};
use lenet5::{DeviceChoice, charts, cli};
use tch::Device;

/// Prints the error, a table of the classes and the confusion matrix.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// TorchScript, state dict, checkpoint or safetensors [default: those shipped, weights/lenet5.*]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
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
    let weights = Weights::open(arguments.weights.as_deref())?;
    if let Some(note) = weights.assumptions() {
        cli::note(format_args!("note: {note}"));
    }
    let (device, _) = arguments.device.open()?;
    let data = Dataset::open(arguments.data.as_deref(), arguments.split, weights.config.classes)?;
    let (_store, model) = weights.build(device)?;
    let logits = logits(&model, &data.to_device(device), model.config());
    let evaluation = Evaluation::new(&logits, data.labels())?;
    if let Some(path) = &arguments.logits {
        let labels = data.labels().to_device(Device::Cpu);
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

fn report(folder: &Path, evaluation: &Evaluation) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join("confusion.png");
    charts::confusion(&path, &evaluation.confusion)?;
    cli::note(format_args!("wrote {}", path.display()));
    Ok(())
}
