//! Finds the settings that weights were trained with, which leave no trace in a file: by trial.

use std::fmt;

use tch::nn::Module;
use tch::{Device, Kind, Reduction, Tensor};

use crate::data::{Dataset, to_input};
use crate::model::{Activation, Input, ModelConfig, Pooling};
use crate::weights::Weights;
use crate::{Error, Result};

/// Means and standard deviations in use: pixels 0..1; MNIST's own; -1..1; pixels 0..255.
pub const NORMALISATIONS: [(f64, f64); 4] =
    [(0.0, 1.0), (0.1307, 0.3081), (0.5, 0.5), (0.0, 1.0 / 255.0)];

/// The images that are tried: of the training part, since its loss is what training made small.
pub const SAMPLES: i64 = 2000;

/// The best settings have to read as many images, in percent.
const MIN_ACCURACY: f64 = 50.0;

/// How many standard errors the mean loss of the next best settings has to lie above the best's.
const MIN_DISTANCE: f64 = 4.0;

/// How many percent fewer images than others the best settings may read: the loss decides.
const MAX_WORSE: f64 = 1.0;

/// Rows of the table that `Display` draws.
const MAX_ROWS: usize = 12;

/// One combination of settings, tried.
#[derive(Debug)]
pub struct Trial {
    /// The settings.
    pub config: ModelConfig,
    /// Images read right, in percent.
    pub accuracy: f64,
    /// Mean softmax cross-entropy, in nats.
    pub loss: f64,
    /// Of each image: (N), float64.
    losses: Tensor,
}

/// All combinations, the lowest loss first.
#[derive(Debug)]
pub struct Detection {
    /// The number of images.
    pub samples: i64,
    /// The combinations.
    pub trials: Vec<Trial>,
}

impl Detection {
    /// Tries all activations, poolings, normalisations and forms of input that fit the weights, on the
    /// first [`SAMPLES`] images of `data`.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn run(weights: &Weights, data: &Dataset) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let data = data.first(SAMPLES);
        let mut trials = Vec::new();
        for input_config in inputs(&weights.config) {
            let images = to_input(data.images(), &input_config);
            for activation in
                [Activation::Tanh, Activation::Relu, Activation::Sigmoid, Activation::ScaledTanh]
            {
                for pooling in [Pooling::Avg, Pooling::Max] {
                    let config = ModelConfig { activation, pooling, ..input_config.clone() };
                    let (_store, model) = weights.build_as(&config, Device::Cpu)?;
                    let logits = model.forward(&images).to_kind(Kind::Double);
                    trials.push(Trial::new(config, &logits, data.labels())?);
                }
            }
        }
        trials.sort_by(|a, b| a.loss.total_cmp(&b.loss));
        Ok(Self { samples: data.len(), trials })
    }

    /// The best settings, where they stand out: half of the images right, no other settings much better
    /// in accuracy, and all others' losses clearly above.
    ///
    /// # Errors
    /// Says which settings are too close, or that none fit.
    pub fn best(&self) -> Result<&ModelConfig> {
        let [best, others @ ..] = self.trials.as_slice() else {
            unreachable!("there are always settings to try")
        };
        let refuse = |reason: String| {
            Err(Error::Config(format!(
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
        for other in others {
            let (distance, better) = (best.distance(other), other.accuracy - best.accuracy);
            if distance < MIN_DISTANCE || better > MAX_WORSE {
                return refuse(format!(
                    "{} reads {:.1} % of the images with a loss of {:.4}, and {} {:.1} % with {:.4}",
                    best.config, best.accuracy, best.loss, other.config, other.accuracy, other.loss
                ));
            }
        }
        Ok(&best.config)
    }
}

/// The forms of input that fit the size of the network's input, with all normalisations.
fn inputs(config: &ModelConfig) -> Vec<ModelConfig> {
    let forms = [Input::Padded, Input::ZeroPadded, Input::Resized, Input::Unpadded];
    let mut inputs = Vec::new();
    for input in forms.into_iter().filter(|input| input.size() == config.input.size()) {
        for (mean, std) in NORMALISATIONS {
            // With a mean of 0 both paddings are one.
            if !(input == Input::ZeroPadded && mean == 0.0) {
                inputs.push(ModelConfig { input, mean, std, ..config.clone() });
            }
        }
    }
    inputs
}

impl Trial {
    fn new(config: ModelConfig, logits: &Tensor, labels: &Tensor) -> Result<Self> {
        let losses =
            logits.f_cross_entropy_loss(labels, None::<Tensor>, Reduction::None, -100, 0.0)?;
        let right = logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64).int64_value(&[]);
        Ok(Self {
            config,
            accuracy: 100.0 * right as f64 / labels.size()[0] as f64,
            loss: losses.mean(Kind::Double).double_value(&[]),
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
}

/// The table of the best combinations.
impl fmt::Display for Detection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} settings tried on {} training images", self.trials.len(), self.samples)?;
        writeln!(f, "accuracy %      loss  settings")?;
        for Trial { config, accuracy, loss, .. } in self.trials.iter().take(MAX_ROWS) {
            writeln!(f, "{accuracy:>10.2} {loss:>9.4}  {config}")?;
        }
        match self.trials.len() - self.trials.len().min(MAX_ROWS) {
            0 => Ok(()),
            more => writeln!(f, "           and {more} with a higher loss"),
        }
    }
}
