//! Nodes that publish and follow over a model of Redis that fails in every way that a seed can select. In
//! the end, everything accepted must be in the log, and every subscriber must have received all of it, once
//! and in order, or have been told otherwise.
//!
//! `ZONEWIRE_SIM_SEED=<seed> cargo test --lib simulation` runs one schedule and prints it;
//! `ZONEWIRE_SIM_SEEDS=<count>`, with `ZONEWIRE_SIM_FROM=<seed>`, runs other schedules than the default
//! ones.

#![expect(
    clippy::disallowed_methods,
    reason = "each schedule has a runtime of its own, which ends with all of it"
)]

mod plan;
mod subscriber;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{Asked, Channels, ChannelsConfig, ChannelsParts, First, Live, Start, UpdateTerms};
use crate::model::{
    BackendName, BackendState, ChannelKind, ChannelName, ChannelPolicy, DraftEntry, Entry, EntryKind, Lane,
    NodeId, Position,
};
use crate::storage::redis_model::{Data, Faults, Inside, ModelServer, Setup, Trace, Which};
use crate::storage::{Page, StatusReader, VersionVector};
use crate::support::panics::Vital;
use crate::support::{chance, mutant};
use plan::{Act, Anywhere, Plan};
use subscriber::{Client, NUMBERS, Places, Subscriber, number};

/// Everything must have settled this long after the last fault.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);

/// A node must report that it is degraded this long after Redis went away, at the latest.
const REPORTED_WITHIN: Duration = Duration::from_millis(1_500);

/// A running node.
struct NodeRun {
    name: usize,
    channels: Channels,
    server: ModelServer,
    inside: Inside,
    status: StatusReader,
    /// When the schedule began.
    began: Instant,
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    tasks: Mutex<Vec<AbortHandle>>,
    /// For each producer, the newest sequence that any subscriber here was sent.
    sent: Mutex<VersionVector>,
    /// Since when Redis does not serve this node.
    away_since: Mutex<Option<Instant>>,
    /// Reports of the state that were wrong.
    untrue: Mutex<Vec<String>>,
    gone: CancellationToken,
}

impl NodeRun {
    fn subscribers_of(&self, channel: &ChannelName) -> Vec<Arc<Subscriber>> {
        self.subscribers.lock().iter().filter(|held| held.channel() == channel).cloned().collect()
    }

    fn track(&self, task: &tokio::task::JoinHandle<()>) {
        self.tasks.lock().push(task.abort_handle());
    }

    fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Checks that the reported state is the one that the node acts on.
    fn check_status(&self) {
        let (said, (state, serves)) = (self.status.get(), self.inside.mode());
        let name = self.name;
        if (said.state, said.backend) != (state, serves) {
            let text = format!("n{name} says {:?} by {:?}, and is {state:?}", said.state, said.backend);
            self.untrue.lock().push(text);
        }
        if (said.backend == BackendName::InMemory) != (said.state == BackendState::Degraded) {
            self.untrue.lock().push(format!("n{name} says {:?} by {:?}", said.state, said.backend));
        }
    }

    /// Checks each reported state as it arrives.
    async fn watch(self: Arc<Self>) {
        let mut status = self.status.clone();
        let mut last = status.get();
        while status.changed().await {
            let now = status.get();
            let name = self.name;
            self.server.say(|| format!("n{name} is {:?}: {}", now.state, now.reason));
            self.check_status();
            let moved = last.state != now.state;
            if moved && now.switches == last.switches {
                self.untrue.lock().push(format!("n{name} went to {:?} without counting it", now.state));
            }
            last = now;
        }
    }
}

/// Stands for all keys of a zone.
const ALL_KEYS: usize = usize::MAX;

/// The kind of what was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Price,
    Removal,
    ZoneRemoval,
}

/// An entry that was published.
#[derive(Debug, Clone)]
struct Published {
    what: What,
    channel: ChannelName,
    node: usize,
    key: usize,
    time: i64,
    begun: Instant,
    /// `None`: not known yet, or never.
    accepted: Option<bool>,
    /// Whether it may be lost because its node is gone.
    excused: bool,
}

struct World {
    plan: Plan,
    server: ModelServer,
    lanes: Arc<dyn Fn(&ChannelName) -> Lane + Send + Sync>,
    nodes: Mutex<Vec<Arc<NodeRun>>>,
    published: Mutex<BTreeMap<u64, Published>>,
    /// Unanswered publishes on running nodes.
    under_way: Mutex<HashMap<usize, i64>>,
    producers: Mutex<u64>,
    clock: Mutex<i64>,
    clients: Vec<Arc<Client>>,
    places: Arc<Mutex<Places>>,
    stops: CancellationToken,
    settles: CancellationToken,
    thinned: AtomicBool,
    superseded: AtomicBool,
    aged: AtomicBool,
    began: Instant,
    /// The kinds of events that have happened.
    seen: Mutex<BTreeSet<Kind>>,
}

/// Events that schedules should bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Redis was away, and the node reported it.
    Degraded,
    Fork,
    /// A fork began because an append was late while Redis served.
    LateFork,
    Reconcile,
    /// Redis lost everything.
    Flush,
    /// Redis was set back to an earlier state.
    Rollback,
    /// Lost offsets of a log were given to other entries before anybody noticed.
    Refilled,
    /// Because offsets were refilled, a reader was wrongly told that nothing is missing.
    Misled,
    /// A node found its log lost.
    LostLog,
    /// A node found its log set back.
    OlderLog,
    /// A node appended lost entries to a log again.
    PutBack,
    Crash,
    /// Entries expired.
    Expired,
    /// A log expired, with everything known about it.
    ExpiredLog,
    /// One of a node's two connections was lost, and the other was not.
    OneConnection,
    /// Prices in the journal were replaced by newer ones of their key.
    Thinning,
    /// The journal was full.
    Refusal,
    /// A reader resumed on another connection.
    Resumed,
    /// A reader came before the log existed.
    Unborn,
    /// A reader that came before the log existed resumed on another connection.
    ResumedUnborn,
    /// A reader was told that something may be missing.
    Gap,
    /// Something was out of reach, and came when it could be reached.
    Owed,
    /// A reader got something again, after it was told that this may happen.
    Again,
    /// A reader got a snapshot.
    Snapshot,
    /// A reader got a partial snapshot.
    SnapshotInPart,
    /// A reader got another snapshot on the same connection.
    SnapshotAnew,
    /// A reader left in the middle of a snapshot.
    SnapshotLeft,
    /// An entry was in transit for so long that it came into the log after an entry accepted later, so the
    /// last value of its key is not the right one, in the log or at a client.
    Overtaken,
    /// A snapshot told a reader of a removal.
    SnapshotOfRemoval,
    /// A price reached a reader that was older than the removal of its key.
    LateBehindRemoval,
    /// An entry said that others before it are in no log.
    Missed,
    /// An order got its last update.
    Ended,
}

/// Whether an entry says that others before it are in no log.
fn says_missed(entry: &Entry) -> bool {
    entry.draft.marks.missed_before
}

/// The outcome of one schedule.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    faults: Vec<String>,
    accepted: usize,
    refused: usize,
    resumed: u64,
    gaps: Vec<String>,
    settled_ms: u128,
    seen: BTreeSet<Kind>,
    /// A digest of everything that happened.
    sum: u64,
}

/// Runs the schedule of a seed.
fn run(plan: &Plan, trace: Trace) -> Outcome {
    chance::seeded::begin(Some(plan.seed));
    mutant::set(plan.mutant);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let outcome = runtime.block_on(simulate(plan.clone(), trace));
    chance::seeded::begin(None);
    mutant::set(None);
    outcome
}

async fn simulate(plan: Plan, trace: Trace) -> Outcome {
    let server = ModelServer::new(plan.seed ^ 0x5eed, plan.faults, plan.laws, plan.ages, trace);
    if plan.producers_before > 0 {
        server.has_served(&plan.channels, plan.producers_before).await;
    }
    let latest: BTreeSet<ChannelName> =
        plan.channels.iter().filter(|c| c.as_str().contains("lat")).cloned().collect();
    let lanes = Arc::new(move |channel: &ChannelName| {
        let configured = || if latest.contains(channel) { Lane::Latest } else { Lane::Every };
        ChannelPolicy::of(channel).lane.unwrap_or_else(configured)
    });
    let places = Arc::default();
    let client = |name: usize, of: &[&ChannelName], takes_snapshots| {
        let channel = of[name % of.len()].clone();
        Client::new(name, view_of(channel, name), takes_snapshots, &places)
    };
    let all: Vec<&ChannelName> = plan.channels.iter().collect();
    let zones: Vec<&ChannelName> = all.iter().copied().filter(|c| c.kind() != ChannelKind::Order).collect();
    let mut clients: Vec<_> = (0..plan.clients).map(|name| client(name, &all, false)).collect();
    let more = if zones.is_empty() { 0 } else { plan.snapshot_clients };
    clients.extend((plan.clients..plan.clients + more).map(|name| client(name, &zones, true)));
    let world = Arc::new(World {
        server,
        lanes,
        nodes: Mutex::default(),
        published: Mutex::default(),
        under_way: Mutex::default(),
        producers: Mutex::new(0),
        clock: Mutex::new(0),
        clients,
        places,
        stops: CancellationToken::new(),
        settles: CancellationToken::new(),
        thinned: AtomicBool::new(false),
        superseded: AtomicBool::new(false),
        aged: AtomicBool::new(false),
        began: Instant::now(),
        seen: Mutex::default(),
        plan,
    });
    for name in 0..world.plan.nodes {
        world.start_node(name);
    }
    if world.plan.publishes_anywhere.is_some() {
        for channel in zones_of(&world.plan) {
            tokio::spawn(Arc::clone(&world).publish_anywhere(channel));
        }
    }
    for client in &world.clients {
        tokio::spawn(Arc::clone(&world).run_client(Arc::clone(client)));
    }
    world.act().await;
    world.heal();
    let settled = world.until_settled().await;
    world.judge(settled)
}

fn zones_of(plan: &Plan) -> Vec<ChannelName> {
    plan.channels.iter().filter(|channel| channel.kind() == ChannelKind::Zone).cloned().collect()
}

/// What a client follows: for events, mostly a view.
fn view_of(channel: ChannelName, client: usize) -> ChannelName {
    if channel.kind() != ChannelKind::Event {
        return channel;
    }
    let pattern = ["", ":x0:*", ":*:k1", ":x1:k11", ":x1:*", ":x7:*"][client % 6];
    format!("{channel}{pattern}").parse().unwrap()
}

/// The key with this number in a channel; for events it has an exchange and a symbol.
fn key_name(channel: &ChannelName, key: usize) -> Arc<str> {
    match channel.kind() {
        ChannelKind::Event => format!("x{}:k{key}", key % 2).into(),
        ChannelKind::Zone | ChannelKind::Order | ChannelKind::Registry => format!("k{key}").into(),
    }
}

/// Whether a follower of a channel, or of a view, is shown this.
fn is_shown(channel: &ChannelName, entry: &Published) -> bool {
    let (_, pattern) = channel.as_event().unzip();
    let name = key_name(&entry.channel, entry.key);
    let fits = |pattern: &str| {
        pattern.split(':').zip(name.split(':')).all(|(wanted, found)| wanted == "*" || wanted == found)
    };
    entry.channel == channel.log() && pattern.flatten().is_none_or(fits)
}

/// The numbers of entries; `None` if there are none.
fn numbers_of<'a>(entries: impl Iterator<Item = (&'a u64, &'a Published)>) -> Option<Vec<u64>> {
    let numbers: Vec<u64> = entries.map(|(number, _)| *number).collect();
    Some(numbers).filter(|numbers| !numbers.is_empty())
}

impl World {
    fn start_node(self: &Arc<Self>, name: usize) {
        let id = NodeId(Uuid::from_u128((self.plan.seed as u128) << 64 | (name as u128 + 1)));
        let setup = Setup {
            journal_entries: self.plan.journal_entries,
            order_updates: self.plan.order_updates,
            starts_degraded: name < 3 && self.plan.starts_degraded,
            ordering_deadline: Duration::from_millis(self.plan.ordering_deadline_ms),
        };
        let started = self.server.start(name, id, setup, Arc::clone(&self.lanes));
        let (shard, mut live) = mpsc::channel(64);
        let incoming = started.backend.take_incoming();
        let config = ChannelsConfig {
            lanes: [("all".parse().unwrap(), Lane::Every)].into(),
            publish_patience_ms: 1_000,
            append_batch_entries: self.plan.batch,
            idle_after_s: self.plan.idle_after_s,
            ..ChannelsConfig::default()
        };
        let parts = ChannelsParts {
            backend: started.backend,
            node: id,
            config,
            shards: vec![shard],
            runtime: tokio::runtime::Handle::current(),
            vital: Vital::default(),
            accepted: None,
        };
        let channels = Channels::new(parts, TaskTracker::new(), CancellationToken::new());
        let node = Arc::new(NodeRun {
            name,
            channels: channels.clone(),
            server: self.server.clone(),
            inside: started.inside,
            status: started.status,
            began: self.began,
            subscribers: Mutex::default(),
            tasks: Mutex::default(),
            sent: Mutex::default(),
            away_since: Mutex::default(),
            untrue: Mutex::default(),
            gone: CancellationToken::new(),
        });
        node.track(&tokio::spawn(Arc::clone(&node).watch()));
        node.track(&tokio::spawn(started.driver));
        if let Some(incoming) = incoming {
            node.track(&tokio::spawn(channels.pass_on(incoming)));
        }
        let on = Arc::clone(&node);
        node.track(&tokio::spawn(async move {
            while let Some(delivery) = live.recv().await {
                match delivery.live {
                    Live::Batch(batch) => {
                        on.subscribers_of(&batch.channel).iter().for_each(|held| held.on_batch(&batch));
                    }
                    Live::Moved(moved) => {
                        on.subscribers_of(&moved.channel).iter().for_each(|held| held.on_moved(&moved));
                    }
                    Live::Skipped { channel, epoch, offset } => {
                        let all = on.subscribers_of(&channel);
                        all.iter().for_each(|held| held.on_skipped(&epoch, offset));
                    }
                }
            }
        }));
        for channel in self.plan.channels.clone() {
            if channel.kind() == ChannelKind::Order
                && !name.is_multiple_of(self.plan.nodes)
                && self.plan.fences
            {
                continue;
            }
            if self.plan.readers_on == Some(name) || self.plan.publishes_anywhere == Some(Anywhere::Only) {
                continue;
            }
            let number = self.next_producer();
            let task = tokio::spawn(Arc::clone(self).publish_from(Arc::clone(&node), channel, number));
            node.track(&task);
        }
        self.nodes.lock().push(node);
    }

    fn next_producer(&self) -> u64 {
        let mut producers = self.producers.lock();
        *producers += 1;
        *producers
    }

    /// An entry with this number, which is about to be published at a node.
    fn draft(
        &self,
        number: u64,
        (what, kind, key): (What, EntryKind, usize),
        channel: &ChannelName,
        node: &NodeRun,
    ) -> DraftEntry {
        let time = {
            let mut clock = self.clock.lock();
            *clock += 1;
            *clock
        };
        let (begun, node, name) = (Instant::now(), node.name, key_name(channel, key));
        let (channel, accepted, excused) = (channel.clone(), None, false);
        let published = Published { what, channel, node, key, time, begun, accepted, excused };
        self.published.lock().insert(number, published);
        let key = (what != What::ZoneRemoval).then_some(name);
        DraftEntry { key, kind, ..DraftEntry::price(time, format!("{{\"n\":{number}}}")) }
    }

    /// Publishes until it is time to stop.
    async fn publish_from(self: Arc<Self>, node: Arc<NodeRun>, channel: ChannelName, producer: u64) {
        let mut rng = StdRng::seed_from_u64(self.plan.seed.wrapping_mul(31) + producer);
        let mut numbered = producer * NUMBERS;
        let is_order = channel.kind() == ChannelKind::Order;
        let ends_at = self.plan.order_ends_ms.filter(|_| is_order);
        let ends_at = ends_at.map(|after| self.began + Duration::from_millis(after));
        let mut has_ended = false;
        let born_at = self.began + Duration::from_millis(self.plan.born_ms);
        self.stops.run_until_cancelled(time::sleep_until(born_at)).await;
        while !self.stops.is_cancelled() && !has_ended {
            time::sleep(Duration::from_millis(rng.random_range(1..self.plan.pause_ms))).await;
            if let Some((from, to)) = self.plan.quiet_ms
                && self.began + Duration::from_millis(from) <= Instant::now()
            {
                let until = time::sleep_until(self.began + Duration::from_millis(to));
                if self.stops.run_until_cancelled(until).await.is_none() {
                    return;
                }
            }
            has_ended = ends_at.is_some_and(|at| Instant::now() >= at);
            let count = match rng.random_range(0..20) {
                _ if has_ended => 1,
                0 => 8,
                _ => rng.random_range(1..4),
            };
            let waits = rng.random_range(0..4) > 0 || has_ended;
            // Publishes that are not awaited are not ordered with what follows.
            let mut last = if waits { numbered } else { self.next_producer() * NUMBERS };
            let mut drafts = Vec::new();
            let mut numbers = Vec::new();
            let kind = match channel.kind() {
                ChannelKind::Zone | ChannelKind::Registry => EntryKind::PriceUpdate,
                ChannelKind::Event => EntryKind::Event(channel.as_event().expect("it is of events").0),
                ChannelKind::Order if has_ended => EntryKind::Confirmed,
                ChannelKind::Order => EntryKind::Submitted,
            };
            for _ in 0..count {
                last += 1;
                // Each key belongs to one node, which determines its order.
                let key = 10 * node.name + rng.random_range(0..3);
                drafts.push(self.draft(last, (What::Price, kind.clone(), key), &channel, &node));
                numbers.push(last);
            }
            let fence = (self.plan.fences && is_order).then_some(7);
            *self.under_way.lock().entry(node.name).or_insert(0) += 1;
            let publish =
                Arc::clone(&self).publish(Arc::clone(&node), channel.clone(), drafts, numbers, fence);
            if waits {
                numbered = last;
                publish.await;
            } else {
                let task = tokio::spawn(publish);
                node.track(&task);
            }
        }
    }

    /// A publisher behind a load balancer: publishes and removes the same keys at any node, one after the
    /// other.
    async fn publish_anywhere(self: Arc<Self>, channel: ChannelName) {
        let mut rng = StdRng::seed_from_u64(self.plan.seed.wrapping_mul(53) + 1);
        let mut numbers: HashMap<usize, u64> = HashMap::new();
        let removes_all = self.plan.publishes_anywhere == Some(Anywhere::Only);
        while !self.stops.is_cancelled() {
            time::sleep(Duration::from_millis(rng.random_range(1..self.plan.pause_ms / 2))).await;
            let nodes = self.nodes.lock().clone();
            let nodes: Vec<_> = nodes.into_iter().filter(|node| !node.is_gone()).collect();
            if nodes.is_empty() {
                continue;
            }
            let node = Arc::clone(&nodes[rng.random_range(0..nodes.len())]);
            let (what, kind, key) = match rng.random_range(0..20) {
                0 if removes_all => (What::ZoneRemoval, EntryKind::ZoneRemoved, ALL_KEYS),
                0..=6 => (What::Removal, EntryKind::KeyRemoved, 900 + rng.random_range(0..2)),
                _ => (What::Price, EntryKind::PriceUpdate, 900 + rng.random_range(0..2)),
            };
            let number = numbers.entry(node.name).or_insert_with(|| self.next_producer() * NUMBERS);
            *number += 1;
            let number = *number;
            let draft = self.draft(number, (what, kind, key), &channel, &node);
            *self.under_way.lock().entry(node.name).or_insert(0) += 1;
            let publish = Arc::clone(&self).publish(
                Arc::clone(&node),
                channel.clone(),
                vec![draft],
                vec![number],
                None,
            );
            // The crash comes first: an answer of the same moment would be counted for a node that is gone.
            tokio::select! {
                biased;
                () = node.gone.cancelled() => {}
                () = publish => {}
            }
        }
    }

    async fn publish(
        self: Arc<Self>,
        node: Arc<NodeRun>,
        channel: ChannelName,
        drafts: Vec<DraftEntry>,
        numbers: Vec<u64>,
        fence: Option<u64>,
    ) {
        // This hint may be wrong, which must do no harm.
        let is_first = numbers.first().is_some_and(|number| number % 2 == 0);
        let first = if is_first { First::Likely } else { First::No };
        let result = node.channels.publish_updates(&channel, drafts, UpdateTerms { fence, first }).await;
        let accepted = match &result {
            Ok(()) => numbers.len(),
            Err(error) => error.accepted(),
        };
        let name = node.name;
        self.server.say(|| format!("  n{name} published {numbers:?}: {result:?}"));
        node.check_status();
        let mut published = self.published.lock();
        for (index, number) in numbers.iter().enumerate() {
            published.get_mut(number).unwrap().accepted = Some(index < accepted);
        }
        *self.under_way.lock().entry(node.name).or_insert(0) -= 1;
    }

    /// A client: connected to some node, then away for a while, then on another node.
    async fn run_client(self: Arc<Self>, client: Arc<Client>) {
        let mut rng = StdRng::seed_from_u64(self.plan.seed.wrapping_mul(77) + client.name as u64);
        let stays = client.name < self.plan.steady_clients && !client.takes_snapshots;
        let comes = if stays { 0..300 } else { self.plan.comes_ms.clone() };
        time::sleep(Duration::from_millis(rng.random_range(comes))).await;
        let mut start = if rng.random_range(0..3) == 0 { Start::Oldest } else { Start::Now };
        if client.takes_snapshots {
            start = Start::Now;
        }
        loop {
            let serves = |node: &Arc<NodeRun>| {
                !node.is_gone() && self.plan.readers_on.is_none_or(|name| node.name == name)
            };
            let nodes: Vec<_> = self.nodes.lock().iter().filter(|node| serves(node)).cloned().collect();
            if nodes.is_empty() {
                time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            let node = Arc::clone(&nodes[rng.random_range(0..nodes.len())]);
            let subscriber = Subscriber::new(Arc::clone(&client), Arc::clone(&node));
            node.subscribers.lock().push(Arc::clone(&subscriber));
            let asked = Asked { start: start.clone(), snapshot: client.takes_snapshots };
            let task = tokio::spawn(Arc::clone(&subscriber).bring_up(asked));
            let stay = if stays { 3_600_000 } else { rng.random_range(50..self.plan.stay_ms) };
            let leaves_at = Instant::now() + Duration::from_millis(stay);
            node.gone.run_until_cancelled(self.unless_settling(leaves_at)).await;
            subscriber.end();
            task.abort();
            node.subscribers.lock().retain(|held| !Arc::ptr_eq(held, &subscriber));
            if node.subscribers_of(&client.channel).is_empty() {
                node.channels.leave(&client.channel, 0).await;
            }
            {
                let told = client.told.lock();
                if told.is_in_snapshot() {
                    self.seen.lock().insert(Kind::SnapshotLeft);
                }
                if let (Some(position), true) = (told.position.clone(), told.since.is_some()) {
                    start = Start::of(&client.channel, Some(position));
                }
            }
            let name = client.name;
            self.server.say(|| format!("  c{name} leaves, at {start:?}"));
            let away = rng.random_range(self.plan.away_ms.clone());
            self.settles.run_until_cancelled(time::sleep(Duration::from_millis(away))).await;
        }
    }

    /// Returns at a time; never if everything is to settle before.
    async fn unless_settling(&self, at: Instant) {
        tokio::select! {
            biased;
            () = self.settles.cancelled() => std::future::pending().await,
            () = time::sleep_until(at) => {}
        }
    }

    // Faults

    async fn act(self: &Arc<Self>) {
        let began = self.began;
        let mut saved: Option<Data> = None;
        for (at, act) in self.plan.acts.clone() {
            time::sleep_until(began + Duration::from_millis(at)).await;
            self.check_reported();
            self.server.say(|| format!("{act:?}"));
            match act {
                Act::Disconnect { node, which, later_ms } => {
                    if which != Which::Both {
                        self.seen.lock().insert(Kind::OneConnection);
                    }
                    self.server.disconnect(node, which, later_ms.map(Duration::from_millis));
                }
                Act::Connect { node } => self.server.connect(node),
                Act::Stop => self.server.set_running(false),
                Act::GoOn => self.server.set_running(true),
                Act::RefuseWrites(refuses) => self.server.set_refuses_writes(refuses),
                Act::Save => saved = Some(self.server.save()),
                Act::Kill { loses, later_ms } => {
                    for node in self.running() {
                        self.server.disconnect(node, Which::Both, later_ms.map(Duration::from_millis));
                    }
                    self.server.set_running(true);
                    if loses && saved.is_some() {
                        self.lose(saved.as_ref());
                    }
                }
                Act::ConnectAll => {
                    self.running().into_iter().for_each(|node| self.server.connect(node));
                }
                Act::Flush => self.lose(None),
                Act::Rollback if saved.is_some() => self.lose(saved.as_ref()),
                Act::Rollback => {}
                Act::Faults(faults) => self.server.set_faults(faults),
                Act::Crash { node } => self.crash(node),
                Act::StartNode { node } => self.start_node(node),
            }
            self.check_reported();
        }
        time::sleep_until(began + Duration::from_millis(self.plan.ends_ms)).await;
        self.check_reported();
    }

    /// Checks that a node without Redis for a while has reported it.
    fn check_reported(&self) {
        for node in self.nodes.lock().iter().filter(|node| !node.is_gone()) {
            let mut away_since = node.away_since.lock();
            let (name, state) = (node.name, node.status.get().state);
            match *away_since {
                Some(since) if since.elapsed() >= REPORTED_WITHIN && state != BackendState::Degraded => {
                    let text = format!("n{name} says {state:?} after {:?} without Redis", since.elapsed());
                    node.untrue.lock().push(text);
                }
                _ => {}
            }
            let serves = self.server.serves(name);
            *away_since = (!serves).then(|| away_since.unwrap_or_else(Instant::now));
        }
    }

    fn running(&self) -> Vec<usize> {
        let nodes = self.nodes.lock();
        nodes.iter().filter(|node| !node.is_gone()).map(|node| node.name).collect()
    }

    fn in_log(&self) -> HashSet<u64> {
        let pages = self.plan.channels.iter().map(|channel| self.server.content(channel));
        pages.flat_map(|page| page.entries).map(|entry| number(&entry.draft.data)).collect()
    }

    /// The numbers of entries that have expired.
    fn expired(&self) -> HashSet<u64> {
        self.server.expired().iter().map(|entry| number(&entry.draft.data)).collect()
    }

    fn lose(&self, data: Option<&Data>) {
        self.server.restore(data);
        self.seen.lock().insert(if data.is_some() { Kind::Rollback } else { Kind::Flush });
        let kept = self.in_log();
        let gone: HashSet<usize> = {
            let nodes = self.nodes.lock();
            nodes.iter().filter(|n| n.is_gone()).map(|n| n.name).collect()
        };
        for (number, entry) in self.published.lock().iter_mut() {
            entry.excused |= gone.contains(&entry.node) && !kept.contains(number);
        }
    }

    fn crash(&self, name: usize) {
        let Some(node) = self.nodes.lock().iter().find(|node| node.name == name).cloned() else { return };
        if node.is_gone() {
            return;
        }
        node.gone.cancel();
        self.seen.lock().insert(Kind::Crash);
        self.note_counts(&node);
        node.tasks.lock().iter().for_each(AbortHandle::abort);
        self.server.crash(name);
        self.under_way.lock().remove(&name);
        let kept = self.in_log();
        for (number, entry) in self.published.lock().iter_mut() {
            entry.excused |= entry.node == name && !kept.contains(number);
        }
    }

    fn note_counts(&self, node: &NodeRun) {
        let totals = node.inside.totals();
        self.thinned.fetch_or(totals.journal_thinned > 0, Ordering::AcqRel);
        self.aged.fetch_or(totals.journal_aged + totals.journal_order_overflow > 0, Ordering::AcqRel);
        self.superseded.fetch_or(totals.lines.superseded > 0, Ordering::AcqRel);
        let degraded = node.status.get().spent_in(BackendState::Degraded);
        let kinds = [
            (Kind::Degraded, !degraded.is_zero()),
            (Kind::Fork, totals.lines.forks > 0),
            (Kind::LateFork, totals.lines.forks_late > 0),
            (Kind::Reconcile, totals.lines.rejoins > 0),
            (Kind::LostLog, totals.lines.lost_logs > 0),
            (Kind::PutBack, totals.lines.put_back > 0),
            (Kind::Thinning, totals.journal_thinned > 0),
            (Kind::Refusal, totals.journal_refused_full > 0),
        ];
        self.seen.lock().extend(kinds.into_iter().filter(|(_, has)| *has).map(|(kind, _)| kind));
    }

    fn heal(&self) {
        self.server.say(|| "everything is well from here on".to_owned());
        self.stops.cancel();
        self.server.set_faults(Faults::default());
        self.server.set_refuses_writes(false);
        self.server.set_running(true);
        self.running().into_iter().for_each(|node| self.server.connect(node));
    }

    // The end

    /// What is not as it has to be in the end.
    async fn unsettled(&self) -> Option<String> {
        if let Some(unsettled) = self.unsettled_but_for_views() {
            return Some(unsettled);
        }
        // A reader of a view does not show how far its channel has come, but the channel does.
        let nodes = self.nodes.lock().clone();
        for node in nodes.iter().filter(|node| !node.is_gone()) {
            let views: Vec<_> = node.subscribers.lock().iter().map(|held| held.channel().clone()).collect();
            for view in views.iter().filter(|channel| channel.is_view()) {
                let Some(end) = self.server.end_of(&view.log()).filter(|end| end.offset > 0) else {
                    continue;
                };
                let at = node.channels.join(view, 0).await.ok();
                if at.as_ref() != Some(&end) {
                    return Some(format!("{view} on n{} is at {at:?}; the log is {end:?}", node.name));
                }
            }
        }
        // What was passed on meanwhile may have sent readers to the log.
        time::sleep(Duration::from_millis(5)).await;
        self.unsettled_but_for_views()
    }

    fn unsettled_but_for_views(&self) -> Option<String> {
        let waiting: i64 = self.under_way.lock().values().sum();
        if waiting > 0 {
            return Some(format!("{waiting} publishes wait"));
        }
        let nodes = self.nodes.lock().clone();
        for node in nodes.iter().filter(|node| !node.is_gone()) {
            let (name, status) = (node.name, node.status.get());
            if status.state != BackendState::Healthy {
                return Some(format!("n{name} is {:?}", status.state));
            }
            let journal = node.inside.waiting();
            if journal > 0 || !node.inside.is_in_order() {
                return Some(format!("n{name} has {journal} in its journal"));
            }
            for channel in &self.plan.channels {
                let Some(stand) = node.inside.stand(channel) else { continue };
                let end = self.server.end_of(channel);
                // An expired log is noticed only when it is next used.
                let has_expired = end.is_none() && self.server.has_expired(channel);
                let epoch = end.map(|end| end.epoch);
                // A node that does not follow a channel learns of its new epoch only when it next uses it.
                let is_elsewhere =
                    stand.is_followed && stand.log.is_some() && stand.log != epoch && !has_expired;
                if stand.is_forked || stand.is_suspect || is_elsewhere {
                    return Some(format!("{channel} on n{name}: {stand:?}, the log is {epoch:?}"));
                }
            }
            for subscriber in node.subscribers.lock().iter() {
                let live_at = subscriber.live_at();
                // A log that was started by a publisher who then gave up counts as none.
                let is_blank = |end: &Position| end.offset == 0 && live_at == Some(None);
                let log = subscriber.channel().log();
                let end = self.server.end_of(&log).filter(|end| !is_blank(end));
                if live_at.is_some() && end.is_none() && self.server.has_expired(&log) {
                    continue;
                }
                // A view covers what it does not show only with the next entry that it shows.
                let is_before = |end: &Position| subscriber.is_live_before(end);
                if subscriber.channel().is_view() && end.as_ref().is_some_and(is_before) {
                    continue;
                }
                if live_at.as_ref() != Some(&end) {
                    return Some(format!("on n{name}: {}; the log is {end:?}", subscriber.describe()));
                }
                let client = &subscriber.client;
                if end.as_ref().is_some_and(|at| !client.is_told_of(&at.epoch)) {
                    return Some(format!("c{} was not told of the log at {end:?}", client.name));
                }
            }
        }
        let connected: usize = nodes.iter().map(|node| node.subscribers.lock().len()).sum();
        (connected < self.clients.len()).then(|| format!("{connected} clients are connected"))
    }

    async fn until_settled(&self) -> Result<Duration, String> {
        let began = Instant::now();
        let beats = |name: &usize| (*name, self.server.beats(*name));
        let beats: Vec<(usize, u64)> = self.running().iter().map(beats).collect();
        loop {
            time::sleep(Duration::from_millis(50)).await;
            if began.elapsed() > Duration::from_millis(100) {
                self.settles.cancel();
            }
            // A loss is found by a health probe; when the next one is sent, the loss has been acted on.
            let has_looked = |(name, before): &(usize, u64)| self.server.beats(*name) >= before + 2;
            let unsettled = match self.unsettled().await {
                Some(unsettled) => unsettled,
                None if beats.iter().all(has_looked) => return Ok(began.elapsed()),
                None => "a node does not look".to_owned(),
            };
            if began.elapsed() > SETTLES_WITHIN {
                return Err(format!("does not settle: {unsettled}"));
            }
        }
    }

    /// What is wrong with the marks of missing updates in an order.
    fn wrong_missing_marks(
        &self,
        page: &Page,
        published: &BTreeMap<u64, Published>,
        superseded: bool,
    ) -> Vec<String> {
        // Expired entries were in the log too.
        let expired = self.server.expired();
        let entries = || expired.iter().chain(&page.entries);
        let numbers: HashSet<u64> = entries().map(|entry| number(&entry.draft.data)).collect();
        let missing = |excused: bool| {
            let accepted = published.iter().filter(move |(_, held)| {
                held.channel.kind() == ChannelKind::Order
                    && held.accepted == Some(true)
                    && (excused || !held.excused)
            });
            accepted.filter(|(number, _)| !numbers.contains(number))
        };
        let kept = entries().filter_map(|entry| {
            let number = number(&entry.draft.data);
            let held = published.get(&number).filter(|held| held.channel.kind() == ChannelKind::Order)?;
            Some((number, held, says_missed(entry)))
        });
        let kept: Vec<(u64, &Published, bool)> = kept.collect();
        let mut faults = Vec::new();
        for (number, held, _) in kept.iter().filter(|(_, _, says)| *says) {
            if !missing(true).any(|(_, gone)| gone.node == held.node && gone.time < held.time) {
                faults.push(format!("{number} says that others before it are missing, and none is"));
            }
        }
        if superseded {
            return faults;
        }
        for (number, gone) in missing(false) {
            let later = kept.iter().filter(|(_, held, _)| held.node == gone.node && held.time > gone.time);
            let mut says = later.map(|(_, _, says)| *says).peekable();
            if says.peek().is_some() && !says.any(|says| says) {
                faults.push(format!("{number} is in no log, and nothing behind it says so"));
            }
        }
        faults
    }

    /// What is wrong with the newest values that a client with snapshots knows: they must be those of the
    /// log.
    fn outdated_values(&self, client: &Client, published: &BTreeMap<u64, Published>) -> Vec<String> {
        let told = client.told.lock();
        let state = told.state(|number| {
            let Published { key, time, what, .. } = published[&number];
            (key, time, what)
        });
        self.seen.lock().extend(&state.seen);
        if told.since.is_none() {
            return Vec::new();
        }
        let mut faults = Vec::new();
        if state.is_part {
            faults.push(format!("c{} has a part of a snapshot in the end", client.name));
        }
        let in_log = self.in_log();
        let log = client.channel.log();
        let overtaken = self.overtaken(&log, published);
        let latest = self.server.latest(&log);
        let numbers = latest.iter().map(|entry| number(&entry.draft.data));
        let numbers = numbers.filter(|number| is_shown(&client.channel, &published[number]));
        let latest: HashMap<usize, u64> = numbers.map(|number| (published[&number].key, number)).collect();
        let keys: BTreeSet<usize> = latest.keys().chain(state.values.keys()).copied().collect();
        for key in keys {
            let (held, expected) = (state.values.get(&key), latest.get(&key));
            // Its node is gone with a newer entry that the client had, a price or a removal.
            let last = state.last_of(key);
            let is_lost = last.is_some_and(|last| !in_log.contains(&last) && published[&last].excused);
            // Values expire without notice.
            let is_old = expected.is_none() && held.is_some_and(|held| !in_log.contains(held));
            if held != expected && !is_lost && !is_old && !self.is_overtaken(&overtaken, key) {
                faults.push(format!("c{} has {held:?} of key {key}, and the log {expected:?}", client.name));
            }
        }
        faults
    }

    /// The keys with an entry that was in transit for so long that another node's, accepted after it, came
    /// into the log before it, and that is not marked late.
    fn overtaken(&self, channel: &ChannelName, published: &BTreeMap<u64, Published>) -> HashSet<usize> {
        let entries = self.server.content(channel).entries;
        let of = |entry: &Entry| &published[&number(&entry.draft.data)];
        let mut overtaken = HashSet::new();
        for (index, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.draft.marks.late) {
            let is_of_it = |other: &&Entry| {
                let is_one = |key: usize| of(entry).key == key || of(entry).key == ALL_KEYS;
                other.id.producer != entry.id.producer && (is_one(of(other).key) || of(other).key == ALL_KEYS)
            };
            let before = entries[..index].iter().filter(is_of_it);
            overtaken.extend(before.filter(|other| of(other).time > of(entry).time).map(|_| of(entry).key));
        }
        overtaken
    }

    fn is_overtaken(&self, overtaken: &HashSet<usize>, key: usize) -> bool {
        let is_overtaken = overtaken.contains(&key) || overtaken.contains(&ALL_KEYS);
        self.seen.lock().extend(is_overtaken.then_some(Kind::Overtaken));
        is_overtaken
    }

    /// What is wrong with the latest entries of keys that were published and removed at any node: the last
    /// action must count.
    fn wrong_last_entries(&self, channel: &ChannelName, published: &BTreeMap<u64, Published>) -> Vec<String> {
        let latest = self.server.latest(channel);
        let latest: BTreeSet<u64> = latest.iter().map(|entry| number(&entry.draft.data)).collect();
        let overtaken = self.overtaken(channel, published);
        let mut faults = Vec::new();
        for key in [900, 901] {
            let of_key = published
                .iter()
                .filter(|(_, held)| held.channel == *channel && (held.key == key || held.key == ALL_KEYS));
            let Some((number, last)) = of_key.max_by_key(|(_, held)| held.time) else { continue };
            if last.accepted != Some(true) || last.excused {
                continue;
            }
            let shown: Vec<u64> =
                latest.iter().copied().filter(|number| published[number].key == key).collect();
            let expected: Vec<u64> = (last.what == What::Price).then_some(*number).into_iter().collect();
            if shown != expected && !self.is_overtaken(&overtaken, key) {
                faults.push(format!(
                    "of key {key} the log has {shown:?}, and {number} ({:?}) was last",
                    last.what
                ));
            }
        }
        faults
    }

    fn judge(&self, settled: Result<Duration, String>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut faults = Vec::new();
        match settled {
            Ok(took) => outcome.settled_ms = took.as_millis(),
            Err(text) => faults.push(text),
        }
        for node in self.nodes.lock().iter() {
            self.note_counts(node);
            faults.append(&mut node.untrue.lock());
        }
        outcome.seen = self.seen.lock().clone();
        outcome.sum = self.server.sum();
        if self.server.renewed() > 0 && !outcome.seen.contains(&Kind::Rollback) {
            faults.push("a log was taken for older than it had been, and was not".to_owned());
        }
        let loses = [Kind::Flush, Kind::Rollback].iter().any(|kind| outcome.seen.contains(kind));
        if outcome.seen.contains(&Kind::LostLog) && !loses {
            faults.push("a log was taken for lost, and was not".to_owned());
        }
        // Between a rollback and its discovery, an epoch may have two ends.
        if !outcome.seen.contains(&Kind::Rollback) {
            faults.append(&mut self.places.lock().doubles);
        }
        let [thinned, superseded, aged] =
            [&self.thinned, &self.superseded, &self.aged].map(|flag| flag.load(Ordering::Acquire));
        let published = self.published.lock();
        outcome.accepted = published.values().filter(|entry| entry.accepted == Some(true)).count();
        outcome.refused = published.values().filter(|entry| entry.accepted == Some(false)).count();
        let (in_log, expired) = (self.in_log(), self.expired());
        outcome.seen.extend((!expired.is_empty()).then_some(Kind::Expired));
        let has_expired = |channel: &ChannelName| self.server.has_expired(channel);
        outcome.seen.extend(self.plan.channels.iter().any(has_expired).then_some(Kind::ExpiredLog));
        if !loses && let Some(number) = expired.intersection(&in_log).min() {
            faults.push(format!("{number} had expired, and is in the log"));
        }
        // A newer price of the same key replaces one that was thinned.
        let is_due = |number: u64, entry: &Published, held: &dyn Fn(u64) -> bool| {
            let is_order = entry.channel.kind() == ChannelKind::Order;
            let is_let_go = aged && is_order && !in_log.contains(&number);
            if entry.accepted != Some(true) || entry.excused || held(number) || is_let_go {
                return false;
            }
            let is_latest = (self.lanes)(&entry.channel) == Lane::Latest;
            let is_newer = |newer: &Published| {
                newer.channel == entry.channel && newer.key == entry.key && newer.time > entry.time
            };
            let has_newer = || published.iter().any(|(n, newer)| is_newer(newer) && held(*n));
            !((thinned && is_latest && has_newer()) || (superseded && is_order))
        };
        for channel in &self.plan.channels {
            let page = self.server.content(channel);
            let mut newest: HashMap<u64, u64> = HashMap::new();
            let mut held = HashSet::new();
            let mut next = page.first;
            for (index, entry) in page.entries.iter().enumerate() {
                let number = number(&entry.draft.data);
                if entry.offset != next {
                    faults.push(format!("{} comes before {next} in the log of {channel}", entry.offset));
                }
                next = entry.offset + 1;
                if entry.draft.kind.is_terminal() {
                    outcome.seen.insert(Kind::Ended);
                    if index + 1 < page.entries.len() {
                        faults.push(format!("{number} is not the last one in the log of {channel}"));
                    }
                }
                if !held.insert(number) {
                    faults.push(format!("{number} is in the log of {channel} twice"));
                }
                let newest = newest.entry(number / NUMBERS).or_insert(0);
                if *newest > number {
                    faults.push(format!("{number} is behind {newest} in the log of {channel}"));
                }
                *newest = number.max(*newest);
            }
            let due = published.iter().filter(|(_, entry)| entry.channel == *channel);
            let missing = numbers_of(due.filter(|(number, entry)| {
                is_due(**number, entry, &|n| held.contains(&n) || expired.contains(&n))
            }));
            faults.extend(missing.map(|all| format!("accepted, and not in the log of {channel}: {all:?}")));
            if channel.kind() == ChannelKind::Order {
                let wrong_marks = self.wrong_missing_marks(&page, &published, superseded);
                outcome.seen.extend(page.entries.iter().any(says_missed).then_some(Kind::Missed));
                faults.extend(wrong_marks);
            }
        }
        for channel in zones_of(&self.plan).iter().filter(|_| self.plan.publishes_anywhere.is_some()) {
            faults.extend(self.wrong_last_entries(channel, &published));
        }
        for client in &self.clients {
            let mut outdated =
                if client.takes_snapshots { self.outdated_values(client, &published) } else { Vec::new() };
            let told = client.told.lock();
            // If a log is set back, and others append before the nodes that knew more have looked, a
            // position stands for two entries. A node that never knew the lost ones cannot tell which of
            // the two an arriving reader has had.
            let is_refilled = self.server.is_refilled(&client.channel.log());
            outcome.seen.extend(is_refilled.then_some(Kind::Refilled));
            let mut wrong: Vec<String> = told.faults.iter().take(4).cloned().collect();
            wrong.append(&mut outdated);
            outcome.resumed += told.resumed;
            outcome.seen.extend((told.resumed > 0).then_some(Kind::Resumed));
            outcome.seen.extend((!told.gaps.is_empty()).then_some(Kind::Gap));
            outcome.seen.extend((told.late > 0).then_some(Kind::Owed));
            outcome.seen.extend((told.again > 0).then_some(Kind::Again));
            outcome.seen.extend(told.was_unborn.then_some(Kind::Unborn));
            outcome.seen.extend((told.resumed_unborn > 0).then_some(Kind::ResumedUnborn));
            outcome.gaps.extend(told.gaps.iter().map(|gap| format!("c{}: {gap}", client.name)));
            let has_waited = |begun: Instant| told.since.is_some_and(|since| begun > since);
            let due = published
                .iter()
                .filter(|(_, entry)| is_shown(&client.channel, entry) && has_waited(entry.begun));
            let missing = numbers_of(
                due.filter(|(number, entry)| is_due(**number, entry, &|n| told.numbers.contains(&n))),
            );
            wrong.extend(missing.map(|all| format!("c{} did not get {all:?}", client.name)));
            let others =
                numbers_of(published.iter().filter(|(number, entry)| {
                    !is_shown(&client.channel, entry) && told.ever.contains(number)
                }));
            wrong.extend(others.map(|all| format!("c{} got {all:?}, which it does not follow", client.name)));
            // Whatever the reader was told: what the log has in the end was never gone.
            let owed = published.iter().filter(|(number, entry)| {
                is_shown(&client.channel, entry)
                    && told.first.is_some_and(|first| entry.begun > first)
                    && in_log.contains(number)
                    && is_due(**number, entry, &|n| told.ever.contains(&n))
            });
            let owed = numbers_of(owed);
            wrong.extend(owed.map(|all| format!("c{} did not get {all:?}, which the log has", client.name)));
            // If readers have a separate node, that node knew the lost entries.
            let is_misled = is_refilled && !wrong.is_empty() && self.plan.readers_on.is_none();
            outcome.seen.extend(is_misled.then_some(Kind::Misled));
            if !is_misled {
                faults.append(&mut wrong);
            }
        }
        outcome.seen.extend(self.seen.lock().iter().copied());
        outcome.seen.extend((self.server.renewed() > 0).then_some(Kind::OlderLog));
        outcome.faults = faults;
        outcome
    }
}

mod tests;
