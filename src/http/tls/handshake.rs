//! The TLS handshake of one connection.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use rustls::{Error, HandshakeKind, ServerConfig, ServerConnection};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time;
use tracing::debug;

use crate::connections::{Tls, read_first};

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum TlsFailure {
    /// The client sent plain HTTP, which is answered with an explanation.
    Plain,
    /// The client sent something other than TLS.
    Garbage,
    /// Client and gateway have no version, cipher suite or protocol in common.
    Incompatible,
    /// The client shows no certificate, although it must.
    NoCertificate,
    /// The client's certificate is invalid: it has expired, or is from another authority.
    Certificate,
    /// The client refuses, mostly because it does not trust the certificate.
    Alert,
    /// The client closed the connection.
    Closed,
    /// It took too long.
    Timeout,
}

impl TlsFailure {
    pub(in crate::http) const ALL: [Self; 8] = [
        Self::Plain,
        Self::Garbage,
        Self::Incompatible,
        Self::NoCertificate,
        Self::Certificate,
        Self::Alert,
        Self::Closed,
        Self::Timeout,
    ];

    /// The label in metrics.
    pub(in crate::http) fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Garbage => "garbage",
            Self::Incompatible => "incompatible",
            Self::NoCertificate => "no_certificate",
            Self::Certificate => "certificate",
            Self::Alert => "alert",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
        }
    }

    fn of(error: &Error) -> Self {
        debug!(error = %error, "a TLS handshake failed");
        match error {
            Error::AlertReceived(_) => Self::Alert,
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(_) => Self::Certificate,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Incompatible,
            _ => Self::Garbage,
        }
    }

    fn of_socket(error: &io::Error) -> Self {
        let of_tls = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
        of_tls.map_or(Self::Closed, Self::of)
    }
}

/// How long a client may take to read why its handshake failed.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Lets a client read the alert. For the client, the handshake may be complete before its certificate is
/// checked, so it may already have sent a request. If the socket were closed with that unread, the
/// connection would be reset and the alert lost.
async fn let_read(stream: &TcpStream) {
    let _gone = SockRef::from(stream).shutdown(Shutdown::Write);
    let reading = async { while read_first(stream).await.is_ok_and(|read| !read.is_empty()) {} };
    let _late = time::timeout(TOLD_WITHIN, reading).await;
}

/// Does the handshake with a client whose first bytes have been read; returns whether a session was
/// resumed. The caller must limit the time.
pub(in crate::http) async fn shake_hands(
    stream: &TcpStream,
    first: &[u8],
    server: Arc<ServerConfig>,
) -> Result<(Tls, bool), TlsFailure> {
    let session = ServerConnection::new(server).map_err(|error| TlsFailure::of(&error))?;
    let mut tls = Tls::new(session);
    if let Err(error) = tls.take_in(first) {
        // The alert tells the client why; it may be unable to read it.
        let _untold = tls.flush(stream);
        return Err(TlsFailure::of(&error));
    }
    loop {
        poll_fn(|cx| tls.poll_flush(stream, cx)).await.map_err(|error| TlsFailure::of_socket(&error))?;
        if !tls.session().is_handshaking() {
            let is_resumed = tls.session().handshake_kind() == Some(HandshakeKind::Resumed);
            return Ok((tls, is_resumed));
        }
        stream.readable().await.map_err(|error| TlsFailure::of_socket(&error))?;
        match tls.read_more(stream) {
            Ok(0) => return Err(TlsFailure::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let failure = TlsFailure::of_socket(&error);
                if matches!(failure, TlsFailure::NoCertificate | TlsFailure::Certificate) {
                    let_read(stream).await;
                }
                return Err(failure);
            }
        }
    }
}
