//! An entry of a channel.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{ChannelPolicy, EntryId, EntryKind};

/// What happened to an entry on its way into the log; shown to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Whether it waited at its gateway while the log was away.
    pub late: bool,
    /// Whether earlier entries of its producer were dropped and are in no log.
    pub missed_before: bool,
}

/// An entry that no log has yet, as its publisher passed it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftEntry {
    /// The entry's own time, to the millisecond; not when it arrived.
    pub time: DateTime<Utc>,
    /// The kind of entry.
    pub kind: EntryKind,
    /// What it replaces on lane *latest*: an older entry of the same kind and key, or, in the channel of an
    /// order, one of the same key and any kind.
    pub key: Option<Arc<str>>,
    /// A compact JSON object (no white space outside strings, so no line breaks).
    pub data: Bytes,
    /// Publishers leave the default.
    pub marks: Marks,
}

impl DraftEntry {
    /// An upper estimate of the bytes that this entry takes in a queue or a log.
    pub fn cost(&self) -> usize {
        self.data.len() + self.key.as_ref().map_or(0, |key| key.len()) + size_of::<Entry>()
    }

    /// The name under which the latest entry counts: the key, with the kind if kinds do not share keys.
    /// `None` for an entry that replaces nothing.
    pub(crate) fn latest_key(&self, policy: &ChannelPolicy) -> Option<Arc<str>> {
        let key = self.key.as_ref()?;
        if policy.kinds_share_keys || self.kind == EntryKind::PriceUpdate {
            return Some(Arc::clone(key));
        }
        // No key has a control character.
        Some(format!("{key}\0{}", self.kind.as_str()).into())
    }
}

#[cfg(any(test, feature = "probes"))]
impl DraftEntry {
    /// A price without a key, for tests.
    pub(crate) fn price(time_ms: i64, data: impl Into<Bytes>) -> Self {
        let time = DateTime::from_timestamp_millis(time_ms).expect("a time");
        Self { time, kind: EntryKind::PriceUpdate, key: None, data: data.into(), marks: Marks::default() }
    }
}

/// An entry of a channel. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its offset in the log, counted from 1 in each epoch without gaps.
    pub offset: u64,
    /// Its producer, and the producer's sequence.
    pub id: EntryId,
    /// Time, kind, key and content, as the publisher gave them.
    pub draft: DraftEntry,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChannelName, OrderId};

    #[test]
    fn in_a_zone_only_the_same_kind_replaces_and_of_an_order_any() {
        let draft = |kind| DraftEntry { kind, key: Some("HUB".into()), ..DraftEntry::price(0, "{}") };
        let (price, quote) =
            (draft(EntryKind::PriceUpdate), draft(EntryKind::named("quote", false).unwrap()));
        let zone = ChannelPolicy::of(&"zone:pjm".parse().unwrap());
        let order = ChannelPolicy::of(&ChannelName::order(OrderId::random()));
        assert_eq!(price.latest_key(zone).as_deref(), Some("HUB"));
        assert_eq!(quote.latest_key(zone).as_deref(), Some("HUB\0quote"));
        assert_eq!(quote.latest_key(order).as_deref(), Some("HUB"));
    }
}
