//! Every route, without a port.

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::http::request::Builder;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::http::Response as HttpResponse;

use super::accept::AcceptStats;
use super::body_budget::BodyBudget;
use super::config::HttpConfig;
use super::door::Door;
use super::prices::IntakeStats;
use super::refusals::Refusals;
use super::routes::App;
use super::status::Sources;
use crate::access::Gate;
use crate::bridge::Bridge;
use crate::channels::{CREDITS, Channels, ChannelsConfig, ChannelsParts};
use crate::connections::{self, ConnectionsConfig};
use crate::feeds::FeedCounters;
use crate::fleet::{Fleet, FleetParts};
use crate::model::{BackendState, Lane, NodeId};
use crate::orders::{OrderMirror, OrderSchema, Orders, OrdersConfig, OrdersParts};
use crate::protocol::ConfigView;
use crate::registry::{Registry, RegistryConfig, RegistryKind, RegistryParts};
use crate::storage::{self, StorageChoice, StorageConfig};
use crate::support::panics::Vital;

mod autobahn;
mod rights;
mod safeguards;
mod standards;

type Answer = HttpResponse<Bytes>;

struct Routes {
    door: Door,
    channels: Channels,
    refusals: Arc<Refusals>,
    stopping: CancellationToken,
    /// Runs the storage's timers.
    _driver: tokio::task::JoinSet<()>,
}

impl Routes {
    async fn new() -> Self {
        Self::with_room(2_000).await
    }

    /// With this much memory for bodies.
    async fn with_room(bodies_bytes_max: usize) -> Self {
        Self::with(bodies_bytes_max, HttpConfig { body_bytes_max: 1_000, ..HttpConfig::default() }).await
    }

    async fn with(bodies_bytes_max: usize, config: HttpConfig) -> Self {
        let storage = StorageConfig { backend: StorageChoice::Memory, ..StorageConfig::default() };
        let opened = storage::open(&storage, NodeId::random(), Arc::new(|_| Lane::Latest)).await.unwrap();
        // No shard runs, so there are no connections.
        let (manager, _seeds, mut shards) = connections::prepare(1, &ConnectionsConfig::default());
        let (told, hears) = mpsc::channel(2 * CREDITS);
        shards.push(told);
        let node = NodeId::random();
        let backend = Arc::clone(&opened.backend);
        let parts = ChannelsParts {
            backend: opened.backend,
            node,
            config: ChannelsConfig::default(),
            shards,
            runtime: Handle::current(),
            vital: Vital::default(),
            accepted: None,
        };
        let channels = Channels::new(parts, TaskTracker::new(), CancellationToken::new());
        let stopping = CancellationToken::new();
        let fleet = Fleet::new(FleetParts {
            node,
            backend: Arc::clone(&backend),
            storage: opened.status_reader.clone(),
            executor: "paper".into(),
            leaving: stopping.clone(),
        });
        let registry = Registry::new(RegistryParts {
            channels: channels.clone(),
            backend: Arc::clone(&backend),
            node,
            fleet: fleet.clone(),
            config: RegistryConfig::default(),
            place: 1,
        });
        let orders = Orders::new(OrdersParts {
            backend,
            channels: channels.clone(),
            config: OrdersConfig::default(),
            mirror: OrderMirror::off(),
            watch: None,
            kind: "paper".into(),
            schema: OrderSchema::load("swap").unwrap(),
        });
        let refusals = Arc::<Refusals>::default();
        let gate = Gate::off().await;
        let sources = Sources {
            node,
            started: Instant::now(),
            manager: manager.clone(),
            runtime: Handle::current(),
            channels: channels.clone(),
            orders: orders.clone(),
            registry: registry.clone(),
            fleet,
            storage: opened.status_reader,
            memory: opened.memory,
            outage: opened.outage,
            redis_configured: false,
            accepts: Arc::new(AcceptStats::default()),
            intake: Arc::new(IntakeStats::default()),
            bodies: Arc::new(BodyBudget::new(bodies_bytes_max)),
            answers: Arc::new(BodyBudget::new(64 << 20)),
            refusals: Arc::clone(&refusals),
            interop: Arc::default(),
            feeds: [("binance".to_owned(), FeedCounters::new("binance"))].into(),
            bridge: Bridge::off(node),
            gate: Arc::clone(&gate),
            tls: None,
            leaving: stopping.clone(),
        };
        let app = App {
            config,
            configured: Arc::new(ConfigView { file: None, warning: None, settings: Vec::new() }),
            manager: manager.clone(),
            channels: channels.clone(),
            orders,
            registry: registry.clone(),
            gate,
            sources,
            serves: true,
            works: true,
            stopping: stopping.clone(),
        };
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(opened.driver);
        driver.spawn(registry.clone().hear_all(hears));
        for (_, part) in registry.work(Arc::new(manager), &CancellationToken::new()) {
            driver.spawn(part);
        }
        let is_ready = || RegistryKind::ALL.iter().all(|kind| registry.state(*kind) == BackendState::Healthy);
        while !is_ready() {
            tokio::task::yield_now().await;
        }
        let door = Door::to(&Arc::new(app));
        Self { door, channels, refusals, stopping, _driver: driver }
    }

    /// How many requests were refused, by code.
    fn door_refusals(&self) -> BTreeMap<String, u64> {
        self.refusals.counts()
    }

    async fn send(&self, request: Builder, body: &str) -> Answer {
        let request = request.header("host", "localhost").body(Full::from(body.to_owned())).unwrap();
        let (head, body) = self.door.answer(request, None, None).await.into_parts();
        HttpResponse::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), "").await
    }

    async fn post(&self, path: &str, content_type: &str, body: &str) -> Answer {
        self.send(Request::post(path).header("content-type", content_type), body).await
    }

    /// Posts prices to `pjm`, which must be accepted.
    async fn publish(&self, body: &str, accepted: u64) {
        let answer = self.post("/api/zones/pjm/prices", "application/json", body).await;
        assert_eq!((answer.status().as_u16(), body_of(&answer)), (200, json!({ "accepted": accepted })));
    }
}

fn text_of(answer: &Answer) -> &str {
    std::str::from_utf8(answer.body()).unwrap()
}

fn body_of(answer: &Answer) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn offsets(page: &Value) -> Vec<u64> {
    page["entries"].as_array().unwrap().iter().map(|entry| entry["offset"].as_u64().unwrap()).collect()
}

fn check_problem(answer: &Answer, status: u16, code: &str) {
    let body = body_of(answer);
    assert_eq!((answer.status().as_u16(), &body["code"]), (status, &json!(code)), "{answer:?}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!((&body["type"], &body["status"]), (&json!("about:blank"), &json!(status)));
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
}

#[tokio::test]
async fn health_has_three_sides_and_says_when_it_stops() {
    let routes = Routes::new().await;
    for path in
        ["/health", "/ws/health", "/api/ws/ws/health", "/health/ready", "/health/live", "/health/redis"]
    {
        let answer = routes.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
    }
    let health = body_of(&routes.get("/health").await);
    assert_eq!((&health["status"], &health["ready"]), (&json!("healthy"), &json!(true)));
    assert_eq!(
        (&health["storage_backend"], &health["reason_code"]),
        (&json!("in-memory"), &json!("configured"))
    );
    routes.stopping.cancel();
    for (path, status) in [("/health", 200), ("/health/live", 200), ("/health/ready", 503)] {
        assert_eq!(routes.get(path).await.status(), status, "{path}");
    }
    let health = body_of(&routes.get("/health/ready").await);
    assert_eq!(
        (&health["status"], &health["ready"], &health["live"]),
        (&json!("stopping"), &json!(false), &json!(true))
    );
}

#[tokio::test]
async fn stats_and_metrics_count_what_was_posted() {
    let routes = Routes::new().await;
    routes.publish(r#"[{"key":"A","price":1},{"key":"B","price":2}]"#, 2).await;
    check_problem(&routes.post("/api/zones/pjm/prices", "application/json", "{").await, 400, "invalid_json");
    check_problem(
        &routes.post("/api/zones/pjm/prices", "text/csv", "A,1").await,
        415,
        "unsupported_media_type",
    );
    check_problem(
        &routes.post("/api/zones/a%20b/prices", "application/json", "{}").await,
        400,
        "invalid_name",
    );
    for path in ["/ws/stats", "/api/ws/ws/stats?connections=5"] {
        let stats = body_of(&routes.get(path).await);
        let http = &stats["http"];
        assert_eq!(
            (&http["price_requests"], &http["price_requests_refused"], &http["prices_accepted"]),
            (&json!(4), &json!(3), &json!(2)),
            "{path}"
        );
        assert_eq!(stats["channels"]["entries_accepted"], 2);
    }
    let metrics = routes.get("/metrics").await;
    let text = text_of(&metrics);
    assert!(text.contains("zonewire_prices_accepted_total 2\n"), "{text}");
    check_classic(text);
    assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let open = Request::get("/metrics").header("accept", "application/openmetrics-text;version=1.0.0");
    let metrics = routes.send(open, "").await;
    let text = text_of(&metrics);
    assert!(text.contains("zonewire_prices_accepted_total 2\n") && text.ends_with("# EOF\n"), "{text}");
    assert_eq!(
        metrics.headers()["content-type"],
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    check_problem(&routes.get("/ws/stats?connections=x").await, 400, "invalid_query");
    let problem = routes.get("/ws/stats?scope=world").await;
    check_problem(&problem, 400, "invalid_query");
    let detail = body_of(&problem)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("`node`") && detail.contains("`fleet`") && detail.contains("world"), "{detail}");
    let node = body_of(&routes.get("/ws/stats?scope=node&connections=0").await);
    assert_eq!(
        (&node["connection_list"], &node["fleet"]["nodes_by_state"]["serving"]),
        (&json!([]), &json!(1))
    );
    let fleet = body_of(&routes.get("/ws/stats?scope=fleet&connections=0").await);
    assert_eq!((&fleet["scope"], &fleet["nodes_known"]), (&json!("fleet"), &json!("this_one")));
    assert_eq!((&fleet["nodes"][0]["node"], &fleet["nodes"][0]["here"]), (&node["node"], &json!(true)));
}

/// Parses the classic text format (0.0.4) strictly, with the rules of `promtool check metrics` for names.
fn check_classic(text: &str) {
    let is_name = |name: &str| {
        ["zonewire_", "process_", "redis_"].iter().any(|prefix| name.starts_with(prefix))
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let (mut families, mut lines) = (BTreeMap::new(), text.lines().peekable());
    assert!(text.ends_with('\n'));
    while let Some(line) = lines.next() {
        // Each family has its help, then its type, then its samples.
        let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
        assert!(is_name(name) && !help.is_empty() && !help.contains('\\'), "{line}");
        let kind = lines.next().unwrap();
        let kind = kind.strip_prefix("# TYPE ").and_then(|rest| rest.strip_prefix(name)).expect(kind).trim();
        assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}: {kind}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
        let units = ["_ms", "_milliseconds", "_minutes", "_hours", "_kb", "_mb"];
        assert!(!units.iter().any(|unit| name.trim_end_matches("_total").ends_with(unit)), "{line}");
        let mut samples = Vec::new();
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = sample.rsplit_once(' ').expect(sample);
            let mut labels = series.strip_prefix(name).expect(sample);
            if kind == "histogram" {
                let parts = ["_bucket", "_sum", "_count"];
                labels = parts.iter().find_map(|part| labels.strip_prefix(part)).expect(sample);
            }
            let is_label = |label: &str| {
                label
                    .strip_suffix("\"}")
                    .and_then(|label| label.strip_prefix('{')?.split_once("=\""))
                    .is_some_and(|(label, value)| !label.is_empty() && !value.contains(['"', '\\', ',']))
            };
            assert!(labels.is_empty() || is_label(labels), "{sample}");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{sample}");
            samples.push(series.to_owned());
        }
        samples.sort_unstable();
        let all = samples.len();
        samples.dedup();
        assert_eq!(samples.len(), all, "{name} has a series twice");
        assert!(families.insert(name, all).is_none(), "{name} occurs twice");
    }
    assert!(families.len() > 90 && families.values().all(|samples| *samples > 0), "{families:?}");
}

#[tokio::test]
async fn operations_lists_each_metric() {
    const HEAD: &str = "| metric | type | what |\n| --- | --- | --- |\n";
    let metrics = Routes::new().await.get("/metrics").await;
    let text = text_of(&metrics);
    let (mut rows, mut lines) = (String::new(), text.lines().peekable());
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
        let kind = lines.next().and_then(|line| line.rsplit_once(' ')).unwrap().1;
        let samples: Vec<&str> =
            std::iter::from_fn(|| lines.next_if(|line| !line.starts_with('#'))).collect();
        let label = samples[0].split_once('{').and_then(|(_, label)| label.split_once('='));
        let label = label.filter(|_| kind != "histogram").map(|(label, _)| format!("{{{label}}}"));
        rows += &format!("| `{name}{}` | {kind} | {help} |\n", label.unwrap_or_default());
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let (before, table) = found.split_once(HEAD).unwrap();
    let (_, after) = table.split_once("\n\n").unwrap();
    let expected = format!("{before}{HEAD}{rows}\n{after}");
    if std::env::var_os("ZONEWIRE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
    } else {
        assert!(found == expected, "run with ZONEWIRE_UPDATE_DOCS=1 to write docs/OPERATIONS.md anew");
    }
}

#[tokio::test]
async fn zones_latest_and_history_show_what_was_posted() {
    let routes = Routes::new().await;
    assert_eq!(body_of(&routes.get("/api/zones").await), json!({ "zones": [] }));
    for n in 1..=3 {
        routes.publish(&format!(r#"[{{"key":"A","price":{n}.50}},{{"key":"B","price":{n}}}]"#), 2).await;
    }
    let zones = body_of(&routes.get("/api/zones").await);
    let pjm = json!({ "zone": "pjm", "channel": "zone:pjm", "lane": "latest", "stream": "/ws/market/pjm" });
    assert_eq!(zones, json!({ "zones": [pjm] }));

    let latest = routes.get("/api/zones/pjm/latest").await;
    assert!(text_of(&latest).contains(r#""price":3.50"#), "digits are kept");
    let mut latest = offsets(&body_of(&latest));
    latest.sort_unstable();
    assert_eq!(latest, [5, 6]);

    let history = body_of(&routes.get("/api/zones/pjm/history").await);
    assert_eq!((&history["first_offset"], &history["last_offset"]), (&json!(1), &json!(6)));
    assert_eq!(offsets(&history), [1, 2, 3, 4, 5, 6]);
    let epoch = history["epoch"].as_str().unwrap();
    for (query, expected) in [
        ("limit=2".to_owned(), &[5, 6][..]),
        (format!("limit=2&after={epoch}:1"), &[2, 3]),
        (format!("after={epoch}:6"), &[]),
    ] {
        let history = body_of(&routes.get(&format!("/api/zones/pjm/history?{query}")).await);
        assert_eq!(offsets(&history), expected, "{query}");
    }
    for (query, status, code) in [
        ("limit=0", 400, "invalid_limit"),
        ("limit=1001", 400, "invalid_limit"),
        ("limit=many", 400, "invalid_query"),
        ("after=5", 400, "invalid_position"),
        ("after=0123456789abcdef:5", 410, "foreign_epoch"),
    ] {
        check_problem(&routes.get(&format!("/api/zones/pjm/history?{query}")).await, status, code);
    }
    let unknown = body_of(&routes.get("/api/zones/nowhere/history").await);
    assert_eq!((&unknown["entries"], unknown.get("epoch")), (&json!([]), None));
    check_problem(&routes.get("/api/zones/a%20b/latest").await, 400, "invalid_name");
    check_problem(&routes.get("/api/zones/a%2Fb/history").await, 400, "invalid_name");
}

#[tokio::test]
async fn the_page_and_what_it_names_are_there() {
    let routes = Routes::new().await;
    let page = routes.get("/").await;
    assert_eq!(page.status(), 200);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let html = text_of(&page);
    let script = html.split("src=\".").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let script = routes.get(script).await;
    assert_eq!(script.headers()["content-type"], "text/javascript; charset=utf-8");
    assert!(script.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    let head = routes.send(Request::head("/"), "").await;
    assert_eq!((head.status(), &head.headers()["etag"]), (page.status(), &page.headers()["etag"]));
    check_problem(&routes.get("/assets/nowhere.js").await, 404, "not_found");
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_a_problem() {
    let routes = Routes::new().await;
    for path in ["/nowhere", "/api", "/api/zones/pjm/x", "/health/x", "/ws/market", "/page.css", "//"] {
        check_problem(&routes.get(path).await, 404, "not_found");
    }
    let refused = [
        ("GET", "/api/zones/pjm"),
        ("GET", "/api/zones/pjm/prices"),
        ("DELETE", "/health"),
        ("PUT", "/api/zones"),
    ];
    for (method, path) in refused {
        let answer = routes.send(Request::builder().method(method).uri(path), "").await;
        check_problem(&answer, 405, "method_not_allowed");
    }
    let large = format!("[{}]", vec![r#"{"key":"A","price":1}"#; 100].join(","));
    let answer = routes.post("/api/zones/pjm/prices", "application/json", &large).await;
    check_problem(&answer, 413, "body_too_large");
}

#[tokio::test]
async fn web_sockets_need_a_right_request_and_a_real_connection() {
    let routes = Routes::new().await;
    for path in ["/ws", "/ws/market/pjm", "/ws/market/pjm?since=0123456789abcdef:7"] {
        let plain = routes.get(path).await;
        check_problem(&plain, 426, "upgrade_required");
        assert_eq!(plain.headers()["sec-websocket-version"], "13");
        let right = Request::get(path)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        check_problem(&routes.send(right, "").await, 400, "not_upgradable");
    }
}

#[tokio::test]
async fn whatever_has_a_body_needs_room_for_it() {
    let routes = Routes::with_room(40).await;
    routes.publish(r#"{"key":"A","price":1}"#, 1).await;
    let id = "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
    let long = format!(r#"{{"key":"A","price":1,"note":"{}"}}"#, "x".repeat(40));
    for (path, content_type) in [
        ("/api/zones/pjm/prices".to_owned(), "application/json"),
        ("/api/zones/pjm/prices".to_owned(), "application/x-ndjson"),
        ("/api/orders/execute".to_owned(), "application/json"),
        (format!("/api/orders/{id}/updates"), "application/json"),
        ("/api/jobs/claim".to_owned(), "application/json"),
        (format!("/api/jobs/{id}/progress"), "application/json"),
    ] {
        let answer = routes.post(&path, content_type, &long).await;
        check_problem(&answer, 503, "busy");
        assert_eq!(answer.headers()["retry-after"], "1", "{path}");
        // A refused request must not keep memory reserved.
        routes.publish(r#"{"key":"A","price":2}"#, 1).await;
    }
    // Parsed, small prices take more memory than in the body.
    let routes_of_more = Routes::with_room(1_000).await;
    let prices = [r#"{"key":"A","price":1}"#; 10].join(",");
    let answer =
        routes_of_more.post("/api/zones/pjm/prices", "application/json", &format!("[{prices}]")).await;
    // Repeating cannot help, so the answer must not suggest it.
    check_problem(&answer, 413, "body_too_large");
    routes_of_more.publish(r#"[{"key":"A","price":1},{"key":"A","price":2}]"#, 2).await;

    let metrics = routes.get("/metrics").await;
    let metrics = text_of(&metrics);
    for line in ["zonewire_requests_refused_total{reason=\"busy\"} 6", "zonewire_body_bytes 0"] {
        assert!(metrics.contains(line), "{metrics}");
    }
}
