//! What clients ask for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;
use std::vec;

use chrono::Utc;
use serde_json::Value;

use super::Shard;
use crate::channels::Start;
use crate::connections::connection::Connection;
use crate::connections::subscription::Subscription;
use crate::model::{ChannelName, Position};
use crate::protocol::{ClientMessage, ErrorCode, ServerMessage, Subscribe};
use crate::support::fault;

/// Names of one request that are done before others get their turn.
const NAMES_PER_TURN: usize = 64;

/// Errors that a request is answered with one by one; how many more there are is told in one.
const ERRORS_TOLD: usize = 100;

/// What became of a message.
pub(in crate::connections) enum Heard {
    /// It was answered.
    All,
    /// It was one too many, and the connection is being closed.
    TooMuch,
    /// It asks for something for each of its names, which is to be gone on with.
    Request(Request),
}

/// A request whose names are done one after the other.
pub(in crate::connections) struct Request {
    wish: Wish,
    id: Option<Value>,
    names: vec::IntoIter<String>,
    /// The message has paid for its first name.
    has_begun: bool,
    refused: usize,
}

enum Wish {
    Subscribe { since: HashMap<String, Value> },
    Unsubscribe,
}

/// Why a name was not done.
struct Refusal {
    code: ErrorCode,
    message: Cow<'static, str>,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Shard {
    pub(in crate::connections) fn on_message(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        text: &str,
    ) -> Heard {
        let message = ClientMessage::parse(text);
        // To unsubscribe is never too much: that is charged by reading its client more slowly.
        if matches!(message, Ok(ClientMessage::Unsubscribe { .. })) {
            connection.charge_leaving(self);
        } else if !connection.allowed(self) {
            return Heard::TooMuch;
        }
        let request = |wish, id, channels: Vec<String>| {
            Heard::Request(Request { wish, id, names: channels.into_iter(), has_begun: false, refused: 0 })
        };
        match message {
            Ok(ClientMessage::Subscribe(Subscribe { id, channels, since })) => {
                return request(Wish::Subscribe { since }, id, channels);
            }
            Ok(ClientMessage::Unsubscribe { id, channels }) => {
                return request(Wish::Unsubscribe, id, channels);
            }
            Ok(ClientMessage::Heartbeat { id }) => {
                let ack = ServerMessage::HeartbeatAck { id: id.as_ref(), timestamp: Utc::now() };
                connection.send_message(&ack, self.limits);
            }
            Ok(ClientMessage::Ping { id }) => {
                fault::point(|| "connection".to_owned());
                let pong = ServerMessage::Pong { id: id.as_ref(), timestamp: Utc::now() };
                connection.send_message(&pong, self.limits);
            }
            Ok(ClientMessage::HeartbeatAck) => {}
            Err(invalid) => {
                self.send_error(connection, invalid.id.as_ref(), invalid.code, &invalid.message, None)
            }
        }
        Heard::All
    }

    /// Does some of the names of a request; says whether there are more.
    pub(in crate::connections) fn go_on(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        request: &mut Request,
    ) -> bool {
        for _ in 0..NAMES_PER_TURN {
            // Once it is closed, or had asked for too much, the rest means nothing.
            if !connection.is_open() {
                return false;
            }
            let Some(name) = request.names.next() else {
                self.tell_untold(connection, request);
                return false;
            };
            let pays = std::mem::replace(&mut request.has_begun, true);
            let done = match &request.wish {
                Wish::Subscribe { .. } if pays && !connection.allowed(self) => return false,
                Wish::Subscribe { since } => {
                    self.on_subscribe(connection, &name, since.get(&name), request.id.as_ref())
                }
                Wish::Unsubscribe => {
                    if pays {
                        connection.charge_leaving(self);
                    }
                    self.on_unsubscribe(connection, &name, request.id.as_ref())
                }
            };
            if let Err(Refusal { code, message }) = done {
                request.refused += 1;
                if request.refused <= ERRORS_TOLD {
                    let shown: String = name.chars().take(96).collect();
                    self.send_error(connection, request.id.as_ref(), code, &message, Some(&shown));
                } else {
                    self.stats.count_error(code);
                }
            }
        }
        true
    }

    /// Says how many names were refused besides those that were told of. They are counted already.
    fn tell_untold(&self, connection: &Connection, request: &Request) {
        let untold = request.refused.saturating_sub(ERRORS_TOLD);
        if untold == 0 {
            return;
        }
        let message = format!("{untold} more names of this message were refused; {ERRORS_TOLD} are told of");
        let error = ServerMessage::Error {
            id: request.id.as_ref(),
            code: ErrorCode::InvalidMessage,
            message: &message,
            channel: None,
            timestamp: Utc::now(),
        };
        connection.send_message(&error, self.limits);
    }

    fn on_subscribe(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        name: &str,
        since: Option<&Value>,
        id: Option<&Value>,
    ) -> Result<(), Refusal> {
        let channel = name.parse::<ChannelName>();
        let channel = channel.map_err(|error| Refusal::new(ErrorCode::InvalidChannel, error.to_string()))?;
        let start = match since.filter(|since| !since.is_null()).map(position) {
            None => Start::of(&channel, None),
            Some(Some(position)) => Start::of(&channel, Some(position)),
            Some(None) => {
                let message = r#"`since` takes {"<channel>":{"epoch":"…","offset":0}}, as `subscribed` and the entries tell"#;
                return Err(Refusal::new(ErrorCode::InvalidPosition, message));
            }
        };
        let known = connection.subscriptions.borrow().iter().find(|s| s.channel == channel).cloned();
        if let Some(known) = known {
            // Asking again begins anew, from where the request says.
            self.unsubscribe(&known);
        } else if connection.subscriptions.borrow().len() >= self.config.subscriptions_max {
            let message = format!(
                "a connection may have {} subscriptions; unsubscribe from one, or open another connection",
                self.config.subscriptions_max
            );
            return Err(Refusal::new(ErrorCode::TooManySubscriptions, message));
        }
        self.subscribe(connection, channel, start, id.cloned());
        Ok(())
    }

    pub(super) fn subscribe(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: ChannelName,
        start: Start,
        id: Option<Value>,
    ) {
        let subscription = Rc::new(Subscription::new(channel.clone(), Rc::clone(connection)));
        let followed = Rc::clone(self.followed.borrow_mut().entry(channel).or_default());
        subscription.place.set(followed.subscriptions.borrow_mut().insert(Rc::clone(&subscription)));
        connection.subscriptions.borrow_mut().push(Rc::clone(&subscription));
        let shard = Rc::clone(self);
        self.spawn_for(connection, subscription.bring_up(shard, start, id));
    }

    fn on_unsubscribe(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        name: &str,
        id: Option<&Value>,
    ) -> Result<(), Refusal> {
        // An order may be written in several ways.
        let named =
            |channel| connection.subscriptions.borrow().iter().find(|s| s.channel == channel).cloned();
        let Some(subscription) = name.parse::<ChannelName>().ok().and_then(named) else {
            let message = "this connection has no subscription of that name";
            return Err(Refusal::new(ErrorCode::InvalidChannel, message));
        };
        self.unsubscribe(&subscription);
        let unsubscribed =
            ServerMessage::Unsubscribed { id, channel: &subscription.channel, timestamp: Utc::now() };
        connection.send_message(&unsubscribed, self.limits);
        Ok(())
    }

    /// Ends a subscription; the last one of a channel lets this shard leave it.
    pub(in crate::connections) fn unsubscribe(self: &Rc<Self>, subscription: &Rc<Subscription>) {
        subscription.end();
        subscription.connection.subscriptions.borrow_mut().retain(|s| !Rc::ptr_eq(s, subscription));
        let channel = &subscription.channel;
        let Some(followed) = self.followed_by(channel) else { return };
        let mut subscriptions = followed.subscriptions.borrow_mut();
        let place = subscription.place.get();
        if subscriptions.get(place).is_some_and(|held| Rc::ptr_eq(held, subscription)) {
            subscriptions.remove(place);
        }
        if subscriptions.is_empty() {
            self.followed.borrow_mut().remove(channel);
            self.leave(channel);
        }
    }

    /// Tells the channel that this shard needs it no more.
    pub(super) fn leave(self: &Rc<Self>, channel: &ChannelName) {
        let (shard, channel) = (Rc::clone(self), channel.clone());
        self.spawn(async move {
            // Somebody may have come back by now; a join sent from here on comes after the leave.
            if shard.followed_by(&channel).is_none() {
                shard.channels.leave(&channel, shard.index).await;
            }
        });
    }

    /// Counts an error and tells the client.
    pub(in crate::connections) fn send_error(
        &self,
        connection: &Connection,
        id: Option<&Value>,
        code: ErrorCode,
        message: &str,
        channel: Option<&str>,
    ) {
        self.stats.count_error(code);
        let error = ServerMessage::Error { id, code, message, channel, timestamp: Utc::now() };
        connection.send_message(&error, self.limits);
    }
}

fn position(value: &Value) -> Option<Position> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => serde_json::from_value(other.clone()).ok(),
    }
}
