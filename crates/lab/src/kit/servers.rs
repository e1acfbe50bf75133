//! Several Redis servers of the suite's own together: a primary with replicas behind sentinels, and a
//! cluster.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{self, Instant};

use super::process::{Data, RedisServer};
use super::resp::Reply;

/// The slots of a cluster.
const SLOTS: usize = 16_384;
/// Primaries of a cluster.
const PRIMARIES: usize = 3;
/// Servers behind the sentinels, one of them the primary.
const REPLICATED: usize = 3;
const SENTINELS: usize = 3;
/// What the sentinels call them.
const SERVICE: &str = "main";
/// How long servers may take to find each other.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often they are looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A primary, its replicas, and sentinels that watch over them.
#[derive(Debug)]
pub struct Sentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
    killed: Option<usize>,
}

impl Sentinels {
    /// Starts all of them, and waits until each knows the others and is in step.
    pub async fn start() -> anyhow::Result<Self> {
        let mut all = Self { servers: Vec::new(), sentinels: Vec::new(), killed: None };
        for number in 0..REPLICATED {
            let mut server = RedisServer::prepare()?;
            if let Some(primary) = all.servers.first() {
                server.options.extend(["--replicaof".to_owned(), format!("127.0.0.1 {}", primary.port)]);
            }
            server.start(Data::Empty)?;
            match number {
                0 => server.wait_until_it_serves().await?,
                _ => until("a replica is in step", || is_in_step(&server)).await?,
            }
            all.servers.push(server);
        }
        let primary = all.servers[0].port;
        let config = format!(
            "sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 5000\n"
        );
        for _ in 0..SENTINELS {
            let mut sentinel = RedisServer::prepare()?;
            sentinel.start_sentinel(&config)?;
            all.sentinels.push(sentinel);
        }
        for sentinel in &all.sentinels {
            until("the sentinels know each other and the replicas", async || {
                let Ok(Reply::List(facts)) = sentinel.target.ask(&["SENTINEL", "MASTER", SERVICE]).await
                else {
                    return false;
                };
                let is = |name: &str, count: usize| {
                    let at = facts.iter().position(|fact| *fact == Reply::Text(name.to_owned()));
                    at.and_then(|at| facts.get(at + 1)) == Some(&Reply::Text(count.to_string()))
                };
                is("num-other-sentinels", SENTINELS - 1) && is("num-slaves", REPLICATED - 1)
            })
            .await?;
        }
        Ok(all)
    }

    /// How a gateway is told of them.
    pub fn url(&self) -> String {
        let [first, others @ ..] = &self.sentinels[..] else { return String::new() };
        let others: String = others.iter().map(|other| format!("&node=127.0.0.1:{}", other.port)).collect();
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName={SERVICE}{others}", first.port)
    }

    /// Which server most sentinels take for the primary.
    async fn primary(&self) -> Option<usize> {
        let mut votes = [0; REPLICATED];
        for sentinel in &self.sentinels {
            let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
            let Ok(Reply::List(address)) = sentinel.target.ask(&command).await else { continue };
            let Some(Reply::Text(port)) = address.get(1) else { continue };
            let named = self.servers.iter().position(|server| server.port.to_string() == *port);
            if let Some(named) = named {
                votes[named] += 1;
            }
        }
        votes.iter().position(|votes| votes * 2 > SENTINELS)
    }

    /// Whether the one that they take for the primary takes writes.
    pub async fn serves(&self, probe: &str) -> bool {
        match self.primary().await.map(|primary| &self.servers[primary]) {
            Some(primary) => primary.target.serves(probe).await,
            None => false,
        }
    }

    /// Kills the primary.
    pub async fn lose_primary(&mut self) -> anyhow::Result<()> {
        let primary = self.primary().await.context("the sentinels do not agree on the primary")?;
        self.killed = Some(primary);
        self.servers[primary].kill().await
    }

    /// Whether a replica serves in its place.
    pub async fn has_failed_over(&self, probe: &str) -> bool {
        self.primary().await != self.killed && self.serves(probe).await
    }

    /// Starts the one that was killed, as it was: the sentinels make it a replica.
    pub fn bring_back(&mut self) -> anyhow::Result<()> {
        match self.killed.take() {
            Some(killed) => self.servers[killed].start(Data::AsItWas),
            None => Ok(()),
        }
    }

    /// Ends all of them, sentinels first.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        for server in self.sentinels.iter_mut().chain(&mut self.servers) {
            server.kill().await?;
        }
        Ok(())
    }
}

/// Three primaries, each with a third of the slots. Those that are there serve theirs whatever becomes
/// of the others.
#[derive(Debug)]
pub struct Cluster {
    primaries: Vec<RedisServer>,
}

impl Cluster {
    /// Starts all of them, and waits until they agree.
    pub async fn start() -> anyhow::Result<Self> {
        let mut primaries = Vec::new();
        let mut first: Option<[String; 2]> = None;
        for number in 0..PRIMARIES {
            let mut server = RedisServer::prepare()?;
            let bus = RedisServer::free_port()?.to_string();
            let options =
                ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
            server.options.extend(options.map(str::to_owned));
            server.options.extend(["--cluster-require-full-coverage", "no"].map(str::to_owned));
            server.start(Data::Empty)?;
            until("a node of the cluster answers", async || server.target.ask(&["PING"]).await.is_ok())
                .await?;
            let (from, to) = (SLOTS * number / PRIMARIES, SLOTS * (number + 1) / PRIMARIES - 1);
            let (from, to) = (from.to_string(), to.to_string());
            server.target.run(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await?;
            server.target.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await?;
            match &first {
                Some([port, bus]) => {
                    server.target.run(&["CLUSTER", "MEET", "127.0.0.1", port, bus]).await?;
                }
                None => first = Some([server.port.to_string(), bus]),
            }
            primaries.push(server);
        }
        let cluster = Self { primaries };
        until("the nodes of the cluster agree", || cluster.serves()).await?;
        Ok(cluster)
    }

    /// How a gateway is told of it.
    pub fn url(&self) -> String {
        let [first, others @ ..] = &self.primaries[..] else { return String::new() };
        let others: Vec<String> =
            others.iter().map(|other| format!("node=127.0.0.1:{}", other.port)).collect();
        format!("redis-cluster://127.0.0.1:{}?{}", first.port, others.join("&"))
    }

    /// Whether every node finds that every slot is served.
    pub async fn serves(&self) -> bool {
        for node in &self.primaries {
            let Ok(Reply::Text(info)) = node.target.ask(&["CLUSTER", "INFO"]).await else { return false };
            let known = format!("cluster_known_nodes:{PRIMARIES}");
            let slots = format!("cluster_slots_ok:{SLOTS}");
            let is_well = ["cluster_state:ok", &known, &slots].iter().all(|fact| info.contains(fact));
            if !is_well {
                return false;
            }
        }
        true
    }

    /// Kills one node.
    pub async fn lose_node(&mut self) -> anyhow::Result<()> {
        self.lost()?.kill().await
    }

    /// Starts it again with what is on its disk.
    pub fn bring_back(&mut self) -> anyhow::Result<()> {
        self.lost()?.start(Data::AsItWas)
    }

    /// Not the first one, which gateways are told of first.
    fn lost(&mut self) -> anyhow::Result<&mut RedisServer> {
        self.primaries.last_mut().context("a cluster without nodes")
    }

    /// Ends all of them.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        for node in &mut self.primaries {
            node.kill().await?;
        }
        Ok(())
    }
}

async fn is_in_step(replica: &RedisServer) -> bool {
    let info = replica.target.ask(&["INFO", "replication"]).await;
    matches!(info, Ok(Reply::Text(info)) if info.contains("master_link_status:up"))
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        if Instant::now() > deadline {
            bail!("not within {PATIENCE:?}: {what}");
        }
        time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
