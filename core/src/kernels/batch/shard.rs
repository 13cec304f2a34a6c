//! A shard of a batch: one or two groups of samples, one sample per lane. It goes through all layers forward and
//! backward, so that the values of one layer are still in cache for the next. The values are in the workspace of the thread;
//! what is needed later is in the shard.

use super::super::simd::{Simd, WithSimd};
use super::convolution::{self, convolve_and_pool};
use super::images::BatchImages;
use super::linear::{self, SampleRows, fill_rows};
use super::parameters::{C1, C3, C5, F6, LayerRange, MAX_CLASSES, ParameterVector, output};
use super::pointwise::{activate, activation_backward, pooling_backward};
use super::profile::Phase;
use super::tiles::*;
use super::{BatchForm, WIDEST, winograd};

/// Maximum number of groups in a shard.
pub(super) const GROUPS: usize = 2;
/// Maximum number of samples in a shard.
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
    /// The values of s2 at Winograd's points, or the gradients with respect to them.
    s2_points: [f32; winograd::INPUT_POINTS * WIDEST],
}

/// The values of the linear layers and the gradients with respect to them, in the layout `[unit][sample]`.
#[derive(Clone)]
#[repr(C, align(64))]
struct LinearBuffers {
    s4: [f32; S4_VALUES * SAMPLES],
    c5: [f32; C5_VALUES * SAMPLES],
    f6: [f32; F6_VALUES * SAMPLES],
    d_output: [f32; MAX_CLASSES * SAMPLES],
    d_f6: [f32; F6_VALUES * SAMPLES],
    d_c5: [f32; C5_VALUES * SAMPLES],
    d_s4: [f32; S4_VALUES * SAMPLES],
}

/// The gradients with respect to the parameters of the convolutions, those of C3's kernels at Winograd's points: one vector
/// for each number, whose lanes are still to be added up.
#[derive(Clone)]
#[repr(C, align(64))]
struct ConvolutionGradients {
    c1: [f32; 6 * TAPS * WIDEST],
    c1_bias: [f32; 6 * WIDEST],
    c3: [f32; winograd::KERNEL_POINTS * WIDEST],
    c3_bias: [f32; 16 * WIDEST],
}

/// The values of the shard that a thread works on.
pub(super) struct Workspace {
    groups: Vec<GroupBuffers>,
    /// C3's sums at Winograd's points, or the gradients with respect to them, for one group.
    c3_points: Vec<f32>,
    /// The gradients with respect to s2, for one group.
    d_s2: Vec<f32>,
    linear: Box<LinearBuffers>,
}

impl Workspace {
    pub fn new() -> Workspace {
        let group = GroupBuffers {
            input: [0.0; INPUT_VALUES * WIDEST],
            c1: [0.0; C1_VALUES * WIDEST],
            s2: [0.0; S2_VALUES * WIDEST],
            c3: [0.0; C3_VALUES * WIDEST],
            s2_points: [0.0; winograd::INPUT_POINTS * WIDEST],
        };
        Workspace {
            groups: vec![group; GROUPS],
            c3_points: vec![0.0; winograd::OUTPUT_POINTS * WIDEST],
            d_s2: vec![0.0; S2_VALUES * WIDEST],
            linear: Box::new(LinearBuffers {
                s4: [0.0; S4_VALUES * SAMPLES],
                c5: [0.0; C5_VALUES * SAMPLES],
                f6: [0.0; F6_VALUES * SAMPLES],
                d_output: [0.0; MAX_CLASSES * SAMPLES],
                d_f6: [0.0; F6_VALUES * SAMPLES],
                d_c5: [0.0; C5_VALUES * SAMPLES],
                d_s4: [0.0; S4_VALUES * SAMPLES],
            }),
        }
    }
}

/// The results of one shard.
pub(super) struct Shard {
    sums: Box<ConvolutionGradients>,
    /// The inputs of c5, f6 and output, one row for each sample.
    input_rows: [Vec<f32>; 3],
    /// The gradients with respect to the sums of c5, f6 and output, one row for each sample.
    gradient_rows: [Vec<f32>; 3],
    /// The number of samples in the rows.
    samples: usize,
    /// The logits, in the layout `[class][sample]`.
    logits: Vec<f32>,
    /// The sum of its samples' losses.
    pub loss: f64,
    /// The number of its samples that were misclassified.
    pub misclassified: u64,
}

impl Shard {
    pub fn new(classes: usize) -> Shard {
        Shard {
            sums: Box::new(ConvolutionGradients {
                c1: [0.0; 6 * TAPS * WIDEST],
                c1_bias: [0.0; 6 * WIDEST],
                c3: [0.0; winograd::KERNEL_POINTS * WIDEST],
                c3_bias: [0.0; 16 * WIDEST],
            }),
            input_rows: INPUT_ROWS.map(|row| vec![0.0; SAMPLES * row]),
            gradient_rows: gradient_rows(classes).map(|row| vec![0.0; SAMPLES * row]),
            samples: 0,
            logits: vec![0.0; classes * SAMPLES],
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
        self.logits.chunks_exact(stride).map(move |samples| samples[sample])
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
    /// The kernels of C3 at Winograd's points.
    pub c3_kernels: &'a [f32],
    pub workspace: &'a mut Workspace,
    pub shard: &'a mut Shard,
    pub phase: Phase,
    /// The group to work on. The phases of the linear layers take all groups at once.
    pub group: usize,
    /// The number of groups in this shard.
    pub groups: usize,
    pub samples: ShardSamples<'a>,
}

/// Computes a convolution with its activation and pooling, in tiles of a named size.
macro_rules! convolve_and_pool {
    ($s:ident, $shape:ident, $tile:ident, $($argument:expr),*) => {
        convolve_and_pool::<
            $s, { $shape.channels }, { $shape.size }, { $shape.out }, { $tile.maps }, { $tile.columns }
        >($($argument),*)
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
        use Phase::*;
        match self.phase {
            C5 | F6 | Output | OutputBack | F6Back | C5Back | Rows => match self.groups {
                1 => linear_phase::<S, 1>(s, self),
                _ => linear_phase::<S, GROUPS>(s, self),
            },
            _ => group_phase(s, self),
        }
    }
}

/// Runs a phase of one group of samples, or one that does not depend on the instruction set.
#[inline(always)]
fn group_phase<S: Simd>(s: S, task: PhaseTask) {
    let PhaseTask { form, parameters: p, shard, phase, group: index, groups, samples, .. } = task;
    let (l, stride) = (S::LANES, groups * S::LANES);
    let Workspace { groups, linear: units, c3_points, d_s2 } = task.workspace;
    let sums = &mut shard.sums;
    let group = &mut groups[index];
    match phase {
        Phase::Gather => {
            let first = samples.first + index * l;
            let count = (samples.count - index * l).min(l);
            samples.images.gather(s, first, count, &mut group.input);
        }
        Phase::C1 => {
            let (weight, bias) = (p.weight(C1), p.bias(C1));
            let (input, c1, s2) = (&group.input, &mut group.c1, (&mut group.s2[..], l));
            if S::WIDE {
                convolve_and_pool!(S, C1_SHAPE, C1_TILE_16, s, form, weight, bias, input, c1, s2);
            } else {
                convolve_and_pool!(S, C1_SHAPE, C1_TILE_8, s, form, weight, bias, input, c1, s2);
            }
        }
        Phase::C3 => {
            let (kernels, bias) = (task.c3_kernels, p.bias(C3));
            winograd::transform_input::<S, { winograd::ALL_ROWS }>(
                s,
                &group.s2,
                &mut group.s2_points,
                l,
            );
            if S::WIDE {
                winograd::forward::<S, C3_MAPS_16>(s, kernels, bias, &group.s2_points, c3_points);
            } else {
                winograd::forward::<S, C3_MAPS_8>(s, kernels, bias, &group.s2_points, c3_points);
            }
            let s4 = &mut units.s4[index * l..];
            winograd::transform_output(s, form, c3_points, &mut group.c3, s4, stride);
        }
        Phase::Loss => {
            let labels = &samples.labels[samples.first..][..samples.count];
            let (loss, misclassified) = cross_entropy(
                &shard.logits,
                &mut units.d_output,
                labels,
                stride,
                p.classes(),
                samples.batch_size,
            );
            shard.loss += loss;
            shard.misclassified += misclassified;
        }
        Phase::S4Back => {
            let (c3, d_s4) = (&mut group.c3[..C3_VALUES * l], &units.d_s4[index * l..]);
            pooling_backward::<S, { C3_SHAPE.out }>(s, form, c3, d_s4, stride, &mut sums.c3_bias);
        }
        Phase::C3Weights => {
            winograd::transform_output_gradient(s, &group.c3, c3_points);
            if S::WIDE {
                winograd::weight_gradient::<S, C3_MAPS_16>(
                    s,
                    &group.s2_points,
                    c3_points,
                    &mut sums.c3,
                );
            } else {
                winograd::weight_gradient::<S, C3_MAPS_8>(
                    s,
                    &group.s2_points,
                    c3_points,
                    &mut sums.c3,
                );
            }
        }
        Phase::C3Back => {
            let (kernels, d_points) = (task.c3_kernels, &mut group.s2_points);
            if S::WIDE {
                winograd::input_gradient::<S, C3_CHANNELS_16>(s, kernels, c3_points, d_points);
            } else {
                winograd::input_gradient::<S, C3_CHANNELS_8>(s, kernels, c3_points, d_points);
            }
            winograd::transform_input_gradient(s, d_points, d_s2);
        }
        Phase::S2Back => {
            let c1 = &mut group.c1[..C1_VALUES * l];
            pooling_backward::<S, { C1_SHAPE.out }>(s, form, c1, d_s2, l, &mut sums.c1_bias);
        }
        Phase::C1Weights => {
            let (input, d_c1) = (&group.input, &group.c1);
            if S::WIDE {
                kernel_gradient!(S, C1_SHAPE, C1_KERNEL_TILE_16, s, 6, input, d_c1, &mut sums.c1);
            } else {
                kernel_gradient!(S, C1_SHAPE, C1_KERNEL_TILE_8, s, 6, input, d_c1, &mut sums.c1);
            }
        }
        _ => unreachable!("the phase of a linear layer or of a whole batch"),
    }
}

/// Runs a phase of a linear layer, for a shard of `V` groups: there are `V` vectors of samples for each unit.
#[inline(always)]
fn linear_phase<S: Simd, const V: usize>(s: S, task: PhaseTask) {
    let PhaseTask { form, parameters: p, workspace, shard, phase, samples, .. } = task;
    let stride = V * S::LANES;
    let units = &mut *workspace.linear;
    if matches!(phase, Phase::Rows) {
        return shard.fill_rows::<S, V>(s, units, samples.count, p.classes());
    }
    let output = output(p.classes());
    match phase {
        Phase::C5 => {
            let c5 = &mut units.c5[..C5_VALUES * stride];
            forward::<S, { C5_SHAPE.inputs }, V>(s, p, C5, &units.s4, c5);
            activate(s, form.activation, c5);
        }
        Phase::F6 => {
            let f6 = &mut units.f6[..F6_VALUES * stride];
            forward::<S, { F6_SHAPE.inputs }, V>(s, p, F6, &units.c5, f6);
            activate(s, form.activation, f6);
        }
        Phase::Output => {
            let (weight, bias) = (p.weight(output), p.bias(output));
            let (f6, logits) = (&units.f6, &mut shard.logits);
            linear::forward::<S, { OUTPUT_SHAPE.inputs }, CLASSES_AT_A_TIME, V>(
                s, weight, bias, f6, logits,
            );
        }
        Phase::OutputBack => {
            let d = &units.d_output[..output.outputs * stride];
            let (weight, d_f6) = (p.weight(output), &mut units.d_f6[..F6_VALUES * stride]);
            if S::WIDE {
                linear::input_gradient::<S, { OUTPUT_SHAPE.inputs }, OUTPUT_INPUTS_16, V>(
                    s, weight, d, d_f6,
                );
            } else {
                linear::input_gradient::<S, { OUTPUT_SHAPE.inputs }, OUTPUT_INPUTS_8, V>(
                    s, weight, d, d_f6,
                );
            }
            activation_backward(s, form.activation, &units.f6, d_f6);
        }
        Phase::F6Back => {
            let (d_f6, d_c5) =
                (&units.d_f6[..F6_VALUES * stride], &mut units.d_c5[..C5_VALUES * stride]);
            input_gradient::<S, { F6_SHAPE.inputs }, V>(s, p.weight(F6), d_f6, d_c5);
            activation_backward(s, form.activation, &units.c5, d_c5);
        }
        Phase::C5Back => {
            let (d_c5, d_s4) =
                (&units.d_c5[..C5_VALUES * stride], &mut units.d_s4[..S4_VALUES * stride]);
            input_gradient::<S, { C5_SHAPE.inputs }, V>(s, p.weight(C5), d_c5, d_s4);
        }
        _ => unreachable!("not the phase of a linear layer"),
    }
}

/// Computes the sums of c5 or f6, in tiles for the instruction set.
#[inline(always)]
fn forward<S: Simd, const INPUTS: usize, const V: usize>(
    s: S,
    p: &ParameterVector,
    layer: LayerRange,
    input: &[f32],
    output: &mut [f32],
) {
    let (weight, bias) = (p.weight(layer), p.bias(layer));
    if S::WIDE {
        linear::forward::<S, INPUTS, LINEAR_OUTPUTS_16, V>(s, weight, bias, input, output);
    } else {
        linear::forward::<S, INPUTS, LINEAR_OUTPUTS_8, V>(s, weight, bias, input, output);
    }
}

/// Computes the gradient with respect to the inputs of c5 or f6, in tiles for the instruction set.
#[inline(always)]
fn input_gradient<S: Simd, const INPUTS: usize, const V: usize>(
    s: S,
    weight: &[f32],
    d: &[f32],
    d_input: &mut [f32],
) {
    if S::WIDE {
        linear::input_gradient::<S, INPUTS, LINEAR_INPUTS_16, V>(s, weight, d, d_input);
    } else {
        linear::input_gradient::<S, INPUTS, LINEAR_INPUTS_8, V>(s, weight, d, d_input);
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
    #[inline(always)]
    fn fill_rows<S: Simd, const V: usize>(
        &mut self,
        s: S,
        units: &LinearBuffers,
        samples: usize,
        classes: usize,
    ) {
        let stride = V * S::LANES;
        let layers: [(&[f32], usize, &[f32], usize); 3] = [
            (&units.s4, S4_VALUES, &units.d_c5, C5_VALUES),
            (&units.c5, C5_VALUES, &units.d_f6, F6_VALUES),
            (&units.f6, F6_VALUES, &units.d_output, classes),
        ];
        let lengths = gradient_rows(classes);
        for i in 0..3 {
            let (x, inputs, d, outputs) = layers[i];
            let (x, d) = (&x[..inputs * stride], &d[..outputs * stride]);
            fill_rows::<S, V>(s, x, &mut self.input_rows[i], INPUT_ROWS[i]);
            fill_rows::<S, V>(s, d, &mut self.gradient_rows[i], lengths[i]);
        }
        self.samples = samples;
    }
}

/// Computes the sum of the samples' losses and the number of samples that are misclassified. The gradient with respect to the
/// logits is written to `d_output`, for the mean loss over a batch of `batch_size` samples. It is 0 in lanes without a sample.
fn cross_entropy(
    logits: &[f32],
    d_output: &mut [f32],
    labels: &[u8],
    stride: usize,
    classes: usize,
    batch_size: usize,
) -> (f64, u64) {
    let (mut loss, mut misclassified) = (0.0, 0);
    d_output[..classes * stride].fill(0.0);
    for (lane, label) in labels.iter().enumerate() {
        let logit = |class: usize| logits[class * stride + lane];
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
            d_output[class * stride + lane] = (exponential / sum - target) / batch_size as f32;
        }
    }
    (loss, misclassified)
}
