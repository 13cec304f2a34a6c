//! Between the engine's parameters and libtorch's.

use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::parameters::C5;
use super::{Bytes, Engine, Images, Optimizer, Parameters, Settings, Single};
use crate::data::images::SIDE;
use crate::data::{Dataset, to_input};
use crate::libtorch::with_threads;
use crate::model::{Activation, Input, LeNet5, ModelConfig, Pooling};
use crate::optim::{self, OptimizerConfig};
use crate::{Error, Result};

impl Settings {
    /// Of a modern network whose activation is tanh or relu.
    pub fn of(config: &ModelConfig) -> Settings {
        Settings {
            relu: config.activation == Activation::Relu,
            max: config.pooling == Pooling::Max,
            corner: config.input.size() == 28,
        }
    }
}

impl Engine {
    /// For a modern network whose activation is tanh or relu, on as many threads as libtorch.
    pub fn of(config: &ModelConfig) -> Engine {
        Engine::new(Settings::of(config), config.classes as usize)
            .with_threads(tch::get_num_threads().max(1) as usize)
    }

    /// The logits of all images of a data set: (N, classes).
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn evaluate(&mut self, model: &LeNet5, data: &Dataset) -> Result<Tensor> {
        let config = model.config();
        let bytes = Bytes::of(data, config)?;
        let places: Vec<_> = (0..data.len()).collect();
        let images = Images::Bytes(&bytes, &places);
        let logits = self.logits(&Parameters::of(model), images, places.len());
        Ok(Tensor::f_from_slice(&logits)?.f_reshape([data.len(), config.classes])?)
    }
}

impl Single {
    /// For a modern network whose activation is tanh or relu.
    pub fn of(model: &LeNet5) -> Single {
        Single::new(Settings::of(model.config()), &Parameters::of(model))
    }
}

/// Operations per second of libtorch's matrix product, 1,024 x 1,024, on one thread.
pub fn sgemm() -> f64 {
    let x = Tensor::ones([1024, 1024], (Kind::Float, Device::Cpu));
    let time = || {
        let start = Instant::now();
        let _ = x.matmul(&x);
        start.elapsed().as_secs_f64()
    };
    let best = with_threads(1, || (0..8).map(|_| time()).fold(f64::INFINITY, f64::min));
    2.0 * 1024_f64.powi(3) / best
}

/// Images (N, 1, S, S) on the CPU as [`Images::Pixels`] takes them, one after the other.
///
/// # Errors
/// Where libtorch refuses.
pub fn pixels(images: &Tensor) -> Result<Vec<f32>> {
    let rest = 32 - images.size()[3];
    Ok(Vec::try_from(images.f_constant_pad_nd([0, rest, 0, rest])?.flatten(0, -1))?)
}

/// The images of a data set that is resized for the network: (N, S, S), uint8. Of 32x32 the border goes where it takes
/// 28x28.
pub(in crate::engine) fn pictures(data: &Dataset, config: &ModelConfig) -> Tensor {
    let images = match (config.input.size(), data.images().size()[2]) {
        (28, 32) => data.images().narrow(1, 2, 28).narrow(2, 2, 28),
        _ => data.images().shallow_clone(),
    };
    images.contiguous()
}

impl Bytes {
    /// The images of a data set on the CPU, and how the network takes them.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn of(data: &Dataset, config: &ModelConfig) -> Result<Bytes> {
        let images = pictures(&data.resized(config)?, config);
        let grey = Vec::<u8>::try_from(images.flatten(0, -1))?;
        Self::new(grey, images.size()[2] as usize, config)
    }

    /// No pictures of 28x28, and how a network takes such as are not resized.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn none(config: &ModelConfig) -> Result<Bytes> {
        Self::new(Vec::new(), SIDE, config)
    }

    /// Pictures of `size` x `size`, 28 or 32.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub(in crate::engine) fn new(
        grey: Vec<u8>,
        size: usize,
        config: &ModelConfig,
    ) -> Result<Bytes> {
        // All grey values in a picture of the input's size, and a blank picture of 28x28.
        let mut all = [0_u8; 1024];
        for (value, grey) in (0..=255).zip(&mut all) {
            *grey = value;
        }
        let pixels = |grey: &[u8], size: i64| {
            let grey = &grey[..(size * size) as usize];
            let picture = Tensor::f_from_data_size(grey, &[1, size, size], Kind::Uint8)?;
            Ok::<_, Error>(Vec::<f32>::try_from(to_input(&picture, config).flatten(0, -1))?)
        };
        let mut levels = [0.0; 256];
        levels.copy_from_slice(&pixels(&all, config.input.size())?[..256]);
        let border = pixels(&[0; 784], 28)?[0];
        let at = if config.input.size() == 28 { 0 } else { (32 - size) / 2 };
        let frame = if config.input == Input::ZeroPadded { at } else { 0 };
        Ok(Bytes { grey, size, at, frame, levels, border })
    }
}

/// Whether this is the weight of C5 where the input is 28x28: 16 x 4 x 4 of 16 x 5 x 5, the others being 0.
fn is_c5_of_28(parameter: &Tensor) -> bool {
    parameter.numel() == 120 * 256
}

impl Parameters {
    /// Those of a modern network.
    pub fn of(model: &LeNet5) -> Parameters {
        let tensors = model.parameter_tensors();
        let mut parameters = Parameters::zeros(model.config().classes as usize);
        parameters.read(&tensors);
        parameters
    }

    /// Takes the values of the network's parameters, in their order, float32 on the CPU.
    pub fn read(&mut self, tensors: &[Tensor]) {
        let mut rest = &mut self.0[..];
        for tensor in tensors {
            let (corner, tensor) = (is_c5_of_28(tensor), tensor.detach());
            let length = if corner { C5.bias - C5.weight } else { tensor.numel() };
            let (values, after) = rest.split_at_mut(length);
            let tensor = match corner {
                true => tensor.reshape([120, 16, 4, 4]).constant_pad_nd([0, 1, 0, 1]),
                false => tensor,
            };
            tensor.contiguous().flatten(0, -1).copy_data(values, values.len());
            rest = after;
        }
    }

    /// As tensors of the shapes of the network's parameters.
    pub fn to_tensors(&self, parameters: &[Tensor]) -> Vec<Tensor> {
        let mut rest = &self.0[..];
        let mut tensors = Vec::new();
        for parameter in parameters {
            let corner = is_c5_of_28(parameter);
            let length = if corner { C5.bias - C5.weight } else { parameter.numel() };
            let (values, after) = rest.split_at(length);
            let tensor = match Tensor::from_slice(values) {
                all if corner => all.reshape([120, 16, 5, 5]).narrow(2, 0, 4).narrow(3, 0, 4),
                all => all,
            };
            tensors.push(tensor.reshape(parameter.size()));
            rest = after;
        }
        tensors
    }

    /// Writes them to the network's parameters.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn store(&self, parameters: &[Tensor]) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        for (values, parameter) in self.to_tensors(parameters).iter().zip(parameters) {
            parameter.shallow_clone().f_copy_(values)?;
        }
        Ok(())
    }
}

impl Optimizer {
    /// With the state of an optimizer of libtorch's.
    ///
    /// # Errors
    /// Where it has the state of some of the parameters only, or their steps differ.
    pub fn read(&mut self, optimizer: &dyn optim::Optimizer, parameters: &[Tensor]) -> Result<()> {
        let state = optimizer.state();
        if state.is_empty() {
            return Ok(());
        }
        let refused = || Error::Config("optimizer state: expected that of all parameters".into());
        for (name, values) in self.rule.config.running_state().iter().zip(&mut self.state) {
            let entry = |entries: Vec<(&str, Tensor)>| {
                entries.into_iter().find(|(other, _)| other == name).map(|(_, tensor)| tensor)
            };
            let tensors: Option<Vec<_>> = optimizer.state().into_iter().map(entry).collect();
            let tensors =
                tensors.filter(|all| all.len() == parameters.len()).ok_or_else(refused)?;
            values.read(&tensors);
        }
        let mut steps = state.iter().flatten().filter(|(name, _)| *name == "step");
        let mut step = || steps.next().map(|(_, step)| step.double_value(&[]));
        self.rule.steps = step().unwrap_or(1.0);
        while let Some(other) = step() {
            if other != self.rule.steps {
                return Err(refused());
            }
        }
        Ok(())
    }

    /// Writes the state to an optimizer of libtorch's.
    ///
    /// # Errors
    /// Where that refuses it.
    pub fn store(&self, optimizer: &mut dyn optim::Optimizer, parameters: &[Tensor]) -> Result<()> {
        if self.rule.steps == 0.0 || self.rule.config.running_state().is_empty() {
            return Ok(());
        }
        let mut all: Vec<Vec<(String, Tensor)>> = parameters.iter().map(|_| Vec::new()).collect();
        for (name, values) in self.rule.config.running_state().iter().zip(&self.state) {
            for (entries, tensor) in all.iter_mut().zip(values.to_tensors(parameters)) {
                entries.push(((*name).to_owned(), tensor));
            }
        }
        if !matches!(self.rule.config, OptimizerConfig::Sgd { .. }) {
            for entries in &mut all {
                let steps = Tensor::f_from_slice(&[self.rule.steps])?.to_device(Device::Cpu);
                entries.push(("step".to_owned(), steps.reshape([])));
            }
        }
        optimizer.load_state(&all)
    }
}
