//! The gateway's own TLS, with real sockets.

use std::fs;
use std::path::Path;

use rustls::HandshakeKind;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;
use zonewire::gateway::{Gateway, StartError};
use zonewire_kit::certificates::Certificates;

use crate::support::client::LIMIT;
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{LINES, Running, price, request};
use crate::support::redis::certificates;
use crate::support::tls::{Secure, ask, config_with, connect, over, trusting};

pub(crate) fn replace(certificates: &Certificates, with: &Path) {
    let name = with.file_name().unwrap().to_str().unwrap();
    fs::copy(with, certificates.file(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sockets_and_streams_work_over_tls() {
    let Some(certificates) = certificates() else { return };
    let gateway = Running::start(config_with(&certificates)).await;
    let connector = trusting(&[&certificates]);
    let mut http = connect(&connector, gateway.address).await;
    assert_eq!(http.get_ref().1.alpn_protocol(), None);
    let health = ask(&mut http, "GET", "/health", &[], "").await.json();
    assert_eq!(health["tls"]["files"], "fresh", "{health}");
    assert!(health["tls"]["expires_at"].is_string());

    let mut market = Secure::open(&connector, gateway.address, "/ws/market/pjm").await;
    market.next_of_type("subscribed").await;
    let mut events = connect(&connector, gateway.address).await;
    events.write_all(b"GET /sse?channels=zone:pjm HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let mut chunk = vec![0; 4_096];
    let mut until = async |what: &str| {
        while !text.contains(what) {
            let read = time::timeout(LIMIT, events.read(&mut chunk)).await.expect("in time").unwrap();
            assert!(read > 0, "{text}");
            text += &String::from_utf8_lossy(&chunk[..read]);
        }
    };
    until("subscribed").await;

    let line = price("A", 7).to_string();
    let posted = ask(&mut http, "POST", "/api/zones/pjm/prices", &[("content-type", LINES)], &line).await;
    assert_eq!((posted.status, posted.json()["accepted"].as_u64()), (200, Some(1)));
    let came = market.next_of_type("price_update").await;
    assert_eq!(came["offset"], 1, "{came}");
    until("price_update").await;

    let order = json!({ "tokenIn": "A", "tokenOut": "B", "amount": 1 }).to_string();
    let kind = [("content-type", "application/json")];
    let placed = ask(&mut http, "POST", "/api/orders/execute", &kind, &order).await.json();
    assert!(placed["wsUrl"].as_str().is_some_and(|url| url.starts_with("wss://localhost/")), "{placed}");
    let metrics = ask(&mut http, "GET", "/metrics", &[], "").await.body;
    assert!(metrics.contains("zonewire_tls_handshakes_total 3"), "{metrics}");
    let left = metrics.lines().find_map(|line| line.strip_prefix("zonewire_tls_certificate_left_seconds "));
    assert!((86_400.0..=172_800.0).contains(&left.unwrap().parse::<f64>().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_reader_gets_everything_in_order() {
    let Some(certificates) = certificates() else { return };
    let gateway = Running::start(config_with(&certificates)).await;
    let connector = trusting(&[&certificates]);
    let mut slow = Secure::open_small(&connector, gateway.address, "/ws/market/pjm").await;
    slow.next_of_type("subscribed").await;
    let mut http = connect(&connector, gateway.address).await;
    let padding = "x".repeat(200);
    for group in 0..10_u64 {
        let of_group =
            |n: u64| json!({ "key": format!("k{n}"), "price": n, "location": padding }).to_string();
        let lines: Vec<String> = (group * 20..(group + 1) * 20).map(of_group).collect();
        let kind = [("content-type", LINES)];
        let posted = ask(&mut http, "POST", "/api/zones/pjm/prices", &kind, &lines.join("\n")).await;
        assert_eq!(posted.status, 200, "{posted:?}");
    }
    let waits = async || {
        let stats = ask(&mut http, "GET", "/ws/stats", &[], "").await.json();
        let list = stats["connection_list"].as_array().unwrap().clone();
        list.iter().any(|listed| listed["waiting_messages"].as_u64() > Some(0)).then_some(())
    };
    eventually("it falls behind", waits).await;
    for expected in 1..=200 {
        assert_eq!(slow.next_of_type("price_update").await["offset"], expected);
    }
    slow.send(&json!({ "type": "ping", "id": 7 })).await;
    assert_eq!(slow.next_of_type("pong").await["id"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_without_closing_sockets_and_a_bad_one_is_not() {
    let (Some(one), Some(two)) = (certificates(), certificates()) else { return };
    let gateway = Running::start(config_with(&one)).await;
    let (of_one, of_two) = (trusting(&[&one]), trusting(&[&two]));
    let mut open = Secure::open(&of_one, gateway.address, "/ws/market/pjm").await;
    open.next_of_type("subscribed").await;
    let both = trusting(&[&one, &two]);
    let reloads = async |result: &str| {
        let stats = ask(&mut connect(&both, gateway.address).await, "GET", "/ws/stats", &[], "").await.json();
        stats["http"]["tls"]["reloads_by_result"][result].as_u64().unwrap()
    };

    // A certificate without its key is reported, and the previous pair stays in effect.
    let key = fs::read(one.file("server.key")).unwrap();
    replace(&one, &two.file("server.pem"));
    until("it is told", async || reloads("failed").await == 1).await;
    let mut http = connect(&of_one, gateway.address).await;
    let health = ask(&mut http, "GET", "/health", &[], "").await.json();
    assert_eq!(health["tls"]["files"], "stale");
    fs::write(one.file("server.key"), &key[..key.len() / 2]).unwrap();
    until("half a key too", async || reloads("failed").await == 2).await;
    assert!(over(&of_two, TcpStream::connect(gateway.address).await.unwrap()).await.is_err());

    replace(&one, &two.file("server.key"));
    until("it is taken", async || reloads("good").await == 1).await;
    connect(&of_two, gateway.address).await;
    // Without an earlier session, in which no certificate is shown.
    let newcomer = TcpStream::connect(gateway.address).await.unwrap();
    assert!(over(&trusting(&[&one]), newcomer).await.is_err());
    let health = ask(&mut http, "GET", "/health", &[], "").await.json();
    assert_eq!(health["tls"]["files"], "fresh");

    // Existing connections stay open.
    let line = price("A", 1).to_string();
    ask(&mut http, "POST", "/api/zones/pjm/prices", &[("content-type", LINES)], &line).await;
    assert_eq!(open.next_of_type("price_update").await["offset"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_link_to_the_certificates_folder_is_noticed() {
    let (Some(one), Some(two)) = (certificates(), certificates()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("..data");
    std::os::unix::fs::symlink(one.file("server.pem").parent().unwrap(), &link).unwrap();
    let mut config = config_with(&one);
    config.http.tls.cert_file = Some(link.join("server.pem"));
    config.http.tls.key_file = Some(link.join("server.key"));
    let gateway = Running::start(config).await;
    connect(&trusting(&[&one]), gateway.address).await;
    // As Kubernetes does it: a new link replaces the old one.
    let next = dir.path().join("..data_tmp");
    std::os::unix::fs::symlink(two.file("server.pem").parent().unwrap(), &next).unwrap();
    fs::rename(&next, &link).unwrap();
    let of_two = trusting(&[&two]);
    let is_new = async || over(&of_two, TcpStream::connect(gateway.address).await.unwrap()).await.ok();
    eventually("the new one is shown", is_new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_can_be_resumed() {
    let Some(certificates) = certificates() else { return };
    let gateway = Running::start(config_with(&certificates)).await;
    let connector = trusting(&[&certificates]);
    let mut first = connect(&connector, gateway.address).await;
    // Session tickets arrive before the answer.
    ask(&mut first, "GET", "/health", &[], "").await;
    let mut again = connect(&connector, gateway.address).await;
    assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let stats = ask(&mut again, "GET", "/ws/stats", &[], "").await.json();
    assert_eq!(stats["http"]["tls"]["resumed"], 1, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_valid_tls_are_answered_or_closed_and_counted() {
    let Some(certificates) = certificates() else { return };
    let gateway =
        Running::changed(config_with(&certificates), |config| config.http.head_timeout_ms = 2_000).await;
    let connector = trusting(&[&certificates]);
    let failed = async |reason: &str| {
        let mut http = connect(&connector, gateway.address).await;
        let stats = ask(&mut http, "GET", "/ws/stats", &[], "").await.json();
        stats["http"]["tls"]["failed_by_reason"][reason].as_u64().unwrap()
    };
    let plain = request(gateway.address, "GET", "/health", &[], b"").await;
    let problem = plain.problem(400, "tls_required");
    assert!(problem["detail"].as_str().unwrap().contains("https://"), "{problem}");

    let ends = async |said: &[u8]| {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        // It may be cut off, which is an end too.
        let _cut = time::timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an end in time");
    };
    ends(b"\x00\x01\x02\x03").await;
    ends(b"\x16\x03\x01\x00\x05hello").await;
    // The beginning of a valid client message, and no more.
    ends(b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03").await;
    let stranger = TcpStream::connect(gateway.address).await.unwrap();
    let Some(others) = crate::support::redis::certificates() else { return };
    assert!(over(&trusting(&[&others]), stranger).await.is_err());
    for (reason, count) in [("plain", 1), ("garbage", 2), ("timeout", 1), ("alert", 1)] {
        until(reason, async || failed(reason).await == count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_does_not_start_with_an_invalid_certificate_pair() {
    let (Some(one), Some(two)) = (certificates(), certificates()) else { return };
    let mut config = config_with(&one);
    config.http.tls.key_file = Some(two.file("server.key"));
    let refused = Gateway::start(config.clone()).await.map(|_| ());
    let Err(StartError::Tls(problem)) = refused else { panic!("{refused:?}") };
    assert!(problem.contains("do not belong together"), "{problem}");
    config.http.tls.key_file = Some(two.file("nowhere.key"));
    let refused = Gateway::start(config).await.map(|_| ());
    let Err(StartError::Tls(problem)) = refused else { panic!("{refused:?}") };
    assert!(problem.contains("cannot be read"), "{problem:?}");
}
