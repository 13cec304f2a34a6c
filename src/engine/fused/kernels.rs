//! The kernels: one sample per lane, `[channel][row][column][lane]`.
//!
//! A weight is one number for all lanes, so every inner loop is a plain multiply-add of vectors: no edges and
//! no shuffles. Loops have a few accumulators that stay in registers, 15 to 21 of them.
#![allow(clippy::needless_range_loop)] // an index says the layout; iterators would bring closures

use super::super::simd::Simd;
use super::super::tanh::tanh;
use super::parameters::{C1, C3, C5, F6, Gradient, OUTPUT, Parameters};

/// The widest vector.
pub(super) const WIDEST: usize = 16;
/// A row of what C3's derivatives are kept in: ten values between zeros.
const ROW: usize = 18;

/// The squashing function.
pub(super) trait Activation: Copy {
    /// Of a unit's sum.
    fn apply<S: Simd>(s: S, a: S::V) -> S::V;
    /// `d` times the derivative, from the value.
    fn back<S: Simd>(s: S, value: S::V, d: S::V) -> S::V;
}

#[derive(Clone, Copy)]
pub(super) struct Tanh;

impl Activation for Tanh {
    #[inline(always)]
    fn apply<S: Simd>(s: S, a: S::V) -> S::V {
        tanh(s, a)
    }
    #[inline(always)]
    fn back<S: Simd>(s: S, value: S::V, d: S::V) -> S::V {
        s.mul(d, s.fnma(value, value, s.splat(1.0)))
    }
}

#[derive(Clone, Copy)]
pub(super) struct Relu;

impl Activation for Relu {
    #[inline(always)]
    fn apply<S: Simd>(s: S, a: S::V) -> S::V {
        s.max(a, s.splat(0.0))
    }
    #[inline(always)]
    fn back<S: Simd>(s: S, value: S::V, d: S::V) -> S::V {
        s.select_ge(s.splat(0.0), value, s.splat(0.0), d)
    }
}

/// Pooling of four values.
pub(super) trait Pooling: Copy {
    fn apply<S: Simd>(s: S, x: [S::V; 4]) -> S::V;
    /// What each of the four gets of `d`.
    fn back<S: Simd>(s: S, x: [S::V; 4], d: S::V) -> [S::V; 4];
}

#[derive(Clone, Copy)]
pub(super) struct Average;

impl Pooling for Average {
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: [S::V; 4]) -> S::V {
        s.mul(s.add(s.add(x[0], x[1]), s.add(x[2], x[3])), s.splat(0.25))
    }
    #[inline(always)]
    fn back<S: Simd>(s: S, _: [S::V; 4], d: S::V) -> [S::V; 4] {
        [s.mul(d, s.splat(0.25)); 4]
    }
}

#[derive(Clone, Copy)]
pub(super) struct Max;

impl Pooling for Max {
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: [S::V; 4]) -> S::V {
        s.max(s.max(x[0], x[1]), s.max(x[2], x[3]))
    }
    /// The first of the largest gets all.
    #[inline(always)]
    fn back<S: Simd>(s: S, x: [S::V; 4], d: S::V) -> [S::V; 4] {
        let largest = Self::apply(s, x);
        let (mut left, zero) = (d, s.splat(0.0));
        let mut parts = [zero; 4];
        for i in 0..4 {
            parts[i] = s.select_ge(x[i], largest, left, zero);
            left = s.select_ge(x[i], largest, zero, left);
        }
        parts
    }
}

/// The activations and derivatives of one group of samples.
#[repr(C, align(64))]
pub(super) struct Work {
    pub x: [f32; 1024 * WIDEST],
    pub c1: [f32; 6 * 784 * WIDEST],
    pub s2: [f32; 6 * 196 * WIDEST],
    pub c3: [f32; 16 * 100 * WIDEST],
    pub s4: [f32; 400 * WIDEST],
    pub c5: [f32; 120 * WIDEST],
    pub f6: [f32; 84 * WIDEST],
    pub output: [f32; MAX_CLASSES * WIDEST],
    pub d_output: [f32; MAX_CLASSES * WIDEST],
    pub d_f6: [f32; 84 * WIDEST],
    pub d_c5: [f32; 120 * WIDEST],
    pub d_s4: [f32; 400 * WIDEST],
    pub d_c3: [f32; 16 * 10 * ROW * WIDEST],
    pub d_s2: [f32; 6 * 196 * WIDEST],
}

/// The most classes.
pub const MAX_CLASSES: usize = 128;

impl Work {
    pub fn new() -> Box<Work> {
        Box::new(Work {
            x: [0.0; 1024 * WIDEST],
            c1: [0.0; 6 * 784 * WIDEST],
            s2: [0.0; 6 * 196 * WIDEST],
            c3: [0.0; 16 * 100 * WIDEST],
            s4: [0.0; 400 * WIDEST],
            c5: [0.0; 120 * WIDEST],
            f6: [0.0; 84 * WIDEST],
            output: [0.0; MAX_CLASSES * WIDEST],
            d_output: [0.0; MAX_CLASSES * WIDEST],
            d_f6: [0.0; 84 * WIDEST],
            d_c5: [0.0; 120 * WIDEST],
            d_s4: [0.0; 400 * WIDEST],
            d_c3: [0.0; 16 * 10 * ROW * WIDEST],
            d_s2: [0.0; 6 * 196 * WIDEST],
        })
    }
}

/// From the pixels in `work.x` to the logits in `work.output`.
#[inline(always)]
pub(super) fn forward<S: Simd, A: Activation, P: Pooling>(s: S, p: &Parameters, work: &mut Work) {
    let l = S::LANES;
    // C1: three maps by seven columns; then S2 of two rows.
    for maps in 0..2 {
        for y in 0..14 {
            for row in 2 * y..2 * y + 2 {
                for left in [0, 7, 14, 21] {
                    let mut sums = [[s.splat(0.0); 7]; 3];
                    for m in 0..3 {
                        sums[m] = [s.splat(p.0[C1.bias + 3 * maps + m]); 7];
                    }
                    for ky in 0..5 {
                        let x = &work.x[((row + ky) * 32 + left) * l..][..11 * l];
                        let w = &p.0[C1.weight + 3 * maps * 25 + ky * 5..][..55];
                        for kx in 0..5 {
                            for m in 0..3 {
                                let w = s.splat(w[m * 25 + kx]);
                                for c in 0..7 {
                                    sums[m][c] = s.fma(s.load(x, (c + kx) * l), w, sums[m][c]);
                                }
                            }
                        }
                    }
                    for m in 0..3 {
                        let at = ((3 * maps + m) * 784 + row * 28 + left) * l;
                        let c1 = &mut work.c1[at..][..7 * l];
                        for c in 0..7 {
                            s.store(c1, c * l, A::apply(s, sums[m][c]));
                        }
                    }
                }
            }
            for m in 3 * maps..3 * maps + 3 {
                let c1 = &work.c1[(m * 784 + 2 * y * 28) * l..][..56 * l];
                let s2 = &mut work.s2[(m * 196 + y * 14) * l..][..14 * l];
                for c in 0..14 {
                    s.store(s2, c * l, P::apply(s, four::<S>(s, c1, 2 * c, 28)));
                }
            }
        }
    }
    // C3: four maps by five columns.
    for maps in 0..4 {
        for row in 0..10 {
            for left in [0, 5] {
                let mut sums = [[s.splat(0.0); 5]; 4];
                for m in 0..4 {
                    sums[m] = [s.splat(p.0[C3.bias + 4 * maps + m]); 5];
                }
                for channel in 0..6 {
                    for ky in 0..5 {
                        let x = &work.s2[(channel * 196 + (row + ky) * 14 + left) * l..][..9 * l];
                        let w = &p.0[C3.weight + (4 * maps * 6 + channel) * 25 + ky * 5..][..455];
                        for kx in 0..5 {
                            for m in 0..4 {
                                let w = s.splat(w[m * 150 + kx]);
                                for c in 0..5 {
                                    sums[m][c] = s.fma(s.load(x, (c + kx) * l), w, sums[m][c]);
                                }
                            }
                        }
                    }
                }
                for m in 0..4 {
                    let at = ((4 * maps + m) * 100 + row * 10 + left) * l;
                    let c3 = &mut work.c3[at..][..5 * l];
                    for c in 0..5 {
                        s.store(c3, c * l, A::apply(s, sums[m][c]));
                    }
                }
            }
        }
        for m in 4 * maps..4 * maps + 4 {
            for y in 0..5 {
                let c3 = &work.c3[(m * 100 + 2 * y * 10) * l..][..20 * l];
                let s4 = &mut work.s4[(m * 25 + y * 5) * l..][..5 * l];
                for c in 0..5 {
                    s.store(s4, c * l, P::apply(s, four::<S>(s, c3, 2 * c, 10)));
                }
            }
        }
    }
    linear::<S, 400, 12>(s, &p.0[C5.weight..], &p.0[C5.bias..], 120, &work.s4, &mut work.c5);
    activate::<S, A>(s, &mut work.c5[..120 * l]);
    linear::<S, 120, 12>(s, &p.0[F6.weight..], &p.0[F6.bias..], 84, &work.c5, &mut work.f6);
    activate::<S, A>(s, &mut work.f6[..84 * l]);
    let classes = p.classes();
    let (weight, bias) = (&p.0[OUTPUT..], &p.0[OUTPUT + 84 * classes..]);
    let tens = classes / 10 * 10;
    linear::<S, 84, 10>(s, weight, bias, tens, &work.f6, &mut work.output);
    let (weight, bias) = (&weight[84 * tens..], &bias[tens..]);
    let output = &mut work.output[tens * l..];
    linear::<S, 84, 1>(s, weight, bias, classes - tens, &work.f6, output);
}

/// `to[at..] += v`.
#[inline(always)]
fn accumulate<S: Simd>(s: S, to: &mut [f32], at: usize, v: S::V) {
    let sum = s.add(v, s.load(to, at));
    s.store(to, at, sum);
}

/// The four values of a block of 2x2, in rows of `width`.
#[inline(always)]
fn four<S: Simd>(s: S, x: &[f32], column: usize, width: usize) -> [S::V; 4] {
    let l = S::LANES;
    let at = column * l;
    [s.load(x, at), s.load(x, at + l), s.load(x, at + width * l), s.load(x, at + (width + 1) * l)]
}

#[inline(always)]
fn activate<S: Simd, A: Activation>(s: S, x: &mut [f32]) {
    for x in x.chunks_exact_mut(S::LANES) {
        s.store(x, 0, A::apply(s, s.load(x, 0)));
    }
}

/// `to = weight x + bias`, `ROWS` outputs at a time; `outputs` is a multiple of it.
#[inline(always)]
fn linear<S: Simd, const INPUTS: usize, const ROWS: usize>(
    s: S,
    weight: &[f32],
    bias: &[f32],
    outputs: usize,
    x: &[f32],
    to: &mut [f32],
) {
    let l = S::LANES;
    let x = &x[..INPUTS * l];
    for first in (0..outputs).step_by(ROWS) {
        let w = &weight[first * INPUTS..][..ROWS * INPUTS];
        let mut sums = [s.splat(0.0); ROWS];
        for r in 0..ROWS {
            sums[r] = s.splat(bias[first + r]);
        }
        for i in 0..INPUTS {
            let x = s.load(x, i * l);
            for r in 0..ROWS {
                sums[r] = s.fma(x, s.splat(w[r * INPUTS + i]), sums[r]);
            }
        }
        let to = &mut to[first * l..][..ROWS * l];
        for r in 0..ROWS {
            s.store(to, r * l, sums[r]);
        }
    }
}

/// From the derivatives by the logits in `work.d_output` to those by the weights of C1 and C3, added to
/// `sums`, and by the outputs of the linear layers, left in `work`.
#[inline(always)]
pub(super) fn backward<S: Simd, A: Activation, P: Pooling>(
    s: S,
    p: &Parameters,
    work: &mut Work,
    sums: &mut Gradient,
) {
    let l = S::LANES;
    let classes = p.classes();
    linear_back::<S, 84, 14>(s, &p.0[OUTPUT..], classes, &work.d_output, &mut work.d_f6);
    activate_back::<S, A>(s, &work.f6[..84 * l], &mut work.d_f6[..84 * l]);
    linear_back::<S, 120, 20>(s, &p.0[F6.weight..], 84, &work.d_f6, &mut work.d_c5);
    activate_back::<S, A>(s, &work.c5[..120 * l], &mut work.d_c5[..120 * l]);
    linear_back::<S, 400, 20>(s, &p.0[C5.weight..], 120, &work.d_c5, &mut work.d_s4);
    // S4, to C3's sums; between zeros, so that what follows has no edges to the sides.
    for m in 0..16 {
        for y in 0..5 {
            let c3 = &work.c3[(m * 100 + 2 * y * 10) * l..][..20 * l];
            let d_c3 = &mut work.d_c3[(m * 10 + 2 * y) * ROW * l..][..2 * ROW * l];
            for c in 0..5 {
                let d = s.load(&work.d_s4, (m * 25 + y * 5 + c) * l);
                let values = four::<S>(s, c3, 2 * c, 10);
                let parts = P::back(s, values, d);
                for (i, at) in [0, 1, ROW, ROW + 1].into_iter().enumerate() {
                    s.store(d_c3, (at + 4 + 2 * c) * l, A::back(s, values[i], parts[i]));
                }
            }
        }
    }
    // C3's weights: four maps by the five taps of a row.
    for maps in 0..4 {
        let mut bias = [s.splat(0.0); 4];
        for m in 0..4 {
            for row in 0..10 {
                let d = &work.d_c3[(((4 * maps + m) * 10 + row) * ROW + 4) * l..][..10 * l];
                for c in 0..10 {
                    bias[m] = s.add(bias[m], s.load(d, c * l));
                }
            }
            let at = (4 * maps + m) * WIDEST;
            accumulate(s, &mut sums.c3_bias, at, bias[m]);
        }
        for channel in 0..6 {
            for ky in 0..5 {
                let mut taps = [[s.splat(0.0); 5]; 4];
                for row in 0..10 {
                    let x = &work.s2[(channel * 196 + (row + ky) * 14) * l..][..14 * l];
                    let d = &work.d_c3[(4 * maps * 10 + row) * ROW * l..][..(31 * ROW) * l];
                    for c in 0..10 {
                        let mut window = [s.splat(0.0); 5];
                        for kx in 0..5 {
                            window[kx] = s.load(x, (c + kx) * l);
                        }
                        for m in 0..4 {
                            let d = s.load(d, (m * 10 * ROW + c + 4) * l);
                            for kx in 0..5 {
                                taps[m][kx] = s.fma(window[kx], d, taps[m][kx]);
                            }
                        }
                    }
                }
                for m in 0..4 {
                    let at = (((4 * maps + m) * 6 + channel) * 25 + ky * 5) * WIDEST;
                    for kx in 0..5 {
                        let at = at + kx * WIDEST;
                        accumulate(s, &mut sums.c3, at, taps[m][kx]);
                    }
                }
            }
        }
    }
    // S2's outputs, gathered: three channels by seven columns.
    for channels in [0, 3] {
        for row in 0..14 {
            for left in [0, 7] {
                let mut d = [[s.splat(0.0); 7]; 3];
                for ky in row.max(9) - 9..(row + 1).min(5) {
                    for m in 0..16 {
                        let from = &work.d_c3[((m * 10 + row - ky) * ROW + left) * l..][..11 * l];
                        let w = &p.0[C3.weight + (m * 6 + channels) * 25 + ky * 5..][..55];
                        for kx in 0..5 {
                            for k in 0..3 {
                                let w = s.splat(w[k * 25 + kx]);
                                for c in 0..7 {
                                    d[k][c] = s.fma(s.load(from, (c + 4 - kx) * l), w, d[k][c]);
                                }
                            }
                        }
                    }
                }
                for k in 0..3 {
                    let at = ((channels + k) * 196 + row * 14 + left) * l;
                    let to = &mut work.d_s2[at..][..7 * l];
                    for c in 0..7 {
                        s.store(to, c * l, d[k][c]);
                    }
                }
            }
        }
    }
    // To C1's sums, in the place of its outputs.
    for m in 0..6 {
        let mut bias = s.splat(0.0);
        for y in 0..14 {
            let c1 = &mut work.c1[(m * 784 + 2 * y * 28) * l..][..56 * l];
            let d_s2 = &work.d_s2[(m * 196 + y * 14) * l..][..14 * l];
            for c in 0..14 {
                let values = four::<S>(s, c1, 2 * c, 28);
                let parts = P::back(s, values, s.load(d_s2, c * l));
                for (i, at) in [0, 1, 28, 29].into_iter().enumerate() {
                    let d = A::back(s, values[i], parts[i]);
                    bias = s.add(bias, d);
                    s.store(c1, (at + 2 * c) * l, d);
                }
            }
        }
        let at = m * WIDEST;
        accumulate(s, &mut sums.c1_bias, at, bias);
    }
    // C1's weights: three maps by the five taps of a row.
    for maps in 0..2 {
        for ky in 0..5 {
            let mut taps = [[s.splat(0.0); 5]; 3];
            for row in 0..28 {
                let x = &work.x[(row + ky) * 32 * l..][..32 * l];
                let d = &work.c1[(3 * maps * 784 + row * 28) * l..][..(2 * 784 + 28) * l];
                for c in 0..28 {
                    let mut window = [s.splat(0.0); 5];
                    for kx in 0..5 {
                        window[kx] = s.load(x, (c + kx) * l);
                    }
                    for m in 0..3 {
                        let d = s.load(d, (m * 784 + c) * l);
                        for kx in 0..5 {
                            taps[m][kx] = s.fma(window[kx], d, taps[m][kx]);
                        }
                    }
                }
            }
            for m in 0..3 {
                for kx in 0..5 {
                    let at = ((3 * maps + m) * 25 + ky * 5 + kx) * WIDEST;
                    accumulate(s, &mut sums.c1, at, taps[m][kx]);
                }
            }
        }
    }
}

/// `to = weightᵀ d`, `COLUMNS` inputs at a time.
#[inline(always)]
fn linear_back<S: Simd, const INPUTS: usize, const COLUMNS: usize>(
    s: S,
    weight: &[f32],
    outputs: usize,
    d: &[f32],
    to: &mut [f32],
) {
    let l = S::LANES;
    for first in (0..INPUTS).step_by(COLUMNS) {
        let mut sums = [s.splat(0.0); COLUMNS];
        for o in 0..outputs {
            let d = s.load(d, o * l);
            let w = &weight[o * INPUTS + first..][..COLUMNS];
            for c in 0..COLUMNS {
                sums[c] = s.fma(d, s.splat(w[c]), sums[c]);
            }
        }
        let to = &mut to[first * l..][..COLUMNS * l];
        for c in 0..COLUMNS {
            s.store(to, c * l, sums[c]);
        }
    }
}

#[inline(always)]
fn activate_back<S: Simd, A: Activation>(s: S, values: &[f32], d: &mut [f32]) {
    for (value, d) in values.chunks_exact(S::LANES).zip(d.chunks_exact_mut(S::LANES)) {
        s.store(d, 0, A::back(s, s.load(value, 0), s.load(d, 0)));
    }
}

/// `sum += dᵀ x` over samples: `d` has rows of `outputs`, `x` and `sum` rows of `inputs`, a multiple of
/// `VECTORS` vectors.
#[inline(always)]
pub(super) fn outer<S: Simd, const VECTORS: usize>(
    s: S,
    d: &[f32],
    outputs: usize,
    x: &[f32],
    inputs: usize,
    samples: usize,
    sum: &mut [f32],
) {
    let l = S::LANES;
    let step = VECTORS * l;
    for first in (0..outputs).step_by(4) {
        let rows = (outputs - first).min(4);
        for left in (0..inputs).step_by(step) {
            let mut sums = [[s.splat(0.0); VECTORS]; 4];
            for n in 0..samples {
                let x = &x[n * inputs + left..][..step];
                let d = &d[n * outputs..][..outputs];
                for r in 0..4 {
                    let d = s.splat(d[first + r.min(rows - 1)]);
                    for v in 0..VECTORS {
                        sums[r][v] = s.fma(s.load(x, v * l), d, sums[r][v]);
                    }
                }
            }
            for r in 0..rows {
                let to = &mut sum[(first + r) * inputs + left..][..step];
                for v in 0..VECTORS {
                    accumulate(s, to, v * l, sums[r][v]);
                }
            }
        }
    }
}
