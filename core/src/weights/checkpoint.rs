//! Checkpoints hold everything that training needs to continue as if it had never stopped.
//!
//! The file is like that of `torch.save` for a dict with the entries `model` and `optimizer` (two
//! state dicts), `rng_state`, `epoch`, `step` and others. Python reads it with
//! `torch.load(weights_only=True)` and can continue the training; this crate can continue from a
//! checkpoint that Python wrote in this form.

use std::path::Path;

use super::optimizer_state::OptimizerState;
use super::{
    CONFIG_KEY, Limits, Value, Weights, archive, mapping, parse_config, read_limited, state_dict,
};
use crate::{Array, DType, Error, Result, files};

/// The key of the settings of the training run.
const SETTINGS_KEY: &str = "lenet5.train";

/// The state of a training run between two steps.
#[derive(Debug)]
pub struct Checkpoint {
    /// The settings and parameters of the network.
    pub weights: Weights,
    /// The state of the optimizer.
    pub optimizer: OptimizerState,
    /// The state of PyTorch's CPU random number generator before the order of the samples of epoch
    /// `epoch` was drawn; uint8.
    pub generator: Array,
    /// The number of completed epochs.
    pub epoch: u32,
    /// The number of completed steps in the current epoch.
    pub step: u64,
    /// The sum of the losses of the samples in those steps.
    pub loss_sum: f64,
    /// The number of misclassified samples in those steps.
    pub misclassified: u64,
    /// The training time of those steps in seconds.
    pub seconds: f64,
    /// The settings of the training run as JSON; `None` in checkpoints of other programs.
    pub settings: Option<String>,
}

impl Checkpoint {
    /// Writes the checkpoint; an interruption leaves the old file or the complete new one.
    /// `param_group` holds the optimizer's settings under the names that Python's optimizer expects
    /// in its state dict.
    ///
    /// # Errors
    /// If the file cannot be written; the old file then remains.
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

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged or is no checkpoint.
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
    // Older checkpoints have the entry under the name "misread".
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
