//! Clients that close their sending side after a request, and clients that disappear.

use std::net::SocketAddr;

use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time;
use zonewire::storage::StorageChoice;

use crate::support::client::LIMIT;
use crate::support::eventually::eventually;
use crate::support::gateway::{Answer, JSON, LINES, Running, price, read_answer};
use crate::support::orders::{external, place, swap};
use crate::support::redis::{Configured, redis};

fn post(path: &str, kind: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {len}\r\n\r\n{body}"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// Sends a request and the end of the stream, in one packet if it fits.
async fn send_all(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    SockRef::from(&stream).set_tcp_cork(true).unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    stream
}

/// The answer to a client that closes its sending side; the connection must then end.
async fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut stream = send_all(address, request).await;
    let answer = read_answer(&mut stream).await.unwrap_or_else(|| panic!("no answer to {request}"));
    let rest = time::timeout(LIMIT, stream.read(&mut [0; 1])).await.expect("the gateway closes too");
    assert_eq!(rest.unwrap(), 0, "{request}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_sending_side_gets_its_answer() {
    let server = redis(&[]).await;
    let mut on_redis = external();
    on_redis.storage.backend = StorageChoice::Redis;
    on_redis.storage.redis = server.as_ref().map(Configured::config).unwrap_or_default();
    let configs = [Some(external()), server.is_some().then_some(on_redis)];
    for config in configs.into_iter().flatten() {
        let gateway = Running::start(config).await;
        let address = gateway.address;
        for n in 1..=10 {
            assert_eq!(ask(address, &get("/health/ready")).await.status, 200);
            let body = price("A", n).to_string();
            let answer = ask(address, &post("/api/zones/pjm/prices", JSON, &body)).await;
            assert_eq!((answer.status, answer.json()), (200, json!({ "accepted": 1 })));
            assert_eq!(ask(address, &get("/api/zones/pjm/latest")).await.status, 200);
            let lines = format!("{body}\n").repeat(3);
            let answer = ask(address, &post("/api/zones/lines/prices", LINES, &lines)).await;
            assert_eq!((answer.status, answer.json()), (200, json!({ "accepted": 3 })));
            let answer = ask(address, &post("/api/orders/execute", JSON, &swap().to_string())).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            // Half a body is not taken for a complete one.
            let broken = post("/api/zones/pjm/prices", JSON, &body).replace(&body, &body[1..]);
            ask(address, &broken).await.problem(400, "broken_body");
        }
        assert_eq!(gateway.get("/api/zones/lines/history").await.json()["last_offset"], 30);
    }
}

fn wish(worker: &str, wait_ms: u64) -> String {
    // With a lease that outlasts the test.
    let wish = json!({ "worker": worker, "leaseMs": 600_000, "waitMs": wait_ms });
    post("/api/jobs/claim", JSON, &wish.to_string())
}

fn jobs(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["jobs"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_worker_gets_waiting_jobs_at_once_and_does_not_wait_for_more() {
    let gateway = Running::start(external()).await;
    let id = place(gateway.address).await;
    let claimed = jobs(&ask(gateway.address, &wish("half", 30_000)).await);
    assert_eq!(claimed[0]["jobId"], id);
    // Whether it is still there cannot be determined, so it is answered at once.
    assert_eq!(jobs(&ask(gateway.address, &wish("half", 30_000)).await), [] as [Value; 0]);
    // The job that it was given is its own.
    let path = format!("/api/jobs/{id}/extend");
    let answer =
        ask(gateway.address, &post(&path, JSON, &json!({ "token": claimed[0]["token"] }).to_string())).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "held": true })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_claimed_for_a_vanished_worker_is_given_back() {
    let gateway = Running::start(external()).await;
    let address = gateway.address;
    let id = place(address).await;
    for round in 1..=5_u32 {
        let given_back = format!("round {round}: it is given back");
        eventually(&given_back, async || {
            let stats = gateway.stats().await;
            let orders = &stats["orders"];
            if orders["runs"].as_u64() < Some(round.into()) {
                // The worker asks and disappears at once. Its machine rejects the answer with the claimed
                // job; if it disappeared before the gateway had read the request, nothing was claimed.
                drop(send_all(address, &wish("gone", 0)).await);
            }
            (orders["jobs"]["claimed"] == 0 && orders["runs"].as_u64() >= Some(round.into())).then_some(())
        })
        .await;
    }
    let next = jobs(&ask(address, &wish("next", 30_000)).await);
    assert_eq!((&next[0]["jobId"], &next[0]["attempt"]), (&json!(id), &json!(1)));
}
