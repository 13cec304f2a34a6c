//! The contents of a file of any supported format, which is detected from the first bytes.

use std::collections::BTreeSet;
use std::fmt;

use super::archive::Archive;
use super::value::Value;
use super::{CONFIG_KEY, Limits, archive, legacy, safetensors};
use crate::foreign;
use crate::model::{Activation, Input, Pooling};

/// The file formats that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Container {
    /// `torch.save` since PyTorch 1.6: a zip archive.
    TorchSave,
    /// `torch.save` before PyTorch 1.6: pickles followed by storages.
    TorchSaveLegacy,
    /// `torch.jit.save`: a zip archive that holds code, too.
    TorchScript,
    /// The safetensors format.
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

/// The contents of a file.
#[derive(Debug)]
#[non_exhaustive]
pub struct Contents {
    /// The file format.
    pub container: Container,
    /// A description of the program that wrote the file.
    pub producer: String,
    /// The value that was pickled; for safetensors a dict of tensors.
    pub value: Value,
    /// The devices on which the tensors were: `cpu`, `cuda:0`.
    pub locations: BTreeSet<String>,
    /// The network's settings as JSON, if the file stores them outside of a state dict.
    pub config: Option<String>,
    /// The source code of a TorchScript file.
    pub code: Option<String>,
    /// The settings that code or classes in the file show.
    pub hints: Hints,
}

/// Settings that code or classes in a file show, in addition to its tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hints {
    /// The activation function.
    pub activation: Option<Activation>,
    /// The pooling.
    pub pooling: Option<Pooling>,
    /// The conversion of images to the input.
    pub input: Option<Input>,
    /// Whether the network has quantised layers.
    pub quantised: bool,
}

/// Reads the bytes of a file. Nothing in them is executed.
///
/// # Errors
/// If the bytes are not as expected; the message states what was expected and what was found.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Contents, String> {
    match bytes {
        [] => Err("expected weights, found an empty file".to_owned()),
        [b'P', b'K', 3, 4, ..] => Ok(from_archive(archive::read(bytes, limits)?)),
        // The length of the header in eight bytes, then JSON.
        [_, _, _, _, _, _, _, _, b'{', ..] => from_safetensors(bytes, limits),
        _ if legacy::is_legacy(bytes) => {
            let resolved = legacy::read(bytes, limits)?;
            let hints = from_classes(&resolved.value);
            Ok(Contents {
                container: Container::TorchSaveLegacy,
                producer: "PyTorch 0.1 to 1.5, or torch.save's option for its format".to_owned(),
                value: resolved.value,
                locations: resolved.locations,
                config: None,
                code: None,
                hints,
            })
        }
        _ => Err(format!(
            "expected torch.save's archive or pickles, TorchScript or safetensors, found {}",
            foreign::name(bytes).unwrap_or("none of them")
        )),
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
    let (container, hints) = match &code {
        Some(code) => (Container::TorchScript, from_code(code)),
        None => (Container::TorchSave, from_classes(&resolved.value)),
    };
    // TorchScript's code is always compressed, while torch.save compresses nothing.
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
        hints,
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
        hints: Hints::default(),
    })
}

/// The only option that fits; `None` if several or none fit.
fn only<T: Copy>(options: &[(T, bool)]) -> Option<T> {
    let mut found = options.iter().filter(|(_, fits)| *fits).map(|(option, _)| *option);
    found.next().filter(|_| found.next().is_none())
}

/// Finds hints in TorchScript code, which names the functions that it calls.
fn from_code(code: &str) -> Hints {
    let calls = |names: &[&str]| names.iter().any(|name| code.contains(name));
    let tanh = calls(&["torch.tanh(", "torch.tanh_("]);
    let scaled = code.contains("1.7159");
    // A trace stores factors as constants, whose values are not in the code.
    let plain = !calls(&["torch.mul(", "torch.mul_(", "CONSTANTS"]);
    Hints {
        activation: only(&[
            (Some(Activation::Tanh), tanh && plain),
            (Some(Activation::ScaledTanh), tanh && scaled),
            (Some(Activation::Relu), calls(&["torch.relu(", "torch.relu_("])),
            (Some(Activation::Sigmoid), calls(&["torch.sigmoid(", "torch.sigmoid_("])),
            (None, tanh && !plain && !scaled),
            (None, calls(&["torch.leaky_relu", "torch.gelu", "torch.elu", "torch.silu"])),
        ])
        .flatten(),
        pooling: only(&[
            (Pooling::Avg, calls(&["torch.avg_pool2d("])),
            (Pooling::Max, calls(&["torch.max_pool2d("])),
        ]),
        ..Hints::default()
    }
}

/// Finds hints in a pickled module, which holds its layers as objects of their classes.
fn from_classes(value: &Value) -> Hints {
    let mut objects = Vec::new();
    objects_in(value, &mut objects);
    let classes: BTreeSet<&str> = objects.iter().map(|(class, _)| *class).collect();
    let known = |class: &&str| class.starts_with("torch.nn.modules.");
    // One class outside of torch.nn is the module itself. A second one may be an activation.
    let own =
        classes.iter().filter(|class| !known(class) && !class.starts_with("torch.nn.")).count();
    let activations: Vec<_> = classes
        .iter()
        .filter_map(|class| class.strip_prefix("torch.nn.modules.activation."))
        .collect();
    let activation = match activations[..] {
        ["Tanh"] => Some(Activation::Tanh),
        ["ReLU"] => Some(Activation::Relu),
        ["Sigmoid"] => Some(Activation::Sigmoid),
        _ => None,
    };
    let is_two_by_two = |state: &Value| {
        let is = |key: &str, size: i64| is_size(state.get(key), size);
        is("kernel_size", 2) && is("stride", 2) && is("padding", 0)
    };
    let pools: Vec<_> = objects
        .iter()
        .filter_map(|(class, state)| {
            Some((class.strip_prefix("torch.nn.modules.pooling.")?, state))
        })
        .collect();
    let all = |name: &str| {
        !pools.is_empty()
            && pools.iter().all(|(class, state)| *class == name && is_two_by_two(state))
    };
    let pads = objects.iter().any(|(class, state)| {
        *class == "torch.nn.modules.conv.Conv2d"
            && state.get("in_channels").and_then(Value::as_int) == Some(1)
            && state.get("padding_mode").is_none_or(|mode| mode.as_str() == Some("zeros"))
            && is_size(state.get("padding"), 2)
    });
    Hints {
        activation: activation.filter(|_| own <= 1),
        pooling: only(&[(Pooling::Avg, all("AvgPool2d")), (Pooling::Max, all("MaxPool2d"))]),
        input: pads.then_some(Input::ZeroPadded),
        quantised: classes.iter().any(|class| class.contains(".quantized.")),
    }
}

/// Whether a setting is `size`, or a tuple in which every number is `size`.
fn is_size(value: Option<&Value>, size: i64) -> bool {
    match value {
        Some(Value::Tuple(sizes)) => sizes.iter().all(|value| value.as_int() == Some(size)),
        Some(value) => value.as_int() == Some(size),
        None => false,
    }
}

/// Collects the classes and states of all objects in a value.
fn objects_in<'a>(value: &'a Value, objects: &mut Vec<(&'a str, &'a Value)>) {
    match value {
        Value::Dict { items, .. } => {
            items.iter().for_each(|(_, value)| objects_in(value, objects));
        }
        Value::List(items) | Value::Tuple(items) => {
            items.iter().for_each(|value| objects_in(value, objects));
        }
        Value::Object { class, state: Some(state) } => {
            objects.push((class, state));
            objects_in(state, objects);
        }
        _ => {}
    }
}
