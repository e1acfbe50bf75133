//! Epochs of a channel that have ended, and where their readers go on.

use super::fork::Segment;
use super::{LogView, Replica};
use crate::model::{EntryId, Epoch, NodeId, Position};
use crate::storage::epoch_name::{EpochName, had_at};
use crate::storage::{EpochTransition, VersionVector};

/// Epochs that ended together, as their log was taken up again.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) epochs: Vec<Ended>,
    /// What a reader at the end of the last of them has had of other nodes.
    pub(super) others: VersionVector,
    pub(super) node: NodeId,
    pub(super) transition: EpochTransition,
}

/// An epoch that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) epoch: Epoch,
    /// The last offset.
    pub(super) end: u64,
    /// The node's newest sequence there.
    pub(super) own: u64,
    /// For the epoch of a fork.
    pub(super) fork: Option<Segment>,
    /// For the epoch of a log: the ids of the entries that lead up to its end, for readers who are not there
    /// yet.
    pub(super) last: Vec<EntryId>,
}

impl Past {
    /// What a reader at this offset of an ended epoch has had; `None` if that is not known.
    fn had_at(&self, ended: &Ended, offset: u64) -> Option<VersionVector> {
        let mut had = self.others.clone();
        let Some(fork) = &ended.fork else {
            had.add(self.node, ended.own);
            return ended.before(&had, offset);
        };
        let own = match offset {
            _ if offset == ended.end => ended.own,
            _ if (fork.name.from..ended.end).contains(&offset) => fork.name.own_at(offset),
            _ => return None,
        };
        had.add(self.node, own);
        Some(had)
    }
}

impl Ended {
    pub(super) fn segment(own: u64, segment: Segment, end: u64) -> Self {
        Self { epoch: segment.epoch.clone(), end, own, fork: Some(segment), last: Vec::new() }
    }

    /// Of what a reader at the end has had, the part that a reader at this offset has had.
    fn before(&self, at_end: &VersionVector, offset: u64) -> Option<VersionVector> {
        let behind = usize::try_from(self.end.checked_sub(offset)?).ok()?;
        let lacks = &self.last[self.last.len().checked_sub(behind)?..];
        let mut had = if at_end.is_in_doubt() { VersionVector::unknown() } else { VersionVector::default() };
        for (producer, run) in at_end.iter() {
            let first = lacks.iter().find(|id| id.producer == producer);
            // A producer's entries come in order, so the reader has had all before the first that it lacks.
            had.add(producer, first.map_or(run.newest, |first| first.seq.saturating_sub(1)));
        }
        Some(had)
    }
}

impl Replica {
    /// Where a reader goes on that has had everything up to a position of an epoch that has ended.
    pub(in crate::storage::outage::switching) fn transition_after(
        &self,
        after: &Position,
    ) -> Option<EpochTransition> {
        self.transition_from_past(after).or_else(|| self.transition_from_name(after))
    }

    fn transition_from_past(&self, after: &Position) -> Option<EpochTransition> {
        // What the reader had besides is in the epoch's name.
        let (plain, mut besides, in_fork) = match EpochName::of(&after.epoch) {
            Some(EpochName::Fork(fork, had)) => (fork.epoch(), had, true),
            Some(EpochName::View(log, had)) => (log, had, false),
            None => (after.epoch.clone(), VersionVector::default(), false),
        };
        if self.is_of(&plain) {
            return None;
        }
        let epochs =
            self.past.iter().rev().flat_map(|past| past.epochs.iter().map(move |ended| (past, ended)));
        let (past, ended) = epochs.into_iter().find(|(_, ended)| ended.epoch == plain)?;
        // No node knows what a reader has had of each producer.
        let had = past.had_at(ended, after.offset)?;
        let back = besides.take_back();
        let transition = EpochTransition { had, ..past.transition.clone() };
        let mut transition = match in_fork {
            true => transition.with_back(&plain, back),
            false => transition.of_another_log(back, after.offset),
        };
        transition.had.merge(&besides);
        Some(transition)
    }

    /// The name of the position's epoch says what the reader has had.
    fn transition_from_name(&self, after: &Position) -> Option<EpochTransition> {
        EpochName::of(&after.epoch)?;
        let mut had = had_at(after);
        // A gateway that names no log for the way back says that the reader has had nothing of any.
        let back = had.take_back().filter(|back| back.log.is_some() || back.to == 0)?;
        let is_any = back.log.is_none();
        // The log had no epoch then: whatever it became, readers have had nothing of it but what the name says.
        let epoch =
            back.log.clone().or_else(|| self.log().cloned()).or_else(|| self.unborn_fork().cloned())?;
        let transition = EpochTransition::beginning(epoch).with_back(&after.epoch, Some(back));
        had.merge(&transition.had);
        let transition = EpochTransition { had, ..transition };
        // A node that is behind that position cannot say what follows it.
        let is_known = match &self.log {
            LogView::Seen(seen) => seen.epoch == transition.to.epoch && transition.to.offset <= seen.highest,
            LogView::Unseen(_) => false,
        };
        (is_any || is_known).then_some(transition)
    }

    /// The first epoch of a fork of a log that had none.
    fn unborn_fork(&self) -> Option<&Epoch> {
        let fork = self.fork().filter(|fork| fork.segment.name.unborn)?;
        Some(&fork.first_segment().epoch)
    }
}
