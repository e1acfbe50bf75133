//! The storage that survives an outage: Redis while it serves, memory while it does not, and the way
//! there and back. No room that uses it sees a failover: calls go on being answered, and logs go
//! over into other lives at seams that say what a reader has had.
//!
//! - [`line`](self::line): what this node knows of each channel; opens forks and closes them.
//! - [`log`](self::log): the log role: appends, and which line goes which way.
//! - [`read`](self::read): what follows any position that a node ever told.
//! - [`rejoin`](self::rejoin): brings a channel back in step with the log.
//! - [`monitor`](self::monitor): beats, the state machine's signals and steps, and what is said of them.
//!
//! A channel forks by itself, at the first own append that the log does not take in time; channels
//! that nobody publishes to on this node stay in step throughout an outage. All that is decided about
//! a line is decided under one lock, without waiting.

mod jobs;
mod line;
mod log;
#[cfg(test)]
pub(crate) mod model;
mod monitor;
mod read;
mod records;
mod rejoin;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{self, Instant};

use super::failover::{First, Limits, Lost};
use super::journal::{Journal, JournalBounds, JournalCounts, JournalDepth};
use super::primary::Primary;
use super::{LogEvent, MemoryBackend, Outside, Result, StatusWriter, StorageBackend, StorageError};
use crate::model::{BackendName, BackendState, ChannelName, Lane, NodeId};
use crate::support::counter::Counter;
use line::Line;

/// Events on their way to whoever reads `incoming`.
const INCOMING_LEN: usize = 1_024;

/// A call that failed waits this long for the verdict whether Redis is gone; after it, the caller is
/// told of the failure.
const VERDICT_WITHIN: Duration = Duration::from_millis(600);

/// How long a line that is being put in order is waited for.
const IN_ORDER_WITHIN: Duration = Duration::from_secs(1);

/// The lane of a channel.
pub(in crate::storage) type LaneOf = Arc<dyn Fn(&ChannelName) -> Lane + Send + Sync>;

/// What a switching storage is made of.
pub(in crate::storage) struct Parts {
    pub(in crate::storage) node: NodeId,
    pub(in crate::storage) memory: MemoryBackend,
    pub(in crate::storage) primary: Arc<dyn Primary>,
    pub(in crate::storage) lanes: LaneOf,
    pub(in crate::storage) journal: JournalBounds,
    /// How long an append on the latest lane is waited for before its channel goes on alone.
    pub(in crate::storage) ordering_deadline: Duration,
    pub(in crate::storage) limits: Limits,
    pub(in crate::storage) first: First,
    pub(in crate::storage) status: Arc<StatusWriter>,
    /// What is said of the primary when it serves.
    pub(in crate::storage) well: String,
}

/// [`StorageBackend`] that goes on while the storage it prefers is away.
#[derive(Debug)]
pub(in crate::storage) struct Switching {
    core: Arc<Core>,
    incoming: Mutex<Option<mpsc::Receiver<LogEvent>>>,
}

/// How a switching storage has fared.
#[derive(Debug, Default)]
pub(in crate::storage) struct SwitchingStats {
    /// Channels that went on alone.
    pub(in crate::storage) forks: Counter,
    /// Of these, because an append was late while Redis served.
    pub(in crate::storage) forks_late: Counter,
    /// Channels that came back in step.
    pub(in crate::storage) rejoins: Counter,
    /// Times that one was tried again.
    pub(in crate::storage) rejoin_retries: Counter,
    /// Entries that were sent again, or for the first time, when the log was back.
    pub(in crate::storage) replayed: Counter,
    /// Entries that were put back into a log that had lost them.
    pub(in crate::storage) put_back: Counter,
    /// Accepted entries that the log refused when it was back, because the order had ended or was
    /// somebody else's.
    pub(in crate::storage) superseded: Counter,
    /// Logs that had lost what they had acknowledged.
    pub(in crate::storage) lost_logs: Counter,
}

struct Core {
    node: NodeId,
    memory: MemoryBackend,
    primary: Arc<dyn Primary>,
    lanes: LaneOf,
    ordering_deadline: Duration,
    state: Mutex<State>,
    mode: watch::Sender<Mode>,
    /// Something waits to be put in order.
    work: Notify,
    /// A line was put in order.
    in_order: Notify,
    /// A call failed: whether Redis answers is to be found out at once.
    beat_now: Notify,
    events: mpsc::Sender<LogEvent>,
    /// An event found no room: everything that is followed is to be read.
    overrun: AtomicBool,
    stats: SwitchingStats,
    jobs: jobs::LocalJobs,
    records: records::LocalRecords,
}

#[derive(Debug)]
struct State {
    lines: HashMap<ChannelName, Line>,
    journal: Journal,
    /// Channels to be put in order.
    queue: BTreeSet<ChannelName>,
    /// Smoothed time that an append takes.
    append_time: Duration,
}

/// Who serves now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mode {
    state: BackendState,
    /// Memory serves because no Redis is configured, and none has appeared.
    alone: bool,
    lost: Option<Lost>,
}

impl Mode {
    /// Whether calls go to the primary.
    fn is_primary(&self) -> bool {
        !self.alone && self.state != BackendState::Degraded
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("node", &self.node).field("mode", &*self.mode.borrow()).finish_non_exhaustive()
    }
}

impl Switching {
    /// The storage, and a future that must run for as long as it is used.
    pub(in crate::storage) fn new(parts: Parts) -> (Self, BoxFuture<'static, ()>) {
        let (events, incoming) = mpsc::channel(INCOMING_LEN);
        let first = parts.first.clone();
        let mode = match &first {
            First::Redis => Mode { state: BackendState::Healthy, alone: false, lost: None },
            First::Alone => Mode { state: BackendState::Healthy, alone: true, lost: None },
            First::Memory(lost) => {
                Mode { state: BackendState::Degraded, alone: false, lost: Some(lost.clone()) }
            }
        };
        let core = Arc::new(Core {
            node: parts.node,
            memory: parts.memory,
            primary: parts.primary,
            lanes: parts.lanes,
            ordering_deadline: parts.ordering_deadline,
            state: Mutex::new(State {
                lines: HashMap::new(),
                journal: Journal::new(parts.journal),
                queue: BTreeSet::new(),
                append_time: Duration::ZERO,
            }),
            mode: watch::Sender::new(mode),
            work: Notify::new(),
            in_order: Notify::new(),
            beat_now: Notify::new(),
            events,
            overrun: AtomicBool::new(false),
            stats: SwitchingStats::default(),
            jobs: jobs::LocalJobs::default(),
            records: records::LocalRecords::default(),
        });
        let driver = monitor::drive(Arc::clone(&core), parts.limits, first, parts.status, parts.well);
        (Self { core, incoming: Mutex::new(Some(incoming)) }, Box::pin(driver))
    }
}

#[async_trait]
impl StorageBackend for Switching {
    fn name(&self) -> BackendName {
        self.core.serving()
    }

    async fn ping(&self) -> Result<()> {
        if self.core.is_primary() { self.core.primary.ping().await } else { self.core.memory.ping().await }
    }

    fn outside_orders(&self) -> Option<Outside> {
        self.core.primary.outside_orders()
    }
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn is_primary(&self) -> bool {
        self.mode.borrow().is_primary()
    }

    fn serving(&self) -> BackendName {
        if self.is_primary() { BackendName::Redis } else { BackendName::InMemory }
    }

    /// Returns when calls no longer go to the primary.
    async fn until_away(&self) {
        let mut mode = self.mode.subscribe();
        // The sender is here, so this does not fail.
        let _gone = mode.wait_for(|mode| !mode.is_primary()).await;
    }

    /// Makes a call of the primary; `None` when it went away before it answered.
    async fn ask<R>(&self, call: impl Future<Output = Result<R>>) -> Option<Result<R>> {
        tokio::select! {
            biased;
            () = self.until_away() => None,
            answer = call => match answer {
                Err(error) if error.is_outage() => self.verdict(error).await.map(Err),
                answer => Some(answer),
            },
        }
    }

    /// A call failed: waits until it is known whether the primary is away; else gives the error back.
    async fn verdict(&self, error: StorageError) -> Option<StorageError> {
        self.beat_now.notify_one();
        let away = time::timeout(VERDICT_WITHIN, self.until_away()).await.is_ok();
        (!away).then_some(error)
    }

    /// Has a channel put in order.
    fn enqueue(&self, state: &mut State, channel: &ChannelName) {
        state.queue.insert(channel.clone());
        self.work.notify_one();
    }

    /// Waits a while for a channel to be put in order.
    async fn until_in_order(&self, channel: &ChannelName) {
        let waited = async {
            loop {
                let notified = self.in_order.notified();
                let mut notified = std::pin::pin!(notified);
                notified.as_mut().enable();
                if !self.lock().lines.get(channel).is_some_and(|line| line.suspect && line.fork.is_none()) {
                    return;
                }
                notified.await;
            }
        };
        tokio::select! {
            biased;
            () = waited => {}
            () = self.until_away() => {}
            () = time::sleep(IN_ORDER_WITHIN) => {}
        }
    }

    fn journal(&self) -> (JournalDepth, JournalCounts) {
        let state = self.lock();
        (state.journal.depth(), state.journal.counts())
    }

    /// The life of a line that is forked now, if it is not yet.
    fn fork(&self, state: &mut State, channel: &ChannelName, late: bool) {
        let now = Instant::now();
        let line = state.lines.entry(channel.clone()).or_insert_with(|| Line::new(now));
        if line.fork.is_some() {
            return;
        }
        line.fork(channel, &self.memory, self.node, now, now + rejoin::NOT_BEFORE);
        self.stats.forks.add(1);
        if late {
            self.stats.forks_late.add(1);
        }
        tracing::debug!(channel = %channel, late, "the channel goes on without the log");
        self.enqueue(state, channel);
    }
}
