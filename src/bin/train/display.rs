//! Shows a run on the terminal: its progress, and a table of epochs.

use lenet5::recipe::{OptimizerConfig, TrainConfig};
use lenet5::train::{EpochMetrics, Progress};
use lenet5_cli as cli;

/// Shows a run on the terminal: a bar for the current epoch, and a row for each epoch that is done.
pub struct Display {
    pub table: EpochTable,
    pub bar: Option<cli::ProgressBar>,
}

impl Progress for Display {
    fn begin(&mut self, epoch: u32, epochs: u32, images: u64) {
        self.bar = Some(cli::ProgressBar::new(&format!("epoch {epoch}/{epochs}"), images));
    }

    fn set(&mut self, images: u64) {
        if let Some(bar) = &mut self.bar {
            bar.set(images);
        }
    }

    fn end(&mut self) {
        self.bar = None;
    }

    fn report(&mut self, metrics: &EpochMetrics) {
        // A closed pipe does not stop training, as the results are in the folder.
        drop(cli::print(self.table.row(metrics)));
    }
}

/// A number of epochs in words.
pub fn epochs(count: u32) -> String {
    if count == 1 { "1 epoch".to_owned() } else { format!("{count} epochs") }
}

/// A column of the table: its name, its width, and its value in an epoch.
type Column = (String, usize, fn(&EpochMetrics) -> String);

/// The table of epochs.
pub struct EpochTable(Vec<Column>);

impl EpochTable {
    /// Creates the table. `size` is the number of rows and columns of the terminal, if stdout is
    /// one. Columns that do not fit are left out, as `metrics.jsonl` holds all of them.
    pub fn new(config: &TrainConfig, size: Option<(u16, u16)>) -> Self {
        let measured = if config.validation.is_some() { "valid." } else { "test" };
        let mut columns: Vec<(u8, Column)> = vec![
            (0, ("epoch".into(), 5, |m| m.epoch.to_string())),
            (1, ("train loss".into(), 12, |m| format!("{:.5}", m.train_loss))),
            (2, (format!("{measured} loss"), 11, |m| format!("{:.5}", m.test_loss))),
            (
                3,
                ("train error %".into(), 15, |m| {
                    format!("{:.2}", m.train_error_percent.unwrap_or(0.0))
                }),
            ),
            (0, (format!("{measured} error %"), 15, |m| format!("{:.2}", m.test_error_percent))),
            (4, ("learning rate".into(), 15, |m| format!("{:.6}", m.learning_rate))),
            (6, ("seconds".into(), 9, |m| format!("{:.2}", m.seconds))),
            (7, ("images/s".into(), 10, |m| format!("{:.0}", m.images_per_second))),
            (5, ("parameter rates".into(), 18, |m| range(m.parameter_rates))),
        ];
        columns.retain(|(_, (name, ..))| match name.as_str() {
            "train error %" => config.train_error,
            "parameter rates" => matches!(config.optimizer, OptimizerConfig::Sdlm { .. }),
            _ => true,
        });
        let room = size.map_or(usize::MAX, |(_, columns)| usize::from(columns));
        for priority in (1..=7).rev() {
            if columns.iter().map(|(_, (_, width, _))| width).sum::<usize>() <= room {
                break;
            }
            columns.retain(|(rank, _)| *rank != priority);
        }
        Self(columns.into_iter().map(|(_, column)| column).collect())
    }

    pub fn header(&self) -> String {
        self.0.iter().map(|(name, width, _)| format!("{name:>width$}")).collect()
    }

    fn row(&self, metrics: &EpochMetrics) -> String {
        let cell = |(_, width, value): &Column| format!("{:>width$}", value(metrics));
        self.0.iter().map(cell).collect::<String>() + "\n"
    }
}

fn range(rates: Option<(f32, f32)>) -> String {
    rates.map_or_else(String::new, |(smallest, largest)| format!("{smallest:.1e}..{largest:.1e}"))
}
