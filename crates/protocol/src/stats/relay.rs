//! What is counted of a relay, which carries events from one fleet of gateways to another.

use std::collections::BTreeMap;

use super::table::counts;

counts! {
    /// A relay between two fleets. Each map is by type of events.
    pub struct RelayView {
        /// Whether all connections to the Redis that events come from are there: 1, or 0.
        from_connected: u64 = gauge("relay_connected", end = "from"),
        /// Whether all connections to the Redis that they go to are there.
        to_connected: u64 = gauge("relay_connected", end = "to"),
        /// Whether it is this process that carries the type: 1, or 0 where another one does.
        carries: BTreeMap<String, u64> = gauge("relay_carries", by type),
        /// Events of the log that this process put into the target's.
        carried: BTreeMap<String, u64> = counter("relay_carried", by type),
        /// Events of the log that the target had, since they are its own, or came another way.
        already_there: BTreeMap<String, u64> = counter("relay_already_there", by type),
        /// Events that were gone from the log before they were carried.
        missed: BTreeMap<String, u64> = counter("relay_missed", by type),
        /// Entries of the log that cannot be carried, since nobody can read who accepted them.
        unreadable: BTreeMap<String, u64> = counter("relay_unreadable", by type),
        /// Entries of the log that are not carried yet.
        behind: BTreeMap<String, u64> = gauge("relay_behind", by type),
        /// How old the newest event was when the target's log had it, by its own time.
        lag_s: BTreeMap<String, f64> = gauge("relay_lag_seconds", by type),
        /// Times that a log was gone through from its beginning, since one of the two began another life or lost
        /// what it had.
        begun_anew: BTreeMap<String, u64> = counter("relay_begun_anew", by type),
        /// Live messages that were published at the target.
        live_carried: BTreeMap<String, u64> = counter("relay_live_carried", by type),
        /// Live messages that have been at the target, or come round.
        live_passed: BTreeMap<String, u64> = counter("relay_live_passed", by type),
        /// Live events that gateways numbered, and that were not heard.
        live_missed: BTreeMap<String, u64> = counter("relay_live_missed", by type),
        /// Live messages that were heard, and that the target may not have, since it was away.
        live_unpublished: BTreeMap<String, u64> = counter("relay_live_unpublished", by type),
        /// Live events that came after they were counted as missed, or again, and were let go.
        live_stale: BTreeMap<String, u64> = counter("relay_live_stale", by type),
        /// Messages on the channels of live types that come by the log.
        live_by_log: BTreeMap<String, u64> = counter("relay_live_by_log", by type),
        /// Messages on the channels of live types that are no events, or too large.
        live_invalid: BTreeMap<String, u64> = counter("relay_live_invalid", by type),
        /// Times that live messages of processes that number nothing may have been missed.
        gaps: u64 = counter("relay_gaps"),
        /// Calls of either Redis that failed. What they were for is tried again.
        failures: u64 = counter("relay_failures"),
    }
}
