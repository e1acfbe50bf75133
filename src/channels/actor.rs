//! The actor of one channel: appends what is published on this node, and puts the entries of all nodes in
//! order. It does one thing at a time, so the order needs no locks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ChannelStats;
use super::accepted::TellAccepted;
use super::config::ChannelsConfig;
use super::error::{JoinError, PublishError};
use super::live::{self, Delivery, Live, LiveBatch, Moved};
use super::merge::{Merge, Offered};
use super::pages::Pages;
use super::unborn::{to_be_born, unborn};
use super::views::Views;
use super::watched::{FollowedEvents, WatchedOrders};
use crate::model::{
    ChannelName, ChannelPolicy, DraftEntry, Entry, EntryId, Epoch, Lane, NodeId, Position, WhyUnknown,
    new_epoch,
};
use crate::storage::{
    Append, AppendAnswer, AppendBatch, Appended, EpochTransition, OpenLog, Refusal, SharedBackend,
    StorageError, log_of_fork,
};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::counter::observe;
use crate::support::fault;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};
use crate::support::seldom::Seldom;

/// Entries in one read of the log.
const REPAIR_PAGE: usize = 300;

/// How long an actor stays after its last use if nobody published here, or if its kind does not linger.
const SHORT_LINGER: Duration = Duration::from_secs(1);

/// How many commands are taken before the storage is used.
const COMMANDS_PER_TURN: usize = 256;

/// A request to a channel's actor.
#[derive(Debug)]
pub(super) enum Command {
    Publish(Request),
    /// To join the channel itself, or a view of it.
    Join {
        channel: ChannelName,
        shard: usize,
        answer: oneshot::Sender<Result<Position, JoinError>>,
    },
    Leave {
        channel: ChannelName,
        shard: usize,
    },
}

/// A publisher's drafts that wait to be appended, in order.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) drafts: Vec<DraftEntry>,
    /// The lease's fencing token under which they are appended.
    pub(super) fence: Option<u64>,
    /// Whether a publisher of this node sent them, as opposed to another process.
    pub(super) is_own: bool,
    /// The drafts' own ids, if they have any; otherwise this node numbers them.
    pub(super) ids: Option<Ids>,
    /// The log had no epoch, as far as the caller knew. Only one attempt relies on that, because it may be
    /// wrong.
    pub(super) begins: bool,
    /// The drafts are appended only if the log has no entries. Set to false once that has been found.
    pub(super) is_only_first: bool,
    /// How many of them the log has acknowledged.
    pub(super) accepted: usize,
    pub(super) answer: oneshot::Sender<Result<(), PublishError>>,
    /// Their permits in the queue, released when the request is answered.
    pub(super) _places: OwnedSemaphorePermit,
}

/// Entries' own ids: whoever appends an entry, and however often, the log has it once.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) producer: NodeId,
    /// One for each entry, in ascending order.
    pub(super) links: Vec<Link>,
}

/// A link in a producer's chain of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The entry's sequence.
    pub(crate) seq: u64,
    /// The sequence of the entry that must precede it in the log; 0 if that is unknown.
    pub(crate) prev: u64,
}

/// The storage's notification that a node, this one or another, appended entries.
#[derive(Debug)]
pub(super) struct Notification {
    pub(super) epoch: Epoch,
    pub(super) entries: Vec<Entry>,
}

/// Makes an actor read its log. Unlike a queue, it always has room.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    raised: AtomicBool,
    notify: Notify,
}

impl Suspicion {
    /// Makes the actor read the log, because entries may have been missed.
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

/// What all actors of a node share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) backend: SharedBackend,
    pub(super) node: NodeId,
    pub(super) config: ChannelsConfig,
    pub(super) stats: ChannelStats,
    pub(super) pages: Pages,
    /// The queues of the shards. They are bounded, and so are each channel's credits; when there is no
    /// room, the actor waits, and so, in the end, does the publisher.
    pub(super) shards: Vec<mpsc::Sender<Delivery>>,
    /// The lowest sequence for a new actor: above those of all actors that have ended, so that no sequence of
    /// this node is used twice in a channel.
    pub(super) seq_floor: AtomicU64,
    pub(super) orders: Arc<WatchedOrders>,
    /// Notified of what this node accepted.
    pub(super) accepted: Option<Arc<dyn TellAccepted>>,
    pub(super) events: FollowedEvents,
    /// How many views are followed on this node.
    pub(super) views: AtomicUsize,
    /// Limits log lines about entries that cannot be shown; counts the channels left out.
    pub(super) unknown_logged: Mutex<Seldom>,
    pub(super) stop: CancellationToken,
}

/// This node's chain of appends in one epoch of the log.
#[derive(Debug)]
struct Chain {
    epoch: Epoch,
    /// The newest sequence that the log acknowledged.
    acked: u64,
}

pub(super) struct Actor {
    common: Arc<Common>,
    channel: ChannelName,
    policy: &'static ChannelPolicy,
    lane: Lane,
    commands: mpsc::Receiver<Command>,
    notifications: mpsc::Receiver<Notification>,
    suspicion: Arc<Suspicion>,

    chain: Option<Chain>,
    /// The epoch that readers were told the log will start with. It is used once: if the log is lost after
    /// that, it gets another one.
    minted: Option<Epoch>,
    next_seq: u64,
    waiting: VecDeque<Request>,
    /// The batch to send again, unchanged.
    unanswered: Option<AppendBatch>,
    failures: u32,
    failing_since: Option<Instant>,
    retry_at: Instant,

    /// Whether the storage was asked to report this channel's appends.
    followed: bool,
    /// Exists once the channel is followed and its state is known.
    merge: Option<Merge>,
    /// Entries up to this offset are delivered as late.
    late_to: u64,
    joined: Vec<bool>,
    views: Views,
    /// The newest offset passed to the shards.
    passed: u64,
    /// No offset from this one to `passed` was left out.
    whole_from: u64,
    /// For each shard, once it was sent a message: the credits for messages on their way to it.
    credits: Vec<Option<Arc<Semaphore>>>,
    suspect: bool,
    repair_failures: u32,
    repair_at: Instant,

    /// Whether an entry that cannot be shown was logged.
    logged_unknown: bool,
    used_at: Instant,
    /// Whether something was published here, so that the actor should linger.
    published: bool,
}

impl Actor {
    pub(super) fn new(
        common: Arc<Common>,
        channel: ChannelName,
        commands: mpsc::Receiver<Command>,
        notifications: mpsc::Receiver<Notification>,
        suspicion: Arc<Suspicion>,
    ) -> Self {
        let now = Instant::now();
        Self {
            policy: ChannelPolicy::of(&channel),
            lane: common.config.lane(&channel),
            joined: vec![false; common.shards.len()],
            credits: vec![None; common.shards.len()],
            next_seq: common.seq_floor.load(Ordering::Acquire).max(1),
            common,
            channel,
            commands,
            notifications,
            suspicion,
            chain: None,
            minted: None,
            waiting: VecDeque::new(),
            unanswered: None,
            failures: 0,
            failing_since: None,
            retry_at: now,
            followed: false,
            merge: None,
            late_to: 0,
            views: Views::default(),
            passed: 0,
            whole_from: 1,
            suspect: false,
            repair_failures: 0,
            repair_at: now,
            logged_unknown: false,
            used_at: now,
            published: false,
        }
    }

    /// Runs until the channel is idle, or the node stops and nothing waits any more. Returns the command
    /// queue: commands that arrived too late are for the next actor of this channel.
    pub(super) async fn run(mut self) -> mpsc::Receiver<Command> {
        let stop = self.common.stop.clone();
        let suspicion = Arc::clone(&self.suspicion);
        loop {
            let stopping = stop.is_cancelled();
            if self.waiting.is_empty() && (stopping || self.is_idle()) && self.commands.is_empty() {
                break;
            }
            let due = self.due();
            tokio::select! {
                biased;
                Some(notification) = self.notifications.recv() => self.on_notification(notification).await,
                Some(command) = self.commands.recv() => self.on_command(command).await,
                () = suspicion.notify.notified() => {}
                () = time::sleep_until(due) => {}
                () = stop.cancelled(), if !stopping => {}
            }
            for _ in 0..COMMANDS_PER_TURN {
                let Ok(command) = self.commands.try_recv() else { break };
                self.on_command(command).await;
            }
            self.suspect |= suspicion.raised.swap(false, Ordering::AcqRel);
            // These futures are large, so they are created only when there is something to do.
            if self.is_repair_due() {
                self.repair_or_retry().await;
            }
            if self.is_append_due() {
                self.append_or_retry().await;
            }
        }
        self.common.seq_floor.fetch_max(self.next_seq, Ordering::AcqRel);
        if self.followed
            && let Err(error) = self.common.backend.unfollow(&self.channel).await
        {
            debug!(channel = %self.channel, error = %error, "could not unfollow an idle channel");
        }
        self.commands
    }

    fn is_idle(&self) -> bool {
        self.idle_at().is_some_and(|at| Instant::now() >= at)
    }

    fn idle_at(&self) -> Option<Instant> {
        let nobody = !self.is_followed() && self.waiting.is_empty();
        // A channel that was only asked for ends soon, so that asking for many costs little.
        let is_lasting = self.published && self.policy.lingers;
        let linger =
            if is_lasting { Duration::from_secs(self.common.config.idle_after_s) } else { SHORT_LINGER };
        nobody.then(|| self.used_at + linger)
    }

    fn hole_at(&self) -> Option<Instant> {
        let hole_timeout = Duration::from_millis(self.common.config.hole_timeout_ms);
        self.merge.as_ref().and_then(Merge::hole_since).map(|since| since + hole_timeout)
    }

    /// When the next thing is due that no message triggers.
    fn due(&self) -> Instant {
        let now = Instant::now();
        let append = (!self.waiting.is_empty()).then_some(self.retry_at);
        let repair = if self.suspect { Some(now) } else { self.hole_at() }.map(|at| at.max(self.repair_at));
        let far = now + Duration::from_secs(3600);
        [append, repair, self.idle_at()].into_iter().flatten().min().unwrap_or(far)
    }

    async fn on_command(&mut self, command: Command) {
        self.used_at = Instant::now();
        match command {
            Command::Publish(request) => {
                self.published = true;
                self.waiting.push_back(request);
            }
            Command::Join { channel, shard, answer } => {
                let joined = self.join(&channel, shard).await;
                if answer.send(joined).is_err() {
                    debug!(channel = %self.channel, shard, "the shard no longer waits for its join");
                }
            }
            Command::Leave { channel, shard } => {
                if channel == self.channel {
                    self.joined[shard] = false;
                } else if self.views.leave(&channel, shard) {
                    self.common.views.fetch_sub(1, Ordering::Relaxed);
                }
                if !self.is_followed() {
                    self.report_followers(false);
                }
            }
        }
    }

    /// Whether a shard follows the channel or a view of it.
    fn is_followed(&self) -> bool {
        self.joined.contains(&true) || !self.views.is_empty()
    }

    fn report_followers(&self, are_there: bool) {
        self.common.orders.set(&self.channel, are_there);
        self.common.events.set(&self.channel, are_there);
    }

    /// Makes a shard follow the channel or a view of it: it gets all entries after the position in the
    /// answer.
    async fn join(&mut self, channel: &ChannelName, shard: usize) -> Result<Position, JoinError> {
        let is_new_view = *channel != self.channel && !self.views.holds(channel);
        let views_max = self.common.config.views_max;
        if is_new_view && self.common.views.load(Ordering::Relaxed) >= views_max {
            return Err(JoinError::TooManyChannels(views_max));
        }
        let position = self.follow().await.map_err(JoinError::Unavailable)?;
        if !self.is_followed() {
            self.report_followers(true);
        }
        if *channel == self.channel {
            self.joined[shard] = true;
        } else {
            self.common.views.fetch_add(usize::from(is_new_view), Ordering::Relaxed);
            self.views.join(channel, shard, self.joined.len(), position.offset);
        }
        Ok(position)
    }

    async fn follow(&mut self) -> Result<Position, StorageError> {
        if self.merge.is_none() {
            self.followed = true;
            self.common.backend.follow(&self.channel).await?;
            self.merge = Some(match self.common.backend.find(&self.channel, self.common.node).await? {
                Some(log) => {
                    let top = log.top;
                    Merge::after(self.continue_in(log), top)
                }
                None => Merge::unborn(self.mint()),
            });
            self.passed_all_to(self.merge.as_ref().map_or(0, Merge::delivered));
        }
        let merge = self.merge.as_ref().expect("set just above");
        Ok(merge.position())
    }

    /// Chooses the epoch that the log gets if its first append is made here.
    fn mint(&mut self) -> Epoch {
        let minted = new_epoch();
        self.minted = Some(minted.clone());
        minted
    }

    /// Opens the log in its current epoch, or starts it, and returns the epoch; `None` if the next request
    /// was refused because it had to begin the log, and the log has entries of others.
    async fn open(&mut self) -> Result<Option<Epoch>, StorageError> {
        let minted = self.minted.take().unwrap_or_else(new_epoch);
        let log = self.common.backend.open(&self.channel, self.common.node, &minted).await?;
        // The entries may be the request's own, from an attempt whose answer was lost.
        let sent = self.unanswered.as_ref().and_then(|batch| batch.entries.first());
        let is_news = log.top > 0 && sent.is_none_or(|first| log.last_seq < first.seq);
        let epoch = self.continue_in(log);
        Ok((!self.refuses_first(is_news)).then_some(epoch))
    }

    /// Refuses the next request if it was to begin a log that `has_entries`.
    fn refuses_first(&mut self, has_entries: bool) -> bool {
        let Some(next) = self.waiting.front_mut() else { return false };
        let is_refused = std::mem::take(&mut next.is_only_first) && has_entries;
        if is_refused {
            self.unanswered = None;
            self.fail_next(|_none| PublishError::NotFirst);
        }
        is_refused
    }

    /// Continues with appends in this epoch of the log.
    fn continue_in(&mut self, log: OpenLog) -> Epoch {
        let OpenLog { epoch, last_seq, .. } = log;
        self.next_seq = self.next_seq.max(last_seq + 1);
        self.chain = Some(Chain { epoch: epoch.clone(), acked: last_seq });
        // Entries between the followed epoch and this one are read from the log.
        self.suspect |= self.merge.as_ref().is_some_and(|merge| *merge.epoch() != epoch);
        epoch
    }

    // Publishing

    fn is_append_due(&self) -> bool {
        !self.waiting.is_empty() && Instant::now() >= self.retry_at
    }

    async fn append_or_retry(&mut self) {
        self.used_at = Instant::now();
        match self.append_next().await {
            Ok(()) => (self.failures, self.failing_since) = (0, None),
            Err(error) => self.on_append_failure(error),
        }
    }

    /// Appends the drafts at the front of the queue and delivers them.
    async fn append_next(&mut self) -> Result<(), StorageError> {
        fault::point(|| format!("append {}", self.channel));
        if self.chain.is_none() {
            if self.is_to_begin() {
                return self.begin().await;
            }
            if self.open().await?.is_none() {
                return Ok(());
            }
        }
        let batch = match self.unanswered.take() {
            Some(batch) => batch,
            None if self.refuses_first(true) => return Ok(()),
            None => {
                let chain = self.chain.take().expect("opened before");
                let batch = self.next_batch(&chain);
                self.chain = Some(chain);
                batch
            }
        };
        let has_ids = batch.producer != self.common.node;
        self.common.stats.appends.add(1);
        let sent = Instant::now();
        let answer = self.common.backend.append(&batch).await;
        if answer.is_ok() {
            observe(&self.common.stats.append_duration, sent.elapsed());
        }
        match answer {
            // Drafts with their own ids need the log itself, which may be away for long. The caller retries
            // them, so that other requests need not wait.
            Err(error) if has_ids => {
                self.common.stats.storage_retries.add(1);
                let cause = Arc::new(error);
                self.fail_next(|accepted| PublishError::Unavailable { accepted, cause });
                Ok(())
            }
            Ok(AppendAnswer::ForeignEpoch(_)) if has_ids => {
                self.chain = None;
                Ok(())
            }
            Err(error) => {
                // It may have taken effect, so only the identical batch is safe to send again.
                self.unanswered = Some(batch);
                Err(error)
            }
            Ok(AppendAnswer::ForeignEpoch(found)) => {
                debug!(channel = %self.channel, ?found, "the log is in another epoch");
                self.rechain(batch).await
            }
            Ok(AppendAnswer::Done(results)) => {
                let taken = taken(&results);
                // After a refused entry there is always a gap, which means nothing.
                if let Some(Appended::Gap { last }) = results.get(taken).filter(|_| !has_ids) {
                    let prev = batch.entries.get(taken).map_or(0, |append| append.prev);
                    warn!(channel = %self.channel, prev, last, "the log lacks this node's previous entry; opening it again");
                    return self.rechain(batch).await;
                }
                let ready = self.on_appended(batch, &results, taken);
                self.deliver(&ready).await;
                Ok(())
            }
        }
    }

    /// Whether the log is begun with what is appended next.
    fn is_to_begin(&mut self) -> bool {
        // On lane *latest*, the channel forks if an append takes too long, which `begin` cannot do.
        let is_new = self.unanswered.is_none() && self.lane == Lane::Every;
        self.waiting.front_mut().is_some_and(|first| std::mem::take(&mut first.begins)) && is_new
    }

    /// Begins the log with the drafts at the front of the queue, and delivers them.
    async fn begin(&mut self) -> Result<(), StorageError> {
        let epoch = self.minted.take().unwrap_or_else(new_epoch);
        let batch = self.next_batch(&Chain { epoch, acked: 0 });
        self.common.stats.appends.add(1);
        let sent = Instant::now();
        match self.common.backend.begin(&batch).await {
            Err(error) => {
                // The log may have been begun nevertheless; opening it will show that.
                self.unanswered = Some(batch);
                Err(error)
            }
            Ok(AppendAnswer::ForeignEpoch(found)) => {
                debug!(channel = %self.channel, ?found, "the log has begun already");
                self.rechain(batch).await
            }
            Ok(AppendAnswer::Done(results)) => {
                observe(&self.common.stats.append_duration, sent.elapsed());
                self.continue_in(OpenLog::begun_as(batch.epoch.clone()));
                // The log now has the request's own first entries, which must not cause the rest to be
                // refused.
                if let Some(first) = self.waiting.front_mut() {
                    first.is_only_first = false;
                }
                let taken = taken(&results);
                let ready = self.on_appended(batch, &results, taken);
                self.deliver(&ready).await;
                Ok(())
            }
        }
    }

    fn next_batch(&mut self, chain: &Chain) -> AppendBatch {
        let most = self.common.config.append_batch_entries;
        if let Some((request, ids)) =
            self.waiting.front().and_then(|first| Some((first, first.ids.as_ref()?)))
        {
            let drafts = request.drafts.iter().zip(&ids.links).skip(request.accepted).take(most);
            let entries = drafts.map(|(draft, Link { seq, prev })| Append {
                seq: *seq,
                prev: *prev,
                draft: draft.clone(),
                fence: None,
            });
            return AppendBatch {
                channel: self.channel.clone(),
                epoch: chain.epoch.clone(),
                producer: ids.producer,
                entries: entries.collect(),
            };
        }
        let own = self.waiting.iter().take_while(|request| request.ids.is_none());
        let drafts = own.take(self.policy.requests_per_append).flat_map(|request| {
            request.drafts[request.accepted..].iter().map(|draft| (draft, request.fence))
        });
        let mut prev = chain.acked;
        let mut seq = self.next_seq;
        let entries = drafts.take(most).map(|(draft, fence)| {
            let append = Append { seq, prev, draft: draft.clone(), fence };
            (prev, seq) = (seq, seq + 1);
            append
        });
        let entries: Vec<Append> = entries.collect();
        self.next_seq = seq;
        AppendBatch {
            channel: self.channel.clone(),
            epoch: chain.epoch.clone(),
            producer: self.common.node,
            entries,
        }
    }

    /// Links a refused batch to the chain in the log's current epoch; it is sent next.
    async fn rechain(&mut self, mut batch: AppendBatch) -> Result<(), StorageError> {
        self.chain = None;
        // The batch may have taken effect after all, so it keeps its sequences, even if opening the log
        // fails.
        self.unanswered = Some(batch.clone());
        let Some(epoch) = self.open().await? else { return Ok(()) };
        let mut prev = self.chain.as_ref().map_or(0, |chain| chain.acked);
        for append in &mut batch.entries {
            append.prev = prev;
            prev = append.seq;
        }
        batch.epoch = epoch;
        self.unanswered = Some(batch);
        Ok(())
    }

    /// Handles an answer: the log has the first `taken` entries of the batch, and refused the next one if
    /// there is one. Returns the entries that can be delivered now.
    fn on_appended(&mut self, batch: AppendBatch, results: &[Appended], taken: usize) -> Vec<Entry> {
        let AppendBatch { epoch, producer, entries, .. } = batch;
        let own = entries[..taken].last().filter(|_| producer == self.common.node);
        if let (Some(chain), Some(last)) = (&mut self.chain, own) {
            chain.acked = last.seq;
        }
        self.acknowledge(taken, results);
        match results.get(taken) {
            Some(Appended::Refused(refusal)) => self.refuse(*refusal),
            // Batches without ids of their own were linked to the chain again before.
            Some(Appended::Gap { .. }) => self.fail_next(|accepted| PublishError::Gap { accepted }),
            _ => {}
        }
        let applied = entries.into_iter().zip(results).filter_map(|(append, result)| match *result {
            Appended::Applied { offset } => {
                Some(Entry { offset, id: EntryId { producer, seq: append.seq }, draft: append.draft })
            }
            Appended::Duplicate | Appended::Gap { .. } | Appended::Refused(_) => None,
        });
        let applied: Vec<Entry> = applied.collect();
        // Entries of a repeated batch were in the log already; only the log or a notification can tell at
        // which offsets.
        self.suspect |= self.merge.is_some() && applied.len() < taken;
        self.offer(&epoch, applied)
    }

    /// Answers requests: the first `count` waiting drafts are in the log, as `results` say.
    fn acknowledge(&mut self, mut count: usize, results: &[Appended]) {
        self.common.stats.entries_accepted.add(count as u64);
        while count > 0
            && let Some(request) = self.waiting.front_mut()
        {
            let taken = count.min(request.drafts.len() - request.accepted);
            if let Some(accepted) = self.common.accepted.as_ref().filter(|_| request.is_own) {
                let drafts = &request.drafts[request.accepted..][..taken];
                match request.ids {
                    None => accepted.accepted(drafts),
                    // A duplicate is announced by the node that appended it.
                    Some(_) => drafts
                        .iter()
                        .zip(results)
                        .filter(|(_, result)| is_new(result))
                        .for_each(|(draft, _)| accepted.accepted(std::slice::from_ref(draft))),
                }
            }
            request.accepted += taken;
            count -= taken;
            if request.accepted == request.drafts.len()
                && let Some(done) = self.waiting.pop_front()
            {
                answer(done.answer, Ok(()));
            }
        }
    }

    /// Answers the next request, of which the log refuses a draft for good, and so everything after it.
    fn refuse(&mut self, refusal: Refusal) {
        let Some(refused) = self.waiting.pop_front() else { return };
        let counter = match refusal {
            Refusal::StaleFence { .. } => &self.common.stats.entries_refused_by_reason.stale_lease,
            Refusal::Closed => &self.common.stats.entries_refused_by_reason.order_ended,
        };
        counter.add((refused.drafts.len() - refused.accepted) as u64);
        debug!(channel = %self.channel, accepted = refused.accepted, %refusal, "the log refused entries");
        answer(refused.answer, Err(PublishError::Refused { accepted: refused.accepted, refusal }));
    }

    /// Answers the next request; the rest of it is not appended.
    fn fail_next(&mut self, why: impl FnOnce(usize) -> PublishError) {
        if let Some(request) = self.waiting.pop_front() {
            answer(request.answer, Err(why(request.accepted)));
        }
    }

    fn on_append_failure(&mut self, error: StorageError) {
        self.common.stats.storage_retries.add(1);
        let now = Instant::now();
        let since = *self.failing_since.get_or_insert(now);
        self.failures += 1;
        self.retry_at = now + STORAGE_RETRY.wait(self.failures);
        let patience = Duration::from_millis(self.common.config.publish_patience_ms);
        if now.duration_since(since) < patience {
            return;
        }
        warn!(
            channel = %self.channel, error = %error, kind = error.kind(), requests = self.waiting.len(),
            "the storage accepts no entries; publishers get an error"
        );
        // An append under a lease is not abandoned during an outage: it is repeated for as long as that
        // takes, so each update is in the log once, and the log refuses it if the lease has moved to
        // another worker by then. Other requests are answered with an error. If their batch takes effect
        // after all, the next one's `prev` permits that; if it arrives after the next one, the log drops it
        // as a duplicate.
        let keeps = |request: &Request| request.fence.is_some() && error.is_outage();
        // The unanswered batch belongs to the first request.
        if !self.waiting.front().is_some_and(keeps) {
            self.unanswered = None;
        }
        let (kept, given_up): (VecDeque<_>, VecDeque<_>) = self.waiting.drain(..).partition(keeps);
        self.waiting = kept;
        self.failing_since = None;
        let cause = Arc::new(error);
        for request in given_up {
            self.common.stats.entries_unavailable.add((request.drafts.len() - request.accepted) as u64);
            let failed = PublishError::Unavailable { accepted: request.accepted, cause: Arc::clone(&cause) };
            answer(request.answer, Err(failed));
        }
    }

    // Following

    async fn on_notification(&mut self, notification: Notification) {
        let ready = self.offer(&notification.epoch, notification.entries);
        self.deliver(&ready).await;
    }

    /// Puts entries in order; returns those that are next.
    fn offer(&mut self, epoch: &Epoch, entries: Vec<Entry>) -> Vec<Entry> {
        let offered = self.merge.as_mut().map(|merge| merge.offer(epoch, entries, Instant::now()));
        match offered {
            None => Vec::new(),
            Some(Offered::Ready(ready)) => ready,
            Some(Offered::ForeignEpoch) => {
                self.suspect = true;
                Vec::new()
            }
        }
    }

    fn is_repair_due(&self) -> bool {
        let now = Instant::now();
        (self.suspect || self.hole_at().is_some_and(|at| now >= at)) && now >= self.repair_at
    }

    async fn repair_or_retry(&mut self) {
        let now = Instant::now();
        self.common.stats.holes_repaired.add(1);
        match self.repair().await {
            Ok(()) => {
                self.suspect = false;
                // A read while the storage is unreachable may not fill the gap.
                let is_filled = self.hole_at().is_none_or(|at| at > now);
                self.repair_failures = if is_filled { 0 } else { self.repair_failures + 1 };
                if !is_filled {
                    self.repair_at = now + STORAGE_RETRY.wait(self.repair_failures);
                }
            }
            Err(error) => {
                self.common.stats.storage_retries.add(1);
                self.repair_failures += 1;
                self.repair_at = now + STORAGE_RETRY.wait(self.repair_failures);
                debug!(channel = %self.channel, error = %error, "could not read the log; trying again");
            }
        }
    }

    /// Reads the log from this node's position to its end, through all its epochs since.
    async fn repair(&mut self) -> Result<(), StorageError> {
        loop {
            let Some(merge) = &mut self.merge else { return Ok(()) };
            let after = Position { epoch: merge.epoch().clone(), offset: merge.delivered() };
            let had = (!merge.is_unborn()).then_some(&after);
            let page = self.common.backend.read_after(&self.channel, had, REPAIR_PAGE).await?;
            let (was_unborn, had_nothing) = (merge.is_unborn(), after.offset == 0);
            match page.epoch {
                Some(epoch) if epoch == after.epoch => merge.born(),
                Some(epoch) => {
                    // If this node continued in a fork, perhaps without having all of the log, readers
                    // begin in the log.
                    let log = log_of_fork(&epoch).filter(|_| was_unborn);
                    let epoch = log.unwrap_or(epoch);
                    // Any entry of the new epoch may be new here, so begin with its oldest one.
                    let offset = if was_unborn { 0 } else { page.first - 1 };
                    #[cfg(test)]
                    let is_missed = was_unborn && mutant::is(Mutant::BirthElsewhereMissed);
                    #[cfg(test)]
                    let offset = if is_missed { page.top } else { offset };
                    self.move_to(transition(Position { epoch, offset }, was_unborn)).await;
                    continue;
                }
                None if was_unborn => return Ok(()),
                None => {
                    let to = Position { epoch: unborn(&self.mint()), offset: 0 };
                    self.chain = None;
                    self.move_to(transition(to, had_nothing)).await;
                    return Ok(());
                }
            }
            let mut ready = Vec::new();
            if page.first > after.offset + 1 {
                self.common.stats.entries_missed.add(page.first - after.offset - 1);
                ready = merge.skip_to(page.first);
            }
            let read_to_end = page.entries.last().map_or(page.top, |last| last.offset) >= page.top;
            if let Offered::Ready(more) = merge.offer(&after.epoch, page.entries, Instant::now()) {
                ready.extend(more);
            }
            if read_to_end {
                merge.hole_filled();
            }
            if page.first > after.offset + 1 && ready.is_empty() {
                // If nothing follows, no later entry would show subscribers that these are missing.
                let offset = merge.delivered();
                self.send_to_all(&after.epoch, offset, skipped(&after.epoch, offset)).await;
            }
            self.deliver(&ready).await;
            match page.next {
                Some(transition) if read_to_end => self.move_to(transition).await,
                _ if read_to_end => return Ok(()),
                _ => {}
            }
        }
    }

    /// Continues in the log's next epoch.
    async fn move_to(&mut self, transition: EpochTransition) {
        let Some(merge) = &mut self.merge else { return };
        let (to, whole) = (&transition.to, transition.whole);
        let from = Position { epoch: merge.epoch().clone(), offset: merge.delivered() };
        debug!(channel = %self.channel, %from, %to, whole, "the log continues in another epoch");
        self.common.stats.epoch_changes.add(1);
        self.common.pages.forget(&self.channel);
        *merge = match to_be_born(&to.epoch) {
            Some(epoch) => Merge::unborn(epoch),
            None => Merge::after(to.epoch.clone(), to.offset),
        };
        self.late_to = transition.late_to;
        self.report_followers(self.is_followed());
        let offset = transition.to.offset;
        let moved = |channel: &ChannelName| {
            let (channel, from, transition) = (channel.clone(), from.clone(), transition.clone());
            Live::Moved(Arc::new(Moved { channel, from, transition }))
        };
        self.send_to_all(&from.epoch, offset, moved).await;
    }

    /// Records that the next entry follows this offset, and that batches of views need not cover anything
    /// before it.
    fn passed_all_to(&mut self, offset: u64) {
        (self.passed, self.whole_from) = (offset, offset + 1);
    }

    /// Counts entries that this build cannot show, and logs the first one of the channel.
    fn note_unknown(&mut self, entries: &[Entry]) {
        for (entry, unknown) in entries.iter().filter_map(|entry| Some((entry, entry.draft.kind.unknown()?)))
        {
            let (counter, what) = match unknown.why {
                WhyUnknown::Kind => {
                    (&self.common.stats.entries_skipped_by_reason.unknown_kind, "its kind is not known")
                }
                WhyUnknown::Form(what) => (&self.common.stats.entries_skipped_by_reason.unreadable, what),
            };
            counter.add(1);
            if std::mem::replace(&mut self.logged_unknown, true) {
                continue;
            }
            if let Some(untold) = self.common.unknown_logged.lock().may_tell(Instant::now()) {
                warn!(
                    channel = %self.channel, offset = entry.offset, kind = entry.draft.kind.as_str(), what, untold,
                    "an entry cannot be shown and is skipped, here and wherever it is read; a newer version may \
                     have written it"
                );
            }
        }
    }

    async fn deliver(&mut self, entries: &[Entry]) {
        let since = Instant::now();
        for (view, batch) in self.encode(entries) {
            self.send_to_shards(view.as_deref(), &batch, since).await;
        }
    }

    /// The messages about entries for the shards; none if no shard has joined.
    fn encode(&mut self, entries: &[Entry]) -> Vec<(Option<Arc<str>>, Live)> {
        self.note_unknown(entries);
        let (Some(merge), false) = (&self.merge, entries.is_empty()) else { return Vec::new() };
        let (is_followed, is_joined) = (self.is_followed(), self.joined.contains(&true));
        if is_followed {
            self.common.stats.entries_delivered.add(entries.len() as u64);
        }
        let (epoch, lane, mut messages) = (merge.epoch(), self.lane, Vec::new());
        // Skipped offsets separate runs; each batch is contiguous.
        let is_late = |entry: &Entry| entry.offset <= self.late_to || entry.draft.marks.late;
        let runs = entries.chunk_by(|a, b| a.offset + 1 == b.offset && is_late(a) == is_late(b));
        for run in runs.flat_map(|run| run.chunks(self.common.config.append_batch_entries)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            if first.offset != self.passed + 1 {
                // Entries that left the log unseen may have belonged to any view, even one that shows
                // nothing for a long time.
                let offset = first.offset - 1;
                let caught_up = self.views.catch_up(epoch, self.whole_from, self.passed);
                let skipped = self.views.for_all(offset, skipped(epoch, offset));
                let of_views = caught_up.into_iter().chain(skipped);
                messages.extend(of_views.map(|(view, message)| (Some(view), message)));
                self.whole_from = first.offset;
            }
            self.passed = last.offset;
            if is_joined {
                let batch = LiveBatch::encode(&self.channel, epoch, lane, is_late(first), run);
                messages.push((None, Live::Batch(Arc::new(batch))));
            }
            let of_views = self.views.encode(epoch, lane, is_late(first), run, self.whole_from);
            messages.extend(of_views.into_iter().map(|(view, batch)| (Some(view), batch)));
        }
        messages
    }

    /// Sends a message about the log as a whole to the shards that follow the channel or a view of it, under
    /// that name. Views are first told how far they cover the old part; the next entries follow `offset`.
    async fn send_to_all(&mut self, epoch: &Epoch, offset: u64, message: impl Fn(&ChannelName) -> Live) {
        let since = Instant::now();
        for (view, batch) in self.views.catch_up(epoch, self.whole_from, self.passed) {
            self.send_to_shards(Some(&view), &batch, since).await;
        }
        self.passed_all_to(offset);
        let own = message(&self.channel);
        self.send_to_shards(None, &own, since).await;
        for (view, message) in self.views.for_all(offset, message) {
            self.send_to_shards(Some(&view), &message, since).await;
        }
    }

    /// Sends a message to the shards that follow the channel, or this view of it.
    async fn send_to_shards(&mut self, view: Option<&str>, message: &Live, since: Instant) {
        let shards = match view {
            None => Some((&mut *self.joined, &mut *self.credits)),
            Some(view) => self.views.shards(view),
        };
        let Some((joined, credits)) = shards else { return };
        for (shard, joined) in joined.iter_mut().enumerate() {
            if *joined {
                let credits = credits[shard].get_or_insert_with(live::credits);
                *joined = Delivery::send(&self.common.shards[shard], credits, message.clone(), since).await;
            }
        }
    }
}

/// How many entries, from the first one on, are in the log.
fn taken(results: &[Appended]) -> usize {
    let is_in = |result: &&Appended| matches!(result, Appended::Applied { .. } | Appended::Duplicate);
    results.iter().take_while(is_in).count()
}

/// A transition to another epoch: nothing is missing before the position (`is_whole`), or that is unknown.
fn transition(to: Position, is_whole: bool) -> EpochTransition {
    if is_whole { EpochTransition::whole(to) } else { EpochTransition::unknown(to) }
}

/// Says that entries up to an offset left the log before this node saw them.
fn skipped(epoch: &Epoch, offset: u64) -> impl Fn(&ChannelName) -> Live + use<> {
    let epoch = epoch.clone();
    move |channel| Live::Skipped { channel: channel.clone(), epoch: epoch.clone(), offset }
}

fn is_new(result: &Appended) -> bool {
    matches!(result, Appended::Applied { .. })
}

fn answer(to: oneshot::Sender<Result<(), PublishError>>, result: Result<(), PublishError>) {
    if to.send(result).is_err() {
        // The publisher is gone; its entries stay accepted.
        debug!("a publisher did not wait for the answer");
    }
}
