//! Input that no client should send. Each case gets its own answer and is counted, and meanwhile another
//! client of the same gateway receives every price.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time;
use zonewire::config::Config;

use crate::support::client::{LIMIT, assert_has};
use crate::support::eventually::until;
use crate::support::gateway::{
    Answer, JSON, LINES, Lines, Running, config, post, price, read_answer, until_stat,
};
use crate::support::raw::{RawSocket, masked, upgrade};
use crate::support::witness::Witness;

/// A gateway with a client that receives prices throughout the test.
struct Watched {
    gateway: Running,
    witness: Witness,
}

impl Watched {
    async fn start(config: Config) -> Self {
        let gateway = Running::start(config).await;
        let witness = Witness::start(gateway.address).await;
        Self { gateway, witness }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    async fn count(&self, pointer: &str) -> u64 {
        let stats = self.gateway.stats().await;
        stats.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {stats}"))
    }

    /// Checks that the witness missed nothing.
    async fn finish(self) {
        assert!(self.witness.finish().await >= 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_message_is_answered_and_the_connection_stays_open() {
    const NONE: Value = Value::Null;
    let watched = Watched::start(config()).await;
    let mut client = watched.gateway.client().await;
    let long_id = format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(200));
    let too_many = json!({ "type": "subscribe", "id": 6, "channels": vec!["zone:a"; 129] }).to_string();
    let deep = "[".repeat(10_000);
    let closed = format!(r#"{{"type":"ping","n":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    for (text, code, id, channel) in [
        ("", "invalid_json", NONE, NONE),
        ("{", "invalid_json", NONE, NONE),
        ("nonsense", "invalid_json", NONE, NONE),
        (r#"{"type":"ping"} x"#, "invalid_json", NONE, NONE),
        (r#"{"type":"ping","id":NaN}"#, "invalid_json", NONE, NONE),
        (&deep, "invalid_json", NONE, NONE),
        (&closed, "invalid_json", NONE, NONE),
        (r#"{"type":"ping","id":"\ud800"}"#, "invalid_json", NONE, NONE),
        ("[]", "invalid_message", NONE, NONE),
        ("5", "invalid_message", NONE, NONE),
        ("{}", "invalid_message", NONE, NONE),
        (r#"{"type":7,"id":1}"#, "invalid_message", json!(1), NONE),
        (r#"{"type":"ping","id":[1]}"#, "invalid_message", NONE, NONE),
        (&long_id, "invalid_message", NONE, NONE),
        (r#"{"type":"subscribe","id":2}"#, "invalid_message", json!(2), NONE),
        (r#"{"type":"subscribe","channels":"zone:a"}"#, "invalid_message", NONE, NONE),
        (r#"{"type":"subscribe","channels":["zone:a"],"since":5}"#, "invalid_message", NONE, NONE),
        (r#"{"type":"dance","id":"x"}"#, "unknown_type", json!("x"), NONE),
        (r#"{"type":"subscribe","id":3,"channels":["pjm"]}"#, "invalid_channel", json!(3), json!("pjm")),
        (r#"{"type":"subscribe","channels":["zone:"]}"#, "invalid_channel", NONE, json!("zone:")),
        (r#"{"type":"subscribe","channels":["zone:a b"]}"#, "invalid_channel", NONE, json!("zone:a b")),
        (r#"{"type":"subscribe","channels":["zone:*"]}"#, "invalid_channel", NONE, json!("zone:*")),
        (
            r#"{"type":"subscribe","channels":["zone:a"],"since":{"zone:a":"x"}}"#,
            "invalid_position",
            NONE,
            json!("zone:a"),
        ),
        (
            r#"{"type":"subscribe","channels":["zone:a"],"since":{"zone:a":{"epoch":"e","offset":-1}}}"#,
            "invalid_position",
            NONE,
            json!("zone:a"),
        ),
        (r#"{"type":"unsubscribe","channels":["zone:a"]}"#, "not_subscribed", NONE, json!("zone:a")),
        (r#"{"type":"unsubscribe","channels":["a"]}"#, "invalid_channel", NONE, json!("a")),
        (r#"{"type":"subscribe","id":4,"channels":[]}"#, "invalid_message", json!(4), NONE),
        (r#"{"type":"unsubscribe","id":5,"channels":[]}"#, "invalid_message", json!(5), NONE),
        (&too_many, "invalid_message", json!(6), NONE),
    ] {
        let pointer = format!("/messages/errors_by_code/{code}");
        let before = watched.count(&pointer).await;
        client.send_text(text).await;
        let error = client.next().await;
        let shown: String = text.chars().take(80).collect();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{shown}");
        assert_eq!((&error["id"], &error["channel"]), (&id, &channel), "{shown}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
        assert_eq!(error["temporary"], false, "{shown}");
        assert_eq!(watched.count(&pointer).await, before + 1, "{shown}");
    }
    // One bad name does not affect the others.
    client.send(&json!({ "type": "subscribe", "channels": ["zone:good", "bad", "zone:fine"] })).await;
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(client.next().await["type"].as_str().unwrap().to_owned());
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["error", "subscribed", "subscribed"]);
    drop(client);
    watched.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_frame_closes_with_its_code() {
    let mut config = config();
    config.connections.message_bytes_max = 1_000;
    let watched = Watched::start(config).await;
    let fragment = |first| masked(first, &[b'x'; 400]);
    for (what, bytes, code, reason) in [
        ("unmasked", b"\x81\x02hi".to_vec(), 1002, "protocol_error"),
        ("reserved bit", masked(0xc1, b"{}"), 1002, "protocol_error"),
        ("reserved opcode", masked(0x83, b"{}"), 1002, "protocol_error"),
        ("long ping", masked(0x89, &[b'x'; 126]), 1002, "protocol_error"),
        ("fragmented ping", masked(0x09, b"x"), 1002, "protocol_error"),
        ("a continuation of nothing", masked(0x80, b"x"), 1002, "protocol_error"),
        ("a beginning within a message", [fragment(0x01), fragment(0x01)].concat(), 1002, "protocol_error"),
        ("a close of one byte", masked(0x88, b"x"), 1002, "protocol_error"),
        ("not UTF-8", masked(0x81, b"\xff\xfe"), 1007, "invalid_utf8"),
        ("half a character", masked(0x81, "é".as_bytes().split_at(1).0), 1007, "invalid_utf8"),
        ("binary", masked(0x82, b"{}"), 1003, "unsupported_data"),
        ("too large", masked(0x81, &[b'x'; 1_001]), 1009, "message_too_big"),
        (
            "claims 2^62 bytes",
            b"\x81\xff\x40\0\0\0\0\0\0\0\x01\x02\x03\x04".to_vec(),
            1009,
            "message_too_big",
        ),
        ("claims 1,001 bytes", b"\x81\xfe\x03\xe9\x01\x02\x03\x04".to_vec(), 1009, "message_too_big"),
        (
            "fragments without an end",
            [fragment(0x01), fragment(0x00), fragment(0x00), fragment(0x00)].concat(),
            1009,
            "message_too_big",
        ),
    ] {
        let pointer = format!("/connections/closed_by_reason/{reason}");
        let before = watched.count(&pointer).await;
        let mut socket = RawSocket::open(watched.address(), "/ws/market/pjm").await;
        socket.send(&bytes).await;
        let (texts, number) = socket.until_close().await;
        assert_eq!(number, code, "{what}");
        let closing: Value = serde_json::from_str(texts.last().unwrap()).unwrap();
        let announced = (&closing["type"], &closing["code"], &closing["reason"]);
        assert_eq!(announced, (&json!("closing"), &json!(code), &json!(reason)), "{what}");
        assert_eq!(closing.get("retry_after_ms"), None, "coming back with the same would not help");
        drop(socket);
        until_stat(&watched.gateway, &pointer, before + 1).await;
    }
    watched.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_ends_its_sender_only() {
    let mut config = config();
    config.connections.messages_per_s = 1;
    config.connections.messages_burst = 20;
    let watched = Watched::start(config).await;
    // Messages, pings, and a message of empty fragments that never ends.
    for (first, frame, expected, retry_after_ms) in [
        // 20 messages over the limit, at one a second.
        (vec![], masked(0x81, br#"{"type":"ping"}"#), 4004, json!(20_000)),
        (vec![], masked(0x89, b"ping"), 4004, json!(20_000)),
        (masked(0x01, b""), masked(0x00, b""), 1009, Value::Null),
    ] {
        let mut socket = RawSocket::open(watched.address(), "/ws").await;
        socket.send(&[first, frame.repeat(2_000)].concat()).await;
        let (texts, code) = socket.until_close().await;
        assert_eq!(code, expected);
        assert!(texts.len() < 40, "{}", texts.len());
        let closing: Value = serde_json::from_str(texts.last().unwrap()).unwrap();
        assert_eq!((&closing["code"], &closing["retry_after_ms"]), (&json!(expected), &retry_after_ms));
    }
    until_stat(&watched.gateway, "/connections/closed_by_reason/rate_limited", 2).await;
    until_stat(&watched.gateway, "/connections/closed_by_reason/message_too_big", 1).await;
    watched.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscription_too_many_is_refused() {
    let watched = Watched::start(config()).await;
    let mut client = watched.gateway.client().await;
    let channels: Vec<String> = (1..=129).map(|n| format!("zone:z{n}")).collect();
    for some in channels.chunks(100) {
        client.send(&json!({ "type": "subscribe", "id": 1, "channels": some })).await;
    }
    let mut subscribed = 0;
    let mut errors = Vec::new();
    while subscribed + errors.len() < 129 {
        let message = client.next().await;
        match message["type"].as_str() {
            Some("subscribed") => subscribed += 1,
            _ => errors.push(message),
        }
    }
    assert_eq!((subscribed, errors.len()), (128, 1));
    assert_has(&errors[0], json!({ "code": "too_many_subscriptions", "channel": "zone:z129", "id": 1 }));
    assert_eq!(watched.count("/messages/errors_by_code/too_many_subscriptions").await, 1);
    // Subscribing again to a channel does not count twice; unsubscribing makes room.
    client.send(&json!({ "type": "subscribe", "channels": ["zone:z1"] })).await;
    assert_eq!(client.next().await["type"], "subscribed");
    client.send(&json!({ "type": "unsubscribe", "channels": ["zone:z2"] })).await;
    assert_eq!(client.next().await["type"], "unsubscribed");
    client.send(&json!({ "type": "subscribe", "channels": ["zone:z129"] })).await;
    assert_eq!(client.next().await["channel"], "zone:z129");
    watched.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_post_gets_its_problem() {
    let mut config = config();
    config.http.body_bytes_max = 4_096;
    config.http.line_bytes_max = 1_024;
    let watched = Watched::start(config).await;
    let good = r#"{"key":"A","price":1}"#;
    let long_line = format!("{good}\n{{\"key\":\"A\",\"price\":1,\"n\":\"{}\"}}\n", "x".repeat(1_024));
    let large = format!("[{}]", vec![good; 300].join(","));
    let third = |bad: &str| format!("{good}\n{good}\n{bad}\n{good}\n");
    let (bad_3, reserved_3, nan_3) =
        (third("{"), third(r#"{"key":"A","price":1,"id":5}"#), third(r#"{"key":"A","price":NaN}"#));
    let array = format!(r#"[{good},{{"key":"A"}}]"#);
    let deep = format!(r#"{{"key":"A","price":1,"n":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let (deep_array, deep_3) = (format!("[{good},{deep}]"), third(&deep));
    let no_utf8 = [b"{\"key\":\"", &b"\xff"[..], b"\",\"price\":1}"].concat();
    let cases: &[(&str, &[u8], u16, &str, Value)] = &[
        (JSON, b"", 400, "invalid_json", json!({})),
        (JSON, b"{", 400, "invalid_json", json!({})),
        (JSON, b"[{]", 400, "invalid_json", json!({})),
        (JSON, br#"{"key":"A","price":NaN}"#, 400, "invalid_json", json!({})),
        (JSON, br#"{"key":"A","price":-Infinity}"#, 400, "invalid_json", json!({})),
        (JSON, &no_utf8, 400, "invalid_utf8", json!({})),
        (JSON, b"5", 422, "invalid_price", json!({})),
        (JSON, br#"{"key":"A","price":1e999}"#, 400, "invalid_json", json!({})),
        (JSON, br#"{"key":"A","price":"5"}"#, 422, "invalid_price", json!({})),
        (JSON, br#"{"price":5}"#, 422, "invalid_key", json!({})),
        (JSON, br#"{"key":"A","price":1,"type":"x"}"#, 422, "reserved_field", json!({})),
        (JSON, br#"{"key":"A","price":1,"channel":"x"}"#, 422, "reserved_field", json!({})),
        (JSON, br#"{"key":"A","price":1,"offset":1}"#, 422, "reserved_field", json!({})),
        (JSON, br#"{"key":"A","price":1,"id":1}"#, 422, "reserved_field", json!({})),
        (JSON, br#"{"key":"A","price":1,"timestamp":"soon"}"#, 422, "invalid_timestamp", json!({})),
        (
            JSON,
            br#"{"key":"A","price":1,"timestamp":"2199-01-01T00:00:00Z"}"#,
            422,
            "invalid_timestamp",
            json!({}),
        ),
        (JSON, br#"{"key":"A","price":1,"n":"\ud800"}"#, 400, "invalid_json", json!({})),
        (JSON, deep.as_bytes(), 400, "invalid_json", json!({})),
        (JSON, deep_array.as_bytes(), 422, "invalid_json", json!({ "index": 1 })),
        (LINES, deep_3.as_bytes(), 422, "invalid_json", json!({ "accepted": 2, "line": 3 })),
        (JSON, array.as_bytes(), 422, "invalid_price", json!({ "index": 1 })),
        (JSON, large.as_bytes(), 413, "body_too_large", json!({})),
        (LINES, bad_3.as_bytes(), 422, "invalid_json", json!({ "accepted": 2, "line": 3 })),
        (LINES, reserved_3.as_bytes(), 422, "reserved_field", json!({ "accepted": 2, "line": 3 })),
        (LINES, nan_3.as_bytes(), 422, "invalid_json", json!({ "accepted": 2, "line": 3 })),
        (LINES, long_line.as_bytes(), 413, "line_too_large", json!({ "accepted": 1, "line": 2 })),
        (LINES, &[b'x'; 3_000], 413, "line_too_large", json!({ "accepted": 0, "line": 1 })),
        ("text/plain", good.as_bytes(), 415, "unsupported_media_type", json!({})),
        ("application/x-www-form-urlencoded", good.as_bytes(), 415, "unsupported_media_type", json!({})),
        ("", good.as_bytes(), 415, "unsupported_media_type", json!({})),
    ];
    let refused = watched.count("/http/price_requests_refused").await;
    let mut accepted = 0;
    for (content_type, body, status, code, more) in cases {
        let answer = watched.gateway.post("pjm", content_type, body).await;
        let problem = answer.problem(*status, code);
        for name in ["accepted", "line", "index"] {
            assert_eq!(problem.get(name), more.get(name), "{name} of {answer:?}");
        }
        accepted += more.get("accepted").and_then(Value::as_u64).unwrap_or_default();
    }
    let counted = watched.count("/http/price_requests_refused").await - refused;
    assert_eq!(counted, cases.len() as u64, "each is counted");
    let history = watched.gateway.get("/api/zones/pjm/history").await.json();
    assert_eq!(history["entries"].as_array().unwrap().len() as u64, accepted, "no more than was said");

    for zone in ["a%20b", "%2e%2e%2fx", "z%C3%BCrich", "a*", &"z".repeat(65), "%ff"] {
        watched.gateway.post(zone, JSON, good.as_bytes()).await.problem(400, "invalid_name");
        is_refused(&watched, &format!("/ws/market/{zone}"), "invalid_channel").await;
    }
    for query in ["since=nonsense", "since=", "since=a:1&since=a:2", "since=%ff"] {
        is_refused(&watched, &format!("/ws/market/pjm?{query}"), "invalid_position").await;
    }
    watched.finish().await;
}

/// Checks that a WebSocket with an invalid address gets an error that says why, and is told not to reconnect.
async fn is_refused(watched: &Watched, path: &str, code: &str) {
    let (errors, closes) =
        (format!("/messages/errors_by_code/{code}"), "/connections/closed_by_reason/bad_request");
    let before = (watched.count(&errors).await, watched.count(closes).await);
    let mut socket = RawSocket::open(watched.address(), path).await;
    let (texts, number) = socket.until_close().await;
    let [error, closing] = &texts[..] else { panic!("{path}: {texts:?}") };
    let (error, closing): (Value, Value) =
        (serde_json::from_str(error).unwrap(), serde_json::from_str(closing).unwrap());
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{path}: {error}");
    assert_eq!((&error["temporary"], error.get("channel")), (&json!(false), None), "{path}: {error}");
    assert_eq!((number, &closing["reason"]), (4502, &json!("bad_request")), "{path}");
    assert_eq!(closing.get("retry_after_ms"), None, "{path}");
    drop(socket);
    until_stat(&watched.gateway, closes, before.1 + 1).await;
    assert_eq!(watched.count(&errors).await, before.0 + 1, "{path}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_zone_or_key_too_many_is_refused() {
    let mut config = config();
    config.channels.zones_max = 2;
    config.channels.keys_per_zone_max = 3;
    let watched = Watched::start(config).await;
    let gateway = &watched.gateway;
    gateway.publish("a", [price("A", 1), price("B", 1)]).await;
    let one = price("A", 1).to_string();
    gateway.post("b", JSON, one.as_bytes()).await.problem(422, "too_many_zones");
    gateway.post("b", LINES, one.as_bytes()).await.problem(422, "too_many_zones");

    let keys = |keys: &[&str]| keys.iter().map(|key| price(key, 2)).collect::<Vec<_>>();
    let array = Value::from(keys(&["A", "C", "D"])).to_string();
    let problem = gateway.post("a", JSON, array.as_bytes()).await.problem(422, "too_many_keys");
    assert_eq!((&problem["accepted"], &problem["index"]), (&json!(0), &json!(2)), "all or nothing");
    let lines: Vec<String> = keys(&["A", "C", "D", "A"]).iter().map(Value::to_string).collect();
    let problem = gateway.post("a", LINES, lines.join("\n").as_bytes()).await.problem(422, "too_many_keys");
    assert_eq!((&problem["accepted"], &problem["line"]), (&json!(2), &json!(3)), "up to the line at fault");
    gateway.publish("a", keys(&["A", "B", "C"])).await;

    // Twice as many channels as permitted zones may be subscribed to.
    let mut client = gateway.client().await;
    client.send(&json!({ "type": "subscribe", "channels": ["zone:c", "zone:d"] })).await;
    for _ in 0..2 {
        assert_eq!(client.next().await["type"], "subscribed");
    }
    client.send(&json!({ "type": "subscribe", "channels": ["zone:e"] })).await;
    let error = client.next().await;
    assert_eq!((&error["code"], &error["channel"]), (&json!("too_many_zones"), &json!("zone:e")));
    assert_eq!(watched.count("/messages/errors_by_code/too_many_zones").await, 1);
    drop(client);
    watched.finish().await;
}

/// Sends raw bytes, and reads the answer; `None` if the connection is closed without one.
async fn send(address: SocketAddr, bytes: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _refused = stream.write_all(bytes).await;
    read_answer(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_upgrade_gets_its_problem() {
    let watched = Watched::start(config()).await;
    let good = upgrade("/ws/market/pjm");
    let cases = [
        ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 8\r\n", 426, "unsupported_version"),
        ("Sec-WebSocket-Version: 13\r\n", "", 426, "unsupported_version"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "invalid_websocket_key"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400, "invalid_websocket_key"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "!!!!!!!!!!!!!!!!!!!!!!==", 400, "invalid_websocket_key"),
        ("Upgrade: websocket\r\n", "", 426, "upgrade_required"),
        ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n", 426, "upgrade_required"),
        ("Connection: Upgrade\r\n", "Connection: close\r\n", 426, "upgrade_required"),
        ("GET ", "POST ", 405, "method_not_allowed"),
        (
            "Host: localhost\r\n",
            "Host: localhost\r\nOrigin: https://evil.example\r\n",
            403,
            "origin_not_allowed",
        ),
        ("Host: localhost\r\n", "Host: localhost\r\nOrigin: null\r\n", 403, "origin_not_allowed"),
        ("/ws/market/pjm", "/ws/market", 404, "not_found"),
        ("/ws/market/pjm", "/ws/market/pjm/x", 404, "not_found"),
    ];
    for (from, to, status, code) in cases {
        let head = good.replacen(from, to, 1);
        assert_ne!(head, good);
        let answer = send(watched.address(), head.as_bytes()).await.unwrap();
        answer.problem(status, code);
        if status == 426 {
            assert!(answer.head.contains("sec-websocket-version: 13"), "{answer:?}");
        }
    }
    assert_eq!(watched.count("/connections/total").await, 1, "the witness only");
    watched.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_listed_origins_may_connect() {
    let mut config = config();
    config.http.origins = vec!["https://desk.example".to_owned()];
    let watched = Watched::start(config).await;
    for (origin, status) in
        [("https://desk.example", 101), ("http://localhost", 101), ("https://desk.example.evil.example", 403)]
    {
        let head = upgrade("/ws").replacen("Host:", &format!("Origin: {origin}\r\nHost:"), 1);
        let answer = send(watched.address(), head.as_bytes()).await.unwrap_or_else(|| panic!("{origin}"));
        assert_eq!(answer.status, status, "{origin}");
    }
    watched.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_request_close_the_connection_and_are_counted() {
    let mut config = config();
    config.http.head_timeout_ms = 300;
    let watched = Watched::start(config).await;
    let large_head = format!("GET /ws HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let cases: &[(&str, &[u8])] = &[
        ("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 what is this?\r\n\r\n"),
        ("another protocol", b"PING\r\n"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("a large head", large_head.as_bytes()),
        ("half a head", b"GET /ws/market/pjm HTTP/1.1\r\nHost: localhost\r\nConnec"),
        ("a head without its end", b"GET /ws HTTP/1.1\r\nHost: localhost\r\n"),
        ("nothing", b""),
    ];
    for (what, bytes) in cases {
        let before = watched.count("/http/bad_requests").await;
        let mut stream = TcpStream::connect(watched.address()).await.unwrap();
        let _refused = stream.write_all(bytes).await;
        // The client keeps its side open; the gateway closes the connection.
        if let Some(answer) = read_answer(&mut stream).await {
            assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        }
        until_stat(&watched.gateway, "/http/bad_requests", before + 1).await;
    }
    // Sending a byte now and then does not prolong the deadline of a head.
    let before = watched.count("/http/bad_requests").await;
    let mut drip = TcpStream::connect(watched.address()).await.unwrap();
    let mut pace = time::interval(Duration::from_millis(20));
    let dripping = async {
        loop {
            pace.tick().await;
            if drip.write_all(b"G").await.is_err() {
                return;
            }
        }
    };
    time::timeout(LIMIT, dripping).await.expect("a head that drips is cut");
    until_stat(&watched.gateway, "/http/bad_requests", before + 1).await;
    watched.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_refused_until_others_close() {
    let mut config = config();
    config.connections.max = 3;
    config.connections.close_grace_ms = 3_600_000;
    let watched = Watched::start(config).await;
    let (first, _) = watched.gateway.market("pjm").await;
    let (second, _) = watched.gateway.market("pjm").await;
    // A limited number are refused over the socket; further ones, and requests to other addresses, over HTTP.
    for path in ["/ws", "/ws/market/pjm", "/ws/market/a%20b"] {
        RawSocket::open(watched.address(), path).await.assert_turned_away(4005, "too_many_connections").await;
    }
    until_stat(&watched.gateway, "/connections/total_disconnections", 3).await;
    let mut told = Vec::new();
    for _ in 0..64 {
        told.push(RawSocket::open(watched.address(), "/ws").await);
    }
    let answer = send(watched.address(), upgrade("/ws").as_bytes()).await.unwrap();
    answer.problem(503, "too_many_connections");
    assert!(answer.head.contains("retry-after: "), "{answer:?}");
    assert_eq!(watched.count("/connections/refused_by_limit/full").await, 68);
    assert_eq!(watched.count("/connections/closed_by_reason/too_many_connections").await, 3);
    drop(told);
    until_stat(&watched.gateway, "/connections/total_disconnections", 67).await;
    first.close().await;
    until_stat(&watched.gateway, "/connections/total_disconnections", 68).await;
    let (mut third, _) = watched.gateway.market("pjm").await;
    assert_eq!(third.until_pong().await, [] as [Value; 0]);
    drop((second, third));
    watched.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_beyond_the_limit_are_refused() {
    let gateway = Running::changed(config(), |config| config.connections.per_loopback_address_max = 12).await;
    let (mut witness, _) = gateway.market("pjm").await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(RawSocket::open(gateway.address, "/ws").await);
    }
    // This is the twelfth connection; the thirteenth is refused.
    let twelfth = RawSocket::open(gateway.address, "/ws").await;
    let refused = gateway.get("/ws/stats").await;
    refused.problem(429, "too_many_connections_from_address");
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    drop(twelfth);
    held.truncate(5);
    publish_when_there_is_room(gateway.address).await;
    assert_eq!(witness.prices(1).await[0]["price"], 1);
    let stats = gateway.stats().await;
    assert!(stats["connections"]["refused_by_limit"]["address"].as_u64().unwrap() >= 1);
    assert!(stats["http"]["refused"].as_u64().unwrap() >= 1);
}

async fn publish_when_there_is_room(address: SocketAddr) {
    let body = price("A", 1).to_string();
    let request = format!(
        "POST /api/zones/pjm/prices HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {JSON}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let deadline = time::Instant::now() + LIMIT;
    while send(address, request.as_bytes()).await.is_none_or(|answer| answer.status != 200) {
        assert!(time::Instant::now() < deadline, "places come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_half_a_body_only_complete_lines_are_accepted() {
    let watched = Watched::start(config()).await;
    let (mut reader, _) = watched.gateway.market("pjm").await;
    let refused = watched.count("/http/price_requests_refused").await;
    // Half a JSON body: nothing is accepted.
    let mut stream = TcpStream::connect(watched.address()).await.unwrap();
    let head = format!(
        "POST /api/zones/pjm/prices HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: 1000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(br#"[{"key":"A","price":1}"#).await.unwrap();
    drop(stream);
    // A complete line and half of another: the complete one is accepted.
    let mut lines = Lines::open(watched.address(), "pjm").await;
    lines.send("{\"key\":\"A\",\"price\":2}\n{\"key\":\"A\",\"pri").await;
    assert_eq!(reader.prices(1).await[0]["price"], 2);
    drop(lines);
    until_stat(&watched.gateway, "/http/price_requests_refused", refused + 2).await;
    assert_eq!(post(watched.address(), "pjm", JSON, price("A", 3).to_string().as_bytes()).await.status, 200);
    assert_eq!(reader.prices(1).await[0]["price"], 3);
    drop(reader);
    watched.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_at_any_byte_of_its_upgrade_does_no_harm() {
    let watched = Watched::start(config()).await;
    let whole = [upgrade("/ws/market/pjm").into_bytes(), masked(0x81, br#"{"type":"ping"}"#)].concat();
    for end in (0..=whole.len()).step_by(5) {
        let mut stream = TcpStream::connect(watched.address()).await.unwrap();
        stream.write_all(&whole[..end]).await.unwrap();
        drop(stream);
    }
    until_stat(&watched.gateway, "/http/accepted", whole.len() as u64 / 5).await;
    until("only the witness is left", async || watched.count("/connections/open").await == 1).await;
    watched.finish().await;
}
