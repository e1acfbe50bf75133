//! The limits on connections of strangers, and the addresses that answer whatever strangers do.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time;

use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Answer, LINES, Lines, Running, config, metric, price, read_answer, request};
use crate::support::process::{Process, serve_within};
use crate::support::raw::{RawSocket, upgrade};

/// The addresses that must always answer.
const TOLD: [&str; 6] =
    ["/health", "/health/live", "/health/ready", "/ws/health", "/api/ws/ws/health", "/metrics"];

/// A request on a new connection; `None` if it is closed without an answer.
async fn ask(address: SocketAddr, head: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The gateway may have refused it already, which the answer shows.
    let _refused = stream.write_all(head.as_bytes()).await;
    read_answer(&mut stream).await
}

async fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")).await
}

/// Whether a WebSocket is accepted.
async fn is_let_in(address: SocketAddr, head: &str) -> bool {
    match RawSocket::open_with(address, head).await.greeting().await["type"].as_str() {
        Some("connection_established") => true,
        Some("closing") => false,
        other => panic!("{other:?}"),
    }
}

async fn assert_told(address: SocketAddr) {
    for path in TOLD {
        let answer = get(address, path).await.unwrap_or_else(|| panic!("no answer to {path}"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_body_is_ended_and_its_earlier_lines_count() {
    let gateway = Running::changed(config(), |config| config.http.body_idle_s = 1).await;
    let mut lines = Lines::open(gateway.address, "pjm").await;
    lines.send(&format!("{}\n{}\n{{", price("A", 1), price("A", 2))).await;
    let problem = lines.answer().await.problem(408, "body_timeout");
    assert_eq!((&problem["accepted"], &problem["line"]), (&2.into(), &3.into()), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("every 1s"), "{detail}");
}

/// Starts a request that posts prices to `pjm`, and sends this part of its body.
async fn post_slowly(address: SocketAddr, len: usize, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /api/zones/pjm/prices HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {len}\r\n\r\n"
    );
    // The gateway may refuse it before everything is sent.
    let _refused = stream.write_all(format!("{head}{body}").as_bytes()).await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn the_total_of_bodies_being_read_is_bounded_and_released() {
    const MIB: usize = 1 << 20;
    let gateway = Running::changed(config(), |config| config.http.bodies_bytes_max = 2 * MIB).await;
    let address = gateway.address;
    let held = async |bytes: usize| {
        let what = format!("the bodies hold {bytes} bytes");
        let bytes = u64::try_from(bytes).unwrap();
        until(&what, async || metric(address, "zonewire_body_bytes").await == bytes).await;
    };
    let begun = format!("[{}{}", price("A", 1), " ".repeat(900_000));
    let rest = |of: &str| format!("{}]", " ".repeat(MIB - of.len() - 1));
    let broken_off = post_slowly(address, MIB, &begun).await;
    let mut good = post_slowly(address, MIB, &begun).await;
    held(2 * begun.len()).await;

    // There is no room for another one, except for small ones.
    let mut others = Vec::new();
    for _ in 0..10 {
        others.push(post_slowly(address, MIB, &begun).await);
    }
    assert_told(address).await;
    for stream in &mut others {
        let refused = read_answer(stream).await.unwrap();
        refused.problem(503, "busy");
        assert!(refused.head.contains("retry-after: 1"), "{refused:?}");
    }
    gateway.publish("pjm", [price("B", 1)]).await;
    held(2 * begun.len()).await;
    assert_eq!(metric(address, "zonewire_requests_refused_total{reason=\"busy\"}").await, 10);

    // Bodies that break off and bodies that end release their room.
    drop(broken_off);
    held(begun.len()).await;
    let mut other = post_slowly(address, MIB, &begun).await;
    held(2 * begun.len()).await;
    for stream in [&mut good, &mut other] {
        stream.write_all(rest(&begun).as_bytes()).await.unwrap();
        assert_eq!(read_answer(stream).await.unwrap().status, 200);
    }
    held(0).await;

    // Lines that have been processed take no room.
    let line = |n| json!({ "key": "B", "price": n, "note": "x".repeat(1_000) });
    let lines: String = (1..=3_000).map(|n| format!("{}\n", line(n))).collect();
    assert!(lines.len() > 2 * MIB);
    let accepted = gateway.post("pjm", LINES, lines.as_bytes()).await;
    assert_eq!((accepted.status, &accepted.json()["accepted"]), (200, &3_000.into()), "{accepted:?}");
    held(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_connections_health_and_metrics_still_answer() {
    let mut config = config();
    config.connections.tcp_max = 3;
    // Connections end only when this test ends them.
    config.http.head_timeout_ms = 3_600_000;
    let gateway = Running::start(config).await;
    let address = gateway.address;
    let _web_socket = RawSocket::open(address, "/ws").await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
        idle.push(stream);
    }
    let refused = get(address, "/api/zones").await.unwrap();
    refused.problem(503, "too_many_connections");
    assert!(refused.head.contains("retry-after: 1"), "{refused:?}");
    assert_told(address).await;
    // Silent connections do not block those addresses either.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert_told(address).await;
    // Each of the shards' threads accepts its own.
    let refused = "zonewire_connections_refused_total{limit=\"tcp\"}";
    until("all are counted", async || metric(address, refused).await > 100).await;
    assert_eq!(metric(address, "zonewire_tcp_connections").await, 3);

    drop((idle, silent));
    eventually("there is room again", async || {
        get(address, "/api/zones").await.filter(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_connects_too_often_is_refused_with_answers_up_to_a_rate() {
    let mut config = config();
    config.connections.loopback_connects_per_s = 1;
    config.connections.connects_burst = 5;
    config.http.refusals_per_s = 2;
    let gateway = Running::start(config).await;
    let address = gateway.address;
    let refused = eventually("one is refused", async || {
        get(address, "/api/zones").await.filter(|answer| answer.status != 200)
    })
    .await;
    refused.problem(429, "connecting_too_often");
    assert!(refused.head.contains("retry-after: 1"), "{refused:?}");
    until("one is closed without a word", async || get(address, "/api/zones").await.is_none()).await;
    let health = eventually("health is among what is answered", async || get(address, "/health").await).await;
    assert_eq!(health.status, 200);
    let unanswered = eventually("it can be counted", async || {
        let answer = get(address, "/metrics").await?;
        let count = |name: &str| {
            let line = answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            line.parse::<u64>().ok()
        };
        let refused = count("zonewire_connections_refused_total{limit=\"rate\"}")?;
        assert_eq!(count("zonewire_tcp_refused_total")?, refused);
        Some((count("zonewire_tcp_refused_unanswered_total")?, refused))
    })
    .await;
    assert!((1..unanswered.1).contains(&unanswered.0), "{unanswered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_a_limited_number_of_connections() {
    let gateway = Running::changed(config(), |config| config.connections.per_loopback_address_max = 2).await;
    let held = [RawSocket::open(gateway.address, "/ws").await, RawSocket::open(gateway.address, "/ws").await];
    let refused = get(gateway.address, "/api/zones").await.unwrap();
    let problem = refused.problem(429, "too_many_connections_from_address");
    assert!(problem["detail"].as_str().unwrap().contains("as many connections as allowed"), "{problem}");
    let socket = RawSocket::open(gateway.address, "/ws").await;
    socket.assert_turned_away(4005, "too_many_connections").await;
    // An invalid request is not a WebSocket, and a page of a foreign origin learns nothing else.
    let head = upgrade("/ws");
    let foreign = head.replacen("Host:", "Origin: https://evil.example\r\nHost:", 1);
    ask(gateway.address, &foreign).await.unwrap().problem(403, "origin_not_allowed");
    let wrong = head.replacen("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 1);
    ask(gateway.address, &wrong).await.unwrap().problem(429, "too_many_connections_from_address");
    drop(held);
    until("they are given back", async || is_let_in(gateway.address, &head).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_trusted_proxies_the_forwarded_address_counts() {
    let mut config = config();
    config.http.trusted_proxies = vec!["127.0.0.1".to_owned(), "10.0.0.0/8".to_owned()];
    config.connections.per_address_max = 2;
    config.connections.per_loopback_address_max = 1;
    let gateway = Running::start(config).await;
    let address = gateway.address;
    let head = |path: &str, from: &str| {
        upgrade(path).replace("\r\n\r\n", &format!("\r\nX-Forwarded-For: {from}\r\n\r\n"))
    };
    let open = async |from: &str| RawSocket::open_with(address, &head("/ws", from)).await;
    let mut held = Vec::new();
    for from in
        ["198.51.100.1", "evil, 198.51.100.1, 10.0.0.8", "2001:db8::1", "2001:db8::ffff:1", "198.51.100.2"]
    {
        let mut socket = open(from).await;
        assert_eq!(socket.greeting().await["type"], "connection_established", "{from}");
        held.push(socket);
    }
    for from in ["198.51.100.1", "198.51.100.1:443, 10.0.0.9", "198.51.100.2, 198.51.100.1", "2001:db8::2"] {
        open(from).await.assert_turned_away(4005, "too_many_connections").await;
        let answer = request(address, "GET", "/api/zones", &[("x-forwarded-for", from)], b"").await;
        answer.problem(429, "too_many_connections_from_address");
        let health = request(address, "GET", "/health", &[("x-forwarded-for", from)], b"").await;
        assert_eq!(health.status, 200);
    }
    let answer = request(address, "GET", "/api/zones", &[("x-forwarded-for", "198.51.100.3")], b"").await;
    assert_eq!(answer.status, 200);
    held.clear();
    let again = head("/ws", "198.51.100.1");
    until("they are given back", async || is_let_in(address, &again).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_trusted_proxies_each_client_has_its_own_rate_of_connects() {
    let mut config = config();
    config.http.trusted_proxies = vec!["127.0.0.1".to_owned()];
    (config.connections.connects_per_s, config.connections.connects_burst) = (1, 3);
    let gateway = Running::start(config).await;
    let from =
        |from: &str| upgrade("/ws").replace("\r\n\r\n", &format!("\r\nX-Forwarded-For: {from}\r\n\r\n"));
    let again = from("198.51.100.1");
    let closing = eventually("one is refused", async || {
        let greeting = RawSocket::open_with(gateway.address, &again).await.greeting().await;
        (greeting["type"] == "closing").then_some(greeting)
    })
    .await;
    assert_eq!((&closing["code"], &closing["reason"]), (&json!(4004), &json!("rate_limited")));
    assert!(is_let_in(gateway.address, &from("198.51.100.2")).await);
    // Requests without an upgrade do not count as connects, since a proxy reuses its connections.
    for _ in 0..10 {
        let answer = request(gateway.address, "GET", "/", &[("x-forwarded-for", "198.51.100.3")], b"").await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_answers_while_descriptors_are_exhausted() {
    // Connections end only when this test ends them.
    let settings = ["http.shards=2", "http.head_timeout_ms=3600000"];
    let process = Process::start_command(serve_within("ulimit -n 200", &settings)).await;
    let address = process.address;
    let mut held = Vec::new();
    until("no more are let in", async || {
        for _ in 0..10 {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        get(address, "/api/zones").await.is_some_and(|answer| answer.status == 503)
    })
    .await;
    assert_told(address).await;

    // Now leave no descriptor free: connections take all below this limit, except for those that the threads
    // opened at their start and keep in reserve. They have them still, since none was needed so far.
    let held_files = usize::try_from(metric(address, "zonewire_tcp_connections").await).unwrap();
    assert_eq!(metric(address, "zonewire_tcp_accept_failures_total").await, 0);
    process.limit_files(held_files - 10).await;
    for path in TOLD {
        let answered = eventually(path, async || {
            time::timeout(Duration::from_secs(5), get(address, path)).await.ok().flatten()
        });
        assert_eq!(answered.await.status, 200, "{path}");
    }
    let failures = metric(address, "zonewire_tcp_accept_failures_total").await;
    assert!(failures > 0);

    drop(held);
    eventually("there is room again", async || {
        get(address, "/api/zones").await.filter(|answer| answer.status == 200)
    })
    .await;
}
