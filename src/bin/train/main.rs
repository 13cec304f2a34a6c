//! Trains LeNet-5: `cargo run --release --bin train`

mod display;
mod ranks;
mod settings;
mod sweep;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use clap::Parser;
use lenet5::distributed::{Launch, Peers};
use lenet5::engine::Place;
use lenet5::libtorch;
use lenet5::model::Summary;
use lenet5::train::{Outcome, Run, read_config};
use lenet5_cli::{self as cli, ModelArguments};
use lenet5_core::files;

use display::{Display, EpochTable, epochs};
use ranks::{Folder, device_of_rank, threads_of_rank, train_with_others};
use settings::{Changes, Settings};
use sweep::{Axis, Seeds, sweep};

/// Trains LeNet-5 on MNIST, or on your own images.
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
  train --data letters --classes 26        your own images
  train --preset adapt --init weights/lenet5.pt --data mine
                                           teach a network your hand
  train --seeds 1..5 --grid lr=0.02,0.05   ten runs, and a table of mean errors
  train --resume runs/1                    continue a run"
)]
struct TrainArguments {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    changes: Changes,
    /// Seconds after which another process that does not answer is given up [default: 60]
    ///
    /// For a job of several processes, started by torchrun or Slurm.
    #[arg(long, value_name = "S", help_heading = "Computation", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
    /// Print at the end how long each part of a step took.
    ///
    /// By layer and direction, on a GPU by kernel. For the fused engine and the modern network.
    #[arg(long, help_heading = "Computation")]
    profile: bool,
    /// Continue the run in DIR with its settings.
    ///
    /// Only --epochs, --device and --threads may change, and --tensorboard may be added.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["Settings", "ModelArguments", "out"], help_heading = "Results")]
    resume: Option<PathBuf>,
    /// One run for each of these seeds: 1..20, or 1,5,7
    ///
    /// Each run has a folder of its own in the folder of results. The table at the end has the mean
    /// and the standard deviation of the test error, and is written to sweep.json. The same command
    /// with the same --out goes on where it was stopped. Several processes share the runs.
    #[arg(long, value_name = "A..B", conflicts_with_all = ["resume", "seed", "profile"], help_heading = "Many runs")]
    seeds: Option<Seeds>,
    /// One run for each of these values of an option; repeated, for all combinations
    #[arg(long, value_name = "NAME=V,V", conflicts_with_all = ["resume", "profile"], help_heading = "Many runs")]
    grid: Vec<Axis>,
    /// Folder for the results [default: runs/N, the next free number]
    #[arg(long, value_name = "DIR", help_heading = "Results")]
    out: Option<PathBuf>,
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

fn train(
    arguments: TrainArguments,
    others: Option<(StopSignal, Arc<Peers>)>,
) -> anyhow::Result<ExitCode> {
    let (signal, peers) = match others {
        Some((signal, peers)) => (signal, Some(peers)),
        None => (stop_on_signal()?, None),
    };
    let peers = peers.as_ref();
    if arguments.seeds.is_some() || !arguments.grid.is_empty() {
        return sweep(&arguments, &signal, peers);
    }
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
    arguments.changes.apply(&mut config);
    let (device, device_name) = config.device.open()?;
    let launch = peers.map(|peers| peers.launch());
    libtorch::set_threads(config.threads.or_else(|| launch.and_then(threads_of_rank)))?;
    let device = launch.map_or(device, |launch| device_of_rank(device, launch));
    let place = Place { device, peers: peers.cloned() };
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
    for note in run.notes().iter().filter(|_| prints) {
        cli::note(format_args!("note: {note}"));
    }
    let outcome = if prints {
        let (train, test) = run.samples();
        let kind = if run.config().validation.is_some() { "validation" } else { "test" };
        let table = EpochTable::new(run.config(), console::Term::stdout().size_checked());
        let parameters = Summary::new(&run.config().model).total.parameters;
        let ranks = peers.map_or_else(String::new, |peers| {
            let over = peers.backend().map_or_else(String::new, |name| format!(", over {name}"));
            format!(" on each of {} processes{over}", peers.launch().size)
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
