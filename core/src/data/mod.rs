//! Data: images with labels in many forms, pictures and the ink in them, and images as the networks
//! take them.

#[cfg(feature = "pictures")]
mod decode;
pub mod digit;
pub mod idx;
pub mod ink;
mod input;
#[cfg(feature = "pictures")]
mod jpeg;
#[cfg(feature = "data-sets")]
#[doc(hidden)]
pub mod labelled;
mod normalise;
mod picture;
pub mod strokes;

#[cfg(feature = "pictures")]
pub use decode::PictureLimits;
pub use input::{InputLevels, resize, to_input};
#[cfg(feature = "data-sets")]
pub use labelled::{Fit, Form, LabelledImages, Split};
pub use normalise::{as_in_mnist, to_mnist};
pub use picture::Picture;
