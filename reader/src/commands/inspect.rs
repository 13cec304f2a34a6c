//! The command `inspect`: describes a file of weights.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lenet5_cli::{self as cli, LimitArguments};
use lenet5_core::weights::Inspection;

/// Prints what a file of weights holds: its format, the program that wrote it, its tensors, and the LeNet-5 in it.
///
/// Nothing in the file is executed, and the file need not hold a LeNet-5.
#[derive(Parser)]
#[command(
    name = "inspect",
    display_name = "lenet5",
    version,
    after_help = "\
Example:
  inspect weights/lenet5.pt"
)]
pub struct InspectArguments {
    /// TorchScript, `torch.save` of any age, or safetensors.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArguments,
}

/// Runs the command.
///
/// # Errors
/// If the file has none of the known formats, or is broken.
pub fn run(arguments: &InspectArguments) -> anyhow::Result<ExitCode> {
    let inspection = Inspection::of(&arguments.file, &arguments.limits.limits())?;
    if arguments.json {
        cli::print(serde_json::to_string(&inspection)? + "\n")?;
    } else {
        cli::print(&inspection)?;
    }
    Ok(ExitCode::SUCCESS)
}
