//! Sends entries to subscribers in batches, and paces channels.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use slab::Slab;
use tokio::sync::{Notify, mpsc};
use tokio::task;
use tokio::time::{self, Instant};
use tracing::debug;

use super::{Shard, TURN_WRITES};
use crate::channels::{Delivery, Live, LiveBatch, Moved};
use crate::connections::connection::{Connection, Pacing, TICK};
use crate::connections::subscription::Subscription;
use crate::model::{ChannelName, ChannelPolicy, Epoch};
use crate::support::counter::observe;
use crate::support::fault;

/// The most messages taken from the queue at once.
const LIVE_PER_TURN: usize = 64;

/// The longest that a channel waits if all its subscribers lag far; if only some do, it waits for their
/// share of this. See [`Shard::until_eased`].
const PACE_MAX: Duration = Duration::from_secs(1);

/// After waiting for a client without success, a channel does not wait for it again for this long.
const GIVEN_UP_FOR: Duration = Duration::from_secs(30);

/// From this size on, a sparse list of subscribers is compacted.
const SPARSE_FROM: usize = 256;

/// The subscriptions to one channel.
pub(super) struct Followed {
    pub(super) policy: &'static ChannelPolicy,
    pub(super) subscriptions: RefCell<Slab<Rc<Subscription>>>,
    /// Exists while the channel is paced.
    paced: RefCell<Option<Box<Paced>>>,
}

/// A channel that waits for slow clients.
#[derive(Default)]
struct Paced {
    /// Connections on lane *every* that lag far.
    pressed: Vec<Rc<Connection>>,
    /// What arrived for the channel meanwhile, in order. Bounded by the channel's credits.
    queued: VecDeque<Delivery>,
}

impl Followed {
    pub(super) fn new(channel: &ChannelName) -> Rc<Self> {
        let policy = ChannelPolicy::of(channel);
        Rc::new(Self { policy, subscriptions: RefCell::default(), paced: RefCell::default() })
    }

    /// If the channel is paced, moves the next message to its own queue; returns whether it is paced.
    fn queue_next(&self, queue: &mut VecDeque<Delivery>) -> bool {
        let mut paced = self.paced.borrow_mut();
        let Some(paced) = &mut *paced else { return false };
        paced.queued.extend(queue.pop_front());
        true
    }

    fn is_paced(&self) -> bool {
        self.paced.borrow().is_some()
    }

    /// What to send next of the queued messages; none if the channel is no longer paced.
    fn next_queued(&self, frames_max: usize) -> Option<Next> {
        let mut paced = self.paced.borrow_mut();
        let next = paced.as_mut().and_then(|paced| Next::of(&mut paced.queued, frames_max));
        if next.is_none() {
            *paced = None;
        }
        next
    }

    /// Compacts the list after many subscribers have left. Must not run while the list is being walked.
    fn make_dense(&self) {
        let mut subscriptions = self.subscriptions.borrow_mut();
        if subscriptions.capacity() >= SPARSE_FROM && subscriptions.len() < subscriptions.capacity() / 4 {
            subscriptions.compact(|subscription, _from, to| {
                subscription.place.set(to);
                true
            });
            subscriptions.shrink_to_fit();
        }
    }
}

/// Channels that are paced from now on.
#[derive(Default)]
struct NewlyPaced {
    channels: RefCell<Vec<Rc<Followed>>>,
    told: Notify,
}

/// What a channel's subscribers are sent in one step.
enum Next {
    /// Contiguous batches; whether any entry in them is late; and when this node received the first one.
    Batches {
        batches: Vec<Arc<LiveBatch>>,
        any_late: bool,
        since: Instant,
    },
    Moved(Arc<Moved>),
    Skipped(Epoch, u64),
}

impl Next {
    /// Takes the next step from the front of a queue: as many contiguous batches of one channel as fit into
    /// `frames_max` frames, but at least one. Their credits are free from then on.
    fn of(queue: &mut VecDeque<Delivery>, frames_max: usize) -> Option<Self> {
        let Delivery { live, since, .. } = queue.pop_front()?;
        let first = match live {
            Live::Batch(first) => first,
            Live::Moved(moved) => return Some(Self::Moved(moved)),
            Live::Skipped { epoch, offset, .. } => return Some(Self::Skipped(epoch, offset)),
        };
        let mut frames = first.len();
        let mut batches = vec![first];
        while let (Some(Live::Batch(next)), Some(last)) =
            (queue.front().map(|delivery| &delivery.live), batches.last())
        {
            frames += next.len();
            let joins = last.channel == next.channel
                && last.epoch == next.epoch
                && last.last() + 1 == next.first
                && frames <= frames_max;
            if !joins {
                break;
            }
            batches.push(Arc::clone(next));
            queue.pop_front();
        }
        let any_late = batches.iter().any(|batch| batch.is_late);
        Some(Self::Batches { batches, any_late, since })
    }
}

impl Shard {
    /// Sends what arrives to the subscribers, in order for each channel, until the queue is closed. A paced
    /// channel queues its messages; the others continue.
    pub(super) async fn fan_out_all(self: &Rc<Self>, live: &mut mpsc::Receiver<Delivery>) {
        let paced = NewlyPaced::default();
        // Both make progress, however much there is to do for either.
        tokio::select! {
            () = self.fan_out_taken(live, &paced) => {}
            () = self.pace_all(&paced) => {}
        }
    }

    async fn fan_out_taken(self: &Rc<Self>, live: &mut mpsc::Receiver<Delivery>, paced: &NewlyPaced) {
        let mut taken = Vec::<Delivery>::with_capacity(LIVE_PER_TURN);
        let mut queue = VecDeque::with_capacity(LIVE_PER_TURN);
        while live.recv_many(&mut taken, LIVE_PER_TURN).await > 0 {
            let now = Instant::now();
            for delivery in &taken {
                observe(&self.stats.messages.mailbox_wait, now.duration_since(delivery.since));
            }
            queue.extend(taken.drain(..));
            while let Some(channel) = self.fan_out(&mut queue).await {
                paced.channels.borrow_mut().push(channel);
                paced.told.notify_one();
            }
        }
    }

    /// Runs for ever.
    async fn pace_all(self: &Rc<Self>, paced: &NewlyPaced) {
        let mut pacing = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = paced.told.notified() => {
                    let new = mem::take(&mut *paced.channels.borrow_mut());
                    pacing.extend(new.into_iter().map(|channel| Rc::clone(self).pace(channel)));
                }
                Some(()) = pacing.next() => {}
            }
        }
    }

    /// Empties the queue, up to the point where a channel begins to be paced; returns that channel.
    async fn fan_out(self: &Rc<Self>, queue: &mut VecDeque<Delivery>) -> Option<Rc<Followed>> {
        while let Some(first) = queue.front() {
            let Some(followed) = self.followed_by(first.live.channel()) else {
                // This shard's leave has not reached the actor yet, or was dropped.
                self.leave(first.live.channel());
                queue.pop_front();
                continue;
            };
            if !followed.is_paced() {
                fault::point(|| format!("fan-out {}", first.live.channel()));
            }
            if followed.queue_next(queue) {
                continue;
            }
            if let Some(next) = Next::of(queue, self.frames_at_once()) {
                self.give(&followed, next).await;
            }
            if followed.is_paced() {
                return Some(followed);
            }
        }
        None
    }

    /// Waits for a channel's slow clients, and then sends what was queued meanwhile, until nothing is left
    /// and nobody is waited for.
    async fn pace(self: Rc<Self>, followed: Rc<Followed>) {
        loop {
            self.until_eased(&followed).await;
            let Some(next) = followed.next_queued(self.frames_at_once()) else { return };
            self.give(&followed, next).await;
        }
    }

    /// The most frames sent to each client in one step. More could overrun a client before its lag is
    /// noticed.
    fn frames_at_once(&self) -> usize {
        self.config.outbox_frames_max / 4
    }

    /// Sends a step to all subscribers of a channel, with yields in between. Only one runs for a channel at
    /// a time.
    async fn give(self: &Rc<Self>, followed: &Followed, next: Next) {
        followed.make_dense();
        if followed.policy.logs_deliveries
            && let Next::Batches { batches, .. } = &next
            && let (Some(first), Some(last)) = (batches.first(), batches.last())
        {
            let (order, offsets) = (first.channel.subject(), (first.first, last.last()));
            let subscribers = followed.subscriptions.borrow().len();
            debug!(order, ?offsets, subscribers, shard = self.index, "order updates sent to subscribers");
        }
        let mut place = 0;
        while self.give_some(followed, &mut place, &next) {
            task::yield_now().await;
        }
        if let Next::Batches { since, .. } = next {
            observe(&self.stats.messages.delivery_duration, since.elapsed());
        }
    }

    /// Sends a step to some of the subscribers, beginning at `place`; returns whether there are more.
    fn give_some(self: &Rc<Self>, followed: &Followed, place: &mut usize, next: &Next) -> bool {
        let subscriptions = followed.subscriptions.borrow();
        let mut given = 0;
        while *place < subscriptions.capacity() && given < TURN_WRITES {
            if let Some(subscription) = subscriptions.get(*place) {
                given += 1;
                match next {
                    Next::Batches { batches, any_late, .. } => {
                        self.write(followed, subscription, batches, *any_late);
                    }
                    Next::Moved(moved) => subscription.on_moved(self, moved),
                    Next::Skipped(epoch, offset) => subscription.on_skipped(self, epoch, *offset),
                }
            }
            *place += 1;
        }
        *place < subscriptions.capacity()
    }

    /// Sends contiguous batches to one subscriber.
    fn write(
        self: &Rc<Self>,
        followed: &Followed,
        subscription: &Rc<Subscription>,
        batches: &[Arc<LiveBatch>],
        any_late: bool,
    ) {
        let Some(last) = batches.last() else { return };
        if any_late || !subscription.is_next(batches) {
            subscription.on_unusual(self, batches);
            return;
        }
        let connection = &subscription.connection;
        connection.send_live(batches, 0, self.limits);
        subscription.took(last.last());
        if last.is_last_of_log {
            subscription.finish(self);
        }
        // Lane *latest* needs no pacing, because newer entries replace those that wait. Nor does a client
        // that is over its limit on bytes.
        if last.key(0).is_none() && connection.is_behind() && connection.throttled_until().is_none() {
            self.press(followed, connection);
        }
    }

    pub(super) fn followed_by(&self, channel: &ChannelName) -> Option<Rc<Followed>> {
        self.followed.borrow().get(channel).cloned()
    }

    /// Paces a channel for a client that lags by more than half its bound. Several channels may wait for
    /// the same client.
    fn press(&self, followed: &Followed, connection: &Rc<Connection>) {
        let is_far_behind = connection.waiting_frames() > self.config.outbox_frames_max / 2;
        if is_far_behind && !matches!(connection.pacing.get(), Pacing::GivenUp(_)) {
            connection.pacing.set(Pacing::Pressed);
            followed.paced.borrow_mut().get_or_insert_default().pressed.push(Rc::clone(connection));
        }
    }

    /// Waits for clients that lag far. Thus a publisher that publishes as fast as it can is slowed down to
    /// what the clients can read, instead of having one after the other closed. The wait is proportional to
    /// their share of this channel's subscribers here: one of a thousand holds up the others for at most a
    /// millisecond. After waiting without success, a channel does not wait for that client for a while, and
    /// it is closed when it exceeds its bound.
    async fn until_eased(&self, followed: &Followed) {
        let mut pressed = match &mut *followed.paced.borrow_mut() {
            Some(paced) => mem::take(&mut paced.pressed),
            None => return,
        };
        if pressed.is_empty() {
            return;
        }
        self.stats.messages.paced.add(1);
        let readers = followed.subscriptions.borrow().len();
        let part = pressed.len() as f64 / readers.max(pressed.len()) as f64;
        let deadline = Instant::now() + PACE_MAX.mul_f64(part);
        loop {
            pressed.retain(|connection| connection.pacing.get() == Pacing::Pressed);
            if pressed.is_empty() {
                return;
            }
            if time::timeout_at(deadline, self.eased.notified()).await.is_err() {
                break;
            }
        }
        for connection in pressed {
            connection.pacing.set(Pacing::GivenUp(connection.ticks()));
        }
        // Other channels may wait for the same clients.
        self.eased.notify_waiters();
    }

    /// Called when a connection has written some of what waited.
    pub(in crate::connections) fn eased(&self, connection: &Connection, waiting_frames: usize, all: bool) {
        let enough = waiting_frames <= self.config.outbox_frames_max / 4;
        match connection.pacing.get() {
            Pacing::Pressed if enough => {
                connection.pacing.set(Pacing::None);
                self.eased.notify_waiters();
            }
            Pacing::GivenUp(at) if all && TICK * (connection.ticks() - at) > GIVEN_UP_FOR => {
                connection.pacing.set(Pacing::None);
            }
            _ => {}
        }
        if all {
            self.close_if_finished(connection, Instant::now());
        }
    }
}
