//! The version vector of a reader: the entries it has been sent that a log may deliver again.

use chrono::Utc;

use crate::model::{EntryId, Epoch, NodeId};

/// What a reader has been sent that a log may deliver again. For most readers at most times that is nothing,
/// and then this takes no more than a pointer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionVector(Option<Box<Named>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Named {
    /// The runs of producers whose entries may come again: the producer of a fork, whose entries have other
    /// offsets in the log, and producers whose entries nodes put back into a log that had lost them.
    producers: Vec<(NodeId, Run)>,
    /// The return point: where the reader has to continue in a log that this node cannot read now, or that
    /// has not been read yet where the reader was.
    back: Option<ReturnPoint>,
    /// Until this hour it is not known what the reader was sent: any entry from before it may come again.
    doubt_since: Option<u64>,
    /// The reader's snapshot was incomplete: see [`VersionVector::of_part`].
    is_part: bool,
}

/// Which entries of a producer a reader has had: sequences greater than `after`, up to `newest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Sequences up to this one were not sent; 0 in most cases.
    pub after: u64,
    /// The newest sequence that was sent.
    pub newest: u64,
}

impl Run {
    fn is_empty(self) -> bool {
        self.newest <= self.after
    }
}

/// What a reader has had of a log, by offset: entries up to `to`, and entries after `after` up to `until`. It
/// is owed the entries between `to` and `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnPoint {
    /// The log; `None` for any log, of which the reader has had nothing.
    pub log: Option<Epoch>,
    /// The reader has had everything up to this offset, and continues after it.
    pub to: u64,
    /// The reader has also had entries after this offset,
    pub after: u64,
    /// up to this one.
    pub until: u64,
    /// The reader is elsewhere: in a fork, or after the entries it is owed. If false, it is reading those.
    pub is_away: bool,
}

impl ReturnPoint {
    /// The reader has had everything up to an offset of a log, and nothing after it.
    pub fn at(log: Epoch, offset: u64) -> Self {
        Self { log: Some(log), to: offset, after: offset, until: offset, is_away: true }
    }

    /// The reader has had nothing of whatever log there is.
    pub fn to_the_beginning() -> Self {
        Self { log: None, to: 0, after: 0, until: 0, is_away: true }
    }

    /// Whether this return point is in the given log.
    pub fn is_of(&self, log: &Epoch) -> bool {
        self.log.as_ref().is_none_or(|own| own == log)
    }

    /// The return point of a reader that leaves the log at this offset.
    fn away_from(self, offset: u64) -> Self {
        let back = match self.is_away {
            true => Self { until: self.until.max(offset), ..self },
            false => Self { to: self.to.max(offset), is_away: true, ..self },
        };
        back.joined()
    }

    /// Merges the two ranges if they touch.
    fn joined(mut self) -> Self {
        if self.after <= self.to {
            let end = self.to.max(self.until);
            (self.to, self.after, self.until) = (end, end, end);
        }
        self
    }
}

/// The current hour since 1970; constant in tests.
pub(super) fn hour_now() -> u64 {
    if cfg!(test) { 0 } else { u64::try_from(Utc::now().timestamp()).unwrap_or(0) / 3_600 }
}

impl VersionVector {
    /// Nothing is known: any entry may come again.
    pub fn unknown() -> Self {
        let mut had = Self::default();
        had.doubt();
        had
    }

    /// For a reader that begins with a snapshot and does not have all of it: it is still being sent, or part
    /// of it could not be read. No entries count as had.
    pub fn of_part() -> Self {
        let mut had = Self::default();
        had.set_part();
        had
    }

    /// Whether the reader's snapshot is incomplete.
    pub fn is_part(&self) -> bool {
        self.0.as_deref().is_some_and(|named| named.is_part)
    }

    /// Marks the reader's snapshot as incomplete.
    pub(super) fn set_part(&mut self) {
        self.change(|named| named.is_part = true);
    }

    /// Marks the reader's snapshot as complete.
    #[cfg(test)]
    pub(super) fn not_part(&mut self) {
        self.change(|named| named.is_part = false);
    }

    /// Whether entries that the log delivers may be older than some that the reader has had.
    pub fn is_out_of_order(&self) -> bool {
        !self.producers().is_empty() || self.back().is_some() || self.is_in_doubt()
    }

    /// Whether nothing can come again and nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Changes the content, and frees it if nothing is left.
    fn change<R>(&mut self, act: impl FnOnce(&mut Named) -> R) -> R {
        let mut named = self.0.take().unwrap_or_default();
        let result = act(&mut named);
        if *named != Named::default() {
            self.0 = Some(named);
        }
        result
    }

    fn producers(&self) -> &[(NodeId, Run)] {
        self.0.as_deref().map_or(&[], |named| &named.producers)
    }

    /// Whether everything that is missing will be sent as soon as it can be read.
    pub fn is_merely_owed(&self) -> bool {
        self.back().is_some() && self.is_whole()
    }

    /// Whether it is known what the reader has had, and its snapshot was complete.
    pub fn is_whole(&self) -> bool {
        !self.is_in_doubt() && !self.is_part()
    }

    /// Whether it is not known what the reader was sent at some time.
    pub fn is_in_doubt(&self) -> bool {
        self.doubt_since().is_some()
    }

    /// The hour (since 1970) before which it is not known what the reader was sent.
    pub fn doubt_since(&self) -> Option<u64> {
        self.0.as_deref()?.doubt_since
    }

    /// Sets that hour, or `None` if everything is known.
    pub fn set_doubt(&mut self, since: Option<u64>) {
        self.change(|named| named.doubt_since = since);
    }

    /// From now on it is not known what the reader was sent before; entries that are named are still skipped.
    pub fn doubt(&mut self) {
        self.set_doubt(Some(hour_now()));
    }

    /// Forgets which entries were had, and the return point. Doubt and an incomplete snapshot stay.
    pub fn name_nothing(&mut self) {
        self.change(|named| {
            let Named { doubt_since, is_part, .. } = *named;
            *named = Named { doubt_since, is_part, ..Named::default() };
        });
    }

    /// The producers in order of their ids, with the run of each.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Run)> {
        self.producers().iter().copied()
    }

    fn run_of(&self, producer: NodeId) -> Option<Run> {
        let producers = self.producers();
        let at = producers.binary_search_by_key(&producer, |(node, _)| *node).ok()?;
        Some(producers[at].1)
    }

    /// Whether entries of this producer that the reader has had may come again.
    pub fn names(&self, producer: NodeId) -> bool {
        self.run_of(producer).is_some_and(|run| !run.is_empty())
    }

    /// Forgets the runs of all other producers.
    pub fn keep_only(&mut self, producer: NodeId) {
        self.change(|named| named.producers.retain(|(node, _)| *node == producer));
    }

    /// The return point.
    pub fn back(&self) -> Option<&ReturnPoint> {
        self.0.as_deref()?.back.as_ref()
    }

    /// Sets the return point.
    pub fn set_back(&mut self, back: Option<ReturnPoint>) {
        self.change(|named| named.back = back.map(ReturnPoint::joined));
    }

    /// Removes the return point and returns it.
    pub fn take_back(&mut self) -> Option<ReturnPoint> {
        self.change(|named| named.back.take())
    }

    /// Whether some entry that comes next may have to be skipped.
    pub fn leaves_out(&self) -> bool {
        self.producers().iter().any(|(_, run)| !run.is_empty())
            || self.back().is_some_and(|back| !back.is_away)
    }

    /// The reader leaves the log at this offset, and will be elsewhere.
    pub fn leave(&mut self, offset: u64) {
        let Some(back) = self.take_back() else { return };
        let was_away = back.is_away;
        let back = back.away_from(offset);
        if !was_away && back.to >= back.after {
            self.change(Named::owe_nothing);
        }
        self.set_back(Some(back));
    }

    /// Forgets producers with empty runs, unless something is owed.
    pub fn name_no_more_than_was_had(&mut self) {
        self.change(Named::name_no_more_than_was_had);
    }

    /// The reader has had all entries of this producer up to `seq`, except those that its run excludes.
    pub fn add(&mut self, producer: NodeId, seq: u64) {
        if seq > 0 {
            self.change(|named| named.add_run(producer, Run { after: 0, newest: seq }));
        }
    }

    /// The reader has had no entries of this producer up to `seq`, except those in its run; what is added
    /// later comes after `seq`.
    pub fn lacks_up_to(&mut self, producer: NodeId, seq: u64) {
        match self.run_of(producer) {
            // Its run reaches `seq`, or begins there.
            Some(held) if held.after == seq || (held.after < seq && held.newest >= seq) => return,
            // The reader has had some entries up to `seq`.
            Some(_) => self.doubt(),
            None => {}
        }
        if seq > 0 {
            self.change(|named| named.add_run(producer, Run { after: seq, newest: seq }));
        }
    }

    /// Adds everything that `other` holds. If both have a return point, the one of `self` is kept.
    pub fn merge(&mut self, other: &Self) {
        let Some(other) = other.0.as_deref() else { return };
        self.change(|named| {
            other.producers.iter().for_each(|(producer, run)| named.add_run(*producer, *run));
            if named.back.is_none() {
                named.back.clone_from(&other.back);
            }
            named.doubt_since = named.doubt_since.max(other.doubt_since);
            named.is_part |= other.is_part;
        });
    }

    /// An entry arrives at an offset. Returns whether the reader has had it. A producer's entries come in
    /// order, so after the newest one of its run none of them comes again.
    pub fn came(&mut self, offset: u64, id: EntryId) -> bool {
        !self.is_empty() && self.change(|named| named.came(offset, id))
    }
}

impl Named {
    fn add_run(&mut self, producer: NodeId, run: Run) {
        match self.producers.binary_search_by_key(&producer, |(node, _)| *node) {
            Ok(at) => {
                let held = &mut self.producers[at].1;
                *held = Run { after: held.after.max(run.after), newest: held.newest.max(run.newest) };
            }
            Err(at) => self.producers.insert(at, (producer, run)),
        }
    }

    /// The reader has been sent everything it was owed, so no entry before the end of a run is missing any
    /// more.
    fn owe_nothing(&mut self) {
        self.name_no_more_than_was_had();
        self.producers.iter_mut().for_each(|(_, run)| run.after = 0);
    }

    fn name_no_more_than_was_had(&mut self) {
        if self.back.as_ref().is_none_or(|back| back.to >= back.after) {
            self.producers.retain(|(_, run)| !run.is_empty());
        }
    }

    fn came(&mut self, offset: u64, id: EntryId) -> bool {
        let back = self.back.as_ref().filter(|back| !back.is_away);
        let stood = |back: &ReturnPoint| (offset > back.after && offset <= back.until, offset >= back.until);
        let (is_had, is_over) = back.map_or((false, false), stood);
        let is_had = self.came_of(id) || is_had;
        if is_over {
            self.back = None;
            self.owe_nothing();
        }
        is_had
    }

    fn came_of(&mut self, id: EntryId) -> bool {
        let Ok(at) = self.producers.binary_search_by_key(&id.producer, |(node, _)| *node) else {
            return false;
        };
        let Run { after, newest } = self.producers[at].1;
        // While the reader is elsewhere, its runs have to be kept for when it goes back.
        let is_away = self.back.as_ref().is_some_and(|back| back.is_away);
        if !is_away && (id.seq > newest || (id.seq == newest && newest > after)) {
            self.producers.remove(at);
        }
        id.seq > after && id.seq <= newest
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn entries_are_skipped_until_each_has_come_again() {
        let [a, b] = [1, 2].map(|n| NodeId(Uuid::from_u128(n)));
        let mut had = VersionVector::default();
        had.add(b, 4);
        had.add(a, 2);
        had.add(b, 3);
        had.add(a, 0);
        let mut came = |producer, seq| had.came(1, EntryId { producer, seq });
        assert!(came(a, 1) && came(b, 3) && came(a, 2));
        assert!(!came(a, 3) && !came(b, 5), "what follows is new");
        assert!(had.is_empty());
    }

    #[test]
    fn entries_had_by_offset_are_skipped_and_owed_ones_before_them_are_not() {
        let node = NodeId(Uuid::from_u128(1));
        let mut had = VersionVector::default();
        had.lacks_up_to(node, 4);
        had.add(node, 9);
        had.set_back(Some(ReturnPoint {
            log: Some(Epoch::random()),
            to: 2,
            after: 4,
            until: 6,
            is_away: false,
        }));
        let mut came = |offset, seq| had.came(offset, EntryId { producer: node, seq });
        assert!(!came(3, 3) && !came(4, 4), "these are owed, whatever producer they are of");
        assert!(came(5, 5) && came(6, 6));
        assert!(came(7, 8) && came(8, 9) && !came(9, 10), "from there on sequences decide");
        assert!(had.is_empty());
    }

    #[test]
    fn ranges_that_touch_are_merged() {
        let log = Epoch::random();
        let mut had = VersionVector::default();
        had.set_back(Some(ReturnPoint { log: Some(log.clone()), to: 5, after: 3, until: 8, is_away: true }));
        assert_eq!(had.back(), Some(&ReturnPoint::at(log, 8)));
    }
}
