//! The tests of the networks, the kernels and the data: `cargo test --release -p lenet5-core --all-features`. Plain float64
//! code is the oracle.

mod batch; // the kernels for batches, against float64
mod common; // random numbers, weights, comparison
mod distortion; // the distortions of images, against float64
mod forward; // the plain forward pass: shapes, settings, values computed by hand
mod input; // grey values converted to the network's input
#[cfg(feature = "data-sets")]
mod labelled; // data sets in other forms than IDX
mod pattern; // the kernels of the network of 1998, against float64
mod portable; // small tests of the portable kernels, for Miri
mod reference; // the modern network in float64, forward and backward
mod update; // the update rules, against float64
