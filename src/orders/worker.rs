//! Claims orders' jobs and has them carried out by an executor in this process.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::executor::{Confirmation, ExecutionError, OrderExecutor, OrderHandle, StepError};
use super::request::OrderRequest;
use super::run::{Claim, Run, RunError};
use super::service::{Desk, Orders};
use crate::model::{Entry, OrderId};
use crate::protocol::quoted;
use crate::storage::{ClaimedJob, Ending, Held};
use crate::support::backoff::Backoff;

/// Between tries to claim while the storage does not answer.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(100),
    max: Duration::from_secs(1),
    jitter: Duration::from_millis(100),
};

/// How many times an order may be taken up for each of its attempts: runs may end before they tell
/// anything.
const RUNS_PER_ATTEMPT: u32 = 10;

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
        let Some(newest) = self.newest(order, asked).await else { return };
        let (cancelled, payload) = (job.cancelled, job.payload);
        let claim = Claim {
            order,
            token: job.token,
            run: job.run,
            committed: job.committed,
            asked,
            lasts: self.desk.config.lease(),
            newest,
        };
        let run = Run::new(Arc::clone(&self.desk), claim, self.executor.name());
        self.carry_out(run, &payload, cancelled && !job.committed, hurry).await;
    }

    /// The order's newest update; `None` when the storage did not say for as long as the lease is
    /// certain to last.
    async fn newest(&self, order: OrderId, asked: Instant) -> Option<Option<Entry>> {
        let mut failures = 0;
        while asked.elapsed() < self.desk.config.lease() {
            match self.desk.newest(order).await {
                Ok(newest) => return Some(newest),
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
        let request: OrderRequest = match self.desk.to_be_done(&mut run, payload, cancelled).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => return self.desk.note(Err(error)),
        };
        let limit = Duration::from_secs(self.desk.config.run_timeout_s);
        let cancelled = run.keep_lease();
        let mut handle = OrderHandle { run };
        let executed = tokio::select! {
            executed = time::timeout(limit, self.executor.execute(&request, &mut handle)) => executed,
            () = cancelled => Ok(Err(ExecutionError::Stopped(StepError(RunError::Cancelled)))),
            () = hurry.cancelled() => {
                debug!(order = %handle.order(), "giving an order back");
                return self.desk.give_back(&mut handle.run).await;
            }
        };
        let run = &mut handle.run;
        let failed = match executed {
            Ok(Ok(confirmation)) => return self.confirm(run, &confirmation).await,
            Ok(Err(error)) => error,
            Err(_elapsed) => ExecutionError::Failed {
                code: "timeout",
                message: format!("the order was not carried out within {limit:?}"),
                retry: true,
            },
        };
        match failed {
            ExecutionError::Failed { code, message, retry } => {
                self.desk.note(self.desk.failed(run, code, &message, retry).await.map(drop));
            }
            ExecutionError::Stopped(StepError(error)) => self.stopped(run, error).await,
        }
    }

    async fn confirm(&self, run: &mut Run, confirmation: &Confirmation) {
        let fields = vec![("txHash", quoted(&confirmation.tx_hash)), ("dex", quoted(&confirmation.dex))];
        match run.confirm(fields, &confirmation.message).await {
            Ok(()) | Err(RunError::Ended) => self.desk.note(run.finish(&Ending::Done).await.map(drop)),
            Err(error) => self.stopped(run, error).await,
        }
    }

    /// A report was not taken.
    async fn stopped(&self, run: &mut Run, stopped: RunError) {
        match stopped {
            RunError::Cancelled => self.desk.note(self.desk.end_cancelled(run).await),
            RunError::Ended => self.desk.note(run.finish(&Ending::Done).await.map(drop)),
            RunError::LeaseLost => {
                self.desk.stats.leases_lost.add(1);
                info!(order = %run.order(), run = run.run(), "lost the lease of an order; somebody else goes on");
            }
            RunError::Invalid(message) => {
                error!(order = %run.order(), error = message, "the executor broke a rule of updates");
                self.desk.note(self.desk.failed(run, "executor_error", &message, false).await.map(drop));
            }
            RunError::Unavailable(error) => {
                warn!(order = %run.order(), error = %error, "an update could not be told; the order is tried again");
                self.desk.give_back(run).await;
            }
        }
    }
}

impl Desk {
    /// What a claimed job asks for; `None` where nothing is left to do but to end it, which is done.
    ///
    /// # Errors
    /// It could not be ended; its lease runs out, and somebody else ends it.
    pub(super) async fn to_be_done<T: DeserializeOwned>(
        &self,
        run: &mut Run,
        payload: &[u8],
        cancelled: bool,
    ) -> Result<Option<T>, RunError> {
        if let Some(ending) = run.left_over() {
            run.finish(&ending).await?;
            return Ok(None);
        }
        if cancelled {
            self.end_cancelled(run).await?;
            return Ok(None);
        }
        // A run that ends before it has told anything uses up no attempt, but must not go on for ever.
        let runs_max = self.config.attempts_max.saturating_mul(RUNS_PER_ATTEMPT);
        if run.attempt() > run.attempts_max() || run.run() > runs_max {
            let message = "every try was broken off before its end";
            self.end(run, "worker_lost", message, true).await?;
            return Ok(None);
        }
        match serde_json::from_slice(payload) {
            Ok(request) => Ok(Some(request)),
            Err(error) => {
                error!(order = %run.order(), error = %error, "an order in the queue is not readable");
                self.end(run, "corrupt", "the order is not readable", true).await?;
                Ok(None)
            }
        }
    }

    /// Ends an order that was cancelled in time.
    pub(super) async fn end_cancelled(&self, run: &mut Run) -> Result<(), RunError> {
        self.end(run, "cancelled", "the order was cancelled", false).await
    }

    /// Writes an order's last update, `failed`, and ends its job: as a dead letter, or not.
    async fn end(&self, run: &mut Run, code: &str, message: &str, is_dead: bool) -> Result<(), RunError> {
        let told = run.fail(code, message, is_dead).await;
        if !matches!(told, Ok(()) | Err(RunError::Ended)) {
            return told;
        }
        let error = format!("{code}: {message}");
        // Where somebody was quicker with the last update, the job has nothing left to do.
        let dead = told.is_ok() && is_dead;
        self.stats.dead.add(u64::from(dead));
        run.finish(&if dead { Ending::Dead { error } } else { Ending::Done }).await?;
        Ok(())
    }

    /// A try failed: there is another one, or the order ends. Says how long the other one waits.
    ///
    /// # Errors
    /// Neither could be done, or the order is somebody else's.
    pub(super) async fn failed(
        &self,
        run: &mut Run,
        code: &str,
        message: &str,
        retry: bool,
    ) -> Result<Option<Duration>, RunError> {
        // A run that told nothing counts as a try here.
        let tries = run.attempt().max(run.run());
        if !retry || tries >= run.attempts_max() {
            self.end(run, code, message, retry).await?;
            return Ok(None);
        }
        let after = self.config.retry().wait(tries, rand::random());
        debug!(order = %run.order(), code, message, ?after, "an order is tried again");
        match run.finish(&Ending::Retry { after }).await? {
            Held::Yes => {
                self.stats.retried.add(1);
                Ok(Some(after))
            }
            Held::Cancelled => {
                self.end_cancelled(run).await?;
                Ok(None)
            }
            Held::Lost => Err(RunError::LeaseLost),
        }
    }

    /// Lets others go on with an order at once.
    async fn give_back(&self, run: &mut Run) {
        let given = match run.finish(&Ending::Retry { after: Duration::ZERO }).await {
            Ok(Held::Cancelled) => self.end_cancelled(run).await,
            given => given.map(drop),
        };
        self.note(given);
    }

    /// What could not be ended is taken up by another claim, when the lease has run out.
    fn note(&self, ended: Result<(), RunError>) {
        let Err(error) = ended else { return };
        if matches!(error, RunError::LeaseLost) {
            self.stats.leases_lost.add(1);
        }
        info!(error = %error, "an order could not be ended here; another claim does");
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
