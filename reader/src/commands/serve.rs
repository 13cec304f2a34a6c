//! The command `serve`: reads digits over HTTP.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use clap::Parser;
use lenet5_cli::{self as cli, WeightsArguments};
use lenet5_core::{Error, Network, Weights, files};

use crate::serve::{LogFormat, Replacer, Server, ServiceOptions, Shutdown};

/// Reads digits over HTTP: POST a picture to /v1/predict, or draw one on the page.
///
/// /openapi.json describes the routes. Ctrl-C (or SIGTERM) stops the service: it finishes the requests that it has accepted,
/// and the exit code is 0. A second signal ends it at once. SIGHUP makes it read FILE again, without a pause; if FILE is
/// broken, or holds another network, the old weights stay. Without FILE, SIGHUP stops the service too, unless it is ignored,
/// as under nohup.
#[derive(Parser)]
#[command(
    name = "serve",
    display_name = "lenet5",
    version,
    after_help = "\
Examples:
  serve                          then open the printed address in a browser
  serve --addr 127.0.0.1:3000 --reject-below 0.5
  serve --keep corrections       then correct digits on the page
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
    let file = arguments.file.as_deref().or(arguments.weights.as_deref());
    let shipped = || Weights::for_reading(Network::default());
    let own = arguments.read.own(file, shipped)?;
    let server = Server::bind(&arguments.service, own.as_ref())?;
    arguments.log.start();
    let stop = server.stop();
    // The exit code is 0 after any signal: finishing the accepted requests is success.
    let stop = move |_| stop.stop();
    match file {
        Some(file) => {
            let replacer = server.replacer(&arguments.service);
            let reload = start_reloading(file.to_owned(), arguments.read.clone(), replacer);
            cli::on_signal_or_hangup(stop, reload.context("starting a thread")?)
        }
        None => cli::on_signal(stop),
    }
    .context("handling signals")?;
    cli::print(format_args!("listening on http://{}\n", server.address()))?;
    match server.run()? {
        Shutdown::Finished => Ok(ExitCode::SUCCESS),
        // Some threads may still be reading pictures.
        Shutdown::CutOff => cli::exit_now(0),
    }
}

/// Starts a thread that reads the weights again each time that the returned function is called. If it is called while the
/// thread reads, the thread reads once more.
fn start_reloading(
    file: PathBuf,
    read: WeightsArguments,
    replacer: Replacer,
) -> io::Result<impl FnMut() + Send + 'static> {
    let (wanted, requests) = mpsc::sync_channel(1);
    thread::Builder::new().name("weights".to_owned()).spawn(move || {
        for () in requests {
            reload(&file, &read, &replacer);
        }
    })?;
    // If the channel is full, the weights will be read again anyway.
    Ok(move || {
        let _ = wanted.try_send(());
    })
}

fn reload(file: &Path, read: &WeightsArguments, replacer: &Replacer) {
    let name_file = |error| match error {
        Error::Config(message) => Error::file(file, message),
        error => error,
    };
    let replaced = read.read(file).and_then(|weights| replacer.replace(&weights));
    match replaced.map_err(name_file) {
        Ok(()) => tracing::info!(file = files::shown(file), "reads with the new weights"),
        Err(error) => tracing::warn!(%error, "reads on with the old weights"),
    }
}
