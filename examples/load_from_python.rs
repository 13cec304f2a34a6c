//! Loads a state dict that Python wrote with torch.save, whatever its names, and predicts digits.
//!
//! Run: cargo run --release --example load_from_python [FILE]

use lenet5::data::{Dataset, Split};
use lenet5::evaluate::Evaluation;
use lenet5::model::LeNet5;
use tch::nn::Module;
use tch::{Device, Kind, Tensor};

fn main() -> lenet5::Result<()> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "weights/lenet5.pth".to_owned());
    let model = LeNet5::load(file, Device::Cpu)?;
    let test = Dataset::embedded(Split::Test, model.config().classes)?;

    let indices = Tensor::arange(8, (Kind::Int64, Device::Cpu));
    let (images, labels) = test.batch(&indices, model.config()); // (8, 1, 32, 32), (8)
    let predictions = model.forward(&images).argmax(1, false);
    println!("predictions {:?}", Vec::<i64>::try_from(&predictions)?);
    println!("labels      {:?}", Vec::<i64>::try_from(&labels)?);

    let error = Evaluation::of(&model, &test, model.config())?.error_percent;
    println!("{error:.2} % of the test images are misclassified");
    Ok(())
}
