//! Parses a price as publishers post it: one JSON object.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::payload::{PayloadWriter, check_ahead, check_names, check_readable, fault, read_time, shown};
use super::{InvalidPayload, OrderedFields, ProblemCode, RESERVED_FIELDS};
use crate::model::{DraftEntry, EntryKind, Marks};
use crate::support::json::json_fault;

/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = 128;

/// Fields that can be a price's key; the first one present is it.
const KEY_FIELDS: [&str; 5] = ["key", "node", "hub", "symbol", "location"];

/// Fields that must be numbers if present.
const NUMBER_FIELDS: [&str; 7] = ["price", "energy", "congestion", "loss", "quantity", "bid", "ask"];

/// Parses a price. `now` is its time if it has none of its own; a time more than `ahead_max` after it is
/// refused.
///
/// Required: `price`, a finite number, or else both `bid` and `ask`, which may be crossed; and a key: `key`,
/// `node`, `hub`, `symbol` or `location`, a text of 1 to 128 bytes. Optional: `energy`, `congestion`, `loss`,
/// `quantity`, `bid`, `ask` (finite numbers or null) and `timestamp` (RFC 3339, or a number since 1970). All
/// other fields are kept unchanged, and numbers keep their digits. The payload of the result has `key` first
/// and no `timestamp`: that is the entry's time.
///
/// # Errors
/// See [`InvalidPayload`].
pub fn parse_price(
    text: &str,
    now: DateTime<Utc>,
    ahead_max: Duration,
) -> Result<DraftEntry, InvalidPayload> {
    let OrderedFields(fields) = serde_json::from_str(text).map_err(|error| not_json(text, &error))?;
    check_readable(text)?;
    let get = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value);
    check_names(&fields, &RESERVED_FIELDS)?;
    let key = read_key(&fields)?;
    let present = |name: &str| get(name).filter(|value| value.get() != "null");
    let is_quote = present("price").is_none() && present("bid").is_some() && present("ask").is_some();
    if !is_quote && present("price").is_none() {
        let detail = "`price` is missing: a finite number; or else both `bid` and `ask`";
        return Err(fault(ProblemCode::InvalidPrice, detail));
    }
    for name in NUMBER_FIELDS {
        present(name).map_or(Ok(()), |value| check_number(name, value))?;
    }
    let time = present("timestamp").map_or(Ok(now), read_time)?;
    check_ahead(time, now, ahead_max)?;
    Ok(DraftEntry {
        time,
        kind: EntryKind::PriceUpdate,
        data: payload(&key, &fields),
        key: Some(key),
        marks: Marks::default(),
    })
}

fn not_json(text: &str, error: &serde_json::Error) -> InvalidPayload {
    if error.is_data() {
        return fault(
            ProblemCode::InvalidPrice,
            r#"expected one object such as {"key":"WESTERN HUB","price":31.5}"#,
        );
    }
    let hint = ["NaN", "Infinity"].into_iter().find(|word| text.contains(word));
    let hint = hint.map_or(String::new(), |word| format!("; {word} is not JSON, and a price must be finite"));
    fault(ProblemCode::InvalidJson, format!("not JSON: {}{hint}", json_fault(text, error)))
}

fn read_key(fields: &[(String, &RawValue)]) -> Result<Arc<str>, InvalidPayload> {
    let found = KEY_FIELDS.iter().find_map(|name| fields.iter().find(|(field, _)| field == name));
    let (name, value) = found.ok_or_else(|| {
        fault(ProblemCode::InvalidKey, "a key is missing: one of `key`, `node`, `hub`, `symbol`, `location`")
    })?;
    let key: Option<String> = serde_json::from_str(value.get()).ok();
    let key = key.filter(|key| (1..=KEY_LEN_MAX).contains(&key.len()) && !key.chars().any(char::is_control));
    key.map(Into::into).ok_or_else(|| {
        let detail =
            format!("`{name}` must be a text of 1 to {KEY_LEN_MAX} bytes without control characters");
        fault(ProblemCode::InvalidKey, detail)
    })
}

fn check_number(name: &str, value: &RawValue) -> Result<(), InvalidPayload> {
    let number: Option<f64> = serde_json::from_str(value.get()).ok();
    match number {
        Some(number) if number.is_finite() => Ok(()),
        _ => Err(fault(
            ProblemCode::InvalidPrice,
            format!("`{name}` must be a finite number, not {}", shown(value.get())),
        )),
    }
}

fn payload(key: &str, fields: &[(String, &RawValue)]) -> Bytes {
    // A `price` of null is left out: clients find either a number or no field.
    let is_no_price = |name: &str, value: &RawValue| name == "price" && value.get() == "null";
    let rest = fields.iter().filter(|(name, _)| name != "key" && name != "timestamp");
    let rest = rest.filter(|(name, value)| !is_no_price(name, value));
    let mut payload = PayloadWriter::default();
    payload.push_text("key", key);
    rest.for_each(|(name, value)| payload.push(name, value.get()));
    payload.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_123).unwrap()
    }

    fn parse(text: &str) -> Result<DraftEntry, InvalidPayload> {
        parse_price(text, now(), Duration::from_secs(3_600))
    }

    fn check(text: &str, expected: &str) {
        let draft = parse(text).unwrap();
        assert_eq!(std::str::from_utf8(&draft.data).unwrap(), expected);
        assert!(serde_json::from_slice::<serde_json::Value>(&draft.data).is_ok());
    }

    #[test]
    fn a_price_keeps_its_digits_and_its_free_fields() {
        check(r#"{"key":"A","price":39432.480}"#, r#"{"key":"A","price":39432.480}"#);
        check(
            r#" { "symbol" : "BTC/USDT", "price" : 1e3 , "n": { "a b" : [ 1 , "x\" y" ] }, "bid":null } "#,
            r#"{"key":"BTC/USDT","symbol":"BTC/USDT","price":1e3,"n":{"a b":[1,"x\" y"]},"bid":null}"#,
        );
    }

    #[test]
    fn a_quote_is_a_price_too() {
        check(r#"{"key":"A","bid":19.50,"ask":19.7}"#, r#"{"key":"A","bid":19.50,"ask":19.7}"#);
        // Crossed and locked markets are valid.
        check(r#"{"key":"A","bid":2,"ask":-1}"#, r#"{"key":"A","bid":2,"ask":-1}"#);
        check(r#"{"key":"A","price":null,"bid":1,"ask":1}"#, r#"{"key":"A","bid":1,"ask":1}"#);
        check(r#"{"key":"A","price":1,"bid":null}"#, r#"{"key":"A","price":1,"bid":null}"#);
        for text in [
            r#"{"key":"A","bid":1}"#,
            r#"{"key":"A","bid":1,"ask":null}"#,
            r#"{"key":"A","price":null,"ask":1}"#,
            r#"{"key":"A","bid":1,"ask":"2"}"#,
            r#"{"key":"A","price":"x","bid":1,"ask":2}"#,
        ] {
            assert_eq!(parse(text).map_err(|error| error.code.as_str()), Err("invalid_price"), "{text}");
        }
        let error = parse(r#"{"key":"A","bid":1}"#).unwrap_err();
        assert!(error.detail.contains("both `bid` and `ask`"), "{}", error.detail);
    }

    #[test]
    fn the_time_is_the_entrys_own() {
        for (text, ms) in [
            (r#"{"key":"A","price":1,"timestamp":"2021-01-08T01:00:00.278+01:00"}"#, 1_610_064_000_278),
            (r#"{"key":"A","price":1,"timestamp":1610064000278}"#, 1_610_064_000_278),
            (r#"{"key":"A","price":1,"timestamp":1610064000.278}"#, 1_610_064_000_278),
            (r#"{"key":"A","price":1,"timestamp":1610064000278000}"#, 1_610_064_000_278),
            (r#"{"key":"A","price":1,"timestamp":1700003600}"#, 1_700_003_600_000),
            (r#"{"key":"A","price":1,"timestamp":null}"#, 1_700_000_000_123),
            (r#"{"key":"A","price":1}"#, 1_700_000_000_123),
        ] {
            let draft = parse(text).unwrap();
            assert_eq!(draft.time.timestamp_millis(), ms, "{text}");
            assert_eq!(&draft.data[..], br#"{"key":"A","price":1}"#);
        }
    }

    #[test]
    fn each_fault_has_its_code_and_says_what_would_be_right() {
        for (text, code) in [
            ("", "invalid_json"),
            ("{", "invalid_json"),
            (r#"{"key":"A","price":NaN}"#, "invalid_json"),
            (r#"{"key":"A","price":-Infinity}"#, "invalid_json"),
            (r#"{"key":"A","price":1} x"#, "invalid_json"),
            ("[]", "invalid_price"),
            ("5", "invalid_price"),
            (r#"{"key":"A"}"#, "invalid_price"),
            (r#"{"key":"A","price":"5"}"#, "invalid_price"),
            (r#"{"key":"A","price":null}"#, "invalid_price"),
            (r#"{"key":"A","price":1e999}"#, "invalid_json"),
            (r#"{"key":"\ud800","price":1}"#, "invalid_json"),
            (r#"{"key":"A","price":1,"timestamp":"\udc00"}"#, "invalid_json"),
            (r#"{"key":"A","price":1,"energy":"x"}"#, "invalid_price"),
            (r#"{"price":1}"#, "invalid_key"),
            (r#"{"key":"","price":1}"#, "invalid_key"),
            (r#"{"key":5,"price":1}"#, "invalid_key"),
            (r#"{"key":"a\u0007","price":1}"#, "invalid_key"),
            (r#"{"key":"A","price":1,"type":"x"}"#, "reserved_field"),
            (r#"{"key":"A","price":1,"offset":1}"#, "reserved_field"),
            (r#"{"key":"A","price":1,"price":2}"#, "duplicate_field"),
            (r#"{"key":"A","price":1,"timestamp":"yesterday"}"#, "invalid_timestamp"),
            (r#"{"key":"A","price":1,"timestamp":true}"#, "invalid_timestamp"),
            (r#"{"key":"A","price":1,"timestamp":"2199-01-01T00:00:00Z"}"#, "invalid_timestamp"),
            (r#"{"key":"A","price":1,"timestamp":1700003601}"#, "invalid_timestamp"),
            (r#"{"key":"A","price":1,"timestamp":-1}"#, "invalid_timestamp"),
            (r#"{"key":"A","price":1,"timestamp":99999999999999}"#, "invalid_timestamp"),
            (r#"{"key":"A","price":1,"n":"\ud800"}"#, "invalid_json"),
            (r#"{"key":"A","price":1,"n":{"m":[1e999]}}"#, "invalid_json"),
        ] {
            assert_eq!(parse(text).map_err(|error| error.code.as_str()), Err(code), "{text}");
        }
        let long = format!(r#"{{"key":"{}","price":1}}"#, "x".repeat(129));
        assert_eq!(parse(&long).unwrap_err().code.as_str(), "invalid_key");
        let nested = format!(r#"{{"key":"A","price":1,"n":{}}}"#, "[".repeat(10_000));
        assert_eq!(parse(&nested).unwrap_err().code.as_str(), "invalid_json");
        for depth in [31, 3_000] {
            let nested = format!(r#"{{"key":"A","price":1,"n":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
            let judged = parse(&nested).map_err(|error| error.detail);
            let expected = "nested deeper than 32 levels at byte 56; write it flatter";
            assert_eq!(judged.err().as_deref(), (depth > 31).then_some(expected));
        }
    }

    #[test]
    fn a_time_too_far_ahead_is_refused_with_what_would_be_right() {
        let error = parse(r#"{"key":"A","price":1,"timestamp":"2199-01-01T00:00:00Z"}"#).unwrap_err();
        let expected = "`timestamp` is 2199-01-01T00:00:00.000Z, too far ahead: it must not be after \
                        2023-11-14T23:13:20.123Z now (channels.ahead_max_s is 3600 s)";
        assert_eq!(error.detail, expected);
        let unbounded =
            parse_price(r#"{"key":"A","price":1,"timestamp":"2199-01-01T00:00:00Z"}"#, now(), Duration::MAX);
        assert!(unbounded.is_ok());
    }
}
