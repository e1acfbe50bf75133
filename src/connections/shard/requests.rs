//! Requests of clients.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;
use std::vec;

use chrono::Utc;
use tokio::time::Instant;

use super::{Followed, Shard};
use crate::access::{Action, Denied, Over};
use crate::channels::Asked;
use crate::connections::connection::Connection;
use crate::connections::publishing::Publishing;
use crate::connections::subscription::Subscription;
use crate::model::{ChannelName, InvalidName};
use crate::protocol::{
    Answer, Bare, ClientMessage, CloseCode, EndCode, ErrorCode, ErrorMessage, InvalidMessage, Open,
    RequestId, ServerMessage, Since, Subscribe, Unsubscribe, Unsubscribed,
};
use crate::support::fault;

/// How many channels of one request are processed before the task yields.
const NAMES_PER_TURN: usize = 64;

/// How many messages an `auth` counts as: verifying a signature takes a shard's thread up to 0.2 ms.
const MESSAGES_PER_AUTH: u16 = 10;

/// The outcome of a message.
pub(in crate::connections) enum Heard {
    /// It was answered.
    All,
    /// It exceeded a limit, and the connection is being closed.
    TooMuch,
    /// It is a request for several channels, which has to be continued.
    Request(Request),
    /// It is to be published, after what the client sent before.
    Publish(Publishing),
}

/// A request whose channels are processed one after the other, each with one final answer.
pub(in crate::connections) struct Request {
    wish: Wish,
    id: Option<RequestId>,
    names: vec::IntoIter<Named>,
    /// Whether the first channel was processed, which the message itself has paid for.
    has_begun: bool,
}

enum Wish {
    Subscribe { since: HashMap<ChannelName, Since>, snapshot: bool },
    Unsubscribe,
}

/// A channel's name as the client wrote it, and the channel if it is valid.
struct Named {
    written: String,
    channel: Result<ChannelName, InvalidName>,
}

/// Why something that a client asked for was refused.
pub(in crate::connections) struct Refusal {
    pub(in crate::connections) code: ErrorCode,
    pub(in crate::connections) message: Cow<'static, str>,
    /// When the client may try again, in milliseconds.
    pub(in crate::connections) retry_after_ms: Option<u64>,
    /// Of a `publish`: how many entries, from the first one on, the log has.
    pub(in crate::connections) accepted: Option<u64>,
}

impl Refusal {
    pub(in crate::connections) fn over(code: ErrorCode, over: Over) -> Self {
        Self { retry_after_ms: Some(over.wait_ms()), ..(code, over.to_string()).into() }
    }

    /// The principal, or its tenant, has as many subscriptions as allowed.
    pub(super) fn too_many_subscriptions(over: Over) -> Self {
        Self::over(ErrorCode::TooManySubscriptions, over)
    }
}

/// A code, and a text for people.
impl<M: Into<Cow<'static, str>>> From<(ErrorCode, M)> for Refusal {
    fn from((code, message): (ErrorCode, M)) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, accepted: None }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        (ErrorCode::Forbidden, denied.to_string()).into()
    }
}

impl Request {
    /// # Errors
    /// It names no channel, or more than `max`; that answers the whole request.
    fn new(
        wish: Wish,
        id: Option<RequestId>,
        names: Vec<String>,
        max: usize,
    ) -> Result<Self, InvalidMessage> {
        if names.is_empty() || names.len() > max {
            let count = names.len();
            let message = format!("`channels` must name 1 to {max} channels, but names {count}");
            return Err(InvalidMessage { id, code: ErrorCode::InvalidMessage, message });
        }
        let mut names: Vec<Named> =
            names.into_iter().map(|written| Named { channel: written.parse(), written }).collect();
        let mut seen = HashSet::new();
        // However often and in whatever spelling a channel is named, it is requested once.
        let is_new: Vec<bool> = names.iter().map(|named| seen.insert(named.shown())).collect();
        let mut is_new = is_new.into_iter();
        names.retain(|_| is_new.next().unwrap_or(true));
        Ok(Self { wish, id, names: names.into_iter(), has_begun: false })
    }
}

impl Named {
    /// The channel's name for answers.
    fn shown(&self) -> &str {
        self.channel.as_ref().map_or(&self.written, ChannelName::as_str)
    }
}

impl Shard {
    pub(in crate::connections) fn on_message(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        text: &str,
    ) -> Heard {
        let message = ClientMessage::parse(text);
        let is_allowed = match &message {
            // Unsubscribing is never refused; it is charged by reading the client more slowly.
            Ok(ClientMessage::Unsubscribe(_)) => {
                connection.charge_leaving(self);
                true
            }
            Ok(ClientMessage::Auth(_)) => connection.allowed_as(MESSAGES_PER_AUTH, self),
            _ => connection.allowed(self),
        };
        if !is_allowed {
            return Heard::TooMuch;
        }
        match self.understand(connection, message) {
            Ok(heard) => heard,
            Err(InvalidMessage { id, code, message }) => {
                self.send_error(connection, id.as_ref(), None, (code, message));
                Heard::All
            }
        }
    }

    /// Answers a message, except for the channels of a request.
    fn understand(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        message: Result<ClientMessage, InvalidMessage>,
    ) -> Result<Heard, InvalidMessage> {
        let names_max = self.config.subscriptions_max;
        match message? {
            ClientMessage::Subscribe(Subscribe { id, channels, since, snapshot }) => {
                let since = since.into_iter();
                let since = since.filter_map(|(name, since)| Some((name.parse().ok()?, since?))).collect();
                let wish = Wish::Subscribe { since, snapshot };
                return Request::new(wish, id, channels, names_max).map(Heard::Request);
            }
            ClientMessage::Publish(publish) => {
                return Publishing::of(publish, connection, &self.channels).map(Heard::Publish);
            }
            ClientMessage::Unsubscribe(Unsubscribe { id, channels }) => {
                return Request::new(Wish::Unsubscribe, id, channels, names_max).map(Heard::Request);
            }
            ClientMessage::Heartbeat(Bare { id }) => {
                let ack = ServerMessage::HeartbeatAck(Answer { id, timestamp: Utc::now() });
                connection.send_message(&ack, self.limits);
            }
            ClientMessage::Ping(Bare { id }) => {
                fault::point(|| "connection".to_owned());
                let pong = ServerMessage::Pong(Answer { id, timestamp: Utc::now() });
                connection.send_message(&pong, self.limits);
            }
            ClientMessage::HeartbeatAck(_) => {}
            ClientMessage::Auth(auth) => self.on_auth(connection, &auth),
        }
        Ok(Heard::All)
    }

    /// Processes some channels of a request; returns whether there are more.
    pub(in crate::connections) fn go_on(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        request: &mut Request,
    ) -> bool {
        for _ in 0..NAMES_PER_TURN {
            // When the connection is closing, or a limit was exceeded, the rest is dropped.
            if !connection.is_open() {
                return false;
            }
            let Some(named) = request.names.next() else { return false };
            let pays = std::mem::replace(&mut request.has_begun, true);
            let channel = || {
                let channel = named.channel.as_ref();
                channel.map_err(|error| Refusal::from((ErrorCode::InvalidChannel, error.to_string())))
            };
            let id = request.id.as_ref();
            let done = match &request.wish {
                Wish::Subscribe { .. } if pays && !connection.allowed(self) => return false,
                Wish::Subscribe { since, snapshot } => channel().and_then(|channel| {
                    self.on_subscribe(connection, channel, since.get(channel), *snapshot, id)
                }),
                Wish::Unsubscribe => {
                    if pays {
                        connection.charge_leaving(self);
                    }
                    channel().and_then(|channel| self.on_unsubscribe(connection, channel, id))
                }
            };
            if let Err(refusal) = done {
                self.send_error(connection, id, Some(named.shown()), refusal);
            }
        }
        true
    }

    fn on_subscribe(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: &ChannelName,
        since: Option<&Since>,
        snapshot: bool,
        id: Option<&RequestId>,
    ) -> Result<(), Refusal> {
        let asked = match since {
            None => Asked::of(channel, None, snapshot),
            Some(Since::At(position)) => Asked::of(channel, Some(position.clone()), snapshot),
            Some(Since::Unreadable(_)) => {
                let message = r#"`since` must have the form {"<channel>":{"epoch":"…","offset":0}}, the epoch of the last `subscribed`, `resync` or `snapshot_end` and the offset of the last entry"#;
                return Err((ErrorCode::InvalidPosition, message).into());
            }
        };
        connection.may(Action::Subscribe, channel)?;
        if let Some(known) = connection.subscription(channel) {
            // A repeated request starts anew, at the position that it names.
            self.supersede(&known);
        } else if connection.subscriptions.borrow().len() >= self.config.subscriptions_max {
            let message = format!(
                "a connection may have at most {} subscriptions; unsubscribe from one, or open another connection",
                self.config.subscriptions_max
            );
            return Err((ErrorCode::TooManySubscriptions, message).into());
        } else if let Err(over) = connection.hold_subscription() {
            return Err(Refusal::too_many_subscriptions(over));
        }
        self.subscribe(connection, channel.clone(), asked, id.cloned());
        Ok(())
    }

    /// Ends a subscription because of a later request. The request that it was made for is answered, if it
    /// was not.
    fn supersede(self: &Rc<Self>, subscription: &Rc<Subscription>) {
        if let Some(asked) = subscription.take_asked() {
            let message = "a later request for this channel came before this one was answered";
            let (connection, channel) = (&subscription.connection, Some(subscription.channel.as_str()));
            self.send_error(connection, asked.as_ref(), channel, (ErrorCode::Superseded, message));
        }
        self.detach(subscription);
    }

    /// Makes a subscription that has been counted.
    pub(super) fn subscribe(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: ChannelName,
        asked: Asked,
        id: Option<RequestId>,
    ) {
        let subscription = Rc::new(Subscription::new(channel.clone(), Rc::clone(connection), id));
        let followed = {
            let mut all = self.followed.borrow_mut();
            Rc::clone(all.entry(channel).or_insert_with_key(Followed::new))
        };
        subscription.place.set(followed.subscriptions.borrow_mut().insert(Rc::clone(&subscription)));
        connection.subscriptions.borrow_mut().push(Rc::clone(&subscription));
        let shard = Rc::clone(self);
        self.spawn_for(connection, subscription.bring_up(shard, asked));
    }

    fn on_unsubscribe(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: &ChannelName,
        id: Option<&RequestId>,
    ) -> Result<(), Refusal> {
        let Some(subscription) = connection.subscription(channel) else {
            let message = "this connection is not subscribed to this channel";
            return Err((ErrorCode::NotSubscribed, message).into());
        };
        self.supersede(&subscription);
        connection.release_subscription();
        self.say_unsubscribed(connection, channel, id, None);
        Ok(())
    }

    pub(super) fn say_unsubscribed(
        &self,
        connection: &Connection,
        channel: &ChannelName,
        id: Option<&RequestId>,
        code: Option<EndCode>,
    ) {
        let (id, channel, code) = (id.cloned(), channel.clone(), code.map(Open::from));
        let unsubscribed =
            ServerMessage::Unsubscribed(Unsubscribed { id, channel, code, timestamp: Utc::now() });
        connection.send_message(&unsubscribed, self.limits);
    }

    /// Ends a connection's subscriptions to orders that have ended, once everything was sent and the linger
    /// time is over. The order that the connection was opened on is left to [`Self::close_if_finished`].
    pub(super) fn end_finished(self: &Rc<Self>, connection: &Rc<Connection>, now: Instant) {
        let linger = Duration::from_millis(self.config.order_linger_ms);
        for (subscription, at) in connection.finished() {
            if now.saturating_duration_since(at) < linger {
                self.has_finished.set(true);
                continue;
            }
            self.unsubscribe(&subscription);
            self.say_unsubscribed(connection, &subscription.channel, None, Some(EndCode::Finished));
            self.end_if_bare(connection, CloseCode::Normal);
        }
    }

    /// Ends a subscription. If it is the channel's last one here, this shard leaves the channel.
    pub(in crate::connections) fn unsubscribe(self: &Rc<Self>, subscription: &Rc<Subscription>) {
        if self.detach(subscription) {
            subscription.connection.release_subscription();
        }
    }

    /// Ends a subscription without releasing its count; returns whether the connection had it.
    fn detach(self: &Rc<Self>, subscription: &Rc<Subscription>) -> bool {
        subscription.end();
        let had = {
            let mut subscriptions = subscription.connection.subscriptions.borrow_mut();
            let before = subscriptions.len();
            subscriptions.retain(|s| !Rc::ptr_eq(s, subscription));
            subscriptions.len() < before
        };
        let channel = &subscription.channel;
        let Some(followed) = self.followed_by(channel) else { return had };
        let mut subscriptions = followed.subscriptions.borrow_mut();
        let place = subscription.place.get();
        if subscriptions.get(place).is_some_and(|held| Rc::ptr_eq(held, subscription)) {
            subscriptions.remove(place);
        }
        if subscriptions.is_empty() {
            self.followed.borrow_mut().remove(channel);
            self.leave(channel);
        }
        had
    }

    /// Tells the channel that this shard no longer needs it.
    pub(super) fn leave(self: &Rc<Self>, channel: &ChannelName) {
        let (shard, channel) = (Rc::clone(self), channel.clone());
        self.spawn(async move {
            // A new subscriber may have arrived; its join is sent after this leave.
            if shard.followed_by(&channel).is_none() {
                shard.channels.leave(&channel, shard.index).await;
            }
        });
    }

    /// Counts an error and tells the client.
    pub(in crate::connections) fn send_error(
        &self,
        connection: &Connection,
        id: Option<&RequestId>,
        channel: Option<&str>,
        refusal: impl Into<Refusal>,
    ) {
        let Refusal { code, message, retry_after_ms, accepted } = refusal.into();
        self.stats.count_error(code);
        let error = ServerMessage::Error(ErrorMessage {
            id: id.cloned(),
            code: code.into(),
            temporary: code.is_temporary(),
            retry_after_ms,
            accepted,
            message: message.into_owned(),
            channel: channel.map(str::to_owned),
            timestamp: Utc::now(),
        });
        connection.send_message(&error, self.limits);
    }
}
