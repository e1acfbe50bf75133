//! Positions in a log that has no life yet.
//!
//! A channel that nobody has published to can be followed, and that makes nothing. What its readers
//! are told is `u.<epoch>` and offset 0: they have had nothing of whatever the log comes to hold. The
//! epoch in it is the one that the first append on this node begins the log with, so that they need
//! not be told of the beginning: `u.<epoch>:3` is `<epoch>:3`. Any node can read it. If another one
//! began the log, with another epoch, `u.<epoch>:0` still says that nothing was had.

use crate::model::{Epoch, Position};

const PREFIX: &str = "u.";

/// How a log is called that has no life, and is to begin one as this.
pub(crate) fn unborn(epoch: &Epoch) -> Epoch {
    format!("{PREFIX}{epoch}").parse().unwrap_or_else(|_| epoch.clone())
}

/// What it is to begin its life as; `None` where the epoch says nothing of that kind.
pub(crate) fn to_be_born(epoch: &Epoch) -> Option<Epoch> {
    let rest = epoch.as_str().strip_prefix(PREFIX)?;
    rest.parse().ok().filter(|_| !rest.contains('.'))
}

/// The same position in the log's own terms; `None` where nothing was had of the log.
pub(crate) fn in_log(position: Position) -> Option<Position> {
    match to_be_born(&position.epoch) {
        None => Some(position),
        Some(_) if position.offset == 0 => None,
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
        for other in ["u", "u.", "u.a.b", "f.u.0.0.0.0", "v.a", epoch.as_str()] {
            let Ok(other) = other.parse::<Epoch>() else { continue };
            assert_eq!(in_log(at(&other, 0)), Some(at(&other, 0)), "{other}");
        }
    }
}
