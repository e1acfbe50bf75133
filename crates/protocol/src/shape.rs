//! The shape of each type of entry, for code generators. [`EntryMessage`](crate::EntryMessage) can hold any
//! of them.

#![expect(dead_code, reason = "the fields are only described")]

use chrono::{DateTime, Utc};

use crate::{ChannelName, Failure, Fields, OrderId};

/// An entry of a channel. Types may be added: receivers still count the offsets of those that they do not
/// know.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", schemars(tag = "type", rename_all = "snake_case"))]
#[cfg_attr(feature = "ts", ts(tag = "type", rename_all = "snake_case"))]
pub(crate) enum Entry {
    /// A price in a zone.
    PriceUpdate(PriceUpdate),
    /// A key of a zone no longer has a price, or a key of a registry no longer has a record.
    KeyRemoved(KeyRemoved),
    /// No key of a zone has a price any longer.
    ZoneRemoved(ZoneRemoved),
    /// A record of a registry.
    RecordUpdate(RecordUpdate),
    /// An order's venue is being chosen.
    Routing(OrderUpdate),
    /// An order's transaction is being built.
    Building(OrderUpdate),
    /// An order's transaction was sent.
    Submitted(OrderUpdate),
    /// An order was executed. The last update of its order.
    Confirmed(OrderUpdate),
    /// An order was not executed and will not be. The last update of its order.
    Failed(OrderFailed),
    /// An event: the last price of a symbol, or its best bid and ask.
    Ticker(TickerEvent),
    /// An event: one trade.
    Trade(TradeEvent),
    /// An event: a whole order book, or its changes.
    Orderbook(OrderbookEvent),
    /// An event: how a symbol traded in one interval.
    Candle(CandleEvent),
    /// An event: a feed has connected to an exchange.
    #[cfg_attr(feature = "schema", schemars(rename = "exchange:connected"))]
    #[cfg_attr(feature = "ts", ts(rename = "exchange:connected"))]
    ExchangeConnected(ExchangeEvent),
    /// An event: the connection to an exchange was lost.
    #[cfg_attr(feature = "schema", schemars(rename = "exchange:disconnected"))]
    #[cfg_attr(feature = "ts", ts(rename = "exchange:disconnected"))]
    ExchangeDisconnected(ExchangeEvent),
    /// An event: a feed is about to reconnect to an exchange.
    #[cfg_attr(feature = "schema", schemars(rename = "exchange:reconnecting"))]
    #[cfg_attr(feature = "ts", ts(rename = "exchange:reconnecting"))]
    ExchangeReconnecting(ExchangeEvent),
    /// An event: an exchange reported an error, or did something unexpected.
    #[cfg_attr(feature = "schema", schemars(rename = "exchange:error"))]
    #[cfg_attr(feature = "ts", ts(rename = "exchange:error"))]
    ExchangeError(ExchangeEvent),
    /// Replaces an entry that the gateway cannot show.
    Skipped(Skipped),
    /// Some events of other processes did not arrive. Only in channels of live types.
    Missed(Missed),
}

/// A price. The publisher's own fields follow those described here.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct PriceUpdate {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its offset in the log, counted from 1 in each epoch.
    pub(crate) offset: u64,
    /// Identifies the entry, in every epoch and on every gateway.
    pub(crate) id: String,
    /// The time of the entry itself, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// The entry waited at its gateway, or arrives after entries that were accepted later.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Earlier entries of the same gateway were dropped and are in no log.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// The entry is part of a snapshot: the latest one of its key.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) snapshot: Option<bool>,
    /// What in the zone the price is for, such as a trading hub.
    pub(crate) key: String,
    /// The price; absent in a quote, which has `bid` and `ask`.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) price: Option<f64>,
    /// The highest price that a buyer offers.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) bid: Option<f64>,
    /// The lowest price that a seller asks.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) ask: Option<f64>,
    /// The energy component of the price.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) energy: Option<f64>,
    /// The congestion component of the price.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) congestion: Option<f64>,
    /// The loss component of the price.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) loss: Option<f64>,
    /// The quantity.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) quantity: Option<f64>,
}

/// A key that was removed.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct KeyRemoved {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its offset in the log, counted from 1 in each epoch.
    pub(crate) offset: u64,
    /// Identifies the entry, in every epoch and on every gateway.
    pub(crate) id: String,
    /// The time of the entry itself, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// The entry waited at its gateway, or arrives after entries that were accepted later.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Earlier entries of the same gateway were dropped and are in no log.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// The entry is part of a snapshot: the latest one of its key.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) snapshot: Option<bool>,
    /// The key.
    pub(crate) key: String,
    /// In a registry only: of two entries of a key, the one with the greater version counts. Versions
    /// compare as text.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) version: Option<String>,
}

/// A record of a registry, which replaces the previous one of its key.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct RecordUpdate {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its offset in the log, counted from 1 in each epoch.
    pub(crate) offset: u64,
    /// Identifies the entry, in every epoch and on every gateway.
    pub(crate) id: String,
    /// When it was written, by the clock of the gateway that wrote it, or by a faster clock that this
    /// gateway has seen.
    pub(crate) timestamp: DateTime<Utc>,
    /// The entry waited at its gateway, or arrives after entries that were accepted later.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Earlier entries of the same gateway were dropped and are in no log.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// The entry is part of a snapshot: the latest one of its key.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) snapshot: Option<bool>,
    /// The record's `userId` or `orderId`, as text.
    pub(crate) key: String,
    /// Of two entries of a key, the one with the greater version counts. Versions compare as text.
    pub(crate) version: String,
    /// The record, as it was written.
    #[cfg_attr(feature = "schema", schemars(schema_with = "any_object"))]
    #[cfg_attr(feature = "ts", ts(type = "Record<string, unknown>"))]
    pub(crate) record: Fields,
}

/// A zone that was removed.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct ZoneRemoved {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its offset in the log, counted from 1 in each epoch.
    pub(crate) offset: u64,
    /// Identifies the entry, in every epoch and on every gateway.
    pub(crate) id: String,
    /// The time of the entry itself, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// The entry waited at its gateway, or arrives after entries that were accepted later.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Earlier entries of the same gateway were dropped and are in no log.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// The entry is part of a snapshot: the latest one of its key.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) snapshot: Option<bool>,
}

/// An update of an order. Other fields that its worker gave follow those described here.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct OrderUpdate {
    /// The order whose channel it is.
    #[cfg_attr(feature = "schema", schemars(rename = "orderId"))]
    #[cfg_attr(feature = "ts", ts(rename = "orderId"))]
    pub(crate) order_id: OrderId,
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its offset in the log, counted from 1 in each epoch.
    pub(crate) offset: u64,
    /// Identifies the entry, in every epoch and on every gateway.
    pub(crate) id: String,
    /// The time of the entry itself, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// The entry waited at its gateway, or arrives after entries that were accepted later.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Earlier entries of the same gateway were dropped and are in no log.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// How far it is, 0 to 100.
    pub(crate) progress: f64,
    /// The number of the attempt, from 1.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) attempt: Option<u32>,
    /// The most attempts that the order may have.
    #[cfg_attr(feature = "schema", schemars(rename = "maxAttempts"))]
    #[cfg_attr(feature = "ts", ts(rename = "maxAttempts"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) max_attempts: Option<u32>,
    /// How many times a worker has claimed the order.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) run: Option<u32>,
    /// The worker or executor that executes the order.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) executor: Option<String>,
    /// A message for people.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) message: Option<String>,
    /// The exchange that executes it.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) dex: Option<String>,
    /// The hash of the transaction.
    #[cfg_attr(feature = "schema", schemars(rename = "txHash"))]
    #[cfg_attr(feature = "ts", ts(rename = "txHash"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) tx_hash: Option<String>,
}

/// The last update of an order that was not executed.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct OrderFailed {
    /// The order whose channel it is.
    #[cfg_attr(feature = "schema", schemars(rename = "orderId"))]
    #[cfg_attr(feature = "ts", ts(rename = "orderId"))]
    pub(crate) order_id: OrderId,
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its offset in the log, counted from 1 in each epoch.
    pub(crate) offset: u64,
    /// Identifies the entry, in every epoch and on every gateway.
    pub(crate) id: String,
    /// The time of the entry itself, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// The entry waited at its gateway, or arrives after entries that were accepted later.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Earlier entries of the same gateway were dropped and are in no log.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// How far it is, 0 to 100.
    pub(crate) progress: f64,
    /// The number of the attempt, from 1.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) attempt: Option<u32>,
    /// The most attempts that the order may have.
    #[cfg_attr(feature = "schema", schemars(rename = "maxAttempts"))]
    #[cfg_attr(feature = "ts", ts(rename = "maxAttempts"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) max_attempts: Option<u32>,
    /// How many times a worker has claimed the order.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) run: Option<u32>,
    /// The worker or executor that executed the order.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) executor: Option<String>,
    /// A message for people.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) message: Option<String>,
    /// The exchange that was to execute it.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) dex: Option<String>,
    /// The hash of the transaction.
    #[cfg_attr(feature = "schema", schemars(rename = "txHash"))]
    #[cfg_attr(feature = "ts", ts(rename = "txHash"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) tx_hash: Option<String>,
    /// The reason.
    pub(crate) error: Failure,
}

/// What is known about an entry that the gateway cannot show.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct Skipped {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// The order whose channel it is.
    #[cfg_attr(feature = "schema", schemars(rename = "orderId"))]
    #[cfg_attr(feature = "ts", ts(rename = "orderId"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) order_id: Option<OrderId>,
    /// Its offset in the log.
    pub(crate) offset: u64,
    /// Absent if it could not be read.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) id: Option<String>,
    /// Absent if it could not be read.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) timestamp: Option<DateTime<Utc>>,
    /// The entry waited at its gateway, or arrives after entries that were accepted later.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Earlier entries of the same gateway were dropped and are in no log.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// `unknown_kind` or `unreadable`.
    pub(crate) reason: String,
    /// The entry's own type, if that is known.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) kind: Option<String>,
    /// Whether this is the last entry of its channel.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) terminal: Option<bool>,
}

/// Reports, in the channel of a live type, that events of other processes did not arrive.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub(crate) struct Missed {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its offset in the log, counted from 1 in each epoch.
    pub(crate) offset: u64,
    /// Identifies the entry.
    pub(crate) id: String,
    /// When the gateway noticed.
    pub(crate) timestamp: DateTime<Utc>,
    /// What is missing.
    pub(crate) data: MissedEvents,
}

/// What is missing. Without fields: programs that do not number their events may have published some.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct MissedEvents {
    /// The gateway that published the missing events.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) source: Option<String>,
    /// How many events are missing.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) count: Option<u64>,
}

/// The fields that all event messages have, and their own `data`.
macro_rules! event {
    ($(#[doc = $docs:literal])* $name:ident, $data:ty) => {
        $(#[doc = $docs])*
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
        pub(crate) struct $name {
            /// The channel: of the type, or the view that was subscribed to.
            pub(crate) channel: ChannelName,
            /// Its offset in the log, counted from 1 in each epoch. Offsets that a view does not show are left out.
            pub(crate) offset: u64,
            /// Identifies the entry, in every epoch and on every gateway.
            pub(crate) id: String,
            /// The time of the entry itself, to the millisecond.
            pub(crate) timestamp: DateTime<Utc>,
            /// The entry waited at its gateway, or arrives after entries that were accepted later.
            #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
            pub(crate) late: Option<bool>,
            /// Earlier entries of the same gateway were dropped and are in no log.
            #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
            #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
            #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
            pub(crate) missed_before: Option<bool>,
            /// The entry is part of a snapshot: the latest one of its key.
            #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
            pub(crate) snapshot: Option<bool>,
            /// The fields that the publisher gave.
            pub(crate) data: $data,
        }
    };
}

event!(
    /// A ticker.
    TickerEvent, Ticker
);
event!(
    /// A trade.
    TradeEvent, Trade
);
event!(
    /// An order book, or its changes.
    OrderbookEvent, Orderbook
);
event!(
    /// A candle.
    CandleEvent, Candle
);
event!(
    /// A change in the connection to an exchange.
    ExchangeEvent, Exchange
);

/// A decimal in the form in which its publisher wrote it: a number, or a text that contains one.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(untagged))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(untagged))]
pub(crate) enum Digits {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// The data of a ticker: a `price`, or a `bid` and an `ask`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct Ticker {
    /// The exchange.
    pub(crate) exchange: String,
    /// The symbol, such as `BTC-USDT`.
    pub(crate) symbol: String,
    /// The last price.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) price: Option<Digits>,
    /// The best bid.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) bid: Option<Digits>,
    /// The best ask.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) ask: Option<Digits>,
    /// The size of the best bid.
    #[cfg_attr(feature = "schema", schemars(rename = "bidSize"))]
    #[cfg_attr(feature = "ts", ts(rename = "bidSize"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) bid_size: Option<Digits>,
    /// The size of the best ask.
    #[cfg_attr(feature = "schema", schemars(rename = "askSize"))]
    #[cfg_attr(feature = "ts", ts(rename = "askSize"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) ask_size: Option<Digits>,
    /// The first price of the period.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) open: Option<Digits>,
    /// The highest price of the period.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) high: Option<Digits>,
    /// The lowest price of the period.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) low: Option<Digits>,
    /// The quantity traded in the period.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) volume: Option<Digits>,
    /// The turnover of the period.
    #[cfg_attr(feature = "schema", schemars(rename = "quoteVolume"))]
    #[cfg_attr(feature = "ts", ts(rename = "quoteVolume"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) quote_volume: Option<Digits>,
}

/// The data of a trade.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct Trade {
    /// The exchange.
    pub(crate) exchange: String,
    /// The symbol, such as `BTC-USDT`.
    pub(crate) symbol: String,
    /// The price.
    pub(crate) price: Digits,
    /// The quantity.
    pub(crate) size: Digits,
    /// The exchange's id of the trade.
    #[cfg_attr(feature = "schema", schemars(rename = "tradeId"))]
    #[cfg_attr(feature = "ts", ts(rename = "tradeId"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) trade_id: Option<Digits>,
    /// The side of the taker: `buy` or `sell`.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) side: Option<String>,
}

/// The data of a whole order book, or of changes to it: a level of size 0 is removed.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct Orderbook {
    /// The exchange.
    pub(crate) exchange: String,
    /// The symbol, such as `BTC-USDT`.
    pub(crate) symbol: String,
    /// `snapshot` or `delta`.
    pub(crate) kind: String,
    /// Price and size of each level.
    pub(crate) bids: Vec<[Digits; 2]>,
    /// Price and size of each level.
    pub(crate) asks: Vec<[Digits; 2]>,
    /// Counts the changes of the book.
    pub(crate) sequence: u64,
    /// In a delta: the `sequence` that it builds on.
    #[cfg_attr(feature = "schema", schemars(rename = "previousSequence"))]
    #[cfg_attr(feature = "ts", ts(rename = "previousSequence"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) previous_sequence: Option<u64>,
}

/// The data of a candle.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct Candle {
    /// The exchange.
    pub(crate) exchange: String,
    /// The symbol, such as `BTC-USDT`.
    pub(crate) symbol: String,
    /// The length of the interval, such as `1m`.
    pub(crate) interval: String,
    /// The start of the interval.
    #[cfg_attr(feature = "schema", schemars(rename = "openTime"))]
    #[cfg_attr(feature = "ts", ts(rename = "openTime"))]
    pub(crate) open_time: Digits,
    /// The first price.
    pub(crate) open: Digits,
    /// The highest price.
    pub(crate) high: Digits,
    /// The lowest price.
    pub(crate) low: Digits,
    /// The last price.
    pub(crate) close: Digits,
    /// The quantity traded.
    pub(crate) volume: Digits,
    /// Whether the interval is over.
    pub(crate) closed: bool,
    /// Whether it corrects a candle that was already closed.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) correction: Option<bool>,
}

/// The data of a change in the connection to an exchange.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct Exchange {
    /// The exchange.
    pub(crate) exchange: String,
    /// The reason, for people.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) reason: Option<String>,
    /// Only in `exchange:reconnecting`: the number of the attempt.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) attempt: Option<u64>,
    /// Only in `exchange:reconnecting`: the delay before the attempt, in milliseconds.
    #[cfg_attr(feature = "schema", schemars(rename = "delayMs"))]
    #[cfg_attr(feature = "ts", ts(rename = "delayMs"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) delay_ms: Option<u64>,
    /// Only in `exchange:error`: the kind of error.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) code: Option<String>,
}

/// A record has whatever fields its writer gave it.
#[cfg(feature = "schema")]
fn any_object(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "additionalProperties": true })
}

/// A number as its publisher wrote it; null counts as absent.
#[cfg(feature = "schema")]
fn number_or_null(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "oneOf": [{ "type": "number" }, { "type": "null" }] })
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for crate::EntryMessage {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Entry::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Entry::json_schema(generator)
    }
}

#[cfg(feature = "ts")]
impl ts_rs::TS for crate::EntryMessage {
    type WithoutGenerics = Self;
    type OptionInnerType = Self;

    fn docs() -> Option<String> {
        Entry::docs()
    }

    fn name(config: &ts_rs::Config) -> String {
        Entry::name(config)
    }

    fn decl(config: &ts_rs::Config) -> String {
        Entry::decl(config)
    }

    fn inline(config: &ts_rs::Config) -> String {
        Entry::inline(config)
    }
}

#[cfg(feature = "ts")]
pub(crate) fn declarations(add: &mut dyn FnMut(Option<String>, String), config: &ts_rs::Config) {
    use ts_rs::TS as _;
    add(PriceUpdate::docs(), PriceUpdate::decl(config));
    add(KeyRemoved::docs(), KeyRemoved::decl(config));
    add(ZoneRemoved::docs(), ZoneRemoved::decl(config));
    add(RecordUpdate::docs(), RecordUpdate::decl(config));
    add(OrderUpdate::docs(), OrderUpdate::decl(config));
    add(OrderFailed::docs(), OrderFailed::decl(config));
    add(Skipped::docs(), Skipped::decl(config));
    add(Missed::docs(), Missed::decl(config));
    add(MissedEvents::docs(), MissedEvents::decl(config));
    add(TickerEvent::docs(), TickerEvent::decl(config));
    add(TradeEvent::docs(), TradeEvent::decl(config));
    add(OrderbookEvent::docs(), OrderbookEvent::decl(config));
    add(CandleEvent::docs(), CandleEvent::decl(config));
    add(ExchangeEvent::docs(), ExchangeEvent::decl(config));
    add(Digits::docs(), Digits::decl(config));
    add(Ticker::docs(), Ticker::decl(config));
    add(Trade::docs(), Trade::decl(config));
    add(Orderbook::docs(), Orderbook::decl(config));
    add(Candle::docs(), Candle::decl(config));
    add(Exchange::docs(), Exchange::decl(config));
}
