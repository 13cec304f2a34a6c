//! MNIST and other data sets in its format: images and labels as IDX files.

use std::io::Read;
use std::path::{Path, PathBuf};

use lenet5_core::data::idx::{self, IdxArray};
use lenet5_core::data::resize;
use lenet5_core::training::Distortions;
use lenet5_core::{files, foreign};
use rayon::prelude::*;
use tch::{Device, IndexOp, Kind, Tensor};

use super::distort::{self, DistortionBatch};
use crate::model::{Input, ModelConfig};
use crate::{Error, Result};

/// A part of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// 60,000 images in MNIST.
    Train,
    /// 10,000 images in MNIST.
    #[default]
    Test,
}

lenet5_core::choices!(Split {
    Train = "train": "60,000 images in MNIST",
    Test = "test": "10,000 images in MNIST",
});

/// A data set of images and labels.
#[derive(Debug)]
pub struct Dataset {
    /// The images: (N, H, W), uint8, 0 for background to 255 for ink.
    images: Tensor,
    /// The labels: (N), int64.
    labels: Tensor,
}

impl Dataset {
    /// Reads a data set from `{train|t10k}-images-idx3-ubyte` and `{train|t10k}-labels-idx1-ubyte`.
    ///
    /// The files lie in `folder`, in `folder/raw`, or in a folder `raw` one level deeper, such as
    /// `MNIST/raw`. They may be compressed with gzip, with or without the suffix `.gz`. Names such
    /// as `train-images.idx3-ubyte` are found too. EMNIST's names
    /// (`emnist-letters-train-images-idx3-ubyte`) have a prefix, which may be any if only one file
    /// matches.
    ///
    /// # Errors
    /// If a file is missing or damaged, the numbers of images and labels differ, there are no
    /// images, the images are not 28x28 or 32x32, or a label is not below `classes`.
    pub fn read(folder: &Path, split: Split, classes: usize) -> Result<Self> {
        let images_path = find(folder, split, "images-idx3-ubyte")?;
        let labels_path = find(folder, split, "labels-idx1-ubyte")?;
        let (images, labels) = (idx::read(&images_path, 3)?, idx::read(&labels_path, 1)?);
        Self::new((&images_path, images), (&labels_path, labels), classes)
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
        let (images_path, labels_path) =
            (Path::new("embedded MNIST images"), Path::new("embedded MNIST labels"));
        let decode = |path, bytes, dimensions| {
            idx::decode(bytes, dimensions).map_err(|message| Error::file(path, message))
        };
        Self::new(
            (images_path, decode(images_path, images, 3)?),
            (labels_path, decode(labels_path, labels, 1)?),
            classes,
        )
    }

    /// Reads the data set in `folder`, or returns the embedded MNIST if `folder` is `None`.
    ///
    /// # Errors
    /// The errors of [`Dataset::read`] and [`Dataset::embedded`].
    pub fn open(folder: Option<&Path>, split: Split, classes: usize) -> Result<Self> {
        folder.map_or_else(
            || Self::embedded(split, classes),
            |folder| Self::read(folder, split, classes),
        )
    }

    fn new(
        (images_path, images): (&Path, IdxArray),
        (labels_path, labels): (&Path, IdxArray),
        classes: usize,
    ) -> Result<Self> {
        let [count, height, width] = images.dimensions[..] else {
            unreachable!("idx::read checks the number of dimensions")
        };
        if count == 0 {
            return Err(Error::file(images_path, "expected images, found none"));
        }
        if (height, width) != (28, 28) && (height, width) != (32, 32) {
            return Err(Error::file(
                images_path,
                format!("expected images of 28x28 or 32x32 pixels, found {height}x{width}"),
            ));
        }
        if labels.data.len() != count {
            return Err(Error::file(
                labels_path,
                format!(
                    "expected {count} labels, one for each image of {}, found {}",
                    files::shown(images_path),
                    labels.data.len()
                ),
            ));
        }
        if let Some((i, label)) =
            labels.data.iter().enumerate().find(|&(_, &l)| usize::from(l) >= classes)
        {
            let range = labels.data.iter().min().zip(labels.data.iter().max());
            let hint = match range.map(|(min, max)| (*min, usize::from(*max))) {
                // EMNIST's letters have labels from 1.
                Some((1, max)) if max == classes => format!(
                    "; here labels run from 1 to {max}: train --classes {}, whose class 0 stays empty",
                    max + 1
                ),
                Some((_, max)) => format!("; the largest is {max}: train --classes {}", max + 1),
                None => String::new(),
            };
            return Err(Error::file(
                labels_path,
                format!(
                    "expected labels from 0 to {}, found {label} at index {i}{hint}",
                    classes - 1
                ),
            ));
        }
        let size = [count as i64, height as i64, width as i64];
        Ok(Self {
            images: Tensor::f_from_data_size(&images.data, &size, Kind::Uint8)?,
            labels: Tensor::f_from_slice(&labels.data)?.to_kind(Kind::Int64),
        })
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

    /// Returns the first `count` samples.
    pub fn first(&self, count: i64) -> Self {
        let count = count.min(self.len());
        Self { images: self.images.i(..count), labels: self.labels.i(..count) }
    }

    /// Splits the data set into the first `count` samples and the others.
    pub fn split(&self, count: i64) -> (Self, Self) {
        let rest = Self { images: self.images.i(count..), labels: self.labels.i(count..) };
        (self.first(count), rest)
    }

    /// Copies the data set to a device, on which batches are then created: 47 MB for MNIST's 60,000
    /// images.
    pub fn to_device(&self, device: Device) -> Self {
        Self { images: self.images.to_device(device), labels: self.labels.to_device(device) }
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
        Ok(Self { images, labels: self.labels.shallow_clone() })
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

/// Finds the file for a part of the data set. `suffix` is `images-idx3-ubyte` or
/// `labels-idx1-ubyte`. The file may also lie in `raw` or `*/raw`, as torchvision arranges what it
/// downloads.
fn find(folder: &Path, split: Split, suffix: &str) -> Result<PathBuf> {
    // EMNIST's names have the form "emnist-digits-train-images-idx3-ubyte", with "test" for the
    // test part.
    let (wanted, alternative) = match split {
        Split::Train => (format!("train-{suffix}"), format!("-train-{suffix}")),
        Split::Test => (format!("t10k-{suffix}"), format!("-test-{suffix}")),
    };
    if folder.is_file() {
        let what = file_kind(folder).map_or_else(String::new, |what| format!(" ({what})"));
        let message = format!("expected a folder with the file {wanted}, found a file{what}");
        return Err(Error::file(folder, message));
    }
    let entries = sorted_entries(folder)?;
    let within = |path: &PathBuf| path.is_dir().then(|| path.join("raw"));
    let raw = std::iter::once(folder.join("raw")).chain(entries.iter().filter_map(within));
    if let Some(path) = find_in_folder(folder, &entries, &wanted, &alternative)? {
        return Ok(path);
    }
    let mut found = Vec::new();
    for raw in raw.filter(|raw| raw.is_dir()) {
        found.extend(find_in_folder(&raw, &sorted_entries(&raw)?, &wanted, &alternative)?);
    }
    match &found[..] {
        [path] => Ok(path.clone()),
        [] => Err(Error::file(
            folder,
            format!("expected {wanted} or {wanted}.gz, found {}", list_entries(&entries)),
        )),
        [first, second, ..] => Err(Error::file(
            folder,
            format!(
                "expected one data set, found {} and {}: name the folder of one of them",
                files::shown(first),
                files::shown(second)
            ),
        )),
    }
}

/// Finds the file of a folder that has the name `wanted`, or else the one that ends in
/// `alternative`. Some programs unpack to names with a dot, such as `train-images.idx3-ubyte`.
fn find_in_folder(
    folder: &Path,
    entries: &[PathBuf],
    wanted: &str,
    alternative: &str,
) -> Result<Option<PathBuf>> {
    let mut others = Vec::new();
    for path in entries.iter().filter(|path| path.is_file()) {
        let name = file_name(path).replace(".idx", "-idx");
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        if name == wanted {
            return Ok(Some(path.clone()));
        }
        if name.ends_with(alternative) && others.iter().all(|(other, _)| other != name) {
            others.push((name.to_owned(), path));
        }
    }
    match &others[..] {
        [] => Ok(None),
        [(_, path)] => Ok(Some(path.to_path_buf())),
        _ => Err(Error::file(
            folder,
            format!("expected one file *{alternative}, found {}", others.len()),
        )),
    }
}

/// Returns the entries of a folder, sorted by name.
fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder.read_dir().map_err(Error::io(folder))?;
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io(folder))?.path()));
    let mut paths = paths.collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    files::shown(Path::new(path.file_name().unwrap_or_default()))
}

/// Detects the format of a file from its content.
fn file_kind(path: &Path) -> Option<&'static str> {
    let mut start = Vec::new();
    let read = files::open(path).ok()?.take(foreign::START as u64).read_to_end(&mut start);
    let name = read.ok().and_then(|_| foreign::name(&start))?;
    // The part after the colon is a hint for the user.
    name.split(':').next()
}

/// Lists the entries of a folder for an error message: a few names with their formats, the number
/// of the others, and a hint if there are files of another data format.
fn list_entries(entries: &[PathBuf]) -> String {
    const MAX_SHOWN: usize = 6;
    const FORMATS: [(&str, &str); 10] = [
        (".csv", "CSV"),
        (".npz", "NumPy"),
        (".npy", "NumPy"),
        (".parquet", "Parquet"),
        (".h5", "HDF5"),
        (".tar", "tar"),
        (".tgz", "tar"),
        (".zip", "zip"),
        (".png", "pictures"),
        (".jpg", "pictures"),
    ];
    if entries.is_empty() {
        return "an empty folder".to_owned();
    }
    let shown = entries.iter().take(MAX_SHOWN).map(|path| match (path.is_dir(), file_kind(path)) {
        (true, _) => format!("\"{}/\"", file_name(path)),
        (false, Some(kind)) => format!("\"{}\" ({kind})", file_name(path)),
        (false, None) => format!("\"{}\"", file_name(path)),
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if let more @ 1.. = entries.len().saturating_sub(MAX_SHOWN) {
        text += &format!(" and {more} more");
    }
    let mut names = entries.iter().map(|path| file_name(path).to_lowercase());
    let form = names.find_map(|name| {
        let name = name.trim_end_matches(".gz");
        FORMATS.iter().find(|(suffix, _)| name.ends_with(suffix))
    });
    if let Some((_, form)) = form {
        text += &format!("; {form} is not read here: write the images as IDX files");
    }
    text
}
