//! Trains on an NVIDIA GPU without synchronisation between GPU and host for several steps at a
//! time. The kernels that libtorch launches for these steps are recorded once, as a CUDA graph, and
//! replayed for every such piece of an epoch.
//!
//! All values that change from step to step are in tensors on the GPU: the indices of the images,
//! the learning rates, the number of the optimizer's step, the sum of the losses. A piece is run
//! directly the first time, which also initialises libtorch's kernels, recorded the second time,
//! and replayed from then on. The CPU cannot record, so every piece is run directly there; tests on
//! the CPU reach everything except the recording.

use std::rc::Rc;

use rayon::prelude::*;
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

use super::libtorch::forward;
use super::{AfterStep, Data, Engine, Epoch, OptimizerState, State, Totals, model};
use crate::data::{Dataset, DistortionBatch, to_input};
use crate::libtorch::cuda::{CudaGraph, Stream};
use crate::libtorch::{fused_adam_, fused_sgd_, to_array, to_arrays, to_tensors};
use crate::model::{LeNet5, loss};
use crate::recipe::{OptimizerConfig, TrainConfig};
use crate::{Error, Result};

/// The number of steps in a piece. Fewer steps are recorded sooner; more steps make fewer pauses.
/// The number is not yet tuned on a GPU.
const STEPS: usize = 8;
/// The number of images per forward pass in evaluation.
const EVALUATION_BATCH_SIZE: i64 = 10_000;

/// The engine that records libtorch's kernels on one GPU and replays them.
pub struct GraphEngine {
    recipe: TrainConfig,
    device: Device,
    model: LeNet5,
    optimizer: GraphOptimizer,
    train: Dataset,
    test: Dataset,
    pieces: Vec<Piece>,
    /// The sum of the losses, float64, and the number of images misclassified.
    sums: [Tensor; 2],
    /// The test images' logits: (N, classes).
    logits: Tensor,
    evaluation: Repeated,
    /// The stream for recording; `None` on the CPU.
    stream: Option<Rc<Stream>>,
}

/// Several steps of an epoch, which are recorded together.
struct Piece {
    /// The number of images of each step.
    sizes: Vec<i64>,
    /// These sizes as float64 on the device, to weight the mean losses.
    weights: Tensor,
    /// The indices of the images in the data: (sum of sizes), int64.
    indices: Tensor,
    /// The learning rates: (steps), float32.
    rates: Tensor,
    distortions: Option<DistortionBatch>,
    work: Repeated,
}

impl GraphEngine {
    /// Opens the engine.
    ///
    /// # Errors
    /// If CUDA graphs cannot be recorded, the state does not fit the settings, or libtorch reports
    /// an error.
    pub fn open(recipe: &TrainConfig, state: &State, data: &Data, device: Device) -> Result<Self> {
        let model = model(&recipe.model, state, device)?;
        let stream = match device {
            Device::Cuda(index) => Some(Rc::new(Stream::new(index)?)),
            _ => None,
        };
        let resized = |data: &Dataset| -> Result<Dataset> {
            Ok(data.resized(&recipe.model)?.to_device(device))
        };
        let (train, test) = (resized(&data.train)?, resized(&data.test)?);
        let shape = [test.len(), recipe.model.classes as i64];
        Ok(Self {
            optimizer: GraphOptimizer::new(recipe.optimizer, &model, &state.optimizer)?,
            recipe: recipe.clone(),
            device,
            model,
            train,
            pieces: Vec::new(),
            sums: [Kind::Double, Kind::Int64].map(|kind| Tensor::zeros([], (kind, device))),
            logits: Tensor::f_zeros(shape, (Kind::Float, device))?,
            test,
            evaluation: Repeated::default(),
            stream,
        })
    }
}

impl Engine for GraphEngine {
    /// Trains as [`Engine::train`] says, but calls `after_step` after each piece only.
    fn train(&mut self, epoch: &Epoch, after_step: &mut AfterStep) -> Result<Totals> {
        let batch_size = self.recipe.batch_size;
        let indices = epoch.order_left(batch_size as usize);
        let rates: Vec<f32> = epoch
            .learning_rates
            .iter()
            .skip(epoch.done as usize)
            .map(|rate| *rate as f32)
            .collect();
        self.on_stream(|engine| {
            let device = engine.device;
            let side = engine.train.distorted_side(&engine.recipe.model);
            let distortions = engine.recipe.distortion(side, epoch.number).map(|draw| {
                let drawn: Vec<_> = indices.par_iter().map(|index| draw(*index)).collect();
                DistortionBatch::new(&drawn, side as i64, device)
            });
            let indices = Tensor::f_from_slice(indices)?.to_device(device);
            let all_rates = Tensor::f_from_slice(&rates)?.to_device(device);
            for sum in &mut engine.sums {
                let _ = sum.f_zero_()?;
            }
            let (mut step, mut first) = (0, 0);
            while step < rates.len() {
                let sizes = sizes(indices.size()[0] - first, batch_size);
                let (steps, images) = (sizes.len(), sizes.iter().sum());
                let rates = all_rates.narrow(0, step as i64, steps as i64);
                let indices = indices.narrow(0, first, images);
                let distortions = distortions.as_ref().map(|all| all.narrow(first, images));
                engine.piece(sizes, &indices, &rates, distortions.as_ref())?;
                (step, first) = (step + steps, first + images);
                if after_step(epoch.done + step as u64).is_break() {
                    break;
                }
            }
            let [loss, misclassified] = &engine.sums;
            Ok(Totals {
                loss: loss.f_double_value(&[])?,
                misclassified: misclassified.f_int64_value(&[])? as u64,
                parameter_rates: None,
            })
        })
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        self.on_stream(|engine| {
            let Self { recipe, model, test, logits, evaluation, stream, .. } = engine;
            evaluation.run(stream.is_some(), &mut || {
                let _no_grad = tch::no_grad_guard();
                for first in (0..test.len()).step_by(EVALUATION_BATCH_SIZE as usize) {
                    let count = EVALUATION_BATCH_SIZE.min(test.len() - first);
                    let images = to_input(&test.images().narrow(0, first, count), &recipe.model);
                    logits.narrow(0, first, count).f_copy_(&model.forward(&images))?;
                }
                Ok(())
            })?;
            Ok(Vec::try_from(logits.to_device(Device::Cpu).flatten(0, -1))?)
        })
    }

    fn state(&self) -> Result<State> {
        let tensors = self.model.state().into_iter().map(|(_, tensor)| to_array(&tensor));
        Ok(State { tensors: tensors.collect::<Result<_>>()?, optimizer: self.optimizer.state()? })
    }
}

impl GraphEngine {
    /// Runs work on the stream, if there is one.
    fn on_stream<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        match self.stream.clone() {
            None => work(self),
            Some(stream) => stream.within(|| work(self)),
        }
    }

    /// Runs the steps of one piece.
    fn piece(
        &mut self,
        sizes: Vec<i64>,
        indices: &Tensor,
        rates: &Tensor,
        distortions: Option<&DistortionBatch>,
    ) -> Result<()> {
        let Self { recipe, device, model, optimizer, train, pieces, sums, stream, .. } = self;
        let at = pieces.iter().position(|piece| piece.sizes == sizes).unwrap_or(pieces.len());
        if at == pieces.len() {
            pieces.push(Piece {
                weights: Tensor::f_from_slice(&sizes)?.to_device(*device).to_kind(Kind::Double),
                sizes,
                indices: indices.copy(),
                rates: rates.copy(),
                distortions: distortions.map(DistortionBatch::copy),
                work: Repeated::default(),
            });
        }
        let Piece {
            sizes,
            weights,
            indices: piece_indices,
            rates: piece_rates,
            distortions: piece_distortions,
            work,
        } = &mut pieces[at];
        piece_indices.f_copy_(indices)?;
        piece_rates.f_copy_(rates)?;
        if let (Some(target), Some(distortions)) = (piece_distortions.as_mut(), distortions) {
            target.copy_(distortions)?;
        }
        let (indices, rates) = (&*piece_indices, &*piece_rates);
        work.run(stream.is_some(), &mut || {
            let (images, labels) = match piece_distortions {
                None => train.batch(indices, &recipe.model),
                Some(distortions) => train.distorted_by(indices, &recipe.model, distortions),
            };
            let (mut first, mut losses) = (0, Vec::new());
            for (step, &size) in (0..).zip(&*sizes) {
                let [images, labels] = [&images, &labels].map(|all| all.narrow(0, first, size));
                let logits = forward(recipe.precision, model, &images)?;
                let loss = loss(recipe.loss, &logits, &labels);
                let gradients =
                    Tensor::f_run_backward(&[&loss], &optimizer.parameters, false, false)?;
                optimizer.step(&gradients, &rates.narrow(0, step, 1))?;
                losses.push(loss.detach());
                if recipe.train_error {
                    let wrong = logits.argmax(1, false).not_equal_tensor(&labels);
                    let _ = sums[1].f_add_(&wrong.sum(Kind::Int64))?;
                }
                first += size;
            }
            // The losses are added up together, as every kernel that a step does not launch saves
            // time.
            let losses = Tensor::f_stack(&losses, 0)?.to_kind(Kind::Double);
            let _ = sums[0].f_add_(&(losses * &*weights).sum(Kind::Double))?;
            Ok(())
        })
    }
}

/// Returns the number of images of each step of the next piece, given that `left` images remain:
/// [`STEPS`] whole batches, or all that remain.
fn sizes(left: i64, batch: i64) -> Vec<i64> {
    let whole = (left / batch) as usize;
    if whole >= STEPS {
        return vec![batch; STEPS];
    }
    let mut sizes = vec![batch; whole];
    sizes.extend(Some(left % batch).filter(|rest| *rest > 0));
    sizes
}

/// Work that is repeated on the same tensors of the engine, which also owns this.
#[derive(Default)]
struct Repeated {
    done: bool,
    graph: Option<CudaGraph>,
}

impl Repeated {
    /// Runs the work directly at the first call, records it at the second call if `record` is true,
    /// and replays it from then on.
    #[allow(unsafe_code)]
    fn run(&mut self, record: bool, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if !(self.done && record) {
            self.done = true;
            return work();
        }
        let graph = match &mut self.graph {
            Some(graph) => graph,
            none => none.insert(CudaGraph::record(work)?),
        };
        // SAFETY: the work uses tensors of the engine and of its pieces, none of which is replaced
        // or dropped before the graph.
        unsafe { graph.replay() }
    }
}

/// An optimizer whose state, learning rate and step number are in tensors.
struct GraphOptimizer {
    settings: OptimizerConfig,
    parameters: Vec<Tensor>,
    /// The momentum buffer, or the first and the second moment, of each parameter.
    state: [Vec<Tensor>; 2],
    /// The number of Adam's steps: one float32.
    steps: Tensor,
    /// Whether no step has been done yet.
    fresh: bool,
}

impl GraphOptimizer {
    fn new(settings: OptimizerConfig, model: &LeNet5, state: &OptimizerState) -> Result<Self> {
        let parameters = model.parameter_tensors();
        let device = parameters[0].device();
        let zeros = || -> Vec<_> { parameters.iter().map(|p| p.detach().zeros_like()).collect() };
        let fill = |tensors: &mut Vec<Tensor>, arrays: &[crate::Array]| -> Result<()> {
            if arrays.len() != tensors.len() {
                return Err(Error::config("optimizer state: expected that of all parameters"));
            }
            for (tensor, saved) in tensors.iter_mut().zip(to_tensors(arrays)?) {
                tensor.f_copy_(&saved)?;
            }
            Ok(())
        };
        let mut buffers = [zeros(), zeros()];
        let mut steps = Tensor::zeros([], (Kind::Float, device));
        match state {
            OptimizerState::Sgd { momentum_buffer } => fill(&mut buffers[0], momentum_buffer)?,
            OptimizerState::Adam { step, exp_avg, exp_avg_sq } => {
                fill(&mut buffers[0], exp_avg)?;
                fill(&mut buffers[1], exp_avg_sq)?;
                let _ = steps.f_fill_(*step)?;
            }
            _ => {}
        }
        let fresh = *state == OptimizerState::Empty;
        Ok(Self { settings, parameters, state: buffers, steps, fresh })
    }

    fn step(&mut self, gradients: &[Tensor], rate: &Tensor) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let Self { parameters, state: [first, second], .. } = self;
        let decoupled = matches!(self.settings, OptimizerConfig::AdamW { .. });
        match self.settings {
            OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov } => {
                let buffers = if momentum == 0.0 { &[] } else { &first[..] };
                let settings = (momentum, dampening, weight_decay, nesterov);
                fused_sgd_(parameters, gradients, buffers, rate, settings, self.fresh)?;
            }
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay }
            | OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay } => {
                let _ = self.steps.f_add_scalar_(1.0)?;
                let settings = (beta1, beta2, eps, weight_decay);
                let state = [&first[..], &second[..]];
                fused_adam_(parameters, gradients, state, rate, &self.steps, settings, decoupled)?;
            }
            OptimizerConfig::Sdlm { .. } => unreachable!("choose refuses it"),
        }
        self.fresh = false;
        Ok(())
    }

    fn state(&self) -> Result<OptimizerState> {
        let [first, second] = &self.state;
        Ok(match self.settings {
            _ if self.fresh => OptimizerState::Empty,
            OptimizerConfig::Sgd { momentum: 0.0, .. } | OptimizerConfig::Sdlm { .. } => {
                OptimizerState::Empty
            }
            OptimizerConfig::Sgd { .. } => {
                OptimizerState::Sgd { momentum_buffer: to_arrays(first)? }
            }
            OptimizerConfig::Adam { .. } | OptimizerConfig::AdamW { .. } => OptimizerState::Adam {
                step: self.steps.f_double_value(&[])?,
                exp_avg: to_arrays(first)?,
                exp_avg_sq: to_arrays(second)?,
            },
        })
    }
}
