//! Probabilities of classes, by the fastest engine that knows the network.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use tch::nn::{Module, VarStore};
use tch::{Device, Kind};

use super::Activation;
use crate::Result;
use crate::data::images::{PIXELS, to_tensor};
use crate::data::to_input;
use crate::engine::fused::{self, Bytes, Images, Parameters, Settings};
use crate::engine::{self, original};
use crate::model::{Input, LeNet5, Loss, ModelConfig, Network};
use crate::weights::Weights;

/// Pictures that a thread takes at a time.
const CHUNK: usize = 64;

/// A network that threads share.
pub struct Classifier {
    config: ModelConfig,
    by: By,
    /// libtorch's tensors are not shared by threads.
    model: Mutex<Model>,
}

struct Model {
    /// Owns the model's variables.
    _store: VarStore,
    network: LeNet5,
}

/// What computes.
enum By {
    Fused {
        settings: Settings,
        parameters: Parameters,
        bytes: Bytes,
        /// Those that no thread uses now.
        engines: Mutex<Vec<fused::Engine>>,
    },
    Original {
        network: Box<original::Network>,
        bytes: Bytes,
    },
    Libtorch,
}

impl Classifier {
    /// Of weights.
    ///
    /// # Errors
    /// Where the tensors do not fit the settings.
    pub fn new(weights: &Weights) -> Result<Self> {
        let config = weights.config.clone();
        let (store, network) = weights.build(Device::Cpu)?;
        let by = match (engine::knows(&config), config.network) {
            // Only libtorch's code resizes.
            _ if config.input == Input::Resized => By::Libtorch,
            (Ok(()), Network::Modern) => By::Fused {
                settings: Settings::of(&config),
                parameters: Parameters::of(&network),
                bytes: Bytes::none(&config)?,
                engines: Mutex::default(),
            },
            (Ok(()), Network::Original) => By::Original {
                network: Box::new(original::Network::of(&network, Loss::Distance)?),
                bytes: Bytes::none(&config)?,
            },
            _ => By::Libtorch,
        };
        Ok(Self { config, by, model: Mutex::new(Model { _store: store, network }) })
    }

    /// The network's settings.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Of each class, for each picture in MNIST's form.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn probabilities(&self, pictures: &[[u8; PIXELS]]) -> Result<Vec<Vec<f32>>> {
        let chunks = pictures.par_chunks(CHUNK).with_max_len(1);
        let logits: Vec<Vec<f32>> =
            chunks.map(|chunk| self.logits(chunk)).collect::<Result<_>>()?;
        let classes = self.config.classes as usize;
        Ok(logits.iter().flat_map(|logits| logits.chunks_exact(classes)).map(softmax).collect())
    }

    /// Of a few pictures: N x classes.
    fn logits(&self, pictures: &[[u8; PIXELS]]) -> Result<Vec<f32>> {
        match &self.by {
            By::Fused { settings, parameters, bytes, engines } => {
                let free = engines.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let new = || fused::Engine::new(*settings, parameters.classes());
                let mut engine = free.unwrap_or_else(new);
                let bytes = bytes.with_pictures(pictures);
                let places: Vec<i64> = (0..pictures.len() as i64).collect();
                let images = Images::Bytes(&bytes, &places);
                let logits = engine.logits(parameters, images, pictures.len());
                engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine);
                Ok(logits)
            }
            By::Original { network, bytes } => {
                let mut work = original::Work::new();
                let mut logits = Vec::new();
                for picture in pictures {
                    let input = bytes.input(picture);
                    logits.extend(network.forward(&mut work, &input).iter().map(|p| -p));
                }
                Ok(logits)
            }
            By::Libtorch => {
                let _no_grad = tch::no_grad_guard();
                let input = to_input(&to_tensor(pictures)?, &self.config);
                let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
                let logits = model.network.forward(&input).to_kind(Kind::Float);
                Ok(Vec::try_from(logits.contiguous().flatten(0, -1))?)
            }
        }
    }

    /// What each layer makes of a picture, the input first.
    ///
    /// # Errors
    /// Where libtorch refuses.
    pub fn activations(&self, picture: &[u8; PIXELS]) -> Result<Vec<Activation>> {
        let _no_grad = tch::no_grad_guard();
        let input = to_input(&to_tensor(&[*picture])?, &self.config);
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let mut layers = vec![("input", input.shallow_clone())];
        layers.extend(model.network.activations(&input));
        layers
            .into_iter()
            .map(|(name, values)| {
                let shape = values.size()[1..].to_vec();
                let values = Vec::try_from(values.contiguous().flatten(0, -1))?;
                Ok(Activation { name, shape, values })
            })
            .collect()
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}
