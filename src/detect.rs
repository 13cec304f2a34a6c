//! Finds the settings that weights were trained with, which leave no trace in a file: by trial.

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

/// Means and standard deviations in use: pixels 0..1; MNIST's own; -1..1; pixels 0..255.
pub const NORMALISATIONS: [(f64, f64); 4] =
    [(0.0, 1.0), (0.1307, 0.3081), (0.5, 0.5), (0.0, 1.0 / 255.0)];

/// Training images on which all settings are tried: of the training part, since its loss is what
/// training made small.
const FIRST_SAMPLES: i64 = 500;
/// Training images on which those are tried again that may be the best.
const FINAL_SAMPLES: i64 = 10_000;
/// The most that are tried again.
const MAX_FINALISTS: usize = 8;
/// By how many standard errors a mean loss may lie above the lowest one, and be tried again.
const MAX_DISTANCE: f64 = 6.0;

/// The best settings have to read as many images, in percent.
const MIN_ACCURACY: f64 = 50.0;
/// By how many standard errors the others' mean losses have to lie above the best's.
const MIN_DISTANCE: f64 = 3.0;
/// How many percent fewer images than others the best settings may read: the loss decides.
const MAX_WORSE: f64 = 1.0;
/// Inputs make no difference where accuracies differ by less, in percent, and losses by noise.
const SAME: f64 = 0.5;

/// Rows of the table that `Display` draws.
const MAX_ROWS: usize = 12;

/// One combination of settings, tried.
#[derive(Debug)]
pub struct Trial {
    /// The settings.
    pub config: ModelConfig,
    /// The number of images.
    pub samples: i64,
    /// Images read right, in percent.
    pub accuracy: f64,
    /// Mean softmax cross-entropy, in nats.
    pub loss: f64,
    /// Of each image: (N), float64.
    losses: Tensor,
}

/// All combinations.
#[derive(Debug)]
pub struct Detection {
    /// Those that may be the best, the lowest loss first.
    pub finalists: Vec<Trial>,
    /// The others, the lowest loss first.
    pub others: Vec<Trial>,
}

impl Detection {
    /// Tries all activations, poolings, normalisations and forms of input that fit the weights, on the
    /// first images of `data`, which should be those of training. Settings in `known`, and those that the file
    /// tells, are kept as they are.
    ///
    /// # Errors
    /// Where libtorch refuses.
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

    /// The likeliest settings, and the runner-up where one other activation or pooling is nearly as likely.
    ///
    /// The likeliest are those of the lowest loss, which is the negative logarithm of the likelihood of the
    /// labels. They have to read half of the images right. Another combination is nearly as likely where its
    /// loss is higher by noise only, or where it reads more images right.
    ///
    /// # Errors
    /// Says that no settings fit, or which are too many that fit as well.
    pub fn best(&self) -> Result<(&ModelConfig, Option<&Trial>)> {
        let [best, others @ ..] = self.finalists.as_slice() else {
            unreachable!("the lowest loss is always tried again")
        };
        let refuse = |reason: String| {
            Err(Error::config(format!(
                "no settings stand out: {reason}; give them by --activation, --pooling, --input, \
                 --mean and --std, or name the data of training by --data"
            )))
        };
        if !(best.loss.is_finite() && best.accuracy >= MIN_ACCURACY) {
            return refuse(format!(
                "the best, {}, read only {:.1} % of the images",
                best.config, best.accuracy
            ));
        }
        let mut same = vec![best];
        let mut ties: Vec<&Trial> = Vec::new();
        for other in others {
            if best.is_equivalent(other) {
                same.push(other);
            } else if best.distance(other) < MIN_DISTANCE
                || other.accuracy > best.accuracy + MAX_WORSE
            {
                ties.push(other);
            }
        }
        let kind = |trial: &Trial| layer_settings(&trial.config);
        if let Some(second) = ties.iter().find(|trial| kind(trial) != kind(ties[0])) {
            return refuse(format!(
                "{} reads {:.1} % of the images with a loss of {:.4}, {} {:.1} % with {:.4}, and {} \
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
        // Padding before or after the normalisation is told apart with difficulty: the usual one.
        let usual = ModelConfig { input: Input::Padded, ..best.config.clone() };
        let twin = same
            .iter()
            .find(|trial| best.config.input == Input::ZeroPadded && trial.config == usual);
        Ok((&twin.unwrap_or(&best).config, ties.first().copied()))
    }
}

impl Detection {
    /// Other inputs that do as well as the best, beyond noise.
    pub fn equivalent(&self, chosen: &ModelConfig) -> Vec<&ModelConfig> {
        let best = &self.finalists[0];
        let same = self.finalists.iter().filter(|trial| {
            trial.config != *chosen && (trial.config == best.config || best.is_equivalent(trial))
        });
        same.map(|trial| &trial.config).collect()
    }
}

/// The settings of the layers.
fn layer_settings(config: &ModelConfig) -> (Activation, Pooling, LayerOrder, HiddenActivation) {
    (config.activation, config.pooling, config.layer_order, config.hidden_activation)
}

/// The settings that need no trial: the user's, then the file's.
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

/// All combinations with the known settings that fit the size of the network's input.
fn settings(config: &ModelConfig, known: &ModelOptions) -> Vec<ModelConfig> {
    /// The known value, or all that there are.
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
                // The maximum and an activation, which never falls, can be exchanged.
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
            // With a mean of 0 both paddings are one.
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
            // Never the best, and never before it in order.
            loss: Some(losses.mean(Kind::Double).double_value(&[]))
                .filter(|loss| loss.is_finite())
                .unwrap_or(f64::INFINITY),
            losses,
        })
    }

    /// By how many standard errors `other`'s mean loss is above this one's, the images being the same.
    fn distance(&self, other: &Self) -> f64 {
        let differences = &other.losses - &self.losses;
        let mean = differences.mean(Kind::Double).double_value(&[]);
        let error = differences.std(true).double_value(&[]) / (differences.numel() as f64).sqrt();
        mean / error.max(f64::MIN_POSITIVE)
    }

    /// Whether another input (its form, mean or std) makes no difference beyond noise.
    fn is_equivalent(&self, other: &Self) -> bool {
        layer_settings(&other.config) == layer_settings(&self.config)
            && (self.accuracy - other.accuracy).abs() < SAME
            && self.distance(other) < MIN_DISTANCE
    }
}

/// The table of the best combinations.
impl fmt::Display for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.finalists.len() + self.others.len();
        writeln!(f, "{count} settings tried on training images")?;
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
