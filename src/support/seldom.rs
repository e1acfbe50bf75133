//! A line of the log that would repeat.

use std::time::Duration;

use tokio::time::Instant;

/// A line that repeats is written this often at the most.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Says when a line that would repeat may be written.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    told_at: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// How many times it was not told since the last time, if it may be told now.
    pub(crate) fn may_tell(&mut self, now: Instant) -> Option<u64> {
        if self.told_at.is_some_and(|at| now < at + TELL_EVERY) {
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
