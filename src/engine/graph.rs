//! Training on an NVIDIA GPU without a word between GPU and host for some steps at a time: what libtorch launches
//! for them is recorded once, as a CUDA graph, and replayed for every such piece of an epoch.
//!
//! What changes from step to step is in tensors on the GPU: the places of the images, the learning rates, the
//! number of the optimizer's step, the sum of the losses. Each piece is done as it comes the first time, which
//! also makes libtorch's kernels ready, recorded the second time, and from then on replayed. On the CPU, where
//! nothing can be recorded, all is done as it comes: so the tests reach everything but the recording.

use std::rc::Rc;

use rayon::prelude::*;
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

use super::{Order, Trainer};
use crate::data::{Dataset, Warps, to_input};
use crate::libtorch::cuda::{Graph, Stream};
use crate::libtorch::{fused_adam_, fused_sgd_};
use crate::model::LeNet5;
use crate::optim::{self, OptimizerConfig};
use crate::train::TrainConfig;
use crate::{Error, Result};

/// Steps in a piece: the fewer, the sooner all is recorded; the more, the fewer pauses. Not yet tuned on a GPU.
const STEPS: usize = 8;
/// Images of a pass through the network that only reads.
const READ_AT_ONCE: i64 = 10_000;

/// Trains and reads on one device.
pub struct Engine {
    config: TrainConfig,
    device: Device,
    optimizer: Optimizer,
    train: Dataset,
    test: Dataset,
    pieces: Vec<Piece>,
    /// Of the losses, float64, and of the images misread.
    sums: [Tensor; 2],
    /// The test images' logits: (N, classes).
    logits: Tensor,
    reading: Repeated,
    /// None on the CPU.
    stream: Option<Rc<Stream>>,
}

/// Some steps of an epoch.
struct Piece {
    /// Images of each step, and the same on the device, float64.
    sizes: Vec<i64>,
    weights: Tensor,
    /// Where these are in the data: (sum of sizes), int64.
    places: Tensor,
    /// The learning rates: (steps), float32.
    rates: Tensor,
    warps: Option<Warps>,
    work: Repeated,
}

impl Engine {
    /// For a network on `device`, data there, and an optimizer's state.
    ///
    /// # Errors
    /// Where CUDA graphs cannot be recorded, or libtorch refuses.
    pub fn new(
        config: &TrainConfig,
        model: &LeNet5,
        (train, test): (&Dataset, &Dataset),
        optimizer: &dyn optim::Optimizer,
    ) -> Result<Engine> {
        let parameters = model.parameter_tensors();
        let device = parameters[0].device();
        let stream = match device {
            Device::Cuda(index) => Some(Rc::new(Stream::new(index)?)),
            _ => None,
        };
        let classes = config.model.classes;
        Ok(Engine {
            config: config.clone(),
            device,
            optimizer: Optimizer::new(config.optimizer, parameters, optimizer)?,
            train: train.resized(&config.model)?,
            test: test.resized(&config.model)?,
            pieces: Vec::new(),
            sums: [Kind::Double, Kind::Int64].map(|kind| Tensor::zeros([], (kind, device))),
            logits: Tensor::f_zeros([test.len(), classes], (Kind::Float, device))?,
            reading: Repeated::default(),
            stream,
        })
    }
}

impl Trainer for Engine {
    /// As [`Trainer::pass`]; `stop` is asked after each piece.
    fn pass(
        &mut self,
        model: &LeNet5,
        order: &Order,
        stop: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(f64, u64)> {
        self.on_stream(|engine| {
            let (config, device) = (&engine.config, engine.device);
            let side = engine.train.distorted_side(&config.model);
            let places = Tensor::f_from_slice(order.places)?.to_device(device);
            let rates = Tensor::f_from_slice(order.rates)?.to_device(device);
            let warps = config.warp(side, order.epoch).map(|warp| {
                let warps: Vec<_> = order.places.par_iter().map(|place| warp(*place)).collect();
                Warps::new(&warps, side, device)
            });
            for sum in &mut engine.sums {
                let _ = sum.f_zero_()?;
            }
            let (mut step, mut first) = (0, 0);
            while step < order.rates.len() {
                let sizes = sizes(order.places.len() as i64 - first, engine.config.batch_size);
                let (steps, images) = (sizes.len(), sizes.iter().sum());
                let rates = rates.narrow(0, step as i64, steps as i64);
                let places = places.narrow(0, first, images);
                let warps = warps.as_ref().map(|warps| warps.narrow(first, images));
                engine.piece(model, sizes, &places, &rates, warps.as_ref())?;
                (step, first) = (step + steps, first + images);
                if stop(step as u64) {
                    break;
                }
            }
            let [loss, misread] = &engine.sums;
            Ok((loss.f_double_value(&[])?, misread.f_int64_value(&[])? as u64))
        })
    }

    fn evaluate(&mut self, model: &LeNet5) -> Result<Tensor> {
        self.on_stream(|engine| {
            let Engine { config, test, logits, reading, stream, .. } = engine;
            reading.run(stream.is_some(), &mut || {
                let _no_grad = tch::no_grad_guard();
                for first in (0..test.len()).step_by(READ_AT_ONCE as usize) {
                    let count = READ_AT_ONCE.min(test.len() - first);
                    let images = to_input(&test.images().narrow(0, first, count), &config.model);
                    logits.narrow(0, first, count).f_copy_(&model.forward(&images))?;
                }
                Ok(())
            })?;
            Ok(logits.to_device(Device::Cpu).copy())
        })
    }

    /// The parameters are the network's own.
    fn store(&self, _: &LeNet5, optimizer: &mut dyn optim::Optimizer) -> Result<()> {
        self.optimizer.store(optimizer)
    }
}

impl Engine {
    fn on_stream<R>(&mut self, work: impl FnOnce(&mut Engine) -> Result<R>) -> Result<R> {
        match self.stream.clone() {
            None => work(self),
            Some(stream) => stream.within(|| work(self)),
        }
    }

    /// Does the steps of one piece.
    fn piece(
        &mut self,
        model: &LeNet5,
        sizes: Vec<i64>,
        places: &Tensor,
        rates: &Tensor,
        warps: Option<&Warps>,
    ) -> Result<()> {
        let Engine { config, device, optimizer, train, pieces, sums, stream, .. } = self;
        let at = pieces.iter().position(|piece| piece.sizes == sizes).unwrap_or(pieces.len());
        if at == pieces.len() {
            pieces.push(Piece {
                weights: Tensor::f_from_slice(&sizes)?.to_device(*device).to_kind(Kind::Double),
                sizes,
                places: places.copy(),
                rates: rates.copy(),
                warps: warps.map(Warps::copy),
                work: Repeated::default(),
            });
        }
        let Piece { sizes, weights, places: own_places, rates: own_rates, warps: own_warps, work } =
            &mut pieces[at];
        own_places.f_copy_(places)?;
        own_rates.f_copy_(rates)?;
        if let (Some(own), Some(warps)) = (own_warps.as_mut(), warps) {
            own.copy_(warps)?;
        }
        let (places, rates) = (&*own_places, &*own_rates);
        work.run(stream.is_some(), &mut || {
            let (images, labels) = match own_warps {
                None => train.batch(places, &config.model),
                Some(warps) => train.warped(places, &config.model, warps),
            };
            let (mut first, mut losses) = (0, Vec::new());
            for (step, &size) in (0..).zip(&*sizes) {
                let [images, labels] = [&images, &labels].map(|all| all.narrow(0, first, size));
                let logits = config.forward(model, &images)?;
                let loss = config.loss.of(&logits, &labels);
                let gradients =
                    Tensor::f_run_backward(&[&loss], &optimizer.parameters, false, false)?;
                optimizer.step(&gradients, &rates.narrow(0, step, 1))?;
                losses.push(loss.detach());
                if config.train_error {
                    let wrong = logits.argmax(1, false).not_equal_tensor(&labels);
                    let _ = sums[1].f_add_(&wrong.sum(Kind::Int64))?;
                }
                first += size;
            }
            // All at once: each kernel that a step does not launch is time.
            let losses = Tensor::f_stack(&losses, 0)?.to_kind(Kind::Double);
            let _ = sums[0].f_add_(&(losses * &*weights).sum(Kind::Double))?;
            Ok(())
        })
    }
}

/// The images of each step of the next piece, of `left` images: so many whole batches, or all that is left.
fn sizes(left: i64, batch: i64) -> Vec<i64> {
    let whole = (left / batch) as usize;
    if whole >= STEPS {
        return vec![batch; STEPS];
    }
    let mut sizes = vec![batch; whole];
    sizes.extend(Some(left % batch).filter(|rest| *rest > 0));
    sizes
}

/// Work that is repeated on the same tensors.
#[derive(Default)]
struct Repeated {
    done: bool,
    graph: Option<Graph>,
}

impl Repeated {
    /// Does it as it comes at first, then records it where that is possible, and from then on replays it.
    fn run(&mut self, record: bool, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if !(self.done && record) {
            self.done = true;
            return work();
        }
        match &mut self.graph {
            Some(graph) => graph.replay(),
            none => none.insert(Graph::record(work)?).replay(),
        }
    }
}

/// An optimizer whose state, learning rate and step are in tensors.
struct Optimizer {
    config: OptimizerConfig,
    parameters: Vec<Tensor>,
    /// The running sum of gradients, or the first and the second moment, of each parameter.
    state: [Vec<Tensor>; 2],
    /// Steps of Adam: one float32.
    steps: Tensor,
    /// No step was done yet.
    fresh: bool,
}

impl Optimizer {
    fn new(
        config: OptimizerConfig,
        parameters: Vec<Tensor>,
        from: &dyn optim::Optimizer,
    ) -> Result<Optimizer> {
        let device = parameters[0].device();
        let zeros = || -> Vec<_> { parameters.iter().map(|p| p.detach().zeros_like()).collect() };
        let mut state = [zeros(), zeros()];
        let mut steps = Tensor::zeros([], (Kind::Float, device));
        let saved = from.state();
        let fresh = saved.is_empty();
        if !fresh && saved.len() != parameters.len() {
            return Err(Error::Config("optimizer state: expected that of all parameters".into()));
        }
        for (i, entries) in saved.iter().enumerate() {
            for (name, tensor) in entries {
                match config.running_state().iter().position(|other| other == name) {
                    Some(k) => state[k][i].f_copy_(tensor)?,
                    None => steps.f_copy_(tensor)?,
                }
            }
        }
        Ok(Optimizer { config, parameters, state, steps, fresh })
    }

    fn step(&mut self, gradients: &[Tensor], rate: &Tensor) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let Optimizer { parameters, state: [first, second], .. } = self;
        let decoupled = matches!(self.config, OptimizerConfig::AdamW { .. });
        match self.config {
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
            OptimizerConfig::Sdlm { .. } => unreachable!("TrainConfig::engine_on refuses it"),
        }
        self.fresh = false;
        Ok(())
    }

    fn store(&self, to: &mut dyn optim::Optimizer) -> Result<()> {
        let names = self.config.running_state();
        if self.fresh || names.is_empty() {
            return Ok(());
        }
        let steps = self.steps.to_device(Device::Cpu);
        let of_parameter = |i: usize| {
            let state = names.iter().zip(&self.state);
            let mut entries: Vec<_> =
                state.map(|(name, all)| ((*name).to_owned(), all[i].shallow_clone())).collect();
            if names.len() == 2 {
                entries.push(("step".to_owned(), steps.shallow_clone()));
            }
            entries
        };
        to.load_state(&(0..self.parameters.len()).map(of_parameter).collect::<Vec<_>>())
    }
}
