//! What clients ask for.

use std::rc::Rc;

use chrono::Utc;
use serde_json::Value;

use super::Shard;
use crate::channels::Start;
use crate::connections::connection::Connection;
use crate::connections::subscription::Subscription;
use crate::model::{ChannelName, Position};
use crate::protocol::{ClientMessage, ErrorCode, ServerMessage};
use crate::support::fault;

impl Shard {
    pub(in crate::connections) fn on_message(self: &Rc<Self>, connection: &Rc<Connection>, text: &str) {
        match ClientMessage::parse(text) {
            Ok(ClientMessage::Subscribe(request)) => {
                for (place, name) in request.channels.iter().enumerate() {
                    // The message itself has paid for its first name.
                    if place > 0 && !connection.allowed(self) {
                        return;
                    }
                    let since = request.since.get(name);
                    self.on_subscribe(connection, name, since, request.id.as_ref());
                }
            }
            Ok(ClientMessage::Unsubscribe { id, channels }) => {
                for name in &channels {
                    self.on_unsubscribe(connection, name, id.as_ref());
                }
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
    }

    fn on_subscribe(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        name: &str,
        since: Option<&Value>,
        id: Option<&Value>,
    ) {
        let channel: ChannelName = match name.parse() {
            Ok(channel) => channel,
            Err(error) => {
                let shown: String = name.chars().take(96).collect();
                return self.send_error(
                    connection,
                    id,
                    ErrorCode::InvalidChannel,
                    &error.to_string(),
                    Some(&shown),
                );
            }
        };
        let start = match since.filter(|since| !since.is_null()).map(position) {
            None => Start::of(&channel, None),
            Some(Some(position)) => Start::of(&channel, Some(position)),
            Some(None) => {
                let message = r#"`since` takes {"<channel>":{"epoch":"…","offset":0}}, as `subscribed` and the entries tell"#;
                return self.send_error(connection, id, ErrorCode::InvalidPosition, message, Some(name));
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
            return self.send_error(connection, id, ErrorCode::TooManySubscriptions, &message, Some(name));
        }
        self.subscribe(connection, channel, start, id.cloned());
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

    fn on_unsubscribe(self: &Rc<Self>, connection: &Rc<Connection>, name: &str, id: Option<&Value>) {
        // An order may be written in several ways.
        let named =
            |channel| connection.subscriptions.borrow().iter().find(|s| s.channel == channel).cloned();
        let Some(subscription) = name.parse::<ChannelName>().ok().and_then(named) else {
            let shown: String = name.chars().take(96).collect();
            let message = "this connection has no subscription of that name";
            return self.send_error(connection, id, ErrorCode::InvalidChannel, message, Some(&shown));
        };
        self.unsubscribe(&subscription);
        let unsubscribed =
            ServerMessage::Unsubscribed { id, channel: &subscription.channel, timestamp: Utc::now() };
        connection.send_message(&unsubscribed, self.limits);
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
