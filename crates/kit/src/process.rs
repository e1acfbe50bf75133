//! Child processes that end with their owner, such as gateways.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time;

use crate::clock;

pub use rustix::process::Signal;

/// How long a gateway may take to become ready.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How many of the last lines of a log are retained.
const LINES_MAX: usize = 10_000;
/// How many of them an error shows if a gateway does not become ready.
const LINES_TOLD: usize = 20;

/// A child process that is killed when dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it without stdin.
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {program}"))?))
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.0.id()
    }

    /// Its stdout, if that is a pipe; can be taken once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Its stderr, if that is a pipe; can be taken once.
    pub fn stderr(&mut self) -> Option<ChildStderr> {
        self.0.stderr.take()
    }

    /// Sends it a signal; fails if it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.context("the process has ended by itself")?;
        kill_process(pid, signal).context("cannot signal a process of ours")
    }

    /// Stops it with SIGSTOP: its connections stay open, and nothing answers.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Continues it.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it with SIGKILL, and waits until it is gone. A process that has ended already is fine.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let id = self.id();
        self.0.kill().await.context("cannot kill a process of ours")?;
        if let Some(id) = id {
            clock::forget(id);
        }
        Ok(())
    }

    /// Waits until it ends.
    pub async fn ended(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let ended = time::timeout(patience, self.0.wait()).await;
        let ended = ended.with_context(|| format!("a process did not end within {patience:?}"))?;
        ended.context("cannot wait for a process")
    }

    /// Its exit status, if it has ended.
    pub fn has_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.0.try_wait().context("cannot wait for a process")
    }
}

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Its address.
    pub address: SocketAddr,
    /// Its process.
    pub process: Process,
    /// Reads its log to the end, so that the gateway never blocks on writing it.
    log: JoinSet<Log>,
}

impl Gateway {
    /// Starts a gateway by a command that logs in JSON, and waits until it is ready. Its log is appended to
    /// `log_to`, if set.
    pub async fn start(command: Command, log_to: Option<&Path>) -> anyhow::Result<Self> {
        let (mut gateway, mut log) = Self::start_unread(command, log_to).await?;
        gateway.log.spawn(async move {
            while log.next_line().await.is_some() {}
            log
        });
        Ok(gateway)
    }

    /// The same, without reading its log once it is ready.
    pub async fn start_unread(mut command: Command, log_to: Option<&Path>) -> anyhow::Result<(Self, Log)> {
        let mut process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let stderr = process.stderr().context("a gateway without a log")?;
        let file = match log_to {
            Some(path) => File::options().create(true).append(true).open(path).await.ok(),
            None => None,
        };
        let mut log = Log { lines: BufReader::new(stderr).lines(), last: VecDeque::new(), file };
        let ready = async {
            while let Some(line) = log.next_line().await {
                if let Some(address) = ready_at(&line) {
                    return Some(address);
                }
            }
            None
        };
        let Ok(Some(address)) = time::timeout(START_PATIENCE, ready).await else {
            let told = log.last.len().saturating_sub(LINES_TOLD);
            let lines: Vec<String> = log.last.drain(told..).collect();
            bail!("a gateway did not become ready:\n{}", lines.join("\n"));
        };
        log.last.clear();
        Ok((Self { address, process, log: JoinSet::new() }, log))
    }

    /// The last 10,000 lines that it logged after it was ready, once it has ended; empty if called again.
    pub async fn log(&mut self, patience: Duration) -> anyhow::Result<Vec<String>> {
        let log = time::timeout(patience, self.log.join_next()).await;
        let log = log.with_context(|| format!("a log did not end within {patience:?}"))?.transpose()?;
        Ok(log.map(|log| log.last.into()).unwrap_or_default())
    }

    /// The URL of a WebSocket endpoint such as `/ws`.
    pub fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }
}

/// The gateway's address, if this line of its log announces it.
fn ready_at(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["address"].as_str().filter(|_| line["message"] == "ready")?.parse().ok()
}

/// The log of a gateway.
#[derive(Debug)]
pub struct Log {
    lines: Lines<BufReader<ChildStderr>>,
    last: VecDeque<String>,
    file: Option<File>,
}

impl Log {
    /// The next line; `None` at the end.
    pub async fn next_line(&mut self) -> Option<String> {
        let line = self.lines.next_line().await.ok().flatten();
        if let Some(file) = &mut self.file {
            // A full disk is no reason to block the gateway.
            let _written = match &line {
                Some(line) => file.write_all(format!("{line}\n").as_bytes()).await,
                None => file.flush().await,
            };
        }
        self.last.extend(line.clone());
        if self.last.len() > LINES_MAX {
            self.last.pop_front();
        }
        line
    }
}
