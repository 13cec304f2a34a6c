//! LeNet-5 in burn, measured as in scripts/bench_peers.py; variants: flex, ndarray.
//!
//! Run: cargo run --release --bin burn_peer -- train --variant=flex --batch-size=128 --threads=1

use anyhow::{Context, Result, anyhow, bail};
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::nn::pool::{AvgPool2dConfig, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::activation::{relu, tanh};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lenet5_peers::{Form, Images, MOMENTUM, Peer, SIDE};

/// The weights are drawn uniformly within ±1 / sqrt(fan-in): burn's default.
#[derive(Module, Debug)]
struct Model {
    relu: bool,
    c1: Conv2d,
    c3: Conv2d,
    c5: Linear,
    f6: Linear,
    output: Linear,
}

impl Model {
    fn new(form: Form, device: &Device) -> Self {
        Self {
            relu: matches!(form, Form::Relu),
            c1: Conv2dConfig::new([1, 6], [5, 5]).init(device),
            c3: Conv2dConfig::new([6, 16], [5, 5]).init(device),
            c5: LinearConfig::new(400, 120).init(device),
            f6: LinearConfig::new(120, 84).init(device),
            output: LinearConfig::new(84, 10).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.pool(self.activation(self.c1.forward(images))); // (N, 6, 14, 14)
        let x = self.pool(self.activation(self.c3.forward(x))); // (N, 16, 5, 5)
        let x = self.activation(self.c5.forward(x.flatten(1, 3))); // (N, 120)
        let x = self.activation(self.f6.forward(x)); // (N, 84)
        self.output.forward(x) // (N, 10)
    }

    fn activation<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if self.relu { relu(x) } else { tanh(x) }
    }

    fn pool(&self, x: Tensor<4>) -> Tensor<4> {
        if self.relu {
            MaxPool2dConfig::new([2, 2]).init().forward(x)
        } else {
            AvgPool2dConfig::new([2, 2]).init().forward(x)
        }
    }
}

struct Burn {
    device: Device,
    /// Absent during a step.
    model: Option<Model>,
    loss: CrossEntropyLoss,
    optimizer: ModuleOptimizer,
    /// Images (N, 1, 32, 32) and labels (N) of the training set.
    training_set: Option<(Tensor<4>, Tensor<1, Int>)>,
}

impl Burn {
    fn new(variant: &str, form: Form) -> Result<Self> {
        let device = match variant {
            "flex" => Device::flex(),
            #[expect(deprecated)]
            "ndarray" => Device::ndarray(),
            other => bail!("--variant: expected flex or ndarray, found {other}"),
        };
        let device = device.autodiff();
        device.seed(1);
        // PyTorch's momentum has no dampening.
        let momentum = MomentumConfig::new().with_momentum(MOMENTUM).with_dampening(0.0);
        Ok(Self {
            model: Some(Model::new(form, &device)),
            loss: CrossEntropyLossConfig::new().init(&device),
            optimizer: SgdConfig::new().with_momentum(Some(momentum)).init(),
            training_set: None,
            device,
        })
    }
}

impl Peer for Burn {
    /// The images, and the model without gradients.
    type Input = (Tensor<4>, Model);

    fn prepare(&mut self, images: &Images) -> Result<()> {
        let labels = TensorData::new(images.labels.clone(), [images.len()]);
        let labels = Tensor::from_data(labels, &self.device);
        self.training_set = Some((tensor(&images.pixels, &self.device), labels));
        Ok(())
    }

    fn step(&mut self, indices: &[u32], learning_rate: f64) -> Result<()> {
        let (images, labels) = self.training_set.as_ref().context("no training set")?;
        let model = self.model.take().context("no model")?;
        let indices = TensorData::new(indices.to_vec(), [indices.len()]);
        let indices = Tensor::<1, Int>::from_data(indices, &self.device);
        let logits = model.forward(images.clone().select(0, indices.clone()));
        let loss = self.loss.forward(logits, labels.clone().select(0, indices));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        self.model = Some(self.optimizer.step(learning_rate, model, gradients));
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        Ok(self.device.sync()?)
    }

    fn input(&self, pixels: &[f32]) -> Result<Self::Input> {
        let model = self.model.as_ref().context("no model")?.valid();
        Ok((tensor(pixels, &self.device.clone().inner()), model))
    }

    fn predict(&self, (images, model): &Self::Input) -> Result<Vec<f32>> {
        let logits = model.forward(images.clone());
        logits.into_data().try_into_vec().map_err(|error| anyhow!("{error:?}"))
    }
}

/// Returns images (N, 1, 32, 32).
fn tensor(pixels: &[f32], device: &Device) -> Tensor<4> {
    let shape = [pixels.len() / (SIDE * SIDE), 1, SIDE, SIDE];
    Tensor::from_data(TensorData::new(pixels.to_vec(), shape), device)
}

fn main() -> Result<()> {
    lenet5_peers::run(Burn::new)
}
