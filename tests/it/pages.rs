//! Pages of other origins, other host names, and what proxies say about both.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::gateway::{Answer, JSON, Running, config, price, read_answer, request};
use crate::support::process::Process;

/// The answer to a request with these header lines.
async fn ask(address: SocketAddr, method: &str, path: &str, lines: &[(&str, &str)]) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in lines {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    read_answer(&mut stream).await.expect("an answer")
}

async fn upgrade(address: SocketAddr, lines: &[(&str, &str)]) -> u16 {
    let of_web_socket = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    ask(address, "GET", "/ws/market/pjm", &[lines, &of_web_socket].concat()).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_host_name_was_rebound_to_this_machine_gets_nothing() {
    let mut process = Process::start(&["storage.backend=memory", "http.drain_s=0"]).await;
    let address = process.address;
    let host = format!("evil.example:{}", address.port());
    let origin = format!("http://{host}");
    let page = [("Host", host.as_str()), ("Origin", origin.as_str())];
    assert_eq!(upgrade(address, &page).await, 421);
    for path in ["/", "/ws/stats", "/api/zones", "/api/zones/pjm/latest"] {
        ask(address, "GET", path, &page[..1]).await.problem(421, "unknown_host");
    }
    let forged = [page[0], page[1], ("X-Forwarded-Host", "localhost"), ("Forwarded", "host=localhost")];
    ask(address, "POST", "/api/jobs/claim", &forged).await.problem(421, "unknown_host");
    for path in ["/health", "/health/live", "/health/ready", "/health/redis", "/ws/health", "/metrics"] {
        assert_eq!(ask(address, "GET", path, &page[..1]).await.status, 200, "{path}");
    }
    let own = format!("http://localhost:{}", address.port());
    let foreign = [("Host", "localhost"), ("Origin", "https://desk.example")];
    assert_eq!(upgrade(address, &foreign).await, 403);
    assert_eq!(upgrade(address, &[("Host", &own[7..]), ("Origin", &own)]).await, 101);

    let metrics = request(address, "GET", "/metrics", &[], b"").await.body;
    for line in [
        "requests_refused_total{reason=\"unknown_host\"} 6",
        "requests_refused_total{reason=\"origin_not_allowed\"} 1",
    ] {
        assert!(metrics.contains(&format!("zonewire_{line}\n")), "{metrics}");
    }
    process.terminate().await;
    let log = process.log().await;
    let said = |message: &str| -> Value {
        let line = log.iter().find(|line| line.contains(message)).unwrap_or_else(|| panic!("{log:#?}"));
        serde_json::from_str(line).unwrap()
    };
    let refused = said("an unknown host");
    assert_eq!((&refused["host"], &refused["peer.addr"]), (&json!(host), &json!("127.0.0.1")), "{refused}");
    assert!(refused["setting"].as_str().unwrap().contains("http.hosts"), "{refused}");
    let refused = said("pages of another origin");
    assert_eq!((&refused["origin"], &refused["host"]), (&json!("https://desk.example"), &json!("localhost")));
    assert!(refused["setting"].as_str().unwrap().contains("http.origins"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_headers_count_only_from_trusted_proxies() {
    let (mut trusting, mut named) = (config(), config());
    trusting.http.trusted_proxies = vec!["127.0.0.1".to_owned()];
    named.http.public_url = Some("https://stream.example.com".to_owned());
    let (trusting, named) = (Running::start(trusting).await, Running::start(named).await);
    let plain = Running::start(config()).await;
    let page = ("Origin", "https://stream.example.com");
    let local = ("Host", "127.0.0.1:8080");
    let kept = ("Host", "stream.example.com");
    let said = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "stream.example.com")];
    let standard = [("Forwarded", r#"for=192.0.2.1;proto=https;host="stream.example.com""#)];
    let short = ("Host", "zonewire");
    type Lines<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Lines<'_>, u16, u16, u16); 9] = [
        // A proxy that replaces the requested host by its own name or the gateway's.
        (&[local, page, said[0], said[1]], 101, 101, 403),
        (&[local, page, standard[0]], 101, 101, 403),
        (&[short, page, said[0], said[1]], 101, 101, 403),
        (&[local, page], 403, 101, 403),
        (&[local, page, ("X-Forwarded-Proto", "http"), said[1]], 403, 101, 403),
        (&[local, ("Origin", "https://evil.example"), said[0], said[1]], 403, 403, 403),
        // A proxy that keeps the host. Browsers on this machine could send the same, so the name must be
        // configured.
        (&[kept, page], 421, 101, 421),
        (&[kept, page, said[0], said[1]], 421, 101, 421),
        (&[("Host", "evil.example"), page, said[0], said[1]], 421, 421, 421),
    ];
    for (lines, by_trust, by_name, otherwise) in cases {
        for (gateway, status) in [(&trusting, by_trust), (&named, by_name), (&plain, otherwise)] {
            assert_eq!(upgrade(gateway.address, lines).await, status, "{lines:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_listed_origin_publishes_and_reads() {
    let gateway = Running::changed(config(), |config| {
        config.http.origins = vec!["https://desk.example".to_owned(), "capacitor://localhost".to_owned()]
    })
    .await;
    for origin in ["https://desk.example", "capacitor://localhost"] {
        let headers = [("origin", origin), ("content-type", JSON)];
        let body = price("A", 1).to_string();
        let answer =
            request(gateway.address, "POST", "/api/zones/pjm/prices", &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = request(gateway.address, "GET", "/api/zones/pjm/latest", &headers[..1], b"").await;
        assert!(answer.head.contains(&format!("access-control-allow-origin: {origin}")), "{answer:?}");
        assert_eq!(upgrade(gateway.address, &[("Host", "localhost"), ("Origin", origin)]).await, 101);
    }
    // Requests that browsers send without a preflight are refused too.
    let headers = [("origin", "https://evil.example")];
    let path = "/api/orders/6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11/cancel";
    request(gateway.address, "POST", path, &headers, b"").await.problem(403, "origin_not_allowed");
}
