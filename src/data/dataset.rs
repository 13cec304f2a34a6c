//! MNIST, and any data set in its form: images and labels as IDX files.

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

/// One of the two parts of a data set.
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

/// Images and labels, as bytes.
#[derive(Debug)]
pub struct Dataset {
    /// (N, H, W), uint8: 0 is background, 255 is ink.
    images: Tensor,
    /// (N), int64.
    labels: Tensor,
}

impl Dataset {
    /// Reads `{train|t10k}-images-idx3-ubyte` and `...-labels-idx1-ubyte` in `folder`, or in `raw` or
    /// `MNIST/raw` (any name for `MNIST`) below it, gzip or not, with or without the suffix `.gz`, also as `...-images.idx3-ubyte`. In EMNIST's names
    /// (`emnist-letters-train-images-idx3-ubyte`) what comes before the split is taken too, where only one
    /// file fits.
    ///
    /// # Errors
    /// Where a file is missing or broken, images and labels differ in number, there are none, the
    /// images are not 28x28 or 32x32, or a label is not below `classes`.
    pub fn read(folder: &Path, split: Split, classes: usize) -> Result<Self> {
        let images_path = find(folder, split, "images-idx3-ubyte")?;
        let labels_path = find(folder, split, "labels-idx1-ubyte")?;
        let (images, labels) = (idx::read(&images_path, 3)?, idx::read(&labels_path, 1)?);
        Self::new((&images_path, images), (&labels_path, labels), classes)
    }

    /// The MNIST that is part of the program.
    ///
    /// # Errors
    /// Where a label is not below `classes`.
    pub fn embedded(split: Split, classes: usize) -> Result<Self> {
        let (images, labels): (&[u8], &[u8]) = match split {
            Split::Train => (
                include_bytes!("../../data/mnist/train-images-idx3-ubyte.gz"),
                include_bytes!("../../data/mnist/train-labels-idx1-ubyte.gz"),
            ),
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

    /// The data set in `folder`, or the embedded one without it.
    ///
    /// # Errors
    /// As [`Dataset::read`] and [`Dataset::embedded`].
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
            unreachable!("three dimensions were asked for")
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
                // EMNIST's letters.
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

    /// Number of images.
    pub fn len(&self) -> i64 {
        self.labels.size()[0]
    }

    /// Whether there are none; [`Dataset::read`] never gives such a one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The images: (N, H, W), uint8.
    pub fn images(&self) -> &Tensor {
        &self.images
    }

    /// The labels: (N), int64.
    pub fn labels(&self) -> &Tensor {
        &self.labels
    }

    /// The first `count` samples.
    pub fn first(&self, count: i64) -> Self {
        let count = count.min(self.len());
        Self { images: self.images.i(..count), labels: self.labels.i(..count) }
    }

    /// The first `count` samples, and the others.
    pub fn split(&self, count: i64) -> (Self, Self) {
        let rest = Self { images: self.images.i(count..), labels: self.labels.i(count..) };
        (self.first(count), rest)
    }

    /// Moves the bytes to a device, where batches are then made: 47 MB for MNIST's 60,000.
    pub fn to_device(&self, device: Device) -> Self {
        Self { images: self.images.to_device(device), labels: self.labels.to_device(device) }
    }

    /// The data set with images that only need to be padded or cropped: where the network takes them resized, they are
    /// resized.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn resized(&self, config: &ModelConfig) -> Result<Self> {
        let images = match config.input {
            Input::Resized => resize_images(&self.images, config.input.size())?,
            _ => self.images.shallow_clone(),
        };
        Ok(Self { images, labels: self.labels.shallow_clone() })
    }

    /// The images as the network takes them but for padding: resized where it takes them resized, and without the border of
    /// 32x32 where it takes 28x28. (N, S, S), uint8.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub(crate) fn unpadded(&self, config: &ModelConfig) -> Result<Tensor> {
        let images = self.resized(config)?.images;
        let images = match (config.input.size(), images.size()[2]) {
            (28, 32) => images.narrow(1, 2, 28).narrow(2, 2, 28),
            _ => images,
        };
        Ok(images.contiguous())
    }

    /// Pixels on a side of the images that [`Dataset::distorted`] distorts.
    pub(crate) fn distorted_side(&self, config: &ModelConfig) -> usize {
        match config.input {
            Input::ZeroPadded => self.images.size()[2] as usize,
            input => input.size(),
        }
    }

    /// As [`Dataset::batch`], with the images distorted by `distortions`, one for each.
    pub(crate) fn distorted_by(
        &self,
        indices: &Tensor,
        config: &ModelConfig,
        distortions: &DistortionBatch,
    ) -> (Tensor, Tensor) {
        self.transformed(indices, config, &|pixels| distortions.apply(&pixels))
    }

    /// As [`Dataset::batch`], with the images distorted, differently for each seed, epoch and image.
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

    /// The samples at `indices` (int64, on any device): images (B, 1, S, S) as [`to_input`]
    /// makes them, and labels (B).
    pub fn batch(&self, indices: &Tensor, config: &ModelConfig) -> (Tensor, Tensor) {
        self.transformed(indices, config, &|pixels| pixels)
    }

    /// As [`Dataset::batch`], with `change` applied to the pixels as in [`to_input_with`].
    fn transformed(
        &self,
        indices: &Tensor,
        config: &ModelConfig,
        change: &dyn Fn(Tensor) -> Tensor,
    ) -> (Tensor, Tensor) {
        let indices = indices.to_device(self.labels.device());
        let images = self.images.index_select(0, &indices);
        (to_input_with(&images, config, change), self.labels.index_select(0, &indices))
    }
}

/// Makes the network's input from bytes: (N, H, W) uint8 -> (N, 1, S, S) float32, S being
/// [`Input::size`]. Pixels are 0..1, less the mean, over the standard deviation (nothing is done where
/// these are 0 and 1).
///
/// Images of 28x28 are padded, resized or left as the settings say. Images of 32x32 lose their border where
/// the network takes 28x28.
pub fn to_input(images: &Tensor, config: &ModelConfig) -> Tensor {
    to_input_with(images, config, &|pixels| pixels)
}

/// Applies `change` to the pixels before they are normalised: (N, 1, H, W), 0..1, 0 being background, padded
/// unless that comes last.
fn to_input_with(images: &Tensor, config: &ModelConfig, change: &dyn Fn(Tensor) -> Tensor) -> Tensor {
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
        Input::Padded | Input::Unpadded | Input::Resized => normalise(change(pad(pixels))),
        Input::ZeroPadded => pad(normalise(change(pixels))),
    }
}

/// Scales square images as [`resize`] does: (N, H, H) to (N, `size`, `size`), uint8.
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

/// The file in `folder` for this part of the data set: `suffix` is `images-idx3-ubyte` or
/// `labels-idx1-ubyte`. It may lie in a folder `raw` within, or in `MNIST/raw`, as torchvision lays out what it
/// downloads.
fn find(folder: &Path, split: Split, suffix: &str) -> Result<PathBuf> {
    // EMNIST: "emnist-digits-train-images-idx3-ubyte", and "test" for the test part.
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

/// The one of a folder's files that has the name, or else ends in the alternative one. Some programs unpack under names
/// with a dot, such as `train-images.idx3-ubyte`.
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

/// The entries of a folder, sorted by name.
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

/// Names the kind of a file by its content, in a word or two.
fn file_kind(path: &Path) -> Option<&'static str> {
    let mut start = Vec::new();
    let read = files::open(path).ok()?.take(foreign::START as u64).read_to_end(&mut start);
    let name = read.ok().and_then(|_| foreign::name(&start))?;
    // Without the remedy.
    name.split(':').next()
}

/// Lists the entries of a folder for a message: a few names with their kinds, and how many more there are; what is known to
/// be data of another form is said.
fn list_entries(entries: &[PathBuf]) -> String {
    const MOST: usize = 6;
    const FORMS: [(&str, &str); 10] = [
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
    let shown = entries.iter().take(MOST).map(|path| match (path.is_dir(), file_kind(path)) {
        (true, _) => format!("\"{}/\"", file_name(path)),
        (false, Some(kind)) => format!("\"{}\" ({kind})", file_name(path)),
        (false, None) => format!("\"{}\"", file_name(path)),
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if let more @ 1.. = entries.len().saturating_sub(MOST) {
        text += &format!(" and {more} more");
    }
    let mut names = entries.iter().map(|path| file_name(path).to_lowercase());
    let form = names.find_map(|name| {
        let name = name.trim_end_matches(".gz");
        FORMS.iter().find(|(suffix, _)| name.ends_with(suffix))
    });
    if let Some((_, form)) = form {
        text += &format!("; {form} is not read here: write the images as IDX files");
    }
    text
}
