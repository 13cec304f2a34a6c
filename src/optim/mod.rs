//! Optimizers with the same results as PyTorch's, bit for bit.
//!
//! tch's own SGD gives the same bits as Python, but its Adam and AdamW do not, and none of them can
//! save its state.

mod adam;
mod sdlm;
mod sgd;

use tch::Tensor;

pub use adam::Adam;
pub use lenet5_core::weights::OptimizerState;
pub use sdlm::Sdlm;
pub use sgd::Sgd;

use crate::libtorch::{to_arrays, to_tensors};
use crate::recipe::OptimizerConfig;
use crate::{Error, Result};

/// An optimizer over a fixed list of parameters, which it shares with the model.
pub trait Optimizer {
    /// Updates every parameter from its gradient, both in the same order.
    ///
    /// # Errors
    /// If libtorch reports an error.
    fn step(&mut self, gradients: &[Tensor], learning_rate: f64) -> Result<()>;

    /// Returns a copy of the state.
    ///
    /// # Errors
    /// If libtorch reports an error.
    fn state(&self) -> Result<OptimizerState>;

    /// Replaces the state.
    ///
    /// # Errors
    /// If it is the state of another optimizer, or a tensor's shape differs from its parameter's.
    fn load_state(&mut self, state: &OptimizerState) -> Result<()>;
}

/// Creates the optimizer with these settings for `parameters`.
pub fn build(config: &OptimizerConfig, parameters: Vec<Tensor>) -> Box<dyn Optimizer> {
    match *config {
        OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov } => {
            Box::new(Sgd::new(parameters, momentum, dampening, weight_decay, nesterov))
        }
        OptimizerConfig::Adam { beta1, beta2, eps, weight_decay } => {
            Box::new(Adam::new(parameters, (beta1, beta2), eps, weight_decay, false))
        }
        OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay } => {
            Box::new(Adam::new(parameters, (beta1, beta2), eps, weight_decay, true))
        }
        OptimizerConfig::Sdlm { mu, .. } => Box::new(Sdlm::new(parameters, mu)),
    }
}

/// Copies arrays of a saved state to the devices of their parameters, and checks their shapes.
fn to_parameters(
    arrays: &[lenet5_core::Array],
    name: &str,
    parameters: &[Tensor],
) -> Result<Vec<Tensor>> {
    if arrays.len() != parameters.len() {
        return Err(Error::config(format!(
            "optimizer state: expected {} parameters, found {}",
            parameters.len(),
            arrays.len()
        )));
    }
    let tensors = to_tensors(arrays)?;
    tensors
        .iter()
        .zip(parameters)
        .map(|(tensor, parameter)| match tensor.size() == parameter.size() {
            true => Ok(tensor.to_device(parameter.device()).to_kind(parameter.kind())),
            false => Err(Error::config(format!(
                "optimizer state {name}: expected shape {:?}, found {:?}",
                parameter.size(),
                tensor.size()
            ))),
        })
        .collect()
}

fn other_optimizer(expected: &str) -> Error {
    Error::config(format!("optimizer state: expected {expected}, found that of another optimizer"))
}

/// Copies all tensors; `None` if any of them does not exist yet.
fn copy_all(tensors: &[Option<Tensor>]) -> Result<Option<Vec<lenet5_core::Array>>> {
    let present: Option<Vec<Tensor>> =
        tensors.iter().map(|tensor| tensor.as_ref().map(Tensor::shallow_clone)).collect();
    present.map(|tensors| to_arrays(&tensors)).transpose()
}
