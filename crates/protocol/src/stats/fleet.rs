//! What the nodes that share a storage publish about themselves.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::table::counts;
use crate::Open;
use crate::open::words;

words! {
    /// Which nodes an answer covers.
    pub enum NodesKnown {
        /// All nodes that share the storage.
        All = "all",
        /// Only the one that answers: its storage is its own memory, or Redis is away.
        ThisOne = "this_one",
    }
}

words! {
    /// The state of a node.
    pub enum NodeState {
        /// Everything works.
        Serving = "serving",
        /// Redis is away, in whole or in part, or the node is reconciling with it.
        Degraded = "degraded",
        /// It is about to stop, or stopping.
        Draining = "draining",
    }
}

/// `GET /ws/stats?scope=fleet`: the nodes that share the storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct FleetView {
    /// `fleet`.
    pub scope: String,
    /// Which nodes this answer covers.
    pub nodes_known: Open<NodesKnown>,
    /// A note on the list, for people; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The nodes, longest running first; at most 1,024, always including the one that answers.
    pub nodes: Vec<FleetNode>,
    /// Totals of the listed nodes.
    pub totals: FleetTotals,
}

/// What a node publishes about itself, once a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct FleetNode {
    /// Its id, as in its `/ws/stats`; new at each start.
    pub node: String,
    /// Whether it is the node that answers.
    pub here: bool,
    /// The version of its program.
    pub version: String,
    /// Its state.
    pub state: Open<NodeState>,
    /// When it started, by its own clock.
    pub started_at: DateTime<Utc>,
    /// When it published this, by its own clock.
    pub told_at: DateTime<Utc>,
    /// Open WebSockets and event streams.
    pub connections: u64,
    /// Subscribers by zone: the 64 zones with the most.
    pub zones: Vec<ZoneConnections>,
    /// How many more zones have subscribers.
    pub zones_left_out: u64,
    /// Delivery time, from the log to the kernel (`delivery_seconds`), of entries of the last ten seconds.
    pub lag_ms: DeliveryLag,
    /// The kind of executor that executes orders placed there.
    pub executor: String,
}

/// How many connections of a node are subscribed to a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct ZoneConnections {
    /// The zone's name.
    pub zone: String,
    /// How many.
    pub connections: u64,
}

/// Delivery times in milliseconds, as exactly as the buckets of the histogram permit; null if there were no
/// entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct DeliveryLag {
    /// Half of the entries took no longer.
    pub p50: Option<f64>,
    /// 99 of 100 entries took no longer.
    pub p99: Option<f64>,
}

/// Totals of the listed nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct FleetTotals {
    /// How many nodes.
    pub nodes: u64,
    /// Open WebSockets and event streams.
    pub connections: u64,
}

counts! {
    /// What a node knows about those that share its storage.
    pub struct NodesView {
        /// Nodes on this storage by state, this one included, as last listed; only this one while Redis is
        /// away, and if the storage is memory.
        nodes_by_state: BTreeMap<String, u64> = gauge("fleet_nodes", by state),
        /// Counters since the start.
        #[serde(flatten)]
        counts: NodesCounts = of,
    }

    /// How often a node published its own record and read those of others.
    pub struct NodesCounts<N> {
        /// Times that this node published its own record.
        told: N = counter("fleet_told"),
        /// Times that publishing it failed, as while Redis is away; it is tried again a second later.
        untold: N = counter("fleet_untold"),
        /// Times that this node read the records of others.
        lists: N = counter("fleet_lists"),
        /// Times that reading them failed.
        lists_failed: N = counter("fleet_lists_failed"),
        /// Records of nodes that could not be read, counted at each listing.
        unreadable: N = counter("fleet_unreadable"),
    }
}
