//! Who is at the other end of a connection. Small: each has one, where that is asked.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::Connection;
use crate::access::{Action, Denied, Principal, Resource, may};
use crate::connections::shard::Opening;
use crate::model::ChannelName;

/// How long before a token expires its client is told, in seconds.
const TELL_BEFORE_S: i64 = 60;

/// Who is at the other end.
pub(in crate::connections) struct Guest {
    principal: RefCell<Arc<Principal>>,
    /// What the connection was opened for, until its client has shown who it is.
    waiting: Cell<Option<Box<Opening>>>,
    /// The tick until which it must do so.
    until: Cell<Option<u32>>,
    /// When it is to be told that its token expires, in seconds since 1970.
    tell_at: Cell<i64>,
}

impl Guest {
    pub(in crate::connections) fn new(principal: Arc<Principal>, now: i64) -> Self {
        let tell_at = Cell::new(tell_at(&principal, now));
        let principal = RefCell::new(principal);
        Self { principal, waiting: Cell::default(), until: Cell::default(), tell_at }
    }

    pub(in crate::connections) fn principal(&self) -> Arc<Principal> {
        Arc::clone(&self.principal.borrow())
    }

    /// It has shown something new, or has other rights.
    pub(in crate::connections) fn become_one(&self, principal: Arc<Principal>, now: i64) {
        self.tell_at.set(tell_at(&principal, now));
        self.until.set(None);
        *self.principal.borrow_mut() = principal;
    }

    /// It must show who it is until a tick; then what the connection was opened for is gone on with.
    pub(in crate::connections) fn wait(&self, until: u32, opening: Option<Opening>) {
        self.until.set(Some(until));
        self.waiting.set(opening.map(Box::new));
    }

    pub(in crate::connections) fn take_waiting(&self) -> Option<Opening> {
        self.waiting.take().map(|opening| *opening)
    }

    /// Whether it has to show who it is, or the connection ends.
    pub(in crate::connections) fn is_waited_for(&self) -> bool {
        self.until.get().is_some()
    }

    /// Whether it should have done so by now.
    pub(in crate::connections) fn is_too_late(&self, now: u32) -> bool {
        self.until.get().is_some_and(|until| now >= until)
    }

    /// Whether its time is over.
    pub(in crate::connections) fn has_expired(&self, now: i64) -> bool {
        self.principal.borrow().has_expired(now)
    }

    /// Whether it is to be told, once, that its token expires; and when it does.
    pub(in crate::connections) fn expires_soon(&self, now: i64) -> Option<i64> {
        if now < self.tell_at.get() {
            return None;
        }
        self.tell_at.set(i64::MAX);
        self.principal.borrow().expires_at()
    }
}

/// A minute before the end, or at half of what is left where that is less.
fn tell_at(principal: &Principal, now: i64) -> i64 {
    principal.expires_at().map_or(i64::MAX, |at| {
        let left = at.saturating_sub(now);
        at - if left > TELL_BEFORE_S { TELL_BEFORE_S } else { left / 2 }
    })
}

impl Connection {
    /// Whether its client may publish to a channel.
    pub(in crate::connections) fn may_publish(&self, channel: &ChannelName) -> Result<(), Denied> {
        let Some(guest) = self.guest() else { return Ok(()) };
        may(&guest.principal.borrow(), Action::Publish, Resource::Channel(channel.as_str()))
    }

    /// Whether its client may read a channel.
    pub(in crate::connections) fn may_read(&self, channel: &ChannelName) -> Result<(), Denied> {
        let Some(guest) = self.guest() else { return Ok(()) };
        may(&guest.principal.borrow(), Action::Subscribe, Resource::Channel(channel.as_str()))
    }
}
