//! Reads many pictures: finds them in folders and by patterns, and reads them in batches.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, PatternError};
use lenet5_cli::ProgressBar;
use lenet5_core::data::digit::SIDE;
use lenet5_core::recognizer::{self, Mark, Reading, Recognizer};
use lenet5_core::{Error, Picture, PictureLimits, Result, files};
use walkdir::WalkDir;

/// The number of pictures in a batch.
const BATCH: usize = 256;

/// Finds the pictures that arguments name. A folder names all pictures in it and in its subfolders, sorted by name; a
/// pattern such as `scans/*.png` names the files that match it; any other argument names one file.
///
/// The list has an error for each folder that cannot be read, for each broken pattern, and for each folder or pattern
/// without pictures. In folders only regular files count. Links are followed, but each folder is visited once, so that
/// links that form a circle do no harm.
pub fn find_pictures(arguments: &[PathBuf]) -> Vec<Result<PathBuf>> {
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

/// The regular files in a folder and its subfolders for which `wanted` is true, sorted by name.
fn files_below(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<Result<PathBuf>> {
    let mut visited = HashSet::new();
    let walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    let walk = walk.filter_entry(|entry| {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let is_new = |metadata| visited.insert(identity(metadata));
        !entry.file_type().is_dir() || entry.metadata().map_or(true, is_new)
    });
    let files = walk.filter_map(|entry| match entry {
        Ok(entry) if entry.file_type().is_file() && wanted(entry.path()) => {
            Some(Ok(entry.into_path()))
        }
        Ok(_) => None,
        // The entry is a link to a folder that contains it.
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
        // The crate glob does not end if links form a circle.
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

/// The argument as a pattern. None if it has no special characters, or names an existing file.
fn pattern(argument: &Path) -> Option<&str> {
    let text = argument.to_str()?;
    (text.contains(['*', '?', '[']) && argument.symlink_metadata().is_err()).then_some(text)
}

/// Whether the name or the first bytes of a file are those of a picture.
fn is_picture(path: &Path) -> bool {
    let start = || {
        let mut start = Vec::new();
        let read = files::open(path)?.take(64).read_to_end(&mut start);
        read.map_err(Error::io(path))?;
        Ok::<_, Error>(start)
    };
    Picture::is_known_name(path) || start().is_ok_and(|start| Picture::is_known(&start))
}

/// Reads picture files on all cores, and calls `each` with every reading, in the order of the files. Lines have the form
/// of `pattern`. Only a few pictures are in memory at a time. If there are many files, progress is shown on stderr.
///
/// # Errors
/// The first error of `each`; the remaining files are not read.
pub fn read_files<E>(
    recognizer: &Recognizer,
    files: Vec<Result<PathBuf>>,
    limits: &PictureLimits,
    pattern: &recognizer::Pattern,
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
        let open = |file: &&PathBuf| Picture::open(file, limits);
        let mut readings = recognizer.read_by(&found, open, |_| pattern).into_iter();
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

/// Notes about a reading, for people: that all digits are rejected, or that ink beside the digits or lines of another
/// form were left out.
pub fn notes(reading: &Reading) -> Vec<String> {
    let mut notes = Vec::new();
    if reading.digits.iter().all(|digit| digit.rejected) {
        let highest = reading.digits.iter().map(|digit| digit.confidence).fold(0.0, f32::max);
        notes.push(format!(
            "rejected all digits, of confidence {highest:.3} at most; --reject-below 0 prints them"
        ));
    }
    if !reading.left_out.is_empty() {
        let count = reading.left_out.len();
        let marks = if count == 1 { "1 mark" } else { &format!("{count} marks") };
        let positions: Vec<_> = reading
            .left_out
            .iter()
            .map(|Mark { area: [left, top, width, height], .. }| {
                format!("{width}x{height} at {left},{top}")
            })
            .collect();
        let positions = positions.join("; ");
        notes.push(format!(
            "left out {marks} beside the digits, a sign or a point perhaps: {positions}"
        ));
    }
    if !reading.other_lines.is_empty() {
        let count = reading.other_lines.len();
        let lines = if count == 1 { "1 line" } else { &format!("{count} lines") };
        let texts = reading.other_lines.join("; ");
        notes.push(format!("left out {lines} of another form: {texts}"));
    }
    notes
}

/// Writes the digits of a reading to a PNG file as the network takes them: side by side, each in 32x32 pixels, white ink
/// on black.
///
/// # Errors
/// If the file cannot be written.
pub fn write_digits(path: &Path, reading: &Reading) -> Result<()> {
    const TILE: usize = 32;
    const MARGIN: usize = (TILE - SIDE) / 2;
    let width = TILE * reading.digits.len();
    let mut pixels = vec![0; width * TILE];
    for (i, digit) in reading.digits.iter().enumerate() {
        for (row, values) in digit.pixels.chunks_exact(SIDE).enumerate() {
            pixels[(MARGIN + row) * width + TILE * i + MARGIN..][..SIDE].copy_from_slice(values);
        }
    }
    let picture = Picture::from_grey(width as u32, TILE as u32, pixels)?;
    files::write_atomic(path, &picture.to_png()?)
}
