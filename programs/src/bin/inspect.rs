//! Describes a file of weights: `cargo run --release --bin inspect weights/lenet5.pt`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lenet5::cli::{self, LimitOptions};
use lenet5::weights::Inspection;

/// Prints what a file of weights holds: its form, who wrote it, tensors, and the LeNet-5 in it.
///
/// Nothing in the file is executed, and it need not hold a LeNet-5.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// TorchScript, `torch.save` of any age, or safetensors.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// One JSON object instead of the text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitOptions,
}

fn main() -> ExitCode {
    let arguments: Arguments = cli::parse();
    cli::run(|| {
        let inspection = Inspection::of(&arguments.file, &arguments.limits.limits())?;
        if arguments.json {
            cli::print(serde_json::to_string(&inspection)? + "\n")?;
        } else {
            cli::print(&inspection)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
