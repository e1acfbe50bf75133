//! One channel on this node: in step with the log, or gone on from it alone.
//!
//! Three things are told apart, and change each for reasons of its own: how the channel stands to its log
//! ([`Standing`]), what was seen of that log ([`LogView`]), and what those on this node have who read it
//! ([`Readers`]).

mod fork;
mod past;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::tail::{Given, Tail};
use crate::model::{ChannelName, ChannelPolicy, Entry, Epoch, NodeId, Position, new_epoch};
use crate::storage::lives::Fork;
use crate::storage::{
    Anchor, Append, AppendAnswer, AppendBatch, Appended, Had, MemoryBackend, OpenLog, Seam,
};
#[cfg(test)]
use crate::support::mutant::{self, Mutant};
pub(super) use fork::Forked;
use past::{Ended, Past};

/// The most entries that wait here for one before them; the channel that reads them keeps as many.
const STASH_MAX: usize = 4_096;

/// The most lives of a channel that have ended and that readers may still be in.
const PAST_MAX: usize = 4;

/// The newest entries of a life of the log whose ids are kept after its end: readers may be that far
/// behind it.
const BEHIND_MAX: usize = 512;

/// What this node knows of a channel. Its entries are in the mirror, which is the memory backend.
#[derive(Debug)]
pub(super) struct Line {
    name: ChannelName,
    node: NodeId,
    memory: MemoryBackend,
    standing: Standing,
    log: LogView,
    /// `None`: nobody on this node wants what is appended.
    readers: Option<Readers>,
    /// The newest own sequence that was accepted, by the log or in place of it.
    newest: u64,
    /// Entries that were accepted were refused by the log: readers had them all the same.
    lost_some: bool,
    /// What may have to be put back: of this node's own entries, and of those that it appended under ids which
    /// they have of their own.
    pub(super) tail: Tail,
    pub(super) given: Given,
    past: VecDeque<Past>,
    pub(super) used: Instant,
}

/// How a channel stands to its log.
#[derive(Debug)]
enum Standing {
    /// As far as is known, what comes of the log follows on what was seen of it.
    InStep,
    /// It was found to differ from the log: nothing is sent there until it is put in order.
    Suspect,
    /// It goes on without the log, until it is put in order.
    Forked(Forked),
}

/// What was seen of the log.
#[derive(Debug)]
enum LogView {
    /// No life of it.
    Unseen(Unseen),
    /// The life that this node is in step with, or went on from.
    Seen(Seen),
}

/// Of a log of which no life was seen.
#[derive(Debug, Default)]
struct Unseen {
    /// It is an order that was placed here in this outage: nobody else knows of it yet, so its log has no
    /// life.
    placed_here: bool,
    /// The epoch that this node started the log with, and the newest own sequence that was sent for it. The
    /// storage need not have answered.
    begun: Option<(Epoch, u64)>,
    /// What was told of a log that is being opened, and of which life of it.
    heard: Option<(Epoch, BTreeMap<u64, Entry>)>,
}

/// A life of the log.
#[derive(Debug)]
struct Seen {
    epoch: Epoch,
    /// The newest own sequence that the log acknowledged in this life.
    acked: u64,
    /// The newest own sequence that was sent to the log, whether or not it answered.
    sent: u64,
    /// The newest offset that was seen of this life.
    highest: u64,
    /// The newest entry that was seen of this life, by which it is told whether the log was set back.
    anchor: Option<Anchor>,
    /// The log has other entries at offsets that were seen: it came back older than it was, and was
    /// appended to since.
    is_contradicted: bool,
    /// What is known of producers is all that the log knew; else a reader may have had more of others
    /// than can be said.
    knows_producers: bool,
    /// Entries that wait for one before them.
    waiting: BTreeMap<u64, Entry>,
}

/// Somebody on this node wants what is appended.
#[derive(Debug, Default)]
struct Readers {
    /// The log has confirmed that it tells.
    are_confirmed: bool,
    have: Have,
}

/// What readers on this node have of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Have {
    /// That is not known: it was not looked at since they are here.
    #[default]
    Unknown,
    /// Nothing: it was found to have no life, so all that it will ever have is new to them.
    Nothing,
    /// The mirror has all entries since they are here.
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

    /// What was heard of a life before it was taken up.
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

impl Line {
    pub(super) fn new(name: ChannelName, node: NodeId, memory: MemoryBackend, now: Instant) -> Self {
        Self {
            name,
            node,
            memory,
            standing: Standing::InStep,
            log: LogView::default(),
            readers: None,
            newest: 0,
            lost_some: false,
            tail: Tail::default(),
            given: Given::default(),
            past: VecDeque::new(),
            used: now,
        }
    }

    /// The fork that it is in; `None` while it does not go on alone.
    pub(super) fn fork(&self) -> Option<&Forked> {
        if let Standing::Forked(fork) = &self.standing { Some(fork) } else { None }
    }

    pub(super) fn is_forked(&self) -> bool {
        self.fork().is_some()
    }

    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.standing, Standing::Suspect)
    }

    /// Its fork is about to be closed.
    pub(super) fn is_closing(&self) -> bool {
        self.fork().is_some_and(|fork| fork.is_closing)
    }

    /// The life of the log that this node is in step with, or went on from; `None`: none was seen.
    pub(super) fn log(&self) -> Option<&Epoch> {
        self.log.seen().map(|seen| &seen.epoch)
    }

    /// Whether that is this one.
    pub(super) fn is_of(&self, epoch: &Epoch) -> bool {
        self.log() == Some(epoch)
    }

    /// The life that this node is in.
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

    /// Whether anything would be lost if it were forgotten.
    pub(super) fn is_needed(&self) -> bool {
        !matches!(self.standing, Standing::InStep) || self.is_followed()
    }

    /// Whether nothing is known of any log, and nothing was accepted in place of one.
    pub(super) fn is_blank(&self) -> bool {
        let is_empty = self.fork().is_none_or(|fork| fork.top == 0);
        self.log().is_none() && is_empty && self.past.is_empty() && self.kept_bytes() == 0
    }

    /// Whether the log has no life, as far as is known here.
    pub(super) fn is_unborn(&self) -> bool {
        match &self.log {
            LogView::Unseen(unseen) => unseen.placed_here || self.have() == Some(Have::Nothing),
            LogView::Seen(_) => false,
        }
    }

    /// Whether readers here have had nothing of the log, whatever it turns out to have.
    pub(super) fn has_had_nothing(&self) -> bool {
        let is_unborn = |fork: &Forked| fork.leg.life.unborn;
        self.log().is_none() && self.fork().map_or(self.is_unborn(), is_unborn)
    }

    /// It is an order that was placed here, or everybody may know of it by now.
    pub(super) fn set_placed_here(&mut self, placed_here: bool) {
        if let LogView::Unseen(unseen) = &mut self.log {
            unseen.placed_here = placed_here;
        }
    }

    /// Whether the log acknowledged own entries after the newest that was seen here.
    pub(super) fn has_unseen(&self) -> bool {
        let seen = self.memory.last_seq(&self.name, self.node);
        self.has_all() && self.tail.newest().is_some_and(|newest| newest > seen)
    }

    /// Lets go of what need not be put back any more.
    pub(super) fn expire_tail(&mut self) {
        #[cfg(test)]
        if mutant::is(Mutant::ExpiredPutBack) {
            return;
        }
        let age = self.memory.entry_age(&self.name);
        self.tail.expire(age, ChannelPolicy::of(&self.name).goes_together);
        self.given.expire(age);
    }

    /// What is kept to be put back, in bytes.
    pub(super) fn kept_bytes(&self) -> usize {
        self.tail.bytes() + self.given.bytes()
    }

    /// Nothing is put back that was kept so far.
    pub(super) fn keep_nothing(&mut self) {
        (self.tail, self.given) = (Tail::default(), Given::default());
    }

    /// An own entry that was accepted is refused by the log.
    pub(super) fn lost_one(&mut self) {
        self.lost_some = true;
    }

    // Those who read it here

    pub(super) fn is_followed(&self) -> bool {
        self.readers.is_some()
    }

    fn have(&self) -> Option<Have> {
        self.readers.as_ref().map(|readers| readers.have)
    }

    /// Whether the mirror has all entries since the channel was followed.
    fn has_all(&self) -> bool {
        self.have() == Some(Have::All)
    }

    fn set_have(&mut self, have: Have) {
        if let Some(readers) = &mut self.readers {
            readers.have = have;
        }
    }

    /// The channel is followed from now on. Whether the log has confirmed that it tells.
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

    // The log as it is seen

    /// The log was found to have no life.
    pub(super) fn found_unborn(&mut self) {
        self.set_have(Have::Nothing);
    }

    /// The log was opened: this is its life, which is new here or the one that was known.
    pub(super) fn opened(&mut self, found: &OpenLog) {
        let OpenLog { epoch, top, last_seq, producers, anchor } = found;
        // What came while the log was opened has been told to readers, and will not come again.
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

    /// Entries of a log that is being opened.
    pub(super) fn hear(&mut self, epoch: &Epoch, entries: &[Entry]) {
        let (Some(_), LogView::Unseen(unseen)) = (&self.readers, &mut self.log) else { return };
        let is_usable = |(of, held): &(Epoch, BTreeMap<_, _>)| of == epoch && held.len() <= STASH_MAX;
        let heard = unseen.heard.take().filter(is_usable);
        let (_, held) = unseen.heard.insert(heard.unwrap_or_else(|| (epoch.clone(), BTreeMap::new())));
        held.extend(entries.iter().map(|entry| (entry.offset, entry.clone())));
    }

    /// This node starts the log with this epoch: own entries up to a sequence are sent for it.
    pub(super) fn beginning(&mut self, epoch: &Epoch, seq: u64) {
        if let LogView::Unseen(unseen) = &mut self.log {
            unseen.begun = Some((epoch.clone(), seq));
        }
    }

    /// Entries were heard of the epoch that this node started the log with: so the start took effect, and readers
    /// may have been told of it, even if the storage did not answer.
    pub(super) fn take_up_begun(&mut self) {
        let LogView::Unseen(Unseen { begun: Some((begun, _)), heard: Some((heard, _)), .. }) = &self.log
        else {
            return;
        };
        if begun == heard {
            self.opened(&OpenLog::begun_as(begun.clone()));
        }
    }

    /// Own entries up to this sequence are sent to the log. Answers the newest offset that was seen of it.
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

    /// Whether the log has other entries than were seen at the same offsets; that is noted.
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

    /// Of others it is not known what they appended so far.
    pub(super) fn knows_no_others(&mut self) {
        if let Some(seen) = self.log.seen_mut() {
            seen.knows_producers = false;
        }
    }

    /// Whether the log, as it was found in the epoch that was known, has lost something of what was known
    /// of it before it was asked.
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
        // Where that entry is not kept any more, or own ones are behind it. A log forgets who was silent for
        // a day, and nothing of theirs is young enough then to be put back.
        is_other || self.tail.has_after(found.last_seq, known.acked)
    }

    // The mirror

    /// The offset after which entries of the log are missing here that others follow.
    pub(super) fn hole(&self) -> Option<u64> {
        if !self.has_all() || self.is_forked() {
            return None;
        }
        self.memory.top(&self.name).filter(|top| *top < self.highest())
    }

    /// Begins the mirror after an offset of the log, as far as this node has come; of what others appended
    /// before nothing is known.
    fn mirror_from(&mut self, top: u64) {
        if let Some(seen) = self.log.seen_mut() {
            seen.knows_producers = false;
            self.memory.mirror_from(&self.name, &seen.epoch, top, &[(self.node, seen.acked)]);
        }
    }

    /// A page of the log, whose oldest entry is `first`: where that leaves a hole after what is kept,
    /// nobody can fill it any more.
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

    /// Entries of the log's life that this node is in step with, ascending without holes.
    pub(super) fn mirror(&mut self, entries: &[Entry]) {
        let (Some(seen), Some(first), Some(last)) = (self.log.seen_mut(), entries.first(), entries.last())
        else {
            return;
        };
        seen.highest = seen.highest.max(last.offset);
        let known = entries.iter().rev().find(|entry| entry.id.is_known());
        known.into_iter().for_each(|entry| seen.keep_newest(entry.into()));
        // The answer to an own append may be lost: a fork knows these as its own all the same, and
        // has them neither journaled nor acknowledged.
        for own in entries.iter().filter(|entry| entry.id.producer == self.node) {
            let seq = own.id.seq;
            if !self.tail.has(seq) {
                let prev = seq.saturating_sub(1);
                self.tail.keep(Append { seq, prev, draft: own.draft.clone(), fence: None });
            }
            // A log that has less of this node came back older, whatever others put in their place.
            seen.acked = seen.acked.max(seq);
        }
        let has_all = self.has_all();
        match self.memory.mirrored(&self.name) {
            // It was let go with all else that had not been used for long.
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
        if seen.waiting.len() > STASH_MAX {
            // They are read from the log, and come here then.
            seen.waiting.clear();
        }
    }

    /// The same of entries that may have holes.
    fn mirror_each(&mut self, entries: BTreeMap<u64, Entry>) {
        entries.into_values().for_each(|entry| self.mirror(&[entry]));
    }

    /// The log answered an append of this node, whose own entries or others these are.
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
                self.given.keep(batch.producer, append.clone());
                continue;
            }
            self.tail.keep(append.clone());
            if let Some(seen) = self.log.seen_mut() {
                seen.acked = seen.acked.max(append.seq);
            }
            self.newest = self.newest.max(append.seq);
        }
        self.mirror(&applied);
    }

    /// Begins the mirror anew, if memory let it go because nothing came for long.
    pub(super) fn keep_mirror(&mut self) {
        if !self.is_blank() {
            self.make_mirror();
        }
    }

    /// The same where something is about to be appended to it.
    pub(super) fn make_mirror(&mut self) {
        if self.memory.mirrored(&self.name).is_some() {
            return;
        }
        let top = self.fork().map_or(self.highest(), |fork| fork.top);
        if let Some(epoch) = self.epoch() {
            self.memory.mirror_from(&self.name, epoch, top, &[(self.node, self.newest)]);
            self.knows_no_others();
        }
    }

    /// The newest own sequence that readers here have had.
    fn own_seen(&self) -> u64 {
        let seen = self.memory.last_seq(&self.name, self.node);
        let acked = self.log.seen().map_or(0, |seen| seen.acked);
        // Where nobody here follows the log, nothing of it has been seen, and nothing is waited for.
        if self.has_all() { seen } else { seen.max(acked) }
    }

    // How it stands to the log, and what changes that

    /// It was found to differ from the log.
    pub(super) fn doubted(&mut self) {
        match self.standing {
            // In step => suspect: what is appended next may stand behind other entries than were seen.
            Standing::InStep => self.standing = Standing::Suspect,
            // A fork is compared with the log before it is closed, whatever is found of that now.
            Standing::Suspect | Standing::Forked(_) => {}
        }
    }

    /// Goes on without the log: first with own entries that it acknowledged and that nobody here has
    /// seen. `next` is the sequence of the entry that is to follow, where that is known. Not closed before
    /// `rejoin_at`.
    pub(super) fn begin_fork(&mut self, next: Option<u64>, rejoin_at: Instant) {
        match self.standing {
            // In step, or suspect => forked: what is accepted does not reach the log, or not in time, or
            // readers wait for what cannot be reached.
            Standing::InStep | Standing::Suspect => {}
            // It goes on as it does.
            Standing::Forked(_) => return,
        }
        let base = self.base_of_fork();
        let unseen_after = self.own_seen();
        let unseen = self.tail.after(unseen_after);
        // What is given out next need not follow on what was seen; nothing lies between.
        let seq = match next {
            Some(next) if unseen.is_empty() => unseen_after.max(next.saturating_sub(1)),
            _ => unseen_after,
        };
        let (log, unborn) = (self.log().cloned(), self.is_unborn());
        let life = Fork { log, unborn, base, node: self.node, seq, from: base };
        let is_unsure = !self.has_all() && self.log.seen().is_some_and(|seen| seen.sent > seen.acked);
        let fork = Forked::new(life, is_unsure, rejoin_at);
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
        // What this node appended goes on behind it, whether or not all of it was seen here.
        self.memory.note_seq(&self.name, self.node, self.newest);
    }

    /// The offset after which a fork begins, with the mirror made to end there.
    fn base_of_fork(&mut self) -> u64 {
        let mirrored = self.memory.mirrored(&self.name).map(|mirrored| mirrored.top);
        match (mirrored, &self.log) {
            // What is kept is of a life that is over.
            (Some(_), LogView::Unseen(_)) if self.is_unborn() => {
                self.memory.mirror_from(&self.name, &new_epoch(), 0, &[]);
                0
            }
            (Some(top), LogView::Unseen(_)) => top,
            // It is mirrored from the first own entry on.
            (None, LogView::Unseen(_)) => 0,
            (Some(top), LogView::Seen(seen)) if self.has_all() || top >= seen.highest => top,
            // What is acknowledged beyond the mirror would be taken for had by readers at its end.
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

    /// Makes the fork ready for an own entry with this sequence: where there is a hole before it, the
    /// fork goes on as another leg. Says whether it does.
    pub(super) fn step_to(&mut self, seq: u64) -> bool {
        let Standing::Forked(fork) = &mut self.standing else { return false };
        let steps = fork.step_to(seq, || self.memory.first(&self.name).unwrap_or(0));
        if steps {
            self.memory.rename(&self.name, fork.epoch());
        }
        steps
    }

    /// Whether the fork, if it is in one, is about to be closed: an append waits for that a little.
    pub(super) fn set_closing(&mut self, is_closing: bool) {
        if let Standing::Forked(fork) = &mut self.standing {
            fork.is_closing = is_closing;
        }
    }

    /// Any => in step: the log still has no life, and nothing waits for one; the fork, if there was one, was
    /// empty.
    pub(super) fn stays_unborn(&mut self) {
        self.standing = Standing::InStep;
        self.set_have(Have::Nothing);
        self.set_confirmed(true);
    }

    /// Any => in step: the log has everything of this node, and is this now; the fork, if there was one, has
    /// ended.
    pub(super) fn rejoin(&mut self, to: Rejoined) {
        let fork = match std::mem::replace(&mut self.standing, Standing::InStep) {
            Standing::Forked(fork) => Some(fork),
            Standing::InStep | Standing::Suspect => None,
        };
        let is_same = self.is_of(&to.epoch);
        // It may have gone on alone since it was found out where readers go on.
        let base_of_fork = fork.as_ref().filter(|_| is_same).map(Forked::base);
        let Rejoined { epoch, base, top, acked, producers, anchor, read, kept, skips } = to;
        let base = base_of_fork.unwrap_or(base);
        // What a reader of the fork had after its base, where that is the log's yet, is its own alone.
        let others = if base_of_fork.is_some() { Had::default() } else { self.others_had(is_same) };
        let lives = self.ended(fork, is_same);
        if base_of_fork.is_some() {
            self.memory.rewind(&self.name, &epoch, base);
        } else if !is_same {
            self.memory.mirror_from(&self.name, &epoch, base, &producers);
        }
        if !lives.is_empty() {
            // What was there before is for all who do not know better where to go on.
            let to = Position { epoch: epoch.clone(), offset: if skips { 0 } else { base } };
            let seam = Seam { to, had: Had::default(), late_to: top, whole: !self.lost_some, skips };
            self.past.push_back(Past { lives, others, node: self.node, seam });
            if self.past.len() > PAST_MAX {
                self.past.pop_front();
            }
        }
        self.lost_some = false;
        let mut ahead = self.log.take_heard(&epoch);
        match &mut self.log {
            // Appends may have gone on while it was looked at.
            LogView::Seen(seen) if is_same => {
                (seen.acked, seen.highest) = (seen.acked.max(acked), seen.highest.max(top));
                self.newest = self.newest.max(acked);
            }
            // What the log before had of this node, and nobody here has seen, is not in this one: an append that
            // was not answered yet is none that was applied.
            log => {
                *log = LogView::Seen(Seen::new(epoch, acked, top, anchor));
                self.newest = acked;
            }
        }
        self.set_have(Have::All);
        self.set_confirmed(true);
        kept.into_iter().for_each(|append| self.tail.keep(append));
        let first = read.first().map_or(0, |first| first.offset);
        read.chunks(1_000).for_each(|page| self.mirror_page(first, page));
        self.mirror_each(ahead.split_off(&(top + 1)));
        if !self.has_all() {
            // Nobody here reads it: it is gone on with from where it is now.
            self.mirror_from(self.highest());
        }
    }

    /// What a reader at the end of the mirror has had of other nodes.
    fn others_had(&self, is_same: bool) -> Had {
        let mut had = Had::default();
        let seen = self.memory.recent_producers(&self.name).into_iter();
        seen.filter(|(producer, _)| *producer != self.node)
            .for_each(|(producer, seq)| had.add(producer, seq));
        if !is_same && self.log.seen().is_some_and(|seen| !seen.knows_producers) {
            // It cannot be said: they may come again, and that is told.
            had.doubt();
        }
        had
    }

    /// The lives that end as the log is taken up again: that of the log, where it has another one now, and
    /// those of the fork.
    fn ended(&self, fork: Option<Forked>, is_same: bool) -> Vec<Ended> {
        let end = self.memory.mirrored(&self.name).map_or(0, |mirrored| mirrored.top);
        let mut lives = Vec::new();
        if let Some(log) = self.log().filter(|_| !is_same) {
            let (end, own) = match &fork {
                Some(fork) => (fork.base(), fork.first_leg().life.own_at(fork.base())),
                None => (end, self.own_seen()),
            };
            let last = self.memory.last_ids(&self.name, end, BEHIND_MAX);
            lives.push(Ended { epoch: log.clone(), end, own, fork: None, last });
        }
        if let Some(Forked { leg, before, .. }) = fork {
            lives.extend(before.into_iter().map(|(leg, end)| Ended::leg(leg.life.own_at(end), leg, end)));
            lives.push(Ended::leg(self.newest, leg, end));
        }
        lives
    }
}

/// What is known of a log before it is asked: what comes while it answers is not in its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) log: Option<Epoch>,
    pub(super) highest: u64,
    pub(super) acked: u64,
    pub(super) anchor: Option<Anchor>,
}

impl Known {
    /// Where to look whether the log still has what is known of it.
    pub(super) fn at(&self) -> u64 {
        self.anchor.map_or(u64::MAX, |anchor| anchor.offset)
    }
}

/// The log, as it is when a node is in step with it again.
#[derive(Debug)]
pub(super) struct Rejoined {
    pub(super) epoch: Epoch,
    /// Readers go on after this offset.
    pub(super) base: u64,
    /// Entries up to this one were appended while the node was not in step.
    pub(super) top: u64,
    /// The newest own sequence that the log has.
    pub(super) acked: u64,
    /// The newest sequence of each producer up to the base.
    pub(super) producers: Vec<(NodeId, u64)>,
    /// An entry that it has.
    pub(super) anchor: Option<Anchor>,
    /// The entries after the base, for the mirror.
    pub(super) read: Vec<Entry>,
    /// Own entries that it has by now.
    pub(super) kept: Vec<Append>,
    /// There was something before the base that readers have not had.
    pub(super) skips: bool,
}
