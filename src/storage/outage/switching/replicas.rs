//! The local replicas of logs, and what is decided about them together, under one lock: *whatever a fork
//! accepted is in the journal until the log has it, and a channel whose replica may differ from its log is in the
//! reconcile queue.* So a fork accepts entries in one step with journal and queue, and is closed in one step with
//! them.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{self, Instant};

use super::breaker::Breaker;
use super::queue::Queue;
use super::reconcile::NOT_BEFORE;
use super::replica::Replica;
use super::stats::SwitchingStats;
use super::until;
use crate::model::{ChannelName, ChannelPolicy, Epoch, NodeId};
use crate::storage::outage::journal::{Gone, Journal, JournalBounds};
use crate::storage::primary::Domain;
use crate::storage::{MemoryBackend, StorageError};
use crate::support::chance::Hashing;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// How long a missing entry may take to arrive before its channel is reconciled.
const HOLE_WITHIN: Duration = Duration::from_millis(100);

/// How long a caller waits for a channel that is being reconciled.
const IN_ORDER_WITHIN: Duration = Duration::from_secs(1);

/// Beyond this many replicas, those that nobody needs are dropped after [`TIDY_EVERY`] without use.
const REPLICAS_MAX: usize = 100_000;

/// Between looks for replicas that are no longer needed.
pub(super) const TIDY_EVERY: Duration = Duration::from_secs(10);

/// The local replicas, with the journal and the reconcile queue.
pub(super) struct Replicas {
    pub(super) node: NodeId,
    /// Holds the entries of the replicas.
    pub(super) memory: MemoryBackend,
    pub(super) breaker: Arc<Breaker>,
    state: Mutex<State>,
    /// Notified when the reconciler has something new to do.
    pub(super) work: Notify,
    /// Notified after each try to reconcile, and whenever a recovery may have less to wait for.
    pub(super) in_order: Notify,
    pub(super) stats: SwitchingStats,
}

pub(super) struct State {
    pub(super) replicas: HashMap<ChannelName, Replica, Hashing>,
    pub(super) journal: Journal,
    pub(super) queue: Queue,
    /// The channels with a hole: entries came, but not those right before them. When to look again, and the
    /// offset after which entries were missing at the last look.
    holes: BTreeMap<ChannelName, (Instant, u64)>,
}

/// The replicas, locked.
pub(super) struct Locked<'a> {
    of: &'a Replicas,
    state: MutexGuard<'a, State>,
}

impl Replicas {
    pub(super) fn new(
        node: NodeId,
        memory: MemoryBackend,
        breaker: Arc<Breaker>,
        journal: JournalBounds,
    ) -> Self {
        let state = State {
            replicas: HashMap::default(),
            journal: Journal::new(journal),
            queue: Queue::default(),
            holes: BTreeMap::new(),
        };
        Self {
            node,
            memory,
            breaker,
            state: Mutex::new(state),
            work: Notify::new(),
            in_order: Notify::new(),
            stats: SwitchingStats::default(),
        }
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        Locked { of: self, state: self.state.lock() }
    }

    /// Whether a channel has a replica of which `holds` is true.
    pub(super) fn replica_is(&self, channel: &ChannelName, holds: impl FnOnce(&Replica) -> bool) -> bool {
        self.lock().replicas.get(channel).is_some_and(holds)
    }

    /// The epoch of a channel on this node: that of its fork or, if it is not forked, of its log.
    pub(super) fn epoch_of(&self, channel: &ChannelName) -> Option<Epoch> {
        self.lock().epoch_of(channel)
    }

    /// Waits until a channel is no longer suspect, for at most [`IN_ORDER_WITHIN`].
    pub(super) async fn until_in_order(&self, channel: &ChannelName) {
        self.until_replica(channel, IN_ORDER_WITHIN, |replica| !replica.is_suspect()).await;
    }

    /// Waits until `holds` is true of a channel's replica, or there is none: at most for `within`, and only
    /// while the channel's failure domain serves.
    pub(super) async fn until_replica(
        &self,
        channel: &ChannelName,
        within: Duration,
        holds: impl Fn(&Replica) -> bool,
    ) {
        tokio::select! {
            biased;
            () = until(&self.in_order, || self.lock().replicas.get(channel).is_none_or(&holds)) => {}
            () = self.breaker.until_away(self.breaker.domain_of(channel)) => {}
            () = time::sleep(within) => {}
        }
    }

    /// Queues the channels whose replicas are due, in one failure domain or in all. If a domain is given, its
    /// recovery waits for every channel of the domain that is in the queue then.
    pub(super) fn enqueue_due(&self, domain: Option<Domain>, is_due: impl Fn(&Replica) -> bool) {
        let is_one = self.breaker.modes().present().count() < 2;
        let is_in =
            |name: &ChannelName| domain.is_none_or(|domain| is_one || self.breaker.domain_of(name) == domain);
        let mut state = self.lock();
        let replicas = state.replicas.iter().filter(|(name, replica)| is_due(replica) && is_in(name));
        let due: Vec<ChannelName> = replicas.map(|(name, _)| name.clone()).collect();
        due.iter().for_each(|name| state.queue.look_anew(name, |name| self.breaker.domain_of(name)));
        if let Some(domain) = domain {
            state.queue.await_all(domain);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Queues the channels whose missing entries have not come in time. Returns when to look again; `None` if
    /// no other channel has a hole.
    pub(super) fn look_at_holes(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        let State { replicas, holes, .. } = &mut *state;
        let mut stuck = Vec::new();
        holes.retain(|channel, (at, before)| {
            if *at > now {
                return true;
            }
            match replicas.get(channel).and_then(Replica::hole) {
                None => false,
                Some(after) if after > *before => {
                    (*at, *before) = (now + HOLE_WITHIN, after);
                    true
                }
                Some(_) => {
                    stuck.push(channel.clone());
                    false
                }
            }
        });
        let next = holes.values().map(|(at, _)| *at).min();
        stuck.iter().for_each(|channel| state.suspect(channel));
        next
    }

    /// Sets aside a channel that cannot be reconciled although its failure domain serves: it is still
    /// retried, but no recovery waits for it.
    pub(super) fn set_aside(&self, channel: &ChannelName, error: &StorageError) {
        let why = error.with_causes();
        if self.lock().queue.set_aside(channel, why.clone()) {
            tracing::error!(%channel, error = why, "the channel cannot be reconciled, and is set aside");
        }
        self.in_order.notify_waiters();
    }

    /// Forgets what is no longer needed. Returns what the journal dropped because of its age.
    pub(super) fn tidy(&self, now: Instant) -> Vec<Gone> {
        let mut state = self.lock();
        let gone = state.journal.expire(now);
        let is_many = state.replicas.len() > REPLICAS_MAX;
        let State { replicas, journal, queue, holes } = &mut *state;
        replicas.retain(|name, replica| {
            let kept = if is_many { TIDY_EVERY } else { ChannelPolicy::of(name).remembered_for };
            let is_fresh = now.duration_since(replica.used) < kept;
            if is_fresh || replica.is_followed() || !journal.is_empty(name) {
                return true;
            }
            // A fork whose entries have all expired has nothing to be reconciled.
            let is_empty = replica.is_forked() && self.memory.mirrored(name).is_none();
            if is_empty {
                queue.forget(name);
            }
            !is_empty && (replica.is_needed() || queue.contains(name))
        });
        holes.retain(|name, _| replicas.contains_key(name));
        // After a burst of orders, the map still has the capacity that all of them needed.
        if replicas.capacity() > 4 * replicas.len().max(256) {
            replicas.shrink_to(2 * replicas.len());
        }
        replicas.values_mut().for_each(Replica::expire_retransmit);
        bound_retransmits(replicas, self.memory.put_back_bytes_max());
        gone
    }
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Locked<'_> {
    pub(super) fn epoch_of(&self, channel: &ChannelName) -> Option<Epoch> {
        self.replicas.get(channel).and_then(|replica| replica.epoch().cloned())
    }

    /// Whether a channel is in the reconcile queue. Until it has been reconciled, it is not known whether new
    /// entries of its log follow what was seen here.
    pub(super) fn is_queued(&self, channel: &ChannelName) -> bool {
        #[cfg(test)]
        if mutant::is(Mutant::DoubtDisregarded) {
            return false;
        }
        self.queue.contains(channel)
    }

    /// Forgets a channel of which nothing is known and that nobody here uses: following alone leaves
    /// nothing behind.
    pub(super) fn forget_if_blank(&mut self, channel: &ChannelName) {
        let is_blank = |replica: &Replica| replica.is_blank() && !replica.is_followed();
        if self.replicas.get(channel).is_some_and(is_blank) && self.journal.is_empty(channel) {
            self.replicas.remove(channel);
            self.holes.remove(channel);
            self.queue.reconciled(channel);
        }
    }

    /// The replica of a channel, new where there was none.
    pub(super) fn replica(&mut self, channel: &ChannelName) -> &mut Replica {
        let Replicas { node, memory, .. } = self.of;
        let new = || Replica::new(channel.clone(), *node, memory.clone(), Instant::now());
        self.state.replicas.entry(channel.clone()).or_insert_with(new)
    }

    /// Adds a channel to the reconcile queue, unless it is in it.
    pub(super) fn enqueue(&mut self, channel: &ChannelName) {
        if self.of.breaker.is_standalone() {
            // There is no log to be in step with; when that changes, all channels are looked at.
            return;
        }
        // Only a channel that was not in the queue wakes the reconciler: in an outage, thousands may wait.
        if self.state.queue.add(channel, |channel| self.of.breaker.domain_of(channel)) {
            self.of.work.notify_one();
        }
    }

    /// A channel was found to differ from its log: queues it with a new number, so that a look at the log that
    /// is in progress does not count.
    pub(super) fn suspect(&mut self, channel: &ChannelName) {
        if let Some(replica) = self.state.replicas.get_mut(channel) {
            replica.suspected();
        }
        if !self.of.breaker.is_standalone() {
            self.state.queue.look_anew(channel, |channel| self.of.breaker.domain_of(channel));
            self.of.work.notify_one();
        }
    }

    /// If the replica has a hole, has the channel reconciled unless the missing entries arrive in time.
    pub(super) fn mind_hole(&mut self, channel: &ChannelName) {
        let hole = self.state.replicas.get(channel).and_then(Replica::hole);
        if let (Some(before), false) = (hole, self.state.holes.contains_key(channel)) {
            self.state.holes.insert(channel.clone(), (Instant::now() + HOLE_WITHIN, before));
            self.of.work.notify_one();
        }
    }

    /// Forks a channel, unless it is forked. `next` is the sequence of its next own entry, if known; `late`
    /// says that an append took too long, for the statistics.
    pub(super) fn fork(&mut self, channel: &ChannelName, next: Option<u64>, late: bool) {
        let replica = self.replica(channel);
        if replica.is_forked() {
            return;
        }
        replica.take_up_begun();
        replica.keep_mirror();
        replica.begin_fork(next, Instant::now() + NOT_BEFORE);
        self.of.stats.forks.add(1);
        if late {
            self.of.stats.forks_late.add(1);
        }
        tracing::debug!(channel = %channel, late, "the channel goes on without the log");
        self.enqueue(channel);
    }
}

/// Bounds all retransmit buffers together: empties those of the channels that were not used for longest
/// first.
fn bound_retransmits(replicas: &mut HashMap<ChannelName, Replica, Hashing>, bytes_max: usize) {
    let mut total: usize = replicas.values().map(Replica::kept_bytes).sum();
    if total <= bytes_max {
        return;
    }
    let mut resting: Vec<(Instant, ChannelName)> =
        replicas.iter().map(|(name, replica)| (replica.used, name.clone())).collect();
    resting.sort_unstable();
    for (_, name) in resting {
        if total <= bytes_max {
            return;
        }
        if let Some(replica) = replicas.get_mut(&name) {
            total -= replica.kept_bytes();
            replica.keep_nothing();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::DraftEntry;
    use crate::storage::{Append, MemoryConfig, Retention};

    #[tokio::test(start_paused = true)]
    async fn all_retransmit_buffers_together_are_bounded() {
        let data = Bytes::from(vec![b'x'; 1 << 20]);
        let (memory, _) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        let mut replicas = HashMap::default();
        let max: usize = 50 << 20;
        let count = (max >> 20) + 20;
        for n in 0..count {
            let name: ChannelName = format!("zone:{n:04}").parse().unwrap();
            let mut replica = Replica::new(name.clone(), NodeId::random(), memory.clone(), Instant::now());
            replica.retransmit.keep(Append {
                seq: 1,
                prev: 0,
                draft: DraftEntry::price(0, data.clone()),
                fence: None,
            });
            replicas.insert(name, replica);
            time::advance(Duration::from_millis(1)).await;
        }
        bound_retransmits(&mut replicas, max);
        assert!(replicas.values().map(|replica| replica.retransmit.bytes()).sum::<usize>() <= max);
        let mut gone: Vec<&ChannelName> = replicas
            .iter()
            .filter(|(_, replica)| replica.retransmit.bytes() == 0)
            .map(|(name, _)| name)
            .collect();
        gone.sort_unstable();
        assert!((20..25).contains(&gone.len()), "{}", gone.len());
        assert_eq!(gone[gone.len() - 1].as_str(), format!("zone:{:04}", gone.len() - 1), "the oldest went");
    }
}
