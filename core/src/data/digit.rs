//! The dimensions of MNIST's pictures.

/// The number of rows and of columns of a picture in MNIST's form.
pub const SIDE: usize = 28;
/// The number of pixels of such a picture.
pub const PIXELS: usize = SIDE * SIDE;
/// The height or the width of the digit in it, whichever is larger.
pub const DIGIT: usize = 20;
