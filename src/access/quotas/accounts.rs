//! The accounts on which the use of principals and tenants is counted. Each exists at least until nothing
//! uses it and its quotas are as in a new one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Quota;
use crate::support::rate::{Bucket, Rate};

/// The most accounts of principals, and of tenants.
const ACCOUNTS_MAX: usize = 65_536;

/// How often, at most, unused accounts are dropped to make room.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// The account of one principal or tenant. Any thread may update it without waiting.
#[derive(Debug, Default)]
pub(super) struct Account {
    buckets: [Bucket; Quota::RATES],
    held: [AtomicU32; Quota::ALL.len() - Quota::RATES],
}

impl Account {
    /// Takes from a quota per second.
    ///
    /// # Errors
    /// Too little is left: how long until there is enough.
    pub(super) fn take(&self, quota: Quota, some: u64, rate: Rate, now: Duration) -> Result<(), Duration> {
        self.bucket(quota).map_or(Ok(()), |bucket| bucket.take(some, rate, now))
    }

    /// Returns what was taken.
    pub(super) fn give_back(&self, quota: Quota, some: u64, rate: Rate) {
        if let Some(bucket) = self.bucket(quota) {
            bucket.give_back(some, rate);
        }
    }

    /// Takes from a quota per second even if too little is left; returns how long until the debt is repaid.
    pub(super) fn charge(&self, quota: Quota, some: u64, rate: Rate, now: Duration) -> Duration {
        self.bucket(quota).map_or(Duration::ZERO, |bucket| bucket.charge(some, rate, now))
    }

    /// Adds one to a quota on a number, unless that would exceed `max`; returns whether it was added.
    pub(super) fn hold(&self, quota: Quota, max: Option<u32>) -> bool {
        let Some(held) = self.held(quota) else { return true };
        let one_more = |count: u32| max.is_none_or(|max| count < max).then(|| count.saturating_add(1));
        held.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// Subtracts from a quota on a number.
    pub(super) fn release(&self, quota: Quota, some: u32) {
        if let Some(held) = self.held(quota) {
            held.fetch_sub(some, Ordering::AcqRel);
        }
    }

    fn bucket(&self, quota: Quota) -> Option<&Bucket> {
        self.buckets.get(quota as usize)
    }

    fn held(&self, quota: Quota) -> Option<&AtomicU32> {
        self.held.get((quota as usize).checked_sub(Quota::RATES)?)
    }

    fn is_as_new(&self, now: Duration) -> bool {
        self.buckets.iter().all(|bucket| bucket.is_full(now))
            && self.held.iter().all(|held| held.load(Ordering::Acquire) == 0)
    }
}

impl AsRef<Account> for Account {
    fn as_ref(&self) -> &Account {
        self
    }
}

/// The principals, or the tenants, that are tracked. Those beyond the limit share one account, so that many
/// that come once cost no further memory.
#[derive(Debug)]
pub(super) struct Accounts<T> {
    max: usize,
    others: Arc<Account>,
    known: Mutex<Known<T>>,
}

#[derive(Debug)]
struct Known<T> {
    all: HashMap<u64, Arc<T>>,
    tidied: Option<Duration>,
}

impl<T: AsRef<Account>> Default for Accounts<T> {
    fn default() -> Self {
        Self::of(ACCOUNTS_MAX)
    }
}

impl<T: AsRef<Account>> Accounts<T> {
    pub(super) fn of(max: usize) -> Self {
        Self { max, others: Arc::default(), known: Mutex::new(Known { all: HashMap::new(), tidied: None }) }
    }

    /// The entry of a principal or tenant; `make` creates it if there is none.
    pub(super) fn get(&self, of: u64, now: Duration, make: impl FnOnce(Arc<Account>) -> Arc<T>) -> Arc<T> {
        let mut known = self.known.lock();
        if let Some(one) = known.all.get(&of) {
            return Arc::clone(one);
        }
        if known.all.len() >= self.max {
            known.tidy(now);
        }
        if known.all.len() >= self.max {
            return make(Arc::clone(&self.others));
        }
        let one = make(Arc::default());
        known.all.insert(of, Arc::clone(&one));
        one
    }

    /// How many entries there are.
    pub(super) fn count(&self) -> usize {
        self.known.lock().all.len()
    }
}

impl<T: AsRef<Account>> Known<T> {
    /// Drops the entries that nobody holds and whose account equals a new one.
    fn tidy(&mut self, now: Duration) {
        if self.tidied.is_none_or(|tidied| now.saturating_sub(tidied) >= TIDY_EVERY) {
            self.all.retain(|_, one| Arc::strong_count(one) > 1 || !(**one).as_ref().is_as_new(now));
            self.tidied = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_that_are_one_too_many_are_one() {
        let same = |account| account;
        let (accounts, rate, now) = (Accounts::<Account>::of(2), Rate { per_s: 1, burst: 1 }, Duration::ZERO);
        let take = |of, now| accounts.get(of, now, same).take(Quota::Orders, 1, rate, now).is_ok();
        assert!(take(1, now));
        let held = accounts.get(2, now, same);
        assert!(!take(1, now) && take(2, now), "who is remembered has one alone");
        assert_eq!((3..100).filter(|of| take(*of, now)).count(), 1);
        let later = Duration::from_secs(2);
        assert!(take(3, later) && take(2, later), "one that is as new is forgotten");
        assert_eq!((accounts.count(), Arc::strong_count(&held)), (2, 2), "one that somebody holds is not");
        assert!(held.hold(Quota::Connections, Some(1)) && !held.hold(Quota::Connections, Some(1)));
        drop(held);
        let much_later = Duration::from_secs(10);
        assert!(take(4, much_later) && take(5, much_later));
        assert_eq!(accounts.count(), 2);
        let again = accounts.get(2, much_later, same);
        assert!(!again.hold(Quota::Connections, Some(1)), "nor one that has something");
        again.release(Quota::Connections, 1);
        assert!(again.hold(Quota::Connections, Some(1)));
    }
}
