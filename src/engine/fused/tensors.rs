//! Between the engine's parameters and libtorch's.

use tch::Tensor;

use super::{Engine, Parameters, Settings};
use crate::model::{Activation, ModelConfig, Pooling};

impl Engine {
    /// For a modern network whose activation is tanh or relu.
    pub fn of(config: &ModelConfig) -> Engine {
        let settings = Settings {
            relu: config.activation == Activation::Relu,
            max: config.pooling == Pooling::Max,
        };
        Engine::new(settings, config.classes as usize)
    }
}

impl Parameters {
    /// Takes the values of the network's parameters, in their order, float32 on the CPU.
    pub fn read(&mut self, tensors: &[Tensor]) {
        let mut rest = &mut self.0[..];
        for tensor in tensors {
            let (values, after) = rest.split_at_mut(tensor.numel());
            tensor.detach().contiguous().flatten(0, -1).copy_data(values, values.len());
            rest = after;
        }
    }

    /// As tensors of the shapes of the network's parameters.
    pub fn to_tensors(&self, parameters: &[Tensor]) -> Vec<Tensor> {
        let mut rest = &self.0[..];
        let mut tensors = Vec::new();
        for parameter in parameters {
            let (values, after) = rest.split_at(parameter.numel());
            tensors.push(Tensor::from_slice(values).reshape(parameter.size()));
            rest = after;
        }
        tensors
    }
}
