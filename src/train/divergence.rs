//! When training has diverged, for all engines, losses and optimizers alike.

use std::fmt;

use tch::{Device, Kind, Tensor};

use crate::engine::State;
use crate::model::{Network, loss};
use crate::recipe::{Loss, TrainConfig};

/// A loss above this multiple of that of a network that knows nothing has diverged. Measured on 1,000 digits in three
/// epochs, over all activations, optimizers, losses and learning rates from 0.0005 to 1e9: those that learn stay below
/// 1.2 times; of those with an epoch above 10 times none ended below 70 % error, but for one by Adam at a rate of 1e9,
/// whose loss was 1e10.
const MAX_LOSS_RATIO: f64 = 100.0;
/// A parameter above this has diverged: the shipped networks' are below 10. The network of 1998 with its fixed codes shows it
/// only here, as its distances are bounded.
const MAX_PARAMETER: f64 = 1e6;

/// The mean loss of a part of the training images, or of the test images.
#[derive(Clone, Copy)]
pub(super) enum MeasuredLoss {
    Training(f64),
    Test(f64),
}

impl fmt::Display for MeasuredLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Training(loss) => write!(f, "the training loss is {loss:.3e}"),
            Self::Test(loss) => write!(f, "the test loss is {loss:.3e}"),
        }
    }
}

/// Refuses a loss or parameters that no training that learns has, and says what was found.
pub(super) fn check_divergence(
    config: &TrainConfig,
    state: &State,
    found: MeasuredLoss,
) -> Result<(), String> {
    let (MeasuredLoss::Training(loss) | MeasuredLoss::Test(loss)) = found;
    let uninformed = uninformed_loss(config);
    let exceeds = |value: f64, limit: f64| value.is_nan() || value >= limit;
    if exceeds(loss, MAX_LOSS_RATIO * uninformed) {
        return Err(format!("{found}, where a network that knows nothing has {uninformed:.2}"));
    }
    let largest = |values: Vec<f32>| {
        values.iter().fold(0.0, |most: f64, value| {
            // NaN is the largest of all.
            if value.is_nan() || most.is_nan() {
                f64::NAN
            } else {
                most.max(f64::from(value.abs()))
            }
        })
    };
    for ((name, _), array) in config.model.state().iter().zip(&state.tensors) {
        let largest = largest(array.to_f32());
        if !config.model.is_fixed(name) && exceeds(largest, MAX_PARAMETER) {
            return Err(format!("{found}, and the largest number of {name} is {largest:.1e}"));
        }
    }
    Ok(())
}

/// The loss of a network whose last hidden layer is 0, which finds all classes equally likely, as a new network does
/// but for noise. It is also that of a run that starts from weights whose loss is near 0, and needs no memory of the
/// start where a run is resumed. The largest one of the losses that are measured: test images by cross-entropy,
/// which for the network of 1998 is of distances, and training images by the settings' loss.
fn uninformed_loss(config: &TrainConfig) -> f64 {
    let logit = match config.model.network {
        Network::Modern => 0.0,
        // Codes of -1 and 1.
        Network::Original => {
            -config.model.rbf_scale * config.model.weight_shape("output")[1] as f64
        }
    };
    let logits = Tensor::full([1, config.model.classes as i64], logit, (Kind::Double, Device::Cpu));
    let label = Tensor::from_slice(&[0_i64]);
    let losses = [config.loss, Loss::CrossEntropy, Loss::Distance];
    losses.map(|kind| loss(kind, &logits, &label).double_value(&[])).into_iter().fold(0.0, f64::max)
}
