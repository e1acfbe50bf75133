//! Writes the published lines, and finds their numbers in what a server sends.

use std::fmt::{self, Write as _};

use memchr::memmem::Finder;

/// Writes `{"key":..,"price":1.5,"seq":..,"sent_ns":..,"pad":".."}` without a newline, padded to exactly
/// `len` bytes; longer only if the fields themselves are.
pub(super) fn write_line(out: &mut String, key: &str, seq: u64, sent_ns: u64, len: usize) {
    write_padded(out, format_args!(r#"{{"key":"{key}","price":1.5"#), seq, sent_ns, len);
}

/// Writes an event, valid as a ticker and as a trade, with the same two numbers and padding.
pub(super) fn write_event(out: &mut String, symbol: &str, seq: u64, sent_ns: u64, len: usize) {
    let symbol = symbol.to_ascii_uppercase();
    let head = format_args!(r#"{{"exchange":"bench","symbol":"{symbol}","price":1.5,"size":1"#);
    write_padded(out, head, seq, sent_ns, len);
}

/// Writes an order's update with the same two numbers and padding. It may be repeated, since an order may
/// report `routing` any number of times.
pub(super) fn write_update(out: &mut String, seq: u64, sent_ns: u64, len: usize) {
    let head = format_args!(r#"{{"type":"routing","progress":10,"message":"bench""#);
    write_padded(out, head, seq, sent_ns, len);
}

/// Completes an object with the numbers and a padding.
fn write_padded(out: &mut String, head: fmt::Arguments<'_>, seq: u64, sent_ns: u64, len: usize) {
    let (end, tail) = (out.len() + len, r#""}"#);
    write!(out, r#"{head},"seq":{seq},"sent_ns":{sent_ns},"pad":""#)
        .expect("writing to a string cannot fail");
    let padding = end.saturating_sub(out.len() + tail.len());
    out.extend(std::iter::repeat_n('x', padding));
    out.push_str(tail);
}

/// The key of a message if there are `keys` of them.
pub(super) fn key_of(seq: u64, keys: u64) -> String {
    if keys <= 1 { "bench".to_owned() } else { format!("k{}", seq % keys) }
}

/// Finds our numbers by a plain byte search, so that the envelope, the order of fields, and spaces after a
/// colon are up to the server.
#[derive(Debug)]
pub(super) struct Scanner {
    seq: Finder<'static>,
    sent_ns: Finder<'static>,
    subscribed: [Finder<'static>; 2],
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            seq: Finder::new(br#""seq":"#),
            sent_ns: Finder::new(br#""sent_ns":"#),
            subscribed: [Finder::new(br#""type":"subscribed""#), Finder::new(br#""type": "subscribed""#)],
        }
    }

    /// The messages in a frame as `(seq, sent_ns)`; a server may put several into one frame. A message
    /// without a time has the time zero.
    #[inline]
    pub(super) fn messages<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (u64, u64)> + 'a {
        let mut times = self.sent_ns.find_iter(text);
        self.seq.find_iter(text).filter_map(move |at| {
            let sent_ns = times.next().and_then(|at| number(&text[at + br#""sent_ns":"#.len()..]));
            Some((number(&text[at + br#""seq":"#.len()..])?, sent_ns.unwrap_or(0)))
        })
    }

    pub(super) fn is_subscribed(&self, text: &[u8]) -> bool {
        self.subscribed.iter().any(|finder| finder.find(text).is_some())
    }
}

#[inline]
fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).take(20);
    let mut any = false;
    let value = digits.fold(0u64, |value, digit| {
        any = true;
        value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
    });
    any.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, len: usize) -> String {
        let mut out = String::new();
        write_line(&mut out, "bench", seq, 123_456_789, len);
        out
    }

    #[test]
    fn a_line_is_json_of_the_length_asked_for() {
        for (seq, len) in [(0, 200), (9, 200), (10, 200), (u64::MAX, 200), (1, 90), (1, 4000)] {
            let line = line(seq, len);
            assert_eq!(line.len(), len);
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["seq"], seq);
            assert_eq!(value["sent_ns"], 123_456_789u64);
            assert_eq!(value["price"], 1.5);
        }
    }

    #[test]
    fn an_event_is_json_of_the_length_asked_for() {
        let mut event = String::new();
        write_event(&mut event, "k7", 7, 8, 200);
        assert_eq!(event.len(), 200);
        let value: serde_json::Value = serde_json::from_str(&event).unwrap();
        assert_eq!((&value["symbol"], &value["exchange"]), (&"K7".into(), &"bench".into()));
        assert_eq!(Scanner::new().messages(event.as_bytes()).collect::<Vec<_>>(), [(7, 8)]);
    }

    #[test]
    fn an_update_is_json_of_the_length_asked_for() {
        let mut update = String::new();
        write_update(&mut update, 7, 8, 200);
        assert_eq!(update.len(), 200);
        let value: serde_json::Value = serde_json::from_str(&update).unwrap();
        assert_eq!((&value["type"], &value["progress"]), (&"routing".into(), &10.into()));
        assert_eq!(Scanner::new().messages(update.as_bytes()).collect::<Vec<_>>(), [(7, 8)]);
    }

    #[test]
    fn a_line_shorter_than_its_fields_has_no_filler() {
        let value: serde_json::Value = serde_json::from_str(&line(1, 10)).unwrap();
        assert_eq!(value["pad"], "");
    }

    #[test]
    fn lines_can_be_appended() {
        let mut out = "before ".to_owned();
        write_line(&mut out, "bench", 1, 2, 150);
        assert_eq!(out.len(), 157);
    }

    #[test]
    fn keys_are_used_in_turn() {
        assert_eq!(key_of(7, 1), "bench");
        assert_eq!(key_of(7, 3), "k1");
    }

    #[test]
    fn numbers_are_found_in_any_envelope() {
        let scanner = Scanner::new();
        let wrapped = format!(r#"{{"type":"price_update","id":"a-1","data":{}}}"#, line(42, 200));
        assert_eq!(scanner.messages(wrapped.as_bytes()).collect::<Vec<_>>(), [(42, 123_456_789)]);
        let spaced = br#"{ "sent_ns": 5, "seq": 6 }"#;
        assert_eq!(scanner.messages(spaced).collect::<Vec<_>>(), [(6, 5)]);
    }

    #[test]
    fn several_messages_in_a_frame_are_several() {
        let batch = format!("[{},{}]", line(1, 120), line(2, 120));
        let found: Vec<u64> = Scanner::new().messages(batch.as_bytes()).map(|(seq, _)| seq).collect();
        assert_eq!(found, [1, 2]);
    }

    #[test]
    fn other_frames_hold_no_messages() {
        let scanner = Scanner::new();
        let welcome = br#"{"type":"subscribed","channel":"zone:bench","offset":7}"#;
        assert_eq!(scanner.messages(welcome).count(), 0);
        assert_eq!(scanner.messages(br#"{"seq":"text"}"#).count(), 0);
        assert!(scanner.is_subscribed(welcome));
        assert!(!scanner.is_subscribed(br#"{"type":"heartbeat"}"#));
    }
}
