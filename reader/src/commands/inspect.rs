//! Describes a file of weights.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lenet5_cli::{self as cli, LimitArguments};
use lenet5_core::weights::Inspection;

/// Prints what a file of weights holds: its form, who wrote it, tensors, and the LeNet-5 in it.
///
/// Nothing in the file is executed, and it need not hold a LeNet-5.
#[derive(Parser)]
#[command(name = "inspect", version)]
pub struct Arguments {
    /// TorchScript, `torch.save` of any age, or safetensors.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// One JSON object instead of the text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArguments,
}

/// Runs the command.
///
/// # Errors
/// Where the file is of none of the forms, or broken.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let inspection = Inspection::of(&arguments.file, &arguments.limits.limits())?;
    if arguments.json {
        cli::print(serde_json::to_string(&inspection)? + "\n")?;
    } else {
        cli::print(&inspection)?;
    }
    Ok(ExitCode::SUCCESS)
}
