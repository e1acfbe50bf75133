//! Messages from the gateway to clients, over the WebSocket.

use chrono::{DateTime, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::open::words;
use crate::{
    BackendName, BackendState, ChannelName, CloseCode, EndCode, EntryKind, EntryMessage, Epoch, ErrorCode,
    Fields, Open, OrderId, RequestId,
};

/// A message from the gateway. The order of the fields is checked by the snapshots in
/// `tests/fixtures/protocol`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub enum ServerMessage {
    /// The first message on every connection that was not opened on an order.
    ConnectionEstablished(ConnectionEstablished),
    /// The first message on a connection that was opened on an order.
    Connection(Connection),
    /// Entries of a channel follow.
    Subscribed(Subscribed),
    /// Everything that the log had when the subscription was made has been sent.
    CaughtUp(CaughtUp),
    /// No more entries of a channel follow.
    Unsubscribed(Unsubscribed),
    /// The log of a subscription changed its epoch, or entries are missing.
    Resync(Resync),
    /// The snapshot is complete.
    SnapshotEnd(SnapshotEnd),
    /// Sent at the announced interval.
    Heartbeat(Heartbeat),
    /// Answers `heartbeat`.
    HeartbeatAck(Answer),
    /// Answers `ping`.
    Pong(Answer),
    /// The state of the storage changed.
    BackendState(BackendStateMessage),
    /// Something that the client asked for was not done.
    Error(ErrorMessage),
    /// The gateway is about to close this connection.
    Closing(Closing),
    /// Answers `auth`.
    Authenticated(Authenticated),
    /// The client's token expires soon; the client should send a new one with `auth`.
    TokenExpiring(TokenExpiring),
    /// Answers `publish`: the log has all entries.
    Published(Published),
    /// An entry: a price, a removal, an order update, or another one with an offset in a channel.
    #[serde(untagged)]
    Entry(EntryMessage),
    /// A message that only newer gateways send.
    #[serde(untagged)]
    #[cfg_attr(feature = "schema", schemars(skip), ts(skip))]
    Unknown(Unknown),
}

words! {
    /// Whether clients need a token.
    pub enum Authentication {
        /// A token is required.
        Required = "required",
        /// Some channels are accessible without a token.
        Optional = "optional",
    }
}

/// The gateway accepted the client's token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Authenticated {
    /// The `id` of the request, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The subject of the token, or of the API key.
    pub subject: String,
    /// When the token expires; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The client's token expires soon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct TokenExpiring {
    /// When it expires. The connection is closed then, unless the client has sent another token.
    pub expires_at: DateTime<Utc>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// Everything that was to be published is in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Published {
    /// The `id` of the request, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The channel.
    pub channel: ChannelName,
    /// How many entries were published.
    pub accepted: u64,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// Defines the first message on a connection: what it was opened on, and what every first message says.
macro_rules! first_message {
    ($(#[$about:meta])+ $name:ident { $($opened_on:tt)* }) => {
        $(#[$about])+
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
        pub struct $name {
            /// Identifies this connection in `/ws/stats` and in logs.
            pub connection_id: Uuid,
            $($opened_on)*
            /// Which storage serves.
            pub storage_backend: Open<BackendName>,
            /// The state of the storage.
            pub state: Open<BackendState>,
            /// The interval between `heartbeat` messages, in milliseconds.
            pub heartbeat_interval_ms: u64,
            /// The version of this protocol.
            pub protocol: u32,
            /// Whether clients need a token; absent if authentication is off.
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
            /// A greeting for people.
            pub message: String,
        }
    };
}

first_message! {
    /// The first message on every connection that was not opened on an order.
    ConnectionEstablished {
        /// The zone of `/ws/market/{zone}`; absent on `/ws`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub market_zone: Option<String>,
    }
}

first_message! {
    /// The first message on a connection that was opened on an order.
    Connection {
        /// The order of `/ws/orders/{orderId}`.
        #[serde(rename = "orderId")]
        pub order_id: OrderId,
    }
}

/// Entries of a channel follow, starting after `offset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Subscribed {
    /// The `id` of the request, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The channel.
    pub channel: ChannelName,
    /// The order whose channel it is.
    #[serde(rename = "orderId", skip_serializing_if = "Option::is_none")]
    pub order_id: Option<OrderId>,
    /// The epoch of the offsets from here on.
    pub epoch: Epoch,
    /// The next entry has a greater offset than this.
    pub offset: u64,
    /// The newest offset when the gateway looked at the log; absent if the log continues in another epoch,
    /// which `resync` announces. If it differs from `offset`, the entries in between come first, and then
    /// `caught_up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<u64>,
    /// Whether nothing is missing between the requested position and `offset`. Without a requested position: true
    /// for a zone; for an order, whether the log still has all its updates.
    pub recovered: bool,
    /// How many entries after the requested position the log no longer has; absent if that is unknown
    /// because the epoch is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<u64>,
    /// A snapshot comes first: the latest entry of each key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", ts(as = "Option<bool>", optional))]
    pub snapshot: bool,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
    /// The state of the order, for people; only in the channel of an order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Everything that the log had when the subscription was made has been sent. Not sent if there was nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct CaughtUp {
    /// The channel.
    pub channel: ChannelName,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// No more entries of this channel follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Unsubscribed {
    /// The `id` of the request, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The channel.
    pub channel: ChannelName,
    /// Why the gateway ended the subscription; absent in the answer to `unsubscribe`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Open<EndCode>>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The log of a subscription changed its epoch, or entries are missing. Entries of `epoch` follow, starting
/// after `offset`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Resync {
    /// The channel.
    pub channel: ChannelName,
    /// The epoch before this message.
    pub old_epoch: Epoch,
    /// The epoch from here on; unchanged if the message only reports a gap.
    pub epoch: Epoch,
    /// The next entry has a greater offset than this.
    pub offset: u64,
    /// Whether nothing is missing.
    pub recovered: bool,
    /// How many entries are missing; absent if that is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<u64>,
    /// A snapshot comes first, in place of what is missing: the latest entry of each key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "schema", ts(as = "Option<bool>", optional))]
    pub snapshot: bool,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The snapshot is complete: the latest entries of the keys as of `offset` in `epoch`. Entries follow,
/// starting after that offset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct SnapshotEnd {
    /// The channel.
    pub channel: ChannelName,
    /// The epoch from here on.
    pub epoch: Epoch,
    /// The next entry has a greater offset than this.
    pub offset: u64,
    /// Whether the snapshot has all keys. Otherwise some entries could not be reached, and another snapshot
    /// follows when they can.
    pub recovered: bool,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// Sent at the announced interval. Browsers hide protocol pings from pages; this lets a page tell a quiet
/// connection from a dead one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Heartbeat {
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The state of the storage changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct BackendStateMessage {
    /// Which storage serves.
    pub storage_backend: Open<BackendName>,
    /// The state of the storage.
    pub state: Open<BackendState>,
    /// When this state began.
    pub since: DateTime<Utc>,
    /// Which channels are affected: `all` or `some`.
    pub scope: Open<Scope>,
    /// If `scope` is `some`: the affected channels among this connection's subscriptions, as far as they
    /// fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<ChannelName>>,
    /// How many more of its subscriptions are affected.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cfg_attr(feature = "schema", ts(as = "Option<usize>", optional))]
    pub more_channels: usize,
    /// Why, for people; absent when healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// Something that the client asked for was not done. The connection stays open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct ErrorMessage {
    /// The `id` of the request, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The stable code of the error.
    pub code: Open<ErrorCode>,
    /// Whether the request stays in effect and its final answer is still to come.
    #[serde(default)]
    pub temporary: bool,
    /// After how many milliseconds the same request may succeed, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// For `publish`: how many entries, from the first one on, are in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
    /// What was wrong and what would be right, for people.
    pub message: String,
    /// The affected channel; if its name is invalid, as the client wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The gateway is about to close this connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Closing {
    /// The code of the close frame that follows.
    pub code: u16,
    /// The reason that belongs to the code.
    pub reason: Open<CloseCode>,
    /// After how many milliseconds to reconnect; absent if the client should not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

/// The answer to a request without content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Answer {
    /// The `id` of the request, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// When it was sent.
    pub timestamp: DateTime<Utc>,
}

words! {
    /// Which channels a state of the storage affects.
    pub enum Scope {
        /// All.
        All = "all",
        /// Those of some primaries of a cluster; the others are served as usual.
        Some = "some",
    }
}

/// A message of a type that this version does not know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Unknown {
    /// Its type.
    #[serde(skip)]
    pub kind: String,
    /// The message as a whole.
    pub fields: Fields,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl ServerMessage {
    /// `closing` for a code, with a retry hint if reconnecting makes sense.
    pub fn closing(code: CloseCode, retry_after_ms: u64, timestamp: DateTime<Utc>) -> Self {
        let number = code.number();
        Self::Closing(Closing {
            code: number,
            reason: code.into(),
            retry_after_ms: CloseCode::may_reconnect(number).then_some(retry_after_ms),
            timestamp,
        })
    }

    /// Parses a text message.
    ///
    /// # Errors
    /// The text is not a JSON object with a `type`, or its `type` is known and its fields do not
    /// fit.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The message as JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of plain fields always serialises")
    }
}

/// Names the type of each message, except those of entries.
macro_rules! kinds {
    ($($variant:ident = $kind:literal,)+) => {
        impl ServerMessage {
            /// The known message types, except those of entries.
            pub const KINDS: [&'static str; [$($kind),+].len()] = [$($kind),+];

            /// Its `type`.
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $kind,)+
                    Self::Entry(entry) => &entry.kind,
                    Self::Unknown(unknown) => &unknown.kind,
                }
            }

            fn of_fields(fields: Fields) -> Result<Self, serde_json::Error> {
                let kind: Option<String> = fields.get("type");
                let kind = kind.ok_or_else(|| serde_json::Error::missing_field("type"))?;
                Ok(match kind.as_str() {
                    $($kind => Self::$variant(fields.read()?),)+
                    known if known == crate::SKIPPED || known.parse::<EntryKind>().is_ok() => {
                        Self::Entry(EntryMessage::of_fields(fields)?)
                    }
                    // A message of an unknown type that has an offset in a channel is an entry.
                    _ => match EntryMessage::of_fields(fields.clone()) {
                        Ok(entry) => Self::Entry(entry),
                        Err(_) => Self::Unknown(Unknown { kind, fields }),
                    },
                })
            }
        }
    };
}

kinds! {
    ConnectionEstablished = "connection_established",
    Connection = "connection",
    Subscribed = "subscribed",
    CaughtUp = "caught_up",
    Unsubscribed = "unsubscribed",
    Resync = "resync",
    SnapshotEnd = "snapshot_end",
    Heartbeat = "heartbeat",
    HeartbeatAck = "heartbeat_ack",
    Pong = "pong",
    BackendState = "backend_state",
    Error = "error",
    Closing = "closing",
    Authenticated = "authenticated",
    TokenExpiring = "token_expiring",
    Published = "published",
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
