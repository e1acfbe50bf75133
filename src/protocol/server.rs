//! What the gateway says to clients besides entries.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{CloseCode, RequestId};
use crate::model::{BackendName, BackendState, ChannelName, Epoch, OrderId};

/// Why something that a client asked for was not done. Stable: clients may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// The message is not JSON.
    InvalidJson,
    /// The message is JSON, but a field is missing or of the wrong type.
    InvalidMessage,
    /// `type` names no message of this protocol.
    UnknownType,
    /// A channel's name does not have the right form.
    InvalidChannel,
    /// A position does not have the right form.
    InvalidPosition,
    /// One subscription more than a connection may have.
    TooManySubscriptions,
    /// One zone more than the gateway keeps.
    TooManyZones,
    /// One order more than the gateway follows for subscribers.
    TooManyOrders,
    /// There is no such subscription.
    NotSubscribed,
    /// A later request for the same channel came before this one was answered.
    Superseded,
    /// The storage does not answer; the gateway goes on trying.
    StorageUnavailable,
}

impl ErrorCode {
    /// The name on the wire and as a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidMessage => "invalid_message",
            Self::UnknownType => "unknown_type",
            Self::InvalidChannel => "invalid_channel",
            Self::InvalidPosition => "invalid_position",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::TooManyZones => "too_many_zones",
            Self::TooManyOrders => "too_many_orders",
            Self::NotSubscribed => "not_subscribed",
            Self::Superseded => "superseded",
            Self::StorageUnavailable => "storage_unavailable",
        }
    }

    /// Whether the request stands, and its final answer is yet to come.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::StorageUnavailable)
    }
}

/// Why the gateway ended a subscription by itself. Stable: clients may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndCode {
    /// The order has ended, and all that is kept of it was sent.
    Finished,
}

/// A message from the gateway. Field order is part of the snapshot in `tests/fixtures/protocol`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServerMessage<'a> {
    /// First message of every connection that was not opened on an order.
    ConnectionEstablished {
        /// Names this connection in `/ws/stats` and in logs.
        connection_id: Uuid,
        /// The zone of `/ws/market/{zone}`; absent on `/ws`.
        #[serde(skip_serializing_if = "Option::is_none")]
        market_zone: Option<&'a str>,
        /// Which storage serves.
        storage_backend: BackendName,
        /// How well it serves.
        state: BackendState,
        /// How often `heartbeat` comes, in milliseconds.
        heartbeat_interval_ms: u64,
        /// Version of this protocol.
        protocol: u32,
        /// When it was sent.
        timestamp: DateTime<Utc>,
        /// For people.
        message: &'a str,
    },
    /// First message of a connection that was opened on an order.
    Connection {
        /// Names this connection in `/ws/stats` and in logs.
        connection_id: Uuid,
        /// The order of `/ws/orders/{orderId}`.
        #[serde(rename = "orderId")]
        order_id: OrderId,
        /// Which storage serves.
        storage_backend: BackendName,
        /// How well it serves.
        state: BackendState,
        /// How often `heartbeat` comes, in milliseconds.
        heartbeat_interval_ms: u64,
        /// Version of this protocol.
        protocol: u32,
        /// When it was sent.
        timestamp: DateTime<Utc>,
        /// For people.
        message: &'a str,
    },
    /// A channel's entries follow, from just after `offset`.
    Subscribed {
        /// The `id` of the request, when it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RequestId>,
        /// The channel.
        channel: &'a ChannelName,
        /// The order whose channel it is.
        #[serde(rename = "orderId", skip_serializing_if = "Option::is_none")]
        order_id: Option<OrderId>,
        /// The life of the log that offsets belong to from here on.
        epoch: &'a Epoch,
        /// Entries follow from the next offset on.
        offset: u64,
        /// The newest offset when the log was looked at; absent where the log goes on in another epoch,
        /// which `resync` says. Where it is not `offset`, what lies between comes first, and then
        /// `caught_up`.
        #[serde(skip_serializing_if = "Option::is_none")]
        top: Option<u64>,
        /// Whether nothing is missing between the position asked for and `offset`. Where none was
        /// asked for: true in a zone; in an order, whether all its updates are still kept.
        recovered: bool,
        /// How many entries after the position asked for are no longer kept; absent when that
        /// cannot be known, because the epoch is another.
        #[serde(skip_serializing_if = "Option::is_none")]
        gap: Option<u64>,
        /// The latest entry of each key comes first.
        #[serde(skip_serializing_if = "is_false")]
        snapshot: bool,
        /// When it was sent.
        timestamp: DateTime<Utc>,
        /// How the order stands, for people; only in the channel of an order.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    },
    /// All that the log had when the subscription was made has been sent. Comes where that was something.
    CaughtUp {
        /// The channel.
        channel: &'a ChannelName,
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
    /// No more entries of this channel follow.
    Unsubscribed {
        /// The `id` of the request, when it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RequestId>,
        /// The channel.
        channel: &'a ChannelName,
        /// Why, where the gateway ended it by itself; absent in the answer to `unsubscribe`.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<EndCode>,
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
    /// The log behind a subscription changed its epoch, or entries are missing from it. Entries
    /// follow from just after `offset` of `epoch`.
    Resync {
        /// The channel.
        channel: &'a ChannelName,
        /// The epoch up to here.
        old_epoch: &'a Epoch,
        /// The epoch from here on; the same as before when only a gap is said.
        epoch: &'a Epoch,
        /// Entries follow from the next offset on.
        offset: u64,
        /// Whether nothing is missing.
        recovered: bool,
        /// How many entries are missing; absent when that cannot be known.
        #[serde(skip_serializing_if = "Option::is_none")]
        gap: Option<u64>,
        /// The latest entry of each key comes first, in place of what is missing.
        #[serde(skip_serializing_if = "is_false")]
        snapshot: bool,
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
    /// The latest entry of each key has come, as they were at `offset` of `epoch`. Entries follow from just
    /// after that.
    SnapshotEnd {
        /// The channel.
        channel: &'a ChannelName,
        /// The epoch from here on.
        epoch: &'a Epoch,
        /// Entries follow from the next offset on.
        offset: u64,
        /// Whether they are all: else some could not be reached, and another snapshot comes when they can.
        recovered: bool,
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
    /// Sent at the announced interval, so that a browser, which hides protocol pings, can tell a
    /// quiet connection from a dead one.
    Heartbeat {
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
    /// Answers `heartbeat`.
    HeartbeatAck {
        /// The `id` of the request, when it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RequestId>,
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
    /// Answers `ping`.
    Pong {
        /// The `id` of the request, when it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RequestId>,
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
    /// The storage changed how it serves.
    BackendState {
        /// Which storage serves.
        storage_backend: BackendName,
        /// How well it serves.
        state: BackendState,
        /// Since when.
        since: DateTime<Utc>,
        /// Which channels are concerned: `all`, or `some`.
        scope: &'a str,
        /// With `some`: those of this connection's subscriptions that are, as far as they find room.
        #[serde(skip_serializing_if = "Option::is_none")]
        channels: Option<&'a [&'a ChannelName]>,
        /// How many more there are.
        #[serde(skip_serializing_if = "is_zero")]
        more_channels: usize,
        /// Why, for people; absent when healthy.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
    /// Something that the client asked for was not done. The connection goes on.
    Error {
        /// The `id` of the request, when it had one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RequestId>,
        /// Stable name of the error.
        code: ErrorCode,
        /// Whether the request stands, and its final answer is yet to come.
        temporary: bool,
        /// What was wrong and what would be right, for people.
        message: &'a str,
        /// The channel concerned; where that is none, as the client wrote it.
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<&'a str>,
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
    /// The gateway is about to close this connection.
    Closing {
        /// The close code that follows.
        code: u16,
        /// Its reason.
        reason: &'a str,
        /// When to come back, in milliseconds from now; absent when one should not.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// When it was sent.
        timestamp: DateTime<Utc>,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
fn is_false(word: &bool) -> bool {
    !*word
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl<'a> ServerMessage<'a> {
    /// `closing` for a code, with a retry hint where coming back makes sense.
    pub fn closing(code: CloseCode, retry_after_ms: u64, timestamp: DateTime<Utc>) -> Self {
        let number = code.number();
        Self::Closing {
            code: number,
            reason: code.reason(),
            retry_after_ms: CloseCode::may_reconnect(number).then_some(retry_after_ms),
            timestamp,
        }
    }

    /// The message as JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of plain fields always serialises")
    }
}
