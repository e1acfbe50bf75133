//! Follows channels across reconnects: what `tail` and `order watch` share.

mod state;

use std::io;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as FrameCode;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

pub use self::state::{Follow, Step, Until};
use super::{BaseUrl, CONNECT_TIMEOUT, NoAnswer, TlsTerms, header, words};
use crate::model::{ChannelName, OrderId, Position};
use crate::protocol::CloseCode;

/// How channels are requested from the gateway.
#[derive(Debug, Clone, Copy)]
pub enum Door {
    /// `/ws`, and a message that subscribes. Without a position, a channel begins with its next entry.
    Open,
    /// The stream of one order. Without a position, it begins with the oldest update in the log.
    Order(OrderId),
}

/// Where entries and messages for the user go.
pub(crate) trait Output {
    /// An entry's message, as received; without repeated entries where the protocol says to drop them.
    fn entry(&mut self, text: &str) -> io::Result<()>;
    /// A message for the user.
    fn say(&mut self, text: &str);
    /// Called when the entries of a channel after a position are about to arrive.
    async fn placed(&mut self, _channel: &ChannelName, _position: &Position) {}
}

/// How following ended, if that is not an error.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Enough entries arrived.
    Enough,
    /// The gateway closed the connection as done (1000), with this text.
    Closed(String),
}

/// A connection to a gateway.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why a connection ended, or could not be made.
#[derive(Debug)]
pub struct Lost {
    /// The close code; `None` without a close frame.
    code: Option<u16>,
    /// Whether nobody answered at the address.
    is_absent: bool,
    /// The reason, for people.
    pub why: String,
}

/// Follows until enough entries have arrived or it cannot continue.
pub(crate) async fn run(
    base: &BaseUrl,
    door: Door,
    follow: &mut Follow,
    output: &mut impl Output,
) -> anyhow::Result<Ended> {
    loop {
        let lost = match connect(base, &address(base, door, follow)).await {
            Ok(socket) => {
                output.say(&format!("connected to {base}"));
                follow.connected(Instant::now());
                match listen(socket, door, follow, output).await? {
                    None => return Ok(Ended::Enough),
                    Some(lost) => lost,
                }
            }
            // Probably a wrong address, rather than a gateway that will be there in a moment.
            Err(Lost { is_absent: true, why, .. }) if !follow.is_known => {
                return Err(NoAnswer::absent(base, why).into());
            }
            Err(lost) => lost,
        };
        match follow.lost(lost.code, Instant::now(), rand::random()) {
            Some((attempt, wait)) => {
                let (why, seconds) = (lost.why, wait.as_secs_f64());
                let of = follow.tries.map(|tries| format!(" of {tries}")).unwrap_or_default();
                output.say(&format!("{why}; trying again in {seconds:.1} s (attempt {attempt}{of})"));
                time::sleep(wait).await;
            }
            None if lost.code == Some(CloseCode::Normal.number()) => return Ok(Ended::Closed(lost.why)),
            None => bail!("{}; giving up", lost.why),
        }
    }
}

/// The address to connect to: an order's stream is resumed by its address.
pub fn address(base: &BaseUrl, door: Door, follow: &Follow) -> String {
    match door {
        Door::Open => base.socket("ws"),
        Door::Order(order) => {
            let path = format!("ws/orders/{order}");
            match follow.position(&ChannelName::order(order)) {
                Some(position) => base.socket(&format!("{path}?since={position}")),
                None => base.socket(&path),
            }
        }
    }
}

/// Connects to an address of a gateway.
pub async fn connect(base: &BaseUrl, url: &str) -> Result<Socket, Lost> {
    let absent = |error: SocketError| Lost { code: None, is_absent: true, why: words::of_socket(&error) };
    let mut request = url.into_client_request().map_err(absent)?;
    if let Some(authorization) = &base.authorization {
        request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
    }
    let connector = base.tls.as_ref().filter(|_| base.speaks_tls());
    let connector = connector.map(|TlsTerms(config)| Connector::Rustls(Arc::clone(config)));
    let connecting = connect_async_tls_with_config(request, None, false, connector);
    match time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(SocketError::Http(response))) => {
            let status = response.status();
            // A refusal that time will not change counts like a close code after which nobody may reconnect.
            let is_final = status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429);
            let code = is_final.then_some(CloseCode::Disconnected.number());
            Err(Lost { code, is_absent: false, why: format!("the gateway answered {status}") })
        }
        Ok(Err(error)) => Err(absent(error)),
        Err(_) => {
            Err(Lost { code: None, is_absent: true, why: format!("no answer within {CONNECT_TIMEOUT:?}") })
        }
    }
}

/// One connection, from subscribing to its end; `None` if enough entries arrived.
async fn listen(
    mut socket: Socket,
    door: Door,
    follow: &mut Follow,
    output: &mut impl Output,
) -> anyhow::Result<Option<Lost>> {
    let lost = |why: String| Ok(Some(Lost { code: None, is_absent: false, why }));
    if let Door::Open = door
        && let Err(error) = socket.send(Message::text(follow.subscribe())).await
    {
        return lost(words::of_socket(&error));
    }
    loop {
        let message = match time::timeout_at(follow.silent_at(), socket.next()).await {
            Err(_) => return lost("the gateway was silent for too long".to_owned()),
            Ok(None) => return lost("the connection was closed".to_owned()),
            Ok(Some(Err(error))) => return lost(words::of_socket(&error)),
            Ok(Some(Ok(message))) => message,
        };
        follow.heard(Instant::now());
        let text = match message {
            Message::Text(text) => text,
            Message::Close(frame) => {
                let code = frame.as_ref().map_or(FrameCode::Status, |frame| frame.code);
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                let code = u16::from(code);
                let why = format!("closed with {code} {reason}");
                return Ok(Some(Lost { code: Some(code), is_absent: false, why }));
            }
            // The library answers pings, and binary messages are not part of the protocol.
            _ => continue,
        };
        for step in follow.message(&text) {
            match step {
                Step::Print => output.entry(&text)?,
                Step::Say(text) => output.say(&text),
                Step::Placed(channel, position) => output.placed(&channel, &position).await,
                Step::Done => {
                    part(&mut socket).await;
                    return Ok(None);
                }
                Step::Over(why) => {
                    part(&mut socket).await;
                    return Ok(Some(Lost { code: Some(CloseCode::Normal.number()), is_absent: false, why }));
                }
                Step::Fail(why) => return Err(anyhow!(why)),
            }
        }
    }
}

/// The gateway would notice the end anyway; this only makes it a clean one.
async fn part(socket: &mut Socket) {
    drop(time::timeout(CONNECT_TIMEOUT, socket.close(None)).await);
}
