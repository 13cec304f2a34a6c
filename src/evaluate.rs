//! How well a network reads a data set.

use std::fmt;

use serde::Serialize;
use tch::nn::Module;
use tch::{Device, Kind, Reduction, Tensor};

use crate::data::Dataset;
use crate::model::ModelConfig;
use crate::{Error, Result};

/// Images per batch. Logits depend on it in their last bits; the Python reference uses the same.
pub const BATCH_SIZE: i64 = 1000;

/// The logits of all images of a data set: (N, classes), on the CPU. `forward` makes them of a batch
/// of images, as [`Dataset::batch`] gives it.
///
/// # Errors
/// As `forward` has them.
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

/// Errors, loss and confusions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Number of images.
    pub samples: i64,
    /// Images whose largest logit is not that of their label.
    pub errors: i64,
    /// The same in percent.
    pub error_percent: f64,
    /// Mean softmax cross-entropy, in nats.
    pub loss: f64,
    /// Images by label (row) and answer (column).
    pub confusion: Vec<Vec<i64>>,
}

impl Evaluation {
    /// From logits (N, classes) and labels (N), both on the CPU.
    ///
    /// # Errors
    /// Where their shapes do not fit.
    pub fn new(logits: &Tensor, labels: &Tensor) -> Result<Self> {
        let classes = logits.size2()?.1;
        let samples = labels.size1()?;
        if logits.size() != [samples, classes] {
            return Err(Error::Config(format!(
                "expected logits for {samples} images, found {:?}",
                logits.size()
            )));
        }
        let answers = logits.argmax(1, false);
        let cells = (labels * classes + answers).f_bincount(None::<Tensor>, classes * classes)?;
        let confusion: Vec<Vec<i64>> =
            Vec::<Vec<i64>>::try_from(cells.reshape([classes, classes]))?;
        let right: i64 = (0..confusion.len()).map(|i| confusion[i][i]).sum();
        let loss = logits
            .to_kind(Kind::Double)
            .f_cross_entropy_loss(labels, None::<Tensor>, Reduction::Mean, -100, 0.0)?
            .f_double_value(&[])?;
        if !loss.is_finite() {
            return Err(Error::Config(format!(
                "the network's loss is {loss}: its weights are too large, or not for this network"
            )));
        }
        let errors = samples - right;
        let error_percent = 100.0 * errors as f64 / samples as f64;
        Ok(Self { samples, errors, error_percent, loss, confusion })
    }

    /// Evaluates a network on a data set, which lies on the network's device.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn of(model: &dyn Module, data: &Dataset, config: &ModelConfig) -> Result<Self> {
        let forward = |images: &Tensor| Ok(model.forward(images));
        Self::new(&logits(&forward, data, config)?, &data.labels().to_device(Device::Cpu))
    }
}

/// The table of classes and the confusion matrix, as text.
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
            let answered: i64 = self.confusion.iter().map(|row| row[class]).sum();
            let right = row[class];
            writeln!(
                f,
                "{class:>5} {samples:>8} {:>8} {:>8} {:>10} {:>11}",
                samples - right,
                percent(samples - right, samples),
                percent(right, samples),
                percent(right, answered),
            )?;
        }
        writeln!(f, "\nconfusion matrix: label down, answer across")?;
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
            "\n{} of {} wrong: error {:.2} %, loss {:.4}",
            self.errors, self.samples, self.error_percent, self.loss
        )
    }
}
