//! A probe of the parser of messages that other processes publish: see [`crate::probes`].

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::envelope::{Envelope, OwnEvent, Publisher, data_of, write};
use super::inbound::{Clock, of_gateway, of_other, own_id};
use super::relayed::{LeftOut, Way, carry, carry_sequences};
use crate::model::{EventType, NodeId};
use crate::protocol::parse_event;
use crate::support::json::check_json;
use crate::support::probing::{NOW, json, text};

const CLOCK: Clock = Clock { now: NOW, ahead_max: Duration::from_secs(3_600) };

const NODE: NodeId = NodeId(Uuid::from_u128(7));

/// From one fleet to another.
const WAY: Way = Way { from: Uuid::from_u128(1), to: Uuid::from_u128(2) };

/// Pub/sub messages: of gateways and other processes, live and durable, and of relays.
pub(crate) fn envelopes(bytes: &[u8]) {
    let Ok(envelope) = Envelope::read(bytes) else { return };
    let message = text(bytes).expect("it was read");
    assert!(message.contains(envelope.data.get()), "the event is as it was written");
    for (_, number) in envelope.sequences() {
        assert!(message.contains(&number.to_string()), "{number}");
    }
    for event in EventType::ALL {
        let taken = match envelope.publisher() {
            Publisher::Gateway(..) => of_gateway(event, &envelope, CLOCK),
            Publisher::Other => {
                let live = of_other(event, false, &envelope, CLOCK);
                let durable = of_other(event, true, &envelope, CLOCK);
                if let Ok(durable) = &durable {
                    // The event has the same id each time it is received.
                    let again = of_other(event, true, &envelope, CLOCK).expect("as before");
                    assert_eq!(own_id(durable), own_id(&again));
                }
                live
            }
        };
        if let Ok(draft) = taken {
            let payload = text(&draft.data).expect("JSON is text");
            json(payload);
            assert!(draft.time <= NOW + CLOCK.ahead_max);
            // If this node publishes the event, other gateways read the same event.
            let (time, accepted_at, payload) = (draft.time, NOW, draft.data.clone());
            let own = OwnEvent { event, sequence: Some(5), time, accepted_at, payload };
            let told = write(NODE, &own).expect("an event is in `data`");
            let heard = Envelope::read(&told).expect("as it was written");
            let Publisher::Gateway(NODE, mark) = heard.publisher() else { panic!("of this node") };
            assert_eq!(
                (mark.sequence, mark.accepted_at(), heard.time()),
                (Some(5), Some(NOW), Some(draft.time))
            );
            assert!(heard.is_of(event.as_str()));
            let again = of_gateway(event, &heard, CLOCK).expect("what was taken is taken again");
            assert_eq!(again, draft);
        }
        if let Ok(carried) = carry(event, bytes, WAY) {
            is_passed_on(event, &envelope, &carried.message, bytes);
        }
    }
    if let Ok(carried) = carry_sequences(bytes, |_| true, WAY) {
        let heard = Envelope::read(&carried.message).expect("as it was written");
        assert_eq!(heard.publisher(), envelope.publisher());
        let (mut said, mut before) = (heard.sequences(), envelope.sequences());
        said.sort_unstable();
        before.sort_unstable();
        assert_eq!(said, before);
    }
}

/// What a relay carries is the same message, and it is not carried back.
fn is_passed_on(event: EventType, envelope: &Envelope<'_>, message: &Bytes, before: &[u8]) {
    assert!(message.len() <= before.len() + 128, "{} bytes of {}", message.len(), before.len());
    let heard = Envelope::read(message).expect("as it was written");
    assert_eq!((heard.publisher(), heard.time()), (envelope.publisher(), envelope.time()));
    if check_json(envelope.data.get()).is_ok() {
        assert_eq!(json(heard.data.get()), json(envelope.data.get()));
        if let Ok(draft) = parse_event(event, envelope.data.get(), NOW, CLOCK.ahead_max) {
            let carried = parse_event(event, heard.data.get(), NOW, CLOCK.ahead_max);
            assert_eq!(carried.ok().as_ref(), Some(&draft));
            assert!(data_of(&draft.data).is_some());
        }
    }
    for way in [WAY, Way { from: WAY.to, to: WAY.from }] {
        assert_eq!(carry(event, message, way).err(), Some(LeftOut::Passed), "it comes round");
    }
}
