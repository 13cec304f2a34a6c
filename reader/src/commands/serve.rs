//! Serves over HTTP.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lenet5_cli::{self as cli, WeightsArguments};
use lenet5_core::Network;

use crate::serve::{Log, Options, Server, Shutdown};

/// Reads digits over HTTP: POST a picture to /v1/predict, or draw one on the page.
///
/// /openapi.json describes what there is. Ctrl-C (or SIGTERM, or SIGHUP unless it is ignored, as under nohup)
/// finishes the requests that it has, and the exit code is 0; a second one ends at once.
#[derive(Parser)]
#[command(name = "serve", version)]
pub struct Arguments {
    /// Weights that replace the shipped ones of their kind, and are asked by default: TorchScript,
    /// torch.save of any age, or safetensors, of which nothing is executed.
    #[arg(value_name = "FILE", conflicts_with = "weights")]
    file: Option<PathBuf>,
    /// Another way to name FILE.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    read: WeightsArguments,
    #[command(flatten)]
    service: Options,
    /// CPU threads that read pictures [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<i32>,
    /// Form of the log on stderr; RUST_LOG=warn leaves out the line for each request.
    #[arg(long, value_enum, default_value = "text")]
    log: Log,
}

/// Runs the command.
///
/// # Errors
/// Where the weights cannot be read, or the address cannot be listened on.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    cli::set_pool(arguments.threads)?;
    let file = arguments.file.as_ref().or(arguments.weights.as_ref());
    let weights = arguments.read.open(file.map(PathBuf::as_path), Network::default())?;
    let server = Server::bind(&arguments.service, &weights)?;
    arguments.log.start();
    let stop = server.stop();
    // However it is told to stop: to have finished what was accepted is success.
    cli::on_signal(move |_| stop.stop()).context("handling signals")?;
    cli::print(format_args!("listening on http://{}\n", server.address()))?;
    match server.run()? {
        Shutdown::Finished => Ok(ExitCode::SUCCESS),
        // Threads may still be reading.
        Shutdown::CutOff => cli::exit_now(0),
    }
}
