//! A connection's interest in a channel, and how it is brought up to date: hold what comes live,
//! replay from the log, merge by offset, go live.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use serde_json::Value;
use tokio::time::{self, Instant};
use tracing::debug;

use super::connection::Connection;
use super::shard::Shard;
use crate::channels::{JoinError, LiveBatch};
use crate::model::{ChannelKind, ChannelName, Entry, Epoch, Lane, Position};
use crate::protocol::{ErrorCode, ServerMessage};
use crate::storage::Page;
use crate::support::backoff::Backoff;

/// Between tries to join or to read while the storage does not answer.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_secs(1),
    jitter: Duration::from_millis(100),
};

/// Bytes sent in one piece while replaying; the next waits until the reader has taken them.
const PIECE_BYTES: usize = 256 << 10;

/// A connection's interest in a channel. Lives on its shard's thread.
pub(super) struct Subscription {
    pub(super) channel: ChannelName,
    pub(super) connection: Rc<Connection>,
    /// Its place among the channel's subscriptions.
    pub(super) place: Cell<usize>,
    /// The newest offset that was handed to the connection. Means something once live or replaying.
    pub(super) cursor: Cell<u64>,
    /// The life of the log that `cursor` belongs to; `None` until the channel was joined.
    epoch: RefCell<Option<Epoch>>,
    phase: RefCell<Phase>,
}

#[derive(Debug)]
enum Phase {
    /// A task brings it up to date; live entries are held. Boxed: most subscriptions are live.
    Joining(Box<Joining>),
    /// Entries are sent as they come.
    Live,
    /// Unsubscribed, or the connection is gone.
    Ended,
}

#[derive(Debug, Default)]
struct Joining {
    /// Live entries that wait while older ones are replayed.
    held: VecDeque<Arc<LiveBatch>>,
    held_entries: usize,
    /// The newest offset that came live, held or not.
    seen: u64,
    /// The log began a new life, and the client has not been told yet.
    moved: Option<Moved>,
    /// The log is to be read before it goes live, whatever was held: entries may have left it.
    look_again: bool,
}

/// A change of epoch, or several in a row.
#[derive(Debug)]
struct Moved {
    /// The life that the client knows.
    old: Epoch,
    /// The newest one.
    new: Epoch,
}

/// Where a client wants to start.
#[derive(Debug, Clone)]
pub(super) enum Start {
    /// With what comes next.
    Now,
    /// With the oldest entry that is kept. If there were older ones, the client is told.
    Oldest,
    /// After this position.
    After(Position),
}

impl Start {
    /// After a position, if the client gave one; else as the channel's kind suggests: prices from now
    /// on, but all of an order.
    pub(super) fn of(channel: &ChannelName, since: Option<Position>) -> Self {
        match (since, channel.kind()) {
            (Some(position), _) => Self::After(position),
            (None, ChannelKind::Order) => Self::Oldest,
            (None, ChannelKind::Zone) => Self::Now,
        }
    }
}

impl Subscription {
    pub(super) fn new(channel: ChannelName, connection: Rc<Connection>) -> Self {
        Self {
            channel,
            connection,
            place: Cell::new(0),
            cursor: Cell::new(0),
            epoch: RefCell::default(),
            phase: RefCell::new(Phase::Joining(Box::default())),
        }
    }

    /// Whether a batch that begins with this offset of this epoch is just what comes next.
    pub(super) fn is_live_at(&self, epoch: &Epoch, first: u64) -> bool {
        self.cursor.get() + 1 == first && matches!(*self.phase.borrow(), Phase::Live) && self.is_in(epoch)
    }

    fn is_in(&self, epoch: &Epoch) -> bool {
        self.epoch.borrow().as_ref() == Some(epoch)
    }

    pub(super) fn end(&self) {
        *self.phase.borrow_mut() = Phase::Ended;
        self.connection.set_finished(&self.channel, false);
    }

    /// The log has come to its end, and the connection has been given all that is kept of it.
    pub(super) fn finish(&self, shard: &Shard) {
        self.connection.set_finished(&self.channel, true);
        shard.close_if_finished(&self.connection, Instant::now());
    }

    fn is_over(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Ended) || !self.connection.is_open()
    }

    /// Does something with what is kept while joining; nothing, and `R`'s default, in other phases.
    fn joining<R: Default>(&self, act: impl FnOnce(&mut Joining) -> R) -> R {
        match &mut *self.phase.borrow_mut() {
            Phase::Joining(joining) => act(joining),
            Phase::Live | Phase::Ended => R::default(),
        }
    }

    /// Takes batches that are not simply next: they overlap, or come while joining, or leave a gap.
    pub(super) fn on_unusual(self: &Rc<Self>, shard: &Rc<Shard>, batches: &[Arc<LiveBatch>]) {
        match &mut *self.phase.borrow_mut() {
            Phase::Ended => return,
            Phase::Joining(joining) => {
                let known = self.epoch.borrow().clone();
                let ours = joining.moved.as_ref().map(|moved| moved.new.clone()).or(known);
                let ours = ours.as_ref();
                for batch in batches.iter().filter(|batch| ours.is_none_or(|ours| batch.epoch == *ours)) {
                    joining.hold(batch, shard.config.hold_entries_max);
                }
                return;
            }
            Phase::Live => {}
        }
        for (index, batch) in batches.iter().enumerate() {
            let next = self.cursor.get() + 1;
            // A batch of another epoch is from before this subscription joined: `Moved` comes ahead
            // of the first batch of a new one.
            if batch.last() < next || !self.is_in(&batch.epoch) {
                continue;
            }
            if batch.first > next {
                // Entries left the log before this node saw them: say so, with what is left.
                self.restart(shard, None);
                return self.on_unusual(shard, &batches[index..]);
            }
            let had = usize::try_from(next - batch.first).unwrap_or(usize::MAX);
            self.connection.send_live(std::slice::from_ref(batch), had, shard.limits);
            self.cursor.set(batch.last());
            if batch.is_last_of_log {
                self.finish(shard);
            }
        }
    }

    /// Entries up to an offset left the log before this node saw them, and nothing came after them.
    pub(super) fn on_skipped(self: &Rc<Self>, shard: &Rc<Shard>, epoch: &Epoch, offset: u64) {
        let is_missing = self.is_in(epoch) && self.cursor.get() < offset;
        if is_missing && matches!(*self.phase.borrow(), Phase::Live) {
            self.restart(shard, None);
        }
        self.joining(|joining| joining.look_again = true);
    }

    /// The log began a new life.
    pub(super) fn on_moved(self: &Rc<Self>, shard: &Rc<Shard>, old: &Epoch, new: &Epoch) {
        let known = self.epoch.borrow().clone();
        let pending = self.joining(|joining| joining.moved.as_ref().map(|moved| moved.new.clone()));
        if known.is_some() && pending.or(known).as_ref() != Some(old) {
            // It joined after the change, which is news only to those before it.
            return;
        }
        let moved = Moved { old: old.clone(), new: new.clone() };
        match &mut *self.phase.borrow_mut() {
            Phase::Ended => return,
            Phase::Joining(joining) => {
                (joining.held, joining.held_entries, joining.seen) = Default::default();
                match &mut joining.moved {
                    Some(known) => known.new = moved.new,
                    none => *none = Some(moved),
                }
                return;
            }
            Phase::Live => {}
        }
        self.restart(shard, Some(moved));
    }

    /// A live subscription goes through the log again.
    fn restart(self: &Rc<Self>, shard: &Rc<Shard>, moved: Option<Moved>) {
        self.connection.set_finished(&self.channel, false);
        *self.phase.borrow_mut() = Phase::Joining(Box::new(Joining { moved, ..Joining::default() }));
        let (subscription, on) = (Rc::clone(self), Rc::clone(shard));
        shard.spawn(async move { subscription.catch_up(&on).await });
    }

    /// Joins the channel, answers the client, and brings it up to date.
    pub(super) async fn bring_up(self: Rc<Self>, shard: Rc<Shard>, start: Start, id: Option<Value>) {
        if self.answer(&shard, &start, id.as_ref()).await {
            self.catch_up(&shard).await;
        }
    }

    /// Joins, says `subscribed`, and sets where the entries begin; false when it is over.
    async fn answer(self: &Rc<Self>, shard: &Rc<Shard>, start: &Start, id: Option<&Value>) -> bool {
        let mut failures = 0;
        let order_id = self.channel.as_order();
        loop {
            if self.is_over() {
                return false;
            }
            let joined = shard.channels.join(&self.channel, shard.index).await;
            let found = match joined {
                Ok(position) => self.starting_point(shard, position, start).await,
                Err(JoinError::Unavailable(error)) => Err(error),
                Err(JoinError::TooManyChannels(max)) => {
                    let (code, message) = self.too_many(max);
                    shard.send_error(&self.connection, id, code, &message, Some(self.channel.as_str()));
                    shard.unsubscribe(self);
                    return false;
                }
                // Worth another look: where the node does stop, this connection is closed soon.
                Err(JoinError::ShuttingDown) => {
                    failures += 1;
                    self.pause(failures).await;
                    continue;
                }
            };
            if self.is_over() {
                return false;
            }
            match found {
                Ok(Some(found)) => {
                    let message = found.told_of_order();
                    let StartingPoint { epoch, offset, recovered, gap, joined_at, top, closed, .. } = found;
                    if self.take_moved().is_some_and(|moved| moved.new != epoch) {
                        // The log moved on while this was found out: where it is now, then.
                        continue;
                    }
                    if gap != Some(0) {
                        shard.stats.gaps_told.add(1);
                    }
                    let subscribed = ServerMessage::Subscribed {
                        id,
                        channel: &self.channel,
                        order_id,
                        epoch: &epoch,
                        offset,
                        recovered,
                        gap,
                        timestamp: Utc::now(),
                        message: order_id.map(|_| message),
                    };
                    self.connection.send_message(&subscribed, shard.limits);
                    self.cursor.set(offset);
                    self.joining(|joining| joining.keep_only(&epoch, joined_at));
                    *self.epoch.borrow_mut() = Some(epoch);
                    if closed && offset >= top {
                        self.finish(shard);
                    }
                    return true;
                }
                // The log's life changed in between; this node is about to notice.
                Ok(None) => shard.channels.doubt(&self.channel),
                Err(error) => {
                    debug!(conn.id = %self.connection.id, channel = %self.channel, error = %error, "cannot subscribe yet");
                    if failures == 0 {
                        let message =
                            "the storage does not answer; the subscription is made as soon as it does";
                        let channel = Some(self.channel.as_str());
                        shard.send_error(
                            &self.connection,
                            id,
                            ErrorCode::StorageUnavailable,
                            message,
                            channel,
                        );
                    }
                }
            }
            failures += 1;
            self.pause(failures).await;
        }
    }

    fn too_many(&self, max: usize) -> (ErrorCode, String) {
        match self.channel.kind() {
            ChannelKind::Order => {
                let message = format!("{max} orders are watched already; ask for this one again later");
                (ErrorCode::TooManyOrders, message)
            }
            ChannelKind::Zone => {
                let message = format!("there are {max} channels already; try one of GET /api/zones");
                (ErrorCode::TooManyZones, message)
            }
        }
    }

    /// Where the entries begin for a client that has had everything up to `start`.
    async fn starting_point(
        &self,
        shard: &Shard,
        joined: Position,
        start: &Start,
    ) -> Result<Option<StartingPoint>, crate::storage::StorageError> {
        let had = match start {
            Start::Now => {
                let Position { epoch, offset } = joined;
                return Ok(Some(StartingPoint {
                    epoch,
                    offset,
                    recovered: true,
                    gap: Some(0),
                    joined_at: offset,
                    top: offset,
                    closed: false,
                }));
            }
            // Just before the first entry there ever was, in whatever life of the log.
            Start::Oldest => &Position { epoch: joined.epoch.clone(), offset: 0 },
            Start::After(had) => had,
        };
        let page = shard.channels.read_after(&self.channel, had.offset, 1).await?;
        if page.epoch.as_ref() != Some(&joined.epoch) {
            return Ok(None);
        }
        let oldest = page.first - 1;
        // Offsets past the top were never given in this life: the log was put back to before them.
        let known = had.epoch == joined.epoch && had.offset <= page.top;
        let (offset, gap) = if known {
            (had.offset.max(oldest), Some(oldest.saturating_sub(had.offset)))
        } else {
            (oldest, None)
        };
        Ok(Some(StartingPoint {
            epoch: joined.epoch,
            offset,
            recovered: gap == Some(0),
            gap,
            joined_at: joined.offset,
            top: page.top,
            closed: page.closed,
        }))
    }

    /// Replays from the log and merges what was held, until nothing lies between them; then goes live.
    async fn catch_up(self: &Rc<Self>, shard: &Rc<Shard>) {
        let mut failures = 0;
        loop {
            self.connection.until_drained().await;
            if self.is_over() {
                return;
            }
            let moved = self.take_moved();
            let look = self.joining(|joining| std::mem::take(&mut joining.look_again));
            if let Some(moved) = &moved {
                *self.epoch.borrow_mut() = Some(moved.new.clone());
                self.cursor.set(0);
            } else if !look && self.go_live(shard) {
                return;
            }
            if self.read_on(shard, moved.map(|moved| moved.old)).await {
                failures = 0;
            } else if !self.is_over() {
                self.joining(|joining| joining.look_again |= look);
                failures += 1;
                self.pause(failures).await;
            }
        }
    }

    /// Reads a page of the log after the cursor and sends it; false when that brought nothing on
    /// and should be tried again in a moment. `untold` is the epoch that the client still knows.
    async fn read_on(self: &Rc<Self>, shard: &Rc<Shard>, untold: Option<Epoch>) -> bool {
        let limit = shard.config.replay_page_entries;
        let page = match shard.channels.read_after(&self.channel, self.cursor.get(), limit).await {
            Ok(page) => page,
            Err(error) => {
                debug!(conn.id = %self.connection.id, channel = %self.channel, error = %error, "cannot replay yet");
                self.still_untold(untold);
                return false;
            }
        };
        if self.is_over() {
            return false;
        }
        let epoch = self.epoch.borrow().clone();
        let Some(epoch) = epoch.filter(|epoch| page.epoch.as_ref() == Some(epoch)) else {
            // The log has moved on; the channel is about to notice.
            shard.channels.doubt(&self.channel);
            self.still_untold(untold);
            return false;
        };
        if self.has_moved() {
            self.still_untold(untold);
            return true;
        }
        shard.stats.replays.add(1);
        self.see(page.top);
        let before = self.cursor.get();
        self.say_gap(shard, &page, &epoch, untold);
        self.replay(shard, &epoch, &page.entries).await;
        let cursor = self.cursor.get();
        if page.closed && cursor >= page.top && !self.is_over() && !self.has_moved() {
            self.finish(shard);
        }
        let stuck =
            cursor == before && self.joining(|joining| cursor < joining.seen && !joining.can_merge(cursor));
        if stuck {
            // Live is ahead of the log that is read here; the log will follow, or be doubted.
            shard.channels.doubt(&self.channel);
        }
        !stuck
    }

    fn see(&self, offset: u64) {
        self.joining(|joining| joining.seen = joining.seen.max(offset));
    }

    fn take_moved(&self) -> Option<Moved> {
        self.joining(|joining| joining.moved.take())
    }

    fn has_moved(&self) -> bool {
        self.joining(|joining| joining.moved.is_some())
    }

    /// Puts back a change of epoch that the client has not been told of.
    fn still_untold(&self, untold: Option<Epoch>) {
        let (Some(old), Some(new)) = (untold, self.epoch.borrow().clone()) else { return };
        self.joining(|joining| match &mut joining.moved {
            Some(moved) => moved.old = old,
            none => *none = Some(Moved { old, new }),
        });
    }

    /// Says `resync` where the epoch changed or entries are no longer kept, and moves the cursor to
    /// where the entries go on.
    fn say_gap(&self, shard: &Shard, page: &Page, epoch: &Epoch, old_epoch: Option<Epoch>) {
        let missing = (page.first - 1).saturating_sub(self.cursor.get());
        if old_epoch.is_none() && missing == 0 {
            return;
        }
        shard.stats.gaps_told.add(1);
        self.cursor.set(self.cursor.get().max(page.first - 1));
        let resync = ServerMessage::Resync {
            channel: &self.channel,
            old_epoch: old_epoch.as_ref().unwrap_or(epoch),
            epoch,
            offset: self.cursor.get(),
            recovered: false,
            gap: old_epoch.is_none().then_some(missing),
            timestamp: Utc::now(),
        };
        self.connection.send_message(&resync, shard.limits);
    }

    /// Sends entries after the cursor, each piece when the one before has been taken.
    async fn replay(&self, shard: &Shard, epoch: &Epoch, entries: &[Entry]) {
        let new = entries.iter().position(|entry| entry.offset > self.cursor.get()).unwrap_or(entries.len());
        let mut rest = &entries[new..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|entry| {
                bytes += entry.draft.cost();
                bytes <= PIECE_BYTES
            });
            let (piece, later) = rest.split_at(fits.count().max(1));
            // Others of this connection may have sent a piece of theirs in the meantime.
            self.connection.until_drained().await;
            if self.is_over() || self.has_moved() {
                return;
            }
            // The lane does not matter: a replayed piece is sent whole.
            let batch = LiveBatch::encode(&self.channel, epoch, Lane::Every, piece);
            self.connection.send_piece(batch.frames.clone(), batch.len());
            self.cursor.set(batch.last());
            shard.stats.replayed.add(batch.len() as u64);
            rest = later;
        }
    }

    /// Sends what was held, if it follows on the cursor without a hole, and goes live. A long hold
    /// is sent in pieces: this gives false, and is called again when they have been taken.
    fn go_live(&self, shard: &Shard) -> bool {
        let mut phase = self.phase.borrow_mut();
        let Phase::Joining(joining) = &mut *phase else { return true };
        let mut piece = 0;
        while let Some(batch) = joining.held.front() {
            let next = self.cursor.get() + 1;
            let ours = self.is_in(&batch.epoch);
            if ours && batch.first > next {
                return false;
            }
            if ours && batch.last() >= next {
                let had = usize::try_from(next - batch.first).unwrap_or(usize::MAX);
                let frames: Bytes = batch.frames.slice(batch.start_of(had)..);
                piece += frames.len();
                if piece > PIECE_BYTES && piece > frames.len() {
                    return false;
                }
                self.connection.send_piece(frames, batch.len() - had);
                self.cursor.set(batch.last());
                if batch.is_last_of_log {
                    self.finish(shard);
                }
            }
            joining.held_entries -= batch.len();
            joining.held.pop_front();
            if self.connection.waiting_frames() > 0 && !joining.held.is_empty() {
                return false;
            }
        }
        let caught_up = self.cursor.get() >= joining.seen;
        if caught_up {
            *phase = Phase::Live;
        }
        caught_up
    }

    /// Waits before another try.
    async fn pause(&self, failures: u32) {
        time::sleep(RETRY.wait(failures, rand::random())).await;
    }
}

impl Joining {
    /// Lets go of what was held of other epochs, now that the subscription's is known.
    /// Everything after `joined_at` comes live.
    fn keep_only(&mut self, epoch: &Epoch, joined_at: u64) {
        self.held.retain(|batch| batch.epoch == *epoch);
        self.held_entries = self.held.iter().map(|batch| batch.len()).sum();
        self.seen = self.held.back().map_or(joined_at, |batch| batch.last().max(joined_at));
    }

    fn hold(&mut self, batch: &Arc<LiveBatch>, entries_max: usize) {
        self.seen = self.seen.max(batch.last());
        if self.held_entries + batch.len() > entries_max {
            // The log has them: they are read again.
            self.held.clear();
            self.held_entries = 0;
        }
        self.held_entries += batch.len();
        self.held.push_back(Arc::clone(batch));
    }

    /// Whether something held follows on this offset.
    fn can_merge(&self, cursor: u64) -> bool {
        self.held.iter().any(|batch| batch.last() > cursor && batch.first <= cursor + 1)
    }
}

#[derive(Debug)]
struct StartingPoint {
    epoch: Epoch,
    offset: u64,
    recovered: bool,
    gap: Option<u64>,
    /// The newest offset when the channel was joined.
    joined_at: u64,
    /// The newest offset when the log was looked at.
    top: u64,
    /// Nothing will follow it.
    closed: bool,
}

impl StartingPoint {
    /// How an order stands and what follows, for people.
    fn told_of_order(&self) -> &'static str {
        let follows = self.top > self.offset;
        match (self.gap, self.closed, follows) {
            (None, _, true) => "The position is of another log of this order; what is kept follows",
            (None, true, false) => "The order has ended, and its updates are no longer kept",
            (None, false, false) => "The position is of another log of this order; new updates follow",
            (Some(1..), _, true) => "The oldest updates are no longer kept; those after them follow",
            (Some(1..), true, false) => "The order has ended, and its updates are no longer kept",
            (Some(1..), false, false) => "The updates so far are no longer kept; new ones follow",
            (Some(0), true, true) => "The order has ended; its updates follow",
            (Some(0), true, false) => "The order has ended; all its updates were sent before",
            (Some(0), false, true) => "Updates follow",
            (Some(0), false, false) if self.top == 0 => {
                "No update of this order has come yet; all will follow"
            }
            (Some(0), false, false) => "New updates follow",
        }
    }
}
