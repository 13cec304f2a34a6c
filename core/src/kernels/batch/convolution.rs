//! C1: its 5x5 convolution with one sample per lane, in the layout `[channel][row][column][lane]`.
//!
//! Each weight is the same for all lanes, so every inner loop consists of multiply-adds of whole vectors, without edges
//! and shuffles. The sums of a tile stay in registers; `tiles` has the sizes.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::super::simd::Simd;
use super::BatchForm;
use super::pointwise::activate_and_pool;
use super::tiles::TAPS;

/// Computes the convolution of `CHANNELS` maps of `SIZE` x `SIZE`, activation and pooling, in tiles of `MAPS` maps by
/// `COLUMNS` columns. The activations are written to `values`, the pooled values to vectors that are `stride` apart.
#[inline(always)]
pub(super) fn convolve_and_pool<
    S: Simd,
    const CHANNELS: usize,
    const SIZE: usize,
    const OUT: usize,
    const MAPS: usize,
    const COLUMNS: usize,
>(
    s: S,
    form: BatchForm,
    weight: &[f32],
    bias: &[f32],
    x: &[f32],
    values: &mut [f32],
    (pooled, stride): (&mut [f32], usize),
) {
    let (l, half) = (S::LANES, OUT / 2);
    for first in (0..bias.len()).step_by(MAPS) {
        let bias = &bias[first..][..MAPS];
        let weight = &weight[first * CHANNELS * TAPS..][..MAPS * CHANNELS * TAPS];
        for y in 0..half {
            for row in 2 * y..2 * y + 2 {
                for left in (0..OUT).step_by(COLUMNS) {
                    let mut sums = [[s.splat(0.0); COLUMNS]; MAPS];
                    for m in 0..MAPS {
                        sums[m] = [s.splat(bias[m]); COLUMNS];
                    }
                    for channel in 0..CHANNELS {
                        for ky in 0..5 {
                            let x = &x[((channel * SIZE + row + ky) * SIZE + left) * l..];
                            let x = &x[..(COLUMNS + 4) * l];
                            let w = &weight[channel * TAPS + ky * 5..];
                            let w = &w[..(MAPS - 1) * CHANNELS * TAPS + 5];
                            for kx in 0..5 {
                                for m in 0..MAPS {
                                    let w = s.splat(w[m * CHANNELS * TAPS + kx]);
                                    for c in 0..COLUMNS {
                                        sums[m][c] = s.fma(s.load(x, (c + kx) * l), w, sums[m][c]);
                                    }
                                }
                            }
                        }
                    }
                    for m in 0..MAPS {
                        let at = (((first + m) * OUT + row) * OUT + left) * l;
                        let values = &mut values[at..][..COLUMNS * l];
                        for c in 0..COLUMNS {
                            s.store(values, c * l, sums[m][c]);
                        }
                    }
                }
            }
            for m in first..first + MAPS {
                let values = &mut values[(m * OUT + 2 * y) * OUT * l..];
                let pooled = &mut pooled[(m * half + y) * half * stride..];
                activate_and_pool::<S, OUT>(s, form, values, pooled, stride);
            }
        }
    }
}

/// Adds the gradient with respect to the weights to `sums`, one vector for each weight, whose lanes are still to be added
/// up. A tile is `MAPS` maps by the five taps of a kernel row. `BAND` rows of the output are used at a time, so that
/// their gradients `d` stay in the L1 cache.
#[inline(always)]
pub(super) fn weight_gradient<
    S: Simd,
    const CHANNELS: usize,
    const SIZE: usize,
    const OUT: usize,
    const MAPS: usize,
    const BAND: usize,
>(
    s: S,
    maps: usize,
    x: &[f32],
    d: &[f32],
    sums: &mut [f32],
) {
    let l = S::LANES;
    for first in (0..maps).step_by(MAPS) {
        let d = &d[first * OUT * OUT * l..][..MAPS * OUT * OUT * l];
        let sums = &mut sums[first * CHANNELS * TAPS * l..][..MAPS * CHANNELS * TAPS * l];
        for band in (0..OUT).step_by(BAND) {
            for channel in 0..CHANNELS {
                for ky in 0..5 {
                    let mut taps = [[s.splat(0.0); 5]; MAPS];
                    for row in band..band + BAND {
                        let x = &x[(channel * SIZE + row + ky) * SIZE * l..][..SIZE * l];
                        let d = &d[row * OUT * l..][..((MAPS - 1) * OUT * OUT + OUT) * l];
                        for c in 0..OUT {
                            let x = &x[c * l..][..5 * l];
                            let mut window = [s.splat(0.0); 5];
                            for kx in 0..5 {
                                window[kx] = s.load(x, kx * l);
                            }
                            for m in 0..MAPS {
                                let d = s.load(d, (m * OUT * OUT + c) * l);
                                for kx in 0..5 {
                                    taps[m][kx] = s.fma(window[kx], d, taps[m][kx]);
                                }
                            }
                        }
                    }
                    for m in 0..MAPS {
                        for kx in 0..5 {
                            let at = ((m * CHANNELS + channel) * TAPS + ky * 5 + kx) * l;
                            s.store(sums, at, s.add(s.load(sums, at), taps[m][kx]));
                        }
                    }
                }
            }
        }
    }
}
