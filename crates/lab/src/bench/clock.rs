//! The one clock of a run, in nanoseconds.
//!
//! Readings count from the start of the machine, not of the process, so that a message from an earlier run,
//! left over in a server, is recognized by its time.

#![expect(clippy::disallowed_types, reason = "threads without a runtime measure real time here")]

use std::{fs, time::Instant};

/// A monotonic clock. Copies agree with each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    base_ns: u64,
    started: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        let uptime = fs::read_to_string("/proc/uptime").ok();
        Self { base_ns: uptime.as_deref().and_then(uptime_ns).unwrap_or(0), started: Instant::now() }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.base_ns + u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 2)
    }

    /// Seconds since an earlier reading.
    pub(super) fn seconds_since(&self, earlier_ns: u64) -> f64 {
        seconds(self.now_ns().saturating_sub(earlier_ns))
    }
}

/// Nanoseconds as seconds.
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Seconds as nanoseconds; negative ones are zero.
pub(super) fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// The first field of `/proc/uptime`.
fn uptime_ns(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok().map(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_uptime() {
        assert_eq!(uptime_ns("12.50 20.00\n"), Some(12_500_000_000));
        assert_eq!(uptime_ns(""), None);
    }

    #[test]
    fn never_runs_backwards() {
        let clock = Clock::start();
        let first = clock.now_ns();
        assert!(clock.now_ns() >= first);
    }
}
