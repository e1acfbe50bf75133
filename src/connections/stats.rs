//! Counters of connections.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use zonewire_protocol::stats::{ConnectionsView, DurationBucket, Live as _, MessageCounts, MessagesView};

use crate::protocol::{CloseCode, ErrorCode};
use crate::support::counter::Counter;

/// Upper bounds of the duration buckets, in seconds.
const DURATION_BUCKETS_S: [u64; 8] = [1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800];

/// Counters of one shard since the start. Written by its thread, read by any.
#[derive(Debug, Default)]
pub(crate) struct ShardStats {
    /// When the shard began.
    pub(super) began: Began,
    pub(crate) opened: Counter,
    /// Event streams among them.
    pub(crate) streams_opened: Counter,
    pub(crate) streams_ended: Counter,
    /// By index in [`CloseCode::ALL`].
    closed: [Counter; CloseCode::ALL.len()],
    pub(crate) messages: MessageCounts<Counter>,
    /// By index in [`ErrorCode::ALL`].
    errors: [Counter; ErrorCode::ALL.len()],
    durations: [Counter; DURATION_BUCKETS_S.len()],
    duration_ms_sum: Counter,
    /// The shard's tasks: connections and subscriptions. It waits for them before it ends.
    pub(super) tasks: TaskTracker,
    /// Other tasks of its thread: requests, and connections that have not sent one yet.
    pub(super) served: TaskTracker,
}

/// The time at which this was made.
#[derive(Debug)]
pub(super) struct Began(pub(super) Instant);

impl Default for Began {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl ShardStats {
    pub(super) fn count_error(&self, code: ErrorCode) {
        if let Some(place) = ErrorCode::ALL.iter().position(|known| *known == code) {
            self.errors[place].add(1);
        }
    }

    pub(super) fn count_close(&self, code: CloseCode, lasted: Duration) {
        if let Some(place) = CloseCode::ALL.iter().position(|known| *known == code) {
            self.closed[place].add(1);
        }
        if let Some(bucket) =
            DURATION_BUCKETS_S.iter().position(|bound| lasted.as_secs_f64() <= *bound as f64)
        {
            self.durations[bucket].add(1);
        }
        self.duration_ms_sum.add(u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
impl ShardStats {
    pub(super) fn totals_of_errors(&self) -> u64 {
        self.errors.iter().map(Counter::get).sum()
    }

    pub(super) fn closed(&self) -> u64 {
        self.closed.iter().map(Counter::get).sum()
    }
}

/// Counters of all shards together, at one moment.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) connections: ConnectionsView,
    pub(crate) messages: MessagesView,
}

impl Totals {
    pub(super) fn sum<'a>(shards: impl Iterator<Item = &'a ShardStats>) -> Self {
        let Self { mut connections, mut messages } = Self::default();
        let (mut durations, mut duration_ms_sum) = ([0; DURATION_BUCKETS_S.len()], 0);
        for shard in shards {
            connections.total += shard.opened.get();
            let streams_ended = shard.streams_ended.get();
            connections.event_streams += shard.streams_opened.get().saturating_sub(streams_ended);
            for (code, count) in CloseCode::ALL.iter().zip(&shard.closed) {
                connections.total_disconnections += count.get();
                *connections.closed_by_reason.entry(code.reason().to_owned()).or_default() += count.get();
            }
            for (code, count) in ErrorCode::ALL.iter().zip(&shard.errors) {
                messages.errors += count.get();
                *messages.errors_by_code.entry(code.as_str().to_owned()).or_default() += count.get();
            }
            messages.counts += shard.messages.read();
            for (sum, count) in durations.iter_mut().zip(&shard.durations) {
                *sum += count.get();
            }
            duration_ms_sum += shard.duration_ms_sum.get();
        }
        let closed = connections.total_disconnections;
        connections.open = connections.total.saturating_sub(closed);
        // Counts stay far below 2^53.
        if closed > 0 {
            connections.average_duration_s = (duration_ms_sum as f64 / closed as f64).round() / 1_000.0;
        }
        let durations = DURATION_BUCKETS_S.iter().zip(durations);
        let durations = durations.map(|(&up_to_s, connections)| DurationBucket { up_to_s, connections });
        connections.durations = durations.collect();
        if messages.counts.received > 0 {
            let rate = messages.errors as f64 * 100.0 / messages.counts.received as f64;
            messages.error_rate_percent = (rate * 100.0).round() / 100.0;
        }
        Self { connections, messages }
    }
}
