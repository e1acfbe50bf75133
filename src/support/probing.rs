//! What the probes of parsers share: see [`crate::probes`].

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::json::check_json;

/// The time at which probes are, so that what they find is found again.
pub(crate) const NOW: DateTime<Utc> = DateTime::from_timestamp_nanos(1_760_000_000_000_000_000);

/// The text that the bytes are; nothing else is given to what reads texts.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The same bytes in pieces: one by one, in small ones, and in two that meet where the bytes themselves say.
pub(crate) fn cuts(bytes: &[u8]) -> [Vec<&[u8]>; 3] {
    let sum =
        bytes.iter().fold(bytes.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let (before, after) = bytes.split_at(sum % (bytes.len() + 1));
    [bytes.chunks(1).collect(), bytes.chunks(2 + sum % 13).collect(), vec![before, after]]
}

/// JSON that each of the readers of a stream can read.
///
/// # Panics
/// It is none.
pub(crate) fn json(text: &str) -> Value {
    assert_eq!(check_json(text), Ok(()), "{text}");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What is told to somebody who sent something: short, and fit for a line of a log.
///
/// # Panics
/// It is not.
pub(crate) fn told(text: &str) {
    assert!(text.len() <= 2_000, "{} bytes are told: {:?}", text.len(), text.get(..200));
    assert!(!text.chars().any(char::is_control), "control characters are told: {text:?}");
}
