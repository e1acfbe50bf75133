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

/// Appends that are under way at once, in their order: where gateways take turns, each append is of one entry,
/// and a link of 80 ms would bring twelve a second.
const UNDER_WAY: usize = 64;

/// What became of entries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// The log has all of them, so many of them by this process.
    There {
        /// Also where an answer was lost, and another try found them there.
        by_us: usize,
    },
    /// The log is not what it was: all that is kept of the source's has to be compared with it.
    Anew {
        /// Why, for people.
        why: &'static str,
        /// So many were put there before that was known.
        by_us: usize,
    },
}

/// What is known of it.
#[derive(Debug)]
pub(super) struct Target {
    channel: ChannelName,
    epoch: Option<Epoch>,
    /// The newest sequence of each producer that is certain to be there.
    known: HashMap<NodeId, u64>,
    /// Producers of which this process appended the newest entry. Of others there may be more than is known: they
    /// are at home there, or another way is shorter.
    ours: HashSet<NodeId>,
    /// Calls have failed since it was looked at.
    is_doubted: bool,
}

impl Target {
    pub(super) fn new(channel: ChannelName) -> Self {
        let (known, ours) = (HashMap::new(), HashSet::new());
        Self { channel, epoch: None, known, ours, is_doubted: true }
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.channel.clone());
    }

    /// Brings entries of the source's log, in its order, into this one. `sent` has those that an earlier try may
    /// have brought there, and is added to.
    pub(super) async fn put(
        &mut self,
        shared: &Shared,
        entries: &[Entry],
        sent: &mut HashSet<EntryId>,
    ) -> StorageResult<Put> {
        let may_be_there = |target: &Self, entry: &Entry| !target.ours.contains(&entry.id.producer);
        let has_more = self.lacks(entries).any(|entry| may_be_there(self, entry));
        if (self.is_doubted || has_more)
            && let Some(why) = self.look(shared, true).await?
        {
            return Ok(Put::Anew { why, by_us: 0 });
        }
        let lacks: Vec<Entry> = self.lacks(entries).cloned().collect();
        let lacking: HashSet<EntryId> = lacks.iter().map(|entry| entry.id).collect();
        let is_settled = |entry: &&Entry| sent.contains(&entry.id) && !lacking.contains(&entry.id);
        let mut by_us = entries.iter().filter(is_settled).count();
        let sent_before = sent.clone();
        let mut is_first = true;
        let mut batches = self.batches(&lacks).into_iter().peekable();
        while batches.peek().is_some() {
            // A server that does not know the script yet is told it with the first.
            let count = if std::mem::take(&mut is_first) && self.ours.is_empty() { 1 } else { UNDER_WAY };
            let together: Vec<AppendBatch> = batches.by_ref().take(count).collect();
            sent.extend(together.iter().flat_map(ids));
            let answers = join_all(together.iter().map(|batch| shared.to.backend.append(batch))).await;
            let (applied, anew) = self.note(&together, answers, &sent_before)?;
            by_us += applied;
            if let Some(why) = anew {
                return Ok(Put::Anew { why, by_us });
            }
        }
        Ok(Put::There { by_us })
    }

    /// Those that the log is not known to have.
    fn lacks<'a>(&self, entries: &'a [Entry]) -> impl Iterator<Item = &'a Entry> + use<'a, '_> {
        let is_there = |id: EntryId| self.known.get(&id.producer).is_some_and(|seq| id.seq <= *seq);
        entries.iter().filter(move |entry| !is_there(entry.id))
    }

    /// Entries as they are appended: those of one producer that follow each other, together. Each says which one
    /// of its producer is there before it, so that none is applied behind a hole.
    fn batches(&self, entries: &[Entry]) -> Vec<AppendBatch> {
        let Some(epoch) = &self.epoch else { return Vec::new() };
        let mut last = self.known.clone();
        let mut batches: Vec<AppendBatch> = Vec::new();
        for Entry { id, draft, .. } in entries {
            let prev = last.insert(id.producer, id.seq).unwrap_or(0);
            // A fence is of a lease at the source, of which this log knows nothing.
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

    /// Takes note of answers. How many entries were applied, by these calls or by those before; and why all has to
    /// be compared, if so.
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
                    anew = Some("the target's log began another life");
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
                    // It, or a later one, came another way.
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
        // A gap behind an append that failed is no loss: what is there is asked for, and it is tried again.
        if let Some(error) = failed {
            self.is_doubted = true;
            return Err(error);
        }
        if anew.is_some() {
            self.forget();
        }
        Ok((applied, anew))
    }

    /// Asks the log how far each producer is; one that has no life yet begins one if `opens`. Says why all has to
    /// be compared, where it has not what it is known to have had.
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
                // Those that were silent for long are not listed.
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
        (self.epoch, self.known, self.is_doubted) = (Some(epoch), producers, false);
        if is_another {
            return Ok(Some("the target's log began another life"));
        }
        Ok(is_set_back.then_some("the target's log lacks entries that it had"))
    }
}

fn ids(batch: &AppendBatch) -> impl Iterator<Item = EntryId> + use<'_> {
    batch.entries.iter().map(|append| EntryId { producer: batch.producer, seq: append.seq })
}
