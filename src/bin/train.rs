//! Trains LeNet-5: `cargo run --release --bin train`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, ValueEnum};
use lenet5::distributed::{Launch, Peers};
use lenet5::engine::Place;
use lenet5::model::{C5, ModelConfig, ModelOptions, Network, Summary};
use lenet5::recipe::{
    Distortions, EngineChoice, Loss, OptimizerConfig, Order, Precision, Schedule, TrainConfig,
};
use lenet5::train::{
    EpochMetrics, Outcome, Progress, Run, checkpoint_path, new_run_folder, read_config,
};
use lenet5::weights::Weights;
use lenet5::{DeviceChoice, libtorch};
use lenet5_cli::{self as cli, ModelArguments};
use lenet5_core::files;
use tch::Device;

/// Trains LeNet-5 on MNIST, or on another data set in IDX files.
///
/// The results are config.json, metrics.jsonl, checkpoint.pth, model.pt and curve.png in the run's
/// folder. Ctrl-C finishes the step and writes the checkpoint; --resume continues from there.
/// SIGTERM and SIGHUP do the same. The exit code is then 128 plus the signal's number: 130, 143 or
/// 129. A second signal ends the program at once. Under nohup, SIGHUP is ignored.
#[derive(Parser)]
#[command(
    name = "train",
    display_name = "lenet5",
    version,
    after_help = "\
Examples:
  train                                    10 epochs on MNIST, about 1 % error
  train --preset best                      the lowest error, 120 epochs
  train --preset paper                     the network and the training of 1998
  train --data letters --classes 26        your own images, in IDX files
  train --resume runs/1                    continue a run"
)]
struct TrainArguments {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    model: ModelArguments,
    /// Number of epochs [default: 10, for sdlm 20]
    #[arg(long, help_heading = "Training")]
    epochs: Option<u32>,
    /// Device: auto, cpu, cuda, cuda:N or mps [default: auto]
    #[arg(long, help_heading = "Computation")]
    device: Option<DeviceChoice>,
    /// CPU threads [default: all cores]
    #[arg(long, help_heading = "Computation")]
    threads: Option<i32>,
    /// Seconds after which another process that does not answer is given up [default: 60]
    ///
    /// For a job of several processes, started by torchrun or Slurm.
    #[arg(long, value_name = "S", help_heading = "Computation")]
    timeout: Option<u64>,
    /// Print at the end how long each part of a step took.
    ///
    /// By layer and direction, on a GPU by kernel. For the fused engine and the modern network.
    #[arg(long, help_heading = "Computation")]
    profile: bool,
    /// Continue the run in DIR with its settings.
    ///
    /// Only --epochs, --device and --threads may change.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["Settings", "ModelArguments", "out"], help_heading = "Results")]
    resume: Option<PathBuf>,
    /// Folder for the results [default: runs/N, the next free number]
    #[arg(long, value_name = "DIR", help_heading = "Results")]
    out: Option<PathBuf>,
}

/// Settings that a resumed run takes from its config.json.
#[derive(Args)]
struct Settings {
    /// A set of settings; other options replace single ones.
    #[arg(long, conflicts_with_all = ["model", "init"], help_heading = "Training")]
    preset: Option<Preset>,
    /// The network: the modern one, or the original one of 1998 [default: modern]
    #[arg(long, value_parser = cli::choice::<Network>(), help_heading = "Network")]
    model: Option<Network>,
    /// Distort the training images, differently in each epoch [default with no value: paper]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "paper", help_heading = "Data")]
    distort: Option<Distort>,
    /// Loss function [default: cross-entropy, for the original network discriminative]
    #[arg(long, help_heading = "Training")]
    loss: Option<LossName>,
    /// Distance of the reject class in the discriminative loss [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Training")]
    j: Option<f64>,
    /// Factor of the original network's squared distances [default: 0.025]
    #[arg(long, value_name = "X", help_heading = "Network")]
    rbf_scale: Option<f64>,
    /// Train the original network's codes too.
    #[arg(long, help_heading = "Network")]
    train_rbf: bool,
    /// Folder of IDX files, gzip or not [default: the embedded MNIST]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    data: Option<PathBuf>,
    /// Use the first N training images only.
    #[arg(long, value_name = "N", help_heading = "Data")]
    limit: Option<i64>,
    /// Evaluate on the last N training images instead of the test images.
    ///
    /// They are held out: not trained on.
    #[arg(long, value_name = "N", help_heading = "Data")]
    validation: Option<i64>,
    /// Count the training images that were misclassified before their step.
    #[arg(long, help_heading = "Results")]
    train_error: bool,
    /// Images per step [default: 64, for sdlm 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    batch_size: Option<i64>,
    /// Order of the images [default: shuffled, for sdlm constant]
    #[arg(long, value_parser = cli::choice::<Order>(), help_heading = "Data")]
    order: Option<Order>,
    /// Training engine [default: auto]
    #[arg(long, value_parser = cli::choice::<EngineChoice>(), help_heading = "Computation")]
    engine: Option<EngineChoice>,
    /// Precision of convolutions and matrix products [default: fp32]
    #[arg(long, value_parser = cli::choice::<Precision>(), help_heading = "Computation")]
    precision: Option<Precision>,
    /// Use only kernels that give the same bits each time.
    ///
    /// On a GPU training is then slower.
    #[arg(long, help_heading = "Computation")]
    deterministic: bool,
    /// Optimizer [default: sgd]
    #[arg(long, help_heading = "Training")]
    optimizer: Option<OptimizerName>,
    /// Learning rate [default: 0.05, for adam and adamw 0.001, for sdlm 0.0005]
    ///
    /// With one-cycle it is the largest learning rate.
    #[arg(long, value_name = "X", help_heading = "Training")]
    lr: Option<f64>,
    /// Momentum of sgd [default: 0.9]
    #[arg(long, value_name = "X", help_heading = "Training")]
    momentum: Option<f64>,
    /// Dampening of sgd's momentum [default: 0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    dampening: Option<f64>,
    /// Nesterov momentum, with sgd.
    #[arg(long, help_heading = "Training")]
    nesterov: bool,
    /// Weight decay [default: 0, for adamw 0.01]
    #[arg(long, value_name = "X", help_heading = "Training")]
    weight_decay: Option<f64>,
    /// Damping of sdlm, the paper's mu [default: 0.02]
    #[arg(long, value_name = "X", help_heading = "Training")]
    mu: Option<f64>,
    /// Images on which sdlm estimates second derivatives [default: 500]
    #[arg(long, value_name = "N", help_heading = "Training")]
    hessian_samples: Option<usize>,
    /// Learning rate schedule [default: cosine, for sdlm paper]
    #[arg(long, help_heading = "Training")]
    schedule: Option<ScheduleName>,
    /// Epochs between two changes of the step schedule [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    step_size: Option<u32>,
    /// Factor of each change of the step schedule [default: 0.7]
    #[arg(long, value_name = "X", help_heading = "Training")]
    gamma: Option<f64>,
    /// Seed of the weights and of the order of the images [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    seed: Option<i64>,
    /// Start from the network and the weights in FILE.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "rbf_scale", "train_rbf", "c5", "classes"], help_heading = "Network")]
    init: Option<PathBuf>,
    /// Form of c5 [default: convolution]
    #[arg(long, value_parser = cli::choice::<C5>(), help_heading = "Network")]
    c5: Option<C5>,
    /// Number of classes, 2 to 1000 [default: 10]
    #[arg(long, value_name = "N", help_heading = "Network")]
    classes: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Preset {
    /// Lowest error with the modern network: ReLU, max pooling, distorted images, 120 epochs.
    Best,
    /// The training of the paper of 1998: --model original --optimizer sdlm.
    Paper,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Distort {
    /// Translation, scaling, squeezing and shear, in ranges estimated from the examples in the
    /// paper's Fig. 7.
    Paper,
    /// The paper's distortions in smaller ranges.
    Mild,
    /// The paper's distortions in smaller ranges, with rotation and elastic distortion as well.
    Best,
}

impl Distort {
    fn ranges(self) -> Distortions {
        match self {
            Self::Paper => Distortions::default(),
            Self::Mild => Distortions::mild(),
            Self::Best => Distortions::best(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum OptimizerName {
    Sgd,
    Adam,
    #[value(name = "adamw")]
    AdamW,
    /// Stochastic diagonal Levenberg-Marquardt, the paper's method for the original network.
    Sdlm,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum LossName {
    CrossEntropy,
    /// The paper's eq. 8: the distance to the code of the correct class.
    Distance,
    /// The paper's eq. 9: cross-entropy with a reject class.
    Discriminative,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum ScheduleName {
    Constant,
    Step,
    Cosine,
    #[value(name = "one-cycle")]
    OneCycle,
    /// The schedule of the paper of 1998: the learning rate for 2 epochs, 0.4 of it for 3, 0.2 for
    /// 3, 0.1 for 4, then 0.02.
    Paper,
}

impl Settings {
    /// Creates the settings of a new run. `init` holds the weights to start from, which also
    /// determine the network.
    fn config(self, options: &ModelOptions, init: Option<&Weights>) -> anyhow::Result<TrainConfig> {
        let sdlm = self.optimizer == Some(OptimizerName::Sdlm);
        let base = match self.preset {
            Some(Preset::Paper) => TrainConfig::paper(),
            Some(Preset::Best) => TrainConfig::best(),
            None if sdlm => TrainConfig { model: ModelConfig::default(), ..TrainConfig::paper() },
            None => TrainConfig::default(),
        };
        let mut model = match (init, self.model) {
            (Some(weights), _) => weights.config.clone(),
            (None, Some(Network::Original)) => ModelConfig::original(),
            (None, _) => base.model.clone(),
        };
        if init.is_none() {
            options.apply(&mut model);
        }
        if model.network != Network::Original && (self.rbf_scale.is_some() || self.train_rbf) {
            anyhow::bail!("--rbf-scale and --train-rbf go with --model original only");
        }
        model.rbf_scale = self.rbf_scale.unwrap_or(model.rbf_scale);
        model.train_rbf |= self.train_rbf;
        model.c5 = self.c5.unwrap_or(model.c5);
        model.classes = self.classes.unwrap_or(model.classes);
        Ok(TrainConfig {
            optimizer: self.optimizer(base.optimizer)?,
            schedule: self.schedule(base.schedule)?,
            learning_rate: self.lr.unwrap_or(match self.optimizer {
                Some(OptimizerName::Adam | OptimizerName::AdamW) => 1e-3,
                _ => base.learning_rate,
            }),
            loss: self.loss(model.network)?,
            distortions: self.distort.map(Distort::ranges).or(base.distortions),
            model,
            // An absolute path, so that --resume works from any folder.
            data: self.data.map(std::path::absolute).transpose()?,
            limit: self.limit,
            validation: self.validation,
            train_error: self.train_error,
            batch_size: self.batch_size.unwrap_or(base.batch_size),
            order: self.order.unwrap_or(base.order),
            engine: self.engine.unwrap_or(base.engine),
            precision: self.precision.unwrap_or(base.precision),
            deterministic: self.deterministic,
            seed: self.seed.unwrap_or(base.seed),
            init: self.init,
            ..base
        })
    }

    /// Reads the weights of --init. Notes about them are printed if `prints`.
    fn init(&self, options: &ModelOptions, prints: bool) -> anyhow::Result<Option<Weights>> {
        let Some(path) = &self.init else { return Ok(None) };
        let mut weights = Weights::read(path)?;
        weights.set(options)?;
        if prints {
            cli::note_all(path, &weights);
        }
        Ok(Some(weights))
    }

    fn optimizer(&self, base: OptimizerConfig) -> anyhow::Result<OptimizerConfig> {
        let weight_decay = self.weight_decay;
        let name = self.optimizer.unwrap_or(match base {
            OptimizerConfig::Sdlm { .. } => OptimizerName::Sdlm,
            _ => OptimizerName::Sgd,
        });
        if name != OptimizerName::Sgd
            && (self.momentum.is_some() || self.dampening.is_some() || self.nesterov)
        {
            anyhow::bail!("--momentum, --dampening and --nesterov go with --optimizer sgd only");
        }
        if name == OptimizerName::Sdlm && weight_decay.is_some() {
            anyhow::bail!("--weight-decay does not go with --optimizer sdlm");
        }
        if name != OptimizerName::Sdlm && (self.mu.is_some() || self.hessian_samples.is_some()) {
            anyhow::bail!("--mu and --hessian-samples go with --optimizer sdlm only");
        }
        let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
        Ok(match name {
            OptimizerName::Sgd => {
                let (decay, nesterov) = match base {
                    OptimizerConfig::Sgd { weight_decay, nesterov, .. } => (weight_decay, nesterov),
                    _ => (0.0, false),
                };
                OptimizerConfig::Sgd {
                    momentum: self.momentum.unwrap_or(0.9),
                    dampening: self.dampening.unwrap_or(0.0),
                    weight_decay: weight_decay.unwrap_or(decay),
                    nesterov: self.nesterov || nesterov,
                }
            }
            OptimizerName::Adam => OptimizerConfig::Adam {
                beta1,
                beta2,
                eps,
                weight_decay: weight_decay.unwrap_or(0.0),
            },
            OptimizerName::AdamW => OptimizerConfig::AdamW {
                beta1,
                beta2,
                eps,
                weight_decay: weight_decay.unwrap_or(0.01),
            },
            OptimizerName::Sdlm => OptimizerConfig::Sdlm {
                mu: self.mu.unwrap_or(0.02),
                samples: self.hessian_samples.unwrap_or(500),
            },
        })
    }

    fn loss(&self, network: Network) -> anyhow::Result<Loss> {
        let name = self.loss.unwrap_or(match network {
            Network::Modern => LossName::CrossEntropy,
            Network::Original => LossName::Discriminative,
        });
        if name != LossName::Discriminative && self.j.is_some() {
            anyhow::bail!("--j goes with --loss discriminative only");
        }
        Ok(match name {
            LossName::CrossEntropy => Loss::CrossEntropy,
            LossName::Distance => Loss::Distance,
            LossName::Discriminative => Loss::Discriminative { j: self.j.unwrap_or(1.0) },
        })
    }

    fn schedule(&self, base: Schedule) -> anyhow::Result<Schedule> {
        let name = self.schedule.unwrap_or(match base {
            Schedule::Paper => ScheduleName::Paper,
            _ => ScheduleName::Cosine,
        });
        if name != ScheduleName::Step && (self.step_size.is_some() || self.gamma.is_some()) {
            anyhow::bail!("--step-size and --gamma go with --schedule step only");
        }
        Ok(match name {
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::Step => Schedule::Step {
                step_size: self.step_size.unwrap_or(1),
                gamma: self.gamma.unwrap_or(0.7),
            },
            ScheduleName::Cosine => Schedule::Cosine,
            ScheduleName::OneCycle => Schedule::OneCycle,
            ScheduleName::Paper => Schedule::Paper,
        })
    }
}

fn main() -> ExitCode {
    let arguments: TrainArguments = cli::parse();
    cli::run(|| {
        if arguments.is_deterministic()? {
            set_deterministic()?;
        }
        match Launch::from_env()? {
            None => train(arguments, None),
            Some(launch) => train_with_others(arguments, launch),
        }
    })
}

/// Trains as one of several processes. An error is told to the others, and to torchrun.
fn train_with_others(arguments: TrainArguments, launch: Launch) -> anyhow::Result<ExitCode> {
    let (rank, error_file) = (launch.rank, launch.error_file.clone());
    let connect = || {
        let signal = stop_on_signal()?;
        let timeout = Duration::from_secs(arguments.timeout.unwrap_or(60).max(1));
        let peers = Arc::new(Peers::connect(launch, timeout, Arc::clone(&signal.received))?);
        anyhow::Ok((signal, peers))
    };
    let result = connect().and_then(|(signal, peers)| {
        let result = train(arguments, Some((signal, Arc::clone(&peers))));
        match &result {
            Ok(_) => peers.finish(),
            Err(error) => peers.report(&format!("{error:#}")),
        }
        result
    });
    result.map_err(|error| {
        if let Some(file) = error_file {
            let message = serde_json::json!({ "message": format!("rank {rank}: {error:#}") });
            let _ = std::fs::write(file, message.to_string());
        }
        error.context(format!("rank {rank}"))
    })
}

fn train(
    arguments: TrainArguments,
    others: Option<(StopSignal, Arc<Peers>)>,
) -> anyhow::Result<ExitCode> {
    let (signal, peers) = match others {
        Some((signal, peers)) => (signal, Some(peers)),
        None => (stop_on_signal()?, None),
    };
    let peers = peers.as_ref();
    let prints = peers.is_none_or(|peers| peers.is_first());
    let options = arguments.model.options();
    let init = arguments.settings.init(&options, prints)?;
    let folder = match peers {
        None => arguments.folder()?,
        Some(peers) => arguments.shared_folder(peers)?,
    };
    let mut config = match &folder {
        Folder::Old(folder) => read_config(folder)?,
        Folder::New(_) | Folder::Numbered(_) => {
            arguments.settings.config(&options, init.as_ref())?
        }
    };
    config.epochs = arguments.epochs.unwrap_or(config.epochs);
    config.device = arguments.device.unwrap_or(config.device);
    config.threads = arguments.threads.or(config.threads);
    let (device, device_name) = config.device.open()?;
    let place = match peers {
        None => Place::from(device),
        Some(peers) => {
            let threads = config.threads.or_else(|| threads_of_rank(peers.launch()));
            libtorch::set_threads(threads)?;
            Place { device: device_of_rank(device, peers.launch()), peers: Some(Arc::clone(peers)) }
        }
    };
    if peers.is_none() {
        libtorch::set_threads(config.threads)?;
    }
    let path = folder.path().to_owned();
    let mut run = match folder {
        Folder::Old(folder) => Run::resume(config, &folder, place)?,
        Folder::New(folder) => Run::start(config, init, &folder, place)?,
        Folder::Numbered(folder) => {
            Run::start(config, init, &folder, place).inspect_err(|_| {
                // The folder is removed only if it is still empty.
                let _ = std::fs::remove_dir(&folder);
            })?
        }
    };
    if arguments.profile {
        run.measure()?;
    }
    let stop = peers.map_or(&*signal.received, |peers| peers.stop_agreed());
    let outcome = if prints {
        let (train, test) = run.samples();
        let kind = if run.config().validation.is_some() { "validation" } else { "test" };
        let table = EpochTable::new(run.config(), console::Term::stdout().size_checked());
        let parameters = Summary::new(&run.config().model).total.parameters;
        let ranks = peers.map_or_else(String::new, |peers| {
            format!(" on each of {} processes", peers.launch().size)
        });
        let _ = cli::print(format!(
            "LeNet-5, {parameters} parameters; {train} training and {test} {kind} images; device \
             {device_name}{ranks}\n{} to go; results in {}\n{}\n",
            epochs(run.config().epochs.saturating_sub(run.epoch())),
            files::shown(&path),
            table.header(),
        ));
        run.train(stop, &mut Display { table, bar: None })?
    } else {
        run.train(stop, &mut ())?
    };
    if let Some(table) = run.profile()?.filter(|_| prints) {
        let _ = cli::print(table);
    }
    Ok(match outcome {
        Outcome::Finished => ExitCode::SUCCESS,
        Outcome::Interrupted => {
            if prints {
                cli::note(format_args!(
                    "stopped; go on with: train --resume {}",
                    files::shown(&path)
                ));
            }
            match peers {
                None => ExitCode::from(*signal.exit_code.wait()),
                // The signal may have reached another process only.
                Some(_) => ExitCode::from(*signal.exit_code.get().unwrap_or(&130)),
            }
        }
    })
}

/// The folder of a run.
enum Folder {
    /// It holds a run, which goes on.
    Old(PathBuf),
    /// It is for a new run.
    New(PathBuf),
    /// It is for a new run, and was made for it.
    Numbered(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Old(path) | Self::New(path) | Self::Numbered(path) => path,
        }
    }
}

impl TrainArguments {
    /// Whether only deterministic kernels are allowed.
    fn is_deterministic(&self) -> anyhow::Result<bool> {
        Ok(match &self.resume {
            Some(folder) => read_config(folder)?.deterministic,
            None => self.settings.deterministic,
        })
    }

    fn folder(&self) -> lenet5::Result<Folder> {
        Ok(match (&self.resume, &self.out) {
            (Some(folder), _) => Folder::Old(folder.clone()),
            (None, Some(folder)) => Folder::New(folder.clone()),
            (None, None) => Folder::Numbered(new_run_folder("runs".as_ref())?),
        })
    }

    /// The folder that rank 0 chooses. If torchrun has restarted the job, the run goes on from its
    /// checkpoint.
    fn shared_folder(&self, peers: &Peers) -> anyhow::Result<Folder> {
        const KEY: &str = "folder";
        let mut chosen = None;
        if peers.is_first() {
            let before = if peers.launch().restarts > 0 { peers.remembered(KEY)? } else { None };
            let folder = match (before, &self.resume) {
                (Some(bytes), None) => {
                    let path = PathBuf::from(String::from_utf8(bytes)?);
                    let has_checkpoint = checkpoint_path(&path).exists();
                    if has_checkpoint { Folder::Old(path) } else { Folder::New(path) }
                }
                _ => self.folder()?,
            };
            let path = std::path::absolute(folder.path())?;
            let path = path.to_str().context("expected a folder whose path is UTF-8")?;
            peers.remember(KEY, path.as_bytes())?;
            let is_old = matches!(folder, Folder::Old(_));
            chosen = Some((folder, serde_json::to_vec(&(is_old, path))?));
        }
        let shared = peers.from_first(KEY, chosen.as_ref().map(|(_, shared)| shared.as_slice()))?;
        if let Some((folder, _)) = chosen {
            return Ok(folder);
        }
        let (is_old, path): (bool, PathBuf) = serde_json::from_slice(&shared)?;
        Ok(if is_old { Folder::Old(path) } else { Folder::New(path) })
    }
}

/// The CPU threads of a process that shares its machine with others, if nothing else sets them.
fn threads_of_rank(launch: &Launch) -> Option<i32> {
    let cores = std::thread::available_parallelism().ok()?.get();
    let unset = std::env::var_os("OMP_NUM_THREADS").is_none();
    unset.then(|| (cores / launch.local_size).clamp(1, 1024) as i32)
}

/// The GPU of a process that shares its machine with others.
fn device_of_rank(device: Device, launch: &Launch) -> Device {
    let gpus = tch::Cuda::device_count().max(1) as usize;
    match device {
        Device::Cuda(0) => Device::Cuda(launch.local_rank % gpus),
        other => other,
    }
}

/// Shows a run on the terminal: a bar for the current epoch, and a row for each epoch that is done.
struct Display {
    table: EpochTable,
    bar: Option<cli::ProgressBar>,
}

impl Progress for Display {
    fn begin(&mut self, epoch: u32, epochs: u32, images: u64) {
        self.bar = Some(cli::ProgressBar::new(&format!("epoch {epoch}/{epochs}"), images));
    }

    fn set(&mut self, images: u64) {
        if let Some(bar) = &mut self.bar {
            bar.set(images);
        }
    }

    fn end(&mut self) {
        self.bar = None;
    }

    fn report(&mut self, metrics: &EpochMetrics) {
        // A closed pipe does not stop training, as the results are in the folder.
        drop(cli::print(self.table.row(metrics)));
    }
}

/// Allows only deterministic kernels from now on.
#[allow(unsafe_code)]
fn set_deterministic() -> lenet5::Result<()> {
    // SAFETY: the program has started no other thread yet, and libtorch starts its threads later,
    // with its first operation.
    unsafe { libtorch::deterministic() }
}

/// The first signal that the program received.
#[derive(Clone, Default)]
struct StopSignal {
    received: Arc<AtomicBool>,
    /// The exit code of the program after the signal.
    exit_code: Arc<OnceLock<u8>>,
}

/// Makes the first signal stop the training loop after the current step. A second one ends the
/// program at once.
fn stop_on_signal() -> anyhow::Result<StopSignal> {
    let signal = StopSignal::default();
    let StopSignal { received, exit_code } = signal.clone();
    cli::on_signal(move |code| {
        received.store(true, Ordering::Relaxed);
        let _ = exit_code.set(code);
    })
    .context("handling signals")?;
    Ok(signal)
}

fn epochs(count: u32) -> String {
    if count == 1 { "1 epoch".to_owned() } else { format!("{count} epochs") }
}

/// A column of the table: its name, its width, and its value in an epoch.
type Column = (String, usize, fn(&EpochMetrics) -> String);

/// The table of epochs.
struct EpochTable(Vec<Column>);

impl EpochTable {
    /// Creates the table. `size` is the number of rows and columns of the terminal, if stdout is
    /// one. Columns that do not fit are left out, as `metrics.jsonl` holds all of them.
    fn new(config: &TrainConfig, size: Option<(u16, u16)>) -> Self {
        let measured = if config.validation.is_some() { "valid." } else { "test" };
        let mut columns: Vec<(u8, Column)> = vec![
            (0, ("epoch".into(), 5, |m| m.epoch.to_string())),
            (1, ("train loss".into(), 12, |m| format!("{:.5}", m.train_loss))),
            (2, (format!("{measured} loss"), 11, |m| format!("{:.5}", m.test_loss))),
            (
                3,
                ("train error %".into(), 15, |m| {
                    format!("{:.2}", m.train_error_percent.unwrap_or(0.0))
                }),
            ),
            (0, (format!("{measured} error %"), 15, |m| format!("{:.2}", m.test_error_percent))),
            (4, ("learning rate".into(), 15, |m| format!("{:.6}", m.learning_rate))),
            (6, ("seconds".into(), 9, |m| format!("{:.2}", m.seconds))),
            (7, ("images/s".into(), 10, |m| format!("{:.0}", m.images_per_second))),
            (5, ("parameter rates".into(), 18, |m| range(m.parameter_rates))),
        ];
        columns.retain(|(_, (name, ..))| match name.as_str() {
            "train error %" => config.train_error,
            "parameter rates" => matches!(config.optimizer, OptimizerConfig::Sdlm { .. }),
            _ => true,
        });
        let room = size.map_or(usize::MAX, |(_, columns)| usize::from(columns));
        for priority in (1..=7).rev() {
            if columns.iter().map(|(_, (_, width, _))| width).sum::<usize>() <= room {
                break;
            }
            columns.retain(|(rank, _)| *rank != priority);
        }
        Self(columns.into_iter().map(|(_, column)| column).collect())
    }

    fn header(&self) -> String {
        self.0.iter().map(|(name, width, _)| format!("{name:>width$}")).collect()
    }

    fn row(&self, metrics: &EpochMetrics) -> String {
        let cell = |(_, width, value): &Column| format!("{:>width$}", value(metrics));
        self.0.iter().map(cell).collect::<String>() + "\n"
    }
}

fn range(rates: Option<(f32, f32)>) -> String {
    rates.map_or_else(String::new, |(smallest, largest)| format!("{smallest:.1e}..{largest:.1e}"))
}
