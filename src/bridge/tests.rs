//! Gateways that exchange events over a model of pub/sub, which loses what is published while a link is down.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::channels::{ChannelsConfig, ChannelsParts};
use crate::model::{ChannelName, EntryKind};
use crate::protocol::parse_event;
use crate::storage::{
    MemoryBackend, Outgoing, OwnLogs, PubSubEvent, PubSubHealth, Result as StorageResult, StorageError,
};
use crate::support::panics::Vital;

/// All links to one server, indexed by node number.
#[derive(Debug, Default)]
struct Broker(Mutex<Vec<Link>>);

#[derive(Debug)]
struct Link {
    follows: HashSet<String>,
    events: mpsc::Sender<PubSubEvent>,
    /// Whether what this node publishes reaches the server.
    publishes: bool,
    /// Whether what the server has reaches this node.
    hears: bool,
}

#[derive(Debug)]
struct ModelPubSub {
    broker: Arc<Broker>,
    number: usize,
    incoming: Mutex<Option<mpsc::Receiver<PubSubEvent>>>,
}

impl Link {
    fn tell(&self, event: PubSubEvent) {
        let told = self.events.try_send(event);
        assert!(
            !matches!(told, Err(mpsc::error::TrySendError::Full(_))),
            "a node that has stopped listens no more"
        );
    }
}

impl Broker {
    fn link(self: &Arc<Self>) -> Arc<ModelPubSub> {
        let (events, incoming) = mpsc::channel(100_000);
        let mut links = self.0.lock();
        links.push(Link { follows: HashSet::new(), events, publishes: true, hears: true });
        let (broker, number) = (Arc::clone(self), links.len() - 1);
        Arc::new(ModelPubSub { broker, number, incoming: Mutex::new(Some(incoming)) })
    }

    fn publish(&self, channel: &str, message: &Bytes) {
        for link in self.0.lock().iter().filter(|link| link.hears && link.follows.contains(channel)) {
            let (channel, message) = (channel.into(), message.clone());
            link.tell(PubSubEvent::Heard { channel, message });
        }
    }

    /// Cuts or heals a node's link; when it hears again, it reports that messages may be missing.
    fn set(&self, number: usize, publishes: bool, hears: bool) {
        let link = &mut self.0.lock()[number];
        if hears && !link.hears {
            link.tell(PubSubEvent::Suspect);
        }
        (link.publishes, link.hears) = (publishes, hears);
    }

    /// How many nodes follow a channel.
    fn followers(&self, channel: &str) -> usize {
        self.0.lock().iter().filter(|link| link.follows.contains(channel)).count()
    }
}

#[async_trait]
impl PubSub for ModelPubSub {
    async fn follow(&self, channel: &str) -> StorageResult<()> {
        let link = &mut self.broker.0.lock()[self.number];
        if !link.hears {
            return Err(StorageError::Unknown { op: "follow" });
        }
        link.follows.insert(channel.to_owned());
        Ok(())
    }

    async fn unfollow(&self, channel: &str) -> StorageResult<()> {
        self.broker.0.lock()[self.number].follows.remove(channel);
        Ok(())
    }

    async fn publish(&self, messages: &[Outgoing]) -> Vec<StorageResult<()>> {
        messages.iter().for_each(|Outgoing { channel, message }| self.broker.publish(channel, message));
        messages.iter().map(|_| Ok(())).collect()
    }

    fn health(&self) -> PubSubHealth {
        let link = &self.broker.0.lock()[self.number];
        PubSubHealth { publishes: link.publishes, hears: link.hears, losses: 0 }
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<PubSubEvent>> {
        self.incoming.lock().take()
    }
}

struct Node {
    id: NodeId,
    bridge: Bridge,
    channels: Channels,
    own: MemoryBackend,
    shared: MemoryBackend,
    stop: CancellationToken,
    running: JoinSet<()>,
    _live: mpsc::Receiver<crate::channels::Delivery>,
}

fn memory() -> MemoryBackend {
    MemoryBackend::new(Default::default(), Default::default()).0
}

impl Node {
    fn new(broker: &Arc<Broker>, shared: &MemoryBackend, config: BridgeConfig) -> Self {
        let config = BridgeConfig { enabled: true, ..config };
        let (id, own, stop) = (NodeId::random(), memory(), CancellationToken::new());
        let link = PubSubLink { pubsub: broker.link(), driver: Box::pin(future::pending()) };
        let of_logs = config.clone();
        let is_own = Arc::new(move |channel: &ChannelName| of_logs.is_own_log(channel));
        let backend = Arc::new(OwnLogs::new(Arc::new(shared.clone()), own.clone(), is_own));
        let (bridge, work) = Bridge::new(BridgeParts {
            config,
            backend: Arc::clone(&backend) as SharedBackend,
            link: Some(link),
            node: id,
            message_bytes_max: 1 << 16,
        });
        let (shard, live) = mpsc::channel(1_024);
        let parts = ChannelsParts {
            backend,
            node: id,
            config: ChannelsConfig::default(),
            shards: vec![shard],
            runtime: Handle::current(),
            vital: Vital::default(),
            accepted: Some(bridge.tell_accepted()),
        };
        let channels = Channels::new(parts, TaskTracker::new(), stop.clone());
        let mut running = JoinSet::new();
        running.spawn(work.unwrap().exchange.run(channels.clone(), stop.clone()));
        Self { id, bridge, channels, own, shared: shared.clone(), stop, running, _live: live }
    }

    /// Has an operator subscribe to a type whether or not anybody follows it.
    fn always(self, event: EventType) -> Self {
        assert!(self.bridge.set_mode(event, SubscriptionMode::Always));
        self
    }

    async fn publish(&self, event: EventType, text: &Value) {
        let draft = parse_event(event, &text.to_string(), chrono::Utc::now(), Duration::MAX).unwrap();
        self.channels.publish(&ChannelName::event(event), vec![draft]).await.unwrap();
    }

    /// Everything in this node's log of a type: kinds and data.
    async fn log(&self, event: EventType) -> Vec<(EntryKind, Value)> {
        use crate::storage::Log as _;
        let of = if self.bridge.0.config.is_durable(event) { &self.shared } else { &self.own };
        let page = of.read_after(&ChannelName::event(event), None, 100_000).await.unwrap();
        let data = |payload: &Bytes| serde_json::from_slice::<Value>(payload).unwrap()["data"].take();
        page.entries.iter().map(|entry| (entry.draft.kind.clone(), data(&entry.draft.data))).collect()
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.running.join_next().await.unwrap().unwrap();
    }
}

fn ticker(by: usize, number: u64) -> Value {
    json!({ "exchange": format!("e{by}"), "symbol": "A-B", "price": number })
}

/// What a node's log says of the others: each exchange's numbers, how many are missing of each source, and
/// how often some may be.
async fn read(node: &Node) -> (BTreeMap<String, Vec<u64>>, BTreeMap<String, u64>, usize) {
    let (mut numbers, mut missing, mut perhaps): (BTreeMap<_, Vec<u64>>, BTreeMap<_, u64>, _) =
        Default::default();
    for (kind, data) in node.log(EventType::Ticker).await {
        match (kind, data["source"].as_str()) {
            (EntryKind::Missed, Some(source)) => {
                *missing.entry(source.to_owned()).or_default() += data["count"].as_u64().unwrap();
            }
            (EntryKind::Missed, None) => perhaps += 1,
            _ => {
                let exchange = data["exchange"].as_str().unwrap().to_owned();
                numbers.entry(exchange).or_default().push(data["price"].as_u64().unwrap());
            }
        }
    }
    (numbers, missing, perhaps)
}

/// Three gateways whose links go down and come back, and events in between: each event of another gateway
/// arrives once and in order, or is reported missing; a gateway's own events are always there.
#[tokio::test(start_paused = true)]
async fn each_live_event_of_another_gateway_arrives_once_or_is_reported_missing() {
    let (mut came_in_all, mut missed_in_all) = (0, 0);
    for seed in 0..60 {
        let mut chance = StdRng::seed_from_u64(seed);
        let (broker, shared) = (Arc::new(Broker::default()), memory());
        let nodes: Vec<Node> = (0..3)
            .map(|_| Node::new(&broker, &shared, BridgeConfig::default()).always(EventType::Ticker))
            .collect();
        // Wait until all have heard of each other.
        time::sleep(Duration::from_secs(7)).await;
        let mut published = [0_u64; 3];
        for _ in 0..chance.random_range(1..150) {
            let which = chance.random_range(0..3);
            match chance.random_range(0..10) {
                0 => broker.set(which, chance.random(), chance.random()),
                1 => time::sleep(Duration::from_millis(chance.random_range(1..2_000))).await,
                _ => {
                    published[which] += 1;
                    nodes[which].publish(EventType::Ticker, &ticker(which, published[which])).await;
                    time::sleep(Duration::from_millis(chance.random_range(0..20))).await;
                }
            }
        }
        (0..3).for_each(|which| broker.set(which, true, true));
        time::sleep(Duration::from_secs(7)).await;
        for (place, node) in nodes.iter().enumerate() {
            let (numbers, missing, _) = read(node).await;
            for (which, other) in nodes.iter().enumerate() {
                let came = numbers.get(&format!("e{which}")).map_or(&[][..], Vec::as_slice);
                assert!(came.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: {came:?}");
                let missed = missing.get(&other.id.0.as_hyphenated().to_string()).copied().unwrap_or(0);
                assert_eq!(
                    came.len() as u64 + missed,
                    published[which],
                    "seed {seed}, at {place} of {which}"
                );
                assert!(place != which || missed == 0, "seed {seed}: a node never misses its own events");
                came_in_all += came.len();
                missed_in_all += missed;
            }
            let counts = node.bridge.read();
            assert_eq!(counts.missed["ticker"], missing.values().sum::<u64>(), "seed {seed}");
        }
        for node in nodes {
            node.stop().await;
        }
    }
    assert!(came_in_all > 5_000 && missed_in_all > 500, "{came_in_all} arrived, {missed_in_all} did not");
}

#[tokio::test(start_paused = true)]
async fn an_outage_does_not_stop_local_events_and_the_missed_ones_are_counted() {
    let (broker, shared) = (Arc::new(Broker::default()), memory());
    let [a, b] =
        [(); 2].map(|()| Node::new(&broker, &shared, BridgeConfig::default()).always(EventType::Ticker));
    time::sleep(Duration::from_secs(2)).await;
    a.publish(EventType::Ticker, &ticker(0, 1)).await;
    time::sleep(Duration::from_millis(10)).await;
    (0..2).for_each(|which| broker.set(which, false, false));
    for n in 2..=13 {
        a.publish(EventType::Ticker, &ticker(0, n)).await;
    }
    assert_eq!(a.log(EventType::Ticker).await.len(), 13, "at once");
    time::sleep(Duration::from_secs(10)).await;
    (0..2).for_each(|which| broker.set(which, true, true));
    time::sleep(Duration::from_secs(2)).await;
    a.publish(EventType::Ticker, &ticker(0, 14)).await;
    time::sleep(Duration::from_millis(10)).await;
    let kinds: Vec<String> =
        b.log(EventType::Ticker).await.iter().map(|(kind, _)| kind.as_str().to_owned()).collect();
    // Other processes, which do not number their events, may have published some too.
    assert_eq!(kinds, ["ticker", "missed", "missed", "ticker"]);
    let (_, missing, perhaps) = read(&b).await;
    assert_eq!((missing.values().copied().collect::<Vec<_>>(), perhaps), (vec![12], 1));
    let (of_a, of_b) = (a.bridge.read(), b.bridge.read());
    assert_eq!((of_a.published["ticker"], of_a.redis_away["ticker"]), (2, 12));
    assert_eq!((of_b.received["ticker"], of_b.missed["ticker"]), (2, 12));
    assert_eq!(of_b.lag.buckets.iter().sum::<u64>(), 2);
    let source = &b.bridge.subscriptions().sources[0];
    assert_eq!(source.types["ticker"], SourceCounts { published: 14, received: 2, missed: 12 });
    assert!(of_a.own["ticker"] > 0, "a node hears its own messages and ignores them");
}

#[tokio::test(start_paused = true)]
async fn a_type_that_nobody_follows_is_not_subscribed_to() {
    let (broker, shared) = (Arc::new(Broker::default()), memory());
    let node = Node::new(&broker, &shared, BridgeConfig::default());
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(broker.followers("ws:ticker"), 0);
    // The only gateway holds the lease for durable events.
    assert_eq!((broker.followers("ws:trade"), node.bridge.read().takes_in), (1, 1));
    let channel: ChannelName = "event:ticker:x:A-B".parse().unwrap();
    node.channels.join(&channel, 0).await.unwrap();
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(broker.followers("ws:ticker"), 1, "following a view is following its type");
    node.channels.leave(&channel, 0).await;
    time::sleep(Duration::from_secs(20)).await;
    assert_eq!(broker.followers("ws:ticker"), 1, "clients come back");
    time::sleep(Duration::from_secs(20)).await;
    assert_eq!(broker.followers("ws:ticker"), 0);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn durable_events_of_others_are_appended_by_one_gateway_once_per_id() {
    let (broker, shared) = (Arc::new(Broker::default()), memory());
    let [a, b] = [(); 2].map(|()| Node::new(&broker, &shared, BridgeConfig::default()));
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(broker.followers("ws:trade"), 1);
    let trade = |n: u64| {
        let data = json!({ "id": n, "exchange": "x", "symbol": "A-B", "price": "1.0", "size": n });
        Bytes::from(json!({ "type": "trade", "data": data, "source": "api", "timestamp": 1 }).to_string())
    };
    let without_id = Bytes::from(
        json!({ "data": { "exchange": "x", "symbol": "A-B", "price": 2, "size": 1 } }).to_string(),
    );
    for n in 1..=120 {
        broker.publish("ws:trade", &trade(n));
        broker.publish("ws:trade", &trade(n));
    }
    broker.publish("ws:trade", &without_id);
    broker.publish("ws:trade", &without_id);
    time::sleep(Duration::from_secs(1)).await;
    // A gateway's own durable events are published for other processes only.
    a.publish(EventType::Trade, &json!({ "exchange": "x", "symbol": "C-D", "price": 1, "size": 1 })).await;
    time::sleep(Duration::from_secs(1)).await;
    let (one, other) = if a.bridge.read().takes_in == 1 { (a, b) } else { (b, a) };
    let counts = one.bridge.read();
    assert_eq!((counts.taken_in["trade"], counts.taken_in_before["trade"]), (122, 120));
    assert_eq!(other.bridge.read().takes_in, 0);
    one.stop().await;
    // The other gateway takes over, and knows what the log has.
    time::sleep(Duration::from_secs(6)).await;
    assert_eq!((broker.followers("ws:trade") >= 1, other.bridge.read().takes_in), (true, 1));
    (100..=130).for_each(|n| broker.publish("ws:trade", &trade(n)));
    time::sleep(Duration::from_secs(1)).await;
    let log = other.log(EventType::Trade).await;
    let ids: Vec<u64> = log.iter().filter_map(|(_, data)| data["tradeId"].as_u64()).collect();
    assert_eq!(ids, (1..=130).collect::<Vec<_>>());
    assert_eq!(log.len(), 130 + 2 + 1);
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_no_events_are_counted_and_skipped() {
    let (broker, shared) = (Arc::new(Broker::default()), memory());
    let node = Node::new(&broker, &shared, BridgeConfig::default()).always(EventType::Ticker);
    time::sleep(Duration::from_secs(1)).await;
    let other = NodeId::random();
    let of_gateway = |sequence: Value| {
        let data = ticker(0, 1);
        json!({ "data": data, "source": other.0.to_string(), "zonewire": { "sequence": sequence } })
            .to_string()
    };
    for message in [
        "x".to_owned(),
        json!({ "type": "trade", "data": ticker(0, 1) }).to_string(),
        json!({ "data": { "exchange": "e" } }).to_string(),
        json!({ "data": ticker(0, 1), "more": "x".repeat(1 << 16) }).to_string(),
        // From a gateway for which tickers are durable.
        of_gateway(Value::Null),
        of_gateway(json!(7)),
        of_gateway(json!(7)),
        json!({ "data": ticker(0, 2), "source": ["any", "json"] }).to_string(),
    ] {
        broker.publish("ws:ticker", &Bytes::from(message));
    }
    time::sleep(Duration::from_secs(1)).await;
    let counts = node.bridge.read();
    let of = |map: &BTreeMap<String, u64>| map["ticker"];
    assert_eq!((of(&counts.invalid), of(&counts.other_delivery), of(&counts.stale)), (4, 1, 1));
    assert_eq!((of(&counts.received), node.log(EventType::Ticker).await.len()), (2, 2));
    assert_eq!(node.bridge.exchanges()["e0"]["ticker"], 2);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_does_what_its_role_says() {
    let (broker, shared) = (Arc::new(Broker::default()), memory());
    let of = |role| Node::new(&broker, &shared, BridgeConfig { role, ..BridgeConfig::default() });
    let (publishes, subscribes) =
        (of(BridgeRole::Publish), of(BridgeRole::Subscribe).always(EventType::Ticker));
    assert!(!publishes.bridge.set_mode(EventType::Ticker, SubscriptionMode::Always));
    time::sleep(Duration::from_secs(1)).await;
    publishes.publish(EventType::Ticker, &ticker(0, 1)).await;
    subscribes.publish(EventType::Ticker, &ticker(1, 1)).await;
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(publishes.log(EventType::Ticker).await.len(), 1);
    assert_eq!(subscribes.log(EventType::Ticker).await.len(), 2);
    let counts = subscribes.bridge.read();
    assert_eq!((counts.published_events, counts.received_events, counts.waiting), (0, 1, 0));
}
