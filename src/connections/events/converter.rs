//! Converts WebSocket frames to events. It tracks the position in each channel as a client of the protocol
//! would, so that an event's id can contain all positions.

use std::borrow::Cow;
use std::mem;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::id::{FINAL, id_of};
use crate::model::{ChannelKind, ChannelName, Position};
use crate::protocol::{CloseCode, Frame, first_frame};

/// Converts the frames of one stream, which may arrive in any pieces.
#[derive(Debug)]
pub(super) struct Converter {
    /// The channels of the stream, and the client's position in each.
    places: Vec<(ChannelName, Option<Position>)>,
    /// The retry delay to announce with the next event.
    retry_ms: Option<u64>,
    /// Frames that are not converted yet.
    frames: Vec<u8>,
    /// The last frame was converted.
    has_ended: bool,
}

/// The fields of a message that matter here. A publisher's own fields cannot have these names, except that
/// in an update of an order reported from elsewhere `snapshot` may be a publisher's.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    offset: Option<u64>,
    #[serde(borrow)]
    snapshot: Option<&'a RawValue>,
}

/// The fields of `closing` that matter here.
#[derive(Deserialize)]
struct Closing {
    code: u16,
    retry_after_ms: Option<u64>,
}

impl Converter {
    pub(super) fn new(places: Vec<(ChannelName, Option<Position>)>, retry_ms: u64) -> Self {
        Self { places, retry_ms: Some(retry_ms), frames: Vec::new(), has_ended: false }
    }

    /// Takes frames, and leaves `frames` empty.
    pub(super) fn take(&mut self, frames: &mut Vec<u8>) {
        if self.frames.is_empty() {
            mem::swap(&mut self.frames, frames);
        } else {
            self.frames.append(frames);
        }
    }

    /// Converts what was taken to events, until they have this many bytes. Returns nothing if more frames
    /// are needed, or if the stream has ended.
    pub(super) fn convert(&mut self, bytes: usize) -> Vec<u8> {
        let (mut out, frames, mut from) = (Vec::new(), mem::take(&mut self.frames), 0);
        while out.len() < bytes
            && !self.has_ended
            && let Some((frame, len)) = first_frame(&frames[from..])
        {
            from += len;
            match frame {
                Frame::Text(message) => self.convert_message(message, &mut out),
                // A comment, which keeps proxies from considering the stream dead.
                Frame::Ping => out.extend_from_slice(b":\n"),
                Frame::Close => self.has_ended = true,
            }
        }
        self.frames = frames;
        if from == self.frames.len() {
            // Frees the buffer, because most streams are idle most of the time.
            self.frames = Vec::new();
        } else {
            self.frames.drain(..from);
        }
        out
    }

    /// Whether the last event has been produced.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn convert_message(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let mut id = None;
        // Always succeeds, because all text frames of the gateway are such messages.
        if let Ok(read) = serde_json::from_slice::<Message<'_>>(message) {
            if read.kind == "closing" {
                id = self.convert_end(message);
            } else if self.track(&read, message) {
                id = Some(id_of(&self.places));
            }
        }
        if let Some(ms) = self.retry_ms.take() {
            out.extend_from_slice(format!("retry: {ms}\n").as_bytes());
        }
        if let Some(id) = id {
            out.extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        write_data(message, out);
    }

    /// Tracks positions as a client does; returns whether the client's position changed.
    fn track(&mut self, read: &Message<'_>, message: &[u8]) -> bool {
        let Some(name) = &read.channel else { return false };
        let mut places = self.places.iter_mut();
        let Some((channel, place)) = places.find(|(channel, _)| channel.as_str() == name) else {
            return false;
        };
        match (&*read.kind, place) {
            ("subscribed" | "resync" | "snapshot_end", place) => {
                *place = serde_json::from_slice::<Position>(message).ok();
                true
            }
            (_, Some(place)) => {
                let is_of_snapshot = channel.kind() != ChannelKind::Order
                    && read.snapshot.is_some_and(|snapshot| snapshot.get() == "true");
                let offset = read.offset.filter(|_| !is_of_snapshot);
                offset.inspect(|offset| place.offset = *offset).is_some()
            }
            _ => false,
        }
    }

    /// Notes the retry delay; returns the id of an end after which the client must not reconnect.
    fn convert_end(&mut self, message: &[u8]) -> Option<String> {
        let Closing { code, retry_after_ms } = serde_json::from_slice(message).ok()?;
        if !CloseCode::may_reconnect(code) {
            return Some(FINAL.to_owned());
        }
        self.retry_ms = retry_after_ms.filter(|ms| *ms > 0);
        None
    }
}

/// The only event of a stream that ends at once.
pub(super) fn only_event(closing: &[u8]) -> Vec<u8> {
    let (mut converter, mut out) = (Converter::new(Vec::new(), 0), Vec::new());
    converter.retry_ms = None;
    converter.convert_message(closing, &mut out);
    out
}

/// A line break in the JSON, which can only be between tokens, becomes one between two data lines, which
/// the client joins again.
fn write_data(message: &[u8], out: &mut Vec<u8>) {
    for line in message.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::protocol::{close_frame, ping_frame, text_frame};

    fn converter(channels: &[&str]) -> Converter {
        let places = channels.iter().map(|channel| (channel.parse().unwrap(), None));
        Converter { retry_ms: None, ..Converter::new(places.collect(), 0) }
    }

    fn frames(messages: &[serde_json::Value]) -> Vec<u8> {
        let mut frames = Vec::new();
        messages.iter().for_each(|message| text_frame(message.to_string().as_bytes(), &mut frames));
        frames
    }

    /// The ids of the events of these messages, `-` for none.
    fn ids(converter: &mut Converter, messages: &[serde_json::Value]) -> Vec<String> {
        let of_one = |message: &serde_json::Value| {
            converter.take(&mut frames(std::slice::from_ref(message)));
            let event = String::from_utf8(converter.convert(1)).unwrap();
            let data = format!("data: {message}\n\n");
            let before = event.strip_suffix(&data).unwrap_or_else(|| panic!("{event:?} ends in {data:?}"));
            let id = before.strip_prefix("id: ").and_then(|id| id.strip_suffix('\n'));
            id.unwrap_or(if before.is_empty() { "-" } else { before }).to_owned()
        };
        messages.iter().map(of_one).collect()
    }

    fn at(kind: &str, channel: &str, epoch: &str, offset: u64) -> serde_json::Value {
        json!({ "type": kind, "channel": channel, "epoch": epoch, "offset": offset })
    }

    fn entry(kind: &str, channel: &str, offset: u64) -> serde_json::Value {
        json!({ "type": kind, "channel": channel, "offset": offset, "id": "n-1" })
    }

    #[test]
    fn an_id_stands_for_the_positions_of_all_channels_and_is_there_where_one_has_changed() {
        let order = "order:6f1c1c1e-0b5e-4b1e-9d3e-0a6f4b6f2a11";
        let mut converter = converter(&["zone:a", order]);
        let mut own = entry("price_update", "zone:a", 7);
        // A publisher's own fields, which mean nothing here.
        (own["epoch"], own["code"]) = (json!(5), json!({}));
        let mut of_snapshot = entry("price_update", "zone:a", 3);
        of_snapshot["snapshot"] = json!(true);
        let mut outside = entry("routing", order, 2);
        outside["snapshot"] = json!(true);
        let told = ids(
            &mut converter,
            &[
                json!({ "type": "connection_established" }),
                entry("price_update", "zone:a", 1),
                at("subscribed", "zone:a", "e1", 5),
                of_snapshot,
                at("snapshot_end", "zone:a", "e2", 6),
                own,
                at("subscribed", order, "e3", 0),
                outside,
                at("resync", "zone:a", "e4", 9),
                entry("of_a_newer_gateway", "zone:a", 10),
                json!({ "type": "caught_up", "channel": "zone:a" }),
                entry("price_update", "zone:other", 11),
                json!({ "type": "error", "code": "forbidden", "channel": "zone:a" }),
                json!({ "type": "heartbeat" }),
            ],
        );
        assert_eq!(
            told,
            [
                "-",
                "-",
                "e1:5,",
                "-",
                "e2:6,",
                "e2:7,",
                "e2:7,e3:0",
                "e2:7,e3:2",
                "e4:9,e3:2",
                "e4:10,e3:2",
                "-",
                "-",
                "-",
                "-"
            ]
        );
    }

    #[test]
    fn ends_say_whether_and_when_to_come_back() {
        let closing = |code: u16, retry: Option<u64>| {
            let mut closing = json!({ "type": "closing", "code": code });
            retry.inspect(|ms| closing["retry_after_ms"] = json!(ms));
            closing
        };
        let told = [
            (1000, None),
            (4501, None),
            (4000, Some(2_500)),
            (4001, Some(0)),
            (4006, Some(1_000)),
            (4999, None),
        ]
        .map(|(code, retry)| ids(&mut converter(&["zone:a"]), &[closing(code, retry)]).remove(0));
        assert_eq!(told, ["final", "final", "retry: 2500\n", "-", "retry: 1000\n", "final"]);
        let told = super::super::closing(CloseCode::TooManyConnections, 1_234);
        let told = String::from_utf8(told).unwrap();
        assert!(told.starts_with("retry: 1234\ndata: {\"type\":\"closing\",\"code\":4005,"), "{told}");
    }

    #[test]
    fn the_first_event_says_how_long_to_wait_where_the_stream_ends_without_a_word() {
        let mut converter = Converter::new(Vec::new(), 1_500);
        converter.take(&mut frames(&[json!({ "type": "a" }), json!({ "type": "b" })]));
        let told = String::from_utf8(converter.convert(usize::MAX)).unwrap();
        assert_eq!(told, "retry: 1500\ndata: {\"type\":\"a\"}\n\ndata: {\"type\":\"b\"}\n\n");
    }

    #[test]
    fn what_spans_lines_spans_lines_of_data() {
        let mut frame = Vec::new();
        text_frame(b"{\"type\":\"x\",\r\n\"n\":1}", &mut frame);
        let mut converter = converter(&[]);
        converter.take(&mut frame);
        assert_eq!(converter.convert(1), b"data: {\"type\":\"x\",\ndata: \ndata: \"n\":1}\n\n");
    }

    #[test]
    fn nothing_is_told_behind_the_end() {
        let mut all = Vec::new();
        ping_frame(&mut all);
        close_frame(CloseCode::Normal, &mut all);
        text_frame(b"{}", &mut all);
        let mut converter = converter(&[]);
        converter.take(&mut all);
        assert_eq!((converter.convert(usize::MAX), converter.has_ended()), (b":\n".to_vec(), true));
        assert_eq!(converter.convert(usize::MAX), b"");
    }

    proptest! {
        /// The events are the same in whatever pieces frames arrive, and however few bytes are read at
        /// once.
        #[test]
        fn events_do_not_depend_on_pieces(
            cuts in prop::collection::vec(0usize..900, 0..30), bytes in 1usize..400,
        ) {
            let messages: Vec<_> = (1..=20).map(|n| {
                let mut entry = entry("price_update", "zone:a", n);
                entry["padding"] = json!("x".repeat(n as usize * 10));
                entry
            }).collect();
            let mut all = frames(&[at("subscribed", "zone:a", "e", 0)]);
            all.extend(frames(&messages));
            close_frame(CloseCode::Normal, &mut all);
            let mut whole = converter(&["zone:a"]);
            whole.take(&mut all.clone());
            let expected = whole.convert(usize::MAX);

            let (mut cuts, mut from, mut told) = (cuts, 0, Vec::new());
            cuts.sort_unstable();
            let mut converter = converter(&["zone:a"]);
            for cut in cuts.into_iter().chain([all.len()]) {
                let cut = cut.clamp(from, all.len());
                converter.take(&mut all[from..cut].to_vec());
                from = cut;
                loop {
                    let some = converter.convert(bytes);
                    if some.is_empty() {
                        break;
                    }
                    told.extend(some);
                }
            }
            prop_assert_eq!(told, expected);
            prop_assert!(converter.has_ended() && converter.frames.is_empty());
        }
    }
}
