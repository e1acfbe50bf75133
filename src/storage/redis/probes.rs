//! Probes of the parsers of scripts' answers, and of batches that other gateways publish.

use bytes::Bytes;
use fred::types::Value;
use serde_json::Value as Json;
use uuid::Uuid;

use super::codec::{decode_latest, decode_published};
use super::jobs::{Fields, held, view};
use super::link::answers;
use super::log::{read_answer, read_open, read_page};
use crate::model::{ChannelName, DraftEntry, Entry, Epoch, NodeId};
use crate::storage::{Append, AppendAnswer, AppendBatch, Appended};
use crate::support::probing::text;

/// Batches that other gateways publish, and latest entries of keys.
pub(in crate::storage) fn batches(bytes: &[u8], can_be_written: impl Fn(&Entry)) {
    can_be_written(&decode_latest(bytes));
    let Ok((epoch, entries)) = decode_published(bytes) else { return };
    assert!(Epoch::of_log(epoch.as_str()).is_ok());
    assert!(entries.len() <= bytes.len() / 2, "{} entries in {} bytes", entries.len(), bytes.len());
    let offsets: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
    assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "without a hole: {offsets:?}");
    entries.iter().for_each(can_be_written);
}

/// An answer of Redis, given as JSON. Texts become either of the two types that the client uses, except
/// numbers, which are never bytes.
fn value(json: &Json, are_bytes: bool) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Boolean(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => Value::Integer(number),
            (None, number) => Value::Double(number.unwrap_or_default()),
        },
        Json::String(text) if are_bytes && text.parse::<f64>().is_err() => {
            Value::Bytes(Bytes::copy_from_slice(text.as_bytes()))
        }
        Json::String(text) => Value::String(text.as_str().into()),
        Json::Array(items) => Value::Array(items.iter().map(|item| value(item, are_bytes)).collect()),
        Json::Object(_) => Value::Queued,
    }
}

/// The batch that the answer is to: two entries.
fn batch() -> AppendBatch {
    let draft = DraftEntry::price(0, "{}");
    let channel: ChannelName = "zone:pjm".parse().expect("a name");
    let entry = |seq, fence| Append { seq, prev: seq - 1, draft: draft.clone(), fence };
    AppendBatch {
        channel,
        epoch: "0123456789abcdef".parse().expect("plain"),
        producer: NodeId(Uuid::from_u128(7)),
        entries: vec![entry(1, None), entry(2, Some(3))],
    }
}

/// Answers of scripts, given as JSON.
pub(crate) fn redis_answers(bytes: &[u8], can_be_written: impl Fn(&Entry)) {
    let Some(Ok(Json::Array(items))) = text(bytes).map(serde_json::from_str::<Json>) else { return };
    let (batch, mut told) = (batch(), Vec::new());
    for are_bytes in [false, true] {
        let answer: Vec<Value> = items.iter().map(|item| value(item, are_bytes)).collect();
        let read = read_answer("log", &batch, &answer).ok();
        if let Some(AppendAnswer::Done(results)) = &read {
            assert_eq!(results.len(), batch.entries.len(), "of each entry it is known what became of it");
            let is_refused = |result: &Appended| matches!(result, Appended::Refused(_));
            assert!(!is_refused(&results[0]) || answer[1].as_str().as_deref() == Some("closed"));
        }
        let page = read_page("log", &answer).ok();
        if let Some(page) = &page {
            assert!(page.entries.len() * 2 == answer.len() - 4, "each entry is there");
            page.entries.iter().for_each(&can_be_written);
        }
        let open = read_open("log", &answer).ok();
        if let Some(open) = &open {
            assert_eq!(open.producers.len() * 2, answer.len() - 5, "each producer is there");
        }
        let pong = Value::Array(answer);
        told.push(format!("{read:?} {page:?} {open:?} {}", answers(&pong, "token")));
    }
    assert_eq!(told[0], told[1], "it is the same text");
    let fields: Vec<Bytes> =
        items.iter().filter_map(|item| Some(Bytes::copy_from_slice(item.as_str()?.as_bytes()))).collect();
    let _whatever_it_says = view(Fields { op: "probe", fields: &fields });
    if let Some(word) = items.first().and_then(Json::as_str) {
        assert_eq!(held("probe", word).is_ok(), ["yes", "cancelled", "lost"].contains(&word));
    }
}
