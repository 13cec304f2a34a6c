//! The budget for reading one picture: work, measured in pixels, and time.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// The number of pixels that all steps together may process, for each pixel of the reduced picture.
const WORK: usize = 64;

/// The remaining budget.
pub struct Budget {
    pixels: usize,
    /// The end of the time limit and its length; `None` without a limit.
    end: Option<(Instant, Duration)>,
}

impl Budget {
    /// Creates a budget whose time limit starts now; without a limit if `time` is `None`.
    pub fn new(time: Option<Duration>) -> Self {
        let now = Instant::now();
        let end = time.and_then(|time| Some((now.checked_add(time)?, time)));
        Self { pixels: 0, end }
    }

    /// Returns the rest of the time limit.
    pub fn remaining_time(&self) -> Option<Duration> {
        self.end.map(|(end, _)| end.saturating_duration_since(Instant::now()))
    }

    /// Sets the work that a picture of this number of pixels may take.
    pub fn allow(&mut self, pixels: usize) {
        self.pixels = WORK * pixels.max(1 << 16);
    }

    /// Subtracts the work of a step that processes this number of pixels.
    ///
    /// # Errors
    /// [`Error::Picture`] if the budget does not suffice, or the time limit is exceeded.
    pub fn spend(&mut self, pixels: usize) -> Result<()> {
        self.pixels = self.pixels.checked_sub(pixels).ok_or_else(|| {
            Error::Picture(
                "expected writing, found a pattern of too many parts within each other".to_owned(),
            )
        })?;
        self.check_time()
    }

    /// Checks the time limit.
    ///
    /// # Errors
    /// [`Error::Picture`] if the time limit is exceeded.
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
