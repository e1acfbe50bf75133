//! An entry as clients receive it: one flat JSON object.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::Error as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{ChannelName, EntryKind, Fields, OrderId};

/// The message type that replaces an entry which the gateway cannot show.
pub const SKIPPED: &str = "skipped";

/// The field that marks an entry before which others are missing.
pub const MISSED_BEFORE: &str = "missedBefore";

/// The field that marks an entry of a snapshot.
pub const SNAPSHOT: &str = "snapshot";

/// The field that names the order an entry belongs to.
pub const ORDER_ID: &str = "orderId";

const LATE: &str = "late";

/// An entry of a channel: a price, a removal, an order update, or a kind that only newer gateways know.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryMessage {
    /// `type`: the entry's kind, such as `price_update`, or `skipped` in place of an entry that the gateway
    /// cannot show.
    pub kind: Box<str>,
    /// The channel.
    pub channel: ChannelName,
    /// The order whose channel it is, if the envelope names it.
    pub order_id: Option<OrderId>,
    /// Its offset in the log, counted from 1 in each epoch.
    pub offset: u64,
    /// Identifies the entry, in every epoch and on every gateway. Absent if the stored entry is damaged.
    pub id: Option<Box<str>>,
    /// The time of the entry itself. Absent if the stored entry is damaged.
    pub timestamp: Option<DateTime<Utc>>,
    /// The entry is part of a snapshot: the latest one of its key.
    pub snapshot: bool,
    /// The entry waited at its gateway, or arrives after entries that were accepted later.
    pub late: bool,
    /// Earlier entries of the same gateway were dropped and are in no log.
    pub missed_before: bool,
    /// The publisher's fields, in their order and with their digits.
    pub fields: Fields,
}

impl EntryMessage {
    /// Whether this is the last entry of its channel.
    pub fn is_terminal(&self) -> bool {
        match self.kind.parse::<EntryKind>() {
            Ok(kind) => kind.is_terminal(),
            Err(_) => self.fields.get("terminal") == Some(true),
        }
    }

    /// Whether it replaces an entry that the gateway cannot show.
    pub fn is_skipped(&self) -> bool {
        &*self.kind == SKIPPED
    }

    /// Builds the entry from the fields of a message; the error says which field is missing or wrong.
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
                // After the offset, a field of this name is the publisher's own.
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
