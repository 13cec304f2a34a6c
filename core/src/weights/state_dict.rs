//! Finds the state dict in a file's contents, and lists its tensors by dotted names.

use std::collections::HashSet;

use super::value::Value;
use crate::Array;

/// The largest number of tensors in a file.
const MAX_TENSORS: usize = 10_000;
/// The longest name of a tensor, in bytes.
const MAX_NAME_BYTES: usize = 1000;

/// Keys under which checkpoints usually hold the network, the preferred ones first.
const USUAL_KEYS: [&str; 17] = [
    "state_dict",
    "model_state_dict",
    "model",
    "model_state",
    "net",
    "net_state_dict",
    "net_state",
    "network",
    "network_state_dict",
    "weights",
    "params",
    "parameters",
    "module",
    "lenet",
    "lenet5",
    "LeNet5",
    "state",
];

/// The number of levels of nested dicts that are searched.
const MAX_DEPTH: usize = 3;
/// The largest number of candidates that are tried.
const MAX_CANDIDATES: usize = 64;

/// An entry of a state dict.
#[derive(Debug)]
pub struct Entry {
    /// Its dotted name, such as `conv1.weight`.
    pub name: String,
    /// The tensor, or the description of a tensor of a kind that cannot be read.
    pub content: Result<Array, String>,
}

/// A part of a file that may be a state dict.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The keys that lead to it, joined by dots, such as `state.model`; empty for the whole file.
    pub path: String,
    /// The value at this path.
    pub value: &'a Value,
    /// Whether its key is in [`USUAL_KEYS`], or it is the whole file.
    pub usual: bool,
}

impl Candidate<'_> {
    /// Whether the path of a network that was found contains this candidate or lies within it.
    pub fn overlaps(&self, found: &str) -> bool {
        is_within(&self.path, found) || is_within(found, &self.path)
    }
}

/// Whether a dotted name is `outer` or lies below it. Whole segments are compared: `a.b` is within
/// `a`, `ab` is not.
pub fn is_within(name: &str, outer: &str) -> bool {
    let rest = name.strip_prefix(outer);
    outer.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Parts of the keys under which optimizers and training store tensors with the shapes of weights.
const NOT_WEIGHTS: [&str; 6] = ["optim", "grad", "exp_avg", "moment", "velocity", "buffer"];

/// All parts of a file that may hold the network, the likeliest first: those under usual keys, the
/// whole file, those under other keys. Optimizer states are left out, because they look like
/// weights.
pub fn candidates(root: &Value) -> Vec<Candidate<'_>> {
    let (mut usual, mut others) = (Vec::new(), Vec::new());
    let mut level = vec![(String::new(), root)];
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for (path, value) in level {
            // An object of another class, such as a trainer, may hold the network.
            let value = match value {
                Value::Object { state: Some(state), .. } if state.get("_parameters").is_none() => {
                    state
                }
                value => value,
            };
            let Some(items) = value.items() else { continue };
            let children: Vec<_> = items
                .iter()
                .filter_map(|(key, child)| Some((key.as_str()?, child)))
                .filter(|(key, child)| {
                    let key = key.to_lowercase();
                    !NOT_WEIGHTS.iter().any(|part| key.contains(part))
                        && matches!(
                            child,
                            Value::Dict { .. }
                                | Value::List(_)
                                | Value::Tuple(_)
                                | Value::Object { state: Some(_), .. }
                        )
                })
                .collect();
            let join = |key: &str| {
                if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
            };
            for key in USUAL_KEYS {
                let found = children.iter().find(|(name, _)| *name == key);
                usual.extend(found.map(|(_, value)| Candidate {
                    path: join(key),
                    value,
                    usual: true,
                }));
            }
            for (key, value) in children.into_iter().take(MAX_CANDIDATES) {
                if !USUAL_KEYS.contains(&key) {
                    others.push(Candidate { path: join(key), value, usual: false });
                }
                if next.len() < MAX_CANDIDATES {
                    next.push((join(key), value));
                }
            }
        }
        level = next;
    }
    usual.push(Candidate { path: String::new(), value: root, usual: true });
    usual.extend(others);
    usual.truncate(MAX_CANDIDATES);
    usual
}

/// Lists all tensors below `value`: those in dicts and lists, and the parameters and buffers of
/// Python and TorchScript modules.
///
/// # Errors
/// If there are too many tensors, or a name is too long.
pub fn entries(value: &Value) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    collect(value, "", &mut entries)?;
    Ok(entries)
}

fn collect(value: &Value, prefix: &str, entries: &mut Vec<Entry>) -> Result<(), String> {
    let mut push = |content| {
        if entries.len() == MAX_TENSORS {
            return Err(format!("expected at most {MAX_TENSORS} tensors, found more"));
        }
        entries.push(Entry { name: prefix.to_owned(), content });
        Ok(())
    };
    match value {
        Value::Tensor(tensor) => push(Ok(tensor.clone())),
        Value::Foreign(what) => push(Err(what.clone())),
        Value::Dict { items, .. } => items.iter().try_for_each(|(key, value)| match key.as_str() {
            Some(key) => collect(value, &join(prefix, key)?, entries),
            None => Ok(()),
        }),
        Value::List(items) | Value::Tuple(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(i, value)| collect(value, &join(prefix, &i.to_string())?, entries)),
        Value::Object { state: Some(state), .. } => match state.get("_parameters") {
            // A torch.nn.Module: these are the tensors that its state_dict() returns.
            Some(_) => {
                ["_parameters", "_modules"]
                    .iter()
                    .filter_map(|key| state.get(key))
                    .try_for_each(|value| collect(value, prefix, entries))?;
                let buffers = state.get("_buffers").and_then(Value::items).unwrap_or_default();
                let left_out = match state.get("_non_persistent_buffers_set") {
                    Some(Value::List(names)) => names.as_slice(),
                    _ => &[],
                };
                let left_out: HashSet<&str> = left_out.iter().filter_map(Value::as_str).collect();
                buffers
                    .iter()
                    .filter_map(|(name, value)| Some((name.as_str()?, value)))
                    .filter(|(name, _)| !left_out.contains(name))
                    .try_for_each(|(name, value)| collect(value, &join(prefix, name)?, entries))
            }
            None => collect(state, prefix, entries),
        },
        _ => Ok(()),
    }
}

fn join(prefix: &str, key: &str) -> Result<String, String> {
    if prefix.len() + key.len() >= MAX_NAME_BYTES {
        return Err(format!("expected names below {MAX_NAME_BYTES} bytes, found a longer one"));
    }
    Ok(if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") })
}
