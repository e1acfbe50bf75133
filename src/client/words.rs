//! What libraries say of connections, in words for people who did not choose them.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};
use tokio_tungstenite::tungstenite::Error as SocketError;

use super::SendError;

/// Why a request got no answer.
pub(super) fn of_request(error: &SendError) -> String {
    match error {
        SendError::Timeout => return "no answer in time".to_owned(),
        SendError::TooLong => return "the answer is longer than it may be".to_owned(),
        _ => {}
    }
    if let Some(words) = of_causes(error) {
        return words;
    }
    if error.is_absent() { "it cannot be reached".to_owned() } else { "the connection broke off".to_owned() }
}

/// Why a WebSocket did not come about, or ended.
pub(super) fn of_socket(error: &SocketError) -> String {
    if let Some(words) = of_causes(error) {
        return words;
    }
    let words = match error {
        SocketError::Protocol(protocol) if protocol.to_string().contains("closing handshake") => {
            "the connection broke off"
        }
        SocketError::ConnectionClosed | SocketError::AlreadyClosed => "the connection was closed",
        SocketError::Protocol(_) | SocketError::HttpFormat(_) => "what answers does not speak WebSocket",
        SocketError::Capacity(_) => "a message is too large",
        SocketError::Utf8(_) => "a message is not UTF-8",
        SocketError::Tls(_) => NO_TLS,
        _ => "it cannot be reached",
    };
    words.to_owned()
}

const NO_TLS: &str = "what answers does not speak TLS; is it http:// there?";

/// The first cause, from the outermost one, that says something to people.
fn of_causes(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            // What it wraps is not its source.
            let wrapped = io.get_ref().and_then(|wrapped| of_causes(wrapped));
            if let Some(words) = wrapped.or_else(|| of_io(io)) {
                return Some(words);
            }
        }
        if let Some(words) = error.downcast_ref::<rustls::Error>().map(of_tls) {
            return Some(words);
        }
        // Parsing a TLS alert as HTTP, for one.
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return Some("what answers does not speak HTTP; is it https:// there?".to_owned());
        }
        next = error.source();
    }
    None
}

fn of_io(error: &io::Error) -> Option<String> {
    let words = match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => "the connection broke off",
        io::ErrorKind::TimedOut => "no answer in time",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "no way leads to that address",
        // The resolver's errors have no kind of their own.
        _ if error.to_string().contains("lookup address") => "there is no host of that name",
        _ => return None,
    };
    Some(words.to_owned())
}

fn of_tls(error: &rustls::Error) -> String {
    let words = match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is that of another host"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            // The latter where an authority of the same name is trusted.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is of no authority that is trusted here"
            }
            _ => "its certificate is not one that is trusted here",
        },
        rustls::Error::InvalidMessage(_) => NO_TLS,
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => "it wants to be shown a certificate",
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::UnknownCA => "it does not take the certificate that it was shown",
            _ => "no TLS connection came about",
        },
        _ => "no TLS connection came about",
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_connection_is_said_in_plain_words() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, "the connection was refused"),
            (io::ErrorKind::UnexpectedEof, "the connection broke off"),
            (io::ErrorKind::Unsupported, "it cannot be reached"),
        ] {
            assert_eq!(of_socket(&SocketError::Io(kind.into())), expected);
        }
        let tls = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let error = SocketError::Io(io::Error::new(io::ErrorKind::InvalidData, tls));
        assert_eq!(of_socket(&error), NO_TLS);
        for (tls, expected) in [
            (
                rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
                "it wants to be shown a certificate",
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::UnknownCA),
                "it does not take the certificate that it was shown",
            ),
            (CertificateError::NotValidForName.into(), "its certificate is that of another host"),
            (CertificateError::Expired.into(), "its certificate has expired"),
            (
                CertificateError::UnknownIssuer.into(),
                "its certificate is of no authority that is trusted here",
            ),
            (
                CertificateError::BadSignature.into(),
                "its certificate is of no authority that is trusted here",
            ),
            (CertificateError::BadEncoding.into(), "its certificate is not one that is trusted here"),
        ] {
            let error = SocketError::Io(io::Error::new(io::ErrorKind::InvalidData, tls));
            assert_eq!(of_socket(&error), expected);
        }
    }
}
