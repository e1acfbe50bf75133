//! The fork in which a channel goes on without the log: one epoch, or several in a row.

use tokio::time::Instant;

use crate::model::Epoch;
use crate::storage::epoch_name::Fork;

/// The most segments of a fork that are remembered besides the newest.
pub(super) const SEGMENTS_MAX: usize = 256;

/// The fork of a channel.
#[derive(Debug)]
pub(in crate::storage::outage::switching) struct Forked {
    pub(super) segment: Segment,
    /// The earlier segments, each with its last offset: the first one, and those that readers may still resume
    /// in.
    pub(super) before: Vec<(Segment, u64)>,
    /// The newest offset.
    pub(super) top: u64,
    /// The replica lacks entries of the log, perhaps own ones among them whose appends were not answered. A
    /// reader from another node may have had those, so it is not told that the fork continues its log.
    is_unsure: bool,
    /// The fork is not closed before this time, so that it is not closed right after it opened.
    pub(in crate::storage::outage::switching) reconcile_at: Instant,
    /// The fork is about to be closed: an append waits for that a little.
    pub(super) is_closing: bool,
}

/// A run of a fork in which own sequences have no holes. Sequences follow from offsets then, so the name of the
/// epoch says what a reader at each offset has had.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) name: Fork,
    pub(super) epoch: Epoch,
}

impl Segment {
    fn new(name: Fork) -> Self {
        Self { epoch: name.epoch(), name }
    }
}

impl Forked {
    pub(super) fn new(name: Fork, is_unsure: bool, reconcile_at: Instant) -> Self {
        let top = name.from;
        Self {
            segment: Segment::new(name),
            before: Vec::new(),
            top,
            is_unsure,
            reconcile_at,
            is_closing: false,
        }
    }

    pub(in crate::storage::outage::switching) fn epoch(&self) -> &Epoch {
        &self.segment.epoch
    }

    pub(in crate::storage::outage::switching) fn base(&self) -> u64 {
        self.segment.name.base
    }

    /// The segment with which the fork began.
    pub(super) fn first_segment(&self) -> &Segment {
        self.before.first().map_or(&self.segment, |(segment, _)| segment)
    }

    /// The last offset of an epoch that this fork continues, and the epoch that follows it.
    pub(in crate::storage::outage::switching) fn end_of(&self, epoch: &Epoch) -> Option<(u64, &Epoch)> {
        if self.segment.name.log.as_ref() == Some(epoch) {
            return (!self.is_unsure).then(|| (self.base(), &self.first_segment().epoch));
        }
        let at = self.before.iter().position(|(segment, _)| segment.epoch == *epoch)?;
        let next = self.before.get(at + 1).map_or(&self.segment, |(segment, _)| segment);
        Some((self.before[at].1, &next.epoch))
    }

    /// Makes the fork ready for an own entry with this sequence: after a hole it continues in another segment.
    /// `first` is the oldest offset that is kept. Returns whether it does.
    pub(super) fn step_to(&mut self, seq: u64, first: impl FnOnce() -> u64) -> bool {
        if self.segment.name.own_at(self.top).checked_add(1) == Some(seq) {
            return false;
        }
        let name = Fork { seq: seq.saturating_sub(1), from: self.top, ..self.segment.name.clone() };
        let ended = std::mem::replace(&mut self.segment, Segment::new(name));
        self.before.push((ended, self.top));
        // A segment of which nothing is kept cannot be resumed. The first one says where the fork began.
        let first = first();
        let is_gone = |(_, end): &&(Segment, u64)| *end + 1 < first;
        let gone = self.before.iter().skip(1).take_while(is_gone).count();
        let gone = gone.max(self.before.len().saturating_sub(SEGMENTS_MAX));
        self.before.drain(1..=gone);
        true
    }
}
