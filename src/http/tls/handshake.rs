//! The handshake of one connection.

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

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum TlsFailure {
    /// Plain HTTP, which is told so.
    Plain,
    /// Something else than TLS.
    Garbage,
    /// The two have no version, cipher or protocol in common.
    Incompatible,
    /// The client shows no certificate, and must.
    NoCertificate,
    /// The certificate that it shows does not hold: its time is over, or another authority has signed it.
    Certificate,
    /// The client refuses: it does not trust the certificate, as a rule.
    Alert,
    /// The client is gone.
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

    /// Its name in metrics.
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

/// How long a client is waited for that is to read why nothing came of its handshake.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Lets a client read what it was told last. Its handshake is over for it when its certificate is looked at, so it
/// may have sent a request by then; closed with that unread, the connection would be reset, and the alert gone.
async fn let_read(stream: &TcpStream) {
    let _gone = SockRef::from(stream).shutdown(Shutdown::Write);
    let reading = async { while read_first(stream).await.is_ok_and(|read| !read.is_empty()) {} };
    let _late = time::timeout(TOLD_WITHIN, reading).await;
}

/// Shakes hands with a client whose first bytes were read already; says whether a session was resumed. To be
/// bounded in time by the caller.
pub(in crate::http) async fn shake_hands(
    stream: &TcpStream,
    first: &[u8],
    server: Arc<ServerConfig>,
) -> Result<(Tls, bool), TlsFailure> {
    let session = ServerConnection::new(server).map_err(|error| TlsFailure::of(&error))?;
    let mut tls = Tls::new(session);
    if let Err(error) = tls.take_in(first) {
        // The alert tells the client why; it may not take it any more.
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
