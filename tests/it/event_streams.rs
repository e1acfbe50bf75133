//! Server-sent events, which carry what a WebSocket would be sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;
use zonewire::config::Config;
use zonewire::model::Lane;
use zonewire_kit::proxy::{Mode, Proxy};
use zonewire_kit::redis::RedisServer;

use crate::support::client::{LIMIT, offset};
use crate::support::events::{Event, EventReader};
use crate::support::eventually::until;
use crate::support::follow::Cuts;
use crate::support::gateway::{Running, config, price, request, until_stat, until_state};
use crate::support::orders::{new_order, paper, place, update};
use crate::support::process::{Process, Signal};
use crate::support::redis::{on_prefix, redis};

const STREAM: &str = "/sse?channels=";

fn on_every() -> Config {
    let mut config = config();
    config.channels.default_lane = Lane::Every;
    config
}

/// A reader of one zone, after `subscribed`.
async fn reader_of(address: SocketAddr, zone: &str) -> EventReader {
    let mut reader = EventReader::open(address, &format!("{STREAM}zone:{zone}")).await;
    reader.next_of_type("subscribed").await;
    reader
}

async fn prices(reader: &mut EventReader, count: usize) -> Vec<Value> {
    let mut prices = Vec::new();
    while prices.len() < count {
        prices.push(reader.next_of_type("price_update").await);
    }
    prices
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_carries_the_same_messages_as_a_websocket() {
    let gateway = Running::start(on_every()).await;
    let order = new_order();
    gateway.publish("ercot", [price("A", 1), price("B", 2), price("A", 3)]).await;
    let channels = format!("zone:pjm,order:{order},zone:ercot");
    let mut reader = EventReader::open(gateway.address, &format!("{STREAM}{channels}&snapshot=0,0,1")).await;
    let mut client = gateway.connect("/ws").await;
    let subscribe = |names: &[&str], snapshot: bool| json!({ "type": "subscribe", "channels": names, "snapshot": snapshot });
    client.send(&subscribe(&["zone:pjm", &format!("order:{order}")], false)).await;
    client.send(&subscribe(&["zone:ercot"], true)).await;
    for name in ["transfer-encoding: chunked", "cache-control: no-store", "x-accel-buffering: no"] {
        assert!(reader.head.lines().any(|line| line == name), "{}", reader.head);
    }
    let greeting = reader.next().await;
    assert_eq!((&greeting["type"], &greeting["protocol"]), (&json!("connection_established"), &json!(1)));
    assert!((1_000..3_000).contains(&reader.retry.unwrap()), "{:?}", reader.retry);

    let (mut told, mut shown) = (Vec::new(), Vec::new());
    let is_begun = |messages: &[Value]| {
        let ends = messages.iter().filter(|message| message["type"] == "subscribed").count();
        ends == 3 && messages.iter().any(|message| message["type"] == "snapshot_end")
    };
    while !is_begun(&told) {
        told.push(reader.next().await);
    }
    while !is_begun(&shown) {
        shown.push(client.next().await);
    }
    gateway.publish("pjm", (1..=20).map(|n| price("K", n))).await;
    update(gateway.address, &order, json!({ "type": "routing", "progress": 10 })).await;
    gateway.publish("pjm", [json!({ "key": "Q", "price": 21, "epoch": 7, "text": "a\r\nb\u{2028}" })]).await;
    gateway.delete("/api/zones/pjm/keys/Q").await;
    let is_all = |messages: &[Value]| {
        let has = |kind: &str| messages.iter().any(|message| message["type"] == kind);
        has("key_removed") && has("routing")
    };
    while !is_all(&told) {
        told.push(reader.next().await);
    }
    while !is_all(&shown) {
        shown.push(client.next().await);
    }
    // The same messages per channel, apart from the time of sending.
    let by_channel = |messages: Vec<Value>| {
        let mut all = BTreeMap::<String, Vec<Value>>::new();
        for mut message in messages {
            let Some(channel) = message["channel"].as_str().map(str::to_owned) else { continue };
            if message["type"] == "caught_up" {
                continue;
            }
            if message["id"].is_null() {
                message.as_object_mut().unwrap().remove("timestamp");
            }
            all.entry(channel).or_default().push(message);
        }
        all
    };
    assert_eq!(by_channel(told), by_channel(shown));
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_receives_what_the_protocol_document_shows() {
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", [price("A", 1)]).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    // HTTP/1.0 has no chunks, so these are the bytes of the stream.
    stream.write_all(b"GET /sse?channels=zone:pjm,zone:b HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let mut until = async |what: &str, text: &mut String| {
        while !text.contains(what) {
            let mut some = [0; 4_096];
            let read = time::timeout(LIMIT, stream.read(&mut some)).await.expect(what).unwrap();
            assert!(read > 0, "{text}");
            *text += std::str::from_utf8(&some[..read]).unwrap();
        }
    };
    until("\"channel\":\"zone:b\"", &mut text).await;
    gateway.publish("pjm", [price("A", 2)]).await;
    until("\"price\":2}\n\n", &mut text).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    let events: Vec<&str> = body.split_terminator("\n\n").collect();
    let [greeting, first, second, entry] = events[..] else { panic!("{events:?}") };
    assert!(greeting.starts_with("retry: "));
    assert!(greeting.contains("\ndata: {\"type\":\"connection_established\""));
    let id = |event: &str| {
        let (id, data) = event.strip_prefix("id: ").unwrap().split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (id.to_owned(), data)
    };
    let ((_, first), (both, second), (last, entry)) = (id(first), id(second), id(entry));
    let place = |message: &Value| format!("{}:{}", message["epoch"].as_str().unwrap(), message["offset"]);
    let (pjm, other) = if first["channel"] == "zone:pjm" { (&first, &second) } else { (&second, &first) };
    assert_eq!(both, format!("{},{}", place(pjm), place(other)));
    assert_eq!(last, format!("{}:2,{}", pjm["epoch"].as_str().unwrap(), place(other)));
    assert_eq!((&entry["type"], offset(&entry)), (&json!("price_update"), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_channel_at_fault() {
    let gateway = Running::changed(config(), |config| config.connections.subscriptions_max = 3).await;
    let e = "0123456789abcdef";
    let long = format!("{}:1", "f".repeat(1_025));
    for (query, header, code, channel) in [
        ("channels=pjm", "", "invalid_name", Some("pjm")),
        ("channels=zone:a,zone:", "", "invalid_name", Some("zone:")),
        ("channels=zone:a,", "", "invalid_name", Some("")),
        ("channels=order:1", "", "invalid_name", Some("order:1")),
        ("channels=zone:a%20b", "", "invalid_name", Some("zone:a b")),
        ("channels=zone:a,zone:b,zone:a", "", "invalid_query", Some("zone:a")),
        ("channels=zone:a,zone:b,zone:c,zone:d", "", "invalid_query", Some("zone:d")),
        ("channels=zone:a&channels=zone:b", "", "invalid_query", None),
        ("channels=zone:a&snapshot=yes", "", "invalid_query", None),
        ("channels=zone:a,zone:b&snapshot=1,0,1", "", "invalid_query", None),
        ("channels=zone:a&since=5", "", "invalid_position", None),
        (&format!("channels=zone:a,zone:b&since={e}:5"), "", "invalid_position", None),
        (&format!("channels=zone:a&since={long}"), "", "invalid_position", None),
        (&format!("since={e}:5"), "", "invalid_position", None),
        (&format!("channels=zone:a&since={e}:5"), "nonsense", "invalid_position", None),
        ("channels=zone:a", &format!("{e}:5,{e}:6"), "invalid_position", None),
    ] {
        let headers = [("last-event-id", header)];
        let headers = if header.is_empty() { &[][..] } else { &headers };
        let answer = request(gateway.address, "GET", &format!("/sse?{query}"), headers, b"").await;
        let problem = answer.problem(400, code);
        assert_eq!(problem["channel"].as_str(), channel, "{query}: {problem}");
    }
    let answer = request(gateway.address, "POST", "/sse?channels=zone:a", &[], b"").await;
    answer.problem(405, "method_not_allowed");
    assert!(answer.head.contains("allow: get, head, options"), "{answer:?}");
    assert_eq!(gateway.stats().await["connections"]["total"], 0, "no stream was opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_requests_origins_and_bodies_are_handled_as_elsewhere() {
    let mut config = config();
    config.http.origins = vec!["https://desk.example".to_owned()];
    let gateway = Running::start(config).await;
    let path = "/sse?channels=zone:pjm";
    let origin = ("origin", "https://desk.example");
    let head = request(gateway.address, "HEAD", path, &[origin], b"").await;
    assert_eq!(head.status, 200);
    assert!(head.head.contains("content-type: text/event-stream") && head.body.is_empty(), "{head:?}");
    let asked = [
        origin,
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "last-event-id"),
    ];
    let before = request(gateway.address, "OPTIONS", path, &asked, b"").await;
    assert_eq!(before.status, 204);
    assert!(before.head.contains("access-control-allow-headers: last-event-id"), "{before:?}");
    let evil = ("origin", "https://evil.example");
    request(gateway.address, "GET", path, &[evil], b"").await.problem(403, "origin_not_allowed");
    assert_eq!(gateway.stats().await["connections"]["total"], 0, "no stream was opened");

    // A page of a listed origin; the body is ignored, and nothing is compressed.
    let headers =
        [origin, ("accept-encoding", "gzip"), ("content-length", "3"), ("content-type", "text/plain")];
    let mut reader = EventReader::open_with(gateway.address, path, &headers).await;
    reader.stream.write_all(b"abc").await.unwrap();
    assert!(reader.head.contains("access-control-allow-origin: https://desk.example"), "{}", reader.head);
    assert!(!reader.head.contains("content-encoding"), "{}", reader.head);
    reader.next_of_type("subscribed").await;

    // A stream without channels carries only messages about the gateway.
    let mut bare = EventReader::open(gateway.address, "/sse").await;
    assert_eq!(bare.next().await["type"], "connection_established");
    gateway.stop().await;
    assert_eq!(bare.until_end().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_stream_continues_and_a_vanished_reader_is_noticed_at_once() {
    let mut config = config();
    // Timeouts do not find it.
    config.connections.heartbeat_interval_s = 3_600;
    config.connections.silence_timeout_s = 7_200;
    let gateway = Running::start(config).await;
    let mut reader = reader_of(gateway.address, "pjm").await;
    reader.stream.shutdown().await.unwrap();
    assert!(matches!(reader.came().await, Event::Comment), "it is asked whether it is there");
    gateway.publish("pjm", [price("A", 1)]).await;
    prices(&mut reader, 1).await;
    drop(reader_of(gateway.address, "pjm").await);
    until_stat(&gateway, "/connections/total_disconnections", 1).await;
    until("its place is free", async || gateway.stats().await["connections"]["event_streams"] == 1).await;
    assert_eq!(gateway.stats().await["connections"]["closed_by_reason"]["abnormal"], 1);
    gateway.publish("pjm", [price("A", 2)]).await;
    prices(&mut reader, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_count_as_connections_and_are_listed_with_them() {
    let gateway = Running::changed(config(), |config| config.connections.heartbeat_interval_s = 1).await;
    let mut reader = reader_of(gateway.address, "pjm").await;
    let (_client, _) = gateway.market("pjm").await;
    let stats = gateway.stats().await;
    let connections = &stats["connections"];
    assert_eq!((&connections["open"], &connections["event_streams"]), (&json!(2), &json!(1)));
    assert_eq!(connections["by_zone"], json!({ "pjm": 2 }));
    let list = stats["connection_list"].as_array().unwrap();
    let kinds: BTreeSet<&str> = list.iter().map(|info| info["transport"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["events", "websocket"]));
    let metrics = gateway.get("/metrics").await.body;
    assert!(metrics.lines().any(|line| line == "zonewire_event_streams 1"), "{metrics}");
    // A comment, for proxies, and a message, for pages.
    let (mut comments, mut heartbeats) = (0, 0);
    while comments < 2 || heartbeats < 2 {
        match reader.came().await {
            Event::Comment => comments += 1,
            Event::Message(message) => heartbeats += u64::from(message["type"] == "heartbeat"),
            end => panic!("{end:?}"),
        }
    }
    drop(reader);
    until_stat(&gateway, "/connections/total_disconnections", 1).await;
    until("its place is free", async || gateway.stats().await["connections"]["event_streams"] == 0).await;
}

/// Checks a stream that only says that it ends, and when to reconnect.
async fn assert_turned_away(mut reader: EventReader, code: u16, reason: &str) {
    let told = reader.until_end().await;
    let [closing] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&closing["type"], &closing["code"]), (&json!("closing"), &json!(code)), "{closing}");
    assert_eq!(closing["reason"], reason);
    assert_eq!(closing["retry_after_ms"].as_u64(), reader.retry);
    assert!(reader.retry.is_some_and(|ms| (1_000..5_000).contains(&ms)) && reader.last_event_id.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_has_the_form_that_the_client_accepts() {
    let path = "/sse?channels=zone:pjm";
    let mut all = config();
    all.connections.max = 1;
    let mut of_address = config();
    of_address.connections.per_loopback_address_max = 1;
    let mut too_often = config();
    too_often.connections.loopback_connects_per_s = 1;
    too_often.connections.connects_burst = 1;
    for (config, status, problem, code, reason) in [
        (all, 503, "too_many_connections", 4005, "too_many_connections"),
        (of_address, 429, "too_many_connections_from_address", 4005, "too_many_connections"),
        (too_often, 429, "connecting_too_often", 4004, "rate_limited"),
    ] {
        let gateway = Running::start(config).await;
        let _reader = reader_of(gateway.address, "pjm").await;
        // A browser takes any other answer for a final failure.
        assert_turned_away(EventReader::open(gateway.address, path).await, code, reason).await;
        request(gateway.address, "GET", path, &[("accept", "*/*")], b"").await.problem(status, problem);
    }
    // Behind a proxy, opening a stream counts as connecting.
    let mut config = config();
    config.http.trusted_proxies = vec!["127.0.0.1".to_owned()];
    config.connections.connects_per_s = 1;
    config.connections.connects_burst = 1;
    let gateway = Running::start(config).await;
    let headers = [("accept", "text/event-stream"), ("x-forwarded-for", "10.0.0.1")];
    let mut first = EventReader::open_with(gateway.address, path, &headers).await;
    first.next_of_type("subscribed").await;
    assert_eq!(request(gateway.address, "GET", "/api/zones", &headers, b"").await.status, 200);
    assert_turned_away(EventReader::open_with(gateway.address, path, &headers).await, 4004, "rate_limited")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_room_for_none_of_its_channels_is_asked_to_reconnect() {
    let mut config = config();
    // Twice as many zones may be in use.
    config.channels.zones_max = 1;
    let gateway = Running::start(config).await;
    let mut first = EventReader::open(gateway.address, "/sse?channels=zone:a,zone:b,zone:c").await;
    let (mut followed, mut refused) = (Vec::new(), Vec::new());
    while followed.len() + refused.len() < 3 {
        let message = first.next().await;
        match message["type"].as_str() {
            Some("subscribed") => followed.push(message["channel"].as_str().unwrap().to_owned()),
            Some("error") => refused.push(message["code"].clone()),
            _ => {}
        }
    }
    assert_eq!((followed.len(), &refused[..]), (2, &[json!("too_many_zones")][..]));
    gateway.publish(followed[0].strip_prefix("zone:").unwrap(), [price("A", 1)]).await;
    prices(&mut first, 1).await;
    let mut last = EventReader::open(gateway.address, "/sse?channels=zone:d,zone:e").await;
    let told = last.until_end().await;
    let errors = told.iter().filter(|message| message["code"] == "too_many_zones");
    assert_eq!((errors.count(), &told.last().unwrap()["code"]), (2, &json!(4005)), "{told:?}");
    assert!(last.retry.is_some_and(|ms| (1_000..5_000).contains(&ms)) && last.last_event_id.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_on_lane_every_is_closed_and_resumes_without_loss() {
    const COUNT: u64 = 6_000;
    let gateway = Running::changed(on_every(), |config| config.connections.outbox_bytes_max = 64 << 10).await;
    let padding = "x".repeat(1_000);
    let mut slow = EventReader::open_small(gateway.address, "/sse?channels=zone:pjm,zone:quiet").await;
    slow.next_of_type("subscribed").await;
    for n in (1..=COUNT).step_by(500) {
        let lines = (n..n + 500).map(|n| json!({ "key": "K", "price": n, "padding": padding }));
        gateway.publish("pjm", lines).await;
    }
    until_stat(&gateway, "/messages/dropped_by_reason/slow_consumer", 1).await;
    let told = slow.until_end().await;
    let (closing, entries) = told.split_last().unwrap();
    assert_eq!((&closing["code"], &closing["reason"]), (&json!(4001), &json!("slow_consumer")));
    let entries: Vec<u64> =
        entries.iter().filter(|entry| entry["type"] == "price_update").map(offset).collect();
    let last = entries.len() as u64;
    assert!((1..COUNT).contains(&last), "{last}");
    assert!(entries.iter().copied().eq(1..=last), "in order, without a gap: {last}");
    until_stat(&gateway, "/connections/closed_by_reason/slow_consumer", 1).await;

    let path = "/sse?channels=zone:pjm,zone:quiet";
    let mut back = EventReader::resume(gateway.address, path, &slow.last_event_id).await;
    let rest = prices(&mut back, (COUNT - last) as usize).await;
    assert!(rest.iter().map(offset).eq(last + 1..=COUNT), "it continues where it stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_on_lane_latest_gets_the_newest_of_each_key() {
    const COUNT: u64 = 4_000;
    let gateway = Running::start(config()).await;
    let padding = "x".repeat(1_000);
    let mut slow = EventReader::open_small(gateway.address, "/sse?channels=zone:pjm").await;
    slow.next_of_type("subscribed").await;
    for n in (1..=COUNT).step_by(500) {
        let lines =
            (n..n + 500).map(|n| json!({ "key": format!("k{}", n % 5), "price": n, "padding": padding }));
        gateway.publish("pjm", lines).await;
    }
    until_stat(&gateway, "/messages/conflated", 1).await;
    let (mut latest, mut last) = (BTreeMap::new(), 0);
    while last < COUNT {
        let entry = slow.next_of_type("price_update").await;
        assert!(offset(&entry) > last, "offsets never go back");
        last = offset(&entry);
        latest.insert(entry["key"].as_str().unwrap().to_owned(), entry["price"].as_u64().unwrap());
        assert!(slow.last_event_id.ends_with(&format!(":{last}")), "{}", slow.last_event_id);
    }
    let newest = (COUNT - 4..=COUNT).map(|n| (format!("k{}", n % 5), n));
    assert_eq!(latest, newest.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_says_when_to_reconnect() {
    let mut process = Process::start(&["storage.backend=memory", "http.drain_s=1"]).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(reader_of(process.address, "pjm").await);
    }
    process.signal(Signal::TERM);
    for mut reader in readers {
        let told = reader.until_end().await;
        let closing = told.last().unwrap();
        assert_eq!((&closing["type"], &closing["code"]), (&json!("closing"), &json!(4000)), "{closing}");
        assert_eq!(closing["retry_after_ms"].as_u64(), reader.retry);
        assert!(reader.retry.is_some_and(|ms| (500..=1_500).contains(&ms)), "{:?}", reader.retry);
        assert_ne!(reader.last_event_id, "final");
    }
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_orders_ends_for_good_with_the_last_order() {
    let gateway = Running::changed(paper(), |config| config.connections.order_linger_ms = 0).await;
    let orders = [place(gateway.address).await, place(gateway.address).await];
    let path = format!("{STREAM}order:{},order:{}", orders[0], orders[1]);
    let mut reader = EventReader::open(gateway.address, &path).await;
    let told = reader.until_end().await;
    for order in &orders {
        let of_it = told.iter().filter(|message| message["channel"] == format!("order:{order}"));
        let types: Vec<&str> = of_it.map(|message| message["type"].as_str().unwrap()).collect();
        assert!(types.starts_with(&["subscribed"]) && types.contains(&"confirmed"), "{types:?}");
        assert_eq!(types.last(), Some(&"unsubscribed"));
    }
    assert_eq!((&told.last().unwrap()["code"], reader.last_event_id.as_str()), (&json!(1000), "final"));
    // A browser reconnects anyway, and is told not to.
    for method in ["GET", "HEAD"] {
        let answer = request(gateway.address, method, &path, &[("last-event-id", "final")], b"").await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{answer:?}");
    }
    // A stream that also follows a zone continues.
    let mut reader = EventReader::open(gateway.address, &format!("{path},zone:pjm")).await;
    for _ in 0..2 {
        assert_eq!(reader.next_of_type("unsubscribed").await["code"], "finished");
    }
    gateway.publish("pjm", [price("A", 1)]).await;
    prices(&mut reader, 1).await;
}

/// A client of streams that behaves like a browser: it stores the last id, reconnects with it, and remembers
/// nothing else. Checks what it receives.
struct Browser {
    channels: Vec<String>,
    path: String,
    reader: Option<EventReader>,
    last_event_id: String,
    /// By channel, the numbers received.
    had: BTreeMap<String, Vec<u64>>,
    words: Vec<String>,
    opened: usize,
}

impl Browser {
    fn of(channels: &[String]) -> Self {
        let (channels, path) = (channels.to_vec(), format!("{STREAM}{}", channels.join(",")));
        let (had, words) = (BTreeMap::new(), Vec::new());
        Self { channels, path, reader: None, last_event_id: String::new(), had, words, opened: 0 }
    }

    /// Connects to a gateway, and waits until all channels are subscribed to.
    async fn come(&mut self, address: SocketAddr) {
        self.leave();
        self.reader = Some(EventReader::resume(address, &self.path, &self.last_event_id).await);
        self.opened += 1;
        for _ in 0..self.channels.len() {
            while !self.next().await.contains("\"type\":\"subscribed\"") {}
        }
    }

    fn leave(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.last_event_id = reader.last_event_id;
        }
    }

    /// The next message; no number may arrive twice, and nothing may be reported missing.
    async fn next(&mut self) -> String {
        let message = self.reader.as_mut().expect("it has come").next().await;
        let text = message.to_string();
        self.words.push(text.clone());
        if let Some(number) = message["price"].as_u64().or(message["n"].as_u64()) {
            let had = self.had.entry(message["channel"].as_str().unwrap().to_owned()).or_default();
            assert!(!had.contains(&number), "{number} twice: {}", self.words.join("\n"));
            had.push(number);
        } else if ["subscribed", "resync"].contains(&message["type"].as_str().unwrap()) {
            let is_first = self.opened == 1 && message["type"] == "subscribed";
            // In an outage some entries are out of reach, and arrive later.
            let is_whole = message["gap"].as_u64().is_none_or(|gap| gap == 0);
            assert!(is_first || is_whole, "{}", self.words.join("\n"));
        }
        text
    }

    /// Reads until it has received all numbers up to `last` of each channel.
    async fn until(&mut self, last: u64) {
        let is_all = |had: &Vec<u64>| had.len() as u64 == last && had.iter().all(|number| *number <= last);
        while !(self.had.len() == self.channels.len() && self.had.values().all(is_all)) {
            self.next().await;
        }
    }

    fn assert_in_order(&self) {
        assert!(self.had.values().all(|had| had.iter().copied().eq(1..=had.len() as u64)), "{:?}", self.had);
    }
}

/// Publishes these numbers to each channel.
async fn tell(address: SocketAddr, channels: &[String], numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        for channel in channels {
            match channel.split_once(':').unwrap() {
                ("zone", zone) => crate::support::gateway::publish(address, zone, [price("K", number)]).await,
                (_, order) => {
                    update(address, order, json!({ "type": "routing", "progress": 10, "n": number })).await;
                }
            }
        }
    }
}

fn several() -> Vec<String> {
    vec!["zone:a".to_owned(), format!("order:{}", new_order()), "zone:b".to_owned()]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_id_resumes_all_channels_wherever_a_stream_is_cut() {
    const COUNT: u64 = 45;
    let gateway = Running::start(on_every()).await;
    for seed in 0..12 {
        let channels =
            vec![format!("zone:a{seed}"), format!("order:{}", new_order()), format!("zone:b{seed}")];
        let mut browser = Browser::of(&channels);
        browser.come(gateway.address).await;
        let mut cuts = Cuts::seeded(seed, 12);
        let publishing = tell(gateway.address, &channels, 1..=COUNT);
        let reading = async {
            while browser.had.values().map(Vec::len).sum::<usize>() < COUNT as usize * 3 {
                for _ in 0..cuts.next() {
                    if browser.had.values().map(Vec::len).sum::<usize>() < COUNT as usize * 3 {
                        browser.next().await;
                    }
                }
                browser.come(gateway.address).await;
            }
        };
        tokio::join!(publishing, reading);
        browser.until(COUNT).await;
        browser.assert_in_order();
        assert!(browser.opened > 3, "{}", browser.opened);
    }
}

fn on(server: &RedisServer, port: u16) -> Config {
    let mut config = on_prefix(server, "events");
    config.channels.default_lane = Lane::Every;
    config.storage.redis.port = Some(port);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_holds_after_a_restart_at_another_gateway_and_through_an_outage() {
    let Some(server) = redis(&[]).await else { return };
    let address = server.target.address;
    let (link_a, link_b) = (Proxy::start(address).await.unwrap(), Proxy::start(address).await.unwrap());
    let a = Running::start(on(&server, link_a.address.port())).await;
    let b = Running::start(on(&server, link_b.address.port())).await;
    let channels = several();
    let mut browser = Browser::of(&channels);
    browser.come(a.address).await;
    tell(a.address, &channels, 1..=5).await;
    browser.until(5).await;
    // At the other gateway.
    tell(b.address, &channels, 6..=7).await;
    browser.come(b.address).await;
    browser.until(7).await;
    browser.assert_in_order();
    // After a restart.
    a.stop().await;
    let a = Running::start(on(&server, link_a.address.port())).await;
    tell(a.address, &channels, 8..=9).await;
    browser.come(a.address).await;
    browser.until(9).await;
    browser.assert_in_order();

    // Gateway A is cut off from Redis, and both continue.
    link_a.set(Mode::Refuse);
    until_state(a.address, "degraded").await;
    tell(a.address, &channels, 10..=12).await;
    browser.until(12).await;
    browser.assert_in_order();
    let zones = ["zone:a".to_owned(), "zone:b".to_owned()];
    tell(b.address, &zones, 13..=14).await;
    // To the gateway that lacks some of them, and back.
    browser.come(b.address).await;
    browser.come(a.address).await;
    tell(a.address, &zones, 15..=16).await;
    link_a.set(Mode::Pass);
    until_state(a.address, "healthy").await;
    until("all is reconciled", async || a.stats().await["outage"]["channels_waiting"] == 0).await;
    tell(b.address, &channels[1..2], 13..=16).await;
    browser.until(16).await;
    // And once more to the other gateway: nothing is missing, and nothing is repeated.
    browser.come(b.address).await;
    tell(a.address, &channels, 17..=18).await;
    browser.until(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_a_restart_is_reported_as_a_loss() {
    let gateway = Running::start(on_every()).await;
    let mut reader = reader_of(gateway.address, "pjm").await;
    gateway.publish("pjm", (1..=3).map(|n| price("A", n))).await;
    prices(&mut reader, 3).await;
    gateway.stop().await;
    let gateway = Running::start(on_every()).await;
    gateway.publish("pjm", [price("A", 4)]).await;
    let path = "/sse?channels=zone:pjm";
    let mut back = EventReader::resume(gateway.address, path, &reader.last_event_id).await;
    let subscribed = back.next_of_type("subscribed").await;
    assert_eq!((&subscribed["recovered"], subscribed.get("gap")), (&json!(false), None), "{subscribed}");
    assert_eq!(prices(&mut back, 1).await[0]["price"], 4);
    // The same holds if an id had no room for a position; and the header takes precedence over the address.
    let path = format!("{path}&since={}", back.last_event_id);
    let mut back = EventReader::resume(gateway.address, &path, "lost:0").await;
    let subscribed = back.next_of_type("subscribed").await;
    assert_eq!((&subscribed["recovered"], subscribed.get("gap")), (&json!(false), None), "{subscribed}");
    assert_eq!(prices(&mut back, 1).await[0]["price"], 4);
    let mut back = EventReader::open(gateway.address, &path).await;
    assert_eq!(back.next_of_type("subscribed").await["gap"], 0);
}
