//! Converts weights: `cargo run --release --bin convert weights/lenet5.pt lenet5.safetensors`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lenet5::cli;
use lenet5::weights::{Format, Weights};

/// Reads LeNet-5's weights in any form that PyTorch users have, and writes them in another.
///
/// The form of IN is found by its content, and nothing in it is executed. OUT is replaced whole or
/// not at all.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// TorchScript, `torch.save` of a state dict or of a checkpoint, or safetensors.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The file to write.
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Form of OUT [default: by its suffix: .pt torchscript, .pth state-dict, .safetensors]
    #[arg(long)]
    format: Option<Format>,
}

fn main() -> ExitCode {
    let Arguments { input, output, format } = Arguments::parse();
    cli::run(|| {
        let format = format.or_else(|| Format::from_path(&output)).with_context(|| {
            format!(
                "{}: expected the suffix .pt, .pth or .safetensors, or --format",
                output.display()
            )
        })?;
        let weights = Weights::read(&input)?;
        if let Some(note) = weights.assumptions() {
            cli::note(format_args!("note: {}: {note}", input.display()));
        }
        weights.write(&output, format)?;
        cli::note(format_args!("wrote {} ({format})", output.display()));
        Ok(ExitCode::SUCCESS)
    })
}
