//! Finds out which form the data set in a file or folder has.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::Split;
use super::class_folders::ClassFolders;
use super::idx_files::IdxFiles;
use crate::{Error, Result, files, foreign};

/// The largest number of files in a folder that are examined for tables.
const MAX_TABLES: usize = 100;
/// The number of bytes that tell the form of a file.
const START: u64 = 4096;
/// The size of the largest table, in bytes after decompression: about that of EMNIST as CSV.
pub const MAX_TEXT: u64 = 4 << 30;

/// The files of a part of a data set.
pub enum Source {
    /// A file of images and one of labels.
    Idx(IdxFiles),
    /// A table of text.
    Table {
        /// The file.
        path: PathBuf,
        /// Whether it holds one of two parts.
        has_parts: bool,
    },
    /// NumPy's npz.
    Npz {
        /// The file.
        path: PathBuf,
        /// Whether it holds one of two parts. A file may also hold both.
        has_parts: bool,
    },
    /// A folder of pictures for each class.
    ClassFolders(ClassFolders),
}

/// The form of a file that holds a whole part.
#[derive(Clone, Copy, PartialEq)]
enum FileForm {
    Table,
    Npz,
}

/// Finds the files of a part of the data set.
///
/// # Errors
/// If there is no data set, or more than one.
pub fn find(path: &Path, split: Split) -> Result<Source> {
    if path.is_file() {
        return match form(path) {
            Some(form) => Ok(source(form, path.to_owned(), false)),
            None => Err(Error::file(path, describe_file(path))),
        };
    }
    let entries = sorted_entries(path)?;
    if let Some(files) = IdxFiles::find(path, &entries, split)? {
        return Ok(Source::Idx(files));
    }
    if let Some(source) = find_tables(path, &entries, split)? {
        return Ok(source);
    }
    if let Some(folders) = ClassFolders::find(path, &entries, split)? {
        return Ok(Source::ClassFolders(folders));
    }
    Err(Error::file(path, describe_entries(&entries)))
}

fn source(form: FileForm, path: PathBuf, has_parts: bool) -> Source {
    match form {
        FileForm::Table => Source::Table { path, has_parts },
        FileForm::Npz => Source::Npz { path, has_parts },
    }
}

/// Finds the tables among the files of a folder. The word "train" or "test" in their names tells
/// which part they hold.
fn find_tables(folder: &Path, entries: &[PathBuf], split: Split) -> Result<Option<Source>> {
    let files = || entries.iter().filter(|path| path.is_file() && !is_hidden(path));
    if files().count() > MAX_TABLES {
        return Ok(None);
    }
    let tables: Vec<(FileForm, &PathBuf)> =
        files().filter_map(|path| Some((form(path)?, path))).collect();
    let named = |words: &[&str]| -> Vec<(FileForm, &PathBuf)> {
        let has =
            |path: &Path| words.iter().any(|word| file_name(path).to_lowercase().contains(word));
        tables.iter().copied().filter(|(_, path)| has(path)).collect()
    };
    let (train, test) = (named(&["train"]), named(&["test", "t10k"]));
    let found = match (split, &train[..], &test[..]) {
        (_, [], []) => &tables,
        (Split::Train, ..) => &train,
        (Split::Test, _, []) if train.len() == 1 => {
            // Only images to train with.
            return Ok(Some(source(train[0].0, train[0].1.clone(), false)));
        }
        (Split::Test, ..) => &test,
    };
    let has_parts = !train.is_empty() && !test.is_empty();
    match &found[..] {
        [] if tables.is_empty() => Ok(None),
        [(form, path)] => Ok(Some(source(*form, (*path).clone(), has_parts))),
        _ => {
            let names = tables.iter().map(|(_, path)| format!("\"{}\"", file_name(path)));
            Err(Error::file(
                folder,
                format!(
                    "expected one table with images, or one with \"train\" and one with \"test\" in its name, \
                     found {}",
                    names.collect::<Vec<_>>().join(", ")
                ),
            ))
        }
    }
}

/// Detects the form of a file by its start; `None` if it is no table and no npz.
fn form(path: &Path) -> Option<FileForm> {
    let start = start(path)?;
    if start.starts_with(b"PK\x03\x04") {
        // The name of the first member follows its header of 30 bytes.
        let name = start.get(30..300.min(start.len()))?;
        return name.windows(4).any(|bytes| bytes == b".npy").then_some(FileForm::Npz);
    }
    let line = start.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_start_matches('\u{feff}').trim();
    let is_number = |field: &str| field.trim().parse::<f64>().is_ok();
    let is_table = match line.matches(',').count() {
        0 => line.split_whitespace().take(5).filter(|field| is_number(field)).count() == 5,
        commas => commas >= 4,
    };
    is_table.then_some(FileForm::Table)
}

/// Returns the first bytes of a file, after decompression; `None` if they cannot be read.
fn start(path: &Path) -> Option<Vec<u8>> {
    let mut reader = decompressed(BufReader::new(files::open(path).ok()?)).ok()?.take(START);
    let mut start = Vec::new();
    // What came before an error is enough to tell the form.
    let _ = reader.read_to_end(&mut start);
    Some(start)
}

/// Returns a reader of the data of a file that may be compressed with gzip.
///
/// # Errors
/// If the file cannot be read.
pub fn decompressed<'a>(mut reader: impl BufRead + 'a) -> std::io::Result<Box<dyn BufRead + 'a>> {
    Ok(match reader.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(BufReader::new(MultiGzDecoder::new(reader))),
        false => Box::new(reader),
    })
}

/// Returns the entries of a folder, sorted by name.
///
/// # Errors
/// If the folder cannot be read.
pub fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder.read_dir().map_err(Error::io(folder))?;
    let paths = entries.map(|entry| Ok(entry.map_err(Error::io(folder))?.path()));
    let mut paths = paths.collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Returns the last part of a path.
pub fn file_name(path: &Path) -> String {
    files::shown(Path::new(path.file_name().unwrap_or_default()))
}

/// Returns whether an entry of a folder is hidden, as systems write them beside data.
pub fn is_hidden(path: &Path) -> bool {
    let name = file_name(path);
    name.starts_with('.') || ["__MACOSX", "Thumbs.db", "desktop.ini"].contains(&name.as_str())
}

/// The forms of a data set, for messages.
const FORMS: &str = "a folder with IDX files (train-images-idx3-ubyte, ...) or with a folder of pictures \
                     for each class, CSV, npz, or the zip codes' text";

/// Describes a file that is no data set.
fn describe_file(path: &Path) -> String {
    let mut raw = Vec::new();
    let opened = files::open(path).ok();
    let read = opened.map(|file| file.take(foreign::START as u64).read_to_end(&mut raw));
    let (name, remedy) = match read {
        Some(Ok(_)) => (foreign::name(&raw), remedy(path, &raw)),
        _ => (None, None),
    };
    if let Some(remedy) = remedy {
        let what = name.and_then(|name| name.split(':').next()).unwrap_or("another form");
        return format!("expected a data set, found {what}; to convert it: {remedy}");
    }
    match name {
        Some(name) if name.starts_with("IDX") => {
            format!("expected the folder of the files, found one of them ({name}): name the folder")
        }
        Some("a picture") => {
            "expected many pictures in a folder for each class, found one".to_owned()
        }
        Some(name) if !name.starts_with("gzip") => format!("expected {FORMS}, found {name}"),
        _ => format!("expected {FORMS}, found a file of another form"),
    }
}

/// Returns a line of shell that converts a file of a form that is not read here.
fn remedy(path: &Path, start: &[u8]) -> Option<String> {
    let file = file_name(path);
    let name = file.to_lowercase();
    let is = |magic: &[u8]| start.starts_with(magic);
    let tar_names = [".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"];
    Some(if is(b"PAR1") {
        format!(
            "python3 -c \"import io, numpy, pandas; from PIL import Image; d = pandas.read_parquet('{file}'); \
             numpy.savez_compressed('{file}.npz', x=numpy.stack([Image.open(io.BytesIO(i['bytes'])) for i \
             in d['image']]), y=d['label'])\""
        )
    } else if is(b"\x89HDF\r\n") {
        format!(
            "python3 -c \"import h5py, numpy; f = h5py.File('{file}'); \
             numpy.savez_compressed('{file}.npz', **{{k: f[k][:] for k in f}})\""
        )
    } else if is(b"\x93NUMPY") {
        "python3 -c \"import numpy; numpy.savez_compressed('data.npz', x=numpy.load('images.npy'), \
         y=numpy.load('labels.npy'))\""
            .to_owned()
    } else if tar_names.iter().any(|end| name.ends_with(end))
        || start.get(257..262) == Some(b"ustar")
    {
        format!("python3 -m tarfile -e '{file}'")
    } else if is(b"PK\x03\x04") {
        format!("python3 -m zipfile -e '{file}' .")
    } else {
        return None;
    })
}

/// Describes the entries of a folder that holds no data set: a few names with their formats, the
/// number of the others, and what converts the first one that can be converted.
fn describe_entries(entries: &[PathBuf]) -> String {
    const MAX_SHOWN: usize = 6;
    if entries.is_empty() {
        return format!("expected {FORMS}, found an empty folder");
    }
    let kind = |path: &Path| {
        let mut start = Vec::new();
        files::open(path).ok()?.take(foreign::START as u64).read_to_end(&mut start).ok()?;
        let name = foreign::name(&start).and_then(|name| name.split(':').next());
        Some((name, remedy(path, &start)))
    };
    let mut first_remedy = None;
    let mut shown = Vec::new();
    for path in entries.iter().take(MAX_SHOWN) {
        if path.is_dir() {
            shown.push(format!("\"{}/\"", file_name(path)));
            continue;
        }
        let (name, remedy) = kind(path).unwrap_or_default();
        first_remedy = first_remedy.or(remedy);
        let kind = name.map_or_else(String::new, |name| format!(" ({name})"));
        shown.push(format!("\"{}\"{kind}", file_name(path)));
    }
    let mut text = format!("expected {FORMS}, found {}", shown.join(", "));
    if let more @ 1.. = entries.len().saturating_sub(MAX_SHOWN) {
        text += &format!(" and {more} more");
    }
    if let Some(remedy) = first_remedy {
        text += &format!("; to convert it: {remedy}");
    }
    text
}
