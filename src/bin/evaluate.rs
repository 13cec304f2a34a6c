//! Evaluates weights on a data set: `cargo run --release --bin evaluate`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use lenet5::charts::Captioned;
use lenet5::data::{Dataset, Fit, Form, Split};
use lenet5::evaluate::{Evaluation, Misclassified, Rejection, kernel_logits, logits};
use lenet5::libtorch::{set_threads, to_array};
use lenet5::model::{LeNet5, ModelConfig, ModelOptions, Network};
use lenet5::recipe::EngineChoice;
use lenet5::script::Script;
use lenet5::train::{EpochMetrics, read_metrics};
use lenet5::weights::{self, Provenance};
use lenet5::{DeviceChoice, charts};
use lenet5_cli::{self as cli, WeightsArguments};
use lenet5_core::files;
use lenet5_core::kernels::batch::BatchForm;
use tch::nn::Module;
use tch::{Device, Tensor};

/// Prints the test error, a table of the classes and the confusion matrix.
#[derive(Parser)]
#[command(
    name = "evaluate",
    display_name = "lenet5",
    version,
    after_help = "\
Examples:
  evaluate                                        the shipped weights on MNIST's test images
  evaluate runs/1/model.pt --report report        with charts
  evaluate theirs.pth --activation relu --pooling max"
)]
struct EvaluateArguments {
    /// Weights in any form of PyTorch [default: the shipped weights]
    ///
    /// TorchScript, a file of any version of torch.save, or safetensors. No code in it is executed.
    #[arg(value_name = "FILE", conflicts_with_all = ["torchscript", "weights"])]
    file: Option<PathBuf>,
    /// Another way to name FILE.
    #[arg(long, value_name = "FILE", conflicts_with = "torchscript")]
    weights: Option<PathBuf>,
    /// Which shipped weights: of the modern network, or of the original network of 1998.
    #[arg(long, default_value = "modern", value_parser = cli::choice::<Network>(), conflicts_with_all = ["file", "weights", "torchscript"])]
    model: Network,
    /// Run any TorchScript classifier as it is; this EXECUTES THE CODE IN THE FILE.
    ///
    /// The code can do anything: use it only with files that you trust.
    #[arg(long, value_name = "FILE")]
    torchscript: Option<PathBuf>,
    #[command(flatten)]
    read: WeightsArguments,
    /// Data set: IDX files, folders of pictures, CSV, npz [default: the embedded MNIST]
    ///
    /// A folder or a file; its content determines the form.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// How images of other sizes become images of 28x28 pixels.
    #[arg(long, default_value = "auto", value_parser = cli::choice::<Fit>())]
    fit: Fit,
    /// The part of the data set, if it has parts.
    #[arg(long, default_value = "test", value_parser = cli::choice::<Split>())]
    split: Split,
    /// Print one JSON object instead of the tables.
    ///
    /// It holds samples, errors, error_percent, loss, confusion,
    /// rejected_percent_for_half_percent_error, rejected_percent_for_one_percent_error.
    #[arg(long)]
    json: bool,
    /// Write `logits` (N, classes; float32) and `labels` (N; int64) as safetensors.
    #[arg(long, value_name = "FILE")]
    logits: Option<PathBuf>,
    /// Draw the confusion matrix, the rejection curve and the misclassified digits in DIR.
    ///
    /// The files are confusion.png, rejection.png and misclassified.png. For weights in a run's
    /// folder, also draw the run's losses and errors as curve.png.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Device: auto, cpu, cuda, cuda:N or mps.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<i32>,
    /// Engine that computes the logits.
    ///
    /// libtorch gives the same bits as PyTorch; fused is the fastest on a CPU.
    #[arg(long, default_value = "libtorch", value_parser = cli::choice::<EngineChoice>(), conflicts_with = "torchscript")]
    engine: EngineChoice,
}

fn main() -> ExitCode {
    let arguments: EvaluateArguments = cli::parse();
    cli::run(|| evaluate(&arguments))
}

fn evaluate(arguments: &EvaluateArguments) -> anyhow::Result<ExitCode> {
    set_threads(arguments.threads)?;
    let Scores { logits, data, config, assumed } = match &arguments.torchscript {
        Some(path) => run_script(arguments, path)?,
        None => run_weights(arguments)?,
    };
    let labels = data.labels();
    let evaluation = Evaluation::new(&logits, labels)?;
    if evaluation.error_percent > SUSPICIOUS_PERCENT && assumed {
        cli::note(format_args!(
            "note: most images are misclassified; these settings were given or assumed: {config}; if \
             the network was trained with others, options such as --activation give them, and convert \
             FILE OUT --detect finds them"
        ));
    }
    if let Some(folder) = &arguments.report {
        report(arguments, folder, &evaluation, &logits, &data)?;
    }
    if let Some(path) = &arguments.logits {
        weights::write_tensors(
            path,
            &[("logits".to_owned(), to_array(&logits)?), ("labels".to_owned(), to_array(labels)?)],
        )?;
    }
    if arguments.json {
        cli::print(serde_json::to_string(&evaluation)? + "\n")?;
    } else {
        cli::print(&evaluation)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An error above this probably comes from settings that differ from those of training.
const SUSPICIOUS_PERCENT: f64 = 50.0;

/// The logits of a network for a data set.
struct Scores {
    /// (N, classes), float32.
    logits: Tensor,
    data: Dataset,
    config: ModelConfig,
    /// Whether settings were given by options, or assumed.
    assumed: bool,
}

fn run_weights(arguments: &EvaluateArguments) -> anyhow::Result<Scores> {
    if arguments.engine == EngineChoice::Graph {
        anyhow::bail!("--engine graph is for training only");
    }
    let weights = arguments.read.open(arguments.weights(), arguments.model)?;
    let given = arguments.read.model.options() != ModelOptions::default();
    let assumed = given || matches!(weights.provenance, Provenance::Assumed(_));
    let config = weights.config.clone();
    let (device, _) = arguments.device.open()?;
    let data = arguments.open_data(config.classes)?;
    let kernels = match config.network {
        Network::Modern => BatchForm::of(&config).map(drop),
        Network::Original => Ok(()),
    };
    let by_kernels = match (arguments.engine, kernels) {
        (EngineChoice::Fused, _) if device != Device::Cpu => anyhow::bail!(
            "--engine fused evaluates on the CPU only: --device cpu, or --engine libtorch"
        ),
        (EngineChoice::Fused, Err(reason)) => anyhow::bail!("--engine fused {reason}"),
        (EngineChoice::Fused | EngineChoice::Auto, Ok(())) => device == Device::Cpu,
        _ => false,
    };
    let logits = if by_kernels {
        kernel_logits(&weights, &data)?
    } else {
        let model = LeNet5::from_weights(&weights, device)?;
        let forward = |images: &Tensor| Ok(model.forward(images));
        logits(&forward, &data.to_device(device), &config)?
    };
    Ok(Scores { logits, data, config, assumed })
}

fn run_script(arguments: &EvaluateArguments, path: &Path) -> anyhow::Result<Scores> {
    let (device, _) = arguments.device.open()?;
    let limits = arguments.read.limits.limits();
    let script = Script::load(path, &arguments.read.model.options(), &limits, device)?;
    let config = script.config();
    cli::note(format_args!(
        "note: {}: running its code on {} input, mean {}, std {}",
        files::shown(path),
        config.input,
        config.mean,
        config.std
    ));
    let data = arguments.open_data(config.classes)?;
    let forward = |images: &Tensor| script.forward(images);
    let logits = logits(&forward, &data.to_device(device), config)?;
    Ok(Scores { logits, data, config: config.clone(), assumed: true })
}

impl EvaluateArguments {
    /// The file of weights, from either of the two arguments that can name it.
    fn weights(&self) -> Option<&Path> {
        self.file.as_deref().or(self.weights.as_deref())
    }

    /// Reads the data set, and prints notes about it.
    fn open_data(&self, classes: usize) -> lenet5::Result<Dataset> {
        let data = Dataset::open(self.data.as_deref(), self.split, classes, self.fit)?;
        for note in data.notes() {
            cli::note(format_args!("note: {note}"));
        }
        Ok(data)
    }
}

/// The maximum number of misclassified digits that a picture shows.
const MAX_SHOWN: usize = 420;

fn report(
    arguments: &EvaluateArguments,
    folder: &Path,
    evaluation: &Evaluation,
    logits: &Tensor,
    data: &Dataset,
) -> anyhow::Result<()> {
    files::create_folder(folder)?;
    let labels = data.labels();
    let path = |name: &str| folder.join(name);
    charts::confusion(&path("confusion.png"), &evaluation.confusion)?;
    let mnist = arguments.data.is_none() && arguments.split == Split::Test;
    let published: &[(&str, f64, f64)] = match data.form() {
        _ if mnist => &[("the zip code reader of 1990", 9.0, 1.0)],
        Form::ZipCodes => &[("1989", 12.1, 1.0), ("1990", 9.0, 1.0), ("people", 0.0, 2.5)],
        _ => &[],
    };
    charts::rejection(&path("rejection.png"), &Rejection::new(logits, labels)?, published)?;
    let misclassified = Misclassified::all(logits, labels)?;
    let paper = if mnist { Misclassified::in_paper() } else { Vec::new() };
    let in_paper = |index: i64| paper.iter().any(|other| other.index == index);
    let both = misclassified.iter().filter(|found| in_paper(found.index)).count();
    let pictures = misclassified
        .iter()
        .take(MAX_SHOWN)
        .map(|found| Captioned::misclassified(found, data.images(), in_paper(found.index)));
    let shown = if misclassified.len() > MAX_SHOWN { ", of which these are the first" } else { "" };
    let mut title =
        format!("{} of {} misclassified{shown}", misclassified.len(), evaluation.samples);
    if mnist {
        title +=
            &format!("; orange: {both} of the 82 that the paper's network misclassified in 1998");
    }
    charts::captioned(&path("misclassified.png"), &title, &pictures.collect::<Vec<_>>())?;
    let mut written = vec!["confusion.png", "rejection.png", "misclassified.png"];
    let run = arguments.weights().and_then(Path::parent);
    if let Some(run) = run.filter(|run| run.join("metrics.jsonl").exists()) {
        let points: Vec<_> = read_metrics(run)?.iter().map(EpochMetrics::curve_point).collect();
        charts::curve(&path("curve.png"), &points)?;
        written.push("curve.png");
    }
    cli::note(format_args!("wrote {} in {}", written.join(", "), files::shown(folder)));
    Ok(())
}
