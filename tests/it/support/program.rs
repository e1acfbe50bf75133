//! Other programs that tests run, with time limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time;
use zonewire_kit::process::{Process, Signal};
use zonewire_kit::skip;

use super::client::LIMIT;
use super::eventually::eventually;
use super::redis::free_port;

/// Set in continuous integration, so that a missing proxy fails instead of skipping.
const REQUIRE_PROXIES: &str = "ZONEWIRE_TEST_REQUIRE_PROXIES";

/// A program without the settings of this environment, which ends with its test.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.env_clear();
    command.envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits until a program listens at an address, or has ended; returns which.
async fn listens(process: &mut Process, address: SocketAddr) -> bool {
    eventually("the program listens, or ends", async || {
        if process.has_ended().unwrap().is_some() {
            return Some(false);
        }
        TcpStream::connect(address).await.is_ok().then_some(true)
    })
    .await
}

/// `None`, after printing so, if a proxy is not installed.
pub(crate) async fn installed(proxy: &str) -> Option<()> {
    let mut version = command(proxy);
    version.arg("-v").stdout(Stdio::null()).stderr(Stdio::null());
    let is_there = version.status().await.is_ok_and(|status| status.success());
    if is_there { Some(()) } else { skip(REQUIRE_PROXIES, &format!("there is no {proxy}")) }
}

/// A proxy in the foreground, with all its files in this directory.
pub(crate) fn proxy(program: &str, file: &str, dir: &Path) -> Command {
    let mut command = command(program);
    command.current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    if program == "haproxy" {
        command.args(["-db", "-q", "-f", file]);
        return command;
    }
    // A single process, which is this child.
    let globals = "daemon off; master_process off; pid nginx.pid; error_log stderr warn;";
    command.arg("-p").arg(dir).args(["-e", "stderr", "-c", file, "-g", globals]);
    command
}

/// Starts a program that listens at an address with a free port. Another process may take the port before it
/// does; then it is started with another one.
pub(crate) async fn listening(command: impl Fn(SocketAddr) -> Command) -> (SocketAddr, Process) {
    for _ in 0..10 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut process = Process::spawn(&mut command(address)).unwrap();
        if listens(&mut process, address).await {
            return (address, process);
        }
    }
    panic!("it never listens");
}

/// The program under test.
pub(crate) fn zonewire(args: &[&str]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_zonewire"));
    command.args(args);
    command
}

/// The end of a program.
#[derive(Debug)]
pub(crate) struct End {
    /// The exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to stdout, without lines that were read before.
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl End {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Each line of stdout as JSON.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(json).collect()
    }
}

/// Runs a program to its end.
pub(crate) async fn run(command: &mut Command) -> End {
    Program::start(command).ended().await
}

/// A running program.
pub(crate) struct Program {
    process: Process,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: JoinSet<String>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::of(Process::spawn(command).unwrap())
    }

    /// A process whose output has not been read yet.
    pub(crate) fn of(mut process: Process) -> Self {
        let stdout = BufReader::new(process.stdout().unwrap()).lines();
        let mut pipe = process.stderr().unwrap();
        let mut stderr = JoinSet::new();
        // Read continuously, so that the program never blocks on writing.
        stderr.spawn(async move {
            let mut text = Vec::new();
            pipe.read_to_end(&mut text).await.unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { process, stdout, stderr }
    }

    /// The next line of stdout.
    pub(crate) async fn line(&mut self) -> String {
        let line = time::timeout(LIMIT, self.stdout.next_line()).await.expect("a line in time").unwrap();
        match line {
            Some(line) => line,
            None => {
                let end = self.end().await;
                panic!("it ended before the next line: {end:?}")
            }
        }
    }

    /// The next line of stdout as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        json(&self.line().await)
    }

    /// Reads lines up to one that contains this.
    pub(crate) async fn until(&mut self, part: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(part) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) async fn ended(mut self) -> End {
        self.end().await
    }

    async fn end(&mut self) -> End {
        let end = async {
            let mut stdout = String::new();
            self.stdout.get_mut().read_to_string(&mut stdout).await.unwrap();
            let code = self.process.ended(LIMIT).await.unwrap().code();
            let stderr = self.stderr.join_next().await.unwrap().unwrap();
            End { code, stdout, stderr }
        };
        time::timeout(LIMIT, end).await.expect("it ends in time")
    }
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}
