//! Tables for people.

use std::io;

use serde_json::value::RawValue;

use super::print;
use crate::protocol::OrderedFields;

/// Rows under a header, in columns as wide as necessary. Empty columns are left out; numbers are
/// aligned at their decimal points.
#[derive(Debug)]
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&'static str]) -> Self {
        Self { header: header.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, of as many cells as the header has.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Writes the table to stdout, or `nothing` to stderr if it has no rows.
    pub(super) fn print(&self, nothing: &str) -> io::Result<()> {
        if self.rows.is_empty() {
            print::say(nothing);
            return Ok(());
        }
        self.lines().iter().try_for_each(|line| print::line(line))
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new(); self.rows.len() + 1];
        for (at, name) in self.header.iter().enumerate() {
            let cell = |row: &'_ Vec<String>| row.get(at).cloned().unwrap_or_default();
            let cells: Vec<String> = self.rows.iter().map(cell).collect();
            if cells.iter().all(String::is_empty) {
                continue;
            }
            let is_number = cells.iter().all(|cell| cell.is_empty() || looks_like_number(cell));
            let mut widths = NumberWidths::default();
            cells.iter().for_each(|cell| widths.fit(cell));
            let column: Vec<String> = if is_number {
                let head = format!("{name:>width$}", width = widths.whole + widths.rest);
                let cells = cells.iter().map(|cell| widths.align(cell));
                std::iter::once(head).chain(cells).collect()
            } else {
                std::iter::once((*name).to_owned()).chain(cells).collect()
            };
            let width = column.iter().map(|cell| cell.chars().count()).max().unwrap_or_default();
            for (line, cell) in lines.iter_mut().zip(&column) {
                let gap = if line.is_empty() { "" } else { "  " };
                *line +=
                    &if is_number { format!("{gap}{cell:>width$}") } else { format!("{gap}{cell:width$}") };
            }
        }
        lines.iter().map(|line| line.trim_end().to_owned()).collect()
    }
}

fn looks_like_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && text.parse::<f64>().is_ok()
}

/// How many characters the numbers of a column have before their decimal point, and from the point on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NumberWidths {
    pub(super) whole: usize,
    pub(super) rest: usize,
}

impl NumberWidths {
    /// Widens the column for a number.
    pub(super) fn fit(&mut self, number: &str) {
        let (whole, rest) = split(number);
        self.whole = self.whole.max(whole.chars().count());
        self.rest = self.rest.max(rest.chars().count());
    }

    /// The number, padded so that its decimal point is aligned.
    pub(super) fn align(&self, number: &str) -> String {
        let (whole, rest) = split(number);
        format!("{whole:>before$}{rest:after$}", before = self.whole, after = self.rest)
    }
}

fn split(number: &str) -> (&str, &str) {
    number.split_at(number.find('.').unwrap_or(number.len()))
}

/// The fields of an object in readable form: text without quotes, numbers with the digits that they
/// were written with.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, String)>);

/// Fields of an entry that identify it in its channel.
const ENVELOPE: [&str; 4] = ["type", "channel", "offset", "id"];

/// Fields that may hold the key a second time.
const KEY_FIELDS: [&str; 4] = ["node", "hub", "symbol", "location"];

impl Fields {
    /// Reads an object; `None` for any other JSON.
    pub(super) fn read(text: &str) -> Option<Self> {
        let OrderedFields(fields) = serde_json::from_str(text).ok()?;
        Some(Self(fields.into_iter().map(|(name, value)| (name, plain(value))).collect()))
    }

    /// A field's text; empty if there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value)
    }

    /// A field's text as a cell.
    pub(super) fn cell(&self, name: &str) -> String {
        self.get(name).to_owned()
    }

    /// The entry's time, to the second.
    pub(super) fn time(&self) -> String {
        print::seconds(self.get("timestamp"))
    }

    /// What an entry that is not a price does to its key.
    pub(super) fn happening(&self) -> String {
        match self.get("type") {
            "price_update" => String::new(),
            "key_removed" => "removed".to_owned(),
            "zone_removed" => "all removed".to_owned(),
            other => other.to_owned(),
        }
    }

    /// The fields of an event's data; `None` for any other entry.
    pub(super) fn event(&self) -> Option<Self> {
        let is_event = self.get("channel").starts_with("event:");
        is_event.then(|| Self::read(self.get("data"))).flatten()
    }

    /// All other fields as `name=value`: without the envelope, the time, the key and the fields in `shown`.
    pub(super) fn rest(&self, shown: &[&str]) -> String {
        let key = self.get("key");
        let is_rest = |(name, value): &&(String, String)| {
            let name = name.as_str();
            let repeats_key = KEY_FIELDS.contains(&name) && value == key;
            !(ENVELOPE.contains(&name)
                || matches!(name, "timestamp" | "key")
                || shown.contains(&name)
                || repeats_key)
        };
        let rest = self.0.iter().filter(is_rest).map(|(name, value)| format!("{name}={value}"));
        rest.collect::<Vec<_>>().join(" ")
    }
}

/// A value without quotes and without control characters.
fn plain(value: &RawValue) -> String {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => print::harmless(&text),
        Err(_) => print::harmless(value.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let mut table = Table::new(&["KEY", "PRICE", "BID", "NOTE"]);
        for (key, price, note) in [("A", "41.20", ""), ("WESTERN HUB", "-3.5", "x"), ("C", "7", "")] {
            table.row([key, price, "", note].map(str::to_owned));
        }
        let expected =
            ["KEY          PRICE  NOTE", "A            41.20", "WESTERN HUB  -3.5   x", "C             7"];
        assert_eq!(table.lines(), expected);
    }

    #[test]
    fn a_header_may_be_wider_than_its_numbers() {
        let mut table = Table::new(&["CONGESTION", "N"]);
        table.row(["1.5", "2"].map(str::to_owned));
        assert_eq!(table.lines(), ["CONGESTION  N", "       1.5  2"]);
    }

    #[test]
    fn fields_keep_their_digits_and_lose_what_a_terminal_would_obey() {
        let text = r#"{"type":"price_update","channel":"zone:a","offset":7,"id":"x-7","timestamp":"2021-12-01T05:00:00.000Z","key":"HUB","location":"HUB","price":41.20,"n":{"a":[1.50]},"note":"a\u001b[2J"}"#;
        let fields = Fields::read(text).unwrap();
        assert_eq!((fields.get("price"), fields.time().as_str()), ("41.20", "2021-12-01 05:00:00"));
        assert_eq!(fields.rest(&["price"]), "n={\"a\":[1.50]} note=a\u{fffd}[2J");
        assert!(Fields::read("[]").is_none() && fields.event().is_none());
        let event =
            r#"{"type":"trade","channel":"event:trade","offset":7,"data":{"price":"64250.10","size":0.50}}"#;
        let data = Fields::read(event).unwrap().event().unwrap();
        assert_eq!((data.get("price"), data.rest(&["price"]).as_str()), ("64250.10", "size=0.50"));
    }
}
