//! Validated names. A name is never a pattern and never a path.

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::text;

/// The longest zone name, in bytes.
pub const NAME_LEN_MAX: usize = 64;

/// The form of a zone's name, for error messages.
const FORM: &str = "1 to 64 of A-Z a-z 0-9 . _ : -";

/// A name that does not have the form of its kind; zones have `[A-Za-z0-9._:-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not a valid {what}: expected {expected}")]
pub struct InvalidName {
    what: &'static str,
    expected: &'static str,
    shown: String,
}

impl InvalidName {
    pub(crate) fn new(what: &'static str, expected: &'static str, found: &str) -> Self {
        // A name from outside may be long or hold control characters; an error must carry neither.
        let mut shown: String = found.chars().take(NAME_LEN_MAX).flat_map(char::escape_default).collect();
        if found.chars().nth(NAME_LEN_MAX).is_some() {
            shown.push('…');
        }
        Self { what, expected, shown }
    }
}

pub(crate) fn is_valid_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

/// A market area whose prices are streamed, such as `pjm`, `ercot` or `btc-usdt`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(ts_rs::TS), ts(type = "string"))]
pub struct Zone(Arc<str>);

impl FromStr for Zone {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        if is_valid_name(name) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidName::new("zone name", FORM, name))
        }
    }
}

text! {
    Zone,
    InvalidName,
    "The name of a zone.",
    "^[A-Za-z0-9._:-]{1,64}$"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_name_is_1_to_64_plain_characters() {
        for name in ["pjm", "btc-usdt", "a.b_c:D-9", &"z".repeat(64)] {
            assert_eq!(name.parse::<Zone>().unwrap().as_str(), name);
        }
        for name in ["", "a b", "a/b", "zürich", "a*", "../x", "a\n", &"z".repeat(65)] {
            assert!(name.parse::<Zone>().is_err(), "{name:?} must be refused");
        }
    }

    #[test]
    fn the_error_neither_repeats_control_characters_nor_grows_with_the_input() {
        let text = format!("a\x1b[2J{}", "x".repeat(10_000)).parse::<Zone>().unwrap_err().to_string();
        assert!(!text.contains('\x1b') && text.len() < 300, "{text}");
    }
}
