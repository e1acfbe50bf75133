//! What RFC 9110 and 9112 require of a server, byte by byte: through hyper, without a port.

use std::convert::Infallible;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::super::table::{Address, Kind, METHODS};
use super::*;

const ORDER: &str = "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";

/// An answer as it was received.
#[derive(Debug)]
struct Raw {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Raw {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// What the answer depends on, sorted by name.
    fn vary(&self) -> Option<String> {
        let mut names: Vec<_> = self.header("vary")?.split(", ").collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        Some(names.join(", "))
    }

    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection: the client's end, and what serves the other end.
fn connect(routes: &Routes) -> (DuplexStream, impl Future<Output = hyper::Result<()>>) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let door = routes.door.clone();
    let service = service_fn(move |mut request| {
        let door = door.clone();
        async move {
            door.enter(&mut request);
            Ok::<_, Infallible>(door.answer(request, None, None).await)
        }
    });
    (client, http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service))
}

/// Sends the bytes of a connection, closes the sending side, and reads everything that comes back.
async fn exchange(routes: &Routes, sent: &str) -> String {
    let (mut client, serving) = connect(routes);
    let asking = async {
        client.write_all(sent.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answered = Vec::new();
        client.read_to_end(&mut answered).await.unwrap();
        String::from_utf8(answered).unwrap()
    };
    // A connection with a malformed request ends with an error after the answer.
    let (_served, answered) = tokio::join!(serving, asking);
    answered
}

fn parse(answered: &str) -> Raw {
    let (head, body) = answered.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answered:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        let joined = headers.entry(name.to_lowercase()).or_default();
        *joined += if joined.is_empty() { "" } else { ", " };
        *joined += value;
    }
    Raw { status, headers, body: body.to_owned() }
}

async fn ask(routes: &Routes, request: &str) -> Raw {
    parse(&exchange(routes, request).await)
}

fn head(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n")
}

/// A request with a body that the address can parse.
fn whole(method: &str, path: &str) -> String {
    let body = if method == "POST" { r#"{"key":"A","price":1}"# } else { "" };
    let len = body.len();
    format!("{}Content-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}", head(method, path))
}

fn path_of(address: &Address) -> String {
    let path = address.pattern().replace("{zone}", "pjm").replace("{key}", "nothing");
    let path = path.replace("{userId}", "nothing").replace("{orderId}", "nothing");
    path.replace("{order}", ORDER).replace("{job}", ORDER).replace("{type}", "ticker")
}

/// What an address answers to one of its methods, with this test's body and names.
fn expected(address: &Address, method: &str) -> (u16, &'static str) {
    match address.pattern() {
        "/api/providers" | "/api/active-orders" => match method {
            "POST" => (422, "invalid_record"),
            // An empty body.
            "PUT" => (400, "invalid_json"),
            _ => (200, ""),
        },
        "/api/providers/{userId}" | "/api/active-orders/{orderId}" if method == "PUT" => {
            (400, "invalid_json")
        }
        pattern if pattern.starts_with("/api/providers/") || pattern.starts_with("/api/active-orders/") => {
            (404, "unknown_record")
        }
        // There is no Redis whose keys could be read.
        "/api/registry/sync" => (404, "not_found"),
        _ if address.kind() == Kind::WebSocket => (426, "upgrade_required"),
        // There is no connection that could be handed over.
        "/sse" => (400, "not_upgradable"),
        "/api/zones/{zone}" => (404, "unknown_zone"),
        "/api/zones/{zone}/keys/{key}" => (404, "unknown_key"),
        "/api/events/{type}" => (422, "invalid_event"),
        "/api/orders/execute" => (422, "invalid_order"),
        "/api/orders/dead-letters/{order}/retry" => (404, "unknown_dead_letter"),
        "/api/orders/{order}" | "/api/orders/{order}/cancel" => (404, "unknown_order"),
        "/api/orders/{order}/updates" => (422, "invalid_update"),
        // The bridge is off here.
        "/api/bridge/subscriptions" if method == "POST" => (404, "not_found"),
        // Authentication is off here.
        "/api/auth/revoke" => (404, "not_found"),
        "/ws/stats/{connection}" => (404, "unknown_connection"),
        "/assets/{file}" => (404, "not_found"),
        pattern if pattern.starts_with("/api/jobs/") => (409, "not_external"),
        _ => (200, ""),
    }
}

#[tokio::test]
async fn each_address_answers_each_method_as_it_should() {
    let routes = Routes::new().await;
    for address in Address::all() {
        let path = path_of(&address);
        let allow = address.allow();
        for method in METHODS {
            let answer = ask(&routes, &whole(method, &path)).await;
            let what = format!("{method} {path}: {answer:?}");
            if method == "OPTIONS" {
                assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{what}");
                assert_eq!(answer.header("allow").unwrap(), allow, "{what}");
            } else if method == "HEAD" {
                let mut get = ask(&routes, &whole("GET", &path)).await;
                assert_eq!((answer.status, answer.body.as_str()), (get.status, ""), "{what}");
                let mut headers = answer.headers.clone();
                let lens = [&mut headers, &mut get.headers].map(|headers| headers.remove("content-length"));
                // Reports of the gateway's state differ each time.
                let is_steady = !matches!(address.kind(), Kind::Probe | Kind::Operator);
                assert!(lens[0].is_some() && (lens[0] == lens[1] || !is_steady), "{what}: {lens:?}");
                let dates = [&mut headers, &mut get.headers].map(|headers| headers.remove("date"));
                assert!(dates.iter().all(Option::is_some), "{what}");
                assert_eq!(headers, get.headers, "{what}");
            } else if address.methods().any(|taken| taken == method) {
                let (status, code) = expected(&address, method);
                assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
            } else {
                assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"), "{what}");
                assert_eq!(answer.header("allow").unwrap(), allow, "{what}");
                assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
            }
            if answer.status == 426 {
                assert_eq!(answer.header("upgrade"), Some("websocket"), "{what}");
                assert_eq!(answer.header("connection"), Some("Upgrade"), "{what}");
                assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{what}");
            }
        }
        let answer = ask(&routes, &whole("BREW", &path)).await;
        assert_eq!((answer.status, answer.code().as_str()), (501, "not_implemented"), "BREW {path}");
    }
}

#[tokio::test]
async fn each_request_that_may_be_sent_gets_what_the_standards_say() {
    let routes = Routes::new().await;
    let post = |more: &str, body: &str| {
        let head = head("POST", "/api/zones/pjm/prices");
        format!("{head}{more}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    const JSON: &str = "Content-Type: application/json\r\n";
    const PRICE: &str = r#"{"key":"A","price":1}"#;
    let health = |hosts: &str| format!("GET /health HTTP/1.1\r\n{hosts}\r\n");
    let framed = |framing: &str| format!("{}{JSON}{framing}", head("POST", "/api/zones/pjm/prices"));
    let cases: &[(&str, String, u16, &str)] = &[
        // The host of the request (RFC 9112, section 3.2).
        ("no Host", health(""), 400, "invalid_host"),
        ("two Hosts", health("Host: localhost\r\nHost: localhost\r\n"), 400, "invalid_host"),
        (
            "two Hosts of 1.0",
            "GET /health HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".into(),
            400,
            "invalid_host",
        ),
        ("an empty Host", health("Host: \r\n"), 400, "invalid_host"),
        ("a Host that is a URL", health("Host: http://localhost/\r\n"), 400, "invalid_host"),
        ("a Host with a user", health("Host: a@localhost\r\n"), 400, "invalid_host"),
        ("a port that is none", health("Host: localhost:99999\r\n"), 400, "invalid_host"),
        ("an empty port", health("Host: localhost:\r\n"), 200, ""),
        ("an IPv6 address", "GET /api/zones HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n".into(), 200, ""),
        ("HTTP/1.0 without Host", "GET /api/zones HTTP/1.0\r\n\r\n".into(), 200, ""),
        (
            "a proxy's form",
            "GET http://localhost/api/zones HTTP/1.1\r\nHost: other.example\r\n\r\n".into(),
            200,
            "",
        ),
        (
            "a proxy's form without Host",
            "GET http://localhost/health HTTP/1.1\r\n\r\n".into(),
            400,
            "invalid_host",
        ),
        (
            "a host instead of a path",
            "GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
            400,
            "invalid_target",
        ),
        // Methods (RFC 9110, section 9).
        ("OPTIONS for all", head("OPTIONS", "*") + "\r\n", 204, ""),
        ("GET for all", head("GET", "*") + "\r\n", 400, "invalid_target"),
        (
            "CONNECT",
            "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n".into(),
            501,
            "not_implemented",
        ),
        ("TRACE", head("TRACE", "/health") + "\r\n", 501, "not_implemented"),
        ("a method in small letters", head("get", "/health") + "\r\n", 501, "not_implemented"),
        ("a path that is nowhere", head("PUT", "/nowhere") + "\r\n", 404, "not_found"),
        ("OPTIONS of nothing", head("OPTIONS", "/nowhere") + "\r\n", 404, "not_found"),
        // What `…/keys/..` becomes in transit.
        ("DELETE of an address with a slash", head("DELETE", "/api/zones/pjm/") + "\r\n", 404, "not_found"),
        ("DELETE of a list with a slash", head("DELETE", "/api/providers/") + "\r\n", 404, "not_found"),
        ("GET of a list with a slash", head("GET", "/api/providers/") + "\r\n", 200, ""),
        // Bodies (RFC 9110, sections 8.3, 8.4 and 15.5.16).
        ("JSON", post(JSON, PRICE), 200, ""),
        ("no type", post("", PRICE), 415, "unsupported_media_type"),
        (
            "a form",
            post("Content-Type: application/x-www-form-urlencoded\r\n", "a=1"),
            415,
            "unsupported_media_type",
        ),
        (
            "UTF-16",
            post("Content-Type: application/json; charset=utf-16\r\n", PRICE),
            415,
            "unsupported_media_type",
        ),
        (
            "gzip",
            post(&format!("{JSON}Content-Encoding: gzip\r\n"), PRICE),
            415,
            "unsupported_content_encoding",
        ),
        ("no coding", post(&format!("{JSON}Content-Encoding: identity\r\n"), PRICE), 200, ""),
        ("a body where none is wanted", head("GET", "/api/zones") + "Content-Length: 3\r\n\r\nabc", 200, ""),
        // What may be present and can be ignored.
        ("a range", head("GET", "/") + "Range: bytes=0-9\r\n\r\n", 200, ""),
        ("another type", head("GET", "/api/zones") + "Accept: image/png\r\n\r\n", 200, ""),
        (
            "another coding",
            head("GET", "/api/zones") + "Accept-Encoding: zstd, identity;q=0\r\n\r\n",
            200,
            "",
        ),
        (
            "a condition",
            head("GET", "/") + "If-Modified-Since: Sat, 21 Nov 2026 00:00:00 GMT\r\n\r\n",
            200,
            "",
        ),
        (
            "an upgrade to something else",
            head("GET", "/api/zones") + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            200,
            "",
        ),
        (
            "HEAD of a WebSocket",
            head("HEAD", "/ws")
                + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            426,
            "",
        ),
        // hyper's own answers to ambiguous framing (RFC 9112, section 6.3).
        ("two lengths", framed("Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), 400, ""),
        ("a length that is none", framed("Content-Length: -1\r\n\r\n"), 400, ""),
        (
            "a coding before chunked",
            framed("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            501,
            "not_implemented",
        ),
        (
            "chunked twice",
            framed("Transfer-Encoding: chunked\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"),
            501,
            "not_implemented",
        ),
        ("a coding that is not chunked", framed("Transfer-Encoding: gzip\r\n\r\n"), 400, ""),
    ];
    for (what, request, status, code) in cases {
        let answer = ask(&routes, request).await;
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{what}: {answer:?}");
    }

    let answer = ask(&routes, &cases.iter().find(|case| case.0 == "OPTIONS for all").unwrap().1).await;
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    let answer = ask(&routes, &post("Content-Type: text/csv\r\n", "A,1")).await;
    assert_eq!(answer.header("accept"), Some("application/json, application/x-ndjson"));
    let answer = ask(&routes, &post(&format!("{JSON}Content-Encoding: br\r\n"), PRICE)).await;
    assert_eq!(answer.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_body_that_is_held_back_is_asked_for_only_where_it_is_wanted() {
    let routes = Routes::new().await;
    let send = async |path: &str, kind: &str| {
        let (mut client, serving) = connect(&routes);
        let asking = async move {
            let head = head("POST", path);
            let head = format!(
                "{head}Content-Type: {kind}\r\nContent-Length: 21\r\nConnection: close\r\nExpect: 100-continue\r\n\r\n"
            );
            client.write_all(head.as_bytes()).await.unwrap();
            let mut answered = vec![0; 25];
            client.read_exact(&mut answered).await.unwrap();
            if answered.starts_with(b"HTTP/1.1 100 Continue\r\n\r\n") {
                client.write_all(br#"{"key":"A","price":1}"#).await.unwrap();
                answered.clear();
            }
            client.read_to_end(&mut answered).await.unwrap();
            String::from_utf8(answered).unwrap()
        };
        let (_served, answered) = tokio::join!(serving, asking);
        parse(&answered).status
    };
    for (path, kind, status) in [
        ("/api/zones/pjm/prices", "application/json", 200),
        ("/api/zones/pjm/prices", "text/csv", 415),
        ("/api/orders/execute", "text/csv", 415),
        ("/api/jobs/claim", "text/csv", 415),
        ("/api/zones", "application/json", 405),
    ] {
        assert_eq!(send(path, kind).await, status, "{path} {kind}");
    }
}

#[tokio::test]
async fn a_request_of_two_lengths_is_the_last_one_of_its_connection() {
    let routes = Routes::new().await;
    // Chunks determine the body, and what comes after it must not be taken for a request (RFC 9112, section
    // 6.1).
    let smuggled = head("POST", "/api/zones/pjm/prices")
        + "Content-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        + "15\r\n{\"key\":\"A\",\"price\":1}\r\n0\r\n\r\n"
        + &head("GET", "/health/live")
        + "\r\n";
    let answered = exchange(&routes, &smuggled).await;
    assert_eq!(answered.matches("HTTP/1.1 ").count(), 1, "{answered}");
    assert!(
        answered.starts_with("HTTP/1.1 200 OK\r\n") && answered.ends_with("{\"accepted\":1}"),
        "{answered}"
    );
    // Without the length, both are answered.
    let answered = exchange(&routes, &smuggled.replace("Content-Length: 4\r\n", "")).await;
    assert_eq!(answered.matches("HTTP/1.1 200 OK").count(), 2, "{answered}");
}

#[tokio::test]
async fn only_probes_are_answered_by_any_name_and_to_any_page() {
    let routes = Routes::new().await;
    for address in Address::all() {
        let path = path_of(&address);
        let upgrade = match address.kind() {
            Kind::WebSocket => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
            _ => "",
        };
        for method in METHODS {
            let request = whole(method, &path).replacen("Host: localhost\r\n", "{}", 1);
            let send = async |more: &str| {
                ask(&routes, &request.replacen("{}", &format!("{more}{upgrade}"), 1)).await
            };
            let usual = send("Host: localhost\r\n").await.status;
            let is_probe = address.kind() == Kind::Probe;
            for (more, status, code) in [
                ("Host: evil.example:8080\r\n", 421, "unknown_host"),
                ("Host: evil.example:8080\r\nOrigin: http://evil.example:8080\r\n", 421, "unknown_host"),
                ("Host: zonewire\r\nOrigin: http://zonewire\r\n", 403, "origin_not_allowed"),
                ("Host: localhost\r\nOrigin: https://evil.example\r\n", 403, "origin_not_allowed"),
                ("Host: localhost\r\nOrigin: null\r\n", 403, "origin_not_allowed"),
            ] {
                let answer = send(more).await;
                let what = format!("{method} {path} {more:?}: {answer:?}");
                assert_eq!(answer.status, if is_probe { usual } else { status }, "{what}");
                if !is_probe && method != "HEAD" {
                    assert_eq!(answer.code(), code, "{what}");
                }
                assert_eq!(answer.header("access-control-allow-origin"), None, "{what}");
                assert!(answer.vary().unwrap().starts_with("origin"), "{what}");
            }
            for more in ["Host: zonewire\r\n", "Host: localhost\r\nOrigin: http://localhost\r\n"] {
                assert_eq!(send(more).await.status, usual, "{method} {path} {more:?}");
            }
        }
    }
    let refused = routes.door_refusals();
    assert!(refused["unknown_host"] > 300 && refused["origin_not_allowed"] > 400, "{refused:?}");
}

#[tokio::test]
async fn pages_of_listed_origins_may_use_all_of_it() {
    let listed = ["https://desk.example".to_owned(), "capacitor://localhost".to_owned()].to_vec();
    let some = Routes::with(2_000, HttpConfig { origins: listed, ..HttpConfig::default() }).await;
    let all =
        Routes::with(2_000, HttpConfig { origins: vec!["*".to_owned()], ..HttpConfig::default() }).await;
    let cases = [
        (&some, "https://desk.example", "https://desk.example", true),
        (&some, "capacitor://localhost", "capacitor://localhost", true),
        (&some, "http://localhost", "http://localhost", true),
        (&all, "https://any.example", "*", false),
        (&all, "null", "*", false),
    ];
    for (routes, origin, allowed, depends) in cases {
        for address in Address::all() {
            let path = path_of(&address);
            let method = address.methods().next().unwrap();
            let from = format!("Host: localhost\r\nOrigin: {origin}\r\n");
            let asked = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type,x-a\r\n\
                         Access-Control-Request-Private-Network: true\r\n";
            let before =
                whole("OPTIONS", &path).replacen("Host: localhost\r\n", &format!("{from}{asked}"), 1);
            let before = ask(routes, &before).await;
            assert_eq!(before.status, 204, "{path}");
            for (name, value) in [
                ("access-control-allow-origin", allowed),
                ("access-control-allow-methods", address.allow().to_str().unwrap()),
                ("access-control-allow-headers", "content-type,x-a"),
                ("access-control-allow-private-network", "true"),
                ("access-control-max-age", "600"),
            ] {
                assert_eq!(before.header(name), Some(value), "OPTIONS {path}");
            }
            // Problems too: a page must be able to read what is wrong.
            for method in [method, "PATCH"] {
                let request = whole(method, &path).replacen("Host: localhost\r\n", &from, 1);
                let answer = ask(routes, &request).await;
                for (name, value) in [
                    ("access-control-allow-origin", Some(allowed)),
                    (
                        "access-control-expose-headers",
                        Some(
                            "allow, etag, idempotency-replayed, location, registry-state, retry-after, www-authenticate",
                        ),
                    ),
                ] {
                    assert_eq!(answer.header(name), value, "{method} {path}: {answer:?}");
                }
                let vary = answer.vary().unwrap_or_default();
                assert_eq!(vary.contains("origin"), depends, "{method} {path}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn it_can_be_served_below_a_path() {
    let config = HttpConfig {
        base_path: "/market/prices".to_owned(),
        public_url: Some("https://stream.example.com".to_owned()),
        body_bytes_max: 1_000,
        ..HttpConfig::default()
    };
    let routes = Routes::with(2_000, config).await;
    for address in Address::all() {
        let path = path_of(&address);
        let plain = ask(&routes, &whole(address.methods().next().unwrap(), &path)).await;
        let below =
            ask(&routes, &whole(address.methods().next().unwrap(), &format!("/market/prices{path}"))).await;
        assert_eq!((plain.status, plain.code()), (below.status, below.code()), "{path}");
    }
    let page = ask(&routes, &whole("GET", "/market/prices?a=b")).await;
    assert_eq!((page.status, page.header("location")), (307, Some("/market/prices/?a=b")));
    for path in [
        "/market",
        "/market/",
        "/market/pricess",
        "/market/prices/market/prices/api/zones",
        "/prices/api/zones",
    ] {
        assert_eq!(ask(&routes, &whole("GET", path)).await.code(), "not_found", "{path}");
    }
    // The gateway's own addresses are below the path, and the page's requests are relative to it.
    let zones = ask(&routes, &whole("GET", "/market/prices/api/zones")).await;
    assert!(zones.body.contains(r#""stream":"/market/prices/ws/market/pjm""#), "{zones:?}");
    let order = r#"{"tokenIn":"A","tokenOut":"B","amount":1}"#;
    let request = whole("POST", "/api/orders/execute").replace(r#"{"key":"A","price":1}"#, order);
    let placed =
        ask(&routes, &request.replace("Content-Length: 21", &format!("Content-Length: {}", order.len())))
            .await;
    let socket = r#""wsUrl":"wss://stream.example.com/market/prices/api/orders/status/"#;
    assert!(placed.status == 202 && placed.body.contains(socket), "{placed:?}");
    let page = ask(&routes, &whole("GET", "/market/prices/")).await.body;
    assert!(page.contains("src=\"./assets/") && !page.contains("=\"/"), "{page}");
}

#[tokio::test]
async fn answers_that_are_worth_it_are_compressed_where_that_is_asked_for() {
    let routes = Routes::new().await;
    let prices: Vec<_> = (0..30).map(|n| json!({ "key": format!("KEY {n}"), "price": n })).collect();
    for prices in prices.chunks(10) {
        routes.publish(&json!(prices).to_string(), 10).await;
    }
    let send = async |method: &str, path: &str, accepted: &str| {
        let request = format!("{}Connection: close\r\n{accepted}\r\n", head(method, path));
        let (mut client, serving) = connect(&routes);
        let mut answered = Vec::new();
        let asking = async {
            client.write_all(request.as_bytes()).await.unwrap();
            client.read_to_end(&mut answered).await.unwrap();
        };
        let (served, ()) = tokio::join!(serving, asking);
        served.unwrap();
        let end = answered.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let answer = parse(std::str::from_utf8(&answered[..end]).unwrap());
        (answer, answered.split_off(end))
    };
    let vary = Some("origin, accept-encoding");
    for path in ["/api/zones/pjm/latest", "/openapi.json"] {
        let (plain, expected) = send("GET", path, "").await;
        assert_eq!((plain.header("content-encoding"), plain.vary().as_deref()), (None, vary), "{path}");
        for (accepted, is_compressed) in [
            ("Accept-Encoding: gzip, deflate, br\r\n", true),
            ("Accept-Encoding: br;q=1, *;q=0.1\r\n", true),
            ("Accept-Encoding: gzip;q=0, *\r\n", false),
            ("Accept-Encoding: identity\r\n", false),
        ] {
            let (answer, body) = send("GET", path, accepted).await;
            let what = format!("{path} {accepted:?}: {answer:?}");
            assert_eq!(answer.header("content-encoding"), is_compressed.then_some("gzip"), "{what}");
            assert_eq!(answer.vary().as_deref(), vary, "{what}");
            assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()), "{what}");
            let (head, none) = send("HEAD", path, accepted).await;
            assert_eq!(head.header("content-length"), answer.header("content-length"), "{what}");
            assert_eq!((head.header("content-encoding"), none.len()), (answer.header("content-encoding"), 0));
            let mut read = body.clone();
            if is_compressed {
                assert!(body.len() < expected.len() / 2, "{what}");
                read.clear();
                let mut decoder = flate2::read::GzDecoder::new(body.as_slice());
                std::io::Read::read_to_end(&mut decoder, &mut read).unwrap();
            }
            assert!(read == expected, "{what}");
        }
    }
    // Small answers are not compressed.
    let (small, _) = send("GET", "/health/live", "Accept-Encoding: gzip\r\n").await;
    assert_eq!((small.header("content-encoding"), small.vary().as_deref()), (None, Some("origin")));
}
