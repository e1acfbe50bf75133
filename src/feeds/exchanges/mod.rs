//! Feeds of exchanges: each talks to one exchange and yields events.
//!
//! The messages of an exchange are interpreted by an adapter, a state machine: frames, answers and the time
//! go in, steps come out. An adapter lives as long as one connection; whatever goes wrong, the next
//! connection starts with a new adapter, which knows only [`Resume`]. `run` maintains the connection and
//! performs the steps; `lease` ensures that one process of several does.

mod binance;
mod book;
mod candles;
mod coinbase;
mod config;
mod decimal;
mod desk;
mod kraken;
mod lease;
mod market;
mod pending;
#[cfg(any(test, feature = "probes"))]
pub(super) mod probes;
mod rows;
mod run;
mod session;
mod streams;
#[cfg(test)]
mod tests;
mod trades;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use tokio::time::Instant;

use self::binance::Binance;
use self::coinbase::Coinbase;
use self::kraken::Kraken;
use self::rows::Rows;
use crate::model::{EventType, Zone};
use crate::protocol::time_of_number;

pub use config::{ExchangeConfig, ExchangeKind, Interval, RowsConfig};
pub(crate) use config::{check, is_pair};
pub(crate) use market::{EXCHANGE as SIMULATED_EXCHANGE, run_market};
pub(crate) use run::{ExchangeParts, FeedCounters, run_exchange};

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) utc: DateTime<Utc>,
}

impl Moment {
    pub(crate) fn read() -> Self {
        Self { now: Instant::now(), utc: Utc::now() }
    }
}

/// What an adapter wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Publish this event, which is complete.
    Event(FeedEvent),
    /// Publish this price of a zone.
    Price { zone: Zone, json: String },
    /// Send this to the exchange.
    Send(String),
    /// Request this address; the answer goes to [`Feed::fetched`] with the same id.
    Fetch { id: u64, url: String },
    /// The exchange has acknowledged all subscriptions.
    Ready,
    /// Report a problem from which the adapter recovers by itself.
    Trouble(Trouble),
    /// The connection is no longer usable, for this reason.
    Reconnect(String),
}

/// An event in the form in which a publisher would post it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeedEvent {
    pub(crate) kind: EventType,
    /// A compact JSON object.
    pub(crate) json: String,
    /// The symbol and number of a trade, if it has a number: its id in the log is made of these.
    pub(crate) trade: Option<(String, u64)>,
}

/// A problem that is counted and published as `exchange:error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A message did not have the documented form.
    Malformed(String),
    /// Changes of a book are missing; a new snapshot was requested.
    Gap(String),
    /// Trades were missed that the exchange no longer provides; how many.
    TradesMissed { count: u64, reason: String },
    /// The exchange refused something, or did not answer.
    Refused(String),
}

impl Trouble {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Gap(_) => "gap",
            Self::TradesMissed { .. } => "trades_missed",
            Self::Refused(_) => "refused",
        }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Malformed(reason)
            | Self::Gap(reason)
            | Self::TradesMissed { reason, .. }
            | Self::Refused(reason) => reason,
        }
    }
}

/// By symbol, the number of the last trade that any process is known to have published, or that waits for the log.
pub(crate) type Resume = HashMap<String, u64>;

/// The types of events that exchanges stream.
const STREAMED: [EventType; 4] =
    [EventType::Ticker, EventType::Trade, EventType::Orderbook, EventType::Candle];

/// Why a frame was not understood. No part of it was used.
pub(crate) type Malformed = String;

/// Parses a frame, or a part of one.
fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The exchange refused a subscription, in its own words `why`: the connection ends.
fn refused(what: &str, why: &str, steps: &mut Vec<Step>) {
    let why: String = why.chars().take(200).collect();
    steps.push(Step::Trouble(Trouble::Refused(format!("{what}: {why}"))));
    steps.push(Step::Reconnect("a subscription was refused".to_owned()));
}

const NO_TIME: &str = "a gateway would not accept its time";

/// A time as the exchange writes it: a number since 1970, which events repeat unchanged.
fn time_json(number: u64) -> Result<String, Malformed> {
    let number = number.to_string();
    if time_of_number(&number).is_some() { Ok(number) } else { Err(NO_TIME.to_owned()) }
}

/// Milliseconds since 1970, if a gateway would read them as that.
fn milliseconds(time: DateTime<Utc>) -> Result<String, Malformed> {
    let ms = time.timestamp_millis();
    let text = ms.to_string();
    let is_read_so = time_of_number(&text).is_some_and(|read| read.timestamp_millis() == ms);
    if is_read_so { Ok(text) } else { Err(NO_TIME.to_owned()) }
}

/// The start of a candle. Times far from the present are refused, since calculations with them would
/// overflow.
fn open_time(time: Option<DateTime<Utc>>) -> Result<DateTime<Utc>, Malformed> {
    let time = time.ok_or(NO_TIME)?;
    milliseconds(time).map(|_| time)
}

/// The adapter of one exchange. Performs no I/O, and has no clock.
pub(crate) trait Feed: Send {
    /// The connection is established.
    fn connected(&mut self, at: Moment, steps: &mut Vec<Step>);

    /// A frame arrived.
    fn frame(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed>;

    /// A request was answered, or failed. An adapter that requests nothing ignores it.
    fn fetched(
        &mut self,
        _id: u64,
        _answer: Result<&str, String>,
        _at: Moment,
        _steps: &mut Vec<Step>,
    ) -> Result<(), Malformed> {
        Ok(())
    }

    /// Called several times a second.
    fn tick(&mut self, at: Moment, steps: &mut Vec<Step>);
}

/// The adapter for a new connection.
fn adapter(config: &ExchangeConfig, resume: &Resume, at: Moment) -> Box<dyn Feed> {
    match config.kind {
        ExchangeKind::Binance => Box::new(Binance::new(config, resume, at)),
        ExchangeKind::Coinbase => Box::new(Coinbase::new(config, resume, at)),
        ExchangeKind::Kraken => Box::new(Kraken::new(config, resume, at)),
        ExchangeKind::Http | ExchangeKind::Websocket => Box::new(Rows::new(config, at)),
    }
}
