//! Probabilities of digits, by the fastest engine that knows the network.

use std::sync::Mutex;

use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::Activation;
use crate::data::images::{PIXELS, SIDE};
use crate::data::to_input;
use crate::model::{LeNet5, ModelConfig};
use crate::weights::Weights;
use crate::Result;

/// A network that threads can share.
pub struct Classifier {
    config: ModelConfig,
    model: Mutex<Model>,
}

struct Model {
    /// Owns the model's variables.
    _store: VarStore,
    model: LeNet5,
}

impl Classifier {
    pub fn new(weights: &Weights) -> Result<Self> {
        let (store, model) = weights.build(Device::Cpu)?;
        let config = weights.config.clone();
        Ok(Self { config, model: Mutex::new(Model { _store: store, model }) })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Of each class, for each picture of 28x28.
    pub fn probabilities(&self, pictures: &[[u8; PIXELS]]) -> Result<Vec<Vec<f32>>> {
        let _no_grad = tch::no_grad_guard();
        let input = to_input(&bytes(pictures)?, &self.config);
        let model = self.model.lock().expect("no panic within");
        let logits = tch::nn::Module::forward(&model.model, &input);
        Ok(Vec::try_from(logits.softmax(1, Kind::Float))?)
    }

    pub fn activations(&self, pixels: &[u8; PIXELS]) -> Result<Vec<Activation>> {
        let _no_grad = tch::no_grad_guard();
        let input = to_input(&bytes(&[*pixels])?, &self.config);
        let model = self.model.lock().expect("no panic within");
        let mut layers = vec![("input", input.copy())];
        layers.extend(model.model.activations(&input));
        layers
            .into_iter()
            .map(|(name, values)| {
                // Without the batch, c5 without its 1x1.
                let shape: Vec<i64> = values.size()[1..].to_vec();
                let values = Vec::try_from(values.contiguous().flatten(0, -1))?;
                Ok(Activation { name, shape, values })
            })
            .collect()
    }
}

fn bytes(pictures: &[[u8; PIXELS]]) -> Result<Tensor> {
    let shape = [pictures.len() as i64, SIDE as i64, SIDE as i64];
    Ok(Tensor::f_from_data_size(pictures.as_flattened(), &shape, Kind::Uint8)?)
}
