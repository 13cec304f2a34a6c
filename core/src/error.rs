//! The error type of the core.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::files;

/// An error of the core. Messages name the file, and say what was expected and what was found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file's content is not the expected one.
    File {
        /// The file.
        path: PathBuf,
        /// The message: what was expected and what was found.
        message: String,
    },
    /// A file could not be read or written.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        error: io::Error,
    },
    /// An argument or a setting is out of its range, or contradicts another one.
    Config(String),
    /// A picture holds nothing to read.
    Picture(String),
}

/// The result type of the core.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, message } => write!(f, "{}: {message}", files::shown(path)),
            Self::Io { path, error } => write!(f, "{}: {error}", files::shown(path)),
            Self::Config(message) | Self::Picture(message) => f.write_str(message),
        }
    }
}

// `source` is none: the message holds the operating system's error already.
impl std::error::Error for Error {}

impl Error {
    /// An error about a file whose content is not the expected one.
    pub fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), message: message.into() }
    }

    /// Names the file of a picture in an error about its content.
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Picture(message) => Self::file(path, message),
            other => other,
        }
    }

    /// The file or folder that the error is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } | Self::Io { path, .. } => Some(path),
            _ => None,
        }
    }

    /// For `map_err` after an attempt to write `path`. The message says that writing failed, because "No such file or
    /// directory" about a new file would be confusing.
    pub fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::file(&path, format!("cannot be written: {error}"))
    }

    /// For `map_err` after an operation on `path`.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

/// Formats a number for a message: very large and very small ones with an exponent.
#[doc(hidden)]
pub fn number(value: f64) -> String {
    let text = format!("{value:?}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}
