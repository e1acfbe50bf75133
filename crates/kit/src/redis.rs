//! Redis servers for tests: a single one, a primary with replicas and sentinels, and a cluster.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

use crate::certificates::Certificates;
use crate::clock::WallClock;
use crate::dir::TempDir;
use crate::process::Process;
use crate::resp::{Reply, Target};
use crate::{eventually, free_port};

/// Options of a server that writes to its disk before it answers.
pub const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
/// The slots of a cluster.
pub const SLOTS: usize = 16_384;
/// The primaries of a cluster.
const PRIMARIES: usize = 3;
const SENTINELS: usize = 3;
/// The name under which sentinels know the primary.
const SERVICE: &str = "main";
/// How long servers may take to start and to find each other.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often a server is started again if its port is taken.
const STARTS_MAX: u32 = 20;

/// A `redis-server` on a free port of this machine, with its own directory. It persists nothing unless its
/// options say so.
#[derive(Debug)]
pub struct RedisServer {
    /// Runs commands on it.
    pub target: Target,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// Its wall clock, if it has a separate one.
    pub clock: Option<WallClock>,
    options: Vec<String>,
    /// The whole configuration, if it is a sentinel.
    sentinel: Option<String>,
    process: Option<Process>,
    // Dropped after the process, which writes to it.
    dir: TempDir,
}

/// The data that a Redis starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// What is on its disk.
    AsItWas,
    /// None.
    Empty,
    /// The snapshot of [`RedisServer::take_snapshot`].
    Snapshot,
    /// What is on its disk, loaded slowly: so many microseconds per key.
    Slowly(u32),
}

impl RedisServer {
    /// Whether `redis-server` is installed.
    pub async fn is_installed() -> bool {
        let mut command = Command::new("redis-server");
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().await.is_ok_and(|status| status.success())
    }

    /// Picks a port and a directory, and starts nothing yet.
    pub fn prepare(options: &[&str]) -> anyhow::Result<Self> {
        let port = free_port()?;
        let mut target = Target::local(port);
        target.password = options.iter().position(|o| *o == "--requirepass").map(|at| options[at + 1].into());
        Ok(Self {
            target,
            port,
            clock: None,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            sentinel: None,
            process: None,
            dir: TempDir::new()?,
        })
    }

    /// Starts an empty server, and waits until it answers.
    pub async fn start(options: &[&str]) -> anyhow::Result<Self> {
        Self::started(|| Self::prepare(options)).await
    }

    /// Starts a sentinel with this configuration.
    async fn start_sentinel(config: &str, password: Option<&str>) -> anyhow::Result<Self> {
        Self::started(|| {
            let mut sentinel = Self::prepare(&[])?;
            sentinel.target.password = password.map(str::to_owned);
            sentinel.sentinel = Some(config.to_owned());
            Ok(sentinel)
        })
        .await
    }

    async fn started(prepare: impl Fn() -> anyhow::Result<Self>) -> anyhow::Result<Self> {
        let mut starts = 1;
        loop {
            let mut server = prepare()?;
            server.begin(Data::Empty)?;
            // Another process may take the free port before the server does; try another one then.
            match server.until_it_answers().await {
                Err(_) if starts < STARTS_MAX => starts += 1,
                answers => return answers.map(|()| server),
            }
        }
    }

    /// Starts it again after [`Self::kill`] with the data on its disk, and waits until it answers.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let mut starts = 1;
        loop {
            self.begin(Data::AsItWas)?;
            // Meanwhile another process may use its port for a moment.
            match self.until_it_answers().await {
                Err(_) if starts < STARTS_MAX => starts += 1,
                answers => return answers,
            }
        }
    }

    /// Starts it without waiting until it answers.
    pub fn begin(&mut self, data: Data) -> anyhow::Result<()> {
        let dir = self.dir.path().join("data");
        if matches!(data, Data::Empty | Data::Snapshot) && dir.exists() {
            fs::remove_dir_all(&dir).context("cannot empty the directory of Redis")?;
        }
        fs::create_dir_all(&dir).context("cannot make the directory of Redis")?;
        let (mut command, port) = (Command::new("redis-server"), self.port.to_string());
        if let Some(config) = &self.sentinel {
            // A sentinel stores what it learns in its own file.
            let file = dir.join("sentinel.conf");
            fs::write(&file, config).context("cannot write the configuration of a sentinel")?;
            command.arg(file).arg("--sentinel");
        }
        command.args(["--port", &port, "--bind", "127.0.0.1", "--dir"]).arg(&dir);
        if self.sentinel.is_none() {
            command.args(["--save", "", "--appendonly", "no", "--enable-debug-command", "yes"]);
            command.args(&self.options);
        }
        match data {
            Data::AsItWas | Data::Empty => {}
            Data::Snapshot => {
                let snapshot = self.dir.path().join("snapshot.rdb");
                fs::copy(snapshot, dir.join("dump.rdb")).context("there is no snapshot to restore")?;
                command.args(["--appendonly", "no"]);
            }
            Data::Slowly(per_key_us) => {
                command.args(["--key-load-delay", &per_key_us.to_string()]);
                command.args(["--loading-process-events-interval-bytes", "1024"]);
            }
        }
        self.clock.iter().for_each(|clock| clock.give_to(&mut command));
        self.process = Some(Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))?);
        Ok(())
    }

    /// Waits until it answers.
    pub async fn until_it_answers(&mut self) -> anyhow::Result<()> {
        self.until("answer", async |target| {
            target.ask(&["PING"]).await.is_ok_and(|reply| reply == Reply::Text("PONG".to_owned()))
        })
        .await
    }

    /// Waits until it accepts writes.
    pub async fn until_it_serves(&mut self) -> anyhow::Result<()> {
        self.until("serve", async |target| target.serves("zonewire-probe").await).await
    }

    async fn until(&mut self, what: &str, is_so: impl AsyncFn(&Target) -> bool) -> anyhow::Result<()> {
        let Self { target, process, .. } = self;
        let process = process.as_mut().context("redis-server was not started")?;
        eventually(&format!("redis-server is to {what}"), PATIENCE, async || {
            let is_so = is_so(target).await;
            // The answer on the port may come from another process.
            match process.has_ended() {
                Ok(None) => is_so.then_some(Ok(())),
                Ok(Some(status)) => Some(Err(anyhow::anyhow!("redis-server ended by itself: {status}"))),
                Err(error) => Some(Err(error)),
            }
        })
        .await?
    }

    /// Stores its current data for [`Data::Snapshot`].
    pub async fn take_snapshot(&self) -> anyhow::Result<()> {
        self.target.run(&["SAVE"]).await?;
        let dump = self.dir.path().join("data").join("dump.rdb");
        fs::copy(dump, self.dir.path().join("snapshot.rdb")).context("Redis wrote no snapshot")?;
        Ok(())
    }

    /// Its time, in seconds since 1970.
    pub async fn now_s(&self) -> anyhow::Result<i64> {
        let time = self.target.run(&["TIME"]).await?.texts();
        time.first()
            .context("Redis did not return its time")?
            .parse()
            .context("Redis returned an invalid time")
    }

    /// Kills it with SIGKILL, and waits until it is gone. A process that has ended already is fine.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        match &mut self.process {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Stops it with SIGSTOP: connections stay open, and nothing answers.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("redis-server was not started")?.freeze()
    }

    /// Continues it.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.process.as_ref().context("redis-server was not started")?.thaw()
    }

    /// Whether it is a replica that is connected to its primary and complete.
    async fn is_in_step(&self) -> bool {
        let info = self.target.ask(&["INFO", "replication"]).await;
        matches!(info, Ok(Reply::Text(info)) if info.contains("master_link_status:up"))
    }

    async fn until_in_step(&self) -> anyhow::Result<()> {
        eventually("a replica is in step", PATIENCE, async || self.is_in_step().await.then_some(())).await
    }
}

/// The properties of servers that are started together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Several<'a> {
    /// How many replicas the primary has; in a cluster, the first primary.
    pub replicas: usize,
    /// The options of each server.
    pub options: &'a [&'a str],
    /// The certificates, if they speak TLS with gateways and with each other.
    pub tls: Option<&'a Certificates>,
}

impl Several<'_> {
    /// Starts one of the servers; returns it with its port for gateways and peers.
    async fn start(&self, tls_among: &str, own: &[&str]) -> anyhow::Result<(RedisServer, u16)> {
        let Some(tls) = self.tls else {
            let server = RedisServer::start(&[own, self.options].concat()).await?;
            let port = server.port;
            return Ok((server, port));
        };
        let port = free_port()?;
        let secret = tls.options(port, false);
        let secret: Vec<&str> = secret.iter().map(String::as_str).collect();
        let among = [tls_among, "yes"];
        let among = if tls_among.is_empty() { &[][..] } else { &among[..] };
        let all = [own, self.options, &secret, &["--tls-replication", "yes"], among].concat();
        Ok((RedisServer::start(&all).await?, port))
    }
}

/// A primary, its replicas, and three sentinels that watch them.
#[derive(Debug)]
pub struct Sentinels {
    /// The servers; the first one is the primary at the start.
    pub servers: Vec<RedisServer>,
    /// The port of each sentinel, for gateways.
    pub ports: Vec<u16>,
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts all of them, and waits until each knows the others and replicas are complete. A primary that is
    /// silent for `down_after` is replaced. With a `password`, sentinels require it from their clients.
    pub async fn start(
        with: Several<'_>,
        down_after: Duration,
        password: Option<&str>,
    ) -> anyhow::Result<Self> {
        let (primary, primary_port) = with.start("", &[]).await?;
        let mut all = Self { servers: vec![primary], ports: Vec::new(), sentinels: Vec::new() };
        for _ in 0..with.replicas {
            let of = format!("127.0.0.1 {primary_port}");
            let (replica, _) = with.start("", &["--replicaof", &of]).await?;
            replica.until_in_step().await?;
            all.servers.push(replica);
        }
        let mut config = format!(
            "sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 2\n\
             sentinel down-after-milliseconds {SERVICE} {}\n\
             sentinel failover-timeout {SERVICE} 5000\n",
            down_after.as_millis()
        );
        if let Some(password) = password {
            config += &format!("sentinel sentinel-pass \"{password}\"\nrequirepass \"{password}\"\n");
        }
        for _ in 0..SENTINELS {
            let (mut config, mut port) = (config.clone(), None);
            if let Some(tls) = with.tls {
                let tls_port = free_port()?;
                // The configuration file has the same options as the command line.
                let mut options = tls.options(tls_port, false);
                options.extend(["--tls-replication", "yes"].map(str::to_owned));
                let lines = options.chunks(2).map(|pair| format!("{}\n", pair.join(" ")[2..].to_owned()));
                config.insert_str(0, &lines.collect::<String>());
                port = Some(tls_port);
            }
            let sentinel = RedisServer::start_sentinel(&config, password).await?;
            all.ports.push(port.unwrap_or(sentinel.port));
            all.sentinels.push(sentinel);
        }
        for sentinel in &all.sentinels {
            eventually("the sentinels know each other and the replicas", PATIENCE, async || {
                let facts = sentinel.target.ask(&["SENTINEL", "MASTER", SERVICE]).await.ok()?.texts();
                let is = |name: &str, count: usize| {
                    let at = facts.iter().position(|fact| fact == name)?;
                    (*facts.get(at + 1)? == count.to_string()).then_some(())
                };
                is("num-other-sentinels", SENTINELS - 1).and(is("num-slaves", with.replicas))
            })
            .await?;
        }
        Ok(all)
    }

    /// The URL for a gateway.
    pub fn url(&self) -> String {
        let [first, others @ ..] = &self.ports[..] else { return String::new() };
        let others: String = others.iter().map(|port| format!("&node=127.0.0.1:{port}")).collect();
        format!("redis-sentinel://127.0.0.1:{first}?sentinelServiceName={SERVICE}{others}")
    }

    /// The server that most sentinels consider the primary.
    pub async fn primary(&self) -> Option<usize> {
        let mut votes = vec![0; self.servers.len()];
        for sentinel in &self.sentinels {
            let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
            let Ok(address) = sentinel.target.ask(&command).await.map(Reply::texts) else { continue };
            let Some(port) = address.get(1) else { continue };
            if let Some(named) = self.servers.iter().position(|server| server.port.to_string() == *port) {
                votes[named] += 1;
            }
        }
        votes.iter().position(|votes| votes * 2 > SENTINELS)
    }

    /// Whether that primary accepts writes.
    pub async fn serves(&self, probe: &str) -> bool {
        match self.primary().await.map(|primary| &self.servers[primary]) {
            Some(primary) => primary.target.serves(probe).await,
            None => false,
        }
    }

    /// Kills all of them, sentinels first.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        for server in self.sentinels.iter_mut().chain(&mut self.servers) {
            server.kill().await?;
        }
        Ok(())
    }
}

/// Three primaries, each with a third of the slots, and replicas of the first one.
#[derive(Debug)]
pub struct Cluster {
    /// The primaries first.
    pub nodes: Vec<RedisServer>,
    /// The port of each of them, for gateways.
    pub ports: Vec<u16>,
}

impl Cluster {
    /// Starts all of them, and waits until they agree.
    pub async fn start(with: Several<'_>) -> anyhow::Result<Self> {
        let (mut all, mut first_bus) = (Self { nodes: Vec::new(), ports: Vec::new() }, String::new());
        for number in 0..PRIMARIES + with.replicas {
            let bus = free_port()?.to_string();
            // No node may be declared dead because the machine is busy, unless an option says so.
            let own = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "60000"];
            let (node, port) = with.start("--tls-cluster", &own).await?;
            if number < PRIMARIES {
                let (from, to) = (SLOTS * number / PRIMARIES, SLOTS * (number + 1) / PRIMARIES - 1);
                let (from, to) = (from.to_string(), to.to_string());
                node.target.run(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await?;
                node.target.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await?;
            }
            match all.ports.first() {
                Some(first) => {
                    let first = first.to_string();
                    node.target.run(&["CLUSTER", "MEET", "127.0.0.1", &first, &first_bus]).await?;
                }
                None => first_bus = bus,
            }
            all.nodes.push(node);
            all.ports.push(port);
        }
        let id = all.id(0).await?;
        for replica in &all.nodes[PRIMARIES..] {
            eventually("a replica knows its primary", PATIENCE, async || {
                replica.target.run(&["CLUSTER", "REPLICATE", &id]).await.ok()
            })
            .await?;
            replica.until_in_step().await?;
        }
        all.until_agreed().await?;
        Ok(all)
    }

    /// The URL for a gateway.
    pub fn url(&self) -> String {
        let [first, others @ ..] = &self.ports[..] else { return String::new() };
        let others: Vec<String> = others.iter().map(|port| format!("node=127.0.0.1:{port}")).collect();
        format!("redis-cluster://127.0.0.1:{first}?{}", others.join("&"))
    }

    /// Waits until all nodes know each other, and serve.
    pub async fn until_agreed(&self) -> anyhow::Result<()> {
        eventually("the nodes of the cluster agree", PATIENCE, async || self.serves().await.then_some(()))
            .await
    }

    /// Whether every node knows all others, and considers every slot served.
    pub async fn serves(&self) -> bool {
        let facts = [
            "cluster_state:ok".to_owned(),
            format!("cluster_known_nodes:{}", self.nodes.len()),
            format!("cluster_slots_ok:{SLOTS}"),
        ];
        for node in &self.nodes {
            let Ok(Reply::Text(info)) = node.target.ask(&["CLUSTER", "INFO"]).await else { return false };
            if !facts.iter().all(|fact| info.contains(fact)) {
                return false;
            }
        }
        true
    }

    /// The node that serves the slot of this key.
    pub async fn owner(&self, key: &str) -> anyhow::Result<usize> {
        for (place, node) in self.nodes.iter().enumerate() {
            match node.target.ask(&["HGET", key, "none"]).await? {
                Reply::Error(error) if error.starts_with("MOVED") || error.starts_with("ASK") => {}
                _ => return Ok(place),
            }
        }
        bail!("no node has the slot of {key}")
    }

    /// Moves the slot of a key, with its contents, to another primary.
    pub async fn move_slot(&self, key: &str, from: usize, to: usize) -> anyhow::Result<()> {
        let slot = self.begin_move(key, from, to).await?;
        let (source, port) = (&self.nodes[from].target, self.nodes[to].port.to_string());
        while let [key, ..] = &source.run(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]).await?.texts()[..] {
            source.run(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await?;
        }
        self.end_move(&slot, from, to).await
    }

    /// Begins to move the slot of a key: new keys are created at its new primary from now on. Returns the
    /// slot.
    pub async fn begin_move(&self, key: &str, from: usize, to: usize) -> anyhow::Result<String> {
        let slot = self.nodes[0].target.run(&["CLUSTER", "KEYSLOT", key]).await?.text();
        self.set_slot(to, &slot, "IMPORTING", from).await?;
        self.set_slot(from, &slot, "MIGRATING", to).await?;
        Ok(slot)
    }

    /// Tells all nodes who serves the slot now.
    pub async fn end_move(&self, slot: &str, from: usize, to: usize) -> anyhow::Result<()> {
        let others = (0..PRIMARIES).filter(|node| *node != to && *node != from);
        for node in [to, from].into_iter().chain(others) {
            self.set_slot(node, slot, "NODE", to).await?;
        }
        Ok(())
    }

    async fn id(&self, node: usize) -> anyhow::Result<String> {
        Ok(self.nodes[node].target.run(&["CLUSTER", "MYID"]).await?.text())
    }

    async fn set_slot(&self, node: usize, slot: &str, what: &str, of: usize) -> anyhow::Result<()> {
        let of = self.id(of).await?;
        self.nodes[node].target.run(&["CLUSTER", "SETSLOT", slot, what, &of]).await.map(drop)
    }

    /// Kills all of them.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.kill().await?;
        }
        Ok(())
    }
}
