//! Sends entries that waited on this node, or that the log lost, to the log.

use tokio::time::Instant;

use super::Core;
use crate::model::{ChannelName, Epoch, Marks, NodeId};
use crate::storage::{Append, AppendAnswer, AppendBatch, Appended, Refusal, Result};
use crate::support::counter::Counter;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// Entries in one append.
pub(super) const BATCH: usize = 50;

/// Where entries are sent, and as whose.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address<'a> {
    pub(super) channel: &'a ChannelName,
    pub(super) epoch: &'a Epoch,
    pub(super) producer: NodeId,
}

impl Core {
    /// Sends a producer's entries, ascending in `seq`, in batches behind `after`, the newest that the
    /// log has; marked as late. Answers the newest that it has then: what it refuses waits no longer.
    /// `None` when the log is another one by now, or forgot what it had: what was sent before may have
    /// been applied. Repeating it does no harm.
    pub(super) async fn send(
        &self,
        to: Address<'_>,
        entries: &[Append],
        after: u64,
        applied: &Counter,
    ) -> Result<Option<u64>> {
        let mut last = after;
        let mut waiting = entries;
        while !waiting.is_empty() {
            let batch = AppendBatch {
                channel: to.channel.clone(),
                epoch: to.epoch.clone(),
                producer: to.producer,
                entries: chain(&waiting[..waiting.len().min(BATCH)], last),
            };
            #[cfg(test)]
            let batch =
                if mutant::is(Mutant::ThinnedWithoutPrev) && std::ptr::eq(applied, &self.stats.replayed) {
                    // As they were accepted, but for what the journal has made of them.
                    AppendBatch { entries: waiting[..waiting.len().min(BATCH)].to_vec(), ..batch }
                } else {
                    batch
                };
            let AppendAnswer::Done(results) = self.primary.append(&batch).await? else { return Ok(None) };
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
                        // What follows is sent behind the same entry as it was.
                        break;
                    }
                }
            }
        }
        Ok(Some(last))
    }

    /// The log never takes this entry.
    fn refused(&self, to: Address<'_>, seq: u64, refusal: &Refusal) {
        let Address { channel, producer, .. } = to;
        tracing::warn!(%channel, %producer, seq, %refusal, "the log does not take an accepted entry");
        self.stats.superseded.add(1);
        if producer == self.node {
            let mut state = self.lock();
            // It was told above.
            let _refused = state.journal.refused(channel, seq, Instant::now());
            if let Some(line) = state.lines.get_mut(channel) {
                line.lost_one();
            }
        }
        if let Some(spool) = &self.spool {
            spool.forget(producer, channel, vec![seq]);
        }
    }
}

/// Entries as a chain behind a sequence.
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
