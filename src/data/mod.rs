//! Data sets: the IDX reader, and images as the network takes them.

pub(crate) mod augment;
pub mod idx;
pub mod images;
pub mod ink;
mod jpeg;
mod mnist;
pub(crate) mod strokes;

pub use augment::{Distortions, Warps};
pub use mnist::{Dataset, Split, to_input};
