//! Finds and reads the IDX files of MNIST, EMNIST, QMNIST and their kind.

use std::path::{Path, PathBuf};

use super::source::{file_name, sorted_entries};
use super::{Form, RawImages, Split};
use crate::data::idx;
use crate::{Error, Result, files};

/// The ends of the names of files with labels: MNIST's, and QMNIST's.
const LABELS: [&str; 2] = ["labels-idx1-ubyte", "labels-idx2-int"];

/// The two files of a part of a data set.
pub struct IdxFiles {
    images: PathBuf,
    labels: PathBuf,
}

impl IdxFiles {
    /// Finds the files of a part; `None` if the folder has no IDX files by their names.
    ///
    /// The files lie in `folder`, in `folder/raw`, or in a folder `raw` one level deeper, such as
    /// `MNIST/raw`. They may be compressed with gzip, with or without the suffix `.gz`. Names such
    /// as `train-images.idx3-ubyte` are found too. EMNIST's and QMNIST's names
    /// (`emnist-letters-train-images-idx3-ubyte`) have a prefix, which may be any if only one file
    /// matches.
    ///
    /// # Errors
    /// If a file is missing, or there are several data sets.
    pub fn find(folder: &Path, entries: &[PathBuf], split: Split) -> Result<Option<Self>> {
        let places = places(folder, entries)?;
        let is_idx = |path: &PathBuf| {
            let name = plain_name(path);
            name.ends_with("images-idx3-ubyte") || LABELS.iter().any(|end| name.ends_with(end))
        };
        if !places
            .iter()
            .flat_map(|(_, entries)| entries)
            .any(|path| path.is_file() && is_idx(path))
        {
            return Ok(None);
        }
        let images = find(folder, &places, split, &["images-idx3-ubyte"])?;
        let labels = find(folder, &places, split, &LABELS)?;
        Ok(Some(Self { images, labels }))
    }

    /// Reads both files. EMNIST's images, whose rows and columns are swapped, are put right, and
    /// the labels of its letters, which begin at 1. QMNIST's labels are the first of eight numbers.
    ///
    /// # Errors
    /// If a file is damaged.
    pub fn read(&self) -> Result<RawImages> {
        let images = idx::read(&self.images, 3)?;
        let [_, height, width] = images.dimensions[..] else {
            unreachable!("idx::read checks the number of dimensions")
        };
        let mut labels = idx::read_labels(&self.labels)?;
        let (mut images, mut notes) = (images.data, Vec::new());
        let name = plain_name(&self.images);
        if name.contains("emnist") && width == height && width > 0 {
            for image in images.chunks_exact_mut(width * height) {
                transpose(image, width);
            }
            notes.push(
                "EMNIST's images were transposed: in its files they lie on their side".to_owned(),
            );
            if name.contains("letters") && labels.iter().all(|label| *label >= 1) {
                labels.iter_mut().for_each(|label| *label -= 1);
                notes.push("EMNIST's labels 1 to 26 became 0 to 25".to_owned());
            }
        }
        Ok(RawImages {
            width,
            height,
            images,
            labels,
            images_path: self.images.clone(),
            labels_path: self.labels.clone(),
            form: Form::Idx,
            has_parts: true,
            notes,
        })
    }
}

/// Swaps the rows and columns of a square image.
fn transpose(image: &mut [u8], side: usize) {
    for y in 0..side {
        for x in 0..y {
            image.swap(y * side + x, x * side + y);
        }
    }
}

/// Returns the folders that may hold the files, with their entries.
fn places(folder: &Path, entries: &[PathBuf]) -> Result<Vec<(PathBuf, Vec<PathBuf>)>> {
    let within = entries.iter().filter(|path| path.is_dir()).map(|path| path.join("raw"));
    let raw = std::iter::once(folder.join("raw")).chain(within).filter(|raw| raw.is_dir());
    let mut places = vec![(folder.to_owned(), entries.to_owned())];
    for raw in raw {
        let entries = sorted_entries(&raw)?;
        places.push((raw, entries));
    }
    Ok(places)
}

/// Finds the file for a part of the data set, whose name has one of the `ends`.
fn find(
    folder: &Path,
    places: &[(PathBuf, Vec<PathBuf>)],
    split: Split,
    ends: &[&str],
) -> Result<PathBuf> {
    // EMNIST's names have the form "emnist-digits-train-images-idx3-ubyte", with "test" for the
    // test part.
    let (prefix, other_prefix) = match split {
        Split::Train => ("train-", "-train-"),
        Split::Test => ("t10k-", "-test-"),
    };
    let mut found = Vec::new();
    for (place, entries) in places {
        for end in ends {
            let (wanted, alternative) = (format!("{prefix}{end}"), format!("{other_prefix}{end}"));
            found.extend(find_in_folder(place, entries, &wanted, &alternative)?);
        }
        // Files in the folder itself come first.
        if place == folder && !found.is_empty() {
            break;
        }
    }
    match &found[..] {
        [path] => Ok(path.clone()),
        [] => {
            let wanted = format!("{prefix}{}", ends[0]);
            let names = places.iter().flat_map(|(_, entries)| entries);
            let names = names.filter(|path| path.is_file()).take(6);
            let names: Vec<_> = names.map(|path| format!("\"{}\"", file_name(path))).collect();
            Err(Error::file(
                folder,
                format!("expected {wanted} or {wanted}.gz, found {}", names.join(", ")),
            ))
        }
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
/// `alternative`.
fn find_in_folder(
    folder: &Path,
    entries: &[PathBuf],
    wanted: &str,
    alternative: &str,
) -> Result<Option<PathBuf>> {
    let mut others = Vec::new();
    for path in entries.iter().filter(|path| path.is_file()) {
        let name = plain_name(path);
        if name == wanted {
            return Ok(Some(path.clone()));
        }
        if name.ends_with(alternative) && others.iter().all(|(other, _)| *other != name) {
            others.push((name, path));
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

/// Returns the name of a file without `.gz`. Some programs unpack to names with a dot, such as
/// `train-images.idx3-ubyte`, in which it becomes a dash.
fn plain_name(path: &Path) -> String {
    let name = file_name(path).replace(".idx", "-idx");
    name.strip_suffix(".gz").unwrap_or(&name).to_owned()
}
