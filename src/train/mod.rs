//! The training loop: the epochs of a run, and the files in the run's folder.

mod board;
mod divergence;
mod folder;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use lenet5_core::weights::{Checkpoint, Value, Weights};
use lenet5_core::{files, foreign};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use board::Board;
use divergence::{MeasuredLoss, check_divergence};
use folder::RunFolder;

use crate::charts::{self, CurvePoint};
use crate::data::{Dataset, Split};
use crate::engine::{self, Data, Engine, Epoch, OptimizerState, Place, Preparation, State, Totals};
use crate::evaluate::Evaluation;
use crate::libtorch::Generator;
use crate::model::LeNet5;
use crate::recipe::{OptimizerConfig, Order, TrainConfig};
use crate::tensorboard;
use crate::weights::{self, Format};
use crate::{Error, Result};

/// The measurements of an epoch: a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// The number of the epoch, from 1.
    pub epoch: u32,
    /// Mean loss of the epoch's training images, each before its step.
    pub train_loss: f64,
    /// Mean cross-entropy of the test images after the epoch; with [`TrainConfig::validation`], of
    /// the images that were held out.
    pub test_loss: f64,
    /// Misclassified test images, in percent.
    pub test_error_percent: f64,
    /// Training images that were misclassified before their step, in percent, if the settings ask
    /// for it. The paper counts training errors in this way in its Fig. 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_error_percent: Option<f64>,
    /// Training time in seconds, without evaluation.
    pub seconds: f64,
    /// Training images per second.
    pub images_per_second: f64,
    /// Learning rate of the epoch's last step.
    pub learning_rate: f64,
    /// The smallest and the largest learning rate of a parameter in the epoch's first step, with
    /// SDLM.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "weight_rates")]
    pub parameter_rates: Option<(f32, f32)>,
    /// The run's identifier, as in its settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// The outcome of a run.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// The run was told to stop, and the checkpoint is written.
    Interrupted,
}

/// Shows the progress of training.
pub trait Progress {
    /// Called when an epoch begins, with its number from 1, the number of epochs, and the number of
    /// images in it.
    fn begin(&mut self, epoch: u32, epochs: u32, images: u64);

    /// Called after each step, with the number of images that are done.
    fn set(&mut self, images: u64);

    /// Called when the training of an epoch ends.
    fn end(&mut self);

    /// Called with the measurements of an epoch.
    fn report(&mut self, metrics: &EpochMetrics);
}

/// `()` shows no progress.
impl Progress for () {
    fn begin(&mut self, _: u32, _: u32, _: u64) {}
    fn set(&mut self, _: u64) {}
    fn end(&mut self) {}
    fn report(&mut self, _: &EpochMetrics) {}
}

/// A training run: an engine with its state, and a folder for the results.
pub struct Run {
    config: TrainConfig,
    folder: PathBuf,
    /// The lock that keeps other processes out of the folder.
    lock: Option<RunFolder>,
    place: Place,
    /// The engine; `None` if no epoch is left to train.
    engine: Option<Box<dyn Engine>>,
    state: State,
    generator: Generator,
    /// The numbers of training and test images.
    samples: (i64, i64),
    /// The labels of the test images.
    test_labels: Tensor,
    /// What was changed or left out when the data were read.
    notes: Vec<String>,
    metrics: Vec<EpochMetrics>,
    epoch: u32,
    partial: Partial,
    /// The event files for TensorBoard, if the settings ask for them.
    board: Option<Board>,
}

/// The number of steps done in the current epoch, and the sums over their samples.
#[derive(Default)]
struct Partial {
    step: u64,
    loss_sum: f64,
    misclassified: u64,
    seconds: f64,
}

impl Run {
    /// Starts a run in a new folder: reads the data, draws the weights or takes `init` with its
    /// network, and writes `config.json`. `place` is where it trains: a device, perhaps together
    /// with other processes, of which one writes the files.
    ///
    /// # Errors
    /// If a setting is out of range, a file cannot be read, or `folder` already holds a run.
    pub fn start(
        config: TrainConfig,
        init: Option<Weights>,
        folder: &Path,
        place: impl Into<Place>,
    ) -> Result<Self> {
        let place = place.into();
        let config = match &init {
            Some(weights) => TrainConfig { model: weights.config.clone(), ..config },
            None => config,
        };
        config.validate()?;
        if !place.writes() {
            return Self::initialise(config, folder, place, init);
        }
        let lock = RunFolder::open(folder)?;
        // A run that was killed at its start has settings and no checkpoint yet. It may start
        // again.
        let begun = folder.join("config.json").exists();
        let results = ["metrics.jsonl", "model.pt", "curve.png"];
        let charts = config.tensorboard && tensorboard::newest(folder)?.is_some();
        let foreign = !begun && (charts || results.iter().any(|name| folder.join(name).exists()));
        if checkpoint_path(folder).exists() || foreign {
            return Err(Error::file(
                folder,
                format!(
                    "holds a run already; go on with it by --resume {}, or choose another --out",
                    files::shown(folder)
                ),
            ));
        }
        let config = TrainConfig { run: Some(folder::new_run_id()), ..config };
        let mut run = match Self::initialise(config, folder, place, init) {
            Ok(run) => Self { lock: Some(lock), ..run },
            Err(error) => {
                drop(lock);
                // The folder is removed only if it is still empty.
                let _ = fs::remove_dir(folder);
                return Err(error);
            }
        };
        run.write_config()?;
        run.write_model()?;
        if let Some(board) = &mut run.board {
            board.write_weights(&engine::weights(&run.config.model, &run.state)?)?;
        }
        run.save(&run.generator.state()?)?;
        Ok(run)
    }

    /// Draws the weights if there are none, and opens the engine.
    fn initialise(
        config: TrainConfig,
        folder: &Path,
        place: Place,
        init: Option<Weights>,
    ) -> Result<Self> {
        let mut generator = Generator::seeded(config.seed)?;
        let weights = match init {
            Some(weights) => weights,
            None => generator.draw(|| LeNet5::random(&config.model, Device::Cpu))??.weights()?,
        };
        let tensors = weights.tensors.into_iter().map(|(_, array)| array).collect();
        let state = State { tensors, optimizer: OptimizerState::Empty };
        Self::open(config, folder, place, state, generator, 0)
    }

    /// Continues the run in `folder` from its checkpoint. The results have the same bits as those
    /// of an uninterrupted run. `config` is the result of [`read_config`]; its epochs, device,
    /// threads, engine and `tensorboard` may have been changed.
    ///
    /// # Errors
    /// If `folder` holds no run, or a file in it is damaged.
    pub fn resume(config: TrainConfig, folder: &Path, place: impl Into<Place>) -> Result<Self> {
        let place = place.into();
        config.validate()?;
        let path = checkpoint_path(folder);
        fs::metadata(&path).map_err(Error::io(&path))?;
        let writes = place.writes();
        let lock = writes.then(|| RunFolder::open(folder)).transpose()?;
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
        let stepped = (checkpoint.epoch, checkpoint.step) != (0, 0);
        check_optimizer(&config.optimizer, &checkpoint.optimizer, stepped)
            .map_err(|message| Error::file(&path, format!("optimizer state: {message}")))?;
        let generator = Generator::from_state(&checkpoint.generator)
            .map_err(|error| Error::file(&path, format!("rng_state: {error}")))?;
        let tensors = checkpoint.weights.tensors.into_iter().map(|(_, array)| array).collect();
        let state = State { tensors, optimizer: checkpoint.optimizer };
        let mut run = Self::open(config, folder, place, state, generator, checkpoint.epoch)?;
        run.lock = lock;
        run.partial = Partial {
            step: checkpoint.step,
            loss_sum: checkpoint.loss_sum,
            misclassified: checkpoint.misclassified,
            seconds: checkpoint.seconds,
        };
        let steps = run.steps_per_epoch();
        if run.partial.step >= steps {
            return Err(Error::file(
                &path,
                format!("expected a step below {steps}, found {}: other data?", checkpoint.step),
            ));
        }
        if !writes {
            return Ok(run);
        }
        let lines = read_metrics(folder)?;
        run.metrics = folder::repair_metrics(folder, lines, run.epoch, run.config.run.as_deref())?;
        // The other files of the run may be missing, so they are written again.
        run.write_config()?;
        if run.epoch > 0 {
            run.write_metrics()?;
        }
        run.write_model()?;
        Ok(run)
    }

    /// Reads the data, and opens the engine if an epoch is left.
    fn open(
        config: TrainConfig,
        folder: &Path,
        place: Place,
        state: State,
        generator: Generator,
        epoch: u32,
    ) -> Result<Self> {
        let left = epoch < config.epochs;
        // The settings are checked even if no epoch is left.
        let kind = engine::choose(&config, &place)?;
        let preparation = left.then(|| Preparation::start(kind, &config, place.device));
        let data = read_data(&config)?;
        let engine =
            preparation.map(|engine| engine.open(&config, &state, &data, &place)).transpose()?;
        let board = (config.tensorboard && place.writes())
            .then(|| Board::new(folder, &data.test, config.validation.is_some()));
        Ok(Self {
            folder: folder.to_owned(),
            lock: None,
            place,
            engine,
            state,
            generator,
            samples: (data.train.len(), data.test.len()),
            test_labels: data.test.labels().shallow_clone(),
            notes: data.train.notes().to_vec(),
            config,
            metrics: Vec::new(),
            epoch,
            partial: Partial::default(),
            board,
        })
    }

    /// Trains to the last epoch, or until `stop` is set, which is checked after each step.
    ///
    /// # Errors
    /// If training diverges: the loss or a parameter is not finite, or far outside the range of
    /// successful training. The previous checkpoint is then kept. Also if a file cannot be
    /// written.
    pub fn train(
        &mut self,
        stop: &AtomicBool,
        progress: &mut (dyn Progress + Send),
    ) -> Result<Outcome> {
        let epochs = self.config.epochs;
        let steps = self.steps_per_epoch();
        while self.epoch < epochs {
            // A checkpoint within the epoch holds the state of the generator from which the order
            // of the images is drawn again.
            let generator = self.generator.state()?;
            let order = self.draw_order()?;
            let learning_rates: Vec<f64> = (0..steps)
                .map(|step| {
                    let (rate, at) = (self.config.learning_rate, (self.epoch, epochs));
                    self.config.schedule.learning_rate(rate, at, (step, steps))
                })
                .collect();
            let totals = self.train_epoch(&order, &learning_rates, stop, progress)?;
            let interrupted = self.partial.step < steps;
            self.state = self.engine()?.state()?;
            if interrupted {
                let images = self.partial.step as i64 * self.config.batch_size;
                let samples = self.samples.0.min(images) as f64;
                self.check(MeasuredLoss::Training(self.partial.loss_sum / samples))?;
                self.save(&generator)?;
                return Ok(Outcome::Interrupted);
            }
            let metrics = self.finish_epoch(learning_rates[steps as usize - 1], &totals)?;
            progress.report(&metrics);
            if stop.load(Ordering::Relaxed) && self.epoch < epochs {
                return Ok(Outcome::Interrupted);
            }
        }
        let points: Vec<_> = self.metrics.iter().map(EpochMetrics::curve_point).collect();
        if self.place.writes() {
            charts::curve(&self.folder.join("curve.png"), &points)?;
        }
        Ok(Outcome::Finished)
    }

    /// Draws the order of the images in an epoch.
    fn draw_order(&mut self) -> Result<Vec<i64>> {
        if self.config.order == Order::Constant {
            self.generator = Generator::seeded(self.config.seed)?;
        }
        let count = self.samples.0;
        let order = self.generator.draw(|| Tensor::randperm(count, (Kind::Int64, Device::Cpu)))?;
        Ok(Vec::try_from(order)?)
    }

    /// Trains the remaining steps of an epoch, and adds their results to the partial sums.
    fn train_epoch(
        &mut self,
        order: &[i64],
        learning_rates: &[f64],
        stop: &AtomicBool,
        progress: &mut (dyn Progress + Send),
    ) -> Result<Totals> {
        let done = self.partial.step;
        let epoch = Epoch { number: self.epoch, order, learning_rates, done };
        progress.begin(self.epoch + 1, self.config.epochs, order.len() as u64);
        let batch_size = self.config.batch_size as u64;
        let start = Instant::now();
        let mut step = done;
        let mut after_step = |now: u64| {
            step = now;
            progress.set(step * batch_size);
            match stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let totals = self.engine()?.train(&epoch, &mut after_step);
        progress.end();
        let totals = totals?;
        self.partial.step = step;
        self.partial.loss_sum += totals.loss;
        self.partial.misclassified += totals.misclassified;
        self.partial.seconds += start.elapsed().as_secs_f64();
        Ok(totals)
    }

    fn engine(&mut self) -> Result<&mut Box<dyn Engine>> {
        self.engine.as_mut().ok_or_else(|| Error::config("no epoch is left to train"))
    }

    fn steps_per_epoch(&self) -> u64 {
        (self.samples.0 as u64).div_ceil(self.config.batch_size as u64)
    }

    /// Returns the logits of the test images: (N, classes).
    fn logits(&mut self) -> Result<Tensor> {
        let logits = self.engine()?.logits()?;
        if logits.iter().any(|logit| !logit.is_finite()) {
            self.check(MeasuredLoss::Test(f64::NAN))?;
        }
        let shape = [self.samples.1, self.config.model.classes as i64];
        Ok(Tensor::f_from_slice(&logits)?.f_reshape(shape)?)
    }

    /// Returns an error if the network has diverged. Then nothing is saved, and the previous
    /// checkpoint is kept.
    fn check(&self, found: MeasuredLoss) -> Result<()> {
        check_divergence(&self.config, &self.state, found).map_err(|what| {
            let (epoch, rate) = (self.epoch + 1, self.config.learning_rate);
            let rate = if rate < 1e4 { rate.to_string() } else { format!("{rate:e}") };
            Error::config(format!(
                "training diverged in epoch {epoch} at --lr {rate}: {what}; {} still holds the state \
                 before it; start again with a smaller --lr",
                files::shown(&checkpoint_path(&self.folder))
            ))
        })
    }

    /// Evaluates the network, and writes all files of the run.
    fn finish_epoch(&mut self, learning_rate: f64, totals: &Totals) -> Result<EpochMetrics> {
        let Partial { loss_sum, misclassified, seconds, .. } = self.partial;
        let samples = self.samples.0 as f64;
        let train_loss = loss_sum / samples;
        self.check(MeasuredLoss::Training(train_loss))?;
        let logits = self.logits()?;
        let evaluation = Evaluation::new(&logits, &self.test_labels)?;
        self.check(MeasuredLoss::Test(evaluation.loss))?;
        self.epoch += 1;
        self.partial = Partial::default();
        let percent = 100.0 * misclassified as f64 / samples;
        let metrics = EpochMetrics {
            epoch: self.epoch,
            train_loss,
            test_loss: evaluation.loss,
            test_error_percent: evaluation.error_percent,
            train_error_percent: self.config.train_error.then_some(percent),
            seconds,
            images_per_second: samples / seconds,
            learning_rate,
            parameter_rates: totals.parameter_rates,
            run: self.config.run.clone(),
        };
        self.metrics.push(metrics.clone());
        if self.place.writes() {
            self.write_metrics()?;
            self.write_model()?;
        }
        // The events come before the checkpoint. If the run is killed between the two, it trains
        // the epoch again, and its new events supersede these.
        if let Some(board) = &mut self.board {
            let weights = engine::weights(&self.config.model, &self.state)?;
            board.write_epoch(&metrics, &weights, &logits)?;
        }
        self.save(&self.generator.state()?)?;
        Ok(metrics)
    }

    /// Starts to measure how long each part of a step takes.
    ///
    /// # Errors
    /// If the engine cannot measure.
    pub fn measure(&mut self) -> Result<()> {
        self.engine.as_mut().map_or(Ok(()), |engine| engine.measure())
    }

    /// Returns the times that were measured, as a table.
    ///
    /// # Errors
    /// If the GPU's driver reports an error.
    pub fn profile(&self) -> Result<Option<String>> {
        self.engine.as_ref().map_or(Ok(None), |engine| engine.profile())
    }

    /// Returns a copy of the network's weights after the last step.
    ///
    /// # Errors
    /// If the tensors do not fit the settings, which does not happen in a run that has started.
    pub fn weights(&self) -> Result<Weights> {
        engine::weights(&self.config.model, &self.state)
    }

    /// Returns the settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Returns the number of epochs that are done.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Returns the device of training.
    pub fn device(&self) -> Device {
        self.place.device
    }

    /// Returns the numbers of training and test images.
    pub fn samples(&self) -> (i64, i64) {
        self.samples
    }

    /// Returns what was changed or left out when the data were read, in sentences for the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn write_config(&self) -> Result<()> {
        write_json(&self.folder.join("config.json"), &self.config)
    }

    fn write_model(&self) -> Result<()> {
        weights::write(&self.weights()?, &self.folder.join("model.pt"), Format::TorchScript)
    }

    fn write_metrics(&self) -> Result<()> {
        let line = |metrics| serde_json::to_string(metrics).expect("metrics are plain data") + "\n";
        let text: String = self.metrics.iter().map(line).collect();
        Ok(files::write_atomic(&metrics_path(&self.folder), text.as_bytes())?)
    }

    fn save(&self, generator: &crate::Array) -> Result<()> {
        if !self.place.writes() {
            return Ok(());
        }
        let checkpoint = Checkpoint {
            weights: self.weights()?,
            optimizer: self.state.optimizer.clone(),
            generator: generator.clone(),
            epoch: self.epoch,
            step: self.partial.step,
            loss_sum: self.partial.loss_sum,
            misclassified: self.partial.misclassified,
            seconds: self.partial.seconds,
            settings: Some(serde_json::to_string(&self.config).expect("settings are plain data")),
        };
        Ok(checkpoint.write(&checkpoint_path(&self.folder), self.param_group())?)
    }

    /// Returns the optimizer's settings by the names of `torch.optim`.
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

impl EpochMetrics {
    /// Returns the epoch's point in the learning curve.
    pub fn curve_point(&self) -> CurvePoint {
        CurvePoint {
            epoch: self.epoch,
            train_loss: self.train_loss,
            test_loss: self.test_loss,
            test_error_percent: self.test_error_percent,
            train_error_percent: self.train_error_percent,
        }
    }
}

/// Reads the training images and the images for evaluation.
fn read_data(config: &TrainConfig) -> Result<Data> {
    let (path, classes) = (config.data.as_deref(), config.model.classes);
    let open = |split| Dataset::open(path, split, classes, config.fit);
    let train = open(Split::Train)?;
    let (train, test) = match config.validation {
        Some(held_out) if held_out < train.len() => train.split(train.len() - held_out),
        Some(held_out) => {
            let expected = train.len() - 1;
            return Err(Error::config(format!(
                "validation: expected {expected} images or fewer, found {held_out}"
            )));
        }
        None if train.has_parts() => (train, open(Split::Test)?),
        // A network that learns a new hand is tested on what it knew.
        None if config.mnist_share.is_some() => (train, Dataset::embedded(Split::Test, classes)?),
        None => {
            let message = format!(
                "expected training and test images, found {} images without parts: hold some of them out, as \
                 in --validation {}",
                train.len(),
                (train.len() / 5).max(1)
            );
            return Err(Error::file(path.unwrap_or(Path::new("embedded MNIST")), message));
        }
    };
    let train = train.first(config.limit.unwrap_or(i64::MAX));
    let train = match config.mnist_share {
        None => train,
        Some(share) => {
            let mnist = Dataset::embedded(Split::Train, classes)?;
            let wanted = mnist.len() as f64 * (1.0 - share) / share;
            let times = (wanted / train.len() as f64).round().max(1.0) as i64;
            mnist.and(&train, times)?
        }
    };
    Ok(Data { train, test })
}

/// Checks that a saved state belongs to the optimizer. Most optimizers have a state after the first
/// step.
fn check_optimizer(
    settings: &OptimizerConfig,
    state: &OptimizerState,
    stepped: bool,
) -> Result<(), String> {
    let kept = match settings {
        OptimizerConfig::Sgd { momentum: 0.0, .. } => "",
        OptimizerConfig::Sgd { .. } => "momentum_buffer",
        OptimizerConfig::Adam { .. } | OptimizerConfig::AdamW { .. } => "step, exp_avg, exp_avg_sq",
        OptimizerConfig::Sdlm { .. } => "curvature",
    };
    let found = match state {
        OptimizerState::Sgd { .. } => "momentum_buffer",
        OptimizerState::Adam { .. } => "step, exp_avg, exp_avg_sq",
        OptimizerState::Sdlm { .. } => "curvature",
        _ => "",
    };
    match (kept, found) {
        ("", "") => Ok(()),
        (kept, "") if stepped => Err(format!("expected {kept} of each parameter, found none")),
        (_, "") => Ok(()),
        (kept, found) if kept == found => Ok(()),
        ("", found) => Err(format!("expected none, found {found}")),
        (kept, found) => Err(format!("expected {kept}, found {found}")),
    }
}

/// Returns the path of a run's measurements.
fn metrics_path(folder: &Path) -> PathBuf {
    folder.join("metrics.jsonl")
}

/// Returns the path of a run's checkpoint.
pub fn checkpoint_path(folder: &Path) -> PathBuf {
    folder.join("checkpoint.pth")
}

/// Reads the settings of the run in `folder`.
///
/// # Errors
/// If there is no run, or its `config.json` is damaged.
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

/// Reads the measurements of the run in `folder`.
///
/// # Errors
/// If `metrics.jsonl` is damaged.
pub fn read_metrics(folder: &Path) -> Result<Vec<EpochMetrics>> {
    folder::read_lines(&metrics_path(folder))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("settings are plain data") + "\n";
    Ok(files::write_atomic(path, text.as_bytes())?)
}

/// Creates the first of the folders `parent/1`, `parent/2`, ... that does not exist yet.
///
/// # Errors
/// If the folder cannot be created.
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
