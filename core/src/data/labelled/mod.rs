//! Images with labels, in the forms in which data sets are distributed.
//!
//! The content of the files determines the form: IDX files, a table of text (CSV, or the zip codes'
//! numbers), NumPy's npz, or a folder of pictures for each class.

mod class_folders;
mod idx_files;
mod npz;
mod source;
mod table;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::digit::{PIXELS, SIDE};
use super::ink::Ink;
use super::to_mnist;
use crate::{Error, Result, files};
use source::Source;

/// The largest size of the images of a data set, in bytes: nearly twice EMNIST's.
const MAX_BYTES: u64 = 1 << 30;
/// The longest side of an image in pixels.
const MAX_SIDE: usize = 1024;

/// A part of a data set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// 60,000 images in MNIST.
    Train,
    /// 10,000 images in MNIST.
    #[default]
    Test,
}

crate::choices!(Split {
    Train = "train": "60,000 images in MNIST",
    Test = "test": "10,000 images in MNIST",
});

/// How images of other sizes become images of 28x28 pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// As [`Fit::Digit`], but images of 28x28 pixels stay as they are; so do those of 32x32 pixels,
    /// except in picture files.
    #[default]
    Auto,
    /// As MNIST was made: the ink is scaled to 20x20 pixels, and its centre of mass is moved to the
    /// middle.
    Digit,
    /// The whole image is scaled.
    Whole,
}

crate::choices!(Fit {
    Auto = "auto": "As digit, but images of 28x28 pixels stay as they are",
    Digit = "digit": "As MNIST was made: the ink is scaled to 20x20 pixels and centred by its mass",
    Whole = "whole": "The whole image is scaled",
});

/// The form of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// MNIST's IDX files.
    Idx,
    /// CSV text.
    Csv,
    /// The zip codes' text.
    ZipCodes,
    /// NumPy's npz.
    Npz,
    /// A folder of pictures for each class.
    ClassFolders,
}

/// Images with labels: a part of a data set, or all of one that has no parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledImages {
    /// The images, one after the other, row by row: 0 for background to 255 for ink.
    pub images: Vec<u8>,
    /// The number of rows and of columns of an image: 28 or 32.
    pub side: usize,
    /// The label of each image.
    pub labels: Vec<u16>,
    /// The form of the data set.
    pub form: Form,
    /// Whether the data set has a training and a test part. Otherwise these are all of its images.
    pub has_parts: bool,
    /// What was changed or left out, in sentences for the user.
    pub notes: Vec<String>,
}

impl LabelledImages {
    /// Reads a part of the data set in a file or folder.
    ///
    /// # Errors
    /// If there is no data set, it has a form that is not supported, a file is missing or damaged,
    /// there are no images, or a label is not below `classes`.
    pub fn read(path: &Path, split: Split, classes: usize, fit: Fit) -> Result<Self> {
        match source::find(path, split)? {
            Source::Idx(files) => files.read()?.fitted(classes, fit),
            Source::Table { path, has_parts } => {
                RawImages { has_parts, ..table::read(&path)? }.fitted(classes, fit)
            }
            Source::Npz { path, has_parts } => {
                npz::read(&path, split, has_parts)?.fitted(classes, fit)
            }
            Source::ClassFolders(folders) => folders.read(classes, fit),
        }
    }
}

/// Decodes a table or an npz file, so that both can be fuzzed.
///
/// # Errors
/// If the bytes are not as expected.
#[doc(hidden)]
pub fn decode(bytes: &[u8]) -> Result<(), String> {
    match bytes.starts_with(b"PK") {
        true => npz::decode(bytes, Split::Train).map(drop),
        false => table::decode(bytes).map(drop),
    }
}

/// Images of any size, and labels that are not checked yet.
struct RawImages {
    width: usize,
    height: usize,
    /// The images, one after the other, row by row: 0 for background to 255 for ink.
    images: Vec<u8>,
    labels: Vec<u64>,
    /// The files, for messages.
    images_path: PathBuf,
    labels_path: PathBuf,
    form: Form,
    has_parts: bool,
    notes: Vec<String>,
}

impl RawImages {
    /// Checks the images and labels, and brings images of other sizes to 28x28 pixels.
    fn fitted(self, classes: usize, fit: Fit) -> Result<LabelledImages> {
        let Self { width, height, images, labels, images_path, labels_path, mut notes, .. } = self;
        let (form, has_parts) = (self.form, self.has_parts);
        let fail = |message: String| Err(Error::file(&images_path, message));
        if images.is_empty() {
            return fail("expected images, found none".to_owned());
        }
        if width.max(height) > MAX_SIDE {
            return fail(format!(
                "expected images of at most {MAX_SIDE} pixels on a side, found {height}x{width}"
            ));
        }
        let count = images.len() / (width * height);
        if labels.len() != count {
            return Err(Error::file(
                &labels_path,
                format!(
                    "expected {count} labels, one for each image of {}, found {}",
                    files::shown(&images_path),
                    labels.len()
                ),
            ));
        }
        let checked = check_labels(&labels, classes);
        let labels = checked.map_err(|message| Error::file(&labels_path, message))?;
        if matches!((fit, width, height), (Fit::Auto, 28, 28) | (Fit::Auto, 32, 32)) {
            return Ok(LabelledImages { images, side: width, labels, form, has_parts, notes });
        }
        let fitted: Vec<_> = images
            .par_chunks_exact(width * height)
            .map(|image| fit_image(image, width, fit))
            .collect();
        if let Some(index) = fitted.iter().position(Option::is_none) {
            return fail(format!(
                "expected ink in each image, found none at index {index}: --fit whole takes blank images too"
            ));
        }
        let images = fitted.into_iter().flatten().collect::<Vec<_>>().concat();
        let how = if fit == Fit::Whole { "scaled" } else { "brought to MNIST's form" };
        notes.push(format!("the images of {height}x{width} pixels were {how}"));
        Ok(LabelledImages { images, side: SIDE, labels, form, has_parts, notes })
    }
}

/// Checks that labels are below `classes`. The error message states the largest label.
fn check_labels(labels: &[u64], classes: usize) -> Result<Vec<u16>, String> {
    let Some((i, label)) = labels.iter().enumerate().find(|(_, label)| **label >= classes as u64)
    else {
        return Ok(labels.iter().map(|label| *label as u16).collect());
    };
    let range = labels.iter().min().zip(labels.iter().max());
    let hint = match range {
        // Letters often have labels from 1.
        Some((1, max)) if *max == classes as u64 => format!(
            "; here labels run from 1 to {max}: train --classes {}, whose class 0 stays empty",
            max + 1
        ),
        Some((_, max)) => {
            format!("; the largest is {max}: train --classes {}", max.saturating_add(1))
        }
        None => String::new(),
    };
    Err(format!("expected labels from 0 to {}, found {label} at index {i}{hint}", classes - 1))
}

/// Brings an image to 28x28 pixels; `None` if there is no ink where ink is needed. The values of ink
/// may have any scale, such as 0 to 16.
fn fit_image(image: &[u8], width: usize, fit: Fit) -> Option<[u8; PIXELS]> {
    let strongest = match fit {
        Fit::Whole => 255,
        Fit::Auto | Fit::Digit => *image.iter().max()?,
    };
    let scale = 1.0 / f32::from(strongest.max(1));
    let ink = Ink::new(width, image.iter().map(|grey| f32::from(*grey) * scale).collect());
    match fit {
        Fit::Whole => Some(whole(&ink)),
        Fit::Auto | Fit::Digit => to_mnist(&ink),
    }
}

/// Scales ink so that its longer side has 28 pixels, and puts it in the middle.
fn whole(ink: &Ink) -> [u8; PIXELS] {
    let longest = ink.width().max(ink.height());
    let scaled = |length: usize| ((length * SIDE + longest / 2) / longest).clamp(1, SIDE);
    let (width, height) = (scaled(ink.width()), scaled(ink.height()));
    let ink = if longest == SIDE { ink.clone() } else { ink.resized(width, height) };
    let (left, top) = ((SIDE - width) / 2, (SIDE - height) / 2);
    let mut pixels = [0; PIXELS];
    for (row, values) in ink.values().chunks_exact(width).enumerate() {
        for (column, value) in values.iter().enumerate() {
            pixels[(top + row) * SIDE + left + column] = (255.0 * value).round() as u8;
        }
    }
    pixels
}
