//! Stopped, killed and resumed runs give the same bits, even if Python continues one in between.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use lenet5::Array;
use lenet5::engine::OptimizerState;
use lenet5::train::{EpochMetrics, checkpoint_path};
use lenet5::weights::{Checkpoint, Weights};
use lenet5_core::DType;
use tempfile::TempDir;

use crate::util::{
    Bits, Ended, fixtures, handling, optimizer_tensors, program, run, shared, small_mnist, temp,
};

const EPOCHS: u32 = 3;

/// The optimizers with their settings. The learning rate is constant, as the script in Python has
/// no schedule.
const OPTIMIZERS: [(&str, &[&str]); 5] = [
    (
        "sgd",
        &["--engine=libtorch", "--momentum=0.9", "--weight-decay=0.001", "--schedule=constant"],
    ),
    ("adam", &["--engine=libtorch", "--optimizer=adam", "--schedule=constant"]),
    ("adamw", &["--engine=libtorch", "--optimizer=adamw", "--schedule=constant"]),
    ("sdlm", &["--model=original", "--optimizer=sdlm", "--distort", "--train-error"]),
    ("fused", &["--engine=fused", "--optimizer=adamw", "--distort=best", "--train-error"]),
];

/// Runs `train` in a new folder, with 250 steps per epoch.
fn start(settings: &[&str], epochs: u32, out: &Path) -> Command {
    let mut command = program("train");
    command
        .args(settings)
        .args(["--batch-size=4", "--threads=1", "--device=cpu"])
        .arg(format!("--epochs={epochs}"))
        .arg("--data")
        .arg(small_mnist())
        .arg("--out")
        .arg(out);
    command
}

fn resume(out: &Path) -> Command {
    let mut command = program("train");
    command.arg("--resume").arg(out);
    command
}

/// A finished run that was never stopped, for each of `OPTIMIZERS`; created once.
fn uninterrupted(index: usize) -> PathBuf {
    static FOLDERS: [OnceLock<PathBuf>; 5] = [const { OnceLock::new() }; 5];
    let folder = FOLDERS[index].get_or_init(|| {
        let folder = shared();
        let ended: Ended =
            start(OPTIMIZERS[index].1, EPOCHS, &folder.join("run")).output().unwrap().into();
        ended.success();
        folder
    });
    folder.join("run")
}

/// A running program, which is killed if a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn new(mut command: Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("the program starts"))
    }

    /// Waits until training begins, which the head of the table shows. The program may already have
    /// ended.
    fn until_training(mut self) -> Self {
        let stdout = self.0.stdout.take().unwrap();
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        while stdout.read_line(&mut line).unwrap() > 0 && !line.starts_with("epoch ") {
            line.clear();
        }
        // The rest of the output is small, and stays in the pipe.
        self.0.stdout = Some(stdout.into_inner());
        self
    }

    #[allow(unsafe_code)]
    fn signal(&self, signal: i32) {
        // SAFETY: the signal goes to a child process that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as i32, signal) }, 0);
    }

    /// Sends SIGINT, as Ctrl-C does.
    fn interrupt(mut self) -> Ended {
        self.signal(libc::SIGINT);
        self.end()
    }

    fn end(&mut self) -> Ended {
        let mut text = [String::new(), String::new()];
        let pipes: [&mut dyn std::io::Read; 2] =
            [self.0.stdout.as_mut().unwrap(), self.0.stderr.as_mut().unwrap()];
        for (pipe, text) in pipes.into_iter().zip(&mut text) {
            pipe.read_to_string(text).unwrap();
        }
        let [stdout, stderr] = text;
        Ended { code: self.0.wait().unwrap().code(), stdout, stderr }
    }

    /// Sends SIGKILL, and returns whether it came before the end.
    fn kill(mut self) -> bool {
        self.0.kill().unwrap();
        self.0.wait().unwrap().signal() == Some(9)
    }
}

fn metrics(folder: &Path) -> Vec<EpochMetrics> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn checkpoint(folder: &Path) -> Checkpoint {
    Checkpoint::read(&checkpoint_path(folder)).unwrap()
}

/// Asserts that two finished runs have the same results: weights, checkpoint, metrics.
fn assert_same(found: &Path, expected: &Path) {
    let mut bits = Bits::default();
    let [ours, theirs] =
        [found, expected].map(|folder| Weights::read(&folder.join("model.pt")).unwrap());
    for ((name, ours), (_, theirs)) in ours.tensors.iter().zip(&theirs.tensors) {
        bits.compare_arrays(&format!("model.pt {name}"), ours, theirs);
    }
    let [ours, theirs] = [found, expected].map(checkpoint);
    for ((name, ours), (_, theirs)) in ours.weights.tensors.iter().zip(&theirs.weights.tensors) {
        bits.compare_arrays(&format!("checkpoint {name}"), ours, theirs);
    }
    let mut states = 0;
    let (found, expected) =
        (optimizer_tensors(&ours.optimizer), optimizer_tensors(&theirs.optimizer));
    for ((name, ours), (_, theirs)) in found.iter().zip(&expected) {
        bits.compare(&format!("state {states} {name}"), ours, theirs);
        states += 1;
    }
    assert!([10, 12, 20].contains(&states), "{states}");
    assert_eq!(found.len(), expected.len());
    bits.compare_arrays("generator", &ours.generator, &theirs.generator);
    bits.check(2 * ours.weights.tensors.len() + states + 1);
    assert_eq!((ours.epoch, ours.step), (theirs.epoch, theirs.step));
}

/// Asserts that there is one line per epoch, with the same measurements.
fn assert_same_metrics(found: &Path, expected: &Path) {
    let (ours, theirs) = (metrics(found), metrics(expected));
    let epochs = |metrics: &[EpochMetrics]| metrics.iter().map(|m| m.epoch).collect::<Vec<_>>();
    assert_eq!(epochs(&ours), [1, 2, 3]);
    assert_eq!(epochs(&theirs), [1, 2, 3]);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.test_loss, theirs.test_loss);
        assert_eq!(ours.test_error_percent, theirs.test_error_percent);
        assert_eq!(ours.learning_rate, theirs.learning_rate);
        // This is a sum in float64, whose order differs if the epoch was interrupted.
        let difference = (ours.train_loss - theirs.train_loss).abs();
        assert!(difference < 1e-12 * theirs.train_loss, "{difference:e}");
        assert_eq!(ours.train_error_percent, theirs.train_error_percent);
    }
}

#[test]
fn stopped_by_ctrl_c_and_resumed() {
    for (index, (name, settings)) in OPTIMIZERS.into_iter().enumerate() {
        let folder = temp();
        let out = folder.path().join("run");
        let mut command = start(settings, EPOCHS, &out);
        let mut within_epochs = 0;
        for pause in [20, 50, 10] {
            let running = Running::new(command).until_training();
            command = resume(&out);
            sleep(Duration::from_millis(pause));
            let ended = running.interrupt();
            if ended.code == Some(0) {
                break; // a very fast machine has already finished
            }
            assert_eq!(ended.code, Some(130), "{name}: {ended:?}");
            assert_eq!(
                ended.stderr.lines().last().unwrap(),
                format!("stopped; go on with: train --resume {}", out.display())
            );
            let checkpoint = checkpoint(&out);
            within_epochs += usize::from(checkpoint.step > 0);
            assert_eq!(metrics(&out).len(), checkpoint.epoch as usize);
        }
        assert!(within_epochs >= 1, "{name}: no stop came within an epoch");
        Ended::from(command.output().unwrap()).success();
        assert_same(&out, &uninterrupted(index));
        assert_same_metrics(&out, &uninterrupted(index));
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let folder = temp();
    for (signal, code) in SIGNALS {
        let out = folder.path().join(code.to_string());
        let mut running = Running::new(start(OPTIMIZERS[0].1, 500, &out)).until_training();
        running.signal(signal);
        running.signal(signal);
        assert_eq!(running.end().code, Some(code));
        checkpoint(&out);
    }
}

/// Tests each signal that stops a run, and the exit code that a shell reports for it.
const SIGNALS: [(i32, i32); 3] = [(libc::SIGHUP, 129), (libc::SIGINT, 130), (libc::SIGTERM, 143)];

#[test]
fn each_signal_has_its_exit_code() {
    let folder = temp();
    for (signal, code) in SIGNALS {
        let out = folder.path().join(code.to_string());
        let mut running = Running::new(start(OPTIMIZERS[0].1, 500, &out)).until_training();
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let note = format!("stopped; go on with: train --resume {}\n", out.display());
        assert!(ended.stderr.ends_with(&note), "{ended:?}");
        let epochs = checkpoint(&out).epoch + 1;
        Ended::from(resume(&out).arg(format!("--epochs={epochs}")).output().unwrap()).success();
        assert_eq!(checkpoint(&out).epoch, epochs);
    }
}

/// Tests signals that are ignored at the start: SIGHUP under `nohup`, SIGINT in the background of a
/// script.
#[test]
fn an_ignored_signal_stays_ignored() {
    let folder = temp();
    let out = folder.path().join("run");
    let mut command = start(OPTIMIZERS[0].1, 500, &out);
    handling([libc::SIGHUP, libc::SIGINT], libc::SIG_IGN, &mut command);
    let mut running = Running::new(command).until_training();
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGHUP, libc::SIGINT] {
        running.signal(signal);
    }
    // This must be the first signal that the program handles, as the exit code shows.
    running.signal(libc::SIGTERM);
    let ended = running.end();
    assert_eq!(ended.code, Some(143), "{ended:?}");
    assert!(ended.stderr.contains("stopped; go on with"), "{ended:?}");
}

/// Kills the run at each moment that `moments` yields, resumes it, and finally lets it end. Returns
/// the number of kills, and the number of those that left a temporary file.
fn killed(
    index: usize,
    out: &Path,
    moments: impl IntoIterator<Item = impl Fn(&Path, &mut Child)>,
) -> (usize, usize) {
    let begin = || start(OPTIMIZERS[index].1, EPOCHS, out);
    let (mut kills, mut in_writing) = (0, 0);
    for wait in moments {
        // The run was killed before its first checkpoint, so it starts again.
        let begun = checkpoint_path(out).exists();
        let mut running = Running::new(if begun { resume(out) } else { begin() });
        wait(out, &mut running.0);
        if !running.kill() {
            break;
        }
        kills += 1;
        let left = temporary_files(out).len();
        assert!(left <= 1, "each start removes what the one before left: {left}");
        in_writing += left;
        if checkpoint_path(out).exists() {
            let checkpoint = checkpoint(out);
            // There may be one more line, of an epoch whose checkpoint was not yet written.
            let lines = metrics(out).len() as u32;
            assert!((checkpoint.epoch..=checkpoint.epoch + 1).contains(&lines), "{lines}");
            // The model file must be complete at any time.
            Weights::read(&out.join("model.pt")).unwrap();
        }
    }
    let mut last = if checkpoint_path(out).exists() { resume(out) } else { begin() };
    Ended::from(last.output().unwrap()).success();
    assert_eq!(temporary_files(out), Vec::<PathBuf>::new());
    (kills, in_writing)
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn killed_at_many_moments() {
    let folder = temp();
    for index in 0..OPTIMIZERS.len() {
        let out = folder.path().join(index.to_string());
        // The moments range from before `main` to the second epoch; on a slow machine all are
        // within the start.
        let moments = [1, 120, 240, 360, 480, 600, 720, 560].map(|pause| {
            move |_: &Path, _: &mut Child| sleep(Duration::from_millis(pause + 17 * index as u64))
        });
        let (kills, _) = killed(index, &out, moments);
        assert!(kills >= 2, "{kills} kills"); // usually more, except on a very fast machine
        assert_same(&out, &uninterrupted(index));
        assert_same_metrics(&out, &uninterrupted(index));
    }
}

/// Waits until the `count`th temporary file appears in `folder`, which means that a file is being
/// written, or until the program ends.
fn until_writing(folder: &Path, program: &mut Child, count: usize) {
    let mut seen = temporary_files(folder);
    for _ in 0..count {
        while program.try_wait().unwrap().is_none() {
            let now = temporary_files(folder);
            if now.iter().any(|name| !seen.contains(name)) {
                seen.extend(now);
                break;
            }
        }
    }
}

fn temporary_files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".lenet5-"))
        .collect()
}

#[test]
fn killed_while_writing() {
    let folder = temp();
    let out = folder.path().join("run");
    // The start writes config.json, model.pt and the checkpoint; each epoch writes three more
    // files.
    let moments = [1, 2, 3, 4, 5, 6, 2, 4]
        .map(|count| move |out: &Path, program: &mut Child| until_writing(out, program, count));
    let (kills, left) = killed(0, &out, moments);
    assert!(left >= 1, "none of {kills} kills came while a file was being written");
    assert_same(&out, &uninterrupted(0));
    assert_same_metrics(&out, &uninterrupted(0));
}

#[test]
fn python_takes_a_turn() {
    let folder = temp();
    // torch.optim has no SDLM, so there is nothing to compare with.
    let runs = &OPTIMIZERS[..3];
    let runs = runs.iter().map(|(name, settings)| (folder.path().join(name), settings));
    let runs: Vec<_> = runs.collect();
    for (out, settings) in &runs {
        let running = Running::new(start(settings, EPOCHS, out)).until_training();
        sleep(Duration::from_millis(15));
        assert_eq!(running.interrupt().code, Some(130));
        assert!(checkpoint(out).epoch < 2, "Python has nothing left to do");
    }
    // Plain PyTorch trains to the end of the second epoch, and this program continues.
    fixtures("turn", folder.path());
    for (index, (out, _)) in runs.iter().enumerate() {
        let after = checkpoint(out);
        assert_eq!((after.epoch, after.step), (2, 0));
        Ended::from(resume(out).output().unwrap()).success();
        assert_same(out, &uninterrupted(index));
    }
}

#[test]
fn more_epochs_of_a_finished_run() {
    let folder = temp();
    let out = folder.path().join("run");
    Ended::from(start(OPTIMIZERS[1].1, 1, &out).output().unwrap()).success();
    assert_eq!(checkpoint(&out).epoch, 1);
    let more = resume(&out).arg(format!("--epochs={EPOCHS}")).output().unwrap();
    Ended::from(more).success();
    assert_same(&out, &uninterrupted(1));
    assert_same_metrics(&out, &uninterrupted(1));
    // No epoch is left to train. That is no error, and changes nothing.
    let model = fs::read(out.join("model.pt")).unwrap();
    Ended::from(resume(&out).output().unwrap()).success();
    assert_eq!(fs::read(out.join("model.pt")).unwrap(), model);
}

#[test]
fn an_existing_run_is_not_overwritten() {
    let out = uninterrupted(0);
    let before = fs::read(out.join("model.pt")).unwrap();
    let ended: Ended = start(&[], EPOCHS, &out).output().unwrap().into();
    ended.fails_with(&format!(
        "{0}: holds a run already; go on with it by --resume {0}, or choose another --out",
        out.display()
    ));
    assert_eq!(fs::read(out.join("model.pt")).unwrap(), before);
}

#[test]
fn a_start_that_was_killed_begins_again() {
    let folder = temp();
    let start = |out: &Path| Ended::from(start(OPTIMIZERS[0].1, 0, out).output().unwrap());
    // Any of the files that a start writes before its checkpoint may exist, and a part of the next
    // one.
    let out = copy(&folder);
    for file in ["checkpoint.pth", "metrics.jsonl", "curve.png"] {
        fs::remove_file(out.join(file)).unwrap();
    }
    fs::write(out.join(".lenet5-part"), b"part").unwrap();
    start(&out).success();
    assert_eq!(checkpoint(&out).epoch, 0);
    // A file that no start leaves behind is not overwritten.
    let out = folder.path().join("other");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("model.pt"), b"precious").unwrap();
    assert_eq!(start(&out).code, Some(1));
    assert_eq!(fs::read(out.join("model.pt")).unwrap(), b"precious");
}

/// Creates a copy of a finished run, to be damaged.
fn copy(folder: &TempDir) -> PathBuf {
    let out = folder.path().join("run");
    fs::create_dir(&out).unwrap();
    for entry in uninterrupted(0).read_dir().unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, out.join(path.file_name().unwrap())).unwrap();
    }
    out
}

/// Returns the error of `train --resume` for a finished run that has been damaged, with DIR for its
/// folder.
fn refusal(damage: impl Fn(&Path)) -> String {
    let folder = temp();
    let out = copy(&folder);
    damage(&out);
    let ended = run("train", ["--resume".as_ref(), out.as_os_str()]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    ended.stderr.replace(&out.display().to_string(), "DIR")
}

#[test]
fn broken_runs_are_refused() {
    let cut = |file: &'static str, length: usize| {
        refusal(|out| {
            let bytes = fs::read(out.join(file)).unwrap();
            fs::write(out.join(file), &bytes[..length]).unwrap();
        })
    };
    let replace = |from: &str, to: &str| {
        refusal(|out| {
            let path = out.join("config.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replace(from, to)).unwrap();
        })
    };
    check_table([
        (
            cut("checkpoint.pth", 10_000),
            "DIR/checkpoint.pth: expected a zip archive, found one that ends early: download or copy it again",
        ),
        (
            cut("checkpoint.pth", 0),
            "DIR/checkpoint.pth: expected a zip archive, found an empty file",
        ),
        (
            cut("config.json", 20),
            "DIR/config.json: expected the settings of a run, found EOF while parsing a string at line 3 column 5",
        ),
        (
            cut("metrics.jsonl", 20),
            "DIR/metrics.jsonl: expected a line of metrics, found EOF while parsing a string at line 1 column 20",
        ),
        (
            replace("\"tanh\"", "\"relu\""),
            "DIR/config.json: expected the settings that the checkpoint was made with: model.activation \
             \"tanh\", found \"relu\"",
        ),
        (
            replace("\"name\": \"sgd\"", "\"name\": \"adam\""),
            "DIR/config.json: expected the settings of a run, found unknown field `momentum`, expected one of `beta1`, `beta2`, `eps`, `weight_decay` at line 30 column 3",
        ),
        (
            replace("\"batch_size\": 4", "\"batch_size\": 0"),
            "DIR/config.json: batch-size: expected a number above 0, found 0",
        ),
        (
            // The logarithm of 0 would lead to maps of NaN.
            replace(
                "\"distortions\": null",
                r#""distortions": {"scale": [0, 1], "squeeze": [1, 1], "shear": 0, "shift": 0}"#,
            ),
            "DIR/config.json: distortions.scale: expected two factors from 0.1 to 10, the smaller one \
             first, found 0 and 1",
        ),
        (
            replace("\"learning_rate\": 0", "\"learning_rate\": 1e400"),
            "DIR/config.json: expected the settings of a run, found number out of range at line 31 column 24",
        ),
        (
            refusal(|out| fs::write(out.join("config.json"), "<!DOCTYPE html>").unwrap()),
            "DIR/config.json: expected the settings of a run, found a web page (HTML), not the file behind \
             it: download it again, from its direct address",
        ),
    ]);
    let unknown = replace("\"seed\"", "\"sead\"");
    let start =
        "error: DIR/config.json: expected the settings of a run, found unknown field `sead`";
    assert!(unknown.starts_with(start), "{unknown}");
}

/// Returns the error of `train --resume` for a finished run whose checkpoint has been changed.
fn changed(change: impl Fn(&mut Checkpoint)) -> String {
    refusal(|out| {
        let mut checkpoint = checkpoint(out);
        change(&mut checkpoint);
        checkpoint.write(&checkpoint_path(out), Vec::new()).unwrap();
    })
}

#[test]
fn checkpoints_that_do_not_fit_are_refused() {
    let buffers = |c: &mut Checkpoint, change: &dyn Fn(&mut Vec<Array>)| match &mut c.optimizer {
        OptimizerState::Sgd { momentum_buffer } => change(momentum_buffer),
        other => panic!("{other:?}"),
    };
    check_table([
        (
            changed(|c| (c.epoch, c.step) = (1, 250)),
            "DIR/checkpoint.pth: expected a step below 250, found 250: other data?",
        ),
        (
            changed(|c| buffers(c, &|all| all[2] = Array::zeros(&[3]))),
            "DIR/checkpoint.pth: optimizer state momentum_buffer: expected shape [16, 6, 5, 5], found [3]",
        ),
        (
            changed(|c| {
                let curvature = c.weights.tensors.iter().map(|(_, t)| Array::zeros(t.shape()));
                c.optimizer = OptimizerState::Sdlm { curvature: curvature.collect() };
            }),
            "DIR/checkpoint.pth: optimizer state: expected momentum_buffer, found curvature",
        ),
        (
            changed(|c| buffers(c, &|all| all.push(Array::zeros(&[1])))),
            "DIR/checkpoint.pth: optimizer state: expected 10 parameters, found 11",
        ),
        (
            changed(|c| buffers(c, &|all| all.truncate(4))),
            "DIR/checkpoint.pth: optimizer state: expected 10 parameters, found 4",
        ),
        (
            changed(|c| c.optimizer = OptimizerState::Empty),
            "DIR/checkpoint.pth: optimizer state: expected momentum_buffer of each parameter, found none",
        ),
        (
            changed(|c| {
                buffers(c, &|all| all[0] = Array::from_f32(&[6, 1, 5, 5], &[f32::NAN; 150]))
            }),
            "DIR/checkpoint.pth: optimizer state momentum_buffer: expected finite numbers, found others",
        ),
        (
            changed(|c| c.generator = Array::new(DType::U8, vec![7], vec![0; 7]).unwrap()),
            "DIR/checkpoint.pth: rng_state: libtorch: Expected a CPUGeneratorImplState of size 5056 but found the input RNG state size to be 7",
        ),
        (
            changed(|c| c.generator = Array::new(DType::U8, vec![5056], vec![1; 5056]).unwrap()),
            "DIR/checkpoint.pth: rng_state: libtorch: Invalid mt19937 state",
        ),
        (
            changed(|c| c.generator = Array::zeros(&[5056])),
            "DIR/checkpoint.pth: expected a checkpoint of lenet5 with the entry rng_state, found none",
        ),
        (
            changed(|c| c.weights.tensors[0].1 = Array::zeros(&[6])),
            "DIR/checkpoint.pth: c1.weight: expected shape [6, 1, 5, 5], found [6]",
        ),
        (
            changed(|c| drop(c.weights.tensors.pop())),
            "DIR/checkpoint.pth: expected the parameter output.bias, found none",
        ),
        (
            changed(|c| c.loss_sum = f64::NAN),
            "DIR/checkpoint.pth: expected a checkpoint of lenet5 with the entry loss_sum, found none",
        ),
    ]);
}

/// Prints all messages that differ from the expected ones.
fn check_table<const N: usize>(table: [(String, &str); N]) {
    let wrong: String = table
        .iter()
        .filter(|(found, expected)| *found != format!("error: {expected}\n"))
        .map(|(found, expected)| format!("expected {expected}\nfound    {found}\n"))
        .collect();
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_last_step_of_an_epoch_can_be_resumed() {
    let folder = temp();
    let out = copy(&folder);
    let mut checkpoint = checkpoint(&out);
    (checkpoint.epoch, checkpoint.step) = (2, 249);
    checkpoint.write(&checkpoint_path(&out), Vec::new()).unwrap();
    Ended::from(resume(&out).output().unwrap()).success();
    assert_eq!(metrics(&out).len(), 3);
}

#[test]
fn truncated_checkpoints_are_refused() {
    let bytes = fs::read(checkpoint_path(&uninterrupted(0))).unwrap();
    let folder = temp();
    let path = folder.path().join("checkpoint.pth");
    let middle = (4000..bytes.len() - 4000).step_by(4999);
    for length in (0..4000).step_by(7).chain(middle).chain(bytes.len() - 4000..bytes.len()) {
        fs::write(&path, &bytes[..length]).unwrap();
        let message = Checkpoint::read(&path).expect_err("truncated").to_string();
        let start = format!("{}: expected ", path.display());
        assert!(message.starts_with(&start), "{length}: {message}");
    }
}

#[test]
fn one_process_at_a_time() {
    let folder = temp();
    let out = folder.path().join("run");
    let running = Running::new(start(OPTIMIZERS[0].1, 500, &out)).until_training();
    let before = fs::read(out.join("config.json")).unwrap();
    let message = format!(
        "{}: expected a folder that nobody trains in, found process {} training",
        out.display(),
        running.0.id()
    );
    run("train", ["--epochs=2", "--resume", out.to_str().unwrap()]).fails_with(&message);
    Ended::from(start(&["--seed=3"], 2, &out).output().unwrap()).fails_with(&message);
    assert_eq!(fs::read(out.join("config.json")).unwrap(), before);
    // The lock is released when its process ends, for whatever reason.
    assert!(running.kill());
    run("train", ["--epochs=0", "--resume", out.to_str().unwrap()]).success();
    assert!(!out.join(".lock").exists());
}

#[test]
fn a_mixture_of_two_runs_is_refused() {
    let run_of = |folder: &Path| {
        let text = fs::read_to_string(folder.join("config.json")).unwrap();
        let (_, run) = text.rsplit_once("\"run\": \"").unwrap();
        run.split('"').next().unwrap().to_owned()
    };
    let (ours, theirs) = (run_of(&uninterrupted(0)), run_of(&uninterrupted(1)));
    let mixed = |file: &'static str| {
        refusal(|out| {
            fs::copy(uninterrupted(1).join(file), out.join(file)).unwrap();
        })
    };
    assert_eq!(
        mixed("checkpoint.pth"),
        format!(
            "error: DIR: expected the files of one run, found config.json of run {ours} and checkpoint.pth \
             of run {theirs}\n"
        )
    );
    assert_eq!(
        mixed("metrics.jsonl"),
        format!(
            "error: DIR/metrics.jsonl: expected measurements of run {ours}, found some of run {theirs}\n"
        )
    );
}

#[test]
fn edited_settings_are_refused() {
    for (from, to, found) in [
        ("\"batch_size\": 4", "\"batch_size\": 8", "batch_size 4, found 8"),
        ("\"limit\": null", "\"limit\": 500", "limit null, found 500"),
        (
            "\"weight_decay\": 0.001",
            "\"weight_decay\": 0.1",
            "optimizer.weight_decay 0.001, found 0.1",
        ),
    ] {
        let message = refusal(|out| {
            let path = out.join("config.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replace(from, to)).unwrap();
        });
        let expected = "DIR/config.json: expected the settings that the checkpoint was made with";
        assert_eq!(message, format!("error: {expected}: {found}\n"));
    }
}

/// Returns the output of `train --resume` on stderr for a finished run after `change`, with DIR for
/// its folder.
fn resumed(change: impl Fn(&Path)) -> (TempDir, PathBuf, String) {
    let folder = temp();
    let out = copy(&folder);
    change(&out);
    let ended = Ended::from(resume(&out).output().unwrap());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let notes = ended.stderr.replace(&out.display().to_string(), "DIR");
    (folder, out, notes)
}

#[test]
fn what_is_missing_is_written_again() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, out, notes) = resumed(|out| {
        fs::remove_file(out.join("model.pt")).unwrap();
        fs::remove_file(out.join("curve.png")).unwrap();
        // Processes that were killed leave such files.
        fs::write(out.join(".lenet5-abcdef"), "part").unwrap();
        fs::write(out.join(".lock"), "process 1\n").unwrap();
        fs::set_permissions(out.join("metrics.jsonl"), fs::Permissions::from_mode(0o600)).unwrap();
    });
    assert_eq!(notes, "");
    assert_same(&out, &uninterrupted(0));
    let names = |folder: &Path| {
        let entries = folder.read_dir().unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&out), names(&uninterrupted(0)));
    // A file that is replaced keeps its permissions.
    let mode = fs::metadata(out.join("metrics.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn metrics_are_put_right() {
    let lines = fs::read_to_string(uninterrupted(0).join("metrics.jsonl")).unwrap();
    let lines: Vec<_> = lines.lines().collect();
    for (kept, note) in [
        (&[0, 2][..], "note: DIR/metrics.jsonl: no measurements of epoch 2\n"),
        (&[], "note: DIR/metrics.jsonl: no measurements of epoch 1, 2, 3\n"),
        (
            &[0, 1, 1, 2],
            "note: DIR/metrics.jsonl: ignored 1 lines, as later lines are of the same epochs\n",
        ),
        (&[2, 1, 0], ""),
    ] {
        let text: String = kept.iter().map(|i| format!("{}\n", lines[*i])).collect();
        let (_folder, out, notes) =
            resumed(|out| fs::write(out.join("metrics.jsonl"), &text).unwrap());
        assert_eq!(notes, note);
        let mut epochs: Vec<u32> = kept.iter().map(|i| *i as u32 + 1).collect();
        epochs.sort_unstable();
        epochs.dedup();
        assert_eq!(metrics(&out).iter().map(|line| line.epoch).collect::<Vec<_>>(), epochs);
    }
}

/// Older folders have no identifier of the run, and older checkpoints, or Python's, have no
/// settings.
#[test]
fn a_run_without_a_name_goes_on() {
    let (_folder, out, notes) = resumed(|out| {
        for (file, before) in
            [("config.json", ",\n  \"run\": \""), ("metrics.jsonl", ",\"run\":\"")]
        {
            let text = fs::read_to_string(out.join(file)).unwrap();
            let mut parts = text.split(before);
            let mut old = parts.next().unwrap().to_owned();
            for part in parts {
                old += &part[32 + 1..];
            }
            fs::write(out.join(file), old).unwrap();
        }
        let checkpoint = Checkpoint { settings: None, ..checkpoint(out) };
        checkpoint.write(&checkpoint_path(out), Vec::new()).unwrap();
    });
    assert_eq!(notes, "");
    assert_same(&out, &uninterrupted(0));
}
