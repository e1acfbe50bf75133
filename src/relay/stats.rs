//! The counters of a relay.

use std::collections::BTreeMap;

use zonewire_protocol::stats::RelayView;

use super::Shared;
use crate::model::EventType;
use crate::support::counter::Counter;

/// A number for each type of events.
#[derive(Debug, Default)]
pub(super) struct ByType([Counter; EventType::ALL.len()]);

impl ByType {
    pub(super) fn of(&self, event: EventType) -> &Counter {
        &self.0[event as usize]
    }

    fn read(&self, types: &[EventType]) -> BTreeMap<String, u64> {
        types.iter().map(|event| (event.as_str().to_owned(), self.of(*event).get())).collect()
    }
}

/// Counts since the start; [`RelayView`] describes each.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) carried: ByType,
    pub(super) already_there: ByType,
    pub(super) missed: ByType,
    pub(super) unreadable: ByType,
    pub(super) behind: ByType,
    /// In milliseconds.
    pub(super) lag: ByType,
    pub(super) begun_anew: ByType,
    pub(super) live_carried: ByType,
    pub(super) live_passed: ByType,
    pub(super) live_missed: ByType,
    pub(super) live_unpublished: ByType,
    pub(super) live_stale: ByType,
    pub(super) live_by_log: ByType,
    pub(super) live_invalid: ByType,
    pub(super) gaps: Counter,
    pub(super) failures: Counter,
}

/// All counters and gauges.
pub(super) fn read(shared: &Shared) -> RelayView {
    let Shared { from, to, types, leases, counts } = shared;
    let of = |numbers: &ByType| numbers.read(types);
    let carries = |event: &EventType| (event.as_str().to_owned(), u64::from(leases.of(*event).is_ours()));
    let lag = |event: &EventType| (event.as_str().to_owned(), counts.lag.of(*event).get() as f64 / 1_000.0);
    RelayView {
        from_connected: u64::from(from.is_connected()),
        to_connected: u64::from(to.is_connected()),
        carries: types.iter().map(carries).collect(),
        carried: of(&counts.carried),
        already_there: of(&counts.already_there),
        missed: of(&counts.missed),
        unreadable: of(&counts.unreadable),
        behind: of(&counts.behind),
        lag_s: types.iter().map(lag).collect(),
        begun_anew: of(&counts.begun_anew),
        live_carried: of(&counts.live_carried),
        live_passed: of(&counts.live_passed),
        live_missed: of(&counts.live_missed),
        live_unpublished: of(&counts.live_unpublished),
        live_stale: of(&counts.live_stale),
        live_by_log: of(&counts.live_by_log),
        live_invalid: of(&counts.live_invalid),
        gaps: counts.gaps.get(),
        failures: counts.failures.get(),
    }
}
