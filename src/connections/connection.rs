//! One client's connection over a socket, or over something like one (`transport`). Frames are written
//! directly and without blocking (`sending`); a queue exists only while the client lags; one small task
//! reads, and writes what was left over (`task`); `allowance` limits what the client may send. This file
//! has the data, and closing.

mod allowance;
mod guest;
mod quota;
mod sending;
mod task;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;
use zonewire_protocol::stats::TransportKind;

use super::limits::{Admission, Source};
use super::outbox::{Outbox, OutboxLimits};
use super::stats::ShardStats;
use super::subscription::Subscription;
use super::transport::Transport;
use super::{ConnectionHealth, ConnectionInfo, ConnectionStory, Guest};
use crate::access::{Principal, now_s};
use crate::model::ChannelName;
use crate::protocol::{CloseCode, ServerMessage, close_frame, text_frame};
use crate::support::rate::Bucket;
use guest::Unauthenticated;
use quota::{Counted, Throttle};
pub(super) use task::yield_to_other_tasks;

/// The precision in which a connection remembers when it last heard from its client; 13 years fit.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// How long a client that was too slow, or that closed while frames waited, may take to finish.
const CLOSE_GRACE_SLOW: Duration = Duration::from_secs(5);

/// A client's connection. Lives on its shard's thread.
pub(super) struct Connection {
    pub(super) id: Uuid,
    stream: Transport,
    /// Exists only while the client lags.
    outbox: RefCell<Option<Box<Outbox>>>,
    waker: Cell<Option<Waker>>,
    /// Notified when only replaceable frames wait, or when the connection ends.
    drained: Notify,
    stats: Arc<ShardStats>,
    /// In nanoseconds since the shard began: small, like everything that each idle connection has.
    opened: u64,
    /// In ticks since `opened`.
    last_heard: Cell<u32>,
    received: Cell<u32>,
    /// What its client may still send.
    messages: Bucket,
    /// How many channels its client may still unsubscribe from.
    leaves: Bucket,
    pub(super) subscriptions: RefCell<SmallVec<[Rc<Subscription>; 1]>>,
    state: Cell<State>,
    /// Whether fast channels slow down for this client.
    pub(super) pacing: PacingCell,
    /// Its client's principal, if authentication is on.
    principal: Cell<Option<Arc<Principal>>>,
    /// When to notify its client that its token expires, in seconds since 1970; the maximum: never.
    notify_at: Cell<u32>,
    /// What not every connection needs.
    particulars: Option<Box<Particulars>>,
    /// Counts this connection in the limits until it is dropped.
    admission: Admission,
}

/// See [`Connection::particulars`]. Small, because with limits every connection has it.
#[derive(Default)]
struct Particulars {
    /// Its use of the limits of its principal and tenant.
    counted: Counted,
    rarities: OnceCell<Box<Rarities>>,
    /// Whether it sends back what it receives.
    #[cfg(test)]
    echoes: bool,
}

/// What few connections need.
#[derive(Default)]
struct Rarities {
    /// The order that it was opened on, and ends with.
    order: Option<ChannelName>,
    /// Present if its client had not authenticated when it connected.
    unauthenticated: Option<Unauthenticated>,
    throttle: Throttle,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Open,
    /// A close frame was sent or waits.
    Closing {
        code: CloseCode,
        /// The tick until which the client may answer, or read what waits.
        until: u32,
        /// The client's close frame was read, so nothing more is expected from it.
        peer_closed: bool,
    },
    /// The task ends when it is polled next.
    Ended(CloseCode),
}

/// See `Shard::until_eased`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pacing {
    /// Reads fast enough.
    None,
    /// Lags far; channels wait for it for a bounded time.
    Pressed,
    /// A channel waited for it without success, at this tick. Channels do not wait for it again for a
    /// while, and not before it has caught up.
    GivenUp(u32),
}

/// A [`Pacing`] in half the space. The least and the greatest value stand for no tick; ticks are clamped to
/// those between.
#[derive(Default)]
pub(super) struct PacingCell(Cell<u32>);

impl PacingCell {
    const PRESSED: u32 = u32::MAX;

    pub(super) fn get(&self) -> Pacing {
        match self.0.get() {
            0 => Pacing::None,
            Self::PRESSED => Pacing::Pressed,
            at => Pacing::GivenUp(at),
        }
    }

    pub(super) fn set(&self, pacing: Pacing) {
        self.0.set(match pacing {
            Pacing::None => 0,
            Pacing::Pressed => Self::PRESSED,
            Pacing::GivenUp(at) => at.clamp(1, Self::PRESSED - 1),
        });
    }
}

impl Connection {
    pub(super) fn new(
        stream: Transport,
        id: Uuid,
        admission: Admission,
        stats: Arc<ShardStats>,
        order: Option<ChannelName>,
        guest: Option<Guest>,
    ) -> Self {
        let (principal, seat) = guest.map(|guest| (guest.principal, guest.seat)).unzip();
        let seat = seat.flatten();
        let is_stranger = principal.as_ref().is_some_and(|principal| !principal.is_authenticated());
        let unauthenticated = is_stranger.then(Unauthenticated::default);
        let is_rare = order.is_some() || is_stranger;
        let rarities = is_rare.then(|| Box::new(Rarities { order, unauthenticated, ..Rarities::default() }));
        let has_some = is_rare || seat.is_some();
        let notify_at = principal.as_ref().map_or(u32::MAX, |principal| guest::notify_at(principal, now_s()));
        Self {
            principal: Cell::new(principal),
            notify_at: Cell::new(notify_at),
            particulars: has_some.then(|| {
                Box::new(Particulars {
                    counted: Counted::of(seat),
                    rarities: rarities.map(OnceCell::from).unwrap_or_default(),
                    #[cfg(test)]
                    echoes: false,
                })
            }),
            id,
            stream,
            outbox: RefCell::default(),
            waker: Cell::default(),
            drained: Notify::new(),
            opened: nanoseconds(stats.began.0.elapsed()),
            stats,
            last_heard: Cell::new(0),
            received: Cell::new(0),
            messages: Bucket::default(),
            leaves: Bucket::default(),
            subscriptions: RefCell::default(),
            state: Cell::new(State::Open),
            pacing: PacingCell::default(),
            admission,
        }
    }

    /// Makes it send back what it receives.
    #[cfg(test)]
    pub(super) fn that_echoes(mut self) -> Self {
        self.particulars = Some(Box::new(Particulars { echoes: true, ..Particulars::default() }));
        self
    }

    /// Whether it sends back what it receives, which is so in tests only.
    pub(super) fn echoes(&self) -> bool {
        #[cfg(test)]
        return self.particulars.as_ref().is_some_and(|particulars| particulars.echoes);
        #[cfg(not(test))]
        false
    }

    /// Whether entries and answers may still be sent.
    pub(super) fn is_open(&self) -> bool {
        self.state.get() == State::Open
    }

    /// Its subscription to a channel.
    pub(super) fn subscription(&self, channel: &ChannelName) -> Option<Rc<Subscription>> {
        self.subscriptions.borrow().iter().find(|subscription| subscription.channel == *channel).cloned()
    }

    fn rarities(&self) -> Option<&Rarities> {
        self.particulars.as_ref()?.rarities.get().map(|rarities| &**rarities)
    }

    /// The order that it was opened on, and ends with.
    pub(super) fn order(&self) -> Option<&ChannelName> {
        self.rarities()?.order.as_ref()
    }

    /// When it was opened.
    pub(super) fn opened(&self) -> Instant {
        self.stats.began.0 + Duration::from_nanos(self.opened)
    }

    /// When the order that it was opened on was completely sent.
    pub(super) fn finished_at(&self) -> Option<Instant> {
        self.subscription(self.order()?)?.finished_at()
    }

    /// Its finished subscriptions, and since when each is finished; without the one that it was opened for.
    pub(super) fn finished(&self) -> Vec<(Rc<Subscription>, Instant)> {
        let subscriptions = self.subscriptions.borrow();
        let others = subscriptions.iter().filter(|held| self.order() != Some(&held.channel));
        others.filter_map(|held| Some((Rc::clone(held), held.finished_at()?))).collect()
    }

    /// Whether it is an event stream, whose client cannot send requests.
    pub(super) fn is_stream(&self) -> bool {
        self.stream.events().is_some()
    }

    /// How long its client has been silent. The client of an event stream sends nothing; for it, reading
    /// counts.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        if let Some(pipe) = self.stream.events() {
            return pipe.untaken_for(now);
        }
        now.duration_since(self.opened()).saturating_sub(TICK * self.last_heard.get())
    }

    /// Does not count a period as silence in which the gateway could not read from the client.
    pub(super) fn excuse(&self, unheard: Duration) {
        if let Some(pipe) = self.stream.events() {
            return pipe.excuse();
        }
        let ticks = u32::try_from(unheard.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        // While reading is delayed, `last_heard` lies in the future, and stays there.
        let heard = self.last_heard.get();
        self.last_heard.set(heard.max(heard.saturating_add(ticks).min(self.ticks())));
    }

    /// Ticks since this connection opened.
    pub(super) fn ticks(&self) -> u32 {
        u32::try_from(self.opened().elapsed().as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
    }

    /// The first tick at or after this time from now.
    pub(super) fn tick_after(&self, time: Duration) -> u32 {
        let until = self.opened().elapsed().saturating_add(time).as_millis().div_ceil(TICK.as_millis());
        u32::try_from(until).unwrap_or(u32::MAX)
    }

    /// Frames that wait and that nothing may replace.
    pub(super) fn waiting_frames(&self) -> usize {
        self.outbox.borrow().as_ref().map_or(0, |outbox| outbox.unreplaceable())
    }

    /// The source of the connection; `None` if a proxy does not name it.
    pub(super) fn source(&self) -> Option<Source> {
        self.admission.source()
    }

    pub(super) fn is_behind(&self) -> bool {
        self.outbox.borrow().is_some()
    }

    /// Whether the socket has accepted everything that was to be sent.
    fn has_sent_all(&self) -> bool {
        !self.is_behind() && !self.stream.has_unsent()
    }

    /// Waits until all frames that nothing may replace have been written, or the connection is closing.
    /// Replaceable frames do not count: a slow client may always have some waiting.
    pub(super) async fn until_drained(&self) {
        while self.is_open() && self.waiting_frames() > 0 {
            self.drained.notified().await;
        }
    }

    // Ending

    /// Sends `closing` and a close frame; the client has `grace` to answer. Does nothing if the connection
    /// is already closing.
    pub(super) fn close(&self, code: CloseCode, retry_after_ms: u64, grace: Duration) {
        if !self.is_open() {
            return;
        }
        if code == CloseCode::SlowConsumer {
            // The frames that wait would only delay the close; the client resumes from its last position.
            let dropped = self.outbox.borrow_mut().as_mut().map_or(0, |outbox| outbox.abandon());
            self.stats.messages.dropped_by_reason.slow_consumer.add(dropped as u64);
        }
        let mut frames = Vec::new();
        if !self.echoes() {
            text_frame(
                &ServerMessage::closing(code, retry_after_ms, chrono::Utc::now()).to_json(),
                &mut frames,
            );
        }
        close_frame(code, &mut frames);
        let unbounded = OutboxLimits { frames: usize::MAX, bytes: usize::MAX };
        self.write_or_queue(frames.into(), None, unbounded);
        if !matches!(self.state.get(), State::Ended(_)) {
            self.state.set(State::Closing { code, until: self.tick_after(grace), peer_closed: false });
        }
        self.drained.notify_waiters();
        self.wake();
    }

    /// Ends the task if the client's time to answer a close is over.
    pub(super) fn end_if_overdue(&self) {
        if let State::Closing { code, until, .. } = self.state.get()
            && self.ticks() >= until
        {
            self.end(code);
        }
    }

    /// Makes the task end when it is polled next, whatever is unsent.
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

    fn code_or(&self, otherwise: CloseCode) -> CloseCode {
        match self.state.get() {
            State::Open => otherwise,
            State::Closing { code, .. } | State::Ended(code) => code,
        }
    }

    /// The closing handshake is complete: ends the connection once what waits (our answer) has been sent.
    /// `code` is the reason, unless the gateway closed it.
    pub(super) fn peer_has_closed(&self, code: CloseCode) {
        if self.has_sent_all() {
            return self.end(self.code_or(code));
        }
        let (code, until) = match self.state.get() {
            State::Open => (code, self.tick_after(CLOSE_GRACE_SLOW)),
            State::Closing { code, until, .. } => (code, until),
            State::Ended(_) => return,
        };
        self.state.set(State::Closing { code, until, peer_closed: true });
    }

    // Statistics

    pub(super) fn count_message(&self) {
        self.received.set(self.received.get().saturating_add(1));
        self.stats.messages.received.add(1);
    }

    /// Messages received.
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
            health: health.into(),
            channels: subscriptions.iter().map(|subscription| subscription.channel.to_string()).collect(),
            connected_s: now.duration_since(self.opened()).as_secs(),
            last_heard_s_ago: silence.as_secs(),
            messages_received: u64::from(self.received.get()),
            waiting_messages: outbox.as_ref().map_or(0, |outbox| outbox.messages()),
            waiting_bytes: outbox.as_ref().map_or(0, |outbox| outbox.bytes()),
            transport: if self.is_stream() { TransportKind::Events } else { TransportKind::WebSocket }.into(),
            subject: self.subject(),
        }
    }

    /// Everything that this shard knows about it.
    pub(super) fn story(&self, heartbeat: Duration) -> ConnectionStory {
        let now = Instant::now();
        let lasted = chrono::TimeDelta::from_std(now.duration_since(self.opened())).unwrap_or_default();
        let closing = match self.state.get() {
            State::Open => None,
            State::Closing { code, .. } | State::Ended(code) => Some(code.reason().to_owned()),
        };
        ConnectionStory {
            info: self.info(now, heartbeat),
            // Filled in by the caller.
            node: String::new(),
            connected_at: chrono::Utc::now() - lasted,
            source: self.admission.source().map(|source| source.to_string()),
            opened_on: self.order().map(ToString::to_string),
            token_expires_at: self.token_expires_at(),
            rights: self
                .principal()
                .map(|principal| principal.rights().iter().map(ToString::to_string).collect()),
            waited_for: self.pacing.get() == Pacing::Pressed,
            closing,
            subscriptions: self.subscriptions.borrow().iter().map(|held| held.info()).collect(),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

// The cost of an idle connection, in addition to its subscription and its task. With the counters of its
// `Rc`, it exactly fills the allocator's size class of 256 bytes; one more byte would cost 64.
const _: () = assert!(size_of::<Connection>() <= 240);
// The additional cost with limits.
#[cfg(not(test))]
const _: () = assert!(size_of::<Particulars>() <= 32);
