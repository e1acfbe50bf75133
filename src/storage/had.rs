//! What a reader has had that a log may bring again.

use chrono::Utc;

use crate::model::{EntryId, Epoch, NodeId};

/// What a reader has had that a log may bring again; nothing for most readers at most times, who keep no
/// more than that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Had(Option<Box<Named>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Named {
    /// Producers whose entries may come again: those of a fork, which the log has elsewhere, and those that
    /// nodes put back into a log that had lost them.
    producers: Vec<(NodeId, Run)>,
    /// Where it has to go on in a log that cannot be read here, or has not been read where it was had.
    back: Option<Back>,
    /// Since which hour it cannot be said what was had before: anything of that may come again.
    doubt_since: Option<u64>,
    /// Of what was latest when it began it does not have all: see [`Had::of_part`].
    is_part: bool,
}

/// Which entries of a producer were had: those with a greater sequence than `after`, up to `newest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Those up to here were not; 0 in most cases.
    pub after: u64,
    /// The newest one that was.
    pub newest: u64,
}

impl Run {
    fn is_empty(self) -> bool {
        self.newest <= self.after
    }
}

/// What a reader has had of a log by offset: everything up to `to`, and what is after `after` up to
/// `until`. What lies between is owed to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Back {
    /// The log; `None` for any, of which nothing was had.
    pub log: Option<Epoch>,
    /// Where it goes on.
    pub to: u64,
    /// What it has had besides: after this offset,
    pub after: u64,
    /// up to this one.
    pub until: u64,
    /// The reader is elsewhere: in a fork, or behind what it is owed. Else it is on its way through that.
    pub is_away: bool,
}

impl Back {
    /// Everything up to an offset of a log was had, and nothing after it.
    pub fn at(log: Epoch, offset: u64) -> Self {
        Self { log: Some(log), to: offset, after: offset, until: offset, is_away: true }
    }

    /// Nothing was had of whatever log there is.
    pub fn to_the_beginning() -> Self {
        Self { log: None, to: 0, after: 0, until: 0, is_away: true }
    }

    /// Whether it is about this log.
    pub fn is_of(&self, log: &Epoch) -> bool {
        self.log.as_ref().is_none_or(|own| own == log)
    }

    /// What a reader has had that stands at this offset of the log, for when it is elsewhere.
    fn away_from(self, offset: u64) -> Self {
        let back = match self.is_away {
            true => Self { until: self.until.max(offset), ..self },
            false => Self { to: self.to.max(offset), is_away: true, ..self },
        };
        back.joined()
    }

    /// Where the two parts meet, they are one.
    fn joined(mut self) -> Self {
        if self.after <= self.to {
            let end = self.to.max(self.until);
            (self.to, self.after, self.until) = (end, end, end);
        }
        self
    }
}

/// This hour, since 1970; in tests always the same.
pub(super) fn hour_now() -> u64 {
    if cfg!(test) { 0 } else { u64::try_from(Utc::now().timestamp()).unwrap_or(0) / 3_600 }
}

impl Had {
    /// Anything may come again.
    pub fn unknown() -> Self {
        let mut had = Self::default();
        had.doubt();
        had
    }

    /// Of a reader that begins with the latest entry of each key, and does not have all of them: either they
    /// are being sent, or some could not be reached. Nothing that it has had counts.
    pub fn of_part() -> Self {
        let mut had = Self::default();
        had.set_part();
        had
    }

    /// Whether that is so.
    pub fn is_part(&self) -> bool {
        self.0.as_deref().is_some_and(|named| named.is_part)
    }

    /// It is, from here on.
    pub(super) fn set_part(&mut self) {
        self.change(|named| named.is_part = true);
    }

    /// It is not, as far as a test is concerned.
    #[cfg(test)]
    pub(super) fn not_part(&mut self) {
        self.change(|named| named.is_part = false);
    }

    /// Something was had that the log has elsewhere, or may have: what is read of it may be older.
    pub fn is_out_of_order(&self) -> bool {
        !self.producers().is_empty() || self.back().is_some() || self.is_in_doubt()
    }

    /// Nothing can come again, and nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Changes what is named, and keeps nothing where that is nothing.
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

    /// Whether all that is missing comes by itself when it can be reached.
    pub fn is_merely_owed(&self) -> bool {
        self.back().is_some() && self.is_whole()
    }

    /// Whether it can be said that nothing is missing where nothing is.
    pub fn is_whole(&self) -> bool {
        !self.is_in_doubt() && !self.is_part()
    }

    /// Whether it cannot be said what was had.
    pub fn is_in_doubt(&self) -> bool {
        self.doubt_since().is_some()
    }

    /// Since when it cannot, in hours since 1970.
    pub fn doubt_since(&self) -> Option<u64> {
        self.0.as_deref()?.doubt_since
    }

    /// The same, from here on.
    pub fn set_doubt(&mut self, since: Option<u64>) {
        self.change(|named| named.doubt_since = since);
    }

    /// It cannot be said any more what was had; what is named is left out all the same.
    pub fn doubt(&mut self) {
        self.set_doubt(Some(hour_now()));
    }

    /// Nothing that is named is left out.
    pub fn name_nothing(&mut self) {
        self.change(|named| {
            let Named { doubt_since, is_part, .. } = *named;
            *named = Named { doubt_since, is_part, ..Named::default() };
        });
    }

    /// Producers in order, with what was had of each.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Run)> {
        self.producers().iter().copied()
    }

    fn run_of(&self, producer: NodeId) -> Option<Run> {
        let producers = self.producers();
        let at = producers.binary_search_by_key(&producer, |(node, _)| *node).ok()?;
        Some(producers[at].1)
    }

    /// Whether entries of this producer may come again.
    pub fn names(&self, producer: NodeId) -> bool {
        self.run_of(producer).is_some_and(|run| !run.is_empty())
    }

    /// Leaves out what is named of other producers.
    pub fn keep_only(&mut self, producer: NodeId) {
        self.change(|named| named.producers.retain(|(node, _)| *node == producer));
    }

    /// Where it has to go on.
    pub fn back(&self) -> Option<&Back> {
        self.0.as_deref()?.back.as_ref()
    }

    /// The same, from here on.
    pub fn set_back(&mut self, back: Option<Back>) {
        self.change(|named| named.back = back.map(Back::joined));
    }

    /// Takes it out.
    pub fn take_back(&mut self) -> Option<Back> {
        self.change(|named| named.back.take())
    }

    /// Whether what comes may be left out.
    pub fn leaves_out(&self) -> bool {
        self.producers().iter().any(|(_, run)| !run.is_empty())
            || self.back().is_some_and(|back| !back.is_away)
    }

    /// It is elsewhere from here on: in the log it stands at this offset.
    pub fn leave(&mut self, offset: u64) {
        let Some(back) = self.take_back() else { return };
        let was_away = back.is_away;
        let back = back.away_from(offset);
        if !was_away && back.to >= back.after {
            self.change(Named::owe_nothing);
        }
        self.set_back(Some(back));
    }

    /// Where nothing is owed, a producer of which nothing was had needs no name.
    pub fn name_no_more_than_was_had(&mut self) {
        self.change(Named::name_no_more_than_was_had);
    }

    /// Everything of this producer up to `seq` was had, but for what is named as not.
    pub fn add(&mut self, producer: NodeId, seq: u64) {
        if seq > 0 {
            self.change(|named| named.add_run(producer, Run { after: 0, newest: seq }));
        }
    }

    /// Nothing of this producer up to `seq` was had, but for what is named; what is added from here on comes
    /// after that.
    pub fn lacks_up_to(&mut self, producer: NodeId, seq: u64) {
        match self.run_of(producer) {
            // What it has had reaches that far, or begins there.
            Some(held) if held.after == seq || (held.after < seq && held.newest >= seq) => return,
            // It has had some of it.
            Some(_) => self.doubt(),
            None => {}
        }
        if seq > 0 {
            self.change(|named| named.add_run(producer, Run { after: seq, newest: seq }));
        }
    }

    /// The same for all that another one holds. Where both say where to go on, this one's is kept.
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

    /// An entry came at an offset: says whether it was had before. A producer's entries come in order, so
    /// that after its newest one that was had, nothing of it comes again.
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

    /// What was owed has come: nothing of any producer was left out before what is named.
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
        let stood = |back: &Back| (offset > back.after && offset <= back.until, offset >= back.until);
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
        // Where it goes back it is to be known yet.
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
    fn what_was_had_is_known_until_it_has_come_again() {
        let [a, b] = [1, 2].map(|n| NodeId(Uuid::from_u128(n)));
        let mut had = Had::default();
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
    fn what_was_had_by_offset_is_left_out_and_what_lies_before_it_is_not() {
        let node = NodeId(Uuid::from_u128(1));
        let mut had = Had::default();
        had.lacks_up_to(node, 4);
        had.add(node, 9);
        had.set_back(Some(Back { log: Some(Epoch::random()), to: 2, after: 4, until: 6, is_away: false }));
        let mut came = |offset, seq| had.came(offset, EntryId { producer: node, seq });
        assert!(!came(3, 3) && !came(4, 4), "these are owed, whoever they are of");
        assert!(came(5, 5) && came(6, 6));
        assert!(came(7, 8) && came(8, 9) && !came(9, 10), "from there on sequences say what was had");
        assert!(had.is_empty());
    }

    #[test]
    fn parts_that_meet_are_one() {
        let log = Epoch::random();
        let mut had = Had::default();
        had.set_back(Some(Back { log: Some(log.clone()), to: 5, after: 3, until: 8, is_away: true }));
        assert_eq!(had.back(), Some(&Back::at(log, 8)));
    }
}
