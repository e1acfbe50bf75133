//! The faults, and what is promised while each lasts. `world` makes them happen.

use std::time::Duration;

use super::outcome::{Limit, POLL_MS};
use zonewire_kit::proxy::Mode;
use zonewire_kit::redis::Data;

/// One fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// What happens, for people.
    pub(super) about: &'static str,
    pub(super) kind: Kind,
    /// It harms node 0 alone.
    pub(super) is_at_one: bool,
    pub(super) hold: Duration,
    /// Redis does not serve meanwhile: a gateway that says `healthy` is wrong. Otherwise Redis may or may not
    /// serve at a given moment.
    pub(super) is_down: bool,
    /// How soon it must be noticed; `None` if nothing is promised.
    pub(super) notice: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// No fault, to see that the suite then finds nothing.
    Nothing,
    /// Redis is started after the gateways.
    Absent,
    Kill(Data),
    Freeze,
    Flush,
    Link(Mode),
    /// The link goes down and comes back again and again.
    Flap {
        every: Duration,
    },
    /// The link is cut, comes back, and is cut again while the gateway recovers.
    CutReturns,
    ReadOnly,
    Loading,
    OutOfMemory,
    /// `CLIENT KILL TYPE` of this type.
    ClientKill(&'static str),
    ClientPause,
    FreezeGateway,
    KillGateway,
    /// Kills the gateway that has the feed; it starts again when another gateway has it.
    KillFeed,
    /// Kills a gateway that has no Redis; it starts again without one.
    KillGatewayDegraded,
    /// The primary behind sentinels is killed, and starts again when a replica has replaced it.
    Failover,
    /// A primary of a cluster is killed, and no replica replaces it.
    LoseClusterNode,
    /// The wall clock of a gateway is set.
    GatewayClock,
    /// The wall clock of Redis is set.
    RedisClock,
}

/// How soon a closed connection must be noticed.
const CLOSED: Option<Duration> = Some(Duration::from_millis(50));
/// How soon it must be noticed that nothing answers, or that nothing can be written.
const HANG: Option<Duration> = Some(Duration::from_millis(1_200));
/// How much later prices on `latest` may come, on top of the ordering deadline, which they wait for first.
const LATER: Duration = Duration::from_millis(50);
/// How much later prices on `every` and order updates may come.
const LATER_EVERY: Duration = Duration::from_millis(1_300);
/// How soon every entry must have come everywhere once Redis serves again.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How soon another gateway must have the feed of a killed one.
const TAKE_OVER: Duration = Duration::from_secs(5);
/// How soon all gateways must hold the same records once Redis serves again.
const EQUAL: Duration = Duration::from_secs(1);
/// How long a gateway without Redis may say that it is healthy.
const UNTRUE: Duration = Duration::from_millis(1_500);

const fn fault(name: &'static str, about: &'static str, kind: Kind, hold_ms: u64) -> Fault {
    let hold = Duration::from_millis(hold_ms);
    Fault { name, about, kind, is_at_one: false, hold, is_down: true, notice: None }
}

impl Fault {
    const fn noticed(self, notice: Option<Duration>) -> Self {
        Self { notice, ..self }
    }

    const fn at_one(self) -> Self {
        Self { is_at_one: true, ..self }
    }

    const fn unsure(self) -> Self {
        Self { is_down: false, ..self }
    }

    /// Whether it needs a Redis that may be harmed.
    pub(super) fn is_of_redis(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Nothing
                | Kind::Link(_)
                | Kind::Flap { .. }
                | Kind::CutReturns
                | Kind::FreezeGateway
                | Kind::KillGateway
                | Kind::KillFeed
                | Kind::KillGatewayDegraded
                | Kind::GatewayClock
        )
    }

    /// Whether it can precede and follow any other fault in one deployment.
    pub(super) fn is_for_random(&self) -> bool {
        !matches!(
            self.kind,
            Kind::Nothing
                | Kind::Absent
                | Kind::Loading
                | Kind::KillGateway
                | Kind::KillFeed
                | Kind::KillGatewayDegraded
                | Kind::Failover
                | Kind::LoseClusterNode
                | Kind::GatewayClock
                | Kind::RedisClock
        )
    }

    /// Whether it ends by itself, so that it cannot be held.
    pub(super) fn ends_by_itself(&self) -> bool {
        matches!(self.kind, Kind::Loading | Kind::Failover | Kind::KillFeed)
    }

    /// The limits on times; `ordering_deadline` is that of the gateways.
    pub(super) fn limits(&self, ordering_deadline: Duration) -> [Limit; 7] {
        // For the sockets of a gateway that is frozen or restarted, no times are promised.
        let if_it_is_there = |most| Some(most).filter(|_| !self.stops_node(0));
        let limit = |what, most, of| Limit { what, most, slack_ms: 0.0, of };
        let polled = |what, most, of| Limit { what, most, slack_ms: POLL_MS, of };
        [
            polled("noticed after", self.notice, |run| run.noticed_ms),
            limit("prices (latest) later by", Some(ordering_deadline + LATER), |run| run.later_latest_ms),
            limit("prices (every) and orders later by", Some(LATER_EVERY), |run| run.later_every_ms),
            limit("caught up after", if_it_is_there(CATCH_UP), |run| run.caught_up_ms),
            polled("feed taken over after", Some(TAKE_OVER), |run| run.taken_over_ms),
            polled("the same records after", if_it_is_there(EQUAL), |run| run.equal_ms),
            polled("untruly healthy for", Some(UNTRUE), |run| Some(run.falsely_healthy_ms)),
        ]
    }

    /// Whether a node has no Redis, or is frozen, during the fault.
    pub(super) fn reaches(&self, node: usize) -> bool {
        !self.is_at_one || node == 0
    }

    /// Whether Redis certainly does not serve a node during the fault.
    pub(super) fn takes_redis_from(&self, node: usize) -> bool {
        self.is_down && self.reaches(node)
    }

    /// Whether a node itself does not run meanwhile.
    pub(super) fn stops_node(&self, node: usize) -> bool {
        node == 0 && (self.kind == Kind::FreezeGateway || self.cuts_sockets_of(node))
    }

    /// Whether the fault itself cuts the sockets of a node.
    pub(super) fn cuts_sockets_of(&self, node: usize) -> bool {
        node == 0 && matches!(self.kind, Kind::KillGateway | Kind::KillFeed | Kind::KillGatewayDegraded)
    }

    /// Whether gateways need a copy of their journal on disk.
    pub(super) fn needs_spool(&self) -> bool {
        self.kind == Kind::KillGatewayDegraded
    }
}

/// The link to Redis holds requests, replies or both back.
const fn hole(requests: bool, replies: bool) -> Kind {
    Kind::Link(Mode::Hole { requests, replies })
}

/// How old a connection is when it is cut in the middle: long enough to be set up and used.
const MIDWAY: Duration = Duration::from_millis(150);
/// The connection is cut at the first byte.
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
    fault(
        "cut-returns",
        "the link of one gateway is cut, and cut again each time that it comes back, in the recovery",
        Kind::CutReturns,
        2_000,
    )
    .at_one()
    .unsure()
    .noticed(CLOSED),
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
        "feed-killed",
        "kill -9 of the gateway that has the feed, and started again when another one has it",
        Kind::KillFeed,
        60_000,
    )
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
    fault(
        "sentinel-failover",
        "kill -9 of the primary behind sentinels; it comes back when a replica has its place",
        Kind::Failover,
        60_000,
    )
    .unsure()
    .noticed(CLOSED),
    fault(
        "cluster-node-lost",
        "kill -9 of one of three primaries of a cluster, and started again",
        Kind::LoseClusterNode,
        5_000,
    )
    .noticed(CLOSED),
    fault(
        "gateway-clock",
        "the wall clock of one gateway is set an hour ahead, right, an hour back, and right",
        Kind::GatewayClock,
        9_000,
    )
    .at_one()
    .unsure(),
    fault(
        "redis-clock",
        "the wall clock of Redis is set an hour ahead, right, an hour back, and right",
        Kind::RedisClock,
        9_000,
    )
    .unsure(),
];

/// The fault with this name.
pub(super) fn find(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
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
}
