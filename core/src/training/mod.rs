//! The settings of training that the kernels use: the loss, the optimizer, and the distortions of the images.

mod distortions;

use serde::{Deserialize, Serialize};

pub use distortions::{CELL, Distortion, Distortions, control_points};

use crate::error::number;
use crate::{Error, Result};

/// The loss that training minimises, averaged over a batch. The logits of the original network are -y, where y are the
/// distances of the paper, times the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum Loss {
    /// Softmax cross-entropy: `logsumexp(logits) - logits[label]`.
    #[default]
    CrossEntropy,
    /// The distance of the class of the label, the paper's eq. 8: `y[label]`.
    Distance,
    /// The discriminative loss, the paper's eq. 9: `y[label] + log(exp(-j) + sum(exp(-y)))`.
    Discriminative {
        /// The distance of the reject class. The paper gives no number.
        j: f64,
    },
}

impl Loss {
    /// Checks the range of j.
    ///
    /// # Errors
    /// If j is not finite.
    pub fn validate(self) -> Result<()> {
        match self {
            // The kernels use it in float32.
            Self::Discriminative { j } if !(j as f32).is_finite() => {
                Err(Error::Config(format!("j: expected a finite number, found {}", number(j))))
            }
            _ => Ok(()),
        }
    }
}

/// An optimizer and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// `torch.optim.SGD`.
    Sgd {
        /// The factor of the running sum of gradients, 0 or more.
        momentum: f64,
        /// The fraction of a new gradient that is not added to the running sum.
        dampening: f64,
        /// The factor of the L2 penalty.
        weight_decay: f64,
        /// Whether the momentum is Nesterov's.
        nesterov: bool,
    },
    /// `torch.optim.Adam`.
    Adam {
        /// The decay of the first moment.
        beta1: f64,
        /// The decay of the second moment.
        beta2: f64,
        /// The number that is added to the denominator.
        eps: f64,
        /// The factor of the L2 penalty, which is added to the gradient.
        weight_decay: f64,
    },
    /// `torch.optim.AdamW`.
    AdamW {
        /// The decay of the first moment.
        beta1: f64,
        /// The decay of the second moment.
        beta2: f64,
        /// The number that is added to the denominator.
        eps: f64,
        /// The factor of the decoupled weight decay.
        weight_decay: f64,
    },
    /// Stochastic diagonal Levenberg-Marquardt, of the 1998 paper.
    Sdlm {
        /// The number that is added to the second derivatives, so that no parameter's learning rate is above
        /// learning rate / mu.
        mu: f64,
        /// The number of training images from which the second derivatives are computed before each epoch: the first images
        /// in the order of that epoch.
        samples: usize,
    },
}

impl OptimizerConfig {
    /// Checks that all settings are in their ranges, which are those of PyTorch.
    ///
    /// # Errors
    /// The error names the first setting that is out of its range.
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
                // The kernels use it in float32.
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
}
