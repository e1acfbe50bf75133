//! A record, a JSON object that contains its own key; and changes of records.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::clock::Version;
use super::kind::RegistryKind;
use crate::model::{DraftEntry, EntryKind, Marks};
use crate::protocol::{InvalidPayload, OrderedFields, PayloadWriter, ProblemCode, check_json};
use crate::support::json::json_fault;

/// The longest key, in bytes.
const KEY_LEN_MAX: usize = 128;

/// What is expected of a record's key, for error messages.
const ID_EXPECTED: &str = "a text of 1 to 128 bytes without control characters, or a whole number";

/// A record as it is held, and the parts of it that concern the gateway.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// Its `userId` or `orderId` as text.
    pub key: Arc<str>,
    /// The version of the write that produced it.
    pub version: Version,
    /// The record, a compact JSON object.
    pub json: Bytes,
    /// The node of the connection that it is bound to: when that closes, the provider goes offline.
    pub(super) bound_to: Option<u64>,
}

impl Record {
    /// The record as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.json).unwrap_or("{}")
    }

    /// Its fields, in order.
    pub(super) fn fields(&self) -> Vec<(String, &RawValue)> {
        fields_of(self.text())
    }
}

/// Why a text is not a record.
pub type InvalidRecord = InvalidPayload;

pub(super) fn invalid(code: ProblemCode, detail: impl Into<String>) -> InvalidRecord {
    InvalidRecord { code, detail: detail.into() }
}

/// A record that was parsed, and has no version yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) key: Arc<str>,
    pub(super) json: Bytes,
}

/// A write to a key: a record, or its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) key: Arc<str>,
    pub(super) version: Version,
    /// `None` removes the record.
    pub(super) record: Option<Arc<Record>>,
}

impl Change {
    /// The change as an entry of the log.
    pub(super) fn draft(&self) -> DraftEntry {
        let mut data = PayloadWriter::default();
        data.push_text("key", &self.key);
        data.push_text("version", &self.version.to_string());
        if let Some(record) = &self.record {
            if let Some(node) = record.bound_to {
                data.push_text("boundTo", &format!("{node:016x}"));
            }
            data.push("record", record.text());
        }
        let ms = i64::try_from(self.version.ms).unwrap_or(i64::MAX);
        DraftEntry {
            time: DateTime::from_timestamp_millis(ms).unwrap_or_default(),
            kind: if self.record.is_some() { EntryKind::RecordUpdate } else { EntryKind::KeyRemoved },
            key: Some(Arc::clone(&self.key)),
            data: data.finish(),
            marks: Marks::default(),
        }
    }

    /// Reads an entry of the log, with or without its envelope; `None` for anything else.
    pub(super) fn read(kind: &str, data: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stored<'a> {
            key: String,
            version: String,
            bound_to: Option<String>,
            #[serde(borrow)]
            record: Option<&'a RawValue>,
        }
        let stored: Stored<'_> = serde_json::from_slice(data).ok()?;
        let (key, version) = (Arc::<str>::from(stored.key), stored.version.parse::<Version>().ok()?);
        let record = match (kind, stored.record) {
            ("record_update", Some(json)) if !version.is_removal() => Some(Arc::new(Record {
                key: Arc::clone(&key),
                version,
                json: Bytes::copy_from_slice(json.get().as_bytes()),
                bound_to: stored.bound_to.and_then(|node| u64::from_str_radix(&node, 16).ok()),
            })),
            ("key_removed", None) if version.is_removal() => None,
            _ => return None,
        };
        Some(Self { key, version, record })
    }
}

fn fields_of(text: &str) -> Vec<(String, &RawValue)> {
    serde_json::from_str(text).map_or_else(|_| Vec::new(), |OrderedFields(fields)| fields)
}

/// Checks a key from an address, a query, or a record: `123` and `"123"` are the same key.
pub(super) fn check_key(key: &str) -> Result<(), InvalidRecord> {
    if (1..=KEY_LEN_MAX).contains(&key.len()) && !key.chars().any(char::is_control) {
        return Ok(());
    }
    Err(invalid(ProblemCode::InvalidName, format!("the key of a record must be {ID_EXPECTED}")))
}

/// The text by which a value is found: a string's contents; a number or literal as written.
pub(super) fn plain(value: &RawValue) -> Option<String> {
    let text = value.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text).ok(),
        b'{' | b'[' => None,
        _ => Some(text.to_owned()),
    }
}

/// The texts of a value; of an array, those of its elements.
pub(super) fn plains(value: &RawValue) -> Vec<String> {
    match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        Ok(elements) => elements.into_iter().filter_map(plain).collect(),
        Err(_) => plain(value).into_iter().collect(),
    }
}

fn key_of(value: &RawValue) -> Option<String> {
    let text = value.get();
    let is_whole = |text: &str| text.parse::<i128>().is_ok_and(|number| number.to_string() == text);
    plain(value).filter(|_| text.starts_with('"') || is_whole(text)).filter(|key| check_key(key).is_ok())
}

/// Reads an object, and refuses JSON that some reader could not read.
fn read_object(text: &str) -> Result<Vec<(String, &RawValue)>, InvalidRecord> {
    check_json(text).map_err(|unreadable| invalid(ProblemCode::InvalidJson, unreadable.to_string()))?;
    let read = serde_json::from_str(text);
    let OrderedFields(fields) = read.map_err(|error| {
        if error.is_data() {
            return invalid(
                ProblemCode::InvalidRecord,
                format!("expected one JSON object: {}", json_fault(text, &error)),
            );
        }
        invalid(ProblemCode::InvalidJson, format!("not JSON: {}", json_fault(text, &error)))
    })?;
    let mut names = HashSet::with_capacity(fields.len());
    match fields.iter().find(|(name, _)| !names.insert(name.as_str())) {
        None => Ok(fields),
        Some((name, _)) => Err(invalid(
            ProblemCode::DuplicateField,
            format!(
                "a field occurs twice: {}",
                serde_json::Value::from(name.chars().take(40).collect::<String>())
            ),
        )),
    }
}

impl Body {
    /// Reads a record. Its key may be missing if the address contains it.
    pub(super) fn read(
        kind: RegistryKind,
        text: &str,
        named: Option<&str>,
        bytes_max: usize,
    ) -> Result<Self, InvalidRecord> {
        Self::of_fields(kind, &read_object(text)?, named, bytes_max)
    }

    fn of_fields(
        kind: RegistryKind,
        fields: &[(String, &RawValue)],
        named: Option<&str>,
        bytes_max: usize,
    ) -> Result<Self, InvalidRecord> {
        let id = kind.id_field();
        let own = match fields.iter().find(|(name, _)| name == id) {
            Some((_, value)) => Some(key_of(value).ok_or_else(|| {
                invalid(ProblemCode::InvalidRecord, format!("`{id}` must be {ID_EXPECTED}"))
            })?),
            None => None,
        };
        let mut json = PayloadWriter::default();
        let key = match (own, named) {
            (Some(own), Some(named)) if own != named => {
                let detail = format!("`{id}` must be that of the address, or be left out");
                return Err(invalid(ProblemCode::InvalidRecord, detail));
            }
            (Some(own), _) => own,
            (None, Some(named)) => {
                check_key(named)?;
                json.push_text(id, named);
                named.to_owned()
            }
            (None, None) => {
                let detail = format!("`{id}` is missing: {ID_EXPECTED}");
                return Err(invalid(ProblemCode::InvalidRecord, detail));
            }
        };
        fields.iter().for_each(|(name, value)| json.push(name, value.get()));
        let (key, json) = (key.into(), json.finish());
        if json.len() > bytes_max {
            let bytes = json.len();
            let detail =
                format!("the record has {bytes} bytes, and may have {bytes_max} (registry.record_bytes_max)");
            return Err(invalid(ProblemCode::RecordTooLarge, detail));
        }
        Ok(Self { key, json })
    }

    /// The same body with another value of a field, which must not be the key's field.
    pub(super) fn with(self, field: &str, json: &str) -> Self {
        let text = std::str::from_utf8(&self.json).unwrap_or("{}");
        let mut out = PayloadWriter::default();
        let fields = fields_of(text);
        for (name, value) in fields.iter().filter(|(name, _)| name != field) {
            out.push(name, value.get());
        }
        out.push(field, json);
        Self { json: out.finish(), key: self.key }
    }

    /// A record with a merge patch (RFC 7396) applied.
    pub(super) fn patched(
        kind: RegistryKind,
        record: &Record,
        patch: &str,
        bytes_max: usize,
    ) -> Result<Self, InvalidRecord> {
        let patch = read_object(patch)?;
        let merged = merge(&record.fields(), &patch);
        let fields: Vec<(String, &RawValue)> =
            merged.iter().map(|(name, value)| (name.clone(), &**value)).collect();
        Self::of_fields(kind, &fields, Some(&record.key), bytes_max)
    }

    /// Whether a JSON object has a field, not counting nested ones.
    pub(super) fn has(text: &str, field: &str) -> bool {
        fields_of(text).iter().any(|(name, _)| name == field)
    }
}

/// A time in the form that fields have.
pub(super) fn time_json(time: DateTime<Utc>) -> String {
    format!("\"{}\"", time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Applies a patch to fields: null removes, objects are merged, everything else replaces. Fields keep their
/// order, and values their digits; of a name that occurs twice, the last one counts.
fn merge(target: &[(String, &RawValue)], patch: &[(String, &RawValue)]) -> Vec<(String, Box<RawValue>)> {
    let mut merged: Vec<(&str, Option<Box<RawValue>>)> = Vec::with_capacity(target.len() + patch.len());
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(target.len() + patch.len());
    let mut set = |name, value: &dyn Fn(Option<&RawValue>) -> Option<Box<RawValue>>| match places.get(name) {
        Some(place) => merged[*place].1 = value(merged[*place].1.as_deref()),
        None => {
            places.insert(name, merged.len());
            merged.push((name, value(None)));
        }
    };
    for (name, value) in target {
        set(name, &|_| Some((*value).to_owned()));
    }
    let last: HashMap<&str, usize> =
        patch.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
    for (_, (name, value)) in
        patch.iter().enumerate().filter(|(place, (name, _))| last[name.as_str()] == *place)
    {
        set(name, &|held| match serde_json::from_str(value.get()) {
            _ if value.get() == "null" => None,
            Ok(OrderedFields(inner)) => {
                Some(object(&merge(&fields_of(held.map_or("{}", RawValue::get)), &inner)))
            }
            Err(_) => Some((*value).to_owned()),
        });
    }
    merged.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn object(fields: &[(String, Box<RawValue>)]) -> Box<RawValue> {
    let mut out = PayloadWriter::default();
    fields.iter().for_each(|(name, value)| out.push(name, value.get()));
    let text = String::from_utf8_lossy(&out.finish()).into_owned();
    RawValue::from_string(text).expect("what is written of JSON values is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Body, InvalidRecord> {
        Body::read(RegistryKind::Providers, text, None, 100)
    }

    fn record(text: &str) -> Record {
        let Body { key, json } = read(text).unwrap();
        let version = "000000000002-0000000000000001".parse().unwrap();
        Record { key, version, json, bound_to: Some(7) }
    }

    #[test]
    fn a_record_names_itself_by_a_text_or_a_number() {
        for (text, key) in [
            (r#"{"userId":123}"#, "123"),
            (r#"{"userId":"123"}"#, "123"),
            (r#"{"userId":-5,"n":1.10}"#, "-5"),
            (r#"{ "name" : "a b", "userId" : "ü" }"#, "ü"),
        ] {
            assert_eq!(&*read(text).unwrap().key, key);
        }
        assert_eq!(
            &read(r#"{ "userId" : 1, "n" : [ 1.10, {} ] }"#).unwrap().json[..],
            br#"{"userId":1,"n":[1.10,{}]}"#
        );
        for (text, code) in [
            ("", "invalid_json"),
            ("[]", "invalid_record"),
            ("{}", "invalid_record"),
            (r#"{"userId":null}"#, "invalid_record"),
            (r#"{"userId":1.5}"#, "invalid_record"),
            (r#"{"userId":1e3}"#, "invalid_record"),
            (r#"{"userId":""}"#, "invalid_record"),
            (r#"{"userId":"a\nb"}"#, "invalid_record"),
            (r#"{"userId":{}}"#, "invalid_record"),
            (r#"{"userId":1,"userId":2}"#, "duplicate_field"),
            (r#"{"userId":1,"x":"\ud800"}"#, "invalid_json"),
        ] {
            assert_eq!(read(text).unwrap_err().code.as_str(), code, "{text}");
        }
        let long = format!(r#"{{"userId":1,"x":"{}"}}"#, "x".repeat(100));
        assert_eq!(read(&long).unwrap_err().code.as_str(), "record_too_large");
        let named = |text, named| Body::read(RegistryKind::ActiveOrders, text, Some(named), 100);
        assert_eq!(&named("{}", "7").unwrap().json[..], br#"{"orderId":"7"}"#);
        assert!(named(r#"{"orderId":7}"#, "7").is_ok() && named(r#"{"orderId":8}"#, "7").is_err());
    }

    /// The examples of RFC 7396, appendix A, that are of objects.
    #[test]
    fn a_patch_is_merged_as_the_standard_says() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1.10}"#, r#"{"e":null,"a":1.10}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            // Of a name that occurs twice, the last one counts, as with other parsers.
            (r#"{"a":{"b":1,"c":2,"b":3}}"#, r#"{"a":{"c":null}}"#, r#"{"a":{"b":3}}"#),
            (r#"{"a":{"b":1,"b":2}}"#, r#"{"a":{"b":null}}"#, r#"{"a":{}}"#),
            (r#"{"a":{"z":0}}"#, r#"{"a":{"b":{"x":1},"b":{"y":2}}}"#, r#"{"a":{"z":0,"b":{"y":2}}}"#),
        ] {
            let merged = object(&merge(&fields_of(target), &fields_of(patch)));
            assert_eq!(merged.get(), result, "{target} {patch}");
        }
        let provider = record(r#"{"userId":1,"status":"online"}"#);
        let patch = |patch| Body::patched(RegistryKind::Providers, &provider, patch, 100);
        assert_eq!(&patch(r#"{"status":"away"}"#).unwrap().json[..], br#"{"userId":1,"status":"away"}"#);
        assert_eq!(patch(r#"{"userId":2}"#).unwrap_err().code.as_str(), "invalid_record");
        assert_eq!(patch("[]").unwrap_err().code.as_str(), "invalid_record");
    }

    #[test]
    fn a_change_survives_the_log() {
        let record = Arc::new(record(r#"{"userId":1,"n":1.10}"#));
        let (key, version) = (Arc::clone(&record.key), record.version);
        let written = Change { key: Arc::clone(&key), version, record: Some(record) };
        let removed = Change { key, version: version.removal(), record: None };
        for change in [written, removed] {
            let draft = change.draft();
            assert_eq!(Change::read(draft.kind.as_str(), &draft.data), Some(change.clone()));
            assert_eq!(Change::read("price_update", &draft.data), None);
        }
        assert_eq!(Change::read("record_update", b"{}"), None);
    }
}
