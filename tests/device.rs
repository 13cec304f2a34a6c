//! Tests of the programs on a GPU. Without a GPU, one is simulated in host memory: with
//! `gpu/fake_gpu.cpp` libtorch's CPU kernels run on it, and it rejects what a real GPU rejects,
//! such as tensors on two devices, and waiting or copying while a graph is recorded.
//! `gpu/fake_driver.cpp` compiles and launches this project's CUDA kernels.
//!
//! All tests here are exhaustive, as the simulated GPU takes 20 s to compile.

use std::fs;
use std::os::unix::fs::symlink;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::Command;

use lenet5::DeviceChoice;
use lenet5::libtorch::cuda::{CudaGraph, Stream, has_graphs};
use lenet5::libtorch::to_tensor;
use lenet5::recipe::{EngineChoice, TrainConfig};
use lenet5::train::{EpochMetrics, Run, read_metrics};
use lenet5::weights::Checkpoint;
use tch::Tensor;

use crate::util::{
    Ended, difference, fake_gpu, optimizer_tensors, program, small_mnist, temp, trained,
};

/// The GPU engines.
fn engines() -> impl Iterator<Item = &'static str> {
    ["libtorch", "graph", "fused"].into_iter().filter(|engine| *engine != "graph" || has_graphs())
}

/// Runs a program on the GPU, real or simulated.
fn run(name: &str, arguments: &[&str], last: &Path) -> Ended {
    run_with(fake_gpu(), name, arguments, last)
}

/// Runs a program with the libraries of a folder.
fn run_with(libraries: &Path, name: &str, arguments: &[&str], last: &Path) -> Ended {
    let temporary = temp();
    let mut command = program(name);
    command.env("LD_LIBRARY_PATH", libraries).env("TMPDIR", temporary.path());
    command.args(arguments).arg(last).output().unwrap().into()
}

/// Trains on 300 digits in five batches.
fn train(arguments: &[&str], out: &Path) -> (Checkpoint, Vec<EpochMetrics>) {
    let data = format!("--data={}", small_mnist().display());
    let common = ["--limit=300", "--batch-size=64", "--threads=1", &data];
    run("train", &[&common, arguments, &["--out"]].concat(), out).success();
    let checkpoint = Checkpoint::read(&lenet5::train::checkpoint_path(out)).unwrap();
    (checkpoint, read_metrics(out).unwrap())
}

/// Returns the parameters and the optimizer's state.
fn tensors(checkpoint: &Checkpoint) -> Vec<(String, Tensor)> {
    let state = optimizer_tensors(&checkpoint.optimizer);
    let parameters = checkpoint.weights.tensors.iter();
    let parameters = parameters.map(|(name, array)| (name.clone(), to_tensor(array).unwrap()));
    parameters.chain(state.into_iter().map(|(name, tensor)| (name.to_owned(), tensor))).collect()
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn trains_as_on_the_cpu() {
    let folder = temp();
    let settings: [&[&str]; 3] = [
        &["--validation=50", "--train-error"],
        &["--distort=best", "--optimizer=adamw", "--schedule=one-cycle"],
        &["--input=unpadded", "--mean=0.13", "--std=0.3", "--activation=relu", "--pooling=max"],
    ];
    for (number, settings) in settings.into_iter().enumerate() {
        let of = |device: &str, engine: &str| {
            let own = ["--epochs=2", "--device", device, "--engine", engine];
            let out = folder.path().join(format!("{number}-{device}-{engine}"));
            train(&[&own, settings].concat(), &out)
        };
        let (expected, expected_metrics) = of("cpu", "libtorch");
        // Adam amplifies the rounding errors of tiny gradients.
        let tolerance = if settings.contains(&"--optimizer=adamw") { 1e-3 } else { 1e-5 };
        for engine in engines() {
            let (found, metrics) = of("cuda", engine);
            for ((name, ours), (_, theirs)) in tensors(&found).iter().zip(&tensors(&expected)) {
                let error = difference(ours, theirs);
                assert!(error < tolerance, "{engine} {settings:?} {name}: {error:.1e}");
            }
            for (ours, theirs) in metrics.iter().zip(&expected_metrics) {
                assert_eq!(ours.test_error_percent, theirs.test_error_percent, "{engine}");
                assert_eq!(ours.train_error_percent, theirs.train_error_percent, "{engine}");
                let error = (ours.train_loss / theirs.train_loss - 1.0).abs();
                assert!(error < 1e-5, "{engine} {settings:?}: {error:.1e}");
            }
        }
    }
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn goes_on_elsewhere() {
    let folder = temp();
    let (whole, _) = train(&["--epochs=2", "--device=cpu"], &folder.path().join("whole"));
    for engine in engines() {
        let out = folder.path().join(engine);
        train(&["--epochs=1", "--device=cuda", "--engine", engine], &out);
        // A run that began on the GPU continues on the CPU, with the same engine if the CPU has it.
        let arguments = ["--device=cpu", "--epochs=2", "--resume"];
        let ended = run("train", &arguments, &out);
        if engine == "graph" {
            assert!(ended.stderr.contains("--engine graph runs on an NVIDIA GPU only"));
            run("train", &["--device=cuda", "--epochs=2", "--resume"], &out).success();
        } else {
            ended.success();
        }
        let found = Checkpoint::read(&lenet5::train::checkpoint_path(&out)).unwrap();
        for ((name, ours), (_, theirs)) in tensors(&found).iter().zip(&tensors(&whole)) {
            let error = difference(ours, theirs);
            assert!(error < 1e-4, "{engine} {name}: {error:.1e}");
        }
    }
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn precisions_profiles_and_the_paper() {
    let folder = temp();
    let arguments: [&[&str]; 6] = [
        &["--engine=libtorch", "--precision=bf16"],
        &["--engine=libtorch", "--precision=tf32", "--deterministic"],
        &["--engine=graph", "--precision=bf16", "--deterministic"],
        &["--engine=fused", "--profile"],
        &["--model=original", "--loss=distance"],
        &["--preset=paper"],
    ];
    for (number, own) in arguments.into_iter().enumerate() {
        if own[0] == "--engine=graph" && !has_graphs() {
            continue;
        }
        let out = folder.path().join(number.to_string());
        let data = format!("--data={}", small_mnist().display());
        let common = ["--device=cuda", "--epochs=1", "--limit=64", &data];
        let printed = run("train", &[&common, own, &["--out"]].concat(), &out).success();
        assert!(read_metrics(&out).unwrap()[0].train_loss.is_finite());
        if own.contains(&"--profile") {
            for kernel in ["gradient", "update"] {
                assert!(printed.lines().any(|line| line.starts_with(kernel)), "{printed}");
            }
        }
    }
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn evaluates_as_on_the_cpu() {
    let data = format!("--data={}", small_mnist().display());
    let confusion = |device: &str, how: &str| {
        let arguments = ["--json", &data, "--device", device];
        let engine = ["--engine=libtorch"].into_iter().filter(|_| how == "--weights");
        let arguments: Vec<_> = arguments.into_iter().chain(engine).chain([how]).collect();
        let report = run("evaluate", &arguments, trained()).success();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        report["confusion"].to_string()
    };
    for how in ["--weights", "--torchscript"] {
        assert_eq!(confusion("cuda", how), confusion("cpu", how), "{how}");
    }
    let ended = run("evaluate", &["--engine=fused", "--device=cuda", "--weights"], trained());
    ended
        .fails_with("--engine fused evaluates on the CPU only: --device cpu, or --engine libtorch");
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn which_device() {
    let folder = temp();
    let out = folder.path().join("auto");
    let printed = run("train", &["--limit=64", "--epochs=1", "--out"], &out).success();
    assert!(printed.contains("device cuda:0 (auto)"), "{printed}");
    run("train", &["--device=cuda:7", "--out"], &folder.path().join("never"))
        .fails_with("--device cuda:7: expected an index from 0 to 0, as libtorch sees 1 GPU(s)");
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn broken_libraries() {
    let folder = temp();
    let out = folder.path().join("never");
    let libtorch = folder.path().join("libtorch_cuda.so");
    fs::write(&libtorch, "").unwrap();
    let ended = run_with(folder.path(), "train", &["--device=cuda", "--out"], &out);
    let start = "error: --device cuda: this libtorch has no CUDA, or it cannot be loaded (";
    assert!(ended.stderr.starts_with(start) && ended.stderr.contains("too short"), "{ended:?}");

    // A driver without any of the needed functions.
    fs::remove_file(&libtorch).unwrap();
    for name in ["libtorch_cuda.so", "libc10_cuda.so", "libnvrtc.so.13", "libcaffe2_nvrtc.so"] {
        symlink(fake_gpu().join(name), folder.path().join(name)).unwrap();
    }
    let other = Path::new(&std::env::var_os("LIBTORCH").unwrap()).join("lib/libc10.so");
    symlink(other, folder.path().join("libcuda.so.1")).unwrap();
    let arguments = ["--device=cuda", "--engine=fused", "--limit=64", "--out"];
    let ended = run_with(folder.path(), "train", &arguments, &out);
    let message = "error: --engine fused: driver or NVRTC too old? Missing symbol cuInit";
    assert!(ended.code == Some(1) && ended.stderr.contains(message), "{ended:?}");
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn divergence_is_found() {
    let folder = temp();
    let data = format!("--data={}", small_mnist().display());
    let optimizers = ["sgd", "adam", "adamw"];
    // Each engine has one optimizer here; `commands` tests the CPU engines with all of them.
    for (engine, optimizer) in engines().zip(optimizers) {
        let out = folder.path().join(engine);
        let own = ["--engine", engine, "--optimizer", optimizer, "--lr=1e9", &data];
        let common = ["--device=cuda", "--limit=300", "--epochs=1", "--out"];
        let ended = run("train", &[&own[..], &common].concat(), &out);
        let start = "error: training diverged in epoch 1 at --lr 1e9: the training loss is ";
        let message = ended.stderr.lines().last().unwrap();
        assert!(ended.code == Some(1) && message.starts_with(start), "{own:?} {ended:?}");
    }
}

/// Returns whether this process is the one that [`within_libraries`] started.
const INNER: &str = "LENET5_TEST_WITHIN_LIBRARIES";

/// Runs a test again in a process that has the libraries of a folder. Returns whether this is that
/// process.
fn within_libraries(libraries: &Path, test: &str) -> bool {
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let temporary = temp();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INNER, "1")
        .env("LD_LIBRARY_PATH", libraries)
        .env("TMPDIR", temporary.path())
        .output();
    let ended = Ended::from(output.unwrap());
    assert!(ended.stdout.contains("1 passed"), "{}{}", ended.stdout, ended.stderr);
    false
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn a_panic_leaves_no_stream_and_no_recording_behind() {
    if !has_graphs() {
        println!("this was built without CUDA's headers");
        return;
    }
    let test = "device::a_panic_leaves_no_stream_and_no_recording_behind";
    if !within_libraries(fake_gpu(), test) {
        return;
    }
    DeviceChoice::Cuda(0).open().unwrap();
    let stream = Stream::new(0).unwrap();
    let record = || CudaGraph::record(|| Ok(())).map(drop).map_err(|error| error.to_string());
    let outside = record().unwrap_err();
    assert!(outside.contains("must be captured on a non-default stream"), "{outside}");
    let panicked = catch_unwind(|| stream.within(|| -> lenet5::Result<()> { panic!("within") }));
    assert!(panicked.is_err());
    // The default stream is the current one again.
    assert_eq!(record().unwrap_err(), outside);
    stream
        .within(|| {
            assert!(catch_unwind(|| CudaGraph::record(|| panic!("recording"))).is_err());
            // Nothing is being recorded.
            record().unwrap();
            Ok(())
        })
        .unwrap();
}

#[test]
#[ignore = "exhaustive: make test-all"]
fn a_gpu_that_failed_stays_failed() {
    let libraries = temp();
    for name in ["libtorch_cuda.so", "libc10_cuda.so", "libnvrtc.so.13", "libcaffe2_nvrtc.so"] {
        symlink(fake_gpu().join(name), libraries.path().join(name)).unwrap();
    }
    // A driver without any of the needed functions.
    let other = Path::new(&std::env::var_os("LIBTORCH").unwrap()).join("lib/libc10.so");
    symlink(other, libraries.path().join("libcuda.so.1")).unwrap();
    if !within_libraries(libraries.path(), "device::a_gpu_that_failed_stays_failed") {
        return;
    }
    let folder = temp();
    let (device, _) = DeviceChoice::Cuda(0).open().unwrap();
    let config = TrainConfig {
        engine: EngineChoice::Fused,
        data: Some(small_mnist().to_owned()),
        limit: Some(64),
        epochs: 1,
        ..TrainConfig::default()
    };
    let path = folder.path().join("run");
    let start = || Run::start(config.clone(), None, &path, device).map(drop);
    let first = start().unwrap_err().to_string();
    assert!(first.starts_with("--engine fused: driver or NVRTC too old?"), "{first}");
    assert_eq!(start().unwrap_err().to_string(), first);
    // The run that did not start leaves no files.
    assert!(!path.exists());
}
