//! Data sets of images and labels, and batches of them as tensors.

mod dataset;
mod distort;
mod examples;

pub use dataset::{Dataset, Fit, Form, Split, to_input};
pub use distort::DistortionBatch;
pub use examples::examples;
