//! Live messages between fleets. The envelope that a relay carries lists the fleets that it has passed, so
//! that no message travels in circles. All else stays unchanged, so gateways on the other side know which
//! gateway published the event under which number, and detect missing ones themselves.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::envelope::{Envelope, Publisher};
use crate::model::{EventType, NodeId};
use crate::protocol::{OrderedFields, PayloadWriter};

/// The field of the envelope that lists the fleets it was carried from, in order. Programs that do not know
/// the field ignore it.
const PASSED: &str = "zonewireRelayed";

/// The most fleets that a message may pass in a row.
const FLEETS_MAX: usize = 16;

/// The fleet that a message is carried from, and the one it is carried to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) from: Uuid,
    pub(crate) to: Uuid,
}

/// Why a message is not carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// The message has been in the fleet it would go to, or has passed too many fleets.
    Passed,
    /// The message is a gateway's durable event, which travels through the log.
    ByLog,
    /// The message is not an event; the text says why, for people.
    Invalid(String),
}

/// A message that is to be carried on.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) message: Bytes,
    /// The gateway that published the event, and its number; `None` if the publisher does not number events.
    pub(crate) numbered: Option<(NodeId, u64)>,
}

/// A gateway's announcement of its newest numbers.
#[derive(Debug)]
pub(crate) struct CarriedSequences {
    pub(crate) message: Bytes,
    pub(crate) source: NodeId,
    pub(crate) sequences: Vec<(EventType, u64)>,
}

/// The message to publish for a live event.
///
/// # Errors
/// Why the event is not carried.
pub(crate) fn carry(event: EventType, message: &[u8], way: Way) -> Result<Carried, LeftOut> {
    let envelope = Envelope::read(message).map_err(LeftOut::Invalid)?;
    if !envelope.is_of(event.as_str()) {
        return Err(LeftOut::Invalid("its `type` is that of another channel".to_owned()));
    }
    let numbered = match envelope.publisher() {
        Publisher::Gateway(source, mark) => Some((source, mark.sequence.ok_or(LeftOut::ByLog)?)),
        Publisher::Other => None,
    };
    Ok(Carried { message: passed_on(message, way, None)?, numbered })
}

/// The announcement to publish for a gateway's newest numbers, without the types that are not carried:
/// otherwise listeners would report events missing that nobody brings.
pub(crate) fn carry_sequences(
    message: &[u8],
    is_carried: impl Fn(EventType) -> bool,
    way: Way,
) -> Result<CarriedSequences, LeftOut> {
    let envelope = Envelope::read(message).map_err(LeftOut::Invalid)?;
    let Publisher::Gateway(source, _) = envelope.publisher() else {
        return Err(LeftOut::Invalid("no gateway says so".to_owned()));
    };
    let mut sequences = envelope.sequences();
    sequences.retain(|(event, _)| is_carried(*event));
    let said: BTreeMap<&str, u64> =
        sequences.iter().map(|(event, number)| (event.as_str(), *number)).collect();
    let said = serde_json::value::to_raw_value(&said).map_err(|error| LeftOut::Invalid(error.to_string()))?;
    Ok(CarriedSequences { message: passed_on(message, way, Some(&said))?, source, sequences })
}

/// The message with `from` added to the fleets that it has passed, and with `data`, if there is
/// one, in place of its own.
fn passed_on(message: &[u8], Way { from, to }: Way, data: Option<&RawValue>) -> Result<Bytes, LeftOut> {
    let invalid = |error: serde_json::Error| LeftOut::Invalid(error.to_string());
    let OrderedFields(fields) = serde_json::from_slice(message).map_err(invalid)?;
    let (mut out, mut passed) = (PayloadWriter::default(), Vec::<Uuid>::new());
    for (name, value) in fields {
        match (name.as_str(), data) {
            (PASSED, _) => passed = serde_json::from_str(value.get()).map_err(invalid)?,
            ("data", Some(data)) => out.push(&name, data.get()),
            _ => out.push(&name, value.get()),
        }
    }
    if passed.contains(&to) || passed.contains(&from) || passed.len() >= FLEETS_MAX {
        return Err(LeftOut::Passed);
    }
    passed.push(from);
    let passed: Vec<String> = passed.iter().map(|fleet| format!("\"{fleet}\"")).collect();
    out.push(PASSED, &format!("[{}]", passed.join(",")));
    Ok(out.finish())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn way() -> Way {
        Way { from: Uuid::from_u128(1), to: Uuid::from_u128(2) }
    }

    fn ticker(more: &Value) -> Vec<u8> {
        let mut envelope = json!({ "type": "ticker", "data": { "price": 1.50 }, "source": "api" });
        let Value::Object(fields) = &mut envelope else { unreachable!() };
        fields.extend(more.as_object().unwrap().clone());
        envelope.to_string().into()
    }

    #[test]
    fn a_carried_message_is_unchanged_and_lists_the_fleets_it_passed() {
        let text =
            br#"{"type":"ticker","data":{"price":1.50},"source":"api","v":2,"zonewire":{"sequence":4}}"#;
        let carried = carry(EventType::Ticker, text, way()).unwrap();
        assert_eq!(carried.numbered, None, "no gateway is called so");
        let expected = r#"{"type":"ticker","data":{"price":1.50},"source":"api","v":2,"zonewire":{"sequence":4},"zonewireRelayed":["00000000-0000-0000-0000-000000000001"]}"#;
        assert_eq!(std::str::from_utf8(&carried.message).unwrap(), expected);
        let on = Way { from: way().to, to: Uuid::from_u128(3) };
        let carried = carry(EventType::Ticker, &carried.message, on).unwrap();
        let read: Value = serde_json::from_slice(&carried.message).unwrap();
        assert_eq!(read["zonewireRelayed"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn no_message_travels_in_circles_or_for_ever() {
        let ids =
            |count: u128| (10..10 + count).map(|id| Uuid::from_u128(id).to_string()).collect::<Vec<_>>();
        let left_out = |passed: Value| {
            carry(EventType::Ticker, &ticker(&json!({ "zonewireRelayed": passed })), way()).err()
        };
        assert_eq!(left_out(json!([way().to.to_string()])), Some(LeftOut::Passed));
        assert_eq!(left_out(json!([way().from.to_string()])), Some(LeftOut::Passed));
        assert_eq!(left_out(json!(ids(15))), None);
        assert_eq!(left_out(json!(ids(16))), Some(LeftOut::Passed));
        assert!(matches!(left_out(json!("eu")), Some(LeftOut::Invalid(_))));
    }

    #[test]
    fn durable_events_are_not_carried_as_live_ones() {
        let node = NodeId::random().0.to_string();
        let durable = ticker(&json!({ "source": node, "zonewire": { "acceptedUs": 1 } }));
        assert_eq!(carry(EventType::Ticker, &durable, way()).err(), Some(LeftOut::ByLog));
        let live = ticker(&json!({ "source": node, "zonewire": { "sequence": 7 } }));
        let carried = carry(EventType::Ticker, &live, way()).unwrap();
        assert_eq!(carried.numbered.map(|(_, number)| number), Some(7));
        let of_another = carry(EventType::Candle, &live, way());
        assert!(matches!(of_another.err(), Some(LeftOut::Invalid(_))));
    }

    #[test]
    fn announced_numbers_are_carried_only_for_the_types_that_are() {
        let node = NodeId::random();
        let message = super::super::envelope::write_sequences(
            node,
            [(EventType::Ticker, 5), (EventType::Candle, 6)].into_iter(),
            chrono::Utc::now(),
        );
        let carried = carry_sequences(&message, |event| event == EventType::Candle, way()).unwrap();
        assert_eq!((carried.source, carried.sequences), (node, vec![(EventType::Candle, 6)]));
        let read: Value = serde_json::from_slice(&carried.message).unwrap();
        assert_eq!(read["data"], json!({ "candle": 6 }));
    }
}
