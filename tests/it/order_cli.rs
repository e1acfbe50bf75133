//! `zonewire order …`, run as users do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use zonewire_kit::proxy::Proxy;

use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Running, request, until_stat};
use crate::support::orders::{
    base, check_whole, external, new_order, paper, place, place_this, post_json, swap, until_status, update,
};
use crate::support::program::{End, Program, command, run, zonewire};
use crate::support::redis::nowhere;
use crate::support::scripted::{Reply, Request, answer};
use crate::support::tools::Examples;

/// `zonewire order <args>` against a gateway.
async fn order(args: &[&str], url: &str) -> End {
    run(zonewire(&["order"]).args(args).args(["--url", url])).await
}

fn watch(order: &str, url: &str) -> Program {
    Program::start(&mut zonewire(&["order", "watch", order, "--json", "--url", url]))
}

/// An update of an order that is executed elsewhere.
fn step(kind: &str, progress: u8) -> Value {
    json!({"type": kind, "progress": progress, "attempt": 1})
}

#[tokio::test(flavor = "multi_thread")]
async fn place_prints_the_id_and_the_same_key_places_once() {
    let gateway = Running::start(paper()).await;
    let url = base(&gateway);
    let args = ["place", "SOL", "USDC", "1.50", "--idempotency-key", "k", "--metadata", r#"{"desk":"east"}"#];
    let first = order(&args, &url).await;
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{first:?}");
    let id = first.stdout.trim_end();
    let again = order(&[&args[..], &["--json"]].concat(), &url).await;
    assert_eq!(again.json_lines()[0]["orderId"], id, "{again:?}");
    let without = ["place", "SOL", "USDC", "1.50"];
    assert_ne!(order(&without, &url).await.stdout, order(&without, &url).await.stdout);

    let view = until_status(gateway.address, id, "confirmed").await;
    assert_eq!(view["order"]["metadata"], json!({"desk": "east"}));
    let raw = request(gateway.address, "GET", &format!("/api/orders/{id}"), &[], b"").await.body;
    assert!(raw.contains(r#""amount":1.50,"slippage":0.5"#), "{raw}");

    let conflict = order(&["place", "SOL", "USDC", "2", "--idempotency-key", "k"], &url).await.exits(1);
    assert!(conflict.stderr.contains("idempotency_conflict"), "{conflict:?}");
    let invalid = order(&["place", "SOL", "SOL", "-2", "--slippage", "300"], &url).await.exits(1);
    for part in ["amount: ", "slippage: ", "tokenOut: ", "(invalid_order)"] {
        assert!(invalid.stderr.contains(part), "{invalid:?}");
    }

    // Any JSON, from a file or from standard input.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("order.json");
    std::fs::write(&file, r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":7.250}"#).unwrap();
    let placed = order(&["place", "--order", file.to_str().unwrap()], &url).await.exits(0);
    let path = format!("/api/orders/{}", placed.stdout.trim_end());
    let raw = request(gateway.address, "GET", &path, &[], b"").await.body;
    assert!(raw.contains(r#""amount":7.250,"slippage":0.5"#), "{raw}");
    std::fs::write(&file, "{").unwrap();
    for wrong in [
        vec!["place", "--order", file.to_str().unwrap()],
        vec!["place", "SOL", "--order", "-"],
        vec!["place"],
    ] {
        let refused = order(&wrong, &url).await;
        assert_eq!(refused.code, Some(64), "{wrong:?}: {refused:?}");
    }
}

#[tokio::test]
async fn an_invalid_order_is_bad_usage() {
    for args in [
        &["place", "SOL", "USDC", "much"][..],
        &["place", "SOL", "USDC", "1", "--metadata", "[]"],
        &["place", "SOL", "USDC", "1", "--idempotency-key", "a\nb"],
        &["watch", "17"],
        &["cancel"],
        &["list", "--after", "x"],
        &["dance"],
    ] {
        let end = order(args, "http://127.0.0.1:9").await;
        assert_eq!(end.code, Some(64), "{args:?}: {end:?}");
    }
}

#[tokio::test]
async fn a_missing_gateway_is_reported_at_once() {
    let port = nowhere();
    for args in [&["place", "SOL", "USDC", "1"][..], &["list"], &["cancel", &new_order()], &["dead-letters"]]
    {
        let end = order(args, &format!("http://127.0.0.1:{port}")).await;
        assert_eq!((end.code, end.stdout.as_str()), (Some(1), ""), "{end:?}");
        assert!(end.stderr.contains("no gateway answers at"), "{end:?}");
        assert!(!end.stderr.contains("trying again"), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn place_and_watch_goes_to_the_end() {
    let gateway = Running::start(paper()).await;
    let url = base(&gateway);
    let end = order(&["place", "SOL", "USDC", "1.5", "--watch"], &url).await.exits(0);
    let lines: Vec<&str> = end.stdout.lines().collect();
    assert_eq!(lines[0].len(), 36, "{end:?}");
    assert!(lines[1].contains("  routing     10 %  attempt 1 of 3  "), "{end:?}");
    assert!(lines.last().unwrap().contains("  confirmed  100 %  attempt 1 of 3  "), "{end:?}");
    assert!(lines.last().unwrap().contains("txHash="), "{end:?}");

    // A later watcher gets all of it.
    let later = run(&mut zonewire(&["order", "watch", lines[0], "--json", "--url", &url])).await.exits(0);
    check_whole(&later.json_lines(), "confirmed");
    assert_eq!(later.json_lines().len(), lines.len() - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_reconnects_and_prints_each_update_once() {
    let gateway = Running::start(paper()).await;
    let proxy = Proxy::start(gateway.address).await.unwrap();
    let order = new_order();
    let mut watch = watch(&order, &format!("http://{}", proxy.address));
    until_stat(&gateway, "/connections/open", 1).await;
    update(gateway.address, &order, step("routing", 10)).await;
    let mut seen = vec![watch.json().await];
    proxy.cut();
    update(gateway.address, &order, step("building", 50)).await;
    seen.push(watch.json().await);
    update(gateway.address, &order, step("building", 70)).await;
    seen.push(watch.json().await);
    update(gateway.address, &order, json!({"type": "confirmed", "attempt": 1})).await;
    let end = watch.ended().await.exits(0);
    for part in ["is not known yet; waiting for it", "trying again in", "(attempt 1 of 5)"] {
        assert!(end.stderr.contains(part), "{part:?}: {end:?}");
    }
    seen.extend(end.json_lines());
    assert_eq!(check_whole(&seen, "confirmed"), ["routing", "building", "building", "confirmed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_says_what_is_missing() {
    let gateway = Running::changed(paper(), |config| config.storage.retention.orders.updates = 2).await;
    let proxy = Proxy::start(gateway.address).await.unwrap();
    let order = new_order();
    update(gateway.address, &order, step("routing", 10)).await;
    let mut watch = watch(&order, &format!("http://{}", proxy.address));
    watch.json().await;
    proxy.cut();
    for progress in 11..=15 {
        update(gateway.address, &order, step("routing", progress)).await;
    }
    assert_eq!(watch.json().await["progress"], 14);
    assert_eq!(watch.json().await["progress"], 15);
    let error = json!({"code": "no_liquidity", "message": "no pool has enough"});
    update(gateway.address, &order, json!({"type": "failed", "attempt": 1, "error": error})).await;
    let end = watch.ended().await.exits(1);
    assert!(end.stderr.contains("3 entries are missing here"), "{end:?}");
    let said = format!("error: order {order} failed: no pool has enough (no_liquidity)");
    assert!(end.stderr.contains(&said), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_without_a_worker_is_reported_as_waiting_once() {
    let gateway = Running::start(external()).await;
    let url = base(&gateway);
    place(gateway.address).await;
    let watch = ["order", "place", "SOL", "USDC", "1.5", "--watch", "--json", "--url", &url];
    let mut both = command("sh");
    let words = "exec \"$0\" \"$@\" 2>&1";
    both.args(["-c", words, env!("CARGO_BIN_EXE_zonewire")]).args(watch);
    let mut watch = Program::start(&mut both);
    let said = watch.until("has waited").await;
    for part in ["; on all gateways 1 other waits, and 0 are under way; no worker asks", "`zonewire stats`"] {
        assert!(said.contains(part), "{said}");
    }
    let claim = json!({"worker": "w", "limit": 2});
    let jobs = post_json(gateway.address, "/api/jobs/claim", &claim).await.json()["jobs"].clone();
    for job in jobs.as_array().unwrap() {
        let path = |what: &str| format!("/api/jobs/{}/{what}", job["jobId"].as_str().unwrap());
        let submitted = json!({"token": job["token"], "type": "submitted", "progress": 80});
        assert_eq!(post_json(gateway.address, &path("progress"), &submitted).await.status, 200);
        let done = json!({"token": job["token"], "txHash": "5g"});
        assert_eq!(post_json(gateway.address, &path("complete"), &done).await.status, 200);
    }
    let end = watch.ended().await;
    assert_eq!((jobs.as_array().unwrap().len(), end.code), (2, Some(0)), "{end:?}");
    assert!(end.stdout.contains("confirmed") && !end.stdout.contains("has waited"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_updates_are_no_longer_kept_still_has_its_outcome() {
    let gateway = Running::changed(paper(), |config| config.storage.retention.orders.age_s = 1).await;
    let url = base(&gateway);
    let order = new_order();
    update(gateway.address, &order, json!({"type": "failed", "error": {"code": "x", "message": "y"}})).await;
    until("the updates are gone", async || {
        let answer = request(gateway.address, "GET", &format!("/api/orders/{order}"), &[], b"").await;
        answer.json()["updates"] == json!([])
    })
    .await;
    let end = run(&mut zonewire(&["order", "watch", &order, "--url", &url])).await;
    assert_eq!((end.code, end.stdout.as_str()), (Some(1), ""), "{end:?}");
    assert!(end.stderr.contains("updates were deleted") && end.stderr.contains("failed: y (x)"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_a_bar() {
    // Python provides a terminal, which a pipe is not.
    let Some(examples) = Examples::find() else { return };
    let gateway = Running::start(paper()).await;
    let code = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = command(examples.python());
    command.env("TERM", "xterm").args(["-c", code, env!("CARGO_BIN_EXE_zonewire")]);
    command.args(["order", "place", "SOL", "USDC", "1.5", "--watch", "--url", &base(&gateway)]);
    let end = run(&mut command).await.exits(0);
    // The bar overwrites itself, and is replaced by the updates in the end.
    assert!(end.stdout.contains("\u{1b}["), "{end:?}");
    assert!(end.stdout.contains("█"), "{end:?}");
    assert!(end.stdout.lines().last().unwrap().contains("confirmed  100 %  attempt 1 of 3"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_listed_the_newest_first_and_in_pages() {
    let gateway = Running::start(paper()).await;
    let url = base(&gateway);
    let mut placed = Vec::new();
    for amount in [1.5, 2.5, 3.5] {
        let mut order = swap();
        order["amount"] = json!(amount);
        placed.push(place_this(gateway.address, &order).await);
        until_status(gateway.address, placed.last().unwrap(), "confirmed").await;
    }
    placed.reverse();
    let all = order(&["list"], &url).await;
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""), "{all:?}");
    let lines: Vec<&str> = all.stdout.lines().collect();
    assert!(lines[0].starts_with("ORDER  "), "{all:?}");
    let ids: Vec<&str> = lines[1..].iter().map(|line| &line[..36]).collect();
    assert_eq!(ids, placed);
    assert!(lines[1].ends_with("confirmed  100 %     3.5 SOL -> USDC"), "{all:?}");

    let page = order(&["list", "--limit", "2", "--json"], &url).await;
    let ids: Vec<Value> = page.json_lines().iter().map(|order| order["orderId"].clone()).collect();
    assert_eq!(ids, placed[..2]);
    assert_eq!(page.stderr, format!("there are more: --after {}\n", placed[1]));
    let rest = order(&["list", "--after", &placed[1]], &url).await;
    let lines: Vec<&str> = rest.stdout.lines().collect();
    assert!(lines.len() == 2 && lines[1].starts_with(&placed[2]), "{rest:?}");
    assert_eq!(order(&["list", "--status", "failed"], &url).await.stdout, "");
    let unknown = order(&["list", "--status", "lost"], &url).await.exits(64);
    let known = "pending, routing, building, submitted, confirmed, failed";
    assert!(unknown.stderr.contains(known), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_can_be_cancelled_until_it_has_ended() {
    // No worker executes it yet.
    let gateway = Running::start(external()).await;
    let url = base(&gateway);
    let id = place(gateway.address).await;
    for _ in 0..2 {
        let end = order(&["cancel", &id], &url).await;
        assert_eq!((end.code, end.stdout.as_str()), (Some(0), "cancelling\n"), "{end:?}");
    }
    // A worker that asks for jobs makes the gateway end it.
    let claimed = post_json(gateway.address, "/api/jobs/claim", &json!({"worker": "w"})).await;
    assert_eq!(claimed.json(), json!({"jobs": []}));
    let end = order(&["watch", &id], &url).await.exits(1);
    // The reason is printed once.
    assert_eq!((end.stdout + &end.stderr).matches("(cancelled)").count(), 1);
    let end = order(&["cancel", &id], &url).await.exits(1);
    assert!(end.stderr.contains("already_ended"), "{end:?}");
    let end = order(&["cancel", &new_order()], &url).await;
    assert!(end.stderr.contains("unknown_order"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_and_retried() {
    let mut config = paper();
    config.orders.paper.failure_rate = 1.0;
    config.orders.attempts_max = 1;
    let gateway = Running::start(config).await;
    let url = base(&gateway);
    let end = order(&["place", "SOL", "USDC", "1.5", "--watch"], &url).await.exits(1);
    let id = end.stdout.lines().next().unwrap();
    let letters = eventually("it is a dead letter", async || {
        let end = order(&["dead-letters"], &url).await.exits(0);
        (!end.stdout.is_empty()).then_some(end.stdout)
    })
    .await;
    let line = letters.lines().nth(1).unwrap();
    assert!(line.starts_with(id) && line.contains("  1.5 SOL -> USDC  "), "{letters}");
    let json = order(&["dead-letters", "--json", "--limit", "5"], &url).await;
    assert_eq!(json.json_lines()[0]["orderId"], id, "{json:?}");

    // It may have been submitted before it failed, depending on its id.
    let end = order(&["dead-letters", "retry", "--force", id], &url).await.exits(0);
    let new = end.stdout.trim_end();
    assert_ne!(new, id);
    until_status(gateway.address, new, "failed").await;
    let end = order(&["dead-letters", "retry", id], &url).await;
    assert!(end.stderr.contains("unknown_dead_letter"), "{end:?}");
}

// Situations that no healthy gateway causes

/// Answers one request after the other.
async fn scripted(replies: Vec<Reply<'static>>) -> (String, Arc<Mutex<Vec<Request>>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (log, mut replies, mut running) = (Arc::clone(&sent), VecDeque::from(replies), JoinSet::new());
    running.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let reply = replies.pop_front().expect("one request too many");
            let request = answer(stream, reply).await;
            log.lock().unwrap().push(request);
        }
    });
    (url, sent, running)
}

const FULL: Reply =
    Some(("503 Service Unavailable", "retry-after: 1\r\n", r#"{"code":"queue_full","detail":"full"}"#));
const ACCEPTED: Reply = Some((
    "202 Accepted",
    "",
    r#"{"success":true,"orderId":"6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11","jobId":"6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11","status":"pending","wsUrl":"ws://localhost/x"}"#,
));

#[tokio::test]
async fn an_order_is_sent_again_with_the_same_key_until_it_is_answered() {
    let broken: Reply = Some(("202 Accepted", "", r#"{"success":true,"#));
    let (url, sent, _running) = scripted(vec![None, FULL, ACCEPTED]).await;
    let end = order(&["place", "SOL", "USDC", "1.5"], &url).await.exits(0);
    assert_eq!(end.stdout, "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11\n");
    assert!(end.stderr.contains("full (queue_full); trying again in 1.0 s"), "{end:?}");
    {
        let sent = sent.lock().unwrap();
        assert_eq!(sent.len(), 3);
        assert_eq!(sent[0].idempotency_key.len(), 36, "{sent:?}");
        assert!(sent.iter().all(|request| *request == sent[0]), "{sent:?}");
    }
    // An answer that cannot be read is an answer nevertheless.
    let (url, sent, _running) = scripted(vec![broken]).await;
    order(&["place", "SOL", "USDC", "1.5", "--idempotency-key", "Mine"], &url).await.exits(1);
    assert_eq!(sent.lock().unwrap()[0].idempotency_key, "Mine");
}

#[tokio::test]
async fn a_refused_order_is_not_sent_again() {
    let refused: Reply = Some((
        "422 Unprocessable Entity",
        "",
        r#"{"code":"invalid_order","detail":"no","errors":[{"field":"amount","message":"too much"}]}"#,
    ));
    let (url, sent, _running) = scripted(vec![refused]).await;
    let end = order(&["place", "SOL", "USDC", "1.5"], &url).await.exits(1);
    assert!(end.stderr.contains("no; amount: too much (invalid_order)"), "{end:?}");
    assert_eq!(sent.lock().unwrap().len(), 1);
}
