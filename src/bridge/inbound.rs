//! Decides which log a received message goes to, or why it goes to none.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;

use super::envelope::Envelope;
use crate::model::{DraftEntry, EntryKind, EventType, Marks, NodeId};
use crate::protocol::{OrderedFields, PayloadWriter, parse_event, quoted};

/// The field of a durable event in which another process's name for itself and its id for the event are
/// stored.
pub(super) const ORIGIN: &str = "origin";

/// What is known about time, apart from the message's own timestamp.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: DateTime<Utc>,
    /// How far the time of an event may be ahead of `now`.
    pub(super) ahead_max: Duration,
}

/// The event of a gateway's message.
pub(super) fn of_gateway(
    event: EventType,
    envelope: &Envelope<'_>,
    clock: Clock,
) -> Result<DraftEntry, String> {
    parse(event, envelope.data.get(), envelope.time(), clock)
}

/// The event of another process's message. The process's `id` of a trade becomes its `tradeId`; a durable
/// event also stores its id in [`ORIGIN`].
pub(super) fn of_other(
    event: EventType,
    is_durable: bool,
    envelope: &Envelope<'_>,
    clock: Clock,
) -> Result<DraftEntry, String> {
    let text = envelope.data.get();
    let OrderedFields(fields) =
        serde_json::from_str(text).map_err(|error| format!("its `data` is no object: {error}"))?;
    let has = |name: &str| fields.iter().any(|(field, value)| field == name && value.get() != "null");
    let is_trade = event == EventType::Trade;
    let own_type = quoted(event.as_str());
    let mut data = PayloadWriter::default();
    let mut id = envelope.id.filter(|id| is_id(id));
    for (name, value) in &fields {
        match name.as_str() {
            "id" if is_trade && !has("tradeId") => data.push("tradeId", value.get()),
            "id" => id = id.or_else(|| Some(*value).filter(|id| is_id(id))),
            "type" if value.get() == own_type => {}
            _ => data.push(name, value.get()),
        }
    }
    if let Some(id) = id.filter(|_| is_durable && !has(ORIGIN)) {
        let mut origin = PayloadWriter::default();
        origin.push("id", id.get());
        if let Some(source) = envelope.source {
            origin.push("source", source.get());
        }
        data.push(ORIGIN, std::str::from_utf8(&origin.finish()).unwrap_or("{}"));
    }
    let time = if has("timestamp") { None } else { envelope.time() };
    parse(event, std::str::from_utf8(&data.finish()).unwrap_or("{}"), time, clock)
}

/// Whether the value is a text or a number, and so can serve as an id that two processes agree on.
fn is_id(value: &RawValue) -> bool {
    value.get().starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

/// Parses an event. The envelope's time is used if the event has no time.
fn parse(
    event: EventType,
    text: &str,
    time: Option<DateTime<Utc>>,
    Clock { now, ahead_max }: Clock,
) -> Result<DraftEntry, String> {
    let last = TimeDelta::from_std(ahead_max).ok().and_then(|max| now.checked_add_signed(max));
    if let (Some(time), Some(last)) = (time, last)
        && time > last
    {
        return Err(format!("its `timestamp` {time} is too far ahead (channels.ahead_max_s)"));
    }
    let (of_text, ahead_max) = time.map_or((now, ahead_max), |time| (time, Duration::MAX));
    parse_event(event, text, of_text, ahead_max).map_err(|invalid| invalid.detail)
}

/// The id of a durable event of another process: its own id with its publisher's name or, for a trade, the
/// exchange's id. Events with equal ids are the same event.
pub(super) fn own_id(draft: &DraftEntry) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Payload<'a> {
        #[serde(borrow)]
        data: Names<'a>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Names<'a> {
        #[serde(borrow, default)]
        origin: Option<&'a RawValue>,
        #[serde(borrow, default)]
        trade_id: Option<&'a RawValue>,
    }
    let Payload { data } = serde_json::from_slice(&draft.data).ok()?;
    if let Some(origin) = data.origin {
        return Some(format!("o{}", origin.get()));
    }
    let is_trade = draft.kind == EntryKind::Event(EventType::Trade);
    let (trade_id, key) = (data.trade_id.filter(|id| is_trade && is_id(id))?, draft.key.as_ref()?);
    Some(format!("t{key}\0{}", trade_id.get()))
}

/// The entry that reports to followers of a live channel that events did not arrive: a number of them from
/// one gateway, or, with `None`, possibly some from processes that do not number theirs.
pub(super) fn missed(of: Option<(NodeId, u64)>, now: DateTime<Utc>) -> DraftEntry {
    let mut data = PayloadWriter::default();
    if let Some((source, count)) = of {
        data.push_text("source", &source.0.as_hyphenated().to_string());
        data.push("count", &count.to_string());
    }
    let data = data.finish();
    let mut payload = PayloadWriter::default();
    payload.push("data", std::str::from_utf8(&data).unwrap_or("{}"));
    let data: Bytes = payload.finish();
    DraftEntry { time: now, kind: EntryKind::Missed, key: None, data, marks: Marks::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        let now = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
        Clock { now, ahead_max: Duration::from_secs(10) }
    }

    fn other(event: EventType, text: &str) -> Result<DraftEntry, String> {
        of_other(event, true, &Envelope::read(text.as_bytes()).unwrap(), clock())
    }

    fn payload(draft: &DraftEntry) -> &str {
        std::str::from_utf8(&draft.data).unwrap()
    }

    #[test]
    fn a_trade_is_identified_by_the_id_of_its_exchange() {
        let text = r#"{"type":"trade","data":{"type":"trade","id":17,"exchange":"x","symbol":"A-B","price":"1","size":"2"},"timestamp":1699999999000}"#;
        let draft = other(EventType::Trade, text).unwrap();
        let expected = r#"{"data":{"exchange":"x","symbol":"A-B","tradeId":17,"price":"1","size":"2"}}"#;
        assert_eq!((payload(&draft), draft.time.timestamp()), (expected, 1_699_999_999));
        assert_eq!(own_id(&draft).as_deref(), Some("tx:A-B\u{0}17"));
    }

    #[test]
    fn an_id_of_the_envelope_is_stored_with_its_publisher() {
        let of = |source: &str| {
            let text = format!(
                r#"{{"data":{{"exchange":"x","reason":"r","id":"inner"}},"id":"e-1","source":{source}}}"#
            );
            other(EventType::ExchangeConnected, &text).unwrap()
        };
        let draft = of(r#""api""#);
        let expected = r#"{"data":{"exchange":"x","reason":"r","origin":{"id":"e-1","source":"api"}}}"#;
        assert_eq!((payload(&draft), draft.time), (expected, clock().now));
        assert_eq!(own_id(&draft), own_id(&of(r#""api""#)));
        assert_ne!(own_id(&draft), own_id(&of("7")), "ids of another process are its own");
        let live = r#"{"data":{"exchange":"x","symbol":"A-B","price":1,"id":5},"id":"e-1"}"#;
        let draft =
            of_other(EventType::Ticker, false, &Envelope::read(live.as_bytes()).unwrap(), clock()).unwrap();
        assert_eq!(payload(&draft), r#"{"data":{"exchange":"x","symbol":"A-B","price":1}}"#);
        assert_eq!(own_id(&draft), None);
    }

    #[test]
    fn the_events_own_time_counts_unless_it_is_too_far_ahead() {
        let of = |times: &str| {
            let text = format!(r#"{{"data":{{"exchange":"x","symbol":"A-B","price":1{times}}}"#);
            other(EventType::Ticker, &text).map(|draft| draft.time.timestamp())
        };
        assert_eq!(of(r#","timestamp":1600000000},"timestamp":1650000000"#), Ok(1_600_000_000));
        assert_eq!(of(r#","timestamp":null},"timestamp":1650000000"#), Ok(1_650_000_000));
        assert_eq!(of(r#"},"timestamp":1700000010"#), Ok(1_700_000_010));
        assert!(of(r#"},"timestamp":1700000011"#).unwrap_err().contains("too far ahead"));
        assert!(of(r#","timestamp":1700000011}"#).unwrap_err().contains("too far ahead"));
    }

    #[test]
    fn an_error_says_why_a_message_is_no_event() {
        for (text, said) in [
            (r#"{"data":[1]}"#, "no object"),
            (r#"{"data":{"exchange":"x","symbol":"A-B"}}"#, "`price` is missing"),
            (r#"{"data":{"exchange":"X","symbol":"A-B","price":1}}"#, "`exchange` must be"),
            (r#"{"data":{"exchange":"x","symbol":"A-B","price":1,"channel":"c"}}"#, "belongs to the gateway"),
        ] {
            let error = other(EventType::Ticker, text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn an_entry_says_how_many_events_are_missing_if_that_is_known() {
        let source = NodeId::random();
        let draft = missed(Some((source, 12)), clock().now);
        let expected = format!(r#"{{"data":{{"source":"{}","count":12}}}}"#, source.0.as_hyphenated());
        assert_eq!((payload(&draft), draft.key.as_deref()), (expected.as_str(), None));
        assert_eq!(payload(&missed(None, clock().now)), r#"{"data":{}}"#);
    }
}
