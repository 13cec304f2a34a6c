//! The folder of corrections: pictures of digits in MNIST's form, in a folder for each label, from which `train` learns.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::StatusCode;
use image::{DynamicImage, ImageFormat, ImageReader};
use lenet5_core::data::digit::{PIXELS, SIDE};
use lenet5_core::{Picture, Result, files};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::task;

use super::failure::Failure;

/// The memory for decoding a picture, in bytes.
const DECODING_MEMORY: u64 = 1 << 20;

/// The folder of corrections.
pub struct Kept {
    folder: Arc<Folder>,
    /// The number of pictures in the folder. Who holds the lock may change files.
    count: Arc<Mutex<usize>>,
}

/// A correction that was stored, as the response to its request.
#[derive(Debug, Serialize)]
pub struct Stored {
    pub label: usize,
    /// The file's name without its extension, by which the correction can be taken back.
    pub name: String,
    /// The number of pictures in the folder.
    pub count: usize,
}

struct Folder {
    path: PathBuf,
    /// Maximum pictures.
    limit: usize,
    /// The number of classes, each of which may have a folder.
    classes: usize,
}

impl Kept {
    /// Creates the folder if need be, and counts the pictures in it.
    ///
    /// # Errors
    /// If the folder cannot be created or read.
    pub fn open(path: &Path, limit: usize, classes: usize) -> Result<Self> {
        files::create_folder(path)?;
        let folder = Folder { path: path.to_owned(), limit, classes };
        let count = Arc::new(Mutex::new(folder.count()?));
        Ok(Self { folder: Arc::new(folder), count })
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.folder.classes
    }

    /// The number of pictures that were in the folder at the start.
    pub fn count(&self) -> usize {
        self.count.try_lock().map_or(0, |count| *count)
    }

    /// Stores a picture. If it is there already, with this label or another, it is moved instead.
    pub async fn store(&self, label: usize, pixels: [u8; PIXELS]) -> Result<Stored, Failure> {
        self.change(move |folder, count| folder.store(count, label, pixels)).await
    }

    /// Takes a correction back. None if there is none of this name.
    pub async fn remove(&self, name: String) -> Result<Option<Stored>, Failure> {
        self.change(move |folder, count| folder.remove(count, name)).await
    }

    /// Changes files, one change after another, on a thread that may block.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder, &mut usize) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let folder = Arc::clone(&self.folder);
        let mut count = Arc::clone(&self.count).lock_owned().await;
        task::spawn_blocking(move || work(&folder, &mut count))
            .await
            .unwrap_or_else(|_| Err(Failure::internal()))
    }
}

impl Folder {
    fn store(
        &self,
        count: &mut usize,
        label: usize,
        pixels: [u8; PIXELS],
    ) -> Result<Stored, Failure> {
        let name = name(&pixels);
        let (there, elsewhere): (Vec<_>, Vec<_>) =
            self.labels(&name).into_iter().partition(|found| *found == label);
        if there.is_empty() {
            if elsewhere.is_empty() && *count >= self.limit {
                // Pictures may have been removed by hand.
                *count = self.count().map_err(failed)?;
                if *count >= self.limit {
                    return Err(self.full());
                }
            }
            let picture = Picture::from_grey(SIDE as u32, SIDE as u32, pixels.to_vec());
            let png = picture.and_then(|picture| picture.to_png()).map_err(failed)?;
            let file = self.file(label, &name);
            files::create_folder(&self.path.join(label.to_string())).map_err(failed)?;
            files::write_atomic(&file, &png).map_err(failed)?;
            *count += 1;
        }
        self.delete(count, &elsewhere, &name)?;
        Ok(Stored { label, name, count: *count })
    }

    fn remove(&self, count: &mut usize, name: String) -> Result<Option<Stored>, Failure> {
        let labels = self.labels(&name);
        self.delete(count, &labels, &name)?;
        Ok(labels.first().map(|label| Stored { label: *label, name, count: *count }))
    }

    fn delete(&self, count: &mut usize, labels: &[usize], name: &str) -> Result<(), Failure> {
        for label in labels {
            let file = self.file(*label, name);
            fs::remove_file(&file).map_err(|error| failed(lenet5_core::Error::io(&file)(error)))?;
            *count = count.saturating_sub(1);
        }
        Ok(())
    }

    fn file(&self, label: usize, name: &str) -> PathBuf {
        self.path.join(label.to_string()).join(format!("{name}.png"))
    }

    /// The labels under which there is a picture of this name, usually one or none.
    fn labels(&self, name: &str) -> Vec<usize> {
        (0..self.classes).filter(|label| self.file(*label, name).is_file()).collect()
    }

    /// Counts the files in the folders of all labels, also those that this service has not written.
    fn count(&self) -> Result<usize> {
        let mut count = 0;
        for folder in entries(&self.path)?.filter(|path| path.is_dir()) {
            count += entries(&folder)?.filter(|path| path.is_file()).count();
        }
        Ok(count)
    }

    fn full(&self) -> Failure {
        let message = format!(
            "expected at most {} corrections in the folder, found as many already; --keep-limit \
             allows more",
            self.limit
        );
        Failure::new(StatusCode::INSUFFICIENT_STORAGE, "full", message)
    }
}

/// The files and folders in a folder, without hidden ones such as temporary files.
fn entries(folder: &Path) -> Result<impl Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(folder).map_err(lenet5_core::Error::io(folder))?.flatten();
    let shown = |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    Ok(entries.filter(shown).map(|entry| entry.path()))
}

/// The name of a picture: the first 16 hexadecimal digits of the SHA-256 of its pixels.
fn name(pixels: &[u8; PIXELS]) -> String {
    Sha256::digest(pixels)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text has the form of a name, and so leads to no other folder.
pub fn is_name(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A failure to change the folder. The log has the details; the client does not get them.
fn failed(error: lenet5_core::Error) -> Failure {
    tracing::error!(%error, "keeping a correction");
    let message = "the folder of corrections cannot be changed; the log of the service says why";
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "not_kept", message)
}

/// The grey values of a PNG of 28x28 pixels.
///
/// # Errors
/// If the file is another one.
pub fn pixels(file: &[u8]) -> Result<[u8; PIXELS], Failure> {
    let wrong = |found: String| {
        let message = format!("expected a PNG of 28x28 pixels, found {found}");
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "not_a_digit", message)
    };
    if image::guess_format(file).ok() != Some(ImageFormat::Png) {
        return Err(wrong("another file".to_owned()));
    }
    match Picture::stated_size(file) {
        Some((width, height)) if [width, height] != [SIDE as u32; 2] => {
            return Err(wrong(format!("{width}x{height}")));
        }
        _ => {}
    }
    let mut reader = ImageReader::with_format(Cursor::new(file), ImageFormat::Png);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(DECODING_MEMORY);
    reader.limits(limits);
    let picture = reader.decode().map_err(|error| wrong(format!("a broken one: {error}")))?;
    if has_alpha(&picture) {
        return Err(wrong("transparent pixels".to_owned()));
    }
    let grey = picture.into_luma8().into_raw();
    grey.try_into().map_err(|_| wrong("another size".to_owned()))
}

fn has_alpha(picture: &DynamicImage) -> bool {
    picture.color().has_alpha() && picture.to_luma_alpha8().pixels().any(|pixel| pixel.0[1] < 255)
}
