//! The 1998 network trained one pattern at a time, by hand-written kernels: forward, backward,
//! stochastic diagonal Levenberg-Marquardt. Lanes run over the columns in C1 and S2, over the 16 maps
//! in C3 and S4, over the inputs in C5 and F6.
//!
//! C3's table has 60 connections between maps. They fill 60 of the 64 places of four 16-lane *slots*:
//! lane `m` of slot `k` is map `m`'s `k`-th input, and map 15's fifth and sixth sit in slot 3 in lanes
//! 0 and 1, since maps 0 to 5 have three inputs. The inputs are spread to slots once (`spread`), and
//! C3 costs 4 x 25 x 100 vector operations where all 96 connections would cost 6 x 25 x 100. A connection
//! that is absent has no weight here at all.
//!
//! | layer | weights here | activations here |
//! |---|---|---|
//! | c1, s2 | `[map][ky][kx]` | `[map][row][column]`, rows of 32 and 16 |
//! | c3, s4 | `[slot][ky][kx][16]` | `[row][column][16 maps]` |
//! | c5, f6 | `[output][input]`, rows of 400 and 128 | `[unit]`; c5's inputs are s4's, as they lie |

mod layout;
mod output;
mod passes;

use super::simd::{Isa, Simd, WithSimd};
use crate::training::Loss;
use layout::PatternWeights;
pub use layout::{CODE, PatternParameters, TENSORS, c3_connected};
use output::OutputLayer;
use passes::{Accumulate, CODE_ROW, Descend, GradientSink, backward, forward};
pub use passes::{MAX_CLASSES, PIXELS, PatternBuffers};

/// A learning rate for every weight: eta / (mu + h).
pub struct LearningRates {
    weights: Box<PatternWeights>,
    smallest: f32,
    largest: f32,
}

impl LearningRates {
    /// From the averaged second derivatives that [`PatternNetwork::curvature_of`] gives.
    pub fn new(curvature_of: &PatternParameters, eta: f32, mu: f32) -> LearningRates {
        let (mut smallest, mut largest) = (f32::INFINITY, 0.0_f32);
        let mut weights = PatternWeights::zeros();
        weights.each(|tensor, index, rate| {
            *rate = eta / (mu + curvature_of.values[tensor][index]);
            smallest = smallest.min(*rate);
            largest = largest.max(*rate);
        });
        LearningRates { weights, smallest, largest }
    }

    /// The same rate for all weights: plain stochastic gradient descent.
    pub fn constant(rate: f32) -> LearningRates {
        LearningRates::new(&PatternParameters::zeros(), rate, 1.0)
    }

    /// The smallest rate.
    pub fn smallest(&self) -> f32 {
        self.smallest
    }

    /// The largest rate.
    pub fn largest(&self) -> f32 {
        self.largest
    }
}

/// The network, its weights and its loss.
#[derive(Clone)]
pub struct PatternNetwork {
    weights: Box<PatternWeights>,
    work: Box<PatternBuffers>,
    output: OutputLayer,
    isa: Isa,
}

impl PatternNetwork {
    /// A network whose penalties are `scale` times the squared distance between F6 and each class's
    /// code (`codes`: classes x 84).
    ///
    /// # Panics
    /// If there are no codes, more than 96, or not 84 values to a code; if a connection that C3
    /// does not have has a weight.
    pub fn new(
        parameters: &PatternParameters,
        codes: &[f32],
        scale: f32,
        loss: Loss,
    ) -> PatternNetwork {
        let classes = codes.len() / CODE;
        assert!(
            codes.len() == classes * CODE && (1..=MAX_CLASSES).contains(&classes),
            "codes: classes x 84"
        );
        let absent = |(index, weight): (usize, &f32)| *weight == 0.0 || c3_connected(index);
        assert!(
            parameters.values[4].iter().enumerate().all(absent),
            "c3: a weight where no connection is"
        );
        let mut rows = vec![0.0; classes * CODE_ROW];
        for (row, code) in rows.chunks_exact_mut(CODE_ROW).zip(codes.chunks_exact(CODE)) {
            row[..CODE].copy_from_slice(code);
        }
        PatternNetwork {
            weights: PatternWeights::import(parameters),
            work: PatternBuffers::new(),
            output: OutputLayer { codes: rows, classes, scale, loss },
            isa: Isa::best(),
        }
    }

    /// The network of 1998 with these weights. Weights of connections that c3 does not have are left out.
    ///
    /// # Errors
    /// Where the weights are of the modern network.
    pub fn of(weights: &crate::Weights, loss: Loss) -> crate::Result<PatternNetwork> {
        let arrays: Vec<_> = weights.tensors.iter().map(|(_, array)| array.clone()).collect();
        let Some((codes, arrays)) =
            arrays.split_last().filter(|(_, rest)| rest.len() == TENSORS.len())
        else {
            return Err(crate::Error::Config("expected the network of 1998".to_owned()));
        };
        let mut parameters = PatternParameters::from_arrays(arrays)?;
        for (index, weight) in parameters.values[4].iter_mut().enumerate() {
            if !c3_connected(index) {
                *weight = 0.0;
            }
        }
        let scale = weights.config.rbf_scale as f32;
        Ok(PatternNetwork::new(&parameters, &codes.to_f32(), scale, loss))
    }

    /// The same network on another instruction set.
    pub fn with_isa(mut self, isa: Isa) -> PatternNetwork {
        self.isa = isa;
        self
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The parameters as they are now.
    pub fn parameters(&self) -> PatternParameters {
        self.weights.clone().export(1.0)
    }

    /// The penalties of one pattern, a value for each class; the smallest wins. `work` is the
    /// caller's, so that threads can share the network.
    pub fn forward<'w>(&self, work: &'w mut PatternBuffers, image: &[f32; PIXELS]) -> &'w [f32] {
        work.set_image(image);
        self.isa.run(ForwardWork {
            weights: &self.weights,
            output: &self.output,
            work: &mut *work,
        });
        &work.penalties[..self.output.classes]
    }

    /// The loss of penalties that [`PatternNetwork::forward`] gave.
    pub fn loss(&self, penalties: &[f32], label: usize) -> f32 {
        self.output.loss(penalties, label, &mut [0.0; MAX_CLASSES])
    }

    /// Trains on one pattern, every weight by its own rate, and returns the loss before the update.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn step(&mut self, image: &[f32; PIXELS], label: usize, rates: &LearningRates) -> f32 {
        self.work.set_image(image);
        let (weights, work) = (&mut *self.weights, &mut *self.work);
        self.isa.run(StepWork { weights, output: &self.output, work, label, rates: &rates.weights })
    }

    /// The class that [`PatternNetwork::step`] took its pattern for, before the update.
    pub fn prediction(&self) -> usize {
        self.work.prediction(self.output.classes)
    }

    /// Adds the gradient of one pattern to a sum and returns the loss.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn add_gradient(
        &self,
        work: &mut PatternBuffers,
        image: &[f32; PIXELS],
        label: usize,
        sum: &mut GradientSum,
    ) -> f32 {
        work.set_image(image);
        sum.patterns += 1;
        let weights = &self.weights;
        self.isa.run(GradientWork {
            weights,
            output: &self.output,
            work,
            label,
            sum: &mut sum.weights,
        })
    }

    /// The gradient of one pattern.
    pub fn gradient(&self, image: &[f32; PIXELS], label: usize) -> PatternParameters {
        let mut sum = GradientSum::new();
        self.add_gradient(&mut PatternBuffers::new(), image, label, &mut sum);
        sum.mean()
    }

    /// One step with the mean gradient of a batch: every weight by its own rate.
    pub fn apply(&mut self, sum: &GradientSum, rates: &LearningRates) {
        self.isa.run(ApplyWork {
            weights: &mut self.weights,
            sum: &sum.weights,
            rates: &rates.weights,
            factor: 1.0 / sum.patterns as f32,
        });
    }

    /// The diagonal of the second derivatives (Gauss-Newton, the paper's appendix C), averaged over
    /// the patterns and summed over the connections that share a weight.
    ///
    /// Of a unit's sum a and output x: `h_a = scaled_tanh'(a)² h_x`, `h_x = sum over its connections of
    /// w² h_a`, and of a weight `h_w = sum over the connections that share it of x² h_a`. The four
    /// connections of a sub-sampling unit share its coefficient, so their x² are added.
    ///
    /// At F6's outputs x the second derivative of the loss itself is taken, its diagonal, exactly:
    /// of eq. 8 it is 2 s; of eq. 9, with `p_i = exp(-y_i) / (exp(-j) + sum exp(-y))` and
    /// `d_i = x - w_i`, it is `2 s (1 - sum p_i) + 4 s² (sum p_i d_i² - (sum p_i d_i)²)`. Neither
    /// is ever negative, since `sum p_i < 1`.
    pub fn curvature_of<'a>(
        &self,
        patterns: impl IntoIterator<Item = (&'a [f32; PIXELS], usize)>,
    ) -> PatternParameters {
        let mut sum = GradientSum::new();
        let mut squared = self.weights.clone();
        squared.each(|_, _, weight| *weight *= *weight);
        let mut work = PatternBuffers::new();
        for (image, label) in patterns {
            work.set_image(image);
            sum.patterns += 1;
            self.isa.run(CurvatureWork {
                weights: &self.weights,
                squared: &squared,
                output: &self.output,
                work: &mut work,
                label,
                sum: &mut sum.weights,
            });
        }
        sum.mean()
    }
}

/// A sum of gradients over patterns.
pub struct GradientSum {
    weights: Box<PatternWeights>,
    patterns: usize,
}

impl GradientSum {
    /// Of no pattern yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> GradientSum {
        GradientSum { weights: PatternWeights::zeros(), patterns: 0 }
    }

    /// Back to no pattern.
    pub fn clear(&mut self) {
        self.weights.each(|_, _, value| *value = 0.0);
        self.patterns = 0;
    }

    /// The mean over the patterns.
    pub fn mean(&mut self) -> PatternParameters {
        self.weights.export(1.0 / self.patterns as f32)
    }
}

struct ForwardWork<'a> {
    weights: &'a PatternWeights,
    output: &'a OutputLayer,
    work: &'a mut PatternBuffers,
}

impl WithSimd for ForwardWork<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        forward(s, self.weights, self.work);
        self.output.forward(s, self.work);
    }
}

struct StepWork<'a> {
    weights: &'a mut PatternWeights,
    output: &'a OutputLayer,
    work: &'a mut PatternBuffers,
    label: usize,
    rates: &'a PatternWeights,
}

impl WithSimd for StepWork<'_> {
    type Output = f32;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> f32 {
        forward(s, self.weights, self.work);
        self.output.forward(s, self.work);
        let loss = self.output.backward(s, self.work, self.label);
        backward(s, &mut Descend { weights: self.weights, rates: self.rates }, self.work);
        loss
    }
}

struct GradientWork<'a> {
    weights: &'a PatternWeights,
    output: &'a OutputLayer,
    work: &'a mut PatternBuffers,
    label: usize,
    sum: &'a mut PatternWeights,
}

impl WithSimd for GradientWork<'_> {
    type Output = f32;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> f32 {
        forward(s, self.weights, self.work);
        self.output.forward(s, self.work);
        let loss = self.output.backward(s, self.work, self.label);
        backward(s, &mut Accumulate::<false> { weights: self.weights, sum: self.sum }, self.work);
        loss
    }
}

struct CurvatureWork<'a> {
    weights: &'a PatternWeights,
    squared: &'a PatternWeights,
    output: &'a OutputLayer,
    work: &'a mut PatternBuffers,
    label: usize,
    sum: &'a mut PatternWeights,
}

impl WithSimd for CurvatureWork<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let work = self.work;
        forward(s, self.weights, work);
        self.output.forward(s, work);
        self.output.curvature(s, work, self.label);
        // The same recursion as the gradient's, on squares: of the weights, of what they multiply,
        // of the scaled_tanh's derivative.
        for x in work
            .image
            .iter_mut()
            .chain(&mut work.spread)
            .chain(&mut work.c5_input)
            .chain(&mut work.f6_input)
        {
            *x *= *x;
        }
        for map in 0..6 {
            for row in 0..14 {
                for column in 0..14 {
                    let at = (map * 28 + 2 * row) * 32 + 2 * column;
                    let mut sum = 0.0;
                    for x in [work.c1[at], work.c1[at + 1], work.c1[at + 32], work.c1[at + 33]] {
                        sum += x * x;
                    }
                    work.s2_sum[(map * 14 + row) * 16 + column] = sum;
                }
            }
        }
        for position in 0..25 {
            let at = (position / 5 * 20 + position % 5 * 2) * 16;
            for map in 0..16 {
                let mut sum = 0.0;
                for tap in [0, 16, 160, 176] {
                    sum += work.c3[at + tap + map] * work.c3[at + tap + map];
                }
                work.s4_sum[position * 16 + map] = sum;
            }
        }
        backward(s, &mut Accumulate::<true> { weights: self.squared, sum: self.sum }, work);
    }
}

struct ApplyWork<'a> {
    weights: &'a mut PatternWeights,
    sum: &'a PatternWeights,
    rates: &'a PatternWeights,
    factor: f32,
}

impl WithSimd for ApplyWork<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let mut descend = Descend { weights: self.weights, rates: self.rates };
        for at in (0..self.sum.0.len()).step_by(S::LANES) {
            descend.take(s, at, s.mul(s.load(&self.sum.0, at), s.splat(self.factor)));
        }
    }
}
