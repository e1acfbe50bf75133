//! Lists of records: the filter, the order, and the page.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::record::{Record, plain, plains};
use super::table::Table;

/// What a list asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Fields and the text of their value; an array matches if one of its elements does.
    pub filter: Vec<(String, String)>,
    /// The field to sort by, and whether in descending order; by key if `None`.
    pub sort: Option<(String, bool)>,
    /// Start after this cursor, a previous [`Listing::next`].
    pub after: Option<String>,
    /// How many records at most.
    pub limit: usize,
}

/// One page of a list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The records.
    pub records: Vec<Arc<Record>>,
    /// How many records match the filter.
    pub total: usize,
    /// The cursor of the next page, if there is one.
    pub next: Option<String>,
}

/// The sort key of a record.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    Number(f64),
    Text(String),
    /// The record lacks the field, or its value is not comparable. Sorts after all others.
    None,
}

impl Place {
    fn of(record: &Record, field: &str) -> Self {
        let fields = record.fields();
        let value = fields.iter().find(|(name, _)| name == field).map(|(_, value)| *value);
        value.map_or(Self::None, Self::of_value)
    }

    fn of_value(value: &RawValue) -> Self {
        if let Ok(number) = serde_json::from_str(value.get()) {
            return Self::Number(number);
        }
        match plain(value) {
            Some(text) if value.get() != "null" => Self::Text(text),
            _ => Self::None,
        }
    }

    /// Numbers sort before texts, and records without a value last in both directions.
    fn compare(&self, other: &Self, is_descending: bool) -> Ordering {
        let turned = |ordering: Ordering| if is_descending { ordering.reverse() } else { ordering };
        match (self, other) {
            (Self::None, Self::None) => Ordering::Equal,
            (Self::None, _) => Ordering::Greater,
            (_, Self::None) => Ordering::Less,
            (Self::Number(one), Self::Number(other)) => turned(one.total_cmp(other)),
            (Self::Text(one), Self::Text(other)) => turned(one.cmp(other)),
            (Self::Number(_), Self::Text(_)) => turned(Ordering::Less),
            (Self::Text(_), Self::Number(_)) => turned(Ordering::Greater),
        }
    }

    /// The cursor: the sort key, with the record's key.
    fn cursor(&self, key: &str) -> String {
        let place = match self {
            Self::Number(number) => serde_json::json!([number, key]),
            Self::Text(text) => serde_json::json!([text, key]),
            Self::None => serde_json::json!([null, key]),
        };
        place.to_string()
    }

    fn of_cursor(cursor: &str) -> Option<(Self, String)> {
        let (place, key): (serde_json::Value, String) = serde_json::from_str(cursor).ok()?;
        let place = match place {
            serde_json::Value::Null => Self::None,
            serde_json::Value::String(text) => Self::Text(text),
            serde_json::Value::Number(number) => Self::Number(number.as_f64()?),
            _ => return None,
        };
        Some((place, key))
    }
}

fn fits(record: &Record, filter: &[(String, String)]) -> bool {
    if filter.is_empty() {
        return true;
    }
    let fields = record.fields();
    filter.iter().all(|(field, wanted)| {
        let value = fields.iter().find(|(name, _)| name == field);
        value.is_some_and(|(_, value)| plains(value).contains(wanted))
    })
}

impl Query {
    /// Whether `after` is a cursor that a list in this order may have returned.
    pub(super) fn is_readable(&self) -> bool {
        self.sort.is_none() || self.after.as_deref().is_none_or(|after| Place::of_cursor(after).is_some())
    }

    /// The page that the query asks for.
    pub(super) fn of(&self, table: &Table) -> Listing {
        // Records that an index finds need no search.
        let found = self.filter.iter().find_map(|(field, value)| table.find(field, value));
        let all: Vec<&Arc<Record>> = match found {
            Some(found) => found.into_iter().filter(|record| fits(record, &self.filter)).collect(),
            None => table.records().filter(|record| fits(record, &self.filter)).collect(),
        };
        let total = all.len();
        let Some((field, is_descending)) = &self.sort else {
            let after =
                |record: &&Arc<Record>| self.after.as_deref().is_none_or(|after| &*record.key > after);
            let mut rest = all.into_iter().filter(after).cloned();
            let records: Vec<_> = rest.by_ref().take(self.limit).collect();
            let next = rest.next().and(records.last()).map(|last| last.key.to_string());
            return Listing { records, total, next };
        };
        let mut placed: Vec<(Place, &Arc<Record>)> =
            all.into_iter().map(|record| (Place::of(record, field), record)).collect();
        let compare = |(one, of): &(Place, &Arc<Record>), other: &Place, key: &str| {
            one.compare(other, *is_descending).then_with(|| (*of.key).cmp(key))
        };
        placed.sort_by(|one, (other, record)| compare(one, other, &record.key));
        let from = match self.after.as_deref().and_then(Place::of_cursor) {
            Some((place, key)) => placed.partition_point(|one| compare(one, &place, &key).is_le()),
            None => 0,
        };
        let part = &placed[from..placed.len().min(from.saturating_add(self.limit))];
        let has_more = from + part.len() < placed.len();
        let next = part.last().filter(|_| has_more).map(|(place, record)| place.cursor(&record.key));
        Listing { records: part.iter().map(|(_, record)| Arc::clone(record)).collect(), total, next }
    }
}
