//! A Redis backend that is created before Redis runs, reports lost connections at once, and whose health
//! probes detect lost data.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;
use zonewire::model::NodeId;
use zonewire::storage::{
    Beat, LinkHealth, Log as _, LogEvent, Lost, RedisBackend, RedisConfig, Retention, StorageBackend as _,
    StorageError,
};
use zonewire_kit::proxy::{Mode, Proxy};
use zonewire_kit::redis::{Data, RedisServer};
use zonewire_kit::resp::Reply;

use crate::support::eventually::{eventually, until};
use crate::support::redis::{Admin, Configured, nowhere, redis};
use crate::support::stores::{Producer, channel, next_event, offsets};

/// Far more than anything here takes, even on a machine that stalls for a while.
const PATIENCE: Duration = Duration::from_secs(30);

/// A backend that need not be connected yet, its driver, and the health of its connections.
struct Node {
    backend: std::sync::Arc<RedisBackend>,
    health: watch::Receiver<LinkHealth>,
    id: NodeId,
    _driver: JoinSet<()>,
}

impl Node {
    fn new(config: &RedisConfig) -> Self {
        let (backend, driver) = RedisBackend::new(config, Retention::default()).unwrap();
        let mut running = JoinSet::new();
        running.spawn(driver);
        let health = backend.link_health();
        Self { backend: backend.into(), health, id: NodeId::random(), _driver: running }
    }

    async fn connected_to(server: &RedisServer) -> Self {
        let mut node = Self::new(&server.config());
        node.until_up().await;
        node
    }

    /// The same after its first health probe.
    async fn known_to(server: &RedisServer) -> Self {
        let node = Self::connected_to(server).await;
        assert_eq!(node.answered_beat().await, Beat::First);
        node
    }

    async fn until(&mut self, what: &str, is: impl FnMut(&LinkHealth) -> bool) -> LinkHealth {
        let seen = time::timeout(PATIENCE, self.health.wait_for(is)).await;
        seen.unwrap_or_else(|_| panic!("not in time: {what}")).expect("the driver runs").clone()
    }

    async fn until_up(&mut self) -> LinkHealth {
        self.until("up", LinkHealth::is_up).await
    }

    async fn until_down(&mut self) -> Lost {
        self.until("down", |health| !health.is_up()).await.lost.unwrap()
    }

    /// Waits for another loss after these, even if the connection is already back.
    async fn until_lost_after(&mut self, losses: u64) -> LinkHealth {
        self.until("a loss", |health| health.losses > losses).await
    }

    async fn beat(&self) -> Result<Beat, Lost> {
        self.backend.beat(self.id).await
    }

    /// The first health probe that is answered.
    async fn answered_beat(&self) -> Beat {
        eventually("a beat is answered", async || self.beat().await.ok()).await
    }

    async fn until_beat_fails_as(&self, code: &str) {
        eventually(code, async || self.beat().await.err().filter(|lost| lost.code == code)).await;
    }
}

fn local(port: u16) -> RedisConfig {
    RedisConfig { host: Some("127.0.0.1".to_owned()), port: Some(port), ..RedisConfig::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_created_before_redis_connects_by_itself() {
    let proxy = Proxy::to_nowhere().await.unwrap();
    let mut node = Node::new(&local(proxy.address.port()));
    assert!(!node.backend.link_health().borrow().is_up());
    let lost =
        node.until("a first attempt", |health| health.lost.as_ref().unwrap().code != "connecting").await;
    assert_eq!((lost.lost.unwrap().code, lost.losses), ("unreachable", 0), "nothing was lost yet");
    // Calls fail at once instead of waiting for a connection.
    let error = node.backend.ping().await.unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { op: "ping", .. }), "{error:?}");
    let error = node.backend.follow(&channel()).await.unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { op: "follow", .. }), "{error:?}");
    assert_eq!(node.beat().await.unwrap_err().code, "unreachable");

    let Some(server) = redis(&[]).await else { return };
    proxy.lead_to(server.target.address);
    let health = node.until_up().await;
    assert_eq!(health, LinkHealth { lost: None, losses: 0 });
    assert_eq!(node.answered_beat().await, Beat::First);
    assert_eq!(node.answered_beat().await, Beat::Same);
    eventually("it follows", async || node.backend.follow(&channel()).await.ok()).await;
    assert!(node.health.has_changed().is_ok(), "the driver runs");
}

#[tokio::test]
async fn an_invalid_configuration_is_refused_without_connecting() {
    let config = RedisConfig { url: Some("http://:hunter2@h".to_owned()), ..RedisConfig::default() };
    let failure = RedisBackend::new(&config, Retention::default()).err().unwrap();
    assert_eq!(failure.code(), "invalid_config");
    assert!(!failure.to_string().contains("hunter2"));
    let failure = RedisBackend::connect(&local(nowhere()), Retention::default()).await.err().unwrap();
    assert_eq!(failure.code(), "unreachable", "and a caller that waits is told why it cannot connect");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_noticed_and_a_restarted_one_reconnected() {
    let Some(mut server) = redis(&[]).await else { return };
    let mut node = Node::connected_to(&server).await;
    for round in 0..3 {
        let losses = node.health.borrow().losses;
        server.kill().await.unwrap();
        assert_eq!(node.until_down().await.code, "unreachable", "round {round}");
        node.until_lost_after(losses).await;
        let error = node.backend.ping().await.unwrap_err();
        assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
        server.restart().await.unwrap();
        node.until_up().await;
        eventually("calls are answered", async || node.backend.ping().await.ok()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_silence_of_a_new_connection_does_not_include_the_outage() {
    let Some(mut server) = redis(&[]).await else { return };
    let mut node = Node::connected_to(&server).await;
    // It subscribes to its own messages, and receives them.
    let since = time::Instant::now();
    until("it has heard itself for a while", async || {
        node.answered_beat().await;
        since.elapsed() > Duration::from_millis(500)
    })
    .await;
    server.kill().await.unwrap();
    node.until_down().await;
    let gone = time::Instant::now();
    until("nothing could be heard for longer than it may hear nothing", async || {
        gone.elapsed() > Duration::from_secs(3)
    })
    .await;
    server.restart().await.unwrap();
    let losses = node.until_up().await.losses;
    let since = time::Instant::now();
    until("it beats for a while", async || {
        node.answered_beat().await;
        since.elapsed() > Duration::from_millis(500)
    })
    .await;
    assert_eq!(node.health.borrow().losses, losses, "the new connection was closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_noticed_both_busy_and_idle() {
    let Some(server) = redis(&[]).await else { return };
    let proxy = Proxy::start(server.target.address).await.unwrap();
    let mut node = Node::new(&local(proxy.address.port()));
    for busy in [false, true, false, true] {
        let before = node.until_up().await.losses;
        let mut load = JoinSet::new();
        for _ in 0..if busy { 20 } else { 0 } {
            let backend = std::sync::Arc::clone(&node.backend);
            load.spawn(async move { while backend.ping().await.is_ok() {} });
        }
        proxy.cut();
        node.until_lost_after(before).await;
        // All calls in progress have failed.
        time::timeout(PATIENCE, async { while load.join_next().await.is_some() {} }).await.unwrap();
    }
    node.until_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_either_connection_counts_and_subscriptions_are_restored_before_it_is_up() {
    let Some(server) = redis(&[]).await else { return };
    let mut node = Node::connected_to(&server).await;
    let mut incoming = node.backend.take_incoming().unwrap();
    node.backend.follow(&channel()).await.unwrap();
    let other = Node::new(&server.config());
    eventually("the other one is connected", async || other.backend.ping().await.ok()).await;
    let shared: zonewire::storage::SharedBackend = other.backend.clone();
    let producer = Producer::new(&shared).await;
    for round in 1..=4 {
        let before = node.until_up().await.losses;
        // A connection with a subscription counts as another type.
        let kind = if round % 2 == 0 { "pubsub" } else { "normal" };
        server.admin(&["CLIENT", "KILL", "TYPE", kind]).await;
        node.until_lost_after(before).await;
        node.until_up().await;
        let subscribers = server
            .admin(&["EVAL", "return redis.call('PUBSUB','NUMSUB',ARGV[1])[2]", "0", "zw:{zone:pjm}"])
            .await;
        assert_eq!(subscribers, "1", "round {round}");
        eventually("the producer is back", async || shared.ping().await.ok()).await;
        producer.fill(round..=round).await;
        loop {
            if let LogEvent::Appended { entries, .. } = next_event(&mut incoming).await {
                assert_eq!(offsets(&entries), [round]);
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_answering_is_noticed_and_reconnected() {
    let Some(server) = redis(&[]).await else { return };
    let mut node = Node::connected_to(&server).await;
    server.freeze().unwrap();
    assert_eq!(node.until_down().await.code, "no_answer");
    // From here on calls do not wait for an answer.
    let error = time::timeout(PATIENCE, node.backend.ping()).await.unwrap().unwrap_err();
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
    server.thaw().unwrap();
    node.until_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushed_data_are_reported_by_the_next_health_probe_only() {
    let Some(server) = redis(&[]).await else { return };
    let mut node = Node::new(&server.config());
    let mut other = Node::new(&server.config());
    for node in [&mut node, &mut other] {
        node.until_up().await;
        assert_eq!(node.answered_beat().await, Beat::First);
        assert_eq!(node.answered_beat().await, Beat::Same);
    }
    for _ in 0..2 {
        server.admin(&["FLUSHALL"]).await;
        // The second node finds the marker that the first one wrote after the flush; it lost as much.
        for node in [&node, &other] {
            let beat = node.answered_beat().await;
            assert_eq!((beat, beat.lost().unwrap().code), (Beat::Other, "data_lost"));
        }
        for node in [&node, &other] {
            let beat = node.answered_beat().await;
            assert_eq!((beat, beat.lost()), (Beat::Same, None));
        }
    }
}

/// A server that is restarted from a snapshot that lacks so many of the node's health probes.
async fn restored(beats: usize) -> Option<(RedisServer, Node)> {
    let mut server = redis(&["--dbfilename", "snapshot.rdb"]).await?;
    let mut node = Node::known_to(&server).await;
    assert_eq!(server.admin(&["SAVE"]).await, "OK");
    for _ in 0..beats {
        assert_eq!(node.answered_beat().await, Beat::Same);
    }
    let losses = node.health.borrow().losses;
    server.kill().await.unwrap();
    node.until_lost_after(losses).await;
    server.restart().await.unwrap();
    node.until_up().await;
    Some((server, node))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_data_are_reported_once_and_unchanged_data_not_at_all() {
    let Some((_server, node)) = restored(0).await else { return };
    assert_eq!(node.answered_beat().await, Beat::Same);
    for beats in [1, 5] {
        let Some((server, node)) = restored(beats).await else { return };
        let beat = node.answered_beat().await;
        assert_eq!((beat, beat.lost().unwrap().code), (Beat::Older, "data_older"));
        assert_eq!(node.answered_beat().await, Beat::Same);
        drop(server);
    }
}

/// The newest health probe that ran, from any node.
async fn newest_beat(server: &RedisServer) -> Option<String> {
    let newest = "return redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]";
    match server.target.ask(&["EVAL", newest, "1", "zw:{life}:log"]).await.unwrap() {
        Reply::Text(beat) => Some(beat),
        // It expires after a second.
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_reported_once_even_if_the_first_reports_were_cut_off() {
    // A restore and a flush, each followed by health probes that run on the server and are never answered.
    for flush in [false, true] {
        let Some(mut server) = redis(&["--dbfilename", "snapshot.rdb"]).await else { return };
        let proxy = Proxy::start(server.target.address).await.unwrap();
        // Missing answers must not end the connection by themselves.
        let mut node = Node::new(&RedisConfig { command_timeout_ms: 60_000, ..local(proxy.address.port()) });
        node.until_up().await;
        assert_eq!(node.answered_beat().await, Beat::First);
        assert_eq!(server.admin(&["SAVE"]).await, "OK");
        assert_eq!(node.answered_beat().await, Beat::Same);
        if flush {
            server.admin(&["FLUSHALL"]).await;
        } else {
            let losses = node.health.borrow().losses;
            server.kill().await.unwrap();
            node.until_lost_after(losses).await;
            server.restart().await.unwrap();
        }
        node.until_up().await;
        // Load the script on the server again.
        Node::new(&server.config()).answered_beat().await;
        proxy.set(Mode::Hole { requests: false, replies: true });
        // More of them than the restored counter lacks.
        for _ in 0..4 {
            let before = newest_beat(&server).await;
            let mut sent = JoinSet::new();
            let (backend, id) = (std::sync::Arc::clone(&node.backend), node.id);
            sent.spawn(async move { backend.beat(id).await.is_ok() });
            eventually("the beat has run", async || {
                newest_beat(&server).await.filter(|newest| Some(newest) != before.as_ref())
            })
            .await;
            sent.abort_all();
            assert!(sent.join_next().await.unwrap().is_err(), "nobody heard the answer");
        }
        proxy.cut();
        proxy.set(Mode::Pass);
        let expected = if flush { Beat::Other } else { Beat::Older };
        assert_eq!(node.answered_beat().await, expected, "the loss is told");
        for _ in 0..3 {
            assert_eq!(node.answered_beat().await, Beat::Same, "once");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unanswered_health_probe_that_ran_is_no_loss() {
    let Some(server) = redis(&[]).await else { return };
    let mut node = Node::known_to(&server).await;
    let losses = node.health.borrow().losses;
    server.freeze().unwrap();
    node.beat().await.unwrap_err();
    node.until_lost_after(losses).await;
    // What it sent waits in the server's socket, and runs now.
    server.thaw().unwrap();
    assert_eq!(node.answered_beat().await, Beat::Same);
    assert_eq!(node.answered_beat().await, Beat::Same);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_reports_no_loss() {
    let Some(server) = redis(&[]).await else { return };
    let mut node = Node::known_to(&server).await;
    let mut again = Node { id: node.id, ..Node::new(&server.config()) };
    again.until_up().await;
    assert_eq!(again.answered_beat().await, Beat::First);
    assert_eq!(again.answered_beat().await, Beat::Same);
    node.id = NodeId::random();
    assert_eq!(node.answered_beat().await, Beat::First, "another node knows nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_writes_is_reported_with_the_reason() {
    let Some(server) = redis(&[]).await else { return };
    let node = Node::known_to(&server).await;

    server.admin(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    node.until_beat_fails_as("out_of_memory").await;
    assert!(node.health.borrow().is_up(), "the connection is not affected");
    server.admin(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(node.answered_beat().await, Beat::Same);

    server.admin(&["ACL", "SETUSER", "default", "-xadd"]).await;
    node.until_beat_fails_as("no_permission").await;
    server.admin(&["ACL", "SETUSER", "default", "+xadd"]).await;
    assert_eq!(node.answered_beat().await, Beat::Same);

    // As a replica without a primary it accepts connections, but no writes.
    server.admin(&["CONFIG", "SET", "replica-serve-stale-data", "yes"]).await;
    server.admin(&["REPLICAOF", "127.0.0.1", &nowhere().to_string()]).await;
    node.until_beat_fails_as("read_only").await;
    server.admin(&["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(node.answered_beat().await, Beat::Same);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loads_its_data_is_not_up_yet() {
    // It takes two seconds, and serves its connections meanwhile.
    let slowly = ["--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024"];
    let options = [&["--dbfilename", "snapshot.rdb"], &slowly[..]].concat();
    let Some(mut server) = redis(&options).await else { return };
    let mut node = Node::known_to(&server).await;
    server.admin(&["EVAL", "for n = 1, 200 do redis.call('SET', n, string.rep(n, 100)) end", "0"]).await;
    assert_eq!(server.admin(&["SAVE"]).await, "OK");
    server.kill().await.unwrap();
    node.until_down().await;
    server.begin(Data::AsItWas).unwrap();
    node.until("loading", |health| health.lost.as_ref().is_some_and(|lost| lost.code == "loading")).await;
    assert_eq!(node.beat().await.unwrap_err().code, "unreachable", "there is nothing to ask");
    node.until_up().await;
    assert_eq!(node.answered_beat().await, Beat::Same);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_missing_passwords_are_reported() {
    let Some(server) = redis(&["--requirepass", "right"]).await else { return };
    for (password, code) in [(None, "password_required"), (Some("wrong".to_owned()), "wrong_password")] {
        let mut node = Node::new(&RedisConfig { password, ..server.config() });
        node.until(code, |health| health.lost.as_ref().is_some_and(|lost| lost.code == code)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_health_probes_expire_and_dead_nodes_are_forgotten() {
    let Some(server) = redis(&[]).await else { return };
    let node = Node::connected_to(&server).await;
    server.admin(&["HSET", "zw:{life}", "n:gone", "7 1000", "n:broken", "x"]).await;
    assert_eq!(node.answered_beat().await, Beat::First);
    assert_eq!(server.admin(&["HLEN", "zw:{life}"]).await, "2", "the life, and this node");
    let ttl: u64 = server.admin(&["TTL", "zw:{life}"]).await.parse().unwrap();
    assert!((23 * 3_600..=24 * 3_600).contains(&ttl), "{ttl}");
    let trials = async |key: &str| server.admin(&["PTTL", key]).await;
    assert!(trials("zw:{life}:probe").await != "-1" && trials("zw:{life}:log").await != "-1", "they expire");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_the_client_queues_are_no_outage() {
    let Some(server) = redis(&[]).await else { return };
    let mut node = Node::new(&server.patient_config());
    node.until_up().await;
    let mut calls = JoinSet::new();
    for number in 0..10_000 {
        let backend = std::sync::Arc::clone(&node.backend);
        let name = format!("zone:{number}").parse().unwrap();
        calls.spawn(async move { backend.read_after(&name, None, 1).await });
    }
    assert_eq!(node.beat().await, Ok(Beat::First), "a beat goes before them");
    while let Some(answer) = calls.join_next().await {
        answer.unwrap().unwrap();
    }
    assert_eq!(node.health.borrow().losses, 0);
}
