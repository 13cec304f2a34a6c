//! What trains faster than autograd, step by step, does.
//!
//! On the CPU by hand-written kernels, checked against libtorch and against float64:
//! [`fused`] computes the gradients of the modern network, a batch at a time. [`original`] trains the network
//! of 1998 one pattern at a time, as the paper did: through libtorch such a step is all overhead. [`warp`]
//! distorts the training images for both. [`graph`] has libtorch's kernels on an NVIDIA GPU replayed.

pub mod fused;
pub mod graph;
pub mod original;
pub mod simd;
pub mod tanh;
pub mod warp;
