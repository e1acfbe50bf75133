//! Bodies over HTTP: what is asked, and what is answered. Entries and orders are generic where the gateway
//! writes what it has as text.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::open::words;
use crate::{BackendName, BackendState, ChannelName, EntryMessage, Epoch, Lane, Open, OrderId, Scope};

// Zones

/// The answer to what was published, and to updates: how many were accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Accepted {
    /// So many.
    pub accepted: u64,
}

/// `GET /api/zones`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ZoneList {
    /// In order of name.
    pub zones: Vec<ZoneView>,
}

/// A zone that has been published to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ZoneView {
    /// Its channel.
    pub channel: ChannelName,
    /// How it treats readers that fall behind.
    pub lane: Lane,
    /// The path of its WebSocket.
    pub stream: String,
    /// Its name.
    pub zone: String,
}

/// `GET /api/zones/{zone}/latest` and `/history`: entries as their messages, with what they belong to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields, concrete(E = EntryMessage)))]
pub struct Entries<E = EntryMessage> {
    /// The channel.
    pub channel: ChannelName,
    /// The life of the log that the offsets belong to; of `/history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The oldest offset that the log keeps; of `/history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<u64>,
    /// The newest one; of `/history`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_offset: Option<u64>,
    /// Where the next page begins, if there may be one; of `/latest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// In their order.
    pub entries: Vec<E>,
}

// Orders

words! {
    /// How an order stands, and the type of its updates but for `pending`.
    pub enum OrderStatus {
        /// Nothing was told of it yet.
        Pending = "pending",
        /// Its venue is being chosen.
        Routing = "routing",
        /// Its transaction is being made.
        Building = "building",
        /// Its transaction is on its way.
        Submitted = "submitted",
        /// It was carried out.
        Confirmed = "confirmed",
        /// It was not carried out, and will not be.
        Failed = "failed",
    }
}

/// `POST /api/orders/execute` where `orders.schema` is `swap`: one token for another. Numbers keep the digits
/// that they are written with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Swap {
    /// What is given, such as `SOL`.
    pub token_in: String,
    /// What is wanted for it, such as `USDC`.
    pub token_out: String,
    /// How much of `tokenIn`; greater than 0.
    #[cfg_attr(feature = "schema", schemars(with = "f64"))]
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub amount: Box<RawValue>,
    /// Per cent by which the price may be worse than quoted, 0 to 100. Default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<f64>"))]
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub slippage: Option<Box<RawValue>>,
    /// Goes with the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Map<String, serde_json::Value>>"))]
    #[cfg_attr(feature = "ts", ts(type = "Record<string, unknown>"))]
    pub metadata: Option<Box<RawValue>>,
}

/// The answer to an order: it is in the queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct OrderPlaced {
    /// The job that carries it out.
    pub job_id: OrderId,
    /// Its name.
    pub order_id: OrderId,
    /// The order that was tried in vain, and that this one is in place of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<OrderId>,
    /// How it stands.
    pub status: String,
    /// Always true.
    pub success: bool,
    /// Where its stream is.
    pub ws_url: String,
}

/// The answer to `POST /api/orders/{orderId}/cancel`: it is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct OrderCancelling {
    /// The order.
    pub order_id: OrderId,
    /// `cancelling`.
    pub status: String,
    /// Always true.
    pub success: bool,
}

/// What is known of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields, concrete(E = EntryMessage)))]
pub struct OrderView<E = EntryMessage> {
    /// Its name.
    pub order_id: OrderId,
    /// The name of the job that carries it out; absent when there is none here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<OrderId>,
    /// While Redis is away: what this node knows by itself, which may be behind. Absent otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "ts", ts(as = "Option<bool>", optional))]
    pub degraded: bool,
    /// `pending`, or the type of the newest update.
    pub status: String,
    /// 0 to 100.
    pub progress: u8,
    /// Which try it is at.
    pub attempt: u32,
    /// How many there are.
    pub max_attempts: u32,
    /// How many times a worker took it up.
    pub run: u32,
    /// Somebody asked for it to be cancelled.
    pub cancel_requested: bool,
    /// What was ordered; absent when it was not placed here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Map<String, serde_json::Value>>"))]
    #[cfg_attr(feature = "ts", ts(type = "Record<string, unknown>"))]
    pub order: Option<Box<RawValue>>,
    /// When it was placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When something last happened to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The newest update, also where it is no longer among `updates`; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update: Option<E>,
    /// The life of the log that the updates' offsets belong to; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How many updates came before those that are still kept; absent in lists.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "gap")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "gap::schema"))]
    #[cfg_attr(feature = "ts", ts(type = "number | null"))]
    pub gap: Option<Gap>,
    /// All that are kept, in order, as sockets get them; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updates: Option<Vec<E>>,
}

/// How many updates of an order are gone for good, before those that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// So many.
    Known(u64),
    /// Others may be kept where they cannot be reached now. JSON's null.
    Unknown,
}

/// Null is a gap too.
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(concrete(O = OrderView)))]
pub struct OrderList<O = OrderView> {
    /// The orders.
    pub orders: Vec<O>,
    /// Where the next page begins; null when this is the last one.
    pub next: Option<OrderId>,
    /// Redis is away, and these are the ones that this node knows by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "ts", ts(as = "Option<bool>", optional))]
    pub degraded: bool,
}

/// `GET /api/orders/dead-letters`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DeadLetterList {
    /// The orders that were tried in vain, the newest first.
    pub dead_letters: Vec<DeadLetter>,
    /// Where the next page begins; null when this is the last one.
    pub next: Option<OrderId>,
    /// Redis is away, and these are the ones that this node knows by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "ts", ts(as = "Option<bool>", optional))]
    pub degraded: bool,
}

/// An order that was tried in vain.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct DeadLetter {
    /// Its name.
    pub order_id: OrderId,
    /// What went wrong last.
    pub error: String,
    /// It may have been carried out all the same.
    pub submitted: bool,
    /// How many times a worker took it up.
    pub runs: u32,
    /// What was ordered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<serde_json::Map<String, serde_json::Value>>"))]
    #[cfg_attr(feature = "ts", ts(type = "Record<string, unknown>"))]
    pub order: Option<Box<RawValue>>,
    /// When it was placed.
    pub created_at: String,
    /// When it was given up.
    pub failed_at: String,
}

// Workers outside

/// What a worker asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct ClaimRequest {
    /// Its name; stands in the `executor` field of the updates.
    pub worker: String,
    /// How many jobs at the most. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// For how long it holds them without a sign of life. Default `orders.lease_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// How long it waits where there is nothing to do. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// The answer to a claim.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(concrete(J = OfferedJob)))]
pub struct Offer<J = OfferedJob> {
    /// Empty when there was nothing to do.
    pub jobs: Vec<J>,
}

/// A job that a worker may carry out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct OfferedJob {
    /// Its name.
    pub job_id: OrderId,
    /// The order's; the same.
    pub order_id: OrderId,
    /// Must come with each call about this job.
    pub token: u64,
    /// How many times it has been claimed, this time included.
    pub run: u32,
    /// Which try this is.
    pub attempt: u32,
    /// How many there are.
    pub max_attempts: u32,
    /// How long it is the worker's without a sign of life.
    pub lease_ms: u64,
    /// What was ordered.
    #[cfg_attr(feature = "schema", schemars(with = "serde_json::Map<String, serde_json::Value>"))]
    #[cfg_attr(feature = "ts", ts(type = "Record<string, unknown>"))]
    pub order: Box<RawValue>,
    /// How far the run before came; null when nothing was told yet.
    pub previous: Option<Previous>,
}

/// How far a run came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Previous {
    /// The type of its newest update.
    pub status: String,
    /// 0 to 100.
    pub progress: u8,
    /// Which try it was.
    pub attempt: u32,
}

/// `POST /api/jobs/{jobId}/extend`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct ExtendRequest {
    /// From the claim.
    pub token: u64,
    /// How long the lease lasts from now on. Default `orders.lease_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
}

/// The job is the worker's still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct LeaseHeld {
    /// Always true.
    pub held: bool,
}

/// `POST /api/jobs/{jobId}/release`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ReleaseRequest {
    /// From the claim.
    pub token: u64,
}

/// `POST /api/jobs/{jobId}/fail`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct FailRequest {
    /// From the claim.
    pub token: u64,
    /// What went wrong.
    pub error: Failure,
    /// Another try may succeed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "ts", ts(as = "Option<bool>", optional))]
    pub retry: bool,
}

/// Why an order failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Failure {
    /// A word such as `no_liquidity`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A report was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ReportAccepted {
    /// Always true.
    pub accepted: bool,
}

/// What became of a job that its worker did not carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub enum JobOutcome {
    /// Another worker may have it at once.
    Released,
    /// It is offered again after a while.
    Retry {
        /// After so many milliseconds.
        #[serde(rename = "retryInMs")]
        retry_in_ms: u64,
    },
    /// The order has ended.
    Failed,
}

// How the gateway does

/// `GET /health/live`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Live {
    /// `live`.
    pub status: String,
}

/// Where the storage stands, as every endpoint says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct StorageView {
    /// Which storage serves.
    pub storage_backend: Open<BackendName>,
    /// How well.
    pub state: Open<BackendState>,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Which channels it is about.
    pub scope: Open<Scope>,
    /// Why, as a word.
    pub reason_code: String,
    /// Why, for people; may name what the server said.
    pub reason: String,
    /// Servers that share the channels among them.
    pub primaries: usize,
    /// Those of them that do not serve.
    pub primaries_away: usize,
}

/// `GET /health`, `/ws/health` and `/health/ready`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct HealthView {
    /// `healthy`, `degraded`, `recovering` or `stopping`.
    pub status: String,
    /// The process works.
    pub live: bool,
    /// It may be sent traffic; degraded is ready.
    pub ready: bool,
    /// Redis is configured or required, and does not serve as it should.
    pub degraded: bool,
    /// Where the storage stands.
    #[serde(flatten)]
    pub storage: StorageView,
    /// How the journal's copy on disk does, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<String>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_reason: Option<String>,
    /// Channels that cannot be put in order while Redis serves all others, and why: some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "ts", ts(as = "Option<Vec<ChannelSetAside>>"))]
    pub channels_set_aside: Vec<ChannelSetAside>,
    /// Which process it is; another one after each start.
    pub node: String,
    /// Of the program.
    pub version: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// WebSockets that are open.
    pub connections: u64,
    /// What WebSockets did since the start.
    pub websocket: WebSocketView,
    /// The kind of executor that carries out what is placed here.
    pub executor: String,
    /// The kinds that other nodes with the same storage have: orders that are placed there are not
    /// carried out by workers of this kind. Absent where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "ts", ts(as = "Option<Vec<String>>"))]
    pub other_executors: Vec<String>,
    /// How the gateway's knowledge of tokens does, where it asks who one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<AuthenticationView>,
    /// How the gateway's own certificate does, where it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsHealth>,
    /// When this was said.
    pub timestamp: DateTime<Utc>,
}

/// How a gateway's certificate does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct TlsHealth {
    /// `fresh`, or `stale` where the files hold something that cannot be used, and what they held before
    /// goes on; the log says why.
    pub files: String,
    /// When it ceases to be valid.
    pub expires_at: DateTime<Utc>,
}

/// How a gateway's knowledge of tokens does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct AuthenticationView {
    /// `known`, or `unknown` where there may be revocations that this node has not heard of.
    pub revocations: String,
    /// `fresh`, or `stale` where a place of keys fails; the log says which.
    pub keys: String,
}

/// A channel that cannot be put in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct ChannelSetAside {
    /// The channel.
    pub channel: ChannelName,
    /// Why.
    pub reason: String,
}

/// What WebSockets did since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct WebSocketView {
    /// Open now.
    pub open: u64,
    /// Opened.
    pub total: u64,
    /// Messages to clients.
    pub messages_sent: u64,
    /// Messages from clients.
    pub messages_received: u64,
    /// Messages that were answered with an error.
    pub errors: u64,
    /// As a part of those received.
    pub error_rate_percent: f64,
}

/// `GET /health/redis`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct RedisView {
    /// `healthy` (also where no Redis is configured), `degraded` (some primaries of a cluster are away, or a
    /// connection of the bridge is) or `unhealthy`.
    pub status: String,
    /// What is counted of the bridge.
    pub metrics: RedisMetrics,
    /// How the storage's Redis is: `up` (also while channels are put in order), `partial` (some primaries of
    /// a cluster are away), `down` or `not_configured`.
    pub link: String,
    /// Redis serves.
    pub serving: bool,
    /// Where the storage stands.
    #[serde(flatten)]
    pub storage: StorageView,
}

/// What is counted of the bridge, which exchanges events with other gateways and processes; all is 0 where it
/// is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct RedisMetrics {
    /// Redis is connected: by the bridge, where it is on, else by the storage.
    pub connected: bool,
    /// Events published.
    pub published_events: u64,
    /// Events of others heard and taken.
    pub received_events: u64,
    /// Connections of the bridge lost, and calls that failed.
    pub errors: u64,
    /// Types that are to be subscribed to at the moment.
    pub subscriptions: usize,
    /// Of these, those that are.
    pub active_subscriptions: usize,
}

words! {
    /// When a type of events of other processes is subscribed to.
    pub enum SubscriptionMode {
        /// While somebody on this node follows it, and for half a minute after.
        Interest = "interest",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never",
    }
}

/// What an operator says of a type of events, until the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct SetSubscription {
    /// The type, such as `ticker`.
    #[serde(rename = "type")]
    pub event: String,
    /// When it is subscribed to from now on.
    pub mode: SubscriptionMode,
}

/// What this node publishes to other gateways and processes, what it hears of them, and what came of which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BridgeSubscriptions {
    /// Whether events are exchanged at all.
    pub enabled: bool,
    /// This node is the one that takes durable events of other processes in.
    pub takes_in: bool,
    /// All types.
    pub types: Vec<BridgeSubscription>,
    /// The gateways that were heard of.
    pub sources: Vec<BridgeSource>,
}

/// A type of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BridgeSubscription {
    /// Its name.
    #[serde(rename = "type")]
    pub event: String,
    /// The pub/sub channel.
    pub channel: String,
    /// `live` or `durable`.
    pub delivery: String,
    /// What this node accepts of it is published.
    pub publishes: bool,
    /// The configuration lets it be subscribed to.
    pub subscribes: bool,
    /// When it is subscribed to.
    pub mode: Open<SubscriptionMode>,
    /// Somebody on this node follows it.
    pub wanted_here: bool,
    /// It is to be subscribed to at the moment. A durable type is by one gateway only, which takes events of
    /// other processes in; the others have them from the log.
    pub due: bool,
    /// It is.
    pub active: bool,
    /// Events published.
    pub published: u64,
    /// Events of others heard and taken.
    pub received: u64,
    /// Live events of other gateways that did not come.
    pub missed: u64,
}

/// A gateway that was heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BridgeSource {
    /// Its node.
    pub source: String,
    /// By type.
    pub types: BTreeMap<String, SourceCounts>,
}

/// What a gateway published of a live type, and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct SourceCounts {
    /// The number of its newest event that is known here: it has published so many since its start.
    pub published: u64,
    /// Those that came, since this node began to listen.
    pub received: u64,
    /// Those that did not come, of those that this node listened to.
    pub missed: u64,
}

/// The settings that are in effect, secrets masked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct ConfigView {
    /// The file that was read, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What holds up and may still be a mistake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// One after the other, by section.
    pub settings: Vec<SettingView>,
}

/// A setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct SettingView {
    /// Its key, such as `http.listen`.
    pub key: String,
    /// Its value; null where it is not set.
    #[cfg_attr(feature = "ts", ts(type = "unknown"))]
    pub value: serde_json::Value,
    /// Where it came from: `default`, a file, an environment variable, a flag, or what made it less; absent
    /// where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// What is to be no longer valid: one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Revoke {
    /// A token, by its `jti`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// An API key, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// All that was issued to a subject until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// Where a revocation holds, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct RevokedOn {
    /// The nodes that have confirmed it, the one that was asked first.
    pub holds_on: Vec<String>,
    /// Nodes that are there and have not confirmed it in time.
    pub unconfirmed_on: Vec<String>,
    /// The storage that nodes share is away: what other nodes there are is not known, and they hear of it
    /// when it is back.
    pub degraded: bool,
}
