//! Orders whose updates come from outside workers on Redis, and outside consumers of the gateway's updates.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time;
use zonewire::config::{Config, ExecutorChoice};
use zonewire::model::OrderId;
use zonewire::storage::{OutsideEvent, RedisBackend, Retention, StorageBackend as _};
use zonewire_kit::redis::{DURABLE, RedisServer};
use zonewire_kit::resp::{Connection, Reply};

use crate::support;
use crate::support::client::{Client, LIMIT, assert_has, offset};
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Running, config, until_stat};
use crate::support::orders::{get_order, place, post_json, until_ended};
use crate::support::redis::{Configured, redis};
use crate::support::tools::NodeScripts;

fn on(server: &RedisServer) -> Config {
    let mut config = support::redis::on(server);
    config.storage.redis = server.patient_config();
    config.interop.order_channels = true;
    config
}

/// An outside worker's plain connection to Redis.
struct Raw(Connection);

impl Raw {
    async fn connect(server: &RedisServer) -> Self {
        Self(server.target.open().await.unwrap())
    }

    /// The texts of the answer; no command may be refused.
    async fn ask(&mut self, command: &[&str]) -> Vec<String> {
        texts(self.0.ask(command).await.unwrap())
    }

    /// The next published message.
    async fn next(&mut self) -> Vec<String> {
        texts(self.0.next().await.unwrap())
    }

    async fn push(&mut self, order: OrderId, update: &str) {
        let list = format!("order:{order}:updates");
        self.ask(&["RPUSH", &list, update]).await;
        self.ask(&["LTRIM", &list, "-50", "-1"]).await;
        self.ask(&["EXPIRE", &list, "300"]).await;
    }

    async fn publish(&mut self, order: OrderId, update: &str) {
        let channel = format!("order:{order}");
        self.ask(&["PUBLISH", &channel, update]).await;
    }

    /// Writes an update to both the list and the channel.
    async fn leave(&mut self, order: OrderId, push_first: bool, update: &str) {
        if push_first {
            self.push(order, update).await;
            self.publish(order, update).await;
        } else {
            self.publish(order, update).await;
            self.push(order, update).await;
        }
    }

    async fn list(&mut self, order: OrderId) -> Vec<String> {
        let list = format!("order:{order}:updates");
        self.ask(&["LRANGE", &list, "0", "-1"]).await
    }
}

fn texts(reply: Reply) -> Vec<String> {
    assert!(!matches!(reply, Reply::Error(_)), "{reply:?}");
    reply.texts()
}

fn update(kind: &str, number: u64) -> String {
    json!({ "orderId": "as the worker has it", "status": kind, "number": number }).to_string()
}

/// A gateway, a client that watches a new order there, and an outside worker.
async fn watched(server: &RedisServer, change: impl FnOnce(&mut Config)) -> (Running, OrderId, Client, Raw) {
    let (gateway, order) = (Running::changed(on(server), change).await, OrderId::random());
    let client = watch(&gateway, order).await;
    (gateway, order, client, Raw::connect(server).await)
}

async fn watch(gateway: &Running, order: OrderId) -> Client {
    gateway.follow(&format!("order:{order}")).await
}

/// The order's updates, up to the one with this number.
async fn updates_to(client: &mut Client, last: u64) -> Vec<Value> {
    let mut updates = Vec::new();
    loop {
        let message = client.next().await;
        if message["number"].is_u64() {
            let is_last = message["number"] == last;
            updates.push(message);
            if is_last {
                return updates;
            }
        }
    }
}

fn numbers(updates: &[Value]) -> Vec<u64> {
    let offsets: Vec<u64> = updates.iter().map(offset).collect();
    assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "{offsets:?}");
    updates.iter().map(|update| update["number"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outside_workers_updates_become_entries() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = Running::changed(on(&server), |config| config.connections.order_linger_ms = 10).await;
    let mut worker = Raw::connect(&server).await;
    for push_first in [true, false] {
        let order = OrderId::random();
        // Two updates exist before anybody watches.
        worker.leave(order, push_first, &update("routing", 1)).await;
        worker.leave(order, push_first, &update("building", 2)).await;
        let mut client = watch(&gateway, order).await;
        worker
            .leave(
                order,
                push_first,
                &json!({ "type": "submitted", "id": 7, "number": 3, "price": 1.50, "timestamp": 1_610_064_000_278u64 })
                    .to_string(),
            )
            .await;
        worker.leave(order, push_first, &update("confirmed", 4)).await;
        let updates = updates_to(&mut client, 4).await;
        assert_eq!(numbers(&updates), [1, 2, 3, 4], "push first: {push_first}");
        let types: Vec<&str> = updates.iter().map(|update| update["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["routing", "building", "submitted", "confirmed"]);
        assert_eq!(updates[0]["status"], "routing");
        assert_has(&updates[2], json!({ "sourceId": 7, "timestamp": "2021-01-08T00:00:00.278Z" }));
        assert_eq!(worker.list(order).await.len(), 4, "reading removes nothing, and adds nothing");
    }
    // A socket opened on the order ends with it, even a late one.
    let order = OrderId::random();
    let mut client = gateway.connect(&format!("/ws/orders/{order}")).await;
    client.next_of_type("subscribed").await;
    worker.leave(order, true, &update("submitted", 1)).await;
    worker.leave(order, true, &update("failed", 2)).await;
    let late = async || {
        let url = gateway.url(&format!("/api/orders/status/{order}"));
        Client::connect(&url).await.until_close().await
    };
    for (messages, code, _) in [client.until_close().await, late().await] {
        let updates: Vec<Value> = messages.into_iter().filter(|message| message["number"].is_u64()).collect();
        assert_eq!((numbers(&updates), code), (vec![1, 2], 1000));
    }
    // An update is counted after it was appended.
    assert_eq!(until_stat(&gateway, "/interop/accepted", 10).await, 10);
    assert_eq!(gateway.stats().await["interop"]["lost"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_that_are_only_published_arrive_too() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = Running::start(on(&server)).await;
    let mut worker = Raw::connect(&server).await;
    let order = OrderId::random();
    let mut client = watch(&gateway, order).await;
    until_stat(&gateway, "/interop/followed", 1).await;
    followed(&mut worker, order).await;
    for number in 1..=3 {
        worker.publish(order, &update("routing", number)).await;
    }
    assert_eq!(numbers(&updates_to(&mut client, 3).await), [1, 2, 3]);
}

/// Waits until a gateway has subscribed.
async fn followed(worker: &mut Raw, order: OrderId) {
    let channel = format!("order:{order}");
    until("a gateway subscribes", async || {
        let answer = worker.ask(&["PUBSUB", "NUMSUB", &channel]).await;
        answer.last().is_some_and(|count| count != "0")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_that_race_workers_miss_nothing_and_get_nothing_twice() {
    const ORDERS: u64 = 60;
    let Some(server) = redis(&[]).await else { return };
    let gateways = [Running::start(on(&server)).await, Running::start(on(&server)).await];
    let mut races = JoinSet::new();
    for seed in 0..ORDERS {
        let mut random = StdRng::seed_from_u64(seed);
        let order = OrderId::random();
        let mut worker = Raw::connect(&server).await;
        let urls = gateways.each_ref().map(|gateway| gateway.url("/ws"));
        races.spawn(async move {
            let push_first = seed % 2 == 0;
            let (before, count) = (random.random_range(0..8), 12);
            for number in 1..=before {
                worker.leave(order, push_first, &update("routing", number)).await;
            }
            let working = async {
                for number in before + 1..=count {
                    worker.leave(order, push_first, &update("building", number)).await;
                }
            };
            let watching = async |url: &str| {
                let mut client = Client::connect(url).await;
                client.send(&json!({ "type": "subscribe", "channels": [format!("order:{order}")] })).await;
                let updates = updates_to(&mut client, count).await;
                client.close().await;
                updates
            };
            let ((), a, b) = tokio::join!(working, watching(&urls[0]), watching(&urls[1]));
            (order, [a, b])
        });
    }
    while let Some(race) = races.join_next().await {
        let (order, [a, b]) = race.unwrap();
        // A client that subscribes when the log already has some entries gets the following ones, or all.
        for updates in [&a, &b] {
            let numbers = numbers(updates);
            let first = numbers[0];
            assert_eq!(numbers, (first..=12).collect::<Vec<_>>(), "{order}");
        }
        let common = a.len().min(b.len());
        let ids = |updates: &[Value]| -> Vec<Value> {
            updates[updates.len() - common..].iter().map(|update| update["id"].clone()).collect()
        };
        assert_eq!(ids(&a), ids(&b), "{order}");
        assert!(a[0]["number"] == 1 || b[0]["number"] == 1, "the first to come gets all of them: {order}");
    }
    // An update is counted after it was appended.
    until("each update is in its log once", async || {
        let mut sum = 0;
        for gateway in &gateways {
            let stats = gateway.stats().await["interop"].clone();
            sum += stats["accepted"].as_u64().unwrap();
            assert_eq!((&stats["lost"], &stats["gaps"]), (&json!(0), &json!(0)));
        }
        assert!(sum <= ORDERS * 12, "{sum}");
        sum == ORDERS * 12
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_show_the_same_sequence_once() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let order = OrderId::random();
    let mut clients = [watch(&a, order).await, watch(&b, order).await];
    let mut workers = [Raw::connect(&server).await, Raw::connect(&server).await];
    for number in 1..=40 {
        let at = usize::from(number % 3 == 0);
        workers[at].leave(order, at == 0, &update("routing", number)).await;
    }
    let mut seen = Vec::new();
    for client in &mut clients {
        seen.push(updates_to(client, 40).await);
    }
    assert_eq!(numbers(&seen[0]), (1..=40).collect::<Vec<_>>());
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_restarts_in_between_loses_nothing_that_is_in_the_list() {
    let Some(mut server) = redis(&DURABLE).await else { return };
    let (_gateway, order, mut client, mut worker) = watched(&server, |_| ()).await;
    for number in 1..=5 {
        worker.leave(order, number % 2 == 0, &update("routing", number)).await;
    }
    assert_eq!(numbers(&updates_to(&mut client, 5).await), [1, 2, 3, 4, 5]);
    server.kill().await.unwrap();
    server.restart().await.unwrap();
    // Nobody is subscribed yet.
    let mut worker = Raw::connect(&server).await;
    for number in 6..=9 {
        worker.leave(order, number % 2 == 0, &update("building", number)).await;
    }
    let mut updates = updates_to(&mut client, 9).await;
    followed(&mut worker, order).await;
    worker.leave(order, true, &update("submitted", 10)).await;
    updates.extend(updates_to(&mut client, 10).await);
    assert_eq!(numbers(&updates), [6, 7, 8, 9, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_loses_nothing_that_is_in_the_list() {
    let Some(server) = redis(&[]).await else { return };
    let (gateway, order, mut client, mut worker) =
        watched(&server, |config| config.storage.redis = server.config()).await;
    worker.leave(order, true, &update("routing", 1)).await;
    assert_eq!(numbers(&updates_to(&mut client, 1).await), [1]);
    server.freeze().unwrap();
    let text = update("building", 2);
    let list = format!("order:{order}:updates");
    worker.0.send(&["RPUSH", &list, &text]).await.unwrap();
    until("the gateway notices", async || gateway.get("/ws/health").await.json()["degraded"] == true).await;
    server.thaw().unwrap();
    assert_eq!(numbers(&updates_to(&mut client, 2).await), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_counted_and_blocks_nothing() {
    let Some(server) = redis(&[]).await else { return };
    let (gateway, order, mut client, mut worker) =
        watched(&server, |config| config.http.line_bytes_max = 4_096).await;
    followed(&mut worker, order).await;
    let large = json!({ "type": "routing", "message": "x".repeat(5_000) }).to_string();
    let deep = "[".repeat(2_000);
    for garbage in
        ["", "routing", "{", &deep, "[]", "7", "{}", r#"{"type":"dance"}"#, &large, "\u{0}\u{1b}[2J"]
    {
        worker.leave(order, true, garbage).await;
    }
    // Other programs may use such names for something else.
    worker.ask(&["PUBLISH", "order:", "x"]).await;
    let elsewhere = OrderId::random();
    worker.ask(&["SET", &format!("order:{elsewhere}:updates"), "a text"]).await;
    let mut other = watch(&gateway, elsewhere).await;
    until_stat(&gateway, "/interop/unreadable", 1).await;
    worker.publish(elsewhere, &update("routing", 1)).await;
    assert_eq!(numbers(&updates_to(&mut other, 1).await), [1]);

    worker.leave(order, true, &update("routing", 1)).await;
    assert_eq!(numbers(&updates_to(&mut client, 1).await), [1]);
    let invalid = gateway.stats().await["interop"]["invalid"].clone();
    assert_eq!(invalid, json!({ "not_json": 4, "not_an_object": 3, "no_stage": 2, "too_large": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_that_left_the_list_unread_are_reported_as_a_gap() {
    let Some(server) = redis(&[]).await else { return };
    let (gateway, order, mut client, mut worker) = watched(&server, |_| ()).await;
    worker.leave(order, true, &update("routing", 1)).await;
    updates_to(&mut client, 1).await;
    client.close().await;
    until("nobody watches it", async || gateway.stats().await["interop"]["followed"] == 0).await;
    for number in 2..=61 {
        worker.leave(order, true, &update("building", number)).await;
    }
    let mut client = watch(&gateway, order).await;
    let updates = updates_to(&mut client, 61).await;
    let new: Vec<Value> = updates.into_iter().filter(|update| update["number"] != 1).collect();
    assert_eq!(numbers(&new), (12..=61).collect::<Vec<_>>());
    let marked: Vec<&Value> = new.iter().filter(|update| update["missedBefore"] == true).collect();
    assert_eq!(marked.len(), 1);
    assert_eq!(marked[0]["number"], 12);
    assert_eq!(until_stat(&gateway, "/interop/gaps", 1).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_orders_work_as_without_the_setting() {
    let gateway = Running::changed(config(), |config| config.interop.order_channels = true).await;
    let order = OrderId::random();
    let mut client = watch(&gateway, order).await;
    tell(&gateway, order, &json!([{ "type": "confirmed", "number": 1 }])).await;
    assert_eq!(numbers(&updates_to(&mut client, 1).await), [1]);
    let interop = gateway.stats().await["interop"].clone();
    assert_eq!((&interop["followed"], &interop["mirrored"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_updates_of_an_order_that_is_executed_here_are_refused() {
    let Some(server) = redis(&[]).await else { return };
    let gateway =
        Running::changed(on(&server), |config| config.orders.executor = ExecutorChoice::External).await;
    let id = place(gateway.address).await;
    let order: OrderId = id.parse().unwrap();
    let mut client = watch(&gateway, order).await;
    let mut worker = Raw::connect(&server).await;
    followed(&mut worker, order).await;
    worker.leave(order, true, r#"{"type":"failed","attempt":4294967295}"#).await;
    until("it is refused", async || gateway.stats().await["interop"]["refused"]["has_job"] == 1).await;
    let seen = get_order(gateway.address, &id).await;
    assert_eq!((&seen["status"], &seen["updates"]), (&json!("pending"), &json!([])));
    assert_eq!(client.until_pong().await, [] as [Value; 0]);
    // Updates of another order are accepted, and read within bounds.
    let other = OrderId::random();
    let mut watching = watch(&gateway, other).await;
    followed(&mut worker, other).await;
    worker.leave(other, true, r#"{"type":"routing","attempt":4294967295,"number":1}"#).await;
    assert_eq!(numbers(&updates_to(&mut watching, 1).await), [1]);
    let path = format!("/api/orders/{other}/updates");
    let next = json!({ "type": "building", "progress": 50 });
    post_json(gateway.address, &path, &next).await.problem(422, "invalid_update");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nothing_is_read() {
    let Some(server) = redis(&[]).await else { return };
    let (_gateway, order, mut client, mut worker) =
        watched(&server, |config| config.interop.order_channels = false).await;
    worker.leave(order, true, &update("routing", 1)).await;
    assert!(client.until_pong().await.is_empty());
    let subscribed = worker.ask(&["PUBSUB", "NUMSUB", &format!("order:{order}")]).await;
    assert_eq!(subscribed.last().unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_for_outside_consumers_are_written_once_and_in_order() {
    let Some(server) = redis(&[]).await else { return };
    let (backend, driver) = RedisBackend::connect(&server.config(), Retention::default()).await.unwrap();
    let outside = backend.outside_orders().unwrap();
    let mut drivers = JoinSet::new();
    drivers.spawn(driver);
    drivers.spawn(outside.driver);
    let outside_orders = outside.role;
    let mut incoming = outside_orders.take_incoming().unwrap();
    assert!(outside_orders.take_incoming().is_none());
    let order = OrderId::random();
    eventually("it connects and follows", async || outside_orders.follow(order).await.ok()).await;
    let mut consumer = Raw::connect(&server).await;
    consumer.ask(&["SUBSCRIBE", &format!("order:{order}")]).await;

    let text = |number: usize| Bytes::from(format!("update {number}"));
    let all: Vec<Bytes> = (1..=60).map(text).collect();
    outside_orders.write(order, &all[..30]).await.unwrap();
    // Repeated as after a lost answer, and then more.
    outside_orders.write(order, &all[..30]).await.unwrap();
    outside_orders.write(order, &all[29..]).await.unwrap();
    outside_orders.write(order, &[]).await.unwrap();

    let mut raw = Raw::connect(&server).await;
    let expected: Vec<String> = (11..=60).map(|number| format!("update {number}")).collect();
    assert_eq!(raw.list(order).await, expected);
    assert_eq!(outside_orders.window(order, 3).await.unwrap(), all[57..]);
    let expires = raw.ask(&["TTL", &format!("order:{order}:updates")]).await;
    assert!((1..=300).contains(&expires[0].parse::<u64>().unwrap()), "{expires:?}");
    for number in 1..=60 {
        let message = consumer.next().await;
        assert_eq!(message.last().unwrap(), &format!("update {number}"));
        loop {
            match time::timeout(LIMIT, incoming.recv()).await.unwrap().unwrap() {
                OutsideEvent::Published { order: of, update } => {
                    assert_eq!((of, update), (order, text(number)));
                    break;
                }
                OutsideEvent::Suspect => {}
            }
        }
    }
    outside_orders.unfollow(order).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_follows_the_last_update() {
    let Some(server) = redis(&[]).await else { return };
    let (gateway, order, mut client, mut worker) = watched(&server, |_| ()).await;
    worker.leave(order, true, &update("submitted", 1)).await;
    worker.leave(order, true, &update("confirmed", 2)).await;
    worker.leave(order, true, &update("failed", 3)).await;
    worker.leave(order, true, &update("routing", 4)).await;
    assert_eq!(numbers(&updates_to(&mut client, 2).await), [1, 2]);
    until_stat(&gateway, "/interop/refused/closed", 2).await;
    let latest = eventually("the order is known", async || {
        let answer = gateway.get(&format!("/api/orders/{order}")).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!((&latest["status"], &latest["lastUpdate"]["number"]), (&json!("confirmed"), &json!(2)));
    assert!(client.until_pong().await.iter().all(|message| message["number"].is_null()));
}

/// Publishes updates of an order without a job, as an outside producer does.
async fn tell(gateway: &Running, order: OrderId, updates: &Value) {
    let path = format!("/api/orders/{order}/updates");
    let answer = post_json(gateway.address, &path, updates).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_consumers_receive_the_same_updates_as_sockets() {
    let Some(server) = redis(&[]).await else { return };
    let gateways = [Running::start(on(&server)).await, Running::start(on(&server)).await];
    let order = OrderId::random();
    let mut clients = [watch(&gateways[0], order).await, watch(&gateways[1], order).await];
    let mut raw = Raw::connect(&server).await;
    let mut consumer = Raw::connect(&server).await;
    consumer.ask(&["SUBSCRIBE", &format!("order:{order}")]).await;

    let routing = json!({ "type": "routing", "progress": 10, "number": 1 });
    let building = json!({ "type": "building", "progress": 50, "number": 2 });
    tell(&gateways[0], order, &json!([routing, building])).await;
    until("both are written", async || raw.list(order).await.len() == 2).await;
    // At another node, and by an outside worker in between.
    raw.leave(order, true, &update("submitted", 3)).await;
    assert_eq!(numbers(&updates_to(&mut clients[0], 3).await), [1, 2, 3]);
    tell(&gateways[1], order, &json!({ "type": "confirmed", "number": 4 })).await;
    let confirmed = updates_to(&mut clients[0], 4).await;
    let sent = updates_to(&mut clients[1], 4).await;
    assert_eq!(numbers(&sent), [1, 2, 3, 4], "updates written for others are not read back");
    assert_eq!(numbers(&confirmed), [4]);

    let written = eventually("all are written", async || {
        let list = raw.list(order).await;
        (list.len() == 4).then_some(list)
    })
    .await;
    let parsed: Vec<Value> = written.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    for at in [0, 1, 3] {
        assert_eq!(parsed[at], sent[at]);
    }
    for text in &written {
        assert_eq!(consumer.next().await.last(), Some(text));
    }
    let expires = raw.ask(&["TTL", &format!("order:{order}:updates")]).await;
    assert!((1..=300).contains(&expires[0].parse::<u64>().unwrap()), "{expires:?}");
    // An update is counted after it was written.
    until("all that was written is counted", async || {
        let mut mirrored = 0;
        for gateway in &gateways {
            let stats = gateway.stats().await["interop"].clone();
            mirrored += stats["mirrored"].as_u64().unwrap();
            assert_eq!((&stats["mirror_failures"], &stats["invalid"]["no_stage"]), (&json!(0), &json!(0)));
        }
        assert!(mirrored <= 3, "{mirrored}");
        mirrored == 3
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_consumers_follow_orders_of_our_workers_to_their_end() {
    const ORDERS: usize = 10;
    let Some(server) = redis(&[]).await else { return };
    let gateway = Running::changed(on(&server), |config| config.orders.paper.step_ms = 5).await;
    let mut raw = Raw::connect(&server).await;
    let mut placed = Vec::new();
    for _ in 0..ORDERS {
        placed.push(place(gateway.address).await);
    }
    for id in placed {
        let ended = until_ended(gateway.address, &id).await;
        let order: OrderId = id.parse().unwrap();
        let count = ended["updates"].as_array().unwrap().len();
        let written = eventually("all are written", async || {
            let list = raw.list(order).await;
            (list.len() == count).then_some(list)
        })
        .await;
        let written: Vec<Value> = written.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(json!(written), ended["updates"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_written_does_not_block_updates() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = Running::start(on(&server)).await;
    let [order, other] = [OrderId::random(), OrderId::random()];
    let mut raw = Raw::connect(&server).await;
    raw.ask(&["SET", &format!("order:{order}:updates"), "a text"]).await;
    let mut client = watch(&gateway, order).await;
    for order in [order, other] {
        tell(&gateway, order, &json!({ "type": "routing", "progress": 10, "number": 1 })).await;
    }
    assert_eq!(numbers(&updates_to(&mut client, 1).await), [1]);
    until_stat(&gateway, "/interop/mirror_failures", 1).await;
    until("the other one is written", async || raw.list(other).await.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appended_updates_are_written_for_others_before_the_node_stops() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = Running::start(on(&server)).await;
    let order = OrderId::random();
    let updates: Vec<Value> =
        (1..=20).map(|number| json!({ "type": "routing", "progress": 10, "number": number })).collect();
    tell(&gateway, order, &json!(updates)).await;
    gateway.stop().await;
    assert_eq!(Raw::connect(&server).await.list(order).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_on_bullmq_and_ioredis_is_followed() {
    let Some(server) = redis(&[]).await else { return };
    let Some(scripts) = NodeScripts::find() else { return };
    let gateway = Running::start(on(&server)).await;
    for way in ["push-first", "publish-first"] {
        let orders: Vec<OrderId> = (0..8).map(|_| OrderId::random()).collect();
        let mut clients = Vec::new();
        // Half of the sockets are connected before the orders exist.
        for order in &orders[..4] {
            clients.push(watch(&gateway, *order).await);
        }
        let port = server.port.to_string();
        let queue = vec![port.clone(), format!("orders-{way}")];
        let args = [queue.clone(), vec![way.to_owned(), orders.len().to_string()]].concat();
        let mut worker = scripts.node("worker.mjs", &args).spawn().unwrap();
        let ids = orders.iter().map(OrderId::to_string).collect();
        let placed = scripts.node("place.mjs", &[queue, ids].concat()).status();
        let (placed, ()) = tokio::join!(time::timeout(LIMIT, placed), async {
            for order in &orders[4..] {
                clients.push(watch(&gateway, *order).await);
            }
        });
        assert!(placed.unwrap().unwrap().success());
        for client in &mut clients {
            let mut seen = Vec::new();
            while seen.last().is_none_or(|update: &Value| update["type"] != "confirmed") {
                let message = client.next().await;
                if message["step"].is_u64() {
                    seen.push(message);
                }
            }
            let steps: Vec<u64> = seen.iter().map(|update| update["step"].as_u64().unwrap()).collect();
            let types: Vec<&Value> = seen.iter().map(|update| &update["type"]).collect();
            assert_eq!(steps, [1, 2, 3, 4], "{way}");
            assert_eq!(types, ["routing", "building", "submitted", "confirmed"]);
            assert_eq!((&seen[3]["executedPrice"], &seen[3]["txHash"]), (&json!(1.5), &json!("f00d")));
        }
        let ended = time::timeout(LIMIT, worker.wait()).await.expect("the worker ends in time").unwrap();
        assert!(ended.success());
    }
    assert_eq!(until_stat(&gateway, "/interop/accepted", 64).await, 64);
    let stats = gateway.stats().await["interop"].clone();
    assert_eq!((&stats["lost"], &stats["gaps"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_on_ioredis_sees_our_orders() {
    let Some(server) = redis(&[]).await else { return };
    let Some(scripts) = NodeScripts::find() else { return };
    let gateway = Running::start(on(&server)).await;
    let order = OrderId::random();
    tell(&gateway, order, &json!({ "type": "routing", "progress": 10, "number": 1 })).await;
    let args = [server.port.to_string(), order.to_string()];
    let consumer = scripts.node("consumer.mjs", &args).spawn().unwrap();
    let mut raw = Raw::connect(&server).await;
    followed(&mut raw, order).await;
    tell(&gateway, order, &json!({ "type": "submitted", "progress": 75, "number": 2 })).await;
    tell(&gateway, order, &json!({ "type": "confirmed", "number": 3 })).await;
    let output = time::timeout(LIMIT, consumer.wait_with_output()).await.expect("it ends in time").unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    let seen: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(numbers(&seen), [1, 2, 3]);
}
