//! The program as a process of its own.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time;

use super::client::LIMIT;

/// The program, serving.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// Reads its log to the end, so that it never waits for us.
    _log: JoinSet<()>,
}

pub(crate) fn serve(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zonewire"));
    command.arg("serve").args(args).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Process {
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let mut args = vec!["--listen=127.0.0.1:0".to_owned(), "--set=log.format=json".to_owned()];
        args.extend(settings.iter().map(|setting| format!("--set={setting}")));
        let mut child = serve(&args).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the log goes on until it is ready");
                let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                if line["message"] == "ready" {
                    return line["address"].as_str().unwrap().parse().unwrap();
                }
            }
        };
        let address = time::timeout(LIMIT, ready).await.expect("it is ready in time");
        let mut log = JoinSet::new();
        log.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, address, _log: log }
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it still runs").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        time::timeout(LIMIT, self.child.wait()).await.expect("it ends in time").unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }
}
