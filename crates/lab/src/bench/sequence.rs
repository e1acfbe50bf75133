//! Checks what one subscriber receives of one channel: order, losses, doubles.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::figures::sums;

/// How many gaps are remembered per subscriber. Beyond that the oldest are forgotten, and a message that
/// arrives late for one of them counts as both reordered and lost.
const GAPS_MAX: usize = 4096;

/// Checks one subscriber's sequence numbers, which increase by one.
#[derive(Debug, Clone)]
pub(super) struct SequenceChecker {
    /// `None` until the first message, if somebody else publishes.
    next: Option<u64>,
    /// From the first missing number to the first one after the gap.
    gaps: BTreeMap<u64, u64>,
    forgotten_below: u64,
    counts: SequenceCounts,
}

/// What subscribers received during a whole run, including the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct SequenceCounts {
    pub(super) received: u64,
    /// Never received. In a lane that conflates, these are messages that were replaced.
    pub(super) lost: u64,
    /// Received more than once.
    pub(super) doubled: u64,
    /// Received after a later one.
    pub(super) reordered: u64,
}

sums!(SequenceCounts: received, lost, doubled, reordered);

impl SequenceChecker {
    /// Expects zero first, so that losing the first message is noticed.
    pub(super) fn from_zero() -> Self {
        Self { next: Some(0), ..Self::from_anywhere() }
    }

    /// Starts at the first number that is seen.
    pub(super) fn from_anywhere() -> Self {
        Self { next: None, gaps: BTreeMap::new(), forgotten_below: 0, counts: SequenceCounts::default() }
    }

    #[inline]
    pub(super) fn see(&mut self, seq: u64) {
        self.counts.received += 1;
        let next = self.next.unwrap_or(seq);
        if seq == next {
            self.next = Some(seq + 1);
        } else if seq > next {
            self.open_gap(next, seq);
            self.next = Some(seq + 1);
        } else {
            self.see_late(seq);
        }
    }

    /// The counts, given how many messages were published to the channel. Without that number, losses at the
    /// end are not noticed.
    pub(super) fn finish(&self, published: Option<u64>) -> SequenceCounts {
        let tail = match (published, self.next) {
            (Some(published), Some(next)) => published.saturating_sub(next),
            _ => 0,
        };
        SequenceCounts { lost: self.counts.lost + tail, ..self.counts }
    }

    fn open_gap(&mut self, from: u64, to: u64) {
        self.counts.lost += to - from;
        self.gaps.insert(from, to);
        if self.gaps.len() > GAPS_MAX
            && let Some((_, end)) = self.gaps.pop_first()
        {
            self.forgotten_below = end;
        }
    }

    /// Counts a number that arrived late or again.
    fn see_late(&mut self, seq: u64) {
        if seq < self.forgotten_below {
            self.counts.reordered += 1;
            return;
        }
        match self.gaps.range(..=seq).next_back().map(|(from, to)| (*from, *to)) {
            Some((from, to)) if seq < to => {
                self.counts.reordered += 1;
                self.counts.lost -= 1;
                self.gaps.remove(&from);
                if from < seq {
                    self.gaps.insert(from, seq);
                }
                if seq + 1 < to {
                    self.gaps.insert(seq + 1, to);
                }
            }
            _ => self.counts.doubled += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seen: &[u64], published: u64, lost: u64, doubled: u64, reordered: u64) {
        let mut checker = SequenceChecker::from_zero();
        seen.iter().for_each(|seq| checker.see(*seq));
        let received = seen.len() as u64;
        assert_eq!(checker.finish(Some(published)), SequenceCounts { received, lost, doubled, reordered });
    }

    #[test]
    fn an_unbroken_run_is_clean() {
        check(&[0, 1, 2, 3], 4, 0, 0, 0);
    }

    #[test]
    fn losses_are_counted_at_the_start_in_the_middle_and_at_the_end() {
        check(&[1, 2], 3, 1, 0, 0);
        check(&[0, 3], 4, 2, 0, 0);
        check(&[0, 1], 5, 3, 0, 0);
        check(&[], 5, 5, 0, 0);
    }

    #[test]
    fn doubles_are_counted() {
        check(&[0, 0, 1, 1, 1, 0], 2, 0, 4, 0);
        check(&[0, 3, 3], 4, 2, 1, 0);
    }

    #[test]
    fn a_late_message_is_reordered_and_not_lost() {
        check(&[0, 2, 1, 3], 4, 0, 0, 1);
        check(&[4, 3, 2, 1, 0], 5, 0, 0, 4);
        check(&[0, 5, 3, 2], 6, 2, 0, 2);
    }

    #[test]
    fn a_late_message_twice_is_also_doubled() {
        check(&[0, 2, 1, 1], 3, 0, 1, 1);
    }

    #[test]
    fn an_unknown_publisher_starts_at_its_first_message() {
        let mut checker = SequenceChecker::from_anywhere();
        [70, 71, 73].into_iter().for_each(|seq| checker.see(seq));
        assert_eq!(checker.finish(None), SequenceCounts { received: 3, lost: 1, doubled: 0, reordered: 0 });
    }

    #[test]
    fn memory_is_bounded_however_many_gaps() {
        let mut checker = SequenceChecker::from_zero();
        (0..20_000).for_each(|n| checker.see(n * 2 + 1));
        assert!(checker.gaps.len() <= GAPS_MAX);
        assert_eq!(checker.finish(None).lost, 20_000);
    }
}
