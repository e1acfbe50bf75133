//! The log: text for people or JSON for machines, on stderr.

use std::io::{self, IsTerminal as _};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::checks::{Checks, Finding};

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; coloured when stderr is a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// How a line is written: `text` or `json`. Default `text`.
    pub format: LogFormat,
    /// What is written: `error`, `warn`, `info`, `debug`, `trace` or `off`, or directives by part
    /// such as `info,zonewire::storage=debug`. Default `info`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl LogConfig {
    /// What cannot be used.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = Checks::of("log");
        let filter = EnvFilter::try_new(&self.level);
        checks.require("level", filter.is_ok() && !self.level.trim().is_empty(), || {
            "expected error, warn, info, debug, trace or off, or directives such as \
             info,zonewire::storage=debug"
                .to_owned()
        });
        checks.finish()
    }
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// `log.level` is not usable.
    #[error("log.level is not usable")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody else did so before.
    #[error("this process already has a log")]
    Taken(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up the log of this process; once.
///
/// # Errors
/// The level is not usable, or there is a log already.
pub(crate) fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    // The Redis client warns of each lost connection, and so does the gateway, once and in context.
    // Directives that come later win, so that a user who asks for more gets it.
    let filter = EnvFilter::try_new(format!("fred=error,{}", config.level))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match config.format {
        LogFormat::Text => lines.finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_usable(level: &str) -> bool {
        LogConfig { level: level.to_owned(), ..LogConfig::default() }.check().is_empty()
    }

    #[test]
    fn a_level_is_a_word_or_directives() {
        assert!(is_usable("info"));
        assert!(is_usable("warn,zonewire::storage=debug"));
        assert!(!is_usable(""));
        assert!(!is_usable("zonewire=loud"));
    }
}
