//! The latest entry of each key of a channel, and what these entries cost.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::Utc;
use tokio::time::Instant;

use crate::model::{ChannelKind, Entry};
use crate::support::chance::Hashing;

/// The latest entry of each key. It outlives the log's own copy, so its cost is counted apart from
/// that of the log.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Latest {
    by_key: HashMap<Arc<str>, Held, Hashing>,
    bytes: usize,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Held {
    entry: Entry,
    /// Its offset, where that is of the log's present life; else 0.
    rank: u64,
    /// When it came.
    since: Instant,
}

impl Latest {
    /// What they cost.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_key.values().map(|held| &held.entry)
    }

    /// Offsets begin anew: whatever comes is later than what is known.
    pub(super) fn forget_offsets(&mut self) {
        self.by_key.values_mut().for_each(|held| held.rank = 0);
    }

    /// Takes an entry where it is the latest of its key: the one that was appended last, whatever its own
    /// time says. Only one that waited at its gateway is compared by time, since others may have been
    /// appended elsewhere after it was accepted; `by_offset` tells that none is.
    pub(super) fn note(&mut self, entry: &Entry, by_offset: bool, now: Instant) {
        let kind = if by_offset { ChannelKind::Order } else { ChannelKind::Zone };
        let Some(key) = entry.draft.latest_key(kind) else { return };
        // A time ahead of the clock counts as now.
        let clock = Utc::now();
        let time = |entry: &Entry| entry.draft.time.min(clock);
        let replaces = |later: &Entry, before: &Entry| {
            by_offset || !later.draft.marks.late || time(later) >= time(before)
        };
        let is_newer = self.by_key.get(&key).is_none_or(|held| {
            if entry.offset >= held.rank {
                replaces(entry, &held.entry)
            } else {
                !replaces(&held.entry, entry)
            }
        });
        if is_newer {
            self.put(&key, entry.clone(), now);
        }
    }

    /// Puts an entry in place of the one that the key has.
    fn put(&mut self, key: &Arc<str>, entry: Entry, now: Instant) {
        self.bytes += entry.draft.cost();
        let held = Held { rank: entry.offset, entry, since: now };
        if let Some(before) = self.by_key.insert(Arc::clone(key), held) {
            self.bytes -= before.entry.draft.cost();
        }
    }

    /// Lets go of those that came first until no more than `goal` bytes are left; says how many went.
    pub(super) fn shrink(&mut self, goal: usize) -> u64 {
        if self.bytes <= goal {
            return 0;
        }
        let mut oldest_first: Vec<(Instant, u64, Arc<str>)> =
            self.by_key.iter().map(|(key, held)| (held.since, held.entry.offset, Arc::clone(key))).collect();
        oldest_first.sort_unstable();
        let mut gone = 0;
        for (_, _, key) in oldest_first {
            if self.bytes <= goal {
                break;
            }
            if let Some(held) = self.by_key.remove(&key) {
                self.bytes -= held.entry.draft.cost();
                gone += 1;
            }
        }
        gone
    }
}

/// The bound to which each of these sizes must be cut so that all together are within `goal`: those
/// that hold most give most.
pub(super) fn level(mut sizes: Vec<usize>, goal: usize) -> usize {
    sizes.sort_unstable();
    let (mut left, count) = (goal, sizes.len());
    for (at, size) in sizes.into_iter().enumerate() {
        let share = left / (count - at);
        if size > share {
            return share;
        }
        left -= size;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_hold_most_give_most() {
        for (sizes, goal, expected) in [
            (vec![], 10, usize::MAX),
            (vec![5, 5], 10, usize::MAX),
            (vec![100, 1, 1], 10, 8),
            (vec![100, 100, 1], 11, 5),
            (vec![100, 100], 0, 0),
        ] {
            assert_eq!(level(sizes.clone(), goal), expected, "{sizes:?} {goal}");
        }
    }
}
