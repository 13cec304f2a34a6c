//! The log: lines on stderr, for people or for programs.

use std::io::{self, IsTerminal};
use std::panic;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// Its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Log {
    /// Text.
    Text,
    /// An object on each line.
    Json,
}

impl Log {
    /// Writes what the service logs, panics too, to stderr from now on. `RUST_LOG` sets the level: `off`,
    /// `error`, `warn`, `info` (the default, a line for each request) or `debug`.
    pub fn start(self) {
        let level = std::env::var("RUST_LOG").ok();
        let level = level.and_then(|level| LevelFilter::from_str(&level).ok());
        let log = tracing_subscriber::fmt()
            .with_max_level(level.unwrap_or(LevelFilter::INFO))
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            // It would panic where stderr is closed.
            .log_internal_errors(false);
        match self {
            Self::Text => log.init(),
            Self::Json => log.json().flatten_event(true).init(),
        }
        panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
    }
}
