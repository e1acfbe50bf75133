//! How long to wait before trying again.

use std::time::Duration;

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
    /// The wait before attempt `attempt` (counting from 1); `random` is in `0.0..1.0`.
    pub(crate) fn wait(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(32);
        let base = self.first.saturating_mul(2u32.saturating_pow(doublings)).min(self.max);
        base + self.jitter.mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_maximum_and_jitter_is_added() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            max: Duration::from_secs(16),
            jitter: Duration::from_secs(1),
        };
        let waits: Vec<u64> = [1, 2, 3, 4, 5, 6, 400].map(|n| backoff.wait(n, 0.0).as_secs()).to_vec();
        assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
        assert_eq!(backoff.wait(1, 0.5), Duration::from_millis(1500));
    }
}
