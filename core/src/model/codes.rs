//! The targets of F6's 84 units in the network of 1998: small pictures of characters, 7x12 pixels.
//!
//! Source: the paper's Fig. 3, "Initial parameters of the output RBFs for recognizing the full ASCII
//! set".

use crate::{Array, Error, Result};

/// A title, then a line for each character of ASCII from the space on: its pixels row by row, 1 for ink.
const ASCII: &str = include_str!("../../data/codes_1998.txt");
/// Pixels of a code, and units of f6.
const PIXELS: usize = 7 * 12;

/// The codes of `classes` classes: (classes, 84), float32, 1 for ink and -1 for background.
///
/// Ten classes are the digits; any other number, up to 96, are the characters from the space on.
///
/// # Errors
/// Where there are more classes than codes.
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
