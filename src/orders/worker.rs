//! Claims orders' jobs and has them carried out by an executor in this process.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::executor::{Confirmation, ExecutionError, OrderExecutor, OrderHandle, StepError};
use super::request::OrderRequest;
use super::run::{Claim, Run, RunError};
use super::service::{Desk, Orders};
use crate::model::OrderId;
use crate::protocol::{Standing, quoted};
use crate::storage::{ClaimedJob, Ending, Held};
use crate::support::backoff::Backoff;

/// Between tries to claim while the storage does not answer.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(100),
    max: Duration::from_secs(1),
    jitter: Duration::from_millis(100),
};

/// How long orders under way may go on once the process stops; then they are given back.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Carries orders out, several at once.
#[derive(Debug)]
pub(crate) struct Worker {
    desk: Arc<Desk>,
    executor: Arc<dyn OrderExecutor>,
}

impl Worker {
    /// A worker for what `orders` queues here and elsewhere.
    pub(crate) fn new(orders: &Orders, executor: Arc<dyn OrderExecutor>) -> Self {
        Self { desk: Arc::clone(orders.desk()), executor }
    }

    /// Works until `stop`; then finishes what can be finished in a few seconds, and gives the rest
    /// back to the queue.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let worker = Arc::new(self);
        let concurrency = worker.desk.config.concurrency;
        let poll = Duration::from_millis(worker.desk.config.poll_ms);
        let hurry = CancellationToken::new();
        let mut runs = JoinSet::new();
        let mut failures = 0;
        info!(executor = worker.executor.name(), concurrency, "working on orders");
        while !stop.is_cancelled() {
            while let Some(ended) = runs.try_join_next() {
                log_panic(&ended);
            }
            let free = concurrency - runs.len();
            if free == 0 {
                tokio::select! {
                    Some(ended) = runs.join_next() => log_panic(&ended),
                    () = stop.cancelled() => {}
                }
                continue;
            }
            let asked = Instant::now();
            // Noticed from here on: what is queued while the claim is under way wakes the next wait.
            let queued = worker.desk.queued.notified();
            let idle = match worker.desk.backend.claim(free, worker.desk.config.lease()).await {
                Ok(claimed) => {
                    failures = 0;
                    let idle = claimed.is_empty();
                    worker.desk.stats.runs.add(claimed.len() as u64);
                    for job in claimed {
                        runs.spawn(Arc::clone(&worker).work(job, asked, hurry.clone()));
                    }
                    idle.then_some(poll)
                }
                Err(error) => {
                    worker.desk.stats.storage_failures.add(1);
                    if failures == 0 {
                        warn!(error = %error, "orders cannot be claimed; trying again");
                    }
                    failures += 1;
                    Some(RETRY.wait(failures, rand::random()))
                }
            };
            if let Some(idle) = idle {
                tokio::select! {
                    () = queued, if failures == 0 => {}
                    () = time::sleep(idle) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        let finished = async {
            while let Some(ended) = runs.join_next().await {
                log_panic(&ended)
            }
        };
        if time::timeout(FINISH_WITHIN, finished).await.is_err() {
            info!(orders = runs.len(), "giving back orders under way");
            hurry.cancel();
            while let Some(ended) = runs.join_next().await {
                log_panic(&ended);
            }
        }
    }

    async fn work(self: Arc<Self>, job: ClaimedJob, asked: Instant, hurry: CancellationToken) {
        let order = OrderId::from(job.id);
        let Some(standing) = self.newest(order, asked).await else { return };
        let (cancelled, payload) = (job.cancelled, job.payload);
        let claim = Claim {
            order,
            token: job.token,
            run: job.run,
            committed: job.committed,
            asked,
            lasts: self.desk.config.lease(),
            standing,
        };
        let run = Run::new(Arc::clone(&self.desk), claim, self.executor.name());
        let lease_kept = run.keep_lease();
        tokio::select! {
            () = lease_kept => {}
            () = self.carry_out(run, &payload, cancelled && !job.committed, hurry) => {}
        }
    }

    /// The order's newest update; `None` when the storage did not say for as long as the lease is
    /// certain to last.
    async fn newest(&self, order: OrderId, asked: Instant) -> Option<Option<Standing>> {
        let mut failures = 0;
        while asked.elapsed() < self.desk.config.lease() {
            match self.desk.standing(order).await {
                Ok(standing) => return Some(standing),
                Err(error) => {
                    failures += 1;
                    self.desk.stats.storage_failures.add(1);
                    debug!(order = %order, error = %error, "how far an order is cannot be read yet");
                    time::sleep(RETRY.wait(failures, rand::random())).await;
                }
            }
        }
        None
    }

    async fn carry_out(&self, mut run: Run, payload: &[u8], cancelled: bool, hurry: CancellationToken) {
        if run.previous().is_some_and(|standing| standing.kind.is_terminal()) {
            // A worker before this one got as far as the last update, and no further.
            run.finish(&Ending::Done).await;
            return;
        }
        if cancelled {
            return self.desk.end(&mut run, "cancelled", "the order was cancelled", Ending::Done).await;
        }
        let request: OrderRequest = match serde_json::from_slice(payload) {
            Ok(request) => request,
            Err(error) => {
                error!(order = %run.order(), error = %error, "an order in the queue is not readable");
                let dead = Ending::Dead { error: "the order is not readable".to_owned() };
                return self.desk.end(&mut run, "corrupt", "the order is not readable", dead).await;
            }
        };
        if run.attempt() > run.attempts_max() {
            let message = "every try was broken off before its end";
            let dead = Ending::Dead { error: message.to_owned() };
            return self.desk.end(&mut run, "worker_lost", message, dead).await;
        }
        let limit = Duration::from_secs(self.desk.config.run_timeout_s);
        let mut handle = OrderHandle { run };
        let executed = tokio::select! {
            executed = time::timeout(limit, self.executor.execute(&request, &mut handle)) => Some(executed),
            () = hurry.cancelled() => None,
        };
        let run = &mut handle.run;
        let failed = match executed {
            None => {
                debug!(order = %run.order(), "gave an order back");
                run.finish(&Ending::Retry { after: Duration::ZERO }).await;
                return;
            }
            Some(Ok(Ok(confirmation))) => return self.confirm(run, &confirmation).await,
            Some(Ok(Err(error))) => error,
            Some(Err(_elapsed)) => ExecutionError::Failed {
                code: "timeout",
                message: format!("the order was not carried out within {limit:?}"),
                retry: true,
            },
        };
        match failed {
            ExecutionError::Failed { code, message, retry } => {
                self.desk.failed(run, code, &message, retry).await;
            }
            ExecutionError::Stopped(StepError(error)) => self.stopped(run, error).await,
        }
    }

    async fn confirm(&self, run: &mut Run, confirmation: &Confirmation) {
        let fields = vec![("txHash", quoted(&confirmation.tx_hash)), ("dex", quoted(&confirmation.dex))];
        match run.confirm(fields, &confirmation.message).await {
            Ok(()) | Err(RunError::Ended) => {
                run.finish(&Ending::Done).await;
            }
            Err(error) => self.stopped(run, error).await,
        }
    }

    /// A report was not taken.
    async fn stopped(&self, run: &mut Run, stopped: RunError) {
        match stopped {
            RunError::Cancelled => {
                self.desk.end(run, "cancelled", "the order was cancelled", Ending::Done).await;
            }
            RunError::Ended => {
                run.finish(&Ending::Done).await;
            }
            RunError::LeaseLost => {
                self.desk.stats.leases_lost.add(1);
                info!(order = %run.order(), run = run.run(), "lost the lease of an order; somebody else goes on");
            }
            RunError::Invalid(message) => {
                error!(order = %run.order(), error = message, "the executor broke a rule of updates");
                self.desk.failed(run, "executor_error", &message, false).await;
            }
            RunError::Unavailable(error) => {
                warn!(order = %run.order(), error = %error, "an update could not be told; the order is tried again");
                run.finish(&Ending::Retry { after: Duration::ZERO }).await;
            }
        }
    }
}

impl Desk {
    /// Writes an order's last update, `failed`, and ends its job.
    pub(super) async fn end(&self, run: &mut Run, code: &str, message: &str, ending: Ending) {
        match run.fail(code, message).await {
            Ok(()) => {}
            // Somebody was quicker; the job has nothing left to do.
            Err(RunError::Ended) => {
                run.finish(&Ending::Done).await;
                return;
            }
            Err(error) => {
                info!(order = %run.order(), error = %error, "an order could not be ended yet; its lease runs out");
                return;
            }
        }
        if matches!(ending, Ending::Dead { .. }) {
            self.stats.dead.add(1);
        }
        run.finish(&ending).await;
    }

    /// A try failed: there is another one, or the order ends. Says how long the other one waits.
    pub(super) async fn failed(
        &self,
        run: &mut Run,
        code: &str,
        message: &str,
        retry: bool,
    ) -> Option<Duration> {
        let used_up = run.attempt() >= run.attempts_max();
        if retry && !used_up {
            let after = self.config.retry().wait(run.attempt(), rand::random());
            debug!(order = %run.order(), code, message, ?after, "an order is tried again");
            match run.finish(&Ending::Retry { after }).await {
                Held::Yes => {
                    self.stats.retried.add(1);
                    return Some(after);
                }
                Held::Cancelled => {
                    self.end(run, "cancelled", "the order was cancelled", Ending::Done).await;
                }
                Held::Lost => self.stats.leases_lost.add(1),
            }
            return None;
        }
        let ending = if retry { Ending::Dead { error: format!("{code}: {message}") } } else { Ending::Done };
        self.end(run, code, message, ending).await;
        None
    }
}

fn log_panic(ended: &Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        // The lease runs out, and the order is tried again, as if the process had ended.
        error!(error = %error, "a run of an order panicked; this is a bug");
    }
}
