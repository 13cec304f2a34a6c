//! Weights in the forms that PyTorch users have: TorchScript, `torch.save` and safetensors.
//!
//! Reading goes by a file's content, never by its name, and executes nothing: see [`pickle`].

mod archive;
pub mod checkpoint;
mod mapping;
pub mod pickle;
mod safetensors;
pub mod value;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use tch::nn::VarStore;
use tch::{Device, Tensor};

pub use checkpoint::Checkpoint;
pub use value::{MAX_TENSOR_BYTES, Value};

use crate::model::{LeNet5, ModelConfig, torchscript_source};
use crate::{Error, Result, files, libtorch};

/// The key of our settings in the metadata of a state dict and of safetensors.
const CONFIG_KEY: &str = "lenet5";

/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// The most tensors of a file, and the longest of their names.
const MAX_TENSORS: usize = 1000;
const MAX_NAME_BYTES: usize = 1000;

/// Keys under which a checkpoint dict holds the state dict.
const STATE_DICT_KEYS: [&str; 3] = ["state_dict", "model_state_dict", "model"];

/// The forms in which weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `.pt`: TorchScript with named parameters and a forward.
    #[value(name = "torchscript")]
    TorchScript,
    /// `.pth`: `torch.save(model.state_dict())`.
    StateDict,
    /// `.safetensors`.
    #[value(name = "safetensors")]
    SafeTensors,
}

impl Format {
    /// The format that a file name's suffix stands for.
    pub fn from_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "pt" => Some(Self::TorchScript),
            "pth" => Some(Self::StateDict),
            "safetensors" => Some(Self::SafeTensors),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchScript => "TorchScript",
            Self::StateDict => "state dict",
            Self::SafeTensors => "safetensors",
        })
    }
}

/// A LeNet-5's settings and parameters, by our names, float32, on the CPU.
#[derive(Debug)]
pub struct Weights {
    /// The settings: from the file, or as far as shapes tell them, with the defaults for the rest.
    pub config: ModelConfig,
    /// Whether the file held the settings.
    pub config_stored: bool,
    /// `c1.weight`, `c1.bias`, ..., `output.bias`.
    pub tensors: Vec<(String, Tensor)>,
}

impl Weights {
    /// Copies of a model's parameters.
    pub fn of(model: &LeNet5) -> Self {
        let copy = |(name, tensor): (String, Tensor)| {
            (name, tensor.detach().to_device(Device::Cpu).copy())
        };
        Self {
            config: model.config().clone(),
            config_stored: true,
            tensors: model.parameters().into_iter().map(copy).collect(),
        }
    }

    /// Reads a file of any of the forms. Foreign names are matched by shape.
    ///
    /// # Errors
    /// Where the file holds no LeNet-5, or a broken one; the message says what it holds instead.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_limited(path)?;
        parse(&bytes).map_err(|message| Error::file(path, message))
    }

    /// The file's weights, or those that ship with the program (`weights/lenet5.*`) without one.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let shipped = include_bytes!("../../weights/lenet5.safetensors");
        path.map_or_else(
            || parse(shipped).map_err(|message| Error::file(Path::new("shipped weights"), message)),
            Self::read,
        )
    }

    /// What to tell the user of settings that were assumed: activation and pooling leave no trace
    /// in the parameters.
    pub fn assumptions(&self) -> Option<String> {
        let ModelConfig { activation, pooling, mean, std, .. } = &self.config;
        (!self.config_stored).then(|| {
            format!(
                "the file does not say its settings; assumed: {activation:?} activation, \
                 {pooling:?} pooling, input mean {mean}, std {std}"
            )
            .to_lowercase()
        })
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path, format: Format) -> Result<()> {
        files::write_atomic(path, &self.to_bytes(format)?)
    }

    /// What [`Weights::write`] writes.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn to_bytes(&self, format: Format) -> Result<Vec<u8>> {
        let config = serde_json::to_string(&self.config).expect("settings are plain data");
        match format {
            Format::TorchScript => {
                libtorch::torchscript(&self.tensors, &torchscript_source(&self.config), &config)
            }
            Format::StateDict => archive::write(&self.state_dict()),
            Format::SafeTensors => {
                // "format" is what safetensors.torch.save_file writes, and transformers asks for.
                let metadata =
                    [("format".to_owned(), "pt".to_owned()), (CONFIG_KEY.to_owned(), config)];
                safetensors::write(&self.tensors, HashMap::from(metadata))
            }
        }
    }

    /// The parameters as `model.state_dict()` gives them in Python: an `OrderedDict`, whose
    /// `_metadata` holds the settings too, where `load_state_dict(strict=True)` ignores them.
    fn state_dict(&self) -> Value {
        let config = serde_json::to_string(&self.config).expect("settings are plain data");
        let version = || Value::dict([("version", Value::Int(1))]);
        let mut metadata = vec![(
            String::new(),
            Value::dict([("version", Value::Int(1)), (CONFIG_KEY, Value::Str(config))]),
        )];
        metadata.extend(crate::model::LAYERS.map(|layer| (layer.to_owned(), version())));
        let items = self.tensors.iter().map(|(name, tensor)| {
            (Value::Str(name.clone()), Value::Tensor(tensor.shallow_clone()))
        });
        Value::Dict {
            items: items.collect(),
            attributes: Some(vec![("_metadata".to_owned(), Value::dict(metadata))]),
        }
    }

    /// A model with these weights, on `device`, and the store that owns its variables.
    ///
    /// # Errors
    /// Where the tensors do not fit the settings.
    pub fn build(&self, device: Device) -> Result<(VarStore, LeNet5)> {
        let mut vs = VarStore::new(Device::Cpu);
        let model = LeNet5::uninitialised(&vs.root(), &self.config);
        model.load_state(&self.tensors)?;
        vs.set_device(device);
        Ok((vs, model))
    }
}

/// Writes tensors by name as safetensors: what `evaluate --logits` gives.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    files::write_atomic(path, &safetensors::write(tensors, HashMap::new())?)
}

/// A file's bytes, at most [`MAX_FILE_BYTES`].
pub(crate) fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::file(
            path,
            format!("expected at most {MAX_FILE_BYTES} bytes, found more"),
        ));
    }
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Weights, String> {
    let (tensors, config) = match bytes {
        [] => return Err("expected weights, found an empty file".to_owned()),
        [b'P', b'K', 3, 4, ..] => from_archive(bytes)?,
        [0x80, 2, 0x8a, 0x0a, ..] => {
            return Err(
                "expected torch.save's format of PyTorch 1.6 or later, found the one before: \
                        torch.load it in Python, and torch.save it again"
                    .to_owned(),
            );
        }
        // The header's length in eight bytes, then JSON.
        [_, _, _, _, _, _, _, _, b'{', ..] => {
            let (tensors, mut metadata) = safetensors::read(bytes)?;
            (tensors, metadata.remove(CONFIG_KEY))
        }
        _ => {
            return Err(
                "expected a zip archive (torch.save, TorchScript) or safetensors, found neither"
                    .to_owned(),
            );
        }
    };
    let config = match config {
        None => None,
        Some(json) => {
            let config: ModelConfig = serde_json::from_str(&json)
                .map_err(|error| format!("the stored settings are broken ({error})"))?;
            config
                .validate()
                .map_err(|error| format!("the stored settings are broken ({error})"))?;
            Some(config)
        }
    };
    mapping::match_layers(tensors, config)
}

type TensorsAndConfig = (Vec<(String, Tensor)>, Option<String>);

fn from_archive(bytes: &[u8]) -> Result<TensorsAndConfig, String> {
    let archive = archive::read(bytes)?;
    let dict = STATE_DICT_KEYS
        .iter()
        .find_map(|key| {
            archive
                .value
                .get(key)
                .filter(|value| matches!(value, Value::Dict { .. } | Value::Object { .. }))
        })
        .unwrap_or(&archive.value);
    let mut tensors = Vec::new();
    collect(dict, "", &mut tensors)?;
    if tensors.is_empty() {
        let what = if archive.torchscript {
            "TorchScript without parameters".to_owned()
        } else {
            dict.describe()
        };
        return Err(format!("expected a state dict of LeNet-5, found {what}"));
    }
    let stored = match dict {
        Value::Dict { attributes: Some(attributes), .. } => attributes
            .iter()
            .find(|(name, _)| name == "_metadata")
            .and_then(|(_, metadata)| metadata.get("")?.get(CONFIG_KEY)?.as_str())
            .map(str::to_owned),
        _ => None,
    };
    Ok((tensors, archive.config.or(stored)))
}

/// All tensors below `value` by dotted name: of dicts, and of the modules of TorchScript.
fn collect(value: &Value, prefix: &str, tensors: &mut Vec<(String, Tensor)>) -> Result<(), String> {
    match value {
        Value::Tensor(_) if tensors.len() == MAX_TENSORS => {
            return Err(format!("expected at most {MAX_TENSORS} tensors, found more"));
        }
        Value::Tensor(tensor) => tensors.push((prefix.to_owned(), tensor.shallow_clone())),
        Value::Dict { items, .. } => {
            for (key, value) in items {
                let Some(key) = key.as_str() else { continue };
                if prefix.len() + key.len() >= MAX_NAME_BYTES {
                    return Err(format!(
                        "expected names below {MAX_NAME_BYTES} bytes, found a longer one"
                    ));
                }
                let name =
                    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
                collect(value, &name, tensors)?;
            }
        }
        Value::Object { state: Some(state), .. } => collect(state, prefix, tensors)?,
        _ => {}
    }
    Ok(())
}
