//! The log: text for people or JSON for programs, on stderr. Like stderr, it belongs to the process and not
//! to a gateway.

mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _, Write as _};
use std::panic::{self, PanicHookInfo};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::checks::{Checks, Finding};
use super::settings;

/// How long the end of the process waits until the log is written.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Targets whose logging is limited, whatever the level.
const UNTRACED: &str =
    "tungstenite=info,tungstenite::protocol=info,tungstenite::handshake=info,warp=info,warp::filters=info";

/// The lines of this process that wait to be written.
static LINES: OnceLock<Arc<writer::Buffer>> = OnceLock::new();

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; coloured when stderr is a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

settings! {
    /// `[log]`
    #[derive(Debug)]
    pub struct LogConfig {
        /// The format of lines: `text` or `json`. Default `text`.
        pub format: LogFormat = LogFormat::Text,
        /// What is logged: `error`, `warn`, `info`, `debug`, `trace` or `off`, or directives by module such
        /// as `info,zonewire::storage=debug`. Default `info`.
        pub level: String = "info".to_owned(),
    }
}

impl LogConfig {
    /// The invalid settings.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = Checks::of("log");
        let is_usable = EnvFilter::try_new(&self.level).is_ok()
            && !self.level.trim().is_empty()
            && self.level.split(',').all(says_how_much);
        checks.require("level", is_usable, || {
            format!(
                "expected error, warn, info, debug, trace or off, or directives such as \
                 info,zonewire::storage=debug; found {:?}",
                self.level
            )
        });
        checks.finish()
    }
}

/// Whether a directive names a level. The filter takes any other word for the name of a module, so
/// `warning` would silence everything.
fn says_how_much(directive: &str) -> bool {
    let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level).trim();
    // Numbers are levels too, but hardly anybody knows which.
    level.parse::<LevelFilter>().is_ok() && !level.bytes().all(|byte| byte.is_ascii_digit())
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// `log.level` is invalid.
    #[error("log.level is invalid")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The log was set up before.
    #[error("this process already has a log")]
    Taken(#[from] tracing_subscriber::util::TryInitError),
    /// The writing thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[from] io::Error),
}

/// Flushes the log at the end of the process.
#[derive(Debug)]
#[must_use]
pub(crate) struct Log(Arc<writer::Buffer>);

impl Drop for Log {
    fn drop(&mut self) {
        // If stderr is not read in time, the process ends nevertheless, rather than hanging.
        self.0.flush(FLUSH_WITHIN);
    }
}

/// Sets up the log of this process, including panics; once. Logging never waits: see [`lines_lost`].
///
/// # Errors
/// The level is invalid, or the log was set up before.
pub(crate) fn init(config: &LogConfig) -> Result<Log, TelemetryError> {
    // The Redis client warns of each lost connection, but so does the gateway, once and in context. Later
    // directives override earlier ones, so a user can ask for more. At level trace, the WebSocket library
    // logs everything that clients send, and the routing library logs queries, including tokens; that must
    // never be logged, so these directives come last.
    let filter = EnvFilter::try_new(format!("fred=error,{},{UNTRACED}", config.level))?;
    let tell_lost = |lost| warn!(lost, "log lines were lost because stderr did not accept them");
    let (writer, buffer) = writer::start(io::stderr(), tell_lost)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // Otherwise the library reports with `eprintln!` that stderr fails, which panics.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    match config.format {
        LogFormat::Text => lines.finish().try_init()?,
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init()?,
    }
    panic::set_hook(Box::new(log_panic));
    let buffer = LINES.get_or_init(|| buffer);
    Ok(Log(Arc::clone(buffer)))
}

/// How many log lines of this process were lost because stderr did not accept them: its reader is gone or
/// too slow, or its disk is full.
pub(crate) fn lines_lost() -> u64 {
    LINES.get().map_or(0, |lines| lines.lost())
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("(not a text)");
    let place = info.location().map(ToString::to_string);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = thread::current();
    error!(message, place, thread = thread.name(), backtrace, "panicked");
}

/// Writes a line to stderr for people, after what was logged; if nobody reads stderr, it is given up after
/// a moment. For the last line of a process.
pub(crate) fn last_words(line: &str) {
    if let Some(lines) = LINES.get() {
        lines.flush(FLUSH_WITHIN);
    }
    let (said, heard) = mpsc::channel();
    let text = format!("{line}\n");
    let speak = move || {
        let written = io::stderr().write_all(text.as_bytes());
        // If nobody waits any more, or nobody reads stderr, there is nobody to tell.
        let _told = said.send(written.is_ok());
    };
    if thread::Builder::new().spawn(speak).is_ok() {
        let _in_time = heard.recv_timeout(FLUSH_WITHIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_usable(level: &str) -> bool {
        LogConfig { level: level.to_owned(), ..LogConfig::default() }.check().is_empty()
    }

    #[test]
    fn a_level_is_a_word_or_directives() {
        for level in ["info", "WARN", "off", "warn,zonewire::storage=debug"] {
            assert!(is_usable(level), "{level}");
        }
        for level in ["", " ", "warning", "verbose", "wran", "info,quiet", "5", "zonewire=5", "zonewire=loud"]
        {
            assert!(!is_usable(level), "{level}");
        }
    }
}
