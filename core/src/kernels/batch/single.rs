//! The modern network for one image at a time. The lanes hold columns in C1 and S2, maps in C3 and S4, and outputs in the
//! other layers.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::super::simd::{Isa, Simd, WithSimd};
use super::parameters::{C1, C3, C5, F6, LayerRange, ParameterVector, output};
use super::pointwise::{ActivationKernel, Average, Max, PoolingKernel, Relu, Tanh, activate};
use super::tiles::*;
use super::{BatchForm, WIDEST};
use crate::model::{Activation, Pooling};

/// The network for one image at a time, with its weights in the layout that this needs.
pub struct SingleKernels {
    form: BatchForm,
    isa: Isa,
    /// C1's weights, in PyTorch's layout.
    c1: Vec<f32>,
    c1_bias: Vec<f32>,
    /// C3's weights: `[channel][ky][kx][map]`.
    c3: Vec<f32>,
    c3_bias: Vec<f32>,
    c5: LinearWeights,
    f6: LinearWeights,
    output: LinearWeights,
    classes: usize,
    buffers: Box<SingleBuffers>,
}

/// The weights of a linear layer, `[input][output]`, in rows of whole vectors, and its biases.
struct LinearWeights {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl LinearWeights {
    /// `input` gives the index in PyTorch's order for each input in the order used here.
    fn new(
        p: &ParameterVector,
        layer: LayerRange,
        row: usize,
        input: impl Fn(usize) -> usize,
    ) -> LinearWeights {
        let mut weight = vec![0.0; layer.inputs * row];
        for (i, row) in weight.chunks_exact_mut(row).enumerate() {
            for (o, weight) in row[..layer.outputs].iter_mut().enumerate() {
                *weight = p.weight(layer)[o * layer.inputs + input(i)];
            }
        }
        let mut bias = p.bias(layer).to_vec();
        bias.resize(row, 0.0);
        LinearWeights { weight, bias }
    }
}

/// The values of all layers.
#[repr(C, align(64))]
struct SingleBuffers {
    /// The even columns of the image and its odd columns, in rows of 16. The vectors of the last row reach beyond it.
    columns: [[f32; 32 * 16 + 32]; 2],
    s2: [f32; 6 * 14 * 16],
    /// S4: `[position][map]`.
    s4: [f32; 400],
    c5: [f32; 128],
    f6: [f32; 96],
    output: [f32; 128],
}

impl SingleKernels {
    /// Kernels for a network with these parameters.
    pub fn new(form: BatchForm, p: &ParameterVector) -> SingleKernels {
        let classes = p.classes();
        let mut c3 = vec![0.0; 2400];
        for (i, weight) in p.weight(C3).iter().enumerate() {
            c3[i % 150 * 16 + i / 150] = *weight;
        }
        SingleKernels {
            form,
            isa: Isa::best(),
            c1: p.weight(C1).to_vec(),
            c1_bias: p.bias(C1).to_vec(),
            c3,
            c3_bias: p.bias(C3).to_vec(),
            c5: LinearWeights::new(p, C5, 128, |i| i % 16 * 25 + i / 16),
            f6: LinearWeights::new(p, F6, 96, |i| i),
            output: LinearWeights::new(p, output(classes), classes.next_multiple_of(WIDEST), |i| i),
            classes,
            buffers: Box::new(SingleBuffers {
                columns: [[0.0; 32 * 16 + 32]; 2],
                s2: [0.0; 6 * 14 * 16],
                s4: [0.0; 400],
                c5: [0.0; 128],
                f6: [0.0; 96],
                output: [0.0; 128],
            }),
        }
    }

    /// Makes the kernels use another instruction set.
    pub fn with_isa(mut self, isa: Isa) -> SingleKernels {
        self.isa = isa;
        self
    }

    /// The logits of an input of 32x32. A network for 28x28 takes its image from the upper left corner.
    pub fn logits(&mut self, image: &[f32; 1024]) -> &[f32] {
        let [even, odd] = &mut self.buffers.columns;
        for ((pair, even), odd) in image.as_chunks::<2>().0.iter().zip(even).zip(odd) {
            [*even, *odd] = *pair;
        }
        self.isa.run(SingleTask(self));
        &self.buffers.output[..self.classes]
    }
}

struct SingleTask<'a>(&'a mut SingleKernels);

impl WithSimd for SingleTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let single = self.0;
        match (single.form.activation, single.form.pooling) {
            (Activation::Relu, Pooling::Avg) => run_layers::<S, Relu, Average>(s, single),
            (Activation::Relu, Pooling::Max) => run_layers::<S, Relu, Max>(s, single),
            (_, Pooling::Avg) => run_layers::<S, Tanh, Average>(s, single),
            (_, Pooling::Max) => run_layers::<S, Tanh, Max>(s, single),
        }
    }
}

#[inline(always)]
fn run_layers<S: Simd, A: ActivationKernel, P: PoolingKernel>(s: S, single: &mut SingleKernels) {
    let SingleKernels { c1, c1_bias, c3, c3_bias, c5, f6, output, buffers, .. } = single;
    if S::LANES == 16 {
        c1_and_s2::<S, A, P, SINGLE_C1_MAPS_16>(s, c1, c1_bias, &buffers.columns, &mut buffers.s2);
    } else {
        c1_and_s2::<S, A, P, SINGLE_C1_MAPS_8>(s, c1, c1_bias, &buffers.columns, &mut buffers.s2);
    }
    c3_and_s4::<S, A, P>(s, c3, c3_bias, &buffers.s2, &mut buffers.s4);
    linear::<S, SINGLE_C5_VECTORS>(s, c5, &buffers.s4, &mut buffers.c5);
    activate::<S, A>(s, &mut buffers.c5);
    linear::<S, SINGLE_F6_VECTORS>(s, f6, &buffers.c5[..120], &mut buffers.f6);
    activate::<S, A>(s, &mut buffers.f6);
    linear::<S, SINGLE_OUTPUT_VECTORS>(s, output, &buffers.f6[..84], &mut buffers.output);
}

/// C1 and S2. A tile is `MAPS` maps by the four values of each block that is pooled, for the columns of S2 in one vector.
#[inline(always)]
fn c1_and_s2<S: Simd, A: ActivationKernel, P: PoolingKernel, const MAPS: usize>(
    s: S,
    weight: &[f32],
    bias: &[f32],
    columns: &[[f32; 32 * 16 + 32]; 2],
    s2: &mut [f32],
) {
    for y in 0..14 {
        for left in (0..16).step_by(S::LANES) {
            for first in (0..6).step_by(MAPS) {
                let weight = &weight[first * 25..][..MAPS * 25];
                let mut sums = [[s.splat(0.0); 4]; MAPS];
                for m in 0..MAPS {
                    sums[m] = [s.splat(bias[first + m]); 4];
                }
                for ky in 0..5 {
                    for kx in 0..5 {
                        // The pixels in column 2 c + e + kx of row 2 y + r + ky: e and r, from 0 to 1, give the place in the
                        // block, and c is the column of S2.
                        let mut x = [s.splat(0.0); 4];
                        for e in 0..2 {
                            let column = &columns[(e + kx) % 2][(2 * y + ky) * 16 + left..];
                            x[e] = s.load(column, (e + kx) / 2);
                            x[2 + e] = s.load(column, 16 + (e + kx) / 2);
                        }
                        for m in 0..MAPS {
                            let w = s.splat(weight[m * 25 + ky * 5 + kx]);
                            for i in 0..4 {
                                sums[m][i] = s.fma(x[i], w, sums[m][i]);
                            }
                        }
                    }
                }
                // The copy lets `sums` stay in registers: this loop is too long to be unrolled.
                let all = sums;
                for m in 0..MAPS {
                    let mut four = all[m];
                    for i in 0..4 {
                        four[i] = A::apply(s, four[i]);
                    }
                    s.store(s2, ((first + m) * 14 + y) * 16 + left, P::apply(s, four));
                }
            }
        }
    }
}

/// C3 and S4. A tile is the ten columns of a row, for the maps in one vector; two rows are pooled.
#[inline(always)]
fn c3_and_s4<S: Simd, A: ActivationKernel, P: PoolingKernel>(
    s: S,
    weight: &[f32],
    bias: &[f32],
    s2: &[f32],
    s4: &mut [f32],
) {
    for map in (0..16).step_by(S::LANES) {
        for y in 0..5 {
            let mut rows = [[s.splat(0.0); 10]; 2];
            for r in 0..2 {
                let mut sums = [s.load(bias, map); 10];
                for channel in 0..6 {
                    for ky in 0..5 {
                        let x = &s2[(channel * 14 + 2 * y + r + ky) * 16..][..14];
                        let w = &weight[(channel * 25 + ky * 5) * 16..][..80];
                        for kx in 0..5 {
                            let w = s.load(w, kx * 16 + map);
                            for c in 0..10 {
                                sums[c] = s.fma(w, s.splat(x[c + kx]), sums[c]);
                            }
                        }
                    }
                }
                rows[r] = sums;
            }
            for c in 0..5 {
                let [top, bottom] = rows;
                let mut four = [top[2 * c], top[2 * c + 1], bottom[2 * c], bottom[2 * c + 1]];
                for i in 0..4 {
                    four[i] = A::apply(s, four[i]);
                }
                s.store(s4, (y * 5 + c) * 16 + map, P::apply(s, four));
            }
        }
    }
}

/// A linear layer. A tile is `VECTORS` vectors of outputs.
#[inline(always)]
fn linear<S: Simd, const VECTORS: usize>(s: S, layer: &LinearWeights, x: &[f32], to: &mut [f32]) {
    let (l, row) = (S::LANES, layer.bias.len());
    for left in (0..row).step_by(VECTORS * l) {
        let mut sums = [s.splat(0.0); VECTORS];
        for v in 0..VECTORS {
            sums[v] = s.load(&layer.bias, left + v * l);
        }
        for (x, weight) in x.iter().zip(layer.weight.chunks_exact(row)) {
            let (x, weight) = (s.splat(*x), &weight[left..][..VECTORS * l]);
            for v in 0..VECTORS {
                sums[v] = s.fma(x, s.load(weight, v * l), sums[v]);
            }
        }
        for v in 0..VECTORS {
            s.store(to, left + v * l, sums[v]);
        }
    }
}
