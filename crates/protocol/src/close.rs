//! Why a connection ends. The number alone tells a client whether to reconnect.

use crate::open::words;

words! {
    /// Close codes (RFC 6455, section 7.4). 1000 to 1015 mean what the RFC says; 4000 to 4499 say
    /// "reconnect and resume"; 4500 to 4999 say "do not reconnect".
    pub enum CloseCode {
        /// the client closed the connection, or the order that it was opened on has ended and everything
        /// was sent
        Normal = "normal" => 1000,
        /// a frame violated RFC 6455
        ProtocolError = "protocol_error" => 1002,
        /// a binary message
        Unsupported = "unsupported_data" => 1003,
        /// never sent: the connection was lost without a close frame
        Abnormal = "abnormal" => 1006,
        /// a text message was not UTF-8
        InvalidUtf8 = "invalid_utf8" => 1007,
        /// a message was larger than 64 KiB, or had more than 256 fragments
        TooBig = "message_too_big" => 1009,
        /// the gateway is stopping; `retry_after_ms` is spread, so that not all clients reconnect at once
        ShuttingDown = "shutting_down" => 4000,
        /// the client read too slowly, or had lagged longest while too many connections lagged
        SlowConsumer = "slow_consumer" => 4001,
        /// the client was silent for 75 s
        HeartbeatTimeout = "heartbeat_timeout" => 4002,
        /// an operator moves the connection: its client reconnects, possibly to another gateway
        Moved = "moved" => 4003,
        /// the client sent too many messages: `retry_after_ms` is when it may send a full burst again; or
        /// it connects too often: `retry_after_ms` is spread; or all connections of its subject, or of its
        /// tenant, together did one of these: `retry_after_ms` is when they may continue
        RateLimited = "rate_limited" => 4004,
        /// there is no room for the connection, or for what it was opened on: a limit of the gateway, or of
        /// the client's address, subject or tenant, is reached; `retry_after_ms` is spread
        TooManyConnections = "too_many_connections" => 4005,
        /// the token has expired, or the key that signed it was withdrawn: reconnect with a new token
        TokenExpired = "token_expired" => 4006,
        /// the token cannot be verified yet, because its issuer's keys are still being fetched: reconnect
        /// with the same one after `retry_after_ms`
        KeysAwaited = "keys_awaited" => 4007,
        /// an operator ended the connection
        Disconnected = "disconnected" => 4500,
        /// no token came in time, or it is invalid, gives no right to the address, or was revoked; only
        /// another token can help
        Unauthorized = "unauthorized" => 4501,
        /// the address is malformed; the `error` before the close says how
        BadRequest = "bad_request" => 4502,
    }

    /// The number on the wire.
    pub const fn number(self) -> u16;
}

impl CloseCode {
    /// The reason in the close frame, in `closing` and as a metric's label.
    pub fn reason(self) -> &'static str {
        self.as_str()
    }

    /// Whether a client should reconnect by itself after a close with this number: not after a normal end
    /// (1000), not after it violated the protocol (1002, 1003, 1007, 1009), which it would only do again,
    /// and not after 4500 to 4999. After any other number, known here or not, a retry makes sense.
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
