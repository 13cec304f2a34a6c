//! Weights in the forms that PyTorch users have: TorchScript, `torch.save` and safetensors.
//!
//! Reading goes by a file's content, never by its name, and executes nothing: see [`pickle`]. What it
//! may take of the machine is bounded: see [`Limits`].

mod archive;
pub mod checkpoint;
pub mod contents;
mod dtype;
mod inspect;
mod legacy;
mod limits;
mod mapping;
pub mod pickle;
mod pickle_write;
pub mod resolve;
mod safetensors;
mod state_dict;
pub mod value;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use tch::nn::VarStore;
use tch::{Device, Tensor};

pub use checkpoint::Checkpoint;
use contents::Contents;
pub use inspect::Inspection;
pub use limits::Limits;
use mapping::Mapping;
pub use value::Value;

use crate::model::{LeNet5, ModelConfig, ModelOptions, torchscript_source};
use crate::{Error, Result, files, libtorch};

/// The key of our settings: an attribute of TorchScript's module, an entry of a state dict's
/// `_metadata`, of a checkpoint, and of safetensors' metadata.
const CONFIG_KEY: &str = "lenet5";

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

/// Where the settings come from that shapes do not tell: activation, pooling, and what is done to the
/// input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settings {
    /// From the file, the model or the user.
    Known,
    /// Assumed, but for what code or classes in the file tell.
    Assumed {
        /// Whether they tell the activation.
        activation_known: bool,
        /// Whether they tell the pooling.
        pooling_known: bool,
    },
}

/// A LeNet-5's settings and parameters, by our names, float32, on the CPU.
#[derive(Debug)]
pub struct Weights {
    /// The settings.
    pub config: ModelConfig,
    /// Where they come from.
    pub settings: Settings,
    /// `c1.weight`, `c1.bias`, ..., `output.bias`.
    pub tensors: Vec<(String, Tensor)>,
    /// For each of them the name in the file; empty where they are from no file.
    pub names: Vec<String>,
    /// The keys that lead to the state dict in the file, such as `state.model`; may be empty.
    pub found_at: String,
    /// Other types than float32 that the file holds, by their names in `torch`.
    pub converted: BTreeSet<&'static str>,
}

impl Weights {
    /// Copies of a model's parameters.
    pub fn of(model: &LeNet5) -> Self {
        let copy = |(name, tensor): (String, Tensor)| {
            (name, tensor.detach().to_device(Device::Cpu).copy())
        };
        Self::from_tensors(model.config().clone(), model.state().into_iter().map(copy).collect())
    }

    /// All parameters by our names, with settings that are known.
    fn from_tensors(config: ModelConfig, tensors: Vec<(String, Tensor)>) -> Self {
        let (names, found_at, converted) = (Vec::new(), String::new(), BTreeSet::new());
        Self { config, settings: Settings::Known, tensors, names, found_at, converted }
    }

    /// Reads a file of any of the forms, within the default limits. Foreign names are matched by shape.
    ///
    /// # Errors
    /// Where the file holds no LeNet-5, or a broken one; the message says what it holds instead.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_within(path, &Limits::default())
    }

    /// As [`Weights::read`], within other limits.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn read_within(path: &Path, limits: &Limits) -> Result<Self> {
        let bytes = read_limited(path, limits)?;
        Self::from_bytes(&bytes, limits).map_err(|message| Error::file(path, message))
    }

    /// The weights that ship with the program (`weights/lenet5.*`).
    ///
    /// # Errors
    /// None that a build which passes its tests has.
    pub fn shipped() -> Result<Self> {
        let bytes = include_bytes!("../../weights/lenet5.safetensors");
        Self::from_bytes(bytes, &Limits::default())
            .map_err(|message| Error::file(Path::new("shipped weights"), message))
    }

    /// From a file's bytes.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn from_bytes(bytes: &[u8], limits: &Limits) -> Result<Self, String> {
        Self::from_contents(&contents::read(bytes, limits)?)
    }

    fn from_contents(contents: &Contents) -> Result<Self, String> {
        let mut first_error = None;
        for candidate in state_dict::candidates(&contents.value) {
            let stored = contents.config.as_deref().or_else(|| stored_config(candidate.value));
            let result = state_dict::entries(candidate.value).and_then(|entries| {
                if entries.is_empty() {
                    let what = match contents.container {
                        contents::Container::TorchScript => {
                            "TorchScript without parameters".to_owned()
                        }
                        _ => candidate.value.describe(),
                    };
                    return Err(format!("expected a state dict of LeNet-5, found {what}"));
                }
                let config = stored.map(parse_config).transpose()?;
                Ok((mapping::map(&entries, config.as_ref())?, config.is_some()))
            });
            match result {
                Ok((mapping, stored)) => {
                    return Ok(Self::from_mapping(mapping, stored, contents, candidate.path));
                }
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        let error = first_error.expect("the whole file is a candidate");
        Err(if contents.quantised && !error.contains("quantised") {
            format!("{error}; its layers are quantised")
        } else {
            error
        })
    }

    fn from_mapping(mapping: Mapping, stored: bool, contents: &Contents, found_at: String) -> Self {
        let Mapping { mut config, tensors, names, converted } = mapping;
        let settings = if stored {
            Settings::Known
        } else {
            config.activation = contents.activation.unwrap_or(config.activation);
            config.pooling = contents.pooling.unwrap_or(config.pooling);
            Settings::Assumed {
                activation_known: contents.activation.is_some(),
                pooling_known: contents.pooling.is_some(),
            }
        };
        Self { config, settings, tensors, names, found_at, converted }
    }

    /// Replaces settings by those that a user gives; the rest of what was assumed then counts as known.
    ///
    /// # Errors
    /// Where a setting is out of its range, or does not fit the weights' shapes.
    pub fn set(&mut self, options: &ModelOptions) -> Result<()> {
        if *options == ModelOptions::default() {
            return Ok(());
        }
        let size = self.config.input.size();
        options.apply(&mut self.config);
        self.config.validate()?;
        if self.config.input.size() != size {
            return Err(Error::Config(format!(
                "input {}: these weights are of a network that takes {size}x{size} pixels",
                self.config.input
            )));
        }
        self.settings = Settings::Known;
        Ok(())
    }

    /// What to tell the user: where the weights were found, how names were matched, what was converted
    /// and what was assumed.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.found_at.is_empty() {
            notes.push(format!("weights found under {}", value::shown(&self.found_at)));
        }
        let layers = self.foreign_layers();
        if !layers.is_empty() {
            let pairs: Vec<_> = layers
                .iter()
                .map(|(found, ours)| format!("{} -> {ours}", value::shown(found)))
                .collect();
            notes.push(format!("names matched by shape: {}", pairs.join(", ")));
        }
        if !self.converted.is_empty() {
            let types: Vec<_> = self.converted.iter().copied().collect();
            notes.push(format!("converted to float32 from {}", types.join(" and ")));
        }
        if let Settings::Assumed { activation_known, pooling_known } = self.settings {
            let config = &self.config;
            let what = match (activation_known, pooling_known) {
                (true, true) => "only its activation and pooling",
                (true, false) => "only its activation",
                (false, true) => "only its pooling",
                (false, false) => "nothing",
            };
            notes.push(format!(
                "of its settings the file says {what}; taken: {config}; options such as \
                 --activation change them, and convert --detect finds them by trial"
            ));
        }
        notes
    }

    /// The file's names of the layers beside ours, where they differ.
    fn foreign_layers(&self) -> Vec<(&str, &str)> {
        let pairs: Vec<_> = self
            .names
            .iter()
            .zip(&self.tensors)
            .filter_map(|(found, (ours, _))| {
                let ours = ours.strip_suffix(".weight")?;
                Some((found.strip_suffix(".weight").unwrap_or(found), ours))
            })
            .collect();
        let foreign = |(found, ours): &(&str, &str)| found.rsplit('.').next() != Some(ours);
        if pairs.iter().any(foreign) { pairs } else { Vec::new() }
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
                let source = torchscript_source(&self.config);
                let fixed = |name: &str| self.config.is_fixed(name);
                libtorch::torchscript(&self.tensors, &fixed, &source, (CONFIG_KEY, &config))
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
        let mut layers: Vec<_> =
            self.tensors.iter().filter_map(|(name, _)| Some(name.split_once('.')?.0)).collect();
        layers.dedup();
        metadata.extend(layers.into_iter().map(|layer| (layer.to_owned(), version())));
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
        self.build_as(&self.config, device)
    }

    /// As [`Weights::build`], with other settings.
    pub(crate) fn build_as(
        &self,
        config: &ModelConfig,
        device: Device,
    ) -> Result<(VarStore, LeNet5)> {
        let mut vs = VarStore::new(Device::Cpu);
        let model = LeNet5::uninitialised(&vs.root(), config)?;
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

/// A file's bytes, as many as the limits allow.
pub(crate) fn read_limited(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    let limit = limits.file_bytes();
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::file(path, format!("expected at most {limit} bytes, found more")));
    }
    Ok(bytes)
}

/// The settings in a state dict's `_metadata`.
fn stored_config(state_dict: &Value) -> Option<&str> {
    let Value::Dict { attributes: Some(attributes), .. } = state_dict else { return None };
    let (_, metadata) = attributes.iter().find(|(name, _)| name == "_metadata")?;
    metadata.get("")?.get(CONFIG_KEY)?.as_str()
}

/// Reads and checks stored settings.
fn parse_config(json: &str) -> Result<ModelConfig, String> {
    let broken = |error: &dyn fmt::Display| format!("the stored settings are broken ({error})");
    let config: ModelConfig = serde_json::from_str(json).map_err(|error| broken(&error))?;
    config.validate().map_err(|error| broken(&error))?;
    Ok(config)
}
