//! Statistics that add up, health that is truthful, and connections that an operator closes.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zonewire::connections::ConnectionHealth;
use zonewire::protocol::CloseCode;

use crate::support::client::assert_has;
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Running, config, price, request, until_stat, until_state};
use crate::support::redis::{on, redis};

/// The values of a text in the OpenMetrics format, by name with labels.
fn parse_metrics(text: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut values = BTreeMap::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert_eq!(lines.next(), None, "nothing follows the end");
            return values;
        }
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("TYPE"), Some(name), Some(kind @ ("counter" | "gauge" | "histogram"))) => {
                    assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{line}");
                }
                (Some("HELP"), Some(_), Some(help)) => assert!(!help.is_empty()),
                (Some("UNIT"), Some(name), Some(unit)) => assert!(name.ends_with(unit), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let family = name.split('{').next().unwrap();
        let kind = types.get(family.strip_suffix("_total").unwrap_or(family));
        assert_eq!(family.ends_with("_total"), kind.is_some_and(|kind| kind == "counter"), "{line}");
        let is_known = ["zonewire_", "process_", "redis_"].iter().any(|prefix| family.starts_with(prefix));
        assert!(is_known, "{line}");
        assert_eq!(values.insert(name.to_owned(), value.parse().unwrap()), None, "{line} twice");
    }
    panic!("the end is not marked");
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_add_up() {
    let mut config = config();
    // No heartbeat may interfere with the counts.
    config.connections.heartbeat_interval_s = 3_600;
    config.connections.silence_timeout_s = 7_200;
    let gateway = Running::start(config).await;
    let (mut one, _) = gateway.market("pjm").await;
    let (mut two, _) = gateway.market("pjm").await;
    let (three, _) = gateway.market("ercot").await;
    let mut bare = gateway.client().await;
    gateway.publish("pjm", (1..=10).map(|n| price("A", n))).await;
    one.prices(10).await;
    two.prices(10).await;
    assert_eq!(one.until_pong().await, [] as [Value; 0]);
    bare.send_text("{").await;
    assert_eq!(bare.next().await["code"], "invalid_json");
    bare.send(&json!({ "type": "dance" })).await;
    assert_eq!(bare.next().await["code"], "unknown_type");

    let stats = eventually("all that was sent is counted", async || {
        let stats = gateway.stats().await;
        // Two first messages each except for `bare`, ten prices twice, a pong, two errors.
        (stats["messages"]["sent"] == 7 + 20 + 1 + 2).then_some(stats)
    })
    .await;
    let connections = &stats["connections"];
    assert_has(connections, json!({ "open": 4, "total": 4, "total_disconnections": 0 }));
    assert_eq!(connections["by_zone"], json!({ "ercot": 1, "pjm": 2 }));
    let messages = &stats["messages"];
    assert_eq!((&messages["received"], &messages["errors"]), (&json!(3), &json!(2)));
    assert_eq!(messages["error_rate_percent"], 66.67);
    assert_eq!(messages["errors_by_code"]["invalid_json"], 1);
    assert_eq!(messages["errors_by_code"]["unknown_type"], 1);
    assert!(messages["bytes_received"].as_u64().unwrap() > 20);
    assert_eq!(stats["channels"]["entries_accepted"], 10);
    assert_has(&stats["http"], json!({ "prices_accepted": 10, "price_requests": 1 }));
    assert_eq!((&stats["storage_backend"], &stats["state"]), (&json!("in-memory"), &json!("healthy")));
    let list = stats["connection_list"].as_array().unwrap();
    assert_eq!(list.len(), 4);
    assert!(list.iter().all(|info| info["health"] == "healthy" && info["waiting_messages"] == 0), "{list:?}");
    let page = gateway.get("/ws/stats?connections=1").await.json();
    assert_eq!(page["connection_list"].as_array().unwrap().len(), 1);

    // Closed connections are counted by reason, and nothing is left over.
    three.close().await;
    drop(two);
    bare.send_text(&"x".repeat(70_000)).await;
    assert_eq!(bare.until_close().await.1, 1009);
    drop(bare);
    until_stat(&gateway, "/connections/total_disconnections", 3).await;
    let connections = gateway.stats().await["connections"].clone();
    assert_eq!((&connections["open"], &connections["by_zone"]), (&json!(1), &json!({ "pjm": 1 })));
    let closed: BTreeMap<String, u64> =
        serde_json::from_value(connections["closed_by_reason"].clone()).unwrap();
    let closed: Vec<(&str, u64)> = closed
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| (reason.as_str(), *count))
        .collect();
    assert_eq!(closed, [("abnormal", 1), ("message_too_big", 1), ("normal", 1)]);
    let durations = connections["durations"].as_array().unwrap();
    assert_eq!(durations.iter().map(|bucket| bucket["connections"].as_u64().unwrap()).sum::<u64>(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_health_and_metrics_say_the_same() {
    let mut config = config();
    config.connections.heartbeat_interval_s = 3_600;
    config.connections.silence_timeout_s = 7_200;
    let gateway = Running::start(config).await;
    let (mut client, _) = gateway.market("pjm").await;
    gateway.publish("pjm", [price("A", 1), price("A", 2)]).await;
    client.prices(2).await;
    client.send_text("[]").await;
    client.next_of_type("error").await;
    until_stat(&gateway, "/messages/sent", 5).await;
    let refused = gateway.post("pjm", "text/plain", b"").await;
    refused.problem(415, "unsupported_media_type");

    let stats = gateway.stats().await;
    let open = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")];
    let answer = request(gateway.address, "GET", "/metrics", &open, b"").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/openmetrics-text"), "{answer:?}");
    let metrics = parse_metrics(&answer.body);
    for (name, pointer) in [
        ("zonewire_connections", "/connections/open"),
        ("zonewire_connections_opened_total", "/connections/total"),
        ("zonewire_messages_sent_total", "/messages/sent"),
        ("zonewire_messages_received_total", "/messages/received"),
        ("zonewire_received_bytes_total", "/messages/bytes_received"),
        ("zonewire_messages_conflated_total", "/messages/conflated"),
        ("zonewire_replays_total", "/messages/replays"),
        ("zonewire_replayed_entries_total", "/messages/replayed"),
        ("zonewire_gaps_told_total", "/messages/gaps_told"),
        ("zonewire_paced_total", "/messages/paced"),
        ("zonewire_channels_active", "/channels/active"),
        ("zonewire_entries_accepted_total", "/channels/entries_accepted"),
        ("zonewire_entries_unavailable_total", "/channels/entries_unavailable"),
        ("zonewire_entries_delivered_total", "/channels/entries_delivered"),
        ("zonewire_entries_missed_total", "/channels/entries_missed"),
        ("zonewire_storage_appends_total", "/channels/appends"),
        ("zonewire_storage_retries_total", "/channels/storage_retries"),
        ("zonewire_holes_repaired_total", "/channels/holes_repaired"),
        ("zonewire_epoch_changes_total", "/channels/epoch_changes"),
        ("zonewire_echoes_dropped_total", "/channels/echoes_dropped"),
        ("zonewire_tcp_refused_total", "/http/refused"),
        ("zonewire_tcp_accept_failures_total", "/http/accept_failures"),
        ("zonewire_price_requests_total", "/http/price_requests"),
        ("zonewire_price_requests_refused_total", "/http/price_requests_refused"),
        ("zonewire_prices_accepted_total", "/http/prices_accepted"),
    ] {
        let said = stats.pointer(pointer).and_then(Value::as_f64);
        assert_eq!(metrics.get(name).copied(), said, "{name} and {pointer}");
    }
    for (name, pointer, label) in [
        ("zonewire_connections_closed_total", "/connections/closed_by_reason", "reason"),
        ("zonewire_message_errors_total", "/messages/errors_by_code", "code"),
        ("zonewire_messages_dropped_total", "/messages/dropped_by_reason", "reason"),
        ("zonewire_entries_refused_total", "/channels/entries_refused_by_reason", "reason"),
    ] {
        for (value, count) in stats.pointer(pointer).unwrap().as_object().unwrap() {
            let name = format!("{name}{{{label}=\"{value}\"}}");
            assert_eq!(metrics.get(&name).copied(), count.as_f64(), "{name}");
        }
    }
    assert_eq!(metrics["zonewire_storage_state{state=\"healthy\"}"], 1.0);
    assert_eq!(metrics["zonewire_storage_state{state=\"degraded\"}"], 0.0);
    assert_eq!(metrics["zonewire_storage_backend{backend=\"in-memory\"}"], 1.0);

    let health = gateway.get("/ws/health").await.json();
    assert_eq!(health["status"], "healthy");
    assert_has(&health, json!({ "live": true, "ready": true, "degraded": false }));
    for field in ["storage_backend", "state", "since", "reason_code", "reason", "node", "version"] {
        assert_eq!(health[field], stats[field], "{field}");
        assert!(!health[field].is_null(), "{field}");
    }
    assert_eq!(health["connections"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_stats_answer_at_each_of_their_addresses() {
    let gateway = Running::start(config()).await;
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for (paths, status) in [
        (&["/ws/health", "/health", "/api/ws/ws/health", "/health/ready"][..], "healthy"),
        (&["/health/live"], "live"),
        (&["/health/redis"], "healthy"),
    ] {
        for path in paths {
            let answer = gateway.get(path).await;
            assert_eq!((answer.status, &answer.json()["status"]), (200, &json!(status)), "{path}");
            assert!(answer.head.contains("cache-control: no-store"), "{path}");
            assert_eq!(fields(&answer.json()), fields(&gateway.get(paths[0]).await.json()), "{path}");
        }
    }
    assert_eq!(gateway.get("/health/redis").await.json()["link"], "not_configured");
    let stats = gateway.stats().await;
    assert_eq!(fields(&gateway.get("/api/ws/ws/stats").await.json()), fields(&stats));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_the_storage_is_remembered() {
    let Some(mut server) = redis(&[]).await else { return };
    let gateway = Running::start(on(&server)).await;
    until_state(gateway.address, "healthy").await;
    gateway.publish("a", [price("K", 1)]).await;
    server.kill().await.unwrap();
    until_state(gateway.address, "degraded").await;
    gateway.publish("a", [price("K", 2), price("K", 3)]).await;
    let history = gateway.stats().await["storage_history"].clone();
    assert_eq!((&history[0]["state"], history[0].get("until")), (&json!("degraded"), None), "{history}");
    server.restart().await.unwrap();
    until_state(gateway.address, "healthy").await;
    // Entries may still be on their way to Redis.
    until("all is replayed", async || {
        let stats = gateway.stats().await;
        let spells = stats["storage_history"].as_array().unwrap().iter();
        let late: u64 = spells.map(|spell| spell["entries_late"].as_u64().unwrap()).sum();
        late >= 2 && stats["outage"]["replayed"] == late
    })
    .await;
    let history = gateway.stats().await["storage_history"].clone();
    let spells = history.as_array().unwrap();
    assert_eq!((&spells[0]["state"], spells[0].get("until")), (&json!("healthy"), None), "{history}");
    let degraded = spells.iter().find(|spell| spell["state"] == "degraded").unwrap();
    assert_ne!(degraded["reason_code"], "ok", "{history}");
    assert!(spells.iter().any(|spell| spell["state"] == "recovering"), "{history}");
    for two in spells.windows(2) {
        assert_eq!(two[1]["until"], two[0]["since"], "{history}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_listed_in_pages_by_zone_and_one_by_one() {
    let gateway = Running::start(config()).await;
    let mut clients = Vec::new();
    for n in 0..7 {
        let zone = if n % 2 == 0 { "even" } else { "odd" };
        let mut client = gateway.connect(&format!("/ws/market/{zone}")).await;
        let id = client.next().await["connection_id"].as_str().unwrap().to_owned();
        client.next_of_type("subscribed").await;
        clients.push((client, zone, id));
    }
    let list = async |query: &str| {
        let stats = gateway.get(&format!("/ws/stats?{query}")).await.json();
        let ids = stats["connection_list"].as_array().unwrap().iter();
        let ids = ids.map(|info| info["connection_id"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>(), stats["connections_next"].as_str().map(str::to_owned))
    };
    let of = |zone: &str| {
        let of_zone = clients.iter().filter(|(_, of, _)| zone.is_empty() || *of == zone);
        let mut ids: Vec<String> = of_zone.map(|(_, _, id)| id.clone()).collect();
        ids.sort();
        ids
    };
    for zone in ["", "even", "odd", "none"] {
        let filter = if zone.is_empty() { String::new() } else { format!("&zone={zone}") };
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let (page, next) = list(&format!("connections=2{filter}{after}")).await;
            assert!(page.len() == 2 || next.is_none(), "{page:?} {next:?}");
            seen.extend(page);
            let Some(next) = next else { break };
            assert_eq!(seen.last(), Some(&next));
            after = format!("&after={next}");
        }
        assert_eq!(seen, if zone == "none" { Vec::new() } else { of(zone) }, "{zone}");
    }
    assert_eq!(list("connections=7").await, (of(""), None));
    assert_eq!(list("connections=0").await, (Vec::new(), None));
    for wrong in ["after=x", "zone=a%20b", "connections=-1"] {
        gateway.get(&format!("/ws/stats?{wrong}")).await.problem(400, "invalid_query");
    }

    gateway.publish("even", [r#"{"key":"K","price":1}"#]).await;
    let (client, _, id) = &mut clients[0];
    assert_eq!(client.next().await["offset"], 1);
    let story = gateway.get(&format!("/ws/stats/{id}")).await.json();
    assert_eq!((&story["connection_id"], &story["health"]), (&json!(id), &json!("healthy")));
    assert_eq!((&story["source"], &story["waited_for"]), (&json!("127.0.0.1"), &json!(false)));
    assert_eq!(story["node"], gateway.stats().await["node"]);
    let subscription = &story["subscriptions"][0];
    assert_has(subscription, json!({ "channel": "zone:even", "phase": "live", "offset": 1 }));
    for none in ["x", "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11"] {
        gateway.get(&format!("/ws/stats/{none}")).await.problem(404, "unknown_connection");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_connections_and_closes_them() {
    let gateway = Running::start(config()).await;
    let mut clients = BTreeMap::new();
    for zone in ["a", "b", "c", "d"] {
        let mut client = gateway.connect(&format!("/ws/market/{zone}")).await;
        let id = client.next().await["connection_id"].as_str().unwrap().to_owned();
        client.next_of_type("subscribed").await;
        clients.insert(zone, (client, id));
    }
    let mut listed = gateway.manager.list(10).await;
    listed.sort_by(|a, b| a.channels.cmp(&b.channels));
    assert_eq!(listed.len(), 4);
    for (info, (zone, (_, id))) in listed.iter().zip(&clients) {
        assert_eq!(info.connection_id.to_string(), *id);
        assert_eq!(info.channels, [format!("zone:{zone}")]);
        assert!(info.health.is(ConnectionHealth::Healthy));
    }
    assert_eq!(gateway.manager.list(3).await.len(), 3);

    for (zone, how, code, may_return) in [
        ("a", "?reconnect=true", CloseCode::Moved, true),
        ("b", "", CloseCode::Disconnected, false),
        ("c", "?reconnect=false", CloseCode::Disconnected, false),
    ] {
        let (mut client, id) = clients.remove(zone).unwrap();
        let path = format!("/ws/stats/{id}{how}");
        assert_eq!(gateway.delete(&path).await.status, 204);
        let (before, number, reason) = client.until_close().await;
        assert_eq!((number, reason.as_str()), (code.number(), code.reason()));
        let closing = before.last().unwrap();
        assert_eq!((&closing["type"], &closing["code"]), (&json!("closing"), &json!(number)));
        assert_eq!(closing.get("retry_after_ms").is_some(), may_return, "{closing}");
        client.close().await;
        let pointer = format!("/connections/closed_by_reason/{}", code.reason());
        until_stat(&gateway, &pointer, if zone == "c" { 2 } else { 1 }).await;
        gateway.delete(&path).await.problem(404, "unknown_connection");
    }
    gateway.delete("/ws/stats/nobody").await.problem(404, "unknown_connection");
    gateway.delete("/ws/stats/nobody?reconnect=perhaps").await.problem(400, "invalid_query");
    assert_eq!(gateway.manager.list(10).await.len(), 1);
    assert_eq!(clients.get_mut("d").unwrap().0.until_pong().await, [] as [Value; 0], "the others stay");
}
