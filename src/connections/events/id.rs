//! Ids of events: the position in each channel of the stream, in the order of the address.

use std::str::FromStr;

use crate::model::{ChannelName, InvalidPosition, Position};

/// The id of the last event of a stream that must not be reopened. A browser reopens it nevertheless, and
/// sends this.
pub(super) const FINAL: &str = "final";

/// Replaces a position for which there is no space: a position in no log. A client that resumes there
/// learns that what it missed is unknown, and gets everything that the log has.
const LOST: &str = "lost:0";

/// The longest id. It comes back in a request header, which proxies limit to 8 KiB.
const ID_BYTES_MAX: usize = 6 << 10;

/// What a client asks for when it reconnects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resume {
    /// Nothing: it reconnects although its stream ended for good.
    Not,
    /// The position in each channel, in the order of the address; `None` if none was announced yet.
    After(Vec<Option<Position>>),
}

impl FromStr for Resume {
    type Err = InvalidPosition;

    fn from_str(id: &str) -> Result<Self, InvalidPosition> {
        if id == FINAL {
            return Ok(Self::Not);
        }
        let position = |text: &str| match text.trim() {
            "" => Ok(None),
            text => text.parse().map(Some),
        };
        id.split(',').map(position).collect::<Result<_, _>>().map(Self::After)
    }
}

/// The id of an event after which the stream has these positions.
pub(super) fn id_of(places: &[(ChannelName, Option<Position>)]) -> String {
    let mut positions: Vec<String> =
        places.iter().map(|(_, place)| place.as_ref().map(Position::to_string).unwrap_or_default()).collect();
    let mut len = positions.iter().map(|position| position.len() + 1).sum::<usize>();
    while len > ID_BYTES_MAX
        && let Some(longest) = positions.iter_mut().max_by_key(|position| position.len())
        && longest.len() > LOST.len()
    {
        len -= longest.len() - LOST.len();
        LOST.clone_into(longest);
    }
    positions.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OFFSET_MAX;

    fn places(epochs: &[Option<String>]) -> Vec<(ChannelName, Option<Position>)> {
        let position = |epoch: &String| Position { epoch: epoch.parse().unwrap(), offset: OFFSET_MAX };
        let channel = |n: usize| format!("zone:z{n}").parse().unwrap();
        epochs.iter().enumerate().map(|(n, epoch)| (channel(n), epoch.as_ref().map(position))).collect()
    }

    #[test]
    fn an_id_says_the_position_in_each_channel_and_is_read_back() {
        let places = places(&[Some("e1".to_owned()), None, Some("v.e2.s".to_owned())]);
        let id = id_of(&places);
        assert_eq!(id, "e1:9007199254740991,,v.e2.s:9007199254740991");
        let positions: Vec<_> = places.into_iter().map(|(_, place)| place).collect();
        assert_eq!(id.parse(), Ok(Resume::After(positions.clone())));
        // A proxy may reformat it like other lists.
        assert_eq!(id.replace(',', ", ").parse(), Ok(Resume::After(positions)));
        assert_eq!(FINAL.parse(), Ok(Resume::Not));
        for text in ["e1", "e1:", "e1:1;e2:2", "e1:1,final", "e 1:1"] {
            assert_eq!(text.parse::<Resume>(), Err(InvalidPosition), "{text}");
        }
    }

    #[test]
    fn where_an_id_would_be_too_long_its_longest_positions_are_said_to_be_lost() {
        let mut epochs = vec![Some("0123456789abcdef".to_owned()); 100];
        assert!(!id_of(&places(&epochs)).contains(LOST));
        epochs.extend((0..28).map(|n| Some("f".repeat(997 + n))));
        let id = id_of(&places(&epochs));
        assert!(id.len() <= ID_BYTES_MAX && id.len() > ID_BYTES_MAX - 1_100, "{}", id.len());
        let Ok(Resume::After(positions)) = id.parse::<Resume>() else { panic!("{id}") };
        let kept =
            |position: &&Option<Position>| position.as_ref().is_some_and(|position| position.offset > 0);
        assert_eq!(positions[..100].iter().filter(kept).count(), 100, "the short ones are kept");
        assert_eq!(positions.len(), 128);
        // As long as the longest positions in all channels can make it.
        let all = id_of(&places(&vec![Some("f".repeat(1_024)); 128]));
        assert!(all.len() <= ID_BYTES_MAX && all.parse::<Resume>().is_ok());
    }
}
