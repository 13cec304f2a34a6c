//! The modern network trained in batches by hand-written kernels: one sample per SIMD lane, all layers for one
//! group of samples before the next, so that what a layer hands on stays in cache.
//!
//! A batch is cut into shards of one or two groups, which threads take as they get free. How it is cut, and
//! in which order the shards' gradients are added, depends on the batch and the instruction set alone: the
//! number of threads changes no bit.

mod convolution;
mod images;
mod linear;
mod parameters;
mod pointwise;
mod profile;
mod shard;
mod single;
mod update;

use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::simd::{Isa, Simd, WIDEST, WithSimd};
use crate::model::{Activation, HiddenActivation, LayerOrder, ModelConfig, Network, Pooling};
pub use images::{BatchImages, GreyImages};
use parameters::{C1, C3, C5, F6, LayerRange, output};
pub use parameters::{MAX_CLASSES, ParameterVector};
use profile::Clock;
pub use profile::{Phase, Profile};
use shard::{Batch, GROUPS, PhaseWork, Shard, derivative_rows};
pub use single::SingleKernels;
use update::UpdateWork;
pub use update::{BatchOptimizer, StepConstants, UpdateRule};

/// The most shards at a time.
const SHARDS: usize = 16;

/// The form of the modern network that the kernels compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchForm {
    /// tanh or relu.
    pub activation: Activation,
    /// The pooling in s2 and s4.
    pub pooling: Pooling,
    /// Whether images are 28x28 without padding. The kernels then compute the network of 32x32 with such an image in its
    /// upper left corner, and with weights of c5 for the 4x4 units of s4 there alone.
    pub unpadded: bool,
}

impl BatchForm {
    /// The form of a network with these settings.
    ///
    /// # Errors
    /// The reason why the kernels do not compute this network, to stand after "--engine fused".
    pub fn of(config: &ModelConfig) -> Result<BatchForm, &'static str> {
        match config.activation {
            _ if config.network != Network::Modern => Err("goes with --model modern only"),
            _ if config.classes > MAX_CLASSES => Err("has room for 128 classes"),
            Activation::Sigmoid | Activation::ScaledTanh => {
                Err("goes with --activation tanh or relu only")
            }
            _ if config.layer_order != LayerOrder::ActivationFirst => {
                Err("goes with --layer-order activation-first only")
            }
            _ if config.hidden_activation != HiddenActivation::Same => {
                Err("goes with --hidden-activation same only")
            }
            activation => Ok(BatchForm {
                activation,
                pooling: config.pooling,
                unpadded: config.input.size() == 28,
            }),
        }
    }
}

/// Forward and backward passes of the modern network.
pub struct BatchKernels {
    form: BatchForm,
    isa: Isa,
    classes: usize,
    shards: Vec<Shard>,
    /// None where there is one thread.
    pool: Option<Arc<ThreadPool>>,
    profile: Option<Profile>,
    misclassified: u64,
}

impl BatchKernels {
    /// For so many classes; on one thread.
    pub fn new(form: BatchForm, classes: usize) -> BatchKernels {
        assert!((1..=MAX_CLASSES).contains(&classes));
        let isa = Isa::best();
        BatchKernels {
            form,
            isa,
            classes,
            shards: Vec::new(),
            pool: None,
            profile: None,
            misclassified: 0,
        }
    }

    /// With another instruction set.
    pub fn with_isa(mut self, isa: Isa) -> BatchKernels {
        self.isa = isa;
        self
    }

    /// On so many threads.
    ///
    /// # Panics
    /// Where the system has no more threads.
    pub fn with_threads(mut self, threads: usize) -> BatchKernels {
        let pool = || ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        self.pool = (threads > 1).then(|| Arc::new(pool()));
        self
    }

    /// Measures from now on where the time goes.
    pub fn measure(&mut self) {
        self.profile = Some(Profile::ZERO);
    }

    /// What was measured.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Calls `work` on one of the engine's threads, so that its batches do not each go there and back.
    pub fn within<R: Send>(&mut self, work: impl FnOnce(&mut BatchKernels) -> R + Send) -> R {
        match self.pool.clone() {
            None => work(self),
            Some(pool) => pool.install(|| work(self)),
        }
    }

    /// The mean loss of a batch, its gradient written to `gradient`.
    pub fn gradient(
        &mut self,
        parameters: &ParameterVector,
        images: BatchImages,
        labels: &[u8],
        gradient: &mut ParameterVector,
    ) -> f64 {
        gradient.0.fill(0.0);
        let (of, mut loss) = (labels.len(), 0.0);
        self.misclassified = 0;
        let (size, groups) = self.shard_size(of);
        for first in (0..of).step_by(SHARDS * size) {
            let end = (first + SHARDS * size).min(of);
            let firsts = (first..end).step_by(size);
            let batch = |first: usize| {
                let count = (end - first).min(size);
                Batch { images, labels, first, count, of }
            };
            let used = self.each_shard(firsts.map(batch), parameters, groups, true);
            for shard in &self.shards[..used] {
                loss += shard.loss;
                self.misclassified += shard.misclassified;
            }
            self.collect(used, gradient);
        }
        if self.form.unpadded {
            let weight = &mut gradient.0[C5.weight..C5.bias];
            for (i, derivative) in weight.iter_mut().enumerate() {
                if i % 5 == 4 || i % 25 >= 20 {
                    *derivative = 0.0;
                }
            }
        }
        if let Some(profile) = &mut self.profile {
            profile.samples += of;
        }
        loss / of as f64
    }

    /// The samples of [`BatchKernels::gradient`]'s batch that the parameters misclassified.
    pub fn misclassified(&self) -> u64 {
        self.misclassified
    }

    /// Repeats a phase of the first group of a batch of whole shards whose gradient was just computed. For
    /// benchmarks: the derivatives are no longer what they are called.
    pub fn repeat(
        &mut self,
        phase: Phase,
        parameters: &ParameterVector,
        images: BatchImages,
        labels: &[u8],
    ) {
        let BatchKernels { form, isa, .. } = *self;
        let count = GROUPS * self.lanes();
        let batch = Batch { images, labels, first: 0, count, of: labels.len() };
        let (shard, group, groups) = (&mut self.shards[0], 0, GROUPS);
        isa.run(PhaseWork { form, parameters, shard, phase, group, groups, batch });
    }

    /// The samples of a group.
    pub fn lanes(&self) -> usize {
        self.isa.run(Lanes)
    }

    /// The logits of `count` images: count x classes.
    pub fn logits(
        &mut self,
        parameters: &ParameterVector,
        images: BatchImages,
        count: usize,
    ) -> Vec<f32> {
        let (size, groups) = self.shard_size(count);
        let mut logits = Vec::with_capacity(count * self.classes);
        for first in (0..count).step_by(SHARDS * size) {
            let end = (first + SHARDS * size).min(count);
            let firsts = (first..end).step_by(size);
            let batch = |first: usize| {
                let count = (end - first).min(size);
                Batch { images, labels: &[], first, count, of: count }
            };
            let used = self.each_shard(firsts.map(batch), parameters, groups, false);
            let lanes = groups * self.lanes();
            for (shard, first) in self.shards[..used].iter().zip((first..end).step_by(size)) {
                for sample in 0..(end - first).min(size) {
                    logits.extend(shard.logits(sample, lanes).take(self.classes));
                }
            }
        }
        logits
    }

    /// Updates the parameters by their gradient.
    pub fn update(
        &mut self,
        parameters: &mut ParameterVector,
        gradient: &ParameterVector,
        optimizer: &mut BatchOptimizer,
        learning_rate: f64,
    ) {
        const PART: usize = 1 << 14;
        let mut clock = Clock::start(self.profile.is_some());
        let (isa, step) = (self.isa, optimizer.rule.step(learning_rate));
        let [first, second] = &mut optimizer.state;
        let state = first.0.chunks_mut(PART).zip(second.0.chunks_mut(PART));
        let parts: Vec<_> = parameters
            .0
            .chunks_mut(PART)
            .zip(gradient.0.chunks(PART))
            .zip(state)
            .map(|((parameters, gradient), (first, second))| UpdateWork {
                step,
                parameters,
                gradient,
                state: [first, second],
            })
            .collect();
        match &self.pool {
            None => parts.into_iter().for_each(|part| isa.run(part)),
            Some(pool) => {
                pool.install(|| {
                    parts.into_par_iter().with_max_len(1).for_each(|part| isa.run(part))
                });
            }
        }
        clock.lap(Phase::Update);
        if let Some(profile) = &mut self.profile {
            profile.add(&clock.profile);
        }
    }

    /// Samples and groups of a shard, in a batch of `count`: two groups where there are more than four.
    fn shard_size(&self, count: usize) -> (usize, usize) {
        let lanes = self.lanes();
        let groups = if count > 4 * lanes { GROUPS } else { 1 };
        (groups * lanes, groups)
    }

    /// Runs shards through the network, and where `back` through it back; returns their number.
    fn each_shard<'a>(
        &mut self,
        batches: impl Iterator<Item = Batch<'a>>,
        parameters: &ParameterVector,
        groups: usize,
        back: bool,
    ) -> usize {
        let batches: Vec<_> = batches.collect();
        while self.shards.len() < batches.len() {
            self.shards.push(Shard::new(self.classes));
        }
        let (form, isa, lanes, timed) =
            (self.form, self.isa, self.lanes(), back && self.profile.is_some());
        let work = |(shard, batch): (&mut Shard, &Batch)| {
            let mut clock = Clock::start(timed);
            let mut run = |phase, group| {
                let batch = *batch;
                isa.run(PhaseWork { form, parameters, shard, phase, group, groups, batch });
                clock.lap(phase);
            };
            let filled = batch.count.div_ceil(lanes);
            for group in 0..filled {
                for phase in [Phase::Gather, Phase::C1, Phase::C3] {
                    run(phase, group);
                }
            }
            for phase in [Phase::C5, Phase::F6, Phase::Output] {
                run(phase, 0);
            }
            if back {
                use Phase::*;
                for phase in [Loss, OutputBack, F6Back, C5Back, Rows] {
                    run(phase, 0);
                }
                // The last group first: it is still in cache.
                for group in (0..filled).rev() {
                    for phase in [S4Back, C3Weights, C3Back, S2Back, C1Weights] {
                        run(phase, group);
                    }
                }
            }
            clock.profile
        };
        let used = batches.len();
        let shards = &mut self.shards[..used];
        if back {
            for shard in &mut *shards {
                shard.clear();
            }
        }
        let profiles = match &self.pool {
            None => shards.iter_mut().zip(&batches).map(work).collect::<Vec<_>>(),
            Some(pool) => pool.install(|| {
                shards.par_iter_mut().zip(&batches).with_max_len(1).map(work).collect()
            }),
        };
        for profile in &profiles {
            if let Some(sum) = &mut self.profile {
                sum.add(profile);
            }
        }
        used
    }

    /// Adds up the gradients of the first `used` shards.
    fn collect(&mut self, used: usize, gradient: &mut ParameterVector) {
        let shards = &self.shards[..used];
        let (isa, classes, lanes) = (self.isa, self.classes, self.lanes());
        let timed = self.profile.is_some();
        let work = |part: GradientPart| {
            let start = timed.then(Instant::now);
            isa.run(AddUp { shards, classes, lanes, part });
            start.map_or(0.0, |start| start.elapsed().as_secs_f64())
        };
        let parts = parts(&mut gradient.0, classes);
        let seconds: f64 = match &self.pool {
            None => parts.into_iter().map(work).sum(),
            Some(pool) => pool.install(|| parts.into_par_iter().with_max_len(1).map(work).sum()),
        };
        if let Some(profile) = &mut self.profile {
            profile.seconds[Phase::LinearWeights as usize] += seconds;
        }
    }
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

/// A part of the gradient, which one thread adds up.
struct GradientPart<'a> {
    of: PartSource,
    to: &'a mut [f32],
}

/// What a part of the gradient is the sum of.
enum PartSource {
    /// The lanes of one of [`Shard::sums`].
    Lanes(usize),
    /// Inputs times derivatives of a linear layer, from this output on.
    Products(usize, usize),
    /// Derivatives of a linear layer.
    Derivatives(usize),
}

fn parts(gradient: &mut [f32], classes: usize) -> Vec<GradientPart<'_>> {
    let mut parts = Vec::new();
    let mut rest = gradient;
    let mut take = |of, length: usize| {
        let (to, after) = std::mem::take(&mut rest).split_at_mut(length);
        rest = after;
        parts.push(GradientPart { of, to });
    };
    for (i, LayerRange { outputs, inputs, .. }) in [C1, C3].into_iter().enumerate() {
        take(PartSource::Lanes(2 * i), outputs * inputs);
        take(PartSource::Lanes(2 * i + 1), outputs);
    }
    for (i, layer) in [C5, F6, output(classes)].into_iter().enumerate() {
        // In C5 24 outputs at a time.
        let rows = if i == 0 { 24 } else { layer.outputs };
        for first in (0..layer.outputs).step_by(rows) {
            take(PartSource::Products(i, first), rows * layer.inputs);
        }
        take(PartSource::Derivatives(i), layer.outputs);
    }
    parts
}

struct AddUp<'a> {
    shards: &'a [Shard],
    classes: usize,
    lanes: usize,
    part: GradientPart<'a>,
}

impl WithSimd for AddUp<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let AddUp { shards, classes, lanes, part: GradientPart { of, to } } = self;
        let outputs = derivative_rows(classes);
        match of {
            PartSource::Lanes(i) => {
                for (at, to) in to.iter_mut().enumerate() {
                    let mut sum = s.splat(0.0);
                    for shard in shards {
                        sum = s.add(sum, s.load(shard.sums()[i], at * lanes));
                    }
                    *to += s.sum(sum);
                }
            }
            PartSource::Products(i, first) => {
                let mut rows = Vec::with_capacity(SHARDS);
                for shard in shards {
                    rows.push(shard.rows(i));
                }
                let outputs = outputs[i];
                match (i, S::LANES) {
                    (0, 16) => linear::weights::<S, 400, 400, 4, 5>(s, &rows, outputs, first, to),
                    (1, 16) => linear::weights::<S, 120, 128, 4, 4>(s, &rows, outputs, first, to),
                    (_, 16) => linear::weights::<S, 84, 96, 4, 3>(s, &rows, outputs, first, to),
                    (0, _) => linear::weights::<S, 400, 400, 2, 5>(s, &rows, outputs, first, to),
                    (1, _) => linear::weights::<S, 120, 128, 2, 5>(s, &rows, outputs, first, to),
                    _ => linear::weights::<S, 84, 96, 2, 4>(s, &rows, outputs, first, to),
                }
            }
            PartSource::Derivatives(i) => {
                for shard in shards {
                    let rows = shard.rows(i);
                    for d in rows.derivatives.chunks_exact(outputs[i]).take(rows.samples) {
                        for (to, d) in to.iter_mut().zip(d) {
                            *to += d;
                        }
                    }
                }
            }
        }
    }
}
