//! The storage that survives an outage: Redis while it serves, memory while it does not, and the way
//! there and back. No room that uses it sees a failover: calls go on being answered, and logs go
//! over into other lives at seams that say what a reader has had.
//!
//! - `line`: what this node knows of each channel; opens forks and closes them.
//! - `log`: the log role: appends, and which line goes which way.
//! - `read`: what follows any position that a node ever told.
//! - `rejoin`: brings a channel back in step with the log.
//! - `tail`: what may have to be put back into a log that lost it.
//! - `send`: sends the log what waited here.
//! - `former`: sends what former lives of this gateway had accepted.
//! - `monitor`: beats, the state machine's signals and steps, and what is said of them.
//!
//! A channel forks by itself, at the first own append that the log does not take in time; channels
//! that nobody publishes to on this node stay in step throughout an outage. All that is decided about
//! a line is decided under one lock, without waiting.

mod former;
mod jobs;
mod line;
mod log;
#[cfg(test)]
pub(crate) mod model;
mod monitor;
mod read;
mod records;
mod rejoin;
mod send;
mod stats;
mod tail;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{self, Instant};

use super::failover::{First, Limits, Lost};
use super::journal::{Journal, JournalBounds};
use super::primary::Primary;
use super::spool::{Former, Spool};
use super::{LogEvent, MemoryBackend, Outside, Result, StatusWriter, StorageBackend, StorageError};
use crate::model::{BackendName, BackendState, ChannelName, Lane, NodeId};
use line::Line;
use stats::SwitchingStats;
pub(crate) use stats::{OutageReader, OutageTotals};

/// Events on their way to whoever reads `incoming`.
const INCOMING_LEN: usize = 1_024;

/// A call that failed waits this long for the verdict whether Redis is gone; after it, the caller is
/// told of the failure.
const VERDICT_WITHIN: Duration = Duration::from_millis(600);

/// An entry that others follow is waited for so long before the log is read.
const HOLE_WITHIN: Duration = Duration::from_millis(100);

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
    /// The journal's copy on disk, and what former lives of this gateway left there.
    pub(in crate::storage) spool: Option<Spool>,
    pub(in crate::storage) formers: Vec<Former>,
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
    /// Dropped with the storage, which ends the driver.
    _alive: oneshot::Sender<()>,
}

struct Core {
    node: NodeId,
    memory: MemoryBackend,
    primary: Arc<dyn Primary>,
    lanes: LaneOf,
    ordering_deadline: Duration,
    state: Mutex<State>,
    mode: watch::Sender<Mode>,
    /// Calls no longer go to the primary. Those who wait for it are woken in order.
    away: Notify,
    /// Something waits to be put in order.
    work: Notify,
    /// A line was put in order.
    in_order: Notify,
    /// A call failed: whether Redis answers is to be found out at once.
    beat_now: Notify,
    events: mpsc::Sender<LogEvent>,
    /// An event found no room: everything that is followed is to be read.
    overrun: Notify,
    stats: SwitchingStats,
    jobs: jobs::LocalJobs,
    records: records::LocalRecords,
    spool: Option<Spool>,
    /// What former lives of this gateway left in the spool, the oldest last.
    formers: Mutex<Vec<Former>>,
}

#[derive(Debug)]
struct State {
    lines: HashMap<ChannelName, Line>,
    journal: Journal,
    /// Channels to be put in order.
    queue: BTreeSet<ChannelName>,
    /// Channels of which an entry was missing here that others follow: when it is to be looked whether
    /// it still is, and the newest offset before it.
    holes: BTreeMap<ChannelName, (Instant, u64)>,
    /// Channels of which former lives of this gateway left something that the log is to have first,
    /// and of how many of them.
    behind: HashMap<ChannelName, usize>,
    /// Of these, what a recovery that is going on waits for: not what goes on alone because of a late
    /// append in the meantime.
    awaited: BTreeSet<ChannelName>,
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
        f.debug_struct("Core")
            .field("node", &self.node)
            .field("mode", &*self.mode.borrow())
            .finish_non_exhaustive()
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
        let mut formers = parts.formers;
        // The newest first: they are taken from the end.
        formers.sort_by_key(|former| Reverse(former.entries.first().map(|entry| entry.draft.time)));
        let mut behind = HashMap::new();
        for former in &formers {
            *behind.entry(former.channel.clone()).or_default() += 1;
        }
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
                holes: BTreeMap::new(),
                awaited: BTreeSet::new(),
                behind,
                append_time: Duration::ZERO,
            }),
            mode: watch::Sender::new(mode),
            away: Notify::new(),
            work: Notify::new(),
            in_order: Notify::new(),
            beat_now: Notify::new(),
            events,
            overrun: Notify::new(),
            stats: SwitchingStats::default(),
            jobs: jobs::LocalJobs::default(),
            records: records::LocalRecords::default(),
            spool: parts.spool,
            formers: Mutex::new(formers),
        });
        let driver = monitor::drive(Arc::clone(&core), parts.limits, first, parts.status, parts.well);
        let (alive, dropped) = oneshot::channel();
        let driver = async move {
            tokio::select! {
                biased;
                () = driver => {}
                _ = dropped => {}
            }
        };
        (Self { core, incoming: Mutex::new(Some(incoming)), _alive: alive }, Box::pin(driver))
    }

    /// Tells how it fares.
    pub(in crate::storage) fn reader(&self) -> OutageReader {
        OutageReader(Arc::downgrade(&self.core))
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

    fn is_degraded(&self) -> bool {
        let mode = self.core.mode.borrow();
        !mode.alone && !mode.is_primary()
    }

    fn outside_orders(&self) -> Option<Outside> {
        self.core.primary.outside_orders()
    }
}

impl State {
    /// A channel is in order.
    fn is_done_with(&mut self, channel: &ChannelName) {
        self.queue.remove(channel);
        self.awaited.remove(channel);
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
        loop {
            let away = self.away.notified();
            let mut away = std::pin::pin!(away);
            away.as_mut().enable();
            if !self.is_primary() {
                return;
            }
            away.await;
        }
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
        if self.mode.borrow().alone {
            // There is nothing to be in step with; all are looked at when that changes.
            return;
        }
        state.queue.insert(channel.clone());
        self.work.notify_one();
    }

    /// Sees to it that what is missing in the copy of a channel is read, should it not come by itself.
    fn mind_hole(&self, state: &mut State, channel: &ChannelName) {
        let hole = state.lines.get(channel).and_then(|line| line.hole(channel, &self.memory));
        if let (Some(before), false) = (hole, state.holes.contains_key(channel)) {
            state.holes.insert(channel.clone(), (Instant::now() + HOLE_WITHIN, before));
            self.work.notify_one();
        }
    }

    /// Waits a while for a channel to be put in order.
    async fn until_in_order(&self, channel: &ChannelName) {
        self.until(channel, IN_ORDER_WITHIN, |line| !line.suspect || line.fork.is_some()).await;
    }

    /// Waits until this holds of a channel, at the most so long, and only while the primary serves.
    async fn until(&self, channel: &ChannelName, within: Duration, holds: impl Fn(&Line) -> bool) {
        let waited = async {
            loop {
                let notified = self.in_order.notified();
                let mut notified = std::pin::pin!(notified);
                notified.as_mut().enable();
                if self.lock().lines.get(channel).is_none_or(&holds) {
                    return;
                }
                notified.await;
            }
        };
        tokio::select! {
            biased;
            () = waited => {}
            () = self.until_away() => {}
            () = time::sleep(within) => {}
        }
    }

    /// Lets a channel go on without the log, if it does not yet.
    fn fork(&self, state: &mut State, channel: &ChannelName, next: Option<u64>, late: bool) {
        let now = Instant::now();
        let line = state.lines.entry(channel.clone()).or_insert_with(|| Line::new(now));
        if line.fork.is_some() {
            return;
        }
        line.keep_mirror(channel, &self.memory, self.node);
        line.fork(channel, &self.memory, self.node, next, now + rejoin::NOT_BEFORE);
        self.stats.forks.add(1);
        if late {
            self.stats.forks_late.add(1);
        }
        tracing::debug!(channel = %channel, late, "the channel goes on without the log");
        self.enqueue(state, channel);
    }
}
