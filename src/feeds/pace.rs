//! When the next price of a file is due.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// How fast a file is replayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As fast as possible.
    FlatOut,
    /// By the file's times, accelerated by this factor (more than 0).
    Times(f64),
}

/// Says when prices are due, relative to the first of them. Has no clock.
#[derive(Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    first: Option<DateTime<Utc>>,
}

impl Pacer {
    /// Time starts with the first price that has a time.
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, first: None }
    }

    /// How long after the first price this one is due. Zero, that is at once, for prices without a time and
    /// for prices older than the first.
    pub(crate) fn due(&mut self, time: Option<DateTime<Utc>>) -> Duration {
        let (Pace::Times(speed), Some(time)) = (self.pace, time) else { return Duration::ZERO };
        let first = *self.first.get_or_insert(time);
        let since_first = (time - first).to_std().unwrap_or(Duration::ZERO);
        // More than a `Duration` can hold is as good as forever.
        Duration::try_from_secs_f64(since_first.as_secs_f64() / speed).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(1_600_000_000 + seconds, 0)
    }

    #[test]
    fn intervals_are_those_of_the_file_divided_by_the_speed() {
        let mut pacer = Pacer::new(Pace::Times(10.0));
        assert_eq!(pacer.due(None), Duration::ZERO);
        assert_eq!(pacer.due(at(0)), Duration::ZERO);
        assert_eq!(pacer.due(at(300)), Duration::from_secs(30));
        assert_eq!(pacer.due(at(-5)), Duration::ZERO);
        assert_eq!(pacer.due(at(310)), Duration::from_secs(31));
    }

    #[test]
    fn flat_out_waits_for_nothing() {
        let mut pacer = Pacer::new(Pace::FlatOut);
        assert_eq!((pacer.due(at(0)), pacer.due(at(900))), (Duration::ZERO, Duration::ZERO));
    }
}
