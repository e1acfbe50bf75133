//! What an order must look like: a swap, or what the operator's JSON Schema says.

use std::path::Path;

use bytes::Bytes;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::request::{
    FAULTS_MAX, InvalidOrder, OrderRequest, RETRY_OF, fault, read_fields, shown_name, twice,
};
use crate::protocol::{FieldFault, PayloadWriter};
use crate::support::json::json_fault;

/// The setting for a swap, in place of a file.
pub(super) const SWAP: &str = "swap";

/// The longest message about a field, in characters: it may repeat what the client sent.
const MESSAGE_LEN_MAX: usize = 300;

/// A swap as a JSON Schema: what [`OrderRequest::parse`] accepts, for programs that ask.
const SWAP_DOCUMENT: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "A swap",
  "description": "So much of one token for another.",
  "type": "object",
  "required": ["tokenIn", "tokenOut", "amount"],
  "additionalProperties": false,
  "properties": {
    "tokenIn": { "description": "What is given", "type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$" },
    "tokenOut": { "description": "What is wanted; another one", "type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$" },
    "amount": { "description": "How much of tokenIn", "type": "number", "exclusiveMinimum": 0 },
    "slippage": { "description": "How much worse than quoted, in per cent", "type": "number", "minimum": 0, "maximum": 100, "default": 0.5 },
    "metadata": { "description": "Kept as it is, up to 4 KiB", "type": "object" }
  }
}
"#;

/// What an order must look like.
#[derive(Debug)]
pub struct OrderSchema {
    rules: Rules,
    document: Bytes,
}

#[derive(Debug)]
enum Rules {
    Swap,
    File(Box<Validator>),
}

impl OrderSchema {
    /// The schema that `orders.schema` names: `swap`, or the file of a JSON Schema. Nothing is fetched:
    /// references must stay within the file.
    ///
    /// # Errors
    /// Why the file cannot be used, for people.
    pub fn load(setting: &str) -> Result<Self, String> {
        if setting == SWAP {
            return Ok(Self { rules: Rules::Swap, document: Bytes::from_static(SWAP_DOCUMENT.as_bytes()) });
        }
        let file = Path::new(setting);
        let text = std::fs::read_to_string(file).map_err(|error| {
            format!("expected `{SWAP}` or the file of a JSON Schema; {setting:?} cannot be read ({error})")
        })?;
        let schema: Value = serde_json::from_str(&text)
            .map_err(|error| format!("{setting:?} is not JSON: {}", json_fault(&text, &error)))?;
        // Patterns that run in time linear in their text; formats are checked, not only noted.
        let options = jsonschema::options().offline().should_validate_formats(true);
        let validator = options.with_pattern_options(PatternOptions::regex()).build(&schema);
        let validator = validator.map_err(|error| {
            format!("{setting:?} is no JSON Schema: at {:?}: {error}", error.instance_path().as_str())
        })?;
        Ok(Self { rules: Rules::File(Box::new(validator)), document: text.into() })
    }

    pub(super) fn is_swap(&self) -> bool {
        matches!(self.rules, Rules::Swap)
    }

    /// The JSON Schema, as the operator wrote it.
    pub(super) fn document(&self) -> Bytes {
        self.document.clone()
    }

    /// Reads an order as clients send it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(&self, text: &str) -> Result<OrderRequest, InvalidOrder> {
        let Rules::File(validator) = &self.rules else { return OrderRequest::parse(text) };
        let fields = read_fields(text, r#"{"side":"buy","quantity":50}"#)?;
        let value: Value =
            serde_json::from_str(text).map_err(|error| InvalidOrder::Json(error.to_string()))?;
        let mut faults: Vec<FieldFault> =
            validator.iter_errors(&value).take(FAULTS_MAX).flat_map(|error| faults_of(&error)).collect();
        faults.extend(twice(&fields));
        if fields.iter().any(|(name, _)| name == RETRY_OF) {
            faults.push(fault(RETRY_OF, "belongs to the gateway; use another name for it"));
        }
        faults.truncate(FAULTS_MAX);
        if !faults.is_empty() {
            return Err(InvalidOrder::Fields(faults));
        }
        let mut order = PayloadWriter::default();
        fields.iter().for_each(|(name, value)| order.push(name, value.get()));
        Ok(OrderRequest::written(order))
    }
}

/// The faults behind a schema's error, each with the field's path, such as `period.start` or `legs.0.hub`.
fn faults_of(error: &ValidationError<'_>) -> Vec<FieldFault> {
    let path = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
    let of = |name: &str| match path.as_str() {
        "" => shown_name(name),
        path => format!("{path}.{}", shown_name(name)),
    };
    match error.kind() {
        ValidationErrorKind::Required { property: Value::String(name) } => {
            vec![fault(of(name), "is missing")]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().map(|name| fault(of(name), "is no field of an order")).collect()
        }
        _ => {
            let message: String = error.to_string().chars().take(MESSAGE_LEN_MAX).collect();
            vec![fault(path, message)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POWER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/power/order.schema.json");

    fn fields(text: &str) -> Vec<String> {
        match OrderSchema::load(POWER).unwrap().read(text) {
            Err(InvalidOrder::Fields(faults)) => faults.into_iter().map(|fault| fault.field).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_fits_is_an_order_with_its_digits() {
        let text = r#"{"side":"buy","hub":"WESTERN HUB","quantity":50.0,"limit":41.250,
            "period":{"start":"2026-12-01T15:00:00-05:00","end":"2026-12-01T16:00:00-05:00"}}"#;
        let order = OrderSchema::load(POWER).unwrap().read(text).unwrap();
        assert_eq!(order.field("limit").unwrap().get(), "41.250");
        assert_eq!(order.text("side").as_deref(), Some("buy"));
        assert!(
            !order.as_json().get().contains(['\n', ' ']) || order.as_json().get().contains("WESTERN HUB")
        );
    }

    #[test]
    fn the_document_of_a_swap_takes_what_is_read_as_one() {
        let document: Value = serde_json::from_str(SWAP_DOCUMENT).unwrap();
        let validator = jsonschema::options().build(&document).unwrap();
        let schema = OrderSchema::load(SWAP).unwrap();
        assert_eq!(schema.document(), SWAP_DOCUMENT);
        for (text, is_order) in [
            (r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1.50}"#, true),
            (
                r#"{"tokenIn":"a.b:c_d-1","tokenOut":"B","amount":1e-9,"slippage":0,"metadata":{"a":[1]}}"#,
                true,
            ),
            (r#"{"tokenIn":"A","tokenOut":"B","amount":1,"slippage":100}"#, true),
            (r#"{"tokenIn":"A","tokenOut":"B","amount":1,"slippage":100.1}"#, false),
            (r#"{"tokenIn":"A","tokenOut":"B","amount":0}"#, false),
            (r#"{"tokenIn":"A","tokenOut":"B","amount":"1"}"#, false),
            (r#"{"tokenIn":"A B","tokenOut":"B","amount":1}"#, false),
            (r#"{"tokenIn":"","tokenOut":"B","amount":1}"#, false),
            (r#"{"tokenIn":"A","amount":1}"#, false),
            (r#"{"tokenIn":"A","tokenOut":"B","amount":1,"metadata":[]}"#, false),
            (r#"{"tokenIn":"A","tokenOut":"B","amount":1,"colour":1}"#, false),
        ] {
            assert_eq!(schema.read(text).is_ok(), is_order, "{text}");
            assert_eq!(validator.is_valid(&serde_json::from_str(text).unwrap()), is_order, "{text}");
        }
    }

    #[test]
    fn every_field_that_does_not_fit_is_named() {
        let text = r#"{"side":"hold","quantity":-1,"period":{"start":"soon"},"colour":1,"retryOf":"x"}"#;
        let mut found = fields(text);
        found.sort();
        found.dedup();
        assert_eq!(
            found,
            ["colour", "hub", "limit", "period.end", "period.start", "quantity", "retryOf", "side"]
        );
        assert_eq!(fields("[]"), [""]);
        let json = OrderSchema::load(POWER).unwrap().read("{");
        assert!(matches!(json, Err(InvalidOrder::Json(_))), "{json:?}");
    }

    #[test]
    fn a_schema_that_is_of_no_use_says_why() {
        let dir = std::env::temp_dir().join(format!("zonewire-schema-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text, part) in [
            ("text.json", "side: buy", "is not JSON"),
            ("type.json", r#"{"type":"orders"}"#, "is no JSON Schema"),
            ("remote.json", r#"{"$ref":"https://example.com/order.json"}"#, "is no JSON Schema"),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            let fault = OrderSchema::load(path.to_str().unwrap()).unwrap_err();
            assert!(fault.contains(part) && fault.contains(name), "{fault}");
        }
        assert!(OrderSchema::load("none.json").unwrap_err().contains("cannot be read"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
