//! The proxy configurations of `docs/examples/proxies`, run unchanged except for their ports.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use zonewire_kit::hostile::wire::exchange;
use zonewire_kit::hostile::{Smuggled, smuggled};
use zonewire_kit::process::Process;

use crate::support::events::EventReader;
use crate::support::eventually::eventually;
use crate::support::gateway::{Answer, LINES, Lines, Running, config, price, read_answer};
use crate::support::program::{self, installed, listening};
use crate::support::raw::RawSocket;

/// A proxy in front of a gateway.
struct Proxy {
    address: SocketAddr,
    gateway: Running,
    /// Whether the proxy holds a line longer than its buffer until the client gives up, which takes longer
    /// than the test waits: HAProxy does; nginx forwards it as it arrives.
    holds_long_lines: bool,
    _process: Process,
    _dir: TempDir,
}

impl Proxy {
    /// `None`, after printing so, if the program is not installed.
    async fn start(program: &str, file: &str) -> Option<Self> {
        installed(program).await?;
        let mut config = config();
        // As the comments in the examples say.
        config.http.trusted_proxies = vec!["127.0.0.1".to_owned()];
        config.http.hosts = ["stream.example.com", "www.example.com"].map(str::to_owned).to_vec();
        config.http.base_path = "/prices".to_owned();
        let gateway = Running::start(config).await;

        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/proxies").join(file);
        let example = fs::read_to_string(example).unwrap();
        assert!(example.contains("127.0.0.1:8080") && example.contains("8081"));
        let dir = tempfile::tempdir().unwrap();
        let (address, process) = listening(|address| {
            let written = example.replace("127.0.0.1:8080", &gateway.address.to_string());
            let written = written.replace("listen 8081", &format!("listen {address}"));
            let written = written.replace("bind :8081", &format!("bind {address}"));
            fs::write(dir.path().join(file), adapted(program, written)).unwrap();
            program::proxy(program, file, dir.path())
        })
        .await;
        Some(Self { address, gateway, holds_long_lines: program == "haproxy", _process: process, _dir: dir })
    }

    /// A request to a host name, through the proxy.
    async fn ask(&self, host: &str, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let port = self.address.port();
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n");
        for (name, value) in more {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        read_answer(&mut stream).await.expect("an answer")
    }

    fn upgrade(&self, host: &str, path: &str, origin: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.address.port()
        )
    }
}

/// The example's configuration, with nginx's files in its own directory too.
fn adapted(program: &str, config: String) -> String {
    if program == "haproxy" {
        return config;
    }
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|kind| format!("{kind}_temp_path {kind};\n")).concat();
    config.replace("http {\n", &format!("http {{\naccess_log off;\n{temporary}"))
}

async fn check(proxy: Proxy) {
    check_smuggling(&proxy).await;
    let port = proxy.address.port();
    for (host, base) in [("stream.example.com", ""), ("www.example.com", "/prices")] {
        let own = format!("http://{host}:{port}");
        let at = |path: &str| format!("{base}{path}");
        let page = proxy.ask(host, "GET", &at("/"), &[], "").await;
        assert!(page.status == 200 && page.body.contains("src=\"./assets/"), "{page:?}");
        assert_eq!(proxy.ask(host, "GET", &at("/mark.svg"), &[], "").await.status, 200);

        // The page's own requests, and those of other pages.
        let kind = ("Content-Type", LINES);
        let line = price("A", 1).to_string();
        for (origin, status) in [(own.as_str(), 200), ("https://evil.example", 403)] {
            let answer = proxy
                .ask(host, "POST", &at("/api/zones/pjm/prices"), &[kind, ("Origin", origin)], &line)
                .await;
            assert_eq!(answer.status, status, "{origin}: {answer:?}");
            let head = proxy.upgrade(host, &at("/ws/market/pjm"), origin);
            assert_eq!(RawSocket::upgraded(proxy.address, &head).await.is_ok(), status == 200, "{origin}");
        }
        let zones = proxy.ask(host, "GET", &at("/api/zones"), &[], "").await;
        assert_eq!(zones.json()["zones"][0]["stream"], "/prices/ws/market/pjm");
        let order = json!({ "tokenIn": "A", "tokenOut": "B", "amount": 1 }).to_string();
        let kind = ("Content-Type", "application/json");
        let forged =
            [kind, ("X-Forwarded-Host", "evil.example"), ("Forwarded", "host=evil.example;proto=https")];
        let placed = proxy.ask(host, "POST", &at("/api/orders/execute"), &forged, &order).await;
        let socket = placed.json()["wsUrl"].as_str().unwrap().to_owned();
        assert!(socket.starts_with(&format!("ws://{host}:{port}/prices/api/orders/status/")), "{socket}");

        // A stream of lines is published as it arrives, and delivered as it is published.
        let head = proxy.upgrade(host, &at("/ws/market/pjm"), &own);
        let mut reader = RawSocket::upgraded(proxy.address, &head).await.unwrap();
        while !reader.text().await.contains("\"subscribed\"") {}
        let mut lines = Lines::open_at(proxy.address, host, &at("/api/zones/pjm/prices")).await;
        for n in 1..=3 {
            lines.send(&format!("{}\n", price("B", n))).await;
            assert!(reader.text().await.contains(&format!("\"price\":{n}")));
        }
        assert_eq!(lines.finish().await.json(), json!({ "accepted": 3 }));

        // So are server-sent events, which no proxy buffers; and the last id passes through.
        let zone = if base.is_empty() { "pjm-own" } else { "pjm-below" };
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {own}\r\nAccept: text/event-stream\r\n",
            at(&format!("/sse?channels=zone:{zone}"))
        );
        let ask = async |more: &str| {
            let stream = TcpStream::connect(proxy.address).await.unwrap();
            EventReader::ask(stream, &format!("{head}{more}\r\n")).await.unwrap_or_else(|no| panic!("{no:?}"))
        };
        let mut reader = ask("").await;
        reader.next_of_type("subscribed").await;
        for n in 1..=3 {
            proxy.gateway.publish(zone, [price("B", n)]).await;
            assert_eq!(reader.next_of_type("price_update").await["price"], n);
        }
        let last = reader.last_event_id.clone();
        drop(reader);
        let mut n = 3;
        let mut until_gone = async || {
            eventually("the gateway hears that it is gone", async || {
                // A proxy may notice only when it cannot forward an event.
                n += 1;
                proxy.gateway.publish(zone, [price("B", n)]).await;
                (proxy.gateway.stats().await["connections"]["event_streams"] == 0).then_some(n)
            })
            .await
        };
        let n = until_gone().await;
        let mut reader = ask(&format!("Last-Event-ID: {last}\r\n")).await;
        for n in 4..=n {
            assert_eq!(reader.next_of_type("price_update").await["price"], n);
        }
        drop(reader);
        until_gone().await;
    }
    let slash = proxy.ask("www.example.com", "GET", "/prices", &[], "").await;
    let to_page = slash.head.lines().any(|line| line == "location: /prices/");
    assert!(slash.status == 307 && to_page, "{slash:?}");
}

/// The row of [`smuggled`] with a line longer than the buffers of proxies.
const LONGER_THAN_A_BUFFER: &str = "an extension of 40 KB";

/// A single request for the proxy is a single request for the gateway: as many prices are accepted as senders
/// are told, and nobody receives the answer to another client's request.
async fn check_smuggling(proxy: &Proxy) {
    let accepted = async || proxy.gateway.stats().await["http"]["prices_accepted"].as_u64().unwrap();
    let (host, mut told_all) = (format!("stream.example.com:{}", proxy.address.port()), 0);
    let mut held = JoinSet::new();
    for Smuggled { what, bytes, .. } in smuggled(&host) {
        let before = accepted().await;
        let address = proxy.address;
        let answered = if proxy.holds_long_lines && what == LONGER_THAN_A_BUFFER {
            // The gateway must accept nothing of it.
            held.spawn(async move { exchange(address, &bytes).await });
            String::new()
        } else {
            let answered =
                exchange(address, &bytes).await.unwrap_or_else(|error| panic!("{what}: {error:#}"));
            String::from_utf8_lossy(&answered).into_owned()
        };
        let told = answered.matches("{\"accepted\":1}").count() as u64;
        for n in 0..3 {
            let path = format!("/api/zones/innocent-{n}/latest");
            let answer = proxy.ask("stream.example.com", "GET", &path, &[], "").await;
            let own = format!("zone:innocent-{n}");
            assert_eq!((answer.status, &answer.json()["channel"]), (200, &json!(own)), "{what}");
        }
        assert_eq!(accepted().await - before, told, "{what}: {answered}");
        told_all += told;
    }
    assert!(told_all > 4, "some of them are valid");
    assert_eq!(held.len(), usize::from(proxy.holds_long_lines));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_served_behind_nginx_at_a_host_and_below_a_path() {
    if let Some(proxy) = Proxy::start("nginx", "nginx.conf").await {
        check(proxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_served_behind_haproxy_at_a_host_and_below_a_path() {
    if let Some(proxy) = Proxy::start("haproxy", "haproxy.cfg").await {
        check(proxy).await;
    }
}
