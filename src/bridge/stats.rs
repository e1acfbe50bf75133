//! The bridge's counters.

use std::collections::BTreeMap;

use zonewire_protocol::stats::{BridgeView, Live as _, Timing};

use crate::model::EventType;
use crate::support::counter::Counter;

/// A number for each type of events.
#[derive(Debug, Default)]
pub(crate) struct ByType([Counter; EventType::ALL.len()]);

impl ByType {
    pub(crate) fn of(&self, event: EventType) -> &Counter {
        &self.0[event as usize]
    }

    pub(super) fn add(&self, event: EventType) {
        self.add_many(event, 1);
    }

    pub(super) fn add_many(&self, event: EventType, count: u64) {
        self.of(event).add(count);
    }

    pub(super) fn get(&self, event: EventType) -> u64 {
        self.of(event).get()
    }

    fn all(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }

    pub(crate) fn read(&self, types: &[EventType]) -> BTreeMap<String, u64> {
        types.iter().map(|event| (event.as_str().to_owned(), self.of(*event).get())).collect()
    }
}

/// Declares counters by type of events, and others. `read_by_type` fills the fields of the view that have the names of
/// counters by type; the other fields are those of `rest`.
macro_rules! counts_by_type {
    (
        $(#[$about:meta])*
        $name:ident in $view:ident { by type: $($field:ident),+; $($other:ident: $type:ty),+ }
    ) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub(super) struct $name {
            $(pub(super) $field: $crate::bridge::ByType,)+
            $(pub(super) $other: $type,)+
        }

        impl $name {
            fn read_by_type(&self, types: &[EventType], rest: $view) -> $view {
                $view { $($field: self.$field.read(types),)+ ..rest }
            }
        }
    };
}

pub(crate) use counts_by_type;

counts_by_type! {
    /// Counts since the start; [`BridgeView`] describes each.
    Counts in BridgeView {
        by type: published, queue_full, redis_away, not_answered, received, missed, invalid, stale, own, left_alone,
            other_delivery, not_taken, taken_in, taken_in_before, intake_full, lease_lost;
        gaps: Counter, errors: Counter, lag: Timing<Counter>
    }
}

impl Counts {
    /// The counters. The fields about the connections are left at 0.
    pub(super) fn read(&self) -> BridgeView {
        let rest = BridgeView {
            published_events: self.published.all(),
            received_events: self.received.all(),
            errors: self.errors.get(),
            gaps: self.gaps.get(),
            lag: self.lag.read(),
            ..BridgeView::default()
        };
        self.read_by_type(&EventType::ALL, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The compiler does not notice a map of the view for which there is no counter.
    #[test]
    fn every_map_of_the_view_has_its_counter() {
        let view = serde_json::to_value(Counts::default().read()).unwrap();
        for (name, value) in view.as_object().unwrap() {
            assert!(value.as_object().is_none_or(|map| !map.is_empty()), "{name} is never read");
        }
    }
}
