//! Requests of clients use no more memory than their bound.

use serde_json::{Value, json};

use crate::support::client::{Client, connect_small};
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Running, config, history, until_stat};
use crate::support::orders::{base, paper, place_this, swap};
use crate::support::program::{run, zonewire};

/// A price of some 60 KB.
fn large(key: &str, price: u64) -> Value {
    json!({ "key": key, "price": price, "note": "x".repeat(60_000) })
}

fn prices(page: &Value) -> Vec<u64> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["price"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_comes_in_pages_of_a_megabyte() {
    const COUNT: u64 = 100;
    let gateway = Running::start(config()).await;
    for n in 1..=COUNT {
        gateway.publish("pjm", [large("A", n)]).await;
    }
    let answer = gateway.get("/api/zones/pjm/history?limit=1000").await;
    let newest = prices(&answer.json());
    assert!(answer.body.len() < 1_200_000 && newest.len() >= 8, "{} bytes, {newest:?}", answer.body.len());
    assert_eq!(newest, ((COUNT + 1 - newest.len() as u64)..=COUNT).collect::<Vec<_>>());

    let all = history(gateway.address, "pjm").await;
    let all: Vec<_> = all.iter().map(|entry| entry["price"].as_u64().unwrap()).collect();
    assert_eq!(all, (1..=COUNT).collect::<Vec<_>>());
    let epoch = answer.json()["epoch"].as_str().unwrap().to_owned();
    let page = gateway.get(&format!("/api/zones/pjm/history?limit=1000&after={epoch}:10")).await;
    assert!(page.body.len() < 1_200_000 && prices(&page.json())[0] == 11, "{} bytes", page.body.len());

    // The command line shows as many as requested nevertheless.
    let url = base(&gateway);
    let shown = run(&mut zonewire(&["history", "pjm", "-n", "50", "--json", "--url", &url])).await;
    assert_eq!(shown.json_lines().len(), 50, "{}", shown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_have_a_bound_of_their_own() {
    let gateway = Running::changed(config(), |config| config.http.answers_bytes_max = 4 << 20).await;
    for n in 1..=40 {
        gateway.publish("pjm", [large("A", n)]).await;
    }
    // Each asks for a megabyte and reads nothing.
    let mut silent = Vec::new();
    for _ in 0..8 {
        let mut stream = connect_small(gateway.address).await;
        let request = b"GET /api/zones/pjm/history?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.unwrap();
        silent.push(stream);
    }
    eventually("there is no room for one more", async || {
        let answer = gateway.get("/api/zones/pjm/history?limit=1000").await;
        (answer.status == 503).then(|| answer.problem(503, "busy"))
    })
    .await;
    let stats = gateway.stats().await;
    assert!(stats["http"]["answer_bytes"].as_u64().unwrap() <= 4 << 20, "{stats}");
    drop(silent);
    until("there is room again", async || {
        gateway.get("/api/zones/pjm/history?limit=1000").await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_large_orders_is_split_into_more_pages() {
    const COUNT: usize = 300;
    let gateway = Running::start(paper()).await;
    let mut order = swap();
    order["metadata"] = json!({ "note": "x".repeat(4_000) });
    for _ in 0..COUNT {
        place_this(gateway.address, &order).await;
    }
    let (mut ids, mut after) = (Vec::<String>::new(), String::new());
    loop {
        let answer = gateway.get(&format!("/api/orders?limit=500{after}")).await;
        assert!(answer.body.len() < 1_600_000, "{} bytes", answer.body.len());
        let page = answer.json();
        ids.extend(page["orders"].as_array().unwrap().iter().map(|order| order["orderId"].to_string()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert!(!after.is_empty(), "they do not fit one page");
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), count), (COUNT, COUNT));
}

/// A connection that catches up on many channels and reads nothing holds one page, and receives everything in
/// the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_reads_nothing_costs_one_page() {
    const ZONES: usize = 32;
    const EACH: u64 = 8;
    let gateway = Running::start(config()).await;
    let zones: Vec<String> = (0..ZONES).map(|n| format!("z{n}")).collect();
    for zone in &zones {
        for n in 1..=EACH {
            gateway.publish(zone, [large("A", n)]).await;
        }
    }
    let mut client = Client::connect_small(&gateway.url("/ws")).await;
    client.next_of_type("connection_established").await;
    let (mut channels, mut since) = (Vec::new(), serde_json::Map::new());
    for zone in &zones {
        let epoch = gateway.get(&format!("/api/zones/{zone}/history?limit=1")).await.json()["epoch"].clone();
        let channel = format!("zone:{zone}");
        since.insert(channel.clone(), json!({ "epoch": epoch, "offset": 0 }));
        channels.push(channel);
    }
    client.send(&json!({ "type": "subscribe", "channels": channels, "since": since })).await;
    until_stat(&gateway, "/messages/replays", 1).await;
    until("what is kept for others has gone", async || {
        let stats = gateway.stats().await;
        let held = stats["messages"]["replay_bytes"].as_u64().unwrap();
        held <= 400_000 && stats["messages"]["replay_reads"].as_u64().unwrap() as usize >= ZONES
    })
    .await;
    let mut had = std::collections::BTreeMap::<String, u64>::new();
    for _ in 0..ZONES as u64 * EACH {
        let price = client.next_of_type("price_update").await;
        let newest = had.entry(price["channel"].as_str().unwrap().to_owned()).or_default();
        *newest += 1;
        assert_eq!(price["price"], *newest, "in order");
    }
    assert_eq!(had.len(), ZONES);
}
