//! A stand-in for an exchange. It speaks the exchange's documented public protocol, with a market simulated
//! from a seed, and fails on purpose in the ways in which exchanges fail by accident.
//!
//! Its frames are written by hand from the documentation; no code of the gateway reads or writes them.

mod market;
mod speech;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time;
use tokio_tungstenite::tungstenite::Message;

use self::market::{Happening, Market};
use self::speech::Speech;

/// The exchange whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Binance's market streams, and the two requests beside them.
    Binance,
    /// Coinbase's Advanced Trade WebSocket.
    Coinbase,
    /// Kraken's WebSocket, version 2.
    Kraken,
}

/// What the stand-in does wrong, each as a share of the frames, 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// Frames that are not sent.
    pub lost: f64,
    /// Frames that are sent after the next one.
    pub swapped: f64,
    /// Text that is not a frame is sent first.
    pub garbage: f64,
    /// A frame contains invalid prices.
    pub lies: f64,
    /// Nothing is sent for a second.
    pub stalls: f64,
    /// The connection is cut.
    pub cuts: f64,
}

struct Shared {
    speaks: Speaks,
    market: Mutex<Market>,
    happenings: broadcast::Sender<Arc<Happening>>,
    faults: Mutex<Faults>,
    connections: AtomicU64,
    /// Incremented to cut all connections.
    cut: watch::Sender<u64>,
    /// While true, new connections are refused.
    closed: watch::Sender<bool>,
}

/// An exchange that runs until dropped.
pub struct Exchange {
    /// The port it listens on.
    pub port: u16,
    shared: Arc<Shared>,
    _running: JoinSet<()>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Starts an exchange for a symbol such as `BTC-USDT`; `step` is the interval of the market's steps. Port
    /// 0 means any free port.
    ///
    /// # Errors
    /// It cannot listen on the port.
    pub async fn start(
        speaks: Speaks,
        symbol: &str,
        port: u16,
        seed: u64,
        step: Duration,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.context("cannot listen")?;
        let port = listener.local_addr().context("cannot listen")?.port();
        let (happenings, _) = broadcast::channel(4_096);
        let shared = Arc::new(Shared {
            speaks,
            market: Mutex::new(Market::new(symbol, seed)),
            happenings,
            faults: Mutex::new(Faults::default()),
            connections: AtomicU64::new(0),
            cut: watch::Sender::new(0),
            closed: watch::Sender::new(false),
        });
        let mut running = JoinSet::new();
        running.spawn(step_on(Arc::clone(&shared), step));
        running.spawn(accept(listener, Arc::clone(&shared), seed));
        Ok(Self { port, shared, _running: running })
    }

    /// The address of its WebSocket.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}/stream", self.port)
    }

    /// The address for requests.
    pub fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        *self.shared.faults.lock() = faults;
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cut| *cut += 1);
    }

    /// Sets whether new connections are refused.
    pub fn set_closed(&self, is_closed: bool) {
        self.shared.closed.send_replace(is_closed);
    }

    /// The numbers of the first and the last trade so far.
    pub fn trades(&self) -> (u64, u64) {
        self.shared.market.lock().trade_numbers()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// The best levels of the book: bids and asks, as text.
    pub fn best(&self, depth: usize) -> (Vec<[String; 2]>, Vec<[String; 2]>) {
        self.shared.market.lock().best(depth)
    }
}

async fn step_on(shared: Arc<Shared>, step: Duration) {
    let mut ticks = time::interval(step);
    loop {
        ticks.tick().await;
        // Sent under the lock, so that a reader of the market knows which events it includes.
        let mut market = shared.market.lock();
        for happening in market.step() {
            let _nobody_listens = shared.happenings.send(Arc::new(happening));
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, seed: u64) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        number += 1;
        let (shared, mut cut) = (Arc::clone(&shared), shared.cut.subscribe());
        if *shared.closed.borrow() {
            continue;
        }
        let random = StdRng::seed_from_u64(seed.wrapping_add(number));
        connections.spawn(async move {
            tokio::select! {
                _ = serve(stream, shared, random) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

/// Answers a request, or speaks over a WebSocket.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>, random: StdRng) -> anyhow::Result<()> {
    let mut head = [0; 1_024];
    // A request is short enough to arrive in one piece.
    let length = stream.peek(&mut head).await?;
    let head = String::from_utf8_lossy(&head[..length]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    if path.starts_with("/api/") {
        let body = shared.market.lock().answer(path);
        stream.read_exact(&mut vec![0; length]).await?;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        return Ok(());
    }
    shared.connections.fetch_add(1, Ordering::Relaxed);
    converse(stream, &shared, random).await
}

async fn converse(stream: TcpStream, shared: &Shared, mut random: StdRng) -> anyhow::Result<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    let mut speech = Speech::new(shared.speaks);
    let mut happenings = shared.happenings.subscribe();
    let mut swapped: Option<String> = None;
    for frame in speech.greeting() {
        socket.send(Message::text(frame)).await?;
    }
    loop {
        let frames = tokio::select! {
            said = socket.next() => match said {
                Some(Ok(Message::Text(text))) => {
                    let answer = {
                        // Earlier events are sent first, since the answer includes them.
                        let market = shared.market.lock();
                        let mut frames = Vec::new();
                        while let Ok(happening) = happenings.try_recv() {
                            frames.extend(speech.tell(&happening));
                        }
                        frames.extend(speech.asked(text.as_str(), &market));
                        frames
                    };
                    for frame in answer {
                        socket.send(Message::text(frame)).await?;
                    }
                    continue;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return Ok(()),
            },
            happening = happenings.recv() => speech.tell(&*happening?),
        };
        for frame in frames {
            let faults = *shared.faults.lock();
            if random.random_bool(faults.cuts) {
                return Ok(());
            }
            if random.random_bool(faults.stalls) {
                time::sleep(Duration::from_secs(1)).await;
            }
            if random.random_bool(faults.garbage) {
                let garbage: String =
                    (0..random.random_range(0..60)).map(|_| random.random::<char>()).collect();
                socket.send(Message::text(garbage)).await?;
            }
            if random.random_bool(faults.lost) {
                continue;
            }
            let frame = if random.random_bool(faults.lies) { frame.replace('.', "x") } else { frame };
            if swapped.is_none() && random.random_bool(faults.swapped) {
                swapped = Some(frame);
                continue;
            }
            socket.send(Message::text(frame)).await?;
            if let Some(frame) = swapped.take() {
                socket.send(Message::text(frame)).await?;
            }
        }
    }
}
