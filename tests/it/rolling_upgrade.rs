//! Gateways of two builds on one Redis, the newer of which knows an additional kind of entry. The newer build
//! is imitated by its appends: kinds are open by name, so these are what it would send.

use serde_json::{Value, json};
use zonewire::model::{ChannelName, DraftEntry, EntryKind};
use zonewire::storage::{Append, Retention};
use zonewire_kit::redis::RedisServer;

use crate::support::client::{Client, offset, position};
use crate::support::eventually::eventually;
use crate::support::gateway::{Running, price, until_stat, until_state};
use crate::support::orders::{new_order, post_json};
use crate::support::redis::{Admin, Configured, on, redis};
use crate::support::stores::{self, Producer, Stores};

/// A gateway of the older build, which does not know the kind.
async fn old(server: &RedisServer) -> Running {
    let mut config = on(server);
    config.connections.order_linger_ms = 0;
    Running::start(config).await
}

/// The newer build.
struct Newer {
    producer: Producer,
    seq: u64,
    _stores: Stores,
}

impl Newer {
    async fn on(server: &RedisServer, channel: &str) -> Self {
        let stores = Stores::at(server.config(), Retention::default());
        let channel: ChannelName = channel.parse().unwrap();
        let producer = Producer::on(&stores.open().await, channel).await;
        Self { producer, seq: 0, _stores: stores }
    }

    /// Appends an entry of a kind that may or may not end the log.
    async fn append(&mut self, kind: &str, key: &str, is_terminal: bool) {
        self.append_data(EntryKind::named(kind, is_terminal).unwrap(), key, r#"{"bid":19.5,"ask":20}"#).await;
    }

    /// Appends an entry with this data, which nothing interprets.
    async fn append_data(&mut self, kind: EntryKind, key: &str, data: &str) {
        let time = chrono::Utc::now().timestamp_millis();
        let draft = DraftEntry { kind, ..stores::price(time, Some(key), data) };
        self.seq += 1;
        let append = Append { seq: self.seq, prev: self.seq - 1, draft, fence: None };
        let batch = self.producer.batch(vec![append]);
        eventually("the newer gateway appends", async || self.producer.store.append(&batch).await.ok()).await;
    }
}

fn kinds(messages: &[Value]) -> Vec<(&str, u64)> {
    messages.iter().map(|message| (message["type"].as_str().unwrap(), offset(message))).collect()
}

/// The next entries, including skipped ones.
async fn entries(client: &mut Client, count: usize) -> Vec<Value> {
    let mut entries = Vec::new();
    while entries.len() < count {
        let message = client.next().await;
        if ["price_update", "skipped", "routing"].iter().any(|kind| message["type"] == *kind) {
            entries.push(message);
        }
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_continues_in_order_and_reports_skipped_entries() {
    let Some(server) = redis(&[]).await else { return };
    let old = old(&server).await;
    let (mut client, subscribed) = old.market("pjm").await;
    old.publish("pjm", [price("HUB", 1)]).await;
    let mut newer = Newer::on(&server, "zone:pjm").await;
    newer.append("quote", "HUB", false).await;
    newer.append("quote", "HUB", false).await;
    old.publish("pjm", [price("HUB", 2)]).await;

    let told = entries(&mut client, 4).await;
    assert_eq!(kinds(&told), [("price_update", 1), ("skipped", 2), ("skipped", 3), ("price_update", 4)]);
    assert_eq!((&told[1]["kind"], &told[1]["reason"]), (&json!("quote"), &json!("unknown_kind")));
    assert!(told[1]["bid"].is_null() && told[1]["id"] != told[2]["id"], "{}", told[1]);

    // Resuming and reading the log show the same.
    let url = old.url(&format!("/ws/market/pjm?since={}", position(&subscribed)));
    let mut again = Client::connect(&url).await;
    assert_eq!(kinds(&entries(&mut again, 4).await), kinds(&told));
    let history = old.get("/api/zones/pjm/history").await.json();
    assert_eq!(kinds(history["entries"].as_array().unwrap()), kinds(&told));
    // An entry of the unknown kind does not replace a price.
    newer.append("quote", "HUB", false).await;
    entries(&mut client, 1).await;
    let latest = old.get("/api/zones/pjm/latest").await.json();
    assert_eq!(kinds(latest["entries"].as_array().unwrap()), [("price_update", 4)]);

    // Each was counted once, and caused no repair of the channel.
    assert_eq!(until_stat(&old, "/channels/entries_skipped_by_reason/unknown_kind", 3).await, 3);
    let metrics = old.get("/metrics").await.body;
    assert!(metrics.contains("zonewire_entries_skipped_total{reason=\"unknown_kind\"} 3"), "{metrics}");
    assert!(metrics.contains("zonewire_entries_skipped_total{reason=\"unreadable\"} 0"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_whose_data_is_no_json_object_is_skipped() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = old(&server).await;
    let (mut client, subscribed) = gateway.market("pjm").await;
    gateway.publish("pjm", [price("HUB", 1)]).await;
    let mut foreign = Newer::on(&server, "zone:pjm").await;
    let broken = ["", "price", r#"{"price":"#, r#""text""#, r#"{"price":1}]"#, r#"{"name":"\ud800"}"#];
    for data in broken {
        foreign.append_data(EntryKind::PriceUpdate, "BROKEN", data).await;
    }
    // White space is valid.
    foreign.append_data(EntryKind::PriceUpdate, "SPACED", "{ }").await;
    gateway.publish("pjm", [price("HUB", 2)]).await;

    // The client parses every frame as JSON.
    let told = entries(&mut client, 9).await;
    let skipped = (2..8).map(|offset| ("skipped", offset));
    let expected: Vec<_> = [("price_update", 1)].into_iter().chain(skipped).collect();
    let expected = [expected, vec![("price_update", 8), ("price_update", 9)]].concat();
    assert_eq!(kinds(&told), expected);
    for message in &told[1..7] {
        assert_eq!((&message["reason"], &message["kind"]), (&json!("unreadable"), &json!("price_update")));
        assert!(message["id"].is_string() && message["price"].is_null(), "{message}");
    }
    let url = gateway.url(&format!("/ws/market/pjm?since={}", position(&subscribed)));
    let mut again = Client::connect(&url).await;
    assert_eq!(kinds(&entries(&mut again, 9).await), expected);

    let history = gateway.get("/api/zones/pjm/history").await;
    assert_eq!(history.status, 200, "{}", history.body);
    assert_eq!(kinds(history.json()["entries"].as_array().unwrap()), expected);
    let latest = gateway.get("/api/zones/pjm/latest").await.json();
    assert_eq!(kinds(latest["entries"].as_array().unwrap()), [("price_update", 9), ("price_update", 8)]);
    assert_eq!(until_stat(&gateway, "/channels/entries_skipped_by_reason/unreadable", 6).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_terminal_update_ends_the_order() {
    let Some(server) = redis(&[]).await else { return };
    let old = old(&server).await;
    let order = new_order();
    let mut client = old.connect(&format!("/ws/orders/{order}")).await;
    client.next_of_type("subscribed").await;
    let mut newer = Newer::on(&server, &format!("order:{order}")).await;
    newer.append("routing", "order", false).await;
    newer.append("settling", "order", false).await;
    newer.append("expired", "order", true).await;

    let (told, code, _) = client.until_close().await;
    // The log began while it was watched, which a `resync` announces.
    let is_entry = |message: &Value| message["offset"].is_u64() && message["type"] != "resync";
    let told: Vec<Value> = told.into_iter().filter(is_entry).collect();
    assert_eq!(kinds(&told), [("routing", 1), ("skipped", 2), ("skipped", 3)]);
    assert!(told[1]["terminal"].is_null(), "{}", told[1]);
    assert_eq!((&told[2]["terminal"], &told[2]["kind"]), (&json!(true), &json!("expired")));
    assert_eq!(code, 1000, "the stream is over");

    let view = old.get(&format!("/api/orders/{order}")).await.json();
    assert_eq!(view["status"], "expired", "{view}");
    let update = json!({ "type": "building", "progress": 50 });
    let answer = post_json(old.address, &format!("/api/orders/{order}/updates"), &update).await;
    answer.problem(409, "already_ended");
    // Late clients see the same end.
    let mut late = old.connect(&format!("/ws/orders/{order}")).await;
    let (told, code, _) = late.until_close().await;
    assert!(told.iter().any(|message| message["terminal"] == true) && code == 1000, "{code}: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_unknown_kinds_do_not_prevent_recovery() {
    let Some(server) = redis(&[]).await else { return };
    let old = old(&server).await;
    let (mut client, _) = old.market("pjm").await;
    let mut newer = Newer::on(&server, "zone:pjm").await;
    newer.append("quote", "HUB", false).await;
    old.publish("pjm", [price("HUB", 1)]).await;
    assert_eq!(kinds(&entries(&mut client, 2).await), [("skipped", 1), ("price_update", 2)]);

    server.freeze().unwrap();
    client.next_of_type("backend_state").await;
    old.publish("pjm", [price("HUB", 2)]).await;
    assert_eq!(entries(&mut client, 1).await[0]["price"], 2);
    server.thaw().unwrap();
    newer.append("quote", "HUB", false).await;
    until_state(old.address, "healthy").await;
    let late = client.next_of_type("skipped").await;
    assert_eq!(late["kind"], "quote");
    old.publish("pjm", [price("HUB", 3)]).await;
    assert_eq!(client.next_of_type("price_update").await["price"], 3);
    let history = old.get("/api/zones/pjm/history").await.json();
    assert_eq!(history["entries"].as_array().unwrap().len(), 5, "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_makes_only_its_own_channel_read_the_log() {
    let Some(server) = redis(&[]).await else { return };
    let old = old(&server).await;
    let mut clients = Vec::new();
    for zone in ["pjm", "ercot", "caiso"] {
        clients.push(old.market(zone).await.0);
        old.publish(zone, [price("HUB", 1)]).await;
    }
    for client in &mut clients {
        client.prices(1).await;
    }
    let reads = async || old.stats().await["channels"]["holes_repaired"].as_u64().unwrap();
    let before = reads().await;
    server.admin(&["PUBLISH", "zw:{zone:pjm}", "hello"]).await;
    until_stat(&old, "/channels/holes_repaired", before + 1).await;
    // Both other channels get entries after it, so there was time to read their logs.
    for zone in ["ercot", "caiso"] {
        old.publish(zone, [price("HUB", 2)]).await;
    }
    for client in &mut clients[1..] {
        assert_eq!(client.prices(1).await[0]["price"], 2);
    }
    assert_eq!(reads().await, before + 1);
}
