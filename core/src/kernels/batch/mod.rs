//! Hand-written kernels that train the modern network in batches. Each SIMD lane holds one sample; the samples in the lanes
//! of one vector are a group. All layers are computed for one group before the next, so that the values of one layer are
//! still in cache for the next layer.
//!
//! A batch is divided into shards of one or two groups, which the threads share. The division, and the order in which the
//! gradients of the shards are added, depend only on the batch and the instruction set: the number of threads changes no
//! bit of the result.

mod convolution;
mod images;
mod linear;
mod parameters;
mod pointwise;
mod profile;
mod shard;
mod single;
mod tiles;
mod update;
mod winograd;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::simd::{Isa, Simd, WIDEST, WithSimd};
use crate::model::{Activation, HiddenActivation, LayerOrder, ModelConfig, Network, Pooling};
pub use images::{BatchImages, GreyImages};
use parameters::{C1, C3, C5, F6, output};
pub use parameters::{MAX_CLASSES, ParameterVector};
use profile::Clock;
pub use profile::{Phase, Profile};
use shard::{GROUPS, PhaseTask, Shard, ShardSamples, Workspace, gradient_rows};
pub use single::SingleKernels;
use tiles::*;
use update::UpdateTask;
pub use update::{BatchOptimizer, StepConstants, UpdateRule};

/// Maximum number of shards that are computed before their gradients are added up.
const SHARDS: usize = 16;

/// The form of the modern network that the kernels compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchForm {
    /// The activation: tanh or relu.
    pub activation: Activation,
    /// The pooling in s2 and s4.
    pub pooling: Pooling,
    /// Whether the images are 28x28 without padding. The kernels then compute the network for 32x32, with the image in the
    /// upper left corner of its input. The weights of c5 that lead to the last row and column of s4 are 0.
    pub unpadded: bool,
}

impl BatchForm {
    /// The form of a network with these settings.
    ///
    /// # Errors
    /// The reason why the kernels cannot compute this network. It reads as the end of a sentence that begins with
    /// "--engine fused".
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

/// The forward and backward passes of the modern network, in batches.
pub struct BatchKernels {
    form: BatchForm,
    isa: Isa,
    classes: usize,
    shards: Vec<Shard>,
    /// One for each thread.
    workspaces: Vec<Mutex<Workspace>>,
    /// The kernels of C3 at Winograd's points.
    c3_kernels: Vec<f32>,
    /// The threads, unless there is only one.
    pool: Option<Arc<ThreadPool>>,
    profile: Option<Profile>,
    misclassified: u64,
}

impl BatchKernels {
    /// Kernels for a network with this number of classes, on one thread.
    pub fn new(form: BatchForm, classes: usize) -> BatchKernels {
        assert!((1..=MAX_CLASSES).contains(&classes));
        let isa = Isa::best();
        BatchKernels {
            form,
            isa,
            classes,
            shards: Vec::new(),
            workspaces: vec![Mutex::new(Workspace::new())],
            c3_kernels: vec![0.0; winograd::KERNEL_POINTS],
            pool: None,
            profile: None,
            misclassified: 0,
        }
    }

    /// Makes the kernels use another instruction set.
    pub fn with_isa(mut self, isa: Isa) -> BatchKernels {
        self.isa = isa;
        self
    }

    /// The instruction set that the kernels use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Makes the kernels use this number of threads.
    ///
    /// # Panics
    /// If the system cannot start the threads.
    pub fn with_threads(mut self, threads: usize) -> BatchKernels {
        let pool = || ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        self.pool = (threads > 1).then(|| Arc::new(pool()));
        self.workspaces.resize_with(threads.max(1), || Mutex::new(Workspace::new()));
        self
    }

    /// Measures the time of each phase from now on.
    pub fn measure(&mut self) {
        self.profile = Some(Profile::ZERO);
    }

    /// The times that were measured, after [`BatchKernels::measure`].
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Calls `work` on a thread of the pool, so that not every batch in it has to enter and leave the pool.
    pub fn within<R: Send>(&mut self, work: impl FnOnce(&mut BatchKernels) -> R + Send) -> R {
        match self.pool.clone() {
            None => work(self),
            Some(pool) => pool.install(|| work(self)),
        }
    }

    /// Computes the mean loss of a batch, and writes its gradient with respect to the parameters to `gradient`.
    pub fn gradient(
        &mut self,
        parameters: &ParameterVector,
        images: BatchImages,
        labels: &[u8],
        gradient: &mut ParameterVector,
    ) -> f64 {
        gradient.0.fill(0.0);
        let (batch_size, mut loss) = (labels.len(), 0.0);
        self.misclassified = 0;
        let (size, groups) = self.shard_size(batch_size);
        for first in (0..batch_size).step_by(SHARDS * size) {
            let end = (first + SHARDS * size).min(batch_size);
            let firsts = (first..end).step_by(size);
            let samples = |first: usize| {
                let count = (end - first).min(size);
                ShardSamples { images, labels, first, count, batch_size }
            };
            let used = self.run_shards(firsts.map(samples), parameters, groups, true);
            for shard in &self.shards[..used] {
                loss += shard.loss;
                self.misclassified += shard.misclassified;
            }
            self.add_gradients(used, gradient);
        }
        if self.form.unpadded {
            let weight = &mut gradient.0[C5.weight..C5.bias];
            for (i, gradient) in weight.iter_mut().enumerate() {
                if i % 5 == 4 || i % 25 >= 20 {
                    *gradient = 0.0;
                }
            }
        }
        if let Some(profile) = &mut self.profile {
            profile.samples += batch_size;
        }
        loss / batch_size as f64
    }

    /// The number of samples that were misclassified in the last batch of [`BatchKernels::gradient`].
    pub fn misclassified(&self) -> u64 {
        self.misclassified
    }

    /// Repeats a phase for the first group of a batch of whole shards, whose gradient was computed just before. It is for
    /// benchmarks: the gradients in the buffers are not valid afterwards.
    pub fn repeat(
        &mut self,
        phase: Phase,
        parameters: &ParameterVector,
        images: BatchImages,
        labels: &[u8],
    ) {
        let BatchKernels { form, isa, .. } = *self;
        let count = GROUPS * self.lanes();
        let samples = ShardSamples { images, labels, first: 0, count, batch_size: labels.len() };
        let (shard, group, groups) = (&mut self.shards[0], 0, GROUPS);
        let workspace = self.workspaces[0].get_mut().unwrap_or_else(PoisonError::into_inner);
        let c3_kernels = &self.c3_kernels;
        isa.run(PhaseTask {
            form,
            parameters,
            c3_kernels,
            workspace,
            shard,
            phase,
            group,
            groups,
            samples,
        });
    }

    /// The number of samples in a group.
    pub fn lanes(&self) -> usize {
        self.isa.run(LaneCount)
    }

    /// The logits of `count` images: a value for each class, image after image.
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
            let samples = |first: usize| {
                let count = (end - first).min(size);
                ShardSamples { images, labels: &[], first, count, batch_size: count }
            };
            let used = self.run_shards(firsts.map(samples), parameters, groups, false);
            let stride = groups * self.lanes();
            for (shard, first) in self.shards[..used].iter().zip((first..end).step_by(size)) {
                for sample in 0..(end - first).min(size) {
                    logits.extend(shard.logits(sample, stride).take(self.classes));
                }
            }
        }
        logits
    }

    /// Updates the parameters with one step of the optimizer.
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
            .map(|((parameters, gradient), (first, second))| UpdateTask {
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

    /// The number of samples and the number of groups in a shard, for a batch of `count` samples. A shard has two groups if
    /// the batch has more than four.
    fn shard_size(&self, count: usize) -> (usize, usize) {
        let lanes = self.lanes();
        let groups = if count > 4 * lanes { GROUPS } else { 1 };
        (groups * lanes, groups)
    }

    /// Runs the forward pass of shards, and the backward pass if `backward`. Returns the number of shards.
    fn run_shards<'a>(
        &mut self,
        samples: impl Iterator<Item = ShardSamples<'a>>,
        parameters: &ParameterVector,
        groups: usize,
        backward: bool,
    ) -> usize {
        let samples: Vec<_> = samples.collect();
        while self.shards.len() < samples.len() {
            self.shards.push(Shard::new(self.classes));
        }
        let (form, isa, lanes, timed) =
            (self.form, self.isa, self.lanes(), backward && self.profile.is_some());
        winograd::transform_kernels(parameters.weight(C3), &mut self.c3_kernels);
        let (c3_kernels, workspaces) = (&self.c3_kernels, &self.workspaces);
        let pooled = self.pool.is_some();
        let work = |(shard, samples): (&mut Shard, &ShardSamples)| {
            let thread = if pooled { rayon::current_thread_index().unwrap_or(0) } else { 0 };
            let workspace = &mut *workspaces[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let mut clock = Clock::start(timed);
            let mut run = |phase, group| {
                let samples = *samples;
                isa.run(PhaseTask {
                    form,
                    parameters,
                    c3_kernels,
                    workspace,
                    shard,
                    phase,
                    group,
                    groups,
                    samples,
                });
                clock.lap(phase);
            };
            let filled = samples.count.div_ceil(lanes);
            for group in 0..filled {
                for phase in [Phase::Gather, Phase::C1, Phase::C3] {
                    run(phase, group);
                }
            }
            for phase in [Phase::C5, Phase::F6, Phase::Output] {
                run(phase, 0);
            }
            if backward {
                use Phase::*;
                for phase in [Loss, OutputBack, F6Back, C5Back, Rows] {
                    run(phase, 0);
                }
                // The last group comes first, since it is still in cache.
                for group in (0..filled).rev() {
                    for phase in [S4Back, C3Weights, C3Back, S2Back, C1Weights] {
                        run(phase, group);
                    }
                }
            }
            clock.profile
        };
        let used = samples.len();
        let shards = &mut self.shards[..used];
        if backward {
            for shard in &mut *shards {
                shard.clear();
            }
        }
        let profiles = match &self.pool {
            None => shards.iter_mut().zip(&samples).map(work).collect::<Vec<_>>(),
            Some(pool) => pool.install(|| {
                shards.par_iter_mut().zip(&samples).with_max_len(1).map(work).collect()
            }),
        };
        for profile in &profiles {
            if let Some(sum) = &mut self.profile {
                sum.add(profile);
            }
        }
        used
    }

    /// Adds the gradients of the first `used` shards to `gradient`.
    fn add_gradients(&mut self, used: usize, gradient: &mut ParameterVector) {
        let shards = &self.shards[..used];
        let (isa, classes) = (self.isa, self.classes);
        let timed = self.profile.is_some();
        let work = |slice: GradientSlice| {
            let start = timed.then(Instant::now);
            isa.run(AddGradients { shards, classes, slice });
            start.map_or(0.0, |start| start.elapsed().as_secs_f64())
        };
        let slices = gradient_slices(&mut gradient.0, classes);
        let seconds: f64 = match &self.pool {
            None => slices.into_iter().map(work).sum(),
            Some(pool) => pool.install(|| slices.into_par_iter().with_max_len(1).map(work).sum()),
        };
        if let Some(profile) = &mut self.profile {
            profile.seconds[Phase::LinearWeights as usize] += seconds;
        }
    }
}

/// Returns the number of lanes.
struct LaneCount;

impl WithSimd for LaneCount {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

/// A slice of the gradient, which one thread computes.
struct GradientSlice<'a> {
    source: SliceSource,
    target: &'a mut [f32],
}

/// The numbers in the shards whose sum is a slice of the gradient. A linear layer is given by its index: 0 is c5, 1 is f6, 2
/// is output.
#[derive(Clone, Copy)]
enum SliceSource {
    /// The lanes of one of [`Shard::sums`], given by its index.
    Sums(usize),
    /// The lanes of the sums for C3's kernels, which are at Winograd's points.
    C3Kernels,
    /// The weights of a linear layer, from output `first` on: products of its inputs and the gradients of its sums.
    Weights { layer: usize, first: usize },
    /// The biases of a linear layer: the gradients of its sums.
    Biases { layer: usize },
}

/// Divides the gradient into slices for the threads.
fn gradient_slices(gradient: &mut [f32], classes: usize) -> Vec<GradientSlice<'_>> {
    let mut slices = Vec::new();
    let mut rest = gradient;
    let mut take = |source, length: usize| {
        let (target, after) = std::mem::take(&mut rest).split_at_mut(length);
        rest = after;
        slices.push(GradientSlice { source, target });
    };
    take(SliceSource::Sums(0), C1.outputs * C1.inputs);
    take(SliceSource::Sums(1), C1.outputs);
    take(SliceSource::C3Kernels, C3.outputs * C3.inputs);
    take(SliceSource::Sums(3), C3.outputs);
    for (layer, range) in [C5, F6, output(classes)].into_iter().enumerate() {
        // C5 has most of the weights, so its slices have 24 outputs.
        let outputs = if layer == 0 { 24 } else { range.outputs };
        for first in (0..range.outputs).step_by(outputs) {
            take(SliceSource::Weights { layer, first }, outputs * range.inputs);
        }
        take(SliceSource::Biases { layer }, range.outputs);
    }
    slices
}

/// Computes the gradient with respect to the weights of a linear layer, in tiles for the instruction set.
macro_rules! weight_gradient {
    ($s:ident, $shape:ident, $($argument:expr),*) => {
        if $s::WIDE {
            const TILE: WeightGradientTile = $shape.tile_16;
            linear::weight_gradient::<
                $s, { $shape.inputs }, { $shape.row }, { TILE.outputs }, { TILE.vectors }
            >($($argument),*)
        } else {
            const TILE: WeightGradientTile = $shape.tile_8;
            linear::weight_gradient::<
                $s, { $shape.inputs }, { $shape.row }, { TILE.outputs }, { TILE.vectors }
            >($($argument),*)
        }
    };
}

/// Adds the gradients of all shards to a slice of the gradient.
struct AddGradients<'a> {
    shards: &'a [Shard],
    classes: usize,
    slice: GradientSlice<'a>,
}

impl WithSimd for AddGradients<'_> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let AddGradients { shards, classes, slice: GradientSlice { source, target } } = self;
        let row_lengths = gradient_rows(classes);
        match source {
            SliceSource::C3Kernels => {
                let mut points = [0.0; winograd::KERNEL_POINTS];
                add_sums(s, shards, 2, &mut points);
                winograd::transform_kernel_gradient(&points, target);
            }
            SliceSource::Sums(i) => add_sums(s, shards, i, target),
            SliceSource::Weights { layer, first } => {
                let mut rows = Vec::with_capacity(SHARDS);
                for shard in shards {
                    rows.push(shard.rows(layer));
                }
                let (rows, outputs) = (&rows, row_lengths[layer]);
                match layer {
                    0 => weight_gradient!(S, C5_SHAPE, s, rows, outputs, first, target),
                    1 => weight_gradient!(S, F6_SHAPE, s, rows, outputs, first, target),
                    _ => weight_gradient!(S, OUTPUT_SHAPE, s, rows, outputs, first, target),
                }
            }
            SliceSource::Biases { layer } => {
                for shard in shards {
                    let rows = shard.rows(layer);
                    for d in rows.gradients.chunks_exact(row_lengths[layer]).take(rows.samples) {
                        for (to, d) in target.iter_mut().zip(d) {
                            *to += d;
                        }
                    }
                }
            }
        }
    }
}

/// Adds the lanes of one of [`Shard::sums`] of all shards to `target`.
#[inline(always)]
fn add_sums<S: Simd>(s: S, shards: &[Shard], index: usize, target: &mut [f32]) {
    for (at, to) in target.iter_mut().enumerate() {
        let mut sum = s.splat(0.0);
        for shard in shards {
            sum = s.add(sum, s.load(shard.sums()[index], at * S::LANES));
        }
        *to += s.sum(sum);
    }
}
