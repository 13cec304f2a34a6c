//! Maps the tensors of a file to the parameters of LeNet-5.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::state_dict::Entry;
use super::value::shown;
use crate::model::{C5, Input, ModelConfig};
use crate::{Array, DType};

/// The parts of a name that wrappers add: data parallelism and `torch.compile`.
const NAME_WRAPPERS: [&str; 2] = ["module", "_orig_mod"];

/// The largest number of tensors that are compared with LeNet-5's; a file with more holds another
/// network.
const MAX_COMPARED: usize = 100;

/// The largest number of tensors that a message lists.
const MAX_LISTED: usize = 6;

/// A LeNet-5 that was found among a file's tensors.
#[derive(Debug)]
pub struct Mapping {
    /// The given settings, or those that the shapes determine.
    pub config: ModelConfig,
    /// The parameters in the order of [`ModelConfig::state`], float32.
    pub tensors: Vec<(String, Array)>,
    /// The name that each parameter has in the file.
    pub names: Vec<String>,
    /// The types other than float32 that the parameters had in the file, by their names in `torch`.
    pub converted: BTreeSet<&'static str>,
    /// The names of the file's other tensors.
    pub left_out: Vec<String>,
    /// Descriptions of the changes that were made to the file's tensors.
    pub adjusted: Vec<String>,
}

/// A parameter of LeNet-5 and the tensor of the file that is taken for it.
struct MatchedTensor<'a> {
    name: String,
    shape: Vec<usize>,
    found: &'a str,
    tensor: &'a Array,
}

/// Maps the tensors of a file to the parameters of LeNet-5: by name if the names are those of this
/// crate, with any common prefix. Otherwise a weight is found by its shape, and a bias by the name
/// of its weight. Checks the shapes, and that all numbers are finite.
///
/// # Errors
/// If the tensors are not those of a LeNet-5; the message states what was expected and what was
/// found.
pub fn map(entries: Vec<Entry>, config: Option<&ModelConfig>) -> Result<Mapping, String> {
    let mut arrays = Vec::new();
    for Entry { name, content } in entries {
        match content {
            Ok(array) => arrays.push((name, array)),
            Err(what) => {
                return Err(format!("{}: expected a tensor of floats, found {what}", shown(&name)));
            }
        }
    }
    if let Some((name, _)) = arrays.iter().find(|(name, _)| name.contains("parametrizations.")) {
        return Err(format!(
            "{}: expected plain weights, found a parametrization; call \
             torch.nn.utils.parametrize.remove_parametrizations before saving",
            shown(name)
        ));
    }
    let mut adjusted = Vec::new();
    apply_masks(&mut arrays, &mut adjusted)?;
    if config.is_none() {
        add_biases(&mut arrays, &mut adjusted);
    }
    let mut tensors: Vec<_> = arrays.iter().map(|(name, array)| (name.as_str(), array)).collect();
    if tensors.len() > MAX_COMPARED {
        return Err(not_ten(&tensors));
    }
    let whole = tensors.clone();
    let has_coefficients = tensors.iter().any(|(name, _)| name.ends_with("s2.coefficient"));
    if config.is_some() || has_coefficients {
        leave_out_counters(&mut tensors);
    } else {
        tensors = select(tensors);
    }
    let is_selected = |name: &str| tensors.iter().any(|(selected, _)| *selected == name);
    let left_out: Vec<String> = whole
        .iter()
        .filter(|(name, _)| !is_selected(name))
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let stored = config.is_some();
    let keys = keys(&tensors);
    let original = keys.iter().any(|key| key == "s2.coefficient");
    let config = config.cloned().unwrap_or_else(|| match original {
        true => ModelConfig::original(),
        false => config_of_shapes(&tensors),
    });
    config.validate().map_err(|error| error.to_string())?;
    let parameters = config.state();
    let has_our_names = parameters.iter().all(|(name, _)| keys.contains(name));
    let matches =
        if has_our_names || (stored && parameters.iter().any(|(name, _)| keys.contains(name))) {
            by_name(&tensors, &keys, parameters)
        } else {
            by_shape(&tensors, parameters)
        }?;
    let mut converted = BTreeSet::new();
    let tensors =
        matches.iter().map(|m| check(m, &mut converted)).collect::<Result<Vec<_>, _>>()?;
    let names = matches.iter().map(|m| m.found.to_owned()).collect();
    Ok(Mapping { config, tensors, names, converted, left_out, adjusted })
}

/// Replaces `weight_orig` and `weight_mask`, which `torch.nn.utils.prune` creates in place of
/// `weight`, by their product.
///
/// # Errors
/// If a mask has another shape than its weight, or `weight_orig` has no mask: then another function
/// computes the weight from it.
fn apply_masks(
    tensors: &mut Vec<(String, Array)>,
    adjusted: &mut Vec<String>,
) -> Result<(), String> {
    let part = |suffix: &'static str| {
        let part = |(index, (name, _)): (usize, &(String, Array))| {
            Some((name.strip_suffix(suffix)?.to_owned(), index))
        };
        tensors.iter().enumerate().filter_map(part).collect::<HashMap<_, _>>()
    };
    let (originals, masks) = (part("_orig"), part("_mask"));
    let mut masked = Vec::new();
    for (index, (name, whole)) in tensors.iter().enumerate() {
        let Some(name) = name.strip_suffix("_orig").filter(|name| originals[*name] == index) else {
            continue;
        };
        let Some(&mask) = masks.get(name) else {
            return Err(format!(
                "{}_orig: expected the mask {}_mask of torch.nn.utils.prune, found none; if another \
                 function computes the weight from it, remove that function before saving",
                shown(name),
                shown(name)
            ));
        };
        let mask = &tensors[mask].1;
        if whole.shape() != mask.shape() {
            return Err(format!(
                "{}_mask: expected shape {:?}, found {:?}",
                shown(name),
                whole.shape(),
                mask.shape()
            ));
        }
        let product: Vec<f32> =
            whole.to_f32().iter().zip(mask.to_f32()).map(|(value, mask)| value * mask).collect();
        masked.push((index, name.to_owned(), Array::from_f32(whole.shape(), &product)));
    }
    if masked.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = masked.iter().take(MAX_LISTED).map(|(_, name, _)| shown(name)).collect();
    let more = if masked.len() > MAX_LISTED { ", ..." } else { "" };
    adjusted.push(format!("pruned: multiplied by their masks: {}{more}", names.join(", ")));
    let used: HashSet<usize> = masked.iter().map(|(_, name, _)| masks[name]).collect();
    for (index, name, product) in masked {
        tensors[index] = (name, product);
    }
    let mut index = 0..;
    tensors.retain(|_| index.next().is_some_and(|index| !used.contains(&index)));
    Ok(())
}

/// Adds biases of zero if the file holds all weights of a LeNet-5, some of their biases or none,
/// and no other tensors.
fn add_biases(tensors: &mut Vec<(String, Array)>, adjusted: &mut Vec<String>) {
    let borrowed: Vec<_> = tensors.iter().map(|(name, array)| (name.as_str(), array)).collect();
    let config = config_of_shapes(&borrowed);
    let parameters = config.state();
    if tensors.len() >= parameters.len() {
        return;
    }
    let mut missing = Vec::new();
    let mut known = 0;
    for (_, shape) in parameters.iter().filter(|(_, shape)| shape.len() > 1) {
        let Some((name, _)) = tensors.iter().find(|(_, array)| array.shape() == shape) else {
            return;
        };
        let Some(layer) = name.strip_suffix("weight") else { return };
        let bias = format!("{layer}bias");
        known += 1;
        match tensors.iter().any(|(other, _)| *other == bias) {
            true => known += 1,
            false => missing.push((bias, Array::zeros(&shape[..1]))),
        }
    }
    if known != tensors.len() {
        return;
    }
    let names: Vec<_> = missing.iter().map(|(name, _)| shown(name)).collect();
    adjusted.push(format!("biases that the file has not are 0: {}", names.join(", ")));
    tensors.extend(missing);
}

/// Leaves out tensors that cannot be parameters of either network: counters and masks.
fn leave_out_counters(tensors: &mut Vec<(&str, &Array)>) {
    tensors.retain(|(name, tensor)| {
        let part = name.rsplit('.').next().unwrap_or(name);
        let is_parameter = matches!(part, "weight" | "bias" | "coefficient");
        // Batch normalisation would make it another network.
        name.contains("running_") || !tensor.shape().is_empty() && is_parameter
    });
}

/// Chooses the ten tensors of a LeNet-5 among more than ten, if there is no doubt which they are.
/// Leaves out counters, buffers, further names of one tensor and other parts of a larger module.
/// Returns all tensors if that does not leave ten.
fn select<'a>(tensors: Vec<(&'a str, &'a Array)>) -> Vec<(&'a str, &'a Array)> {
    // Batch normalisation would make it another network.
    let normalises = |(name, _): &(&str, &Array)| name.contains("running_");
    if tensors.len() <= 10 || tensors.iter().any(normalises) {
        return tensors;
    }
    let mut left = tensors.clone();
    left.retain(|(name, tensor)| {
        let part = name.rsplit('.').next().unwrap_or(name);
        !tensor.shape().is_empty() && tensor.dtype().is_float() && matches!(part, "weight" | "bias")
    });
    // Equal tensors may be two biases of zeros, so they are only removed after this check.
    if left.len() == 10 {
        return left;
    }
    let mut once: Vec<(&str, &Array)> = Vec::new();
    for (name, tensor) in left {
        if !once.iter().any(|(_, other)| *other == tensor) {
            once.push((name, tensor));
        }
    }
    if once.len() > 10 {
        let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let groups: BTreeSet<String> = once.iter().map(|(name, _)| first(name)).collect();
        let has_ten =
            |group: &&String| once.iter().filter(|(name, _)| first(name) == **group).count() == 10;
        let mut fitting = groups.iter().filter(has_ten);
        if let (Some(group), None) = (fitting.next(), fitting.next()) {
            once.retain(|(name, _)| first(name) == *group);
        }
    }
    if once.len() == 10 { once } else { tensors }
}

/// The names without the parts that wrappers add, and without a prefix that all of them share
/// (`model.`).
fn keys(tensors: &[(&str, &Array)]) -> Vec<String> {
    let mut paths: Vec<Vec<&str>> = tensors
        .iter()
        .map(|(name, _)| name.split('.').filter(|part| !NAME_WRAPPERS.contains(part)).collect())
        .collect();
    // The layer and `weight` or `bias` remain.
    while let [first, rest @ ..] = paths.as_slice()
        && first.len() > 2
        && rest.iter().all(|path| path.len() > 2 && path[0] == first[0])
    {
        for path in &mut paths {
            path.remove(0);
        }
    }
    paths.into_iter().map(|path| path.join(".")).collect()
}

fn by_name<'a>(
    tensors: &[(&'a str, &'a Array)],
    keys: &[String],
    parameters: Vec<(String, Vec<usize>)>,
) -> Result<Vec<MatchedTensor<'a>>, String> {
    let known = |key: &String| parameters.iter().any(|(name, _)| name == key);
    if let Some(extra) = keys.iter().position(|key| !known(key)) {
        return Err(format!(
            "expected the {} parameters of LeNet-5, found {} beside them",
            if parameters.len() == 10 { "ten" } else { "13" },
            shown(tensors[extra].0)
        ));
    }
    parameters
        .into_iter()
        .map(|(name, shape)| {
            let index = keys
                .iter()
                .position(|key| *key == name)
                .ok_or_else(|| format!("expected the parameter {name}, found none"))?;
            let (found, tensor) = tensors[index];
            Ok(MatchedTensor { name, shape, found, tensor })
        })
        .collect()
}

/// Matches tensors with parameters by shape. No two weights have the same shape, so the order of
/// the tensors does not matter (Python writes safetensors files in the order of the names). Biases
/// may have the same shape, with 84 classes for example, so a bias is found by the name of its
/// weight; in a list without names it is the next tensor of its shape. If no tensor fits a
/// parameter, it is matched with one that fits none, which the error message then names.
fn by_shape<'a>(
    tensors: &[(&'a str, &'a Array)],
    parameters: Vec<(String, Vec<usize>)>,
) -> Result<Vec<MatchedTensor<'a>>, String> {
    if tensors.len() != parameters.len() {
        return Err(not_ten(tensors));
    }
    let shapes: Vec<_> = parameters.iter().map(|(_, shape)| shape.clone()).collect();
    let mut left: Vec<_> = tensors.to_vec();
    let mut bias_name = None;
    let matches = parameters.into_iter().map(|(name, shape)| {
        let position = |test: &dyn Fn(&(&str, &Array)) -> bool| left.iter().position(test);
        let index = bias_name
            .take()
            .and_then(|bias: String| position(&|(found, _)| *found == bias))
            .or_else(|| position(&|(_, tensor)| tensor.shape() == shape))
            .or_else(|| {
                position(&|(_, tensor)| !shapes.iter().any(|shape| shape == tensor.shape()))
            });
        let (found, tensor) = left.remove(index.unwrap_or(0));
        bias_name = found.strip_suffix("weight").map(|prefix| format!("{prefix}bias"));
        MatchedTensor { name, shape, found, tensor }
    });
    Ok(matches.collect())
}

/// The message about tensors that are not those of a LeNet-5: "expected the ten parameters of
/// LeNet-5, found 14 tensors: conv1.weight [32, 1, 3, 3], ...".
fn not_ten(tensors: &[(&str, &Array)]) -> String {
    let shapes: Vec<_> =
        ModelConfig::default().state().into_iter().map(|(_, shape)| shape).collect();
    // Tensors that do not belong to LeNet-5 come first.
    let mut sorted = tensors.to_vec();
    sorted.sort_by_key(|(_, tensor)| shapes.iter().any(|shape| shape == tensor.shape()));
    let list: Vec<_> = sorted
        .iter()
        .take(MAX_LISTED)
        .map(|(name, tensor)| format!("{} {:?}", shown(name), tensor.shape()))
        .collect();
    let plural = if tensors.len() == 1 { "" } else { "s" };
    let more = if tensors.len() > MAX_LISTED { ", ..." } else { "" };
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (first, _) in tensors.iter().filter_map(|(name, _)| name.split_once('.')) {
        *counts.entry(first).or_default() += 1;
    }
    let several = counts.values().filter(|count| **count == 10).count() > 1;
    let hint = if several { "; if these are several networks, --key chooses one" } else { "" };
    format!(
        "expected the ten parameters of LeNet-5, found {} tensor{plural}: {}{more}{hint}",
        tensors.len(),
        list.join(", ")
    )
}

/// Checks a matched tensor; returns the parameter's name and the tensor as float32.
fn check(
    matched: &MatchedTensor,
    converted: &mut BTreeSet<&'static str>,
) -> Result<(String, Array), String> {
    let MatchedTensor { name, shape, found, tensor } = matched;
    let (found, name) = (shown(found), name.as_str());
    if tensor.shape() != shape {
        let target = if found == name { String::new() } else { format!(" (for {name})") };
        return Err(format!(
            "{found}{target}: expected shape {shape:?}, found {:?}",
            tensor.shape()
        ));
    }
    if !tensor.dtype().is_float() {
        return Err(format!("{found}: expected floats, found {}", tensor.dtype().name()));
    }
    if tensor.dtype() != DType::F32 {
        converted.insert(tensor.dtype().name());
    }
    let tensor = (*tensor).clone().into_f32();
    let bad = tensor.to_f32().iter().filter(|value| !value.is_finite()).count();
    if bad > 0 {
        return Err(format!(
            "{found}: expected finite numbers, found {bad} that are not (NaN or infinite)"
        ));
    }
    Ok((name.to_owned(), tensor))
}

/// The settings that the shapes determine: the form of c5, the size of the input, the number of
/// classes.
fn config_of_shapes(tensors: &[(&str, &Array)]) -> ModelConfig {
    let has = |shape: &[usize]| tensors.iter().any(|(_, tensor)| tensor.shape() == shape);
    let classes = tensors.iter().find_map(|(_, tensor)| match *tensor.shape() {
        [classes, 84] => Some(classes),
        _ => None,
    });
    let unpadded = has(&[120, 16, 4, 4]) || has(&[120, 256]);
    let linear = has(&[120, 400]) || has(&[120, 256]);
    ModelConfig {
        c5: if linear { C5::Linear } else { C5::Convolution },
        input: if unpadded { Input::Unpadded } else { Input::default() },
        classes: classes.unwrap_or(10),
        ..ModelConfig::default()
    }
}
