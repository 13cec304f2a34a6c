//! The table of layers: `cargo run --release --bin summary`

use std::process::ExitCode;

use clap::Parser;
use lenet5::cli;
use lenet5::model::{ModelConfig, ModelOptions, Network, Summary};

/// Prints LeNet-5's layers: output shapes, parameters, connections, multiply-adds.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The network: as PyTorch users write it today, or as the paper of 1998 has it.
    #[arg(long, default_value = "modern")]
    model: Network,
    #[command(flatten)]
    options: ModelOptions,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run(|| {
        let mut config = match arguments.model {
            Network::Modern => ModelConfig::default(),
            Network::Original => ModelConfig::original(),
        };
        arguments.options.apply(&mut config);
        config.validate()?;
        let summary = Summary::new(&config);
        if arguments.json {
            cli::print(serde_json::to_string(&summary)? + "\n")?;
        } else {
            cli::print(&summary)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
