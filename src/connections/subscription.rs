//! A connection's interest in a channel, and how it is brought up to date: hold what comes live,
//! replay from the log, merge by offset, go live.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
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
use crate::channels::{JoinError, LiveBatch, Moved};
use crate::model::{ChannelKind, ChannelName, Entry, Epoch, Lane, Position};
use crate::protocol::{ErrorCode, ServerMessage};
use crate::storage::{Had, Page, Seam, told_epoch};
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
    /// What the client has had that may come again in this life of the log.
    had: RefCell<Had>,
    /// There is something in `had`.
    filters: Cell<bool>,
    /// The epoch that the client knows: `epoch`, and `had` as it was when that was told.
    told: RefCell<Option<Epoch>>,
    /// Entries up to this offset are delivered after their time.
    late_to: Cell<u64>,
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
    /// The newest position that came live, held or not.
    seen: Option<Position>,
    /// The log is to be read before it goes live, whatever was held: entries may have left it.
    look_again: bool,
}

/// How entries are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Frame by frame: a reader who leaves too many of them is cut, unless newer ones replace them.
    Live,
    /// In one piece, whose size is bounded; the next one waits until the reader has taken it.
    Piece,
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
            had: RefCell::default(),
            filters: Cell::new(false),
            told: RefCell::default(),
            late_to: Cell::new(0),
            phase: RefCell::new(Phase::Joining(Box::default())),
        }
    }

    /// Whether a batch that begins with this offset of this epoch is just what comes next.
    pub(super) fn is_live_at(&self, epoch: &Epoch, first: u64) -> bool {
        self.cursor.get() + 1 == first
            && !self.filters.get()
            && matches!(*self.phase.borrow(), Phase::Live)
            && self.is_in(epoch)
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

    /// Takes batches that are not simply next: they overlap, or come while joining, or leave a gap, or
    /// hold what was had before.
    pub(super) fn on_unusual(self: &Rc<Self>, shard: &Rc<Shard>, batches: &[Arc<LiveBatch>]) {
        match &mut *self.phase.borrow_mut() {
            Phase::Ended => return,
            Phase::Joining(joining) => {
                batches.iter().for_each(|batch| joining.hold(batch, shard.config.hold_entries_max));
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
                self.restart(shard);
                return self.on_unusual(shard, &batches[index..]);
            }
            let is_too_much = self.connection.is_behind() || batch.frames.len() > PIECE_BYTES;
            if batch.is_late && is_too_much {
                // A reader is not cut for what others could not send in time: it goes through the
                // log, as fast as it reads.
                self.restart(shard);
                return self.on_unusual(shard, &batches[index..]);
            }
            let before = usize::try_from(next - batch.first).unwrap_or(usize::MAX);
            let way = if batch.is_late { Way::Piece } else { Way::Live };
            if self.filters.get() {
                self.send_new(shard, batch, before, way);
            } else if way == Way::Piece {
                self.send_runs(shard, batch, vec![before..batch.len()], way);
                self.cursor.set(batch.last());
            } else {
                self.connection.send_live(std::slice::from_ref(batch), before, shard.limits);
                self.cursor.set(batch.last());
            }
            if batch.is_last_of_log {
                self.finish(shard);
            }
        }
    }

    /// Sends what was not had before of a batch, from this index on.
    fn send_new(&self, shard: &Shard, batch: &Arc<LiveBatch>, before: usize, way: Way) {
        let (mut new, mut from, mut index) = (Vec::new(), before, before);
        while index < batch.len() && !self.had.borrow().is_empty() {
            if batch.id(index).is_some_and(|id| self.had.borrow_mut().came(id)) {
                new.push(from..index);
                from = index + 1;
            }
            index += 1;
        }
        new.push(from..index);
        self.send_runs(shard, batch, new, way);
        self.cursor.set((batch.first + index as u64).saturating_sub(1));
        if self.had.borrow().is_empty() {
            self.settle(shard);
            self.send_runs(shard, batch, vec![index..batch.len()], way);
            self.cursor.set(batch.last());
        }
    }

    fn send_runs(&self, shard: &Shard, batch: &LiveBatch, mut runs: Vec<Range<usize>>, way: Way) {
        runs.retain(|run| !run.is_empty());
        if way == Way::Live {
            let parts = runs.into_iter().map(|run| Arc::new(batch.part(run)));
            return parts.for_each(|part| self.connection.send_live(&[part], 0, shard.limits));
        }
        let bytes = |run: &Range<usize>| batch.start_of(run.start)..batch.start_of(run.end);
        let frames = match &runs[..] {
            [] => return,
            [run] => batch.frames.slice(bytes(run)),
            runs => runs.iter().flat_map(|run| &batch.frames[bytes(run)]).copied().collect(),
        };
        self.connection.send_piece(frames, runs.iter().map(ExactSizeIterator::len).sum());
    }

    /// Nothing that was had can come again: from here on the log's own epoch says all.
    fn settle(&self, shard: &Shard) {
        self.filters.set(false);
        self.tell_epoch(shard, true, Some(0));
    }

    /// Entries up to an offset left the log before this node saw them, and nothing came after them.
    pub(super) fn on_skipped(self: &Rc<Self>, shard: &Rc<Shard>, epoch: &Epoch, offset: u64) {
        let is_missing = self.is_in(epoch) && self.cursor.get() < offset;
        if is_missing && matches!(*self.phase.borrow(), Phase::Live) {
            self.restart(shard);
        }
        self.joining(|joining| joining.look_again = true);
    }

    /// The log goes on in another life.
    pub(super) fn on_moved(self: &Rc<Self>, shard: &Rc<Shard>, moved: &Moved) {
        let is_live = match &mut *self.phase.borrow_mut() {
            Phase::Ended => return,
            Phase::Joining(joining) => {
                joining.move_to(&moved.seam.to);
                false
            }
            Phase::Live => true,
        };
        // One that joined after the change has nothing to do with the life before it.
        if !is_live || !self.is_in(&moved.from.epoch) {
            return;
        }
        if self.cursor.get() == moved.from.offset {
            self.cross(shard, &moved.seam);
        } else {
            self.restart(shard);
            self.joining(|joining| joining.move_to(&moved.seam.to));
        }
    }

    /// A live subscription goes through the log again.
    fn restart(self: &Rc<Self>, shard: &Rc<Shard>) {
        self.connection.set_finished(&self.channel, false);
        let joining = Joining { look_again: true, ..Joining::default() };
        *self.phase.borrow_mut() = Phase::Joining(Box::new(joining));
        let (subscription, on) = (Rc::clone(self), Rc::clone(shard));
        shard.spawn(async move { subscription.catch_up(&on).await });
    }

    /// Where the client stands; `None` until the channel was joined.
    fn position(&self) -> Option<Position> {
        let epoch = self.epoch.borrow().clone()?;
        Some(Position { epoch, offset: self.cursor.get() })
    }

    /// Goes over into another life of the log, and says so.
    fn cross(&self, shard: &Shard, seam: &Seam) {
        let Seam { to, had, late_to, whole } = seam;
        self.cursor.set(to.offset);
        self.late_to.set(*late_to);
        *self.epoch.borrow_mut() = Some(to.epoch.clone());
        self.had.borrow_mut().merge(had);
        self.filters.set(!self.had.borrow().is_empty());
        if !whole {
            shard.stats.gaps_told.add(1);
        }
        self.tell_epoch(shard, *whole, whole.then_some(0));
    }

    /// Says how the epoch is called from here on, unless the client knows it.
    fn tell_epoch(&self, shard: &Shard, recovered: bool, gap: Option<u64>) {
        let Some(Position { epoch, offset }) = self.position() else { return };
        let epoch = told_epoch(&epoch, &self.had.borrow());
        let old = self.told.replace(Some(epoch.clone())).unwrap_or_else(|| epoch.clone());
        if old != epoch || !recovered {
            self.say_resync(shard, &old, &Position { epoch, offset }, recovered, gap);
        }
    }

    fn say_resync(&self, shard: &Shard, old: &Epoch, to: &Position, recovered: bool, gap: Option<u64>) {
        let resync = ServerMessage::Resync {
            channel: &self.channel,
            old_epoch: old,
            epoch: &to.epoch,
            offset: to.offset,
            recovered,
            gap,
            timestamp: Utc::now(),
        };
        self.connection.send_message(&resync, shard.limits);
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
                Ok(found) => {
                    let message = found.told_of_order();
                    let StartingPoint { epoch, offset, recovered, gap, joined_at, top, closed, .. } = found;
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
                    self.joining(|joining| joining.see(&joined_at));
                    *self.told.borrow_mut() = Some(epoch.clone());
                    *self.epoch.borrow_mut() = Some(epoch);
                    if closed && offset >= top {
                        self.finish(shard);
                    }
                    return true;
                }
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
    ) -> Result<StartingPoint, crate::storage::StorageError> {
        let had = match start {
            Start::Now => {
                let Position { epoch, offset } = joined.clone();
                return Ok(StartingPoint {
                    epoch,
                    offset,
                    recovered: true,
                    gap: Some(0),
                    joined_at: joined,
                    top: offset,
                    closed: false,
                });
            }
            // Just before the first entry there ever was, in whatever life of the log.
            Start::Oldest => None,
            Start::After(had) => Some(had),
        };
        let page = shard.channels.read_after(&self.channel, had, 1).await?;
        let oldest = page.first - 1;
        // Offsets past the top were never given in this life: the log was put back to before them.
        let known = had.is_none_or(|had| page.epoch.as_ref() == Some(&had.epoch) && had.offset <= page.top);
        let after = had.map_or(0, |had| had.offset);
        let (offset, gap) =
            if known { (after.max(oldest), Some(oldest.saturating_sub(after))) } else { (oldest, None) };
        Ok(StartingPoint {
            epoch: page.epoch.unwrap_or_else(|| joined.epoch.clone()),
            offset,
            recovered: gap == Some(0),
            gap,
            joined_at: joined,
            top: page.top,
            closed: page.closed,
        })
    }

    /// Replays from the log and merges what was held, until nothing lies between them; then goes live.
    async fn catch_up(self: &Rc<Self>, shard: &Rc<Shard>) {
        let mut failures = 0;
        loop {
            self.connection.until_drained().await;
            if self.is_over() {
                return;
            }
            let look = self.joining(|joining| std::mem::take(&mut joining.look_again));
            if !look && self.go_live(shard) {
                return;
            }
            if self.read_on(shard).await {
                failures = 0;
            } else if !self.is_over() {
                self.joining(|joining| joining.look_again |= look);
                failures += 1;
                self.pause(failures).await;
            }
        }
    }

    /// Reads a page of the log after the cursor and sends it; false when that brought nothing on
    /// and should be tried again in a moment.
    async fn read_on(self: &Rc<Self>, shard: &Rc<Shard>) -> bool {
        let Some(after) = self.position() else { return false };
        let limit = shard.config.replay_page_entries;
        let page = match shard.channels.read_after(&self.channel, Some(&after), limit).await {
            Ok(page) => page,
            Err(error) => {
                debug!(conn.id = %self.connection.id, channel = %self.channel, error = %error, "cannot replay yet");
                return false;
            }
        };
        if self.is_over() {
            return false;
        }
        let Some(epoch) = page.epoch.clone() else {
            // The log has no life; the channel gives it one.
            shard.channels.doubt(&self.channel);
            return false;
        };
        if epoch != after.epoch {
            // Nothing is known of what followed; what is kept of the present life is sent.
            let to = Position { epoch, offset: page.first - 1 };
            self.cross(shard, &Seam { to, had: Had::default(), late_to: 0, whole: false });
            shard.channels.doubt(&self.channel);
            return true;
        }
        shard.stats.replays.add(1);
        self.say_gap(shard, &page);
        self.replay(shard, &epoch, &page.entries).await;
        if self.is_over() {
            return false;
        }
        let cursor = self.cursor.get();
        let at_end = cursor >= page.top;
        if page.closed && at_end {
            self.finish(shard);
        }
        if let (Some(seam), true) = (&page.next, at_end) {
            self.cross(shard, seam);
            return true;
        }
        let is_behind = self.joining(|joining| {
            joining.seen.as_ref().is_some_and(|seen| seen.epoch != epoch || seen.offset > cursor)
                && !joining.can_merge(&epoch, cursor)
        });
        if at_end && is_behind {
            // Live is ahead of the log that is read here; the log will follow, or be doubted.
            shard.channels.doubt(&self.channel);
        }
        !(at_end && is_behind)
    }

    /// Says `resync` where entries are no longer kept, and moves the cursor to where they go on.
    fn say_gap(&self, shard: &Shard, page: &Page) {
        let missing = (page.first - 1).saturating_sub(self.cursor.get());
        if missing == 0 {
            return;
        }
        shard.stats.gaps_told.add(1);
        self.cursor.set(page.first - 1);
        self.tell_epoch(shard, false, Some(missing));
    }

    /// Sends entries after the cursor, each piece when the one before has been taken.
    async fn replay(&self, shard: &Shard, epoch: &Epoch, entries: &[Entry]) {
        let new = entries.iter().position(|entry| entry.offset > self.cursor.get()).unwrap_or(entries.len());
        let mut rest = &entries[new..];
        while let Some(first) = rest.first() {
            let late_to = self.late_to.get();
            let late = first.offset <= late_to;
            let mut bytes = 0;
            let fits = rest.iter().take_while(|entry| {
                bytes += entry.draft.cost();
                bytes <= PIECE_BYTES && (entry.offset <= late_to) == late
            });
            let (piece, later) = rest.split_at(fits.count().max(1));
            // Others of this connection may have sent a piece of theirs in the meantime.
            self.connection.until_drained().await;
            if self.is_over() {
                return;
            }
            // The lane does not matter: a replayed piece is sent whole.
            let batch = Arc::new(LiveBatch::encode(&self.channel, epoch, Lane::Every, late, piece));
            shard.stats.replayed.add(batch.len() as u64);
            if self.filters.get() {
                self.send_new(shard, &batch, 0, Way::Piece);
            } else {
                self.connection.send_piece(batch.frames.clone(), batch.len());
                self.cursor.set(batch.last());
            }
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
                let before = usize::try_from(next - batch.first).unwrap_or(usize::MAX);
                let frames: Bytes = batch.frames.slice(batch.start_of(before)..);
                piece += frames.len();
                if piece > PIECE_BYTES && piece > frames.len() {
                    return false;
                }
                if self.filters.get() {
                    self.send_new(shard, batch, before, Way::Piece);
                } else {
                    self.connection.send_piece(frames, batch.len() - before);
                    self.cursor.set(batch.last());
                }
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
        let caught_up = joining
            .seen
            .as_ref()
            .is_none_or(|seen| self.is_in(&seen.epoch) && self.cursor.get() >= seen.offset);
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
    /// The channel's live entries were at this position.
    fn see(&mut self, position: &Position) {
        match &mut self.seen {
            // What came live meanwhile is newer.
            Some(seen) if seen.epoch == position.epoch => seen.offset = seen.offset.max(position.offset),
            Some(_) => {}
            none => *none = Some(position.clone()),
        }
    }

    /// Live entries are of another life from here on. What was held of the one before is read.
    fn move_to(&mut self, to: &Position) {
        self.held.clear();
        self.held_entries = 0;
        self.seen = Some(to.clone());
        self.look_again = true;
    }

    fn hold(&mut self, batch: &Arc<LiveBatch>, entries_max: usize) {
        if self.seen.as_ref().is_some_and(|seen| seen.epoch != batch.epoch) {
            // On its way since before the channel was joined.
            return;
        }
        self.seen = Some(Position { epoch: batch.epoch.clone(), offset: batch.last() });
        if self.held_entries + batch.len() > entries_max {
            // The log has them: they are read again.
            self.held.clear();
            self.held_entries = 0;
        }
        self.held_entries += batch.len();
        self.held.push_back(Arc::clone(batch));
    }

    /// Whether something held follows on this offset.
    fn can_merge(&self, epoch: &Epoch, cursor: u64) -> bool {
        let follows = |batch: &Arc<LiveBatch>| {
            batch.epoch == *epoch && batch.last() > cursor && batch.first <= cursor + 1
        };
        self.held.iter().any(follows)
    }
}

#[derive(Debug)]
struct StartingPoint {
    epoch: Epoch,
    offset: u64,
    recovered: bool,
    gap: Option<u64>,
    /// Where the channel was when it was joined.
    joined_at: Position,
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
