//! Optimizers in one pass over all parameters, by the formulas of [`OptimizerConfig`].

use super::super::simd::{Simd, WithSimd};
use super::ParameterVector;
use crate::training::OptimizerConfig;

/// An optimizer and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptimizer {
    pub rule: UpdateRule,
    /// The running sum of gradients, or the first and the second moment: a number for each parameter.
    pub state: [ParameterVector; 2],
}

/// How an optimizer steps, and how often it has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateRule {
    pub config: OptimizerConfig,
    /// Steps done; of SGD it only counts whether there were any.
    pub steps: f64,
}

impl BatchOptimizer {
    /// Before its first step.
    ///
    /// # Panics
    /// For SDLM, which is the original network's.
    pub fn new(config: OptimizerConfig, classes: usize) -> BatchOptimizer {
        assert!(!matches!(config, OptimizerConfig::Sdlm { .. }), "sdlm is the original network's");
        let zeros = ParameterVector::zeros(classes);
        BatchOptimizer { rule: UpdateRule { config, steps: 0.0 }, state: [zeros.clone(), zeros] }
    }
}

impl UpdateRule {
    /// Counts a step, and gives its constants.
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
                    // How the update is made of gradient and sum.
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

/// The constants of a step.
#[derive(Clone, Copy)]
pub enum StepConstants {
    Sgd {
        momentum: f32,
        fresh: f32,
        weight_decay: f32,
        nesterov: f32,
        rate: f32,
        plain: bool,
    },
    Adam {
        keep: f32,
        weight_decay: f32,
        fresh: f32,
        beta2: f32,
        fresh2: f32,
        root: f32,
        eps: f32,
        rate: f32,
    },
}

impl StepConstants {
    /// As `cuda/kernels.cu` takes them, and the number of its rule.
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

/// Some of the parameters, their gradient and their state.
pub(super) struct UpdateWork<'a> {
    pub step: StepConstants,
    pub parameters: &'a mut [f32],
    pub gradient: &'a [f32],
    pub state: [&'a mut [f32]; 2],
}

impl WithSimd for UpdateWork<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let UpdateWork { step, parameters, gradient, state: [first, second] } = self;
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
