//! HTTP bodies of requests and answers. Entries and orders are type parameters where the gateway writes
//! them from text that it already has.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::open::words;
use crate::{BackendName, BackendState, ChannelName, EntryMessage, Epoch, Lane, Open, OrderId, Scope};

#[cfg(feature = "schema")]
type Object = serde_json::Map<String, serde_json::Value>;

// Zones

/// The answer to publishing and to updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct Accepted {
    /// How many entries or updates were accepted.
    pub accepted: u64,
}

/// `GET /api/zones`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct ZoneList {
    /// The zones, ordered by name.
    pub zones: Vec<ZoneView>,
}

/// A zone that has been published to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct ZoneView {
    /// Its channel.
    pub channel: ChannelName,
    /// What happens to clients that read it too slowly.
    pub lane: Lane,
    /// The path of its WebSocket.
    pub stream: String,
    /// Its name.
    pub zone: String,
}

/// `GET /api/zones/{zone}/latest` and `/history`: entries in the form of messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
#[cfg_attr(feature = "schema", ts(optional_fields, concrete(E = EntryMessage)))]
pub struct Entries<E = EntryMessage> {
    /// The channel.
    pub channel: ChannelName,
    /// The epoch of the offsets; only in `/history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The oldest offset in the log; only in `/history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<u64>,
    /// The newest offset in the log; only in `/history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_offset: Option<u64>,
    /// Where the next page begins, if there may be one; only in `/latest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The entries in order.
    pub entries: Vec<E>,
}

// Orders

words! {
    /// The state of an order; except for `pending`, also the type of its newest update.
    pub enum OrderStatus {
        /// There is no update yet.
        Pending = "pending",
        /// Its venue is being chosen.
        Routing = "routing",
        /// Its transaction is being built.
        Building = "building",
        /// Its transaction was sent.
        Submitted = "submitted",
        /// It was executed.
        Confirmed = "confirmed",
        /// It was not executed and will not be.
        Failed = "failed",
    }
}

/// `POST /api/orders/execute` if `orders.schema` is `swap`: an exchange of one token for another. Numbers
/// keep the digits with which they are written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Swap {
    /// The token to sell, such as `SOL`.
    pub token_in: String,
    /// The token to buy, such as `USDC`.
    pub token_out: String,
    /// How much of `tokenIn` to sell; greater than 0.
    #[cfg_attr(feature = "schema", schemars(with = "f64"), ts(type = "number"))]
    pub amount: Box<RawValue>,
    /// By how many percent the price may be worse than quoted, 0 to 100. Default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<f64>"), ts(type = "number"))]
    pub slippage: Option<Box<RawValue>>,
    /// Any object; stored with the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Object>"), ts(type = "Record<string, unknown>"))]
    pub metadata: Option<Box<RawValue>>,
}

/// The answer to an accepted order, which is now in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct OrderPlaced {
    /// The job that executes it.
    pub job_id: OrderId,
    /// The order's id.
    pub order_id: OrderId,
    /// The order that this one retries, whose attempts all failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<OrderId>,
    /// The state of the order.
    pub status: String,
    /// Always true.
    pub success: bool,
    /// The address of the order's WebSocket.
    pub ws_url: String,
}

/// The answer to `POST /api/orders/{orderId}/cancel`: cancelling was requested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct OrderCancelling {
    /// The order.
    pub order_id: OrderId,
    /// `cancelling`.
    pub status: String,
    /// Always true.
    pub success: bool,
}

/// What is known about an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
#[cfg_attr(feature = "schema", ts(optional_fields, concrete(E = EntryMessage)))]
pub struct OrderView<E = EntryMessage> {
    /// The order's id.
    pub order_id: OrderId,
    /// The id of the job that executes it; absent if the gateway has none for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<OrderId>,
    /// True while Redis is away: the answer is what this node knows by itself, which may be out of date.
    /// Absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", ts(as = "Option<bool>", optional))]
    pub degraded: bool,
    /// `pending`, or the type of the newest update.
    pub status: String,
    /// How far it is, 0 to 100.
    pub progress: u8,
    /// The number of the current attempt, from 1.
    pub attempt: u32,
    /// The most attempts that the order may have.
    pub max_attempts: u32,
    /// How many times a worker has claimed the order.
    pub run: u32,
    /// Whether somebody asked for it to be cancelled.
    pub cancel_requested: bool,
    /// The order as it was placed; absent if it was not placed here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Object>"), ts(type = "Record<string, unknown>"))]
    pub order: Option<Box<RawValue>>,
    /// When it was placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When its state last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The newest update, even if it is no longer among `updates`; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<E>,
    /// The epoch of the updates' offsets; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How many earlier updates the log no longer has; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "gap")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "gap::schema"), ts(type = "number | null"))]
    pub gap: Option<Gap>,
    /// All updates that the log still has, in order and in the form of messages; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates: Option<Vec<E>>,
}

/// How many updates of an order are missing before those that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Exactly this many are gone for good.
    Known(u64),
    /// Unknown: earlier updates may exist where they cannot be reached now. Null in JSON.
    Unknown,
}

/// Null is a value of its own here: [`Gap::Unknown`].
mod gap {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Gap;

    #[cfg(feature = "schema")]
    pub(super) fn schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "oneOf": [{ "type": "integer", "minimum": 0 }, { "type": "null" }] })
    }

    pub(super) fn serialize<S: Serializer>(gap: &Option<Gap>, serializer: S) -> Result<S::Ok, S::Error> {
        match gap {
            Some(Gap::Known(count)) => count.serialize(serializer),
            Some(Gap::Unknown) | None => serializer.serialize_unit(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Gap>, D::Error> {
        Ok(Some(Option::<u64>::deserialize(from)?.map_or(Gap::Unknown, Gap::Known)))
    }
}

/// `GET /api/orders`: the newest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(concrete(O = OrderView)))]
pub struct OrderList<O = OrderView> {
    /// The orders.
    pub orders: Vec<O>,
    /// Where the next page begins; null when this is the last one.
    pub next: Option<OrderId>,
    /// Redis is away, and the list has only the orders that this node knows by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", ts(as = "Option<bool>", optional))]
    pub degraded: bool,
}

/// `GET /api/orders/dead-letters`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct DeadLetterList {
    /// The orders that were tried in vain, the newest first.
    pub dead_letters: Vec<DeadLetter>,
    /// Where the next page begins; null when this is the last one.
    pub next: Option<OrderId>,
    /// Redis is away, and the list has only the orders that this node knows by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", ts(as = "Option<bool>", optional))]
    pub degraded: bool,
}

/// An order whose attempts all failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct DeadLetter {
    /// The order's id.
    pub order_id: OrderId,
    /// The error of the last attempt.
    pub error: String,
    /// Whether it may have been executed after all.
    pub submitted: bool,
    /// How many times a worker has claimed the order.
    pub runs: u32,
    /// The order as it was placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Object>"), ts(type = "Record<string, unknown>"))]
    pub order: Option<Box<RawValue>>,
    /// When it was placed.
    pub created_at: String,
    /// When its last attempt failed.
    pub failed_at: String,
}

// Workers outside

/// A request for jobs by a worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct ClaimRequest {
    /// The worker's name, which appears in the `executor` field of updates.
    pub worker: String,
    /// The most jobs to claim. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// How long the lease of each job lasts unless it is extended. Default `orders.lease_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// How long to wait if there are no jobs. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// The answer to a claim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(concrete(J = OfferedJob)))]
pub struct Offer<J = OfferedJob> {
    /// The claimed jobs; empty if there are none.
    pub jobs: Vec<J>,
}

/// A job for a worker to execute.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct OfferedJob {
    /// The job's id.
    pub job_id: OrderId,
    /// The order's id; the same UUID.
    pub order_id: OrderId,
    /// The fencing token, to be sent with each call about this job.
    pub token: u64,
    /// How many times it has been claimed, this time included.
    pub run: u32,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// The most attempts that the order may have.
    pub max_attempts: u32,
    /// How long the lease lasts unless it is extended.
    pub lease_ms: u64,
    /// The order as it was placed.
    #[cfg_attr(feature = "schema", schemars(with = "Object"), ts(type = "Record<string, unknown>"))]
    pub order: Box<RawValue>,
    /// How far the previous run came; null if it has not reported anything.
    pub previous: Option<Previous>,
}

/// How far a run came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct Previous {
    /// The type of its newest update.
    pub status: String,
    /// How far it was, 0 to 100.
    pub progress: u8,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

/// `POST /api/jobs/{jobId}/extend`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct ExtendRequest {
    /// The token of the claim.
    pub token: u64,
    /// How long the lease lasts from now on. Default `orders.lease_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
}

/// The worker still holds the lease of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct LeaseHeld {
    /// Always true.
    pub held: bool,
}

/// `POST /api/jobs/{jobId}/release`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct ReleaseRequest {
    /// The token of the claim.
    pub token: u64,
}

/// `POST /api/jobs/{jobId}/fail`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct FailRequest {
    /// The token of the claim.
    pub token: u64,
    /// What went wrong.
    pub error: Failure,
    /// Whether another attempt may succeed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", ts(as = "Option<bool>", optional))]
    pub retry: bool,
}

/// Why an order failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct Failure {
    /// A short code such as `no_liquidity`.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
}

/// The report was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct ReportAccepted {
    /// Always true.
    pub accepted: bool,
}

/// What happened to a job that its worker did not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub enum JobOutcome {
    /// The job is offered to workers again at once.
    Released,
    /// The job is offered again after a delay.
    Retry {
        /// The delay in milliseconds.
        #[serde(rename = "retryInMs")]
        retry_in_ms: u64,
    },
    /// The order has ended.
    Failed,
}

// The state of the gateway

/// `GET /health/live`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct Live {
    /// `live`.
    pub status: String,
}

/// The state of the storage, in the form that all endpoints use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct StorageView {
    /// Which storage serves.
    pub storage_backend: Open<BackendName>,
    /// The state of the storage.
    pub state: Open<BackendState>,
    /// When this state began.
    pub since: DateTime<Utc>,
    /// Which channels are affected.
    pub scope: Open<Scope>,
    /// The reason, as a stable code.
    pub reason_code: String,
    /// The reason, for people; may quote the server.
    pub reason: String,
    /// How many servers share the channels.
    pub primaries: usize,
    /// How many of them are away.
    pub primaries_away: usize,
}

/// `GET /health`, `/ws/health` and `/health/ready`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct HealthView {
    /// `healthy`, `degraded`, `recovering` or `stopping`.
    pub status: String,
    /// Whether the process works.
    pub live: bool,
    /// Whether it may be sent traffic; a degraded gateway is ready.
    pub ready: bool,
    /// Whether Redis is configured or required and does not serve as it should.
    pub degraded: bool,
    /// The state of the storage.
    #[serde(flatten)]
    pub storage: StorageView,
    /// The state of the journal's write-ahead log on disk, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<String>,
    /// What is wrong with that log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_reason: Option<String>,
    /// Some of the channels for which reconciling fails while Redis serves all others, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", ts(as = "Option<Vec<ChannelSetAside>>"))]
    pub channels_set_aside: Vec<ChannelSetAside>,
    /// The id of the process, new at each start.
    pub node: String,
    /// The version of the program.
    pub version: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// WebSockets that are open.
    pub connections: u64,
    /// Counters of WebSockets since the start.
    pub websocket: WebSocketView,
    /// The kind of executor that executes orders placed here.
    pub executor: String,
    /// The kinds that other nodes on the same storage have: their workers do not execute orders placed
    /// here. Absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", ts(as = "Option<Vec<String>>"))]
    pub other_executors: Vec<String>,
    /// The state of what the gateway needs to verify tokens; absent if authentication is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<AuthenticationView>,
    /// The state of the gateway's own certificate; absent if it does not speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsHealth>,
    /// When this answer was made.
    pub timestamp: DateTime<Utc>,
}

/// The state of the gateway's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct TlsHealth {
    /// `fresh`, or `stale` if the files now hold something unusable, so that their previous contents stay
    /// in effect; the log says why.
    pub files: String,
    /// When the certificate expires.
    pub expires_at: DateTime<Utc>,
}

/// The state of what a gateway needs to verify tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct AuthenticationView {
    /// `known`, or `unknown` if there may be revocations that have not reached this node.
    pub revocations: String,
    /// `fresh`, or `stale` if a source of keys fails; the log says which.
    pub keys: String,
}

/// A channel for which reconciling fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct ChannelSetAside {
    /// The channel.
    pub channel: ChannelName,
    /// Why.
    pub reason: String,
}

/// Counters of WebSockets since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct WebSocketView {
    /// WebSockets open now.
    pub open: u64,
    /// WebSockets opened.
    pub total: u64,
    /// Messages to clients.
    pub messages_sent: u64,
    /// Messages from clients.
    pub messages_received: u64,
    /// Messages that were answered with an error.
    pub errors: u64,
    /// That number, in percent of the messages received.
    pub error_rate_percent: f64,
}

/// `GET /health/redis`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct RedisView {
    /// `healthy` (also if no Redis is configured), `degraded` (some primaries of a cluster are away, or a
    /// connection of the bridge is) or `unhealthy`.
    pub status: String,
    /// Counters of the bridge.
    pub metrics: RedisMetrics,
    /// The state of the storage's Redis: `up` (also while the gateway reconciles with it), `partial` (some
    /// primaries of a cluster are away), `down` or `not_configured`.
    pub link: String,
    /// Whether Redis serves.
    pub serving: bool,
    /// The state of the storage.
    #[serde(flatten)]
    pub storage: StorageView,
}

/// Counters of the bridge, which exchanges events with other gateways and processes; all are 0 if it is
/// off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct RedisMetrics {
    /// Whether Redis is connected: for the bridge, or, if that is off, for the storage.
    pub connected: bool,
    /// Events published.
    pub published_events: u64,
    /// Events of others received and accepted.
    pub received_events: u64,
    /// Lost connections and failed calls of the bridge.
    pub errors: u64,
    /// Types that should be subscribed to at the moment.
    pub subscriptions: usize,
    /// Those of them that are.
    pub active_subscriptions: usize,
}

words! {
    /// When the gateway subscribes to a type of events of other processes.
    pub enum SubscriptionMode {
        /// While somebody on this node follows it, and for half a minute after.
        Interest = "interest",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never",
    }
}

/// An operator's choice for a type of events, in effect until the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct SetSubscription {
    /// The type, such as `ticker`.
    #[serde(rename = "type")]
    pub event: String,
    /// When to subscribe to it from now on.
    pub mode: SubscriptionMode,
}

/// What this node exchanges with other gateways and processes, with counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct BridgeSubscriptions {
    /// Whether the bridge is on.
    pub enabled: bool,
    /// Whether this node is the one that appends durable events of other processes to the log.
    pub takes_in: bool,
    /// All types of events.
    pub types: Vec<BridgeSubscription>,
    /// The gateways from which events were received.
    pub sources: Vec<BridgeSource>,
}

/// How a type of events is exchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct BridgeSubscription {
    /// The type's name.
    #[serde(rename = "type")]
    pub event: String,
    /// Its pub/sub channel.
    pub channel: String,
    /// `live` or `durable`.
    pub delivery: String,
    /// Whether events accepted by this node are published.
    pub publishes: bool,
    /// Whether the configuration permits subscribing to it.
    pub subscribes: bool,
    /// When it is subscribed to.
    pub mode: Open<SubscriptionMode>,
    /// Whether somebody on this node follows it.
    pub wanted_here: bool,
    /// Whether it should be subscribed to at the moment. For a durable type that is one gateway only, which
    /// appends events of other processes to the log; the others read them there.
    pub due: bool,
    /// Whether it is subscribed to.
    pub active: bool,
    /// Events published.
    pub published: u64,
    /// Events of others received and accepted.
    pub received: u64,
    /// Live events of other gateways that did not arrive.
    pub missed: u64,
}

/// A gateway from which events were received.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct BridgeSource {
    /// The id of its node.
    pub source: String,
    /// Counters by type of events.
    pub types: BTreeMap<String, SourceCounts>,
}

/// Counters of one gateway's events of a live type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct SourceCounts {
    /// The number of its newest event that is known here, which counts its events since its start.
    pub published: u64,
    /// Those that arrived, since this node subscribed.
    pub received: u64,
    /// Those that did not arrive although this node was subscribed.
    pub missed: u64,
}

/// The settings in effect, with secrets masked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct ConfigView {
    /// The configuration file, if one was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A setting that is valid but may be a mistake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The settings, by section.
    pub settings: Vec<SettingView>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct SettingView {
    /// The key, such as `http.listen`.
    pub key: String,
    /// Its value; null if it is not set.
    #[cfg_attr(feature = "schema", ts(type = "unknown"))]
    pub value: serde_json::Value,
    /// Where the value came from: `default`, a file, an environment variable, a flag, or what reduced it; absent
    /// if that is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// What to revoke: exactly one of these fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Revoke {
    /// The `jti` of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The name of an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A subject: everything issued to it until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Where a revocation is known to be in effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct RevokedOn {
    /// The nodes that have confirmed it, beginning with the one that was asked.
    pub holds_on: Vec<String>,
    /// The nodes that have not confirmed it in time.
    pub unconfirmed_on: Vec<String>,
    /// Whether the shared storage is away: then other nodes are unknown, and learn of the revocation when
    /// the storage is back.
    pub degraded: bool,
}
