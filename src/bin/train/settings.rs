//! The options that are the settings of a run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lenet5::DeviceChoice;
use lenet5::data::Fit;
use lenet5::model::{C5, ModelConfig, ModelOptions, Network};
use lenet5::recipe::{
    Distortions, EngineChoice, Loss, OptimizerConfig, Order, Precision, Schedule, TrainConfig,
};
use lenet5::weights::Weights;
use lenet5_cli as cli;

/// The settings that may change when a run goes on.
#[derive(Args)]
pub struct Changes {
    /// Number of epochs [default: 10, for sdlm 20]
    #[arg(long, help_heading = "Training")]
    pub epochs: Option<u32>,
    /// Device: auto, cpu, cuda, cuda:N or mps [default: auto]
    #[arg(long, help_heading = "Computation")]
    pub device: Option<DeviceChoice>,
    /// CPU threads [default: all cores]
    #[arg(long, help_heading = "Computation")]
    pub threads: Option<i32>,
    /// Write event files for TensorBoard.
    ///
    /// They hold the losses, the errors, the weights and the misclassified images of each epoch.
    /// They are in the run's folder: tensorboard --logdir runs
    #[arg(long, help_heading = "Results")]
    pub tensorboard: bool,
}

impl Changes {
    pub fn apply(&self, config: &mut TrainConfig) {
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.device = self.device.unwrap_or(config.device);
        config.threads = self.threads.or(config.threads);
        config.tensorboard |= self.tensorboard;
    }
}

/// Settings that a resumed run takes from its config.json.
#[derive(Args)]
pub struct Settings {
    /// A set of settings; other options replace single ones.
    #[arg(long, conflicts_with = "model", help_heading = "Training")]
    preset: Option<Preset>,
    /// The network: the modern one, or the original one of 1998 [default: modern]
    #[arg(long, value_parser = cli::choice::<Network>(), help_heading = "Network")]
    model: Option<Network>,
    /// Distort the training images, differently in each epoch [default with no value: paper]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "paper", help_heading = "Data")]
    distort: Option<Distort>,
    /// Loss function [default: cross-entropy, for the original network discriminative]
    #[arg(long, help_heading = "Training")]
    loss: Option<LossName>,
    /// Distance of the reject class in the discriminative loss [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Training")]
    j: Option<f64>,
    /// Factor of the original network's squared distances [default: 0.025]
    #[arg(long, value_name = "X", help_heading = "Network")]
    rbf_scale: Option<f64>,
    /// Train the original network's codes too.
    #[arg(long, help_heading = "Network")]
    train_rbf: bool,
    /// Data set: IDX files, folders of pictures, CSV, npz [default: the embedded MNIST]
    ///
    /// A folder or a file; its content determines the form. The zip codes' text is read too.
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    data: Option<PathBuf>,
    /// How images of other sizes become images of 28x28 pixels [default: auto]
    #[arg(long, value_parser = cli::choice::<Fit>(), help_heading = "Data")]
    fit: Option<Fit>,
    /// Mix MNIST's training images in, as this share of all [default: none, for adapt 0.8]
    ///
    /// A number from 0.01 to 0.99. The images of --data are repeated to make up the rest. Without
    /// test images of its own, the network is tested on MNIST's.
    #[arg(long, value_name = "X", help_heading = "Data")]
    mnist_share: Option<f64>,
    /// Use the first N training images only.
    #[arg(long, value_name = "N", help_heading = "Data")]
    limit: Option<i64>,
    /// Evaluate on the last N training images instead of the test images.
    ///
    /// They are held out: not trained on.
    #[arg(long, value_name = "N", help_heading = "Data")]
    validation: Option<i64>,
    /// Count the training images that were misclassified before their step.
    #[arg(long, help_heading = "Results")]
    train_error: bool,
    /// Images per step [default: 64, for sdlm 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    batch_size: Option<i64>,
    /// Order of the images [default: shuffled, for sdlm constant]
    #[arg(long, value_parser = cli::choice::<Order>(), help_heading = "Data")]
    order: Option<Order>,
    /// Training engine [default: auto]
    #[arg(long, value_parser = cli::choice::<EngineChoice>(), help_heading = "Computation")]
    engine: Option<EngineChoice>,
    /// Precision of convolutions and matrix products [default: fp32]
    #[arg(long, value_parser = cli::choice::<Precision>(), help_heading = "Computation")]
    precision: Option<Precision>,
    /// Use only kernels that give the same bits each time.
    ///
    /// On a GPU training is then slower.
    #[arg(long, help_heading = "Computation")]
    pub deterministic: bool,
    /// Optimizer [default: sgd]
    #[arg(long, help_heading = "Training")]
    optimizer: Option<OptimizerName>,
    /// Learning rate [default: 0.05, for adam and adamw 0.001, for sdlm 0.0005]
    ///
    /// With one-cycle it is the largest learning rate.
    #[arg(long, value_name = "X", help_heading = "Training")]
    lr: Option<f64>,
    /// Momentum of sgd [default: 0.9]
    #[arg(long, value_name = "X", help_heading = "Training")]
    momentum: Option<f64>,
    /// Dampening of sgd's momentum [default: 0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    dampening: Option<f64>,
    /// Nesterov momentum, with sgd.
    #[arg(long, help_heading = "Training")]
    nesterov: bool,
    /// Weight decay [default: 0, for adamw 0.01]
    #[arg(long, value_name = "X", help_heading = "Training")]
    weight_decay: Option<f64>,
    /// Damping of sdlm, the paper's mu [default: 0.02]
    #[arg(long, value_name = "X", help_heading = "Training")]
    mu: Option<f64>,
    /// Images on which sdlm estimates second derivatives [default: 500]
    #[arg(long, value_name = "N", help_heading = "Training")]
    hessian_samples: Option<usize>,
    /// Learning rate schedule [default: cosine, for sdlm paper]
    #[arg(long, help_heading = "Training")]
    schedule: Option<ScheduleName>,
    /// Epochs between two changes of the step schedule [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    step_size: Option<u32>,
    /// Factor of each change of the step schedule [default: 0.7]
    #[arg(long, value_name = "X", help_heading = "Training")]
    gamma: Option<f64>,
    /// Seed of the weights and of the order of the images [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub seed: Option<i64>,
    /// Start from the network and the weights in FILE.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "rbf_scale", "train_rbf", "c5", "classes"], help_heading = "Network")]
    init: Option<PathBuf>,
    /// Form of c5 [default: convolution]
    #[arg(long, value_parser = cli::choice::<C5>(), help_heading = "Network")]
    c5: Option<C5>,
    /// Number of classes, 2 to 1000 [default: 10]
    #[arg(long, value_name = "N", help_heading = "Network")]
    classes: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Preset {
    /// Lowest error with the modern network: ReLU, max pooling, distorted images, 120 epochs.
    Best,
    /// The training of the paper of 1998: --model original --optimizer sdlm.
    Paper,
    /// Teaches the network of --init the hand of --data, and keeps what it knows.
    Adapt,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Distort {
    /// Translation, scaling, squeezing and shear, in ranges estimated from the examples in the
    /// paper's Fig. 7.
    Paper,
    /// The paper's distortions in smaller ranges.
    Mild,
    /// The paper's distortions in smaller ranges, with rotation and elastic distortion as well.
    Best,
}

impl Distort {
    fn ranges(self) -> Distortions {
        match self {
            Self::Paper => Distortions::default(),
            Self::Mild => Distortions::mild(),
            Self::Best => Distortions::best(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum OptimizerName {
    Sgd,
    Adam,
    #[value(name = "adamw")]
    AdamW,
    /// Stochastic diagonal Levenberg-Marquardt, the paper's method for the original network.
    Sdlm,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum LossName {
    CrossEntropy,
    /// The paper's eq. 8: the distance to the code of the correct class.
    Distance,
    /// The paper's eq. 9: cross-entropy with a reject class.
    Discriminative,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum ScheduleName {
    Constant,
    Step,
    Cosine,
    #[value(name = "one-cycle")]
    OneCycle,
    /// The schedule of the paper of 1998: the learning rate for 2 epochs, 0.4 of it for 3, 0.2 for
    /// 3, 0.1 for 4, then 0.02.
    Paper,
}

impl Settings {
    /// Creates the settings of a new run. `init` holds the weights to start from, which also
    /// determine the network.
    pub fn config(
        self,
        options: &ModelOptions,
        init: Option<&Weights>,
    ) -> anyhow::Result<TrainConfig> {
        let sdlm = self.optimizer == Some(OptimizerName::Sdlm);
        match (self.preset, init) {
            (Some(Preset::Adapt), None) => anyhow::bail!(
                "--preset adapt needs --init FILE, the weights to start from, such as weights/lenet5.pt"
            ),
            (Some(Preset::Adapt), _) if self.data.is_none() => {
                anyhow::bail!("--preset adapt needs --data PATH, the images to learn from")
            }
            (Some(Preset::Best | Preset::Paper), Some(_)) => {
                anyhow::bail!("--preset best and paper do not go with --init: they start anew")
            }
            _ => (),
        }
        let base = match self.preset {
            Some(Preset::Adapt) => TrainConfig::adapt(ModelConfig::default()),
            Some(Preset::Paper) => TrainConfig::paper(),
            Some(Preset::Best) => TrainConfig::best(),
            None if sdlm => TrainConfig { model: ModelConfig::default(), ..TrainConfig::paper() },
            None => TrainConfig::default(),
        };
        let mut model = match (init, self.model) {
            (Some(weights), _) => weights.config.clone(),
            (None, Some(Network::Original)) => ModelConfig::original(),
            (None, _) => base.model.clone(),
        };
        if init.is_none() {
            options.apply(&mut model);
        }
        if model.network != Network::Original && (self.rbf_scale.is_some() || self.train_rbf) {
            anyhow::bail!("--rbf-scale and --train-rbf go with --model original only");
        }
        model.rbf_scale = self.rbf_scale.unwrap_or(model.rbf_scale);
        model.train_rbf |= self.train_rbf;
        model.c5 = self.c5.unwrap_or(model.c5);
        model.classes = self.classes.unwrap_or(model.classes);
        Ok(TrainConfig {
            optimizer: self.optimizer(base.optimizer)?,
            schedule: self.schedule(base.schedule)?,
            learning_rate: self.lr.unwrap_or(match self.optimizer {
                Some(OptimizerName::Adam | OptimizerName::AdamW) => 1e-3,
                _ => base.learning_rate,
            }),
            loss: self.loss(model.network)?,
            distortions: self.distort.map(Distort::ranges).or(base.distortions),
            model,
            // An absolute path, so that --resume works from any folder.
            data: self.data.map(std::path::absolute).transpose()?,
            fit: self.fit.unwrap_or(base.fit),
            mnist_share: self.mnist_share.or(base.mnist_share),
            limit: self.limit,
            validation: self.validation,
            train_error: self.train_error,
            batch_size: self.batch_size.unwrap_or(base.batch_size),
            order: self.order.unwrap_or(base.order),
            engine: self.engine.unwrap_or(base.engine),
            precision: self.precision.unwrap_or(base.precision),
            deterministic: self.deterministic,
            seed: self.seed.unwrap_or(base.seed),
            init: self.init,
            ..base
        })
    }

    /// Reads the weights of --init. Notes about them are printed if `prints`.
    pub fn init(&self, options: &ModelOptions, prints: bool) -> anyhow::Result<Option<Weights>> {
        let Some(path) = &self.init else { return Ok(None) };
        let mut weights = Weights::read(path)?;
        weights.set(options)?;
        if prints {
            cli::note_all(path, &weights);
        }
        Ok(Some(weights))
    }

    fn optimizer(&self, base: OptimizerConfig) -> anyhow::Result<OptimizerConfig> {
        let weight_decay = self.weight_decay;
        let name = self.optimizer.unwrap_or(match base {
            OptimizerConfig::Sdlm { .. } => OptimizerName::Sdlm,
            _ => OptimizerName::Sgd,
        });
        if name != OptimizerName::Sgd
            && (self.momentum.is_some() || self.dampening.is_some() || self.nesterov)
        {
            anyhow::bail!("--momentum, --dampening and --nesterov go with --optimizer sgd only");
        }
        if name == OptimizerName::Sdlm && weight_decay.is_some() {
            anyhow::bail!("--weight-decay does not go with --optimizer sdlm");
        }
        if name != OptimizerName::Sdlm && (self.mu.is_some() || self.hessian_samples.is_some()) {
            anyhow::bail!("--mu and --hessian-samples go with --optimizer sdlm only");
        }
        let (beta1, beta2, eps) = (0.9, 0.999, 1e-8);
        Ok(match name {
            OptimizerName::Sgd => {
                let (decay, nesterov) = match base {
                    OptimizerConfig::Sgd { weight_decay, nesterov, .. } => (weight_decay, nesterov),
                    _ => (0.0, false),
                };
                OptimizerConfig::Sgd {
                    momentum: self.momentum.unwrap_or(0.9),
                    dampening: self.dampening.unwrap_or(0.0),
                    weight_decay: weight_decay.unwrap_or(decay),
                    nesterov: self.nesterov || nesterov,
                }
            }
            OptimizerName::Adam => OptimizerConfig::Adam {
                beta1,
                beta2,
                eps,
                weight_decay: weight_decay.unwrap_or(0.0),
            },
            OptimizerName::AdamW => OptimizerConfig::AdamW {
                beta1,
                beta2,
                eps,
                weight_decay: weight_decay.unwrap_or(0.01),
            },
            OptimizerName::Sdlm => OptimizerConfig::Sdlm {
                mu: self.mu.unwrap_or(0.02),
                samples: self.hessian_samples.unwrap_or(500),
            },
        })
    }

    fn loss(&self, network: Network) -> anyhow::Result<Loss> {
        let name = self.loss.unwrap_or(match network {
            Network::Modern => LossName::CrossEntropy,
            Network::Original => LossName::Discriminative,
        });
        if name != LossName::Discriminative && self.j.is_some() {
            anyhow::bail!("--j goes with --loss discriminative only");
        }
        Ok(match name {
            LossName::CrossEntropy => Loss::CrossEntropy,
            LossName::Distance => Loss::Distance,
            LossName::Discriminative => Loss::Discriminative { j: self.j.unwrap_or(1.0) },
        })
    }

    fn schedule(&self, base: Schedule) -> anyhow::Result<Schedule> {
        let name = self.schedule.unwrap_or(match base {
            Schedule::Paper => ScheduleName::Paper,
            _ => ScheduleName::Cosine,
        });
        if name != ScheduleName::Step && (self.step_size.is_some() || self.gamma.is_some()) {
            anyhow::bail!("--step-size and --gamma go with --schedule step only");
        }
        Ok(match name {
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::Step => Schedule::Step {
                step_size: self.step_size.unwrap_or(1),
                gamma: self.gamma.unwrap_or(0.7),
            },
            ScheduleName::Cosine => Schedule::Cosine,
            ScheduleName::OneCycle => Schedule::OneCycle,
            ScheduleName::Paper => Schedule::Paper,
        })
    }
}
