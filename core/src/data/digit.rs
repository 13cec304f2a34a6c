//! The form of MNIST's pictures.

/// Rows and columns of a picture in MNIST's form.
pub const SIDE: usize = 28;
/// Pixels of such a picture.
pub const PIXELS: usize = SIDE * SIDE;
/// The most rows or columns that the digit takes up in it.
pub const DIGIT: usize = 20;
