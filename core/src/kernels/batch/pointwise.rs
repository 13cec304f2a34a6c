//! Activation and pooling, forward and backward.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::super::simd::Simd;
use super::super::tanh::tanh;
use super::BatchForm;
use crate::model::{Activation, Pooling};

/// An activation function.
trait ActivationKernel: Copy {
    /// Computes a unit's value from its sum.
    fn apply<S: Simd>(s: S, a: S::V) -> S::V;
    /// Computes the gradient with respect to the sum, from the value and `d`, the gradient with respect to the value.
    fn backward<S: Simd>(s: S, value: S::V, d: S::V) -> S::V;
}

#[derive(Clone, Copy)]
struct Tanh;

impl ActivationKernel for Tanh {
    #[inline(always)]
    fn apply<S: Simd>(s: S, a: S::V) -> S::V {
        tanh(s, a)
    }
    #[inline(always)]
    fn backward<S: Simd>(s: S, value: S::V, d: S::V) -> S::V {
        s.mul(d, s.fnma(value, value, s.splat(1.0)))
    }
}

#[derive(Clone, Copy)]
struct Relu;

impl ActivationKernel for Relu {
    #[inline(always)]
    fn apply<S: Simd>(s: S, a: S::V) -> S::V {
        s.max(a, s.splat(0.0))
    }
    #[inline(always)]
    fn backward<S: Simd>(s: S, value: S::V, d: S::V) -> S::V {
        s.select_ge(s.splat(0.0), value, s.splat(0.0), d)
    }
}

/// The pooling of four values.
trait PoolingKernel: Copy {
    fn apply<S: Simd>(s: S, x: [S::V; 4]) -> S::V;
    /// Computes the gradient with respect to each of the four values, from `d`, the gradient with respect to the pooled one.
    fn backward<S: Simd>(s: S, x: [S::V; 4], d: S::V) -> [S::V; 4];
}

#[derive(Clone, Copy)]
struct Average;

impl PoolingKernel for Average {
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: [S::V; 4]) -> S::V {
        s.mul(s.add(s.add(x[0], x[1]), s.add(x[2], x[3])), s.splat(0.25))
    }
    #[inline(always)]
    fn backward<S: Simd>(s: S, _: [S::V; 4], d: S::V) -> [S::V; 4] {
        [s.mul(d, s.splat(0.25)); 4]
    }
}

#[derive(Clone, Copy)]
struct Max;

impl PoolingKernel for Max {
    #[inline(always)]
    fn apply<S: Simd>(s: S, x: [S::V; 4]) -> S::V {
        s.max(s.max(x[0], x[1]), s.max(x[2], x[3]))
    }
    /// The largest value gets the whole gradient; of equal ones, the first.
    #[inline(always)]
    fn backward<S: Simd>(s: S, x: [S::V; 4], d: S::V) -> [S::V; 4] {
        let largest = Self::apply(s, x);
        let (mut rest, zero) = (d, s.splat(0.0));
        let mut parts = [zero; 4];
        for i in 0..4 {
            parts[i] = s.select_ge(x[i], largest, rest, zero);
            rest = s.select_ge(x[i], largest, zero, rest);
        }
        parts
    }
}

/// Calls a function that is generic over the activation and the pooling, with those of `$form`. The branch is taken once for
/// a row or a layer; so convolutions are compiled once for all forms.
macro_rules! with_form {
    ($form:expr, $function:ident::<$s:ident, .. $(, $constant:tt)*>($($argument:expr),* $(,)?)) => {
        match ($form.activation, $form.pooling) {
            (Activation::Relu, Pooling::Avg) => $function::<$s, Relu, Average, $($constant),*>($($argument),*),
            (Activation::Relu, Pooling::Max) => $function::<$s, Relu, Max, $($constant),*>($($argument),*),
            (_, Pooling::Avg) => $function::<$s, Tanh, Average, $($constant),*>($($argument),*),
            (_, Pooling::Max) => $function::<$s, Tanh, Max, $($constant),*>($($argument),*),
        }
    };
}

/// Applies the activation to all vectors of `x`.
#[inline(always)]
pub(super) fn activate<S: Simd>(s: S, activation: Activation, x: &mut [f32]) {
    match activation {
        Activation::Relu => activate_with::<S, Relu>(s, x),
        _ => activate_with::<S, Tanh>(s, x),
    }
}

#[inline(always)]
fn activate_with<S: Simd, A: ActivationKernel>(s: S, x: &mut [f32]) {
    for x in x.chunks_exact_mut(S::LANES) {
        s.store(x, 0, A::apply(s, s.load(x, 0)));
    }
}

/// Turns gradients with respect to the values into gradients with respect to the sums.
#[inline(always)]
pub(super) fn activation_backward<S: Simd>(
    s: S,
    activation: Activation,
    values: &[f32],
    d: &mut [f32],
) {
    match activation {
        Activation::Relu => activation_backward_with::<S, Relu>(s, values, d),
        _ => activation_backward_with::<S, Tanh>(s, values, d),
    }
}

#[inline(always)]
fn activation_backward_with<S: Simd, A: ActivationKernel>(s: S, values: &[f32], d: &mut [f32]) {
    for (value, d) in values.chunks_exact(S::LANES).zip(d.chunks_exact_mut(S::LANES)) {
        s.store(d, 0, A::backward(s, s.load(value, 0), s.load(d, 0)));
    }
}

/// Turns two rows of `SIZE` sums into their values, and writes the pooled values to a row of half the length, whose vectors
/// are `stride` apart.
#[inline(always)]
pub(super) fn activate_and_pool<S: Simd, const SIZE: usize>(
    s: S,
    form: BatchForm,
    sums: &mut [f32],
    pooled: &mut [f32],
    stride: usize,
) {
    with_form!(form, activate_and_pool_with::<S, .., SIZE>(s, sums, pooled, stride));
}

#[inline(always)]
fn activate_and_pool_with<S: Simd, A: ActivationKernel, P: PoolingKernel, const SIZE: usize>(
    s: S,
    sums: &mut [f32],
    pooled: &mut [f32],
    stride: usize,
) {
    let sums = &mut sums[..2 * SIZE * S::LANES];
    for c in 0..SIZE / 2 {
        let mut four = block::<S, SIZE>(s, sums, c);
        for (i, at) in [0, 1, SIZE, SIZE + 1].into_iter().enumerate() {
            four[i] = A::apply(s, four[i]);
            s.store(sums, (at + 2 * c) * S::LANES, four[i]);
        }
        s.store(pooled, c * stride, P::apply(s, four));
    }
}

/// Pools two rows of `SIZE` vectors.
#[inline(always)]
pub(super) fn pool<S: Simd, const SIZE: usize>(
    s: S,
    pooling: Pooling,
    values: &[f32],
    pooled: &mut [f32],
) {
    let values = &values[..2 * SIZE * S::LANES];
    for c in 0..SIZE / 2 {
        let four = block::<S, SIZE>(s, values, c);
        s.store(pooled, c * S::LANES, pool_four(s, pooling, four));
    }
}

/// Pools two rows whose columns are in the lanes, of up to 32 columns.
#[inline(always)]
pub(super) fn pool_columns<S: Simd>(
    s: S,
    pooling: Pooling,
    values: &[f32; 2 * 32],
    pooled: &mut [f32],
) {
    let l = S::LANES;
    for first in (0..16).step_by(l) {
        let (top, bottom) = (&values[2 * first..][..2 * l], &values[32 + 2 * first..][..2 * l]);
        let (x0, x1) = s.unzip(s.load(top, 0), s.load(top, l));
        let (x2, x3) = s.unzip(s.load(bottom, 0), s.load(bottom, l));
        s.store(pooled, first, pool_four(s, pooling, [x0, x1, x2, x3]));
    }
}

#[inline(always)]
fn pool_four<S: Simd>(s: S, pooling: Pooling, x: [S::V; 4]) -> S::V {
    match pooling {
        Pooling::Avg => Average::apply(s, x),
        Pooling::Max => Max::apply(s, x),
    }
}

/// Computes the gradients with respect to a layer's sums, from those with respect to its pooled values. They replace the
/// layer's values. Their sum over each map, the gradient with respect to its bias, is added to `bias`, a vector for each map
/// whose lanes are still to be added up.
#[inline(always)]
pub(super) fn pooling_backward<S: Simd, const SIZE: usize>(
    s: S,
    form: BatchForm,
    values: &mut [f32],
    d_pooled: &[f32],
    stride: usize,
    bias: &mut [f32],
) {
    with_form!(form, pooling_backward_with::<S, .., SIZE>(s, values, d_pooled, stride, bias));
}

#[inline(always)]
fn pooling_backward_with<S: Simd, A: ActivationKernel, P: PoolingKernel, const SIZE: usize>(
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
                let four = block::<S, SIZE>(s, values, c);
                let parts = P::backward(s, four, d);
                for (i, at) in [0, 1, SIZE, SIZE + 1].into_iter().enumerate() {
                    let d = A::backward(s, four[i], parts[i]);
                    sum = s.add(sum, d);
                    s.store(values, (at + 2 * c) * l, d);
                }
            }
        }
        s.store(bias, map * l, sum);
    }
}

/// The four values that are pooled to column `c`.
#[inline(always)]
fn block<S: Simd, const SIZE: usize>(s: S, values: &[f32], c: usize) -> [S::V; 4] {
    let (top, bottom) = (2 * c * S::LANES, (SIZE + 2 * c) * S::LANES);
    [
        s.load(values, top),
        s.load(values, top + S::LANES),
        s.load(values, bottom),
        s.load(values, bottom + S::LANES),
    ]
}
