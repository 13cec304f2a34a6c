//! Small pictures of several requests, read as one batch on a thread of its own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use lenet5_core::recognizer::Reading;
use lenet5_core::{Picture, Recognizer, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::failure::Failure;

/// The most pictures of a batch.
const LARGEST: usize = 256;
/// A batch of so many pixels takes no more: nobody waits long for others' pictures.
const MOST_PIXELS: u64 = 1 << 20;

/// The queue before a network.
pub struct Batcher {
    jobs: Sender<Job>,
    places: Arc<Semaphore>,
    all_places: usize,
}

struct Job {
    picture: Picture,
    answer: oneshot::Sender<Result<Reading>>,
    /// Until it is read.
    _place: OwnedSemaphorePermit,
}

impl Batcher {
    /// Starts the thread; it ends when this is dropped. `seen` is told the size of each batch.
    pub fn start(
        recognizer: Arc<Recognizer>,
        places: u32,
        wait: Duration,
        seen: impl Fn(usize) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, incoming) = channel();
        thread::Builder::new().name("batch".to_owned()).spawn(move || {
            while let Some(batch) = next(&incoming, wait) {
                seen(batch.len());
                answer(&recognizer, batch);
            }
        })?;
        let all_places = places as usize;
        Ok(Self { jobs, places: Arc::new(Semaphore::new(all_places)), all_places })
    }

    /// How many pictures wait or are being read.
    pub fn depth(&self) -> usize {
        self.all_places - self.places.available_permits()
    }

    /// Reads a picture with whatever others there are.
    pub async fn read(&self, picture: Picture) -> Result<Reading, Failure> {
        let full = |_| Failure::busy("pictures", self.all_places);
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(full)?;
        let (answer, reading) = oneshot::channel();
        let job = Job { picture, answer, _place: place };
        self.jobs.send(job).map_err(|_| Failure::internal())?;
        // The other side is dropped where reading panics.
        reading.await.map_err(|_| Failure::internal())?.map_err(Failure::from)
    }
}

/// The next pictures that somebody still waits for; none where there will be no more.
fn next(jobs: &Receiver<Job>, wait: Duration) -> Option<Vec<Job>> {
    loop {
        let first = jobs.recv().ok()?;
        let size = |job: &Job| u64::from(job.picture.width()) * u64::from(job.picture.height());
        let mut pixels = size(&first);
        let mut batch = vec![first];
        let end = Instant::now() + wait;
        while batch.len() < LARGEST && pixels < MOST_PIXELS {
            match jobs.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(job) => {
                    pixels += size(&job);
                    batch.push(job);
                }
                Err(_) => break,
            }
        }
        batch.retain(|job| !job.answer.is_closed());
        if !batch.is_empty() {
            return Some(batch);
        }
    }
}

fn answer(recognizer: &Recognizer, batch: Vec<Job>) {
    let (pictures, waiting): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|job| (job.picture, (job.answer, job._place))).unzip();
    let read = |pictures: &[Picture]| {
        catch_unwind(AssertUnwindSafe(|| recognizer.read_all(pictures))).ok()
    };
    let readings: Vec<Option<Result<Reading>>> = match read(&pictures) {
        Some(readings) => readings.into_iter().map(Some).collect(),
        // Where one picture makes it panic, the others are still to be read.
        None => pictures
            .iter()
            .map(|picture| read(slice::from_ref(picture)).and_then(|mut one| one.pop()))
            .collect(),
    };
    for ((answer, _place), reading) in waiting.into_iter().zip(readings) {
        if let Some(reading) = reading {
            // It fails where the client has gone.
            let _ = answer.send(reading);
        }
    }
}
