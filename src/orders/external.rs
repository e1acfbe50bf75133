//! Workers outside this process, over HTTP: they claim, report, and end orders call by call.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{self, Instant};
use tracing::debug;

use super::config::LEASE_MAX;
use super::run::{Claim, Run, RunError};
use super::service::Orders;
use crate::model::{Entry, EntryKind, OrderId};
use crate::protocol::{InvalidPayload, OrderUpdate, Standing, quoted};
use crate::storage::{ClaimedJob, Ending, Held, JobState, Result as StorageResult};

/// Jobs that a worker may claim at once.
const CLAIMED_MAX: usize = 100;

/// The longest that a claim waits for something to do.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a report may wait for a storage that is away; then the worker is told to repeat it. A
/// lease lasts at least as long from `submitted` on.
const REPORT_WITHIN: Duration = Duration::from_secs(10);

/// What a worker asks for.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRequest {
    /// Its name; stands in the `executor` field of the updates.
    pub worker: String,
    /// How many jobs at the most. Default 1.
    pub limit: Option<usize>,
    /// For how long it holds them without a sign of life. Default `orders.lease_s`.
    pub lease_ms: Option<u64>,
    /// How long it waits where there is nothing to do. Default 0.
    pub wait_ms: Option<u64>,
}

/// A job that a worker may carry out.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfferedJob {
    /// Its name.
    pub job_id: OrderId,
    /// The order's; the same.
    pub order_id: OrderId,
    /// Must come with each call about this job.
    pub token: u64,
    /// How many times it has been claimed, this time included.
    pub run: u32,
    /// Which try this is.
    pub attempt: u32,
    /// How many there are.
    pub max_attempts: u32,
    /// How long it is the worker's without a sign of life.
    pub lease_ms: u64,
    /// What was ordered.
    pub order: Box<RawValue>,
    /// How far the run before came; null when nothing was told yet.
    pub previous: Option<Previous>,
}

/// How far a run came.
#[derive(Debug, Clone, Serialize)]
pub struct Previous {
    status: &'static str,
    progress: u8,
    attempt: u32,
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
    /// Claims jobs for a worker outside; waits for one for as long as was asked.
    ///
    /// # Errors
    /// The storage did not answer.
    pub async fn claim(&self, request: &ClaimRequest) -> StorageResult<Vec<OfferedJob>> {
        let limit = request.limit.unwrap_or(1).clamp(1, CLAIMED_MAX);
        let lease = self.lease(request.lease_ms);
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(0)).min(WAIT_MAX);
        let deadline = Instant::now() + wait;
        let poll = Duration::from_millis(self.config().poll_ms);
        loop {
            let queued = self.desk().queued.notified();
            let asked = Instant::now();
            let claimed = self.desk().backend.claim(limit, lease).await?;
            self.stats().runs.add(claimed.len() as u64);
            let mut offered = Vec::with_capacity(claimed.len());
            for job in claimed {
                offered.extend(self.offer(job, asked, lease, &request.worker).await?);
            }
            if !offered.is_empty() || Instant::now() >= deadline {
                return Ok(offered);
            }
            tokio::select! {
                () = queued => {}
                () = time::sleep(poll) => {}
            }
        }
    }

    fn lease(&self, asked_ms: Option<u64>) -> Duration {
        let asked = asked_ms.map_or(self.config().lease(), Duration::from_millis);
        asked.clamp(Duration::from_secs(1), LEASE_MAX)
    }

    /// Ends here and now what no worker needs to see.
    async fn offer(
        &self,
        job: ClaimedJob,
        asked: Instant,
        lease: Duration,
        worker: &str,
    ) -> StorageResult<Option<OfferedJob>> {
        let order = OrderId::from(job.id);
        let standing = self.desk().standing(order).await?;
        let claim = Claim {
            order,
            token: job.token,
            run: job.run,
            committed: job.committed,
            asked,
            lasts: lease,
            standing,
        };
        let mut run = Run::new(Arc::clone(self.desk()), claim, worker);
        if standing.is_some_and(|standing| standing.kind.is_terminal()) {
            run.finish(&Ending::Done).await;
            return Ok(None);
        }
        if job.cancelled && !job.committed {
            self.desk().end(&mut run, "cancelled", "the order was cancelled", Ending::Done).await;
            return Ok(None);
        }
        if run.attempt() > run.attempts_max() {
            let message = "every try was broken off before its end";
            let dead = Ending::Dead { error: message.to_owned() };
            self.desk().end(&mut run, "worker_lost", message, dead).await;
            return Ok(None);
        }
        let Ok(request) = serde_json::from_slice(&job.payload) else {
            let dead = Ending::Dead { error: "the order is not readable".to_owned() };
            self.desk().end(&mut run, "corrupt", "the order is not readable", dead).await;
            return Ok(None);
        };
        Ok(Some(OfferedJob {
            job_id: order,
            order_id: order,
            token: job.token,
            run: job.run,
            attempt: run.attempt(),
            max_attempts: run.attempts_max(),
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            order: request,
            previous: standing.map(|Standing { kind, progress, attempt }| Previous {
                status: kind.as_str(),
                progress,
                attempt,
            }),
        }))
    }

    /// Says that a worker is alive, and makes its lease last from now on.
    ///
    /// # Errors
    /// The lease is lost, or the order was cancelled: the worker ends it with
    /// [`give_up`](Self::give_up).
    pub async fn extend(&self, ticket: Ticket, lease_ms: Option<u64>) -> Result<(), RunError> {
        let held =
            self.desk().backend.extend(ticket.order.into(), ticket.token, self.lease(lease_ms)).await?;
        match held {
            Held::Yes => Ok(()),
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
        let mut run = self.taken_up(ticket, worker).await?;
        let update = self.with_run(&mut run, fields, None)?;
        if update.standing.kind.is_terminal() {
            let message = "an order ends with /complete or /fail".to_owned();
            return Err(RunError::Invalid(message).into());
        }
        self.tell(&mut run, update).await
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
        let mut run = self.taken_up(ticket, worker).await?;
        let update = self.with_run(&mut run, fields, Some(EntryKind::Confirmed))?;
        self.tell(&mut run, update).await?;
        self.stats().confirmed.add(1);
        run.finish(&Ending::Done).await;
        Ok(())
    }

    /// The order was not carried out; with `retry` it may be tried again.
    ///
    /// # Errors
    /// The lease is lost, or the storage does not answer.
    pub async fn give_up(
        &self,
        ticket: Ticket,
        code: &str,
        message: &str,
        retry: bool,
        worker: Option<&str>,
    ) -> Result<Outcome, RunError> {
        let (mut run, cancelled) = self.taken_up_or_cancelled(ticket, worker).await?;
        if cancelled {
            run.fail("cancelled", "the order was cancelled").await?;
            run.finish(&Ending::Done).await;
            return Ok(Outcome::Failed);
        }
        Ok(match self.desk().failed(&mut run, code, message, retry).await {
            Some(after) => Outcome::Retry(after),
            None => Outcome::Failed,
        })
    }

    /// The run of a call, if the job is still the worker's. Only [`extend`](Self::extend) makes a lease
    /// last longer: how long is the worker's to say.
    async fn taken_up(&self, ticket: Ticket, worker: Option<&str>) -> Result<Run, RunError> {
        let (run, cancelled) = self.taken_up_or_cancelled(ticket, worker).await?;
        if cancelled { Err(RunError::Cancelled) } else { Ok(run) }
    }

    /// The same, and whether the order was cancelled in time.
    async fn taken_up_or_cancelled(
        &self,
        ticket: Ticket,
        worker: Option<&str>,
    ) -> Result<(Run, bool), RunError> {
        let Ticket { order, token } = ticket;
        let asked = Instant::now();
        let (job, newest) =
            tokio::try_join!(self.desk().backend.job(order.into()), self.desk().newest(order))?;
        let job = job.filter(|job| job.token == token).ok_or(RunError::LeaseLost)?;
        let standing = newest.as_ref().map(Standing::of);
        if standing.is_some_and(|standing| standing.kind.is_terminal()) {
            return Err(RunError::Ended);
        }
        if job.state != JobState::Claimed {
            return Err(RunError::LeaseLost);
        }
        let lasts = REPORT_WITHIN;
        let claim = Claim { order, token, run: job.run, committed: job.committed, asked, lasts, standing };
        let mut run = Run::new(Arc::clone(self.desk()), claim, worker.unwrap_or("external"));
        if newest.is_some_and(|newest| run_of(&newest) == Some(job.run)) {
            run.go_on();
        }
        Ok((run, job.cancelled && !job.committed))
    }

    /// A worker's update, with what belongs to the run where the worker left it out.
    fn with_run(
        &self,
        run: &mut Run,
        fields: &[(String, &RawValue)],
        kind: Option<EntryKind>,
    ) -> Result<OrderUpdate, InvalidPayload> {
        // Which run it is, and how many tries there are, is not the worker's to say.
        let is_ours = |name: &str| ["token", "run", "maxAttempts"].contains(&name);
        let has = |name: &str| !is_ours(name) && fields.iter().any(|(field, _)| field == name);
        let raw = |json: String| RawValue::from_string(json).expect("numbers and quoted texts are JSON");
        let mut added = Vec::new();
        if let Some(kind) = kind {
            added.push(("type", raw(quoted(kind.as_str()))));
        }
        added.push(("attempt", raw(run.attempt().to_string())));
        added.push(("maxAttempts", raw(run.attempts_max().to_string())));
        added.push(("run", raw(run.run().to_string())));
        added.push(("executor", raw(quoted(run.executor()))));
        let mut all: Vec<(String, &RawValue)> = fields
            .iter()
            .filter(|(name, _)| !is_ours(name))
            .map(|(name, value)| (name.clone(), *value))
            .collect();
        all.extend(
            added.iter().filter(|(name, _)| !has(name)).map(|(name, value)| ((*name).to_owned(), &**value)),
        );
        OrderUpdate::from_fields(&all, Utc::now())
    }

    async fn tell(&self, run: &mut Run, update: OrderUpdate) -> Result<(), ReportError> {
        let newest = self.desk().newest(run.order()).await.map_err(RunError::from)?;
        if update.standing.attempt > run.attempts_max() {
            let message = format!("there are {} attempts; end the order with /fail", run.attempts_max());
            return Err(RunError::Invalid(message).into());
        }
        let repeated = newest.is_some_and(|newest| {
            newest.draft.kind == update.draft.kind && newest.draft.data == update.draft.data
        });
        if repeated {
            debug!(order = %run.order(), "a worker repeated its newest report");
            return Ok(());
        }
        let told = time::timeout(REPORT_WITHIN, run.tell(update)).await;
        told.unwrap_or_else(|_elapsed| {
            Err(RunError::Unavailable("the storage was away for too long".into()))
        })?;
        Ok(())
    }
}

/// The run that an update was told by.
fn run_of(entry: &Entry) -> Option<u32> {
    #[derive(Deserialize)]
    struct Fields {
        run: Option<u32>,
    }
    serde_json::from_slice::<Fields>(&entry.draft.data).ok()?.run
}
