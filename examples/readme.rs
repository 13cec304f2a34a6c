//! The README's Rust code. tests/test_readme.py compares it with the README, line by line, and runs it in a
//! folder with the files that it names.

use lenet5::data::{Dataset, Split};
use lenet5::weights::Format;
use lenet5::{Recognizer, data::images};
use lenet5::{evaluate::Evaluation, weights::Weights};

fn main() -> lenet5::Result<()> {
    let picture = images::open("tests/pictures/407.png".as_ref(), &images::Limits::default())?;
    let reading = Recognizer::load("weights/lenet5.pt")?.read(&picture)?;
    println!("{}: {:?}", reading.text, reading.digits[0].confidence);

    let (_store, model) = Weights::read("model.pth".as_ref())?.build(tch::Device::Cpu)?;
    let test = Dataset::embedded(Split::Test, 10)?;
    println!("{:.2} %", Evaluation::of(&model, &test, model.config())?.error_percent);

    Weights::of(&model).write("model.pt".as_ref(), Format::TorchScript)?;
    Ok(())
}
