//! A WebSocket client that reads messages in order, and never waits forever.
//!
//! For their own decisions, such as whether a message is a heartbeat or at which position a reader is,
//! helpers of tests parse messages with the types of the protocol, as clients do. Assertions read raw JSON
//! with the names in PROTOCOL.md: otherwise a field renamed in the types, which both sides share, would go
//! unnoticed.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize as _;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use zonewire_protocol::{Position, Resync, ServerMessage};

/// The longest that anything may take on a busy machine; a test that waits longer fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The `id` of the ping whose answer is awaited.
const UNTIL: u64 = 1_000_000_007;

/// A connected client.
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    /// Whether `caught_up` is awaited; otherwise it is ignored.
    waits_to_catch_up: bool,
}

/// Only messages that contain these words are parsed: parsing every price would take longer than everything
/// else.
const CAUGHT_UP: &str = "caught_up";
const HEARTBEAT: &str = "heartbeat";

fn is_heartbeat(text: &str) -> bool {
    text.contains(HEARTBEAT) && matches!(read(text), ServerMessage::Heartbeat(_))
}

/// A gateway's message, parsed as clients do.
pub(crate) fn read(text: &str) -> ServerMessage {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The same as raw JSON, for assertions.
pub(crate) fn raw(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A socket whose kernel buffers hardly anything that has not been read.
pub(crate) async fn connect_small(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(address).await.unwrap()
}

/// What arrived.
#[derive(Debug)]
pub(crate) enum Came {
    /// A text message.
    Text(String),
    /// A protocol ping; it has been answered.
    Ping,
    /// A close frame, with its code and reason.
    Close(u16, String),
    /// The connection broke off.
    End,
}

impl Client {
    pub(crate) async fn connect(url: &str) -> Self {
        let host = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        Self::over(TcpStream::connect(host).await.unwrap(), url).await
    }

    /// A client whose kernel buffers hardly anything that it has not read.
    pub(crate) async fn connect_small(url: &str) -> Self {
        let host = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        Self::over(connect_small(host.parse().unwrap()).await, url).await
    }

    async fn over(stream: TcpStream, url: &str) -> Self {
        Self::asking(stream, url.into_client_request().unwrap()).await
    }

    /// The same with an additional header.
    pub(crate) async fn connect_with(url: &str, name: &'static str, value: &str) -> Self {
        let host = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        Self::asking(TcpStream::connect(host).await.unwrap(), request).await
    }

    async fn asking(stream: TcpStream, request: Request) -> Self {
        let config = WebSocketConfig::default().read_buffer_size(4_096);
        let upgrade = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _response) = time::timeout(LIMIT, upgrade).await.expect("an upgrade in time").unwrap();
        Self { socket, waits_to_catch_up: false }
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// What arrives next, whatever it is.
    pub(crate) async fn came(&mut self) -> Came {
        loop {
            return match time::timeout(LIMIT, self.socket.next()).await.expect("something arrives in time") {
                Some(Ok(Message::Text(text)))
                    if !self.waits_to_catch_up
                        && text.contains(CAUGHT_UP)
                        && matches!(read(&text), ServerMessage::CaughtUp(_)) =>
                {
                    continue;
                }
                Some(Ok(Message::Text(text))) => Came::Text(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_))) => Came::Ping,
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.expect("a close frame with a code");
                    Came::Close(frame.code.into(), frame.reason.as_str().to_owned())
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => Came::End,
            };
        }
    }

    /// The next message's text. Heartbeats and pings are skipped.
    pub(crate) async fn next_text(&mut self) -> String {
        loop {
            match self.came().await {
                Came::Text(text) if !is_heartbeat(&text) => return text,
                Came::Text(_) | Came::Ping => {}
                other => panic!("expected a message, found {other:?}"),
            }
        }
    }

    /// The next message; heartbeats and pings are skipped.
    pub(crate) async fn next(&mut self) -> Value {
        raw(&self.next_text().await)
    }

    /// The next message of a type; others are skipped.
    pub(crate) async fn next_of_type(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Reads until it has caught up. Returns the messages before, and the channel concerned.
    pub(crate) async fn until_caught_up(&mut self) -> (Vec<Value>, String) {
        self.waits_to_catch_up = true;
        let mut before = Vec::new();
        loop {
            let text = self.next_text().await;
            if let ServerMessage::CaughtUp(caught_up) = read(&text) {
                return (before, caught_up.channel.to_string());
            }
            before.push(raw(&text));
        }
    }

    /// The next `count` messages, which must be prices; a report that another gateway began the log may
    /// precede them.
    pub(crate) async fn prices(&mut self, count: usize) -> Vec<Value> {
        let mut prices = Vec::with_capacity(count);
        while prices.len() < count {
            let message = self.next().await;
            if prices.is_empty() && is_birth(&message) {
                continue;
            }
            assert_eq!(message["type"], "price_update", "{message}");
            prices.push(message);
        }
        prices
    }

    /// Requests a pong, and returns the messages before it: everything that the gateway had written by then.
    /// Published entries may still be on their way.
    pub(crate) async fn until_pong(&mut self) -> Vec<Value> {
        self.send(&serde_json::json!({ "type": "ping", "id": UNTIL })).await;
        let mut before = Vec::new();
        loop {
            let text = self.next_text().await;
            match read(&text) {
                ServerMessage::Pong(pong) if pong.id == Some(UNTIL.into()) => return before,
                _ => before.push(raw(&text)),
            }
        }
    }

    /// Reads up to the close frame. Returns the messages before it, the code and the reason.
    pub(crate) async fn until_close(&mut self) -> (Vec<Value>, u16, String) {
        let mut before = Vec::new();
        loop {
            match self.came().await {
                Came::Text(text) => before.push(raw(&text)),
                Came::Ping => {}
                Came::Close(code, reason) => return (before, code, reason),
                Came::End => panic!("the connection ended without a close frame, after {before:?}"),
            }
        }
    }

    /// Reads, and so answers pings, until this many heartbeats have arrived.
    pub(crate) async fn came_until_heartbeats(&mut self, count: usize) {
        let mut heartbeats = 0;
        while heartbeats < count {
            match self.came().await {
                Came::Text(text) => {
                    heartbeats += usize::from(is_heartbeat(&text));
                }
                Came::Ping => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Closes, and waits for the answer.
    pub(crate) async fn close(mut self) {
        // The gateway may have closed first, or be gone.
        let _begun = self.socket.close(None).await;
        while time::timeout(LIMIT, self.socket.next()).await.expect("an end in time").is_some() {}
    }
}

/// The position of a `subscribed` or `resync`, for `since`.
pub(crate) fn position(message: &Value) -> String {
    Position::deserialize(message).unwrap_or_else(|error| panic!("{error}: {message}")).to_string()
}

/// Checks some of a message's fields; `null` stands for a missing one too.
#[track_caller]
pub(crate) fn assert_has(message: &Value, expected: Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(message[field], *value, "{field} of {message}");
    }
}

pub(crate) fn field_names(message: &Value) -> Vec<&str> {
    message.as_object().unwrap().keys().map(String::as_str).collect()
}

pub(crate) fn offset(message: &Value) -> u64 {
    message["offset"].as_u64().unwrap_or_else(|| panic!("no offset in {message}"))
}

/// Whether a message reports that another gateway began the log of a channel that was followed before:
/// nothing is missing.
pub(crate) fn is_birth(message: &Value) -> bool {
    let Ok(resync) = Resync::deserialize(message) else { return false };
    let is_whole = resync.recovered && resync.gap == Some(0) && resync.offset == 0;
    is_whole && resync.old_epoch.as_str().starts_with("u.")
}
