//! From an accepted connection to one that HTTP is spoken on: its first bytes, whom a proxy says that it
//! is for, and TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};

use super::proxy_header::{self, Read};
use super::tls::{Tls, TlsFailure};
use super::way::Way;
use crate::access::Principal;
use crate::connections::{Socket, read_first};

/// How each handshake of TLS begins.
const HANDSHAKE: u8 = 0x16;

/// What was heard first.
#[derive(Debug)]
pub(super) struct Heard {
    /// Where the client is, where a proxy says it.
    pub(super) source: Option<SocketAddr>,
    pub(super) first: Bytes,
}

/// Why nothing comes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unheard {
    /// Nothing came, or not all of it in time.
    Silent,
    /// A trusted proxy began with something else than the header that it must begin with, or did not end it.
    NoHeader(ProxyFault),
}

/// What is wrong with a proxy's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyFault {
    Garbage,
    Timeout,
    Closed,
}

impl ProxyFault {
    /// Its name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

/// Waits for what the client says first, and before that for what its proxy says, where that has to
/// (`is_announced`).
pub(super) async fn hear(stream: &TcpStream, is_announced: bool, until: Instant) -> Result<Heard, Unheard> {
    let silent = |_elapsed| Unheard::Silent;
    if !is_announced {
        let first = time::timeout_at(until, read_first(stream)).await.map_err(silent)?;
        let first = first.ok().filter(|first| !first.is_empty()).ok_or(Unheard::Silent)?;
        return Ok(Heard { source: None, first });
    }
    let announced = time::timeout_at(until, announced(stream)).await;
    let mut heard =
        announced.map_err(|_elapsed| Unheard::NoHeader(ProxyFault::Timeout))?.map_err(Unheard::NoHeader)?;
    if heard.first.is_empty() {
        let first = time::timeout_at(until, read_first(stream)).await.map_err(silent)?;
        heard.first = first.ok().filter(|first| !first.is_empty()).ok_or(Unheard::Silent)?;
    }
    Ok(heard)
}

/// Reads a proxy's header, and what comes with it.
async fn announced(stream: &TcpStream) -> Result<Heard, ProxyFault> {
    let mut all = BytesMut::new();
    loop {
        let more = read_first(stream).await.ok().filter(|more| !more.is_empty());
        all.extend_from_slice(&more.ok_or(ProxyFault::Closed)?);
        match proxy_header::read(&all) {
            Read::Part => {}
            Read::Whole { len, source } => {
                return Ok(Heard { source, first: all.freeze().slice(len..) });
            }
            Read::Garbage => return Err(ProxyFault::Garbage),
        }
    }
}

/// A connection that HTTP is spoken on.
#[derive(Debug)]
pub(super) enum Entered {
    /// As it should be; and who it is that has shown a certificate, if somebody has.
    Rightly(Socket, Option<Arc<Principal>>),
    /// Plain HTTP where TLS is spoken: to be told so.
    Plain(Socket),
}

/// Begins TLS, where that is spoken. What fails is counted.
pub(super) async fn enter(
    stream: TcpStream,
    first: Bytes,
    tls: Option<&Arc<Tls>>,
    way: &Way,
    until: Instant,
) -> Result<Entered, TlsFailure> {
    let Some(tls) = tls else { return Ok(Entered::Rightly(Socket::begun(stream, first), None)) };
    if first.first() != Some(&HANDSHAKE) {
        let is_text = first.first().is_some_and(u8::is_ascii_uppercase);
        let failure = if is_text { TlsFailure::Plain } else { TlsFailure::Garbage };
        tls.count_failure(failure, &way.peer);
        return if is_text { Ok(Entered::Plain(Socket::begun(stream, first))) } else { Err(failure) };
    }
    let welcomed = time::timeout_at(until, tls.welcome(&stream, &first, way)).await;
    match welcomed.unwrap_or(Err(TlsFailure::Timeout)) {
        Ok((session, certified)) => Ok(Entered::Rightly(Socket::with_tls(stream, session), certified)),
        Err(failure) => {
            tls.count_failure(failure, &way.peer);
            Err(failure)
        }
    }
}
