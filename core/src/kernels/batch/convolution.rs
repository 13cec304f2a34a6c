//! 5x5 convolutions of one sample per lane, `[channel][row][column][lane]`.
//!
//! A weight is one number for all lanes, so every inner loop is a plain multiply-add of vectors: no edges and
//! no shuffles. Tiles are as large as the registers hold: `MAPS` by `COLUMNS` sums.
#![allow(clippy::needless_range_loop)] // an index says the layout; iterators would bring closures

use super::super::simd::Simd;
use super::pointwise::{ActivationKernel, PoolingKernel, activate_and_pool};

/// The convolution of `CHANNELS` of `SIZE` x `SIZE`, its activation, and its pooling.
#[inline(always)]
pub(super) fn forward<
    S: Simd,
    A: ActivationKernel,
    P: PoolingKernel,
    const CHANNELS: usize,
    const SIZE: usize,
    const OUT: usize,
    const MAPS: usize,
    const COLUMNS: usize,
>(
    s: S,
    weight: &[f32],
    bias: &[f32],
    x: &[f32],
    values: &mut [f32],
    (pooled, stride): (&mut [f32], usize),
) {
    let (l, half) = (S::LANES, OUT / 2);
    for first in (0..bias.len()).step_by(MAPS) {
        let bias = &bias[first..][..MAPS];
        let weight = &weight[first * CHANNELS * 25..][..MAPS * CHANNELS * 25];
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
                            let w = &weight[channel * 25 + ky * 5..];
                            let w = &w[..(MAPS - 1) * CHANNELS * 25 + 5];
                            for kx in 0..5 {
                                for m in 0..MAPS {
                                    let w = s.splat(w[m * CHANNELS * 25 + kx]);
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
                activate_and_pool::<S, A, P, OUT>(s, values, pooled, stride);
            }
        }
    }
}

/// The derivatives by the weights, added to `sums`, a vector for each: `MAPS` maps by the five taps of a
/// row, over `BAND` rows, so that the derivatives stay in the L1 cache.
#[inline(always)]
pub(super) fn weights<
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
        let sums = &mut sums[first * CHANNELS * 25 * l..][..MAPS * CHANNELS * 25 * l];
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
                            let at = ((m * CHANNELS + channel) * 25 + ky * 5 + kx) * l;
                            s.store(sums, at, s.add(s.load(sums, at), taps[m][kx]));
                        }
                    }
                }
            }
        }
    }
}

/// C3's derivatives by its inputs, gathered: `CHANNELS` of the six by some of the 14 columns.
#[inline(always)]
pub(super) fn inputs<S: Simd, const CHANNELS: usize>(
    s: S,
    weight: &[f32],
    d: &[f32],
    to: &mut [f32],
) {
    for channel in (0..6).step_by(CHANNELS) {
        for row in 0..14 {
            let weight = &weight[channel * 25..];
            let to = &mut to[(channel * 196 + row * 14) * S::LANES..];
            if S::LANES == 16 {
                inputs_tile::<S, CHANNELS, 0, 7>(s, weight, d, row, to);
                inputs_tile::<S, CHANNELS, 7, 7>(s, weight, d, row, to);
            } else {
                inputs_tile::<S, CHANNELS, 0, 5>(s, weight, d, row, to);
                inputs_tile::<S, CHANNELS, 5, 4>(s, weight, d, row, to);
                inputs_tile::<S, CHANNELS, 9, 5>(s, weight, d, row, to);
            }
        }
    }
}

/// `COLUMNS` columns from `LEFT`: constants, so that taps beyond the edges are dropped when this is compiled.
#[inline(always)]
fn inputs_tile<S: Simd, const CHANNELS: usize, const LEFT: usize, const COLUMNS: usize>(
    s: S,
    weight: &[f32],
    d: &[f32],
    row: usize,
    to: &mut [f32],
) {
    let l = S::LANES;
    let mut sums = [[s.splat(0.0); COLUMNS]; CHANNELS];
    for ky in row.max(9) - 9..(row + 1).min(5) {
        for m in 0..16 {
            let d = &d[(m * 10 + row - ky) * 10 * l..][..10 * l];
            let w = &weight[m * 150 + ky * 5..][..(CHANNELS - 1) * 25 + 5];
            for kx in 0..5 {
                for k in 0..CHANNELS {
                    let w = s.splat(w[k * 25 + kx]);
                    for c in 0..COLUMNS {
                        if LEFT + c >= kx && LEFT + c < kx + 10 {
                            sums[k][c] = s.fma(s.load(d, (LEFT + c - kx) * l), w, sums[k][c]);
                        }
                    }
                }
            }
        }
    }
    for k in 0..CHANNELS {
        let to = &mut to[(k * 196 + LEFT) * l..][..COLUMNS * l];
        for c in 0..COLUMNS {
            s.store(to, c * l, sums[k][c]);
        }
    }
}
