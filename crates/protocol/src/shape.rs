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
    /// Stands in the place of an entry that the gateway cannot show.
    Skipped(Skipped),
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
}
