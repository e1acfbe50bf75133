//! What a client orders.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::OrderId;
use crate::protocol::{OrderedFields, check_json};

/// The longest name of a token, in bytes.
const TOKEN_LEN_MAX: usize = 64;

/// The most bytes that `metadata` may have.
const METADATA_BYTES_MAX: usize = 4_096;

/// The longest number, as text.
const NUMBER_LEN_MAX: usize = 64;

/// Faults that are told at once, at the most.
const FAULTS_MAX: usize = 20;

const FIELDS: [&str; 5] = ["tokenIn", "tokenOut", "amount", "slippage", "metadata"];

/// A swap of one token for another. Numbers keep the digits that they were written with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderRequest {
    /// What is given.
    pub token_in: String,
    /// What is wanted.
    pub token_out: String,
    /// How much of `token_in`: a finite number greater than 0.
    pub amount: Box<RawValue>,
    /// How much worse than quoted the price may become, as a fraction: 0.01 is one percent.
    pub slippage: Box<RawValue>,
    /// Whatever the client wants to find again; an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
    /// The dead letter that this order tries again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<OrderId>,
}

/// A field of an order that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldFault {
    /// Its name.
    pub field: String,
    /// What was wrong and what would be right.
    pub message: String,
}

/// A text that is no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrder {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// JSON, with wrong fields: all of them.
    #[error("the order has {} wrong {}", .0.len(), if .0.len() == 1 { "field" } else { "fields" })]
    Fields(Vec<FieldFault>),
}

impl OrderRequest {
    /// Reads an order as clients send it: `tokenIn`, `tokenOut`, `amount`, `slippage` and,
    /// optionally, `metadata`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidOrder> {
        let not_an_object =
            |detail: String| InvalidOrder::Fields(vec![FieldFault { field: String::new(), message: detail }]);
        let OrderedFields(fields) =
            serde_json::from_str(text).map_err(|error: serde_json::Error| {
                if error.is_data() {
                    not_an_object(
                        r#"expected one object such as {"tokenIn":"SOL","tokenOut":"USDC","amount":1.5,"slippage":0.01}"#
                            .to_owned(),
                    )
                } else {
                    InvalidOrder::Json(error.to_string())
                }
            })?;
        check_json(text).map_err(|unreadable| InvalidOrder::Json(unreadable.to_string()))?;
        let get = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value);
        let mut faults = Vec::new();
        let mut fault = |field: &str, message: String| {
            faults.push(FieldFault { field: field.to_owned(), message });
        };
        let token = |name: &str, fault: &mut dyn FnMut(&str, String)| -> String {
            let expected = format!("a token such as SOL: 1 to {TOKEN_LEN_MAX} of A-Z a-z 0-9 . _ : -");
            let Some(value) = get(name) else {
                fault(name, format!("is missing: {expected}"));
                return String::new();
            };
            let token: Option<String> = serde_json::from_str(value.get()).ok();
            token.filter(|token| is_token(token)).unwrap_or_else(|| {
                fault(name, format!("must be {expected}"));
                String::new()
            })
        };
        let token_in = token("tokenIn", &mut fault);
        let token_out = token("tokenOut", &mut fault);
        if !token_in.is_empty() && token_in == token_out {
            fault("tokenOut", "must be another token than `tokenIn`".to_owned());
        }
        let number = |name: &str,
                      expected: &str,
                      good: fn(f64) -> bool,
                      fault: &mut dyn FnMut(&str, String)|
         -> Box<RawValue> {
            let Some(value) = get(name) else {
                fault(name, format!("is missing: {expected}"));
                return RawValue::NULL.to_owned();
            };
            // As text it is kept as it is, so it must not be long.
            let number: Option<f64> = serde_json::from_str(value.get()).ok();
            let number = number.filter(|_| value.get().len() <= NUMBER_LEN_MAX);
            if !number.is_some_and(|number| number.is_finite() && good(number)) {
                fault(name, format!("must be {expected}"));
            }
            (*value).to_owned()
        };
        let amount = number(
            "amount",
            "a number greater than 0, of 64 characters at the most",
            |amount| amount > 0.0,
            &mut fault,
        );
        let slippage = number(
            "slippage",
            "a fraction from 0 to 1, such as 0.01 for one percent",
            |slippage| (0.0..=1.0).contains(&slippage),
            &mut fault,
        );
        let metadata = get("metadata").filter(|value| value.get() != "null").map(|value| {
            if !value.get().starts_with('{') {
                fault("metadata", "must be an object".to_owned());
            } else if value.get().len() > METADATA_BYTES_MAX {
                fault("metadata", format!("may have {METADATA_BYTES_MAX} bytes"));
            }
            (*value).to_owned()
        });
        for (place, (name, _)) in fields.iter().enumerate() {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
            if !FIELDS.contains(&name.as_str()) {
                let fields = FIELDS.join(", ");
                fault(
                    &shown,
                    format!("is no field of an order ({fields}); what is yours goes into `metadata`"),
                );
            } else if fields[..place].iter().any(|(before, _)| before == name) {
                fault(&shown, "is there twice".to_owned());
            }
        }
        faults.truncate(FAULTS_MAX);
        if faults.is_empty() {
            Ok(Self { token_in, token_out, amount, slippage, metadata, retry_of: None })
        } else {
            Err(InvalidOrder::Fields(faults))
        }
    }

    /// How much is given.
    pub fn amount(&self) -> f64 {
        serde_json::from_str(self.amount.get()).unwrap_or(0.0)
    }

    /// How much worse than quoted the price may become, as a fraction.
    pub fn slippage(&self) -> f64 {
        serde_json::from_str(self.slippage.get()).unwrap_or(0.0)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of plain fields always serialises")
    }
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

    #[test]
    fn an_order_keeps_its_digits() {
        let order = OrderRequest::parse(
            r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1.50,"slippage":1e-2,"metadata":{"desk":7}}"#,
        )
        .unwrap();
        assert_eq!((order.amount(), order.slippage()), (1.5, 0.01));
        let json =
            r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1.50,"slippage":1e-2,"metadata":{"desk":7}}"#;
        assert_eq!(String::from_utf8(order.to_json()).unwrap(), json);
        let read: OrderRequest = serde_json::from_str(json).unwrap();
        assert_eq!(read.to_json(), order.to_json());
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(faulty_fields("{}"), ["tokenIn", "tokenOut", "amount", "slippage"]);
        assert_eq!(
            faulty_fields(
                r#"{"tokenIn":"a b","tokenOut":7,"amount":0,"slippage":1.01,"metadata":[],"price":1}"#
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
