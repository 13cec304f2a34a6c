//! Trains the modern network on the CPU with the core's SIMD kernels.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use lenet5_core::kernels::batch::{
    BatchForm, BatchImages, BatchKernels, BatchOptimizer, GreyImages, ParameterVector, UpdateRule,
};
use tch::{Device, Kind, Tensor};

use super::{AfterStep, Data, Engine, Epoch, OptimizerState, Reducer, State, Totals};
use crate::data::Dataset;
use crate::libtorch::with_threads;
use crate::model::ModelConfig;
use crate::recipe::{OptimizerConfig, TrainConfig};
use crate::weights::Weights;
use crate::{Error, Result};

/// The engine of the core's SIMD kernels, a batch at a time. Parameters, optimizer state and images
/// stay in the kernels' form.
pub struct FusedEngine {
    recipe: TrainConfig,
    kernels: BatchKernels,
    parameters: ParameterVector,
    gradient: ParameterVector,
    optimizer: BatchOptimizer,
    train: GreyImages,
    labels: Vec<u8>,
    /// The side in pixels of the images that are distorted.
    distorted_side: usize,
    test: GreyImages,
    test_count: usize,
    reducer: Option<Arc<dyn Reducer>>,
}

impl FusedEngine {
    /// Opens the engine with as many threads as libtorch uses.
    ///
    /// # Errors
    /// If the kernels do not support the network, or the state does not fit the settings.
    pub fn open(recipe: &TrainConfig, state: &State, data: &Data) -> Result<Self> {
        let config = &recipe.model;
        let parameters = ParameterVector::from_arrays(&state.tensors);
        Ok(Self {
            kernels: kernels(config)?,
            gradient: parameters.clone(),
            optimizer: read_optimizer(&recipe.optimizer, &state.optimizer, config)?,
            train: images(&data.train, config)?,
            labels: Vec::try_from(data.train.labels().to_kind(Kind::Uint8))?,
            distorted_side: data.train.distorted_side(config),
            test: images(&data.test, config)?,
            test_count: data.test.len() as usize,
            parameters,
            recipe: recipe.clone(),
            reducer: None,
        })
    }

    /// Shares each batch with other processes.
    pub fn reduced_by(self, reducer: Option<Arc<dyn Reducer>>) -> Self {
        Self { reducer, ..self }
    }
}

impl Engine for FusedEngine {
    fn train(&mut self, epoch: &Epoch, after_step: &mut AfterStep) -> Result<Totals> {
        let Self {
            recipe, kernels, parameters, gradient, optimizer, train, labels, reducer, ..
        } = self;
        let distortion = recipe.distortion(self.distorted_side, epoch.number);
        let mut steps = epoch.steps(recipe.batch_size as usize);
        let mut totals = Totals::default();
        kernels
            .within(|kernels| {
                steps.try_for_each(|(step, indices)| {
                    let own = reducer.as_ref().map_or(indices, |reducer| reducer.part(indices));
                    if !own.is_empty() {
                        let labels: Vec<_> =
                            own.iter().map(|index| labels[*index as usize]).collect();
                        let images = match &distortion {
                            None => BatchImages::Grey(train, own),
                            Some(distortion) => BatchImages::Distorted(train, own, distortion),
                        };
                        let mean = kernels.gradient(parameters, images, &labels, gradient);
                        totals.loss += mean * own.len() as f64;
                        totals.misclassified += kernels.misclassified();
                    }
                    if let Some(reducer) = reducer {
                        let part = own.len() as f32 / indices.len() as f32;
                        let summed = sum(reducer.as_ref(), &mut gradient.0, part);
                        summed.map_or_else(
                            |error| ControlFlow::Break(Err(error)),
                            ControlFlow::Continue,
                        )?;
                    }
                    let learning_rate = epoch.learning_rates[step as usize];
                    kernels.update(parameters, gradient, optimizer, learning_rate);
                    after_step(step + 1).map_break(Ok)
                })
            })
            .break_value()
            .unwrap_or(Ok(()))?;
        Ok(totals)
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let indices: Vec<i64> = (0..self.test_count as i64).collect();
        let images = BatchImages::Grey(&self.test, &indices);
        Ok(self.kernels.logits(&self.parameters, images, indices.len()))
    }

    fn state(&self) -> Result<State> {
        let config = &self.recipe.model;
        Ok(State {
            tensors: self.parameters.to_arrays(config),
            optimizer: write_optimizer(&self.optimizer, config),
        })
    }

    fn measure(&mut self) -> Result<()> {
        self.kernels.measure();
        Ok(())
    }

    fn profile(&self) -> Result<Option<String>> {
        let table = |profile: &lenet5_core::kernels::batch::Profile| {
            profile.table(self.recipe.model.classes, self.kernels.isa(), sgemm())
        };
        Ok(self.kernels.profile().map(table))
    }
}

/// Replaces the mean gradient over this process's part of a batch by that over the whole batch.
///
/// # Errors
/// If another process is lost.
fn sum(reducer: &dyn Reducer, gradient: &mut [f32], part: f32) -> Result<()> {
    for value in &mut *gradient {
        // The gradient of an empty part is that of the step before.
        *value = if part > 0.0 { *value * part } else { 0.0 };
    }
    let summed = reducer.sum(vec![Tensor::f_from_slice(gradient)?])?;
    summed[0].f_copy_data(gradient, gradient.len())?;
    Ok(())
}

/// Creates the kernels for a network, with as many threads as libtorch uses.
fn kernels(config: &ModelConfig) -> Result<BatchKernels> {
    let form = BatchForm::of(config)
        .map_err(|reason| Error::config(format!("--engine fused {reason}")))?;
    let threads = tch::get_num_threads().max(1) as usize;
    Ok(BatchKernels::new(form, config.classes).with_threads(threads))
}

/// Converts the images of a data set to the kernels' form.
fn images(data: &Dataset, config: &ModelConfig) -> Result<GreyImages> {
    let images = data.unpadded(config)?;
    let grey = Vec::<u8>::try_from(images.flatten(0, -1))?;
    Ok(GreyImages::new(grey, images.size()[2] as usize, config))
}

/// Returns the logits of all images of a data set: (N, classes), row by row.
///
/// # Errors
/// If the kernels do not support the network.
pub(crate) fn logits(weights: &Weights, data: &Dataset) -> Result<Vec<f32>> {
    let images = images(data, &weights.config)?;
    let indices: Vec<i64> = (0..data.len()).collect();
    let parameters = ParameterVector::of(weights);
    let images = BatchImages::Grey(&images, &indices);
    Ok(kernels(&weights.config)?.logits(&parameters, images, indices.len()))
}

/// Creates an optimizer in the kernels' form with a saved state.
///
/// # Errors
/// If the state belongs to another optimizer or to other parameters.
pub(super) fn read_optimizer(
    settings: &OptimizerConfig,
    state: &OptimizerState,
    config: &ModelConfig,
) -> Result<BatchOptimizer> {
    let mut optimizer = BatchOptimizer::new(*settings, config.classes);
    let shapes = config.state();
    let vector = |arrays: &[crate::Array]| {
        let fits = arrays.len() == shapes.len()
            && arrays.iter().zip(&shapes).all(|(array, (_, shape))| array.shape() == shape);
        match fits {
            true => Ok(ParameterVector::from_arrays(arrays)),
            false => Err(Error::config("optimizer state: expected that of all parameters")),
        }
    };
    let is_adam = matches!(settings, OptimizerConfig::Adam { .. } | OptimizerConfig::AdamW { .. });
    match state {
        OptimizerState::Empty => {}
        OptimizerState::Sgd { momentum_buffer } if !is_adam => {
            optimizer.state[0] = vector(momentum_buffer)?;
            optimizer.rule.steps = 1.0;
        }
        OptimizerState::Adam { step, exp_avg, exp_avg_sq } if is_adam => {
            optimizer.state = [vector(exp_avg)?, vector(exp_avg_sq)?];
            optimizer.rule.steps = *step;
        }
        _ => {
            return Err(Error::config(
                "optimizer state: expected that of this optimizer, found that of another",
            ));
        }
    }
    Ok(optimizer)
}

/// Returns the state of an optimizer in the kernels' form.
pub(super) fn write_optimizer(optimizer: &BatchOptimizer, config: &ModelConfig) -> OptimizerState {
    let UpdateRule { config: settings, steps } = optimizer.rule;
    let [first, second] = &optimizer.state;
    match settings {
        _ if steps == 0.0 => OptimizerState::Empty,
        OptimizerConfig::Sgd { momentum: 0.0, .. } | OptimizerConfig::Sdlm { .. } => {
            OptimizerState::Empty
        }
        OptimizerConfig::Sgd { .. } => {
            OptimizerState::Sgd { momentum_buffer: first.to_arrays(config) }
        }
        OptimizerConfig::Adam { .. } | OptimizerConfig::AdamW { .. } => OptimizerState::Adam {
            step: steps,
            exp_avg: first.to_arrays(config),
            exp_avg_sq: second.to_arrays(config),
        },
    }
}

/// Measures the operations per second of libtorch's matrix product of 1,024 x 1,024, on one thread.
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
