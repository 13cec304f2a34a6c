//! A connection's socket, on which also what is no HTTP gets a proper answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::failure::Failure;
use super::metrics::Metrics;

/// hyper answers what it cannot parse itself, by a status without a body: here it gets the body that all
/// our errors have.
pub struct Socket {
    stream: TokioIo<TcpStream>,
    metrics: Arc<Metrics>,
}

impl Socket {
    pub fn new(stream: TcpStream, metrics: Arc<Metrics>) -> Self {
        Self { stream: TokioIo::new(stream), metrics }
    }

    pub fn into_inner(self) -> TcpStream {
        self.stream.into_inner()
    }
}

impl Read for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// Not vectored: an answer's head and body are small, and one piece.
impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(failure) = bare_failure(bytes) {
            let stream = self.stream.inner();
            ready!(stream.poll_write_ready(context))?;
            // The last of this connection: where it does not fit, it is lost.
            let _ = stream.try_write(&failure.to_bytes());
            self.metrics.refused("none", failure.status);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Ours always have a body.
fn bare_failure(bytes: &[u8]) -> Option<Failure> {
    let status = bytes.strip_prefix(b"HTTP/1.1 4").and_then(|rest| rest.first_chunk())?;
    let head = str::from_utf8(bytes).ok()?;
    if !head.contains("content-length: 0\r\n") || !head.ends_with("\r\n\r\n") {
        return None;
    }
    Some(match status {
        b"14" => {
            let message = "expected a shorter address than this one";
            Failure::new(StatusCode::URI_TOO_LONG, "uri_too_long", message)
        }
        b"31" => {
            let message = "expected at most 100 headers, and 64 KiB of them, found more";
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            Failure::new(status, "headers_too_large", message)
        }
        _ => Failure::bad("bad_request", "expected a request of HTTP/1.1, found something else"),
    })
}
