//! What trains faster than autograd, step by step, does.
//!
//! On the CPU by hand-written kernels, checked against libtorch and against float64:
//! [`fused`] computes the gradients of the modern network, a batch at a time. [`original`] trains the network
//! of 1998 one pattern at a time, as the paper did: through libtorch such a step is all overhead. [`warp`]
//! distorts the training images for both.
//!
//! On an NVIDIA GPU, where launches are the overhead, a [`Trainer`] takes a whole pass: [`cuda`] by kernels
//! written by hand, [`graph`] by libtorch's, recorded and replayed.

use tch::Tensor;

use crate::Result;
use crate::model::{Activation, LeNet5, ModelConfig, Network};
use crate::optim;

pub mod cuda;
pub mod fused;
pub mod graph;
pub mod original;
pub mod simd;
pub mod tanh;
pub mod warp;

/// The order of an epoch's images, from the first step that is to be done.
pub struct Order<'a> {
    /// Places in the data.
    pub places: &'a [i64],
    /// The learning rate of each step.
    pub rates: &'a [f32],
    /// The epoch, from 0: of it depends how images are distorted.
    pub epoch: u32,
}

/// Trains by passes over data that lie on a GPU.
pub trait Trainer {
    /// Steps over the images in this order, until `stop`, which is given the number of steps done. Returns the sum
    /// of the losses, and how many images were misread, if that is asked for.
    ///
    /// # Errors
    /// Where libtorch or CUDA refuses.
    fn pass(
        &mut self,
        model: &LeNet5,
        order: &Order,
        stop: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(f64, u64)>;

    /// The test images' logits: (N, classes), on the CPU.
    ///
    /// # Errors
    /// Where libtorch or CUDA refuses.
    fn evaluate(&mut self, model: &LeNet5) -> Result<Tensor>;

    /// Measures from now on where the time goes, where it knows how to.
    fn measure(&mut self) {}

    /// What was measured, as a table.
    ///
    /// # Errors
    /// Where CUDA refuses.
    fn profile(&self) -> Result<String> {
        Ok(String::new())
    }

    /// Writes parameters and the optimizer's state to where they are read.
    ///
    /// # Errors
    /// Where these are refused.
    fn store(&self, model: &LeNet5, optimizer: &mut dyn optim::Optimizer) -> Result<()>;
}

/// Whether the hand-written engines compute the logits of this network on the CPU; else the reason.
///
/// # Errors
/// The reason, to stand after "--engine fused".
pub fn knows(config: &ModelConfig) -> Result<(), &'static str> {
    match (config.network, config.activation) {
        (Network::Original, _) => Ok(()),
        _ if config.classes > fused::MAX_CLASSES as i64 => Err("has room for 128 classes"),
        (Network::Modern, Activation::Tanh | Activation::Relu) => Ok(()),
        _ => Err("goes with --activation tanh or relu only"),
    }
}
