//! Decoded pictures.

use crate::{Error, Result};

/// A picture: rows of pixels, from top to bottom and each from left to right.
///
/// # Example
/// ```
/// use lenet5_core::Picture;
///
/// let picture = Picture::from_grey(4, 2, vec![255; 8])?;
/// assert_eq!((picture.width(), picture.height()), (4, 2));
/// # Ok::<(), lenet5_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Picture {
    width: u32,
    height: u32,
    pub(crate) pixels: Pixels,
}

/// Pixels in the form in which the file holds them. Converting large pictures to a common form
/// would take several times the memory.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "pictures"), allow(dead_code))] // Only files have some of these forms.
pub(crate) enum Pixels {
    Grey8(Vec<u8>),
    GreyAlpha8(Vec<u8>),
    Rgb8(Vec<u8>),
    Rgba8(Vec<u8>),
    Grey16(Vec<u16>),
    Rgb16(Vec<u16>),
    Rgba16(Vec<u16>),
    RgbaF32(Vec<f32>),
}

impl Picture {
    /// Creates a picture from grey values, 0 for black to 255 for white, row by row.
    ///
    /// # Errors
    /// If there are no pixels, or their number is not width times height.
    pub fn from_grey(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self> {
        check_length(width, height, pixels.len(), 1)?;
        Ok(Self::new(width, height, Pixels::Grey8(pixels)))
    }

    /// Creates a picture from red, green and blue, three bytes for each pixel, row by row.
    ///
    /// # Errors
    /// If there are no pixels, or the number of bytes is not three times width times height.
    pub fn from_rgb(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self> {
        check_length(width, height, pixels.len(), 3)?;
        Ok(Self::new(width, height, Pixels::Rgb8(pixels)))
    }

    /// Creates a picture from red, green, blue and alpha, four bytes for each pixel, row by row.
    ///
    /// # Errors
    /// If there are no pixels, or the number of bytes is not four times width times height.
    pub fn from_rgba(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self> {
        check_length(width, height, pixels.len(), 4)?;
        Ok(Self::new(width, height, Pixels::Rgba8(pixels)))
    }

    pub(crate) fn new(width: u32, height: u32, pixels: Pixels) -> Self {
        Self { width, height, pixels }
    }

    /// Returns the number of pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Returns the number of rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Returns the grey values, 0 for black to 255 for white, or `None` if the picture has colours
    /// or an alpha channel.
    pub(crate) fn to_grey(&self) -> Option<Vec<u8>> {
        let narrow = |value: u16| ((u32::from(value) + 128) / 257) as u8;
        match &self.pixels {
            Pixels::Grey8(grey) => Some(grey.clone()),
            Pixels::Grey16(grey) => Some(grey.iter().map(|value| narrow(*value)).collect()),
            Pixels::Rgb8(colours) => colours.as_chunks().0.iter().map(grey).collect(),
            Pixels::Rgb16(colours) => {
                colours.as_chunks().0.iter().map(|pixel| grey(&pixel.map(narrow))).collect()
            }
            Pixels::GreyAlpha8(_) | Pixels::Rgba8(_) | Pixels::Rgba16(_) | Pixels::RgbaF32(_) => {
                None
            }
        }
    }
}

/// The luminance of a pixel whose channels are nearly equal, with the weights of sRGB; `None` for a
/// coloured pixel.
fn grey(pixel: &[u8; 3]) -> Option<u8> {
    let [r, g, b] = pixel.map(u32::from);
    let differs = |channel: &u8| channel.abs_diff(pixel[0]) > 8;
    (!pixel.iter().any(differs)).then_some(((2126 * r + 7152 * g + 722 * b) / 10_000) as u8)
}

fn check_length(width: u32, height: u32, found: usize, channels: u64) -> Result<()> {
    let expected = u64::from(width) * u64::from(height) * channels;
    if expected == 0 || found as u64 != expected {
        return Err(Error::Picture(format!(
            "expected {expected} bytes of a picture of {width}x{height} pixels, found {found}"
        )));
    }
    Ok(())
}
