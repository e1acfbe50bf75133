//! Who is at the other end of a connection, where that is asked. Who has shown it in the handshake costs the
//! connection its place in it, and nothing beyond.

use std::cell::Cell;
use std::sync::Arc;

use super::Connection;
use crate::access::{Action, Denied, Principal, Resource, may};
use crate::connections::shard::Opening;
use crate::model::ChannelName;

/// How long before a token expires its client is told, in seconds.
const TELL_BEFORE_S: i64 = 60;

/// What is kept of a client that has not shown who it is when its connection opens.
#[derive(Default)]
pub(super) struct Waiting {
    /// What the connection was opened for, until its client has shown who it is.
    opening: Cell<Option<Box<Opening>>>,
    /// The tick until which it must do so.
    until: Cell<Option<u32>>,
}

impl Connection {
    /// Who is at the other end; `None` where nobody is asked.
    pub(in crate::connections) fn principal(&self) -> Option<Arc<Principal>> {
        // Back at once: whatever is done with it, without it nobody would be asked.
        let principal = self.principal.take();
        self.principal.set(principal.clone());
        principal
    }

    /// Its client has shown something, or has other rights.
    pub(in crate::connections) fn become_one(&self, principal: Arc<Principal>, now: i64) {
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

    /// Its client must show who it is until a tick; then what the connection was opened for is gone on with.
    pub(in crate::connections) fn wait_for_guest(&self, until: u32, opening: Option<Opening>) {
        if let Some(waiting) = self.waiting() {
            waiting.until.set(Some(until));
            waiting.opening.set(opening.map(Box::new));
        }
    }

    pub(in crate::connections) fn take_waiting(&self) -> Option<Opening> {
        self.waiting()?.opening.take().map(|opening| *opening)
    }

    /// Whether its client has to show who it is, or it ends.
    pub(in crate::connections) fn waits_for_guest(&self) -> bool {
        self.waiting().is_some_and(|waiting| waiting.until.get().is_some())
    }

    /// Whether its client should have done so by now.
    pub(in crate::connections) fn is_guest_too_late(&self) -> bool {
        self.waiting().and_then(|waiting| waiting.until.get()).is_some_and(|until| self.ticks() >= until)
    }

    /// Whether its client is to be told, once, that its token expires; and when it does.
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

/// A minute before the end, or at half of what is left where that is less; in seconds since 1970, and at the
/// end of what fits where there is no end.
pub(super) fn tell_at(principal: &Principal, now: i64) -> u32 {
    let at = principal.expires_at().map_or(i64::MAX, |at| {
        let left = at.saturating_sub(now);
        at - if left > TELL_BEFORE_S { TELL_BEFORE_S } else { left / 2 }
    });
    u32::try_from(at.max(0)).unwrap_or(u32::MAX)
}
