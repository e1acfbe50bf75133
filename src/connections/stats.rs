//! What the connections count.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::protocol::{CloseCode, ErrorCode};
use crate::support::counter::Counter;

/// Upper bounds of the duration buckets, in seconds.
pub(crate) const DURATION_BUCKETS_S: [u64; 8] = [1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800];

/// Counters of one shard, since the start. Written by its thread, read by any.
#[derive(Debug, Default)]
pub(crate) struct ShardStats {
    pub(crate) opened: Counter,
    /// By place in [`CloseCode::ALL`].
    closed: [Counter; CloseCode::ALL.len()],
    pub(crate) messages_sent: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) bytes_received: Counter,
    /// By place in [`ErrorCode::ALL`].
    errors: [Counter; ErrorCode::ALL.len()],
    /// Frames that a newer one replaced while they waited.
    pub(crate) conflated: Counter,
    /// Messages that waited for a reader which was closed as too slow.
    pub(crate) dropped_slow: Counter,
    /// Messages that waited when a connection ended for another reason.
    pub(crate) dropped_closed: Counter,
    /// Times that entries were read from the log for a client.
    pub(crate) replays: Counter,
    /// Entries sent from the log.
    pub(crate) replayed: Counter,
    /// Times that a client was sent the latest entry of each key, or began to be.
    pub(crate) snapshots: Counter,
    /// Entries sent so.
    pub(crate) snapshot_entries: Counter,
    /// Gaps that clients were told of.
    pub(crate) gaps_told: Counter,
    /// Times that a shard waited for readers that fell behind.
    pub(crate) paced: Counter,
    /// Panics that ended a connection.
    pub(crate) panics: Counter,
    durations: [Counter; DURATION_BUCKETS_S.len()],
    duration_ms_sum: Counter,
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
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct ConnectionTotals {
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) closed_by_reason: BTreeMap<&'static str, u64>,
    pub(crate) messages_sent: u64,
    pub(crate) messages_received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) errors: u64,
    pub(crate) errors_by_code: BTreeMap<&'static str, u64>,
    pub(crate) conflated: u64,
    pub(crate) dropped_by_reason: BTreeMap<&'static str, u64>,
    pub(crate) replays: u64,
    pub(crate) replayed: u64,
    pub(crate) snapshots: u64,
    pub(crate) snapshot_entries: u64,
    pub(crate) gaps_told: u64,
    pub(crate) paced: u64,
    pub(crate) panics: u64,
    /// Ended connections by duration, not cumulative; the bounds are [`DURATION_BUCKETS_S`].
    pub(crate) durations: [u64; DURATION_BUCKETS_S.len()],
    pub(crate) duration_ms_sum: u64,
}

impl ConnectionTotals {
    pub(super) fn sum<'a>(shards: impl Iterator<Item = &'a ShardStats>) -> Self {
        let mut total = Self::default();
        for shard in shards {
            total.opened += shard.opened.get();
            for (code, count) in CloseCode::ALL.iter().zip(&shard.closed) {
                total.closed += count.get();
                *total.closed_by_reason.entry(code.reason()).or_default() += count.get();
            }
            for (code, count) in ErrorCode::ALL.iter().zip(&shard.errors) {
                total.errors += count.get();
                *total.errors_by_code.entry(code.as_str()).or_default() += count.get();
            }
            total.messages_sent += shard.messages_sent.get();
            total.messages_received += shard.messages_received.get();
            total.bytes_received += shard.bytes_received.get();
            total.conflated += shard.conflated.get();
            *total.dropped_by_reason.entry("slow_consumer").or_default() += shard.dropped_slow.get();
            *total.dropped_by_reason.entry("connection_ended").or_default() += shard.dropped_closed.get();
            total.replays += shard.replays.get();
            total.replayed += shard.replayed.get();
            total.snapshots += shard.snapshots.get();
            total.snapshot_entries += shard.snapshot_entries.get();
            total.gaps_told += shard.gaps_told.get();
            total.paced += shard.paced.get();
            total.panics += shard.panics.get();
            for (sum, count) in total.durations.iter_mut().zip(&shard.durations) {
                *sum += count.get();
            }
            total.duration_ms_sum += shard.duration_ms_sum.get();
        }
        total
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }

    /// Errors in percent of the messages received; 0 when none was received.
    pub(crate) fn error_rate_percent(&self) -> f64 {
        if self.messages_received == 0 {
            return 0.0;
        }
        // Counts stay far below 2^53.
        (self.errors as f64 * 100.0 / self.messages_received as f64 * 100.0).round() / 100.0
    }
}

/// How well one connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionHealth {
    /// Reads as fast as is written, and was heard from.
    Healthy,
    /// Messages wait for it.
    Behind,
    /// Nothing was heard from it for more than a heartbeat interval and a half.
    Silent,
    /// Its close is under way.
    Closing,
}

/// One connection, for `/ws/stats`.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionInfo {
    /// As said in `connection_established`.
    pub connection_id: Uuid,
    /// How well it does.
    pub health: ConnectionHealth,
    /// What it is subscribed to.
    pub channels: Vec<String>,
    /// How long it has been open, in seconds.
    pub connected_s: u64,
    /// When anything was last heard from it, in seconds before now.
    pub last_heard_s_ago: u64,
    /// Text messages that it sent.
    pub messages_received: u64,
    /// Messages that wait for it.
    pub waiting_messages: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
    /// Who its client is, where that was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}
