//! The market stream as clients receive it: first messages, order, resuming, slow readers.

use std::collections::HashMap;
use std::net::SocketAddr;

use chrono::DateTime;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;
use zonewire::config::Config;
use zonewire::model::Lane;

use crate::support::client::{Came, Client, assert_has, field_names, offset, position};
use crate::support::eventually::until;
use crate::support::follow::{Cuts, Follower};
use crate::support::gateway::{JSON, LINES, Lines, Running, config, price, publish, until_stat};
use crate::support::process::{Process, Signal};
use crate::support::raw::RawSocket;

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| DateTime::parse_from_rfc3339(text).is_ok())
}

fn every() -> Config {
    let mut config = config();
    config.channels.default_lane = Lane::Every;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_two_messages_describe_the_connection_and_the_subscription() {
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", [price("A", 1), price("A", 2)]).await;
    let mut client = gateway.connect("/ws/market/pjm").await;
    let established = client.next().await;
    assert_eq!(
        field_names(&established).join(" "),
        "connection_id heartbeat_interval_ms market_zone message protocol state storage_backend timestamp type"
    );
    assert_eq!(established["type"], "connection_established");
    assert!(established["connection_id"].as_str().unwrap().parse::<Uuid>().is_ok());
    assert_eq!(established["market_zone"], "pjm");
    assert_eq!(established["storage_backend"], "in-memory");
    assert_eq!(established["state"], "healthy");
    assert_eq!(established["heartbeat_interval_ms"], 30_000);
    assert_eq!(established["protocol"], 1);
    assert_eq!(established["message"], "Connected to pjm market updates");
    assert!(is_time(&established["timestamp"]));

    let subscribed = client.next().await;
    assert_eq!(field_names(&subscribed).join(" "), "channel epoch gap offset recovered timestamp top type");
    assert_eq!(subscribed["type"], "subscribed");
    assert_eq!(subscribed["channel"], "zone:pjm");
    assert!(subscribed["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()));
    assert_has(&subscribed, json!({ "offset": 2, "recovered": true, "gap": 0 }));
    assert_eq!(subscribed["top"], 2, "there is nothing to catch up with");
    assert!(is_time(&subscribed["timestamp"]));

    // On `/ws` there is no zone, and nothing arrives without a request.
    let mut client = gateway.connect("/ws").await;
    let established = client.next().await;
    assert_eq!(established["type"], "connection_established");
    assert_eq!(established.get("market_zone"), None);
    assert_eq!(client.until_pong().await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn posted_prices_arrive_in_order_with_all_their_fields() {
    let gateway = Running::start(config()).await;
    let (mut client, subscribed) = gateway.market("pjm").await;
    assert_eq!(subscribed["offset"], 0);

    let one =
        r#"{ "node": "HUB", "price": 39432.480, "n": 1.10e2, "timestamp": "2021-01-08T00:00:00.278Z" }"#;
    let answer = gateway.post("pjm", JSON, one.as_bytes()).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "accepted": 1 })));
    let array = r#"[{"key":"A","price":1,"note":"x \" y"},{"symbol":"BTC/USDT","price":2.50,"bid":null}]"#;
    assert_eq!(gateway.post("pjm", JSON, array.as_bytes()).await.json(), json!({ "accepted": 2 }));
    let lines = "{\"key\":\"A\",\"price\":3}\n\n{\"key\":\"B\",\"price\":4,\"deep\":{\"a\":[1,2]}}\r\n";
    assert_eq!(gateway.post("pjm", LINES, lines.as_bytes()).await.json(), json!({ "accepted": 2 }));

    let first = client.next_text().await;
    for part in [
        r#"{"type":"price_update","channel":"zone:pjm","offset":1,"id":""#,
        r#""timestamp":"2021-01-08T00:00:00.278Z""#,
        r#""price":39432.480"#,
        r#""n":1.10e2"#,
        r#""node":"HUB""#,
        r#""key":"HUB""#,
    ] {
        assert!(first.contains(part), "{part} in {first}");
    }
    let rest = client.prices(4).await;
    assert_eq!(rest.iter().map(offset).collect::<Vec<_>>(), [2, 3, 4, 5]);
    let shown: Vec<String> = rest.iter().map(|message| message["price"].to_string()).collect();
    assert_eq!(shown, ["1", "2.5", "3", "4"]);
    assert_eq!((&rest[0]["note"], &rest[1]["bid"]), (&json!("x \" y"), &Value::Null));
    assert_eq!((&rest[1]["key"], &rest[3]["deep"]), (&json!("BTC/USDT"), &json!({ "a": [1, 2] })));
    let quote = r#"{"key":"Q","price":null,"bid":19.50,"ask":19.7}"#;
    assert_eq!(gateway.post("pjm", LINES, quote.as_bytes()).await.status, 200);
    let told = client.next_text().await;
    assert!(told.ends_with(r#","key":"Q","bid":19.50,"ask":19.7}"#), "{told}");
    let ids: Vec<&str> = rest.iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    assert!(rest.iter().all(|message| is_time(&message["timestamp"])));

    let latest = gateway.get("/api/zones/pjm/latest").await.json();
    let mut keys: Vec<&str> =
        latest["entries"].as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["A", "B", "BTC/USDT", "HUB", "Q"]);
    let history =
        gateway.get(&format!("/api/zones/pjm/history?after={}", position(&subscribed))).await.json();
    assert_eq!(history["entries"].as_array().unwrap()[1..5], rest, "history says what the stream said");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_lines_is_published_as_it_arrives() {
    let gateway = Running::start(config()).await;
    let (mut client, _) = gateway.market("pjm").await;
    let mut lines = Lines::open(gateway.address, "pjm").await;
    lines.send("{\"key\":\"A\",\"price\":1}\n{\"key\":\"A\",").await;
    assert_eq!(client.prices(1).await[0]["price"], 1, "before the body ends");
    lines.send("\"price\":2}\n{\"key\":\"A\",\"price\":3}").await;
    assert_eq!(client.prices(1).await[0]["price"], 2);
    assert_eq!(lines.finish().await.json(), json!({ "accepted": 3 }));
    assert_eq!(client.prices(1).await[0]["price"], 3, "the last line needs no end");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_subscribes_to_many_channels_and_unsubscribes() {
    let gateway = Running::start(config()).await;
    let mut client = gateway.client().await;
    let zones: Vec<String> = (0..20).map(|n| format!("z{n}")).collect();
    let channels: Vec<String> = zones.iter().map(|zone| format!("zone:{zone}")).collect();
    client.send(&json!({ "type": "subscribe", "id": "all", "channels": channels })).await;
    let mut told = Vec::new();
    for _ in &zones {
        let subscribed = client.next_of_type("subscribed").await;
        assert_eq!(subscribed["id"], "all");
        told.push(subscribed["channel"].as_str().unwrap().to_owned());
    }
    told.sort_unstable();
    let mut sorted = channels.clone();
    sorted.sort_unstable();
    assert_eq!(told, sorted, "each once");

    for zone in &zones {
        gateway.publish(zone, [json!({ "key": zone, "price": 1 })]).await;
    }
    for message in client.prices(zones.len()).await {
        assert_eq!(message["channel"], format!("zone:{}", message["key"].as_str().unwrap()));
        assert_eq!(message["offset"], 1, "each channel counts its own offsets");
    }

    client.send(&json!({ "type": "unsubscribe", "id": 7, "channels": ["zone:z3", "zone:nowhere"] })).await;
    let unsubscribed = client.next().await;
    assert_has(&unsubscribed, json!({ "type": "unsubscribed", "channel": "zone:z3", "id": 7 }));
    assert!(is_time(&unsubscribed["timestamp"]));
    let error = client.next().await;
    assert_has(
        &error,
        json!({ "type": "error", "code": "not_subscribed", "channel": "zone:nowhere", "id": 7 }),
    );
    gateway.publish("z3", [price("x", 2)]).await;
    gateway.publish("z4", [price("x", 2)]).await;
    assert_eq!(client.prices(1).await[0]["channel"], "zone:z4");
    assert_eq!(client.until_pong().await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribing_again_restarts_the_subscription_without_doubling() {
    let gateway = Running::start(config()).await;
    let (mut client, subscribed) = gateway.market("pjm").await;
    gateway.publish("pjm", (1..=3).map(|n| price("A", n))).await;
    assert_eq!(client.prices(3).await.len(), 3);

    client.send(&json!({ "type": "subscribe", "channels": ["zone:pjm"] })).await;
    assert_eq!(client.next().await["offset"], 3);
    // Both forms of a position, and none.
    let epoch = &subscribed["epoch"];
    for (since, first) in [
        (json!({ "zone:pjm": { "epoch": epoch, "offset": 1 } }), 2),
        (json!({ "zone:pjm": position(&subscribed) }), 1),
        (json!({ "zone:pjm": null }), 4),
        (json!({ "zone:other": "x" }), 4),
    ] {
        client
            .send(&json!({ "type": "subscribe", "id": first, "channels": ["zone:pjm"], "since": since }))
            .await;
        let subscribed = client.next().await;
        assert_eq!((&subscribed["id"], offset(&subscribed)), (&json!(first), first - 1), "{subscribed}");
        let replayed = client.prices(4 - first as usize).await;
        assert_eq!(replayed.iter().map(offset).collect::<Vec<_>>(), (first..=3).collect::<Vec<_>>());
    }
    gateway.publish("pjm", [price("A", 4), price("A", 5)]).await;
    assert_eq!(client.prices(2).await.iter().map(offset).collect::<Vec<_>>(), [4, 5], "once each");
    assert_eq!(gateway.stats().await["connections"]["by_zone"]["pjm"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_learns_when_it_has_caught_up() {
    for mut config in [config(), every()] {
        config.connections.replay_page_entries = 7;
        let gateway = Running::start(config).await;
        gateway.publish("pjm", (1..=40).map(|n| price("A", n))).await;
        let (_, subscribed) = gateway.market("pjm").await;
        let epoch = subscribed["epoch"].as_str().unwrap();
        let (mut client, subscribed) = gateway.subscribed(&format!("/ws/market/pjm?since={epoch}:3")).await;
        assert_eq!((&subscribed["offset"], &subscribed["top"]), (&json!(3), &json!(40)));
        let (before, channel) = client.until_caught_up().await;
        assert_eq!(channel, "zone:pjm");
        assert_eq!(before.iter().map(offset).collect::<Vec<_>>(), (4..=40).collect::<Vec<_>>());
        // On the same connection, and with nothing missing.
        let since = json!({ "zone:pjm": format!("{epoch}:38") });
        client.send(&json!({ "type": "subscribe", "channels": ["zone:pjm"], "since": since })).await;
        let (before, _) = client.until_caught_up().await;
        let prices = before.iter().filter(|message| message["type"] == "price_update").map(offset);
        assert_eq!(prices.collect::<Vec<_>>(), [39, 40]);
        let from = |offset: u64| {
            let since = json!({ "zone:pjm": { "epoch": epoch, "offset": offset, "seen": "yesterday" } });
            json!({ "type": "subscribe", "channels": ["zone:pjm"], "since": since })
        };
        client.send(&from(40)).await;
        let subscribed = client.next_of_type("subscribed").await;
        assert_eq!((&subscribed["offset"], &subscribed["top"]), (&json!(40), &json!(40)));
        assert_eq!(client.until_pong().await, [] as [Value; 0]);
        client.send(&from(39)).await;
        let (before, _) = client.until_caught_up().await;
        assert_eq!(before.iter().map(offset).collect::<Vec<_>>(), [39, 40], "{before:?}");
        gateway.publish("pjm", [price("A", 41)]).await;
        assert_eq!(offset(&client.prices(1).await[0]), 41);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_exceeds_the_length_in_the_protocol() {
    const MAX: usize = 67_000;
    let gateway = Running::start(config()).await;
    let zone = "z".repeat(64);
    let (mut client, _) = gateway.market(&zone).await;
    // A price of 64 KiB whose key is written twice, with everything escaped.
    let key = "\"".repeat(128);
    let head = json!({ "hub": key, "price": 1, "n": "" }).to_string();
    let price = head.replace(r#""n":"""#, &format!(r#""n":"{}""#, "x".repeat(65_536 - head.len())));
    assert_eq!(gateway.post(&zone, LINES, price.as_bytes()).await.status, 200);
    let text = client.next_text().await;
    assert!((65_536..MAX).contains(&text.len()), "{}", text.len());
    // An invalid name of 64 KiB.
    let ask =
        |name: &str| json!({ "type": "subscribe", "id": "x".repeat(126), "channels": [name] }).to_string();
    let fill = "\u{10ffff}".repeat(16_000);
    let name = format!("{fill}{}", "\u{1}".repeat((65_536 - ask(&fill).len()) / 6));
    client.send_text(&ask(&name)).await;
    let text = client.next_text().await;
    assert!((65_000..MAX).contains(&text.len()), "{}", text.len());
    let error: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&error["code"], &error["channel"]), (&json!("invalid_channel"), &json!(name)));
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_sent_and_answered() {
    let gateway = Running::changed(config(), |config| config.connections.heartbeat_interval_s = 1).await;
    let mut client = gateway.connect("/ws").await;
    assert_eq!(client.next().await["heartbeat_interval_ms"], 1_000);
    for (message, answer) in [
        (json!({ "type": "heartbeat", "id": 5 }), json!({ "type": "heartbeat_ack", "id": 5 })),
        (json!({ "type": "heartbeat" }), json!({ "type": "heartbeat_ack" })),
        (json!({ "type": "ping", "id": "a" }), json!({ "type": "pong", "id": "a" })),
        (json!({ "type": "ping", "id": null }), json!({ "type": "pong" })),
        (json!({ "type": "ping", "id": -1.5 }), json!({ "type": "pong", "id": -1.5 })),
    ] {
        client.send(&message).await;
        let mut answered = client.next().await;
        assert!(is_time(&answered.as_object_mut().unwrap().remove("timestamp").unwrap()));
        assert_eq!(answered, answer);
    }
    let many_digits = r#""id":123456789012345678901234567890"#;
    client.send_text(&format!(r#"{{"type":"ping",{many_digits}}}"#)).await;
    let answered = client.next_text().await;
    assert!(answered.contains(many_digits), "{answered}");
    client.send(&json!({ "type": "heartbeat_ack" })).await;
    let (mut pings, mut heartbeats) = (0, 0);
    while pings < 2 || heartbeats < 2 {
        match client.came().await {
            Came::Ping => pings += 1,
            Came::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(field_names(&message), ["timestamp", "type"]);
                assert_eq!(message["type"], "heartbeat");
                heartbeats += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_closed() {
    let mut config = config();
    config.connections.heartbeat_interval_s = 1;
    config.connections.silence_timeout_s = 2;
    let gateway = Running::start(config).await;
    let (mut alive, _) = gateway.market("pjm").await;
    let mut silent = RawSocket::open(gateway.address, "/ws/market/pjm").await;
    // The silent client reads and answers nothing; the other one answers pings only.
    let both = async { tokio::join!(silent.until_close(), alive.came_until_heartbeats(4)) };
    let ((texts, code), ()) = both.await;
    assert_eq!(code, 4002);
    let closing: Value = serde_json::from_str(texts.last().unwrap()).unwrap();
    assert_eq!((&closing["type"], &closing["reason"]), (&json!("closing"), &json!("heartbeat_timeout")));
    drop(silent);
    until_stat(&gateway, "/connections/closed_by_reason/heartbeat_timeout", 1).await;
    assert_eq!(alive.until_pong().await, [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_frozen_does_not_blame_its_clients_for_silence() {
    let settings =
        ["storage.backend=memory", "connections.heartbeat_interval_s=1", "connections.silence_timeout_s=2"];
    let (still, awake) = (Process::start(&settings).await, Process::start(&settings).await);
    let mut client = Client::connect(&still.url("/ws/market/pjm")).await;
    let mut silent = RawSocket::open(still.address, "/ws/market/pjm").await;
    client.next_of_type("subscribed").await;
    client.came_until_heartbeats(1).await;
    still.signal(Signal::STOP);
    // The other gateway shows when the timeout for silent clients has passed, twice.
    for _ in 0..2 {
        assert_eq!(RawSocket::open(awake.address, "/ws/market/pjm").await.until_close().await.1, 4002);
    }
    still.signal(Signal::CONT);
    // A client that answers pings is not cut off; one that is silent from here on is closed as usual.
    client.came_until_heartbeats(1).await;
    let both = async { tokio::join!(silent.until_close(), client.came_until_heartbeats(3)) };
    assert_eq!(both.await.0.1, 4002);
}

/// Publishes prices with separate keys, in batches of random sizes: `count` from each publisher.
fn publishers(
    tasks: &mut JoinSet<()>,
    addresses: &[SocketAddr],
    zone: &str,
    names: std::ops::Range<u64>,
    count: u64,
) {
    for name in names {
        let (zone, address) = (zone.to_owned(), addresses[name as usize % addresses.len()]);
        tasks.spawn(async move {
            let mut random = StdRng::seed_from_u64(name);
            let mut next = 1;
            while next <= count {
                let batch = next..=count.min(next + random.random_range(0..40));
                let end = *batch.end();
                publish(address, &zone, batch.map(|n| numbered(name, n))).await;
                next = end + 1;
            }
        });
    }
}

fn numbered(publisher: u64, n: u64) -> Value {
    json!({ "key": format!("{publisher}-{n}"), "price": n, "publisher": publisher, "number": n })
}

/// Checks that each publisher's prices arrived, once and in order.
fn check_numbers(seen: &[Value], names: std::ops::Range<u64>, count: u64) {
    let mut last: HashMap<u64, u64> = HashMap::new();
    for message in seen.iter().filter(|message| message["publisher"].is_u64()) {
        let last = last.entry(message["publisher"].as_u64().unwrap()).or_default();
        assert_eq!(message["number"], *last + 1, "{message}");
        *last += 1;
    }
    assert_eq!(last, names.map(|name| (name, count)).collect());
}

/// Several clients that leave and reconnect at random while several publishers publish.
async fn check_resuming(config: Config) {
    const COUNT: u64 = 600;
    let gateway = Running::start(config).await;
    let (_, subscribed) = gateway.market("pjm").await;
    let mut publishing = JoinSet::new();
    publishers(&mut publishing, &[gateway.address], "pjm", 0..3, COUNT);
    let mut reading = JoinSet::new();
    for seed in 0..6 {
        let mut follower = Follower::after("pjm", &position(&subscribed));
        let base = gateway.url("");
        reading.spawn(async move {
            let most = [7, 60, 400][seed as usize % 3];
            follower.read(&[base], 3 * COUNT, &mut Cuts::seeded(seed, most)).await;
            follower
        });
    }
    publishing.join_all().await;
    for follower in reading.join_all().await {
        check_numbers(&follower.seen, 0..3, COUNT);
        assert!(follower.connections > 4, "{}", follower.connections);
    }
    let stats = gateway.stats().await;
    assert_eq!((&stats["messages"]["gaps_told"], &stats["messages"]["errors"]), (&json!(0), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_on_lane_latest_loses_and_doubles_nothing() {
    check_resuming(config()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_on_lane_every_loses_and_doubles_nothing() {
    check_resuming(every()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_loses_nothing_even_if_held_entries_overflow() {
    let mut config = every();
    config.connections.hold_entries_max = 60;
    config.connections.replay_page_entries = 7;
    check_resuming(config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_replay_is_paged_while_live_prices_arrive() {
    for (retained, more) in [(350, 600), (1_700, 600)] {
        let gateway = Running::start(config()).await;
        gateway.publish("pjm", (1..=retained).map(|n| numbered(0, n))).await;
        let (_, subscribed) = gateway.market("pjm").await;
        let start = format!("{}:0", subscribed["epoch"].as_str().unwrap());
        let mut publishing = JoinSet::new();
        publishers(&mut publishing, &[gateway.address], "pjm", 1..3, more);
        let mut reading = JoinSet::new();
        for _ in 0..4 {
            let (mut follower, base) = (Follower::after("pjm", &start), gateway.url(""));
            reading.spawn(async move {
                follower.read(&[base], retained + 2 * more, &mut Cuts::none()).await;
                follower
            });
        }
        publishing.join_all().await;
        for follower in reading.join_all().await {
            let (first, rest) = follower.seen.split_at(retained as usize);
            check_numbers(first, 0..1, retained);
            check_numbers(rest, 1..3, more);
        }
        let stats = gateway.stats().await;
        let replayed = stats["messages"]["replayed"].as_u64().unwrap();
        assert!(replayed >= 4 * retained, "{replayed}");
        assert!(stats["messages"]["replays"].as_u64().unwrap() >= 4 * retained.div_ceil(300));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_entries_are_reported_missing() {
    let gateway = Running::changed(config(), |config| config.storage.retention.entries = 50).await;
    gateway.publish("pjm", (1..=200).map(|n| numbered(0, n))).await;
    let (_, subscribed) = gateway.market("pjm").await;
    let epoch = subscribed["epoch"].as_str().unwrap();
    let mut clients = Vec::new();
    for (since, gap) in [(0, 150), (10, 140), (150, 0), (199, 0), (200, 0)] {
        let (mut client, subscribed) =
            gateway.subscribed(&format!("/ws/market/pjm?since={epoch}:{since}")).await;
        let expected = json!({ "recovered": gap == 0, "gap": gap, "offset": since + gap, "epoch": epoch });
        assert_has(&subscribed, expected);
        let replayed = client.prices((200 - since - gap) as usize).await;
        let offsets: Vec<u64> = replayed.iter().map(offset).collect();
        assert_eq!(offsets, (since + gap + 1..=200).collect::<Vec<_>>());
        clients.push(client);
    }
    gateway.publish("pjm", [price("A", 201)]).await;
    for client in &mut clients {
        assert_eq!(offset(&client.prices(1).await[0]), 201, "and then live");
    }
    assert_eq!(gateway.stats().await["messages"]["gaps_told"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_in_another_epoch_gets_everything_stored() {
    let gateway = Running::changed(config(), |config| config.storage.retention.entries = 50).await;
    gateway.publish("pjm", (1..=60).map(|n| numbered(0, n))).await;
    let (_, subscribed) = gateway.market("pjm").await;
    let epoch = subscribed["epoch"].as_str().unwrap();
    let mut clients = Vec::new();
    for since in ["0123456789abcdef:5".to_owned(), "0123456789abcdef:5000".to_owned(), format!("{epoch}:61")]
    {
        let (mut client, subscribed) = gateway.subscribed(&format!("/ws/market/pjm?since={since}")).await;
        assert_has(&subscribed, json!({ "recovered": false, "offset": 10, "epoch": epoch }));
        assert_eq!(subscribed.get("gap"), None, "{since}");
        let replayed = client.prices(50).await;
        assert_eq!(replayed.iter().map(offset).collect::<Vec<_>>(), (11..=60).collect::<Vec<_>>());
        clients.push(client);
    }
    gateway.publish("pjm", [price("A", 61)]).await;
    for client in &mut clients {
        assert_eq!(offset(&client.prices(1).await[0]), 61, "and then live");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_do_not_mix() {
    let gateway = Running::start(config()).await;
    let (mut pjm, _) = gateway.market("pjm").await;
    let (mut ercot, _) = gateway.market("ercot").await;
    let mut publishing = JoinSet::new();
    for zone in ["pjm", "ercot", "PJM", "pjm:"] {
        let address = gateway.address;
        publishing.spawn(async move {
            for n in 1..=20 {
                publish(address, zone, [json!({ "key": "K", "price": n, "zone": zone })]).await;
            }
        });
    }
    publishing.join_all().await;
    for (client, zone) in [(&mut pjm, "pjm"), (&mut ercot, "ercot")] {
        let prices = client.prices(20).await;
        assert_eq!(prices.iter().map(offset).collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
        assert!(prices.iter().all(|price| price["zone"] == zone));
        assert_eq!(client.until_pong().await, [] as [Value; 0]);
    }
    let listed = gateway.get("/api/zones").await.json();
    let zones: Vec<&str> =
        listed["zones"].as_array().unwrap().iter().map(|zone| zone["zone"].as_str().unwrap()).collect();
    assert_eq!(zones, ["PJM", "ercot", "pjm", "pjm:"]);
}

/// A configuration with a small outbox.
fn small_outbox(mut config: Config) -> Config {
    config.http.line_bytes_max = 4_096;
    config.connections.outbox_frames_max = 200;
    config.connections.outbox_bytes_max = 32 << 10;
    config
}

fn padded(key: &str, n: u64) -> Value {
    json!({ "key": key, "price": n, "padding": "x".repeat(400) })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_on_lane_every_is_closed_and_resumes_without_loss() {
    const COUNT: u64 = 3_000;
    let gateway = Running::start(small_outbox(every())).await;
    let mut slow = Client::connect_small(&gateway.url("/ws/market/pjm")).await;
    slow.next_of_type("connection_established").await;
    let start = position(&slow.next_of_type("subscribed").await);

    let mut tasks = JoinSet::new();
    let (mut fast, base) = (Follower::after("pjm", &start), gateway.url(""));
    tasks.spawn(async move { fast.read(&[base], COUNT, &mut Cuts::none()).await });
    gateway.publish("pjm", (1..=COUNT).map(|n| padded("K", n))).await;
    until_stat(&gateway, "/messages/dropped_by_reason/slow_consumer", 1).await;

    let mut follower = Follower::after("pjm", &start);
    let (before, code, reason) = slow.until_close().await;
    assert_eq!((code, reason.as_str()), (4001, "slow_consumer"));
    let (closing, prices) = before.split_last().unwrap();
    assert_has(closing, json!({ "type": "closing", "code": 4001, "reason": "slow_consumer" }));
    assert!(closing["retry_after_ms"].is_u64() && is_time(&closing["timestamp"]), "{closing}");
    prices.iter().for_each(|price| assert!(follower.take(&price.to_string())));
    assert!(follower.position.offset < COUNT, "it was cut off before the end");
    follower.read(&[gateway.url("")], COUNT, &mut Cuts::none()).await;
    assert!(follower.seen.iter().zip(1..=COUNT).all(|(price, n)| price["price"] == n));

    // The other client received everything nevertheless.
    tasks.join_all().await;
    drop(slow);
    until_stat(&gateway, "/connections/closed_by_reason/slow_consumer", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_on_lane_latest_gets_the_latest_of_each_key() {
    const COUNT: u64 = 3_000;
    const KEYS: [&str; 3] = ["A", "B", "C"];
    let gateway = Running::start(small_outbox(config())).await;
    let mut slow = Client::connect_small(&gateway.url("/ws/market/pjm")).await;
    slow.next_of_type("subscribed").await;
    let (mut fast, _) = gateway.market("pjm").await;

    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut last = 0;
        while last < COUNT {
            let offset = offset(&fast.prices(1).await[0]);
            assert!(offset > last, "{offset} after {last}");
            last = offset;
        }
    });
    let prices = (1..=COUNT).map(|n| padded(KEYS[n as usize % 3], n));
    gateway.publish("pjm", prices).await;
    tasks.join_all().await;

    let conflated = until_stat(&gateway, "/messages/conflated", 1).await;
    until("the stopped reader is seen to be behind", async || {
        let stats = gateway.stats().await;
        let list = stats["connection_list"].as_array().unwrap().clone();
        list.iter().any(|info| info["health"] == "behind" && info["waiting_messages"] != 0)
    })
    .await;
    let expected = HashMap::from([("A".to_owned(), COUNT), ("B".into(), COUNT - 2), ("C".into(), COUNT - 1)]);
    let (mut seen, mut latest) = (Vec::new(), HashMap::new());
    while latest != expected {
        let price = slow.prices(1).await.remove(0);
        latest.insert(price["key"].as_str().unwrap().to_owned(), price["price"].as_u64().unwrap());
        seen.push(price);
    }
    assert!(seen.windows(2).all(|pair| offset(&pair[0]) < offset(&pair[1])), "order never goes back");
    assert!(seen.len() as u64 + conflated >= COUNT, "{} and {conflated}", seen.len());
    assert!(seen.len() < COUNT as usize / 2, "{}", seen.len());
    // The other reader has left.
    until_stat(&gateway, "/connections/total_disconnections", 1).await;
    assert_has(&gateway.stats().await["connections"], json!({ "total_disconnections": 1, "open": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_get_the_same_entries_in_the_same_order() {
    let gateway = Running::start(config()).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(gateway.market("pjm").await.0);
    }
    let mut publishing = JoinSet::new();
    publishers(&mut publishing, &[gateway.address], "pjm", 0..4, 50);
    publishing.join_all().await;
    let mut orders = Vec::new();
    for client in &mut clients {
        let prices = client.prices(200).await;
        check_numbers(&prices, 0..4, 50);
        orders.push(prices.into_iter().map(|price| price["id"].clone()).collect::<Vec<_>>());
    }
    assert!(orders.windows(2).all(|pair| pair[0] == pair[1]));
}
