//! Rate limits, for each of many keys.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The most keys that are tracked.
const KEYS_MAX: usize = 65_536;

/// How often, at most, keys whose buckets are full are dropped to make room.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// How fast a [`Bucket`] fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Tokens a second. At least 1, except in [`Rates`].
    pub(crate) per_s: u32,
    /// The most tokens. At least 1.
    pub(crate) burst: u64,
}

/// A token bucket in one number, as in GCRA: the time at which it will be full. Any thread takes from it
/// without waiting. The caller passes the time since some fixed instant.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// In nanoseconds.
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes tokens. A request for more than the bucket holds succeeds when the bucket is full, and leaves
    /// a debt, so that large requests have to wait but are not refused for ever.
    ///
    /// # Errors
    /// There are too few: how long until there are enough, if nobody takes any before.
    pub(crate) fn take(&self, some: u64, rate: Rate, now: Duration) -> Result<(), Duration> {
        let (now, cost, room) = (nanoseconds(now), rate.cost(some), rate.room());
        let mut wait = 0;
        let taken = self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, |full_at| {
            let full_at = full_at.max(now);
            wait = full_at.saturating_add(cost.min(room)).saturating_sub(now.saturating_add(room));
            (wait == 0).then(|| full_at.saturating_add(cost))
        });
        taken.map(drop).map_err(|_full_at| Duration::from_nanos(wait))
    }

    /// Takes tokens even if there are too few; returns how long until the debt is repaid, if there is one.
    pub(crate) fn charge(&self, some: u64, rate: Rate, now: Duration) -> Duration {
        let (now, cost) = (nanoseconds(now), rate.cost(some));
        let mut full_at = 0;
        let charge = |held: u64| {
            full_at = held.max(now).saturating_add(cost);
            Some(full_at)
        };
        // The closure always returns a value, so this cannot fail.
        let _held = self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, charge);
        Duration::from_nanos(full_at.saturating_sub(now.saturating_add(rate.room())))
    }

    /// Returns tokens that were [taken](Self::take).
    pub(crate) fn give_back(&self, some: u64, rate: Rate) {
        let cost = rate.cost(some);
        let give = |held: u64| Some(held.saturating_sub(cost));
        let _held = self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, give);
    }

    /// Whether the bucket is full, like a new one.
    pub(crate) fn is_full(&self, now: Duration) -> bool {
        self.full_at.load(Ordering::Acquire) <= nanoseconds(now)
    }
}

impl Rate {
    /// The time in nanoseconds in which this many tokens accumulate.
    fn cost(self, some: u64) -> u64 {
        let cost = u128::from(some) * 1_000_000_000 / u128::from(self.per_s.max(1));
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    fn room(self) -> u64 {
        self.cost(self.burst.max(1))
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A token bucket for each key, which holds `burst` tokens and gains `per_s` a second. Keys beyond the limit
/// share a bucket, so that many that come once cost no further memory.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    /// 0 tokens a second let everything through.
    rate: Rate,
    began: Instant,
    keys_max: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    buckets: HashMap<K, Bucket>,
    /// The bucket of the keys that are not tracked.
    others: Bucket,
    tidied: Option<Duration>,
}

impl<K: Eq + Hash> Rates<K> {
    /// `per_s` of 0 lets everything through.
    pub(crate) fn new(per_s: u32, burst: u32) -> Self {
        let rate = Rate { per_s, burst: burst.into() };
        let state = State { buckets: HashMap::new(), others: Bucket::default(), tidied: None };
        Self { rate, began: Instant::now(), keys_max: KEYS_MAX, state: Mutex::new(state) }
    }

    /// Takes one of a key's tokens; returns whether there was one.
    pub(crate) fn allows(&self, key: K, now: Instant) -> bool {
        if self.rate.per_s == 0 {
            return true;
        }
        let now = now.saturating_duration_since(self.began);
        let mut state = self.state.lock();
        let is_known = state.buckets.contains_key(&key);
        if !is_known && state.buckets.len() >= self.keys_max {
            state.tidy(now);
        }
        let has_room = is_known || state.buckets.len() < self.keys_max;
        let bucket = if has_room { state.buckets.entry(key).or_default() } else { &mut state.others };
        bucket.take(1, self.rate, now).is_ok()
    }
}

impl<K: Eq + Hash> State<K> {
    /// Drops the keys whose buckets are full.
    fn tidy(&mut self, now: Duration) {
        if self.tidied.is_none_or(|tidied| now.saturating_sub(tidied) >= TIDY_EVERY) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.tidied = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (rates, start) = (Rates::new(10, 5), Instant::now());
        let passed = |ms: u64, key| {
            let now = start + Duration::from_millis(ms);
            (0..20).filter(|_| rates.allows(key, now)).count()
        };
        assert_eq!((passed(0, "a"), passed(0, "b")), (5, 5));
        assert_eq!((passed(99, "a"), passed(100, "a"), passed(300, "a")), (0, 1, 2));
        assert_eq!(passed(60_000, "a"), 5, "no more than the burst is saved up");
        let all = Rates::new(0, 5);
        assert!((0..1_000).all(|_| all.allows("a", start)));
    }

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_what_it_gets() {
        let (bucket, rate) = (Bucket::default(), Rate { per_s: 10, burst: 20 });
        let at = Duration::from_millis;
        let passed = |ms| (0..50).filter(|_| bucket.take(1, rate, at(ms)).is_ok()).count();
        assert_eq!((passed(0), passed(99), passed(100), passed(350)), (20, 0, 1, 2));
        assert_eq!(bucket.take(1, rate, at(350)), Err(at(50)), "it says when to come back");
        assert_eq!(bucket.take(1, rate, at(400)), Ok(()));
        assert_eq!(passed(1_000_000), 20, "no more is saved up");
        assert!(!bucket.is_full(at(1_001_999)) && bucket.is_full(at(1_002_000)));
    }

    #[test]
    fn what_is_more_than_a_bucket_holds_waits_for_all_of_it_and_is_paid_for_later() {
        let (bucket, rate) = (Bucket::default(), Rate { per_s: 10, burst: 10 });
        let at = Duration::from_millis;
        assert_eq!(bucket.take(1, rate, at(0)), Ok(()));
        assert_eq!(bucket.take(50, rate, at(0)), Err(at(100)));
        assert_eq!(bucket.take(50, rate, at(100)), Ok(()));
        assert_eq!(bucket.take(1, rate, at(100)), Err(at(4_100)), "nothing of it was for nothing");
        bucket.give_back(50, rate);
        assert_eq!(bucket.take(10, rate, at(100)), Ok(()));
        assert_eq!(bucket.charge(5, rate, at(100)), at(500));
        assert_eq!(bucket.charge(0, rate, at(700)), at(0));
    }

    #[test]
    fn keys_that_are_one_too_many_share_a_bucket() {
        let rates = Rates { keys_max: 3, ..Rates::new(1, 2) };
        let start = Instant::now();
        assert!((0..3).all(|key| rates.allows(key, start)));
        let others = (3..100).filter(|key| rates.allows(*key, start)).count();
        assert_eq!(others, 2);
        assert!(rates.allows(0, start), "a tracked key does not share its bucket");
        let later = start + Duration::from_secs(2);
        assert!(rates.allows(100, later), "buckets that are full again are forgotten");
        assert_eq!(rates.state.lock().buckets.len(), 1);
    }
}
