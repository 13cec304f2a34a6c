//! C3 with Winograd's algorithm F(2, 5): two neighbouring outputs of a row of five taps take six multiplications instead of
//! ten.
//!
//! Five taps `w` over six inputs `x` give two outputs `y`. Read as coefficients, these are polynomials, and a product of
//! polynomials is known from its values at enough points. Here they are 0, 1, -1, 2, -2 and infinity. In matrices, with `*`
//! for the product of corresponding numbers, and `G`, `B` and `A` that only depend on the points:
//!
//! ```text
//! y  = Aᵀ ((G w) * (Bᵀ x))
//! dx = B  ((G w) * (A dy))
//! dw = Gᵀ ((Bᵀ x) * (A dy))
//! ```
//!
//! `G w` is computed once for a batch, `Bᵀ x` once for s2, `A dy` once for C3's gradients. The sums over channels, maps and
//! kernel rows come before `Aᵀ`, `B` and `Gᵀ`. So what is left is, for each point, a convolution with kernels of five rows and
//! one column.
//!
//! Source: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, 2015. They also nest the algorithm for
//! columns in that for rows, which takes even fewer multiplications but much more memory.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::super::simd::Simd;
use super::BatchForm;
use super::pointwise::activate_and_pool;
use super::tiles::C3_SHAPE;

/// The number of points.
const POINTS: usize = 6;
/// The number of tiles, which are two neighbouring outputs, in a row.
const TILES: usize = OUT / 2;
const CHANNELS: usize = C3_SHAPE.channels;
const SIZE: usize = C3_SHAPE.size;
const OUT: usize = C3_SHAPE.out;
const MAPS: usize = 16;

/// The number of values of `G w`, in the layout `[point][map][channel][kernel row]`.
pub(super) const KERNEL_POINTS: usize = POINTS * MAPS * CHANNELS * 5;
/// The number of vectors of `Bᵀ x` for one row of one channel, in the layout `[point][tile]`.
pub(super) const ROW_POINTS: usize = POINTS * TILES;
/// The number of vectors of `Bᵀ x`, in the layout `[point][channel][row][tile]`.
pub(super) const INPUT_POINTS: usize = CHANNELS * SIZE * ROW_POINTS;
/// The number of vectors of `A dy` for one map, in the layout `[point][row][tile]`.
pub(super) const MAP_POINTS: usize = POINTS * OUT * TILES;
/// The number of vectors of `A dy`, in the layout `[point][map][row][tile]`.
pub(super) const OUTPUT_POINTS: usize = MAPS * MAP_POINTS;
/// The number of rows of all channels.
pub(super) const ALL_ROWS: usize = CHANNELS * SIZE;

/// `G`: for each point, the powers of the point, divided by the product of its distances to the other points.
const G: [[f32; 5]; POINTS] = [
    [1.0 / 4.0, 0.0, 0.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0, 1.0 / 3.0, 2.0 / 3.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0, -1.0 / 3.0, 2.0 / 3.0],
    [0.0, 0.0, 0.0, 0.0, 1.0],
];

/// Computes `G w`.
pub(super) fn transform_kernels(weight: &[f32], kernels: &mut [f32]) {
    for (i, taps) in weight.chunks_exact(5).enumerate() {
        for (point, g) in G.iter().enumerate() {
            let values = g.iter().zip(taps).map(|(g, w)| g * w);
            kernels[point * MAPS * CHANNELS * 5 + i] = values.sum();
        }
    }
}

/// Computes `Bᵀ x` for `ROWS` rows, in the layout `[point][row][tile]`, to vectors that are `stride` apart.
#[inline(always)]
pub(super) fn transform_input<S: Simd, const ROWS: usize>(
    s: S,
    x: &[f32],
    points: &mut [f32],
    stride: usize,
) {
    let (l, four, five) = (S::LANES, s.splat(4.0), s.splat(5.0));
    let point = ROWS * TILES * stride;
    for row in 0..ROWS {
        let x = &x[row * SIZE * l..][..SIZE * l];
        for t in 0..TILES {
            let mut w = [s.splat(0.0); 6];
            for i in 0..6 {
                w[i] = s.load(x, (2 * t + i) * l);
            }
            let at = (row * TILES + t) * stride;
            let (even, odd) = (s.fnma(four, w[2], w[4]), s.fnma(four, w[1], w[3]));
            s.store(points, at, s.fma(four, w[0], s.sub(even, w[2])));
            s.store(points, at + point, s.add(even, odd));
            s.store(points, at + 2 * point, s.sub(even, odd));
            let (even, odd) = (s.sub(w[4], w[2]), s.sub(w[3], w[1]));
            let odd = s.add(odd, odd);
            s.store(points, at + 3 * point, s.add(even, odd));
            s.store(points, at + 4 * point, s.sub(even, odd));
            s.store(points, at + 5 * point, s.fma(four, w[1], s.fnma(five, w[3], w[5])));
        }
    }
}

/// Computes the products `(G w) * (Bᵀ x)`, summed over channels and kernel rows, in tiles of `OUTPUTS` maps by a row.
#[inline(always)]
pub(super) fn forward<S: Simd, const OUTPUTS: usize>(
    s: S,
    kernels: &[f32],
    bias: &[f32],
    x: &[f32],
    products: &mut [f32],
) {
    let l = S::LANES;
    for p in 0..POINTS {
        for first in (0..MAPS).step_by(OUTPUTS) {
            let bias = &bias[first..][..OUTPUTS];
            let kernels = &kernels[(p * MAPS + first) * CHANNELS * 5..][..OUTPUTS * CHANNELS * 5];
            for row in 0..OUT {
                let mut sums = [[s.splat(0.0); TILES]; OUTPUTS];
                // The value at 0 only counts for the first output of a tile, that at infinity for the second.
                if p == 0 || p == POINTS - 1 {
                    for m in 0..OUTPUTS {
                        sums[m] = [s.splat(bias[m]); TILES];
                    }
                }
                for channel in 0..CHANNELS {
                    let x = &x[((p * CHANNELS + channel) * SIZE + row) * TILES * l..];
                    let x = &x[..5 * TILES * l];
                    for ky in 0..5 {
                        for m in 0..OUTPUTS {
                            let w = s.splat(kernels[(m * CHANNELS + channel) * 5 + ky]);
                            for t in 0..TILES {
                                let x = s.load(x, (ky * TILES + t) * l);
                                sums[m][t] = s.fma(x, w, sums[m][t]);
                            }
                        }
                    }
                }
                let products = &mut products[((p * MAPS + first) * OUT + row) * TILES * l..];
                let products = &mut products[..((OUTPUTS - 1) * OUT + 1) * TILES * l];
                for m in 0..OUTPUTS {
                    for t in 0..TILES {
                        s.store(products, (m * OUT * TILES + t) * l, sums[m][t]);
                    }
                }
            }
        }
    }
}

/// Computes the same for maps in the lanes, and rows of `x` that are next to each other: `kernels` has the layout
/// `[point][channel][kernel row][map]`, `x` the layout `[point][tile][channel and row]` with `rows` rows, and `products` the
/// layout `[point][row][tile]`.
#[inline(always)]
pub(super) fn forward_maps<S: Simd>(
    s: S,
    kernels: &[f32],
    bias: S::V,
    x: &[f32],
    rows: usize,
    products: &mut [f32],
) {
    let l = S::LANES;
    for p in 0..POINTS {
        let bias = if p == 0 || p == POINTS - 1 { bias } else { s.splat(0.0) };
        for row in (0..OUT).step_by(2) {
            let mut sums = [[bias; TILES]; 2];
            for channel in 0..CHANNELS {
                for ky in 0..5 {
                    let w = s.load(kernels, ((p * CHANNELS + channel) * 5 + ky) * MAPS);
                    let x = &x[p * TILES * rows + channel * SIZE + row + ky..];
                    let x = &x[..(TILES - 1) * rows + 2];
                    for t in 0..TILES {
                        sums[0][t] = s.fma(s.splat(x[t * rows]), w, sums[0][t]);
                        sums[1][t] = s.fma(s.splat(x[t * rows + 1]), w, sums[1][t]);
                    }
                }
            }
            let products = &mut products[(p * OUT + row) * TILES * l..][..2 * TILES * l];
            for t in 0..TILES {
                s.store(products, t * l, sums[0][t]);
                s.store(products, (TILES + t) * l, sums[1][t]);
            }
        }
    }
}

/// Computes `Aᵀ`, the activation and the pooling. The activations are written to `values`, the pooled values to vectors that
/// are `stride` apart.
#[inline(always)]
pub(super) fn transform_output<S: Simd>(
    s: S,
    form: BatchForm,
    products: &[f32],
    values: &mut [f32],
    pooled: &mut [f32],
    stride: usize,
) {
    for pair in 0..MAPS * OUT / 2 {
        let values = &mut values[2 * pair * OUT * S::LANES..][..2 * OUT * S::LANES];
        transform_two_rows::<S, MAPS>(s, products, pair, values);
        let pooled = &mut pooled[pair * OUT / 2 * stride..];
        activate_and_pool::<S, OUT>(s, form, values, pooled, stride);
    }
}

/// Computes `Aᵀ` for two rows of the output, when there are `MAPS` maps.
#[inline(always)]
pub(super) fn transform_two_rows<S: Simd, const MAPS: usize>(
    s: S,
    products: &[f32],
    pair: usize,
    values: &mut [f32],
) {
    for tile in 0..2 * TILES {
        let v = load_points(s, products, MAPS * OUT * TILES, 2 * pair * TILES + tile);
        let (sum1, sum2) = (s.add(v[1], v[2]), s.add(v[3], v[4]));
        let (d1, d2) = (s.sub(v[1], v[2]), s.sub(v[3], v[4]));
        s.store(values, 2 * tile * S::LANES, s.add(s.add(v[0], sum1), sum2));
        let second = s.fma(s.splat(2.0), d2, s.add(v[5], d1));
        s.store(values, (2 * tile + 1) * S::LANES, second);
    }
}

/// Loads vector `at` of each point. A point has `count` vectors.
#[inline(always)]
fn load_points<S: Simd>(s: S, from: &[f32], count: usize, at: usize) -> [S::V; POINTS] {
    let from = &from[..POINTS * count * S::LANES];
    let mut values = [s.splat(0.0); POINTS];
    for p in 0..POINTS {
        values[p] = s.load(from, (p * count + at) * S::LANES);
    }
    values
}

/// Computes `A dy`.
#[inline(always)]
pub(super) fn transform_output_gradient<S: Simd>(s: S, d: &[f32], points: &mut [f32]) {
    let l = S::LANES;
    let stride = MAPS * OUT * TILES * l;
    for tile in 0..MAPS * OUT * TILES {
        let (first, second) = (s.load(d, 2 * tile * l), s.load(d, (2 * tile + 1) * l));
        let at = tile * l;
        s.store(points, at, first);
        s.store(points, at + stride, s.add(first, second));
        s.store(points, at + 2 * stride, s.sub(first, second));
        s.store(points, at + 3 * stride, s.fma(s.splat(2.0), second, first));
        s.store(points, at + 4 * stride, s.fnma(s.splat(2.0), second, first));
        s.store(points, at + 5 * stride, second);
    }
}

/// Adds `(Bᵀ x) * (A dy)` to `sums`, in tiles of `OUTPUTS` maps by the five kernel rows: one vector for each number of
/// [`KERNEL_POINTS`], whose lanes are still to be added up.
#[inline(always)]
pub(super) fn weight_gradient<S: Simd, const OUTPUTS: usize>(
    s: S,
    points: &[f32],
    d: &[f32],
    sums: &mut [f32],
) {
    let l = S::LANES;
    for p in 0..POINTS {
        for first in (0..MAPS).step_by(OUTPUTS) {
            let d = &d[(p * MAPS + first) * OUT * TILES * l..][..OUTPUTS * OUT * TILES * l];
            for channel in 0..CHANNELS {
                let x = &points[(p * CHANNELS + channel) * SIZE * TILES * l..];
                let x = &x[..SIZE * TILES * l];
                let mut taps = [[s.splat(0.0); 5]; OUTPUTS];
                for tile in 0..OUT * TILES {
                    let x = &x[tile * l..][..(4 * TILES + 1) * l];
                    let d = &d[tile * l..][..((OUTPUTS - 1) * OUT * TILES + 1) * l];
                    let mut window = [s.splat(0.0); 5];
                    for ky in 0..5 {
                        window[ky] = s.load(x, ky * TILES * l);
                    }
                    for m in 0..OUTPUTS {
                        let d = s.load(d, m * OUT * TILES * l);
                        for ky in 0..5 {
                            taps[m][ky] = s.fma(window[ky], d, taps[m][ky]);
                        }
                    }
                }
                for m in 0..OUTPUTS {
                    for ky in 0..5 {
                        let at = (((p * MAPS + first + m) * CHANNELS + channel) * 5 + ky) * l;
                        s.store(sums, at, s.add(s.load(sums, at), taps[m][ky]));
                    }
                }
            }
        }
    }
}

/// Computes `Gᵀ`: adds the gradient with respect to the weights to `gradient`, from that with respect to `G w`.
pub(super) fn transform_kernel_gradient(points: &[f32], gradient: &mut [f32]) {
    for (i, taps) in gradient.chunks_exact_mut(5).enumerate() {
        for (point, g) in G.iter().enumerate() {
            let value = points[point * MAPS * CHANNELS * 5 + i];
            for (tap, g) in taps.iter_mut().zip(g) {
                *tap += g * value;
            }
        }
    }
}

/// Computes `(G w) * (A dy)`, summed over maps and kernel rows, in tiles of `INPUTS` channels by a row.
#[inline(always)]
pub(super) fn input_gradient<S: Simd, const INPUTS: usize>(
    s: S,
    kernels: &[f32],
    d: &[f32],
    products: &mut [f32],
) {
    let l = S::LANES;
    for p in 0..POINTS {
        for first in (0..CHANNELS).step_by(INPUTS) {
            for row in 0..SIZE {
                let mut sums = [[s.splat(0.0); TILES]; INPUTS];
                for ky in row.max(OUT - 1) - (OUT - 1)..(row + 1).min(5) {
                    for m in 0..MAPS {
                        let d = &d[((p * MAPS + m) * OUT + row - ky) * TILES * l..][..TILES * l];
                        let kernels = &kernels[((p * MAPS + m) * CHANNELS + first) * 5 + ky..];
                        let kernels = &kernels[..(INPUTS - 1) * 5 + 1];
                        for k in 0..INPUTS {
                            let w = s.splat(kernels[5 * k]);
                            for t in 0..TILES {
                                sums[k][t] = s.fma(s.load(d, t * l), w, sums[k][t]);
                            }
                        }
                    }
                }
                let products = &mut products[((p * CHANNELS + first) * SIZE + row) * TILES * l..];
                let products = &mut products[..((INPUTS - 1) * SIZE + 1) * TILES * l];
                for k in 0..INPUTS {
                    for t in 0..TILES {
                        s.store(products, (k * SIZE * TILES + t) * l, sums[k][t]);
                    }
                }
            }
        }
    }
}

/// Computes `B`: the gradient with respect to s2.
#[inline(always)]
pub(super) fn transform_input_gradient<S: Simd>(s: S, products: &[f32], d_input: &mut [f32]) {
    let (l, four, five) = (S::LANES, s.splat(4.0), s.splat(5.0));
    for row in 0..CHANNELS * SIZE {
        // The inputs of neighbouring tiles overlap by four columns.
        let mut columns = [s.splat(0.0); SIZE];
        for t in 0..TILES {
            let v = load_points(s, products, CHANNELS * SIZE * TILES, row * TILES + t);
            let (sum1, sum2) = (s.add(v[1], v[2]), s.add(v[3], v[4]));
            let (d1, d2) = (s.sub(v[1], v[2]), s.sub(v[3], v[4]));
            let (d2, c) = (s.add(d2, d2), 2 * t);
            columns[c] = s.fma(four, v[0], columns[c]);
            columns[c + 1] = s.fma(four, s.sub(v[5], d1), s.sub(columns[c + 1], d2));
            let x2 = s.fnma(four, sum1, s.sub(columns[c + 2], sum2));
            columns[c + 2] = s.fnma(five, v[0], x2);
            let x3 = s.add(s.add(columns[c + 3], d1), d2);
            columns[c + 3] = s.fnma(five, v[5], x3);
            columns[c + 4] = s.add(s.add(columns[c + 4], v[0]), s.add(sum1, sum2));
            columns[c + 5] = s.add(columns[c + 5], v[5]);
        }
        let to = &mut d_input[row * SIZE * l..][..SIZE * l];
        for c in 0..SIZE {
            s.store(to, c * l, columns[c]);
        }
    }
}
