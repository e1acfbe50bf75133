//! The spool as users experience it: what is answered with 200 while Redis is away survives a crash, whatever
//! happens to the disk; and the end of a gateway with entries that Redis does not have.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command as Spawned;
use zonewire_kit::redis::RedisServer;

use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Answer, JSON, Running, history, metric, price, request, until_closed};
use crate::support::process::{Process, Signal, serve};
use crate::support::redis::{nowhere, on, redis};

/// The settings of a gateway with this port for Redis, whether or not that runs yet, and this directory for
/// the spool.
fn settings(port: u16, dir: &Path) -> Vec<String> {
    vec![
        "storage.backend=redis".to_owned(),
        "storage.redis.host=127.0.0.1".to_owned(),
        format!("storage.redis.port={port}"),
        format!("storage.journal.spool.data_dir={}", dir.display()),
        // The machine may be busy with other tests.
        "storage.journal.spool.deadline_ms=15000".to_owned(),
        "channels.publish_patience_ms=500".to_owned(),
        "http.drain_s=0".to_owned(),
        "http.shards=1".to_owned(),
    ]
}

/// Posts a price with this many additional bytes.
async fn post(gateway: &Process, value: u64, bytes: usize) -> Answer {
    let mut price = price("HUB", value);
    price["note"] = Value::String("x".repeat(bytes));
    let path = "/api/zones/pjm/prices";
    request(gateway.address, "POST", path, &[("content-type", JSON)], price.to_string().as_bytes()).await
}

async fn health(gateway: &Process) -> Value {
    request(gateway.address, "GET", "/health/ready", &[], b"").await.json()
}

/// Posts until the disk is full, and returns how many were accepted.
async fn fill(gateway: &Process) -> u64 {
    for value in 1..=2_000 {
        let answer = post(gateway, value, 20_000).await;
        if answer.status != 200 {
            let problem = answer.problem(503, "storage_unavailable");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("must be on disk first, and the spool's disk fails"), "{detail}");
            return value - 1;
        }
    }
    panic!("the disk never fills up");
}

/// The prices that a gateway with this spool sends to a Redis that runs now.
async fn accepted_before(server: &RedisServer, dir: &Path) -> Vec<u64> {
    let next = Process::start(&settings(server.port, dir)).await;
    until("all waiting entries are in Redis", async || {
        let stats = request(next.address, "GET", "/ws/stats", &[], b"").await.json();
        stats["state"] == "healthy" && stats["outage"]["spool_entries"] == 0
    })
    .await;
    let prices = history(next.address, "pjm").await;
    let prices = prices.iter().map(|entry| entry["price"].as_u64().unwrap()).collect();
    drop(next);
    prices
}

/// Kills the gateway, and checks that the next process sends exactly the entries that were answered with 200.
async fn crash_and_look(mut gateway: Process, dir: &Path, accepted: &[u64]) {
    gateway.kill().await;
    let Some(server) = redis(&[]).await else { return };
    let mut found = accepted_before(&server, dir).await;
    found.sort_unstable();
    assert_eq!(found, accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_size_limit_counts_as_a_full_disk_and_does_not_kill_the_process() {
    let dir = TempDir::new().unwrap();
    let args: Vec<String> =
        settings(nowhere(), &dir.path().join("spool")).iter().map(|set| format!("--set={set}")).collect();
    let gateway = Process::start_command(limited(&args)).await;
    let taken = fill(&gateway).await;
    assert!(taken > 0);
    let said = eventually("health says so", async || {
        let health = health(&gateway).await;
        (health["spool"] == "failed").then_some(health)
    })
    .await;
    assert_eq!((&said["ready"], &said["status"]), (&json!(true), &json!("degraded")));
    assert!(said["spool_reason"].as_str().unwrap().contains("File too large"), "{said}");
    let metrics = request(gateway.address, "GET", "/metrics", &[], b"").await.body;
    assert!(metrics.contains("zonewire_spool_state{state=\"failed\"} 1"), "{metrics}");
    assert!(!metrics.contains("zonewire_spool_not_written_total{reason=\"failed\"} 0"), "{metrics}");
    // The limit is removed, and the spool recovers by itself.
    let pid = gateway.process.id().unwrap().to_string();
    let raised =
        Command::new("prlimit").args(["--fsize=unlimited", "--pid", &pid]).stdout(Stdio::null()).status();
    if !raised.is_ok_and(|status| status.success()) {
        return;
    }
    until("the spool works again", async || health(&gateway).await["spool"] == "working").await;
    assert!(health(&gateway).await["spool_reason"].is_null());
    assert_eq!(post(&gateway, 7_000, 20_000).await.status, 200);
    let accepted: Vec<u64> = (1..=taken).chain([7_000]).collect();
    crash_and_look(gateway, &dir.path().join("spool"), &accepted).await;
}

/// The program with a soft limit of 4 MiB (8 if the shell counts in KiB) per file.
fn limited(args: &[String]) -> Spawned {
    let always = ["--listen=127.0.0.1:0".to_owned(), "--set=log.format=json".to_owned()];
    let whole = serve(&[&always[..], args].concat());
    let mut command = Spawned::new("sh");
    command.env_clear().kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.args(["-c", "ulimit -S -f 8192 && exec \"$@\"", "sh"]).arg(whole.as_std().get_program());
    command.args(whole.as_std().get_args());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_and_used_again_once_there_is_room() {
    let dir = TempDir::new().unwrap();
    // Only some users may mount.
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=6m", "none"])
        .arg(dir.path())
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    let _unmount = Unmount(dir.path());
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let spool = dir.path().join("spool");
    let gateway = Process::start(&settings(nowhere(), &spool)).await;
    let taken = fill(&gateway).await;
    assert!(taken > 0);
    assert!(health(&gateway).await["spool_reason"].as_str().unwrap().contains("No space left"));
    std::fs::remove_file(&ballast).unwrap();
    until("the spool works again", async || health(&gateway).await["spool"] == "working").await;
    assert_eq!(post(&gateway, 7_000, 100).await.status, 200);
    let accepted: Vec<u64> = (1..=taken).chain([7_000]).collect();
    crash_and_look(gateway, &spool, &accepted).await;
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_required_spool_prices_are_accepted_and_the_risk_is_reported() {
    let dir = TempDir::new().unwrap();
    let mut settings = settings(nowhere(), dir.path());
    settings.push("storage.journal.spool.required=false".to_owned());
    let args: Vec<String> = settings.iter().map(|set| format!("--set={set}")).collect();
    let mut gateway = Process::start_command(limited(&args)).await;
    for value in 1..=800 {
        assert_eq!(post(&gateway, value, 20_000).await.status, 200);
    }
    assert_eq!(health(&gateway).await["spool"], "failed");
    assert!(metric(gateway.address, "zonewire_journal_in_memory_only").await > 0);
    assert_eq!(gateway.terminate().await.code(), Some(74), "entries that were only in memory are lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_new_entries() {
    let dir = TempDir::new().unwrap();
    let mut settings = settings(nowhere(), dir.path());
    settings.push("storage.journal.spool.bytes=3000".to_owned());
    let mut gateway = Process::start(&settings).await;
    assert_eq!(post(&gateway, 1, 2_000).await.status, 200);
    let problem = post(&gateway, 2, 2_000).await.problem(503, "storage_unavailable");
    assert!(problem["detail"].as_str().unwrap().ends_with("the spool is full"), "{problem}");
    assert_eq!(post(&gateway, 3, 10).await.status, 200, "there is room for less");
    let health = health(&gateway).await;
    assert_eq!((&health["spool"], &health["spool_reason"]), (&json!("working"), &Value::Null));
    assert_eq!(gateway.terminate().await.code(), Some(0), "both entries wait on disk");
}

// The end of a gateway with entries that Redis does not have

/// A gateway without a spool that has accepted a price which Redis does not have.
async fn with_one_in_memory(server: &mut RedisServer, drain_s: u64) -> Process {
    let gateway = Process::start_on(server, &[&format!("http.drain_s={drain_s}")]).await;
    until("Redis serves", async || health(&gateway).await["status"] == "healthy").await;
    server.kill().await.unwrap();
    until("it is noticed", async || health(&gateway).await["status"] == "degraded").await;
    assert_eq!(post(&gateway, 1, 10).await.status, 200);
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_waits_for_a_redis_that_returns_within_the_drain_time() {
    let Some(mut server) = redis(&[]).await else { return };
    let mut gateway = with_one_in_memory(&mut server, 15).await;
    gateway.signal(Signal::TERM);
    // The shutdown is in progress once connections are refused.
    until_closed(gateway.address).await;
    assert!(gateway.has_ended().is_none(), "it waits");
    server.restart().await.unwrap();
    assert_eq!(gateway.ended().await.code(), Some(0));
    let next = Running::start(on(&server)).await;
    let history = next.get("/api/zones/pjm/history").await.json();
    assert_eq!(history["entries"][0]["price"], 1, "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_accepted_entries_at_the_end_is_reported_by_the_exit_code() {
    let Some(mut server) = redis(&[]).await else { return };
    let mut gateway = with_one_in_memory(&mut server, 0).await;
    assert_eq!(gateway.terminate().await.code(), Some(74));
}
