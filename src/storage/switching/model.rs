//! A model of Redis for simulations: one server that several nodes share, with logs as the memory
//! backend keeps them, and everything that can go wrong between a node and it. What goes wrong, and
//! when, follows from a seed.

#![expect(
    clippy::disallowed_methods,
    reason = "its tasks end with the runtime of one schedule, and what is under way is bounded by that"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{OutageTotals, Parts, Switching};
use crate::model::JobId;
use crate::model::{BackendName, BackendState, ChannelName, Entry, EntryId, Epoch, Lane, NodeId, Position};
use crate::storage::failover::{First, Limits, Lost};
use crate::storage::journal::JournalBounds;
use crate::storage::primary::{Beat, LinkHealth, Primary};
use crate::storage::{
    AppendAnswer, AppendBatch, Appended, Cancelling, ClaimedJob, EPOCH_KEPT_FOR, Ending, Enqueued, Held,
    JobBounds, JobCounts, JobState, JobView, Jobs, LatestPage, Log, LogEvent, LogState, MemoryBackend,
    MemoryConfig, MovedJob, NewJob, OpenLog, OrderRetention, Page, PageLimit, Record, RecordKind, Recorded,
    Records, Result, Retention, SharedBackend, StatusReader, StatusWriter, StorageBackend, StorageError,
    StorageStatus,
};

/// A producer's first append has those forgotten that were silent for a day, where the log knows more than
/// this.
const PRODUCERS_KEPT: usize = 13;

/// After this a call is given up.
const CALL_LIMIT: Duration = Duration::from_millis(900);

/// How often calls go wrong, of a thousand, and how slow the rest is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Slow by up to a second.
    pub(crate) slow: u32,
    /// Never executed; answered by an error.
    pub(crate) request_lost: u32,
    /// Executed; answered by an error.
    pub(crate) answer_lost: u32,
    /// Executed; never answered.
    pub(crate) answer_hangs: u32,
    /// What is published does not come; the follower is told to suspect.
    pub(crate) event_lost: u32,
}

/// What is done with the trace of what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Off,
    Print,
    /// It is summed up in one number, to be compared.
    Sum,
}

/// Rules of the server that a mutant leaves out.
///
/// That an append names the epoch is not among them: leaving that out harms nothing while the chain is
/// looked at. A batch of an epoch that is over, on its way still, is applied to the log's next life only
/// where that has all of the producer before it and nothing after: at the place where the producer
/// would have put it, as the same entry with the same sequence, so that its repetition does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Laws {
    pub(crate) no_chain_check: bool,
    pub(crate) append_mints: bool,
}

/// The server.
#[derive(Debug, Clone)]
pub(crate) struct ModelServer(Arc<Server>);

#[derive(Debug)]
struct Server {
    state: Mutex<ServerState>,
    /// Cancelled while it executes; else what reaches it waits for that.
    running: Mutex<CancellationToken>,
}

struct ServerState {
    data: Data,
    rng: StdRng,
    faults: Faults,
    laws: Laws,
    refuses_writes: bool,
    links: Vec<Arc<Link>>,
    trace: Trace,
    sum: DefaultHasher,
    began: Instant,
    calls: u64,
    /// Logs that were found to be older than they had been.
    renewed: u64,
    /// By node, how many beats it has answered.
    beats: BTreeMap<usize, u64>,
    /// What was ever given a place in a log.
    places: BTreeMap<(ChannelName, String, u64), EntryId>,
    /// Logs that went back, and in which other entries took the places of those that were lost before
    /// the epoch was renewed.
    refilled: BTreeSet<ChannelName>,
}

impl fmt::Debug for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerState").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// What the server would lose.
#[derive(Debug)]
pub(crate) struct Data {
    memory: MemoryBackend,
    life: u64,
    counters: BTreeMap<NodeId, u64>,
    /// By channel the producers that have been silent for a day.
    silent: BTreeMap<ChannelName, BTreeSet<NodeId>>,
}

impl Data {
    fn empty() -> Self {
        let retention =
            Retention { orders: OrderRetention { updates: 10_000, age_s: 3_600 }, ..Retention::default() };
        let (memory, _) = MemoryBackend::new(retention, MemoryConfig::default());
        Self { memory, life: 0, counters: BTreeMap::new(), silent: BTreeMap::new() }
    }

    fn copy(&self) -> Self {
        Self {
            memory: self.memory.copy(),
            life: self.life,
            counters: self.counters.clone(),
            silent: self.silent.clone(),
        }
    }
}

type Execute = Box<dyn FnOnce() + Send>;

/// A command on its way.
struct InFlight {
    arrives: Instant,
    execute: Execute,
}

/// What is between one node and the server.
#[derive(Debug)]
struct Link {
    name: usize,
    state: Mutex<LinkState>,
    health: watch::Sender<LinkHealth>,
    events: mpsc::Sender<LogEvent>,
    /// Nobody is on this side any more.
    crashed: AtomicBool,
}

#[derive(Debug, Default)]
struct LinkState {
    connection: Option<Connection>,
    subscriber: Option<Subscriber>,
    /// What the node follows, on whichever connection.
    followed: BTreeSet<ChannelName>,
}

/// The connection for commands.
struct Connection {
    commands: mpsc::UnboundedSender<InFlight>,
    /// Commands are executed, and answered, in order.
    last_arrival: Instant,
    /// How long what is under way is held up, in milliseconds.
    held_up: Arc<AtomicU64>,
    lost: CancellationToken,
    task: AbortHandle,
}

/// The connection on which it is told what is published.
#[derive(Debug)]
struct Subscriber {
    published: mpsc::UnboundedSender<(Instant, LogEvent)>,
    last_event: Instant,
    subscribed: BTreeSet<ChannelName>,
    task: AbortHandle,
}

/// Which of a node's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Both,
    Commands,
    Subscriber,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
struct Fate {
    there: Duration,
    back: Duration,
    is_executed: bool,
    /// `Some(true)`: hangs; `Some(false)`: answered by an error.
    loses_answer: Option<bool>,
}

/// A node's storage, as its channels hold it, and what is to be known of it besides.
pub(crate) struct Started {
    pub(crate) backend: SharedBackend,
    pub(crate) driver: BoxFuture<'static, ()>,
    pub(crate) status: StatusReader,
    pub(crate) inside: Inside,
}

/// A look into a node's storage.
#[derive(Debug, Clone)]
pub(crate) struct Inside(Arc<Switching>);

/// How a channel stands on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) log: Option<Epoch>,
    pub(crate) highest: u64,
    pub(crate) is_forked: bool,
    pub(crate) is_suspect: bool,
    pub(crate) is_followed: bool,
}

impl Inside {
    /// Entries that wait for the log.
    pub(crate) fn waiting(&self) -> usize {
        self.0.core.lock().journal.depth().entries
    }

    /// What it counted so far.
    pub(crate) fn totals(&self) -> OutageTotals {
        self.0.reader().totals()
    }

    /// The state in which its calls are made, and by what they are answered.
    pub(crate) fn mode(&self) -> (BackendState, BackendName) {
        let state = self.0.core.modes.borrow().present().next().map(|mode| mode.state);
        (state.expect("there is one server"), self.0.core.serving())
    }

    pub(crate) fn is_in_order(&self) -> bool {
        self.0.core.is_in_order()
    }

    pub(crate) fn stand(&self, channel: &ChannelName) -> Option<Stand> {
        let state = self.0.core.lock();
        let line = state.lines.get(channel)?;
        Some(Stand {
            log: line.log.clone(),
            highest: line.highest,
            is_forked: line.fork.is_some(),
            is_suspect: line.suspect,
            is_followed: line.followed,
        })
    }
}

/// How a node is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) journal_entries: usize,
    pub(crate) order_updates: usize,
    /// It begins while the server is away.
    pub(crate) starts_degraded: bool,
    pub(crate) ordering_deadline: Duration,
}

fn lost() -> Lost {
    Lost { code: "unreachable", reason: "a connection was lost".to_owned() }
}

impl ModelServer {
    pub(crate) fn new(seed: u64, faults: Faults, laws: Laws, trace: Trace) -> Self {
        let state = ServerState {
            data: Data::empty(),
            rng: StdRng::seed_from_u64(seed),
            faults,
            laws,
            refuses_writes: false,
            links: Vec::new(),
            trace,
            sum: DefaultHasher::new(),
            began: Instant::now(),
            calls: 0,
            renewed: 0,
            beats: BTreeMap::new(),
            places: BTreeMap::new(),
            refilled: BTreeSet::new(),
        };
        let server = Self(Arc::new(Server { state: Mutex::new(state), running: Mutex::default() }));
        server.set_running(true);
        server
    }

    /// A node that uses this server.
    pub(crate) fn start(
        &self,
        name: usize,
        node: NodeId,
        setup: Setup,
        lanes: Arc<dyn Fn(&ChannelName) -> Lane + Send + Sync>,
    ) -> Started {
        let (events, incoming) = mpsc::channel(256);
        let first_lost = setup.starts_degraded.then(lost);
        let link = Arc::new(Link {
            name,
            state: Mutex::default(),
            health: watch::Sender::new(LinkHealth { lost: Some(lost()), losses: 0 }),
            events,
            crashed: AtomicBool::new(false),
        });
        self.0.state.lock().links.push(Arc::clone(&link));
        if !setup.starts_degraded {
            self.connect(name);
        }
        let primary = ModelRedis {
            server: self.clone(),
            link,
            incoming: Mutex::new(Some(incoming)),
            known: Mutex::default(),
        };
        let retention =
            Retention { orders: OrderRetention { updates: 10_000, age_s: 3_600 }, ..Retention::default() };
        let (memory, sweeping) = MemoryBackend::new(retention.clone(), MemoryConfig::default());
        let (backend, state) = match &first_lost {
            None => (BackendName::Redis, BackendState::Healthy),
            Some(_) => (BackendName::InMemory, BackendState::Degraded),
        };
        let (writer, status) = StatusWriter::new(StorageStatus::new(backend, state, "ok", String::new()));
        let (switching, driver) = Switching::new(Parts {
            node,
            memory,
            primary: Arc::new(primary),
            lanes,
            formers: Default::default(),
            spool: None,
            journal: JournalBounds {
                bytes: 64 << 20,
                entries: setup.journal_entries,
                age: Duration::from_secs(3_600),
                order_updates: setup.order_updates,
            },
            ordering_deadline: setup.ordering_deadline,
            limits: Limits::default(),
            first: first_lost.map_or(First::Redis, First::Memory),
            status: Arc::new(writer),
            well: "the model answers".to_owned(),
        });
        let switching = Arc::new(switching);
        let driver = async move {
            tokio::join!(driver, sweeping);
        };
        let inside = Inside(Arc::clone(&switching));
        Started { backend: switching, driver: Box::pin(driver), status, inside }
    }

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        self.0.state.lock().say(text);
    }

    /// Milliseconds since it began.
    pub(crate) fn now_ms(&self) -> u128 {
        self.0.state.lock().began.elapsed().as_millis()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.0.state.lock().faults = faults;
    }

    pub(crate) fn set_refuses_writes(&self, refuses: bool) {
        self.0.state.lock().refuses_writes = refuses;
    }

    /// Goes on, or stops without a word.
    pub(crate) fn set_running(&self, running: bool) {
        let mut held = self.0.running.lock();
        if running {
            held.cancel();
        } else if held.is_cancelled() {
            *held = CancellationToken::new();
        }
    }

    fn is_running(&self) -> bool {
        self.0.running.lock().is_cancelled()
    }

    /// The logs of channels have been there for days: so many producers have each appended an entry to
    /// them, none of which is kept any more, and are gone.
    pub(crate) async fn has_served(&self, channels: &[ChannelName], producers: usize) {
        {
            let mut state = self.0.state.lock();
            for channel in channels {
                let mut node = || (NodeId(Uuid::from_u128(state.rng.random())), 1);
                let all: Vec<(NodeId, u64)> = (0..producers).map(|_| node()).collect();
                state.data.memory.mirror_from(channel, &Epoch::random(), producers as u64, &all);
                state.data.silent.insert(channel.clone(), all.iter().map(|(node, _)| *node).collect());
            }
        }
        time::advance(2 * EPOCH_KEPT_FOR).await;
        self.0.state.lock().began = Instant::now();
    }

    /// What it has now.
    pub(crate) fn save(&self) -> Data {
        self.0.state.lock().data.copy()
    }

    /// It has this from now on. `None`: nothing.
    pub(crate) fn restore(&self, data: Option<&Data>) {
        let mut state = self.0.state.lock();
        state.data = data.map_or_else(Data::empty, Data::copy);
    }

    /// Nobody uses this link any more; what was under way may take effect.
    pub(crate) fn crash(&self, name: usize) {
        let link = self.link(name);
        link.crashed.store(true, Ordering::Release);
        self.disconnect(name, Which::Both, Some(Duration::ZERO));
    }

    fn link(&self, name: usize) -> Arc<Link> {
        let state = self.0.state.lock();
        let found = state.links.iter().rev().find(|link| link.name == name);
        Arc::clone(found.expect("it was started"))
    }

    /// The node's connections break. What was under way is lost, or takes effect this much later.
    pub(crate) fn disconnect(&self, name: usize, which: Which, later: Option<Duration>) {
        let link = self.link(name);
        let (connection, subscriber) = {
            let mut state = link.state.lock();
            let connection = if which == Which::Subscriber { None } else { state.connection.take() };
            let subscriber = if which == Which::Commands { None } else { state.subscriber.take() };
            (connection, subscriber)
        };
        let losses = u64::from(connection.is_some()) + u64::from(subscriber.is_some());
        if let Some(connection) = connection {
            match later {
                None => connection.task.abort(),
                Some(later) => {
                    let held_up = u64::try_from(later.as_millis()).unwrap_or(0);
                    connection.held_up.store(held_up, Ordering::Release);
                }
            }
            connection.lost.cancel();
        }
        if let Some(subscriber) = subscriber {
            subscriber.task.abort();
        }
        if losses > 0 {
            link.health.send_modify(|health| {
                health.lost = Some(lost());
                health.losses += losses;
            });
        }
    }

    /// New connections in place of those that are lost, with everything followed that was.
    pub(crate) fn connect(&self, name: usize) {
        let link = self.link(name);
        if link.crashed.load(Ordering::Acquire) {
            return;
        }
        let mut state = link.state.lock();
        if state.connection.is_some() && state.subscriber.is_some() {
            return;
        }
        if state.connection.is_none() {
            state.connection = Some(self.connection());
        }
        if state.subscriber.is_none() {
            let subscriber = Self::subscriber(&link, state.followed.clone());
            if !subscriber.subscribed.is_empty() {
                // The receiver lives as long as the connection.
                let _sent = subscriber.published.send((Instant::now(), LogEvent::Suspect));
            }
            state.subscriber = Some(subscriber);
        }
        drop(state);
        link.health.send_modify(|health| health.lost = None);
    }

    fn connection(&self) -> Connection {
        let (commands, mut to_execute) = mpsc::unbounded_channel::<InFlight>();
        let held_up = Arc::new(AtomicU64::new(0));
        let (holds, server) = (Arc::clone(&held_up), Arc::downgrade(&self.0));
        let executing = tokio::spawn(async move {
            while let Some(command) = to_execute.recv().await {
                time::sleep_until(command.arrives).await;
                let more = holds.swap(0, Ordering::AcqRel);
                if more > 0 {
                    time::sleep(Duration::from_millis(more)).await;
                }
                while let Some(running) = server.upgrade().map(|server| server.running.lock().clone())
                    && !running.is_cancelled()
                {
                    running.cancelled().await;
                }
                (command.execute)();
            }
        });
        Connection {
            commands,
            last_arrival: Instant::now(),
            held_up,
            lost: CancellationToken::new(),
            task: executing.abort_handle(),
        }
    }

    fn subscriber(link: &Link, subscribed: BTreeSet<ChannelName>) -> Subscriber {
        let (published, mut to_tell) = mpsc::unbounded_channel::<(Instant, LogEvent)>();
        let events = link.events.clone();
        let telling = tokio::spawn(async move {
            while let Some((at, event)) = to_tell.recv().await {
                time::sleep_until(at).await;
                if events.try_send(event).is_err() && events.send(LogEvent::Suspect).await.is_err() {
                    return;
                }
            }
        });
        Subscriber { published, last_event: Instant::now(), subscribed, task: telling.abort_handle() }
    }

    /// All that was said, summed up.
    pub(crate) fn sum(&self) -> u64 {
        self.0.state.lock().sum.finish()
    }

    /// How many logs were found to be older than they had been.
    pub(crate) fn renewed(&self) -> u64 {
        self.0.state.lock().renewed
    }

    /// Whether places in a log were given twice in one epoch.
    pub(crate) fn is_refilled(&self, channel: &ChannelName) -> bool {
        self.0.state.lock().refilled.contains(channel)
    }

    /// How many beats of a node it has answered.
    pub(crate) fn beats(&self, name: usize) -> u64 {
        self.0.state.lock().beats.get(&name).copied().unwrap_or(0)
    }

    /// Whether a node can use it now.
    pub(crate) fn serves(&self, name: usize) -> bool {
        let link = self.link(name);
        let is_connected = link.health.borrow().is_up();
        is_connected && self.is_running() && !self.0.state.lock().refuses_writes
    }

    /// Where the log of a channel ends.
    pub(crate) fn end_of(&self, channel: &ChannelName) -> Option<Position> {
        let memory = self.0.state.lock().data.memory.clone();
        memory.mirrored(channel).map(|held| Position { epoch: held.epoch, offset: held.top })
    }

    /// All entries of a channel, and its epoch.
    pub(crate) fn content(&self, channel: &ChannelName) -> Page {
        self.0.state.lock().data.memory.read_now(channel, None, usize::MAX)
    }
}

impl ServerState {
    fn say(&mut self, text: impl FnOnce() -> String) {
        let at = self.began.elapsed().as_millis();
        match self.trace {
            Trace::Off => {}
            Trace::Print => println!("{at:>6} {}", text()),
            Trace::Sum => (at, text()).hash(&mut self.sum),
        }
    }

    fn chance(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.rng.random_range(0..1_000) < of_thousand
    }

    fn fate(&mut self) -> Fate {
        self.calls += 1;
        let faults = self.faults;
        let latency = |state: &mut Self| {
            let slow = state.chance(faults.slow);
            let ms = if slow { state.rng.random_range(5..1_000) } else { state.rng.random_range(0..3) };
            Duration::from_millis(ms)
        };
        let (there, back) = (latency(self), latency(self));
        let is_executed = !self.chance(faults.request_lost);
        let fails = self.chance(faults.answer_lost);
        let hangs = self.chance(faults.answer_hangs);
        let loses_answer = if !is_executed || fails { Some(false) } else { hangs.then_some(true) };
        Fate { there, back, is_executed, loses_answer }
    }

    fn append(&mut self, batch: &AppendBatch) -> AppendAnswer {
        let mut batch = batch.clone();
        let memory = self.data.memory.clone();
        if self.laws.no_chain_check {
            batch.entries.iter_mut().for_each(|append| append.prev = 0);
        }
        if self.laws.append_mints && memory.mirrored(&batch.channel).is_none() {
            memory.mirror_from(&batch.channel, &batch.epoch, 0, &[]);
            let first = batch.entries.first_mut();
            first.into_iter().for_each(|append| append.prev = 0);
        }
        let is_new = memory.last_seq(&batch.channel, batch.producer) == 0;
        let answer = memory.append_now(&batch);
        if let AppendAnswer::Done(results) = &answer {
            if is_new && memory.producers(&batch.channel).len() > PRODUCERS_KEPT {
                let silent = self.data.silent.remove(&batch.channel).unwrap_or_default();
                memory.forget_producers(&batch.channel, |producer| silent.contains(&producer));
            }
            let applied = batch.entries.iter().zip(results).filter_map(|(append, result)| match result {
                Appended::Applied { offset } => Some(append.at(batch.producer, *offset)),
                _ => None,
            });
            let applied: Vec<Entry> = applied.collect();
            for entry in &applied {
                let place = (batch.channel.clone(), batch.epoch.to_string(), entry.offset);
                if self.places.insert(place, entry.id).is_some_and(|held| held != entry.id) {
                    self.refilled.insert(batch.channel.clone());
                }
            }
            if !applied.is_empty() {
                self.publish(&batch.channel, &batch.epoch, &applied);
            }
        }
        answer
    }

    fn publish(&mut self, channel: &ChannelName, epoch: &Epoch, entries: &[Entry]) {
        for link in self.links.clone() {
            let mut state = link.state.lock();
            let Some(subscriber) = &mut state.subscriber else { continue };
            if !subscriber.subscribed.contains(channel) {
                continue;
            }
            let latency = self.fate().there;
            let at = subscriber.last_event.max(Instant::now() + latency);
            subscriber.last_event = at;
            let event = if self.chance(self.faults.event_lost) {
                LogEvent::Suspect
            } else {
                LogEvent::Appended {
                    channel: channel.clone(),
                    epoch: epoch.clone(),
                    entries: entries.to_vec(),
                }
            };
            // It is there as long as the connection is.
            let _sent = subscriber.published.send((at, event));
        }
    }
}

/// [`Primary`] of one node.
#[derive(Debug)]
struct ModelRedis {
    server: ModelServer,
    link: Arc<Link>,
    incoming: Mutex<Option<mpsc::Receiver<LogEvent>>>,
    known: Mutex<Known>,
}

/// What a node knows of the life of the data.
#[derive(Debug, Default)]
struct Known {
    life: u64,
    acknowledged: u64,
    sent: u64,
}

fn unreachable(op: &'static str) -> StorageError {
    StorageError::Unreachable { op, cause: "the connection is down".into() }
}

impl ModelRedis {
    async fn call<R: fmt::Debug + Send + 'static>(
        &self,
        op: &'static str,
        writes: bool,
        act: impl FnOnce(&mut ServerState, &Link) -> R + Send + 'static,
    ) -> Result<R> {
        if self.link.crashed.load(Ordering::Acquire) {
            return std::future::pending().await;
        }
        let (answer, answered) = oneshot::channel::<(Instant, Result<R>)>();
        let fate = self.server.0.state.lock().fate();
        let name = self.link.name;
        let lost = {
            let mut state = self.link.state.lock();
            let Some(connection) = &mut state.connection else {
                drop(state);
                self.server.say(|| format!("n{name} {op}: no connection"));
                return Err(unreachable(op));
            };
            let arrives = connection.last_arrival.max(Instant::now() + fate.there);
            connection.last_arrival = arrives;
            let (server, link) = (self.server.clone(), Arc::clone(&self.link));
            let execute: Execute = Box::new(move || {
                if !fate.is_executed {
                    return;
                }
                let mut state = server.0.state.lock();
                let result = if writes && state.refuses_writes {
                    Err(StorageError::Refused { op, cause: "OOM".into() })
                } else {
                    Ok(act(&mut state, &link))
                };
                let is_usual = |result: &Result<R>| format!("{result:?}").contains("Same");
                if state.trace != Trace::Off && (op != "beat" || !is_usual(&result)) {
                    state.say(|| format!("n{name} {op} executed: {result:?} {:?}", fate.loses_answer));
                }
                match fate.loses_answer {
                    None => {
                        // A caller that does not wait any more is none of the server's business.
                        let _waits = answer.send((Instant::now() + fate.back, result));
                    }
                    Some(false) => {}
                    Some(true) => std::mem::forget(answer),
                }
            });
            if connection.commands.send(InFlight { arrives, execute }).is_err() {
                return Err(unreachable(op));
            }
            connection.lost.clone()
        };
        let answer = async {
            match answered.await {
                Ok((at, result)) => {
                    time::sleep_until(at).await;
                    result
                }
                Err(_) => Err(unreachable(op)),
            }
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = lost.cancelled() => {
                if self.link.crashed.load(Ordering::Acquire) {
                    return std::future::pending().await;
                }
                Err(unreachable(op))
            }
            () = time::sleep(CALL_LIMIT) => Err(StorageError::Deadline { op, limit: CALL_LIMIT }),
        }
    }

    fn memory(&self) -> MemoryBackend {
        self.server.0.state.lock().data.memory.clone()
    }
}

/// A future of the memory backend, which never waits.
fn now<R>(future: impl Future<Output = Result<R>>) -> Result<R> {
    use futures_util::FutureExt as _;
    future.now_or_never().expect("memory answers at once")
}

#[async_trait]
impl Primary for ModelRedis {
    fn link_health(&self) -> watch::Receiver<LinkHealth> {
        self.link.health.subscribe()
    }

    async fn beat(&self, node: NodeId) -> Result<Beat> {
        let (known, acknowledged, number) = {
            let mut known = self.known.lock();
            known.sent = known.sent.max(known.acknowledged) + 1;
            (known.life, known.acknowledged, known.sent)
        };
        let (beat, life, held) = self
            .call("beat", true, move |state, link| {
                *state.beats.entry(link.name).or_default() += 1;
                if state.data.life == 0 {
                    state.data.life = state.rng.random();
                }
                let held = state.data.counters.get(&node).copied().unwrap_or(0);
                let beat = match known {
                    0 => Beat::First,
                    known if known != state.data.life => Beat::Other,
                    _ if held < acknowledged => Beat::Older,
                    _ => Beat::Same,
                };
                let held = if beat == Beat::Older { held } else { held.max(number) };
                state.data.counters.insert(node, held);
                (beat, state.data.life, held)
            })
            .await?;
        let mut known = self.known.lock();
        (known.life, known.acknowledged) = (life, held);
        Ok(beat)
    }

    async fn examine(&self, channel: &ChannelName, producer: NodeId, at: u64) -> Result<Option<OpenLog>> {
        let channel = channel.clone();
        self.call("examine", false, move |state, _| state.data.memory.examine(&channel, producer, at)).await
    }

    async fn record_job(&self, _job: &MovedJob) -> Result<Recorded> {
        // No order is placed here.
        Ok(Recorded::Yes)
    }
}

#[async_trait]
impl Log for ModelRedis {
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        let channel = channel.clone();
        self.call("state", false, move |state, _| now(state.data.memory.state(&channel, producer))).await?
    }

    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        let channel = channel.clone();
        self.call("find", false, move |state, _| now(state.data.memory.find(&channel, producer))).await?
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        let (channel, minted) = (channel.clone(), minted.clone());
        self.call("open", true, move |state, _| now(state.data.memory.open(&channel, producer, &minted)))
            .await?
    }

    async fn renew_epoch(
        &self,
        channel: &ChannelName,
        expected: &Epoch,
        minted: &Epoch,
    ) -> Result<Option<Epoch>> {
        let (channel, expected, minted) = (channel.clone(), expected.clone(), minted.clone());
        self.call("renew", true, move |state, _| {
            let held = now(state.data.memory.renew_epoch(&channel, &expected, &minted));
            state.renewed += u64::from(matches!(&held, Ok(Some(held)) if *held == minted));
            held
        })
        .await?
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let batch = batch.clone();
        self.call("append", true, move |state, link| {
            let answer = state.append(&batch);
            let name = link.name;
            let chain = || batch.entries.iter().map(|append| (append.prev, append.seq)).collect::<Vec<_>>();
            state.say(|| format!("n{name} append {} {} {:?}", batch.channel, batch.epoch, chain()));
            answer
        })
        .await
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        let (channel, after) = (channel.clone(), after.cloned());
        self.call("read", false, move |state, _| {
            let page = state.data.memory.read_now_within(&channel, after.as_ref(), limit);
            Page { is_final: false, ..page }
        })
        .await
    }

    async fn latest(&self, channel: &ChannelName, after: Option<&str>, limit: usize) -> Result<LatestPage> {
        let (channel, after) = (channel.clone(), after.map(str::to_owned));
        let latest =
            move |state: &mut ServerState| now(state.data.memory.latest(&channel, after.as_deref(), limit));
        self.call("latest", false, move |state, _| latest(state)).await?
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        let channel = channel.clone();
        self.call("keys", false, move |state, _| now(state.data.memory.keys(&channel))).await?
    }

    async fn follow(&self, channel: &ChannelName) -> Result<()> {
        {
            let mut state = self.link.state.lock();
            // One that was asked for and not waited for may never have been executed.
            let Some(subscriber) = &state.subscriber else { return Err(unreachable("follow")) };
            if subscriber.subscribed.contains(channel) {
                return Ok(());
            }
            // It is subscribed to by whichever connection is made, from here on.
            state.followed.insert(channel.clone());
        }
        let followed = channel.clone();
        let answer = self
            .call("follow", false, move |_, link| {
                let mut state = link.state.lock();
                let Some(subscriber) = &mut state.subscriber else { return Err(unreachable("follow")) };
                subscriber.subscribed.insert(followed);
                Ok(())
            })
            .await
            .and_then(|followed| followed);
        if answer.is_err() {
            self.link.state.lock().followed.remove(channel);
        }
        answer
    }

    async fn unfollow(&self, channel: &ChannelName) -> Result<()> {
        let mut state = self.link.state.lock();
        state.followed.remove(channel);
        if let Some(subscriber) = &mut state.subscriber {
            subscriber.subscribed.remove(channel);
        }
        Ok(())
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        self.incoming.lock().take()
    }
}

#[async_trait]
impl Records for ModelRedis {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        let key = key.to_owned();
        self.call("put", true, move |state, _| now(state.data.memory.put(kind, &key, value, ttl))).await?
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        let key = key.to_owned();
        self.call("get", false, move |state, _| now(state.data.memory.get(kind, &key))).await?
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        let key = key.to_owned();
        self.call("delete", true, move |state, _| now(state.data.memory.delete(kind, &key))).await?
    }

    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        let after = after.map(str::to_owned);
        self.call("list", false, move |state, _| now(state.data.memory.list(kind, after.as_deref(), limit)))
            .await?
    }
}

/// Jobs are not part of what is simulated.
#[async_trait]
impl Jobs for ModelRedis {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.memory().enqueue(job, bounds).await
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<ClaimedJob>> {
        self.memory().claim(kind, limit, lease).await
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.memory().extend(id, token, lease).await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.memory().commit(id, token, lease).await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        self.memory().finish(id, token, ending).await
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        self.memory().cancel(id).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        self.memory().job(id).await
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        self.memory().list_jobs(state, before, limit).await
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        self.memory().settle_dead(id).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.memory().job_counts().await
    }
}

#[async_trait]
impl StorageBackend for ModelRedis {
    fn name(&self) -> BackendName {
        BackendName::Redis
    }

    async fn ping(&self) -> Result<()> {
        self.call("ping", false, |_, _| ()).await
    }
}
