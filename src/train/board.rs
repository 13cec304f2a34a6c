//! A run's charts in TensorBoard.

use std::path::{Path, PathBuf};

use lenet5_core::Array;
use lenet5_core::weights::Weights;
use tch::Tensor;

use super::EpochMetrics;
use crate::Result;
use crate::charts::{self, Captioned};
use crate::data::Dataset;
use crate::evaluate::Misclassified;
use crate::tensorboard::{EventFile, Value};

/// The number of misclassified images in a row of a picture. TensorBoard shrinks the picture to a
/// width of about 350 pixels, at which the captions of so many images are still readable.
const COLUMNS: usize = 8;

/// The maximum number of misclassified images in a picture.
const MAX_SHOWN: usize = 64;

/// The charts of a run: the measurements and the weights of each epoch, and pictures of the images
/// that are misclassified after it. The step of an event is the number of the epoch.
pub struct Board {
    folder: PathBuf,
    /// The images on which the network is evaluated.
    test: Dataset,
    /// Their name in the charts.
    test_name: &'static str,
    /// The event file, which is created with its first event.
    file: Option<EventFile>,
}

impl Board {
    /// Creates the charts of the run in `folder`. `test` holds the images on which the network is
    /// evaluated; `validation` states whether they are held-out training images.
    pub fn new(folder: &Path, test: &Dataset, validation: bool) -> Self {
        Self {
            folder: folder.to_owned(),
            test: test.first(test.len()),
            test_name: if validation { "validation" } else { "test" },
            file: None,
        }
    }

    /// Writes the histograms of the initial weights, as step 0.
    ///
    /// # Errors
    /// If the event file cannot be written.
    pub fn write_weights(&mut self, weights: &Weights) -> Result<()> {
        self.write(0, histograms(weights))
    }

    /// Writes the charts of an epoch. `logits` are those of the images on which the network was
    /// evaluated: (N, classes), on the CPU.
    ///
    /// # Errors
    /// If the event file cannot be written.
    pub fn write_epoch(
        &mut self,
        metrics: &EpochMetrics,
        weights: &Weights,
        logits: &Tensor,
    ) -> Result<()> {
        let name = self.test_name;
        let mut values = vec![
            Value::scalar("loss/train", metrics.train_loss),
            Value::scalar(&format!("loss/{name}"), metrics.test_loss),
            Value::scalar(&format!("error/{name}"), metrics.test_error_percent),
            Value::scalar("training/learning rate", metrics.learning_rate),
            Value::scalar("training/images per second", metrics.images_per_second),
        ];
        values.extend(metrics.train_error_percent.map(|error| Value::scalar("error/train", error)));
        values.extend(histograms(weights));
        values.push(self.misclassified(logits)?);
        self.write(i64::from(metrics.epoch), values)
    }

    /// Draws the misclassified images, each with its label and its prediction.
    fn misclassified(&self, logits: &Tensor) -> Result<Value> {
        let (images, labels) = (self.test.images(), self.test.labels());
        let all = Misclassified::all(logits, labels)?;
        let shown = if all.len() > MAX_SHOWN { ", of which these are the first" } else { "" };
        let title = format!("{} of {} misclassified{shown}", all.len(), self.test.len());
        let pictures = all.iter().take(MAX_SHOWN);
        let pictures = pictures.map(|found| Captioned::misclassified(found, images, false));
        let picture = charts::captioned_picture(&title, &pictures.collect::<Vec<_>>(), COLUMNS)?;
        Value::picture("misclassified", &picture)
    }

    fn write(&mut self, step: i64, values: Vec<Value>) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(EventFile::create(&self.folder, step)?),
        };
        file.write(step, values)
    }
}

/// Returns the histogram of each parameter.
fn histograms(weights: &Weights) -> Vec<Value> {
    let histogram = |(name, array): &(String, Array)| {
        Value::histogram(&format!("parameters/{name}"), &array.to_f64())
    };
    weights.tensors.iter().map(histogram).collect()
}
