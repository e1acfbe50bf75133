//! What goes wrong: each fault, and how it is done and undone.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{self, Instant};

use super::process::{Data, Node, RedisServer};
use super::proxy::{Mode, Proxy};
use super::resp::{Reply, Target};
use crate::config::DEFAULT_TOML;

/// One way to go wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// What is done, for people.
    pub(super) about: &'static str,
    pub(super) kind: Kind,
    /// Which nodes have no Redis meanwhile.
    pub(super) reach: Reach,
    pub(super) hold: Duration,
    /// What `/ws/health` must say meanwhile.
    pub(super) truth: Truth,
    /// How soon it must be noticed; none where nothing is promised.
    pub(super) notice: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, to see that nothing is found then.
    Nothing,
    /// Redis is started after the gateways.
    Absent,
    Kill(Data),
    Freeze,
    Flush,
    Link(Mode),
    /// The link goes and comes.
    Flap {
        every: Duration,
    },
    ReadOnly,
    Loading,
    OutOfMemory,
    /// `CLIENT KILL TYPE` of this type.
    ClientKill(&'static str),
    ClientPause,
    FreezeGateway,
    KillGateway,
    /// While it has no Redis; it comes up again without one.
    KillGatewayDegraded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    /// Node 0.
    One,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    /// Redis does not serve: healthy is untrue.
    Down,
    /// Redis may or may not serve at a given moment.
    Either,
}

/// How soon a closed connection must be noticed.
const CLOSED: Option<Duration> = Some(Duration::from_millis(50));
/// How soon it must be noticed that nothing answers, or that nothing is written.
const HANG: Option<Duration> = Some(Duration::from_millis(1_200));
/// How often a thing is looked at that takes a while.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long Redis may take to serve again.
const BACK_PATIENCE: Duration = Duration::from_secs(60);
/// For [`Kind::Loading`]: so many keys are read, and each takes so long.
const LOADING_KEYS: u32 = 10_000;

const fn fault(name: &'static str, about: &'static str, kind: Kind, hold_ms: u64) -> Fault {
    let hold = Duration::from_millis(hold_ms);
    Fault { name, about, kind, reach: Reach::All, hold, truth: Truth::Down, notice: None }
}

impl Fault {
    const fn noticed(self, notice: Option<Duration>) -> Self {
        Self { notice, ..self }
    }

    const fn at_one(self) -> Self {
        Self { reach: Reach::One, ..self }
    }

    const fn unsure(self) -> Self {
        Self { truth: Truth::Either, ..self }
    }

    /// It needs a Redis that may be harmed.
    pub(super) fn is_of_redis(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Nothing
                | Kind::Link(_)
                | Kind::Flap { .. }
                | Kind::FreezeGateway
                | Kind::KillGateway
                | Kind::KillGatewayDegraded
        )
    }

    /// It can follow, and be followed by, any other in one deployment.
    pub(super) fn is_for_random(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Nothing | Kind::Absent | Kind::Loading | Kind::KillGateway | Kind::KillGatewayDegraded
        )
    }

    /// Whether a node has no Redis, or stands still, because of it.
    pub(super) fn reaches(&self, node: usize) -> bool {
        self.reach == Reach::All || node == 0
    }

    /// Whether a node itself does not run meanwhile.
    pub(super) fn stops_node(&self, node: usize) -> bool {
        node == 0 && matches!(self.kind, Kind::FreezeGateway | Kind::KillGateway | Kind::KillGatewayDegraded)
    }

    /// Whether sockets of a node are cut by the fault itself.
    pub(super) fn cuts_sockets_of(&self, node: usize) -> bool {
        node == 0 && matches!(self.kind, Kind::KillGateway | Kind::KillGatewayDegraded)
    }

    /// Whether gateways need a copy of their journal on disk.
    pub(super) fn needs_spool(&self) -> bool {
        self.kind == Kind::KillGatewayDegraded
    }

    /// Whether the gateways of this build have what it needs.
    pub(super) fn is_known(&self) -> bool {
        !self.needs_spool() || DEFAULT_TOML.contains("[storage.journal.spool]")
    }
}

/// The link to Redis is held in one or both directions.
const fn hole(requests: bool, replies: bool) -> Kind {
    Kind::Link(Mode::Hole { requests, replies })
}

/// A connection lives so long before it is cut in the middle: long enough to be set up and used.
const MIDWAY: Duration = Duration::from_millis(150);
/// One that is cut at the first byte.
const AT_ONCE: Duration = Duration::ZERO;

/// All faults, in the order in which they run.
pub(super) const FAULTS: &[Fault] = &[
    fault("none", "nothing: what the suite finds then is its own fault", Kind::Nothing, 3_000).unsure(),
    fault("absent", "Redis starts after the gateways", Kind::Absent, 5_000),
    fault(
        "killed-aof",
        "kill -9, and started again with its append-only file",
        Kind::Kill(Data::AsItWas),
        5_000,
    )
    .noticed(CLOSED),
    fault("killed-empty", "kill -9, and started again with nothing", Kind::Kill(Data::Empty), 5_000)
        .noticed(CLOSED),
    fault("snapshot", "kill -9, and started again with an older snapshot", Kind::Kill(Data::Snapshot), 5_000)
        .noticed(CLOSED),
    fault("flushed", "FLUSHALL", Kind::Flush, 2_000).unsure(),
    fault("frozen", "SIGSTOP", Kind::Freeze, 5_000).noticed(HANG),
    fault("frozen-long", "SIGSTOP for a minute", Kind::Freeze, 60_000).noticed(HANG),
    fault("cut", "the links are reset and refused", Kind::Link(Mode::Refuse), 5_000).noticed(CLOSED),
    fault("cut-one", "the link of one gateway is reset and refused", Kind::Link(Mode::Refuse), 5_000)
        .at_one()
        .noticed(CLOSED),
    fault("black-hole", "the links carry nothing, either way", hole(true, true), 5_000).noticed(HANG),
    fault("black-hole-one", "the link of one gateway carries nothing", hole(true, true), 5_000)
        .at_one()
        .noticed(HANG),
    fault("requests-held", "the links carry no requests", hole(true, false), 5_000).noticed(HANG),
    fault("replies-held", "the links carry no replies", hole(false, true), 5_000).noticed(HANG),
    fault(
        "reset-midway",
        "each connection is reset in the middle of a request",
        Kind::Link(Mode::CutRequests { after: MIDWAY }),
        5_000,
    )
    .unsure(),
    fault(
        "replies-cut",
        "requests pass, and the connection is reset instead of the reply",
        Kind::Link(Mode::CutReplies { after: AT_ONCE }),
        5_000,
    ),
    fault(
        "replies-cut-midway",
        "the same, once a connection is 150 ms old",
        Kind::Link(Mode::CutReplies { after: MIDWAY }),
        5_000,
    )
    .unsure(),
    fault(
        "flapping",
        "the links go and come every half second, for a minute",
        Kind::Flap { every: Duration::from_millis(500) },
        60_000,
    )
    .unsure(),
    fault("read-only", "REPLICAOF a dead address, then NO ONE", Kind::ReadOnly, 5_000).noticed(HANG),
    fault("loading", "kill -9, and started again with much to read", Kind::Loading, 60_000).noticed(CLOSED),
    fault("out-of-memory", "maxmemory is reached, with noeviction", Kind::OutOfMemory, 5_000).noticed(HANG),
    fault("client-kill", "CLIENT KILL TYPE normal", Kind::ClientKill("normal"), 2_000).unsure(),
    fault("client-kill-pubsub", "CLIENT KILL TYPE pubsub", Kind::ClientKill("pubsub"), 2_000).unsure(),
    fault("client-pause", "CLIENT PAUSE for 5 s", Kind::ClientPause, 5_000).noticed(HANG),
    fault("gateway-frozen", "SIGSTOP of one gateway for 40 s", Kind::FreezeGateway, 40_000).at_one().unsure(),
    fault("gateway-killed", "kill -9 of one gateway, and started again", Kind::KillGateway, 3_000)
        .at_one()
        .unsure(),
    fault(
        "gateway-killed-degraded",
        "kill -9 of one gateway that has no Redis, and started again, with its journal on disk",
        Kind::KillGatewayDegraded,
        8_000,
    )
    .at_one()
    .unsure(),
];

/// The fault of a name.
pub(super) fn find(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}

/// What is there to be harmed.
#[derive(Debug)]
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    /// One per node.
    pub(super) proxies: Vec<Proxy>,
    pub(super) redis: Redis,
    /// A key that may be written to see whether Redis serves.
    pub(super) probe: String,
}

#[derive(Debug)]
pub(super) enum Redis {
    Own(Box<RedisServer>),
    Theirs(Target),
}

impl Redis {
    pub(super) fn target(&self) -> &Target {
        match self {
            Self::Own(server) => &server.target,
            Self::Theirs(target) => target,
        }
    }

    /// Never a Redis that the suite did not start.
    fn own(&mut self) -> anyhow::Result<&mut RedisServer> {
        match self {
            Self::Own(server) => Ok(server),
            Self::Theirs(_) => bail!("this fault is only for a Redis that the suite started itself"),
        }
    }
}

impl World {
    /// What must be there before the fault: done while all is well.
    pub(super) async fn prepare(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            Kind::Kill(Data::Snapshot) => self.redis.own()?.take_snapshot().await,
            Kind::Loading => {
                let server = self.redis.own()?;
                let target = server.target.clone();
                target
                    .run(&["DEBUG", "POPULATE", &LOADING_KEYS.to_string(), "zonewire-outage-ballast"])
                    .await?;
                // It may be at it already, for it just came up.
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

    /// Does it.
    pub(super) async fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            // Absent: so it is already.
            Kind::Nothing | Kind::Absent | Kind::Flap { .. } => Ok(()),
            Kind::Kill(_) => self.redis.own()?.kill().await,
            Kind::Loading => {
                let server = self.redis.own()?;
                server.kill().await?;
                server.start(Data::Slowly(400))
            }
            Kind::Freeze => self.redis.own()?.freeze().await,
            Kind::Flush => self.run(&["FLUSHALL"]).await,
            Kind::Link(mode) => {
                self.set_links(fault, mode);
                Ok(())
            }
            Kind::KillGatewayDegraded => {
                self.set_links(fault, Mode::Refuse);
                Ok(())
            }
            // Port 1 refuses.
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
            Kind::FreezeGateway => self.node()?.freeze().await,
            Kind::KillGateway => self.node()?.kill().await,
        }
    }

    /// Keeps it up for as long as it is held.
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
            Kind::KillGatewayDegraded => {
                time::sleep(fault.hold / 2).await;
                self.node()?.kill().await?;
                self.node()?.restart().await?;
                time::sleep_until(until).await;
            }
            // It ends by itself.
            Kind::Loading => {
                let probe = self.probe.clone();
                self.redis.own()?.target.clone().wait_until_it_serves(&probe, fault.hold).await?;
            }
            _ => time::sleep_until(until).await,
        }
        Ok(())
    }

    /// Undoes it, and waits until Redis serves.
    pub(super) async fn end(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault.kind {
            Kind::Nothing
            | Kind::Flush
            | Kind::Flap { .. }
            | Kind::ClientKill(_)
            | Kind::ClientPause
            | Kind::Loading => {}
            Kind::Absent => self.redis.own()?.start(Data::Empty)?,
            Kind::Kill(data) => self.redis.own()?.start(data)?,
            Kind::Freeze => self.redis.own()?.thaw().await?,
            Kind::Link(_) | Kind::KillGatewayDegraded => self.set_links(fault, Mode::Pass),
            Kind::ReadOnly => self.run(&["REPLICAOF", "NO", "ONE"]).await?,
            Kind::OutOfMemory => self.run(&["CONFIG", "SET", "maxmemory", "0"]).await?,
            Kind::FreezeGateway => self.node()?.thaw().await?,
            Kind::KillGateway => self.node()?.restart().await?,
        }
        let target = self.redis.target().clone();
        target.wait_until_it_serves(&self.probe, BACK_PATIENCE).await?;
        if fault.kind == Kind::Kill(Data::Snapshot) {
            // What follows may kill it again, and want what it holds by then.
            target.run(&["CONFIG", "SET", "appendonly", "yes"]).await?;
        }
        Ok(())
    }

    /// Fails where a gateway has ended by itself.
    pub(super) fn check_nodes(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().try_for_each(Node::check)
    }

    fn set_links(&self, fault: &Fault, mode: Mode) {
        let reached = self.proxies.iter().enumerate().filter(|(node, _)| fault.reaches(*node));
        reached.for_each(|(_, proxy)| proxy.set(mode));
    }

    /// Runs a command at a Redis of our own, without its proxy.
    async fn run(&mut self, command: &[&str]) -> anyhow::Result<()> {
        self.redis.own()?.target.run(command).await.map(drop)
    }

    fn node(&mut self) -> anyhow::Result<&mut Node> {
        self.nodes.first_mut().context("there is no gateway")
    }
}

impl Target {
    async fn wait_until_it_serves(&self, probe: &str, patience: Duration) -> anyhow::Result<()> {
        let wait = wait_until("Redis serves again", async || Ok(self.serves(probe).await));
        time::timeout(patience, wait)
            .await
            .with_context(|| format!("Redis did not serve within {patience:?}"))?
    }
}

/// Looks until something is so; bounded by what it asks.
async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + BACK_PATIENCE;
    while !is_so().await? {
        if Instant::now() > deadline {
            bail!("not within {BACK_PATIENCE:?}: {what}");
        }
        time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_can_be_found() {
        let names: HashSet<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), FAULTS.len());
        assert!(FAULTS.iter().all(|fault| find(fault.name).is_some()));
        assert!(find("flood").is_none());
    }

    #[tokio::test]
    async fn a_redis_of_somebody_else_is_never_harmed() {
        // Nothing listens there: a command that went out would fail in another way.
        let redis = Redis::Theirs(Target::local(1));
        let mut world = World { nodes: Vec::new(), proxies: Vec::new(), redis, probe: "probe".to_owned() };
        for fault in FAULTS.iter().filter(|fault| fault.is_of_redis() && fault.kind != Kind::Absent) {
            let error = format!("{:#}", world.begin(fault).await.unwrap_err());
            assert!(error.contains("started itself"), "{}: {error}", fault.name);
        }
        for fault in FAULTS.iter().filter(|fault| matches!(fault.kind, Kind::Link(_))) {
            assert!(world.begin(fault).await.is_ok(), "{}", fault.name);
        }
    }
}
