//! Ways into a gateway besides its main listener: a Unix socket, a listener for operators, and proxies that
//! announce clients by the PROXY protocol.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time;
use zonewire::config::{Config, ProxyProtocol};
use zonewire_kit::process::Process;

use crate::support::client::LIMIT;
use crate::support::eventually::eventually;
use crate::support::gateway::{Answer, Running, config, read_answer, request};
use crate::support::program::{installed, listening, proxy};
use crate::support::raw::{RawSocket, upgrade};
use crate::support::redis::certificates;
use crate::support::tls::{ask, config_with, over, trusting};

async fn ask_unix(path: &Path, head: &str) -> Answer {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    read_answer(&mut stream).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_requests_and_is_removed_with_its_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zonewire.sock");
    let mut config = config();
    config.http.unix_socket = Some(path.clone());
    config.http.unix_socket_mode = "0600".to_owned();
    let gateway = Running::start(config.clone()).await;
    let file = fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket() && file.permissions().mode() & 0o777 == 0o600, "{file:?}");
    for _ in 0..4 {
        let answer = ask_unix(&path, "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    // A WebSocket, whose source counts as loopback; forwarding headers count only from listed proxies.
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let head = upgrade("/ws/market/pjm").replace("\r\n\r\n", "\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 101);
    let sources = async |gateway: &Running| {
        let list = gateway.stats().await["connection_list"].clone();
        let mut sources = Vec::new();
        for listed in list.as_array().unwrap() {
            let id = listed["connection_id"].as_str().unwrap();
            let story = gateway.get(&format!("/ws/stats/{id}")).await.json();
            sources.push(story["source"].as_str().unwrap_or_default().to_owned());
        }
        (!sources.is_empty()).then_some(sources)
    };
    assert_eq!(eventually("it is there", async || sources(&gateway).await).await, ["127.0.0.1"]);
    drop(stream);
    gateway.stop().await;
    assert!(!path.exists(), "it is removed with the gateway");

    config.http.trusted_proxies = vec!["unix".to_owned()];
    let gateway = Running::start(config).await;
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 101);
    assert_eq!(eventually("it is there", async || sources(&gateway).await).await, ["198.51.100.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_addresses_are_served_on_their_listener() {
    let gateway = Running::changed(config(), |config| {
        config.http.operators.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    })
    .await;
    let operators = gateway.operators.unwrap();
    for path in ["/metrics", "/ws/stats", "/api/config", "/api/registry"] {
        gateway.get(path).await.problem(404, "not_found");
        let answer = request(operators, "GET", path, &[], b"").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for path in ["/health", "/health/ready", "/", "/api/zones"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
        assert_eq!(request(operators, "GET", path, &[], b"").await.status, 200, "{path}");
    }
}

fn announced() -> Config {
    let mut config = config();
    config.http.trusted_proxies = vec!["127.0.0.1".to_owned()];
    config.http.proxy_protocol = ProxyProtocol::Required;
    config
}

/// A version 2 header for 198.51.100.1:4711.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x01\xc0\x00\x02\x09\x12\x67\x01\xbb";
const V1: &[u8] = b"PROXY TCP4 198.51.100.1 192.0.2.9 4711 443\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

const STATS: &str = "GET /ws/stats HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

async fn after(address: SocketAddr, header: &[u8], head: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(header).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    read_answer(&mut stream).await
}

async fn stats(address: SocketAddr) -> Value {
    after(address, LOCAL, STATS).await.unwrap().json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_announced_by_a_proxy_counts_as_if_it_had_connected_itself() {
    let gateway = Running::changed(announced(), |config| config.connections.per_address_max = 2).await;
    let mut held = Vec::new();
    for header in [V1, V2] {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        // One byte at a time, as a network may deliver it.
        for byte in header {
            stream.write_all(&[*byte]).await.unwrap();
        }
        stream.write_all(upgrade("/ws").as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 101);
        held.push(stream);
    }
    let third = "GET /api/zones HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let refused = after(gateway.address, V2, third).await.unwrap();
    refused.problem(429, "too_many_connections_from_address");
    // Such a client's own forwarding headers do not count.
    let forged = "GET /api/zones HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 198.51.100.9\r\n\r\n";
    after(gateway.address, V1, forged).await.unwrap().problem(429, "too_many_connections_from_address");
    let health = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(after(gateway.address, V1, health).await.unwrap().status, 200);
    let stats = stats(gateway.address).await;
    let id = stats["connection_list"][0]["connection_id"].as_str().unwrap().to_owned();
    let head = STATS.replace("/ws/stats", &format!("/ws/stats/{id}"));
    let story = after(gateway.address, b"PROXY UNKNOWN\r\n", &head).await.unwrap().json();
    assert_eq!(story["source"], "198.51.100.1");
    held.clear();
    let again = async || (after(gateway.address, V1, third).await?.status == 200).then_some(());
    eventually("they are given back", again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_proxy_header_closes_the_connection_and_is_counted() {
    let gateway = Running::changed(announced(), |config| config.http.head_timeout_ms = 2_000).await;
    let health = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for garbage in [&b""[..], b"PROXY TCP9 \r\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c"] {
        assert!(after(gateway.address, garbage, health).await.is_none(), "{garbage:?}");
    }
    let mut slow = TcpStream::connect(gateway.address).await.unwrap();
    slow.write_all(&V2[..20]).await.unwrap();
    let read = time::timeout(LIMIT, slow.read(&mut [0; 8])).await.expect("an end in time");
    assert!(read.is_err() || read.is_ok_and(|read| read == 0));
    let mut gone = TcpStream::connect(gateway.address).await.unwrap();
    gone.write_all(&V1[..9]).await.unwrap();
    drop(gone);
    let counted = async || {
        let http = &stats(gateway.address).await["http"];
        let counts = ["proxy_garbage", "proxy_timeout", "proxy_closed"].map(|name| http[name].as_u64());
        (counts == [Some(3), Some(1), Some(1)]).then_some(())
    };
    eventually("each is counted", counted).await;
    gateway.stop().await;

    // From other addresses no header is expected, and none is believed.
    let gateway =
        Running::changed(announced(), |config| config.http.trusted_proxies = vec!["192.0.2.9".to_owned()])
            .await;
    assert_eq!(after(gateway.address, b"", health).await.unwrap().status, 200);
    assert_ne!(after(gateway.address, V1, health).await.map(|answer| answer.status), Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_announces_clients_before_tls_and_before_http() {
    let (Some(()), Some(certificates)) = (installed("haproxy").await, certificates()) else { return };
    for send in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c"] {
        let mut config = config_with(&certificates);
        config.http.trusted_proxies = vec!["127.0.0.1".to_owned()];
        config.http.proxy_protocol = ProxyProtocol::Required;
        let gateway = Running::start(config).await;
        let dir = tempfile::tempdir().unwrap();
        let (address, _proxy) = start_haproxy(dir.path(), gateway.address, send).await;
        // Connect from a local address that is not listed as a proxy.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 77], 0))).unwrap();
        let mut stream =
            over(&trusting(&[&certificates]), socket.connect(address).await.unwrap()).await.unwrap();
        let head = upgrade("/ws");
        stream.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 101, "{send}");
        let other = over(&trusting(&[&certificates]), TcpStream::connect(address).await.unwrap()).await;
        let mut other = other.unwrap();
        let stats = ask(&mut other, "GET", "/ws/stats", &[], "").await.json();
        let id = stats["connection_list"][0]["connection_id"].as_str().unwrap();
        let story = ask(&mut other, "GET", &format!("/ws/stats/{id}"), &[], "").await.json();
        assert_eq!(story["source"], "127.0.0.77", "{send}");
    }
}

/// A HAProxy in TCP mode, on a free port.
async fn start_haproxy(dir: &Path, gateway: SocketAddr, send: &str) -> (SocketAddr, Process) {
    listening(|address| {
        let config = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             listen all\n  bind {address}\n  server one {gateway} {send}\n"
        );
        fs::write(dir.join("haproxy.cfg"), config).unwrap();
        proxy("haproxy", "haproxy.cfg", dir)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_sockets_are_unaffected_by_tls() {
    let Some(certificates) = certificates() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut config = config_with(&certificates);
    config.http.unix_socket = Some(dir.path().join("z.sock"));
    config.http.operators.listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.http.operators.tls = false;
    let gateway = Running::start(config).await;
    let operators = gateway.operators.unwrap();
    assert_eq!(request(operators, "GET", "/metrics", &[], b"").await.status, 200);
    let mut socket = RawSocket::open(operators, "/ws").await;
    assert_eq!(socket.greeting().await["type"], "connection_established");
    let head = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(ask_unix(&dir.path().join("z.sock"), head).await.status, 200);
}
