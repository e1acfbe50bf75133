//! Reconciles channels: follows the log, finds what became of it, sends what it lacks, reads what other nodes
//! wrote, and closes the fork at a moment at which nothing waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{self, Instant};

use super::backlog::{Address, BATCH, Backlog};
use super::breaker::Breaker;
use super::error_restless;
use super::incoming::Incoming;
use super::replica::{Forked, Known, Reconciled, Replica};
use super::replicas::Replicas;
use super::retransmit::TAIL_MAX;
use crate::model::{ChannelName, ChannelPolicy, Entry, NodeId, Position, new_epoch};
use crate::storage::{Anchor, Append, LogEvent, OpenLog, Result, StorageError};
use crate::support::backoff::STORAGE_RETRY;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// A fork is not closed earlier than this after it opened.
pub(super) const NOT_BEFORE: Duration = Duration::from_millis(200);

/// Channels that are reconciled at the same time: enough to hide the round trips, few enough that
/// live appends are not held up by them.
const AT_ONCE: usize = 8;

/// Entries in one read.
const PAGE: usize = 1_000;

/// How often one try begins anew because the channel changed under it, before it counts as failed.
const ROUNDS_MAX: usize = 16;

/// After this many failures in a row, which take some 10 s, what cannot be sent or reconciled is set aside:
/// no recovery waits for it any more.
pub(super) const SET_ASIDE_AFTER: u32 = 15;

/// How often a channel that is set aside is tried again.
const SET_ASIDE_RETRY: Duration = Duration::from_secs(10);

/// After this many rounds in which new entries kept the fork from closing, appends wait for it to close.
const CLOSING_AFTER: u32 = 8;

/// How a try ended.
enum Tried {
    /// The channel is in step with its log, or its failure domain went away.
    Done,
    /// It is to be tried again then.
    Later(Instant),
    Failed(StorageError),
}

/// When a channel is to be tried again, and how many tries in a row have failed.
#[derive(Debug, Clone, Copy)]
struct Delay {
    until: Instant,
    failures: u32,
}

/// Reconciles the channels in the reconcile queue, which `Replicas` holds.
pub(super) struct Reconciler {
    pub(super) breaker: Arc<Breaker>,
    pub(super) replicas: Arc<Replicas>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) incoming: Arc<Incoming>,
}

impl Reconciler {
    /// Reconciles channels, whenever some wait whose failure domain serves. Never ends.
    pub(super) async fn run(&self) {
        let mut under_way = FuturesUnordered::new();
        let mut working: BTreeSet<ChannelName> = BTreeSet::new();
        // Until when a channel that failed, or that is not due yet, is not tried. It holds up no others.
        let mut delays: BTreeMap<ChannelName, Delay> = BTreeMap::new();
        loop {
            let now = Instant::now();
            let next_hole = self.replicas.look_at_holes(now);
            for channel in self.due(&mut delays, &working, now) {
                working.insert(channel.clone());
                under_way.push(self.try_channel(channel));
            }
            let later = delays.iter().filter(|(name, delay)| !working.contains(*name) && delay.until > now);
            let later = later.map(|(_, delay)| delay.until).chain(next_hole).min();
            let more = self.replicas.work.notified();
            tokio::select! {
                biased;
                Some((channel, tried)) = under_way.next() => {
                    working.remove(&channel);
                    let failures = delays.remove(&channel).map_or(0, |delay| delay.failures);
                    if let Some(delay) = self.delay(&channel, tried, failures) {
                        delays.insert(channel, delay);
                    }
                }
                () = more => {}
                () = async { time::sleep_until(later.unwrap_or(now)).await }, if later.is_some() => {}
            }
        }
    }

    /// The channels that are to be tried now.
    fn due(
        &self,
        delays: &mut BTreeMap<ChannelName, Delay>,
        working: &BTreeSet<ChannelName>,
        now: Instant,
    ) -> Vec<ChannelName> {
        let modes = self.breaker.modes().clone();
        if !modes.is_any_primary() {
            return Vec::new();
        }
        let state = self.replicas.lock();
        delays.retain(|name, _| state.queue.contains(name));
        let is_free = |name: &&ChannelName| {
            let is_due = delays.get(*name).is_none_or(|delay| delay.until <= now);
            is_due && !working.contains(*name) && !self.backlog.has_formers(name)
        };
        let free = state.queue.within(|domain| modes.is_primary(domain)).filter(is_free);
        free.take(AT_ONCE.saturating_sub(working.len())).cloned().collect()
    }

    /// When a channel is to be tried again; `None` if it need not be.
    fn delay(&self, channel: &ChannelName, tried: Tried, failures: u32) -> Option<Delay> {
        match tried {
            Tried::Done => None,
            Tried::Later(until) => Some(Delay { until, failures }),
            Tried::Failed(error) => {
                let failures = failures + 1;
                self.replicas.stats.rejoin_retries.add(1);
                self.breaker.beat_now(self.breaker.domain_of(channel)).notify_one();
                tracing::debug!(channel = %channel, error = %error, failures, "the channel cannot be put in order yet");
                let wait = if failures < SET_ASIDE_AFTER {
                    STORAGE_RETRY.wait(failures)
                } else {
                    self.replicas.set_aside(channel, &error);
                    SET_ASIDE_RETRY
                };
                Some(Delay { until: Instant::now() + wait, failures })
            }
        }
    }

    /// Tries once, unless the primary is away.
    async fn try_channel(&self, channel: ChannelName) -> (ChannelName, Tried) {
        let tried = tokio::select! {
            biased;
            () = self.breaker.until_away(self.breaker.domain_of(&channel)) => Tried::Done,
            tried = self.reconcile(&channel) => tried,
        };
        if let Some(replica) = self.replicas.lock().replicas.get_mut(&channel) {
            replica.set_closing(false);
        }
        self.replicas.in_order.notify_waiters();
        (channel, tried)
    }

    async fn reconcile(&self, channel: &ChannelName) -> Tried {
        let not_before = {
            let state = self.replicas.lock();
            let fork = state.replicas.get(channel).and_then(Replica::fork);
            fork.map(|fork| fork.reconcile_at).filter(|at| *at > Instant::now())
        };
        if let Some(at) = not_before {
            return Tried::Later(at);
        }
        for _ in 0..ROUNDS_MAX {
            match self.try_reconcile(channel).await {
                Ok(true) => return Tried::Done,
                // The channel changed while its log was looked at.
                Ok(false) => {}
                Err(error) => return Tried::Failed(error),
            }
        }
        Tried::Failed(error_restless("reconcile"))
    }

    /// Looks at the log once, and acts on what it finds; false when that has to begin anew.
    async fn try_reconcile(&self, channel: &ChannelName) -> Result<bool> {
        let (primary, stats) = (&self.breaker.primary, &self.replicas.stats);
        let followed = self.replicas.replica_is(channel, Replica::is_followed);
        if followed {
            primary.follow(channel).await?;
        }
        let Some((known, number)) = self.known(channel) else {
            if followed {
                self.unfollow_if_left(channel).await;
            }
            // The channel was forgotten meanwhile, so there is nothing to reconcile.
            self.replicas.lock().queue.reconciled(channel);
            return Ok(true);
        };
        let found = match primary.examine(channel, self.replicas.node, known.at()).await? {
            Some(found) => found,
            None if self.stays_unborn(channel, followed) => {
                if followed {
                    self.unfollow_if_left(channel).await;
                }
                return Ok(true);
            }
            None => primary.open(channel, self.replicas.node, &new_epoch()).await?,
        };
        let Some(plan) = self.plan(channel, &known, &found) else { return Ok(false) };
        if plan.is_older {
            tracing::warn!(
                channel = %channel, top = found.top, seen = known.highest, last_seq = found.last_seq, acked = known.acked,
                "the log was set back; beginning a new epoch"
            );
            primary.renew_epoch(channel, &found.epoch, &new_epoch()).await?;
            return Ok(false);
        }
        #[cfg(test)]
        let plan = if mutant::is(Mutant::TailNotPutBack) {
            Plan { retransmit: Vec::new(), foreign: BTreeMap::new(), ..plan }
        } else {
            plan
        };
        let to = Address { channel, epoch: &found.epoch, producer: self.replicas.node };
        let put_back = self.backlog.send(to, &plan.retransmit, found.last_seq, &stats.put_back).await?;
        let Some(last) = put_back else { return Ok(false) };
        for (producer, entries) in &plan.foreign {
            let to = Address { producer: *producer, ..to };
            let had = newest_of(&found, *producer);
            if self.backlog.send(to, entries, had, &stats.put_back).await?.is_none() {
                return Ok(false);
            }
        }
        self.send_and_close(to, &Look { found: &found, plan, followed, number }, last).await
    }

    /// Sends the journal behind this node's sequence `last`, reads the log to its end, and closes the fork as
    /// soon as nothing waits; false when the channel has changed since the log was looked at.
    async fn send_and_close(&self, to: Address<'_>, look: &Look<'_>, mut last: u64) -> Result<bool> {
        let Look { plan, followed, number, .. } = look;
        let (channel, replicas) = (to.channel, &*self.replicas);
        let mut read = Read { top: plan.base - u64::from(plan.before.is_some()), entries: Vec::new() };
        let mut looks = 0;
        loop {
            looks += 1;
            if looks == CLOSING_AFTER
                && let Some(replica) = replicas.lock().replicas.get_mut(channel)
            {
                // Entries come faster than the fork can be closed.
                replica.set_closing(true);
            }
            // What is sent stays in the journal until the channel is reconciled: the log may lose it before
            // that.
            let fresh = {
                let mut state = replicas.lock();
                state.journal.are_in_log(channel, last);
                state.journal.after(channel, last, BATCH)
            };
            if !fresh.is_empty() {
                let sent = self.backlog.send(to, &fresh, last, &replicas.stats.replayed).await?;
                let Some(newest) = sent else { return Ok(false) };
                last = newest;
                continue;
            }
            if !followed && replicas.replica_is(channel, Replica::is_followed) {
                // Readers have joined: begin anew, and read the entries of the log for them.
                return Ok(false);
            }
            if !self.read_on(to, *followed, &mut read).await? {
                return Ok(false);
            }
            if plan.is_contradicted_by(&read.entries) {
                if let Some(replica) = replicas.lock().replicas.get_mut(channel) {
                    replica.contradicted();
                }
                return Ok(false);
            }
            if replicas.lock().queue.look(channel) > *number {
                // What was found in the log may not hold any more.
                return Ok(false);
            }
            if self.close(channel, look, last, &mut read) {
                self.backlog.acknowledged(replicas.node, channel, last);
                if *followed {
                    self.unfollow_if_left(channel).await;
                }
                return Ok(true);
            }
        }
    }

    /// What is known of the log before it is asked, and the channel's number in the queue; `None` where the
    /// channel is not known any more.
    fn known(&self, channel: &ChannelName) -> Option<(Known, u64)> {
        let state = self.replicas.lock();
        Some((state.replicas.get(channel)?.known(), state.queue.look(channel)))
    }

    /// Handles a log that has no epoch: if nothing waits to be appended, marks the channel as reconciled and
    /// returns true.
    fn stays_unborn(&self, channel: &ChannelName, followed: bool) -> bool {
        {
            let mut state = self.replicas.lock();
            let is_blank = state.replicas.get(channel).is_some_and(Replica::is_blank);
            if !is_blank || !state.journal.is_empty(channel) {
                return false;
            }
            if let Some(replica) = state.replicas.get_mut(channel) {
                if replica.is_followed() && !followed {
                    return false;
                }
                replica.stays_unborn();
            }
            state.forget_if_blank(channel);
            state.queue.reconciled(channel);
        }
        self.replicas.in_order.notify_waiters();
        self.incoming.tell(LogEvent::Changed(channel.clone()));
        true
    }

    /// What is to be done about the log as it was found; `None` when the replica is of another epoch by now.
    fn plan(&self, channel: &ChannelName, known: &Known, found: &OpenLog) -> Option<Plan> {
        let (log, memory) = (&known.log, &self.replicas.memory);
        let mut state = self.replicas.lock();
        let replica = state.replicas.get_mut(channel)?;
        if replica.log() != log.as_ref() {
            return None;
        }
        replica.expire_retransmit();
        let is_same = log.as_ref() == Some(&found.epoch);
        if is_same {
            #[cfg(test)]
            if mutant::is(Mutant::ForgottenIsLost) && self.has_forgotten(channel, found) {
                return Some(Plan { is_older: true, ..Plan::default() });
            }
            // This node appends no entries with ids of their own while the channel is queued, so the log lost
            // those that are missing.
            let lacks_foreign = !replica.foreign.after(|producer| newest_of(found, producer)).is_empty();
            if replica.is_set_back(found, known) || lacks_foreign {
                return Some(Plan { is_older: true, ..Plan::default() });
            }
            let base = replica.fork().map(Forked::base);
            let mirrored = memory.mirrored(channel).map_or(found.top, |mirrored| mirrored.top);
            let base = base.unwrap_or(mirrored);
            // The entry at the base is read again with what follows it: the log may have another one in its
            // place.
            let before = replica.seen_at(base);
            #[cfg(test)]
            let before = before.filter(|_| !mutant::is(Mutant::RejoinWithoutEntryBefore));
            return Some(Plan { base, before, ..Plan::default() });
        }
        let replica = state.replicas.get(channel)?;
        // If no epoch of the log was known, the replica begins at the end of the log; but with all of the log
        // if no other node has appended to it (this one may have, in a try that broke off), if readers want
        // the whole log, or if the log had no epoch.
        let others = found.top > found.last_seq
            || found.producers.iter().any(|(producer, _)| *producer != self.replicas.node);
        let is_wanted_whole = ChannelPolicy::of(channel).is_wanted_whole || replica.has_had_nothing();
        let joins = log.is_none() && !is_wanted_whole && others;
        let base = if joins { found.top } else { 0 };
        let skips = joins && found.top > 0;
        let retransmit = if log.is_none() {
            let journaled = state.journal.after(channel, 0, 1).first().map_or(u64::MAX, |append| append.seq);
            self.own_entries(channel, found.last_seq, journaled)
        } else {
            replica.retransmit.after(found.last_seq)
        };
        // If all entries of the replica have expired, so have those of the log: it did not lose them.
        let end = replica.fork().map_or(u64::MAX, Forked::base);
        let end = end.min(memory.mirrored(channel).map_or(0, |mirrored| mirrored.top));
        let is_young = !memory.last_ids(channel, end, 1).is_empty();
        #[cfg(test)]
        let is_young = is_young || mutant::is(Mutant::ExpiredIsLost);
        let loses = log.is_some() && is_young;
        let foreign = replica.foreign.after(|producer| newest_of(found, producer));
        Some(Plan { is_older: false, base, before: None, skips, retransmit, foreign, loses })
    }

    /// Whether the log does not know what was seen of some producer.
    #[cfg(test)]
    fn has_forgotten(&self, channel: &ChannelName, found: &OpenLog) -> bool {
        let knows =
            |(node, seq): &(_, u64)| found.producers.iter().any(|(known, held)| known == node && held >= seq);
        self.replicas.memory.producers(channel).iter().any(|producer| !knows(producer))
    }

    /// What this node appended to memory while no Redis was configured, so that it was not journaled.
    fn own_entries(&self, channel: &ChannelName, after_seq: u64, before_seq: u64) -> Vec<Append> {
        let Replicas { node, memory, .. } = &*self.replicas;
        let kept = memory.read_now(channel, None, usize::MAX).entries;
        let own = kept.into_iter().filter(|entry| {
            entry.id.producer == *node && entry.id.seq > after_seq && entry.id.seq < before_seq
        });
        own.map(|entry| Append { seq: entry.id.seq, prev: 0, draft: entry.draft, fence: None }).collect()
    }

    /// Unfollows the log again, if the last reader of the channel left while that was reconciled.
    async fn unfollow_if_left(&self, channel: &ChannelName) {
        if self.replicas.replica_is(channel, Replica::is_followed) {
            return;
        }
        if let Err(error) = self.breaker.primary.unfollow(channel).await {
            // What is published all the same is ignored.
            tracing::debug!(%channel, %error, "the channel cannot be unfollowed");
        }
        let mut state = self.replicas.lock();
        if let Some(replica) = state.replicas.get_mut(channel).filter(|replica| replica.is_followed()) {
            // A reader that came meanwhile may have been unfollowed too.
            replica.set_confirmed(false);
            state.suspect(channel);
        }
    }

    /// Reads the log to its end, for the replica; false when it has changed its epoch or lost entries.
    async fn read_on(&self, of: Address<'_>, followed: bool, read: &mut Read) -> Result<bool> {
        loop {
            let after = Position { epoch: of.epoch.clone(), offset: read.top };
            let limit = if followed { PAGE } else { 0 };
            let page = self.breaker.primary.read_after(of.channel, Some(&after), limit).await?;
            if page.epoch.as_ref() != Some(of.epoch) || page.top < read.top {
                return Ok(false);
            }
            if !followed {
                read.top = page.top;
                return Ok(true);
            }
            if page.first > read.top + 1 {
                read.entries.clear();
            }
            read.top = page.entries.last().map_or(page.top, |last| last.offset);
            read.entries.extend(page.entries);
            if read.top >= page.top {
                return Ok(true);
            }
        }
    }

    /// Marks the channel as reconciled, and closes its fork if there is one; false if something was accepted
    /// or has changed since the look at the log. Replica, journal and queue change together.
    fn close(&self, channel: &ChannelName, look: &Look<'_>, last: u64, read: &mut Read) -> bool {
        let (Look { found, plan, followed, number }, stats) = (look, &self.replicas.stats);
        {
            let mut state = self.replicas.lock();
            let is_over = state.queue.look(channel) > *number;
            if is_over || !state.journal.after(channel, last, 1).is_empty() {
                return false;
            }
            let mut kept = plan.retransmit.clone();
            kept.extend(state.journal.newest(channel, TAIL_MAX));
            let Some(replica) = state.replicas.get_mut(channel) else {
                state.queue.reconciled(channel);
                return true;
            };
            if replica.is_followed() && !followed {
                return false;
            }
            if plan.loses {
                stats.lost_logs.add(1);
            }
            if replica.is_forked() {
                stats.rejoins.add(1);
            }
            let read_entries = std::mem::take(&mut read.entries);
            #[cfg(test)]
            let read_entries =
                if mutant::is(Mutant::RejoinWithoutReading) { Vec::new() } else { read_entries };
            let own = vec![(self.replicas.node, last)];
            let to = Reconciled {
                epoch: found.epoch.clone(),
                base: plan.base,
                top: read.top,
                acked: last,
                producers: if plan.base == 0 { own } else { found.producers.clone() },
                anchor: found.anchor,
                read: read_entries,
                kept,
                skips: plan.skips,
            };
            replica.reconcile(to);
            state.journal.acknowledged(channel, last);
            state.queue.reconciled(channel);
        }
        self.replicas.in_order.notify_waiters();
        self.incoming.tell(LogEvent::Changed(channel.clone()));
        true
    }
}

/// A look at a log.
struct Look<'a> {
    found: &'a OpenLog,
    plan: Plan,
    /// Readers on this node followed the channel then.
    followed: bool,
    /// The channel's number in the queue then: see [`Queue::look`](super::queue::Queue::look).
    number: u64,
}

/// What is to be done about a log.
#[derive(Debug, Default)]
struct Plan {
    /// The log was set back, and is in the same epoch.
    is_older: bool,
    /// The offset after which readers go on.
    base: u64,
    /// The entry at that offset, where it is known.
    before: Option<Anchor>,
    /// Readers that continue there miss entries that the log has up to that offset.
    skips: bool,
    /// Own entries to append first: those that the log lost, or that were accepted before a Redis appeared.
    retransmit: Vec<Append>,
    /// By producer, entries with ids of their own that the log lost.
    foreign: BTreeMap<NodeId, Vec<Append>>,
    /// The log replaced one whose entries had not all expired: they were lost.
    loses: bool,
}

/// The newest sequence of a producer that a log names; 0 if it does not name the producer.
fn newest_of(found: &OpenLog, producer: NodeId) -> u64 {
    found.producers.iter().find(|(known, _)| *known == producer).map_or(0, |(_, seq)| *seq)
}

impl Plan {
    /// Whether the log has another entry than is known at the offset where readers go on.
    fn is_contradicted_by(&self, entries: &[Entry]) -> bool {
        let at = |offset| entries.iter().find(|entry| entry.offset == offset);
        self.before.is_some_and(|before| at(before.offset).is_some_and(|entry| entry.id != before.id))
    }
}

/// What has been read of a log so far.
#[derive(Debug)]
struct Read {
    top: u64,
    entries: Vec<Entry>,
}
