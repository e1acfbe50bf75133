//! The files of the folder. Calls block, so only the folder's thread makes them.
//!
//! `memory.redb` has the rows as they were at the last checkpoint. `recent.redb` has the changes since then,
//! in order. A checkpoint applies them to the rows and empties that file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{
    Database, Key, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition, Value,
};

use super::FolderError;
use super::rows::{Place, seal, unseal};
use crate::storage::Fsync;
use crate::storage::disk::{self, OpenFault, free_name, guarded, open_damaged, open_database};

pub(super) const MAIN_FILE: &str = "memory.redb";
pub(super) const RECENT_FILE: &str = "recent.redb";

/// Key -> row.
const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// Number -> a group of changes that were written together.
const RECENT: TableDefinition<u64, &[u8]> = TableDefinition::new("recent");
/// A file larger than this, and larger than this many times its content, is compacted when it is opened.
const COMPACT_ABOVE: u64 = 64 << 20;
const COMPACT_TIMES: u64 = 4;

/// The error of all redb calls.
pub(super) type StoreError = redb::Error;

/// One change of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage::memory) enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// Deletes all rows of a channel.
    DropIncarnation(u64),
}

impl Change {
    /// Sets a row; `None` deletes it.
    pub(in crate::storage::memory) fn set(place: &Place, content: Option<Vec<u8>>) -> Self {
        let key = place.key();
        match content {
            Some(content) => {
                let sealed = seal(&key, &content);
                Self::Put(key, sealed)
            }
            None => Self::Delete(key),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(key, row) => key.len() + row.len() + 16,
            Self::Delete(key) => key.len() + 16,
            Self::DropIncarnation(_) => 16,
        }
    }
}

/// Changes that the rows do not have yet, one per row.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    dropped: Vec<u64>,
    pub(super) bytes: usize,
}

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.dropped.is_empty()
    }

    pub(super) fn take(&mut self, change: Change) {
        // A row that changes again is counted again, which only makes the checkpoint earlier.
        self.bytes += change.bytes();
        match change {
            Change::Put(key, row) => {
                self.rows.insert(key, Some(row));
            }
            Change::Delete(key) => {
                self.rows.insert(key, None);
            }
            Change::DropIncarnation(incarnation) => self.dropped.push(incarnation),
        }
    }
}

/// A file that was unreadable or damaged, and was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aside {
    pub(super) file: PathBuf,
    pub(super) problem: String,
}

/// The open files.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    main: Database,
    recent: Database,
    /// The number of the newest group of changes.
    next: u64,
}

impl Store {
    /// Opens or creates the files. An unreadable file is set aside, and what can be read of it is used; returns
    /// such files too.
    pub(super) fn open(dir: &Path, fsync: Fsync) -> Result<(Self, Vec<Aside>), FolderError> {
        let unusable = |cause| FolderError::Unusable { dir: dir.to_owned(), cause };
        fs::create_dir_all(dir).map_err(unusable)?;
        let (path, recent_path) = (dir.join(MAIN_FILE), dir.join(RECENT_FILE));
        let mut aside = Vec::new();
        let is_synced = fsync != Fsync::Never;
        let open = || guarded(|| open_database(&path, is_synced));
        let main = match open() {
            Ok(main) => main,
            Err(error) => {
                let problem = problem(dir, &path, error)?;
                let file = set_aside(dir, &path).map_err(unusable)?;
                let main = open().map_err(|error| broken(dir, &path, error))?;
                save(&main, dir, &file).map_err(|error| broken(dir, &path, error))?;
                aside.push(Aside { file, problem });
                main
            }
        };
        let applied = applied(&main).map_err(|error| broken(dir, &path, error))?;
        let mut newest = Newest { applied, overlay: Overlay::default() };
        if recent_path.try_exists().map_err(unusable)?
            && let Err(error) = read_recent(|| open_database(&recent_path, false), &mut newest)
        {
            let problem = problem(dir, &recent_path, error)?;
            let file = set_aside(dir, &recent_path).map_err(unusable)?;
            newest = Newest { applied, overlay: Overlay::default() };
            let read = |copy: &Path| read_recent(|| open_damaged(copy), &mut newest);
            reading_a_copy(dir, &file, read).map_err(unusable)?;
            aside.push(Aside { file, problem });
        }
        let Newest { applied: next, overlay } = newest;
        if !overlay.is_empty() {
            write(&main, &overlay, next).map_err(|error| broken(dir, &path, error))?;
        }
        if recent_path.try_exists().map_err(unusable)? {
            fs::remove_file(&recent_path).map_err(unusable)?;
        }
        let recent = guarded(|| open_database(&recent_path, fsync == Fsync::Always));
        let recent = recent.map_err(|error| broken(dir, &recent_path, error))?;
        // After a crash of the machine, a new file is there only if its directory was synced.
        if is_synced {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(unusable)?;
        }
        Ok((Self { path, main, recent, next }, aside))
    }

    /// Passes all rows to `tell`, in order of their keys; a damaged row as `None`. Returns their size in
    /// bytes.
    pub(super) fn each_row(&self, mut tell: impl FnMut(&[u8], Option<&[u8]>)) -> Result<u64, StoreError> {
        let Some(table) = table(&self.main, ROWS)? else { return Ok(0) };
        let mut bytes = 0;
        for item in table.iter()? {
            let (key, row) = item?;
            bytes += (key.value().len() + row.value().len()) as u64;
            tell(key.value(), unseal(key.value(), row.value()));
        }
        Ok(bytes)
    }

    /// The content of a row; `None` if there is no such row, or it is damaged.
    pub(super) fn row(&self, place: &Place) -> Result<Option<Vec<u8>>, StoreError> {
        row(&self.main, place)
    }

    /// Whether there are any rows.
    pub(super) fn has_rows(&self) -> Result<bool, StoreError> {
        match table(&self.main, ROWS)? {
            Some(table) => Ok(!table.is_empty()?),
            None => Ok(false),
        }
    }

    /// Writes a group of changes: all of them or none, as durable as the policy says.
    pub(super) fn append(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.next += 1;
        let transaction = self.recent.begin_write()?;
        {
            let mut table = transaction.open_table(RECENT)?;
            let blob = encode(changes);
            table.insert(self.next, seal(&self.next.to_be_bytes(), &blob).as_slice())?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Applies to the rows the changes that they do not have yet.
    pub(super) fn checkpoint(&mut self, overlay: &Overlay) -> Result<(), StoreError> {
        write(&self.main, overlay, self.next)?;
        let transaction = self.recent.begin_write()?;
        transaction.delete_table(RECENT)?;
        transaction.commit()?;
        Ok(())
    }

    /// Verifies that the disk has room for more data.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        disk::probe(&self.main)
    }

    /// Compacts the file of the rows if it is many times as large as its content.
    pub(super) fn compact(&mut self, bytes: u64) -> Result<(), StoreError> {
        if self.file_bytes() > COMPACT_ABOVE.max(bytes.saturating_mul(COMPACT_TIMES)) {
            self.main.compact()?;
        }
        Ok(())
    }

    /// The length of the files; a file whose length is unknown counts as 0.
    pub(super) fn file_bytes(&self) -> u64 {
        let len = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        len(&self.path) + len(&self.path.with_file_name(RECENT_FILE))
    }

    /// The inode of the file with the rows; 0 if the system has no such number.
    pub(super) fn file_number(&self) -> u64 {
        #[cfg(unix)]
        return fs::metadata(&self.path).map_or(0, |found| std::os::unix::fs::MetadataExt::ino(&found));
        #[cfg(not(unix))]
        0
    }
}

// Opening

/// What is wrong with a file that can be set aside; other faults are errors.
fn problem(dir: &Path, file: &Path, error: StoreError) -> Result<String, FolderError> {
    match error.into() {
        OpenFault::InUse => Err(FolderError::InUse { file: file.to_owned() }),
        OpenFault::Io(cause) => Err(FolderError::Unusable { dir: dir.to_owned(), cause }),
        OpenFault::Unreadable(problem) => Ok(problem),
    }
}

/// The error for a file that cannot be used and must not be set aside.
fn broken(dir: &Path, file: &Path, error: StoreError) -> FolderError {
    let unreadable = |problem| FolderError::Unusable {
        dir: dir.to_owned(),
        cause: io::Error::new(io::ErrorKind::InvalidData, problem),
    };
    problem(dir, file, error).map_or_else(|error| error, unreadable)
}

/// A table; `None` if the file has none of that name.
fn table<K: Key + 'static, V: Value + 'static>(
    database: &Database,
    name: TableDefinition<K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, StoreError> {
    match database.begin_read()?.open_table(name) {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The changes that the rows do not have.
struct Newest {
    /// The number of the newest group that the rows have. After a crash of the machine, `recent.redb` may
    /// still have groups that were applied before.
    applied: u64,
    overlay: Overlay,
}

/// Reads these changes in order; from a damaged file, those before the damage.
fn read_recent(
    open: impl FnOnce() -> Result<Database, StoreError>,
    newest: &mut Newest,
) -> Result<(), StoreError> {
    guarded(|| {
        let damaged = || StoreError::Corrupted("a group of changes is cut short".to_owned());
        let database = open()?;
        let Some(table) = table(&database, RECENT)? else { return Ok(()) };
        for item in table.range(newest.applied.saturating_add(1)..)? {
            let (number, blob) = item?;
            let blob = unseal(&number.value().to_be_bytes(), blob.value()).ok_or_else(damaged)?;
            let changes = decode(blob).ok_or_else(damaged)?;
            changes.into_iter().for_each(|change| newest.overlay.take(change));
            newest.applied = number.value();
        }
        Ok(())
    })
}

fn set_aside(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = free_name(dir, &format!("{name}.unreadable"))?;
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Reads a copy of a file that was set aside, because opening a file changes it.
fn reading_a_copy(
    dir: &Path,
    aside: &Path,
    read: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> io::Result<()> {
    let copy = free_name(dir, "reading.redb")?;
    fs::copy(aside, &copy)?;
    let _up_to_the_damage = read(&copy);
    fs::remove_file(&copy)
}

/// Copies the readable rows of a file that was set aside. Each row has its own checksum, so damaged ones are
/// recognized.
fn save(main: &Database, dir: &Path, aside: &Path) -> Result<(), StoreError> {
    let mut overlay = Overlay::default();
    // Reads from either end up to the damage.
    for is_backward in [false, true] {
        reading_a_copy(dir, aside, |copy| guarded(|| read_some(copy, is_backward, &mut overlay)))?;
    }
    // The rows themselves say up to which group they are current.
    write_with(main, &overlay, None)
}

fn read_some(copy: &Path, is_backward: bool, overlay: &mut Overlay) -> Result<(), StoreError> {
    let database = open_damaged(copy)?;
    let table = database.begin_read()?.open_table(ROWS)?;
    let mut rows = table.iter()?;
    while let Some(item) = if is_backward { rows.next_back() } else { rows.next() } {
        let (key, row) = item?;
        if unseal(key.value(), row.value()).is_some() {
            overlay.take(Change::Put(key.value().to_vec(), row.value().to_vec()));
        }
    }
    Ok(())
}

/// The number of the newest group of changes that the rows have.
fn applied(main: &Database) -> Result<u64, StoreError> {
    let row = row(main, &Place::Applied)?;
    Ok(row.and_then(|row| std::str::from_utf8(&row).ok()?.parse().ok()).unwrap_or(0))
}

fn row(main: &Database, place: &Place) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(table) = table(main, ROWS)? else { return Ok(None) };
    let key = place.key();
    let row = table.get(key.as_slice())?;
    Ok(row.and_then(|row| unseal(&key, row.value()).map(<[u8]>::to_vec)))
}

// Writing

/// Changes the rows, which then have all groups up to `applied`.
fn write(database: &Database, overlay: &Overlay, applied: u64) -> Result<(), StoreError> {
    let (key, content) = (Place::Applied.key(), applied.to_string());
    let sealed = seal(&key, content.as_bytes());
    write_with(database, overlay, Some((key, sealed)))
}

fn write_with(
    database: &Database,
    overlay: &Overlay,
    besides: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(ROWS)?;
        for (key, row) in &overlay.rows {
            match row {
                Some(row) => drop(table.insert(key.as_slice(), row.as_slice())?),
                None => drop(table.remove(key.as_slice())?),
            }
        }
        if let Some((key, row)) = besides {
            table.insert(key.as_slice(), row.as_slice())?;
        }
        for incarnation in &overlay.dropped {
            table.remove(Place::Channel(*incarnation).key().as_slice())?;
            for kind in *b"ep" {
                let mut from = vec![kind];
                from.extend_from_slice(&incarnation.to_be_bytes());
                let mut to = vec![kind];
                to.extend_from_slice(&incarnation.saturating_add(1).to_be_bytes());
                table.retain_in(from.as_slice()..to.as_slice(), |_, _| false)?;
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

/// For each change its kind, and the lengths of its parts before them.
pub(super) fn encode(changes: &[Change]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(changes.iter().map(Change::bytes).sum());
    let part = |bytes: &[u8], blob: &mut Vec<u8>| {
        blob.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        blob.extend_from_slice(bytes);
    };
    for change in changes {
        match change {
            Change::Put(key, row) => {
                blob.push(b'+');
                part(key, &mut blob);
                part(row, &mut blob);
            }
            Change::Delete(key) => {
                blob.push(b'-');
                part(key, &mut blob);
            }
            Change::DropIncarnation(incarnation) => {
                blob.push(b'x');
                blob.extend_from_slice(&incarnation.to_be_bytes());
            }
        }
    }
    blob
}

pub(super) fn decode(mut blob: &[u8]) -> Option<Vec<Change>> {
    fn number(blob: &mut &[u8]) -> Option<u64> {
        let (number, rest) = blob.split_first_chunk()?;
        *blob = rest;
        Some(u64::from_be_bytes(*number))
    }
    fn part(blob: &mut &[u8]) -> Option<Vec<u8>> {
        let len = usize::try_from(number(blob)?).ok()?;
        let (part, rest) = blob.split_at_checked(len)?;
        *blob = rest;
        Some(part.to_vec())
    }
    let mut changes = Vec::new();
    while let Some((kind, rest)) = blob.split_first() {
        blob = rest;
        changes.push(match kind {
            b'+' => {
                let key = part(&mut blob)?;
                Change::Put(key, part(&mut blob)?)
            }
            b'-' => Change::Delete(part(&mut blob)?),
            b'x' => Change::DropIncarnation(number(&mut blob)?),
            _ => return None,
        });
    }
    Some(changes)
}
