//! What clients say to the gateway.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::{ErrorCode, check_json};

/// A request for the entries of channels. Names and positions are as the client wrote them: each is
/// judged on its own, so that one bad name does not spoil the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// Comes back in the answers.
    pub id: Option<Value>,
    /// Names of channels.
    pub channels: Vec<String>,
    /// Where to resume, by channel name; channels without an entry start with what comes next.
    pub since: HashMap<String, Value>,
}

/// A message from a client. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ClientMessage {
    /// `subscribe` {id?, channels, since?}
    Subscribe(Subscribe),
    /// `unsubscribe` {id?, channels}
    Unsubscribe {
        /// Comes back in the answers.
        id: Option<Value>,
        /// Names of channels.
        channels: Vec<String>,
    },
    /// `heartbeat` {id?}: answered with `heartbeat_ack`.
    Heartbeat {
        /// Comes back in the answer.
        id: Option<Value>,
    },
    /// `heartbeat_ack`: the answer to our `heartbeat`, where a client sends one.
    HeartbeatAck,
    /// `ping` {id?}: answered with `pong`.
    Ping {
        /// Comes back in the answer.
        id: Option<Value>,
    },
}

/// A message that cannot be understood: which error to answer, and with what text.
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidMessage {
    /// The request's `id`, if that much was readable.
    pub id: Option<Value>,
    /// Sorts the error for the client.
    pub code: ErrorCode,
    /// What was wrong and what would be right.
    pub message: String,
}

#[derive(Deserialize)]
struct Channels {
    channels: Vec<String>,
    #[serde(default)]
    since: HashMap<String, Value>,
}

/// The longest `id` that is sent back, as JSON text, in bytes.
const ID_LEN_MAX: usize = 128;

impl ClientMessage {
    /// Reads one text message.
    ///
    /// # Errors
    /// Not JSON, not an object, an unknown `type`, or fields of the wrong shape; the error says
    /// which and what would be right.
    pub fn parse(text: &str) -> Result<Self, InvalidMessage> {
        let fail = |id, code, message: String| InvalidMessage { id, code, message };
        let value: Value = serde_json::from_str(text).map_err(|error| {
            fail(None, ErrorCode::InvalidJson, format!("the message is not JSON: {error}"))
        })?;
        check_json(text).map_err(|unreadable| {
            fail(None, ErrorCode::InvalidJson, format!("the message is {unreadable}"))
        })?;
        let Value::Object(mut fields) = value else {
            let message = r#"expected an object such as {"type":"ping"}"#.to_owned();
            return Err(fail(None, ErrorCode::InvalidMessage, message));
        };
        let id = fields.remove("id").filter(|id| !id.is_null());
        let id = match id {
            Some(Value::Array(_) | Value::Object(_)) => {
                let message = "`id` must be a string or a number".to_owned();
                return Err(fail(None, ErrorCode::InvalidMessage, message));
            }
            Some(id) if id.to_string().len() > ID_LEN_MAX => {
                let message = format!("`id` is longer than {ID_LEN_MAX} bytes");
                return Err(fail(None, ErrorCode::InvalidMessage, message));
            }
            id => id,
        };
        let kind = match fields.remove("type") {
            Some(Value::String(kind)) => kind,
            _ => {
                let message = "`type` is missing or not a string".to_owned();
                return Err(fail(id, ErrorCode::InvalidMessage, message));
            }
        };
        let channels = |fields| {
            serde_json::from_value::<Channels>(Value::Object(fields)).map_err(|error| {
                let message = format!(r#"expected {{"channels":["zone:pjm"]}}: {error}"#);
                fail(id.clone(), ErrorCode::InvalidMessage, message)
            })
        };
        match kind.as_str() {
            "subscribe" => {
                let Channels { channels, since } = channels(fields)?;
                Ok(Self::Subscribe(Subscribe { id, channels, since }))
            }
            "unsubscribe" => Ok(Self::Unsubscribe { channels: channels(fields)?.channels, id }),
            "heartbeat" => Ok(Self::Heartbeat { id }),
            "heartbeat_ack" | "pong" => Ok(Self::HeartbeatAck),
            "ping" => Ok(Self::Ping { id }),
            other => {
                let shown: String = other.chars().take(32).collect();
                let message = format!(
                    "unknown type {shown:?}: expected subscribe, unsubscribe, heartbeat, heartbeat_ack or ping"
                );
                Err(fail(id, ErrorCode::UnknownType, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_subscribe_carries_its_id_channels_and_positions() {
        let text = r#"{"type":"subscribe","id":1,"channels":["zone:pjm"],"since":{"zone:pjm":{"epoch":"a","offset":4}},"x":0}"#;
        let expected = Subscribe {
            id: Some(json!(1)),
            channels: vec!["zone:pjm".to_owned()],
            since: HashMap::from([("zone:pjm".to_owned(), json!({"epoch": "a", "offset": 4}))]),
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
            (r#"{"type":5,"id":"a"}"#, ErrorCode::InvalidMessage, Some(json!("a"))),
            (r#"{"type":"subscribe","id":7}"#, ErrorCode::InvalidMessage, Some(json!(7))),
            (r#"{"type":"subscribe","channels":[1]}"#, ErrorCode::InvalidMessage, None),
            (r#"{"type":"ping","id":{}}"#, ErrorCode::InvalidMessage, None),
            (r#"{"type":"dance","id":2}"#, ErrorCode::UnknownType, Some(json!(2))),
        ] {
            let error = ClientMessage::parse(text).unwrap_err();
            assert_eq!((error.code, error.id), (code, id), "{text}");
        }
    }
}
