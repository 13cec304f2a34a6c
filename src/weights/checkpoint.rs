//! Checkpoints: all that training needs to go on as if it had never stopped.
//!
//! The file is what `torch.save` writes of
//! `{"model": state_dict, "optimizer": state_dict, "rng_state": ..., "epoch": ..., "step": ..., ...}`:
//! Python reads it with `torch.load(weights_only=True)`, and can go on from there, as Rust can from
//! a checkpoint that Python wrote in this form.

use std::path::Path;

use tch::{Kind, Tensor};

use super::{
    CONFIG_KEY, Limits, Value, Weights, archive, mapping, parse_config, read_limited, state_dict,
};
use crate::{Error, Result, files};

/// The key of the run's settings.
const SETTINGS_KEY: &str = "lenet5.train";

/// The state of a training run between two steps.
#[derive(Debug)]
pub struct Checkpoint {
    /// Settings and parameters of the network.
    pub weights: Weights,
    /// For each parameter the optimizer's tensors by PyTorch's names.
    pub optimizer_state: Vec<Vec<(String, Tensor)>>,
    /// The CPU generator, as it was before the order of epoch `epoch` was drawn.
    pub generator_state: Tensor,
    /// Epochs that are complete.
    pub epoch: u32,
    /// Steps that are complete in the epoch under way.
    pub step: u64,
    /// Sum of the losses of the samples of those steps.
    pub loss_sum: f64,
    /// Samples of those steps that were misread.
    pub misread: u64,
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
        let state = self.optimizer_state.iter().enumerate().map(|(i, entries)| {
            let entries = entries
                .iter()
                .map(|(name, tensor)| (name.as_str(), Value::Tensor(tensor.shallow_clone())));
            (Value::Int(i as i64), Value::dict(entries))
        });
        let mut group = param_group;
        let indices = (0..parameters).map(|i| Value::Int(i as i64)).collect();
        group.push(("params", Value::List(indices)));
        let optimizer = Value::dict([
            ("state", Value::Dict { items: state.collect(), attributes: None }),
            ("param_groups", Value::List(vec![Value::dict(group)])),
        ]);
        let config = serde_json::to_string(&self.weights.config).expect("settings are plain data");
        let value = Value::dict([
            ("model", self.weights.state_dict()),
            ("optimizer", optimizer),
            ("rng_state", Value::Tensor(self.generator_state.shallow_clone())),
            ("epoch", Value::Int(self.epoch.into())),
            ("step", Value::Int(self.step as i64)),
            ("loss_sum", Value::Float(self.loss_sum)),
            ("misread", Value::Int(self.misread as i64)),
            ("seconds", Value::Float(self.seconds)),
            (CONFIG_KEY, Value::Str(config)),
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
    let model = mapping::map(&state_dict::entries(entry("model")?)?, Some(&config))?;
    let state = entry("optimizer")?
        .get("state")
        .and_then(Value::items)
        .ok_or_else(|| missing("optimizer"))?;
    let mut optimizer_state = Vec::new();
    for (i, (key, entries)) in state.iter().enumerate() {
        if key.as_int() != Some(i as i64) {
            return Err(format!(
                "expected the optimizer's state of parameter {i}, found another order"
            ));
        }
        let entries = entries.items().unwrap_or_default().iter();
        optimizer_state.push(
            entries
                .filter_map(|(name, value)| {
                    Some((name.as_str()?.to_owned(), value.as_tensor()?.shallow_clone()))
                })
                .collect(),
        );
    }
    let count = |key: &str| {
        entry(key)?.as_int().and_then(|n| u32::try_from(n).ok()).ok_or_else(|| missing(key))
    };
    let number = |key: &str| {
        entry(key)?.as_float().filter(|number| number.is_finite()).ok_or_else(|| missing(key))
    };
    Ok(Checkpoint {
        weights: Weights::from_tensors(config, model.tensors),
        optimizer_state,
        generator_state: entry("rng_state")?
            .as_tensor()
            .filter(|tensor| tensor.kind() == Kind::Uint8)
            .ok_or_else(|| missing("rng_state"))?
            .shallow_clone(),
        epoch: count("epoch")?,
        step: count("step")?.into(),
        loss_sum: number("loss_sum")?,
        misread: value.get("misread").and_then(Value::as_int).unwrap_or(0).max(0) as u64,
        seconds: number("seconds")?,
        settings: value.get(SETTINGS_KEY).and_then(Value::as_str).map(str::to_owned),
    })
}
