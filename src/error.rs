//! The error type of the package.

use std::io;
use std::path::Path;

/// An error. Messages name the file, and say what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error about a file, a setting or a picture.
    #[error(transparent)]
    Core(#[from] lenet5_core::Error),
    /// The device cannot be used.
    #[error("{0}")]
    Device(String),
    /// libtorch refused an operation. The text is the first line of its message that is not empty.
    #[error("libtorch: {0}")]
    Torch(String),
    /// A chart could not be drawn.
    #[error("chart: {0}")]
    Chart(String),
}

/// The result type of the package.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An argument or a setting is out of its range, or contradicts another one.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        lenet5_core::Error::Config(message.into()).into()
    }

    /// A file's content is not the expected one.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        lenet5_core::Error::file(path, message).into()
    }

    /// For `map_err` after an attempt to write `path`.
    pub(crate) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let error = lenet5_core::Error::writing(path);
        move |cause| error(cause).into()
    }

    /// For `map_err` after an operation on `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let error = lenet5_core::Error::io(path);
        move |cause| error(cause).into()
    }

    /// Takes the first line of libtorch's message that says something: messages of TorchScript start with an empty line,
    /// and others end in a C++ backtrace.
    pub(crate) fn libtorch(text: &str) -> Self {
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        Self::Torch(line.to_owned())
    }
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
