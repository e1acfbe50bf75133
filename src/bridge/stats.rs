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

/// Declares the counters by type, and reads them into the fields of [`BridgeView`] with the same names.
macro_rules! counts {
    ($($by_type:ident,)+) => {
        /// Counts since the start; [`BridgeView`] describes each.
        #[derive(Debug, Default)]
        pub(super) struct Counts {
            $(pub(super) $by_type: ByType,)+
            pub(super) gaps: Counter,
            pub(super) errors: Counter,
            pub(super) lag: Timing<Counter>,
        }

        impl Counts {
            /// The counters. The fields about the connections are left at 0.
            pub(super) fn read(&self) -> BridgeView {
                BridgeView {
                    published_events: self.published.all(),
                    received_events: self.received.all(),
                    errors: self.errors.get(),
                    $($by_type: self.$by_type.read(),)+
                    gaps: self.gaps.get(),
                    lag: self.lag.read(),
                    ..BridgeView::default()
                }
            }
        }
    };
}

counts! {
    published, queue_full, redis_away, not_answered,
    received, missed, invalid, stale, own, left_alone, other_delivery, not_taken,
    taken_in, taken_in_before, intake_full, lease_lost,
}
