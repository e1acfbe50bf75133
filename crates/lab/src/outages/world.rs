//! The deployment that is harmed, and how each fault is made and undone.

use std::time::Duration;

use anyhow::{Context as _, bail};
use chrono::Utc;
use tokio::time::{self, Instant};

use zonewire_kit::clock::WallClock;
use zonewire_kit::eventually;
use zonewire_kit::proxy::{Mode, Proxy};
use zonewire_kit::redis::{Cluster, DURABLE, Data, RedisServer, Sentinels, Several};
use zonewire_kit::resp::{Reply, Target};
use zonewire_protocol::BackendState;

use super::faults::{Fault, Kind};
use super::load::FEED;
use crate::node::Node;

/// How often a condition is checked that takes a while.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Options of a cluster's nodes: a lost node is noticed soon, and the others go on serving without it.
const OF_A_CLUSTER: [&str; 4] = ["--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"];
/// Replicas of a primary behind sentinels.
const REPLICAS: usize = 2;
/// How long the primary may be silent before the sentinels replace it.
const DOWN_AFTER: Duration = Duration::from_secs(1);
/// How long Redis may take to serve again.
const BACK_PATIENCE: Duration = Duration::from_secs(60);
/// For [`Kind::Loading`]: the number of keys to load, and the delay of each.
const LOADING_KEYS: u32 = 10_000;
/// For [`Kind::CutReturns`], each time that the link is back: how soon it is cut again; `None` means as soon
/// as the gateway says that it recovers, or has recovered.
const CUT_AGAIN_AFTER: [Option<Duration>; 5] =
    [None, Some(Duration::from_millis(50)), None, Some(Duration::from_millis(800)), None];
/// How long it stays cut then.
const CUT_AGAIN_FOR: Duration = Duration::from_millis(400);
/// By how much clocks are set wrong, in seconds.
const AN_HOUR_S: i32 = 3_600;
/// By how much a clock may differ from what it was set to when it is read.
const CLOCK_SLACK_S: i64 = 60;

/// The deployment.
#[derive(Debug)]
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    /// One per node.
    pub(super) proxies: Vec<Proxy>,
    pub(super) redis: Redis,
    /// A key that may be written to see whether Redis serves.
    pub(super) probe: String,
    /// When another gateway had taken over the feed of a killed one.
    pub(super) taken_over: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Redis {
    Own(Box<RedisServer>),
    Theirs(Target),
    Sentinels {
        all: Sentinels,
        /// The server that was killed and has not been started again.
        killed: Option<usize>,
    },
    Cluster(Cluster),
}

impl Redis {
    /// Starts what a fault needs, unless `theirs` is to be used or its absence is the fault.
    pub(super) async fn start(fault: Option<&Fault>, theirs: Option<&Target>) -> anyhow::Result<Self> {
        match (fault.map(|fault| fault.kind), theirs) {
            (_, Some(theirs)) => Ok(Self::Theirs(theirs.clone())),
            (Some(Kind::Failover), None) => {
                let with = Several { replicas: REPLICAS, options: &DURABLE, tls: None };
                let all = Sentinels::start(with, DOWN_AFTER, None).await?;
                Ok(Self::Sentinels { all, killed: None })
            }
            (Some(Kind::LoseClusterNode), None) => {
                let options = [&DURABLE[..], &OF_A_CLUSTER].concat();
                let with = Several { replicas: 0, options: &options, tls: None };
                Ok(Self::Cluster(Cluster::start(with).await?))
            }
            (kind, None) => {
                let mut server = RedisServer::prepare(&DURABLE)?;
                if kind == Some(Kind::RedisClock) {
                    server.clock = Some(WallClock::right()?);
                }
                if kind != Some(Kind::Absent) {
                    server.begin(Data::Empty)?;
                    server.until_it_serves().await?;
                }
                Ok(Self::Own(Box::new(server)))
            }
        }
    }

    /// The server, if there is only one: only then can a proxy be put before it.
    pub(super) fn target(&self) -> Option<&Target> {
        match self {
            Self::Own(server) => Some(&server.target),
            Self::Theirs(target) => Some(target),
            Self::Sentinels { .. } | Self::Cluster(_) => None,
        }
    }

    /// The URL for gateways, through a proxy if there is one.
    pub(super) fn url(&self, proxy: Option<&Proxy>) -> anyhow::Result<String> {
        match (self, self.target(), proxy) {
            (Self::Sentinels { all, .. }, ..) => Ok(all.url()),
            (Self::Cluster(cluster), ..) => Ok(cluster.url()),
            (_, Some(target), Some(proxy)) => Ok(target.through(proxy.address)),
            _ => bail!("there is no proxy before Redis"),
        }
    }

    /// Whether all of it accepts writes.
    async fn serves(&self, probe: &str) -> bool {
        match self {
            Self::Own(server) => server.target.serves(probe).await,
            Self::Theirs(target) => target.serves(probe).await,
            Self::Sentinels { all, .. } => all.serves(probe).await,
            Self::Cluster(cluster) => cluster.serves().await,
        }
    }

    async fn wait_until_it_serves(&self, probe: &str, patience: Duration) -> anyhow::Result<()> {
        let wait = wait_until("Redis serves again", async || Ok(self.serves(probe).await));
        time::timeout(patience, wait)
            .await
            .with_context(|| format!("Redis did not serve within {patience:?}"))?
    }

    /// Kills it, unless the suite did not start it.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Own(server) => server.kill().await,
            Self::Theirs(_) => Ok(()),
            Self::Sentinels { all, .. } => all.kill().await,
            Self::Cluster(cluster) => cluster.kill().await,
        }
    }

    /// Never a Redis that the suite did not start.
    fn own(&mut self) -> anyhow::Result<&mut RedisServer> {
        match self {
            Self::Own(server) => Ok(server),
            _ => bail!("{NOT_OURS}"),
        }
    }

    /// The sentinels with their servers, and the server that was killed.
    fn sentinels(&mut self) -> anyhow::Result<(&mut Sentinels, &mut Option<usize>)> {
        match self {
            Self::Sentinels { all, killed } => Ok((all, killed)),
            _ => bail!("{NOT_OURS}"),
        }
    }

    /// Kills the primary behind sentinels.
    async fn lose_primary(&mut self) -> anyhow::Result<()> {
        let (all, killed) = self.sentinels()?;
        let primary = all.primary().await.context("the sentinels do not agree on the primary")?;
        *killed = Some(primary);
        all.servers[primary].kill().await
    }

    /// Starts the killed server with its data: the sentinels make it a replica.
    fn bring_back_primary(&mut self) -> anyhow::Result<()> {
        let (all, killed) = self.sentinels()?;
        killed.take().map_or(Ok(()), |killed| all.servers[killed].begin(Data::AsItWas))
    }

    /// The cluster's node to be lost: not the first one, which the gateways' URL names first.
    fn lost_node(&mut self) -> anyhow::Result<&mut RedisServer> {
        match self {
            Self::Cluster(cluster) => cluster.nodes.last_mut().context("a cluster without nodes"),
            _ => bail!("{NOT_OURS}"),
        }
    }
}

const NOT_OURS: &str = "this fault is only for a Redis that the suite started itself";

impl World {
    /// Prepares a fault while all is well.
    pub(super) async fn prepare(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            Kind::Kill(Data::Snapshot) => self.redis.own()?.take_snapshot().await,
            Kind::Loading => {
                let server = self.redis.own()?;
                let target = server.target.clone();
                target
                    .run(&["DEBUG", "POPULATE", &LOADING_KEYS.to_string(), "zonewire-outage-ballast"])
                    .await?;
                // It may be rewriting already, since it has just been started.
                while let Reply::Error(_) = target.ask(&["BGREWRITEAOF"]).await? {
                    time::sleep(LOOK_EVERY).await;
                }
                wait_until("the append-only file is written", async || {
                    let info = target.run(&["INFO", "persistence"]).await?;
                    let Reply::Text(info) = info else { return Ok(false) };
                    Ok(info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0"))
                })
                .await
            }
            _ => Ok(()),
        }
    }

    /// Begins a fault.
    pub(super) async fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            // Absent: Redis was not started.
            Kind::Nothing | Kind::Absent | Kind::Flap { .. } => Ok(()),
            Kind::Kill(_) => self.redis.own()?.kill().await,
            Kind::Loading => {
                let server = self.redis.own()?;
                server.kill().await?;
                server.begin(Data::Slowly(400))
            }
            Kind::Freeze => self.redis.own()?.freeze(),
            Kind::Flush => self.run(&["FLUSHALL"]).await,
            Kind::Link(mode) => {
                self.set_links(fault, mode);
                Ok(())
            }
            Kind::KillGatewayDegraded | Kind::CutReturns => {
                self.set_links(fault, Mode::Refuse);
                Ok(())
            }
            // Port 1 refuses connections.
            Kind::ReadOnly => self.run(&["REPLICAOF", "127.0.0.1", "1"]).await,
            Kind::OutOfMemory => {
                self.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
                self.run(&["CONFIG", "SET", "maxmemory", "1"]).await
            }
            Kind::ClientKill(kind) => self.run(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await,
            Kind::ClientPause => {
                let ms = fault.hold.as_millis().to_string();
                self.run(&["CLIENT", "PAUSE", &ms, "ALL"]).await
            }
            Kind::FreezeGateway => self.node()?.gateway.process.freeze(),
            Kind::KillGateway | Kind::KillFeed => self.node()?.kill().await,
            Kind::GatewayClock | Kind::RedisClock => self.set_clock(fault, AN_HOUR_S).await,
            Kind::Failover => self.redis.lose_primary().await,
            Kind::LoseClusterNode => self.redis.lost_node()?.kill().await,
        }
    }

    /// Waits for as long as a fault is held, and repeats what has to be repeated meanwhile.
    pub(super) async fn hold(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let until = Instant::now() + fault.hold;
        match fault.kind {
            Kind::Flap { every } => {
                while Instant::now() < until {
                    self.set_links(fault, Mode::Refuse);
                    time::sleep(every).await;
                    self.set_links(fault, Mode::Pass);
                    time::sleep(every).await;
                }
            }
            Kind::CutReturns => {
                time::sleep_until(until).await;
                for after in CUT_AGAIN_AFTER {
                    self.set_links(fault, Mode::Pass);
                    match after {
                        Some(after) => time::sleep(after).await,
                        None => self.until_it_recovers().await?,
                    }
                    self.set_links(fault, Mode::Refuse);
                    time::sleep(CUT_AGAIN_FOR).await;
                }
            }
            Kind::KillGatewayDegraded => {
                time::sleep(fault.hold / 2).await;
                self.node()?.kill().await?;
                self.node()?.restart().await?;
                time::sleep_until(until).await;
            }
            Kind::GatewayClock | Kind::RedisClock => {
                for ahead_s in [0, -AN_HOUR_S] {
                    time::sleep(fault.hold / 3).await;
                    self.set_clock(fault, ahead_s).await?;
                }
                time::sleep_until(until).await;
            }
            // It ends by itself.
            Kind::Loading => {
                self.redis.wait_until_it_serves(&self.probe, fault.hold).await?;
            }
            Kind::KillFeed => {
                let others = self.nodes.get(1..).unwrap_or_default();
                wait_until("another gateway has the feed", async || {
                    for node in others {
                        if has_feed(node).await? {
                            return Ok(true);
                        }
                    }
                    Ok(false)
                })
                .await?;
                self.taken_over = Some(Instant::now());
            }
            Kind::Failover => {
                let (probe, (sentinels, killed)) = (&self.probe, self.redis.sentinels()?);
                wait_until("a replica serves", async || {
                    Ok(sentinels.primary().await != *killed && sentinels.serves(probe).await)
                })
                .await?;
            }
            _ => time::sleep_until(until).await,
        }
        Ok(())
    }

    /// Ends a fault, and waits until Redis serves.
    pub(super) async fn end(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            Kind::Nothing
            | Kind::Flush
            | Kind::Flap { .. }
            | Kind::ClientKill(_)
            | Kind::ClientPause
            | Kind::Loading => {}
            Kind::Absent => self.redis.own()?.begin(Data::Empty)?,
            Kind::Kill(data) => self.redis.own()?.begin(data)?,
            Kind::Freeze => self.redis.own()?.thaw()?,
            Kind::Link(_) | Kind::KillGatewayDegraded | Kind::CutReturns => {
                self.set_links(fault, Mode::Pass);
            }
            Kind::ReadOnly => self.run(&["REPLICAOF", "NO", "ONE"]).await?,
            Kind::OutOfMemory => self.run(&["CONFIG", "SET", "maxmemory", "0"]).await?,
            Kind::FreezeGateway => self.node()?.gateway.process.thaw()?,
            Kind::KillGateway | Kind::KillFeed => self.node()?.restart().await?,
            Kind::GatewayClock | Kind::RedisClock => self.set_clock(fault, 0).await?,
            Kind::Failover => self.redis.bring_back_primary()?,
            Kind::LoseClusterNode => self.redis.lost_node()?.begin(Data::AsItWas)?,
        }
        self.redis.wait_until_it_serves(&self.probe, BACK_PATIENCE).await?;
        if fault.kind == Kind::Kill(Data::Snapshot) {
            // A following fault may kill it again, and expect the data to survive.
            self.run(&["CONFIG", "SET", "appendonly", "yes"]).await?;
        }
        Ok(())
    }

    /// Fails if a gateway has ended by itself.
    pub(super) fn check_nodes(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    /// Waits until the first gateway says that it recovers, or has recovered already.
    async fn until_it_recovers(&mut self) -> anyhow::Result<()> {
        let node = self.node()?;
        wait_until("the gateway begins to recover", async || {
            Ok(!node.health().await?.storage.state.is(BackendState::Degraded))
        })
        .await
    }

    fn set_links(&self, fault: &Fault, mode: Mode) {
        let reached = self.proxies.iter().enumerate().filter(|(node, _)| fault.reaches(*node));
        reached.for_each(|(_, proxy)| proxy.set(mode));
    }

    /// Sets the fault's clock this many seconds ahead, and waits until it runs so.
    async fn set_clock(&mut self, fault: &Fault, ahead_s: i32) -> anyhow::Result<()> {
        let is_of_redis = fault.kind == Kind::RedisClock;
        let clock =
            if is_of_redis { self.redis.own()?.clock.as_ref() } else { self.node()?.start.clock.as_ref() };
        clock.context("it has no clock of its own")?.set(ahead_s)?;
        wait_until("the clock goes as it was set", async || {
            let now_s = match is_of_redis {
                true => self.redis.own()?.now_s().await?,
                false => self.node()?.health().await?.timestamp.timestamp(),
            };
            let ahead_now_s = now_s - Utc::now().timestamp();
            Ok((ahead_now_s - i64::from(ahead_s)).abs() <= CLOCK_SLACK_S)
        })
        .await
    }

    /// Runs a command on the suite's own Redis, without the proxy.
    async fn run(&mut self, command: &[&str]) -> anyhow::Result<()> {
        self.redis.own()?.target.run(command).await.map(drop)
    }

    fn node(&mut self) -> anyhow::Result<&mut Node> {
        self.nodes.first_mut().context("there is no gateway")
    }
}

/// Whether a gateway has the feed, and is connected to the exchange.
pub(super) async fn has_feed(node: &Node) -> anyhow::Result<bool> {
    Ok(node.stats().await?.feeds.get(FEED).is_some_and(|feed| feed.connected == 1))
}

/// Checks repeatedly until the condition holds.
async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let look = async || match is_so().await {
        Ok(is_so) => is_so.then_some(Ok(())),
        Err(error) => Some(Err(error)),
    };
    eventually(what, BACK_PATIENCE, look).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outages::faults::FAULTS;

    #[tokio::test]
    async fn a_redis_of_somebody_else_is_never_harmed() {
        // Nothing listens there: a command that was sent would fail in another way.
        let redis = Redis::Theirs(Target::local(1));
        let mut world = World {
            nodes: Vec::new(),
            proxies: Vec::new(),
            redis,
            probe: "probe".to_owned(),
            taken_over: None,
        };
        for fault in FAULTS.iter().filter(|fault| fault.is_of_redis() && fault.kind != Kind::Absent) {
            let error = format!("{:#}", world.begin(fault).await.unwrap_err());
            assert!(error.contains("started itself"), "{}: {error}", fault.name);
        }
        for fault in FAULTS.iter().filter(|fault| matches!(fault.kind, Kind::Link(_) | Kind::CutReturns)) {
            assert!(world.begin(fault).await.is_ok(), "{}", fault.name);
        }
    }
}
