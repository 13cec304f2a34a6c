//! Evaluates a network on a data set: error, loss, confusion matrix, rejection.

use std::fmt;

use serde::Serialize;
use tch::nn::Module;
use tch::{Device, Kind, Reduction, Tensor};

use crate::data::Dataset;
use crate::engine;
use crate::model::{ModelConfig, Network};
use crate::weights::Weights;
use crate::{Error, Result};

/// The number of images per batch. The last bits of logits depend on it, so the Python reference
/// uses it too.
pub const BATCH_SIZE: i64 = 1000;

/// Returns the logits of all images of a data set: (N, classes), on the CPU. `forward` computes the
/// logits of a batch of images, as [`Dataset::batch`] returns it.
///
/// # Errors
/// The errors of `forward`.
pub fn logits(
    forward: &dyn Fn(&Tensor) -> Result<Tensor>,
    data: &Dataset,
    config: &ModelConfig,
) -> Result<Tensor> {
    let _no_grad = tch::no_grad_guard();
    let indices = Tensor::arange(data.len(), (Kind::Int64, Device::Cpu));
    let batches = indices
        .split(BATCH_SIZE, 0)
        .into_iter()
        .map(|indices| Ok(forward(&data.batch(&indices, config).0)?.to_device(Device::Cpu)));
    Ok(Tensor::f_cat(&batches.collect::<Result<Vec<_>>>()?, 0)?)
}

/// Returns the logits of all images of a data set: (N, classes), computed on the CPU by the core's
/// SIMD kernels.
///
/// # Errors
/// If the kernels do not support the network; the message states the reason.
pub fn kernel_logits(weights: &Weights, data: &Dataset) -> Result<Tensor> {
    let logits = match weights.config.network {
        Network::Modern => engine::fused_logits(weights, data)?,
        Network::Original => engine::sdlm_logits(weights, data)?,
    };
    let shape = [data.len(), weights.config.classes as i64];
    Ok(Tensor::f_from_slice(&logits)?.f_reshape(shape)?)
}

/// The results of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Number of images.
    pub samples: i64,
    /// Misclassified images.
    pub errors: i64,
    /// Misclassified images in percent.
    pub error_percent: f64,
    /// Mean softmax cross-entropy, in nats.
    pub loss: f64,
    /// Numbers of images by label (row) and prediction (column).
    pub confusion: Vec<Vec<i64>>,
    /// Images in percent that must be rejected for 0.5 % error among the others, as in the paper's
    /// Fig. 10: see [`Rejection`].
    pub rejected_percent_for_half_percent_error: f64,
    /// Images that must be rejected for an error of 1 % among the others, in percent.
    pub rejected_percent_for_one_percent_error: f64,
}

/// The error as a function of the number of rejected images. Images with the smallest gap between
/// their two largest logits are rejected first.
///
/// Source: LeCun et al. 1998, section III.C, "the difference between the scores of the top two
/// classes".
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The number of images.
    samples: usize,
    /// The number of errors among the n images with the largest gaps, at index n.
    errors: Vec<usize>,
}

impl Rejection {
    /// Computes the curve from logits (N, classes) and labels (N), both on the CPU.
    ///
    /// # Errors
    /// If libtorch reports an error.
    pub fn new(logits: &Tensor, labels: &Tensor) -> Result<Self> {
        let (best, classes) = logits.f_topk(2, 1, true, true)?;
        let gaps = best.select(1, 0) - best.select(1, 1);
        let order = gaps.argsort(0, true);
        let wrong = classes.select(1, 0).not_equal_tensor(labels).index_select(0, &order);
        let errors = std::iter::once(0).chain(Vec::<bool>::try_from(wrong)?.into_iter().scan(
            0,
            |errors, wrong| {
                *errors += usize::from(wrong);
                Some(*errors)
            },
        ));
        Ok(Self { samples: labels.size()[0] as usize, errors: errors.collect() })
    }

    /// Returns the rejected images and the error among the others, both in percent, from no image
    /// rejected to all but one.
    pub fn curve(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        (1..=self.samples).rev().map(|accepted| {
            let rejected = (self.samples - accepted) as f64 / self.samples as f64;
            (100.0 * rejected, 100.0 * self.errors[accepted] as f64 / accepted as f64)
        })
    }

    /// Returns the smallest number of images, in percent, that must be rejected for this error
    /// among the others, in percent.
    pub fn rejected_for(&self, error_percent: f64) -> f64 {
        let mut curve = self.curve();
        curve.find(|(_, error)| *error <= error_percent).map_or(100.0, |(rejected, _)| rejected)
    }
}

/// A misclassified image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Misclassified {
    /// The index of the image in the data set, from 0.
    pub index: i64,
    /// The label of the image.
    pub label: i64,
    /// The class that the network predicts.
    pub prediction: i64,
}

impl Misclassified {
    /// Finds the misclassified images from logits (N, classes) and labels (N), both on the CPU.
    ///
    /// # Errors
    /// If libtorch reports an error.
    pub fn all(logits: &Tensor, labels: &Tensor) -> Result<Vec<Self>> {
        let predictions = Vec::<i64>::try_from(logits.f_argmax(1, false)?)?;
        let labels = Vec::<i64>::try_from(labels)?;
        Ok((0..)
            .zip(labels.into_iter().zip(predictions))
            .filter(|(_, (label, prediction))| label != prediction)
            .map(|(index, (label, prediction))| Self { index, label, prediction })
            .collect())
    }

    /// Returns the 82 test images of MNIST that the paper's network misclassified: its Fig. 8.
    pub fn in_paper() -> Vec<Self> {
        let lines = include_str!("../data/misread_1998.csv").lines().skip(1);
        lines
            .map(|line| {
                let mut numbers = line.split(',').map(|number| number.parse().expect("a number"));
                let mut next = || numbers.next().expect("three numbers");
                Self { index: next(), label: next(), prediction: next() }
            })
            .collect()
    }
}

impl Evaluation {
    /// Evaluates logits (N, classes) and labels (N), both on the CPU.
    ///
    /// # Errors
    /// If the shapes do not fit, or the loss is not finite.
    pub fn new(logits: &Tensor, labels: &Tensor) -> Result<Self> {
        let classes = logits.size2()?.1;
        let samples = labels.size1()?;
        if logits.size() != [samples, classes] {
            return Err(Error::config(format!(
                "expected logits for {samples} images, found {:?}",
                logits.size()
            )));
        }
        let labels = &labels.f_to_device(logits.device())?;
        let predictions = logits.argmax(1, false);
        let cells =
            (labels * classes + predictions).f_bincount(None::<Tensor>, classes * classes)?;
        let confusion: Vec<Vec<i64>> =
            Vec::<Vec<i64>>::try_from(cells.reshape([classes, classes]))?;
        let right: i64 = (0..confusion.len()).map(|i| confusion[i][i]).sum();
        let loss = logits
            .to_kind(Kind::Double)
            .f_cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?
            .f_double_value(&[])?;
        if !loss.is_finite() {
            return Err(Error::config(format!(
                "the network's loss is {loss}: its weights are too large, or not for this network"
            )));
        }
        let errors = samples - right;
        let error_percent = 100.0 * errors as f64 / samples as f64;
        let rejection = Rejection::new(logits, labels)?;
        Ok(Self {
            samples,
            errors,
            error_percent,
            loss,
            confusion,
            rejected_percent_for_half_percent_error: rejection.rejected_for(0.5),
            rejected_percent_for_one_percent_error: rejection.rejected_for(1.0),
        })
    }

    /// Evaluates a network on a data set on the same device.
    ///
    /// # Errors
    /// If libtorch reports an error.
    pub fn of(model: &dyn Module, data: &Dataset, config: &ModelConfig) -> Result<Self> {
        let forward = |images: &Tensor| Ok(model.forward(images));
        Self::new(&logits(&forward, data, config)?, &data.labels().to_device(Device::Cpu))
    }
}

/// Writes the table of classes and the confusion matrix as text.
impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes = self.confusion.len();
        let percent = |part: i64, whole: i64| match whole {
            0 => "-".to_owned(),
            _ => format!("{:.2}", 100.0 * part as f64 / whole as f64),
        };
        writeln!(
            f,
            "{:>5} {:>8} {:>8} {:>8} {:>10} {:>10}",
            "class", "samples", "errors", "error %", "recall %", "precision %"
        )?;
        for class in 0..classes {
            let row = &self.confusion[class];
            let samples: i64 = row.iter().sum();
            let predicted: i64 = self.confusion.iter().map(|row| row[class]).sum();
            let right = row[class];
            writeln!(
                f,
                "{class:>5} {samples:>8} {:>8} {:>8} {:>10} {:>11}",
                samples - right,
                percent(samples - right, samples),
                percent(right, samples),
                percent(right, predicted),
            )?;
        }
        writeln!(f, "\nconfusion matrix: label down, prediction across")?;
        write!(f, "{:>5}", "")?;
        (0..classes).try_for_each(|class| write!(f, " {class:>5}"))?;
        writeln!(f)?;
        for (class, row) in self.confusion.iter().enumerate() {
            write!(f, "{class:>5}")?;
            for count in row {
                match count {
                    0 => write!(f, " {:>5}", "."),
                    _ => write!(f, " {count:>5}"),
                }?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "\n{} of {} wrong: error {:.2} %, loss {:.4}; {:.2} % rejected for 0.5 % error",
            self.errors,
            self.samples,
            self.error_percent,
            self.loss,
            self.rejected_percent_for_half_percent_error
        )
    }
}
