//! The records of a registry in memory: by key, by the values of indexed fields, and by expiry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::clock::Version;
use super::kind::RegistryKind;
use super::record::{Change, Record, plains};
use crate::storage::{REMOVED_KEPT_FOR, REMOVED_MAX};

/// How many removals are remembered: fewer than in the storage, so that no node appends one again that the
/// storage has forgotten.
const GONE_MAX: usize = REMOVED_MAX - REMOVED_MAX / 10;

/// How long removals are remembered: less than in the storage.
const GONE_FOR: Duration = Duration::from_secs(REMOVED_KEPT_FOR.as_secs() / 24 * 23);

/// Keys by the text of a field's value.
type Index = HashMap<String, BTreeSet<Arc<str>>>;

#[derive(Debug)]
pub(super) struct Table {
    kind: RegistryKind,
    live: BTreeMap<Arc<str>, Held>,
    gone: HashMap<Arc<str>, Gone>,
    gone_by_time: BTreeSet<(Instant, Arc<str>)>,
    /// In the order of [`RegistryKind::indexed`], without the key itself.
    indexes: Vec<(&'static str, Index)>,
    due: BTreeSet<(Instant, Arc<str>)>,
    /// Keys of records that are bound to a connection, by the connection's node.
    bound: BTreeMap<u64, BTreeSet<Arc<str>>>,
}

#[derive(Debug)]
struct Held {
    record: Arc<Record>,
    due: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Gone {
    version: Version,
    since: Instant,
}

/// How a change compared with the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was newer, and was applied.
    Newer,
    /// It was known already.
    Known,
    /// The table has a newer one.
    Older,
}

impl Table {
    pub(super) fn new(kind: RegistryKind) -> Self {
        let indexed = kind.indexed().iter().filter(|field| **field != kind.id_field());
        Self {
            kind,
            live: BTreeMap::new(),
            gone: HashMap::new(),
            gone_by_time: BTreeSet::new(),
            indexes: indexed.map(|field| (*field, Index::new())).collect(),
            due: BTreeSet::new(),
            bound: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn removals(&self) -> usize {
        self.gone.len()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Record>> {
        self.live.get(key).map(|held| &held.record)
    }

    /// All records, ordered by the bytes of their keys.
    pub(super) fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.live.values().map(|held| &held.record)
    }

    /// Records whose field has this value, or an array with it, ordered by key; `None` if the field has no
    /// index.
    pub(super) fn find(&self, field: &str, value: &str) -> Option<Vec<&Arc<Record>>> {
        if field == self.kind.id_field() {
            return Some(self.get(value).into_iter().collect());
        }
        let (_, index) = self.indexes.iter().find(|(name, _)| *name == field)?;
        Some(index.get(value).into_iter().flatten().filter_map(|key| self.get(key)).collect())
    }

    /// The version that is known of a key: that of its record, or of its removal.
    pub(super) fn version(&self, key: &str) -> Option<Version> {
        let live = self.live.get(key).map(|held| held.record.version);
        live.or_else(|| self.gone.get(key).map(|gone| gone.version))
    }

    /// The record or removal that is known of a key, as a change that can be appended.
    pub(super) fn change(&self, key: &Arc<str>) -> Option<Change> {
        let key = Arc::clone(key);
        if let Some(held) = self.live.get(&key) {
            let record = Arc::clone(&held.record);
            return Some(Change { key, version: record.version, record: Some(record) });
        }
        let gone = self.gone.get(&key)?;
        Some(Change { version: gone.version, record: None, key })
    }

    /// The known version of each key.
    pub(super) fn versions(&self) -> HashMap<Arc<str>, Version> {
        let live = self.live.iter().map(|(key, held)| (Arc::clone(key), held.record.version));
        let gone = self.gone.iter().map(|(key, gone)| (Arc::clone(key), gone.version));
        live.chain(gone).collect()
    }

    /// Applies a change if it is newer. A record expires at `due`.
    pub(super) fn apply(&mut self, change: Change, due: Instant, now: Instant) -> Outcome {
        match self.version(&change.key) {
            Some(known) if known == change.version => return Outcome::Known,
            Some(known) if known > change.version => return Outcome::Older,
            _ => {}
        }
        self.take_away(&change.key);
        let Change { key, version, record } = change;
        match record {
            Some(record) => self.put(key, record, due),
            None => {
                self.gone_by_time.insert((now, Arc::clone(&key)));
                self.gone.insert(key, Gone { version, since: now });
                self.forget_removals(now);
            }
        }
        Outcome::Newer
    }

    fn put(&mut self, key: Arc<str>, record: Arc<Record>, due: Instant) {
        self.each_value(&record, |index, value, key| {
            index.entry(value).or_default().insert(key);
        });
        if let Some(node) = record.bound_to {
            self.bound.entry(node).or_default().insert(Arc::clone(&key));
        }
        self.due.insert((due, Arc::clone(&key)));
        self.live.insert(key, Held { record, due });
    }

    fn take_away(&mut self, key: &Arc<str>) {
        if let Some(gone) = self.gone.remove(key) {
            self.gone_by_time.remove(&(gone.since, Arc::clone(key)));
        }
        let Some(Held { record, due }) = self.live.remove(key) else { return };
        self.due.remove(&(due, Arc::clone(key)));
        if let Some(node) = record.bound_to
            && let Some(keys) = self.bound.get_mut(&node)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.bound.remove(&node);
            }
        }
        self.each_value(&record, |index, value, key| {
            if let Some(keys) = index.get_mut(&value) {
                keys.remove(&key);
                if keys.is_empty() {
                    index.remove(&value);
                }
            }
        });
    }

    fn each_value(&mut self, record: &Record, mut act: impl FnMut(&mut Index, String, Arc<str>)) {
        let fields = record.fields();
        for (field, index) in &mut self.indexes {
            let Some((_, value)) = fields.iter().find(|(name, _)| name == field) else { continue };
            for value in plains(value) {
                act(index, value, Arc::clone(&record.key));
            }
        }
    }

    /// Records that have expired.
    pub(super) fn expired(&self, now: Instant) -> Vec<Arc<Record>> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now);
        due.filter_map(|(_, key)| self.get(key).cloned()).collect()
    }

    /// The keys of records bound to connections, by node.
    pub(super) fn bound(&self) -> &BTreeMap<u64, BTreeSet<Arc<str>>> {
        &self.bound
    }

    /// Forgets the oldest removals if there are too many, and those that have been remembered long enough.
    pub(super) fn forget_removals(&mut self, now: Instant) {
        while let Some((since, _)) = self.gone_by_time.first()
            && (self.gone.len() > GONE_MAX || now.duration_since(*since) >= GONE_FOR)
            && let Some((_, key)) = self.gone_by_time.pop_first()
        {
            self.gone.remove(&key);
        }
    }
}
