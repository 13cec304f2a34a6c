//! A shard of a batch: one or two groups of samples, a lane each, through all layers and back, so that what
//! a layer hands on stays in cache; and the sums of their gradients.

use super::super::simd::{Simd, WithSimd};
use super::convolution::{forward, inputs, weights};
use super::images::BatchImages;
use super::linear::{self, Rows, sample_major};
use super::parameters::{C1, C3, C5, F6, MAX_CLASSES, ParameterVector, output};
use super::pointwise::{Average, Max, Relu, Tanh, activate, activate_back, pool_back};
use super::profile::Phase;
use super::{BatchForm, WIDEST};
use crate::model::{Activation, Pooling};

/// Groups of a shard.
pub(super) const GROUPS: usize = 2;
/// The most samples of a shard.
const SAMPLES: usize = GROUPS * WIDEST;
/// Rows of the linear layers' inputs: whole vectors.
pub(super) const ROWS: [usize; 3] = [400, 128, 96];

/// Rows of the linear layers' derivatives: whole quadruples.
pub(super) fn derivative_rows(classes: usize) -> [usize; 3] {
    [120, 84, classes.next_multiple_of(4)]
}

/// The activations of one group of samples up to S2 and C3, and in their place derivatives.
#[derive(Clone)]
#[repr(C, align(64))]
struct Group {
    x: [f32; 1024 * WIDEST],
    c1: [f32; 6 * 784 * WIDEST],
    s2: [f32; 6 * 196 * WIDEST],
    c3: [f32; 1600 * WIDEST],
    d_s2: [f32; 6 * 196 * WIDEST],
}

/// Activations and derivatives of the linear layers, `[unit][sample]`.
#[derive(Clone)]
#[repr(C, align(64))]
struct Units {
    s4: [f32; 400 * SAMPLES],
    c5: [f32; 120 * SAMPLES],
    f6: [f32; 84 * SAMPLES],
    output: [f32; MAX_CLASSES * SAMPLES],
    d_output: [f32; MAX_CLASSES * SAMPLES],
    d_f6: [f32; 84 * SAMPLES],
    d_c5: [f32; 120 * SAMPLES],
    d_s4: [f32; 400 * SAMPLES],
}

/// Gradients of the convolutions: a vector for each, whose lanes are still to be added up.
#[derive(Clone)]
#[repr(C, align(64))]
struct Sums {
    c1: [f32; 150 * WIDEST],
    c1_bias: [f32; 6 * WIDEST],
    c3: [f32; 2400 * WIDEST],
    c3_bias: [f32; 16 * WIDEST],
}

/// What one thread works on at a time.
pub(super) struct Shard {
    groups: Vec<Group>,
    units: Box<Units>,
    sums: Box<Sums>,
    /// Inputs and derivatives of c5, f6 and output, a row for each sample.
    inputs: [Vec<f32>; 3],
    derivatives: [Vec<f32>; 3],
    /// Samples.
    filled: usize,
    /// Of its samples, added up.
    pub loss: f64,
    /// Of its samples, those misclassified.
    pub misclassified: u64,
}

impl Shard {
    pub fn new(classes: usize) -> Shard {
        let group = Group {
            x: [0.0; 1024 * WIDEST],
            c1: [0.0; 6 * 784 * WIDEST],
            s2: [0.0; 6 * 196 * WIDEST],
            c3: [0.0; 1600 * WIDEST],
            d_s2: [0.0; 6 * 196 * WIDEST],
        };
        Shard {
            groups: vec![group; GROUPS],
            units: Box::new(Units {
                s4: [0.0; 400 * SAMPLES],
                c5: [0.0; 120 * SAMPLES],
                f6: [0.0; 84 * SAMPLES],
                output: [0.0; MAX_CLASSES * SAMPLES],
                d_output: [0.0; MAX_CLASSES * SAMPLES],
                d_f6: [0.0; 84 * SAMPLES],
                d_c5: [0.0; 120 * SAMPLES],
                d_s4: [0.0; 400 * SAMPLES],
            }),
            sums: Box::new(Sums {
                c1: [0.0; 150 * WIDEST],
                c1_bias: [0.0; 6 * WIDEST],
                c3: [0.0; 2400 * WIDEST],
                c3_bias: [0.0; 16 * WIDEST],
            }),
            inputs: ROWS.map(|row| vec![0.0; SAMPLES * row]),
            derivatives: derivative_rows(classes).map(|row| vec![0.0; SAMPLES * row]),
            filled: 0,
            loss: 0.0,
            misclassified: 0,
        }
    }

    /// The rows of linear layer number `layer`.
    pub fn rows(&self, layer: usize) -> Rows<'_> {
        Rows {
            samples: self.filled,
            inputs: &self.inputs[layer],
            derivatives: &self.derivatives[layer],
        }
    }

    /// The vectors of the convolutions' gradients, in the order of [`ParameterVector`].
    pub fn sums(&self) -> [&[f32]; 4] {
        [&self.sums.c1, &self.sums.c1_bias, &self.sums.c3, &self.sums.c3_bias]
    }

    /// Sample `sample`'s logits, in a shard of `samples`.
    pub fn logits(&self, sample: usize, samples: usize) -> impl Iterator<Item = f32> {
        self.units.output.chunks_exact(samples).map(move |lanes| lanes[sample])
    }
}

/// One phase of a shard.
pub(super) struct PhaseWork<'a> {
    pub form: BatchForm,
    pub parameters: &'a ParameterVector,
    pub shard: &'a mut Shard,
    pub phase: Phase,
    /// Whose phase it is, up to C3.
    pub group: usize,
    /// Groups in this shard.
    pub groups: usize,
    pub batch: Batch<'a>,
}

/// What a shard works on.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub images: BatchImages<'a>,
    pub labels: &'a [u8],
    /// The shard's first sample.
    pub first: usize,
    /// Its samples.
    pub count: usize,
    /// Samples that the loss is the mean of.
    pub of: usize,
}

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

impl WithSimd for PhaseWork<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        match self.groups {
            1 => run::<S, 1>(s, self),
            _ => run::<S, GROUPS>(s, self),
        }
    }
}

#[inline(always)]
fn run<S: Simd, const V: usize>(s: S, run: PhaseWork) {
    let PhaseWork { form, parameters: p, shard, phase, group: number, batch, .. } = run;
    let (l, stride) = (S::LANES, V * S::LANES);
    let classes = p.classes();
    let Shard { groups, units, sums, .. } = shard;
    let group = &mut groups[number];
    let wide = l == 16;
    match phase {
        Phase::Gather => {
            let first = batch.first + number * l;
            let count = (batch.count - number * l).min(l);
            batch.images.gather(s, first, count, &mut group.x);
        }
        Phase::C1 => {
            let (weight, bias) = (p.weight(C1), p.bias(C1));
            let pooled = (&mut group.s2[..], l);
            if wide {
                with_form!(form, forward::<S, .., 1, 32, 28, 3, 7>(s, weight, bias, &group.x, &mut group.c1, pooled));
            } else {
                with_form!(form, forward::<S, .., 1, 32, 28, 2, 4>(s, weight, bias, &group.x, &mut group.c1, pooled));
            }
        }
        Phase::C3 => {
            let (weight, bias) = (p.weight(C3), p.bias(C3));
            let pooled = (&mut units.s4[number * l..], stride);
            if wide {
                with_form!(form, forward::<S, .., 6, 14, 10, 4, 5>(s, weight, bias, &group.s2, &mut group.c3, pooled));
            } else {
                with_form!(form, forward::<S, .., 6, 14, 10, 2, 5>(s, weight, bias, &group.s2, &mut group.c3, pooled));
            }
        }
        Phase::C5 => {
            let c5 = &mut units.c5[..120 * stride];
            if wide {
                linear::forward::<S, 400, 12, V>(s, p.weight(C5), p.bias(C5), &units.s4, c5);
            } else {
                linear::forward::<S, 400, 6, V>(s, p.weight(C5), p.bias(C5), &units.s4, c5);
            }
            activations::<S>(s, form, c5);
        }
        Phase::F6 => {
            let f6 = &mut units.f6[..84 * stride];
            if wide {
                linear::forward::<S, 120, 12, V>(s, p.weight(F6), p.bias(F6), &units.c5, f6);
            } else {
                linear::forward::<S, 120, 6, V>(s, p.weight(F6), p.bias(F6), &units.c5, f6);
            }
            activations::<S>(s, form, f6);
        }
        Phase::Output => {
            let layer = output(classes);
            let (weight, bias) = (p.weight(layer), p.bias(layer));
            linear::forward::<S, 84, 1, V>(s, weight, bias, &units.f6, &mut units.output);
        }
        Phase::Loss => {
            let labels = &batch.labels[batch.first..][..batch.count];
            let (loss, misclassified) = cross_entropy(units, labels, stride, classes, batch.of);
            shard.loss += loss;
            shard.misclassified += misclassified;
        }
        Phase::OutputBack => {
            let d = &units.d_output[..classes * stride];
            let (weight, d_f6) = (p.weight(output(classes)), &mut units.d_f6[..84 * stride]);
            if wide {
                linear::back::<S, 84, 12, V>(s, weight, d, d_f6);
            } else {
                linear::back::<S, 84, 6, V>(s, weight, d, d_f6);
            }
            activations_back::<S>(s, form, &units.f6, d_f6);
        }
        Phase::F6Back => {
            let (d, d_c5) = (&units.d_f6[..84 * stride], &mut units.d_c5[..120 * stride]);
            if wide {
                linear::back::<S, 120, 10, V>(s, p.weight(F6), d, d_c5);
            } else {
                linear::back::<S, 120, 5, V>(s, p.weight(F6), d, d_c5);
            }
            activations_back::<S>(s, form, &units.c5, d_c5);
        }
        Phase::C5Back => {
            let (d, d_s4) = (&units.d_c5[..120 * stride], &mut units.d_s4[..400 * stride]);
            if wide {
                linear::back::<S, 400, 10, V>(s, p.weight(C5), d, d_s4);
            } else {
                linear::back::<S, 400, 5, V>(s, p.weight(C5), d, d_s4);
            }
        }
        Phase::S4Back => {
            let (c3, d) = (&mut group.c3[..1600 * l], &units.d_s4[number * l..]);
            with_form!(form, pool_back::<S, .., 10>(s, c3, d, stride, &mut sums.c3_bias));
        }
        Phase::C3Weights => {
            if wide {
                weights::<S, 6, 14, 10, 4, 10>(s, 16, &group.s2, &group.c3, &mut sums.c3);
            } else {
                weights::<S, 6, 14, 10, 2, 10>(s, 16, &group.s2, &group.c3, &mut sums.c3);
            }
        }
        Phase::C3Back => {
            if wide {
                inputs::<S, 3>(s, p.weight(C3), &group.c3, &mut group.d_s2);
            } else {
                inputs::<S, 2>(s, p.weight(C3), &group.c3, &mut group.d_s2);
            }
        }
        Phase::S2Back => {
            let (c1, d) = (&mut group.c1[..6 * 784 * l], &group.d_s2);
            with_form!(form, pool_back::<S, .., 28>(s, c1, d, l, &mut sums.c1_bias));
        }
        Phase::C1Weights => {
            if wide {
                weights::<S, 1, 32, 28, 3, 4>(s, 6, &group.x, &group.c1, &mut sums.c1);
            } else {
                weights::<S, 1, 32, 28, 2, 4>(s, 6, &group.x, &group.c1, &mut sums.c1);
            }
        }
        Phase::Rows => shard.make_rows(stride, batch.count, classes),
        Phase::LinearWeights | Phase::Update => unreachable!("phases of a whole batch"),
    }
}

#[inline(always)]
fn activations<S: Simd>(s: S, form: BatchForm, x: &mut [f32]) {
    if form.activation == Activation::Relu {
        activate::<S, Relu>(s, x)
    } else {
        activate::<S, Tanh>(s, x)
    }
}

#[inline(always)]
fn activations_back<S: Simd>(s: S, form: BatchForm, values: &[f32], d: &mut [f32]) {
    if form.activation == Activation::Relu {
        activate_back::<S, Relu>(s, values, d);
    } else {
        activate_back::<S, Tanh>(s, values, d);
    }
}

impl Shard {
    /// Forgets what came before.
    pub fn clear(&mut self) {
        let Sums { c1, c1_bias, c3, c3_bias } = &mut *self.sums;
        c1.fill(0.0);
        c1_bias.fill(0.0);
        c3.fill(0.0);
        c3_bias.fill(0.0);
        self.loss = 0.0;
        self.misclassified = 0;
        self.filled = 0;
    }

    fn make_rows(&mut self, stride: usize, filled: usize, classes: usize) {
        let units = &self.units;
        let layers: [(&[f32], usize, &[f32], usize); 3] = [
            (&units.s4, 400, &units.d_c5, 120),
            (&units.c5, 120, &units.d_f6, 84),
            (&units.f6, 84, &units.d_output, classes),
        ];
        let rows = derivative_rows(classes);
        for (i, (x, inputs, d, outputs)) in layers.into_iter().enumerate() {
            sample_major(&x[..inputs * stride], stride, &mut self.inputs[i], ROWS[i]);
            sample_major(&d[..outputs * stride], stride, &mut self.derivatives[i], rows[i]);
        }
        self.filled = filled;
    }
}

/// The loss summed over the samples, and those misclassified; the derivative by the logits left in `units.d_output`, for the mean
/// over `of` samples. Lanes beyond the labels get no derivative.
fn cross_entropy(
    units: &mut Units,
    labels: &[u8],
    stride: usize,
    classes: usize,
    of: usize,
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
            units.d_output[class * stride + lane] = (exponential / sum - target) / of as f32;
        }
    }
    (loss, misclassified)
}
