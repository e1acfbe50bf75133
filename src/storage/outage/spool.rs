//! The journal's write-ahead log on disk: without it, a crash of the gateway during an outage would lose the
//! journal.
//!
//! All I/O is on one thread; callers that append await its answer. Requests that wait at the same time are
//! written in one transaction, with one fsync. Entries stay until they are acknowledged, even if that takes
//! several restarts.
//!
//! An append that the disk has not stored within a deadline is not accepted (unless the spool is not
//! required), and is removed from the disk again. A disk that fails, is full, or hangs is retried until it
//! works. Only callers that append wait for the disk, and no longer than the deadline; while it is known not
//! to work, they do not wait at all.

#[cfg(any(test, feature = "probes"))]
pub(in crate::storage) mod probes;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::model::{ChannelName, NodeId};
use crate::storage::disk::{self, DiskHealth, DiskState};
use crate::storage::{Append, SpoolConfig, SpoolFsync};
use crate::support::counter::Counter;
use crate::support::seldom::Seldom;
use store::LineKey;

/// Appends that wait for the thread; further callers wait for room until their deadline.
const QUEUE_LEN: usize = 1024;

/// The options of a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) struct SpoolOptions {
    /// When what was written is on the disk itself.
    pub fsync: SpoolFsync,
    /// The most bytes of entries; the file takes up to about three times as much.
    pub bytes: u64,
    /// How long an append may take.
    pub deadline: Duration,
    /// Whether an entry that cannot be spooled is refused.
    pub is_required: bool,
}

impl SpoolOptions {
    /// The options that are configured.
    pub(in crate::storage) fn of(config: &SpoolConfig) -> Self {
        Self {
            fsync: config.fsync,
            bytes: config.bytes,
            deadline: Duration::from_millis(config.deadline_ms),
            is_required: config.required,
        }
    }
}

/// Entries of a channel that an earlier process accepted, and that were not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Former {
    /// The producer that accepted the entries, under which they have to be sent.
    pub producer: NodeId,
    /// The channel.
    pub channel: ChannelName,
    /// Grows with each start of the gateway; 0 if an older version did not number its starts.
    pub start: u64,
    /// The entries in ascending `seq`; at least one.
    pub entries: Vec<Append>,
}

/// Why the spool cannot be used at startup.
#[derive(Debug, thiserror::Error)]
pub(in crate::storage) enum SpoolOpenError {
    /// The directory cannot be created, read or written.
    #[error("the spool's directory {} cannot be used", dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Another process uses it, or this one a second time.
    #[error("the spool {} is in use by another process; each gateway needs a directory of its own", file.display())]
    InUse {
        /// Its file.
        file: PathBuf,
    },
    /// The file is damaged, or a newer version wrote it. It was left unchanged.
    #[error(
        "the spool {} is not readable: {problem}. It may hold accepted entries: keep it, and move it \
         away to start without them", file.display()
    )]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Why an append was not spooled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::storage) enum SpoolError {
    /// There is no room within the bound.
    #[error("the spool is full")]
    Full,
    /// The disk hangs, or is too slow.
    #[error("the spool's disk did not store it within {within:?}")]
    Slow {
        /// The deadline.
        within: Duration,
    },
    /// The disk fails.
    #[error("the spool's disk fails: {reason}")]
    Failed {
        /// What the system said.
        reason: String,
    },
    /// It was closed.
    #[error("the spool is closed")]
    Closed,
}

/// The health of a spool. Counters only grow, and count each attempt of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct SpoolStatus {
    /// Whether the disk works.
    pub state: DiskState,
    /// Entries that have not been acknowledged.
    pub entries: usize,
    /// Their size, as the bound measures it.
    pub bytes: u64,
    /// The length of the file; room inside is reused, and given back when the spool is empty.
    pub file_bytes: u64,
    /// Entries that were spooled.
    pub appended: u64,
    /// Entries that were not spooled, for want of room within the bound.
    pub full: u64,
    /// Entries that were not spooled, because the disk did not store them in time.
    pub slow: u64,
    /// Entries that were not spooled, because the disk failed or the spool was closed.
    pub failed: u64,
    /// Transactions; with `always`, each has one fsync.
    pub commits: u64,
}

/// A handle to the spool; cheap to clone. The thread ends when the spool is closed or the last handle is
/// dropped, after it has written everything that was requested.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Spool {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
    options: SpoolOptions,
    /// Cancelled when the thread has panicked.
    panicked: CancellationToken,
}

#[derive(Debug, Default)]
struct Shared {
    health: Arc<DiskHealth>,
    depth: Mutex<Depth>,
    settled: Mutex<Settled>,
    /// Notified when `settled` is not empty.
    wake: Notify,
    appended: Counter,
    full: Counter,
    slow: Counter,
    failed: Counter,
    commits: Counter,
    of_slow: Mutex<Seldom>,
    /// Whether a stall of the disk was logged whose end has not been logged yet.
    hangs: AtomicBool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Depth {
    entries: usize,
    bytes: u64,
    file_bytes: u64,
}

/// Entries that no longer need to be on disk. No caller waits for their removal, so they are kept here until
/// the disk accepts it: by line, the newest sequence that the log has, and single entries, each of which is
/// or may be on disk.
#[derive(Debug, Default)]
struct Settled {
    acked: BTreeMap<LineKey, u64>,
    forgotten: Vec<(LineKey, Vec<u64>)>,
}

impl Settled {
    fn acknowledged(&mut self, line: LineKey, seq: u64) {
        let newest = self.acked.entry(line).or_default();
        *newest = seq.max(*newest);
    }
}

type Answer = oneshot::Sender<Result<(), SpoolError>>;

#[derive(Debug)]
enum Request {
    /// An append. If its caller no longer waits for the answer, it counts as not appended.
    Append(LineKey, Vec<Append>, Answer),
    #[cfg(test)]
    Close(oneshot::Sender<()>),
}

/// How long a start waits for a disk that hangs.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// The result of opening the spool.
type Opened = Result<(Arc<Shared>, Vec<Former>), SpoolOpenError>;

impl Spool {
    /// Opens or creates the spool in its own directory, and returns what is in it.
    ///
    /// # Errors
    /// The directory or the file cannot be used. What is there is left unchanged.
    pub(in crate::storage) async fn open(
        dir: &Path,
        options: SpoolOptions,
    ) -> Result<(Self, Vec<Former>), SpoolOpenError> {
        let (requests, inbox) = mpsc::channel(QUEUE_LEN);
        let (opened, answer) = oneshot::channel();
        let unusable = |cause| SpoolOpenError::Unusable { dir: dir.to_owned(), cause };
        let path = dir.to_owned();
        let panicked = disk::start("spool", move || writer::run(path, options, inbox, opened));
        let panicked = panicked.map_err(unusable)?;
        let found = disk::found(answer, OPEN_WITHIN).await.map_err(|error| match error.kind() {
            ErrorKind::TimedOut => unusable(error),
            _ => SpoolOpenError::Unreadable { file: dir.to_owned(), problem: error.to_string() },
        });
        let (shared, formers) = found??;
        Ok((Self { requests, shared, options, panicked }, formers))
    }

    /// Ends when the thread has panicked, and never otherwise. It does not keep the spool open.
    pub(in crate::storage) fn panicked(&self) -> impl Future<Output = ()> + Send + use<> {
        self.panicked.clone().cancelled_owned()
    }

    /// Whether an entry that cannot be spooled is refused.
    pub(in crate::storage) fn is_required(&self) -> bool {
        self.options.is_required
    }

    /// Spools entries of a channel, ascending in `seq`: all or none. When it returns `Ok`, which takes no
    /// longer than the deadline, they are as durable as configured. An existing sequence is overwritten. If
    /// the future is dropped before it completes, the call may or may not have taken effect.
    ///
    /// # Errors
    /// The entries are not spooled, or are removed again as soon as the disk accepts that: if the process
    /// crashes before, they may be sent after the next start.
    pub(in crate::storage) async fn append(
        &self,
        producer: NodeId,
        channel: &ChannelName,
        entries: &[Append],
    ) -> Result<(), SpoolError> {
        let line = (producer, channel.clone());
        let result = self.ask(line, entries.to_vec()).await;
        let counter = match &result {
            Ok(()) => &self.shared.appended,
            Err(SpoolError::Full) => &self.shared.full,
            Err(SpoolError::Slow { .. }) => &self.shared.slow,
            Err(SpoolError::Failed { .. } | SpoolError::Closed) => &self.shared.failed,
        };
        counter.add(entries.len() as u64);
        if let Err(error @ SpoolError::Slow { .. }) = &result
            && let Some(untold) = self.shared.of_slow.lock().may_tell(Instant::now())
        {
            self.shared.hangs.store(true, Ordering::Relaxed);
            tracing::error!(%error, untold, required = self.options.is_required, "the spool's disk hangs");
        }
        if result.is_ok() && self.shared.hangs.swap(false, Ordering::Relaxed) {
            tracing::info!("the spool's disk answers again");
        }
        result
    }

    async fn ask(&self, line: LineKey, entries: Vec<Append>) -> Result<(), SpoolError> {
        let within = self.options.deadline;
        match self.state() {
            DiskState::Working => {}
            DiskState::Failed(reason) => return Err(SpoolError::Failed { reason }),
            DiskState::Stalled(_) => return Err(SpoolError::Slow { within }),
            DiskState::Closed => return Err(SpoolError::Closed),
        }
        let deadline = Instant::now() + within;
        let (answer, mut answered) = oneshot::channel();
        let request = Request::Append(line, entries, answer);
        match time::timeout_at(deadline, self.requests.send(request)).await {
            Ok(Ok(())) => {}
            Ok(Err(_closed)) => return Err(SpoolError::Closed),
            Err(_elapsed) => return Err(SpoolError::Slow { within }),
        }
        match time::timeout_at(deadline, &mut answered).await {
            Ok(answer) => answer.unwrap_or(Err(SpoolError::Closed)),
            Err(_elapsed) => {
                // From here on the thread cannot answer, and it undoes a write that it cannot answer.
                answered.close();
                answered.try_recv().unwrap_or(Err(SpoolError::Slow { within }))
            }
        }
    }

    /// The log has a producer's entries of a channel up to and including `seq`. They are removed before
    /// anything appended later is written, as soon as the disk accepts that. If the removal is lost, they are
    /// sent again, which the producer's chain makes harmless.
    pub(in crate::storage) fn acknowledged(&self, producer: NodeId, channel: &ChannelName, seq: u64) {
        self.shared.settled.lock().acknowledged((producer, channel.clone()), seq);
        self.shared.wake.notify_one();
    }

    /// The journal dropped entries that the log does not have. They are removed as
    /// [`acknowledged`](Self::acknowledged) ones are, and the next entry after each takes over its `prev`.
    pub(in crate::storage) fn forget(&self, producer: NodeId, channel: &ChannelName, seqs: Vec<u64>) {
        self.shared.settled.lock().forgotten.push(((producer, channel.clone()), seqs));
        self.shared.wake.notify_one();
    }

    /// Writes what was requested, and closes the file.
    #[cfg(test)]
    pub(in crate::storage) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            let _is_closed = closed.await;
        }
    }

    /// Whether the disk works.
    pub(in crate::storage) fn state(&self) -> DiskState {
        match self.panicked.is_cancelled() {
            true => DiskState::Closed,
            false => self.shared.health.state(self.options.deadline),
        }
    }

    /// How many entries have not been acknowledged.
    pub(in crate::storage) fn entries(&self) -> usize {
        self.shared.depth.lock().entries
    }

    /// The health of the spool.
    pub(in crate::storage) fn status(&self) -> SpoolStatus {
        let Shared { depth, appended, full, slow, failed, commits, .. } = &*self.shared;
        let Depth { entries, bytes, file_bytes } = *depth.lock();
        SpoolStatus {
            state: self.state(),
            entries,
            bytes,
            file_bytes,
            appended: appended.get(),
            full: full.get(),
            slow: slow.get(),
            failed: failed.get(),
            commits: commits.get(),
        }
    }
}
