//! Receives the body of a request, within limits of size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use futures_util::TryStreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use super::failure::Failure;

/// The memory that all bodies together may take, in bytes; four times the largest allowed body if that is more.
const ALL_BODIES: usize = 256 << 20;

/// The limits of bodies.
pub struct BodyLimits {
    max_size: usize,
    timeout: Duration,
    /// One permit for each byte.
    memory: Arc<Semaphore>,
    all_memory: usize,
}

/// A whole body. Its share of the memory is free again when it is dropped.
pub struct Received {
    pub bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

impl BodyLimits {
    pub fn new(max_size: usize, timeout: Duration) -> Self {
        let all_memory = ALL_BODIES.max(4 * max_size);
        Self { max_size, timeout, memory: Arc::new(Semaphore::new(all_memory)), all_memory }
    }

    pub async fn receive(&self, body: Body) -> Result<Received, Failure> {
        self.receive_at_most(body, self.max_size).await
    }

    /// Receives a body of at most `max_size` bytes, for routes with a limit of their own.
    pub async fn receive_at_most(&self, body: Body, max_size: usize) -> Result<Received, Failure> {
        let slow = |_| Failure::slow("body", self.timeout.as_secs_f64());
        time::timeout(self.timeout, self.collect(body, max_size)).await.map_err(slow)?
    }

    async fn collect(&self, body: Body, max_size: usize) -> Result<Received, Failure> {
        // A body whose stated size is too large is refused before it arrives.
        let stated = body.size_hint().lower();
        if stated > max_size as u64 {
            return Err(too_large(max_size, &stated.to_string()));
        }
        let mut chunks = body.into_data_stream();
        let (mut first, mut all) = (Bytes::new(), Vec::new());
        let mut memory: Option<OwnedSemaphorePermit> = None;
        let mut length = 0;
        while let Some(chunk) = chunks.try_next().await.map_err(|_| broken())? {
            length += chunk.len();
            if length > max_size {
                return Err(too_large(max_size, "more"));
            }
            let more = Arc::clone(&self.memory).try_acquire_many_owned(chunk.len() as u32);
            let more = more.map_err(|_| Failure::busy("bytes of requests", self.all_memory))?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
            // Most bodies arrive in one chunk, which need not be copied.
            if length == chunk.len() {
                first = chunk;
            } else {
                all.extend_from_slice(&std::mem::take(&mut first));
                all.extend_from_slice(&chunk);
            }
        }
        let bytes = if all.is_empty() { first } else { all.into() };
        Ok(Received { bytes, _memory: memory })
    }
}

fn too_large(max_size: usize, found: &str) -> Failure {
    let message = format!("expected a body of at most {max_size} bytes, found {found}");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

/// The failure for a body with broken chunks, or with fewer bytes than its stated size.
fn broken() -> Failure {
    Failure::bad("broken_body", "expected a whole body, found one that breaks off")
}
