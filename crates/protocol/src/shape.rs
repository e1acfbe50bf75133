//! What entries look like, by type: for who generates code from it. [`EntryMessage`](crate::EntryMessage) holds
//! any of them.

#![expect(dead_code, reason = "the fields are only described")]

use chrono::{DateTime, Utc};

use crate::{ChannelName, Failure, Fields, OrderId};

/// An entry of a channel. Others may be added: receivers count the offset of those that they do not know.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[cfg_attr(feature = "schema", schemars(tag = "type", rename_all = "snake_case"))]
#[cfg_attr(feature = "ts", ts(tag = "type", rename_all = "snake_case"))]
pub(crate) enum Entry {
    /// A price in a zone.
    PriceUpdate(PriceUpdate),
    /// A key of a zone has no price any more, or one of a registry no record.
    KeyRemoved(KeyRemoved),
    /// No key of a zone has a price any more.
    ZoneRemoved(ZoneRemoved),
    /// A record of a registry.
    RecordUpdate(RecordUpdate),
    /// An order's venue is being chosen.
    Routing(OrderUpdate),
    /// An order's transaction is being made.
    Building(OrderUpdate),
    /// An order's transaction is on its way.
    Submitted(OrderUpdate),
    /// An order was carried out. The last update of its order.
    Confirmed(OrderUpdate),
    /// An order was not carried out, and will not be. The last update of its order.
    Failed(OrderFailed),
    /// An event: the last price of a symbol, or its best bid and ask.
    Ticker(TickerEvent),
    /// An event: one trade.
    Trade(TradeEvent),
    /// An event: a book, or what has changed in one.
    Orderbook(OrderbookEvent),
    /// An event: how a symbol was traded in an interval.
    Candle(CandleEvent),
    /// An event: an exchange is reached.
    #[cfg_attr(feature = "schema", schemars(rename = "exchange:connected"))]
    #[cfg_attr(feature = "ts", ts(rename = "exchange:connected"))]
    ExchangeConnected(ExchangeEvent),
    /// An event: an exchange is reached no more.
    #[cfg_attr(feature = "schema", schemars(rename = "exchange:disconnected"))]
    #[cfg_attr(feature = "ts", ts(rename = "exchange:disconnected"))]
    ExchangeDisconnected(ExchangeEvent),
    /// An event: an exchange is to be reached again.
    #[cfg_attr(feature = "schema", schemars(rename = "exchange:reconnecting"))]
    #[cfg_attr(feature = "ts", ts(rename = "exchange:reconnecting"))]
    ExchangeReconnecting(ExchangeEvent),
    /// An event: an exchange said, or did, what it should not.
    #[cfg_attr(feature = "schema", schemars(rename = "exchange:error"))]
    #[cfg_attr(feature = "ts", ts(rename = "exchange:error"))]
    ExchangeError(ExchangeEvent),
    /// Stands in the place of an entry that the gateway cannot show.
    Skipped(Skipped),
    /// In the channel of a live type of events: some of other processes did not come.
    Missed(Missed),
}

/// A price. The publisher's own fields follow those of the envelope.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct PriceUpdate {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its place in the log; counts from 1 in each epoch.
    pub(crate) offset: u64,
    /// Names it for good, in every epoch and on every gateway.
    pub(crate) id: String,
    /// Its own time, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// It comes after its time.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Entries of its gateway before it are gone.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// It is the latest one of its key, sent because a client begins.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) snapshot: Option<bool>,
    /// What within the zone it is of.
    pub(crate) key: String,
    /// The price; absent of a quote, which has `bid` and `ask`.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) price: Option<f64>,
    /// What buyers offer.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) bid: Option<f64>,
    /// What sellers ask for.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) ask: Option<f64>,
    /// A part of the price.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) energy: Option<f64>,
    /// A part of the price.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) congestion: Option<f64>,
    /// A part of the price.
    #[cfg_attr(
        feature = "schema",
        schemars(skip_serializing_if = "Option::is_none", schema_with = "number_or_null")
    )]
    #[cfg_attr(feature = "ts", ts(optional, type = "number | null"))]
    pub(crate) loss: Option<f64>,
    /// How much.
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
    /// Its place in the log; counts from 1 in each epoch.
    pub(crate) offset: u64,
    /// Names it for good, in every epoch and on every gateway.
    pub(crate) id: String,
    /// Its own time, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// It comes after its time.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Entries of its gateway before it are gone.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// It is the latest one of its key, sent because a client begins.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) snapshot: Option<bool>,
    /// The key.
    pub(crate) key: String,
    /// In a registry: of two entries of a key the one with the greater version counts, as texts are compared.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) version: Option<String>,
}

/// A record of a registry, which takes the place of the one before it of its key.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct RecordUpdate {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its place in the log; counts from 1 in each epoch.
    pub(crate) offset: u64,
    /// Names it for good, in every epoch and on every gateway.
    pub(crate) id: String,
    /// When it was written, by the clock of the gateway that wrote it, or a faster one that it heard of.
    pub(crate) timestamp: DateTime<Utc>,
    /// It comes after its time.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Entries of its gateway before it are gone.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// It is the latest one of its key, sent because a client begins.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) snapshot: Option<bool>,
    /// Its `userId` or `orderId` as a text.
    pub(crate) key: String,
    /// Of two entries of a key the one with the greater version counts, as texts are compared.
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
    /// Its place in the log; counts from 1 in each epoch.
    pub(crate) offset: u64,
    /// Names it for good, in every epoch and on every gateway.
    pub(crate) id: String,
    /// Its own time, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// It comes after its time.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Entries of its gateway before it are gone.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// It is the latest one of its key, sent because a client begins.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) snapshot: Option<bool>,
}

/// An update of an order. What its worker told besides follows.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct OrderUpdate {
    /// The order whose channel it is.
    #[cfg_attr(feature = "schema", schemars(rename = "orderId"))]
    #[cfg_attr(feature = "ts", ts(rename = "orderId"))]
    pub(crate) order_id: OrderId,
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its place in the log; counts from 1 in each epoch.
    pub(crate) offset: u64,
    /// Names it for good, in every epoch and on every gateway.
    pub(crate) id: String,
    /// Its own time, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// It comes after its time.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Entries of its gateway before it are gone.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// How far it is, 0 to 100.
    pub(crate) progress: f64,
    /// Which try it is, counting from 1.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) attempt: Option<u32>,
    /// How many there are.
    #[cfg_attr(feature = "schema", schemars(rename = "maxAttempts"))]
    #[cfg_attr(feature = "ts", ts(rename = "maxAttempts"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) max_attempts: Option<u32>,
    /// How many times a worker took the order up.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) run: Option<u32>,
    /// Who carries it out.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) executor: Option<String>,
    /// For people.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) message: Option<String>,
    /// Where it was, or is to be, carried out.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) dex: Option<String>,
    /// The transaction.
    #[cfg_attr(feature = "schema", schemars(rename = "txHash"))]
    #[cfg_attr(feature = "ts", ts(rename = "txHash"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) tx_hash: Option<String>,
}

/// The end of an order that was not carried out.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct OrderFailed {
    /// The order whose channel it is.
    #[cfg_attr(feature = "schema", schemars(rename = "orderId"))]
    #[cfg_attr(feature = "ts", ts(rename = "orderId"))]
    pub(crate) order_id: OrderId,
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its place in the log; counts from 1 in each epoch.
    pub(crate) offset: u64,
    /// Names it for good, in every epoch and on every gateway.
    pub(crate) id: String,
    /// Its own time, to the millisecond.
    pub(crate) timestamp: DateTime<Utc>,
    /// It comes after its time.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Entries of its gateway before it are gone.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// How far it is, 0 to 100.
    pub(crate) progress: f64,
    /// Which try it is, counting from 1.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) attempt: Option<u32>,
    /// How many there are.
    #[cfg_attr(feature = "schema", schemars(rename = "maxAttempts"))]
    #[cfg_attr(feature = "ts", ts(rename = "maxAttempts"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) max_attempts: Option<u32>,
    /// How many times a worker took the order up.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) run: Option<u32>,
    /// Who carries it out.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) executor: Option<String>,
    /// For people.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) message: Option<String>,
    /// Where it was, or is to be, carried out.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) dex: Option<String>,
    /// The transaction.
    #[cfg_attr(feature = "schema", schemars(rename = "txHash"))]
    #[cfg_attr(feature = "ts", ts(rename = "txHash"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) tx_hash: Option<String>,
    /// Why.
    pub(crate) error: Failure,
}

/// What is known of an entry that the gateway cannot show.
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
    /// Its place in the log.
    pub(crate) offset: u64,
    /// Absent where it could not be read.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) id: Option<String>,
    /// Absent where it could not be read.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) timestamp: Option<DateTime<Utc>>,
    /// It comes after its time.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) late: Option<bool>,
    /// Entries of its gateway before it are gone.
    #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
    #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) missed_before: Option<bool>,
    /// `unknown_kind` or `unreadable`.
    pub(crate) reason: String,
    /// Its own type, where that is known.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) kind: Option<String>,
    /// Nothing follows it.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) terminal: Option<bool>,
}

/// Events of other processes that did not come, in the channel of a live type.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub(crate) struct Missed {
    /// The channel.
    pub(crate) channel: ChannelName,
    /// Its place in the log; counts from 1 in each epoch.
    pub(crate) offset: u64,
    /// Names it for good.
    pub(crate) id: String,
    /// When that was noticed.
    pub(crate) timestamp: DateTime<Utc>,
    /// What is missing.
    pub(crate) data: MissedEvents,
}

/// What is missing; without fields, programs that do not number their events may have published some.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct MissedEvents {
    /// The gateway whose events they are.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) source: Option<String>,
    /// How many they are.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) count: Option<u64>,
}

/// What the messages of events have in common, and what each has of its own.
macro_rules! event {
    ($(#[doc = $docs:literal])* $name:ident, $data:ty) => {
        $(#[doc = $docs])*
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
        pub(crate) struct $name {
            /// The channel: that of the type, or the view of it that was subscribed to.
            pub(crate) channel: ChannelName,
            /// Its place in the log; counts from 1 in each epoch. Of a view those of others are left out.
            pub(crate) offset: u64,
            /// Names it for good, in every epoch and on every gateway.
            pub(crate) id: String,
            /// Its own time, to the millisecond.
            pub(crate) timestamp: DateTime<Utc>,
            /// It comes after its time.
            #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
            pub(crate) late: Option<bool>,
            /// Entries of its gateway before it are gone.
            #[cfg_attr(feature = "schema", schemars(rename = "missedBefore"))]
            #[cfg_attr(feature = "ts", ts(rename = "missedBefore"))]
            #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
            pub(crate) missed_before: Option<bool>,
            /// It is the latest one of its key, sent because a client begins.
            #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
            pub(crate) snapshot: Option<bool>,
            /// What its publisher gave.
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
    /// A book, or what has changed in one.
    OrderbookEvent, Orderbook
);
event!(
    /// A candle.
    CandleEvent, Candle
);
event!(
    /// How an exchange is reached.
    ExchangeEvent, Exchange
);

/// A decimal as its publisher wrote it: a number, or a text that is one.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(untagged))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(untagged))]
pub(crate) enum Digits {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// What a ticker says: a `price`, or a `bid` and an `ask`.
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
    /// How much is bid there.
    #[cfg_attr(feature = "schema", schemars(rename = "bidSize"))]
    #[cfg_attr(feature = "ts", ts(rename = "bidSize"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) bid_size: Option<Digits>,
    /// How much is asked there.
    #[cfg_attr(feature = "schema", schemars(rename = "askSize"))]
    #[cfg_attr(feature = "ts", ts(rename = "askSize"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) ask_size: Option<Digits>,
    /// The first price of the day.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) open: Option<Digits>,
    /// The highest.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) high: Option<Digits>,
    /// The lowest.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) low: Option<Digits>,
    /// How much was traded.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) volume: Option<Digits>,
    /// For how much.
    #[cfg_attr(feature = "schema", schemars(rename = "quoteVolume"))]
    #[cfg_attr(feature = "ts", ts(rename = "quoteVolume"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) quote_volume: Option<Digits>,
}

/// What a trade says.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct Trade {
    /// The exchange.
    pub(crate) exchange: String,
    /// The symbol, such as `BTC-USDT`.
    pub(crate) symbol: String,
    /// The price.
    pub(crate) price: Digits,
    /// How much.
    pub(crate) size: Digits,
    /// What the exchange calls it.
    #[cfg_attr(feature = "schema", schemars(rename = "tradeId"))]
    #[cfg_attr(feature = "ts", ts(rename = "tradeId"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) trade_id: Option<Digits>,
    /// `buy` or `sell`: the taker's.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) side: Option<String>,
}

/// A whole book, or what has changed in it: a size of 0 takes a level away.
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
    /// Of a delta, the `sequence` that it follows on.
    #[cfg_attr(feature = "schema", schemars(rename = "previousSequence"))]
    #[cfg_attr(feature = "ts", ts(rename = "previousSequence"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) previous_sequence: Option<u64>,
}

/// What a candle says.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct Candle {
    /// The exchange.
    pub(crate) exchange: String,
    /// The symbol, such as `BTC-USDT`.
    pub(crate) symbol: String,
    /// How long it is, such as `1m`.
    pub(crate) interval: String,
    /// When it begins.
    #[cfg_attr(feature = "schema", schemars(rename = "openTime"))]
    #[cfg_attr(feature = "ts", ts(rename = "openTime"))]
    pub(crate) open_time: Digits,
    /// The first price.
    pub(crate) open: Digits,
    /// The highest.
    pub(crate) high: Digits,
    /// The lowest.
    pub(crate) low: Digits,
    /// The last price.
    pub(crate) close: Digits,
    /// How much was traded.
    pub(crate) volume: Digits,
    /// Nothing more is expected.
    pub(crate) closed: bool,
    /// It takes the place of one that was closed.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) correction: Option<bool>,
}

/// How an exchange is reached.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub(crate) struct Exchange {
    /// The exchange.
    pub(crate) exchange: String,
    /// Why, for people.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) reason: Option<String>,
    /// Of `exchange:reconnecting`, which try it is.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) attempt: Option<u64>,
    /// Of `exchange:reconnecting`, in how many milliseconds.
    #[cfg_attr(feature = "schema", schemars(rename = "delayMs"))]
    #[cfg_attr(feature = "ts", ts(rename = "delayMs"))]
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) delay_ms: Option<u64>,
    /// Of `exchange:error`, what sort of error.
    #[cfg_attr(feature = "schema", schemars(skip_serializing_if = "Option::is_none"))]
    pub(crate) code: Option<String>,
}

/// A record, which has whatever fields its writer gave it.
#[cfg(feature = "schema")]
fn any_object(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "additionalProperties": true })
}

/// As its publisher wrote it; null is as good as none.
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
