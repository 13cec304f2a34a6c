//! Continues the training of a network that was trained elsewhere: here the shipped one, on digits
//! that are turned and shifted more than those it knows.
//!
//! Run: cargo run --release --example fine_tune

use lenet5::data::{Dataset, Split};
use lenet5::evaluate::Evaluation;
use lenet5::libtorch::Generator;
use lenet5::model::LeNet5;
use lenet5::optim;
use lenet5::recipe::{Distortions, OptimizerConfig};
use lenet5::weights::Format;
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

fn main() -> lenet5::Result<()> {
    let model = LeNet5::load("weights/lenet5.pth", Device::Cpu)?;
    let config = model.config().clone();
    let train = Dataset::embedded(Split::Train, config.classes)?.first(10_000);
    let test = Dataset::embedded(Split::Test, config.classes)?;
    let strong = Distortions { rotation: 30.0, shift: 4.0, ..Distortions::best() };
    let all = Tensor::arange(test.len(), (Kind::Int64, Device::Cpu));
    let (turned, labels) = test.distorted(&all, &config, &strong, (1, 0));
    let report = |when: &str| -> lenet5::Result<()> {
        let logits = tch::no_grad(|| model.forward(&turned));
        let wrong = Evaluation::new(&logits, &labels)?.error_percent;
        let usual = Evaluation::of(&model, &test, &config)?.error_percent;
        println!(
            "{when}: {wrong:.1} % of the turned test images are misclassified, {usual:.2} % of the usual ones"
        );
        Ok(())
    };
    report("before")?;

    let adam = OptimizerConfig::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let mut optimizer = optim::build(&adam, model.parameter_tensors());
    let mut generator = Generator::seeded(1)?;
    for epoch in 1..=2 {
        let order = generator.draw(|| Tensor::randperm(train.len(), (Kind::Int64, Device::Cpu)))?;
        for indices in order.split(64, 0) {
            let (images, labels) = train.distorted(&indices, &config, &strong, (1, epoch));
            let loss = model.forward(&images).cross_entropy_for_logits(&labels);
            let parameters = model.parameter_tensors();
            let gradients = Tensor::run_backward(&[&loss], &parameters, false, false);
            optimizer.step(&gradients, 5e-4)?; // a small learning rate keeps what is known
        }
    }
    report("after")?;
    model.save("target/fine-tuned.pth", Format::StateDict)
}
