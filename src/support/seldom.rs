//! A line of the log that would repeat.

use std::time::Duration;

use tokio::time::Instant;

/// A line that repeats is written this often at the most, if nothing else is said.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Says when a line that would repeat may be written.
#[derive(Debug)]
pub(crate) struct Seldom {
    every: Duration,
    told_at: Option<Instant>,
    untold: u64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self::every(TELL_EVERY)
    }
}

impl Seldom {
    /// One that is told this often at the most.
    pub(crate) fn every(every: Duration) -> Self {
        Self { every, told_at: None, untold: 0 }
    }

    /// How many times it was not told since the last time, if it may be told now.
    pub(crate) fn may_tell(&mut self, now: Instant) -> Option<u64> {
        if self.told_at.is_some_and(|at| now < at + self.every) {
            self.untold += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_repeats_is_told_now_and_then() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.may_tell(start), Some(0));
        assert_eq!(seldom.may_tell(start), None);
        assert_eq!(seldom.may_tell(start + TELL_EVERY), Some(1));
    }
}
