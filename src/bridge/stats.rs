//! The bridge's counters.

use std::collections::BTreeMap;

use zonewire_protocol::stats::{BridgeView, Live as _, Timing};

use crate::model::EventType;
use crate::support::counter::Counter;

/// A number for each type of events.
#[derive(Debug, Default)]
pub(super) struct ByType([Counter; EventType::ALL.len()]);

impl ByType {
    pub(super) fn add(&self, event: EventType) {
        self.add_many(event, 1);
    }

    pub(super) fn add_many(&self, event: EventType, count: u64) {
        self.0[event as usize].add(count);
    }

    pub(super) fn get(&self, event: EventType) -> u64 {
        self.0[event as usize].get()
    }

    fn all(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }

    fn read(&self) -> BTreeMap<String, u64> {
        EventType::ALL.into_iter().map(|event| (event.as_str().to_owned(), self.get(event))).collect()
    }
}

/// Counts since the start; [`BridgeView`] describes each.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) published: ByType,
    pub(super) queue_full: ByType,
    pub(super) redis_away: ByType,
    pub(super) not_answered: ByType,
    pub(super) received: ByType,
    pub(super) missed: ByType,
    pub(super) invalid: ByType,
    pub(super) stale: ByType,
    pub(super) own: ByType,
    pub(super) left_alone: ByType,
    pub(super) other_delivery: ByType,
    pub(super) not_taken: ByType,
    pub(super) taken_in: ByType,
    pub(super) taken_in_before: ByType,
    pub(super) intake_full: ByType,
    pub(super) lease_lost: ByType,
    pub(super) gaps: Counter,
    pub(super) errors: Counter,
    pub(super) lag: Timing<Counter>,
}

/// The current state of the connections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub(super) connected: bool,
    pub(super) losses: u64,
    pub(super) waiting: usize,
    pub(super) subscriptions: usize,
    pub(super) active_subscriptions: usize,
    pub(super) takes_in: bool,
}

impl Counts {
    pub(super) fn read(&self, standing: Standing) -> BridgeView {
        let Standing { connected, losses, waiting, subscriptions, active_subscriptions, takes_in } = standing;
        BridgeView {
            connected: u64::from(connected),
            published_events: self.published.all(),
            received_events: self.received.all(),
            errors: self.errors.get() + losses,
            subscriptions,
            active_subscriptions,
            takes_in: u64::from(takes_in),
            waiting,
            published: self.published.read(),
            queue_full: self.queue_full.read(),
            redis_away: self.redis_away.read(),
            not_answered: self.not_answered.read(),
            received: self.received.read(),
            missed: self.missed.read(),
            invalid: self.invalid.read(),
            stale: self.stale.read(),
            own: self.own.read(),
            left_alone: self.left_alone.read(),
            other_delivery: self.other_delivery.read(),
            not_taken: self.not_taken.read(),
            taken_in: self.taken_in.read(),
            taken_in_before: self.taken_in_before.read(),
            intake_full: self.intake_full.read(),
            lease_lost: self.lease_lost.read(),
            gaps: self.gaps.get(),
            lag: self.lag.read(),
        }
    }
}
