//! Files that redb writes, as the journal's spool and the memory's folder have them.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redb::{
    BackendError, Builder, Database, DatabaseError, StorageBackend, TableDefinition, backends::FileBackend,
};
use tokio::time::Instant;

/// A file of redb begins with so many bytes by which redb knows it, in a page without data.
const MAGIC_BYTES: usize = 9;
const HEADER_BYTES: usize = 4096;

/// Pages that the database may keep in memory.
const CACHE_BYTES: usize = 16 << 20;

/// Holds nothing: is written to and dropped to see whether there is room.
const PROBE: TableDefinition<u8, &[u8]> = TableDefinition::new("probe");

/// So much must there be room for on a disk that works again, in bytes.
const PROBE_BYTES: usize = 1 << 20;

/// What is said of a database that panicked, as on a file that was damaged under it.
pub(super) const GAVE_UP: &str = "the database gave up on its file";

/// Whether a disk takes what is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DiskState {
    /// It does.
    Working,
    /// It fails, and is tried anew.
    Failed(String),
    /// It has not answered for so long.
    Stalled(Duration),
    /// Its files were closed.
    Closed,
}

impl DiskState {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::Failed(_) => "failed",
            Self::Stalled(_) => "stalled",
            Self::Closed => "closed",
        }
    }

    /// What is wrong, for people; `None` while nothing is.
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Working => None,
            Self::Failed(reason) => Some(format!("the disk fails: {reason}")),
            Self::Stalled(since) => Some(format!("the disk has not answered for {since:.0?}")),
            Self::Closed => Some("its files are closed".to_owned()),
        }
    }
}

/// How a disk does: told by the one thread that writes to it, and looked at by all.
#[derive(Debug, Default)]
pub(super) struct DiskHealth(Mutex<Observed>);

#[derive(Debug, Default)]
struct Observed {
    /// What was wrong when it was last tried.
    fault: Option<String>,
    /// Since when the thread waits for it.
    busy_since: Option<Instant>,
    is_closed: bool,
}

impl DiskHealth {
    /// How it does; one that has not answered for so long hangs.
    pub(super) fn state(&self, deadline: Duration) -> DiskState {
        let seen = self.0.lock();
        let stalled = seen.busy_since.map(|since| since.elapsed()).filter(|so_far| *so_far >= deadline);
        match (&seen.fault, stalled) {
            _ if seen.is_closed => DiskState::Closed,
            (Some(reason), _) => DiskState::Failed(reason.clone()),
            (None, Some(since)) => DiskState::Stalled(since),
            (None, None) => DiskState::Working,
        }
    }

    /// What is wrong with it; nothing while it works.
    pub(super) fn fault(&self) -> String {
        self.0.lock().fault.clone().unwrap_or_default()
    }

    pub(super) fn set_fault(&self, fault: Option<&str>) {
        self.0.lock().fault = fault.map(str::to_owned);
    }

    pub(super) fn closed(&self) {
        self.0.lock().is_closed = true;
    }

    /// Does something with the disk; how long that takes shows. `None` when the database panicked.
    pub(super) fn watch<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        self.0.lock().busy_since = Some(Instant::now());
        let done = catch_unwind(AssertUnwindSafe(act));
        self.0.lock().busy_since = None;
        done.ok()
    }
}

/// Makes sure that the disk takes more than it has.
pub(super) fn probe(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(PROBE)?.insert(0, vec![0; PROBE_BYTES].as_slice())?;
    transaction.commit()?;
    let transaction = database.begin_write()?;
    transaction.delete_table(PROBE)?;
    transaction.commit()?;
    Ok(())
}

/// A file that redb writes, with or without fsyncs.
#[derive(Debug)]
pub(super) struct Disk {
    file: FileBackend,
    is_synced: bool,
    /// It was looked at whether there is something in the file.
    is_looked_at: AtomicBool,
    #[cfg(test)]
    fault: Fault,
}

impl Disk {
    /// A file that is open; `path` is where it is.
    pub(super) fn new(file: File, is_synced: bool, path: &Path) -> Result<Self, DatabaseError> {
        #[cfg(not(test))]
        let _ = path;
        Ok(Self {
            file: FileBackend::new(file)?,
            is_synced,
            is_looked_at: AtomicBool::new(false),
            #[cfg(test)]
            fault: Fault::of(path.parent().unwrap_or(path)),
        })
    }

    /// Whether the making of the file was cut short, as on a full disk: redb writes what makes it one of
    /// its own last of all, and then takes it for a stranger's.
    fn is_half_made(&self, len: u64) -> io::Result<bool> {
        let mut part = vec![0; HEADER_BYTES];
        let mut at = 0;
        while at < len {
            let wanted = part.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
            let read = &mut part[..wanted];
            self.file.read(at, read)?;
            // Of the head, which has no data, the beginning says it.
            let telling = if at == 0 { wanted.min(MAGIC_BYTES) } else { wanted };
            if read[..telling].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += wanted as u64;
        }
        Ok(true)
    }

    fn fault(&self) -> io::Result<()> {
        #[cfg(test)]
        self.fault.check()?;
        Ok(())
    }
}

impl StorageBackend for Disk {
    /// Redb asks for it first of all once it has locked the file; one that was half made is made anew.
    fn len(&self) -> io::Result<u64> {
        let len = self.file.len()?;
        if !self.is_looked_at.swap(true, Ordering::Relaxed) && len > 0 && self.is_half_made(len)? {
            self.set_len(0)?;
            return Ok(0);
        }
        Ok(len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fault()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fault()?;
        if self.is_synced { self.file.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fault()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

/// Where a file that is not readable can be put aside: behind the name a number, from the second one on, so
/// that none takes the place of another.
pub(super) fn free_name(dir: &Path, file: &str) -> io::Result<PathBuf> {
    let mut name = dir.join(file);
    let mut number = 1;
    while name.try_exists()? {
        number += 1;
        name = dir.join(format!("{file}.{number}"));
    }
    Ok(name)
}

/// Opens a file, or makes it.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // What is in it may be for few eyes.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Every page is checked on opening: a start is rare, and a damaged entry must not be sent.
pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Whether a file ends before what is read of it.
pub(super) fn is_cut_short(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}

/// What befalls the disk while a file of this name exists in its directory.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(super) struct Fault(PathBuf);

#[cfg(test)]
/// Writes fail as those to a full disk do.
pub(super) const FULL: &str = "full";
#[cfg(test)]
/// Writes do not end.
pub(super) const HANGS: &str = "hangs";

/// By directory, how much more is written before all writes fail.
#[cfg(test)]
static LEFT: parking_lot::Mutex<std::collections::BTreeMap<PathBuf, u64>> =
    parking_lot::Mutex::new(std::collections::BTreeMap::new());

#[cfg(test)]
impl Fault {
    pub(super) fn of(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(super) fn begin(&self, what: &str) {
        std::fs::write(self.0.join(what), "").unwrap();
    }

    pub(super) fn end(&self, what: &str) {
        std::fs::remove_file(self.0.join(what)).unwrap();
    }

    /// After so many more writes all fail, until that is taken back with `None`.
    pub(super) fn fail_after(&self, writes: Option<u64>) {
        let mut left = LEFT.lock();
        match writes {
            Some(writes) => left.insert(self.0.clone(), writes),
            None => left.remove(&self.0),
        };
    }

    pub(super) fn check(&self) -> io::Result<()> {
        while self.0.join(HANGS).exists() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let is_over = LEFT.lock().get_mut(&self.0).is_some_and(|left| {
            let is_over = *left == 0;
            *left = left.saturating_sub(1);
            is_over
        });
        let is_full = is_over || self.0.join(FULL).exists();
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
