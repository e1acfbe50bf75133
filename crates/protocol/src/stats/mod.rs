//! `/ws/stats`: what a gateway counts. `/metrics` tells the same numbers, by the names that stand beside the
//! fields here.

mod bridge;
mod channels;
mod connections;
mod feeds;
mod fleet;
mod http;
mod limits;
mod orders;
mod registry;
mod relay;
mod storage;
mod table;
mod timing;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::bridge::{BridgeView, ExchangeView};
pub use self::channels::{ChannelCounts, ChannelsView, PageCounts, RefusedEntries, SkippedEntries};
pub use self::connections::{
    ConnectionHealth, ConnectionInfo, ConnectionStory, ConnectionsView, DroppedMessages, DurationBucket,
    MessageCounts, MessagesView, SubscriptionInfo, SubscriptionPhase, TransportKind,
};
pub use self::feeds::{FeedCounts, FeedState, FeedView};
pub use self::fleet::{
    DeliveryLag, FleetNode, FleetTotals, FleetView, NodeState, NodesCounts, NodesKnown, NodesView,
    ZoneConnections,
};
pub use self::http::{AcceptCounts, HttpView, IntakeCounts, TlsView};
pub use self::limits::LimitsView;
pub use self::orders::{InteropCounts, JobsView, OrderCounts, OrdersView, OutsideInvalid, OutsideRefused};
pub use self::registry::{RegistriesView, RegistryCounts, RegistryView};
pub use self::relay::RelayView;
pub use self::storage::{JobsAloneCounts, LineCounts, MemoryUsage, OutageView, StateSpell};
pub use self::table::{Live, Metric, MetricKind, Metrics, Number};
pub use self::timing::{TIMING_BOUNDS_US, Timing};
use crate::StorageView;

/// `GET /ws/stats`: what was counted since the start, and how much there is of what. Fields of the
/// parts come and go with what is counted; who reads takes those that are missing for nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct StatsView {
    /// Which process it is; another one after each start.
    pub node: String,
    /// Of the program.
    pub version: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// When this was said.
    pub timestamp: DateTime<Utc>,
    /// Where the storage stands.
    #[serde(flatten)]
    pub storage: StorageView,
    /// How full this process' own logs are.
    pub memory: MemoryUsage,
    /// What waits for Redis, and what became of channels that went on without it.
    pub outage: OutageView,
    /// WebSockets.
    pub connections: ConnectionsView,
    /// What crossed them.
    pub messages: MessagesView,
    /// Channels, and their entries.
    pub channels: ChannelsView,
    /// What this node did with orders, and how many there are on all nodes.
    pub orders: OrdersView,
    /// The exchange with workers outside that use Redis lists.
    pub interop: InteropCounts,
    /// The exchange of events with other gateways and processes by Redis pub/sub.
    #[serde(default)]
    pub redis: BridgeView,
    /// How exchanges are reached, and what came of them, by exchange; `*` are those beyond the first 256. What
    /// the log says of how they are reached is left out where it cannot be read in time.
    #[serde(default)]
    pub exchanges: BTreeMap<String, ExchangeView>,
    /// The feeds of exchanges that this process is configured with, by the names that events call them.
    #[serde(default)]
    pub feeds: BTreeMap<String, FeedView>,
    /// Who is online, and which orders are under way.
    #[serde(default)]
    pub registries: RegistriesView,
    /// The nodes that share the storage; `?scope=fleet` lists them.
    #[serde(default)]
    pub fleet: NodesView,
    /// Limits of principals and tenants.
    #[serde(default)]
    pub limits: LimitsView,
    /// Requests, and the TCP connections that bring them.
    pub http: HttpView,
    /// The states that the storage was in, the newest first; the first one lasts.
    #[serde(default)]
    pub storage_history: Vec<StateSpell>,
    /// Some of the open connections, in the order of their ids.
    pub connection_list: Vec<ConnectionInfo>,
    /// There are more connections of those that were asked for: repeat with `after=` this; absent where
    /// there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_next: Option<Uuid>,
    /// Shards too busy to say how many connections each zone has.
    pub silent_shards: usize,
}

impl Metrics for StatsView {
    fn tell(&self, to: &mut dyn FnMut(Metric<'_>)) {
        let parts: [&dyn Metrics; 13] = [
            &self.memory,
            &self.outage,
            &self.connections,
            &self.messages,
            &self.channels,
            &self.orders,
            &self.interop,
            &self.redis,
            &self.feeds,
            &self.registries,
            &self.fleet,
            &self.limits,
            &self.http,
        ];
        parts.iter().for_each(|part| part.tell(to));
    }
}
