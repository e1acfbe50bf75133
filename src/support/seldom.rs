//! Limits repeating log lines.

use std::time::Duration;

use tokio::time::Instant;

/// The default interval between repetitions of a line.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Decides when a repeating line may be written.
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
    /// Permits a line at most once in this interval.
    pub(crate) fn every(every: Duration) -> Self {
        Self { every, told_at: None, untold: 0 }
    }

    /// Returns, if the line may be written now, how often it was suppressed since it was last written.
    pub(crate) fn may_tell(&mut self, now: Instant) -> Option<u64> {
        if self.told_at.is_some_and(|at| now < at + self.every) {
            self.untold += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

/// Writes a warning as [`warn!`](tracing::warn) does, if it is time for it, with how many were suppressed.
macro_rules! warn_seldom {
    ($seldom:expr, $($line:tt)+) => {
        if let Some(untold) = $seldom.may_tell(tokio::time::Instant::now()) {
            tracing::warn!(untold, $($line)+);
        }
    };
}

pub(crate) use warn_seldom;

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
