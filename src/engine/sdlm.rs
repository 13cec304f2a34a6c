//! Trains the network of 1998 on the CPU with the core's SIMD kernels: one pattern at a time, with
//! the paper's stochastic diagonal Levenberg-Marquardt method (SDLM) or plain gradient descent.

use std::sync::mpsc;

use lenet5_core::kernels::pattern::{
    GradientSum, LearningRates, PIXELS, PatternBuffers, PatternNetwork, PatternParameters,
};
use tch::{Device, Kind, Tensor};

use super::{
    AfterStep, Data, Engine, Epoch, OptimizerState, State, Totals, batch, weights, with_trained,
};
use crate::data::Dataset;
use crate::evaluate;
use crate::model::ModelConfig;
use crate::recipe::{Loss, OptimizerConfig, TrainConfig};
use crate::weights::Weights;
use crate::{Array, Error, Result};

/// The number of images that the helper thread prepares at once; a batch, if that is larger.
/// libtorch does not split so little work among threads.
const IMAGES_PREPARED: usize = 32;

/// The engine of the core's one-pattern SIMD kernels. It takes one pattern or a small batch per
/// step.
pub struct SdlmEngine {
    recipe: TrainConfig,
    network: PatternNetwork,
    /// The second derivatives that determine the epoch's learning rates; `None` with plain gradient
    /// descent.
    curvature: Option<PatternParameters>,
    /// The tensors with which the engine was opened, among them those that are not trained.
    tensors: Vec<Array>,
    train: Dataset,
    test: Dataset,
}

impl SdlmEngine {
    /// Opens the engine.
    ///
    /// # Errors
    /// If the state does not fit the settings.
    pub fn open(recipe: &TrainConfig, state: &State, data: &Data) -> Result<Self> {
        let curvature = match (&state.optimizer, recipe.optimizer) {
            (OptimizerState::Empty, _) => None,
            (OptimizerState::Sdlm { curvature }, OptimizerConfig::Sdlm { .. }) => {
                Some(PatternParameters::from_arrays(curvature)?)
            }
            _ => return Err(Error::config("optimizer state: expected curvature, found another")),
        };
        Ok(Self {
            network: PatternNetwork::of(&weights(&recipe.model, state)?, recipe.loss)?,
            curvature,
            tensors: state.tensors.clone(),
            train: data.train.resized(&recipe.model)?,
            test: data.test.resized(&recipe.model)?,
            recipe: recipe.clone(),
        })
    }
}

impl Engine for SdlmEngine {
    fn train(&mut self, epoch: &Epoch, after_step: &mut AfterStep) -> Result<Totals> {
        if let (OptimizerConfig::Sdlm { samples, .. }, 0) = (self.recipe.optimizer, epoch.done) {
            let first = &epoch.order[..epoch.order.len().min(samples)];
            let curvature = estimate(&self.network, &self.recipe.model, &self.train, first)?;
            self.curvature = Some(curvature);
        }
        let curvature = self.curvature.as_ref();
        let mut totals = Totals {
            parameter_rates: parameter_rates(&self.recipe, curvature, epoch.learning_rates)?,
            ..Totals::default()
        };
        let Self { recipe, network, train, .. } = self;
        let classes = recipe.model.classes;
        let (mut buffers, mut gradient) = (PatternBuffers::new(), GradientSum::new());
        // Learning rates are kept from step to step, as most schedules change them between epochs
        // only.
        let mut current = (f64::NAN, LearningRates::constant(0.0));
        each_batch(recipe, train, epoch, |step, images, labels| {
            let learning_rate = epoch.learning_rates[step as usize];
            if learning_rate != current.0 {
                current = (learning_rate, rates(recipe, curvature, learning_rate)?);
            }
            if let ([image], [label]) = (images, labels) {
                let label = usize::from(*label);
                totals.loss += f64::from(network.step(image, label, &current.1));
                totals.misclassified += u64::from(network.prediction() != label);
            } else {
                gradient.clear();
                for (image, label) in images.iter().zip(labels) {
                    let label = usize::from(*label);
                    let loss = network.add_gradient(&mut buffers, image, label, &mut gradient);
                    totals.loss += f64::from(loss);
                    totals.misclassified += u64::from(buffers.prediction(classes) != label);
                }
                network.apply(&gradient, &current.1);
            }
            Ok(after_step(step + 1).is_break())
        })?;
        Ok(totals)
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        logits_of(&self.network, &self.test, &self.recipe.model)
    }

    fn state(&self) -> Result<State> {
        let trained = self.network.parameters().to_arrays();
        let optimizer = match &self.curvature {
            Some(curvature) => OptimizerState::Sdlm { curvature: curvature.to_arrays() },
            None => OptimizerState::Empty,
        };
        Ok(with_trained(&self.recipe.model, &self.tensors, trained, optimizer))
    }
}

/// Returns the learning rates of all parameters in a step.
fn rates(
    recipe: &TrainConfig,
    curvature: Option<&PatternParameters>,
    learning_rate: f64,
) -> Result<LearningRates> {
    match (recipe.optimizer, curvature) {
        (OptimizerConfig::Sdlm { mu, .. }, Some(curvature)) => {
            Ok(LearningRates::new(curvature, learning_rate as f32, mu as f32))
        }
        (OptimizerConfig::Sdlm { .. }, _) => {
            Err(Error::config("sdlm: expected a curvature before the first step"))
        }
        _ => Ok(LearningRates::constant(learning_rate as f32)),
    }
}

/// Returns the smallest and the largest learning rate of a parameter in the epoch's first step,
/// with SDLM.
///
/// # Errors
/// If there is no curvature yet.
pub(super) fn parameter_rates(
    recipe: &TrainConfig,
    curvature: Option<&PatternParameters>,
    learning_rates: &[f64],
) -> Result<Option<(f32, f32)>> {
    match (recipe.optimizer, learning_rates.first()) {
        (OptimizerConfig::Sdlm { .. }, Some(first)) => {
            let rates = rates(recipe, curvature, *first)?;
            Ok(Some((rates.smallest(), rates.largest())))
        }
        _ => Ok(None),
    }
}

/// Estimates the second derivatives of the loss with respect to each trained parameter, on the
/// first images of an epoch.
///
/// # Errors
/// If the weights are not those of the original network.
pub fn curvature(
    recipe: &TrainConfig,
    weights: &Weights,
    data: &Dataset,
    order: &[i64],
) -> Result<Vec<Array>> {
    let OptimizerConfig::Sdlm { samples, .. } = recipe.optimizer else { return Ok(Vec::new()) };
    let network = PatternNetwork::of(weights, recipe.loss)?;
    let first = &order[..order.len().min(samples)];
    Ok(estimate(&network, &recipe.model, data, first)?.to_arrays())
}

/// Estimates the second derivatives on the images at these indices.
fn estimate(
    network: &PatternNetwork,
    config: &ModelConfig,
    data: &Dataset,
    indices: &[i64],
) -> Result<PatternParameters> {
    let (images, labels) = data.batch(&Tensor::from_slice(indices), config);
    let pixels = Vec::<f32>::try_from(images.to_device(Device::Cpu).flatten(0, -1))?;
    let labels = Vec::<i64>::try_from(labels.to_device(Device::Cpu))?;
    let labels = labels.into_iter().map(|label| label as usize);
    let patterns = pixels.as_chunks::<PIXELS>().0.iter().zip(labels);
    Ok(network.curvature_of(patterns))
}

/// Returns the logits of all images of a data set: (N, classes), row by row.
///
/// # Errors
/// If the weights are not those of the original network.
pub(crate) fn logits(weights: &Weights, data: &Dataset) -> Result<Vec<f32>> {
    logits_of(&PatternNetwork::of(weights, Loss::Distance)?, data, &weights.config)
}

fn logits_of(network: &PatternNetwork, data: &Dataset, config: &ModelConfig) -> Result<Vec<f32>> {
    let mut buffers = PatternBuffers::new();
    let mut all = Vec::new();
    let indices: Vec<i64> = (0..data.len()).collect();
    for indices in indices.chunks(evaluate::BATCH_SIZE as usize) {
        let (images, _) = data.batch(&Tensor::from_slice(indices), config);
        let pixels = Vec::<f32>::try_from(images.flatten(0, -1))?;
        for image in pixels.as_chunks::<PIXELS>().0 {
            all.extend(network.forward(&mut buffers, image).iter().map(|penalty| -penalty));
        }
    }
    Ok(all)
}

/// Calls `work` with each remaining step, its images and its labels, until it returns true. Another
/// thread prepares the batches a few steps ahead.
fn each_batch(
    recipe: &TrainConfig,
    data: &Dataset,
    epoch: &Epoch,
    mut work: impl FnMut(u64, &[[f32; PIXELS]], &[u8]) -> Result<bool>,
) -> Result<()> {
    let size = recipe.batch_size as usize;
    let steps = IMAGES_PREPARED.div_ceil(size);
    let (sender, receiver) = mpsc::sync_channel(16);
    let (data, number, done) = (data.first(i64::MAX), epoch.number, epoch.done);
    let blocks = epoch.order_left(size).chunks(steps * size);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (step, indices) in (done..).step_by(steps).zip(blocks) {
                let (images, labels) = batch(recipe, &data, number, indices);
                let pixels = Vec::<f32>::try_from(images.flatten(0, -1)).expect("float32");
                let labels = Vec::<u8>::try_from(labels.to_kind(Kind::Uint8)).expect("uint8");
                // The receiver is gone if training was stopped.
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
