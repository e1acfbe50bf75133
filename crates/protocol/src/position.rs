//! Positions in channels.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::text::text;

/// The longest epoch, in bytes. Those of logs are short; those of forks contain a version vector.
const EPOCH_LEN_MAX: usize = 1_024;

/// One incarnation of a channel's log. Opaque to clients: offsets of different epochs cannot be compared.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(ts_rs::TS), ts(type = "string"))]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// The longest epoch of a log, in characters; new ones have 16.
    const OF_LOG_LEN_MAX: usize = 32;

    /// Stands for the epoch of the log in the epoch of a fork if that is not known.
    pub const OF_NO_LOG: &str = "0";

    /// Parses the epoch of a log, as opposed to that of a fork, which is longer or has dots, and to
    /// [`OF_NO_LOG`](Self::OF_NO_LOG).
    ///
    /// # Errors
    /// The text is not the epoch of a log.
    pub fn of_log(text: &str) -> Result<Self, InvalidPosition> {
        if text.len() > Self::OF_LOG_LEN_MAX || text.contains('.') || text == Self::OF_NO_LOG {
            Err(InvalidPosition)
        } else {
            text.parse()
        }
    }

    /// A new epoch: 64 random bits as 16 hexadecimal digits.
    pub fn random() -> Self {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        // A UUID has fixed bits in either half; combined, every bit is random.
        Self::of_bits(high.rotate_left(32) ^ low)
    }

    /// The epoch with these random bits.
    pub fn of_bits(bits: u64) -> Self {
        Self(format!("{bits:016x}").into())
    }
}

impl FromStr for Epoch {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let valid = (1..=EPOCH_LEN_MAX).contains(&text.len()) && text.bytes().all(plain);
        if valid { Ok(Self(text.into())) } else { Err(InvalidPosition) }
    }
}

text! {
    Epoch,
    InvalidPosition,
    "One incarnation of the log of a channel. Opaque.",
    "^[A-Za-z0-9._-]{1,1024}$"
}

/// The greatest offset: whole numbers up to here are exact in JavaScript and in Lua.
pub const OFFSET_MAX: u64 = (1 << 53) - 1;

/// A point in a channel: just after the entry with this offset. Offset 0 is before the first entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct Position {
    /// The epoch that `offset` belongs to.
    pub epoch: Epoch,
    /// The offset of the last entry that was received; entries count from 1. Below 2^53.
    #[serde(deserialize_with = "offset")]
    #[cfg_attr(feature = "schema", schemars(range(max = 9_007_199_254_740_991_u64)))]
    pub offset: u64,
}

/// A text that is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a position: expected `<epoch>:<offset>`, the epoch of the last `subscribed`, `resync` or `snapshot_end` and the offset of the last entry"
)]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, offset) = text.rsplit_once(':').ok_or(InvalidPosition)?;
        let offset = offset.parse().ok().filter(|offset| *offset <= OFFSET_MAX);
        Ok(Self { epoch: epoch.parse()?, offset: offset.ok_or(InvalidPosition)? })
    }
}

fn offset<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let offset = u64::deserialize(from)?;
    let expected = "a whole number below 2^53";
    let found = Unexpected::Unsigned(offset);
    if offset <= OFFSET_MAX { Ok(offset) } else { Err(D::Error::invalid_value(found, &expected)) }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_survives_its_text_form() {
        let position = Position { epoch: Epoch::random(), offset: OFFSET_MAX };
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn what_is_not_a_position_is_refused() {
        for text in ["", ":", "5", "abc:", ":5", "abc:-1", "abc:1.5", "a b:1", "abc:9007199254740992"] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_as_a_position_is_written_as_the_same(text in "[a-z.:+0-9 -]{0,24}") {
            if let Ok(position) = text.parse::<Position>() {
                prop_assert_eq!(position.to_string().parse(), Ok(position));
            }
        }
    }
}
