//! Data sets: the IDX reader, and images as the network takes them.

pub mod idx;
mod mnist;

pub use mnist::{Dataset, Split, to_input};
