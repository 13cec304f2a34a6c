//! A queue of small pictures from several requests. One thread reads them in batches.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use lenet5_core::recognizer::{Pattern, Reading};
use lenet5_core::{Picture, Recognizer, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::failure::Failure;

/// Maximum pictures in a batch.
const MAX_BATCH: usize = 256;
/// A batch that has this many pixels takes no more pictures, so that no request waits long for the pictures of others.
const MAX_BATCH_PIXELS: u64 = 1 << 20;

/// The queue of a network.
pub struct Batcher {
    jobs: Sender<Job>,
    /// One permit for each picture that the queue has room for.
    room: Arc<Semaphore>,
    capacity: usize,
}

/// A picture in the queue.
struct Job {
    picture: Picture,
    /// The form of its lines.
    pattern: Pattern,
    result: oneshot::Sender<Result<Reading>>,
    /// Held until the picture is read.
    permit: OwnedSemaphorePermit,
}

impl Batcher {
    /// Starts the thread, which ends when the queue is dropped. `on_batch` is called with the size of each batch.
    pub fn start(
        recognizer: Arc<Recognizer>,
        capacity: u32,
        wait: Duration,
        on_batch: impl Fn(usize) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = channel();
        thread::Builder::new().name("batch".to_owned()).spawn(move || {
            while let Some(batch) = next_batch(&queue, wait) {
                on_batch(batch.len());
                read_batch(&recognizer, batch);
            }
        })?;
        let capacity = capacity as usize;
        Ok(Self { jobs, room: Arc::new(Semaphore::new(capacity)), capacity })
    }

    /// The number of pictures that wait or are being read.
    pub fn depth(&self) -> usize {
        self.capacity - self.room.available_permits()
    }

    /// Reads a picture, whose lines have the form of `pattern`, in the next batch.
    pub async fn read(&self, picture: Picture, pattern: Pattern) -> Result<Reading, Failure> {
        let full = |_| Failure::busy("pictures", self.capacity);
        let permit = Arc::clone(&self.room).try_acquire_owned().map_err(full)?;
        let (result, reading) = oneshot::channel();
        let job = Job { picture, pattern, result, permit };
        self.jobs.send(job).map_err(|_| Failure::internal())?;
        // The sender is dropped without a result if reading the picture panics.
        reading.await.map_err(|_| Failure::internal())?.map_err(Failure::from)
    }
}

/// The next pictures whose requests still wait. None if the queue is closed.
fn next_batch(queue: &Receiver<Job>, wait: Duration) -> Option<Vec<Job>> {
    loop {
        let first = queue.recv().ok()?;
        let size = |job: &Job| u64::from(job.picture.width()) * u64::from(job.picture.height());
        let mut pixels = size(&first);
        let mut batch = vec![first];
        let end = Instant::now() + wait;
        while batch.len() < MAX_BATCH && pixels < MAX_BATCH_PIXELS {
            match queue.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(job) => {
                    pixels += size(&job);
                    batch.push(job);
                }
                Err(_) => break,
            }
        }
        batch.retain(|job| !job.result.is_closed());
        if !batch.is_empty() {
            return Some(batch);
        }
    }
}

/// Reads the pictures of a batch, and sends each reading to its request.
fn read_batch(recognizer: &Recognizer, batch: Vec<Job>) {
    let (pictures, waiting): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|job| ((job.picture, job.pattern), (job.result, job.permit))).unzip();
    let read = |pictures: &[(Picture, Pattern)]| {
        let read =
            || recognizer.read_by(pictures, |(picture, _)| Ok(picture), |(_, pattern)| pattern);
        catch_unwind(AssertUnwindSafe(read)).ok()
    };
    let readings: Vec<Option<Result<Reading>>> = match read(&pictures) {
        Some(readings) => readings.into_iter().map(Some).collect(),
        // One of the pictures makes the recognizer panic: each is read alone, so that the others get their readings.
        None => pictures
            .iter()
            .map(|picture| read(slice::from_ref(picture)).and_then(|mut one| one.pop()))
            .collect(),
    };
    for ((result, _permit), reading) in waiting.into_iter().zip(readings) {
        if let Some(reading) = reading {
            // Sending fails if the client has closed the connection.
            let _ = result.send(reading);
        }
    }
}
