//! Small runs of the measurements of orders: they must end, and find nothing wrong.

use serde_json::{Value, json};
use zonewire_kit::redis::RedisServer;

use crate::support::{bench, gateway, has_redis};

/// Settings under which a machine that stands still for a second is not an outage.
fn on(server: &RedisServer) -> Vec<String> {
    vec![
        "storage.backend=redis".to_owned(),
        "storage.required=true".to_owned(),
        format!("storage.redis.url=redis://127.0.0.1:{}", server.port),
        "storage.redis.ordering_deadline_ms=30000".to_owned(),
        "storage.redis.connect_timeout_ms=10000".to_owned(),
        "storage.redis.command_timeout_ms=15000".to_owned(),
    ]
}

fn in_memory(settings: &[&str]) -> Vec<String> {
    [&["storage.backend=memory"], settings].concat().into_iter().map(str::to_owned).collect()
}

/// Orders are executed at once, and none fails.
const QUICK: [&str; 3] = ["orders.paper.failure_rate=0", "orders.paper.step_ms=0", "orders.poll_ms=5"];

#[tokio::test(flavor = "multi_thread")]
async fn updates_posted_to_one_gateway_arrive_on_sockets_of_another() {
    if !has_redis().await {
        return;
    }
    let server = RedisServer::start(&[]).await.unwrap();
    let (here, there) = (gateway(&on(&server)).await, gateway(&on(&server)).await);
    let arguments = format!(
        "order-updates --url http://{} --post-url http://{} --orders 5 --connections 3 --rate 100 \
         --duration 1 --warmup 0.2 --settle 0",
        here.address, there.address
    );
    check_updates(&bench(&arguments, "").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_in_memory_arrive_once_each() {
    let gateway = gateway(&in_memory(&[])).await;
    let arguments = format!(
        "order-updates --url http://{} --orders 5 --rate 100 --duration 1 --warmup 0 --settle 0",
        gateway.address
    );
    check_updates(&bench(&arguments, "").await.unwrap());
}

#[track_caller]
fn check_updates(report: &Value) {
    for fault in ["lost", "doubled", "reordered", "stale", "broken_frames"] {
        assert_eq!(report[fault], 0, "{fault} in {report}");
    }
    let number = |name: &str| report[name].as_u64().unwrap();
    // Their number depends on the machine.
    assert!(number("received") > 0 && number("received") == number("expected"), "{report}");
    for measured in ["latency_us", "after_answer_us", "answer_us"] {
        assert_eq!(report[measured]["count"], report["updates"], "{measured} in {report}");
    }
    assert_eq!(report["closed_by_code"], json!({}), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_placed_all_end_and_are_counted() {
    let gateway = gateway(&in_memory(&QUICK)).await;
    // An earlier order is not counted.
    let first = format!("order-throughput --url http://{} --orders 1 --connections 1", gateway.address);
    assert_eq!(bench(&first, "").await.unwrap()["confirmed"], 1);
    let arguments = format!("order-throughput --url http://{} --orders 40 --connections 4", gateway.address);
    let report = bench(&arguments, "").await.unwrap();
    for (name, expected) in [("confirmed", 40), ("failed", 0), ("retried", 0), ("unfinished", 0)] {
        assert_eq!(report[name], expected, "{name} in {report}");
    }
    for (stage, expected) in [("placed", 40), ("runs", 40), ("updates", 7 * 40), ("ended", 40)] {
        assert_eq!(report[stage]["count"], expected, "{stage} in {report}");
    }
    assert_eq!(report["answer_us"]["count"], 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_nobody_executes_are_unfinished() {
    let gateway = gateway(&in_memory(&["orders.executor=external", "orders.queue_max=3"])).await;
    let run = async |orders: u64| {
        let url = format!("http://{}", gateway.address);
        bench(&format!("order-throughput --url {url} --orders {orders} --timeout 3"), "").await
    };
    let report = run(2).await.unwrap();
    assert_eq!((&report["unfinished"], &report["orders_per_s"]), (&json!(2), &json!(0.0)), "{report}");
    let refused = run(2).await.unwrap_err();
    assert!(refused.contains("503") && refused.contains("queue_full"), "{refused}");
}
