//! What the log of a channel holds at the end, and what is wrong with it. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::Serialize;
use tokio::time::Instant;

use super::witness::Post;
use crate::figures::{Examples, sums};

/// The log of a channel, read after the load has ended.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// In the log's order: the node that an entry was posted at, and its number there.
    in_order: Vec<(usize, u64)>,
    /// The same, and whether each entry has `missedBefore`.
    entries: BTreeMap<(usize, u64), bool>,
    ids: HashSet<String>,
    doubled: u64,
    /// The log is full, or drops entries by age: older entries may be missing for that reason alone.
    pub(super) is_full: bool,
}

/// What is wrong with logs.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct JudgedLog {
    /// Accepted entries that are in no log.
    pub(super) missing: u64,
    /// Of these, those whose loss was announced to nobody, neither by `missedBefore` nor to a subscriber.
    pub(super) unsaid: u64,
    /// Entries with `missedBefore` though no entry before them is missing.
    pub(super) falsely_missed: u64,
    /// Entries that are in the log twice.
    pub(super) doubled: u64,
    /// Entries that are in the log behind a later one of their gateway.
    pub(super) reordered: u64,
    /// Accepted entries older than all that a full log still has: they are not judged.
    pub(super) outgrown: u64,
    /// Faulty entries, in words.
    #[serde(skip)]
    pub(super) odd: Examples,
}

sums!(JudgedLog: missing, unsaid, falsely_missed, doubled, reordered, outgrown, odd);

impl Log {
    /// The next entry of the log.
    pub(super) fn entry(&mut self, id: &str, by: usize, n: u64, missed_before: bool) {
        let is_new_id = self.ids.insert(id.to_owned());
        if self.entries.insert((by, n), missed_before).is_some() || !is_new_id {
            self.doubled += 1;
            return;
        }
        self.in_order.push((by, n));
    }

    /// Whether the log has a node's `n`th entry.
    pub(super) fn has(&self, by: usize, n: u64) -> bool {
        self.entries.contains_key(&(by, n))
    }

    /// What is wrong with the log. `posted` is what was posted at each node, `told_at` the last moment at
    /// which a subscriber was told that entries are missing, and `said_missed` the entries that had
    /// `missedBefore` on their way to subscribers.
    pub(super) fn judge(
        &self,
        posted: &[(usize, &[Post])],
        told_at: Option<Instant>,
        said_missed: &BTreeSet<(usize, u64)>,
    ) -> JudgedLog {
        let mut judged = JudgedLog { doubled: self.doubled, ..JudgedLog::default() };
        for (by, posts) in posted {
            let accepted = (1..).zip(*posts).filter(|(_, post)| post.accepted.is_some());
            for (n, post) in accepted.filter(|(n, _)| !self.has(*by, *n)) {
                if self.is_full && self.before(*by, n).is_none() {
                    judged.outgrown += 1;
                    continue;
                }
                judged.missing += 1;
                let next = self.entries.range((*by, n)..=(*by, u64::MAX)).next();
                let is_said =
                    next.is_some_and(|((by, n), missed)| *missed || said_missed.contains(&(*by, *n)));
                if !is_said && told_at.is_none_or(|at| at <= post.sent) {
                    judged.unsaid += 1;
                    judged
                        .odd
                        .note(|| format!("number {n} of gateway {by} is in no log, and nobody said so"));
                }
            }
            let mut highest = 0;
            let is_accepted = |n: u64| {
                let place = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
                place.and_then(|place| posts.get(place)).is_some_and(|post| post.accepted.is_some())
            };
            // A post without an answer may have been appended at any time.
            for (_, n) in self.in_order.iter().filter(|(of, n)| of == by && is_accepted(*n)) {
                if *n < highest {
                    judged.reordered += 1;
                    judged.odd.note(|| format!("number {n} of gateway {by} is in the log behind {highest}"));
                }
                highest = highest.max(*n);
            }
        }
        let marked = self.entries.iter().filter(|(_, missed)| **missed).map(|(entry, _)| *entry);
        for (by, n) in marked.chain(said_missed.iter().copied()).collect::<BTreeSet<_>>() {
            let before = self.before(by, n);
            // In a full log nobody can tell what came before the first entry.
            let is_whole = before.unwrap_or(0) + 1 == n && !(self.is_full && before.is_none());
            if is_whole {
                judged.falsely_missed += 1;
                judged.odd.note(|| format!("number {n} of gateway {by} says missedBefore, and nothing is"));
            }
        }
        judged
    }

    /// The number of the entry before the `n`th of a node, among those in the log.
    fn before(&self, by: usize, n: u64) -> Option<u64> {
        self.entries.range((by, 0)..(by, n)).next_back().map(|((_, before), _)| *before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outages::witness::tests::{COUNT, ms, posts};

    /// A log of these numbers, of which `marked` have `missedBefore`.
    fn log_of(numbers: impl IntoIterator<Item = u64>, marked: &[u64]) -> Log {
        let mut log = Log::default();
        for n in numbers {
            log.entry(&format!("a-{n}"), 0, n, marked.contains(&n));
        }
        log
    }

    /// (missing, unsaid, falsely missed, doubled, reordered)
    fn wrong(log: &Log, posts: &[Post], told_at: Option<Instant>) -> (u64, u64, u64, u64, u64) {
        let judged = log.judge(&[(0, posts)], told_at, &BTreeSet::new());
        (judged.missing, judged.unsaid, judged.falsely_missed, judged.doubled, judged.reordered)
    }

    #[test]
    fn a_whole_log_is_good_and_a_doubled_or_reordered_one_is_not() {
        let (_, posts) = posts();
        assert_eq!(wrong(&log_of(1..=COUNT, &[]), &posts, None), (0, 0, 0, 0, 0));
        let mut log = log_of(1..=COUNT, &[]);
        log.entry("a-3", 0, 3, false);
        log.entry("b-1", 0, 4, false);
        assert_eq!(wrong(&log, &posts, None), (0, 0, 0, 2, 0));
        assert_eq!(
            wrong(&log_of([1, 3, 2].into_iter().chain(4..=COUNT), &[]), &posts, None),
            (0, 0, 0, 0, 1)
        );
    }

    #[test]
    fn what_no_log_has_must_be_said_by_the_next_or_to_somebody() {
        let (start, posts) = posts();
        let without = |marked: &[u64]| log_of((1..=COUNT).filter(|n| !(5..=7).contains(n)), marked);
        assert_eq!(wrong(&without(&[]), &posts, None), (3, 3, 0, 0, 0));
        assert_eq!(wrong(&without(&[8]), &posts, None), (3, 0, 0, 0, 0));
        // No later entry can announce the loss of the last one.
        assert_eq!(wrong(&log_of(1..COUNT, &[]), &posts, None), (1, 1, 0, 0, 0));
        // A subscriber was told; that covers what had been sent by then.
        assert_eq!(wrong(&without(&[]), &posts, Some(ms(start, 65))), (3, 1, 0, 0, 0));
        assert_eq!(wrong(&without(&[]), &posts, Some(ms(start, 300))), (3, 0, 0, 0, 0));
        // What was not accepted is not missing.
        let mut refused = posts.clone();
        refused[4..7].iter_mut().for_each(|post| post.accepted = None);
        assert_eq!(wrong(&without(&[]), &refused, None), (0, 0, 0, 0, 0));
        // A subscriber may have been told by the entry itself.
        let said = BTreeSet::from([(0, 8)]);
        let judged = without(&[]).judge(&[(0, &posts)], None, &said);
        assert_eq!((judged.unsaid, judged.falsely_missed), (0, 0));
    }

    #[test]
    fn missed_before_is_false_where_nothing_before_is_missing() {
        let (_, posts) = posts();
        assert_eq!(wrong(&log_of(1..=COUNT, &[8]), &posts, None), (0, 0, 1, 0, 0));
        assert_eq!(wrong(&log_of(1..=COUNT, &[1]), &posts, None), (0, 0, 1, 0, 0));
        let without = |marked: &[u64]| log_of((1..=COUNT).filter(|n| *n != 5), marked);
        assert_eq!(wrong(&without(&[6]), &posts, None), (1, 0, 0, 0, 0));
        assert_eq!(wrong(&without(&[7]), &posts, None), (1, 1, 1, 0, 0), "not right before it");
        let said = BTreeSet::from([(0, 9)]);
        assert_eq!(log_of(1..=COUNT, &[]).judge(&[(0, &posts)], None, &said).falsely_missed, 1);
    }

    #[test]
    fn what_a_full_log_has_outgrown_is_told_apart() {
        let (_, posts) = posts();
        let log = Log { is_full: true, ..log_of(11..=COUNT, &[11]) };
        let judged = log.judge(&[(0, &posts)], None, &BTreeSet::new());
        assert_eq!((judged.outgrown, judged.missing, judged.falsely_missed), (10, 0, 0));
        // Within a full log nothing may be missing.
        let log = Log { is_full: true, ..log_of((11..=COUNT).filter(|n| *n != 15), &[]) };
        assert_eq!(wrong(&log, &posts, None), (1, 1, 0, 0, 0));
    }

    #[test]
    fn gateways_are_judged_apart() {
        let (_, posts) = posts();
        let mut log = Log::default();
        for n in (1..=COUNT).rev() {
            log.entry(&format!("a-{n}"), 0, COUNT + 1 - n, false);
            log.entry(&format!("b-{n}"), 1, COUNT + 1 - n, false);
        }
        let judged = log.judge(&[(0, &posts), (1, &posts)], None, &BTreeSet::new());
        assert_eq!(judged, JudgedLog::default());
    }
}
