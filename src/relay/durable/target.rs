//! The log that events are carried to.

use std::collections::{HashMap, HashSet};

use futures_util::future::join_all;
use tracing::warn;

use super::super::Shared;
use crate::model::{ChannelName, Entry, EntryId, Epoch, NodeId, new_epoch};
use crate::storage::{
    Append, AppendAnswer, AppendBatch, Appended, Log as _, OpenLog, Result as StorageResult, StorageError,
};

/// Entries in one append.
const APPEND_LEN: usize = 50;

/// How many appends are in progress at once, in order. Where gateways alternate, each append holds one entry;
/// one append at a time over a link of 80 ms would carry only twelve entries a second.
const UNDER_WAY: usize = 64;

/// What is known of the target's log.
#[derive(Debug)]
pub(super) struct Target {
    channel: ChannelName,
    epoch: Option<Epoch>,
    /// The newest sequence of each producer that the log certainly has.
    known: HashMap<NodeId, u64>,
    /// Producers whose newest entry this process appended. Entries of other producers may also reach the log
    /// another way, so it may have more of them than is known.
    ours: HashSet<NodeId>,
    /// Entries that were sent since the last complete [`put`](Self::put). After a failed call, those that
    /// turn out to be in the log count as carried.
    pub(super) sent: HashSet<EntryId>,
    /// Whether calls have failed since the log was last examined.
    is_suspect: bool,
}

impl Target {
    pub(super) fn new(channel: ChannelName) -> Self {
        let (known, ours, sent) = (HashMap::new(), HashSet::new(), HashSet::new());
        Self { channel, epoch: None, known, ours, sent, is_suspect: true }
    }

    /// Forgets everything that is known.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.channel.clone());
    }

    /// Appends entries of the source's log to this one, in order. Returns how many of them this process
    /// appended, including those whose answer was lost and that a later call found in the log. If this log
    /// has changed, so that everything that the source still has must be compared with it, also returns the
    /// reason, for people; without a reason, the log has all of the entries.
    pub(super) async fn put(
        &mut self,
        shared: &Shared,
        entries: &[Entry],
    ) -> StorageResult<(usize, Option<&'static str>)> {
        let may_be_there = |target: &Self, entry: &Entry| !target.ours.contains(&entry.id.producer);
        let has_more = self.lacks(entries).any(|entry| may_be_there(self, entry));
        if (self.is_suspect || has_more)
            && let Some(why) = self.look(shared, true).await?
        {
            return Ok((0, Some(why)));
        }
        let lacks: Vec<Entry> = self.lacks(entries).cloned().collect();
        let lacking: HashSet<EntryId> = lacks.iter().map(|entry| entry.id).collect();
        let is_settled = |entry: &&Entry| self.sent.contains(&entry.id) && !lacking.contains(&entry.id);
        let mut by_us = entries.iter().filter(is_settled).count();
        let sent_before = self.sent.clone();
        let mut is_first = true;
        let mut batches = self.batches(&lacks).into_iter().peekable();
        while batches.peek().is_some() {
            // The first append is sent alone, so that a server that does not know the script yet learns it.
            let count = if std::mem::take(&mut is_first) && self.ours.is_empty() { 1 } else { UNDER_WAY };
            let together: Vec<AppendBatch> = batches.by_ref().take(count).collect();
            self.sent.extend(together.iter().flat_map(|batch| {
                batch.entries.iter().map(|append| EntryId { producer: batch.producer, seq: append.seq })
            }));
            let answers = join_all(together.iter().map(|batch| shared.to.backend.append(batch))).await;
            let (applied, anew) = self.note(&together, answers, &sent_before)?;
            by_us += applied;
            if anew.is_some() {
                return Ok((by_us, anew));
            }
        }
        self.sent.clear();
        Ok((by_us, None))
    }

    /// The entries that the log is not known to have.
    fn lacks<'a>(&self, entries: &'a [Entry]) -> impl Iterator<Item = &'a Entry> + use<'a, '_> {
        let is_there = |id: EntryId| self.known.get(&id.producer).is_some_and(|seq| id.seq <= *seq);
        entries.iter().filter(move |entry| !is_there(entry.id))
    }

    /// Batches of entries to append: consecutive ones of one producer together. Each names the producer's
    /// previous sequence, so that none is applied behind a gap.
    fn batches(&self, entries: &[Entry]) -> Vec<AppendBatch> {
        let Some(epoch) = &self.epoch else { return Vec::new() };
        let mut last = self.known.clone();
        let mut batches: Vec<AppendBatch> = Vec::new();
        for Entry { id, draft, .. } in entries {
            let prev = last.insert(id.producer, id.seq).unwrap_or(0);
            // A fencing token belongs to a lease at the source, which this log does not know.
            let append = Append { seq: id.seq, prev, draft: draft.clone(), fence: None };
            match batches.last_mut() {
                Some(batch) if batch.producer == id.producer && batch.entries.len() < APPEND_LEN => {
                    batch.entries.push(append);
                }
                _ => batches.push(AppendBatch {
                    channel: self.channel.clone(),
                    epoch: epoch.clone(),
                    producer: id.producer,
                    entries: vec![append],
                }),
            }
        }
        batches
    }

    /// Evaluates answers. Returns how many entries were applied, by these calls or earlier ones, and the
    /// reason if everything must be compared.
    fn note(
        &mut self,
        batches: &[AppendBatch],
        answers: Vec<StorageResult<AppendAnswer>>,
        sent_before: &HashSet<EntryId>,
    ) -> StorageResult<(usize, Option<&'static str>)> {
        let (mut applied, mut anew, mut failed) = (0, None, None);
        for (batch, answer) in batches.iter().zip(answers) {
            let results = match answer {
                Ok(AppendAnswer::Done(results)) => results,
                Ok(AppendAnswer::ForeignEpoch(_)) => {
                    anew = Some("the target's log has a new epoch");
                    continue;
                }
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            for (append, result) in batch.entries.iter().zip(results) {
                match result {
                    Appended::Applied { .. } => {
                        applied += 1;
                        self.known.insert(batch.producer, append.seq);
                        self.ours.insert(batch.producer);
                    }
                    // This entry, or a later one of its producer, arrived on another way.
                    Appended::Duplicate => {
                        let id = EntryId { producer: batch.producer, seq: append.seq };
                        applied += usize::from(sent_before.contains(&id));
                        let known = self.known.entry(batch.producer).or_default();
                        *known = append.seq.max(*known);
                        self.ours.remove(&batch.producer);
                    }
                    Appended::Gap { .. } => {
                        anew = anew.or(Some("the target's log lacks entries that it had"))
                    }
                    Appended::Refused(refusal) => {
                        warn!(channel = %self.channel, refusal = %refusal, "the target's log refuses events");
                        failed = Some(StorageError::Unknown { op: "append" });
                    }
                }
            }
        }
        // A gap behind a failed append is no loss: the log is examined, and the append tried again.
        if let Some(error) = failed {
            self.is_suspect = true;
            return Err(error);
        }
        if anew.is_some() {
            self.forget();
        }
        Ok((applied, anew))
    }

    /// Asks the log how far each producer is; with `opens`, a missing log is created. Returns the reason if
    /// everything must be compared: the log is gone, is another one, or lacks entries that it had.
    pub(super) async fn look(&mut self, shared: &Shared, opens: bool) -> StorageResult<Option<&'static str>> {
        let to = &shared.to;
        let found = if opens {
            Some(to.backend.open(&self.channel, to.node, &new_epoch()).await?)
        } else {
            to.backend.find(&self.channel, to.node).await?
        };
        let had = std::mem::take(&mut self.known);
        let Some(OpenLog { epoch, producers, .. }) = found else {
            let was = self.epoch.take();
            self.ours.clear();
            return Ok(was.map(|_| "the target's log is gone"));
        };
        let is_another = self.epoch.as_ref().is_some_and(|was| *was != epoch);
        let producers: HashMap<NodeId, u64> = producers.into_iter().collect();
        let mut is_set_back = false;
        for (producer, seq) in &had {
            let newest = match producers.get(producer) {
                Some(newest) => *newest,
                // Producers that have been silent for long are not listed.
                None => match to.backend.state(&self.channel, *producer).await {
                    Ok(state) => state.last_seq,
                    Err(error) => {
                        self.known = had;
                        return Err(error);
                    }
                },
            };
            is_set_back |= newest < *seq;
        }
        self.ours.retain(|producer| {
            producers.get(producer).is_some_and(|newest| had.get(producer) == Some(newest))
        });
        (self.epoch, self.known, self.is_suspect) = (Some(epoch), producers, false);
        if is_another {
            return Ok(Some("the target's log has a new epoch"));
        }
        Ok(is_set_back.then_some("the target's log lacks entries that it had"))
    }
}
