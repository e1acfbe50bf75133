//! The folder in which memory persists its content, so that it survives the process.
//!
//! One thread owns the files, and is the only one that changes what is kept. It takes the requests that wait,
//! decides each by what memory holds, writes all resulting changes in one transaction, applies them to
//! memory, and answers. So nobody reads what is not written, and whatever was answered survives the process.
//! Two batches of one channel are never written together, because deciding the second requires the outcome of
//! the first.
//!
//! Entries that expire or exceed a bound are removed from memory first, and from the files about once a
//! second.
//!
//! What the disk does not accept is refused. The thread retries until the disk works, and first corrects rows
//! that the disk may have stored although they were refused. Reading continues meanwhile. If the disk hangs,
//! requests fail after a deadline; they may still take effect, as with a remote storage.

mod load;
#[cfg(any(test, feature = "probes"))]
pub(in crate::storage) mod probes;
mod requests;
mod rows;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::model::ChannelName;
use crate::storage::disk::{self, DiskHealth, DiskState};
use crate::storage::{MemoryConfig, Result, Retention, StorageError};
use crate::support::counter::Counter;
use crate::support::seldom::Seldom;
use store::Change;

pub(super) use rows::{Clock, is_kept, json};

/// Requests that wait for the thread; further callers wait for room until their deadline.
const QUEUE_LEN: usize = 1024;

/// How long a start waits for a disk that hangs, or that has much to read.
const OPEN_WITHIN: Duration = Duration::from_secs(120);

/// How long a shutdown waits for the last write; an abrupt end of the process would lose no more.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Why the folder cannot be used at startup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// It cannot be created, read or written.
    #[error("the directory {} cannot be used", dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Another process uses it, or this one a second time.
    #[error("{} is in use by another process; each gateway needs a directory of its own", file.display())]
    InUse {
        /// Its file.
        file: PathBuf,
    },
    /// A later version wrote it. It was left unchanged.
    #[error(
        "{} was written by a later version, in form {form}: this one reads form {}. Use that version, or name \
         another directory", dir.display(), rows::FORM
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// The version of its rows' form.
        form: u32,
    },
}

/// What was found in the folder at startup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Channels.
    pub(crate) channels: usize,
    /// Entries, including the latest ones of keys.
    pub(crate) entries: usize,
    /// Jobs.
    pub(crate) jobs: usize,
    /// Rows that were damaged, or that belonged to nothing.
    pub(crate) unreadable: u64,
    /// Files that were set aside, each with its fault.
    pub(crate) aside: Vec<String>,
    /// Why all logs continue in a new epoch, if they do: something that clients have had may be missing.
    pub(crate) renewed: Option<&'static str>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, entries, jobs, unreadable, aside, renewed } = self;
        write!(f, "its directory had {channels} channels, {entries} entries and {jobs} jobs")?;
        if *unreadable > 0 {
            write!(f, "; {unreadable} rows could not be read")?;
        }
        for aside in aside {
            write!(f, "; {aside}")?;
        }
        if let Some(why) = renewed {
            write!(f, "; all channels continue in another epoch, since {why}")?;
        }
        Ok(())
    }
}

impl Found {
    /// Whether nothing can be missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.unreadable == 0 && self.aside.is_empty() && self.renewed.is_none()
    }
}

/// A handle to the folder; cheap to clone. The thread ends when the folder is closed or the last handle is
/// dropped, after it has written everything that was requested.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    requests: mpsc::Sender<Request>,
    /// The content of memory.
    memory: Arc<Shared>,
    pub(super) health: Arc<Health>,
    deadline: Duration,
    /// Cancelled when the thread has panicked.
    panicked: CancellationToken,
}

/// The health of the folder.
#[derive(Debug, Default)]
pub(crate) struct Health {
    disk: Arc<DiskHealth>,
    /// The length of the files.
    pub(super) file_bytes: Counter,
    /// Transactions that somebody waited for.
    pub(super) commits: Counter,
    /// Requests that were refused because the disk did not accept them.
    pub(super) refused: Counter,
    /// Files that were set aside since the start, and at the start.
    pub(super) set_aside: Counter,
    of_slow: Mutex<Seldom>,
}

/// Changes that somebody waits for, and what to do once they are written, or have failed.
struct Planned {
    changes: Vec<Change>,
    then: Then,
}

/// Applies written changes to memory and answers; or answers why they could not be written.
type Then = Box<dyn FnOnce(&Shared, Result<(), String>) + Send>;

/// Reads memory and returns what has to be written, or answers at once.
type Plan = Box<dyn FnOnce(&Shared) -> Option<Planned> + Send>;

enum Request {
    /// A plan; with a channel if it depends on the outcome of earlier plans for that channel.
    Do(Option<ChannelName>, Plan),
    Close(oneshot::Sender<()>),
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Do(channel, _) => f.debug_tuple("Do").field(channel).finish(),
            Self::Close(_) => f.write_str("Close"),
        }
    }
}

/// The recipient of an answer. A caller that no longer waits needs none.
struct Reply<T> {
    to: oneshot::Sender<Result<T>>,
}

impl<T> Reply<T> {
    fn tell(self, answer: T) {
        let _gone = self.to.send(Ok(answer));
    }

    fn refuse(self, why: String) {
        let _gone = self.to.send(Err(not_durable(why)));
    }
}

impl<T: Send + 'static> Reply<T> {
    /// Has changes written; `apply` then applies them to memory, and returns the answer.
    fn once_written(
        self,
        changes: Vec<Change>,
        apply: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Option<Planned> {
        let then: Then = Box::new(move |memory, written| match written {
            Ok(()) => self.tell(apply(memory)),
            Err(why) => self.refuse(why),
        });
        Some(Planned { changes, then })
    }
}

fn not_durable(why: String) -> StorageError {
    StorageError::NotDurable { why }
}

/// What the thread needs to open the folder.
struct Opening {
    dir: PathBuf,
    retention: Retention,
    config: MemoryConfig,
}

/// The result of opening the folder.
type Opened = Result<(Arc<Shared>, Arc<Health>, Found), FolderError>;

impl Folder {
    /// Opens or creates the folder, and reads its content into a new memory.
    pub(super) async fn open(
        dir: &Path,
        retention: Retention,
        config: MemoryConfig,
    ) -> Result<(Self, Arc<Shared>, Found), FolderError> {
        let (requests, inbox) = mpsc::channel(QUEUE_LEN);
        let (opened, answer) = oneshot::channel();
        let unusable = |cause| FolderError::Unusable { dir: dir.to_owned(), cause };
        let deadline = Duration::from_millis(config.deadline_ms);
        let opening = Opening { dir: dir.to_owned(), retention, config };
        let panicked =
            disk::start("memory", move || writer::run(opening, inbox, opened)).map_err(unusable)?;
        let (memory, health, found) = disk::found(answer, OPEN_WITHIN).await.map_err(unusable)??;
        let folder = Self { requests, memory: Arc::clone(&memory), health, deadline, panicked };
        Ok((folder, memory, found))
    }

    /// Ends when the thread has panicked, and never otherwise. It does not keep the folder open.
    pub(crate) fn panicked(&self) -> impl Future<Output = ()> + Send + use<> {
        self.panicked.clone().cancelled_owned()
    }

    /// Reports the health of the folder until it is closed; does not keep it open.
    pub(crate) fn watch(&self) -> FolderWatch {
        let (health, panicked) = (Arc::clone(&self.health), self.panicked.clone());
        FolderWatch { health, panicked, deadline: self.deadline }
    }

    /// Whether the disk accepts writes.
    pub(super) fn state(&self) -> DiskState {
        self.watch().state()
    }

    /// Writes what is pending, and closes the files.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let close = async {
            if self.requests.send(Request::Close(done)).await.is_ok() {
                let _is_closed = closed.await;
            }
        };
        if time::timeout(CLOSE_WITHIN, close).await.is_err() {
            tracing::warn!(
                "the memory's disk does not answer at shutdown; everything accepted is in its files"
            );
        }
    }

    /// Has the thread execute a plan.
    async fn ask<T: Send + 'static>(
        &self,
        op: &'static str,
        channel: Option<&ChannelName>,
        plan: impl FnOnce(&Shared, Reply<T>) -> Option<Planned> + Send + 'static,
    ) -> Result<T> {
        let answer = self.ask_within(op, channel, plan).await;
        if matches!(answer, Err(StorageError::NotDurable { .. } | StorageError::Deadline { .. })) {
            self.health.refused.add(1);
        }
        answer
    }

    async fn ask_within<T: Send + 'static>(
        &self,
        op: &'static str,
        channel: Option<&ChannelName>,
        plan: impl FnOnce(&Shared, Reply<T>) -> Option<Planned> + Send + 'static,
    ) -> Result<T> {
        let state = self.state();
        if matches!(state, DiskState::Stalled(_) | DiskState::Closed) {
            return Err(not_durable(state.reason().unwrap_or_default()));
        }
        let deadline = Instant::now() + self.deadline;
        let (to, answered) = oneshot::channel();
        let plan: Plan = Box::new(move |memory| plan(memory, Reply { to }));
        match time::timeout_at(deadline, self.requests.send(Request::Do(channel.cloned(), plan))).await {
            Ok(Ok(())) => {}
            Ok(Err(_closed)) => return Err(not_durable("its files are closed".to_owned())),
            Err(_elapsed) => {
                self.say_that_it_hangs();
                return Err(not_durable(format!("the disk did not store it within {:?}", self.deadline)));
            }
        }
        match time::timeout_at(deadline, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_gone| {
                let cause = "the thread that writes to disk has ended".into();
                Err(StorageError::Unreachable { op, cause })
            }),
            Err(_elapsed) => {
                self.say_that_it_hangs();
                Err(StorageError::Deadline { op, limit: self.deadline })
            }
        }
    }

    fn say_that_it_hangs(&self) {
        if let Some(untold) = self.health.of_slow.lock().may_tell(Instant::now()) {
            let limit = self.deadline;
            tracing::error!(?limit, untold, "the memory's disk hangs; whatever is published is refused");
        }
    }
}

/// Reports the health of the folder.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    health: Arc<Health>,
    panicked: CancellationToken,
    deadline: Duration,
}

impl FolderWatch {
    /// Whether the disk accepts writes.
    pub(crate) fn state(&self) -> DiskState {
        match self.panicked.is_cancelled() {
            true => DiskState::Closed,
            false => self.health.disk.state(self.deadline),
        }
    }
}
