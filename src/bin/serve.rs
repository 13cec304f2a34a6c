//! Serves over HTTP: `cargo run --release --bin serve`, then open the address that it prints.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lenet5::cli::{self, ReadOptions};
use lenet5::model::Network;
use lenet5::serve::{Log, Options, Outcome, Server};
use lenet5::weights::Weights;

/// Reads digits over HTTP: POST a picture to /v1/predict, or draw one on the page.
///
/// /openapi.json describes what there is. Ctrl-C (or SIGTERM) finishes the requests that it has; a second one
/// ends at once.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Weights that replace the shipped ones of their kind, and are asked by default: TorchScript,
    /// torch.save of any age, or safetensors, of which nothing is executed.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    read: ReadOptions,
    #[command(flatten)]
    service: Options,
    /// CPU threads of libtorch's kernels.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: i32,
    /// Form of the log on stderr; RUST_LOG=warn leaves out the line for each request.
    #[arg(long, value_enum, default_value = "text")]
    log: Log,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::run(|| serve(&arguments))
}

fn serve(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    cli::set_threads(Some(arguments.threads))?;
    let weights = match &arguments.weights {
        Some(path) => arguments.read.read(path)?,
        None => {
            let mut weights = Weights::shipped(Network::default())?;
            weights.set(&arguments.read.model)?;
            weights
        }
    };
    let server = Server::bind(&arguments.service, &weights)?;
    arguments.log.start();
    let stop = server.stop();
    ctrlc::set_handler(move || {
        if stop.stop() {
            cli::exit_now(cli::INTERRUPTED);
        }
    })
    .context("handling Ctrl-C")?;
    cli::print(format_args!("listening on http://{}\n", server.address()))?;
    match server.run()? {
        Outcome::Finished => Ok(ExitCode::SUCCESS),
        // Threads may still be within libtorch.
        Outcome::CutOff => cli::exit_now(0),
    }
}
