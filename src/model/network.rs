//! The modern or the original LeNet-5, chosen by the settings.

use std::path;

use lenet5_core::Weights;
use tch::nn::{Module, Path, VarStore};
use tch::{Device, Tensor};

use super::layers::assign;
use super::modern::{self, Modern};
use super::original::{self, Original};
use super::{ModelConfig, Network};
use crate::libtorch::{to_array, to_tensor};
use crate::weights::{self, Format};
use crate::{Error, Result};

/// The modern LeNet-5 or the original one.
///
/// # Shapes
/// Input (N, 1, 32, 32), or (N, 1, 28, 28) with [`Input::Unpadded`](super::Input::Unpadded); output
/// (N, classes): logits.
///
/// # Example
/// ```
/// use lenet5::model::{LeNet5, ModelConfig};
/// use tch::{Device, Kind, Tensor, nn::Module};
///
/// # fn main() -> lenet5::Result<()> {
/// tch::manual_seed(1);
/// let model = LeNet5::random(&ModelConfig::default(), Device::Cpu)?;
/// let logits = model.forward(&Tensor::zeros([2, 1, 32, 32], (Kind::Float, Device::Cpu)));
/// assert_eq!(logits.size(), [2, 10]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub enum LeNet5 {
    /// The network as it is usually written in PyTorch.
    Modern(Modern),
    /// The network of the 1998 paper.
    Original(Original),
}

impl LeNet5 {
    /// Creates a network whose parameters are drawn under `path`, layer by layer; each weight
    /// before its bias.
    ///
    /// To get the same bits as a PyTorch script with the same seed, `path` must be on the CPU: draw
    /// the parameters there, then move them with
    /// [`VarStore::set_device`](tch::nn::VarStore::set_device).
    ///
    /// # Errors
    /// If the original network has fewer codes than classes.
    pub fn new(path: &Path, config: &ModelConfig) -> Result<Self> {
        Ok(match config.network {
            Network::Modern => Self::Modern(Modern::new(path, config)),
            Network::Original => Self::Original(Original::new(path, config)?),
        })
    }

    /// Creates a network of zeros, into which weights are loaded later. It draws no random numbers.
    ///
    /// # Errors
    /// The errors of [`LeNet5::new`].
    pub fn uninitialised(path: &Path, config: &ModelConfig) -> Result<Self> {
        Ok(match config.network {
            Network::Modern => Self::Modern(Modern::uninitialised(path, config)),
            Network::Original => Self::Original(Original::uninitialised(path, config)?),
        })
    }

    /// Creates a network with new weights on `device`, drawn on the CPU as [`LeNet5::new`] does.
    ///
    /// # Errors
    /// The errors of [`LeNet5::new`].
    pub fn random(config: &ModelConfig, device: Device) -> Result<Self> {
        let mut store = VarStore::new(Device::Cpu);
        let model = Self::new(&store.root(), config)?;
        // The store is not needed any more, as the model shares its tensors.
        store.set_device(device);
        Ok(model)
    }

    /// Loads a network from a file of weights, in any of the forms that [`Weights::read`] knows, to
    /// `device`.
    ///
    /// # Errors
    /// The errors of [`Weights::read`].
    pub fn load(path: impl AsRef<path::Path>, device: Device) -> Result<Self> {
        Self::from_weights(&Weights::read(path.as_ref())?, device)
    }

    /// Creates a network with these weights on `device`.
    ///
    /// # Errors
    /// If the tensors do not fit the settings.
    pub fn from_weights(weights: &Weights, device: Device) -> Result<Self> {
        Self::with_config(weights, &weights.config, device)
    }

    /// Creates a network with these weights and other settings that lead to the same shapes.
    ///
    /// # Errors
    /// If the tensors do not fit the settings.
    pub fn with_config(weights: &Weights, config: &ModelConfig, device: Device) -> Result<Self> {
        let mut store = VarStore::new(Device::Cpu);
        let model = Self::uninitialised(&store.root(), config)?;
        let tensor = |(name, array): &(String, _)| Ok((name.clone(), to_tensor(array)?));
        model.load_state(&weights.tensors.iter().map(tensor).collect::<Result<Vec<_>>>()?)?;
        store.set_device(device);
        Ok(model)
    }

    /// Returns a copy of the weights, with the settings.
    ///
    /// # Errors
    /// If libtorch reports an error.
    pub fn weights(&self) -> Result<Weights> {
        let array = |(name, tensor): (String, Tensor)| Ok((name, to_array(&tensor)?));
        let tensors = self.state().into_iter().map(array).collect::<Result<Vec<_>>>()?;
        Ok(Weights::new(self.config().clone(), tensors)?)
    }

    /// Writes the weights to a file, completely or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<path::Path>, format: Format) -> Result<()> {
        weights::write(&self.weights()?, path.as_ref(), format)
    }

    /// Returns the settings of the network.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::Modern(model) => model.config(),
            Self::Original(model) => model.config(),
        }
    }

    fn run(&self, x: &Tensor, see: &mut dyn FnMut(&'static str, &Tensor)) -> Tensor {
        match self {
            Self::Modern(model) => model.run(x, see),
            Self::Original(model) => model.run(x, see),
        }
    }

    /// Returns the outputs of every layer by name, from c1 on: c1 (N, 6, 28, 28), s2 (N, 6, 14,
    /// 14), c3 (N, 16, 10, 10), s4 (N, 16, 5, 5), c5 (N, 120), f6 (N, 84), output (N, classes).
    pub fn layers(&self, x: &Tensor) -> Vec<(&'static str, Tensor)> {
        let mut all = Vec::new();
        let output = self.run(x, &mut |name, outputs| all.push((name, outputs.shallow_clone())));
        all.push(("output", output));
        all
    }

    /// Returns all tensors by name (`c1.weight`, `c1.bias`, ...) in the order of Python's
    /// `state_dict()`: the parameters, and the original network's codes. They share memory with the
    /// model.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let tensors = match self {
            Self::Modern(model) => model.tensors(),
            Self::Original(model) => model.tensors(),
        };
        let names = self.config().state().into_iter().map(|(name, _)| name);
        names.zip(tensors).map(|(name, tensor)| (name, tensor.shallow_clone())).collect()
    }

    /// Returns the tensors of [`LeNet5::state`] that are trained.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let fixed = |name: &str| self.config().is_fixed(name);
        self.state().into_iter().filter(|(name, _)| !fixed(name)).collect()
    }

    /// Returns the tensors of [`LeNet5::parameters`] without their names.
    pub fn parameter_tensors(&self) -> Vec<Tensor> {
        self.parameters().into_iter().map(|(_, tensor)| tensor).collect()
    }

    /// Copies tensors into the model. It is strict: each name must occur exactly once, with the
    /// right shape.
    ///
    /// # Errors
    /// If a tensor is missing or unknown, or its shape differs; the message names it.
    pub fn load_state(&self, tensors: &[(String, Tensor)]) -> Result<()> {
        let state = self.state();
        if let Some((name, _)) =
            tensors.iter().find(|(name, _)| !state.iter().any(|(ours, _)| ours == name))
        {
            return Err(Error::config(format!("{name}: no such parameter in LeNet-5")));
        }
        for (name, ours) in &state {
            let Some((_, tensor)) = tensors.iter().find(|(n, _)| n == name) else {
                return Err(Error::config(format!("{name}: missing")));
            };
            if tensor.size() != ours.size() {
                return Err(Error::config(format!(
                    "{name}: expected shape {:?}, found {:?}",
                    ours.size(),
                    tensor.size()
                )));
            }
            assign(ours, tensor)?;
        }
        Ok(())
    }
}

impl Module for LeNet5 {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.run(x, &mut |_, _| ())
    }
}

/// Returns the forward pass as TorchScript source, for files that Python runs.
pub fn torchscript_source(config: &ModelConfig) -> String {
    match config.network {
        Network::Modern => modern::torchscript_source(config),
        Network::Original => original::torchscript_source(config),
    }
}
