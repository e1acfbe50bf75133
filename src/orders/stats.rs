//! What happens to orders, counted since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::counter::Counter;

/// Counters of this node.
#[derive(Debug, Default)]
pub struct OrderStats {
    pub(super) placed: Counter,
    pub(super) repeated: Counter,
    pub(super) refused_full: Counter,
    pub(super) updates: Counter,
    pub(super) runs: Counter,
    /// A gauge.
    pub(super) claims_under_way: AtomicU64,
    pub(super) confirmed: Counter,
    pub(super) failed: Counter,
    pub(super) retried: Counter,
    pub(super) given_back: Counter,
    pub(super) dead: Counter,
    pub(super) leases_lost: Counter,
    pub(super) updates_refused: Counter,
    pub(super) updates_unchecked: Counter,
    pub(super) storage_failures: Counter,
    pub(super) panics: Counter,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct OrderTotals {
    /// Orders that were queued by this node.
    pub placed: u64,
    /// Requests that repeated one with the same idempotency key.
    pub repeated: u64,
    /// Orders that were refused because the queue was full.
    pub refused_full: u64,
    /// Updates that were accepted.
    pub updates: u64,
    /// Jobs that were claimed through this node.
    pub runs: u64,
    /// Requests of workers outside that ask for orders, or wait for some, at the moment.
    pub claims_under_way: u64,
    /// Orders that ended with `confirmed` here.
    pub confirmed: u64,
    /// Orders that ended with `failed` here.
    pub failed: u64,
    /// Runs that ended with another try to come.
    pub retried: u64,
    /// Runs that ended by giving their order back: at a stop, or because nobody took what was claimed.
    pub given_back: u64,
    /// Orders that became dead letters.
    pub dead: u64,
    /// Runs that stopped because their lease was lost.
    pub leases_lost: u64,
    /// Updates that the log refused: of a stale worker, or after the end.
    pub updates_refused: u64,
    /// Outside updates that were taken while nobody could say whether their order has a job.
    pub updates_unchecked: u64,
    /// Calls of the storage that failed; each was tried again, or told.
    pub storage_failures: u64,
    /// Runs that ended because their executor panicked.
    pub panics: u64,
}

impl OrderStats {
    /// All counters.
    pub fn totals(&self) -> OrderTotals {
        OrderTotals {
            placed: self.placed.get(),
            repeated: self.repeated.get(),
            refused_full: self.refused_full.get(),
            updates: self.updates.get(),
            runs: self.runs.get(),
            claims_under_way: self.claims_under_way.load(Ordering::Relaxed),
            confirmed: self.confirmed.get(),
            failed: self.failed.get(),
            retried: self.retried.get(),
            given_back: self.given_back.get(),
            dead: self.dead.get(),
            leases_lost: self.leases_lost.get(),
            updates_refused: self.updates_refused.get(),
            updates_unchecked: self.updates_unchecked.get(),
            storage_failures: self.storage_failures.get(),
            panics: self.panics.get(),
        }
    }
}
