//! The end of a gateway: what clients are told, what is persisted, and the exit code.

use std::net::TcpListener;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::support::client::{Client, LIMIT, assert_has};
use crate::support::eventually::eventually;
use crate::support::gateway::{Lines, Running, config, price, publish, read_answer, until_closed};
use crate::support::process::{Process, Signal, serve};
use crate::support::raw::{RawSocket, upgrade};
use crate::support::redis::{on, redis};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_tells_clients_and_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start(&["storage.backend=memory", "http.drain_s=1"]).await;
        let mut clients = Vec::new();
        for path in ["/ws", "/ws/market/pjm", "/ws/market/pjm", "/ws/market/ercot"] {
            let mut client = Client::connect(&process.url(path)).await;
            client.next_of_type("connection_established").await;
            clients.push(client);
        }
        process.signal(signal);
        for mut client in clients {
            let (before, code, reason) = client.until_close().await;
            assert_eq!((code, reason.as_str()), (4000, "shutting_down"));
            let closing = before.last().unwrap();
            assert_has(closing, json!({ "type": "closing", "code": 4000, "reason": "shutting_down" }));
            // Half a second, plus a share of the drain window.
            let hint = closing["retry_after_ms"].as_u64().unwrap();
            assert!((500..=1_500).contains(&hint), "{hint}");
            client.close().await;
        }
        assert_eq!(process.ended().await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_closes_many_clients_without_cutting_any_off() {
    const COUNT: usize = 400;
    let settings = ["storage.backend=memory", "http.drain_s=1", "http.shards=2"];
    let mut process = Process::start(&settings).await;
    let mut clients = JoinSet::new();
    for n in 0..COUNT {
        let mut client = Client::connect(&process.url(&format!("/ws/market/z{}", n % 7))).await;
        client.next_of_type("subscribed").await;
        clients.spawn(async move {
            let (before, code, _) = client.until_close().await;
            assert_eq!((&before.last().unwrap()["type"], code), (&json!("closing"), 4000));
            client.close().await;
        });
    }
    process.signal(Signal::TERM);
    clients.join_all().await;
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_are_refused_while_old_ones_are_closed() {
    let mut process = Process::start(&["storage.backend=memory", "http.drain_s=0"]).await;
    // Does not answer the close frame, and so keeps the process running for a while.
    let mut rude = RawSocket::open(process.address, "/ws/market/pjm").await;
    process.signal(Signal::TERM);
    let (_, code) = rude.until_close().await;
    assert_eq!(code, 4000);
    until_closed(process.address).await;
    assert_eq!(process.ended().await.code(), Some(0), "a client that does not answer is cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let settings = ["storage.backend=memory", "http.drain_s=600", "connections.close_grace_ms=600000"];
    let mut process = Process::start(&settings).await;
    let mut rude = RawSocket::open(process.address, "/ws").await;
    process.signal(Signal::TERM);
    // By then the process has received the first signal; two at once would count as one.
    rude.until_close().await;
    assert_eq!(process.terminate().await.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_accepted_before_the_end_is_in_redis() {
    let Some(server) = redis(&[]).await else { return };
    let mut process = Process::start_on(&server, &["http.drain_s=0"]).await;
    let mut reader = Client::connect(&process.url("/ws/market/pjm")).await;
    reader.next_of_type("subscribed").await;
    // Endless lines, as fast as possible.
    let mut lines = Lines::open(process.address, "pjm").await;
    let (mut feeding, enough) = (JoinSet::new(), CancellationToken::new());
    let until = enough.clone();
    feeding.spawn(async move {
        let chunk: String = (0..20).map(|n| price("A", n).to_string() + "\n").collect();
        while !until.is_cancelled() {
            lines.send(&chunk).await;
        }
        lines.answer().await
    });
    reader.prices(200).await;
    process.signal(Signal::TERM);
    // The publisher continues until the shutdown is in progress.
    reader.until_close().await;
    enough.cancel();
    let answer = feeding.join_next().await.unwrap().unwrap();
    let accepted = answer.problem(503, "shutting_down")["accepted"].as_u64().unwrap();
    assert!(accepted >= 200, "{accepted}");
    reader.close().await;
    assert_eq!(process.ended().await.code(), Some(0));

    let next = Running::start(on(&server)).await;
    let answer = next.get("/api/zones/pjm/history?limit=1").await;
    let last = &answer.json()["last_offset"];
    assert_eq!(last, accepted, "all that was accepted, and nothing else: {answer:?}");
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_post_is_answered_at_shutdown_whatever_the_timeouts() {
    for (drain_s, grace_ms) in [(0, 0), (0, 5_000), (1, 0)] {
        let mut config = config();
        config.http.drain_s = drain_s;
        config.connections.close_grace_ms = grace_ms;
        let mut gateway = Running::start(config).await;
        let (mut reader, _) = gateway.market("pjm").await;
        let mut lines = Lines::open(gateway.address, "pjm").await;
        lines.send("{\"key\":\"A\",\"price\":1}\n{\"key\":\"A\",\"price\":2}\n{\"key\":").await;
        reader.prices(2).await;
        gateway.begin_stop();
        // The request delays the end, but new connections are refused at once.
        until_closed(gateway.address).await;
        let problem = lines.answer().await.problem(503, "shutting_down");
        assert_eq!((&problem["accepted"], &problem["line"]), (&json!(2), &json!(3)));
        drop(reader);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_in_progress_does_not_delay_the_end() {
    for round in 0..20 {
        let mut config = config();
        config.connections.heartbeat_interval_s = 1;
        config.connections.close_grace_ms = 100;
        let mut gateway = Running::start(config).await;
        let mut rude = Vec::new();
        for _ in 0..10 {
            let mut stream = TcpStream::connect(gateway.address).await.unwrap();
            stream.write_all(upgrade("/ws/market/pjm").as_bytes()).await.unwrap();
            rude.push(stream);
        }
        // In each round the shutdown is a little further; these clients never answer close frames.
        for stream in rude.iter().take(round / 2) {
            stream.readable().await.unwrap();
        }
        gateway.begin_stop();
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_gateway_is_not_ready() {
    let mut gateway = Running::changed(config(), |config| config.connections.close_grace_ms = 10_000).await;
    // A connection from before the stop with half a request, and one that keeps the gateway from ending.
    let mut rude = RawSocket::open(gateway.address, "/ws").await;
    let mut open = TcpStream::connect(gateway.address).await.unwrap();
    open.write_all(b"GET /health/ready HTTP/1.1\r\nHo").await.unwrap();
    publish(gateway.address, "pjm", [price("A", 1)]).await;
    gateway.begin_stop();
    rude.until_close().await;
    // It is answered or closed, but never told that the gateway is ready.
    if open.write_all(b"st: x\r\n\r\n").await.is_ok()
        && let Some(answer) = read_answer(&mut open).await
    {
        assert_eq!((answer.status, &answer.json()["status"]), (503, &json!("stopping")));
    }
    drop(rude);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_about_to_stop_is_not_ready_but_still_serves() {
    let mut gateway = Running::changed(config(), |config| config.http.drain_lead_s = 4).await;
    let (mut reader, _) = gateway.market("pjm").await;
    gateway.begin_stop();
    // Each request on a new connection: the gateway still accepts.
    eventually("it is not ready", async || {
        let answer = gateway.get("/health/ready").await;
        (answer.status == 503).then(|| assert_eq!(answer.json()["status"], "stopping"))
    })
    .await;
    assert_eq!(gateway.get("/health/live").await.status, 200);
    publish(gateway.address, "pjm", [price("A", 1)]).await;
    assert_eq!(reader.prices(1).await[0]["price"], 1);
    drop(gateway.market("pjm").await);
    // Then it stops as usual.
    let (_, code, _) = reader.until_close().await;
    assert_eq!(code, 4000);
    until_closed(gateway.address).await;
    reader.close().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Running::start(config()).await;
    // In use by another program, and by another gateway, which shares its port among its own threads.
    for taken in [listener.local_addr().unwrap(), gateway.address] {
        let mut command = serve(&[format!("--listen={taken}"), "--storage=memory".to_owned()]);
        let output = time::timeout(LIMIT, command.output()).await.expect("it ends in time").unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("error: cannot start: cannot listen on {taken}")), "{told}");
        assert!(told.contains("in use"), "{told}");
    }
    gateway.stop().await;
}
