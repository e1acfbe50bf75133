//! How often something may happen, for each of many.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Keys of which it is remembered how often they came.
const KEYS_MAX: usize = 65_536;

/// Between two looks for keys that need not be remembered any more.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// A token bucket for each key: it holds `burst`, and gets `per_s` a second (kept as GCRA does, by
/// the moment at which the bucket will be full again). Keys that are one too many to be remembered
/// share a bucket, so that many who come once cost no more memory than this.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    /// What one costs; zero lets all through.
    each: Duration,
    burst: u32,
    keys_max: usize,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    full_at: HashMap<K, Instant>,
    /// The bucket of the keys that are not remembered.
    others_full_at: Option<Instant>,
    tidied: Option<Instant>,
}

impl<K: Eq + Hash> Rates<K> {
    /// `per_s` of 0 lets all through.
    pub(crate) fn new(per_s: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1).checked_div(per_s).unwrap_or_default();
        let state = State { full_at: HashMap::new(), others_full_at: None, tidied: None };
        Self { each, burst: burst.max(1), keys_max: KEYS_MAX, state: Mutex::new(state) }
    }

    /// Takes one of a key's tokens; says whether there was one.
    pub(crate) fn allows(&self, key: K, now: Instant) -> bool {
        if self.each.is_zero() {
            return true;
        }
        let mut state = self.state.lock();
        let is_known = state.full_at.contains_key(&key);
        if !is_known && state.full_at.len() >= self.keys_max {
            state.tidy(now);
        }
        let has_room = is_known || state.full_at.len() < self.keys_max;
        let held = if has_room { state.full_at.get(&key).copied() } else { state.others_full_at };
        let full_at = held.unwrap_or(now).max(now) + self.each;
        if full_at.duration_since(now) > self.each * self.burst {
            return false;
        }
        if has_room {
            state.full_at.insert(key, full_at);
        } else {
            state.others_full_at = Some(full_at);
        }
        true
    }
}

impl<K: Eq + Hash> State<K> {
    /// Forgets the keys whose buckets are full.
    fn tidy(&mut self, now: Instant) {
        if self.tidied.is_none_or(|tidied| now.duration_since(tidied) >= TIDY_EVERY) {
            self.full_at.retain(|_, full_at| *full_at > now);
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
    fn keys_that_are_one_too_many_share_a_bucket() {
        let start = Instant::now();
        let rates = Rates { keys_max: 3, ..Rates::new(1, 2) };
        assert!((0..3).all(|key| rates.allows(key, start)));
        let others = (3..100).filter(|key| rates.allows(*key, start)).count();
        assert_eq!(others, 2);
        assert!(rates.allows(0, start), "who is remembered has a bucket alone");
        let later = start + Duration::from_secs(2);
        assert!(rates.allows(100, later), "buckets that are full again are forgotten");
        assert_eq!(rates.state.lock().full_at.len(), 1);
    }
}
