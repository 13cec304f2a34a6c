//! SIMD kernels, written by hand and checked against the plain forward pass and finite differences in float64.
//!
//! [`batch`] computes the modern network, a batch at a time: forward, gradient, update rules. [`pattern`] computes
//! the network of 1998, one pattern at a time, as the paper did. [`distortion`] distorts training images. All of them are
//! generic over [`simd`].

pub mod batch;
pub mod distortion;
pub mod pattern;
pub mod simd;
pub mod tanh;
