//! Chooses the device for `--device auto|cpu|cuda[:N]|mps`. The CUDA backend is loaded only if it
//! is needed.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY, RTLD_NOW};
use serde::{Deserialize, Serialize};
use tch::{Cuda, Device, Kind, Tensor};

use crate::{Error, Result};

/// The device that the user chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU that works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU, by index from 0.
    Cuda(usize),
    /// An Apple GPU.
    Mps,
}

impl DeviceChoice {
    /// Initialises the device, and returns it with a short text that names it, and for `auto` the
    /// reason.
    ///
    /// TensorFloat-32 is turned off, so that float32 computations keep their full precision.
    ///
    /// # Errors
    /// If the device cannot be used. `Auto` never fails.
    pub fn open(self) -> Result<(Device, String)> {
        match self {
            Self::Cpu => Ok((Device::Cpu, "cpu".to_owned())),
            Self::Mps if tch::utils::has_mps() => Ok((Device::Mps, "mps".to_owned())),
            Self::Mps => Err(Error::Device(
                "--device mps: this libtorch or this machine has no Metal support; use --device cpu".to_owned(),
            )),
            Self::Cuda(index) => {
                open_cuda(index)?;
                Ok((Device::Cuda(index), self.to_string()))
            }
            Self::Auto if tch::utils::has_mps() => Ok((Device::Mps, "mps (auto)".to_owned())),
            Self::Auto if !has_nvidia_driver() => {
                Ok((Device::Cpu, "cpu (auto: no NVIDIA driver found)".to_owned()))
            }
            Self::Auto => Ok(match open_cuda(0) {
                Ok(()) => (Device::Cuda(0), "cuda:0 (auto)".to_owned()),
                Err(error) => (Device::Cpu, format!("cpu (auto: {error})")),
            }),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "mps" => Ok(Self::Mps),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("expected auto, cpu, cuda, cuda:N or mps, found {text}")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Mps => f.write_str("mps"),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// Returns whether NVIDIA's driver library exists. This is a cheap check before 450 MB are loaded.
fn has_nvidia_driver() -> bool {
    // SAFETY: the driver's initialisers run in every CUDA program.
    unsafe { Library::open(Some("libcuda.so.1"), RTLD_LAZY) }.is_ok()
}

fn open_cuda(index: usize) -> Result<()> {
    load_cuda_backend()?;
    let hint = "use --device cpu, or see docs/src/gpu.md";
    let count = Cuda::device_count();
    if count == 0 || !Cuda::is_available() {
        let reason = match Tensor::f_zeros([1], (Kind::Float, Device::Cuda(index))) {
            Err(error) => Error::from(error).to_string(),
            Ok(_) => "no CUDA device".to_owned(),
        };
        return Err(Error::Device(format!("--device cuda:{index}: {reason}; {hint}")));
    }
    if index as i64 >= count {
        let last = count - 1;
        return Err(Error::Device(format!(
            "--device cuda:{index}: expected an index from 0 to {last}, as libtorch sees {count} GPU(s)"
        )));
    }
    // This fails if the driver is too old, or libtorch has no kernels for the GPU.
    Tensor::f_ones([1], (Kind::Float, Device::Cuda(index)))
        .and_then(|one| one.f_double_value(&[0]))
        .map_err(|error| {
            Error::Device(format!("--device cuda:{index}: {}; {hint}", Error::from(error)))
        })?;
    super::allow_tf32(false)
}

/// Loads `libtorch_cuda.so`, which registers the CUDA backend. The linker drops this library, as
/// the program uses none of its symbols; linking it anyway would make every start 0.15 s slower. It
/// must be loaded before any other query about CUDA, as libtorch keeps the results.
fn load_cuda_backend() -> Result<()> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    let name = "libtorch_cuda.so";
    LOADED
        // SAFETY: this is libtorch's own library, whose initialisers register kernels; it is never
        // unloaded.
        .get_or_init(|| unsafe {
            Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL).map_err(|error| super::reason(&error))
        })
        .as_ref()
        .map(|_| ())
        .map_err(|error| {
            Error::Device(format!(
                "--device cuda: this libtorch has no CUDA, or it cannot be loaded ({error}); \
                 install a CUDA build of PyTorch {}, or use --device cpu",
                super::VERSION
            ))
        })
}
