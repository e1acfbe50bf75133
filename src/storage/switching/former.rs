//! What former lives of this gateway had accepted and the log does not have: read from the spool at
//! the start, and sent as theirs. What this life accepts for the same channels is sent after it: until
//! then they go on alone.

use std::time::Duration;

use tokio::time;

use super::Core;
use crate::model::{ChannelName, Epoch};
use crate::storage::spool::Former;
use crate::storage::{Append, AppendAnswer, AppendBatch, Appended, Result, StorageError};

/// Entries in one append.
const BATCH: usize = 50;

/// After a try that failed.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How often a log that changes meanwhile is begun with anew.
const ROUNDS_MAX: usize = 8;

impl Core {
    /// Sends what is left of former lives, once the primary serves. Ends when the log has it all.
    pub(super) async fn send_formers(&self) {
        let mut modes = self.modes.subscribe();
        loop {
            modes.borrow_and_update();
            let next = {
                let formers = self.formers.lock();
                if formers.is_empty() {
                    return;
                }
                // The oldest of those that can be sent: those of a channel are all in one area.
                formers.iter().rposition(|former| self.has_log(&former.channel)).map(|at| formers[at].clone())
            };
            let Some(former) = next else {
                if modes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let sent = tokio::select! {
                biased;
                () = self.until_away(self.area_of(&former.channel)) => continue,
                sent = self.send_former(&former) => sent,
            };
            if let Err(error) = sent {
                tracing::debug!(channel = %former.channel, error = %error, "entries of a former life cannot be sent yet");
                time::sleep(RETRY_AFTER).await;
                continue;
            }
            let last = former.entries.last().map_or(0, |last| last.seq);
            if let Some(spool) = &self.spool {
                spool.acknowledged(former.producer, &former.channel, last).await;
            }
            {
                let mut formers = self.formers.lock();
                // Others were only looked at meanwhile.
                if let Some(at) = formers.iter().rposition(|held| held.channel == former.channel) {
                    formers.remove(at);
                }
            }
            self.no_longer_behind(&former.channel);
            self.in_order.notify_waiters();
        }
    }

    /// A former life's entries of a channel are in the log: once all are, what this life accepted
    /// follows.
    fn no_longer_behind(&self, channel: &ChannelName) {
        let mut state = self.lock();
        if let Some(left) = state.behind.get_mut(channel) {
            *left -= 1;
            if *left == 0 {
                state.behind.remove(channel);
            }
        }
        drop(state);
        self.work.notify_one();
    }

    async fn send_former(&self, former: &Former) -> Result<()> {
        let Former { producer, channel, entries, .. } = former;
        'rounds: for _ in 0..ROUNDS_MAX {
            let log = self.primary.open(channel, *producer, &Epoch::random()).await?;
            let mut last = log.last_seq;
            let waiting: Vec<&Append> = entries.iter().filter(|append| append.seq > last).collect();
            let mut waiting = &waiting[..];
            while !waiting.is_empty() {
                let batch = AppendBatch {
                    channel: channel.clone(),
                    epoch: log.epoch.clone(),
                    producer: *producer,
                    entries: chain(&waiting[..waiting.len().min(BATCH)], last),
                };
                let AppendAnswer::Done(results) = self.primary.append(&batch).await? else {
                    continue 'rounds;
                };
                for (append, result) in batch.entries.iter().zip(results) {
                    match result {
                        Appended::Applied { .. } => {
                            self.stats.replayed.add(1);
                            last = append.seq;
                        }
                        Appended::Duplicate => last = last.max(append.seq),
                        Appended::Refused(refusal) => {
                            self.stats.superseded.add(1);
                            tracing::warn!(%channel, %producer, seq = append.seq, %refusal, "the log does not take an entry that a former life accepted");
                            waiting = &waiting[1..];
                            break;
                        }
                        Appended::Gap { .. } => continue 'rounds,
                    }
                    waiting = &waiting[1..];
                }
            }
            return Ok(());
        }
        Err(StorageError::Unreachable { op: "append", cause: "the log keeps changing".into() })
    }
}

/// Entries as a chain behind a sequence.
fn chain(entries: &[&Append], after: u64) -> Vec<Append> {
    let mut prev = after;
    let links = entries.iter().map(|append| {
        let link = Append { prev, ..(*append).clone() };
        prev = append.seq;
        link
    });
    links.collect()
}
