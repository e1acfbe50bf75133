//! Connections beyond the limits: a few are told why, or served if they ask for health.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tracing::debug;

use super::{AcceptParts, Connected, answer_plain, http};
use crate::connections::{Limit, ShardHandle};
use crate::http::arrival::Way;
use crate::http::door::Door;
use crate::http::entering::{Entered, Received, enter, receive_first};
use crate::http::reserve::ReservePlace;
use crate::http::upgrade::TooMany;

/// How long such a connection may take to send its request, and in total.
const RESERVE_HEAD: Duration = Duration::from_secs(1);
const RESERVE_HOLD: Duration = Duration::from_secs(3);

/// A connection beyond a limit.
pub(super) struct Refused {
    pub(super) way: Way,
    pub(super) limit: Limit,
    pub(super) place: ReservePlace,
    pub(super) shard: ShardHandle,
}

impl Refused {
    /// Serves one short request: health, or the reason of the refusal.
    pub(super) async fn serve(
        self,
        stream: TcpStream,
        is_announced: bool,
        door: Door,
        parts: Arc<AcceptParts>,
    ) {
        let until = Instant::now() + RESERVE_HOLD;
        let serving = async {
            let received = receive_first(&stream, is_announced, Instant::now() + RESERVE_HEAD).await;
            let Ok(Received { first, .. }) = received else { return };
            self.serve_received(stream, first, door, Arc::clone(&parts), until).await;
        };
        self.bounded(serving, until, &parts).await;
    }

    /// Serves until the time is up, a newer connection takes the place, or the gateway stops. However the
    /// request ends, the connection is closed.
    async fn bounded(&self, serving: impl Future<Output = ()>, until: Instant, parts: &AcceptParts) {
        tokio::select! {
            () = serving => {}
            () = self.place.lost.cancelled() => {}
            () = time::sleep_until(until) => {}
            () = parts.stop.cancelled() => {}
        }
    }

    async fn serve_received(
        &self,
        stream: TcpStream,
        first: Bytes,
        door: Door,
        parts: Arc<AcceptParts>,
        until: Instant,
    ) {
        let Self { way, limit, shard, .. } = self;
        let (way, limit, asked) = (*way, *limit, Arc::clone(&parts));
        let service = service_fn(move |mut request: Request<Incoming>| {
            door.enter(&mut request);
            let too_many = (!door.is_probe(&request, Some(&way))).then(|| {
                let manager = asked.manager.clone();
                TooMany { limit, manager, shard: shard.clone(), tcp: None }
            });
            let is_told =
                too_many.is_none() || limit != Limit::Tcp || asked.answers.allows((), Instant::now());
            let (door, asked) = (door.clone(), Arc::clone(&asked));
            async move {
                if is_told {
                    return Ok(door.answer(request, Some(way), too_many).await);
                }
                asked.stats.refused_unanswered.add(1);
                // hyper closes the connection without an answer.
                Err(io::Error::other("too many connections are refused to tell each of them why"))
            }
        });
        let entered = enter(stream, first, parts.tls(&way), &way, until).await;
        let served = match entered {
            Err(_counted) => return,
            Ok(Entered::PlainHttp(socket)) => answer_plain(socket, RESERVE_HEAD).await,
            // The client's certificate does not matter, because the connection is refused anyway.
            Ok(Entered::Http(socket, _certified)) => {
                let mut http = http(RESERVE_HEAD);
                let socket = TokioIo::new(socket);
                http.keep_alive(false).serve_connection(socket, service).with_upgrades().await
            }
        };
        if let Err(error) = served {
            debug!(peer.addr = %way.peer, error = %error, "a refused connection ended with an error");
        }
    }
}

/// Refuses a connection because of the address that its proxy announced.
pub(super) async fn refuse_announced(
    stream: TcpStream,
    first: Bytes,
    connected: Connected,
    limit: Limit,
    door: Door,
    parts: Arc<AcceptParts>,
) {
    parts.stats.refused.add(1);
    if !parts.answers.allows((), Instant::now()) {
        parts.stats.refused_unanswered.add(1);
        return;
    }
    let place = parts.reserve.take();
    let refused = Refused { way: connected.way, limit, place, shard: connected.shard.clone() };
    let until = Instant::now() + RESERVE_HOLD;
    let serving = refused.serve_received(stream, first, door, Arc::clone(&parts), until);
    refused.bounded(serving, until, &parts).await;
}
