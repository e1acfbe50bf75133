//! How long something took, as a histogram.

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::table::{Live, Number, Numbers};

/// The upper bounds of the buckets, in microseconds; the last bucket has none.
pub const TIMING_BOUNDS_US: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000];

/// How long something took, each time since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(concrete(N = u64)))]
pub struct Timing<N = u64> {
    /// How many times it took longer than the bucket before says, and at the most as long as this one says:
    /// 50, 100, 250 and 500 µs, 1, 2.5, 5, 10, 25, 50, 100 and 250 ms, 1 and 5 s, or longer.
    #[cfg_attr(feature = "ts", ts(type = "Array<number>"))]
    pub buckets: [N; TIMING_BOUNDS_US.len() + 1],
    /// All of them together, in microseconds.
    pub sum_us: N,
}

impl<N> Timing<N> {
    /// The bucket that counts what took so long.
    pub fn bucket(&self, took: Duration) -> &N {
        let us = took.as_micros();
        &self.buckets[TIMING_BOUNDS_US.iter().take_while(|bound| u128::from(**bound) < us).count()]
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
}
