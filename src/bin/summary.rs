//! The table of layers: `cargo run --release --bin summary`

use std::process::ExitCode;

use clap::Parser;
use lenet5::cli;
use lenet5::model::{ModelConfig, ModelOptions, Summary};

/// Prints LeNet-5's layers: output shapes, parameters, connections, multiply-adds.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run(|| {
        let mut config = ModelConfig::default();
        arguments.model.apply(&mut config);
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
