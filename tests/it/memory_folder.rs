//! Memory with a directory as users experience it: what was accepted survives the process, however it ends.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::support::client::{Client, assert_has, position};
use crate::support::eventually::{eventually, until};
use crate::support::follow::{Cuts, Follower};
use crate::support::gateway::{Answer, JSON, history, post, price, publish, request};
use crate::support::orders::{check_whole, get_order, place, post_json, until_ended};
use crate::support::process::{Process, serve};
use crate::support::program::{run, zonewire};

fn settings(dir: &Path) -> Vec<String> {
    vec![
        "storage.backend=memory".to_owned(),
        format!("storage.memory.data_dir={}", dir.display()),
        // The machine may be busy with other tests.
        "storage.memory.deadline_ms=15000".to_owned(),
        "channels.publish_patience_ms=500".to_owned(),
        "http.drain_s=0".to_owned(),
        "http.shards=1".to_owned(),
        "orders.lease_s=1".to_owned(),
        "orders.paper.failure_rate=0".to_owned(),
        "orders.paper.step_ms=300".to_owned(),
    ]
}

fn base(gateway: &Process) -> String {
    format!("ws://{}", gateway.address)
}

async fn get(gateway: &Process, path: &str) -> Value {
    request(gateway.address, "GET", path, &[], b"").await.json()
}

/// A reader that has read nothing of a zone yet.
async fn follower(gateway: &Process, zone: &str) -> Follower {
    let mut client = Client::connect(&format!("{}/ws/market/{zone}", base(gateway))).await;
    let subscribed = client.next_of_type("subscribed").await;
    client.close().await;
    Follower::after(zone, &position(&subscribed))
}

async fn patch(gateway: &Process, path: &str, body: &Value) -> Answer {
    request(gateway.address, "PATCH", path, &[("content-type", JSON)], body.to_string().as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_resume_after_a_crash_and_unfinished_orders_complete() {
    let dir = TempDir::new().unwrap();
    let settings = settings(dir.path());
    let mut gateway = Process::start(&settings).await;
    let zones = ["pjm", "ercot", "miso"];
    let mut followers = Vec::new();
    for zone in zones {
        followers.push(follower(&gateway, zone).await);
    }
    let ada = json!({ "userId": 1, "name": "Ada", "status": "online" });
    let added = post_json(gateway.address, "/api/providers?written=1", &ada).await;
    assert_eq!(added.status, 201, "{added:?}");
    let (mut orders, mut next) = (Vec::new(), 1);
    for round in 1..=3 {
        orders.push(place(gateway.address).await);
        for zone in zones {
            publish(gateway.address, zone, (next..next + 50).map(|n| price("HUB", n))).await;
        }
        next += 50;
        // Some have read half of it, and are away when the gateway is killed.
        for follower in &mut followers {
            follower.read(&[base(&gateway)], (next - 1) / 2 + 10, &mut Cuts::seeded(round, 20)).await;
        }
        gateway.kill().await;
        gateway = Process::start(&settings).await;
        let health = get(&gateway, "/ws/health").await;
        assert_eq!((&health["state"], &health["reason_code"]), (&json!("healthy"), &json!("configured")));
        let reason = health["reason"].as_str().unwrap();
        assert!(reason.contains("its directory had") && !reason.contains("epoch"), "{reason}");
    }
    publish(gateway.address, "pjm", [price("HUB", next)]).await;
    for follower in &mut followers {
        let last = if follower.zone == "pjm" { next } else { next - 1 };
        follower.read(&[base(&gateway)], last, &mut Cuts::seeded(9, 40)).await;
        let seen: Vec<u64> = follower.seen.iter().map(|price| price["price"].as_u64().unwrap()).collect();
        assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    }
    for id in &orders {
        let order = until_ended(gateway.address, id).await;
        assert_eq!(order["status"], "confirmed", "{order}");
        check_whole(get_order(gateway.address, id).await["updates"].as_array().unwrap(), "confirmed");
    }
    // The registry is restored, and continues.
    let provider = eventually("the provider is known", async || {
        let answer = request(gateway.address, "GET", "/api/providers/1", &[], b"").await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!((&provider["name"], &provider["status"]), (&json!("Ada"), &json!("online")));
    assert_eq!(patch(&gateway, "/api/providers/1", &json!({ "status": "away" })).await.status, 200);
    let listed = get(&gateway, "/api/zones").await;
    assert_eq!(listed["zones"].as_array().unwrap().len(), zones.len(), "{listed}");
    // An orderly end works too.
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let gateway = Process::start(&settings).await;
    assert_eq!(history(gateway.address, "pjm").await.len() as u64, next);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_gateway_is_killed() {
    let dir = TempDir::new().unwrap();
    let settings = settings(dir.path());
    let mut gateway = Process::start(&settings).await;
    let (address, mut accepted) = (gateway.address, Vec::new());
    let mut publishing = JoinSet::new();
    publishing.spawn(async move {
        for n in 1.. {
            match sent(address, n).await {
                Some(200) => accepted.push(n),
                _ => return (accepted, n),
            }
        }
        unreachable!("it dies before")
    });
    until("some are accepted", async || history(address, "pjm").await.len() > 30).await;
    gateway.kill().await;
    let (accepted, unanswered) = publishing.join_next().await.unwrap().unwrap();
    let gateway = Process::start(&settings).await;
    let found: Vec<u64> =
        history(gateway.address, "pjm").await.iter().map(|entry| entry["price"].as_u64().unwrap()).collect();
    let with_it: Vec<u64> = accepted.iter().copied().chain([unanswered]).collect();
    assert!(found == accepted || found == with_it, "{accepted:?}, {found:?}");
}

/// The status of a request to a gateway that may be killed meanwhile.
async fn sent(address: SocketAddr, n: u64) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let body = price("HUB", n).to_string();
    let head = format!(
        "POST /api/zones/pjm/prices HTTP/1.1\r\nhost: {address}\r\ncontent-type: {JSON}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_files_are_set_aside_and_reported() {
    for (file, is_torn) in [("memory.redb", false), ("memory.redb", true), ("recent.redb", true)] {
        let dir = TempDir::new().unwrap();
        let settings = settings(dir.path());
        let mut gateway = Process::start(&settings).await;
        publish(gateway.address, "pjm", [price("HUB", 1)]).await;
        gateway.kill().await;
        let path = dir.path().join(file);
        let bytes = std::fs::read(&path).unwrap();
        let bytes = if is_torn { bytes[..bytes.len() / 2].to_vec() } else { b"not a database".repeat(999) };
        std::fs::write(&path, bytes).unwrap();
        let gateway = Process::start(&settings).await;
        let health = get(&gateway, "/ws/health").await;
        let reason = health["reason"].as_str().unwrap();
        assert!(reason.contains(&format!("put aside as {file}.unreadable")), "{reason}");
        assert!(reason.contains("all channels continue in another epoch"), "{reason}");
        assert!(dir.path().join(format!("{file}.unreadable")).exists());
        let stats = get(&gateway, "/ws/stats").await;
        assert_has(&stats["memory"], json!({ "disk": "working", "disk_set_aside": 1 }));
        publish(gateway.address, "pjm", [price("HUB", 2)]).await;
        assert_eq!(history(gateway.address, "pjm").await.last().unwrap()["price"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_a_directory_and_contradictory_settings_are_refused() {
    let dir = TempDir::new().unwrap();
    let _first = Process::start(&settings(dir.path())).await;
    let data_dir = format!("--set=storage.memory.data_dir={}", dir.path().display());
    let second = run(&mut zonewire(&["serve", "--listen=127.0.0.1:0", "--storage=memory", &data_dir])).await;
    assert_ne!(second.code, Some(0));
    assert!(second.stderr.contains("in use by another process"), "{}", second.stderr);
    for storage in ["auto", "redis"] {
        let wrong = run(&mut zonewire(&["serve", &format!("--storage={storage}"), &data_dir])).await;
        assert_eq!(wrong.code, Some(64), "{}", wrong.stderr);
        assert!(wrong.stderr.contains("goes only with storage.backend = \"memory\""), "{}", wrong.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_refuses_publishers_and_says_so() {
    let dir = TempDir::new().unwrap();
    let mut args: Vec<String> = settings(dir.path()).iter().map(|set| format!("--set={set}")).collect();
    args.extend(["--listen=127.0.0.1:0".to_owned(), "--set=log.format=json".to_owned()]);
    let whole = serve(&args);
    let mut command = Command::new("sh");
    command.env_clear().kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // 8 MiB, or 4 if the shell counts in half KiB.
    command.args(["-c", "ulimit -S -f 8192 && exec \"$@\"", "sh"]).arg(whole.as_std().get_program());
    command.args(whole.as_std().get_args());
    let mut gateway = Process::start_command(command).await;
    let mut taken = 0;
    let refused = loop {
        let mut large = price("HUB", taken + 1);
        large["note"] = Value::String("x".repeat(20_000));
        let answer = post(gateway.address, "pjm", JSON, large.to_string().as_bytes()).await;
        if answer.status != 200 {
            break answer.problem(503, "storage_unavailable");
        }
        taken += 1;
        assert!(taken < 2_000, "the disk never fills up");
    };
    assert!(taken > 0);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("must be on disk first, and the disk fails"), "{detail}");
    let health = eventually("health says so", async || {
        let health = get(&gateway, "/ws/health").await;
        (health["reason_code"] == "disk").then_some(health)
    })
    .await;
    assert_eq!((&health["state"], &health["ready"]), (&json!("degraded"), &json!(true)), "{health}");
    assert_eq!(history(gateway.address, "pjm").await.len() as u64, taken, "reading still works");
    gateway.kill().await;
    let gateway = Process::start(&settings(dir.path())).await;
    let found = history(gateway.address, "pjm").await;
    let prices: Vec<u64> = found.iter().map(|entry| entry["price"].as_u64().unwrap()).collect();
    assert!(prices == (1..=taken).collect::<Vec<_>>(), "{taken}, {prices:?}");
}
