//! MNIST from data/mnist.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

/// Side of the network's input.
pub const SIDE: usize = 32;
/// Number of classes.
pub const CLASSES: usize = 10;
/// Side of an image in the file, and the zeros on each of its sides.
const FILE_SIDE: usize = 28;
const MARGIN: usize = (SIDE - FILE_SIDE) / 2;

/// Images and their labels.
pub struct Images {
    /// (N, 32, 32), from 0 to 1.
    pub pixels: Vec<f32>,
    /// (N), from 0 to 9.
    pub labels: Vec<u8>,
}

impl Images {
    /// Reads `train` or `t10k`.
    pub fn read(split: &str) -> Result<Self> {
        let images = read_idx(&format!("{split}-images-idx3-ubyte.gz"), 16)?;
        let labels = read_idx(&format!("{split}-labels-idx1-ubyte.gz"), 8)?;
        ensure!(images.len() == labels.len() * FILE_SIDE * FILE_SIDE, "{split}: wrong size");
        let mut pixels = vec![0.0; labels.len() * SIDE * SIDE];
        let padded = pixels.chunks_exact_mut(SIDE * SIDE);
        for (image, padded) in images.chunks_exact(FILE_SIDE * FILE_SIDE).zip(padded) {
            let rows = padded.chunks_exact_mut(SIDE).skip(MARGIN);
            for (row, padded) in image.chunks_exact(FILE_SIDE).zip(rows) {
                for (&grey, pixel) in row.iter().zip(&mut padded[MARGIN..]) {
                    *pixel = f32::from(grey) / 255.0;
                }
            }
        }
        Ok(Self { pixels, labels })
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns the first images' pixels.
    pub fn first(&self, count: usize) -> &[f32] {
        &self.pixels[..count * SIDE * SIDE]
    }

    /// Iterates over the pixels and labels of `size` images at a time.
    pub fn chunks(&self, size: usize) -> impl Iterator<Item = (&[f32], &[u8])> {
        self.pixels.chunks(size * SIDE * SIDE).zip(self.labels.chunks(size))
    }
}

/// Reads the values of a file in the format IDX, after its header.
fn read_idx(name: &str, header: usize) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mnist").join(name);
    let mut bytes = Vec::new();
    let file = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
    GzDecoder::new(file).read_to_end(&mut bytes)?;
    ensure!(bytes.len() > header, "{}: too short", path.display());
    Ok(bytes.split_off(header))
}
