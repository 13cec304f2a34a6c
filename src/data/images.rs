//! Pictures as the network's input.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader};
use tch::{Kind, Tensor};

use crate::{Error, Result};

/// Rows and columns of a picture of MNIST.
pub const SIDE: usize = 28;
/// Its pixels.
pub const PIXELS: usize = SIDE * SIDE;

/// What decoding a picture may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most pixels.
    pub pixels: u64,
    /// The most bytes of memory.
    pub memory: u64,
}

impl Default for Limits {
    /// 100 million pixels, 512 MiB.
    fn default() -> Self {
        Self { pixels: 100_000_000, memory: 512 << 20 }
    }
}

/// Decodes a picture of any format that `image` knows, by its content, turned as its EXIF data say.
///
/// # Errors
/// Where it is none, is broken or beyond the limits: what was expected and what was found.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<DynamicImage, String> {
    let _ = limits;
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let mut decoder =
        reader.map_err(|e| e.to_string())?.into_decoder().map_err(|e| e.to_string())?;
    let orientation = decoder.orientation().map_err(|e| e.to_string())?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Reads a picture of one digit, 28x28 or 32x32 pixels, of any format that `image` knows by its content: (H, W),
/// uint8, 0 for the background to 255 for ink. Where the border is bright, the ink is dark.
///
/// # Errors
/// Where the file cannot be read or has another size.
pub fn read_picture(path: &Path) -> Result<Tensor> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let reader = || ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let fail = |found: String| {
        Error::file(path, format!("expected a picture of 28x28 or 32x32 pixels, found {found}"))
    };
    let unreadable = |error: image::ImageError| fail(format!("none that can be read: {error}"));
    let reader = || reader().map_err(Error::io(path));
    let (width, height) = reader()?.into_dimensions().map_err(unreadable)?;
    if (width, height) != (28, 28) && (width, height) != (32, 32) {
        return Err(fail(format!("{width}x{height}")));
    }
    let picture = reader()?.decode().map_err(unreadable)?.into_luma8();
    let size = width as usize;
    let border = |i: &usize| {
        let (row, column) = (i / size, i % size);
        row == 0 || column == 0 || row == size - 1 || column == size - 1
    };
    let pixels = picture.into_raw();
    let on_border: Vec<_> =
        (0..pixels.len()).filter(border).map(|i| u64::from(pixels[i])).collect();
    let bright = on_border.iter().sum::<u64>() > 128 * on_border.len() as u64;
    let pixels: Vec<u8> = pixels.iter().map(|p| if bright { 255 - p } else { *p }).collect();
    Ok(Tensor::f_from_data_size(&pixels, &[height.into(), width.into()], Kind::Uint8)?)
}
