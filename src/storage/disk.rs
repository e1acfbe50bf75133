//! What the journal's spool and the memory's folder share: a thread that owns redb files, access to these files,
//! the health of their disk, and reopening them after it failed.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use redb::{
    BackendError, Builder, Database, DatabaseError, StorageBackend, TableDefinition, backends::FileBackend,
};
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::support::backoff::Backoff;
use crate::support::seldom::Seldom;

/// redb recognizes its file by the first bytes of a header page that holds no data.
const MAGIC_BYTES: usize = 9;
const HEADER_BYTES: usize = 4096;

/// Memory that redb may use to cache pages.
const CACHE_BYTES: usize = 16 << 20;

/// The table that [`probe`] fills and drops to find out whether the disk has room.
const PROBE: TableDefinition<u8, &[u8]> = TableDefinition::new("probe");

/// How many bytes a disk that failed must have room for before it counts as working.
const PROBE_BYTES: usize = 1 << 20;

/// The fault reported after redb has panicked, as it does on a file that was damaged under it.
pub(super) const GAVE_UP: &str = "the database panicked";

/// The pauses between attempts on a disk that failed. Each attempt reads the whole file.
const RETRY: Backoff = Backoff {
    first: if cfg!(test) { Duration::from_millis(10) } else { Duration::from_millis(500) },
    max: Duration::from_secs(8),
    jitter: if cfg!(test) { Duration::ZERO } else { Duration::from_millis(250) },
};

/// Whether the disk accepts writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DiskState {
    /// It accepts writes.
    Working,
    /// A write failed; it is being retried.
    Failed(String),
    /// A write has been waiting for the disk for this long.
    Stalled(Duration),
    /// The files were closed.
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

    /// What is wrong, for people; `None` while the disk works.
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Working => None,
            Self::Failed(reason) => Some(format!("the disk fails: {reason}")),
            Self::Stalled(since) => Some(format!("the disk has not answered for {since:.0?}")),
            Self::Closed => Some("its files are closed".to_owned()),
        }
    }
}

/// The health of a disk. Only the thread that writes to the disk updates it; anybody may read it.
#[derive(Debug, Default)]
pub(super) struct DiskHealth(Mutex<Observed>);

#[derive(Debug, Default)]
struct Observed {
    /// What went wrong in the last attempt.
    fault: Option<String>,
    /// When the call that the thread is waiting for began.
    busy_since: Option<Instant>,
    is_closed: bool,
}

impl DiskHealth {
    /// The state; a call that has lasted for `deadline` counts as a stall.
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

    /// What is wrong with the disk; empty while it works.
    pub(super) fn fault(&self) -> String {
        self.0.lock().fault.clone().unwrap_or_default()
    }

    pub(super) fn set_fault(&self, fault: Option<&str>) {
        self.0.lock().fault = fault.map(str::to_owned);
    }

    pub(super) fn closed(&self) {
        self.0.lock().is_closed = true;
    }

    /// Runs an access to the disk, and lets its duration be seen meanwhile.
    pub(super) fn watch<T>(&self, act: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        self.0.lock().busy_since = Some(Instant::now());
        let done = guarded(act);
        self.0.lock().busy_since = None;
        done
    }
}

/// Calls redb, which may panic on a damaged file.
pub(super) fn guarded<T>(act: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    let done = catch_unwind(AssertUnwindSafe(act));
    done.unwrap_or_else(|_panic| Err(redb::Error::Corrupted(GAVE_UP.to_owned())))
}

/// Files that are closed when their disk fails, and opened again until it works.
#[derive(Debug)]
pub(super) struct Retried<S> {
    health: Arc<DiskHealth>,
    /// `None` while the disk fails.
    files: Option<S>,
    /// Consecutive attempts that failed.
    failures: u32,
    retry_at: Instant,
    of_failures: Seldom,
}

impl<S> Retried<S> {
    pub(super) fn new(files: S, health: Arc<DiskHealth>) -> Self {
        let (retry_at, of_failures) = (Instant::now(), Seldom::default());
        Self { health, files: Some(files), failures: 0, retry_at, of_failures }
    }

    /// The open files; `None` while the disk fails.
    pub(super) fn files(&self) -> Option<&S> {
        self.files.as_ref()
    }

    /// When to open the files again; `None` while the disk works.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.files.is_none().then_some(self.retry_at)
    }

    /// Accesses the files.
    pub(super) fn attempt<T>(
        &mut self,
        act: impl FnOnce(&mut S) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        match &mut self.files {
            Some(files) => self.health.watch(|| act(files)),
            None => Err(redb::Error::Corrupted(self.health.fault())),
        }
    }

    /// Closes the files.
    pub(super) fn close(&mut self) {
        let files = self.files.take();
        let _panic = catch_unwind(AssertUnwindSafe(|| drop(files)));
    }

    /// The disk failed: closes the files, and schedules the next attempt to open them. If that may be logged now,
    /// returns how many failures were not logged before.
    pub(super) fn fail(&mut self, reason: &str) -> Option<u64> {
        self.close();
        self.failures += 1;
        self.retry_at = Instant::now() + RETRY.wait(self.failures);
        self.health.set_fault(Some(reason));
        self.of_failures.may_tell(Instant::now())
    }

    /// The disk works again. Returns how many attempts had failed.
    pub(super) fn reopened(&mut self, files: S) -> u32 {
        self.files = Some(files);
        self.health.set_fault(None);
        std::mem::take(&mut self.failures)
    }
}

/// Starts the thread that owns the files. The token is cancelled when the thread has panicked, which drops
/// everything that it owns.
pub(super) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<CancellationToken> {
    let panicked = CancellationToken::new();
    let signal = panicked.clone();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            signal.cancel();
        }
    })?;
    Ok(panicked)
}

/// The runtime of that thread, which needs only its timer: while the thread writes, it has nothing else to do.
pub(super) fn timer() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_time().build()
}

/// Waits for what the thread found in the files. An error is of kind `TimedOut` if the disk hangs, and `Other` if
/// redb panicked.
pub(super) async fn found<T>(answer: oneshot::Receiver<T>, within: Duration) -> io::Result<T> {
    let hangs = || format!("the disk has not answered within {within:?}");
    let answer = time::timeout(within, answer).await;
    let answer = answer.map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, hangs()))?;
    answer.map_err(|_gone| io::Error::other(GAVE_UP))
}

/// Verifies that the disk has room for more data.
pub(super) fn probe(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(PROBE)?.insert(0, vec![0; PROBE_BYTES].as_slice())?;
    transaction.commit()?;
    let transaction = database.begin_write()?;
    transaction.delete_table(PROBE)?;
    transaction.commit()?;
    Ok(())
}

/// A file that redb writes, with or without fsync.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    is_synced: bool,
    /// Whether [`Self::is_half_made`] has already been checked.
    is_checked: AtomicBool,
    #[cfg(test)]
    fault: Fault,
}

impl Disk {
    /// `file` is open; `path` is its location.
    fn new(file: File, is_synced: bool, path: &Path) -> Result<Self, DatabaseError> {
        #[cfg(not(test))]
        let _ = path;
        Ok(Self {
            file: FileBackend::new(file)?,
            is_synced,
            is_checked: AtomicBool::new(false),
            #[cfg(test)]
            fault: Fault::of(path.parent().unwrap_or(path)),
        })
    }

    /// Whether creation of the file was interrupted, as on a full disk. redb writes its magic number last,
    /// and refuses a file without it as not its own; so a file of zeros was never completed.
    fn is_half_made(&self, len: u64) -> io::Result<bool> {
        let mut part = vec![0; HEADER_BYTES];
        let mut at = 0;
        while at < len {
            let wanted = part.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
            let read = &mut part[..wanted];
            self.file.read(at, read)?;
            // The header page holds no data, so its first bytes are enough to decide.
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
    /// redb calls this first after locking the file, so a file that was left half made is emptied here.
    fn len(&self) -> io::Result<u64> {
        let len = self.file.len()?;
        if !self.is_checked.swap(true, Ordering::Relaxed) && len > 0 && self.is_half_made(len)? {
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

/// A free name for an unreadable file that is set aside: from the second one on with a number appended, so
/// that no file replaces another.
pub(super) fn free_name(dir: &Path, file: &str) -> io::Result<PathBuf> {
    let mut name = dir.join(file);
    let mut number = 1;
    while name.try_exists()? {
        number += 1;
        name = dir.join(format!("{file}.{number}"));
    }
    Ok(name)
}

/// Why a file could not be opened or read.
pub(super) enum OpenFault {
    InUse,
    Io(io::Error),
    /// Its content is damaged.
    Unreadable(String),
}

impl From<redb::Error> for OpenFault {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::InUse,
            // A fault of the disk says nothing about the content of the file.
            redb::Error::Io(cause) if !is_cut_short(&cause) => Self::Io(cause),
            redb::Error::Corrupted(problem) if problem == GAVE_UP => Self::Unreadable(problem),
            error => Self::Unreadable(error.to_string()),
        }
    }
}

/// Opens or creates a database. Checks every page: starts are rare, and a damaged entry must not be sent.
pub(super) fn open_database(path: &Path, is_synced: bool) -> Result<Database, redb::Error> {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(Disk::new(open_file(path)?, is_synced, path)?)?)
}

/// Opens a database that may be damaged, without checking it.
pub(super) fn open_damaged(path: &Path) -> Result<Database, redb::Error> {
    Ok(Builder::new().create_with_backend(Disk::new(open_file(path)?, false, path)?)?)
}

/// Opens a file, or creates it.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // Its contents may be confidential.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Whether the error means that a file is shorter than it should be.
fn is_cut_short(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}

/// If the test machine stalls for a while, that must not look like a disk that hangs.
#[cfg(test)]
pub(super) const PATIENT: Duration = Duration::from_secs(30);

/// Repeats until there is an answer.
#[cfg(test)]
pub(super) async fn eventually<T>(ask: impl AsyncFnMut() -> Option<T>) -> T {
    zonewire_kit::eventually("it happens in time", PATIENT, ask).await.unwrap()
}

/// Faults that tests inject: each lasts while a file with the fault's name exists in the directory.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(super) struct Fault(PathBuf);

#[cfg(test)]
/// Writes fail as they do on a full disk.
pub(super) const FULL: &str = "full";
#[cfg(test)]
/// Writes do not return.
pub(super) const HANGS: &str = "hangs";

/// By directory, how many more writes succeed before all fail.
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

    /// After this many more writes, all fail until this is called with `None`.
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
