//! Writes a line of a file as the JSON object that a publisher would POST.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::value::RawValue;

use super::columns::{Columns, Role};
use super::time::Times;
use super::{FeedPrice, ReplayError, ReplayOptions, ReplayPrice};
use crate::model::Zone;

/// A value of a line.
#[derive(Clone, Copy)]
pub(super) enum Cell<'a> {
    /// From a CSV file: text that may look like a number.
    Text(&'a str),
    /// From an NDJSON file: any JSON.
    Json(&'a RawValue),
}

impl<'a> Cell<'a> {
    /// The value as plain text; `None` if it is empty or null.
    fn text(self) -> Option<Cow<'a, str>> {
        let text = match self {
            Self::Text(text) => Cow::Borrowed(text.trim()),
            Self::Json(raw) if raw.get() == "null" => return None,
            Self::Json(raw) => match serde_json::from_str::<String>(raw.get()) {
                Ok(text) => Cow::Owned(text),
                Err(_) => Cow::Borrowed(raw.get()),
            },
        };
        if text.is_empty() { None } else { Some(text) }
    }

    /// The value as JSON for a free field; `None` if it is empty or null.
    fn json(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(_) => {
                self.text().map(|text| if is_number(&text) { text } else { quoted(&text).into() })
            }
            Self::Json(raw) if raw.get() == "null" => None,
            Self::Json(raw) => Some(Cow::Borrowed(raw.get())),
        }
    }
}

/// Writes the lines of one file.
pub(super) struct PayloadWriter {
    options: ReplayOptions,
    times: Times,
    /// The first time of the file, and the moment that replaces it.
    shift: Option<(DateTime<Utc>, DateTime<Utc>)>,
    // Files name few zones, and repeat them in runs.
    last_zone: Option<Zone>,
}

/// Separates the parts of a key of several columns.
const KEY_SEPARATOR: &str = "/";

impl PayloadWriter {
    pub(super) fn new(options: ReplayOptions) -> Self {
        let times = Times::new(options.time_format.clone(), options.time_zone);
        Self { last_zone: options.zone.clone(), times, shift: None, options }
    }

    pub(super) fn options(&self) -> &ReplayOptions {
        &self.options
    }

    pub(super) fn write<'a>(
        &mut self,
        line: u64,
        at: u64,
        columns: &Columns,
        cells: impl Iterator<Item = Cell<'a>>,
    ) -> Result<ReplayPrice, ReplayError> {
        self.object(columns, cells)
            .map(|(time, price)| ReplayPrice { line, at, time, price })
            .map_err(|problem| ReplayError::Line { line, problem })
    }

    fn object<'a>(
        &mut self,
        columns: &Columns,
        cells: impl Iterator<Item = Cell<'a>>,
    ) -> Result<(Option<DateTime<Utc>>, FeedPrice), String> {
        let mut object = Object::default();
        let (mut has_zone, mut has_price, mut time) = (self.options.zone.is_some(), false, None);
        let (mut has_bid, mut has_ask) = (false, false);
        let mut key_parts = vec![Cow::Borrowed(""); columns.key_parts];
        if let Some(key) = &self.options.key {
            object.push("key", &quoted(key));
        }
        for (role, cell) in columns.roles.iter().zip(cells) {
            match role {
                Role::Zone => {
                    if let Some(text) = cell.text() {
                        self.set_zone(&text)?;
                        has_zone = true;
                    }
                }
                Role::Key { also: None, .. } => {
                    object.push("key", &quoted(&cell.text().ok_or("the key is empty")?));
                }
                Role::Key { place, also: Some(field) } => {
                    if let Some(text) = cell.text() {
                        key_parts[*place] = text;
                    }
                    if let Some(json) = cell.json() {
                        object.push(field, &json);
                    }
                }
                Role::Price { also } => {
                    // A line without a price may still be a quote.
                    let Some(text) = cell.text() else { continue };
                    let number = number(&text).ok_or_else(|| not_a_number("price", &text))?;
                    object.push("price", &number);
                    if let Some(field) = also {
                        object.push(field, &number);
                        has_bid |= *field == "bid";
                        has_ask |= *field == "ask";
                    }
                    has_price = true;
                }
                Role::Time => {
                    if let Some(text) = cell.text() {
                        let parsed = self.times.read(&text)?;
                        time = Some(parsed);
                        let timestamp = self.shifted(parsed).to_rfc3339_opts(SecondsFormat::Millis, true);
                        object.push("timestamp", &quoted(&timestamp));
                    }
                }
                Role::Part(field) => {
                    if let Some(text) = cell.text() {
                        object.push(field, &number(&text).ok_or_else(|| not_a_number(field, &text))?);
                        has_bid |= field == "bid";
                        has_ask |= field == "ask";
                    }
                }
                Role::Extra(field) => {
                    if let Some(json) = cell.json() {
                        object.push(field, &json);
                    }
                }
            }
        }
        if !(has_price || has_bid && has_ask) {
            let problem = if has_bid || has_ask {
                "the price is empty, and so is bid or ask"
            } else {
                "the price is empty"
            };
            return Err(problem.to_owned());
        }
        if columns.key_parts > 1 {
            if key_parts.iter().all(|part| part.is_empty()) {
                return Err("the key is empty".to_owned());
            }
            object.push("key", &quoted(&key_parts.join(KEY_SEPARATOR)));
        }
        let zone = self.last_zone.clone().filter(|_| has_zone).ok_or("the zone is empty")?;
        Ok((time, FeedPrice { zone, json: object.finish() }))
    }

    /// The time with which a price is published.
    fn shifted(&mut self, time: DateTime<Utc>) -> DateTime<Utc> {
        let Some(speed) = self.options.now else { return time };
        let (first, begin) = *self.shift.get_or_insert_with(|| (time, Utc::now()));
        // A time too far from the first one to be expressed is replaced by the start of the replay.
        let since = (time - first).as_seconds_f64() / speed;
        let since = chrono::TimeDelta::try_milliseconds((since * 1_000.0) as i64).unwrap_or_default();
        begin.checked_add_signed(since).unwrap_or(begin)
    }

    fn set_zone(&mut self, text: &str) -> Result<(), String> {
        if self.last_zone.as_ref().is_none_or(|zone| zone.as_str() != text) {
            self.last_zone = Some(text.parse().map_err(|error| format!("{error}"))?);
        }
        Ok(())
    }
}

#[derive(Default)]
struct Object(String);

impl Object {
    fn push(&mut self, field: &str, json: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&quoted(field));
        self.0.push(':');
        self.0.push_str(json);
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text always serialises")
}

/// A browser would not keep more digits than this, so a longer value is a name, not a number.
const WHOLE_DIGITS_MAX: usize = 15;

/// Whether the text is a number in JSON's form that survives being parsed as one.
fn is_number(text: &str) -> bool {
    let starts_like_one = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let is_whole = text.bytes().all(|b| b == b'-' || b.is_ascii_digit());
    starts_like_one
        && !(is_whole && text.trim_start_matches('-').len() > WHOLE_DIGITS_MAX)
        && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

/// A number in JSON's form with its digits unchanged; `+1`, `.5`, `5.` and `007` are converted to that form.
fn number(text: &str) -> Option<Cow<'_, str>> {
    let is_json = |text: &str| serde_json::from_str::<serde_json::Number>(text).is_ok();
    if is_json(text) {
        return Some(Cow::Borrowed(text));
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = digits.split_at(digits.find(['e', 'E']).unwrap_or(digits.len()));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if digits.starts_with(['+', '-']) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let point = if fraction.is_empty() { "" } else { "." };
    let number = format!("{sign}{whole}{point}{fraction}{exponent}");
    is_json(&number).then_some(Cow::Owned(number))
}

fn not_a_number(field: &str, text: &str) -> String {
    format!("{field} {} is not a number", shown(text))
}

/// A value from a file for use in an error: shortened, without control characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for (text, expected) in [
            ("41.20", Some("41.20")),
            ("-0.50", Some("-0.50")),
            ("1e3", Some("1e3")),
            ("0.10000000000000000000001", Some("0.10000000000000000000001")),
            ("+1.50", Some("1.50")),
            (".50", Some("0.50")),
            ("-.50", Some("-0.50")),
            ("5.", Some("5")),
            ("007.10", Some("7.10")),
            ("000", Some("0")),
            ("+1.50E-2", Some("1.50E-2")),
            ("", None),
            (".", None),
            ("-", None),
            ("+-1", None),
            ("1 000", None),
            ("1,5", None),
            ("0x10", None),
            ("NaN", None),
            ("inf", None),
            ("1e999", None),
            ("e5", None),
        ] {
            assert_eq!(number(text).as_deref(), expected, "{text:?}");
        }
    }
}
