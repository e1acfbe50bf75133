//! An order as a client places it.

use std::collections::HashSet;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::model::OrderId;
use crate::protocol::{FieldFault, OrderedFields, PayloadWriter, check_json};
use crate::support::json::json_fault;

/// The longest name of a token, in bytes.
const TOKEN_LEN_MAX: usize = 64;

/// The most bytes of `metadata`.
const METADATA_BYTES_MAX: usize = 4_096;

/// The longest number, as text.
const NUMBER_LEN_MAX: usize = 64;

/// The most faults that are reported at once.
pub(super) const FAULTS_MAX: usize = 20;

const FIELDS: [&str; 5] = ["tokenIn", "tokenOut", "amount", "slippage", "metadata"];

/// The field that names the dead letter that an order repeats. Only the gateway sets it.
pub(super) const RETRY_OF: &str = "retryOf";

/// How much worse than quoted the price of a swap may become by default, in per cent.
const SLIPPAGE_PERCENT: &str = "0.5";

/// An order as workers receive it: one JSON object. Numbers keep the digits with which they were written.
#[derive(Debug, Clone)]
pub struct OrderRequest(Box<RawValue>);

impl<'de> Deserialize<'de> for OrderRequest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let order = Box::<RawValue>::deserialize(from)?;
        if order.get().starts_with('{') { Ok(Self(order)) } else { Err(D::Error::custom("not an object")) }
    }
}

/// Why a text is not an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrder {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// JSON with wrong fields; lists all of them.
    #[error("the order has {} wrong {}", .0.len(), if .0.len() == 1 { "field" } else { "fields" })]
    Fields(Vec<FieldFault>),
}

impl OrderRequest {
    /// Reads a swap of one token for another as clients send it: `tokenIn`, `tokenOut`, `amount` (a finite
    /// number greater than 0) and, optionally, `slippage` (in per cent, 0 to 100) and `metadata`.
    ///
    /// Workers receive `slippage` as a fraction, together with `slippagePercent`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidOrder> {
        const EXAMPLE: &str = r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5}"#;
        let fields = read_fields(text, EXAMPLE)?;
        let get = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value);
        let mut faults = Vec::new();
        let read = |faults: &mut Vec<_>, name, expected: &str, read: &dyn Fn(&str) -> Option<String>| {
            let problem = match get(name).map(|value| read(value.get())) {
                Some(Some(good)) => return good,
                Some(None) => format!("must be {expected}"),
                None => format!("is missing: {expected}"),
            };
            faults.push(fault(name, problem));
            String::new()
        };
        let expected = format!("a token such as SOL: 1 to {TOKEN_LEN_MAX} of A-Z a-z 0-9 . _ : -");
        let token = |json: &str| serde_json::from_str(json).ok().filter(|token: &String| is_token(token));
        let token_in = read(&mut faults, "tokenIn", &expected, &token);
        let token_out = read(&mut faults, "tokenOut", &expected, &token);
        if !token_in.is_empty() && token_in == token_out {
            faults.push(fault("tokenOut", "must be another token than `tokenIn`"));
        }
        let expected = format!("a number greater than 0, of {NUMBER_LEN_MAX} characters at the most");
        let amount = read(&mut faults, "amount", &expected, &|json| number(json, |amount| amount > 0.0));
        let percent = match get("slippage") {
            None => SLIPPAGE_PERCENT.to_owned(),
            Some(_) => read(&mut faults, "slippage", "a percentage from 0 to 100, such as 0.5", &|json| {
                number(json, |percent| (0.0..=100.0).contains(&percent))
            }),
        };
        let metadata = get("metadata").filter(|value| value.get() != "null");
        if let Some(value) = metadata {
            if !value.get().starts_with('{') {
                faults.push(fault("metadata", "must be an object"));
            } else if value.get().len() > METADATA_BYTES_MAX {
                faults.push(fault("metadata", format!("may have {METADATA_BYTES_MAX} bytes")));
            }
        }
        for (name, _) in fields.iter().filter(|(name, _)| !FIELDS.contains(&name.as_str())) {
            let fields = FIELDS.join(", ");
            let message = format!("is no field of an order ({fields}); what is yours goes into `metadata`");
            faults.push(fault(shown_name(name), message));
        }
        faults.extend(twice(&fields));
        faults.truncate(FAULTS_MAX);
        if !faults.is_empty() {
            return Err(InvalidOrder::Fields(faults));
        }
        let mut order = PayloadWriter::default();
        order.push_text("tokenIn", &token_in);
        order.push_text("tokenOut", &token_out);
        order.push("amount", &amount);
        order.push("slippage", &shifted(&percent, -2));
        order.push("slippagePercent", &percent);
        if let Some(metadata) = metadata {
            order.push("metadata", metadata.get());
        }
        Ok(Self::written(order))
    }

    /// An order from fields that were checked already.
    pub(super) fn written(fields: PayloadWriter) -> Self {
        let json = String::from_utf8(fields.finish().into()).expect("made of text");
        Self(RawValue::from_string(json).expect("made of JSON"))
    }

    /// The whole order.
    pub fn as_json(&self) -> &RawValue {
        &self.0
    }

    fn fields(&self) -> Vec<(String, &RawValue)> {
        serde_json::from_str(self.0.get()).map(|OrderedFields(fields)| fields).unwrap_or_default()
    }

    /// A field, as it was written.
    pub fn field(&self, name: &str) -> Option<&RawValue> {
        self.fields().into_iter().find_map(|(field, value)| (field == name).then_some(value))
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        serde_json::from_str(self.field(name)?.get()).ok()
    }

    /// A field that is a text.
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.field(name)?.get()).ok()
    }

    /// The dead letter that this order repeats.
    pub fn retry_of(&self) -> Option<OrderId> {
        self.text(RETRY_OF)?.parse().ok()
    }

    /// The same order, as the repetition of a dead letter.
    pub(super) fn as_retry_of(&self, order: OrderId) -> Self {
        let mut fields = PayloadWriter::default();
        for (name, value) in self.fields().iter().filter(|(name, _)| name != RETRY_OF) {
            fields.push(name, value.get());
        }
        fields.push_text(RETRY_OF, &order.to_string());
        Self::written(fields)
    }

    /// Equal for orders with the same fields and values, in whatever order and with whatever white space.
    pub(super) fn fingerprint(&self) -> String {
        let mut fields = self.fields();
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut sorted = PayloadWriter::default();
        fields.iter().for_each(|(name, value)| sorted.push(name, value.get()));
        Uuid::new_v5(&Uuid::NAMESPACE_OID, &sorted.finish()).simple().to_string()
    }

    /// A swap as its client wrote it: with `slippage` in per cent. Swaps of old builds, whose clients gave a
    /// fraction, have no `slippagePercent`.
    pub(super) fn shown_as_swap(&self) -> Self {
        let percent = self.field("slippagePercent").map(|percent| percent.get().to_owned());
        let mut fields = PayloadWriter::default();
        for (name, value) in self.fields().iter().filter(|(name, _)| name != "slippagePercent") {
            match (name.as_str(), &percent) {
                ("slippage", Some(percent)) => fields.push(name, percent),
                ("slippage", None) => fields.push(name, &shifted(value.get(), 2)),
                _ => fields.push(name, value.get()),
            }
        }
        Self::written(fields)
    }
}

/// The fields of an object, or what is wrong with the text.
pub(super) fn read_fields<'a>(
    text: &'a str,
    example: &str,
) -> Result<Vec<(String, &'a RawValue)>, InvalidOrder> {
    let OrderedFields(fields) = serde_json::from_str(text).map_err(|error: serde_json::Error| {
        if error.is_data() {
            InvalidOrder::Fields(vec![fault("", format!("expected one object such as {example}"))])
        } else {
            InvalidOrder::Json(json_fault(text, &error))
        }
    })?;
    check_json(text).map_err(|unreadable| InvalidOrder::Json(unreadable.to_string()))?;
    Ok(fields)
}

pub(super) fn fault(field: impl Into<String>, message: impl Into<String>) -> FieldFault {
    FieldFault { field: field.into(), message: message.into() }
}

/// A fault for each field whose name occurred before.
pub(super) fn twice(fields: &[(String, &RawValue)]) -> Vec<FieldFault> {
    let mut names = HashSet::new();
    let repeated = fields.iter().filter(|(name, _)| !names.insert(name.as_str()));
    repeated.map(|(name, _)| fault(shown_name(name), "occurs twice")).collect()
}

pub(super) fn shown_name(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// A number with its decimal point moved: by text, since 0.7 / 100 is not 0.007 in binary.
fn shifted(number: &str, places: i64) -> String {
    let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    // An exponent with more digits than an i64 counts as the least or the greatest exponent.
    let beyond = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
    let exponent = exponent.parse::<i64>().unwrap_or(beyond).saturating_add(places);
    let moved: f64 = format!("{digits}e{exponent}").parse().unwrap_or(0.0);
    serde_json::to_string(&moved).expect("a number always serialises")
}

/// A number as it is written, if it `is_good`. It is stored as text, so it must not be long.
fn number(json: &str, is_good: fn(f64) -> bool) -> Option<String> {
    let number: f64 = serde_json::from_str(json).ok()?;
    (number.is_finite() && is_good(number) && json.len() <= NUMBER_LEN_MAX).then(|| json.to_owned())
}

fn is_token(token: &str) -> bool {
    (1..=TOKEN_LEN_MAX).contains(&token.len())
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faulty_fields(text: &str) -> Vec<String> {
        match OrderRequest::parse(text) {
            Err(InvalidOrder::Fields(faults)) => faults.into_iter().map(|fault| fault.field).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn handed(text: &str) -> String {
        OrderRequest::parse(text).unwrap().as_json().get().to_owned()
    }

    #[test]
    fn workers_are_handed_slippage_as_a_fraction_and_in_per_cent() {
        let swap = |rest: &str| format!(r#"{{"tokenIn":"SOL","tokenOut":"USDC","amount":1.50{rest}}}"#);
        for (given, handed_on) in [
            ("", r#","slippage":0.005,"slippagePercent":0.5"#),
            (r#","slippage":0.7"#, r#","slippage":0.007,"slippagePercent":0.7"#),
            (r#","slippage":1e-1"#, r#","slippage":0.001,"slippagePercent":1e-1"#),
            (r#","slippage":100"#, r#","slippage":1.0,"slippagePercent":100"#),
            (
                r#","slippage":1e-99999999999999999999"#,
                r#","slippage":0.0,"slippagePercent":1e-99999999999999999999"#,
            ),
            (r#","slippage":0"#, r#","slippage":0.0,"slippagePercent":0"#),
        ] {
            assert_eq!(handed(&swap(given)), swap(handed_on));
            let order: OrderRequest = serde_json::from_str(&swap(handed_on)).unwrap();
            let shown = if given.is_empty() { r#","slippage":0.5"# } else { given };
            assert_eq!(order.shown_as_swap().as_json().get(), swap(shown));
        }
        // As an old build wrote it, which took fractions.
        let order: OrderRequest = serde_json::from_str(&swap(r#","slippage":0.007"#)).unwrap();
        assert_eq!(order.shown_as_swap().as_json().get(), swap(r#","slippage":0.7"#));
        assert_eq!((order.number("amount"), order.text("tokenOut").as_deref()), (Some(1.5), Some("USDC")));
    }

    #[test]
    fn an_order_says_what_it_retries_and_is_known_by_what_it_says() {
        let text = r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1.50,"metadata":{"desk":7}}"#;
        let order = OrderRequest::parse(text).unwrap();
        let other = r#" {"metadata": {"desk" : 7}, "amount":1.50, "tokenOut":"USDC", "tokenIn":"SOL", "slippage":0.5}"#;
        assert_eq!(order.fingerprint(), OrderRequest::parse(other).unwrap().fingerprint());
        let id = OrderId::random();
        let retry = order.as_retry_of(OrderId::random()).as_retry_of(id);
        assert_eq!((order.retry_of(), retry.retry_of()), (None, Some(id)));
        assert_ne!(order.fingerprint(), retry.fingerprint());
        assert!(retry.as_json().get().starts_with(order.as_json().get().trim_end_matches('}')));
        assert!(serde_json::from_str::<OrderRequest>("5").is_err());
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(faulty_fields("{}"), ["tokenIn", "tokenOut", "amount"]);
        assert_eq!(
            faulty_fields(
                r#"{"tokenIn":"a b","tokenOut":7,"amount":0,"slippage":100.1,"metadata":[],"price":1}"#
            ),
            ["tokenIn", "tokenOut", "amount", "slippage", "metadata", "price"]
        );
        assert_eq!(
            faulty_fields(r#"{"tokenIn":"A","tokenOut":"A","amount":"1","slippage":-1}"#),
            ["tokenOut", "amount", "slippage"]
        );
        assert_eq!(faulty_fields("[]"), [""]);
        let twice = r#"{"tokenIn":"A","tokenOut":"B","amount":1,"amount":2,"slippage":0}"#;
        assert_eq!(faulty_fields(twice), ["amount"]);
        let digits = format!(r#"{{"tokenIn":"A","tokenOut":"B","amount":1{},"slippage":0}}"#, "0".repeat(64));
        assert_eq!(faulty_fields(&digits), ["amount"]);
        let many: Vec<String> = (0..1_000).map(|n| format!(r#""x{n}":1"#)).collect();
        assert_eq!(faulty_fields(&format!("{{{}}}", many.join(","))).len(), FAULTS_MAX);
        let long = format!(
            r#"{{"tokenIn":"A","tokenOut":"B","amount":1,"slippage":0,"metadata":{{"x":"{}"}}}}"#,
            "x".repeat(5_000)
        );
        assert_eq!(faulty_fields(&long), ["metadata"]);
    }

    #[test]
    fn what_other_readers_choke_on_is_refused_where_it_stands() {
        let nested = |depth: usize| format!("{}{}", r#"{"a":"#.repeat(depth) + "1", "}".repeat(depth));
        let order = |metadata: &str| {
            OrderRequest::parse(&format!(
                r#"{{"tokenIn":"SOL","tokenOut":"USDC","amount":1,"slippage":0.01,"metadata":{metadata}}}"#
            ))
        };
        assert!(order(&nested(31)).is_ok());
        for (metadata, expected) in [
            (nested(199), "nested deeper than 32 levels at byte 228"),
            (r#"{"a":"\ud800"}"#.to_owned(), "lone surrogate at byte 79"),
        ] {
            let Err(InvalidOrder::Json(detail)) = order(&metadata) else { panic!("{metadata}") };
            assert!(detail.contains(expected), "{detail}");
        }
    }

    #[test]
    fn what_is_not_json_is_said() {
        assert!(matches!(OrderRequest::parse("{"), Err(InvalidOrder::Json(_))));
        assert!(matches!(
            OrderRequest::parse(r#"{"tokenIn":"A","tokenOut":"B","amount":NaN,"slippage":0}"#),
            Err(InvalidOrder::Json(_))
        ));
    }
}
