//! Many runs, one for each seed and each combination of settings. Several processes share them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use lenet5::distributed::{Launch, Peers};
use lenet5::engine::Place;
use lenet5::libtorch;
use lenet5::train::{EpochMetrics, Outcome, Run, checkpoint_path, read_metrics};
use lenet5_cli as cli;
use lenet5_core::files;
use serde::{Deserialize, Serialize};

use crate::ranks::{device_of_rank, threads_of_rank};
use crate::{StopSignal, TrainArguments};

/// The options that a sweep replaces in each run.
const OWN_OPTIONS: [&str; 4] = ["--seeds", "--grid", "--out", "--seed"];

/// The seeds of a sweep: `1..20`, with both ends, or `1,5,7`.
#[derive(Clone, Debug, PartialEq)]
pub struct Seeds(Vec<i64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number = text.trim().parse::<i64>();
            number.map_err(|_| format!("expected seeds such as 1..20 or 1,5,7, found {text:?}"))
        };
        let seeds: Vec<i64> = match text.split_once("..") {
            Some((first, last)) => (number(first)?..=number(last)?).take(1_000_001).collect(),
            None => text.split(',').map(number).collect::<Result<_, _>>()?,
        };
        match seeds.len() {
            0 => Err("expected at least one seed: the first one is not above the last one".into()),
            1_000_001 => Err("expected at most 1,000,000 seeds".into()),
            _ => Ok(Self(seeds)),
        }
    }
}

/// The values of an option in a sweep: `lr=0.01,0.05`.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    name: String,
    values: Vec<String>,
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected an option and its values, lr=0.01,0.05, found {text:?}");
        let (name, values) = text.split_once('=').ok_or_else(expected)?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(is_name) || values.iter().any(String::is_empty) {
            return Err(expected());
        }
        Ok(Self { name: name.to_owned(), values })
    }
}

/// A run of a sweep.
struct Planned {
    /// Its settings that differ between runs, without the seed, such as `lr=0.05 batch-size=32`.
    group: String,
    /// The name of its folder.
    name: String,
    arguments: TrainArguments,
}

/// The result of a run.
#[derive(Clone, Serialize, Deserialize)]
struct RunResult {
    folder: String,
    group: String,
    /// The measurements of its last epoch, or the reason why there are none.
    outcome: Result<EpochMetrics, String>,
}

/// The results of all seeds of one combination of settings.
#[derive(Serialize)]
struct GroupResult {
    settings: String,
    runs: usize,
    failed: usize,
    test_error_percent: Spread,
    test_loss: Spread,
}

/// The mean and the standard deviation (with n - 1) of the runs that did not fail.
#[derive(Serialize)]
struct Spread {
    mean: f64,
    standard_deviation: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_deviation =
            if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
        Self { mean, standard_deviation }
    }
}

/// The runs of a sweep: all combinations of the settings, each with all seeds.
fn plan(arguments: &TrainArguments) -> Vec<Planned> {
    let mut combinations: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for axis in &arguments.grid {
        let extended = combinations.iter().flat_map(|before| {
            axis.values.iter().map(|value| {
                let mut combination = before.clone();
                combination.push((axis.name.clone(), value.clone()));
                combination
            })
        });
        combinations = extended.collect();
    }
    let seeds = match (&arguments.seeds, arguments.settings.seed) {
        (Some(Seeds(seeds)), _) => seeds.clone(),
        (None, seed) => vec![seed.unwrap_or(1)],
    };
    let common = common_options();
    let mut planned = Vec::new();
    for combination in &combinations {
        let pairs = |joint: &str| {
            let pairs: Vec<String> =
                combination.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.join(joint)
        };
        for seed in &seeds {
            let own = combination.iter().map(|(name, value)| format!("--{name}={value}"));
            let options = common.iter().cloned().chain(own).chain([format!("--seed={seed}")]);
            let name = format!("{},seed={seed}", pairs(","));
            planned.push(Planned {
                group: pairs(" "),
                name: name.trim_start_matches(',').replace('/', "-"),
                arguments: TrainArguments::parse_from(options),
            });
        }
    }
    planned
}

/// The options of the command line without those of [`OWN_OPTIONS`].
fn common_options() -> Vec<String> {
    let mut options = Vec::new();
    let mut given = std::env::args();
    while let Some(option) = given.next() {
        if OWN_OPTIONS.contains(&option.as_str()) {
            given.next();
        } else if !OWN_OPTIONS.iter().any(|own| option.starts_with(&format!("{own}="))) {
            options.push(option);
        }
    }
    options
}

/// Runs a sweep. Each process takes every nth run; the first one prints and writes the table.
pub fn sweep(
    arguments: &TrainArguments,
    signal: &StopSignal,
    peers: Option<&Arc<Peers>>,
) -> anyhow::Result<ExitCode> {
    let planned = plan(arguments);
    let count = planned.len();
    let folder = match peers {
        None => arguments.folder()?,
        Some(peers) => arguments.shared_folder(peers)?,
    };
    let folder = folder.path();
    let launch = peers.map(|peers| peers.launch());
    let (rank, size) = launch.map_or((0, 1), |launch| (launch.rank, launch.size));
    libtorch::set_threads(arguments.changes.threads.or_else(|| launch.and_then(threads_of_rank)))?;
    let lost = Arc::new(AtomicBool::new(false));
    if let Some(peers) = peers {
        peers.store().show_life(Arc::clone(&lost), Arc::clone(&signal.received));
    }
    if rank == 0 {
        let shown = files::shown(folder);
        let _ = cli::print(format!("{} runs; results in {shown}\n", count));
    }
    let width = planned.iter().map(|run| run.name.len()).max().unwrap_or(0);
    let print = |result: &RunResult| {
        let _ = cli::print(match &result.outcome {
            Ok(metrics) => {
                format!("{:<width$}  {:>6.2} %\n", result.folder, metrics.test_error_percent)
            }
            Err(error) => format!("{:<width$}  failed: {error}\n", result.folder),
        });
    };
    let mut results: Vec<Option<RunResult>> = vec![None; count];
    for (index, run) in planned.into_iter().enumerate().filter(|(index, _)| index % size == rank) {
        let folder = folder.join(&run.name);
        let outcome = match run_one(run.arguments, &folder, launch, &signal.received) {
            Ok(Some(metrics)) => Ok(metrics),
            Ok(None) if lost.load(Ordering::Relaxed) => {
                anyhow::bail!("the store of rank 0 or of torchrun does not answer")
            }
            Ok(None) => return stopped(signal, peers),
            Err(error) => Err(format!("{error:#}")),
        };
        let result = RunResult { folder: run.name, group: run.group, outcome };
        if rank == 0 {
            print(&result);
        } else if let Some(peers) = peers {
            let store = peers.store();
            store.set(&store.key(&format!("sweep/{index}")), &serde_json::to_vec(&result)?)?;
        }
        results[index] = Some(result);
    }
    if rank != 0 {
        return Ok(ExitCode::SUCCESS);
    }
    for (index, missing) in results.iter_mut().enumerate() {
        if let (None, Some(peers)) = (&missing, peers) {
            let key = format!("sweep/{index}");
            let found = peers.store().wait_alive(index % size, &key, &signal.received)?;
            let Some(text) = found else {
                return stopped(signal, Some(peers));
            };
            let result: RunResult = serde_json::from_slice(&text)?;
            print(&result);
            *missing = Some(result);
        }
    }
    let results: Vec<RunResult> = results.into_iter().flatten().collect();
    report(folder, &results)
}

/// Ends this process after a signal to it or to another one. All others stop too.
fn stopped(signal: &StopSignal, peers: Option<&Arc<Peers>>) -> anyhow::Result<ExitCode> {
    if peers.is_none_or(|peers| peers.is_first()) {
        cli::note("stopped; the same command with the same --out goes on");
    }
    if let Some(peers) = peers {
        peers.store().stop_all()?;
    }
    Ok(ExitCode::from(*signal.exit_code.get().unwrap_or(&130)))
}

/// Starts a run, or goes on with it. Returns the measurements of its last epoch; `None` if it was
/// stopped.
fn run_one(
    arguments: TrainArguments,
    folder: &Path,
    launch: Option<&Launch>,
    stop: &AtomicBool,
) -> anyhow::Result<Option<EpochMetrics>> {
    if stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let options = arguments.model.options();
    let init = arguments.settings.init(&options, false)?;
    let mut config = arguments.settings.config(&options, init.as_ref())?;
    arguments.changes.apply(&mut config);
    let (device, _) = config.device.open()?;
    let device = launch.map_or(device, |launch| device_of_rank(device, launch));
    let mut run = match checkpoint_path(folder).exists() {
        true => Run::resume(config, folder, device)?,
        false => Run::start(config, init, folder, Place::from(device))?,
    };
    match run.train(stop, &mut ())? {
        Outcome::Interrupted => Ok(None),
        Outcome::Finished => {
            let last = read_metrics(folder)?.pop();
            last.map(Some).ok_or_else(|| anyhow::anyhow!("the run has no epoch"))
        }
    }
}

/// Prints the table of all combinations of settings, and writes `sweep.json`.
fn report(folder: &Path, results: &[RunResult]) -> anyhow::Result<ExitCode> {
    let mut groups: Vec<GroupResult> = Vec::new();
    for group in results.chunk_by(|a, b| a.group == b.group) {
        let measured: Vec<&EpochMetrics> =
            group.iter().filter_map(|result| result.outcome.as_ref().ok()).collect();
        let spread = |value: fn(&EpochMetrics) -> f64| {
            Spread::of(&measured.iter().map(|metrics| value(metrics)).collect::<Vec<_>>())
        };
        groups.push(GroupResult {
            settings: group[0].group.clone(),
            runs: group.len(),
            failed: group.len() - measured.len(),
            test_error_percent: spread(|metrics| metrics.test_error_percent),
            test_loss: spread(|metrics| metrics.test_loss),
        });
    }
    let width = groups.iter().map(|group| group.settings.len()).max().unwrap_or(0).max(8);
    let mut table = format!("\n{:<width$}  runs  test error %   test loss\n", "settings");
    for group in &groups {
        let GroupResult { test_error_percent: error, test_loss: loss, .. } = group;
        table += &format!(
            "{:<width$}  {:>4}  {:.3} ± {:.3}  {:.4} ± {:.4}\n",
            group.settings,
            group.runs - group.failed,
            error.mean,
            error.standard_deviation,
            loss.mean,
            loss.standard_deviation
        );
    }
    let _ = cli::print(table);
    let text = serde_json::json!({ "groups": groups, "runs": results });
    let path: PathBuf = folder.join("sweep.json");
    files::write_atomic(&path, (serde_json::to_string_pretty(&text)? + "\n").as_bytes())?;
    let failed = results.iter().filter(|result| result.outcome.is_err()).count();
    if failed > 0 {
        anyhow::bail!("{failed} of {} runs failed; see {}", results.len(), files::shown(&path));
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_and_axes_are_parsed() {
        assert_eq!("1..3".parse(), Ok(Seeds(vec![1, 2, 3])));
        assert_eq!("7, 5".parse(), Ok(Seeds(vec![7, 5])));
        for wrong in ["3..1", "", "a..b", "1..x", "1..99999999999"] {
            assert!(wrong.parse::<Seeds>().is_err(), "{wrong}");
        }
        let axis = Axis { name: "lr".into(), values: vec!["0.1".into(), "0.2".into()] };
        assert_eq!("lr=0.1,0.2".parse(), Ok(axis));
        for wrong in ["lr", "=1", "lr=", "lr=1,,2", "a b=1"] {
            assert!(wrong.parse::<Axis>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn spreads_are_those_of_samples() {
        let Spread { mean, standard_deviation } = Spread::of(&[1.0, 2.0, 4.0, 5.0]);
        assert_eq!(mean, 3.0);
        assert!((standard_deviation - (10.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Spread::of(&[2.0]).standard_deviation, 0.0);
    }
}
