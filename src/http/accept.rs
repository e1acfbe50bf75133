//! The accept loop of one thread, which feeds warp's routes.

mod refusing;

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use warp::Reply as _;
use zonewire_protocol::stats::AcceptCounts;

use self::refusing::{Refused, refuse_announced};
use super::arrival::{Entrance, Peer, Way};
use super::caller::Certified;
use super::config::HttpConfig;
use super::door::Door;
use super::entering::{Entered, NothingReceived, ProxyFault, Received, enter, receive_first};
use super::forwarded::Proxies;
use super::handing_over::HandingOver;
use super::listening::Listener;
use super::problem::{Problem, internal};
use super::reserve::Reserve;
use super::tls::Tls;
use super::upgrade::{Arrival, TooMany};
use crate::access::Principal;
use crate::connections::{AddressPermit, Limit, Look, Manager, ShardHandle, Socket, Source, TcpPlace};
use crate::protocol::ProblemCode;
use crate::support::counter::Counter;
use crate::support::panics::contain;
use crate::support::rate::Rates;
use crate::support::seldom::Seldom;

/// The longest request head that hyper buffers.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The longest time that a connection holds a permit of `http.handshake_gate`: slow ones must not delay
/// others.
const GATE_HOLD: Duration = Duration::from_millis(250);

/// How long accepting pauses when the process has no file descriptors left.
const NO_FILES_REST: Duration = Duration::from_millis(100);

/// The shortest interval between log lines about failed accepts.
const FAILURES_SAID_EVERY: Duration = Duration::from_secs(1);

/// How many connections beyond the limits are served at once, to be told why or to ask for health.
pub(crate) const RESERVE_PLACES: usize = 32;

/// Any device that can be opened, to keep a file descriptor in reserve.
const SPARE: &str = "/dev/null";

/// The counters of the accept loops.
pub(crate) type AcceptStats = AcceptCounts<Counter>;

/// What the accept loops of all threads share.
#[derive(Debug)]
pub(crate) struct AcceptParts {
    config: HttpConfig,
    manager: Manager,
    gate: Arc<Semaphore>,
    stats: Arc<AcceptStats>,
    /// Stops accepting, and lets requests in progress finish.
    stop: CancellationToken,
    proxies: Proxies,
    /// Present if the gateway speaks TLS itself.
    tls: Option<Arc<Tls>>,
    /// How many refused connections per second are told why.
    answers: Rates<()>,
    reserve: Arc<Reserve>,
    failures: Mutex<Seldom>,
    proxy_faults: Mutex<Seldom>,
}

impl AcceptParts {
    pub(crate) fn new(
        config: HttpConfig,
        manager: Manager,
        stats: Arc<AcceptStats>,
        stop: CancellationToken,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        Self {
            tls,
            gate: Arc::new(Semaphore::new(config.handshake_gate)),
            proxies: Proxies::of(&config),
            answers: Rates::new(config.refusals_per_s, config.refusals_per_s),
            reserve: Arc::new(Reserve::new(RESERVE_PLACES)),
            failures: Mutex::new(Seldom::every(FAILURES_SAID_EVERY)),
            proxy_faults: Mutex::default(),
            config,
            manager,
            stats,
            stop,
        }
    }

    /// Admits a connection, or names the limit that refuses it. A trusted proxy's connection counts against
    /// the total only, because its client is unknown until a request arrives or the proxy announces it.
    fn admit(&self, peer: Peer, entrance: Entrance, shard: usize) -> Result<Connected, Limit> {
        let is_trusted = self.proxies.trust_peer(peer);
        let source = Some(Source::of(peer.ip())).filter(|_| !is_trusted);
        if let Some(source) = source {
            self.manager.limits().admit_connect(source)?;
        }
        let tcp = Arc::new(self.manager.limits().admit_tcp(source)?);
        let way = self.way(peer, entrance);
        let is_announced = entrance.is_announced && is_trusted;
        Ok(Connected { way, is_announced, shard: self.manager.shard(shard).clone(), tcp, announced: None })
    }

    fn way(&self, peer: Peer, entrance: Entrance) -> Way {
        let is_secure = entrance.speaks_tls && self.tls.is_some();
        Way { peer, is_for_operators: entrance.is_for_operators, is_secure }
    }

    fn tls(&self, way: &Way) -> Option<&Arc<Tls>> {
        self.tls.as_ref().filter(|_| way.is_secure)
    }

    /// Counts a connection that sent nothing which could be answered.
    fn count_nothing_received(&self, nothing: NothingReceived, peer: Peer) {
        self.stats.bad_requests.add(1);
        if let NothingReceived::NoProxyHeader(fault) = nothing {
            let count = match fault {
                ProxyFault::Garbage => &self.stats.proxy_garbage,
                ProxyFault::Timeout => &self.stats.proxy_timeout,
                ProxyFault::Closed => &self.stats.proxy_closed,
            };
            count.add(1);
            if let Some(untold) = self.proxy_faults.lock().may_tell(Instant::now()) {
                let (failed, reason) = (untold + 1, fault.as_str());
                let setting = "http.proxy_protocol, http.trusted_proxies";
                warn!(
                    failed, reason, peer.addr = %peer, setting,
                    "closed connections of trusted proxies that did not begin with a PROXY header"
                );
            }
        }
    }
}

/// An admitted TCP connection.
#[derive(Debug, Clone)]
struct Connected {
    way: Way,
    /// Whether it begins with a PROXY header.
    is_announced: bool,
    shard: ShardHandle,
    tcp: Arc<TcpPlace>,
    /// Counts it against the client address that its proxy announced.
    announced: Option<Arc<AddressPermit>>,
}

impl Connected {
    /// Counts the connection against the client that its proxy announced, as if that client had connected
    /// directly.
    fn announce(&mut self, source: SocketAddr, parts: &AcceptParts) -> Result<(), Limit> {
        self.way.peer = Peer::Net(source);
        // If the announced client is a trusted proxy too, the headers of the requests say whom they come
        // from.
        if !parts.proxies.trust(source.ip()) {
            let source = Source::of(source.ip());
            parts.manager.limits().admit_connect(source)?;
            self.announced = Some(Arc::new(parts.manager.limits().admit_address(source)?));
        }
        Ok(())
    }

    /// Collects what is known about a request. If a proxy passes the request on, its sender's limits are
    /// checked: each of the sender's requests in progress counts as one of its connections, and a request
    /// that opens a stream (`connects`) counts as connecting.
    fn arrival<B>(
        &self,
        request: &Request<B>,
        connects: bool,
        look: &Look,
        handing_over: &HandingOver,
        parts: &AcceptParts,
    ) -> Result<Arrival, Limit> {
        let forwarded = if self.tcp.has_source() || self.announced.is_some() {
            self.announced.clone()
        } else {
            let source = Source::of(parts.proxies.client(self.way.peer, request.headers()));
            if connects {
                parts.manager.limits().admit_connect(source)?;
            }
            Some(Arc::new(parts.manager.limits().admit_address(source)?))
        };
        Ok(Arrival {
            way: self.way,
            shard: self.shard.clone(),
            tcp: Arc::clone(&self.tcp),
            forwarded,
            look: look.clone(),
            handing_over: handing_over.clone(),
        })
    }
}

/// Accepts and serves on this thread, which must be in a `LocalSet`, until stopped; then waits for the
/// requests in progress.
pub(crate) async fn serve(
    listener: Listener,
    entrance: Entrance,
    shard: usize,
    door: Door,
    parts: Arc<AcceptParts>,
) {
    let tasks = TaskTracker::new();
    let here = parts.manager.shard(shard);
    let mut spare = None;
    let refuse = |stream, peer, limit| {
        parts.stats.refused.add(1);
        // Beyond the limit on all connections, some may ask for health, so those are served. A source that
        // connects too often gets only as many answers as are configured, and so do clients that would need
        // a TLS handshake first, which costs more than answering.
        let costs = limit != Limit::Tcp || (entrance.speaks_tls && parts.tls.is_some());
        if costs && !parts.answers.allows((), Instant::now()) {
            parts.stats.refused_unanswered.add(1);
            return;
        }
        let way = parts.way(peer, entrance);
        let is_announced = entrance.is_announced && parts.proxies.trust_peer(peer);
        let refused =
            Refused { way, limit, place: parts.reserve.take(), shard: parts.manager.shard(shard).clone() };
        let (door, parts) = (door.clone(), Arc::clone(&parts));
        task::spawn_local(tasks.track_future(here.counted(async move {
            let stats = Arc::clone(&parts.stats);
            let serving = refused.serve(stream, is_announced, door, parts);
            let _panicked = contain(serving, &stats.panics).await;
        })));
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
                match parts.admit(peer, entrance, shard) {
                    Ok(connected) => {
                        let (door, parts) = (door.clone(), Arc::clone(&parts));
                        task::spawn_local(tasks.track_future(here.counted(async move {
                            let stats = Arc::clone(&parts.stats);
                            let serving = serve_one(stream, connected, door, parts);
                            let _panicked = contain(serving, &stats.panics).await;
                        })));
                    }
                    Err(limit) => refuse(stream, peer, limit),
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
                // The waiting connection may ask for health, so the reserved descriptor is used for it.
                if spare.take().is_some()
                    && let Some(Ok((stream, peer))) = listener.accept().now_or_never()
                {
                    refuse(stream, peer, Limit::Tcp);
                }
                time::sleep(NO_FILES_REST).await;
            }
        }
    }
    // Requests in progress may take a while; meanwhile new connections are refused rather than left
    // waiting.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn serve_one(stream: TcpStream, mut connected: Connected, door: Door, parts: Arc<AcceptParts>) {
    let head_timeout = Duration::from_millis(parts.config.head_timeout_ms);
    let until = Instant::now() + head_timeout;
    // A silent client must not hold a permit of the gate.
    let received = tokio::select! {
        received = receive_first(&stream, connected.is_announced, until) => received,
        () = parts.stop.cancelled() => Err(NothingReceived::Silent),
    };
    let Received { source, first } = match received {
        Ok(received) => received,
        Err(nothing) => return parts.count_nothing_received(nothing, connected.way.peer),
    };
    if let Some(source) = source
        && let Err(limit) = connected.announce(source, &parts)
    {
        return refuse_announced(stream, first, connected, limit, door, parts).await;
    }
    let Ok(place) = Arc::clone(&parts.gate).acquire_owned().await else { return };
    let mut place = GatePlace::take(place);
    let way = connected.way;
    let entering = enter(stream, first, parts.tls(&way), &way, until);
    let entered = tokio::select! {
        entered = place.during(entering) => entered,
        // A client in the handshake has not sent a request yet.
        () = parts.stop.cancelled() => return,
    };
    let served = match entered {
        Err(_counted) => return,
        Ok(Entered::PlainHttp(socket)) => place.during(answer_plain(socket, head_timeout)).await,
        Ok(Entered::Http(socket, certified)) => {
            serve_http(socket, certified, connected, door, &parts, place).await
        }
    };
    if let Err(error) = served {
        parts.stats.bad_requests.add(1);
        debug!(peer.addr = %way.peer, error = %error, "a connection ended with an error");
    }
}

/// A permit of `http.handshake_gate`, which is released after `GATE_HOLD`, whatever its holder does.
struct GatePlace {
    place: Option<OwnedSemaphorePermit>,
    until: Instant,
}

impl GatePlace {
    fn take(place: OwnedSemaphorePermit) -> Self {
        Self { place: Some(place), until: Instant::now() + GATE_HOLD }
    }

    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if self.place.is_some() {
            tokio::select! {
                done = &mut work => return done,
                () = time::sleep_until(self.until) => self.place = None,
            }
        }
        work.await
    }
}

fn http(head_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        // A client may close its sending side after its request and still wait for the answer.
        .half_close(true);
    builder
}

async fn serve_http(
    socket: Socket,
    certified: Option<Arc<Principal>>,
    connected: Connected,
    door: Door,
    parts: &Arc<AcceptParts>,
    mut place: GatePlace,
) -> hyper::Result<()> {
    let way = connected.way;
    let handing_over = HandingOver::default();
    let (asked, look, handed) = (Arc::clone(parts), socket.look(), handing_over.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        door.enter(&mut request);
        let connects = request.headers().contains_key(UPGRADE) || door.is_stream(&request, Some(&way));
        let (arrival, too_many) = match connected.arrival(&request, connects, &look, &handed, &asked) {
            Ok(arrival) => (Some(arrival), None),
            Err(limit) => {
                let too_many = || {
                    let Connected { shard, tcp, .. } = connected.clone();
                    TooMany { limit, manager: asked.manager.clone(), shard, tcp: Some(tcp) }
                };
                (None, (!door.is_probe(&request, Some(&way))).then(too_many))
            }
        };
        if let Some(arrival) = arrival.clone() {
            request.extensions_mut().insert(arrival);
        }
        let certified = certified.clone();
        // A proxy's certificate identifies the proxy, not its clients.
        if let Some(principal) = &certified
            && !asked.proxies.pass_on(way.peer, request.headers())
        {
            request.extensions_mut().insert(Certified(Arc::clone(principal)));
        }
        let (door, asked) = (door.clone(), Arc::clone(&asked));
        async move {
            // The request counts until it is answered.
            let _arrival = arrival;
            let answered = contain(door.answer(request, Some(way), too_many), &asked.stats.panics).await;
            let mut answered = answered.unwrap_or_else(|| internal().into_response());
            if let (Some(principal), Some(tls)) = (&certified, asked.tls(&way))
                && answered.status() != StatusCode::SWITCHING_PROTOCOLS
                && !tls.still_welcomes(principal)
            {
                // In the next handshake, the client may show a valid certificate.
                answered.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answered)
        }
    });
    let head_timeout = Duration::from_millis(parts.config.head_timeout_ms);
    let connection = http(head_timeout).serve_connection(TokioIo::new(socket), service).with_upgrades();
    tokio::pin!(connection);
    let serving = async {
        tokio::select! {
            served = &mut connection => return served,
            () = parts.stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    let served = place.during(serving).await;
    handing_over.end(served.is_ok()).await;
    served
}

/// Answers a plain HTTP request on a port that speaks TLS.
async fn answer_plain(socket: Socket, head_timeout: Duration) -> hyper::Result<()> {
    let service = service_fn(|_request: Request<Incoming>| async {
        let detail = "this port speaks TLS: use https:// or wss://";
        Ok::<_, Infallible>(Problem::new(ProblemCode::TlsRequired, detail).into_response())
    });
    http(head_timeout).keep_alive(false).serve_connection(TokioIo::new(socket), service).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::LocalSet;
    use warp::Filter as _;

    use super::*;
    use crate::connections::{self, ConnectionsConfig};

    /// Yields to other tasks until the condition holds.
    async fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn slow_heads_hold_up_others_no_longer_than_the_gate_holds_them() {
        // Neither the head timeout nor silence may end a connection in this test.
        let config = HttpConfig { handshake_gate: 2, head_timeout_ms: 3_600_000, ..HttpConfig::default() };
        let (manager, _seeds, _live) = connections::prepare(1, &ConnectionsConfig::default());
        let (stats, stop) = (Arc::new(AcceptStats::default()), CancellationToken::new());
        let routes = warp::any().map(|| StatusCode::NO_CONTENT.into_response()).boxed();
        let door = Door::to_one(routes, &config, stop.clone()).await;
        let parts = Arc::new(AcceptParts::new(config, manager, Arc::clone(&stats), stop.clone(), None));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tests = async {
            let listener = Listener::Tcp(listener);
            let serving = serve(listener, Entrance::default(), 0, door, Arc::clone(&parts));
            let serving = task::spawn_local(serving);
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
