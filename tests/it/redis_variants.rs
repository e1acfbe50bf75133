//! Redis as it is deployed: in a cluster, behind sentinels, with TLS, and with a user that has only the
//! necessary rights.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;
use tokio::time;
use zonewire::model::{BackendName, ChannelName, Epoch, Lane, NodeId, OrderId};
use zonewire::storage::{
    AppendAnswer, LinkHealth, Log, LogEvent, Opened, Outside, OutsideEvent, RedisConfig, Retention,
    SharedBackend, StorageChoice, StorageConfig, open,
};
use zonewire_kit::certificates::Certificates;
use zonewire_kit::redis::{Cluster, RedisServer, Sentinels, Several};

use crate::support::eventually::{eventually, until};
use crate::support::redis::{
    Admin, Configured, SENTINEL_PASSWORD, certificates, cluster, cluster_of, free_port, patient, redis,
    sentinels,
};
use crate::support::stores::{
    Producer, SECOND, Stores, connect, next_event, offsets, sharing, until_suspect,
};
use crate::{jobs_contract, storage_contract, storage_orders, support};

/// The contract that every backend must fulfil.
async fn check_contract(config: RedisConfig) {
    sharing(patient(config), async {
        storage_contract::on_variant().await;
        storage_orders::on_variant().await;
        jobs_contract::on_variant().await;
    })
    .await;
}

/// Opens the storage as the gateway does. Returns how it serves, and why.
async fn opened(redis: RedisConfig) -> (Opened, BackendName, &'static str, String) {
    let config = StorageConfig { backend: StorageChoice::Redis, redis, ..StorageConfig::default() };
    let opened = open(&config, NodeId::random(), Arc::new(|_| Lane::Latest)).await.unwrap();
    let status = opened.status_reader.get();
    (opened, status.backend, status.reason_code, status.reason)
}

async fn check_serves(redis: RedisConfig) {
    eventually("redis lets us in, however busy the machine is", async || {
        let (_, backend, code, reason) = opened(redis.clone()).await;
        match code {
            "ok" => {
                assert_eq!(backend, BackendName::Redis);
                Some(())
            }
            "no_answer" | "unreachable" => None,
            _ => panic!("{code}: {reason}"),
        }
    })
    .await;
}

async fn check_refused(redis: RedisConfig, expected: &str) -> String {
    eventually("redis says no, however busy the machine is", async || {
        let (_, backend, code, reason) = opened(redis.clone()).await;
        let is_late = code == "no_answer" && expected != code;
        (!is_late).then(|| {
            assert_eq!((backend, code), (BackendName::InMemory, expected), "{reason}");
            reason
        })
    })
    .await
}

/// The channel of the next announced entries, ignoring possible gaps.
async fn next_told(incoming: &mut Receiver<LogEvent>) -> (ChannelName, Vec<u64>) {
    loop {
        if let LogEvent::Appended { channel, entries, .. } = next_event(incoming).await {
            return (channel, offsets(&entries));
        }
    }
}

// ----- cluster -------------------------------------------------------------------

fn zone(n: usize) -> ChannelName {
    format!("zone:z{n}").parse().unwrap()
}

/// A zone of each of three primaries.
async fn zone_of_each(cluster: &Cluster) -> [ChannelName; 3] {
    support::redis::zone_of_each(cluster).await.map(|zone| format!("zone:{zone}").parse().unwrap())
}

/// The same zones, each followed by one node, with its producer at another.
async fn followed_zones(
    cluster: &Cluster,
    store: &SharedBackend,
    other: &SharedBackend,
) -> ([ChannelName; 3], Vec<Producer>) {
    let zones = zone_of_each(cluster).await;
    let mut producers = Vec::new();
    for zone in &zones {
        store.follow(zone).await.unwrap();
        producers.push(Producer::on(other, zone.clone()).await);
    }
    (zones, producers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_fulfils_the_contract_of_all_backends() {
    let Some(cluster) = cluster(0, &[]).await else { return };
    check_serves(cluster.config()).await;
    let single = RedisConfig { cluster: false, nodes: Vec::new(), ..cluster.config() };
    let code = if cluster.owner("zw:{probe}").await.unwrap() == 0 { "ok" } else { "invalid_config" };
    if code != "ok" {
        let reason = check_refused(single, code).await;
        assert!(reason.contains("redis-cluster"), "{reason}");
    }
    check_contract(cluster.config()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_each_channel_is_announced_by_the_node_that_has_it() {
    let Some(cluster) = cluster(0, &[]).await else { return };
    let stores = Stores::at(patient(cluster.config()), Retention::default());
    let (store, other) = (stores.open().await, stores.open().await);
    let (mut incoming, mut doubts) = (store.take_incoming().unwrap(), 0);
    for n in 0..60 {
        let producer = Producer::on(&other, zone(n)).await;
        store.follow(&producer.channel).await.unwrap();
        producer.fill(1..=1).await;
        loop {
            match next_event(&mut incoming).await {
                LogEvent::Appended { channel, .. } if channel == producer.channel => break,
                // After a suspicion without cause.
                LogEvent::Appended { .. } => assert!(doubts > 0),
                // A machine that stalls looks like a connection that does, so entries may be reported as
                // possibly missing, but not each time.
                LogEvent::Changed(_) | LogEvent::Suspect => {
                    doubts += 1;
                    break;
                }
            }
        }
    }
    assert!(doubts < 10, "{doubts}");
    for node in &cluster.nodes {
        let told: Vec<String> = node.list(&["PUBSUB", "SHARDCHANNELS"]).await;
        assert!((1..60).contains(&told.len()), "{told:?}");
    }
    for n in 0..60 {
        store.unfollow(&zone(n)).await.unwrap();
    }
    for node in &cluster.nodes {
        until("nothing is subscribed to any more", async || {
            node.list(&["PUBSUB", "SHARDCHANNELS"]).await.is_empty()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_follows_its_slot() {
    let Some(cluster) = cluster(0, &[]).await else { return };
    let stores = Stores::at(cluster.config(), Retention::default());
    let (store, other) = (stores.open().await, stores.open().await);
    let mut incoming = store.take_incoming().unwrap();
    let (zones, producers) = followed_zones(&cluster, &store, &other).await;
    for (round, (from, to)) in [(0, 1), (1, 2), (2, 0)].into_iter().enumerate() {
        cluster.move_slot(&format!("zw:{{{}}}:meta", zones[0]), from, to).await.unwrap();
        let seq = round as u64 + 1;
        // A call to a node that no longer has the slot fails without effect.
        eventually("the node that has the slot now is asked", async || {
            producers[0].store.append(&producers[0].chain(seq..=seq)).await.ok()
        })
        .await;
        until_suspect(&mut incoming).await;
        assert_eq!(offsets(&producers[0].read(0, 10).await.entries), (1..=seq).collect::<Vec<_>>());
        until("it is subscribed to where it is now", async || {
            let names = cluster.nodes[to].list(&["PUBSUB", "SHARDCHANNELS"]).await;
            names.contains(&format!("zw:{{{}}}", zones[0]))
        })
        .await;
    }
    // Earlier entries may have been announced by then.
    let mut last = Vec::new();
    for (producer, seq) in producers.iter().zip([4, 1, 1]) {
        producer.fill(seq..=seq).await;
        last.push((producer.channel.clone(), vec![seq]));
    }
    while !last.is_empty() {
        let told = next_told(&mut incoming).await;
        last.retain(|entry| *entry != told);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_in_a_cluster_the_replica_is_used() {
    let Some(cluster) = cluster(1, &[]).await else { return };
    let config = cluster.config();
    check_failover_in_a_cluster(cluster, config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirections_of_a_moving_slot_are_followed() {
    let Some(cluster) = cluster(0, &[]).await else { return };
    // A call is repeated for as long as its deadline permits.
    let stores = Stores::at(patient(cluster.config()), Retention::default());
    let store = stores.open().await;
    let channel = zone_of_each(&cluster).await[0].clone();
    let key = format!("zw:{{{channel}}}:meta");
    // The slot has no keys, so its old primary redirects to the new one (ASK), which serves single keys at
    // once, and several keys only once it owns the slot (TRYAGAIN).
    let slot = cluster.begin_move(&key, 0, 1).await.unwrap();
    assert_eq!(store.state(&channel, NodeId::random()).await.unwrap().epoch, None);
    let (producer, ()) = tokio::join!(Producer::on(&store, channel.clone()), async {
        cluster.end_move(&slot, 0, 1).await.unwrap();
    });
    // Until the store learns of it, the old primary redirects (MOVED).
    producer.fill(1..=3).await;
    let slot = cluster.begin_move(&key, 1, 2).await.unwrap();
    let port = cluster.nodes[2].port.to_string();
    let moved = cluster.nodes[1].admin(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await;
    assert_eq!(moved, "OK");
    // Each primary has some of its keys (TRYAGAIN) until the others have been moved.
    let batch = producer.chain(4..=4);
    let (appended, ()) = tokio::join!(producer.store.append(&batch), async {
        for part in ["log", "latest"] {
            let key = format!("zw:{{{}}}:{part}", producer.channel);
            let moved = cluster.nodes[1].admin(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await;
            assert!(moved == "OK" || moved == "NOKEY", "{moved}");
        }
        cluster.end_move(&slot, 1, 2).await.unwrap();
    });
    assert!(matches!(appended.unwrap(), AppendAnswer::Done(_)));
    assert_eq!(offsets(&producer.read(0, 10).await.entries), [1, 2, 3, 4]);
}

async fn check_failover_in_a_cluster(mut cluster: Cluster, config: RedisConfig) {
    let stores = Stores::at(config, Retention::default());
    let (store, other) = (stores.open().await, stores.open().await);
    let mut incoming = store.take_incoming().unwrap();
    let (zones, producers) = followed_zones(&cluster, &store, &other).await;
    producers[0].fill(1..=1).await;
    assert_eq!(next_told(&mut incoming).await, (zones[0].clone(), vec![1]));
    let replicated = async |node: usize, field: &str| -> Option<u64> {
        let info = cluster.nodes[node].admin(&["INFO", "replication"]).await;
        info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok())
    };
    let written = replicated(0, "master_repl_offset").await.unwrap();
    eventually("the replica has it", async || {
        replicated(3, "slave_repl_offset").await.filter(|offset| *offset >= written)
    })
    .await;
    cluster.nodes[0].kill().await.unwrap();
    let error = eventually("a dead primary is noticed", async || {
        producers[0].store.append(&producers[0].chain(2..=2)).await.err()
    })
    .await;
    assert!(error.is_outage(), "{error:?}");
    assert_eq!(cluster.nodes[3].admin(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await, "OK");
    eventually("the replica takes appends", async || {
        producers[0].store.append(&producers[0].chain(1..=2)).await.ok()
    })
    .await;
    assert_eq!(offsets(&producers[0].read(0, 10).await.entries), [1, 2]);
    until_suspect(&mut incoming).await;
    until("it is subscribed to there", async || {
        let names = cluster.nodes[3].list(&["PUBSUB", "SHARDCHANNELS"]).await;
        names.contains(&format!("zw:{{{}}}", zones[0]))
    })
    .await;
    for (n, producer) in producers.iter().enumerate() {
        let seq = if n == 0 { 3 } else { 1 };
        producer.fill(seq..=seq).await;
    }
    let mut told = Vec::new();
    while told.len() < 3 {
        let (channel, offsets) = next_told(&mut incoming).await;
        if offsets != [2] {
            told.push(channel);
        }
    }
    assert!(zones.iter().all(|zone| told.contains(zone)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_orders_are_exchanged_in_a_cluster() {
    let Some(cluster) = cluster(0, &[]).await else { return };
    let stores = Stores::at(cluster.config(), Retention::default());
    let store = stores.open().await;
    let Outside { role: orders, driver } = store.outside_orders().unwrap();
    stores.spawn(driver);
    let mut incoming = orders.take_incoming().unwrap();
    for n in 0..12 {
        let order = OrderId::random();
        eventually("the order is followed", async || orders.follow(order).await.ok()).await;
        let (list, channel) = (format!("order:{order}:updates"), format!("order:{order}"));
        let owner = &cluster.nodes[cluster.owner(&list).await.unwrap()];
        // A worker publishes at whichever node it is connected to.
        owner.admin(&["RPUSH", &list, "theirs"]).await;
        cluster.nodes[n % 3].admin(&["PUBLISH", &channel, "theirs"]).await;
        let told = |update: &'static str| OutsideEvent::Published { order, update: Bytes::from(update) };
        let mut next = async || loop {
            match time::timeout(10 * SECOND, incoming.recv()).await.unwrap().unwrap() {
                OutsideEvent::Suspect => {}
                event => return event,
            }
        };
        assert_eq!(next().await, told("theirs"));
        orders.write(order, &["ours".into()]).await.unwrap();
        assert_eq!(next().await, told("ours"));
        assert_eq!(orders.window(order, 50).await.unwrap(), ["theirs", "ours"]);
        orders.unfollow(order).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_primary_blocks_no_other_and_is_used_again() {
    let Some(cluster) = cluster(0, &["--cluster-require-full-coverage", "no"]).await else { return };
    let (store, driver) = connect(&cluster.config(), &Retention::default()).await;
    let mut drivers = tokio::task::JoinSet::new();
    drivers.spawn(driver);
    let mut incoming = store.take_incoming().unwrap();
    let mut health = store.link_health();
    let store: SharedBackend = Arc::new(store);
    let mut producers = Vec::new();
    for zone in zone_of_each(&cluster).await {
        eventually("a zone is followed", async || store.follow(&zone).await.ok()).await;
        let begun = async || store.open(&zone, NodeId::random(), &Epoch::random()).await.ok();
        eventually("a log begins", begun).await;
        producers.push(Producer::on(&store, zone).await);
    }
    health.borrow_and_update();
    cluster.nodes[0].freeze().unwrap();
    let told = time::timeout(20 * SECOND, health.wait_for(|health| !health.is_up())).await;
    assert!(told.expect("a hang is noticed").is_ok());
    let error = producers[0].store.append(&producers[0].chain(1..=1)).await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    for producer in &producers[1..] {
        producer.fill(1..=1).await;
        assert_eq!(next_told(&mut incoming).await, (producer.channel.clone(), vec![1]));
    }
    cluster.nodes[0].thaw().unwrap();
    let told = time::timeout(20 * SECOND, health.wait_for(LinkHealth::is_up)).await;
    assert!(told.expect("its end is noticed").is_ok());
    eventually("it serves again", async || producers[0].store.append(&producers[0].chain(1..=1)).await.ok())
        .await;
    while next_told(&mut incoming).await.0 != producers[0].channel {}
}

// ----- sentinels -----------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_behind_sentinels_fulfils_the_contract_of_all_backends() {
    let Some(sentinels) = sentinels(60 * SECOND, None).await else { return };
    check_serves(sentinels.config()).await;
    let stranger = RedisConfig { sentinel_password: Some("hunter2".into()), ..sentinels.config() };
    let reason = check_refused(stranger, "unreachable").await;
    assert!(!reason.contains("hunter2") && !reason.contains(SENTINEL_PASSWORD), "{reason}");
    let unknown = RedisConfig { sentinel_service: Some("nobody".into()), ..sentinels.config() };
    let reason = check_refused(unknown, "invalid_config").await;
    assert!(reason.contains("no primary of that name"), "{reason}");
    check_contract(sentinels.config()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_by_sentinels_the_new_primary_is_used() {
    let Some(sentinels) = sentinels(SECOND, None).await else { return };
    let config = sentinels.config();
    check_failover_by_sentinels(sentinels, config).await;
}

async fn check_failover_by_sentinels(mut sentinels: Sentinels, config: RedisConfig) {
    let stores = Stores::at(config, Retention::default());
    let (store, other) = (stores.open().await, stores.open().await);
    let mut incoming = store.take_incoming().unwrap();
    let producer = Producer::new(&other).await;
    store.follow(&producer.channel).await.unwrap();
    producer.fill(1..=1).await;
    assert_eq!(next_told(&mut incoming).await.1, [1]);
    until("the replica has it", async || {
        sentinels.servers[1].admin(&["EXISTS", "zw:{zone:pjm}:log"]).await == "1"
    })
    .await;
    sentinels.servers[0].kill().await.unwrap();
    eventually("a dead primary is noticed", async || store.ping().await.err()).await;
    eventually("the new primary takes appends", async || {
        producer.store.append(&producer.chain(1..=2)).await.ok()
    })
    .await;
    assert_eq!(sentinels.servers[1].admin(&["EXISTS", "zw:{zone:pjm}:log"]).await, "1");
    until_suspect(&mut incoming).await;
    producer.fill(3..=3).await;
    while next_told(&mut incoming).await.1 != [3] {}
    assert_eq!(offsets(&producer.read(0, 10).await.entries), [1, 2, 3]);
}

// ----- TLS -----------------------------------------------------------------------

fn refs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

/// A configuration that trusts the authority.
fn trusting(certificates: &Certificates, config: RedisConfig) -> RedisConfig {
    RedisConfig { tls: true, tls_ca_file: Some(certificates.file("ca.pem")), ..config }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_with_tls_fulfils_the_contract_of_all_backends() {
    let Some(certificates) = certificates() else { return };
    let port = free_port();
    let Some(_server) = redis(&refs(&certificates.options(port, false))).await else { return };
    let url = RedisConfig { url: Some(format!("rediss://127.0.0.1:{port}")), ..RedisConfig::default() };
    let trusting = RedisConfig { tls_ca_file: Some(certificates.file("ca.pem")), ..url.clone() };
    check_serves(trusting.clone()).await;
    let by_name = RedisConfig {
        host: Some("localhost".into()),
        port: Some(port),
        url: None,
        tls: true,
        ..trusting.clone()
    };
    check_serves(by_name).await;
    let reason = check_refused(url, "unexpected").await;
    assert!(reason.contains("TLS") && reason.contains("UnknownIssuer"), "{reason}");
    check_contract(trusting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_requires_a_certificate_gets_one() {
    let Some(certificates) = certificates() else { return };
    let port = free_port();
    let Some(_server) = redis(&refs(&certificates.options(port, true))).await else { return };
    let nameless = RedisConfig {
        url: Some(format!("rediss://127.0.0.1:{port}")),
        tls_ca_file: Some(certificates.file("ca.pem")),
        ..RedisConfig::default()
    };
    let (_, backend, code, reason) = opened(nameless.clone()).await;
    assert_eq!(backend, BackendName::InMemory, "{code}: {reason}");
    let named = RedisConfig {
        tls_cert_file: Some(certificates.file("client.pem")),
        tls_key_file: Some(certificates.file("client.key")),
        ..nameless.clone()
    };
    check_serves(named.clone()).await;
    let stores = Stores::at(named, Retention::default());
    let producer = Producer::new(&stores.open().await).await;
    producer.fill(1..=3).await;
    let mixed = RedisConfig {
        tls_cert_file: Some(certificates.file("client.pem")),
        tls_key_file: Some(certificates.file("server.key")),
        ..nameless
    };
    let reason = check_refused(mixed, "invalid_config").await;
    assert!(reason.contains("do not go together"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_with_tls_is_used_and_its_replica_too() {
    let Some(certificates) = certificates() else { return };
    let with = Several { replicas: 1, tls: Some(&certificates), ..Several::default() };
    let Some(cluster) = cluster_of(with).await else { return };
    let strange = RedisConfig { tls: true, ..cluster.config() };
    let trusting = trusting(&certificates, cluster.config());
    check_serves(trusting.clone()).await;
    let reason = check_refused(strange, "unexpected").await;
    assert!(reason.contains("TLS"), "{reason}");
    check_failover_in_a_cluster(cluster, trusting).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_with_tls_are_asked_and_the_primary_that_they_name_is_used() {
    let Some(certificates) = certificates() else { return };
    let Some(sentinels) = sentinels(SECOND, Some(&certificates)).await else { return };
    let url = sentinels.url().replace("redis-sentinel", "rediss-sentinel");
    let config = trusting(&certificates, RedisConfig { url: Some(url), ..sentinels.config() });
    check_serves(config.clone()).await;
    check_failover_by_sentinels(sentinels, config).await;
}

// ----- a restricted user ---------------------------------------------------------

/// The rule in docs/OPERATIONS.md, from which the tests read it.
fn rule(marker: &str) -> Vec<String> {
    let text = std::fs::read_to_string("docs/OPERATIONS.md").unwrap();
    let lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with(marker));
    let rule: Vec<String> = lines
        .take_while(|line| !line.starts_with("```"))
        .flat_map(|line| {
            line.trim_end_matches('\\').split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert!(rule.len() > 3, "{rule:?}");
    rule
}

async fn set_user(server: &RedisServer, rule: &[String]) {
    assert_eq!(server.admin(&refs(rule)).await, "OK");
}

fn as_user(config: RedisConfig) -> RedisConfig {
    RedisConfig { username: Some("zonewire".into()), password: Some("secret".into()), ..config }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_are_sufficient_and_all_necessary() {
    let Some(server) = redis(&[]).await else { return };
    let rule = rule("ACL SETUSER zonewire on");
    set_user(&server, &rule).await;
    check_serves(as_user(server.config())).await;
    check_contract(as_user(server.config())).await;
    // Optional rights are used only if granted.
    let optional = ["+pubsub|numsub"];
    for (n, right) in rule.iter().enumerate() {
        if !right.starts_with(['+', '~', '&']) || optional.contains(&right.as_str()) {
            continue;
        }
        let mut less: Vec<String> = rule.clone();
        less.remove(n);
        less.insert(3, "reset".to_owned());
        set_user(&server, &less).await;
        check_refused(as_user(server.config()), "no_permission").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_user_needs_a_few_more_rights() {
    let Some(cluster) = cluster(0, &[]).await else { return };
    for node in &cluster.nodes {
        set_user(node, &rule("ACL SETUSER zonewire on")).await;
        set_user(node, &rule("ACL SETUSER zonewire +")).await;
    }
    check_serves(as_user(cluster.config())).await;
    let stores = Stores::at(as_user(cluster.config()), Retention::default());
    let store = stores.open().await;
    let mut incoming = store.take_incoming().unwrap();
    let producer = Producer::new(&store).await;
    store.follow(&producer.channel).await.unwrap();
    producer.fill(1..=1).await;
    assert_eq!(next_told(&mut incoming).await.1, [1]);
}
