//! What the probes of parsers share: see [`crate::probes`].

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::json::check_json;

/// The time in probes, so that their findings can be reproduced.
pub(crate) const NOW: DateTime<Utc> = DateTime::from_timestamp_nanos(1_760_000_000_000_000_000);

/// The bytes as text; parsers of text get nothing else.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The bytes in pieces: one by one, in small ones, and in two that are split where the bytes themselves
/// decide.
pub(crate) fn cuts(bytes: &[u8]) -> [Vec<&[u8]>; 3] {
    let sum =
        bytes.iter().fold(bytes.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let (before, after) = bytes.split_at(sum % (bytes.len() + 1));
    [bytes.chunks(1).collect(), bytes.chunks(2 + sum % 13).collect(), vec![before, after]]
}

/// Parses JSON that each consumer of a stream must be able to read.
///
/// # Panics
/// It is not such JSON.
pub(crate) fn json(text: &str) -> Value {
    assert_eq!(check_json(text), Ok(()), "{text}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Checks a text for the sender of some input: it must be short, and fit on one line of a log.
///
/// # Panics
/// It is not.
pub(crate) fn told(text: &str) {
    assert!(text.len() <= 2_000, "{} bytes are told: {:?}", text.len(), text.get(..200));
    assert!(!text.chars().any(char::is_control), "control characters are told: {text:?}");
}
