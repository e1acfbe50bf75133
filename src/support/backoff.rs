//! How long to wait before trying again.
//!
//! Callers of the storage, and clients that reconnect to a gateway, wait according to one of the policies
//! here. Two other waits are elsewhere: an order's next attempt is governed by settings
//! (`orders.retry_first_ms`, `orders.retry_max_ms`), and the spool has its own policy for its disk.

use std::time::Duration;

use tokio::time;

use super::chance;

/// Between tries of a storage call (connect, read, append, claim) by callers that cannot continue without
/// it. Short, because most outages are over in a moment, and the longest wait is how late this node may be
/// back.
pub(crate) const STORAGE_RETRY: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_millis(800),
    jitter: Duration::from_millis(50),
};

/// Between attempts to open the one connection on which all others to a Redis depend. These waits are shorter
/// than those of [`STORAGE_RETRY`], because the whole gateway waits for this connection, and they can be,
/// because nothing else tries to connect: it makes three to five attempts a second. The jitter keeps the
/// gateways of a fleet from connecting at once.
pub(crate) const STORAGE_CONNECT: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_millis(200),
    jitter: Duration::from_millis(100),
};

/// Before a client reconnects to a gateway: 1, 2, 4, 8, 16 s, each plus up to 1 s, as the protocol requires
/// of all clients (docs/PROTOCOL.md).
pub(crate) const RECONNECT: Backoff =
    Backoff { first: Duration::from_secs(1), max: Duration::from_secs(16), jitter: Duration::from_secs(1) };

/// Before a command repeats a request that a gateway did not accept: shorter than [`RECONNECT`], because
/// somebody waits for the answer.
pub(crate) const RESEND: Backoff = Backoff {
    first: Duration::from_millis(250),
    max: Duration::from_secs(4),
    jitter: Duration::from_millis(250),
};

/// Exponential backoff: `first`, twice that, and so on up to `max`, each plus up to `jitter`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    /// The first wait.
    pub(crate) first: Duration,
    /// The longest wait, without jitter.
    pub(crate) max: Duration,
    /// The most that is added at random, so that many clients do not come at once.
    pub(crate) jitter: Duration,
}

impl Backoff {
    /// The wait before attempt `attempt` (counted from 1) after the first.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        self.wait_with(attempt, chance::fraction())
    }

    /// The same with this random number in `0.0..1.0`.
    pub(crate) fn wait_with(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(32);
        let base = self.first.saturating_mul(2u32.saturating_pow(doublings)).min(self.max);
        base + self.jitter.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Waits before this attempt.
    pub(crate) async fn pause(&self, attempt: u32) {
        time::sleep(self.wait(attempt)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_jitter_is_added() {
        let waits: Vec<u64> = [1, 2, 3, 4, 5, 6, 400].map(|n| RECONNECT.wait_with(n, 0.0).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
        assert_eq!(RECONNECT.wait_with(1, 0.5), Duration::from_millis(1500));
    }
}
