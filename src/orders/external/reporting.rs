//! Reports of workers outside: how far an order is, and how it ends. Each is about one job, which is looked at
//! anew; one at a time is under way for an order, and none is broken off.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde_json::value::RawValue;
use tokio::time::{self, Instant};
use tracing::debug;

use super::Ticket;
use crate::model::{ChannelName, Entry, EntryKind, OrderId};
use crate::orders::desk::{Desk, Orders};
use crate::orders::run::{Claim, Run, RunError};
use crate::orders::view::run_of;
use crate::protocol::{InvalidPayload, OrderUpdate, quoted};
use crate::storage::{Ending, JobState, JobView, LEASE_MIN};

/// How long a report may wait for a storage that is away; then the worker is told to repeat it. A
/// lease lasts at least as long from `submitted` on.
const REPORT_WITHIN: Duration = Duration::from_secs(10);

/// For how long a report asks for the lease: so that of one that was asked for a moment ago as much is left.
const LEASE_OF_REPORT: Duration = Duration::from_secs(12);

/// A job that a call is about.
struct TakenUp {
    run: Run,
    newest: Option<Entry>,
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
        let TakenUp { mut run, newest } = self.taken_up(ticket, worker).await?;
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
        let TakenUp { mut run, .. } = self.taken_up_or_cancelled(ticket, worker).await?;
        let desk = Arc::clone(self.desk());
        self.settle(settling, async move {
            if run.is_cancelled() {
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
        if taken_up.run.is_cancelled() { Err(RunError::Cancelled) } else { Ok(taken_up) }
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
        let (run, lasts) = (job.run, LEASE_OF_REPORT);
        let goes_on = newest.as_ref().is_some_and(|newest| run_of(newest) == Some(run));
        let JobView { cancelled, committed, attempt, .. } = job;
        let claim =
            Claim { order, token, run, cancelled, committed, attempt, asked, lasts, newest: newest.clone() };
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
        Ok(TakenUp { run, newest })
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
