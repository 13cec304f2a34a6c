//! Adam and AdamW, like `torch.optim.Adam` and `torch.optim.AdamW`.

use tch::Tensor;

use super::{Optimizer, OptimizerState, other_optimizer, to_parameters};
use crate::Result;
use crate::libtorch::{add_, addcdiv_, addcmul_, to_arrays};

/// Adam (Kingma and Ba, 2015), or with decoupled weight decay AdamW (Loshchilov and Hutter, 2019).
///
/// ```text
/// p = p * (1 - learning_rate * weight_decay)    (AdamW)
/// g = grad + weight_decay * p                   (Adam)
/// m = lerp(m, g, 1 - beta1)
/// v = beta2 * v + (1 - beta2) * g * g
/// p = p - learning_rate / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
/// ```
///
/// Source: the arithmetic of `_single_tensor_adam` in PyTorch 2.11's `torch/optim/adam.py`.
#[derive(Debug)]
pub struct Adam {
    parameters: Vec<Tensor>,
    moments: Vec<Option<Moments>>,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
    decoupled: bool,
}

/// The state for one parameter.
#[derive(Debug)]
struct Moments {
    step: f64,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

impl Moments {
    fn new(parameter: &Tensor) -> Self {
        Self { step: 0.0, exp_avg: parameter.zeros_like(), exp_avg_sq: parameter.zeros_like() }
    }
}

impl Adam {
    /// Creates an optimizer that shares `parameters` with the model. `decoupled` makes it AdamW.
    pub fn new(
        parameters: Vec<Tensor>,
        betas: (f64, f64),
        eps: f64,
        weight_decay: f64,
        decoupled: bool,
    ) -> Self {
        let moments = parameters.iter().map(|_| None).collect();
        Self { parameters, moments, betas, eps, weight_decay, decoupled }
    }
}

impl Optimizer for Adam {
    fn step(&mut self, gradients: &[Tensor], learning_rate: f64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let (beta1, beta2) = self.betas;
        let states = self.parameters.iter_mut().zip(&mut self.moments);
        for ((parameter, moments), gradient) in states.zip(gradients) {
            let moments = moments.get_or_insert_with(|| Moments::new(parameter));
            let Moments { step, exp_avg, exp_avg_sq } = moments;
            *step += 1.0;
            let mut gradient = gradient.shallow_clone();
            if self.weight_decay != 0.0 {
                if self.decoupled {
                    let _ = parameter.f_mul_scalar_(1.0 - learning_rate * self.weight_decay)?;
                } else {
                    gradient = gradient.copy();
                    add_(&mut gradient, parameter, self.weight_decay)?;
                }
            }
            let _ = exp_avg.f_lerp_(&gradient, 1.0 - beta1)?;
            let _ = exp_avg_sq.f_mul_scalar_(beta2)?;
            addcmul_(exp_avg_sq, &gradient, &gradient, 1.0 - beta2)?;
            let bias_correction1 = 1.0 - beta1.powf(*step);
            let bias_correction2 = 1.0 - beta2.powf(*step);
            let mut denominator = exp_avg_sq.f_sqrt()?.f_div_scalar(bias_correction2.powf(0.5))?;
            let _ = denominator.f_add_scalar_(self.eps)?;
            addcdiv_(parameter, exp_avg, &denominator, -(learning_rate / bias_correction1))?;
        }
        Ok(())
    }

    fn state(&self) -> Result<OptimizerState> {
        let moments: Option<Vec<&Moments>> = self.moments.iter().map(Option::as_ref).collect();
        let Some(moments) = moments.filter(|moments| !moments.is_empty()) else {
            return Ok(OptimizerState::Empty);
        };
        let copy = |part: fn(&Moments) -> &Tensor| {
            to_arrays(
                &moments.iter().map(|moments| part(moments).shallow_clone()).collect::<Vec<_>>(),
            )
        };
        Ok(OptimizerState::Adam {
            step: moments[0].step,
            exp_avg: copy(|moments| &moments.exp_avg)?,
            exp_avg_sq: copy(|moments| &moments.exp_avg_sq)?,
        })
    }

    fn load_state(&mut self, state: &OptimizerState) -> Result<()> {
        self.moments = match state {
            OptimizerState::Empty => self.parameters.iter().map(|_| None).collect(),
            OptimizerState::Adam { step, exp_avg, exp_avg_sq } => {
                let first = to_parameters(exp_avg, "exp_avg", &self.parameters)?;
                let second = to_parameters(exp_avg_sq, "exp_avg_sq", &self.parameters)?;
                let moments = first.into_iter().zip(second);
                moments
                    .map(|(exp_avg, exp_avg_sq)| Some(Moments { step: *step, exp_avg, exp_avg_sq }))
                    .collect()
            }
            _ => return Err(other_optimizer("step, exp_avg, exp_avg_sq")),
        };
        Ok(())
    }
}
