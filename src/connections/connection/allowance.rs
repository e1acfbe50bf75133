//! Limits what a client may send, by token buckets with the rate and the burst of messages.

use std::time::Duration;

use super::{Connection, TICK};
use crate::access::Quota;
use crate::connections::config::ConnectionsConfig;
use crate::connections::shard::{RETRY_AFTER_MS, Shard};
use crate::protocol::CloseCode;
use crate::support::rate::Rate;

/// The rate of messages; `None` if it is unlimited.
fn rate(shard: &Shard) -> Option<Rate> {
    let ConnectionsConfig { messages_per_s: per_s, messages_burst, .. } = shard.config;
    (per_s > 0).then_some(Rate { per_s, burst: messages_burst.into() })
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
        let Some(rate) = rate(shard) else { return true };
        let cost = u64::from(messages).min(rate.burst);
        let is_paid = self.messages.take(cost, rate, self.opened().elapsed()).is_ok();
        if !is_paid {
            // When it may send a full burst again.
            let refill = rate.burst * 1_000 / u64::from(rate.per_s);
            shard.close_for(self, CloseCode::RateLimited, refill.max(RETRY_AFTER_MS));
        }
        is_paid
    }

    /// Charges a channel that is unsubscribed from, which is never refused: see [`rest`](Self::rest).
    pub(in crate::connections) fn charge_leaving(&self, shard: &Shard) {
        if let Some(rate) = rate(shard) {
            self.leaves.charge(1, rate, self.opened().elapsed());
        }
    }

    /// How long its client is not to be read, because it unsubscribed from too many channels in a short
    /// time. This does not count as silence.
    pub(in crate::connections) fn rest(&self, shard: &Shard) -> Option<Duration> {
        let rest = self.leaves.charge(0, rate(shard)?, self.opened().elapsed());
        if rest.is_zero() {
            return None;
        }
        let ticks = u32::try_from(rest.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        self.last_heard.set(self.ticks().saturating_add(ticks));
        Some(rest)
    }
}
