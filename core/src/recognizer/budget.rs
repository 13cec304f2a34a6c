//! The budget for reading one picture: work, counted in pixels, and time.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Pixels that the steps may go through, for each pixel that is looked at.
const WORK: usize = 64;

/// The part of the budget that is left.
pub struct Budget {
    pixels: usize,
    /// When the time is over, and how long it was.
    end: Option<(Instant, Duration)>,
}

impl Budget {
    /// A budget of time from now on; none where there is no limit.
    pub fn new(time: Option<Duration>) -> Self {
        let now = Instant::now();
        let end = time.and_then(|time| Some((now.checked_add(time)?, time)));
        Self { pixels: 0, end }
    }

    /// Sets the work that a picture of so many pixels may take.
    pub fn allow(&mut self, pixels: usize) {
        self.pixels = WORK * pixels.max(1 << 16);
    }

    /// Takes a step that goes through so many pixels.
    ///
    /// # Errors
    /// [`Error::Picture`] where that is more than is left, or the time is over.
    pub fn spend(&mut self, pixels: usize) -> Result<()> {
        self.pixels = self.pixels.checked_sub(pixels).ok_or_else(|| {
            Error::Picture(
                "expected writing, found a pattern of too many parts within each other".to_owned(),
            )
        })?;
        self.check_time()
    }

    /// Whether there is time left.
    ///
    /// # Errors
    /// [`Error::Picture`] where there is none.
    pub fn check_time(&self) -> Result<()> {
        match self.end {
            Some((end, time)) if Instant::now() >= end => Err(Error::Picture(format!(
                "expected a picture that is read within {} s, found that it takes longer",
                time.as_secs_f64()
            ))),
            _ => Ok(()),
        }
    }
}
