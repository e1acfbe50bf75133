//! Describes the errors of libraries in words for people who did not choose those libraries.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};
use tokio_tungstenite::tungstenite::Error as SocketError;

use super::SendError;

/// Why a request got no answer.
pub(super) fn of_request(error: &SendError) -> String {
    match error {
        SendError::Timeout => return "no answer in time".to_owned(),
        SendError::TooLong => return "the answer is too long".to_owned(),
        _ => {}
    }
    if let Some(words) = of_causes(error) {
        return words;
    }
    if error.is_absent() { "it is unreachable".to_owned() } else { "the connection broke off".to_owned() }
}

/// Why a WebSocket could not be opened, or ended.
pub(super) fn of_socket(error: &SocketError) -> String {
    if let Some(words) = of_causes(error) {
        return words;
    }
    let words = match error {
        SocketError::Protocol(protocol) if protocol.to_string().contains("closing handshake") => {
            "the connection broke off"
        }
        SocketError::ConnectionClosed | SocketError::AlreadyClosed => "the connection was closed",
        SocketError::Protocol(_) | SocketError::HttpFormat(_) => "the server does not speak WebSocket",
        SocketError::Capacity(_) => "a message is too large",
        SocketError::Utf8(_) => "a message is not UTF-8",
        SocketError::Tls(_) => NO_TLS,
        _ => "it is unreachable",
    };
    words.to_owned()
}

const NO_TLS: &str = "the server does not speak TLS; should the address begin with http://?";

/// The outermost cause that means something to people.
fn of_causes(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            // The `source` of an `io::Error` skips the error that it wraps.
            let wrapped = io.get_ref().and_then(|wrapped| of_causes(wrapped));
            if let Some(words) = wrapped.or_else(|| of_io(io)) {
                return Some(words);
            }
        }
        if let Some(words) = error.downcast_ref::<rustls::Error>().map(of_tls) {
            return Some(words);
        }
        // For example, when a TLS alert is parsed as HTTP.
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return Some(
                "the server does not speak HTTP; should the address begin with https://?".to_owned(),
            );
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
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "there is no route to that address"
        }
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
                "its certificate is for another host"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet"
            }
            // It is `BadSignature` if an authority of the same name is trusted.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is from an authority that is not trusted here"
            }
            _ => "its certificate is not trusted here",
        },
        rustls::Error::InvalidMessage(_) => NO_TLS,
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => "it requires a client certificate",
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::UnknownCA => "it rejected the client certificate",
            _ => "the TLS handshake failed",
        },
        _ => "the TLS handshake failed",
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
            (io::ErrorKind::Unsupported, "it is unreachable"),
        ] {
            assert_eq!(of_socket(&SocketError::Io(kind.into())), expected);
        }
        let tls = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let error = SocketError::Io(io::Error::new(io::ErrorKind::InvalidData, tls));
        assert_eq!(of_socket(&error), NO_TLS);
        for (tls, expected) in [
            (
                rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
                "it requires a client certificate",
            ),
            (rustls::Error::AlertReceived(AlertDescription::UnknownCA), "it rejected the client certificate"),
            (CertificateError::NotValidForName.into(), "its certificate is for another host"),
            (CertificateError::Expired.into(), "its certificate has expired"),
            (
                CertificateError::UnknownIssuer.into(),
                "its certificate is from an authority that is not trusted here",
            ),
            (
                CertificateError::BadSignature.into(),
                "its certificate is from an authority that is not trusted here",
            ),
            (CertificateError::BadEncoding.into(), "its certificate is not trusted here"),
        ] {
            let error = SocketError::Io(io::Error::new(io::ErrorKind::InvalidData, tls));
            assert_eq!(of_socket(&error), expected);
        }
    }
}
