//! What can be configured about orders.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::schema::{OrderSchema, SWAP};
use crate::storage::JobBounds;
use crate::support::backoff::Backoff;
use crate::support::checks::Finding;
use crate::support::settings;

/// Who executes orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorChoice {
    /// The built-in simulation: nothing is traded, and every update says so.
    #[default]
    Paper,
    /// Workers outside, over `/api/jobs`.
    External,
}

/// What becomes of new orders while Redis is configured and memory serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDegraded {
    /// They are refused.
    #[default]
    Reject,
    /// They stay on the node that took them until Redis is back, and are gone if it ends before.
    Accept,
}

settings! {
    /// `[orders]`
    #[derive(Debug)]
    pub struct OrdersConfig in "orders" {
        /// Who executes orders. Default `paper`.
        pub executor: ExecutorChoice = ExecutorChoice::Paper,
        /// What an order looks like: `swap`, or the path of a JSON Schema file. Default `swap`.
        pub schema: String = SWAP.to_owned(),
        /// What becomes of new orders while Redis is configured and memory serves. Default `reject`.
        pub when_degraded: WhenDegraded = WhenDegraded::Reject,
        /// Orders that this process works on at once. Default 8.
        pub concurrency: usize [1..] = 8,
        /// How long a worker holds an order without a sign of life, in seconds. Default 30.
        pub lease_s: u64 [1..=LEASE_MAX.as_secs()] = 30,
        /// How long one run of an order may take before it counts as failed, in seconds. Default 120.
        pub run_timeout_s: u64 [1..] = 120,
        /// How many times an order is tried. Default 3.
        pub attempts_max: u32 [1..] = 3,
        /// The wait before the second try, in milliseconds; it doubles from try to try. Default 1,000.
        pub retry_first_ms: u64 [1..] = 1_000,
        /// The longest wait before a try, in milliseconds. Default 30,000.
        pub retry_max_ms: u64 = 30_000,
        /// How often an idle worker looks for orders that came in elsewhere, in milliseconds. Default 100.
        pub poll_ms: u64 [1..] = 100,
        /// Orders that are not finished; one more is answered with 503. Default 10,000.
        pub queue_max: usize [1..] = 10_000,
        /// Orders that are remembered, finished ones included. The oldest finished ones go first.
        /// Default 100,000.
        pub kept_max: usize = 100_000,
        /// How long finished orders and idempotency keys are remembered, in seconds. Default 86,400.
        pub kept_s: u64 [1..] = 86_400,
        /// `[orders.paper]`
        pub paper: PaperConfig,
    }

    /// `[orders.paper]`: the built-in simulation.
    #[derive(Debug)]
    pub struct PaperConfig in "orders.paper" {
        /// The same seed gives the same order the same fate. Default 1.
        pub seed: u64 = 1,
        /// Which part of the attempts fails, 0 to 1. Default 0.05.
        pub failure_rate: f64 [0.0..=1.0] = 0.05,
        /// How long each of its steps takes on average, in milliseconds. Default 250.
        pub step_ms: u64 = 250,
    }
}

/// The longest lease that a worker may ask for.
pub(super) const LEASE_MAX: Duration = Duration::from_secs(3_600);

impl OrdersConfig {
    pub(super) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s)
    }

    pub(super) fn bounds(&self) -> JobBounds {
        JobBounds {
            unfinished: self.queue_max,
            kept: self.kept_max,
            kept_for: Duration::from_secs(self.kept_s),
        }
    }

    /// The wait before another try; jitter of half the first wait.
    pub(super) fn retry(&self) -> Backoff {
        Backoff {
            first: Duration::from_millis(self.retry_first_ms),
            max: Duration::from_millis(self.retry_max_ms),
            jitter: Duration::from_millis(self.retry_first_ms / 2),
        }
    }

    /// What cannot be used.
    pub(crate) fn check(&self) -> Vec<Finding> {
        let mut checks = self.check_ranges();
        let schema = OrderSchema::load(&self.schema);
        checks.require("schema", schema.is_ok(), || schema.err().unwrap_or_default());
        checks.require("retry_max_ms", self.retry_max_ms >= self.retry_first_ms, || {
            format!(
                "expected at least orders.retry_first_ms ({}), found {}",
                self.retry_first_ms, self.retry_max_ms
            )
        });
        checks.require("kept_max", self.kept_max >= self.queue_max, || {
            format!("expected at least orders.queue_max ({}), found {}", self.queue_max, self.kept_max)
        });
        checks.add(self.paper.check_ranges());
        checks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(change: impl FnOnce(&mut OrdersConfig)) -> Vec<String> {
        let mut config = OrdersConfig::default();
        change(&mut config);
        config.check().into_iter().map(|finding| finding.key).collect()
    }

    #[test]
    fn what_does_not_hold_up_is_found() {
        assert_eq!(keys(|_| ()), [] as [String; 0]);
        assert_eq!(keys(|orders| orders.attempts_max = 0), ["orders.attempts_max"]);
        assert_eq!(keys(|orders| orders.lease_s = 3_601), ["orders.lease_s"]);
        assert_eq!(keys(|orders| orders.schema = "none.json".to_owned()), ["orders.schema"]);
        assert_eq!(keys(|orders| orders.retry_max_ms = 1), ["orders.retry_max_ms"]);
        assert_eq!(keys(|orders| orders.kept_max = 1), ["orders.kept_max"]);
        for rate in [-0.1, 1.1, f64::NAN] {
            assert_eq!(keys(|orders| orders.paper.failure_rate = rate), ["orders.paper.failure_rate"]);
        }
    }
}
