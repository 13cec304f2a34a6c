//! The update rules of the optimizers in [`OptimizerConfig`], each as one loop over all parameters.

use super::super::simd::{Simd, WithSimd};
use super::ParameterVector;
use crate::training::OptimizerConfig;

/// An optimizer and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptimizer {
    /// The update rule.
    pub rule: UpdateRule,
    /// One number for each parameter: for SGD the momentum buffer, and a vector that is not used; for Adam and AdamW the first
    /// and the second moments.
    pub state: [ParameterVector; 2],
}

/// The update rule of an optimizer, and the number of its steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateRule {
    /// The optimizer's settings.
    pub config: OptimizerConfig,
    /// The number of steps so far. For SGD it only matters whether it is 0.
    pub steps: f64,
}

impl BatchOptimizer {
    /// An optimizer before its first step.
    ///
    /// # Panics
    /// If it is SDLM, which only the original network has.
    pub fn new(config: OptimizerConfig, classes: usize) -> BatchOptimizer {
        assert!(!matches!(config, OptimizerConfig::Sdlm { .. }), "sdlm is the original network's");
        let zeros = ParameterVector::zeros(classes);
        BatchOptimizer { rule: UpdateRule { config, steps: 0.0 }, state: [zeros.clone(), zeros] }
    }
}

impl UpdateRule {
    /// Counts one more step and returns its constants.
    pub fn step(&mut self, learning_rate: f64) -> StepConstants {
        let first = self.steps == 0.0;
        self.steps += 1.0;
        let decoupled = matches!(self.config, OptimizerConfig::AdamW { .. });
        match self.config {
            OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov } => {
                StepConstants::Sgd {
                    momentum: if first { 0.0 } else { momentum as f32 },
                    fresh: if first { 1.0 } else { (1.0 - dampening) as f32 },
                    weight_decay: weight_decay as f32,
                    nesterov: if nesterov { momentum as f32 } else { 0.0 },
                    rate: learning_rate as f32,
                    plain: nesterov || momentum == 0.0,
                }
            }
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay }
            | OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay } => StepConstants::Adam {
                keep: if decoupled { (1.0 - learning_rate * weight_decay) as f32 } else { 1.0 },
                weight_decay: if decoupled { 0.0 } else { weight_decay as f32 },
                fresh: (1.0 - beta1) as f32,
                beta2: beta2 as f32,
                fresh2: (1.0 - beta2) as f32,
                root: (1.0 - beta2.powf(self.steps)).sqrt() as f32,
                eps: eps as f32,
                rate: (learning_rate / (1.0 - beta1.powf(self.steps))) as f32,
            },
            OptimizerConfig::Sdlm { .. } => unreachable!("refused by new"),
        }
    }
}

/// The constants of one step.
#[derive(Clone, Copy)]
pub enum StepConstants {
    /// The constants of SGD.
    Sgd {
        /// The factor of the momentum buffer; 0 in the first step.
        momentum: f32,
        /// The factor of the new gradient in the buffer: 1 - dampening; 1 in the first step.
        fresh: f32,
        /// The factor of the parameter that is added to its gradient.
        weight_decay: f32,
        /// The factor of the buffer that is added to the gradient, if `plain`.
        nesterov: f32,
        /// The learning rate.
        rate: f32,
        /// Whether the update is the gradient plus `nesterov` times the buffer, instead of the buffer alone.
        plain: bool,
    },
    /// The constants of Adam and AdamW.
    Adam {
        /// The factor of the parameter before the update: AdamW's decoupled weight decay.
        keep: f32,
        /// The factor of the parameter that is added to its gradient: Adam's weight decay.
        weight_decay: f32,
        /// 1 - beta1.
        fresh: f32,
        /// The factor of the second moment.
        beta2: f32,
        /// 1 - beta2.
        fresh2: f32,
        /// The square root of the second moment's bias correction: sqrt(1 - beta2^steps).
        root: f32,
        /// The number that is added to the denominator.
        eps: f32,
        /// The learning rate, divided by the first moment's bias correction.
        rate: f32,
    },
}

impl StepConstants {
    /// The constants in the order in which `cuda/kernels.cu` takes them, and the number of its update rule.
    pub fn constants(self) -> ([f32; 8], i32) {
        match self {
            StepConstants::Sgd { momentum, fresh, weight_decay, nesterov, rate, plain } => {
                let plain = f32::from(u8::from(plain));
                ([momentum, fresh, weight_decay, nesterov, rate, plain, 0.0, 0.0], 0)
            }
            StepConstants::Adam { keep, weight_decay, fresh, beta2, fresh2, root, eps, rate } => {
                ([keep, weight_decay, fresh, beta2, fresh2, root, eps, rate], 1)
            }
        }
    }
}

/// The update of a slice of the parameters.
pub(super) struct UpdateTask<'a> {
    pub step: StepConstants,
    pub parameters: &'a mut [f32],
    pub gradient: &'a [f32],
    pub state: [&'a mut [f32]; 2],
}

impl WithSimd for UpdateTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let UpdateTask { step, parameters, gradient, state: [first, second] } = self;
        let numbers = parameters.iter_mut().zip(gradient).zip(first.iter_mut().zip(second));
        match step {
            StepConstants::Sgd { momentum, fresh, weight_decay, nesterov, rate, plain } => {
                for ((p, g), (v, _)) in numbers {
                    let g = g + weight_decay * *p;
                    *v = momentum * *v + fresh * g;
                    *p -= rate * if plain { g + nesterov * *v } else { *v };
                }
            }
            StepConstants::Adam { keep, weight_decay, fresh, beta2, fresh2, root, eps, rate } => {
                for ((p, g), (m, v)) in numbers {
                    let g = g + weight_decay * *p;
                    *m += fresh * (g - *m);
                    *v = beta2 * *v + fresh2 * g * g;
                    *p = keep * *p - rate * *m / (v.sqrt() / root + eps);
                }
            }
        }
    }
}
