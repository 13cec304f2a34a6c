//! The body of a request, taken in within limits.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use futures_util::TryStreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use super::failure::Failure;

/// All bodies together may take this, or four times the largest if that is more.
const MEMORY: usize = 256 << 20;

/// The limits.
pub struct Bodies {
    most: usize,
    timeout: Duration,
    /// A permit for each byte.
    memory: Arc<Semaphore>,
    all_memory: usize,
}

/// A body, which gives its memory back when it is dropped.
pub struct Received {
    pub bytes: Bytes,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    pub fn new(most: usize, timeout: Duration) -> Self {
        let all_memory = MEMORY.max(4 * most);
        Self { most, timeout, memory: Arc::new(Semaphore::new(all_memory)), all_memory }
    }

    pub async fn receive(&self, body: Body) -> Result<Received, Failure> {
        let slow = |_| Failure::slow("body", self.timeout.as_secs_f64());
        time::timeout(self.timeout, self.collect(body)).await.map_err(slow)?
    }

    async fn collect(&self, body: Body) -> Result<Received, Failure> {
        // What is announced to be too large is not waited for.
        let announced = body.size_hint().lower();
        if announced > self.most as u64 {
            return Err(self.too_large(&announced.to_string()));
        }
        let mut parts = body.into_data_stream();
        let (mut first, mut all) = (Bytes::new(), Vec::new());
        let mut memory: Option<OwnedSemaphorePermit> = None;
        let mut length = 0;
        while let Some(part) = parts.try_next().await.map_err(|_| broken())? {
            length += part.len();
            if length > self.most {
                return Err(self.too_large("more"));
            }
            let more = Arc::clone(&self.memory).try_acquire_many_owned(part.len() as u32);
            let more = more.map_err(|_| Failure::busy("bytes of requests", self.all_memory))?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
            // Most bodies are of one part, and need not be copied.
            if length == part.len() {
                first = part;
            } else {
                all.extend_from_slice(&std::mem::take(&mut first));
                all.extend_from_slice(&part);
            }
        }
        let bytes = if all.is_empty() { first } else { all.into() };
        Ok(Received { bytes, _memory: memory })
    }

    fn too_large(&self, found: &str) -> Failure {
        let message = format!("expected a body of at most {} bytes, found {found}", self.most);
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    }
}

/// Chunks that are none, or fewer bytes than announced; whoever cut them off will hardly read this.
fn broken() -> Failure {
    Failure::bad("broken_body", "expected a whole body, found one that breaks off")
}
