//! The error type of the package.

use std::io;
use std::path::Path;

/// The error type. Messages name the file, and state what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error about a file, a setting or a picture.
    #[error(transparent)]
    Core(#[from] lenet5_core::Error),
    /// The device cannot be used.
    #[error("{0}")]
    Device(String),
    /// libtorch reported an error. The text is the first line of its message that is not empty.
    #[error("libtorch: {0}")]
    Torch(String),
    /// An error of a job of several processes.
    #[error("{0}")]
    Job(String),
    /// A chart could not be drawn.
    #[error("chart: {0}")]
    Chart(String),
}

/// The result type of the package.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an error about an argument or a setting that is out of range or contradicts another.
    pub(crate) fn config(message: impl Into<String>) -> Self {
        lenet5_core::Error::Config(message.into()).into()
    }

    /// Creates an error about a file whose content is not as expected.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        lenet5_core::Error::file(path, message).into()
    }

    /// Returns a function for `map_err` after an attempt to write `path`.
    pub(crate) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let error = lenet5_core::Error::writing(path);
        move |cause| error(cause).into()
    }

    /// Returns a function for `map_err` after an operation on `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let error = lenet5_core::Error::io(path);
        move |cause| error(cause).into()
    }

    /// Creates an error from the first line of libtorch's message that is not empty: messages of
    /// TorchScript start with an empty line, and others end in a C++ backtrace.
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
