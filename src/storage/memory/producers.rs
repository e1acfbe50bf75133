//! The newest sequence of each producer of a channel.

use tokio::time::Instant;

use crate::model::NodeId;

/// By producer the newest sequence that was applied, and when it came. A list in the order of the producers'
/// ids: nearly all channels have one or two producers, for which a map would take four times the room.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Producers(Vec<(NodeId, (u64, Instant))>);

impl Producers {
    fn place(&self, producer: NodeId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&producer, |(node, _)| *node)
    }

    /// The newest sequence of a producer, and when it came.
    pub(super) fn get(&self, producer: NodeId) -> Option<(u64, Instant)> {
        self.place(producer).ok().map(|place| self.0[place].1)
    }

    /// Takes note of a sequence, unless a newer one is known.
    pub(super) fn note(&mut self, producer: NodeId, seq: u64, now: Instant) {
        match self.place(producer) {
            Ok(place) if self.0[place].1.0 < seq => self.0[place].1 = (seq, now),
            Ok(_) => {}
            Err(place) => {
                if self.0.len() < 4 {
                    self.0.reserve_exact(1);
                }
                self.0.insert(place, (producer, (seq, now)));
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, u64, Instant)> {
        self.0.iter().map(|(node, (seq, came))| (*node, *seq, *came))
    }

    /// Forgets the producers of which `stays` is false.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(NodeId, Instant) -> bool) {
        self.0.retain(|(node, (_, came))| stays(*node, *came));
    }
}
