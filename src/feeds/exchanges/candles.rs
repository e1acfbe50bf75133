//! Candles of exchanges that do not say when a candle is closed: the clock decides.

use chrono::{DateTime, TimeDelta, Utc};

use super::decimal::Decimal;

/// How long after its end a candle stays open: the last trades may still arrive.
const GRACE: TimeDelta = TimeDelta::seconds(2);

/// A candle as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candle {
    pub(super) open_time: DateTime<Utc>,
    /// Open, high, low, close and volume.
    pub(super) values: [String; 5],
}

impl Candle {
    /// `values` are open, high, low, close and volume.
    pub(super) fn new(open_time: DateTime<Utc>, values: [Decimal<'_>; 5]) -> Self {
        Self { open_time, values: values.map(|value| value.text().to_owned()) }
    }
}

/// A candle that is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CandleEvent {
    pub(super) candle: Candle,
    pub(super) is_closed: bool,
    /// Whether it corrects one that was published as closed.
    pub(super) is_correction: bool,
}

/// The newest candle of a symbol, and the newest closed one.
#[derive(Debug, Default)]
pub(super) struct Candles {
    current: Option<Candle>,
    /// The newest one that was published as closed.
    closed: Option<Candle>,
}

impl Candles {
    /// Takes a candle as the exchange now has it.
    pub(super) fn offer(
        &mut self,
        candle: Candle,
        length: TimeDelta,
        now: DateTime<Utc>,
    ) -> Vec<CandleEvent> {
        let mut events = Vec::new();
        // A candle that begins in the future has a wrong time. It is dropped when an earlier one arrives,
        // which it would hide. (If this machine's clock is behind, all candles begin in the future, but they
        // arrive in order, so none is dropped.)
        let is_wrong = |known: &mut Candle| known.open_time > now && known.open_time > candle.open_time;
        self.closed.take_if(is_wrong);
        self.current.take_if(is_wrong);
        if let Some(closed) = self.closed.as_mut().filter(|closed| candle.open_time <= closed.open_time) {
            // A candle older than the last closed one is ignored.
            if candle.open_time == closed.open_time && *closed != candle {
                *closed = candle.clone();
                events.push(CandleEvent { candle, is_closed: true, is_correction: true });
            }
            return events;
        }
        match self.current.take() {
            // A later candle shows that this one is over.
            Some(before) if before.open_time < candle.open_time => events.push(self.close(before)),
            Some(before) if before.open_time > candle.open_time => {
                self.current = Some(before);
                return events;
            }
            _ => {}
        }
        if now >= candle.open_time + length + GRACE {
            events.push(self.close(candle));
        } else {
            events.push(CandleEvent { candle: candle.clone(), is_closed: false, is_correction: false });
            self.current = Some(candle);
        }
        events
    }

    /// Closes the current candle if its time is over.
    pub(super) fn tick(&mut self, length: TimeDelta, now: DateTime<Utc>) -> Option<CandleEvent> {
        let is_over = |candle: &mut Candle| now >= candle.open_time + length + GRACE;
        let candle = self.current.take_if(is_over)?;
        Some(self.close(candle))
    }

    fn close(&mut self, candle: Candle) -> CandleEvent {
        self.closed = Some(candle.clone());
        CandleEvent { candle, is_closed: true, is_correction: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candle(minute: u32, close: &str) -> Candle {
        let open_time = DateTime::UNIX_EPOCH + TimeDelta::minutes(minute.into());
        Candle { open_time, values: ["1", "3", "1", close, "10"].map(str::to_owned) }
    }

    fn at(minute: u32, second: u32) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(i64::from(minute * 60 + second))
    }

    const MINUTE: TimeDelta = TimeDelta::minutes(1);

    /// The closing price of each, and whether it is closed, and a correction.
    fn words(events: &[CandleEvent]) -> Vec<(&str, bool, bool)> {
        let words = events
            .iter()
            .map(|event| (event.candle.values[3].as_str(), event.is_closed, event.is_correction));
        words.collect()
    }

    #[test]
    fn a_candle_is_closed_by_the_clock_and_corrected_by_a_late_trade() {
        let mut candles = Candles::default();
        assert_eq!(words(&candles.offer(candle(0, "1"), MINUTE, at(0, 10))), [("1", false, false)]);
        assert_eq!(words(&candles.offer(candle(0, "2"), MINUTE, at(0, 50))), [("2", false, false)]);
        assert_eq!(candles.tick(MINUTE, at(1, 1)), None, "the last trades may still arrive");
        let closed = candles.tick(MINUTE, at(1, 2)).unwrap();
        assert_eq!(words(&[closed]), [("2", true, false)]);
        assert_eq!(candles.tick(MINUTE, at(1, 3)), None, "once");
        assert_eq!(candles.offer(candle(0, "2"), MINUTE, at(1, 4)), [], "nothing new");
        assert_eq!(words(&candles.offer(candle(0, "2.5"), MINUTE, at(1, 5))), [("2.5", true, true)]);
        assert_eq!(words(&candles.offer(candle(1, "3"), MINUTE, at(1, 6))), [("3", false, false)]);
        assert_eq!(words(&candles.offer(candle(0, "2.6"), MINUTE, at(1, 7))), [("2.6", true, true)]);
    }

    #[test]
    fn a_later_candle_closes_the_one_before() {
        let mut candles = Candles::default();
        candles.offer(candle(0, "1"), MINUTE, at(0, 10));
        let told = candles.offer(candle(1, "2"), MINUTE, at(1, 0));
        assert_eq!(words(&told), [("1", true, false), ("2", false, false)]);
        assert_eq!(words(&candles.offer(candle(0, "9"), MINUTE, at(1, 1))), [("9", true, true)]);
        // A candle that arrives long after its end, as at the start of a stream, is closed at once.
        let told = candles.offer(candle(5, "4"), MINUTE, at(9, 0));
        assert_eq!(words(&told), [("2", true, false), ("4", true, false)]);
    }

    #[test]
    fn a_candle_far_ahead_does_not_hide_the_next_ones() {
        let mut candles = Candles::default();
        candles.offer(candle(0, "1"), MINUTE, at(0, 10));
        candles.offer(candle(500, "9"), MINUTE, at(0, 11));
        candles.offer(candle(501, "9"), MINUTE, at(0, 12));
        assert_eq!(words(&candles.offer(candle(1, "2"), MINUTE, at(1, 5))), [("2", false, false)]);
        assert_eq!(
            words(&candles.offer(candle(2, "3"), MINUTE, at(2, 1))),
            [("2", true, false), ("3", false, false)]
        );
        // The clock of this machine is behind.
        let mut behind = Candles::default();
        assert_eq!(words(&behind.offer(candle(60, "1"), MINUTE, at(0, 1))), [("1", false, false)]);
        assert_eq!(
            words(&behind.offer(candle(61, "2"), MINUTE, at(1, 1))),
            [("1", true, false), ("2", false, false)]
        );
        assert_eq!(words(&behind.offer(candle(61, "3"), MINUTE, at(1, 2))), [("3", false, false)]);
    }
}
