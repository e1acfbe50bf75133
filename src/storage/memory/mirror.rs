//! The local replica of a log that is elsewhere, so that a fork can continue it when the log cannot be
//! reached.

use std::time::Duration;

use tokio::time::Instant;

use super::{Channel, Kept, MemoryBackend};
use crate::model::{ChannelName, ChannelPolicy, Entry, EntryId, Epoch, NodeId};
use crate::storage::{AppendBatch, Appended, Bounds};

/// The state of a local replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Mirrored {
    pub(in crate::storage) epoch: Epoch,
    /// The newest offset up to which every entry has been seen.
    pub(in crate::storage) top: u64,
}

impl MemoryBackend {
    /// The state of a channel's replica; `None` if there is none.
    pub(in crate::storage) fn mirrored(&self, name: &ChannelName) -> Option<Mirrored> {
        let state = self.shared.state.lock();
        let channel = state.channels.get(name)?;
        Some(Mirrored { epoch: channel.epoch.clone(), top: channel.top })
    }

    /// The newest offset up to which nothing is missing; `None` if there is no replica.
    pub(in crate::storage) fn top(&self, name: &ChannelName) -> Option<u64> {
        self.shared.state.lock().channels.get(name).map(|channel| channel.top)
    }

    /// Whether the replica holds other entries than these at the same offsets of the log. `entries` is
    /// ascending.
    pub(in crate::storage) fn contradicts(
        &self,
        name: &ChannelName,
        epoch: &Epoch,
        entries: &[Entry],
    ) -> bool {
        let state = self.shared.state.lock();
        let Some(channel) = state.channels.get(name).filter(|channel| channel.epoch == *epoch) else {
            return false;
        };
        // From the first difference on, all entries differ, so comparing the newest common one is enough.
        let newest = entries.iter().rev().find(|entry| entry.offset <= channel.top);
        let kept = newest.and_then(|newest| {
            let index = usize::try_from(newest.offset.checked_sub(channel.first())?).ok()?;
            Some((newest, &channel.entries.get(index)?.entry))
        });
        kept.is_some_and(|(newest, kept)| kept.offset == newest.offset && kept.id != newest.id)
    }

    /// The oldest offset whose entry is kept; `None` if there is no replica.
    pub(in crate::storage) fn first(&self, name: &ChannelName) -> Option<u64> {
        self.shared.state.lock().channels.get(name).map(|channel| channel.first())
    }

    /// The retention age of entries. The updates of an order expire together, this long after the newest of
    /// them.
    pub(in crate::storage) fn entry_age(&self, name: &ChannelName) -> Duration {
        Bounds::of(&self.shared.retention, name).age
    }

    /// Begins a replica of a log after this offset, at which producers had these sequences. Entries of
    /// another epoch are dropped, except the latest entry of each key: any new entry of the key replaces it,
    /// and one that is marked late does if it is not older.
    pub(in crate::storage) fn mirror_from(
        &self,
        name: &ChannelName,
        epoch: &Epoch,
        top: u64,
        producers: &[(NodeId, u64)],
    ) {
        let mut state = self.shared.state.lock();
        let latest = state.channels.get_mut(name).map(|held| std::mem::take(&mut held.latest));
        let latest = latest.unwrap_or_default();
        state.begin(name, epoch, &self.shared);
        // `latest_bytes` has counted them all along.
        let Some(fresh) = state.channels.get_mut(name) else {
            state.latest_bytes -= latest.bytes();
            return;
        };
        (fresh.top, fresh.latest) = (top, latest);
        let now = Instant::now();
        producers
            .iter()
            .filter(|(_, seq)| *seq > 0)
            .for_each(|(node, seq)| fresh.producers.note(*node, *seq, now));
        fresh.latest.forget_offsets();
    }

    /// Adds entries of the log, in ascending order of offset without holes. Entries that continue the
    /// replica, at either end, are kept; others are ignored. Returns the newest offset up to which nothing is
    /// missing.
    pub(in crate::storage) fn mirror(&self, name: &ChannelName, epoch: &Epoch, entries: &[Entry]) -> u64 {
        let mut state = self.shared.state.lock();
        let policy = ChannelPolicy::of(name);
        let taken = state.change(name, &self.shared, |channel| {
            if channel.epoch == *epoch {
                channel.mirror(entries, policy);
            }
            channel.top
        });
        taken.unwrap_or(0)
    }

    /// Takes over latest entries of keys, unless newer ones are known.
    pub(in crate::storage) fn mirror_latest(&self, name: &ChannelName, entries: &[Entry]) {
        let (policy, now) = (ChannelPolicy::of(name), Instant::now());
        let mut state = self.shared.state.lock();
        state.change(name, &self.shared, |channel| {
            entries.iter().for_each(|entry| channel.latest.note(entry, policy, now));
        });
    }

    /// Continues the replica in another epoch, with the same offsets. Latest entries after its end that were
    /// read ahead of the log belong to the old epoch.
    pub(in crate::storage) fn rename(&self, name: &ChannelName, epoch: &Epoch) {
        if let Some(channel) = self.shared.state.lock().channels.get_mut(name) {
            channel.epoch = epoch.clone();
            channel.latest.forget_offsets_after(channel.top);
        }
    }

    /// Drops everything after an offset, and continues in this epoch. Latest entries of keys stay as they
    /// are.
    pub(in crate::storage) fn rewind(&self, name: &ChannelName, epoch: &Epoch, top: u64) {
        let mut state = self.shared.state.lock();
        state.change(name, &self.shared, |channel| {
            while channel.entries.back().is_some_and(|kept| kept.entry.offset > top) {
                channel.pop_back();
            }
            // Nothing follows a terminal entry, so the log is still closed if nothing is dropped, even if
            // that entry is no longer kept.
            channel.closed &= channel.top <= top;
            (channel.epoch, channel.top) = (epoch.clone(), top);
            let last = channel.entries.back();
            channel.closed |= last.is_some_and(|kept| kept.entry.draft.kind.is_terminal());
            channel.latest.forget_offsets();
        });
    }

    /// Notes the fencing token of a lease under which this node appended.
    pub(in crate::storage) fn note_fence(&self, name: &ChannelName, fence: u64) {
        if let Some(channel) = self.shared.state.lock().channels.get_mut(name) {
            channel.fence = channel.fence.max(fence);
        }
    }

    /// Notes that the next entry of a producer comes after this sequence.
    pub(in crate::storage) fn note_seq(&self, name: &ChannelName, node: NodeId, seq: u64) {
        let mut state = self.shared.state.lock();
        if let Some(channel) = state.channels.get_mut(name).filter(|_| seq > 0) {
            channel.producers.note(node, seq, Instant::now());
        }
    }

    /// The newest sequence of each producer that was seen.
    pub(in crate::storage) fn producers(&self, name: &ChannelName) -> Vec<(NodeId, u64)> {
        let state = self.shared.state.lock();
        let producers = state.channels.get(name).map(|channel| channel.producers.iter());
        producers.into_iter().flatten().map(|(node, seq, _)| (node, seq)).collect()
    }

    /// The same, only for producers whose entries may come again if the log loses them.
    pub(in crate::storage) fn recent_producers(&self, name: &ChannelName) -> Vec<(NodeId, u64)> {
        let bounds = Bounds::of(&self.shared.retention, name);
        let state = self.shared.state.lock();
        state.channels.get(name).map(|channel| channel.recent_producers(&bounds)).unwrap_or_default()
    }

    /// The ids of at most `max` entries up to the one at offset `end`, without holes.
    pub(in crate::storage) fn last_ids(&self, name: &ChannelName, end: u64, max: usize) -> Vec<EntryId> {
        let state = self.shared.state.lock();
        let kept = state.channels.get(name).map(|channel| channel.entries.iter());
        let kept = kept.into_iter().flatten().rev().map(|kept| &kept.entry);
        let kept = kept.skip_while(|entry| entry.offset > end).take(max);
        let leads_up = kept.zip((0..=end).rev()).take_while(|(entry, offset)| entry.offset == *offset);
        let mut ids: Vec<EntryId> = leads_up.map(|(entry, _)| entry.id).collect();
        ids.reverse();
        ids
    }

    /// The newest sequence of one producer that was seen.
    pub(in crate::storage) fn last_seq(&self, name: &ChannelName, node: NodeId) -> u64 {
        let state = self.shared.state.lock();
        state.channels.get(name).map_or(0, |channel| channel.last_seq(node))
    }

    /// How an append of this batch would be answered, without doing it. `None` if there is no replica.
    pub(in crate::storage) fn judge(&self, batch: &AppendBatch) -> Option<Vec<Appended>> {
        let state = self.shared.state.lock();
        state.channels.get(&batch.channel).map(|channel| channel.judge(batch))
    }
}

impl Channel {
    fn mirror(&mut self, entries: &[Entry], policy: &ChannelPolicy) {
        let now = Instant::now();
        let first = self.first();
        let leads_up = entries.last().is_some_and(|last| last.offset + 1 >= first)
            && entries.first().is_some_and(|head| head.offset < first);
        if leads_up {
            let older = || entries.iter().filter(move |entry| entry.offset < first);
            older().for_each(|entry| self.note(entry, policy, now));
            for entry in older().rev() {
                self.bytes += entry.draft.cost();
                self.entries.push_front(Kept { entry: entry.clone(), appended: now });
            }
        }
        for entry in entries {
            if entry.offset != self.top + 1 {
                continue;
            }
            self.note(entry, policy, now);
            self.top += 1;
            self.touched = now;
            self.closed = entry.draft.kind.is_terminal();
            self.bytes += entry.draft.cost();
            self.entries.push_back(Kept { entry: entry.clone(), appended: now });
        }
    }

    fn note(&mut self, entry: &Entry, policy: &ChannelPolicy, now: Instant) {
        if entry.id.is_known() {
            self.producers.note(entry.id.producer, entry.id.seq, now);
        }
        self.latest.note(entry, policy, now);
    }

    fn pop_back(&mut self) {
        if let Some(kept) = self.entries.pop_back() {
            self.bytes -= kept.entry.draft.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DraftEntry, Position};
    use crate::storage::{MemoryConfig, Retention};

    fn entry(offset: u64, node: NodeId, seq: u64) -> Entry {
        let draft = DraftEntry { key: Some("k".into()), ..DraftEntry::price(seq as i64, "{}") };
        Entry { offset, id: EntryId { producer: node, seq }, draft }
    }

    fn offsets(store: &MemoryBackend, name: &ChannelName) -> Vec<u64> {
        store.read_now(name, None, 100).entries.iter().map(|entry| entry.offset).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_accepts_entries_that_continue_it_at_either_end() {
        let (store, _sweeping) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        let (name, epoch, node) = ("zone:a".parse().unwrap(), Epoch::random(), NodeId::random());
        store.mirror_from(&name, &epoch, 10, &[]);
        let all: Vec<Entry> = (1..=20).map(|n| entry(n, node, n)).collect();
        assert_eq!(store.mirror(&name, &epoch, &all[12..]), 10, "11 and 12 are missing before it");
        assert_eq!(store.mirror(&name, &epoch, &all[5..8]), 10, "9 and 10 are missing after it");
        assert_eq!(offsets(&store, &name), Vec::<u64>::new());
        assert_eq!(store.mirror(&name, &epoch, &all[5..11]), 11);
        assert_eq!(store.mirror(&name, &epoch, &all[9..13]), 13);
        assert_eq!(offsets(&store, &name), (6..=13).collect::<Vec<_>>());
        assert_eq!(store.mirror(&name, &Epoch::random(), &all[13..]), 13, "of another epoch");
        assert_eq!((store.last_seq(&name, node), store.producers(&name)), (13, vec![(node, 13)]));

        let fork = Epoch::random();
        store.rename(&name, &fork);
        let read = store.read_now(&name, Some(&Position { epoch: fork.clone(), offset: 12 }), 10);
        assert_eq!((read.top, read.entries.len()), (13, 1));
        store.rewind(&name, &epoch, 8);
        assert_eq!(store.mirrored(&name), Some(Mirrored { epoch, top: 8 }));
        assert_eq!(offsets(&store, &name), [6, 7, 8]);
    }
}
