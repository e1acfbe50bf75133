//! The state machine of one subscription. It catches up: live entries are held while older ones are
//! replayed from the log, the two are merged by offset, and then the reader is live. It also follows the
//! log into other epochs.
//!
//! It only decides: there is no connection here, no clock and no storage. Live messages and pages go in,
//! and [`Step`]s come out, to be executed at once and in order. Thus the same rules apply to connections
//! and to the simulation that checks them.
//!
//! Promises about what the steps of one reader send between two `resync`:
//! - Offsets ascend without gaps, except for entries that this reader has received before, and, in a view, for
//!   entries that it does not show. The batches of a view state which offsets they cover.
//! - No entry comes twice, even if a log contains it again after an epoch transition, unless `resync` says that
//!   it is unknown what the reader has received.
//! - If something may be missing, `resync` says so before anything that comes after it. What is merely out of
//!   reach comes after a later `resync`.
//!
//! For example, a reader in this node's fork has received entries 1, 2 and 3 of the old log, and `a` of this node
//! at offset 4. After the outage the log is `[1, 2, 3, b, a]`, in a new epoch. The reader continues after
//! offset 3 with `a` in its version vector: it gets `b`, and not `a` again.
//!
//! A reader that wants a snapshot gets one whenever it would otherwise miss something for good, and
//! continues from the position at which the snapshot was read. There it starts over: nothing that it had
//! before counts, so if the next page turns out to be from another epoch, the snapshot begins again.

mod hold;
mod start;
mod step;
#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;

use super::live::{LiveBatch, Moved};
use super::pages::{EncodedLatest, EncodedPage};
use super::unborn::{to_be_born, told, unborn};
use crate::model::{EntryId, Epoch, Position};
use crate::storage::{
    EpochTransition, Page, ReturnPoint, VersionVector, begin_elsewhere, begin_of_fork, had_at, is_fork,
    log_of_fork, miss_in_fork, told_epoch,
};
#[cfg(test)]
use crate::support::mutant::{self, Mutant};
use hold::{Joining, SnapshotProgress};
pub(crate) use start::{Asked, Start, StartingPoint};
use step::Runs;
pub(crate) use step::{Room, Step, Steps, Then, Turn, Wanted, WantedLatest, Way};

#[derive(Debug)]
enum Phase {
    /// It catches up, and live entries are held. Boxed, because most readers are live.
    Joining(Box<Joining>),
    /// Entries are sent as they arrive.
    Live,
    /// It needs nothing more.
    Ended,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Joining(Box::default())
    }
}

/// A reader of a channel. While it catches up, one task executes its [`turns`](Self::turn); batches and
/// epoch transitions may arrive at any time.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The newest offset that it was sent, or had received before. Meaningful once begun.
    cursor: u64,
    /// The epoch that `cursor` belongs to; `None` until begun.
    epoch: Option<Epoch>,
    /// The log did not exist when it was last looked at, and `epoch` is what it may start with. Meaningful
    /// at offset 0 only.
    unborn: bool,
    /// If it would miss something for good, it gets a snapshot instead.
    wants_snapshot: bool,
    /// The version vector: what it has received that may come again in this epoch.
    had: VersionVector,
    /// The epoch that the client knows: `epoch`, with `had` as it was when the client was told.
    told: Option<Epoch>,
    /// Entries up to this offset are delivered as late.
    late_to: u64,
    phase: Phase,
}

impl Reader {
    /// Whether these contiguous batches are exactly what comes next, and can be sent whole; then
    /// [`took`](Self::took) records that they were. This is the path of nearly all batches, so it allocates
    /// nothing.
    pub(crate) fn is_next(&self, batches: &[Arc<LiveBatch>]) -> bool {
        let Some(first) = batches.first() else { return false };
        // Some entry may have to be skipped: by offset before a return point's end, or by producer. Other
        // batches are sent whole although the version vector names something: it may name producers whose
        // entries never come again, so it may never become empty.
        let brings_what_was_had = || {
            let mut producers = batches.iter().flat_map(|batch| batch.producers());
            self.had.back().is_some_and(|back| !back.is_away)
                || producers.any(|producer| self.had.names(*producer))
        };
        self.cursor + 1 == first.first
            && matches!(self.phase, Phase::Live)
            && self.is_in(&first.epoch)
            && !(self.had.leaves_out() && brings_what_was_had())
            && !(self.is_away() && batches.iter().any(|batch| batch.is_last_of_log))
    }

    /// Records that batches for which [`is_next`](Self::is_next) was true were sent, up to this offset.
    pub(crate) fn took(&mut self, last: u64) {
        self.cursor = last;
    }

    /// Ends the reader: from here on there are no steps.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ended;
    }

    /// Whether [`end`](Self::end) was called.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Its position in the log, without the version vector; `None` until begun. While the log does not exist,
    /// the epoch is the one that it may start with.
    pub(crate) fn position(&self) -> Option<Position> {
        Some(Position { epoch: self.epoch.clone()?, offset: self.cursor })
    }

    /// Whether entries are sent as they arrive.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// Whether the log did not exist when it was last looked at.
    pub(crate) fn is_unborn(&self) -> bool {
        self.unborn && self.cursor == 0
    }

    /// What to read next, from this position on.
    fn read_from(&self, here: Position) -> Turn {
        let seen = match &self.phase {
            Phase::Joining(joining) => joining.seen().cloned(),
            Phase::Live | Phase::Ended => None,
        };
        let after = (!self.is_unborn()).then_some(here);
        let late_to = if self.late_to > self.cursor { self.late_to } else { 0 };
        // A reader that had entries in a different order than this log catches up with what came before them,
        // so everything counts as late.
        let is_out_of_order = self.had.is_out_of_order();
        #[cfg(test)]
        let is_out_of_order = is_out_of_order && !mutant::is(Mutant::CatchesUpInTime);
        let late_to = if is_out_of_order { u64::MAX } else { late_to };
        Turn::Read(Wanted { after, late_to, seen, is_owed: self.is_owed_here() })
    }

    fn is_in(&self, epoch: &Epoch) -> bool {
        self.epoch.as_ref() == Some(epoch)
    }

    /// Applies `act` to the state of catching up; in other phases, returns `R`'s default.
    fn joining<R: Default>(&mut self, act: impl FnOnce(&mut Joining) -> R) -> R {
        match &mut self.phase {
            Phase::Joining(joining) => act(joining),
            Phase::Live | Phase::Ended => R::default(),
        }
    }

    /// Sets where the entries begin, as `subscribed` tells the client. To be called before the first
    /// [`turn`](Self::turn).
    pub(crate) fn begin(&mut self, at: &StartingPoint) {
        self.cursor = at.offset;
        self.wants_snapshot = at.wants_snapshot;
        self.joining(|joining| {
            joining.see(&at.joined_at);
            joining.snapshot =
                at.snapshot.then(|| SnapshotProgress { is_told: true, ..SnapshotProgress::default() });
        });
        self.told = Some(at.epoch.clone());
        self.had.clone_from(&at.had);
        self.enter(&at.log_epoch);
    }

    fn enter(&mut self, epoch: &Epoch) {
        let minted = to_be_born(epoch);
        self.unborn = minted.is_some();
        self.epoch = Some(minted.unwrap_or_else(|| epoch.clone()));
    }

    // Live messages

    /// Takes a batch, in whatever relation to what was sent before: it may overlap, come while joining,
    /// leave a gap, or contain entries that the reader has received.
    pub(crate) fn on_batch(&mut self, batch: &Arc<LiveBatch>, room: Room) -> Steps {
        let mut steps = Steps::new();
        match &mut self.phase {
            Phase::Ended => return steps,
            Phase::Joining(joining) => {
                joining.hold(batch, room.hold_entries_max);
                return steps;
            }
            Phase::Live => {}
        }
        // A batch of another epoch is from before this reader joined, because `Moved` precedes the first
        // batch of a new epoch.
        if batch.last() <= self.cursor || !self.is_in(&batch.epoch) {
            return steps;
        }
        // Entries left the log before this node saw them. Reading the log will show which, and what
        // follows.
        let leaves_a_gap = batch.first > self.cursor + 1;
        // Late entries come in bursts, for which a client must not be closed: it gets them from the log, as
        // fast as it reads.
        let is_too_much = batch.is_late && (room.is_behind || batch.frames.len() > room.piece_bytes);
        if leaves_a_gap || is_too_much {
            self.restart(&mut steps);
            self.joining(|joining| joining.hold(batch, room.hold_entries_max));
            return steps;
        }
        self.take(batch, if batch.is_late { Way::Piece } else { Way::Live }, &mut steps);
        steps
    }

    /// Entries up to an offset left the log before this node saw them, and nothing came after them.
    pub(crate) fn on_skipped(&mut self, epoch: &Epoch, offset: u64) -> Steps {
        let mut steps = Steps::new();
        let is_missing = self.is_in(epoch) && self.cursor < offset;
        if is_missing && matches!(self.phase, Phase::Live) {
            self.restart(&mut steps);
        }
        self.joining(|joining| joining.skip_to(&Position { epoch: epoch.clone(), offset }));
        steps
    }

    /// The log continues in another epoch.
    pub(crate) fn on_moved(&mut self, moved: &Moved) -> Steps {
        let mut steps = Steps::new();
        let is_live = match &mut self.phase {
            Phase::Ended => return steps,
            Phase::Joining(joining) => {
                joining.move_to(&moved.transition.to);
                false
            }
            Phase::Live => true,
        };
        // A reader that joined after the transition was never in the old epoch.
        if !is_live || !self.is_in(&moved.from.epoch) {
            return steps;
        }
        let follows = self.cursor == moved.from.offset;
        if follows {
            self.cross(&moved.transition, &mut steps);
        }
        // The reader has not reached the end of the old epoch, or has to go back further than others for what
        // it is owed, or starts over with a snapshot.
        if !follows || self.cursor != moved.transition.to.offset || !matches!(self.phase, Phase::Live) {
            self.restart(&mut steps);
            self.joining(|joining| joining.move_to(&moved.transition.to));
        }
        steps
    }

    // Catching up

    /// Returns what it needs next on its way to being live. To be called whenever the client has accepted
    /// what was sent before.
    pub(crate) fn turn(&mut self) -> Turn {
        let Some(here) = self.position() else { return Turn::Done(Steps::new()) };
        let is_unborn = self.is_unborn();
        let Phase::Joining(joining) = &mut self.phase else { return Turn::Done(Steps::new()) };
        if let Some(snapshot) = &joining.snapshot {
            let at_least = (!is_unborn).then_some(here);
            return Turn::ReadLatest(WantedLatest { after: snapshot.after.clone(), at_least });
        }
        if joining.begins_to_read() || joining.leaves_a_gap_after(&here) {
            return self.read_from(here);
        }
        let mut steps = Steps::new();
        if let Some(batch) = joining.next_after(&here) {
            self.take(&batch, Way::Piece, &mut steps);
        }
        let (cursor, is_owed) = (self.cursor, self.is_owed_here());
        let is_up_to_date =
            self.joining(|joining| joining.is_empty() && !joining.is_ahead_of(&here.epoch, cursor));
        if is_up_to_date && !is_owed {
            self.phase = Phase::Live;
            return Turn::Done(steps);
        }
        if cursor > here.offset { Turn::Send(steps) } else { self.read_from(here) }
    }

    /// Takes a page that was read because of [`Turn::Read`], a piece at a time: it is called with the same
    /// page as long as it returns [`Then::Page`].
    pub(crate) fn on_page(&mut self, page: &EncodedPage) -> (Steps, Then) {
        let EncodedPage { head: page, batches, .. } = page;
        let mut steps = Steps::new();
        if !matches!(self.phase, Phase::Joining(_)) {
            return (steps, Then::Turn);
        }
        let Some(epoch) = &page.epoch else {
            let then = self.on_no_log(&mut steps);
            return (steps, then);
        };
        if self.is_in(epoch) {
            self.unborn = false;
        } else if self.is_unborn() {
            // Another node started the log. The reader has received nothing of it, and wants all of it.
            let log = log_of_fork(epoch);
            self.cross(&EpochTransition::beginning(log.clone().unwrap_or_else(|| epoch.clone())), &mut steps);
            if log.is_some() {
                // This node is in a fork, perhaps without having all of the log.
                return (steps, Then::Turn);
            }
        } else {
            // It is unknown what followed the reader's position, so everything that the present log has is
            // sent.
            self.continue_in_unrelated_epoch(epoch, page, &mut steps);
            steps.push(Step::Suspect);
            return (steps, Then::Turn);
        }
        if self.is_owed_here() && !page.is_copy && page.next.is_none() {
            self.go_back(epoch, &mut steps);
            return (steps, Then::Turn);
        }
        self.tell_gap(page, &mut steps);
        if self.joining(|joining| joining.snapshot.is_some()) {
            return (steps, Then::Turn);
        }
        if let Some(batch) = batches.iter().find(|batch| batch.last() > self.cursor) {
            self.take_part(batch, Way::Piece, &mut steps);
            return (steps, Then::Page);
        }
        let then = self.at_end_of(page, epoch, batches.is_empty(), &mut steps);
        (steps, then)
    }

    /// The page says that the log does not exist.
    fn on_no_log(&mut self, steps: &mut Steps) -> Then {
        let (cursor, here) = (self.cursor, self.epoch.clone());
        let is_over = !self.is_unborn();
        if let Some(to) = self.joining(|joining| joining.to_be_born()).filter(|_| is_over) {
            // The channel's actor has found the same, and has chosen the epoch of a new log.
            let transition = EpochTransition::beginning(to);
            self.cross(
                &if cursor == 0 { transition } else { EpochTransition::unknown(transition.to) },
                steps,
            );
            if self.wants_snapshot && cursor > 0 {
                // Drops cached pages of the old log; the snapshot would begin with one of them otherwise.
                steps.push(Step::Suspect);
            }
            return Then::Turn;
        }
        let is_seen = |joining: &mut Joining| here.is_some_and(|epoch| joining.is_ahead_of(&epoch, cursor));
        if is_over || self.joining(is_seen) {
            // The log is gone, or live entries are ahead of it: the channel's actor has to read it.
            steps.push(Step::Suspect);
            self.on_no_page();
            return Then::Pause;
        }
        Then::Turn
    }

    /// Takes a page of latest entries that was read because of [`Turn::ReadLatest`].
    pub(crate) fn on_latest(&mut self, page: &EncodedLatest) -> (Steps, Then) {
        let mut steps = Steps::new();
        let Some(mut snapshot) = self.joining(|joining| joining.snapshot.take()) else {
            return (steps, Then::Turn);
        };
        let is_first = snapshot.after.is_none();
        let is_here = match &page.epoch {
            Some(epoch) => self.is_in(epoch),
            None => self.is_unborn(),
        };
        if is_here && self.cursor > page.top {
            // The log has been set back, so the channel's actor has to read it.
            steps.push(Step::Suspect);
            self.joining(|joining| joining.snapshot = Some(snapshot));
            return (steps, Then::Pause);
        }
        if !is_here && !is_first {
            // The entries sent so far are from an epoch that is over.
            self.joining(|joining| joining.snapshot = Some(SnapshotProgress::default()));
            return (steps, Then::Turn);
        }
        if !is_here {
            let log_epoch = page.epoch.clone().or_else(|| self.joining(|joining| joining.to_be_born()));
            let Some(log_epoch) = log_epoch else {
                // The log is gone, and the channel's actor has to notice that.
                steps.push(Step::Suspect);
                self.joining(|joining| joining.snapshot = Some(SnapshotProgress::default()));
                return (steps, Then::Pause);
            };
            self.enter(&log_epoch);
            snapshot.is_told = false;
        }
        if !snapshot.is_told {
            self.cursor = page.top;
            self.tell_snapshot(&mut steps);
            snapshot.is_told = true;
        }
        #[cfg(test)]
        if mutant::is(Mutant::SnapshotAsAtItsEnd) {
            self.cursor = page.top;
        }
        if let Some(batch) = &page.batch {
            let runs = self.runs_of_latest(&page.places);
            #[cfg(test)]
            let runs = if !is_first && mutant::is(Mutant::SnapshotOfOnePage) { Runs::new() } else { runs };
            send(batch, runs, Way::Latest, &mut steps);
        }
        snapshot.is_part |= page.is_copy;
        #[cfg(test)]
        let _whole = mutant::is(Mutant::PartIsWhole).then(|| snapshot.is_part = false);
        if page.next.is_some() {
            snapshot.after.clone_from(&page.next);
            self.joining(|joining| joining.snapshot = Some(snapshot));
        } else {
            self.end_snapshot(!snapshot.is_part, &mut steps);
        }
        (steps, Then::Turn)
    }

    /// Splits latest entries: those up to the cursor are sent now, and those after it come as live entries.
    fn runs_of_latest(&self, places: &[u64]) -> Runs {
        let is_before = |place: &u64| *place <= self.cursor;
        #[cfg(test)]
        let is_before = |place: &u64| is_before(place) || mutant::is(Mutant::SnapshotBehindPosition);
        let mut from = 0;
        let runs = places.chunk_by(|a, b| is_before(a) == is_before(b)).map(|run| {
            from += run.len();
            (from - run.len()..from, run.first().is_some_and(is_before))
        });
        runs.filter_map(|(run, is_before)| is_before.then_some(run)).collect()
    }

    /// Nothing could be read: the next turn asks for the same.
    pub(crate) fn on_no_page(&mut self) {
        self.joining(Joining::read_failed);
    }

    /// Everything on a page has been sent.
    fn at_end_of(&mut self, page: &Page, epoch: &Epoch, is_empty: bool, steps: &mut Steps) -> Then {
        let cursor = self.cursor;
        if cursor < page.top {
            // There is more to read, unless the page is empty although it should not be.
            if is_empty {
                self.on_no_page();
                return Then::Pause;
            }
            return Then::Turn;
        }
        if page.closed && !self.is_away() {
            steps.push(Step::Finished);
        }
        if let Some(transition) = &page.next {
            self.cross(transition, steps);
            return Then::Turn;
        }
        if self.is_owed_here() {
            // Soon the channel forks for this reader, or what it is owed can be reached.
            self.on_no_page();
            return Then::Pause;
        }
        let is_behind =
            self.joining(|joining| joining.is_ahead_of(epoch, cursor) && !joining.can_merge(epoch, cursor));
        if is_behind {
            // Live entries are ahead of the log as it was read. Either the log catches up, or the channel's
            // actor finds that the log was set back.
            steps.push(Step::Suspect);
            self.on_no_page();
            return Then::Pause;
        }
        Then::Turn
    }

    // Continuing

    /// Makes a live reader catch up from the log again.
    fn restart(&mut self, steps: &mut Steps) {
        if matches!(self.phase, Phase::Live) {
            self.phase = Phase::Joining(Box::new(Joining::to_read_log()));
            steps.push(Step::CatchUp);
        }
    }

    /// Starts over with a snapshot. The first page of it decides at which position.
    fn take_snapshot(&mut self, steps: &mut Steps) {
        self.restart(steps);
        self.joining(|joining| joining.snapshot = Some(SnapshotProgress::default()));
    }

    /// Tells the client where it starts over.
    fn tell_snapshot(&mut self, steps: &mut Steps) {
        self.had = VersionVector::of_part();
        self.late_to = 0;
        let Some(to) = self.place() else { return };
        let old = self.told.replace(to.epoch.clone()).unwrap_or_else(|| to.epoch.clone());
        steps.push(Step::Resync { old, to, recovered: false, gap: None, snapshot: true });
    }

    /// Ends a snapshot of which everything that can be reached has been sent.
    fn end_snapshot(&mut self, is_whole: bool, steps: &mut Steps) {
        if is_whole {
            self.had = VersionVector::default();
        }
        let Some(at) = self.place() else { return };
        self.told = Some(at.epoch.clone());
        steps.push(Step::SnapshotEnd { at, is_whole });
    }

    /// Sends the new part of a batch that begins at or before the next offset, and finishes if the batch ends
    /// the log, unless the reader is owed entries.
    fn take(&mut self, batch: &Arc<LiveBatch>, way: Way, steps: &mut Steps) {
        self.take_part(batch, way, steps);
        if batch.is_last_of_log && !self.is_away() {
            steps.push(Step::Finished);
        }
    }

    /// Sends what is after the cursor in a batch, without what the reader has received.
    fn take_part(&mut self, batch: &Arc<LiveBatch>, way: Way, steps: &mut Steps) {
        let before = batch.count_up_to(self.cursor);
        let is_filtered = self.had.leaves_out();
        let (mut runs, mut from, mut index) = (Runs::new(), before, before);
        while index < batch.len() && self.had.leaves_out() {
            let id = batch.id(index).unwrap_or(EntryId::UNREADABLE);
            if self.had.came(batch.offset(index), id) {
                runs.push(from..index);
                from = index + 1;
            }
            index += 1;
        }
        if is_filtered && self.had.is_empty() {
            // Nothing that it has received can come again, so from here on the log's own epoch is enough.
            runs.push(from..index);
            send(batch, mem::take(&mut runs), way, steps);
            self.cursor = index.checked_sub(1).map_or(self.cursor, |last| batch.offset(last));
            self.tell_epoch(true, Some(0), steps);
            from = index;
        }
        runs.push(from..batch.len());
        send(batch, runs, way, steps);
        self.cursor = batch.last();
    }

    /// Follows the log into another epoch, and tells the client.
    fn cross(&mut self, transition: &EpochTransition, steps: &mut Steps) {
        let Some(from) = self.epoch.clone() else { return };
        let from_fork = is_fork(&from);
        if self.wants_snapshot && self.had.is_part() && !is_fork(&transition.to.epoch) {
            // What it lacks may be reachable there.
            self.cursor = transition.to.offset;
            self.enter(&transition.to.epoch);
            return self.take_snapshot(steps);
        }
        if !from_fork && is_fork(&transition.to.epoch) {
            self.had.leave(self.cursor);
        }
        let (mut transition, back) = (transition.clone(), self.had.take_back());
        let kept = match (from_fork, is_fork(&transition.to.epoch)) {
            (_, true) => back,
            (true, false) => {
                if back.as_ref().is_some_and(|back| !back.is_of(&transition.to.epoch)) {
                    self.had.name_nothing();
                }
                transition = transition.with_back(&from, back);
                None
            }
            (false, false) => {
                if back.as_ref().is_some_and(|back| back.is_away) {
                    self.had.name_nothing();
                }
                transition = transition.of_another_log(back, self.cursor);
                None
            }
        };
        let EpochTransition { to, had, late_to, whole, skips } = &transition;
        self.cursor = to.offset;
        self.late_to = *late_to;
        self.enter(&to.epoch);
        if let (false, Some((node, seq)), Some(back)) = (from_fork, begin_of_fork(&to.epoch), &kept)
            && back.to < back.after
        {
            // What it is owed may include entries of this node.
            self.had.lacks_up_to(node, seq);
        }
        // If it had entries after the fork's beginning, the fork may contain some of them again.
        let is_ahead = !from_fork && kept.as_ref().is_some_and(|back| back.until > to.offset);
        self.had.set_back(kept);
        #[cfg(test)]
        let had = if mutant::is(Mutant::NothingWasHad) { &VersionVector::default() } else { had };
        self.had.merge(had);
        if !is_fork(&to.epoch) {
            self.had.name_no_more_than_was_had();
        }
        if self.wants_snapshot && (!whole || *skips) && !is_fork(&to.epoch) {
            return self.take_snapshot(steps);
        }
        let whole = *whole && !skips && !is_ahead;
        self.tell_epoch(whole, whole.then_some(0), steps);
    }

    /// Whether it has yet to go back to a log for entries that it could not read there. Until then, the end
    /// of the present log is not its end.
    fn is_away(&self) -> bool {
        self.had.back().is_some_and(|back| back.is_away)
    }

    /// Whether it is in a log, not in a fork, after entries of it that it could not read and is owed.
    fn is_owed_here(&self) -> bool {
        self.is_away() && !self.epoch.as_ref().is_some_and(is_fork)
    }

    /// Goes back for entries that can be reached again.
    fn go_back(&mut self, log: &Epoch, steps: &mut Steps) {
        self.had.leave(self.cursor);
        let back = self.had.take_back();
        let transition =
            EpochTransition::whole(Position { epoch: log.clone(), offset: self.cursor }).with_back(log, back);
        (self.cursor, self.late_to) = (transition.to.offset, transition.late_to);
        self.had.merge(&transition.had);
        self.tell_epoch(true, Some(0), steps);
    }

    /// Continues in an epoch that does not follow the one it was in.
    fn continue_in_unrelated_epoch(&mut self, log_epoch: &Epoch, page: &Page, steps: &mut Steps) {
        let Some(Position { epoch, offset }) = self.position() else { return };
        let had = had_at(&Position { epoch: told_epoch(&epoch, &self.had), offset });
        let (offset, had) = begin_elsewhere(had, log_epoch, page);
        if self.wants_snapshot && !had.is_merely_owed() {
            return self.take_snapshot(steps);
        }
        (self.cursor, self.late_to, self.had) = (offset, 0, had);
        self.enter(log_epoch);
        self.tell_epoch(false, None, steps);
    }

    /// Tells the client where entries are no longer in the log, or cannot be reached, and continues after
    /// them.
    fn tell_gap(&mut self, page: &Page, steps: &mut Steps) {
        let last_gone = page.first.saturating_sub(1);
        let missing = last_gone.saturating_sub(self.cursor);
        if missing == 0 {
            return;
        }
        let in_fork = self.epoch.as_ref().is_some_and(is_fork) && !page.is_final;
        if self.wants_snapshot && (in_fork || self.cursor >= page.out_of_reach) {
            // Requires a page of latest entries at least as new as this page; an older one could lead to the
            // same gap.
            self.cursor = page.top;
            return self.take_snapshot(steps);
        }
        let gap = if self.cursor < page.out_of_reach || in_fork {
            self.go_past(last_gone);
            None
        } else {
            self.cursor = last_gone;
            // It is unknown how many of the missing entries the reader has received.
            Some(missing).filter(|_| !self.had.leaves_out())
        };
        self.tell_epoch(false, gap, steps);
    }

    /// Skips entries up to an offset that cannot be reached, and notes where to come back for them.
    fn go_past(&mut self, offset: u64) {
        let Some(log) = self.epoch.clone() else { return };
        let from = std::mem::replace(&mut self.cursor, offset);
        if is_fork(&log) {
            return miss_in_fork(&mut self.had, &log, from, offset);
        }
        let back = self.had.take_back();
        let past = ReturnPoint { log: Some(log), to: from, after: offset, until: offset, is_away: true };
        let past = match back {
            None => past,
            // The skipped entries end in a part that the reader has received, so it continues after that
            // part.
            Some(back) if !back.is_away && (back.after..=back.until).contains(&offset) => {
                self.cursor = back.until;
                ReturnPoint { to: from, is_away: true, ..back }
            }
            // A return point can describe only one missing part, so nothing up to the end of the later part
            // counts as received.
            Some(back) => {
                self.had.doubt();
                let end = offset.max(back.until);
                ReturnPoint { to: if back.is_away { back.to } else { from }, after: end, until: end, ..past }
            }
        };
        self.had.set_back(Some(past));
    }

    /// Its position in the form that clients are told: the epoch contains the version vector.
    fn place(&self) -> Option<Position> {
        let Position { epoch, offset } = self.position()?;
        let log_epoch = if self.is_unborn() { unborn(&epoch) } else { epoch };
        Some(Position { epoch: told(&log_epoch, &self.had), offset })
    }

    /// Tells the client the epoch from here on, unless the client knows it and nothing is missing.
    fn tell_epoch(&mut self, recovered: bool, gap: Option<u64>, steps: &mut Steps) {
        let Some(to) = self.place() else { return };
        // If it is unknown what the reader has received, nothing can be promised.
        let (is_told, recovered) = (recovered, recovered && self.had.is_whole());
        let gap = gap.filter(|gap| recovered || *gap > 0);
        let old = self.told.replace(to.epoch.clone()).unwrap_or_else(|| to.epoch.clone());
        if old != to.epoch || !is_told {
            steps.push(Step::Resync { old, to, recovered, gap, snapshot: false });
        }
    }
}

fn send(batch: &Arc<LiveBatch>, mut runs: Runs, way: Way, steps: &mut Steps) {
    runs.retain(|run| run.start < run.end);
    if !runs.is_empty() {
        steps.push(Step::Send { batch: Arc::clone(batch), runs, way });
    }
}
