//! Tests weights on a data set: `cargo run --release --bin evaluate`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use lenet5::charts::Captioned;
use lenet5::cli::{self, ReadOptions};
use lenet5::data::{Dataset, Split};
use lenet5::evaluate::{Evaluation, Misread, Rejection, logits, logits_by_engine};
use lenet5::model::{ModelConfig, ModelOptions, Network};
use lenet5::script::Script;
use lenet5::train::{Engine, read_metrics};
use lenet5::weights::{self, Settings};
use lenet5::{DeviceChoice, charts, engine, files};
use tch::nn::Module;
use tch::{Device, Tensor};

/// Prints the error, a table of the classes and the confusion matrix.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Weights: TorchScript, torch.save of any age, or safetensors, of which nothing is executed [default: those
    /// shipped, weights/lenet5.*]
    #[arg(value_name = "FILE", conflicts_with_all = ["torchscript", "weights"])]
    file: Option<PathBuf>,
    /// Another way to name FILE.
    #[arg(long, value_name = "FILE", conflicts_with = "torchscript")]
    weights: Option<PathBuf>,
    /// Which of the shipped weights: of the network as PyTorch users write it today, or of the paper's of 1998.
    #[arg(long, default_value = "modern", conflicts_with_all = ["file", "weights", "torchscript"])]
    model: Network,
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
    /// One JSON object instead of the tables: samples, errors, error_percent, loss, confusion,
    /// rejected_percent_for_half_percent_error.
    #[arg(long)]
    json: bool,
    /// Write `logits` (N, classes; float32) and `labels` (N; int64) as safetensors.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Draw the confusion matrix, the rejection curve and the misread digits as DIR/confusion.png,
    /// rejection.png and misread.png; for weights in a run's folder, the run's losses and errors as curve.png.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// auto, cpu, cuda, cuda:N or mps.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<i32>,
    /// What computes the logits: libtorch gives the bits of PyTorch, fused is the fastest on a CPU.
    #[arg(long, default_value = "libtorch", conflicts_with = "torchscript")]
    engine: Engine,
}

fn main() -> ExitCode {
    let arguments: Arguments = cli::parse();
    cli::run(|| evaluate(&arguments))
}

fn evaluate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    cli::set_threads(arguments.threads)?;
    let Scores { logits, labels, config, assumed } = match &arguments.torchscript {
        Some(path) => run_script(arguments, path)?,
        None => run_weights(arguments)?,
    };
    let evaluation = Evaluation::new(&logits, &labels)?;
    if evaluation.error_percent > SUSPICIOUS_PERCENT && assumed {
        cli::note(format_args!(
            "note: most images are misclassified; these settings were given or assumed: {config}; if \
             the network was trained with others, options such as --activation give them, and convert \
             FILE OUT --detect finds them"
        ));
    }
    if let Some(folder) = &arguments.report {
        report(arguments, folder, &evaluation, &logits, &labels)?;
    }
    if let Some(path) = &arguments.logits {
        weights::write_tensors(
            path,
            &[("logits".to_owned(), logits), ("labels".to_owned(), labels)],
        )?;
    }
    if arguments.json {
        cli::print(serde_json::to_string(&evaluation)? + "\n")?;
    } else {
        cli::print(&evaluation)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An error above this is likely to come from settings that are not those of training.
const SUSPICIOUS_PERCENT: f64 = 50.0;

/// The logits of a network for a data set.
struct Scores {
    /// (N, classes), float32.
    logits: Tensor,
    /// (N), int64.
    labels: Tensor,
    config: ModelConfig,
    /// Whether settings were given by options, or assumed.
    assumed: bool,
}

fn run_weights(arguments: &Arguments) -> anyhow::Result<Scores> {
    if arguments.engine == Engine::Graph {
        anyhow::bail!("--engine graph: images that are read once are not worth recording");
    }
    let weights = arguments.read.open(arguments.weights(), arguments.model)?;
    let given = arguments.read.model != ModelOptions::default();
    let assumed = given || matches!(weights.settings, Settings::Assumed(_));
    let config = weights.config.clone();
    let (device, _) = arguments.device.open()?;
    let data = Dataset::open(arguments.data.as_deref(), arguments.split, weights.config.classes)?;
    let (_store, model) = weights.build(device)?;
    let by_hand = match (arguments.engine, engine::knows(&config)) {
        (Engine::Fused, _) if device != Device::Cpu => anyhow::bail!(
            "--engine fused evaluates on the CPU only: --device cpu, or --engine libtorch"
        ),
        (Engine::Fused, Err(reason)) => anyhow::bail!("--engine fused {reason}"),
        (Engine::Fused | Engine::Auto, Ok(())) => device == Device::Cpu,
        _ => false,
    };
    let labels = data.labels().copy();
    let logits = if by_hand {
        logits_by_engine(&model, &data)?
    } else {
        let forward = |images: &Tensor| Ok(model.forward(images));
        logits(&forward, &data.to_device(device), &config)?
    };
    Ok(Scores { logits, labels, config, assumed })
}

fn run_script(arguments: &Arguments, path: &Path) -> anyhow::Result<Scores> {
    let (device, _) = arguments.device.open()?;
    let limits = arguments.read.limits.limits();
    let script = Script::load(path, &arguments.read.model, &limits, device)?;
    let config = script.config();
    cli::note(format_args!(
        "note: {}: running its code on {} input, mean {}, std {}",
        files::shown(path),
        config.input,
        config.mean,
        config.std
    ));
    let data = Dataset::open(arguments.data.as_deref(), arguments.split, config.classes)?;
    let forward = |images: &Tensor| script.forward(images);
    let logits = logits(&forward, &data.to_device(device), config)?;
    Ok(Scores { logits, labels: data.labels().copy(), config: config.clone(), assumed: true })
}

impl Arguments {
    /// The file of weights, however it was named.
    fn weights(&self) -> Option<&Path> {
        self.file.as_deref().or(self.weights.as_deref())
    }
}

/// The most misread digits that a picture shows.
const MOST_MISREAD: usize = 420;

fn report(
    arguments: &Arguments,
    folder: &Path,
    evaluation: &Evaluation,
    logits: &Tensor,
    labels: &Tensor,
) -> anyhow::Result<()> {
    files::create_folder(folder)?;
    let path = |name: &str| folder.join(name);
    charts::confusion(&path("confusion.png"), &evaluation.confusion)?;
    // On MNIST's test images there is something to compare with.
    let mnist = arguments.data.is_none() && arguments.split == Split::Test;
    let zip_codes = [("the zip code reader of 1989", 9.0, 1.0)];
    let others = if mnist { &zip_codes[..] } else { &[] };
    charts::rejection(&path("rejection.png"), &Rejection::new(logits, labels)?, others)?;
    let misread = Misread::all(logits, labels)?;
    let paper = if mnist { Misread::by_the_paper() } else { Vec::new() };
    let by_the_paper = |index: i64| paper.iter().any(|other| other.index == index);
    let both = misread.iter().filter(|misread| by_the_paper(misread.index)).count();
    let classes = evaluation.confusion.len() as i64;
    let data = Dataset::open(arguments.data.as_deref(), arguments.split, classes)?;
    let pictures = misread.iter().take(MOST_MISREAD).map(|misread| Captioned {
        picture: data.images().get(misread.index),
        caption: format!("{}->{}", misread.label, misread.answer),
        marked: by_the_paper(misread.index),
    });
    let shown = if misread.len() > MOST_MISREAD { ", of which these are the first" } else { "" };
    let mut title = format!("{} of {} misread{shown}", misread.len(), evaluation.samples);
    if mnist {
        title += &format!("; orange: {both} of the 82 that the paper's network misread in 1998");
    }
    charts::captioned(&path("misread.png"), &title, &pictures.collect::<Vec<_>>())?;
    let mut written = vec!["confusion.png", "rejection.png", "misread.png"];
    let run = arguments.weights().and_then(Path::parent);
    if let Some(run) = run.filter(|run| run.join("metrics.jsonl").exists()) {
        charts::curve(&path("curve.png"), &read_metrics(run)?)?;
        written.push("curve.png");
    }
    cli::note(format_args!("wrote {} in {}", written.join(", "), files::shown(folder)));
    Ok(())
}
