//! Brings the tensors of a file to our names and shapes.

use tch::{Kind, Tensor};

use super::Weights;
use super::value::shown;
use crate::model::{C5, ModelConfig};

/// What data parallelism puts before each name.
const PREFIX: &str = "module.";

/// One of our parameters, and the tensor of the file that is taken for it.
struct Match<'a> {
    name: String,
    shape: Vec<i64>,
    found: &'a str,
    tensor: &'a Tensor,
}

/// Matches by name where the names are ours (with or without `module.`), else by shape, and
/// a bias by the name of its weight; then checks shapes, and that all numbers are finite.
pub fn match_layers(
    mut tensors: Vec<(String, Tensor)>,
    config: Option<ModelConfig>,
) -> Result<Weights, String> {
    for (name, _) in &mut tensors {
        if let Some(stripped) = name.strip_prefix(PREFIX) {
            *name = stripped.to_owned();
        }
    }
    let config_stored = config.is_some();
    let config = config.unwrap_or_else(|| guess_config(&tensors));
    config.validate().map_err(|error| error.to_string())?;
    let parameters = config.parameters();
    let ours = parameters.iter().any(|(name, _)| tensors.iter().any(|(found, _)| found == name));
    let matches =
        if ours { by_name(&tensors, parameters) } else { by_shape(&tensors, parameters) }?;
    let tensors = matches.iter().map(check).collect::<Result<_, _>>()?;
    Ok(Weights { config, config_stored, tensors })
}

fn by_name(
    tensors: &[(String, Tensor)],
    parameters: Vec<(String, Vec<i64>)>,
) -> Result<Vec<Match<'_>>, String> {
    let known = |found: &String| parameters.iter().any(|(name, _)| name == found);
    if let Some((extra, _)) = tensors.iter().find(|(found, _)| !known(found)) {
        return Err(format!(
            "expected the ten parameters of LeNet-5, found {} beside them",
            shown(extra)
        ));
    }
    parameters
        .into_iter()
        .map(|(name, shape)| {
            let (found, tensor) = tensors
                .iter()
                .find(|(found, _)| *found == name)
                .ok_or_else(|| format!("expected the parameter {name}, found none"))?;
            Ok(Match { name, shape, found, tensor })
        })
        .collect()
}

/// A weight is known by its shape alone, as no two are equal (a safetensors file from Python is in
/// the order of its names); a bias by the name of its weight, as with 84 classes, say, shapes repeat.
/// Where nothing fits, the match is with a tensor that fits nowhere, for the message.
fn by_shape(
    tensors: &[(String, Tensor)],
    parameters: Vec<(String, Vec<i64>)>,
) -> Result<Vec<Match<'_>>, String> {
    if tensors.len() != parameters.len() {
        return Err(format!(
            "expected the ten parameters of LeNet-5, found {} tensor(s)",
            tensors.len()
        ));
    }
    let shapes: Vec<_> = parameters.iter().map(|(_, shape)| shape.clone()).collect();
    let mut left: Vec<_> = tensors.iter().collect();
    let mut bias_name = None;
    let matches = parameters.into_iter().map(|(name, shape)| {
        let position = |test: &dyn Fn(&(String, Tensor)) -> bool| left.iter().position(|t| test(t));
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

/// The parameter by our name, as float32.
fn check(matched: &Match) -> Result<(String, Tensor), String> {
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
    let tensor = tensor.to_kind(Kind::Float);
    let bad = tensor.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
    if bad > 0 {
        return Err(format!(
            "{found}: expected finite numbers, found {bad} that are not (NaN or infinite)"
        ));
    }
    Ok((name.to_owned(), tensor))
}

/// The settings as far as shapes tell them: the form of c5, and the number of classes.
fn guess_config(tensors: &[(String, Tensor)]) -> ModelConfig {
    let linear_c5 = tensors.iter().any(|(_, tensor)| tensor.size() == [120, 400]);
    let classes = tensors.iter().map(|(_, tensor)| tensor.size()).find_map(|size| match size[..] {
        [classes, 84] => Some(classes),
        _ => None,
    });
    ModelConfig {
        c5: if linear_c5 { C5::Linear } else { C5::Convolution },
        classes: classes.unwrap_or(10),
        ..ModelConfig::default()
    }
}
