//! Linear layers, `[unit][sample]` with `V` vectors of samples; their weights as PyTorch has them.
#![allow(clippy::needless_range_loop)] // an index says the layout; iterators would bring closures

use super::super::simd::Simd;

/// `to = weight x + bias`, `ROWS` outputs at a time; their number is a multiple of it.
#[inline(always)]
pub(super) fn forward<S: Simd, const INPUTS: usize, const ROWS: usize, const V: usize>(
    s: S,
    weight: &[f32],
    bias: &[f32],
    x: &[f32],
    to: &mut [f32],
) {
    let l = S::LANES;
    for (first, bias) in bias.chunks_exact(ROWS).enumerate() {
        let w = &weight[first * ROWS * INPUTS..][..ROWS * INPUTS];
        let mut sums = [[s.splat(0.0); V]; ROWS];
        for r in 0..ROWS {
            sums[r] = [s.splat(bias[r]); V];
        }
        for i in 0..INPUTS {
            let x = &x[i * V * l..][..V * l];
            for r in 0..ROWS {
                let w = s.splat(w[r * INPUTS + i]);
                for v in 0..V {
                    sums[r][v] = s.fma(s.load(x, v * l), w, sums[r][v]);
                }
            }
        }
        let to = &mut to[first * ROWS * V * l..][..ROWS * V * l];
        for r in 0..ROWS {
            for v in 0..V {
                s.store(to, (r * V + v) * l, sums[r][v]);
            }
        }
    }
}

/// `to = weightᵀ d`, `COLUMNS` inputs at a time.
#[inline(always)]
pub(super) fn back<S: Simd, const INPUTS: usize, const COLUMNS: usize, const V: usize>(
    s: S,
    weight: &[f32],
    d: &[f32],
    to: &mut [f32],
) {
    let l = S::LANES;
    for first in (0..INPUTS).step_by(COLUMNS) {
        let mut sums = [[s.splat(0.0); V]; COLUMNS];
        for (w, d) in weight.chunks_exact(INPUTS).zip(d.chunks_exact(V * l)) {
            let w = &w[first..][..COLUMNS];
            for c in 0..COLUMNS {
                let w = s.splat(w[c]);
                for v in 0..V {
                    sums[c][v] = s.fma(s.load(d, v * l), w, sums[c][v]);
                }
            }
        }
        let to = &mut to[first * V * l..][..COLUMNS * V * l];
        for c in 0..COLUMNS {
            for v in 0..V {
                s.store(to, (c * V + v) * l, sums[c][v]);
            }
        }
    }
}

/// From `[unit][sample]` to a row for each sample, of `row` numbers.
pub(super) fn sample_major(x: &[f32], samples: usize, rows: &mut [f32], row: usize) {
    for (block, x) in x.chunks(16 * samples).enumerate() {
        for (sample, to) in rows.chunks_exact_mut(row).take(samples).enumerate() {
            for (to, x) in to[16 * block..].iter_mut().zip(x.chunks_exact(samples)) {
                *to = x[sample];
            }
        }
    }
}

/// Rows of samples: so many, each of `inputs` and of `derivatives`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub samples: usize,
    pub inputs: &'a [f32],
    pub derivatives: &'a [f32],
}

/// Adds the derivatives by the weights of outputs `first..` to `to`, rows of `INPUTS`: `OUTPUTS` of them by
/// `VECTORS` vectors of inputs at a time, over all samples. `ROW` and `outputs` are the lengths of the rows.
#[inline(always)]
pub(super) fn weights<
    S: Simd,
    const INPUTS: usize,
    const ROW: usize,
    const OUTPUTS: usize,
    const VECTORS: usize,
>(
    s: S,
    all: &[Rows],
    outputs: usize,
    first: usize,
    to: &mut [f32],
) {
    let l = S::LANES;
    let step = VECTORS * l;
    for left in (0..INPUTS).step_by(step) {
        for (block, to) in to.chunks_mut(OUTPUTS * INPUTS).enumerate() {
            let first = first + OUTPUTS * block;
            let mut sums = [[s.splat(0.0); VECTORS]; OUTPUTS];
            for rows in all {
                let samples =
                    rows.inputs.chunks_exact(ROW).zip(rows.derivatives.chunks_exact(outputs));
                for (x, d) in samples.take(rows.samples) {
                    let (x, d) = (&x[left..][..step], &d[first..][..OUTPUTS]);
                    // An input for all outputs: the other way round eight lanes run out of registers.
                    let mut factors = [s.splat(0.0); OUTPUTS];
                    for r in 0..OUTPUTS {
                        factors[r] = s.splat(d[r]);
                    }
                    for v in 0..VECTORS {
                        let x = s.load(x, v * l);
                        for r in 0..OUTPUTS {
                            sums[r][v] = s.fma(x, factors[r], sums[r][v]);
                        }
                    }
                }
            }
            // By constant indices: sums that are not in registers would be slow.
            for r in 0..OUTPUTS {
                let Some(to) = to.get_mut(r * INPUTS..(r + 1) * INPUTS) else { break };
                // The last vectors reach beyond the inputs.
                let mut row = [0.0; 80];
                for v in 0..VECTORS {
                    s.store(&mut row, v * l, sums[r][v]);
                }
                for (to, sum) in to[left..].iter_mut().zip(&row[..step]) {
                    *to += sum;
                }
            }
        }
    }
}
