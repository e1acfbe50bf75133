//! What these tests share: gateways, and a Redis.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time;
use zonewire_kit::process::Gateway;
use zonewire_kit::redis::RedisServer;

/// Set in continuous integration, so that a missing server fails instead of skipping.
const REQUIRE: &str = "ZONEWIRE_TEST_REQUIRE_REDIS";

/// Whether a Redis can be started here; prints that the test is skipped if not.
pub(crate) async fn has_redis() -> bool {
    RedisServer::is_installed().await
        || zonewire_kit::skip(REQUIRE, "there is no redis-server").unwrap_or(false)
}

/// The gateway beside the laboratory's programs, with these settings, and without a drain window at shutdown.
pub(crate) async fn gateway(settings: &[String]) -> Gateway {
    let mut command =
        Command::new(Path::new(env!("CARGO_BIN_EXE_zonewire-bench")).with_file_name("zonewire"));
    command.args(["serve", "--listen=127.0.0.1:0"]).env_clear();
    let own = ["log.format=json", "http.drain_s=0", "http.shards=2"].map(str::to_owned);
    command.args(own.iter().chain(settings).map(|setting| format!("--set={setting}")));
    Gateway::start(command, None).await.unwrap()
}

/// Longer than any measurement takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a measurement with a token, or an empty one for none, and reads its report.
pub(crate) async fn bench(arguments: &str, token: &str) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zonewire-bench"));
    command.args(arguments.split_whitespace()).args(["--json", "-"]);
    command.env_clear().kill_on_drop(true).stdin(Stdio::null());
    if !token.is_empty() {
        command.env("ZONEWIRE_TOKEN", token);
    }
    let output = time::timeout(PATIENCE, command.output()).await.expect("the run ends").unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}
