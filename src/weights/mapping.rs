//! Brings the tensors of a file to our names and shapes.

use std::collections::BTreeSet;

use tch::{Kind, Tensor};

use super::dtype::DType;
use super::state_dict::Entry;
use super::value::shown;
use crate::model::{C5, Input, ModelConfig};

/// Parts of a name that wrappers add: data parallelism, and `torch.compile`.
const WRAPPERS: [&str; 2] = ["module", "_orig_mod"];

/// The most tensors whose names are compared with ours; a network with more is another one.
const MAX_COMPARED: usize = 100;

/// The most tensors that a message lists.
const MAX_LISTED: usize = 6;

/// A LeNet-5 found among a file's tensors.
#[derive(Debug)]
pub struct Mapping {
    /// The settings given, or as far as shapes tell them.
    pub config: ModelConfig,
    /// Our parameters in order, float32.
    pub tensors: Vec<(String, Tensor)>,
    /// For each of them the file's name.
    pub names: Vec<String>,
    /// Other types than float32 that the file holds, by their names in `torch`.
    pub converted: BTreeSet<&'static str>,
    /// Tensors that are none of them.
    pub left_out: Vec<String>,
}

/// One of our parameters, and the entry of the file that is taken for it.
struct Match<'a> {
    name: String,
    shape: Vec<i64>,
    found: &'a str,
    tensor: &'a Tensor,
}

/// Matches by name where the names are ours, whatever stands before all of them; else by shape, and a
/// bias by the name of its weight. Then checks shapes, and that all numbers are finite.
///
/// # Errors
/// What was expected, and what the file holds instead.
pub fn map(entries: &[Entry], config: Option<&ModelConfig>) -> Result<Mapping, String> {
    let mut tensors = Vec::new();
    for Entry { name, content } in entries {
        match content {
            Ok(tensor) => tensors.push((name.as_str(), tensor)),
            Err(what) => {
                return Err(format!("{}: expected a tensor of floats, found {what}", shown(name)));
            }
        }
    }
    if tensors.len() > MAX_COMPARED {
        return Err(not_ten(&tensors));
    }
    let whole = tensors.clone();
    if config.is_none() {
        tensors = select(tensors);
    }
    let kept = |name: &str| tensors.iter().any(|(kept, _)| *kept == name);
    let left_out: Vec<String> =
        whole.iter().filter(|(name, _)| !kept(name)).map(|(name, _)| (*name).to_owned()).collect();
    let stored = config.is_some();
    let keys = keys(&tensors);
    let original = keys.iter().any(|key| key == "s2.coefficient");
    let config = config.cloned().unwrap_or_else(|| match original {
        true => ModelConfig::original(),
        false => config_of_shapes(&tensors),
    });
    config.validate().map_err(|error| error.to_string())?;
    let parameters = config.state();
    let ours = parameters.iter().all(|(name, _)| keys.contains(name));
    let matches = if ours || (stored && parameters.iter().any(|(name, _)| keys.contains(name))) {
        by_name(&tensors, &keys, parameters)
    } else {
        by_shape(&tensors, parameters)
    }?;
    let mut converted = BTreeSet::new();
    let tensors =
        matches.iter().map(|m| check(m, &mut converted)).collect::<Result<Vec<_>, _>>()?;
    let names = matches.iter().map(|m| m.found.to_owned()).collect();
    Ok(Mapping { config, tensors, names, converted, left_out })
}

/// Of more than ten tensors the ten that may be a LeNet-5, where there is no doubt: without counters,
/// without buffers, without second names of one tensor, without other parts of a larger module. All,
/// where that leaves other than ten.
fn select<'a>(tensors: Vec<(&'a str, &'a Tensor)>) -> Vec<(&'a str, &'a Tensor)> {
    // With batch normalisation it would be another network.
    let normalises = |(name, _): &(&str, &Tensor)| name.contains("running_");
    if tensors.len() <= 10 || tensors.iter().any(normalises) {
        return tensors;
    }
    let mut left = tensors.clone();
    left.retain(|(name, tensor)| {
        let part = name.rsplit('.').next().unwrap_or(name);
        tensor.dim() > 0 && tensor.is_floating_point() && matches!(part, "weight" | "bias")
    });
    let mut once: Vec<(&str, &Tensor)> = Vec::new();
    for (name, tensor) in left {
        let same = |(_, other): &(&str, &Tensor)| {
            other.kind() == tensor.kind() && other.size() == tensor.size() && *other == tensor
        };
        if !once.iter().any(same) {
            once.push((name, tensor));
        }
    }
    if once.len() > 10 {
        let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        let groups: BTreeSet<String> = once.iter().map(|(name, _)| first(name)).collect();
        let of_ten =
            |group: &&String| once.iter().filter(|(name, _)| first(name) == **group).count() == 10;
        let mut fitting = groups.iter().filter(of_ten);
        if let (Some(group), None) = (fitting.next(), fitting.next()) {
            once.retain(|(name, _)| first(name) == *group);
        }
    }
    if once.len() == 10 { once } else { tensors }
}

/// The names without what wrappers add, and without what all of them start with (`model.`).
fn keys(tensors: &[(&str, &Tensor)]) -> Vec<String> {
    let mut paths: Vec<Vec<&str>> = tensors
        .iter()
        .map(|(name, _)| name.split('.').filter(|part| !WRAPPERS.contains(part)).collect())
        .collect();
    // A layer and `weight` or `bias` are left.
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
    tensors: &[(&'a str, &'a Tensor)],
    keys: &[String],
    parameters: Vec<(String, Vec<i64>)>,
) -> Result<Vec<Match<'a>>, String> {
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
            Ok(Match { name, shape, found, tensor })
        })
        .collect()
}

/// A weight is known by its shape alone, as no two are equal (a safetensors file from Python is in
/// the order of its names); a bias by the name of its weight, as with 84 classes, say, shapes repeat.
/// In a list without names it is the next one of its shape. Where nothing fits, the match is with a
/// tensor that fits nowhere, for the message.
fn by_shape<'a>(
    tensors: &[(&'a str, &'a Tensor)],
    parameters: Vec<(String, Vec<i64>)>,
) -> Result<Vec<Match<'a>>, String> {
    if tensors.len() != parameters.len() {
        return Err(not_ten(tensors));
    }
    let shapes: Vec<_> = parameters.iter().map(|(_, shape)| shape.clone()).collect();
    let mut left: Vec<_> = tensors.to_vec();
    let mut bias_name = None;
    let matches = parameters.into_iter().map(|(name, shape)| {
        let position = |test: &dyn Fn(&(&str, &Tensor)) -> bool| left.iter().position(test);
        let index = bias_name
            .take()
            .and_then(|bias: String| position(&|(found, _)| *found == bias))
            .or_else(|| position(&|(_, tensor)| tensor.size() == shape))
            .or_else(|| position(&|(_, tensor)| !shapes.contains(&tensor.size())));
        let (found, tensor) = left.remove(index.unwrap_or(0));
        bias_name = found.strip_suffix("weight").map(|prefix| format!("{prefix}bias"));
        Match { name, shape, found, tensor }
    });
    Ok(matches.collect())
}

/// "expected the ten parameters of LeNet-5, found 14 tensors: conv1.weight [32, 1, 3, 3], ...".
fn not_ten(tensors: &[(&str, &Tensor)]) -> String {
    let shapes: Vec<_> =
        ModelConfig::default().state().into_iter().map(|(_, shape)| shape).collect();
    // Those first that are in the way.
    let mut sorted = tensors.to_vec();
    sorted.sort_by_key(|(_, tensor)| shapes.contains(&tensor.size()));
    let list: Vec<_> = sorted
        .iter()
        .take(MAX_LISTED)
        .map(|(name, tensor)| format!("{} {:?}", shown(name), tensor.size()))
        .collect();
    let plural = if tensors.len() == 1 { "" } else { "s" };
    let more = if tensors.len() > MAX_LISTED { ", ..." } else { "" };
    format!(
        "expected the ten parameters of LeNet-5, found {} tensor{plural}: {}{more}",
        tensors.len(),
        list.join(", ")
    )
}

/// The parameter by our name, as float32.
fn check(
    matched: &Match,
    converted: &mut BTreeSet<&'static str>,
) -> Result<(String, Tensor), String> {
    let Match { name, shape, found, tensor } = matched;
    let (found, name) = (shown(found), name.as_str());
    if tensor.size() != *shape {
        let target = if found == name { String::new() } else { format!(" (for {name})") };
        return Err(format!(
            "{found}{target}: expected shape {shape:?}, found {:?}",
            tensor.size()
        ));
    }
    if !tensor.is_floating_point() {
        return Err(format!("{found}: expected floats, found {:?}", tensor.kind()));
    }
    if tensor.kind() != Kind::Float {
        converted.extend(DType::of(tensor.kind()).map(DType::name));
    }
    let tensor = tensor.to_kind(Kind::Float);
    let bad = tensor.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
    if bad > 0 {
        return Err(format!(
            "{found}: expected finite numbers, found {bad} that are not (NaN or infinite)"
        ));
    }
    Ok((name.to_owned(), tensor))
}

/// The settings as far as shapes tell them: the form of c5, the size of the input, the classes.
fn config_of_shapes(tensors: &[(&str, &Tensor)]) -> ModelConfig {
    let has = |shape: &[i64]| tensors.iter().any(|(_, tensor)| tensor.size() == shape);
    let classes = tensors.iter().find_map(|(_, tensor)| match tensor.size()[..] {
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
