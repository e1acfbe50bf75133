//! Nodes that publish and follow over a model of Redis that fails in every way that a seed can say:
//! what was accepted must be in the log in the end, and every subscriber must have got all of it,
//! once and in order, or have been told.
//!
//! `ZONEWIRE_SIM_SEED=<seed> cargo test --lib simulation` runs one schedule alone and prints what
//! happened in it.

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

use bytes::Bytes;
use chrono::DateTime;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{Channels, ChannelsConfig, ChannelsParts, Live, Start};
use crate::model::{BackendState, ChannelKind, ChannelName, DraftEntry, EntryKind, Lane, Marks, NodeId};
use crate::storage::StatusReader;
use crate::storage::model::{Data, Faults, Inside, ModelServer, Setup};
use crate::support::{chance, mutant};
use plan::{Act, Plan};
use subscriber::{Client, NUMBERS, Subscriber, number};

/// Everything must have settled so long after the last fault.
const SETTLES_WITHIN: Duration = Duration::from_secs(15);

/// A node that runs.
struct NodeRun {
    name: usize,
    channels: Channels,
    server: ModelServer,
    inside: Inside,
    status: StatusReader,
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    tasks: Mutex<Vec<AbortHandle>>,
    is_gone: AtomicBool,
}

impl NodeRun {
    fn subscribers_of(&self, channel: &ChannelName) -> Vec<Arc<Subscriber>> {
        self.subscribers.lock().iter().filter(|held| held.channel() == channel).cloned().collect()
    }

    fn keep(&self, task: &tokio::task::JoinHandle<()>) {
        self.tasks.lock().push(task.abort_handle());
    }
}

/// Something that was published.
#[derive(Debug, Clone)]
struct Published {
    channel: ChannelName,
    node: usize,
    key: usize,
    time: i64,
    begun: Instant,
    /// `None`: not known yet, or for ever.
    accepted: Option<bool>,
    /// It may be lost: its node is gone.
    excused: bool,
}

struct World {
    plan: Plan,
    server: ModelServer,
    lanes: Arc<dyn Fn(&ChannelName) -> Lane + Send + Sync>,
    nodes: Mutex<Vec<Arc<NodeRun>>>,
    published: Mutex<BTreeMap<u64, Published>>,
    /// Publishes that were not answered yet, on nodes that run.
    under_way: Mutex<HashMap<usize, i64>>,
    producers: Mutex<u64>,
    clock: Mutex<i64>,
    clients: Vec<Arc<Client>>,
    stops: CancellationToken,
    settles: CancellationToken,
    thinned: AtomicBool,
    superseded: AtomicBool,
    aged: AtomicBool,
}

/// What one schedule came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    faults: Vec<String>,
    accepted: usize,
    refused: usize,
    resumed: u64,
    gaps: Vec<String>,
    settled_ms: u128,
}

/// Runs the schedule of a seed.
fn run(plan: &Plan, traced: bool) -> Outcome {
    chance::seeded::begin(Some(plan.seed));
    mutant::set(plan.mutant);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let outcome = runtime.block_on(simulate(plan.clone(), traced));
    chance::seeded::begin(None);
    mutant::set(None);
    outcome
}

async fn simulate(plan: Plan, traced: bool) -> Outcome {
    let server = ModelServer::new(plan.seed ^ 0x5eed, plan.faults, plan.laws, traced);
    let latest: BTreeSet<ChannelName> =
        plan.channels.iter().filter(|c| c.as_str().contains("lat")).cloned().collect();
    let lanes = Arc::new(
        move |channel: &ChannelName| {
            if latest.contains(channel) { Lane::Latest } else { Lane::Every }
        },
    );
    let clients = (0..plan.clients)
        .map(|name| Client::new(name, plan.channels[name % plan.channels.len()].clone()))
        .collect();
    let world = Arc::new(World {
        server,
        lanes,
        nodes: Mutex::default(),
        published: Mutex::default(),
        under_way: Mutex::default(),
        producers: Mutex::new(0),
        clock: Mutex::new(0),
        clients,
        stops: CancellationToken::new(),
        settles: CancellationToken::new(),
        thinned: AtomicBool::new(false),
        superseded: AtomicBool::new(false),
        aged: AtomicBool::new(false),
        plan,
    });
    for name in 0..world.plan.nodes {
        world.start_node(name);
    }
    for client in &world.clients {
        tokio::spawn(Arc::clone(&world).live_as(Arc::clone(client)));
    }
    world.act().await;
    world.heal();
    let settled = world.until_settled().await;
    world.judge(settled)
}

impl World {
    fn start_node(self: &Arc<Self>, name: usize) {
        let id = NodeId(Uuid::from_u128((self.plan.seed as u128) << 64 | (name as u128 + 1)));
        let setup = Setup {
            journal_entries: self.plan.journal_entries,
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
            ..ChannelsConfig::default()
        };
        let parts = ChannelsParts {
            backend: started.backend,
            node: id,
            config,
            shards: vec![shard],
            runtime: tokio::runtime::Handle::current(),
        };
        let channels = Channels::new(parts, TaskTracker::new(), CancellationToken::new());
        let node = Arc::new(NodeRun {
            name,
            channels: channels.clone(),
            server: self.server.clone(),
            inside: started.inside,
            status: started.status,
            subscribers: Mutex::default(),
            tasks: Mutex::default(),
            is_gone: AtomicBool::new(false),
        });
        node.keep(&tokio::spawn(started.driver));
        if let Some(incoming) = incoming {
            node.keep(&tokio::spawn(channels.pass_on(incoming)));
        }
        let on = Arc::clone(&node);
        node.keep(&tokio::spawn(async move {
            while let Some(message) = live.recv().await {
                match message {
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
            let number = self.next_producer();
            let task = tokio::spawn(Arc::clone(self).produce(Arc::clone(&node), channel, number));
            node.keep(&task);
        }
        self.nodes.lock().push(node);
    }

    fn next_producer(&self) -> u64 {
        let mut producers = self.producers.lock();
        *producers += 1;
        *producers
    }

    /// Publishes until it is time to stop.
    async fn produce(self: Arc<Self>, node: Arc<NodeRun>, channel: ChannelName, producer: u64) {
        let mut rng = StdRng::seed_from_u64(self.plan.seed.wrapping_mul(31) + producer);
        let mut numbered = producer * NUMBERS;
        while !self.stops.is_cancelled() {
            time::sleep(Duration::from_millis(rng.random_range(1..self.plan.pause_ms))).await;
            let count = if rng.random_range(0..20) == 0 { 12 } else { rng.random_range(1..4) };
            let waits = rng.random_range(0..4) > 0;
            // What is not waited for has no order with what follows.
            let mut last = if waits { numbered } else { self.next_producer() * NUMBERS };
            let mut drafts = Vec::new();
            let mut numbers = Vec::new();
            let kind = match channel.kind() {
                ChannelKind::Zone => EntryKind::PriceUpdate,
                ChannelKind::Order => EntryKind::Submitted,
            };
            for _ in 0..count {
                last += 1;
                let key = rng.random_range(0..3);
                let time = {
                    let mut clock = self.clock.lock();
                    *clock += 1;
                    *clock
                };
                drafts.push(DraftEntry {
                    time: DateTime::from_timestamp_millis(time).unwrap(),
                    kind,
                    key: Some(format!("k{key}").into()),
                    data: Bytes::from(format!("{{\"n\":{last}}}")),
                    marks: Marks::default(),
                });
                let begun = Instant::now();
                let (channel, name) = (channel.clone(), node.name);
                let entry =
                    Published { channel, node: name, key, time, begun, accepted: None, excused: false };
                self.published.lock().insert(last, entry);
                numbers.push(last);
            }
            let fence = (self.plan.fences && channel.kind() == ChannelKind::Order).then_some(7);
            *self.under_way.lock().entry(node.name).or_insert(0) += 1;
            let publish =
                Arc::clone(&self).publish(Arc::clone(&node), channel.clone(), drafts, numbers, fence);
            if waits {
                numbered = last;
                publish.await;
            } else {
                let task = tokio::spawn(publish);
                node.keep(&task);
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
        let result = node.channels.publish_under(&channel, drafts, fence).await;
        let accepted = match &result {
            Ok(()) => numbers.len(),
            Err(error) => error.accepted(),
        };
        let name = node.name;
        self.server.say(|| format!("  n{name} published {numbers:?}: {result:?}"));
        let mut published = self.published.lock();
        for (index, number) in numbers.iter().enumerate() {
            published.get_mut(number).unwrap().accepted = Some(index < accepted);
        }
        *self.under_way.lock().entry(node.name).or_insert(0) -= 1;
    }

    /// A client: connected to some node, away for a while, on another one.
    async fn live_as(self: Arc<Self>, client: Arc<Client>) {
        let mut rng = StdRng::seed_from_u64(self.plan.seed.wrapping_mul(77) + client.name as u64);
        time::sleep(Duration::from_millis(rng.random_range(0..600))).await;
        let stays = client.name < self.plan.steady_clients;
        let mut start = if rng.random_range(0..3) == 0 { Start::Oldest } else { Start::Now };
        loop {
            let nodes: Vec<_> =
                self.nodes.lock().iter().filter(|n| !n.is_gone.load(Ordering::Acquire)).cloned().collect();
            if nodes.is_empty() {
                time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            let node = Arc::clone(&nodes[rng.random_range(0..nodes.len())]);
            let subscriber = Subscriber::new(Arc::clone(&client), Arc::clone(&node));
            node.subscribers.lock().push(Arc::clone(&subscriber));
            let task = tokio::spawn(Arc::clone(&subscriber).bring_up(start.clone()));
            let stay = if stays { 3_600_000 } else { rng.random_range(50..2_500) };
            let leaves_at = Instant::now() + Duration::from_millis(stay);
            loop {
                let is_gone = node.is_gone.load(Ordering::Acquire);
                let settles = self.settles.is_cancelled();
                if is_gone || (Instant::now() >= leaves_at && !settles) {
                    break;
                }
                time::sleep(Duration::from_millis(25)).await;
            }
            subscriber.end();
            task.abort();
            node.subscribers.lock().retain(|held| !Arc::ptr_eq(held, &subscriber));
            {
                let told = client.told.lock();
                if let (Some(position), true) = (told.position.clone(), told.since.is_some()) {
                    start = Start::After(position);
                }
            }
            let name = client.name;
            self.server.say(|| format!("  c{name} leaves, at {start:?}"));
            let away = rng.random_range(0..1_500);
            let back_at = Instant::now() + Duration::from_millis(away);
            while Instant::now() < back_at && !self.settles.is_cancelled() {
                time::sleep(Duration::from_millis(25)).await;
            }
        }
    }

    // Faults

    async fn act(self: &Arc<Self>) {
        let began = Instant::now();
        let mut saved: Option<Data> = None;
        for (at, act) in self.plan.acts.clone() {
            time::sleep_until(began + Duration::from_millis(at)).await;
            self.server.say(|| format!("{act:?}"));
            match act {
                Act::Disconnect { node, later_ms } => {
                    self.server.disconnect(node, later_ms.map(Duration::from_millis));
                }
                Act::Connect { node } => self.server.connect(node),
                Act::Stop => self.server.set_running(false),
                Act::GoOn => self.server.set_running(true),
                Act::RefuseWrites(refuses) => self.server.set_refuses_writes(refuses),
                Act::Save => saved = Some(self.server.save()),
                Act::Kill { loses, later_ms } => {
                    for node in self.running() {
                        self.server.disconnect(node, later_ms.map(Duration::from_millis));
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
                Act::Faults(faults) => self.server.set_faults(faults),
                Act::Crash { node } => self.crash(node),
                Act::StartNode { node } => self.start_node(node),
            }
        }
        time::sleep_until(began + Duration::from_millis(self.plan.ends_ms)).await;
    }

    fn running(&self) -> Vec<usize> {
        let nodes = self.nodes.lock();
        nodes.iter().filter(|node| !node.is_gone.load(Ordering::Acquire)).map(|node| node.name).collect()
    }

    fn in_log(&self) -> HashSet<u64> {
        let pages = self.plan.channels.iter().map(|channel| self.server.content(channel));
        pages.flat_map(|page| page.entries).map(|entry| number(&entry.draft.data)).collect()
    }

    fn lose(&self, data: Option<&Data>) {
        self.server.restore(data);
        let kept = self.in_log();
        let gone: HashSet<usize> = {
            let nodes = self.nodes.lock();
            nodes.iter().filter(|n| n.is_gone.load(Ordering::Acquire)).map(|n| n.name).collect()
        };
        for (number, entry) in self.published.lock().iter_mut() {
            entry.excused |= gone.contains(&entry.node) && !kept.contains(number);
        }
    }

    fn crash(&self, name: usize) {
        let Some(node) = self.nodes.lock().iter().find(|node| node.name == name).cloned() else { return };
        if node.is_gone.swap(true, Ordering::AcqRel) {
            return;
        }
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
        let (_, thinned, aged) = node.inside.journal();
        self.thinned.fetch_or(thinned > 0, Ordering::AcqRel);
        self.aged.fetch_or(aged > 0, Ordering::AcqRel);
        self.superseded.fetch_or(node.inside.superseded() > 0, Ordering::AcqRel);
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

    /// What is not as it is to be in the end.
    fn unsettled(&self) -> Option<String> {
        let waiting: i64 = self.under_way.lock().values().sum();
        if waiting > 0 {
            return Some(format!("{waiting} publishes wait"));
        }
        let nodes = self.nodes.lock().clone();
        for node in nodes.iter().filter(|node| !node.is_gone.load(Ordering::Acquire)) {
            let (name, status) = (node.name, node.status.get());
            if status.state != BackendState::Healthy {
                return Some(format!("n{name} is {:?}", status.state));
            }
            let (journal, ..) = node.inside.journal();
            if journal > 0 || !node.inside.is_in_order() {
                return Some(format!("n{name} has {journal} in its journal"));
            }
            for channel in &self.plan.channels {
                let Some(stand) = node.inside.stand(channel) else { continue };
                let page = self.server.content(channel);
                // One that nobody here follows is told of a renewed log when it is next used.
                let is_elsewhere = stand.is_followed && stand.log.is_some() && stand.log != page.epoch;
                if stand.is_forked || stand.is_suspect || is_elsewhere {
                    return Some(format!("{channel} on n{name}: {stand:?}, the log is {:?}", page.epoch));
                }
            }
            for subscriber in node.subscribers.lock().iter() {
                let page = self.server.content(subscriber.channel());
                let is_there = subscriber
                    .live_at()
                    .is_some_and(|at| Some(&at.epoch) == page.epoch.as_ref() && at.offset == page.top);
                if !is_there {
                    let (epoch, top) = (page.epoch, page.top);
                    return Some(format!(
                        "on n{name}: {}; the log is {epoch:?}:{top}",
                        subscriber.describe()
                    ));
                }
            }
        }
        let connected: usize = nodes.iter().map(|node| node.subscribers.lock().len()).sum();
        (connected < self.clients.len()).then(|| format!("{connected} clients are connected"))
    }

    async fn until_settled(&self) -> Result<Duration, String> {
        let began = Instant::now();
        loop {
            time::sleep(Duration::from_millis(50)).await;
            if began.elapsed() > Duration::from_millis(300) {
                self.settles.cancel();
            }
            let Some(unsettled) = self.unsettled() else { return Ok(began.elapsed()) };
            if began.elapsed() > SETTLES_WITHIN {
                return Err(format!("does not settle: {unsettled}"));
            }
        }
    }

    fn judge(&self, settled: Result<Duration, String>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut faults = Vec::new();
        match settled {
            Ok(took) => outcome.settled_ms = took.as_millis(),
            Err(text) => faults.push(text),
        }
        self.nodes.lock().iter().for_each(|node| self.note_counts(node));
        let [thinned, superseded, aged] =
            [&self.thinned, &self.superseded, &self.aged].map(|flag| flag.load(Ordering::Acquire));
        let published = self.published.lock();
        outcome.accepted = published.values().filter(|entry| entry.accepted == Some(true)).count();
        outcome.refused = published.values().filter(|entry| entry.accepted == Some(false)).count();
        // A newer price of the same key stands for one that was thinned.
        let is_due = |number: u64, entry: &Published, held: &dyn Fn(u64) -> bool| {
            if entry.accepted != Some(true) || entry.excused || held(number) || aged {
                return false;
            }
            let is_latest = (self.lanes)(&entry.channel) == Lane::Latest;
            let is_newer = |newer: &Published| {
                newer.channel == entry.channel && newer.key == entry.key && newer.time > entry.time
            };
            let has_newer = || published.iter().any(|(n, newer)| is_newer(newer) && held(*n));
            let is_order = entry.channel.kind() == ChannelKind::Order;
            !((thinned && is_latest && has_newer()) || (superseded && is_order))
        };
        for channel in &self.plan.channels {
            let page = self.server.content(channel);
            let mut newest: HashMap<u64, u64> = HashMap::new();
            let mut held = HashSet::new();
            for entry in &page.entries {
                let number = number(&entry.draft.data);
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
            let missing: Vec<u64> = due
                .filter(|(number, entry)| is_due(**number, entry, &|n| held.contains(&n)))
                .map(|(number, _)| *number)
                .collect();
            if !missing.is_empty() {
                faults.push(format!("accepted, and not in the log of {channel}: {missing:?}"));
            }
        }
        for client in &self.clients {
            let told = client.told.lock();
            faults.extend(told.faults.iter().take(4).cloned());
            outcome.resumed += told.resumed;
            outcome.gaps.extend(told.gaps.iter().map(|gap| format!("c{}: {gap}", client.name)));
            let Some(since) = told.since else { continue };
            let due =
                published.iter().filter(|(_, entry)| entry.channel == client.channel && entry.begun > since);
            let missing: Vec<u64> = due
                .filter(|(number, entry)| is_due(**number, entry, &|n| told.numbers.contains(&n)))
                .map(|(number, _)| *number)
                .collect();
            if !missing.is_empty() {
                faults.push(format!("c{} did not get {missing:?}", client.name));
            }
        }
        outcome.faults = faults;
        outcome
    }
}

mod tests;
