//! Pictures by the thousand: found in folders and by patterns, read in batches as they come.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};
use lenet5_cli::ProgressBar;
use lenet5_core::data::digit::SIDE;
use lenet5_core::recognizer::{Mark, Reading, Recognizer};
use lenet5_core::{Error, Picture, PictureLimits, Result, files};
use walkdir::WalkDir;

/// Pictures read in one batch.
const BATCH: usize = 256;

/// The pictures that arguments name: a file is itself; a folder is the pictures within it, by name, also in folders
/// within; anything else is a pattern such as `scans/*.png`. In their place errors: where a folder cannot be read, a
/// pattern is broken, or an argument names nothing.
///
/// In folders only regular files are looked at. Links are followed; a folder that several lead to is entered once, so
/// that links in a circle have an end.
pub fn pictures(arguments: &[PathBuf]) -> Vec<Result<PathBuf>> {
    let mut pictures = Vec::new();
    for argument in arguments {
        let before = pictures.len();
        if argument.is_dir() {
            pictures.extend(files_below(argument, is_picture));
        } else if let Some(pattern) = pattern(argument) {
            match matches(pattern) {
                Ok(matches) => pictures.extend(matches),
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

/// The regular files of a folder, and of the folders within, for which `wanted` holds; sorted by name.
fn files_below(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<Result<PathBuf>> {
    let mut entered = HashSet::new();
    let walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    let walk = walk.filter_entry(|entry| {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let is_new = |metadata| entered.insert(identity(metadata));
        !entry.file_type().is_dir() || entry.metadata().map_or(true, is_new)
    });
    let files = walk.filter_map(|entry| match entry {
        Ok(entry) if entry.file_type().is_file() && wanted(entry.path()) => {
            Some(Ok(entry.into_path()))
        }
        Ok(_) => None,
        // A link to a folder that it lies in.
        Err(error) if error.loop_ancestor().is_some() => None,
        Err(error) => {
            let path = error.path().unwrap_or(folder).to_owned();
            Some(Err(Error::Io { path, error: error.into() }))
        }
    });
    files.collect()
}

/// The files that a pattern matches.
fn matches(pattern: &str) -> Result<Vec<Result<PathBuf>>, PatternError> {
    if let Some(at) = pattern.find("**") {
        // glob would go round and round where links lead in a circle.
        let pattern = Pattern::new(pattern)?;
        let above = Path::new(&pattern.as_str()[..at]).ancestors();
        let special = |path: &Path| path.to_string_lossy().contains(['*', '?', '[']);
        let root = above.into_iter().find(|path| !special(path)).unwrap_or(Path::new(""));
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        let wanted = |path: &Path| pattern.matches_path_with(path, options);
        let here = root.as_os_str().is_empty();
        let name = |path: &Path| path.strip_prefix("./").unwrap_or(path).to_owned();
        return Ok(match here {
            true => files_below(Path::new("."), |path| wanted(&name(path)))
                .into_iter()
                .map(|path| path.map(|path| name(&path)))
                .collect(),
            false => files_below(root, wanted),
        });
    }
    let found = glob::glob(pattern)?.filter_map(|path| match path {
        Ok(path) => path.is_file().then_some(Ok(path)),
        Err(error) => {
            let path = error.path().to_owned();
            Some(Err(Error::Io { path, error: error.into() }))
        }
    });
    Ok(found.collect())
}

/// The argument as a pattern: where it names no file, and has a pattern's characters.
fn pattern(argument: &Path) -> Option<&str> {
    let text = argument.to_str()?;
    (text.contains(['*', '?', '[']) && argument.symlink_metadata().is_err()).then_some(text)
}

/// Whether a file is a picture, by its name, else by its first bytes.
fn is_picture(path: &Path) -> bool {
    let start = || {
        let mut start = Vec::new();
        let read = files::open(path)?.take(64).read_to_end(&mut start);
        read.map_err(Error::io(path))?;
        Ok::<_, Error>(start)
    };
    Picture::is_known_name(path) || start().is_ok_and(|start| Picture::is_known(&start))
}

/// Reads picture files on all cores, some at a time in memory, and gives each reading to `each` in the files' order. Where
/// there are many files, progress is shown on stderr.
///
/// # Errors
/// Those of `each`, which end it.
pub fn read_files<E>(
    recognizer: &Recognizer,
    files: Vec<Result<PathBuf>>,
    limits: &PictureLimits,
    mut each: impl FnMut(&Path, Result<Reading>) -> Result<(), E>,
) -> Result<(), E> {
    let mut progress =
        (files.len() > BATCH).then(|| ProgressBar::new("reading", files.len() as u64));
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
            recognizer.read_by(&found, |file| Picture::open(file, limits)).into_iter();
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

/// Notes about a reading for a person, beside its text: ink that was left out, and that all digits are rejected.
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

/// Writes the digits of a reading as the network sees them to a PNG: side by side, each of 32x32 pixels, ink white.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_seen(path: &Path, reading: &Reading) -> Result<()> {
    const TILE: usize = 32;
    const MARGIN: usize = (TILE - SIDE) / 2;
    let width = TILE * reading.digits.len();
    let mut seen = vec![0; width * TILE];
    for (i, digit) in reading.digits.iter().enumerate() {
        for (row, pixels) in digit.pixels.chunks_exact(SIDE).enumerate() {
            seen[(MARGIN + row) * width + TILE * i + MARGIN..][..SIDE].copy_from_slice(pixels);
        }
    }
    let seen = Picture::from_grey(width as u32, TILE as u32, seen)?;
    files::write_atomic(path, &seen.to_png()?)
}
