//! Pictures by the thousand: found in folders and by patterns, read in batches as they come.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image::{GrayImage, ImageFormat};
use walkdir::WalkDir;

use crate::charts;
use crate::data::images::{self, Limits};
use crate::progress::Progress;
use crate::recognizer::{Mark, Reading, Recognizer};
use crate::{Error, Result};

/// Pictures read in one batch.
const BATCH: usize = 256;

/// The pictures that arguments name: a file is itself; a folder is the pictures within it, by name, also in folders
/// within; anything else is a pattern such as `scans/*.png`. In their place errors: where a folder cannot be read, a
/// pattern is broken, or an argument names nothing.
pub fn pictures(arguments: &[PathBuf]) -> Vec<Result<PathBuf>> {
    let mut pictures = Vec::new();
    for argument in arguments {
        let before = pictures.len();
        if argument.is_dir() {
            for entry in WalkDir::new(argument).follow_links(true).sort_by_file_name() {
                match entry {
                    Ok(entry) if entry.file_type().is_file() && is_picture(entry.path()) => {
                        pictures.push(Ok(entry.into_path()));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let path = error.path().unwrap_or(argument).to_owned();
                        pictures.push(Err(Error::Io { path, error: error.into() }));
                    }
                }
            }
        } else if let Some(pattern) = pattern(argument) {
            match glob::glob(pattern) {
                Ok(paths) => pictures.extend(paths.filter_map(|path| match path {
                    Ok(path) => path.is_file().then_some(Ok(path)),
                    Err(error) => {
                        let path = error.path().to_owned();
                        Some(Err(Error::Io { path, error: error.into() }))
                    }
                })),
                Err(error) => {
                    pictures.push(Err(Error::file(argument, format!("a broken pattern: {error}"))));
                }
            }
        } else {
            pictures.push(Ok(argument.clone()));
        }
        if pictures.len() == before {
            pictures.push(Err(Error::file(argument, "expected pictures, found none")));
        }
    }
    pictures
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

/// Reads picture files on all cores, some at a time in memory, and gives each reading to `each` in the files' order. Where there are many, progress is shown on stderr.
///
/// # Errors
/// Those of `each`, which end it.
pub fn read_files<E>(
    recognizer: &Recognizer,
    files: Vec<Result<PathBuf>>,
    limits: &Limits,
    mut each: impl FnMut(&Path, Result<Reading>) -> Result<(), E>,
) -> Result<(), E> {
    let mut progress = (files.len() > BATCH).then(|| Progress::new("reading", files.len() as u64));
    let mut done = 0;
    let mut files = files.into_iter().peekable();
    while files.peek().is_some() {
        if let Some(progress) = &mut progress {
            progress.set(done);
        }
        let batch: Vec<_> = files.by_ref().take(BATCH).collect();
        done += batch.len() as u64;
        let found: Vec<&PathBuf> = batch.iter().flatten().collect();
        let mut readings =
            recognizer.read_by(&found, |file| images::open(file, limits)).into_iter();
        for file in batch {
            match file {
                Ok(file) => {
                    let reading = readings.next().expect("one for each file");
                    each(&file, reading.map_err(|error| error.in_file(&file)))?;
                }
                Err(error) => {
                    each(&error.path().map(Path::to_owned).unwrap_or_default(), Err(error))?
                }
            }
        }
    }
    Ok(())
}

/// What a person should know of a reading whose text does not tell it: ink that was left out beside the digits, and
/// that no digit is sure enough.
pub fn notes(reading: &Reading) -> Vec<String> {
    let mut notes = Vec::new();
    if reading.digits.iter().all(|digit| digit.rejected) {
        let surest = reading.digits.iter().map(|digit| digit.confidence).fold(0.0, f32::max);
        notes.push(format!(
            "rejected all digits, of confidence {surest:.3} at most; --reject-below 0 prints them"
        ));
    }
    if !reading.left_out.is_empty() {
        let count = reading.left_out.len();
        let marks = if count == 1 { "1 mark" } else { &format!("{count} marks") };
        let places: Vec<_> = reading
            .left_out
            .iter()
            .map(|Mark { area: [left, top, width, height], .. }| {
                format!("{width}x{height} at {left},{top}")
            })
            .collect();
        let places = places.join("; ");
        notes.push(format!(
            "left out {marks} beside the digits, a sign or a point perhaps: {places}"
        ));
    }
    notes
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
