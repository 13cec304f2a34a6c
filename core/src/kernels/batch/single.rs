//! The logits of one image. In a batch a SIMD lane holds an image; here the lanes hold columns, maps or units of one image,
//! which is ready much earlier than a group of images. Each number is computed by the same operations in the same order as in
//! a batch, so the logits have the same bits.
#![allow(clippy::needless_range_loop)] // indices show the memory layout, and iterators would bring closures

use super::super::simd::{Isa, Simd, WIDEST, WithSimd, transpose};
use super::parameters::{C1, C3, C5, F6, LayerRange, MAX_CLASSES, ParameterVector, output};
use super::pointwise::{activate, pool, pool_columns};
use super::tiles::*;
use super::{BatchForm, winograd};

/// The number of a linear layer's units, up to whole vectors.
const C5_ROW: usize = 128;
const F6_ROW: usize = 96;
/// The rows of all maps of s2, up to whole vectors.
const S2_ROWS: usize = 96;
const S2_COLUMNS: usize = 16;
const MAPS: usize = 16;

/// The forward pass of the modern network for one image at a time.
pub struct SingleKernels {
    form: BatchForm,
    isa: Isa,
    classes: usize,
    layers: Box<Layers>,
}

/// The parameters, in the order in which they are read. For a linear layer, a row has a number for each unit: the first row
/// has the biases, and the others the weights of one input.
#[repr(C, align(64))]
struct Layers {
    c1_weights: [f32; 6 * TAPS],
    c1_biases: [f32; 6],
    /// The kernels at Winograd's points, in the layout `[point][channel][kernel row][map]`.
    c3_kernels: [f32; winograd::KERNEL_POINTS],
    c3_biases: [f32; MAPS],
    c5: [f32; C5_ROW * (1 + S4_VALUES)],
    f6: [f32; F6_ROW * (1 + C5_VALUES)],
    output: [f32; MAX_CLASSES * (1 + F6_VALUES)],
}

impl SingleKernels {
    /// Kernels for a network with these parameters.
    pub fn new(form: BatchForm, parameters: &ParameterVector) -> SingleKernels {
        let classes = parameters.classes();
        let mut layers = Box::new(Layers {
            c1_weights: [0.0; 6 * TAPS],
            c1_biases: [0.0; 6],
            c3_kernels: [0.0; winograd::KERNEL_POINTS],
            c3_biases: [0.0; MAPS],
            c5: [0.0; C5_ROW * (1 + S4_VALUES)],
            f6: [0.0; F6_ROW * (1 + C5_VALUES)],
            output: [0.0; MAX_CLASSES * (1 + F6_VALUES)],
        });
        layers.c1_weights.copy_from_slice(parameters.weight(C1));
        layers.c1_biases.copy_from_slice(parameters.bias(C1));
        layers.c3_biases.copy_from_slice(parameters.bias(C3));
        let mut kernels = vec![0.0; winograd::KERNEL_POINTS];
        winograd::transform_kernels(parameters.weight(C3), &mut kernels);
        let inputs = C3.inputs / 5;
        for (point, kernels) in kernels.chunks_exact(MAPS * inputs).enumerate() {
            for (map, kernels) in kernels.chunks_exact(inputs).enumerate() {
                for (i, kernel) in kernels.iter().enumerate() {
                    layers.c3_kernels[(point * inputs + i) * MAPS + map] = *kernel;
                }
            }
        }
        transpose_layer(parameters, C5, C5_ROW, &mut layers.c5);
        transpose_layer(parameters, F6, F6_ROW, &mut layers.f6);
        let row = classes.next_multiple_of(WIDEST);
        transpose_layer(parameters, output(classes), row, &mut layers.output);
        SingleKernels { form, isa: Isa::best(), classes, layers }
    }

    /// Makes the kernels use another instruction set.
    pub fn with_isa(mut self, isa: Isa) -> SingleKernels {
        self.isa = isa;
        self
    }

    /// The logits, one for each class, of an image of 32x32. A network for 28x28 takes its image from the upper left corner.
    pub fn logits(&self, image: &[f32; 1024]) -> Vec<f32> {
        let mut logits = [0.0; MAX_CLASSES];
        self.isa.run(SingleTask { kernels: self, image, logits: &mut logits });
        logits[..self.classes].to_vec()
    }
}

/// Writes the biases and weights of a linear layer to rows of `row` numbers.
fn transpose_layer(p: &ParameterVector, layer: LayerRange, row: usize, rows: &mut [f32]) {
    rows[..layer.outputs].copy_from_slice(p.bias(layer));
    for (unit, weights) in p.weight(layer).chunks_exact(layer.inputs).enumerate() {
        for (row, weight) in rows.chunks_exact_mut(row).skip(1).zip(weights) {
            row[unit] = *weight;
        }
    }
}

struct SingleTask<'a> {
    kernels: &'a SingleKernels,
    image: &'a [f32; 1024],
    logits: &'a mut [f32; MAX_CLASSES],
}

impl WithSimd for SingleTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let SingleKernels { form, classes, layers, .. } = self.kernels;
        let mut s2 = [0.0; S2_ROWS * S2_COLUMNS];
        if S::WIDE {
            compute_s2::<S, 6, 2>(s, *form, layers, self.image, &mut s2);
        } else {
            compute_s2::<S, 2, 4>(s, *form, layers, self.image, &mut s2);
        }
        let mut s4 = [0.0; S4_VALUES];
        compute_s4(s, *form, layers, &s2, &mut s4);
        let mut c5 = [0.0; C5_ROW];
        linear::<S, 8>(s, &layers.c5, &s4, &mut c5);
        activate(s, form.activation, &mut c5);
        let mut f6 = [0.0; F6_ROW];
        linear::<S, 6>(s, &layers.f6, &c5[..C5_VALUES], &mut f6);
        activate(s, form.activation, &mut f6);
        let logits = &mut self.logits[..classes.next_multiple_of(WIDEST)];
        linear::<S, 1>(s, &layers.output, &f6[..F6_VALUES], logits);
    }
}

/// Computes s2, in rows of [`S2_COLUMNS`]. A tile is a row of `MAPS` maps, in `VECTORS` vectors of columns.
#[inline(always)]
fn compute_s2<S: Simd, const MAPS: usize, const VECTORS: usize>(
    s: S,
    form: BatchForm,
    layers: &Layers,
    image: &[f32; 1024],
    s2: &mut [f32],
) {
    // The last vector overlaps the one before, so that it does not reach beyond the row.
    let column = |v: usize| (v * S::LANES).min(C1_SHAPE.out - S::LANES);
    for first in (0..6).step_by(MAPS) {
        for y in 0..C3_SHAPE.size {
            let mut values = [[0.0; 2 * 32]; MAPS];
            for row in 0..2 {
                let mut tile = [[s.splat(0.0); VECTORS]; MAPS];
                for m in 0..MAPS {
                    tile[m] = [s.splat(layers.c1_biases[first + m]); VECTORS];
                }
                for ky in 0..5 {
                    let image = &image[(2 * y + row + ky) * 32..][..32];
                    for kx in 0..5 {
                        let mut x = [s.splat(0.0); VECTORS];
                        for v in 0..VECTORS {
                            x[v] = s.load(image, column(v) + kx);
                        }
                        for m in 0..MAPS {
                            let w = layers.c1_weights[(first + m) * TAPS + ky * 5 + kx];
                            for v in 0..VECTORS {
                                tile[m][v] = s.fma(x[v], s.splat(w), tile[m][v]);
                            }
                        }
                    }
                }
                for m in 0..MAPS {
                    for v in 0..VECTORS {
                        s.store(&mut values[m], row * 32 + column(v), tile[m][v]);
                    }
                }
            }
            activate(s, form.activation, values.as_flattened_mut());
            for m in 0..MAPS {
                let at = ((first + m) * C3_SHAPE.size + y) * S2_COLUMNS;
                pool_columns(s, form.pooling, &values[m], &mut s2[at..][..S2_COLUMNS]);
            }
        }
    }
}

/// Computes s4, in PyTorch's layout.
#[inline(always)]
fn compute_s4<S: Simd>(
    s: S,
    form: BatchForm,
    layers: &Layers,
    s2: &[f32; S2_ROWS * S2_COLUMNS],
    s4: &mut [f32; S4_VALUES],
) {
    let l = S::LANES;
    // In the layout `[point][tile][channel and row]`: the lanes are rows.
    let mut points = [0.0; winograd::ROW_POINTS * S2_ROWS];
    for first in (0..S2_ROWS).step_by(l) {
        let mut columns = [0.0; S2_COLUMNS * WIDEST];
        for left in (0..S2_COLUMNS).step_by(l) {
            let mut block = [s.splat(0.0); WIDEST];
            for i in 0..l {
                block[i] = s.load(s2, (first + i) * S2_COLUMNS + left);
            }
            block = transpose(s, block);
            for i in 0..l {
                s.store(&mut columns, (left + i) * l, block[i]);
            }
        }
        winograd::transform_input::<S, 1>(s, &columns, &mut points[first..], S2_ROWS);
    }
    for first in (0..MAPS).step_by(l) {
        let mut products = [0.0; winograd::MAP_POINTS * WIDEST];
        winograd::forward_maps(
            s,
            &layers.c3_kernels[first..],
            s.load(&layers.c3_biases, first),
            &points,
            S2_ROWS,
            &mut products,
        );
        let mut c3 = [0.0; C3_SHAPE.out * C3_SHAPE.out * WIDEST];
        let mut pooled = [0.0; S4_VALUES / MAPS * WIDEST];
        for (pair, values) in c3.chunks_exact_mut(2 * C3_SHAPE.out * l).take(5).enumerate() {
            winograd::transform_two_rows::<S, 1>(s, &products, pair, values);
            activate(s, form.activation, values);
            pool::<S, { C3_SHAPE.out }>(s, form.pooling, values, &mut pooled[pair * 5 * l..]);
        }
        for (i, maps) in pooled.chunks_exact(l).take(S4_VALUES / MAPS).enumerate() {
            for (map, value) in maps.iter().enumerate() {
                s4[(first + map) * (S4_VALUES / MAPS) + i] = *value;
            }
        }
    }
}

/// Computes the sums of a linear layer, up to `VECTORS` vectors of units at a time.
#[inline(always)]
fn linear<S: Simd, const VECTORS: usize>(s: S, layer: &[f32], input: &[f32], output: &mut [f32]) {
    let (l, row) = (S::LANES, output.len());
    let (biases, weights) = layer.split_at(row);
    for first in (0..row).step_by(VECTORS * l) {
        let mut sums = [s.splat(0.0); VECTORS];
        for v in 0..VECTORS {
            sums[v] = s.load(biases, first + v * l);
        }
        for (weights, x) in weights.chunks_exact(row).zip(input) {
            let (weights, x) = (&weights[first..][..VECTORS * l], s.splat(*x));
            for v in 0..VECTORS {
                sums[v] = s.fma(x, s.load(weights, v * l), sums[v]);
            }
        }
        for v in 0..VECTORS {
            s.store(output, first + v * l, sums[v]);
        }
    }
}
