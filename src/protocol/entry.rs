//! An entry as clients receive it: one flat JSON object.

use std::io::Write as _;

use chrono::SecondsFormat;

use super::{MISSED_BEFORE, ORDER_ID, OrderedFields, SKIPPED, SNAPSHOT};
use crate::model::{ChannelKind, ChannelName, Entry, UnknownKind};

/// Fields of the envelope, which a publisher may not use in a payload. (A publisher may set `timestamp`,
/// which becomes the entry's time.)
pub const RESERVED_FIELDS: [&str; 7] = ["type", "channel", "offset", "id", "late", MISSED_BEFORE, SNAPSHOT];

/// Writes the envelope, then the payload's own fields. The envelope is `{"type":…,"channel":…,`, for an order
/// `"orderId":…,`, then `"offset":…,"id":…,"timestamp":…,`, for a late entry `"late":true,`, and for one
/// whose predecessors were dropped `"missedBefore":true,`. `late` means late for the reader it is written
/// for, even if the log had the entry in time.
///
/// An entry that this build cannot show is written as `skipped`, with the same envelope (without id and
/// timestamp if these cannot be read), with `reason` and, if known, `kind` and `"terminal":true`.
pub fn entry_json(channel: &ChannelName, entry: &Entry, late: bool, out: &mut Vec<u8>) {
    write(channel, entry, late, false, out);
}

/// The same for the latest entry of a key that is part of a snapshot: `"snapshot":true` is added, before a
/// possible `"late":true`.
pub fn latest_json(channel: &ChannelName, entry: &Entry, out: &mut Vec<u8>) {
    write(channel, entry, false, true, out);
}

fn write(channel: &ChannelName, entry: &Entry, late: bool, is_latest: bool, out: &mut Vec<u8>) {
    let draft = &entry.draft;
    // Names, ids and times need no JSON escapes by construction; writing to a Vec cannot fail.
    let unknown = draft.kind.unknown();
    let kind = if unknown.is_some() { SKIPPED } else { draft.kind.as_str() };
    let offset = entry.offset;
    let mut head = write!(out, r#"{{"type":"{kind}","channel":"{channel}""#);
    if channel.kind() == ChannelKind::Order && (unknown.is_some() || !names_its_order(&draft.data)) {
        head = head.and(write!(out, r#","{ORDER_ID}":"{}""#, channel.subject()));
    }
    head = head.and(write!(out, r#","offset":{offset}"#));
    if entry.id.is_known() {
        let time = draft.time.to_rfc3339_opts(SecondsFormat::Millis, true);
        head = head.and(write!(out, r#","id":"{}","timestamp":"{time}""#, entry.id));
    }
    debug_assert!(head.is_ok());
    if is_latest {
        out.extend_from_slice(br#","snapshot":true"#);
    }
    if late || draft.marks.late {
        out.extend_from_slice(br#","late":true"#);
    }
    if draft.marks.missed_before {
        out.extend_from_slice(br#","missedBefore":true"#);
    }
    if let Some(unknown) = unknown {
        write_unknown(unknown, out);
        return;
    }
    // Gateways write no white space here, but other programs may have.
    match draft.data.get(1..).unwrap_or_default().trim_ascii() {
        b"" | b"}" => out.push(b'}'),
        fields => {
            out.push(b',');
            out.extend_from_slice(fields);
        }
    }
}

/// The remaining fields of a `skipped`, none of which needs escapes.
fn write_unknown(unknown: &UnknownKind, out: &mut Vec<u8>) {
    let mut rest = write!(out, r#","reason":"{}""#, unknown.why.as_str());
    if let Some(kind) = &unknown.name {
        rest = rest.and(write!(out, r#","kind":"{kind}""#));
    }
    debug_assert!(rest.is_ok());
    let end: &[u8] = if unknown.is_terminal { br#","terminal":true}"# } else { b"}" };
    out.extend_from_slice(end);
}

/// Whether the payload names its order itself, as an outside producer's may.
fn names_its_order(data: &[u8]) -> bool {
    if memchr::memmem::find(data, ORDER_ID.as_bytes()).is_none() {
        return false;
    }
    let fields = serde_json::from_slice::<OrderedFields<'_>>(data);
    fields.is_ok_and(|OrderedFields(fields)| fields.iter().any(|(name, _)| name == ORDER_ID))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::model::{DraftEntry, EntryId, EntryKind, Marks, NodeId, OFFSET_MAX};
    use crate::protocol::ServerMessage;

    /// An entry of 2021-01-08T00:00:00.278Z.
    fn entry(offset: u64, producer: u128, data: &'static str) -> Entry {
        let id = EntryId { producer: NodeId(Uuid::from_u128(producer)), seq: 9 };
        Entry { offset, id, draft: DraftEntry::price(1_610_064_000_278, data) }
    }

    fn check(channel: &str, data: &'static str, late: bool, expected: &str) {
        let entry = entry(7, 0, data);
        let mut out = Vec::new();
        entry_json(&channel.parse().unwrap(), &entry, late, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        /// The bytes written here are those that the message's type reads and would write itself.
        #[test]
        fn an_entry_is_written_as_its_message_type_writes_it(
            channel in prop_oneof![
                Just("zone:pjm".to_owned()),
                Just("order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11".to_owned()),
            ],
            kind in prop_oneof![
                Just("price_update"), Just("key_removed"), Just("confirmed"), Just("failed"), Just("quote"),
            ],
            data in prop_oneof![
                Just("{}"),
                Just("{ }"),
                Just(r#"{"key":"A \" é","price":39432.480,"n":[1.10e2,{"a":null}],"late":false}"#),
                Just(r#"{"orderId":"theirs","snapshot":true,"progress":10}"#),
                Just(r#"{"orderId":"6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11","terminal":true}"#),
                Just(r#"{"snapshot":true}"#),
            ],
            (offset, seq, ms) in (1..OFFSET_MAX, any::<u64>(), 0..253_402_300_799_999_i64),
            (late, missed_before, comes_late, is_latest, is_known) in any::<(bool, bool, bool, bool, bool)>(),
        ) {
            let id = EntryId { producer: NodeId(Uuid::from_u128(u128::from(seq) << 40)), seq };
            let entry = Entry {
                offset,
                id: if is_known { id } else { EntryId::UNREADABLE },
                draft: DraftEntry {
                    kind: EntryKind::named(kind, seq % 2 == 0).unwrap(),
                    marks: Marks { late, missed_before },
                    ..DraftEntry::price(ms, data)
                },
            };
            let mut out = Vec::new();
            write(&channel.parse().unwrap(), &entry, comes_late, is_latest, &mut out);
            let text = String::from_utf8(out).unwrap();
            let ServerMessage::Entry(read) = ServerMessage::read(&text).unwrap() else { panic!("{text}") };
            prop_assert_eq!((read.offset, read.late), (offset, late || comes_late));
            prop_assert_eq!(read.is_terminal(), entry.draft.kind.is_terminal());
            prop_assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
    }

    #[test]
    fn an_update_names_its_order_once() {
        let order = "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
        let head = r#"{"type":"price_update","channel":"order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11""#;
        let rest = r#","offset":7,"id":"00000000000000000000000000000000-9","timestamp":"2021-01-08T00:00:00.278Z","#;
        let own = r#","orderId":"6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11""#;
        for (data, names) in [
            (r#"{"progress":10}"#, true),
            (r#"{"progress":10,"orderId":"theirs"}"#, false),
            (r#"{"about":{"orderId":"theirs"}}"#, true),
        ] {
            let own = if names { own } else { "" };
            check(order, data, false, &format!("{head}{own}{rest}{}", &data[1..]));
        }
    }

    #[test]
    fn the_payload_follows_the_envelope_in_one_flat_object() {
        check(
            "zone:pjm",
            r#"{"key":"HUB","price":39432.480}"#,
            false,
            concat!(
                r#"{"type":"price_update","channel":"zone:pjm","offset":7,"#,
                r#""id":"00000000000000000000000000000000-9","timestamp":"2021-01-08T00:00:00.278Z","#,
                r#""key":"HUB","price":39432.480}"#
            ),
        );
    }

    #[test]
    fn an_empty_payload_leaves_the_envelope_and_late_entries_are_marked() {
        check(
            "zone:pjm",
            "{}",
            true,
            concat!(
                r#"{"type":"price_update","channel":"zone:pjm","offset":7,"#,
                r#""id":"00000000000000000000000000000000-9","timestamp":"2021-01-08T00:00:00.278Z","late":true}"#
            ),
        );
    }

    #[test]
    fn an_entry_of_a_snapshot_is_marked() {
        let mut entry = entry(7, 0, r#"{"key":"HUB","price":1}"#);
        entry.draft.marks.late = true;
        let mut out = Vec::new();
        latest_json(&"zone:pjm".parse().unwrap(), &entry, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"type":"price_update","channel":"zone:pjm","offset":7,"#,
                r#""id":"00000000000000000000000000000000-9","timestamp":"2021-01-08T00:00:00.278Z","#,
                r#""snapshot":true,"late":true,"key":"HUB","price":1}"#
            ),
        );
    }

    #[test]
    fn an_entry_that_cannot_be_shown_is_written_as_skipped() {
        let mut entry = entry(8, 5, r#"{"bid":1}"#);
        entry.draft.kind = EntryKind::named("expired", true).unwrap();
        let text = |entry: &Entry| {
            let mut out = Vec::new();
            entry_json(&"zone:pjm".parse().unwrap(), entry, false, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(&entry),
            concat!(
                r#"{"type":"skipped","channel":"zone:pjm","offset":8,"#,
                r#""id":"00000000000000000000000000000005-9","timestamp":"2021-01-08T00:00:00.278Z","#,
                r#""reason":"unknown_kind","kind":"expired","terminal":true}"#
            ),
        );
        entry.id = EntryId::UNREADABLE;
        entry.draft.kind = EntryKind::unreadable(None, false, "it is cut short");
        assert_eq!(
            text(&entry),
            r#"{"type":"skipped","channel":"zone:pjm","offset":8,"reason":"unreadable"}"#
        );
    }
}
