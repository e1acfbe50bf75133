//! The life in which a channel goes on without the log.

use tokio::time::Instant;

use crate::model::Epoch;
use crate::storage::lives::Fork;

/// The most legs of a fork that are remembered besides the newest.
pub(super) const LEGS_MAX: usize = 256;

/// A channel that goes on without the log.
#[derive(Debug)]
pub(in crate::storage::outage::switching) struct Forked {
    pub(super) leg: Leg,
    /// Legs before it, each with its last offset: the first, and as many as may be resumed.
    pub(super) before: Vec<(Leg, u64)>,
    /// The newest offset.
    pub(super) top: u64,
    /// The copy that it goes on from does not reach back, and own entries that the log was sent and did not
    /// answer may be among those that it lacks: readers of the log who come from elsewhere may have had
    /// them, and are not taken up as if they had not.
    is_unsure: bool,
    /// Not to be closed before: not right after it opened.
    pub(in crate::storage::outage::switching) rejoin_at: Instant,
    /// It is about to be closed: an append waits for that a little.
    pub(super) is_closing: bool,
}

/// A stretch of a fork in which own sequences have no holes, so that its name tells what was had at
/// each offset.
#[derive(Debug, Clone)]
pub(super) struct Leg {
    pub(super) life: Fork,
    pub(super) epoch: Epoch,
}

impl Leg {
    fn new(life: Fork) -> Self {
        Self { epoch: life.epoch(), life }
    }
}

impl Forked {
    pub(super) fn new(life: Fork, is_unsure: bool, rejoin_at: Instant) -> Self {
        let top = life.from;
        Self { leg: Leg::new(life), before: Vec::new(), top, is_unsure, rejoin_at, is_closing: false }
    }

    pub(in crate::storage::outage::switching) fn epoch(&self) -> &Epoch {
        &self.leg.epoch
    }

    pub(in crate::storage::outage::switching) fn base(&self) -> u64 {
        self.leg.life.base
    }

    /// The one that it began with.
    pub(super) fn first_leg(&self) -> &Leg {
        self.before.first().map_or(&self.leg, |(leg, _)| leg)
    }

    /// Where a life that this one goes on from has ended, and the one after it.
    pub(in crate::storage::outage::switching) fn end_of(&self, epoch: &Epoch) -> Option<(u64, &Epoch)> {
        if self.leg.life.log.as_ref() == Some(epoch) {
            return (!self.is_unsure).then(|| (self.base(), &self.first_leg().epoch));
        }
        let at = self.before.iter().position(|(leg, _)| leg.epoch == *epoch)?;
        let next = self.before.get(at + 1).map_or(&self.leg, |(leg, _)| leg);
        Some((self.before[at].1, &next.epoch))
    }

    /// Makes it ready for an own entry with this sequence: where there is a hole before it, it goes on as
    /// another leg. `first` is the oldest offset that is kept. Says whether it does.
    pub(super) fn step_to(&mut self, seq: u64, first: impl FnOnce() -> u64) -> bool {
        if self.leg.life.own_at(self.top).checked_add(1) == Some(seq) {
            return false;
        }
        let life = Fork { seq: seq.saturating_sub(1), from: self.top, ..self.leg.life.clone() };
        let ended = std::mem::replace(&mut self.leg, Leg::new(life));
        self.before.push((ended, self.top));
        // Nobody can go on in one of which nothing is kept. The first one tells where the fork began.
        let first = first();
        let is_gone = |(_, end): &&(Leg, u64)| *end + 1 < first;
        let gone = self.before.iter().skip(1).take_while(is_gone).count();
        let gone = gone.max(self.before.len().saturating_sub(LEGS_MAX));
        self.before.drain(1..=gone);
        true
    }
}
