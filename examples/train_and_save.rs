//! Trains LeNet-5 with a plain loop, as one would write it in PyTorch, and saves it for Python.
//!
//! Run: cargo run --release --example train_and_save

use lenet5::data::{Dataset, Split};
use lenet5::evaluate::Evaluation;
use lenet5::libtorch::Generator;
use lenet5::model::{LeNet5, ModelConfig};
use lenet5::optim;
use lenet5::recipe::OptimizerConfig;
use lenet5::weights::Format;
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

fn main() -> lenet5::Result<()> {
    let config = ModelConfig::default();
    let train = Dataset::embedded(Split::Train, config.classes)?.first(10_000);
    let test = Dataset::embedded(Split::Test, config.classes)?;

    // The numbers that PyTorch draws after torch.manual_seed(1).
    let mut generator = Generator::seeded(1)?;
    let model = generator.draw(|| LeNet5::random(&config, Device::Cpu))??;
    let parameters = model.parameter_tensors();
    let sgd =
        OptimizerConfig::Sgd { momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: false };
    let mut optimizer = optim::build(&sgd, model.parameter_tensors());

    for epoch in 1..=2 {
        let order = generator.draw(|| Tensor::randperm(train.len(), (Kind::Int64, Device::Cpu)))?;
        for indices in order.split(64, 0) {
            let (images, labels) = train.batch(&indices, &config);
            let loss = model.forward(&images).cross_entropy_for_logits(&labels);
            let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
            optimizer.step(&gradients, 0.05)?;
        }
        let error = Evaluation::of(&model, &test, &config)?.error_percent;
        println!("epoch {epoch}: {error:.2} % of the test images are misclassified");
    }

    model.save("target/trained.pt", Format::TorchScript)?;
    println!("wrote target/trained.pt; in Python: torch.jit.load(\"target/trained.pt\")");
    Ok(())
}
