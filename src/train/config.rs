//! The settings of a training run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

use crate::data::Distortions;
use crate::engine::{self, warp::Warp};
use crate::libtorch::{self, DeviceChoice, cuda};
use crate::model::{Activation, LeNet5, Loss, ModelConfig, Network, Pooling};
use crate::optim::{OptimizerConfig, Schedule};
use crate::{Error, Result};

/// All settings of a training run; saved as `config.json` in the run's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The network.
    pub model: ModelConfig,
    /// What training makes small.
    #[serde(default)]
    pub loss: Loss,
    /// Distortions of the training images, other ones in each epoch.
    #[serde(default)]
    pub distortions: Option<Distortions>,
    /// Folder of IDX files; none means the embedded MNIST.
    pub data: Option<PathBuf>,
    /// Use the first so many training images only.
    pub limit: Option<i64>,
    /// Hold the last so many training images out, and measure on them instead of on the test images.
    #[serde(default)]
    pub validation: Option<i64>,
    /// Count the training images that are misread as they come up.
    #[serde(default)]
    pub train_error: bool,
    /// Passes over the training images; 0 writes the initial weights and ends.
    pub epochs: u32,
    /// Images per step; the last batch of an epoch may be smaller.
    pub batch_size: i64,
    /// The order of the images.
    #[serde(default)]
    pub order: Order,
    /// What computes the steps.
    #[serde(default)]
    pub engine: Engine,
    /// Optimizer and its settings.
    pub optimizer: OptimizerConfig,
    /// Learning rate; the largest one of a one-cycle schedule.
    pub learning_rate: f64,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// Seed of the initial weights and of the order of the images.
    pub seed: i64,
    /// Device.
    pub device: DeviceChoice,
    /// What convolutions and matrix products compute in.
    #[serde(default)]
    pub precision: Precision,
    /// Only kernels that give the same bits each time.
    #[serde(default)]
    pub deterministic: bool,
    /// CPU threads; none means libtorch's choice. With libtorch's engine other numbers give other last bits.
    pub threads: Option<i32>,
    /// Start from the weights of this file.
    pub init: Option<PathBuf>,
    /// The run that these settings belong to: a random name, drawn when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            model: ModelConfig::default(),
            loss: Loss::default(),
            distortions: None,
            data: None,
            limit: None,
            validation: None,
            train_error: false,
            epochs: 10,
            batch_size: 64,
            order: Order::default(),
            engine: Engine::default(),
            optimizer: OptimizerConfig::Sgd {
                momentum: 0.9,
                dampening: 0.0,
                weight_decay: 0.0,
                nesterov: false,
            },
            learning_rate: 0.05,
            schedule: Schedule::Cosine,
            seed: 1,
            device: DeviceChoice::Auto,
            precision: Precision::default(),
            deterministic: false,
            threads: None,
            init: None,
            run: None,
        }
    }
}

impl TrainConfig {
    /// How such a network is usually trained.
    pub fn usual(model: ModelConfig) -> Self {
        let known = match model.network {
            Network::Modern => Self::default(),
            Network::Original => Self::paper(),
        };
        Self { model, ..known }
    }

    /// The training of the 1998 paper: its network, one pattern at a time, 20 passes.
    pub fn paper() -> Self {
        Self {
            model: ModelConfig::original(),
            loss: Loss::Discriminative { j: 1.0 },
            epochs: 20,
            batch_size: 1,
            order: Order::Constant,
            optimizer: OptimizerConfig::Sdlm { mu: 0.02, samples: 500 },
            learning_rate: 5e-4,
            schedule: Schedule::Paper,
            ..Self::default()
        }
    }

    /// What reads best with the modern network's 61,706 parameters.
    pub fn best() -> Self {
        Self {
            model: ModelConfig {
                activation: Activation::Relu,
                pooling: Pooling::Max,
                ..ModelConfig::default()
            },
            distortions: Some(Distortions::best()),
            epochs: 120,
            optimizer: OptimizerConfig::Sgd {
                momentum: 0.9,
                dampening: 0.0,
                weight_decay: 5e-4,
                nesterov: true,
            },
            ..Self::default()
        }
    }

    /// Checks all ranges.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    pub fn validate(&self) -> Result<()> {
        let positive = |name: &str, ok: bool, found: &dyn std::fmt::Display| match ok {
            true => Ok(()),
            false => {
                Err(Error::Config(format!("{name}: expected a number above 0, found {found}")))
            }
        };
        positive("batch-size", self.batch_size > 0, &self.batch_size)?;
        positive("limit", self.limit.is_none_or(|limit| limit > 0), &self.limit.unwrap_or(1))?;
        let validation = self.validation.unwrap_or(1);
        positive("validation", validation > 0, &validation)?;
        positive("threads", self.threads.is_none_or(|n| n > 0), &self.threads.unwrap_or(1))?;
        let rate = self.learning_rate;
        positive("lr", rate.is_finite() && rate > 0.0, &rate)?;
        self.model.validate()?;
        self.loss.validate()?;
        if let Some(distortions) = &self.distortions {
            distortions.validate()?;
        }
        self.optimizer.validate()?;
        self.schedule.validate()?;
        if matches!(self.optimizer, OptimizerConfig::Sdlm { .. }) {
            // The second derivatives are those of the hand-written engine.
            self.original()
                .map_err(|reason| Error::Config(format!("--optimizer sdlm {reason}")))?;
        }
        Ok(())
    }

    /// What computes the steps on this device: `Auto` resolved.
    ///
    /// # Errors
    /// Where an engine or a precision is asked for, and cannot be had.
    pub fn engine_on(&self, device: Device) -> Result<Engine> {
        if self.precision == Precision::Tf32 && !device.is_cuda() {
            return Err(Error::Config("--precision tf32 runs on an NVIDIA GPU only".to_owned()));
        }
        let refused =
            |name: &str, reason: &str| Err(Error::Config(format!("--engine {name} {reason}")));
        match (self.engine, self.fused(device), self.graph(device)) {
            (Engine::Libtorch, ..) | (Engine::Auto, Err(_), _) => Ok(Engine::Libtorch),
            // On a GPU it has to be asked for, as it has not been run on one yet.
            (Engine::Auto, ..) if device.is_cuda() => Ok(Engine::Libtorch),
            (Engine::Fused | Engine::Auto, Ok(()), _) => Ok(Engine::Fused),
            (Engine::Fused, Err(reason), _) => refused("fused", reason),
            (Engine::Graph, _, Ok(())) => Ok(Engine::Graph),
            (Engine::Graph, _, Err(reason)) => refused("graph", reason),
        }
    }

    /// The logits of images, in this precision.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub(crate) fn forward(&self, model: &LeNet5, images: &Tensor) -> Result<Tensor> {
        match self.precision {
            Precision::Fp32 | Precision::Tf32 => Ok(model.forward(images)),
            Precision::Bf16 => {
                let logits = libtorch::in_bfloat16(images.device(), || model.forward(images))?;
                Ok(logits.f_to_kind(Kind::Float)?)
            }
        }
    }

    /// Where images are distorted, of `side` x `side` pixels: how the one at a place is.
    pub(crate) fn warp(
        &self,
        side: i64,
        epoch: u32,
    ) -> Option<impl Fn(i64) -> Warp + Sync + use<'_>> {
        let (distortions, seed) = (self.distortions.as_ref()?, self.seed);
        Some(move |place| distortions.warp(side, seed, epoch, place))
    }

    /// Whether a hand-written engine computes such steps on this device.
    fn fused(&self, device: Device) -> Result<(), &'static str> {
        match self.model.network {
            _ if !matches!(device, Device::Cpu | Device::Cuda(_)) => {
                Err("runs on the CPU and on NVIDIA GPUs only")
            }
            _ if self.precision != Precision::Fp32 => Err("goes with --precision fp32 only"),
            Network::Modern => self.modern(),
            Network::Original if device != Device::Cpu => {
                Err("runs on the CPU only with --model original")
            }
            Network::Original if self.plain() => self.original(),
            Network::Original => {
                Err("goes with --optimizer sdlm, or sgd without momentum and decay")
            }
        }
    }

    /// Whether such steps can be recorded on this device.
    fn graph(&self, device: Device) -> Result<(), &'static str> {
        match () {
            () if !device.is_cuda() => Err("runs on an NVIDIA GPU only"),
            () if self.model.network != Network::Modern => Err("goes with --model modern only"),
            () if !cuda::has_graphs() => Err(
                "is missing in this program, as it was built without CUDA's headers; see \"GPU\" in the README",
            ),
            () => Ok(()),
        }
    }

    /// Whether an update is a rate times the gradient.
    fn plain(&self) -> bool {
        match self.optimizer {
            OptimizerConfig::Sdlm { .. } => true,
            OptimizerConfig::Sgd { momentum, weight_decay, .. } => {
                momentum == 0.0 && weight_decay == 0.0
            }
            _ => false,
        }
    }

    /// Whether the hand-written engine trains this form of the modern network.
    fn modern(&self) -> Result<(), &'static str> {
        engine::knows(&self.model)?;
        match () {
            () if self.loss != Loss::CrossEntropy => Err("goes with --loss cross-entropy only"),
            () => Ok(()),
        }
    }

    /// Whether the hand-written engine knows the network: the original one, its codes fixed.
    fn original(&self) -> Result<(), &'static str> {
        match () {
            () if self.model.network != Network::Original => Err("goes with --model original only"),
            () if self.model.train_rbf => Err("leaves the codes as they are: not with --train-rbf"),
            () => Ok(()),
        }
    }
}

/// The order of the images in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Another random one in each epoch.
    #[default]
    Shuffled,
    /// The same random one in all epochs, as in the paper of 1998.
    Constant,
}

/// What computes the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The hand-written one where it knows network, optimizer and device; else libtorch.
    #[default]
    Auto,
    /// Autograd on libtorch's kernels: the bits of PyTorch.
    Libtorch,
    /// The hand-written one: of the modern network with tanh or relu, on the CPU or an NVIDIA GPU; of the original
    /// one with sdlm or plain sgd, on the CPU.
    Fused,
    /// Autograd on libtorch's kernels, some steps recorded as a CUDA graph and replayed.
    Graph,
}

/// What convolutions and matrix products compute in; parameters and optimizer stay in float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    #[default]
    Fp32,
    /// TensorFloat-32, 10 bits of mantissa: on NVIDIA GPUs.
    Tf32,
    /// bfloat16, 7 bits of mantissa, as in torch.autocast.
    Bf16,
}
