//! The reorder buffer: puts the entries of one channel in order, wherever they come from.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::unborn::unborn;
use crate::model::{Entry, Epoch, Position};

/// The most entries that wait for a missing one before them. With more, they are dropped and read from the
/// log.
const WAITING_MAX: usize = 4_096;

/// The outcome of [`Merge::offer`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// These are next, in order; maybe none.
    Ready(Vec<Entry>),
    /// The entries belong to another epoch of the log: the storage has to be asked which one is current.
    ForeignEpoch,
}

/// One channel's order on this node: each offset once, without gaps. Answers of appends, notifications and
/// pages of the log may be offered in any order and any number of times.
#[derive(Debug)]
pub(super) struct Merge {
    epoch: Epoch,
    /// Whether the log does not exist yet, as far as is known, so that `epoch` is what it will start with.
    unborn: bool,
    next: u64,
    buffer: BTreeMap<u64, Entry>,
    hole_since: Option<Instant>,
    /// Whether waiting entries were dropped, so that only reading the log to its end fills the gap.
    dropped_waiting: bool,
}

impl Merge {
    /// Begins just after `offset`.
    pub(super) fn after(epoch: Epoch, offset: u64) -> Self {
        Self {
            epoch,
            unborn: false,
            next: offset + 1,
            buffer: BTreeMap::new(),
            hole_since: None,
            dropped_waiting: false,
        }
    }

    /// Begins with a log that does not exist yet and may start with this epoch.
    pub(super) fn unborn(epoch: Epoch) -> Self {
        Self { unborn: true, ..Self::after(epoch, 0) }
    }

    /// Whether the log did not exist when it was last looked at.
    pub(super) fn is_unborn(&self) -> bool {
        self.unborn
    }

    /// Records that the log has started, with the expected epoch.
    pub(super) fn born(&mut self) {
        self.unborn = false;
    }

    /// The position of the newest entry that was ready; while the log does not exist, with the epoch for
    /// readers ([`unborn`]).
    pub(super) fn position(&self) -> Position {
        let epoch = if self.unborn { unborn(&self.epoch) } else { self.epoch.clone() };
        Position { epoch, offset: self.delivered() }
    }

    pub(super) fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The offset of the newest entry that was ready.
    pub(super) fn delivered(&self) -> u64 {
        self.next - 1
    }

    /// Since when entries have been waiting for a missing one before them.
    pub(super) fn hole_since(&self) -> Option<Instant> {
        self.hole_since
    }

    /// Takes entries of `epoch`; returns those that are next.
    pub(super) fn offer(
        &mut self,
        epoch: &Epoch,
        entries: impl IntoIterator<Item = Entry>,
        now: Instant,
    ) -> Offered {
        if *epoch != self.epoch {
            return Offered::ForeignEpoch;
        }
        let mut ready = Vec::new();
        for entry in entries {
            self.unborn = false;
            if entry.offset == self.next {
                self.next += 1;
                ready.push(entry);
                while let Some(waiting) = self.buffer.remove(&self.next) {
                    self.next += 1;
                    ready.push(waiting);
                }
            } else if entry.offset > self.next {
                self.buffer.insert(entry.offset, entry);
            }
        }
        if self.buffer.len() > WAITING_MAX {
            // The gap stays open: the dropped entries are read from the log.
            self.buffer.clear();
            self.dropped_waiting = true;
            self.hole_since.get_or_insert(now);
        } else if self.dropped_waiting {
            self.hole_since.get_or_insert(now);
        } else if self.buffer.is_empty() {
            self.hole_since = None;
        } else if self.hole_since.is_none() || !ready.is_empty() {
            self.hole_since = Some(now);
        }
        Offered::Ready(ready)
    }

    /// Skips entries before `first`, which are no longer in the log. Returns what is then ready.
    pub(super) fn skip_to(&mut self, first: u64) -> Vec<Entry> {
        self.next = self.next.max(first);
        self.buffer = self.buffer.split_off(&self.next);
        let mut ready = Vec::new();
        while let Some(entry) = self.buffer.remove(&self.next) {
            self.next += 1;
            ready.push(entry);
        }
        if self.buffer.is_empty() && !self.dropped_waiting {
            self.hole_since = None;
        }
        ready
    }

    /// Records that the log has been read to its end, so nothing is missing any more.
    pub(super) fn hole_filled(&mut self) {
        self.dropped_waiting = false;
        if self.buffer.is_empty() {
            self.hole_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::model::{DraftEntry, EntryId, NodeId};

    fn entry(offset: u64) -> Entry {
        let id = EntryId { producer: NodeId(Uuid::nil()), seq: offset };
        Entry { offset, id, draft: DraftEntry::price(0, "{}") }
    }

    fn offsets(offered: Offered) -> Vec<u64> {
        match offered {
            Offered::Ready(entries) => entries.iter().map(|entry| entry.offset).collect(),
            Offered::ForeignEpoch => panic!("the epoch was right"),
        }
    }

    #[test]
    fn a_foreign_epoch_is_said_and_changes_nothing() {
        let mut merge = Merge::after(Epoch::random(), 0);
        assert_eq!(merge.offer(&Epoch::random(), [entry(1)], Instant::now()), Offered::ForeignEpoch);
        assert_eq!(merge.delivered(), 0);
    }

    #[test]
    fn entries_wait_for_the_one_before_them() {
        let epoch = Epoch::random();
        let mut merge = Merge::after(epoch.clone(), 4);
        assert_eq!(offsets(merge.offer(&epoch, [entry(6), entry(7), entry(3)], Instant::now())), [0u64; 0]);
        assert!(merge.hole_since().is_some());
        assert_eq!(offsets(merge.offer(&epoch, [entry(5)], Instant::now())), [5, 6, 7]);
        assert!(merge.hole_since().is_none());
    }

    #[test]
    fn what_left_the_log_is_skipped() {
        let epoch = Epoch::random();
        let mut merge = Merge::after(epoch.clone(), 0);
        merge.offer(&epoch, [entry(8), entry(9), entry(11)], Instant::now());
        assert_eq!(merge.skip_to(8).len(), 2);
        assert_eq!((merge.delivered(), merge.hole_since().is_some()), (9, true));
    }

    #[test]
    fn too_much_waiting_is_let_go_and_left_to_the_log() {
        let epoch = Epoch::random();
        let mut merge = Merge::after(epoch.clone(), 0);
        merge.offer(&epoch, (2..=WAITING_MAX as u64 + 3).map(entry), Instant::now());
        assert!(merge.buffer.is_empty() && merge.hole_since().is_some());
        assert_eq!(offsets(merge.offer(&epoch, [], Instant::now())), [0u64; 0]);
        assert!(merge.hole_since().is_some(), "the hole stays until the log has been read");
        assert_eq!(offsets(merge.offer(&epoch, [entry(1), entry(2)], Instant::now())), [1, 2]);
    }

    proptest! {
        /// Every entry arrives at least once, in any order, in batches of any size, any number of times;
        /// each is ready exactly once and in order.
        #[test]
        fn any_arrival_gives_each_entry_once_in_order(
            mut arrivals in prop::collection::vec(1u64..=30, 0..120),
            shuffle in Just((1u64..=30).collect::<Vec<_>>()).prop_shuffle(),
            batch in 1usize..8,
        ) {
            arrivals.extend(shuffle);
            let epoch = Epoch::random();
            let mut merge = Merge::after(epoch.clone(), 0);
            let mut seen = Vec::new();
            for chunk in arrivals.chunks(batch) {
                seen.extend(offsets(merge.offer(&epoch, chunk.iter().copied().map(entry), Instant::now())));
            }
            prop_assert_eq!(seen, (1u64..=30).collect::<Vec<_>>());
            prop_assert!(merge.hole_since().is_none());
        }
    }
}
