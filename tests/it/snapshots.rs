//! Clients that begin with the latest entry of each key: they know the publisher's last value of each
//! in the end, whatever happens meanwhile.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use zonewire::config::Config;
use zonewire::storage::StorageChoice;

use crate::support::client::{Client, offset, position};
use crate::support::eventually::eventually;
use crate::support::gateway::{JSON, Running, config, price, publish};
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;

/// The newest price of each key, as a client of the protocol keeps it, and where it stands. That nothing
/// comes twice but what may is checked with each message.
#[derive(Debug, Default)]
struct Mirror {
    prices: BTreeMap<String, (String, Value)>,
    position: Option<String>,
    /// The keys that came in the snapshot that is under way.
    came: Option<HashSet<String>>,
    /// All that it has had since its newest snapshot began.
    ids: HashSet<String>,
    in_doubt: bool,
    /// How often a snapshot began, and how many entries came in these.
    begun: usize,
    latest: usize,
    /// What was said last of whether all is there.
    is_whole: bool,
}

impl Mirror {
    fn take(&mut self, message: &Value) {
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str().unwrap() {
            "subscribed" | "resync" => {
                self.position = Some(position(message));
                self.in_doubt = message["recovered"] == false;
                self.came = None;
                if message["snapshot"] == true {
                    (self.came, self.is_whole) = (Some(HashSet::new()), false);
                    self.ids.clear();
                    self.begun += 1;
                }
            }
            "snapshot_end" => {
                self.position = Some(position(message));
                self.is_whole = message["recovered"] == true;
                self.in_doubt = !self.is_whole;
                let came = self.came.take().expect("one that began");
                if self.is_whole {
                    self.prices.retain(|key, _| came.contains(key));
                }
            }
            "price_update" if message["snapshot"] == true => {
                assert!(self.ids.insert(text("id")), "twice: {message}");
                self.came.as_mut().expect("a snapshot that began").insert(text("key"));
                self.prices.insert(text("key"), (text("timestamp"), message["price"].clone()));
                self.latest += 1;
            }
            "price_update" => {
                assert!(self.came.is_none(), "in the middle of a snapshot: {message}");
                let epoch = self.position.as_deref().unwrap().rsplit_once(':').unwrap().0;
                self.position = Some(format!("{epoch}:{}", offset(message)));
                // Who shows the latest need not drop it.
                assert!(self.ids.insert(text("id")) || self.in_doubt, "twice: {message}");
                let is_older =
                    |(held, _): &(String, Value)| message["late"] == true && *held > text("timestamp");
                if !self.prices.get(&text("key")).is_some_and(is_older) {
                    self.prices.insert(text("key"), (text("timestamp"), message["price"].clone()));
                }
            }
            "key_removed" => drop(self.prices.remove(&text("key"))),
            _ => {}
        }
    }

    async fn until(&mut self, client: &mut Client, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let message = client.next().await;
            assert_ne!(message["type"], "closing", "{what}: {message}");
            self.take(&message);
        }
    }

    /// Reads until it has a snapshot.
    async fn until_whole(&mut self, client: &mut Client) {
        self.until(client, "a snapshot", |mirror| mirror.is_whole).await;
    }

    /// Reads until it knows what was published last.
    async fn until_equal(&mut self, client: &mut Client, expected: &BTreeMap<String, u64>) {
        let is_equal = |mirror: &Self| {
            let prices =
                || mirror.prices.iter().map(|(key, (_, price))| (key.as_str(), price.as_u64().unwrap()));
            mirror.is_whole && prices().eq(expected.iter().map(|(key, price)| (key.as_str(), *price)))
        };
        self.until(client, "all prices", is_equal).await;
    }
}

fn on(server: &RedisServer, prefix: &str) -> Config {
    let mut config = config();
    config.storage.backend = StorageChoice::Redis;
    config.storage.required = true;
    config.storage.redis = server.config();
    config.storage.redis.prefix = prefix.to_owned();
    config
}

async fn until_state(gateway: &Running, state: &str) {
    eventually(&format!("the storage is {state}"), async || {
        (gateway.get("/ws/health").await.json()["state"] == state).then_some(())
    })
    .await;
}

/// Publishes a price of each of these keys.
async fn fill(gateway: &Running, keys: usize, value: u64, filler: usize) -> BTreeMap<String, u64> {
    let filler = "x".repeat(filler);
    let keys: Vec<String> = (0..keys).map(|n| format!("K{n:05}")).collect();
    for some in keys.chunks(1_000) {
        let prices = some.iter().map(|key| json!({ "key": key, "price": value, "filler": filler }));
        gateway.publish("pjm", prices).await;
    }
    keys.into_iter().map(|key| (key, value)).collect()
}

/// A client that takes next to nothing that it does not read, past `subscribed`.
async fn slow_client(gateway: &Running) -> (Client, Mirror) {
    let mut client = Client::connect_small(&gateway.url("/ws/market/pjm?snapshot=1")).await;
    let mut mirror = Mirror::default();
    mirror.until(&mut client, "subscribed", |mirror| mirror.begun == 1).await;
    (client, mirror)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_brings_the_latest_of_each_key_and_then_what_follows() {
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", [price("B", 1), price("A", 2), price("B", 3), price("C", 4)]).await;
    assert_eq!(gateway.delete("/api/zones/pjm/keys/C").await.status, 204);
    let mut client = Client::connect(&gateway.url("/ws/market/pjm?snapshot=1")).await;
    assert_eq!(client.next().await["type"], "connection_established");
    let subscribed = client.next().await;
    let told = (&subscribed["recovered"], &subscribed["gap"], &subscribed["snapshot"], offset(&subscribed));
    assert_eq!(told, (&json!(true), &json!(0), &json!(true), 5), "{subscribed}");
    for (key, value, at) in [("A", 2, 2), ("B", 3, 3)] {
        let latest = client.next().await;
        assert_eq!(
            (&latest["type"], &latest["snapshot"]),
            (&json!("price_update"), &json!(true)),
            "{latest}"
        );
        assert_eq!((&latest["key"], &latest["price"], offset(&latest)), (&json!(key), &json!(value), at));
    }
    let end = client.next().await;
    assert_eq!((&end["type"], &end["recovered"], offset(&end)), (&json!("snapshot_end"), &json!(true), 5));
    assert_ne!(end["epoch"], subscribed["epoch"], "what it has had is said by its position");
    gateway.publish("pjm", [price("A", 5)]).await;
    let next = client.next().await;
    assert_eq!((&next["price"], next.get("snapshot"), offset(&next)), (&json!(5), None, 6));
    client.close().await;

    // From the end of it on nothing is missing, and there is no need of another one.
    let since = |at: &str, more: &str| gateway.url(&format!("/ws/market/pjm?since={at}{more}"));
    for more in ["", "&snapshot=1"] {
        let mut client = Client::connect(&since(&position(&end), more)).await;
        let subscribed = client.next_of_type("subscribed").await;
        assert_eq!((&subscribed["recovered"], subscribed.get("snapshot")), (&json!(true), None));
        assert_eq!(client.next().await["price"], 5);
    }
    // From the middle of it there is; a client that does not want it is told that something is missing.
    let mut client = Client::connect(&since(&position(&subscribed), "&snapshot=true")).await;
    let again = client.next_of_type("subscribed").await;
    assert_eq!((&again["recovered"], &again["snapshot"]), (&json!(false), &json!(true)));
    let mut mirror = Mirror::default();
    mirror.take(&again);
    // It may be as it was a moment ago, and what came since follows.
    mirror.until_equal(&mut client, &BTreeMap::from([("A".to_owned(), 5), ("B".to_owned(), 3)])).await;
    let mut client = Client::connect(&since(&position(&subscribed), "")).await;
    let plain = client.next_of_type("subscribed").await;
    assert_eq!((&plain["recovered"], plain.get("gap"), plain.get("snapshot")), (&json!(false), None, None));
    // A position of a log that is gone.
    let mut client = Client::connect(&since("0123456789abcdef:3", "&snapshot=1")).await;
    assert_eq!(client.next_of_type("subscribed").await["snapshot"], true);

    let stats = gateway.stats().await["messages"].take();
    assert_eq!((&stats["snapshots"], &stats["snapshot_entries"]), (&json!(3), &json!(6)), "{stats}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_asked_for_by_message_too_and_is_about_zones() {
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", [price("A", 1)]).await;
    let mut client = Client::connect(&gateway.url("/ws")).await;
    client.next_of_type("connection_established").await;
    let order = "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
    client.send(&json!({ "type": "subscribe", "id": 1, "channels": ["zone:pjm", "zone:new", order], "snapshot": true })).await;
    let (mut snapshots, mut ends) = (HashSet::new(), HashSet::new());
    let mut is_subscribed_to_order = false;
    while snapshots.len() + ends.len() < 4 || !is_subscribed_to_order {
        let message = client.next().await;
        let channel = message["channel"].as_str().unwrap().to_owned();
        match message["type"].as_str().unwrap() {
            "subscribed" if channel == order => {
                assert_eq!(message.get("snapshot"), None, "all of it comes in any case");
                is_subscribed_to_order = true;
            }
            "subscribed" => assert!(message["snapshot"] == true && snapshots.insert(channel), "{message}"),
            "snapshot_end" => assert!(message["recovered"] == true && ends.insert(channel), "{message}"),
            _ => assert_eq!(message["price"], 1),
        }
    }
    // One that nobody has published to yet.
    gateway.publish("new", [price("A", 7)]).await;
    assert_eq!(client.next_of_type("price_update").await["price"], 7);

    client.send(&json!({ "type": "subscribe", "channels": ["zone:pjm"], "snapshot": "yes" })).await;
    assert_eq!(client.next_of_type("error").await["code"], "invalid_message");
    let mark = json!({ "key": "A", "price": 1, "snapshot": true }).to_string();
    gateway.post("pjm", JSON, mark.as_bytes()).await.problem(422, "reserved_field");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_thousand_keys_a_snapshot_comes_in_pages_while_another_gateway_publishes() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let (a, b) = (Running::start(on(&server, "snap")).await, Running::start(on(&server, "snap")).await);
    until_state(&a, "healthy").await;
    until_state(&b, "healthy").await;
    let mut expected = fill(&a, 10_000, 0, 10).await;
    // Clients come while it is published to; every key is in the log no more, and each has a latest price.
    let mut publishing = JoinSet::<()>::new();
    let address: SocketAddr = a.address;
    publishing.spawn(async move {
        for round in 1..=20 {
            publish(
                address,
                "pjm",
                (0..10_000).step_by(20).map(|n| price(&format!("K{:05}", n + round % 10), round as u64)),
            )
            .await;
        }
    });
    for round in 1..=20 {
        (0..10_000).step_by(20).for_each(|n| {
            expected.insert(format!("K{:05}", n + round % 10), round as u64);
        });
    }
    let mut watching = JoinSet::new();
    for gateway in [&a, &b, &b] {
        let url = gateway.url("/ws/market/pjm?snapshot=1");
        let expected = expected.clone();
        watching.spawn(async move {
            let mut client = Client::connect(&url).await;
            let mut mirror = Mirror::default();
            mirror.until_equal(&mut client, &expected).await;
            assert!(mirror.latest >= 5_000, "{}", mirror.latest);
            mirror.begun
        });
    }
    while let Some(watched) = watching.join_next().await {
        assert_eq!(watched.unwrap(), 1);
    }
    publishing.join_next().await.unwrap().unwrap();
    // All at once they are read once.
    let before = b.stats().await["messages"]["replay_reads"].as_u64().unwrap();
    let mut watching = JoinSet::new();
    for _ in 0..20 {
        let (url, expected) = (b.url("/ws/market/pjm?snapshot=1"), expected.clone());
        watching.spawn(async move {
            let (mut client, mut mirror) = (Client::connect(&url).await, Mirror::default());
            mirror.until_equal(&mut client, &expected).await;
        });
    }
    while let Some(watched) = watching.join_next().await {
        watched.unwrap();
    }
    let reads = b.stats().await["messages"]["replay_reads"].as_u64().unwrap() - before;
    assert!((10..100).contains(&reads), "{reads} pages were read for 20 clients");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_in_the_middle_of_a_snapshot_leaves_no_hole() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let redis = SocketAddr::from(([127, 0, 0, 1], server.port));
    let link = Proxy::start(redis).await;
    let mut cut_off = on(&server, "cut");
    cut_off.storage.redis.port = Some(link.address.port());
    let (a, b) = (Running::start(on(&server, "cut")).await, Running::start(cut_off).await);
    until_state(&b, "healthy").await;
    let mut expected = fill(&a, 3_000, 0, 3_000).await;
    let (mut client, mut mirror) = slow_client(&b).await;
    link.lead_nowhere();
    until_state(&b, "degraded").await;
    // Both go on: one with the log, one by itself.
    a.publish("pjm", [price("K00001", 10), price("ofA", 11)]).await;
    b.publish("pjm", [price("K00002", 20), price("ofB", 21)]).await;
    expected
        .extend([("K00001", 10), ("ofA", 11), ("K00002", 20), ("ofB", 21)].map(|(k, v)| (k.to_owned(), v)));
    // Some of it was on its way. What the gateway has of the rest is a part, and said to be one.
    mirror
        .until(&mut client, "what can be reached", |mirror| mirror.begun > 1 && mirror.came.is_none())
        .await;
    assert!(!mirror.is_whole && mirror.in_doubt && !mirror.prices.contains_key("ofA"));
    assert_eq!(mirror.prices["ofB"].1, 21, "its own prices are told at once");
    let (from_b, position) = (mirror.begun, mirror.position.clone().unwrap());
    link.lead_to(redis);
    mirror.until_equal(&mut client, &expected).await;
    assert_eq!(mirror.begun, from_b + 1);
    a.publish("pjm", [price("K00003", 30)]).await;
    expected.insert("K00003".to_owned(), 30);
    mirror.until_equal(&mut client, &expected).await;

    // Whoever left with the part gets all elsewhere.
    let mut client = Client::connect(&a.url(&format!("/ws/market/pjm?snapshot=1&since={position}"))).await;
    let mut mirror = Mirror::default();
    mirror.until_equal(&mut client, &expected).await;
    assert_eq!(mirror.begun, 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_so_slow_that_the_log_lets_go_of_what_follows_gets_another_snapshot() {
    let mut config = config();
    config.storage.retention.entries = 100;
    config.connections.hold_entries_max = 10;
    let gateway = Running::start(config).await;
    let mut expected = fill(&gateway, 2_000, 0, 3_000).await;
    let (mut client, mut mirror) = slow_client(&gateway).await;
    for round in 1..=300_u64 {
        let key = format!("K{:05}", round % 200);
        gateway.publish("pjm", [price(&key, round)]).await;
        expected.insert(key, round);
    }
    assert_eq!(gateway.delete("/api/zones/pjm/keys/K01000").await.status, 204);
    for round in 301..=500_u64 {
        let key = format!("K{:05}", round % 200);
        gateway.publish("pjm", [price(&key, round)]).await;
        expected.insert(key, round);
    }
    expected.remove("K01000");
    mirror.until_whole(&mut client).await;
    let told = client.next_of_type("resync").await;
    assert_eq!((&told["recovered"], &told["snapshot"]), (&json!(false), &json!(true)), "{told}");
    mirror.take(&told);
    mirror.until_equal(&mut client, &expected).await;
    assert_eq!(mirror.begun, 2);
    gateway.stop().await;
}
