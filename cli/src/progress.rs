//! Progress of work on many images, on stderr: a bar on a terminal, otherwise a plain line every 10
//! seconds.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{
    HumanCount, HumanDuration, ProgressBar as TerminalBar, ProgressState, ProgressStyle,
};

const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows the number of images done, images per second and the time left. The bar disappears when
/// this is dropped.
pub struct ProgressBar {
    /// The name of the work, such as the epoch.
    label: String,
    total: u64,
    bar: Option<TerminalBar>,
    start: Instant,
    /// The number of images at the first call of `set`.
    first: Option<u64>,
    /// The time of the last plain line.
    printed: Instant,
}

impl ProgressBar {
    /// Creates the progress bar of work on `total` images.
    pub fn new(label: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let label = label.to_owned();
            let style = ProgressStyle::with_template("{line}").expect("a valid template").with_key(
                "line",
                move |state: &ProgressState, out: &mut dyn fmt::Write| {
                    let (images, left) = ((state.pos(), total), HumanDuration(state.eta()));
                    // The window may have been resized since the last line.
                    let width = usize::from(Term::stderr().size().1);
                    let _ = out.write_str(&line(&label, images, state.per_sec(), &left, width));
                },
            );
            TerminalBar::new(total).with_style(style)
        });
        let now = Instant::now();
        Self { label: label.to_owned(), total, bar, start: now, first: None, printed: now }
    }

    /// Shows that `images` images are done.
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
                // `eprintln!` would panic if stderr is closed.
                let _ = writeln!(
                    std::io::stderr(),
                    "{}: {images}/{} images, {rate:.0}/s, {left:.0} s left",
                    self.label,
                    self.total
                );
            }
            None => {}
        }
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Returns a line such as `epoch 1/10 [===>   ] 30,000/60,000 images, 9000/s, 3s left`, shortened
/// to `width` columns. A line that wraps could not be overwritten completely.
fn line(
    label: &str,
    (done, total): (u64, u64),
    rate: f64,
    left: &HumanDuration,
    width: usize,
) -> String {
    let (count, whole) = (HumanCount(done), HumanCount(total));
    let percent = 100 * done / total.max(1);
    let images = format!("{count}/{whole} images, {rate:.0}/s, {left:#} left");
    let room = width.saturating_sub(label.len() + images.len() + "[] ".len() + 1);
    if room >= 10 {
        let size = room.min(30);
        let full = size * done as usize / total.max(1) as usize;
        let head = if full < size { ">" } else { "" };
        return format!("{label} [{:size$}] {images}", "=".repeat(full) + head);
    }
    let shorter = [
        format!("{label} {images}"),
        format!("{label} {count}/{whole}, {left:#} left"),
        format!("{label} {percent} %, {left:#} left"),
        format!("{label} {percent} %"),
        format!("{percent} %"),
    ];
    let fits = shorter.into_iter().find(|text| text.len() <= width);
    fits.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_no_wider_than_the_terminal() {
        let left = HumanDuration(Duration::from_secs(3));
        let of = |width| line("epoch 10/120", (30_000, 60_000), 9000.4, &left, width);
        let table = [
            (
                100,
                "epoch 10/120 [===============>              ] 30,000/60,000 images, 9000/s, 3s left",
            ),
            (68, "epoch 10/120 [=======>       ] 30,000/60,000 images, 9000/s, 3s left"),
            (60, "epoch 10/120 30,000/60,000 images, 9000/s, 3s left"),
            (40, "epoch 10/120 30,000/60,000, 3s left"),
            (30, "epoch 10/120 50 %, 3s left"),
            (20, "epoch 10/120 50 %"),
            (5, "50 %"),
            (2, ""),
        ];
        for (width, expected) in table {
            assert_eq!(of(width), expected, "{width}");
        }
        assert!((0..200).all(|width| of(width).len() <= width));
        let ended = line("epoch 1/1", (64, 64), 1.0, &left, 200);
        assert!(ended.contains(&format!("[{}]", "=".repeat(30))), "{ended}");
    }
}
