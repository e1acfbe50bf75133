//! What nodes that share a storage tell each other of themselves.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::table::counts;
use crate::Open;
use crate::open::words;

words! {
    /// Of which nodes it is known how they do.
    pub enum NodesKnown {
        /// Of all that share the storage.
        All = "all",
        /// Of the one that answers: its storage is its own memory, or Redis is away.
        ThisOne = "this_one",
    }
}

words! {
    /// How a node does.
    pub enum NodeState {
        /// As it should.
        Serving = "serving",
        /// Redis is away, all or a part of it, or what was missed is being put in order.
        Degraded = "degraded",
        /// It is about to stop, or stops.
        Draining = "draining",
    }
}

/// `GET /ws/stats?scope=fleet`: the nodes that share the storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct FleetView {
    /// `fleet`.
    pub scope: String,
    /// Of which nodes it is known how they do.
    pub nodes_known: Open<NodesKnown>,
    /// What is to be said of the list, for people; absent where that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Those that are there, the one that runs longest first; 1,024 at the most, the one that answers among them.
    pub nodes: Vec<FleetNode>,
    /// Of those that are listed.
    pub totals: FleetTotals,
}

/// What a node tells of itself, each second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct FleetNode {
    /// Its name, as in its `/ws/stats`; another one after each start.
    pub node: String,
    /// It is the one that answers.
    pub here: bool,
    /// Of its program.
    pub version: String,
    /// How it does.
    pub state: Open<NodeState>,
    /// When it started, by its own clock.
    pub started_at: DateTime<Utc>,
    /// When it told this, by its own clock.
    pub told_at: DateTime<Utc>,
    /// Open WebSockets, and streams of events.
    pub connections: u64,
    /// Subscribers by zone: the 64 zones with most of them.
    pub zones: Vec<ZoneConnections>,
    /// Zones with subscribers besides these.
    pub zones_left_out: u64,
    /// How long entries took from the log to the kernel (`delivery_seconds`), of those in the last ten seconds.
    pub lag_ms: DeliveryLag,
    /// The kind of executor that carries out orders which are placed there.
    pub executor: String,
}

/// How many connections of a node are subscribed to a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ZoneConnections {
    /// Its name.
    pub zone: String,
    /// So many.
    pub connections: u64,
}

/// How long entries took, in milliseconds, as well as the buckets of the histogram tell; null where there were
/// none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DeliveryLag {
    /// Half of them took no longer.
    pub p50: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
}

/// What the listed nodes have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct FleetTotals {
    /// How many there are.
    pub nodes: u64,
    /// Open WebSockets, and streams of events.
    pub connections: u64,
}

counts! {
    /// What a node knows of those that share its storage.
    pub struct NodesView {
        /// Nodes with this storage by their state, this one among them, as they were listed last; while Redis is
        /// away, and with memory as the storage, this one alone.
        nodes_by_state: BTreeMap<String, u64> = gauge("fleet_nodes", by state),
        /// What was told and read since the start.
        #[serde(flatten)]
        counts: NodesCounts = of,
    }

    /// What a node told of itself, and read of others.
    pub struct NodesCounts<N> {
        /// Times that this node told others of itself.
        told: N = counter("fleet_told"),
        /// Times that it could not, as while Redis is away; it tells again a second later.
        untold: N = counter("fleet_untold"),
        /// Times that it read what others tell.
        lists: N = counter("fleet_lists"),
        /// Times that it could not.
        lists_failed: N = counter("fleet_lists_failed"),
        /// Records of nodes that could not be read, each time that they were listed.
        unreadable: N = counter("fleet_unreadable"),
    }
}
