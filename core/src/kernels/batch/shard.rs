//! A shard of a batch: one or two groups of samples, one sample per lane. It goes through all layers forward and
//! backward, so that the values of one layer are still in cache for the next, and holds the sums of its gradients.

use super::super::simd::{Simd, WithSimd};
use super::convolution::{self, c3_input_gradient, convolve_and_pool};
use super::images::BatchImages;
use super::linear::{self, SampleRows, transpose};
use super::parameters::{C1, C3, C5, F6, MAX_CLASSES, ParameterVector, output};
use super::pointwise::{Average, Max, Relu, Tanh, activate, activation_backward, pooling_backward};
use super::profile::Phase;
use super::tiles::*;
use super::{BatchForm, WIDEST};
use crate::model::{Activation, Pooling};

/// The most groups in a shard.
pub(super) const GROUPS: usize = 2;
/// The most samples in a shard.
const SAMPLES: usize = GROUPS * WIDEST;
/// The lengths of a sample's rows of inputs, for c5, f6 and output.
const INPUT_ROWS: [usize; 3] = [C5_SHAPE.row, F6_SHAPE.row, OUTPUT_SHAPE.row];

/// The lengths of a sample's rows of gradients, for c5, f6 and output: the outputs, in whole tiles of four.
pub(super) fn gradient_rows(classes: usize) -> [usize; 3] {
    [C5_VALUES, F6_VALUES, classes.next_multiple_of(4)]
}

/// The values of one group of samples up to C3. In the backward pass, gradients replace those of C1 and C3.
#[derive(Clone)]
#[repr(C, align(64))]
struct GroupBuffers {
    input: [f32; INPUT_VALUES * WIDEST],
    c1: [f32; C1_VALUES * WIDEST],
    s2: [f32; S2_VALUES * WIDEST],
    c3: [f32; C3_VALUES * WIDEST],
    d_s2: [f32; S2_VALUES * WIDEST],
}

/// The values of the linear layers and the gradients with respect to them, in the layout `[unit][sample]`.
#[derive(Clone)]
#[repr(C, align(64))]
struct LinearBuffers {
    s4: [f32; S4_VALUES * SAMPLES],
    c5: [f32; C5_VALUES * SAMPLES],
    f6: [f32; F6_VALUES * SAMPLES],
    output: [f32; MAX_CLASSES * SAMPLES],
    d_output: [f32; MAX_CLASSES * SAMPLES],
    d_f6: [f32; F6_VALUES * SAMPLES],
    d_c5: [f32; C5_VALUES * SAMPLES],
    d_s4: [f32; S4_VALUES * SAMPLES],
}

/// The gradients with respect to the parameters of the convolutions: one vector for each parameter, whose lanes are still to
/// be added up.
#[derive(Clone)]
#[repr(C, align(64))]
struct ConvolutionGradients {
    c1: [f32; 6 * TAPS * WIDEST],
    c1_bias: [f32; 6 * WIDEST],
    c3: [f32; 16 * 6 * TAPS * WIDEST],
    c3_bias: [f32; 16 * WIDEST],
}

/// The buffers and sums of one shard. One thread works on it at a time.
pub(super) struct Shard {
    groups: Vec<GroupBuffers>,
    linear: Box<LinearBuffers>,
    sums: Box<ConvolutionGradients>,
    /// The inputs of c5, f6 and output, one row for each sample.
    input_rows: [Vec<f32>; 3],
    /// The gradients with respect to the sums of c5, f6 and output, one row for each sample.
    gradient_rows: [Vec<f32>; 3],
    /// The number of samples in the rows.
    samples: usize,
    /// The sum of its samples' losses.
    pub loss: f64,
    /// The number of its samples that were misclassified.
    pub misclassified: u64,
}

impl Shard {
    pub fn new(classes: usize) -> Shard {
        let group = GroupBuffers {
            input: [0.0; INPUT_VALUES * WIDEST],
            c1: [0.0; C1_VALUES * WIDEST],
            s2: [0.0; S2_VALUES * WIDEST],
            c3: [0.0; C3_VALUES * WIDEST],
            d_s2: [0.0; S2_VALUES * WIDEST],
        };
        Shard {
            groups: vec![group; GROUPS],
            linear: Box::new(LinearBuffers {
                s4: [0.0; S4_VALUES * SAMPLES],
                c5: [0.0; C5_VALUES * SAMPLES],
                f6: [0.0; F6_VALUES * SAMPLES],
                output: [0.0; MAX_CLASSES * SAMPLES],
                d_output: [0.0; MAX_CLASSES * SAMPLES],
                d_f6: [0.0; F6_VALUES * SAMPLES],
                d_c5: [0.0; C5_VALUES * SAMPLES],
                d_s4: [0.0; S4_VALUES * SAMPLES],
            }),
            sums: Box::new(ConvolutionGradients {
                c1: [0.0; 6 * TAPS * WIDEST],
                c1_bias: [0.0; 6 * WIDEST],
                c3: [0.0; 16 * 6 * TAPS * WIDEST],
                c3_bias: [0.0; 16 * WIDEST],
            }),
            input_rows: INPUT_ROWS.map(|row| vec![0.0; SAMPLES * row]),
            gradient_rows: gradient_rows(classes).map(|row| vec![0.0; SAMPLES * row]),
            samples: 0,
            loss: 0.0,
            misclassified: 0,
        }
    }

    /// The rows of a linear layer: 0 is c5, 1 is f6, 2 is output.
    pub fn rows(&self, layer: usize) -> SampleRows<'_> {
        SampleRows {
            samples: self.samples,
            inputs: &self.input_rows[layer],
            gradients: &self.gradient_rows[layer],
        }
    }

    /// The vectors of the convolutions' gradients, in the order of [`ParameterVector`].
    pub fn sums(&self) -> [&[f32]; 4] {
        [&self.sums.c1, &self.sums.c1_bias, &self.sums.c3, &self.sums.c3_bias]
    }

    /// The logits of one sample, in a shard that has room for `stride` samples.
    pub fn logits(&self, sample: usize, stride: usize) -> impl Iterator<Item = f32> {
        self.linear.output.chunks_exact(stride).map(move |samples| samples[sample])
    }
}

/// The samples of a shard, as a part of their batch.
#[derive(Clone, Copy)]
pub(super) struct ShardSamples<'a> {
    /// The images of the batch.
    pub images: BatchImages<'a>,
    /// The labels of the batch.
    pub labels: &'a [u8],
    /// The index of the shard's first sample in the batch.
    pub first: usize,
    /// The number of the shard's samples.
    pub count: usize,
    /// The number of samples in the batch, over which the loss is averaged.
    pub batch_size: usize,
}

/// One phase of the work on a shard.
pub(super) struct PhaseTask<'a> {
    pub form: BatchForm,
    pub parameters: &'a ParameterVector,
    pub shard: &'a mut Shard,
    pub phase: Phase,
    /// The group to work on. The phases of the linear layers take all groups at once.
    pub group: usize,
    /// The number of groups in this shard.
    pub groups: usize,
    pub samples: ShardSamples<'a>,
}

/// Calls a function that is generic over the activation and the pooling, with those of the form.
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

/// Computes a convolution with its activation and pooling, in tiles of a named size.
macro_rules! convolve_and_pool {
    ($form:expr, $s:ident, $shape:ident, $tile:ident, $($argument:expr),*) => {
        with_form!($form, convolve_and_pool::<
            $s, .., { $shape.channels }, { $shape.size }, { $shape.out }, { $tile.maps }, { $tile.columns }
        >($($argument),*))
    };
}

/// Computes the gradient with respect to the weights of a convolution, in tiles of a named size.
macro_rules! kernel_gradient {
    ($s:ident, $shape:ident, $tile:ident, $($argument:expr),*) => {
        convolution::weight_gradient::<
            $s, { $shape.channels }, { $shape.size }, { $shape.out }, { $tile.maps }, { $tile.rows }
        >($($argument),*)
    };
}

impl WithSimd for PhaseTask<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        match self.groups {
            1 => run_phase::<S, 1>(s, self),
            _ => run_phase::<S, GROUPS>(s, self),
        }
    }
}

/// Runs a phase of a shard of `V` groups: there are `V` vectors of samples for each unit of a linear layer.
#[inline(always)]
fn run_phase<S: Simd, const V: usize>(s: S, task: PhaseTask) {
    let PhaseTask { form, parameters: p, shard, phase, group: index, samples, .. } = task;
    let (l, stride) = (S::LANES, V * S::LANES);
    let classes = p.classes();
    let Shard { groups, linear: units, sums, .. } = shard;
    let group = &mut groups[index];
    let wide = l == 16;
    match phase {
        Phase::Gather => {
            let first = samples.first + index * l;
            let count = (samples.count - index * l).min(l);
            samples.images.gather(s, first, count, &mut group.input);
        }
        Phase::C1 => {
            let (weight, bias) = (p.weight(C1), p.bias(C1));
            let (input, c1, s2) = (&group.input, &mut group.c1, (&mut group.s2[..], l));
            if wide {
                convolve_and_pool!(form, S, C1_SHAPE, C1_TILE_16, s, weight, bias, input, c1, s2);
            } else {
                convolve_and_pool!(form, S, C1_SHAPE, C1_TILE_8, s, weight, bias, input, c1, s2);
            }
        }
        Phase::C3 => {
            let (weight, bias) = (p.weight(C3), p.bias(C3));
            let (s2, c3, s4) = (&group.s2, &mut group.c3, (&mut units.s4[index * l..], stride));
            if wide {
                convolve_and_pool!(form, S, C3_SHAPE, C3_TILE_16, s, weight, bias, s2, c3, s4);
            } else {
                convolve_and_pool!(form, S, C3_SHAPE, C3_TILE_8, s, weight, bias, s2, c3, s4);
            }
        }
        Phase::C5 => {
            let (weight, bias, c5) =
                (p.weight(C5), p.bias(C5), &mut units.c5[..C5_VALUES * stride]);
            if wide {
                linear::forward::<S, { C5_SHAPE.inputs }, LINEAR_OUTPUTS_16, V>(
                    s, weight, bias, &units.s4, c5,
                );
            } else {
                linear::forward::<S, { C5_SHAPE.inputs }, LINEAR_OUTPUTS_8, V>(
                    s, weight, bias, &units.s4, c5,
                );
            }
            activate_units::<S>(s, form, c5);
        }
        Phase::F6 => {
            let (weight, bias, f6) =
                (p.weight(F6), p.bias(F6), &mut units.f6[..F6_VALUES * stride]);
            if wide {
                linear::forward::<S, { F6_SHAPE.inputs }, LINEAR_OUTPUTS_16, V>(
                    s, weight, bias, &units.c5, f6,
                );
            } else {
                linear::forward::<S, { F6_SHAPE.inputs }, LINEAR_OUTPUTS_8, V>(
                    s, weight, bias, &units.c5, f6,
                );
            }
            activate_units::<S>(s, form, f6);
        }
        Phase::Output => {
            let (weight, bias) = (p.weight(output(classes)), p.bias(output(classes)));
            linear::forward::<S, { OUTPUT_SHAPE.inputs }, CLASSES_AT_A_TIME, V>(
                s,
                weight,
                bias,
                &units.f6,
                &mut units.output,
            );
        }
        Phase::Loss => {
            let labels = &samples.labels[samples.first..][..samples.count];
            let (loss, misclassified) =
                cross_entropy(units, labels, stride, classes, samples.batch_size);
            shard.loss += loss;
            shard.misclassified += misclassified;
        }
        Phase::OutputBack => {
            let (d, d_f6) =
                (&units.d_output[..classes * stride], &mut units.d_f6[..F6_VALUES * stride]);
            let weight = p.weight(output(classes));
            if wide {
                linear::input_gradient::<S, { OUTPUT_SHAPE.inputs }, OUTPUT_INPUTS_16, V>(
                    s, weight, d, d_f6,
                );
            } else {
                linear::input_gradient::<S, { OUTPUT_SHAPE.inputs }, OUTPUT_INPUTS_8, V>(
                    s, weight, d, d_f6,
                );
            }
            activate_units_backward::<S>(s, form, &units.f6, d_f6);
        }
        Phase::F6Back => {
            let (d, d_c5) =
                (&units.d_f6[..F6_VALUES * stride], &mut units.d_c5[..C5_VALUES * stride]);
            if wide {
                linear::input_gradient::<S, { F6_SHAPE.inputs }, LINEAR_INPUTS_16, V>(
                    s,
                    p.weight(F6),
                    d,
                    d_c5,
                );
            } else {
                linear::input_gradient::<S, { F6_SHAPE.inputs }, LINEAR_INPUTS_8, V>(
                    s,
                    p.weight(F6),
                    d,
                    d_c5,
                );
            }
            activate_units_backward::<S>(s, form, &units.c5, d_c5);
        }
        Phase::C5Back => {
            let (d, d_s4) =
                (&units.d_c5[..C5_VALUES * stride], &mut units.d_s4[..S4_VALUES * stride]);
            if wide {
                linear::input_gradient::<S, { C5_SHAPE.inputs }, LINEAR_INPUTS_16, V>(
                    s,
                    p.weight(C5),
                    d,
                    d_s4,
                );
            } else {
                linear::input_gradient::<S, { C5_SHAPE.inputs }, LINEAR_INPUTS_8, V>(
                    s,
                    p.weight(C5),
                    d,
                    d_s4,
                );
            }
        }
        Phase::S4Back => {
            let (c3, d_s4) = (&mut group.c3[..C3_VALUES * l], &units.d_s4[index * l..]);
            let bias = &mut sums.c3_bias;
            with_form!(form, pooling_backward::<S, .., { C3_SHAPE.out }>(s, c3, d_s4, stride, bias));
        }
        Phase::C3Weights => {
            let (s2, d_c3) = (&group.s2, &group.c3);
            if wide {
                kernel_gradient!(S, C3_SHAPE, C3_KERNEL_TILE_16, s, 16, s2, d_c3, &mut sums.c3);
            } else {
                kernel_gradient!(S, C3_SHAPE, C3_KERNEL_TILE_8, s, 16, s2, d_c3, &mut sums.c3);
            }
        }
        Phase::C3Back => {
            let (d_c3, d_s2) = (&group.c3, &mut group.d_s2);
            if wide {
                c3_input_gradient::<S, C3_INPUT_CHANNELS_16>(s, p.weight(C3), d_c3, d_s2);
            } else {
                c3_input_gradient::<S, C3_INPUT_CHANNELS_8>(s, p.weight(C3), d_c3, d_s2);
            }
        }
        Phase::S2Back => {
            let (c1, d_s2) = (&mut group.c1[..C1_VALUES * l], &group.d_s2);
            let bias = &mut sums.c1_bias;
            with_form!(form, pooling_backward::<S, .., { C1_SHAPE.out }>(s, c1, d_s2, l, bias));
        }
        Phase::C1Weights => {
            let (input, d_c1) = (&group.input, &group.c1);
            if wide {
                kernel_gradient!(S, C1_SHAPE, C1_KERNEL_TILE_16, s, 6, input, d_c1, &mut sums.c1);
            } else {
                kernel_gradient!(S, C1_SHAPE, C1_KERNEL_TILE_8, s, 6, input, d_c1, &mut sums.c1);
            }
        }
        Phase::Rows => shard.fill_rows(stride, samples.count, classes),
        Phase::LinearWeights | Phase::Update => unreachable!("these phases are of a whole batch"),
    }
}

#[inline(always)]
fn activate_units<S: Simd>(s: S, form: BatchForm, x: &mut [f32]) {
    if form.activation == Activation::Relu {
        activate::<S, Relu>(s, x)
    } else {
        activate::<S, Tanh>(s, x)
    }
}

#[inline(always)]
fn activate_units_backward<S: Simd>(s: S, form: BatchForm, values: &[f32], d: &mut [f32]) {
    if form.activation == Activation::Relu {
        activation_backward::<S, Relu>(s, values, d);
    } else {
        activation_backward::<S, Tanh>(s, values, d);
    }
}

impl Shard {
    /// Sets all sums to 0.
    pub fn clear(&mut self) {
        let ConvolutionGradients { c1, c1_bias, c3, c3_bias } = &mut *self.sums;
        c1.fill(0.0);
        c1_bias.fill(0.0);
        c3.fill(0.0);
        c3_bias.fill(0.0);
        self.loss = 0.0;
        self.misclassified = 0;
        self.samples = 0;
    }

    /// Fills the rows of the samples, from the buffers of the linear layers.
    fn fill_rows(&mut self, stride: usize, samples: usize, classes: usize) {
        let units = &self.linear;
        let layers: [(&[f32], usize, &[f32], usize); 3] = [
            (&units.s4, S4_VALUES, &units.d_c5, C5_VALUES),
            (&units.c5, C5_VALUES, &units.d_f6, F6_VALUES),
            (&units.f6, F6_VALUES, &units.d_output, classes),
        ];
        let lengths = gradient_rows(classes);
        for (i, (x, inputs, d, outputs)) in layers.into_iter().enumerate() {
            transpose(&x[..inputs * stride], stride, &mut self.input_rows[i], INPUT_ROWS[i]);
            transpose(&d[..outputs * stride], stride, &mut self.gradient_rows[i], lengths[i]);
        }
        self.samples = samples;
    }
}

/// Computes the sum of the samples' losses and the number of samples that are misclassified. The gradient with respect to the
/// logits is written to `d_output`, for the mean loss over a batch of `batch_size` samples. It is 0 in lanes without a sample.
fn cross_entropy(
    units: &mut LinearBuffers,
    labels: &[u8],
    stride: usize,
    classes: usize,
    batch_size: usize,
) -> (f64, u64) {
    let (mut loss, mut misclassified) = (0.0, 0);
    units.d_output[..classes * stride].fill(0.0);
    for (lane, label) in labels.iter().enumerate() {
        let logit = |class: usize| units.output[class * stride + lane];
        let largest = (0..classes).map(logit).fold(f32::NEG_INFINITY, f32::max);
        let mut exponentials = [0.0; MAX_CLASSES];
        let mut sum = 0.0;
        for (class, exponential) in exponentials[..classes].iter_mut().enumerate() {
            *exponential = (logit(class) - largest).exp();
            sum += *exponential;
        }
        let label = usize::from(*label);
        loss += f64::from(largest + sum.ln() - logit(label));
        misclassified += u64::from(logit(label) < largest);
        for (class, exponential) in exponentials[..classes].iter().enumerate() {
            let target = if class == label { 1.0 } else { 0.0 };
            units.d_output[class * stride + lane] =
                (exponential / sum - target) / batch_size as f32;
        }
    }
    (loss, misclassified)
}
