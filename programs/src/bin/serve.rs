//! Serves over HTTP: `cargo run --release --bin serve`, then open the address that it prints.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use lenet5::cli::{self, ReadOptions};
use lenet5::model::Network;
use lenet5::serve::{Log, Options, Outcome, Server};

/// Reads digits over HTTP: POST a picture to /v1/predict, or draw one on the page.
///
/// /openapi.json describes what there is. Ctrl-C (or SIGTERM, or SIGHUP unless it is ignored, as under nohup)
/// finishes the requests that it has, and the exit code is 0; a second one ends at once.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Weights that replace the shipped ones of their kind, and are asked by default: TorchScript,
    /// torch.save of any age, or safetensors, of which nothing is executed.
    #[arg(value_name = "FILE", conflicts_with = "weights")]
    file: Option<PathBuf>,
    /// Another way to name FILE.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    read: ReadOptions,
    #[command(flatten)]
    service: Options,
    /// CPU threads that read, and those of libtorch's kernels [default: all cores, and 1]
    #[arg(long, value_name = "N")]
    threads: Option<i32>,
    /// Form of the log on stderr; RUST_LOG=warn leaves out the line for each request.
    #[arg(long, value_enum, default_value = "text")]
    log: Log,
}

fn main() -> ExitCode {
    let arguments: Arguments = cli::parse();
    cli::run(|| serve(&arguments))
}

fn serve(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // libtorch's threads wait by spinning, and would take the cores from those of the service.
    cli::set_threads(arguments.threads.or(Some(1)))?;
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
        Outcome::Finished => Ok(ExitCode::SUCCESS),
        // Threads may still be within libtorch.
        Outcome::CutOff => cli::exit_now(0),
    }
}
