//! What a reader keeps while it is brought up to date.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use crate::channels::live::LiveBatch;
use crate::channels::unborn::{to_be_born, unborn};
use crate::model::{Epoch, Position};

#[derive(Debug, Default)]
pub(super) struct Joining {
    /// Live entries that wait while older ones are replayed; all of one life, in ascending order.
    held: VecDeque<Arc<LiveBatch>>,
    held_entries: usize,
    /// The newest position that came live, held or not.
    seen: Option<Position>,
    /// The log had no life then, and `seen` is of the one that it may begin.
    seen_unborn: bool,
    /// The log is to be read before it goes live, whatever was held: entries may have left it.
    look_again: bool,
    /// It is being read for that reason.
    looks: bool,
    /// The latest entries of keys are sent first.
    pub(super) taking: Option<Taking>,
}

/// How far a reader has come that is sent the latest entry of each key.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// The last key that was looked at.
    pub(super) after: Option<String>,
    /// The client was told where it begins.
    pub(super) is_told: bool,
    /// Some of them may not be within reach.
    pub(super) is_part: bool,
}

impl Joining {
    /// The log is to be read first.
    pub(super) fn to_look() -> Self {
        Self { look_again: true, ..Self::default() }
    }

    /// The channel's live entries were at this position.
    pub(super) fn see(&mut self, position: &Position) {
        match &mut self.seen {
            // What came live meanwhile is newer.
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

    /// The newest position that came live.
    pub(super) fn seen(&self) -> Option<&Position> {
        self.seen.as_ref()
    }

    /// What the channel's log is called while it has no life; `None` where it has one.
    pub(super) fn to_be_born(&self) -> Option<Epoch> {
        let seen = self.seen.as_ref().filter(|seen| self.seen_unborn && seen.offset == 0)?;
        Some(unborn(&seen.epoch))
    }

    /// Live entries are of another life from here on. What was held of the one before is read.
    pub(super) fn move_to(&mut self, to: &Position) {
        self.let_go();
        self.see_first(to);
        self.look_again = true;
    }

    /// Live entries were at this position, and some before it were never seen.
    pub(super) fn skip_to(&mut self, position: &Position) {
        self.see(position);
        self.look_again = true;
    }

    pub(super) fn hold(&mut self, batch: &Arc<LiveBatch>, entries_max: usize) {
        if self.seen.as_ref().is_some_and(|seen| seen.epoch != batch.epoch) {
            // On its way since before the channel was joined.
            return;
        }
        self.seen = Some(Position { epoch: batch.epoch.clone(), offset: batch.last() });
        if self.held_entries + batch.len() > entries_max {
            // The log has them: they are read again.
            self.let_go();
        }
        self.held_entries += batch.len();
        self.held.push_back(Arc::clone(batch));
    }

    fn let_go(&mut self) {
        self.held.clear();
        self.held_entries = 0;
    }

    /// Nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether the log is to be read before anything else; it is, from here on.
    pub(super) fn begins_to_look(&mut self) -> bool {
        self.looks = mem::take(&mut self.look_again);
        self.looks
    }

    /// What [`begins_to_look`](Self::begins_to_look) asked for has not been done.
    pub(super) fn looked_in_vain(&mut self) {
        self.look_again |= self.looks;
    }

    /// Takes the first batch that has something after this position. What comes before goes.
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

    /// Whether something held follows on this offset.
    pub(super) fn can_merge(&self, epoch: &Epoch, cursor: u64) -> bool {
        let follows = |batch: &Arc<LiveBatch>| {
            batch.epoch == *epoch && batch.last() > cursor && batch.first <= cursor + 1
        };
        self.held.iter().any(follows)
    }

    /// Whether what came live is not in what was read up to this offset.
    pub(super) fn is_ahead_of(&self, epoch: &Epoch, cursor: u64) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.epoch != *epoch || seen.offset > cursor)
    }
}
