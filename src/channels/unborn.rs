//! Positions in a log that does not exist yet.
//!
//! Following a channel that nobody has published to does not create its log. Its readers are told the
//! position `u.<epoch>:0`: they have received nothing of whatever the log will contain. If the first append is
//! made on this node, the log starts with that epoch, so readers need no notice: `u.<epoch>:3` means
//! `<epoch>:3`. Any node can read such a position. If another node started the log, with another epoch,
//! `u.<epoch>:0` still says that nothing was received.

use crate::model::{Epoch, Position};
use crate::storage::{VersionVector, told_epoch};

const PREFIX: &str = "u.";
/// Follows the epoch if it is unknown what a reader has received of earlier logs.
const UNKNOWN: &str = ".d";
/// Follows the epoch if the reader was to begin with a snapshot, and has not been told yet that it is
/// empty.
const PART: &str = ".s";

/// The epoch for readers of a log that does not exist, and will start with `epoch`.
pub(crate) fn unborn(epoch: &Epoch) -> Epoch {
    marked(epoch, "")
}

/// The same with [`UNKNOWN`] or [`PART`].
fn marked(epoch: &Epoch, mark: &str) -> Epoch {
    format!("{PREFIX}{epoch}{mark}").parse().unwrap_or_else(|_| epoch.clone())
}

/// The epoch as a reader is told it, with what the reader has received, or is owed, besides the entries up to
/// its offset.
pub(crate) fn told(log_epoch: &Epoch, had: &VersionVector) -> Epoch {
    match to_be_born(log_epoch) {
        Some(minted) if *had == VersionVector::unknown() => marked(&minted, UNKNOWN),
        Some(minted) if *had == VersionVector::of_part() => marked(&minted, PART),
        // With producers in the version vector no node can read the result: a reader that resumes with it
        // is told that what it has received is unknown.
        _ => told_epoch(log_epoch, had),
    }
}

/// The epoch that the log will start with; `None` if `epoch` is not of this form.
pub(crate) fn to_be_born(epoch: &Epoch) -> Option<Epoch> {
    let rest = epoch.as_str().strip_prefix(PREFIX)?;
    let rest = rest.strip_suffix(UNKNOWN).or(rest.strip_suffix(PART)).unwrap_or(rest);
    rest.parse().ok().filter(|_| !rest.contains('.'))
}

/// The position in the log's own terms; `None` if nothing of the log was received.
pub(crate) fn in_log(position: Position) -> Option<Position> {
    let is_unknown = position.epoch.as_str().ends_with(UNKNOWN);
    match to_be_born(&position.epoch) {
        None => Some(position),
        // Only the position itself has this information.
        Some(_) if position.epoch.as_str().ends_with(PART) => Some(position),
        Some(_) if position.offset == 0 => Some(position).filter(|_| is_unknown),
        Some(epoch) if is_unknown => {
            Some(Position { epoch: told_epoch(&epoch, &VersionVector::unknown()), ..position })
        }
        Some(epoch) => Some(Position { epoch, ..position }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_before_the_birth_of_a_log_says_so_and_no_other_does() {
        let epoch = Epoch::random();
        let told = unborn(&epoch);
        assert_eq!(to_be_born(&told), Some(epoch.clone()));
        let at = |epoch: &Epoch, offset| Position { epoch: epoch.clone(), offset };
        assert_eq!(in_log(at(&told, 0)), None);
        assert_eq!(in_log(at(&told, 3)), Some(at(&epoch, 3)));
        let unknown = marked(&epoch, UNKNOWN);
        assert_eq!(to_be_born(&unknown), Some(epoch.clone()));
        assert_eq!(in_log(at(&unknown, 0)), Some(at(&unknown, 0)));
        assert_eq!(in_log(at(&unknown, 3)).unwrap().epoch.as_str(), format!("v.{epoch}.d0"));
        let part = super::told(&told, &VersionVector::of_part());
        assert_eq!(
            (part.as_str(), to_be_born(&part)),
            (format!("u.{epoch}.s").as_str(), Some(epoch.clone()))
        );
        assert_eq!(in_log(at(&part, 0)), Some(at(&part, 0)));
        for other in ["u", "u.", "u.a.b", "f.u.0.0.0.0", "v.a", epoch.as_str()] {
            let Ok(other) = other.parse::<Epoch>() else { continue };
            assert_eq!(in_log(at(&other, 0)), Some(at(&other, 0)), "{other}");
        }
    }
}
