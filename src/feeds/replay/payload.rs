//! Writes a line of a file as the JSON object that one would POST.

use std::borrow::Cow;

use chrono::SecondsFormat;
use serde_json::value::RawValue;

use super::columns::{Columns, Role};
use super::time::parse_time;
use super::{FeedPrice, ReplayError, ReplayOptions, ReplayPrice};
use crate::model::Zone;
use crate::protocol::TIME_EXPECTED;

/// A value of a line.
#[derive(Clone, Copy)]
pub(super) enum Cell<'a> {
    /// Of a CSV file: text that may look like a number.
    Text(&'a str),
    /// Of an NDJSON file: any JSON.
    Json(&'a RawValue),
}

impl<'a> Cell<'a> {
    /// The value as plain text; nothing when it is empty or null.
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

    /// The value as JSON for a free field; nothing when it is empty or null.
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
    // Files name few zones, in runs.
    last_zone: Option<Zone>,
}

impl PayloadWriter {
    pub(super) fn new(options: ReplayOptions) -> Self {
        Self { last_zone: options.zone.clone(), options }
    }

    pub(super) fn options(&self) -> &ReplayOptions {
        &self.options
    }

    /// Writes one line.
    pub(super) fn write<'a>(
        &mut self,
        line: u64,
        columns: &Columns,
        cells: impl Iterator<Item = Cell<'a>>,
    ) -> Result<ReplayPrice, ReplayError> {
        self.object(columns, cells)
            .map(|(time, price)| ReplayPrice { line, time, price })
            .map_err(|problem| ReplayError::Line { line, problem })
    }

    fn object<'a>(
        &mut self,
        columns: &Columns,
        cells: impl Iterator<Item = Cell<'a>>,
    ) -> Result<(Option<chrono::DateTime<chrono::Utc>>, FeedPrice), String> {
        let mut object = Object::default();
        let (mut has_zone, mut time) = (self.options.zone.is_some(), None);
        let (mut has_price, mut has_bid, mut has_ask) = (false, false, false);
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
                Role::Key => {
                    object.push("key", &quoted(&cell.text().ok_or("the key is empty")?));
                }
                Role::Price { also } => {
                    // It may be a quote.
                    let Some(text) = cell.text() else { continue };
                    let number = number(&text).ok_or_else(|| not_a_number("price", &text))?;
                    object.push("price", &number);
                    if let Some(field) = also {
                        object.push(field, &number);
                    }
                    has_price = true;
                    has_bid |= *also == Some("bid");
                    has_ask |= *also == Some("ask");
                }
                Role::Time => {
                    if let Some(text) = cell.text() {
                        let parsed = parse_time(&text).ok_or_else(|| not_a_time(&text))?;
                        time = Some(parsed);
                        let timestamp = parsed.to_rfc3339_opts(SecondsFormat::Millis, true);
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
            return Err("the price is empty, and there are not both a bid and an ask".to_owned());
        }
        let zone = self.last_zone.clone().filter(|_| has_zone).ok_or("the zone is empty")?;
        Ok((time, FeedPrice { zone, json: object.finish() }))
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

/// More digits than this a browser would not keep: such a value is a name, not a number.
const WHOLE_DIGITS_MAX: usize = 15;

/// Whether text is a number in JSON's own form that survives being read as one.
fn is_number(text: &str) -> bool {
    let starts_like_one = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let is_whole = text.bytes().all(|b| b == b'-' || b.is_ascii_digit());
    starts_like_one
        && !(is_whole && text.trim_start_matches('-').len() > WHOLE_DIGITS_MAX)
        && serde_json::from_str::<serde_json::Number>(text).is_ok()
}

/// A number in JSON's form: as written where it has that form, else (`.5`, `+1`) rewritten.
fn number(text: &str) -> Option<Cow<'_, str>> {
    if serde_json::from_str::<serde_json::Number>(text).is_ok() {
        return Some(Cow::Borrowed(text));
    }
    let number: f64 = text.parse().ok()?;
    number
        .is_finite()
        .then(|| serde_json::Number::from_f64(number).map(|number| number.to_string().into()))?
}

fn not_a_time(text: &str) -> String {
    format!(
        "{} is not a time that can be read: expected {TIME_EXPECTED}; or, in UTC, 2021-01-08 00:00:00 or 2021-01-08",
        shown(text)
    )
}

fn not_a_number(field: &str, text: &str) -> String {
    format!("{field} {} is not a number", shown(text))
}

/// A value of a file may be long or hold control characters; an error should carry neither.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}")
}
