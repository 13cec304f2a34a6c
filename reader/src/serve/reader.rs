//! A network that reads pictures: small ones in batches, each large one alone on another thread.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use lenet5_core::data::digit::PIXELS;
use lenet5_core::recognizer::{LayerOutput, Pattern, Reading};
use lenet5_core::{Error, Network, Picture, PictureLimits, Recognizer, Result, Weights};
use tokio::sync::Semaphore;
use tokio::task;

use super::ServiceOptions;
use super::batch::Batcher;
use super::body::{BodyLimits, Received};
use super::failure::Failure;
use super::form::BodyForm;
use super::metrics::ServiceMetrics;

/// A picture of at most this many bytes and pixels is decoded in a millisecond, on the thread of its request, and read in
/// a batch. A larger one is decoded and read on another thread.
const SMALL_BODY: usize = 64 << 10;
/// Maximum pixels of a small picture.
const SMALL_PIXELS: u64 = 100_000;

/// The resources that requests may use.
pub struct RequestLimits {
    pub bodies: BodyLimits,
    pictures: PictureLimits,
    /// One permit for each core, for work that takes more than a millisecond.
    cores: Arc<Semaphore>,
}

/// A network that reads pictures.
pub struct NetworkReader {
    pub network: Network,
    pub recognizer: Arc<Recognizer>,
    pub batcher: Batcher,
}

impl RequestLimits {
    pub fn new(options: &ServiceOptions) -> Self {
        let pixels = options.max_pixels * 1_000_000;
        let pictures = PictureLimits { pixels, ..PictureLimits::default() };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let bodies = BodyLimits::new((options.max_body as usize) << 20, options.timeout);
        Self { bodies, pictures, cores: Arc::new(Semaphore::new(cores)) }
    }

    /// Runs work on a thread that may block.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = Arc::clone(&self.cores).acquire_owned().await.expect("it is never closed");
        let work = move || {
            let _permit = permit;
            work()
        };
        // This fails if the work panics; the log has the message.
        task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Failure::internal()))
    }
}

impl NetworkReader {
    /// Starts the network's queue. It reads with the shipped weights if `own` is `None`.
    pub fn start(
        network: Network,
        own: Option<&Weights>,
        options: &ServiceOptions,
        metrics: &Arc<ServiceMetrics>,
    ) -> Result<Self> {
        let recognizer = match own {
            Some(weights) => Recognizer::new(weights)?,
            None => Recognizer::shipped(network)?,
        };
        let recognizer = recognizer.reject_below(options.reject_below);
        let recognizer = Arc::new(recognizer.time_limit(options.timeout));
        let metrics = Arc::clone(metrics);
        let batcher = Batcher::start(
            Arc::clone(&recognizer),
            options.queue,
            Duration::from_micros(options.batch_wait),
            move |size| metrics.batch(network, size),
        )
        .map_err(|error| Error::Config(format!("starting a thread: {error}")))?;
        Ok(Self { network, recognizer, batcher })
    }

    /// Reads the picture that a body holds, whose lines have the form of `pattern`.
    pub async fn read(
        &self,
        limits: &RequestLimits,
        form: BodyForm,
        body: Received,
        pattern: Pattern,
    ) -> Result<Reading, Failure> {
        let small = body.bytes.len() <= SMALL_BODY;
        // The file's header tells whether the picture is too large, before any work waits for a thread.
        if small || matches!(form, BodyForm::File) {
            let file = form.file(&body.bytes)?;
            if stated_pixels(&file, limits.pictures.pixels)? <= SMALL_PIXELS && small {
                let picture = decode(&file, &limits.pictures)?;
                drop((file, body));
                return self.batcher.read(picture, pattern).await;
            }
        }
        let (recognizer, pictures) = (Arc::clone(&self.recognizer), limits.pictures);
        let work = move || {
            let file = form.file(&body.bytes)?;
            stated_pixels(&file, pictures.pixels)?;
            let picture = decode(&file, &pictures)?;
            drop((file, body));
            recognizer.read_as(&picture, &pattern).map_err(Failure::from)
        };
        limits.on_thread(work).await
    }

    /// The outputs of all layers for a digit's pixels, rounded to four decimals.
    pub async fn layers(
        &self,
        limits: &RequestLimits,
        pixels: [u8; PIXELS],
    ) -> Result<Vec<LayerOutput>, Failure> {
        let recognizer = Arc::clone(&self.recognizer);
        let work = move || {
            let mut layers = recognizer.layers(&pixels);
            for value in layers.iter_mut().flat_map(|layer| &mut layer.values) {
                *value = (*value * 1e4).round() / 1e4;
            }
            Ok(layers)
        };
        limits.on_thread(work).await
    }
}

/// The number of pixels that a picture's file states, checked against the limit. 0 if the file does not state it.
fn stated_pixels(file: &[u8], max: u64) -> Result<u64, Failure> {
    let Some((width, height)) = Picture::stated_size(file) else { return Ok(0) };
    let found = u64::from(width) * u64::from(height);
    if found > max {
        return Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "picture_too_large",
            format!("expected a picture of at most {max} pixels, found {width}x{height}"),
        ));
    }
    Ok(found)
}

fn decode(file: &Bytes, limits: &PictureLimits) -> Result<Picture, Failure> {
    Picture::decode(file, limits)
        .map_err(|message| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "not_a_picture", message))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Picture(message) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "no_digits", message)
            }
            error => {
                tracing::error!(%error, "reading a picture");
                Self::internal()
            }
        }
    }
}
