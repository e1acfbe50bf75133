//! The journal's copy on disk: what a crash of the gateway in an outage would lose otherwise.
//!
//! All I/O is on a thread of its own; whoever appends awaits an answer. What waits at the same time is
//! written as one transaction, with one fsync. Entries stay until they are acknowledged, whichever life
//! of the gateway that takes.
//!
//! A disk that fails turns the spool off, once and loudly: the gateway goes on with its journal in
//! memory, because refusing prices and orders for want of the second copy would make a small fault a
//! large one. [`Spool::status`] says so from then on, and what is on disk is left as it is.

mod store;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};

use super::{Append, Fsync, SpoolConfig};
use crate::model::{ChannelName, Epoch, NodeId};
use crate::support::counter::Counter;
use store::{Change, Index, Op, Store, StoreError};

/// Requests that wait for the thread; whoever comes then waits too.
const QUEUE_LEN: usize = 1024;

/// What one transaction takes, in bytes, apart from the request that passes it.
const TRANSACTION_BYTES: u64 = 4 << 20;

/// With the policy `interval`, what is held in memory until the next fsync; more is fsynced early.
const UNSYNCED_BYTES: usize = 16 << 20;

/// When what was written reaches the disk itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum FsyncPolicy {
    /// Before an append is answered: it survives a crash of the machine.
    Always,
    /// So often: an append that was answered survives a crash of the process, and one of the machine
    /// if it was answered that long before.
    Interval(Duration),
    /// When the operating system sees fit: an append that was answered survives a crash of the process.
    /// After a crash of the machine the file may be unreadable.
    Never,
}

impl FsyncPolicy {
    /// The policy that is configured.
    pub(in crate::storage) fn of(config: &SpoolConfig) -> Self {
        match config.fsync {
            Fsync::Always => Self::Always,
            Fsync::Interval => Self::Interval(Duration::from_millis(config.fsync_interval_ms)),
            Fsync::Never => Self::Never,
        }
    }
}

/// What former lives of the gateway had accepted for a channel, and had not got acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Former {
    /// Who they were accepted as: they are to be sent as that producer's.
    pub producer: NodeId,
    /// The channel.
    pub channel: ChannelName,
    /// The life of the log that they were to continue, where it was known.
    pub log_epoch: Option<Epoch>,
    /// The entries in ascending `seq`; at least one.
    pub entries: Vec<Append>,
}

/// The spool cannot be used from the start.
#[derive(Debug, thiserror::Error)]
pub(in crate::storage) enum SpoolOpenError {
    /// The directory cannot be made, read or written.
    #[error("the spool's directory {} cannot be used", dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Another process has it; or this one, twice.
    #[error("the spool {} is in use by another process; each gateway needs a directory of its own", file.display())]
    InUse {
        /// Its file.
        file: PathBuf,
    },
    /// The file is damaged, or a newer version wrote it. It was left as it is.
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

/// An append that was not spooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::storage) enum SpoolError {
    /// There is no room: the entries are to be refused.
    #[error("the spool is full")]
    Full,
    /// The spool is off because of a failed disk, or closed: the journal in memory is all there is.
    #[error("the spool is off")]
    Off,
}

/// Whether the spool works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) enum SpoolState {
    /// It does.
    Working,
    /// The disk failed, and nothing has been spooled since.
    Failed {
        /// What the system said.
        reason: String,
    },
    /// It was closed.
    Closed,
}

/// How a spool does. Counters only grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct SpoolStatus {
    /// Whether it works.
    pub state: SpoolState,
    /// Entries that are not acknowledged.
    pub entries: usize,
    /// What they cost, by the measure of the bound.
    pub bytes: u64,
    /// The length of the file; room inside is used again, and given back when it becomes empty.
    pub file_bytes: u64,
    /// Entries that were spooled.
    pub appended: u64,
    /// Entries that were refused for want of room.
    pub refused_full: u64,
    /// Entries that were not spooled because the spool was off.
    pub not_spooled: u64,
    /// Transactions: with the policy `always` as many fsyncs.
    pub commits: u64,
}

/// A handle to the spool; cheap to clone. The thread ends when it is closed, or when the last handle
/// is dropped, after it has written what was asked for.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Spool {
    requests: mpsc::Sender<Request>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<SpoolState>,
    depth: Mutex<Depth>,
    appended: Counter,
    refused_full: Counter,
    not_spooled: Counter,
    commits: Counter,
}

#[derive(Debug, Clone, Copy, Default)]
struct Depth {
    entries: usize,
    bytes: u64,
    file_bytes: u64,
}

type Answer = oneshot::Sender<Result<(), SpoolError>>;

#[derive(Debug)]
enum Request {
    /// With an answer only for an append.
    Change(Op, Option<Answer>),
    #[cfg(test)]
    Close(oneshot::Sender<()>),
}

/// What [`Spool::open`] answers.
type Opened = Result<(Arc<Shared>, Vec<Former>), SpoolOpenError>;

impl Spool {
    /// Opens or makes the spool in a directory of its own, and answers what is in it. `bytes` bounds
    /// the entries; the file takes up to about three times as much.
    ///
    /// # Errors
    /// The directory or the file cannot be used. What is there is left as it is.
    pub(in crate::storage) async fn open(
        dir: &Path,
        fsync: FsyncPolicy,
        bytes: u64,
    ) -> Result<(Self, Vec<Former>), SpoolOpenError> {
        let (requests, inbox) = mpsc::channel(QUEUE_LEN);
        let (opened, answer) = oneshot::channel();
        let unusable = |cause| SpoolOpenError::Unusable { dir: dir.to_owned(), cause };
        let path = dir.to_owned();
        let run = move || run(&path, fsync, bytes, inbox, opened);
        thread::Builder::new().name("spool".to_owned()).spawn(run).map_err(unusable)?;
        let gave_up = |_gone| SpoolOpenError::Unreadable {
            file: dir.to_owned(),
            problem: "the database gave up on it".to_owned(),
        };
        let (shared, formers) = answer.await.map_err(gave_up)??;
        Ok((Self { requests, shared }, formers))
    }

    /// Spools entries of a channel, ascending in `seq`: all or none. As durable as the policy says
    /// when it answers `Ok`. A sequence that is there already is written anew. Dropped before it
    /// answers, it may or may not have taken effect.
    ///
    /// # Errors
    /// Full, or off.
    pub(in crate::storage) async fn append(
        &self,
        producer: NodeId,
        channel: &ChannelName,
        log_epoch: Option<&Epoch>,
        entries: &[Append],
    ) -> Result<(), SpoolError> {
        let line = (producer, channel.clone());
        let op = Op::Append { line, epoch: log_epoch.cloned(), entries: entries.to_vec() };
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(Request::Change(op, Some(answer))).await;
        let result = match sent {
            Ok(()) => answered.await.unwrap_or(Err(SpoolError::Off)),
            Err(_closed) => Err(SpoolError::Off),
        };
        let count = entries.len() as u64;
        match result {
            Ok(()) => self.shared.appended.add(count),
            Err(SpoolError::Full) => self.shared.refused_full.add(count),
            Err(SpoolError::Off) => self.shared.not_spooled.add(count),
        }
        result
    }

    /// The log has a producer's entries of a channel up to and including `seq`: they go, in order with
    /// what was asked for before, but not necessarily before this returns. Should that be lost, they
    /// are sent once more, which the producer's chain makes harmless.
    pub(in crate::storage) async fn acknowledged(&self, producer: NodeId, channel: &ChannelName, seq: u64) {
        self.change(Op::Acknowledged { line: (producer, channel.clone()), seq }).await;
    }

    /// The journal let go of entries that the log does not have: they go, and what comes behind each
    /// takes over its `prev`. In the same manner as [`acknowledged`](Self::acknowledged).
    pub(in crate::storage) async fn forget(&self, producer: NodeId, channel: &ChannelName, seqs: Vec<u64>) {
        self.change(Op::Forget { line: (producer, channel.clone()), seqs }).await;
    }

    async fn change(&self, op: Op) {
        // A spool that is off says so in its status, and has nothing to let go.
        let _is_off = self.requests.send(Request::Change(op, None)).await;
    }

    /// Writes and fsyncs what was asked for, and lets go of the files.
    #[cfg(test)]
    pub(in crate::storage) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            let _is_closed = closed.await;
        }
    }

    /// How it does.
    pub(in crate::storage) fn status(&self) -> SpoolStatus {
        let Shared { state, depth, appended, refused_full, not_spooled, commits } = &*self.shared;
        let Depth { entries, bytes, file_bytes } = *depth.lock();
        SpoolStatus {
            state: state.lock().clone(),
            entries,
            bytes,
            file_bytes,
            appended: appended.get(),
            refused_full: refused_full.get(),
            not_spooled: not_spooled.get(),
            commits: commits.get(),
        }
    }
}

// The thread

/// Opens the store, says how that went, and serves until it is closed or the disk fails.
fn run(
    dir: &Path,
    fsync: FsyncPolicy,
    bytes_max: u64,
    inbox: mpsc::Receiver<Request>,
    opened: oneshot::Sender<Opened>,
) {
    // Only for its timer: this thread has nothing else to do while it writes.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            let _gone = opened.send(Err(SpoolOpenError::Unusable { dir: dir.to_owned(), cause }));
            return;
        }
    };
    let (store, index, formers) = match Store::open(dir, fsync) {
        Ok(found) => found,
        Err(error) => {
            let _gone = opened.send(Err(error));
            return;
        }
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(SpoolState::Working),
        depth: Mutex::default(),
        appended: Counter::default(),
        refused_full: Counter::default(),
        not_spooled: Counter::default(),
        commits: Counter::default(),
    });
    let sync_every = match fsync {
        FsyncPolicy::Interval(every) => Some(every),
        FsyncPolicy::Always | FsyncPolicy::Never => None,
    };
    let mut writer = Writer { store, index, inbox, shared: Arc::clone(&shared), bytes_max, sync_every };
    writer.show_depth();
    if opened.send(Ok((shared, formers))).is_err() {
        return;
    }
    // The database may panic on a file that was damaged under it.
    let serve = AssertUnwindSafe(|| runtime.block_on(writer.serve()));
    let ended = catch_unwind(serve)
        .unwrap_or_else(|_panic| Err(StoreError::Corrupted("the database gave up on its file".to_owned())));
    let Writer { store, mut inbox, shared, .. } = writer;
    let state = match &ended {
        Ok(_) => SpoolState::Closed,
        Err(error) => SpoolState::Failed { reason: error.to_string() },
    };
    *shared.state.lock() = state;
    // Before anyone is told, so that the files can be opened anew.
    drop(store);
    match ended {
        Ok(Some(done)) => drop(done.send(())),
        Ok(None) => {}
        Err(error) => tracing::error!(
            error = %error,
            "the spool's disk failed: the spool is off, and what is accepted in an outage is in memory only \
             from now on"
        ),
    }
    // Whoever waits still finds their answer dropped, which says that the spool is off.
    inbox.close();
}

#[derive(Debug)]
struct Writer {
    store: Store,
    index: Index,
    inbox: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
    bytes_max: u64,
    sync_every: Option<Duration>,
}

/// Requests that are written together.
#[derive(Debug, Default)]
struct Group {
    changes: Vec<Change>,
    written: Vec<Answer>,
    bytes: u64,
    close: Option<oneshot::Sender<()>>,
}

impl Writer {
    /// Answers whom to tell that it is closed.
    async fn serve(&mut self) -> Result<Option<oneshot::Sender<()>>, StoreError> {
        let mut sync_at = None;
        loop {
            let request = match sync_at {
                None => self.inbox.recv().await,
                Some(at) => match time::timeout_at(at, self.inbox.recv()).await {
                    Ok(request) => request,
                    Err(_elapsed) => {
                        sync_at = None;
                        self.sync()?;
                        continue;
                    }
                },
            };
            let Some(request) = request else {
                self.sync()?;
                return Ok(None);
            };
            let mut group = Group::default();
            self.take(request, &mut group);
            while group.close.is_none()
                && group.bytes < TRANSACTION_BYTES
                && let Ok(request) = self.inbox.try_recv()
            {
                self.take(request, &mut group);
            }
            self.write(group.changes, group.written)?;
            if group.close.is_some() {
                self.sync()?;
                return Ok(group.close);
            }
            if self.store.is_synced() {
                sync_at = None;
            } else if self.store.unsynced_bytes() >= UNSYNCED_BYTES
                || sync_at.is_some_and(|at| at <= Instant::now())
            {
                sync_at = None;
                self.sync()?;
            } else if sync_at.is_none() {
                sync_at = self.sync_every.map(|every| Instant::now() + every);
            }
        }
    }

    fn take(&mut self, request: Request, group: &mut Group) {
        let (op, answer) = match request {
            Request::Change(op, answer) => (op, answer),
            #[cfg(test)]
            Request::Close(done) => {
                group.close = Some(done);
                return;
            }
        };
        if let Op::Append { line, entries, .. } = &op {
            let bytes = Index::cost(line, entries);
            if self.index.bytes.saturating_add(bytes) > self.bytes_max {
                tell(answer, Err(SpoolError::Full));
                return;
            }
            group.bytes += bytes;
        }
        self.index.apply(op, &mut group.changes);
        group.written.extend(answer);
    }

    fn write(&mut self, changes: Vec<Change>, written: Vec<Answer>) -> Result<(), StoreError> {
        let was_empty = changes.is_empty();
        if !was_empty {
            self.store.write(changes)?;
            self.shared.commits.add(1);
            if self.index.is_empty() {
                self.store.compact()?;
            }
            self.show_depth();
        }
        for answer in written {
            tell(Some(answer), Ok(()));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.store.sync()?;
        if self.index.is_empty() {
            self.store.compact()?;
        }
        self.show_depth();
        Ok(())
    }

    fn show_depth(&self) {
        let Index { entries, bytes, .. } = self.index;
        *self.shared.depth.lock() = Depth { entries, bytes, file_bytes: self.store.file_bytes() };
    }
}

/// Who does not wait any more needs no answer.
fn tell(answer: Option<Answer>, result: Result<(), SpoolError>) {
    if let Some(answer) = answer {
        let _gone = answer.send(result);
    }
}
