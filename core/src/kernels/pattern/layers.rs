//! The forward and backward passes of the layers, whose gradients either update the weights or are added to a sum.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::super::simd::Simd;
use super::super::tanh::{scaled_tanh, scaled_tanh_derivative};
use super::layout::*;

/// The number of pixels of the input, 32 x 32.
pub const PIXELS: usize = 32 * 32;
/// The largest number of classes that the kernels have room for.
pub const MAX_CLASSES: usize = 96;
/// The value of the background in the input.
const BACKGROUND: f32 = -0.1;
/// The length of a row of the codes, and of F6's outputs: 84 values and twelve zeros.
pub(super) const CODE_ROW: usize = 96;
/// The length of a row of `d_c3_columns`: four zeros, the gradients of ten columns, ten zeros.
const C3_ROW: usize = 24;

/// The values of all layers for one pattern, and the gradients with respect to them. Each thread that runs the network needs
/// buffers of its own.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct PatternBuffers {
    /// The image. The vectors of the last row reach beyond it, in lanes whose sums are not used.
    pub(super) image: [f32; PIXELS + 32],
    pub(super) c1: [f32; 6 * 28 * 32],
    pub(super) s2_sum: [f32; 6 * 14 * 16],
    pub(super) s2: [f32; 6 * 14 * 16],
    /// The inputs of C3: `[slot][row][column][lane]`.
    pub(super) spread: [f32; 4 * 196 * 16],
    pub(super) c3: [f32; 100 * 16],
    pub(super) s4_sum: [f32; 400],
    pub(super) s4: [f32; 400],
    pub(super) c5: [f32; 128],
    pub(super) f6: [f32; CODE_ROW],
    pub(super) penalties: [f32; MAX_CLASSES],
    // The inputs of C5 and F6: s4 and c5, or the squares of these for the second derivatives.
    pub(super) c5_input: [f32; 400],
    pub(super) f6_input: [f32; 128],
    // The gradients of the loss with respect to the sums or the outputs of a layer.
    pub(super) d_f6: [f32; CODE_ROW],
    pub(super) d_c5: [f32; 128],
    pub(super) d_s4: [f32; 400],
    pub(super) d_c3: [f32; 100 * 16],
    pub(super) d_c3_slot3: [f32; 100 * 16],
    pub(super) d_c3_columns: [f32; 16 * 10 * C3_ROW],
    pub(super) d_c1: [f32; 6 * 28 * 32],
}

impl PatternBuffers {
    /// Buffers for one pattern.
    pub fn new() -> Box<PatternBuffers> {
        Box::new(PatternBuffers {
            image: [BACKGROUND; PIXELS + 32],
            c1: [0.0; 6 * 28 * 32],
            s2_sum: [0.0; 6 * 14 * 16],
            s2: [0.0; 6 * 14 * 16],
            spread: [0.0; 4 * 196 * 16],
            c3: [0.0; 100 * 16],
            s4_sum: [0.0; 400],
            s4: [0.0; 400],
            c5: [0.0; 128],
            f6: [0.0; CODE_ROW],
            penalties: [0.0; MAX_CLASSES],
            c5_input: [0.0; 400],
            f6_input: [0.0; 128],
            d_f6: [0.0; CODE_ROW],
            d_c5: [0.0; 128],
            d_s4: [0.0; 400],
            d_c3: [0.0; 100 * 16],
            d_c3_slot3: [0.0; 100 * 16],
            d_c3_columns: [0.0; 16 * 10 * C3_ROW],
            d_c1: [0.0; 6 * 28 * 32],
        })
    }

    /// The predicted class of the last pattern, for a network with this number of classes: the one with the smallest penalty.
    pub fn prediction(&self, classes: usize) -> usize {
        let by_penalty = |a: &usize, b: &usize| self.penalties[*a].total_cmp(&self.penalties[*b]);
        (0..classes).min_by(by_penalty).unwrap_or_default()
    }

    pub(super) fn set_image(&mut self, image: &[f32; PIXELS]) {
        self.image[..PIXELS].copy_from_slice(image);
    }
}

/// The use of a gradient: it updates the weights, or it is added to a sum.
pub(super) trait GradientSink {
    /// Whether the derivatives of the activation are squared, as the second derivatives require.
    const CURVATURE: bool;
    /// The weights that the gradients are propagated back through.
    fn weights(&self) -> &KernelWeights;
    /// Takes the gradient with respect to the weights from index `at` on.
    fn take<S: Simd>(&mut self, s: S, at: usize, gradient: S::V);
}

/// Updates the weights: `weight -= rate * gradient`.
pub(super) struct Descend<'a> {
    pub weights: &'a mut KernelWeights,
    pub rates: &'a KernelWeights,
}

impl GradientSink for Descend<'_> {
    const CURVATURE: bool = false;
    #[inline(always)]
    fn weights(&self) -> &KernelWeights {
        self.weights
    }
    #[inline(always)]
    fn take<S: Simd>(&mut self, s: S, at: usize, gradient: S::V) {
        let weight = s.load(&self.weights.0, at);
        s.store(&mut self.weights.0, at, s.fnma(s.load(&self.rates.0, at), gradient, weight));
    }
}

/// Adds to a sum: `sum += gradient`.
pub(super) struct Accumulate<'a, const CURVATURE: bool> {
    pub weights: &'a KernelWeights,
    pub sum: &'a mut KernelWeights,
}

impl<const CURVATURE: bool> GradientSink for Accumulate<'_, CURVATURE> {
    const CURVATURE: bool = CURVATURE;
    #[inline(always)]
    fn weights(&self) -> &KernelWeights {
        self.weights
    }
    #[inline(always)]
    fn take<S: Simd>(&mut self, s: S, at: usize, gradient: S::V) {
        let sum = s.add(s.load(&self.sum.0, at), gradient);
        s.store(&mut self.sum.0, at, sum);
    }
}

/// The forward pass from the image to F6.
#[inline(always)]
pub(super) fn forward<S: Simd>(s: S, weights: &KernelWeights, buffers: &mut PatternBuffers) {
    c1_s2_forward(s, weights, buffers);
    spread(s, buffers);
    c3_forward(s, weights, buffers);
    s4_forward(s, weights, buffers);
    let w = &weights.0;
    linear_forward::<S, 400, 120>(
        s,
        &w[C5_WEIGHT..F6_WEIGHT],
        &w[C5_BIAS..C3_BIAS],
        &buffers.c5_input,
        &mut buffers.c5,
    );
    buffers.f6_input = buffers.c5;
    linear_forward::<S, F6_ROW, CODE>(
        s,
        &w[F6_WEIGHT..C3_WEIGHT],
        &w[F6_BIAS..C5_BIAS],
        &buffers.f6_input,
        &mut buffers.f6,
    );
}

#[inline(always)]
fn c1_s2_forward<S: Simd>(s: S, weights: &KernelWeights, buffers: &mut PatternBuffers) {
    for row in 0..14 {
        if S::WIDE {
            c1_tile::<S, 2, 2>(s, weights, buffers, 2 * row, 0);
        } else {
            for (y, column) in [(0, 0), (0, 16), (1, 0), (1, 16)] {
                c1_tile::<S, 1, 2>(s, weights, buffers, 2 * row + y, column);
            }
        }
        for map in 0..6 {
            let coefficient = s.splat(weights.0[S2_COEFFICIENT + map]);
            let bias = s.splat(weights.0[S2_BIAS + map]);
            for column in (0..16).step_by(S::LANES) {
                let (top, bottom) = (
                    (map * 28 + 2 * row) * 32 + 2 * column,
                    (map * 28 + 2 * row + 1) * 32 + 2 * column,
                );
                let left = s.add(s.load(&buffers.c1, top), s.load(&buffers.c1, bottom));
                let right = s.add(
                    s.load(&buffers.c1, top + S::LANES),
                    s.load(&buffers.c1, bottom + S::LANES),
                );
                let (even, odd) = s.unzip(left, right);
                let sum = s.add(even, odd);
                let at = (map * 14 + row) * 16 + column;
                s.store(&mut buffers.s2_sum, at, sum);
                s.store(&mut buffers.s2, at, scaled_tanh(s, s.fma(sum, coefficient, bias)));
            }
        }
    }
}

/// Computes a tile of C1: all six maps by `ROWS` rows by `VECTORS` vectors of columns.
#[inline(always)]
fn c1_tile<S: Simd, const ROWS: usize, const VECTORS: usize>(
    s: S,
    weights: &KernelWeights,
    buffers: &mut PatternBuffers,
    row: usize,
    column: usize,
) {
    let mut sums = [[[s.splat(0.0); VECTORS]; ROWS]; 6];
    for map in 0..6 {
        sums[map] = [[s.splat(weights.0[C1_BIAS + map]); VECTORS]; ROWS];
    }
    for ky in 0..5 {
        for kx in 0..5 {
            let mut x = [[s.splat(0.0); VECTORS]; ROWS];
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    x[r][v] =
                        s.load(&buffers.image, (row + r + ky) * 32 + column + v * S::LANES + kx);
                }
            }
            for map in 0..6 {
                let weight = s.splat(weights.0[C1_WEIGHT + map * 25 + ky * 5 + kx]);
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        sums[map][r][v] = s.fma(x[r][v], weight, sums[map][r][v]);
                    }
                }
            }
        }
    }
    for map in 0..6 {
        for r in 0..ROWS {
            for v in 0..VECTORS {
                let at = (map * 28 + row + r) * 32 + column + v * S::LANES;
                s.store(&mut buffers.c1, at, scaled_tanh(s, sums[map][r][v]));
            }
        }
    }
}

/// Copies S2's maps to the slots of C3.
#[inline(always)]
fn spread<S: Simd>(s: S, buffers: &mut PatternBuffers) {
    for row in 0..14 {
        for column in 0..14 {
            let mut maps = [0.0; 8];
            for map in 0..6 {
                maps[map] = buffers.s2[(map * 14 + row) * 16 + column];
            }
            for slot in 0..4 {
                for lane in (0..16).step_by(S::LANES) {
                    let at = ((slot * 14 + row) * 14 + column) * 16 + lane;
                    s.store(&mut buffers.spread, at, s.look_up(&maps, &SLOT_INPUT[slot], lane));
                }
            }
        }
    }
}

#[inline(always)]
fn c3_forward<S: Simd>(s: S, weights: &KernelWeights, buffers: &mut PatternBuffers) {
    // Slot 3 comes first and alone, since its lanes 0 and 1 belong to map 15.
    for row in 0..10 {
        for lane in (0..16).step_by(S::LANES) {
            c3_tile::<S, false>(s, weights, buffers, row, lane);
        }
    }
    for sums in buffers.c3.chunks_exact_mut(16) {
        sums[15] += sums[0] + sums[1];
        sums[..6].fill(0.0);
    }
    for row in 0..10 {
        for lane in (0..16).step_by(S::LANES) {
            c3_tile::<S, true>(s, weights, buffers, row, lane);
        }
    }
}

/// Computes a row of C3. Without `LAST` it computes the sums of slot 3; with `LAST` it adds those of the other slots and the
/// bias, and applies the activation.
#[inline(always)]
fn c3_tile<S: Simd, const LAST: bool>(
    s: S,
    weights: &KernelWeights,
    buffers: &mut PatternBuffers,
    row: usize,
    lane: usize,
) {
    let mut sums = [s.splat(0.0); 10];
    if LAST {
        let bias = s.load(&weights.0, C3_BIAS + lane);
        for x in 0..10 {
            sums[x] = s.add(bias, s.load(&buffers.c3, (row * 10 + x) * 16 + lane));
        }
    }
    for slot in if LAST { 0..3 } else { 3..4 } {
        for ky in 0..5 {
            for kx in 0..5 {
                let weight = s.load(&weights.0, C3_WEIGHT + (slot * 25 + ky * 5 + kx) * 16 + lane);
                for x in 0..10 {
                    let at = ((slot * 14 + row + ky) * 14 + x + kx) * 16 + lane;
                    sums[x] = s.fma(weight, s.load(&buffers.spread, at), sums[x]);
                }
            }
        }
    }
    for x in 0..10 {
        let sum = if LAST { scaled_tanh(s, sums[x]) } else { sums[x] };
        s.store(&mut buffers.c3, (row * 10 + x) * 16 + lane, sum);
    }
}

#[inline(always)]
fn s4_forward<S: Simd>(s: S, weights: &KernelWeights, buffers: &mut PatternBuffers) {
    for lane in (0..16).step_by(S::LANES) {
        let coefficient = s.load(&weights.0, S4_COEFFICIENT + lane);
        let bias = s.load(&weights.0, S4_BIAS + lane);
        for position in 0..25 {
            let at = (position / 5 * 20 + position % 5 * 2) * 16 + lane;
            let top = s.add(s.load(&buffers.c3, at), s.load(&buffers.c3, at + 16));
            let sum =
                s.add(top, s.add(s.load(&buffers.c3, at + 160), s.load(&buffers.c3, at + 176)));
            let out = scaled_tanh(s, s.fma(sum, coefficient, bias));
            s.store(&mut buffers.s4_sum, position * 16 + lane, sum);
            s.store(&mut buffers.s4, position * 16 + lane, out);
            s.store(&mut buffers.c5_input, position * 16 + lane, out);
        }
    }
}

/// Computes a linear layer and its activation. A tile is four outputs.
#[inline(always)]
fn linear_forward<S: Simd, const INPUTS: usize, const OUTPUTS: usize>(
    s: S,
    weights: &[f32],
    bias: &[f32],
    input: &[f32; INPUTS],
    output: &mut [f32],
) {
    for first in (0..OUTPUTS).step_by(4) {
        let mut sums = [s.splat(0.0); 4];
        for at in (0..INPUTS).step_by(S::LANES) {
            let x = s.load(input, at);
            for o in 0..4 {
                sums[o] = s.fma(x, s.load(weights, (first + o) * INPUTS + at), sums[o]);
            }
        }
        for o in 0..4 {
            output[first + o] = bias[first + o] + s.sum(sums[o]);
        }
    }
    for at in (0..output.len()).step_by(S::LANES) {
        let out = scaled_tanh(s, s.load(output, at));
        s.store(output, at, out);
    }
}

/// The backward pass from the gradient with respect to F6's sums, `d_f6`, to the image. The gradients with respect to all
/// parameters go into the sink.
#[inline(always)]
pub(super) fn backward<S: Simd, K: GradientSink>(s: S, sink: &mut K, buffers: &mut PatternBuffers) {
    for at in (0..CODE_ROW).step_by(S::LANES) {
        sink.take(s, F6_BIAS + at, s.load(&buffers.d_f6, at));
    }
    linear_backward::<S, K, F6_ROW, CODE, 8>(
        s,
        sink,
        F6_WEIGHT,
        &buffers.d_f6,
        &buffers.f6_input,
        &mut buffers.d_c5,
    );
    for at in (0..128).step_by(S::LANES) {
        let derivative = s.mul(
            s.load(&buffers.d_c5, at),
            activation_derivative::<S, K>(s, s.load(&buffers.c5, at)),
        );
        s.store(&mut buffers.d_c5, at, derivative);
        sink.take(s, C5_BIAS + at, derivative);
    }
    if S::WIDE {
        linear_backward::<S, K, 400, 120, 5>(
            s,
            sink,
            C5_WEIGHT,
            &buffers.d_c5,
            &buffers.c5_input,
            &mut buffers.d_s4,
        );
    } else {
        linear_backward::<S, K, 400, 120, 10>(
            s,
            sink,
            C5_WEIGHT,
            &buffers.d_c5,
            &buffers.c5_input,
            &mut buffers.d_s4,
        );
    }
    s4_backward(s, sink, buffers);
    c3_s2_backward(s, sink, buffers);
    if S::WIDE {
        c3_gradient::<S, K, 1>(s, sink, buffers);
        c1_gradient::<S, K, 3>(s, sink, buffers);
    } else {
        c3_gradient::<S, K, 2>(s, sink, buffers);
        c1_gradient::<S, K, 2>(s, sink, buffers);
    }
}

/// The derivative of the activation, computed from its value, and squared for the second derivatives.
#[inline(always)]
fn activation_derivative<S: Simd, K: GradientSink>(s: S, out: S::V) -> S::V {
    let derivative = scaled_tanh_derivative(s, out);
    if K::CURVATURE { s.mul(derivative, derivative) } else { derivative }
}

/// The backward pass of a linear layer. A tile is `VECTORS` vectors of inputs. The weights are read once, both for the gradient
/// with respect to the inputs and for their update.
#[inline(always)]
fn linear_backward<
    S: Simd,
    K: GradientSink,
    const INPUTS: usize,
    const OUTPUTS: usize,
    const VECTORS: usize,
>(
    s: S,
    sink: &mut K,
    weights: usize,
    d: &[f32],
    input: &[f32; INPUTS],
    d_input: &mut [f32; INPUTS],
) {
    for first in (0..INPUTS).step_by(VECTORS * S::LANES) {
        let (mut sums, mut x) = ([s.splat(0.0); VECTORS], [s.splat(0.0); VECTORS]);
        for v in 0..VECTORS {
            x[v] = s.load(input, first + v * S::LANES);
        }
        for output in 0..OUTPUTS {
            let derivative = s.splat(d[output]);
            for v in 0..VECTORS {
                let here = weights + output * INPUTS + first + v * S::LANES;
                sums[v] = s.fma(derivative, s.load(&sink.weights().0, here), sums[v]);
                sink.take(s, here, s.mul(derivative, x[v]));
            }
        }
        for v in 0..VECTORS {
            s.store(d_input, first + v * S::LANES, sums[v]);
        }
    }
}

/// The backward pass of S4 and of C3's activation. The gradient with respect to C3's sums is written in three layouts: by
/// map, by lane of slot 3, and by column.
#[inline(always)]
fn s4_backward<S: Simd, K: GradientSink>(s: S, sink: &mut K, buffers: &mut PatternBuffers) {
    for lane in (0..16).step_by(S::LANES) {
        let coefficient = s.load(&sink.weights().0, S4_COEFFICIENT + lane);
        let (mut d_coefficient, mut d_bias, mut d_c3_bias) =
            (s.splat(0.0), s.splat(0.0), s.splat(0.0));
        for position in 0..25 {
            let at = position * 16 + lane;
            let derivative = s.mul(
                s.load(&buffers.d_s4, at),
                activation_derivative::<S, K>(s, s.load(&buffers.s4, at)),
            );
            d_coefficient = s.fma(derivative, s.load(&buffers.s4_sum, at), d_coefficient);
            d_bias = s.add(d_bias, derivative);
            let d_sum = s.mul(derivative, coefficient);
            let at = (position / 5 * 20 + position % 5 * 2) * 16 + lane;
            for tap in [0, 16, 160, 176] {
                let derivative =
                    s.mul(d_sum, activation_derivative::<S, K>(s, s.load(&buffers.c3, at + tap)));
                d_c3_bias = s.add(d_c3_bias, derivative);
                s.store(&mut buffers.d_c3, at + tap, derivative);
            }
        }
        sink.take(s, S4_COEFFICIENT + lane, d_coefficient);
        sink.take(s, S4_BIAS + lane, d_bias);
        sink.take(s, C3_BIAS + lane, d_c3_bias);
    }
    buffers.d_c3_slot3 = buffers.d_c3;
    for position in 0..100 {
        let last = buffers.d_c3[position * 16 + 15];
        buffers.d_c3_slot3[position * 16] = last;
        buffers.d_c3_slot3[position * 16 + 1] = last;
        for map in 0..16 {
            let to = (map * 10 + position / 10) * C3_ROW + 4 + position % 10;
            buffers.d_c3_columns[to] = buffers.d_c3[position * 16 + map];
        }
    }
}

/// The backward pass of C3, S2 and C1's activation. It writes the gradient with respect to C1's sums.
#[inline(always)]
fn c3_s2_backward<S: Simd, K: GradientSink>(s: S, sink: &mut K, buffers: &mut PatternBuffers) {
    let (mut d_coefficient, mut d_bias, mut d_c1_bias) = ([0.0; 16], [0.0; 16], [0.0; 16]);
    for map in 0..6 {
        let coefficient = s.splat(sink.weights().0[S2_COEFFICIENT + map]);
        let mut totals = [s.splat(0.0); 3];
        for column in (0..16).step_by(S::LANES) {
            let mut rows = [s.splat(0.0); 14];
            for (slot, lane, c3_map) in CONNECTIONS[map] {
                for kx in 0..5 {
                    let mut taps = [s.splat(0.0); 5];
                    for ky in 0..5 {
                        taps[ky] = s.splat(
                            sink.weights().0[C3_WEIGHT + (slot * 25 + ky * 5 + kx) * 16 + lane],
                        );
                    }
                    for y in 0..10 {
                        let at = (c3_map * 10 + y) * C3_ROW + column + 4 - kx;
                        let derivative = s.load(&buffers.d_c3_columns, at);
                        for ky in 0..5 {
                            rows[y + ky] = s.fma(taps[ky], derivative, rows[y + ky]);
                        }
                    }
                }
            }
            for row in 0..14 {
                let at = (map * 14 + row) * 16 + column;
                let derivative =
                    s.mul(rows[row], activation_derivative::<S, K>(s, s.load(&buffers.s2, at)));
                totals[0] = s.fma(derivative, s.load(&buffers.s2_sum, at), totals[0]);
                totals[1] = s.add(totals[1], derivative);
                let product = s.mul(derivative, coefficient);
                let (left, right) = s.zip(product, product);
                for y in 0..2 {
                    let at = (map * 28 + 2 * row + y) * 32 + 2 * column;
                    let left =
                        s.mul(left, activation_derivative::<S, K>(s, s.load(&buffers.c1, at)));
                    let right = s.mul(
                        right,
                        activation_derivative::<S, K>(s, s.load(&buffers.c1, at + S::LANES)),
                    );
                    totals[2] = s.add(totals[2], s.add(left, right));
                    s.store(&mut buffers.d_c1, at, left);
                    s.store(&mut buffers.d_c1, at + S::LANES, right);
                }
            }
        }
        d_coefficient[map] = s.sum(totals[0]);
        d_bias[map] = s.sum(totals[1]);
        d_c1_bias[map] = s.sum(totals[2]);
    }
    for at in (0..16).step_by(S::LANES) {
        sink.take(s, S2_COEFFICIENT + at, s.load(&d_coefficient, at));
        sink.take(s, S2_BIAS + at, s.load(&d_bias, at));
        sink.take(s, C1_BIAS + at, s.load(&d_c1_bias, at));
    }
}

/// Computes the gradient with respect to C3's weights, for a kernel row of five taps at a time. It has `PARTS` partial sums, so
/// that the additions to one do not wait for those to another.
#[inline(always)]
fn c3_gradient<S: Simd, K: GradientSink, const PARTS: usize>(
    s: S,
    sink: &mut K,
    buffers: &PatternBuffers,
) {
    for slot in 0..4 {
        let derivatives = if slot == 3 { &buffers.d_c3_slot3 } else { &buffers.d_c3 };
        for lane in (0..16).step_by(S::LANES) {
            for ky in 0..5 {
                let mut sums = [[s.splat(0.0); 5]; PARTS];
                for y in (0..10).step_by(PARTS) {
                    for x in 0..10 {
                        for part in 0..PARTS {
                            let y = y + part;
                            let derivative = s.load(derivatives, (y * 10 + x) * 16 + lane);
                            for kx in 0..5 {
                                let at = ((slot * 14 + y + ky) * 14 + x + kx) * 16 + lane;
                                sums[part][kx] =
                                    s.fma(derivative, s.load(&buffers.spread, at), sums[part][kx]);
                            }
                        }
                    }
                }
                for kx in 0..5 {
                    let mut sum = sums[0][kx];
                    for part in 1..PARTS {
                        sum = s.add(sum, sums[part][kx]);
                    }
                    sink.take(s, C3_WEIGHT + (slot * 25 + ky * 5 + kx) * 16 + lane, sum);
                }
            }
        }
    }
}

/// Computes the gradient with respect to C1's weights. A tile is `MAPS` maps by the five taps of a kernel row.
#[inline(always)]
fn c1_gradient<S: Simd, K: GradientSink, const MAPS: usize>(
    s: S,
    sink: &mut K,
    buffers: &PatternBuffers,
) {
    let mut gradient = [0.0; 160];
    for first in (0..6).step_by(MAPS) {
        for ky in 0..5 {
            let mut sums = [[s.splat(0.0); 5]; MAPS];
            for y in 0..28 {
                for column in (0..32).step_by(S::LANES) {
                    let mut derivatives = [s.splat(0.0); MAPS];
                    for m in 0..MAPS {
                        derivatives[m] =
                            s.load(&buffers.d_c1, ((first + m) * 28 + y) * 32 + column);
                    }
                    for kx in 0..5 {
                        let x = s.load(&buffers.image, (y + ky) * 32 + column + kx);
                        for m in 0..MAPS {
                            sums[m][kx] = s.fma(derivatives[m], x, sums[m][kx]);
                        }
                    }
                }
            }
            for m in 0..MAPS {
                for kx in 0..5 {
                    gradient[(first + m) * 25 + ky * 5 + kx] = s.sum(sums[m][kx]);
                }
            }
        }
    }
    for at in (0..160).step_by(S::LANES) {
        sink.take(s, C1_WEIGHT + at, s.load(&gradient, at));
    }
}
