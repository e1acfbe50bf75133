//! What the gateway says to clients over the WebSocket.

use chrono::{DateTime, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::open::words;
use crate::{
    BackendName, BackendState, ChannelName, CloseCode, EndCode, EntryKind, EntryMessage, Epoch, ErrorCode,
    Fields, Open, OrderId, RequestId,
};

/// A message from the gateway. Field order is part of the snapshot in `tests/fixtures/protocol`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub enum ServerMessage {
    /// First message of every connection that was not opened on an order.
    ConnectionEstablished(ConnectionEstablished),
    /// First message of a connection that was opened on an order.
    Connection(Connection),
    /// A channel's entries follow.
    Subscribed(Subscribed),
    /// All that the log had when the subscription was made has been sent.
    CaughtUp(CaughtUp),
    /// No more entries of a channel follow.
    Unsubscribed(Unsubscribed),
    /// The log behind a subscription changed its epoch, or entries are missing from it.
    Resync(Resync),
    /// The latest entry of each key has come.
    SnapshotEnd(SnapshotEnd),
    /// Sent at the announced interval.
    Heartbeat(Heartbeat),
    /// Answers `heartbeat`.
    HeartbeatAck(Answer),
    /// Answers `ping`.
    Pong(Answer),
    /// The storage changed how it serves.
    BackendState(BackendStateMessage),
    /// Something that the client asked for was not done.
    Error(ErrorMessage),
    /// The gateway is about to close this connection.
    Closing(Closing),
    /// Answers `auth`.
    Authenticated(Authenticated),
    /// The token that was shown expires soon: show a new one with `auth`.
    TokenExpiring(TokenExpiring),
    /// Answers `publish`: the log has all of it.
    Published(Published),
    /// A price, a removal, an update of an order: what has a place in a channel.
    #[serde(untagged)]
    Entry(EntryMessage),
    /// What only newer gateways say.
    #[serde(untagged)]
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[cfg_attr(feature = "ts", ts(skip))]
    Unknown(Unknown),
}

words! {
    /// Whether the gateway asks who one is.
    pub enum Authentication {
        /// A token must be shown.
        Required = "required",
        /// Some channels are there without one.
        Optional = "optional",
    }
}

/// Who one is, to the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Authenticated {
    /// The `id` of the request, when it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The subject of the token, or of the key.
    pub subject: String,
    /// When it expires; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The token that was shown expires soon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct TokenExpiring {
    /// When. The connection is closed then, unless another token was shown.
    pub expires_at: DateTime<Utc>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// All that was to be published is in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Published {
    /// The `id` of the request, when it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The channel.
    pub channel: ChannelName,
    /// How many entries.
    pub accepted: u64,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// First message of every connection that was not opened on an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct ConnectionEstablished {
    /// Names this connection in `/ws/stats` and in logs.
    pub connection_id: Uuid,
    /// The zone of `/ws/market/{zone}`; absent on `/ws`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub market_zone: Option<String>,
    /// Which storage serves.
    pub storage_backend: Open<BackendName>,
    /// How well it serves.
    pub state: Open<BackendState>,
    /// How often `heartbeat` comes, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Version of this protocol.
    pub protocol: u32,
    /// Whether the gateway asks who one is; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Open<Authentication>>,
    /// The subject of the token that came with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When that token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<DateTime<Utc>>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
    /// For people.
    pub message: String,
}

/// First message of a connection that was opened on an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Connection {
    /// Names this connection in `/ws/stats` and in logs.
    pub connection_id: Uuid,
    /// The order of `/ws/orders/{orderId}`.
    #[serde(rename = "orderId")]
    pub order_id: OrderId,
    /// Which storage serves.
    pub storage_backend: Open<BackendName>,
    /// How well it serves.
    pub state: Open<BackendState>,
    /// How often `heartbeat` comes, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Version of this protocol.
    pub protocol: u32,
    /// Whether the gateway asks who one is; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Open<Authentication>>,
    /// The subject of the token that came with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When that token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expires_at: Option<DateTime<Utc>>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
    /// For people.
    pub message: String,
}

/// A channel's entries follow, from just after `offset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Subscribed {
    /// The `id` of the request, when it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The channel.
    pub channel: ChannelName,
    /// The order whose channel it is.
    #[serde(rename = "orderId", skip_serializing_if = "Option::is_none")]
    pub order_id: Option<OrderId>,
    /// The life of the log that offsets belong to from here on.
    pub epoch: Epoch,
    /// Entries follow from the next offset on.
    pub offset: u64,
    /// The newest offset when the log was looked at; absent where the log goes on in another epoch,
    /// which `resync` says. Where it is not `offset`, what lies between comes first, and then
    /// `caught_up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<u64>,
    /// Whether nothing is missing between the position asked for and `offset`. Where none was
    /// asked for: true in a zone; in an order, whether all its updates are still kept.
    pub recovered: bool,
    /// How many entries after the position asked for are no longer kept; absent when that
    /// cannot be known, because the epoch is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<u64>,
    /// The latest entry of each key comes first.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "ts", ts(as = "Option<bool>", optional))]
    pub snapshot: bool,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
    /// How the order stands, for people; only in the channel of an order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// All that the log had when the subscription was made has been sent. Comes where that was something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct CaughtUp {
    /// The channel.
    pub channel: ChannelName,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// No more entries of this channel follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Unsubscribed {
    /// The `id` of the request, when it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The channel.
    pub channel: ChannelName,
    /// Why, where the gateway ended it by itself; absent in the answer to `unsubscribe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Open<EndCode>>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The log behind a subscription changed its epoch, or entries are missing from it. Entries
/// follow from just after `offset` of `epoch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Resync {
    /// The channel.
    pub channel: ChannelName,
    /// The epoch up to here.
    pub old_epoch: Epoch,
    /// The epoch from here on; the same as before when only a gap is said.
    pub epoch: Epoch,
    /// Entries follow from the next offset on.
    pub offset: u64,
    /// Whether nothing is missing.
    pub recovered: bool,
    /// How many entries are missing; absent when that cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<u64>,
    /// The latest entry of each key comes first, in place of what is missing.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "ts", ts(as = "Option<bool>", optional))]
    pub snapshot: bool,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The latest entry of each key has come, as they were at `offset` of `epoch`. Entries follow from just
/// after that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct SnapshotEnd {
    /// The channel.
    pub channel: ChannelName,
    /// The epoch from here on.
    pub epoch: Epoch,
    /// Entries follow from the next offset on.
    pub offset: u64,
    /// Whether they are all: else some could not be reached, and another snapshot comes when they can.
    pub recovered: bool,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// Sent at the announced interval, so that a browser, which hides protocol pings, can tell a
/// quiet connection from a dead one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Heartbeat {
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The storage changed how it serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct BackendStateMessage {
    /// Which storage serves.
    pub storage_backend: Open<BackendName>,
    /// How well it serves.
    pub state: Open<BackendState>,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Which channels are concerned: `all`, or `some`.
    pub scope: Open<Scope>,
    /// With `some`: those of this connection's subscriptions that are, as far as they find room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<ChannelName>>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "ts", ts(as = "Option<usize>", optional))]
    pub more_channels: usize,
    /// Why, for people; absent when healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// Something that the client asked for was not done. The connection goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct ErrorMessage {
    /// The `id` of the request, when it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// Stable name of the error.
    pub code: Open<ErrorCode>,
    /// Whether the request stands, and its final answer is yet to come.
    #[serde(default)]
    pub temporary: bool,
    /// When the same request may succeed, in milliseconds from now, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Of a `publish`, how many of its entries, from the front, are in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
    /// What was wrong and what would be right, for people.
    pub message: String,
    /// The channel concerned; where that is none, as the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The gateway is about to close this connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Closing {
    /// The close code that follows.
    pub code: u16,
    /// Its reason.
    pub reason: Open<CloseCode>,
    /// When to come back, in milliseconds from now; absent when one should not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The answer to a request that asked for nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct Answer {
    /// The `id` of the request, when it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

words! {
    /// Which channels a state of the storage is about.
    pub enum Scope {
        /// All.
        All = "all",
        /// Those of some primaries of a cluster; all others are served as ever.
        Some = "some",
    }
}

/// A message of a type that is not known here.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Unknown {
    /// Its type.
    #[serde(skip)]
    pub kind: String,
    /// All of it.
    pub fields: Fields,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
fn is_false(word: &bool) -> bool {
    !*word
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl ServerMessage {
    /// `closing` for a code, with a retry hint where coming back makes sense.
    pub fn closing(code: CloseCode, retry_after_ms: u64, timestamp: DateTime<Utc>) -> Self {
        let number = code.number();
        Self::Closing(Closing {
            code: number,
            reason: code.into(),
            retry_after_ms: CloseCode::may_reconnect(number).then_some(retry_after_ms),
            timestamp,
        })
    }

    /// The types that are known here, but for those of entries.
    pub const KINDS: [&'static str; 16] = [
        "connection_established",
        "connection",
        "subscribed",
        "caught_up",
        "unsubscribed",
        "resync",
        "snapshot_end",
        "heartbeat",
        "heartbeat_ack",
        "pong",
        "backend_state",
        "error",
        "closing",
        "authenticated",
        "token_expiring",
        "published",
    ];

    /// Its `type`.
    pub fn kind(&self) -> &str {
        match self {
            Self::ConnectionEstablished(_) => "connection_established",
            Self::Connection(_) => "connection",
            Self::Subscribed(_) => "subscribed",
            Self::CaughtUp(_) => "caught_up",
            Self::Unsubscribed(_) => "unsubscribed",
            Self::Resync(_) => "resync",
            Self::SnapshotEnd(_) => "snapshot_end",
            Self::Heartbeat(_) => "heartbeat",
            Self::HeartbeatAck(_) => "heartbeat_ack",
            Self::Pong(_) => "pong",
            Self::BackendState(_) => "backend_state",
            Self::Error(_) => "error",
            Self::Closing(_) => "closing",
            Self::Authenticated(_) => "authenticated",
            Self::TokenExpiring(_) => "token_expiring",
            Self::Published(_) => "published",
            Self::Entry(entry) => &entry.kind,
            Self::Unknown(unknown) => &unknown.kind,
        }
    }

    /// Reads a text message.
    ///
    /// # Errors
    /// It is no JSON object with a `type`, or one of a known type without what that has.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The message as JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of plain fields always serialises")
    }

    fn of_fields(fields: Fields) -> Result<Self, serde_json::Error> {
        let kind: Option<String> = fields.get("type");
        let kind = kind.ok_or_else(|| serde_json::Error::missing_field("type"))?;
        Ok(match kind.as_str() {
            "connection_established" => Self::ConnectionEstablished(fields.read()?),
            "connection" => Self::Connection(fields.read()?),
            "subscribed" => Self::Subscribed(fields.read()?),
            "caught_up" => Self::CaughtUp(fields.read()?),
            "unsubscribed" => Self::Unsubscribed(fields.read()?),
            "resync" => Self::Resync(fields.read()?),
            "snapshot_end" => Self::SnapshotEnd(fields.read()?),
            "heartbeat" => Self::Heartbeat(fields.read()?),
            "heartbeat_ack" => Self::HeartbeatAck(fields.read()?),
            "pong" => Self::Pong(fields.read()?),
            "backend_state" => Self::BackendState(fields.read()?),
            "error" => Self::Error(fields.read()?),
            "closing" => Self::Closing(fields.read()?),
            "authenticated" => Self::Authenticated(fields.read()?),
            "token_expiring" => Self::TokenExpiring(fields.read()?),
            "published" => Self::Published(fields.read()?),
            known if known == crate::SKIPPED || known.parse::<EntryKind>().is_ok() => {
                Self::Entry(EntryMessage::of_fields(fields)?)
            }
            // Where such a message has a place in a channel, it is an entry.
            _ => match EntryMessage::of_fields(fields.clone()) {
                Ok(entry) => Self::Entry(entry),
                Err(_) => Self::Unknown(Unknown { kind, fields }),
            },
        })
    }
}

impl<'de> Deserialize<'de> for ServerMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_fields(Fields::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ServerMessage {
        ServerMessage::read(text).unwrap()
    }

    #[test]
    fn what_newer_gateways_say_is_passed_over_or_kept() {
        let text = r#"{"type":"weather","channel":"zone:pjm","sun":true}"#;
        let ServerMessage::Unknown(unknown) = read(text) else { panic!("{text}") };
        assert_eq!((unknown.kind.as_str(), unknown.fields.get("sun")), ("weather", Some(true)));
        assert_eq!(serde_json::to_string(&unknown).unwrap(), text);

        let text = r#"{"type":"ticker","channel":"zone:pjm","offset":3,"id":"x-3","bid":1.50}"#;
        let ServerMessage::Entry(entry) = read(text) else { panic!("{text}") };
        assert_eq!((&*entry.kind, entry.offset, entry.is_terminal()), ("ticker", 3, false));
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);

        let text = r#"{"type":"unsubscribed","channel":"zone:pjm","code":"tired","timestamp":"2021-01-08T00:00:00Z","x":[]}"#;
        let ServerMessage::Unsubscribed(end) = read(text) else { panic!("{text}") };
        assert_eq!(end.code.unwrap().as_str(), "tired");
    }

    #[test]
    fn a_message_without_what_its_type_has_is_none() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"type":5}"#,
            r#"{"type":"pong"}"#,
            r#"{"type":"subscribed","channel":"zone:pjm"}"#,
            r#"{"type":"price_update","channel":"zone:pjm","price":1}"#,
            r#"{"type":"price_update","channel":"pjm","offset":1,"price":1}"#,
        ] {
            assert!(ServerMessage::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_entry_says_by_itself_whether_it_is_the_last_one() {
        let is_last = |kind: &str, more: &str| {
            let text = format!(r#"{{"type":"{kind}","channel":"zone:a","offset":1{more}}}"#);
            let ServerMessage::Entry(entry) = read(&text) else { panic!("{text}") };
            assert_eq!(serde_json::to_string(&entry).unwrap(), text);
            entry.is_terminal()
        };
        assert!(
            is_last("confirmed", "") && is_last("failed", "") && is_last("skipped", r#","terminal":true"#)
        );
        assert!(!is_last("routing", r#","terminal":true"#) && !is_last("skipped", "") && !is_last("x", ""));
    }
}
