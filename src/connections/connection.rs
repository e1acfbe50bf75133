//! One socket: straight non-blocking writes, a queue only while it is behind, one small task that
//! reads and writes what was left over.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task;
use tokio::time::Instant;
use uuid::Uuid;

use super::config::ConnectionsConfig;
use super::intake::Intake;
use super::limits::Admission;
use super::outbox::{Outbox, OutboxLimits, Overflow, Replaces};
use super::shard::{RETRY_AFTER_MS, Shard};
use super::socket::read_now;
use super::stats::{ConnectionHealth, ConnectionInfo, ShardStats};
use super::subscription::Subscription;
use crate::channels::LiveBatch;
use crate::model::ChannelName;
use crate::protocol::{CloseCode, ServerMessage, close_frame, text_frame};

/// Read from a socket at a time, into a buffer that the thread shares.
const READ_CHUNK: usize = 16 << 10;

/// The precision in which a connection remembers when it was heard; 13 years fit.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Chunks read from one socket before others get their turn.
const READS_PER_TURN: usize = 8;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_CHUNK]);
}

/// One socket. Lives on its shard's thread.
pub(super) struct Connection {
    pub(super) id: Uuid,
    stream: TcpStream,
    /// Exists only while the socket is behind.
    outbox: RefCell<Option<Box<Outbox>>>,
    waker: Cell<Option<Waker>>,
    /// Told when nothing waits that may not be replaced, or when the connection ends.
    drained: Notify,
    stats: Arc<ShardStats>,
    pub(super) opened: Instant,
    /// In ticks since `opened`: kept small, since every idle connection has it.
    last_heard: Cell<u32>,
    received: Cell<u32>,
    /// What it may still send.
    messages: Bucket,
    /// What it may still unsubscribe from.
    leaves: Bucket,
    pub(super) subscriptions: RefCell<SmallVec<[Rc<Subscription>; 1]>>,
    state: Cell<State>,
    /// Whether channels that go too fast for this reader wait for it.
    pub(super) pacing: Cell<Pacing>,
    /// The order that it was opened on, and ends with. Boxed: most were opened on none.
    order: Option<Box<ChannelName>>,
    /// Counts this connection in the limits until it is gone.
    _admission: Admission,
}

/// A token bucket, of as many tokens a second and at once as messages may be.
#[derive(Debug)]
struct Bucket {
    left: Cell<f32>,
    /// When that was so, in ticks since the connection opened.
    at: Cell<u32>,
}

impl Bucket {
    fn full(burst: u32) -> Self {
        Self { left: Cell::new(burst as f32), at: Cell::new(0) }
    }

    /// Takes one; what is left, which may be less than nothing.
    fn take(&self, now: u32, shard: &Shard) -> f32 {
        let (rate, burst) = (shard.config.messages_per_s as f32, shard.config.messages_burst as f32);
        if rate == 0.0 {
            return burst;
        }
        let passed = TICK * (now - self.at.replace(now));
        let left = (self.left.get() + passed.as_secs_f32() * rate).min(burst) - 1.0;
        self.left.set(left);
        left
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Open,
    /// A close frame was sent or waits.
    Closing {
        code: CloseCode,
        /// The tick until which the peer has time to answer, or to take what waits.
        until: u32,
        /// The peer's close frame was read: nothing more is expected from it.
        peer_closed: bool,
    },
    /// The task ends at its next turn.
    Ended(CloseCode),
}

/// See `Shard::until_eased`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pacing {
    /// Reads fast enough.
    None,
    /// Has fallen far behind; channels wait for it for a bounded time.
    Pressed,
    /// Was waited for in vain, at this tick; not again for a while, and until it has caught up.
    GivenUp(u32),
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        id: Uuid,
        admission: Admission,
        stats: Arc<ShardStats>,
        burst: u32,
        order: Option<ChannelName>,
    ) -> Self {
        Self {
            order: order.map(Box::new),
            id,
            stream,
            outbox: RefCell::default(),
            waker: Cell::default(),
            drained: Notify::new(),
            stats,
            opened: Instant::now(),
            last_heard: Cell::new(0),
            received: Cell::new(0),
            messages: Bucket::full(burst),
            leaves: Bucket::full(burst),
            subscriptions: RefCell::default(),
            state: Cell::new(State::Open),
            pacing: Cell::new(Pacing::None),
            _admission: admission,
        }
    }

    /// Whether entries and answers may still be sent.
    pub(super) fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Its subscription to a channel.
    pub(super) fn subscription(&self, channel: &ChannelName) -> Option<Rc<Subscription>> {
        self.subscriptions.borrow().iter().find(|subscription| subscription.channel == *channel).cloned()
    }

    /// Since when it has been given all of the order that it was opened on.
    pub(super) fn finished_at(&self) -> Option<Instant> {
        self.subscription(self.order.as_deref()?)?.finished_at()
    }

    /// Its subscriptions that have been given everything that there will ever be, and since when; but for
    /// the one that it was opened for.
    pub(super) fn finished(&self) -> Vec<(Rc<Subscription>, Instant)> {
        let subscriptions = self.subscriptions.borrow();
        let others = subscriptions.iter().filter(|held| self.order.as_deref() != Some(&held.channel));
        others.filter_map(|held| Some((Rc::clone(held), held.finished_at()?))).collect()
    }

    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.duration_since(self.opened).saturating_sub(TICK * self.last_heard.get())
    }

    /// Does not count a time against it in which it could not be heard.
    pub(super) fn excuse(&self, unheard: Duration) {
        let ticks = u32::try_from(unheard.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        // One whose reading is delayed counts as heard until then.
        let heard = self.last_heard.get();
        self.last_heard.set(heard.max(heard.saturating_add(ticks).min(self.ticks())));
    }

    /// Ticks since this connection opened.
    pub(super) fn ticks(&self) -> u32 {
        u32::try_from(self.opened.elapsed().as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
    }

    /// The first tick that is not before so much time from now has passed.
    fn tick_after(&self, time: Duration) -> u32 {
        let until = self.opened.elapsed().saturating_add(time).as_millis().div_ceil(TICK.as_millis());
        u32::try_from(until).unwrap_or(u32::MAX)
    }

    /// Frames that wait and that nothing may replace.
    pub(super) fn waiting_frames(&self) -> usize {
        self.outbox.borrow().as_ref().map_or(0, |outbox| outbox.unreplaceable())
    }

    pub(super) fn is_behind(&self) -> bool {
        self.outbox.borrow().is_some()
    }

    /// Waits until all that nothing may replace has been written, or the connection is closing. What
    /// may be replaced does not count: on a slow reader there may always be some of it.
    pub(super) async fn until_drained(&self) {
        while self.is_open() && self.waiting_frames() > 0 {
            self.drained.notified().await;
        }
    }

    // Sending

    /// Writes contiguous batches of one channel, without the first `skip` frames of the first one.
    /// What the socket does not accept goes to the outbox.
    pub(super) fn send_live(&self, batches: &[Arc<LiveBatch>], skip: usize, limits: OutboxLimits) {
        if !self.is_open() {
            return;
        }
        let mut written = 0;
        if self.outbox.borrow().is_none() {
            match self.write_batches(batches, skip) {
                Ok(taken) => written = taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.end(CloseCode::Abnormal),
            }
        }
        let mut sent = 0;
        let mut skip = skip;
        for (place, batch) in batches.iter().enumerate() {
            let from = batch.start_of(skip);
            if written >= batch.frames.len() - from {
                written -= batch.frames.len() - from;
                sent += batch.len() - skip;
                skip = 0;
                continue;
            }
            for index in skip..batch.len() {
                let frame = batch.frame(index);
                if written >= frame.len() {
                    written -= frame.len();
                    sent += 1;
                    continue;
                }
                if written > 0 {
                    self.begin_outbox(frame.slice(written..));
                    written = 0;
                    continue;
                }
                let replaces =
                    batch.key(index).map(|key| Replaces::Entry(batch.channel.clone(), Arc::clone(key)));
                if !self.enqueue(frame, replaces, limits) {
                    // Those behind it were dropped too, with what waited before them.
                    let behind: usize = batches[place + 1..].iter().map(|batch| batch.len()).sum();
                    self.stats.dropped_slow.add((batch.len() - index - 1 + behind) as u64);
                    self.stats.messages_sent.add(sent as u64);
                    return;
                }
            }
            skip = 0;
        }
        self.stats.messages_sent.add(sent as u64);
    }

    fn write_batches(&self, batches: &[Arc<LiveBatch>], skip: usize) -> io::Result<usize> {
        if let [batch] = batches {
            return self.stream.try_write(&batch.frames[batch.start_of(skip)..]);
        }
        let first = batches.first().map_or(0, |batch| batch.start_of(skip));
        let slices = batches.iter().enumerate().map(|(place, batch)| {
            let from = if place == 0 { first } else { 0 };
            IoSlice::new(&batch.frames[from..])
        });
        let slices: SmallVec<[IoSlice<'_>; 64]> = slices.collect();
        self.stream.try_write_vectored(&slices)
    }

    /// Sends one frame, or queues it.
    pub(super) fn send(&self, frame: Bytes, replaces: Option<Replaces>, limits: OutboxLimits) {
        if self.is_open() {
            self.write_or_queue(frame, replaces, limits);
        }
    }

    /// Sends a message, or queues it.
    pub(super) fn send_message(&self, message: &ServerMessage, limits: OutboxLimits) {
        let mut frame = Vec::new();
        text_frame(&message.to_json(), &mut frame);
        self.send(frame.into(), None, limits);
    }

    /// Sends several messages in one piece, whose size the caller bounds, and who waits for
    /// [`until_drained`](Self::until_drained) between pieces.
    pub(super) fn send_piece(&self, frames: Bytes, messages: usize) {
        if !self.is_open() {
            return;
        }
        let mut outbox = self.outbox.borrow_mut();
        let taken = match &mut *outbox {
            Some(_) => 0,
            None => match self.stream.try_write(&frames) {
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => {
                    drop(outbox);
                    return self.end(CloseCode::Abnormal);
                }
            },
        };
        if taken == frames.len() {
            self.stats.messages_sent.add(messages as u64);
            return;
        }
        // Where the kernel took a part, that part's end may be within a frame: the rest stays in one
        // piece, which is never replaced, and counts as sent when all of it is.
        let outbox = outbox.get_or_insert_default();
        if taken > 0 {
            **outbox = Outbox::with_rest_of(frames.slice(taken..), messages);
        } else {
            outbox.push_piece(frames, messages);
        }
        self.wake();
    }

    fn write_or_queue(&self, frame: Bytes, replaces: Option<Replaces>, limits: OutboxLimits) {
        if self.outbox.borrow().is_none() {
            match self.stream.try_write(&frame) {
                Ok(taken) if taken == frame.len() => return self.stats.messages_sent.add(1),
                Ok(taken) => return self.begin_outbox(frame.slice(taken..)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.end(CloseCode::Abnormal),
            }
        }
        self.enqueue(frame, replaces, limits);
    }

    fn begin_outbox(&self, rest: Bytes) {
        *self.outbox.borrow_mut() = Some(Box::new(Outbox::with_rest(rest)));
        self.wake();
    }

    /// Queues a frame; false when that was one too many and the connection is being closed.
    fn enqueue(&self, frame: Bytes, replaces: Option<Replaces>, limits: OutboxLimits) -> bool {
        let pushed = {
            let mut outbox = self.outbox.borrow_mut();
            if outbox.is_none() {
                self.wake();
            }
            outbox.get_or_insert_default().push(frame, replaces, limits)
        };
        match pushed {
            Ok(replaced) => {
                self.stats.conflated.add(u64::from(replaced));
                true
            }
            Err(Overflow) => {
                self.close(CloseCode::SlowConsumer, 0, CLOSE_GRACE_SLOW);
                false
            }
        }
    }

    // Ending

    /// Says `closing` and sends a close frame; the peer has `grace` to answer. Does nothing when
    /// the connection is closing already.
    pub(super) fn close(&self, code: CloseCode, retry_after_ms: u64, grace: Duration) {
        if !self.is_open() {
            return;
        }
        if code == CloseCode::SlowConsumer {
            // What it has not read would only delay the news; it resumes from its last position.
            let dropped = self.outbox.borrow_mut().as_mut().map_or(0, |outbox| outbox.abandon());
            self.stats.dropped_slow.add(dropped as u64);
        }
        let mut frames = Vec::new();
        text_frame(&ServerMessage::closing(code, retry_after_ms, chrono::Utc::now()).to_json(), &mut frames);
        close_frame(code, &mut frames);
        let unbounded = OutboxLimits { frames: usize::MAX, bytes: usize::MAX };
        self.write_or_queue(frames.into(), None, unbounded);
        if !matches!(self.state.get(), State::Ended(_)) {
            self.state.set(State::Closing { code, until: self.tick_after(grace), peer_closed: false });
        }
        self.drained.notify_waiters();
        self.wake();
    }

    /// Ends the task of a connection whose time to answer a close is up.
    pub(super) fn end_if_overdue(&self) {
        if let State::Closing { code, until, .. } = self.state.get()
            && self.ticks() >= until
        {
            self.end(code);
        }
    }

    /// The task ends at its next turn, with whatever waits unsent.
    pub(super) fn end(&self, code: CloseCode) {
        if !matches!(self.state.get(), State::Ended(_)) {
            self.state.set(State::Ended(code));
        }
        self.drained.notify_waiters();
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            self.waker.set(Some(waker));
        }
    }

    // The task

    /// Reads, and writes what was left over, until the connection ends; says why it did.
    pub(super) async fn run(self: &Rc<Self>, shard: &Rc<Shard>, intake: &mut Intake) -> CloseCode {
        let code = poll_fn(|cx| self.poll(cx, shard, intake)).await;
        let unsent = self.outbox.borrow_mut().take().map_or(0, |outbox| outbox.messages());
        self.stats.dropped_closed.add(unsent as u64);
        self.state.set(State::Ended(code));
        self.drained.notify_waiters();
        code
    }

    fn poll(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        shard: &Rc<Shard>,
        intake: &mut Intake,
    ) -> Poll<CloseCode> {
        let held = self.waker.take().filter(|held| held.will_wake(cx.waker()));
        self.waker.set(held.or_else(|| Some(cx.waker().clone())));
        if self.poll_write(cx, shard).is_err() {
            return Poll::Ready(self.code_or(CloseCode::Abnormal));
        }
        if intake.is_deaf() && !self.is_behind() && !self.is_open() {
            // Its close frame cannot be read any more: it learns from the end of the stream that all
            // is said, and ends it in turn. Where it has gone already there is nothing to do.
            let _gone = SockRef::from(&self.stream).shutdown(Shutdown::Write);
        }
        if matches!(self.state.get(), State::Closing { peer_closed: true, .. }) && !self.is_behind() {
            return Poll::Ready(self.code_or(CloseCode::Normal));
        }
        if let State::Ended(code) = self.state.get() {
            return Poll::Ready(code);
        }
        for _ in 0..READS_PER_TURN {
            // Not read while it is kept waiting: what it sends stays in its socket.
            if intake.poll_backlog(cx, self, shard).is_pending() {
                return Poll::Pending;
            }
            if let State::Ended(code) = self.state.get() {
                return Poll::Ready(code);
            }
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(self.code_or(CloseCode::Abnormal)),
                Poll::Ready(Ok(())) => {}
            }
            let ended = READ_BUFFER.with_borrow_mut(|buffer| match read_now(&self.stream, buffer) {
                Ok(0) => Some(self.code_or(CloseCode::Abnormal)),
                Ok(read) => {
                    self.stats.bytes_received.add(read as u64);
                    self.last_heard.set(self.ticks());
                    intake.take(self, shard, &buffer[..read]);
                    None
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(_) => Some(self.code_or(CloseCode::Abnormal)),
            });
            if let Some(code) = ended {
                return Poll::Ready(code);
            }
            if let State::Ended(code) = self.state.get() {
                return Poll::Ready(code);
            }
        }
        // It sends more than its share.
        leave_turn_to_others(cx);
        Poll::Pending
    }

    fn poll_write(&self, cx: &mut Context<'_>, shard: &Shard) -> io::Result<()> {
        loop {
            let mut slot = self.outbox.borrow_mut();
            let Some(outbox) = &mut *slot else { return Ok(()) };
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ready) => ready?,
            }
            let written = outbox.write_to(|slices| self.stream.try_write_vectored(slices))?;
            self.stats.messages_sent.add(written.messages as u64);
            let (all, waiting) = (written.all, outbox.unreplaceable());
            if all {
                *slot = None;
            }
            drop(slot);
            if waiting == 0 {
                self.drained.notify_waiters();
            }
            shard.eased(self, waiting, all);
        }
    }

    fn code_or(&self, otherwise: CloseCode) -> CloseCode {
        match self.state.get() {
            State::Open => otherwise,
            State::Closing { code, .. } | State::Ended(code) => code,
        }
    }

    /// The closing handshake is complete: ends, once what waits (our answer) has gone. `code` is why,
    /// unless it was closed from here.
    pub(super) fn peer_has_closed(&self, code: CloseCode) {
        if !self.is_behind() {
            return self.end(self.code_or(code));
        }
        let (code, until) = match self.state.get() {
            State::Open => (code, self.tick_after(CLOSE_GRACE_SLOW)),
            State::Closing { code, until, .. } => (code, until),
            State::Ended(_) => return,
        };
        self.state.set(State::Closing { code, until, peer_closed: true });
    }

    /// Charges a message, or a further channel that one subscribes to. When that is too much the
    /// connection is closed, and this is false.
    pub(super) fn allowed(&self, shard: &Shard) -> bool {
        let is_paid = self.messages.take(self.ticks(), shard) >= 0.0;
        if !is_paid {
            // When it may send as much at once again as on a new connection.
            let ConnectionsConfig { messages_per_s, messages_burst, .. } = shard.config;
            let refill = u64::from(messages_burst) * 1_000 / u64::from(messages_per_s.max(1));
            shard.close_for(self, CloseCode::RateLimited, refill.max(RETRY_AFTER_MS));
        }
        is_paid
    }

    /// Charges a channel that is unsubscribed from, which is never too much: see [`rest`](Self::rest).
    pub(super) fn charge_leaving(&self, shard: &Shard) {
        self.leaves.take(self.ticks(), shard);
    }

    /// How long its client is not to be listened to, having unsubscribed from too much in too short a
    /// time. That it is not heard meanwhile does not count against it.
    pub(super) fn rest(&self, shard: &Shard) -> Option<Duration> {
        let owed = -self.leaves.left.get();
        if owed <= 0.0 {
            return None;
        }
        let rest = Duration::from_secs_f32(owed / shard.config.messages_per_s.max(1) as f32);
        let ticks = u32::try_from(rest.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        self.last_heard.set(self.ticks().saturating_add(ticks));
        Some(rest)
    }

    /// Sends what the protocol itself answers to frames.
    pub(super) fn answer(&self, frames: Vec<u8>, limits: OutboxLimits) {
        self.send(frames.into(), None, limits);
    }

    pub(super) fn count_message(&self) {
        self.received.set(self.received.get().saturating_add(1));
        self.stats.messages_received.add(1);
    }

    /// Messages that came.
    pub(super) fn received(&self) -> u32 {
        self.received.get()
    }

    pub(super) fn info(&self, now: Instant, heartbeat: Duration) -> ConnectionInfo {
        let silence = self.silence(now);
        let outbox = self.outbox.borrow();
        let health = match self.state.get() {
            State::Closing { .. } | State::Ended(_) => ConnectionHealth::Closing,
            State::Open if silence > heartbeat.mul_f32(1.5) => ConnectionHealth::Silent,
            State::Open if outbox.is_some() => ConnectionHealth::Behind,
            State::Open => ConnectionHealth::Healthy,
        };
        let subscriptions = self.subscriptions.borrow();
        ConnectionInfo {
            connection_id: self.id,
            health,
            channels: subscriptions.iter().map(|subscription| subscription.channel.to_string()).collect(),
            connected_s: now.duration_since(self.opened).as_secs(),
            last_heard_s_ago: silence.as_secs(),
            messages_received: u64::from(self.received.get()),
            waiting_messages: outbox.as_ref().map_or(0, |outbox| outbox.messages()),
            waiting_bytes: outbox.as_ref().map_or(0, |outbox| outbox.bytes()),
        }
    }
}

/// Has a task polled again after the others, and after their sockets were looked at: waking it at once
/// would come before that.
pub(super) fn leave_turn_to_others(cx: &mut Context<'_>) {
    let _comes_again = pin!(task::yield_now()).poll(cx);
}

// An idle connection costs this, its subscription and its task. With the counts of its `Rc` it fills the
// allocator's class of 256 bytes; a byte more would be 64.
const _: () = assert!(size_of::<Connection>() <= 240);

/// How long a reader that was too slow, or that closed while frames waited, gets for the end.
const CLOSE_GRACE_SLOW: Duration = Duration::from_secs(5);
