//! Counters of a relay, which carries events from one fleet of gateways to another.

use std::collections::BTreeMap;

use super::table::counts;

counts! {
    /// A relay between two fleets. Each map is by type of events.
    pub struct RelayView {
        /// 1 if all connections to the source's Redis are up, otherwise 0.
        from_connected: u64 = gauge("relay_connected", end = "from"),
        /// 1 if all connections to the target's Redis are up, otherwise 0.
        to_connected: u64 = gauge("relay_connected", end = "to"),
        /// 1 if this process carries the type, 0 if another one does.
        carries: BTreeMap<String, u64> = gauge("relay_carries", by type),
        /// Events of the source's log that this process appended to the target's.
        carried: BTreeMap<String, u64> = counter("relay_carried", by type),
        /// Events of the source's log that the target had already, because they came from it or by another
        /// way.
        already_there: BTreeMap<String, u64> = counter("relay_already_there", by type),
        /// Events that left the source's log before they were carried.
        missed: BTreeMap<String, u64> = counter("relay_missed", by type),
        /// Entries of the source's log that cannot be carried because nobody can read who accepted them.
        unreadable: BTreeMap<String, u64> = counter("relay_unreadable", by type),
        /// Entries of the source's log that are still to be carried.
        behind: BTreeMap<String, u64> = gauge("relay_behind", by type),
        /// The age of the newest event when the target's log accepted it, by the event's own time.
        lag_s: BTreeMap<String, f64> = gauge("relay_lag_seconds", by type),
        /// Times that a log was read again from its beginning, because one of the two changed its epoch or
        /// lost entries.
        begun_anew: BTreeMap<String, u64> = counter("relay_begun_anew", by type),
        /// Live messages published at the target.
        live_carried: BTreeMap<String, u64> = counter("relay_live_carried", by type),
        /// Live messages that had been at the target already, or came back in a circle.
        live_passed: BTreeMap<String, u64> = counter("relay_live_passed", by type),
        /// Numbered live events of gateways that were not received.
        live_missed: BTreeMap<String, u64> = counter("relay_live_missed", by type),
        /// Live messages that were received but may not have reached the target, because it was away.
        live_unpublished: BTreeMap<String, u64> = counter("relay_live_unpublished", by type),
        /// Live events dropped because they had been counted as missed, or arrived twice.
        live_stale: BTreeMap<String, u64> = counter("relay_live_stale", by type),
        /// Messages on channels of live types that come through the log.
        live_by_log: BTreeMap<String, u64> = counter("relay_live_by_log", by type),
        /// Messages on channels of live types that are not valid events, or too large.
        live_invalid: BTreeMap<String, u64> = counter("relay_live_invalid", by type),
        /// Times that live messages of processes that do not number them may have been missed.
        gaps: u64 = counter("relay_gaps"),
        /// Failed calls of either Redis. Each is tried again.
        failures: u64 = counter("relay_failures"),
    }
}
