//! The folder in which memory keeps what it has, so that it survives the process.
//!
//! One thread has the files, and is the only one that changes what is kept: it takes what waits together,
//! decides on each with what memory holds, writes all that changes as one transaction, does it in memory, and
//! answers. So nobody reads what is not written, and what is answered survives the process. Entries of two
//! batches of one channel, the second of which has to know what became of the first, are not written together.
//!
//! What grows too old, or is too much, is taken out of the files behind its back, about once a second.
//!
//! What the disk does not take is refused: it is tried anew until it works, and what it may hold of what was
//! refused is put right first. Reading goes on meanwhile. A disk that hangs is answered for after a deadline;
//! what was under way then may take effect yet, as with a storage that is elsewhere.

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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::model::ChannelName;
use crate::storage::disk::{DiskHealth, DiskState};
use crate::storage::{MemoryConfig, Result, Retention, StorageError};
use crate::support::counter::Counter;
use crate::support::seldom::Seldom;
use store::Change;

pub(super) use rows::{Clock, is_kept, json};

/// What waits for the thread; whoever comes then waits too, until its deadline.
const QUEUE_LEN: usize = 1024;

/// A start does not wait longer for a disk that hangs, or that has much to read.
const OPEN_WITHIN: Duration = Duration::from_secs(120);

/// The end does not wait longer for the last of it to be written; it is as safe from the end of the process.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// The folder cannot be used from the start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// It cannot be made, read or written.
    #[error("the directory {} cannot be used", dir.display())]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Another process has it; or this one, twice.
    #[error("{} is in use by another process; each gateway needs a directory of its own", file.display())]
    InUse {
        /// Its file.
        file: PathBuf,
    },
    /// A later version wrote it. It was left as it is.
    #[error(
        "{} was written by a later version, in form {form}: this one reads form {}. Use that version, or name \
         another directory", dir.display(), rows::FORM
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// The form of its rows.
        form: u32,
    },
}

/// What was found in the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Lives of channels.
    pub(crate) channels: usize,
    /// Entries, the latest ones of keys included.
    pub(crate) entries: usize,
    /// Jobs.
    pub(crate) jobs: usize,
    /// Rows that were damaged, or that belong to nothing.
    pub(crate) unreadable: u64,
    /// Files that were put aside, each with what was wrong with it.
    pub(crate) aside: Vec<String>,
    /// Why logs go on in another epoch, where they do: it may lack what clients have had.
    pub(crate) renewed: Option<&'static str>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, entries, jobs, unreadable, aside, renewed } = self;
        write!(f, "its directory had, in numbers: channels {channels}, entries {entries}, jobs {jobs}")?;
        if *unreadable > 0 {
            write!(f, "; {unreadable} rows could not be read")?;
        }
        for aside in aside {
            write!(f, "; {aside}")?;
        }
        if let Some(why) = renewed {
            write!(f, "; all channels go on in another epoch, since {why}")?;
        }
        Ok(())
    }
}

impl Found {
    /// Nothing of it may be missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.unreadable == 0 && self.aside.is_empty() && self.renewed.is_none()
    }
}

/// How the folder does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FolderStatus {
    pub(crate) state: DiskState,
    /// The length of the files.
    pub(crate) file_bytes: u64,
    /// Transactions that were written for somebody who waited.
    pub(crate) commits: u64,
    /// What was refused, because the disk did not take it.
    pub(crate) refused: u64,
    /// Files that were put aside since the start, that at the start included.
    pub(crate) set_aside: u64,
}

/// A handle to the folder; cheap to clone. The thread ends when it is closed, or when the last handle is
/// dropped, after it has written what was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    requests: mpsc::Sender<Request>,
    /// What memory holds.
    memory: Arc<Shared>,
    health: Arc<Health>,
    deadline: Duration,
    /// Cancelled when the thread has panicked.
    panicked: CancellationToken,
}

#[derive(Debug, Default)]
struct Health {
    disk: DiskHealth,
    file_bytes: Counter,
    commits: Counter,
    refused: Counter,
    set_aside: Counter,
    of_slow: Mutex<Seldom>,
}

/// What has to be written for somebody who waits, and what is done once it is, or is not.
struct Planned {
    changes: Vec<Change>,
    then: Then,
}

/// Does in memory what was written, and answers; or answers why it was not.
type Then = Box<dyn FnOnce(&Shared, Result<(), String>) + Send>;

/// Looks at memory and says what has to be written, or answers at once.
type Plan = Box<dyn FnOnce(&Shared) -> Option<Planned> + Send>;

enum Request {
    /// A plan, and of which channel it has to know what became of those before it.
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

/// Where an answer goes to. Who does not wait any more needs none.
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

fn not_durable(why: String) -> StorageError {
    StorageError::NotDurable { why }
}

/// What the thread is opened with.
struct Opening {
    dir: PathBuf,
    retention: Retention,
    config: MemoryConfig,
}

/// What [`Folder::open`] answers.
type Opened = Result<(Arc<Shared>, Arc<Health>, Found), FolderError>;

impl Folder {
    /// Opens or makes the folder, and reads what is in it into a memory of its own.
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
        let panicked = CancellationToken::new();
        let told = panicked.clone();
        let run = move || {
            // All that it had goes with it.
            if catch_unwind(AssertUnwindSafe(|| writer::run(opening, inbox, opened))).is_err() {
                told.cancel();
            }
        };
        thread::Builder::new().name("memory".to_owned()).spawn(run).map_err(unusable)?;
        let failed = |kind, problem: String| unusable(io::Error::new(kind, problem));
        let late = |_elapsed| {
            failed(io::ErrorKind::TimedOut, format!("the disk has not answered within {OPEN_WITHIN:?}"))
        };
        let gave_up = |_gone| failed(io::ErrorKind::Other, "the database gave up on it".to_owned());
        let (memory, health, found) =
            time::timeout(OPEN_WITHIN, answer).await.map_err(late)?.map_err(gave_up)??;
        let folder = Self { requests, memory: Arc::clone(&memory), health, deadline, panicked };
        Ok((folder, memory, found))
    }

    /// Ends when the thread has panicked, and at no other time. It does not keep the folder open.
    pub(crate) fn panicked(&self) -> impl Future<Output = ()> + Send + use<> {
        self.panicked.clone().cancelled_owned()
    }

    /// Tells how the folder does, for as long as nobody has closed it; it does not keep the folder open.
    pub(crate) fn watch(&self) -> FolderWatch {
        let (health, panicked) = (Arc::clone(&self.health), self.panicked.clone());
        FolderWatch { health, panicked, deadline: self.deadline }
    }

    /// How it does.
    pub(crate) fn status(&self) -> FolderStatus {
        self.watch().status()
    }

    /// Writes what there is, and lets go of the files.
    pub(super) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        let close = async {
            if self.requests.send(Request::Close(done)).await.is_ok() {
                let _is_closed = closed.await;
            }
        };
        if time::timeout(CLOSE_WITHIN, close).await.is_err() {
            tracing::warn!(
                "the disk of the memory does not answer at the end; what was accepted is in its files"
            );
        }
    }

    /// Has the thread carry out a plan.
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
        let state = self.watch().state();
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
                return Err(not_durable(format!("the disk did not take it within {:?}", self.deadline)));
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
            tracing::error!(?limit, untold, "the memory's disk hangs: what is published is refused");
        }
    }
}

/// Tells how the folder does.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    health: Arc<Health>,
    panicked: CancellationToken,
    deadline: Duration,
}

impl FolderWatch {
    /// Whether the disk takes what is written.
    pub(crate) fn state(&self) -> DiskState {
        match self.panicked.is_cancelled() {
            true => DiskState::Closed,
            false => self.health.disk.state(self.deadline),
        }
    }

    fn status(&self) -> FolderStatus {
        let Health { file_bytes, commits, refused, set_aside, .. } = &*self.health;
        FolderStatus {
            state: self.state(),
            file_bytes: file_bytes.get(),
            commits: commits.get(),
            refused: refused.get(),
            set_aside: set_aside.get(),
        }
    }
}
