//! Events between gateways, and between gateways and other programs, over a real Redis.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time;
use zonewire::config::{BridgeRole, Config};

use crate::support;
use crate::support::client::{Client, LIMIT, assert_has};
use crate::support::eventually::{eventually, until};
use crate::support::foreign::Foreign;
use crate::support::gateway::{Answer, Running, config, request, until_stat};
use crate::support::orders::{post_json, publish_event};
use crate::support::process::Process;
use crate::support::redis::{Configured, cluster, redis};
use crate::support::tools::NodeScripts;

fn on(redis: &impl Configured) -> Config {
    let mut config = support::redis::on(redis);
    config.bridge.enabled = true;
    config
}

fn ticker(price: u64) -> Value {
    json!({ "exchange": "binance", "symbol": "BTC-USDT", "price": price })
}

fn trade(id: u64) -> Value {
    json!({ "exchange": "kraken", "symbol": "BTC/USD", "price": "64250.10", "size": "0.50", "id": id })
}

async fn set_mode(gateway: &Running, body: &Value) -> Answer {
    post_json(gateway.address, "/api/bridge/subscriptions", body).await
}

/// The state of a type's subscription.
async fn subscription(gateway: &Running, event: &str) -> Value {
    let all = gateway.get("/api/bridge/subscriptions").await.json();
    all["types"].as_array().unwrap().iter().find(|of| of["type"] == event).unwrap().clone()
}

/// A client of a live type that can miss nothing, because its gateway was subscribed before the client came. An
/// earlier client would be told that events may be missing.
async fn follow_what_is_heard(gateway: &Running, channel: &str, event: &str) -> Client {
    let _first = gateway.follow(channel).await;
    until_active(gateway, event).await;
    gateway.follow(channel).await
}

async fn until_active(gateway: &Running, event: &str) {
    until(&format!("{event} is subscribed to"), async || {
        subscription(gateway, event).await["active"] == true
    })
    .await;
}

/// Waits until both connections of the bridge are established.
async fn until_connected(gateway: &Running) {
    until_stat(gateway, "/redis/connected", 1).await;
}

/// The type and data of the next entry.
async fn next_entry(client: &mut Client) -> (String, Value) {
    loop {
        let mut message = client.next().await;
        if message["data"].is_object() {
            return (message["type"].as_str().unwrap().to_owned(), message["data"].take());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_from_before_redis_are_told_that_events_may_be_missing() {
    let Some(mut server) = redis(&[]).await else { return };
    server.kill().await.unwrap();
    let gateway = Running::changed(on(&server), |config| config.storage.required = false).await;
    let mut client = gateway.follow("event:ticker").await;
    server.restart().await.unwrap();
    until_active(&gateway, "ticker").await;
    assert_eq!(next_entry(&mut client).await, ("missed".to_owned(), json!({})));
    // After that nothing is missing.
    let mut foreign = Foreign::connect(&server).await;
    foreign.publish("ticker", &json!({ "type": "ticker", "data": ticker(1), "source": "other" })).await;
    assert_eq!(next_entry(&mut client).await, ("ticker".to_owned(), ticker(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_reach_other_gateways_and_those_lost_in_an_outage_are_counted() {
    let Some(mut server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    let mut at_a = follow_what_is_heard(&a, "event:ticker", "ticker").await;
    let mut at_b = follow_what_is_heard(&b, "event:ticker:binance:*", "ticker").await;
    for gateway in [&a, &b] {
        until_connected(gateway).await;
    }
    let (mut foreign, mut listener) = (Foreign::connect(&server).await, Foreign::connect(&server).await);
    listener.listen("ticker").await;

    publish_event(a.address, "ticker", &ticker(1)).await;
    let heard = listener.hear().await;
    let node = a.stats().await["node"].as_str().unwrap().to_owned();
    assert_eq!((&heard["type"], &heard["data"]), (&json!("ticker"), &ticker(1)));
    assert_eq!(heard["source"].as_str().unwrap().replace('-', ""), node);
    assert!(heard["timestamp"].as_str().unwrap().ends_with('Z'), "{heard}");
    let envelope = json!({ "type": "ticker", "data": ticker(2), "timestamp": 1_700_000_000_123_u64, "source": { "pid": 7 }, "v": 2 });
    foreign.publish("ticker", &envelope).await;
    for client in [&mut at_a, &mut at_b] {
        for price in 1..=2 {
            assert_eq!(next_entry(client).await, ("ticker".to_owned(), ticker(price)));
        }
    }

    server.kill().await.unwrap();
    for price in 3..=12 {
        publish_event(a.address, "ticker", &ticker(price)).await;
        assert_eq!(next_entry(&mut at_a).await, ("ticker".to_owned(), ticker(price)), "at once");
    }
    server.restart().await.unwrap();
    // Without a further event, A announces its newest number.
    let (mut missing, mut perhaps) = (0, 0);
    while missing < 10 {
        let (kind, data) = next_entry(&mut at_b).await;
        assert_eq!(kind, "missed", "{data}");
        match data["count"].as_u64() {
            Some(count) => {
                missing += count;
                assert_eq!(data["source"].as_str().unwrap().replace('-', ""), node);
            }
            None => perhaps += 1,
        }
    }
    assert_eq!((missing, perhaps), (10, 1));
    publish_event(a.address, "ticker", &ticker(13)).await;
    assert_eq!(next_entry(&mut at_b).await, ("ticker".to_owned(), ticker(13)));

    // Events are counted after they were published, and after they are in the log.
    until("all are counted", async || {
        let (of_a, of_b) = (a.stats().await["redis"].take(), b.stats().await["redis"].take());
        let of = |stats: &Value, name: &str| stats[name]["ticker"].as_u64().unwrap();
        let at_b = ["received", "missed", "invalid"].map(|name| of(&of_b, name));
        at_b == [3, 10, 0] && (of(&of_a, "published"), of(&of_a, "missed")) == (2, 0)
    })
    .await;
    let all = b.get("/api/bridge/subscriptions").await.json();
    let sources = all["sources"].as_array().unwrap();
    let of_a = sources.iter().find(|of| of["source"].as_str().unwrap().replace('-', "") == node).unwrap();
    assert_eq!(of_a["types"]["ticker"], json!({ "published": 12, "received": 2, "missed": 10 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn durable_events_of_others_are_in_the_log_once_whichever_gateway_appends_them() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b, c) = (
        Running::start(on(&server)).await,
        Running::start(on(&server)).await,
        Running::start(on(&server)).await,
    );
    let mut at_c = c.follow("event:trade").await;
    let holder = async |gateways: &[&Running]| {
        eventually("one takes durable events in", async || {
            let mut holders = Vec::new();
            for (place, gateway) in gateways.iter().enumerate() {
                let of = subscription(gateway, "trade").await;
                let all = gateway.get("/api/bridge/subscriptions").await.json();
                if all["takes_in"] == true && of["active"] == true {
                    holders.push(place);
                }
            }
            (holders.len() == 1).then(|| holders[0])
        })
        .await
    };
    let first = holder(&[&a, &b, &c]).await;
    let mut foreign = Foreign::connect(&server).await;
    let envelope = |id: u64| json!({ "type": "trade", "data": trade(id), "source": "feed-1" });
    for id in 1..=100 {
        foreign.publish("trade", &envelope(id)).await;
        foreign.publish("trade", &envelope(id)).await;
    }
    let mut ids = Vec::new();
    for _ in 0..100 {
        let (kind, data) = next_entry(&mut at_c).await;
        assert_eq!((kind.as_str(), &data["price"]), ("trade", &json!("64250.10")));
        ids.push(data["tradeId"].as_u64().unwrap());
    }
    // A gateway's own event is published for other programs, and reaches gateways through the log alone.
    let mut listener = Foreign::connect(&server).await;
    listener.listen("trade").await;
    let mut own = trade(0);
    own.as_object_mut().unwrap().remove("id");
    publish_event(a.address, "trade", &own).await;
    let heard = listener.hear().await;
    assert_eq!((&heard["data"], heard["zonewire"]["sequence"].is_null()), (&own, true));
    assert_eq!(next_entry(&mut at_c).await, ("trade".to_owned(), own));

    // The last gateway's client stays connected, so another gateway leaves.
    let mut gateways = vec![a, b, c];
    let was_last = first == 2;
    let left = gateways.remove(if was_last { 0 } else { first });
    left.stop().await;
    let _next = holder(&gateways.iter().collect::<Vec<_>>()).await;
    for id in 90..=150 {
        foreign.publish("trade", &envelope(id)).await;
    }
    while ids.len() < 150 {
        ids.push(next_entry(&mut at_c).await.1["tradeId"].as_u64().unwrap());
    }
    assert_eq!(ids, (1..=150).collect::<Vec<_>>());
    // Had anything been doubled, it would precede the last event.
    foreign.publish("trade", &envelope(151)).await;
    assert_eq!(next_entry(&mut at_c).await.1["tradeId"], 151);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_nobody_follows_is_subscribed_to_only_if_an_operator_asks() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = Running::start(on(&server)).await;
    until_connected(&gateway).await;
    let mut foreign = Foreign::connect(&server).await;
    let listeners = async |foreign: &mut Foreign, event: &str| {
        let answer = foreign.0.ask(&["PUBSUB", "NUMSUB", &format!("ws:{event}")]).await.unwrap();
        format!("{answer:?}").contains("Int(1)") || answer.texts().last().is_some_and(|count| count == "1")
    };
    assert!(!listeners(&mut foreign, "candle").await);
    let answer = set_mode(&gateway, &json!({ "type": "candle", "mode": "always" })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    until_active(&gateway, "candle").await;
    assert!(listeners(&mut foreign, "candle").await);
    assert_eq!(subscription(&gateway, "candle").await["mode"], "always");
    set_mode(&gateway, &json!({ "type": "candle", "mode": "never" })).await;
    until("it is let go", async || !listeners(&mut foreign, "candle").await).await;

    for (body, status, code) in [
        (json!({ "type": "candles", "mode": "never" }), 422, "invalid_request"),
        (json!({ "type": "candle", "mode": "sometimes" }), 422, "invalid_request"),
        (json!({ "type": "candle" }), 422, "invalid_request"),
        (json!({ "type": "candle", "mode": "never", "for": 1 }), 422, "invalid_request"),
        (json!([]), 422, "invalid_request"),
    ] {
        set_mode(&gateway, &body).await.problem(status, code);
    }
    let mut publishes = on(&server);
    publishes.bridge.role = BridgeRole::Publish;
    let publisher = Running::start(publishes).await;
    let refused = set_mode(&publisher, &json!({ "type": "candle", "mode": "always" })).await;
    let problem = refused.problem(422, "invalid_request");
    assert!(problem["detail"].as_str().unwrap().contains("bridge.role"), "{problem}");
    let off = Running::start(config()).await;
    set_mode(&off, &json!({ "type": "candle", "mode": "always" })).await.problem(404, "not_found");
    assert_eq!(off.get("/api/bridge/subscriptions").await.json()["enabled"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_stats_report_the_state_of_the_bridge() {
    let Some(mut server) = redis(&[]).await else { return };
    let gateway = Running::start(on(&server)).await;
    until_connected(&gateway).await;
    let _client = gateway.follow("event:ticker").await;
    until_active(&gateway, "ticker").await;
    publish_event(gateway.address, "ticker", &ticker(1)).await;
    for (event, data) in [
        ("exchange:connected", json!({ "exchange": "binance", "timestamp": 1_700_000_000 })),
        (
            "exchange:disconnected",
            json!({ "exchange": "binance", "reason": "r", "timestamp": 1_700_000_009 }),
        ),
        ("exchange:error", json!({ "exchange": "binance", "reason": "r", "code": "c" })),
    ] {
        publish_event(gateway.address, event, &data).await;
    }
    until_stat(&gateway, "/redis/published_events", 4).await;
    let health = gateway.get("/health/redis").await;
    assert_eq!(health.status, 200, "{health:?}");
    let health = health.json();
    assert_has(&health, json!({ "status": "healthy", "link": "up", "serving": true }));
    let metrics = &health["metrics"];
    let names: Vec<&String> = metrics.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["activeSubscriptions", "connected", "errors", "publishedEvents", "receivedEvents", "subscriptions"]
    );
    assert_eq!((&metrics["connected"], &metrics["publishedEvents"]), (&json!(true), &json!(4)));
    let text = gateway.get("/metrics").await.body;
    let value = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap_or_else(|| panic!("{name}"));
        line.rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(value("redis_connected"), "1");
    assert_eq!(value("redis_events_published_total"), "4");
    for name in ["redis_events_received_total", "redis_errors_total", "redis_subscriptions"] {
        value(name);
    }
    let exchange = &gateway.stats().await["exchanges"]["binance"];
    assert_eq!(exchange["state"], "disconnected");
    let events: BTreeMap<String, u64> = serde_json::from_value(exchange["events"].clone()).unwrap();
    assert_eq!((events["ticker"], events["exchange:error"]), (1, 1));

    server.kill().await.unwrap();
    let health = eventually("it is said", async || {
        let answer = gateway.get("/health/redis").await;
        (answer.status == 503).then(|| answer.json())
    })
    .await;
    assert!(health["status"] == "unhealthy" || health["status"] == "degraded", "{health}");
    until("the bridge says so too", async || {
        gateway.get("/health/redis").await.json()["metrics"]["connected"] == false
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_passes_events_on_whichever_node_they_are_published_at() {
    let Some(cluster) = cluster(0, &[]).await else { return };
    let (a, b) = (Running::start(on(&cluster)).await, Running::start(on(&cluster)).await);
    let mut at_b = follow_what_is_heard(&b, "event:ticker", "ticker").await;
    for gateway in [&a, &b] {
        until_connected(gateway).await;
    }
    publish_event(a.address, "ticker", &ticker(1)).await;
    assert_eq!(next_entry(&mut at_b).await, ("ticker".to_owned(), ticker(1)));
    for (price, node) in (2..).zip(&cluster.nodes) {
        let mut foreign = Foreign::connect(node).await;
        foreign.publish("ticker", &json!({ "data": ticker(price) })).await;
        assert_eq!(next_entry(&mut at_b).await, ("ticker".to_owned(), ticker(price)));
    }
}

/// A Node program that uses one of the two libraries.
struct Bus {
    library: &'static str,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Bus {
    async fn start(scripts: &NodeScripts, library: &'static str, port: u16) -> Self {
        let args = [library.to_owned(), port.to_string(), "ticker".to_owned(), "trade".to_owned()];
        let mut child = scripts.node("bus.mjs", &args).stdin(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut bus = Self { library, input, output: BufReader::new(output).lines(), _child: child };
        assert_eq!(bus.next().await, "ready");
        bus
    }

    async fn next(&mut self) -> Value {
        let line = time::timeout(LIMIT, self.output.next_line()).await.expect("something is heard in time");
        serde_json::from_str(&line.unwrap().expect("the program runs")).unwrap()
    }

    /// Waits until it receives an event of a gateway.
    async fn hear_of_gateway(&mut self, data: &Value) {
        loop {
            let heard = self.next().await;
            if heard["zonewire"].is_object() && heard["data"] == *data {
                assert_eq!(heard["type"], "ticker", "{}", self.library);
                return;
            }
        }
    }

    async fn publish(&mut self, event: &str, data: &Value) {
        let line = json!({ "type": event, "data": data }).to_string() + "\n";
        self.input.write_all(line.as_bytes()).await.unwrap();
    }
}

/// Programs with ioredis and with node-redis exchange events with a gateway, before and after an outage of
/// Redis; the gateway is configured by their environment variables alone.
#[tokio::test(flavor = "multi_thread")]
async fn programs_in_node_publish_and_hear_with_either_library_also_after_redis_was_away() {
    let Some(scripts) = NodeScripts::find() else { return };
    let Some(mut server) = redis(&[]).await else { return };
    let port = server.port.to_string();
    let environment = [
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", port.as_str()),
        ("ENABLE_REDIS_SCALING", "true"),
        ("REDIS_KEY_PREFIX", "ws:"),
        ("REDIS_ENABLE_PUBLISHING", "true"),
        ("REDIS_ENABLE_SUBSCRIPTION", "1"),
        ("REDIS_MAX_RETRIES", "3"),
        ("REDIS_RETRY_DELAY", "soon"),
    ];
    let mut process = Process::start_with(&[], &environment).await;
    let address = process.address;
    let url = format!("ws://{address}/ws");
    let get = async |path: &str| request(address, "GET", path, &[], b"").await.json();
    let warning = get("/api/config").await["warning"].as_str().unwrap().to_owned();
    assert!(warning.contains("REDIS_MAX_RETRIES") && warning.contains("REDIS_RETRY_DELAY"), "{warning}");
    let subscribe = json!({ "type": "subscribe", "channels": ["event:ticker", "event:trade"] });
    let until_all_active = async || {
        until("both types are subscribed to", async || {
            let all = get("/api/bridge/subscriptions").await;
            let is_active = |of: &Value| {
                ["ticker", "trade"].iter().all(|name| of["type"] != *name || of["active"] == true)
            };
            all["types"].as_array().unwrap().iter().all(is_active)
        })
        .await;
    };
    // A client that comes before the type is subscribed to is told that events may be missing.
    let mut first = Client::connect(&url).await;
    first.send(&subscribe).await;
    until_all_active().await;
    let mut client = Client::connect(&url).await;
    client.send(&subscribe).await;
    client.next_of_type("subscribed").await;
    let mut buses = [
        Bus::start(&scripts, "ioredis", server.port).await,
        Bus::start(&scripts, "node-redis", server.port).await,
    ];
    let mut number = 0;
    for round in 0..2 {
        for bus in &mut buses {
            number += 1;
            bus.publish("ticker", &ticker(number)).await;
            assert_eq!(
                next_entry(&mut client).await,
                ("ticker".to_owned(), ticker(number)),
                "{}",
                bus.library
            );
            bus.publish("trade", &trade(number)).await;
            let (kind, data) = next_entry(&mut client).await;
            assert_eq!((kind.as_str(), &data["tradeId"]), ("trade", &json!(number)), "{}", bus.library);
            number += 1;
            publish_event(address, "ticker", &ticker(number)).await;
            assert_eq!(next_entry(&mut client).await, ("ticker".to_owned(), ticker(number)));
        }
        for bus in &mut buses {
            for back in [2, 0] {
                bus.hear_of_gateway(&ticker(number - back)).await;
            }
        }
        if round == 1 {
            break;
        }
        server.kill().await.unwrap();
        until("it is noticed", async || get("/ws/stats").await["redis"]["connected"] == 0).await;
        server.restart().await.unwrap();
        until("it is back", async || get("/health/redis").await["status"] == "healthy").await;
        until_all_active().await;
        assert_eq!(
            next_entry(&mut client).await,
            ("missed".to_owned(), json!({})),
            "of programs it is not known"
        );
        // The programs reconnect at their own pace; what is published before then they lose, as pub/sub does.
        for bus in &mut buses {
            until_heard(bus, address, &mut client).await;
        }
    }
    process.kill().await;
}

/// Publishes at the gateway until a program receives it again.
async fn until_heard(bus: &mut Bus, address: std::net::SocketAddr, client: &mut Client) {
    let deadline = time::Instant::now() + LIMIT;
    for number in 1_000.. {
        publish_event(address, "ticker", &ticker(number)).await;
        assert_eq!(next_entry(client).await, ("ticker".to_owned(), ticker(number)));
        let heard = time::timeout(Duration::from_millis(250), bus.output.next_line()).await;
        if heard.is_ok() {
            return;
        }
        assert!(time::Instant::now() < deadline, "{} hears again", bus.library);
    }
}
