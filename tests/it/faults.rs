//! Faults are reported or end what they affect: a log that nobody reads, and bugs.

use serde_json::{Value, json};
use tokio::time;

use crate::support::client::{Came, Client, LIMIT};
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{JSON, metric, post, price, publish, request, until_state};
use crate::support::process::Process;
use crate::support::redis::{nowhere, redis};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_is_gone_blocks_nothing() {
    let Some(mut server) = redis(&[]).await else { return };
    let port = format!("storage.redis.port={}", server.port);
    let settings = ["storage.backend=redis", "storage.redis.host=127.0.0.1", &port, "http.drain_s=0"];
    let (mut process, log) = Process::start_unread(&settings).await;
    drop(log);
    let mut client = Client::connect(&process.url("/ws/market/pjm")).await;
    client.next_of_type("subscribed").await;

    server.kill().await.unwrap();
    until_state(process.address, "degraded").await;
    publish(process.address, "pjm", [price("A", 1)]).await;
    assert_eq!(client.next_of_type("price_update").await["price"], 1);
    server.restart().await.unwrap();
    until_state(process.address, "healthy").await;
    publish(process.address, "pjm", [price("A", 2)]).await;
    assert_eq!(client.next_of_type("price_update").await["price"], 2);

    let lost = metric(process.address, "zonewire_log_lines_lost_total").await;
    assert!(lost > 0, "the loss of lines is counted");
    client.close().await;
    assert_eq!(process.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_blocks_nothing_and_reports_lost_lines() {
    // Lines so long that the buffer for the reader is soon full.
    let settings = ["storage.backend=memory", "log.level=debug", "http.drain_s=0"];
    let (mut process, mut log) = Process::start_unread(&settings).await;
    let nowhere = format!("/{}", "x".repeat(4_000));
    eventually("lines are lost", async || {
        for _ in 0..50 {
            request(process.address, "GET", &nowhere, &[], b"").await.problem(404, "not_found");
        }
        (metric(process.address, "zonewire_log_lines_lost_total").await > 0).then_some(())
    })
    .await;
    // Somebody reads again.
    let telling = async {
        loop {
            let line: Value = serde_json::from_str(&log.next_line().await.unwrap()).unwrap();
            if line["message"].as_str().is_some_and(|said| said.starts_with("log lines were lost")) {
                return line;
            }
        }
    };
    let told = time::timeout(LIMIT, telling).await.expect("the loss is told in time");
    assert!(told["lost"].as_u64().unwrap() > 0, "{told}");
    // The reader disappears for good, before the last lines.
    assert_eq!(process.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_request_ends_that_request() {
    let fault = [("ZONEWIRE_TEST_PANIC", "request")];
    let mut process = Process::start_with(&["storage.backend=memory", "http.drain_s=0"], &fault).await;
    for _ in 0..2 {
        request(process.address, "GET", "/api/zones", &[], b"").await.problem(500, "internal");
    }
    publish(process.address, "pjm", [price("A", 1)]).await;
    assert_eq!(metric(process.address, r#"zonewire_panics_total{where="request"}"#).await, 2);
    assert_eq!(process.terminate().await.code(), Some(0));
    let log = process.log().await;
    let said = log.iter().filter(|line| line.contains("a test asked for this panic")).count();
    assert_eq!(said, 2, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_connection_ends_that_connection() {
    let fault = [("ZONEWIRE_TEST_PANIC", "connection")];
    let settings = ["storage.backend=memory", "http.drain_s=0", "http.shards=1"];
    let mut process = Process::start_with(&settings, &fault).await;
    let mut other = Client::connect(&process.url("/ws/market/pjm")).await;
    other.next_of_type("subscribed").await;
    let mut hurt = Client::connect(&process.url("/ws/market/pjm")).await;
    hurt.next_of_type("subscribed").await;

    hurt.send(&json!({ "type": "ping" })).await;
    assert!(matches!(hurt.came().await, Came::End));
    publish(process.address, "pjm", [price("A", 1)]).await;
    assert_eq!(other.next_of_type("price_update").await["price"], 1);
    // Its socket closes before the panic is counted.
    let panics = async || metric(process.address, r#"zonewire_panics_total{where="connection"}"#).await;
    until("the panic is counted", async || panics().await == 1).await;
    let stats = async || request(process.address, "GET", "/ws/stats", &[], b"").await.json();
    until("its place is free", async || stats().await["connections"]["open"] == 1).await;
    other.close().await;
    assert_eq!(process.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_anywhere_else_ends_the_gateway_and_says_so() {
    for (place, part) in [("append zone:boom", "channel"), ("fan-out zone:boom", "fan-out")] {
        let fault = [("ZONEWIRE_TEST_PANIC", place)];
        let settings = ["storage.backend=memory", "http.shards=1"];
        let mut process = Process::start_with(&settings, &fault).await;
        let mut client = Client::connect(&process.url("/ws/market/boom")).await;
        client.next_of_type("subscribed").await;
        publish(process.address, "pjm", [price("A", 1)]).await;

        // Whether the request is still answered depends on the part that panics.
        let body = price("A", 1).to_string();
        let _answered = post(process.address, "boom", JSON, body.as_bytes()).await;
        let (_, code, _) = client.until_close().await;
        assert_eq!(code, 4000, "clients are told to come back");
        client.close().await;
        assert_eq!(process.ended().await.code(), Some(70), "{place}");
        let log = process.log().await;
        let last = log.last().unwrap();
        assert!(last.starts_with("error: ") && last.contains(&format!("`{part}`")), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_spools_thread_ends_the_gateway_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, port) = (dir.path().display(), nowhere());
    let settings = [
        "storage.backend=redis".to_owned(),
        "storage.redis.host=127.0.0.1".to_owned(),
        format!("storage.redis.port={port}"),
        format!("storage.journal.spool.data_dir={data_dir}"),
    ];
    let settings = settings.each_ref().map(String::as_str);
    let fault = [("ZONEWIRE_TEST_PANIC", "spool zone:boom")];
    let mut process = Process::start_with(&settings, &fault).await;
    let mut client = Client::connect(&process.url("/ws/market/pjm")).await;
    client.next_of_type("subscribed").await;
    publish(process.address, "pjm", [price("A", 1)]).await;
    assert_eq!(client.next_of_type("price_update").await["price"], 1);

    let body = price("A", 1).to_string();
    let refused = post(process.address, "boom", JSON, body.as_bytes()).await;
    assert_eq!(refused.status, 503, "what is not on disk is not accepted: {refused:?}");
    let (_, code, _) = client.until_close().await;
    assert_eq!(code, 4000, "clients are told to come back");
    client.close().await;
    assert_eq!(process.ended().await.code(), Some(70));
    let log = process.log().await;
    let last = log.last().unwrap();
    assert!(last.starts_with("error: ") && last.contains("`spool`"), "{last}");
}
