//! The output layer (distances to the classes' codes), the losses and their derivatives.
#![allow(clippy::needless_range_loop)] // an index says the layout; iterators would bring closures

use super::super::simd::Simd;
use super::super::tanh::scaled_tanh_derivative;
use super::layout::CODE;
use super::passes::{CODE_ROW, MAX_CLASSES, PatternBuffers};
use crate::training::Loss;

/// The layer of distances and the loss.
#[derive(Clone)]
pub(super) struct OutputLayer {
    pub codes: Vec<f32>, // rows of CODE_ROW
    pub classes: usize,
    pub scale: f32,
    pub loss: Loss,
}

impl OutputLayer {
    /// The penalties, from F6.
    #[inline(always)]
    pub fn forward<S: Simd>(&self, s: S, work: &mut PatternBuffers) {
        for class in 0..self.classes {
            let mut sum = s.splat(0.0);
            for at in (0..CODE_ROW).step_by(S::LANES) {
                let difference =
                    s.sub(s.load(&work.f6, at), s.load(&self.codes, class * CODE_ROW + at));
                sum = s.fma(difference, difference, sum);
            }
            work.penalties[class] = self.scale * s.sum(sum);
        }
    }

    /// The loss, and its derivative by each penalty.
    #[inline(always)]
    pub fn loss(
        &self,
        penalties: &[f32],
        label: usize,
        derivative: &mut [f32; MAX_CLASSES],
    ) -> f32 {
        let right = penalties[..self.classes][label];
        // For cross-entropy the class of everything else is infinitely far away.
        let j = match self.loss {
            Loss::Distance => None,
            Loss::Discriminative { j } => Some(j as f32),
            Loss::CrossEntropy => Some(f32::INFINITY),
        };
        match j {
            None => {
                derivative[..self.classes].fill(0.0);
                derivative[label] = 1.0;
                right
            }
            Some(j) => {
                let mut least = j;
                for y in &penalties[..self.classes] {
                    least = least.min(*y);
                }
                let mut total = (least - j).exp();
                for i in 0..self.classes {
                    derivative[i] = (least - penalties[i]).exp();
                    total += derivative[i];
                }
                for value in &mut derivative[..self.classes] {
                    *value /= -total;
                }
                derivative[label] += 1.0;
                right + total.ln() - least
            }
        }
    }

    /// The loss; leaves its derivative by F6's sums in `d_f6`.
    #[inline(always)]
    pub fn backward<S: Simd>(&self, s: S, work: &mut PatternBuffers, label: usize) -> f32 {
        let mut by_penalty = [0.0; MAX_CLASSES];
        let loss = self.loss(&work.penalties, label, &mut by_penalty);
        let factor = 2.0 * self.scale;
        for at in (0..CODE_ROW).step_by(S::LANES) {
            let x = s.load(&work.f6, at);
            let mut sum = s.splat(0.0);
            for class in 0..self.classes {
                let difference = s.sub(x, s.load(&self.codes, class * CODE_ROW + at));
                sum = s.fma(difference, s.splat(by_penalty[class] * factor), sum);
            }
            s.store(&mut work.d_f6, at, s.mul(sum, scaled_tanh_derivative(s, x)));
        }
        loss
    }

    /// Leaves the second derivative of the loss by F6's sums in `d_f6`.
    #[inline(always)]
    pub fn curvature<S: Simd>(&self, s: S, work: &mut PatternBuffers, label: usize) {
        let mut by_penalty = [0.0; MAX_CLASSES];
        self.loss(&work.penalties, label, &mut by_penalty);
        for j in 0..CODE {
            let x = work.f6[j];
            let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
            for class in 0..self.classes {
                // For eq. 8 no class has a probability: its penalty is linear in the loss.
                let probability = f32::from(class == label) - by_penalty[class];
                let difference = x - self.codes[class * CODE_ROW + j];
                total += by_penalty[class];
                first += probability * difference;
                second += probability * difference * difference;
            }
            let spread = (second - first * first).max(0.0);
            work.d_f6[j] =
                2.0 * self.scale * total.max(0.0) + 4.0 * self.scale * self.scale * spread;
        }
        for at in (0..CODE_ROW).step_by(S::LANES) {
            let derivative = scaled_tanh_derivative(s, s.load(&work.f6, at));
            let curvature = s.mul(s.load(&work.d_f6, at), s.mul(derivative, derivative));
            s.store(&mut work.d_f6, at, curvature);
        }
    }
}
