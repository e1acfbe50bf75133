//! The latest prices of a zone, page by page, and how keys and zones are removed or expire.

use serde_json::{Value, json};
use zonewire::config::Config;
use zonewire_kit::redis::DURABLE;

use crate::support::client::{Client, assert_has};
use crate::support::eventually::until;
use crate::support::gateway::{JSON, Running, config, price};
use crate::support::redis::{on, redis};

/// The keys and offsets of a page of latest prices, and the cursor of the next page.
async fn latest(gateway: &Running, query: &str) -> (Vec<(String, u64)>, Option<String>) {
    let page = gateway.get(&format!("/api/zones/pjm/latest{query}")).await.json();
    let key = |entry: &Value| (entry["key"].as_str().unwrap().to_owned(), entry["offset"].as_u64().unwrap());
    let entries = page["entries"].as_array().unwrap().iter().map(key).collect();
    (entries, page["next"].as_str().map(str::to_owned))
}

async fn zones(gateway: &Running) -> Vec<Value> {
    let listed = gateway.get("/api/zones").await.json();
    listed["zones"].as_array().unwrap().iter().map(|zone| zone["zone"].clone()).collect()
}

/// The next message that is an entry.
async fn next_entry(client: &mut Client) -> Value {
    loop {
        let message = client.next().await;
        if message["offset"].is_u64() && message["id"].is_string() {
            return message;
        }
    }
}

fn keyed(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    pairs.iter().map(|(key, offset)| ((*key).to_owned(), *offset)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_prices_are_paged_by_key() {
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", ["C", "A/1 \u{e9}", "B"].map(|key| price(key, 1))).await;
    assert_eq!(latest(&gateway, "").await, (keyed(&[("A/1 \u{e9}", 2), ("B", 3), ("C", 1)]), None));
    let (first, next) = latest(&gateway, "?limit=1").await;
    assert_eq!((first, next.as_deref()), (keyed(&[("A/1 \u{e9}", 2)]), Some("A/1 \u{e9}")));
    assert_eq!(latest(&gateway, "?limit=2&after=A%2F1%20%C3%A9").await, (keyed(&[("B", 3), ("C", 1)]), None));
    for bad in ["?limit=0", "?limit=10001"] {
        gateway.get(&format!("/api/zones/pjm/latest{bad}")).await.problem(400, "invalid_limit");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_the_latest_prices_is_bounded_in_bytes() {
    let gateway = Running::start(config()).await;
    let filler = "x".repeat(60_000);
    for n in 0..40 {
        let price = json!({ "key": format!("K{n:02}"), "price": n, "filler": filler });
        assert_eq!(gateway.post("pjm", JSON, price.to_string().as_bytes()).await.status, 200);
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let page = gateway.get(&format!("/api/zones/pjm/latest{after}")).await;
        assert!(page.body.len() < 1_200_000, "{}", page.body.len());
        let page = page.json();
        let keys = page["entries"].as_array().unwrap().iter().map(|entry| entry["key"].clone());
        seen.extend(keys.map(|key| key.as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("?after={next}");
    }
    assert_eq!(seen, (0..40).map(|n| format!("K{n:02}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_of_a_key_arrives_in_order_and_a_price_creates_it_again() {
    let gateway = Running::start(config()).await;
    gateway.delete("/api/zones/pjm/keys/A").await.problem(404, "unknown_key");
    gateway.publish("pjm", [price("A", 1), price("B 1", 1)]).await;
    let (mut client, _) = gateway.market("pjm").await;
    let answer = gateway.delete("/api/zones/pjm/keys/B%201").await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    gateway.publish("pjm", [price("A", 2)]).await;
    let removed = next_entry(&mut client).await;
    assert_has(&removed, json!({ "type": "key_removed", "key": "B 1", "offset": 3 }));
    assert_eq!(next_entry(&mut client).await["offset"], 4);
    assert_eq!(latest(&gateway, "").await.0, keyed(&[("A", 4)]));
    gateway.delete("/api/zones/pjm/keys/B%201").await.problem(404, "unknown_key");
    gateway.publish("pjm", [price("B 1", 3)]).await;
    assert_eq!(next_entry(&mut client).await["type"], "price_update");
    assert_eq!(latest(&gateway, "").await.0, keyed(&[("A", 4), ("B 1", 5)]));
    let history = gateway.get("/api/zones/pjm/history").await.json();
    assert_eq!(history["entries"].as_array().unwrap().len(), 5, "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_is_newer_than_the_removed_price() {
    let gateway = Running::start(config()).await;
    let in_an_hour = chrono::Utc::now().timestamp() + 3_600;
    let ahead = chrono::DateTime::from_timestamp(in_an_hour, 0).unwrap();
    let at = |key: &str, ms: i64| {
        let time = ahead + chrono::TimeDelta::milliseconds(ms);
        json!({ "key": key, "price": 1, "timestamp": time.to_rfc3339() })
    };
    gateway.publish("pjm", [price("A", 1), at("B", 7), price("C", 1), at("D", 9)]).await;
    let (mut client, _) = gateway.market("pjm").await;
    let before = chrono::Utc::now();
    for path in ["/keys/B", "/keys/C", ""] {
        assert_eq!(gateway.delete(&format!("/api/zones/pjm{path}")).await.status, 204);
    }
    let mut times = Vec::new();
    for _ in 0..3 {
        let removed = next_entry(&mut client).await;
        times.push(removed["timestamp"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap());
    }
    let after = |ms: i64| ahead + chrono::TimeDelta::milliseconds(ms);
    assert_eq!((times[0], times[2]), (after(8), after(10)));
    let until = chrono::Utc::now();
    assert!(times[1] > before - chrono::TimeDelta::milliseconds(1) && times[1] <= until, "{}", times[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_zone_is_no_longer_listed_and_keeps_its_positions() {
    let gateway = Running::start(config()).await;
    gateway.delete("/api/zones/pjm").await.problem(404, "unknown_zone");
    assert_eq!(zones(&gateway).await, Vec::<Value>::new(), "asking for it created nothing");
    gateway.publish("pjm", [price("A", 1), price("B", 1)]).await;
    let (mut client, _) = gateway.market("pjm").await;
    assert_eq!(gateway.delete("/api/zones/pjm").await.status, 204);
    let removed = next_entry(&mut client).await;
    assert_eq!((&removed["type"], &removed["offset"]), (&json!("zone_removed"), &json!(3)));
    assert_eq!((latest(&gateway, "").await, zones(&gateway).await), ((vec![], None), vec![]));
    gateway.delete("/api/zones/pjm").await.problem(404, "unknown_zone");
    gateway.publish("pjm", [price("A", 2)]).await;
    assert_eq!(next_entry(&mut client).await["offset"], 4);
    assert_eq!(latest(&gateway, "").await.0, keyed(&[("A", 4)]));
    assert_eq!(zones(&gateway).await, ["pjm"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_zone_accepts_a_new_key_after_a_removal() {
    let mut config: Config = config();
    config.channels.keys_per_zone_max = 2;
    let gateway = Running::start(config).await;
    gateway.publish("pjm", [price("A", 1), price("B", 1)]).await;
    let third = price("C", 1).to_string();
    gateway.post("pjm", JSON, third.as_bytes()).await.problem(422, "too_many_keys");
    assert_eq!(gateway.delete("/api/zones/pjm/keys/A").await.status, 204);
    assert_eq!(gateway.post("pjm", JSON, third.as_bytes()).await.status, 200);
    gateway.post("pjm", JSON, price("A", 1).to_string().as_bytes()).await.problem(422, "too_many_keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_zone_accepts_a_new_key_after_one_expired() {
    let mut config: Config = config();
    config.channels.keys_per_zone_max = 1;
    config.storage.retention.key_age_s = 1;
    let gateway = Running::start(config).await;
    gateway.publish("pjm", [price("A", 1)]).await;
    let other = price("B", 1).to_string();
    gateway.post("pjm", JSON, other.as_bytes()).await.problem(422, "too_many_keys");
    until("the old key makes room", async || gateway.post("pjm", JSON, other.as_bytes()).await.status == 200)
        .await;
    assert_eq!(latest(&gateway, "").await.0, keyed(&[("B", 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_at_one_gateway_reaches_the_others() {
    let Some(server) = redis(&[]).await else { return };
    let mut full = on(&server);
    full.channels.keys_per_zone_max = 1;
    let (a, b) = (Running::start(full.clone()).await, Running::start(full).await);
    b.publish("pjm", [price("A", 1)]).await;
    let (mut client, _) = b.market("pjm").await;
    assert_eq!(a.delete("/api/zones/pjm/keys/A").await.status, 204);
    assert_eq!(next_entry(&mut client).await["type"], "key_removed");
    let other = price("B", 1).to_string();
    until("the other gateway has room for a key", async || {
        b.post("pjm", JSON, other.as_bytes()).await.status == 200
    })
    .await;
    assert_eq!(next_entry(&mut client).await["key"], "B");
    assert_eq!(a.delete("/api/zones/pjm").await.status, 204);
    assert_eq!(next_entry(&mut client).await["type"], "zone_removed");
    assert_eq!((zones(&a).await, latest(&b, "").await.0), (vec![], vec![]));
    until("a price creates key and zone again", async || {
        b.post("pjm", JSON, other.as_bytes()).await.status == 200
    })
    .await;
    assert_eq!(zones(&a).await, [json!("pjm")]);
    assert_eq!(latest(&a, "").await.0, keyed(&[("B", 5)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_made_in_an_outage_holds_afterwards() {
    let Some(mut server) = redis(&DURABLE).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    a.publish("pjm", [price("A", 1), price("B", 1)]).await;
    let (mut client, _) = b.market("pjm").await;
    server.kill().await.unwrap();
    until("both notice", async || {
        let (a, b) = (a.get("/health").await.json(), b.get("/health").await.json());
        a["state"] == "degraded" && b["state"] == "degraded"
    })
    .await;
    assert_eq!(a.delete("/api/zones/pjm/keys/A").await.status, 204);
    assert_eq!(latest(&a, "").await.0, keyed(&[("B", 2)]));
    a.delete("/api/zones/pjm/keys/A").await.problem(503, "unknown_while_degraded");
    server.restart().await.unwrap();
    let removed = client.next_of_type("key_removed").await;
    assert_eq!((&removed["key"], &removed["late"]), (&json!("A"), &json!(true)));
    for gateway in [&a, &b] {
        until("both have it so", async || latest(gateway, "").await.0 == keyed(&[("B", 2)])).await;
    }
}

/// A gateway that replays these lines, and has room for one key.
async fn replaying(lines: &str, change: impl FnOnce(&mut Config)) -> (Running, tempfile::NamedTempFile) {
    let file = tempfile::Builder::new().suffix(".csv").tempfile().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    let mut config: Config = config();
    config.channels.keys_per_zone_max = 1;
    config.feeds.replay.file = Some(file.path().to_owned());
    config.feeds.replay.flat_out = true;
    change(&mut config);
    (Running::start(config).await, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_continues_after_prices_that_can_never_be_accepted() {
    let lines = "zone,key,price\npjm,A,1\npjm,B,2\npjm,C,3\nercot,D,4\npjm,A,5\n";
    let (gateway, _file) = replaying(lines, |_| {}).await;
    until("the last line is published", async || latest(&gateway, "").await.0 == keyed(&[("A", 2)])).await;
    assert_eq!(zones(&gateway).await, [json!("ercot"), json!("pjm")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_too_far_apart_for_the_speed_end_only_the_replay() {
    let lines = "zone,key,price,time\npjm,A,1,2021-01-01\npjm,A,2,2021-01-02\n";
    let slow = |config: &mut Config| {
        config.feeds.replay.flat_out = false;
        config.feeds.replay.speed = 1e-15;
    };
    let (gateway, _file) = replaying(lines, slow).await;
    until("the first line is published", async || latest(&gateway, "").await.0 == keyed(&[("A", 1)])).await;
    gateway.publish("pjm", [price("A", 3)]).await;
    assert_eq!(latest(&gateway, "").await.0, keyed(&[("A", 2)]));
}
