//! A WebSocket client that reads messages in order, and never waits for ever.
//!
//! What helpers of tests decide by, such as whether something is a heartbeat or where a reader stands, they
//! read with the types of the protocol, as clients do. What a test asserts it reads as raw JSON, by the
//! names that stand in PROTOCOL.md: a field that is renamed in the types, which both ends share, would
//! otherwise pass unnoticed.

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

/// The longest that anything may take on a busy machine; a test that waits so long has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// The `id` of a ping that is waited for.
const UNTIL: u64 = 1_000_000_007;

/// A connected client.
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    /// `caught_up` is passed over until somebody waits for it.
    waits_to_catch_up: bool,
}

/// Only what has these words is looked at: reading each of many prices would take longer than all else.
const CAUGHT_UP: &str = "caught_up";
const HEARTBEAT: &str = "heartbeat";

fn is_heartbeat(text: &str) -> bool {
    text.contains(HEARTBEAT) && matches!(read(text), ServerMessage::Heartbeat(_))
}

/// What a gateway says, as clients read it.
pub(crate) fn read(text: &str) -> ServerMessage {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The same as a test asserts it.
pub(crate) fn raw(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What came.
#[derive(Debug)]
pub(crate) enum Came {
    /// A text message.
    Text(String),
    /// A protocol ping; it is answered.
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

    /// A client whose kernel holds next to nothing that it has not read.
    pub(crate) async fn connect_small(url: &str) -> Self {
        let host = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        Self::over(socket.connect(host.parse().unwrap()).await.unwrap(), url).await
    }

    async fn over(stream: TcpStream, url: &str) -> Self {
        Self::asking(stream, url.into_client_request().unwrap()).await
    }

    /// The same with a header besides.
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

    /// What comes next, whatever it is.
    pub(crate) async fn came(&mut self) -> Came {
        loop {
            return match time::timeout(LIMIT, self.socket.next()).await.expect("something comes in time") {
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

    /// The next message's text. Heartbeats and pings are passed over.
    pub(crate) async fn next_text(&mut self) -> String {
        loop {
            match self.came().await {
                Came::Text(text) if !is_heartbeat(&text) => return text,
                Came::Text(_) | Came::Ping => {}
                other => panic!("expected a message, and there came {other:?}"),
            }
        }
    }

    /// The next message; heartbeats and pings are passed over.
    pub(crate) async fn next(&mut self) -> Value {
        raw(&self.next_text().await)
    }

    /// The next message of a type; others are passed over.
    pub(crate) async fn next_of_type(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Reads on until it has caught up: the messages before, and the channel that it is about.
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

    /// The next `count` messages, which must be prices; before the first one it may be told that another
    /// gateway began the log.
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

    /// Asks for a pong, and gives the messages before it: whatever the gateway wrote before has come
    /// then. What was published may yet be on its way.
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

    /// Reads to the close frame: the messages on the way, the code, the reason.
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

    /// Reads on, and so answers pings, until this many heartbeats have come.
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
        // The gateway may have begun it, or have gone.
        let _begun = self.socket.close(None).await;
        while time::timeout(LIMIT, self.socket.next()).await.expect("an end in time").is_some() {}
    }
}

/// The position of a `subscribed` or `resync`, for `since`.
pub(crate) fn position(message: &Value) -> String {
    Position::deserialize(message).unwrap_or_else(|error| panic!("{error}: {message}")).to_string()
}

pub(crate) fn offset(message: &Value) -> u64 {
    message["offset"].as_u64().unwrap_or_else(|| panic!("no offset in {message}"))
}

/// Whether another gateway began the log of a channel that was followed before it had one: all follows.
pub(crate) fn is_birth(message: &Value) -> bool {
    let Ok(resync) = Resync::deserialize(message) else { return false };
    let is_whole = resync.recovered && resync.gap == Some(0) && resync.offset == 0;
    is_whole && resync.old_epoch.as_str().starts_with("u.")
}
