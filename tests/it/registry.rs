//! Registries from the outside: over HTTP, on streams, on two gateways with one Redis, and without it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use zonewire::config::Config;
use zonewire::registry::{Query, RegistryKind};
use zonewire_kit::redis::{DURABLE, RedisServer};

use crate::support;
use crate::support::client::{Client, assert_has};
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Answer, JSON, Running, config, request};
use crate::support::process::Process;
use crate::support::redis::{Admin, redis};

fn on(server: &RedisServer) -> Config {
    let mut config = support::redis::on(server);
    config.registry.offline_grace_s = 1;
    config
}

async fn send(at: SocketAddr, method: &str, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let headers: Vec<(&str, &str)> =
        [("content-type", JSON)].into_iter().chain(headers.iter().copied()).collect();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(at, method, path, &headers, body.as_bytes()).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

async fn healthy(gateway: &Running) {
    until("both registries are healthy", async || {
        let status = gateway.get("/api/registry").await.json();
        let is_healthy = |name: &str| status[name]["state"] == "healthy";
        is_healthy("providers") && is_healthy("active_orders")
    })
    .await;
}

/// The records that a gateway lists, by key.
async fn listed(gateway: &Running, path: &str, id: &str) -> BTreeMap<String, Value> {
    let list = gateway.get(path).await.json();
    let records = list["records"].as_array().unwrap();
    records.iter().map(|record| (record[id].to_string(), record.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_written_read_and_listed_over_http() {
    let gateway = Running::start(config()).await;
    let at = gateway.address;
    healthy(&gateway).await;
    let ada = json!({ "userId": 1, "name": "Ada", "status": "online", "paymentMethods": ["card", "cash"] });
    let added = send(at, "POST", "/api/providers?written=1", &ada, &[]).await;
    assert_eq!((added.status, header(&added, "location")), (201, Some("/api/providers/1")), "{added:?}");
    assert!(added.json()["lastSeen"].is_string() && header(&added, "registry-state") == Some("healthy"));
    let first = header(&added, "etag").unwrap().to_owned();
    send(at, "POST", "/api/providers", &ada, &[]).await.problem(409, "record_exists");

    // A conditional change applies to the version that was read, or not at all.
    let away = json!({ "status": "away", "name": null });
    let changed = send(at, "PATCH", "/api/providers/1", &away, &[("if-match", &first)]).await;
    assert_eq!(changed.status, 200);
    assert_has(&changed.json(), json!({ "status": "away", "name": null }));
    let refused = send(at, "PATCH", "/api/providers/1", &away, &[("if-match", &first)]).await;
    refused.problem(412, "precondition_failed");
    let refused = send(at, "PUT", "/api/providers/1", &json!({}), &[("if-none-match", "*")]).await;
    refused.problem(412, "precondition_failed");
    let merge = [("content-type", "application/merge-patch+json")];
    let patched = request(at, "PATCH", "/api/providers/1", &merge, br#"{"rating":4.50}"#).await;
    assert!(patched.status == 200 && patched.body.contains(r#""rating":4.50"#), "{patched:?}");
    assert_eq!(gateway.get("/api/providers/1").await.json()["rating"], 4.5);
    let renewed = send(at, "POST", "/api/providers/1/heartbeat", &Value::Null, &[]).await;
    assert!(renewed.status == 200 && header(&renewed, "etag") > header(&patched, "etag"), "{renewed:?}");

    for n in 2..=5 {
        let put = json!({ "status": "online", "rating": n, "location": "Oslo" });
        assert_eq!(send(at, "PUT", &format!("/api/providers/{n}"), &put, &[]).await.status, 201);
    }
    let order = json!({ "orderId": 123, "providerId": 1, "state": "assigned" });
    assert_eq!(send(at, "POST", "/api/active-orders", &order, &[]).await.status, 201);
    for (path, keys) in [
        ("/api/active-orders?orderId=123", "123"),
        ("/api/active-orders?providerId=1&state=assigned", "123"),
        ("/api/active-orders?providerId=2", ""),
        ("/api/providers?paymentMethods=cash", "1"),
        ("/api/providers?location=Oslo&sort=-rating&limit=2", "5 4"),
    ] {
        let list = gateway.get(path).await.json();
        let key = |record: &Value| {
            let key = record.get("orderId").or_else(|| record.get("userId")).unwrap();
            key.as_str().map_or_else(|| key.to_string(), str::to_owned)
        };
        let found: Vec<String> = list["records"].as_array().unwrap().iter().map(key).collect();
        assert_eq!(found.join(" "), keys, "{path}");
    }
    let page = gateway.get("/api/providers?sort=rating&limit=3").await.json();
    let next = page["next"].as_str().unwrap().replace('"', "%22");
    let rest = gateway.get(&format!("/api/providers?sort=rating&after={next}")).await.json();
    assert_eq!((rest["records"].as_array().unwrap().len(), rest["total"].as_u64()), (2, Some(5)));

    let removed = send(at, "DELETE", "/api/providers/5", &Value::Null, &[]).await;
    assert_eq!(removed.status, 204);
    gateway.get("/api/providers/5").await.problem(404, "unknown_record");
    let all = json!([{ "userId": "x" }, { "userId": 1 }]);
    let set = send(at, "PUT", "/api/providers", &all, &[]).await.json();
    assert_eq!(set, json!({ "records": 2, "before": 4 }));
    assert_eq!(listed(&gateway, "/api/providers", "userId").await.len(), 2);
    assert_eq!(send(at, "DELETE", "/api/providers", &Value::Null, &[]).await.json()["before"], 2);
    let stats = gateway.stats().await;
    assert_eq!(stats["registries"]["providers"]["records"], 0, "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_what_is_wrong_with_a_request() {
    let mut config = config();
    config.registry.records_max = 2;
    config.registry.record_bytes_max = 200;
    let gateway = Running::start(config).await;
    let at = gateway.address;
    healthy(&gateway).await;
    for n in 0..2 {
        assert_eq!(send(at, "PUT", &format!("/api/providers/{n}"), &json!({}), &[]).await.status, 201);
    }
    let long = json!({ "userId": 1, "x": "x".repeat(200) });
    for (method, path, body, status, code) in [
        ("POST", "/api/providers", json!({}), 422, "invalid_record"),
        ("POST", "/api/providers", json!([]), 422, "invalid_record"),
        ("POST", "/api/providers", json!({ "userId": 1.5 }), 422, "invalid_record"),
        ("POST", "/api/providers", json!({ "userId": 3 }), 422, "too_many_records"),
        ("PUT", "/api/providers/1", json!({ "userId": 2 }), 422, "invalid_record"),
        ("PUT", "/api/providers/1", long, 413, "record_too_large"),
        ("PUT", "/api/providers/1?connection=x", json!({}), 400, "invalid_query"),
        (
            "PUT",
            "/api/providers/1?connection=6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11",
            json!({}),
            404,
            "unknown_connection",
        ),
        ("PUT", "/api/active-orders/1?connection=x", json!({}), 400, "invalid_query"),
        ("PATCH", "/api/providers/7", json!({}), 404, "unknown_record"),
        ("PATCH", "/api/providers/1", json!({ "userId": null }), 200, ""),
        ("PUT", "/api/providers", json!({}), 422, "invalid_record"),
        ("PUT", "/api/providers", json!([{ "userId": 1 }, {}]), 422, "invalid_record"),
        ("PUT", "/api/providers", json!([{ "userId": 1 }, { "userId": "1" }]), 422, "invalid_record"),
        ("GET", "/api/providers?limit=0", Value::Null, 400, "invalid_limit"),
        ("GET", "/api/providers?sort=a&after=b", Value::Null, 400, "invalid_query"),
        ("POST", "/api/registry/sync", Value::Null, 404, "not_found"),
        ("POST", "/api/registry/sync?x=1", Value::Null, 400, "invalid_query"),
    ] {
        let answer = send(at, method, path, &body, &[]).await;
        if code.is_empty() {
            assert_eq!(answer.status, status, "{method} {path} {answer:?}");
        } else {
            answer.problem(status, code);
        }
    }
    let refused = send(at, "PATCH", "/api/providers/1", &json!({}), &[("if-match", "x")]).await;
    refused.problem(400, "invalid_header");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_streamed_after_a_snapshot() {
    let gateway = Running::start(config()).await;
    let at = gateway.address;
    healthy(&gateway).await;
    let ada = json!({ "userId": 1, "type": "own", "id": 7 });
    send(at, "POST", "/api/providers?written=1", &ada, &[]).await;
    let mut client = gateway.connect("/ws").await;
    let subscribe = json!({ "type": "subscribe", "channels": ["registry:providers"], "snapshot": true });
    client.send(&subscribe).await;
    let held = client.next_of_type("record_update").await;
    assert_has(&held, json!({ "key": "1", "snapshot": true }));
    assert_eq!(held["record"]["id"], 7);
    client.next_of_type("snapshot_end").await;
    send(at, "PATCH", "/api/providers/1", &json!({ "status": "away" }), &[]).await;
    let changed = client.next_of_type("record_update").await;
    assert_eq!((&changed["record"]["status"], &changed["record"]["type"]), (&json!("away"), &json!("own")));
    assert!(changed["version"].as_str() > held["version"].as_str());
    send(at, "DELETE", "/api/providers/1", &Value::Null, &[]).await;
    let removed = client.next_of_type("key_removed").await;
    assert!(removed["key"] == "1" && removed["version"].as_str() > changed["version"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_hold_the_same_even_after_an_outage_of_redis() {
    let Some(mut server) = redis(&DURABLE).await else { return };
    let old = r#"[{"userId":"old","status":"online"},{"name":"nobody"}]"#;
    server.admin(&["SET", "socket:onlineProviders", old]).await;
    let (mut first, mut second) = (on(&server), on(&server));
    (first.registry.legacy_import, first.registry.legacy_write) = (true, true);
    // Registries are shared, and reach the keys of other programs, even if the logs of live events are each
    // node's own.
    (first.bridge.enabled, second.bridge.enabled) = (true, true);
    let (a, b) = (Running::start(first).await, Running::start(second).await);
    healthy(&a).await;
    healthy(&b).await;
    for n in 0..20 {
        let put = json!({ "n": n });
        assert_eq!(send(a.address, "PUT", &format!("/api/providers/{n}"), &put, &[]).await.status, 201);
    }
    let same = async |what: &str| {
        eventually(what, async || {
            let (one, other) = (
                listed(&a, "/api/providers?limit=1000", "userId").await,
                listed(&b, "/api/providers?limit=1000", "userId").await,
            );
            (one == other).then_some(one)
        })
        .await
    };
    until("all records have reached the other gateway", async || {
        listed(&b, "/api/providers?limit=1000", "userId").await.len() == 21
    })
    .await;
    assert_eq!(same("filled on one, read on the other").await.len(), 21);
    eventually("the Redis key of other programs is written", async || {
        let text = server.admin(&["GET", "socket:onlineProviders"]).await;
        let records: Vec<Value> = serde_json::from_str(&text).ok()?;
        (records.len() == 21).then_some(())
    })
    .await;

    server.kill().await.unwrap();
    for gateway in [&a, &b] {
        until("it is told", async || {
            let list = gateway.get("/api/providers?limit=1").await.json();
            list["state"] == "degraded"
        })
        .await;
    }
    for (n, gateway, method) in
        [(0, &a, "PUT"), (1, &b, "PUT"), (2, &a, "DELETE"), (3, &b, "DELETE"), (4, &a, "PUT"), (4, &b, "PUT")]
    {
        let body = if method == "PUT" { json!({ "n": 100 + n, "by": method }) } else { Value::Null };
        let answer = send(gateway.address, method, &format!("/api/providers/{n}"), &body, &[]).await;
        assert!(answer.status < 300, "{answer:?}");
    }
    let new = json!({ "userId": "new", "status": "online" });
    assert_eq!(send(b.address, "POST", "/api/providers", &new, &[]).await.status, 201);
    a.get("/api/providers/new").await.problem(503, "unknown_while_degraded");
    send(a.address, "DELETE", "/api/providers", &Value::Null, &[]).await.problem(503, "storage_degraded");
    send(a.address, "PUT", "/api/providers", &json!([]), &[]).await.problem(503, "storage_degraded");
    a.post_empty("/api/registry/sync").await.problem(503, "storage_degraded");

    server.restart().await.unwrap();
    healthy(&a).await;
    healthy(&b).await;
    let records = eventually("both hold what both wrote", async || {
        let records = same("after the outage").await;
        (records.contains_key("\"new\"") && !records.contains_key("\"3\"")).then_some(records)
    })
    .await;
    assert_eq!(records.len(), 20, "{records:?}");
    for (n, value) in [("\"0\"", 100), ("\"1\"", 101), ("\"4\"", 104)] {
        assert_eq!(records[n]["n"], value);
    }

    // A gateway that starts now agrees too, with the log as its only source.
    a.stop().await;
    b.stop().await;
    let late = Running::start(on(&server)).await;
    healthy(&late).await;
    assert_eq!(listed(&late, "/api/providers?limit=1000", "userId").await, records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_goes_offline_with_its_connection() {
    let Some(server) = redis(&[]).await else { return };
    let (a, b) = (Running::start(on(&server)).await, Running::start(on(&server)).await);
    healthy(&a).await;
    healthy(&b).await;
    let mut client = a.connect("/ws").await;
    let id =
        client.next_of_type("connection_established").await["connection_id"].as_str().unwrap().to_owned();
    let path = format!("/api/providers/7?connection={id}");
    send(b.address, "PUT", &path, &json!({}), &[]).await.problem(404, "unknown_connection");
    assert_eq!(send(a.address, "PUT", &path, &json!({ "status": "online" }), &[]).await.status, 201);
    let status = async |wanted: &str| {
        until(wanted, async || {
            let answer = b.get("/api/providers/7").await;
            answer.status == 200 && answer.json()["status"] == wanted
        })
        .await;
    };
    status("online").await;
    client.close().await;
    status("offline").await;
    a.stop().await;

    // The same happens if its gateway is killed, which cannot report it.
    let mut killed = Process::start_on(&server, &[]).await;
    let mut client = Client::connect(&format!("ws://{}/ws", killed.address)).await;
    let id =
        client.next_of_type("connection_established").await["connection_id"].as_str().unwrap().to_owned();
    let path = format!("/api/providers/7?written=1&connection={id}");
    let back = send(killed.address, "PUT", &path, &json!({ "status": "online" }), &[]).await;
    assert!(back.status < 300, "{back:?}");
    status("online").await;
    killed.kill().await;
    status("offline").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_executed_here_are_active_until_they_end() {
    let mut config = config();
    config.orders.paper.step_ms = 200;
    config.orders.paper.failure_rate = 0.0;
    let gateway = Running::start(config).await;
    healthy(&gateway).await;
    let swap = json!({ "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1 });
    let placed = send(gateway.address, "POST", "/api/orders/execute", &swap, &[]).await.json();
    let path = format!("/api/active-orders?orderId={}", placed["orderId"].as_str().unwrap());
    let count = async |wanted: u64| {
        until("an order is under way", async || gateway.get(&path).await.json()["total"] == wanted).await;
    };
    count(1).await;
    count(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_embeds_a_gateway_reads_registries_without_http() {
    let gateway = zonewire::gateway::Gateway::start(config()).await.unwrap();
    let registry = gateway.registry().clone();
    let kind = RegistryKind::ActiveOrders;
    let put = registry.put(kind, Some("9"), r#"{"state":"open"}"#, &Default::default()).unwrap();
    assert!(put.is_new && registry.get(kind, "9").unwrap().text() == r#"{"orderId":"9","state":"open"}"#);
    let query =
        Query { filter: vec![("state".to_owned(), "open".to_owned())], limit: 10, ..Query::default() };
    assert_eq!(registry.list(kind, &query).unwrap().total, 1);
    assert!(registry.remove(kind, "9", &Default::default()).is_ok() && registry.is_empty(kind));
    gateway.run(async {}).await.unwrap();
}
