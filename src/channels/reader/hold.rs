//! The state of a reader that catches up.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use crate::channels::live::LiveBatch;
use crate::channels::unborn::{to_be_born, unborn};
use crate::model::{Epoch, Position};

#[derive(Debug, Default)]
pub(super) struct Joining {
    /// Live entries held while older ones are replayed; all of one epoch, in ascending order.
    held: VecDeque<Arc<LiveBatch>>,
    held_entries: usize,
    /// The newest position that arrived live, whether held or not.
    seen: Option<Position>,
    /// Whether the log did not exist when `seen` was recorded, so that `seen` is in the epoch that the log
    /// may start with.
    seen_unborn: bool,
    /// Whether the log must be read before the reader goes live, whatever is held, because entries may have
    /// left it.
    must_read: bool,
    /// Whether the log is being read because of `must_read`, which is set again if that fails.
    is_reading: bool,
    /// Present while a snapshot is being sent.
    pub(super) snapshot: Option<SnapshotProgress>,
}

/// The progress of a snapshot.
#[derive(Debug, Default)]
pub(super) struct SnapshotProgress {
    /// The key that the next page follows; `None` for the first page.
    pub(super) after: Option<String>,
    /// Whether the client was told where it starts over.
    pub(super) is_told: bool,
    /// Whether some entries may be out of reach.
    pub(super) is_part: bool,
}

impl Joining {
    /// The log must be read first.
    pub(super) fn to_read_log() -> Self {
        Self { must_read: true, ..Self::default() }
    }

    /// Records the position of the channel's live entries.
    pub(super) fn see(&mut self, position: &Position) {
        match &mut self.seen {
            // A live batch that arrived meanwhile is newer.
            Some(seen) if seen.epoch == position.epoch => seen.offset = seen.offset.max(position.offset),
            Some(_) => {}
            None => self.see_first(position),
        }
    }

    fn see_first(&mut self, position: &Position) {
        let minted = to_be_born(&position.epoch);
        self.seen_unborn = minted.is_some();
        let epoch = minted.unwrap_or_else(|| position.epoch.clone());
        self.seen = Some(Position { epoch, offset: position.offset });
    }

    /// The newest position that arrived live.
    pub(super) fn seen(&self) -> Option<&Position> {
        self.seen.as_ref()
    }

    /// The epoch for readers of the channel's log while it does not exist; `None` if it does.
    pub(super) fn to_be_born(&self) -> Option<Epoch> {
        let seen = self.seen.as_ref().filter(|seen| self.seen_unborn && seen.offset == 0)?;
        Some(unborn(&seen.epoch))
    }

    /// Records that live entries belong to another epoch from here on. Entries held from the previous one
    /// will be read.
    pub(super) fn move_to(&mut self, to: &Position) {
        self.drop_all();
        self.see_first(to);
        self.must_read = true;
    }

    /// Records that live entries reached this position, and that some before it were never seen.
    pub(super) fn skip_to(&mut self, position: &Position) {
        self.see(position);
        self.must_read = true;
    }

    pub(super) fn hold(&mut self, batch: &Arc<LiveBatch>, entries_max: usize) {
        if self.seen.as_ref().is_some_and(|seen| seen.epoch != batch.epoch) {
            // It was on its way before the channel was joined.
            return;
        }
        self.seen = Some(Position { epoch: batch.epoch.clone(), offset: batch.last() });
        if self.held_entries + batch.len() > entries_max {
            // The log has them, so they are read from there.
            self.drop_all();
        }
        self.held_entries += batch.len();
        self.held.push_back(Arc::clone(batch));
    }

    fn drop_all(&mut self) {
        self.held.clear();
        self.held_entries = 0;
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether the log must be read before anything else. If so, it counts as being read from here on.
    pub(super) fn begins_to_read(&mut self) -> bool {
        self.is_reading = mem::take(&mut self.must_read);
        self.is_reading
    }

    /// The reading that [`begins_to_read`](Self::begins_to_read) asked for failed.
    pub(super) fn read_failed(&mut self) {
        self.must_read |= self.is_reading;
    }

    /// Takes the first batch with something after this position. Earlier batches are dropped.
    pub(super) fn next_after(&mut self, here: &Position) -> Option<Arc<LiveBatch>> {
        while let Some(batch) = self.held.pop_front() {
            self.held_entries -= batch.len();
            if batch.epoch == here.epoch && batch.last() > here.offset {
                return Some(batch);
            }
        }
        None
    }

    /// Whether entries are missing between this position and what is held.
    pub(super) fn leaves_a_gap_after(&self, here: &Position) -> bool {
        let ours = self.held.iter().find(|batch| batch.epoch == here.epoch && batch.last() > here.offset);
        ours.is_some_and(|batch| batch.first > here.offset + 1)
    }

    /// Whether a held batch continues at this offset.
    pub(super) fn can_merge(&self, epoch: &Epoch, cursor: u64) -> bool {
        let follows = |batch: &Arc<LiveBatch>| {
            batch.epoch == *epoch && batch.last() > cursor && batch.first <= cursor + 1
        };
        self.held.iter().any(follows)
    }

    /// Whether live entries are beyond what was read up to this offset.
    pub(super) fn is_ahead_of(&self, epoch: &Epoch, cursor: u64) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.epoch != *epoch || seen.offset > cursor)
    }
}
