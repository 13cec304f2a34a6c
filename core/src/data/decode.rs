//! Decodes and encodes picture files.

use std::io::Cursor;
use std::path::Path;

use image::error::{LimitError, LimitErrorKind};
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, ImageFormat,
    ImageReader,
};

use super::jpeg::{self, Fault};
use super::picture::{Picture, Pixels};
use crate::{Error, Result, files, foreign};

/// Limits for decoding a picture.
#[derive(Clone, Copy, Debug)]
pub struct PictureLimits {
    /// The largest number of pixels.
    pub pixels: u64,
    /// The largest amount of memory in bytes.
    pub memory: u64,
}

impl Default for PictureLimits {
    /// Returns 100 million pixels and 512 MiB.
    fn default() -> Self {
        Self { pixels: 100_000_000, memory: 512 << 20 }
    }
}

impl Picture {
    /// Decodes a picture of any format that the crate `image` reads. The format is detected from
    /// the content. The picture is rotated and mirrored as its EXIF data state. An animation yields
    /// its first frame.
    ///
    /// # Errors
    /// If the bytes are no picture, or the picture is damaged or exceeds the limits; the message
    /// states what was expected and what was found.
    pub fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<Self, String> {
        decode_as(None, bytes, limits)
    }

    /// Reads a file and decodes it as [`Picture::decode`] does.
    ///
    /// # Errors
    /// The errors of [`Picture::decode`]; also if the file cannot be read.
    pub fn open(path: impl AsRef<Path>, limits: &PictureLimits) -> Result<Self> {
        let path = path.as_ref();
        let bytes = files::read(path, limits.memory, "")?;
        let unmarked =
            ImageFormat::from_path(path).ok().filter(|format| *format == ImageFormat::Tga);
        decode_as(unmarked, &bytes, limits).map_err(|message| Error::file(path, message))
    }

    /// Returns the width and height that a picture's header states, without decoding the picture;
    /// `None` if the header cannot be read.
    pub fn stated_size(bytes: &[u8]) -> Option<(u32, u32)> {
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?.into_dimensions().ok()
    }

    /// Returns whether the bytes start like a picture of a known format.
    pub fn is_known(bytes: &[u8]) -> bool {
        image::guess_format(bytes).is_ok()
    }

    /// Returns whether a file's name has the extension of a known picture format.
    pub fn is_known_name(path: &Path) -> bool {
        ImageFormat::from_path(path).is_ok()
    }

    /// Encodes the picture as PNG. It must have grey values or colours of 8 bits.
    ///
    /// # Errors
    /// If the picture has pixels of another form.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let (bytes, form) = match &self.pixels {
            Pixels::Grey8(bytes) => (bytes, ExtendedColorType::L8),
            Pixels::Rgb8(bytes) => (bytes, ExtendedColorType::Rgb8),
            Pixels::Rgba8(bytes) => (bytes, ExtendedColorType::Rgba8),
            _ => return Err(Error::Picture("expected pixels of 8 bits for PNG".to_owned())),
        };
        let mut png = Vec::new();
        image::codecs::png::PngEncoder::new(&mut png)
            .write_image(bytes, self.width(), self.height(), form)
            .map_err(|error| Error::Picture(error.to_string()))?;
        Ok(png)
    }
}

/// Decodes a picture. `unmarked` is the format to assume if the content identifies none.
fn decode_as(
    unmarked: Option<ImageFormat>,
    bytes: &[u8],
    limits: &PictureLimits,
) -> Result<Picture, String> {
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
        // The decoder fills in missing pixels without an error.
        jpeg::check(bytes).map_err(|fault| match fault {
            Fault::EndsEarly => "expected a whole picture, found a JPEG that ends early".to_owned(),
            Fault::Broken => "expected a whole picture, found a JPEG with broken data".to_owned(),
        })?;
    }
    // The pixels are usable even if the EXIF data are broken.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(from_image(picture))
}

fn from_image(image: DynamicImage) -> Picture {
    let (width, height) = (image.width(), image.height());
    let pixels = match image {
        DynamicImage::ImageLuma8(image) => Pixels::Grey8(image.into_raw()),
        DynamicImage::ImageLumaA8(image) => Pixels::GreyAlpha8(image.into_raw()),
        DynamicImage::ImageRgb8(image) => Pixels::Rgb8(image.into_raw()),
        DynamicImage::ImageRgba8(image) => Pixels::Rgba8(image.into_raw()),
        DynamicImage::ImageLuma16(image) => Pixels::Grey16(image.into_raw()),
        DynamicImage::ImageRgb16(image) => Pixels::Rgb16(image.into_raw()),
        DynamicImage::ImageRgba16(image) => Pixels::Rgba16(image.into_raw()),
        other => Pixels::RgbaF32(other.into_rgba32f().into_raw()),
    };
    Picture::new(width, height, pixels)
}
