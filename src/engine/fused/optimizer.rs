//! Optimizers in one pass over all parameters, by the formulas of [`crate::optim`].

use super::super::simd::{Kernel, Simd};
use super::Parameters;
use crate::optim::OptimizerConfig;

/// An optimizer and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    pub(in crate::engine) rule: Rule,
    /// The running sum of gradients, or the first and the second moment: a number for each parameter.
    pub(in crate::engine) state: [Parameters; 2],
}

/// How an optimizer steps, and how often it has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Rule {
    pub(super) config: OptimizerConfig,
    /// Steps done; of SGD it only counts whether there were any.
    pub(super) steps: f64,
}

impl Optimizer {
    /// Before its first step.
    ///
    /// # Panics
    /// For SDLM, which is the original network's.
    pub fn new(config: OptimizerConfig, classes: usize) -> Optimizer {
        assert!(!matches!(config, OptimizerConfig::Sdlm { .. }), "sdlm is the original network's");
        let zeros = Parameters::zeros(classes);
        Optimizer { rule: Rule { config, steps: 0.0 }, state: [zeros.clone(), zeros] }
    }
}

impl Rule {
    /// Counts a step, and gives its constants.
    pub(in crate::engine) fn step(&mut self, learning_rate: f64) -> Step {
        let first = self.steps == 0.0;
        self.steps += 1.0;
        let decoupled = matches!(self.config, OptimizerConfig::AdamW { .. });
        match self.config {
            OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov } => Step::Sgd {
                momentum: if first { 0.0 } else { momentum as f32 },
                fresh: if first { 1.0 } else { (1.0 - dampening) as f32 },
                weight_decay: weight_decay as f32,
                nesterov: if nesterov { momentum as f32 } else { 0.0 },
                rate: learning_rate as f32,
                // How the update is made of gradient and sum.
                plain: nesterov || momentum == 0.0,
            },
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay }
            | OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay } => Step::Adam {
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
pub(in crate::engine) enum Step {
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

impl Step {
    /// As `cuda/kernels.cu` takes them, and the number of its rule.
    pub(in crate::engine) fn constants(self) -> ([f32; 8], i32) {
        match self {
            Step::Sgd { momentum, fresh, weight_decay, nesterov, rate, plain } => {
                let plain = f32::from(u8::from(plain));
                ([momentum, fresh, weight_decay, nesterov, rate, plain, 0.0, 0.0], 0)
            }
            Step::Adam { keep, weight_decay, fresh, beta2, fresh2, root, eps, rate } => {
                ([keep, weight_decay, fresh, beta2, fresh2, root, eps, rate], 1)
            }
        }
    }
}

/// Some of the parameters, their gradient and their state.
pub(super) struct Update<'a> {
    pub step: Step,
    pub parameters: &'a mut [f32],
    pub gradient: &'a [f32],
    pub state: [&'a mut [f32]; 2],
}

impl Kernel for Update<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Update { step, parameters, gradient, state: [first, second] } = self;
        let numbers = parameters.iter_mut().zip(gradient).zip(first.iter_mut().zip(second));
        match step {
            Step::Sgd { momentum, fresh, weight_decay, nesterov, rate, plain } => {
                for ((p, g), (v, _)) in numbers {
                    let g = g + weight_decay * *p;
                    *v = momentum * *v + fresh * g;
                    *p -= rate * if plain { g + nesterov * *v } else { *v };
                }
            }
            Step::Adam { keep, weight_decay, fresh, beta2, fresh2, root, eps, rate } => {
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
