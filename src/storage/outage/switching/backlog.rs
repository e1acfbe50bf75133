//! Accepts entries without the log, into a fork, the journal and the spool, and sends them when the log can
//! be reached.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{self, Instant};

use super::earlier_processes::{self, Formers};
use super::replicas::{Replicas, TIDY_EVERY};
use crate::model::{ChannelName, Epoch, Lane, Marks, NodeId};
use crate::storage::outage::journal::{Gone, Reserved};
use crate::storage::outage::spool::{Former, Spool, SpoolError};
use crate::storage::{Append, AppendAnswer, AppendBatch, Appended, Refusal, Result, StorageError};
use crate::support::counter::Counter;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// Entries in one append.
pub(super) const BATCH: usize = 50;

/// What waits for the log, except for the journal, which shares the lock of the replicas.
pub(super) struct Backlog {
    pub(super) replicas: Arc<Replicas>,
    /// The journal's copy on disk.
    pub(super) spool: Option<Spool>,
    /// Locked after the replicas and before the modes, which `send_formers` reads while it holds this lock.
    pub(super) formers: Mutex<Formers>,
}

/// Which log entries are sent to, and whose entries they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address<'a> {
    pub(super) channel: &'a ChannelName,
    pub(super) epoch: &'a Epoch,
    pub(super) producer: NodeId,
}

impl Backlog {
    pub(super) fn new(replicas: Arc<Replicas>, spool: Option<Spool>, formers: Vec<Former>) -> Self {
        Self { replicas, spool, formers: Mutex::new(earlier_processes::by_channel(formers)) }
    }

    /// Whether earlier processes left entries of a channel, which have to be sent first.
    pub(super) fn has_formers(&self, channel: &ChannelName) -> bool {
        self.formers.lock().contains_key(channel)
    }

    /// How many of the journal's entries are on disk.
    pub(super) fn on_disk(&self) -> usize {
        let Some(spool) = &self.spool else { return 0 };
        // The spool also holds entries of earlier processes, which are not in the journal.
        let formers: usize = self.formers.lock().values().flatten().map(|former| former.entries.len()).sum();
        spool.entries().saturating_sub(formers)
    }

    /// Accepts entries without the log.
    pub(super) async fn append_here(&self, batch: &AppendBatch, lane: Lane) -> Result<AppendAnswer> {
        let (channel, node) = (&batch.channel, self.replicas.node);
        let (results, fresh, room) = {
            let mut state = self.replicas.lock();
            if let Some(replica) = state.replicas.get_mut(channel) {
                replica.make_mirror();
            }
            let Some(results) = self.replicas.memory.judge(batch) else {
                return Ok(AppendAnswer::ForeignEpoch(None));
            };
            let judged = batch.entries.iter().zip(&results);
            let fresh = judged.filter(|(_, result)| matches!(result, Appended::Applied { .. }));
            let fresh: Vec<Append> = fresh.map(|(append, _)| append.clone()).collect();
            if let (Some(first), Some(replica)) = (fresh.first(), state.replicas.get_mut(channel))
                && replica.step_to(first.seq)
            {
                // An entry's sequence must follow from its offset and the fork's name, so after a hole in
                // the sequences the fork continues under another name.
                return Ok(AppendAnswer::ForeignEpoch(replica.epoch().cloned()));
            }
            let journals = !self.replicas.breaker.is_standalone() && !fresh.is_empty();
            let room = journals.then(|| state.journal.reserve(channel, lane, &fresh)).transpose();
            let room = room.map_err(|full| StorageError::Refused { op: "append", cause: Box::new(full) })?;
            (results, fresh, Room { of: &self.replicas, reserved: room })
        };
        if let (Some(spool), true) = (&self.spool, room.reserved.is_some()) {
            match spool.append(node, channel, &fresh).await {
                Ok(()) => {}
                Err(error) if spool.is_required() || error == SpoolError::Full => {
                    return Err(StorageError::NotDurable { why: error.to_string() });
                }
                // The spool logged the fault. It is not required, so these entries are in the journal only.
                Err(_) => {}
            }
        }
        let seqs = fresh.iter().map(|append| append.seq).collect();
        match self.accept(batch, lane, fresh, room) {
            Ok(gone) => {
                self.forget(gone);
                Ok(AppendAnswer::Done(results))
            }
            Err(epoch) => {
                // The caller appends these entries again in another epoch, so the spool's copies must not be
                // sent too after a crash.
                if let Some(spool) = &self.spool {
                    spool.forget(node, channel, seqs);
                }
                Ok(AppendAnswer::ForeignEpoch(epoch))
            }
        }
    }

    /// Adds entries, which were judged to fit, to the fork and the journal. Returns what the journal dropped
    /// for them or, as the error, the epoch of the channel if that has changed since.
    fn accept(
        &self,
        batch: &AppendBatch,
        lane: Lane,
        fresh: Vec<Append>,
        mut room: Room<'_>,
    ) -> Result<Vec<Gone>, Option<Epoch>> {
        let mut state = self.replicas.lock();
        let epoch = state.epoch_of(&batch.channel);
        if epoch.as_ref() != Some(&batch.epoch) {
            // Dropping the room takes the lock.
            drop(state);
            return Err(epoch);
        }
        let gone = match room.reserved.take() {
            Some(reserved) => state.journal.commit(reserved, &batch.channel, lane, &fresh, Instant::now()),
            None => Vec::new(),
        };
        if let Some(replica) = state.replicas.get_mut(&batch.channel) {
            replica.make_mirror();
            fresh.into_iter().for_each(|append| replica.append_here(append));
        }
        // If the fork is about to be closed, these entries have to be sent before that.
        state.enqueue(&batch.channel);
        Ok(gone)
    }

    /// Removes from the spool what the journal dropped.
    fn forget(&self, gone: Vec<Gone>) {
        let Some(spool) = &self.spool else { return };
        for Gone { channel, seq } in gone {
            spool.forget(self.replicas.node, &channel, vec![seq]);
        }
    }

    /// Forgets what is no longer needed, every now and then.
    pub(super) async fn tidy(&self) {
        loop {
            time::sleep(TIDY_EVERY).await;
            self.forget(self.replicas.tidy(Instant::now()));
        }
    }

    /// Sends a producer's entries, ascending in `seq`, in batches and marked as late. `after` is the
    /// producer's newest sequence in the log before, the result its newest one afterwards. Entries that the
    /// log refuses are dropped. `None` if the log is in another epoch by now, or was set back; some entries
    /// may have been applied then. Calling it again does no harm.
    pub(super) async fn send(
        &self,
        to: Address<'_>,
        entries: &[Append],
        after: u64,
        applied: &Counter,
    ) -> Result<Option<u64>> {
        let (mut last, mut waiting) = (after, entries);
        while !waiting.is_empty() {
            let batch = AppendBatch {
                channel: to.channel.clone(),
                epoch: to.epoch.clone(),
                producer: to.producer,
                entries: chain(&waiting[..waiting.len().min(BATCH)], last),
            };
            #[cfg(test)]
            let batch = if mutant::is(Mutant::ThinnedWithoutPrev)
                && std::ptr::eq(applied, &self.replicas.stats.replayed)
            {
                // Not linked: with the `prev` and the marks that each entry has in the journal.
                AppendBatch { entries: waiting[..waiting.len().min(BATCH)].to_vec(), ..batch }
            } else {
                batch
            };
            let answer = self.replicas.breaker.primary.append(&batch).await?;
            let AppendAnswer::Done(results) = answer else { return Ok(None) };
            for (append, result) in batch.entries.iter().zip(results) {
                waiting = &waiting[1..];
                match result {
                    Appended::Applied { .. } => {
                        applied.add(1);
                        last = append.seq;
                    }
                    Appended::Duplicate => last = last.max(append.seq),
                    Appended::Gap { .. } => return Ok(None),
                    Appended::Refused(refusal) => {
                        self.refused(to, append.seq, &refusal);
                        // The chain is broken, so the entries after it are sent again, linked to the one
                        // before it.
                        break;
                    }
                }
            }
        }
        Ok(Some(last))
    }

    /// Drops an entry that the log will never take.
    fn refused(&self, to: Address<'_>, seq: u64, refusal: &Refusal) {
        let Address { channel, producer, .. } = to;
        tracing::warn!(%channel, %producer, seq, %refusal, "the log does not take an accepted entry");
        self.replicas.stats.superseded.add(1);
        if producer == self.replicas.node {
            let mut state = self.replicas.lock();
            // The spool's copy is removed below.
            let _refused = state.journal.refused(channel, seq, Instant::now());
            if let Some(replica) = state.replicas.get_mut(channel) {
                replica.note_refused();
            }
        }
        if let Some(spool) = &self.spool {
            spool.forget(producer, channel, vec![seq]);
        }
    }

    /// The log has a producer's entries up to this sequence: removes them from the spool.
    pub(super) fn acknowledged(&self, producer: NodeId, channel: &ChannelName, last: u64) {
        if let Some(spool) = &self.spool {
            spool.acknowledged(producer, channel, last);
        }
    }
}

/// Room in the journal, which is released when it is dropped unused.
struct Room<'a> {
    of: &'a Replicas,
    reserved: Option<Reserved>,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            self.of.lock().journal.release(reserved);
        }
    }
}

/// Links entries to each other and to the sequence before them, and marks them as late.
fn chain(entries: &[Append], after: u64) -> Vec<Append> {
    let mut prev = after;
    let links = entries.iter().map(|append| {
        let mut link = Append { prev, ..append.clone() };
        link.draft.marks = Marks { late: true, ..link.draft.marks };
        prev = append.seq;
        link
    });
    links.collect()
}
