//! One connection to an exchange: a socket, requests, and a clock. Their results go to the adapter, and its
//! steps to the publisher.

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::{self, Duration, Instant, Interval, MissedTickBehavior};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::Step;
use crate::client::{BaseUrl, Http};

/// How long an exchange may take to accept a connection, and to answer a request.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// How long sending a message may take.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// The largest frame or answer.
const BYTES_MAX: usize = 8 << 20;

/// A connection on which nothing arrives is pinged, and then given up.
const PING_AFTER: Duration = Duration::from_secs(15);
const SILENT_AFTER: Duration = Duration::from_secs(30);

const TICK_EVERY: Duration = Duration::from_millis(100);

/// What arrived.
#[derive(Debug)]
pub(super) enum Came {
    Frame(Utf8Bytes),
    Answer {
        id: u64,
        answer: Result<String, String>,
    },
    /// A tenth of a second has passed.
    Tick,
    /// The connection has ended.
    End(String),
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) struct Session {
    socket: Option<Socket>,
    requests: FuturesUnordered<BoxFuture<'static, Came>>,
    /// Made by the first request: all requests of a connection go to one server.
    http: Option<Http>,
    ticks: Interval,
    heard: Instant,
    is_asked: bool,
}

impl Session {
    /// Without an address there is no socket, only requests.
    pub(super) async fn open(url: Option<&str>) -> Result<Self, String> {
        let socket = match url {
            Some(url) => Some(connect(url).await?),
            None => None,
        };
        let mut ticks = time::interval(TICK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            socket,
            requests: FuturesUnordered::new(),
            http: None,
            ticks,
            heard: Instant::now(),
            is_asked: false,
        })
    }

    /// Waits for whatever arrives next. Cancel safe.
    pub(super) async fn next(&mut self) -> Came {
        loop {
            let Self { socket, requests, ticks, .. } = self;
            let message = async {
                match socket {
                    Some(socket) => socket.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = message => {
                    if let Some(came) = self.message(message) {
                        return came;
                    }
                }
                Some(answer) = requests.next() => return answer,
                _ = ticks.tick() => return self.tick().await,
            }
        }
    }

    /// A frame that has arrived already.
    pub(super) fn next_now(&mut self) -> Option<Came> {
        loop {
            let message = self.socket.as_mut()?.next().now_or_never()?;
            if let Some(came) = self.message(message) {
                return Some(came);
            }
        }
    }

    fn message(&mut self, message: Option<Result<Message, SocketError>>) -> Option<Came> {
        (self.heard, self.is_asked) = (Instant::now(), false);
        match message {
            Some(Ok(Message::Text(text))) => Some(Came::Frame(text)),
            Some(Ok(Message::Binary(bytes))) => {
                Some(Came::Frame(String::from_utf8_lossy(&bytes).into_owned().into()))
            }
            Some(Ok(Message::Close(frame))) => {
                let why = frame.map_or_else(
                    || "the exchange closed the connection".to_owned(),
                    |frame| {
                        let reason: String = frame.reason.chars().take(200).collect();
                        format!("the exchange closed the connection: {} {reason}", u16::from(frame.code))
                    },
                );
                Some(Came::End(why))
            }
            // The socket answers pings by itself.
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(Came::End(words(&error))),
            None => Some(Came::End("the connection ended".to_owned())),
        }
    }

    async fn tick(&mut self) -> Came {
        let silent = self.heard.elapsed();
        if self.socket.is_some() && silent > SILENT_AFTER {
            return Came::End(format!("nothing has arrived for {} s", silent.as_secs()));
        }
        if silent > PING_AFTER
            && !std::mem::replace(&mut self.is_asked, true)
            && let Err(reason) = self.send_message(Message::Ping(Vec::new().into())).await
        {
            return Came::End(reason);
        }
        Came::Tick
    }

    pub(super) async fn send(&mut self, text: String) -> Result<(), String> {
        self.send_message(Message::Text(text.into())).await
    }

    async fn send_message(&mut self, message: Message) -> Result<(), String> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        match time::timeout(SEND_WITHIN, socket.send(message)).await {
            Ok(sent) => sent.map_err(|error| words(&error)),
            Err(_) => Err("the exchange does not accept what is sent".to_owned()),
        }
    }

    /// Starts a request; [`next`](Self::next) returns its answer.
    pub(super) fn fetch(&mut self, id: u64, url: String) {
        let http = self.http(&url);
        let answer = async move { fetch(&http?, &url).await };
        self.requests.push(answer.map(move |answer| Came::Answer { id, answer }).boxed());
    }

    fn http(&mut self, url: &str) -> Result<Http, String> {
        if let Some(http) = &self.http {
            return Ok(http.clone());
        }
        let http = url.parse::<BaseUrl>()?.http().map_err(|error| format!("{error:#}"))?;
        Ok(self.http.insert(http).clone())
    }
}

/// A redirect is an error: the settings alone decide where data come from.
async fn fetch(http: &Http, url: &str) -> Result<String, String> {
    let answer = http.get(url).timeout(ANSWER_WITHIN).send().await.map_err(|error| error.to_string())?;
    if answer.status.is_redirection() {
        return Err("a request was answered with a redirect, which is not followed".to_owned());
    }
    if answer.status.as_u16() != 200 {
        return Err(format!("a request was answered with {}", answer.status));
    }
    let body = answer.bytes_within(BYTES_MAX).await.map_err(|error| error.to_string())?;
    String::from_utf8(body.into()).map_err(|_error| "an answer is not UTF-8".to_owned())
}

async fn connect(url: &str) -> Result<Socket, String> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(BYTES_MAX))
        .max_frame_size(Some(BYTES_MAX))
        .write_buffer_size(0);
    // A redirect fails the handshake.
    let connecting = connect_async_with_config(url, Some(config), true);
    match time::timeout(CONNECT_WITHIN, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(words(&error)),
        Err(_) => Err(format!("no connection within {} s", CONNECT_WITHIN.as_secs())),
    }
}

/// A description of an error without the address, which may contain a key.
fn words(error: &SocketError) -> String {
    match error {
        SocketError::Http(response) => format!("the exchange answered {}", response.status()),
        SocketError::Url(_) => "the address is not that of a WebSocket".to_owned(),
        SocketError::Capacity(_) => format!("a frame is longer than {BYTES_MAX} bytes"),
        error => error.to_string(),
    }
}

/// The reason, if one of the steps ends the connection.
pub(super) fn reconnects(steps: &[Step]) -> Option<&str> {
    steps.iter().find_map(|step| match step {
        Step::Reconnect(reason) => Some(reason.as_str()),
        _ => None,
    })
}
