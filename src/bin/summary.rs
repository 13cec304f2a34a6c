//! The table of layers: `cargo run --release --bin summary`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lenet5::data::Distortions;
use lenet5::model::{ModelConfig, ModelOptions, Network, Summary};
use lenet5::{charts, cli};

/// Prints LeNet-5's layers: output shapes, parameters, connections, multiply-adds.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The network: as PyTorch users write it today, or as the paper of 1998 has it.
    #[arg(long, default_value = "modern")]
    model: Network,
    #[command(flatten)]
    options: ModelOptions,
    /// Draw the distortions of `train --distort` as FILE, a PNG: a digit a row, as it is and nine times
    /// distorted.
    #[arg(long, value_name = "FILE")]
    distortions: Option<PathBuf>,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run(|| {
        if let Some(path) = &arguments.distortions {
            charts::sheet(path, &Distortions::default().examples()?)?;
            cli::note(format_args!("wrote {}", path.display()));
            return Ok(ExitCode::SUCCESS);
        }
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
