//! A report on the contents of a file of weights, for people to read.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::contents::{self, Contents};
use super::value::{Value, shown};
use super::{Limits, Provenance, Weights, read_limited, state_dict};
use crate::model::ModelConfig;
use crate::{Error, Result, files};

/// The largest number of entries of a list that `Display` shows.
const MAX_SHOWN: usize = 40;

/// A report on a file. `Display` prints it as text, serde as the JSON of `inspect --json`.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The path of the file.
    #[serde(skip)]
    pub path: PathBuf,
    /// The path as text.
    pub file: String,
    /// The bytes of the path, if it is not UTF-8; `file` then has replacement characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<Vec<u8>>,
    /// The size of the file in bytes.
    pub bytes: usize,
    /// The file format, such as "torch.save (zip archive)".
    pub container: String,
    /// A description of the program that wrote the file.
    pub producer: String,
    /// The devices on which the tensors were: `cpu`, `cuda:0`.
    pub locations: Vec<String>,
    /// The entries at the top level that are not tensors: key and description.
    pub top: Vec<(String, String)>,
    /// All tensors of the file.
    pub tensors: Vec<TensorInfo>,
    /// The signature of a TorchScript module's `forward`, such as `forward(x: Tensor) -> Tensor`.
    pub forward: Option<String>,
    /// Whether `evaluate --torchscript` can run the file: it is TorchScript whose `forward` takes
    /// one tensor and returns one.
    pub runnable: bool,
    /// The LeNet-5 in the file, if there is one.
    pub lenet5: Option<FoundNetwork>,
    /// The reason why the file holds no LeNet-5.
    pub error: Option<String>,
}

/// A tensor of the file.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct TensorInfo {
    /// The dotted name of the tensor.
    pub name: String,
    /// The sizes of its dimensions; `None` for a tensor of a kind that cannot be read.
    pub shape: Option<Vec<usize>>,
    /// The element type by its name in `torch`, or a description of the kind that cannot be read.
    pub dtype: String,
}

/// A LeNet-5 that was found in a file.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct FoundNetwork {
    /// The keys that lead to its state dict, joined by dots; empty for the whole file.
    pub found_at: String,
    /// The parameters: this crate's name, then the name in the file.
    pub mapping: Vec<(String, String)>,
    /// The network's settings.
    pub config: ModelConfig,
    /// The settings that neither the file nor its code or classes state.
    pub assumed: Vec<&'static str>,
    /// The notes that loading the file shows the user.
    pub notes: Vec<String>,
}

impl Inspection {
    /// Reads a file of any supported format, whatever it holds. Nothing in it is executed.
    ///
    /// # Errors
    /// If the file has none of the supported formats or is damaged.
    pub fn of(path: &Path, limits: &Limits) -> Result<Self> {
        let bytes = read_limited(path, limits)?;
        let contents = contents::read(&bytes, limits).map_err(|text| Error::file(path, text))?;
        let entries =
            state_dict::entries(&contents.value).map_err(|text| Error::file(path, text))?;
        let tensors = entries.into_iter().map(|entry| match entry.content {
            Ok(tensor) => TensorInfo {
                name: entry.name,
                shape: Some(tensor.shape().to_vec()),
                dtype: tensor.dtype().name().to_owned(),
            },
            Err(what) => TensorInfo { name: entry.name, shape: None, dtype: what },
        });
        let forward = forward(&contents);
        let (lenet5, error) = match Weights::from_contents(&contents, None) {
            Ok(weights) => (Some(FoundNetwork::new(&weights)), None),
            Err(error) => (None, Some(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            file: path.display().to_string(),
            file_bytes: files::exact(path).map(<[u8]>::to_vec),
            bytes: bytes.len(),
            container: contents.container.to_string(),
            producer: contents.producer.clone(),
            locations: contents.locations.iter().cloned().collect(),
            top: top(&contents),
            tensors: tensors.collect(),
            runnable: forward.as_deref().is_some_and(maps_tensor_to_tensor),
            forward,
            lenet5,
            error,
        })
    }
}

impl FoundNetwork {
    fn new(weights: &Weights) -> Self {
        let ours = weights.tensors.iter().map(|(name, _)| name.clone());
        let assumed = match weights.provenance {
            Provenance::Known => Vec::new(),
            Provenance::Assumed(hints) => {
                let all = [
                    ("activation", hints.activation.is_some()),
                    ("pooling", hints.pooling.is_some()),
                    ("input", hints.input.is_some()),
                    ("layer_order", false),
                    ("hidden_activation", false),
                    ("mean", false),
                    ("std", false),
                ];
                all.iter().filter(|(_, known)| !known).map(|(name, _)| *name).collect()
            }
        };
        Self {
            found_at: weights.found_at.clone(),
            mapping: ours.zip(weights.names.iter().cloned()).collect(),
            config: weights.config.clone(),
            assumed,
            notes: weights.notes(),
        }
    }
}

/// The entries at the top level that are not tensors: a checkpoint's keys, a module's attributes.
fn top(contents: &Contents) -> Vec<(String, String)> {
    match &contents.value {
        Value::Dict { items, .. } => items
            .iter()
            .filter(|(_, value)| !matches!(value, Value::Tensor(_) | Value::Foreign(_)))
            .map(|(key, value)| {
                let key = match key {
                    Value::Str(key) => key.clone(),
                    Value::Int(key) => key.to_string(),
                    other => other.describe(),
                };
                (key, description(value))
            })
            .collect(),
        value => vec![("(the whole)".to_owned(), description(value))],
    }
}

fn description(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Str(text) => format!("{:?}", shown(text)),
        Value::List(items) => format!("a list of {}", items.len()),
        Value::Tuple(items) => format!("a tuple of {}", items.len()),
        Value::Dict { items, .. } => format!("a dict of {}", items.len()),
        other => other.describe(),
    }
}

/// The signature of the root module's `forward` in TorchScript code.
fn forward(contents: &Contents) -> Option<String> {
    let code = contents.code.as_deref()?;
    let Value::Object { class, .. } = &contents.value else { return None };
    let start = format!("def forward(self: {class},");
    let rest = &code[code.find(&start)? + start.len()..];
    let signature = &rest[..rest.find(":\n")?];
    let signature: Vec<_> = signature.split_whitespace().collect();
    Some(format!("forward({}", signature.join(" ")))
}

fn maps_tensor_to_tensor(forward: &str) -> bool {
    forward
        .strip_prefix("forward(")
        .and_then(|rest| rest.strip_suffix(": Tensor) -> Tensor"))
        .is_some_and(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'))
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = files::shown(&self.path);
        writeln!(f, "file       {name}, {} bytes", self.bytes)?;
        writeln!(f, "container  {}", self.container)?;
        writeln!(f, "producer   {}", self.producer)?;
        if !self.locations.is_empty() {
            writeln!(f, "saved on   {}", self.locations.join(", "))?;
        }
        if let Some(forward) = &self.forward {
            writeln!(f, "code       {}", shown(forward))?;
        }
        if self.runnable {
            writeln!(f, "           runs as it is: evaluate --torchscript {name}")?;
        }
        section(f, "entries", &self.top, |f, (key, what)| writeln!(f, "  {}: {what}", shown(key)))?;
        section(f, "tensors", &self.tensors, |f, tensor| {
            let shape = tensor.shape.as_ref().map_or_else(String::new, |s| format!("{s:?}"));
            writeln!(f, "  {:<32} {shape:<18} {}", shown(&tensor.name), tensor.dtype)
        })?;
        match (&self.lenet5, &self.error) {
            (Some(found), _) => write!(f, "{found}"),
            (None, Some(error)) => writeln!(f, "no LeNet-5 that can be read: {error}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for FoundNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = if self.found_at.is_empty() { "the whole file" } else { &self.found_at };
        writeln!(f, "LeNet-5, found at: {}", shown(at))?;
        for (ours, found) in &self.mapping {
            writeln!(f, "  {ours:<14} <- {}", shown(found))?;
        }
        let ModelConfig { c5, classes, input, .. } = &self.config;
        let size = input.size();
        writeln!(f, "shapes     c5 {c5}, {classes} classes, input {size}x{size}")?;
        writeln!(f, "settings   {}", self.config)?;
        match self.assumed.is_empty() {
            true => writeln!(f, "           all stored in the file"),
            false => writeln!(
                f,
                "           assumed, as the file does not tell: {}; convert --detect finds them",
                self.assumed.join(", ")
            ),
        }
    }
}

fn section<T>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    items: &[T],
    row: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}: {}", items.len())?;
    items.iter().take(MAX_SHOWN).try_for_each(|item| row(f, item))?;
    match items.len() - items.len().min(MAX_SHOWN) {
        0 => Ok(()),
        more => writeln!(f, "  ... and {more} more"),
    }
}
