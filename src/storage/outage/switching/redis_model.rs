//! A model of Redis for tests and simulations: one server that several nodes share, with its data in a memory
//! backend, and everything that can go wrong between a node and it. What goes wrong, and when, follows from a
//! seed.

#![expect(
    clippy::disallowed_methods,
    reason = "its tasks end with the runtime of one schedule, and what is under way is bounded by that"
)]

mod link;
mod node;
mod primary;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::model::{ChannelName, Entry, EntryId, Epoch, NodeId, Position, new_epoch};
use crate::storage::Lost;
use crate::storage::{
    AppendAnswer, AppendBatch, Appended, EPOCH_KEPT_FOR, LatestOf, LatestQuery, LogEvent, MemoryBackend,
    MemoryConfig, MovedJob, OpenLog, OrderRetention, Page, PageLimit, Retention,
};
pub(crate) use link::Which;
use link::{Link, LinkState};
pub(crate) use node::{Inside, Setup};

/// If a log knows more producers than this, the first append of another one makes it forget those that were
/// silent for as long as an epoch is kept.
const PRODUCERS_KEPT: usize = 13;

/// How long the server, and the nodes that use it, keep things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ages {
    /// Entries, and the epoch of a log that was never appended to.
    pub(crate) entries_s: u64,
    /// The epoch, after the newest entry.
    pub(crate) epoch: Duration,
}

impl Ages {
    /// A day in a few seconds, so that logs expire within a schedule.
    pub(crate) const SHORT: Self = Self { entries_s: 1, epoch: Duration::from_secs(4) };

    fn entries(&self) -> Duration {
        Duration::from_secs(self.entries_s)
    }

    fn retention(&self) -> Retention {
        let orders = OrderRetention { updates: 10_000, age_s: self.entries_s };
        Retention { age_s: self.entries_s, orders, ..Retention::default() }
    }
}

impl Default for Ages {
    fn default() -> Self {
        Self { entries_s: 3_600, epoch: Duration::from_secs(3_600) + EPOCH_KEPT_FOR }
    }
}

/// How many calls in a thousand go wrong, and how.
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
    /// What is published arrives late, by up to a second.
    pub(crate) event_slow: u32,
    /// What is published does not arrive; the follower gets `Suspect` in its place.
    pub(crate) event_lost: u32,
}

/// What is done with the trace of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Off,
    Print,
    /// It is hashed into one number, to be compared.
    Sum,
}

/// Rules of the server that a test can leave out, to see that this is noticed.
///
/// That an append names the epoch is not among them: without it nothing breaks as long as the producer's
/// chain is checked. A batch that is still on its way when its epoch ends is then applied to the next epoch
/// only if that one has everything of the producer up to the batch and nothing after it: where the producer
/// would have put it, as the same entries with the same sequences, so that repeating it does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Laws {
    pub(crate) no_chain_check: bool,
    pub(crate) append_mints: bool,
    /// If only the connection for subscriptions is lost, neither that nor what was missed is reported.
    pub(crate) subscriber_not_minded: bool,
    /// A node counts as subscribed to a channel as soon as any other node is.
    pub(crate) others_prove_following: bool,
}

/// The server.
#[derive(Debug, Clone)]
pub(crate) struct ModelServer(Arc<Server>);

#[derive(Debug)]
struct Server {
    state: Mutex<ServerState>,
    /// Cancelled while the server runs; while it is stopped, what reaches it waits for that.
    running: Mutex<CancellationToken>,
}

struct ServerState {
    data: Data,
    rng: StdRng,
    faults: Faults,
    laws: Laws,
    ages: Ages,
    refuses_writes: bool,
    /// Everything is executed, and nothing but health probes is answered.
    is_silent: bool,
    /// Calls that were executed and not answered because of that.
    unanswered: u64,
    links: Vec<Arc<Link>>,
    trace: Trace,
    sum: DefaultHasher,
    began: Instant,
    calls: u64,
    /// Jobs that nodes kept and then recorded here, each time that they did.
    recorded: Vec<MovedJob>,
    /// Logs that were found to be older than they had been.
    renewed: u64,
    /// By node, how many beats it has answered.
    beats: BTreeMap<usize, u64>,
    /// What was ever given a place in a log.
    places: BTreeMap<(ChannelName, String, u64), EntryId>,
    /// Logs that went back, and in which other entries took the places of those that were lost before
    /// the epoch was renewed.
    refilled: BTreeSet<ChannelName>,
    /// Entries that expired, and logs that expired with all that was known of them.
    expired: Vec<Entry>,
    expired_logs: BTreeSet<ChannelName>,
}

impl fmt::Debug for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerState").field("calls", &self.calls).finish_non_exhaustive()
    }
}

/// The data that the server can lose.
#[derive(Debug)]
pub(crate) struct Data {
    memory: MemoryBackend,
    data_id: u64,
    counters: BTreeMap<NodeId, u64>,
    /// When a log that nobody appends to expires, with all that is known of it.
    expires: BTreeMap<ChannelName, Instant>,
}

impl Data {
    fn empty(ages: &Ages) -> Self {
        let (memory, _) = MemoryBackend::new(ages.retention(), MemoryConfig::default());
        Self { memory, data_id: 0, counters: BTreeMap::new(), expires: BTreeMap::new() }
    }

    fn copy(&self) -> Self {
        Self {
            memory: self.memory.copy(),
            data_id: self.data_id,
            counters: self.counters.clone(),
            expires: self.expires.clone(),
        }
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

fn lost() -> Lost {
    Lost { code: "unreachable", reason: "a connection was lost".to_owned() }
}

impl ModelServer {
    pub(crate) fn new(seed: u64, faults: Faults, laws: Laws, ages: Ages, trace: Trace) -> Self {
        let state = ServerState {
            data: Data::empty(&ages),
            rng: StdRng::seed_from_u64(seed),
            faults,
            laws,
            ages,
            refuses_writes: false,
            is_silent: false,
            unanswered: 0,
            links: Vec::new(),
            trace,
            sum: DefaultHasher::new(),
            began: Instant::now(),
            calls: 0,
            recorded: Vec::new(),
            renewed: 0,
            beats: BTreeMap::new(),
            places: BTreeMap::new(),
            refilled: BTreeSet::new(),
            expired: Vec::new(),
            expired_logs: BTreeSet::new(),
        };
        let server = Self(Arc::new(Server { state: Mutex::new(state), running: Mutex::default() }));
        server.set_running(true);
        server
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

    /// Lets the server execute calls without answering them, health probes excepted.
    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.0.state.lock().is_silent = is_silent;
    }

    /// How many calls it executed and did not answer because it was silent.
    pub(crate) fn unanswered(&self) -> u64 {
        self.0.state.lock().unanswered
    }

    /// The jobs that nodes recorded here, in order.
    pub(in crate::storage) fn recorded(&self) -> Vec<MovedJob> {
        self.0.state.lock().recorded.clone()
    }

    /// Its data.
    pub(in crate::storage) fn memory(&self) -> MemoryBackend {
        self.0.state.lock().data.memory.clone()
    }

    /// Lets the server run, or stops it without closing connections.
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

    /// Makes the logs of channels look as if they had existed for days: this many producers, all gone by now,
    /// have each appended one entry, which has expired.
    pub(crate) async fn has_served(&self, channels: &[ChannelName], producers: usize) {
        let ages = {
            let mut state = self.0.state.lock();
            for channel in channels {
                let mut node = || (NodeId(Uuid::from_u128(state.rng.random())), 1);
                let all: Vec<(NodeId, u64)> = (0..producers).map(|_| node()).collect();
                state.data.memory.mirror_from(channel, &new_epoch(), producers as u64, &all);
            }
            state.ages
        };
        time::advance(2 * ages.epoch).await;
        let mut state = self.0.state.lock();
        state.began = Instant::now();
        // Somebody has appended all the while.
        let expires = state.began + ages.epoch;
        state.data.expires.extend(channels.iter().map(|channel| (channel.clone(), expires)));
    }

    /// What it has now.
    pub(crate) fn save(&self) -> Data {
        self.0.state.lock().data.copy()
    }

    /// Replaces all data; `None`: by nothing.
    pub(crate) fn restore(&self, data: Option<&Data>) {
        let mut state = self.0.state.lock();
        let ages = state.ages;
        state.data = data.map_or_else(|| Data::empty(&ages), Data::copy);
    }

    /// The hash of the trace: see [`Trace::Sum`].
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

    /// Where the log of a channel ends.
    pub(crate) fn end_of(&self, channel: &ChannelName) -> Option<Position> {
        let mut state = self.0.state.lock();
        state.expire(channel);
        state.data.memory.mirrored(channel).map(|held| Position { epoch: held.epoch, offset: held.top })
    }

    /// The latest entry of each key of a channel.
    pub(crate) fn latest(&self, channel: &ChannelName) -> Vec<Entry> {
        let limit = PageLimit { entries: usize::MAX, bytes: usize::MAX };
        self.memory().latest_now(channel, LatestQuery { after: None, limit, of: LatestOf::Keys }).entries
    }

    /// All entries of a channel, and its epoch.
    pub(crate) fn content(&self, channel: &ChannelName) -> Page {
        let mut state = self.0.state.lock();
        state.expire(channel);
        state.data.memory.read_now(channel, None, usize::MAX)
    }

    /// All entries that expired.
    pub(crate) fn expired(&self) -> Vec<Entry> {
        self.0.state.lock().expired.clone()
    }

    /// Whether a log has ever expired because nobody appended to it.
    pub(crate) fn has_expired(&self, channel: &ChannelName) -> bool {
        self.0.state.lock().expired_logs.contains(channel)
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

    /// Drops what has expired of a channel.
    fn expire(&mut self, channel: &ChannelName) {
        let is_over = self.data.expires.get(channel).is_some_and(|at| *at <= Instant::now());
        if is_over {
            self.data.expires.remove(channel);
            self.expired_logs.insert(channel.clone());
            self.say(|| format!("{channel} has expired"));
        }
        let gone = self.data.memory.expire(channel, is_over);
        self.expired.extend(gone);
    }

    fn open(&mut self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> OpenLog {
        let expires = Instant::now() + self.ages.entries();
        self.data.expires.entry(channel.clone()).or_insert(expires);
        self.data.memory.open_now(channel, producer, minted)
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
                memory.forget_silent(&batch.channel, self.ages.epoch);
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
                self.data.expires.insert(batch.channel.clone(), Instant::now() + self.ages.epoch);
                self.publish(&batch.channel, &batch.epoch, &applied);
            }
        }
        answer
    }

    /// Whether another node is subscribed to a channel.
    fn is_heard_elsewhere(&self, link: &Link, channel: &ChannelName) -> bool {
        let hears =
            |state: &LinkState| state.subscriber.as_ref().is_some_and(|it| it.subscribed.contains(channel));
        self.links.iter().any(|other| other.name != link.name && hears(&other.state.lock()))
    }

    fn publish(&mut self, channel: &ChannelName, epoch: &Epoch, entries: &[Entry]) {
        for link in self.links.clone() {
            let mut state = link.state.lock();
            let Some(subscriber) = &mut state.subscriber else { continue };
            if !subscriber.subscribed.contains(channel) {
                continue;
            }
            let mut latency = self.fate().there;
            if self.chance(self.faults.event_slow) {
                latency = Duration::from_millis(self.rng.random_range(5..1_000));
            }
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
