//! Checkpoints: all that training needs to go on as if it had never stopped.
//!
//! The file is what `torch.save` writes of
//! `{"model": state_dict, "optimizer": state_dict, "rng_state": ..., "epoch": ..., "step": ..., ...}`:
//! Python reads it with `torch.load(weights_only=True)`, and can go on from there, as Rust can from
//! a checkpoint that Python wrote in this form.

use std::path::Path;

use super::{
    CONFIG_KEY, Limits, Value, Weights, archive, mapping, parse_config, read_limited, state_dict,
};
use crate::{Array, DType, Error, Result, files};

/// The key of the run's settings.
const SETTINGS_KEY: &str = "lenet5.train";

/// The state of an optimizer between two steps. Its tensors are those of the parameters that are trained, in their order
/// and shapes, float32.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum OptimizerState {
    /// Before the first step; and of optimizers that keep nothing.
    #[default]
    Empty,
    /// The running sums of gradients of `torch.optim.SGD` with momentum.
    Sgd {
        /// A tensor for each parameter.
        momentum_buffer: Vec<Array>,
    },
    /// The moments of `torch.optim.Adam` and `AdamW`.
    Adam {
        /// Steps done.
        step: f64,
        /// The running means of the gradients.
        exp_avg: Vec<Array>,
        /// The running means of their squares.
        exp_avg_sq: Vec<Array>,
    },
    /// The second derivatives that SDLM has measured for the epoch.
    Sdlm {
        /// A tensor for each parameter.
        curvature: Vec<Array>,
    },
}

impl OptimizerState {
    /// The tensors by the names that PyTorch's state dicts have, for parameter after parameter.
    fn entries(&self) -> Vec<(&'static str, &[Array])> {
        match self {
            Self::Empty => Vec::new(),
            Self::Sgd { momentum_buffer } => vec![("momentum_buffer", momentum_buffer)],
            Self::Adam { exp_avg, exp_avg_sq, .. } => {
                vec![("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)]
            }
            Self::Sdlm { curvature } => vec![("curvature", curvature)],
        }
    }

    /// As a state dict: the entries of each parameter under its number.
    fn to_value(&self) -> Value {
        let entries = self.entries();
        let parameters = entries.first().map_or(0, |(_, arrays)| arrays.len());
        let items = (0..parameters).map(|i| {
            let mut state = Vec::new();
            if let Self::Adam { step, .. } = self {
                state.push(("step", Value::Tensor(Array::from_f32(&[], &[*step as f32]))));
            }
            state.extend(
                entries.iter().map(|(name, arrays)| (*name, Value::Tensor(arrays[i].clone()))),
            );
            (Value::Int(i as i64), Value::dict(state))
        });
        Value::Dict { items: items.collect(), attributes: None }
    }

    /// From a state dict; `shapes` are those of the parameters that are trained. Checks that all numbers are finite, and that
    /// those that cannot be negative are not.
    fn from_value(state: &[(Value, Value)], shapes: &[Vec<usize>]) -> Result<Self, String> {
        if state.is_empty() {
            return Ok(Self::Empty);
        }
        if state.len() != shapes.len() {
            return Err(format!(
                "optimizer state: expected {} parameters, found {}",
                shapes.len(),
                state.len()
            ));
        }
        let first = state[0].1.items().unwrap_or_default();
        let names: Vec<&str> = first.iter().filter_map(|(name, _)| name.as_str()).collect();
        let has = |name: &str| names.contains(&name);
        let kept: &[&'static str] = match () {
            () if has("momentum_buffer") => &["momentum_buffer"],
            () if has("exp_avg") || has("exp_avg_sq") || has("step") => {
                &["step", "exp_avg", "exp_avg_sq"]
            }
            () if has("curvature") => &["curvature"],
            () if names.is_empty() => &[],
            () => {
                return Err(format!(
                    "optimizer state: expected that of SGD, Adam or SDLM, found {}",
                    names[0]
                ));
            }
        };
        let mut columns: Vec<Vec<Array>> = vec![Vec::new(); kept.len()];
        let mut steps = Vec::new();
        for (i, ((key, entries), shape)) in state.iter().zip(shapes).enumerate() {
            if key.as_int() != Some(i as i64) {
                return Err(format!(
                    "expected the optimizer's state of parameter {i}, found another order"
                ));
            }
            let entries = entries.items().unwrap_or_default();
            let tensors: Vec<(&str, &Array)> = entries
                .iter()
                .filter_map(|(name, value)| Some((name.as_str()?, value.as_tensor()?)))
                .collect();
            if let Some((name, _)) = tensors.iter().find(|(name, _)| !kept.contains(name)) {
                return Err(format!("optimizer state: expected {}, found {name}", kept.join(", ")));
            }
            if tensors.len() != kept.len() {
                let (kept, found) = (kept.join(", "), tensors.len());
                return Err(format!(
                    "optimizer state of parameter {i}: expected {kept}, found {found} tensors"
                ));
            }
            for (name, array) in tensors {
                check_numbers(name, array)?;
                if name == "step" {
                    steps.extend(array.to_f64());
                    continue;
                }
                if array.shape() != shape {
                    return Err(format!(
                        "optimizer state {name}: expected shape {shape:?}, found {:?}",
                        array.shape()
                    ));
                }
                let column = kept.iter().position(|kept| *kept == name).expect("checked above");
                columns[column].push(array.clone().into_f32());
            }
        }
        if steps.iter().any(|step| *step != steps[0]) {
            return Err("optimizer state step: expected the same of all parameters, found others"
                .to_owned());
        }
        Ok(match kept {
            [] => Self::Empty,
            ["momentum_buffer"] => Self::Sgd { momentum_buffer: columns.remove(0) },
            ["curvature"] => Self::Sdlm { curvature: columns.remove(0) },
            _ => {
                let exp_avg_sq = columns.remove(2);
                Self::Adam { step: steps[0], exp_avg: columns.remove(1), exp_avg_sq }
            }
        })
    }
}

/// Checks that numbers of an optimizer's state are finite, and that squares, second derivatives and steps are not negative.
fn check_numbers(name: &str, array: &Array) -> Result<(), String> {
    let not_negative = matches!(name, "curvature" | "exp_avg_sq" | "step");
    let good = |value: &f64| value.is_finite() && (!not_negative || *value >= 0.0);
    match array.to_f64().iter().all(good) {
        true => Ok(()),
        false => {
            let what = if not_negative { "finite numbers from 0" } else { "finite numbers" };
            Err(format!("optimizer state {name}: expected {what}, found others"))
        }
    }
}

/// The state of a training run between two steps.
#[derive(Debug)]
pub struct Checkpoint {
    /// Settings and parameters of the network.
    pub weights: Weights,
    /// The optimizer's state.
    pub optimizer: OptimizerState,
    /// The state of PyTorch's CPU generator, as it was before the order of epoch `epoch` was drawn: uint8.
    pub generator: Array,
    /// Epochs that are complete.
    pub epoch: u32,
    /// Steps that are complete in the current epoch.
    pub step: u64,
    /// Sum of the losses of the samples of those steps.
    pub loss_sum: f64,
    /// Samples of those steps that were misclassified.
    pub misclassified: u64,
    /// Seconds spent on those steps.
    pub seconds: f64,
    /// The settings of the run, as JSON; none in checkpoints of other programs.
    pub settings: Option<String>,
}

impl Checkpoint {
    /// Writes the file, whole or not at all. `param_group` are the optimizer's settings, as Python's
    /// optimizer wants them to be in its state dict.
    ///
    /// # Errors
    /// Where the file cannot be written; the old one then stays.
    pub fn write(&self, path: &Path, param_group: Vec<(&'static str, Value)>) -> Result<()> {
        let fixed = |name: &str| self.weights.config.is_fixed(name);
        let parameters = self.weights.tensors.iter().filter(|(name, _)| !fixed(name)).count();
        let mut group = param_group;
        let indices = (0..parameters).map(|i| Value::Int(i as i64)).collect();
        group.push(("params", Value::List(indices)));
        let optimizer = Value::dict([
            ("state", self.optimizer.to_value()),
            ("param_groups", Value::List(vec![Value::dict(group)])),
        ]);
        let value = Value::dict([
            ("model", self.weights.state_dict()),
            ("optimizer", optimizer),
            ("rng_state", Value::Tensor(self.generator.clone())),
            ("epoch", Value::Int(self.epoch.into())),
            ("step", Value::Int(self.step as i64)),
            ("loss_sum", Value::Float(self.loss_sum)),
            ("misclassified", Value::Int(self.misclassified as i64)),
            ("seconds", Value::Float(self.seconds)),
            (CONFIG_KEY, Value::Str(self.weights.settings())),
            (SETTINGS_KEY, self.settings.clone().map_or(Value::None, Value::Str)),
        ]);
        files::write_atomic(path, &archive::write(&value)?)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Where it is no checkpoint, or a broken one.
    pub fn read(path: &Path) -> Result<Self> {
        let limits = Limits::default();
        let bytes = read_limited(path, &limits)?;
        parse(&bytes, &limits).map_err(|message| Error::file(path, message))
    }
}

fn parse(bytes: &[u8], limits: &Limits) -> Result<Checkpoint, String> {
    let value = archive::read(bytes, limits)?.resolved.value;
    let missing =
        |key: &str| format!("expected a checkpoint of lenet5 with the entry {key}, found none");
    let entry = |key: &str| value.get(key).ok_or_else(|| missing(key));
    let config = parse_config(entry(CONFIG_KEY)?.as_str().ok_or_else(|| missing(CONFIG_KEY))?)?;
    let model = mapping::map(state_dict::entries(entry("model")?)?, Some(&config))?;
    let state = entry("optimizer")?
        .get("state")
        .and_then(Value::items)
        .ok_or_else(|| missing("optimizer"))?;
    let trained = config.state().into_iter().filter(|(name, _)| !config.is_fixed(name));
    let shapes: Vec<_> = trained.map(|(_, shape)| shape).collect();
    let optimizer = OptimizerState::from_value(state, &shapes)?;
    let count = |key: &str| {
        entry(key)?.as_int().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| missing(key))
    };
    let number = |key: &str| {
        entry(key)?.as_float().filter(|number| number.is_finite()).ok_or_else(|| missing(key))
    };
    // Older checkpoints have the other name.
    let misclassified = value.get("misclassified").or_else(|| value.get("misread"));
    Ok(Checkpoint {
        weights: Weights::from_tensors(config, model.tensors),
        optimizer,
        generator: entry("rng_state")?
            .as_tensor()
            .filter(|tensor| tensor.dtype() == DType::U8)
            .ok_or_else(|| missing("rng_state"))?
            .clone(),
        epoch: count("epoch")?,
        step: count("step")?.into(),
        loss_sum: number("loss_sum")?,
        misclassified: misclassified.and_then(Value::as_int).unwrap_or(0).max(0) as u64,
        seconds: number("seconds")?,
        settings: value.get(SETTINGS_KEY).and_then(Value::as_str).map(str::to_owned),
    })
}
