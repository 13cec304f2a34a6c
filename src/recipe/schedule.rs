//! Learning rate schedules with the same float64 bits as PyTorch's schedulers.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A learning rate schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Schedule {
    /// The same learning rate in all steps.
    #[default]
    Constant,
    /// `StepLR`: multiplied by `gamma` every `step_size` epochs.
    Step {
        /// Epochs between two changes.
        step_size: u32,
        /// Factor of a change.
        gamma: f64,
    },
    /// `CosineAnnealingLR(T_max=epochs)`: half a cosine from the learning rate down to 0, changed
    /// after each epoch.
    Cosine,
    /// `OneCycleLR(max_lr=rate, total_steps=epochs * steps_per_epoch, cycle_momentum=False)`: up
    /// from rate / 25 in the first 30 % of the steps, then down to rate / 250,000; both are parts
    /// of cosines, changed after each step.
    OneCycle,
    /// The schedule of the paper of 1998: the learning rate for 2 epochs, 0.4 of it for 3, 0.2 for
    /// 3, 0.1 for 4, then 0.02.
    Paper,
}

impl Schedule {
    /// Checks that the settings are in their ranges.
    ///
    /// # Errors
    /// If a setting is out of its range; the message names it.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Step { step_size: 0, .. } => {
                Err(Error::config("step-size: expected 1 or more epochs, found 0".to_owned()))
            }
            Self::Step { gamma, .. } if !(gamma.is_finite() && gamma > 0.0) => {
                Err(Error::config(format!("gamma: expected a number above 0, found {gamma}")))
            }
            _ => Ok(()),
        }
    }

    /// Returns the learning rate of a step. `epoch` and `step` (within the epoch) count from 0.
    ///
    /// Recursive schedules are recomputed from the first epoch, as closed forms differ in the last
    /// bits. So there is no state to save.
    pub fn learning_rate(
        &self,
        rate: f64,
        (epoch, epochs): (u32, u32),
        (step, steps_per_epoch): (u64, u64),
    ) -> f64 {
        match *self {
            Self::Constant => rate,
            Self::Step { step_size, gamma } => {
                (0..epoch / step_size).fold(rate, |rate, _| rate * gamma)
            }
            Self::Cosine => {
                let t_max = f64::from(epochs);
                let wave = |epoch: u32| 1.0 + (PI * f64::from(epoch) / t_max).cos();
                (1..=epoch).fold(rate, |rate, epoch| wave(epoch) / wave(epoch - 1) * rate)
            }
            Self::Paper => {
                rate * match epoch {
                    0..2 => 1.0,
                    2..5 => 0.4,
                    5..8 => 0.2,
                    8..12 => 0.1,
                    _ => 0.02,
                }
            }
            Self::OneCycle => {
                let total = (u64::from(epochs) * steps_per_epoch) as f64;
                let step = (u64::from(epoch) * steps_per_epoch + step) as f64;
                one_cycle(rate, step, total)
            }
        }
    }
}

fn one_cycle(max: f64, step: f64, total: f64) -> f64 {
    let anneal = |start: f64, end: f64, fraction: f64| {
        end + (start - end) / 2.0 * ((PI * fraction).cos() + 1.0)
    };
    let initial = max / 25.0;
    let min = initial / 1e4;
    let peak = 0.3 * total - 1.0;
    if step <= peak {
        anneal(initial, max, step / peak)
    } else {
        anneal(max, min, (step - peak) / (total - 1.0 - peak))
    }
}
