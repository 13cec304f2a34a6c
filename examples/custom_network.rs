//! A network of your own with the same bits as its twin in PyTorch: LeNet-300-100, 784 inputs, two
//! hidden layers. tests/test_examples.py runs the twin and compares every bit.
//!
//! Three rules give equal bits: explicit initial values, drawn in the order in which Python creates
//! the layers, weight before bias; the same order of samples; the same operations on as many threads.
//! The last rule includes the optimizer: PyTorch's SGD computes `p.add_(g, alpha=-rate)` with a single
//! rounding, and `p - rate * g` has two.
//!
//! Run: cargo run --release --example custom_network

use std::path::Path;

use lenet5::data::{Dataset, Split};
use lenet5::libtorch::{Generator, to_array};
use lenet5::optim;
use lenet5::recipe::OptimizerConfig;
use lenet5::weights::write_tensors;
use tch::nn::{Init, Module, VarStore};
use tch::{Device, Kind, Tensor};

/// torch.nn.Linear: weight and bias uniform in ±1/sqrt(inputs), not tch's own defaults.
fn linear(path: &tch::nn::Path, inputs: i64, outputs: i64) -> (Tensor, Tensor) {
    // PyTorch computes the weight's bound in these steps, which decides the last bit.
    let gain = (2.0 / (1.0 + 5_f64.sqrt().powi(2))).sqrt();
    let weight = 3_f64.sqrt() * (gain / (inputs as f64).sqrt());
    let bias = 1.0 / (inputs as f64).sqrt();
    let uniform = |bound: f64| Init::Uniform { lo: -bound, up: bound };
    (
        path.var("weight", &[outputs, inputs], uniform(weight)),
        path.var("bias", &[outputs], uniform(bias)),
    )
}

#[derive(Debug)]
struct Lenet300 {
    layers: [(Tensor, Tensor); 3],
}

impl Module for Lenet300 {
    fn forward(&self, images: &Tensor) -> Tensor {
        let [first, second, output] = &self.layers;
        let x = images.flatten(1, -1); // (N, 784)
        let x = x.linear(&first.0, Some(&first.1)).tanh(); // (N, 300)
        let x = x.linear(&second.0, Some(&second.1)).tanh(); // (N, 100)
        x.linear(&output.0, Some(&output.1)) // (N, 10)
    }
}

fn main() -> lenet5::Result<()> {
    tch::set_num_threads(1);
    let train = Dataset::embedded(Split::Train, 10)?.first(2_000);
    let pixels = |images: &Tensor| images.to_kind(Kind::Float) / 255.0;
    let store = VarStore::new(Device::Cpu);
    let mut generator = Generator::seeded(1)?;
    let model = generator.draw(|| Lenet300 {
        layers: [("first", 784, 300), ("second", 300, 100), ("output", 100, 10)]
            .map(|(name, inputs, outputs)| linear(&(store.root() / name), inputs, outputs)),
    })?;

    let parameters: Vec<Tensor> =
        model.layers.iter().flat_map(|(w, b)| [w.shallow_clone(), b.shallow_clone()]).collect();
    let sgd =
        OptimizerConfig::Sgd { momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    let mut optimizer = optim::build(&sgd, parameters.iter().map(Tensor::shallow_clone).collect());
    let order = generator.draw(|| Tensor::randperm(train.len(), (Kind::Int64, Device::Cpu)))?;
    for indices in order.split(50, 0) {
        let images = pixels(&train.images().index_select(0, &indices));
        let labels = train.labels().index_select(0, &indices);
        let loss = model.forward(&images).cross_entropy_for_logits(&labels);
        let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
        optimizer.step(&gradients, 0.1)?;
    }

    let mut tensors = Vec::new();
    for (name, (weight, bias)) in ["first", "second", "output"].iter().zip(&model.layers) {
        tensors.push((format!("{name}.weight"), to_array(weight)?));
        tensors.push((format!("{name}.bias"), to_array(bias)?));
    }
    write_tensors(Path::new("target/lenet300.safetensors"), &tensors)?;
    println!("wrote target/lenet300.safetensors");
    Ok(())
}
