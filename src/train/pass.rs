//! A pass over the training images, by either engine.

use std::sync::mpsc;

use tch::{Device, Kind, Tensor};

use super::config::TrainConfig;
use crate::Result;
use crate::data::Dataset;
use crate::engine::fused::{self, Images};
use crate::engine::original::{Network, PIXELS, Rates, Sum, Work};
use crate::engine::warp::Warp;
use crate::engine::{self, Trainer};
use crate::model::LeNet5;
use crate::optim::Optimizer;

/// Over the samples of a pass: the losses, and those misread before their step.
#[derive(Default)]
pub(super) struct Sums {
    pub loss: f64,
    /// By libtorch only where the settings ask for it.
    pub misread: u64,
}

/// What a pass goes over, and how.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub config: &'a TrainConfig,
    pub data: &'a Dataset,
    /// From 0.
    pub epoch: u32,
    /// The places of the images in the data, in the order of the pass.
    pub order: &'a [i64],
    /// Steps that were done before.
    pub done: u64,
    /// The learning rate of a step; steps count from 0.
    pub learning_rate: &'a (dyn Fn(u64) -> f64 + Sync),
}

impl<'a> Pass<'a> {
    /// Steps with autograd on libtorch's kernels, in the arithmetic order of a PyTorch script. `stop` is
    /// given the number of steps done after each of them.
    pub fn by_libtorch(
        self,
        model: &LeNet5,
        optimizer: &mut dyn Optimizer,
        stop: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Sums> {
        let parameters = model.parameter_tensors();
        let (mut losses, mut misread) = (Vec::new(), Vec::new());
        for (step, places) in self.chunks(1) {
            let (images, labels) = batch(self.config, self.data, self.epoch, places);
            let logits = self.config.forward(model, &images)?;
            let loss = self.config.loss.of(&logits, &labels);
            let gradients = Tensor::f_run_backward(&[&loss], &parameters, false, false)?;
            optimizer.step(&gradients, (self.learning_rate)(step))?;
            losses.push((loss.detach(), labels.size()[0]));
            if self.config.train_error {
                let wrong = logits.argmax(1, false).not_equal_tensor(&labels);
                misread.push(wrong.sum(Kind::Int64));
            }
            if stop(step + 1) {
                break;
            }
        }
        let misread = match misread.is_empty() {
            true => 0,
            false => Tensor::f_stack(&misread, 0)?.sum(Kind::Int64).f_int64_value(&[])? as u64,
        };
        Ok(Sums { loss: sum(&losses)?, misread })
    }

    /// The same for the original network by its hand-written engine; `rates` makes the weights' rates of a
    /// learning rate.
    pub fn original_by_engine(
        self,
        model: &LeNet5,
        rates: &dyn Fn(f64) -> Rates,
        stop: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Sums> {
        let mut network = Network::of(model, self.config.loss)?;
        let classes = model.config().classes as usize;
        let (mut work, mut gradient, mut sums) = (Work::new(), Sum::new(), Sums::default());
        let mut current = (f64::NAN, Rates::constant(0.0));
        self.each_batch(|step, images, labels| {
            let learning_rate = (self.learning_rate)(step);
            if learning_rate != current.0 {
                current = (learning_rate, rates(learning_rate));
            }
            if let ([image], [label]) = (images, labels) {
                let label = usize::from(*label);
                sums.loss += f64::from(network.step(image, label, &current.1));
                sums.misread += u64::from(network.answer() != label);
            } else {
                gradient.clear();
                for (image, label) in images.iter().zip(labels) {
                    let label = usize::from(*label);
                    let loss = network.add_gradient(&mut work, image, label, &mut gradient);
                    sums.loss += f64::from(loss);
                    sums.misread += u64::from(work.answer(classes) != label);
                }
                network.apply(&gradient, &current.1);
            }
            Ok(stop(step + 1))
        })?;
        network.store(model)?;
        Ok(sums)
    }

    /// The same for the modern network by its hand-written engine, on the bytes of the data. Parameters and
    /// state are the engine's own until the pass ends.
    pub fn modern_by_engine(
        self,
        engine: &mut fused::Engine,
        bytes: &fused::Bytes,
        model: &LeNet5,
        optimizer: &mut dyn Optimizer,
        stop: &mut (dyn FnMut(u64) -> bool + Send),
    ) -> Result<Sums> {
        let tensors = model.parameter_tensors();
        let mut parameters = fused::Parameters::of(model);
        let mut state = fused::Optimizer::new(self.config.optimizer, parameters.classes());
        state.read(optimizer, &tensors)?;
        let (mut gradient, mut sums) = (parameters.clone(), Sums::default());
        let learning_rate = self.learning_rate;
        let labels = Vec::<u8>::try_from(self.data.labels().to_kind(Kind::Uint8))?;
        let warp = self.warp();
        let mut chunks = self.chunks(1);
        engine.within(|engine| {
            chunks.any(|(step, places)| {
                let labels: Vec<_> = places.iter().map(|at| labels[*at as usize]).collect();
                let images = match &warp {
                    None => Images::Bytes(bytes, places),
                    Some(warp) => Images::Warped(bytes, places, warp),
                };
                let mean = engine.gradient(&parameters, images, &labels, &mut gradient);
                sums.loss += mean * labels.len() as f64;
                sums.misread += engine.misread();
                engine.update(&mut parameters, &gradient, &mut state, learning_rate(step));
                stop(step + 1)
            })
        });
        parameters.store(&tensors)?;
        state.store(optimizer, &tensors)?;
        Ok(sums)
    }

    /// The same by a trainer, which keeps parameters and state until they are stored.
    pub fn by_trainer(
        self,
        trainer: &mut dyn Trainer,
        model: &LeNet5,
        stop: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Sums> {
        let rates: Vec<_> =
            self.chunks(1).map(|(step, _)| (self.learning_rate)(step) as f32).collect();
        let order = engine::Order { places: self.left(), rates: &rates, epoch: self.epoch };
        let (loss, misread) = trainer.pass(model, &order, &mut |steps| stop(self.done + steps))?;
        Ok(Sums { loss, misread })
    }

    /// Calls `work` with each step to come, its images and its labels, until it is told to stop. Another
    /// thread makes the batches a few ahead.
    fn each_batch(
        &self,
        mut work: impl FnMut(u64, &[[f32; PIXELS]], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let size = self.config.batch_size as usize;
        let (sender, receiver) = mpsc::sync_channel(16);
        let (config, data, epoch) = (self.config, self.data.first(i64::MAX), self.epoch);
        // Blocks of 32 images or one batch: of so few, libtorch does not share out the work among threads.
        let blocks = self.chunks(32usize.div_ceil(size));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for (step, places) in blocks {
                    let (images, labels) = batch(config, &data, epoch, places);
                    let pixels = fused::pixels(&images).expect("float32");
                    let labels = Vec::<u8>::try_from(labels.to_kind(Kind::Uint8)).expect("uint8");
                    // Nobody listens any more where the pass was stopped.
                    if sender.send((step, pixels, labels)).is_err() {
                        break;
                    }
                }
            });
            for (first, pixels, labels) in receiver {
                let images = pixels.as_chunks::<PIXELS>().0.chunks(size);
                for (step, (images, labels)) in (first..).zip(images.zip(labels.chunks(size))) {
                    if work(step, images, labels)? {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    /// The steps to come, so many at a time: the first one's number, and the places of their images.
    fn chunks(&self, steps: usize) -> impl Iterator<Item = (u64, &'a [i64])> + Send + use<'a> {
        let size = self.config.batch_size as usize;
        (self.done..).step_by(steps).zip(self.left().chunks(steps * size))
    }

    /// The places of the images to come.
    fn left(&self) -> &'a [i64] {
        let done = self.done as usize * self.config.batch_size as usize;
        self.order.get(done..).unwrap_or_default()
    }

    /// Where images are distorted: how the one at a place is.
    fn warp(&self) -> Option<impl Fn(i64) -> Warp + Sync + use<'a>> {
        self.config.warp(self.data.distorted_side(&self.config.model), self.epoch)
    }
}

/// The images and labels at these places, distorted where the settings say so.
fn batch(config: &TrainConfig, data: &Dataset, epoch: u32, places: &[i64]) -> (Tensor, Tensor) {
    let indices = Tensor::from_slice(places);
    match &config.distortions {
        None => data.batch(&indices, &config.model),
        Some(distortions) => {
            data.distorted(&indices, &config.model, distortions, (config.seed, epoch))
        }
    }
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
