//! Positions in a log that has no life yet.
//!
//! A channel that nobody has published to can be followed, and that makes nothing. What its readers
//! are told is `u.<epoch>` and offset 0: they have had nothing of whatever the log comes to hold. The
//! epoch in it is the one that the first append on this node begins the log with, so that they need
//! not be told of the beginning: `u.<epoch>:3` is `<epoch>:3`. Any node can read it. If another one
//! began the log, with another epoch, `u.<epoch>:0` still says that nothing was had.

use crate::model::{Epoch, Position};
use crate::storage::{Had, told_epoch};

const PREFIX: &str = "u.";
/// Behind the epoch where it cannot be said what a reader had of logs before.
const DOUBT: &str = ".d";
/// Where its reader was to begin with a snapshot, and was not told yet that there is nothing in it.
const PART: &str = ".s";

/// How a log is called that has no life, and is to begin one as this.
pub(crate) fn unborn(epoch: &Epoch) -> Epoch {
    format!("{PREFIX}{epoch}").parse().unwrap_or_else(|_| epoch.clone())
}

/// The same for a reader of which it cannot be said what it had of logs before.
pub(crate) fn unborn_in_doubt(epoch: &Epoch) -> Epoch {
    format!("{PREFIX}{epoch}{DOUBT}").parse().unwrap_or_else(|_| epoch.clone())
}

/// How a life is told to a reader that has had, or is owed, something besides.
pub(crate) fn told(life: &Epoch, had: &Had) -> Epoch {
    match to_be_born(life) {
        Some(minted) if *had == Had::unknown() => unborn_in_doubt(&minted),
        Some(minted) if *had == Had::of_part() => format!("{PREFIX}{minted}{PART}").parse().unwrap_or(minted),
        // With producers besides it is a name that no node can read: a reader that comes back with it is told
        // that it cannot be said what it had.
        _ => told_epoch(life, had),
    }
}

/// What it is to begin its life as; `None` where the epoch says nothing of that kind.
pub(crate) fn to_be_born(epoch: &Epoch) -> Option<Epoch> {
    let rest = epoch.as_str().strip_prefix(PREFIX)?;
    let rest = rest.strip_suffix(DOUBT).or(rest.strip_suffix(PART)).unwrap_or(rest);
    rest.parse().ok().filter(|_| !rest.contains('.'))
}

/// The same position in the log's own terms; `None` where nothing was had of the log.
pub(crate) fn in_log(position: Position) -> Option<Position> {
    let in_doubt = position.epoch.as_str().ends_with(DOUBT);
    match to_be_born(&position.epoch) {
        None => Some(position),
        // What it says is known nowhere else.
        Some(_) if position.epoch.as_str().ends_with(PART) => Some(position),
        Some(_) if position.offset == 0 => Some(position).filter(|_| in_doubt),
        Some(epoch) if in_doubt => Some(Position { epoch: told_epoch(&epoch, &Had::unknown()), ..position }),
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
        let doubtful = unborn_in_doubt(&epoch);
        assert_eq!(to_be_born(&doubtful), Some(epoch.clone()));
        assert_eq!(in_log(at(&doubtful, 0)), Some(at(&doubtful, 0)));
        assert_eq!(in_log(at(&doubtful, 3)).unwrap().epoch.as_str(), format!("v.{epoch}.d0"));
        let part = super::told(&told, &Had::of_part());
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
