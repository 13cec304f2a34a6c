//! Data sets: the IDX reader, and images as the network takes them.

mod augment;
pub mod idx;
pub mod images;
mod mnist;

pub use augment::{Distortions, Warps};
pub use images::read_picture;
pub use mnist::{Dataset, Split, to_input};
