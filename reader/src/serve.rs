//! The HTTP service: reads the digits of pictures that are sent to it, shows what each layer makes of
//! them, and has a page to draw on.
//!
//! A request's way: `connections` accepts it and bounds its head, `routes` finds what it asks for, `body`
//! takes the body in, `form` finds the picture's file in that, `reader` decodes it, and `batch` reads
//! small pictures of several requests at once. What goes wrong is a `failure`: JSON, with nothing in it
//! that concerns the service alone.

mod batch;
mod body;
mod connections;
mod failure;
mod form;
mod guard;
mod log;
mod metrics;
mod page;
mod reader;
mod routes;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

pub use log::Log;

use connections::Connections;
use guard::Guard;
use lenet5_core::{Error, Network, Result, Weights};
use metrics::ServiceMetrics;
use reader::{NetworkReader, RequestLimits};
use routes::App;

/// What the service listens to, and what it may take of the machine.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub addr: String,
    /// The most that a request's body may have, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub max_body: u32,
    /// The most pixels that a picture may have, in millions.
    #[arg(long, value_name = "MILLIONS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub max_pixels: u64,
    /// Seconds that a client may take for a request's head, and again for its body, and that the answer
    /// may take; also how long a connection may idle.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// The most connections at once.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_connections: u32,
    /// The most connections of one client address at once, of IPv6 of one /64 network; 0 for no limit. Behind a proxy
    /// all clients have its address. [default: a quarter of --max-connections; no limit for this machine's own]
    #[arg(long, value_name = "N")]
    pub max_per_client: Option<u32>,
    /// Let requests with this Host header in too. On a loopback address only localhost and loopback addresses are
    /// let in, on others all, as long as this is not given.
    #[arg(long, value_name = "NAME")]
    pub allow_host: Vec<String>,
    /// Let pages of this origin, such as `https://example.org`, ask and read the answers (CORS); * for all.
    #[arg(long, value_name = "ORIGIN")]
    pub allow_origin: Vec<String>,
    /// The most small pictures that wait for a network or are being read by it.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub queue: u32,
    /// Microseconds that a batch waits for more pictures; with 0 it takes those that came while the last
    /// one was read.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub batch_wait: u64,
    /// Reject digits of a lower confidence, 0 to 1; 0 rejects none [default: 0.05, and 0 for networks of other
    /// classes than ten]
    #[arg(long, value_name = "X", value_parser = lenet5_cli::confidence)]
    pub reject_below: Option<f32>,
}

/// How a service that was told to stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// All that it had accepted is answered.
    Finished,
    /// Some of it took longer than the timeout.
    CutOff,
}

/// A service that listens.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    connections: Connections,
    stop: Stop,
}

/// Tells a service to stop.
#[derive(Clone)]
pub struct Stop(watch::Sender<bool>);

impl Stop {
    /// Stops the service: it accepts nothing more, and finishes what it has.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Server {
    /// Listens; where a request names no network, or their kind of network, these weights are asked, else
    /// the shipped ones of the other kind.
    ///
    /// # Errors
    /// Where the address cannot be listened on, or the weights do not fit their settings.
    pub fn bind(options: &Options, weights: &Weights) -> Result<Self> {
        return_memory();
        // First what fails fast.
        let fail = |error| Error::Config(format!("listening on {}: {error}", options.addr));
        let listener = TcpListener::bind(&options.addr).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let timeout = options.timeout;
        let (most, per_client) = (options.max_connections, options.max_per_client);
        let connections = Connections { most, per_client, timeout };
        let (guard, cors) = (Guard::new(options, address), guard::cors(options)?);
        let runtime = runtime::Builder::new_multi_thread().enable_all().build().map_err(fail)?;

        let metrics = Arc::new(ServiceMetrics::default());
        let default = weights.config.network;
        let reader = |network| {
            let shipped;
            let weights = if network == default {
                weights
            } else {
                shipped = Weights::shipped(network)?;
                &shipped
            };
            NetworkReader::start(weights, options, &metrics)
        };
        let (modern, original) = (reader(Network::Modern)?, reader(Network::Original)?);
        let limits = RequestLimits::new(options);
        let app = App { modern, original, default, limits, timeout, metrics, guard, cors };
        let app = Arc::new(app);
        Ok(Self {
            runtime,
            listener,
            address,
            app,
            connections,
            stop: Stop(watch::Sender::new(false)),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What stops it.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// Where the system takes the listening socket back.
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

/// glibc keeps large blocks for later by default, in each thread's arena: of large pictures twice as much
/// memory as they need at a time. From this size on they go back to the system at once.
#[allow(unsafe_code)]
fn return_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the calls change parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 4 << 20);
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    let seconds = seconds.ok_or("expected 0.1 to 3600 seconds")?;
    Ok(Duration::from_secs_f64(seconds))
}
