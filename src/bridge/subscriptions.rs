//! Decides which types of events are subscribed to: those that somebody here follows, or that an operator
//! asks for.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::Shared;
use super::envelope::SEQUENCES;
use super::inbound::missed;
use crate::channels::Channels;
use crate::model::{ChannelName, EventType};
use crate::protocol::SubscriptionMode;
use crate::storage::PubSub;
use crate::support::backoff::STORAGE_RETRY;
use crate::support::seldom::Seldom;

/// How long a type stays subscribed to after its last follower here has left: clients come back.
const LINGER: Duration = Duration::from_secs(30);

const FAR: Duration = Duration::from_secs(3_600);

/// One type of events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) mode: SubscriptionMode,
    /// Whether somebody on this node follows the type.
    pub(super) is_followed: bool,
    /// When the last follower left.
    left_at: Option<Instant>,
    /// Whether the Redis server confirmed the subscription.
    pub(super) is_subscribed: bool,
}

/// All types.
#[derive(Debug)]
pub(super) struct Subscriptions {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    types: [Wanted; EventType::ALL.len()],
    /// Whether this node holds the lease for durable events of other processes.
    takes_in: bool,
}

/// What else decides about a type, besides [`Wanted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Whether the configuration includes the type.
    pub(super) subscribes: bool,
    pub(super) is_durable: bool,
}

impl Wanted {
    /// Whether to subscribe to the type. Only one gateway subscribes to durable types: the others have the
    /// log.
    fn is_due(&self, allowed: Allowed, takes_in: bool, now: Instant) -> bool {
        let is_wanted = match (self.mode, allowed.is_durable) {
            (SubscriptionMode::Never, _) => false,
            (_, true) => takes_in,
            (SubscriptionMode::Always, false) => true,
            (SubscriptionMode::Interest, false) => {
                self.is_followed || self.left_at.is_some_and(|left| now < left + LINGER)
            }
        };
        allowed.subscribes && is_wanted
    }
}

impl Subscriptions {
    pub(super) fn new() -> Self {
        let wanted = Wanted {
            mode: SubscriptionMode::Interest,
            is_followed: false,
            left_at: None,
            is_subscribed: false,
        };
        let state = State { types: [wanted; EventType::ALL.len()], takes_in: false };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Records whether somebody on this node follows a type.
    pub(super) fn set_followed(&self, event: EventType, is_followed: bool, now: Instant) {
        self.change(|state| {
            let wanted = &mut state.types[event as usize];
            if wanted.is_followed && !is_followed {
                wanted.left_at = Some(now);
            }
            wanted.is_followed = is_followed;
        });
    }

    pub(super) fn set_mode(&self, event: EventType, mode: SubscriptionMode) {
        self.change(|state| state.types[event as usize].mode = mode);
    }

    pub(super) fn set_takes_in(&self, takes_in: bool) {
        self.change(|state| state.takes_in = takes_in);
    }

    pub(super) fn takes_in(&self) -> bool {
        self.state.lock().takes_in
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }

    pub(super) fn of(&self, event: EventType) -> Wanted {
        self.state.lock().types[event as usize]
    }

    /// The types that are to be subscribed to.
    pub(super) fn due(&self, allowed: impl Fn(EventType) -> Allowed, now: Instant) -> Vec<EventType> {
        let state = self.state.lock();
        let is_due =
            |event: &EventType| state.types[*event as usize].is_due(allowed(*event), state.takes_in, now);
        EventType::ALL.into_iter().filter(is_due).collect()
    }

    /// When the next type that nobody follows any more is to be unsubscribed from.
    fn next_end(&self, now: Instant) -> Instant {
        let state = self.state.lock();
        let ends = state.types.iter().filter(|wanted| !wanted.is_followed && wanted.is_subscribed);
        let ends =
            ends.filter_map(|wanted| wanted.left_at.map(|left| left + LINGER)).filter(|end| *end > now);
        ends.min().unwrap_or(now + FAR)
    }
}

/// Subscribes to the types that are due, and unsubscribes from all others.
pub(super) struct Subscriber {
    shared: Arc<Shared>,
    pubsub: Arc<dyn PubSub>,
    channels: Channels,
    hears_sequences: bool,
    failures: u32,
    of_failures: Seldom,
}

impl Subscriber {
    pub(super) fn new(shared: Arc<Shared>, pubsub: Arc<dyn PubSub>, channels: Channels) -> Self {
        let of_failures = Seldom::default();
        Self { shared, pubsub, channels, hears_sequences: false, failures: 0, of_failures }
    }

    /// Runs until dropped.
    pub(super) async fn run(mut self) {
        loop {
            let is_settled = self.settle().await;
            self.failures = if is_settled { 0 } else { self.failures + 1 };
            let now = Instant::now();
            let subscriptions = &self.shared.subscriptions;
            let again = if is_settled {
                subscriptions.next_end(now)
            } else {
                now + STORAGE_RETRY.wait(self.failures)
            };
            tokio::select! {
                // Changes that occur while it fails wait for the next try.
                () = subscriptions.changed.notified(), if is_settled => {}
                () = time::sleep_until(again) => {}
            }
        }
    }

    /// Subscribes and unsubscribes as needed; true if nothing is left to do.
    async fn settle(&mut self) -> bool {
        if !self.hears_sequences {
            let followed = self.pubsub.follow(&self.shared.channel(SEQUENCES)).await;
            self.hears_sequences = self.has_worked(followed);
        }
        let shared = Arc::clone(&self.shared);
        let due = shared.due();
        let mut is_settled = self.hears_sequences;
        for event in EventType::ALL {
            let (is_due, is_subscribed) =
                (due.contains(&event), shared.subscriptions.of(event).is_subscribed);
            if is_due == is_subscribed {
                continue;
            }
            let channel = shared.channel(event.as_str());
            // Nothing published before a subscription, or between two, counts as missed.
            shared.sequences.lock().begin_anew(event);
            let done = if is_due {
                self.pubsub.follow(&channel).await
            } else {
                shared.sequences.lock().follow(event, false);
                self.pubsub.unfollow(&channel).await
            };
            if !self.has_worked(done) {
                is_settled = false;
                continue;
            }
            debug!(
                event = event.as_str(),
                is_due, "subscribed to events of other processes, or unsubscribed"
            );
            shared.sequences.lock().follow(event, is_due);
            shared.subscriptions.state.lock().types[event as usize].is_subscribed = is_due;
            // Changes that occur after a failure wait for the next try, so any type may have been due since
            // then.
            let was_late = self.failures > 0 || !is_settled;
            if is_due && was_late && !shared.config.is_durable(event) {
                self.tell_late(event).await;
            }
        }
        is_settled
    }

    /// Notifies followers of a live type who came before the subscription existed, such as when Redis was
    /// away from the start, that events may be missing; nobody knows how many.
    async fn tell_late(&self, event: EventType) {
        self.shared.counts.gaps.add(1);
        let told = self.channels.take_in(&ChannelName::event(event), vec![missed(None, Utc::now())]).await;
        if let Err(error) = told {
            debug!(event = event.as_str(), error = %error, "followers could not be notified that events may be missing");
        }
    }

    fn has_worked(&mut self, done: crate::storage::Result<()>) -> bool {
        let Err(error) = done else { return true };
        // Without a connection every call fails; the loss of the connection is counted separately.
        if self.pubsub.health().hears {
            self.shared.counts.errors.add(1);
            if let Some(untold) = self.of_failures.may_tell(Instant::now()) {
                warn!(error = %error, untold, "could not subscribe to events of other processes; trying again");
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: Allowed = Allowed { subscribes: true, is_durable: false };
    const DURABLE: Allowed = Allowed { subscribes: true, is_durable: true };

    fn due(subscriptions: &Subscriptions, allowed: Allowed, now: Instant) -> bool {
        subscriptions.due(|_| allowed, now).contains(&EventType::Ticker)
    }

    #[test]
    fn a_live_type_is_subscribed_to_while_it_is_followed_and_a_while_after() {
        let (subscriptions, now) = (Subscriptions::new(), Instant::now());
        assert!(!due(&subscriptions, LIVE, now));
        subscriptions.set_followed(EventType::Ticker, true, now);
        assert!(due(&subscriptions, LIVE, now) && !due(&subscriptions, DURABLE, now));
        assert!(!due(&subscriptions, Allowed { subscribes: false, ..LIVE }, now));
        subscriptions.set_followed(EventType::Ticker, false, now);
        assert!(due(&subscriptions, LIVE, now + LINGER - Duration::from_millis(1)));
        assert!(!due(&subscriptions, LIVE, now + LINGER));
    }

    #[test]
    fn an_operator_overrides_followers_and_one_gateway_subscribes_to_durable_types() {
        let (subscriptions, now) = (Subscriptions::new(), Instant::now());
        subscriptions.set_mode(EventType::Ticker, SubscriptionMode::Always);
        assert!(due(&subscriptions, LIVE, now) && !due(&subscriptions, DURABLE, now));
        subscriptions.set_takes_in(true);
        assert!(due(&subscriptions, DURABLE, now));
        subscriptions.set_followed(EventType::Ticker, true, now);
        subscriptions.set_mode(EventType::Ticker, SubscriptionMode::Never);
        assert!(!due(&subscriptions, LIVE, now) && !due(&subscriptions, DURABLE, now));
    }
}
