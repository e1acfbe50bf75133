//! The shape of each type of entry, for code generators. [`EntryMessage`](crate::EntryMessage) can hold any
//! of them.

#![expect(dead_code, reason = "the fields are only described")]

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;
use ts_rs::TS;

use crate::schema::permits_null;
use crate::{ChannelName, Failure, Fields, OrderId};

/// An entry of a channel. Types may be added: receivers still count the offsets of those that they do not
/// know.
#[derive(JsonSchema, TS)]
#[schemars(tag = "type", rename_all = "snake_case")]
#[ts(tag = "type", rename_all = "snake_case")]
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
    #[schemars(rename = "exchange:connected")]
    #[ts(rename = "exchange:connected")]
    ExchangeConnected(ExchangeEvent),
    /// An event: the connection to an exchange was lost.
    #[schemars(rename = "exchange:disconnected")]
    #[ts(rename = "exchange:disconnected")]
    ExchangeDisconnected(ExchangeEvent),
    /// An event: a feed is about to reconnect to an exchange.
    #[schemars(rename = "exchange:reconnecting")]
    #[ts(rename = "exchange:reconnecting")]
    ExchangeReconnecting(ExchangeEvent),
    /// An event: an exchange reported an error, or did something unexpected.
    #[schemars(rename = "exchange:error")]
    #[ts(rename = "exchange:error")]
    ExchangeError(ExchangeEvent),
    /// Replaces an entry that the gateway cannot show.
    Skipped(Skipped),
    /// Some events of other processes did not arrive. Only in channels of live types.
    Missed(Missed),
}

/// Defines objects: the names of their fields are camelCase in JSON, and a field of type `Option` may be absent.
macro_rules! objects {
    ($(
        $(#[$about:meta])+
        $name:ident { $($(#[$about_field:meta])+ $field:ident: $type:ty,)* }
    )+) => {$(
        $(#[$about])+
        #[derive(JsonSchema, TS)]
        #[schemars(rename_all = "camelCase", transform = options_may_be_absent)]
        #[ts(rename_all = "camelCase", optional_fields)]
        pub(crate) struct $name {
            $($(#[$about_field])+ pub(crate) $field: $type,)*
        }
    )+};
}

/// Defines the message of an entry: the fields that all entries have, those of its class (`of order`,
/// `of event`), and its own. The first form, to which the others lead, states what may differ in the common
/// fields: which ones precede them, and the meanings of `channel`, `offset` and `timestamp`.
macro_rules! entry {
    (
        $(#[$about:meta])+
        $name:ident {
            first { $($first:tt)* }
            #[$channel:meta]
            channel,
            #[$offset:meta]
            offset,
            $(#[$timestamp:meta])+
            timestamp,
            $($own:tt)*
        }
    ) => {
        objects! {
            $(#[$about])+
            $name {
                $($first)*
                #[$channel]
                channel: ChannelName,
                #[$offset]
                offset: u64,
                /// Identifies the entry, in every epoch and on every gateway.
                id: String,
                $(#[$timestamp])+
                timestamp: DateTime<Utc>,
                /// The entry waited at its gateway, or arrives after entries that were accepted later.
                late: Option<bool>,
                /// Earlier entries of the same gateway were dropped and are in no log.
                missed_before: Option<bool>,
                $($own)*
            }
        }
    };
    ($(#[$about:meta])+ $name:ident { $($own:tt)* }) => {
        entry! {
            $(#[$about])+
            $name {
                first {}
                /// The channel.
                channel,
                /// Its offset in the log, counted from 1 in each epoch.
                offset,
                /// The time of the entry itself, to the millisecond.
                timestamp,
                /// The entry is part of a snapshot: the latest one of its key.
                snapshot: Option<bool>,
                $($own)*
            }
        }
    };
    ($(#[$about:meta])+ $name:ident of order { $($own:tt)* }) => {
        entry! {
            $(#[$about])+
            $name {
                first {
                    /// The order whose channel it is.
                    order_id: OrderId,
                }
                /// The channel.
                channel,
                /// Its offset in the log, counted from 1 in each epoch.
                offset,
                /// The time of the entry itself, to the millisecond.
                timestamp,
                /// How far it is, 0 to 100.
                progress: f64,
                /// The number of the attempt, from 1.
                attempt: Option<u32>,
                /// The most attempts that the order may have.
                max_attempts: Option<u32>,
                /// How many times a worker has claimed the order.
                run: Option<u32>,
                /// The worker or executor that executes the order, or executed it.
                executor: Option<String>,
                /// A message for people.
                message: Option<String>,
                /// The exchange that was chosen for it.
                dex: Option<String>,
                /// The hash of the transaction.
                tx_hash: Option<String>,
                $($own)*
            }
        }
    };
    ($($(#[$about:meta])+ $name:ident of event { $data:ident })+) => {$(
        entry! {
            $(#[$about])+
            $name {
                first {}
                /// The channel: of the type, or the view that was subscribed to.
                channel,
                /// Its offset in the log, counted from 1 in each epoch. Offsets that a view does not show are left out.
                offset,
                /// The time of the entry itself, to the millisecond.
                timestamp,
                /// The entry is part of a snapshot: the latest one of its key.
                snapshot: Option<bool>,
                /// The fields that the publisher gave.
                data: $data,
            }
        }
    )+};
}

entry! {
    /// A price. The publisher's own fields follow those described here.
    PriceUpdate {
        /// What in the zone the price is for, such as a trading hub.
        key: String,
        /// The price; absent in a quote, which has `bid` and `ask`.
        #[schemars(schema_with = "number_or_null")]
        #[ts(optional, type = "number | null")]
        price: Option<f64>,
        /// The highest price that a buyer offers.
        #[schemars(schema_with = "number_or_null")]
        #[ts(optional, type = "number | null")]
        bid: Option<f64>,
        /// The lowest price that a seller asks.
        #[schemars(schema_with = "number_or_null")]
        #[ts(optional, type = "number | null")]
        ask: Option<f64>,
        /// The energy component of the price.
        #[schemars(schema_with = "number_or_null")]
        #[ts(optional, type = "number | null")]
        energy: Option<f64>,
        /// The congestion component of the price.
        #[schemars(schema_with = "number_or_null")]
        #[ts(optional, type = "number | null")]
        congestion: Option<f64>,
        /// The loss component of the price.
        #[schemars(schema_with = "number_or_null")]
        #[ts(optional, type = "number | null")]
        loss: Option<f64>,
        /// The quantity.
        #[schemars(schema_with = "number_or_null")]
        #[ts(optional, type = "number | null")]
        quantity: Option<f64>,
    }
}

entry! {
    /// A key that was removed.
    KeyRemoved {
        /// The key.
        key: String,
        /// In a registry only: of two entries of a key, the one with the greater version counts. Versions
        /// compare as text.
        version: Option<String>,
    }
}

entry! {
    /// A record of a registry, which replaces the previous one of its key.
    RecordUpdate {
        first {}
        /// The channel.
        channel,
        /// Its offset in the log, counted from 1 in each epoch.
        offset,
        /// When it was written, by the clock of the gateway that wrote it, or by a faster clock that this
        /// gateway has seen.
        timestamp,
        /// The entry is part of a snapshot: the latest one of its key.
        snapshot: Option<bool>,
        /// The record's `userId` or `orderId`, as text.
        key: String,
        /// Of two entries of a key, the one with the greater version counts. Versions compare as text.
        version: String,
        /// The record, as it was written.
        #[schemars(schema_with = "any_object")]
        #[ts(type = "Record<string, unknown>")]
        record: Fields,
    }
}

entry! {
    /// A zone that was removed.
    ZoneRemoved {}
}

entry! {
    /// An update of an order. Other fields that its worker gave follow those described here.
    OrderUpdate of order {}
}

entry! {
    /// The last update of an order that was not executed.
    OrderFailed of order {
        /// The reason.
        error: Failure,
    }
}

entry! {
    /// A ticker.
    TickerEvent of event { Ticker }

    /// A trade.
    TradeEvent of event { Trade }

    /// An order book, or its changes.
    OrderbookEvent of event { Orderbook }

    /// A candle.
    CandleEvent of event { Candle }

    /// A change in the connection to an exchange.
    ExchangeEvent of event { Exchange }
}

objects! {
    /// What is known about an entry that the gateway cannot show.
    Skipped {
        /// The channel.
        channel: ChannelName,
        /// The order whose channel it is.
        order_id: Option<OrderId>,
        /// Its offset in the log.
        offset: u64,
        /// Absent if it could not be read.
        id: Option<String>,
        /// Absent if it could not be read.
        timestamp: Option<DateTime<Utc>>,
        /// The entry waited at its gateway, or arrives after entries that were accepted later.
        late: Option<bool>,
        /// Earlier entries of the same gateway were dropped and are in no log.
        missed_before: Option<bool>,
        /// `unknown_kind` or `unreadable`.
        reason: String,
        /// The entry's own type, if that is known.
        kind: Option<String>,
        /// Whether this is the last entry of its channel.
        terminal: Option<bool>,
    }

    /// Reports, in the channel of a live type, that events of other processes did not arrive.
    Missed {
        /// The channel.
        channel: ChannelName,
        /// Its offset in the log, counted from 1 in each epoch.
        offset: u64,
        /// Identifies the entry.
        id: String,
        /// When the gateway noticed.
        timestamp: DateTime<Utc>,
        /// What is missing.
        data: MissedEvents,
    }

    /// What is missing. Without fields: programs that do not number their events may have published some.
    MissedEvents {
        /// The gateway that published the missing events.
        source: Option<String>,
        /// How many events are missing.
        count: Option<u64>,
    }

    /// The data of a ticker: a `price`, or a `bid` and an `ask`.
    Ticker {
        /// The exchange.
        exchange: String,
        /// The symbol, such as `BTC-USDT`.
        symbol: String,
        /// The last price.
        price: Option<Digits>,
        /// The best bid.
        bid: Option<Digits>,
        /// The best ask.
        ask: Option<Digits>,
        /// The size of the best bid.
        bid_size: Option<Digits>,
        /// The size of the best ask.
        ask_size: Option<Digits>,
        /// The first price of the period.
        open: Option<Digits>,
        /// The highest price of the period.
        high: Option<Digits>,
        /// The lowest price of the period.
        low: Option<Digits>,
        /// The quantity traded in the period.
        volume: Option<Digits>,
        /// The turnover of the period.
        quote_volume: Option<Digits>,
    }

    /// The data of a trade.
    Trade {
        /// The exchange.
        exchange: String,
        /// The symbol, such as `BTC-USDT`.
        symbol: String,
        /// The price.
        price: Digits,
        /// The quantity.
        size: Digits,
        /// The exchange's id of the trade.
        trade_id: Option<Digits>,
        /// The side of the taker: `buy` or `sell`.
        side: Option<String>,
    }

    /// The data of a whole order book, or of changes to it: a level of size 0 is removed.
    Orderbook {
        /// The exchange.
        exchange: String,
        /// The symbol, such as `BTC-USDT`.
        symbol: String,
        /// `snapshot` or `delta`.
        kind: String,
        /// Price and size of each level.
        bids: Vec<[Digits; 2]>,
        /// Price and size of each level.
        asks: Vec<[Digits; 2]>,
        /// Counts the changes of the book.
        sequence: u64,
        /// In a delta: the `sequence` that it builds on.
        previous_sequence: Option<u64>,
    }

    /// The data of a candle.
    Candle {
        /// The exchange.
        exchange: String,
        /// The symbol, such as `BTC-USDT`.
        symbol: String,
        /// The length of the interval, such as `1m`.
        interval: String,
        /// The start of the interval.
        open_time: Digits,
        /// The first price.
        open: Digits,
        /// The highest price.
        high: Digits,
        /// The lowest price.
        low: Digits,
        /// The last price.
        close: Digits,
        /// The quantity traded.
        volume: Digits,
        /// Whether the interval is over.
        closed: bool,
        /// Whether it corrects a candle that was already closed.
        correction: Option<bool>,
    }

    /// The data of a change in the connection to an exchange.
    Exchange {
        /// The exchange.
        exchange: String,
        /// The reason, for people.
        reason: Option<String>,
        /// Only in `exchange:reconnecting`: the number of the attempt.
        attempt: Option<u64>,
        /// Only in `exchange:reconnecting`: the delay before the attempt, in milliseconds.
        delay_ms: Option<u64>,
        /// Only in `exchange:error`: the kind of error.
        code: Option<String>,
    }
}

/// A decimal in the form in which its publisher wrote it: a number, or a text that contains one.
#[derive(JsonSchema, TS)]
#[schemars(untagged)]
#[ts(untagged)]
pub(crate) enum Digits {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// Removes optional fields from those that are required.
fn options_may_be_absent(schema: &mut Schema) {
    let properties = schema.get("properties").cloned().unwrap_or_default();
    let is_optional = |name: &Value| name.as_str().is_some_and(|name| permits_null(&properties[name]));
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !is_optional(name));
        if required.is_empty() {
            schema.remove("required");
        }
    }
}

/// A record has whatever fields its writer gave it.
fn any_object(_generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "additionalProperties": true })
}

/// A number as its publisher wrote it; null counts as absent.
fn number_or_null(_generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "oneOf": [{ "type": "number" }, { "type": "null" }] })
}

impl JsonSchema for crate::EntryMessage {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Entry::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Entry::json_schema(generator)
    }
}

impl TS for crate::EntryMessage {
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
