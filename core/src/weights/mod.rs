//! Reads and writes weights in the file formats of PyTorch: TorchScript, `torch.save` and
//! safetensors.
//!
//! The format is detected from the content, never from the file name, and nothing in a file is
//! executed: see [`pickle`]. The memory that reading takes is bounded: see [`Limits`].

mod archive;
pub mod checkpoint;
pub mod contents;
mod inspect;
mod legacy;
mod limits;
mod mapping;
mod optimizer_state;
pub mod pickle;
mod pickle_write;
pub mod resolve;
mod safetensors;
mod state_dict;
pub mod value;
pub(crate) mod zip;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

pub use checkpoint::Checkpoint;
use contents::{Contents, Hints};
pub use inspect::Inspection;
pub use limits::Limits;
use mapping::Mapping;
pub use optimizer_state::OptimizerState;
use state_dict::Candidate;
pub use value::Value;

use crate::model::{ModelConfig, ModelOptions, Network};
use crate::{Array, DType, Error, Result, files};

/// The key under which files hold the network's settings: an attribute of a TorchScript module, or
/// an entry of a state dict's `_metadata`, of a checkpoint or of the safetensors metadata.
#[doc(hidden)]
pub const CONFIG_KEY: &str = "lenet5";

/// The origin of the settings that cannot be derived from the tensors' shapes: the activation, the
/// pooling and the preparation of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provenance {
    /// The settings were stored in the file, or given by the model or the user.
    Known,
    /// The settings are defaults, except those that code or classes in the file show.
    Assumed(Hints),
}

/// The settings and parameters of a LeNet-5. The parameters are float32 and have this crate's
/// names.
#[derive(Debug)]
#[non_exhaustive]
pub struct Weights {
    /// The network's settings.
    pub config: ModelConfig,
    /// The origin of these settings.
    pub provenance: Provenance,
    /// The parameters by name: `c1.weight`, `c1.bias`, ..., `output.bias`.
    pub tensors: Vec<(String, Array)>,
    /// The name that each parameter has in the file; empty if the weights do not come from a file.
    pub names: Vec<String>,
    /// The keys that lead to the state dict in the file, joined by dots, such as `state.model`;
    /// empty if the whole file is the state dict.
    pub found_at: String,
    /// The types other than float32 that the parameters had in the file, by their names in `torch`.
    pub converted: BTreeSet<&'static str>,
    /// The names of the file's tensors that do not belong to LeNet-5, such as counters.
    pub left_out: Vec<String>,
    /// Descriptions of the changes that were made to the file's tensors, such as added biases.
    pub adjusted: Vec<String>,
    /// The keys of further networks in the file whose parameters differ from these.
    pub others: Vec<String>,
}

impl Weights {
    /// Creates weights from settings and parameters. `tensors` are those of [`ModelConfig::state`]:
    /// the same names, order and shapes, float32.
    ///
    /// # Errors
    /// If a tensor is missing or has another name, type or shape; the message names the first one.
    pub fn new(config: ModelConfig, tensors: Vec<(String, Array)>) -> Result<Self> {
        let expected = config.state();
        if tensors.len() != expected.len() {
            return Err(Error::Config(format!(
                "expected {} tensors, found {}",
                expected.len(),
                tensors.len()
            )));
        }
        for ((name, shape), (found, array)) in expected.iter().zip(&tensors) {
            if name != found || array.dtype() != DType::F32 || array.shape() != shape {
                return Err(Error::Config(format!(
                    "expected {name} of float32 {shape:?}, found {found} of {} {:?}",
                    array.dtype().name(),
                    array.shape()
                )));
            }
        }
        Ok(Self::from_tensors(config, tensors))
    }

    fn from_tensors(config: ModelConfig, tensors: Vec<(String, Array)>) -> Self {
        Self {
            config,
            provenance: Provenance::Known,
            tensors,
            names: Vec::new(),
            found_at: String::new(),
            converted: BTreeSet::new(),
            left_out: Vec::new(),
            adjusted: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Returns the parameter with this name, such as `c1.weight`.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.tensors.iter().find(|(other, _)| other == name).map(|(_, array)| array)
    }

    /// Reads a file of any supported format within the default limits. Parameters with names that
    /// this crate does not know are matched by shape.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged or holds no LeNet-5; the message states what it holds
    /// instead.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_within(path, &Limits::default(), None)
    }

    /// Reads a file as [`Weights::read`] does, within other limits. If the file holds several
    /// networks, it takes the one under `key`: names joined by dots, such as `teacher` or
    /// `state.model`.
    ///
    /// # Errors
    /// The errors of [`Weights::read`]. Also if there is no network under `key`; the message lists
    /// the keys of those that the file holds.
    pub fn read_within(path: &Path, limits: &Limits, key: Option<&str>) -> Result<Self> {
        let bytes = read_limited(path, limits)?;
        contents::read(&bytes, limits)
            .and_then(|contents| Self::from_contents(&contents, key))
            .map_err(|message| Error::file(path, message))
    }

    /// Returns the weights that ship with the program: `weights/lenet5.safetensors`, or
    /// `weights/lenet5-1998.safetensors` for the original network. They have the lowest error on
    /// MNIST.
    ///
    /// # Errors
    /// Only if the build is broken: the tests read these weights.
    pub fn shipped(network: Network) -> Result<Self> {
        Self::built_in(match network {
            Network::Modern => include_bytes!("../../weights/lenet5.safetensors"),
            Network::Original => include_bytes!("../../weights/lenet5-1998.safetensors"),
        })
    }

    /// Returns the weights that ship with the program for reading pictures:
    /// `weights/lenet5-reading.safetensors`, which learned from more hands than MNIST's, or
    /// `weights/lenet5-1998.safetensors` for the original network.
    ///
    /// # Errors
    /// Only if the build is broken: the tests read these weights.
    pub fn for_reading(network: Network) -> Result<Self> {
        match network {
            Network::Modern => {
                Self::built_in(include_bytes!("../../weights/lenet5-reading.safetensors"))
            }
            Network::Original => Self::shipped(network),
        }
    }

    /// Returns the reject network that ships with the program: the modern network with an eleventh
    /// class for pictures that show no digit.
    pub(crate) fn reject_network() -> Result<Self> {
        Self::built_in(include_bytes!("../../weights/lenet5-reject.safetensors"))
    }

    fn built_in(bytes: &[u8]) -> Result<Self> {
        Self::from_bytes(bytes, &Limits::default())
            .map_err(|message| Error::file(Path::new("shipped weights"), message))
    }

    /// Reads the bytes of a file of any supported format.
    ///
    /// # Errors
    /// If the bytes are not as expected; the message states what was expected and what was found.
    pub fn from_bytes(bytes: &[u8], limits: &Limits) -> Result<Self, String> {
        Self::from_contents(&contents::read(bytes, limits)?, None)
    }

    /// Returns the network under `key`. Without a key it takes the network under a usual key, or
    /// the only network. The keys of further networks that differ are put into [`Weights::others`].
    fn from_contents(contents: &Contents, key: Option<&str>) -> Result<Self, String> {
        let mut first_error = None;
        let mut found: Vec<(Self, bool)> = Vec::new();
        for candidate in state_dict::candidates(&contents.value) {
            if found.iter().any(|(weights, _)| candidate.overlaps(&weights.found_at)) {
                continue;
            }
            match Self::from_candidate(contents, &candidate) {
                Ok(weights) => found.push((weights, candidate.usual)),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        let keys = |networks: &[(Self, bool)]| {
            let keys = networks.iter().map(|(weights, _)| match weights.found_at.as_str() {
                "" => "the whole".to_owned(),
                key => value::shown(key),
            });
            keys.collect::<Vec<_>>().join(", ")
        };
        if let Some(key) = key {
            let index = found.iter().position(|(weights, _)| weights.found_at == key);
            // A flat state dict can hold several networks. The names of the tensors then start with
            // the network's key.
            let entries = state_dict::entries(&contents.value)?;
            let below = |entry: &state_dict::Entry| state_dict::is_within(&entry.name, key);
            let entries: Vec<_> = entries.into_iter().filter(below).collect();
            if index.is_none() && !entries.is_empty() {
                let value = &contents.value;
                return Self::from_entries(contents, value, entries, (key.to_owned(), key));
            }
            return match (index, &first_error) {
                (Some(index), _) => Ok(found.swap_remove(index).0),
                (None, Some(error)) if found.is_empty() => Err(error.clone()),
                (None, _) => {
                    Err(format!("expected a LeNet-5 under {key}, found under: {}", keys(&found)))
                }
            };
        }
        if found.is_empty() {
            let error = first_error.expect("the whole file is a candidate");
            return Err(if contents.hints.quantised && !error.contains("quantised") {
                format!("{error}; its layers are quantised")
            } else {
                error
            });
        }
        let (first, usual) = &found[0];
        let differs = |(weights, _): &&(Self, bool)| weights.tensors != first.tensors;
        let others: Vec<_> = found[1..].iter().filter(differs).collect();
        if !usual && !others.is_empty() {
            return Err(format!(
                "expected one LeNet-5, found others under {}: choose by --key, or save one of them",
                keys(&found)
            ));
        }
        let others = others.iter().map(|(weights, _)| weights.found_at.clone()).collect();
        Ok(Self { others, ..found.swap_remove(0).0 })
    }

    fn from_candidate(contents: &Contents, candidate: &Candidate) -> Result<Self, String> {
        let entries = state_dict::entries(candidate.value)?;
        Self::from_entries(contents, candidate.value, entries, (candidate.path.clone(), ""))
    }

    /// Returns the network of these entries, which are those of `value` whose names begin with
    /// `prefix`.
    fn from_entries(
        contents: &Contents,
        value: &Value,
        entries: Vec<state_dict::Entry>,
        (path, prefix): (String, &str),
    ) -> Result<Self, String> {
        let stored = contents.config.clone().or_else(|| stored_config(value, prefix));
        if entries.is_empty() {
            let what = match contents.container {
                contents::Container::TorchScript => "TorchScript without parameters".to_owned(),
                _ => value.describe(),
            };
            return Err(format!("expected a state dict of LeNet-5, found {what}"));
        }
        let config = stored.as_deref().map(parse_config).transpose()?;
        let mapping = mapping::map(entries, config.as_ref())?;
        Ok(Self::from_mapping(mapping, config.is_some(), contents, path))
    }

    fn from_mapping(mapping: Mapping, stored: bool, contents: &Contents, found_at: String) -> Self {
        let Mapping { mut config, tensors, names, converted, left_out, adjusted } = mapping;
        let Hints { activation, pooling, input, .. } = contents.hints;
        let provenance = if stored || config.network == Network::Original {
            Provenance::Known
        } else {
            config.activation = activation.unwrap_or(config.activation);
            config.pooling = pooling.unwrap_or(config.pooling);
            config.input =
                input.filter(|i| i.size() == config.input.size()).unwrap_or(config.input);
            Provenance::Assumed(contents.hints)
        };
        let others = Vec::new();
        Self { config, provenance, tensors, names, found_at, converted, left_out, adjusted, others }
    }

    /// Replaces settings by those that the user gives. Afterwards all settings count as known.
    ///
    /// # Errors
    /// If a setting is out of its range or does not fit the weights' shapes.
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
        self.provenance = Provenance::Known;
        Ok(())
    }

    /// Returns notes for the user: where the weights were found, how names were matched, what was
    /// converted and what was assumed.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.found_at.is_empty() {
            notes.push(format!("weights found under {}", value::shown(&self.found_at)));
        }
        if !self.others.is_empty() {
            let keys: Vec<_> = self.others.iter().map(|key| value::shown(key)).collect();
            notes.push(format!("other networks under {}: --key chooses", keys.join(", ")));
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
        if !self.left_out.is_empty() {
            let names: Vec<_> = self.left_out.iter().map(|name| value::shown(name)).collect();
            notes.push(format!("left out: {}", names.join(", ")));
        }
        notes.extend(self.adjusted.iter().cloned());
        if let Provenance::Assumed(hints) = self.provenance {
            let known = [
                ("activation", hints.activation.is_some()),
                ("pooling", hints.pooling.is_some()),
                ("input", hints.input.is_some()),
            ];
            let known: Vec<_> = known.iter().filter(|(_, known)| *known).map(|(n, _)| *n).collect();
            let what = match known[..] {
                [] => "nothing".to_owned(),
                _ => format!("only {}", known.join(", ")),
            };
            notes.push(format!(
                "of its settings the file says {what}; taken: {}; options such as --activation \
                 change them, and convert --detect finds them by trial",
                self.config
            ));
        }
        notes
    }

    /// Pairs of the file's and this crate's layer names; empty if they are the same.
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

    /// Returns the codes of the classes, 84 numbers for each: the picture of 7x12 that the network of
    /// 1998 draws for a class. Returns `None` for the modern network, which has no codes.
    pub fn codes(&self) -> Option<Vec<Vec<f32>>> {
        if self.config.network == Network::Modern {
            return None;
        }
        let codes = self.get("output.weight")?.to_f32();
        Some(codes.chunks_exact(84).map(<[f32]>::to_vec).collect())
    }

    /// Encodes the weights and settings as `torch.save(model.state_dict())` does.
    /// `torch.load(weights_only=True)` reads the result.
    ///
    /// # Errors
    /// If the file would be larger than 4 GiB.
    pub fn to_state_dict(&self) -> Result<Vec<u8>> {
        archive::write(&self.state_dict())
    }

    /// Encodes the weights and settings as a safetensors file. `safetensors.torch.load_file` reads
    /// the result.
    pub fn to_safetensors(&self) -> Vec<u8> {
        // safetensors.torch.save_file writes the entry "format", and transformers requires it.
        let metadata =
            [("format".to_owned(), "pt".to_owned()), (CONFIG_KEY.to_owned(), self.settings())];
        safetensors::write(&self.tensors, BTreeMap::from(metadata))
    }

    /// Returns the settings as JSON, the form in which files of weights hold them.
    #[doc(hidden)]
    pub fn settings(&self) -> String {
        serde_json::to_string(&self.config).expect("settings are plain data")
    }

    /// The parameters as `model.state_dict()` returns them in Python: an `OrderedDict`. Its
    /// `_metadata` also holds the settings, as `load_state_dict(strict=True)` ignores unknown
    /// entries there.
    fn state_dict(&self) -> Value {
        let version = || Value::dict([("version", Value::Int(1))]);
        let mut metadata = vec![(
            String::new(),
            Value::dict([("version", Value::Int(1)), (CONFIG_KEY, Value::Str(self.settings()))]),
        )];
        let mut layers: Vec<_> =
            self.tensors.iter().filter_map(|(name, _)| Some(name.split_once('.')?.0)).collect();
        layers.dedup();
        metadata.extend(layers.into_iter().map(|layer| (layer.to_owned(), version())));
        let items = self
            .tensors
            .iter()
            .map(|(name, tensor)| (Value::Str(name.clone()), Value::Tensor(tensor.clone())));
        Value::Dict {
            items: items.collect(),
            attributes: Some(vec![("_metadata".to_owned(), Value::dict(metadata))]),
        }
    }
}

/// Writes named tensors to a safetensors file, for example for `evaluate --logits`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[(String, Array)]) -> Result<()> {
    files::write_atomic(path, &safetensors::write(tensors, BTreeMap::new()))
}

/// Reads a file of at most [`Limits::file_bytes`] bytes.
#[doc(hidden)]
pub fn read_limited(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    files::read(path, limits.file_bytes(), &format!("; {}", limits::RAISE))
}

/// Returns the settings, as JSON, of the network whose tensors have names below `prefix`. A state
/// dict holds them in its `_metadata`. If a wrapper such as `DataParallel` has moved them to a
/// submodule, they are taken from the only submodule that has any, else from the network itself. A
/// whole module of this project's Python classes holds them in its attribute `settings`.
fn stored_config(value: &Value, prefix: &str) -> Option<String> {
    let attributes = match value {
        Value::Dict { attributes: Some(attributes), .. } => attributes,
        Value::Object { state: Some(state), .. } => {
            let settings = json(state.get("settings")?)?;
            serde_json::from_value::<ModelConfig>(settings.clone()).ok()?;
            return Some(settings.to_string());
        }
        _ => return None,
    };
    let (_, metadata) = attributes.iter().find(|(name, _)| name == "_metadata")?;
    let parts = metadata.items()?.iter();
    let mut stored = parts.filter_map(|(name, part)| {
        let text = part.get(CONFIG_KEY)?.as_str()?;
        state_dict::is_within(name.as_str()?, prefix).then_some(text)
    });
    match (stored.next(), stored.next()) {
        (Some(only), None) => Some(only.to_owned()),
        _ => Some(metadata.get(prefix)?.get(CONFIG_KEY)?.as_str()?.to_owned()),
    }
}

/// Converts plain data to JSON; `None` if there is other data in it.
fn json(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Str(value) => value.as_str().into(),
        Value::Dict { items, .. } => {
            let entry =
                |(key, value): &(Value, Value)| Some((key.as_str()?.to_owned(), json(value)?));
            serde_json::Value::Object(items.iter().map(entry).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// Parses and validates stored settings.
fn parse_config(json: &str) -> Result<ModelConfig, String> {
    let broken = |error: &dyn fmt::Display| format!("the stored settings are broken ({error})");
    // serde would accept a list for a struct, too.
    if !json.trim_start().starts_with('{') {
        return Err(broken(&"expected a JSON object"));
    }
    let config: ModelConfig = serde_json::from_str(json).map_err(|error| broken(&error))?;
    config.validate().map_err(|error| broken(&error))?;
    Ok(config)
}
