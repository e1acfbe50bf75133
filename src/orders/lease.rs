//! The lease of a claim, as far as this process may rely on it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::desk::Desk;
use crate::model::{JobId, OrderId};
use crate::storage::{Ending, Held, JobState, Result as StorageResult};
use crate::support::backoff::STORAGE_RETRY;

/// How often ending a claim is tried again; after that its lease runs out.
const FINISH_TRIES: u32 = 20;

/// A claim's lease.
#[derive(Debug)]
pub(super) struct Lease {
    desk: Arc<Desk>,
    job: JobId,
    token: u64,
    /// The duration that each renewal asks for.
    pub(super) lasts: Duration,
    state: Mutex<LeaseState>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseState {
    /// When it ends, by the monotonic clock, counted from before the call that asked for it.
    pub(super) until: Instant,
    /// The storage's latest answer.
    pub(super) held: Held,
}

impl Lease {
    /// The lease of a claim that was asked for at `asked`.
    pub(super) fn new(
        desk: Arc<Desk>,
        order: OrderId,
        token: u64,
        asked: Instant,
        lasts: Duration,
    ) -> Arc<Self> {
        let state = Mutex::new(LeaseState { until: asked + lasts, held: Held::Yes });
        Arc::new(Self { desk, job: order.into(), token, lasts, state })
    }

    pub(super) fn state(&self) -> LeaseState {
        *self.state.lock()
    }

    /// Makes the lease last at least `self.lasts` from now. If this `commits`, the job passes its point of no
    /// return.
    pub(super) async fn extend(&self, commits: bool) -> StorageResult<Held> {
        let (asked, backend) = (Instant::now(), &self.desk.parts.backend);
        let held = match commits {
            true => backend.commit(self.job, self.token, self.lasts).await?,
            false => backend.extend(self.job, self.token, self.lasts).await?,
        };
        let mut state = self.state.lock();
        state.held = held;
        if held != Held::Lost {
            state.until = state.until.max(asked + self.lasts);
        }
        Ok(held)
    }

    /// Extends the lease well before its end, for as long as this is polled. Returns when the order was
    /// cancelled, which is possible only before its point of no return. `cancels` changes whenever this
    /// process is asked to cancel an order; a change before the first poll counts too.
    pub(super) async fn keep(self: Arc<Self>, mut cancels: watch::Receiver<()>) {
        let mut failures = 0;
        loop {
            let wait = match failures {
                0 => self.lasts / 3,
                failures => STORAGE_RETRY.wait(failures),
            };
            tokio::select! {
                () = time::sleep(wait) => {}
                // The sender lives as long as the desk.
                _ = cancels.changed() => {}
            }
            match self.extend(false).await {
                Ok(Held::Yes) => failures = 0,
                Ok(Held::Cancelled) => return,
                // The next report returns the error.
                Ok(Held::Lost) => std::future::pending().await,
                Err(error) => {
                    failures += 1;
                    self.desk.stats.storage_failures.add(1);
                    debug!(job = %self.job, error = %error, "could not extend a lease yet");
                }
            }
        }
    }

    /// Ends the claim in the queue, and tries for some seconds while the storage is away. If that fails,
    /// nothing is lost: the updates are published, and the next worker to claim the job reads them.
    pub(super) async fn finish(&self, ending: &Ending) -> StorageResult<Held> {
        let mut failures = 0;
        loop {
            match self.desk.parts.backend.finish(self.job, self.token, ending).await {
                // A call whose answer was lost may be what ended the claim.
                Ok(Held::Lost) if failures > 0 => return Ok(self.ended_as_ours().await),
                Ok(held) => return Ok(held),
                Err(error) if failures == FINISH_TRIES => {
                    self.desk.stats.storage_failures.add(1);
                    warn!(order = %self.job, error = %error, "could not end a run; its lease runs out instead");
                    return Err(error);
                }
                Err(error) => {
                    let what = "a run cannot be ended yet";
                    self.desk.pause_after(self.job.into(), &mut failures, &error, what).await;
                }
            }
        }
    }

    async fn ended_as_ours(&self) -> Held {
        let job = self.desk.parts.backend.job(self.job).await;
        match job {
            Ok(Some(job)) if job.token == self.token && job.state != JobState::Claimed => Held::Yes,
            _ => Held::Lost,
        }
    }
}
