//! Holds accepted entries until the log has them.
//!
//! Pure: no I/O, and callers pass the time. One journal serves one producer. A full journal refuses new
//! entries instead of dropping accepted ones, except obsolete ones. Besides entries that the log refuses,
//! only three kinds leave before the log has them, and the journal counts each: entries on lane `latest` that
//! a newer one of their key made obsolete (if room is needed), entries other than updates of orders that are
//! too old, and updates of an order beyond the number that the log keeps. The entry after one that leaves
//! takes over its `prev`, so that the producer's chain stays unbroken.
//!
//! Nothing is scanned: an entry costs time logarithmic in the number of entries, whether or not there is
//! room.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::model::{ChannelName, ChannelPolicy, Lane, WaitLimit};
use crate::storage::{Append, EPOCH_KEPT_FOR, JournalConfig, OrderRetention};
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// What an entry takes besides its content, for its places in the indexes; an upper bound.
const OVERHEAD: usize = 256;

/// The bounds of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) struct JournalBounds {
    /// Bytes of all entries, by [`cost`].
    pub bytes: usize,
    /// Entries of all channels.
    pub entries: usize,
    /// [`Journal::expire`] drops entries older than this from channels that are bounded by age; zero: from
    /// none.
    pub age: Duration,
    /// The most entries of each channel that is bounded by count, as orders are; at least 1.
    pub order_updates: usize,
}

impl JournalBounds {
    /// The bounds that are configured.
    pub(in crate::storage) fn of(journal: &JournalConfig, orders: &OrderRetention) -> Self {
        Self {
            bytes: journal.bytes,
            entries: journal.entries,
            age: Duration::from_secs(journal.age_s),
            order_updates: orders.updates,
        }
    }
}

/// The size of an entry in [`JournalBounds::bytes`].
pub(in crate::storage) fn cost(append: &Append) -> usize {
    append.draft.cost() + OVERHEAD
}

/// An entry that the log does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Pending {
    /// The entry as it has to be sent. Its `prev` may be smaller than when it was pushed. It is marked if
    /// entries before it were dropped and no newer entry replaces them.
    pub append: Append,
    /// When it was pushed.
    pub at: Instant,
}

/// There is no room, even without obsolete entries. Nothing was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal of entries that wait for the storage is full")]
pub(in crate::storage) struct JournalFull;

/// Room that [`Journal::reserve`] reserved. Pass it to [`Journal::commit`] or [`Journal::release`], exactly
/// once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "room that is neither used nor released stays reserved"]
pub(in crate::storage) struct Reserved {
    bytes: usize,
    entries: usize,
    /// The channel in which waiting entries will be replaced to make room.
    replaces_in: Option<ChannelName>,
}

/// An entry that the journal dropped before the log had it. Copies elsewhere are obsolete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Gone {
    /// Its channel.
    pub channel: ChannelName,
    /// Its sequence.
    pub seq: u64,
}

/// The fill level of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::storage) struct JournalDepth {
    /// Entries.
    pub entries: usize,
    /// Their size in bytes.
    pub bytes: usize,
    /// When the oldest entry was pushed.
    pub oldest: Option<Instant>,
}

/// Entries that the log will not get. These counts only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::storage) struct JournalCounts {
    /// Entries on lane `latest` that were dropped for want of room, after a newer one of the same key.
    pub thinned: u64,
    /// Entries that were refused for want of room, and so never accepted.
    pub refused_full: u64,
    /// Entries that expired, in channels that are bounded by age.
    pub aged: u64,
    /// Updates of orders beyond the number that is kept of each.
    pub order_overflow: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub(in crate::storage) struct Journal {
    bounds: JournalBounds,
    lines: HashMap<ChannelName, Line>,
    /// The size of all lines.
    held: Size,
    /// The part of `held` that is obsolete.
    obsolete_size: Size,
    /// The room that reservations may add to the rest. `held - obsolete_size + reserved` is always within the
    /// bounds, so dropping obsolete entries brings `held` within them.
    reserved: Size,
    /// Obsolete entries of all channels, in order of pushing.
    obsolete: BTreeMap<u64, (ChannelName, u64)>,
    /// The time of the oldest entry of each channel that has entries and is bounded by age.
    aged_fronts: BTreeSet<(Instant, ChannelName)>,
    /// The same for channels that are bounded by count; their entries do not expire.
    counted_fronts: BTreeSet<(Instant, ChannelName)>,
    /// Lines without entries that still have a legacy, by the time when it began.
    emptied: BTreeSet<(Instant, ChannelName)>,
    pushed: u64,
    counts: JournalCounts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    bytes: usize,
    entries: usize,
}

impl Size {
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.entries += 1;
    }

    fn remove(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.entries -= 1;
    }
}

/// The entries of a channel.
#[derive(Debug, Default)]
struct Line {
    entries: BTreeMap<u64, Held>,
    /// The newest entry of each key, for the lane `latest`.
    latest: HashMap<Arc<str>, Newest>,
    /// What dropped entries without a successor pass on to the next entry.
    legacy: Option<Legacy>,
    /// A reservation counts on replacing entries of this line, so no second one may.
    is_promised: bool,
    /// The log has the entries up to this sequence, even if they are still here.
    in_log: u64,
}

#[derive(Debug)]
struct Held {
    pending: Pending,
    cost: usize,
    /// Its place in the order of all pushed entries.
    place: u64,
    is_obsolete: bool,
    /// The sequence of the newest entry before it that was dropped without a newer entry replacing it; 0 if
    /// there is none.
    missed_to: u64,
    /// It was already marked when it was pushed: entries before it are missing.
    came_marked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    seq: u64,
    time: DateTime<Utc>,
    cost: usize,
}

#[derive(Debug, Clone, Copy)]
struct Legacy {
    prev: u64,
    /// See [`Held::missed_to`].
    missed_to: u64,
    since: Instant,
}

/// Why an entry leaves its line before the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    Replaced,
    Missed,
}

impl Journal {
    /// An empty journal.
    pub(in crate::storage) fn new(bounds: JournalBounds) -> Self {
        Self {
            bounds,
            lines: HashMap::new(),
            held: Size::default(),
            obsolete_size: Size::default(),
            reserved: Size::default(),
            obsolete: BTreeMap::new(),
            aged_fronts: BTreeSet::new(),
            counted_fronts: BTreeSet::new(),
            emptied: BTreeSet::new(),
            pushed: 0,
            counts: JournalCounts::default(),
        }
    }

    /// Reserves room for entries that have to become durable first: for all of them or none. Drops nothing
    /// yet, but counts on dropping obsolete entries, and entries that the new ones replace (for each channel,
    /// only one reservation at a time counts on that).
    ///
    /// # Errors
    /// There is no room; this is counted.
    pub(in crate::storage) fn reserve(
        &mut self,
        channel: &ChannelName,
        lane: Lane,
        appends: &[Append],
    ) -> Result<Reserved, JournalFull> {
        let needed = Size { bytes: appends.iter().map(cost).sum(), entries: appends.len() };
        let mut room = Reserved { bytes: needed.bytes, entries: needed.entries, replaces_in: None };
        if !self.has_room(&room) {
            let replaced = self.replaced_by(channel, lane, appends);
            room.bytes = needed.bytes.saturating_sub(replaced.bytes);
            room.entries = needed.entries.saturating_sub(replaced.entries);
            if !self.has_room(&room) {
                self.counts.refused_full += appends.len() as u64;
                return Err(JournalFull);
            }
            if let Some(line) = self.lines.get_mut(channel) {
                line.is_promised = true;
                room.replaces_in = Some(channel.clone());
            }
        }
        self.reserved.bytes += room.bytes;
        self.reserved.entries += room.entries;
        Ok(room)
    }

    /// Returns room that is not needed after all.
    pub(in crate::storage) fn release(&mut self, room: Reserved) {
        self.reserved.bytes -= room.bytes;
        self.reserved.entries -= room.entries;
        if let Some(channel) = room.replaces_in
            && let Some(line) = self.lines.get_mut(&channel)
        {
            line.is_promised = false;
            self.forget_if_done(&channel);
        }
    }

    /// Adds the entries for which room was reserved with the same arguments. Their `seq` ascends, also
    /// relative to the channel's entries. Returns what was dropped: obsolete entries, and those beyond the
    /// channel's bound.
    pub(in crate::storage) fn commit(
        &mut self,
        room: Reserved,
        channel: &ChannelName,
        lane: Lane,
        appends: &[Append],
        now: Instant,
    ) -> Vec<Gone> {
        self.release(room);
        for append in appends {
            self.push_one(channel, lane, append.clone(), now);
        }
        let mut gone = Vec::new();
        self.trim(channel, &mut gone);
        self.thin(&mut gone);
        gone
    }

    /// [`reserve`](Self::reserve) and [`commit`](Self::commit) in one step.
    ///
    /// # Errors
    /// There is no room; nothing is added or dropped.
    #[cfg(test)]
    pub(in crate::storage) fn push(
        &mut self,
        channel: &ChannelName,
        lane: Lane,
        appends: &[Append],
        now: Instant,
    ) -> Result<Vec<Gone>, JournalFull> {
        let room = self.reserve(channel, lane, appends)?;
        Ok(self.commit(room, channel, lane, appends, now))
    }

    /// The oldest entries of a channel after this sequence as they have to be sent; at most `limit`.
    pub(in crate::storage) fn after(&self, channel: &ChannelName, seq: u64, limit: usize) -> Vec<Append> {
        let Some(line) = self.lines.get(channel) else { return Vec::new() };
        let later = line.entries.range((Bound::Excluded(seq), Bound::Unbounded));
        later.take(limit).map(|(_, held)| held.pending.append.clone()).collect()
    }

    /// Notes that the log has a channel's entries up to this sequence, so those that were dropped here are
    /// not missing.
    pub(in crate::storage) fn are_in_log(&mut self, channel: &ChannelName, seq: u64) {
        let Some(line) = self.lines.get_mut(channel) else { return };
        line.in_log = seq;
        // Entries that are still here were marked when they were sent, and after the next entry nothing older
        // is missing.
        let next = line.entries.range_mut((Bound::Excluded(seq), Bound::Unbounded)).next();
        if let Some((_, held)) = next.filter(|(_, held)| held.missed_to > 0 && held.missed_to <= seq) {
            held.missed_to = 0;
            held.pending.append.draft.marks.missed_before = held.came_marked;
        }
        if let Some(legacy) = line.legacy.as_mut().filter(|legacy| legacy.missed_to <= seq) {
            legacy.missed_to = 0;
        }
    }

    /// The newest entries of a channel in ascending order; at most `limit`.
    pub(in crate::storage) fn newest(&self, channel: &ChannelName, limit: usize) -> Vec<Append> {
        let Some(line) = self.lines.get(channel) else { return Vec::new() };
        let newest = line.entries.values().rev().take(limit);
        let mut newest: Vec<Append> = newest.map(|held| held.pending.append.clone()).collect();
        newest.reverse();
        newest
    }

    /// All entries of a channel, oldest first.
    #[cfg(test)]
    pub(in crate::storage) fn pending(&self, channel: &ChannelName) -> impl Iterator<Item = &Pending> {
        let entries = self.lines.get(channel).map(|line| line.entries.values());
        entries.into_iter().flatten().map(|held| &held.pending)
    }

    /// Removes this producer's entries up to and including `seq`, because the log has them. Returns how many.
    pub(in crate::storage) fn acknowledged(&mut self, channel: &ChannelName, seq: u64) -> usize {
        let mut count = 0;
        while let Some(first) = self.first_seq(channel)
            && first <= seq
        {
            self.take(channel, first);
            count += 1;
        }
        if let Some(line) = self.lines.get_mut(channel)
            && let Some(legacy) = &mut line.legacy
        {
            legacy.prev = legacy.prev.max(seq);
        }
        self.forget_if_done(channel);
        count
    }

    /// Removes an entry that the log will never accept. The next entry takes over its `prev`, and its mark
    /// for entries missing before it; whether the refused entry itself is missing is the caller's decision.
    pub(in crate::storage) fn refused(
        &mut self,
        channel: &ChannelName,
        seq: u64,
        now: Instant,
    ) -> Option<Pending> {
        self.let_go(channel, seq, Going::Replaced, now)
    }

    /// Drops entries that are older than the bound, and returns them. Forgets lines without entries once no
    /// log remembers the producer.
    pub(in crate::storage) fn expire(&mut self, now: Instant) -> Vec<Gone> {
        let mut gone = Vec::new();
        let age = self.bounds.age;
        while !age.is_zero()
            && let Some((at, channel)) = self.aged_fronts.first()
            && now.duration_since(*at) >= age
        {
            let channel = channel.clone();
            let Some(seq) = self.first_seq(&channel) else { break };
            self.let_go(&channel, seq, Going::Missed, now);
            self.counts.aged += 1;
            gone.push(Gone { channel, seq });
        }
        while let Some((since, channel)) = self.emptied.first()
            && now.duration_since(*since) >= age.saturating_add(EPOCH_KEPT_FOR)
        {
            let channel = channel.clone();
            self.set_legacy(&channel, None);
            self.forget_if_done(&channel);
        }
        gone
    }

    /// The channels that have entries.
    #[cfg(test)]
    pub(in crate::storage) fn channels(&self) -> impl Iterator<Item = &ChannelName> {
        self.lines.iter().filter(|(_, line)| !line.entries.is_empty()).map(|(channel, _)| channel)
    }

    /// Whether the log has everything of a channel.
    pub(in crate::storage) fn is_empty(&self, channel: &ChannelName) -> bool {
        self.first_seq(channel).is_none()
    }

    /// The fill level.
    pub(in crate::storage) fn depth(&self) -> JournalDepth {
        let fronts = [self.aged_fronts.first(), self.counted_fronts.first()];
        let oldest = fronts.into_iter().flatten().map(|(at, _)| *at).min();
        JournalDepth { entries: self.held.entries, bytes: self.held.bytes, oldest }
    }

    /// The counts of entries that the log will not get.
    pub(in crate::storage) fn counts(&self) -> JournalCounts {
        self.counts
    }

    // Room

    fn has_room(&self, room: &Reserved) -> bool {
        let fits = |held: usize, obsolete: usize, reserved: usize, more: usize, bound: usize| {
            (held - obsolete).saturating_add(reserved).saturating_add(more) <= bound
        };
        let (held, obsolete, reserved) = (self.held, self.obsolete_size, self.reserved);
        fits(held.bytes, obsolete.bytes, reserved.bytes, room.bytes, self.bounds.bytes)
            && fits(held.entries, obsolete.entries, reserved.entries, room.entries, self.bounds.entries)
    }

    /// The size of what these entries make obsolete, or push beyond a channel's bound.
    fn replaced_by(&self, channel: &ChannelName, lane: Lane, appends: &[Append]) -> Size {
        let mut replaced = Size::default();
        let Some(line) = self.lines.get(channel).filter(|line| !line.is_promised) else { return replaced };
        match ChannelPolicy::of(channel).wait_limit {
            WaitLimit::Age if lane == Lane::Latest => {
                let mut newest: HashMap<&Arc<str>, Newest> = HashMap::new();
                for append in appends {
                    let Some(key) = &append.draft.key else { continue };
                    let new = Newest { seq: append.seq, time: append.draft.time, cost: cost(append) };
                    match newest.get(key).or_else(|| line.latest.get(key)) {
                        Some(held) if held.time > new.time => {}
                        held => {
                            if let Some(held) = held {
                                replaced.add(held.cost);
                            }
                            newest.insert(key, new);
                        }
                    }
                }
            }
            WaitLimit::Age => {}
            WaitLimit::Count => {
                let over = (line.entries.len() + appends.len()).saturating_sub(self.bounds.order_updates);
                line.entries.values().take(over).for_each(|held| replaced.add(held.cost));
            }
        }
        replaced
    }

    /// Drops the oldest entries beyond the bound of a channel that is bounded by count.
    fn trim(&mut self, channel: &ChannelName, gone: &mut Vec<Gone>) {
        if ChannelPolicy::of(channel).wait_limit != WaitLimit::Count {
            return;
        }
        while let Some(line) = self.lines.get(channel)
            && line.entries.len() > self.bounds.order_updates.max(1)
            && let Some((&seq, oldest)) = line.entries.first_key_value()
        {
            let at = oldest.pending.at;
            self.let_go(channel, seq, Going::Missed, at);
            self.counts.order_overflow += 1;
            gone.push(Gone { channel: channel.clone(), seq });
        }
    }

    /// Drops obsolete entries until the rest is within the bounds.
    fn thin(&mut self, gone: &mut Vec<Gone>) {
        while (self.held.bytes > self.bounds.bytes || self.held.entries > self.bounds.entries)
            && let Some((_, (channel, seq))) = self.obsolete.first_key_value()
        {
            let (channel, seq) = (channel.clone(), *seq);
            let Some(held) = self.lines.get(&channel).and_then(|line| line.entries.get(&seq)) else { break };
            let at = held.pending.at;
            self.let_go(&channel, seq, Going::Replaced, at);
            self.counts.thinned += 1;
            gone.push(Gone { channel, seq });
        }
    }

    // Entries

    fn first_seq(&self, channel: &ChannelName) -> Option<u64> {
        self.lines.get(channel)?.entries.first_key_value().map(|(seq, _)| *seq)
    }

    fn push_one(&mut self, channel: &ChannelName, lane: Lane, mut append: Append, now: Instant) {
        // The same sequence has the same place in the chain; the newer entry counts.
        self.take(channel, append.seq);
        let legacy = self.lines.get(channel).and_then(|line| line.legacy);
        self.set_legacy(channel, None);
        if let Some(legacy) = legacy {
            append.prev = append.prev.min(legacy.prev);
        }
        self.pushed += 1;
        let (place, seq, cost) = (self.pushed, append.seq, cost(&append));
        let line = self.lines.entry(channel.clone()).or_default();
        let mut replaced = None;
        if lane == Lane::Latest
            && ChannelPolicy::of(channel).wait_limit == WaitLimit::Age
            && let Some(key) = &append.draft.key
        {
            let newest = Newest { seq, time: append.draft.time, cost };
            match line.latest.get_mut(key) {
                // A late price: the held one is newer, so both stay.
                Some(held) if held.time > newest.time => {}
                Some(held) => replaced = Some(std::mem::replace(held, newest).seq),
                None => {
                    line.latest.insert(Arc::clone(key), newest);
                }
            }
        }
        if let Some(replaced) = replaced
            && let Some(held) = line.entries.get_mut(&replaced)
        {
            held.is_obsolete = true;
            self.obsolete.insert(held.place, (channel.clone(), replaced));
            self.obsolete_size.add(held.cost);
        }
        let came_marked = append.draft.marks.missed_before;
        let missed_to = legacy.map_or(0, |legacy| legacy.missed_to);
        append.draft.marks.missed_before |= missed_to > 0;
        let is_front = line.entries.is_empty();
        let pending = Pending { append, at: now };
        line.entries.insert(seq, Held { pending, cost, place, is_obsolete: false, missed_to, came_marked });
        self.held.add(cost);
        if is_front {
            self.fronts(channel).insert((now, channel.clone()));
        }
    }

    /// Removes an entry from its line and from all indexes.
    fn take(&mut self, channel: &ChannelName, seq: u64) -> Option<Pending> {
        let line = self.lines.get_mut(channel)?;
        let was_front = line.entries.first_key_value().is_some_and(|(first, _)| *first == seq);
        let held = line.entries.remove(&seq)?;
        let next_front = line.entries.first_key_value().map(|(_, next)| next.pending.at);
        if let Some(key) = &held.pending.append.draft.key
            && line.latest.get(key).is_some_and(|newest| newest.seq == seq)
        {
            line.latest.remove(key);
        }
        self.held.remove(held.cost);
        if held.is_obsolete {
            self.obsolete.remove(&held.place);
            self.obsolete_size.remove(held.cost);
        }
        if was_front {
            let fronts = self.fronts(channel);
            fronts.remove(&(held.pending.at, channel.clone()));
            if let Some(at) = next_front {
                fronts.insert((at, channel.clone()));
            }
        }
        Some(held.pending)
    }

    /// Removes an entry that the log does not have; the next one takes over its place in the chain.
    fn let_go(&mut self, channel: &ChannelName, seq: u64, going: Going, now: Instant) -> Option<Pending> {
        let held = self.lines.get(channel).and_then(|line| line.entries.get(&seq));
        let missed_to = held.map_or(0, |held| if held.came_marked { seq } else { held.missed_to });
        let is_in_log = self.lines.get(channel).is_some_and(|line| seq <= line.in_log);
        let missed_to = if going == Going::Missed && !is_in_log { seq } else { missed_to };
        let gone = self.take(channel, seq)?;
        #[cfg(test)]
        if mutant::is(Mutant::ThinnedWithoutPrev) {
            return Some(gone);
        }
        let line = self.lines.get_mut(channel)?;
        if let Some((_, heir)) = line.entries.range_mut(seq..).next() {
            heir.pending.append.prev = heir.pending.append.prev.min(gone.append.prev);
            heir.missed_to = heir.missed_to.max(missed_to);
            heir.pending.append.draft.marks.missed_before |= missed_to > 0;
        } else {
            let known = line.legacy.unwrap_or(Legacy { prev: gone.append.prev, missed_to, since: now });
            let legacy = Legacy {
                prev: known.prev.min(gone.append.prev),
                missed_to: known.missed_to.max(missed_to),
                since: known.since,
            };
            self.set_legacy(channel, Some(legacy));
        }
        Some(gone)
    }

    fn set_legacy(&mut self, channel: &ChannelName, legacy: Option<Legacy>) {
        let Some(line) = self.lines.get_mut(channel) else { return };
        if let Some(before) = std::mem::replace(&mut line.legacy, legacy) {
            self.emptied.remove(&(before.since, channel.clone()));
        }
        if let Some(after) = legacy {
            self.emptied.insert((after.since, channel.clone()));
        }
    }

    /// Forgets a line that has no entries and nothing to pass on.
    fn forget_if_done(&mut self, channel: &ChannelName) {
        let is_done = self
            .lines
            .get(channel)
            .is_some_and(|line| line.entries.is_empty() && line.legacy.is_none() && !line.is_promised);
        if is_done {
            self.lines.remove(channel);
        }
    }

    fn fronts(&mut self, channel: &ChannelName) -> &mut BTreeSet<(Instant, ChannelName)> {
        match ChannelPolicy::of(channel).wait_limit {
            WaitLimit::Age => &mut self.aged_fronts,
            WaitLimit::Count => &mut self.counted_fronts,
        }
    }
}
