//! What the exchange with outside workers counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::support::counter::Counter;

/// Counters of the exchange with outside workers, since the start.
#[derive(Debug, Default)]
pub(crate) struct InteropStats {
    followed: AtomicU64,
    pub(super) accepted: Counter,
    pub(super) duplicates: Counter,
    pub(super) not_json: Counter,
    pub(super) not_an_object: Counter,
    pub(super) no_stage: Counter,
    pub(super) too_large: Counter,
    pub(super) refused_closed: Counter,
    pub(super) refused_stale: Counter,
    pub(super) refused_has_job: Counter,
    pub(super) lost: Counter,
    pub(super) gaps: Counter,
    pub(super) unreadable: Counter,
    pub(super) retries: Counter,
    pub(super) mirrored: Counter,
    pub(super) mirror_failures: Counter,
}

/// What was counted.
#[derive(Debug, Serialize)]
pub(crate) struct InteropTotals {
    /// Orders whose outside updates are followed now.
    pub(crate) followed: u64,
    /// Outside updates that this node put into the log.
    pub(crate) accepted: u64,
    /// Outside updates that the log had already: other nodes watch the same order.
    pub(crate) duplicates: u64,
    /// Outside updates that cannot be told, by reason.
    pub(crate) invalid: InvalidTotals,
    /// Outside updates that the log did not take, by reason.
    pub(crate) refused: RefusedTotals,
    /// Outside updates that were let go, for want of memory or of a log that takes them. The next
    /// one of the order is marked.
    pub(crate) lost: u64,
    /// Times that updates of an order may have left its list unread.
    pub(crate) gaps: u64,
    /// Times that the list of an order was something else than a list.
    pub(crate) unreadable: u64,
    /// Calls to the storage that failed and were tried again.
    pub(crate) retries: u64,
    /// Own updates written for outside consumers.
    pub(crate) mirrored: u64,
    /// Own updates, or orders with some, that could not be written for them.
    pub(crate) mirror_failures: u64,
}

/// Outside updates that cannot be told.
#[derive(Debug, Serialize)]
pub(crate) struct InvalidTotals {
    pub(crate) not_json: u64,
    pub(crate) not_an_object: u64,
    /// It names no stage of an order.
    pub(crate) no_stage: u64,
    pub(crate) too_large: u64,
}

/// Outside updates that the log did not take.
#[derive(Debug, Serialize)]
pub(crate) struct RefusedTotals {
    /// They came after the last one of their order.
    pub(crate) closed: u64,
    /// Somebody held a lease.
    pub(crate) stale_fence: u64,
    /// The order is carried out by a worker of the gateway's.
    pub(crate) has_job: u64,
}

impl InteropStats {
    pub(super) fn set_followed(&self, orders: usize) {
        self.followed.store(orders as u64, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub(crate) fn totals(&self) -> InteropTotals {
        InteropTotals {
            followed: self.followed.load(Ordering::Relaxed),
            accepted: self.accepted.get(),
            duplicates: self.duplicates.get(),
            invalid: InvalidTotals {
                not_json: self.not_json.get(),
                not_an_object: self.not_an_object.get(),
                no_stage: self.no_stage.get(),
                too_large: self.too_large.get(),
            },
            refused: RefusedTotals {
                closed: self.refused_closed.get(),
                stale_fence: self.refused_stale.get(),
                has_job: self.refused_has_job.get(),
            },
            lost: self.lost.get(),
            gaps: self.gaps.get(),
            unreadable: self.unreadable.get(),
            retries: self.retries.get(),
            mirrored: self.mirrored.get(),
            mirror_failures: self.mirror_failures.get(),
        }
    }
}
