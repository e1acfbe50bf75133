//! A symbol's order book, rebuilt from the exchange's messages, so that a snapshot of it can be published at any
//! time.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use tokio::time::{Duration, Instant};

use super::decimal::Decimal;

/// How many levels each side retains; beyond that the worst are dropped.
const LEVELS_MAX: usize = 5_000;

/// How often a changing book is published as a snapshot, for late subscribers.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);

/// A level: price and size.
pub(super) type Level<'a> = (Decimal<'a>, Decimal<'a>);

/// Bids and asks.
#[derive(Debug, Default)]
pub(super) struct Sides<'a> {
    pub(super) bids: Vec<Level<'a>>,
    pub(super) asks: Vec<Level<'a>>,
}

/// Levels as text: price and size.
type Texts<'a> = Vec<(&'a str, &'a str)>;

/// One side: levels as text, by the value of the price.
type Side = BTreeMap<i128, (Box<str>, Box<str>)>;

#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    bids: Side,
    asks: Side,
    /// The number of the last change; `None` until there is a snapshot.
    sequence: Option<u64>,
    /// The last number that [`next_number`](Self::next_number) returned.
    last_number: u64,
    /// When it was last published as a snapshot.
    published: Option<Instant>,
}

impl Book {
    /// Starts over from a snapshot. Levels of size zero are absent levels.
    pub(super) fn begin(&mut self, sides: &Sides<'_>, sequence: u64, depth: usize, now: Instant) {
        (self.bids, self.asks) = (Side::new(), Side::new());
        self.set(sides, depth);
        (self.sequence, self.published) = (Some(sequence), Some(now));
    }

    /// Marks the book as incomplete: further changes cannot be applied.
    pub(super) fn lose(&mut self) {
        self.sequence = None;
    }

    /// The number of the last change; `None` while the book is incomplete.
    pub(super) fn sequence(&self) -> Option<u64> {
        self.sequence
    }

    /// A number for a change of an exchange that does not number them: greater than all before it, even those of an
    /// earlier process, unless the clock was set back.
    pub(super) fn next_number(&mut self, now: DateTime<Utc>) -> u64 {
        let least = u64::try_from(now.timestamp_millis()).unwrap_or(0).saturating_mul(1_000);
        self.last_number = if self.last_number == 0 { least } else { self.last_number + 1 };
        self.last_number
    }

    /// Applies changes, and then drops all but the best `depth` levels of each side.
    pub(super) fn apply(&mut self, sides: &Sides<'_>, sequence: u64, depth: usize) {
        self.set(sides, depth);
        self.sequence = Some(sequence);
    }

    fn set(&mut self, sides: &Sides<'_>, depth: usize) {
        for (side, levels) in [(&mut self.bids, &sides.bids), (&mut self.asks, &sides.asks)] {
            for (price, size) in levels {
                if size.is_zero() {
                    side.remove(&price.value());
                } else {
                    side.insert(price.value(), (price.text().into(), size.text().into()));
                }
            }
        }
        let depth = depth.min(LEVELS_MAX);
        while self.bids.len() > depth {
            self.bids.pop_first();
        }
        while self.asks.len() > depth {
            self.asks.pop_last();
        }
    }

    /// The best levels of each side.
    pub(super) fn best(&self, depth: usize) -> (Texts<'_>, Texts<'_>) {
        fn texts(level: &(Box<str>, Box<str>)) -> (&str, &str) {
            (&level.0, &level.1)
        }
        let bids = self.bids.values().rev().take(depth).map(texts).collect();
        (bids, self.asks.values().take(depth).map(texts).collect())
    }

    /// Whether a snapshot of a complete book is due; if so, it counts as published.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.sequence.is_some()
            && self.published.is_none_or(|at| now.saturating_duration_since(at) >= SNAPSHOT_EVERY);
        if is_due {
            self.published = Some(now);
        }
        is_due
    }
}
