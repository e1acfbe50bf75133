//! The hybrid logical clock of each record. Its versions follow the time where clocks agree, and grow with
//! each write of a record wherever it is made.

use std::fmt;
use std::str::FromStr;

use crate::model::NodeId;

/// The end of the year 9999: RFC 3339 cannot express any time after it.
const MS_MAX: u64 = 253_402_300_799_999;

/// The version of a record, or of its removal. Versions as text compare as versions do, and their
/// milliseconds compare as the storage compares the times of entries. Writes have even milliseconds and
/// removals odd ones, so that the removal of a version always fits before the next version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Milliseconds since 1970 by the writer's clock, or just above those of the previous version if that
    /// came from a faster clock.
    pub(super) ms: u64,
    /// The writer, so that no two versions of a record are equal.
    pub(super) node: u64,
}

impl Version {
    /// The next version by a node's wall clock, greater than the record's previous one.
    pub(super) fn next(wall_ms: u64, node: u64, before: Option<Self>) -> Self {
        let ms = wall_ms.max(before.map_or(0, |before| before.ms + 1)).min(MS_MAX - 3);
        Self { ms: ms.next_multiple_of(2), node }
    }

    /// The version that removes exactly this one, the same on every node. Any later write is greater.
    pub(super) fn removal(self) -> Self {
        Self { ms: self.ms | 1, ..self }
    }

    /// Whether this is the version of a removal.
    pub(super) fn is_removal(self) -> bool {
        self.ms % 2 == 1
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{:016x}", self.ms, self.node)
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |part: &str, len| {
            let is_plain = part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            u64::from_str_radix(part, 16).ok().filter(|_| is_plain)
        };
        let parts = text.split_once('-');
        let version = parts.and_then(|(ms, node)| Some(Self { ms: read(ms, 12)?, node: read(node, 16)? }));
        version
            .filter(|version| version.ms <= MS_MAX)
            .ok_or_else(|| "not a version: expected 12 and 16 hexadecimal digits with `-` between".to_owned())
    }
}

/// The part of a node's id that versions contain; it orders as the id does.
pub(super) fn short_of(node: NodeId) -> u64 {
    node.0.as_u64_pair().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_greater_than_the_one_before_whatever_the_clocks_say() {
        let first = Version::next(3_600_000, 2, None);
        let answer = Version::next(0, 1, Some(first));
        assert!(answer > first && answer.to_string() > first.to_string());
        assert!(Version::next(0, 1, Some(answer)) > answer);
        assert_eq!(Version::next(7_200_000, 1, Some(answer)).ms, 7_200_000);
        let removal = first.removal();
        assert!(removal > first && removal.is_removal() && !first.is_removal() && !answer.is_removal());
        let again = Version::next(0, 1, Some(removal));
        assert!(again > removal && !again.is_removal());
        assert_eq!(answer.to_string().parse(), Ok(answer));
        for text in ["", "1-2", "00000000000+-0000000000000000", "ffffffffffff-0000000000000000", "ü"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
