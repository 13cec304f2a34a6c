//! Files of weights. The core reads them; this module adds writing TorchScript by libtorch.

use std::path::Path;

use lenet5_core::files;
pub use lenet5_core::weights::*;

use crate::Result;
use crate::libtorch::{self, to_tensor};
use crate::model::torchscript_source;

/// The file formats in which weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TorchScript with named parameters and a forward: `.pt`.
    TorchScript,
    /// `torch.save(model.state_dict())`: `.pth`.
    StateDict,
    /// safetensors: `.safetensors`.
    SafeTensors,
}

lenet5_core::choices!(Format {
    TorchScript = "torchscript": ".pt: TorchScript with named parameters and a forward",
    StateDict = "state-dict": ".pth: torch.save(model.state_dict())",
    SafeTensors = "safetensors": ".safetensors",
});

impl Format {
    /// Returns the format that a file name's extension stands for.
    pub fn from_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "pt" => Some(Self::TorchScript),
            "pth" => Some(Self::StateDict),
            "safetensors" => Some(Self::SafeTensors),
            _ => None,
        }
    }

    /// Returns the format's name for messages.
    pub fn title(self) -> &'static str {
        match self {
            Self::TorchScript => "TorchScript",
            Self::StateDict => "state dict",
            Self::SafeTensors => "safetensors",
        }
    }
}

/// Writes a file of weights, completely or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write(weights: &Weights, path: &Path, format: Format) -> Result<()> {
    Ok(files::write_atomic(path, &to_bytes(weights, format)?)?)
}

/// Returns the content of a file of weights.
///
/// # Errors
/// If libtorch reports an error.
pub fn to_bytes(weights: &Weights, format: Format) -> Result<Vec<u8>> {
    match format {
        Format::TorchScript => {
            let source = torchscript_source(&weights.config);
            let fixed = |name: &str| weights.config.is_fixed(name);
            let tensor = |(name, array): &(String, _)| Ok((name.clone(), to_tensor(array)?));
            let tensors = weights.tensors.iter().map(tensor).collect::<Result<Vec<_>>>()?;
            libtorch::torchscript(&tensors, &fixed, &source, (CONFIG_KEY, &weights.settings()))
        }
        Format::StateDict => Ok(weights.to_state_dict()?),
        Format::SafeTensors => Ok(weights.to_safetensors()),
    }
}
