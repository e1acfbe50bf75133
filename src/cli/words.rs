//! What libraries say, in words for people who did not choose them.

use std::error::Error;
use std::io;
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};
use std::str::ParseBoolError;

use tokio_tungstenite::tungstenite::Error as SocketError;

/// What is wrong with an argument that is a plain number or so; `None` where the error says it itself.
pub(super) fn of_argument(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<ParseIntError>() {
        let words = match error.kind() {
            IntErrorKind::Zero => "expected a whole number, 1 or more",
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                "expected a whole number that is less large"
            }
            _ => "expected a whole number",
        };
        return Some(words.to_owned());
    }
    if error.is::<ParseFloatError>() {
        return Some("expected a number such as 1.5".to_owned());
    }
    if error.is::<ParseBoolError>() {
        return Some("expected true or false".to_owned());
    }
    // clap's ranges have no type of their own: `0 is not in 1..=9`.
    let text = error.to_string();
    let (_, range) = text.split_once(" is not in ")?;
    let (first, last) = range.split_once("..")?;
    Some(match last.trim_start_matches('=') {
        "" => format!("expected a whole number, {first} or more"),
        last => format!("expected a whole number from {first} to {last}"),
    })
}

/// Why a request got no answer.
pub(super) fn of_request(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if let Some(words) = of_causes(error) {
        return words;
    }
    if error.is_connect() { "it cannot be reached".to_owned() } else { "the connection broke off".to_owned() }
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
    match error {
        rustls::Error::InvalidCertificate(_) => {
            "its certificate is not one that this machine trusts".to_owned()
        }
        rustls::Error::InvalidMessage(_) => NO_TLS.to_owned(),
        _ => "no TLS connection came about".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_asked_for_in_plain_words() {
        let of = |error: Box<dyn Error>| of_argument(&*error);
        let range = |text: &str| Box::<dyn Error>::from(text);
        for (error, expected) in [
            ("x".parse::<u32>().unwrap_err().into(), Some("expected a whole number")),
            (
                "0".parse::<std::num::NonZeroU32>().unwrap_err().into(),
                Some("expected a whole number, 1 or more"),
            ),
            ("300".parse::<u8>().unwrap_err().into(), Some("expected a whole number that is less large")),
            ("x".parse::<f64>().unwrap_err().into(), Some("expected a number such as 1.5")),
            ("x".parse::<bool>().unwrap_err().into(), Some("expected true or false")),
            (range("0 is not in 1..=9"), Some("expected a whole number from 1 to 9")),
            (range("0 is not in 1.."), Some("expected a whole number, 1 or more")),
            ("its own words".into(), None),
        ] as [(Box<dyn Error>, _); 8]
        {
            assert_eq!(of(error).as_deref(), expected);
        }
    }

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
    }
}
