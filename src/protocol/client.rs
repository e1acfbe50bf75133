//! What clients say to the gateway.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{ErrorCode, OrderedFields, check_json};
use crate::support::json::json_fault;

/// What a client calls a request: a string or a number, which comes back with each digit and escape as it
/// was written.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct RequestId(Arc<RawValue>);

impl RequestId {
    /// The longest one, as JSON text, in bytes.
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

/// A request for the entries of channels. Names and positions are as the client wrote them: each is
/// judged on its own, so that one bad name does not spoil the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// Comes back in the answers.
    pub id: Option<RequestId>,
    /// Names of channels.
    pub channels: Vec<String>,
    /// Where to resume, by channel name; channels without an entry start with what comes next.
    pub since: HashMap<String, Value>,
    /// The latest entry of each key is wanted first, of zones that are not resumed.
    pub snapshot: bool,
}

/// A message from a client. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ClientMessage {
    /// `subscribe` {id?, channels, since?, snapshot?}
    Subscribe(Subscribe),
    /// `unsubscribe` {id?, channels}
    Unsubscribe {
        /// Comes back in the answers.
        id: Option<RequestId>,
        /// Names of channels.
        channels: Vec<String>,
    },
    /// `heartbeat` {id?}: answered with `heartbeat_ack`.
    Heartbeat {
        /// Comes back in the answer.
        id: Option<RequestId>,
    },
    /// `heartbeat_ack`: the answer to our `heartbeat`, where a client sends one.
    HeartbeatAck,
    /// `ping` {id?}: answered with `pong`.
    Ping {
        /// Comes back in the answer.
        id: Option<RequestId>,
    },
}

/// A message that cannot be understood: which error to answer, and with what text.
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidMessage {
    /// The request's `id`, if that much was readable.
    pub id: Option<RequestId>,
    /// Sorts the error for the client.
    pub code: ErrorCode,
    /// What was wrong and what would be right.
    pub message: String,
}

impl ClientMessage {
    /// Reads one text message.
    ///
    /// # Errors
    /// Not JSON, not an object, an unknown `type`, or fields of the wrong shape; the error says
    /// which and what would be right.
    pub fn parse(text: &str) -> Result<Self, InvalidMessage> {
        let fail = |code, message: String| InvalidMessage { id: None, code, message };
        check_json(text)
            .map_err(|unreadable| fail(ErrorCode::InvalidJson, format!("the message is {unreadable}")))?;
        let fields = serde_json::from_str(text).map_err(|error: serde_json::Error| {
            if error.is_data() {
                let message = r#"expected an object such as {"type":"ping"}"#.to_owned();
                fail(ErrorCode::InvalidMessage, message)
            } else {
                fail(ErrorCode::InvalidJson, format!("the message is not JSON: {}", json_fault(text, &error)))
            }
        })?;
        let fields = Fields(fields);
        let id = fields.get("id").map(RequestId::read).transpose();
        let id = id.map_err(|message| fail(ErrorCode::InvalidMessage, message))?;
        Self::of_fields(&fields, id.as_ref()).map_err(|invalid| InvalidMessage { id, ..invalid })
    }

    fn of_fields(fields: &Fields<'_>, id: Option<&RequestId>) -> Result<Self, InvalidMessage> {
        let id = id.cloned();
        let kind: String = fields.read("type", "a string such as \"ping\"")?;
        let channels = || fields.read("channels", r#"a list such as ["zone:pjm"]"#);
        match kind.as_str() {
            "subscribe" => {
                let channels = channels()?;
                let since = match fields.get("since") {
                    Some(_) => {
                        fields.read("since", r#"an object such as {"zone:pjm":"<epoch>:<offset>"}"#)?
                    }
                    None => HashMap::new(),
                };
                let snapshot = match fields.get("snapshot") {
                    Some(_) => fields.read("snapshot", "true or false")?,
                    None => false,
                };
                Ok(Self::Subscribe(Subscribe { id, channels, since, snapshot }))
            }
            "unsubscribe" => Ok(Self::Unsubscribe { id, channels: channels()? }),
            "heartbeat" => Ok(Self::Heartbeat { id }),
            "heartbeat_ack" | "pong" => Ok(Self::HeartbeatAck),
            "ping" => Ok(Self::Ping { id }),
            other => {
                let shown: String = other.chars().take(32).collect();
                let message = format!(
                    "unknown type {shown:?}: expected subscribe, unsubscribe, heartbeat, heartbeat_ack or ping"
                );
                Err(InvalidMessage { id: None, code: ErrorCode::UnknownType, message })
            }
        }
    }
}

/// The fields of a message. One that is null is as good as none.
struct Fields<'a>(OrderedFields<'a>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&RawValue> {
        let found = self.0.0.iter().rev().find(|(field, _)| field == name);
        found.map(|(_, value)| *value).filter(|value| value.get() != "null")
    }

    /// What it must hold.
    fn read<T: DeserializeOwned>(&self, name: &str, expected: &str) -> Result<T, InvalidMessage> {
        let value = self.get(name).and_then(|value| serde_json::from_str(value.get()).ok());
        value.ok_or_else(|| InvalidMessage {
            id: None,
            code: ErrorCode::InvalidMessage,
            message: format!("`{name}` must be {expected}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            let ClientMessage::Ping { id: Some(id) } = ping else { panic!("{ping:?}") };
            assert_eq!(serde_json::to_string(&id).unwrap(), text);
        }
        for none in [r#"{"type":"ping"}"#, r#"{"type":"ping","id":null}"#] {
            assert_eq!(ClientMessage::parse(none), Ok(ClientMessage::Ping { id: None }));
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
            since: HashMap::from([("zone:pjm".to_owned(), json!({"epoch": "a", "offset": 4}))]),
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
}
