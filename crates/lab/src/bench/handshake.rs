//! The opening handshake, written by hand so that its buffers do not outlive it.

use tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::target::Endpoint;

/// The longest response head that is read.
const HEAD_LEN_MAX: usize = 16 * 1024;

/// A handshake that was sent and not answered yet.
#[derive(Debug)]
pub(super) struct Handshake {
    key: String,
}

/// Why a response does not open the connection. Reports count failures by these texts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("status {0}")]
    Status(u16),
    #[error("wrong sec-websocket-accept")]
    Accept,
    #[error("not an http response")]
    Malformed,
    #[error("response head over 16 KiB")]
    TooLong,
}

impl Handshake {
    /// A new handshake and the request that begins it.
    pub(super) fn begin(endpoint: &Endpoint, headers: &[String]) -> (Self, Vec<u8>) {
        let key = generate_key();
        let extra: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let token = endpoint.token.line();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{token}{extra}\r\n",
            endpoint.path, endpoint.host
        );
        (Self { key }, request.into_bytes())
    }

    /// Checks the response at the front of `bytes`. Returns the length of its head, or `None` while it is
    /// incomplete.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<Option<usize>, HandshakeError> {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
            return if bytes.len() > HEAD_LEN_MAX { Err(HandshakeError::TooLong) } else { Ok(None) };
        };
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| HandshakeError::Malformed)?;
        let mut lines = head.split("\r\n");
        match lines.next().and_then(status) {
            Some(101) => {}
            Some(other) => return Err(HandshakeError::Status(other)),
            None => return Err(HandshakeError::Malformed),
        }
        let accept = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"))
            .map(|(_, value)| value.trim());
        if accept != Some(derive_accept_key(self.key.as_bytes()).as_str()) {
            return Err(HandshakeError::Accept);
        }
        Ok(Some(end + 4))
    }
}

/// The status of an HTTP/1.1 response line.
pub(super) fn status(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::target::Token;

    fn begin() -> (Handshake, String) {
        let endpoint = Endpoint {
            address: ([127, 0, 0, 1], 80).into(),
            host: "h:80".into(),
            path: "/ws?a=b".into(),
            token: Token::new("abc").unwrap(),
        };
        let (handshake, request) = Handshake::begin(&endpoint, &["X-A: b".to_owned()]);
        (handshake, String::from_utf8(request).unwrap())
    }

    fn response(handshake: &Handshake) -> String {
        let accept = derive_accept_key(handshake.key.as_bytes());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        )
    }

    #[test]
    fn the_request_is_complete() {
        let (handshake, request) = begin();
        assert!(request.starts_with("GET /ws?a=b HTTP/1.1\r\nHost: h:80\r\n"));
        assert!(request.contains(&format!("Sec-WebSocket-Key: {}\r\n", handshake.key)));
        assert!(request.ends_with("\r\nAuthorization: Bearer abc\r\nX-A: b\r\n\r\n"));
    }

    #[test]
    fn a_response_counts_only_when_complete() {
        let (handshake, _) = begin();
        let response = response(&handshake);
        for at in 0..response.len() {
            assert_eq!(handshake.check(&response.as_bytes()[..at]), Ok(None));
        }
        let with_frame = [response.as_bytes(), b"\x81\x01a"].concat();
        assert_eq!(handshake.check(&with_frame), Ok(Some(response.len())));
    }

    #[test]
    fn other_answers_are_refused_with_a_reason() {
        let (handshake, _) = begin();
        let check = |text: &str| handshake.check(text.as_bytes());
        assert_eq!(check("HTTP/1.1 503 Busy\r\n\r\n"), Err(HandshakeError::Status(503)));
        assert_eq!(check("SSH-2.0\r\n\r\n"), Err(HandshakeError::Malformed));
        assert_eq!(check("HTTP/1.1 101 X\r\n\r\n"), Err(HandshakeError::Accept));
        assert_eq!(check("HTTP/1.1 101 X\r\nSec-WebSocket-Accept: bad\r\n\r\n"), Err(HandshakeError::Accept));
        assert_eq!(check(&"x".repeat(HEAD_LEN_MAX + 1)), Err(HandshakeError::TooLong));
    }
}
