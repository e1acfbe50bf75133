//! Several gateways on one Redis, and their clients when Redis misbehaves.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use zonewire::config::Config;
use zonewire::storage::RedisConfig;
use zonewire_kit::proxy::{Mode, Proxy};
use zonewire_kit::redis::{DURABLE, RedisServer};

use crate::support::client::{Client, assert_has, offset, position};
use crate::support::eventually::{eventually, until};
use crate::support::follow::{Cuts, Follower};
use crate::support::gateway::{LINES, Running, post, price, until_state};
use crate::support::redis::{Admin, Configured, on_prefix, redis};

fn on(server: &RedisServer) -> Config {
    on_prefix(server, "nodes")
}

/// Of each of a publisher's numbers, whether the gateway acknowledged it.
type Told = Vec<bool>;

/// Posts `count` numbered prices in batches, one after the other, at one gateway. Unacknowledged batches are
/// not repeated.
async fn publish_all(address: SocketAddr, name: u64, count: u64, batch: u64) -> Told {
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

/// Checks that everything acknowledged arrived, once and in its publisher's order, and that nothing is
/// doubled.
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
    let Some(server) = redis(&[]).await else { return };
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
        // Two readers at each node, and two that reconnect to either.
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

    // A position is valid after a restart, and history is unchanged.
    let again = Running::start(on(&server)).await;
    let mut follower = Follower::after("pjm", &format!("{}:{COUNT}", followers[0].position.epoch));
    follower.read(&[again.url("")], 4 * COUNT, &mut Cuts::none()).await;
    assert_eq!(follower.seen[..], followers[0].seen[COUNT as usize..]);
    let zones = again.get("/api/zones").await.json();
    assert_eq!(zones["zones"][0]["zone"], "pjm", "zones are remembered");
    again.publish("pjm", [price("next", 1)]).await;
    let mut elsewhere = Follower::after("pjm", &follower.position.to_string());
    elsewhere.read(&[b.url("")], 4 * COUNT + 1, &mut Cuts::none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_restored_from_older_data_gets_a_new_epoch() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let mut client = a.market("pjm").await.0;
    b.publish("pjm", (1..=10).map(|n| price("A", n))).await;
    let had = client.prices(10).await;
    let (publisher, _) = had[0]["id"].as_str().unwrap().rsplit_once('-').unwrap();

    // What a server has that starts from an older snapshot: half of the log is missing.
    let (log, meta) = ("nodes:{zone:pjm}:log", "nodes:{zone:pjm}:meta");
    for offset in 6..=10 {
        assert_eq!(server.admin(&["XDEL", log, &format!("{offset}-0")]).await, "1");
    }
    assert_eq!(server.admin(&["XSETID", log, "5-0"]).await, "OK");
    let known = format!("p:{publisher}");
    assert_eq!(server.admin(&["HSET", meta, "s", "5", &known, "5 1700000000000"]).await, "0");
    server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;

    let resync = client.next_of_type("resync").await;
    assert_eq!(resync["recovered"], true, "{resync}");
    b.publish("pjm", [price("A", 11)]).await;
    // The node that had published the others appends them again; readers that have had them do not get them
    // again.
    let prices = prices_to(&mut client, &[11]).await;
    assert_eq!(prices.len(), 1, "{prices:?}");
    let history = settled_history(&b).await;
    assert_eq!(history, (1..=11).map(|n| json!(n)).collect::<Vec<_>>());
}

/// A zone to which many processes have published in turn, all of which have ended.
async fn has_served_for_days(server: &RedisServer) {
    let meta = "nodes:{zone:pjm}:meta";
    for (field, value) in [("e", "0123456789abcdef"), ("s", "16"), ("b", "0")] {
        assert_eq!(server.admin(&["HSET", meta, field, value]).await, "1");
    }
    for n in 1..=16 {
        server.admin(&["HSET", meta, &format!("p:{n:032x}"), "1 1000"]).await;
    }
}

/// The next prices; only storage states may come in between.
async fn only_prices(client: &mut Client, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        let message = client.next().await;
        match message["type"].as_str().unwrap() {
            "price_update" => offsets.push(message["offset"].as_u64().unwrap()),
            "backend_state" | "heartbeat" => {}
            other => panic!("{other}: {message}"),
        }
    }
    offsets
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_forgets_silent_producers_has_lost_nothing() {
    let Some(server) = redis(&[]).await else { return };
    has_served_for_days(&server).await;
    let mut config = on(&server);
    config.storage.retention.age_s = 2;
    let (a, b) = (Running::start(config.clone()).await, Running::start(config).await);
    let (mut client, subscribed) = a.market("pjm").await;
    assert_eq!(position(&subscribed), "0123456789abcdef:16");
    a.publish("pjm", [price("A", 1)]).await;
    let meta = "nodes:{zone:pjm}:meta";
    let fields = server.admin(&["HLEN", meta]).await;
    assert_eq!(fields, "5", "epoch, top, bytes, when all keys were looked at, and one producer");
    assert_eq!(only_prices(&mut client, 1).await, [17]);

    // Both nodes examine the log again.
    server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    for state in ["degraded", "recovering", "healthy"] {
        let said = client.next().await;
        assert_eq!((&said["type"], &said["state"]), (&json!("backend_state"), &json!(state)), "{said}");
    }
    b.publish("pjm", [price("A", 2)]).await;
    assert_eq!(only_prices(&mut client, 1).await, [18]);

    // A producer that is silent for a day is forgotten too, while others publish; by then none of its entries
    // are left.
    until("all has grown too old", async || {
        let history = a.get("/api/zones/pjm/history?limit=1000").await.json();
        history["entries"].as_array().unwrap().is_empty()
    })
    .await;
    let published = server.list(&["HKEYS", meta]).await;
    let producers: Vec<&String> = published.iter().filter(|field| field.starts_with("p:")).collect();
    assert_eq!(producers.len(), 2);
    for producer in producers {
        assert_eq!(server.admin(&["HDEL", meta, producer]).await, "1");
    }
    a.publish("pjm", [price("A", 3)]).await;
    b.publish("pjm", [price("A", 4)]).await;
    assert_eq!(only_prices(&mut client, 2).await, [19, 20]);
    assert_eq!(server.admin(&["HGET", meta, "e"]).await, "0123456789abcdef");
    for gateway in [a, b] {
        let metrics = gateway.get("/metrics").await.body;
        assert!(metrics.contains("zonewire_logs_lost_total 0"), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_cannot_be_reconciled_is_named_and_does_not_affect_others() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = Running::start(on(&server)).await;
    let (_bad, mut good) = (gateway.market("bad").await, gateway.market("good").await.0);
    let meta = "nodes:{zone:bad}:meta";
    server.admin(&["DEL", meta]).await;
    assert_eq!(server.admin(&["SET", meta, "not a hash"]).await, "OK");
    server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let health = eventually("all others are well", async || {
        let health = gateway.get("/ws/health").await.json();
        let is_so = health["state"] == "healthy" && health["channels_set_aside"].is_array();
        is_so.then_some(health)
    })
    .await;
    assert_eq!(health["channels_set_aside"][0]["channel"], "zone:bad", "{health}");
    let reason = health["channels_set_aside"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("WRONGTYPE"), "{reason}");
    let metrics = gateway.get("/metrics").await.body;
    assert!(metrics.contains("zonewire_channels_set_aside 1"), "{metrics}");
    gateway.publish("good", [price("A", 1)]).await;
    assert_eq!(good.next_of_type("price_update").await["price"], 1);

    assert_eq!(server.admin(&["DEL", meta]).await, "1");
    until("it is reconciled too", async || {
        gateway.get("/ws/health").await.json()["channels_set_aside"].is_null()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_subscriptions_are_refused_says_so_and_reads_the_log_instead() {
    let Some(server) = redis(&[]).await else { return };
    let right = async |right| {
        server.admin(&["ACL", "SETUSER", "gate", "on", ">word", "~*", "&*", "+@all", right]).await
    };
    assert_eq!(right("+subscribe").await, "OK");
    let mut config = on(&server);
    config.storage.redis.username = Some("gate".to_owned());
    config.storage.redis.password = Some("word".to_owned());
    let (a, b) = (Running::start(on(&server)).await, Running::start(config).await);
    // Both are subscribed to the same channel, so the server always has a subscriber for it.
    let (_other, mut client) = (a.market("pjm").await, b.market("pjm").await.0);
    a.publish("pjm", [price("A", 1)]).await;
    client.next_of_type("price_update").await;

    assert_eq!(right("-subscribe").await, "OK");
    server.admin(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    until("it says that it may not subscribe", async || {
        let health = b.get("/ws/health").await.json();
        health["state"] == "degraded" && health["reason_code"] == "no_permission"
    })
    .await;
    a.publish("pjm", [price("A", 2)]).await;
    assert_eq!(right("+subscribe").await, "OK");
    let price = client.next_of_type("price_update").await;
    assert_eq!(price["price"], 2, "it reads what it did not hear");
    until_state(b.address, "healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_append_that_is_applied_later_is_marked_late() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let mut client = b.market("pjm").await.0;
    a.publish("pjm", [price("A", 1)]).await;
    let first = client.next_of_type("price_update").await;
    assert!(first["late"].is_null(), "{first}");
    for n in 2..=4 {
        until("both are well", async || {
            let are_well = [a.get("/ws/health").await.json(), b.get("/ws/health").await.json()];
            are_well.iter().all(|health| health["state"] == "healthy")
        })
        .await;
        server.freeze().unwrap();
        // The append is sent, abandoned, and waits in the server's socket while that is frozen.
        a.publish("pjm", [price("A", n)]).await;
        let since = tokio::time::Instant::now();
        until("it has been given up for a while", async || {
            let is_away = a.get("/ws/health").await.json()["state"] == "degraded";
            is_away && since.elapsed() > std::time::Duration::from_millis(1_500)
        })
        .await;
        server.thaw().unwrap();
        let late = client.next_of_type("price_update").await;
        assert_eq!((&late["price"], &late["late"]), (&json!(n), &json!(true)), "{late}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_log_gets_a_new_epoch_that_all_readers_learn_of() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let mut clients = [a.market("pjm").await.0, b.market("pjm").await.0];
    a.publish("pjm", (1..=3).map(|n| price("A", n))).await;
    b.publish("pjm", (4..=5).map(|n| price("A", n))).await;
    for client in &mut clients {
        client.prices(5).await;
    }
    for round in 0..3 {
        assert_eq!(server.admin(&["FLUSHALL"]).await, "OK");
        // Accepted at once, first at one node, then at the other.
        let (first, second) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let numbers = [6 + 2 * round, 7 + 2 * round];
        first.publish("pjm", [price("A", numbers[0])]).await;
        second.publish("pjm", [price("A", numbers[1])]).await;
        for client in &mut clients {
            assert_eq!(prices_to(client, &numbers).await.len(), 2, "nothing is repeated");
        }
        // Lost entries are appended again by the nodes that had published them.
        for gateway in [&a, &b] {
            let mut history = settled_history(gateway).await;
            history.sort_by_key(Value::as_u64);
            assert_eq!(history, (1..=numbers[1]).map(|n| json!(n)).collect::<Vec<_>>());
        }
    }
    assert!(a.stats().await["channels"]["epoch_changes"].as_u64().unwrap() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_lose_and_double_nothing() {
    const COUNT: u64 = 400;
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let (mut pace, subscribed) = a.market("pjm").await;
    // Each node knows the channel before its first outage.
    let _known = b.market("pjm").await;
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
    // One kill per so many prices that arrive, so that each happens amid traffic.
    for round in 0..12 {
        let kind = ["pubsub", "normal", "pubsub", "normal", "normal"][round % 5];
        let killed = server.admin(&["CLIENT", "KILL", "TYPE", kind]).await;
        assert!(killed.parse::<u32>().is_ok(), "{killed}");
        // The storage may be reported away meanwhile.
        for _ in 0..60 {
            pace.next_of_type("price_update").await;
        }
    }
    drop(pace);
    let mut told = publishing.join_all().await;
    told.sort_by_key(|(name, _)| *name);
    let told: Vec<Told> = told.into_iter().map(|(_, told)| told).collect();
    check_in_order(&a).await;
    check_in_order(&b).await;
    a.publish("pjm", [price("end", 1)]).await;
    let followers = reading.join_all().await;
    let sorted = |seen: &[Value]| {
        let mut ids: Vec<String> = ids(seen).into_iter().map(str::to_owned).collect();
        ids.sort_unstable();
        ids
    };
    for follower in &followers {
        check_told(&follower.seen, &told);
        assert_eq!(sorted(&follower.seen), sorted(&followers[0].seen));
    }
}

/// Reads prices until these numbers have arrived, in any order; every change of the epoch must be reported as
/// without loss.
async fn prices_to(client: &mut Client, numbers: &[u64]) -> Vec<Value> {
    let mut prices: Vec<Value> = Vec::new();
    while !numbers.iter().all(|number| prices.iter().any(|price| price["price"] == *number)) {
        let message = client.next().await;
        match message["type"].as_str() {
            Some("price_update") => {
                assert!(prices.iter().all(|price| price["id"] != message["id"]), "double: {message}");
                prices.push(message);
            }
            Some("resync") => assert_eq!(message["recovered"], true, "{message}"),
            Some("backend_state") => {}
            _ => panic!("{message}"),
        }
    }
    prices
}

/// Checks that no channel of the gateway is forked, and that Redis serves.
async fn check_in_order(gateway: &Running) {
    check_healthy(gateway).await;
    until("every channel is reconciled", async || {
        let outage = &gateway.stats().await["outage"];
        outage["channels_waiting"] == 0 && outage["journal_entries"] == 0
    })
    .await;
}

/// The prices of the log, once all nodes have reconciled it.
async fn settled_history(gateway: &Running) -> Vec<Value> {
    let mut before = None;
    eventually("the log stays as it is", async || {
        let history = gateway.get("/api/zones/pjm/history?limit=1000").await.json();
        let prices: Vec<Value> =
            history["entries"].as_array()?.iter().map(|entry| entry["price"].clone()).collect();
        let outage = &gateway.stats().await["outage"];
        let settled = outage["channels_waiting"] == 0 && before.as_ref() == Some(&prices);
        before = Some(prices.clone());
        settled.then_some(prices)
    })
    .await
}

async fn check_degraded(gateway: &Running, client: &mut Client) {
    let told = client.next_of_type("backend_state").await;
    assert_has(&told, json!({ "storage_backend": "in-memory", "state": "degraded", "scope": "all" }));
    assert!(told["since"].is_string() && told["reason"].is_string(), "{told}");
    let health = gateway.get("/ws/health").await;
    assert_eq!(health.status, 200, "degraded is a fact, not a failure");
    let health = health.json();
    assert_has(&health, json!({ "status": "degraded", "storage_backend": "in-memory" }));
    assert_has(&health, json!({ "degraded": true, "ready": true, "live": true }));
    assert_eq!(health["since"], told["since"], "the same truth everywhere");
    assert_eq!(gateway.get("/health/ready").await.status, 200);
    let redis = gateway.get("/health/redis").await;
    assert_eq!(redis.status, 503);
    assert_has(&redis.json(), json!({ "status": "unhealthy", "link": "down" }));
    let metrics = gateway.get("/metrics").await.body;
    assert!(metrics.contains("zonewire_storage_state{state=\"degraded\"} 1"), "{metrics}");
    // The reason may be reported again in other words.
    let mut more = client.until_pong().await;
    more.retain(|message| message["type"] != "backend_state" || message["since"] != told["since"]);
    assert_eq!(more, [] as [Value; 0], "sockets stay open");
    // Prices are accepted nevertheless, and delivered at once.
    gateway.publish("pjm", [price("meanwhile", 100)]).await;
    let resync = client.next().await;
    assert_eq!((&resync["type"], &resync["recovered"]), (&json!("resync"), &json!(true)), "{resync}");
    assert_eq!(client.prices(1).await[0]["key"], "meanwhile");
    assert_eq!(gateway.stats().await["outage"]["journal_entries"], 1);
}

/// Resumes `pjm` until it has caught up. Returns the prices received and the new position.
async fn catch_up(gateway: &Running, since: &str) -> (Vec<u64>, String) {
    let mut client = gateway.connect(&format!("/ws/market/pjm?since={since}")).await;
    let (messages, channel) = client.until_caught_up().await;
    assert_eq!(channel, "zone:pjm");
    let (mut numbers, mut epoch, mut offset) = (Vec::new(), Value::Null, 0);
    for message in &messages {
        offset = message["offset"].as_u64().unwrap_or(offset);
        match message["type"].as_str() {
            Some("price_update") => numbers.push(message["price"].as_u64().unwrap()),
            Some("subscribed" | "resync") => {
                assert_eq!(message["recovered"], true, "{message}");
                epoch = message["epoch"].clone();
            }
            Some("connection_established" | "backend_state") => {}
            _ => panic!("{message}"),
        }
    }
    (numbers, format!("{}:{offset}", epoch.as_str().unwrap()))
}

async fn check_healthy(gateway: &Running) {
    until("health says so", async || {
        let health = gateway.get("/ws/health").await.json();
        health["status"] == "healthy" && health["degraded"] == false
    })
    .await;
    let redis = gateway.get("/health/redis").await.json();
    assert_eq!((&redis["status"], &redis["link"]), (&json!("healthy"), &json!("up")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_restarted_with_its_data_continues_the_same_log() {
    let Some(mut server) = redis(&DURABLE).await else { return };
    let gateway = Running::start(on(&server)).await;
    let (mut client, subscribed) = gateway.market("pjm").await;
    gateway.publish("pjm", [price("A", 1), price("A", 2)]).await;
    client.prices(2).await;
    server.kill().await.unwrap();
    check_degraded(&gateway, &mut client).await;
    let (numbers, reached) = catch_up(&gateway, &position(&subscribed)).await;
    assert_eq!(numbers, [1, 2, 100]);

    // A subscription to a channel that is not followed yet is made at once.
    let mut waiting = gateway.connect("/ws/market/other").await;
    assert_eq!(waiting.next().await["state"], "degraded");
    assert_eq!(waiting.next().await["type"], "subscribed");
    gateway.publish("other", [price("B", 7)]).await;
    assert_eq!(waiting.prices(1).await[0]["price"], 7);

    server.restart().await.unwrap();
    check_in_order(&gateway).await;
    gateway.publish("pjm", [price("back", 3)]).await;
    gateway.publish("other", [price("B", 8)]).await;
    assert_eq!(prices_to(&mut client, &[3]).await.len(), 1);
    assert_eq!(prices_to(&mut waiting, &[8]).await.len(), 1);
    assert_eq!(catch_up(&gateway, &reached).await.0, [3], "from the outage into what came after it");
    let history = gateway.get("/api/zones/pjm/history").await.json();
    let told = subscribed["epoch"].as_str().unwrap();
    assert_eq!(told.strip_prefix("u."), history["epoch"].as_str(), "it is the same epoch");
    assert_eq!(history["last_offset"], 4);
    let mut follower = Follower::after("pjm", &position(&subscribed));
    follower.read(&[gateway.url("")], 4, &mut Cuts::none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_restarted_empty_is_filled_again() {
    let Some(mut server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let mut clients = [a.market("pjm").await.0, b.market("pjm").await.0];
    a.publish("pjm", [price("A", 1), price("A", 2)]).await;
    for client in &mut clients {
        client.prices(2).await;
    }
    server.kill().await.unwrap();
    check_degraded(&a, &mut clients[0]).await;
    b.publish("pjm", [price("other", 101)]).await;
    server.restart().await.unwrap();
    check_in_order(&a).await;
    check_in_order(&b).await;
    a.publish("pjm", [price("back", 3)]).await;
    b.publish("pjm", [price("also", 4)]).await;
    let [of_a, of_b] = &mut clients;
    // What the other node had accepted meanwhile arrives late, and is marked so.
    let keys = |prices: Vec<Value>, late: &str| {
        for price in &prices {
            let is_late = price["late"] == true;
            assert!(is_late || price["key"] != late, "{price}");
            assert!(!is_late || ["other", "meanwhile"].contains(&price["key"].as_str().unwrap()), "{price}");
        }
        let mut keys: Vec<String> =
            prices.iter().map(|price| price["key"].as_str().unwrap().to_owned()).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(keys(prices_to(of_a, &[101, 3, 4]).await, "other"), ["also", "back", "other"]);
    let had = keys(prices_to(of_b, &[100, 101, 3, 4]).await, "meanwhile");
    assert_eq!(had, ["also", "back", "meanwhile", "other"]);
    for gateway in [&a, &b] {
        let mut history = settled_history(gateway).await;
        history.sort_by_key(Value::as_u64);
        assert_eq!(history, [1, 2, 3, 4, 100, 101].map(|n| json!(n)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_redis_is_reported_and_continued_with() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = Running::start(on(&server)).await;
    let (mut client, subscribed) = gateway.market("pjm").await;
    gateway.publish("pjm", [price("A", 1)]).await;
    client.prices(1).await;
    server.freeze().unwrap();
    check_degraded(&gateway, &mut client).await;
    server.thaw().unwrap();
    check_in_order(&gateway).await;
    gateway.publish("pjm", [price("back", 2)]).await;
    assert_eq!(prices_to(&mut client, &[2]).await.len(), 1);
    let mut follower = Follower::after("pjm", &position(&subscribed));
    follower.read_to(&[gateway.url("")], "back", &mut Cuts::none()).await;
    let keys: Vec<&Value> = follower.seen.iter().map(|price| &price["key"]).collect();
    assert_eq!(keys, ["A", "meanwhile", "back"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_append_does_not_hold_up_its_zone() {
    let Some(server) = redis(&[]).await else { return };
    let mut config = on(&server);
    config.storage.redis = RedisConfig { ordering_deadline_ms: 50, ..server.patient_config() };
    config.storage.redis.prefix = "nodes".to_owned();
    let gateway = Running::start(config).await;
    let (mut client, _) = gateway.market("pjm").await;
    gateway.publish("pjm", [price("A", 1)]).await;
    prices_to(&mut client, &[1]).await;
    server.freeze().unwrap();
    // Redis is not reported away: only this append is slow.
    gateway.publish("pjm", [price("A", 2)]).await;
    prices_to(&mut client, &[2]).await;
    server.thaw().unwrap();
    check_in_order(&gateway).await;
    gateway.publish("pjm", [price("A", 3)]).await;
    prices_to(&mut client, &[3]).await;
    assert_eq!(settled_history(&gateway).await, [1, 2, 3].map(|n| json!(n)));
    assert!(gateway.stats().await["outage"]["forks_late"].as_u64().unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brief_fork_of_a_zone_costs_no_client_its_position() {
    let Some(server) = redis(&[]).await else { return };
    let link = Proxy::start(server.target.address).await.unwrap();
    let mut config = on(&server);
    config.storage.redis = RedisConfig { prefix: "nodes".to_owned(), ..server.patient_config() };
    let a = Running::start(config.clone()).await;
    config.storage.redis.port = Some(link.address.port());
    config.storage.redis.ordering_deadline_ms = 50;
    let b = Running::start(config).await;
    let mut witness = b.market("pjm").await.0;
    b.publish("pjm", [price("A", 1)]).await;
    prices_to(&mut witness, &[1]).await;
    let (mut client, subscribed) = a.market("pjm").await;
    // Redis receives what `b` sends, but does not answer in time: `b` forks the zone, and does not hear what
    // is published elsewhere.
    link.set(Mode::Hole { requests: false, replies: true });
    b.publish("pjm", [price("A", 2)]).await;
    prices_to(&mut witness, &[2]).await;
    prices_to(&mut client, &[2]).await;
    a.publish("pjm", [price("A", 3)]).await;
    prices_to(&mut client, &[3]).await;
    let since = format!("{}:{}", subscribed["epoch"].as_str().unwrap(), offset(&subscribed) + 2);
    let mut client = b.connect(&format!("/ws/market/pjm?since={since}")).await;
    assert_eq!(client.next().await["state"], "healthy");
    for _ in 0..10 {
        assert_eq!(client.until_pong().await, [] as [Value; 0], "nothing is said before it is known");
    }
    link.set(Mode::Pass);
    let subscribed = client.next().await;
    assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&json!(true), &json!(0)), "{subscribed}");
    b.publish("pjm", [price("A", 4)]).await;
    assert_eq!(client.next_of_type("price_update").await["price"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_appears_later_receives_earlier_entries() {
    let Some(mut server) = redis(&[]).await else { return };
    server.kill().await.unwrap();
    let mut config = on(&server);
    config.storage.required = false;
    let (a, b) = (Running::start(config.clone()).await, Running::start(config).await);
    let mut client = a.market("pjm").await.0;
    a.publish("pjm", [price("A", 1), price("A", 2)]).await;
    b.publish("pjm", [price("B", 3)]).await;
    assert_eq!(prices_to(&mut client, &[1, 2]).await.len(), 2);
    server.restart().await.unwrap();
    for gateway in [&a, &b] {
        check_in_order(gateway).await;
    }
    b.publish("pjm", [price("B", 4)]).await;
    // Whether the reader misses what the other node had before is reported either way.
    while client.next().await["price"] != 4 {}
    let mut history = settled_history(&a).await;
    history.sort_by_key(Value::as_u64);
    assert_eq!(history, [1, 2, 3, 4].map(|n| json!(n)));
}
