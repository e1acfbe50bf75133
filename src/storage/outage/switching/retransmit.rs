//! The retransmit buffers: entries that the log acknowledged to this node, in case it loses them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::NodeId;
use crate::storage::Append;

/// The most entries that are kept of each channel.
pub(super) const TAIL_MAX: usize = 1_000;

/// The newest own entries of a channel that the log is known to have had, by sequence.
#[derive(Debug, Default)]
pub(super) struct RetransmitBuffer {
    entries: BTreeMap<u64, Kept>,
    /// What they cost.
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    append: Append,
    since: Instant,
}

impl RetransmitBuffer {
    /// Keeps an entry in place of what is kept under its sequence.
    pub(super) fn keep(&mut self, append: Append) {
        self.bytes += append.draft.cost();
        if let Some(before) = self.entries.insert(append.seq, Kept { append, since: Instant::now() }) {
            self.bytes -= before.append.draft.cost();
        }
        if self.entries.len() > TAIL_MAX {
            self.pop_first();
        }
    }

    /// Drops what the log would not keep any more: entries of this age, or, where a channel expires `together`,
    /// all of them when the newest has this age.
    pub(super) fn expire(&mut self, age: Duration, together: bool) {
        let is_old = |kept: &Kept| kept.since.elapsed() >= age;
        if together {
            if self.entries.last_key_value().is_some_and(|(_, newest)| is_old(newest)) {
                self.clear();
            }
            return;
        }
        while self.entries.first_key_value().is_some_and(|(_, oldest)| is_old(oldest)) {
            self.pop_first();
        }
    }

    fn pop_first(&mut self) {
        if let Some((_, oldest)) = self.entries.pop_first() {
            self.bytes -= oldest.append.draft.cost();
        }
    }

    /// Whether an entry with this sequence is kept.
    pub(super) fn has(&self, seq: u64) -> bool {
        self.entries.contains_key(&seq)
    }

    /// The sequence of the newest.
    pub(super) fn newest(&self) -> Option<u64> {
        self.entries.last_key_value().map(|(seq, _)| *seq)
    }

    /// Whether an entry is kept after a sequence and up to another one.
    pub(super) fn has_after(&self, seq: u64, up_to: u64) -> bool {
        seq < up_to && self.entries.range(seq + 1..=up_to).next().is_some()
    }

    /// The entries after a sequence, as they are appended again: without the fencing tokens under which the log
    /// took them.
    pub(super) fn after(&self, seq: u64) -> Vec<Append> {
        let later = self.entries.range(seq.saturating_add(1)..);
        later.map(|(_, kept)| Append { fence: None, ..kept.append.clone() }).collect()
    }

    /// What they cost, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The newest entries of a channel that this node appended and whose ids come from elsewhere (those of trades
/// from an exchange), in the order of the appends.
#[derive(Debug, Default)]
pub(super) struct ForeignBuffer {
    entries: VecDeque<(NodeId, Kept)>,
    /// What they cost.
    bytes: usize,
}

impl ForeignBuffer {
    pub(super) fn keep(&mut self, producer: NodeId, append: Append) {
        self.bytes += append.draft.cost();
        self.entries.push_back((producer, Kept { append, since: Instant::now() }));
        if self.entries.len() > TAIL_MAX {
            self.pop_first();
        }
    }

    /// Drops entries of this age, which the log would not keep any more.
    pub(super) fn expire(&mut self, age: Duration) {
        while self.entries.front().is_some_and(|(_, oldest)| oldest.since.elapsed() >= age) {
            self.pop_first();
        }
    }

    fn pop_first(&mut self) {
        if let Some((_, oldest)) = self.entries.pop_front() {
            self.bytes -= oldest.append.draft.cost();
        }
    }

    /// By producer, the entries after the newest one that the log has (`had`), in order of sequence.
    pub(super) fn after(&self, had: impl Fn(NodeId) -> u64) -> BTreeMap<NodeId, Vec<Append>> {
        let mut by_producer: BTreeMap<NodeId, BTreeMap<u64, Append>> = BTreeMap::new();
        for (producer, Kept { append, .. }) in &self.entries {
            if append.seq > had(*producer) {
                by_producer.entry(*producer).or_default().insert(append.seq, append.clone());
            }
        }
        by_producer.into_iter().map(|(producer, held)| (producer, held.into_values().collect())).collect()
    }

    /// Whether an entry of a producer with a greater sequence is kept.
    pub(super) fn has_after(&self, producer: NodeId, seq: u64) -> bool {
        self.entries.iter().any(|(of, kept)| *of == producer && kept.append.seq > seq)
    }

    /// What they cost, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DraftEntry;

    fn append(seq: u64, len: usize) -> Append {
        Append { seq, prev: seq - 1, draft: DraftEntry::price(0, vec![b'x'; len]), fence: Some(3) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_log_would_not_keep_is_let_go() {
        let (mut zone, mut order, age) =
            (RetransmitBuffer::default(), RetransmitBuffer::default(), Duration::from_secs(60));
        for seq in [1, 2] {
            zone.keep(append(seq, 1));
            order.keep(append(seq, 1));
            tokio::time::advance(age / 2).await;
        }
        zone.expire(age, false);
        order.expire(age, true);
        assert_eq!((zone.after(0).len(), order.after(0).len()), (1, 2));
        tokio::time::advance(age / 2).await;
        zone.expire(age, false);
        order.expire(age, true);
        assert_eq!((zone.newest(), order.newest(), zone.bytes()), (None, None, 0));
    }

    #[test]
    fn the_newest_are_kept_and_their_cost_is_known() {
        let mut retransmit = RetransmitBuffer::default();
        for seq in 1..=TAIL_MAX as u64 + 5 {
            retransmit.keep(append(seq, 10));
        }
        retransmit.keep(append(900, 20));
        let kept = retransmit.after(0);
        assert_eq!((kept.len(), kept[0].seq, retransmit.newest()), (TAIL_MAX, 6, Some(TAIL_MAX as u64 + 5)));
        assert_eq!(retransmit.bytes(), kept.iter().map(|append| append.draft.cost()).sum::<usize>());
        assert!(retransmit.has(6) && !retransmit.has(5) && kept.iter().all(|append| append.fence.is_none()));
        retransmit.clear();
        assert_eq!((retransmit.bytes(), retransmit.newest()), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn foreign_entries_are_kept_by_age_and_count_and_put_back_by_producer() {
        let [a, b] = [1, 2].map(|n| NodeId(uuid::Uuid::from_u128(n)));
        let mut foreign = ForeignBuffer::default();
        for seq in 1..=4 {
            foreign.keep(if seq % 2 == 0 { a } else { b }, append(seq, 5));
        }
        foreign.keep(a, append(4, 5));
        let seqs = |of: BTreeMap<NodeId, Vec<Append>>| -> Vec<(NodeId, Vec<u64>)> {
            of.into_iter()
                .map(|(node, held)| (node, held.iter().map(|append| append.seq).collect()))
                .collect()
        };
        assert_eq!(seqs(foreign.after(|_| 0)), [(a, vec![2, 4]), (b, vec![1, 3])]);
        assert_eq!(seqs(foreign.after(|node| if node == a { 4 } else { 1 })), [(b, vec![3])]);
        tokio::time::advance(Duration::from_secs(10)).await;
        for seq in 5..5 + TAIL_MAX as u64 - 1 {
            foreign.keep(b, append(seq, 1));
        }
        assert_eq!(seqs(foreign.after(|node| if node == a { 0 } else { u64::MAX })), [(a, vec![4])]);
        foreign.expire(Duration::from_secs(10));
        assert_eq!(seqs(foreign.after(|_| 1_000)).len(), 1, "the older one has gone");
        foreign.expire(Duration::ZERO);
        assert!(foreign.after(|_| 0).is_empty() && foreign.bytes() == 0);
    }
}
