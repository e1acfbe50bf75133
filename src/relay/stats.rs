//! The counters of a relay.

use zonewire_protocol::stats::RelayView;

use super::Shared;
use crate::bridge::{ByType, counts_by_type};
use crate::model::EventType;
use crate::support::counter::Counter;

counts_by_type! {
    /// Counts since the start; [`RelayView`] describes each. `lag` is in milliseconds.
    Counts in RelayView {
        by type: carried, already_there, missed, unreadable, behind, begun_anew, live_carried, live_passed, live_missed,
            live_unpublished, live_stale, live_by_log, live_invalid;
        lag: ByType, gaps: Counter, failures: Counter
    }
}

/// All counters and gauges.
pub(super) fn read(shared: &Shared) -> RelayView {
    let Shared { from, to, types, leases, counts } = shared;
    let carries = |event: &EventType| (event.as_str().to_owned(), u64::from(leases.of(*event).is_ours()));
    let lag = |event: &EventType| (event.as_str().to_owned(), counts.lag.of(*event).get() as f64 / 1_000.0);
    let rest = RelayView {
        from_connected: u64::from(from.is_connected()),
        to_connected: u64::from(to.is_connected()),
        carries: types.iter().map(carries).collect(),
        lag_s: types.iter().map(lag).collect(),
        gaps: counts.gaps.get(),
        failures: counts.failures.get(),
        ..RelayView::default()
    };
    counts.read_by_type(types, rest)
}
