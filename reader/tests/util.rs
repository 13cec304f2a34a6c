//! Helpers: programs, temporary folders, digits of MNIST.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use image::{DynamicImage, GrayImage, ImageFormat};
use lenet5_core::data::digit::{PIXELS, SIDE};
use lenet5_core::data::idx;
use tempfile::TempDir;

pub use crate::ended::Ended;
use crate::ended::as_at_a_terminal;

/// A folder for one test, removed at its end.
pub fn temp() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("target/tmp can be written to")
}

/// A path in the repository.
pub fn in_repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").join(path)
}

/// One of the commands of `lenet5`, in the folder `target/tmp`.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenet5"));
    command.arg(name).current_dir(env!("CARGO_TARGET_TMPDIR"));
    as_at_a_terminal(&mut command);
    command
}

/// Runs a command to its end.
pub fn run<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Ended {
    program(name).args(arguments).output().expect("the program starts").into()
}

/// The first test images of MNIST, and their labels.
pub fn digits(count: usize) -> (Vec<[u8; PIXELS]>, Vec<u8>) {
    let read = |name: &str, dimensions| {
        let path = in_repository("data/mnist").join(name);
        idx::read(&path, dimensions).expect("MNIST is in the repository").data
    };
    let mut labels = read("t10k-labels-idx1-ubyte.gz", 1);
    labels.truncate(count);
    let images = read("t10k-images-idx3-ubyte.gz", 3);
    (images.as_chunks().0[..count].to_vec(), labels)
}

/// An image of MNIST as a picture: bright ink on black.
pub fn grey(pixels: &[u8; PIXELS]) -> DynamicImage {
    GrayImage::from_raw(SIDE as u32, SIDE as u32, pixels.to_vec()).expect("28x28 pixels").into()
}

/// The bytes of a picture's file.
pub fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("the format holds these pixels");
    bytes.into_inner()
}
