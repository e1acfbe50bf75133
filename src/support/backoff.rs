//! How long to wait before trying again.
//!
//! Whoever asks the storage, or goes back to a gateway, waits by one of the policies here. Elsewhere stand
//! those that wait for something else: an order's next attempt by settings (`orders.retry_first_ms`,
//! `orders.retry_max_ms`), and the spool for its disk.

use std::time::Duration;

use tokio::time;

use super::chance;

/// Between tries of what the storage did not do: to connect, to read, to append, to claim. For whoever
/// cannot go on without it, and so tries for as long as it is worth it. Short, since an outage is mostly
/// over in a moment, and the longest wait is by how much we are back late.
pub(crate) const STORAGE_RETRY: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_millis(800),
    jitter: Duration::from_millis(50),
};

/// Between attempts to connect to a Redis that is away, of the one connection to it that others are behind.
/// Shorter than [`STORAGE_RETRY`], since by this all of a gateway is back late, and bounded in all, since only
/// one connection tries so: three to five times a second. The jitter is a third of it, so that the gateways of a
/// fleet do not come at once.
pub(crate) const STORAGE_CONNECT: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_millis(200),
    jitter: Duration::from_millis(100),
};

/// Before a client connects to a gateway again: 1, 2, 4, 8, 16 s, each plus up to 1 s, as the protocol asks
/// of all clients (docs/PROTOCOL.md).
pub(crate) const RECONNECT: Backoff =
    Backoff { first: Duration::from_secs(1), max: Duration::from_secs(16), jitter: Duration::from_secs(1) };

/// Before a command sends a request to a gateway again that was not taken, for as long as it is willing to:
/// shorter than [`RECONNECT`], since somebody waits for the answer.
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
    /// The most that is added at random, drawn anew each time, so that many do not come at once.
    pub(crate) jitter: Duration,
}

impl Backoff {
    /// The wait before attempt `attempt` (counting from 1) after the first.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        self.wait_with(attempt, chance::fraction())
    }

    /// The same with what is drawn at random, in `0.0..1.0`.
    pub(crate) fn wait_with(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(32);
        let base = self.first.saturating_mul(2u32.saturating_pow(doublings)).min(self.max);
        base + self.jitter.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Waits for so long.
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
