//! The stream of an order's updates as clients receive it: everything once and in order, or else a report of
//! what is missing; and its end.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;
use zonewire::config::Config;
use zonewire_kit::redis::RedisServer;

use crate::support::client::{Came, Client, assert_has, field_names, is_birth, offset};
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Answer, Running, config, price, until_stat};
use crate::support::orders::{new_order, place_this, post_json};
use crate::support::redis::{Admin, Configured, on, redis};

const STAGES: [&str; 5] = ["routing", "building", "submitted", "confirmed", "failed"];

/// The storage that the gateways of a test share; `None` means memory.
struct Place(Option<RedisServer>);

impl Place {
    /// A configuration that closes connections as soon as their order has ended.
    fn config(&self) -> Config {
        let mut config = self.0.as_ref().map_or_else(config, on);
        if let Some(server) = &self.0 {
            config.storage.redis = server.patient_config();
        }
        config.connections.order_linger_ms = 0;
        config
    }

    async fn start(&self) -> Running {
        Running::start(self.config()).await
    }

    /// Two gateways on the same Redis; in memory there can be only one.
    async fn start_all(&self, config: Config) -> Vec<Running> {
        let mut all = vec![Running::start(config.clone()).await];
        if self.0.is_some() {
            all.push(Running::start(config).await);
        }
        all
    }
}

/// Runs each test in memory and on Redis.
macro_rules! everywhere {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Place(None)).await;
            })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(server) = super::redis(&[]).await else { return };
                super::$name(super::Place(Some(server))).await;
            })*
        }
    };
}

everywhere!(
    a_socket_may_be_connected_before_the_order_exists,
    stored_updates_come_first_and_then_new_ones,
    a_connection_stays_a_while_after_the_end,
    a_late_client_receives_an_ended_order,
    updates_beyond_the_window_are_reported_missing,
    expired_updates_are_reported_missing,
    a_reader_that_reconnects_repeatedly_misses_nothing,
    a_slow_reader_is_closed_and_resumes_without_loss,
    the_last_update_is_written_before_the_close,
    no_update_follows_the_last_one,
    an_order_executed_here_is_followed_to_its_end,
    one_connection_follows_many_orders,
    many_orders_and_readers_at_once,
);

/// Update number `n` of an order. More updates of the same stage may follow it.
fn update(stage: &str, n: u64) -> Value {
    let (progress, message) = match stage {
        "routing" => (10, "looking for a venue"),
        "building" => (50, "building the transaction"),
        "submitted" => (75, "sent"),
        "confirmed" => (100, "executed"),
        "failed" => (0, "not executed"),
        _ => panic!("{stage}"),
    };
    let mut update = json!({ "type": stage, "progress": progress, "message": message, "n": n });
    if stage == "failed" {
        update["error"] = json!({ "code": "no_route", "message": "no venue" });
        update["attempts"] = json!(1);
    }
    update
}

/// Updates from number `first` on: so many of `routing`, then one of each further stage.
fn updates_of(first: u64, routings: u64, further: &[&str]) -> Vec<Value> {
    let stages = std::iter::repeat_n("routing", routings as usize).chain(further.iter().copied());
    (first..).zip(stages).map(|(n, stage)| update(stage, n)).collect()
}

async fn post(gateway: &Running, order: &str, updates: &[Value]) -> Answer {
    post_json(gateway.address, &format!("/api/orders/{order}/updates"), &json!(updates)).await
}

/// Publishes updates, all of which must be accepted.
async fn publish(gateway: &Running, order: &str, updates: &[Value]) {
    for some in updates.chunks(50) {
        let answer = post(gateway, order, some).await;
        assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(some.len())), "{answer:?}");
    }
}

fn path(order: &str, since: Option<&str>) -> String {
    let since = since.map(|since| format!("?since={since}")).unwrap_or_default();
    format!("/ws/orders/{order}{since}")
}

/// A client of an order, after its first two messages, and `subscribed`.
async fn watch(gateway: &Running, order: &str, since: Option<&str>) -> (Client, Value) {
    greeted(gateway.connect(&path(order, since)).await, order).await
}

async fn greeted(mut client: Client, order: &str) -> (Client, Value) {
    let connection = client.next().await;
    assert_eq!((&connection["type"], &connection["orderId"]), (&json!("connection"), &json!(order)));
    let subscribed = client.next().await;
    assert_eq!((&subscribed["type"], &subscribed["orderId"]), (&json!("subscribed"), &json!(order)));
    assert_eq!(subscribed["channel"], format!("order:{order}"));
    assert!(subscribed["message"].as_str().is_some_and(|text| !text.is_empty()), "{subscribed}");
    (client, subscribed)
}

fn assert_whole(subscribed: &Value, offset: u64) {
    assert_has(subscribed, json!({ "offset": offset, "recovered": true, "gap": 0 }));
}

fn assert_gap(subscribed: &Value, offset: u64, gap: u64) {
    assert_has(subscribed, json!({ "offset": offset, "recovered": false, "gap": gap }));
}

/// The next updates, which must have these offsets.
async fn updates(client: &mut Client, offsets: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    let mut updates = Vec::new();
    for expected in offsets {
        let mut update = client.next().await;
        if is_birth(&update) {
            update = client.next().await;
        }
        assert!(STAGES.contains(&update["type"].as_str().unwrap()), "{update}");
        assert_eq!(offset(&update), expected, "{update}");
        updates.push(update);
    }
    updates
}

/// The end of an order: only `closing` and the close frame, which say not to reconnect.
async fn until_end(client: &mut Client) {
    let (rest, code, reason) = client.until_close().await;
    let rest: Vec<&Value> = rest.iter().filter(|message| message["type"] != "heartbeat").collect();
    assert_eq!((rest.len(), code, reason.as_str()), (1, 1000, "normal"), "{rest:?}");
    assert_eq!((&rest[0]["type"], &rest[0]["code"]), (&json!("closing"), &json!(1000)));
    assert_eq!(rest[0].get("retry_after_ms"), None);
}

fn ids(updates: &[Value]) -> Vec<&str> {
    updates.iter().map(|update| update["id"].as_str().unwrap()).collect()
}

async fn a_socket_may_be_connected_before_the_order_exists(place: Place) {
    let gateway =
        Running::changed(place.config(), |config| config.connections.heartbeat_interval_s = 1).await;
    let order = new_order();
    let mut clients = Vec::new();
    for endpoint in ["/ws/orders", "/api/orders/status"] {
        let mut client = gateway.connect(&format!("{endpoint}/{order}")).await;
        let connection = client.next().await;
        assert_eq!(
            field_names(&connection).join(" "),
            "connection_id heartbeat_interval_ms message orderId protocol state storage_backend timestamp type"
        );
        assert_eq!(connection["type"], "connection");
        assert!(connection["connection_id"].as_str().unwrap().parse::<Uuid>().is_ok());
        assert_eq!(connection["orderId"], order);
        assert_eq!(connection["heartbeat_interval_ms"], 1_000);
        assert_eq!(connection["message"], "Connected to order status stream");
        let subscribed = client.next().await;
        assert_eq!(
            field_names(&subscribed).join(" "),
            "channel epoch gap message offset orderId recovered timestamp top type"
        );
        assert_whole(&subscribed, 0);
        client.came_until_heartbeats(1).await;
        clients.push(client);
    }
    // The list of connections shows the order.
    let listed = gateway.stats().await["connection_list"].as_array().unwrap().clone();
    assert!(listed.iter().all(|info| info["channels"] == json!([format!("order:{order}")])), "{listed:?}");

    // Upper case names the same order.
    publish(&gateway, &order.to_uppercase(), &updates_of(1, 1, &["building", "submitted", "confirmed"]))
        .await;
    for client in &mut clients {
        let all = updates(client, 1..=4).await;
        assert_eq!(all[0]["progress"], 10);
        assert_has(&all[3], json!({ "type": "confirmed", "progress": 100, "n": 4 }));
        assert_eq!(all[3]["channel"], format!("order:{order}"));
        until_end(client).await;
    }
    drop(clients);
    assert_eq!(until_stat(&gateway, "/connections/closed_by_reason/normal", 2).await, 2);
}

async fn stored_updates_come_first_and_then_new_ones(place: Place) {
    let gateways = place.start_all(place.config()).await;
    let (gateway, other) = (&gateways[0], gateways.last().unwrap());
    let order = new_order();
    publish(gateway, &order, &updates_of(1, 3, &[])).await;
    let mut clients = Vec::new();
    for at in &gateways {
        for _ in 0..10 {
            let (client, subscribed) = watch(at, &order, None).await;
            assert_whole(&subscribed, 0);
            clients.push(client);
        }
        let (client, subscribed) = watch(at, &order, None).await;
        let since = format!("{}:2", subscribed["epoch"].as_str().unwrap());
        drop(client);
        let (mut client, subscribed) = watch(at, &order, Some(&since)).await;
        assert_whole(&subscribed, 2);
        updates(&mut client, 3..=3).await;
    }
    let mut seen = Vec::new();
    for client in &mut clients {
        seen.push(updates(client, 1..=3).await);
    }
    publish(gateway, &order, &updates_of(4, 2, &[])).await;
    publish(other, &order, &updates_of(6, 0, &["building", "failed"])).await;
    for (client, seen) in clients.iter_mut().zip(&mut seen) {
        seen.extend(updates(client, 4..=7).await);
        until_end(client).await;
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "the same for all");
    assert!(seen[0].iter().zip(1..).all(|(update, n)| update["n"] == n));
    assert_eq!(seen[0][6]["error"]["code"], "no_route");
}

async fn a_connection_stays_a_while_after_the_end(place: Place) {
    let mut config = place.config();
    config.connections.order_linger_ms = 3_600_000;
    config.connections.heartbeat_interval_s = 1;
    let stays = Running::start(config.clone()).await;
    let order = new_order();
    let (mut early, _) = watch(&stays, &order, None).await;
    publish(&stays, &order, &updates_of(1, 1, &["failed"])).await;
    let (mut late, subscribed) = watch(&stays, &order, None).await;
    let end = format!("{}:2", subscribed["epoch"].as_str().unwrap());
    let (mut at_end, _) = watch(&stays, &order, Some(&end)).await;
    updates(&mut early, 1..=2).await;
    updates(&mut late, 1..=2).await;
    for client in [&mut early, &mut late, &mut at_end] {
        client.came_until_heartbeats(2).await;
        assert_eq!(client.until_pong().await, [] as [Value; 0], "it is still there");
    }
    drop((early, late, at_end));
    stays.stop().await;

    config.connections.order_linger_ms = 200;
    let goes = Running::start(config).await;
    let order = new_order();
    let (mut early, subscribed) = watch(&goes, &order, None).await;
    publish(&goes, &order, &updates_of(1, 1, &["failed"])).await;
    let (mut late, _) = watch(&goes, &order, None).await;
    let end = format!("{}:2", subscribed["epoch"].as_str().unwrap());
    let (mut at_end, _) = watch(&goes, &order, Some(&end)).await;
    updates(&mut early, 1..=2).await;
    updates(&mut late, 1..=2).await;
    for client in [&mut early, &mut late, &mut at_end] {
        until_end(client).await;
    }
}

async fn a_late_client_receives_an_ended_order(place: Place) {
    let gateways = place.start_all(place.config()).await;
    let gateway = &gateways[0];
    let order = new_order();
    publish(gateway, &order, &updates_of(1, 2, &["building", "submitted", "confirmed"])).await;
    for at in &gateways {
        let (mut client, subscribed) = watch(at, &order, None).await;
        assert_whole(&subscribed, 0);
        let said = format!(
            "Subscribed to real-time updates for order {}. The order has ended; its updates follow",
            subscribed["orderId"].as_str().unwrap()
        );
        assert_eq!(subscribed["message"], said.as_str());
        updates(&mut client, 1..=5).await;
        until_end(&mut client).await;
        let epoch = subscribed["epoch"].as_str().unwrap();
        for had in 0..=5 {
            let (mut client, subscribed) = watch(at, &order, Some(&format!("{epoch}:{had}"))).await;
            assert_whole(&subscribed, had);
            updates(&mut client, had + 1..=5).await;
            until_end(&mut client).await;
        }
        // A position that is not in this log.
        for since in [format!("{epoch}:6"), "0123456789abcdef:3".to_owned()] {
            let (mut client, subscribed) = watch(at, &order, Some(&since)).await;
            assert_eq!((&subscribed["recovered"], subscribed.get("gap")), (&json!(false), None), "{since}");
            updates(&mut client, 1..=5).await;
            until_end(&mut client).await;
        }
    }
}

async fn updates_beyond_the_window_are_reported_missing(place: Place) {
    let gateway = place.start().await;
    let order = new_order();
    publish(&gateway, &order, &updates_of(1, 60, &[])).await;
    let (mut client, subscribed) = watch(&gateway, &order, None).await;
    assert_gap(&subscribed, 10, 10);
    let mut seen = updates(&mut client, 11..=60).await;
    let epoch = subscribed["epoch"].as_str().unwrap();
    for (had, first, gap) in [(0, 10, 10), (4, 10, 6), (10, 10, 0), (55, 55, 0)] {
        let (mut client, subscribed) = watch(&gateway, &order, Some(&format!("{epoch}:{had}"))).await;
        if gap == 0 {
            assert_whole(&subscribed, first)
        } else {
            assert_gap(&subscribed, first, gap)
        }
        updates(&mut client, first + 1..=60).await;
    }
    publish(&gateway, &order, &updates_of(61, 0, &["building", "submitted", "confirmed"])).await;
    seen.extend(updates(&mut client, 61..=63).await);
    until_end(&mut client).await;
    assert!(seen.iter().zip(11..).all(|(update, n)| update["n"] == n));
    let (mut client, subscribed) = watch(&gateway, &order, None).await;
    assert_gap(&subscribed, 13, 13);
    updates(&mut client, 14..=63).await;
    until_end(&mut client).await;
}

async fn expired_updates_are_reported_missing(place: Place) {
    let gateway = Running::changed(place.config(), |config| config.storage.retention.orders.age_s = 1).await;
    let (ended, goes_on) = (new_order(), new_order());
    let (mut live, _) = watch(&gateway, &goes_on, None).await;
    publish(&gateway, &ended, &updates_of(1, 2, &["failed"])).await;
    publish(&gateway, &goes_on, &updates_of(1, 2, &[])).await;
    updates(&mut live, 1..=2).await;
    for (order, top) in [(&ended, 3), (&goes_on, 2)] {
        eventually("its updates are no longer kept", async || {
            let (_, subscribed) = watch(&gateway, order, None).await;
            (offset(&subscribed) == top).then(|| assert_gap(&subscribed, top, top))
        })
        .await;
    }
    let (mut client, subscribed) = watch(&gateway, &ended, None).await;
    let said = format!(
        "Subscribed to real-time updates for order {}. The order has ended, and its updates are no longer kept",
        subscribed["orderId"].as_str().unwrap()
    );
    assert_eq!(subscribed["message"], said.as_str());
    let epoch = subscribed["epoch"].as_str().unwrap();
    until_end(&mut client).await;
    let (mut client, subscribed) = watch(&gateway, &ended, Some(&format!("{epoch}:1"))).await;
    assert_gap(&subscribed, 3, 2);
    until_end(&mut client).await;
    let (mut client, subscribed) = watch(&gateway, &ended, Some(&format!("{epoch}:3"))).await;
    assert_whole(&subscribed, 3);
    until_end(&mut client).await;

    // The other order continues with the updates after the gap.
    let (mut client, _) = watch(&gateway, &goes_on, None).await;
    publish(&gateway, &goes_on, &updates_of(3, 0, &["building", "confirmed"])).await;
    for client in [&mut client, &mut live] {
        updates(client, 3..=4).await;
        until_end(client).await;
    }
}

/// Follows an order to its end over any number of connections, and checks that nothing is missing or doubled.
struct Watcher {
    order: String,
    position: Option<(String, u64)>,
    seen: Vec<Value>,
    slow_closes: usize,
}

impl Watcher {
    fn new(order: &str) -> Self {
        Self { order: order.to_owned(), position: None, seen: Vec::new(), slow_closes: 0 }
    }

    fn last(&self) -> u64 {
        self.seen.last().map_or(0, offset)
    }

    /// Reads to the end. Leaves and reconnects to one of the gateways after a random number of updates, from
    /// 1 to `most`.
    async fn read(&mut self, bases: &[String], random: &mut StdRng, most: usize) {
        loop {
            let since = self.position.as_ref().map(|(epoch, offset)| format!("{epoch}:{offset}"));
            let base = &bases[random.random_range(0..bases.len())];
            let url = format!("{base}{}", path(&self.order, since.as_deref()));
            let (mut client, subscribed) = greeted(Client::connect(&url).await, &self.order).await;
            assert_whole(&subscribed, self.last());
            self.position = Some((subscribed["epoch"].as_str().unwrap().to_owned(), self.last()));
            if self.take(&mut client, random.random_range(1..=most)).await {
                return;
            }
            // Half of them without closing, as on a lost network.
            if random.random_bool(0.5) {
                client.close().await;
            }
        }
    }

    /// Takes up to `most` updates from a connection; true if the order has ended.
    async fn take(&mut self, client: &mut Client, most: usize) -> bool {
        for _ in 0..most {
            let message: Value = loop {
                match client.came().await {
                    Came::Text(text) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        if message["type"] != "heartbeat" && message["type"] != "closing" {
                            break message;
                        }
                    }
                    Came::Ping => {}
                    Came::Close(1000, _) => return true,
                    Came::Close(4001, _) => {
                        self.slow_closes += 1;
                        return false;
                    }
                    other => panic!("{other:?} after {}", self.last()),
                }
            };
            if is_birth(&message) {
                self.position = Some((message["epoch"].as_str().unwrap().to_owned(), 0));
                continue;
            }
            assert!(STAGES.contains(&message["type"].as_str().unwrap()), "{message}");
            assert_eq!(offset(&message), self.last() + 1, "{message}");
            assert_eq!(message["n"], offset(&message), "{message}");
            if let Some((_, offset)) = &mut self.position {
                *offset += 1;
            }
            self.seen.push(message);
        }
        false
    }

    fn assert_ended(&self, count: u64, stage: &str) {
        assert_eq!(self.seen.len() as u64, count);
        assert_eq!(self.seen.last().unwrap()["type"], stage);
    }
}

async fn a_reader_that_reconnects_repeatedly_misses_nothing(place: Place) {
    const READERS: u64 = 6;
    let gateways = place.start_all(place.config()).await;
    let (gateway, other) = (&gateways[0], gateways.last().unwrap());
    let bases: Vec<String> = gateways.iter().map(|gateway| gateway.url("")).collect();
    let order = new_order();
    let mut reading = JoinSet::new();
    for seed in 0..READERS {
        let (mut watcher, bases) = (Watcher::new(&order), bases.clone());
        reading.spawn(async move {
            watcher.read(&bases, &mut StdRng::seed_from_u64(seed), 8).await;
            watcher
        });
    }
    for n in 1..=40 {
        let at = if n % 2 == 0 { other } else { gateway };
        publish(at, &order, &updates_of(n, 1, &[])).await;
    }
    publish(gateway, &order, &updates_of(41, 0, &["building", "submitted", "confirmed"])).await;
    let watchers = reading.join_all().await;
    for watcher in &watchers {
        watcher.assert_ended(43, "confirmed");
        assert_eq!(ids(&watcher.seen), ids(&watchers[0].seen));
    }
}

/// A configuration with a small outbox and a long log.
fn small_outbox(mut config: Config) -> Config {
    config.http.line_bytes_max = 4_096;
    config.connections.outbox_frames_max = 200;
    config.connections.outbox_bytes_max = 32 << 10;
    config.storage.retention.orders.updates = 10_000;
    config
}

fn padded(mut update: Value) -> Value {
    update["padding"] = json!("x".repeat(400));
    update
}

async fn a_slow_reader_is_closed_and_resumes_without_loss(place: Place) {
    const COUNT: u64 = 3_000;
    let gateway = Running::start(small_outbox(place.config())).await;
    let order = new_order();
    let slow = Client::connect_small(&gateway.url(&path(&order, None))).await;
    let (mut slow, subscribed) = greeted(slow, &order).await;
    let mut reading = JoinSet::new();
    let (mut fast, bases) = (Watcher::new(&order), [gateway.url("")]);
    reading.spawn(async move {
        fast.read(&bases, &mut StdRng::seed_from_u64(0), usize::MAX).await;
        fast
    });
    let all: Vec<Value> = updates_of(1, COUNT - 1, &["confirmed"]).into_iter().map(padded).collect();
    publish(&gateway, &order, &all).await;
    until_stat(&gateway, "/messages/dropped_by_reason/slow_consumer", 1).await;

    let mut watcher = Watcher::new(&order);
    watcher.position = Some((subscribed["epoch"].as_str().unwrap().to_owned(), 0));
    assert!(!watcher.take(&mut slow, usize::MAX).await);
    assert_eq!(watcher.slow_closes, 1);
    assert!(watcher.last() < COUNT, "it was cut off before the end");
    watcher.read(&[gateway.url("")], &mut StdRng::seed_from_u64(0), usize::MAX).await;
    watcher.assert_ended(COUNT, "confirmed");
    reading.join_all().await[0].assert_ended(COUNT, "confirmed");
}

async fn the_last_update_is_written_before_the_close(place: Place) {
    let mut config = place.config();
    // A reader is cut off at once if it is closed before it has read everything.
    config.connections.close_grace_ms = 0;
    config.connections.outbox_bytes_max = 64 << 20;
    let gateway = Running::start(config).await;
    let order = new_order();
    let (mut live, _) = greeted(Client::connect_small(&gateway.url(&path(&order, None))).await, &order).await;
    let heavy = |mut update: Value| {
        update["padding"] = json!("x".repeat(60_000));
        update
    };
    let all: Vec<Value> = updates_of(1, 45, &["failed"]).into_iter().map(heavy).collect();
    for some in all.chunks(10) {
        publish(&gateway, &order, some).await;
    }
    let (mut late, _) = greeted(Client::connect_small(&gateway.url(&path(&order, None))).await, &order).await;
    until("both wait", async || {
        let list = gateway.stats().await["connection_list"].as_array().unwrap().clone();
        list.iter().all(|info| info["health"] == "behind")
    })
    .await;
    for client in [&mut live, &mut late] {
        updates(client, 1..=46).await;
        match client.came().await {
            Came::Text(text) => assert!(text.contains(r#""type":"closing","code":1000"#), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

async fn no_update_follows_the_last_one(place: Place) {
    let gateways = place.start_all(place.config()).await;
    let (gateway, other) = (&gateways[0], gateways.last().unwrap());
    let order = new_order();
    publish(gateway, &order, &updates_of(1, 1, &["building"])).await;
    publish(gateway, &order, &updates_of(3, 0, &["failed"])).await;
    for at in &gateways {
        for stage in ["confirmed", "failed", "routing"] {
            post(at, &order, &[update(stage, 9)]).await.problem(409, "already_ended");
        }
        let (mut client, _) = watch(at, &order, None).await;
        updates(&mut client, 1..=3).await;
        until_end(&mut client).await;
        let refused = at.stats().await;
        assert_eq!(refused["channels"]["epoch_changes"], 0);
    }
    // Two updates that end an order at the same time: one of them does.
    for _ in 0..10 {
        let order = new_order();
        let (mut client, _) = watch(gateway, &order, None).await;
        let (one, two) = (updates_of(1, 0, &["confirmed"]), updates_of(1, 0, &["failed"]));
        let at = [gateway, other];
        let (one, two) = tokio::join!(post(at[0], &order, &one), post(at[1], &order, &two));
        let refused = if one.status == 200 { two } else { one };
        refused.problem(409, "already_ended");
        updates(&mut client, 1..=1).await;
        until_end(&mut client).await;
    }
}

async fn an_order_executed_here_is_followed_to_its_end(place: Place) {
    let mut config = place.config();
    config.orders.paper.step_ms = 20;
    config.orders.retry_first_ms = 10;
    let gateways = place.start_all(config).await;
    let (gateway, other) = (&gateways[0], gateways.last().unwrap());
    let order = json!({ "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1, "slippage": 0.01 });
    let mut seen: Vec<Vec<Value>> = Vec::new();
    for _ in 0..5 {
        let order = place_this(gateway.address, &order).await;
        let mut reading = JoinSet::new();
        for at in [gateway, other] {
            let url = at.url(&path(&order, None));
            let order = order.clone();
            reading.spawn(async move {
                let (mut client, subscribed) = greeted(Client::connect(&url).await, &order).await;
                assert_whole(&subscribed, 0);
                let (mut rest, code, _) = client.until_close().await;
                rest.retain(|message| message["type"] != "heartbeat" && !is_birth(message));
                (rest, code)
            });
        }
        for (mut all, code) in reading.join_all().await {
            assert_eq!((code, &all.pop().unwrap()["type"]), (1000, &json!("closing")));
            assert!(all.iter().zip(1..).all(|(update, n)| offset(update) == n), "{all:?}");
            let last = all.last().unwrap()["type"].as_str().unwrap();
            assert!(["confirmed", "failed"].contains(&last), "{all:?}");
            seen.push(all);
        }
        assert_eq!(seen.pop(), seen.pop(), "the same for both");
    }
}

async fn one_connection_follows_many_orders(place: Place) {
    let gateway =
        Running::changed(place.config(), |config| config.connections.order_linger_ms = 3_600_000).await;
    let orders: Vec<String> = std::iter::repeat_with(new_order).take(3).collect();
    publish(&gateway, &orders[0], &updates_of(1, 1, &["building"])).await;
    publish(&gateway, &orders[1], &updates_of(1, 1, &["failed"])).await;
    let mut client = gateway.client().await;
    let mut channels: Vec<String> = orders.iter().map(|order| format!("order:{order}")).collect();
    channels.push("zone:pjm".to_owned());
    client.send(&json!({ "type": "subscribe", "id": 1, "channels": channels })).await;
    let (mut told, mut seen, mut epochs) = (0, HashMap::<String, Vec<u64>>::new(), HashMap::new());
    let mut take = |message: Value| {
        let channel = message["channel"].as_str().unwrap().to_owned();
        if message["type"] == "subscribed" {
            assert_eq!(message["id"], 1);
            assert_whole(&message, 0);
            let order = channel.strip_prefix("order:");
            assert_eq!(message.get("orderId").and_then(Value::as_str), order);
            assert_eq!(message.get("message").is_some(), order.is_some());
            epochs.insert(channel, message["epoch"].as_str().unwrap().to_owned());
            told += 1;
        } else {
            seen.entry(channel).or_default().push(offset(&message));
        }
        (told, seen.values().map(Vec::len).sum::<usize>())
    };
    while take(client.next().await) != (4, 4) {}
    publish(&gateway, &orders[2], &updates_of(1, 1, &["confirmed"])).await;
    publish(&gateway, &orders[0], &updates_of(3, 0, &["submitted", "confirmed"])).await;
    gateway.publish("pjm", [price("A", 1)]).await;
    while take(client.next().await) != (4, 9) {}
    for (channel, count) in channels.iter().zip([4, 2, 2, 1]) {
        assert_eq!(seen[channel], (1..=count).collect::<Vec<u64>>(), "{channel}");
    }
    assert_eq!(client.until_pong().await, [] as [Value; 0], "it stays, though all orders have ended");

    // From a position, and from the start again; after unsubscribing the client receives nothing more.
    let since = json!({ &channels[0]: format!("{}:2", epochs[&channels[0]]) });
    client.send(&json!({ "type": "subscribe", "channels": [channels[0]], "since": since })).await;
    assert_whole(&client.next().await, 2);
    updates(&mut client, 3..=4).await;
    client.send(&json!({ "type": "subscribe", "channels": [channels[0].to_uppercase().replace("ORDER", "order")] })).await;
    assert_whole(&client.next().await, 0);
    updates(&mut client, 1..=4).await;
    let written_otherwise = channels[0].to_uppercase().replace("ORDER", "order");
    client.send(&json!({ "type": "unsubscribe", "channels": [written_otherwise] })).await;
    let unsubscribed = client.next().await;
    assert_has(&unsubscribed, json!({ "type": "unsubscribed", "channel": channels[0] }));
    client.send(&json!({ "type": "subscribe", "id": 7, "channels": ["order:1"] })).await;
    let error = client.next().await;
    assert_eq!((&error["code"], &error["id"]), (&json!("invalid_channel"), &json!(7)));
    drop(client);
    gateway.stop().await;

    // With other settings, each of these subscriptions ends with its order, and the connection stays open.
    let gateway = place.start().await;
    let mut client = gateway.client().await;
    let order = new_order();
    publish(&gateway, &order, &updates_of(1, 1, &["confirmed"])).await;
    let (channel, other) = (format!("order:{order}"), format!("order:{}", new_order()));
    client.send(&json!({ "type": "subscribe", "id": 1, "channels": [channel, other, "zone:pjm"] })).await;
    let ended = client.next_of_type("unsubscribed").await;
    assert_has(&ended, json!({ "channel": channel, "code": "finished" }));
    assert_eq!(ended.get("id"), None);
    client.send(&json!({ "type": "unsubscribe", "id": 2, "channels": [channel] })).await;
    let error = client.next().await;
    assert_eq!((&error["code"], &error["id"]), (&json!("not_subscribed"), &json!(2)));
    gateway.publish("pjm", [price("A", 1)]).await;
    assert_eq!(client.prices(1).await[0]["channel"], "zone:pjm");
}

async fn many_orders_and_readers_at_once(place: Place) {
    const ORDERS: u64 = 50;
    const READERS: u64 = 4;
    const UPDATES: u64 = 12;
    let gateways = place.start_all(place.config()).await;
    let bases: Vec<String> = gateways.iter().map(|gateway| gateway.url("")).collect();
    let orders: Vec<String> = std::iter::repeat_with(new_order).take(ORDERS as usize).collect();
    let mut reading = JoinSet::new();
    for (order, place) in orders.iter().zip(0..) {
        for reader in 0..READERS {
            let (mut watcher, bases) = (Watcher::new(order), bases.clone());
            let mut random = StdRng::seed_from_u64(place * READERS + reader);
            reading.spawn(async move {
                // At a random moment: some before the order exists, some after its end.
                for _ in 0..random.random_range(0..400) {
                    tokio::task::yield_now().await;
                }
                let most = if reader % 2 == 0 { usize::MAX } else { 5 };
                watcher.read(&bases, &mut random, most).await;
                watcher
            });
        }
    }
    let publishing = orders.iter().zip(0..).map(|(order, place)| {
        let gateways = &gateways;
        async move {
            let mut random = StdRng::seed_from_u64(place);
            let mut n = 1;
            while n < UPDATES {
                let some = random.random_range(1..=(UPDATES - n).min(3));
                let at = &gateways[random.random_range(0..gateways.len())];
                publish(at, order, &updates_of(n, some, &[])).await;
                n += some;
            }
            let stage = if place % 2 == 0 { "confirmed" } else { "failed" };
            publish(&gateways[0], order, &updates_of(n, 0, &[stage])).await;
        }
    });
    futures_util::future::join_all(publishing).await;
    let mut by_order: HashMap<String, Vec<Vec<Value>>> = HashMap::new();
    for watcher in reading.join_all().await {
        let stage = if orders.iter().position(|order| *order == watcher.order).unwrap() % 2 == 0 {
            "confirmed"
        } else {
            "failed"
        };
        watcher.assert_ended(UPDATES, stage);
        by_order.entry(watcher.order).or_default().push(watcher.seen);
    }
    assert!(by_order.values().all(|seen| seen.iter().all(|one| *one == seen[0])));
    // The nodes release everything; only the storage has anything left.
    for gateway in &gateways {
        until("channels are let go", async || gateway.stats().await["channels"]["active"] == 0).await;
        // A channel may be let go before the connection that followed it has ended.
        until("connections end", async || gateway.stats().await["connections"]["open"] == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_order_id_is_refused_with_a_reason() {
    let gateway = Place(None).start().await;
    let order = new_order();
    for endpoint in ["/ws/orders", "/api/orders/status"] {
        let good = format!("{endpoint}/{order}");
        gateway.get(&good).await.problem(426, "upgrade_required");
        for bad in ["1", "not-a-uuid", &order.replace('-', ""), &format!("{order}0"), "%ff", "%7Bx%7D"] {
            let error = refused(&gateway, &format!("{endpoint}/{bad}")).await;
            assert_eq!(error["code"], "invalid_channel");
            assert!(error["message"].as_str().unwrap().contains("expected a UUID"), "{error}");
        }
        assert_eq!(refused(&gateway, &format!("{good}?since=x")).await["code"], "invalid_position");
    }
}

/// The error of a socket that is closed for good.
async fn refused(gateway: &Running, path: &str) -> Value {
    let mut client = gateway.connect(path).await;
    let (mut told, code, reason) = client.until_close().await;
    assert_eq!((told.len(), code, reason.as_str()), (2, 4502, "bad_request"), "{told:?}");
    told.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_watched_orders_without_updates_is_limited() {
    let gateway = Running::changed(config(), |config| config.channels.zones_max = 1).await;
    let published = new_order();
    publish(&gateway, &published, &updates_of(1, 1, &[])).await;
    let _first = watch(&gateway, &new_order(), None).await;
    let _second = watch(&gateway, &new_order(), None).await;
    let order = new_order();
    let mut third = gateway.connect(&path(&order, None)).await;
    third.next_of_type("connection").await;
    let error = third.next().await;
    assert_has(&error, json!({ "code": "too_many_orders", "channel": format!("order:{order}") }));
    // Publishing and delivery do not depend on that limit.
    let (mut client, _) = watch(&gateway, &published, None).await;
    publish(&gateway, &order, &updates_of(1, 1, &["failed"])).await;
    publish(&gateway, &published, &updates_of(2, 0, &["failed"])).await;
    updates(&mut client, 1..=2).await;
    gateway.publish("pjm", [price("A", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_storage_lost_is_restored_and_continues() {
    let Some(server) = redis(&[]).await else { return };
    let place = Place(Some(server));
    let gateway =
        Running::changed(place.config(), |config| config.connections.order_linger_ms = 3_600_000).await;
    let order = new_order();
    let (mut client, _) = watch(&gateway, &order, None).await;
    publish(&gateway, &order, &updates_of(1, 2, &[])).await;
    updates(&mut client, 1..=2).await;
    assert_eq!(place.0.as_ref().unwrap().admin(&["FLUSHALL"]).await, "OK");
    publish(&gateway, &order, &updates_of(3, 1, &["confirmed"])).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let message = client.next().await;
        match message["type"].as_str() {
            Some("resync") => assert_eq!(message["recovered"], true, "{message}"),
            Some("backend_state") => {}
            _ => seen.push(message["n"].clone()),
        }
    }
    assert_eq!(seen, [3, 4]);
    // A new client gets all of it.
    eventually("the log has it all again", async || {
        let told = gateway.get(&format!("/api/orders/{order}")).await.json();
        let numbers: Vec<&Value> = told["updates"].as_array()?.iter().map(|update| &update["n"]).collect();
        (numbers == [1, 2, 3, 4]).then_some(())
    })
    .await;
    // Nothing follows a terminal update, even after it was lost and restored.
    assert_eq!(post(&gateway, &order, &updates_of(5, 1, &[])).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn unseen_updates_and_an_unseen_end_are_reported() {
    let Some(server) = redis(&[]).await else { return };
    let place = Place(Some(server));
    let gateway = place.start().await;
    let order = new_order();
    let (mut client, subscribed) = watch(&gateway, &order, None).await;
    publish(&gateway, &order, &updates_of(1, 1, &[])).await;
    updates(&mut client, 1..=1).await;
    // As if another node had published four more while this one heard nothing, the last of them terminal, and
    // all had expired.
    let server = place.0.as_ref().unwrap();
    assert_eq!(server.admin(&["DEL", &format!("zw:{{order:{order}}}:log")]).await, "1");
    server.admin(&["HSET", &format!("zw:{{order:{order}}}:meta"), "s", "5", "c", "1"]).await;
    server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let resync = client.next_of_type("resync").await;
    assert_gap(&resync, 5, 4);
    // Its epoch was issued before the log began; the log's epoch is the one that it announced.
    assert_eq!(resync["old_epoch"], subscribed["epoch"]);
    assert_eq!(format!("u.{}", resync["epoch"].as_str().unwrap()), subscribed["epoch"].as_str().unwrap());
    until_end(&mut client).await;
}
