//! Which attempt of an order a run is at.
//!
//! The rule: an attempt is used up when it fails, when the run itself moves on to the next attempt, and when
//! a run that has reported something breaks off (its process died, or its lease ran out). A run that is given
//! back uses up no attempt, nor does a run that breaks off before its first report. The job stores what the
//! end of a run said ([`Attempt`]); what a run that broke off had reported is in the order's log.

use super::view::run_of;
use crate::model::{Entry, EntryKind};
use crate::protocol::Standing;
use crate::storage::Attempt;

/// How many runs in a row may break off, per attempt: a run that reports nothing uses up no attempt, but such
/// runs must not go on for ever.
const RUNS_PER_ATTEMPT: u32 = 10;

/// The attempts of a run.
#[derive(Debug)]
pub(super) struct Attempts {
    /// The current attempt, counting from 1.
    pub(super) current: u32,
    /// How many attempts there may be.
    pub(super) max: u32,
    /// The attempt that the next report may begin.
    pub(super) anew: u32,
    /// How many runs in a row broke off since the last run that ended properly.
    runs_broken_off: u32,
    /// The order was submitted in its last attempt, and that run broke off: all that is left is to find out
    /// what became of the submission.
    only_finds_out: bool,
    /// The order has updates that this run does not know of: only a run that has read them can say which attempt is
    /// next.
    pub(super) is_unknown: bool,
}

impl Attempts {
    /// The attempts of a new run, from what its job stores (`said`) and from the order's newest update with
    /// its standing.
    pub(super) fn of(run: u32, said: Attempt, newest: Option<(&Entry, &Standing)>, max: u32) -> Self {
        // The run that wrote the newest update may have broken off after the last run that ended properly.
        let reported_by = newest.and_then(|(newest, _)| run_of(newest));
        let is_said = said.number > 0 && reported_by.is_none_or(|run| run <= said.said_by);
        // A submitted order may have been executed: the run that takes it up finds out, and ends the
        // order.
        let is_last = |standing: &Standing| standing.kind == EntryKind::Submitted && standing.attempt >= max;
        let only_finds_out = !is_said && newest.is_some_and(|(_, standing)| is_last(standing));
        let current = match newest {
            _ if is_said => said.number,
            // No update yet: the run before has not used its attempt up.
            None => 1,
            Some((_, standing)) => standing.attempt + u32::from(!only_finds_out),
        };
        Self {
            current,
            max,
            anew: current + u32::from(only_finds_out),
            runs_broken_off: run.saturating_sub(said.said_by).saturating_sub(1),
            only_finds_out,
            is_unknown: false,
        }
    }

    /// Whether no attempt is left.
    pub(super) fn are_used_up(&self) -> bool {
        self.current > self.max || self.runs_broken_off >= self.max.saturating_mul(RUNS_PER_ATTEMPT)
    }

    /// Whether this is the last attempt.
    pub(super) fn is_last(&self) -> bool {
        self.current >= self.max
    }

    /// The attempt of the next run if this run is given back; `None` if the job or the order's log determines it.
    pub(super) fn given_back(&self) -> Option<u32> {
        (!self.only_finds_out && !self.is_unknown).then_some(self.current)
    }

    /// Begins the next attempt; false if there is none.
    pub(super) fn begin_next(&mut self) -> bool {
        let is_left = !self.is_last();
        self.current += u32::from(is_left);
        self.anew = self.anew.max(self.current);
        is_left
    }

    /// For a later call of a run that has reported in this attempt already: the attempt goes on.
    pub(super) fn go_on(&mut self, attempt: u32) {
        (self.current, self.anew) = (attempt, attempt + 1);
    }

    /// An update of this attempt was published.
    pub(super) fn reported(&mut self, attempt: u32) {
        self.anew = attempt + 1;
    }

    /// The attempt in which the order fails: the current one, or the last if all are used up.
    pub(super) fn end(&mut self) -> u32 {
        self.current = self.current.min(self.max);
        self.current
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::model::{DraftEntry, EntryId, Marks, NodeId};

    /// The newest update, written by a run in an attempt.
    fn reported(kind: EntryKind, run: u32, attempt: u32) -> (Entry, Standing) {
        let draft = DraftEntry {
            time: DateTime::UNIX_EPOCH,
            kind: kind.clone(),
            key: None,
            data: format!(r#"{{"run":{run}}}"#).into(),
            marks: Marks::default(),
        };
        let id = EntryId { producer: NodeId::random(), seq: 1 };
        (Entry { offset: 1, id, draft }, Standing { kind, progress: 50, attempt })
    }

    /// The attempts of a run of an order that may be tried three times.
    fn attempts(run: u32, (number, said_by): (u32, u32), newest: Option<&(Entry, Standing)>) -> Attempts {
        Attempts::of(run, Attempt { number, said_by }, newest.map(|(entry, standing)| (entry, standing)), 3)
    }

    #[test]
    fn an_attempt_is_used_up_by_what_was_reported_unless_the_end_of_its_run_said_otherwise() {
        let building = reported(EntryKind::Building, 2, 1);
        for (run, said, newest, current) in [
            (1, (0, 0), None, 1),
            (7, (0, 0), None, 1),
            (3, (0, 0), Some(&building), 2),
            // Run 2 was given back; or run 1 was, and run 2 broke off.
            (3, (1, 2), Some(&building), 1),
            (3, (1, 1), Some(&building), 2),
            (3, (2, 2), Some(&building), 2),
        ] {
            let attempts = attempts(run, said, newest);
            assert_eq!((attempts.current, attempts.anew), (current, current), "{run} {said:?}");
            assert_eq!(attempts.given_back(), Some(current));
        }
    }

    #[test]
    fn what_was_submitted_for_the_last_time_is_only_found_out_about() {
        let submitted = reported(EntryKind::Submitted, 4, 3);
        let finding_out = attempts(5, (0, 0), Some(&submitted));
        assert_eq!((finding_out.current, finding_out.anew, finding_out.given_back()), (3, 4, None));
        assert!(finding_out.is_last() && !finding_out.are_used_up());
        // The submitting run ended by saying that there is another attempt; or the run had only been
        // building.
        assert!(attempts(5, (4, 4), Some(&submitted)).are_used_up());
        assert!(attempts(5, (0, 0), Some(&reported(EntryKind::Building, 4, 3))).are_used_up());
    }

    #[test]
    fn runs_that_report_nothing_do_not_go_on_for_ever() {
        assert!(!attempts(30, (0, 0), None).are_used_up());
        assert!(attempts(31, (0, 0), None).are_used_up());
        assert!(!attempts(31, (1, 1), None).are_used_up(), "run 1 was given back");
    }

    #[test]
    fn a_run_may_begin_the_next_attempt_as_long_as_there_is_one() {
        let mut run = attempts(1, (0, 0), None);
        assert_eq!([run.begin_next(), run.begin_next(), run.begin_next()], [true, true, false]);
        assert_eq!((run.current, run.anew, run.end()), (3, 3, 3));
        run.reported(3);
        assert_eq!((run.current, run.anew), (3, 4));
        run.go_on(2);
        assert_eq!((run.current, run.anew), (2, 3));
        assert_eq!(attempts(2, (4, 1), None).end(), 3, "an order does not fail in one that it may not have");
    }
}
