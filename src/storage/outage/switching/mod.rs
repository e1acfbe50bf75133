//! The storage that survives an outage: Redis while it serves, memory while it does not, and the way
//! there and back. No room that uses it sees a failover: calls go on being answered, and logs go
//! over into other lives at seams that say what a reader has had.
//!
//! - `line`: what this node knows of each channel; opens forks and closes them.
//! - `log`: the log role: appends, and which line goes which way.
//! - `read`: what follows any position that a node ever told.
//! - `queue`: channels to be put in order.
//! - `rejoin`: brings a channel back in step with the log.
//! - `tail`: what may have to be put back into a log that lost it.
//! - `send`: sends the log what waited here.
//! - `former`: sends what former lives of this gateway had accepted.
//! - `monitor`: beats, the state machine's signals and steps, and what is said of them.
//!
//! What goes away and comes back as one is an *area* of the primary: all of it, or one primary of a
//! cluster. Each has a mode of its own, and what is in it goes by that.
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
mod queue;
mod read;
mod records;
mod rejoin;
mod send;
mod stats;
mod tail;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{self, Instant};

use super::failover::{First, Limits};
use super::journal::{Journal, JournalBounds};
use super::spool::{Former, Spool};
use crate::model::{BackendName, BackendState, ChannelName, Lane, NodeId};
use crate::storage::primary::{Area, Place, Primary};
use crate::storage::{
    LogEvent, Lost, MemoryBackend, Outside, OutsideKeys, PubSubLink, Result, StatusWriter, StorageBackend,
    StorageError,
};
use crate::support::chance::Hashing;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};
use line::Line;
use queue::Queue;
use stats::SwitchingStats;
pub(crate) use stats::{OutageReader, SetAside};

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
    modes: watch::Sender<Modes>,
    /// A mode has changed. Those who wait for calls not to go to the primary are woken in order.
    away: Notify,
    /// Something waits to be put in order.
    work: Notify,
    /// A line was put in order.
    in_order: Notify,
    /// By area. A call failed: whether Redis answers is to be found out at once.
    beat_now: Mutex<Vec<Arc<Notify>>>,
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
    lines: HashMap<ChannelName, Line, Hashing>,
    journal: Journal,
    /// Channels to be put in order.
    queue: Queue,
    /// Channels of which an entry was missing here that others follow: when it is to be looked whether
    /// it still is, and the newest offset before it.
    holes: BTreeMap<ChannelName, (Instant, u64)>,
    /// Channels of which former lives of this gateway left something that the log is to have first,
    /// and of how many of them.
    behind: HashMap<ChannelName, usize>,
    /// Channels that cannot be put in order, and why: no recovery waits for them, and they go on being
    /// tried.
    set_aside: BTreeMap<ChannelName, String>,
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
    /// As it begins.
    fn at(first: &First) -> Self {
        match first {
            First::Redis => Self { state: BackendState::Healthy, alone: false, lost: None },
            First::Alone => Self { state: BackendState::Healthy, alone: true, lost: None },
            First::Memory(lost) => {
                Self { state: BackendState::Degraded, alone: false, lost: Some(lost.clone()) }
            }
        }
    }

    /// Whether calls go to the primary.
    fn is_primary(&self) -> bool {
        !self.alone && self.state != BackendState::Degraded
    }
}

/// Who serves what now: by area, of which there is one at least. `None`: nothing is in it any more.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Modes(Vec<Option<Mode>>);

impl Modes {
    /// Whether calls about what is in an area go to the primary. To one that is new they do: it is
    /// about to be looked at.
    fn is_primary(&self, area: Area) -> bool {
        self.0.get(area.index()).and_then(Option::as_ref).is_none_or(Mode::is_primary)
    }

    fn present(&self) -> impl Iterator<Item = &Mode> {
        self.0.iter().flatten()
    }

    /// Whether memory serves because no Redis is configured; then there is one area only.
    fn alone(&self) -> bool {
        self.present().any(|mode| mode.alone)
    }

    fn is_all_primary(&self) -> bool {
        self.present().all(Mode::is_primary)
    }

    fn is_any_primary(&self) -> bool {
        self.present().any(Mode::is_primary)
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("node", &self.node)
            .field("modes", &*self.modes.borrow())
            .finish_non_exhaustive()
    }
}

impl Switching {
    /// The storage, and a future that must run for as long as it is used.
    pub(in crate::storage) fn new(parts: Parts) -> (Self, BoxFuture<'static, ()>) {
        let (events, incoming) = mpsc::channel(INCOMING_LEN);
        let first = parts.first.clone();
        let mode = Mode::at(&first);
        let mut formers = parts.formers;
        // The newest first: they are taken from the end.
        let order = |former: &Former| (former.start, former.entries.first().map(|entry| entry.draft.time));
        formers.sort_by_key(|former| Reverse(order(former)));
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
                lines: HashMap::default(),
                journal: Journal::new(parts.journal),
                queue: Queue::default(),
                holes: BTreeMap::new(),
                set_aside: BTreeMap::new(),
                behind,
                append_time: Duration::ZERO,
            }),
            modes: watch::Sender::new(Modes(vec![Some(mode)])),
            away: Notify::new(),
            work: Notify::new(),
            in_order: Notify::new(),
            beat_now: Mutex::default(),
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
        if self.core.modes.borrow().is_any_primary() {
            self.core.primary.ping().await
        } else {
            self.core.memory.ping().await
        }
    }

    fn is_degraded(&self) -> bool {
        let modes = self.core.modes.borrow();
        !modes.alone() && !modes.is_all_primary()
    }

    fn is_degraded_for(&self, channel: &ChannelName) -> bool {
        let core = &self.core;
        let is_away = |place| !core.is_primary(core.primary.area_of(place));
        !core.modes.borrow().alone() && (is_away(Place::Channel(channel)) || is_away(Place::Jobs))
    }

    fn outside_orders(&self) -> Option<Outside> {
        self.core.primary.outside_orders()
    }

    fn outside_keys(&self) -> Option<Arc<dyn OutsideKeys>> {
        self.core.primary.outside_keys()
    }

    fn pub_sub(&self) -> Option<PubSubLink> {
        self.core.primary.pub_sub()
    }
}

impl State {
    /// Forgets a channel of which nothing is known and that nobody here uses: following alone leaves
    /// nothing behind.
    fn forget_if_blank(&mut self, channel: &ChannelName) {
        let is_blank = |line: &Line| line.is_blank() && !line.is_followed();
        if self.lines.get(channel).is_some_and(is_blank) && self.journal.is_empty(channel) {
            self.lines.remove(channel);
            self.holes.remove(channel);
            self.is_in_order(channel);
        }
    }

    /// Whether the log of a channel is to be looked at: until then it is not known whether what comes of it
    /// follows on what was seen.
    fn is_in_doubt(&self, channel: &ChannelName) -> bool {
        #[cfg(test)]
        if mutant::is(Mutant::DoubtDisregarded) {
            return false;
        }
        self.queue.contains(channel)
    }

    /// A channel is in order.
    fn is_in_order(&mut self, channel: &ChannelName) {
        self.queue.remove(channel);
        if self.set_aside.remove(channel).is_some() {
            tracing::info!(%channel, "the channel that was set aside is in order again");
        }
    }
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn area_of(&self, channel: &ChannelName) -> Area {
        self.primary.area_of(Place::Channel(channel))
    }

    /// Whether calls about what is in an area go to the primary.
    fn is_primary(&self, area: Area) -> bool {
        self.modes.borrow().is_primary(area)
    }

    /// The same of a channel.
    fn has_log(&self, channel: &ChannelName) -> bool {
        self.is_primary(self.area_of(channel))
    }

    fn is_alone(&self) -> bool {
        self.modes.borrow().alone()
    }

    fn serving(&self) -> BackendName {
        if self.modes.borrow().is_any_primary() { BackendName::Redis } else { BackendName::InMemory }
    }

    /// Returns when calls about what is in an area no longer go to the primary.
    async fn until_away(&self, area: Area) {
        until(&self.away, || !self.is_primary(area)).await;
    }

    /// Returns when they do.
    async fn until_primary(&self, area: Area) {
        let mut modes = self.modes.subscribe();
        let _gone = modes.wait_for(|modes| modes.is_primary(area)).await;
    }

    /// Makes a call of the primary; `None` when the area that it is about went away before it answered.
    async fn ask<R>(&self, area: Area, call: impl Future<Output = Result<R>>) -> Option<Result<R>> {
        tokio::select! {
            biased;
            () = self.until_away(area) => None,
            answer = call => match answer {
                Err(error) if error.is_outage() => self.verdict(area, error).await.map(Err),
                answer => Some(answer),
            },
        }
    }

    /// A call failed: waits until it is known whether the area is away; else gives the error back.
    async fn verdict(&self, area: Area, error: StorageError) -> Option<StorageError> {
        self.beat_now(area).notify_one();
        let away = time::timeout(VERDICT_WITHIN, self.until_away(area)).await.is_ok();
        (!away).then_some(error)
    }

    /// Told when whether an area answers is to be found out at once.
    fn beat_now(&self, area: Area) -> Arc<Notify> {
        let mut all = self.beat_now.lock();
        if all.len() <= area.index() {
            all.resize_with(area.index() + 1, Arc::default);
        }
        Arc::clone(&all[area.index()])
    }

    /// What is known of a channel.
    fn line<'a>(&self, state: &'a mut State, channel: &ChannelName) -> &'a mut Line {
        state
            .lines
            .entry(channel.clone())
            .or_insert_with(|| Line::new(channel.clone(), self.node, self.memory.clone(), Instant::now()))
    }

    /// Has a channel put in order.
    fn enqueue(&self, state: &mut State, channel: &ChannelName) {
        if self.is_alone() {
            // There is nothing to be in step with; all are looked at when that changes.
            return;
        }
        // What waits already is tried when its time has come; an outage may have thousands wait.
        if state.queue.add(channel, |channel| self.area_of(channel)) {
            self.work.notify_one();
        }
    }

    /// A channel was found to differ from its log: it is put in order, and what has been found in the log
    /// so far does not count.
    fn doubt(&self, state: &mut State, channel: &ChannelName) {
        if let Some(line) = state.lines.get_mut(channel) {
            line.doubted();
        }
        if !self.is_alone() {
            state.queue.look_anew(channel, |channel| self.area_of(channel));
            self.work.notify_one();
        }
    }

    /// Sees to it that what is missing in the copy of a channel is read, should it not come by itself.
    fn mind_hole(&self, state: &mut State, channel: &ChannelName) {
        let hole = state.lines.get(channel).and_then(Line::hole);
        if let (Some(before), false) = (hole, state.holes.contains_key(channel)) {
            state.holes.insert(channel.clone(), (Instant::now() + HOLE_WITHIN, before));
            self.work.notify_one();
        }
    }

    /// Waits a while for a channel to be put in order.
    async fn until_in_order(&self, channel: &ChannelName) {
        self.until_line(channel, IN_ORDER_WITHIN, |line| !line.is_suspect()).await;
    }

    /// Waits until this holds of a channel, at the most so long, and only while the primary serves.
    async fn until_line(&self, channel: &ChannelName, within: Duration, holds: impl Fn(&Line) -> bool) {
        tokio::select! {
            biased;
            () = until(&self.in_order, || self.lock().lines.get(channel).is_none_or(&holds)) => {}
            () = self.until_away(self.area_of(channel)) => {}
            () = time::sleep(within) => {}
        }
    }

    /// Lets a channel go on without the log, if it does not yet.
    fn fork(&self, state: &mut State, channel: &ChannelName, next: Option<u64>, late: bool) {
        let line = self.line(state, channel);
        if line.is_forked() {
            return;
        }
        line.take_up_begun();
        line.keep_mirror();
        line.begin_fork(next, Instant::now() + rejoin::NOT_BEFORE);
        self.stats.forks.add(1);
        if late {
            self.stats.forks_late.add(1);
        }
        tracing::debug!(channel = %channel, late, "the channel goes on without the log");
        self.enqueue(state, channel);
    }
}

/// Returns when something holds, which is looked at now and each time that `changed` is told; what is told
/// while it is looked at is not missed.
async fn until(changed: &Notify, mut holds: impl FnMut() -> bool) {
    loop {
        let told = changed.notified();
        let mut told = std::pin::pin!(told);
        told.as_mut().enable();
        if holds() {
            return;
        }
        told.await;
    }
}
