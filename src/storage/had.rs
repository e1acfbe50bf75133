//! What a reader has had that a log may bring again.

use crate::model::{EntryId, NodeId};

/// By producer the newest sequence that a reader has had, of producers whose entries may come again:
/// those of a fork, which the log has elsewhere, and those that nodes put back into a log that had
/// lost them. Empty for most readers at most times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Had(Vec<(NodeId, u64)>);

impl Had {
    /// Nothing can come again.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Producers in order, with the newest sequence had of each.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.0.iter().copied()
    }

    /// Whether entries of this producer may come again.
    pub fn names(&self, producer: NodeId) -> bool {
        self.0.binary_search_by_key(&producer, |(node, _)| *node).is_ok()
    }

    /// Everything of this producer up to `seq` was had.
    pub fn add(&mut self, producer: NodeId, seq: u64) {
        if seq == 0 {
            return;
        }
        match self.0.binary_search_by_key(&producer, |(node, _)| *node) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(seq),
            Err(at) => self.0.insert(at, (producer, seq)),
        }
    }

    /// The same for all that another one holds.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(producer, seq)| self.add(producer, seq));
    }

    /// An entry came from the log: says whether it was had before. A producer's entries come in order,
    /// so that after its newest one that was had, nothing of it comes again.
    pub fn came(&mut self, id: EntryId) -> bool {
        let Ok(at) = self.0.binary_search_by_key(&id.producer, |(node, _)| *node) else { return false };
        let newest = self.0[at].1;
        if id.seq >= newest {
            self.0.remove(at);
        }
        id.seq <= newest
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_had_is_known_until_it_has_come_again() {
        let [a, b] = [1, 2].map(|n| NodeId(Uuid::from_u128(n)));
        let mut had = Had::default();
        had.add(b, 4);
        had.add(a, 2);
        had.add(b, 3);
        had.add(a, 0);
        let mut came = |producer, seq| had.came(EntryId { producer, seq });
        assert!(came(a, 1) && came(b, 3) && came(a, 2));
        assert!(!came(a, 3) && !came(b, 5), "what follows is new");
        assert!(had.is_empty());
    }
}
