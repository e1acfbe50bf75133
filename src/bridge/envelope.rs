//! The envelope of published events: `{type, data, timestamp, source}`, which is also what programs write
//! that do not know this gateway, plus the fields that gateways add for each other.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::{EventType, NodeId};
use crate::protocol::{PayloadWriter, time_of_number, time_of_text};

/// The type of the message in which a gateway announces the newest numbers that it gave.
pub(crate) const SEQUENCES: &str = "zonewire:sequences";

/// A received message. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    /// The event.
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    /// The publisher's name for itself: any JSON.
    #[serde(borrow, default)]
    pub(super) source: Option<&'a RawValue>,
    /// The event's own id, if its process assigned one.
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    zonewire: Option<&'a RawValue>,
}

/// The fields that gateways add.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Mark {
    /// The event's number among the live events of its type from this gateway.
    pub(super) sequence: Option<u64>,
    /// When the gateway accepted it, in microseconds since 1970.
    #[serde(rename = "acceptedUs")]
    accepted_us: Option<i64>,
}

/// Who published a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publisher {
    /// A gateway.
    Gateway(NodeId, Mark),
    /// Another process.
    Other,
}

impl Mark {
    /// When the gateway accepted the event.
    pub(super) fn accepted_at(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.accepted_us?)
    }
}

impl<'a> Envelope<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// A description of what is wrong, for people.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(message).map_err(|_| "it is not UTF-8".to_owned())?;
        serde_json::from_str(text).map_err(|error| {
            let what = if error.is_data() { "it is no object with `data`" } else { "it is no JSON" };
            format!("{what}: {error}")
        })
    }

    /// Whether the message may appear in the channel of this type: its `type` is this one or absent.
    pub(super) fn is_of(&self, kind: &str) -> bool {
        let Some(said) = self.kind.filter(|said| said.get() != "null") else { return true };
        serde_json::from_str::<String>(said.get()).is_ok_and(|said| said == kind)
    }

    /// Who published it.
    pub(super) fn publisher(&self) -> Publisher {
        let source = || -> Option<NodeId> {
            let source: String = serde_json::from_str(self.source?.get()).ok()?;
            source.parse().ok()
        };
        match (self.zonewire, source()) {
            // A mark that cannot be read comes from a newer gateway.
            (Some(mark), Some(node)) => {
                Publisher::Gateway(node, serde_json::from_str(mark.get()).unwrap_or_default())
            }
            _ => Publisher::Other,
        }
    }

    /// The message's timestamp, if it has a readable one.
    pub(super) fn time(&self) -> Option<DateTime<Utc>> {
        let value = self.timestamp?;
        let text: Option<String> = serde_json::from_str(value.get()).ok();
        text.map_or_else(|| time_of_number(value.get()), |text| time_of_text(&text))
    }

    /// The newest number of each type, if the message announces numbers.
    pub(super) fn sequences(&self) -> Vec<(EventType, u64)> {
        let numbers: BTreeMap<String, u64> = serde_json::from_str(self.data.get()).unwrap_or_default();
        numbers.into_iter().filter_map(|(event, number)| Some((event.parse().ok()?, number))).collect()
    }
}

/// An event that is to be published.
#[derive(Debug, Clone)]
pub(super) struct OwnEvent {
    pub(super) event: EventType,
    /// The event's number among the live events of its type; `None` for a durable one.
    pub(super) sequence: Option<u64>,
    pub(super) time: DateTime<Utc>,
    pub(super) accepted_at: DateTime<Utc>,
    /// The payload of the entry: `{"data":…}`.
    pub(super) payload: Bytes,
}

/// The event within an entry's payload.
pub(super) fn data_of(payload: &[u8]) -> Option<&str> {
    let payload = std::str::from_utf8(payload).ok()?;
    payload.strip_prefix(r#"{"data":"#)?.strip_suffix('}')
}

/// Writes the envelope for an event of this gateway.
pub(super) fn write(node: NodeId, own: &OwnEvent) -> Option<Bytes> {
    let mut mark = PayloadWriter::default();
    if let Some(sequence) = own.sequence {
        mark.push("sequence", &sequence.to_string());
    }
    mark.push("acceptedUs", &own.accepted_at.timestamp_micros().to_string());
    Some(envelope(node, own.event.as_str(), data_of(&own.payload)?, own.time, &mark.finish()))
}

/// Writes the message that announces the newest number of each type.
pub(super) fn write_sequences(
    node: NodeId,
    sequences: impl Iterator<Item = (EventType, u64)>,
    now: DateTime<Utc>,
) -> Bytes {
    let mut data = PayloadWriter::default();
    sequences.for_each(|(event, number)| data.push(event.as_str(), &number.to_string()));
    let data = data.finish();
    envelope(node, SEQUENCES, std::str::from_utf8(&data).unwrap_or("{}"), now, b"{}")
}

fn envelope(node: NodeId, kind: &str, data: &str, time: DateTime<Utc>, mark: &[u8]) -> Bytes {
    let mut envelope = PayloadWriter::default();
    envelope.push_text("type", kind);
    envelope.push("data", data);
    envelope.push_text("timestamp", &time.to_rfc3339_opts(SecondsFormat::Millis, true));
    envelope.push_text("source", &node.0.as_hyphenated().to_string());
    envelope.push("zonewire", std::str::from_utf8(mark).unwrap_or("{}"));
    envelope.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(sequence: Option<u64>) -> (NodeId, OwnEvent) {
        let time = DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
        let payload = Bytes::from_static(br#"{"data":{"exchange":"x","symbol":"A-B","price":"1.50"}}"#);
        (NodeId::random(), OwnEvent { event: EventType::Ticker, sequence, time, accepted_at: time, payload })
    }

    #[test]
    fn an_envelope_reads_back_as_it_was_written() {
        let (node, event) = own(Some(7));
        let text = write(node, &event).unwrap();
        let expected = format!(
            r#"{{"type":"ticker","data":{{"exchange":"x","symbol":"A-B","price":"1.50"}},"timestamp":"2023-11-14T22:13:20.123Z","source":"{}","zonewire":{{"sequence":7,"acceptedUs":1700000000123000}}}}"#,
            node.0.as_hyphenated()
        );
        assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
        let read = Envelope::read(&text).unwrap();
        assert!(read.is_of("ticker") && !read.is_of("trade"));
        let Publisher::Gateway(source, mark) = read.publisher() else { panic!("a gateway") };
        assert_eq!((source, mark.sequence, mark.accepted_at()), (node, Some(7), Some(event.accepted_at)));
        assert_eq!(read.time(), Some(event.time));
        let (node, durable) = own(None);
        let text = write(node, &durable).unwrap();
        let read = Envelope::read(&text).unwrap();
        assert!(
            matches!(read.publisher(), Publisher::Gateway(source, Mark { sequence: None, .. }) if source == node)
        );
    }

    #[test]
    fn announced_numbers_read_back_as_they_were_written() {
        let node = NodeId::random();
        let all = [(EventType::Ticker, 5), (EventType::ExchangeError, 0)];
        let text = write_sequences(node, all.into_iter(), Utc::now());
        let read = Envelope::read(&text).unwrap();
        assert!(read.is_of(SEQUENCES));
        let mut said = read.sequences();
        said.sort_unstable();
        assert_eq!(said, all);
    }

    #[test]
    fn other_processes_may_add_and_omit_fields() {
        for (text, ms) in [
            (
                r#"{"type":"ticker","data":{},"timestamp":1700000000123,"source":"api-1"}"#,
                Some(1_700_000_000_123),
            ),
            (
                r#"{"data":{},"timestamp":"2023-11-14T22:13:20.123Z","source":{"pid":7},"v":2}"#,
                Some(1_700_000_000_123),
            ),
            (r#"{"type":null,"data":{},"source":17,"timestamp":"soon"}"#, None),
            (r#"{"data":[1]}"#, None),
            // A gateway's mark without a gateway's source.
            (r#"{"data":{},"zonewire":{"sequence":1},"source":"api-1"}"#, None),
        ] {
            let read = Envelope::read(text.as_bytes()).unwrap();
            assert!(read.is_of("ticker"), "{text}");
            assert_eq!(read.publisher(), Publisher::Other, "{text}");
            assert_eq!(read.time().map(|time| time.timestamp_millis()), ms, "{text}");
        }
        let newer = format!(r#"{{"data":{{}},"source":"{}","zonewire":"2"}}"#, NodeId::random());
        let read = Envelope::read(newer.as_bytes()).unwrap();
        assert!(matches!(read.publisher(), Publisher::Gateway(_, mark) if mark == Mark::default()));
        assert!(!Envelope::read(br#"{"type":"trade","data":{}}"#).unwrap().is_of("ticker"));
    }

    #[test]
    fn an_error_says_why_a_message_is_no_envelope() {
        for (text, said) in
            [("", "no JSON"), ("{", "no JSON"), ("[]", "no object"), ("{}", "no object"), ("1", "no object")]
        {
            let error = Envelope::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        assert!(Envelope::read(b"\xff").unwrap_err().contains("UTF-8"));
    }
}
