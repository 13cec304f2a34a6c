//! The stochastic diagonal Levenberg-Marquardt method of the 1998 paper.

use tch::Tensor;

use super::{Optimizer, check_state, take_entry};
use crate::libtorch::addcdiv_;
use crate::{Error, Result};

/// Stochastic gradient descent in which every weight has a rate of its own.
///
/// ```text
/// p = p - learning_rate * grad / (mu + h)
/// ```
///
/// h is the weight's second derivative, of the loss averaged over some samples, without the terms that
/// can be negative (Gauss-Newton) and without those off the diagonal of each layer. It is
/// measured again before each epoch, and given by [`Optimizer::set_curvature`].
///
/// Source: LeCun et al. 1998, section III.C and appendix C.
#[derive(Debug)]
pub struct Sdlm {
    parameters: Vec<Tensor>,
    /// h, and mu + h.
    curvature: Vec<(Tensor, Tensor)>,
    mu: f64,
}

impl Sdlm {
    /// An optimizer that shares `parameters` with the model.
    pub fn new(parameters: Vec<Tensor>, mu: f64) -> Self {
        Self { parameters, curvature: Vec::new(), mu }
    }
}

impl Optimizer for Sdlm {
    fn step(&mut self, gradients: &[Tensor], learning_rate: f64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        if self.curvature.len() != self.parameters.len() {
            return Err(Error::Config("sdlm: expected a curvature before the first step".into()));
        }
        let states = self.parameters.iter_mut().zip(&self.curvature);
        for ((parameter, (_, damped)), gradient) in states.zip(gradients) {
            addcdiv_(parameter, gradient, damped, -learning_rate)?;
        }
        Ok(())
    }

    fn set_curvature(&mut self, curvature: Vec<Tensor>) -> Result<()> {
        let state = |h: Tensor| vec![("curvature".to_owned(), h)];
        self.load_state(&curvature.into_iter().map(state).collect::<Vec<_>>())
    }

    fn state(&self) -> Vec<Vec<(&'static str, Tensor)>> {
        self.curvature.iter().map(|(h, _)| vec![("curvature", h.shallow_clone())]).collect()
    }

    fn load_state(&mut self, state: &[Vec<(String, Tensor)>]) -> Result<()> {
        check_state(state, self.parameters.len(), &["curvature"])?;
        self.curvature = Vec::new();
        for (entries, parameter) in state.iter().zip(&self.parameters) {
            if let Some(h) = take_entry(entries, "curvature", parameter)? {
                let damped = h.f_add_scalar(self.mu)?;
                self.curvature.push((h, damped));
            }
        }
        Ok(())
    }
}
