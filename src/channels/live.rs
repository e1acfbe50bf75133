//! Messages from channels to shards: entries in order, encoded once for all subscribers.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::model::{ChannelName, ChannelPolicy, Entry, EntryId, Epoch, Lane, NodeId, Position};
use crate::protocol::{FRAME_HEADER_MAX, entry_json, latest_json, text_frame};
use crate::storage::EpochTransition;

/// How many messages of one channel may be on their way to one shard, or wait there. Fewer than the shard's
/// queue holds, so that no channel fills it alone; and as many as a shard writes to a socket at once, in
/// case each has one entry.
pub(crate) const CREDITS: usize = 64;

/// The credits of a channel with one shard.
pub(crate) fn credits() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CREDITS))
}

/// A message on its way to a shard. It holds one of its channel's credits while it waits, so that pacing a
/// channel makes its own publishers wait, and nobody else's.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) live: Live,
    /// When this node received it.
    pub(crate) since: Instant,
    _credit: OwnedSemaphorePermit,
}

impl Delivery {
    /// Waits for a credit, and for room in the shard's queue; false if the shard has ended. If dropped
    /// while it waits, it has sent nothing.
    pub(crate) async fn send(
        shard: &mpsc::Sender<Self>,
        credits: &Arc<Semaphore>,
        live: Live,
        since: Instant,
    ) -> bool {
        // A shard that ends may never return its credits.
        let credit = tokio::select! {
            biased;
            credit = Arc::clone(credits).acquire_owned() => credit,
            () = shard.closed() => return false,
        };
        let Ok(credit) = credit else { return false };
        shard.send(Self { live, since, _credit: credit }).await.is_ok()
    }
}

/// A message to a shard about a channel that it joined.
#[derive(Debug, Clone)]
pub(crate) enum Live {
    /// The next entries. Contiguous with the previous batch, except for entries that left the log unseen.
    Batch(Arc<LiveBatch>),
    /// The log continues in another epoch.
    Moved(Arc<Moved>),
    /// Entries up to `offset` left the log before this node saw them, and no entry follows that would show
    /// it.
    Skipped {
        /// The channel.
        channel: ChannelName,
        /// The epoch of the log.
        epoch: Epoch,
        /// The offset of the last of them.
        offset: u64,
    },
}

impl Live {
    pub(crate) fn channel(&self) -> &ChannelName {
        match self {
            Self::Batch(batch) => &batch.channel,
            Self::Moved(moved) => &moved.channel,
            Self::Skipped { channel, .. } => channel,
        }
    }
}

/// The transition of a channel's log from one epoch to the next.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) channel: ChannelName,
    /// The position that batches of the old epoch reached.
    pub(crate) from: Position,
    /// The epoch transition.
    pub(crate) transition: EpochTransition,
}

/// Entries as WebSocket frames, consecutively in one buffer.
pub(crate) struct LiveBatch {
    pub(crate) channel: ChannelName,
    pub(crate) epoch: Epoch,
    /// The first offset that the batch covers: that of its first entry, or, in a view, where its part of
    /// the log begins.
    pub(crate) first: u64,
    /// The last offset that the batch covers: that of its last entry, or, in a view, where its part of the
    /// log ends.
    last: u64,
    /// In a view, the offset of each entry. Empty for a log, where every offset has an entry.
    offsets: Box<[u64]>,
    /// All frames.
    pub(crate) frames: Bytes,
    /// Where each frame ends in `frames`.
    ends: Box<[usize]>,
    /// What each entry replaces on lane *latest*; empty on *every*.
    keys: Box<[Option<Arc<str>>]>,
    /// Whether the entries are late. They come in bursts as long as an outage, and nothing replaces them.
    pub(crate) is_late: bool,
    /// The id of each entry.
    ids: Box<[EntryId]>,
    /// The producers of the entries, each once.
    producers: SmallVec<[NodeId; 1]>,
    /// Whether the last entry is the last one of its log.
    pub(crate) is_last_of_log: bool,
}

impl LiveBatch {
    /// Encodes entries with contiguous offsets (at least one), all of which are late, or none.
    pub(crate) fn encode(
        channel: &ChannelName,
        epoch: &Epoch,
        lane: Lane,
        late: bool,
        entries: &[Entry],
    ) -> Self {
        let mut batch = Self::encode_each(channel, epoch, lane, late, entries.iter());
        batch.is_last_of_log = entries.last().is_some_and(|entry| entry.draft.kind.is_terminal());
        batch
    }

    /// Encodes those entries of a part of a log that a view shows, perhaps none; all of which are late, or
    /// none.
    pub(super) fn encode_view(
        view: &ChannelName,
        epoch: &Epoch,
        lane: Lane,
        late: bool,
        covers: RangeInclusive<u64>,
        entries: &[&Entry],
    ) -> Self {
        let mut batch = Self::encode_each(view, epoch, lane, late, entries.iter().copied());
        (batch.first, batch.last) = covers.into_inner();
        batch.offsets = entries.iter().map(|entry| entry.offset).collect();
        batch
    }

    fn encode_each<'a>(
        channel: &ChannelName,
        epoch: &Epoch,
        lane: Lane,
        late: bool,
        entries: impl ExactSizeIterator<Item = &'a Entry> + Clone,
    ) -> Self {
        let mut batch = Self::write(channel, epoch, entries.clone(), |entry, out| {
            entry_json(channel, entry, late, out);
        });
        batch.is_late = late;
        // Late entries may be older than those that wait, and must not replace them.
        if lane == Lane::Latest && !late {
            let policy = ChannelPolicy::of(channel);
            batch.keys = entries.map(|entry| lane_key(policy, entry)).collect();
        }
        batch
    }

    /// Encodes the latest entries of keys as a part of a snapshot. They come from anywhere in the log, so
    /// the batch's offsets mean nothing.
    pub(super) fn encode_latest(channel: &ChannelName, epoch: &Epoch, entries: &[&Entry]) -> Self {
        Self::write(channel, epoch, entries.iter().copied(), |entry, out| {
            latest_json(channel, entry, out);
        })
    }

    /// Encodes entries as frames, each with `write`.
    fn write<'a>(
        channel: &ChannelName,
        epoch: &Epoch,
        entries: impl ExactSizeIterator<Item = &'a Entry> + Clone,
        write: impl Fn(&Entry, &mut Vec<u8>),
    ) -> Self {
        let envelope = ChannelPolicy::of(channel).envelope_bytes;
        let length = |entry: &Entry| entry.draft.data.len() + envelope + FRAME_HEADER_MAX;
        let mut frames = Vec::with_capacity(entries.clone().map(length).sum());
        let mut json = Vec::with_capacity(entries.clone().map(length).max().unwrap_or(0));
        let mut ends = Vec::with_capacity(entries.len());
        for entry in entries.clone() {
            json.clear();
            write(entry, &mut json);
            text_frame(&json, &mut frames);
            ends.push(frames.len());
        }
        let mut producers = SmallVec::new();
        for producer in entries.clone().map(|entry| entry.id.producer) {
            if !producers.contains(&producer) {
                producers.push(producer);
            }
        }
        let first = entries.clone().next().map_or(0, |entry| entry.offset);
        Self {
            channel: channel.clone(),
            epoch: epoch.clone(),
            first,
            last: (first + entries.len() as u64).saturating_sub(1),
            offsets: Box::default(),
            frames: frames.into(),
            ends: ends.into(),
            keys: Box::default(),
            is_late: false,
            ids: entries.map(|entry| entry.id).collect(),
            producers,
            is_last_of_log: false,
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The last offset that the batch covers.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The offset of the entry with this index.
    pub(crate) fn offset(&self, index: usize) -> u64 {
        self.offsets.get(index).copied().unwrap_or(self.first + index as u64)
    }

    /// How many entries, from the first one on, have this offset or a smaller one.
    pub(crate) fn count_up_to(&self, offset: u64) -> usize {
        if !self.offsets.is_empty() {
            return self.offsets.partition_point(|own| *own <= offset);
        }
        usize::try_from((offset + 1).saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.len())
    }

    /// Where the frame with this index begins in `frames`; the end of the buffer for one past the last.
    pub(crate) fn start_of(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] }
    }

    /// A frame, sharing the buffer.
    pub(crate) fn frame(&self, index: usize) -> Bytes {
        self.frames.slice(self.start_of(index)..self.ends[index])
    }

    /// A part of the entries, sharing the buffer.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        let (from, to) = (self.start_of(range.start), self.start_of(range.end));
        Self {
            channel: self.channel.clone(),
            epoch: self.epoch.clone(),
            first: if range.start == 0 { self.first } else { self.offset(range.start - 1) + 1 },
            last: if range.end == self.len() { self.last } else { self.offset(range.end - 1) },
            offsets: self.offsets.get(range.clone()).unwrap_or_default().into(),
            frames: self.frames.slice(from..to),
            ends: self.ends[range.clone()].iter().map(|end| end - from).collect(),
            is_late: self.is_late,
            keys: if self.keys.is_empty() { Box::default() } else { self.keys[range.clone()].into() },
            ids: self.ids[range.clone()].into(),
            producers: self.producers.clone(),
            is_last_of_log: self.is_last_of_log && range.end == self.len(),
        }
    }

    /// The producers of the entries, each once; for a part, those of the whole batch.
    pub(crate) fn producers(&self) -> &[NodeId] {
        &self.producers
    }

    /// The id of the entry with this index.
    pub(crate) fn id(&self, index: usize) -> Option<EntryId> {
        self.ids.get(index).copied()
    }

    /// What a frame replaces on lane *latest*.
    pub(crate) fn key(&self, index: usize) -> Option<&Arc<str>> {
        self.keys.get(index).and_then(Option::as_ref)
    }
}

/// What an entry replaces on lane *latest*. Of the messages about skipped entries, the newest is enough.
fn lane_key(policy: &ChannelPolicy, entry: &Entry) -> Option<Arc<str>> {
    match entry.draft.kind.unknown() {
        // No real key has a control character.
        Some(_) => Some(Arc::from("\0skipped")),
        None => entry.draft.latest_key(policy),
    }
}

impl fmt::Debug for LiveBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveBatch")
            .field("channel", &self.channel)
            .field("first", &self.first)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
