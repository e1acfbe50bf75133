//! An entry as clients get it: one flat JSON object.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::Error as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{ChannelName, EntryKind, Fields, OrderId};

/// The type of the message that stands for an entry which the gateway cannot show.
pub const SKIPPED: &str = "skipped";

/// Says in an entry that updates before it are missing.
pub const MISSED_BEFORE: &str = "missedBefore";

/// Says of an entry that it is the latest one of its key, sent because a client begins.
pub const SNAPSHOT: &str = "snapshot";

/// Says in an entry of an order which one it is of.
pub const ORDER_ID: &str = "orderId";

const LATE: &str = "late";

/// An entry of a channel: a price, a removal, an update of an order, or of a kind that only newer gateways
/// know.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryMessage {
    /// `type`: what it is, such as `price_update`, or `skipped` in place of one that the gateway cannot show.
    pub kind: Box<str>,
    /// The channel.
    pub channel: ChannelName,
    /// The order whose channel it is, where the envelope says so.
    pub order_id: Option<OrderId>,
    /// Its place in the log; counts from 1 in each epoch.
    pub offset: u64,
    /// Names it for good, in every epoch and on every gateway. Absent of one that is damaged.
    pub id: Option<Box<str>>,
    /// Its own time. Absent of one that is damaged.
    pub timestamp: Option<DateTime<Utc>>,
    /// It is the latest one of its key, sent because a client begins.
    pub snapshot: bool,
    /// It comes after its time.
    pub late: bool,
    /// Entries of its gateway before it are gone.
    pub missed_before: bool,
    /// What its publisher gave, in its order and with its digits.
    pub fields: Fields,
}

impl EntryMessage {
    /// Nothing follows it in its channel.
    pub fn is_terminal(&self) -> bool {
        match self.kind.parse::<EntryKind>() {
            Ok(kind) => kind.is_terminal(),
            Err(_) => self.fields.get("terminal") == Some(true),
        }
    }

    /// It stands in the place of one that the gateway cannot show.
    pub fn is_skipped(&self) -> bool {
        &*self.kind == SKIPPED
    }

    /// Sorts the fields of a message; says which one is missing or wrong.
    pub(crate) fn of_fields(Fields(all): Fields) -> Result<Self, serde_json::Error> {
        fn read<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Result<T, serde_json::Error> {
            serde_json::from_str(value.get())
        }
        let (mut kind, mut channel, mut offset) = (None, None, None);
        let (mut order_id, mut id, mut timestamp) = (None, None, None);
        let (mut snapshot, mut late, mut missed_before) = (false, false, false);
        let mut fields = Vec::new();
        for (name, value) in all {
            let is_plain_mark = fields.is_empty() && value.get() == "true";
            match name.as_str() {
                "type" => kind = Some(read(&value)?),
                "channel" => channel = Some(read(&value)?),
                "offset" => offset = Some(read(&value)?),
                "id" => id = read(&value)?,
                "timestamp" => timestamp = read(&value)?,
                // Behind the offset it is the publisher's own word.
                ORDER_ID if offset.is_none() => order_id = Some(read(&value)?),
                SNAPSHOT if is_plain_mark && !snapshot && !late && !missed_before => snapshot = true,
                LATE if is_plain_mark && !missed_before => late = true,
                MISSED_BEFORE if is_plain_mark => missed_before = true,
                _ => fields.push((name, value)),
            }
        }
        let missing = serde_json::Error::missing_field;
        Ok(Self {
            kind: kind.ok_or_else(|| missing("type"))?,
            channel: channel.ok_or_else(|| missing("channel"))?,
            order_id,
            offset: offset.ok_or_else(|| missing("offset"))?,
            id,
            timestamp,
            snapshot,
            late,
            missed_before,
            fields: Fields(fields),
        })
    }
}

impl Serialize for EntryMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &self.kind)?;
        map.serialize_entry("channel", &self.channel)?;
        if let Some(order_id) = &self.order_id {
            map.serialize_entry(ORDER_ID, order_id)?;
        }
        map.serialize_entry("offset", &self.offset)?;
        if let Some(id) = &self.id {
            map.serialize_entry("id", id)?;
        }
        if let Some(timestamp) = &self.timestamp {
            map.serialize_entry("timestamp", &timestamp.to_rfc3339_opts(SecondsFormat::Millis, true))?;
        }
        for (name, mark) in
            [(SNAPSHOT, self.snapshot), (LATE, self.late), (MISSED_BEFORE, self.missed_before)]
        {
            if mark {
                map.serialize_entry(name, &true)?;
            }
        }
        for (name, value) in &self.fields.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for EntryMessage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of_fields(Fields::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
