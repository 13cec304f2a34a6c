//! Progress through many images on stderr: a bar on a terminal, else a plain line now and then.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows images done, images per second and the time left; the bar goes when this is dropped.
pub struct Progress {
    /// What is done, such as an epoch of how many.
    label: String,
    total: u64,
    bar: Option<ProgressBar>,
    start: Instant,
    /// Where this process began, and when the last line was printed.
    first: Option<u64>,
    printed: Instant,
}

impl Progress {
    /// Of something with `total` images.
    pub fn new(label: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                "{prefix} [{bar:30}] {human_pos}/{human_len} images, {rate}/s, {eta} left";
            let style = ProgressStyle::with_template(style)
                .expect("a valid template")
                .with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
                    let _ = write!(out, "{:.0}", state.per_sec());
                })
                .progress_chars("=> ");
            ProgressBar::new(total).with_prefix(label.to_owned()).with_style(style)
        });
        let now = Instant::now();
        Self { label: label.to_owned(), total, bar, start: now, first: None, printed: now }
    }

    /// So many images are done.
    pub fn set(&mut self, images: u64) {
        let images = images.min(self.total);
        if self.first.is_none()
            && let Some(bar) = &self.bar
        {
            // A resumed epoch does not begin at 0.
            bar.set_position(images);
            bar.reset_eta();
        }
        let first = *self.first.get_or_insert(images);
        match &self.bar {
            Some(bar) => bar.set_position(images),
            None if self.printed.elapsed() >= LINE_INTERVAL => {
                self.printed = Instant::now();
                let rate = (images - first) as f64 / self.start.elapsed().as_secs_f64();
                let left = (self.total - images) as f64 / rate.max(1e-9);
                // Nobody may be reading: eprintln! would panic.
                let _ = writeln!(
                    std::io::stderr(),
                    "{}: {images}/{} images, {rate:.0}/s, {left:.0} s left",
                    self.label, self.total
                );
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
