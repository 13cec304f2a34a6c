//! Reads images and labels from NumPy's npz, as Keras distributes MNIST.
//!
//! An npz file is a zip archive of npy files. An npy file begins with the byte 0x93, "NUMPY", the
//! version, and the length of a Python dictionary as text, which gives the type, the order and the
//! shape of the elements that follow. Source: the page "numpy.lib.format" of NumPy's manual.

use std::path::Path;

use super::{Form, MAX_BYTES, RawImages, Split};
use crate::weights::zip::ZipArchive;
use crate::{Error, Result, files};

/// The largest number of arrays in a file.
const MAX_ARRAYS: usize = 100;
/// The names of the images in data sets with and without parts, each with that of its labels.
const TRAIN: [(&str, &str); 3] =
    [("x_train", "y_train"), ("train_images", "train_labels"), ("X_train", "y_train")];
const TEST: [(&str, &str); 3] =
    [("x_test", "y_test"), ("test_images", "test_labels"), ("X_test", "y_test")];
const ALL: [(&str, &str); 5] =
    [("x", "y"), ("images", "labels"), ("X", "y"), ("data", "target"), ("arr_0", "arr_1")];

/// An array of integers.
pub struct Array {
    shape: Vec<usize>,
    /// The little-endian or big-endian elements, row-major.
    data: Vec<u8>,
    element: Element,
}

/// The type of the elements.
#[derive(Clone, Copy)]
struct Element {
    size: usize,
    signed: bool,
    big_endian: bool,
}

/// Reads a part of the data set. `has_parts` states whether another file holds the other part.
///
/// # Errors
/// If the file is damaged, or has no images and labels by a known name.
pub fn read(path: &Path, split: Split, has_parts: bool) -> Result<RawImages> {
    let hint = ": write the images as IDX files, or as several npz files";
    let bytes = files::read(path, MAX_BYTES, hint)?;
    let (images, labels, parts) = decode(&bytes, split).map_err(|text| Error::file(path, text))?;
    let (height, width) = images.size();
    Ok(RawImages {
        width,
        height,
        images: images.pixels().map_err(|text| Error::file(path, text))?,
        labels: labels.labels().map_err(|text| Error::file(path, text))?,
        images_path: path.to_owned(),
        labels_path: path.to_owned(),
        form: Form::Npz,
        has_parts: has_parts || parts,
        notes: Vec::new(),
    })
}

/// Decodes the images and the labels of a part, and returns whether the file holds two parts.
///
/// # Errors
/// If the archive is broken, or has no images and labels by a known name.
pub fn decode(bytes: &[u8], split: Split) -> Result<(Array, Array, bool), String> {
    let archive = ZipArchive::open(bytes, MAX_ARRAYS)?;
    let has = |(x, y): &&(&str, &str)| {
        archive.has(&format!("{x}.npy")) && archive.has(&format!("{y}.npy"))
    };
    let (train, test) = (TRAIN.iter().find(has), TEST.iter().find(has));
    let chosen = match (split, train, test) {
        (Split::Train, Some(names), _) | (Split::Test, _, Some(names)) => Some(names),
        (Split::Test, Some(names), None) => Some(names),
        _ => ALL.iter().find(has),
    };
    let Some((x, y)) = chosen else {
        let names: Vec<_> = archive.names().map(|name| name.trim_end_matches(".npy")).collect();
        return Err(format!(
            "expected the arrays x_train, y_train, x_test and y_test, or x and y, found {}",
            names.join(", ")
        ));
    };
    let array = |name: &str| {
        let member = archive.read(&format!("{name}.npy"), MAX_BYTES)?;
        let bytes = member.ok_or("it is missing")?;
        Array::decode(bytes)
    };
    let array = |name: &str| array(name).map_err(|text: String| format!("array {name}: {text}"));
    let (images, labels) = (array(x)?, array(y)?);
    images.check_images().map_err(|text| format!("array {x}: {text}"))?;
    labels.check_labels().map_err(|text| format!("array {y}: {text}"))?;
    Ok((images, labels, train.is_some() && test.is_some()))
}

impl Array {
    /// Decodes an npy file.
    fn decode(mut bytes: Vec<u8>) -> Result<Self, String> {
        let ends = || "expected a NumPy array, found one that ends early".to_owned();
        if !bytes.starts_with(b"\x93NUMPY") {
            return Err("expected a NumPy array, found another form".to_owned());
        }
        let byte = |at: usize| bytes.get(at).copied().map(usize::from).ok_or_else(ends);
        let (start, length) = match byte(6)? {
            1 => (10, byte(8)? + 256 * byte(9)?),
            2 | 3 => (12, byte(8)? + 256 * byte(9)? + 65536 * (byte(10)? + 256 * byte(11)?)),
            version => {
                return Err(format!("expected a NumPy array of version 1 to 3, found {version}"));
            }
        };
        let header = bytes.get(start..start + length).ok_or_else(ends)?;
        let header = std::str::from_utf8(header).map_err(|_| "its header is no text".to_owned())?;
        let element = Element::parse(value(header, "descr")?)?;
        if !value(header, "fortran_order")?.starts_with("False") {
            return Err("expected rows one after the other, found Fortran's order: write \
                        numpy.ascontiguousarray(x)"
                .to_owned());
        }
        let shape = shape(value(header, "shape")?)?;
        let expected = shape.iter().try_fold(element.size, |size, &n| size.checked_mul(n));
        let found = bytes.len() - start - length;
        if expected != Some(found) {
            return Err(format!("expected elements for the shape {shape:?}, found {found} bytes"));
        }
        bytes.drain(..start + length);
        Ok(Self { shape, data: bytes, element })
    }

    /// Checks that the array has the shape of images.
    fn check_images(&self) -> Result<(), String> {
        let square = |pixels: usize| pixels.isqrt() * pixels.isqrt() == pixels;
        match self.shape[..] {
            [_, pixels] if square(pixels) => Ok(()),
            [_, _, _] | [_, _, _, 1] | [_, 1, _, _] => Ok(()),
            _ => Err(format!(
                "expected grey images, of shape (N, rows, columns), found the shape {:?}",
                self.shape
            )),
        }
    }

    /// Checks that the array has the shape of labels.
    fn check_labels(&self) -> Result<(), String> {
        match self.shape[..] {
            [_] | [_, 1] => Ok(()),
            _ => Err(format!("expected labels, of shape (N), found the shape {:?}", self.shape)),
        }
    }

    /// Returns the number of rows and columns of images.
    fn size(&self) -> (usize, usize) {
        match self.shape[..] {
            [_, height, width, 1] | [_, 1, height, width] | [_, height, width] => (height, width),
            [_, pixels] => (pixels.isqrt(), pixels.isqrt()),
            _ => unreachable!("check_images allows no other shape"),
        }
    }

    /// Returns the elements as pixels.
    fn pixels(self) -> Result<Vec<u8>, String> {
        if self.element.size == 1 && !self.element.signed {
            return Ok(self.data);
        }
        let pixel = |value: i64| {
            u8::try_from(value).map_err(|_| format!("expected pixels from 0 to 255, found {value}"))
        };
        self.values().map(pixel).collect()
    }

    /// Returns the elements as labels.
    fn labels(&self) -> Result<Vec<u64>, String> {
        let label = |value: i64| {
            u64::try_from(value).map_err(|_| format!("expected labels from 0 on, found {value}"))
        };
        self.values().map(label).collect()
    }

    fn values(&self) -> impl Iterator<Item = i64> {
        let Element { size, signed, big_endian } = self.element;
        self.data.chunks_exact(size).map(move |bytes| {
            let bytes = bytes.iter().map(|byte| u64::from(*byte));
            let word = match big_endian {
                true => bytes.fold(0, |word, byte| word << 8 | byte),
                false => bytes.rev().fold(0, |word, byte| word << 8 | byte),
            };
            let unused = 64 - 8 * size as u32;
            match signed {
                true => ((word << unused) as i64) >> unused,
                false => i64::try_from(word).unwrap_or(i64::MAX),
            }
        })
    }
}

impl Element {
    /// Parses a type such as `'|u1'`.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\'').and_then(|text| text.split('\'').next());
        let name = text.unwrap_or_default();
        let (order, kind) = name.split_at_checked(1).unwrap_or_default();
        let (signed, size) = match kind {
            "u1" | "b1" => (false, 1),
            "u2" => (false, 2),
            "u4" => (false, 4),
            "u8" => (false, 8),
            "i1" => (true, 1),
            "i2" => (true, 2),
            "i4" => (true, 4),
            "i8" => (true, 8),
            _ => {
                return Err(format!(
                    "expected integers, found elements of type {name:?}: write pixels from 0 to 255 as \
                     x.astype('uint8')"
                ));
            }
        };
        Ok(Self { size, signed, big_endian: order == ">" })
    }
}

/// Returns the text after a key of the header's dictionary.
fn value<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let after = header.split_once(&format!("'{key}':")).map(|(_, after)| after.trim_start());
    after.ok_or_else(|| format!("expected a NumPy array, found a header without {key}"))
}

/// Parses a shape such as `(60000, 28, 28)`.
fn shape(text: &str) -> Result<Vec<usize>, String> {
    let inside = text.strip_prefix('(').and_then(|text| text.split_once(')'));
    let sizes = inside.map(|(inside, _)| {
        let sizes = inside.split(',').map(str::trim).filter(|size| !size.is_empty());
        sizes.map(str::parse).collect::<Result<Vec<usize>, _>>()
    });
    match sizes {
        Some(Ok(sizes)) if sizes.len() <= 8 => Ok(sizes),
        _ => Err("expected a NumPy array, found a header with a broken shape".to_owned()),
    }
}
