//! The training loop.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tch::nn::{Module, VarStore};
use tch::{Device, Kind, Tensor};

use crate::data::{Dataset, Distortions, Split};
use crate::evaluate::Evaluation;
use crate::libtorch::{self, DeviceChoice};
use crate::model::{LeNet5, Loss, ModelConfig};
use crate::optim::{OptimizerConfig, Schedule};
use crate::progress::Progress;
use crate::weights::{Checkpoint, Format, Value, Weights};
use crate::{Error, Result, charts, files};

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
    /// Passes over the training images; 0 writes the initial weights and ends.
    pub epochs: u32,
    /// Images per step; the last batch of an epoch may be smaller.
    pub batch_size: i64,
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
    /// CPU threads; none means libtorch's choice. Other numbers give other last bits.
    pub threads: Option<i32>,
    /// Start from the weights of this file.
    pub init: Option<PathBuf>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            model: ModelConfig::default(),
            loss: Loss::default(),
            distortions: None,
            data: None,
            limit: None,
            epochs: 10,
            batch_size: 64,
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
            threads: None,
            init: None,
        }
    }
}

impl TrainConfig {
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
        positive("threads", self.threads.is_none_or(|n| n > 0), &self.threads.unwrap_or(1))?;
        let rate = self.learning_rate;
        positive("lr", rate.is_finite() && rate > 0.0, &rate)?;
        self.model.validate()?;
        self.loss.validate()?;
        self.optimizer.validate()?;
        self.schedule.validate()
    }
}

/// What is measured in an epoch: a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// From 1.
    pub epoch: u32,
    /// Mean loss over the epoch's samples, each as its batch came up.
    pub train_loss: f64,
    /// Mean loss on the test images after the epoch.
    pub test_loss: f64,
    /// Test images that are misread, in percent.
    pub test_error_percent: f64,
    /// Of training; evaluation is not counted.
    pub seconds: f64,
    /// Training images per second.
    pub images_per_second: f64,
    /// Of the epoch's last step.
    pub learning_rate: f64,
}

/// How a run ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was told to stop; the checkpoint is written.
    Interrupted,
}

/// A training run: network, optimizer, data, and a folder for the results.
pub struct Run {
    config: TrainConfig,
    folder: PathBuf,
    device: Device,
    _store: VarStore,
    model: LeNet5,
    optimizer: Box<dyn crate::optim::Optimizer>,
    train: Dataset,
    test: Dataset,
    metrics: Vec<Metrics>,
    epoch: u32,
    /// Steps done in the epoch under way, and what they have summed up to.
    partial: Partial,
}

#[derive(Default)]
struct Partial {
    step: u64,
    loss_sum: f64,
    seconds: f64,
}

impl Run {
    /// Starts a run in a new folder: reads the data, draws the weights or starts from `init` and its
    /// network, writes `config.json`.
    ///
    /// # Errors
    /// Where a setting is out of range, a file cannot be read, or `folder` already holds a run.
    pub fn start(
        config: TrainConfig,
        init: Option<Weights>,
        folder: &Path,
        device: Device,
    ) -> Result<Self> {
        config.validate()?;
        // A start that was killed has settings and no checkpoint yet: it may begin again.
        let begun = folder.join("config.json").exists();
        let results = ["metrics.jsonl", "model.pt", "curve.png"];
        let foreign = !begun && results.iter().any(|name| folder.join(name).exists());
        if checkpoint_path(folder).exists() || foreign {
            return Err(Error::file(
                folder,
                format!(
                    "holds a run already; go on with it by --resume {}, or choose another --out",
                    folder.display()
                ),
            ));
        }
        tch::manual_seed(config.seed);
        let mut run = Self::new(config, folder, device, init)?;
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        run.write_config()?;
        run.write_model()?;
        run.save(&libtorch::generator_state()?)?;
        Ok(run)
    }

    /// Goes on with the run in `folder`, from its checkpoint; ends in the same bits as if it had
    /// never stopped. `config` is what [`read_config`] gives; only what does not belong to the past may
    /// differ: epochs, device, threads.
    ///
    /// # Errors
    /// Where `folder` holds no run, or a file in it is broken.
    pub fn resume(config: TrainConfig, folder: &Path, device: Device) -> Result<Self> {
        config.validate()?;
        let path = checkpoint_path(folder);
        let checkpoint = Checkpoint::read(&path)?;
        if checkpoint.weights.config != config.model {
            return Err(Error::file(&path, "expected the network of config.json, found another"));
        }
        let mut run = Self::new(config, folder, device, Some(checkpoint.weights))?;
        run.optimizer
            .load_state(&checkpoint.optimizer_state)
            .map_err(|error| Error::file(&path, error.to_string()))?;
        libtorch::set_generator_state(&checkpoint.generator_state)
            .map_err(|error| Error::file(&path, format!("rng_state: {error}")))?;
        run.epoch = checkpoint.epoch;
        run.partial = Partial {
            step: checkpoint.step,
            loss_sum: checkpoint.loss_sum,
            seconds: checkpoint.seconds,
        };
        let steps = run.steps_per_epoch();
        if run.partial.step >= steps {
            return Err(Error::file(
                &path,
                format!("expected a step below {steps}, found {}: other data?", checkpoint.step),
            ));
        }
        run.metrics = read_metrics(folder)?;
        run.metrics.retain(|metrics| metrics.epoch <= run.epoch);
        run.write_config()?;
        Ok(run)
    }

    fn new(
        config: TrainConfig,
        folder: &Path,
        device: Device,
        weights: Option<Weights>,
    ) -> Result<Self> {
        let (store, model) = match weights {
            Some(weights) => weights.build(device)?,
            None => {
                let mut store = VarStore::new(Device::Cpu);
                let model = LeNet5::new(&store.root(), &config.model)?;
                store.set_device(device);
                (store, model)
            }
        };
        let config = TrainConfig { model: model.config().clone(), ..config };
        let parameters = model.parameters().into_iter().map(|(_, parameter)| parameter).collect();
        let open = |split| Dataset::open(config.data.as_deref(), split, config.model.classes);
        let train = open(Split::Train)?;
        let train = config.limit.map_or_else(|| train.first(i64::MAX), |limit| train.first(limit));
        Ok(Self {
            folder: folder.to_owned(),
            device,
            optimizer: config.optimizer.build(parameters),
            train: train.to_device(device),
            test: open(Split::Test)?.to_device(device),
            _store: store,
            model,
            config,
            metrics: Vec::new(),
            epoch: 0,
            partial: Partial::default(),
        })
    }

    /// Trains to the last epoch, or until `stop` is set, which is looked at after each step.
    /// `report` is given each epoch's measurements.
    ///
    /// # Errors
    /// Where the loss is no longer finite, or a file cannot be written.
    pub fn train(
        &mut self,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&Metrics),
    ) -> Result<Outcome> {
        let (samples, epochs) = (self.train.len(), self.config.epochs);
        let steps = self.steps_per_epoch();
        let parameters: Vec<_> = self.model.parameters().into_iter().map(|(_, p)| p).collect();
        while self.epoch < epochs {
            let generator = libtorch::generator_state()?;
            let order = Tensor::randperm(samples, (Kind::Int64, Device::Cpu));
            let batches = order.split(self.config.batch_size, 0);
            let mut progress = Progress::new(self.epoch + 1, epochs, samples as u64);
            let (start, mut learning_rate) = (Instant::now(), 0.0);
            let mut losses = Vec::new();
            for indices in &batches[self.partial.step as usize..] {
                let (images, labels) = match &self.config.distortions {
                    None => self.train.batch(indices, &self.config.model),
                    Some(distortions) => {
                        let key = (self.config.seed, self.epoch);
                        self.train.distorted(indices, &self.config.model, distortions, key)
                    }
                };
                let logits = self.model.forward(&images);
                let loss = self.config.loss.of(&logits, &labels);
                let gradients = Tensor::f_run_backward(&[&loss], &parameters, false, false)?;
                learning_rate = self.config.schedule.learning_rate(
                    self.config.learning_rate,
                    (self.epoch, epochs),
                    (self.partial.step, steps),
                );
                self.optimizer.step(&gradients, learning_rate)?;
                losses.push((loss.detach(), labels.size()[0]));
                self.partial.step += 1;
                progress.set(self.partial.step * self.config.batch_size as u64);
                if stop.load(Ordering::Relaxed) && self.partial.step < steps {
                    self.partial.loss_sum += sum(&losses)?;
                    self.check_finite(self.partial.loss_sum)?;
                    self.partial.seconds += start.elapsed().as_secs_f64();
                    self.save(&generator)?;
                    return Ok(Outcome::Interrupted);
                }
            }
            let train_loss = (self.partial.loss_sum + sum(&losses)?) / samples as f64;
            let seconds = self.partial.seconds + start.elapsed().as_secs_f64();
            drop(progress);
            self.finish_epoch(train_loss, seconds, learning_rate, report)?;
            if stop.load(Ordering::Relaxed) && self.epoch < epochs {
                return Ok(Outcome::Interrupted);
            }
        }
        charts::curve(&self.folder.join("curve.png"), &self.metrics)?;
        Ok(Outcome::Finished)
    }

    fn steps_per_epoch(&self) -> u64 {
        (self.train.len() as u64).div_ceil(self.config.batch_size as u64)
    }

    /// Nothing is saved of a network that has diverged: the checkpoint before it stays.
    fn check_finite(&self, loss: f64) -> Result<()> {
        let finite = |parameter: &Tensor| parameter.isfinite().all().int64_value(&[]) != 0;
        if loss.is_finite()
            && self.model.parameters().iter().all(|(_, parameter)| finite(parameter))
        {
            return Ok(());
        }
        Err(Error::Config(format!(
            "training diverged: the loss of epoch {} is {loss}; try a smaller --lr than {}",
            self.epoch + 1,
            self.config.learning_rate
        )))
    }

    fn finish_epoch(
        &mut self,
        train_loss: f64,
        seconds: f64,
        learning_rate: f64,
        report: &mut dyn FnMut(&Metrics),
    ) -> Result<()> {
        self.check_finite(train_loss)?;
        let evaluation = Evaluation::of(&self.model, &self.test, &self.config.model)?;
        self.epoch += 1;
        self.partial = Partial::default();
        let metrics = Metrics {
            epoch: self.epoch,
            train_loss,
            test_loss: evaluation.loss,
            test_error_percent: evaluation.error_percent,
            seconds,
            images_per_second: self.train.len() as f64 / seconds,
            learning_rate,
        };
        report(&metrics);
        self.metrics.push(metrics);
        self.write_metrics()?;
        self.write_model()?;
        self.save(&libtorch::generator_state()?)
    }

    /// The network as it is.
    pub fn model(&self) -> &LeNet5 {
        &self.model
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Epochs done.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The device it trains on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Numbers of training and of test images.
    pub fn samples(&self) -> (i64, i64) {
        (self.train.len(), self.test.len())
    }

    fn write_config(&self) -> Result<()> {
        write_json(&self.folder.join("config.json"), &self.config)
    }

    fn write_model(&self) -> Result<()> {
        Weights::of(&self.model).write(&self.folder.join("model.pt"), Format::TorchScript)
    }

    fn write_metrics(&self) -> Result<()> {
        let line = |metrics| serde_json::to_string(metrics).expect("metrics are plain data") + "\n";
        let text: String = self.metrics.iter().map(line).collect();
        files::write_atomic(&self.folder.join("metrics.jsonl"), text.as_bytes())
    }

    fn save(&mut self, generator: &Tensor) -> Result<()> {
        let own = |(name, tensor): (&str, Tensor)| (name.to_owned(), tensor);
        let checkpoint = Checkpoint {
            weights: Weights::of(&self.model),
            optimizer_state: self
                .optimizer
                .state()
                .into_iter()
                .map(|entries| entries.into_iter().map(own).collect())
                .collect(),
            generator_state: generator.shallow_clone(),
            epoch: self.epoch,
            step: self.partial.step,
            loss_sum: self.partial.loss_sum,
            seconds: self.partial.seconds,
        };
        checkpoint.write(&checkpoint_path(&self.folder), self.param_group())
    }

    /// The optimizer's settings by the names that `torch.optim` gives them.
    fn param_group(&self) -> Vec<(&'static str, Value)> {
        let mut group = vec![("lr", Value::Float(self.config.learning_rate))];
        group.extend(match self.config.optimizer {
            OptimizerConfig::Sgd { momentum, dampening, weight_decay, nesterov } => vec![
                ("momentum", Value::Float(momentum)),
                ("dampening", Value::Float(dampening)),
                ("weight_decay", Value::Float(weight_decay)),
                ("nesterov", Value::Bool(nesterov)),
            ],
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay }
            | OptimizerConfig::AdamW { beta1, beta2, eps, weight_decay } => vec![
                ("betas", Value::Tuple(vec![Value::Float(beta1), Value::Float(beta2)])),
                ("eps", Value::Float(eps)),
                ("weight_decay", Value::Float(weight_decay)),
                ("amsgrad", Value::Bool(false)),
                ("capturable", Value::Bool(false)),
                (
                    "decoupled_weight_decay",
                    Value::Bool(matches!(self.config.optimizer, OptimizerConfig::AdamW { .. })),
                ),
            ],
        });
        group.extend([
            ("maximize", Value::Bool(false)),
            ("foreach", Value::None),
            ("differentiable", Value::Bool(false)),
            ("fused", Value::None),
        ]);
        group
    }
}

/// Where a run's checkpoint lies.
pub fn checkpoint_path(folder: &Path) -> PathBuf {
    folder.join("checkpoint.pth")
}

/// The settings of the run in `folder`.
///
/// # Errors
/// Where there is no run, or its `config.json` is broken.
pub fn read_config(folder: &Path) -> Result<TrainConfig> {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    serde_json::from_str(&text).map_err(|error| {
        Error::file(&path, format!("expected the settings of a run, found {error}"))
    })
}

fn read_metrics(folder: &Path) -> Result<Vec<Metrics>> {
    let path = folder.join("metrics.jsonl");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    text.lines()
        .map(|line| {
            serde_json::from_str(line).map_err(|error| {
                Error::file(&path, format!("expected a line of metrics, found {error}"))
            })
        })
        .collect()
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("settings are plain data") + "\n";
    files::write_atomic(path, text.as_bytes())
}

/// The sum over samples of batch means, read from the device at once.
fn sum(losses: &[(Tensor, i64)]) -> Result<f64> {
    if losses.is_empty() {
        return Ok(0.0);
    }
    let (means, sizes): (Vec<_>, Vec<_>) = losses.iter().map(|(mean, size)| (mean, *size)).unzip();
    let means = Tensor::f_stack(&means, 0)?.to_device(Device::Cpu).to_kind(Kind::Double);
    Ok((means * Tensor::from_slice(&sizes)).sum(Kind::Double).f_double_value(&[])?)
}

/// The next free of `parent/1`, `parent/2`, ..., made.
///
/// # Errors
/// Where the folder cannot be made.
pub fn new_run_folder(parent: &Path) -> Result<PathBuf> {
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    for number in 1.. {
        let folder = parent.join(number.to_string());
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(&folder)(error)),
        }
    }
    unreachable!("the numbers do not run out")
}
