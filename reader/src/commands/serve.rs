//! The command `serve`: reads digits over HTTP.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lenet5_cli::{self as cli, WeightsArguments};
use lenet5_core::{Network, Weights};

use crate::serve::{LogFormat, Server, ServiceOptions, Shutdown};

/// Reads digits over HTTP: POST a picture to /v1/predict, or draw one on the page.
///
/// /openapi.json describes the routes. Ctrl-C (or SIGTERM, or SIGHUP unless it is ignored, as under nohup) stops the
/// service: it finishes the requests that it has accepted, and the exit code is 0. A second signal ends it at once.
#[derive(Parser)]
#[command(
    name = "serve",
    display_name = "lenet5",
    version,
    after_help = "\
Examples:
  serve                          then open the printed address in a browser
  serve --addr 127.0.0.1:3000 --reject-below 0.5
  curl -F image=@tests/pictures/407.png http://127.0.0.1:8080/v1/predict"
)]
pub struct ServeArguments {
    /// Weights in any form of PyTorch, in place of the shipped weights.
    ///
    /// TorchScript, torch.save of any age, or safetensors. Nothing in the file is executed. They replace the shipped weights
    /// of the same network, and make that network the default.
    #[arg(value_name = "FILE", conflicts_with = "weights")]
    file: Option<PathBuf>,
    /// Another way to name FILE.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    read: WeightsArguments,
    #[command(flatten)]
    service: ServiceOptions,
    /// CPU threads that read pictures [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<i32>,
    /// Format of the log on stderr.
    ///
    /// The environment variable RUST_LOG=warn leaves out the line for each request.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
}

/// Runs the command until a signal stops it.
///
/// # Errors
/// If the weights cannot be read, or the service cannot listen on the address.
pub fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    cli::set_pool(arguments.threads)?;
    let file = arguments.file.as_ref().or(arguments.weights.as_ref());
    let shipped = || Weights::for_reading(Network::default());
    let own = arguments.read.own(file.map(PathBuf::as_path), shipped)?;
    let server = Server::bind(&arguments.service, own.as_ref())?;
    arguments.log.start();
    let stop = server.stop();
    // The exit code is 0 after any signal: finishing the accepted requests is success.
    cli::on_signal(move |_| stop.stop()).context("handling signals")?;
    cli::print(format_args!("listening on http://{}\n", server.address()))?;
    match server.run()? {
        Shutdown::Finished => Ok(ExitCode::SUCCESS),
        // Some threads may still be reading pictures.
        Shutdown::CutOff => cli::exit_now(0),
    }
}
