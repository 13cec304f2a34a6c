//! Optimizers in one pass over all parameters, by the formulas of [`crate::optim`].

use super::super::simd::{Kernel, Simd};
use super::Parameters;

/// Which optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Gradient descent with momentum.
    Sgd {
        /// Factor of the running sum of gradients.
        momentum: f64,
        /// Fraction of a new gradient that is left out of that sum.
        dampening: f64,
        /// L2 penalty.
        weight_decay: f64,
        /// Nesterov momentum.
        nesterov: bool,
    },
    /// Adam, AdamW.
    Adam {
        /// Decays of the moments.
        betas: (f64, f64),
        /// Added to the denominator.
        eps: f64,
        /// L2 penalty, or decoupled decay.
        weight_decay: f64,
        /// AdamW.
        decoupled: bool,
    },
}

/// An optimizer and its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    pub(super) rule: Rule,
    /// Steps done; of SGD it only counts whether there were any.
    pub(super) steps: f64,
    /// The running sum of gradients, or the first and the second moment: a number for each parameter.
    pub(super) state: [Parameters; 2],
}

impl Optimizer {
    /// Before its first step.
    pub fn new(rule: Rule, classes: usize) -> Optimizer {
        let zeros = Parameters::zeros(classes);
        Optimizer { rule, steps: 0.0, state: [zeros.clone(), zeros] }
    }

    /// Counts a step, and gives its constants.
    pub(super) fn step(&mut self, learning_rate: f64) -> Step {
        let first = self.steps == 0.0;
        self.steps += 1.0;
        match self.rule {
            Rule::Sgd { momentum, dampening, weight_decay, nesterov } => Step::Sgd {
                momentum: if first { 0.0 } else { momentum as f32 },
                fresh: if first { 1.0 } else { (1.0 - dampening) as f32 },
                weight_decay: weight_decay as f32,
                nesterov: if nesterov { momentum as f32 } else { 0.0 },
                rate: learning_rate as f32,
                // How the update is made of gradient and sum.
                plain: nesterov || momentum == 0.0,
            },
            Rule::Adam { betas: (beta1, beta2), eps, weight_decay, decoupled } => Step::Adam {
                keep: if decoupled { (1.0 - learning_rate * weight_decay) as f32 } else { 1.0 },
                weight_decay: if decoupled { 0.0 } else { weight_decay as f32 },
                fresh: (1.0 - beta1) as f32,
                beta2: beta2 as f32,
                fresh2: (1.0 - beta2) as f32,
                root: (1.0 - beta2.powf(self.steps)).sqrt() as f32,
                eps: eps as f32,
                rate: (learning_rate / (1.0 - beta1.powf(self.steps))) as f32,
            },
        }
    }
}

/// The constants of a step.
#[derive(Clone, Copy)]
pub(super) enum Step {
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
