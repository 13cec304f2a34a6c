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

/// Which optimizer, with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// `torch.optim.SGD`.
    Sgd {
        /// Factor of the running sum of gradients, from 0.
        momentum: f64,
        /// Fraction of a new gradient that is left out of that sum.
        dampening: f64,
        /// L2 penalty.
        weight_decay: f64,
        /// Nesterov momentum.
        nesterov: bool,
    },
    /// `torch.optim.Adam`.
    Adam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the denominator.
        eps: f64,
        /// L2 penalty, added to the gradient.
        weight_decay: f64,
    },
    /// `torch.optim.AdamW`.
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the denominator.
        eps: f64,
        /// Decoupled decay of the weights.
        weight_decay: f64,
    },
    /// Stochastic diagonal Levenberg-Marquardt, of the 1998 paper.
    Sdlm {
        /// Added to the second derivatives, so that no rate is above learning rate / mu.
        mu: f64,
        /// Training images that the second derivatives are measured on before each epoch: the first ones
        /// in its order.
        samples: i64,
    },
}

impl OptimizerConfig {
    /// Checks the ranges, as PyTorch's constructors do.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let at_least_0 = |name: &str, value: f64| match value.is_finite() && value >= 0.0 {
            true => Ok(()),
            false => Err(Error::Config(format!("{name}: expected 0 or more, found {value}"))),
        };
        let below_1 = |name: &str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => {
                Err(Error::Config(format!("{name}: expected 0 up to, but not, 1, found {value}")))
            }
        };
        match *self {
            Self::Sgd { momentum, dampening, weight_decay, nesterov } => {
                at_least_0("momentum", momentum)?;
                at_least_0("weight-decay", weight_decay)?;
                if !dampening.is_finite() {
                    return Err(Error::Config(format!(
                        "dampening: expected a number, found {dampening}"
                    )));
                }
                if nesterov && (momentum == 0.0 || dampening != 0.0) {
                    return Err(Error::Config(
                        "nesterov: expected a momentum above 0 and a dampening of 0".to_owned(),
                    ));
                }
                Ok(())
            }
            Self::Adam { beta1, beta2, eps, weight_decay }
            | Self::AdamW { beta1, beta2, eps, weight_decay } => {
                below_1("beta1", beta1)?;
                below_1("beta2", beta2)?;
                at_least_0("eps", eps)?;
                at_least_0("weight-decay", weight_decay)
            }
            Self::Sdlm { mu, samples } => {
                // In float32, as it is used.
                if !((mu as f32).is_finite() && mu as f32 > 0.0) {
                    let mu = number(mu);
                    return Err(Error::Config(format!(
                        "mu: expected a number above 0, found {mu}"
                    )));
                }
                if samples < 1 {
                    return Err(Error::Config(format!(
                        "hessian-samples: expected 1 or more, found {samples}"
                    )));
                }
                Ok(())
            }
        }
    }

    /// What it keeps of the gradients of each parameter, by PyTorch's names.
    pub(crate) fn running_state(&self) -> &'static [&'static str] {
        match self {
            Self::Sgd { momentum: 0.0, .. } | Self::Sdlm { .. } => &[],
            Self::Sgd { .. } => &["momentum_buffer"],
            Self::Adam { .. } | Self::AdamW { .. } => &["exp_avg", "exp_avg_sq"],
        }
    }

    /// The optimizer over `parameters`, which it shares with the model.
    pub fn build(&self, parameters: Vec<Tensor>) -> Box<dyn Optimizer> {
        match *self {
            Self::Sgd { momentum, dampening, weight_decay, nesterov } => {
                Box::new(Sgd::new(parameters, momentum, dampening, weight_decay, nesterov))
            }
            Self::Adam { beta1, beta2, eps, weight_decay } => {
                Box::new(Adam::new(parameters, (beta1, beta2), eps, weight_decay, false))
            }
            Self::AdamW { beta1, beta2, eps, weight_decay } => {
                Box::new(Adam::new(parameters, (beta1, beta2), eps, weight_decay, true))
            }
            Self::Sdlm { mu, .. } => Box::new(Sdlm::new(parameters, mu)),
        }
    }
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
