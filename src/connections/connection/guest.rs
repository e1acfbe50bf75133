//! The client's principal, if authentication is on. A client that authenticated in the handshake needs no
//! more than the field for it in the connection.

use std::cell::Cell;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::Connection;
use crate::access::{Action, Denied, Principal, Resource, may};
use crate::connections::shard::Opening;
use crate::model::ChannelName;

/// How many seconds before a token expires its client is notified.
const NOTIFY_BEFORE_S: i64 = 60;

/// The state of a client that had not authenticated when its connection opened.
#[derive(Default)]
pub(super) struct Unauthenticated {
    /// What the connection was opened for, until its client has authenticated.
    opening: Cell<Option<Box<Opening>>>,
    /// The tick until which it must do so.
    until: Cell<Option<u32>>,
}

impl Connection {
    /// The client's principal; `None` if authentication is off.
    pub(in crate::connections) fn principal(&self) -> Option<Arc<Principal>> {
        // Put back at once: without a principal, nothing would be denied.
        let principal = self.principal.take();
        self.principal.set(principal.clone());
        principal
    }

    /// The subject of its client's credential.
    pub(in crate::connections) fn subject(&self) -> Option<String> {
        self.principal()?.subject().map(str::to_owned)
    }

    /// When its client's credential expires.
    pub(in crate::connections) fn token_expires_at(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.principal()?.expires_at()?, 0)
    }

    /// Sets the principal of a client that has authenticated, or whose rights have changed.
    pub(in crate::connections) fn authenticated_as(&self, principal: Arc<Principal>, now: i64) {
        self.notify_at.set(notify_at(&principal, now));
        self.has_roles_of(&principal);
        self.principal.set(Some(principal));
        if let Some(unauthenticated) = self.unauthenticated() {
            unauthenticated.until.set(None);
        }
    }

    fn unauthenticated(&self) -> Option<&Unauthenticated> {
        self.rarities()?.unauthenticated.as_ref()
    }

    /// Gives its client until this tick to authenticate. Keeps what the connection was opened for, to be
    /// continued once the client has authenticated.
    pub(in crate::connections) fn await_authentication(&self, until: u32, opening: Option<Opening>) {
        if let Some(unauthenticated) = self.unauthenticated() {
            unauthenticated.until.set(Some(until));
            unauthenticated.opening.set(opening.map(Box::new));
        }
    }

    pub(in crate::connections) fn take_opening(&self) -> Option<Opening> {
        self.unauthenticated()?.opening.take().map(|opening| *opening)
    }

    /// Whether its client must authenticate, or the connection ends.
    pub(in crate::connections) fn awaits_authentication(&self) -> bool {
        self.unauthenticated().is_some_and(|unauthenticated| unauthenticated.until.get().is_some())
    }

    /// Whether its client's time to authenticate is over.
    pub(in crate::connections) fn is_authentication_overdue(&self) -> bool {
        self.unauthenticated()
            .and_then(|unauthenticated| unauthenticated.until.get())
            .is_some_and(|until| self.ticks() >= until)
    }

    /// When its client's token expires, if the client is to be notified of that now; once.
    pub(in crate::connections) fn expires_soon(&self, now: i64) -> Option<i64> {
        if now < i64::from(self.notify_at.get()) {
            return None;
        }
        self.notify_at.set(u32::MAX);
        self.principal()?.expires_at()
    }

    /// Whether its client may do something with a channel.
    pub(in crate::connections) fn may(&self, action: Action, channel: &ChannelName) -> Result<(), Denied> {
        let Some(principal) = self.principal() else { return Ok(()) };
        may(&principal, action, Resource::Channel(channel.as_str()))
    }
}

/// A minute before the token expires, or at half of the remaining time if that is less; in seconds since
/// 1970, and the maximum if it does not expire.
pub(super) fn notify_at(principal: &Principal, now: i64) -> u32 {
    let at = principal.expires_at().map_or(i64::MAX, |at| {
        let left = at.saturating_sub(now);
        at - if left > NOTIFY_BEFORE_S { NOTIFY_BEFORE_S } else { left / 2 }
    });
    u32::try_from(at.max(0)).unwrap_or(u32::MAX)
}
