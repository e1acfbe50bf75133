//! A histogram of durations.

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{Live, Number, Numbers};

/// The upper bounds of the buckets, in microseconds; the last bucket has none.
pub const TIMING_BOUNDS_US: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// A histogram of durations since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(concrete(N = u64)))]
pub struct Timing<N = u64> {
    /// How many took longer than the previous bucket's bound and at most as long as this one's: 50, 100,
    /// 250 and 500 µs, 1, 2.5, 5, 10, 25, 50, 100 and 250 ms, 1 and 5 s, or longer.
    #[cfg_attr(feature = "schema", ts(type = "Array<number>"))]
    pub buckets: [N; TIMING_BOUNDS_US.len() + 1],
    /// The sum of all durations, in microseconds.
    pub sum_us: N,
}

impl<N> Timing<N> {
    /// The bucket that counts this duration.
    pub fn bucket(&self, took: Duration) -> &N {
        let us = took.as_micros();
        &self.buckets[TIMING_BOUNDS_US.iter().take_while(|bound| u128::from(**bound) < us).count()]
    }
}

impl Timing {
    /// What was observed since an earlier reading of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let buckets = std::array::from_fn(|place| self.buckets[place].saturating_sub(earlier.buckets[place]));
        Self { buckets, sum_us: self.sum_us.saturating_sub(earlier.sum_us) }
    }

    /// The duration, in milliseconds, that this share (0 to 1) of observations did not exceed; `None` if
    /// there are none. Within a bucket, observations are assumed to be spread evenly; beyond the last
    /// bound, that bound is returned.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        let count: u64 = self.buckets.iter().sum();
        if count == 0 {
            return None;
        }
        // Counts stay far below 2^53.
        let wanted = count as f64 * share;
        let (mut before, mut lower_us) = (0.0, 0.0);
        for (bound_us, &inside) in TIMING_BOUNDS_US.iter().zip(&self.buckets) {
            let (upper_us, inside) = (*bound_us as f64, inside as f64);
            if inside > 0.0 && before + inside >= wanted {
                let us = lower_us + (upper_us - lower_us) * (wanted - before).max(0.0) / inside;
                return Some(us.round() / 1_000.0);
            }
            (before, lower_us) = (before + inside, upper_us);
        }
        Some(lower_us / 1_000.0)
    }
}

impl<N: Live<Read = u64>> Live for Timing<N> {
    type Read = Timing;

    fn read(&self) -> Timing {
        Timing { buckets: self.buckets.each_ref().map(N::read), sum_us: self.sum_us.read() }
    }
}

impl AddAssign for Timing {
    fn add_assign(&mut self, other: Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, count)| *sum += count);
        self.sum_us += other.sum_us;
    }
}

impl Numbers for Timing {
    fn each(&self, to: &mut dyn FnMut(Option<&str>, Number)) {
        to(None, Number::Timing(*self));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let timing = Timing { buckets: std::array::from_fn(|place| place as u64), sum_us: 0 };
        for (us, place) in [(0, 0), (50, 0), (51, 1), (1_000, 4), (5_000_000, 13), (5_000_001, 14)] {
            assert_eq!(*timing.bucket(Duration::from_micros(us)), place, "{us}");
        }
    }
    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let none = Timing::<u64>::default();
        assert_eq!(none.quantile_ms(0.5), None);
        let mut timing = none;
        (timing.buckets[0], timing.buckets[4]) = (98, 2);
        // Half of a hundred is the 50th of 98 that took up to 50 µs; the 99th is the first of two up to 1 ms.
        assert_eq!(timing.quantile_ms(0.5), Some(0.026));
        assert_eq!(timing.quantile_ms(0.99), Some(0.75));
        assert_eq!(timing.quantile_ms(1.0), Some(1.0));
        let mut later = timing;
        later.buckets[14] += 1;
        assert_eq!(later.since(&timing).quantile_ms(0.5), Some(5_000.0));
        assert_eq!(timing.since(&timing).quantile_ms(0.5), None);
    }
}
