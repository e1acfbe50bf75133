//! The accept loop of one thread, under warp.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::UPGRADE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use socket2::{Domain, Protocol, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use warp::Reply as _;
use zonewire_protocol::stats::AcceptCounts;

use super::config::HttpConfig;
use super::door::Door;
use super::forwarded::Proxies;
use super::handing_over::HandingOver;
use super::problem::internal;
use super::reserve::{Reserve, ReservePlace};
use super::upgrade::{Arrival, TooMany};
use crate::connections::{Limit, Look, Manager, ShardHandle, Socket, Source, TcpPlace, read_first};
use crate::support::counter::Counter;
use crate::support::panics::contain;
use crate::support::rate::Rates;
use crate::support::seldom::Seldom;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// hyper's largest buffer for a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long a connection holds a place in the gate at the most, so that slow clients hold up nobody.
const GATE_HOLD: Duration = Duration::from_millis(250);

/// A peer that is gone without a word is noticed after about this.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A peer that takes nothing of what was sent for so long is cut off by the kernel, whatever it was.
#[cfg(target_os = "linux")]
const UNREAD_FOR_MAX: Duration = Duration::from_secs(90);

/// Unsent bytes in the kernel from which on a socket takes no more.
#[cfg(target_os = "linux")]
const NOTSENT_LOWAT: u32 = 16 << 10;

/// How long accepting rests when the process has no file descriptors left.
const NO_FILES_REST: Duration = Duration::from_millis(100);

/// Between two lines of the log about accepts that fail.
const FAILURES_SAID_EVERY: Duration = Duration::from_secs(1);

/// Connections at once that are one too many, and are told so, or ask for health.
pub(crate) const RESERVE_PLACES: usize = 32;

/// How long such a connection may take to send its request, and all in all.
const RESERVE_HEAD: Duration = Duration::from_secs(1);
const RESERVE_HOLD: Duration = Duration::from_secs(3);

/// Some device that can be opened, to hold a file descriptor in reserve.
const SPARE: &str = "/dev/null";

/// What the accept loops count.
pub(crate) type AcceptStats = AcceptCounts<Counter>;

/// What the accept loops of all threads share.
#[derive(Debug)]
pub(crate) struct AcceptParts {
    config: HttpConfig,
    manager: Manager,
    gate: Arc<Semaphore>,
    stats: Arc<AcceptStats>,
    /// Stops accepting, and lets requests under way end.
    stop: CancellationToken,
    proxies: Proxies,
    /// How many refused connections are told why.
    answers: Rates<()>,
    reserve: Arc<Reserve>,
    failures: Mutex<Seldom>,
}

impl AcceptParts {
    pub(crate) fn new(
        config: HttpConfig,
        manager: Manager,
        stats: Arc<AcceptStats>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            gate: Arc::new(Semaphore::new(config.handshake_gate)),
            proxies: Proxies::of(&config),
            answers: Rates::new(config.refusals_per_s, config.refusals_per_s),
            reserve: Arc::new(Reserve::new(RESERVE_PLACES)),
            failures: Mutex::new(Seldom::every(FAILURES_SAID_EVERY)),
            config,
            manager,
            stats,
            stop,
        }
    }

    /// Lets a connection in, or says which limit refuses it. Those of a trusted proxy count in all
    /// only: whom they are for is known when a request comes.
    fn admit(&self, peer: SocketAddr, shard: usize) -> Result<Connected, Limit> {
        let source = Some(Source::of(peer.ip())).filter(|_| !self.proxies.trust(peer.ip()));
        if let Some(source) = source {
            self.manager.admit_connect(source)?;
        }
        let tcp = Arc::new(self.manager.admit_tcp(source)?);
        Ok(Connected { peer, shard: self.manager.shard(shard).clone(), tcp })
    }
}

/// A TCP connection that was let in.
#[derive(Debug, Clone)]
struct Connected {
    peer: SocketAddr,
    shard: ShardHandle,
    tcp: Arc<TcpPlace>,
}

impl Connected {
    /// What is known when a request comes; of one that a proxy passes on, whether its sender may send
    /// it: requests under way count as connections of theirs, and what opens a stream (`connects`) as connecting.
    fn arrival<B>(
        &self,
        request: &Request<B>,
        connects: bool,
        look: &Look,
        handing_over: &HandingOver,
        parts: &AcceptParts,
    ) -> Result<Arrival, Limit> {
        let forwarded = if self.tcp.has_source() {
            None
        } else {
            let source = Source::of(parts.proxies.client(self.peer.ip(), request.headers()));
            if connects {
                parts.manager.admit_connect(source)?;
            }
            Some(Arc::new(parts.manager.admit_address(source)?))
        };
        Ok(Arrival {
            peer: self.peer,
            shard: self.shard.clone(),
            tcp: Arc::clone(&self.tcp),
            forwarded,
            look: look.clone(),
            handing_over: handing_over.clone(),
        })
    }

    /// What is needed to say that a request is one too many.
    fn too_many(&self, limit: Limit, parts: &AcceptParts) -> TooMany {
        let (manager, tcp) = (parts.manager.clone(), Some(Arc::clone(&self.tcp)));
        TooMany { limit, manager, shard: self.shard.clone(), tcp }
    }
}

/// Listeners for `count` threads on one address, and the address.
///
/// # Errors
/// The address is taken or not this machine's.
pub(crate) fn listen(
    address: SocketAddr,
    count: usize,
) -> io::Result<(Vec<std::net::TcpListener>, SocketAddr)> {
    if address.port() != 0 {
        // SO_REUSEPORT would let a second gateway of this user share the port without a word.
        drop(listener(address, false)?);
    }
    let first = listener(address, true)?;
    let address = first.local_addr()?;
    let others = (1..count).map(|_| listener(address, true));
    let listeners = std::iter::once(Ok(first)).chain(others).collect::<io::Result<_>>()?;
    Ok((listeners, address))
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Inherited by what is accepted. The second one keeps stale messages out of the kernel's
    // buffers: a backlog shows when 16 KiB are unsent, not megabytes later.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        socket.set_tcp_user_timeout(Some(UNREAD_FOR_MAX))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts and serves on this thread, which must be in a `LocalSet`, until stopped; then waits for
/// the requests under way.
pub(crate) async fn serve(listener: TcpListener, shard: usize, door: Door, parts: Arc<AcceptParts>) {
    let tasks = TaskTracker::new();
    let mut spare = None;
    let refuse = |stream, limit| {
        parts.stats.refused.add(1);
        // Of all that are one too many some may ask for health. Of one source that comes too often, as
        // few as are told why.
        if limit != Limit::Tcp && !parts.answers.allows((), Instant::now()) {
            parts.stats.refused_unanswered.add(1);
            return;
        }
        let (place, door, parts) = (parts.reserve.take(), door.clone(), Arc::clone(&parts));
        let on = parts.manager.shard(shard).clone();
        task::spawn_local(tasks.track_future(async move {
            let stats = Arc::clone(&parts.stats);
            let serving = serve_refused(stream, limit, place, door, parts, on);
            let _panicked = contain(serving, &stats.panics).await;
        }));
    };
    loop {
        if spare.is_none() {
            spare = File::open(SPARE).ok();
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = parts.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                parts.stats.accepted.add(1);
                match parts.admit(peer, shard) {
                    Ok(connected) => {
                        let (door, parts) = (door.clone(), Arc::clone(&parts));
                        task::spawn_local(tasks.track_future(async move {
                            let stats = Arc::clone(&parts.stats);
                            let serving = serve_one(stream, connected, door, parts);
                            let _panicked = contain(serving, &stats.panics).await;
                        }));
                    }
                    Err(limit) => refuse(stream, limit),
                }
            }
            Err(error) => {
                parts.stats.accept_failures.add(1);
                let told = parts.failures.lock().may_tell(Instant::now());
                if let Some(untold) = told {
                    warn!(failures = untold + 1, error = %error, "cannot accept connections");
                }
                if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    continue;
                }
                // Whoever waits may ask for health: the spare descriptor is for one of them.
                if spare.take().is_some()
                    && let Some(Ok((stream, _))) = listener.accept().now_or_never()
                {
                    refuse(stream, Limit::Tcp);
                }
                time::sleep(NO_FILES_REST).await;
            }
        }
    }
    // Requests under way may take a while; whoever connects meanwhile is refused, not left waiting.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn serve_one(stream: TcpStream, connected: Connected, door: Door, parts: Arc<AcceptParts>) {
    let head_timeout = Duration::from_millis(parts.config.head_timeout_ms);
    // A client that says nothing must not hold a place in the gate.
    let first = tokio::select! {
        first = time::timeout(head_timeout, read_first(&stream)) => first,
        () = parts.stop.cancelled() => Ok(Ok(Bytes::new())),
    };
    let Some(first) = first.ok().and_then(Result::ok).filter(|first| !first.is_empty()) else {
        parts.stats.bad_requests.add(1);
        return;
    };
    let Ok(place) = Arc::clone(&parts.gate).acquire_owned().await else { return };
    let peer = connected.peer;
    let (socket, handing_over) = (Socket::begun(stream, first), HandingOver::default());
    let (asked, look, handed) = (Arc::clone(&parts), socket.look(), handing_over.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        door.enter(&mut request);
        let connects = request.headers().contains_key(UPGRADE) || door.is_stream(&request);
        let (arrival, too_many) = match connected.arrival(&request, connects, &look, &handed, &asked) {
            Ok(arrival) => (Some(arrival), None),
            Err(limit) => (None, (!door.is_probe(&request)).then(|| connected.too_many(limit, &asked))),
        };
        if let Some(arrival) = arrival.clone() {
            request.extensions_mut().insert(arrival);
        }
        let (door, asked) = (door.clone(), Arc::clone(&asked));
        async move {
            // It counts until it is answered.
            let _arrival = arrival;
            let answered =
                contain(door.answer(request, Some(peer.ip()), too_many), &asked.stats.panics).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(|| internal().into_response()))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        // Who has sent all and closes its side waits for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut place = Some(place);
    let mut stopping = false;
    let release = time::sleep(GATE_HOLD);
    tokio::pin!(release);
    let served = loop {
        tokio::select! {
            served = &mut connection => break served,
            () = &mut release, if place.is_some() => drop(place.take()),
            () = parts.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    handing_over.end(served.is_ok()).await;
    if let Err(error) = served {
        parts.stats.bad_requests.add(1);
        debug!(peer.addr = %peer, error = %error, "a connection ended badly");
    }
}

/// Serves one short request of a connection that is one too many: health, or why it is refused.
async fn serve_refused(
    stream: TcpStream,
    limit: Limit,
    place: ReservePlace,
    door: Door,
    parts: Arc<AcceptParts>,
    shard: ShardHandle,
) {
    let asked = Arc::clone(&parts);
    let peer = stream.peer_addr().ok().map(|peer| peer.ip());
    let service = service_fn(move |mut request: Request<Incoming>| {
        door.enter(&mut request);
        let too_many = (!door.is_probe(&request)).then(|| {
            let manager = asked.manager.clone();
            TooMany { limit, manager, shard: shard.clone(), tcp: None }
        });
        let is_told = too_many.is_none() || limit != Limit::Tcp || asked.answers.allows((), Instant::now());
        let (door, asked) = (door.clone(), Arc::clone(&asked));
        async move {
            if is_told {
                return Ok(door.answer(request, peer, too_many).await);
            }
            asked.stats.refused_unanswered.add(1);
            // hyper closes the connection without an answer.
            Err(io::Error::other("more are refused than are told why"))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(RESERVE_HEAD)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(Socket::new(stream)), service)
        .with_upgrades();
    // However it ends: it was one too many.
    tokio::select! {
        _ended = connection => {}
        () = place.lost.cancelled() => {}
        () = time::sleep(RESERVE_HOLD) => {}
        () = parts.stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::LocalSet;
    use warp::Filter as _;

    use super::super::room::BodyRoom;
    use super::super::table::ROUTES;
    use super::*;
    use crate::access::Gate;
    use crate::connections::{self, ConnectionsConfig};

    /// Waits, a turn at a time, until something holds.
    async fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn slow_heads_hold_up_others_no_longer_than_the_gate_holds_them() {
        // Neither how long a head may take nor silence ends anything here.
        let config = HttpConfig { handshake_gate: 2, head_timeout_ms: 3_600_000, ..HttpConfig::default() };
        let (manager, _seeds, _live) = connections::prepare(1, &ConnectionsConfig::default());
        let (stats, stop) = (Arc::new(AcceptStats::default()), CancellationToken::new());
        let routes = warp::any().map(|| StatusCode::NO_CONTENT.into_response()).boxed();
        let door = Door::new(
            vec![routes; ROUTES.len()],
            Gate::off().await,
            &config,
            true,
            Arc::default(),
            Arc::new(BodyRoom::new(1)),
            stop.clone(),
        );
        let parts = Arc::new(AcceptParts::new(config, manager, Arc::clone(&stats), stop.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tests = async {
            let serving = task::spawn_local(serve(listener, 0, door, Arc::clone(&parts)));
            let mut silent = Vec::new();
            for _ in 0..5 {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            until("all are accepted", || stats.accepted.get() == 5).await;
            assert_eq!(parts.gate.available_permits(), 2, "who says nothing has no place");
            let mut slow = Vec::new();
            for _ in 0..3 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET / HT").await.unwrap();
                slow.push(stream);
            }
            until("all places are taken", || parts.gate.available_permits() == 0).await;
            let mut whole = TcpStream::connect(address).await.unwrap();
            whole.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            let answered = whole.read_exact(&mut answer);
            time::timeout(Duration::from_secs(20), answered).await.expect("it is served").unwrap();
            assert_eq!(&answer, b"HTTP/1.1 204");
            until("the slow ones have none either", || parts.gate.available_permits() == 2).await;
            assert_eq!((stats.accepted.get(), stats.bad_requests.get()), (9, 0), "nobody was sent away");
            stop.cancel();
            drop((silent, slow, whole));
            serving.await.unwrap();
        };
        LocalSet::new().run_until(tests).await;
    }
}
