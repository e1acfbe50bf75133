//! What is counted of WebSockets and what crosses them.

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
        /// Open WebSockets, and streams of events.
        open: u64 = gauge("connections"),
        /// Of these, streams of events.
        event_streams: u64 = gauge("event_streams"),
        /// WebSockets opened.
        total: u64 = counter("connections_opened"),
        /// WebSockets that have ended.
        total_disconnections: u64,
        /// Open ones by zone.
        by_zone: BTreeMap<String, usize>,
        /// WebSockets that have ended, by the reason of the close code.
        closed_by_reason: BTreeMap<String, u64> = counter("connections_closed", by reason),
        /// Connections refused by a limit: `full` (`connections.max`), `tcp` (`connections.tcp_max`),
        /// `address` (`connections.per_address_max`), `rate` (`connections.connects_per_s`).
        refused_by_limit: BTreeMap<String, u64> = counter("connections_refused", by limit),
        /// How long ended ones lasted, in seconds.
        average_duration_s: f64,
        /// For how long the one that is open longest has been so, in seconds.
        longest_open_s: u64,
        /// Ended ones by how long they lasted.
        durations: Vec<DurationBucket>,
    }

    /// What crossed WebSockets.
    pub struct MessagesView {
        /// Each by itself.
        #[serde(flatten)]
        counts: MessageCounts = of,
        /// Messages answered with `error`.
        errors: u64,
        /// In percent of those received.
        error_rate_percent: f64,
        /// Messages answered with `error`, by its code.
        errors_by_code: BTreeMap<String, u64> = counter("message_errors", by code),
        /// Pages that clients who catch up are given.
        #[serde(flatten)]
        pages: PageCounts = of,
        /// Bytes of these pages that wait for clients, or are kept for 2 s for others; past
        /// `channels.replay_bytes_max` pages are small.
        replay_bytes: usize = gauge("replay_bytes"),
    }

    /// What crossed WebSockets since the start.
    pub struct MessageCounts<N> {
        /// Messages whose last byte was handed to the kernel.
        sent: N = counter("messages_sent"),
        /// Text messages from clients.
        received: N = counter("messages_received"),
        /// Bytes from clients.
        bytes_received: N = counter("received_bytes"),
        /// Waiting messages that a newer one replaced.
        conflated: N = counter("messages_conflated"),
        /// Waiting messages that were never sent, by reason.
        dropped_by_reason: DroppedMessages<N> = of,
        /// Entries that clients published over their WebSockets.
        published: N = counter("messages_published"),
        /// Pages of the log that clients who catch up were given.
        replays: N = counter("replays"),
        /// Entries sent from the log.
        replayed: N = counter("replayed_entries"),
        /// Times that a client was sent the latest entry of each key, or began to be.
        snapshots: N = counter("snapshots"),
        /// Entries sent so.
        snapshot_entries: N = counter("snapshot_entries"),
        /// Times that a client was told of missing entries.
        gaps_told: N = counter("gaps_told"),
        /// Times that a channel waited for readers far behind.
        paced: N = counter("paced"),
        /// How long entries waited in a shard's mailbox; one observation for each batch of a channel and each
        /// shard. Those in the first bucket were taken as good as at once.
        mailbox_wait: Timing<N> = histogram("mailbox_wait_seconds"),
        /// From when the log had taken entries of this node, or they were heard from another one, until a
        /// shard had handed them to the kernel for all its subscribers; one observation for each batch of a
        /// channel and each shard. What waits for a reader that is behind is not in it.
        delivery_duration: Timing<N> = histogram("delivery_seconds"),
        /// From when a client began to be brought up to date until it was.
        replay_duration: Timing<N> = histogram("replay_seconds"),
        /// Panics (bugs) that ended one connection; everything else goes on.
        panics: N = counter("panics", where = "connection"),
    }

    /// Waiting messages that were never sent.
    pub struct DroppedMessages<N> {
        /// Messages that waited for a reader which was closed as too slow.
        slow_consumer: N = counter("messages_dropped", reason = "slow_consumer"),
        /// Messages that waited when a connection ended for another reason.
        connection_ended: N = counter("messages_dropped", reason = "connection_ended"),
    }
}

/// Ended connections that lasted longer than the bucket before, and at the most this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct DurationBucket {
    /// In seconds.
    pub up_to_s: u64,
    /// So many.
    pub connections: u64,
}

words! {
    /// How well a connection does.
    pub enum ConnectionHealth {
        /// It reads as fast as is written, and was heard from.
        Healthy = "healthy",
        /// Messages wait for it.
        Behind = "behind",
        /// Nothing was heard from it for more than a heartbeat interval and a half.
        Silent = "silent",
        /// Its close is under way.
        Closing = "closing",
    }
}

words! {
    /// How the client of a connection is reached.
    pub enum TransportKind {
        /// By a WebSocket.
        WebSocket = "websocket",
        /// By a stream of server-sent events.
        Events = "events",
    }
}

/// An open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct ConnectionInfo {
    /// As said in `connection_established`.
    pub connection_id: Uuid,
    /// How well it does.
    pub health: Open<ConnectionHealth>,
    /// What it is subscribed to.
    pub channels: Vec<String>,
    /// How long it has been open, in seconds.
    pub connected_s: u64,
    /// When anything was last heard from it, in seconds before now; of a stream of events, for how long it has
    /// taken nothing of what waits for it.
    pub last_heard_s_ago: u64,
    /// Text messages that it sent.
    pub messages_received: u64,
    /// Messages that wait for it.
    pub waiting_messages: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
    /// How its client is reached.
    #[serde(default = "by_web_socket")]
    pub transport: Open<TransportKind>,
    /// Who its client is, where that was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// What gateways have that do not say it.
fn by_web_socket() -> Open<TransportKind> {
    TransportKind::WebSocket.into()
}

words! {
    /// How far a subscription has come.
    pub enum SubscriptionPhase {
        /// It is brought up to date: what came before is read and sent.
        CatchingUp = "catching_up",
        /// Entries are sent as they come.
        Live = "live",
        /// Everything that there will ever be was sent.
        Finished = "finished",
    }
}

/// A subscription of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct SubscriptionInfo {
    /// To what.
    pub channel: String,
    /// How far it has come.
    pub phase: Open<SubscriptionPhase>,
    /// The life of the log that it reads; absent until it has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The newest offset of it that was sent, or had before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// `GET /ws/stats/{connection}`: all that is known of an open connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct ConnectionStory {
    /// As in the list.
    #[serde(flatten)]
    pub info: ConnectionInfo,
    /// Which process has it.
    pub node: String,
    /// When it was opened.
    pub connected_at: DateTime<Utc>,
    /// The address that it comes from, or the network of that; absent where a proxy does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The channel of the order that it was opened on, with which it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opened_on: Option<String>,
    /// When what its client has shown expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<DateTime<Utc>>,
    /// The rights of its client; absent where nobody is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<String>>,
    /// Channels wait for it, since it reads more slowly than they go.
    pub waited_for: bool,
    /// The reason of the close code, where its close is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closing: Option<String>,
    /// What it is subscribed to, and how far that has come.
    pub subscriptions: Vec<SubscriptionInfo>,
}
