//! What former lives of this gateway had accepted and the log does not have: read from the spool at
//! the start, and sent as theirs. What this life accepts for the same channels is sent after it: until
//! then they go on alone.

use std::collections::HashMap;

use super::Core;
use super::rejoin::SET_ASIDE_AFTER;
use super::send::Address;
use crate::model::{ChannelName, ChannelPolicy, NodeId, Waiting, new_epoch};
use crate::storage::outage::spool::Former;
use crate::storage::{Append, Result};
use crate::support::backoff::STORAGE_RETRY;

/// How often a log that changes meanwhile is begun with anew.
const ROUNDS_MAX: usize = 8;

impl Core {
    /// Sends what is left of former lives, once the primary serves. Ends when the log has it all.
    pub(super) async fn send_formers(&self) {
        let mut modes = self.modes.subscribe();
        // Of those that are left, by producer and channel.
        let mut failures: HashMap<(NodeId, ChannelName), u32> = HashMap::new();
        loop {
            modes.borrow_and_update();
            let next = {
                let formers = self.formers.lock();
                if formers.is_empty() {
                    return;
                }
                // Nobody else takes from them. The oldest of those that can be sent: those of a channel are all in one area.
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
                let Former { channel, producer, .. } = &former;
                let failures = failures.entry((*producer, channel.clone())).or_default();
                *failures = failures.saturating_add(1);
                tracing::debug!(%channel, %producer, %error, failures, "entries of a former life cannot be sent yet");
                if *failures >= SET_ASIDE_AFTER {
                    self.set_aside(channel, &error);
                }
                self.put_off(&former.channel);
                STORAGE_RETRY.pause(*failures).await;
                continue;
            }
            failures.remove(&(former.producer, former.channel.clone()));
            let last = former.entries.last().map_or(0, |last| last.seq);
            if let Some(spool) = &self.spool {
                spool.acknowledged(former.producer, &former.channel, last);
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

    /// Lets other channels go first: one that cannot be sent holds up no others.
    fn put_off(&self, channel: &ChannelName) {
        let mut formers = self.formers.lock();
        let (mut last, mut first): (Vec<Former>, Vec<Former>) =
            std::mem::take(&mut *formers).into_iter().partition(|former| former.channel == *channel);
        last.append(&mut first);
        *formers = last;
    }

    /// A former life's entries of a channel are in the log: once all are, what this life accepted
    /// follows.
    fn no_longer_behind(&self, channel: &ChannelName) {
        let mut state = self.lock();
        if let Some(left) = state.behind.get_mut(channel) {
            *left -= 1;
            if *left == 0 {
                state.behind.remove(channel);
                if !state.queue.contains(channel) {
                    state.is_in_order(channel);
                }
            }
        }
        drop(state);
        self.work.notify_one();
    }

    async fn send_former(&self, former: &Former) -> Result<()> {
        let Former { producer, channel, entries, .. } = former;
        for _ in 0..ROUNDS_MAX {
            let log = self.primary.open(channel, *producer, &new_epoch()).await?;
            let to = Address { channel, epoch: &log.epoch, producer: *producer };
            let waiting = as_missed(channel, entries, log.last_seq);
            if self.send(to, &waiting, log.last_seq, &self.stats.replayed).await?.is_some() {
                return Ok(());
            }
        }
        Err(super::log::restless("append"))
    }
}

/// The entries after a sequence. Those of a channel that is bounded by count, and of which the one before is
/// not here, were behind more than are kept, and are marked so; others may be behind one that was replaced.
fn as_missed(channel: &ChannelName, entries: &[Append], after: u64) -> Vec<Append> {
    let is_counted = ChannelPolicy::of(channel).waiting == Waiting::Counted;
    let mut last = after;
    let mut waiting: Vec<Append> = entries.iter().filter(|append| append.seq > after).cloned().collect();
    for append in &mut waiting {
        append.draft.marks.missed_before |= is_counted && append.prev > last;
        last = append.seq;
    }
    waiting
}
