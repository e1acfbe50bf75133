//! The program as a process of its own.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;
use tokio::time;

use super::client::LIMIT;

/// The program, serving.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    /// Reads its log to the end, so that it never waits for us.
    log: JoinSet<Vec<String>>,
}

pub(crate) fn serve(args: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zonewire"));
    command.arg("serve").args(args).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The arguments of one that tells its address.
fn args(settings: &[&str]) -> Vec<String> {
    let mut args = vec!["--listen=127.0.0.1:0".to_owned(), "--set=log.format=json".to_owned()];
    args.extend(settings.iter().map(|setting| format!("--set={setting}")));
    args
}

/// The program in memory, serving within limits that a command of the shell sets.
pub(crate) fn serve_within(limit: &str, settings: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{limit} && exec \"$0\" serve \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_zonewire"), "--storage=memory"]).args(args(settings));
    command.env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Process {
    pub(crate) async fn start(settings: &[&str]) -> Self {
        Self::start_with(settings, &[]).await
    }

    /// The same with variables in its environment.
    pub(crate) async fn start_with(settings: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = serve(&args(settings));
        command.envs(environment.iter().copied());
        Self::start_command(command).await
    }

    /// The same with a command of the caller's, which logs in JSON.
    pub(crate) async fn start_command(command: Command) -> Self {
        let (mut process, mut lines) = Self::spawn(command).await;
        process.log.spawn(async move {
            let mut read = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                read.push(line);
            }
            read
        });
        process
    }

    /// The same, with nobody who reads its log any more once it is ready.
    pub(crate) async fn start_unread(
        settings: &[&str],
        environment: &[(&str, &str)],
    ) -> (Self, Lines<BufReader<ChildStderr>>) {
        let mut command = serve(&args(settings));
        command.envs(environment.iter().copied());
        Self::spawn(command).await
    }

    async fn spawn(mut command: Command) -> (Self, Lines<BufReader<ChildStderr>>) {
        let mut child = command.spawn().unwrap();
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
        (Self { child, address, log: JoinSet::new() }, lines)
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it still runs").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    /// Bounds the files that it may have open from now on.
    pub(crate) async fn limit_files(&self, max: usize) {
        let pid = self.child.id().expect("it still runs").to_string();
        let limit = format!("--nofile={max}:");
        let limited = Command::new("prlimit").args(["--pid", &pid, &limit]).status().await;
        assert!(limited.expect("prlimit is there").success());
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        time::timeout(LIMIT, self.child.wait()).await.expect("it ends in time").unwrap()
    }

    /// What it wrote to stderr after it was ready, once it has ended.
    pub(crate) async fn log(&mut self) -> Vec<String> {
        let read = time::timeout(LIMIT, self.log.join_next()).await.expect("its log ends in time");
        read.expect("asked for once").unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }
}
