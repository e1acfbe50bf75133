//! Authentication of clients: admitting them, checking them again when something changes, and closing them.
//! Nothing here waits.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::debug;

use super::{Opening, Refusal, Shard, spread_ms, spread_retry_ms};
use crate::access::{Action, Denied, Kind, Principal, Refused, Standing, now_s};
use crate::connections::connection::Connection;
use crate::connections::events::Wanted;
use crate::connections::limits::Limit;
use crate::protocol::{Auth, Authenticated, CloseCode, EndCode, ErrorCode, ServerMessage, TokenExpiring};

impl Shard {
    /// Checks an admitted client again after its upgrade; returns its current principal, and what the
    /// connection is opened for then.
    pub(super) fn checked_again(
        &self,
        principal: Arc<Principal>,
        opening: Opening,
    ) -> (Arc<Principal>, Opening) {
        match self.gate.standing(&principal) {
            Standing::Holds => (principal, opening),
            Standing::Changed(principal) => (principal, opening),
            Standing::Revoked => (self.gate.nobody(), Opening::Unauthorized(Refused::Revoked)),
            Standing::KeyWithdrawn => {
                let is_certified = principal.kind() == Kind::Certificate;
                let refused = if is_certified { Refused::AuthorityWithdrawn } else { Refused::UnknownKey };
                (self.gate.nobody(), Opening::Unauthorized(refused))
            }
        }
    }

    /// What a connection was opened for, if its client has the right to it now. A client that has not
    /// authenticated gets some time to do so; any other gets an error, and is closed.
    pub(super) fn authorize(&self, connection: &Connection, opening: Opening) -> Option<Opening> {
        let Some(principal) = connection.principal() else { return Some(opening) };
        match &opening {
            // The rights were checked when the stream was opened.
            Opening::Channels(_) => return Some(opening),
            Opening::Several(wanted) => {
                // It waits if a token might give access to any of them; other refusals are sent when the
                // subscriptions are made.
                let lacks = |wanted: &Wanted| {
                    connection.may(Action::Subscribe, &wanted.channel) == Err(Denied::Unauthenticated)
                };
                if !wanted.iter().any(lacks) {
                    return Some(opening);
                }
            }
            _ => {
                let Some(channel) = opening.channel() else {
                    if !principal.is_authenticated() && !self.gate.is_optional() {
                        connection.await_authentication(self.authentication_deadline(connection), None);
                    }
                    return Some(opening);
                };
                match connection.may(Action::Subscribe, &channel) {
                    Ok(()) => return Some(opening),
                    Err(Denied::Unauthenticated) => {}
                    Err(denied) => {
                        self.send_error(connection, None, Some(channel.as_str()), denied);
                        self.close(connection, CloseCode::Unauthorized);
                        return None;
                    }
                }
            }
        }
        connection.await_authentication(self.authentication_deadline(connection), Some(opening));
        None
    }

    fn authentication_deadline(&self, connection: &Connection) -> u32 {
        connection.tick_after(Duration::from_secs(self.gate.config().within_s))
    }

    /// Authenticates a client, for the first time or again. If a later attempt fails, the client keeps its
    /// principal.
    pub(super) fn on_auth(self: &Rc<Self>, connection: &Rc<Connection>, auth: &Auth) {
        let id = auth.id.as_ref();
        let refuse = |message: Cow<'static, str>| {
            self.send_error(connection, id, None, (ErrorCode::InvalidToken, message));
        };
        let Some(before) = connection.principal() else {
            return refuse("authentication is off at this gateway".into());
        };
        match self.gate.authenticate(&auth.token.0) {
            Err(refused) => {
                debug!(conn.id = %connection.id, reason = refused.as_str(), "a client sent an invalid token");
                let Some(after_s) = refused.after_s() else {
                    refuse(refused.to_string().into());
                    if connection.awaits_authentication() {
                        self.close(connection, CloseCode::Unauthorized);
                    }
                    return;
                };
                let after_ms = u64::from(after_s) * 1_000;
                let refusal = Refusal::from((ErrorCode::KeysAwaited, refused.to_string()));
                self.send_error(connection, id, None, Refusal { retry_after_ms: Some(after_ms), ..refusal });
                // A client that has not authenticated otherwise is closed, and reconnects when the keys are
                // there.
                if connection.awaits_authentication() {
                    self.close_for(connection, CloseCode::KeysAwaited, after_ms + spread_ms());
                }
            }
            Ok(principal) if before.is_authenticated() && !principal.is_same_as(&before) => {
                let what = match before.kind() {
                    Kind::Certificate => {
                        "this connection is that of its certificate's subject; open another one with the token in \
                         its request, where the token counts"
                    }
                    _ => "this is another subject's token; open another connection for it",
                };
                refuse(what.into());
            }
            Ok(principal) => {
                if connection.seat().is_none()
                    && let Some(share) = self.gate.share(&principal)
                {
                    match share.connect() {
                        Ok(seat) => connection.take_seat(seat),
                        Err(over) => {
                            let limit = Limit::Quota(over);
                            return self.close_for(connection, limit.close_code(), limit.retry_after_ms());
                        }
                    }
                }
                let authenticated = ServerMessage::Authenticated(Authenticated {
                    id: id.cloned(),
                    subject: principal.subject().unwrap_or_default().to_owned(),
                    expires_at: principal.expires_at().and_then(time),
                    timestamp: Utc::now(),
                });
                connection.send_message(&authenticated, self.limits);
                let waiting = connection.take_opening();
                self.change(connection, principal);
                if let Some(opening) = waiting {
                    self.begin(connection, opening);
                }
            }
        }
    }

    /// Gives a client other rights: subscriptions to which it has no right any more end.
    fn change(self: &Rc<Self>, connection: &Rc<Connection>, principal: Arc<Principal>) {
        connection.authenticated_as(principal, now_s());
        let subscriptions: Vec<_> = connection.subscriptions.borrow().iter().cloned().collect();
        for subscription in subscriptions {
            let channel = &subscription.channel;
            let Err(denied) = connection.may(Action::Subscribe, channel) else { continue };
            let unanswered = subscription.take_asked();
            self.unsubscribe(&subscription);
            match unanswered {
                Some(id) => self.send_error(connection, id.as_ref(), Some(channel.as_str()), denied),
                None => self.say_unsubscribed(connection, channel, None, Some(EndCode::Forbidden)),
            }
            // The connection ends with its order.
            if connection.order() == Some(channel) {
                self.close(connection, CloseCode::Unauthorized);
            }
            self.end_if_bare(connection, CloseCode::Unauthorized);
        }
    }

    /// Checks one client: whether it has authenticated in time, and whether its credential is still valid.
    pub(super) fn check_client(&self, connection: &Connection, now_s: i64) {
        let Some(principal) = connection.principal().filter(|_| connection.is_open()) else { return };
        if connection.is_authentication_overdue() {
            self.close(connection, CloseCode::Unauthorized);
        } else if principal.has_expired(now_s) {
            self.close(connection, CloseCode::TokenExpired);
        } else if let Some(expires_at) = connection.expires_soon(now_s).and_then(time) {
            let expiring = ServerMessage::TokenExpiring(TokenExpiring { expires_at, timestamp: Utc::now() });
            connection.send_message(&expiring, self.limits);
        }
    }

    /// Checks all clients whenever keys have changed or something was revoked. Runs for ever.
    pub(super) async fn check_clients(self: &Rc<Self>) {
        let mut news = self.gate.news();
        while news.changed().await.is_ok() {
            self.each_connection(|_, connection| {
                let Some(principal) = connection.principal() else { return false };
                match self.gate.standing(&principal) {
                    Standing::Holds => false,
                    Standing::Changed(principal) => {
                        self.change(connection, principal);
                        true
                    }
                    Standing::Revoked => {
                        self.close(connection, CloseCode::Unauthorized);
                        true
                    }
                    Standing::KeyWithdrawn => {
                        self.close_for(connection, CloseCode::TokenExpired, spread_retry_ms());
                        true
                    }
                }
            })
            .await;
        }
        std::future::pending().await
    }
}

fn time(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}
