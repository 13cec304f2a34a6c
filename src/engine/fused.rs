//! The modern network trained in batches by hand-written kernels: one sample per SIMD lane, all layers for one
//! group of samples before the next, so that what a layer hands on stays in cache.

mod kernels;
mod parameters;
mod tensors;

use super::simd::{Isa, Kernel, Simd};
pub use kernels::MAX_CLASSES;
use kernels::{Activation, Average, Max, Pooling, Relu, Tanh, Work, backward, forward, outer};
pub use parameters::Parameters;
use parameters::{GATHERED, Gradient, ROWS};

/// Which activation and pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// relu; else tanh.
    pub relu: bool,
    /// Max pooling; else average.
    pub max: bool,
}

/// Forward and backward passes of the modern network.
pub struct Engine {
    settings: Settings,
    isa: Isa,
    work: Box<Work>,
    gradient: Gradient,
}

/// Fills `pixels` (1024) with a sample's input.
pub trait Source {
    /// Sample number `index` of the batch.
    fn fill(&mut self, index: usize, pixels: &mut [f32; 1024]);
}

/// Inputs as they are.
impl Source for &[[f32; 1024]] {
    fn fill(&mut self, index: usize, pixels: &mut [f32; 1024]) {
        *pixels = self[index];
    }
}

impl Engine {
    /// For so many classes.
    pub fn new(settings: Settings, classes: usize) -> Engine {
        Engine { settings, isa: Isa::best(), work: Work::new(), gradient: Gradient::new(classes) }
    }

    /// With another instruction set.
    pub fn with_isa(mut self, isa: Isa) -> Engine {
        self.isa = isa;
        self
    }

    /// The mean loss of a batch, its gradient written to `gradient`.
    pub fn gradient(
        &mut self,
        parameters: &Parameters,
        source: &mut dyn Source,
        labels: &[u8],
        gradient: &mut Parameters,
    ) -> f64 {
        self.gradient.clear();
        gradient.0.fill(0.0);
        let isa = self.isa;
        let loss = isa.run(Batch { engine: self, parameters, source, labels });
        self.gradient.add_to(gradient);
        loss / labels.len() as f64
    }

    /// The logits of `count` samples: count x classes.
    pub fn logits(
        &mut self,
        parameters: &Parameters,
        source: &mut dyn Source,
        count: usize,
    ) -> Vec<f32> {
        let isa = self.isa;
        isa.run(Logits { engine: self, parameters, source, count })
    }
}

/// Puts samples `first..` into lanes; those beyond `count` stay blank.
#[inline(always)]
fn gather<S: Simd>(source: &mut dyn Source, first: usize, count: usize, x: &mut [f32]) {
    let lanes = S::LANES;
    let mut pixels = [0.0; 1024];
    for lane in 0..lanes {
        if first + lane < count {
            source.fill(first + lane, &mut pixels);
        } else {
            pixels = [0.0; 1024];
        }
        for (x, pixel) in x.chunks_exact_mut(lanes).zip(&pixels) {
            x[lane] = *pixel;
        }
    }
}

macro_rules! with_settings {
    ($settings:expr, $function:ident::<$s:ident, ..>($($argument:expr),*)) => {
        match $settings {
            Settings { relu: false, max: false } => $function::<$s, Tanh, Average>($($argument),*),
            Settings { relu: false, max: true } => $function::<$s, Tanh, Max>($($argument),*),
            Settings { relu: true, max: false } => $function::<$s, Relu, Average>($($argument),*),
            Settings { relu: true, max: true } => $function::<$s, Relu, Max>($($argument),*),
        }
    };
}

struct Batch<'a> {
    engine: &'a mut Engine,
    parameters: &'a Parameters,
    source: &'a mut dyn Source,
    labels: &'a [u8],
}

impl Kernel for Batch<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        with_settings!(self.engine.settings, batch::<S, ..>(s, self))
    }
}

#[inline(always)]
fn batch<S: Simd, A: Activation, P: Pooling>(s: S, batch: Batch) -> f64 {
    let Batch { engine, parameters, source, labels } = batch;
    let (count, classes) = (labels.len(), parameters.classes());
    let (work, sums) = (&mut *engine.work, &mut engine.gradient);
    let mut loss = 0.0;
    for first in (0..count).step_by(S::LANES) {
        gather::<S>(source, first, count, &mut work.x);
        forward::<S, A, P>(s, parameters, work);
        let filled = (count - first).min(S::LANES);
        let lanes = &labels[first..first + filled];
        loss += cross_entropy(work, lanes, S::LANES, classes, count);
        backward::<S, A, P>(s, parameters, work, sums);
        sample_major(work, sums, S::LANES, filled, classes);
        if sums.gathered + S::LANES > GATHERED || first + S::LANES >= count {
            multiply_out(s, sums, classes);
        }
    }
    loss
}

/// The loss summed over the lanes, its derivative by the logits left in `work.d_output`, for the mean over
/// `count` samples. Lanes beyond the labels get no derivative.
fn cross_entropy(
    work: &mut Work,
    labels: &[u8],
    lanes: usize,
    classes: usize,
    count: usize,
) -> f64 {
    let mut loss = 0.0;
    work.d_output[..classes * lanes].fill(0.0);
    for (lane, label) in labels.iter().enumerate() {
        let logit = |class: usize| work.output[class * lanes + lane];
        let largest = (0..classes).map(logit).fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = (0..classes).map(|class| (logit(class) - largest).exp()).sum();
        let log_sum = largest + sum.ln();
        let label = usize::from(*label);
        loss += f64::from(log_sum - logit(label));
        for class in 0..classes {
            let probability = (logit(class) - log_sum).exp();
            let target = if class == label { 1.0 } else { 0.0 };
            work.d_output[class * lanes + lane] = (probability - target) / count as f32;
        }
    }
    loss
}

/// Gathers the inputs and derivatives of the linear layers, a row for each sample.
fn sample_major(work: &Work, sums: &mut Gradient, lanes: usize, filled: usize, classes: usize) {
    let layers: [(&[f32], usize, &[f32], usize); 3] = [
        (&work.s4, 400, &work.d_c5, 120),
        (&work.c5, 120, &work.d_f6, 84),
        (&work.f6, 84, &work.d_output, classes),
    ];
    for (i, (x, inputs, d, outputs)) in layers.into_iter().enumerate() {
        for lane in 0..filled {
            let row = sums.gathered + lane;
            let to = &mut sums.inputs[i][row * ROWS[i]..][..inputs];
            for (to, x) in to.iter_mut().zip(x.chunks_exact(lanes)) {
                *to = x[lane];
            }
            let to = &mut sums.derivatives[i][row * outputs..][..outputs];
            for ((to, d), bias) in
                to.iter_mut().zip(d.chunks_exact(lanes)).zip(&mut sums.linear_bias[i])
            {
                *to = d[lane];
                *bias += d[lane];
            }
        }
    }
    sums.gathered += filled;
}

#[inline(always)]
fn multiply_out<S: Simd>(s: S, sums: &mut Gradient, classes: usize) {
    let n = sums.gathered;
    let [c5, f6, output] = &mut sums.linear;
    let [d_c5, d_f6, d_output] = &sums.derivatives;
    let [x_c5, x_f6, x_output] = &sums.inputs;
    outer::<S, 5>(s, d_c5, 120, x_c5, 400, n, c5);
    outer::<S, 4>(s, d_f6, 84, x_f6, 128, n, f6);
    outer::<S, 3>(s, d_output, classes, x_output, 96, n, output);
    sums.gathered = 0;
}

struct Logits<'a> {
    engine: &'a mut Engine,
    parameters: &'a Parameters,
    source: &'a mut dyn Source,
    count: usize,
}

impl Kernel for Logits<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f32> {
        with_settings!(self.engine.settings, logits::<S, ..>(s, self))
    }
}

#[inline(always)]
fn logits<S: Simd, A: Activation, P: Pooling>(s: S, logits: Logits) -> Vec<f32> {
    let Logits { engine, parameters, source, count } = logits;
    let (classes, lanes, work) = (parameters.classes(), S::LANES, &mut *engine.work);
    let mut result = vec![0.0; count * classes];
    for first in (0..count).step_by(lanes) {
        gather::<S>(source, first, count, &mut work.x);
        forward::<S, A, P>(s, parameters, work);
        for (lane, row) in
            result[first * classes..].chunks_exact_mut(classes).take(lanes).enumerate()
        {
            for (logit, lanes_of_class) in row.iter_mut().zip(work.output.chunks_exact(lanes)) {
                *logit = lanes_of_class[lane];
            }
        }
    }
    result
}
