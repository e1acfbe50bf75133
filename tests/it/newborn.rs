//! Channels without a log yet: following them creates nothing, and readers receive all that is published.

use serde_json::{Value, json};
use zonewire::config::Config;
use zonewire::model::OrderId;
use zonewire_kit::redis::RedisServer;

use crate::support::client::{Client, offset, position};
use crate::support::eventually::eventually;
use crate::support::gateway::{Running, config, price, until_state};
use crate::support::orders::update;
use crate::support::redis::{Admin, on_prefix, redis};

fn on(server: &RedisServer) -> Config {
    on_prefix(server, "newborn")
}

/// Whether a reader's position is in a log that does not exist yet.
fn is_unborn(subscribed: &Value) -> bool {
    let is_whole = (&subscribed["recovered"], &subscribed["gap"]) == (&json!(true), &json!(0));
    subscribed["epoch"].as_str().unwrap().starts_with("u.") && offset(subscribed) == 0 && is_whole
}

async fn resumed(gateway: &Running, path: &str, since: &str) -> (Client, Value) {
    gateway.subscribed(&format!("{path}?since={since}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_from_before_the_first_entry_gets_all_without_a_resync() {
    let gateway = Running::start(config()).await;
    let (mut client, subscribed) = gateway.market("pjm").await;
    assert!(is_unborn(&subscribed), "{subscribed}");
    let (epoch, before) = (subscribed["epoch"].as_str().unwrap(), position(&subscribed));
    // A reader that resumes before anything was published is at the same position.
    assert!(is_unborn(&resumed(&gateway, "/ws/market/pjm", &before).await.1));
    gateway.publish("pjm", (1..=2).map(|n| price("A", n))).await;
    let prices = client.prices(2).await;
    assert_eq!([offset(&prices[0]), offset(&prices[1])], [1, 2]);

    // Of the log's entries the reader has had one, none, or, at a gateway that is gone, none.
    for (since, count) in [(format!("{epoch}:1"), 1), (before, 2), ("u.0123456789abcdef:0".to_owned(), 2)] {
        let (mut client, subscribed) = resumed(&gateway, "/ws/market/pjm", &since).await;
        assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&json!(true), &json!(0)), "{since}");
        let prices = client.prices(count).await;
        assert_eq!(prices.last().unwrap()["price"], 2, "{since}");
        let path = format!("/api/zones/pjm/history?after={since}");
        let history = gateway.get(&path).await.json();
        assert_eq!(history["entries"].as_array().unwrap().len(), count, "{history}");
    }
    let (_client, subscribed) = resumed(&gateway, "/ws/market/pjm", "u.0123456789abcdef:1").await;
    assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&json!(false), &Value::Null));
    gateway.get("/api/zones/pjm/history?after=u.0123456789abcdef:1").await.problem(410, "foreign_epoch");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_entries_of_a_log_that_began_since_are_reported() {
    let gateway = Running::changed(config(), |config| config.storage.retention.entries = 3).await;
    let (client, subscribed) = gateway.market("pjm").await;
    client.close().await;
    gateway.publish("pjm", (1..=5).map(|n| price("A", n))).await;
    let (mut client, resumed) = resumed(&gateway, "/ws/market/pjm", &position(&subscribed)).await;
    assert_eq!((&resumed["recovered"], &resumed["gap"], offset(&resumed)), (&json!(false), &json!(2), 2));
    assert_eq!(client.prices(3).await[0]["price"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_another_gateway_starts_is_received_from_its_first_entry() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    until_state(a.address, "healthy").await;
    until_state(b.address, "healthy").await;
    let (mut client, subscribed) = a.market("pjm").await;
    assert!(is_unborn(&subscribed), "{subscribed}");
    let order = OrderId::random();
    let path = format!("/ws/orders/{order}");
    let (mut watcher, watched) = a.subscribed(&path).await;
    assert!(is_unborn(&watched), "{watched}");

    b.publish("pjm", [price("A", 1)]).await;
    update(b.address, &order.to_string(), json!({ "type": "routing", "progress": 10 })).await;
    let resync = client.next().await;
    assert_eq!((&resync["type"], &resync["old_epoch"]), (&json!("resync"), &subscribed["epoch"]));
    assert_eq!((&resync["recovered"], offset(&resync)), (&json!(true), 0), "{resync}");
    assert_eq!(client.prices(1).await[0]["price"], 1);
    let resync = watcher.next().await;
    assert_eq!((&resync["type"], &resync["recovered"]), (&json!("resync"), &json!(true)), "{resync}");
    assert_eq!(watcher.next_of_type("routing").await["offset"], 1);

    // The earlier position gives the same result at either gateway, even after more entries.
    a.publish("pjm", [price("A", 2)]).await;
    for gateway in [&a, &b] {
        let (mut client, again) = resumed(gateway, "/ws/market/pjm", &position(&subscribed)).await;
        assert_eq!((&again["recovered"], &again["gap"], offset(&again)), (&json!(true), &json!(0), 0));
        assert_eq!(again["epoch"], resumed(gateway, "/ws/market/pjm", &position(&again)).await.1["epoch"]);
        assert_eq!(client.prices(2).await[1]["price"], 2);
        let (mut watcher, again) = resumed(gateway, &path, &position(&watched)).await;
        assert_eq!((&again["recovered"], &again["gap"]), (&json!(true), &json!(0)), "{again}");
        assert_eq!(watcher.next_of_type("routing").await["offset"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn following_leaves_nothing_in_redis() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = Running::start(on(&server)).await;
    until_state(gateway.address, "healthy").await;
    let mut client = gateway.client().await;
    let zones = (0..60).map(|n| format!("zone:fresh-{n}"));
    let orders = (0..60).map(|_| format!("order:{}", OrderId::random()));
    let names: Vec<String> = zones.chain(orders).collect();
    client.send(&json!({ "type": "subscribe", "channels": names })).await;
    for _ in &names {
        let subscribed = client.next_of_type("subscribed").await;
        assert!(is_unborn(&subscribed), "{subscribed}");
    }
    client.close().await;
    let made = async || {
        let keys = server.list(&["KEYS", "*"]).await;
        let is_of = |key: &&String| names.iter().any(|name| key.contains(name));
        keys.iter().filter(is_of).cloned().collect::<Vec<_>>()
    };
    assert_eq!(made().await, [""; 0]);
    eventually("their channels go", async || {
        (gateway.stats().await["channels"]["active"].as_u64()? <= 1).then_some(())
    })
    .await;
    assert_eq!(made().await, [""; 0]);
    // Publishing does create keys.
    gateway.publish("fresh-0", [price("A", 1)]).await;
    assert!(!made().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_begins_in_an_outage_continues_at_any_gateway() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    until_state(a.address, "healthy").await;
    until_state(b.address, "healthy").await;
    let (mut client, before) = a.market("pjm").await;
    assert!(is_unborn(&before), "{before}");
    server.freeze().unwrap();
    assert_eq!(client.next_of_type("backend_state").await["state"], "degraded");
    a.publish("pjm", [price("A", 1)]).await;
    let resync = client.next_of_type("resync").await;
    assert_eq!((&resync["recovered"], offset(&resync)), (&json!(true), 0), "{resync}");
    let first = client.prices(1).await.remove(0);
    let here = format!("{}:{}", resync["epoch"].as_str().unwrap(), offset(&first));
    client.close().await;
    server.thaw().unwrap();
    until_state(a.address, "healthy").await;
    until_state(b.address, "healthy").await;

    for gateway in [&a, &b] {
        let (mut client, subscribed) = resumed(gateway, "/ws/market/pjm", &here).await;
        assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&json!(true), &json!(0)));
        gateway.publish("pjm", [price("A", 2)]).await;
        let next = client.next_of_type("price_update").await;
        assert_eq!(next["price"], 2, "nothing is repeated: {next}");
        // A reader that was away throughout gets all of it.
        let (mut client, subscribed) = resumed(gateway, "/ws/market/pjm", &position(&before)).await;
        assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&json!(true), &json!(0)));
        assert_eq!(client.next_of_type("price_update").await["id"], first["id"]);
    }
}
