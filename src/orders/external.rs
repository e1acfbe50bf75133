//! Workers outside this process, over HTTP: they claim, report, and end orders call by call.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::Utc;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

use super::config::LEASE_MAX;
use super::run::{Claim, Run, RunError};
use super::service::{Desk, Orders};
use super::view::run_of;
use crate::model::{ChannelName, Entry, EntryKind, OrderId};
use crate::protocol::{ClaimRequest, InvalidPayload, OfferedJob, OrderUpdate, Previous, Standing, quoted};
use crate::storage::{ClaimedJob, Ending, Held, JobState, LEASE_MIN, Result as StorageResult, StorageError};

/// Jobs that a worker may claim at once.
const CLAIMED_MAX: usize = 100;

/// The longest that a claim waits for something to do.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a claimed job may take to be offered.
const OFFER_WITHIN: Duration = Duration::from_secs(5);

/// How long a report may wait for a storage that is away; then the worker is told to repeat it. A
/// lease lasts at least as long from `submitted` on.
const REPORT_WITHIN: Duration = Duration::from_secs(10);

/// Jobs that were claimed, and are given back when this is dropped before they were [taken](Self::take).
#[derive(Debug)]
pub struct Claimed {
    held: Vec<(OfferedJob, Run)>,
    desk: Arc<Desk>,
}

impl Claimed {
    /// What is offered.
    pub fn jobs(&self) -> Vec<&OfferedJob> {
        self.held.iter().map(|(offered, _)| offered).collect()
    }

    /// From here on they are the worker's, until their leases end.
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
        info!(orders = held.len(), "giving back what was claimed for a worker that is gone");
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

/// A claim that is counted until it is answered, or given up.
struct UnderWay(Arc<Desk>);

impl UnderWay {
    fn new(desk: Arc<Desk>) -> Self {
        desk.stats.claims_under_way.fetch_add(1, Ordering::Relaxed);
        Self(desk)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.stats.claims_under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A job that a call is about.
struct TakenUp {
    run: Run,
    /// The order was cancelled in time.
    cancelled: bool,
    newest: Option<Entry>,
}

/// What every call about a job begins with.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// The order.
    pub order: OrderId,
    /// From the claim.
    pub token: u64,
}

/// What became of a job that a worker could not carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is offered again after this time.
    Retry(Duration),
    /// The order has ended.
    Failed,
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The report has the wrong form.
    #[error(transparent)]
    Payload(#[from] InvalidPayload),
    /// The run cannot go on, or the report breaks a rule.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl Orders {
    /// Claims jobs for a worker outside; waits for one for as long as was asked. Dropped at any moment, or
    /// with its answer not taken, it gives back what it claimed.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn claim(&self, request: &ClaimRequest) -> StorageResult<Claimed> {
        let _under_way = UnderWay::new(Arc::clone(self.desk()));
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

    /// What can be claimed now. The caller may go at any moment, so it is done by a task of its own.
    async fn claim_now(&self, request: &ClaimRequest) -> StorageResult<Claimed> {
        let limit = request.limit.unwrap_or(1).clamp(1, CLAIMED_MAX);
        let (orders, worker, lease) = (self.clone(), request.worker.clone(), self.lease(request.lease_ms));
        let (give, taken) = oneshot::channel();
        let claiming = async move {
            // Where nobody takes it any more, dropping it gives back what was claimed.
            let _unless_taken = give.send(orders.claim_for(&worker, limit, lease).await);
        };
        self.desk().tasks.spawn_on(claiming, &self.desk().runtime);
        let ended = |_dropped| StorageError::Unreachable { op: "claim", cause: "the claim broke off".into() };
        taken.await.map_err(ended)?
    }

    async fn claim_for(&self, worker: &str, limit: usize, lease: Duration) -> StorageResult<Claimed> {
        let asked = Instant::now();
        let jobs = self.desk().backend.claim(&self.desk().kind, limit, lease).await?;
        self.stats().runs.add(jobs.len() as u64);
        for job in &jobs {
            self.desk().note_lease(job.id.into(), job.token, asked + lease);
        }
        let offers = jobs.into_iter().map(|job| self.offer(job, asked, lease, worker));
        let held = futures_util::future::join_all(offers).await.into_iter().flatten().collect();
        Ok(Claimed { held, desk: Arc::clone(self.desk()) })
    }

    fn lease(&self, asked_ms: Option<u64>) -> Duration {
        let asked = asked_ms.map_or(self.config().lease(), Duration::from_millis);
        asked.clamp(Duration::from_secs(1), LEASE_MAX)
    }

    /// Ends here and now what no worker needs to see. What cannot be offered is given back; the other
    /// jobs of the claim do not wait for it.
    async fn offer(
        &self,
        job: ClaimedJob,
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
        match self.desk().backend.finish(id, token, &ending).await {
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
        job: ClaimedJob,
        asked: Instant,
        lease: Duration,
        worker: &str,
    ) -> Result<Option<(OfferedJob, Run)>, RunError> {
        let ClaimedJob { id, payload, token, run: nth, cancelled, committed, attempt, .. } = job;
        let order = OrderId::from(id);
        let newest = self.desk().newest(order).await?;
        let claim = Claim { order, token, run: nth, committed, attempt, asked, lasts: lease, newest };
        let mut run = Run::new(Arc::clone(self.desk()), claim, worker);
        let Some(request) = self.desk().to_be_done(&mut run, &payload, cancelled && !committed).await? else {
            return Ok(None);
        };
        let left = lease.saturating_sub(asked.elapsed());
        let offered = OfferedJob {
            job_id: order,
            order_id: order,
            token,
            run: nth,
            attempt: run.attempt(),
            max_attempts: run.attempts_max(),
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

    /// Says that a worker is alive, and makes its lease last from now on.
    ///
    /// # Errors
    /// The lease is lost, or the order was cancelled: the worker ends it with
    /// [`give_up`](Self::give_up).
    pub async fn extend(&self, ticket: Ticket, lease_ms: Option<u64>) -> Result<(), RunError> {
        let (asked, lease) = (Instant::now(), self.lease(lease_ms));
        let held = self.desk().backend.extend(ticket.order.into(), ticket.token, lease).await?;
        match held {
            Held::Yes => {
                self.desk().note_lease(ticket.order, ticket.token, asked + lease);
                Ok(())
            }
            Held::Cancelled => Err(RunError::Cancelled),
            Held::Lost => Err(RunError::LeaseLost),
        }
    }

    /// Takes a worker's report: `routing`, `building` or `submitted`. Repeating the newest one does
    /// nothing, and is taken. Where it is not said which try it belongs to, it is the current one's.
    ///
    /// # Errors
    /// See [`ReportError`].
    pub async fn progress(
        &self,
        ticket: Ticket,
        fields: &[(String, &RawValue)],
        worker: Option<&str>,
    ) -> Result<(), ReportError> {
        let settling = self.settling(ticket.order)?;
        let TakenUp { mut run, newest, .. } = self.taken_up(ticket, worker).await?;
        let update = with_run(&run, fields, None)?;
        if update.standing.kind.is_terminal() {
            let message = "an order ends with /complete or /fail".to_owned();
            return Err(RunError::Invalid(message).into());
        }
        if update.standing.attempt > run.attempts_max() {
            let message = format!("there are {} attempts; end the order with /fail", run.attempts_max());
            return Err(RunError::Invalid(message).into());
        }
        let repeats =
            |newest: &Entry| newest.draft.kind == update.draft.kind && newest.draft.data == update.draft.data;
        if newest.as_ref().is_some_and(repeats) {
            debug!(order = %ticket.order, "a worker repeated its newest report");
            if update.standing.kind == EntryKind::Submitted {
                // It may act on the answer, so the lease must hold as after the first one.
                self.settle(settling, async move { run.renew().await }).await?;
            }
            return Ok(());
        }
        Ok(self.settle(settling, async move { run.tell(update).await }).await?)
    }

    /// The order was carried out.
    ///
    /// # Errors
    /// See [`ReportError`].
    pub async fn complete(
        &self,
        ticket: Ticket,
        fields: &[(String, &RawValue)],
        worker: Option<&str>,
    ) -> Result<(), ReportError> {
        let settling = self.settling(ticket.order)?;
        let TakenUp { mut run, .. } = self.taken_up(ticket, worker).await?;
        let update = with_run(&run, fields, Some(EntryKind::Confirmed))?;
        let desk = Arc::clone(self.desk());
        let completing = async move {
            run.tell(update).await?;
            desk.stats.confirmed.add(1);
            run.finish(&Ending::Done).await?;
            Ok(())
        };
        Ok(self.settle(settling, completing).await?)
    }

    /// The order was not carried out; with `retry` it may be tried again.
    ///
    /// # Errors
    /// The lease is lost, or the storage does not answer.
    pub async fn give_up(
        &self,
        ticket: Ticket,
        code: String,
        message: String,
        retry: bool,
        worker: Option<&str>,
    ) -> Result<Outcome, RunError> {
        let settling = self.settling(ticket.order)?;
        let TakenUp { mut run, cancelled, .. } = self.taken_up_or_cancelled(ticket, worker).await?;
        let desk = Arc::clone(self.desk());
        self.settle(settling, async move {
            if cancelled {
                desk.end_cancelled(&mut run).await?;
                return Ok(Outcome::Failed);
            }
            Ok(match desk.failed(&mut run, &code, &message, retry).await? {
                Some(after) => Outcome::Retry(after),
                None => Outcome::Failed,
            })
        })
        .await
    }

    /// The worker does not go on with the order, and nothing is wrong with it: another one may have it at
    /// once, in the same attempt.
    ///
    /// # Errors
    /// The lease is lost, or the storage does not answer.
    pub async fn release(&self, ticket: Ticket) -> Result<(), RunError> {
        let settling = self.settling(ticket.order)?;
        let TakenUp { mut run, .. } = self.taken_up_or_cancelled(ticket, None).await?;
        let desk = Arc::clone(self.desk());
        self.settle(settling, async move { desk.give_back(&mut run).await }).await
    }

    /// Marks an order as being told of; one report after the other.
    fn settling(&self, order: OrderId) -> Result<Settling, RunError> {
        if !self.desk().settling.lock().insert(order) {
            return Err(RunError::Unavailable("another report of this order is still on its way".into()));
        }
        Ok(Settling { desk: Arc::clone(self.desk()), order })
    }

    /// Does what must not be broken off: a caller that no longer waits, or has waited for too long,
    /// leaves it to end by itself, and the order takes no other report until then.
    async fn settle<T: Send + 'static>(
        &self,
        settling: Settling,
        work: impl Future<Output = Result<T, RunError>> + Send + 'static,
    ) -> Result<T, RunError> {
        let working = async move {
            let done = work.await;
            drop(settling);
            done
        };
        let working = self.desk().tasks.spawn_on(working, &self.desk().runtime);
        match time::timeout(REPORT_WITHIN, working).await {
            Ok(Ok(done)) => done,
            Ok(Err(ended)) => Err(RunError::Unavailable(Box::new(ended))),
            Err(_elapsed) => Err(RunError::Unavailable("the storage was away for too long".into())),
        }
    }

    /// The run of a call, if the job is still the worker's and was not cancelled in time. Only
    /// [`extend`](Self::extend) makes a lease last longer: how long is the worker's to say.
    async fn taken_up(&self, ticket: Ticket, worker: Option<&str>) -> Result<TakenUp, RunError> {
        let taken_up = self.taken_up_or_cancelled(ticket, worker).await?;
        if taken_up.cancelled { Err(RunError::Cancelled) } else { Ok(taken_up) }
    }

    /// The same, also where it was cancelled.
    async fn taken_up_or_cancelled(&self, ticket: Ticket, worker: Option<&str>) -> Result<TakenUp, RunError> {
        let Ticket { order, token } = ticket;
        let asked = Instant::now();
        let (job, newest) =
            tokio::try_join!(self.desk().backend.job(order.into()), self.desk().newest(order))?;
        let job = job.filter(|job| job.token == token).ok_or(RunError::LeaseLost)?;
        let is_claimed = job.state == JobState::Claimed;
        if is_claimed
            && self.desk().backend.is_degraded_for(&ChannelName::order(order))
            && !self.desk().is_held(order, token, asked)
        {
            // The job as it was seen last says nothing of the lease. One that is this node's own can be
            // asked for; of others nobody knows whose they are by now.
            self.desk().backend.extend(order.into(), token, LEASE_MIN).await?;
        }
        let (run, lasts) = (job.run, REPORT_WITHIN);
        let goes_on = newest.as_ref().is_some_and(|newest| run_of(newest) == Some(run));
        let (committed, attempt) = (job.committed, job.attempt);
        let claim = Claim { order, token, run, committed, attempt, asked, lasts, newest: newest.clone() };
        let mut run = Run::new(Arc::clone(self.desk()), claim, worker.unwrap_or("external"));
        if let Some(ending) = run.left_over() {
            // The last update was told, and the job was not ended: by a call that was broken off.
            if is_claimed {
                run.finish(&ending).await?;
            }
            return Err(RunError::Ended);
        }
        if !is_claimed {
            return Err(RunError::LeaseLost);
        }
        if goes_on {
            run.go_on();
        }
        Ok(TakenUp { run, cancelled: job.cancelled && !job.committed, newest })
    }
}

impl Desk {
    fn note_lease(&self, order: OrderId, token: u64, until: Instant) {
        let mut leases = self.leases.lock();
        let held = leases.get(&order).filter(|(held, _)| *held == token).map(|(_, until)| *until);
        leases.insert(order, (token, held.map_or(until, |held| held.max(until))), 0);
    }

    /// Whether a lease is certain to hold, by this process' own clock.
    fn is_held(&self, order: OrderId, token: u64, now: Instant) -> bool {
        self.leases.lock().get(&order).is_some_and(|(held, until)| *held == token && now < *until)
    }
}

/// An order that is being told of; no other report is taken until this is dropped.
struct Settling {
    desk: Arc<Desk>,
    order: OrderId,
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.desk.settling.lock().remove(&self.order);
    }
}

/// A worker's update, with what belongs to the run where the worker left it out.
fn with_run(
    run: &Run,
    fields: &[(String, &RawValue)],
    kind: Option<EntryKind>,
) -> Result<OrderUpdate, InvalidPayload> {
    // Which run it is, how many tries there are, and how an order ends is not the worker's to say.
    let is_ours = |name: &str| {
        ["token", "run", "maxAttempts", "deadLetter"].contains(&name)
            || (kind.is_some() && ["type", "progress"].contains(&name))
    };
    let kept = fields.iter().filter(|(name, _)| !is_ours(name));
    let mut all: Vec<(String, &RawValue)> = kept.map(|(name, value)| (name.clone(), *value)).collect();
    let raw = |json: String| RawValue::from_string(json).expect("numbers and quoted texts are JSON");
    let mut added: Vec<(&str, Box<RawValue>)> = Vec::new();
    if let Some(kind) = kind {
        added.push(("type", raw(quoted(kind.as_str()))));
    }
    for (name, json) in [
        ("attempt", run.attempt().to_string()),
        ("maxAttempts", run.attempts_max().to_string()),
        ("run", run.run().to_string()),
        ("executor", quoted(run.executor())),
    ] {
        if all.iter().all(|(given, _)| given != name) {
            added.push((name, raw(json)));
        }
    }
    all.extend(added.iter().map(|(name, value)| ((*name).to_owned(), &**value)));
    OrderUpdate::from_fields(&all, Utc::now())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::channels::{Channels, ChannelsConfig, ChannelsParts};
    use crate::model::NodeId;
    use crate::orders::{OrderMirror, OrderRequest, OrderSchema, OrdersConfig, OrdersParts};
    use crate::storage::{JobCounts, MemoryBackend, SharedBackend};
    use crate::support::panics::Vital;

    fn orders() -> Orders {
        let (backend, _sweeping) = MemoryBackend::new(Default::default(), Default::default());
        let backend: SharedBackend = Arc::new(backend);
        let parts = ChannelsParts {
            backend: Arc::clone(&backend),
            node: NodeId::random(),
            config: ChannelsConfig::default(),
            shards: Vec::new(),
            runtime: tokio::runtime::Handle::current(),
            vital: Vital::default(),
        };
        let channels = Channels::new(parts, TaskTracker::new(), CancellationToken::new());
        let schema = OrderSchema::load("swap").unwrap();
        let (config, mirror) = (OrdersConfig::default(), OrderMirror::off());
        Orders::new(OrdersParts { backend, channels, config, mirror, kind: "external".into(), schema })
    }

    async fn place(orders: &Orders) {
        let text = r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1,"slippage":0.5}"#;
        orders.place(&OrderRequest::parse(text).unwrap(), None).await.unwrap();
    }

    fn wish() -> ClaimRequest {
        ClaimRequest { worker: "w".to_owned(), limit: Some(10), lease_ms: Some(3_600_000), wait_ms: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_claimed_for_nobody_is_given_back() {
        let orders = orders();
        for _ in 0..5 {
            place(&orders).await;
        }
        // The request ends before the claim does, with any number of steps between.
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
