//! Epochs that say more than which life of a log they are.
//!
//! While a node goes on without the log, and for as long as a reader has had entries that the log may
//! bring again, the epoch that clients are told says what was had. To clients it is an opaque text;
//! any node can read it, and so take up a reader that another node served.

use super::{Had, Seam};
use crate::model::{Epoch, NodeId, Position};

/// In place of a log's epoch in the name of a fork: it had none; nothing was known of it.
const UNBORN: &str = "u";
const UNKNOWN: &str = "0";

/// What an epoch's text says, where it is not simply that of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Life {
    /// A node's own, and what a reader had besides.
    Fork(Fork, Had),
    /// The log's, and what a reader had besides.
    View(Epoch, Had),
}

/// A node goes on by itself. Offsets count on from those of the log; up to `from` the entries are the
/// log's own, or those of forks of the same node after the same base. After it, the entry at offset
/// `from + n` is the node's own with sequence `seq + n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fork {
    /// The log's life that it goes on from; `None` where none was known.
    pub(super) log: Option<Epoch>,
    /// Where none was known: the log had none, or all of it is wanted, so that a reader has had nothing
    /// of whatever it turns out to hold but this node's entries.
    pub(super) unborn: bool,
    /// The offset in it up to which everything was had.
    pub(super) base: u64,
    /// The node.
    pub(super) node: NodeId,
    /// The node's newest sequence at `from`.
    pub(super) seq: u64,
    pub(super) from: u64,
}

impl Fork {
    /// What a reader at this offset has had after the base.
    pub(super) fn had_at(&self, offset: u64) -> Had {
        let mut had = Had::default();
        // Below `from` the offsets alone do not say which entries are the node's own.
        if offset >= self.from && offset > self.base {
            had.add(self.node, self.seq.saturating_add(offset - self.from));
        }
        had
    }

    pub(super) fn epoch(&self) -> Epoch {
        let none = if self.unborn { UNBORN } else { UNKNOWN };
        let log = self.log.as_ref().map_or(none, Epoch::as_str);
        let Self { base, node, seq, from, .. } = self;
        format!("f.{log}.{base}.{node}.{seq}.{from}").parse().expect("plain, and short enough")
    }

    /// What a reader at this offset has had after the base, and besides; `None` where that cannot be
    /// said.
    pub(super) fn had(&self, offset: u64, besides: &Had) -> Option<Had> {
        if self.base < offset && offset < self.from {
            return None;
        }
        let mut had = self.had_at(offset);
        had.merge(besides);
        Some(had)
    }

    /// Where a reader at this offset goes on in the log; `None` where it cannot be said what it has had.
    pub(super) fn seam_at(&self, offset: u64, besides: &Had) -> Option<Seam> {
        let had = self.had(offset, besides)?;
        let to = Position { epoch: self.log.clone()?, offset: self.base.min(offset) };
        Some(Seam { had, late_to: 0, ..Seam::whole(to) })
    }
}

impl Life {
    /// Reads an epoch; `None` where it is that of a log.
    pub(super) fn of(epoch: &Epoch) -> Option<Self> {
        let mut parts = epoch.as_str().split('.');
        let kind = parts.next()?;
        let log = Epoch::of_log(parts.next()?).ok()?;
        match kind {
            "f" => {
                let base = parts.next()?.parse().ok()?;
                let node = parts.next()?.parse().ok()?;
                let seq = parts.next()?.parse().ok()?;
                let from = parts.next()?.parse().ok()?;
                let unborn = log.as_str() == UNBORN;
                let log = (!unborn && log.as_str() != UNKNOWN).then_some(log);
                let fork = Fork { log, unborn, base, node, seq, from };
                (base <= from).then_some(Self::Fork(fork, producers(parts)?))
            }
            "v" => Some(Self::View(log, producers(parts)?)),
            _ => None,
        }
    }
}

/// The epoch to tell a reader that is in this life and has had entries that may come again in it or
/// in the one after it.
pub fn told_epoch(life: &Epoch, had: &Had) -> Epoch {
    if had.is_empty() {
        return life.clone();
    }
    let mut text = life.to_string();
    if !text.starts_with("f.") {
        text.insert_str(0, "v.");
    }
    had.iter().for_each(|(node, seq)| text.push_str(&format!(".{node}-{seq}")));
    // Where there are more producers than can be named, one that no node knows: a reader that comes back
    // with it is given all that is kept, and told so.
    text.parse().unwrap_or_else(|_| Epoch::random())
}

fn producers<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Had> {
    let mut had = Had::default();
    for pair in parts {
        let (node, seq) = pair.split_once('-')?;
        had.add(node.parse().ok()?, seq.parse().ok()?);
    }
    Some(had)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId(Uuid::from_u128(n))
    }

    fn had(producers: &[(u128, u64)]) -> Had {
        let mut had = Had::default();
        producers.iter().for_each(|(n, seq)| had.add(node(*n), *seq));
        had
    }

    proptest! {
        #[test]
        fn what_was_had_survives_its_text_form(
            known in any::<bool>(), unborn in any::<bool>(), base in any::<u64>(), seq in any::<u64>(), more in any::<u64>(),
            producers in proptest::collection::btree_map(any::<u128>(), 1u64.., 0..=15),
        ) {
            let log = Epoch::random();
            let from = base.saturating_add(more);
            let log_of_fork = known.then(|| log.clone());
            let fork = Fork { log: log_of_fork, unborn: unborn && !known, base, node: node(7), seq, from };
            let had = had(&producers.into_iter().collect::<Vec<_>>());
            let told = told_epoch(&fork.epoch(), &had);
            prop_assert_eq!(Life::of(&told), Some(Life::Fork(fork, had.clone())));
            let told = told_epoch(&log, &had);
            let read = Life::of(&told);
            prop_assert_eq!(read, (!had.is_empty()).then_some(Life::View(log, had)));
        }

        #[test]
        fn any_text_is_read_without_harm(text in "[fv]?[.]?[0-9a-f.-]{0,80}") {
            if let Ok(epoch) = text.parse::<Epoch>()
                && let Some(Life::Fork(fork, had)) = Life::of(&epoch)
            {
                let _ = fork.seam_at(u64::MAX, &had);
            }
        }
    }

    #[test]
    fn an_epoch_of_a_log_says_no_more() {
        assert_eq!(Life::of(&Epoch::random()), None);
        assert_eq!(Life::of(&"f.x".parse().unwrap()), None);
    }

    #[test]
    fn a_fork_of_a_log_that_had_no_life_is_told_from_one_of_which_nothing_was_known() {
        let fork = Fork { log: None, unborn: true, base: 0, node: node(1), seq: 4, from: 0 };
        let life = |fork: &Fork| Life::of(&fork.epoch());
        assert_eq!(life(&fork), Some(Life::Fork(fork.clone(), Had::default())));
        assert_eq!(fork.had(2, &had(&[(2, 9)])), Some(had(&[(1, 6), (2, 9)])));
        assert_eq!(fork.seam_at(2, &Had::default()), None, "which log it is, it does not say");
        let unknown = Fork { unborn: false, ..fork };
        assert_eq!(life(&unknown), Some(Life::Fork(unknown.clone(), Had::default())));
    }

    #[test]
    fn what_is_too_long_for_the_epoch_of_a_log_is_not_one() {
        for text in ["x".repeat(33), "f.1".to_owned(), "é".to_owned(), String::new()] {
            assert!(Epoch::of_log(&text).is_err(), "{text}");
        }
        let of_log = Epoch::of_log(&"x".repeat(32)).unwrap();
        let fork = Fork {
            log: Some(of_log),
            unborn: false,
            base: u64::MAX,
            node: node(u128::MAX),
            seq: u64::MAX,
            from: u64::MAX,
        };
        assert_eq!(Life::of(&fork.epoch()), Some(Life::Fork(fork, Had::default())));
    }

    #[test]
    fn more_producers_than_can_be_named_are_no_lie() {
        let many: Vec<(u128, u64)> = (0..30).map(|n| (n, 1)).collect();
        assert_eq!(Life::of(&told_epoch(&Epoch::random(), &had(&many))), None);
    }

    #[test]
    fn a_fork_says_what_was_had_at_each_offset() {
        let fork =
            Fork { log: Some(Epoch::random()), unborn: false, base: 10, node: node(1), seq: 4, from: 10 };
        let at = |offset| {
            let seam = fork.seam_at(offset, &Had::default()).unwrap();
            (seam.to.offset, seam.had)
        };
        assert_eq!(at(7), (7, Had::default()));
        assert_eq!(at(10), (10, Had::default()));
        assert_eq!(at(13), (10, had(&[(1, 7)])));
        let later = Fork { seq: 9, from: 13, ..fork };
        assert_eq!(later.seam_at(13, &Had::default()).unwrap().had, had(&[(1, 9)]));
        assert_eq!(later.seam_at(12, &Had::default()), None, "not to be told");
    }
}
