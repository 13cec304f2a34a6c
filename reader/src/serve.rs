//! The HTTP service: reads the digits in pictures that clients send, returns the outputs of each layer, and has a page to
//! draw on.
//!
//! The path of a request: `connections` accepts the connection and limits the request's head, `routes` finds the handler,
//! `body` receives the body, `form` finds the picture's file in it, `reader` decodes the picture, and `batch` reads small
//! pictures of several requests together. `corrections` has the routes for corrections, and `kept` the folder with them. An
//! error is a `failure`: a response with JSON, without internal details. Only requests that hyper cannot parse get a
//! response without a body.

mod batch;
mod body;
mod connections;
mod corrections;
mod failure;
mod form;
mod guard;
mod kept;
mod log;
mod metrics;
mod page;
mod reader;
mod routes;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

pub use log::LogFormat;

use connections::Connections;
use guard::Guard;
use kept::Kept;
use lenet5_core::{Error, Network, Result, Weights};
use metrics::ServiceMetrics;
use page::OwnWeights;
use reader::{NetworkReader, RequestLimits};
use routes::{App, Networks};

/// Where the service listens, and how much of the machine it may use.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceOptions {
    /// Address to listen on; with port 0 the system chooses a free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub addr: String,
    /// Largest body of a request, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_body: u32,
    /// Largest number of pixels of a picture, in millions.
    #[arg(long, value_name = "MILLIONS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub max_pixels: u64,
    /// Seconds for each of a request's head, body and response.
    ///
    /// A connection may be idle for as long.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// Most connections at once.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_connections: u32,
    /// Most connections of one client; 0 for no limit [default: a quarter of all]
    ///
    /// A client is an IPv4 address, or a /64 network of IPv6. Behind a proxy all clients have the proxy's address. By
    /// default there is no limit for clients on this machine.
    #[arg(long, value_name = "N")]
    pub max_per_client: Option<u32>,
    /// Also allow requests with this Host header.
    ///
    /// Without this option a service on a loopback address allows only localhost and loopback addresses, and a service on
    /// another address allows every Host header.
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Allow pages of this origin to use the service (CORS); * for all.
    ///
    /// An origin is such as `https://example.org`. Its pages may send requests and read the responses.
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// Most small pictures that wait or are being read.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub queue: u32,
    /// Microseconds that a batch waits for more pictures.
    ///
    /// With 0 a batch is the pictures that arrived while the batch before it was read.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub batch_wait: u64,
    /// Reject digits of a lower confidence; 0 rejects none [default: 0.5]
    ///
    /// The confidence is a number from 0 to 1. The default is 0 for networks that do not have ten classes.
    #[arg(long, value_name = "X", value_parser = lenet5_cli::confidence)]
    pub reject_below: Option<f32>,
    /// Keep the corrections that are made on the page, in this folder.
    ///
    /// Each is a picture of 28x28 pixels in the folder of its label, DIR/7/NAME.png for a 7, from which `train --data DIR`
    /// learns. The folder is created if it does not exist. Without this option a page has its corrections to itself, until
    /// they are downloaded.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Most corrections in the folder, with those that are in it at the start.
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "keep", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub keep_limit: u32,
}

/// The outcome of stopping the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// All accepted requests got their responses.
    Finished,
    /// Some requests took longer than the timeout.
    CutOff,
}

/// A service that listens for connections.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    connections: Connections,
    stop: Stop,
}

/// A handle that stops a service.
#[derive(Clone)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    /// Stops the service: it accepts no more connections, and finishes the requests that it has.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// A handle that replaces the weights of a service that reads with weights of its own.
pub struct Replacer {
    app: Arc<App>,
    options: ServiceOptions,
}

impl Replacer {
    /// Reads later requests with other weights. Requests that have begun finish with the old ones.
    ///
    /// # Errors
    /// If the weights are those of another network, have another number of classes, or do not fit their settings; the
    /// service then reads with the old ones.
    pub fn replace(&self, weights: &Weights) -> Result<()> {
        self.app.replace(weights, &self.options)
    }
}

impl Server {
    /// Starts to listen. Requests that name no network, or the network of `own` weights, are read with these weights;
    /// all others are read with the shipped weights.
    ///
    /// # Errors
    /// If the service cannot listen on the address, the weights do not fit their settings, or the folder of corrections
    /// cannot be created.
    pub fn bind(options: &ServiceOptions, own: Option<&Weights>) -> Result<Self> {
        lenet5_cli::system::return_memory();
        // Quick checks come first.
        let fail = |error| Error::Config(format!("listening on {}: {error}", options.addr));
        let listener = TcpListener::bind(&options.addr).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let timeout = options.timeout;
        let (max, max_per_client) = (options.max_connections, options.max_per_client);
        let connections = Connections { max, max_per_client, timeout };
        let (guard, cors) = (Guard::new(options, address), guard::cors(options)?);
        let runtime = runtime::Builder::new_multi_thread().enable_all().build().map_err(fail)?;

        let metrics = Arc::new(ServiceMetrics::default());
        let default = own.map_or_else(Network::default, |weights| weights.config.network);
        let reader = |network| {
            let own = own.filter(|weights| weights.config.network == network);
            NetworkReader::start(network, own, options, &metrics).map(Arc::new)
        };
        let (modern, original) = (reader(Network::Modern)?, reader(Network::Original)?);
        let limits = RequestLimits::new(options);
        let default_reader = if default == Network::Modern { &modern } else { &original };
        let classes = default_reader.recognizer.config().classes;
        let keep = |folder| Kept::open(folder, options.keep_limit as usize, classes);
        let kept = options.keep.as_deref().map(keep).transpose()?;
        metrics.kept(kept.as_ref().map_or(0, Kept::count));
        let own_file = own.map(OwnWeights::new);
        let app = Arc::new(App {
            networks: RwLock::new(Networks { modern, original }),
            default,
            limits,
            timeout,
            metrics,
            guard,
            cors,
            page: page::routes(options, own, own_file.clone()),
            own: own_file,
            kept,
        });
        Ok(Self {
            runtime,
            listener,
            address,
            app,
            connections,
            stop: Stop(watch::Sender::new(false)),
        })
    }

    /// The address that the service listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle that stops the service.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// A handle that replaces the weights.
    pub fn replacer(&self, options: &ServiceOptions) -> Replacer {
        Replacer { app: Arc::clone(&self.app), options: options.clone() }
    }

    /// Serves until the service is told to stop.
    ///
    /// # Errors
    /// If the listening socket fails.
    pub fn run(self) -> Result<Shutdown> {
        let Self { runtime, listener, address, app, connections, stop } = self;
        tracing::info!(%address, "listening");
        let finished = runtime
            .block_on(connections.serve(listener, app, stop.0.subscribe()))
            .map_err(|error| Error::Config(format!("listening on {address}: {error}")))?;
        runtime.shutdown_background();
        let outcome = if finished { Shutdown::Finished } else { Shutdown::CutOff };
        tracing::info!(?outcome, "stopped");
        Ok(outcome)
    }
}

/// Parses a timeout.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    let seconds = seconds.ok_or("expected 0.1 to 3600 seconds")?;
    Ok(Duration::from_secs_f64(seconds))
}
