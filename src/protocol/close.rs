//! Why a connection ends. The number alone tells a client whether to come back.

/// Close codes (RFC 6455, section 7.4). 1000 to 1015 mean what the RFC says; 4000 to 4499 say
/// "reconnect and resume"; 4500 to 4999 say "do not reconnect".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CloseCode {
    /// 1000: the work of this connection is done, or the client closed it so.
    Normal,
    /// 1002: a frame broke RFC 6455 (unmasked, reserved bits, bad fragmentation).
    ProtocolError,
    /// 1003: a binary message; this protocol has only text.
    Unsupported,
    /// 1006, never sent: the peer went away without a close frame, or closed because it had failed.
    Abnormal,
    /// 1007: a text message was not UTF-8.
    InvalidUtf8,
    /// 1009: a message was larger than the limit, or in more fragments than may be.
    TooBig,
    /// 4000: this node is shutting down; another one, or the same in a moment, will answer.
    ShuttingDown,
    /// 4001: the client read too slowly to be given everything; it can resume.
    SlowConsumer,
    /// 4002: nothing was heard from the client for too long.
    HeartbeatTimeout,
    /// 4003: an operator asked for this connection to be moved.
    Moved,
    /// 4004: the client sent too many messages in too short a time, or connects too often.
    RateLimited,
    /// 4005: there are as many connections as there may be, in all or of the client's address.
    TooManyConnections,
    /// 4500: an operator ended this connection.
    Disconnected,
    /// 4502: what the address asks for is not of the right form; `error` says what.
    BadRequest,
}

impl CloseCode {
    /// Every code, for tables and metrics.
    pub const ALL: [Self; 14] = [
        Self::Normal,
        Self::ProtocolError,
        Self::Unsupported,
        Self::Abnormal,
        Self::InvalidUtf8,
        Self::TooBig,
        Self::ShuttingDown,
        Self::SlowConsumer,
        Self::HeartbeatTimeout,
        Self::Moved,
        Self::RateLimited,
        Self::TooManyConnections,
        Self::Disconnected,
        Self::BadRequest,
    ];

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
            Self::Disconnected => 4500,
            Self::BadRequest => 4502,
        }
    }

    /// The reason in the close frame, in `closing` and as a metric's label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ProtocolError => "protocol_error",
            Self::Unsupported => "unsupported_data",
            Self::Abnormal => "abnormal",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::TooBig => "message_too_big",
            Self::ShuttingDown => "shutting_down",
            Self::SlowConsumer => "slow_consumer",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::Moved => "moved",
            Self::RateLimited => "rate_limited",
            Self::TooManyConnections => "too_many_connections",
            Self::Disconnected => "disconnected",
            Self::BadRequest => "bad_request",
        }
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
            (CloseCode::BadRequest, false),
            (CloseCode::Normal, false),
            (CloseCode::Disconnected, false),
            (CloseCode::TooBig, false),
        ] {
            assert_eq!(CloseCode::may_reconnect(code.number()), back, "{code:?}");
        }
    }
}
