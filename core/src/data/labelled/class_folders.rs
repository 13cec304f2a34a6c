//! Reads data sets with a folder of pictures for each class.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::source::{file_name, is_hidden, sorted_entries};
use super::{Fit, Form, LabelledImages, Split, check_labels, whole};
use crate::data::digit::{PIXELS, SIDE};
use crate::data::ink::Ink;
use crate::data::{Picture, PictureLimits};
use crate::recognizer::single_digit;
use crate::{Error, Result};

/// The largest number of pictures.
const MAX_PICTURES: usize = 1_000_000;
/// The largest number of pixels of all pictures together: a thousand photos.
const MAX_PIXELS: u64 = 12_000_000_000;
/// The largest number of classes.
const MAX_CLASSES: usize = 1000;
/// The longest side to which a picture is reduced before it is scaled to 28x28 pixels.
const LONGEST: u32 = 1024;
/// Limits for one picture.
const LIMITS: PictureLimits = PictureLimits { pixels: 50_000_000, memory: 256 << 20 };

/// The names of the folders with the parts of a data set.
const TRAIN_NAMES: [&str; 2] = ["train", "training"];
const TEST_NAMES: [&str; 5] = ["test", "testing", "val", "valid", "validation"];

/// A folder with a folder of pictures for each class.
pub struct ClassFolders {
    folder: PathBuf,
    /// The names of all classes of the data set, in the order of their labels.
    classes: Vec<String>,
    has_parts: bool,
}

impl ClassFolders {
    /// Finds the classes; `None` if no folder in `folder` holds pictures.
    ///
    /// The folders of the classes are in `folder`, or in a folder `train` and in a folder `test`.
    ///
    /// # Errors
    /// If a folder cannot be read, or there are too many classes.
    pub fn find(folder: &Path, entries: &[PathBuf], split: Split) -> Result<Option<Self>> {
        let named = |names: &[&str]| {
            let folders = || entries.iter().filter(|path| path.is_dir());
            let mut names = names.iter();
            names.find_map(|name| folders().find(|path| file_name(path).to_lowercase() == *name))
        };
        let (train, test) = (named(&TRAIN_NAMES), named(&TEST_NAMES));
        let (folder, others) = match (split, train, test) {
            (Split::Train, Some(train), test) => (train.clone(), test),
            (Split::Test, train, Some(test)) => (test.clone(), train),
            // Only images to train with.
            (Split::Test, Some(train), None) => (train.clone(), None),
            (Split::Train, None, Some(_)) => return Ok(None),
            (_, None, None) => (folder.to_owned(), None),
        };
        let mut names = class_names(&folder)?;
        if names.is_empty() {
            return Ok(None);
        }
        if let Some(others) = others {
            names.extend(class_names(others)?);
        }
        if names.len() > MAX_CLASSES {
            let message = format!("expected at most {MAX_CLASSES} classes, found {}", names.len());
            return Err(Error::file(&folder, message));
        }
        let has_parts = train.is_some() && test.is_some();
        Ok(Some(Self { folder, classes: names.into_iter().collect(), has_parts }))
    }

    /// Reads the pictures. The labels are the names of the folders if these are numbers, otherwise
    /// their places in the order of the names.
    ///
    /// The pictures of all classes are mixed evenly, so that the last ones, which
    /// `--validation` holds out, are of all classes.
    ///
    /// # Errors
    /// If a picture cannot be read, or there are too many classes or pictures.
    pub fn read(&self, classes: usize, fit: Fit) -> Result<LabelledImages> {
        let mut notes = Vec::new();
        let numbers: Option<Vec<u64>> =
            self.classes.iter().map(|name| name.parse::<u16>().ok().map(u64::from)).collect();
        let labels = numbers.unwrap_or_else(|| {
            let names = self.classes.iter().enumerate();
            let names: Vec<_> = names.map(|(label, name)| format!("{label} = {name}")).collect();
            notes.push(format!("the classes are {}", names.join(", ")));
            (0..self.classes.len() as u64).collect()
        });
        check_labels(&labels, classes).map_err(|message| {
            let message = message.split(" at index").next().unwrap_or_default();
            let largest = labels.iter().max().map_or(0, |label| label + 1);
            Error::file(
                &self.folder,
                format!("{message} among the folders of the classes: train --classes {largest}"),
            )
        })?;
        let mut pictures: Vec<(f64, u16, PathBuf)> = Vec::new();
        let mut skipped = 0;
        for (name, label) in self.classes.iter().zip(labels) {
            let folder = self.folder.join(name);
            if !folder.is_dir() {
                continue;
            }
            let entries = sorted_entries(&folder)?;
            let (files, others): (Vec<_>, Vec<_>) = entries
                .into_iter()
                .filter(|path| !is_hidden(path))
                .partition(|path| is_picture(path));
            skipped += others.len();
            let count = files.len() as f64;
            let placed = files.into_iter().enumerate();
            pictures.extend(placed.map(|(i, path)| ((i as f64 + 0.5) / count, label as u16, path)));
        }
        if pictures.len() > MAX_PICTURES {
            let message =
                format!("expected at most {MAX_PICTURES} pictures, found {}", pictures.len());
            return Err(Error::file(&self.folder, message));
        }
        if skipped > 0 {
            notes.push(format!(
                "{skipped} files were left out, whose names are not those of pictures"
            ));
        }
        pictures
            .sort_by(|(a, label_a, _), (b, label_b, _)| a.total_cmp(b).then(label_a.cmp(label_b)));
        let pixels = AtomicU64::new(0);
        let images: Vec<Result<[u8; PIXELS]>> =
            pictures.par_iter().map(|(.., path)| self.read_picture(path, fit, &pixels)).collect();
        let images = images.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(LabelledImages {
            images: images.concat(),
            side: SIDE,
            labels: pictures.iter().map(|(_, label, _)| *label).collect(),
            form: Form::ClassFolders,
            has_parts: self.has_parts,
            notes,
        })
    }

    fn read_picture(&self, path: &Path, fit: Fit, pixels: &AtomicU64) -> Result<[u8; PIXELS]> {
        let picture = Picture::open(path, &LIMITS)?;
        let size = [picture.width(), picture.height()];
        let own = size.map(u64::from).iter().product::<u64>();
        if pixels.fetch_add(own, Ordering::Relaxed) + own > MAX_PIXELS {
            let message = format!(
                "expected pictures of at most {MAX_PIXELS} pixels together, found more: make them smaller"
            );
            return Err(Error::file(&self.folder, message));
        }
        match fit {
            Fit::Auto if size == [SIDE as u32; 2] => {
                Ok(whole(&Ink::of_brightness(&picture, LONGEST)))
            }
            Fit::Whole => Ok(whole(&Ink::of_brightness(&picture, LONGEST))),
            Fit::Auto | Fit::Digit => single_digit(&picture).map_err(|error| error.in_file(path)),
        }
    }
}

/// Returns the names of the folders that hold pictures.
fn class_names(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for path in sorted_entries(folder)? {
        if path.is_dir()
            && !is_hidden(&path)
            && sorted_entries(&path)?.iter().any(|p| is_picture(p))
        {
            let name = path.file_name().and_then(|name| name.to_str());
            names.insert(name.map(str::to_owned).ok_or_else(|| {
                Error::file(&path, "expected a folder with a name in UTF-8, found another")
            })?);
        }
    }
    Ok(names)
}

fn is_picture(path: &Path) -> bool {
    Picture::is_known_name(path) && !is_hidden(path) && path.is_file()
}
