//! Data: IDX files, pictures and the ink in them, and images as the networks take them.

#[cfg(feature = "pictures")]
mod decode;
pub mod digit;
pub mod idx;
pub mod ink;
mod input;
#[cfg(feature = "pictures")]
mod jpeg;
mod normalise;
mod picture;
pub mod strokes;

#[cfg(feature = "pictures")]
pub use decode::PictureLimits;
pub use input::{InputLevels, resize, to_input};
pub use normalise::{as_in_mnist, to_mnist};
pub use picture::Picture;
