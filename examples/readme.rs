//! The README's Rust code. tests/test_readme.py compares it with the README line by line, and runs
//! it in a folder with the files that it names.

use lenet5::data::{Dataset, Split};
use lenet5::evaluate::Evaluation;
use lenet5::{Picture, PictureLimits, Recognizer};
use lenet5::{model::LeNet5, weights::Format};

fn main() -> lenet5::Result<()> {
    let picture = Picture::open("tests/pictures/407.png", &PictureLimits::default())?;
    let reading = Recognizer::load("weights/lenet5.pt")?.read(&picture)?;
    println!("{}: {:?}", reading.text, reading.digits[0].confidence);

    let model = LeNet5::load("model.pth", tch::Device::Cpu)?;
    let test = Dataset::embedded(Split::Test, 10)?;
    println!("{:.2} %", Evaluation::of(&model, &test, model.config())?.error_percent);

    model.save("model.pt", Format::TorchScript)?;
    Ok(())
}
