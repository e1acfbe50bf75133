//! Writes this node's record of itself.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use zonewire_protocol::stats::{DeliveryLag, FleetNode, Timing, ZoneConnections};

use super::{Fleet, GONE_AFTER};
use crate::storage::RecordKind;

/// How often the record is written.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// How long counting connections by zone may take: the record must be written in time.
const COUNTED_WITHIN: Duration = Duration::from_millis(250);

/// The lag in a record covers this many of the latest periods between writes.
const LAG_OF: usize = 10;

/// How many zones a record lists.
const ZONES_MAX: usize = 64;

/// The connections of this node, as its record describes them.
#[async_trait]
pub(crate) trait OpenSockets: fmt::Debug + Send + Sync {
    /// How many are open, and the delivery times of entries since the start.
    fn totals(&self) -> (u64, Timing);

    /// Subscribers by zone. The future is dropped if it takes too long.
    async fn by_zone(&self) -> Vec<(String, u64)>;
}

impl Fleet {
    /// Writes this node's record until `stop`, then deletes it.
    pub(crate) async fn announce(self, sockets: Arc<dyn OpenSockets>, stop: CancellationToken) {
        let mut tick = time::interval(WRITE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut is_leaving) = (VecDeque::new(), false);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // A node that is about to stop says so at once.
                () = self.0.parts.leaving.cancelled(), if !is_leaving => is_leaving = true,
                _ = tick.tick() => {}
            }
            self.measure(&*sockets, &mut before).await;
            self.write_record().await;
        }
        // If the record cannot be deleted, it expires.
        let key = self.0.parts.node.to_string();
        if !self.is_by_itself()
            && let Err(error) = self.0.parts.backend.delete(RecordKind::Node, &key).await
        {
            debug!(error = %error, "could not delete this node's record; it will expire");
        }
    }

    async fn measure(&self, sockets: &dyn OpenSockets, before: &mut VecDeque<Timing>) {
        let zones = time::timeout(COUNTED_WITHIN, sockets.by_zone()).await.ok();
        let (connections, delivered) = sockets.totals();
        let lag_ms = lag(before, delivered);
        let state = self.state().into();
        let mut own = self.0.own.lock();
        // If the shards are too busy to count, the previous zones stay.
        if let Some(zones) = zones {
            (own.zones, own.zones_left_out) = largest(zones);
        }
        (own.state, own.told_at, own.connections, own.lag_ms) = (state, Utc::now(), connections, lag_ms);
    }

    async fn write_record(&self) {
        if self.is_by_itself() {
            return;
        }
        let own = self.0.own.lock().clone();
        match self.0.parts.backend.put(RecordKind::Node, &own.node, record(&own), GONE_AFTER).await {
            Ok(()) => self.0.counts.told.add(1),
            Err(error) => {
                debug!(error = %error, "could not write this node's record");
                self.0.counts.untold.add(1);
            }
        }
    }
}

/// The record as it is stored.
pub(super) fn record(node: &FleetNode) -> Bytes {
    serde_json::to_vec(node).expect("texts and numbers are JSON").into()
}

/// The delivery times since the oldest of the previous measurements.
fn lag(before: &mut VecDeque<Timing>, now: Timing) -> DeliveryLag {
    let lately = now.since(before.front().unwrap_or(&now));
    before.push_back(now);
    if before.len() > LAG_OF {
        before.pop_front();
    }
    DeliveryLag { p50: lately.quantile_ms(0.5), p99: lately.quantile_ms(0.99) }
}

/// The zones with the most subscribers, the largest first, and how many further zones have some.
fn largest(mut zones: Vec<(String, u64)>) -> (Vec<ZoneConnections>, u64) {
    zones.retain(|(_, connections)| *connections > 0);
    zones.sort_unstable_by(|(a, of_a), (b, of_b)| (Reverse(of_a), a).cmp(&(Reverse(of_b), b)));
    let left_out = zones.len().saturating_sub(ZONES_MAX);
    let zones = zones.into_iter().take(ZONES_MAX);
    (zones.map(|(zone, connections)| ZoneConnections { zone, connections }).collect(), left_out as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_that_of_the_last_ten_seconds() {
        let (mut before, mut now) = (VecDeque::new(), Timing::default());
        now.buckets[13] = 1_000;
        // Deliveries from before the first measurement do not count.
        assert_eq!(lag(&mut before, now), DeliveryLag::default());
        now.buckets[0] += 10;
        assert_eq!(lag(&mut before, now).p50, Some(0.025));
        for _ in 0..LAG_OF - 1 {
            assert!(lag(&mut before, now).p50.is_some());
        }
        assert_eq!(lag(&mut before, now), DeliveryLag::default());
        assert_eq!(before.len(), LAG_OF);
    }

    #[test]
    fn the_largest_zones_are_listed_and_others_counted() {
        let zones = (0..100).map(|n| (format!("z{n:02}"), n)).collect();
        let (listed, left_out) = largest(zones);
        // A zone without subscribers is not counted.
        assert_eq!((listed.len(), left_out), (ZONES_MAX, 99 - ZONES_MAX as u64));
        assert_eq!(listed[0], ZoneConnections { zone: "z99".to_owned(), connections: 99 });
        assert_eq!(listed[ZONES_MAX - 1].zone, "z36");
    }
}
