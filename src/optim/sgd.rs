//! Stochastic gradient descent with momentum, as `torch.optim.SGD`.

use tch::Tensor;

use super::{Optimizer, check_state, take_entry};
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
    /// An optimizer that shares `parameters` with the model.
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

    fn state(&self) -> Vec<Vec<(&'static str, Tensor)>> {
        let entry = |buffer: &Tensor| vec![("momentum_buffer", buffer.shallow_clone())];
        self.momentum_buffers.iter().flatten().map(entry).collect()
    }

    fn load_state(&mut self, state: &[Vec<(String, Tensor)>]) -> Result<()> {
        check_state(state, self.parameters.len(), &["momentum_buffer"])?;
        for (i, entries) in state.iter().enumerate() {
            self.momentum_buffers[i] = take_entry(entries, "momentum_buffer", &self.parameters[i])?;
        }
        Ok(())
    }
}
