//! One message in a channel.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{ChannelPolicy, EntryId, EntryKind};

/// What became of an entry on its way into the log; readers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// It waited at its gateway while the log was away.
    pub late: bool,
    /// Entries of its producer before it were let go, and no log has them.
    pub missed_before: bool,
}

/// An entry that no log has yet: what a publisher hands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftEntry {
    /// The entry's own time, in milliseconds precision; not when it arrived.
    pub time: DateTime<Utc>,
    /// What it says.
    pub kind: EntryKind,
    /// What it replaces: a newer entry of the same kind and key makes this one obsolete on the
    /// *latest* lane; in the channel of an order, one of the same key and any kind.
    pub key: Option<Arc<str>>,
    /// A compact JSON object (no white space outside strings, so no line breaks).
    pub data: Bytes,
    /// Publishers leave them as they are by default.
    pub marks: Marks,
}

impl DraftEntry {
    /// What this entry costs in a queue or a log, in bytes; an estimate from above.
    pub fn cost(&self) -> usize {
        self.data.len() + self.key.as_ref().map_or(0, |key| key.len()) + size_of::<Entry>()
    }

    /// Of entries with the same text here the latest one counts: their key, and their kind too where kinds
    /// do not share keys. `None` for an entry that replaces nothing.
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
    /// A price of no key, for tests.
    pub(crate) fn price(time_ms: i64, data: impl Into<Bytes>) -> Self {
        let time = DateTime::from_timestamp_millis(time_ms).expect("a time");
        Self { time, kind: EntryKind::PriceUpdate, key: None, data: data.into(), marks: Marks::default() }
    }
}

/// One message in a channel. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log, counting from 1 in each epoch without holes.
    pub offset: u64,
    /// Who accepted it, and as which of theirs.
    pub id: EntryId,
    /// Time, type, key and content, as the publisher gave them.
    pub draft: DraftEntry,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChannelName, OrderId};

    #[test]
    fn in_a_zone_only_the_same_kind_replaces_and_of_an_order_any() {
        let draft = |kind| DraftEntry {
            time: DateTime::UNIX_EPOCH,
            kind,
            key: Some("HUB".into()),
            data: Bytes::from_static(b"{}"),
            marks: Marks::default(),
        };
        let (price, quote) =
            (draft(EntryKind::PriceUpdate), draft(EntryKind::named("quote", false).unwrap()));
        let zone = ChannelPolicy::of(&"zone:pjm".parse().unwrap());
        let order = ChannelPolicy::of(&ChannelName::order(OrderId::random()));
        assert_eq!(price.latest_key(zone).as_deref(), Some("HUB"));
        assert_eq!(quote.latest_key(zone).as_deref(), Some("HUB\0quote"));
        assert_eq!(quote.latest_key(order).as_deref(), Some("HUB"));
    }
}
