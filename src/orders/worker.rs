//! Claims the jobs of orders and has an executor in this process execute them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::desk::{Desk, Orders};
use super::executor::{Confirmation, ExecutionError, OrderExecutor, OrderHandle};
use super::request::OrderRequest;
use super::run::{Run, RunError};
use crate::model::{Entry, OrderId};
use crate::storage::{Ending, JOBS_PER_CALL_MAX, JobView};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::panics::contain;

/// How long a stopping process lets the orders under way go on; then they are given back.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// A worker that has few free places waits this long for more, and claims for all of them at once. It claims at once
/// if one place in [`TOGETHER_PART`] is free.
const TOGETHER_WITHIN: Duration = Duration::from_millis(5);
const TOGETHER_PART: usize = 8;

/// Executes several orders at once.
#[derive(Debug)]
pub(crate) struct Worker {
    desk: Arc<Desk>,
    executor: Arc<dyn OrderExecutor>,
}

impl Worker {
    /// A worker for the orders that are queued here and elsewhere.
    pub(crate) fn new(orders: &Orders, executor: Arc<dyn OrderExecutor>) -> Self {
        Self { desk: Arc::clone(orders.desk()), executor }
    }

    /// Works until `stop`; then finishes what can be finished in a few seconds, and gives the rest back to
    /// the queue.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let worker = Arc::new(self);
        let concurrency = worker.desk.parts.config.concurrency;
        let poll = Duration::from_millis(worker.desk.parts.config.poll_ms);
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
                stop.run_until_cancelled(until_left(&mut runs, concurrency - 1)).await;
                continue;
            }
            if free * TOGETHER_PART < concurrency {
                let gathered = until_left(&mut runs, concurrency - concurrency / TOGETHER_PART);
                stop.run_until_cancelled(time::timeout(TOGETHER_WITHIN, gathered)).await;
            }
            let free = concurrency - runs.len();
            let asked = Instant::now();
            // From here on a notification is not missed: an order that is queued during the claim ends the
            // next wait at once.
            let queued = worker.desk.queued.notified();
            let cancels = worker.desk.cancels.subscribe();
            let lease = worker.desk.parts.config.lease();
            let idle = match worker.desk.parts.backend.claim(&worker.desk.parts.kind, free, lease).await {
                Ok(claimed) => {
                    failures = 0;
                    // If fewer were claimed than possible, the queue is empty. The worker is notified of
                    // orders that are queued here, and finds those that are queued elsewhere when it polls.
                    let idle = claimed.len() < free.min(JOBS_PER_CALL_MAX);
                    worker.desk.stats.runs.add(claimed.len() as u64);
                    for job in claimed {
                        // A job that was claimed while the process was stopping is not begun.
                        let hurry = if stop.is_cancelled() { stop.clone() } else { hurry.clone() };
                        runs.spawn(Arc::clone(&worker).work(job, asked, cancels.clone(), hurry));
                    }
                    idle.then_some(poll)
                }
                Err(error) => {
                    worker.desk.stats.storage_failures.add(1);
                    if failures == 0 {
                        warn!(error = %error, "orders cannot be claimed; trying again");
                    }
                    failures += 1;
                    Some(STORAGE_RETRY.wait(failures))
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
        if time::timeout(FINISH_WITHIN, until_left(&mut runs, 0)).await.is_err() {
            info!(orders = runs.len(), "giving back orders under way");
            hurry.cancel();
            until_left(&mut runs, 0).await;
        }
    }

    /// Executes a job that was claimed at `asked`. `cancels`, which was subscribed before the claim, changes whenever
    /// this process is asked to cancel an order; `hurry` says that the process is about to end.
    async fn work(
        self: Arc<Self>,
        job: JobView,
        asked: Instant,
        cancels: watch::Receiver<()>,
        hurry: CancellationToken,
    ) {
        let order = OrderId::from(job.id);
        let newest = if is_new(&job) { Some(None) } else { self.newest(order, asked).await };
        let Some(newest) = newest else { return };
        let lease = (asked, self.desk.parts.config.lease());
        let run = Run::new(Arc::clone(&self.desk), &job, lease, newest, self.executor.name());
        self.execute(run, &job.payload, cancels, hurry).await;
    }

    /// The order's newest update; `None` if the storage did not answer for as long as the lease certainly
    /// lasts.
    async fn newest(&self, order: OrderId, asked: Instant) -> Option<Option<Entry>> {
        let mut failures = 0;
        while asked.elapsed() < self.desk.parts.config.lease() {
            match self.desk.newest(order).await {
                Ok(newest) => return Some(newest),
                Err(error) => {
                    let what = "how far an order is cannot be read yet";
                    self.desk.pause_after(order, &mut failures, &error, what).await;
                }
            }
        }
        None
    }

    async fn execute(
        &self,
        mut run: Run,
        payload: &[u8],
        cancels: watch::Receiver<()>,
        hurry: CancellationToken,
    ) {
        let request: OrderRequest = match self.desk.to_be_done(&mut run, payload).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => return self.desk.note(Err(error)),
        };
        let limit = Duration::from_secs(self.desk.parts.config.run_timeout_s);
        let cancelled = Arc::clone(&run.lease).keep(cancels);
        let mut handle = OrderHandle { run };
        let executing = async { self.executor.execute(&request, &mut handle).await };
        let executing = contain(time::timeout(limit, executing), &self.desk.stats.panics);
        let executed = tokio::select! {
            biased;
            () = hurry.cancelled() => {
                return self.desk.note(self.desk.give_back(&mut handle.run).await);
            }
            executed = executing => executed,
            () = cancelled => Some(Ok(Err(ExecutionError::Stopped(RunError::Cancelled)))),
        };
        let run = &mut handle.run;
        let failed = match executed {
            Some(Ok(Ok(confirmation))) => return self.confirm(run, &confirmation).await,
            Some(Ok(Err(error))) => error,
            Some(Err(_elapsed)) => ExecutionError::Failed {
                code: "timeout",
                message: format!("the order was not executed within {limit:?}"),
                retry: true,
            },
            None => {
                error!(order = %run.order, attempt = run.attempts.current, "the executor panicked; this is a bug");
                let message = "the executor broke off because of a bug".to_owned();
                ExecutionError::Failed { code: "executor_error", message, retry: true }
            }
        };
        match failed {
            ExecutionError::Failed { code, message, retry } => {
                self.desk.note(self.desk.failed(run, code, &message, retry).await.map(drop));
            }
            ExecutionError::Stopped(error) => self.stopped(run, error).await,
        }
    }

    async fn confirm(&self, run: &mut Run, confirmation: &Confirmation) {
        let Confirmation { message, fields } = confirmation;
        match run.confirm(fields, message).await {
            Ok(()) | Err(RunError::Ended) => self.desk.note(run.finish(&Ending::Done).await.map(drop)),
            Err(error) => self.stopped(run, error).await,
        }
    }

    /// Handles a report that was not accepted.
    async fn stopped(&self, run: &mut Run, stopped: RunError) {
        match stopped {
            RunError::Cancelled => self.desk.note(self.desk.end_cancelled(run).await),
            RunError::Ended => self.desk.note(run.finish(&Ending::Done).await.map(drop)),
            RunError::LeaseLost => {
                self.desk.stats.leases_lost.add(1);
                info!(order = %run.order, run = run.run, "lost the lease of an order; somebody else goes on");
            }
            RunError::Invalid(_) | RunError::Payload(_) => {
                let message = stopped.to_string();
                error!(order = %run.order, error = message, "the executor broke a rule of updates");
                self.desk.note(self.desk.failed(run, "executor_error", &message, false).await.map(drop));
            }
            RunError::Unavailable(error) => {
                warn!(order = %run.order, error = %error, "an update could not be appended; the order is given back");
                self.desk.note(self.desk.give_back(run).await);
            }
        }
    }
}

/// Whether no run can have reported on a job's order. If the queue has lost what it knew of earlier runs, this is wrong,
/// and the first report finds that the log has entries.
fn is_new(job: &JobView) -> bool {
    job.run == 1 && job.attempt.number == 0 && !job.committed
}

/// Waits until no more than `count` runs are left.
async fn until_left(runs: &mut JoinSet<()>, count: usize) {
    while runs.len() > count
        && let Some(ended) = runs.join_next().await
    {
        log_panic(&ended);
    }
}

fn log_panic(ended: &Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        // Not a panic of the executor, which only fails the attempt. The lease runs out, and the order is
        // attempted again, as if the process had ended.
        error!(error = %error, "a run of an order panicked; this is a bug");
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::channels::First;
    use crate::model::{ChannelName, EntryKind};
    use crate::orders::OrdersParts;
    use crate::protocol::{OrderUpdate, Standing};

    /// Notes how far an order was known to be at the start of each of its runs, and what was sent.
    #[derive(Debug, Default)]
    struct Venue {
        found: Mutex<Vec<Option<EntryKind>>>,
        sent: Mutex<u32>,
    }

    #[async_trait]
    impl OrderExecutor for Venue {
        fn name(&self) -> &'static str {
            "paper"
        }

        async fn execute(
            &self,
            _order: &OrderRequest,
            handle: &mut OrderHandle,
        ) -> Result<Confirmation, ExecutionError> {
            let found = handle.previous().map(|standing| standing.kind);
            self.found.lock().push(found.clone());
            if found.is_none() {
                handle.routing(10, "", &[]).await?;
            }
            handle.submitted(75, "", &[]).await?;
            *self.sent.lock() += u32::from(found.is_none());
            Ok(Confirmation { message: String::new(), fields: Vec::new() })
        }
    }

    /// As after the loss of the primary that had the jobs, where its replica had not heard of a claim yet.
    #[tokio::test(start_paused = true)]
    async fn an_order_that_a_forgotten_run_submitted_is_not_sent_again() {
        let orders = OrdersParts::in_memory("paper");
        let text = r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1,"slippage":0.5}"#;
        let order = orders.place(&OrderRequest::parse(text).unwrap(), None, None).await.unwrap().order;
        let desk = orders.desk();
        let standing = Standing { kind: EntryKind::Submitted, progress: 75, attempt: 1 };
        let submitted =
            OrderUpdate::new(standing, chrono::Utc::now(), |payload| payload.push_number("run", 1)).draft;
        desk.append(order, vec![submitted], Some(1), First::Likely).await.unwrap();

        let (venue, stop) = (Arc::new(Venue::default()), CancellationToken::new());
        let executor: Arc<dyn OrderExecutor> = Arc::clone(&venue) as _;
        let mut working = JoinSet::new();
        working.spawn(Worker::new(&orders, executor).run(stop.clone()));
        let channel = ChannelName::order(order);
        let kinds = async || {
            let page = desk.parts.channels.read_after(&channel, None, 100).await.unwrap();
            page.entries.into_iter().map(|entry| entry.draft.kind).collect::<Vec<_>>()
        };
        let ended = async {
            while kinds().await.last() != Some(&EntryKind::Confirmed) {
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        time::timeout(Duration::from_secs(20), ended).await.unwrap();
        stop.cancel();
        while working.join_next().await.is_some() {}
        assert_eq!(*venue.found.lock(), [None, Some(EntryKind::Submitted)]);
        assert_eq!(*venue.sent.lock(), 0);
        assert_eq!(kinds().await, [EntryKind::Submitted, EntryKind::Submitted, EntryKind::Confirmed]);
    }
}
