//! Why a connection ends. The number alone tells a client whether to come back.

use crate::open::words;

words! {
    /// Close codes (RFC 6455, section 7.4). 1000 to 1015 mean what the RFC says; 4000 to 4499 say
    /// "reconnect and resume"; 4500 to 4999 say "do not reconnect".
    pub enum CloseCode {
        /// the client closed so, or the order that the socket was opened on has ended and all was sent
        Normal = "normal",
        /// a frame broke RFC 6455
        ProtocolError = "protocol_error",
        /// a binary message
        Unsupported = "unsupported_data",
        /// never sent: the connection broke
        Abnormal = "abnormal",
        /// a text message was not UTF-8
        InvalidUtf8 = "invalid_utf8",
        /// a message was larger than 64 KiB, or in more than 256 fragments
        TooBig = "message_too_big",
        /// the gateway stops; `retry_after_ms` is spread, so that not all clients come back at once
        ShuttingDown = "shutting_down",
        /// the client read too slowly, or has been behind for longest where too many are
        SlowConsumer = "slow_consumer",
        /// nothing was heard from the client for 75 s
        HeartbeatTimeout = "heartbeat_timeout",
        /// an operator moves the connection: its client comes back, maybe to another gateway
        Moved = "moved",
        /// the client sent too many messages: `retry_after_ms` is when it may send as many again as it may
        /// at first; or it connects too often: `retry_after_ms` is spread; or all connections of its subject, or of
        /// its tenant, did so together: `retry_after_ms` is when they may again
        RateLimited = "rate_limited",
        /// there is no room for the connection, or for what it was opened on: in all, or of its address, its
        /// subject or its tenant; `retry_after_ms` is spread
        TooManyConnections = "too_many_connections",
        /// the token has expired, or the key that it is signed with was withdrawn: come back with a new one
        TokenExpired = "token_expired",
        /// whether the token holds cannot be told yet, since keys of its issuer are being fetched: come back
        /// with the same one after `retry_after_ms`
        KeysAwaited = "keys_awaited",
        /// an operator ended the connection
        Disconnected = "disconnected",
        /// no token came in time, it does not hold, it gives no right to the address, or it was revoked;
        /// only another token can help
        Unauthorized = "unauthorized",
        /// the address has not the right form; the `error` before it says what
        BadRequest = "bad_request",
    }
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::ProtocolError => 1002,
            Self::Unsupported => 1003,
            Self::Abnormal => 1006,
            Self::InvalidUtf8 => 1007,
            Self::TooBig => 1009,
            Self::ShuttingDown => 4000,
            Self::SlowConsumer => 4001,
            Self::HeartbeatTimeout => 4002,
            Self::Moved => 4003,
            Self::RateLimited => 4004,
            Self::TooManyConnections => 4005,
            Self::TokenExpired => 4006,
            Self::KeysAwaited => 4007,
            Self::Disconnected => 4500,
            Self::Unauthorized => 4501,
            Self::BadRequest => 4502,
        }
    }

    /// The reason in the close frame, in `closing` and as a metric's label.
    pub fn reason(self) -> &'static str {
        self.as_str()
    }

    /// Whether a client should come back by itself after this number: not after a normal end (1000),
    /// not after it broke the protocol (1002, 1003, 1007, 1009), which it would only do again, and
    /// not after 4500 to 4999. All else, also numbers not known here, is worth a retry.
    pub fn may_reconnect(number: u16) -> bool {
        !matches!(number, 1000 | 1002 | 1003 | 1007 | 1009 | 4500..=4999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_and_in_their_range() {
        let mut numbers: Vec<u16> = CloseCode::ALL.iter().map(|code| code.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), CloseCode::ALL.len());
        assert!(numbers.iter().all(|n| (1000..1016).contains(n) || (4000..5000).contains(n)));
    }

    #[test]
    fn the_number_alone_says_whether_to_come_back() {
        for (code, back) in [
            (CloseCode::SlowConsumer, true),
            (CloseCode::ShuttingDown, true),
            (CloseCode::Abnormal, true),
            (CloseCode::RateLimited, true),
            (CloseCode::TooManyConnections, true),
            (CloseCode::TokenExpired, true),
            (CloseCode::KeysAwaited, true),
            (CloseCode::Unauthorized, false),
            (CloseCode::BadRequest, false),
            (CloseCode::Normal, false),
            (CloseCode::Disconnected, false),
            (CloseCode::TooBig, false),
        ] {
            assert_eq!(CloseCode::may_reconnect(code.number()), back, "{code:?}");
        }
    }
}
