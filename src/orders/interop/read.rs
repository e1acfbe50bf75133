//! Reads an outside update: it is an entry, a copy of our own, or invalid.
//!
//! More is accepted than over HTTP: what happened outside has happened, and is passed on as it is.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::{ChannelName, DraftEntry, EntryId, EntryKind, Marks, NodeId, OrderId};
use crate::protocol::{
    ORDER_KEY, OrderedFields, PayloadWriter, RESERVED_FIELDS, SNAPSHOT, UnreadableJson, check_json,
    time_of_number, time_of_text,
};

/// The result of reading an outside update.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::orders) enum Read {
    /// An update to be appended.
    Update(DraftEntry),
    /// A gateway wrote it, so it is in a log already.
    Own,
    /// It cannot be passed on to clients.
    Invalid(Invalid),
}

/// Why an outside update cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::orders) enum Invalid {
    #[error("not JSON")]
    NotJson,
    /// JSON that some readers of the stream could not parse.
    #[error("{0}")]
    Unreadable(UnreadableJson),
    #[error("not a JSON object")]
    NotAnObject,
    #[error("neither `type` nor `status` names a stage of an order")]
    NoStage,
    #[error("too large")]
    TooLarge,
}

/// The identity of an outside update: the hash of its bytes, within its order.
pub(in crate::orders) fn identity(order: OrderId, update: &[u8]) -> Uuid {
    Uuid::new_v5(&order.0, update)
}

/// The producer that appends an update: the same on every node, so that it is appended once.
pub(in crate::orders) fn producer(identity: Uuid) -> NodeId {
    NodeId(identity)
}

/// The identity of an update that came from outside; `None` for an update that a gateway accepted itself,
/// whose producer is random.
pub(in crate::orders) fn identity_of(producer: NodeId) -> Option<Uuid> {
    (producer.0.get_version_num() == 5).then_some(producer.0)
}

/// Reads an outside update. `now` is its time if it says none.
pub(in crate::orders) fn read(order: OrderId, update: &[u8], bytes_max: usize, now: DateTime<Utc>) -> Read {
    if update.len() > bytes_max {
        return Read::Invalid(Invalid::TooLarge);
    }
    let fields = match serde_json::from_slice(update) {
        Ok(OrderedFields(fields)) => last_of_each(fields),
        Err(error) if error.is_data() => return Read::Invalid(Invalid::NotAnObject),
        Err(_) => return Read::Invalid(Invalid::NotJson),
    };
    if let Some(unreadable) = std::str::from_utf8(update).ok().and_then(|text| check_json(text).err()) {
        return Read::Invalid(Invalid::Unreadable(unreadable));
    }
    let get = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value);
    if is_own(order, get("id"), get("channel")) {
        return Read::Own;
    }
    let named = |name: &'static str| get(name).and_then(stage).map(|kind| (name, kind));
    let Some((stage_field, kind)) = named("type").or_else(|| named("status")) else {
        return Read::Invalid(Invalid::NoStage);
    };
    let time = get("timestamp").and_then(time);
    let mut payload = PayloadWriter::default();
    for (name, value) in &fields {
        match name.as_str() {
            // The envelope has these fields.
            "type" if stage_field == "type" => {}
            "timestamp" if time.is_some() => {}
            "timestamp" => payload.push(&renamed(name, &fields), value.get()),
            // An order has no snapshots.
            name if name != SNAPSHOT && RESERVED_FIELDS.contains(&name) => {
                payload.push(&renamed(name, &fields), value.get());
            }
            name => payload.push(name, value.get()),
        }
    }
    let data = payload.finish();
    let (time, key) = (time.unwrap_or(now), Some(Arc::from(ORDER_KEY)));
    Read::Update(DraftEntry { time, kind, key, data, marks: Marks::default() })
}

/// The same entry, with the mark that updates before it may be missing.
pub(in crate::orders) fn after_gap(draft: &DraftEntry) -> DraftEntry {
    DraftEntry { marks: Marks { missed_before: true, ..draft.marks }, ..draft.clone() }
}

/// As most JSON parsers do: of several fields with the same name, the last one counts.
fn last_of_each(fields: Vec<(String, &RawValue)>) -> Vec<(String, &RawValue)> {
    let mut places: HashMap<String, usize> = HashMap::with_capacity(fields.len());
    let mut last: Vec<(String, &RawValue)> = Vec::with_capacity(fields.len());
    for (name, value) in fields {
        match places.get(&name) {
            Some(place) => last[*place].1 = value,
            None => {
                places.insert(name.clone(), last.len());
                last.push((name, value));
            }
        }
    }
    last
}

/// An update that a gateway wrote has its entry's id and channel.
fn is_own(order: OrderId, id: Option<&RawValue>, channel: Option<&RawValue>) -> bool {
    let id = id.and_then(text).is_some_and(|id| id.parse::<EntryId>().is_ok());
    id && channel.and_then(text).is_some_and(|channel| channel == ChannelName::order(order).as_str())
}

fn stage(value: &RawValue) -> Option<EntryKind> {
    text(value)?.parse().ok().filter(EntryKind::is_stage)
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn time(value: &RawValue) -> Option<DateTime<Utc>> {
    text(value).map_or_else(|| time_of_number(value.get()), |text| time_of_text(&text))
}

/// A name for a field whose own name belongs to the envelope: `id` becomes `sourceId`, or `sourceId2` if that
/// name is taken.
fn renamed(name: &str, fields: &[(String, &RawValue)]) -> String {
    let (first, rest) = name.split_at(1);
    let base = format!("source{}{rest}", first.to_ascii_uppercase());
    let is_free = |name: &String| fields.iter().all(|(field, _)| field != name);
    let numbered = (2..).map(|number| format!("{base}{number}"));
    std::iter::once(base.clone()).chain(numbered).find(is_free).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::model::Entry;
    use crate::protocol::entry_json;

    const ORDER: &str = "6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";

    fn order() -> OrderId {
        ORDER.parse().unwrap()
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_123).unwrap()
    }

    fn read_text(text: &str) -> Read {
        read(order(), text.as_bytes(), 1_000, now())
    }

    fn check(text: &str, kind: EntryKind, time_ms: i64, data: &str) {
        let Read::Update(draft) = read_text(text) else { panic!("{text}") };
        assert_eq!((draft.kind, draft.time.timestamp_millis()), (kind, time_ms), "{text}");
        assert_eq!(std::str::from_utf8(&draft.data).unwrap(), data);
        assert_eq!(draft.key.as_deref(), Some(ORDER_KEY));
    }

    #[test]
    fn an_update_is_told_as_it_is() {
        const NOW: i64 = 1_700_000_000_123;
        check(r#"{"type":"routing"}"#, EntryKind::Routing, NOW, "{}");
        check(
            r#" {"status":"building", "progress": 12.50, "orderId":"x", "dex":{"a b": 1}} "#,
            EntryKind::Building,
            NOW,
            r#"{"status":"building","progress":12.50,"orderId":"x","dex":{"a b":1}}"#,
        );
        check(
            r#"{"type":"confirmed","status":"confirmed","timestamp":1610064000278}"#,
            EntryKind::Confirmed,
            1_610_064_000_278,
            r#"{"status":"confirmed"}"#,
        );
        check(
            r#"{"type":"failed","timestamp":"2021-01-08T01:00:00.278+01:00","error":"no"}"#,
            EntryKind::Failed,
            1_610_064_000_278,
            r#"{"error":"no"}"#,
        );
    }

    #[test]
    fn fields_of_the_envelope_get_other_names() {
        check(
            r#"{"type":"order_update","status":"submitted","id":7,"channel":"c","offset":3,"sourceId":1,"timestamp":"soon","missedBefore":2}"#,
            EntryKind::Submitted,
            1_700_000_000_123,
            concat!(
                r#"{"sourceType":"order_update","status":"submitted","sourceId2":7,"sourceChannel":"c","#,
                r#""sourceOffset":3,"sourceId":1,"sourceTimestamp":"soon","sourceMissedBefore":2}"#
            ),
        );
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_last_one_counts() {
        check(
            r#"{"type":"x","progress":1,"type":"routing","progress":2}"#,
            EntryKind::Routing,
            1_700_000_000_123,
            r#"{"progress":2}"#,
        );
    }

    #[test]
    fn what_is_no_update_has_a_reason() {
        for (text, reason) in [
            ("", Invalid::NotJson),
            ("{", Invalid::NotJson),
            ("routing", Invalid::NotJson),
            ("\u{0}", Invalid::NotJson),
            (r#"{"type":"routing","a":"\ud800"}"#, Invalid::Unreadable(UnreadableJson::LoneSurrogate(23))),
            ("[]", Invalid::NotAnObject),
            ("\"routing\"", Invalid::NotAnObject),
            ("{}", Invalid::NoStage),
            (r#"{"type":"price_update"}"#, Invalid::NoStage),
            (r#"{"type":"zone_removed"}"#, Invalid::NoStage),
            (r#"{"type":["routing"]}"#, Invalid::NoStage),
            (r#"{"type":"Routing"}"#, Invalid::NoStage),
        ] {
            assert_eq!(read_text(text), Read::Invalid(reason), "{text:?}");
        }
        assert_eq!(read(order(), b"{\"type\":\"routing\"}", 17, now()), Read::Invalid(Invalid::TooLarge));
        assert_eq!(read(order(), b"{\"type\":\"\xff\"}", 99, now()), Read::Invalid(Invalid::NotJson));
    }

    fn message(order: OrderId, draft: DraftEntry) -> Vec<u8> {
        let id = EntryId { producer: NodeId::random(), seq: 4 };
        let mut json = Vec::new();
        entry_json(&ChannelName::order(order), &Entry { offset: 9, id, draft }, false, &mut json);
        json
    }

    #[test]
    fn what_a_gateway_wrote_is_known_by_id_and_channel() {
        let Read::Update(draft) = read_text(r#"{"type":"routing","progress":10}"#) else { panic!() };
        let written = message(order(), draft.clone());
        assert_eq!(read(order(), &written, 1_000, now()), Read::Own);
        let elsewhere = message(OrderId::random(), draft);
        assert!(matches!(read(order(), &elsewhere, 1_000, now()), Read::Update(_)));
    }

    #[test]
    fn a_gap_is_said_in_the_message() {
        let Read::Update(draft) = read_text(r#"{"type":"routing","a":1}"#) else { panic!() };
        let message = String::from_utf8(message(order(), after_gap(&draft))).unwrap();
        assert!(message.ends_with(r#","missedBefore":true,"a":1}"#), "{message}");
    }

    #[test]
    fn the_same_bytes_have_the_same_identity_within_an_order_only() {
        let [a, b] = [OrderId::random(), OrderId::random()];
        assert_eq!(identity(a, b"x"), identity(a, b"x"));
        assert_ne!(identity(a, b"x"), identity(a, b"y"));
        assert_ne!(identity(a, b"x"), identity(b, b"x"));
        assert_eq!(identity_of(producer(identity(a, b"x"))), Some(identity(a, b"x")));
        assert_eq!(identity_of(NodeId::random()), None);
    }

    fn json() -> impl Strategy<Value = String> {
        let names = prop_oneof![
            Just("type"),
            Just("status"),
            Just("id"),
            Just("timestamp"),
            Just("a"),
            Just("sourceId")
        ];
        let values = prop_oneof![
            Just("\"routing\""),
            Just("1e99"),
            Just("-5"),
            Just("null"),
            Just("{\"x\": [1 , 2]}"),
            Just("\"a\\u0000\\\" b\"")
        ];
        proptest::collection::vec((names, values), 0..8).prop_map(|fields| {
            let fields: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name:?} : {value}")).collect();
            format!("{{{}}}", fields.join(" , "))
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _any = read(order(), &bytes, 1_000, now());
        }

        #[test]
        fn what_is_told_is_an_object_with_each_name_once(text in json()) {
            if let Read::Update(draft) = read_text(&text) {
                let message = message(order(), after_gap(&draft));
                let OrderedFields(fields) = serde_json::from_slice(&message).unwrap();
                let names: std::collections::HashSet<_> = fields.iter().map(|(name, _)| name).collect();
                prop_assert_eq!(names.len(), fields.len(), "{:?}", std::str::from_utf8(&message));
                prop_assert!(serde_json::from_slice::<Value>(&message).is_ok());
            }
        }
    }
}
