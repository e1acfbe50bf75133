//! A connection's subscription to a channel: executes what its [`Reader`] decides.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::task;
use tokio::time::{self, Instant};
use tracing::debug;
use zonewire_protocol::stats::{SubscriptionInfo, SubscriptionPhase};

use super::connection::Connection;
use super::shard::Shard;
use crate::channels::{
    Asked, EncodedLatest, EncodedPage, JoinError, LiveBatch, Moved, PageSizes, Reader, Room, StartingPoint,
    Step, Steps, Then, Turn, Way,
};
use crate::model::{BackendState, ChannelName, ChannelPolicy, Epoch, OrderId, Position};
use crate::protocol::{
    CaughtUp, CloseCode, ErrorCode, RequestId, Resync, ServerMessage, SnapshotEnd, Subscribed,
};
use crate::storage::{StatusReader, StorageError};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::counter::observe;

/// An outage younger than this may be over in a moment.
const YOUNG: Duration = Duration::from_millis(1_500);

/// How often a channel is checked that is still in a fork although the storage serves: it will soon be
/// reconciled.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The longest that a client waits until its position is known again.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);

/// The most bytes in one piece of a replay; the next piece waits until the client has read it.
const PIECE_BYTES: usize = 256 << 10;

/// The most keys in one page of a snapshot, which is about as much as a piece.
const SNAPSHOT_PAGE_KEYS: usize = 1_000;

/// A connection's subscription to a channel. Lives on its shard's thread.
pub(super) struct Subscription {
    pub(super) channel: ChannelName,
    pub(super) connection: Rc<Connection>,
    /// Its index among the channel's subscriptions.
    pub(super) place: Cell<usize>,
    /// The request that it was made for, until its final answer was sent. Boxed, because few wait for one.
    asked: Cell<Option<Box<Option<RequestId>>>>,
    /// When everything was sent and nothing more will follow.
    finished_at: Cell<Option<Instant>>,
    /// Never borrowed while something is sent.
    reader: RefCell<Reader>,
}

// With the counters of its `Rc`, it exactly fills the allocator's size class of 160 bytes.
const _: () = assert!(size_of::<Subscription>() <= 144);

impl Subscription {
    pub(super) fn new(channel: ChannelName, connection: Rc<Connection>, id: Option<RequestId>) -> Self {
        Self {
            channel,
            connection,
            place: Cell::new(0),
            asked: Cell::new(Some(Box::new(id))),
            finished_at: Cell::default(),
            reader: RefCell::default(),
        }
    }

    /// Takes the `id` of the request that it was made for, to send its final answer; `None` if that was
    /// sent before.
    pub(super) fn take_asked(&self) -> Option<Option<RequestId>> {
        self.asked.take().map(|id| *id)
    }

    pub(super) fn finished_at(&self) -> Option<Instant> {
        self.finished_at.get()
    }

    /// Whether these batches are exactly what comes next, and can be sent whole.
    pub(super) fn is_next(&self, batches: &[Arc<LiveBatch>]) -> bool {
        self.reader.borrow().is_next(batches)
    }

    /// Records that batches for which [`is_next`](Self::is_next) was true were sent, up to this offset.
    pub(super) fn took(&self, last: u64) {
        self.reader.borrow_mut().took(last);
    }

    /// The progress of the subscription.
    pub(super) fn info(&self) -> SubscriptionInfo {
        let reader = self.reader.borrow();
        let phase = match self.finished_at.get() {
            Some(_) => SubscriptionPhase::Finished,
            None if reader.is_live() => SubscriptionPhase::Live,
            None => SubscriptionPhase::CatchingUp,
        };
        let (epoch, offset) = reader.position().map(|at| (at.epoch, at.offset)).unzip();
        SubscriptionInfo { channel: self.channel.to_string(), phase: phase.into(), epoch, offset }
    }

    pub(super) fn end(&self) {
        self.reader.borrow_mut().end();
        self.finished_at.set(None);
    }

    /// Marks the subscription as finished: the log has ended, and everything that it still has was sent.
    pub(super) fn finish(&self, shard: &Shard) {
        self.finished_at.set(Some(self.finished_at.get().unwrap_or_else(Instant::now)));
        shard.has_finished.set(true);
        shard.close_if_finished(&self.connection, Instant::now());
    }

    fn is_over(&self) -> bool {
        self.reader.borrow().has_ended() || !self.connection.is_open()
    }

    fn room(&self, shard: &Shard) -> Room {
        Room {
            hold_entries_max: shard.config.hold_entries_max,
            piece_bytes: PIECE_BYTES,
            is_behind: self.connection.is_behind(),
        }
    }

    // Live entries

    /// Takes batches that are not exactly what comes next: they overlap, come while joining, leave a gap,
    /// are late, or contain entries that the client has had.
    pub(super) fn on_unusual(self: &Rc<Self>, shard: &Rc<Shard>, batches: &[Arc<LiveBatch>]) {
        for batch in batches {
            let steps = self.reader.borrow_mut().on_batch(batch, self.room(shard));
            self.act(shard, steps);
        }
    }

    /// Entries up to an offset left the log before this node saw them, and nothing came after them.
    pub(super) fn on_skipped(self: &Rc<Self>, shard: &Rc<Shard>, epoch: &Epoch, offset: u64) {
        let steps = self.reader.borrow_mut().on_skipped(epoch, offset);
        self.act(shard, steps);
    }

    /// The log continues in another epoch.
    pub(super) fn on_moved(self: &Rc<Self>, shard: &Rc<Shard>, moved: &Moved) {
        let steps = self.reader.borrow_mut().on_moved(moved);
        self.act(shard, steps);
    }

    // The reader's decisions

    fn act(self: &Rc<Self>, shard: &Rc<Shard>, steps: Steps) {
        for step in steps {
            match step {
                Step::Send { batch, runs, way: Way::Live } => self.send_live(shard, &batch, &runs),
                Step::Send { batch, runs, way: Way::Piece | Way::Latest } => self.send_piece(&batch, &runs),
                Step::Resync { old, to, recovered, gap, snapshot } => {
                    if !recovered {
                        shard.stats.messages.gaps_told.add(1);
                    }
                    shard.stats.messages.snapshots.add(u64::from(snapshot));
                    let resync = ServerMessage::Resync(Resync {
                        channel: self.channel.clone(),
                        old_epoch: old,
                        epoch: to.epoch,
                        offset: to.offset,
                        recovered,
                        gap,
                        snapshot,
                        timestamp: Utc::now(),
                    });
                    self.connection.send_message(&resync, shard.limits);
                }
                Step::SnapshotEnd { at, is_whole } => self.say_snapshot_end(shard, &at, is_whole),
                Step::Finished => self.finish(shard),
                Step::CatchUp => {
                    self.finished_at.set(None);
                    let (subscription, on) = (Rc::clone(self), Rc::clone(shard));
                    shard.spawn_for(&self.connection, async move { subscription.catch_up(&on).await });
                }
                Step::Suspect => shard.channels.suspect(&self.channel),
            }
        }
    }

    fn send_live(&self, shard: &Shard, batch: &Arc<LiveBatch>, runs: &[Range<usize>]) {
        for run in runs {
            if run.end == batch.len() {
                self.connection.send_live(std::slice::from_ref(batch), run.start, shard.limits);
            } else {
                self.connection.send_live(&[Arc::new(batch.part(run.clone()))], 0, shard.limits);
            }
        }
    }

    fn send_piece(&self, batch: &LiveBatch, runs: &[Range<usize>]) {
        let bytes = |run: &Range<usize>| batch.start_of(run.start)..batch.start_of(run.end);
        let frames = match runs {
            [run] => batch.frames.slice(bytes(run)),
            runs => runs.iter().flat_map(|run| &batch.frames[bytes(run)]).copied().collect(),
        };
        self.connection.send_piece(frames, messages(runs));
    }

    fn say_snapshot_end(&self, shard: &Shard, at: &Position, is_whole: bool) {
        let end = ServerMessage::SnapshotEnd(SnapshotEnd {
            channel: self.channel.clone(),
            epoch: at.epoch.clone(),
            offset: at.offset,
            recovered: is_whole,
            timestamp: Utc::now(),
        });
        self.connection.send_message(&end, shard.limits);
    }

    // Joining

    /// Joins the channel, answers the client, and catches up.
    pub(super) async fn bring_up(self: Rc<Self>, shard: Rc<Shard>, asked: Asked) {
        let Some(found) = self.answer(&shard, &asked).await else { return };
        self.catch_up(&shard).await;
        if found.told_top() != Some(found.offset) && !self.is_over() {
            let (channel, timestamp) = (self.channel.clone(), Utc::now());
            let caught_up = ServerMessage::CaughtUp(CaughtUp { channel, timestamp });
            self.connection.send_message(&caught_up, shard.limits);
        }
    }

    /// Joins, sends `subscribed`, and returns where the entries begin; `None` if the subscription is over.
    async fn answer(self: &Rc<Self>, shard: &Rc<Shard>, asked: &Asked) -> Option<StartingPoint> {
        let mut failures = 0;
        let mut status = shard.status.clone();
        let mut give_up_at = None;
        loop {
            if self.is_over() {
                return None;
            }
            let joined = shard.channels.join(&self.channel, shard.index).await;
            let found = match joined {
                Ok(position) => self.starting_point(shard, position, asked).await.map_err(Some),
                Err(JoinError::Unavailable(error)) => Err(Some(Arc::new(error))),
                // Trying again is right: if the node really stops, this connection is closed soon.
                Err(JoinError::ShuttingDown) => Err(None),
                Err(JoinError::TooManyChannels(max)) => {
                    let (code, message) = (ChannelPolicy::of(&self.channel).no_room)(max);
                    self.refuse(shard, self.take_asked()?.as_ref(), code, &message);
                    shard.unsubscribe(self);
                    shard.end_if_bare(&self.connection, CloseCode::TooManyConnections);
                    return None;
                }
            };
            if self.is_over() {
                return None;
            }
            match found {
                Ok(found) => {
                    let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + KNOWN_WITHIN);
                    if found.gap.is_none() && may_know_soon(&mut status, found.is_forked(), give_up_at).await
                    {
                        continue;
                    }
                    self.begin(shard, &found, asked, self.take_asked()?.as_ref());
                    return Some(found);
                }
                Err(None) => {}
                Err(Some(error)) => {
                    debug!(conn.id = %self.connection.id, channel = %self.channel, error = %error, "cannot subscribe yet");
                    if failures == 0 {
                        let message =
                            "the storage does not answer; the subscription is made as soon as it does";
                        let asked = self.take_asked()?;
                        self.refuse(shard, asked.as_ref(), ErrorCode::StorageUnavailable, message);
                        self.asked.set(Some(Box::new(asked)));
                    }
                }
            }
            failures += 1;
            STORAGE_RETRY.pause(failures).await;
        }
    }

    fn refuse(&self, shard: &Shard, id: Option<&RequestId>, code: ErrorCode, message: &str) {
        shard.send_error(&self.connection, id, Some(self.channel.as_str()), (code, message.to_owned()));
    }

    /// Where the entries begin for a client with this request.
    async fn starting_point(
        &self,
        shard: &Shard,
        joined: Position,
        asked: &Asked,
    ) -> Result<StartingPoint, Arc<StorageError>> {
        let sizes = PageSizes { entries: shard.config.replay_page_entries, keys: SNAPSHOT_PAGE_KEYS };
        shard.channels.starting_point(&self.channel, joined, asked, sizes).await
    }

    /// Sends `subscribed`, and sets where the entries begin for the reader.
    fn begin(&self, shard: &Shard, at: &StartingPoint, asked: &Asked, id: Option<&RequestId>) {
        if !at.is_recovered() {
            shard.stats.messages.gaps_told.add(1);
        }
        shard.stats.messages.snapshots.add(u64::from(at.snapshot));
        let order_id = self.channel.as_order();
        let message = order_id.map(|order| told_of_order(order, at, asked.start.had().is_some()));
        let subscribed = ServerMessage::Subscribed(Subscribed {
            id: id.cloned(),
            channel: self.channel.clone(),
            order_id,
            epoch: at.epoch.clone(),
            offset: at.offset,
            top: at.told_top(),
            recovered: at.is_recovered(),
            gap: at.gap,
            snapshot: at.snapshot,
            timestamp: Utc::now(),
            message,
        });
        self.connection.send_message(&subscribed, shard.limits);
        self.reader.borrow_mut().begin(at);
        if at.is_finished() {
            self.finish(shard);
        }
    }

    // Catching up

    /// Replays from the log and merges held entries, until nothing lies between them; then it is live.
    async fn catch_up(self: &Rc<Self>, shard: &Rc<Shard>) {
        let (mut failures, mut merged, begun) = (0, 0, Instant::now());
        loop {
            // One subscription of a connection at a time, so that a client that reads nothing costs one
            // page.
            let place = shard.place_to_replay(&self.connection).await;
            self.connection.until_drained().await;
            if self.is_over() {
                return;
            }
            let turn = self.reader.borrow_mut().turn();
            let is_on = match turn {
                Turn::Done(steps) => {
                    observe(&shard.stats.messages.replay_duration, begun.elapsed());
                    return self.act(shard, steps);
                }
                Turn::Send(steps) => {
                    merged += steps.iter().map(bytes).sum::<usize>();
                    self.act(shard, steps);
                    if merged > PIECE_BYTES {
                        // A long list of held entries must not monopolize the thread.
                        merged = 0;
                        task::yield_now().await;
                    }
                    continue;
                }
                Turn::Read(wanted) => {
                    let page = shard.channels.page(&self.channel, &wanted, shard.config.replay_page_entries);
                    match page.await {
                        Ok(page) => self.replay(shard, wanted.after.as_ref(), &page).await,
                        Err(error) => self.cannot_read(&error),
                    }
                }
                Turn::ReadLatest(wanted) => {
                    match shard.channels.latest_page(&self.channel, &wanted, SNAPSHOT_PAGE_KEYS).await {
                        Ok(page) => self.send_latest(shard, &page).await,
                        Err(error) => self.cannot_read(&error),
                    }
                }
            };
            drop(place);
            if is_on {
                failures = 0;
            } else if !self.is_over() {
                failures += 1;
                STORAGE_RETRY.pause(failures).await;
            }
        }
    }

    /// The next page could not be read. Returns false: it is to be tried again in a moment.
    fn cannot_read(&self, error: &StorageError) -> bool {
        debug!(conn.id = %self.connection.id, channel = %self.channel, error = %error, "cannot replay yet");
        self.reader.borrow_mut().on_no_page();
        false
    }

    /// Sends a page of a snapshot; false if that made no progress and has to be tried again in a moment.
    async fn send_latest(self: &Rc<Self>, shard: &Rc<Shard>, page: &EncodedLatest) -> bool {
        self.connection.until_drained().await;
        if self.is_over() {
            return false;
        }
        let (steps, then) = self.reader.borrow_mut().on_latest(page);
        shard.stats.messages.snapshot_entries.add(steps.iter().map(entries).sum::<usize>() as u64);
        self.act(shard, steps);
        then != Then::Pause
    }

    /// Sends a page of the log, each piece after the client has read the previous one; false if that made
    /// no progress and has to be tried again in a moment.
    async fn replay(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        after: Option<&Position>,
        page: &EncodedPage,
    ) -> bool {
        if after.is_none_or(|after| page.head.epoch.as_ref() == Some(&after.epoch)) {
            shard.stats.messages.replays.add(1);
        }
        loop {
            self.connection.until_drained().await;
            if self.is_over() {
                return false;
            }
            let (steps, then) = self.reader.borrow_mut().on_page(page);
            shard.stats.messages.replayed.add(steps.iter().map(entries).sum::<usize>() as u64);
            self.act(shard, steps);
            match then {
                Then::Page => {}
                Then::Turn => return true,
                Then::Pause => return false,
            }
        }
    }
}

/// Whether a storage that does not know a position may know it soon: when an outage is young, during
/// recovery, or when only this channel is still in a fork. Waits until a further try makes sense, but not
/// past `give_up_at`, when this is false.
async fn may_know_soon(status: &mut StatusReader, is_forked: bool, give_up_at: Instant) -> bool {
    let now = status.get();
    let rest = give_up_at.saturating_duration_since(Instant::now());
    let wait = match now.state {
        BackendState::Degraded => YOUNG.saturating_sub(now.age()).min(rest),
        BackendState::Recovering => rest,
        BackendState::Healthy if is_forked => LOOK_EVERY.min(rest),
        BackendState::Healthy => Duration::ZERO,
    };
    if wait.is_zero() {
        return false;
    }
    match time::timeout(wait, status.changed()).await {
        // The status can no longer change.
        Ok(false) => false,
        Ok(true) | Err(_) => true,
    }
}

fn messages(runs: &[Range<usize>]) -> usize {
    runs.iter().map(ExactSizeIterator::len).sum()
}

fn entries(step: &Step) -> usize {
    if let Step::Send { runs, .. } = step { messages(runs) } else { 0 }
}

fn bytes(step: &Step) -> usize {
    let Step::Send { batch, runs, .. } = step else { return 0 };
    runs.iter().map(|run| batch.start_of(run.end) - batch.start_of(run.start)).sum()
}

/// The state of an order and what follows, for people.
fn told_of_order(order: OrderId, at: &StartingPoint, has_position: bool) -> String {
    let subscribed = format!("Subscribed to real-time updates for order {order}");
    let follows = at.top > at.offset;
    let more = match (at.gap, at.closed, follows) {
        _ if at.is_owed() || (at.gap.is_none() && !has_position) => {
            "Older updates cannot be reached now; they follow when they can"
        }
        (None, _, true) => "The position is of another log of this order; what is kept follows",
        (None, true, false) => "The order has ended, and its updates are no longer kept",
        (None, false, false) => "The position is of another log of this order; new updates follow",
        (Some(1..), _, true) => "The oldest updates are no longer kept; those after them follow",
        (Some(1..), true, false) => "The order has ended, and its updates are no longer kept",
        (Some(1..), false, false) => "The updates so far are no longer kept; new ones follow",
        (Some(0), true, true) => "The order has ended; its updates follow",
        (Some(0), true, false) => "The order has ended; all its updates were sent before",
        (Some(0), false, true) => return subscribed,
        (Some(0), false, false) if at.top == 0 => "No update of this order has come yet; all will follow",
        (Some(0), false, false) => return subscribed,
    };
    format!("{subscribed}. {more}")
}
