//! Channels of orders: what the log refuses, and how little remains of them. Entries with their own ids.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Channels, ChannelsConfig, ChannelsParts, Delivery, First, JoinError, Link, Live, PublishError,
    UpdateTerms,
};
use crate::model::{ChannelName, DraftEntry, EntryKind, EventType, Lane, NodeId, OrderId, new_epoch};
use crate::protocol::parse_event;
use crate::storage::redis_model::{Ages, Faults, Inside, Laws, ModelServer, Setup, Trace, Which};
use crate::storage::{MemoryBackend, MemoryConfig, RecordKind, Refusal, Retention, SharedBackend};
use crate::support::panics::Vital;

/// A node with one shard, in memory.
struct Node {
    channels: Channels,
    live: mpsc::Receiver<Delivery>,
    store: SharedBackend,
}

impl Node {
    fn new(config: ChannelsConfig) -> Self {
        let (store, _sweeping) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        Self::on(Arc::new(store), config)
    }

    /// Another node on the same storage. It learns of others' appends only by reading.
    fn on(store: SharedBackend, config: ChannelsConfig) -> Self {
        Self::with_id(NodeId::random(), store, config)
    }

    fn with_id(node: NodeId, store: SharedBackend, config: ChannelsConfig) -> Self {
        let (shard, live) = mpsc::channel(1_024);
        let parts = ChannelsParts {
            backend: Arc::clone(&store),
            node,
            config,
            shards: vec![shard],
            runtime: Handle::current(),
            vital: Vital::default(),
            accepted: None,
        };
        Self { channels: Channels::new(parts, TaskTracker::new(), CancellationToken::new()), live, store }
    }

    /// A node that shares a model of Redis, and the node's inside; its tasks end with `driver`.
    fn sharing(
        server: &ModelServer,
        name: usize,
        config: ChannelsConfig,
        driver: &mut JoinSet<()>,
    ) -> (Self, Inside) {
        let setup = Setup {
            journal_entries: 100_000,
            order_updates: 10_000,
            starts_degraded: false,
            ordering_deadline: Duration::from_secs(10),
        };
        let id = NodeId::random();
        let started = server.start(name, id, setup, Arc::new(|_| Lane::Every));
        driver.spawn(started.driver);
        (Self::with_id(id, started.backend, config), started.inside)
    }

    /// The kinds of the entries in the log, in order.
    async fn log(&self, channel: &ChannelName) -> Vec<String> {
        let page = self.store.read_after(channel, None, 1_000).await.unwrap();
        page.entries.iter().map(|entry| entry.draft.kind.as_str().to_owned()).collect()
    }

    /// The next message to the shard.
    async fn next(&mut self) -> Option<Live> {
        self.live.recv().await.map(|delivery| delivery.live)
    }

    /// The next batch: the offset of its first entry, how many there are, and whether the log ends there.
    async fn batch(&mut self) -> (u64, usize, bool) {
        match self.next().await {
            Some(Live::Batch(batch)) => (batch.first, batch.len(), batch.is_last_of_log),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until no channel has an actor any more; with a stopped clock that takes no real time.
    async fn until_idle(&self) -> Duration {
        let begun = time::Instant::now();
        while self.channels.active() > 0 {
            time::sleep(Duration::from_millis(50)).await;
        }
        begun.elapsed()
    }
}

fn model_server() -> ModelServer {
    ModelServer::new(7, Faults::default(), Laws::default(), Ages::default(), Trace::Off)
}

fn update(kind: EntryKind) -> DraftEntry {
    DraftEntry { kind, key: Some("order".into()), ..DraftEntry::price(0, "{}") }
}

fn updates(kinds: &[EntryKind]) -> Vec<DraftEntry> {
    kinds.iter().map(|kind| update(kind.clone())).collect()
}

fn order() -> ChannelName {
    ChannelName::order(OrderId::random())
}

use EntryKind::{Building, Confirmed, Failed, Routing, Submitted};

#[tokio::test(start_paused = true)]
async fn nothing_follows_a_terminal_update_and_its_publisher_is_told() {
    let mut node = Node::new(ChannelsConfig::default());
    let (channels, channel) = (node.channels.clone(), order());
    channels.join(&channel, 0).await.unwrap();
    channels.publish(&channel, updates(&[Routing, Building])).await.unwrap();
    let refused = channels.publish(&channel, updates(&[Confirmed, Failed, Routing])).await.unwrap_err();
    assert!(
        matches!(refused, PublishError::Refused { accepted: 1, refusal: Refusal::Closed }),
        "{refused:?}"
    );
    let refused = channels.publish(&channel, updates(&[Failed])).await.unwrap_err();
    assert!(matches!(refused, PublishError::Refused { accepted: 0, refusal: Refusal::Closed }));
    assert_eq!(node.log(&channel).await, ["routing", "building", "confirmed"]);
    assert_eq!(node.batch().await, (1, 2, false));
    assert_eq!(node.batch().await, (3, 1, true));
    let stats = channels.stats();
    assert_eq!(
        (
            stats.entries_accepted.get(),
            stats.entries_refused_by_reason.order_ended.get(),
            stats.storage_retries.get()
        ),
        (3, 3, 0)
    );
    assert_eq!(stats.epoch_changes.get(), 0, "a gap behind a refused update is not a log put back");
}

#[tokio::test(start_paused = true)]
async fn what_is_only_to_begin_a_log_is_refused_if_the_log_has_entries() {
    let one = Node::new(ChannelsConfig { append_batch_entries: 2, ..ChannelsConfig::default() });
    let other = Node::on(Arc::clone(&one.store), ChannelsConfig::default());
    let channel = order();
    let publish = async |node: &Node, kinds: &[EntryKind], first: First| {
        let terms = UpdateTerms { fence: Some(7), first };
        node.channels.publish_updates(&channel, updates(kinds), terms).await
    };
    // One request in several batches is the first one as a whole.
    publish(&one, &[Routing, Building, Building, Submitted], First::Only).await.unwrap();
    for node in [&one, &other] {
        for _ in 0..2 {
            let refused = publish(node, &[Routing, Submitted], First::Only).await;
            assert!(matches!(refused, Err(PublishError::NotFirst)), "{refused:?}");
        }
        publish(node, &[Submitted], First::Likely).await.unwrap();
    }
    publish(&one, &[Confirmed], First::No).await.unwrap();
    let all = ["routing", "building", "building", "submitted", "submitted", "submitted", "confirmed"];
    assert_eq!(one.log(&channel).await, all);
    // A log without entries may be there already.
    let (store, channel) = (&one.store, order());
    store.open(&channel, NodeId::random(), &new_epoch()).await.unwrap();
    let terms = UpdateTerms { fence: None, first: First::Only };
    other.channels.publish_updates(&channel, updates(&[Routing]), terms).await.unwrap();
    assert_eq!(one.log(&channel).await, ["routing"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_refused_and_the_chain_goes_on_behind_it() {
    let node = Node::new(ChannelsConfig::default());
    let (channels, channel) = (&node.channels, order());
    channels.publish_under(&channel, updates(&[Routing]), Some(7)).await.unwrap();
    let state = node.store.state(&channel, NodeId::random()).await.unwrap();
    let refused = channels.publish_under(&channel, updates(&[Building, Submitted]), Some(6)).await;
    let Err(PublishError::Refused { accepted: 0, refusal }) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal, Refusal::StaleFence { fence: 6, newest: 7 });
    channels.publish_under(&channel, updates(&[Building]), Some(8)).await.unwrap();
    channels.publish(&channel, updates(&[Confirmed])).await.unwrap();
    assert_eq!(node.log(&channel).await, ["routing", "building", "confirmed"]);
    assert_eq!(node.store.state(&channel, NodeId::random()).await.unwrap().epoch, state.epoch);
    assert_eq!(channels.stats().entries_refused_by_reason.stale_lease.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_together_are_judged_each_on_its_own() {
    let node = Node::new(ChannelsConfig::default());
    let channel = order();
    node.channels.publish_under(&channel, updates(&[Routing]), Some(5)).await.unwrap();
    // All are in the queue before the actor takes the first.
    let requests = [(4, Building), (5, Building), (3, Submitted), (6, Submitted), (5, Failed)]
        .map(|(fence, kind)| node.channels.publish_under(&channel, updates(&[kind]), Some(fence)));
    let results: Vec<bool> =
        futures_util::future::join_all(requests).await.iter().map(Result::is_ok).collect();
    assert_eq!(results, [false, true, false, true, false]);
    assert_eq!(node.log(&channel).await, ["routing", "building", "submitted"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_request_is_appended_in_batches_up_to_what_is_refused() {
    let node = Node::new(ChannelsConfig { append_batch_entries: 2, ..ChannelsConfig::default() });
    let channel = order();
    let kinds = [Routing, Routing, Routing, Routing, Confirmed, Failed, Failed];
    let refused = node.channels.publish(&channel, updates(&kinds)).await.unwrap_err();
    assert_eq!(refused.accepted(), 5);
    assert_eq!(node.log(&channel).await.len(), 5);
    assert_eq!(node.channels.stats().entries_accepted.get(), 5);
}

#[tokio::test(start_paused = true)]
async fn orders_are_no_zones_and_are_let_go_soon() {
    let node = Node::new(ChannelsConfig { zones_max: 1, keys_per_zone_max: 1, ..ChannelsConfig::default() });
    let channels = &node.channels;
    for _ in 0..20 {
        let (channel, mut keyed) = (order(), updates(&[Routing, Building]));
        keyed[1].key = Some("another".into());
        channels.publish(&channel, keyed).await.unwrap();
    }
    assert_eq!(channels.zones().await.unwrap(), []);
    assert_eq!(node.store.list(RecordKind::Zone, None, 10).await.unwrap(), []);
    let kept = node.until_idle().await;
    assert!(kept < Duration::from_secs(3), "{kept:?}, and a zone stays for a minute");
    let zone = "zone:pjm".parse().unwrap();
    channels.publish(&zone, vec![update(EntryKind::PriceUpdate)]).await.unwrap();
    assert!(node.until_idle().await > Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_is_watched_stays() {
    let mut node = Node::new(ChannelsConfig::default());
    let (channels, channel) = (node.channels.clone(), order());
    channels.join(&channel, 0).await.unwrap();
    time::sleep(Duration::from_secs(600)).await;
    assert_eq!(channels.active(), 1);
    channels.publish(&channel, updates(&[Routing])).await.unwrap();
    assert_eq!(node.batch().await, (1, 1, false));
    channels.leave(&channel, 0).await;
    node.until_idle().await;
    // Its successor continues the chain.
    channels.publish(&channel, updates(&[Building, Confirmed])).await.unwrap();
    assert_eq!(node.log(&channel).await, ["routing", "building", "confirmed"]);
}

#[tokio::test(start_paused = true)]
async fn watchers_are_bounded_and_publishers_never_suffer_from_them() {
    let node = Node::new(ChannelsConfig { zones_max: 2, ..ChannelsConfig::default() });
    let channels = &node.channels;
    let published = order();
    for channel in [&published, &order(), &order(), &order(), &order(), &order()] {
        channels.publish(channel, updates(&[Routing])).await.unwrap();
    }
    // A published order does not count, even if somebody watches it.
    channels.join(&published, 0).await.unwrap();
    let watched: Vec<ChannelName> = std::iter::repeat_with(order).take(4).collect();
    for channel in &watched {
        channels.join(channel, 0).await.unwrap();
    }
    let refused = channels.join(&order(), 0).await.unwrap_err();
    assert!(matches!(refused, JoinError::TooManyChannels(4)), "{refused:?}");
    channels.join(&watched[0], 0).await.unwrap();
    channels.join(&"zone:pjm".parse().unwrap(), 0).await.unwrap();
    channels.publish(&order(), updates(&[Routing])).await.unwrap();
    channels.publish(&watched[0], updates(&[Routing])).await.unwrap();

    // There is room again once nobody watches.
    for channel in &watched {
        channels.leave(channel, 0).await;
    }
    channels.leave(&published, 0).await;
    channels.leave(&"zone:pjm".parse().unwrap(), 0).await;
    node.until_idle().await;
    for _ in 0..4 {
        channels.join(&order(), 0).await.unwrap();
    }
    channels.join(&order(), 0).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn updates_that_left_the_log_unseen_are_told_of_though_nothing_follows() {
    let mut watching = Node::new(ChannelsConfig::default());
    let elsewhere = Node::on(Arc::clone(&watching.store), ChannelsConfig::default());
    let (channels, channel) = (watching.channels.clone(), order());
    channels.join(&channel, 0).await.unwrap();
    // This node does not learn of it, as after a long separation from Redis.
    elsewhere.channels.publish(&channel, updates(&[Routing, Confirmed])).await.unwrap();
    time::sleep(Duration::from_secs(301)).await;
    channels.suspect(&channel);
    let Some(Live::Moved(moved)) = watching.next().await else { panic!("the log began unseen") };
    assert_eq!((moved.transition.to.offset, moved.transition.whole), (0, true));
    let Some(Live::Skipped { offset, .. }) = watching.next().await else { panic!("not told") };
    assert_eq!(offset, 2);
    assert_eq!(channels.stats().entries_missed.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn zones_that_come_at_the_same_time_are_counted() {
    let (server, mut driver) = (model_server(), JoinSet::new());
    let config = ChannelsConfig { zones_max: 3, ..ChannelsConfig::default() };
    let (node, _inside) = Node::sharing(&server, 0, config, &mut driver);
    let zones: Vec<ChannelName> = (0..10).map(|n| format!("zone:z{n}").parse().unwrap()).collect();
    // Recording each zone takes a while.
    let publishes = zones.iter().map(|zone| node.channels.publish(zone, updates(&[EntryKind::PriceUpdate])));
    let results = futures_util::future::join_all(publishes).await;
    let refused =
        results.iter().filter(|result| matches!(result, Err(PublishError::TooManyZones { max: 3 })));
    assert_eq!((refused.count(), results.iter().filter(|result| result.is_ok()).count()), (7, 3));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_published_to_without_a_pause_comes_back_all_the_same() {
    let (server, mut driver) = (model_server(), JoinSet::new());
    let (node, inside) = Node::sharing(&server, 0, ChannelsConfig::default(), &mut driver);
    let channels = &node.channels;
    let zone: ChannelName = "zone:busy".parse().unwrap();
    channels.publish(&zone, updates(&[EntryKind::PriceUpdate])).await.unwrap();
    server.disconnect(0, Which::Both, None);
    let is_forked = || inside.stand(&zone).is_some_and(|stand| stand.is_forked);
    let (mut accepted, mut has_forked, begun) = (1, false, time::Instant::now());
    loop {
        // Faster than reading the log.
        channels.publish(&zone, updates(&[EntryKind::PriceUpdate])).await.unwrap();
        accepted += 1;
        time::sleep(Duration::from_micros(300)).await;
        has_forked |= is_forked();
        if accepted == 50 {
            server.connect(0);
        }
        if has_forked && !is_forked() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it never comes back");
    }
    let page = server.content(&zone);
    assert!(page.top >= accepted - 1 && inside.totals().lines.rejoins == 1, "{} of {accepted}", page.top);
}

fn trades() -> ChannelName {
    ChannelName::event(EventType::Trade)
}

/// The producer of an exchange's trades.
fn exchange() -> NodeId {
    NodeId(uuid::Uuid::from_u128(5))
}

fn trade() -> DraftEntry {
    let json = r#"{"exchange":"x","symbol":"A-B","price":"1","size":"1"}"#;
    parse_event(EventType::Trade, json, Utc::now(), Duration::MAX).unwrap()
}

impl Node {
    /// Publishes trades with these numbers, each linked to the previous one.
    async fn publish_trades(&self, seqs: std::ops::RangeInclusive<u64>) -> Result<(), PublishError> {
        let drafts = seqs.map(|seq| (trade(), Link { seq, prev: seq - 1 })).collect();
        self.channels.publish_as(&trades(), exchange(), drafts).await
    }

    /// Retries until the log has them.
    async fn publish_trades_at_last(&self, seqs: std::ops::RangeInclusive<u64>) {
        let begun = time::Instant::now();
        while let Err(error) = self.publish_trades(seqs.clone()).await {
            assert!(begun.elapsed() < Duration::from_secs(60), "{error:?}");
            time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The numbers of the exchange's trades in a log, in order.
fn numbers(page: &crate::storage::Page) -> Vec<u64> {
    page.entries.iter().filter(|entry| entry.id.producer == exchange()).map(|entry| entry.id.seq).collect()
}

#[tokio::test(start_paused = true)]
async fn whoever_appends_what_has_an_id_and_however_often_it_is_there_once() {
    let mut one = Node::new(ChannelsConfig { append_batch_entries: 2, ..ChannelsConfig::default() });
    let other = Node::on(Arc::clone(&one.store), ChannelsConfig::default());
    one.channels.join(&trades(), 0).await.unwrap();
    one.publish_trades(1..=5).await.unwrap();
    // This node's own entries follow, in their own chain.
    one.channels.publish(&trades(), vec![trade()]).await.unwrap();
    other.publish_trades(4..=7).await.unwrap();
    // Late, and partly repeated.
    one.publish_trades(5..=8).await.unwrap();
    one.channels.publish(&trades(), vec![trade(), trade()]).await.unwrap();
    let gap = one.publish_trades(11..=12).await.unwrap_err();
    assert!(matches!(gap, PublishError::Gap { accepted: 0 }), "{gap:?}");
    // A publisher that does not know what precedes publishes what it has.
    let unknown = vec![(trade(), Link { seq: 11, prev: 0 })];
    other.channels.publish_as(&trades(), exchange(), unknown).await.unwrap();
    let page = one.store.read_after(&trades(), None, 1_000).await.unwrap();
    assert_eq!(numbers(&page), [1, 2, 3, 4, 5, 6, 7, 8, 11]);
    assert_eq!(page.entries.len(), 12);
    for expected in [(1, 2), (3, 2), (5, 1), (6, 1)] {
        let (first, count, _) = one.batch().await;
        assert_eq!((first, count), expected, "as the log has answered");
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_an_id_waits_for_the_log_and_is_there_once_whoever_was_cut_off() {
    let (server, mut driver) = (model_server(), JoinSet::new());
    let [one, other] =
        [0, 1].map(|name| Node::sharing(&server, name, ChannelsConfig::default(), &mut driver).0);
    one.channels.join(&trades(), 0).await.unwrap();
    one.publish_trades_at_last(1..=5).await;
    server.disconnect(0, Which::Both, None);
    let own = || vec![trade()];
    // Other entries continue in a fork; these need the log.
    one.channels.publish(&trades(), own()).await.unwrap();
    let refused = one.publish_trades(6..=9).await.unwrap_err();
    assert!(matches!(&refused, PublishError::Unavailable { accepted: 0, cause } if cause.is_outage()));
    other.publish_trades_at_last(4..=8).await;
    one.channels.publish(&trades(), own()).await.unwrap();
    server.connect(0);
    one.publish_trades_at_last(6..=10).await;
    one.channels.publish(&trades(), own()).await.unwrap();
    let page = server.content(&trades());
    assert_eq!(numbers(&page), (1..=10).collect::<Vec<_>>());
    assert_eq!(page.entries.len(), 13);
}

#[tokio::test(start_paused = true)]
async fn what_has_an_id_is_put_back_where_the_log_lost_it() {
    for (is_noticed, keeps_some) in [(true, false), (true, true), (false, false), (false, true)] {
        let (server, mut driver) = (model_server(), JoinSet::new());
        let (one, _inside) = Node::sharing(&server, 0, ChannelsConfig::default(), &mut driver);
        one.publish_trades_at_last(1..=60).await;
        let older = server.save();
        one.publish_trades_at_last(61..=90).await;
        if is_noticed {
            server.disconnect(0, Which::Both, None);
        }
        server.restore(keeps_some.then_some(&older));
        if is_noticed {
            server.connect(0);
        }
        // Nothing of the refused request comes later.
        one.publish_trades_at_last(91..=95).await;
        let page = server.content(&trades());
        assert_eq!(numbers(&page), (1..=95).collect::<Vec<_>>(), "{is_noticed} {keeps_some}");
    }
}
