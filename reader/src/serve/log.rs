//! The log: lines on stderr, as text or as JSON.

use std::io::{self, IsTerminal};
use std::panic;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines of text.
    Text,
    /// One JSON object on each line.
    Json,
}

impl LogFormat {
    /// Starts the log on stderr. It includes panics. `RUST_LOG` sets the level: `off`, `error`, `warn`, `info` (the
    /// default: one line for each request) or `debug`.
    pub fn start(self) {
        let level = std::env::var("RUST_LOG").ok();
        let level = level.and_then(|level| LevelFilter::from_str(&level).ok());
        let log = tracing_subscriber::fmt()
            .with_max_level(level.unwrap_or(LevelFilter::INFO))
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            // Reporting an error of the log itself would panic if stderr is closed.
            .log_internal_errors(false);
        match self {
            Self::Text => log.init(),
            Self::Json => log.json().flatten_event(true).init(),
        }
        panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
    }
}
