//! Types of events, and the keys of events.

use std::str::FromStr;

use crate::name::InvalidName;
use crate::open::words;

words! {
    /// The type of an event, which concerns the market or the connection to an exchange. Each type has one
    /// channel, `event:<type>`.
    pub enum EventType {
        /// The last price of a symbol, or its best bid and ask.
        Ticker = "ticker",
        /// One trade.
        Trade = "trade",
        /// A whole order book, or its changes.
        Orderbook = "orderbook",
        /// How a symbol traded in one interval.
        Candle = "candle",
        /// A feed has connected to an exchange.
        ExchangeConnected = "exchange:connected",
        /// The connection to an exchange was lost.
        ExchangeDisconnected = "exchange:disconnected",
        /// A feed is about to reconnect to an exchange.
        ExchangeReconnecting = "exchange:reconnecting",
        /// An exchange reported an error, or did something unexpected.
        ExchangeError = "exchange:error",
    }
}

impl EventType {
    /// Whether the event concerns the connection to an exchange rather than a symbol.
    pub fn is_of_exchange(self) -> bool {
        use EventType::{ExchangeConnected, ExchangeDisconnected, ExchangeError, ExchangeReconnecting};
        matches!(self, ExchangeConnected | ExchangeDisconnected | ExchangeReconnecting | ExchangeError)
    }

    /// How many segments the key of such an event has: exchange, symbol, interval.
    pub fn segments(self) -> usize {
        match self {
            Self::Ticker | Self::Trade | Self::Orderbook => 2,
            Self::Candle => 3,
            Self::ExchangeConnected
            | Self::ExchangeDisconnected
            | Self::ExchangeReconnecting
            | Self::ExchangeError => 1,
        }
    }
}

impl FromStr for EventType {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        const FORM: &str = "ticker, trade, orderbook, candle, exchange:connected, exchange:disconnected, \
                            exchange:reconnecting or exchange:error";
        let found = Self::ALL.into_iter().find(|event| event.as_str() == name);
        found.ok_or_else(|| InvalidName::new("type of an event", FORM, name))
    }
}

/// The most segments that a key can have.
pub const SEGMENTS_MAX: usize = 3;

/// Whether a text can be the name of an exchange: 1 to 32 of `a-z 0-9 . _ -`.
pub fn is_exchange(text: &str) -> bool {
    let is_of_it = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=32).contains(&text.len()) && text.bytes().all(is_of_it)
}

/// Whether a text can be a symbol: 1 to 64 of `A-Z a-z 0-9 . _ / -`.
pub fn is_symbol(text: &str) -> bool {
    let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_of_it)
}

/// Whether a text can be the interval of a candle, such as `1m`: 1 to 16 of `A-Z a-z 0-9`.
pub fn is_interval(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Splits a channel's name after `event:` into the type and the rest.
pub(crate) fn split_type(name: &str) -> Option<(EventType, &str)> {
    EventType::ALL.into_iter().find_map(|event| {
        let rest = name.strip_prefix(event.as_str())?;
        (rest.is_empty() || rest.starts_with(':')).then_some((event, rest))
    })
}

/// Whether the text after the type is a pattern: as many segments as the key has, each a value or `*`, and
/// not all of them `*`.
pub(crate) fn is_pattern(event: EventType, pattern: &str) -> bool {
    let fits = [is_exchange, is_symbol, is_interval];
    let segments = || pattern.split(':');
    segments().count() == event.segments()
        && segments().zip(fits).all(|(segment, fits)| segment == "*" || fits(segment))
        && segments().any(|segment| segment != "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_read_as_it_is_written() {
        for event in EventType::ALL {
            assert_eq!(event.as_str().parse(), Ok(event));
            assert_eq!(split_type(event.as_str()), Some((event, "")));
        }
        for name in ["", "Ticker", "exchange", "exchange:", "tickers"] {
            assert!(name.parse::<EventType>().is_err(), "{name:?}");
        }
    }
}
