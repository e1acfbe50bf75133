//! A TCP proxy between a gateway and Redis that can do to their link what networks do.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

/// How long the proxy waits for Redis to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Carries bytes.
    Pass,
    /// Resets the connections that there are, and each new one at once.
    Refuse,
    /// Holds bytes back in these directions, and lets them through when it ends: connections stay
    /// open, as where packets are dropped and sent again.
    Hole {
        /// What gateways ask.
        requests: bool,
        /// What Redis answers.
        replies: bool,
    },
    /// Carries requests, and resets the connection instead of a reply, once the connection is this old.
    CutReplies {
        /// How old the connection is by then.
        after: Duration,
    },
    /// Carries one half of a request and resets the connection, once it is this old.
    CutRequests {
        /// How old the connection is by then.
        after: Duration,
    },
}

/// Carries connections until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    _running: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port of this machine.
    pub async fn start(to: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen for the proxy")?;
        let address = listener.local_addr().context("the proxy has no address")?;
        let (mode, seen) = watch::channel(Mode::Pass);
        let mut running = JoinSet::new();
        running.spawn(accept(listener, to, seen));
        Ok(Self { address, mode, _running: running })
    }

    /// Does this from now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, to: SocketAddr, mode: watch::Receiver<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(carry(client, to, mode.clone()));
                }
                // Out of files, for example: others end, and it goes on.
                Err(_) => time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, to its end. Whatever ends it, both sides see a reset.
async fn carry(mut client: TcpStream, to: SocketAddr, mode: watch::Receiver<Mode>) {
    // Where this fails the connection is closed instead, which is as good.
    let _reset = client.set_zero_linger();
    if *mode.borrow() == Mode::Refuse {
        return;
    }
    let Ok(Ok(mut server)) = time::timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await else { return };
    let _reset = (server.set_zero_linger(), server.set_nodelay(true), client.set_nodelay(true));
    let since = Instant::now();
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    tokio::select! {
        () = pump(client_read, server_write, Direction::Requests, since, mode.clone()) => {}
        () = pump(server_read, client_write, Direction::Replies, since, mode) => {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Replies,
}

/// What to do with bytes that came.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Write,
    /// Not until the mode changes.
    Hold,
    /// Write one half and end.
    WriteHalf,
    End,
}

/// Carries one direction until it ends.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    since: Instant,
    mut mode: watch::Receiver<Mode>,
) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            changed = mode.changed() => match changed {
                Ok(()) if *mode.borrow_and_update() != Mode::Refuse => continue,
                _ => return,
            },
        };
        let Ok(read @ 1..) = read else { return };
        let len = loop {
            let now = *mode.borrow_and_update();
            match step(now, direction, since.elapsed()) {
                Step::Write => break read,
                Step::WriteHalf => break read / 2,
                Step::End => return,
                Step::Hold => {
                    if mode.changed().await.is_err() {
                        return;
                    }
                }
            }
        };
        let written = async {
            to.write_all(&bytes[..len]).await?;
            to.flush().await
        };
        tokio::select! {
            written = written => if written.is_err() || len < read { return },
            // A side that stands still takes nothing: the link can end all the same.
            () = refused(&mut mode) => return,
        }
    }
}

async fn refused(mode: &mut watch::Receiver<Mode>) {
    // Without a proxy there is no link.
    let _gone = mode.wait_for(|mode| *mode == Mode::Refuse).await;
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

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.address).await.unwrap()
    }

    #[tokio::test]
    async fn it_passes_and_refuses() {
        let (proxy, _server, _) = echo().await;
        let mut stream = connect(&proxy).await;
        stream.write_all(&[1]).await.unwrap();
        assert_eq!(answer(&mut stream).await, Some(2));
        proxy.set(Mode::Refuse);
        assert_eq!(answer(&mut stream).await, None);
        assert_eq!(answer(&mut connect(&proxy).await).await, None);
        proxy.set(Mode::Pass);
        let mut stream = connect(&proxy).await;
        stream.write_all(&[5]).await.unwrap();
        assert_eq!(answer(&mut stream).await, Some(6));
    }

    #[tokio::test]
    async fn a_hole_holds_what_comes_and_gives_it_when_it_ends() {
        for hole in
            [Mode::Hole { requests: true, replies: false }, Mode::Hole { requests: false, replies: true }]
        {
            let (proxy, _server, mut heard) = echo().await;
            let mut stream = connect(&proxy).await;
            stream.write_all(&[1]).await.unwrap();
            assert_eq!(answer(&mut stream).await, Some(2));
            proxy.set(hole);
            stream.write_all(&[3]).await.unwrap();
            if hole == (Mode::Hole { requests: false, replies: true }) {
                // The request has its effect all the same.
                heard.wait_for(|heard| *heard == 2).await.unwrap();
            }
            let silent = time::timeout(Duration::from_millis(50), stream.read_u8()).await;
            assert!(silent.is_err(), "{hole:?}");
            proxy.set(Mode::Pass);
            assert_eq!(answer(&mut stream).await, Some(4), "{hole:?}");
        }
    }

    #[tokio::test]
    async fn a_reply_that_is_cut_has_had_its_request() {
        let (proxy, _server, mut heard) = echo().await;
        proxy.set(Mode::CutReplies { after: Duration::ZERO });
        let mut stream = connect(&proxy).await;
        stream.write_all(&[1]).await.unwrap();
        assert_eq!(answer(&mut stream).await, None);
        heard.wait_for(|heard| *heard == 1).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_is_cut_is_half_there() {
        let (proxy, _server, mut heard) = echo().await;
        proxy.set(Mode::CutRequests { after: Duration::ZERO });
        let mut stream = connect(&proxy).await;
        stream.write_all(&[1, 2, 3, 4]).await.unwrap();
        while answer(&mut stream).await.is_some() {}
        assert!(*heard.borrow_and_update() <= 2);
    }

    #[test]
    fn young_connections_are_left_alone() {
        let cut = Mode::CutReplies { after: Duration::from_millis(100) };
        assert_eq!(step(cut, Direction::Replies, Duration::from_millis(99)), Step::Write);
        assert_eq!(step(cut, Direction::Replies, Duration::from_millis(100)), Step::End);
        assert_eq!(step(cut, Direction::Requests, Duration::from_secs(9)), Step::Write);
    }
}
