//! The stored form of entries, in Redis and on disk.
//!
//! `1 <id> <time in ms> <type> <length of the key, or -> <key><data>`. The leading number is the
//! version of the form, and a letter behind it is a mark of the entry (`l` late, `m` missed before):
//! a reader that does not know one says so rather than guess.

use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;

use crate::model::{DraftEntry, Entry, EntryId, Marks};

const VERSION: &str = "1";

/// The form in which an entry is stored; its offset is beside it.
pub(in crate::storage) fn encode(id: EntryId, draft: &DraftEntry) -> Bytes {
    let key = draft.key.as_deref();
    let key_len = key.map_or_else(|| "-".to_owned(), |key| key.len().to_string());
    let time_ms = draft.time.timestamp_millis();
    let late = if draft.marks.late { "l" } else { "" };
    let missed = if draft.marks.missed_before { "m" } else { "" };
    let head = format!("{VERSION}{late}{missed} {id} {time_ms} {} {key_len} ", draft.kind.as_str());
    let key = key.unwrap_or_default().as_bytes();
    [head.as_bytes(), key, &draft.data].concat().into()
}

/// The entry at `offset`. The data is copied, so that an entry does not keep a whole reply alive.
pub(in crate::storage) fn decode(offset: u64, stored: &[u8]) -> Result<Entry, String> {
    let mut parts = stored.splitn(6, |byte| *byte == b' ');
    let mut part = || parts.next().ok_or("entry is cut short");
    let marks = marks(part()?).ok_or("entry has an unknown form; a newer version may have written it")?;
    let id: EntryId = text(part()?)?.parse()?;
    let time_ms: i64 = number(part()?)?;
    let kind = text(part()?)?.parse()?;
    let key_len = part()?;
    let rest = part()?;
    let (key, data) = if key_len == b"-" {
        (None, rest)
    } else {
        let (key, data) = rest.split_at_checked(number(key_len)?).ok_or("entry is cut short")?;
        (Some(Arc::from(text(key)?)), data)
    };
    let time = DateTime::from_timestamp_millis(time_ms).ok_or("entry has an impossible time")?;
    let draft = DraftEntry { time, kind, key, data: Bytes::copy_from_slice(data), marks };
    Ok(Entry { offset, id, draft })
}

/// The marks behind the version.
fn marks(form: &[u8]) -> Option<Marks> {
    let mut marks = Marks::default();
    for letter in form.strip_prefix(VERSION.as_bytes())? {
        match letter {
            b'l' => marks.late = true,
            b'm' => marks.missed_before = true,
            _ => return None,
        }
    }
    Some(marks)
}

/// Bytes that must be text.
pub(in crate::storage) fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "not UTF-8 where it must be".to_owned())
}

/// Bytes that must be a decimal number.
pub(in crate::storage) fn number<N: std::str::FromStr>(bytes: &[u8]) -> Result<N, String> {
    text(bytes)?.parse().map_err(|_| "not a number where one must be".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{EntryKind, NodeId};

    fn entry(offset: u64, time_ms: i64, key: Option<String>, data: Vec<u8>, marks: Marks) -> Entry {
        let time = DateTime::from_timestamp_millis(time_ms).unwrap();
        let draft = DraftEntry {
            time,
            kind: EntryKind::PriceUpdate,
            key: key.map(Arc::from),
            data: data.into(),
            marks,
        };
        Entry { offset, id: EntryId { producer: NodeId::random(), seq: offset + 3 }, draft }
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_stored_form(
            time_ms in -1_000_000_000_000i64..10_000_000_000_000,
            key in proptest::option::of(".{0,12}"),
            data in proptest::collection::vec(any::<u8>(), 0..64),
            late: bool,
            missed_before: bool,
        ) {
            let entry = entry(7, time_ms, key, data, Marks { late, missed_before });
            prop_assert_eq!(decode(7, &encode(entry.id, &entry.draft)), Ok(entry));
        }

        #[test]
        fn bytes_from_elsewhere_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _any = decode(1, &bytes);
        }
    }
}
