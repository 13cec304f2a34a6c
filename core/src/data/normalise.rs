//! Converts pictures and ink to MNIST's form.

use super::digit::{DIGIT, PIXELS, SIDE};
use super::ink::Ink;
use super::picture::Picture;

/// Returns the pixels of a picture that already has MNIST's form, row by row, 0 for paper to 255
/// for ink; `None` for other pictures. Such a picture has 28x28 or 32x32 pixels, a clean border,
/// and ink that is as large as a digit, with its centre of mass in the middle. If the border is
/// bright, the ink is dark.
pub fn as_in_mnist(picture: &Picture) -> Option<[u8; PIXELS]> {
    let size = picture.width() as usize;
    if ![28, 32].contains(&size) || picture.height() as usize != size {
        return None;
    }
    let mut grey = picture.to_grey()?;
    let edges: Vec<usize> =
        (0..size).flat_map(|i| [i, (size - 1) * size + i, i * size, i * size + size - 1]).collect();
    // A digit with its centre of mass in the middle may touch the border with one or two strokes.
    let clean = |grey: &[u8], paper: u8| {
        let other = edges.iter().filter(|pixel| grey[**pixel].abs_diff(paper) > 8);
        8 * other.count() <= edges.len()
    };
    if clean(&grey, 255) {
        grey.iter_mut().for_each(|grey| *grey = 255 - *grey);
    } else if !clean(&grey, 0) {
        return None;
    }
    let margin = (size - SIDE) / 2;
    let rows = grey.chunks_exact(size).skip(margin).take(SIDE);
    let mut pixels = [0; PIXELS];
    for (pixels, row) in pixels.chunks_exact_mut(SIDE).zip(rows) {
        pixels.copy_from_slice(&row[margin..margin + SIDE]);
    }
    let ink = Ink::of_pixels(&pixels);
    let area = ink.area(0.1)?;
    let (x, y) = ink.centre();
    let off = (x - SIDE as f32 / 2.0).abs().max((y - SIDE as f32 / 2.0).abs());
    let side = area.width.max(area.height);
    let strong = pixels.iter().any(|grey| *grey >= 128);
    (strong && off < 1.5 && (15..=SIDE - 4).contains(&side)).then_some(pixels)
}

/// Converts ink to MNIST's form; `None` if there is no ink. It is cropped to the values above a
/// tenth, scaled to 20x20 unless it has about that size, and moved so that its centre of mass is in
/// the middle of 28x28 pixels.
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
