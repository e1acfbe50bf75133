//! The client's principal, if authentication is on. A client that authenticated in the handshake needs no
//! more than the field for it in the connection.

use std::cell::Cell;
use std::sync::Arc;

use super::Connection;
use crate::access::{Action, Denied, Principal, Resource, may};
use crate::connections::shard::Opening;
use crate::model::ChannelName;

/// How long before a token expires its client is told, in seconds.
const TELL_BEFORE_S: i64 = 60;

/// The state of a client that has not authenticated when its connection opens.
#[derive(Default)]
pub(super) struct Waiting {
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

    /// Its client has authenticated, or has other rights.
    pub(in crate::connections) fn authenticated_as(&self, principal: Arc<Principal>, now: i64) {
        self.tell_at.set(tell_at(&principal, now));
        self.has_roles_of(&principal);
        self.principal.set(Some(principal));
        if let Some(waiting) = self.waiting() {
            waiting.until.set(None);
        }
    }

    fn waiting(&self) -> Option<&Waiting> {
        self.rarities()?.waiting.as_ref()
    }

    /// Requires its client to authenticate until a tick; after that, what the connection was opened for
    /// continues.
    pub(in crate::connections) fn wait_for_guest(&self, until: u32, opening: Option<Opening>) {
        if let Some(waiting) = self.waiting() {
            waiting.until.set(Some(until));
            waiting.opening.set(opening.map(Box::new));
        }
    }

    pub(in crate::connections) fn take_waiting(&self) -> Option<Opening> {
        self.waiting()?.opening.take().map(|opening| *opening)
    }

    /// Whether its client must authenticate, or the connection ends.
    pub(in crate::connections) fn waits_for_guest(&self) -> bool {
        self.waiting().is_some_and(|waiting| waiting.until.get().is_some())
    }

    /// Whether its client's time to authenticate is over.
    pub(in crate::connections) fn is_guest_too_late(&self) -> bool {
        self.waiting().and_then(|waiting| waiting.until.get()).is_some_and(|until| self.ticks() >= until)
    }

    /// If its client has to be told, once, that its token expires: when it does.
    pub(in crate::connections) fn expires_soon(&self, now: i64) -> Option<i64> {
        if now < i64::from(self.tell_at.get()) {
            return None;
        }
        self.tell_at.set(u32::MAX);
        self.principal()?.expires_at()
    }

    /// Whether its client may publish to a channel.
    pub(in crate::connections) fn may_publish(&self, channel: &ChannelName) -> Result<(), Denied> {
        let Some(principal) = self.principal() else { return Ok(()) };
        may(&principal, Action::Publish, Resource::Channel(channel.as_str()))
    }

    /// Whether its client may read a channel.
    pub(in crate::connections) fn may_read(&self, channel: &ChannelName) -> Result<(), Denied> {
        let Some(principal) = self.principal() else { return Ok(()) };
        may(&principal, Action::Subscribe, Resource::Channel(channel.as_str()))
    }
}

/// A minute before the token expires, or at half of the remaining time if that is less; in seconds since
/// 1970, and the maximum if it does not expire.
pub(super) fn tell_at(principal: &Principal, now: i64) -> u32 {
    let at = principal.expires_at().map_or(i64::MAX, |at| {
        let left = at.saturating_sub(now);
        at - if left > TELL_BEFORE_S { TELL_BEFORE_S } else { left / 2 }
    });
    u32::try_from(at.max(0)).unwrap_or(u32::MAX)
}
