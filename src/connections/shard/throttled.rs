//! Throttled connections: they are not written to for a while, because their principals were sent as much as
//! allowed.

use std::cell::RefCell;
use std::mem;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time;

use super::Shard;
use crate::connections::connection::Connection;

/// How often it is checked whose time has come.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The throttled connections of a shard that have something to send.
#[derive(Default)]
pub(super) struct Throttled {
    connections: RefCell<Vec<Weak<Connection>>>,
    has_some: Notify,
}

impl Throttled {
    /// Wakes each connection when its time has come. Runs for ever.
    pub(super) async fn release_all(&self) {
        loop {
            if self.connections.borrow().is_empty() {
                self.has_some.notified().await;
            }
            time::sleep(LOOK_EVERY).await;
            let all = mem::take(&mut *self.connections.borrow_mut());
            let is_still = |one: &Weak<Connection>| one.upgrade().is_some_and(|one| !one.release());
            let still: Vec<_> = all.into_iter().filter(is_still).collect();
            self.connections.borrow_mut().extend(still);
        }
    }
}

impl Shard {
    /// Wakes a connection when it may be written to again.
    pub(in crate::connections) fn unthrottle_later(&self, connection: &Rc<Connection>) {
        self.throttled.connections.borrow_mut().push(Rc::downgrade(connection));
        self.throttled.has_some.notify_one();
    }
}
