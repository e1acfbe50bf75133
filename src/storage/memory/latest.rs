//! The latest entry of each key of a channel, and what these entries cost.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::time::Instant;

use crate::model::{ChannelKind, Entry, EntryKind};
use crate::storage::{LatestPage, PageLimit};

/// The latest entry of each key. It outlives the log's own copy, so its cost is counted apart from
/// that of the log.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Latest {
    /// Boxed: a map of one key has room for eleven, and nearly all orders have one.
    by_key: BTreeMap<Arc<str>, Box<Held>>,
    bytes: usize,
    /// None of them came before this.
    oldest: Option<Instant>,
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

impl Held {
    /// Whether it is the latest no more once this entry is known.
    fn gives_way_to(&self, entry: &Entry, by_offset: bool) -> bool {
        let is_newer = |one: &Entry, other: &Entry| {
            // A time ahead of the clock counts as now.
            let clock = Utc::now();
            one.draft.time.min(clock) >= other.draft.time.min(clock)
        };
        let replaces =
            |later: &Entry, before: &Entry| by_offset || !later.draft.marks.late || is_newer(later, before);
        if entry.offset >= self.rank { replaces(entry, &self.entry) } else { !replaces(&self.entry, entry) }
    }
}

impl Latest {
    /// What they cost.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_key.values().map(|held| &held.entry)
    }

    /// Offsets begin anew: whatever comes is later than what is known.
    pub(super) fn forget_offsets(&mut self) {
        self.by_key.values_mut().for_each(|held| held.rank = 0);
    }

    /// The log goes on from this offset in a life that has not what came after it: whatever comes there is
    /// later.
    pub(super) fn forget_offsets_after(&mut self, top: u64) {
        self.by_key.values_mut().filter(|held| held.rank > top).for_each(|held| held.rank = 0);
    }

    /// Takes an entry where it is the latest of its key: the one that was appended last, whatever its own
    /// time says. Only one that waited at its gateway is compared by time, since others may have been
    /// appended elsewhere after it was accepted; `by_offset` tells that none is. A removal of keys takes
    /// them away by the same rule.
    pub(super) fn note(&mut self, entry: &Entry, by_offset: bool, now: Instant) {
        let channel = if by_offset { ChannelKind::Order } else { ChannelKind::Zone };
        let draft = &entry.draft;
        let gives_way = |held: &Held| held.gives_way_to(entry, by_offset);
        match (&draft.kind, &draft.key, draft.latest_key(channel)) {
            (EntryKind::ZoneRemoved, ..) => {
                let gone = self.by_key.iter().filter(|(_, held)| gives_way(held));
                let gone: Vec<Arc<str>> = gone.map(|(key, _)| Arc::clone(key)).collect();
                gone.iter().for_each(|key| self.remove(key));
            }
            (EntryKind::KeyRemoved, Some(key), _) => {
                if self.by_key.get(key).is_some_and(|held| gives_way(held)) {
                    self.remove(key);
                }
            }
            (_, _, Some(key)) => {
                let held = self.by_key.get(&key);
                let is_held = held.is_some_and(|held| held.entry.id == entry.id && held.rank == entry.offset);
                if !is_held && held.is_none_or(|held| gives_way(held)) {
                    self.put(&key, entry.clone(), now);
                }
            }
            (_, _, None) => {}
        }
    }

    /// Puts an entry in place of the one that the key has.
    fn put(&mut self, key: &Arc<str>, entry: Entry, now: Instant) {
        self.oldest.get_or_insert(now);
        self.bytes += entry.draft.cost();
        let held = Box::new(Held { rank: entry.offset, entry, since: now });
        if let Some(before) = self.by_key.insert(Arc::clone(key), held) {
            self.bytes -= before.entry.draft.cost();
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some(held) = self.by_key.remove(key) {
            self.bytes -= held.entry.draft.cost();
        }
    }

    /// Lets go of those that came so long ago.
    pub(super) fn expire(&mut self, age: Duration, now: Instant) {
        if self.due(age).is_none_or(|due| now < due) {
            return;
        }
        let bytes = &mut self.bytes;
        self.by_key.retain(|_, held| {
            let stays = now.duration_since(held.since) < age;
            if !stays {
                *bytes -= held.entry.draft.cost();
            }
            stays
        });
        self.oldest = self.by_key.values().map(|held| held.since).min();
    }

    /// When the first of them may be so old.
    pub(super) fn due(&self, age: Duration) -> Option<Instant> {
        self.oldest.map(|oldest| oldest + age)
    }

    /// The first ones after a key, within the limit.
    pub(super) fn page(&self, after: Option<&str>, limit: PageLimit) -> LatestPage {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut page, mut bytes, mut last) = (LatestPage::default(), 0, None);
        for (key, held) in self.by_key.range::<str, _>((from, Bound::Unbounded)) {
            bytes += held.entry.draft.cost();
            let is_full = page.entries.len() >= limit.entries || bytes > limit.bytes;
            if is_full && (limit.entries == 0 || !page.entries.is_empty()) {
                page.next = last.map(str::to_owned);
                break;
            }
            page.entries.push(held.entry.clone());
            page.places.push(held.rank);
            last = Some(&**key);
        }
        page
    }

    /// All keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_key.keys()
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
