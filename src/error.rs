//! The library's error type.

use std::io;
use std::path::{Path, PathBuf};

use crate::files;

/// What can go wrong. Messages name the file, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is not what was expected.
    #[error("{}: {message}", files::shown(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// A file could not be read or written.
    #[error("{}: {error}", files::shown(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        error: io::Error,
    },
    /// An argument or a setting is out of its range, or does not fit another.
    #[error("{0}")]
    Config(String),
    /// The device cannot be used.
    #[error("{0}")]
    Device(String),
    /// libtorch refused; the first line of its message that is not empty.
    #[error("libtorch: {0}")]
    Torch(String),
    /// There is nothing to read in a picture.
    #[error("{0}")]
    Picture(String),
    /// A chart could not be drawn.
    #[error("chart: {0}")]
    Chart(String),
}

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A file that is not what was expected.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), message: message.into() }
    }

    /// Of a picture, with its file named.
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Picture(message) => Self::file(path, message),
            other => other,
        }
    }

    /// The file or folder that it is about.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. } | Self::Io { path, .. } => Some(path),
            _ => None,
        }
    }

    /// From libtorch's message: TorchScript's start with an empty line, and others end in a C++
    /// backtrace.
    pub(crate) fn libtorch(text: &str) -> Self {
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Self::Torch(line.to_owned())
    }

    /// For `map_err` after an attempt to write `path`; what was tried is said, as "No such file or directory" of a
    /// file that is to be written would be a riddle.
    pub(crate) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::file(&path, format!("cannot be written: {}", reason(&error)))
    }

    /// For `map_err` after an operation on `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}

/// The operating system's words, without those of tempfile, which name its own file.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" at path ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

/// A number for a message: very large and very small ones with an exponent.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:?}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        let text = match error {
            tch::TchError::Torch(text) => text,
            other => other.to_string(),
        };
        Self::libtorch(&text)
    }
}
