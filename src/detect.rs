//! Finds the settings that weights were trained with, by trial, as a file of weights may not hold
//! them.

use std::fmt;

use lenet5_core::Choice;
use lenet5_core::weights::contents::Hints;
use tch::nn::Module;
use tch::{Device, Kind, Reduction, Tensor};

use crate::data::Dataset;
use crate::evaluate::logits;
use crate::model::{
    Activation, HiddenActivation, Input, LayerOrder, LeNet5, ModelConfig, ModelOptions, Network,
    Pooling,
};
use crate::weights::{Provenance, Weights};
use crate::{Error, Result};

/// Common means and standard deviations, for pixels 0..1, MNIST's own values, pixels -1..1, and
/// pixels 0..255.
const NORMALISATIONS: [(f64, f64); 4] =
    [(0.0, 1.0), (0.1307, 0.3081), (0.5, 0.5), (0.0, 1.0 / 255.0)];

/// The number of training images on which all settings are tried. Training images are used because
/// training minimised their loss.
const FIRST_SAMPLES: i64 = 500;
/// The number of training images on which the best settings are tried again.
const FINAL_SAMPLES: i64 = 10_000;
/// The maximum number of settings that are tried again.
const MAX_FINALISTS: usize = 8;
/// Settings are tried again if their mean loss is at most this number of standard errors above the
/// lowest.
const MAX_DISTANCE: f64 = 6.0;

/// The minimum accuracy of the best settings, in percent.
const MIN_ACCURACY: f64 = 50.0;
/// The best settings are unambiguous if the mean losses of the others are at least this number of
/// standard errors above theirs.
const MIN_DISTANCE: f64 = 3.0;
/// The accuracy of the best settings may be this many percentage points below that of others, as
/// the loss decides.
const MAX_ACCURACY_LOSS: f64 = 1.0;
/// Two inputs are equivalent if their accuracies differ by less than this, in percentage points,
/// and their losses by noise only.
const MAX_ACCURACY_DIFFERENCE: f64 = 0.5;

/// The maximum number of rows of the table that `Display` writes.
const MAX_ROWS: usize = 12;

/// The result of one combination of settings.
#[derive(Debug)]
pub struct Trial {
    /// The settings.
    pub config: ModelConfig,
    /// The number of images.
    pub samples: i64,
    /// Accuracy in percent.
    pub accuracy: f64,
    /// Mean softmax cross-entropy, in nats.
    pub loss: f64,
    /// The loss of each image: (N), float64.
    losses: Tensor,
}

/// The results of all combinations.
#[derive(Debug)]
pub struct Detection {
    /// The settings that were tried again, the lowest loss first.
    pub finalists: Vec<Trial>,
    /// The other settings, the lowest loss first.
    pub others: Vec<Trial>,
}

impl Detection {
    /// Tries all activations, poolings, normalisations and inputs that fit the weights, on the
    /// first images of `data`, which should be the training images. Settings in `known`, and those
    /// that the file states, are kept.
    ///
    /// # Errors
    /// If the weights are those of the original network, no settings fit, or libtorch reports an
    /// error.
    pub fn run(weights: &Weights, known: &ModelOptions, data: &Dataset) -> Result<Self> {
        if weights.config.network == Network::Original {
            return Err(Error::config(
                "the network of 1998 has nothing to detect: its settings are the paper's"
                    .to_owned(),
            ));
        }
        let sample = data.first(FIRST_SAMPLES);
        let mut trials = Vec::new();
        let all = settings(&weights.config, &known_settings(weights, known));
        if all.is_empty() {
            let size = weights.config.input.size();
            return Err(Error::config(format!(
                "input: these weights are of a network that takes {size}x{size} pixels"
            )));
        }
        for config in all {
            trials.push(Trial::new(weights, config, &sample)?);
        }
        trials.sort_by(|a, b| a.loss.total_cmp(&b.loss));
        let close = |trial: &Trial| trials[0].distance(trial) <= MAX_DISTANCE;
        let count = trials.iter().take(MAX_FINALISTS).take_while(|trial| close(trial)).count();
        let others = trials.split_off(count.max(1));
        let sample = data.first(FINAL_SAMPLES);
        let again = |trial: Trial| Trial::new(weights, trial.config, &sample);
        let finalists = trials.into_iter().map(again);
        let mut finalists = finalists.collect::<Result<Vec<_>>>()?;
        finalists.sort_by(|a, b| a.loss.total_cmp(&b.loss));
        Ok(Self { finalists, others })
    }

    /// Returns the best settings, and the second best if they are nearly as good.
    ///
    /// The best settings have the lowest loss, which is the negative log-likelihood of the labels.
    /// Their accuracy must be at least 50 %. Other settings of the layers are nearly as good if
    /// their loss is higher by noise only, or their accuracy is higher.
    ///
    /// # Errors
    /// If no settings fit, or more than one other combination is nearly as good.
    pub fn best(&self) -> Result<(&ModelConfig, Option<&Trial>)> {
        let [best, others @ ..] = self.finalists.as_slice() else {
            unreachable!("the lowest loss is always tried again")
        };
        let refuse = |reason: String| {
            Err(Error::config(format!(
                "no settings stand out: {reason}; give them by --activation, --pooling, --input, \
                 --mean and --std, or name the training data by --data"
            )))
        };
        if !(best.loss.is_finite() && best.accuracy >= MIN_ACCURACY) {
            return refuse(format!(
                "the best, {}, have an accuracy of only {:.1} %",
                best.config, best.accuracy
            ));
        }
        let mut same = vec![best];
        let mut ties: Vec<&Trial> = Vec::new();
        for other in others {
            if best.is_equivalent(other) {
                same.push(other);
            } else if best.distance(other) < MIN_DISTANCE
                || other.accuracy > best.accuracy + MAX_ACCURACY_LOSS
            {
                ties.push(other);
            }
        }
        let kind = |trial: &Trial| layer_settings(&trial.config);
        if let Some(second) = ties.iter().find(|trial| kind(trial) != kind(ties[0])) {
            return refuse(format!(
                "{} has an accuracy of {:.1} % with a loss of {:.4}, {} {:.1} % with {:.4}, and {} \
                 {:.1} % with {:.4}",
                best.config,
                best.accuracy,
                best.loss,
                ties[0].config,
                ties[0].accuracy,
                ties[0].loss,
                second.config,
                second.accuracy,
                second.loss
            ));
        }
        // Padding before and after normalisation are hard to distinguish: the usual one is chosen.
        let usual = ModelConfig { input: Input::Padded, ..best.config.clone() };
        let twin = same
            .iter()
            .find(|trial| best.config.input == Input::ZeroPadded && trial.config == usual);
        Ok((&twin.unwrap_or(&best).config, ties.first().copied()))
    }

    /// Returns the other inputs whose results differ from the best by noise only.
    pub fn equivalent(&self, chosen: &ModelConfig) -> Vec<&ModelConfig> {
        let best = &self.finalists[0];
        let same = self.finalists.iter().filter(|trial| {
            trial.config != *chosen && (trial.config == best.config || best.is_equivalent(trial))
        });
        same.map(|trial| &trial.config).collect()
    }
}

/// The settings of the layers that are compared.
fn layer_settings(config: &ModelConfig) -> (Activation, Pooling, LayerOrder, HiddenActivation) {
    (config.activation, config.pooling, config.layer_order, config.hidden_activation)
}

/// The settings that need no trial: the user's, otherwise the file's.
fn known_settings(weights: &Weights, given: &ModelOptions) -> ModelOptions {
    let file = match weights.provenance {
        Provenance::Known => ModelOptions::of(&weights.config),
        Provenance::Assumed(Hints { activation, pooling, input, .. }) => {
            ModelOptions { activation, pooling, input, ..ModelOptions::default() }
        }
        _ => ModelOptions::default(),
    };
    ModelOptions {
        activation: given.activation.or(file.activation),
        pooling: given.pooling.or(file.pooling),
        layer_order: given.layer_order.or(file.layer_order),
        hidden_activation: given.hidden_activation.or(file.hidden_activation),
        input: given.input.or(file.input),
        mean: given.mean.or(file.mean),
        std: given.std.or(file.std),
    }
}

/// Returns all combinations with the known settings that fit the size of the network's input.
fn settings(config: &ModelConfig, known: &ModelOptions) -> Vec<ModelConfig> {
    /// Returns the known value, or all values if it is unknown.
    fn choices<T: Choice>(known: Option<T>) -> Vec<T> {
        let all = || T::CHOICES.iter().map(|(value, ..)| *value).collect();
        known.map_or_else(all, |known| vec![known])
    }
    let mut normalisations: Vec<(f64, f64)> = NORMALISATIONS
        .map(|(mean, std)| (known.mean.unwrap_or(mean), known.std.unwrap_or(std)))
        .to_vec();
    normalisations.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    normalisations.dedup();
    let mut forms = Vec::new();
    for activation in choices(known.activation) {
        for pooling in choices(known.pooling) {
            for layer_order in choices(known.layer_order) {
                // Max pooling and a monotonic activation can be exchanged.
                let exchangeable = pooling == Pooling::Max && known.layer_order.is_none();
                if exchangeable && layer_order == LayerOrder::PoolingFirst {
                    continue;
                }
                for hidden_activation in choices(known.hidden_activation) {
                    forms.push((activation, pooling, layer_order, hidden_activation));
                }
            }
        }
    }
    let mut settings = Vec::new();
    for input in choices(known.input) {
        for &(mean, std) in &normalisations {
            // With a mean of 0 both paddings are the same.
            let twice = input == Input::ZeroPadded && mean == 0.0 && known.input.is_none();
            if twice || input.size() != config.input.size() {
                continue;
            }
            for &(activation, pooling, layer_order, hidden_activation) in &forms {
                settings.push(ModelConfig {
                    activation,
                    pooling,
                    layer_order,
                    hidden_activation,
                    input,
                    mean,
                    std,
                    ..config.clone()
                });
            }
        }
    }
    settings
}

impl Trial {
    fn new(weights: &Weights, config: ModelConfig, data: &Dataset) -> Result<Self> {
        let model = LeNet5::with_config(weights, &config, Device::Cpu)?;
        let forward = |images: &Tensor| Ok(model.forward(images));
        let logits = logits(&forward, data, &config)?.to_kind(Kind::Double);
        let labels = data.labels();
        let losses =
            logits.f_cross_entropy_loss(labels, None::<Tensor>, Reduction::None, -100, 0.0)?;
        let right = logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64).int64_value(&[]);
        Ok(Self {
            config,
            samples: data.len(),
            accuracy: 100.0 * right as f64 / data.len() as f64,
            // A loss that is not finite sorts last.
            loss: Some(losses.mean(Kind::Double).double_value(&[]))
                .filter(|loss| loss.is_finite())
                .unwrap_or(f64::INFINITY),
            losses,
        })
    }

    /// Returns by how many standard errors the mean loss of `other` exceeds this one's, for the
    /// same images.
    fn distance(&self, other: &Self) -> f64 {
        let differences = &other.losses - &self.losses;
        let mean = differences.mean(Kind::Double).double_value(&[]);
        let error = differences.std(true).double_value(&[]) / (differences.numel() as f64).sqrt();
        mean / error.max(f64::MIN_POSITIVE)
    }

    /// Returns whether another input (its form, mean or std) makes no difference except for noise.
    fn is_equivalent(&self, other: &Self) -> bool {
        layer_settings(&other.config) == layer_settings(&self.config)
            && (self.accuracy - other.accuracy).abs() < MAX_ACCURACY_DIFFERENCE
            && self.distance(other) < MIN_DISTANCE
    }
}

/// Writes the table of the best combinations.
impl fmt::Display for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.finalists.len() + self.others.len();
        let plural = if count == 1 { "" } else { "s" };
        writeln!(f, "{count} setting{plural} tried on training images")?;
        writeln!(f, "images  accuracy %      loss  settings")?;
        let rows = self.finalists.iter().chain(&self.others).take(MAX_ROWS);
        for Trial { config, samples, accuracy, loss, .. } in rows {
            writeln!(f, "{samples:>6}  {accuracy:>10.2} {loss:>9.4}  {config}")?;
        }
        match count.saturating_sub(MAX_ROWS) {
            0 => Ok(()),
            more => writeln!(f, "        and {more} with a higher loss"),
        }
    }
}
