//! Claims of external workers: what is claimed is handed over, or given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{self, Instant};
use tracing::{info, warn};

use crate::model::OrderId;
use crate::orders::desk::{Desk, Orders};
use crate::orders::run::{Run, RunError};
use crate::protocol::{ClaimRequest, OfferedJob, Previous, Standing};
use crate::storage::{Ending, Held, JobView, Result as StorageResult, StorageError};

/// The most jobs that a worker may claim at once.
const CLAIMED_MAX: usize = 100;

/// The longest that a claim waits for a job.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long it may take to turn a claimed job into an offer.
const OFFER_WITHIN: Duration = Duration::from_secs(5);

/// Claimed jobs, which are given back if this is dropped before they are [taken](Self::take).
#[derive(Debug)]
pub struct Claimed {
    held: Vec<(OfferedJob, Run)>,
    desk: Arc<Desk>,
}

impl Claimed {
    /// The jobs to be offered to the worker.
    pub fn jobs(&self) -> Vec<&OfferedJob> {
        self.held.iter().map(|(offered, _)| offered).collect()
    }

    /// Hands the jobs to the worker until their leases end.
    pub fn take(mut self) {
        self.held.clear();
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (held, desk) = (std::mem::take(&mut self.held), Arc::clone(&self.desk));
        info!(orders = held.len(), "giving back orders that were claimed for a worker that is gone");
        let giving_back = async move {
            let runs = held.into_iter().map(|(_, mut run)| {
                let desk = &desk;
                async move { desk.note(desk.give_back(&mut run).await) }
            });
            futures_util::future::join_all(runs).await;
        };
        self.desk.tasks.spawn_on(giving_back, &self.desk.runtime);
    }
}

/// A claim, counted until it is answered or dropped.
struct UnderWay(Arc<Desk>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.stats.claims_under_way.subtract(1);
    }
}

impl Orders {
    /// Claims jobs for an external worker, and waits for one for as long as the worker asked. If the future
    /// is dropped, or its result is not taken, the jobs are given back.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn claim(&self, request: &ClaimRequest) -> StorageResult<Claimed> {
        self.stats().claims_under_way.add(1);
        let _under_way = UnderWay(Arc::clone(self.desk()));
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(0)).min(WAIT_MAX);
        let deadline = Instant::now() + wait;
        let poll = Duration::from_millis(self.config().poll_ms);
        loop {
            let queued = self.desk().queued.notified();
            let claimed = self.claim_now(request).await?;
            if !claimed.held.is_empty() || Instant::now() >= deadline {
                return Ok(claimed);
            }
            tokio::select! {
                () = queued => {}
                () = time::sleep(poll) => {}
            }
        }
    }

    /// Claims the jobs that are ready. The caller may be dropped at any moment, so the claim runs in a task
    /// of its own.
    async fn claim_now(&self, request: &ClaimRequest) -> StorageResult<Claimed> {
        let limit = request.limit.unwrap_or(1).clamp(1, CLAIMED_MAX);
        let (orders, worker, lease) = (self.clone(), request.worker.clone(), self.lease(request.lease_ms));
        let (give, taken) = oneshot::channel();
        let claiming = async move {
            // If the caller is gone, the dropped result gives the jobs back.
            let _unless_taken = give.send(orders.claim_for(&worker, limit, lease).await);
        };
        self.desk().tasks.spawn_on(claiming, &self.desk().runtime);
        let ended = |_dropped| StorageError::Unreachable { op: "claim", cause: "the claim broke off".into() };
        taken.await.map_err(ended)?
    }

    async fn claim_for(&self, worker: &str, limit: usize, lease: Duration) -> StorageResult<Claimed> {
        let asked = Instant::now();
        let jobs = self.desk().parts.backend.claim(&self.desk().parts.kind, limit, lease).await?;
        self.stats().runs.add(jobs.len() as u64);
        for job in &jobs {
            self.desk().note_lease(job.id.into(), job.token, asked + lease);
        }
        let offers = jobs.into_iter().map(|job| self.offer(job, asked, lease, worker));
        let held = futures_util::future::join_all(offers).await.into_iter().flatten().collect();
        Ok(Claimed { held, desk: Arc::clone(self.desk()) })
    }

    /// Prepares a job's offer. An order that is not to be executed (cancelled, unreadable, out of attempts)
    /// is ended. A job that cannot be offered is given back; the other jobs of the claim do not wait for it.
    async fn offer(
        &self,
        job: JobView,
        asked: Instant,
        lease: Duration,
        worker: &str,
    ) -> Option<(OfferedJob, Run)> {
        let (id, token) = (job.id, job.token);
        let offered = time::timeout(OFFER_WITHIN, self.try_offer(job, asked, lease, worker)).await;
        let problem = match offered {
            Ok(Ok(offered)) => return offered,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "the storage was away for too long".to_owned(),
        };
        self.stats().storage_failures.add(1);
        let ending = Ending::Retry { after: Duration::ZERO, attempt: None };
        match self.desk().parts.backend.finish(id, token, &ending).await {
            Ok(Held::Yes) => {
                self.stats().given_back.add(1);
                warn!(order = %id, error = problem, "a claimed order could not be offered; gave it back");
            }
            _ => {
                warn!(order = %id, error = problem, "a claimed order could not be offered; its lease runs out")
            }
        }
        None
    }

    async fn try_offer(
        &self,
        job: JobView,
        asked: Instant,
        lease: Duration,
        worker: &str,
    ) -> Result<Option<(OfferedJob, Run)>, RunError> {
        let order = OrderId::from(job.id);
        let newest = self.desk().newest(order).await?;
        let mut run = Run::new(Arc::clone(self.desk()), &job, (asked, lease), newest, worker);
        let Some(request) = self.desk().to_be_done(&mut run, &job.payload).await? else { return Ok(None) };
        let left = lease.saturating_sub(asked.elapsed());
        let offered = OfferedJob {
            job_id: order,
            order_id: order,
            token: job.token,
            run: run.run,
            attempt: run.attempts.current,
            max_attempts: run.attempts.max,
            lease_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            order: request,
            previous: run.previous().map(|Standing { kind, progress, attempt }| Previous {
                status: kind.as_str().to_owned(),
                progress,
                attempt,
            }),
        };
        Ok(Some((offered, run)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::orders::{OrderRequest, OrdersParts};
    use crate::storage::JobCounts;

    async fn place(orders: &Orders) {
        let text = r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1,"slippage":0.5}"#;
        orders.place(&OrderRequest::parse(text).unwrap(), None, None).await.unwrap();
    }

    fn wish() -> ClaimRequest {
        ClaimRequest { worker: "w".to_owned(), limit: Some(10), lease_ms: Some(3_600_000), wait_ms: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_claimed_for_nobody_is_given_back() {
        let orders = OrdersParts::in_memory("external");
        for _ in 0..5 {
            place(&orders).await;
        }
        // The request is dropped before the claim has ended, after any number of steps.
        for steps in 0..12 {
            let wish = wish();
            let mut claiming = Box::pin(orders.claim(&wish));
            let mut claimed = claiming.as_mut().now_or_never();
            for _ in 0..steps {
                tokio::task::yield_now().await;
                claimed = claimed.or_else(|| claiming.as_mut().now_or_never());
            }
            drop((claiming, claimed));
            let mut left = JobCounts::default();
            for _ in 0..100 {
                tokio::task::yield_now().await;
                left = orders.counts().await.unwrap();
            }
            assert_eq!((left.waiting, left.claimed), (5, 0), "after {steps} steps");
        }
        assert!(orders.stats().given_back.get() >= 10);
        let claimed = orders.claim(&wish()).await.unwrap();
        assert_eq!(claimed.jobs().len(), 5);
        assert!(claimed.jobs().iter().all(|job| job.attempt == 1 && job.run >= 2));
        claimed.take();
    }
}
