//! The published form of entries: `1 <epoch> <first offset> <count>\n`, then `<length>:<stored>` for each
//! entry. The leading number is the version of the form.

use crate::model::{Entry, Epoch};
pub(super) use crate::storage::codec::{decode, decode_id, encode};
use crate::storage::codec::{number, text, unreadable};

const VERSION: &str = "1";

/// Parses a value of the hash of latest entries: `<time>:<time of the append> <offset> <stored>`. Older
/// gateways omit the second time.
pub(super) fn decode_latest(value: &[u8]) -> Entry {
    let mut parts = value.splitn(3, |byte| *byte == b' ');
    let (_time, offset, stored) = (parts.next(), parts.next(), parts.next());
    match (offset.and_then(|offset| number(offset).ok()), stored) {
        (Some(offset), Some(stored)) => decode(offset, stored),
        _ => unreadable(0, "its offset cannot be read"),
    }
}

/// Parses a published batch. Any of its entries may be an unreadable one.
///
/// # Errors
/// The batch cannot be split into entries.
pub(super) fn decode_published(frame: &[u8]) -> Result<(Epoch, Vec<Entry>), String> {
    let line_len = frame.iter().position(|byte| *byte == b'\n').ok_or("batch has no head")?;
    let (head, mut rest) = (&frame[..line_len], &frame[line_len + 1..]);
    let head: Vec<&str> = text(head)?.split(' ').collect();
    let [VERSION, epoch, first, count] = head.as_slice() else {
        return Err("batch has an unknown form; a newer version may have sent it".to_owned());
    };
    let epoch = Epoch::of_log(epoch).map_err(|_| "batch has no epoch of a log")?;
    let (first, count): (u64, u64) = (number(first.as_bytes())?, number(count.as_bytes())?);
    let mut entries = Vec::new();
    for offset in first..first.saturating_add(count) {
        let colon = rest.iter().position(|byte| *byte == b':').ok_or("batch is cut short")?;
        let len = number(&rest[..colon])?;
        let (stored, after) = rest[colon + 1..].split_at_checked(len).ok_or("batch is cut short")?;
        entries.push(decode(offset, stored));
        rest = after;
    }
    Ok((epoch, entries))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{DraftEntry, EntryId, NodeId};

    fn entry(offset: u64, time_ms: i64, key: Option<String>, data: Vec<u8>) -> Entry {
        let draft = DraftEntry { key: key.map(Arc::from), ..DraftEntry::price(time_ms, data) };
        Entry { offset, id: EntryId { producer: NodeId::random(), seq: offset + 3 }, draft }
    }

    proptest! {
        #[test]
        fn bytes_from_elsewhere_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _any = (decode_latest(&bytes), decode_published(&bytes));
        }
    }

    #[test]
    fn a_published_batch_is_read_back() {
        let sent =
            [entry(5, 1, Some("a b".into()), b"{\"p\":1}".to_vec()), entry(6, 2, None, b"{}".to_vec())];
        let mut frame = b"1 abc 5 2\n".to_vec();
        for entry in &sent {
            let stored = encode(entry.id, &entry.draft);
            frame.extend(format!("{}:", stored.len()).bytes());
            frame.extend(&stored);
        }
        assert_eq!(decode_published(&frame), Ok(("abc".parse().unwrap(), sent.to_vec())));
        assert!(decode_published(&frame[..frame.len() - 1]).is_err(), "a cut batch is refused");
    }
}
