//! Weights in the forms that PyTorch users have: TorchScript, `torch.save` and safetensors.
//!
//! Reading goes by a file's content, never by its name, and executes nothing: see [`pickle`]. What it
//! may take of the machine is bounded: see [`Limits`].

mod archive;
pub mod checkpoint;
pub mod contents;
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
mod zip;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

pub use checkpoint::{Checkpoint, OptimizerState};
use contents::{Contents, Hints};
pub use inspect::Inspection;
pub use limits::Limits;
use mapping::Mapping;
use state_dict::Candidate;
pub use value::Value;

use crate::model::{ModelConfig, ModelOptions, Network};
use crate::{Array, DType, Error, Result, files};

/// The key of our settings: an attribute of TorchScript's module, an entry of a state dict's
/// `_metadata`, of a checkpoint, and of safetensors' metadata.
#[doc(hidden)]
pub const CONFIG_KEY: &str = "lenet5";

/// Where the settings come from that shapes do not tell: activation, pooling, and what is done to the
/// input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// From the file, the model or the user.
    Known,
    /// Assumed, but for what code or classes in the file tell.
    Assumed(Hints),
}

/// A LeNet-5's settings and parameters, by our names, float32, on the CPU.
#[derive(Debug)]
pub struct Weights {
    /// The settings.
    pub config: ModelConfig,
    /// Where they come from.
    pub provenance: Provenance,
    /// `c1.weight`, `c1.bias`, ..., `output.bias`.
    pub tensors: Vec<(String, Array)>,
    /// For each of them the name in the file; empty where they are from no file.
    pub names: Vec<String>,
    /// The keys that lead to the state dict in the file, such as `state.model`; may be empty.
    pub found_at: String,
    /// Other types than float32 that the file holds, by their names in `torch`.
    pub converted: BTreeSet<&'static str>,
    /// Tensors of the file that are none of LeNet-5's, by name, such as counters.
    pub left_out: Vec<String>,
    /// Changes that were made to tensors of the file, in words, such as biases that were added.
    pub adjusted: Vec<String>,
    /// The keys of other networks in the file, which differ from this one.
    pub others: Vec<String>,
}

impl Weights {
    /// The weights of a network with these settings: `tensors` are the parameters of [`ModelConfig::state`], by name
    /// and in that order, float32.
    ///
    /// # Errors
    /// Names the first tensor that is missing, or has another name, type or shape.
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

    /// The tensor of that name, such as `c1.weight`.
    pub fn get(&self, name: &str) -> Option<&Array> {
        self.tensors.iter().find(|(other, _)| other == name).map(|(_, array)| array)
    }

    /// Reads a file of any of the forms, within the default limits. Foreign names are matched by shape.
    ///
    /// # Errors
    /// Where the file holds no LeNet-5, or a broken one; the message says what it holds instead.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_within(path, &Limits::default(), None)
    }

    /// As [`Weights::read`], within other limits; of several networks in the file the one under `key`, dotted
    /// names such as `teacher` or `state.model`.
    ///
    /// # Errors
    /// As [`Weights::read`]; and where there is no network under `key`, those that there are.
    pub fn read_within(path: &Path, limits: &Limits, key: Option<&str>) -> Result<Self> {
        let bytes = read_limited(path, limits)?;
        contents::read(&bytes, limits)
            .and_then(|contents| Self::from_contents(&contents, key))
            .map_err(|message| Error::file(path, message))
    }

    /// The weights that ship with the program: `weights/lenet5.*`, for the original network
    /// `weights/lenet5-1998.*`.
    ///
    /// # Errors
    /// None that a build which passes its tests has.
    pub fn shipped(network: Network) -> Result<Self> {
        let bytes: &[u8] = match network {
            Network::Modern => include_bytes!("../../weights/lenet5.safetensors"),
            Network::Original => include_bytes!("../../weights/lenet5-1998.safetensors"),
        };
        Self::from_bytes(bytes, &Limits::default())
            .map_err(|message| Error::file(Path::new("shipped weights"), message))
    }

    /// The reject network that ships with the program: the modern network with an eleventh class for pictures that
    /// are no digit.
    pub(crate) fn reject_network() -> Result<Self> {
        Self::from_bytes(
            include_bytes!("../../weights/lenet5-reject.safetensors"),
            &Limits::default(),
        )
        .map_err(|message| Error::file(Path::new("shipped weights"), message))
    }

    /// From a file's bytes.
    ///
    /// # Errors
    /// What was expected and what was found.
    pub fn from_bytes(bytes: &[u8], limits: &Limits) -> Result<Self, String> {
        Self::from_contents(&contents::read(bytes, limits)?, None)
    }

    /// The network under `key`; without one the network under a usual key, or the only one. Others that differ
    /// are listed in [`Weights::others`].
    fn from_contents(contents: &Contents, key: Option<&str>) -> Result<Self, String> {
        let mut first_error = None;
        let mut found: Vec<(Self, bool)> = Vec::new();
        for candidate in state_dict::candidates(&contents.value) {
            if found.iter().any(|(weights, _)| candidate.is_beside(&weights.found_at)) {
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
            let at = found.iter().position(|(weights, _)| weights.found_at == key);
            // In one flat state dict that holds several networks, the names tell them apart.
            let entries = state_dict::entries(&contents.value)?;
            let below = |entry: &state_dict::Entry| state_dict::is_within(&entry.name, key);
            let entries: Vec<_> = entries.into_iter().filter(below).collect();
            if at.is_none() && !entries.is_empty() {
                return Self::from_entries(contents, &contents.value, entries, key.to_owned());
            }
            return match (at, &first_error) {
                (Some(at), _) => Ok(found.swap_remove(at).0),
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
        Self::from_entries(contents, candidate.value, entries, candidate.path.clone())
    }

    fn from_entries(
        contents: &Contents,
        value: &Value,
        entries: Vec<state_dict::Entry>,
        path: String,
    ) -> Result<Self, String> {
        let stored = contents.config.as_deref().or_else(|| stored_config(value));
        if entries.is_empty() {
            let what = match contents.container {
                contents::Container::TorchScript => "TorchScript without parameters".to_owned(),
                _ => value.describe(),
            };
            return Err(format!("expected a state dict of LeNet-5, found {what}"));
        }
        let config = stored.map(parse_config).transpose()?;
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
        self.provenance = Provenance::Known;
        Ok(())
    }

    /// What to tell the user: where the weights were found, how names were matched, what was converted
    /// and what was assumed.
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

    /// The bytes of a file like that of `torch.save(model.state_dict())`: `torch.load(weights_only=True)` reads it.
    /// It holds the settings too.
    ///
    /// # Errors
    /// Where it would get larger than 4 GiB.
    pub fn to_state_dict(&self) -> Result<Vec<u8>> {
        archive::write(&self.state_dict())
    }

    /// The bytes of a safetensors file: `safetensors.torch.load_file` reads it. It holds the settings too.
    pub fn to_safetensors(&self) -> Vec<u8> {
        // "format" is what safetensors.torch.save_file writes, and transformers requires.
        let metadata =
            [("format".to_owned(), "pt".to_owned()), (CONFIG_KEY.to_owned(), self.settings())];
        safetensors::write(&self.tensors, BTreeMap::from(metadata))
    }

    /// The settings as JSON, as files of weights hold them.
    #[doc(hidden)]
    pub fn settings(&self) -> String {
        serde_json::to_string(&self.config).expect("settings are plain data")
    }

    /// The parameters as `model.state_dict()` gives them in Python: an `OrderedDict`, whose
    /// `_metadata` holds the settings too, where `load_state_dict(strict=True)` ignores them.
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

/// Writes tensors by name as safetensors: what `evaluate --logits` gives.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[(String, Array)]) -> Result<()> {
    files::write_atomic(path, &safetensors::write(tensors, BTreeMap::new()))
}

/// A file's bytes, as many as the limits allow.
#[doc(hidden)]
pub fn read_limited(path: &Path, limits: &Limits) -> Result<Vec<u8>> {
    files::read(path, limits.file_bytes(), &format!("; {}", limits::RAISE))
}

/// The settings in a state dict's `_metadata`: of the whole, or, where a module such as
/// `DataParallel` wraps the network, of the only part that has any.
fn stored_config(state_dict: &Value) -> Option<&str> {
    let Value::Dict { attributes: Some(attributes), .. } = state_dict else { return None };
    let (_, metadata) = attributes.iter().find(|(name, _)| name == "_metadata")?;
    let parts = metadata.items()?.iter();
    let mut stored = parts.filter_map(|(name, part)| Some((name, part.get(CONFIG_KEY)?.as_str()?)));
    match (stored.next(), stored.next()) {
        (Some((_, only)), None) => Some(only),
        _ => metadata.get("")?.get(CONFIG_KEY)?.as_str(),
    }
}

/// Reads and checks stored settings.
fn parse_config(json: &str) -> Result<ModelConfig, String> {
    let broken = |error: &dyn fmt::Display| format!("the stored settings are broken ({error})");
    // serde would take a list for a struct too.
    if !json.trim_start().starts_with('{') {
        return Err(broken(&"expected a JSON object"));
    }
    let config: ModelConfig = serde_json::from_str(json).map_err(|error| broken(&error))?;
    config.validate().map_err(|error| broken(&error))?;
    Ok(config)
}
