//! The Autobahn test suite on the frames that the gateway reads and writes (RFC 6455).
//!
//! kosoku runs the suite's cases. Compression (12, 13) is not offered and not tested. The outcome of each
//! case is in `tests/autobahn/results.txt`: the suite's verdicts, and the close code of the gateway.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs};

use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::{self, LocalSet};
use warp::Filter as _;

use super::*;
use crate::connections::Opening;
use crate::http::accept::{AcceptParts, serve};
use crate::http::arrival::Entrance;
use crate::http::listening::Listener;
use crate::http::upgrade::{WebSocketRequest, accept, web_socket};
use crate::model::BackendName;
use crate::storage::{StatusWriter, StorageStatus};

/// The path of kosoku; set by `scripts/test`.
const KOSOKU: &str = "ZONEWIRE_TEST_KOSOKU";

/// Set in continuous integration, so that a missing program is a failure rather than a skip.
const REQUIRE: &str = "ZONEWIRE_TEST_REQUIRE_TOOLS";

/// A case may send 16 MiB at once.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// The outcome of one case.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    behavior: String,
    behavior_close: String,
    /// The close code of the gateway.
    remote_close_code: Option<u16>,
}

impl Outcome {
    /// Strict: verdicts that are barely acceptable do not count. The RFC leaves some cases open.
    fn is_well(&self) -> bool {
        [&self.behavior, &self.behavior_close].iter().all(|it| ["OK", "INFORMATIONAL"].contains(&it.as_str()))
    }
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/autobahn/results.txt")
}

/// Runs an echo server, made of an accept loop and a shard like any other, and calls `act` with its
/// address.
async fn with_echo(act: impl AsyncFnOnce(&str)) {
    let config = ConnectionsConfig {
        message_bytes_max: MESSAGE_BYTES_MAX,
        outbox_bytes_max: 4 * MESSAGE_BYTES_MAX,
        outbox_frames_max: 1_000_000,
        messages_per_s: 0,
        // A busy machine may be slow, and the suite expects nothing but echoes.
        heartbeat_interval_s: 3_600,
        silence_timeout_s: 7_200,
        ..ConnectionsConfig::default()
    };
    let routes = Routes::new().await;
    let (manager, mut seeds, _live) = connections::prepare(1, &config);
    let status = StorageStatus::new(BackendName::InMemory, BackendState::Healthy, "", String::new());
    let (_status, status) = StatusWriter::new(status);
    let stop = CancellationToken::new();
    let admitting = manager.clone();
    let echo = web_socket()
        .then(move |request: WebSocketRequest| {
            let manager = admitting.clone();
            async move {
                let accepted = accept(request, &manager, Opening::Echo, Ok(None)).await;
                accepted.unwrap_or_else(warp::Reply::into_response)
            }
        })
        .boxed();
    let gate = Gate::off().await;
    let http = HttpConfig::default();
    let door = Door::to_one(echo, &http, stop.clone()).await;
    let parts = Arc::new(AcceptParts::new(http, manager, Arc::default(), stop.clone(), None));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}/ws", listener.local_addr().unwrap());
    let channels = routes.channels.clone();
    let tests = async {
        let (seed, stopping) = (seeds.remove(0), stop.clone());
        let shard = task::spawn_local(async move {
            seed.run(channels, status, gate, &Vital::default(), stopping).await;
        });
        let serving = task::spawn_local(serve(Listener::Tcp(listener), Entrance::default(), 0, door, parts));
        act(&address).await;
        stop.cancel();
        serving.await.unwrap();
        shard.await.unwrap();
    };
    LocalSet::new().run_until(tests).await;
}

/// Runs cases of the suite, and returns the outcome of each.
async fn run(kosoku: &Path, address: &str, which: &[&str]) -> BTreeMap<String, Outcome> {
    let report = tempfile::tempdir().unwrap();
    let ran = Command::new(kosoku)
        .args([address, "--parallelism", "4", "--outdir"])
        .arg(report.path())
        .args(which)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await;
    assert!(ran.is_ok(), "{}: {ran:?}", kosoku.display());
    let index = fs::read(report.path().join("index.json")).unwrap();
    let mut agents: BTreeMap<String, BTreeMap<String, Outcome>> = serde_json::from_slice(&index).unwrap();
    agents.pop_first().unwrap().1
}

#[tokio::test]
async fn every_case_of_frames_ends_as_the_rfc_says() {
    let Some(kosoku) = env::var_os(KOSOKU).map(PathBuf::from).filter(|program| program.exists()) else {
        assert!(env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, and {KOSOKU} names no program");
        return println!("skipped: {KOSOKU} names no program");
    };
    let mut outcomes = BTreeMap::new();
    with_echo(async |address| {
        outcomes = run(&kosoku, address, &["--exclude", "12.*", "--exclude", "13.*"]).await;
        // The suite has its own timeouts, and this machine may be busy, so each failed case gets a second
        // try alone.
        for (case, outcome) in outcomes.iter_mut().filter(|(_, outcome)| !outcome.is_well()) {
            if let Some((_, again)) = run(&kosoku, address, &["--include", case]).await.pop_first() {
                *outcome = again;
            }
        }
    })
    .await;
    for (case, outcome) in &outcomes {
        assert!(outcome.is_well(), "{case}: {outcome:?}");
    }
    let lines = outcomes.iter().map(|(case, Outcome { behavior, behavior_close, remote_close_code })| {
        let code = remote_close_code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        format!("{case} {behavior} {behavior_close} {code}\n")
    });
    let lines: String = lines.collect();
    if env::var_os("ZONEWIRE_UPDATE_DOCS").is_some() {
        return fs::write(kept(), lines).unwrap();
    }
    assert_eq!(lines, fs::read_to_string(kept()).unwrap(), "ZONEWIRE_UPDATE_DOCS=1 writes it anew");
}
