//! What one node knows of one registry, and what it has yet to append. Performs no I/O.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::clock::Version;
use super::kind::RegistryKind;
use super::record::{Body, Change, Record};
use super::table::{Outcome, Table};

/// How much later than its writer other nodes let a record expire, so that usually only the writer appends
/// the removal.
const OTHERS_WAIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Core {
    /// This node, as versions name it.
    pub(super) me: u64,
    pub(super) table: Table,
    ttl: Duration,
    /// Keys that wait to be appended, each once and since when; the record is read when it is appended.
    waiting: VecDeque<(Arc<str>, Instant)>,
    is_waiting: HashSet<Arc<str>>,
    /// The keys in the append in progress.
    under_way: Vec<(Arc<str>, Instant)>,
    /// Records of other writers of which an older version was found in the log, once so far.
    suspects: HashMap<Arc<str>, Version>,
    /// Entries of others that lost to a greater version known here.
    pub(super) superseded: u64,
}

impl Core {
    pub(super) fn new(kind: RegistryKind, me: u64, ttl: Duration) -> Self {
        Self {
            me,
            table: Table::new(kind),
            ttl,
            waiting: VecDeque::new(),
            is_waiting: HashSet::new(),
            under_way: Vec::new(),
            suspects: HashMap::new(),
            superseded: 0,
        }
    }

    // Writing

    /// Writes a record, which is visible at once.
    pub(super) fn write(
        &mut self,
        body: Body,
        bound_to: Option<u64>,
        wall_ms: u64,
        now: Instant,
    ) -> Arc<Record> {
        let Body { key, json } = body;
        let version = Version::next(wall_ms, self.me, self.table.version(&key));
        let record = Arc::new(Record { key: Arc::clone(&key), version, json, bound_to });
        self.take_own(Change { key, version, record: Some(Arc::clone(&record)) }, now);
        record
    }

    /// Removes a record, if it exists.
    pub(super) fn remove(&mut self, key: &str, wall_ms: u64, now: Instant) -> Option<Arc<Record>> {
        let record = Arc::clone(self.table.get(key)?);
        let version = Version::next(wall_ms, self.me, self.table.version(key)).removal();
        self.take_own(Change { key: Arc::clone(&record.key), version, record: None }, now);
        Some(record)
    }

    fn take_own(&mut self, change: Change, now: Instant) {
        let key = Arc::clone(&change.key);
        self.table.apply(change, now + self.ttl, now);
        self.wait(key, now);
    }

    /// Removes records that have expired; with `of_others`, also those that other nodes wrote. Such a removal
    /// removes exactly the record's version, so it loses to a renewal that happened anywhere meanwhile.
    pub(super) fn expire(&mut self, of_others: bool, now: Instant) -> u64 {
        let mut count = 0;
        for record in self.table.expired(now) {
            if !of_others && record.version.node != self.me {
                continue;
            }
            let (key, version) = (Arc::clone(&record.key), record.version.removal());
            self.take_own(Change { key, version, record: None }, now);
            count += 1;
        }
        self.table.forget_removals(now);
        count
    }

    // Appending

    fn wait(&mut self, key: Arc<str>, now: Instant) {
        if self.is_waiting.insert(Arc::clone(&key)) {
            self.waiting.push_back((key, now));
        }
    }

    /// How many keys wait to be appended, including those being appended.
    pub(super) fn behind(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }

    /// Since when the oldest of these keys has waited.
    pub(super) fn behind_since(&self) -> Option<Instant> {
        let first = |keys: Option<&(Arc<str>, Instant)>| keys.map(|(_, since)| *since);
        first(self.under_way.first()).into_iter().chain(first(self.waiting.front())).min()
    }

    /// Whether the newest write of a key has yet to be appended.
    pub(super) fn is_behind(&self, key: &str) -> bool {
        self.is_waiting.contains(key) || self.under_way.iter().any(|(known, _)| **known == *key)
    }

    /// The changes to append next; they count as being appended until [`appended`](Self::appended) reports
    /// the outcome.
    pub(super) fn take(&mut self, max: usize) -> Vec<Change> {
        debug_assert!(self.under_way.is_empty());
        let mut changes = Vec::new();
        while changes.len() < max
            && let Some((key, since)) = self.waiting.pop_front()
        {
            self.is_waiting.remove(&key);
            // A removal may have been forgotten meanwhile.
            if let Some(change) = self.table.change(&key) {
                changes.push(change);
                self.under_way.push((key, since));
            }
        }
        changes
    }

    /// The first `count` changes being appended are in the log; the others are tried again before all else.
    pub(super) fn appended(&mut self, count: usize) {
        for (key, since) in std::mem::take(&mut self.under_way).into_iter().skip(count).rev() {
            if self.is_waiting.insert(Arc::clone(&key)) {
                self.waiting.push_front((key, since));
            }
        }
    }

    // Receiving

    /// Applies a change from the log, in whatever order changes arrive.
    pub(super) fn hear(&mut self, change: Change, now: Instant) -> Outcome {
        let (key, is_mine) = (Arc::clone(&change.key), change.version.node == self.me);
        let wait = if is_mine { Duration::ZERO } else { OTHERS_WAIT };
        let outcome = self.table.apply(change, now + self.ttl + wait, now);
        if outcome == Outcome::Older && is_mine {
            // This node's later write follows in the log, or waits to be appended.
            return Outcome::Known;
        }
        if outcome == Outcome::Older {
            self.superseded += 1;
            self.put_right(&key, now);
        } else {
            self.suspects.remove(&key);
        }
        outcome
    }

    /// The log has an older version of a key than is known here. The writer of the known version appends it
    /// again; if that node is gone, any node does that finds the key in this state twice.
    fn put_right(&mut self, key: &Arc<str>, now: Instant) {
        let Some(known) = self.table.version(key) else { return };
        if known.node == self.me || self.suspects.get(key) == Some(&known) {
            self.suspects.remove(key);
            if !self.is_behind(key) {
                self.wait(Arc::clone(key), now);
            }
        } else {
            self.suspects.insert(Arc::clone(key), known);
        }
    }

    /// Compares the versions known before the log was read with those read from it. True if another
    /// comparison is due soon.
    pub(super) fn compare(
        &mut self,
        before: &HashMap<Arc<str>, Version>,
        stored: &HashMap<Arc<str>, Version>,
        now: Instant,
    ) -> bool {
        for (key, known) in before {
            let held = stored.get(key);
            let is_lacking = held.is_none_or(|held| held < known);
            // A removal of a key that the log does not have need not be appended.
            let is_needless = held.is_none() && known.is_removal();
            if is_lacking && !is_needless && self.table.version(key) == Some(*known) {
                self.put_right(key, now);
            }
        }
        let known = |key: &Arc<str>, version: &Version| self.table.version(key) == Some(*version);
        let suspects = std::mem::take(&mut self.suspects);
        self.suspects = suspects.into_iter().filter(|(key, version)| known(key, version)).collect();
        !self.suspects.is_empty()
    }
}
