//! The reference engine: autograd on libtorch's kernels, with operations in the order of a PyTorch
//! script.

use std::sync::Arc;

use lenet5_core::kernels::pattern::PatternParameters;
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

use super::sdlm::parameter_rates;
use super::{AfterStep, Data, Engine, Epoch, Reducer, State, Totals, batch, curvature, model};
use crate::Result;
use crate::data::Dataset;
use crate::evaluate;
use crate::libtorch::{in_bfloat16, to_array};
use crate::model::{LeNet5, loss};
use crate::optim::{self, Optimizer, OptimizerState};
use crate::recipe::{OptimizerConfig, Precision, TrainConfig};

/// Trains on libtorch's kernels.
pub struct LibtorchEngine {
    recipe: TrainConfig,
    model: LeNet5,
    optimizer: Box<dyn Optimizer>,
    train: Dataset,
    test: Dataset,
    reducer: Option<Arc<dyn Reducer>>,
}

impl LibtorchEngine {
    /// Opens the engine.
    ///
    /// # Errors
    /// If the state does not fit the settings, or libtorch reports an error.
    pub fn open(recipe: &TrainConfig, state: &State, data: &Data, device: Device) -> Result<Self> {
        let model = model(&recipe.model, state, device)?;
        let mut optimizer = optim::build(&recipe.optimizer, model.parameter_tensors());
        optimizer.load_state(&state.optimizer)?;
        Ok(Self {
            recipe: recipe.clone(),
            optimizer,
            train: data.train.resized(&recipe.model)?.to_device(device),
            test: data.test.resized(&recipe.model)?.to_device(device),
            model,
            reducer: None,
        })
    }

    /// Shares each batch with other processes.
    pub fn reduced_by(self, reducer: Option<Arc<dyn Reducer>>) -> Self {
        Self { reducer, ..self }
    }
}

impl Engine for LibtorchEngine {
    fn train(&mut self, epoch: &Epoch, after_step: &mut AfterStep) -> Result<Totals> {
        let Self { recipe, model, optimizer, train, reducer, .. } = self;
        let mut totals = Totals::default();
        if let OptimizerConfig::Sdlm { .. } = recipe.optimizer {
            if epoch.done == 0 {
                let measured = curvature(recipe, &model.weights()?, train, epoch.order)?;
                optimizer.load_state(&OptimizerState::Sdlm { curvature: measured })?;
            }
            let curvature = match optimizer.state()? {
                OptimizerState::Sdlm { curvature } => {
                    Some(PatternParameters::from_arrays(&curvature)?)
                }
                _ => None,
            };
            totals.parameter_rates =
                parameter_rates(recipe, curvature.as_ref(), epoch.learning_rates)?;
        }
        let parameters = model.parameter_tensors();
        let (mut losses, mut misclassified) = (Vec::new(), Vec::new());
        for (step, indices) in epoch.steps(recipe.batch_size as usize) {
            let own = reducer.as_ref().map_or(indices, |reducer| reducer.part(indices));
            let mut gradients = Vec::new();
            if !own.is_empty() {
                let (images, labels) = batch(recipe, train, epoch.number, own);
                let logits = forward(recipe.precision, model, &images)?;
                let mean = loss(recipe.loss, &logits, &labels);
                // The loss is the mean over the whole batch, of which this is a part.
                let part = match own.len() == indices.len() {
                    true => mean.shallow_clone(),
                    false => &mean * (own.len() as f64 / indices.len() as f64),
                };
                gradients = Tensor::f_run_backward(&[&part], &parameters, false, false)?;
                losses.push((mean.detach(), own.len() as i64));
                if recipe.train_error {
                    let wrong = logits.argmax(1, false).not_equal_tensor(&labels);
                    misclassified.push(wrong.sum(Kind::Int64));
                }
            }
            if let Some(reducer) = reducer {
                if own.is_empty() {
                    gradients = parameters.iter().map(Tensor::zeros_like).collect();
                }
                gradients = reducer.sum(gradients)?;
            }
            optimizer.step(&gradients, epoch.learning_rates[step as usize])?;
            if after_step(step + 1).is_break() {
                break;
            }
        }
        totals.loss = sum(&losses)?;
        if !misclassified.is_empty() {
            let sum = Tensor::f_stack(&misclassified, 0)?.sum(Kind::Int64);
            totals.misclassified = sum.f_int64_value(&[])? as u64;
        }
        Ok(totals)
    }

    fn logits(&mut self) -> Result<Vec<f32>> {
        let forward = |images: &Tensor| Ok(self.model.forward(images));
        let logits = evaluate::logits(&forward, &self.test, &self.recipe.model)?;
        Ok(Vec::try_from(logits.flatten(0, -1))?)
    }

    fn state(&self) -> Result<State> {
        let tensors = self.model.state().into_iter().map(|(_, tensor)| to_array(&tensor));
        Ok(State { tensors: tensors.collect::<Result<_>>()?, optimizer: self.optimizer.state()? })
    }
}

/// Computes the logits of images in a precision.
///
/// # Errors
/// If libtorch reports an error.
pub(super) fn forward(precision: Precision, model: &LeNet5, images: &Tensor) -> Result<Tensor> {
    match precision {
        Precision::Fp32 | Precision::Tf32 => Ok(model.forward(images)),
        Precision::Bf16 => {
            let logits = in_bfloat16(images.device(), || model.forward(images))?;
            Ok(logits.f_to_kind(Kind::Float)?)
        }
    }
}

/// Returns the sum over samples, given the mean loss and the size of each batch. All values are
/// read from the device at once.
fn sum(losses: &[(Tensor, i64)]) -> Result<f64> {
    if losses.is_empty() {
        return Ok(0.0);
    }
    let (means, sizes): (Vec<_>, Vec<_>) = losses.iter().map(|(mean, size)| (mean, *size)).unzip();
    let means = Tensor::f_stack(&means, 0)?.to_device(Device::Cpu).to_kind(Kind::Double);
    Ok((means * Tensor::from_slice(&sizes)).sum(Kind::Double).f_double_value(&[])?)
}
