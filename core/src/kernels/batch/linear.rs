//! Linear layers for `V` vectors of samples, in the layout `[unit][sample]`. The weights have PyTorch's layout.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::super::simd::{Simd, WIDEST, transpose};
use super::tiles::WEIGHT_TILE_ROW;

/// Computes `output = weight input + bias`, `OUTPUTS` outputs at a time. Their number is a multiple of `OUTPUTS`.
#[inline(always)]
pub(super) fn forward<S: Simd, const INPUTS: usize, const OUTPUTS: usize, const V: usize>(
    s: S,
    weight: &[f32],
    bias: &[f32],
    input: &[f32],
    output: &mut [f32],
) {
    let l = S::LANES;
    for (tile, bias) in bias.chunks_exact(OUTPUTS).enumerate() {
        let w = &weight[tile * OUTPUTS * INPUTS..][..OUTPUTS * INPUTS];
        let mut sums = [[s.splat(0.0); V]; OUTPUTS];
        for o in 0..OUTPUTS {
            sums[o] = [s.splat(bias[o]); V];
        }
        for i in 0..INPUTS {
            let x = &input[i * V * l..][..V * l];
            for o in 0..OUTPUTS {
                let w = s.splat(w[o * INPUTS + i]);
                for v in 0..V {
                    sums[o][v] = s.fma(s.load(x, v * l), w, sums[o][v]);
                }
            }
        }
        let output = &mut output[tile * OUTPUTS * V * l..][..OUTPUTS * V * l];
        for o in 0..OUTPUTS {
            for v in 0..V {
                s.store(output, (o * V + v) * l, sums[o][v]);
            }
        }
    }
}

/// Computes the gradient with respect to the inputs: `d_input = weightᵀ d`, `COLUMNS` inputs at a time.
#[inline(always)]
pub(super) fn input_gradient<S: Simd, const INPUTS: usize, const COLUMNS: usize, const V: usize>(
    s: S,
    weight: &[f32],
    d: &[f32],
    d_input: &mut [f32],
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
        let d_input = &mut d_input[first * V * l..][..COLUMNS * V * l];
        for c in 0..COLUMNS {
            for v in 0..V {
                s.store(d_input, (c * V + v) * l, sums[c][v]);
            }
        }
    }
}

/// Copies `[unit][sample]` to rows of `row` numbers, one row for each sample. There are `V` vectors of samples.
#[inline(always)]
pub(super) fn fill_rows<S: Simd, const V: usize>(
    s: S,
    units: &[f32],
    rows: &mut [f32],
    row: usize,
) {
    let l = S::LANES;
    for first in (0..units.len() / (V * l)).step_by(l) {
        for v in 0..V {
            let count = (units.len() / (V * l) - first).min(l);
            let mut block = [s.splat(0.0); WIDEST];
            for i in 0..l {
                if i < count {
                    block[i] = s.load(units, ((first + i) * V + v) * l);
                }
            }
            block = transpose(s, block);
            for i in 0..l {
                let to = &mut rows[(v * l + i) * row + first..];
                if count == l {
                    s.store(to, 0, block[i]);
                } else {
                    let mut numbers = [0.0; WIDEST];
                    s.store(&mut numbers, 0, block[i]);
                    to[..count].copy_from_slice(&numbers[..count]);
                }
            }
        }
    }
}

/// The inputs of a linear layer and the gradients with respect to its sums, in one row for each sample.
#[derive(Clone, Copy)]
pub(super) struct SampleRows<'a> {
    pub samples: usize,
    pub inputs: &'a [f32],
    pub gradients: &'a [f32],
}

/// Adds the gradient with respect to the weights, starting with output `first`, to the rows of `INPUTS` in `gradient`. A
/// tile is `OUTPUTS` outputs by `VECTORS` vectors of inputs, summed over all samples of all shards. `ROW` and `outputs` are
/// the lengths of the rows of a sample.
#[inline(always)]
pub(super) fn weight_gradient<
    S: Simd,
    const INPUTS: usize,
    const ROW: usize,
    const OUTPUTS: usize,
    const VECTORS: usize,
>(
    s: S,
    shards: &[SampleRows],
    outputs: usize,
    first: usize,
    gradient: &mut [f32],
) {
    let l = S::LANES;
    let step = VECTORS * l;
    for left in (0..INPUTS).step_by(step) {
        for (tile, gradient) in gradient.chunks_mut(OUTPUTS * INPUTS).enumerate() {
            let first = first + OUTPUTS * tile;
            let mut sums = [[s.splat(0.0); VECTORS]; OUTPUTS];
            for rows in shards {
                let samples =
                    rows.inputs.chunks_exact(ROW).zip(rows.gradients.chunks_exact(outputs));
                for (x, d) in samples.take(rows.samples) {
                    let (x, d) = (&x[left..][..step], &d[first..][..OUTPUTS]);
                    // Each vector of inputs is used for all outputs at once. With the loops exchanged, instruction sets of
                    // eight lanes run out of registers.
                    let mut factors = [s.splat(0.0); OUTPUTS];
                    for o in 0..OUTPUTS {
                        factors[o] = s.splat(d[o]);
                    }
                    for v in 0..VECTORS {
                        let x = s.load(x, v * l);
                        for o in 0..OUTPUTS {
                            sums[o][v] = s.fma(x, factors[o], sums[o][v]);
                        }
                    }
                }
            }
            // `sums` is indexed with constants only: otherwise the compiler would keep it in memory.
            for o in 0..OUTPUTS {
                let Some(gradient) = gradient.get_mut(o * INPUTS..(o + 1) * INPUTS) else { break };
                // The last vectors reach beyond the inputs.
                let mut row = [0.0; WEIGHT_TILE_ROW];
                for v in 0..VECTORS {
                    s.store(&mut row, v * l, sums[o][v]);
                }
                for (to, sum) in gradient[left..].iter_mut().zip(&row[..step]) {
                    *to += sum;
                }
            }
        }
    }
}
