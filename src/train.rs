//! The training loop.

mod config;
mod divergence;
mod folder;
mod pass;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tch::nn::{Module, VarStore};
use tch::{Device, Kind, Tensor};

pub use config::{Engine, Order, Precision, TrainConfig};
use divergence::{Found, check_divergence};
use folder::RunFolder;
use pass::Pass;

use crate::data::{Dataset, Split};
use crate::engine::original::{Network, Parameters, Rates};
use crate::engine::{Trainer, cuda, fused, graph};
use crate::evaluate::{Evaluation, logits, logits_by_engine};
use crate::libtorch;
use crate::model::LeNet5;
use crate::optim::{self, OptimizerConfig};
use crate::progress::Progress;
use crate::weights::{Checkpoint, Format, Value, Weights};
use crate::{Error, Result, charts, files, foreign};

/// What is measured in an epoch: a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// From 1.
    pub epoch: u32,
    /// Mean loss over the epoch's samples, each as its batch came up.
    pub train_loss: f64,
    /// Mean cross-entropy on the test images after the epoch; with [`TrainConfig::validation`], on those
    /// held out.
    pub test_loss: f64,
    /// Of the same images, those that are misread, in percent.
    pub test_error_percent: f64,
    /// Training images that were misread as their batches came up, in percent, where that is asked for: the
    /// paper counts them so in its Fig. 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_error_percent: Option<f64>,
    /// Of training; evaluation is not counted.
    pub seconds: f64,
    /// Training images per second.
    pub images_per_second: f64,
    /// Of the epoch's last step.
    pub learning_rate: f64,
    /// The smallest and the largest rate of a weight in the epoch's first step, of SDLM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_rates: Option<(f32, f32)>,
    /// The run's name, as in its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
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
    /// Keeps other processes out of the folder.
    lock: Option<RunFolder>,
    device: Device,
    _store: VarStore,
    model: LeNet5,
    optimizer: Box<dyn crate::optim::Optimizer>,
    steps: Steps,
    /// The GPU with its kernels, until training begins; or why there is none, which stays so: nothing else trains in
    /// its place.
    gpu: Option<std::result::Result<cuda::Compiling, String>>,
    /// That trainer's launches are to be measured.
    measured: bool,
    train: Dataset,
    test: Dataset,
    metrics: Vec<Metrics>,
    epoch: u32,
    /// Steps done in the epoch under way, and what they have summed up to.
    partial: Partial,
}

/// What computes the steps.
enum Steps {
    Libtorch,
    /// The hand-written engine of the original network.
    Original,
    /// That of the modern network, and the images as it takes them.
    Fused(Box<(fused::Engine, fused::Bytes)>),
    /// Made when training begins: by then the optimizer has its state.
    Trainer(Option<Box<dyn Trainer>>),
}

#[derive(Default)]
struct Partial {
    step: u64,
    loss_sum: f64,
    misread: u64,
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
        let config = match &init {
            Some(weights) => TrainConfig { model: weights.config.clone(), ..config },
            None => config,
        };
        config.validate()?;
        let lock = RunFolder::open(folder)?;
        // A start that was killed has settings and no checkpoint yet: it may begin again.
        let begun = folder.join("config.json").exists();
        let results = ["metrics.jsonl", "model.pt", "curve.png"];
        let foreign = !begun && results.iter().any(|name| folder.join(name).exists());
        if checkpoint_path(folder).exists() || foreign {
            return Err(Error::file(
                folder,
                format!(
                    "holds a run already; go on with it by --resume {}, or choose another --out",
                    files::shown(folder)
                ),
            ));
        }
        tch::manual_seed(config.seed);
        let config = TrainConfig { run: Some(folder::new_id()), ..config };
        let mut run = match Self::new(config, folder, device, init) {
            Ok(run) => Self { lock: Some(lock), ..run },
            Err(error) => {
                drop(lock);
                // It goes only if it is still empty.
                let _ = fs::remove_dir(folder);
                return Err(error);
            }
        };
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
        fs::metadata(&path).map_err(Error::io(&path))?;
        let lock = RunFolder::open(folder)?;
        let checkpoint = Checkpoint::read(&path)?;
        if let Some(settings) = &checkpoint.settings {
            let made_with: TrainConfig = serde_json::from_str(settings).map_err(|error| {
                Error::file(&path, format!("expected the settings of a run, found {error}"))
            })?;
            folder::check_settings(folder, &config, &made_with)?;
        }
        if checkpoint.weights.config != config.model {
            return Err(Error::file(&path, "expected the network of config.json, found another"));
        }
        let mut run = Self::new(config, folder, device, Some(checkpoint.weights))?;
        run.lock = Some(lock);
        let stepped = (checkpoint.epoch, checkpoint.step) != (0, 0);
        let kept = run.config.optimizer.running_state();
        if stepped && !kept.is_empty() && checkpoint.optimizer_state.is_empty() {
            let kept = kept.join(" and ");
            let message = format!("optimizer state: expected {kept} of each parameter, found none");
            return Err(Error::file(&path, message));
        }
        optim::check_numbers(&checkpoint.optimizer_state)
            .and_then(|()| run.optimizer.load_state(&checkpoint.optimizer_state))
            .map_err(|error| Error::file(&path, error.to_string()))?;
        libtorch::set_generator_state(&checkpoint.generator_state)
            .map_err(|error| Error::file(&path, format!("rng_state: {error}")))?;
        run.epoch = checkpoint.epoch;
        run.partial = Partial {
            step: checkpoint.step,
            loss_sum: checkpoint.loss_sum,
            misread: checkpoint.misread,
            seconds: checkpoint.seconds,
        };
        let steps = run.steps_per_epoch();
        if run.partial.step >= steps {
            return Err(Error::file(
                &path,
                format!("expected a step below {steps}, found {}: other data?", checkpoint.step),
            ));
        }
        let lines = read_metrics(folder)?;
        run.metrics = folder::put_right(folder, lines, run.epoch, run.config.run.as_deref())?;
        // The other files of a run may be missing: they are written again.
        run.write_config()?;
        if run.epoch > 0 {
            run.write_metrics()?;
        }
        run.write_model()?;
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
        let parameters = model.parameter_tensors();
        let engine = config.engine_on(device)?;
        let gpu = match (engine, device) {
            // While the data is read.
            (Engine::Fused, Device::Cuda(index)) => {
                Some(Ok(cuda::Compiling::start(index, &config.model, config.batch_size as usize)))
            }
            _ => None,
        };
        let open = |split| Dataset::open(config.data.as_deref(), split, config.model.classes);
        let train = open(Split::Train)?;
        let (train, test) = match config.validation {
            None => (train, open(Split::Test)?),
            Some(held_out) if held_out < train.len() => train.split(train.len() - held_out),
            Some(held_out) => {
                let expected = train.len() - 1;
                return Err(Error::Config(format!(
                    "validation: expected {expected} images or fewer, found {held_out}"
                )));
            }
        };
        let train = train.first(config.limit.unwrap_or(i64::MAX));
        if device.is_cuda() {
            // The flag is libtorch's for all: a run of before may have set it.
            libtorch::allow_tf32(config.precision == Precision::Tf32)?;
        }
        let steps = match (engine, &model) {
            (Engine::Auto | Engine::Libtorch, _) => Steps::Libtorch,
            (Engine::Graph, _) => Steps::Trainer(None),
            (Engine::Fused, _) if gpu.is_some() => Steps::Trainer(None),
            (Engine::Fused, LeNet5::Original(_)) => Steps::Original,
            (Engine::Fused, LeNet5::Modern(_)) => {
                let engine = fused::Engine::of(&config.model);
                Steps::Fused(Box::new((engine, fused::Bytes::of(&train, &config.model)?)))
            }
        };
        Ok(Self {
            folder: folder.to_owned(),
            lock: None,
            device,
            steps,
            gpu,
            measured: false,
            optimizer: config.optimizer.build(parameters),
            train: train.to_device(device),
            test: test.to_device(device),
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
    /// Where training diverges: the loss or a parameter is not finite, or beyond all that learns. The checkpoint of
    /// before then stays. Also where a file cannot be written.
    pub fn train(
        &mut self,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&Metrics),
    ) -> Result<Outcome> {
        let (samples, epochs) = (self.train.len(), self.config.epochs);
        let steps = self.steps_per_epoch();
        if self.epoch < epochs {
            self.make_trainer()?;
        }
        while self.epoch < epochs {
            let generator = libtorch::generator_state()?;
            if self.config.order == Order::Constant {
                tch::manual_seed(self.config.seed);
            }
            let order = Tensor::randperm(samples, (Kind::Int64, Device::Cpu));
            let order = Vec::<i64>::try_from(order)?;
            if self.partial.step == 0 {
                self.measure_curvature(&order)?;
            }
            let (config, epoch, done) = (&self.config, self.epoch, self.partial.step);
            let learning_rate = |step| {
                let at = ((epoch, epochs), (step, steps));
                config.schedule.learning_rate(config.learning_rate, at.0, at.1)
            };
            let rates = self.rates()?;
            let mut progress =
                Progress::new(&format!("epoch {}/{epochs}", epoch + 1), samples as u64);
            let start = Instant::now();
            let mut step = done;
            let mut after_step = |now: u64| {
                step = now;
                progress.set(step * config.batch_size as u64);
                stop.load(Ordering::Relaxed)
            };
            let (data, order) = (&self.train, &order[..]);
            let pass = Pass { config, data, epoch, order, done, learning_rate: &learning_rate };
            let (model, optimizer) = (&self.model, self.optimizer.as_mut());
            let sums = match &mut self.steps {
                Steps::Libtorch => pass.by_libtorch(model, optimizer, &mut after_step)?,
                Steps::Original => pass.original_by_engine(model, &rates, &mut after_step)?,
                Steps::Fused(fused) => {
                    let (engine, bytes) = &mut **fused;
                    pass.modern_by_engine(engine, bytes, model, optimizer, &mut after_step)?
                }
                Steps::Trainer(trainer) => {
                    let trainer = trainer.as_mut().expect("made above");
                    pass.by_trainer(trainer.as_mut(), model, &mut after_step)?
                }
            };
            drop(progress);
            let weight_rates =
                matches!(config.optimizer, OptimizerConfig::Sdlm { .. }).then(|| {
                    let first = rates(learning_rate(0));
                    (first.smallest(), first.largest())
                });
            let learning_rate = learning_rate(steps - 1);
            self.partial.step = step;
            self.partial.loss_sum += sums.loss;
            self.partial.misread += sums.misread;
            self.partial.seconds += start.elapsed().as_secs_f64();
            if let Steps::Trainer(Some(trainer)) = &self.steps {
                trainer.store(&self.model, self.optimizer.as_mut())?;
            }
            if step < steps {
                let samples = samples.min(step as i64 * config.batch_size);
                self.check(Found::TrainLoss(self.partial.loss_sum / samples as f64))?;
                self.save(&generator)?;
                return Ok(Outcome::Interrupted);
            }
            self.finish_epoch(learning_rate, weight_rates, report)?;
            if stop.load(Ordering::Relaxed) && self.epoch < epochs {
                return Ok(Outcome::Interrupted);
            }
        }
        charts::curve(&self.folder.join("curve.png"), &self.metrics)?;
        Ok(Outcome::Finished)
    }

    /// Makes what trains on a GPU, of the optimizer's state as it is: by the hand-written kernels, or by libtorch's.
    fn make_trainer(&mut self) -> Result<()> {
        let Steps::Trainer(trainer @ None) = &mut self.steps else { return Ok(()) };
        let (config, model, optimizer) = (&self.config, &self.model, self.optimizer.as_ref());
        let data = (&self.train, &self.test);
        let mut new: Box<dyn Trainer> = match self.gpu.take() {
            Some(gpu) => {
                let made = gpu.map_err(Error::Device).and_then(|gpu| {
                    let gpu = Box::new(gpu.finish()?);
                    cuda::Engine::new(config, model, data, optimizer, gpu)
                });
                Box::new(made.inspect_err(|error| self.gpu = Some(Err(error.to_string())))?)
            }
            None => Box::new(graph::Engine::new(config, model, data, optimizer)?),
        };
        if self.measured {
            new.measure();
        }
        *trainer = Some(new);
        Ok(())
    }

    fn steps_per_epoch(&self) -> u64 {
        (self.train.len() as u64).div_ceil(self.config.batch_size as u64)
    }

    /// Gives SDLM the second derivatives of the epoch to come, of its first images.
    fn measure_curvature(&mut self, order: &[i64]) -> Result<()> {
        let OptimizerConfig::Sdlm { samples, .. } = self.config.optimizer else { return Ok(()) };
        let places = &order[..order.len().min(samples as usize)];
        let indices = Tensor::from_slice(places);
        let (images, labels) = self.train.batch(&indices, &self.config.model);
        let network = Network::of(&self.model, self.config.loss)?;
        self.optimizer.set_curvature(network.curvature(&images, &labels)?.to_tensors())
    }

    /// Makes the weights' rates of a learning rate, for the hand-written engine.
    fn rates(&self) -> Result<impl Fn(f64) -> Rates + use<>> {
        let (curvature, mu) = match self.config.optimizer {
            OptimizerConfig::Sdlm { mu, .. } => {
                let state = self.optimizer.state().into_iter().flatten();
                let tensors: Vec<_> = state.map(|(_, tensor)| tensor).collect();
                (Parameters::from_tensors(&tensors)?, mu as f32)
            }
            _ => (Parameters::zeros(), 1.0),
        };
        Ok(move |learning_rate| Rates::new(&curvature, learning_rate as f32, mu))
    }

    /// How the network as it is reads the test images.
    fn evaluate(&mut self) -> Result<Evaluation> {
        let (model, data) = (&self.model, &self.test);
        let logits = match &mut self.steps {
            Steps::Original => logits_by_engine(model, data)?,
            Steps::Fused(fused) => fused.0.evaluate(model, data)?,
            Steps::Trainer(Some(trainer)) => trainer.evaluate(model)?,
            Steps::Libtorch | Steps::Trainer(None) => {
                logits(&|images| Ok(model.forward(images)), data, &self.config.model)?
            }
        };
        if logits.isfinite().all().int64_value(&[]) == 0 {
            self.check(Found::TestLoss(f64::NAN))?;
        }
        Evaluation::new(&logits, &self.test.labels().to_device(Device::Cpu))
    }

    /// Nothing is saved of a network that has diverged: the checkpoint before it stays.
    fn check(&self, found: Found) -> Result<()> {
        check_divergence(&self.config, &self.model, found).map_err(|what| {
            let (epoch, rate) = (self.epoch + 1, self.config.learning_rate);
            let rate = if rate < 1e4 { rate.to_string() } else { format!("{rate:e}") };
            Error::Config(format!(
                "training diverged in epoch {epoch} at --lr {rate}: {what}; {} is still that of before; \
                 start again with a smaller --lr",
                files::shown(&checkpoint_path(&self.folder))
            ))
        })
    }

    fn finish_epoch(
        &mut self,
        learning_rate: f64,
        weight_rates: Option<(f32, f32)>,
        report: &mut dyn FnMut(&Metrics),
    ) -> Result<()> {
        let Partial { loss_sum, misread, seconds, .. } = self.partial;
        let samples = self.train.len() as f64;
        let train_loss = loss_sum / samples;
        self.check(Found::TrainLoss(train_loss))?;
        let evaluation = self.evaluate()?;
        self.check(Found::TestLoss(evaluation.loss))?;
        self.epoch += 1;
        self.partial = Partial::default();
        let metrics = Metrics {
            epoch: self.epoch,
            train_loss,
            test_loss: evaluation.loss,
            test_error_percent: evaluation.error_percent,
            train_error_percent: self.config.train_error.then(|| 100.0 * misread as f64 / samples),
            seconds,
            images_per_second: samples / seconds,
            learning_rate,
            weight_rates,
            run: self.config.run.clone(),
        };
        report(&metrics);
        self.metrics.push(metrics);
        self.write_metrics()?;
        self.write_model()?;
        self.save(&libtorch::generator_state()?)
    }

    /// Measures from now on where the time of the steps goes.
    ///
    /// # Errors
    /// Where another engine computes them.
    pub fn measure(&mut self) -> Result<()> {
        match &mut self.steps {
            Steps::Fused(fused) => fused.0.measure(),
            Steps::Trainer(None) if self.gpu.is_some() => self.measured = true,
            _ => {
                let message = "--profile goes with the modern network on the fused engine only";
                return Err(Error::Config(message.to_owned()));
            }
        }
        Ok(())
    }

    /// What was measured, as a table.
    ///
    /// # Errors
    /// Where a GPU does not say.
    pub fn profile(&self) -> Result<Option<String>> {
        Ok(match &self.steps {
            Steps::Fused(fused) => fused
                .0
                .profile()
                .map(|profile| profile.table(self.config.model.classes as usize, fused::sgemm())),
            Steps::Trainer(Some(trainer)) if self.measured => Some(trainer.profile()?),
            _ => None,
        })
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
        files::write_atomic(&metrics_path(&self.folder), text.as_bytes())
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
            misread: self.partial.misread,
            seconds: self.partial.seconds,
            settings: Some(serde_json::to_string(&self.config).expect("settings are plain data")),
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
            OptimizerConfig::Sdlm { mu, .. } => vec![("mu", Value::Float(mu))],
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

/// Where a run's measurements lie.
fn metrics_path(folder: &Path) -> PathBuf {
    folder.join("metrics.jsonl")
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
    let text = files::read_text(&path)?;
    let config: TrainConfig = serde_json::from_str(&text).map_err(|error| {
        let other = foreign::name(text.as_bytes()).filter(|_| !text.trim_start().starts_with('{'));
        let found = other.map_or_else(|| error.to_string(), str::to_owned);
        Error::file(&path, format!("expected the settings of a run, found {found}"))
    })?;
    config.validate().map_err(|error| Error::file(&path, error.to_string()))?;
    Ok(config)
}

/// What the run in `folder` has measured so far.
///
/// # Errors
/// Where `metrics.jsonl` is broken.
pub fn read_metrics(folder: &Path) -> Result<Vec<Metrics>> {
    folder::read_lines(&metrics_path(folder))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("settings are plain data") + "\n";
    files::write_atomic(path, text.as_bytes())
}

/// The next free of `parent/1`, `parent/2`, ..., made.
///
/// # Errors
/// Where the folder cannot be made.
pub fn new_run_folder(parent: &Path) -> Result<PathBuf> {
    files::create_folder(parent)?;
    for number in 1.. {
        let folder = parent.join(number.to_string());
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::writing(&folder)(error)),
        }
    }
    unreachable!("the numbers do not run out")
}
