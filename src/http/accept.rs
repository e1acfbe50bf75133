//! The accept loop of one thread, under warp.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use warp::Reply as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::config::HttpConfig;
use super::problem::internal;
use super::upgrade::Arrival;
use crate::connections::Manager;
use crate::support::counter::Counter;
use crate::support::panics::contain;

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

/// What the accept loops count, since the start.
#[derive(Debug, Default)]
pub(crate) struct AcceptStats {
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) failed: Counter,
    /// Connections that ended without a complete request: garbage, timeouts.
    pub(crate) bad_requests: Counter,
    /// Panics that ended a request.
    pub(crate) panics: Counter,
}

/// What the accept loops of all threads share.
#[derive(Debug)]
pub(crate) struct AcceptParts {
    pub(crate) config: HttpConfig,
    pub(crate) manager: Manager,
    pub(crate) gate: Arc<Semaphore>,
    pub(crate) stats: Arc<AcceptStats>,
    /// Stops accepting, and lets requests under way end.
    pub(crate) stop: CancellationToken,
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
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
pub(crate) async fn serve(
    listener: TcpListener,
    shard: usize,
    routes: BoxedFilter<(Response,)>,
    parts: Arc<AcceptParts>,
) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = parts.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                parts.stats.accepted.add(1);
                let Some(address) = parts.manager.admit_address(peer.ip()) else {
                    // Before any request: closed without a word, since it may be one of very many.
                    parts.stats.refused.add(1);
                    continue;
                };
                let shard = parts.manager.shard(shard).clone();
                let arrival = Arrival { peer, shard, address: Arc::new(address) };
                let (routes, parts) = (routes.clone(), Arc::clone(&parts));
                task::spawn_local(tasks.track_future(async move {
                    let stats = Arc::clone(&parts.stats);
                    let _panicked = contain(serve_one(stream, arrival, routes, parts), &stats.panics).await;
                }));
            }
            Err(error) => {
                parts.stats.failed.add(1);
                warn!(error = %error, "cannot accept a connection");
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
                {
                    time::sleep(NO_FILES_REST).await;
                }
            }
        }
    }
    // Requests under way may take a while; whoever connects meanwhile is refused, not left waiting.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn serve_one(
    stream: TcpStream,
    arrival: Arrival,
    routes: BoxedFilter<(Response,)>,
    parts: Arc<AcceptParts>,
) {
    let head_timeout = Duration::from_millis(parts.config.head_timeout_ms);
    // A client that says nothing must not hold a place in the gate.
    let first_bytes = time::timeout(head_timeout, stream.readable());
    let spoke = tokio::select! {
        spoke = first_bytes => spoke.is_ok_and(|ready| ready.is_ok()),
        () = parts.stop.cancelled() => false,
    };
    if !spoke {
        parts.stats.bad_requests.add(1);
        return;
    }
    let Ok(place) = Arc::clone(&parts.gate).acquire_owned().await else { return };
    let (peer, stats) = (arrival.peer, Arc::clone(&parts.stats));
    let service = TowerToHyperService::new(warp::service(routes));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(arrival.clone());
        let (answer, stats) = (service.call(request), Arc::clone(&stats));
        async move {
            let answered = contain(answer, &stats.panics).await;
            answered.unwrap_or_else(|| Ok(internal().into_response()))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
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
    if let Err(error) = served {
        parts.stats.bad_requests.add(1);
        debug!(peer.addr = %peer, error = %error, "a connection ended badly");
    }
}
