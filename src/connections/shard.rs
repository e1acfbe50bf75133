//! One thread's connections: sends entries to them, answers their clients, and sends heartbeats.

mod fan_out;
mod guests;
mod requests;
#[cfg(test)]
mod tests;
mod throttled;

use std::cell::{Cell, RefCell};
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::future;
use std::mem;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use slab::Slab;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::behind::{Behind, SeenBehind};
use super::config::ConnectionsConfig;
use super::connection::{Connection, Pacing};
use super::events::{EventPipe, Wanted};
use super::intake::Intake;
use super::limits::{Admission, Limit};
use super::manager::Listing;
use super::outbox::{OutboxLimits, Replaces};
use super::socket::Socket;
use super::stats::ShardStats;
use super::subscription::Subscription;
use super::transport::Transport;
use super::{ConnectionInfo, ConnectionStory, Guest};
use crate::access::{Action, Gate, Refused, now_s};
use crate::channels::{Asked, Channels, Delivery};
use crate::model::{ChannelName, OrderId, Position, Zone};
use crate::protocol::{
    self, Authentication, BackendStateMessage, CloseCode, Connection as ConnectionMessage,
    ConnectionEstablished, ErrorCode, Heartbeat, PROTOCOL_VERSION, ServerMessage, ping_frame, text_frame,
};
use crate::storage::{Scope, StatusReader, StorageStatus};
use crate::support::chance::Hashing;
use crate::support::panics::{Vital, contain, contain_now};
use fan_out::Followed;
pub(super) use requests::{Heard, Refusal, Request};
use throttled::Throttled;

/// The longest time between two sweeps, which look for silent clients and unanswered closes. Each sweep
/// also sends heartbeats to a part of the connections.
const SWEEP_MAX: Duration = Duration::from_secs(1);

/// Over how many sweeps the heartbeats of an interval are spread, or more if the interval is long.
const SWEEPS_MIN: u32 = 30;

/// How many connections are written to before the task yields.
const TURN_WRITES: usize = 256;

/// How many connections are checked before the task yields.
const TURN_LOOKS: usize = 2_048;

/// If a sweep is late by this much, the process stood still (it was stopped, or starved) and heard nobody,
/// so that time does not count as the clients' silence.
const STANDSTILL: Duration = Duration::from_secs(1);

/// The retry hint of closes that concern only one connection.
pub(super) const RETRY_AFTER_MS: u64 = 1_000;

/// The most channels named in one `backend_state`.
const CHANNELS_NAMED: usize = 100;

/// What a new connection is opened for.
#[derive(Debug)]
pub(crate) enum Opening {
    /// Nothing: the client sends `subscribe`.
    Nothing,
    /// The zone of `/ws/market/{zone}`, from the next entry on, or after a position; with `snapshot`,
    /// beginning with a snapshot if something would be missing.
    Market { zone: Zone, since: Option<Position>, snapshot: bool },
    /// The order of `/ws/orders/{orderId}`, from the oldest update in the log, or after a position. The
    /// connection ends some time after the order.
    Order { order: OrderId, since: Option<Position> },
    /// Events, as if `subscribe` had asked for each of these.
    Several(Vec<Wanted>),
    /// The channels of an event stream. Its client cannot subscribe to more, so it ends when no
    /// subscription is left.
    Channels(Vec<Wanted>),
    /// The address is malformed: the client is sent an error, and must not reconnect.
    BadAddress { code: ErrorCode, message: String },
    /// The credential is invalid: the client is sent an error, and the connection is closed.
    Unauthorized(Refused),
    /// A limit refuses the connection: it is closed, and the client may reconnect later.
    TurnedAway(Limit),
    /// For tests: the connection sends back what it receives, and nothing else.
    #[cfg(test)]
    Echo,
}

impl Opening {
    /// The channel of the zone or the order that the connection is opened on.
    fn channel(&self) -> Option<ChannelName> {
        match self {
            Self::Market { zone, .. } => Some(ChannelName::zone(zone)),
            Self::Order { order, .. } => Some(ChannelName::order(*order)),
            _ => None,
        }
    }
}

/// A connection that a shard takes over.
pub(crate) enum Arriving {
    /// A WebSocket, once its upgrade response has been sent.
    Upgrade(OnUpgrade),
    /// An event stream.
    Events(EventPipe),
}

/// What a shard is asked to do, besides sending entries.
pub(super) enum Command {
    /// Take over a connection.
    Adopt { arriving: Arriving, opening: Opening, guest: Option<Guest>, admission: Admission },
    /// Close one connection; the answer is whether it is here.
    Disconnect { id: Uuid, code: CloseCode, answer: oneshot::Sender<bool> },
    /// Return these connections, and the subscribers of each zone.
    Inspect { listing: Listing, answer: oneshot::Sender<Inspection> },
    /// Return how many subscribers each zone has.
    ByZone { answer: oneshot::Sender<Vec<(ChannelName, usize)>> },
    /// Return everything about one connection, if it is here.
    Look { id: Uuid, answer: oneshot::Sender<Option<Box<ConnectionStory>>> },
    /// Return which of these connections are here.
    Among { asked: Arc<HashSet<Uuid>>, answer: oneshot::Sender<Vec<Uuid>> },
    /// Close all connections, spread over this time, and then end.
    Drain { window: Duration },
}

/// What a shard reports about itself.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    pub(super) connections: Vec<ConnectionInfo>,
    /// Whether more connections match the request.
    pub(super) has_more: bool,
    pub(super) by_zone: Vec<(ChannelName, usize)>,
    pub(super) longest_open: Duration,
}

/// One thread's connections.
pub(super) struct Shard {
    pub(super) index: usize,
    pub(super) config: ConnectionsConfig,
    pub(super) limits: OutboxLimits,
    pub(super) channels: Channels,
    pub(super) stats: Arc<ShardStats>,
    pub(super) status: StatusReader,
    gate: Arc<Gate>,
    behind: Arc<Behind>,
    is_behind_bounded: bool,
    seen_behind: RefCell<SeenBehind>,
    connections: RefCell<Slab<Rc<Connection>>>,
    followed: RefCell<HashMap<ChannelName, Rc<Followed>, Hashing>>,
    /// For each connection that replays, the permit that one subscription at a time holds.
    replaying: RefCell<HashMap<Uuid, Arc<Semaphore>>>,
    /// The storage's state that was last sent to the clients here.
    sent_status: RefCell<StorageStatus>,
    /// Notifies paced channels that a connection is no longer waited for.
    eased: Notify,
    throttled: Throttled,
    /// Whether there may be finished subscriptions.
    pub(super) has_finished: Cell<bool>,
    draining: Cell<Option<Duration>>,
    /// Sockets that were handed over and whose upgrade response has not been sent yet.
    upgrading: Cell<usize>,
    gone: Notify,
}

/// The permit of a subscription that replays, until dropped.
pub(super) struct ReplayPlace {
    shard: Rc<Shard>,
    connection: Uuid,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for ReplayPlace {
    fn drop(&mut self) {
        self.permit = None;
        let mut replaying = self.shard.replaying.borrow_mut();
        // Another subscription that waits for the permit holds a reference to the semaphore, too.
        if replaying.get(&self.connection).is_some_and(|places| Arc::strong_count(places) == 1) {
            replaying.remove(&self.connection);
        }
    }
}

impl Shard {
    pub(super) fn new(
        index: usize,
        config: ConnectionsConfig,
        channels: Channels,
        stats: Arc<ShardStats>,
        status: StatusReader,
        gate: Arc<Gate>,
        behind: Arc<Behind>,
    ) -> Rc<Self> {
        Rc::new(Self {
            index,
            limits: OutboxLimits { frames: config.outbox_frames_max, bytes: config.outbox_bytes_max },
            config,
            channels,
            stats,
            sent_status: RefCell::new(status.get()),
            status,
            is_behind_bounded: behind.is_on(gate.quotas()),
            behind,
            seen_behind: RefCell::default(),
            gate,
            connections: RefCell::default(),
            followed: RefCell::default(),
            replaying: RefCell::default(),
            eased: Notify::new(),
            throttled: Throttled::default(),
            has_finished: Cell::new(false),
            draining: Cell::new(None),
            upgrading: Cell::new(0),
            gone: Notify::new(),
        })
    }

    /// Serves until it has been drained, or until `stop`. Must run on a `LocalSet`.
    pub(super) async fn run(
        self: Rc<Self>,
        mut live: mpsc::Receiver<Delivery>,
        mut commands: mpsc::Receiver<Command>,
        vital: &Vital,
        stop: CancellationToken,
    ) {
        let on = Rc::clone(&self);
        // On a task of its own, so that the fan-out and the commands need not wait for each other to yield.
        let fan_out = async move { on.fan_out_all(&mut live).await };
        let fan_out = task::spawn_local(vital.guard("fan-out", fan_out));
        let period = (self.heartbeat_interval() / SWEEPS_MIN).min(SWEEP_MAX);
        let sweeps =
            usize::try_from(self.heartbeat_interval().as_millis() / period.as_millis()).unwrap_or(usize::MAX);
        let mut sweep = time::interval(period);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sending = pin!(self.send_status_changes());
        let mut checking = pin!(self.check_clients());
        let mut releasing = pin!(self.throttled.release_all());
        let mut swept_at = Instant::now();
        // The first heartbeats come half an interval after the start, not amid the greetings.
        let mut step = sweeps / 2;
        loop {
            // A socket whose upgrade is in progress counts too: it is greeted and then closed.
            let drained = self.draining.get().is_some()
                && self.connections.borrow().is_empty()
                && self.upgrading.get() == 0
                && commands.is_empty();
            if drained {
                break;
            }
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command, &stop),
                    None => break,
                },
                _ = sweep.tick() => {
                    let now = Instant::now();
                    let late = (now - mem::replace(&mut swept_at, now)).saturating_sub(period);
                    self.sweep(step, sweeps, late).await;
                    step = (step + 1) % sweeps;
                }
                () = &mut sending => {}
                () = &mut checking => {}
                () = &mut releasing => {}
                () = self.gone.notified() => {}
                () = stop.cancelled() => break,
            }
        }
        commands.close();
        fan_out.abort();
        self.connections.borrow().iter().for_each(|(_, connection)| connection.end(CloseCode::ShuttingDown));
        self.stats.tasks.close();
        self.stats.tasks.wait().await;
    }

    /// Spawns a task that shutdown waits for. A panic in it ends only the task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let stats = Arc::clone(&self.stats);
        let contained = async move {
            let _panicked = contain(task, &stats.messages.panics).await;
        };
        task::spawn_local(self.stats.tasks.track_future(contained));
    }

    /// Spawns a task for a subscription. If it panics, the connection ends too.
    pub(super) fn spawn_for(&self, connection: &Rc<Connection>, task: impl Future<Output = ()> + 'static) {
        let (connection, stats) = (Rc::clone(connection), Arc::clone(&self.stats));
        let contained = async move {
            if contain(task, &stats.messages.panics).await.is_none() {
                connection.end(CloseCode::Abnormal);
            }
        };
        task::spawn_local(self.stats.tasks.track_future(contained));
    }

    /// Waits until no other subscription of the connection replays.
    pub(super) async fn place_to_replay(self: &Rc<Self>, connection: &Connection) -> ReplayPlace {
        let one = || Arc::new(Semaphore::new(1));
        let places = Arc::clone(self.replaying.borrow_mut().entry(connection.id).or_insert_with(one));
        let permit = places.acquire_owned().await.ok();
        ReplayPlace { shard: Rc::clone(self), connection: connection.id, permit }
    }

    fn heartbeat_interval(&self) -> Duration {
        Duration::from_secs(self.config.heartbeat_interval_s)
    }

    // Connections

    fn on_command(self: &Rc<Self>, command: Command, stop: &CancellationToken) {
        match command {
            Command::Adopt { arriving: Arriving::Events(pipe), opening, guest, admission } => {
                let stream = Transport::Events(Box::new(pipe));
                self.adopt(stream, Bytes::new(), opening, guest, admission);
            }
            Command::Adopt { arriving: Arriving::Upgrade(upgrade), opening, guest, admission } => {
                let shard = Rc::clone(self);
                let upgraded = stop.clone().run_until_cancelled_owned(upgrade);
                let upgrading = Upgrading::begin(&shard);
                self.spawn(async move {
                    // A separate task for the connection, so that hyper's buffers are freed with this one.
                    let upgraded = upgraded.await;
                    match upgraded.map(|ended| ended.map(|upgraded| upgraded.downcast::<TokioIo<Socket>>())) {
                        Some(Ok(Ok(parts))) => match parts.io.into_inner().into_transport() {
                            Some(stream) => {
                                shard.adopt(stream, parts.read_buf, opening, guest, admission);
                            }
                            None => debug!("an upgraded connection is still being observed"),
                        },
                        Some(Ok(Err(_))) => debug!("an upgraded connection is not a socket"),
                        Some(Err(error)) => {
                            debug!(error = %error, "a client disconnected during its upgrade")
                        }
                        None => debug!("the shard stopped during an upgrade"),
                    }
                    drop(upgrading);
                });
            }
            Command::Disconnect { id, code, answer } => {
                let found = self.find(id);
                found.iter().for_each(|connection| self.close(connection, code));
                reply(answer, found.is_some(), "the outcome of a disconnect");
            }
            Command::Inspect { listing, answer } => {
                let shard = Rc::clone(self);
                self.spawn(async move {
                    reply(answer, shard.inspect(&listing).await, "an inspection");
                });
            }
            Command::ByZone { answer } => reply(answer, self.by_zone(), "the subscribers of zones"),
            Command::Look { id, answer } => {
                let story = self.find(id).map(|connection| connection.story(self.heartbeat_interval()));
                reply(answer, story.map(Box::new), "a connection's details");
            }
            Command::Among { asked, answer } => {
                let connections = self.connections.borrow();
                let ids = connections.iter().map(|(_, connection)| connection.id);
                let here = ids.filter(|id| asked.contains(id)).collect();
                reply(answer, here, "the list of connections here");
            }
            Command::Drain { window } => self.drain(window),
        }
    }

    fn present(&self) -> Vec<Weak<Connection>> {
        self.connections.borrow().iter().map(|(_, connection)| Rc::downgrade(connection)).collect()
    }

    fn find(&self, id: Uuid) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        connections.iter().find(|(_, connection)| connection.id == id).map(|(_, found)| Rc::clone(found))
    }

    /// Takes over a connection. `guest` is `None` if authentication is off.
    fn adopt(
        self: &Rc<Self>,
        stream: Transport,
        left_over: Bytes,
        opening: Opening,
        guest: Option<Guest>,
        admission: Admission,
    ) {
        // Rights may have changed during the upgrade, and only registered connections were checked then.
        let (guest, opening) = match guest {
            Some(guest) => {
                let (principal, opening) = self.checked_again(guest.principal, opening);
                (Some(Guest { principal, ..guest }), opening)
            }
            None => (None, opening),
        };
        let (source, channel) = (admission.source().map(tracing::field::display), opening.channel());
        let opened_on = channel.as_ref().map(ChannelName::subject);
        let id = Uuid::new_v4();
        debug!(conn.id = %id, source, opened_on, shard = self.index, "connection opened");
        let (stats, order) =
            (Arc::clone(&self.stats), channel.filter(|channel| channel.as_order().is_some()));
        let connection = Connection::new(stream, id, admission, stats, order, guest);
        #[cfg(test)]
        let connection = if matches!(opening, Opening::Echo) { connection.that_echoes() } else { connection };
        let connection = Rc::new(connection);
        let slot = self.connections.borrow_mut().insert(Rc::clone(&connection));
        self.stats.opened.add(1);
        self.stats.streams_opened.add(u64::from(connection.is_stream()));
        let mut intake = Intake::default();
        let begin = || {
            self.greet(&connection, opening);
            if let Some(window) = self.draining.get() {
                connection.close(CloseCode::ShuttingDown, hint(window), self.close_grace());
            }
            // Bytes that arrived together with the request.
            intake.take(&connection, self, &left_over);
        };
        if contain_now(begin, &self.stats.messages.panics).is_none() {
            connection.end(CloseCode::Abnormal);
        }
        let shard = Rc::clone(self);
        let serving = async move {
            // By reference, because a value moved into a future takes its space twice.
            let code = contain(connection.run(&shard, &mut intake), &shard.stats.messages.panics).await;
            shard.remove(slot, &connection, code.unwrap_or(CloseCode::Abnormal));
        };
        task::spawn_local(self.stats.tasks.track_future(serving));
    }

    /// Sends the first message, and makes the subscription that the connection was opened for, or closes
    /// it.
    fn greet(self: &Rc<Self>, connection: &Rc<Connection>, opening: Opening) {
        match &opening {
            Opening::Unauthorized(refused) => {
                self.send_error(connection, None, None, (ErrorCode::InvalidToken, refused.to_string()));
                return match refused {
                    // The certificate may still be valid.
                    Refused::AuthorityWithdrawn => {
                        self.close_for(connection, CloseCode::TokenExpired, spread_retry_ms())
                    }
                    _ => self.close(connection, CloseCode::Unauthorized),
                };
            }
            Opening::BadAddress { code, message } => {
                self.send_error(connection, None, None, (*code, message.clone()));
                return self.close(connection, CloseCode::BadRequest);
            }
            Opening::TurnedAway(limit) => {
                return self.close_for(connection, limit.close_code(), limit.retry_after_ms());
            }
            _ => {}
        }
        if connection.echoes() {
            return;
        }
        connection.send_message(&self.greeting(connection, opening.channel().as_ref()), self.limits);
        self.begin(connection, opening);
    }

    /// Makes the subscription that a connection was opened for, if its client has the right to it.
    fn begin(self: &Rc<Self>, connection: &Rc<Connection>, opening: Opening) {
        let Some(opening) = self.authorize(connection, opening) else { return };
        let wanted = match opening {
            Opening::Market { zone, since, snapshot } => {
                Wanted { channel: ChannelName::zone(&zone), since, snapshot }
            }
            Opening::Order { order, since } => {
                Wanted { channel: ChannelName::order(order), since, snapshot: false }
            }
            Opening::Several(wanted) => return self.begin_several(connection, wanted),
            // The client's rights were checked when the stream was opened.
            Opening::Channels(wanted) => {
                let is_for_some = !wanted.is_empty();
                for wanted in wanted {
                    self.begin_one(connection, wanted);
                }
                if is_for_some {
                    self.end_if_bare(connection, CloseCode::TooManyConnections);
                }
                return;
            }
            _ => return,
        };
        if !self.begin_one(connection, wanted) {
            self.close_for(connection, CloseCode::TooManyConnections, spread_retry_ms());
        }
    }

    /// Makes a subscription and returns true, or sends an error because the principal has too many.
    fn begin_one(self: &Rc<Self>, connection: &Rc<Connection>, wanted: Wanted) -> bool {
        let Wanted { channel, since, snapshot } = wanted;
        if let Err(over) = connection.hold_subscription() {
            self.send_error(connection, None, Some(channel.as_str()), Refusal::too_many_subscriptions(over));
            return false;
        }
        let asked = Asked::of(&channel, since, snapshot);
        self.subscribe(connection, channel, asked, None);
        true
    }

    /// Makes subscriptions, each if its client has the right to it.
    fn begin_several(self: &Rc<Self>, connection: &Rc<Connection>, wanted: Vec<Wanted>) {
        for wanted in wanted {
            match connection.may(Action::Subscribe, &wanted.channel) {
                Ok(()) => {
                    self.begin_one(connection, wanted);
                }
                Err(denied) => self.send_error(connection, None, Some(wanted.channel.as_str()), denied),
            }
        }
    }

    /// Ends an event stream without subscriptions left.
    pub(in crate::connections) fn end_if_bare(&self, connection: &Connection, code: CloseCode) {
        if connection.is_stream() && connection.subscriptions.borrow().is_empty() {
            self.close_for(connection, code, spread_retry_ms());
        }
    }

    /// The first message of a connection, which was opened on a channel or on none.
    fn greeting(&self, connection: &Connection, channel: Option<&ChannelName>) -> ServerMessage {
        let status = self.sent_status.borrow();
        let connection_id = connection.id;
        let authentication = connection.principal().map(|_| match self.gate.is_optional() {
            true => Authentication::Optional.into(),
            false => Authentication::Required.into(),
        });
        let (subject, token_expires_at) = (connection.subject(), connection.token_expires_at());
        let (storage_backend, state) = (status.backend.into(), status.state.into());
        let heartbeat_interval_ms = self.config.heartbeat_interval_s * 1_000;
        let (protocol, timestamp) = (PROTOCOL_VERSION, Utc::now());
        if let Some(order_id) = channel.and_then(ChannelName::as_order) {
            return ServerMessage::Connection(ConnectionMessage {
                connection_id,
                order_id,
                storage_backend,
                state,
                heartbeat_interval_ms,
                protocol,
                authentication,
                subject,
                token_expires_at,
                timestamp,
                message: "Connected to order status stream".to_owned(),
            });
        }
        let market_zone = channel.map(|channel| channel.subject().to_owned());
        let message = match &market_zone {
            Some(zone) => format!("Connected to {zone} market updates"),
            None if connection.is_stream() => "Connected to a stream of events".to_owned(),
            None => "Connected; subscribe to channels such as zone:pjm".to_owned(),
        };
        ServerMessage::ConnectionEstablished(ConnectionEstablished {
            connection_id,
            market_zone,
            storage_backend,
            state,
            heartbeat_interval_ms,
            protocol,
            authentication,
            subject,
            token_expires_at,
            timestamp,
            message,
        })
    }

    fn remove(self: &Rc<Self>, slot: usize, connection: &Rc<Connection>, code: CloseCode) {
        let subscriptions: Vec<Rc<Subscription>> =
            connection.subscriptions.borrow().iter().cloned().collect();
        for subscription in &subscriptions {
            self.unsubscribe(subscription);
        }
        self.connections.borrow_mut().remove(slot);
        self.seen_behind.borrow_mut().forget(connection.id);
        let pacing = connection.pacing.get();
        connection.pacing.set(Pacing::None);
        if pacing == Pacing::Pressed {
            self.eased.notify_waiters();
        }
        self.stats.streams_ended.add(u64::from(connection.is_stream()));
        let lasted = connection.opened().elapsed();
        self.stats.count_close(code, lasted);
        debug!(
            conn.id = %connection.id, code = code.number(), reason = code.reason(), lasted_s = lasted.as_secs_f64(),
            received = connection.received(), subscriptions = subscriptions.len(), "connection closed"
        );
        if self.draining.get().is_some() {
            self.gone.notify_one();
        }
    }

    /// Tells the client why, and closes the connection.
    pub(super) fn close(&self, connection: &Connection, code: CloseCode) {
        self.close_for(connection, code, RETRY_AFTER_MS);
    }

    /// Like `close`, with a retry delay.
    pub(super) fn close_for(&self, connection: &Connection, code: CloseCode, retry_after_ms: u64) {
        connection.close(code, retry_after_ms, self.close_grace());
    }

    /// Closes a connection whose order has ended, once everything was sent and the linger time is over.
    /// What waits in its outbox is sent first, as fast as the client reads, or until it has been silent for
    /// too long.
    pub(super) fn close_if_finished(&self, connection: &Connection, now: Instant) {
        let linger = Duration::from_millis(self.config.order_linger_ms);
        let is_due = connection.finished_at().is_some_and(|at| now.duration_since(at) >= linger);
        if is_due && !connection.is_behind() {
            self.close(connection, CloseCode::Normal);
        }
    }

    fn close_grace(&self) -> Duration {
        Duration::from_millis(self.config.close_grace_ms)
    }

    /// Calls `act` for all connections, a part at a time; `act` returns whether it did more than a check.
    /// Connections that are added meanwhile may be left out.
    async fn each_connection(&self, mut act: impl FnMut(usize, &Rc<Connection>) -> bool) {
        let mut slot = 0;
        loop {
            {
                let connections = self.connections.borrow();
                let (mut writes, until) = (0, connections.capacity().min(slot + TURN_LOOKS));
                while slot < until && writes < TURN_WRITES {
                    if let Some(connection) = connections.get(slot) {
                        writes += usize::from(act(slot, connection));
                    }
                    slot += 1;
                }
                if slot >= connections.capacity() {
                    return;
                }
            }
            task::yield_now().await;
        }
    }

    async fn inspect(&self, listing: &Listing) -> Inspection {
        let now = Instant::now();
        let mut found = Inspection::default();
        let zone = listing.zone.as_ref().map(ChannelName::zone);
        // The smallest ids so far, with the greatest of them on top.
        let mut first: BinaryHeap<(Uuid, usize)> = BinaryHeap::new();
        self.each_connection(|slot, connection| {
            found.longest_open = found.longest_open.max(now.saturating_duration_since(connection.opened()));
            let is_wanted = listing.max > 0
                && listing.after.is_none_or(|after| connection.id > after)
                && zone.as_ref().is_none_or(|zone| connection.subscription(zone).is_some());
            if is_wanted {
                first.push((connection.id, slot));
            }
            if first.len() > listing.max {
                first.pop();
                found.has_more = true;
            }
            false
        })
        .await;
        for some in first.into_sorted_vec().chunks(TURN_WRITES) {
            {
                let connections = self.connections.borrow();
                let there = some.iter().filter_map(|(id, slot)| {
                    connections.get(*slot).filter(|connection| connection.id == *id)
                });
                let interval = self.heartbeat_interval();
                found.connections.extend(there.map(|connection| connection.info(now, interval)));
            }
            task::yield_now().await;
        }
        found.by_zone = self.by_zone();
        found
    }

    /// How many subscribers each zone has.
    fn by_zone(&self) -> Vec<(ChannelName, usize)> {
        let followed = self.followed.borrow();
        let listed = followed.iter().filter(|(_, followed)| followed.policy.is_listed);
        listed.map(|(channel, f)| (channel.clone(), f.subscriptions.borrow().len())).collect()
    }

    // Heartbeat

    /// Sends heartbeats to the part of the connections that is next, and closes all that have been silent
    /// or closing for too long. `late` is the delay of this sweep.
    async fn sweep(self: &Rc<Self>, step: usize, sweeps: usize, late: Duration) {
        let now = Instant::now();
        let silence_max = Duration::from_secs(self.config.silence_timeout_s);
        let stood_still = late >= STANDSTILL;
        if stood_still {
            warn!(
                shard = self.index,
                seconds = late.as_secs_f64(),
                "the process stood still; its clients get that much more time"
            );
        }
        let mut frames = Vec::new();
        ping_frame(&mut frames);
        text_frame(&ServerMessage::Heartbeat(Heartbeat { timestamp: Utc::now() }).to_json(), &mut frames);
        let frames = Bytes::from(frames);
        let (has_finished, now_s) = (self.has_finished.take(), now_s());
        self.each_connection(|slot, connection| {
            if stood_still {
                connection.excuse(late);
            }
            connection.end_if_overdue();
            self.close_if_finished(connection, now);
            self.check_client(connection, now_s);
            if has_finished {
                self.end_finished(connection, now);
            }
            if self.is_behind_bounded
                && self.seen_behind.borrow_mut().look_at(connection, now, &self.behind, self.gate.quotas())
            {
                self.close_for(connection, CloseCode::SlowConsumer, spread_retry_ms());
                return true;
            }
            if connection.silence(now) > silence_max {
                self.close(connection, CloseCode::HeartbeatTimeout);
                return true;
            }
            let is_due = slot % sweeps == step;
            if is_due {
                connection.send(frames.clone(), Some(Replaces::Heartbeat), self.limits);
            }
            is_due
        })
        .await;
    }

    /// Sends the storage's state to all connections whenever it changes. Never returns.
    async fn send_status_changes(&self) {
        let mut status = self.status.clone();
        while status.changed().await {
            self.send_status().await;
        }
        future::pending().await
    }

    /// Sends the state to each connection once. Connections that are added meanwhile have been greeted with
    /// the new state.
    async fn send_status(&self) {
        let status = self.status.get();
        if *self.sent_status.borrow() == status {
            return;
        }
        self.sent_status.replace(status.clone());
        let there = self.present();
        let to_all = backend_state(&status, None);
        for some in there.chunks(TURN_WRITES) {
            for connection in some.iter().filter_map(Weak::upgrade) {
                let frame = match &status.scope {
                    Scope::All => to_all.clone(),
                    Scope::Some(_) => {
                        let subscriptions = connection.subscriptions.borrow();
                        backend_state(&status, Some(&subscriptions))
                    }
                };
                connection.send(frame, None, self.limits);
            }
            task::yield_now().await;
        }
    }

    /// Closes all connections, each at its own moment within the window.
    fn drain(self: &Rc<Self>, window: Duration) {
        self.draining.set(Some(window));
        let connections = self.present();
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        let grace = self.close_grace();
        // Not tracked: if all connections leave by themselves, there is nothing to wait for.
        task::spawn_local(async move {
            let begun = Instant::now();
            for (place, connection) in (0u32..).zip(&connections) {
                time::sleep_until(begun + window * place / count.max(1)).await;
                if let Some(connection) = connection.upgrade() {
                    connection.close(CloseCode::ShuttingDown, hint(window), grace);
                }
            }
        });
    }
}

/// A socket that was handed over and whose upgrade response has not been sent yet.
struct Upgrading(Rc<Shard>);

impl Upgrading {
    fn begin(shard: &Rc<Shard>) -> Self {
        shard.upgrading.set(shard.upgrading.get() + 1);
        Self(Rc::clone(shard))
    }
}

impl Drop for Upgrading {
    fn drop(&mut self) {
        self.0.upgrading.set(self.0.upgrading.get() - 1);
        if self.0.draining.get().is_some() {
            self.0.gone.notify_one();
        }
    }
}

/// Sends a caller its answer.
fn reply<T>(answer: oneshot::Sender<T>, value: T, what: &str) {
    if answer.send(value).is_err() {
        debug!("the caller no longer waits for {what}");
    }
}

/// The storage's state, for everybody, or for a connection with these subscriptions.
fn backend_state(status: &StorageStatus, subscriptions: Option<&[Rc<Subscription>]>) -> Bytes {
    let concerned: Option<Vec<&ChannelName>> = match (&status.scope, subscriptions) {
        (Scope::Some(concerned), Some(subscriptions)) => {
            let channels = subscriptions.iter().map(|subscription| &subscription.channel);
            Some(channels.filter(|channel| concerned.has(channel)).collect())
        }
        _ => None,
    };
    let named =
        |channels: &Vec<&ChannelName>| channels.iter().take(CHANNELS_NAMED).copied().cloned().collect();
    let message = ServerMessage::BackendState(BackendStateMessage {
        storage_backend: status.backend.into(),
        state: status.state.into(),
        since: status.since,
        scope: match status.scope {
            Scope::All => protocol::Scope::All.into(),
            Scope::Some(_) => protocol::Scope::Some.into(),
        },
        channels: concerned.as_ref().map(named),
        more_channels: concerned.as_ref().map_or(0, |channels| channels.len().saturating_sub(CHANNELS_NAMED)),
        reason: Some(status.reason_for_clients().to_owned()),
        timestamp: Utc::now(),
    });
    let mut frame = Vec::new();
    text_frame(&message.to_json(), &mut frame);
    frame.into()
}

/// The retry delay if many clients are closed or refused: spread, so that not all reconnect at once.
pub(crate) fn spread_retry_ms() -> u64 {
    RETRY_AFTER_MS + spread_ms()
}

fn spread_ms() -> u64 {
    rand::random_range(0..4 * RETRY_AFTER_MS)
}

/// The retry delay after a shutdown: spread, so that not all reconnect at once.
fn hint(window: Duration) -> u64 {
    let spread = window.max(Duration::from_secs(1)).mul_f64(rand::random::<f64>());
    500 + u64::try_from(spread.as_millis()).unwrap_or(0)
}
