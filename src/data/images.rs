//! Pictures: decoded, their ink told from their paper, and brought into MNIST's form.

use std::io::Cursor;
use std::path::Path;

use image::error::{LimitError, LimitErrorKind};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use tch::{Kind, Tensor};

use super::ink::Ink;
use super::jpeg::{self, Fault};
use crate::{Error, Result, files, foreign};

/// Rows and columns of a picture of MNIST.
pub const SIDE: usize = 28;
/// Its pixels.
pub const PIXELS: usize = SIDE * SIDE;
/// Rows and columns that a digit takes of it at most.
pub const DIGIT: usize = 20;

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

/// Decodes a picture of any format that `image` knows, by its content, turned as its EXIF data say; of an
/// animation the first picture.
///
/// # Errors
/// Where it is none, is broken or beyond the limits: what was expected and what was found.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<DynamicImage, String> {
    decode_as(None, bytes, limits)
}

/// The same; a format without a mark in its content is the one that is given.
fn decode_as(
    unmarked: Option<ImageFormat>,
    bytes: &[u8],
    limits: &Limits,
) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    if let (None, Some(format)) = (reader.format(), unmarked) {
        reader.set_format(format);
    }
    let Some(format) = reader.format() else {
        let found = match bytes {
            [_, _, _, _, b'f', b't', b'y', b'p', ..] => "HEIC, AVIF or a film",
            _ => foreign::name(bytes).unwrap_or("none that is known"),
        };
        return Err(format!("expected a picture (PNG, JPEG, WebP, TIFF, ...), found {found}"));
    };
    let name = format!("{format:?}").to_uppercase();
    let broken = |error: ImageError| match error {
        ImageError::Limits(_) => format!(
            "expected a picture that takes at most {} MiB to decode, found a larger {name}",
            limits.memory >> 20
        ),
        error => format!("expected a whole picture, found a {name} that is broken: {error}"),
    };
    let mut memory = image::Limits::default();
    memory.max_alloc = Some(limits.memory);
    reader.limits(memory);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels {
        let most = limits.pixels;
        return Err(format!("expected at most {most} pixels, found {width} x {height}"));
    }
    if decoder.total_bytes() > limits.memory {
        return Err(broken(ImageError::Limits(LimitError::from_kind(
            LimitErrorKind::InsufficientMemory,
        ))));
    }
    if width == 0 || height == 0 {
        return Err(format!("expected a picture, found one of {width} x {height} pixels"));
    }
    if format == ImageFormat::Jpeg {
        // The decoder fills up what is missing.
        jpeg::check(bytes).map_err(|fault| match fault {
            Fault::EndsEarly => "expected a whole picture, found a JPEG that ends early".to_owned(),
            Fault::Broken => "expected a whole picture, found a JPEG with broken data".to_owned(),
        })?;
    }
    // Of a picture whose EXIF data are broken the pixels are still there.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// [`decode`] of a file.
///
/// # Errors
/// As [`decode`], and where the file cannot be read.
pub fn open(path: &Path, limits: &Limits) -> Result<DynamicImage> {
    let bytes = files::read(path, limits.memory, "")?;
    let unmarked = ImageFormat::from_path(path).ok().filter(|format| *format == ImageFormat::Tga);
    decode_as(unmarked, &bytes, limits).map_err(|message| Error::file(path, message))
}

/// A picture of 28x28 or 32x32 pixels that is as MNIST's are, row by row, 0 for the paper to 255 for ink: with a
/// clean border, and ink of a digit's size whose mass is in the middle. None where it is not. Where the border
/// is bright, the ink is dark.
pub fn as_in_mnist(picture: &DynamicImage) -> Option<[u8; PIXELS]> {
    let size = picture.width() as usize;
    if ![28, 32].contains(&size) || picture.height() as usize != size {
        return None;
    }
    if picture.color().has_alpha() || picture.color().has_color() && is_coloured(picture) {
        return None;
    }
    let mut grey = picture.to_luma8().into_raw();
    let edges: Vec<usize> =
        (0..size).flat_map(|i| [i, (size - 1) * size + i, i * size, i * size + size - 1]).collect();
    // A digit whose mass is in the middle may reach the edge, with a stroke or two.
    let clean = |grey: &[u8], paper: u8| {
        let other = edges.iter().filter(|at| grey[**at].abs_diff(paper) > 8);
        8 * other.count() <= edges.len()
    };
    if clean(&grey, 255) {
        grey.iter_mut().for_each(|grey| *grey = 255 - *grey);
    } else if !clean(&grey, 0) {
        return None;
    }
    let at = (size - SIDE) / 2;
    let rows = grey.chunks_exact(size).skip(at).take(SIDE);
    let mut pixels = [0; PIXELS];
    for (pixels, row) in pixels.chunks_exact_mut(SIDE).zip(rows) {
        pixels.copy_from_slice(&row[at..at + SIDE]);
    }
    let ink = Ink::of_pixels(&pixels);
    let area = ink.area(0.1)?;
    let (x, y) = ink.centre();
    let off = (x - SIDE as f32 / 2.0).abs().max((y - SIDE as f32 / 2.0).abs());
    let side = area.width.max(area.height);
    let strong = pixels.iter().any(|grey| *grey >= 128);
    (strong && off < 1.5 && (15..=SIDE - 4).contains(&side)).then_some(pixels)
}

/// Whether the channels differ.
fn is_coloured(picture: &DynamicImage) -> bool {
    picture.to_rgb8().pixels().any(|pixel| pixel.0.iter().any(|c| c.abs_diff(pixel.0[0]) > 8))
}

/// Ink in MNIST's form: cropped to what is more than a tenth, scaled into 20x20 where it is not about that size,
/// and moved so that its mass is in the middle of 28x28. None where there is no ink.
///
/// Source: LeCun et al. 1998, section III.A.
pub fn to_mnist(ink: &Ink) -> Option<[u8; PIXELS]> {
    let mut digit = ink.cropped(&ink.area(0.1)?);
    let side = digit.width().max(digit.height());
    if !(DIGIT - 1..=DIGIT + 1).contains(&side) {
        let scaled = |length: usize| (length * DIGIT).div_ceil(side).clamp(1, DIGIT);
        digit = digit.resized(scaled(digit.width()), scaled(digit.height()));
    }
    let most = digit.values().iter().copied().fold(0.0, f32::max);
    let (x, y) = digit.centre();
    let shift = |centre: f32, length: usize| {
        let free = (SIDE - length) as f32;
        (SIDE as f32 / 2.0 - centre).round().clamp(0.0, free) as usize
    };
    let (left, top) = (shift(x, digit.width()), shift(y, digit.height()));
    let mut pixels = [0; PIXELS];
    for (row, values) in digit.values().chunks_exact(digit.width()).enumerate() {
        for (column, value) in values.iter().enumerate() {
            pixels[(top + row) * SIDE + left + column] = (255.0 * value / most).round() as u8;
        }
    }
    Some(pixels)
}

/// Pictures in MNIST's form as a tensor: (N, 28, 28), uint8.
///
/// # Errors
/// Where libtorch refuses.
pub fn to_tensor(pictures: &[[u8; PIXELS]]) -> Result<Tensor> {
    let shape = [pictures.len() as i64, SIDE as i64, SIDE as i64];
    Ok(Tensor::f_from_data_size(pictures.as_flattened(), &shape, Kind::Uint8)?)
}
