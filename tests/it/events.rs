//! Events as publishers and followers experience them: over HTTP, WebSockets, streams and the command line.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use zonewire::config::{AuthMode, IssuerConfig};
use zonewire_access::SigningKey;

use crate::support::client::{Client, offset, position};
use crate::support::events::EventReader;
use crate::support::eventually::until;
use crate::support::gateway::{Answer, JSON, LINES, Running, config, request, until_state};
use crate::support::program::{Program, run, zonewire};
use crate::support::redis::{on_prefix, redis};

fn ticker(exchange: &str, symbol: &str, price: u64) -> Value {
    json!({ "exchange": exchange, "symbol": symbol, "price": price.to_string() })
}

async fn post(gateway: &Running, event: &str, content_type: &str, body: &str) -> Answer {
    let path = format!("/api/events/{event}");
    request(gateway.address, "POST", &path, &[("content-type", content_type)], body.as_bytes()).await
}

/// Publishes events, all of which must be accepted.
async fn publish(gateway: &Running, event: &str, events: &[Value]) {
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    let answer = post(gateway, event, LINES, &lines.join("\n")).await;
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(events.len())), "{answer:?}");
}

/// Subscribes, and returns `subscribed`.
async fn follow(client: &mut Client, channel: &str, more: Value) -> Value {
    let mut wish = json!({ "type": "subscribe", "channels": [channel] });
    for (name, value) in more.as_object().unwrap() {
        wish[name] = value.clone();
    }
    client.send(&wish).await;
    let subscribed = client.next().await;
    assert_eq!((&subscribed["type"], &subscribed["channel"]), (&json!("subscribed"), &json!(channel)));
    subscribed
}

/// The price of a ticker.
fn shown(entry: &Value) -> u64 {
    entry["data"]["price"].as_str().unwrap_or_else(|| panic!("{entry}")).parse().unwrap()
}

/// The prices of the next `count` events, which must be of this channel.
async fn prices(client: &mut Client, channel: &str, count: usize) -> Vec<u64> {
    let mut all = Vec::new();
    for _ in 0..count {
        let entry = client.next().await;
        assert_eq!((&entry["type"], &entry["channel"]), (&json!("ticker"), &json!(channel)), "{entry}");
        all.push(shown(&entry));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn events_published_over_http_each_arrive_as_one_object() {
    let gateway = Running::start(config()).await;
    let mut client = gateway.client().await;
    follow(&mut client, "event:trade", json!({})).await;
    let trade = r#"{"symbol":"BTC-USDT","exchange":"binance","price":64250.10,"size":"0.50","tradeId":7,"side":"buy","timestamp":"2026-11-21T03:40:47.388Z","extra":{"a":[1.50]}}"#;
    let one = post(&gateway, "trade", JSON, trade).await;
    assert_eq!((one.status, one.body.as_str()), (200, r#"{"accepted":1}"#));
    let text = client.next_text().await;
    let data = r#""timestamp":"2026-11-21T03:40:47.388Z","data":{"exchange":"binance","symbol":"BTC-USDT","price":64250.10,"size":"0.50","tradeId":7,"side":"buy","extra":{"a":[1.50]}}}"#;
    assert!(text.starts_with(r#"{"type":"trade","channel":"event:trade","offset":1,"id":""#), "{text}");
    assert!(text.ends_with(data), "{text}");
    let several = post(&gateway, "trade", JSON, &format!("[{trade},{trade}]")).await;
    assert_eq!(several.json()["accepted"], 2);
    let lines = post(&gateway, "trade", LINES, &format!("{trade}\n\n{trade}\n")).await;
    assert_eq!(lines.json()["accepted"], 2);
    for expected in 2..=5 {
        assert_eq!(offset(&client.next().await), expected);
    }
    // Types with a colon can be written as they are in addresses.
    let mut others = gateway.client().await;
    follow(&mut others, "event:exchange:error", json!({})).await;
    let error = json!({ "exchange": "kraken", "reason": "odd", "code": "EService" });
    publish(&gateway, "exchange:error", std::slice::from_ref(&error)).await;
    let entry = others.next().await;
    assert_eq!((&entry["type"], &entry["data"]), (&json!("exchange:error"), &error));

    let history = gateway.get("/api/events/trade/history?limit=2").await.json();
    assert_eq!((&history["channel"], &history["last_offset"]), (&json!("event:trade"), &json!(5)));
    assert_eq!(history["entries"].as_array().unwrap().len(), 2);
    let latest = gateway.get("/api/events/trade/latest").await.json();
    assert_eq!(latest["entries"][0]["offset"], 5, "{latest}");
    let stats = gateway.stats().await;
    let counted = ["event_requests", "event_requests_refused", "events_accepted", "prices_accepted"];
    assert_eq!(counted.map(|name| stats["http"][name].as_u64().unwrap()), [4, 0, 6, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_what_is_wrong_with_an_event() {
    let gateway = Running::changed(config(), |config| config.channels.keys_per_zone_max = 2).await;
    for (event, kind, body, status, code, part) in [
        ("tick", JSON, "{}", 404, "unknown_event_type", "ticker, trade, orderbook"),
        ("ticker", "text/csv", "a", 415, "unsupported_media_type", "application/json"),
        ("ticker", JSON, "{", 400, "invalid_json", "not JSON"),
        ("ticker", JSON, "7", 422, "invalid_event", "expected one object"),
        ("ticker", JSON, "{}", 422, "invalid_event", "`exchange` is missing"),
        ("trade", JSON, r#"{"exchange":"a","symbol":"B","price":1}"#, 422, "invalid_event", "`size`"),
        ("candle", JSON, r#"[{"exchange":"a","symbol":"B"}]"#, 422, "invalid_event", "`interval`"),
        ("orderbook", JSON, r#"{"exchange":"a","symbol":"B","kind":"x"}"#, 422, "invalid_event", "`kind`"),
        ("ticker", JSON, r#"{"exchange":"a","symbol":"B","price":1,"id":1}"#, 422, "reserved_field", "`id`"),
        ("exchange:connected", JSON, r#"{"exchange":"A"}"#, 422, "invalid_event", "`exchange` must be"),
    ] {
        let problem = post(&gateway, event, kind, body).await.problem(status, code);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{event} {body}: {detail}");
    }
    let long = json!({ "exchange": "a", "symbol": "B", "price": 1, "x": "x".repeat(70_000) }).to_string();
    post(&gateway, "ticker", JSON, &long).await.problem(413, "event_too_large");
    let lines = format!("{}\n{}\nno\n", ticker("a", "A", 1), ticker("a", "B", 2));
    let problem = post(&gateway, "ticker", LINES, &lines).await.problem(422, "invalid_json");
    assert_eq!((&problem["accepted"], &problem["line"]), (&json!(2), &json!(3)));
    let third = post(&gateway, "ticker", JSON, &ticker("a", "C", 3).to_string()).await;
    let problem = third.problem(422, "too_many_keys");
    assert_eq!(problem["accepted"], 0);
    gateway.get("/api/events/tick/latest").await.problem(404, "unknown_event_type");
    gateway.get("/api/events/ticker/history?after=x").await.problem(400, "invalid_position");
    gateway.get("/api/events/ticker/history?limit=0").await.problem(400, "invalid_limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_shows_what_matches_its_pattern_and_nothing_else() {
    let gateway = Running::start(config()).await;
    let mut clients = Vec::new();
    for (channel, expected) in [
        ("event:ticker", &[1, 2, 3, 4][..]),
        ("event:ticker:binance:BTC-USDT", &[1]),
        ("event:ticker:binance:*", &[1, 2]),
        ("event:ticker:*:BTC-USDT", &[1, 3]),
        ("event:ticker:coinbase:*", &[]),
    ] {
        let mut client = gateway.client().await;
        follow(&mut client, channel, json!({})).await;
        clients.push((client, channel, expected));
    }
    let events = [
        ticker("binance", "BTC-USDT", 1),
        ticker("binance", "ETH-USDT", 2),
        ticker("kraken", "BTC-USDT", 3),
        ticker("kraken", "ETH-USDT", 4),
    ];
    publish(&gateway, "ticker", &events).await;
    for (client, channel, expected) in &mut clients {
        assert_eq!(prices(client, channel, expected.len()).await, *expected, "{channel}");
    }
    // Anything sent to the wrong client would have arrived by now.
    let all = ["binance", "kraken"].map(|exchange| ticker(exchange, "SOL-USDT", 5));
    publish(&gateway, "ticker", &all).await;
    assert_eq!(prices(&mut clients[0].0, "event:ticker", 2).await, [5, 5]);
    let before = clients[4].0.until_pong().await;
    assert_eq!(before, [] as [Value; 0]);
    assert_eq!(prices(&mut clients[2].0, "event:ticker:binance:*", 1).await, [5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_resumed_and_begins_with_a_snapshot_of_what_it_shows() {
    let gateway = Running::start(config()).await;
    let view = "event:ticker:binance:*";
    let mut client = gateway.client().await;
    follow(&mut client, view, json!({})).await;
    let all: Vec<Value> = (1..=40)
        .map(|n| ticker(if n % 10 == 0 { "binance" } else { "kraken" }, ["A", "B"][n as usize % 20 / 10], n))
        .collect();
    publish(&gateway, "ticker", &all[..20]).await;
    assert_eq!(prices(&mut client, view, 2).await, [10, 20]);
    let mut away = gateway.client().await;
    let subscribed = follow(&mut away, view, json!({})).await;
    let since = position(&subscribed);
    away.close().await;
    publish(&gateway, "ticker", &all[20..]).await;
    assert_eq!(prices(&mut client, view, 2).await, [30, 40]);

    let mut back = gateway.client().await;
    let subscribed = follow(&mut back, view, json!({ "since": { view: since } })).await;
    assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&json!(true), &json!(0)), "{subscribed}");
    assert_eq!(subscribed["top"], 40);
    assert_eq!(prices(&mut back, view, 2).await, [30, 40]);
    let (before, channel) = back.until_caught_up().await;
    assert_eq!((before.len(), channel.as_str()), (0, view));

    let mut fresh = gateway.client().await;
    let subscribed = follow(&mut fresh, view, json!({ "snapshot": true })).await;
    assert_eq!(subscribed["snapshot"], true);
    let mut keys = Vec::new();
    let end = loop {
        let message = fresh.next().await;
        if message["type"] == "snapshot_end" {
            break message;
        }
        assert_eq!((&message["snapshot"], &message["channel"]), (&json!(true), &json!(view)));
        keys.push((message["data"]["symbol"].clone(), shown(&message)));
    };
    assert_eq!(keys, [(json!("A"), 40), (json!("B"), 30)]);
    assert_eq!((&end["recovered"], offset(&end)), (&json!(true), 40));
    publish(&gateway, "ticker", &[ticker("kraken", "A", 41), ticker("binance", "A", 42)]).await;
    assert_eq!(prices(&mut fresh, view, 1).await, [42]);
    assert_eq!(prices(&mut back, view, 1).await, [42]);

    // The same over server-sent events.
    let path = format!("/sse?channels={view}&since={since}");
    let mut stream = EventReader::open(gateway.address, &path).await;
    let mut came = Vec::new();
    while came.len() < 3 {
        let message = stream.next().await;
        if message["type"] == "ticker" {
            came.push(shown(&message));
        }
    }
    assert_eq!(came, [30, 40, 42]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_book_is_published_whole_and_its_deltas_replace_nothing() {
    let gateway = Running::start(config()).await;
    let mut client = gateway.client().await;
    follow(&mut client, "event:orderbook:a:B", json!({})).await;
    let book = |kind: &str, sequence: u64| {
        let mut book = json!({
            "exchange": "a", "symbol": "B", "kind": kind, "sequence": sequence, "bids": [["1.0", "2"]], "asks": [],
        });
        if kind == "delta" {
            book["previousSequence"] = json!(sequence - 1);
        }
        book
    };
    publish(&gateway, "orderbook", &[book("snapshot", 1), book("delta", 2), book("delta", 3)]).await;
    for sequence in 1..=3 {
        assert_eq!(client.next().await["data"]["sequence"], sequence);
    }
    let latest = gateway.get("/api/events/orderbook/latest").await.json();
    assert_eq!(latest["entries"].as_array().unwrap().len(), 1);
    assert_eq!(latest["entries"][0]["data"]["sequence"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_of_events_follows_the_channel_in_its_address() {
    let gateway = Running::start(config()).await;
    let open = async |query: &str| {
        let mut client = gateway.connect(&format!("/ws/events{query}")).await;
        client.next_of_type("connection_established").await;
        client
    };
    let subscribed = async |client: &mut Client, count: usize| {
        let mut channels = Vec::new();
        for _ in 0..count {
            let message = client.next_of_type("subscribed").await;
            channels.push(message["channel"].as_str().unwrap().to_owned());
        }
        channels.sort();
        channels
    };
    let mut one = open("?types=ticker,trade&exchange=binance&symbol=BTC-USDT").await;
    let expected = ["event:ticker:binance:BTC-USDT", "event:trade:binance:BTC-USDT"];
    assert_eq!(subscribed(&mut one, 2).await, expected);
    let mut every = open("").await;
    assert_eq!(subscribed(&mut every, 8).await.len(), 8);
    let mut of_a_symbol = open("?types=candle,exchange:error&symbol=A,B").await;
    let expected = ["event:candle:*:A:*", "event:candle:*:B:*", "event:exchange:error"];
    assert_eq!(subscribed(&mut of_a_symbol, 3).await, expected);
    let events = [ticker("kraken", "BTC-USDT", 1), ticker("binance", "BTC-USDT", 2)];
    publish(&gateway, "ticker", &events).await;
    assert_eq!(prices(&mut one, "event:ticker:binance:BTC-USDT", 1).await, [2]);
    assert_eq!(prices(&mut every, "event:ticker", 2).await, [1, 2]);

    for (query, code) in [
        ("?types=tick", "invalid_channel"),
        ("?exchange=Binance", "invalid_channel"),
        ("?types=ticker&snapshot=2", "invalid_message"),
    ] {
        let mut client = gateway.connect(&format!("/ws/events{query}")).await;
        let (messages, close, _) = client.until_close().await;
        assert_eq!((&messages[0]["type"], &messages[0]["code"]), (&json!("error"), &json!(code)), "{query}");
        assert_eq!(close, 4502);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_over_a_websocket_is_answered_in_order() {
    let gateway = Running::changed(config(), |config| config.channels.keys_per_zone_max = 60).await;
    let mut reader = gateway.client().await;
    follow(&mut reader, "event:ticker", json!({})).await;
    let mut client = gateway.client().await;
    // More at once than may wait.
    for n in 1..=50 {
        let events = json!([ticker("a", &format!("S{n}"), n), ticker("a", &format!("S{n}"), n)]);
        let name = if n % 2 == 0 { "events" } else { "entries" };
        client.send(&json!({ "type": "publish", "id": n, "channel": "event:ticker", name: events })).await;
    }
    for n in 1..=50 {
        let published = client.next().await;
        assert_eq!((&published["type"], &published["id"]), (&json!("published"), &json!(n)), "{published}");
        let said = (&published["channel"], &published["accepted"]);
        assert_eq!(said, (&json!("event:ticker"), &json!(2)));
    }
    let expected: Vec<u64> = (1..=50).flat_map(|n| [n, n]).collect();
    assert_eq!(prices(&mut reader, "event:ticker", 100).await, expected);

    client.send(&json!({ "type": "publish", "id": "z", "channel": "zone:pjm", "entries": [{ "key": "A", "price": 1 }] })).await;
    assert_eq!(client.next().await["accepted"], 1);
    assert_eq!(gateway.get("/api/zones/pjm/latest").await.json()["entries"][0]["price"], 1);

    let good = ticker("a", "S1", 7);
    for (channel, entries, code, part) in [
        ("event:ticker", json!([]), "invalid_message", "1 or more"),
        ("event:ticker", json!({}), "invalid_message", "`entries` must be a list"),
        ("event:tick", json!([good]), "invalid_channel", "event:"),
        ("event:ticker:a:*", json!([good]), "invalid_channel", "publish to that"),
        ("order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11", json!([good]), "invalid_channel", "updates"),
        ("registry:providers", json!([{ "key": "A", "price": 1 }]), "invalid_channel", "/api/providers"),
        ("event:ticker", json!([good, { "exchange": "a" }]), "invalid_entry", "index 1: `symbol` is missing"),
        ("zone:pjm", json!([{ "key": "A" }]), "invalid_entry", "`price` is missing"),
    ] {
        client.send(&json!({ "type": "publish", "id": code, "channel": channel, "entries": entries })).await;
        let error = client.next().await;
        let said = (&error["type"], &error["id"], &error["code"]);
        assert_eq!(said, (&json!("error"), &json!(code), &json!(code)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
        assert_eq!(error["temporary"], false);
    }
    let many: Vec<Value> = (1..=20).map(|n| ticker("b", &format!("T{n}"), n)).collect();
    client.send(&json!({ "type": "publish", "id": 9, "channel": "event:ticker", "entries": many })).await;
    let error = client.next().await;
    assert_eq!((&error["code"], &error["accepted"]), (&json!("too_many_keys"), &json!(0)), "{error}");
    assert_eq!(reader.until_pong().await, [] as [Value; 0], "nothing arrived of what was refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_views_is_limited() {
    let gateway = Running::changed(config(), |config| config.channels.views_max = 2).await;
    let mut client = gateway.client().await;
    follow(&mut client, "event:ticker:a:*", json!({})).await;
    follow(&mut client, "event:trade:a:*", json!({})).await;
    let stats = gateway.stats().await;
    assert_eq!(["views", "followed_events"].map(|name| stats["channels"][name].as_u64()), [Some(2), Some(2)]);
    client.send(&json!({ "type": "subscribe", "id": 1, "channels": ["event:ticker:b:*"] })).await;
    let error = client.next().await;
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("too_many_views")), "{error}");
    // A view that others follow, or a whole channel, is not an additional view.
    let mut other = gateway.client().await;
    follow(&mut other, "event:ticker:a:*", json!({})).await;
    follow(&mut other, "event:ticker", json!({})).await;
    client.send(&json!({ "type": "unsubscribe", "channels": ["event:trade:a:*"] })).await;
    client.next_of_type("unsubscribed").await;
    until("there is room again", async || {
        client.send(&json!({ "type": "subscribe", "channels": ["event:ticker:b:*"] })).await;
        client.next().await["type"] == "subscribed"
    })
    .await;
}

const SECRET: &str = "a secret of these tests, long enough to be one";

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_by_type_and_a_view_needs_one_that_covers_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), SECRET).unwrap();
    let mut config = config();
    config.auth.mode = Some(AuthMode::On);
    config.auth.issuers = vec![IssuerConfig {
        issuer: "tests".to_owned(),
        secret_files: vec![dir.path().join("secret")],
        ..IssuerConfig::default()
    }];
    let gateway = Running::start(config).await;
    let token = |rights: &[&str]| {
        let now = chrono::Utc::now().timestamp();
        let claims = json!({
            "iss": "tests", "aud": "zonewire", "sub": "a", "iat": now, "exp": now + 600, "rights": rights,
        });
        SigningKey::of_secret(SECRET).unwrap().sign(&claims, None).unwrap()
    };
    let reads = token(&["subscribe:event:ticker:binance:*", "publish:event:trade"]);
    let bearer = format!("Bearer {reads}");
    let mut client = Client::connect_with(&gateway.url("/ws"), "authorization", &bearer).await;
    client.next_of_type("connection_established").await;
    follow(&mut client, "event:ticker:binance:*", json!({})).await;
    follow(&mut client, "event:ticker:binance:BTC-USDT", json!({})).await;
    for channel in ["event:ticker", "event:ticker:*:BTC-USDT", "event:ticker:kraken:*", "event:trade"] {
        client.send(&json!({ "type": "subscribe", "id": 1, "channels": [channel] })).await;
        let error = client.next().await;
        assert_eq!((&error["code"], &error["channel"]), (&json!("forbidden"), &json!(channel)), "{error}");
    }
    let trade = json!({ "exchange": "a", "symbol": "B", "price": 1, "size": 1 });
    for (channel, entry, kind) in
        [("event:trade", &trade, "published"), ("event:ticker", &ticker("a", "B", 1), "error")]
    {
        client.send(&json!({ "type": "publish", "id": 2, "channel": channel, "entries": [entry] })).await;
        let answer = client.next().await;
        assert_eq!(answer["type"], kind, "{answer}");
        if kind == "error" {
            assert_eq!(answer["code"], "forbidden");
        }
    }
    let headers = [("authorization", bearer.as_str()), ("content-type", JSON)];
    let ask = async |method, path: &str, body: &str| {
        request(gateway.address, method, path, &headers, body.as_bytes()).await
    };
    assert_eq!(ask("POST", "/api/events/trade", &trade.to_string()).await.status, 200);
    ask("POST", "/api/events/ticker", &ticker("a", "B", 1).to_string()).await.problem(403, "forbidden");
    ask("GET", "/api/events/ticker/latest", "").await.problem(403, "forbidden");
    request(gateway.address, "POST", "/api/events/trade", &[], b"{}").await.problem(401, "unauthorized");
    let mut some = Client::connect_with(
        &gateway.url("/ws/events?types=ticker,trade&exchange=binance"),
        "authorization",
        &bearer,
    )
    .await;
    some.next_of_type("connection_established").await;
    let (one, other) = (some.next().await, some.next().await);
    let said = |kind: &str| [&one, &other].into_iter().find(|said| said["type"] == kind).cloned();
    assert_eq!(said("subscribed").unwrap()["channel"], "event:ticker:binance:*");
    assert_eq!(said("error").unwrap()["channel"], "event:trade:binance:*");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_continue_through_an_outage_and_then_get_what_other_nodes_published() {
    let Some(server) = redis(&[]).await else { return };
    let config = on_prefix(&server, "events");
    let (a, b) = (Running::start(config.clone()).await, Running::start(config).await);
    let view = "event:ticker:binance:*";
    let mut client = a.client().await;
    follow(&mut client, view, json!({})).await;
    publish(&b, "ticker", &[ticker("binance", "A", 1), ticker("kraken", "A", 2)]).await;
    assert_eq!(shown(&client.next_of_type("ticker").await), 1);
    server.freeze().unwrap();
    for gateway in [&a, &b] {
        until_state(gateway.address, "degraded").await;
    }
    publish(&a, "ticker", &[ticker("kraken", "A", 3), ticker("binance", "A", 4)]).await;
    assert_eq!(shown(&client.next_of_type("ticker").await), 4, "it continues at once");
    publish(&b, "ticker", &[ticker("binance", "B", 5), ticker("kraken", "B", 6)]).await;
    server.thaw().unwrap();
    let late = client.next_of_type("ticker").await;
    assert_eq!((shown(&late), &late["late"]), (5, &json!(true)), "{late}");
    until_state(a.address, "healthy").await;
    publish(&b, "ticker", &[ticker("kraken", "C", 7), ticker("binance", "C", 8)]).await;
    assert_eq!(shown(&client.next_of_type("ticker").await), 8);
    let mut fresh = b.client().await;
    follow(&mut fresh, view, json!({ "snapshot": true })).await;
    let mut latest = Vec::new();
    loop {
        let message = fresh.next().await;
        if message["type"] == "snapshot_end" {
            assert_eq!(message["recovered"], true, "{message}");
            break;
        }
        latest.push((message["data"]["symbol"].as_str().unwrap().to_owned(), shown(&message)));
    }
    assert_eq!(latest, [("A".to_owned(), 4), ("B".to_owned(), 5), ("C".to_owned(), 8)]);
    let history = b.get("/api/events/ticker/history").await.json();
    let mut kept: Vec<u64> = history["entries"].as_array().unwrap().iter().map(shown).collect();
    kept.sort_unstable();
    assert_eq!(kept, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_publishes_and_follows_events() {
    let gateway = Running::start(config()).await;
    let url = format!("http://{}", gateway.address);
    let view = "event:ticker:binance:*";
    let mut tail = Program::start(&mut zonewire(&["tail", view, "--count", "2", "--url", &url]));
    until("it follows", async || gateway.stats().await["connections"]["open"] == 1).await;
    let said =
        run(zonewire(&["publish", "--event", "ticker", "--url", &url])
            .arg(ticker("binance", "A", 1).to_string()))
        .await;
    assert_eq!((said.code, said.stdout.as_str()), (Some(0), "{\"accepted\":1}\n"), "{said:?}");
    let mut command = zonewire(&["publish", "--event", "ticker", "-", "--url", &url]);
    let mut feed = command.stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut stdin = feed.stdin.take().unwrap();
    let lines = format!("{}\n{}\n", ticker("kraken", "A", 2), ticker("binance", "A", 3));
    stdin.write_all(lines.as_bytes()).await.unwrap();
    drop(stdin);
    assert!(feed.wait().await.unwrap().success());
    assert_eq!([shown(&tail.json().await), shown(&tail.json().await)], [1, 3]);
    assert_eq!(tail.ended().await.code, Some(0));
    let newest =
        run(zonewire(&["tail", "event:ticker", "-n", "2"]).args(["--count", "2", "--url", &url])).await;
    assert_eq!(newest.json_lines().iter().map(shown).collect::<Vec<_>>(), [2, 3], "{newest:?}");
    for (args, part) in [
        (&["publish", "--event", "tick", "{}"][..], "ticker, trade"),
        (&["publish", "--event", "ticker", "7"], "JSON object"),
        (&["publish", "--event", "ticker", "{}", "--price", "1"], "cannot be used with"),
        (&["tail", "event:tick"], "event:"),
    ] {
        let end = run(&mut zonewire(args)).await;
        assert_eq!(end.code, Some(64), "{args:?}: {end:?}");
        assert!(end.stderr.contains(part), "{args:?}: {end:?}");
    }
}
