//! What this node tells of itself.

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

/// How often.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long connections may take to be counted by zone: that a node is there is told in time.
const COUNTED_WITHIN: Duration = Duration::from_millis(250);

/// Of so many times of telling is the lag.
const LAG_OF: usize = 10;

/// Zones that are told.
const ZONES_MAX: usize = 64;

/// The connections of this node, for who tells of them.
#[async_trait]
pub(crate) trait OpenSockets: fmt::Debug + Send + Sync {
    /// How many are open, and how long entries took to them since the start.
    fn totals(&self) -> (u64, Timing);

    /// Subscribers by zone. To be dropped where it takes too long.
    async fn by_zone(&self) -> Vec<(String, u64)>;
}

impl Fleet {
    /// Tells of this node until `stop`, and then that it is gone.
    pub(crate) async fn tell(self, sockets: Arc<dyn OpenSockets>, stop: CancellationToken) {
        let mut tick = time::interval(TELL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut is_leaving) = (VecDeque::new(), false);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // That it stops is told at once.
                () = self.0.leaving.cancelled(), if !is_leaving => is_leaving = true,
                _ = tick.tick() => {}
            }
            self.look_at_itself(&*sockets, &mut before).await;
            self.tell_once().await;
        }
        // Where that cannot be told, the record expires.
        let key = self.0.node.to_string();
        if !self.is_by_itself()
            && let Err(error) = self.0.backend.delete(RecordKind::Node, &key).await
        {
            debug!(error = %error, "others cannot be told that this node is gone, and find out");
        }
    }

    async fn look_at_itself(&self, sockets: &dyn OpenSockets, before: &mut VecDeque<Timing>) {
        let zones = time::timeout(COUNTED_WITHIN, sockets.by_zone()).await.ok();
        let (connections, delivered) = sockets.totals();
        let lag_ms = lag(before, delivered);
        let state = self.state().into();
        let mut own = self.0.own.lock();
        // Shards too busy to count are told of as they were.
        if let Some(zones) = zones {
            (own.zones, own.zones_left_out) = largest(zones);
        }
        (own.state, own.told_at, own.connections, own.lag_ms) = (state, Utc::now(), connections, lag_ms);
    }

    async fn tell_once(&self) {
        if self.is_by_itself() {
            return;
        }
        let own = self.0.own.lock().clone();
        match self.0.backend.put(RecordKind::Node, &own.node, record(&own), GONE_AFTER).await {
            Ok(()) => self.0.counts.told.add(1),
            Err(error) => {
                debug!(error = %error, "others cannot be told of this node at the moment");
                self.0.counts.untold.add(1);
            }
        }
    }
}

/// What is stored.
pub(super) fn record(node: &FleetNode) -> Bytes {
    serde_json::to_vec(node).expect("texts and numbers are JSON").into()
}

/// How long entries took since the oldest of the times before.
fn lag(before: &mut VecDeque<Timing>, now: Timing) -> DeliveryLag {
    let lately = now.since(before.front().unwrap_or(&now));
    before.push_back(now);
    if before.len() > LAG_OF {
        before.pop_front();
    }
    DeliveryLag { p50: lately.quantile_ms(0.5), p99: lately.quantile_ms(0.99) }
}

/// The zones with most subscribers, the greatest first, and how many others have some.
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
        // What was before the first look is not of late.
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
    fn zones_with_most_subscribers_are_told_and_others_counted() {
        let zones = (0..100).map(|n| (format!("z{n:02}"), n)).collect();
        let (told, left_out) = largest(zones);
        // The one without any is none.
        assert_eq!((told.len(), left_out), (ZONES_MAX, 99 - ZONES_MAX as u64));
        assert_eq!(told[0], ZoneConnections { zone: "z99".to_owned(), connections: 99 });
        assert_eq!(told[ZONES_MAX - 1].zone, "z36");
    }
}
