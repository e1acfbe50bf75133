//! Placing and reading orders, as clients do.

use std::net::SocketAddr;

use serde_json::{Value, json};
use uuid::Uuid;
use zonewire::config::{Config, ExecutorChoice};
use zonewire_protocol::{EntryMessage, Known as _, OrderPlaced, OrderStatus};

use super::eventually::eventually;
use super::gateway::{Answer, JSON, Running, config, request};

/// A gateway with the paper executor, fast and without failures.
pub(crate) fn paper() -> Config {
    let mut config = config();
    config.orders.paper.failure_rate = 0.0;
    config.orders.paper.step_ms = 5;
    config
}

/// A gateway whose orders are executed by outside workers. A dead worker is noticed after a second.
pub(crate) fn external() -> Config {
    let mut config = config();
    config.orders.executor = ExecutorChoice::External;
    config.orders.lease_s = 1;
    config
}

/// The base URL of a gateway.
pub(crate) fn base(gateway: &Running) -> String {
    format!("http://{}", gateway.address)
}

/// The id of an order that nobody placed.
pub(crate) fn new_order() -> String {
    Uuid::new_v4().to_string()
}

/// The order of every test, unless it says otherwise.
pub(crate) fn swap() -> Value {
    json!({ "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5, "slippage": 1 })
}

/// Posts JSON.
pub(crate) async fn post_json(address: SocketAddr, path: &str, body: &Value) -> Answer {
    request(address, "POST", path, &[("content-type", JSON)], body.to_string().as_bytes()).await
}

/// Publishes an event, which must be accepted.
pub(crate) async fn publish_event(address: SocketAddr, event: &str, data: &Value) {
    let answer = post_json(address, &format!("/api/events/{event}"), data).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Posts an order with an idempotency key.
pub(crate) async fn place_under(address: SocketAddr, key: &str, order: &Value) -> Answer {
    let headers = [("content-type", JSON), ("idempotency-key", key)];
    request(address, "POST", "/api/orders/execute", &headers, order.to_string().as_bytes()).await
}

/// Places an order, which must be accepted.
pub(crate) async fn place(address: SocketAddr) -> String {
    place_this(address, &swap()).await
}

/// Places this order, which must be accepted.
pub(crate) async fn place_this(address: SocketAddr, order: &Value) -> String {
    let answer = post_json(address, "/api/orders/execute", order).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.read::<OrderPlaced>().order_id.to_string()
}

/// `GET /api/orders/{id}`; the order must be known.
pub(crate) async fn get_order(address: SocketAddr, id: &str) -> Value {
    let answer = request(address, "GET", &format!("/api/orders/{id}"), &[], b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Waits until the status of an order fulfils a condition.
async fn until(address: SocketAddr, id: &str, what: &str, is_it: impl Fn(OrderStatus) -> bool) -> Value {
    eventually(&format!("order {id} {what}"), async || {
        let order = get_order(address, id).await;
        let status = OrderStatus::of(order["status"].as_str()?);
        status.is_some_and(&is_it).then_some(order)
    })
    .await
}

/// Waits until an order has a status.
pub(crate) async fn until_status(address: SocketAddr, id: &str, status: &str) -> Value {
    let wanted = OrderStatus::of(status).unwrap();
    until(address, id, &format!("is {status}"), |status| status == wanted).await
}

/// Waits until an order has ended, however.
pub(crate) async fn until_ended(address: SocketAddr, id: &str) -> Value {
    let ends = |status| matches!(status, OrderStatus::Confirmed | OrderStatus::Failed);
    until(address, id, "ends", ends).await
}

/// Checks what holds for every order's updates: offsets without holes, stages in order within a run of an
/// attempt, attempts one by one, and at most one terminal update. Returns the types in order.
pub(crate) fn check_updates(updates: &[Value]) -> Vec<String> {
    let mut before: Option<(u64, u64, u64, u64)> = None;
    let mut types = Vec::new();
    for (place, update) in updates.iter().enumerate() {
        let update: EntryMessage = serde_json::from_str(&update.to_string()).unwrap();
        let number = |name: &str| -> Option<u64> {
            let number = serde_json::from_str(update.fields.raw(name)?.get());
            Some(number.unwrap_or_else(|error| panic!("{error}: {name} in {update:?}")))
        };
        let (attempt, run) = (number("attempt").unwrap_or(1), number("run").unwrap_or(1));
        let (offset, progress) = (update.offset, number("progress").expect("its progress"));
        assert!(
            !update.is_terminal() || place + 1 == updates.len(),
            "something follows the end: {updates:?}"
        );
        if let Some((offset_before, attempt_before, run_before, progress_before)) = before {
            assert_eq!(offset, offset_before + 1, "{updates:?}");
            let goes_on = attempt == attempt_before && progress >= progress_before;
            let stage = OrderStatus::of(&update.kind);
            let begins = (attempt == attempt_before + 1 || attempt == attempt_before && run > run_before)
                && matches!(stage, Some(OrderStatus::Routing | OrderStatus::Submitted));
            assert!(goes_on || begins || stage == Some(OrderStatus::Failed), "{updates:?}");
        }
        before = Some((offset, attempt, run, progress));
        types.push(update.kind.into());
    }
    types
}

/// The types of an order's stored updates, checked.
pub(crate) fn types(order: &Value) -> Vec<String> {
    check_updates(order["updates"].as_array().unwrap())
}

/// Publishes an update of an order that is executed elsewhere.
pub(crate) async fn update(address: SocketAddr, order: &str, update: Value) {
    let answer = post_json(address, &format!("/api/orders/{order}/updates"), &update).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"accepted": 1})), "{update}");
}

/// Checks that updates are a whole order, from the first one to this terminal one. Returns the types in
/// order.
pub(crate) fn check_whole(updates: &[Value], end: &str) -> Vec<String> {
    let types = check_updates(updates);
    assert_eq!(updates[0]["offset"], 1, "{updates:?}");
    assert_eq!(types.last().map(String::as_str), Some(end), "{updates:?}");
    types
}
