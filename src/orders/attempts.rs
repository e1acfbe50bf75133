//! Which attempt a run is at.
//!
//! The rule: an attempt is used up when it fails, when its run ends by itself after it has told something
//! (its process died, or its lease ran out), and when the run says that it tries again. A run that is given
//! back uses up none, nor does one that ends by itself before it has told anything. The job keeps what the
//! end of a run said ([`Attempt`]); what a run told that could not say anything more is in the order's log.

use super::view::run_of;
use crate::model::{Entry, EntryKind};
use crate::protocol::Standing;
use crate::storage::Attempt;

/// How many runs in a row may be broken off, for each attempt: those that tell nothing use up no attempt,
/// but must not go on for ever.
const RUNS_PER_ATTEMPT: u32 = 10;

/// The attempts of a run.
#[derive(Debug)]
pub(super) struct Attempts {
    /// The one that it is at, counting from 1.
    current: u32,
    max: u32,
    /// The one that the next report may begin anew.
    anew: u32,
    /// How many runs there were, one after the other, since one ended by saying what comes next.
    runs_broken_off: u32,
    /// The last attempt there is was submitted, and then broken off: all that is left is to find out what
    /// became of it.
    only_finds_out: bool,
}

impl Attempts {
    /// Those of a new run: by what its job says (`said`), and by the newest update and where the order stands
    /// with it.
    pub(super) fn of(run: u32, said: Attempt, newest: Option<(&Entry, &Standing)>, max: u32) -> Self {
        // Whoever told the newest update may have been broken off later than anybody said what comes next.
        let told_by = newest.and_then(|(newest, _)| run_of(newest));
        let is_said = said.number > 0 && told_by.is_none_or(|run| run <= said.said_by);
        // What was submitted may have been carried out: whoever takes it up finds out, and ends it.
        let is_last = |standing: &Standing| standing.kind == EntryKind::Submitted && standing.attempt >= max;
        let only_finds_out = !is_said && newest.is_some_and(|(_, standing)| is_last(standing));
        let current = match newest {
            _ if is_said => said.number,
            // A run that told nothing has not used its attempt up.
            None => 1,
            Some((_, standing)) => standing.attempt + u32::from(!only_finds_out),
        };
        Self {
            current,
            max,
            anew: current + u32::from(only_finds_out),
            runs_broken_off: run.saturating_sub(said.said_by).saturating_sub(1),
            only_finds_out,
        }
    }

    /// The one that the run is at.
    pub(super) fn current(&self) -> u32 {
        self.current
    }

    /// How many there may be.
    pub(super) fn max(&self) -> u32 {
        self.max
    }

    /// The one that the next report may begin anew.
    pub(super) fn anew(&self) -> u32 {
        self.anew
    }

    /// Whether there is none left to be carried out.
    pub(super) fn are_used_up(&self) -> bool {
        self.current > self.max || self.runs_broken_off >= self.max.saturating_mul(RUNS_PER_ATTEMPT)
    }

    /// Whether the run has come to the last one.
    pub(super) fn is_last(&self) -> bool {
        self.current >= self.max
    }

    /// The one that the next run is at if this one is given back; `None` where the job knows.
    pub(super) fn given_back(&self) -> Option<u32> {
        (!self.only_finds_out).then_some(self.current)
    }

    /// Begins the next one; false where there is none.
    pub(super) fn begin_next(&mut self) -> bool {
        let is_left = !self.is_last();
        self.current += u32::from(is_left);
        self.anew = self.anew.max(self.current);
        is_left
    }

    /// This is another call of a run that has told of this attempt: it goes on.
    pub(super) fn go_on(&mut self, attempt: u32) {
        (self.current, self.anew) = (attempt, attempt + 1);
    }

    /// An update of this attempt was told.
    pub(super) fn told(&mut self, attempt: u32) {
        self.anew = attempt + 1;
    }

    /// The order fails in this attempt, or in the last one where all are used up.
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

    /// The newest update, told by a run in an attempt.
    fn told(kind: EntryKind, run: u32, attempt: u32) -> (Entry, Standing) {
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

    /// Those of a run of an order that may be tried three times.
    fn attempts(run: u32, (number, said_by): (u32, u32), newest: Option<&(Entry, Standing)>) -> Attempts {
        Attempts::of(run, Attempt { number, said_by }, newest.map(|(entry, standing)| (entry, standing)), 3)
    }

    #[test]
    fn an_attempt_is_used_up_by_what_was_told_unless_the_end_of_its_run_said_otherwise() {
        let building = told(EntryKind::Building, 2, 1);
        for (run, said, newest, current) in [
            (1, (0, 0), None, 1),
            (7, (0, 0), None, 1),
            (3, (0, 0), Some(&building), 2),
            // Run 2 was given back, or run 1 was and run 2 broke off.
            (3, (1, 2), Some(&building), 1),
            (3, (1, 1), Some(&building), 2),
            (3, (2, 2), Some(&building), 2),
        ] {
            let attempts = attempts(run, said, newest);
            assert_eq!((attempts.current(), attempts.anew()), (current, current), "{run} {said:?}");
            assert_eq!(attempts.given_back(), Some(current));
        }
    }

    #[test]
    fn what_was_submitted_for_the_last_time_is_only_found_out_about() {
        let submitted = told(EntryKind::Submitted, 4, 3);
        let finding_out = attempts(5, (0, 0), Some(&submitted));
        assert_eq!((finding_out.current(), finding_out.anew(), finding_out.given_back()), (3, 4, None));
        assert!(finding_out.is_last() && !finding_out.are_used_up());
        // Its run ended by saying that there is another attempt, or had only been building.
        assert!(attempts(5, (4, 4), Some(&submitted)).are_used_up());
        assert!(attempts(5, (0, 0), Some(&told(EntryKind::Building, 4, 3))).are_used_up());
    }

    #[test]
    fn runs_that_tell_nothing_do_not_go_on_for_ever() {
        assert!(!attempts(30, (0, 0), None).are_used_up());
        assert!(attempts(31, (0, 0), None).are_used_up());
        assert!(!attempts(31, (1, 1), None).are_used_up(), "run 1 was given back");
    }

    #[test]
    fn a_run_may_begin_the_next_attempt_as_long_as_there_is_one() {
        let mut run = attempts(1, (0, 0), None);
        assert_eq!([run.begin_next(), run.begin_next(), run.begin_next()], [true, true, false]);
        assert_eq!((run.current(), run.anew(), run.end()), (3, 3, 3));
        run.told(3);
        assert_eq!((run.current(), run.anew()), (3, 4));
        run.go_on(2);
        assert_eq!((run.current(), run.anew()), (2, 3));
        assert_eq!(attempts(2, (4, 1), None).end(), 3, "an order does not fail in one that it may not have");
    }
}
