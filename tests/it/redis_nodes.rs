//! Several gateways on one Redis, and what becomes of their clients when it does not behave.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use zonewire::config::Config;
use zonewire::storage::StorageChoice;

use crate::support::client::{Client, offset, position};
use crate::support::eventually::eventually;
use crate::support::follow::{Cuts, Follower};
use crate::support::gateway::{JSON, LINES, Running, config, post, price};
use crate::support::redis_server::RedisServer;

fn on(server: &RedisServer) -> Config {
    let mut config = config();
    config.storage.backend = StorageChoice::Redis;
    config.storage.required = true;
    config.storage.redis = server.config();
    config.storage.redis.prefix = "nodes".to_owned();
    config
}

/// Numbers of one publisher, and whether the gateway took each.
type Told = Vec<bool>;

/// Posts `count` numbered prices in batches, one after the other, at one gateway. What is not
/// acknowledged is not repeated.
async fn publish_all(address: std::net::SocketAddr, name: u64, count: u64, batch: u64) -> Told {
    let mut told = Told::new();
    while (told.len() as u64) < count {
        let next = told.len() as u64 + 1;
        let numbers = next..=count.min(next + batch - 1);
        let lines: Vec<String> = numbers
            .map(|n| json!({ "key": format!("{name}-{n}"), "price": n, "publisher": name, "number": n }))
            .map(|price| price.to_string())
            .collect();
        let answer = post(address, "pjm", LINES, lines.join("\n").as_bytes()).await;
        if answer.status != 200 {
            answer.problem(503, "storage_unavailable");
        }
        let accepted = answer.json()["accepted"].as_u64().unwrap() as usize;
        told.extend((0..lines.len()).map(|place| place < accepted));
    }
    told
}

/// What was acknowledged is there, once and in its publisher's order; nothing is there twice.
fn check_told(seen: &[Value], told: &[Told]) {
    let mut numbers: HashMap<u64, Vec<u64>> = HashMap::new();
    for price in seen.iter().filter(|price| price["publisher"].is_u64()) {
        let name = price["publisher"].as_u64().unwrap();
        numbers.entry(name).or_default().push(price["number"].as_u64().unwrap());
    }
    for (name, told) in (0..).zip(told) {
        let numbers = &numbers[&name];
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "publisher {name}: {numbers:?}");
        let missing: Vec<u64> = (1..)
            .zip(told)
            .filter(|(number, told)| **told && numbers.binary_search(number).is_err())
            .map(|(number, _)| number)
            .collect();
        assert_eq!(missing, [0; 0], "publisher {name} was told that the gateway has them");
    }
}

fn ids(seen: &[Value]) -> Vec<&str> {
    seen.iter().map(|price| price["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_show_everyone_the_same_order() {
    const COUNT: u64 = 300;
    let Some(server) = RedisServer::start(&[]) else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let (_, subscribed) = a.market("pjm").await;
    let start = position(&subscribed);
    let mut publishing = JoinSet::new();
    for name in 0..4 {
        let address = [a.address, b.address][name as usize % 2];
        publishing.spawn(publish_all(address, name, COUNT, 1 + name * 7));
    }
    let mut reading = JoinSet::new();
    for seed in 0..6 {
        // Two at each node, and two that come back at either.
        let bases = match seed % 3 {
            0 => vec![a.url("")],
            1 => vec![b.url("")],
            _ => vec![a.url(""), b.url("")],
        };
        let mut follower = Follower::after("pjm", &start);
        reading.spawn(async move {
            follower.read(&bases, 4 * COUNT, &mut Cuts::seeded(seed, 150)).await;
            follower
        });
    }
    let told = publishing.join_all().await;
    assert!(told.iter().flatten().all(|told| *told));
    let followers = reading.join_all().await;
    for follower in &followers {
        check_told(&follower.seen, &told);
        assert_eq!(follower.seen.len() as u64, 4 * COUNT);
        assert_eq!(ids(&follower.seen), ids(&followers[0].seen));
    }
    for gateway in [&a, &b] {
        let history = gateway.get("/api/zones/pjm/history?limit=1000").await.json();
        let history = history["entries"].as_array().unwrap();
        assert_eq!(history[..], followers[0].seen[200..]);
    }
    a.stop().await;

    // A position is good after a restart, and history is what it was.
    let again = Running::start(on(&server)).await;
    let mut follower = Follower::after("pjm", &format!("{}:{}", followers[0].epoch, COUNT));
    follower.read(&[again.url("")], 4 * COUNT, &mut Cuts::none()).await;
    assert_eq!(follower.seen[..], followers[0].seen[COUNT as usize..]);
    let zones = again.get("/api/zones").await.json();
    assert_eq!(zones["zones"][0]["zone"], "pjm", "zones are remembered");
    again.publish("pjm", [price("next", 1)]).await;
    let mut elsewhere = Follower::after("pjm", &format!("{}:{}", follower.epoch, follower.last));
    elsewhere.read(&[b.url("")], 4 * COUNT + 1, &mut Cuts::none()).await;
    again.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_came_back_older_in_the_same_epoch_is_told_and_begun_anew() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let mut client = a.market("pjm").await.0;
    b.publish("pjm", (1..=10).map(|n| price("A", n))).await;
    client.prices(10).await;

    // What a server does that starts from an older snapshot: half of the log never was.
    let (log, meta) = ("nodes:{zone:pjm}:log", "nodes:{zone:pjm}:meta");
    for offset in 6..=10 {
        assert_eq!(server.admin(&["XDEL", log, &format!("{offset}-0")]), ":1");
    }
    assert_eq!(server.admin(&["XSETID", log, "5-0"]), "+OK");
    assert_eq!(server.admin(&["HSET", meta, "s", "5"]), ":0");
    server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]);

    let resync = client.next_of_type("resync").await;
    assert_eq!((&resync["recovered"], offset(&resync)), (&json!(false), 0), "{resync}");
    b.publish("pjm", [price("A", 11)]).await;
    let prices = client.prices(1).await;
    assert_eq!((offset(&prices[0]), &prices[0]["price"]), (1, &json!(11)));
    drop(client);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_log_begins_a_new_life_that_everyone_is_told_of() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let mut clients = [a.market("pjm").await.0, b.market("pjm").await.0];
    a.publish("pjm", (1..=3).map(|n| price("A", n))).await;
    b.publish("pjm", (4..=5).map(|n| price("A", n))).await;
    for client in &mut clients {
        client.prices(5).await;
    }
    let mut old = None;
    for round in 0..3 {
        assert_eq!(server.admin(&["FLUSHALL"]), "+OK");
        // Accepted at once, first at one node, then at the other.
        let (first, second) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        first.publish("pjm", [price("A", 6)]).await;
        second.publish("pjm", [price("A", 7)]).await;
        let mut told = Vec::new();
        for client in &mut clients {
            let resync = client.next().await;
            assert_eq!(
                (&resync["type"], &resync["channel"], &resync["recovered"]),
                (&json!("resync"), &json!("zone:pjm"), &json!(false)),
                "{resync}"
            );
            assert!(resync["old_epoch"] != resync["epoch"] && resync["timestamp"].is_string(), "{resync}");
            assert_eq!(offset(&resync), 0);
            let prices = client.prices(2).await;
            assert_eq!(prices.iter().map(offset).collect::<Vec<_>>(), [1, 2]);
            assert_eq!((&prices[0]["price"], &prices[1]["price"]), (&json!(6), &json!(7)));
            told.push((resync["old_epoch"].clone(), resync["epoch"].clone()));
        }
        assert_eq!(told[0], told[1], "both nodes say the same");
        assert!(old.is_none_or(|old| old == told[0].0), "from one life to the next");
        old = Some(told[0].1.clone());
    }
    assert!(a.stats().await["channels"]["epoch_changes"].as_u64().unwrap() >= 3);
    drop(clients);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_lose_and_double_nothing() {
    const COUNT: u64 = 400;
    let Some(server) = RedisServer::start(&[]) else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let (mut pace, subscribed) = a.market("pjm").await;
    let start = position(&subscribed);
    let mut publishing = JoinSet::new();
    for name in 0..4 {
        let address = [a.address, b.address][name as usize % 2];
        publishing.spawn(async move { (name, publish_all(address, name, COUNT, 1 + name * 3).await) });
    }
    let mut reading = JoinSet::new();
    for (seed, gateway) in (0..).zip([&a, &a, &b, &b]) {
        let (mut follower, bases) = (Follower::after("pjm", &start), vec![gateway.url("")]);
        let mut cuts = if seed % 2 == 0 { Cuts::none() } else { Cuts::seeded(seed, 300) };
        reading.spawn(async move {
            follower.read_to(&bases, "end", &mut cuts).await;
            follower
        });
    }
    // A kill for every so many prices that arrive, so that each comes amid traffic.
    for round in 0..12 {
        let kind = ["pubsub", "normal", "pubsub", "normal", "normal"][round % 5];
        let killed = server.admin(&["CLIENT", "KILL", "TYPE", kind]);
        assert!(killed.starts_with(':'), "{killed}");
        // The storage may be said to be away meanwhile.
        for _ in 0..60 {
            pace.next_of_type("price_update").await;
        }
    }
    drop(pace);
    let mut told = publishing.join_all().await;
    told.sort_by_key(|(name, _)| *name);
    let told: Vec<Told> = told.into_iter().map(|(_, told)| told).collect();
    eventually("the end is accepted", async || {
        (a.post("pjm", JSON, price("end", 1).to_string().as_bytes()).await.status == 200).then_some(())
    })
    .await;
    let followers = reading.join_all().await;
    for follower in &followers {
        check_told(&follower.seen, &told);
        assert_eq!(ids(&follower.seen), ids(&followers[0].seen));
    }
    a.stop().await;
    b.stop().await;
}

/// Publishes until it is accepted; what was not, may come all the same.
async fn publish_at_last(gateway: &Running, zone: &str, key: &str) {
    eventually("the storage takes entries again", async || {
        let answer = gateway.post(zone, JSON, price(key, 1).to_string().as_bytes()).await;
        if answer.status != 200 {
            answer.problem(503, "storage_unavailable");
        }
        (answer.status == 200).then_some(())
    })
    .await;
}

async fn check_degraded(gateway: &Running, client: &mut Client) {
    let answer = gateway.post("pjm", JSON, price("lost", 1).to_string().as_bytes()).await;
    let problem = answer.problem(503, "storage_unavailable");
    assert_eq!(problem["accepted"], 0);
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
    let told = client.next_of_type("backend_state").await;
    assert_eq!(
        (&told["storage_backend"], &told["state"], &told["scope"]),
        (&json!("redis"), &json!("degraded"), &json!("all"))
    );
    assert!(told["since"].is_string() && told["reason"].is_string(), "{told}");
    let health = gateway.get("/ws/health").await;
    assert_eq!(health.status, 200, "degraded is a fact, not a failure");
    let health = health.json();
    for (field, expected) in [
        ("status", json!("degraded")),
        ("degraded", json!(true)),
        ("ready", json!(true)),
        ("live", json!(true)),
    ] {
        assert_eq!(health[field], expected, "{field}");
    }
    assert_eq!(health["since"], told["since"], "the same truth everywhere");
    assert_eq!(gateway.get("/health/ready").await.status, 200);
    let redis = gateway.get("/health/redis").await;
    assert_eq!((redis.status, &redis.json()["status"]), (503, &json!("down")));
    let metrics = gateway.get("/metrics").await.body;
    assert!(metrics.contains("zonewire_storage_state{state=\"degraded\"} 1"), "{metrics}");
    assert_eq!(client.until_pong().await, [] as [Value; 0], "sockets stay open");
}

async fn check_healthy(gateway: &Running) {
    eventually("health says so", async || {
        let health = gateway.get("/ws/health").await.json();
        (health["status"] == "healthy" && health["degraded"] == false).then_some(())
    })
    .await;
    assert_eq!(gateway.get("/health/redis").await.json()["status"], "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_ends_and_comes_back_with_its_data_is_gone_on_with() {
    let options = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut server) = RedisServer::start(&options) else { return };
    let gateway = Running::start(on(&server)).await;
    let (mut client, subscribed) = gateway.market("pjm").await;
    gateway.publish("pjm", [price("A", 1), price("A", 2)]).await;
    client.prices(2).await;
    server.kill();
    check_degraded(&gateway, &mut client).await;

    // A subscription to what is not followed yet is made as soon as that can be.
    let mut waiting = Client::connect(&gateway.url("/ws/market/other")).await;
    assert_eq!(waiting.next().await["state"], "degraded");
    assert_eq!(waiting.next_of_type("error").await["code"], "storage_unavailable");

    server.restart();
    publish_at_last(&gateway, "pjm", "back").await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|message: &Value| message["key"] != "back") {
        seen.push(client.next().await);
    }
    let prices: Vec<&Value> = seen.iter().filter(|message| message["type"] == "price_update").collect();
    assert_eq!(prices.iter().map(|price| offset(price)).collect::<Vec<_>>(), [3], "{seen:?}");
    assert!(seen.iter().all(|message| message["type"] != "resync"), "it is the same life: {seen:?}");
    waiting.next_of_type("subscribed").await;
    gateway.publish("other", [price("B", 1)]).await;
    assert_eq!(waiting.next_of_type("price_update").await["price"], 1);
    check_healthy(&gateway).await;
    let mut follower = Follower::after("pjm", &position(&subscribed));
    follower.read(&[gateway.url("")], 3, &mut Cuts::none()).await;
    drop((client, waiting));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_begins_a_new_life() {
    let Some(mut server) = RedisServer::start(&[]) else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let mut clients = [a.market("pjm").await.0, b.market("pjm").await.0];
    a.publish("pjm", [price("A", 1), price("A", 2)]).await;
    for client in &mut clients {
        client.prices(2).await;
    }
    server.kill();
    check_degraded(&a, &mut clients[0]).await;
    server.restart();
    publish_at_last(&a, "pjm", "back").await;
    publish_at_last(&b, "pjm", "also").await;
    for client in &mut clients {
        let resync = client.next_of_type("resync").await;
        assert_eq!((&resync["recovered"], offset(&resync)), (&json!(false), 0));
        let keys = [client.next_of_type("price_update").await, client.next_of_type("price_update").await];
        assert_eq!(keys.iter().map(offset).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((&keys[0]["key"], &keys[1]["key"]), (&json!("back"), &json!("also")));
    }
    check_healthy(&a).await;
    drop(clients);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_told_and_gone_on_with() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let gateway = Running::start(on(&server)).await;
    let (mut client, subscribed) = gateway.market("pjm").await;
    gateway.publish("pjm", [price("A", 1)]).await;
    client.prices(1).await;
    server.pause();
    check_degraded(&gateway, &mut client).await;
    server.resume();
    publish_at_last(&gateway, "pjm", "back").await;
    // What was not acknowledged may be there; nothing is there twice or out of order.
    let mut follower = Follower::after("pjm", &position(&subscribed));
    follower.read_to(&[gateway.url("")], "back", &mut Cuts::none()).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|price: &Value| price["key"] != "back") {
        seen.push(client.next_of_type("price_update").await);
    }
    assert_eq!(seen[..], follower.seen[1..], "live and from the log are the same");
    assert!(seen.iter().filter(|price| price["key"] == "lost").count() <= 1, "{seen:?}");
    check_healthy(&gateway).await;
    drop(client);
    gateway.stop().await;
}
