//! Training engines, behind the trait [`Engine`].
//!
//! | engine | network | device | kernels |
//! |---|---|---|---|
//! | [`LibtorchEngine`] | both | all | libtorch's, with autograd: the reference |
//! | [`FusedEngine`] | modern | CPU | the core's SIMD kernels, a batch at a time |
//! | [`SdlmEngine`] | original | CPU | the core's SIMD kernels, one pattern at a time |
//! | [`GraphEngine`] | modern | NVIDIA GPU | libtorch's, recorded as a CUDA graph and replayed |
//! | [`CudaEngine`] | modern | NVIDIA GPU | CUDA kernels of this project |
//!
//! An engine is opened with a [`State`], and returns one on request. In between it keeps parameters
//! and optimizer state in a form of its own.

pub mod cuda;
mod fused;
mod graph;
mod libtorch;
mod sdlm;

use std::ops::ControlFlow;
use std::sync::Arc;

use tch::{Device, Tensor};

pub use cuda::CudaEngine;
pub(crate) use fused::logits as fused_logits;
pub use fused::{FusedEngine, sgemm};
pub use graph::GraphEngine;
pub use lenet5_core::weights::OptimizerState;
pub use libtorch::LibtorchEngine;
pub(crate) use sdlm::logits as sdlm_logits;
pub use sdlm::{SdlmEngine, curvature};

use crate::data::Dataset;
use crate::distributed::{DataParallelEngine, Peers};
use crate::libtorch::cuda::has_graphs;
use crate::model::{LeNet5, ModelConfig, Network};
use crate::recipe::{EngineChoice, Loss, OptimizerConfig, Precision, TrainConfig};
use crate::weights::Weights;
use crate::{Array, Error, Result};
use cuda::Compiling;
use lenet5_core::kernels::batch::BatchForm;

/// The parameters and the optimizer's state between two steps.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// All tensors of [`ModelConfig::state`], in that order, float32.
    pub tensors: Vec<Array>,
    /// The optimizer's state.
    pub optimizer: OptimizerState,
}

/// The training images and the images for evaluation.
#[derive(Debug)]
pub struct Data {
    /// Training images.
    pub train: Dataset,
    /// Test or validation images.
    pub test: Dataset,
}

/// An epoch, or the rest of one, that is to be trained.
#[derive(Clone, Copy, Debug)]
pub struct Epoch<'a> {
    /// The number of the epoch, from 0. The distortions depend on it.
    pub number: u32,
    /// The indices of all images, in the order of training.
    pub order: &'a [i64],
    /// The learning rate of each step of the epoch.
    pub learning_rates: &'a [f64],
    /// The number of steps that are done already.
    pub done: u64,
}

impl<'a> Epoch<'a> {
    /// Returns the remaining steps: the number of each, from 0 in the epoch, and the indices of its
    /// images.
    fn steps(&self, batch_size: usize) -> impl Iterator<Item = (u64, &'a [i64])> + Send + use<'a> {
        (self.done..).zip(self.order_left(batch_size).chunks(batch_size))
    }

    /// Returns the indices of the images of the remaining steps.
    fn order_left(&self, batch_size: usize) -> &'a [i64] {
        self.order.get(self.done as usize * batch_size..).unwrap_or_default()
    }
}

/// Sums over the samples that were trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// The sum of the losses, each before its step.
    pub loss: f64,
    /// The number of samples that were misclassified before their step. The libtorch and graph
    /// engines count them only if the settings ask for it.
    pub misclassified: u64,
    /// The smallest and the largest learning rate of a parameter in the epoch's first step, with
    /// SDLM.
    pub parameter_rates: Option<(f32, f32)>,
}

/// A function that is called after each step with the number of steps of the epoch that are done.
pub type AfterStep<'a> = dyn FnMut(u64) -> ControlFlow<()> + Send + 'a;

/// Joins an engine with those of other processes that train the same network, each on its part of
/// every batch.
pub trait Reducer: Send + Sync {
    /// Returns the part of a batch that is for this process; it may be empty.
    fn part<'a>(&self, batch: &'a [i64]) -> &'a [i64];

    /// Returns the sums of tensors of one type over all processes, with the same bits for all.
    ///
    /// # Errors
    /// If another process is lost.
    fn sum(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>>;
}

/// Where a run trains.
#[derive(Clone)]
pub struct Place {
    /// The device.
    pub device: Device,
    /// The other processes that share the work; `None` if there are none.
    pub peers: Option<Arc<Peers>>,
}

impl Place {
    /// Returns whether this process writes the files of the run.
    pub fn writes(&self) -> bool {
        self.peers.as_ref().is_none_or(|peers| peers.is_first())
    }
}

impl From<Device> for Place {
    fn from(device: Device) -> Self {
        Self { device, peers: None }
    }
}

/// A training engine, with its data.
pub trait Engine {
    /// Trains until the end of the epoch, or until `after_step` breaks.
    ///
    /// # Errors
    /// If libtorch or CUDA reports an error.
    fn train(&mut self, epoch: &Epoch, after_step: &mut AfterStep) -> Result<Totals>;

    /// Computes the logits of the test images: (N, classes), row by row.
    ///
    /// # Errors
    /// If libtorch or CUDA reports an error.
    fn logits(&mut self) -> Result<Vec<f32>>;

    /// Returns a copy of the parameters and the optimizer state.
    ///
    /// # Errors
    /// If libtorch or CUDA reports an error.
    fn state(&self) -> Result<State>;

    /// Starts to measure how long each part of a step takes.
    ///
    /// # Errors
    /// If this engine cannot measure.
    fn measure(&mut self) -> Result<()> {
        Err(Error::config("--profile goes with the modern network on the fused engine only"))
    }

    /// Returns the times that were measured, as a table.
    ///
    /// # Errors
    /// If CUDA reports an error.
    fn profile(&self) -> Result<Option<String>> {
        Ok(None)
    }
}

/// The kinds of engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineKind {
    /// [`LibtorchEngine`].
    Libtorch,
    /// [`FusedEngine`].
    Fused,
    /// [`SdlmEngine`].
    Sdlm,
    /// [`GraphEngine`].
    Graph,
    /// [`CudaEngine`].
    Cuda,
}

/// Chooses the engine that trains with these settings on a device.
///
/// # Errors
/// If the settings name an engine or a precision that is incompatible with the other settings; the
/// message states the reason.
pub(crate) fn choose(recipe: &TrainConfig, place: &Place) -> Result<EngineKind> {
    let device = place.device;
    if recipe.precision == Precision::Tf32 && !device.is_cuda() {
        return Err(Error::config("--precision tf32 runs on an NVIDIA GPU only"));
    }
    let refuse = |name: &str, reason: &str| Err(Error::config(format!("--engine {name} {reason}")));
    match (recipe.engine, fused(recipe, device)) {
        (EngineChoice::Libtorch, _) | (EngineChoice::Auto, Err(_)) => Ok(EngineKind::Libtorch),
        // GPU kernels must be chosen explicitly, as they have not run on a GPU yet.
        (EngineChoice::Auto, Ok(_)) if device.is_cuda() => Ok(EngineKind::Libtorch),
        // It trains one pattern at a time, so ranks cannot share its batches.
        (EngineChoice::Auto, Ok(EngineKind::Sdlm)) if place.peers.is_some() => {
            Ok(EngineKind::Libtorch)
        }
        (EngineChoice::Fused | EngineChoice::Auto, Ok(kind)) => Ok(kind),
        (EngineChoice::Fused, Err(reason)) => refuse("fused", reason),
        (EngineChoice::Graph, _) => match graph(recipe, device) {
            Ok(kind) => Ok(kind),
            Err(reason) => refuse("graph", reason),
        },
    }
}

/// Chooses the engine with this project's kernels for these settings, or returns the reason why
/// there is none.
fn fused(recipe: &TrainConfig, device: Device) -> Result<EngineKind, &'static str> {
    match (recipe.model.network, device) {
        (_, Device::Mps | Device::Vulkan) => Err("runs on the CPU and on NVIDIA GPUs only"),
        _ if recipe.precision != Precision::Fp32 => Err("goes with --precision fp32 only"),
        (Network::Original, Device::Cuda(_)) => Err("runs on the CPU only with --model original"),
        (Network::Original, Device::Cpu) => match recipe.optimizer {
            _ if recipe.model.train_rbf => {
                Err("does not train the codes: it does not go with --train-rbf")
            }
            OptimizerConfig::Sdlm { .. } => Ok(EngineKind::Sdlm),
            OptimizerConfig::Sgd { momentum: 0.0, weight_decay: 0.0, .. } => Ok(EngineKind::Sdlm),
            _ => Err("goes with --optimizer sdlm, or sgd without momentum and decay"),
        },
        (Network::Modern, device) => {
            BatchForm::of(&recipe.model)?;
            match recipe.loss {
                Loss::CrossEntropy if device == Device::Cpu => Ok(EngineKind::Fused),
                Loss::CrossEntropy => Ok(EngineKind::Cuda),
                _ => Err("goes with --loss cross-entropy only"),
            }
        }
    }
}

/// Chooses the engine that replays recorded steps, or returns the reason why there is none.
fn graph(recipe: &TrainConfig, device: Device) -> Result<EngineKind, &'static str> {
    match recipe.model.network {
        _ if !device.is_cuda() => Err("runs on an NVIDIA GPU only"),
        Network::Original => Err("goes with --model modern only"),
        Network::Modern if !has_graphs() => Err(
            "is missing in this program, as it was built without CUDA's headers; see docs/src/gpu.md",
        ),
        Network::Modern => Ok(EngineKind::Graph),
    }
}

/// An engine that is being prepared. Kernels for a GPU are compiled while the data are read.
pub(crate) struct Preparation {
    kind: EngineKind,
    compiling: Option<Compiling>,
}

impl Preparation {
    /// Starts to compile the kernels of an engine that [`choose`] returned, if it has CUDA kernels.
    pub(crate) fn start(kind: EngineKind, recipe: &TrainConfig, device: Device) -> Self {
        let compiling = match (kind, device) {
            (EngineKind::Cuda, Device::Cuda(index)) => {
                Some(Compiling::start(index, &recipe.model, recipe.batch_size as usize))
            }
            _ => None,
        };
        Self { kind, compiling }
    }

    /// Opens the engine with a state and data.
    ///
    /// # Errors
    /// If the state does not fit the settings, or the device cannot be used.
    pub(crate) fn open(
        self,
        recipe: &TrainConfig,
        state: &State,
        data: &Data,
        place: &Place,
    ) -> Result<Box<dyn Engine>> {
        let Some(peers) = &place.peers else {
            return self.open_own(recipe, state, data, place.device, None);
        };
        if !matches!(self.kind, EngineKind::Libtorch | EngineKind::Fused) {
            return Err(Error::config(
                "several processes need --engine libtorch, or fused with the modern network on the \
                 CPU",
            ));
        }
        let reducer: Arc<dyn Reducer> = peers.clone();
        let device = place.device;
        let open = |data: &Data| self.open_own(recipe, state, data, device, Some(reducer));
        Ok(Box::new(DataParallelEngine::open(peers, recipe, state, data, device, open)?))
    }

    /// Opens the engine of this process.
    fn open_own(
        self,
        recipe: &TrainConfig,
        state: &State,
        data: &Data,
        device: Device,
        reducer: Option<Arc<dyn Reducer>>,
    ) -> Result<Box<dyn Engine>> {
        if device.is_cuda() {
            // libtorch has one flag for the whole process, which an earlier run may have set.
            crate::libtorch::allow_tf32(recipe.precision == Precision::Tf32)?;
        }
        Ok(match (self.kind, self.compiling) {
            (EngineKind::Libtorch, _) => {
                Box::new(LibtorchEngine::open(recipe, state, data, device)?.reduced_by(reducer))
            }
            (EngineKind::Fused, _) => {
                Box::new(FusedEngine::open(recipe, state, data)?.reduced_by(reducer))
            }
            (EngineKind::Sdlm, _) => Box::new(SdlmEngine::open(recipe, state, data)?),
            (EngineKind::Graph, _) => Box::new(GraphEngine::open(recipe, state, data, device)?),
            (EngineKind::Cuda, Some(compiling)) => {
                let launcher = Box::new(compiling.finish()?);
                Box::new(CudaEngine::open(recipe, state, data, device, launcher)?)
            }
            (EngineKind::Cuda, None) => unreachable!("start compiles the kernels"),
        })
    }
}

/// Returns the weights of a state.
///
/// # Errors
/// If the tensors do not fit the settings.
pub(crate) fn weights(config: &ModelConfig, state: &State) -> Result<Weights> {
    let names = config.state().into_iter().map(|(name, _)| name);
    Ok(Weights::new(config.clone(), names.zip(state.tensors.iter().cloned()).collect())?)
}

/// Creates a model with the tensors of a state.
fn model(config: &ModelConfig, state: &State, device: Device) -> Result<LeNet5> {
    LeNet5::from_weights(&weights(config, state)?, device)
}

/// Creates a state in which the trained tensors are replaced.
fn with_trained(
    config: &ModelConfig,
    tensors: &[Array],
    trained: Vec<Array>,
    optimizer: OptimizerState,
) -> State {
    let mut trained = trained.into_iter();
    let names = config.state().into_iter();
    let tensors = names.zip(tensors).map(|((name, _), old)| match config.is_fixed(&name) {
        true => old.clone(),
        false => trained.next().expect("a tensor for each parameter"),
    });
    State { tensors: tensors.collect(), optimizer }
}

/// Returns the images and labels at these indices, distorted if the settings say so.
fn batch(recipe: &TrainConfig, data: &Dataset, epoch: u32, indices: &[i64]) -> (Tensor, Tensor) {
    let tensor = Tensor::from_slice(indices);
    match &recipe.distortions {
        None => data.batch(&tensor, &recipe.model),
        Some(distortions) => {
            data.distorted(&tensor, &recipe.model, distortions, (recipe.seed, epoch))
        }
    }
}
