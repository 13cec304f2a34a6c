//! Hand-written kernels that train the network of 1998, one pattern at a time, by stochastic diagonal Levenberg-Marquardt.
//! The lanes hold columns in C1 and S2, the 16 maps in C3 and S4, and inputs in C5 and F6.
//!
//! C3's table has 60 connections between maps. They fill 60 of the 64 lanes of four *slots* of 16 lanes: lane `m` of slot `k`
//! is input number `k` of map `m`. Maps 0 to 5 have only three inputs, so lanes 0 and 1 of slot 3 are free for the fifth and
//! sixth input of map 15. The inputs are copied to the slots once (`spread`). C3 then takes 4 x 25 x 100 vector operations,
//! where all 96 connections would take 6 x 25 x 100. Connections that do not exist have no weight here.
//!
//! | layer | layout of the weights | layout of the values |
//! |---|---|---|
//! | c1, s2 | `[map][ky][kx]` | `[map][row][column]`, rows of 32 and 16 |
//! | c3, s4 | `[slot][ky][kx][16]` | `[row][column][16 maps]` |
//! | c5, f6 | `[output][input]`, rows of 400 and 128 | `[unit]`; c5's inputs have the layout of s4 |

mod layers;
mod layout;
mod output;

use super::simd::{Isa, Simd, WithSimd};
use crate::training::Loss;
use layers::{Accumulate, CODE_ROW, Descend, GradientSink, backward, forward};
pub use layers::{MAX_CLASSES, PIXELS, PatternBuffers};
use layout::KernelWeights;
pub use layout::{CODE, PatternParameters, TENSORS, c3_connected};
use output::OutputLayer;

/// The learning rates of stochastic diagonal Levenberg-Marquardt, one for each parameter: eta / (mu + second derivative).
pub struct LearningRates {
    weights: Box<KernelWeights>,
    smallest: f32,
    largest: f32,
}

impl LearningRates {
    /// The learning rates from averaged second derivatives, as [`PatternNetwork::curvature_of`] gives them.
    pub fn new(curvature: &PatternParameters, eta: f32, mu: f32) -> LearningRates {
        let (mut smallest, mut largest) = (f32::INFINITY, 0.0_f32);
        let mut weights = KernelWeights::zeros();
        weights.each(|tensor, index, rate| {
            *rate = eta / (mu + curvature.values[tensor][index]);
            smallest = smallest.min(*rate);
            largest = largest.max(*rate);
        });
        LearningRates { weights, smallest, largest }
    }

    /// Returns rates that are the same for all parameters. A step is then one of plain stochastic gradient
    /// descent.
    pub fn constant(rate: f32) -> LearningRates {
        LearningRates::new(&PatternParameters::zeros(), rate, 1.0)
    }

    /// The smallest learning rate.
    pub fn smallest(&self) -> f32 {
        self.smallest
    }

    /// The largest learning rate.
    pub fn largest(&self) -> f32 {
        self.largest
    }
}

/// The network: its parameters, its codes and its loss.
#[derive(Clone)]
pub struct PatternNetwork {
    weights: Box<KernelWeights>,
    buffers: Box<PatternBuffers>,
    output: OutputLayer,
    isa: Isa,
}

impl PatternNetwork {
    /// A network with these parameters and with the codes of its classes, 84 values each. The penalty of a class is `scale`
    /// times the squared distance between F6's outputs and its code.
    ///
    /// # Panics
    /// If there are no codes, more than 96, or codes of another length; if a weight of C3 without a connection is not 0.
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
            weights: KernelWeights::import(parameters),
            buffers: PatternBuffers::new(),
            output: OutputLayer { codes: rows, classes, scale, loss },
            isa: Isa::best(),
        }
    }

    /// The network of 1998 with these weights. Weights of C3 without a connection are ignored.
    ///
    /// # Errors
    /// If they are the weights of the modern network.
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

    /// Makes the network use another instruction set.
    pub fn with_isa(mut self, isa: Isa) -> PatternNetwork {
        self.isa = isa;
        self
    }

    /// The instruction set that is used.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The current parameters.
    pub fn parameters(&self) -> PatternParameters {
        self.weights.clone().export(1.0)
    }

    /// The penalties of all classes for one pattern; the predicted class has the smallest. The buffers belong to the caller, so
    /// that threads can share the network.
    pub fn forward<'w>(&self, buffers: &'w mut PatternBuffers, image: &[f32; PIXELS]) -> &'w [f32] {
        buffers.set_image(image);
        self.run_forward(buffers);
        &buffers.penalties[..self.output.classes]
    }

    /// Runs the forward pass of the image in the buffers. Each of the tasks below starts from its result.
    fn run_forward(&self, buffers: &mut PatternBuffers) {
        self.isa.run(ForwardTask { weights: &self.weights, output: &self.output, buffers });
    }

    /// The loss for penalties that [`PatternNetwork::forward`] returned.
    pub fn loss(&self, penalties: &[f32], label: usize) -> f32 {
        self.output.loss(penalties, label, &mut [0.0; MAX_CLASSES])
    }

    /// Trains on one pattern, with the learning rate of each parameter, and returns the loss before the update.
    ///
    /// # Panics
    /// If there is no class `label`.
    pub fn step(&mut self, image: &[f32; PIXELS], label: usize, rates: &LearningRates) -> f32 {
        let PatternNetwork { weights, buffers, output, isa } = self;
        buffers.set_image(image);
        isa.run(ForwardTask { weights, output, buffers });
        isa.run(StepTask { weights, output, buffers, label, rates: &rates.weights })
    }

    /// The predicted class of the pattern of the last [`PatternNetwork::step`], before the update.
    pub fn prediction(&self) -> usize {
        self.buffers.prediction(self.output.classes)
    }

    /// Adds the gradient of one pattern to a sum, and returns the loss.
    ///
    /// # Panics
    /// If there is no class `label`.
    pub fn add_gradient(
        &self,
        buffers: &mut PatternBuffers,
        image: &[f32; PIXELS],
        label: usize,
        sum: &mut GradientSum,
    ) -> f32 {
        buffers.set_image(image);
        sum.patterns += 1;
        self.run_forward(buffers);
        let weights = &self.weights;
        self.isa.run(GradientTask {
            weights,
            output: &self.output,
            buffers,
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

    /// Updates the parameters once with the mean gradient of a batch and the learning rate of each parameter.
    pub fn apply(&mut self, sum: &GradientSum, rates: &LearningRates) {
        self.isa.run(UpdateAllTask {
            weights: &mut self.weights,
            sum: &sum.weights,
            rates: &rates.weights,
            factor: 1.0 / sum.patterns as f32,
        });
    }

    /// The diagonal of the second derivatives in the Gauss-Newton approximation (the paper's appendix C), averaged over the
    /// patterns and summed over the connections that share a weight.
    ///
    /// Let a unit have the sum a and the output x, and let `h` be the second derivative with respect to its index. Then
    /// `h_a = scaled_tanh'(a)² h_x`, where `h_x` is the sum of `w² h_a` over the units that x leads to. For a weight w, `h_w`
    /// is the sum of `x² h_a` over the connections that share it. The four connections of a sub-sampling unit share its
    /// coefficient, so their x² are added.
    ///
    /// For F6's outputs x, the diagonal of the second derivatives of the loss is computed exactly. For the loss of eq. 8 it is
    /// 2 s. For that of eq. 9, with `p_i = exp(-y_i) / (exp(-j) + sum exp(-y))` and `d_i = x - w_i`, it is
    /// `2 s (1 - sum p_i) + 4 s² (sum p_i d_i² - (sum p_i d_i)²)`. Both are never negative, since `sum p_i < 1`.
    pub fn curvature_of<'a>(
        &self,
        patterns: impl IntoIterator<Item = (&'a [f32; PIXELS], usize)>,
    ) -> PatternParameters {
        let mut sum = GradientSum::new();
        let mut squared = self.weights.clone();
        squared.each(|_, _, weight| *weight *= *weight);
        let mut buffers = PatternBuffers::new();
        for (image, label) in patterns {
            buffers.set_image(image);
            sum.patterns += 1;
            self.run_forward(&mut buffers);
            self.isa.run(CurvatureTask {
                squared: &squared,
                output: &self.output,
                buffers: &mut buffers,
                label,
                sum: &mut sum.weights,
            });
        }
        sum.mean()
    }
}

/// The sum of the gradients of several patterns.
pub struct GradientSum {
    weights: Box<KernelWeights>,
    patterns: usize,
}

impl GradientSum {
    /// An empty sum.
    #[allow(clippy::new_without_default)]
    pub fn new() -> GradientSum {
        GradientSum { weights: KernelWeights::zeros(), patterns: 0 }
    }

    /// Makes the sum empty again.
    pub fn clear(&mut self) {
        self.weights.each(|_, _, value| *value = 0.0);
        self.patterns = 0;
    }

    /// The mean over the patterns.
    pub fn mean(&mut self) -> PatternParameters {
        self.weights.export(1.0 / self.patterns as f32)
    }
}

/// The forward pass of one pattern.
struct ForwardTask<'a> {
    weights: &'a KernelWeights,
    output: &'a OutputLayer,
    buffers: &'a mut PatternBuffers,
}

impl WithSimd for ForwardTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        forward(s, self.weights, self.buffers);
        self.output.forward(s, self.buffers);
    }
}

/// The loss and the backward pass of one pattern, with the update of the weights.
struct StepTask<'a> {
    weights: &'a mut KernelWeights,
    output: &'a OutputLayer,
    buffers: &'a mut PatternBuffers,
    label: usize,
    rates: &'a KernelWeights,
}

impl WithSimd for StepTask<'_> {
    type Output = f32;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> f32 {
        let loss = self.output.backward(s, self.buffers, self.label);
        backward(s, &mut Descend { weights: self.weights, rates: self.rates }, self.buffers);
        loss
    }
}

/// The loss and the backward pass of one pattern, with the gradient added to a sum.
struct GradientTask<'a> {
    weights: &'a KernelWeights,
    output: &'a OutputLayer,
    buffers: &'a mut PatternBuffers,
    label: usize,
    sum: &'a mut KernelWeights,
}

impl WithSimd for GradientTask<'_> {
    type Output = f32;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> f32 {
        let loss = self.output.backward(s, self.buffers, self.label);
        backward(
            s,
            &mut Accumulate::<false> { weights: self.weights, sum: self.sum },
            self.buffers,
        );
        loss
    }
}

/// The second derivatives of one pattern, added to a sum.
struct CurvatureTask<'a> {
    squared: &'a KernelWeights,
    output: &'a OutputLayer,
    buffers: &'a mut PatternBuffers,
    label: usize,
    sum: &'a mut KernelWeights,
}

impl WithSimd for CurvatureTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let buffers = self.buffers;
        self.output.curvature(s, buffers, self.label);
        // The backward pass is that of the gradient, with the squares of all weights, of their inputs and of the activation's
        // derivatives.
        for x in buffers
            .image
            .iter_mut()
            .chain(&mut buffers.spread)
            .chain(&mut buffers.c5_input)
            .chain(&mut buffers.f6_input)
        {
            *x *= *x;
        }
        for map in 0..6 {
            for row in 0..14 {
                for column in 0..14 {
                    let at = (map * 28 + 2 * row) * 32 + 2 * column;
                    let mut sum = 0.0;
                    for x in [
                        buffers.c1[at],
                        buffers.c1[at + 1],
                        buffers.c1[at + 32],
                        buffers.c1[at + 33],
                    ] {
                        sum += x * x;
                    }
                    buffers.s2_sum[(map * 14 + row) * 16 + column] = sum;
                }
            }
        }
        for position in 0..25 {
            let at = (position / 5 * 20 + position % 5 * 2) * 16;
            for map in 0..16 {
                let mut sum = 0.0;
                for tap in [0, 16, 160, 176] {
                    sum += buffers.c3[at + tap + map] * buffers.c3[at + tap + map];
                }
                buffers.s4_sum[position * 16 + map] = sum;
            }
        }
        backward(s, &mut Accumulate::<true> { weights: self.squared, sum: self.sum }, buffers);
    }
}

/// The update of all weights with `factor` times the summed gradient.
struct UpdateAllTask<'a> {
    weights: &'a mut KernelWeights,
    sum: &'a KernelWeights,
    rates: &'a KernelWeights,
    factor: f32,
}

impl WithSimd for UpdateAllTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let mut descend = Descend { weights: self.weights, rates: self.rates };
        for at in (0..self.sum.0.len()).step_by(S::LANES) {
            descend.take(s, at, s.mul(s.load(&self.sum.0, at), s.splat(self.factor)));
        }
    }
}
