//! Which orders and events somebody on this node follows: for those who fetch them from elsewhere.

use std::collections::{BTreeSet, HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::model::{ChannelName, EventType, OrderId};

/// The orders whose channels have subscribers on this node. Changes wait until they are taken, at most one
/// per order; so none is missed, and what waits is bounded by the channels in use.
#[derive(Debug, Default)]
pub(crate) struct WatchedOrders {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Whether somebody takes the changes.
    is_read: bool,
    watched: HashSet<OrderId>,
    changed: HashSet<OrderId>,
}

impl WatchedOrders {
    /// Starts to record changes; earlier ones are not recorded, because nobody would take them.
    pub(crate) fn begin(&self) {
        self.state.lock().is_read = true;
    }

    /// Records whether a channel has subscribers. If that is unchanged, a change is recorded only when it
    /// has some, because its log may have a new epoch.
    pub(super) fn set(&self, channel: &ChannelName, watched: bool) {
        let Some(order) = channel.as_order() else { return };
        let mut state = self.state.lock();
        if !state.is_read {
            return;
        }
        let moved = if watched { state.watched.insert(order) } else { state.watched.remove(&order) };
        if moved || watched {
            state.changed.insert(order);
            drop(state);
            self.notify.notify_one();
        }
    }

    /// Waits for changes and takes them: for each order that changed, whether it is watched now. For one
    /// caller. Cancel safe: if the future is dropped, no change is lost.
    pub(crate) async fn changes(&self) -> HashMap<OrderId, bool> {
        loop {
            let notified = self.notify.notified();
            {
                let mut state = self.state.lock();
                if !state.changed.is_empty() {
                    let changed = std::mem::take(&mut state.changed);
                    return changed
                        .into_iter()
                        .map(|order| (order, state.watched.contains(&order)))
                        .collect();
                }
            }
            notified.await;
        }
    }
}

/// The types of events whose channels or views have subscribers on this node.
#[derive(Debug, Default)]
pub(crate) struct FollowedEvents(watch::Sender<BTreeSet<EventType>>);

impl FollowedEvents {
    /// Records whether a channel has subscribers.
    pub(super) fn set(&self, channel: &ChannelName, is_followed: bool) {
        let Some((event, _)) = channel.as_event() else { return };
        self.0.send_if_modified(
            |followed| {
                if is_followed { followed.insert(event) } else { followed.remove(&event) }
            },
        );
    }

    /// The current types, and each change from here on; of several quick changes, the last one.
    pub(super) fn watch(&self) -> watch::Receiver<BTreeSet<EventType>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_change_is_told_once_with_the_state_it_led_to() {
        let orders = WatchedOrders::default();
        let [a, b] = [OrderId::random(), OrderId::random()];
        orders.set(&ChannelName::order(a), true);
        orders.begin();
        orders.set(&"zone:pjm".parse().unwrap(), true);
        orders.set(&ChannelName::order(a), true);
        orders.set(&ChannelName::order(b), true);
        orders.set(&ChannelName::order(b), false);
        assert_eq!(orders.changes().await, HashMap::from([(a, true), (b, false)]));
        orders.set(&ChannelName::order(b), false);
        orders.set(&ChannelName::order(a), true);
        assert_eq!(orders.changes().await, HashMap::from([(a, true)]), "its log may have begun a new epoch");
    }
    #[test]
    fn types_of_events_are_followed_from_the_first_subscriber_to_the_last() {
        let events = FollowedEvents::default();
        let followed = events.watch();
        events.set(&"zone:pjm".parse().unwrap(), true);
        events.set(&ChannelName::event(EventType::Trade), true);
        events.set(&ChannelName::event(EventType::Ticker), true);
        events.set(&ChannelName::event(EventType::Trade), false);
        assert_eq!(*followed.borrow(), BTreeSet::from([EventType::Ticker]));
    }
}
