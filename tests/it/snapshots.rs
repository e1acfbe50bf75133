//! Clients that begin with a snapshot: whatever happens meanwhile, in the end they know the publisher's last
//! value of each key.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::ops::Bound;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use zonewire_kit::proxy::{Mode, Proxy};

use crate::support::client::{Client, assert_has, offset, position};
use crate::support::eventually::until;
use crate::support::gateway::{JSON, Running, config, price, publish, until_state};
use crate::support::redis::{on_prefix, redis};

/// The last entry of each key as a client of the protocol maintains it, and its position. With each message
/// it checks that nothing is repeated except what may be.
#[derive(Debug, Default)]
struct Board {
    /// Prices and removals.
    last: BTreeMap<String, Value>,
    position: Option<String>,
    /// The keys received so far in the current snapshot.
    came: Option<HashSet<String>>,
    /// The ids received since the newest snapshot began.
    ids: HashSet<String>,
    in_doubt: bool,
    /// How many snapshots began, and how many entries they had in total.
    begun: usize,
    latest: usize,
    /// Whether the last snapshot was said to be complete.
    is_whole: bool,
}

impl Board {
    fn take(&mut self, message: &Value) {
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
                    self.last.retain(|key, _| came.contains(key));
                }
            }
            "price_update" | "key_removed" | "zone_removed" => self.take_entry(message),
            _ => {}
        }
    }

    fn take_entry(&mut self, message: &Value) {
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        let is_latest = message["snapshot"] == true;
        // In a snapshot, an entry that was received before need not be dropped.
        let is_new = self.ids.insert(text("id"));
        assert!(is_new || (self.in_doubt && !is_latest), "twice: {message}");
        // The removal of all keys has an empty key.
        let key = text("key");
        if is_latest {
            self.came.as_mut().expect("a snapshot that began").insert(key.clone());
            self.latest += 1;
        } else {
            assert!(self.came.is_none(), "in the middle of a snapshot: {message}");
            let epoch = self.position.as_deref().unwrap().rsplit_once(':').unwrap().0;
            self.position = Some(format!("{epoch}:{}", offset(message)));
            if message["type"] == "zone_removed" {
                self.last.retain(|_, held| !is_newer(message, held));
            }
            let held = self.last.get(&key).or_else(|| self.last.get(""));
            if held.is_some_and(|held| !is_newer(message, held)) {
                return;
            }
        }
        self.last.insert(key, message.clone());
    }

    /// The prices of keys from this one on.
    fn prices_from(&self, first: &str) -> impl Iterator<Item = (&str, u64)> {
        let all = self.last.range::<str, _>((Bound::Included(first), Bound::Unbounded));
        let prices = all.filter(|(_, last)| last["type"] == "price_update");
        prices.map(|(key, last)| (key.as_str(), last["price"].as_u64().unwrap()))
    }

    fn prices(&self) -> impl Iterator<Item = (&str, u64)> {
        self.prices_from("")
    }

    /// The first key from this one on whose price differs from the expected one.
    fn differs(&self, first: &str, expected: &BTreeMap<String, u64>) -> Option<String> {
        let all = expected.range::<str, _>((Bound::Included(first), Bound::Unbounded));
        let mut expected = all.map(|(key, price)| (key.as_str(), *price));
        let mut prices = self.prices_from(first);
        loop {
            match (prices.next(), expected.next()) {
                (None, None) => return None,
                (price, expected) if price == expected => {}
                (price, expected) => {
                    return price.into_iter().chain(expected).map(|(key, _)| key.to_owned()).min();
                }
            }
        }
    }

    async fn until(&mut self, client: &mut Client, what: &str, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            self.step(client, what).await;
        }
    }

    /// Reads the next message.
    async fn step(&mut self, client: &mut Client, what: &str) {
        let message = client.next().await;
        assert_ne!(message["type"], "closing", "{what}: {message}");
        self.take(&message);
    }

    /// Reads until it has a complete snapshot.
    async fn until_whole(&mut self, client: &mut Client) {
        self.until(client, "a snapshot", |board| board.is_whole).await;
    }

    /// Reads until it knows the last published prices.
    async fn until_equal(&mut self, client: &mut Client, expected: &BTreeMap<String, u64>) {
        // Continue at the first key that differed last time, and finally check from the first key.
        let mut from = String::new();
        loop {
            self.until_whole(client).await;
            match self.differs(&from, expected) {
                None if from.is_empty() => return,
                None => from.clear(),
                Some(key) => {
                    from = key;
                    self.step(client, "all prices").await;
                }
            }
        }
    }
}

/// Whether an entry replaces the last one of its key: a late one may be older.
fn is_newer(entry: &Value, held: &Value) -> bool {
    let id = |of: &Value| {
        let (by, number) = of["id"].as_str().unwrap().rsplit_once('-').unwrap();
        (by.to_owned(), number.parse::<u64>().unwrap())
    };
    let ((by, number), (held_by, held_number)) = (id(entry), id(held));
    match entry["late"] == true {
        false => true,
        true if by == held_by => number >= held_number,
        true => (entry["timestamp"].as_str().unwrap(), by) > (held["timestamp"].as_str().unwrap(), held_by),
    }
}

/// Publishes a price for each key.
async fn fill(gateway: &Running, keys: usize, value: u64, filler: usize) -> BTreeMap<String, u64> {
    let filler = "x".repeat(filler);
    let keys: Vec<String> = (0..keys).map(|n| format!("K{n:05}")).collect();
    for some in keys.chunks(1_000) {
        let prices = some.iter().map(|key| json!({ "key": key, "price": value, "filler": filler }));
        gateway.publish("pjm", prices).await;
    }
    keys.into_iter().map(|key| (key, value)).collect()
}

/// A client with hardly any buffer for what it does not read, after `subscribed`.
async fn slow_client(gateway: &Running) -> (Client, Board) {
    let mut client = Client::connect_small(&gateway.url("/ws/market/pjm?snapshot=1")).await;
    let mut board = Board::default();
    board.until(&mut client, "subscribed", |board| board.begun == 1).await;
    (client, board)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_has_the_latest_of_each_key_and_later_entries_follow() {
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", [price("B", 1), price("A", 2), price("B", 3), price("C", 4)]).await;
    assert_eq!(gateway.delete("/api/zones/pjm/keys/C").await.status, 204);
    let mut client = gateway.connect("/ws/market/pjm?snapshot=1").await;
    assert_eq!(client.next().await["type"], "connection_established");
    let subscribed = client.next().await;
    let told = (&subscribed["recovered"], &subscribed["gap"], &subscribed["snapshot"], offset(&subscribed));
    assert_eq!(told, (&json!(true), &json!(0), &json!(true), 5), "{subscribed}");
    for (key, value, at) in [("A", 2, 2), ("B", 3, 3)] {
        let latest = client.next().await;
        assert_has(&latest, json!({ "type": "price_update", "snapshot": true }));
        assert_eq!((&latest["key"], &latest["price"], offset(&latest)), (&json!(key), &json!(value), at));
    }
    // Late entries are compared with a removal too.
    let removed = client.next().await;
    assert_has(&removed, json!({ "type": "key_removed", "snapshot": true, "key": "C", "offset": 5 }));
    let end = client.next().await;
    assert_eq!((&end["type"], &end["recovered"], offset(&end)), (&json!("snapshot_end"), &json!(true), 5));
    assert_ne!(end["epoch"], subscribed["epoch"], "what it has had is said by its position");
    gateway.publish("pjm", [price("A", 5)]).await;
    let next = client.next().await;
    assert_eq!((&next["price"], next.get("snapshot"), offset(&next)), (&json!(5), None, 6));
    client.close().await;

    // After its end nothing is missing, and another snapshot is not needed.
    let since = |at: &str, more: &str| gateway.url(&format!("/ws/market/pjm?since={at}{more}"));
    for more in ["", "&snapshot=1"] {
        let mut client = Client::connect(&since(&position(&end), more)).await;
        let subscribed = client.next_of_type("subscribed").await;
        assert_eq!((&subscribed["recovered"], subscribed.get("snapshot")), (&json!(true), None));
        assert_eq!(client.next().await["price"], 5);
    }
    // From the middle of it a new snapshot is needed; a client that does not ask for one is told that
    // something is missing.
    let mut client = Client::connect(&since(&position(&subscribed), "&snapshot=true")).await;
    let again = client.next_of_type("subscribed").await;
    assert_eq!((&again["recovered"], &again["snapshot"]), (&json!(false), &json!(true)));
    let mut board = Board::default();
    board.take(&again);
    // The snapshot may be slightly old, and later entries follow.
    board.until_equal(&mut client, &BTreeMap::from([("A".to_owned(), 5), ("B".to_owned(), 3)])).await;
    let mut client = Client::connect(&since(&position(&subscribed), "")).await;
    let plain = client.next_of_type("subscribed").await;
    assert_eq!((&plain["recovered"], plain.get("gap"), plain.get("snapshot")), (&json!(false), None, None));
    // A position in a log that is gone.
    let mut client = Client::connect(&since("0123456789abcdef:3", "&snapshot=1")).await;
    assert_eq!(client.next_of_type("subscribed").await["snapshot"], true);

    // The last one may still be on its way.
    until("three snapshots of three entries are counted", async || {
        let stats = gateway.stats().await["messages"].take();
        stats["snapshots"] == 3 && stats["snapshot_entries"] == 9
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_can_be_requested_by_message_and_concerns_zones() {
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", [price("A", 1)]).await;
    let mut client = gateway.client().await;
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
    // A zone that nobody has published to yet.
    gateway.publish("new", [price("A", 7)]).await;
    assert_eq!(client.next_of_type("price_update").await["price"], 7);

    client.send(&json!({ "type": "subscribe", "channels": ["zone:pjm"], "snapshot": "yes" })).await;
    assert_eq!(client.next_of_type("error").await["code"], "invalid_message");
    let mark = json!({ "key": "A", "price": 1, "snapshot": true }).to_string();
    gateway.post("pjm", JSON, mark.as_bytes()).await.problem(422, "reserved_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_ten_thousand_keys_is_paged_while_another_gateway_publishes() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) =
        (Running::start(on_prefix(&server, "snap")).await, Running::start(on_prefix(&server, "snap")).await);
    until_state(a.address, "healthy").await;
    until_state(b.address, "healthy").await;
    let mut expected = fill(&a, 10_000, 0, 10).await;
    // Clients come while prices are published; the log no longer has every key, but each has a latest price.
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
            let mut board = Board::default();
            board.until_equal(&mut client, &expected).await;
            assert!(board.latest >= 5_000, "{}", board.latest);
            board.begun
        });
    }
    while let Some(watched) = watching.join_next().await {
        assert_eq!(watched.unwrap(), 1);
    }
    publishing.join_next().await.unwrap().unwrap();
    // Many clients at once share one reading.
    let before = b.stats().await["messages"]["replay_reads"].as_u64().unwrap();
    let mut watching = JoinSet::new();
    for _ in 0..20 {
        let (url, expected) = (b.url("/ws/market/pjm?snapshot=1"), expected.clone());
        watching.spawn(async move {
            let (mut client, mut board) = (Client::connect(&url).await, Board::default());
            board.until_equal(&mut client, &expected).await;
        });
    }
    while let Some(watched) = watching.join_next().await {
        watched.unwrap();
    }
    let reads = b.stats().await["messages"]["replay_reads"].as_u64().unwrap() - before;
    assert!((10..100).contains(&reads), "{reads} pages were read for 20 clients");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_in_the_middle_of_a_snapshot_leaves_no_gap() {
    let Some(server) = redis(&[]).await else { return };
    let link = Proxy::start(server.target.address).await.unwrap();
    let mut cut_off = on_prefix(&server, "cut");
    cut_off.storage.redis.port = Some(link.address.port());
    let (a, b) = (Running::start(on_prefix(&server, "cut")).await, Running::start(cut_off).await);
    until_state(b.address, "healthy").await;
    let mut expected = fill(&a, 3_000, 0, 3_000).await;
    let (mut client, mut board) = slow_client(&b).await;
    link.set(Mode::Refuse);
    until_state(b.address, "degraded").await;
    // Both continue: one with the log, the other in a fork.
    a.publish("pjm", [price("K00001", 10), price("ofA", 11)]).await;
    b.publish("pjm", [price("K00002", 20), price("ofB", 21)]).await;
    expected
        .extend([("K00001", 10), ("ofA", 11), ("K00002", 20), ("ofB", 21)].map(|(k, v)| (k.to_owned(), v)));
    // Part of the snapshot was on its way. The gateway has only a part of the rest, and says so.
    board.until(&mut client, "what can be reached", |board| board.begun > 1 && board.came.is_none()).await;
    assert!(!board.is_whole && board.in_doubt && !board.last.contains_key("ofA"));
    assert_eq!(board.last["ofB"]["price"], 21, "its own prices are told at once");
    let (from_b, position) = (board.begun, board.position.clone().unwrap());
    link.set(Mode::Pass);
    board.until_equal(&mut client, &expected).await;
    assert_eq!(board.begun, from_b + 1);
    a.publish("pjm", [price("K00003", 30)]).await;
    expected.insert("K00003".to_owned(), 30);
    board.until_equal(&mut client, &expected).await;

    // A client that left with the partial snapshot gets everything elsewhere.
    let mut client = a.connect(&format!("/ws/market/pjm?snapshot=1&since={position}")).await;
    let mut board = Board::default();
    board.until_equal(&mut client, &expected).await;
    assert_eq!(board.begun, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_too_slow_for_the_log_gets_another_snapshot() {
    let mut config = config();
    config.storage.retention.entries = 100;
    config.connections.hold_entries_max = 10;
    let gateway = Running::start(config).await;
    let mut expected = fill(&gateway, 2_000, 0, 3_000).await;
    let (mut client, mut board) = slow_client(&gateway).await;
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
    board.until_whole(&mut client).await;
    let told = client.next_of_type("resync").await;
    assert_eq!((&told["recovered"], &told["snapshot"]), (&json!(false), &json!(true)), "{told}");
    board.take(&told);
    board.until_equal(&mut client, &expected).await;
    assert_eq!(board.begun, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_older_price_does_not_restore_a_removed_key() {
    let Some(server) = redis(&[]).await else { return };
    let link = Proxy::start(server.target.address).await.unwrap();
    let mut cut_off = on_prefix(&server, "gone");
    cut_off.storage.redis.port = Some(link.address.port());
    let (a, b) = (Running::start(on_prefix(&server, "gone")).await, Running::start(cut_off).await);
    until_state(a.address, "healthy").await;
    until_state(b.address, "healthy").await;
    let keys = ["K", "L", "M", "N"];
    a.publish("pjm", keys.iter().map(|key| price(key, 1))).await;
    let (url_a, url_b) = (a.url("/ws/market/pjm?snapshot=1"), b.url("/ws/market/pjm?snapshot=1"));
    let (mut at_a, mut of_a) = (Client::connect(&url_a).await, Board::default());
    let (mut at_b, mut of_b) = (Client::connect(&url_b).await, Board::default());
    let mut expected: BTreeMap<String, u64> = keys.iter().map(|key| ((*key).to_owned(), 1)).collect();
    of_a.until_equal(&mut at_a, &expected).await;
    of_b.until_equal(&mut at_b, &expected).await;

    link.set(Mode::Refuse);
    until_state(b.address, "degraded").await;
    // B has prices from before A's removals, and one from after them.
    b.publish("pjm", ["K", "M"].map(|key| price(key, 2))).await;
    assert_eq!(a.delete("/api/zones/pjm/keys/K").await.status, 204);
    assert_eq!(a.delete("/api/zones/pjm/keys/L").await.status, 204);
    b.publish("pjm", [price("L", 3)]).await;
    // And B removes a key of which A has a price from before and another one from after.
    a.publish("pjm", [price("N", 4)]).await;
    assert_eq!(b.delete("/api/zones/pjm/keys/N").await.status, 204);
    // A client that comes meanwhile and receives the removals.
    let (mut late, mut of_late) = (Client::connect(&url_a).await, Board::default());
    of_late.until_whole(&mut late).await;
    link.set(Mode::Pass);
    until_state(b.address, "healthy").await;
    expected = BTreeMap::from([("L".to_owned(), 3), ("M".to_owned(), 2)]);
    for (client, board) in [(&mut at_a, &mut of_a), (&mut at_b, &mut of_b), (&mut late, &mut of_late)] {
        board.until_equal(client, &expected).await;
    }
    // Nothing else was delayed: later prices change nothing else.
    a.publish("pjm", [price("end", 5)]).await;
    expected.insert("end".to_owned(), 5);
    for (client, board) in [(&mut at_a, &mut of_a), (&mut at_b, &mut of_b), (&mut late, &mut of_late)] {
        board.until(client, "the end", |board| board.last.contains_key("end")).await;
        assert!(board.prices().eq(expected.iter().map(|(key, price)| (key.as_str(), *price))));
    }
    for gateway in [&a, &b] {
        let latest = gateway.get("/api/zones/pjm/latest").await.json()["entries"].take();
        let latest = latest.as_array().unwrap().iter();
        let latest = latest.map(|entry| (entry["key"].as_str().unwrap(), entry["price"].as_u64().unwrap()));
        assert!(latest.eq(expected.iter().map(|(key, price)| (key.as_str(), *price))));
    }

    // A removal of the whole zone, of which the cut-off gateway has a price from before and one from after.
    link.set(Mode::Refuse);
    until_state(b.address, "degraded").await;
    b.publish("pjm", [price("M", 6)]).await;
    assert_eq!(a.delete("/api/zones/pjm").await.status, 204);
    b.publish("pjm", [price("new", 7)]).await;
    link.set(Mode::Pass);
    until_state(b.address, "healthy").await;
    let expected = BTreeMap::from([("new".to_owned(), 7)]);
    for (client, board) in [(&mut at_a, &mut of_a), (&mut at_b, &mut of_b), (&mut late, &mut of_late)] {
        board.until_equal(client, &expected).await;
    }
    let (mut anew, mut of_anew) = (Client::connect(&url_b).await, Board::default());
    of_anew.until_equal(&mut anew, &expected).await;
    assert_eq!(of_anew.last[""]["type"], "zone_removed");
}
