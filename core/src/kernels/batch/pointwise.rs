//! ActivationKernel and pooling, forward and back.
#![allow(clippy::needless_range_loop)] // an index says the layout; iterators would bring closures

use super::super::simd::Simd;
use super::super::tanh::tanh;

/// The squashing function.
pub(super) trait ActivationKernel: Copy {
    /// Of a unit's sum.
    fn apply<S: Simd>(s: S, a: S::V) -> S::V;
    /// `d` times the derivative, from the value.
    fn back<S: Simd>(s: S, value: S::V, d: S::V) -> S::V;
}

#[derive(Clone, Copy)]
pub(super) struct Tanh;

impl ActivationKernel for Tanh {
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

impl ActivationKernel for Relu {
    #[inline(always)]
    fn apply<S: Simd>(s: S, a: S::V) -> S::V {
        s.max(a, s.splat(0.0))
    }
    #[inline(always)]
    fn back<S: Simd>(s: S, value: S::V, d: S::V) -> S::V {
        s.select_ge(s.splat(0.0), value, s.splat(0.0), d)
    }
}

/// PoolingKernel of four values.
pub(super) trait PoolingKernel: Copy {
    fn apply<S: Simd>(s: S, x: [S::V; 4]) -> S::V;
    /// What each of the four gets of `d`.
    fn back<S: Simd>(s: S, x: [S::V; 4], d: S::V) -> [S::V; 4];
}

#[derive(Clone, Copy)]
pub(super) struct Average;

impl PoolingKernel for Average {
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

impl PoolingKernel for Max {
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

/// The activation of all vectors of `x`.
#[inline(always)]
pub(super) fn activate<S: Simd, A: ActivationKernel>(s: S, x: &mut [f32]) {
    for x in x.chunks_exact_mut(S::LANES) {
        s.store(x, 0, A::apply(s, s.load(x, 0)));
    }
}

/// From the derivatives by the values to those by the sums.
#[inline(always)]
pub(super) fn activate_back<S: Simd, A: ActivationKernel>(s: S, values: &[f32], d: &mut [f32]) {
    for (value, d) in values.chunks_exact(S::LANES).zip(d.chunks_exact_mut(S::LANES)) {
        s.store(d, 0, A::back(s, s.load(value, 0), s.load(d, 0)));
    }
}

/// Two rows of `SIZE` sums to their values, and to a row that is half as long, its vectors `stride` apart.
#[inline(always)]
pub(super) fn activate_and_pool<
    S: Simd,
    A: ActivationKernel,
    P: PoolingKernel,
    const SIZE: usize,
>(
    s: S,
    sums: &mut [f32],
    pooled: &mut [f32],
    stride: usize,
) {
    let sums = &mut sums[..2 * SIZE * S::LANES];
    for c in 0..SIZE / 2 {
        let mut four = four::<S, SIZE>(s, sums, c);
        for (i, at) in [0, 1, SIZE, SIZE + 1].into_iter().enumerate() {
            four[i] = A::apply(s, four[i]);
            s.store(sums, (at + 2 * c) * S::LANES, four[i]);
        }
        s.store(pooled, c * stride, P::apply(s, four));
    }
}

/// From the derivatives by a layer's pooled values to those by its sums, which take the place of its
/// values; adds them up for the biases, a vector each.
#[inline(always)]
pub(super) fn pool_back<S: Simd, A: ActivationKernel, P: PoolingKernel, const SIZE: usize>(
    s: S,
    values: &mut [f32],
    d_pooled: &[f32],
    stride: usize,
    bias: &mut [f32],
) {
    let (l, half) = (S::LANES, SIZE / 2);
    for (map, values) in values.chunks_exact_mut(SIZE * SIZE * l).enumerate() {
        let mut sum = s.load(bias, map * l);
        for y in 0..half {
            let values = &mut values[2 * y * SIZE * l..][..2 * SIZE * l];
            for c in 0..half {
                let d = s.load(d_pooled, ((map * half + y) * half + c) * stride);
                let four = four::<S, SIZE>(s, values, c);
                let parts = P::back(s, four, d);
                for (i, at) in [0, 1, SIZE, SIZE + 1].into_iter().enumerate() {
                    let d = A::back(s, four[i], parts[i]);
                    sum = s.add(sum, d);
                    s.store(values, (at + 2 * c) * l, d);
                }
            }
        }
        s.store(bias, map * l, sum);
    }
}

/// What unit `c` of a pooled row is made of.
#[inline(always)]
fn four<S: Simd, const SIZE: usize>(s: S, values: &[f32], c: usize) -> [S::V; 4] {
    let (top, bottom) = (2 * c * S::LANES, (SIZE + 2 * c) * S::LANES);
    [
        s.load(values, top),
        s.load(values, top + S::LANES),
        s.load(values, bottom),
        s.load(values, bottom + S::LANES),
    ]
}
