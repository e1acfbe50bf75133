//! One channel on this node: in step with its log, or in a fork.
//!
//! Three things are kept apart, because each changes for its own reasons: whether the channel is in step with
//! its log ([`Standing`]), what this node has seen of the log ([`LogView`]), and how much of the log the
//! channel's readers here have ([`Readers`]).

mod fork;
mod past;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::retransmit::{ForeignBuffer, RetransmitBuffer};
use crate::model::{ChannelName, ChannelPolicy, Entry, Epoch, NodeId, Position, new_epoch};
use crate::storage::epoch_name::Fork;
use crate::storage::{
    Anchor, Append, AppendAnswer, AppendBatch, Appended, EpochTransition, MemoryBackend, OpenLog,
    VersionVector,
};
#[cfg(test)]
use crate::support::mutant::{self, Mutant};
pub(super) use fork::Forked;
use past::{Ended, Past};

/// The most entries in the reorder buffer, as in that of the actor (`channels/merge.rs`).
const REORDER_MAX: usize = 4_096;

/// The most ends of epochs that are remembered because readers may still be in these epochs.
const PAST_MAX: usize = 4;

/// How many ids of an epoch's last entries are kept after its end, for readers up to that far behind it.
const BEHIND_MAX: usize = 512;

/// The local replica of a channel's log. Its entries are in the memory backend.
#[derive(Debug)]
pub(super) struct Replica {
    name: ChannelName,
    node: NodeId,
    memory: MemoryBackend,
    standing: Standing,
    log: LogView,
    /// `None`: the channel is not followed on this node.
    readers: Option<Readers>,
    /// The newest own sequence that was accepted, by the log or in place of it.
    newest: u64,
    /// The log has refused, for good, entries that this node had accepted and delivered.
    refused_some: bool,
    /// The retransmit buffers: of this node's own entries, and of those with ids of their own that it appended.
    pub(super) retransmit: RetransmitBuffer,
    pub(super) foreign: ForeignBuffer,
    past: VecDeque<Past>,
    pub(super) used: Instant,
}

/// Whether a channel is in step with its log.
#[derive(Debug)]
enum Standing {
    /// As far as is known, the log still has everything that was seen of it.
    InStep,
    /// The replica was found to differ from the log: nothing is sent there until the channel is reconciled.
    Suspect,
    /// The channel goes on without the log, until it is reconciled.
    Forked(Forked),
}

/// What this node has seen of the log.
#[derive(Debug)]
enum LogView {
    /// No epoch of it.
    Unseen(Unseen),
    /// The epoch with which this node is in step, or which its fork continues.
    Seen(Seen),
}

/// A log of which no epoch was seen.
#[derive(Debug, Default)]
struct Unseen {
    /// The channel is that of an order placed here in this outage: no other node knows of it yet, so its log
    /// has no epoch.
    placed_here: bool,
    /// The epoch with which this node began the log, and the newest own sequence that it sent for that. The
    /// storage may not have answered.
    begun: Option<(Epoch, u64)>,
    /// What was published while the log was opened, with its epoch.
    heard: Option<(Epoch, BTreeMap<u64, Entry>)>,
}

/// An epoch of the log.
#[derive(Debug)]
struct Seen {
    epoch: Epoch,
    /// The newest own sequence that the log acknowledged in this epoch.
    acked: u64,
    /// The newest own sequence that was sent to the log, whether or not it answered.
    sent: u64,
    /// The newest offset that was seen in this epoch.
    highest: u64,
    /// The newest entry that was seen in this epoch; a log that was set back lacks it, or has another one there.
    anchor: Option<Anchor>,
    /// The log has other entries at offsets that were seen: it was set back, and appended to since.
    is_contradicted: bool,
    /// The newest sequence of every producer is known. If not, a version vector cannot name all that a reader
    /// has had.
    knows_producers: bool,
    /// The reorder buffer: entries that wait for one before them.
    waiting: BTreeMap<u64, Entry>,
}

/// The channel is followed on this node.
#[derive(Debug, Default)]
struct Readers {
    /// Redis has confirmed the subscription.
    are_confirmed: bool,
    have: Have,
}

/// What readers on this node have of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Have {
    /// That is not known: the log was not looked at since the first of them came.
    #[default]
    Unknown,
    /// Nothing: the log was found to have no epoch, so all that it will ever have is new to them.
    Nothing,
    /// The replica has all entries since the first of them came.
    All,
}

impl Default for LogView {
    fn default() -> Self {
        Self::Unseen(Unseen::default())
    }
}

impl LogView {
    fn seen(&self) -> Option<&Seen> {
        if let Self::Seen(seen) = self { Some(seen) } else { None }
    }

    fn seen_mut(&mut self) -> Option<&mut Seen> {
        if let Self::Seen(seen) = self { Some(seen) } else { None }
    }

    /// What was published in an epoch before the log was opened.
    fn take_heard(&mut self, epoch: &Epoch) -> BTreeMap<u64, Entry> {
        let heard = if let Self::Unseen(unseen) = self { unseen.heard.take() } else { None };
        heard.filter(|(of, _)| of == epoch).map(|(_, entries)| entries).unwrap_or_default()
    }

    fn drop_waiting(&mut self) {
        match self {
            Self::Unseen(unseen) => unseen.heard = None,
            Self::Seen(seen) => seen.waiting.clear(),
        }
    }
}

impl Seen {
    fn new(epoch: Epoch, acked: u64, highest: u64, anchor: Option<Anchor>) -> Self {
        Self {
            epoch,
            acked,
            sent: acked,
            highest,
            anchor,
            is_contradicted: false,
            knows_producers: true,
            waiting: BTreeMap::new(),
        }
    }

    /// An entry was seen: it is the anchor, unless a newer one is.
    fn keep_newest(&mut self, seen: Anchor) {
        if self.anchor.is_none_or(|newest| newest.offset <= seen.offset) {
            self.anchor = Some(seen);
        }
    }
}

impl Replica {
    pub(super) fn new(name: ChannelName, node: NodeId, memory: MemoryBackend, now: Instant) -> Self {
        Self {
            name,
            node,
            memory,
            standing: Standing::InStep,
            log: LogView::default(),
            readers: None,
            newest: 0,
            refused_some: false,
            retransmit: RetransmitBuffer::default(),
            foreign: ForeignBuffer::default(),
            past: VecDeque::new(),
            used: now,
        }
    }

    /// The fork; `None` while the channel is not forked.
    pub(super) fn fork(&self) -> Option<&Forked> {
        if let Standing::Forked(fork) = &self.standing { Some(fork) } else { None }
    }

    pub(super) fn is_forked(&self) -> bool {
        self.fork().is_some()
    }

    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.standing, Standing::Suspect)
    }

    /// Whether the channel is in a fork that is about to be closed.
    pub(super) fn is_closing(&self) -> bool {
        self.fork().is_some_and(|fork| fork.is_closing)
    }

    /// The log's epoch with which this node is in step, or which its fork continues; `None`: none was seen.
    pub(super) fn log(&self) -> Option<&Epoch> {
        self.log.seen().map(|seen| &seen.epoch)
    }

    /// Whether [`log`](Self::log) is this epoch.
    pub(super) fn is_of(&self, epoch: &Epoch) -> bool {
        self.log() == Some(epoch)
    }

    /// The epoch in which the channel is on this node.
    pub(super) fn epoch(&self) -> Option<&Epoch> {
        self.fork().map(Forked::epoch).or(self.log())
    }

    /// The newest offset that was seen of the log.
    pub(super) fn highest(&self) -> u64 {
        self.log.seen().map_or(0, |seen| seen.highest)
    }

    /// The newest own sequence that was accepted.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn is_contradicted(&self) -> bool {
        self.log.seen().is_some_and(|seen| seen.is_contradicted)
    }

    /// What is known of the log now.
    pub(super) fn known(&self) -> Known {
        let seen = self.log.seen();
        let of = |seen: &Seen| Known {
            log: Some(seen.epoch.clone()),
            highest: seen.highest,
            acked: seen.acked,
            anchor: seen.anchor,
        };
        seen.map(of).unwrap_or_default()
    }

    /// Whether it must not be forgotten: it is followed, suspect or forked.
    pub(super) fn is_needed(&self) -> bool {
        !matches!(self.standing, Standing::InStep) || self.is_followed()
    }

    /// Whether nothing is known of any log, and nothing was accepted in place of one.
    pub(super) fn is_blank(&self) -> bool {
        let is_empty = self.fork().is_none_or(|fork| fork.top == 0);
        self.log().is_none() && is_empty && self.past.is_empty() && self.kept_bytes() == 0
    }

    /// Whether the log has no epoch, as far as is known here.
    pub(super) fn is_unborn(&self) -> bool {
        match &self.log {
            LogView::Unseen(unseen) => unseen.placed_here || self.have() == Some(Have::Nothing),
            LogView::Seen(_) => false,
        }
    }

    /// Whether readers here have had nothing of the log, whatever it turns out to have.
    pub(super) fn has_had_nothing(&self) -> bool {
        let is_unborn = |fork: &Forked| fork.segment.name.unborn;
        self.log().is_none() && self.fork().map_or(self.is_unborn(), is_unborn)
    }

    /// Sets whether the channel is that of an order placed here that no other node knows of.
    pub(super) fn set_placed_here(&mut self, placed_here: bool) {
        if let LogView::Unseen(unseen) = &mut self.log {
            unseen.placed_here = placed_here;
        }
    }

    /// Whether the log acknowledged own entries that readers here have not been sent.
    pub(super) fn has_unseen(&self) -> bool {
        let seen = self.memory.last_seq(&self.name, self.node);
        self.has_all() && self.retransmit.newest().is_some_and(|newest| newest > seen)
    }

    /// Drops from the retransmit buffers what the log would not keep any more.
    pub(super) fn expire_retransmit(&mut self) {
        #[cfg(test)]
        if mutant::is(Mutant::ExpiredPutBack) {
            return;
        }
        let age = self.memory.entry_age(&self.name);
        self.retransmit.expire(age, ChannelPolicy::of(&self.name).goes_together);
        self.foreign.expire(age);
    }

    /// The size of the retransmit buffers, in bytes.
    pub(super) fn kept_bytes(&self) -> usize {
        self.retransmit.bytes() + self.foreign.bytes()
    }

    /// Empties the retransmit buffers.
    pub(super) fn keep_nothing(&mut self) {
        (self.retransmit, self.foreign) = (RetransmitBuffer::default(), ForeignBuffer::default());
    }

    /// The log refused an own entry that was accepted.
    pub(super) fn note_refused(&mut self) {
        self.refused_some = true;
    }

    // Its readers on this node

    pub(super) fn is_followed(&self) -> bool {
        self.readers.is_some()
    }

    fn have(&self) -> Option<Have> {
        self.readers.as_ref().map(|readers| readers.have)
    }

    /// Whether the replica has all entries since the channel was followed.
    fn has_all(&self) -> bool {
        self.have() == Some(Have::All)
    }

    fn set_have(&mut self, have: Have) {
        if let Some(readers) = &mut self.readers {
            readers.have = have;
        }
    }

    /// The channel is followed from now on. Returns whether Redis has confirmed the subscription.
    pub(super) fn follow(&mut self) -> bool {
        self.readers.get_or_insert_default().are_confirmed
    }

    pub(super) fn set_confirmed(&mut self, are_confirmed: bool) {
        if let Some(readers) = &mut self.readers {
            readers.are_confirmed = are_confirmed;
        }
    }

    /// The channel is not followed any more.
    pub(super) fn unfollowed(&mut self) {
        self.readers = None;
        self.log.drop_waiting();
    }

    // What was seen of the log

    /// The log was found to have no epoch.
    pub(super) fn found_unborn(&mut self) {
        self.set_have(Have::Nothing);
    }

    /// The log was opened, in an epoch that is new here or that was known.
    pub(super) fn opened(&mut self, found: &OpenLog) {
        let OpenLog { epoch, top, last_seq, producers, anchor } = found;
        // What was published while the log was opened has been sent to readers, and does not come again.
        let mut ahead = self.log.take_heard(epoch);
        let has_all = self.has_all();
        if let LogView::Unseen(unseen) = &self.log {
            let sent = unseen.begun.as_ref().map_or(0, |(_, sent)| *sent);
            let seen = Seen::new(epoch.clone(), *last_seq, *top, *anchor);
            self.log = LogView::Seen(Seen { sent: seen.sent.max(sent), ..seen });
        }
        if let Some(seen) = self.log.seen_mut() {
            (seen.acked, seen.highest) = (seen.acked.max(*last_seq), seen.highest.max(*top));
            anchor.iter().for_each(|anchor| seen.keep_newest(*anchor));
            seen.knows_producers |= !has_all;
        }
        self.newest = self.newest.max(*last_seq);
        if has_all {
            return;
        }
        match self.memory.mirrored(&self.name).filter(|mirrored| mirrored.epoch == *epoch) {
            // What this node appended is kept; the others' sequences are new to it.
            Some(mirrored) if mirrored.top == *top => {
                producers.iter().for_each(|(node, seq)| self.memory.note_seq(&self.name, *node, *seq));
            }
            is_there => {
                if is_there.is_some() {
                    let after = Position { epoch: epoch.clone(), offset: *top };
                    let later = self.memory.read_now(&self.name, Some(&after), usize::MAX).entries;
                    ahead.extend(later.into_iter().map(|entry| (entry.offset, entry)));
                }
                self.memory.mirror_from(&self.name, epoch, *top, producers);
            }
        }
        self.set_have(Have::All);
        self.mirror_each(ahead.split_off(&(top + 1)));
    }

    /// Keeps entries that are published while their log is being opened.
    pub(super) fn hear(&mut self, epoch: &Epoch, entries: &[Entry]) {
        let (Some(_), LogView::Unseen(unseen)) = (&self.readers, &mut self.log) else { return };
        let is_usable = |(of, held): &(Epoch, BTreeMap<_, _>)| of == epoch && held.len() <= REORDER_MAX;
        let heard = unseen.heard.take().filter(is_usable);
        let (_, held) = unseen.heard.insert(heard.unwrap_or_else(|| (epoch.clone(), BTreeMap::new())));
        held.extend(entries.iter().map(|entry| (entry.offset, entry.clone())));
    }

    /// This node begins the log with this epoch, by sending own entries up to a sequence.
    pub(super) fn beginning(&mut self, epoch: &Epoch, seq: u64) {
        if let LogView::Unseen(unseen) = &mut self.log {
            unseen.begun = Some((epoch.clone(), seq));
        }
    }

    /// If entries were published in the epoch with which this node began the log, it did begin, and readers may
    /// have been told of it, even if the storage did not answer.
    pub(super) fn take_up_begun(&mut self) {
        let LogView::Unseen(Unseen { begun: Some((begun, _)), heard: Some((heard, _)), .. }) = &self.log
        else {
            return;
        };
        if begun == heard {
            self.opened(&OpenLog::begun_as(begun.clone()));
        }
    }

    /// Own entries up to this sequence are sent to the log. Returns the newest offset that was seen of it.
    pub(super) fn sending(&mut self, seq: u64) -> u64 {
        let Some(seen) = self.log.seen_mut() else { return 0 };
        seen.sent = seen.sent.max(seq);
        seen.highest
    }

    /// The entry at an offset of the log, where it is kept here, or is the newest that was seen.
    pub(super) fn seen_at(&self, offset: u64) -> Option<Anchor> {
        let kept = self.memory.last_ids(&self.name, offset, 1).pop().map(|id| Anchor { offset, id });
        let anchor = self.log.seen().and_then(|seen| seen.anchor);
        kept.or(anchor.filter(|anchor| anchor.offset == offset))
    }

    /// Whether these entries differ from those that were seen at the same offsets; if so, notes that.
    pub(super) fn contradicts(&mut self, entries: &[Entry]) -> bool {
        let Some(seen) = self.log.seen_mut() else { return false };
        let is_other = |anchor: Anchor| {
            entries.iter().any(|entry| entry.offset == anchor.offset && entry.id != anchor.id)
        };
        let differs =
            self.memory.contradicts(&self.name, &seen.epoch, entries) || seen.anchor.is_some_and(is_other);
        seen.is_contradicted |= differs;
        differs
    }

    /// The log has others in place of entries that were seen.
    pub(super) fn contradicted(&mut self) {
        if let Some(seen) = self.log.seen_mut() {
            seen.is_contradicted = true;
        }
    }

    /// The newest sequences of other producers are not known.
    pub(super) fn set_others_unknown(&mut self) {
        if let Some(seen) = self.log.seen_mut() {
            seen.knows_producers = false;
        }
    }

    /// Whether the log, which is still in the known epoch, has lost something that this node knew of it
    /// before it asked.
    pub(super) fn is_set_back(&self, found: &OpenLog, known: &Known) -> bool {
        if self.is_contradicted() || found.top < known.highest {
            return true;
        }
        let is_other = match (known.anchor, found.anchor) {
            (Some(known), Some(held)) => known.offset == held.offset && known.id != held.id,
            _ => false,
        };
        #[cfg(test)]
        let is_other = is_other && !mutant::is(Mutant::AnchorNotCompared);
        // The anchor says nothing if the log no longer keeps it, nor about own entries after it. A log
        // forgets producers that were silent for a day; their entries are too old then to be kept here.
        is_other || self.retransmit.has_after(found.last_seq, known.acked)
    }

    // The replica's entries

    /// The offset after which entries are missing although later ones have been seen; `None` if none are.
    pub(super) fn hole(&self) -> Option<u64> {
        if !self.has_all() || self.is_forked() {
            return None;
        }
        self.memory.top(&self.name).filter(|top| *top < self.highest())
    }

    /// Begins the replica anew, after an offset of the log that this node has reached. What others appended
    /// before is not known.
    fn mirror_from(&mut self, top: u64) {
        if let Some(seen) = self.log.seen_mut() {
            seen.knows_producers = false;
            self.memory.mirror_from(&self.name, &seen.epoch, top, &[(self.node, seen.acked)]);
        }
    }

    /// Adds a page of the log. If entries are missing between the replica and `first`, the oldest offset that
    /// can be read, they cannot come any more, and the replica begins anew at `first`.
    pub(super) fn mirror_page(&mut self, first: u64, entries: &[Entry]) {
        if self.has_all()
            && let (Some(seen), Some(mirrored)) = (self.log.seen_mut(), self.memory.mirrored(&self.name))
            && first > mirrored.top + 1
        {
            let producers = self.memory.producers(&self.name);
            self.memory.mirror_from(&self.name, &seen.epoch, first - 1, &producers);
            seen.waiting = seen.waiting.split_off(&first);
        }
        self.mirror(entries);
    }

    /// Adds entries, ascending without holes, of the log's epoch with which this node is in step.
    pub(super) fn mirror(&mut self, entries: &[Entry]) {
        let (Some(seen), Some(first), Some(last)) = (self.log.seen_mut(), entries.first(), entries.last())
        else {
            return;
        };
        seen.highest = seen.highest.max(last.offset);
        let known = entries.iter().rev().find(|entry| entry.id.is_known());
        known.into_iter().for_each(|entry| seen.keep_newest(entry.into()));
        // If the answer to an own append was lost, its entries come here first. A fork continues behind them,
        // although they were neither journaled nor acknowledged.
        for own in entries.iter().filter(|entry| entry.id.producer == self.node) {
            let seq = own.id.seq;
            if !self.retransmit.has(seq) {
                let prev = seq.saturating_sub(1);
                self.retransmit.keep(Append { seq, prev, draft: own.draft.clone(), fence: None });
            }
            // A log that has less of this node was set back, whatever others appended there since.
            seen.acked = seen.acked.max(seq);
        }
        let has_all = self.has_all();
        match self.memory.mirrored(&self.name) {
            // Memory dropped the replica, which had not been used for long.
            None => self.mirror_from(first.offset - 1),
            // Nobody on this node reads what is missing.
            Some(mirrored) if first.offset > mirrored.top + 1 && !has_all => {
                self.mirror_from(first.offset - 1);
            }
            Some(_) => {}
        }
        let Some(seen) = self.log.seen_mut() else { return };
        let mut top = self.memory.mirror(&self.name, &seen.epoch, entries);
        if !has_all {
            return;
        }
        let ahead = entries.iter().filter(|entry| entry.offset > top);
        seen.waiting.extend(ahead.map(|entry| (entry.offset, entry.clone())));
        while let Some(next) = seen.waiting.first_entry().filter(|next| *next.key() <= top + 1) {
            top = self.memory.mirror(&self.name, &seen.epoch, &[next.remove()]);
        }
        if seen.waiting.len() > REORDER_MAX {
            // They are read from the log instead.
            seen.waiting.clear();
        }
    }

    /// The same for entries that may have holes between them.
    fn mirror_each(&mut self, entries: BTreeMap<u64, Entry>) {
        entries.into_values().for_each(|entry| self.mirror(&[entry]));
    }

    /// Handles the log's answer to an append of this node: of own entries, or of others that have ids of
    /// their own.
    pub(super) fn acknowledged(&mut self, batch: &AppendBatch, results: &[Appended]) {
        let mut applied = Vec::new();
        for (append, result) in batch.entries.iter().zip(results) {
            match *result {
                Appended::Applied { offset } => {
                    applied.push(append.at(batch.producer, offset));
                    if let Some(fence) = append.fence {
                        self.memory.note_fence(&self.name, fence);
                    }
                }
                Appended::Duplicate => {}
                Appended::Gap { .. } | Appended::Refused(_) => break,
            }
            if batch.producer != self.node {
                self.foreign.keep(batch.producer, append.clone());
                continue;
            }
            self.retransmit.keep(append.clone());
            if let Some(seen) = self.log.seen_mut() {
                seen.acked = seen.acked.max(append.seq);
            }
            self.newest = self.newest.max(append.seq);
        }
        self.mirror(&applied);
    }

    /// Begins the replica anew, if memory dropped it because nothing came for long.
    pub(super) fn keep_mirror(&mut self) {
        if !self.is_blank() {
            self.make_mirror();
        }
    }

    /// The same even for a blank channel, because something is about to be appended to it.
    pub(super) fn make_mirror(&mut self) {
        if self.memory.mirrored(&self.name).is_some() {
            return;
        }
        let top = self.fork().map_or(self.highest(), |fork| fork.top);
        if let Some(epoch) = self.epoch() {
            self.memory.mirror_from(&self.name, epoch, top, &[(self.node, self.newest)]);
            self.set_others_unknown();
        }
    }

    /// The newest own sequence that readers here have been sent.
    fn newest_own_seen(&self) -> u64 {
        let seen = self.memory.last_seq(&self.name, self.node);
        let acked = self.log.seen().map_or(0, |seen| seen.acked);
        // Without readers here, this node does not receive what the log publishes, so own entries count as
        // seen once the log has acknowledged them.
        if self.has_all() { seen } else { seen.max(acked) }
    }

    // Standings, and what changes them

    /// The replica was found to differ from the log.
    pub(super) fn suspected(&mut self) {
        match self.standing {
            // In step => suspect: the next append may get an offset after entries other than those seen.
            Standing::InStep => self.standing = Standing::Suspect,
            // A fork is compared with the log before it is closed anyway.
            Standing::Suspect | Standing::Forked(_) => {}
        }
    }

    /// Opens a fork. It begins with own entries that the log acknowledged and readers here have not seen; `next`
    /// is the sequence of the entry that is to follow, where that is known. The fork is not closed before
    /// `reconcile_at`.
    pub(super) fn begin_fork(&mut self, next: Option<u64>, reconcile_at: Instant) {
        match self.standing {
            // In step, or suspect => forked: an append does not reach the log, or not in time, or readers wait
            // for entries that cannot be reached.
            Standing::InStep | Standing::Suspect => {}
            // Forked => forked.
            Standing::Forked(_) => return,
        }
        let base = self.base_of_fork();
        let unseen_after = self.newest_own_seen();
        let unseen = self.retransmit.after(unseen_after);
        // The next sequence need not follow the newest one seen: no entry has those in between.
        let seq = match next {
            Some(next) if unseen.is_empty() => unseen_after.max(next.saturating_sub(1)),
            _ => unseen_after,
        };
        let (log, unborn) = (self.log().cloned(), self.is_unborn());
        let name = Fork { log, unborn, base, node: self.node, seq, from: base };
        let is_unsure = !self.has_all() && self.log.seen().is_some_and(|seen| seen.sent > seen.acked);
        let fork = Forked::new(name, is_unsure, reconcile_at);
        self.memory.rename(&self.name, fork.epoch());
        self.standing = Standing::Forked(fork);
        self.log.drop_waiting();
        for append in unseen {
            #[cfg(test)]
            if mutant::is(Mutant::ForkWithoutInFlight) {
                continue;
            }
            self.append_here(append);
        }
        self.newest = self.newest.max(self.memory.last_seq(&self.name, self.node));
        // Own entries follow the newest one that was accepted, whether or not all of them were seen here.
        self.memory.note_seq(&self.name, self.node, self.newest);
    }

    /// The offset after which a fork begins; the replica is made to end there.
    fn base_of_fork(&mut self) -> u64 {
        let mirrored = self.memory.mirrored(&self.name).map(|mirrored| mirrored.top);
        match (mirrored, &self.log) {
            // The replica is of an epoch that has ended.
            (Some(_), LogView::Unseen(_)) if self.is_unborn() => {
                self.memory.mirror_from(&self.name, &new_epoch(), 0, &[]);
                0
            }
            (Some(top), LogView::Unseen(_)) => top,
            // The replica begins with the first own entry.
            (None, LogView::Unseen(_)) => 0,
            (Some(top), LogView::Seen(seen)) if self.has_all() || top >= seen.highest => top,
            // A fork that began at the replica's end would say in its name that readers there have had all
            // own entries that the log acknowledged.
            (_, LogView::Seen(seen)) => {
                let highest = seen.highest;
                self.mirror_from(highest);
                highest
            }
        }
    }

    /// Appends an own entry to the fork; it must have been judged to fit.
    pub(super) fn append_here(&mut self, append: Append) {
        self.step_to(append.seq);
        let Standing::Forked(fork) = &mut self.standing else { return };
        let (prev, seq) = (self.memory.last_seq(&self.name, self.node), append.seq);
        let batch = AppendBatch {
            channel: self.name.clone(),
            epoch: fork.epoch().clone(),
            producer: self.node,
            entries: vec![Append { prev, ..append }],
        };
        if let AppendAnswer::Done(results) = self.memory.append_now(&batch)
            && let Some(Appended::Applied { offset }) = results.first()
        {
            fork.top = *offset;
            self.newest = self.newest.max(seq);
        }
    }

    /// Makes the fork ready for an own entry with this sequence: after a hole in the sequences the fork
    /// continues in another epoch. Returns whether it does.
    pub(super) fn step_to(&mut self, seq: u64) -> bool {
        let Standing::Forked(fork) = &mut self.standing else { return false };
        let steps = fork.step_to(seq, || self.memory.first(&self.name).unwrap_or(0));
        if steps {
            self.memory.rename(&self.name, fork.epoch());
        }
        steps
    }

    /// Sets whether the fork, if there is one, is about to be closed: appends then wait briefly.
    pub(super) fn set_closing(&mut self, is_closing: bool) {
        if let Standing::Forked(fork) = &mut self.standing {
            fork.is_closing = is_closing;
        }
    }

    /// Any => in step: the log still has no epoch, and no entry waits to begin one; the fork, if there was one,
    /// was empty.
    pub(super) fn stays_unborn(&mut self) {
        self.standing = Standing::InStep;
        self.set_have(Have::Nothing);
        self.set_confirmed(true);
    }

    /// Any => in step: the log has everything of this node, and is as `to` says; the fork, if there was one,
    /// ends.
    pub(super) fn reconcile(&mut self, to: Reconciled) {
        let fork = match std::mem::replace(&mut self.standing, Standing::InStep) {
            Standing::Forked(fork) => Some(fork),
            Standing::InStep | Standing::Suspect => None,
        };
        let is_same = self.is_of(&to.epoch);
        // The channel may have forked since it was determined where readers go on.
        let base_of_fork = fork.as_ref().filter(|_| is_same).map(Forked::base);
        let Reconciled { epoch, base, top, acked, producers, anchor, read, kept, skips } = to;
        let base = base_of_fork.unwrap_or(base);
        // If the log still has the fork's base, readers of the fork have had only own entries after it.
        let others = if base_of_fork.is_some() { VersionVector::default() } else { self.others_had(is_same) };
        let ended = self.ended(fork, is_same);
        if base_of_fork.is_some() {
            self.memory.rewind(&self.name, &epoch, base);
        } else if !is_same {
            self.memory.mirror_from(&self.name, &epoch, base, &producers);
        }
        if !ended.is_empty() {
            // Readers whose position says nothing more exact go on at this offset.
            let to = Position { epoch: epoch.clone(), offset: if skips { 0 } else { base } };
            let transition = EpochTransition {
                to,
                had: VersionVector::default(),
                late_to: top,
                whole: !self.refused_some,
                skips,
            };
            self.past.push_back(Past { epochs: ended, others, node: self.node, transition });
            if self.past.len() > PAST_MAX {
                self.past.pop_front();
            }
        }
        self.refused_some = false;
        let mut ahead = self.log.take_heard(&epoch);
        match &mut self.log {
            // Appends may have gone on while the log was looked at.
            LogView::Seen(seen) if is_same => {
                (seen.acked, seen.highest) = (seen.acked.max(acked), seen.highest.max(top));
                self.newest = self.newest.max(acked);
            }
            // Own entries that the previous log had and no reader here has seen are not in this one: an append that
            // was not answered yet does not count as applied.
            log => {
                *log = LogView::Seen(Seen::new(epoch, acked, top, anchor));
                self.newest = acked;
            }
        }
        self.set_have(Have::All);
        self.set_confirmed(true);
        kept.into_iter().for_each(|append| self.retransmit.keep(append));
        let first = read.first().map_or(0, |first| first.offset);
        read.chunks(1_000).for_each(|page| self.mirror_page(first, page));
        self.mirror_each(ahead.split_off(&(top + 1)));
        if !self.has_all() {
            // The channel has no readers here: the replica begins where the log ends now.
            self.mirror_from(self.highest());
        }
    }

    /// What a reader at the end of the mirror has had of other nodes.
    fn others_had(&self, is_same: bool) -> VersionVector {
        let mut had = VersionVector::default();
        let seen = self.memory.recent_producers(&self.name).into_iter();
        seen.filter(|(producer, _)| *producer != self.node)
            .for_each(|(producer, seq)| had.add(producer, seq));
        if !is_same && self.log.seen().is_some_and(|seen| !seen.knows_producers) {
            // Which entries they have had is not known: some may come again, and readers are told so.
            had.doubt();
        }
        had
    }

    /// The epochs that end as the log is taken up again: that of the log, if it has another one now, and those
    /// of the fork.
    fn ended(&self, fork: Option<Forked>, is_same: bool) -> Vec<Ended> {
        let end = self.memory.mirrored(&self.name).map_or(0, |mirrored| mirrored.top);
        let mut ended = Vec::new();
        if let Some(log) = self.log().filter(|_| !is_same) {
            let (end, own) = match &fork {
                Some(fork) => (fork.base(), fork.first_segment().name.own_at(fork.base())),
                None => (end, self.newest_own_seen()),
            };
            let last = self.memory.last_ids(&self.name, end, BEHIND_MAX);
            ended.push(Ended { epoch: log.clone(), end, own, fork: None, last });
        }
        if let Some(Forked { segment, before, .. }) = fork {
            ended.extend(
                before
                    .into_iter()
                    .map(|(segment, end)| Ended::segment(segment.name.own_at(end), segment, end)),
            );
            ended.push(Ended::segment(self.newest, segment, end));
        }
        ended
    }
}

/// What is known of a log before it is asked. What is published while it answers is not in its answer, and must
/// not look like a loss.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) log: Option<Epoch>,
    pub(super) highest: u64,
    pub(super) acked: u64,
    pub(super) anchor: Option<Anchor>,
}

impl Known {
    /// The offset at which to look whether the log still has what is known of it.
    pub(super) fn at(&self) -> u64 {
        self.anchor.map_or(u64::MAX, |anchor| anchor.offset)
    }
}

/// The log, as it is when a node is in step with it again.
#[derive(Debug)]
pub(super) struct Reconciled {
    pub(super) epoch: Epoch,
    /// The offset after which readers go on.
    pub(super) base: u64,
    /// The newest offset that was appended while the node was not in step.
    pub(super) top: u64,
    /// The newest own sequence that the log has.
    pub(super) acked: u64,
    /// The newest sequence of each producer up to the base.
    pub(super) producers: Vec<(NodeId, u64)>,
    /// An entry that the log has.
    pub(super) anchor: Option<Anchor>,
    /// The entries after the base, for the replica.
    pub(super) read: Vec<Entry>,
    /// Own entries that the log has by now, for the retransmit buffer.
    pub(super) kept: Vec<Append>,
    /// The log has entries before the base that readers have not had.
    pub(super) skips: bool,
}
