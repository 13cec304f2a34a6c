//! What training makes small.

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::error::number;
use crate::{Error, Result};

/// A loss, averaged over a batch. For the original network the logits are -y, y being the distances of
/// the paper, times the scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
pub enum Loss {
    /// Softmax cross-entropy: `logsumexp(logits) - logits[label]`.
    #[default]
    CrossEntropy,
    /// The distance of the right class, the paper's eq. 8: `y[label]`.
    Distance,
    /// The discriminative loss, the paper's eq. 9: `y[label] + log(exp(-j) + sum(exp(-y)))`.
    Discriminative {
        /// The distance of the class of everything else. The paper gives no number.
        j: f64,
    },
}

impl Loss {
    /// Of logits (N, classes) and labels (N): a scalar.
    pub fn of(self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let right = || logits.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1);
        match self {
            Self::CrossEntropy => {
                logits.cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0)
            }
            Self::Distance => (-right()).mean(Kind::Float),
            Self::Discriminative { j } => {
                let other =
                    Tensor::full([logits.size()[0], 1], -j, (logits.kind(), logits.device()));
                let all = Tensor::cat(&[logits, &other], 1).logsumexp([1i64].as_slice(), false);
                (all - right()).mean(Kind::Float)
            }
        }
    }

    /// Checks the range of j.
    ///
    /// # Errors
    /// Where it is not finite.
    pub fn validate(self) -> Result<()> {
        match self {
            // In float32, as it is used.
            Self::Discriminative { j } if !(j as f32).is_finite() => {
                Err(Error::Config(format!("j: expected a finite number, found {}", number(j))))
            }
            _ => Ok(()),
        }
    }
}
