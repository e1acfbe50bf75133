//! Messages from clients to the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fields::read_fields;
use crate::json::{check_json, json_fault};
use crate::text::described;
use crate::{ErrorCode, OrderedFields, Position};

/// A client's name for a request: a string or a number, which the gateway returns exactly as it was
/// written.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(ts_rs::TS), ts(type = "string | number"))]
pub struct RequestId(Arc<RawValue>);

impl RequestId {
    /// The longest id, in bytes of JSON text.
    pub const LEN_MAX: usize = 128;

    fn read(value: &RawValue) -> Result<Self, String> {
        if !value.get().starts_with(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
            return Err("`id` must be a string or a number".to_owned());
        }
        if value.get().len() > Self::LEN_MAX {
            return Err(format!("`id` is longer than {} bytes", Self::LEN_MAX));
        }
        Ok(Self(value.to_owned().into()))
    }

    /// As JSON.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl From<u64> for RequestId {
    fn from(number: u64) -> Self {
        Self(RawValue::from_string(number.to_string()).expect("digits are JSON").into())
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&Box::<RawValue>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

described!(RequestId, {
    "type": ["string", "number"],
    "description": "A client's name for a request, at most 128 bytes of JSON; the gateway returns it as it was written.",
});

/// Where to resume a channel, as the client wrote it. Each position is checked separately, so an invalid
/// one does not affect other channels.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub enum Since {
    /// A valid position; also accepted as a text, `<epoch>:<offset>`.
    At(Position),
    /// Anything that is not a position.
    #[cfg_attr(feature = "schema", schemars(with = "String"), ts(type = "string"))]
    Unreadable(Value),
}

impl<'de> Deserialize<'de> for Since {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let position = match &value {
            Value::String(text) => text.parse().ok(),
            other => Position::deserialize(other).ok(),
        };
        Ok(position.map_or(Self::Unreadable(value), Self::At))
    }
}

/// A request to follow channels. Names are as the client wrote them; each is checked separately.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Subscribe {
    /// The gateway repeats it in its answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// Names of channels.
    #[serde(deserialize_with = "channels")]
    pub channels: Vec<String>,
    /// Where to resume, by channel name; other channels start with the next entry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "since")]
    #[cfg_attr(feature = "schema", ts(as = "Option<BTreeMap<String, Option<Since>>>", optional))]
    pub since: BTreeMap<String, Option<Since>>,
    /// Whether zones that are not resumed start with the latest entry of each key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "snapshot")]
    #[cfg_attr(feature = "schema", ts(as = "Option<bool>", optional))]
    pub snapshot: bool,
}

impl Subscribe {
    /// A request to follow these channels, starting with the next entry.
    pub fn to(channels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { channels: channels.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// A request to stop following channels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Unsubscribe {
    /// The gateway repeats it in its answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// Names of channels.
    #[serde(deserialize_with = "channels")]
    pub channels: Vec<String>,
}

/// A price or an event as its publisher wrote it: an object.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(ts_rs::TS), ts(type = "Record<string, unknown>"))]
pub struct RawEntry(Box<RawValue>);

impl RawEntry {
    /// As JSON.
    pub fn as_json(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for RawEntry {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl<'de> Deserialize<'de> for RawEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self)
    }
}

described!(RawEntry, {
    "type": "object",
    "description": "A price or an event as its publisher wrote it.",
    "additionalProperties": true,
});

/// Entries to publish to a channel. They are parsed as over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Publish {
    /// The gateway repeats it in its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The channel of a zone or of a type of events.
    #[serde(deserialize_with = "channel")]
    pub channel: String,
    /// Prices or events. On the wire, `events` is accepted as a name for this field too.
    #[serde(deserialize_with = "entries")]
    pub entries: Vec<RawEntry>,
}

/// A message without content, such as `ping`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Bare {
    /// The gateway repeats it in its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
}

/// A credential: a token or an API key. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(type = "string"))]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Authenticates the client, or replaces its token before that expires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct Auth {
    /// The gateway repeats it in its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<RequestId>,
    /// The token.
    #[serde(deserialize_with = "token")]
    pub token: Token,
}

/// A message from a client. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub enum ClientMessage {
    /// Answered for each channel with `subscribed` or `error`.
    Subscribe(Subscribe),
    /// Answered for each channel with `unsubscribed` or `error`.
    Unsubscribe(Unsubscribe),
    /// Answered with `heartbeat_ack`.
    Heartbeat(Bare),
    /// The client's answer to the gateway's `heartbeat`, for clients that send one; `pong` is accepted too.
    HeartbeatAck(Bare),
    /// Answered with `pong`.
    Ping(Bare),
    /// Answered with `authenticated` or `error`.
    Auth(Auth),
    /// Answered with `published` or `error`, in the order in which the client sent these messages.
    Publish(Publish),
}

/// A message that could not be parsed: the error code and the text to answer with.
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidMessage {
    /// The request's `id`, if it could be read.
    pub id: Option<RequestId>,
    /// The code of the error.
    pub code: ErrorCode,
    /// What was wrong and what would be right.
    pub message: String,
}

impl ClientMessage {
    /// Reads one text message.
    ///
    /// # Errors
    /// The text is not JSON or not an object, `type` is unknown, or a field has the wrong shape;
    /// the error says which, and what would be right.
    pub fn parse(text: &str) -> Result<Self, InvalidMessage> {
        let fail = |code, message: String| InvalidMessage { id: None, code, message };
        check_json(text)
            .map_err(|unreadable| fail(ErrorCode::InvalidJson, format!("the message is {unreadable}")))?;
        let OrderedFields(fields) = serde_json::from_str(text).map_err(|error: serde_json::Error| {
            if error.is_data() {
                let message = r#"expected an object such as {"type":"ping"}"#.to_owned();
                fail(ErrorCode::InvalidMessage, message)
            } else {
                fail(ErrorCode::InvalidJson, format!("the message is not JSON: {}", json_fault(text, &error)))
            }
        })?;
        let fields = LastOfEach(fields);
        let id = fields.get("id").map(RequestId::read).transpose();
        let id = id.map_err(|message| fail(ErrorCode::InvalidMessage, message))?;
        Self::of_fields(&fields).map_err(|(code, message)| InvalidMessage { id, code, message })
    }

    fn of_fields(fields: &LastOfEach<'_>) -> Result<Self, (ErrorCode, String)> {
        let kind = fields.get("type").and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
        let kind = kind.ok_or_else(|| (ErrorCode::InvalidMessage, must_be("type")))?;
        let read = match kind.as_str() {
            "subscribe" => fields.read().map(Self::Subscribe),
            "unsubscribe" => fields.read().map(Self::Unsubscribe),
            "heartbeat" => fields.read().map(Self::Heartbeat),
            "heartbeat_ack" | "pong" => fields.read().map(Self::HeartbeatAck),
            "ping" => fields.read().map(Self::Ping),
            "auth" => fields.read().map(Self::Auth),
            "publish" => fields.read().map(Self::Publish),
            other => {
                let shown: String = other.chars().take(32).collect();
                let message = format!(
                    "unknown type {shown:?}: expected subscribe, unsubscribe, publish, heartbeat, heartbeat_ack, ping or auth"
                );
                return Err((ErrorCode::UnknownType, message));
            }
        };
        read.map_err(|message| (ErrorCode::InvalidMessage, message))
    }

    /// The message as JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of plain fields always serialises")
    }
}

impl<'de> Deserialize<'de> for ClientMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(text.get()).map_err(|invalid| D::Error::custom(invalid.message))
    }
}

/// The fields of a message. If a name occurs twice, the last one counts; null counts as absent.
struct LastOfEach<'a>(Vec<(String, &'a RawValue)>);

impl LastOfEach<'_> {
    fn get(&self, name: &str) -> Option<&RawValue> {
        let found = self.0.iter().rev().find(|(field, _)| field == name);
        found.map(|(_, value)| *value).filter(|value| value.get() != "null")
    }

    /// Deserializes the fields; the error says which one is wrong.
    fn read<T: DeserializeOwned>(&self) -> Result<T, String> {
        let known = ["id", "channels", "since", "snapshot", "token", "channel", "entries"];
        let get = |name| match name {
            "entries" => self.get(name).or_else(|| self.get("events")),
            name => self.get(name),
        };
        read_fields(known.into_iter().filter_map(|name| Some((name, get(name)?)))).map_err(|error| {
            let text = error.to_string();
            let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            missing.map(must_be).unwrap_or(text)
        })
    }
}

/// The error text for a field of the wrong shape.
fn must_be(field: &str) -> String {
    let expected = match field {
        "type" => r#"a string such as "ping""#,
        "channels" => r#"a list such as ["zone:pjm"]"#,
        "since" => r#"an object such as {"zone:pjm":"<epoch>:<offset>"}"#,
        "snapshot" => "true or false",
        "channel" => r#"the name of a channel, such as "zone:pjm" or "event:ticker""#,
        "entries" => r#"a list of objects such as [{"key":"WESTERN HUB","price":31.5}]"#,
        "token" => "a text, as in {\"type\":\"auth\",\"token\":\"…\"}",
        _ => "there",
    };
    format!("`{field}` must be {expected}")
}

fn field<'de, T: Deserialize<'de>, D: Deserializer<'de>>(name: &str, from: D) -> Result<T, D::Error> {
    T::deserialize(from).map_err(|_error| D::Error::custom(must_be(name)))
}

macro_rules! fields {
    ($($name:ident: $type:ty,)+) => {$(
        fn $name<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
            field(stringify!($name), from)
        }
    )+};
}

fields! {
    channels: Vec<String>,
    since: BTreeMap<String, Option<Since>>,
    channel: String,
    entries: Vec<RawEntry>,
    token: Token,
    snapshot: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> RequestId {
        RequestId::read(serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn an_id_comes_back_as_it_was_written() {
        for text in [
            "7",
            "-0",
            "1.50",
            "123456789012345678901234567890",
            "1e2",
            r#""a b""#,
            r#""\u00e9\/é""#,
            r#""""#,
        ] {
            let ping = ClientMessage::parse(&format!(r#"{{"type":"ping","id": {text} }}"#)).unwrap();
            let ClientMessage::Ping(Bare { id: Some(id) }) = ping else { panic!("{ping:?}") };
            assert_eq!(serde_json::to_string(&id).unwrap(), text);
        }
        for none in [r#"{"type":"ping"}"#, r#"{"type":"ping","id":null}"#] {
            assert_eq!(ClientMessage::parse(none), Ok(ClientMessage::Ping(Bare { id: None })));
        }
        let long = format!(r#"{{"type":"ping","id":{}}}"#, "1".repeat(129));
        for text in [r#"{"type":"ping","id":true}"#, r#"{"type":"ping","id":[1]}"#, &long] {
            let error = ClientMessage::parse(text).unwrap_err();
            assert_eq!((error.code, error.id), (ErrorCode::InvalidMessage, None), "{text}");
        }
    }

    #[test]
    fn a_subscribe_carries_its_id_channels_and_positions() {
        let text = r#"{"type":"subscribe","id":1,"channels":["zone:pjm"],"since":{"zone:pjm":{"epoch":"a","offset":4}},"x":0}"#;
        let expected = Subscribe {
            id: Some(id("1")),
            channels: vec!["zone:pjm".to_owned()],
            since: BTreeMap::from([("zone:pjm".to_owned(), Some(Since::At("a:4".parse().unwrap())))]),
            snapshot: false,
        };
        assert_eq!(ClientMessage::parse(text), Ok(ClientMessage::Subscribe(expected)));
    }

    #[test]
    fn each_bad_message_gets_its_code_and_keeps_its_id() {
        for (text, code, id) in [
            ("{", ErrorCode::InvalidJson, None),
            ("", ErrorCode::InvalidJson, None),
            ("[]", ErrorCode::InvalidMessage, None),
            ("{}", ErrorCode::InvalidMessage, None),
            (r#"{"type":5,"id":"a"}"#, ErrorCode::InvalidMessage, Some(id(r#""a""#))),
            (r#"{"type":"subscribe","id":7}"#, ErrorCode::InvalidMessage, Some(id("7"))),
            (r#"{"type":"subscribe","channels":[1]}"#, ErrorCode::InvalidMessage, None),
            (r#"{"type":"subscribe","channels":[],"snapshot":1}"#, ErrorCode::InvalidMessage, None),
            (r#"{"type":"ping","id":{}}"#, ErrorCode::InvalidMessage, None),
            (r#"{"type":"dance","id":2}"#, ErrorCode::UnknownType, Some(id("2"))),
            (r#"{"type":"subscribe","channels":null}"#, ErrorCode::InvalidMessage, None),
        ] {
            let error = ClientMessage::parse(text).unwrap_err();
            assert_eq!((error.code, error.id), (code, id), "{text}");
        }
    }

    #[test]
    fn what_a_field_must_be_is_said() {
        for (text, expected) in [
            ("{", "the message is not JSON: it ends too early"),
            (
                r#"{"type":"ping","x":"\ud800"}"#,
                "the message is lone surrogate at byte 20: `\\ud800` to `\\udfff` are halves of one character and stand in pairs, such as `\\ud83d\\ude00`",
            ),
            ("5", r#"expected an object such as {"type":"ping"}"#),
            (r#"{"type":null}"#, r#"`type` must be a string such as "ping""#),
            (r#"{"type":"ping","id":[]}"#, "`id` must be a string or a number"),
            (r#"{"type":"subscribe"}"#, r#"`channels` must be a list such as ["zone:pjm"]"#),
            (
                r#"{"type":"subscribe","channels":"zone:pjm"}"#,
                r#"`channels` must be a list such as ["zone:pjm"]"#,
            ),
            (
                r#"{"type":"unsubscribe","channels":[null]}"#,
                r#"`channels` must be a list such as ["zone:pjm"]"#,
            ),
            (
                r#"{"type":"subscribe","channels":[],"since":"e:1"}"#,
                r#"`since` must be an object such as {"zone:pjm":"<epoch>:<offset>"}"#,
            ),
            (r#"{"type":"subscribe","channels":[],"snapshot":0}"#, "`snapshot` must be true or false"),
            (
                r#"{"type":"dance"}"#,
                r#"unknown type "dance": expected subscribe, unsubscribe, publish, heartbeat, heartbeat_ack, ping or auth"#,
            ),
        ] {
            assert_eq!(ClientMessage::parse(text).unwrap_err().message, expected, "{text}");
        }
    }

    #[test]
    fn of_a_name_that_is_there_twice_the_last_one_counts() {
        for (text, expected) in [
            (r#"{"type":"dance","type":"ping","id":1,"id":2,"x":1,"x":2}"#, Some(id("2"))),
            (r#"{"type":"ping","id":1,"id":null}"#, None),
            (r#"{"type":"ping","id":{},"id":null}"#, None),
        ] {
            assert_eq!(ClientMessage::parse(text), Ok(ClientMessage::Ping(Bare { id: expected })), "{text}");
        }
    }

    #[test]
    fn what_is_published_keeps_its_digits() {
        for name in ["entries", "events"] {
            let text =
                format!(r#"{{"type":"publish","id":1,"channel":"zone:a","{name}":[{{"price": 1.50}},7]}}"#);
            let Ok(ClientMessage::Publish(Publish { channel, entries, .. })) = ClientMessage::parse(&text)
            else {
                panic!("{text}")
            };
            let entries: Vec<&str> = entries.iter().map(RawEntry::as_json).collect();
            assert_eq!((channel.as_str(), entries), ("zone:a", vec![r#"{"price": 1.50}"#, "7"]));
        }
        for (text, expected) in [
            (r#"{"type":"publish","entries":[]}"#, "`channel` must be the name of a channel"),
            (r#"{"type":"publish","channel":"zone:a"}"#, "`entries` must be a list of objects"),
            (r#"{"type":"publish","channel":"zone:a","entries":{}}"#, "`entries` must be a list of objects"),
        ] {
            let message = ClientMessage::parse(text).unwrap_err().message;
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_position_that_is_none_is_kept_for_the_answer() {
        let text = r#"{"type":"subscribe","channels":["a"],"since":{"a":5,"b":"e:7","c":{"epoch":"e","offset":-1},"d":null}}"#;
        let Ok(ClientMessage::Subscribe(Subscribe { since, .. })) = ClientMessage::parse(text) else {
            panic!()
        };
        assert_eq!(since["a"], Some(Since::Unreadable(Value::from(5))));
        assert_eq!(since["b"], Some(Since::At("e:7".parse().unwrap())));
        assert!(matches!(since["c"], Some(Since::Unreadable(_))));
        assert_eq!(since["d"], None);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut subscribe = Subscribe::to(["zone:pjm", "zone:ercot"]);
        subscribe.id = Some(7.into());
        subscribe.since.insert("zone:pjm".to_owned(), Some(Since::At("e:5".parse().unwrap())));
        subscribe.snapshot = true;
        for message in [
            ClientMessage::Subscribe(subscribe),
            ClientMessage::Unsubscribe(Unsubscribe {
                id: Some(id(r#""a""#)),
                channels: vec!["zone:pjm".to_owned()],
            }),
            ClientMessage::Heartbeat(Bare::default()),
            ClientMessage::HeartbeatAck(Bare::default()),
            ClientMessage::Ping(Bare { id: Some(1.into()) }),
        ] {
            assert_eq!(ClientMessage::parse(&message.to_json()), Ok(message));
        }
    }

    /// Values that fields have, and such as they must not have.
    const VALUES: [&str; 24] = [
        r#""subscribe""#,
        r#""unsubscribe""#,
        r#""publish""#,
        r#""ping""#,
        r#""auth""#,
        r#""pong""#,
        r#""zone:a""#,
        r#"["zone:a","b\u0000*"]"#,
        r#"[]"#,
        r#"[{}]"#,
        r#"[{"key":"A","price":1e3},{"key":null}]"#,
        r#"{"zone:a":"e:7","b":5}"#,
        r#"{"zone:a":{"epoch":"e","offset":9}}"#,
        r#"{"zone:a":{"epoch":"","offset":-1},"zone:a":null}"#,
        "null",
        "true",
        "-0",
        "1.50",
        "1e308",
        "18446744073709551616",
        r#""\ud83d\ude00""#,
        r#""\ud83d""#,
        "[[[[[[1]]]]]]",
        "{",
    ];

    proptest! {
        #[test]
        fn any_message_is_read_or_refused_and_what_is_read_is_written_as_the_same(
            fields in prop::collection::vec(
                (
                    prop::sample::select(&["id", "channels", "since", "snapshot", "token", "channel", "entries", "x"][..]),
                    prop::sample::select(&VALUES[..]),
                ),
                0..8,
            ),
            kind in prop::sample::select(&VALUES[..8]),
        ) {
            let fields: String = fields.iter().map(|(name, value)| format!(r#","{name}":{value}"#)).collect();
            if let Ok(message) = ClientMessage::parse(&format!(r#"{{"type":{kind}{fields}}}"#)) {
                prop_assert_eq!(ClientMessage::parse(&message.to_json()), Ok(message));
            }
        }
    }
}
