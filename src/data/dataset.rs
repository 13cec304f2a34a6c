//! MNIST and other data sets, as tensors.

use std::path::Path;

pub use lenet5_core::data::{Fit, Form, Split};
use lenet5_core::data::{LabelledImages, idx, resize};
use lenet5_core::training::Distortions;
use rayon::prelude::*;
use tch::{Device, IndexOp, Kind, Tensor};

use super::distort::{self, DistortionBatch};
use crate::model::{Input, ModelConfig};
use crate::{Error, Result};

/// A data set of images and labels.
#[derive(Debug)]
pub struct Dataset {
    /// The images: (N, H, W), uint8, 0 for background to 255 for ink.
    images: Tensor,
    /// The labels: (N), int64.
    labels: Tensor,
    form: Form,
    /// Whether there is another part, for training or for tests.
    has_parts: bool,
    /// What was changed or left out when the data set was read.
    notes: Vec<String>,
}

impl Dataset {
    /// Reads a data set: IDX files, CSV, npz, or a folder of pictures for each class. The content
    /// of the files determines the form. Of a data set that has no parts, all images are read.
    ///
    /// # Errors
    /// The errors of [`LabelledImages::read`].
    pub fn read(path: &Path, split: Split, classes: usize) -> Result<Self> {
        LabelledImages::read(path, split, classes, Fit::Auto)?.try_into()
    }

    /// Returns the copy of MNIST that is embedded in the program.
    ///
    /// # Errors
    /// If a label is not below `classes`.
    pub fn embedded(split: Split, classes: usize) -> Result<Self> {
        let (images, labels): (&[u8], &[u8]) = match split {
            Split::Train => (lenet5_mnist::TRAIN_IMAGES, lenet5_mnist::TRAIN_LABELS),
            Split::Test => (
                include_bytes!("../../data/mnist/t10k-images-idx3-ubyte.gz"),
                include_bytes!("../../data/mnist/t10k-labels-idx1-ubyte.gz"),
            ),
        };
        let decode = |bytes, dimensions| {
            let path = Path::new("embedded MNIST");
            idx::decode(bytes, dimensions).map_err(|message| Error::file(path, message))
        };
        let (images, labels) = (decode(images, 3)?, decode(labels, 1)?.data);
        let labels: Vec<u16> = labels.into_iter().map(u16::from).collect();
        if let Some(label) = labels.iter().find(|label| usize::from(**label) >= classes) {
            return Err(Error::config(format!(
                "embedded MNIST: expected labels below {classes}, found {label}; its ten classes need \
                 --classes 10 or more"
            )));
        }
        let side = images.dimensions[1];
        let images = images.data;
        LabelledImages { images, side, labels, form: Form::Idx, has_parts: true, notes: Vec::new() }
            .try_into()
    }

    /// Reads the data set at `path`, with images of other sizes fitted as `fit` states, or returns
    /// the embedded MNIST if `path` is `None`.
    ///
    /// # Errors
    /// The errors of [`Dataset::read`] and [`Dataset::embedded`].
    pub fn open(path: Option<&Path>, split: Split, classes: usize, fit: Fit) -> Result<Self> {
        match path {
            None => Self::embedded(split, classes),
            Some(path) => LabelledImages::read(path, split, classes, fit)?.try_into(),
        }
    }

    /// Returns the form of the files. The embedded MNIST is in IDX files.
    pub fn form(&self) -> Form {
        self.form
    }

    /// Returns whether the data set has a training and a test part. Otherwise these are all of its
    /// images.
    pub fn has_parts(&self) -> bool {
        self.has_parts
    }

    /// Returns what was changed or left out when the data set was read, in sentences for the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns this data set followed by `times` copies of another one.
    ///
    /// # Errors
    /// If the images have another size.
    pub(crate) fn and(&self, other: &Self, times: i64) -> Result<Self> {
        let all = |first: &Tensor, second: &Tensor| {
            let mut repeats = vec![1; second.dim()];
            repeats[0] = times;
            Tensor::f_cat(&[first, &second.f_repeat(&repeats)?], 0)
        };
        let images = all(&self.images, &other.images).map_err(|_| {
            let sides = [self, other].map(|data| data.images.size()[2]);
            Error::config(format!(
                "expected images of {} pixels on a side, found {}",
                sides[0], sides[1]
            ))
        })?;
        Ok(Self { images, labels: all(&self.labels, &other.labels)?, ..other.first(0) })
    }

    /// Returns the number of images.
    pub fn len(&self) -> i64 {
        self.labels.size()[0]
    }

    /// Returns whether the data set has no images; [`Dataset::read`] rejects an empty one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the images: (N, H, W), uint8.
    pub fn images(&self) -> &Tensor {
        &self.images
    }

    /// Returns the labels: (N), int64.
    pub fn labels(&self) -> &Tensor {
        &self.labels
    }

    /// Returns the data set with other images and labels.
    fn with(&self, images: Tensor, labels: Tensor) -> Self {
        Self { images, labels, notes: self.notes.clone(), ..*self }
    }

    /// Returns the first `count` samples.
    pub fn first(&self, count: i64) -> Self {
        let count = count.min(self.len());
        self.with(self.images.i(..count), self.labels.i(..count))
    }

    /// Splits the data set into the first `count` samples and the others.
    pub fn split(&self, count: i64) -> (Self, Self) {
        let rest = self.with(self.images.i(count..), self.labels.i(count..));
        (self.first(count), rest)
    }

    /// Copies the data set to a device, on which batches are then created: 47 MB for MNIST's 60,000
    /// images.
    pub fn to_device(&self, device: Device) -> Self {
        self.with(self.images.to_device(device), self.labels.to_device(device))
    }

    /// Resizes the images if the network takes them resized; otherwise they stay as they are. The
    /// result only needs to be padded or cropped.
    ///
    /// # Errors
    /// If libtorch reports an error.
    pub fn resized(&self, config: &ModelConfig) -> Result<Self> {
        let images = match config.input {
            Input::Resized => resize_images(&self.images, config.input.size())?,
            _ => self.images.shallow_clone(),
        };
        Ok(self.with(images, self.labels.shallow_clone()))
    }

    /// Returns the images as the network takes them, except for padding: resized if the network
    /// takes them resized, and without the border of 32x32 images if it takes 28x28. (N, S, S),
    /// uint8.
    ///
    /// # Errors
    /// If libtorch reports an error.
    pub(crate) fn unpadded(&self, config: &ModelConfig) -> Result<Tensor> {
        let images = self.resized(config)?.images;
        let images = match (config.input.size(), images.size()[2]) {
            (28, 32) => images.narrow(1, 2, 28).narrow(2, 2, 28),
            _ => images,
        };
        Ok(images.contiguous())
    }

    /// Returns the side of the images that [`Dataset::distorted`] distorts, in pixels.
    pub(crate) fn distorted_side(&self, config: &ModelConfig) -> usize {
        match config.input {
            Input::ZeroPadded => self.images.size()[2] as usize,
            input => input.size(),
        }
    }

    /// Returns a batch as [`Dataset::batch`] does, distorted by `distortions`, one for each image.
    pub(crate) fn distorted_by(
        &self,
        indices: &Tensor,
        config: &ModelConfig,
        distortions: &DistortionBatch,
    ) -> (Tensor, Tensor) {
        self.transformed(indices, config, &|pixels| distortions.apply(&pixels))
    }

    /// Returns a batch as [`Dataset::batch`] does, with the images distorted, differently for each
    /// seed, epoch and image.
    pub fn distorted(
        &self,
        indices: &Tensor,
        config: &ModelConfig,
        distortions: &Distortions,
        (seed, epoch): (i64, u32),
    ) -> (Tensor, Tensor) {
        let all = Vec::<i64>::try_from(indices.to_device(Device::Cpu)).expect("indices are int64");
        let distort = |pixels: Tensor| distort::apply(distortions, &pixels, seed, epoch, &all);
        self.transformed(indices, config, &distort)
    }

    /// Returns the samples at `indices` (int64, on any device): images (B, 1, S, S) as [`to_input`]
    /// converts them, and labels (B).
    pub fn batch(&self, indices: &Tensor, config: &ModelConfig) -> (Tensor, Tensor) {
        self.transformed(indices, config, &|pixels| pixels)
    }

    /// Returns a batch as [`Dataset::batch`] does, with the pixels transformed as in
    /// [`to_input_with`].
    fn transformed(
        &self,
        indices: &Tensor,
        config: &ModelConfig,
        transform: &dyn Fn(Tensor) -> Tensor,
    ) -> (Tensor, Tensor) {
        let indices = indices.to_device(self.labels.device());
        let images = self.images.index_select(0, &indices);
        (to_input_with(&images, config, transform), self.labels.index_select(0, &indices))
    }
}

impl TryFrom<LabelledImages> for Dataset {
    type Error = Error;

    fn try_from(data: LabelledImages) -> Result<Self> {
        let side = data.side as i64;
        let size = [data.labels.len() as i64, side, side];
        let labels: Vec<i64> = data.labels.iter().map(|label| i64::from(*label)).collect();
        Ok(Self {
            images: Tensor::f_from_data_size(&data.images, &size, Kind::Uint8)?,
            labels: Tensor::f_from_slice(&labels)?,
            form: data.form,
            has_parts: data.has_parts,
            notes: data.notes,
        })
    }
}

/// Converts bytes to the network's input: (N, H, W) uint8 -> (N, 1, S, S) float32, where S is
/// [`Input::size`]. Pixels of 0..1 are normalised: the mean is subtracted, and the result is
/// divided by the standard deviation. With a mean of 0 and a standard deviation of 1 they stay as
/// they are.
///
/// Images of 28x28 are padded, resized or left as they are, as the settings say. Images of 32x32
/// lose their border if the network takes 28x28.
pub fn to_input(images: &Tensor, config: &ModelConfig) -> Tensor {
    to_input_with(images, config, &|pixels| pixels)
}

/// Converts bytes as [`to_input`] does, and applies `transform` to the pixels before they are
/// normalised: (N, 1, H, W), 0..1, 0 for background. They are already padded, unless the settings
/// pad after normalising.
fn to_input_with(
    images: &Tensor,
    config: &ModelConfig,
    transform: &dyn Fn(Tensor) -> Tensor,
) -> Tensor {
    let size = config.input.size();
    let resized = match config.input {
        Input::Resized => resize_images(images, size).expect("images are bytes"),
        _ => images.shallow_clone(),
    };
    let padding = (size as i64 - resized.size()[2]) / 2;
    let pad = |x: Tensor| match padding {
        0 => x,
        p => x.constant_pad_nd([p, p, p, p]),
    };
    let normalise = |x: Tensor| match (config.mean, config.std) {
        (0.0, 1.0) => x,
        (mean, std) => (x - mean) / std,
    };
    let pixels = resized.unsqueeze(1).to_kind(Kind::Float) / 255.0;
    match config.input {
        Input::Padded | Input::Unpadded | Input::Resized => normalise(transform(pad(pixels))),
        Input::ZeroPadded => pad(normalise(transform(pixels))),
    }
}

/// Scales square images as [`resize`] does: (N, H, H) -> (N, `size`, `size`), uint8.
fn resize_images(images: &Tensor, size: usize) -> Result<Tensor> {
    let [count, from, _] = images.size()[..] else { unreachable!("images have three dimensions") };
    if from == size as i64 {
        return Ok(images.shallow_clone());
    }
    let bytes = Vec::<u8>::try_from(images.f_to_device(Device::Cpu)?.f_flatten(0, -1)?)?;
    let from = from as usize;
    let resized: Vec<u8> =
        bytes.par_chunks(from * from).flat_map_iter(|image| resize(image, from, size)).collect();
    let shape = [count, size as i64, size as i64];
    Ok(Tensor::f_from_data_size(&resized, &shape, Kind::Uint8)?.f_to_device(images.device())?)
}
