//! Stochastic gradient descent with momentum, like `torch.optim.SGD`.

use tch::Tensor;

use super::{Optimizer, OptimizerState, copy_all, other_optimizer, to_parameters};
use crate::Result;
use crate::libtorch::add_;

/// Stochastic gradient descent.
///
/// ```text
/// g = grad + weight_decay * p
/// v = momentum * v + (1 - dampening) * g        (v = g on the first step)
/// p = p - learning_rate * (v, or g + momentum * v with Nesterov)
/// ```
///
/// Source: the arithmetic of `_single_tensor_sgd` in PyTorch 2.11's `torch/optim/sgd.py`.
#[derive(Debug)]
pub struct Sgd {
    parameters: Vec<Tensor>,
    momentum_buffers: Vec<Option<Tensor>>,
    momentum: f64,
    dampening: f64,
    weight_decay: f64,
    nesterov: bool,
}

impl Sgd {
    /// Creates an optimizer that shares `parameters` with the model.
    pub fn new(
        parameters: Vec<Tensor>,
        momentum: f64,
        dampening: f64,
        weight_decay: f64,
        nesterov: bool,
    ) -> Self {
        let momentum_buffers = parameters.iter().map(|_| None).collect();
        Self { parameters, momentum_buffers, momentum, dampening, weight_decay, nesterov }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, gradients: &[Tensor], learning_rate: f64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let states = self.parameters.iter_mut().zip(&mut self.momentum_buffers);
        for ((parameter, buffer), gradient) in states.zip(gradients) {
            let mut gradient = gradient.shallow_clone();
            if self.weight_decay != 0.0 {
                gradient = gradient.copy();
                add_(&mut gradient, parameter, self.weight_decay)?;
            }
            if self.momentum != 0.0 {
                let buffer = match buffer {
                    None => buffer.insert(gradient.copy()),
                    Some(buffer) => {
                        let _ = buffer.f_mul_scalar_(self.momentum)?;
                        add_(buffer, &gradient, 1.0 - self.dampening)?;
                        buffer
                    }
                };
                if self.nesterov {
                    gradient = gradient.copy();
                    add_(&mut gradient, buffer, self.momentum)?;
                } else {
                    gradient = buffer.shallow_clone();
                }
            }
            add_(parameter, &gradient, -learning_rate)?;
        }
        Ok(())
    }

    fn state(&self) -> Result<OptimizerState> {
        Ok(match copy_all(&self.momentum_buffers)? {
            Some(momentum_buffer) => OptimizerState::Sgd { momentum_buffer },
            None => OptimizerState::Empty,
        })
    }

    fn load_state(&mut self, state: &OptimizerState) -> Result<()> {
        self.momentum_buffers = match state {
            OptimizerState::Empty => self.parameters.iter().map(|_| None).collect(),
            OptimizerState::Sgd { momentum_buffer } => {
                let buffers = to_parameters(momentum_buffer, "momentum_buffer", &self.parameters)?;
                buffers.into_iter().map(Some).collect()
            }
            _ => return Err(other_optimizer("momentum_buffer")),
        };
        Ok(())
    }
}
