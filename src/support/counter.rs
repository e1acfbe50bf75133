//! Counters that threads share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zonewire_protocol::stats::{Live, Timing};

/// A number that many threads add to, or set.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// For numbers that go down as well.
    pub(crate) fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Adds a duration to a histogram.
pub(crate) fn observe(timing: &Timing<Counter>, took: Duration) {
    timing.bucket(took).add(1);
    timing.sum_us.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

impl Live for Counter {
    type Read = u64;

    fn read(&self) -> u64 {
        self.get()
    }
}
