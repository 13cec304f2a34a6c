//! LeNet-5 in candle, measured as in scripts/bench_peers.py.
//!
//! Run: cargo run --release --bin candle_peer -- train --batch-size=128 --threads=1

use anyhow::{Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Conv2d, Conv2dConfig, Init, Linear, Module, VarBuilder, VarMap};
use lenet5_peers::{Form, Images, MOMENTUM, Peer, SIDE};

struct Candle {
    form: Form,
    c1: Conv2d,
    c3: Conv2d,
    c5: Linear,
    f6: Linear,
    output: Linear,
    /// The parameters, each with its momentum.
    parameters: Vec<(Var, Tensor)>,
    /// Images (N, 1, 32, 32) and labels (N) of the training set.
    training_set: Option<(Tensor, Tensor)>,
}

impl Candle {
    fn new(variant: &str, form: Form) -> Result<Self> {
        if !variant.is_empty() {
            bail!("--variant: expected none, found {variant}");
        }
        let map = VarMap::new();
        let vs = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let convolution = |name, inputs, outputs| -> candle_core::Result<_> {
            let (weight, bias) = weights(vs.pp(name), &[outputs, inputs, 5, 5])?;
            Ok(Conv2d::new(weight, Some(bias), Conv2dConfig::default()))
        };
        let linear = |name, inputs, outputs| -> candle_core::Result<_> {
            let (weight, bias) = weights(vs.pp(name), &[outputs, inputs])?;
            Ok(Linear::new(weight, Some(bias)))
        };
        let c1 = convolution("c1", 1, 6)?;
        let c3 = convolution("c3", 6, 16)?;
        let c5 = linear("c5", 400, 120)?;
        let f6 = linear("f6", 120, 84)?;
        let output = linear("output", 84, 10)?;
        let with_momentum = |var: Var| Ok((var.clone(), var.zeros_like()?));
        let parameters = map.all_vars().into_iter().map(with_momentum).collect::<Result<_>>()?;
        Ok(Self { form, c1, c3, c5, f6, output, parameters, training_set: None })
    }

    fn forward(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        let x = self.pool(&self.activation(&self.c1.forward(images)?)?)?; // (N, 6, 14, 14)
        let x = self.pool(&self.activation(&self.c3.forward(&x)?)?)?; // (N, 16, 5, 5)
        let x = self.activation(&self.c5.forward(&x.flatten_from(1)?)?)?; // (N, 120)
        let x = self.activation(&self.f6.forward(&x)?)?; // (N, 84)
        self.output.forward(&x) // (N, 10)
    }

    fn activation(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self.form {
            Form::Tanh => x.tanh(),
            Form::Relu => x.relu(),
        }
    }

    fn pool(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self.form {
            Form::Tanh => x.avg_pool2d(2),
            Form::Relu => x.max_pool2d(2),
        }
    }
}

/// Draws a weight and a bias uniformly within ±1 / sqrt(fan-in), as PyTorch does.
fn weights(vs: VarBuilder, shape: &[usize]) -> candle_core::Result<(Tensor, Tensor)> {
    let bound = (shape[1..].iter().product::<usize>() as f64).powf(-0.5);
    let init = Init::Uniform { lo: -bound, up: bound };
    Ok((vs.get_with_hints(shape, "weight", init)?, vs.get_with_hints(shape[0], "bias", init)?))
}

impl Peer for Candle {
    type Input = Tensor;

    fn prepare(&mut self, images: &Images) -> Result<()> {
        let labels: Vec<_> = images.labels.iter().copied().map(u32::from).collect();
        let labels = Tensor::new(labels, &Device::Cpu)?;
        self.training_set = Some((self.input(&images.pixels)?, labels));
        Ok(())
    }

    fn step(&mut self, indices: &[u32], learning_rate: f64) -> Result<()> {
        let Some((images, labels)) = &self.training_set else { bail!("no training set") };
        let indices = Tensor::new(indices, &Device::Cpu)?;
        let logits = self.forward(&images.index_select(&indices, 0)?)?;
        let loss = candle_nn::loss::cross_entropy(&logits, &labels.index_select(&indices, 0)?)?;
        let gradients = loss.backward()?;
        // candle's SGD has no momentum.
        for (var, momentum) in &mut self.parameters {
            let Some(gradient) = gradients.get(var) else { bail!("no gradient") };
            *momentum = ((&*momentum * MOMENTUM)? + gradient)?;
            var.set(&(var.as_detached_tensor() - (&*momentum * learning_rate)?)?)?;
        }
        Ok(())
    }

    fn input(&self, pixels: &[f32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(pixels, ((), 1, SIDE, SIDE), &Device::Cpu)?)
    }

    fn predict(&self, input: &Tensor) -> Result<Vec<f32>> {
        Ok(self.forward(input)?.flatten_all()?.to_vec1()?)
    }
}

fn main() -> Result<()> {
    lenet5_peers::run(Candle::new)
}
