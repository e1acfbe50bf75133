//! A probe of the parsers of the memory's folder.

use super::rows::{Place, decode_entry, decode_producer, decode_record, encode_record, seal, unseal};
use super::store::{decode, encode};

/// Rows of the folder, their keys, and groups of changes.
pub(in crate::storage) fn rows(bytes: &[u8]) {
    if let Some(changes) = decode(bytes) {
        assert_eq!(encode(&changes), bytes, "a part of it was not taken");
    }
    if let Some(place) = Place::of(bytes) {
        assert_eq!(place.key(), bytes, "two keys are one place");
    }
    if let Some((_, entry)) = decode_entry(9, bytes) {
        assert!(entry.id.is_known() && entry.offset == 9);
    }
    let _whatever_it_says = decode_producer(bytes);
    if let Some((value, expires_us, written_us)) = decode_record(bytes) {
        let again = encode_record(&value, expires_us, written_us);
        assert_eq!(decode_record(&again), Some((value, expires_us, written_us)));
    }
    // A row that is damaged, or stored under another key, is not accepted.
    let (key, content) = bytes.split_at(bytes.len() / 3);
    let mut sealed = seal(key, content);
    assert_eq!(unseal(key, &sealed), Some(content));
    if let Some(last) = sealed.last_mut() {
        *last ^= 1;
        assert_eq!(unseal(key, &sealed), None);
    }
    if bytes.len() > 4 {
        assert!(unseal(b"e", bytes).is_none_or(|content| content.len() + 4 == bytes.len()));
    }
}
