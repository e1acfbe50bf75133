//! `/ws/stats`: the counters of a gateway. `/metrics` has the same numbers, under the names that stand
//! beside the fields here.

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
pub use self::storage::{JobsWithoutRedisCounts, LineCounts, MemoryUsage, OutageView, StateSpell};
pub use self::table::{Live, Metric, MetricKind, Metrics, Number};
pub use self::timing::{TIMING_BOUNDS_US, Timing};
use crate::StorageView;

/// `GET /ws/stats`: counters since the start, and current sizes. Fields may be added and removed with the
/// gateway's version; readers treat missing ones as empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct StatsView {
    /// The id of the process, new at each start.
    pub node: String,
    /// The version of the program.
    pub version: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// When this answer was made.
    pub timestamp: DateTime<Utc>,
    /// The state of the storage.
    #[serde(flatten)]
    pub storage: StorageView,
    /// The memory that this process' own logs take.
    pub memory: MemoryUsage,
    /// What waits for Redis, and how channels fared without it.
    pub outage: OutageView,
    /// WebSockets.
    pub connections: ConnectionsView,
    /// Messages over WebSockets.
    pub messages: MessagesView,
    /// Channels, and their entries.
    pub channels: ChannelsView,
    /// What this node did with orders, and how many there are on all nodes.
    pub orders: OrdersView,
    /// The exchange with outside workers over Redis lists.
    pub interop: InteropCounts,
    /// The exchange of events with other gateways and processes over Redis pub/sub.
    #[serde(default)]
    pub redis: BridgeView,
    /// The connections to exchanges and what they brought, by exchange; `*` stands for those beyond the
    /// first 256. The state of a connection is absent if it could not be read from the log in time.
    #[serde(default)]
    pub exchanges: BTreeMap<String, ExchangeView>,
    /// The feeds of exchanges configured in this process, by the exchange's name in events.
    #[serde(default)]
    pub feeds: BTreeMap<String, FeedView>,
    /// Registries: providers online, and orders in progress.
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
    /// The states of the storage, newest first; the first one is the current one.
    #[serde(default)]
    pub storage_history: Vec<StateSpell>,
    /// Some of the open connections, in the order of their ids.
    pub connection_list: Vec<ConnectionInfo>,
    /// If present, more connections match the request: repeat it with `after=` this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_next: Option<Uuid>,
    /// Shards too busy to report their connections per zone.
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
