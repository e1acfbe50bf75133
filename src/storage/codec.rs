//! The stored form of entries, in Redis and on disk.
//!
//! `1 <id> <time in ms> <type> <length of the key, or -> <key><data>`. The leading number is the version of
//! the form, and each letter after it marks the entry: `l` late, `m` missed before, `t` terminal. `confirmed`
//! and `failed` are written without `t`, because builds that do not know that mark recognize these two by
//! name.
//!
//! A reader that does not know a type, a mark or a form reports that instead of guessing. It does so for this
//! entry only, and the entry keeps its place: see [`EntryKind::Unknown`].

use std::sync::Arc;

use bytes::Bytes;
use chrono::DateTime;

use crate::model::{DraftEntry, Entry, EntryId, EntryKind, Marks};
use crate::support::json::is_readable_object;

const VERSION: &str = "1";

/// The fault of an entry whose other parts are readable.
pub(in crate::storage) const NO_OBJECT: &str = "its data is no JSON object";

/// The stored form of an entry; the offset is stored separately.
pub(in crate::storage) fn encode(id: EntryId, draft: &DraftEntry) -> Bytes {
    let key = draft.key.as_deref();
    let key_len = key.map_or_else(|| "-".to_owned(), |key| key.len().to_string());
    let time_ms = draft.time.timestamp_millis();
    let late = if draft.marks.late { "l" } else { "" };
    let missed = if draft.marks.missed_before { "m" } else { "" };
    let is_known_as_such = matches!(draft.kind, EntryKind::Confirmed | EntryKind::Failed);
    let terminal = if draft.kind.is_terminal() && !is_known_as_such { "t" } else { "" };
    let kind = draft.kind.as_str();
    let head = format!("{VERSION}{late}{missed}{terminal} {id} {time_ms} {kind} {key_len} ");
    let key = key.unwrap_or_default().as_bytes();
    [head.as_bytes(), key, &draft.data].concat().into()
}

/// The entry at `offset`, whatever the bytes. If some part of it cannot be read, its kind is
/// [`EntryKind::Unknown`], and the other fields hold what could be read. The data is copied, so that an entry
/// does not keep a whole reply alive.
pub(in crate::storage) fn decode(offset: u64, stored: &[u8]) -> Entry {
    let mut parts = stored.splitn(6, |byte| *byte == b' ');
    let mut part = || parts.next().unwrap_or_default();
    let (form, id, time, kind, key_len, rest) = (part(), part(), part(), part(), part(), part());
    let unreadable = |what| unreadable(offset, what);
    let Some((marks, is_terminal, are_all_known)) = marks(form) else {
        return unreadable("its form has another version");
    };
    let Some(id) = text(id).ok().and_then(|id| id.parse().ok()) else {
        return unreadable("its id cannot be read");
    };
    let time = number(time).ok().and_then(DateTime::from_timestamp_millis);
    let kind = text(kind).ok().and_then(|kind| EntryKind::named(kind, is_terminal));
    let content = content(key_len, rest);
    let is_otherwise_known = |kind: &EntryKind| is_terminal && !kind.is_terminal();
    let fault = if !are_all_known {
        Some("it has a mark that is not known")
    } else if time.is_none() {
        Some("its time cannot be read")
    } else if kind.as_ref().is_some_and(is_otherwise_known) {
        Some("it is marked as terminal, which its type is not")
    } else if kind.is_none() {
        Some("its type cannot be read")
    } else if content.is_none() {
        Some("it is cut short")
    } else {
        // An entry of an unknown kind is shown to nobody, so its data may be anything.
        let is_shown = kind.as_ref().is_some_and(|kind| kind.unknown().is_none());
        let is_readable = || content.as_ref().is_some_and(|(_, data)| is_readable_object(data));
        (is_shown && !is_readable()).then_some(NO_OBJECT)
    };
    let (key, data) = content.unwrap_or((None, &[]));
    let kind = match (kind, fault) {
        (Some(kind), None) => kind,
        (kind, what) => EntryKind::unreadable(kind.as_ref(), is_terminal, what.unwrap_or("it is no entry")),
    };
    let data = Bytes::copy_from_slice(data);
    let draft = DraftEntry { time: time.unwrap_or_default(), kind, key, data, marks };
    Entry { offset, id, draft }
}

/// The id of a stored entry, even if the rest is unreadable; `None` if the id is.
pub(in crate::storage) fn decode_id(stored: &[u8]) -> Option<EntryId> {
    let id = stored.splitn(3, |byte| *byte == b' ').nth(1)?;
    text(id).ok()?.parse().ok()
}

/// An entry of which nothing could be read.
pub(in crate::storage) fn unreadable(offset: u64, what: &'static str) -> Entry {
    let draft = DraftEntry {
        time: DateTime::UNIX_EPOCH,
        kind: EntryKind::unreadable(None, false, what),
        key: None,
        data: Bytes::new(),
        marks: Marks::default(),
    };
    Entry { offset, id: EntryId::UNREADABLE, draft }
}

/// The marks after the version, whether the entry is marked as terminal, and whether all of its marks are
/// known. `None` for another version.
fn marks(form: &[u8]) -> Option<(Marks, bool, bool)> {
    let (mut marks, mut is_terminal, mut are_all_known) = (Marks::default(), false, true);
    for letter in form.strip_prefix(VERSION.as_bytes())? {
        match letter {
            b'l' => marks.late = true,
            b'm' => marks.missed_before = true,
            b't' => is_terminal = true,
            b'a'..=b'z' | b'A'..=b'Z' => are_all_known = false,
            _ => return None,
        }
    }
    Some((marks, is_terminal, are_all_known))
}

/// The key and the data.
fn content<'a>(key_len: &[u8], rest: &'a [u8]) -> Option<(Option<Arc<str>>, &'a [u8])> {
    if key_len == b"-" {
        return Some((None, rest));
    }
    let (key, data) = rest.split_at_checked(number(key_len).ok()?)?;
    Some((Some(Arc::from(text(key).ok()?)), data))
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
    use crate::model::{NodeId, WhyUnknown};

    fn entry(offset: u64, time_ms: i64, key: Option<String>, data: Vec<u8>, marks: Marks) -> Entry {
        let draft = DraftEntry { key: key.map(Arc::from), marks, ..DraftEntry::price(time_ms, data) };
        Entry { offset, id: EntryId { producer: NodeId::random(), seq: offset + 3 }, draft }
    }

    proptest! {
        #[test]
        fn an_entry_survives_its_stored_form(
            time_ms in -1_000_000_000_000i64..10_000_000_000_000,
            key in proptest::option::of(".{0,12}"),
            data in "[a-z {}ü]{0,64}",
            late: bool,
            missed_before: bool,
        ) {
            let data = format!(r#"{{"data":"{data}"}}"#).into_bytes();
            let entry = entry(7, time_ms, key, data, Marks { late, missed_before });
            prop_assert_eq!(decode(7, &encode(entry.id, &entry.draft)), entry);
        }

        #[test]
        fn an_entry_with_data_that_is_no_object_keeps_all_else_and_its_bytes(
            key in proptest::option::of(".{0,12}"),
            data in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            prop_assume!(data != b"{}");
            let entry = entry(7, 5, key, data, Marks::default());
            let stored = encode(entry.id, &entry.draft);
            let read = decode(7, &stored);
            let unknown = read.draft.kind.unknown().unwrap();
            let why = WhyUnknown::Form(NO_OBJECT);
            prop_assert_eq!((unknown.name.as_deref(), unknown.why), (Some("price_update"), why));
            prop_assert_eq!(encode(read.id, &read.draft), stored);
        }

        #[test]
        fn bytes_from_elsewhere_keep_their_place_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            prop_assert_eq!(decode(9, &bytes).offset, 9);
        }
    }

    const ID: &str = "67e5504410b1426f9247bb680e5fe0c8-9";

    /// An entry of this form and type, with the key `K`.
    fn stored(form: &str, kind: &str) -> Entry {
        decode(7, format!("{form} {ID} 1610064000278 {kind} 1 K{{\"p\":1}}").as_bytes())
    }

    #[test]
    fn an_entry_of_an_unknown_type_keeps_all_that_it_has_and_its_bytes() {
        for (form, is_terminal) in [("1", false), ("1t", true), ("1lt", true)] {
            let entry = stored(form, "quote");
            let unknown = entry.draft.kind.unknown().unwrap();
            assert_eq!((unknown.name.as_deref(), unknown.why), (Some("quote"), WhyUnknown::Kind));
            assert_eq!(entry.draft.kind.is_terminal(), is_terminal, "{form}");
            assert_eq!((entry.id.to_string().as_str(), entry.draft.key.as_deref()), (ID, Some("K")));
            assert_eq!(decode(7, &encode(entry.id, &entry.draft)), entry);
        }
    }

    #[test]
    fn the_two_ends_that_every_build_knows_are_written_without_a_mark() {
        for kind in ["confirmed", "failed"] {
            let entry = stored("1", kind);
            assert!(entry.draft.kind.is_terminal() && entry.draft.kind.unknown().is_none());
            assert!(encode(entry.id, &entry.draft).starts_with(b"1 "));
        }
    }

    #[test]
    fn the_readable_parts_of_an_entry_of_a_newer_form_are_kept() {
        let known = stored("1x", "price_update");
        let unknown = known.draft.kind.unknown().unwrap();
        assert_eq!((unknown.name.as_deref(), unknown.why.as_str()), (Some("price_update"), "unreadable"));
        assert_eq!((known.id.to_string().as_str(), known.draft.kind.is_terminal()), (ID, false));
        assert!(stored("1x", "confirmed").draft.kind.is_terminal());
        assert!(stored("1xt", "expired").draft.kind.is_terminal());
        assert!(
            stored("1t", "routing").draft.kind.is_terminal()
                && stored("1t", "failed").draft.kind == EntryKind::Failed
        );
        for bytes in ["", "1", "2 a b c d e", "1 nobody 5 routing - {}", "garbage"] {
            let entry = decode(7, bytes.as_bytes());
            assert!(!entry.id.is_known() && entry.draft.kind.unknown().is_some(), "{bytes}");
        }
        let cut = decode(7, format!("1 {ID} 5 routing 9 K").as_bytes());
        assert_eq!(cut.draft.kind.unknown().unwrap().why, WhyUnknown::Form("it is cut short"));
        for kind in ["confirmed", "routing"] {
            let torn = decode(7, format!("1 {ID} 5 {kind} - {{\"p\":").as_bytes());
            assert_eq!(torn.draft.kind.unknown().unwrap().why, WhyUnknown::Form(NO_OBJECT));
            assert_eq!(torn.draft.kind.is_terminal(), kind == "confirmed");
        }
    }
}
