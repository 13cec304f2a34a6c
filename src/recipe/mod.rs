//! The settings of a training run.

mod schedule;

use std::path::PathBuf;

pub use lenet5_core::training::{Distortion, Distortions, Loss, OptimizerConfig};
pub use schedule::Schedule;
use serde::{Deserialize, Serialize};

use crate::data::Fit;
use crate::libtorch::DeviceChoice;
use crate::model::{Activation, ModelConfig, Network, Pooling};
use crate::{Error, Result};

/// All settings of a training run, saved as `config.json` in the run's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The network.
    pub model: ModelConfig,
    /// The loss function.
    #[serde(default)]
    pub loss: Loss,
    /// Distortions of the training images, drawn anew in each epoch.
    #[serde(default)]
    pub distortions: Option<Distortions>,
    /// The file or folder of the data set; `None` means the embedded MNIST.
    pub data: Option<PathBuf>,
    /// How images of other sizes become images of 28x28 pixels.
    #[serde(default)]
    pub fit: Fit,
    /// MNIST's share of the training images. Its 60,000 training images are mixed with copies of
    /// those of `data`. `None` mixes nothing in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mnist_share: Option<f64>,
    /// The number of training images to use, the first ones; `None` means all.
    pub limit: Option<i64>,
    /// The number of training images to hold out, the last ones. The network is evaluated on them
    /// instead of the test images.
    #[serde(default)]
    pub validation: Option<i64>,
    /// Whether to count the training images that were misclassified before their step.
    #[serde(default)]
    pub train_error: bool,
    /// The number of epochs; with 0 the run writes the initial weights and ends.
    pub epochs: u32,
    /// Images per step. The last batch of an epoch may be smaller.
    pub batch_size: i64,
    /// The order of the images.
    #[serde(default)]
    pub order: Order,
    /// The training engine.
    #[serde(default)]
    pub engine: EngineChoice,
    /// The optimizer and its settings.
    pub optimizer: OptimizerConfig,
    /// The learning rate; with the one-cycle schedule, the largest one.
    pub learning_rate: f64,
    /// The learning rate schedule.
    pub schedule: Schedule,
    /// Seed of the initial weights and of the order of the images.
    pub seed: i64,
    /// The device.
    pub device: DeviceChoice,
    /// The precision of convolutions and matrix products.
    #[serde(default)]
    pub precision: Precision,
    /// Whether to use only deterministic kernels, which give the same bits each time.
    #[serde(default)]
    pub deterministic: bool,
    /// The number of CPU threads; `None` means libtorch's default. With libtorch's engine another
    /// number may change the last bits.
    pub threads: Option<i32>,
    /// The file of weights to start from.
    pub init: Option<PathBuf>,
    /// Whether the run writes event files for TensorBoard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tensorboard: bool,
    /// The identifier of the run: random hexadecimal digits, drawn when it starts.
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
            fit: Fit::default(),
            mnist_share: None,
            limit: None,
            validation: None,
            train_error: false,
            epochs: 10,
            batch_size: 64,
            order: Order::default(),
            engine: EngineChoice::default(),
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
            tensorboard: false,
            run: None,
        }
    }
}

impl TrainConfig {
    /// Returns the default training of a network with these settings.
    pub fn usual(model: ModelConfig) -> Self {
        let known = match model.network {
            Network::Modern => Self::default(),
            Network::Original => Self::paper(),
        };
        Self { model, ..known }
    }

    /// Returns the training of the 1998 paper: its network, one pattern at a time, 20 epochs.
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

    /// Returns the training that gives the lowest error with the modern network's 61,706
    /// parameters.
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

    /// Returns the training that teaches a network with these settings a new hand, and keeps what
    /// it knows.
    pub fn adapt(model: ModelConfig) -> Self {
        Self { model, mnist_share: Some(0.8), epochs: 5, learning_rate: 0.002, ..Self::best() }
    }

    /// Checks that all settings are in their ranges.
    ///
    /// # Errors
    /// If a setting is out of its range; the message names the first one.
    pub fn validate(&self) -> Result<()> {
        let positive = |name: &str, ok: bool, found: &dyn std::fmt::Display| match ok {
            true => Ok(()),
            false => {
                Err(Error::config(format!("{name}: expected a number above 0, found {found}")))
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
        if let Some(share) = self.mnist_share {
            if !(0.01..=0.99).contains(&share) {
                return Err(Error::config(format!(
                    "mnist-share: expected a number from 0.01 to 0.99, found {share}"
                )));
            }
            if self.data.is_none() {
                return Err(Error::config("--mnist-share goes with --data only"));
            }
        }
        if matches!(self.optimizer, OptimizerConfig::Sdlm { .. }) {
            // The second derivatives are computed by the kernels of the original network.
            let refused = |reason: &str| Err(Error::config(format!("--optimizer sdlm {reason}")));
            if self.model.network != Network::Original {
                return refused("goes with --model original only");
            }
            if self.model.train_rbf {
                return refused("does not train the codes: it does not go with --train-rbf");
            }
        }
        Ok(())
    }

    /// Returns a function from the index of an image of `side` x `side` pixels to its distortion;
    /// `None` if images are not distorted.
    pub(crate) fn distortion(
        &self,
        side: usize,
        epoch: u32,
    ) -> Option<impl Fn(i64) -> Distortion + Sync + use<'_>> {
        let (distortions, seed) = (self.distortions.as_ref()?, self.seed);
        Some(move |index| distortions.draw(side, seed, epoch, index))
    }
}

/// The order of the images in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A new random order in each epoch.
    #[default]
    Shuffled,
    /// The same random order in all epochs, as in the paper of 1998.
    Constant,
}

/// The training engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The fastest engine that can train this network on this device.
    #[default]
    Auto,
    /// Autograd on libtorch's kernels, with the same bits as PyTorch.
    Libtorch,
    /// This project's own kernels: the modern network with tanh or relu on the CPU or an NVIDIA
    /// GPU, and the original network with sdlm or plain sgd on the CPU.
    Fused,
    /// Autograd on libtorch's kernels, with some steps recorded as a CUDA graph and replayed.
    Graph,
}

/// The precision of convolutions and matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

lenet5_core::choices!(Order {
    Shuffled = "shuffled": "A new random order in each epoch",
    Constant = "constant": "The same random order in all epochs, as in the paper of 1998",
});
lenet5_core::choices!(EngineChoice {
    Auto = "auto": "The fastest engine that can train this network on this device",
    Libtorch = "libtorch": "Autograd on libtorch's kernels, with the same bits as PyTorch",
    Fused = "fused": "This project's own kernels: for the modern network with tanh or relu on the CPU or an NVIDIA GPU, and for the original one with sdlm or plain sgd on the CPU",
    Graph = "graph": "Autograd on libtorch's kernels, with some steps recorded as a CUDA graph and replayed",
});
lenet5_core::choices!(Precision {
    Fp32 = "fp32": "float32",
    Tf32 = "tf32": "TensorFloat-32, 10 bits of mantissa: on NVIDIA GPUs",
    Bf16 = "bf16": "bfloat16, 7 bits of mantissa, as in torch.autocast",
});
