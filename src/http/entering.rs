//! Turns an accepted connection into one that speaks HTTP: reads its first bytes and its proxy's header,
//! and does the TLS handshake.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};

use super::arrival::Way;
use super::proxy_header::{self, Read};
use super::tls::{Tls, TlsFailure};
use crate::access::Principal;
use crate::connections::{Socket, read_first};

/// The first byte of every TLS handshake.
const HANDSHAKE: u8 = 0x16;

/// The first bytes of a connection.
#[derive(Debug)]
pub(super) struct Received {
    /// The client's address, if a proxy announced it.
    pub(super) source: Option<SocketAddr>,
    pub(super) first: Bytes,
}

/// Why a connection came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NothingReceived {
    /// Nothing arrived, or not everything in time.
    Silent,
    /// A trusted proxy did not begin with the required header, or did not complete it.
    NoProxyHeader(ProxyFault),
}

/// What is wrong with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyFault {
    Garbage,
    Timeout,
    Closed,
}

impl ProxyFault {
    /// The label in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

/// Waits for the client's first bytes, and before that for its proxy's header if there must be one
/// (`is_announced`).
pub(super) async fn receive_first(
    stream: &TcpStream,
    is_announced: bool,
    until: Instant,
) -> Result<Received, NothingReceived> {
    let first = async || {
        let first = time::timeout_at(until, read_first(stream)).await;
        first.ok().and_then(Result::ok).filter(|first| !first.is_empty()).ok_or(NothingReceived::Silent)
    };
    if !is_announced {
        return Ok(Received { source: None, first: first().await? });
    }
    let announced = time::timeout_at(until, announced(stream)).await;
    let mut received = announced
        .map_err(|_elapsed| NothingReceived::NoProxyHeader(ProxyFault::Timeout))?
        .map_err(NothingReceived::NoProxyHeader)?;
    if received.first.is_empty() {
        received.first = first().await?;
    }
    Ok(received)
}

/// Reads a proxy's header, and what arrives with it.
async fn announced(stream: &TcpStream) -> Result<Received, ProxyFault> {
    let mut all = BytesMut::new();
    loop {
        let more = read_first(stream).await.ok().filter(|more| !more.is_empty());
        all.extend_from_slice(&more.ok_or(ProxyFault::Closed)?);
        match proxy_header::read(&all) {
            Read::Part => {}
            Read::Whole { len, source } => {
                return Ok(Received { source, first: all.freeze().slice(len..) });
            }
            Read::Garbage => return Err(ProxyFault::Garbage),
        }
    }
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) enum Entered {
    /// As intended; with the principal of the client's certificate, if it showed a listed one.
    Http(Socket, Option<Arc<Principal>>),
    /// Plain HTTP on a port that speaks TLS, which is answered with an explanation.
    PlainHttp(Socket),
}

/// Does the TLS handshake on ports that speak TLS. Failures are counted.
pub(super) async fn enter(
    stream: TcpStream,
    first: Bytes,
    tls: Option<&Arc<Tls>>,
    way: &Way,
    until: Instant,
) -> Result<Entered, TlsFailure> {
    let Some(tls) = tls else { return Ok(Entered::Http(Socket::begun(stream, first), None)) };
    if first.first() != Some(&HANDSHAKE) {
        let is_text = first.first().is_some_and(u8::is_ascii_uppercase);
        let failure = if is_text { TlsFailure::Plain } else { TlsFailure::Garbage };
        tls.count_failure(failure, &way.peer);
        return if is_text { Ok(Entered::PlainHttp(Socket::begun(stream, first))) } else { Err(failure) };
    }
    let welcomed = time::timeout_at(until, tls.welcome(&stream, &first, way)).await;
    match welcomed.unwrap_or(Err(TlsFailure::Timeout)) {
        Ok((session, certified)) => Ok(Entered::Http(Socket::with_tls(stream, session), certified)),
        Err(failure) => {
            tls.count_failure(failure, &way.peer);
            Err(failure)
        }
    }
}
