//! The program `lenet5`, with the commands `lenet5 predict IMAGE`, `lenet5 serve` and `lenet5 inspect FILE`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lenet5_cli as cli;
use lenet5_reader::commands::inspect::{self, InspectArguments};
use lenet5_reader::commands::predict::{self, PredictArguments};
use lenet5_reader::commands::serve::{self, ServeArguments};

/// Reads handwritten digits with LeNet-5.
#[derive(Parser)]
#[command(name = "lenet5", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Predict(Box<PredictArguments>),
    Serve(Box<ServeArguments>),
    Inspect(InspectArguments),
}

fn main() -> ExitCode {
    let arguments: Arguments = cli::parse();
    cli::run(|| match &arguments.command {
        Command::Predict(arguments) => predict::run(arguments),
        Command::Serve(arguments) => serve::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
    })
}
