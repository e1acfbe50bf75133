//! Epochs whose text says more than which epoch of a log they are.
//!
//! While a node serves a fork, and for as long as the log may deliver entries again that a reader has already
//! been sent, the epoch that clients are told encodes what the reader has been sent. Clients treat it as
//! opaque text; any node can read it, and so continue for a reader that another node served.

use super::version_vector::hour_now;
use super::{Page, ReturnPoint, Run, VersionVector};
use crate::model::{Epoch, NodeId, OFFSET_MAX, Position, new_epoch};

/// In the name of a fork, in place of the log's epoch: the log had none.
const UNBORN: &str = "u";
/// The same, if nothing was known of the log, not even whether it had an epoch.
const UNKNOWN: &str = Epoch::OF_NO_LOG;

/// In the text of an epoch, besides producers: the reader is reading the entries of a log that it is owed.
const OWED: &str = "o";
/// The reader is elsewhere, and has to go back to its return point.
const PASSED: &str = "p";
/// It is not known what the reader has been sent.
const DOUBT: &str = "d";
/// The reader's snapshot was incomplete.
const PART: &str = "s";

/// The parsed text of an epoch that is not simply that of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EpochName {
    /// A fork, and what the reader has had besides.
    Fork(Fork, VersionVector),
    /// The epoch of a log, and what the reader has had besides.
    View(Epoch, VersionVector),
}

/// Names a fork segment, in which one node continues a log with the same offsets. Offsets up to `base` are
/// the log's. Offsets after it up to `from` belong to earlier forks of the same node after the same base. The
/// entry at offset `from + n` is the node's own, with sequence `seq + n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fork {
    /// The epoch of the log that it continues; `None` if none was known.
    pub(super) log: Option<Epoch>,
    /// With `log: None`: the log had no epoch, or readers want all of it; either way a reader has had only
    /// this node's entries of whatever the log turns out to hold.
    pub(super) unborn: bool,
    /// The offset in the log where the fork began: a reader in the fork has had everything up to it.
    pub(super) base: u64,
    /// The node.
    pub(super) node: NodeId,
    /// The node's newest sequence at `from`.
    pub(super) seq: u64,
    pub(super) from: u64,
}

impl Fork {
    /// What a reader at this offset of the fork has had after `base`.
    pub(super) fn had_at(&self, offset: u64) -> VersionVector {
        let mut had = VersionVector::default();
        // Before `from`, offsets alone do not say which entries are the node's own.
        if offset >= self.from && offset > self.base {
            had.add(self.node, self.own_at(offset));
        }
        had
    }

    /// The node's newest sequence at an offset that is not before `from`.
    pub(super) fn own_at(&self, offset: u64) -> u64 {
        self.seq.saturating_add(offset.saturating_sub(self.from))
    }

    pub(super) fn epoch(&self) -> Epoch {
        let none = if self.unborn { UNBORN } else { UNKNOWN };
        let log = self.log.as_ref().map_or(none, Epoch::as_str);
        let Self { base, node, seq, from, .. } = self;
        format!("f.{log}.{base}.{node}.{seq}.{from}").parse().expect("plain, and short enough")
    }

    /// The same, merged with `besides`; `None` if it cannot be determined.
    pub(super) fn had(&self, offset: u64, besides: &VersionVector) -> Option<VersionVector> {
        if self.base < offset && offset < self.from {
            return None;
        }
        let mut had = self.had_at(offset);
        had.merge(besides);
        Some(had)
    }

    /// The return point of a reader at this offset, unless the epoch's text names one.
    fn back_at(&self, offset: u64) -> Option<ReturnPoint> {
        match &self.log {
            Some(log) => Some(ReturnPoint::at(log.clone(), self.base.min(offset))),
            // Whatever epoch the log got, the reader has had nothing of it.
            None => self.unborn.then(ReturnPoint::to_the_beginning),
        }
    }
}

impl EpochName {
    /// Parses an epoch; `None` if it is simply that of a log.
    pub(super) fn of(epoch: &Epoch) -> Option<Self> {
        let mut parts = epoch.as_str().split('.');
        let kind = parts.next()?;
        let log = parts.next()?;
        match kind {
            "f" => {
                let base = parts.next()?.parse().ok()?;
                let node = parts.next()?.parse().ok()?;
                let seq = parts.next()?.parse().ok()?;
                let from = parts.next()?.parse().ok()?;
                let unborn = log == UNBORN;
                let log = if unborn || log == UNKNOWN { None } else { Some(Epoch::of_log(log).ok()?) };
                let fork = Fork { log, unborn, base, node, seq, from };
                (base <= from).then_some(Self::Fork(fork, had_of(parts)?))
            }
            "v" => Some(Self::View(Epoch::of_log(log).ok()?, had_of(parts)?)),
            _ => None,
        }
    }
}

/// Whether an epoch is that of a fork.
pub fn is_fork(epoch: &Epoch) -> bool {
    epoch.as_str().starts_with("f.")
}

/// Whether an epoch is that of a fork of a log of which nothing was known, not even that it had no epoch.
pub fn is_fork_of_unknown(epoch: &Epoch) -> bool {
    matches!(EpochName::of(epoch), Some(EpochName::Fork(Fork { log: None, unborn: false, .. }, _)))
}

/// The epoch of the log that a fork continues, as the fork's name states it.
pub fn log_of_fork(epoch: &Epoch) -> Option<Epoch> {
    match EpochName::of(epoch)? {
        EpochName::Fork(fork, _) => fork.log,
        EpochName::View(..) => None,
    }
}

/// What the reader of a position has had, in the form that applies in any other log: a return point, and the
/// entries it has had besides.
pub fn had_at(position: &Position) -> VersionVector {
    let Position { epoch, offset } = position;
    match EpochName::of(epoch) {
        // No log can have such an epoch, so nobody could use it as a return point.
        None if Epoch::of_log(epoch.as_str()).is_err() => VersionVector::unknown(),
        None => {
            let mut had = VersionVector::default();
            had.set_back(Some(ReturnPoint::at(epoch.clone(), *offset)));
            had
        }
        Some(EpochName::View(log, mut had)) => {
            had.leave(*offset);
            if had.back().is_none() {
                had.set_back(Some(ReturnPoint::at(log, *offset)));
            }
            had
        }
        Some(EpochName::Fork(fork, besides)) => {
            let Some(mut had) = fork.had(*offset, &besides) else { return VersionVector::unknown() };
            let back = had.take_back().or_else(|| fork.back_at(*offset));
            had.set_back(back);
            had
        }
    }
}

/// The offset at which a reader begins in an epoch that does not follow its position, and what it then counts
/// as having had; `page` is of that epoch.
pub fn begin_elsewhere(mut had: VersionVector, epoch: &Epoch, page: &Page) -> (u64, VersionVector) {
    let oldest = page.first.saturating_sub(1);
    let Some(EpochName::Fork(fork, _)) = EpochName::of(epoch) else {
        if page.is_final {
            return (oldest, VersionVector::default());
        }
        let is_ahead = |back: &ReturnPoint| back.log.as_ref() == Some(epoch) && back.to >= page.top;
        if page.is_copy && had.back().is_some_and(is_ahead) {
            return (page.top, had);
        }
        let mut had = VersionVector::unknown();
        if page.out_of_reach > 0 {
            had.set_back(Some(ReturnPoint {
                after: oldest,
                until: oldest,
                ..ReturnPoint::at(epoch.clone(), 0)
            }));
        }
        return (oldest, had);
    };
    let in_log = had.back().filter(|back| fork.log.is_some() && back.log == fork.log).map(|back| back.to);
    match in_log {
        // The reader has had everything up to where the fork began.
        Some(to) if to >= fork.base => {
            if oldest > fork.base {
                miss_own(&mut had, &fork, oldest);
            }
            (fork.base.max(oldest), had)
        }
        Some(_) => {
            // Nothing before the fork's beginning counts as had.
            let back = had.take_back().map(|back| {
                let end = fork.base.max(back.until);
                ReturnPoint { after: end, until: end, ..back }
            });
            had.set_back(back);
            had.lacks_up_to(fork.node, fork.own_at(oldest));
            had.doubt();
            (oldest, had)
        }
        None => {
            // The fork's copies of the log's entries may come again, and it is not known which of the node's
            // own entries the reader has had in another epoch.
            if oldest < fork.from || fork.seq > 0 {
                had.doubt();
            }
            // Own entries that have expired here are still waiting for the log.
            had.lacks_up_to(fork.node, fork.own_at(oldest));
            let back = match fork.log {
                // The reader is owed everything of that log that cannot be read now.
                Some(log) => {
                    Some(ReturnPoint { after: fork.base, until: fork.base, ..ReturnPoint::at(log, 0) })
                }
                None => (oldest > fork.from).then(ReturnPoint::to_the_beginning),
            };
            if had.back().is_none() {
                had.set_back(back);
            }
            (oldest, had)
        }
    }
}

/// A reader in a fork skips from `from` to `offset`; the entries in between are kept elsewhere.
pub fn miss_in_fork(had: &mut VersionVector, epoch: &Epoch, from: u64, offset: u64) {
    let Some(EpochName::Fork(fork, _)) = EpochName::of(epoch) else { return };
    if had.back().is_none()
        && from < fork.base
        && let Some(log) = fork.log.clone()
    {
        had.set_back(Some(ReturnPoint { after: fork.base, until: fork.base, ..ReturnPoint::at(log, from) }));
    }
    miss_own(had, &fork, offset);
}

/// A reader begins in a fork after an offset, before which some of the node's own entries have expired. They
/// still wait for the log, so they do not count as had.
pub fn lack_own(had: &mut VersionVector, epoch: &Epoch, offset: u64) {
    if let Some(EpochName::Fork(fork, _)) = EpochName::of(epoch) {
        had.lacks_up_to(fork.node, fork.own_at(offset));
    }
}

/// Some of the node's own entries up to an offset may be missing, and nothing says which.
fn miss_own(had: &mut VersionVector, fork: &Fork, offset: u64) {
    had.lacks_up_to(fork.node, fork.own_at(offset));
    had.doubt();
}

/// The node of a fork, and its newest sequence where the fork began; valid for the first of a node's forks
/// after the same base.
pub fn begin_of_fork(epoch: &Epoch) -> Option<(NodeId, u64)> {
    match EpochName::of(epoch)? {
        EpochName::Fork(fork, _) => Some((fork.node, fork.seq)),
        EpochName::View(..) => None,
    }
}

/// The epoch to send to a reader: `epoch`, plus what the reader has had that may come again in it or in the
/// next one, and what it is owed.
pub fn told_epoch(epoch: &Epoch, had: &VersionVector) -> Epoch {
    #[cfg(test)]
    let had = &without_a_rule(had);
    if had.is_empty() {
        return epoch.clone();
    }
    let mut text = epoch.to_string();
    if !is_fork(epoch) && !text.starts_with("v.") {
        text.insert_str(0, "v.");
    }
    for (node, Run { after, newest }) in had.iter() {
        text.push_str(&format!(".{node}-{newest}"));
        if after > 0 {
            text.push_str(&format!("-{after}"));
        }
    }
    if let Some(ReturnPoint { log, to, after, until, is_away }) = had.back() {
        let (word, log) = (if *is_away { PASSED } else { OWED }, log.as_ref().map_or(UNKNOWN, Epoch::as_str));
        text.push_str(&format!(".{word}.{log}.{to}-{after}-{until}"));
    }
    if let Some(since) = had.doubt_since() {
        text.push_str(&format!(".{DOUBT}{since}"));
    }
    if had.is_part() {
        text.push_str(&format!(".{PART}"));
    }
    // If there are more producers than fit, the epoch is one that no node knows: a reader that resumes with
    // it is sent everything that is kept, and told so.
    text.parse().unwrap_or_else(|_| new_epoch())
}

#[cfg(test)]
fn without_a_rule(had: &VersionVector) -> VersionVector {
    use crate::support::mutant::{self, Mutant};
    let mut told = had.clone();
    if mutant::is(Mutant::WayBackNotTold) {
        told.set_back(None);
    } else if mutant::is(Mutant::DoubtNotTold) {
        told.set_doubt(None);
    } else if mutant::is(Mutant::WhatWasNotHadIsNotTold) {
        told.name_nothing();
        had.iter().for_each(|(node, run)| told.add(node, run.newest));
        told.set_back(had.back().cloned());
    } else if mutant::is(Mutant::PartNotTold) {
        told.not_part();
    }
    told
}

/// Whether entries that were sent before this hour may still come again. Nodes put nothing back into a log
/// that is older than twice the retention age.
fn is_young(hour: u64) -> bool {
    const FOR_H: u64 = 48;
    hour.saturating_add(FOR_H) >= hour_now()
}

fn had_of<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<VersionVector> {
    let mut had = VersionVector::default();
    while let Some(part) = parts.next() {
        match part {
            OWED | PASSED => {
                let log = parts.next()?;
                let log = if log == UNKNOWN { None } else { Some(Epoch::of_log(log).ok()?) };
                let mut offsets = parts.next()?.split('-').map(str::parse);
                let mut offset = || offsets.next()?.ok().filter(|offset| *offset <= OFFSET_MAX);
                let (to, after, until) = (offset()?, offset()?, offset()?);
                had.set_back(Some(ReturnPoint { log, to, after, until, is_away: part == PASSED }));
            }
            PART => had.set_part(),
            doubt if doubt.starts_with(DOUBT) && !doubt.contains('-') => {
                had.set_doubt(Some(doubt[DOUBT.len()..].parse().ok()?).filter(|since| is_young(*since)));
            }
            pair => {
                let mut numbers = pair.split('-');
                let (node, newest) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
                if let Some(after) = numbers.next() {
                    had.lacks_up_to(node, after.parse().ok()?);
                }
                had.add(node, newest);
            }
        }
    }
    Some(had)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId(Uuid::from_u128(n))
    }

    fn had(producers: &[(u128, u64)]) -> VersionVector {
        let mut had = VersionVector::default();
        producers.iter().for_each(|(n, seq)| had.add(node(*n), *seq));
        had
    }

    proptest! {
        #[test]
        fn a_version_vector_survives_its_text_form(
            known in any::<bool>(), unborn in any::<bool>(), base in any::<u64>(), seq in any::<u64>(), more in any::<u64>(),
            producers in proptest::collection::btree_map(any::<u128>(), 1u64.., 0..=12), is_part in any::<bool>(),
            to in 0..1u64 << 50, owed in proptest::option::of((1..1u64 << 50, 0..1u64 << 50)), is_away in any::<bool>(), doubt in any::<bool>(),
        ) {
            let log = Epoch::random();
            let from = base.saturating_add(more);
            let log_of_fork = known.then(|| log.clone());
            let fork = Fork { log: log_of_fork, unborn: unborn && !known, base, node: node(7), seq, from };
            let mut had = had(&producers.into_iter().collect::<Vec<_>>());
            let back = owed.map(|(more, until)| (to.saturating_add(more), until));
            let log_of_back = known.then(|| log.clone());
            had.set_back(back.map(|(after, until)| ReturnPoint { log: log_of_back, to, after, until, is_away }));
            if doubt {
                had.doubt();
            }
            if is_part {
                had.set_part();
            }
            let told = told_epoch(&fork.epoch(), &had);
            prop_assert_eq!(EpochName::of(&told), Some(EpochName::Fork(fork, had.clone())));
            let told = told_epoch(&log, &had);
            let read = EpochName::of(&told);
            prop_assert_eq!(read, (!had.is_empty()).then_some(EpochName::View(log, had)));
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in "[fv]?[.]?[0-9a-f.-]{0,80}") {
            if let Ok(epoch) = text.parse::<Epoch>() {
                let _ = had_at(&Position { epoch, offset: u64::MAX });
            }
        }
    }

    #[test]
    fn an_epoch_of_a_log_names_nothing_else() {
        assert_eq!(EpochName::of(&Epoch::random()), None);
        assert_eq!(EpochName::of(&"f.x".parse().unwrap()), None);
    }

    #[test]
    fn forks_of_a_log_without_epoch_and_of_an_unknown_log_differ() {
        let fork = Fork { log: None, unborn: true, base: 0, node: node(1), seq: 4, from: 0 };
        let named = |fork: &Fork| EpochName::of(&fork.epoch());
        assert_eq!(named(&fork), Some(EpochName::Fork(fork.clone(), VersionVector::default())));
        assert_eq!(fork.had(2, &had(&[(2, 9)])), Some(had(&[(1, 6), (2, 9)])));
        let at = Position { epoch: told_epoch(&fork.epoch(), &VersionVector::default()), offset: 2 };
        assert_eq!(had_at(&at).back(), Some(&ReturnPoint::to_the_beginning()), "it does not say which log");
        let unknown = Fork { unborn: false, ..fork };
        assert_eq!(named(&unknown), Some(EpochName::Fork(unknown.clone(), VersionVector::default())));
    }

    #[test]
    fn a_text_too_long_for_the_epoch_of_a_log_is_not_one() {
        for text in ["x".repeat(33), "f.1".to_owned(), "é".to_owned(), "0".to_owned(), String::new()] {
            assert!(Epoch::of_log(&text).is_err(), "{text}");
        }
        // A reader that resumes with it is told that anything may come again, and gets no epoch that cannot
        // be parsed.
        for text in ["x".repeat(33), "0".to_owned()] {
            let made_up = Position { epoch: text.parse().unwrap(), offset: 7 };
            assert_eq!(had_at(&made_up), VersionVector::unknown(), "{text}");
        }
        let of_log = Epoch::of_log(&"x".repeat(32)).unwrap();
        let fork = Fork {
            log: Some(of_log),
            unborn: false,
            base: u64::MAX,
            node: node(u128::MAX),
            seq: u64::MAX,
            from: u64::MAX,
        };
        assert_eq!(EpochName::of(&fork.epoch()), Some(EpochName::Fork(fork, VersionVector::default())));
    }

    #[test]
    fn too_many_producers_for_an_epoch_give_an_unknown_one() {
        let many: Vec<(u128, u64)> = (0..30).map(|n| (n, 1)).collect();
        assert_eq!(EpochName::of(&told_epoch(&Epoch::random(), &had(&many))), None);
    }

    #[test]
    fn a_fork_names_the_entries_had_at_each_offset() {
        let fork =
            Fork { log: Some(Epoch::random()), unborn: false, base: 10, node: node(1), seq: 4, from: 10 };
        let log = fork.log.clone().unwrap();
        let at = |fork: &Fork, offset| had_at(&Position { epoch: fork.epoch(), offset });
        let goes_on = |to: u64, producers: &[(u128, u64)]| {
            let mut had = had(producers);
            had.set_back(Some(ReturnPoint::at(log.clone(), to)));
            had
        };
        assert_eq!(at(&fork, 7), goes_on(7, &[]));
        assert_eq!(at(&fork, 10), goes_on(10, &[]));
        assert_eq!(at(&fork, 13), goes_on(10, &[(1, 7)]));
        let later = Fork { seq: 9, from: 13, ..fork };
        assert_eq!(at(&later, 13), goes_on(10, &[(1, 9)]));
        assert_eq!(
            at(&later, 12),
            VersionVector::unknown(),
            "offsets before `from` do not say which are its own"
        );
    }

    #[test]
    fn an_incomplete_snapshot_stays_in_the_epoch() {
        let log = Epoch::random();
        let at = Position { epoch: told_epoch(&log, &VersionVector::of_part()), offset: 8 };
        assert_eq!(at.epoch.as_str(), format!("v.{log}.s"));
        assert!(had_at(&at).is_part() && !had_at(&at).is_whole() && !had_at(&at).is_in_doubt());
        let mut had = had_at(&at);
        had.name_nothing();
        assert!(had.is_part(), "what is named is another matter");
    }

    #[test]
    fn owed_entries_are_in_the_epoch() {
        let log = Epoch::random();
        let owed =
            |to, after, until, is_away| ReturnPoint { log: Some(log.clone()), to, after, until, is_away };
        let at = |back: ReturnPoint, offset| {
            let mut had = VersionVector::default();
            had.set_back(Some(back));
            had_at(&Position { epoch: told_epoch(&log, &had), offset }).back().cloned().unwrap()
        };
        assert_eq!(at(owed(1, 5, 5, true), 8), owed(1, 5, 8, true), "the reader went on after `until`");
        assert_eq!(
            at(owed(1, 5, 8, false), 3),
            owed(3, 5, 8, true),
            "the reader is between `to` and `after`"
        );
        assert_eq!(
            at(owed(1, 5, 8, false), 5),
            ReturnPoint::at(log.clone(), 8),
            "the reader has had all that it was owed"
        );
        assert_eq!(at(owed(1, 5, 8, false), 9), ReturnPoint::at(log.clone(), 9));
    }

    #[test]
    fn a_reader_of_an_unrelated_position_begins_where_it_can() {
        let log = Epoch::random();
        let fork = Fork { log: Some(log.clone()), unborn: false, base: 4, node: node(1), seq: 2, from: 4 };
        let begins = |position: &str, epoch: &Epoch, first| {
            let position: Position = position.parse().unwrap();
            begin_elsewhere(had_at(&position), epoch, &Page { first, ..Page::of_no_log() })
        };
        let (offset, had) = begins(&format!("{log}:7"), &fork.epoch(), 1);
        assert_eq!(
            (offset, had.back()),
            (4, Some(&ReturnPoint::at(log.clone(), 7))),
            "the return point is where it was"
        );
        let (offset, had) = begins("e:7", &fork.epoch(), 3);
        assert_eq!((offset, had.back()), (2, Some(&ReturnPoint::at("e".parse().unwrap(), 7))));
        assert!(had.is_in_doubt(), "entries of the continued log may come again");
        assert_eq!(begins("e:7", &log, 3), (2, VersionVector::unknown()));
        // The oldest entries of the own fork have expired; the log will get them from the journal.
        let [own, other] =
            [1, 2].map(|n| Fork { log: None, unborn: false, base: 0, node: node(n), seq: 3, from: 0 });
        let (offset, had) = begins(&format!("{}:11", other.epoch()), &own.epoch(), 6);
        let named: Vec<(NodeId, Run)> = had.iter().collect();
        let runs = vec![(node(1), Run { after: 8, newest: 8 }), (node(2), Run { after: 0, newest: 14 })];
        assert_eq!((offset, named), (5, runs));
    }
}
