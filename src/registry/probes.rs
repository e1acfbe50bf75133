//! A probe of the parsers of records and merge patches: see [`crate::probes`].

use std::sync::Arc;

use serde_json::Value;

use super::clock::Version;
use super::kind::RegistryKind;
use super::record::{Body, Change, Record};
use crate::model::{Entry, EntryId, NodeId};
use crate::protocol::{ServerMessage, entry_json};
use crate::support::probing::{json, text, told};

const RECORD_BYTES_MAX: usize = 16 << 10;

const VERSION: Version = Version { ms: 1_760_000_000_000, node: 7 };

/// A record, then, one per line, merge patches that are applied one after the other.
pub(crate) fn records(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for kind in RegistryKind::ALL {
        let mut lines = text.lines();
        let Some(mut record) = lines.next().and_then(|line| read(kind, line)) else { continue };
        for patch in lines.take(8) {
            let patched = match Body::patched(kind, &record, patch, RECORD_BYTES_MAX) {
                Ok(patched) => patched,
                Err(invalid) => {
                    told(&invalid.detail);
                    continue;
                }
            };
            let mut expected = json(record.text());
            merge(&mut expected, &json(patch));
            // A patch cannot remove a record's own name.
            if let Value::Object(fields) = &mut expected {
                fields.entry(kind.id_field()).or_insert_with(|| Value::from(&*record.key));
            }
            let found = text_of(&patched);
            assert_eq!(json(found), expected, "{} with {patch}", record.text());
            assert_eq!(patched.key, record.key);
            record = held(kind, patched);
        }
    }
}

fn text_of(body: &Body) -> &str {
    text(&body.json).expect("JSON is text")
}

fn read(kind: RegistryKind, line: &str) -> Option<Arc<Record>> {
    match Body::read(kind, line, None, RECORD_BYTES_MAX) {
        Ok(body) => {
            let again = Body::read(kind, text_of(&body), Some(&body.key), RECORD_BYTES_MAX);
            assert_eq!(again.as_ref(), Ok(&body), "what was taken is taken again");
            Some(held(kind, body))
        }
        Err(invalid) => {
            told(&invalid.detail);
            None
        }
    }
}

/// The record as it is held, after checking that the log and its readers can take it.
fn held(kind: RegistryKind, body: Body) -> Arc<Record> {
    assert!(body.json.len() <= RECORD_BYTES_MAX && (1..=128).contains(&body.key.len()));
    json(text_of(&body));
    let Body { key, json } = body;
    let record = Arc::new(Record { key: Arc::clone(&key), version: VERSION, json, bound_to: Some(9) });
    let change = Change { key, version: VERSION, record: Some(Arc::clone(&record)) };
    let draft = change.draft();
    assert_eq!(Change::read("record_update", &draft.data).as_ref(), Some(&change));
    let id = EntryId { producer: NodeId(uuid::Uuid::from_u128(7)), seq: 1 };
    let mut frame = Vec::new();
    entry_json(&kind.channel(), &Entry { offset: 1, id, draft }, false, &mut frame);
    let frame = text(&frame).expect("frames are text");
    assert!(matches!(ServerMessage::read(frame), Ok(ServerMessage::Entry(_))), "{frame}");
    record
}

/// A merge patch, applied as in the pseudocode of RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
