//! Entries to subscribers: batches, pacing.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task;
use tokio::time::{self, Instant};

use super::{Followed, Shard};
use crate::channels::{Live, LiveBatch};
use crate::connections::connection::{Connection, Pacing, TICK};
use crate::connections::subscription::Subscription;
use crate::model::ChannelName;
use crate::support::fault;

/// Live messages taken from the queue at a time.
const LIVE_PER_TURN: usize = 64;

/// Connections written to before others get their turn.
const WRITES_PER_YIELD: usize = 256;

/// The longest that a fan-out waits when every reader has fallen far behind; when only some have,
/// that part of it. See [`Shard::pace`].
const PACE_MAX: Duration = Duration::from_secs(1);

/// A reader that was waited for in vain is not waited for again for so long.
const GIVEN_UP_FOR: Duration = Duration::from_secs(30);

impl Shard {
    pub(super) async fn fan_out_all(self: &Rc<Self>, live: &mut mpsc::Receiver<Live>) {
        let mut messages = Vec::with_capacity(LIVE_PER_TURN);
        let mut batches: Vec<Arc<LiveBatch>> = Vec::with_capacity(LIVE_PER_TURN);
        while live.recv_many(&mut messages, LIVE_PER_TURN).await > 0 {
            for message in messages.drain(..) {
                match message {
                    Live::Batch(batch) => {
                        let frames: usize = batches.iter().map(|batch| batch.len()).sum();
                        let joins = batches.last().is_none_or(|last| {
                            last.channel == batch.channel
                                && last.epoch == batch.epoch
                                && last.last() + 1 == batch.first
                                // More at once could overrun a reader before it is seen to be behind.
                                && frames + batch.len() <= self.config.outbox_frames_max / 4
                        });
                        if !joins {
                            self.fan_out(&mut batches).await;
                        }
                        batches.push(batch);
                    }
                    Live::Moved(moved) => {
                        self.fan_out(&mut batches).await;
                        self.subscribers_of(&moved.channel).iter().for_each(|s| s.on_moved(self, &moved));
                    }
                    Live::Skipped { channel, epoch, offset } => {
                        self.fan_out(&mut batches).await;
                        self.subscribers_of(&channel).iter().for_each(|s| s.on_skipped(self, &epoch, offset));
                    }
                }
            }
            self.fan_out(&mut batches).await;
        }
    }

    /// Sends contiguous batches of one channel to all its subscribers.
    async fn fan_out(self: &Rc<Self>, batches: &mut Vec<Arc<LiveBatch>>) {
        let Some(first) = batches.first() else { return };
        fault::point(|| format!("fan-out {}", first.channel));
        if let Some(followed) = self.followed_by(&first.channel) {
            let mut place = 0;
            while self.write_some(&followed, &mut place, batches) {
                task::yield_now().await;
            }
            self.pace().await;
        } else {
            // A leave of this shard came too late to be heard.
            self.leave(&first.channel);
        }
        batches.clear();
    }

    /// Sends to some of the subscribers, from `place` on; says whether there are more.
    fn write_some(
        self: &Rc<Self>,
        followed: &Followed,
        place: &mut usize,
        batches: &[Arc<LiveBatch>],
    ) -> bool {
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return false };
        let every = first.key(0).is_none();
        let any_late = batches.iter().any(|batch| batch.is_late);
        let subscriptions = followed.subscriptions.borrow();
        let until = subscriptions.capacity().min(*place + WRITES_PER_YIELD);
        let some = (*place..until).filter_map(|place| subscriptions.get(place));
        for subscription in some {
            if any_late || !subscription.is_next(batches) {
                subscription.on_unusual(self, batches);
                continue;
            }
            let connection = &subscription.connection;
            connection.send_live(batches, 0, self.limits);
            subscription.took(last.last());
            if last.is_last_of_log {
                subscription.finish(self);
            }
            if every && connection.pacing.get() == Pacing::None {
                self.press(connection);
            }
        }
        *place = until;
        until < subscriptions.capacity()
    }

    pub(super) fn followed_by(&self, channel: &ChannelName) -> Option<Rc<Followed>> {
        self.followed.borrow().get(channel).cloned()
    }

    fn subscribers_of(&self, channel: &ChannelName) -> Vec<Rc<Subscription>> {
        let followed = self.followed_by(channel);
        let all = |followed: Rc<Followed>| {
            followed.subscriptions.borrow().iter().map(|(_, s)| Rc::clone(s)).collect()
        };
        followed.map(all).unwrap_or_default()
    }

    /// Notes a reader that has fallen half its bound behind.
    fn press(&self, connection: &Rc<Connection>) {
        if connection.is_behind() && connection.waiting_frames() > self.config.outbox_frames_max / 2 {
            connection.pacing.set(Pacing::Pressed);
            self.pressed.borrow_mut().push(Rc::clone(connection));
        }
    }

    /// Waits for readers that have fallen far behind, so that a publisher that goes as fast as it
    /// can is slowed down to what its readers take, instead of having them cut one by one. The wait
    /// is the longer the larger their part of this shard's connections: one of a thousand cannot
    /// hold up the others for more than a millisecond, and one that was waited for in vain is not
    /// waited for again for a while; it will be cut when its bound is passed.
    async fn pace(&self) {
        let pressed = self.pressed.borrow().len();
        if pressed == 0 {
            return;
        }
        self.stats.paced.add(1);
        let connections = self.connections.borrow().len();
        let part = pressed as f64 / connections.max(pressed) as f64;
        let deadline = Instant::now() + PACE_MAX.mul_f64(part);
        loop {
            self.pressed.borrow_mut().retain(|connection| connection.pacing.get() == Pacing::Pressed);
            if self.pressed.borrow().is_empty() {
                return;
            }
            if time::timeout_at(deadline, self.eased.notified()).await.is_err() {
                break;
            }
        }
        for connection in self.pressed.borrow_mut().drain(..) {
            connection.pacing.set(Pacing::GivenUp(connection.ticks()));
        }
    }

    /// A connection wrote some of what waited.
    pub(in crate::connections) fn eased(&self, connection: &Connection, waiting_frames: usize, all: bool) {
        let enough = waiting_frames <= self.config.outbox_frames_max / 4;
        match connection.pacing.get() {
            Pacing::Pressed if enough => {
                connection.pacing.set(Pacing::None);
                self.eased.notify_one();
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
