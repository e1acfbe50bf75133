//! Short runs of the whole outage program, as processes: nothing that was accepted is lost, doubled or
//! reordered, no socket is cut, and everything is healthy in the end. Durations are not checked here; `just
//! outages` does that.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time;

use crate::support::has_redis;

/// Longer than any fault takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs one fault and returns its outcome; `None` if there is no Redis. Subscribers move in the same way in
/// each run.
async fn outcome(fault: &str, hold: &str) -> Option<Value> {
    if !has_redis().await {
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_zonewire-outages"));
    command.args(["--nodes=2", "--orders=8", "--zones=2", "--order-rate=2", "--seed=1", "--json=-"]);
    command.arg(format!("--faults={fault}")).arg(format!("--hold={hold}"));
    command.env_remove("OUTAGE_CHECK_REDIS_URL").kill_on_drop(true).stdin(Stdio::null());
    let output = time::timeout(PATIENCE, command.output()).await.expect("the run ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(report["failed"], json!({}), "{said}");
    Some(report["outcomes"][0].clone())
}

async fn check(fault: &str, hold: &str) {
    let Some(outcome) = outcome(fault, hold).await else { return };
    for kind in ["orders", "every", "latest"] {
        let tally = &outcome[kind];
        for wrong in ["lost", "doubled", "reordered", "falsely_gone"] {
            assert_eq!(tally[wrong], 0, "{kind} {wrong}: {outcome:#}");
        }
        for wrong in ["unsaid", "falsely_missed", "doubled", "reordered"] {
            assert_eq!(tally["log"][wrong], 0, "{kind} {wrong} in the log: {outcome:#}");
        }
        for some in ["accepted", "moved", "resumed"] {
            assert!(tally[some].as_u64() > Some(0), "{kind} {some}: {outcome:#}");
        }
    }
    for wrong in ["stale", "odd", "left_in_part"] {
        assert_eq!(outcome["snapshots"][wrong], 0, "{wrong}: {outcome:#}");
    }
    assert!(outcome["snapshots"]["whole"].as_u64() > Some(4), "{outcome:#}");
    assert_eq!(outcome["logs_unread"], 0, "{outcome:#}");
    assert_eq!(outcome["read_anew"]["lost"], 0, "{outcome:#}");
    assert_eq!((&outcome["sockets_cut"], &outcome["recovered"]), (&json!(0), &json!(true)), "{outcome:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_killed_and_comes_back_empty() {
    check("killed-empty", "2s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_carries_nothing() {
    check("black-hole", "3s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still() {
    check("frozen", "3s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_are_cut_off() {
    check("replies-cut", "2s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_again_in_the_recovery() {
    check("cut-returns", "1s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_gives_back_what_it_took() {
    if !has_redis().await {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_zonewire-outages"));
    command.args(["--soak=12s", "--seed=1"]).kill_on_drop(true).stdin(Stdio::null());
    let output = time::timeout(PATIENCE, command.output()).await.expect("the run ends").unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{said}\n{told}");
}
