//! What is counted of events that are exchanged with other gateways and processes, and of exchanges.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Timing;
use super::table::counts;

counts! {
    /// The exchange of events with other gateways and processes by Redis pub/sub. Each map is by type of
    /// events.
    pub struct BridgeView {
        /// Whether both connections of the bridge are there, or, where it is off, the storage's: 1, or 0.
        connected: u64 = gauge("redis_connected"),
        /// Events published to other gateways and processes.
        published_events: u64 = counter("redis_events_published"),
        /// Events of other gateways and processes that were heard and taken.
        received_events: u64 = counter("redis_events_received"),
        /// Connections of the bridge that were lost, and calls that failed.
        errors: u64 = counter("redis_errors"),
        /// Types of events that are to be subscribed to at the moment.
        subscriptions: usize = gauge("redis_subscriptions"),
        /// Of these, those that are.
        active_subscriptions: usize = gauge("redis_subscriptions_active"),
        /// Whether this gateway is the one that takes durable events of other processes in: 1, or 0.
        takes_in: u64 = gauge("bridge_takes_in"),
        /// Accepted events that wait to be published.
        waiting: usize = gauge("bridge_waiting"),
        /// Events published, by type.
        published: BTreeMap<String, u64> = counter("bridge_published", by type),
        /// Events not published, since newer ones left no room for them in the queue.
        queue_full: BTreeMap<String, u64> = counter("bridge_queue_full", by type),
        /// Events not published, since Redis was away.
        redis_away: BTreeMap<String, u64> = counter("bridge_redis_away", by type),
        /// Events that may not have been published, since Redis did not answer. They are not sent again.
        not_answered: BTreeMap<String, u64> = counter("bridge_not_answered", by type),
        /// Events heard and taken, by type.
        received: BTreeMap<String, u64> = counter("bridge_received", by type),
        /// Live events of other gateways that did not come.
        missed: BTreeMap<String, u64> = counter("bridge_missed", by type),
        /// Messages that are no events: no envelope, no event of the type, or too large.
        invalid: BTreeMap<String, u64> = counter("bridge_invalid", by type),
        /// Live events that came after they were said to be missing, and were let go.
        stale: BTreeMap<String, u64> = counter("bridge_stale", by type),
        /// This gateway's own events, as it hears them itself.
        own: BTreeMap<String, u64> = counter("bridge_own", by type),
        /// Durable events of other gateways, which come by the log.
        left_alone: BTreeMap<String, u64> = counter("bridge_left_alone", by type),
        /// Events of gateways that have another setting `bridge.durable`, which were let go.
        other_delivery: BTreeMap<String, u64> = counter("bridge_other_delivery", by type),
        /// Live events heard that this gateway's own log did not take.
        not_taken: BTreeMap<String, u64> = counter("bridge_not_taken", by type),
        /// Durable events of other processes that this gateway put into the log.
        taken_in: BTreeMap<String, u64> = counter("bridge_taken_in", by type),
        /// Durable events of other processes that were in the log, by their own ids.
        taken_in_before: BTreeMap<String, u64> = counter("bridge_taken_in_before", by type),
        /// Durable events of other processes let go, since too many waited for the log.
        intake_full: BTreeMap<String, u64> = counter("bridge_intake_full", by type),
        /// Durable events of other processes that this gateway had heard when another one began to take them
        /// in.
        lease_lost: BTreeMap<String, u64> = counter("bridge_lease_lost", by type),
        /// Times that messages of other processes may have been missed.
        gaps: u64 = counter("bridge_gaps"),
        /// How long after their acceptance by another gateway live events were in this one's log. The clocks of
        /// the two count.
        lag: Timing = histogram("bridge_lag_seconds"),
    }
}

/// How an exchange is reached, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct ExchangeView {
    /// What the newest event says of how it is reached: `connected`, `disconnected` or `reconnecting`; absent
    /// where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The time of that event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Events of it that this node accepted, or heard of others, since its start, by type.
    pub events: BTreeMap<String, u64>,
}
