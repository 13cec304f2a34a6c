//! Accepts connections, and limits their number, the time for a request's head, and the time that they may be idle. Ends
//! them so that clients get the last response.

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

/// Maximum bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;
/// Maximum refused connections at once that get a response; others are closed without one.
const MAX_REFUSALS: usize = 64;
/// The time and the number of bytes that a client may still send after the last response. The bytes are discarded.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 64 << 20);
/// The pause after a failure to accept a connection, most likely because no file descriptor is free.
const PAUSE: Duration = Duration::from_millis(50);

/// The limits of connections.
pub struct Connections {
    /// Maximum connections at once.
    pub max: u32,
    /// Maximum connections of one client; 0 for no limit. None means a quarter of all, and no limit for clients on this
    /// machine.
    pub max_per_client: Option<u32>,
    /// The time for a request's head, the time that a connection may be idle, and the time for finishing at the end.
    pub timeout: Duration,
}

/// The number of connections of each client.
#[derive(Default)]
struct Clients(Mutex<HashMap<IpAddr, u32>>);

/// Counts a connection of a client until it is dropped.
struct ClientGuard {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Clients {
    /// Counts one more connection of a client. None if it has `max` already.
    fn enter(self: &Arc<Self>, client: IpAddr, max: u32) -> Option<ClientGuard> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_insert(0);
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(ClientGuard { clients: Arc::clone(self), client })
    }
}

impl Drop for ClientGuard {
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

/// The address under which a client is counted: an IPv4 address, even if written as IPv6; for other IPv6 addresses the
/// /64 network, which is usually one household.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

impl Connections {
    /// Serves until the service is told to stop, then finishes the requests that it has. Returns whether all of them
    /// finished within the timeout.
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
        http.max_header_size(MAX_HEAD).max_buf_size(2 * MAX_HEAD);
        // A client may close its sending direction, and wait for the response.
        http.half_close(true);
        let clients = Arc::new(Clients::default());
        let permits = Arc::new(Semaphore::new(self.max as usize));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
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
            let max_per_client = match self.max_per_client {
                Some(0) => u32::MAX,
                Some(max) => max,
                None if peer.to_canonical().is_loopback() => u32::MAX,
                None => (self.max / 4).max(1),
            };
            let guard = clients.enter(client(peer), max_per_client);
            let mut failure = Failure::busy("connections", self.max as usize);
            if guard.is_none() {
                failure = Failure::too_many(max_per_client);
            } else if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                let connection = Connection {
                    router: router.clone(),
                    metrics: Arc::clone(&metrics),
                    timeout: self.timeout,
                    stop: stopped.clone(),
                    _counted: (permit, guard),
                };
                tokio::spawn(connection.serve(stream, http.clone()));
                continue;
            }
            if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                metrics.refused("none", failure.status);
                tokio::spawn(async move {
                    let _permit = permit;
                    end(stream, Some(failure)).await;
                });
            }
        }
        drop(listener);
        // Each connection holds its permit until it ends.
        Ok(time::timeout(self.timeout, permits.acquire_many(self.max)).await.is_ok())
    }
}

/// A connection that is served.
struct Connection {
    router: Router,
    metrics: Arc<ServiceMetrics>,
    timeout: Duration,
    stop: watch::Receiver<bool>,
    /// Counts the connection among all, and among those of its client.
    _counted: (OwnedSemaphorePermit, Option<ClientGuard>),
}

impl Connection {
    /// Serves the requests of a connection until it ends.
    async fn serve(mut self, stream: TcpStream, http: http1::Builder) {
        let _ = stream.set_nodelay(true);
        limit_unread(&stream, self.timeout);
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
            } else if error.is_parse_version_h2() {
                // The start of an HTTP/2 connection is the one parse error that hyper sends no response to.
                let message = "expected a request of HTTP/1.1, found HTTP/2";
                failure = Some(Failure::bad("bad_request", message));
            } else if error.is_parse() {
                // For all other parse errors hyper has sent a response, with a status and no body.
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

/// Sends the last response, if there is one, and closes a connection. If a socket is closed before all received bytes are
/// read, the system may discard a response that is being sent, so this reads the rest first.
async fn end(mut stream: TcpStream, failure: Option<Failure>) {
    let (most_time, most_bytes) = LINGER;
    let last = async {
        if let Some(failure) = failure {
            stream.write_all(&failure.to_bytes()).await?;
        }
        stream.shutdown().await?;
        let mut rest = stream.take(most_bytes);
        let mut scratch = [0; 4096];
        while rest.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection is over, even if this fails.
    let _ = time::timeout(most_time, last).await;
}

/// Makes the system close a connection whose client does not receive its responses.
fn limit_unread(stream: &TcpStream, timeout: Duration) {
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout));
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, timeout);
}
