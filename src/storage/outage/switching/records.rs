//! The records role: written to the primary and kept here besides; while the primary is away, written
//! here alone, and to the primary when it is back.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::rejoin::SET_ASIDE_AFTER;
use super::{Core, Switching};
use crate::storage::primary::{Area, Place};
use crate::storage::{Record, RecordKind, Records, Result, StorageError};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::counter::Counter;

/// Records that wait for the primary. Past it the one with the smallest key goes, counted.
const WAITING_MAX: usize = 100_000;

type Key = (RecordKind, String);

/// What was done to records while the primary was away: the newest change of each.
#[derive(Debug, Default)]
pub(super) struct LocalRecords {
    waiting: Mutex<BTreeMap<Key, Numbered>>,
    /// The number of the newest change.
    numbers: AtomicU64,
    /// The primary serves, and does not take them.
    are_set_aside: AtomicBool,
    changed: Notify,
    /// Those that went because too many waited.
    pub(super) let_go: Counter,
}

/// A change, and its place among all: what was begun later counts.
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

impl LocalRecords {
    /// A change begins.
    fn begin(&self, change: Change) -> Numbered {
        Numbered { number: self.numbers.fetch_add(1, Ordering::Relaxed), change }
    }

    /// Has a change wait, unless one that was begun later does.
    fn note(&self, kind: RecordKind, key: &str, change: Numbered) {
        let mut waiting = self.waiting.lock();
        let key = (kind, key.to_owned());
        if waiting.get(&key).is_none_or(|held| held.number < change.number) {
            waiting.insert(key, change);
        }
        if waiting.len() > WAITING_MAX {
            waiting.pop_first();
            if self.let_go.get() == 0 {
                tracing::warn!(max = WAITING_MAX, "too many records wait for redis; counting those let go");
            }
            self.let_go.add(1);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// The same, where an older change of the record waits, which must not come after it. Says whether
    /// it does.
    fn note_if_waiting(&self, kind: RecordKind, key: &str, change: &Numbered) -> bool {
        let mut waiting = self.waiting.lock();
        let held = waiting.get_mut(&(kind, key.to_owned()));
        let Some(held) = held else { return false };
        if held.number < change.number {
            *held = change.clone();
        }
        true
    }

    /// The change after that of this record, in the order of their keys, of those kinds.
    fn after(&self, key: Option<&Key>, is_of: impl Fn(RecordKind) -> bool) -> Option<(Key, Numbered)> {
        let waiting = self.waiting.lock();
        let after = key.map_or(Bound::Unbounded, Bound::Excluded);
        let next = waiting.range((after, Bound::Unbounded)).find(|((kind, _), _)| is_of(*kind));
        next.map(|(key, change)| (key.clone(), change.clone()))
    }

    /// Whether none waits, of those kinds.
    pub(super) fn is_empty(&self, is_of: impl Fn(RecordKind) -> bool) -> bool {
        self.after(None, is_of).is_none()
    }

    /// The primary has it, unless it was changed again meanwhile.
    fn done(&self, key: &Key, number: u64) {
        let mut waiting = self.waiting.lock();
        if waiting.get(key).is_some_and(|held| held.number == number) {
            waiting.remove(key);
        }
    }
}

impl Core {
    /// Writes what waits to the primary, whenever there is something and the primary serves. Never
    /// ends.
    pub(super) async fn keep_records(&self) {
        let mut failures: u32 = 0;
        loop {
            if self.records.is_empty(|_| true) {
                self.records.changed.notified().await;
            }
            // They are of few kinds: the area of the first is waited for, unless another one serves.
            let is_served = |kind| self.is_primary(self.area_of_kind(kind));
            let next = self.records.after(None, is_served).or_else(|| self.records.after(None, |_| true));
            let Some(((kind, _), _)) = next else { continue };
            let area = self.area_of_kind(kind);
            self.until_primary(area).await;
            let written = tokio::select! {
                biased;
                () = self.until_away(area) => continue,
                written = self.write_records(area) => written,
            };
            match written {
                Ok(()) => {
                    failures = 0;
                    self.records.are_set_aside.store(false, Ordering::Release);
                    self.in_order.notify_waiters();
                }
                Err(error) => {
                    tracing::debug!(error = %error, "records cannot be written yet");
                    failures += u32::from(!error.is_outage());
                    if failures == SET_ASIDE_AFTER {
                        tracing::error!(
                            error = error.with_causes(),
                            "redis does not take records; no recovery waits for them"
                        );
                        self.records.are_set_aside.store(true, Ordering::Release);
                        self.in_order.notify_waiters();
                    }
                    STORAGE_RETRY.pause(failures).await;
                }
            }
        }
    }

    fn area_of_kind(&self, kind: RecordKind) -> Area {
        self.primary.area_of(Place::Records(kind))
    }

    /// Whether no record of an area waits that can be written.
    pub(super) fn has_written_records(&self, area: Area) -> bool {
        let is_here = |kind| self.area_of_kind(kind) == area;
        self.records.are_set_aside.load(Ordering::Acquire) || self.records.is_empty(is_here)
    }

    /// The same once, for what is in an area. A record that the primary does not take holds up no others.
    async fn write_records(&self, area: Area) -> Result<()> {
        let (mut last, mut failed) = (None, Ok(()));
        let is_here = |kind| self.area_of_kind(kind) == area;
        while let Some((key, change)) = self.records.after(last.as_ref(), is_here) {
            match self.write_record(&key, &change.change).await {
                Ok(()) => self.records.done(&key, change.number),
                Err(error) if error.is_outage() => return Err(error),
                Err(error) => failed = Err(error),
            }
            last = Some(key);
        }
        failed
    }

    async fn write_record(&self, key: &Key, change: &Change) -> Result<()> {
        let (kind, name) = key;
        match change {
            Change::Put { value, until } => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                self.primary.put(*kind, name, value.clone(), left).await
            }
            Change::Deleted => self.primary.delete(*kind, name).await.map(|_was_there| ()),
        }
    }
}

impl Core {
    /// Makes a call that the primary alone can answer.
    async fn ask_alone<R>(
        &self,
        place: Place<'_>,
        op: &'static str,
        call: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        let answer = self.ask(self.primary.area_of(place), call).await;
        answer.unwrap_or(Err(StorageError::Unknown { op }))
    }
}

#[async_trait]
impl Records for Switching {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        let core = &self.core;
        if kind.is_of_the_moment() {
            let put = core.primary.put(kind, key, value, ttl);
            return core.ask_alone(Place::Records(kind), "put", put).await;
        }
        core.memory.put(kind, key, value.clone(), ttl).await?;
        let change = core.records.begin(Change::Put { value: value.clone(), until: Instant::now() + ttl });
        if core.records.note_if_waiting(kind, key, &change) {
            return Ok(());
        }
        match core.ask(core.area_of_kind(kind), core.primary.put(kind, key, value, ttl)).await {
            Some(answer) => answer,
            None => {
                core.records.note(kind, key, change);
                Ok(())
            }
        }
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        let core = &self.core;
        if kind.is_of_the_moment() {
            return core.ask_alone(Place::Records(kind), "get", core.primary.get(kind, key)).await;
        }
        match core.ask(core.area_of_kind(kind), core.primary.get(kind, key)).await {
            Some(answer) => answer,
            None => core.memory.get(kind, key).await,
        }
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        let core = &self.core;
        if kind.is_of_the_moment() {
            return core.ask_alone(Place::Records(kind), "delete", core.primary.delete(kind, key)).await;
        }
        let was_here = core.memory.delete(kind, key).await?;
        let change = core.records.begin(Change::Deleted);
        if core.records.note_if_waiting(kind, key, &change) {
            return Ok(was_here);
        }
        match core.ask(core.area_of_kind(kind), core.primary.delete(kind, key)).await {
            Some(answer) => answer,
            None => {
                core.records.note(kind, key, change);
                Ok(was_here)
            }
        }
    }

    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        let core = &self.core;
        if kind.is_of_the_moment() {
            let list = core.primary.list(kind, after, limit);
            return core.ask_alone(Place::Records(kind), "list", list).await;
        }
        match core.ask(core.area_of_kind(kind), core.primary.list(kind, after, limit)).await {
            Some(answer) => answer,
            // What this node wrote or heard of; others may have more.
            None => core.memory.list(kind, after, limit).await,
        }
    }

    // Nothing of leases is kept here: what a node granted itself, another one might have as well.
    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        let core = &self.core;
        core.ask_alone(Place::Leases, "hold", core.primary.hold(key, holder, ttl)).await
    }

    async fn let_go(&self, key: &str, holder: &str) -> Result<()> {
        let core = &self.core;
        core.ask_alone(Place::Leases, "let_go", core.primary.let_go(key, holder)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_earlier_does_not_replace_what_was_begun_later() {
        let (records, kind) = (LocalRecords::default(), RecordKind::Zone);
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
