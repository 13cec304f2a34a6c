//! The target outputs of f6's 84 units in the network of 1998: small pictures of characters, 7
//! pixels wide and 12 high.
//!
//! Source: figure 3 of the paper, "Initial parameters of the output RBFs for recognizing the full
//! ASCII set".

use crate::{Array, Error, Result};

/// A title, then one line for each ASCII character from the space on: its pixels row by row, 1 for
/// ink.
const ASCII: &str = include_str!("../../data/codes_1998.txt");
/// The pixels of a code, one for each unit of f6.
const PIXELS: usize = 7 * 12;

/// Returns the codes of `classes` classes, shape (classes, 84), float32: 1 for ink and -1 for
/// background.
///
/// With ten classes these are the codes of the digits; with any other number, up to 96, those of
/// the characters from the space on.
///
/// # Errors
/// If there are more classes than codes.
pub fn codes(classes: usize) -> Result<Array> {
    let pictures: Vec<_> = ASCII.lines().skip(1).collect();
    let first = if classes == 10 { usize::from(b'0' - b' ') } else { 0 };
    let chosen = pictures.get(first..first.saturating_add(classes)).ok_or_else(|| {
        Error::Config(format!(
            "classes: expected 2 to {}, as many as the network of 1998 has codes, found {classes}",
            pictures.len()
        ))
    })?;
    let pixels = chosen.iter().flat_map(|picture| picture.bytes());
    let pixels: Vec<f32> = pixels.map(|pixel| if pixel == b'1' { 1.0 } else { -1.0 }).collect();
    Ok(Array::from_f32(&[classes, PIXELS], &pixels))
}
