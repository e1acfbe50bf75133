//! Counters of the bridge, which exchanges events with other gateways and processes, and of exchanges.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Timing;
use super::table::counts;

counts! {
    /// The exchange of events with other gateways and processes over Redis pub/sub. Each map is by type of
    /// events.
    pub struct BridgeView {
        /// 1 if both connections of the bridge are up, or, where the bridge is off, that of the storage;
        /// otherwise 0.
        connected: u64 = gauge("redis_connected"),
        /// Events published to other gateways and processes.
        published_events: u64 = counter("redis_events_published"),
        /// Events of other gateways and processes that were received and accepted.
        received_events: u64 = counter("redis_events_received"),
        /// Lost connections of the bridge, and calls that failed.
        errors: u64 = counter("redis_errors"),
        /// Types of events that should be subscribed to at the moment.
        subscriptions: usize = gauge("redis_subscriptions"),
        /// Those of them that are subscribed to.
        active_subscriptions: usize = gauge("redis_subscriptions_active"),
        /// 1 if this gateway is the one that appends durable events of other processes to the log;
        /// otherwise 0.
        takes_in: u64 = gauge("bridge_takes_in"),
        /// Accepted events that wait to be published.
        waiting: usize = gauge("bridge_waiting"),
        /// Events published, by type.
        published: BTreeMap<String, u64> = counter("bridge_published", by type),
        /// Events not published because newer ones took their room in the queue.
        queue_full: BTreeMap<String, u64> = counter("bridge_queue_full", by type),
        /// Events not published because Redis was away.
        redis_away: BTreeMap<String, u64> = counter("bridge_redis_away", by type),
        /// Events that may not have been published because Redis did not answer. They are not sent again.
        not_answered: BTreeMap<String, u64> = counter("bridge_not_answered", by type),
        /// Events received and accepted, by type.
        received: BTreeMap<String, u64> = counter("bridge_received", by type),
        /// Live events of other gateways that did not arrive.
        missed: BTreeMap<String, u64> = counter("bridge_missed", by type),
        /// Messages that are not valid events: no envelope, wrong fields for the type, or too large.
        invalid: BTreeMap<String, u64> = counter("bridge_invalid", by type),
        /// Live events dropped because they arrived after they had been reported missing.
        stale: BTreeMap<String, u64> = counter("bridge_stale", by type),
        /// This gateway's own events, which it receives too.
        own: BTreeMap<String, u64> = counter("bridge_own", by type),
        /// Durable events of other gateways, ignored because they come through the log.
        left_alone: BTreeMap<String, u64> = counter("bridge_left_alone", by type),
        /// Events dropped because their gateway has a different setting `bridge.durable`.
        other_delivery: BTreeMap<String, u64> = counter("bridge_other_delivery", by type),
        /// Live events received that this gateway's own log did not accept.
        not_taken: BTreeMap<String, u64> = counter("bridge_not_taken", by type),
        /// Durable events of other processes that this gateway appended to the log.
        taken_in: BTreeMap<String, u64> = counter("bridge_taken_in", by type),
        /// Durable events of other processes that were in the log already, by their ids.
        taken_in_before: BTreeMap<String, u64> = counter("bridge_taken_in_before", by type),
        /// Durable events of other processes dropped because too many waited for the log.
        intake_full: BTreeMap<String, u64> = counter("bridge_intake_full", by type),
        /// Durable events of other processes that this gateway had received when another one took over the
        /// lease to append them.
        lease_lost: BTreeMap<String, u64> = counter("bridge_lease_lost", by type),
        /// Times that messages of other processes may have been missed.
        gaps: u64 = counter("bridge_gaps"),
        /// Time from acceptance of live events by another gateway until they were in this one's log, as far
        /// as the clocks of the two agree.
        lag: Timing = histogram("bridge_lag_seconds"),
    }
}

/// The connection to an exchange, and what it brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct ExchangeView {
    /// What the newest event says about the connection: `connected`, `disconnected` or `reconnecting`;
    /// absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The time of that event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Events of the exchange since this node's start, accepted here or received from others, by type.
    pub events: BTreeMap<String, u64>,
}
