//! Feeds of exchanges: each speaks with one exchange, and gives events.
//!
//! What an exchange says is understood by an adapter, which is a state machine: frames, answers and the time go
//! in, steps come out. It lives as long as one connection; whatever is wrong with that, the next one begins
//! anew, with what [`Resume`] says. `run` has the connection and does the steps; `lease` sees to it that one
//! process of several does.

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
#[cfg(any(test, feature = "probes"))]
pub(super) mod probes;
mod rows;
mod run;
mod session;
mod streams;
#[cfg(test)]
mod tests;
mod trades;
mod untold;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use tokio::time::Instant;

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
    /// This is to be published; one is whole, or is not there.
    Event(FeedEvent),
    /// This is a price of a zone.
    Price { zone: Zone, json: String },
    /// This is to be sent to the exchange.
    Send(String),
    /// This address is to be asked; the answer comes to [`Feed::fetched`] with the same number.
    Fetch { id: u64, url: String },
    /// The exchange has acknowledged everything that was asked for.
    Ready,
    /// Something is wrong that the adapter gets over by itself.
    Trouble(Trouble),
    /// The connection is of no more use; why.
    Reconnect(String),
}

/// An event as one would POST it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeedEvent {
    pub(crate) kind: EventType,
    /// A compact JSON object.
    pub(crate) json: String,
    /// Of a trade with a number: its symbol, and the number. It has its id in the log of these.
    pub(crate) trade: Option<(String, u64)>,
}

/// What is told as `exchange:error`, and counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// What came was not of the documented shape.
    Malformed(String),
    /// Changes of a book are missing; a fresh snapshot was asked for.
    Gap(String),
    /// So many trades were missed that the exchange does not give any more.
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
        let (Self::Malformed(reason) | Self::Gap(reason) | Self::Refused(reason)) = self else {
            let Self::TradesMissed { reason, .. } = self else { return "" };
            return reason;
        };
        reason
    }
}

/// By symbol the number of the last trade that was told, or waits for the log.
pub(crate) type Resume = HashMap<String, u64>;

/// What exchanges stream.
const STREAMED: [EventType; 4] =
    [EventType::Ticker, EventType::Trade, EventType::Orderbook, EventType::Candle];

/// Why a frame was not understood. Nothing of it was taken.
pub(crate) type Malformed = String;

/// Reads a frame, or a part of one.
fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

const NO_TIME: &str = "its time is none that a gateway takes";

/// A time as the exchange writes it: a number since 1970, which events have as it is.
fn time_json(number: u64) -> Result<String, Malformed> {
    let number = number.to_string();
    if time_of_number(&number).is_some() { Ok(number) } else { Err(NO_TIME.to_owned()) }
}

/// A time in milliseconds since 1970, which a gateway reads as that.
fn milliseconds(time: DateTime<Utc>) -> Result<String, Malformed> {
    let ms = time.timestamp_millis();
    let text = ms.to_string();
    let is_read_so = time_of_number(&text).is_some_and(|read| read.timestamp_millis() == ms);
    if is_read_so { Ok(text) } else { Err(NO_TIME.to_owned()) }
}

/// When a candle begins. With times that are far from here nothing can be reckoned.
fn open_time(time: Option<DateTime<Utc>>) -> Result<DateTime<Utc>, Malformed> {
    let time = time.ok_or(NO_TIME)?;
    milliseconds(time).map(|_| time)
}

/// What is understood of an exchange. Does no I/O, and has no clock.
pub(crate) trait Feed: Send {
    /// The connection is there.
    fn connected(&mut self, at: Moment, steps: &mut Vec<Step>);

    /// A frame came.
    fn frame(&mut self, text: &str, at: Moment, steps: &mut Vec<Step>) -> Result<(), Malformed>;

    /// An address that was to be asked has answered, or has not.
    fn fetched(
        &mut self,
        id: u64,
        answer: Result<&str, String>,
        at: Moment,
        steps: &mut Vec<Step>,
    ) -> Result<(), Malformed>;

    /// Time goes by; some times a second.
    fn tick(&mut self, at: Moment, steps: &mut Vec<Step>);
}
