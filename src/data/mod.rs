//! Data sets: the IDX reader, and images as the network takes them.

mod augment;
pub mod idx;
mod images;
mod mnist;

pub use augment::{Distortions, warp_by_libtorch};
pub use images::read_picture;
pub(crate) use mnist::resize_bytes;
pub use mnist::{Dataset, Split, to_input};
