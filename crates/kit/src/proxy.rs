//! A TCP proxy that imitates failures of networks.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

/// How long the proxy waits for the server to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many pieces of up to 64 KiB may be in transit in one direction of a connection with a delay.
const ON_THEIR_WAY: usize = 64;

/// The behaviour of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards bytes.
    Pass,
    /// Resets existing connections, and each new one at once.
    Refuse,
    /// Holds bytes back in these directions, and forwards them when the mode ends: connections stay open, as
    /// when packets are dropped and retransmitted.
    Hole {
        /// From clients to the server.
        requests: bool,
        /// From the server to clients.
        replies: bool,
    },
    /// Forwards requests, and resets the connection instead of forwarding a reply, once the connection has
    /// this age.
    CutReplies {
        /// The age of the connection.
        after: Duration,
    },
    /// Forwards one half of a request and resets the connection, once the connection has this age.
    CutRequests {
        /// The age of the connection.
        after: Duration,
    },
}

/// The destination of connections, and the behaviour of the link.
#[derive(Debug, Clone, Copy)]
struct Link {
    /// Without a destination, connections are refused.
    to: Option<SocketAddr>,
    mode: Mode,
    /// How often all connections were cut.
    cuts: u64,
    /// How long bytes are in transit in each direction.
    delay: Duration,
}

impl Link {
    /// Whether a connection must end that was accepted when the link was as in `then`.
    fn cuts(&self, then: &Self) -> bool {
        self.to.is_none() || self.mode == Mode::Refuse || self.cuts != then.cuts
    }
}

/// Forwards connections until dropped. The end of either direction is passed on. Any failure of one side, and
/// anything that the proxy itself does, looks like a reset to both sides.
#[derive(Debug)]
pub struct Proxy {
    /// The address it listens on.
    pub address: SocketAddr,
    link: watch::Sender<Link>,
    lost: Lost,
    _running: JoinSet<()>,
}

/// The bytes by which to recognize the reply that is to be lost next.
type Lost = Arc<Mutex<Option<Vec<u8>>>>;

impl Proxy {
    /// Listens on a free port of this machine.
    pub async fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let proxy = Self::to_nowhere().await?;
        proxy.lead_to(to);
        Ok(proxy)
    }

    /// The same without a destination: refuses everything until [`lead_to`](Self::lead_to).
    pub async fn to_nowhere() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen for the proxy")?;
        let address = listener.local_addr().context("the proxy has no address")?;
        let link = watch::Sender::new(Link { to: None, mode: Mode::Pass, cuts: 0, delay: Duration::ZERO });
        let (lost, mut running) = (Lost::default(), JoinSet::new());
        running.spawn(accept(listener, link.clone(), Arc::clone(&lost)));
        Ok(Self { address, link, lost, _running: running })
    }

    /// Forwards new connections to this address.
    pub fn lead_to(&self, to: SocketAddr) {
        self.link.send_modify(|link| link.to = Some(to));
    }

    /// Sets the behaviour of the link.
    pub fn set(&self, mode: Mode) {
        self.link.send_modify(|link| {
            // Counted as a cut, so that it takes effect even if the mode changes back before a connection
            // noticed.
            link.cuts += u64::from(mode == Mode::Refuse);
            link.mode = mode;
        });
    }

    /// Delays bytes in each direction, on new connections. The amount in transit is bounded, as on a real
    /// link.
    pub fn delay(&self, delay: Duration) {
        self.link.send_modify(|link| link.delay = delay);
    }

    /// Resets all existing connections; new ones are forwarded.
    pub fn cut(&self) {
        self.link.send_modify(|link| link.cuts += 1);
    }

    /// When a reply contains these bytes in one piece, cuts all connections and loses that reply; once.
    pub fn lose_reply(&self, with: &[u8]) {
        *self.lost.lock() = Some(with.to_vec());
    }

    /// Whether such a reply was lost.
    pub fn has_lost_reply(&self) -> bool {
        self.lost.lock().is_none()
    }
}

async fn accept(listener: TcpListener, link: watch::Sender<Link>, lost: Lost) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(carry(client, link.clone(), Arc::clone(&lost)));
                }
                // Out of file descriptors, for example: other connections will end.
                Err(_) => time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The connection failed before both directions had ended.
struct Broken;

/// Forwards one connection to its end.
async fn carry(mut client: TcpStream, link: watch::Sender<Link>, lost: Lost) {
    let (since, then) = (Instant::now(), *link.borrow());
    let connecting = async {
        let to = then.to.filter(|_| !then.cuts(&then)).ok_or(Broken)?;
        let connected = time::timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await;
        connected.ok().and_then(Result::ok).ok_or(Broken)
    };
    let Ok(mut server) = connecting.await else { return reset(&client) };
    let _hurried = (server.set_nodelay(true), client.set_nodelay(true));
    let mut watched = link.subscribe();
    let ended = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let pump = |to, direction| Pump { to, direction, since, link: &link, lost: &lost };
        let both = async {
            tokio::try_join!(
                pump(server_write, Direction::Requests).run(client_read, then.delay),
                pump(client_write, Direction::Replies).run(server_read, then.delay),
            )
        };
        tokio::select! {
            ended = both => ended.map(drop),
            // Without a proxy there is no link.
            _cut = watched.wait_for(|link| link.cuts(&then)) => Err(Broken),
        }
    };
    if ended.is_err() {
        reset(&client);
        reset(&server);
    }
}

/// Makes the other side see a reset when the stream is dropped; if that fails it sees a normal end, which is
/// as good.
fn reset(stream: &TcpStream) {
    let _reset = stream.set_zero_linger();
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Replies,
}

/// What to do with bytes that arrived.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Write,
    /// Write them when the mode changes.
    Hold,
    /// Write one half, then end.
    WriteHalf,
    End,
}

/// One direction of a connection.
struct Pump<'a> {
    to: WriteHalf<'a>,
    direction: Direction,
    /// When the connection was accepted.
    since: Instant,
    link: &'a watch::Sender<Link>,
    lost: &'a Lost,
}

impl Pump<'_> {
    /// Forwards the direction to its end, and passes the end on.
    async fn run(mut self, mut from: ReadHalf<'_>, delay: Duration) -> Result<(), Broken> {
        let mut bytes = vec![0; 64 * 1024];
        if delay.is_zero() {
            loop {
                let read = from.read(&mut bytes).await.map_err(|_| Broken)?;
                if self.pass(&bytes[..read]).await?.is_break() {
                    return Ok(());
                }
            }
        }
        let (sender, mut on_their_way) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THEIR_WAY);
        let sending = async {
            loop {
                let read = from.read(&mut bytes).await.map_err(|_| Broken)?;
                let sent = sender.send((Instant::now() + delay, bytes[..read].to_vec())).await;
                sent.map_err(|_| Broken)?;
                if read == 0 {
                    return Ok(());
                }
            }
        };
        let arriving = async {
            while let Some((due, bytes)) = on_their_way.recv().await {
                time::sleep_until(due).await;
                if self.pass(&bytes).await?.is_break() {
                    break;
                }
            }
            Ok(())
        };
        tokio::try_join!(sending, arriving).map(drop)
    }

    /// Treats bytes as the link's mode says; breaks if the direction ends.
    async fn pass(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, Broken> {
        let (mut link, read) = (self.link.subscribe(), bytes.len());
        let len = loop {
            let mode = link.borrow_and_update().mode;
            match step(mode, self.direction, self.since.elapsed()) {
                Step::Write => break read,
                Step::WriteHalf => break read / 2,
                Step::End => return Err(Broken),
                Step::Hold => link.changed().await.map_err(|_| Broken)?,
            }
        };
        if read == 0 {
            self.to.shutdown().await.map_err(|_| Broken)?;
            return Ok(ControlFlow::Break(()));
        }
        self.lose(bytes)?;
        self.to.write_all(&bytes[..len]).await.map_err(|_| Broken)?;
        if len < read { Err(Broken) } else { Ok(ControlFlow::Continue(())) }
    }

    /// If this is the reply to lose, cuts all connections.
    fn lose(&self, bytes: &[u8]) -> Result<(), Broken> {
        let is_it = |with: &mut Vec<u8>| bytes.windows(with.len()).any(|part| part == with);
        if self.direction == Direction::Requests || self.lost.lock().take_if(is_it).is_none() {
            return Ok(());
        }
        self.link.send_modify(|link| link.cuts += 1);
        Err(Broken)
    }
}

fn step(mode: Mode, direction: Direction, age: Duration) -> Step {
    match (mode, direction) {
        (Mode::Refuse, _) => Step::End,
        (Mode::Hole { requests: true, .. }, Direction::Requests)
        | (Mode::Hole { replies: true, .. }, Direction::Replies) => Step::Hold,
        (Mode::CutReplies { after }, Direction::Replies) if age >= after => Step::End,
        (Mode::CutRequests { after }, Direction::Requests) if age >= after => Step::WriteHalf,
        _ => Step::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A server that answers each byte with the next one, and a proxy before it.
    async fn echo() -> (Proxy, JoinSet<()>, watch::Receiver<u64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, hears) = watch::channel(0);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let heard = heard.clone();
                connections.spawn(async move {
                    let mut byte = [0; 1];
                    while stream.read_exact(&mut byte).await.is_ok() {
                        heard.send_modify(|heard| *heard += 1);
                        if stream.write_all(&[byte[0] + 1]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (Proxy::start(address).await.unwrap(), running, hears)
    }

    async fn answer(stream: &mut TcpStream) -> Option<u8> {
        let mut byte = [0; 1];
        let read = time::timeout(LIMIT, stream.read_exact(&mut byte)).await.expect("in time");
        read.is_ok().then_some(byte[0])
    }

    /// Sends a byte, and returns the answer.
    async fn ask(stream: &mut TcpStream, byte: u8) -> Option<u8> {
        stream.write_all(&[byte]).await.unwrap();
        answer(stream).await
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address).await.unwrap()
    }

    #[tokio::test]
    async fn connections_pass_or_are_refused() {
        let (proxy, _server, _) = echo().await;
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, 1).await, Some(2));
        proxy.set(Mode::Refuse);
        assert_eq!(answer(&mut stream).await, None);
        assert_eq!(answer(&mut connect(&proxy).await).await, None);
        proxy.set(Mode::Pass);
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, 5).await, Some(6));
    }

    #[tokio::test]
    async fn a_delay_applies_to_each_direction_without_limiting_the_rate() {
        let (proxy, _server, _) = echo().await;
        proxy.delay(Duration::from_millis(40));
        let mut stream = connect(&proxy).await;
        let begun = Instant::now();
        for byte in 1..=20 {
            stream.write_all(&[byte]).await.unwrap();
        }
        for byte in 2..=21 {
            assert_eq!(answer(&mut stream).await, Some(byte));
        }
        assert!(begun.elapsed() >= Duration::from_millis(80));
    }

    #[tokio::test]
    async fn a_cut_resets_existing_connections_and_not_later_ones() {
        let (proxy, _server, _) = echo().await;
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, 1).await, Some(2));
        proxy.cut();
        assert_eq!(answer(&mut stream).await, None);
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, 5).await, Some(6));
    }

    #[tokio::test]
    async fn a_reply_is_lost_once_with_all_connections() {
        let (proxy, _server, mut heard) = echo().await;
        let (mut stream, mut other) = (connect(&proxy).await, connect(&proxy).await);
        assert_eq!(ask(&mut other, 1).await, Some(2));
        proxy.lose_reply(&[8]);
        stream.write_all(&[5]).await.unwrap();
        assert_eq!((answer(&mut stream).await, proxy.has_lost_reply()), (Some(6), false));
        stream.write_all(&[7]).await.unwrap();
        assert_eq!((answer(&mut stream).await, answer(&mut other).await), (None, None));
        assert_eq!((*heard.borrow_and_update(), proxy.has_lost_reply()), (3, true));
    }

    #[tokio::test]
    async fn the_end_of_one_direction_is_passed_on_and_the_other_continues() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
        let mut stream = connect(&proxy).await;
        stream.write_all(b"all").await.unwrap();
        stream.shutdown().await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut asked = String::new();
        time::timeout(LIMIT, server.read_to_string(&mut asked)).await.expect("in time").unwrap();
        assert_eq!(asked, "all");
        server.write_all(b"of it").await.unwrap();
        drop(server);
        let mut answered = String::new();
        time::timeout(LIMIT, stream.read_to_string(&mut answered)).await.expect("in time").unwrap();
        assert_eq!(answered, "of it");
    }

    #[tokio::test]
    async fn a_hole_holds_bytes_back_until_it_ends() {
        for hole in
            [Mode::Hole { requests: true, replies: false }, Mode::Hole { requests: false, replies: true }]
        {
            let (proxy, _server, mut heard) = echo().await;
            let mut stream = connect(&proxy).await;
            assert_eq!(ask(&mut stream, 1).await, Some(2));
            proxy.set(hole);
            stream.write_all(&[3]).await.unwrap();
            if hole == (Mode::Hole { requests: false, replies: true }) {
                // The request still takes effect.
                heard.wait_for(|heard| *heard == 2).await.unwrap();
            }
            let silent = time::timeout(Duration::from_millis(50), stream.read_u8()).await;
            assert!(silent.is_err(), "{hole:?}");
            proxy.set(Mode::Pass);
            assert_eq!(answer(&mut stream).await, Some(4), "{hole:?}");
        }
    }

    #[tokio::test]
    async fn a_request_whose_reply_is_cut_takes_effect() {
        let (proxy, _server, mut heard) = echo().await;
        proxy.set(Mode::CutReplies { after: Duration::ZERO });
        let mut stream = connect(&proxy).await;
        assert_eq!(ask(&mut stream, 1).await, None);
        heard.wait_for(|heard| *heard == 1).await.unwrap();
    }

    #[tokio::test]
    async fn a_cut_request_arrives_by_half() {
        let (proxy, _server, mut heard) = echo().await;
        proxy.set(Mode::CutRequests { after: Duration::ZERO });
        let mut stream = connect(&proxy).await;
        stream.write_all(&[1, 2, 3, 4]).await.unwrap();
        while answer(&mut stream).await.is_some() {}
        assert!(*heard.borrow_and_update() <= 2);
    }

    #[test]
    fn connections_below_the_age_are_not_cut() {
        let cut = Mode::CutReplies { after: Duration::from_millis(100) };
        assert_eq!(step(cut, Direction::Replies, Duration::from_millis(99)), Step::Write);
        assert_eq!(step(cut, Direction::Replies, Duration::from_millis(100)), Step::End);
        assert_eq!(step(cut, Direction::Requests, Duration::from_secs(9)), Step::Write);
    }
}
