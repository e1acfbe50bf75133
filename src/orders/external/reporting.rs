//! Reports of external workers: progress, and how an order ends. Each report is about one job, which is read
//! anew for it. An order has at most one report under way, and no report is broken off.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde_json::value::RawValue;
use tokio::time::{self, Instant};
use tracing::debug;

use super::Ticket;
use crate::model::{ChannelName, Entry, EntryKind, OrderId};
use crate::orders::desk::{Desk, Orders};
use crate::orders::run::{Run, RunError};
use crate::orders::view::run_of;
use crate::protocol::{InvalidPayload, JobOutcome, OrderUpdate, quoted};
use crate::storage::{Ending, JobState, LEASE_MIN};

/// How long a report may wait for a storage that is away; then the worker is told to repeat it. After
/// `submitted` a lease lasts at least this long.
const REPORT_WITHIN: Duration = Duration::from_secs(10);

/// The lease that a report asks for. It is longer than [`REPORT_WITHIN`], so that a lease that was renewed a moment
/// ago is long enough for the next report.
const LEASE_OF_REPORT: Duration = Duration::from_secs(12);

/// The run that a call reports on, and the order's newest update.
struct TakenUp {
    run: Run,
    newest: Option<Entry>,
}

impl Orders {
    /// Accepts a worker's progress: `routing`, `building` or `submitted`. A repetition of the newest report
    /// is accepted without effect. A report without an attempt belongs to the current one.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn progress(
        &self,
        ticket: Ticket,
        fields: &[(String, &RawValue)],
        worker: Option<&str>,
    ) -> Result<(), RunError> {
        let settling = self.settling(ticket.order)?;
        let TakenUp { mut run, newest } = self.taken_up(ticket, worker).await?;
        let update = with_run(&run, fields, None)?;
        if update.standing.kind.is_terminal() {
            let message = "an order ends with /complete or /fail".to_owned();
            return Err(RunError::Invalid(message));
        }
        if update.standing.attempt > run.attempts.max {
            let message = format!("there are {} attempts; end the order with /fail", run.attempts.max);
            return Err(RunError::Invalid(message));
        }
        let repeats =
            |newest: &Entry| newest.draft.kind == update.draft.kind && newest.draft.data == update.draft.data;
        if newest.as_ref().is_some_and(repeats) {
            debug!(order = %ticket.order, "a worker repeated its newest report");
            if update.standing.kind == EntryKind::Submitted {
                // The worker may act on the answer, so the lease must hold as it does after the first report.
                self.settle(settling, async move { run.renew().await }).await?;
            }
            return Ok(());
        }
        self.settle(settling, async move { run.publish(update).await }).await
    }

    /// Ends an order that was executed.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn complete(
        &self,
        ticket: Ticket,
        fields: &[(String, &RawValue)],
        worker: Option<&str>,
    ) -> Result<(), RunError> {
        let settling = self.settling(ticket.order)?;
        let TakenUp { mut run, .. } = self.taken_up(ticket, worker).await?;
        let update = with_run(&run, fields, Some(EntryKind::Confirmed))?;
        let desk = Arc::clone(self.desk());
        let completing = async move {
            run.publish(update).await?;
            desk.stats.confirmed.add(1);
            run.finish(&Ending::Done).await?;
            Ok(())
        };
        self.settle(settling, completing).await
    }

    /// Ends an attempt in which the order was not executed; with `retry`, another attempt may follow.
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
    ) -> Result<JobOutcome, RunError> {
        let settling = self.settling(ticket.order)?;
        let TakenUp { mut run, .. } = self.taken_up_or_cancelled(ticket, worker).await?;
        let desk = Arc::clone(self.desk());
        self.settle(settling, async move {
            if run.cancelled {
                desk.end_cancelled(&mut run).await?;
                return Ok(JobOutcome::Failed);
            }
            Ok(desk.failed(&mut run, &code, &message, retry).await?.map_or(JobOutcome::Failed, |after| {
                let retry_in_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                JobOutcome::Retry { retry_in_ms }
            }))
        })
        .await
    }

    /// Gives an order back without using up the attempt: another worker may claim it at once.
    ///
    /// # Errors
    /// The lease is lost, or the storage does not answer.
    pub async fn release(&self, ticket: Ticket) -> Result<(), RunError> {
        let settling = self.settling(ticket.order)?;
        let TakenUp { mut run, .. } = self.taken_up_or_cancelled(ticket, None).await?;
        let desk = Arc::clone(self.desk());
        self.settle(settling, async move { desk.give_back(&mut run).await }).await
    }

    /// Marks an order as having a report under way; an error if it has one already.
    fn settling(&self, order: OrderId) -> Result<Settling, RunError> {
        if !self.desk().settling.lock().insert(order) {
            return Err(RunError::Unavailable("another report of this order is still on its way".into()));
        }
        Ok(Settling { desk: Arc::clone(self.desk()), order })
    }

    /// Runs what must not be broken off. A caller that is dropped or has waited too long leaves it to end in
    /// the background; until then the order accepts no other report.
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

    /// The run of a call, if the worker still has the job and it was not cancelled in time. How long the
    /// lease lasts, the worker decides with [`extend`](Self::extend); a report prolongs it only if it cannot
    /// be undone.
    async fn taken_up(&self, ticket: Ticket, worker: Option<&str>) -> Result<TakenUp, RunError> {
        let taken_up = self.taken_up_or_cancelled(ticket, worker).await?;
        if taken_up.run.cancelled { Err(RunError::Cancelled) } else { Ok(taken_up) }
    }

    /// The same, also if the order was cancelled.
    async fn taken_up_or_cancelled(&self, ticket: Ticket, worker: Option<&str>) -> Result<TakenUp, RunError> {
        let Ticket { order, token } = ticket;
        let asked = Instant::now();
        let (job, newest) =
            tokio::try_join!(self.desk().parts.backend.job(order.into()), self.desk().newest(order))?;
        let job = job.filter(|job| job.token == token).ok_or(RunError::LeaseLost)?;
        let is_claimed = job.state == JobState::Claimed;
        if is_claimed
            && self.desk().parts.backend.is_degraded_for(&ChannelName::order(order))
            && !self.desk().is_held(order, token, asked)
        {
            // The job as last seen says nothing about its lease. If the job is on this node, its lease can be
            // extended; if not, this fails, since another worker may have the job by now.
            self.desk().parts.backend.extend(order.into(), token, LEASE_MIN).await?;
        }
        let goes_on = newest.as_ref().is_some_and(|newest| run_of(newest) == Some(job.run));
        let (lease, worker) = ((asked, LEASE_OF_REPORT), worker.unwrap_or("external"));
        let mut run = Run::new(Arc::clone(self.desk()), &job, lease, newest.clone(), worker);
        if let Some(ending) = run.left_over() {
            // The last update was published, but the call was broken off before it ended the job.
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
        Ok(TakenUp { run, newest })
    }
}

/// A report is under way; the order accepts no other one until this is dropped.
struct Settling {
    desk: Arc<Desk>,
    order: OrderId,
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.desk.settling.lock().remove(&self.order);
    }
}

/// A worker's update, completed with the run's own fields.
fn with_run(
    run: &Run,
    fields: &[(String, &RawValue)],
    kind: Option<EntryKind>,
) -> Result<OrderUpdate, InvalidPayload> {
    // Only the gateway may set the run, the number of attempts and how an order ends.
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
        ("attempt", run.attempts.current.to_string()),
        ("maxAttempts", run.attempts.max.to_string()),
        ("run", run.run.to_string()),
        ("executor", quoted(&run.executor)),
    ] {
        if all.iter().all(|(given, _)| given != name) {
            added.push((name, raw(json)));
        }
    }
    all.extend(added.iter().map(|(name, value)| ((*name).to_owned(), &**value)));
    OrderUpdate::from_fields(&all, Utc::now())
}
