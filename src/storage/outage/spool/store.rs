//! The file of the spool, `spool.redb`. Calls block, so only the spool's thread makes them.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use uuid::Uuid;

use super::{Former, SpoolFsync, SpoolOpenError};
use crate::model::{ChannelName, EntryId, NodeId, WhyUnknown};
use crate::storage::disk::{self, OpenFault, open_database};
use crate::storage::{Append, codec};

const FILE: &str = "spool.redb";
/// The file in which an earlier version, if configured to fsync at intervals, kept what was not synced yet.
const RECENT_FILE: &str = "recent.redb";

/// Producer, channel, sequence -> `1 <prev> <fence, or -> <stored form>`. The leading number is the
/// version of the form.
const ENTRIES: TableDefinition<(u128, &str, u64), &[u8]> = TableDefinition::new("entries");
/// The same key -> the `prev` that the entry took over from one that was dropped.
const PREVS: TableDefinition<(u128, &str, u64), u64> = TableDefinition::new("prevs");
/// Producer -> its number in the order of starts: a gateway is a new producer after each start. An older
/// version did not number its starts.
const STARTS: TableDefinition<u128, u64> = TableDefinition::new("starts");

const VERSION: &str = "1";

/// A file larger than this is compacted once it is empty.
const COMPACT_ABOVE: u64 = 16 << 20;

/// What an entry takes on disk besides its content, in bytes, for keys and room in pages; an estimate.
const OVERHEAD: usize = 128;

/// The error of all redb calls.
pub(super) type StoreError = redb::Error;

/// A producer's entries in a channel.
pub(super) type LineKey = (NodeId, ChannelName);

/// A change of the tables.
#[derive(Debug)]
pub(super) enum Change {
    PutEntry { line: LineKey, seq: u64, value: Vec<u8> },
    RemoveEntry { line: LineKey, seq: u64 },
    PutPrev { line: LineKey, seq: u64, prev: u64 },
    PutStart { producer: NodeId, start: u64 },
    RemoveStart { producer: NodeId },
}

// The content of the file, and its size

/// What the file holds, without the content of entries.
#[derive(Debug, Default)]
pub(super) struct Index {
    lines: HashMap<LineKey, Line>,
    starts: HashMap<NodeId, u64>,
    pub(super) entries: usize,
    pub(super) bytes: u64,
}

#[derive(Debug, Default)]
struct Line {
    slots: BTreeMap<u64, Slot>,
    /// The `prev` of dropped entries without a successor, for the next entry.
    legacy: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    prev: u64,
    bytes: u64,
}

/// The size of an entry in [`Index::bytes`].
fn cost(line: &LineKey, append: &Append) -> u64 {
    let key_len = append.draft.key.as_ref().map_or(0, |key| key.len());
    (append.draft.data.len() + key_len + line.1.as_str().len() + OVERHEAD) as u64
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The size that entries would add.
    pub(super) fn cost(line: &LineKey, entries: &[Append]) -> u64 {
        entries.iter().map(|append| cost(line, append)).sum()
    }

    // Each adds the changes that the file needs.

    pub(super) fn append(&mut self, key: LineKey, entries: Vec<Append>, changes: &mut Vec<Change>) {
        if !self.starts.contains_key(&key.0) {
            let start = self.starts.values().max().map_or(1, |newest| newest + 1);
            self.starts.insert(key.0, start);
            changes.push(Change::PutStart { producer: key.0, start });
        }
        let line = self.lines.entry(key.clone()).or_default();
        for mut append in entries {
            if let Some(legacy) = line.legacy.take() {
                append.prev = append.prev.min(legacy);
            }
            let slot = Slot { prev: append.prev, bytes: cost(&key, &append) };
            if let Some(before) = line.slots.insert(append.seq, slot) {
                self.bytes -= before.bytes;
                self.entries -= 1;
            }
            self.bytes += slot.bytes;
            self.entries += 1;
            changes.push(Change::RemoveEntry { line: key.clone(), seq: append.seq });
            let value = encode(key.0, &append);
            changes.push(Change::PutEntry { line: key.clone(), seq: append.seq, value });
        }
    }

    pub(super) fn acknowledged(&mut self, key: &LineKey, seq: u64, changes: &mut Vec<Change>) {
        let Some(line) = self.lines.get_mut(key) else { return };
        while let Some(first) = line.slots.first_entry()
            && *first.key() <= seq
        {
            let (seq, slot) = first.remove_entry();
            self.bytes -= slot.bytes;
            self.entries -= 1;
            changes.push(Change::RemoveEntry { line: key.clone(), seq });
        }
        line.legacy = line.legacy.filter(|prev| *prev > seq);
        self.tidy(key);
    }

    /// Removes entries that the log does not have; the next one after each takes over its `prev`.
    pub(super) fn forget(&mut self, key: &LineKey, seqs: &[u64], changes: &mut Vec<Change>) {
        let Some(line) = self.lines.get_mut(key) else { return };
        for &seq in seqs {
            let Some(gone) = line.slots.remove(&seq) else { continue };
            self.bytes -= gone.bytes;
            self.entries -= 1;
            changes.push(Change::RemoveEntry { line: key.clone(), seq });
            if let Some((&heir_seq, heir)) = line.slots.range_mut(seq..).next() {
                if gone.prev < heir.prev {
                    heir.prev = gone.prev;
                    changes.push(Change::PutPrev { line: key.clone(), seq: heir_seq, prev: gone.prev });
                }
            } else {
                line.legacy = Some(line.legacy.map_or(gone.prev, |prev| prev.min(gone.prev)));
            }
        }
        self.tidy(key);
    }

    fn tidy(&mut self, key: &LineKey) {
        if self.lines.get(key).is_some_and(|line| line.slots.is_empty() && line.legacy.is_none()) {
            self.lines.remove(key);
        }
    }
}

pub(super) fn encode(producer: NodeId, append: &Append) -> Vec<u8> {
    let fence = append.fence.map_or_else(|| "-".to_owned(), |fence| fence.to_string());
    let head = format!("{VERSION} {} {fence} ", append.prev);
    let stored = codec::encode(EntryId { producer, seq: append.seq }, &append.draft);
    [head.as_bytes(), &stored].concat()
}

pub(super) fn decode(producer: NodeId, seq: u64, value: &[u8]) -> Result<Append, String> {
    let mut parts = value.splitn(4, |byte| *byte == b' ');
    let (Some(version), Some(prev), Some(fence), Some(stored)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("an entry is cut short".to_owned());
    };
    if version != VERSION.as_bytes() {
        return Err("an entry has an unknown form; a newer version may have written it".to_owned());
    }
    let entry = codec::decode(0, stored);
    // An entry of a kind that only a newer version knows is passed on unchanged, and so is one with data that
    // cannot be shown. Neither holds others up.
    if let Some(WhyUnknown::Form(what)) = entry.draft.kind.unknown().map(|unknown| unknown.why)
        && what != codec::NO_OBJECT
    {
        return Err(format!("an entry cannot be read: {what}; a newer version may have written it"));
    }
    if entry.id != (EntryId { producer, seq }) {
        return Err("an entry is not where it belongs".to_owned());
    }
    let fence = if fence == b"-" { None } else { Some(codec::number(fence)?) };
    Ok(Append { seq, prev: codec::number(prev)?, draft: entry.draft, fence })
}

// The file

/// The open file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    database: Database,
}

impl Store {
    /// Opens or creates the file, and reads it.
    pub(super) fn open(dir: &Path, fsync: SpoolFsync) -> Result<(Self, Index, Vec<Former>), SpoolOpenError> {
        let unusable = |cause| SpoolOpenError::Unusable { dir: dir.to_owned(), cause };
        fs::create_dir_all(dir).map_err(unusable)?;
        let path = dir.join(FILE);
        let is_synced = fsync == SpoolFsync::Always;
        let database = open_database(&path, is_synced).map_err(|error| failed(&path, error))?;
        let mut store = Self { path, database };
        store.adopt_recent(&dir.join(RECENT_FILE))?;
        // After a crash of the machine, a new file is there only if its directory was synced.
        if is_synced {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(unusable)?;
        }
        let (index, formers) = store.read()?;
        if index.is_empty() {
            store.compact().map_err(|error| failed(&store.path, error))?;
        }
        Ok((store, index, formers))
    }

    /// Takes over the second file of an earlier version.
    fn adopt_recent(&self, recent: &Path) -> Result<(), SpoolOpenError> {
        let unusable = |cause| SpoolOpenError::Unusable { dir: recent.to_owned(), cause };
        if !recent.try_exists().map_err(unusable)? {
            return Ok(());
        }
        let changes = open_database(recent, false).and_then(|recent| read_all(&recent));
        let changes = changes.map_err(|error| failed(recent, error))?;
        write(&self.database, &changes).map_err(|error| failed(&self.path, error))?;
        fs::remove_file(recent).map_err(unusable)
    }

    fn read(&self) -> Result<(Index, Vec<Former>), SpoolOpenError> {
        let failed = |error| failed(&self.path, error);
        let changes = read_all(&self.database).map_err(failed)?;
        let damaged = |problem| SpoolOpenError::Unreadable { file: self.path.clone(), problem };
        let mut found: BTreeMap<LineKey, Former> = BTreeMap::new();
        let mut prevs: HashMap<(LineKey, u64), u64> = HashMap::new();
        let mut starts: HashMap<NodeId, u64> = HashMap::new();
        for change in changes {
            match change {
                Change::PutEntry { line, seq, value } => {
                    let append = decode(line.0, seq, &value).map_err(damaged)?;
                    let (producer, channel) = line.clone();
                    let former = found.entry(line).or_insert_with(|| Former {
                        producer,
                        channel,
                        start: 0,
                        entries: Vec::new(),
                    });
                    former.entries.push(append);
                }
                Change::PutPrev { line, seq, prev } => {
                    prevs.insert((line, seq), prev);
                }
                Change::PutStart { producer, start } => {
                    starts.insert(producer, start);
                }
                Change::RemoveEntry { .. } | Change::RemoveStart { .. } => {}
            }
        }
        let mut index = Index::default();
        for (line, former) in &mut found {
            former.start = starts.get(&line.0).copied().unwrap_or(0);
            index.starts.insert(line.0, former.start);
            let held = index.lines.entry(line.clone()).or_default();
            for append in &mut former.entries {
                if let Some(prev) = prevs.remove(&(line.clone(), append.seq)) {
                    append.prev = prev;
                }
                let bytes = cost(line, append);
                held.slots.insert(append.seq, Slot { prev: append.prev, bytes });
                index.bytes += bytes;
                index.entries += 1;
            }
        }
        // Producers without entries.
        let is_over = |producer: &NodeId| !index.starts.contains_key(producer);
        let starts = starts.into_keys().filter(is_over).map(|producer| Change::RemoveStart { producer });
        let orphans: Vec<_> = starts.collect();
        if !orphans.is_empty() {
            write(&self.database, &orphans).map_err(failed)?;
        }
        Ok((index, found.into_values().collect()))
    }

    /// Verifies that the disk has room for more data.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        disk::probe(&self.database)
    }

    /// Writes changes, as durable as configured: all of them or none.
    pub(super) fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        write(&self.database, changes)
    }

    /// Compacts the empty file.
    pub(super) fn compact(&mut self) -> Result<(), StoreError> {
        if self.file_bytes() > COMPACT_ABOVE {
            self.database.compact()?;
        }
        Ok(())
    }

    /// The length of the file; 0 if it is unknown.
    pub(super) fn file_bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |found| found.len())
    }
}

fn failed(file: &Path, error: StoreError) -> SpoolOpenError {
    match error.into() {
        OpenFault::InUse => SpoolOpenError::InUse { file: file.to_owned() },
        OpenFault::Io(cause) => {
            SpoolOpenError::Unusable { dir: file.parent().unwrap_or(file).to_owned(), cause }
        }
        OpenFault::Unreadable(problem) => SpoolOpenError::Unreadable { file: file.to_owned(), problem },
    }
}

fn write(database: &Database, changes: &[Change]) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    write_tables(&transaction, changes)?;
    transaction.commit()?;
    Ok(())
}

fn write_tables(transaction: &WriteTransaction, changes: &[Change]) -> Result<(), StoreError> {
    let mut entries = transaction.open_table(ENTRIES)?;
    let mut prevs = transaction.open_table(PREVS)?;
    let mut starts = transaction.open_table(STARTS)?;
    for change in changes {
        match change {
            Change::PutEntry { line: (producer, channel), seq, value } => {
                entries.insert((producer.0.as_u128(), channel.as_str(), *seq), value.as_slice())?;
            }
            Change::RemoveEntry { line: (producer, channel), seq } => {
                let key = (producer.0.as_u128(), channel.as_str(), *seq);
                entries.remove(key)?;
                prevs.remove(key)?;
            }
            Change::PutPrev { line: (producer, channel), seq, prev } => {
                prevs.insert((producer.0.as_u128(), channel.as_str(), *seq), *prev)?;
            }
            Change::PutStart { producer, start } => {
                starts.insert(producer.0.as_u128(), *start)?;
            }
            Change::RemoveStart { producer } => {
                starts.remove(producer.0.as_u128())?;
            }
        }
    }
    Ok(())
}

/// The content of a file, as the changes that produce it.
fn read_all(database: &Database) -> Result<Vec<Change>, StoreError> {
    // Creates the tables if the file is new.
    write(database, &[])?;
    let transaction = database.begin_read()?;
    let mut names: HashMap<String, ChannelName> = HashMap::new();
    let mut line = |producer: u128, channel: &str| -> Result<LineKey, StoreError> {
        let producer = NodeId(Uuid::from_u128(producer));
        if let Some(known) = names.get(channel) {
            return Ok((producer, known.clone()));
        }
        let parsed: ChannelName =
            channel.parse().map_err(|_| StoreError::Corrupted("an entry has no channel".to_owned()))?;
        names.insert(channel.to_owned(), parsed.clone());
        Ok((producer, parsed))
    };
    let mut changes = Vec::new();
    for item in transaction.open_table(ENTRIES)?.iter()? {
        let (key, value) = item?;
        let (producer, channel, seq) = key.value();
        let line = line(producer, channel)?;
        changes.push(Change::PutEntry { line, seq, value: value.value().to_vec() });
    }
    for item in transaction.open_table(PREVS)?.iter()? {
        let (key, prev) = item?;
        let (producer, channel, seq) = key.value();
        changes.push(Change::PutPrev { line: line(producer, channel)?, seq, prev: prev.value() });
    }
    for item in transaction.open_table(STARTS)?.iter()? {
        let (producer, start) = item?;
        let producer = NodeId(Uuid::from_u128(producer.value()));
        changes.push(Change::PutStart { producer, start: start.value() });
    }
    Ok(changes)
}
