//! A file's contents, whatever the container: found by the content, not by the name.

use std::collections::BTreeSet;
use std::fmt;

use super::archive::Archive;
use super::value::Value;
use super::{CONFIG_KEY, Limits, archive, legacy, safetensors};
use crate::model::{Activation, Pooling};

/// The forms of files that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// `torch.save` since PyTorch 1.6: a zip archive.
    TorchSave,
    /// `torch.save` before PyTorch 1.6: pickles, then storages.
    TorchSaveLegacy,
    /// `torch.jit.save`: a zip archive with code.
    TorchScript,
    /// safetensors.
    SafeTensors,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchSave => "torch.save (zip archive)",
            Self::TorchSaveLegacy => "torch.save before PyTorch 1.6 (pickles)",
            Self::TorchScript => "TorchScript (zip archive)",
            Self::SafeTensors => "safetensors",
        })
    }
}

/// What a file holds.
#[derive(Debug)]
pub struct Contents {
    /// Its form.
    pub container: Container,
    /// What is known of the program that wrote it.
    pub producer: String,
    /// The pickled value; of safetensors, a dict of tensors.
    pub value: Value,
    /// Where the tensors were: `cpu`, `cuda:0`.
    pub locations: BTreeSet<String>,
    /// The settings of this crate, as JSON, where the file is not a state dict that holds them itself.
    pub config: Option<String>,
    /// TorchScript's code, as text.
    pub code: Option<String>,
    /// Whether there are objects of quantised layers.
    pub quantised: bool,
    /// The activation, as far as code or classes in the file tell.
    pub activation: Option<Activation>,
    /// The pooling, as far as code or classes in the file tell.
    pub pooling: Option<Pooling>,
}

/// Reads a file's bytes. Nothing in them is executed.
///
/// # Errors
/// What was expected and what was found.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Contents, String> {
    match bytes {
        [] => Err("expected weights, found an empty file".to_owned()),
        [b'P', b'K', 3, 4, ..] => Ok(from_archive(archive::read(bytes, limits)?)),
        // The header's length in eight bytes, then JSON.
        [_, _, _, _, _, _, _, _, b'{', ..] => from_safetensors(bytes, limits),
        _ if legacy::is_legacy(bytes) => {
            let resolved = legacy::read(bytes, limits)?;
            let Classes { activation, pooling, quantised } = Classes::of(&resolved.value);
            Ok(Contents {
                container: Container::TorchSaveLegacy,
                producer: "PyTorch 0.1 to 1.5, or torch.save's option for its format".to_owned(),
                value: resolved.value,
                locations: resolved.locations,
                config: None,
                code: None,
                quantised,
                activation,
                pooling,
            })
        }
        _ => Err(format!(
            "expected torch.save's archive or pickles, TorchScript or safetensors, found {}",
            other(bytes)
        )),
    }
}

/// What a file is that is none of the forms, by its first bytes.
fn other(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x80, 2..=5, ..] => "a pickle that torch.save did not write",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "a NumPy array",
        [0x89, b'H', b'D', b'F', ..] => "HDF5, as Keras writes",
        [8, _, 0x12, ..] => "ONNX, it seems",
        [0x89, b'P', b'N', b'G', ..] | [0xff, 0xd8, 0xff, ..] => "a picture",
        [0x1f, 0x8b, ..] => "gzip: unpack it first",
        _ if bytes.get(257..262) == Some(b"ustar") => "a tar archive",
        _ => "none of them",
    }
}

fn from_archive(archive: Archive) -> Contents {
    let Archive { resolved, root, version, code, compressed } = archive;
    let version = version.unwrap_or_else(|| "unknown".to_owned());
    let config = match &resolved.value {
        Value::Object { state: Some(state), .. } => state.get(CONFIG_KEY).and_then(Value::as_str),
        _ => None,
    };
    let config = config.map(str::to_owned);
    let classes = Classes::of(&resolved.value);
    let quantised = classes.quantised;
    let (container, (activation, pooling)) = match &code {
        Some(code) => (Container::TorchScript, from_code(code)),
        None => (Container::TorchSave, (classes.activation, classes.pooling)),
    };
    // TorchScript's code is compressed; of what torch.save writes, nothing.
    let packed = if compressed { ", compressed by another program" } else { "" };
    let producer = match container {
        Container::TorchScript => format!("PyTorch, TorchScript version {version}"),
        _ => format!(
            "PyTorch 1.6 or later, format version {version}, folder {:?}{packed}",
            super::value::shown(root.trim_end_matches('/'))
        ),
    };
    Contents {
        container,
        producer,
        value: resolved.value,
        locations: resolved.locations,
        config,
        code,
        quantised,
        activation,
        pooling,
    }
}

fn from_safetensors(bytes: &[u8], limits: &Limits) -> Result<Contents, String> {
    let (tensors, mut metadata) = safetensors::read(bytes, limits)?;
    let producer = match metadata.get("format").map(String::as_str) {
        Some("pt") => "PyTorch, by the metadata",
        Some("np") => "NumPy, by the metadata",
        Some("tf") => "TensorFlow, by the metadata",
        _ => "unknown",
    };
    Ok(Contents {
        container: Container::SafeTensors,
        producer: producer.to_owned(),
        value: Value::dict(tensors),
        locations: BTreeSet::new(),
        config: metadata.remove(CONFIG_KEY),
        code: None,
        quantised: false,
        activation: None,
        pooling: None,
    })
}

/// The one of `options` that fits, where only one does.
fn only<T: Copy>(options: &[(T, bool)]) -> Option<T> {
    let mut found = options.iter().filter(|(_, fits)| *fits).map(|(option, _)| *option);
    found.next().filter(|_| found.next().is_none())
}

/// TorchScript's code names the functions that it calls.
fn from_code(code: &str) -> (Option<Activation>, Option<Pooling>) {
    let calls = |names: &[&str]| names.iter().any(|name| code.contains(name));
    let scaled = code.contains("1.7159");
    (
        only(&[
            (Activation::Tanh, calls(&["torch.tanh(", "torch.tanh_("]) && !scaled),
            (Activation::ScaledTanh, calls(&["torch.tanh(", "torch.tanh_("]) && scaled),
            (Activation::Relu, calls(&["torch.relu(", "torch.relu_("])),
            (Activation::Sigmoid, calls(&["torch.sigmoid(", "torch.sigmoid_("])),
        ]),
        only(&[
            (Pooling::Avg, calls(&["torch.avg_pool2d("])),
            (Pooling::Max, calls(&["torch.max_pool2d("])),
        ]),
    )
}

/// What the classes of a whole module's layers tell.
struct Classes {
    activation: Option<Activation>,
    pooling: Option<Pooling>,
    quantised: bool,
}

impl Classes {
    fn of(value: &Value) -> Self {
        let mut names = BTreeSet::new();
        names_of_classes(value, &mut names);
        let has = |name: &str| names.contains(format!("torch.nn.modules.{name}").as_str());
        Self {
            activation: only(&[
                (Activation::Tanh, has("activation.Tanh")),
                (Activation::Relu, has("activation.ReLU")),
                (Activation::Sigmoid, has("activation.Sigmoid")),
            ]),
            pooling: only(&[
                (Pooling::Avg, has("pooling.AvgPool2d")),
                (Pooling::Max, has("pooling.MaxPool2d")),
            ]),
            quantised: names.iter().any(|name| name.contains(".quantized.")),
        }
    }
}

fn names_of_classes<'a>(value: &'a Value, classes: &mut BTreeSet<&'a str>) {
    match value {
        Value::Dict { items, .. } => {
            items.iter().for_each(|(_, value)| names_of_classes(value, classes));
        }
        Value::List(items) | Value::Tuple(items) => {
            items.iter().for_each(|value| names_of_classes(value, classes));
        }
        Value::Object { class, state: Some(state) } => {
            classes.insert(class);
            names_of_classes(state, classes);
        }
        _ => {}
    }
}
