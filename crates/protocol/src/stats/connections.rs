//! Counters of WebSockets and their messages.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::table::counts;
use super::{PageCounts, Timing};
use crate::open::words;
use crate::{Epoch, Open};

counts! {
    /// WebSockets.
    pub struct ConnectionsView {
        /// Open WebSockets and event streams.
        open: u64 = gauge("connections"),
        /// Open event streams.
        event_streams: u64 = gauge("event_streams"),
        /// WebSockets opened.
        total: u64 = counter("connections_opened"),
        /// WebSockets that have ended.
        total_disconnections: u64,
        /// Open WebSockets by zone.
        by_zone: BTreeMap<String, usize>,
        /// WebSockets that have ended, by the reason of the close code.
        closed_by_reason: BTreeMap<String, u64> = counter("connections_closed", by reason),
        /// Connections refused by a limit: `full` (`connections.max`), `tcp` (`connections.tcp_max`),
        /// `address` (`connections.per_address_max`), `rate` (`connections.connects_per_s`).
        refused_by_limit: BTreeMap<String, u64> = counter("connections_refused", by limit),
        /// Average duration of ended WebSockets, in seconds.
        average_duration_s: f64,
        /// Age of the oldest open WebSocket, in seconds.
        longest_open_s: u64,
        /// Ended WebSockets by duration.
        durations: Vec<DurationBucket>,
    }

    /// Messages over WebSockets.
    pub struct MessagesView {
        /// Counters of messages.
        #[serde(flatten)]
        counts: MessageCounts = of,
        /// Messages answered with `error`.
        errors: u64,
        /// Messages answered with `error`, in percent of those received.
        error_rate_percent: f64,
        /// Messages answered with `error`, by its code.
        errors_by_code: BTreeMap<String, u64> = counter("message_errors", by code),
        /// Pages for clients that catch up.
        #[serde(flatten)]
        pages: PageCounts = of,
        /// Bytes of these pages that wait for clients, or are cached for 2 s for others; beyond
        /// `channels.replay_bytes_max` pages are small.
        replay_bytes: usize = gauge("replay_bytes"),
    }

    /// Messages over WebSockets since the start.
    pub struct MessageCounts<N> {
        /// Messages whose last byte was handed to the kernel.
        sent: N = counter("messages_sent"),
        /// Text messages from clients.
        received: N = counter("messages_received"),
        /// Bytes from clients.
        bytes_received: N = counter("received_bytes"),
        /// Waiting messages that were replaced by a newer one.
        conflated: N = counter("messages_conflated"),
        /// Waiting messages that were never sent, by reason.
        dropped_by_reason: DroppedMessages<N> = of,
        /// Entries that clients published over their WebSockets.
        published: N = counter("messages_published"),
        /// Pages of the log sent to clients that catch up.
        replays: N = counter("replays"),
        /// Entries sent from the log.
        replayed: N = counter("replayed_entries"),
        /// Snapshots that clients were sent, or that were begun.
        snapshots: N = counter("snapshots"),
        /// Entries sent in snapshots.
        snapshot_entries: N = counter("snapshot_entries"),
        /// Times that a client was told of missing entries.
        gaps_told: N = counter("gaps_told"),
        /// Times that a channel waited for readers that lagged far behind.
        paced: N = counter("paced"),
        /// Time that entries waited in a shard's mailbox; one observation for each batch of a channel and
        /// each shard. The first bucket means practically no wait.
        mailbox_wait: Timing<N> = histogram("mailbox_wait_seconds"),
        /// Time from when the log had accepted entries of this node, or they were received from another
        /// one, until a shard had handed them to the kernel for all its subscribers; one observation for
        /// each batch of a channel and each shard. Time in the outbox of a slow reader does not count.
        delivery_duration: Timing<N> = histogram("delivery_seconds"),
        /// Time from when a client began to catch up until it had.
        replay_duration: Timing<N> = histogram("replay_seconds"),
        /// Panics (bugs) that ended one connection; everything else continued.
        panics: N = counter("panics", where = "connection"),
    }

    /// Waiting messages that were never sent.
    pub struct DroppedMessages<N> {
        /// Messages that waited for a client whose connection was closed because it read too slowly.
        slow_consumer: N = counter("messages_dropped", reason = "slow_consumer"),
        /// Messages that waited when a connection ended for another reason.
        connection_ended: N = counter("messages_dropped", reason = "connection_ended"),
    }
}

/// Ended connections that lasted longer than the previous bucket's bound, and at most this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct DurationBucket {
    /// The bucket's bound, in seconds.
    pub up_to_s: u64,
    /// How many connections.
    pub connections: u64,
}

words! {
    /// The condition of a connection.
    pub enum ConnectionHealth {
        /// It reads as fast as the gateway writes, and is not silent.
        Healthy = "healthy",
        /// Messages wait for it.
        Behind = "behind",
        /// The client has been silent for more than one and a half heartbeat intervals.
        Silent = "silent",
        /// It is being closed.
        Closing = "closing",
    }
}

words! {
    /// How a client is connected.
    pub enum TransportKind {
        /// By a WebSocket.
        WebSocket = "websocket",
        /// By a stream of server-sent events.
        Events = "events",
    }
}

/// An open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct ConnectionInfo {
    /// The id that `connection_established` names.
    pub connection_id: Uuid,
    /// The condition of the connection.
    pub health: Open<ConnectionHealth>,
    /// The channels that it is subscribed to.
    pub channels: Vec<String>,
    /// How long it has been open, in seconds.
    pub connected_s: u64,
    /// Seconds since anything was received from it; for an event stream, how long it has accepted nothing
    /// of what waits for it.
    pub last_heard_s_ago: u64,
    /// Text messages that it sent.
    pub messages_received: u64,
    /// Messages that wait for it.
    pub waiting_messages: usize,
    /// Bytes of the messages that wait for it.
    pub waiting_bytes: usize,
    /// How its client is connected.
    #[serde(default = "by_web_socket")]
    pub transport: Open<TransportKind>,
    /// The authenticated subject of its client, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// The default for answers of older gateways, which lack the field.
fn by_web_socket() -> Open<TransportKind> {
    TransportKind::WebSocket.into()
}

words! {
    /// The progress of a subscription.
    pub enum SubscriptionPhase {
        /// It catches up: older entries are read and sent.
        CatchingUp = "catching_up",
        /// Entries are sent as they arrive.
        Live = "live",
        /// Everything was sent, and nothing more will follow.
        Finished = "finished",
    }
}

/// A subscription of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct SubscriptionInfo {
    /// The channel.
    pub channel: String,
    /// The progress of the subscription.
    pub phase: Open<SubscriptionPhase>,
    /// The epoch that it reads; absent until it has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The newest offset that it was sent or had already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// `GET /ws/stats/{connection}`: everything known about an open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct ConnectionStory {
    /// The fields that lists have too.
    #[serde(flatten)]
    pub info: ConnectionInfo,
    /// The node that serves it.
    pub node: String,
    /// When it was opened.
    pub connected_at: DateTime<Utc>,
    /// The client's address, or its network; absent if a proxy does not pass it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The channel of the order that it was opened on; it ends with that order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_on: Option<String>,
    /// When its client's token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<DateTime<Utc>>,
    /// The rights of its client; absent if authentication is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<String>>,
    /// Whether channels slow down for it, because it reads too slowly.
    pub waited_for: bool,
    /// The reason of the close code, if it is being closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closing: Option<String>,
    /// Its subscriptions and their progress.
    pub subscriptions: Vec<SubscriptionInfo>,
}
