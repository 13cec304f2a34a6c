//! Optimizers and learning rates, in PyTorch's arithmetic order, to the bit.
//!
//! tch's own SGD matches Python's bits, but its Adam and AdamW do not, and none of them can save
//! its state. These do both; the state has the form of `torch.optim.Optimizer.state_dict()`.

mod adam;
mod schedule;
mod sdlm;
mod sgd;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

pub use adam::Adam;
pub use schedule::Schedule;
pub use sdlm::Sdlm;
pub use sgd::Sgd;

use crate::error::number;
use crate::{Error, Result};

/// An optimizer over a fixed list of parameters.
pub trait Optimizer {
    /// Updates every parameter from its gradient, both in the same order.
    ///
    /// # Errors
    /// Where libtorch refuses an operation.
    fn step(&mut self, gradients: &[Tensor], learning_rate: f64) -> Result<()>;

    /// Takes the second derivatives of the epoch to come, in the order of the parameters.
    ///
    /// # Errors
    /// Where a shape is not its parameter's.
    fn set_curvature(&mut self, _curvature: Vec<Tensor>) -> Result<()> {
        Ok(())
    }

    /// The state of each parameter, by PyTorch's names (`momentum_buffer`; `step`, `exp_avg`,
    /// `exp_avg_sq`; SDLM's `curvature`), in the order of the parameters. Empty before the first step.
    fn state(&self) -> Vec<Vec<(&'static str, Tensor)>>;

    /// Takes back what [`Optimizer::state`] gave; missing entries are as before the first step.
    ///
    /// # Errors
    /// Where an entry is unknown or has another shape than its parameter.
    fn load_state(&mut self, state: &[Vec<(String, Tensor)>]) -> Result<()>;
}

/// The entry `name` of one parameter's saved state, checked against the parameter and on its device.
fn take_entry(
    state: &[(String, Tensor)],
    name: &str,
    parameter: &Tensor,
) -> Result<Option<Tensor>> {
    let Some((_, tensor)) = state.iter().find(|(n, _)| n == name) else {
        return Ok(None);
    };
    if tensor.size() != parameter.size() {
        return Err(Error::Config(format!(
            "optimizer state {name}: expected shape {:?}, found {:?}",
            parameter.size(),
            tensor.size()
        )));
    }
    // A copy of our own: the steps to come are in place.
    Ok(Some(tensor.to_device(parameter.device()).to_kind(parameter.kind()).copy()))
}

/// Checks the numbers of a state that comes from a file: they are finite, and squares and second derivatives are
/// not negative.
///
/// # Errors
/// Names the first entry that has other numbers.
pub fn check_numbers(state: &[Vec<(String, Tensor)>]) -> Result<()> {
    for (name, tensor) in state.iter().flatten() {
        let not_negative = matches!(name.as_str(), "curvature" | "exp_avg_sq" | "step");
        let numbers = tensor.f_to_kind(Kind::Double)?;
        let finite = numbers.isfinite().all().int64_value(&[]) != 0;
        if !finite || not_negative && numbers.lt(0.0).any().int64_value(&[]) != 0 {
            let what = if not_negative { "finite numbers from 0" } else { "finite numbers" };
            return Err(Error::Config(format!(
                "optimizer state {name}: expected {what}, found others"
            )));
        }
    }
    Ok(())
}

/// Refuses the state of another optimizer, or of another number of parameters. Before the first step it is
/// empty; afterwards it has all `known` entries of each parameter.
fn check_state(state: &[Vec<(String, Tensor)>], parameters: usize, known: &[&str]) -> Result<()> {
    if !state.is_empty() && state.len() != parameters {
        return Err(Error::Config(format!(
            "optimizer state: expected {parameters} parameters, found {}",
            state.len()
        )));
    }
    match state.iter().flatten().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => Err(Error::Config(format!(
            "optimizer state: expected {}, found {name}",
            known.join(", ")
        ))),
        None => Ok(()),
    }?;
    for (i, entries) in state.iter().enumerate() {
        if entries.len() != known.len() {
            let (known, found) = (known.join(", "), entries.len());
            return Err(Error::Config(format!(
                "optimizer state of parameter {i}: expected {known}, found {found} tensors"
            )));
        }
    }
    Ok(())
}
