//! Entries that earlier processes of this gateway accepted and that the log does not have: they are read from
//! the spool at the start, and sent under their own ids. What this process accepts for the same channels is
//! sent after them; until then these channels are forked.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound::{Excluded, Unbounded};

use super::backlog::{Address, Backlog};
use super::error_restless;
use super::reconcile::SET_ASIDE_AFTER;
use crate::model::{ChannelName, ChannelPolicy, NodeId, WaitLimit, new_epoch};
use crate::storage::outage::spool::Former;
use crate::storage::primary::Domain;
use crate::storage::{Append, Result};
use crate::support::backoff::STORAGE_RETRY;

/// How often sending begins anew because the log changed meanwhile, before it counts as failed.
const ROUNDS_MAX: usize = 8;

/// By channel, the entries of each earlier process that are left, the oldest process last. A channel without
/// any is not in the map.
pub(super) type Formers = BTreeMap<ChannelName, Vec<Former>>;

/// Sorts what was found in the spool.
pub(super) fn by_channel(mut found: Vec<Former>) -> Formers {
    let order = |former: &Former| (former.start, former.entries.first().map(|entry| entry.draft.time));
    found.sort_by_key(|former| Reverse(order(former)));
    let mut formers = Formers::new();
    found.into_iter().for_each(|former| formers.entry(former.channel.clone()).or_default().push(former));
    formers
}

impl Backlog {
    /// Sends what earlier processes left, once the primary serves. Ends when the log has it all.
    pub(super) async fn send_formers(&self) {
        let breaker = &self.replicas.breaker;
        let mut modes = breaker.watch();
        let mut failures: HashMap<(NodeId, ChannelName), u32> = HashMap::new();
        // The channel that failed last: those after it go first, so that it holds up none of them.
        let mut failed: Option<ChannelName> = None;
        loop {
            modes.borrow_and_update();
            let next = {
                let formers = self.formers.lock();
                if formers.is_empty() {
                    return;
                }
                let later = formers.range((failed.as_ref().map_or(Unbounded, Excluded), Unbounded));
                let served = later.chain(&*formers).find(|(channel, _)| breaker.has_log(channel));
                served.and_then(|(_, left)| left.last().cloned())
            };
            let Some(former) = next else {
                if modes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let sent = tokio::select! {
                biased;
                () = breaker.until_away(breaker.domain_of(&former.channel)) => continue,
                sent = self.send_former(&former) => sent,
            };
            let Former { channel, producer, entries, .. } = former;
            if let Err(error) = sent {
                let failures = failures.entry((producer, channel.clone())).or_default();
                *failures = failures.saturating_add(1);
                tracing::debug!(%channel, %producer, %error, failures, "entries of an earlier process cannot be sent yet");
                if *failures >= SET_ASIDE_AFTER {
                    self.replicas.set_aside(&channel, &error);
                }
                failed = Some(channel);
                STORAGE_RETRY.pause(*failures).await;
                continue;
            }
            self.acknowledged(producer, &channel, entries.last().map_or(0, |last| last.seq));
            self.sent(&channel);
            failures.remove(&(producer, channel));
        }
    }

    /// Removes the entries of a channel's oldest process, because the log has them. After the last process,
    /// what this one accepted for the channel can be sent.
    fn sent(&self, channel: &ChannelName) {
        let has_all = {
            let mut formers = self.formers.lock();
            let left = formers.get_mut(channel).map_or(0, |left| {
                left.pop();
                left.len()
            });
            left == 0 && formers.remove(channel).is_some()
        };
        if has_all {
            let mut state = self.replicas.lock();
            // The channel may have been set aside without being in the queue, which ends that state.
            if !state.queue.contains(channel) {
                state.queue.reconciled(channel);
            }
            self.replicas.work.notify_one();
        }
        self.replicas.in_order.notify_waiters();
    }

    /// Whether the logs of a failure domain have all that earlier processes left, except for channels that
    /// were set aside.
    pub(super) fn has_sent_formers(&self, domain: Domain) -> bool {
        let state = self.replicas.lock();
        let formers = self.formers.lock();
        let mut left = formers.keys().filter(|channel| self.replicas.breaker.domain_of(channel) == domain);
        left.all(|channel| state.queue.is_set_aside(channel))
    }

    async fn send_former(&self, former: &Former) -> Result<()> {
        let Former { producer, channel, entries, .. } = former;
        for _ in 0..ROUNDS_MAX {
            let log = self.replicas.breaker.primary.open(channel, *producer, &new_epoch()).await?;
            let to = Address { channel, epoch: &log.epoch, producer: *producer };
            let waiting = as_missed(channel, entries, log.last_seq);
            let replayed = &self.replicas.stats.replayed;
            if self.send(to, &waiting, log.last_seq, replayed).await?.is_some() {
                return Ok(());
            }
        }
        Err(error_restless("append"))
    }
}

/// The entries after a sequence. If the journal bounds the channel by count, a predecessor that is not here
/// was dropped for good, so the entry after it is marked; otherwise a newer entry may have replaced it, which
/// is no loss.
fn as_missed(channel: &ChannelName, entries: &[Append], after: u64) -> Vec<Append> {
    let is_counted = ChannelPolicy::of(channel).wait_limit == WaitLimit::Count;
    let mut last = after;
    let mut waiting: Vec<Append> = entries.iter().filter(|append| append.seq > after).cloned().collect();
    for append in &mut waiting {
        append.draft.marks.missed_before |= is_counted && append.prev > last;
        last = append.seq;
    }
    waiting
}
