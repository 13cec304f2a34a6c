//! Writes a network in the three forms that Python loads, and says how.
//!
//! Run: cargo run --release --example export_for_python

use lenet5::model::LeNet5;
use lenet5::weights::Format;
use tch::Device;

fn main() -> lenet5::Result<()> {
    let model = LeNet5::load("weights/lenet5.safetensors", Device::Cpu)?;
    model.save("target/model.pt", Format::TorchScript)?;
    model.save("target/model.pth", Format::StateDict)?;
    model.save("target/model.safetensors", Format::SafeTensors)?;
    println!(
        "import torch, safetensors.torch
script = torch.jit.load(\"target/model.pt\")              # runs by itself: script(inputs)
state = torch.load(\"target/model.pth\")                  # for model.load_state_dict(state)
state = safetensors.torch.load_file(\"target/model.safetensors\")"
    );
    Ok(())
}
