//! JSON arguments that are passed on exactly as they were typed, digit by digit.

use std::str::FromStr;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::support::json::json_fault;

/// A number.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Number(pub(super) Box<RawValue>);

impl FromStr for Number {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        let is_finite = text.parse().is_ok_and(f64::is_finite);
        match RawValue::from_string(text.to_owned()) {
            Ok(number) if is_number && is_finite => Ok(Self(number)),
            _ => Err("expected a finite number such as 1.5"),
        }
    }
}

/// An object.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Object(pub(super) Box<RawValue>);

impl FromStr for Object {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = r#"expected a JSON object such as {"desk":"east"}"#;
        match RawValue::from_string(text.trim().to_owned()) {
            Ok(object) if object.get().starts_with('{') => Ok(Self(object)),
            Ok(_) => Err(FORM.to_owned()),
            Err(error) => Err(format!("{FORM}: {}", json_fault(text, &error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_is_what_is_sent() {
        for text in ["41.20", "-0.50", "1", "1e3", "12345678901234567890"] {
            let number: Number = text.parse().unwrap();
            assert_eq!(serde_json::to_string(&number).unwrap(), text);
        }
        for text in ["", "x", "1.", "{}", "true", "NaN", "inf", ".5", "+1", "1e999", "\"1\"", "[1]", "1 2"] {
            assert!(text.parse::<Number>().is_err(), "{text}");
        }
        let object: Object = r#" {"desk": 1.50} "#.parse().unwrap();
        assert_eq!(serde_json::to_string(&object).unwrap(), r#"{"desk": 1.50}"#);
        for text in ["", "{", "[]", "5", "{} {}"] {
            assert!(text.parse::<Object>().is_err(), "{text}");
        }
    }
}
