//! Children: gateways and a Redis of the suite's own. Each is killed when it is dropped.

use std::collections::VecDeque;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::DateTime;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use uuid::Uuid;
use zonewire::client::Http;

use super::clock::{self, WallClock};
use super::resp::{Reply, Target};
use zonewire::client::BaseUrl;

/// How long a process may take to come up.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many of the last lines of a log are kept for errors.
const LINES_KEPT: usize = 20;

/// A directory that goes when it is dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Fails where none can be made.
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("zonewire-lab-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is left of it lies in a directory for such things.
        let _left = fs::remove_dir_all(&self.0);
    }
}

/// Sends a signal to a child of ours: `-STOP`, `-CONT`.
async fn signal(child: &Child, signal: &str) -> anyhow::Result<()> {
    let pid = child.id().context("the process has ended by itself")?.to_string();
    let status = Command::new("kill").args([signal, &pid]).stdin(Stdio::null()).status().await;
    match status.context("cannot run `kill`")?.success() {
        true => Ok(()),
        false => bail!("`kill {signal}` failed"),
    }
}

/// As `kill -9`, and waits until it is gone. What has ended already is fine.
async fn kill(child: &mut Child) -> anyhow::Result<()> {
    let pid = child.id();
    child.kill().await.context("cannot kill a process of ours")?;
    if let Some(pid) = pid {
        clock::forget(pid);
    }
    Ok(())
}

/// A `redis-server` of the suite's own, on a free port of this machine.
#[derive(Debug)]
pub struct RedisServer {
    /// How commands are given to it.
    pub target: Target,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// What it is started with besides.
    pub options: Vec<String>,
    /// Where it is not the machine's.
    pub clock: Option<WallClock>,
    child: Option<Child>,
    // After the child, which writes to it.
    dir: TempDir,
}

/// What a Redis starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// What is on its disk, with each write on the disk before its answer.
    AsItWas,
    /// Nothing.
    Empty,
    /// What [`RedisServer::take_snapshot`] put by.
    Snapshot,
    /// What is on its disk, read slowly: a key in so many microseconds.
    Slowly(u32),
}

impl RedisServer {
    /// Fails where there is none to start.
    pub async fn ensure_installed() -> anyhow::Result<()> {
        let mut command = Command::new("redis-server");
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().await;
        status.map(drop).context(
            "cannot find redis-server: install it, or name a Redis of your own with --redis redis://…",
        )
    }

    /// Picks a port and a directory; nothing runs yet.
    pub fn prepare() -> anyhow::Result<Self> {
        let port = Self::free_port()?;
        let target = Target::local(port);
        Ok(Self { target, port, options: Vec::new(), clock: None, child: None, dir: TempDir::new()? })
    }

    /// A port that nobody has; somebody may take it before it is used.
    pub fn free_port() -> anyhow::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
        Ok(listener.local_addr().context("cannot find a free port")?.port())
    }

    /// Starts it, and does not wait until it serves.
    pub fn start(&mut self, data: Data) -> anyhow::Result<()> {
        let dir = self.dir.path().join("data");
        let appends = data != Data::Snapshot;
        match data {
            Data::AsItWas | Data::Slowly(_) => {}
            Data::Empty | Data::Snapshot => {
                if dir.exists() {
                    fs::remove_dir_all(&dir).context("cannot empty the directory of Redis")?;
                }
            }
        }
        fs::create_dir_all(&dir).context("cannot make the directory of Redis")?;
        if data == Data::Snapshot {
            let snapshot = self.dir.path().join("snapshot.rdb");
            fs::copy(snapshot, dir.join("dump.rdb")).context("there is no snapshot to restore")?;
        }
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", if appends { "yes" } else { "no" }, "--appendfsync", "always"]);
        command.args(["--enable-debug-command", "yes", "--dir"]).arg(&dir);
        if let Data::Slowly(per_key_us) = data {
            command.args(["--key-load-delay", &per_key_us.to_string()]);
            command.args(["--loading-process-events-interval-bytes", "1024"]);
        }
        command.args(&self.options);
        self.spawn(command)
    }

    /// Starts a sentinel instead, with this configuration, which it changes.
    pub fn start_sentinel(&mut self, config: &str) -> anyhow::Result<()> {
        let file = self.dir.path().join("sentinel.conf");
        fs::write(&file, config).context("cannot write the configuration of a sentinel")?;
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.arg("--dir").arg(self.dir.path());
        self.spawn(command)
    }

    fn spawn(&mut self, mut command: Command) -> anyhow::Result<()> {
        self.clock.iter().for_each(|clock| clock.give_to(&mut command));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().context("cannot start redis-server")?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it takes writes.
    pub async fn wait_until_it_serves(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if self.target.serves("zonewire-outage-probe").await {
                return Ok(());
            }
            let child = self.child.as_mut().context("redis-server was not started")?;
            if let Some(status) = child.try_wait().context("cannot look after redis-server")? {
                bail!("redis-server ended by itself: {status}");
            }
            if Instant::now() > deadline {
                bail!("redis-server did not serve within {START_PATIENCE:?}");
            }
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Puts by what it holds now, for [`Data::Snapshot`].
    pub async fn take_snapshot(&self) -> anyhow::Result<()> {
        self.target.run(&["SAVE"]).await?;
        let dump = self.dir.path().join("data").join("dump.rdb");
        fs::copy(dump, self.dir.path().join("snapshot.rdb")).context("Redis wrote no snapshot")?;
        Ok(())
    }

    /// Its time, in seconds since 1970.
    pub async fn now_s(&self) -> anyhow::Result<i64> {
        let Reply::List(parts) = self.target.run(&["TIME"]).await? else {
            bail!("Redis did not say its time");
        };
        let Some(Reply::Text(seconds)) = parts.first() else { bail!("Redis did not say its time") };
        seconds.parse().context("Redis said an odd time")
    }

    /// As `kill -9`, and waits until it is gone. What has ended already is fine.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.child {
            Some(child) => kill(child).await,
            None => Ok(()),
        }
    }

    /// Stands it still: connections stay open, and nothing answers.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        signal(self.child.as_ref().context("redis-server was not started")?, "-STOP").await
    }

    /// Lets it go on.
    pub async fn thaw(&self) -> anyhow::Result<()> {
        signal(self.child.as_ref().context("redis-server was not started")?, "-CONT").await
    }
}

/// Finds the gateway to check: the one that was named, or the one that came with this program.
///
/// Fails where there is none, or where it does not say its version.
pub async fn gateway(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("zonewire"));
    let program = match named {
        Some(path) => path.to_owned(),
        None => beside().filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("zonewire")),
    };
    let mut command = Command::new(&program);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().await.with_context(|| {
        format!("cannot run the gateway, {}: name it with --gateway FILE", program.display())
    })?;
    if !output.status.success() || !output.stdout.starts_with(b"zonewire ") {
        bail!("{} is not a Zonewire gateway: it does not say its version", program.display());
    }
    Ok(program)
}

/// A gateway.
#[derive(Debug)]
pub struct Node {
    /// Where it answers.
    pub base: BaseUrl,
    address: SocketAddr,
    child: Child,
    start: Start,
    /// Reads its log to the end, so that it never waits for us.
    log: JoinSet<()>,
}

/// How a gateway is started.
#[derive(Debug, Clone)]
pub struct Start {
    /// The gateway's program.
    pub program: PathBuf,
    /// Its number, counting from 0.
    pub index: usize,
    /// In the environment, because it may hold a password; without one it keeps all in memory.
    pub redis_url: Option<String>,
    /// The file of its configuration, if it has one.
    pub config: Option<PathBuf>,
    /// `KEY=VALUE`
    pub settings: Vec<String>,
    /// The only core that it runs on; else any.
    pub core: Option<usize>,
    /// Where its log is written, if anywhere.
    pub log: Option<PathBuf>,
    /// Where it is not the machine's.
    pub clock: Option<WallClock>,
}

impl Node {
    /// Starts one on a free port, and waits until it is ready.
    pub async fn start(start: Start) -> anyhow::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), start).await
    }

    async fn start_at(address: SocketAddr, start: Start) -> anyhow::Result<Self> {
        let mut command = match start.core {
            // It replaces itself by the gateway, whose process this is then.
            Some(core) => {
                let mut pinned = Command::new("taskset");
                pinned.args(["-c", &core.to_string()]).arg(&start.program);
                pinned
            }
            None => Command::new(&start.program),
        };
        let storage = if start.redis_url.is_some() { "redis" } else { "memory" };
        command.args(["serve", "--set=log.format=json"]).arg(format!("--storage={storage}"));
        command.arg(format!("--listen={address}"));
        command.args(start.config.iter().map(|file| format!("--config={}", file.display())));
        command.args(start.settings.iter().map(|setting| format!("--set={setting}")));
        // Settings of whoever runs the suite are not what is checked.
        command.env_clear().kill_on_drop(true);
        command.envs(start.redis_url.iter().map(|url| ("REDIS_URL", url)));
        start.clock.iter().for_each(|clock| clock.give_to(&mut command));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start a gateway")?;
        let lines = child.stderr.take().context("a gateway without a log")?;
        let (found, mut ready) = watch::channel(None);
        let last_lines = Arc::new(Mutex::new(VecDeque::new()));
        let mut log = JoinSet::new();
        log.spawn(read_log(lines, found, Arc::clone(&last_lines), start.log.clone()));
        let address = time::timeout(START_PATIENCE, ready.wait_for(Option::is_some)).await;
        let address = address.ok().and_then(Result::ok).and_then(|address| *address);
        let Some(address) = address else {
            let lines: Vec<String> = last_lines.lock().iter().cloned().collect();
            bail!("gateway {} did not become ready:\n{}", start.index, lines.join("\n"));
        };
        let base = format!("http://{address}").parse();
        let base = base.map_err(|error| anyhow::anyhow!("a gateway at an odd address: {error}"))?;
        Ok(Self { base, address, child, start, log })
    }

    /// Starts it anew at the same address, after [`Self::kill`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        *self = Self::start_at(self.address, self.start.clone()).await?;
        Ok(())
    }

    /// As `kill -9`.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        kill(&mut self.child).await?;
        // The log ends with the process.
        while self.log.join_next().await.is_some() {}
        Ok(())
    }

    /// Stands it still: its connections stay open.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        signal(&self.child, "-STOP").await
    }

    /// Lets it go on.
    pub async fn thaw(&self) -> anyhow::Result<()> {
        signal(&self.child, "-CONT").await
    }

    /// Its wall clock, where it has one of its own.
    pub fn clock(&self) -> Option<&WallClock> {
        self.start.clock.as_ref()
    }

    /// Its time, in seconds since 1970.
    pub async fn now_s(&self) -> anyhow::Result<i64> {
        let health = self.base.http()?.get(self.base.endpoint("ws/health")).timeout(START_PATIENCE).send();
        let health = health.await.context("a gateway did not say its time")?.bytes().await?;
        let health: Value = serde_json::from_slice(&health).context("a gateway did not say its time")?;
        let time = health["timestamp"].as_str().map(DateTime::parse_from_rfc3339);
        Ok(time.context("a gateway did not say its time")?.context("a gateway said an odd time")?.timestamp())
    }

    /// What its `/ws/health` says that it is: `healthy`, `degraded` or `recovering`.
    pub async fn state(&self, http: &Http) -> anyhow::Result<String> {
        let health = http.get(self.base.endpoint("ws/health")).timeout(START_PATIENCE).send();
        let health = health.await.context("a gateway did not say how it is")?.bytes().await?;
        let health: Value = serde_json::from_slice(&health).context("a gateway did not say how it is")?;
        Ok(health["state"].as_str().unwrap_or_default().to_owned())
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Fails when it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("cannot look after a gateway")? {
            Some(status) => bail!("gateway {} ended by itself: {status}", self.start.index),
            None => Ok(()),
        }
    }
}

/// Reads a gateway's log, finds where it listens, and keeps its last lines.
async fn read_log(
    stderr: ChildStderr,
    ready: watch::Sender<Option<SocketAddr>>,
    last: Arc<Mutex<VecDeque<String>>>,
    to: Option<PathBuf>,
) {
    let mut file = match to {
        Some(path) => File::options().create(true).append(true).open(path).await.ok(),
        None => None,
    };
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if ready.borrow().is_none()
            && let Ok(line) = serde_json::from_str::<Value>(&line)
            && line["message"] == "ready"
            && let Some(Ok(address)) = line["address"].as_str().map(str::parse)
        {
            ready.send_replace(Some(address));
        }
        if let Some(file) = &mut file {
            // A full disk is no reason to let the gateway wait.
            let _written = file.write_all(format!("{line}\n").as_bytes()).await;
        }
        let mut last = last.lock();
        last.push_back(line);
        if last.len() > LINES_KEPT {
            last.pop_front();
        }
    }
    if let Some(file) = &mut file {
        let _written = file.flush().await;
    }
}
