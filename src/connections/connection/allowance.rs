//! Limits what a client may send, by token buckets.

use std::cell::Cell;
use std::time::Duration;

use super::{Connection, TICK};
use crate::access::Quota;
use crate::connections::config::ConnectionsConfig;
use crate::connections::shard::{RETRY_AFTER_MS, Shard};
use crate::protocol::CloseCode;

/// A token bucket with the rate and the burst of messages.
#[derive(Debug)]
pub(super) struct Bucket {
    left: Cell<f32>,
    /// When `left` was computed, in ticks since the connection opened.
    at: Cell<u32>,
}

impl Bucket {
    pub(super) fn full(burst: u32) -> Self {
        Self { left: Cell::new(burst as f32), at: Cell::new(0) }
    }

    /// Takes tokens, after refilling up to the burst; returns what is left, which may be negative.
    fn take(&self, some: f32, now: u32, shard: &Shard) -> f32 {
        let (rate, burst) = (shard.config.messages_per_s as f32, shard.config.messages_burst as f32);
        if rate == 0.0 {
            return burst;
        }
        let passed = TICK * (now - self.at.replace(now));
        let left = (self.left.get() + passed.as_secs_f32() * rate).min(burst) - some.min(burst);
        self.left.set(left);
        left
    }
}

impl Connection {
    /// Charges a message, or a further channel in a subscribe request. If that is too much, closes the
    /// connection and returns false.
    pub(in crate::connections) fn allowed(&self, shard: &Shard) -> bool {
        self.allowed_as(1, shard)
    }

    /// Charges something that costs as much as several messages.
    pub(in crate::connections) fn allowed_as(&self, messages: u16, shard: &Shard) -> bool {
        if !self.allowed_by_itself(messages, shard) {
            return false;
        }
        let taken = self.take(Quota::Messages, messages.into());
        if let Err(over) = taken {
            shard.close_for(self, CloseCode::RateLimited, over.wait_ms().max(RETRY_AFTER_MS));
        }
        taken.is_ok()
    }

    /// Charges a ping or a pong. They count for the connection only, not for its principal, because the
    /// gateway itself asks for pongs.
    pub(in crate::connections) fn allowed_alive(&self, shard: &Shard) -> bool {
        self.allowed_by_itself(1, shard)
    }

    fn allowed_by_itself(&self, messages: u16, shard: &Shard) -> bool {
        let is_paid = self.messages.take(messages.into(), self.ticks(), shard) >= 0.0;
        if !is_paid {
            // When it may send a full burst again.
            let ConnectionsConfig { messages_per_s, messages_burst, .. } = shard.config;
            let refill = u64::from(messages_burst) * 1_000 / u64::from(messages_per_s.max(1));
            shard.close_for(self, CloseCode::RateLimited, refill.max(RETRY_AFTER_MS));
        }
        is_paid
    }

    /// Charges a channel that is unsubscribed from, which is never refused: see [`rest`](Self::rest).
    pub(in crate::connections) fn charge_leaving(&self, shard: &Shard) {
        self.leaves.take(1.0, self.ticks(), shard);
    }

    /// How long its client is not to be read, because it unsubscribed from too many channels in a short
    /// time. This does not count as silence.
    pub(in crate::connections) fn rest(&self, shard: &Shard) -> Option<Duration> {
        let owed = -self.leaves.left.get();
        if owed <= 0.0 {
            return None;
        }
        let rest = Duration::from_secs_f32(owed / shard.config.messages_per_s.max(1) as f32);
        let ticks = u32::try_from(rest.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        self.last_heard.set(self.ticks().saturating_add(ticks));
        Some(rest)
    }
}
