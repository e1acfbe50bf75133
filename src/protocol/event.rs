//! Parses an event as publishers post it: one JSON object.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use zonewire_protocol::{is_exchange, is_interval, is_symbol};

use super::payload::{PayloadWriter, check_ahead, check_names, check_readable, fault, read_time, shown};
use super::{InvalidPayload, OrderedFields, ProblemCode, RESERVED_FIELDS};
use crate::model::{DraftEntry, EntryKind, EventType, Marks};
use crate::support::json::json_fault;

/// A description of what is wrong with a field, or `None`.
type Wrong = Option<String>;

/// The fields of an event, in the order in which the publisher wrote them.
struct EventFields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> EventFields<'a> {
    /// The value of a field; `null` counts as absent.
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().find(|(field, _)| field == name).map(|(_, value)| *value);
        found.filter(|value| value.get() != "null")
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Checks a field that must be present.
    fn required(&self, name: &str, what: &str, fits: impl Fn(&str) -> bool) -> Wrong {
        match self.get(name) {
            None => Some(format!("`{name}` is missing: {what}")),
            Some(value) if fits(value.get()) => None,
            Some(value) => Some(format!("`{name}` must be {what}, not {}", shown(value.get()))),
        }
    }

    /// Checks a field that may be absent.
    fn optional(&self, name: &str, what: &str, fits: impl Fn(&str) -> bool) -> Wrong {
        self.get(name).and_then(|_| self.required(name, what, fits))
    }

    fn required_text(&self, name: &str, what: &str, fits: impl Fn(&str) -> bool) -> Wrong {
        self.required(name, what, |json| serde_json::from_str::<String>(json).is_ok_and(|text| fits(&text)))
    }

    fn decimals(&self, required: &[&str], optional: &[&str]) -> Wrong {
        const WHAT: &str = "a decimal, as a number or a text";
        let missing = required.iter().find_map(|name| self.required(name, WHAT, is_decimal));
        missing.or_else(|| optional.iter().find_map(|name| self.optional(name, WHAT, is_decimal)))
    }
}

/// Whether JSON is a decimal: a number, or a text that would be a number without its quotes.
fn is_decimal(json: &str) -> bool {
    let digits = json.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(json);
    // Signs and leading zeros follow the rules of JSON; a text with escapes is not a decimal.
    serde_json::from_str::<f64>(digits).is_ok_and(f64::is_finite)
        && digits.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && digits.ends_with(|last: char| last.is_ascii_digit())
}

fn is_whole(json: &str) -> bool {
    serde_json::from_str::<u64>(json).is_ok()
}

fn is_bool(json: &str) -> bool {
    matches!(json, "true" | "false")
}

fn is_time(json: &str) -> bool {
    serde_json::from_str::<&RawValue>(json).is_ok_and(|value| read_time(value).is_ok())
}

fn is_side_of_book(json: &str) -> bool {
    let levels: Option<Vec<Vec<&RawValue>>> = serde_json::from_str(json).ok();
    levels.is_some_and(|levels| {
        levels.iter().all(|level| level.len() == 2 && level.iter().all(|number| is_decimal(number.get())))
    })
}

/// Parses an event of a type. `now` is its time if it has none of its own; a time more than `ahead_max` after
/// it is refused.
///
/// The type determines which fields are required; `docs/PROTOCOL.md` lists them. `timestamp` is as for
/// prices. All other fields are kept unchanged, and numbers keep their digits. The payload of the result is
/// one object, `data`, which has `exchange` first, then `symbol`, and no `timestamp`: that is the entry's time.
///
/// # Errors
/// See [`InvalidPayload`].
pub fn parse_event(
    event: EventType,
    text: &str,
    now: DateTime<Utc>,
    ahead_max: Duration,
) -> Result<DraftEntry, InvalidPayload> {
    let OrderedFields(fields) = serde_json::from_str(text).map_err(|error| not_json(event, text, &error))?;
    check_readable(text)?;
    check_names(&fields, &RESERVED_FIELDS)?;
    let fields = EventFields(fields);
    if let Some(detail) = wrong_in_all(event, &fields).or_else(|| wrong_in(event, &fields)) {
        return Err(fault(ProblemCode::InvalidEvent, detail));
    }
    let time = fields.get("timestamp").map_or(Ok(now), read_time)?;
    check_ahead(time, now, ahead_max)?;
    let mut data = PayloadWriter::default();
    let is_first = |name: &str| ["exchange", "symbol"].contains(&name);
    for name in ["exchange", "symbol"] {
        fields.get(name).into_iter().for_each(|value| data.push(name, value.get()));
    }
    let rest = fields.0.iter().filter(|(name, _)| !is_first(name) && name != "timestamp");
    rest.for_each(|(name, value)| data.push(name, value.get()));
    let data = data.finish();
    let data = std::str::from_utf8(&data).expect("made of texts");
    let mut payload = PayloadWriter::default();
    payload.push("data", data);
    let payload = payload.finish();
    // Together with its envelope the payload must not be nested deeper than clients can read.
    let is_readable = std::str::from_utf8(&payload).is_ok_and(|payload| check_readable(payload).is_ok());
    if !is_readable {
        let detail = "arrays and objects in an event are nested at most 31 deep, the event included";
        return Err(fault(ProblemCode::InvalidJson, detail));
    }
    let (kind, key) = (EntryKind::Event(event), key_of(event, &fields));
    Ok(DraftEntry { time, kind, key, data: payload, marks: Marks::default() })
}

fn not_json(event: EventType, text: &str, error: &serde_json::Error) -> InvalidPayload {
    if error.is_data() {
        let example = match event {
            EventType::Ticker => r#"{"exchange":"binance","symbol":"BTC-USDT","price":"64250.10"}"#,
            EventType::Trade => {
                r#"{"exchange":"binance","symbol":"BTC-USDT","price":"64250.10","size":"0.5","side":"buy"}"#
            }
            EventType::Orderbook => {
                r#"{"exchange":"binance","symbol":"BTC-USDT","kind":"snapshot","sequence":7,"bids":[["64250.10","0.5"]],"asks":[]}"#
            }
            EventType::Candle => {
                r#"{"exchange":"binance","symbol":"BTC-USDT","interval":"1m","openTime":1795883000,"open":"1","high":"2","low":"1","close":"2","volume":"3","closed":true}"#
            }
            _ => r#"{"exchange":"binance","reason":"the connection was closed"}"#,
        };
        return fault(ProblemCode::InvalidEvent, format!("expected one object such as {example}"));
    }
    fault(ProblemCode::InvalidJson, format!("not JSON: {}", json_fault(text, error)))
}

/// What is wrong with the fields that all types have.
fn wrong_in_all(event: EventType, fields: &EventFields<'_>) -> Wrong {
    const EXCHANGE: &str = "a text of 1 to 32 of a-z 0-9 . _ -";
    const SYMBOL: &str = "a text of 1 to 64 of A-Z a-z 0-9 . _ / -, such as BTC-USDT";
    let of_exchange = fields.required_text("exchange", EXCHANGE, is_exchange);
    let of_symbol = || match event.is_of_exchange() {
        true => None,
        false => fields.required_text("symbol", SYMBOL, is_symbol),
    };
    of_exchange.or_else(of_symbol)
}

/// What is wrong with the other fields of a type.
fn wrong_in(event: EventType, fields: &EventFields<'_>) -> Wrong {
    match event {
        EventType::Ticker => {
            let has = |name| fields.get(name).is_some();
            let is_quote = has("bid") && has("ask");
            if !has("price") && !is_quote {
                return Some("`price` is missing: a decimal; or else both `bid` and `ask`".to_owned());
            }
            let names = ["price", "bid", "ask", "bidSize", "askSize"];
            fields
                .decimals(&[], &names)
                .or_else(|| fields.decimals(&[], &["open", "high", "low", "volume", "quoteVolume"]))
        }
        EventType::Trade => fields
            .decimals(&["price", "size"], &[])
            .or_else(|| fields.optional("tradeId", "a text or a whole number", is_text_or_whole))
            .or_else(|| {
                fields.optional("side", "\"buy\" or \"sell\"", |json| matches!(json, "\"buy\"" | "\"sell\""))
            }),
        EventType::Orderbook => wrong_in_book(fields),
        EventType::Candle => fields
            .required_text("interval", "a text such as 1m: 1 to 16 of A-Z a-z 0-9", is_interval)
            .or_else(|| fields.required("openTime", super::TIME_EXPECTED, is_time))
            .or_else(|| fields.decimals(&["open", "high", "low", "close", "volume"], &[]))
            .or_else(|| fields.required("closed", "true or false", is_bool))
            .or_else(|| fields.optional("correction", "true or false", is_bool)),
        EventType::ExchangeConnected => fields.optional("reason", "a text", is_text),
        EventType::ExchangeDisconnected => fields.required("reason", "a text", is_text),
        EventType::ExchangeReconnecting => fields
            .required("reason", "a text", is_text)
            .or_else(|| fields.required("attempt", "a whole number", is_whole))
            .or_else(|| fields.required("delayMs", "a whole number", is_whole)),
        EventType::ExchangeError => fields
            .required("reason", "a text", is_text)
            .or_else(|| fields.required("code", "a text", is_text)),
    }
}

fn wrong_in_book(fields: &EventFields<'_>) -> Wrong {
    const LEVELS: &str = "an array of [price, size], each a decimal";
    let kind = fields
        .required("kind", "\"snapshot\" or \"delta\"", |json| matches!(json, "\"snapshot\"" | "\"delta\""));
    let is_delta = is_delta(fields);
    kind.or_else(|| fields.required("bids", LEVELS, is_side_of_book))
        .or_else(|| fields.required("asks", LEVELS, is_side_of_book))
        .or_else(|| fields.required("sequence", "a whole number", is_whole))
        .or_else(|| match is_delta {
            true => fields.required("previousSequence", "a whole number, the `sequence` before it", is_whole),
            false => fields.optional("previousSequence", "a whole number", is_whole),
        })
}

fn is_text(json: &str) -> bool {
    json.starts_with('"')
}

fn is_text_or_whole(json: &str) -> bool {
    is_text(json) || is_whole(json)
}

fn is_delta(fields: &EventFields<'_>) -> bool {
    fields.get("kind").is_some_and(|kind| kind.get() == "\"delta\"")
}

/// The key of an event, by which a newer one replaces it and snapshots list it: its segments. A delta of a
/// book has none, since it replaces nothing.
fn key_of(event: EventType, fields: &EventFields<'_>) -> Option<Arc<str>> {
    if event == EventType::Orderbook && is_delta(fields) {
        return None;
    }
    let segments = ["exchange", "symbol", "interval"].into_iter().take(event.segments());
    let segments: Option<Vec<String>> = segments.map(|name| fields.text(name)).collect();
    segments.map(|segments| segments.join(":").into())
}

/// The segments of an event, as many as its type has: exchange, symbol and interval.
pub(crate) type Segments<'a> = smallvec::SmallVec<[&'a str; 3]>;

/// The segments of an entry; `None` if it is not an event that views can show.
pub(crate) fn segments_of(draft: &DraftEntry) -> Option<Segments<'_>> {
    #[derive(Deserialize)]
    struct Payload<'a> {
        #[serde(borrow)]
        data: Names<'a>,
    }
    #[derive(Deserialize)]
    struct Names<'a> {
        exchange: &'a str,
        symbol: &'a str,
    }
    let EntryKind::Event(event) = draft.kind else { return None };
    let segments: Segments<'_> = match &draft.key {
        Some(key) => key.split(':').collect(),
        None => {
            let Payload { data } = serde_json::from_slice(&draft.data).ok()?;
            Segments::from_slice(&[data.exchange, data.symbol])
        }
    };
    (segments.len() == event.segments()).then_some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_700_000_000_123).unwrap()
    }

    fn parse(event: EventType, text: &str) -> Result<DraftEntry, InvalidPayload> {
        parse_event(event, text, now(), Duration::from_secs(3_600))
    }

    fn check(event: EventType, text: &str, key: Option<&str>, data: &str) {
        let draft = parse(event, text).unwrap();
        assert_eq!(std::str::from_utf8(&draft.data).unwrap(), format!(r#"{{"data":{data}}}"#));
        assert_eq!((draft.key.as_deref(), draft.kind.clone()), (key, EntryKind::Event(event)));
    }

    #[test]
    fn an_event_keeps_its_digits_and_free_fields_and_gets_its_key() {
        check(
            EventType::Ticker,
            r#"{"price": "64250.10","symbol":"BTC-USDT","exchange":"binance","timestamp":1,"n":{"a":[1.50]}}"#,
            Some("binance:BTC-USDT"),
            r#"{"exchange":"binance","symbol":"BTC-USDT","price":"64250.10","n":{"a":[1.50]}}"#,
        );
        let time = parse(EventType::Ticker, r#"{"exchange":"x","symbol":"y","bid":1,"ask":2,"timestamp":7}"#);
        assert_eq!(time.unwrap().time.timestamp(), 7);
        check(
            EventType::Trade,
            r#"{"exchange":"kraken","symbol":"BTC/USD","price":1e3,"size":"0.10","tradeId":7,"side":"buy"}"#,
            Some("kraken:BTC/USD"),
            r#"{"exchange":"kraken","symbol":"BTC/USD","price":1e3,"size":"0.10","tradeId":7,"side":"buy"}"#,
        );
        let candle = r#"{"exchange":"a","symbol":"B","interval":"1m","openTime":1795883000,"open":1,"high":2,"low":1,"close":2,"volume":"3.0","closed":false}"#;
        check(EventType::Candle, candle, Some("a:B:1m"), candle);
        let error = r#"{"exchange":"a","reason":"odd","code":"E1"}"#;
        check(EventType::ExchangeError, error, Some("a"), error);
    }

    #[test]
    fn a_delta_of_a_book_replaces_nothing() {
        let book = |kind, more: &str| {
            format!(
                r#"{{"exchange":"a","symbol":"B","kind":"{kind}","bids":[["1.0","2"]],"asks":[[2,0]],"sequence":8{more}}}"#
            )
        };
        let snapshot = book("snapshot", "");
        check(EventType::Orderbook, &snapshot, Some("a:B"), &snapshot);
        let delta = book("delta", r#","previousSequence":7"#);
        check(EventType::Orderbook, &delta, None, &delta);
        let draft = parse(EventType::Orderbook, &delta).unwrap();
        assert_eq!(segments_of(&draft).unwrap().as_slice(), ["a", "B"]);
        let detail = parse(EventType::Orderbook, &book("delta", "")).unwrap_err().detail;
        assert!(detail.contains("`previousSequence` is missing"), "{detail}");
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        use EventType::{Candle, ExchangeConnected, ExchangeReconnecting, Orderbook, Ticker, Trade};
        let check = |event, text, code, part| {
            let error = parse(event, text).unwrap_err();
            assert_eq!(error.code.to_string(), code, "{text}: {error}");
            assert!(error.detail.contains(part), "{text}: {error}");
        };
        for (event, text, part) in [
            (Ticker, "7", "expected one object"),
            (Ticker, r#"{"symbol":"B","price":1}"#, "`exchange` is missing"),
            (Ticker, r#"{"exchange":"Binance","symbol":"B","price":1}"#, "`exchange` must be"),
            (Ticker, r#"{"exchange":"a","symbol":"B C","price":1}"#, "`symbol` must be"),
            (Ticker, r#"{"exchange":"a","symbol":"B","bid":1}"#, "`price` is missing"),
            (Ticker, r#"{"exchange":"a","symbol":"B","price":"x"}"#, "`price` must be a decimal"),
            (Ticker, r#"{"exchange":"a","symbol":"B","price":"NaN"}"#, "`price` must be"),
            (Ticker, r#"{"exchange":"a","symbol":"B","price":1,"open":[]}"#, "`open` must be"),
            (Trade, r#"{"exchange":"a","symbol":"B","price":1}"#, "`size` is missing"),
            (Trade, r#"{"exchange":"a","symbol":"B","price":1,"size":1,"side":"up"}"#, "`side`"),
            (Trade, r#"{"exchange":"a","symbol":"B","price":1,"size":1,"tradeId":{}}"#, "`tradeId`"),
            (Orderbook, r#"{"exchange":"a","symbol":"B","bids":[],"asks":[]}"#, "`kind` is missing"),
            (
                Orderbook,
                r#"{"exchange":"a","symbol":"B","kind":"snapshot","bids":[[1]],"asks":[],"sequence":1}"#,
                "`bids` must be",
            ),
            (Candle, r#"{"exchange":"a","symbol":"B"}"#, "`interval` is missing"),
            (ExchangeConnected, "{}", "`exchange` is missing"),
            (ExchangeReconnecting, r#"{"exchange":"a","reason":"r","attempt":1}"#, "`delayMs`"),
        ] {
            check(event, text, "invalid_event", part);
        }
        for (text, code, part) in [
            ("{", "invalid_json", "not JSON"),
            (r#"{"exchange":"a","symbol":"B","price":1,"id":1}"#, "reserved_field", "`id`"),
            (r#"{"exchange":"a","symbol":"B","price":1,"price":1}"#, "duplicate_field", "`price`"),
            (r#"{"exchange":"a","symbol":"B","price":1,"timestamp":"x"}"#, "invalid_timestamp", "RFC"),
            (
                r#"{"exchange":"a","symbol":"B","price":1,"timestamp":1800000000}"#,
                "invalid_timestamp",
                "ahead",
            ),
        ] {
            check(Ticker, text, code, part);
        }
        let deep = |n: usize| {
            format!(r#"{{"exchange":"a","symbol":"B","price":1,"n":{}{}}}"#, "[".repeat(n), "]".repeat(n))
        };
        assert!(parse(Ticker, &deep(30)).is_ok());
        assert!(parse(Ticker, &deep(31)).unwrap_err().detail.contains("31 deep"));
    }

    #[test]
    fn decimals_are_numbers_or_texts_of_numbers() {
        for json in ["1", "-1.50", "\"0.10\"", "1e3", "\"-2e-7\"", "0"] {
            assert!(is_decimal(json), "{json}");
        }
        for json in
            ["\"\"", "\" 1\"", "\"1 \"", "\"1.\"", "\"inf\"", "\"+1\"", "true", "[1]", "\"01\"", "null"]
        {
            assert!(!is_decimal(json), "{json}");
        }
    }
}
