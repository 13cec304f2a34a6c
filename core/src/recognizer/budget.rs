//! The budget for reading one picture: work, measured in pixels, time and cores.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::{Error, Result};

/// The number of pixels that all steps together may process, for each pixel of the reduced picture.
const WORK: usize = 64;

/// The remaining budget.
pub struct Budget {
    pixels: AtomicUsize,
    /// The end of the time limit and its length; `None` without a limit.
    end: Option<(Instant, Duration)>,
    all_cores: bool,
}

impl Budget {
    /// Creates a budget whose time limit starts now; without a limit if `time` is `None`.
    pub fn new(time: Option<Duration>) -> Self {
        // Without a limit the clock is not read: in browsers `Instant` has none.
        let end = time.and_then(|time| Some((Instant::now().checked_add(time)?, time)));
        Self { pixels: AtomicUsize::new(0), end, all_cores: false }
    }

    /// Sets whether steps may run on all cores. When several pictures are read at the same time,
    /// each one stays on its core, so that its time limit does not count work on the others.
    pub fn all_cores(mut self, all_cores: bool) -> Self {
        self.all_cores = all_cores;
        self
    }

    /// Returns the rest of the time limit.
    pub fn remaining_time(&self) -> Option<Duration> {
        self.end.map(|(end, _)| end.saturating_duration_since(Instant::now()))
    }

    /// Sets the work that a picture of this number of pixels may take.
    pub fn allow(&mut self, pixels: usize) {
        *self.pixels.get_mut() = WORK * pixels.max(1 << 16);
    }

    /// Subtracts the work of a step that processes this number of pixels.
    ///
    /// # Errors
    /// [`Error::Picture`] if the budget does not suffice, or the time limit is exceeded.
    pub fn spend(&self, pixels: usize) -> Result<()> {
        let spent = self.pixels.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(pixels));
        spent.map_err(|_| {
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

    /// Applies a step to each item and returns the results in order.
    ///
    /// # Errors
    /// The error of a step.
    pub fn map<T: Sync, U: Send>(
        &self,
        items: &[T],
        step: impl Fn(&T) -> Result<U> + Sync + Send,
    ) -> Result<Vec<U>> {
        match self.all_cores {
            true => items.par_iter().map(step).collect(),
            false => items.iter().map(step).collect(),
        }
    }
}
