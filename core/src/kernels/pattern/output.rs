//! The output layer, which computes the distances between F6 and the codes of the classes; the losses and their gradients.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::super::simd::Simd;
use super::super::tanh::scaled_tanh_derivative;
use super::layers::{CODE_ROW, MAX_CLASSES, PatternBuffers};
use super::layout::CODE;
use crate::training::Loss;

/// The output layer and the loss.
#[derive(Clone)]
pub(super) struct OutputLayer {
    /// The code of each class, in rows of [`CODE_ROW`].
    pub codes: Vec<f32>,
    pub classes: usize,
    /// The factor of the squared distances.
    pub scale: f32,
    pub loss: Loss,
}

impl OutputLayer {
    /// Computes the penalties of all classes from F6's outputs.
    #[inline(always)]
    pub fn forward<S: Simd>(&self, s: S, buffers: &mut PatternBuffers) {
        for class in 0..self.classes {
            let mut sum = s.splat(0.0);
            for at in (0..CODE_ROW).step_by(S::LANES) {
                let difference =
                    s.sub(s.load(&buffers.f6, at), s.load(&self.codes, class * CODE_ROW + at));
                sum = s.fma(difference, difference, sum);
            }
            buffers.penalties[class] = self.scale * s.sum(sum);
        }
    }

    /// Returns the loss, and writes its gradient with respect to the penalties to `gradient`.
    #[inline(always)]
    pub fn loss(&self, penalties: &[f32], label: usize, gradient: &mut [f32; MAX_CLASSES]) -> f32 {
        let of_label = penalties[..self.classes][label];
        // Cross-entropy is the discriminative loss with an infinite penalty for the reject class.
        let j = match self.loss {
            Loss::Distance => None,
            Loss::Discriminative { j } => Some(j as f32),
            Loss::CrossEntropy => Some(f32::INFINITY),
        };
        match j {
            None => {
                gradient[..self.classes].fill(0.0);
                gradient[label] = 1.0;
                of_label
            }
            Some(j) => {
                let mut least = j;
                for y in &penalties[..self.classes] {
                    least = least.min(*y);
                }
                let mut total = (least - j).exp();
                for i in 0..self.classes {
                    gradient[i] = (least - penalties[i]).exp();
                    total += gradient[i];
                }
                for value in &mut gradient[..self.classes] {
                    *value /= -total;
                }
                gradient[label] += 1.0;
                of_label + total.ln() - least
            }
        }
    }

    /// Returns the loss, and writes its gradient with respect to F6's sums to `d_f6`.
    #[inline(always)]
    pub fn backward<S: Simd>(&self, s: S, buffers: &mut PatternBuffers, label: usize) -> f32 {
        let mut d_penalties = [0.0; MAX_CLASSES];
        let loss = self.loss(&buffers.penalties, label, &mut d_penalties);
        let factor = 2.0 * self.scale;
        for at in (0..CODE_ROW).step_by(S::LANES) {
            let x = s.load(&buffers.f6, at);
            let mut sum = s.splat(0.0);
            for class in 0..self.classes {
                let difference = s.sub(x, s.load(&self.codes, class * CODE_ROW + at));
                sum = s.fma(difference, s.splat(d_penalties[class] * factor), sum);
            }
            s.store(&mut buffers.d_f6, at, s.mul(sum, scaled_tanh_derivative(s, x)));
        }
        loss
    }

    /// Writes the second derivatives of the loss with respect to F6's sums to `d_f6`.
    #[inline(always)]
    pub fn curvature<S: Simd>(&self, s: S, buffers: &mut PatternBuffers, label: usize) {
        let mut d_penalties = [0.0; MAX_CLASSES];
        self.loss(&buffers.penalties, label, &mut d_penalties);
        for j in 0..CODE {
            let x = buffers.f6[j];
            let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
            for class in 0..self.classes {
                // The loss of eq. 8 is linear in the penalties, so all probabilities are 0.
                let probability = f32::from(class == label) - d_penalties[class];
                let difference = x - self.codes[class * CODE_ROW + j];
                total += d_penalties[class];
                first += probability * difference;
                second += probability * difference * difference;
            }
            let spread = (second - first * first).max(0.0);
            buffers.d_f6[j] =
                2.0 * self.scale * total.max(0.0) + 4.0 * self.scale * self.scale * spread;
        }
        for at in (0..CODE_ROW).step_by(S::LANES) {
            let derivative = scaled_tanh_derivative(s, s.load(&buffers.f6, at));
            let curvature = s.mul(s.load(&buffers.d_f6, at), s.mul(derivative, derivative));
            s.store(&mut buffers.d_f6, at, curvature);
        }
    }
}
