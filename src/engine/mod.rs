//! Hand-written CPU engines, checked against libtorch and against float64.
//!
//! [`fused`] computes the gradients of the modern network, a batch at a time. [`original`] trains the network
//! of 1998 one pattern at a time, as the paper did: through libtorch such a step is all overhead. [`warp`]
//! distorts the training images for both.

pub mod fused;
pub mod original;
pub mod simd;
pub mod tanh;
pub mod warp;
