//! What all payloads share: checks of names, times, and the compact form.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::value::RawValue;

use super::time::{TIME_EXPECTED, time_of_number, time_of_text};
use super::{ProblemCode, check_json};

/// A text that was refused: what is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct InvalidPayload {
    /// The kind of fault.
    pub code: ProblemCode,
    /// For people.
    pub detail: String,
}

pub(super) fn fault(code: ProblemCode, detail: impl Into<String>) -> InvalidPayload {
    InvalidPayload { code, detail: detail.into() }
}

/// Refuses JSON that some parsers cannot read.
pub(super) fn check_readable(text: &str) -> Result<(), InvalidPayload> {
    check_json(text).map_err(|unreadable| fault(ProblemCode::InvalidJson, unreadable.to_string()))
}

/// Refuses reserved names and names that occur twice.
pub(super) fn check_names(fields: &[(String, &RawValue)], reserved: &[&str]) -> Result<(), InvalidPayload> {
    let mut names = HashSet::with_capacity(fields.len());
    for (name, _) in fields {
        if reserved.contains(&name.as_str()) {
            let detail = format!("the field `{name}` belongs to the gateway; use another name for it");
            return Err(fault(ProblemCode::ReservedField, detail));
        }
        if !names.insert(name.as_str()) {
            return Err(fault(
                ProblemCode::DuplicateField,
                format!("the field {} occurs twice", shown(name)),
            ));
        }
    }
    Ok(())
}

/// Reads `timestamp`: see [`time_of_text`] and [`time_of_number`].
pub(super) fn read_time(value: &RawValue) -> Result<DateTime<Utc>, InvalidPayload> {
    let text: Option<String> = serde_json::from_str(value.get()).ok();
    let time = text.map_or_else(|| time_of_number(value.get()), |text| time_of_text(&text));
    time.ok_or_else(|| {
        let detail = format!("`timestamp` must be {TIME_EXPECTED}, not {}", shown(value.get()));
        fault(ProblemCode::InvalidTimestamp, detail)
    })
}

/// Refuses a time that is far ahead: it is a publisher's mistake, and its entry would look newer than all
/// others for years.
pub(super) fn check_ahead(
    time: DateTime<Utc>,
    now: DateTime<Utc>,
    max: Duration,
) -> Result<(), InvalidPayload> {
    let last = TimeDelta::from_std(max).ok().and_then(|max| now.checked_add_signed(max));
    let Some(last) = last.filter(|last| time > *last) else { return Ok(()) };
    let shown = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let detail = format!(
        "`timestamp` is {}, too far ahead: it must not be after {} now (channels.ahead_max_s is {} s)",
        shown(time),
        shown(last),
        max.as_secs()
    );
    Err(fault(ProblemCode::InvalidTimestamp, detail))
}

/// Outside input for use in an error: shortened, without control characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    let plain: String = short.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    format!("`{plain}{dots}`")
}

/// Writes a compact object, field by field. Each name may be added once.
#[derive(Debug, Default)]
pub(crate) struct PayloadWriter(Vec<u8>);

impl PayloadWriter {
    /// Adds a field whose value is JSON.
    pub(crate) fn push(&mut self, name: &str, json: &str) {
        self.push_name(name);
        push_compact(&mut self.0, json);
    }

    /// Adds a field whose value is a text.
    pub(crate) fn push_text(&mut self, name: &str, text: &str) {
        self.push_name(name);
        push_quoted(&mut self.0, text);
    }

    /// Adds a field whose value is a number.
    pub(crate) fn push_number(&mut self, name: &str, number: u32) {
        self.push_name(name);
        write_json(&mut self.0, &number);
    }

    pub(crate) fn push_value(&mut self, name: &str, value: &serde_json::Value) {
        self.push_name(name);
        write_json(&mut self.0, value);
    }

    fn push_name(&mut self, name: &str) {
        /// Most payloads are shorter than this.
        const USUAL_BYTES: usize = 256;
        if self.0.is_empty() {
            self.0.reserve(USUAL_BYTES);
        }
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        push_quoted(&mut self.0, name);
        self.0.push(b':');
    }

    pub(crate) fn finish(mut self) -> Bytes {
        self.0.extend_from_slice(if self.0.is_empty() { b"{}" } else { b"}" });
        // Copy it without the spare capacity, since an entry's memory is counted by its length.
        Bytes::copy_from_slice(&self.0)
    }
}

pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text always serialises")
}

fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value)
        .expect("texts, numbers and values always serialise, and a vector takes all");
}

/// Adds a text as JSON. Nearly all texts are plain and need no escaping.
fn push_quoted(out: &mut Vec<u8>, text: &str) {
    // Checking all bytes without an early exit lets the compiler vectorize the loop.
    let is_odd = text.bytes().fold(false, |odd, byte| odd | matches!(byte, b'"' | b'\\' | ..b' '));
    if is_odd {
        return write_json(out, &text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// Copies JSON without the white space between its tokens.
fn push_compact(out: &mut Vec<u8>, json: &str) {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    // White space within a text is part of it.
    if json.starts_with('"') || !json.bytes().fold(false, |found, byte| found | is_space(byte)) {
        return out.extend_from_slice(json.as_bytes());
    }
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_string || !is_space(byte) {
            out.push(byte);
        }
        match byte {
            b'"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && byte == b'\\' && !escaped;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_payload_is_compact_and_holds_no_more_memory_than_it_has_bytes() {
        let mut payload = PayloadWriter::default();
        payload.push("price", " 1.50 ");
        payload.push("a \"name\"\n", r#"{ "b" : "c d" }"#);
        let bytes = payload.finish();
        assert_eq!(bytes, r#"{"price":1.50,"a \"name\"\n":{"b":"c d"}}"#);
        let length = bytes.len();
        assert_eq!(Vec::from(bytes).capacity(), length);
        assert_eq!(PayloadWriter::default().finish(), "{}");
    }

    #[test]
    fn names_and_texts_are_written_as_a_writer_of_json_would() {
        for text in ["", "plain text_1", "\"", "\\", "\u{1f}", "\u{7f}", "é\u{2028}", "a\tb"] {
            let mut payload = PayloadWriter::default();
            payload.push_text(text, text);
            assert_eq!(payload.finish(), serde_json::to_string(&HashMap::from([(text, text)])).unwrap());
        }
    }
}
