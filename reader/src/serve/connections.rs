//! Accepts connections and bounds them: their number, how long a request's head may take, how long they
//! may idle; and ends them in order.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time;

use super::failure::Failure;
use super::metrics::ServiceMetrics;
use super::routes::{self, App};

/// The most bytes of a request's head.
const HEAD: usize = 64 << 10;
/// How many clients are told at once that there are too many; more are just dropped.
const REFUSALS: usize = 64;
/// How long, and for how many bytes, a client may go on to send what nobody reads any more.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 64 << 20);
/// Where accepting fails, most likely for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// The limits.
pub struct Connections {
    pub most: u32,
    /// The most of one client; 0 for no limit. None: a quarter of all, and no limit for this machine.
    pub per_client: Option<u32>,
    pub timeout: Duration,
}

/// How many connections each client has.
#[derive(Default)]
struct Clients(Mutex<HashMap<IpAddr, u32>>);

/// A connection that counts, as long as this lives.
struct Counted {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// Counts one more connection of a client, where it has fewer than `most`.
    fn enter(self: &Arc<Self>, client: IpAddr, most: u32) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { clients: Arc::clone(self), client })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// Brings an address to the form that counts as one client: an IPv4 address, also where it comes as IPv6; of IPv6 the
/// network of a household.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

impl Connections {
    /// Serves until it is told to stop, then finishes what it has; returns whether that was done within
    /// the timeout.
    pub async fn serve(
        self,
        listener: std::net::TcpListener,
        app: Arc<App>,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<bool> {
        let metrics = Arc::clone(&app.metrics);
        let router = routes::router(app);
        let listener = TcpListener::from_std(listener)?;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.timeout);
        http.max_header_size(HEAD).max_buf_size(2 * HEAD);
        // A client may say that it sends nothing more, and wait for the answer.
        http.half_close(true);
        let clients = Arc::new(Clients::default());
        let places = Arc::new(Semaphore::new(self.most as usize));
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        let stopped = stop.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok((stream, peer)) => (stream, peer.ip()),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    time::sleep(PAUSE).await;
                    continue;
                }
            };
            let most = match self.per_client {
                Some(0) => u32::MAX,
                Some(most) => most,
                None if peer.to_canonical().is_loopback() => u32::MAX,
                None => (self.most / 4).max(1),
            };
            let counted = clients.enter(client(peer), most);
            let mut failure = Failure::busy("connections", self.most as usize);
            if counted.is_none() {
                failure = Failure::too_many(most);
            } else if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let connection = Connection {
                    router: router.clone(),
                    metrics: Arc::clone(&metrics),
                    timeout: self.timeout,
                    stop: stopped.clone(),
                    _place: (place, counted),
                };
                tokio::spawn(connection.serve(stream, http.clone()));
                continue;
            }
            if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                metrics.refused("none", failure.status);
                tokio::spawn(async move {
                    let _place = place;
                    end(stream, Some(failure)).await;
                });
            }
        }
        drop(listener);
        // Each connection holds its place to its end.
        Ok(time::timeout(self.timeout, places.acquire_many(self.most)).await.is_ok())
    }
}

struct Connection {
    router: Router,
    metrics: Arc<ServiceMetrics>,
    timeout: Duration,
    stop: watch::Receiver<bool>,
    _place: (OwnedSemaphorePermit, Option<Counted>),
}

impl Connection {
    async fn serve(mut self, stream: TcpStream, http: http1::Builder) {
        let _ = stream.set_nodelay(true);
        bound_unread(&stream, self.timeout);
        let service = TowerToHyperService::new(self.router);
        let mut connection = http.serve_connection(TokioIo::new(stream), service);
        let mut stopping = false;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut connection => break ended,
                _ = self.stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        let parts = connection.into_parts();
        let mut failure = None;
        if let Err(error) = ended {
            if error.is_timeout() && !parts.read_buf.is_empty() {
                failure = Some(Failure::slow("head", self.timeout.as_secs_f64()));
            } else if error.is_parse() {
                // hyper has answered with the status alone.
                let status = match error.is_parse_too_large() {
                    true => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    false => StatusCode::BAD_REQUEST,
                };
                self.metrics.refused("none", status);
            }
        }
        if let Some(failure) = &failure {
            self.metrics.refused("none", failure.status);
        }
        if failure.is_some() || !stopping {
            end(parts.io.into_inner(), failure).await;
        }
    }
}

/// Ends a connection such that its client gets the last answer: a socket that is closed with bytes unread
/// makes the system take back what was sent.
async fn end(mut stream: TcpStream, failure: Option<Failure>) {
    let (time, bytes) = LINGER;
    let last = async {
        if let Some(failure) = failure {
            stream.write_all(&failure.to_bytes()).await?;
        }
        stream.shutdown().await?;
        let mut rest = stream.take(bytes);
        let mut scratch = [0; 4096];
        while rest.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever comes of it, the connection is over.
    let _ = time::timeout(time, last).await;
}

/// The system drops a connection whose client does not take its answers.
fn bound_unread(stream: &TcpStream, timeout: Duration) {
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout));
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, timeout);
}
