//! The dimensions of MNIST's pictures.

/// The number of rows and of columns of a picture in MNIST's form.
pub const SIDE: usize = 28;
/// The number of pixels of such a picture.
pub const PIXELS: usize = SIDE * SIDE;
/// The largest number of rows or columns that the digit covers in it.
pub const DIGIT: usize = 20;
