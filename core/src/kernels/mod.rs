//! Hand-written SIMD kernels. The tests compare them with plain float64 code.
//!
//! [`batch`] computes the modern network in batches: forward pass, gradient and update rules. [`pattern`] computes the network
//! of 1998, one pattern at a time as in the paper. [`distortion`] distorts training images. All of them are generic over the
//! instruction sets of [`simd`].

pub mod batch;
pub mod distortion;
pub mod pattern;
pub mod simd;
pub mod tanh;
