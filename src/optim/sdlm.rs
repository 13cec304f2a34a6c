//! The stochastic diagonal Levenberg-Marquardt method of the 1998 paper.

use tch::Tensor;

use super::{Optimizer, OptimizerState, other_optimizer, to_parameters};
use crate::libtorch::{addcdiv_, to_arrays};
use crate::{Error, Result};

/// Stochastic gradient descent with a per-parameter learning rate.
///
/// ```text
/// p = p - learning_rate * grad / (mu + h)
/// ```
///
/// h is the second derivative of the mean loss of some samples with respect to the parameter. It
/// leaves out the terms that can be negative (Gauss-Newton approximation) and those off the
/// diagonal of each layer. It is estimated again before each epoch and set by
/// [`Optimizer::load_state`].
///
/// Source: LeCun et al. 1998, section III.C and appendix C.
#[derive(Debug)]
pub struct Sdlm {
    parameters: Vec<Tensor>,
    /// The values h and mu + h of each parameter.
    curvature: Vec<(Tensor, Tensor)>,
    mu: f64,
}

impl Sdlm {
    /// Creates an optimizer that shares `parameters` with the model.
    pub fn new(parameters: Vec<Tensor>, mu: f64) -> Self {
        Self { parameters, curvature: Vec::new(), mu }
    }
}

impl Optimizer for Sdlm {
    fn step(&mut self, gradients: &[Tensor], learning_rate: f64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        if self.curvature.len() != self.parameters.len() {
            return Err(Error::config("sdlm: expected a curvature before the first step"));
        }
        let states = self.parameters.iter_mut().zip(&self.curvature);
        for ((parameter, (_, damped)), gradient) in states.zip(gradients) {
            addcdiv_(parameter, gradient, damped, -learning_rate)?;
        }
        Ok(())
    }

    fn state(&self) -> Result<OptimizerState> {
        if self.curvature.is_empty() {
            return Ok(OptimizerState::Empty);
        }
        let curvature: Vec<_> = self.curvature.iter().map(|(h, _)| h.shallow_clone()).collect();
        Ok(OptimizerState::Sdlm { curvature: to_arrays(&curvature)? })
    }

    fn load_state(&mut self, state: &OptimizerState) -> Result<()> {
        self.curvature = match state {
            OptimizerState::Empty => Vec::new(),
            OptimizerState::Sdlm { curvature } => {
                let damped = |h: Tensor| Ok((h.shallow_clone(), h.f_add_scalar(self.mu)?));
                let curvature = to_parameters(curvature, "curvature", &self.parameters)?;
                curvature.into_iter().map(damped).collect::<Result<_>>()?
            }
            _ => return Err(other_optimizer("curvature")),
        };
        Ok(())
    }
}
