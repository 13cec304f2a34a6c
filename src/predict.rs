//! Pictures by the thousand: found in folders and by patterns, read in batches as they come.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image::{GrayImage, ImageFormat};
use walkdir::WalkDir;

use crate::charts;
use crate::data::images::{self, Limits};
use crate::progress::Progress;
use crate::recognizer::{Reading, Recognizer};
use crate::{Error, Result};

/// Pictures read in one batch.
const BATCH: usize = 256;

/// The pictures that arguments name: a file is itself; a folder is the pictures within it, by name, also in folders
/// within; anything else is a pattern such as `scans/*.png`.
///
/// # Errors
/// Where a folder cannot be read, a pattern is broken, or an argument names nothing.
pub fn pictures(arguments: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    for argument in arguments {
        let before = pictures.len();
        if argument.is_dir() {
            for entry in WalkDir::new(argument).follow_links(true).sort_by_file_name() {
                let entry = entry.map_err(|error| {
                    let path = error.path().unwrap_or(argument).to_owned();
                    Error::Io { path, error: error.into() }
                })?;
                if entry.file_type().is_file() && is_picture(entry.path()) {
                    pictures.push(entry.into_path());
                }
            }
        } else if let Some(pattern) = pattern(argument) {
            let broken = |error: glob::PatternError| {
                Error::file(argument, format!("a broken pattern: {error}"))
            };
            for path in glob::glob(pattern).map_err(broken)? {
                let path = path.map_err(|error| {
                    let path = error.path().to_owned();
                    Error::Io { path, error: error.into() }
                })?;
                if path.is_file() {
                    pictures.push(path);
                }
            }
        } else {
            pictures.push(argument.clone());
        }
        if pictures.len() == before {
            return Err(Error::file(argument, "expected pictures, found none"));
        }
    }
    Ok(pictures)
}

/// An argument that names no file, and has a pattern's characters.
fn pattern(argument: &Path) -> Option<&str> {
    let text = argument.to_str()?;
    (text.contains(['*', '?', '[']) && fs::symlink_metadata(argument).is_err()).then_some(text)
}

/// By its name, else by its first bytes.
fn is_picture(path: &Path) -> bool {
    let start = || {
        let mut start = Vec::new();
        File::open(path)?.take(64).read_to_end(&mut start)?;
        Ok::<_, io::Error>(start)
    };
    ImageFormat::from_path(path).is_ok()
        || start().is_ok_and(|start| image::guess_format(&start).is_ok())
}

/// Reads picture files on all cores, some at a time in memory, and gives each reading to `each` in the files' order.
/// Where there are many, progress is shown on stderr.
///
/// # Errors
/// Those of `each`, which end it.
pub fn read_files<E>(
    recognizer: &Recognizer,
    files: &[PathBuf],
    limits: &Limits,
    mut each: impl FnMut(&Path, Result<Reading>) -> Result<(), E>,
) -> Result<(), E> {
    let mut progress =
        (files.len() > BATCH).then(|| Progress::new("reading", files.len() as u64));
    let mut done = 0;
    for batch in files.chunks(BATCH) {
        let readings = recognizer.read_by(batch, |file| images::open(file, limits));
        for (file, reading) in batch.iter().zip(readings) {
            let named = reading.map_err(|error| match error {
                Error::Picture(message) => Error::file(file, message),
                other => other,
            });
            each(file, named)?;
        }
        done += batch.len() as u64;
        if let Some(progress) = &mut progress {
            progress.set(done);
        }
    }
    Ok(())
}

/// Writes what the network saw of a picture as a PNG: its digits side by side, each of 32x32, ink white.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_seen(path: &Path, reading: &Reading) -> Result<()> {
    const TILE: u32 = 32;
    let margin = (TILE - images::SIDE as u32) / 2;
    let mut seen = GrayImage::new(TILE * reading.digits.len() as u32, TILE);
    for (i, digit) in (0..).zip(&reading.digits) {
        for (place, grey) in (0..).zip(digit.pixels) {
            let (x, y) = (place % images::SIDE as u32, place / images::SIDE as u32);
            seen.put_pixel(TILE * i + margin + x, margin + y, image::Luma([grey]));
        }
    }
    charts::write_png(path, &seen.into())
}
