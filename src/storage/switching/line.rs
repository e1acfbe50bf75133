//! One channel on this node: in step with the log, or gone on from it alone.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::tail::{Given, Tail};
use crate::model::{ChannelName, ChannelPolicy, Entry, EntryId, Epoch, NodeId, Position, new_epoch};
use crate::storage::lives::{Fork, Life, had_at};
use crate::storage::{
    Anchor, Append, AppendAnswer, AppendBatch, Appended, Had, MemoryBackend, OpenLog, Seam,
};
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// The most entries that wait here for one before them; the channel that reads them keeps as many.
const STASH_MAX: usize = 4_096;

/// The most lives of a channel that have ended and that readers may still be in.
const PAST_MAX: usize = 4;

/// The most legs of a fork that are remembered besides the newest.
const LEGS_MAX: usize = 256;

/// The newest entries of a life of the log whose ids are kept after its end: readers may be that far
/// behind it.
const BEHIND_MAX: usize = 512;

/// What this node knows of a channel. Its entries are in the mirror, which is the memory backend.
#[derive(Debug)]
pub(super) struct Line {
    /// The life of the log that this node is in step with, or went on from; `None`: none was seen.
    pub(super) log: Option<Epoch>,
    /// The newest own sequence that the log acknowledged in this life.
    pub(super) acked: u64,
    /// The newest own sequence that was accepted.
    pub(super) newest: u64,
    /// The newest own sequence that was sent to the log, whether or not it answered.
    pub(super) sent: u64,
    /// What this node has begun a life of the log as, last, whether or not it was answered.
    pub(super) begun: Option<Epoch>,
    /// The newest offset that was seen of this life.
    pub(super) highest: u64,
    /// The newest entry that was seen of this life, by which it is told whether the log was set back.
    pub(super) anchor: Option<Anchor>,
    pub(super) fork: Option<Forked>,
    /// Entries that were accepted were refused by the log: readers had them all the same.
    pub(super) lost_some: bool,
    /// The log has other entries at offsets that were seen: it came back older than it was, and was
    /// appended to since.
    pub(super) is_contradicted: bool,
    /// Its fork is about to be closed: an append waits for that a little.
    pub(super) closing: bool,
    /// It was found to differ from the log, and is to be put in order.
    pub(super) suspect: bool,
    /// Since the channel is followed, the log was found to have no life: all that it will ever have is
    /// new to readers here.
    unborn: bool,
    /// It is an order that was placed here in this outage: nobody else knows of it yet, so its log has no
    /// life.
    pub(super) placed_here: bool,
    /// Somebody on this node wants what is appended.
    pub(super) followed: bool,
    /// The log has confirmed that it tells.
    pub(super) confirmed: bool,
    /// The mirror has all entries since the channel was followed.
    is_mirrored: bool,
    /// What is known of producers is all that the log knew; else a reader may have had more of others
    /// than can be said.
    pub(super) knows_producers: bool,
    /// Entries of the log that wait for one before them.
    stash: BTreeMap<u64, Entry>,
    /// While the log has not been opened: the life that they are of.
    stash_of: Option<Epoch>,
    /// What may have to be put back: of this node's own entries, and of those that it appended under ids which
    /// they have of their own.
    pub(super) tail: Tail,
    pub(super) given: Given,
    past: VecDeque<Past>,
    pub(super) used: Instant,
}

/// A channel that goes on without the log.
#[derive(Debug)]
pub(super) struct Forked {
    leg: Leg,
    /// Legs before it, each with its last offset: the first, and as many as may be resumed.
    before: Vec<(Leg, u64)>,
    /// The newest offset.
    top: u64,
    /// The copy that it goes on from does not reach back, and own entries that the log was sent and did not
    /// answer may be among those that it lacks: readers of the log who come from elsewhere may have had
    /// them, and are not taken up as if they had not.
    is_unsure: bool,
    /// Not to be closed before: not right after it opened.
    pub(super) rejoin_at: Instant,
}

/// A stretch of a fork in which own sequences have no holes, so that its name tells what was had at
/// each offset.
#[derive(Debug, Clone)]
struct Leg {
    life: Fork,
    epoch: Epoch,
}

impl Leg {
    fn new(life: Fork) -> Self {
        Self { epoch: life.epoch(), life }
    }
}

/// Lives that have ended with the log that they belonged to.
#[derive(Debug)]
struct Past {
    lives: Vec<Ended>,
    /// What a reader at the end of the last one has had of other nodes.
    others: Had,
    node: NodeId,
    seam: Seam,
}

/// A life that has ended.
#[derive(Debug)]
struct Ended {
    epoch: Epoch,
    /// Its last offset.
    end: u64,
    /// The node's newest sequence there.
    own: u64,
    /// Where it was a fork.
    fork: Option<Leg>,
    /// Where it was none: the ids of the entries that lead up to the end, for readers who are not there
    /// yet.
    last: Vec<EntryId>,
}

impl Past {
    /// What a reader has had that has come so far in a life; `None` where that is not known.
    fn had_at(&self, ended: &Ended, offset: u64) -> Option<Had> {
        let mut had = self.others.clone();
        let Some(fork) = &ended.fork else {
            had.add(self.node, ended.own);
            return ended.before(&had, offset);
        };
        let own = match offset {
            _ if offset == ended.end => ended.own,
            _ if (fork.life.from..ended.end).contains(&offset) => fork.life.own_at(offset),
            _ => return None,
        };
        had.add(self.node, own);
        Some(had)
    }
}

impl Ended {
    fn leg(own: u64, leg: Leg, end: u64) -> Self {
        Self { epoch: leg.epoch.clone(), end, own, fork: Some(leg), last: Vec::new() }
    }

    /// What a reader at this offset has had, of what one at the end has had.
    fn before(&self, at_end: &Had, offset: u64) -> Option<Had> {
        let behind = usize::try_from(self.end.checked_sub(offset)?).ok()?;
        let lacks = &self.last[self.last.len().checked_sub(behind)?..];
        let mut had = if at_end.is_in_doubt() { Had::unknown() } else { Had::default() };
        for (producer, run) in at_end.iter() {
            let first = lacks.iter().find(|id| id.producer == producer);
            // A producer's entries come in order: of all before the first that it lacks, none is to come.
            had.add(producer, first.map_or(run.newest, |first| first.seq.saturating_sub(1)));
        }
        Some(had)
    }
}

impl Forked {
    pub(super) fn epoch(&self) -> &Epoch {
        &self.leg.epoch
    }

    pub(super) fn base(&self) -> u64 {
        self.leg.life.base
    }

    /// Where a life that this one goes on from has ended, and the one after it.
    pub(super) fn end_of(&self, epoch: &Epoch) -> Option<(u64, &Epoch)> {
        let legs = || self.before.iter().map(|(leg, _)| leg).chain([&self.leg]);
        if self.leg.life.log.as_ref() == Some(epoch) {
            if self.is_unsure {
                return None;
            }
            return legs().next().map(|first| (self.base(), &first.epoch));
        }
        let at = self.before.iter().position(|(leg, _)| leg.epoch == *epoch)?;
        legs().nth(at + 1).map(|next| (self.before[at].1, &next.epoch))
    }

    /// Whether an own entry with this sequence would follow on the one before it without a hole.
    pub(super) fn follows(&self, seq: u64) -> bool {
        self.leg.life.own_at(self.top).checked_add(1) == Some(seq)
    }
}

impl Line {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            log: None,
            acked: 0,
            newest: 0,
            sent: 0,
            begun: None,
            highest: 0,
            anchor: None,
            fork: None,
            closing: false,
            lost_some: false,
            is_contradicted: false,
            suspect: false,
            unborn: false,
            placed_here: false,
            followed: false,
            confirmed: false,
            is_mirrored: false,
            knows_producers: true,
            stash: BTreeMap::new(),
            stash_of: None,
            tail: Tail::default(),
            given: Given::default(),
            past: VecDeque::new(),
            used: now,
        }
    }

    /// The life that this node is in.
    pub(super) fn epoch(&self) -> Option<&Epoch> {
        self.fork.as_ref().map(Forked::epoch).or(self.log.as_ref())
    }

    /// Whether anything would be lost if it were forgotten.
    pub(super) fn is_needed(&self) -> bool {
        self.fork.is_some() || self.followed || self.suspect
    }

    /// Whether nothing is known of any log, and nothing was accepted in place of one.
    pub(super) fn is_blank(&self) -> bool {
        let is_empty = self.fork.as_ref().is_none_or(|fork| fork.top == 0);
        self.log.is_none() && is_empty && self.past.is_empty() && self.kept_bytes() == 0
    }

    /// Whether the log has no life, as far as is known here.
    pub(super) fn is_unborn(&self) -> bool {
        self.log.is_none() && (self.unborn || self.placed_here)
    }

    /// Whether readers here have had nothing of the log, whatever it turns out to have.
    pub(super) fn has_had_nothing(&self) -> bool {
        let is_unborn = |fork: &Forked| fork.leg.life.unborn;
        self.log.is_none() && self.fork.as_ref().map_or(self.is_unborn(), is_unborn)
    }

    /// The log was found to have no life.
    pub(super) fn found_unborn(&mut self) {
        self.unborn = self.followed;
    }

    /// The log still has no life, and nothing waits for one: the fork, if there was one, was empty.
    pub(super) fn stays_unborn(&mut self) {
        self.fork = None;
        (self.suspect, self.closing) = (false, false);
        (self.unborn, self.confirmed) = (self.followed, self.followed);
    }

    /// Whether the log acknowledged own entries after this sequence, the newest that was seen here.
    pub(super) fn has_unseen(&self, seen: u64) -> bool {
        self.is_mirrored && self.tail.newest().is_some_and(|newest| newest > seen)
    }

    /// Lets go of what need not be put back any more.
    pub(super) fn expire_tail(&mut self, name: &ChannelName, memory: &MemoryBackend) {
        #[cfg(test)]
        if mutant::is(Mutant::ExpiredPutBack) {
            return;
        }
        let age = memory.entry_age(name);
        self.tail.expire(age, ChannelPolicy::of(name).goes_together);
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

    // In step with the log

    /// The log was opened: this is its life, which is new here or the one that was known.
    pub(super) fn opened(&mut self, name: &ChannelName, memory: &MemoryBackend, node: NodeId, log: &OpenLog) {
        let OpenLog { epoch, top, last_seq, producers, anchor } = log;
        let (top, last_seq) = (*top, *last_seq);
        if self.log.is_none() {
            self.log = Some(epoch.clone());
            (self.is_mirrored, self.unborn, self.placed_here) = (false, false, false);
        }
        anchor.iter().for_each(|anchor| keep_newest(&mut self.anchor, *anchor));
        self.acked = self.acked.max(last_seq);
        self.newest = self.newest.max(last_seq);
        self.highest = self.highest.max(top);
        if !self.is_mirrored {
            // What came while the log was opened has been told to readers, and will not come again.
            let mut ahead = self.take_heard(epoch);
            match memory.mirrored(name).filter(|mirrored| mirrored.epoch == *epoch) {
                // What this node appended is kept; the others' sequences are new to it.
                Some(mirrored) if mirrored.top == top => {
                    producers.iter().for_each(|(node, seq)| memory.note_seq(name, *node, *seq));
                }
                is_there => {
                    if is_there.is_some() {
                        let after = Position { epoch: epoch.clone(), offset: top };
                        let later = memory.read_now(name, Some(&after), usize::MAX).entries;
                        ahead.extend(later.into_iter().map(|entry| (entry.offset, entry)));
                    }
                    memory.mirror_from(name, epoch, top, producers);
                }
            }
            self.knows_producers = true;
            self.is_mirrored = self.followed;
            for (_, entry) in ahead.split_off(&(top + 1)) {
                self.mirror(name, memory, node, &[entry]);
            }
        }
    }

    /// What was heard of a life that this node has begun says that it took effect, and readers may have been told of
    /// it, also where there was no answer.
    pub(super) fn take_up_begun(&mut self, name: &ChannelName, memory: &MemoryBackend, node: NodeId) {
        let is_heard = |begun: &Epoch| self.log.is_none() && self.stash_of.as_ref() == Some(begun);
        let Some(epoch) = self.begun.clone().filter(is_heard) else { return };
        self.opened(name, memory, node, &OpenLog::begun_as(epoch));
    }

    /// Entries of a log that is being opened.
    pub(super) fn hear(&mut self, epoch: &Epoch, entries: &[Entry]) {
        if !self.followed || self.log.is_some() {
            return;
        }
        if self.stash_of.as_ref() != Some(epoch) || self.stash.len() > STASH_MAX {
            self.stash.clear();
            self.stash_of = Some(epoch.clone());
        }
        self.stash.extend(entries.iter().map(|entry| (entry.offset, entry.clone())));
    }

    /// What was heard of a life before it was taken up.
    fn take_heard(&mut self, epoch: &Epoch) -> BTreeMap<u64, Entry> {
        let heard = std::mem::take(&mut self.stash);
        if self.stash_of.take().as_ref() == Some(epoch) { heard } else { BTreeMap::new() }
    }

    /// The entry at an offset of the log, where it is kept here, or is the newest that was seen.
    pub(super) fn seen_at(&self, name: &ChannelName, memory: &MemoryBackend, offset: u64) -> Option<Anchor> {
        let kept = memory.last_ids(name, offset, 1).pop().map(|id| Anchor { offset, id });
        kept.or(self.anchor.filter(|anchor| anchor.offset == offset))
    }

    /// Whether the log has other entries than were seen at the same offsets; that is noted.
    pub(super) fn contradicts(
        &mut self,
        name: &ChannelName,
        memory: &MemoryBackend,
        entries: &[Entry],
    ) -> bool {
        let Some(log) = &self.log else { return false };
        let is_other = |seen: &Entry, anchor: Anchor| seen.offset == anchor.offset && seen.id != anchor.id;
        let differs = memory.contradicts(name, log, entries)
            || self.anchor.is_some_and(|anchor| entries.iter().any(|seen| is_other(seen, anchor)));
        self.is_contradicted |= differs;
        differs
    }

    /// The offset after which entries of the log are missing here that others follow.
    pub(super) fn hole(&self, name: &ChannelName, memory: &MemoryBackend) -> Option<u64> {
        if !self.is_mirrored || self.fork.is_some() {
            return None;
        }
        memory.top(name).filter(|top| *top < self.highest)
    }

    /// A page of the log, whose oldest entry is `first`: where that leaves a hole after what is kept,
    /// nobody can fill it any more.
    pub(super) fn mirror_page(
        &mut self,
        name: &ChannelName,
        memory: &MemoryBackend,
        node: NodeId,
        first: u64,
        entries: &[Entry],
    ) {
        if let (Some(log), Some(mirrored)) = (&self.log, memory.mirrored(name))
            && self.is_mirrored
            && first > mirrored.top + 1
        {
            let producers = memory.producers(name);
            memory.mirror_from(name, log, first - 1, &producers);
            self.stash = self.stash.split_off(&first);
        }
        self.mirror(name, memory, node, entries);
    }

    /// What is known of the log now.
    pub(super) fn known(&self) -> Known {
        Known { log: self.log.clone(), highest: self.highest, acked: self.acked, anchor: self.anchor }
    }

    /// Whether the log, as it was found in the epoch that was known, has lost something of what was known
    /// of it before it was asked.
    pub(super) fn is_set_back(&self, found: &OpenLog, known: &Known) -> bool {
        if self.is_contradicted || found.top < known.highest {
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

    /// The log was emptied on purpose: nothing is known of its new life yet.
    pub(super) fn begin_anew(&mut self) {
        (self.log, self.acked, self.highest) = (None, 0, 0);
        self.anchor = None;
        (self.is_mirrored, self.is_contradicted) = (false, false);
        (self.unborn, self.placed_here) = (false, false);
        self.keep_nothing();
        self.stash.clear();
    }

    /// The channel is not followed any more.
    pub(super) fn unfollowed(&mut self) {
        (self.followed, self.confirmed, self.is_mirrored, self.unborn) = (false, false, false, false);
        self.stash.clear();
    }

    /// Entries of the log's life that this node is in step with, ascending without holes.
    pub(super) fn mirror(
        &mut self,
        name: &ChannelName,
        memory: &MemoryBackend,
        node: NodeId,
        entries: &[Entry],
    ) {
        let (Some(log), Some(first), Some(last)) = (&self.log, entries.first(), entries.last()) else {
            return;
        };
        self.highest = self.highest.max(last.offset);
        let known = entries.iter().rev().find(|entry| entry.id.is_known());
        known.into_iter().for_each(|entry| keep_newest(&mut self.anchor, entry.into()));
        // The answer to an own append may be lost: a fork knows these as its own all the same, and
        // has them neither journaled nor acknowledged.
        for own in entries.iter().filter(|entry| entry.id.producer == node) {
            let seq = own.id.seq;
            if !self.tail.has(seq) {
                let prev = seq.saturating_sub(1);
                self.tail.keep(Append { seq, prev, draft: own.draft.clone(), fence: None });
            }
            // A log that has less of this node came back older, whatever others put in their place.
            self.acked = self.acked.max(seq);
        }
        let Some(mirrored) = memory.mirrored(name) else {
            // It was let go with all else that had not been used for long.
            self.knows_producers = false;
            memory.mirror_from(name, log, first.offset - 1, &[(node, self.acked)]);
            memory.mirror(name, log, entries);
            return;
        };
        if first.offset > mirrored.top + 1 && !self.is_mirrored {
            // Nobody on this node reads what is missing.
            self.knows_producers = false;
            memory.mirror_from(name, log, first.offset - 1, &[(node, self.acked)]);
        }
        let mut top = memory.mirror(name, log, entries);
        if !self.is_mirrored {
            return;
        }
        self.stash.extend(
            entries.iter().filter(|entry| entry.offset > top).map(|entry| (entry.offset, entry.clone())),
        );
        while let Some((offset, _)) = self.stash.first_key_value()
            && *offset <= top + 1
            && let Some((_, waiting)) = self.stash.pop_first()
        {
            top = memory.mirror(name, log, &[waiting]);
        }
        if self.stash.len() > STASH_MAX {
            // They are read from the log, and come here then.
            self.stash.clear();
        }
    }

    /// The log answered an append of this node, whose own entries or others these are.
    pub(super) fn acknowledged(
        &mut self,
        name: &ChannelName,
        memory: &MemoryBackend,
        node: NodeId,
        batch: &AppendBatch,
        results: &[Appended],
    ) {
        let mut applied = Vec::new();
        for (append, result) in batch.entries.iter().zip(results) {
            match *result {
                Appended::Applied { offset } => {
                    applied.push(append.at(batch.producer, offset));
                    if let Some(fence) = append.fence {
                        memory.note_fence(name, fence);
                    }
                }
                Appended::Duplicate => {}
                Appended::Gap { .. } | Appended::Refused(_) => break,
            }
            if batch.producer != node {
                self.given.keep(batch.producer, append.clone());
                continue;
            }
            self.tail.keep(append.clone());
            self.acked = self.acked.max(append.seq);
            self.newest = self.newest.max(append.seq);
        }
        self.mirror(name, memory, node, &applied);
    }

    // Forks

    /// Goes on without the log: first with own entries that it acknowledged and that nobody here has
    /// seen. `next` is the sequence of the entry that is to follow, where that is known.
    pub(super) fn fork(
        &mut self,
        name: &ChannelName,
        memory: &MemoryBackend,
        node: NodeId,
        next: Option<u64>,
        rejoin_at: Instant,
    ) {
        if self.fork.is_some() {
            return;
        }
        let mirrored = memory.mirrored(name);
        let unborn = self.is_unborn();
        let top = match (mirrored, &self.log) {
            // What is kept is of a life that is over.
            (Some(_), None) if unborn => {
                memory.mirror_from(name, &new_epoch(), 0, &[]);
                0
            }
            (Some(mirrored), None) => mirrored.top,
            (Some(mirrored), Some(_)) if self.is_mirrored || mirrored.top >= self.highest => mirrored.top,
            // What is acknowledged beyond the mirror would be taken for had by readers at its end.
            (Some(_), Some(log)) => {
                self.knows_producers = false;
                memory.mirror_from(name, log, self.highest, &[(node, self.acked)]);
                self.highest
            }
            // It is mirrored from the first own entry on.
            (None, None) => {
                self.knows_producers = false;
                self.highest
            }
            (None, Some(log)) => {
                self.knows_producers = false;
                memory.mirror_from(name, log, self.highest, &[(node, self.acked)]);
                self.highest
            }
        };
        let unseen_after = self.seen(name, memory, node);
        let unseen = self.tail.after(unseen_after);
        // What is given out next need not follow on what was seen; nothing lies between.
        let seq = match next {
            Some(next) if unseen.is_empty() => unseen_after.max(next.saturating_sub(1)),
            _ => unseen_after,
        };
        let life = Fork { log: self.log.clone(), unborn, base: top, node, seq, from: top };
        let leg = Leg::new(life);
        memory.rename(name, &leg.epoch);
        let is_unsure = self.log.is_some() && !self.is_mirrored && self.sent > self.acked;
        self.fork = Some(Forked { leg, before: Vec::new(), top, is_unsure, rejoin_at });
        self.stash.clear();
        for append in unseen {
            #[cfg(test)]
            if mutant::is(Mutant::ForkWithoutInFlight) {
                continue;
            }
            self.append_here(name, memory, node, append);
        }
        self.newest = self.newest.max(memory.last_seq(name, node));
        // What this node appended goes on behind it, whether or not all of it was seen here.
        memory.note_seq(name, node, self.newest);
    }

    /// The newest own sequence that readers here have had.
    fn seen(&self, name: &ChannelName, memory: &MemoryBackend, node: NodeId) -> u64 {
        let seen = memory.last_seq(name, node);
        // Where nobody here follows the log, nothing of it has been seen, and nothing is waited for.
        if self.is_mirrored { seen } else { seen.max(self.acked) }
    }

    /// Appends an own entry to the fork; it must have been judged to fit.
    pub(super) fn append_here(
        &mut self,
        name: &ChannelName,
        memory: &MemoryBackend,
        node: NodeId,
        append: Append,
    ) {
        self.step_to(name, memory, append.seq);
        let Some(fork) = &mut self.fork else { return };
        let (prev, seq) = (memory.last_seq(name, node), append.seq);
        let batch = AppendBatch {
            channel: name.clone(),
            epoch: fork.leg.epoch.clone(),
            producer: node,
            entries: vec![Append { prev, ..append }],
        };
        if let AppendAnswer::Done(results) = memory.append_now(&batch)
            && let Some(Appended::Applied { offset }) = results.first()
        {
            fork.top = *offset;
            self.newest = self.newest.max(seq);
        }
    }

    /// Makes the fork ready for an own entry with this sequence: where there is a hole before it, the
    /// fork goes on as another leg. Says whether it does.
    pub(super) fn step_to(&mut self, name: &ChannelName, memory: &MemoryBackend, seq: u64) -> bool {
        let Some(fork) = self.fork.as_mut().filter(|fork| !fork.follows(seq)) else { return false };
        let life = Fork { seq: seq.saturating_sub(1), from: fork.top, ..fork.leg.life.clone() };
        let ended = std::mem::replace(&mut fork.leg, Leg::new(life));
        memory.rename(name, &fork.leg.epoch);
        fork.before.push((ended, fork.top));
        // Nobody can go on in one of which nothing is kept. The first one tells where the fork began.
        let first = memory.first(name).unwrap_or(0);
        let is_gone = |(_, end): &&(Leg, u64)| *end + 1 < first;
        let gone = fork.before.iter().skip(1).take_while(is_gone).count();
        let gone = gone.max(fork.before.len().saturating_sub(LEGS_MAX));
        fork.before.drain(1..=gone);
        true
    }

    /// Begins the mirror anew, if memory let it go because nothing came for long.
    pub(super) fn keep_mirror(&mut self, name: &ChannelName, memory: &MemoryBackend, node: NodeId) {
        if !self.is_blank() {
            self.make_mirror(name, memory, node);
        }
    }

    /// The same where something is about to be appended to it.
    pub(super) fn make_mirror(&mut self, name: &ChannelName, memory: &MemoryBackend, node: NodeId) {
        let Some(epoch) = self.epoch().filter(|_| memory.mirrored(name).is_none()) else { return };
        let top = self.fork.as_ref().map_or(self.highest, |fork| fork.top);
        memory.mirror_from(name, epoch, top, &[(node, self.newest)]);
        self.knows_producers = false;
    }

    /// The log has everything of this node, and is this now: the fork, if there was one, has ended.
    pub(super) fn rejoin(&mut self, name: &ChannelName, memory: &MemoryBackend, node: NodeId, to: Rejoined) {
        let Rejoined { epoch, base, top, acked, producers, anchor, read, kept, whole, skips } = to;
        let end = memory.mirrored(name).map_or(0, |mirrored| mirrored.top);
        let mut others = Had::default();
        let seen = memory.recent_producers(name).into_iter();
        seen.filter(|(producer, _)| *producer != node).for_each(|(producer, seq)| others.add(producer, seq));
        let is_same = self.log.as_ref() == Some(&epoch);
        let fork = self.fork.take();
        let base_of_fork = fork.as_ref().map(Forked::base);
        let mut lives = Vec::new();
        if let Some(log) = self.log.clone().filter(|_| !is_same) {
            let (end, own) = match &fork {
                Some(fork) => {
                    let first = fork.before.first().map_or(&fork.leg, |(leg, _)| leg);
                    (fork.base(), first.life.own_at(fork.base()))
                }
                None => (end, self.seen(name, memory, node)),
            };
            let last = memory.last_ids(name, end, BEHIND_MAX);
            lives.push(Ended { epoch: log, end, own, fork: None, last });
        }
        if let Some(Forked { leg, before, .. }) = fork {
            lives.extend(before.into_iter().map(|(leg, end)| Ended::leg(leg.life.own_at(end), leg, end)));
            lives.push(Ended::leg(self.newest, leg, end));
        }
        if let (true, Some(base)) = (is_same, base_of_fork) {
            memory.rewind(name, &epoch, base);
            // What a reader of the fork had after its base is its own alone.
            others = Had::default();
        } else if !is_same {
            memory.mirror_from(name, &epoch, base, &producers);
        }
        if !lives.is_empty() {
            let to = Position { epoch: epoch.clone(), offset: base };
            if !is_same && self.log.is_some() && !self.knows_producers {
                // What was had of others cannot be said: they may come again, and that is told.
                others.doubt();
            }
            // What was there before is for all who do not know better where to go on.
            let to = if skips { Position { offset: 0, ..to } } else { to };
            let seam = Seam { to, had: Had::default(), late_to: top, whole, skips };
            self.past.push_back(Past { lives, others, node, seam });
            if self.past.len() > PAST_MAX {
                self.past.pop_front();
            }
        }
        (self.suspect, self.closing, self.lost_some) = (false, false, false);
        let mut ahead = BTreeMap::new();
        if is_same {
            // Appends may have gone on while it was looked at.
            (self.acked, self.newest) = (self.acked.max(acked), self.newest.max(acked));
            self.highest = self.highest.max(top);
        } else {
            ahead = self.take_heard(&epoch);
            (self.log, self.acked, self.highest) = (Some(epoch), acked, top);
            (self.unborn, self.placed_here) = (false, false);
            // What the log before had of this node, and nobody here has seen, is not in this one: an append that
            // was not answered yet is none that was applied.
            (self.newest, self.sent) = (acked, acked);
            (self.knows_producers, self.is_contradicted) = (true, false);
            self.anchor = anchor;
        }
        self.is_mirrored = self.followed;
        kept.into_iter().for_each(|append| self.tail.keep(append));
        let first = read.first().map_or(0, |first| first.offset);
        for page in read.chunks(1_000) {
            self.mirror_page(name, memory, node, first, page);
        }
        for (_, entry) in ahead.split_off(&(top + 1)) {
            self.mirror(name, memory, node, &[entry]);
        }
        if let (false, Some(log)) = (self.is_mirrored, &self.log) {
            // Nobody here reads it: it is gone on with from where it is now.
            self.knows_producers = false;
            memory.mirror_from(name, log, self.highest, &[(node, self.acked)]);
        }
    }

    // Readers

    /// Where a reader goes on that has had everything up to a position of a life that has ended.
    pub(super) fn seam_after(&self, after: &Position) -> Option<Seam> {
        self.seam_from_past(after).or_else(|| self.seam_from_name(after))
    }

    fn seam_from_past(&self, after: &Position) -> Option<Seam> {
        // What a reader had besides is in the name that it was told.
        let (plain, mut besides, in_fork) = match Life::of(&after.epoch) {
            Some(Life::Fork(fork, had)) => (fork.epoch(), had, true),
            Some(Life::View(log, had)) => (log, had, false),
            None => (after.epoch.clone(), Had::default(), false),
        };
        if self.log.as_ref() == Some(&plain) {
            return None;
        }
        for past in self.past.iter().rev() {
            let Some(ended) = past.lives.iter().find(|ended| ended.epoch == plain) else { continue };
            // What a reader had of each producer is not known anywhere.
            let had = past.had_at(ended, after.offset)?;
            let back = besides.take_back();
            let seam = Seam { had, ..past.seam.clone() };
            let mut seam = match in_fork {
                true => seam.with_back(&plain, back),
                false => seam.of_another_log(back, after.offset),
            };
            seam.had.merge(&besides);
            return Some(seam);
        }
        None
    }

    /// The position's own name says what was had.
    fn seam_from_name(&self, after: &Position) -> Option<Seam> {
        Life::of(&after.epoch)?;
        let mut had = had_at(after);
        // Of any log whatever, no gateway says that something was had.
        let back = had.take_back().filter(|back| back.log.is_some() || back.to == 0)?;
        let is_any = back.log.is_none();
        // Whatever life came of a log that had none, nothing of it was had but what the name says.
        let epoch = back.log.clone().or_else(|| self.log.clone()).or_else(|| self.unborn_fork().cloned())?;
        let seam = Seam::beginning(epoch).with_back(&after.epoch, Some(back));
        let seam = Seam {
            had: {
                had.merge(&seam.had);
                had
            },
            ..seam
        };
        // A node that is behind that position cannot say what follows it.
        let is_known = self.log.as_ref() == Some(&seam.to.epoch) && seam.to.offset <= self.highest;
        (is_any || is_known).then_some(seam)
    }

    /// The first life of a fork of a log that had none.
    fn unborn_fork(&self) -> Option<&Epoch> {
        let fork = self.fork.as_ref().filter(|fork| fork.leg.life.unborn)?;
        Some(fork.before.first().map_or(&fork.leg, |(leg, _)| leg)).map(|leg| &leg.epoch)
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

/// An entry was seen: it is the anchor, unless a newer one is.
fn keep_newest(held: &mut Option<Anchor>, seen: Anchor) {
    if held.is_none_or(|newest| newest.offset <= seen.offset) {
        *held = Some(seen);
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
    /// Nothing that readers have had is missing in it.
    pub(super) whole: bool,
    /// There was something before the base that readers have not had.
    pub(super) skips: bool,
}

#[cfg(test)]
mod tests;
