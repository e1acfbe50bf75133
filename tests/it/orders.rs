//! Orders from the POST to their end: in memory and on Redis, executed in this process, in another one,
//! and by outside workers.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use zonewire::config::{Config, ExecutorChoice, Role};
use zonewire::gateway::{Gateway, StartError};
use zonewire::orders::{
    Confirmation, ExecutionError, OrderExecutor, OrderHandle, OrderRequest, WhenDegraded,
};
use zonewire::storage::StorageChoice;
use zonewire_kit::redis::RedisServer;

use crate::support;
use crate::support::client::assert_has;
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Answer, JSON, Running, config, request};
use crate::support::orders::{
    check_updates, get_order, place, place_under, post_json, swap, types, until_ended, until_status,
};
use crate::support::process::{Process, Signal};
use crate::support::redis::{Configured, nowhere, redis};

/// Fast orders that always succeed.
fn quick(mut config: Config) -> Config {
    config.orders.paper.failure_rate = 0.0;
    config.orders.paper.step_ms = 1;
    config.orders.retry_first_ms = 1;
    config.orders.retry_max_ms = 5;
    config.orders.poll_ms = 5;
    config
}

/// Orders executed by outside workers.
fn external(mut config: Config) -> Config {
    config.orders.executor = ExecutorChoice::External;
    config
}

/// The default configuration without a Redis: nothing listens on the configured port.
fn alone() -> Config {
    let mut config = config();
    config.storage.backend = StorageChoice::Auto;
    config.storage.redis.port = Some(nowhere());
    config
}

fn on(server: &RedisServer) -> Config {
    let mut config = support::redis::on(server);
    config.storage.redis = server.patient_config();
    config
}

/// A test that must pass on every storage.
macro_rules! on_every_storage {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::support::gateway::config()).await;
            })*
        }
        mod alone {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::alone()).await;
            })*
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(server) = super::redis(&[]).await else { return };
                super::$name(super::on(&server)).await;
            })*
        }
    };
}

on_every_storage!(
    an_order_is_executed_and_each_step_is_published,
    the_same_key_and_order_give_the_same_order,
    orders_are_listed_newest_first_by_status_and_in_pages,
    an_order_that_fails_every_attempt_becomes_a_dead_letter_and_can_be_retried,
    dead_letters_are_listed_in_pages,
    a_full_queue_refuses_and_stores_nothing,
    a_waiting_order_can_be_cancelled,
    an_order_in_progress_can_be_cancelled_before_it_is_submitted,
    an_outside_worker_executes_an_order,
    an_outside_worker_must_follow_the_rules,
    a_silent_worker_loses_its_order_and_its_later_updates_are_refused,
    after_a_failure_a_job_is_claimed_again_with_the_next_attempt,
    anybody_may_publish_updates_of_an_order_without_a_job,
    many_orders_end_once_each,
    an_order_submitted_in_its_last_attempt_is_looked_up,
    a_run_without_updates_uses_up_an_attempt,
    a_released_order_continues_at_once_in_the_same_attempt,
    an_order_that_nobody_knows_is_unknown_rather_than_unavailable,
    a_completed_order_can_no_longer_be_cancelled,
);

async fn an_order_is_executed_and_each_step_is_published(config: Config) {
    let gateway = Running::start(quick(config)).await;
    let answer = post_json(gateway.address, "/api/orders/execute", &swap()).await;
    assert_eq!(answer.status, 202);
    let placed = answer.json();
    let id = placed["orderId"].as_str().unwrap();
    assert_eq!(
        placed,
        json!({
            "success": true, "orderId": id, "jobId": id, "status": "pending",
            "wsUrl": format!("ws://{}/api/orders/status/{id}", gateway.address),
        })
    );
    let order = until_status(gateway.address, id, "confirmed").await;
    assert_eq!(
        types(&order),
        ["routing", "routing", "building", "building", "submitted", "submitted", "confirmed"]
    );
    assert_has(&order, json!({ "progress": 100, "attempt": 1, "maxAttempts": 3, "run": 1, "gap": 0 }));
    assert_eq!(order["order"], swap());
    let updates = order["updates"].as_array().unwrap();
    assert!(updates.iter().all(|update| update["executor"] == "paper" && update["message"].is_string()));
    assert!(updates.iter().all(|update| update["orderId"] == id));
    let quote = &updates[1];
    assert_eq!(quote["quotesFetched"], 2);
    let dex = quote["chosenDex"].as_str().unwrap();
    assert!(["raydium", "meteora"].contains(&dex) && quote["quote"]["amountOut"].is_f64(), "{quote}");
    for building in &updates[2..4] {
        let told = &building["quote"];
        assert_eq!((&building["chosenDex"], &told["dex"]), (&json!(dex), &json!(dex)));
        let amount = told["amountOut"].as_str().unwrap();
        assert_eq!(amount.parse::<f64>().unwrap(), quote["quote"]["amountOut"].as_f64().unwrap());
    }
    let last = &updates[6];
    assert_eq!((&last["dex"], last["txHash"].as_str().unwrap().len()), (&json!(dex), 64));
    assert_eq!(&order["lastUpdate"], last);
    until("the job is done", async || {
        let orders = gateway.stats().await["orders"].take();
        orders["jobs"]["done"] == 1 && orders["placed"] == 1 && orders["confirmed"] == 1
    })
    .await;
}

async fn the_same_key_and_order_give_the_same_order(config: Config) {
    let gateway = Running::start(external(config)).await;
    let place = async |key: &str, order: &Value| place_under(gateway.address, key, order).await;
    let first = place("a", &swap()).await;
    assert!(first.status == 202 && !first.head.contains("idempotency-replayed"));
    // Many requests at once, with different white space.
    let same = swap();
    let again = futures_util::future::join_all((0..8).map(|_| place("a", &same))).await;
    for again in again {
        assert_eq!((again.status, again.json()), (202, first.json()));
        assert!(again.head.contains("idempotency-replayed: true"), "{again:?}");
    }
    let mut other = swap();
    other["amount"] = json!(2);
    place("a", &other).await.problem(409, "idempotency_conflict");
    assert_ne!(place("b", &swap()).await.json()["orderId"], first.json()["orderId"]);
    place(&"x".repeat(256), &swap()).await.problem(400, "invalid_idempotency_key");
    let listed = gateway.get("/api/orders").await.json();
    assert_eq!(listed["orders"].as_array().unwrap().len(), 2);
}

async fn orders_are_listed_newest_first_by_status_and_in_pages(config: Config) {
    let gateway = Running::start(external(config)).await;
    let mut placed = Vec::new();
    for _ in 0..7 {
        placed.push(place(gateway.address).await);
    }
    placed.reverse();
    // Orders 1 and 4 get updates.
    let claimed = claim(gateway.address, json!({ "worker": "w", "limit": 7 })).await;
    assert_eq!(claimed.len(), 7);
    for job in claimed.iter().filter(|job| [1, 4].map(|at| placed[at].as_str()).contains(&job.id())) {
        job.report("routing", 10).await;
    }
    let list = async |query: &str| gateway.get(&format!("/api/orders?{query}")).await.json();
    let ids = |page: &Value| -> Vec<String> {
        let orders = page["orders"].as_array().unwrap().iter();
        orders.map(|order| order["orderId"].as_str().unwrap().to_owned()).collect()
    };
    let all = list("").await;
    assert_eq!((ids(&all), &all["next"]), (placed.clone(), &Value::Null));
    let first = list("limit=3").await;
    assert_eq!((ids(&first), first["next"].as_str()), (placed[..3].to_vec(), Some(placed[2].as_str())));
    let second = list(&format!("limit=4&after={}", placed[2])).await;
    assert_eq!((ids(&second), &second["next"]), (placed[3..].to_vec(), &Value::Null));
    assert_eq!(ids(&list("status=routing").await), [placed[1].clone(), placed[4].clone()]);
    let one = list("status=routing&limit=1").await;
    assert_eq!(ids(&one), [placed[1].clone()]);
    let next = one["next"].as_str().unwrap();
    assert_eq!(ids(&list(&format!("status=routing&limit=1&after={next}")).await), [placed[4].clone()]);
    assert_eq!(ids(&list("status=confirmed").await), [] as [String; 0]);
    gateway.get("/api/orders?status=happy").await.problem(400, "invalid_status");
    gateway.get("/api/orders?limit=0").await.problem(400, "invalid_limit");
    gateway.get("/api/orders?after=x").await.problem(400, "invalid_order_id");
    let unknown = "/api/orders?after=6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
    gateway.get(unknown).await.problem(404, "unknown_order");
}

async fn an_order_that_fails_every_attempt_becomes_a_dead_letter_and_can_be_retried(config: Config) {
    let gateway = Running::changed(quick(config), |config| config.orders.paper.failure_rate = 1.0).await;
    let id = place(gateway.address).await;
    let order = until_status(gateway.address, &id, "failed").await;
    types(&order);
    let last = &order["lastUpdate"];
    assert_eq!((&last["progress"], &last["attempts"], &last["attempt"]), (&json!(0), &json!(3), &json!(3)));
    let code = last["error"]["code"].as_str().unwrap();
    assert!(["no_liquidity", "slippage_exceeded", "timeout"].contains(&code), "{last}");
    let letters = eventually("the dead letter is listed", async || {
        let letters = gateway.get("/api/orders/dead-letters").await.json();
        (!letters["deadLetters"].as_array().unwrap().is_empty()).then_some(letters)
    })
    .await;
    let letter = &letters["deadLetters"][0];
    assert_eq!((&letter["orderId"], &letter["order"]), (&json!(id), &swap()));
    assert!(letter["error"].as_str().unwrap().starts_with(code), "{letter}");

    // Some of these were submitted before they failed.
    let retry = format!("/api/orders/dead-letters/{id}/retry?force=true");
    let again = gateway.post_empty(&retry).await;
    assert_eq!((again.status, &again.json()["retryOf"]), (202, &json!(id)));
    let new = again.json()["orderId"].as_str().unwrap().to_owned();
    assert_ne!(new, id);
    gateway.post_empty(&retry).await.problem(404, "unknown_dead_letter");
    let order = until_ended(gateway.address, &new).await;
    assert_eq!(order["order"]["retryOf"], json!(id));
    assert_eq!(types(&get_order(gateway.address, &id).await).last().unwrap(), "failed");
}

async fn dead_letters_are_listed_in_pages(config: Config) {
    let gateway = Running::changed(quick(config), |config| {
        (config.orders.paper.failure_rate, config.orders.attempts_max) = (1.0, 1);
    })
    .await;
    let list = async |query: &str| {
        let letters = gateway.get(&format!("/api/orders/dead-letters{query}")).await.json();
        let ids = letters["deadLetters"].as_array().unwrap().iter().map(|letter| letter["orderId"].clone());
        (ids.collect::<Vec<_>>(), letters["next"].clone())
    };
    for count in 1..=3 {
        place(gateway.address).await;
        until("it is a dead letter", async || list("").await.0.len() == count).await;
    }
    let (all, next) = list("").await;
    assert_eq!(next, Value::Null);
    let (first, next) = list("?limit=2").await;
    assert_eq!((&first[..], &next), (&all[..2], &all[1]));
    let (rest, next) = list(&format!("?limit=2&after={}", next.as_str().unwrap())).await;
    assert_eq!((&rest[..], next), (&all[2..], Value::Null));
    assert_eq!(list("?limit=3").await, (all, Value::Null), "a last page that is full");
}

async fn a_full_queue_refuses_and_stores_nothing(config: Config) {
    let gateway = Running::changed(external(config), |config| config.orders.queue_max = 2).await;
    let (first, _second) = (place(gateway.address).await, place(gateway.address).await);
    let refused = post_json(gateway.address, "/api/orders/execute", &swap()).await;
    refused.problem(503, "queue_full");
    assert!(refused.head.contains("retry-after: "), "{refused:?}");
    let stats = gateway.stats().await["orders"].clone();
    assert_eq!((&stats["jobs"]["waiting"], &stats["refused_full"]), (&json!(2), &json!(1)));
    // An order that ends makes room.
    let job = next_job(gateway.address).await;
    assert_eq!(job.id(), first);
    job.done("complete", json!({ "txHash": "0x1", "dex": "raydium" })).await;
    place(gateway.address).await;
}

async fn a_waiting_order_can_be_cancelled(config: Config) {
    let gateway = Running::start(external(config)).await;
    let id = place(gateway.address).await;
    let cancel = format!("/api/orders/{id}/cancel");
    for _ in 0..2 {
        let answer = gateway.post_empty(&cancel).await;
        let said = json!({ "success": true, "orderId": id, "status": "cancelling" });
        assert_eq!((answer.status, answer.json()), (202, said));
    }
    assert_eq!(get_order(gateway.address, &id).await["cancelRequested"], true);
    // A worker that asks for jobs gets none: the gateway ends the order.
    assert_eq!(claim(gateway.address, json!({ "worker": "w" })).await.len(), 0);
    let order = until_status(gateway.address, &id, "failed").await;
    assert_eq!(types(&order), ["failed"]);
    assert_eq!(order["lastUpdate"]["error"]["code"], "cancelled");
    gateway.post_empty(&cancel).await.problem(409, "already_ended");
    let unknown = "/api/orders/6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11/cancel";
    gateway.post_empty(unknown).await.problem(404, "unknown_order");
    gateway.post_empty("/api/orders/x/cancel").await.problem(400, "invalid_order_id");
}

async fn an_order_in_progress_can_be_cancelled_before_it_is_submitted(config: Config) {
    let gateway = Running::start(external(config)).await;
    let (early, late) = (place(gateway.address).await, place(gateway.address).await);
    let jobs = claim(gateway.address, json!({ "worker": "w", "limit": 2 })).await;
    let (early_job, late_job) = (&jobs[0], &jobs[1]);
    assert_eq!((early_job.id(), late_job.id()), (early.as_str(), late.as_str()));
    for job in &jobs {
        job.report("building", 60).await;
    }
    late_job.report("submitted", 75).await;
    gateway.post_empty(&format!("/api/orders/{late}/cancel")).await.problem(409, "too_late");
    assert_eq!(gateway.post_empty(&format!("/api/orders/{early}/cancel")).await.status, 202);

    let submitted = json!({ "type": "submitted", "progress": 75 });
    early_job.call("progress", submitted).await.problem(409, "cancelled");
    early_job.call("extend", json!({})).await.problem(409, "cancelled");
    let failure = json!({ "error": { "code": "stopped", "message": "as told" }, "retry": true });
    assert_eq!(early_job.done("fail", failure).await, json!({ "outcome": "failed" }));
    let order = get_order(gateway.address, &early).await;
    assert_eq!(types(&order), ["building", "failed"]);
    assert_eq!(order["lastUpdate"]["error"]["code"], "cancelled");
}

async fn an_outside_worker_executes_an_order(config: Config) {
    let gateway = Running::start(external(config)).await;
    let address = gateway.address;
    // Without jobs it is answered when its wait is over, and otherwise as soon as there is one.
    assert_eq!(claim(address, json!({ "worker": "desk-1", "waitMs": 30 })).await.len(), 0);
    let asking =
        async { claim(address, json!({ "worker": "desk-1", "leaseMs": 20_000, "waitMs": 15_000 })).await };
    let (jobs, id) = tokio::join!(asking, place(address));
    let job = &jobs[0];
    assert_eq!(jobs.len(), 1);
    // Slippage was given in per cent; workers also receive it as the fraction that it always was.
    let mut handed = swap();
    (handed["slippage"], handed["slippagePercent"]) = (json!(0.01), json!(1));
    assert_has(
        job,
        json!({ "orderId": id, "jobId": id, "run": 1, "attempt": 1, "maxAttempts": 3, "order": handed, "previous": null }),
    );
    assert!((1..=20_000).contains(&job["leaseMs"].as_u64().unwrap()), "what is left of the lease: {}", job.1);
    assert_eq!(job.done("extend", json!({})).await, json!({ "held": true }));
    for update in [
        json!({ "worker": "desk-1", "type": "routing", "progress": 30, "chosenDex": "orca", "message": "found" }),
        json!({ "worker": "desk-1", "type": "submitted", "progress": 80 }),
        // The answer was lost, and the worker repeats the update.
        json!({ "worker": "desk-1", "type": "submitted", "progress": 80 }),
    ] {
        assert_eq!(job.done("progress", update).await, json!({ "accepted": true }));
    }
    let done = json!({ "worker": "desk-1", "txHash": "0xabc", "dex": "orca", "note": 1.10 });
    job.done("complete", done.clone()).await;
    let order = get_order(address, &id).await;
    assert_eq!(types(&order), ["routing", "submitted", "confirmed"]);
    let last = &order["lastUpdate"];
    assert_has(
        last,
        json!({ "txHash": "0xabc", "dex": "orca", "executor": "desk-1", "run": 1, "attempt": 1, "note": 1.1 }),
    );
    assert!(last.get("token").is_none(), "{last}");
    job.call("complete", done).await.problem(409, "already_ended");
}

async fn an_outside_worker_must_follow_the_rules(config: Config) {
    let gateway = Running::start(external(config)).await;
    let address = gateway.address;
    let id = place(address).await;
    let job = next_job(address).await;
    for (what, body, status, code) in [
        ("progress", json!({ "type": "confirmed" }), 422, "invalid_update"),
        ("progress", json!({ "type": "routing", "progress": 31 }), 422, "invalid_update"),
        ("progress", json!({ "type": "routing", "progress": 10, "offset": 1 }), 422, "reserved_field"),
        ("progress", json!({ "type": "routing", "progress": 10, "attempt": 4 }), 422, "invalid_update"),
        ("fail", json!({}), 422, "invalid_request"),
        ("dance", json!({}), 404, "not_found"),
    ] {
        job.call(what, body).await.problem(status, code);
    }
    let mut routing = json!({ "type": "routing", "progress": 10 });
    about(address, &id, "progress", &routing).await.problem(422, "invalid_request");
    routing["token"] = json!(1);
    about(address, &id, "progress", &routing).await.problem(409, "lease_lost");
    job.report("building", 60).await;
    let back = json!({ "type": "routing", "progress": 20 });
    job.call("progress", back).await.problem(422, "invalid_update");
    assert_eq!(types(&get_order(address, &id).await), ["building"]);
    post_json(address, "/api/jobs/claim", &json!({})).await.problem(422, "invalid_request");
    post_json(address, "/api/jobs/claim", &json!({ "worker": "" })).await.problem(422, "invalid_request");
    post_json(address, "/api/jobs/x/extend", &json!({ "token": 1 })).await.problem(400, "invalid_order_id");
}

async fn a_silent_worker_loses_its_order_and_its_later_updates_are_refused(config: Config) {
    let gateway = Running::start(external(config)).await;
    let address = gateway.address;
    let id = place(address).await;
    let silent = claim(address, json!({ "worker": "silent", "leaseMs": 1_000 })).await.remove(0);
    // Reported under the lease that it requested.
    silent.report("building", 70).await;
    silent.done("extend", json!({ "leaseMs": 1_000 })).await;
    let next = until_job(address, "next").await;
    assert_eq!((&next["orderId"], &next["run"], &next["attempt"]), (&json!(id), &json!(2), &json!(2)));
    assert_eq!(next["previous"], json!({ "status": "building", "progress": 70, "attempt": 1 }));
    for (what, body) in [
        ("progress", json!({ "type": "submitted", "progress": 75 })),
        ("complete", json!({ "txHash": "0x1", "dex": "x" })),
        ("fail", json!({ "error": { "code": "x", "message": "y" } })),
        ("extend", json!({})),
    ] {
        silent.call(what, body).await.problem(409, "lease_lost");
    }
    next.report("routing", 10).await;
    next.done("complete", json!({ "txHash": "0x2", "dex": "y" })).await;
    let order = get_order(address, &id).await;
    assert_eq!(types(&order), ["building", "routing", "confirmed"]);
    assert_eq!(order["lastUpdate"]["txHash"], "0x2");
}

async fn after_a_failure_a_job_is_claimed_again_with_the_next_attempt(config: Config) {
    let gateway = Running::start(external(quick(config))).await;
    let address = gateway.address;
    let id = place(address).await;
    for attempt in 1..=3 {
        let job = until_job(address, "w").await;
        assert_eq!((&job["attempt"], &job["run"]), (&json!(attempt), &json!(attempt)));
        job.report("routing", 10).await;
        let failure = json!({ "error": { "code": "no_liquidity", "message": "dry" }, "retry": true });
        assert_eq!(job.done("fail", failure).await["outcome"], if attempt < 3 { "retry" } else { "failed" });
    }
    let order = get_order(address, &id).await;
    assert_eq!(types(&order), ["routing", "routing", "routing", "failed"]);
    assert_eq!(order["lastUpdate"]["attempts"], 3);
    assert_eq!(gateway.get("/api/orders/dead-letters").await.json()["deadLetters"][0]["orderId"], json!(id));
    // A failure that must not be retried ends the order at once, without a dead letter.
    let other = place(address).await;
    let job = next_job(address).await;
    let failure = json!({ "error": { "code": "unknown_token", "message": "no" }, "retry": false });
    assert_eq!(job.done("fail", failure).await["outcome"], "failed");
    let error = json!({ "code": "unknown_token", "message": "no" });
    assert_eq!(get_order(address, &other).await["lastUpdate"]["error"], error);
    let letters = gateway.get("/api/orders/dead-letters").await.json();
    assert_eq!(letters["deadLetters"].as_array().unwrap().len(), 1);
}

async fn anybody_may_publish_updates_of_an_order_without_a_job(config: Config) {
    let gateway = Running::start(external(config)).await;
    let address = gateway.address;
    let id = "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
    let path = format!("/api/orders/{id}/updates");
    gateway.get(&format!("/api/orders/{id}")).await.problem(404, "unknown_order");
    let one = post_json(address, &path, &json!({ "type": "routing", "progress": 10, "desk": "x" })).await;
    assert_eq!((one.status, one.json()), (200, json!({ "accepted": 1 })));
    let wrong = json!([{ "type": "building", "progress": 50 }, { "type": "routing", "progress": 10 }]);
    let wrong = post_json(address, &path, &wrong).await.problem(422, "invalid_update");
    assert_eq!((&wrong["index"], &wrong["accepted"]), (&json!(1), &json!(0)));
    let rest = json!([{ "type": "building", "progress": 50 }, { "type": "confirmed", "txHash": "0x1" }]);
    assert_eq!(post_json(address, &path, &rest).await.json(), json!({ "accepted": 2 }));
    let routing = json!({ "type": "routing", "progress": 10 });
    post_json(address, &path, &routing).await.problem(409, "already_ended");
    let order = get_order(address, id).await;
    let updates = order["updates"].as_array().unwrap();
    let types: Vec<&Value> = updates.iter().map(|update| &update["type"]).collect();
    assert_eq!(types, ["routing", "building", "confirmed"]);
    assert_eq!((&order["status"], &updates[0]["desk"]), (&json!("confirmed"), &json!("x")));
    let path = format!("/api/orders/{}/updates", place(address).await);
    post_json(address, &path, &routing).await.problem(409, "has_job");
}

async fn many_orders_end_once_each(config: Config) {
    let mut config = quick(config);
    config.orders.paper.failure_rate = 0.3;
    config.orders.concurrency = 16;
    let gateway = Running::start(config).await;
    let address = gateway.address;
    let mut placing = JoinSet::new();
    for _ in 0..60 {
        placing.spawn(async move { place(address).await });
    }
    for id in placing.join_all().await {
        let order = until_ended(address, &id).await;
        types(&order);
    }
    let stats = eventually("all jobs are done", async || {
        let jobs = gateway.stats().await["orders"]["jobs"].clone();
        (jobs["claimed"] == 0 && jobs["waiting"] == 0 && jobs["delayed"] == 0).then_some(jobs)
    })
    .await;
    assert_eq!(stats["done"].as_u64().unwrap() + stats["dead"].as_u64().unwrap(), 60);
}

async fn an_order_submitted_in_its_last_attempt_is_looked_up(config: Config) {
    let gateway = Running::changed(external(config), |config| config.orders.attempts_max = 1).await;
    let address = gateway.address;
    let id = place(address).await;
    let first = claim(address, json!({ "worker": "a", "leaseMs": 1_000 })).await.remove(0);
    first.report("submitted", 80).await;
    // This worker dies. The next one gets the same attempt, and must not start over.
    let next = until_job(address, "b").await;
    assert_eq!((&next["attempt"], &next["run"]), (&json!(1), &json!(2)));
    assert_eq!(next["previous"]["status"], "submitted");
    next.call("progress", json!({ "type": "routing", "progress": 10 })).await.problem(422, "invalid_update");
    let failure = json!({ "error": { "code": "unknown", "message": "not found" }, "retry": true });
    assert_eq!(next.done("fail", failure).await["outcome"], "failed");
    assert_eq!(types(&get_order(address, &id).await), ["submitted", "failed"]);
    // Retrying it might trade twice, so it must be forced.
    let letters = gateway.get("/api/orders/dead-letters").await.json();
    assert_eq!(letters["deadLetters"][0]["submitted"], true);
    let retry = format!("/api/orders/dead-letters/{id}/retry");
    gateway.post_empty(&retry).await.problem(409, "may_be_submitted");
    assert_eq!(gateway.post_empty(&format!("{retry}?force=true")).await.status, 202);
}

async fn a_run_without_updates_uses_up_an_attempt(config: Config) {
    let gateway = Running::start(external(quick(config))).await;
    let address = gateway.address;
    let id = place(address).await;
    for run in 1..=3 {
        let job = until_job(address, "w").await;
        assert_eq!((&job["attempt"], &job["run"]), (&json!(run), &json!(run)));
        let failure = json!({ "error": { "code": "x", "message": "y" }, "retry": true });
        assert_eq!(job.done("fail", failure).await["outcome"], if run < 3 { "retry" } else { "failed" });
    }
    assert_eq!(types(&get_order(address, &id).await), ["failed"]);

    // An update then belongs to the current attempt.
    let id = place(address).await;
    let job = next_job(address).await;
    let failure = json!({ "error": { "code": "x", "message": "y" }, "retry": true });
    assert_eq!(job.done("fail", failure).await["outcome"], "retry");
    let job = until_job(address, "w").await;
    let update = json!({ "type": "routing", "progress": 10, "attempt": 1 });
    job.call("progress", update).await.problem(422, "invalid_update");
    job.report("routing", 10).await;
    assert_eq!(get_order(address, &id).await["attempt"], 2);
}

async fn a_released_order_continues_at_once_in_the_same_attempt(config: Config) {
    let gateway = Running::start(external(quick(config))).await;
    let address = gateway.address;
    let id = place(address).await;
    for run in 1..=4 {
        let job = until_job(address, "w").await;
        assert_eq!((&job["attempt"], &job["run"]), (&json!(1), &json!(run)));
        let refused = async |kind: &str, progress: u64| {
            let update = json!({ "type": kind, "progress": progress });
            job.call("progress", update).await.problem(422, "invalid_update");
        };
        if run > 1 {
            // Its progress was 60.
            refused("building", 50).await;
        }
        job.report("routing", 10).await;
        job.report("building", 60).await;
        // Within a run progress does not go back.
        refused("routing", 10).await;
        if run < 4 {
            assert_eq!(job.done("release", json!({})).await, json!({ "outcome": "released" }));
            job.call("extend", json!({})).await.problem(409, "lease_lost");
        } else {
            job.done("complete", json!({ "txHash": "0x1", "dex": "raydium" })).await;
        }
    }
    let order = get_order(address, &id).await;
    assert_eq!((types(&order).len(), &order["attempt"], &order["run"]), (9, &json!(1), &json!(4)));
    // An order that was cancelled meanwhile ends.
    let other = place(address).await;
    let job = next_job(address).await;
    assert_eq!(gateway.post_empty(&format!("/api/orders/{other}/cancel")).await.status, 202);
    job.done("release", json!({})).await;
    assert_eq!(get_order(address, &other).await["lastUpdate"]["error"]["code"], "cancelled");
}

async fn an_order_that_nobody_knows_is_unknown_rather_than_unavailable(config: Config) {
    let gateway = Running::start(external(config)).await;
    let address = gateway.address;
    let unknown = "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a12";
    gateway.get(&format!("/api/orders/{unknown}")).await.problem(404, "unknown_order");
    gateway.get(&format!("/api/orders?after={unknown}")).await.problem(404, "unknown_order");
    gateway.post_empty(&format!("/api/orders/{unknown}/cancel")).await.problem(404, "unknown_order");
    gateway.get(&format!("/api/orders/dead-letters?after={unknown}")).await.problem(404, "unknown_order");
    let retry = format!("/api/orders/dead-letters/{unknown}/retry");
    gateway.post_empty(&retry).await.problem(404, "unknown_dead_letter");
    for (what, body) in [
        ("extend", json!({ "token": 1 })),
        ("progress", json!({ "token": 1, "type": "routing", "progress": 10 })),
        ("complete", json!({ "token": 1, "txHash": "0x1" })),
        ("fail", json!({ "token": 1, "error": { "code": "x", "message": "y" } })),
        ("release", json!({ "token": 1 })),
    ] {
        about(address, unknown, what, &body).await.problem(409, "lease_lost");
    }
    // An order with updates from others has no job.
    support::orders::update(address, unknown, json!({ "type": "routing", "progress": 10 })).await;
    gateway.post_empty(&format!("/api/orders/{unknown}/cancel")).await.problem(409, "no_job");
    gateway.post_empty(&retry).await.problem(404, "unknown_dead_letter");
    about(address, unknown, "extend", &json!({ "token": 1 })).await.problem(409, "lease_lost");
}

async fn a_completed_order_can_no_longer_be_cancelled(config: Config) {
    let gateway = Running::start(external(config)).await;
    let address = gateway.address;
    let id = place(address).await;
    let job = next_job(address).await;
    // The call determines the ending, not a field.
    job.done("complete", json!({ "type": "submitted", "progress": 90, "txHash": "0x1" })).await;
    assert_eq!(types(&get_order(address, &id).await), ["confirmed"]);
    gateway.post_empty(&format!("/api/orders/{id}/cancel")).await.problem(409, "already_ended");

    let other = place(address).await;
    let job = next_job(address).await;
    assert_eq!(gateway.post_empty(&format!("/api/orders/{other}/cancel")).await.status, 202);
    job.call("complete", json!({ "txHash": "0x2" })).await.problem(409, "cancelled");
    let failure = json!({ "error": { "code": "x", "message": "y" } });
    assert_eq!(job.done("fail", failure).await["outcome"], "failed");
    assert_eq!(get_order(address, &other).await["lastUpdate"]["error"]["code"], "cancelled");
}

/// A claimed job, as its worker was told.
struct Job(SocketAddr, Value);

impl Deref for Job {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.1
    }
}

impl Job {
    fn id(&self) -> &str {
        self["jobId"].as_str().unwrap()
    }

    /// A call about it, with its token.
    async fn call(&self, what: &str, mut body: Value) -> Answer {
        body["token"] = self["token"].clone();
        about(self.0, self.id(), what, &body).await
    }

    /// A call that must succeed.
    async fn done(&self, what: &str, body: Value) -> Value {
        let answer = self.call(what, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Reports an update, which must be accepted.
    async fn report(&self, kind: &str, progress: u64) {
        self.done("progress", json!({ "type": kind, "progress": progress })).await;
    }
}

/// Claims jobs.
async fn claim(address: SocketAddr, wish: Value) -> Vec<Job> {
    let answer = post_json(address, "/api/jobs/claim", &wish).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let jobs = answer.json()["jobs"].as_array().unwrap().clone();
    jobs.into_iter().map(|job| Job(address, job)).collect()
}

/// The next job, for which nobody has to wait.
async fn next_job(address: SocketAddr) -> Job {
    claim(address, json!({ "worker": "w" })).await.remove(0)
}

/// Waits until there is a job.
async fn until_job(address: SocketAddr, worker: &str) -> Job {
    eventually("a job is offered", async || claim(address, json!({ "worker": worker })).await.pop()).await
}

/// A call about a job.
async fn about(address: SocketAddr, id: &str, what: &str, body: &Value) -> Answer {
    post_json(address, &format!("/api/jobs/{id}/{what}"), body).await
}

// Independent of the storage

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_order_is_refused_field_by_field() {
    let gateway = Running::start(external(config())).await;
    let post = async |kind: &str, body: &[u8]| {
        request(gateway.address, "POST", "/api/orders/execute", &[("content-type", kind)], body).await
    };
    let wrong = post(JSON, br#"{"tokenIn":"S L","amount":-1,"slippage":200,"x":1}"#).await;
    let wrong = wrong.problem(422, "invalid_order");
    let fields: Vec<&str> =
        wrong["errors"].as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["tokenIn", "tokenOut", "amount", "slippage", "x"]);
    post(JSON, b"{").await.problem(400, "invalid_json");
    post(JSON, b"\xff").await.problem(400, "invalid_utf8");
    post("text/plain", b"{}").await.problem(415, "unsupported_media_type");
    post("application/x-ndjson", b"{}").await.problem(415, "unsupported_media_type");
    post(JSON, &vec![b' '; 2 << 20]).await.problem(413, "body_too_large");
    gateway.get("/api/orders/nonsense").await.problem(400, "invalid_order_id");
    assert_eq!(gateway.get("/api/orders").await.json()["orders"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn slippage_may_be_left_out() {
    let gateway = Running::start(external(config())).await;
    let swap = json!({ "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5 });
    let id = support::orders::place_this(gateway.address, &swap).await;
    assert_eq!(get_order(gateway.address, &id).await["order"]["slippage"], 0.5);
    let job = next_job(gateway.address).await;
    assert_eq!((&job["order"]["slippage"], &job["order"]["slippagePercent"]), (&json!(0.005), &json!(0.5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_may_be_anything_that_fits_the_schema() {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/power/order.schema.json");
    let with_schema = |mut config: Config| {
        config.orders.schema = schema.to_owned();
        config
    };
    let trade = json!({
        "side": "sell", "hub": "WESTERN HUB", "quantity": 50, "limit": 41.25,
        "period": { "start": "2026-12-01T15:00:00-05:00", "end": "2026-12-01T16:00:00-05:00" }
    });
    // A worker receives all of it.
    let gateway = Running::start(with_schema(external(config()))).await;
    let id = support::orders::place_this(gateway.address, &trade).await;
    let job = next_job(gateway.address).await;
    assert_eq!((&job["order"], &job["orderId"]), (&trade, &json!(id)));
    assert_eq!(get_order(gateway.address, &id).await["order"], trade);
    let mut wrong = trade.clone();
    wrong["quantity"] = json!("much");
    wrong["period"]["end"] = json!("later");
    wrong["tokenIn"] = json!("SOL");
    let wrong = post_json(gateway.address, "/api/orders/execute", &wrong).await;
    let errors = wrong.problem(422, "invalid_order")["errors"].clone();
    let mut fields: Vec<&str> =
        errors.as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["period.end", "quantity", "tokenIn"]);
    post_json(gateway.address, "/api/orders/execute", &swap()).await.problem(422, "invalid_order");
    gateway.stop().await;

    // The paper executor fills it no worse than its limit.
    let gateway = Running::start(with_schema(quick(config()))).await;
    let id = support::orders::place_this(gateway.address, &trade).await;
    let order = until_status(gateway.address, &id, "confirmed").await;
    assert_eq!(types(&order).len(), 7);
    let last = &order["lastUpdate"];
    assert!(last["price"].as_f64().unwrap() >= 41.25 && last["quantity"] == 50, "{last}");
    assert!(last["message"].as_str().unwrap().starts_with("Sold 50 at "), "{last}");
    gateway.stop().await;

    let mut bad = config();
    bad.orders.schema = "nowhere.json".to_owned();
    let refused = Gateway::start(bad).await;
    assert!(matches!(refused, Err(StartError::OrderSchema(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_address_uses_the_clients_host() {
    let gateway = Running::changed(external(config()), |config| {
        config.http.trusted_proxies = vec!["127.0.0.1".to_owned()]
    })
    .await;
    let headers =
        [("content-type", JSON), ("x-forwarded-proto", "https"), ("x-forwarded-host", "stream.example.com")];
    let body = swap().to_string();
    let answer = request(gateway.address, "POST", "/api/orders/execute", &headers, body.as_bytes()).await;
    let url = answer.json()["wsUrl"].as_str().unwrap().to_owned();
    assert!(url.starts_with("wss://stream.example.com/api/orders/status/"), "{url}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_offered_outside_only_where_that_is_configured() {
    let gateway = Running::start(quick(config())).await;
    let refused = post_json(gateway.address, "/api/jobs/claim", &json!({ "worker": "w" })).await;
    refused.problem(409, "not_external");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_could_not_be_executed_or_would_be_lost_are_refused() {
    // Redis is configured, but does not serve.
    let mut away = quick(config());
    away.storage.backend = StorageChoice::Redis;
    away.storage.redis.url = Some(format!("redis://127.0.0.1:{}", nowhere()));
    let gateway = Running::start(away.clone()).await;
    post_json(gateway.address, "/api/orders/execute", &swap()).await.problem(503, "storage_degraded");
    gateway.stop().await;
    away.orders.when_degraded = WhenDegraded::Accept;
    let gateway = Running::start(away.clone()).await;
    let id = place(gateway.address).await;
    until_status(gateway.address, &id, "confirmed").await;
    gateway.stop().await;

    let mut idle = quick(config());
    idle.node.roles = vec![Role::Gateway];
    let gateway = Running::start(idle).await;
    post_json(gateway.address, "/api/orders/execute", &swap()).await.problem(503, "no_worker");
    gateway.stop().await;

    // A process with only the worker role would wait forever for orders in its own memory.
    away.node.roles = vec![Role::Worker];
    away.storage.backend = StorageChoice::Auto;
    let refused = Gateway::start(away).await.unwrap_err();
    let said = refused.to_string();
    assert!(matches!(refused, StartError::WorkerNeedsRedis { .. }), "{refused:?}");
    assert!(said.contains("`node.roles`") && !said.contains("storage.required"), "{said}");
}

// Several processes

fn settings<'a>(redis: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut settings = vec![
        "storage.backend=redis",
        "storage.required=true",
        // A busy machine must not prevent a worker from starting.
        "storage.redis.connect_timeout_ms=10000",
        redis,
        "http.drain_s=0",
        "http.shards=1",
        "orders.paper.failure_rate=0",
        "orders.lease_s=5",
        "orders.retry_first_ms=10",
    ];
    settings.extend(more);
    settings
}

/// A gateway that executes nothing.
async fn front(server: &RedisServer) -> Running {
    Running::changed(on(server), |config| config.node.roles = vec![Role::Gateway]).await
}

/// A process on the same Redis.
async fn process(server: &RedisServer, more: &[&str]) -> Process {
    Process::start(&settings(&format!("storage.redis.url=redis://127.0.0.1:{}", server.port), more)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_executed_by_another_process() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = front(&server).await;
    let waits = place(gateway.address).await;
    assert_eq!(get_order(gateway.address, &waits).await["status"], "pending");

    let worker = process(&server, &["node.roles=worker", "orders.paper.step_ms=5"]).await;
    // It serves its health, and nothing else.
    let answer = request(worker.address, "GET", "/health/ready", &[], b"").await;
    assert_eq!(answer.status, 200);
    request(worker.address, "GET", "/api/orders", &[], b"").await.problem(404, "no_gateway");
    let order = until_status(gateway.address, &waits, "confirmed").await;
    assert_eq!(types(&order).len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_ends_once_when_its_worker_is_killed_or_frozen() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = front(&server).await;
    // The lease outlasts a stall of a busy machine, and the steps leave time for the signal.
    let slow = ["node.roles=worker", "orders.paper.step_ms=1000", "orders.concurrency=4"];
    for signal in [Signal::KILL, Signal::STOP] {
        let first = process(&server, &slow).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(place(gateway.address).await);
        }
        for id in &ids {
            until("the order is under way", async || {
                let order = get_order(gateway.address, id).await;
                order["progress"].as_u64() >= Some(50)
            })
            .await;
        }
        first.signal(signal);
        let _second = process(&server, &slow).await;
        let mut attempts = Vec::new();
        for id in &ids {
            attempts.push(until_status(gateway.address, id, "confirmed").await["attempt"].as_u64().unwrap());
        }
        // Orders that were nearly finished may have ended with the first worker.
        assert!(attempts.iter().any(|attempt| *attempt >= 2), "{attempts:?}");
        if signal == Signal::STOP {
            // It continues, and must notice that the orders are no longer its own.
            first.signal(Signal::CONT);
            let noticed = eventually("it notices", async || {
                let stats = request(first.address, "GET", "/ws/stats", &[], b"").await.json();
                let orders = stats["orders"].clone();
                let count = |name: &str| orders[name].as_u64().unwrap();
                (count("confirmed") + count("leases_lost") >= 4).then_some(orders)
            })
            .await;
            let ended = noticed["confirmed"].as_u64().unwrap();
            let others = attempts.iter().filter(|attempt| **attempt >= 2).count() as u64;
            assert_eq!(ended, 4 - others, "what was taken over ended with the other one: {noticed}");
        }
        for id in &ids {
            assert_eq!(types(&get_order(gateway.address, id).await).last().unwrap(), "confirmed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_and_their_updates_survive_a_killed_gateway() {
    let Some(server) = redis(&[]).await else { return };
    let all = ["orders.paper.step_ms=300"];
    let gateway = process(&server, &all).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(place(gateway.address).await);
    }
    let before = eventually("the first is under way", async || {
        let order = get_order(gateway.address, &ids[0]).await;
        (order["progress"].as_u64() >= Some(50)).then_some(order)
    })
    .await;
    gateway.signal(Signal::KILL);
    drop(gateway);

    let gateway = process(&server, &all).await;
    for id in &ids {
        let order = until_status(gateway.address, id, "confirmed").await;
        types(&order);
        if *id == ids[0] {
            let had = before["updates"].as_array().unwrap();
            assert_eq!(order["updates"].as_array().unwrap()[..had.len()], had[..]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_in_the_middle_of_an_order_doubles_nothing() {
    let Some(server) = redis(&[]).await else { return };
    let mut config = on(&server);
    config.storage.redis = server.config();
    config.orders.paper.failure_rate = 0.0;
    config.orders.paper.step_ms = 1_000;
    let gateway = Running::start(config).await;
    let id = place(gateway.address).await;
    until("the order is under way", async || {
        let answer = gateway.get(&format!("/api/orders/{id}")).await;
        answer.status == 200 && answer.json()["progress"].as_u64() >= Some(10)
    })
    .await;
    server.freeze().unwrap();
    // It proceeds as far as it may without Redis.
    until("the order's submission is tried again and again", async || {
        let stats = gateway.stats().await;
        stats["orders"]["storage_failures"].as_u64() >= Some(5)
    })
    .await;
    server.thaw().unwrap();
    let order = eventually("the order ends", async || {
        let answer = gateway.get(&format!("/api/orders/{id}")).await;
        (answer.status == 200 && answer.json()["status"] == "confirmed").then(|| answer.json())
    })
    .await;
    assert_eq!((types(&order).len(), &order["run"], &order["attempt"]), (7, &json!(1), &json!(1)), "{order}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_releases_its_orders() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = front(&server).await;
    // Its lease and its steps are long, so another worker can continue in time only if the order is released.
    let slow = [
        "node.roles=worker",
        "orders.paper.step_ms=60000",
        "orders.lease_s=600",
        "orders.run_timeout_s=600",
        "orders.attempts_max=1",
    ];
    let mut first = process(&server, &slow).await;
    let id = place(gateway.address).await;
    until_status(gateway.address, &id, "routing").await;
    assert!(first.terminate().await.success());
    // More often than the permitted attempts: being stopped uses up no attempt.
    let mut next = process(&server, &slow).await;
    until("it is taken up again", async || {
        let order = get_order(gateway.address, &id).await;
        order["run"] == 2 && order["lastUpdate"]["run"] == 2
    })
    .await;
    assert!(next.terminate().await.success());
    let _last = process(&server, &["node.roles=worker", "orders.paper.step_ms=5"]).await;
    let order = until_status(gateway.address, &id, "confirmed").await;
    assert_eq!((&order["attempt"], &order["run"]), (&json!(1), &json!(3)));
    check_updates(order["updates"].as_array().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_submitted_by_a_killed_worker_is_not_submitted_again() {
    let Some(server) = redis(&[]).await else { return };
    let gateway = front(&server).await;
    let slow = ["node.roles=worker", "orders.paper.step_ms=800"];
    let first = process(&server, &slow).await;
    let id = place(gateway.address).await;
    let submitted = until_status(gateway.address, &id, "submitted").await;
    first.signal(Signal::KILL);
    drop(first);
    let _second = process(&server, &["node.roles=worker", "orders.paper.step_ms=5"]).await;
    let order = until_status(gateway.address, &id, "confirmed").await;
    // The worker looked it up: nothing is routed, built and submitted again.
    let before = submitted["updates"].as_array().unwrap().len();
    let after = types(&order)[before..].to_vec();
    let (once, twice) = (["submitted", "confirmed"], ["submitted", "submitted", "confirmed"]);
    assert!(after == once || after == twice, "{order}");
    let last = &order["lastUpdate"];
    let dex = &submitted["lastUpdate"]["dex"];
    assert_eq!((&last["attempt"], &last["run"], &last["dex"]), (&json!(2), &json!(2), dex));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_claimed_but_not_delivered_at_a_stop_are_released() {
    let Some(server) = redis(&[]).await else { return };
    let (mut one, other) =
        (Running::start(external(on(&server))).await, Running::start(external(on(&server))).await);
    let mut ids = Vec::new();
    for _ in 0..200 {
        ids.push(place(other.address).await);
    }
    let address = one.address;
    let mut workers = JoinSet::new();
    // A worker whose connection is closed without an answer panics; the jobs it received before count.
    let got = Arc::<Mutex<Vec<String>>>::default();
    for _ in 0..8 {
        let got = Arc::clone(&got);
        workers.spawn(async move {
            // With a lease that outlasts the test.
            let wish = json!({ "worker": "w", "limit": 10, "leaseMs": 600_000 });
            loop {
                let answer = post_json(address, "/api/jobs/claim", &wish).await;
                if answer.status != 200 {
                    answer.problem(503, "shutting_down");
                    return;
                }
                let jobs = answer.json()["jobs"].as_array().unwrap().clone();
                if jobs.is_empty() {
                    return;
                }
                let ids = jobs.iter().map(|job| job["jobId"].as_str().unwrap().to_owned());
                got.lock().unwrap().extend(ids);
            }
        });
    }
    until("some are claimed", async || {
        let stats = other.stats().await;
        stats["orders"]["jobs"]["claimed"].as_u64() >= Some(20)
    })
    .await;
    one.begin_stop();
    while workers.join_next().await.is_some() {}
    one.stop().await;
    let mut got = std::mem::take(&mut *got.lock().unwrap());
    until("the others are there for the next one", async || {
        let jobs = claim(other.address, json!({ "worker": "x", "limit": 100, "leaseMs": 600_000 })).await;
        got.extend(jobs.iter().map(|job| job.id().to_owned()));
        got.len() >= ids.len()
    })
    .await;
    got.sort_unstable();
    ids.sort_unstable();
    assert_eq!(got, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_disconnects_while_waiting_gets_no_job() {
    let gateway = Running::start(external(config())).await;
    let wish = json!({ "worker": "gone", "leaseMs": 600_000, "waitMs": 30_000 }).to_string();
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let head = format!(
        "POST /api/jobs/claim HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n{wish}",
        wish.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let under_way = async |count: u64| {
        until("so many claims are under way", async || {
            let stats = gateway.stats().await;
            stats["orders"]["claims_under_way"] == count
        })
        .await;
    };
    under_way(1).await;
    drop(stream);
    under_way(0).await;
    let id = place(gateway.address).await;
    let next = claim(gateway.address, json!({ "worker": "next" })).await.remove(0);
    assert_eq!((next.id(), &next["run"]), (id.as_str(), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_claims_only_orders_for_its_kind_of_executor() {
    let Some(server) = redis(&[]).await else { return };
    let (outside, paper) =
        (Running::start(external(on(&server))).await, Running::start(quick(on(&server))).await);
    let (mine, theirs) = (place(outside.address).await, place(paper.address).await);
    until_status(outside.address, &theirs, "confirmed").await;
    assert_eq!(get_order(paper.address, &mine).await["status"], "pending");
    let claimed = claim(outside.address, json!({ "worker": "w", "limit": 10 })).await;
    assert_eq!(claimed.iter().map(Job::id).collect::<Vec<_>>(), [mine.as_str()]);
    // Both report the other executor.
    for (gateway, own, other) in [(&outside, "external", "paper"), (&paper, "paper", "external")] {
        let health = eventually("the other executor is found", async || {
            let health = gateway.get("/health").await.json();
            health.get("other_executors").is_some().then_some(health)
        })
        .await;
        assert_eq!((&health["executor"], &health["other_executors"]), (&json!(own), &json!([other])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_in_progress_is_cancelled_without_waiting_for_its_next_step() {
    let mut config = quick(config());
    config.orders.paper.step_ms = 3_600_000;
    config.orders.run_timeout_s = 3_600;
    let gateway = Running::start(config).await;
    let id = place(gateway.address).await;
    until_status(gateway.address, &id, "routing").await;
    assert_eq!(gateway.post_empty(&format!("/api/orders/{id}/cancel")).await.status, 202);
    let order = until_status(gateway.address, &id, "failed").await;
    assert_eq!(order["lastUpdate"]["error"]["code"], "cancelled");
}

/// An executor that does what the order's metadata says.
#[derive(Debug)]
struct Scripted;

#[async_trait]
impl OrderExecutor for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn execute(
        &self,
        order: &OrderRequest,
        handle: &mut OrderHandle,
    ) -> Result<Confirmation, ExecutionError> {
        let metadata = order.field("metadata").map_or("", |metadata| metadata.get());
        handle.routing(10, "as every attempt begins", &[]).await?;
        handle.building(1, "as low as it goes", &[]).await?;
        if metadata.contains("hang") {
            std::future::pending::<()>().await;
        }
        if metadata.contains("back") {
            handle.routing(10, "against the rules", &[]).await?;
        }
        assert!(!metadata.contains("panic"), "as it was told");
        handle.submitted(80, "on its way", &[("dex", json!("own"))]).await?;
        let fields = vec![("txHash", json!("0x1")), ("dex", json!("own"))];
        Ok(Confirmation { message: "done".to_owned(), fields })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_executor_must_follow_the_rules() {
    let mut config = quick(config());
    config.orders.run_timeout_s = 2;
    // No test here waits for a lease to expire.
    config.orders.lease_s = 3_600;
    let gateway = Running::start_with(config, Arc::new(Scripted)).await;
    let place = async |metadata: Value| {
        let mut order = swap();
        order["metadata"] = metadata;
        let answer = post_json(gateway.address, "/api/orders/execute", &order).await;
        answer.json()["orderId"].as_str().unwrap().to_owned()
    };
    let good = place(json!({})).await;
    let back = place(json!({ "do": "back" })).await;
    let hangs = place(json!({ "do": "hang" })).await;
    let panics = place(json!({ "do": "panic" })).await;

    let order = until_ended(gateway.address, &good).await;
    assert_eq!(types(&order), ["routing", "building", "submitted", "confirmed"]);
    let first = &order["updates"][1];
    assert_eq!((&first["executor"], &first["progress"]), (&json!("scripted"), &json!(50)));
    // (order, its error code, the number of attempts)
    for (id, code, attempts) in
        [(&back, "executor_error", 1), (&hangs, "timeout", 3), (&panics, "executor_error", 3)]
    {
        let order = until_ended(gateway.address, id).await;
        let last = &order["lastUpdate"];
        assert_eq!((&last["error"]["code"], &last["attempts"]), (&json!(code), &json!(attempts)), "{order}");
        let updates = order["updates"].as_array().unwrap().iter();
        assert_eq!(updates.filter(|update| update["type"] == "failed").count(), 1);
    }
    let metrics = gateway.get("/metrics").await.body;
    assert!(metrics.contains("zonewire_panics_total{where=\"order\"} 3"), "{metrics}");
}
