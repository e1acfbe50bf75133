//! The records role: records are written to the primary and, in addition, kept here. While the primary is
//! away they are written here only, and to the primary when it is back.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::reconcile::SET_ASIDE_AFTER;
use super::replicas::Replicas;
use super::{Core, Switching};
use crate::storage::primary::{Domain, Place};
use crate::storage::{Record, RecordKind, Records, Result, StorageError};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::counter::Counter;

/// The most records that wait for the primary; beyond it, the one with the smallest key is dropped and
/// counted.
const WAITING_MAX: usize = 100_000;

type Key = (RecordKind, String);

/// Brings to the primary what was done to records while it was away.
pub(super) struct LocalRecords {
    replicas: Arc<Replicas>,
    pub(super) waiting: Pending,
    /// The primary serves but refuses records, so no recovery waits for them.
    are_set_aside: AtomicBool,
}

/// What was done to records while the primary was away: the newest change of each.
#[derive(Debug, Default)]
pub(super) struct Pending {
    changes: Mutex<BTreeMap<Key, Numbered>>,
    /// The number of the newest change.
    numbers: AtomicU64,
    changed: Notify,
    /// Changes that were dropped because too many waited.
    pub(super) let_go: Counter,
}

/// A change, and its place among all: of two changes of a record, the one that was begun later counts.
#[derive(Debug, Clone)]
struct Numbered {
    number: u64,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    Put { value: Bytes, until: Instant },
    Deleted,
}

impl Pending {
    /// A change begins.
    fn begin(&self, change: Change) -> Numbered {
        Numbered { number: self.numbers.fetch_add(1, Ordering::Relaxed), change }
    }

    /// Adds a change to those that wait, unless a change of its record that was begun later waits.
    fn note(&self, kind: RecordKind, key: &str, change: Numbered) {
        let mut waiting = self.changes.lock();
        let key = (kind, key.to_owned());
        if waiting.get(&key).is_none_or(|held| held.number < change.number) {
            waiting.insert(key, change);
        }
        if waiting.len() > WAITING_MAX {
            waiting.pop_first();
            if self.let_go.get() == 0 {
                tracing::warn!(max = WAITING_MAX, "too many records wait for redis; some are dropped");
            }
            self.let_go.add(1);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// If a change of the record waits, keeps the newer of it and this one, so that the older is not written
    /// last. Returns whether one waited.
    fn note_if_waiting(&self, kind: RecordKind, key: &str, change: &Numbered) -> bool {
        let mut waiting = self.changes.lock();
        let held = waiting.get_mut(&(kind, key.to_owned()));
        let Some(held) = held else { return false };
        if held.number < change.number {
            *held = change.clone();
        }
        true
    }

    /// The first change after this key, in the order of keys, whose kind is one of these.
    fn after(&self, key: Option<&Key>, is_of: impl Fn(RecordKind) -> bool) -> Option<(Key, Numbered)> {
        let waiting = self.changes.lock();
        let after = key.map_or(Bound::Unbounded, Bound::Excluded);
        let next = waiting.range((after, Bound::Unbounded)).find(|((kind, _), _)| is_of(*kind));
        next.map(|(key, change)| (key.clone(), change.clone()))
    }

    /// Whether none of these kinds waits.
    pub(super) fn is_empty(&self, is_of: impl Fn(RecordKind) -> bool) -> bool {
        self.after(None, is_of).is_none()
    }

    /// The primary has this change, which waits no longer, unless the record was changed again meanwhile.
    fn done(&self, key: &Key, number: u64) {
        let mut waiting = self.changes.lock();
        if waiting.get(key).is_some_and(|held| held.number == number) {
            waiting.remove(key);
        }
    }
}

impl LocalRecords {
    pub(super) fn new(replicas: Arc<Replicas>) -> Self {
        Self { replicas, waiting: Pending::default(), are_set_aside: AtomicBool::new(false) }
    }

    /// Writes what waits to the primary, whenever there is something and the primary serves. Never
    /// ends.
    pub(super) async fn keep(&self) {
        let (breaker, waiting) = (&self.replicas.breaker, &self.waiting);
        let mut failures: u32 = 0;
        loop {
            if waiting.is_empty(|_| true) {
                waiting.changed.notified().await;
            }
            // Takes a change whose failure domain serves or, if there is none, waits for the domain of the
            // first change. Records are of few kinds, so few domains are concerned.
            let is_served = |kind| breaker.is_primary(self.domain_of(kind));
            let next = waiting.after(None, is_served).or_else(|| waiting.after(None, |_| true));
            let Some(((kind, _), _)) = next else { continue };
            let domain = self.domain_of(kind);
            breaker.until_primary(domain).await;
            let written = tokio::select! {
                biased;
                () = breaker.until_away(domain) => continue,
                written = self.write_all(domain) => written,
            };
            match written {
                Ok(()) => {
                    failures = 0;
                    self.set_aside(false);
                }
                Err(error) => {
                    tracing::debug!(error = %error, "records cannot be written yet");
                    failures += u32::from(!error.is_outage());
                    if failures == SET_ASIDE_AFTER {
                        tracing::error!(
                            error = error.with_causes(),
                            "redis does not take records; no recovery waits for them"
                        );
                        self.set_aside(true);
                    }
                    STORAGE_RETRY.pause(failures).await;
                }
            }
        }
    }

    fn set_aside(&self, are_set_aside: bool) {
        self.are_set_aside.store(are_set_aside, Ordering::Release);
        self.replicas.in_order.notify_waiters();
    }

    fn domain_of(&self, kind: RecordKind) -> Domain {
        self.replicas.breaker.domain_at(Place::Records(kind))
    }

    /// Whether no change of a failure domain's records waits, or the primary refuses records.
    pub(super) fn are_written(&self, domain: Domain) -> bool {
        let is_here = |kind| self.domain_of(kind) == domain;
        self.are_set_aside.load(Ordering::Acquire) || self.waiting.is_empty(is_here)
    }

    /// Writes what waits of a failure domain, once. A record that the primary refuses holds up no others.
    async fn write_all(&self, domain: Domain) -> Result<()> {
        let (mut last, mut failed) = (None, Ok(()));
        let is_here = |kind| self.domain_of(kind) == domain;
        while let Some((key, change)) = self.waiting.after(last.as_ref(), is_here) {
            match self.write(&key, &change.change).await {
                Ok(()) => self.waiting.done(&key, change.number),
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => failed = Err(error),
            }
            last = Some(key);
        }
        failed
    }

    async fn write(&self, key: &Key, change: &Change) -> Result<()> {
        let ((kind, name), primary) = (key, &self.replicas.breaker.primary);
        match change {
            Change::Put { value, until } => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                primary.put(*kind, name, value.clone(), left).await
            }
            Change::Deleted => primary.delete(*kind, name).await.map(|_was_there| ()),
        }
    }
}

impl Switching {
    /// Makes a call that only the primary can answer.
    async fn ask_primary<R>(
        &self,
        place: Place<'_>,
        op: &'static str,
        call: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        let breaker = &self.core.breaker;
        let answer = breaker.ask(breaker.domain_at(place), call).await;
        answer.unwrap_or(Err(StorageError::Unknown { op }))
    }

    /// Makes a call about records of a kind: of the primary or, where it is away and the kind is kept here,
    /// of memory.
    async fn look_up<R>(
        &self,
        kind: RecordKind,
        op: &'static str,
        there: impl Future<Output = Result<R>>,
        here: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        if kind.is_ephemeral() {
            return self.ask_primary(Place::Records(kind), op, there).await;
        }
        match self.core.breaker.ask(self.core.records.domain_of(kind), there).await {
            Some(answer) => answer,
            None => here.await,
        }
    }

    /// Changes a record in memory and in the primary, or has the change wait for the primary.
    async fn change<R>(
        &self,
        (kind, key, op): (RecordKind, &str, &'static str),
        change: Change,
        there: impl Future<Output = Result<R>>,
        here: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        let waiting = &self.core.records.waiting;
        if kind.is_ephemeral() {
            return self.ask_primary(Place::Records(kind), op, there).await;
        }
        let answer = here.await?;
        let change = waiting.begin(change);
        if waiting.note_if_waiting(kind, key, &change) {
            return Ok(answer);
        }
        let wait = async {
            waiting.note(kind, key, change);
            Ok(answer)
        };
        self.look_up(kind, op, there, wait).await
    }
}

#[async_trait]
impl Records for Switching {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        let Core { breaker, replicas, .. } = &*self.core;
        let change = Change::Put { value: value.clone(), until: Instant::now() + ttl };
        let here = replicas.memory.put(kind, key, value.clone(), ttl);
        self.change((kind, key, "put"), change, breaker.primary.put(kind, key, value, ttl), here).await
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        let Core { breaker, replicas, .. } = &*self.core;
        self.look_up(kind, "get", breaker.primary.get(kind, key), replicas.memory.get(kind, key)).await
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        let Core { breaker, replicas, .. } = &*self.core;
        let (there, here) = (breaker.primary.delete(kind, key), replicas.memory.delete(kind, key));
        self.change((kind, key, "delete"), Change::Deleted, there, here).await
    }

    /// While the primary is away: what this node wrote or heard of; others may have more.
    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        let Core { breaker, replicas, .. } = &*self.core;
        let here = replicas.memory.list(kind, after, limit);
        self.look_up(kind, "list", breaker.primary.list(kind, after, limit), here).await
    }

    // No leases are kept here: another node might grant the same one to itself as well.
    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        self.ask_primary(Place::Leases, "hold", self.core.breaker.primary.hold(key, holder, ttl)).await
    }

    async fn let_go(&self, key: &str, holder: &str) -> Result<()> {
        self.ask_primary(Place::Leases, "let_go", self.core.breaker.primary.let_go(key, holder)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_earlier_does_not_replace_what_was_begun_later() {
        let (records, kind) = (Pending::default(), RecordKind::Zone);
        let put = |value: &'static str| Change::Put { value: value.into(), until: Instant::now() };
        let (older, newer) = (records.begin(put("older")), records.begin(put("newer")));
        // The primary went while the calls of both were under way.
        records.note(kind, "a", newer);
        records.note(kind, "a", older.clone());
        let held = || {
            let (_, change) = records.after(None, |_| true).unwrap();
            match change.change {
                Change::Put { value, .. } => value,
                Change::Deleted => Bytes::new(),
            }
        };
        assert_eq!(held(), "newer");
        assert!(records.note_if_waiting(kind, "a", &older));
        assert_eq!(held(), "newer");
        let newest = records.begin(put("newest"));
        assert!(records.note_if_waiting(kind, "a", &newest));
        assert_eq!(held(), "newest");
        records.done(&(kind, "a".to_owned()), older.number);
        assert_eq!(held(), "newest", "another change was written");
        records.done(&(kind, "a".to_owned()), newest.number);
        assert!(records.is_empty(|_| true));
    }
}
