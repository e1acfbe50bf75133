//! Probes of the parsers of prices, events, updates, messages and names: see [`crate::probes`].

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::payload::InvalidPayload;
use super::{
    ClaimRequest, ClientMessage, ExtendRequest, FailRequest, OrderUpdate, OrderedFields, Revoke,
    ServerMessage, SetSubscription, Standing, each_element, entry_json, latest_json, parse_event,
    parse_price, segments_of,
};
use crate::model::{ChannelName, DraftEntry, Entry, EntryId, EventType, NAME_LEN_MAX, NodeId, OrderId, Zone};
use crate::support::json::json_fault;
use crate::support::probing::{NOW, json, text, told};

/// How far ahead a time may be.
const AHEAD_MAX: Duration = Duration::from_secs(3_600);

/// How many bytes writing may add: the longest key as JSON, and the envelope and field names of an event.
const ROOM: usize = 6 * 128 + 64;

const NODE: NodeId = NodeId(Uuid::from_u128(7));

/// Runs a probe on the input itself and, if that is an array, on each element.
fn whole_and_by_element(bytes: &[u8], probe: impl Fn(&str)) {
    let Some(text) = text(bytes) else { return };
    probe(text);
    let mut next = 0;
    let elements = each_element(text, |place, element| {
        assert_eq!(place, next, "elements come in order");
        next += 1;
        probe(element.get());
        if next < 50 { Ok(()) } else { Err("enough of them") }
    });
    if let Ok(Ok(())) = elements {
        let all: Vec<&RawValue> = serde_json::from_str(text).expect("an array");
        assert_eq!(all.len(), next, "each element is given once");
    }
}

/// Checks that an accepted entry can be shown to all clients.
fn is_shown(channel: &ChannelName, draft: &DraftEntry) {
    let entry = Entry { offset: 7, id: EntryId { producer: NODE, seq: 9 }, draft: draft.clone() };
    for is_late in [false, true] {
        let mut frame = Vec::new();
        entry_json(channel, &entry, is_late, &mut frame);
        reads_as(&frame, &entry);
    }
    let mut frame = Vec::new();
    latest_json(channel, &entry, &mut frame);
    reads_as(&frame, &entry);
}

fn reads_as(frame: &[u8], entry: &Entry) {
    let text = text(frame).expect("frames are text");
    assert!(!text.contains('\n'), "a frame is one line: {text}");
    json(text);
    let ServerMessage::Entry(read) = ServerMessage::read(text).unwrap_or_else(|e| panic!("{e}: {text}"))
    else {
        panic!("no entry: {text}");
    };
    assert_eq!((read.offset, &*read.kind), (entry.offset, entry.draft.kind.as_str()), "{text}");
    assert_eq!(read.timestamp.map(|time| time.timestamp_millis()), Some(entry.draft.time.timestamp_millis()));
}

/// Checks that an entry can be written for clients and keeps its offset, whatever the storage had.
pub(crate) fn can_be_written(entry: &Entry) {
    for channel in ["zone:pjm", "order:00000000-0000-0000-0000-000000000007", "event:trade"] {
        let channel: ChannelName = channel.parse().expect("a name");
        let mut frame = Vec::new();
        entry_json(&channel, entry, false, &mut frame);
        let frame = text(&frame).expect("frames are text");
        json(frame);
        let read = ServerMessage::read(frame).unwrap_or_else(|error| panic!("{error}: {frame}"));
        let ServerMessage::Entry(read) = read else { panic!("no entry: {frame}") };
        assert_eq!(read.offset, entry.offset);
    }
}

/// Checks that each field was kept as written, apart from white space between tokens, and from the key, which
/// is written again.
fn are_kept(given: &str, kept: &str) {
    let OrderedFields(given) = serde_json::from_str(given).expect("it was read before");
    let OrderedFields(kept) = serde_json::from_str(kept).expect("it was written so");
    for (name, value) in kept.iter().filter(|(name, _)| name != "key") {
        let Some((_, written)) = given.iter().find(|(field, _)| field == name) else { continue };
        match value.get().as_bytes().first() {
            Some(b'{' | b'[') => assert_eq!(json(value.get()), json(written.get()), "{name}"),
            _ => assert_eq!(value.get(), written.get(), "{name}"),
        }
    }
}

fn is_refused(refused: &InvalidPayload) {
    told(&refused.detail);
}

/// Prices as publishers post them.
pub(crate) fn prices(bytes: &[u8]) {
    let channel: ChannelName = "zone:pjm".parse().expect("a name");
    whole_and_by_element(bytes, |price| {
        let draft = match parse_price(price, NOW, AHEAD_MAX) {
            Ok(draft) => draft,
            Err(refused) => return is_refused(&refused),
        };
        let data = text(&draft.data).expect("JSON is text");
        assert!(data.len() <= price.len() + ROOM, "{} bytes of {}", data.len(), price.len());
        assert!(draft.time <= NOW + AHEAD_MAX);
        are_kept(price, data);
        is_shown(&channel, &draft);
        let again = parse_price(data, draft.time, Duration::MAX).expect("what was taken is taken again");
        assert_eq!(again, draft);
    });
}

/// Events of all types, as publishers post them.
pub(crate) fn events(bytes: &[u8]) {
    whole_and_by_element(bytes, |event| {
        for kind in EventType::ALL {
            let draft = match parse_event(kind, event, NOW, AHEAD_MAX) {
                Ok(draft) => draft,
                Err(refused) => {
                    is_refused(&refused);
                    continue;
                }
            };
            let payload = text(&draft.data).expect("JSON is text");
            assert!(payload.len() <= event.len() + ROOM, "{} bytes of {}", payload.len(), event.len());
            let data = payload.strip_prefix(r#"{"data":"#).and_then(|rest| rest.strip_suffix('}'));
            let data = data.expect("an event is in `data`");
            are_kept(event, data);
            is_shown(&ChannelName::event(kind), &draft);
            assert!(segments_of(&draft).is_some(), "an event has its views: {payload}");
            let again =
                parse_event(kind, data, draft.time, Duration::MAX).expect("what was taken is taken again");
            assert_eq!(again, draft);
        }
    });
}

/// Updates of orders, as workers report them.
pub(crate) fn updates(bytes: &[u8]) {
    let Some(update) = text(bytes) else { return };
    let read = match OrderUpdate::parse(update, NOW) {
        Ok(read) => read,
        Err(refused) => return is_refused(&refused),
    };
    are_kept(update, text(&read.draft.data).expect("JSON is text"));
    is_shown(&ChannelName::order(OrderId(NODE.0)), &read.draft);
    let entry = Entry { offset: 1, id: EntryId { producer: NODE, seq: 1 }, draft: read.draft };
    assert_eq!(Standing::of(&entry), read.standing, "its stored form has the same standing");
}

/// An error in the body of a request is described in one line.
fn body<T: DeserializeOwned>(body: &str) {
    if let Err(error) = serde_json::from_str::<T>(body) {
        told(&json_fault(body, &error));
    }
}

/// Messages from clients, and the bodies of requests on the workers' interface.
pub(crate) fn messages(bytes: &[u8]) {
    let Some(message) = text(bytes) else { return };
    body::<ClaimRequest>(message);
    body::<ExtendRequest>(message);
    body::<FailRequest>(message);
    body::<Revoke>(message);
    body::<SetSubscription>(message);
    let read = match ClientMessage::parse(message) {
        Ok(read) => read,
        Err(invalid) => {
            told(&invalid.message);
            assert!(invalid.id.is_none_or(|id| message.contains(id.as_json())));
            return;
        }
    };
    json(message);
    let id = match &read {
        ClientMessage::Subscribe(subscribe) => &subscribe.id,
        ClientMessage::Unsubscribe(unsubscribe) => &unsubscribe.id,
        ClientMessage::Auth(auth) => &auth.id,
        ClientMessage::Publish(publish) => {
            // Each entry as its publisher wrote it.
            assert!(publish.entries.iter().all(|entry| message.contains(entry.as_json())), "{message}");
            &publish.id
        }
        ClientMessage::Heartbeat(bare) | ClientMessage::HeartbeatAck(bare) | ClientMessage::Ping(bare) => {
            &bare.id
        }
    };
    if let Some(id) = id {
        assert!(id.as_json().len() <= 128 && message.contains(id.as_json()), "{message}");
    }
    let written = read.to_json();
    let again = ClientMessage::parse(&written).unwrap_or_else(|e| panic!("{}: {written}", e.message));
    assert_eq!(again.to_json(), written);
}

/// Messages of gateways, as clients read them.
pub(crate) fn answers(bytes: &[u8]) {
    let Some(Ok(message)) = text(bytes).map(ServerMessage::read) else { return };
    let written = String::from_utf8(message.to_json()).expect("JSON is text");
    let again = ServerMessage::read(&written).unwrap_or_else(|e| panic!("{e}: {written}"));
    assert_eq!(String::from_utf8_lossy(&again.to_json()), written);
}

/// Names: a valid one is plain and short, and reads back as it was written.
pub(crate) fn names(bytes: &[u8]) {
    let Some(name) = text(bytes) else { return };
    match name.parse::<ChannelName>() {
        Ok(channel) => {
            let written = channel.as_str();
            assert_eq!(written.parse(), Ok(channel.clone()), "{name}");
            assert!(written.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')));
            assert!(written.len() <= 512, "{} bytes", written.len());
            assert_eq!(channel.log().log(), channel.log());
            if !channel.is_view() && channel.as_order().is_none() {
                assert_eq!(written, name);
            }
        }
        Err(invalid) => told(&invalid.to_string()),
    }
    match name.parse::<Zone>() {
        Ok(zone) => assert!(zone.as_str() == name && name.len() <= NAME_LEN_MAX),
        Err(invalid) => told(&invalid.to_string()),
    }
    if let Ok(order) = name.parse::<OrderId>() {
        assert_eq!(order.to_string().parse(), Ok(order));
    }
    if let Ok(event) = name.parse::<EventType>() {
        assert_eq!(event.as_str(), name);
    }
    if let Ok(id) = name.parse::<EntryId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
