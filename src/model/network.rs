//! Either LeNet-5, by its settings.

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
    /// The network as PyTorch users write it today.
    Modern(Modern),
    /// The network of the 1998 paper.
    Original(Original),
}

impl LeNet5 {
    /// Draws all parameters under `path`, layer by layer; weight, then bias.
    ///
    /// For the bits of a PyTorch script with the same seed, `path` has to be on the CPU: draw there,
    /// then move with [`VarStore::set_device`](tch::nn::VarStore::set_device).
    ///
    /// # Errors
    /// Where the original network has no codes for so many classes.
    pub fn new(path: &Path, config: &ModelConfig) -> Result<Self> {
        Ok(match config.network {
            Network::Modern => Self::Modern(Modern::new(path, config)),
            Network::Original => Self::Original(Original::new(path, config)?),
        })
    }

    /// As [`LeNet5::new`], but with zeros: for weights to be loaded, leaving the generator as it is.
    ///
    /// # Errors
    /// As [`LeNet5::new`].
    pub fn uninitialised(path: &Path, config: &ModelConfig) -> Result<Self> {
        Ok(match config.network {
            Network::Modern => Self::Modern(Modern::uninitialised(path, config)),
            Network::Original => Self::Original(Original::uninitialised(path, config)?),
        })
    }

    /// A network with new weights on `device`, drawn on the CPU as [`LeNet5::new`] does.
    ///
    /// # Errors
    /// As [`LeNet5::new`].
    pub fn random(config: &ModelConfig, device: Device) -> Result<Self> {
        let mut store = VarStore::new(Device::Cpu);
        let model = Self::new(&store.root(), config)?;
        // The store may go: the model owns its tensors, too.
        store.set_device(device);
        Ok(model)
    }

    /// A network with the weights of a file, in any of the forms that [`Weights::read`] knows, on `device`.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn load(path: impl AsRef<path::Path>, device: Device) -> Result<Self> {
        Self::from_weights(&Weights::read(path.as_ref())?, device)
    }

    /// A network with these weights on `device`.
    ///
    /// # Errors
    /// Where the tensors do not fit the settings.
    pub fn from_weights(weights: &Weights, device: Device) -> Result<Self> {
        Self::with_config(weights, &weights.config, device)
    }

    /// A network with these weights and other settings that have the same shapes.
    ///
    /// # Errors
    /// Where the tensors do not fit the settings.
    pub fn with_config(weights: &Weights, config: &ModelConfig, device: Device) -> Result<Self> {
        let mut store = VarStore::new(Device::Cpu);
        let model = Self::uninitialised(&store.root(), config)?;
        let tensor = |(name, array): &(String, _)| Ok((name.clone(), to_tensor(array)?));
        model.load_state(&weights.tensors.iter().map(tensor).collect::<Result<Vec<_>>>()?)?;
        store.set_device(device);
        Ok(model)
    }

    /// A copy of the weights, with the settings.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn weights(&self) -> Result<Weights> {
        let array = |(name, tensor): (String, Tensor)| Ok((name, to_array(&tensor)?));
        let tensors = self.state().into_iter().map(array).collect::<Result<Vec<_>>>()?;
        Ok(Weights::new(self.config().clone(), tensors)?)
    }

    /// Writes the weights to a file, whole or not at all.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, path: impl AsRef<path::Path>, format: Format) -> Result<()> {
        weights::write(&self.weights()?, path.as_ref(), format)
    }

    /// The settings it was made with.
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

    /// The outputs of every layer by name, from c1 on: c1 (N, 6, 28, 28), s2 (N, 6, 14, 14), c3
    /// (N, 16, 10, 10), s4 (N, 16, 5, 5), c5 (N, 120), f6 (N, 84), output (N, classes).
    pub fn layers(&self, x: &Tensor) -> Vec<(&'static str, Tensor)> {
        let mut all = Vec::new();
        let output = self.run(x, &mut |name, outputs| all.push((name, outputs.shallow_clone())));
        all.push(("output", output));
        all
    }

    /// All tensors by name (`c1.weight`, `c1.bias`, ...), in order, as `state_dict()` has them in
    /// Python: the parameters, and the original's codes. They share memory with the model.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let tensors = match self {
            Self::Modern(model) => model.tensors(),
            Self::Original(model) => model.tensors(),
        };
        let names = self.config().state().into_iter().map(|(name, _)| name);
        names.zip(tensors).map(|(name, tensor)| (name, tensor.shallow_clone())).collect()
    }

    /// Those of [`LeNet5::state`] that are trained.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let fixed = |name: &str| self.config().is_fixed(name);
        self.state().into_iter().filter(|(name, _)| !fixed(name)).collect()
    }

    /// [`LeNet5::parameters`] without their names.
    pub fn parameter_tensors(&self) -> Vec<Tensor> {
        self.parameters().into_iter().map(|(_, tensor)| tensor).collect()
    }

    /// Copies tensors into the model: strict, each name exactly once and in the right shape.
    ///
    /// # Errors
    /// Names the tensor that is missing or too much, or whose shape differs.
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

/// The forward pass as TorchScript source, for files that Python runs.
pub fn torchscript_source(config: &ModelConfig) -> String {
    match config.network {
        Network::Modern => modern::torchscript_source(config),
        Network::Original => original::torchscript_source(config),
    }
}
