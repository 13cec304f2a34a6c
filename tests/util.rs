//! Helpers for the tests: programs, Python, temporary folders, comparison of bits.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use lenet5::Array;
use lenet5::engine::OptimizerState;
use lenet5::libtorch::to_tensor;
use lenet5::model::{Activation, Input, ModelConfig, Pooling};
use lenet5::recipe::OptimizerConfig;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::ended::as_at_a_terminal;
pub use crate::ended::{Ended, handling};

/// Takes the lock for seeding, drawing from or restoring libtorch's global generator.
pub fn generator() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Creates a temporary folder for a test, which is removed when the value is dropped.
pub fn temp() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp can be written to")
}

/// Returns a folder that all tests of this run share. None of them can remove it; the tests remove
/// it in a run an hour later or more.
pub fn shared() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in parent.read_dir().unwrap().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).map(|time| time.elapsed());
        if entry.file_name().to_string_lossy().starts_with("shared-")
            && age.is_ok_and(|age| age.is_ok_and(|age| age > Duration::from_secs(3600)))
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new().prefix("shared-").tempdir_in(parent).unwrap().keep()
}

/// Returns the root folder of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Creates the command of a program of this package, in the folder `target/tmp`.
pub fn program(name: &str) -> Command {
    let path = match name {
        "train" => env!("CARGO_BIN_EXE_train"),
        "evaluate" => env!("CARGO_BIN_EXE_evaluate"),
        "convert" => env!("CARGO_BIN_EXE_convert"),
        "summary" => env!("CARGO_BIN_EXE_summary"),
        "inspect" | "predict" | "serve" => return of_reader(name),
        _ => panic!("no program {name}"),
    };
    at(Path::new(path))
}

/// Creates the command of a program of the package lenet5-programs, which cargo does not build for
/// this test.
fn of_reader(name: &str) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_train")).with_file_name(name);
    assert!(path.exists(), "{name}: run `cargo build --release` first");
    at(&path)
}

fn at(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir(env!("CARGO_TARGET_TMPDIR"));
    as_at_a_terminal(&mut command);
    command
}

/// Returns a folder with the libraries of a GPU that is simulated in host memory, for a program's
/// `LD_LIBRARY_PATH`: see `gpu/fake_gpu.cpp`, `gpu/fake_driver.cpp`.
pub fn fake_gpu() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let (folder, sources) = (shared(), root().join("tests/gpu"));
        let libtorch =
            PathBuf::from(std::env::var_os("LIBTORCH").expect("as in .cargo/config.toml"));
        let library = folder.join("libtorch_cuda.so");
        let status = cxx()
            .args(["-O1", "-shared", "-fPIC", "-w", "-DUSE_C10D_GLOO"])
            .arg("-I")
            .arg(root().join("src/libtorch")) // declarations in place of gloo's headers
            .arg(format!("-DON_CPU=\"{}\"", sources.join("cuda_on_cpu.cpp").display()))
            .arg("-I")
            .arg(libtorch.join("include"))
            .arg("-I")
            .arg(libtorch.join("include/torch/csrc/api/include"))
            .args(["fake_gpu.cpp", "fake_driver.cpp"].map(|name| sources.join(name)))
            .arg("-L")
            .arg(libtorch.join("lib"))
            .args(["-ltorch_cpu", "-lc10", "-o"])
            .arg(&library)
            .status();
        assert!(status.unwrap().success());
        for name in ["libc10_cuda.so", "libcuda.so.1", "libnvrtc.so.13", "libcaffe2_nvrtc.so"] {
            std::os::unix::fs::symlink(&library, folder.join(name)).unwrap();
        }
        folder
    })
}

/// Creates the command of the C++ compiler.
pub fn cxx() -> Command {
    let name = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut command = Command::new(name);
    command.arg("-std=c++17");
    command
}

/// Runs a program until it ends.
pub fn run<S: AsRef<std::ffi::OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Ended {
    program(name).args(arguments).output().expect("the program starts").into()
}

/// Returns the peak memory of a program with one argument, in bytes. The program may fail, but not
/// by a signal.
///
/// A helper process measures it: the system's value for a child includes its parent's memory before
/// exec.
pub fn peak_memory(name: &str, argument: &Path) -> u64 {
    let script = "import resource, subprocess, sys
quiet = subprocess.DEVNULL
code = subprocess.run(sys.argv[1:], stdout=quiet, stderr=quiet).returncode
assert code in (0, 1), code
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let output = Command::new(python_path())
        .args(["-c", script])
        .arg(program(name).get_program())
        .arg(argument)
        .output();
    let peak: u64 = Ended::from(output.unwrap()).success().trim().parse().unwrap();
    // The value is in KiB on Linux, in bytes on macOS.
    peak * if cfg!(target_os = "macos") { 1 } else { 1024 }
}

fn python_path() -> PathBuf {
    std::env::var_os("LENET5_PYTHON").map_or_else(|| root().join(".venv/bin/python"), PathBuf::from)
}

/// Runs `tests/fixtures.py COMMAND FOLDER`.
pub fn fixtures(command: &str, folder: &Path) {
    python("fixtures.py", command, &[folder]);
}

/// Runs a script of `tests/` in the Python with PyTorch, and asserts that it succeeds.
pub fn python(script: &str, command: &str, paths: &[&Path]) {
    let python = python_path();
    let output = Command::new(&python)
        .arg(root().join("tests").join(script))
        .arg(command)
        .args(paths)
        // Waiting threads should not take the core from those that they wait for.
        .env("OMP_WAIT_POLICY", "passive")
        .output()
        .unwrap_or_else(|error| {
            panic!("{}: {error}; run `make setup`, or set LENET5_PYTHON", python.display())
        });
    let ended = Ended::from(output);
    assert_eq!(ended.code, Some(0), "{script} {command}:\n{}{}", ended.stdout, ended.stderr);
}

/// Returns the settings of SGD, in the order of [`OptimizerConfig::Sgd`].
pub fn sgd(momentum: f64, dampening: f64, weight_decay: f64, nesterov: bool) -> OptimizerConfig {
    OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov }
}

/// Returns all optimizers, with each setting at a value that has an effect.
pub fn optimizers() -> [OptimizerConfig; 6] {
    let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
    [
        sgd(0.0, 0.0, 0.0, false),
        sgd(0.0, 0.0, 0.02, false),
        sgd(0.9, 0.3, 0.02, false),
        sgd(0.9, 0.0, 0.02, true),
        OptimizerConfig::Adam { beta1, beta2, eps, weight_decay: 0.02 },
        OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay: 0.02 },
    ]
}

/// Returns the largest difference, relative to the largest value.
pub fn difference(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.size(), theirs.size());
    let (ours, theirs) = (ours.to_kind(Kind::Double), theirs.to_kind(Kind::Double));
    let largest = theirs.abs().max().double_value(&[]);
    assert!(largest > 0.0);
    (ours - theirs).abs().max().double_value(&[]) / largest
}

/// Reads the tensors of a safetensors file without this project's own reader.
pub fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = |(name, view): (String, safetensors::tensor::TensorView)| {
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            Dtype::U8 => Kind::Uint8,
            other => panic!("{name}: {other:?}"),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        (name, Tensor::from_data_size(view.data(), &shape, kind))
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// Compares tensors bit by bit, and reports all that differ at once.
#[derive(Default)]
pub struct Bits {
    compared: usize,
    table: String,
}

impl Bits {
    pub fn compare(&mut self, name: &str, ours: &Tensor, theirs: &Tensor) {
        self.compared += 1;
        if (ours.kind(), ours.size()) != (theirs.kind(), theirs.size()) {
            let _ = writeln!(self.table, "{name}: {ours:?} and {theirs:?}");
            return;
        }
        let pattern = |tensor: &Tensor| match tensor.kind() {
            Kind::Float => tensor.detach().contiguous().view_dtype(Kind::Int),
            Kind::Double => tensor.detach().contiguous().view_dtype(Kind::Int64),
            _ => tensor.shallow_clone(),
        };
        let bits = pattern(ours).not_equal_tensor(&pattern(theirs)).sum(Kind::Int64);
        let bits = bits.int64_value(&[]);
        if bits > 0 {
            let difference = (ours.detach().to_kind(Kind::Double) - theirs.to_kind(Kind::Double))
                .abs()
                .max()
                .double_value(&[]);
            let _ = writeln!(
                self.table,
                "{name}: {bits} of {} numbers differ in their bits, by {difference:e} at most",
                ours.numel()
            );
        }
    }

    pub fn compare_arrays(&mut self, name: &str, ours: &Array, theirs: &Array) {
        self.compare(name, &to_tensor(ours).unwrap(), &to_tensor(theirs).unwrap());
    }

    /// Panics with all differences; also if the number of compared tensors is not `expected`.
    pub fn check(self, expected: usize) {
        assert!(self.table.is_empty(), "not the same bits:\n{}", self.table);
        assert_eq!(self.compared, expected, "tensors compared");
    }
}

/// Writes an IDX file, compressed with gzip if the name ends in .gz.
pub fn write_idx(path: &Path, dimensions: &[usize], data: &[u8]) {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|&size| (size as u32).to_be_bytes()));
    bytes.extend(data);
    if path.extension().is_some_and(|extension| extension == "gz") {
        bytes = gzip(&bytes);
    }
    lenet5_core::files::write_atomic(path, &bytes).unwrap();
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    std::io::copy(&mut &bytes[..], &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// Returns a folder with the first 1,000 training and 500 test images of MNIST, for quick runs.
///
/// The folder stays in `target/tmp`; each run of the tests writes the same bytes again.
pub fn small_mnist() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("small-mnist");
        fs::create_dir_all(&folder).unwrap();
        for (split, count) in [("train", 1000), ("t10k", 500)] {
            for (kind, header, item) in [("images-idx3", 16, 28 * 28), ("labels-idx1", 8, 1)] {
                let name = format!("{split}-{kind}-ubyte.gz");
                let file = File::open(root().join("data/mnist").join(&name)).unwrap();
                let mut bytes = vec![0; header + count * item];
                GzDecoder::new(file).read_exact(&mut bytes).unwrap();
                let dimensions: &[usize] = if item == 1 { &[count] } else { &[count, 28, 28] };
                write_idx(&folder.join(&name), dimensions, &bytes[header..]);
            }
        }
        folder
    })
}

/// Returns weights that have been trained a little: `model.pt` of one epoch on the small MNIST.
pub fn trained() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = temp();
        let out = folder.path().join("run");
        let data = small_mnist();
        let settings = ["--epochs=1", "--batch-size=8", "--threads=1", "--device=cpu"];
        program("train")
            .args(settings)
            .arg("--data")
            .arg(data)
            .arg("--out")
            .arg(&out)
            .output()
            .map(Ended::from)
            .unwrap()
            .success();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trained.pt");
        fs::rename(out.join("model.pt"), &file).unwrap();
        file
    })
}

/// Returns forms of the modern network that the fused engines train.
pub fn fused_models() -> impl Iterator<Item = ModelConfig> {
    [Activation::Tanh, Activation::Relu].into_iter().flat_map(|activation| {
        let forms = [
            (Pooling::Avg, 10, Input::Padded),
            (Pooling::Max, 26, Input::Padded),
            (Pooling::Avg, 7, Input::Unpadded),
        ];
        forms.map(|(pooling, classes, input)| ModelConfig {
            activation,
            pooling,
            classes,
            input,
            ..ModelConfig::default()
        })
    })
}

/// Returns for which images rounding to float32 cannot change a decision: no input of relu is close
/// to 0, and no two values of a pooling window are close to each other. (N), bool. `p` holds the
/// parameters in float64.
pub fn decided(config: &ModelConfig, p: &[Tensor], images: &Tensor) -> Tensor {
    const CLOSE: f64 = 1e-6;
    let (relu, max) = (config.activation == Activation::Relu, config.pooling == Pooling::Max);
    let activate = |a: &Tensor| if relu { a.relu() } else { a.tanh() };
    let count = images.size()[0];
    let mut close = Tensor::zeros([count], (Kind::Bool, Device::Cpu));
    let mut x = images.to_kind(Kind::Double);
    for layer in p[..4].chunks(2) {
        let a = x.conv2d(&layer[0], Some(&layer[1]), [1, 1], [0, 0], [1, 1], 1);
        let (maps, half) = (a.size()[1], a.size()[2] / 2);
        let four = a.reshape([count, maps, half, 2, half, 2]).permute([0, 1, 2, 4, 3, 5]);
        let (largest, _) = four.reshape([count, -1, 4]).topk(2, -1, true, true);
        let (first, second) = (largest.select(-1, 0), largest.select(-1, 1));
        let tie = (&first - second).lt(CLOSE);
        let here = match (relu, max) {
            (true, true) => first.abs().lt(CLOSE).logical_or(&tie.logical_and(&first.gt(0.0))),
            (false, true) => tie,
            (true, false) => a.abs().lt(CLOSE).flatten(1, -1),
            (false, false) => tie.zeros_like(),
        };
        close = close.logical_or(&here.any_dim(1, false));
        let values = activate(&four.reshape([count, maps, half, half, 4]));
        x = if max { values.amax([-1], false) } else { values.mean_dim(-1, false, Kind::Double) };
    }
    for layer in p[4..8].chunks(2) {
        let weight = layer[0].reshape([layer[1].size()[0], -1]);
        let a = x.flatten(1, -1).linear(&weight, Some(&layer[1]));
        if relu {
            close = close.logical_or(&a.abs().lt(CLOSE).any_dim(1, false));
        }
        x = activate(&a);
    }
    close.logical_not()
}

/// Returns the tensors of an optimizer's state, by name.
pub fn optimizer_tensors(state: &OptimizerState) -> Vec<(&'static str, Tensor)> {
    let named = match state {
        OptimizerState::Empty => vec![],
        OptimizerState::Sgd { momentum_buffer } => vec![("momentum_buffer", momentum_buffer)],
        OptimizerState::Adam { exp_avg, exp_avg_sq, .. } => {
            vec![("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)]
        }
        OptimizerState::Sdlm { curvature } => vec![("curvature", curvature)],
        other => panic!("{other:?}"),
    };
    let each = |(name, arrays): (&'static str, &Vec<Array>)| {
        arrays.iter().map(|array| (name, to_tensor(array).unwrap())).collect::<Vec<_>>()
    };
    named.into_iter().flat_map(each).collect()
}

/// Returns the width and height of a picture file.
pub fn picture_size(path: &Path) -> (u32, u32) {
    lenet5::Picture::stated_size(&fs::read(path).unwrap()).expect("a picture")
}
