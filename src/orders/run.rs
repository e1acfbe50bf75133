//! One run of an order's job: which updates it may publish, and under which lease and attempt.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{self, Instant};
use tracing::debug;

use super::attempts::Attempts;
use super::desk::Desk;
use super::lease::{Lease, LeaseState};
use super::reports::Reports;
use super::updates::may_follow;
use crate::channels::PublishError;
use crate::model::{ChannelName, Entry, EntryKind, OrderId};
use crate::protocol::{InvalidPayload, OrderUpdate, PayloadWriter, Standing, quoted};
use crate::storage::{Ending, Held, JobView, Refusal, StorageError};

/// How long the end of a run waits for its earlier reports. After that the end is published all the same; if the
/// run continues elsewhere, the log refuses earlier reports that arrive after what is published there.
const APPENDED_WITHIN: Duration = Duration::from_secs(1);

/// A lease of which this part is left counts as renewed a moment ago.
const FRESH_PART: f64 = 0.9;

/// Why a run cannot go on, or a report was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Another worker may have the order by now, or the order has ended.
    #[error("the lease of this order is lost")]
    LeaseLost,
    /// The order was cancelled before it was submitted.
    #[error("the order was cancelled")]
    Cancelled,
    /// The order has its last update already.
    #[error("the order has ended")]
    Ended,
    /// A worker's report has the wrong form; the run may go on.
    #[error(transparent)]
    Payload(#[from] InvalidPayload),
    /// The report breaks a rule; the run may go on.
    #[error("{0}")]
    Invalid(String),
    /// The storage does not answer.
    #[error("the storage does not answer at the moment")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One run of an order's job.
#[derive(Debug)]
pub(super) struct Run {
    desk: Arc<Desk>,
    pub(super) order: OrderId,
    /// How many times the job has been claimed, including this time.
    pub(super) run: u32,
    pub(super) attempts: Attempts,
    pub(super) executor: String,
    previous: Option<Entry>,
    standing: Option<Standing>,
    /// The order was cancelled before its point of no return, so it only has to be ended.
    pub(super) cancelled: bool,
    committed: bool,
    /// The attempt that this run has submitted, under a lease that the storage confirmed.
    submitted: Option<u32>,
    pub(super) lease: Arc<Lease>,
    reports: Arc<Reports>,
}

impl Run {
    /// The run of a job whose claim was requested at `asked`, and whose lease `lasts` so long from then on.
    ///
    /// `newest` is the order's newest update. Of a first run it need not be looked up, since the order has none.
    /// Should it have one nevertheless, nothing that the run reports is appended.
    pub(super) fn new(
        desk: Arc<Desk>,
        job: &JobView,
        (asked, lasts): (Instant, Duration),
        newest: Option<Entry>,
        executor: &str,
    ) -> Self {
        let JobView { id, token, run, cancelled, committed, attempt, .. } = *job;
        let order = OrderId::from(id);
        let standing = newest.as_ref().map(|newest| standing(newest, committed));
        let newest_update = newest.as_ref().zip(standing.as_ref());
        let attempts = Attempts::of(run, attempt, newest_update, desk.parts.config.attempts_max);
        debug!(%order, run, attempt = attempts.current, executor, "order claimed");
        Self {
            lease: Lease::new(Arc::clone(&desk), order, token, asked, lasts),
            reports: Reports::new(Arc::clone(&desk), order, token, newest.is_none()),
            desk,
            order,
            run,
            attempts,
            executor: executor.to_owned(),
            previous: newest,
            standing,
            cancelled: cancelled && !committed,
            committed,
            submitted: None,
        }
    }

    /// How far the run before this one came.
    pub(super) fn previous(&self) -> Option<Standing> {
        self.previous.as_ref().map(|previous| standing(previous, self.committed))
    }

    /// The ending of a run whose worker published the last update but did not end the job.
    pub(super) fn left_over(&self) -> Option<Ending> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Last {
            dead_letter: bool,
            message: String,
        }
        let last = self.previous.as_ref().filter(|previous| previous.draft.kind.is_terminal())?;
        let Last { dead_letter, message } = serde_json::from_slice(&last.draft.data).unwrap_or_default();
        Some(if dead_letter { Ending::Dead { error: message } } else { Ending::Done })
    }

    /// Continues the attempt of a run that published an update in an earlier call (of an external worker).
    pub(super) fn go_on(&mut self) {
        if let Some(standing) = &self.standing {
            self.attempts.go_on(standing.attempt);
        }
        self.previous = None;
    }

    /// Whether the run may go on. If the lease has run out by this process's own clock, waits until the
    /// storage says who has the lease.
    async fn check(&self) -> Result<(), RunError> {
        let mut failures = 0;
        loop {
            let LeaseState { until, held } = self.lease.state();
            match held {
                Held::Lost => return Err(RunError::LeaseLost),
                Held::Cancelled if !self.committed => return Err(RunError::Cancelled),
                Held::Yes | Held::Cancelled if Instant::now() < until => return Ok(()),
                Held::Yes | Held::Cancelled => {}
            }
            self.try_to_extend(&mut failures).await;
        }
    }

    /// Asks the storage to extend the lease; false, after a pause, if it did not answer.
    async fn try_to_extend(&self, failures: &mut u32) -> bool {
        let Err(error) = self.lease.extend(false).await else { return true };
        let what = "a lease cannot be extended yet";
        self.desk.pause_after(self.order, failures, &error, what).await;
        false
    }

    /// Publishes a step that the executor has reached. Returns before the log has it, except for a
    /// `submitted` that permits sending the order. The next report returns the error of one that was not
    /// waited for.
    pub(super) async fn report(
        &mut self,
        kind: EntryKind,
        progress: u8,
        message: &str,
        fields: &[(&str, Value)],
    ) -> Result<(), RunError> {
        let update =
            self.update(kind, progress, self.attempts.current, message, |payload| push_all(payload, fields));
        if self.submits(&update) {
            return self.publish(update).await;
        }
        self.check_next(&update).await?;
        let OrderUpdate { standing, draft } = update;
        let appended = self.reports.queue(draft).await;
        self.note(standing, appended)
    }

    /// Publishes an update that may follow the newest one. Waits while the storage is away.
    pub(super) async fn publish(&mut self, update: OrderUpdate) -> Result<(), RunError> {
        self.check_next(&update).await?;
        let next = &update.standing;
        let (attempt, submits) = (next.attempt, self.submits(&update));
        // From `submitted` on, and once it is confirmed, an order can no longer be cancelled.
        if submits || (next.kind == EntryKind::Confirmed && !self.committed) {
            self.reports.expect();
            self.commit().await?;
        }
        self.append(update).await?;
        if submits {
            // A worker that claimed the job while this update was under way does not know of it, or takes it
            // for the previous run's: what is sent from here on must be sent under a lease that holds.
            if !self.is_certain() {
                self.renew().await?;
            }
            self.submitted = Some(attempt);
        }
        Ok(())
    }

    /// Whether the order may be submitted once this update is published. Later reports of the same attempt allow
    /// nothing new.
    fn submits(&self, update: &OrderUpdate) -> bool {
        let next = &update.standing;
        next.kind == EntryKind::Submitted && self.submitted != Some(next.attempt)
    }

    /// Checks that the run goes on, and that this update may follow the newest one.
    async fn check_next(&self, update: &OrderUpdate) -> Result<(), RunError> {
        self.check().await?;
        let allowed = may_follow(self.standing.as_ref(), &update.standing, self.attempts.anew);
        allowed.map_err(RunError::Invalid)
    }

    /// Whether the storage confirmed the lease a moment ago and still answers: nobody else can have claimed the job
    /// since, and what was published is in a log that the next holder will read.
    fn is_certain(&self) -> bool {
        let LeaseState { until, held } = self.lease.state();
        let left = until.saturating_duration_since(Instant::now());
        let is_fresh = left >= self.lease.lasts.mul_f64(FRESH_PART);
        held != Held::Lost
            && is_fresh
            && !self.desk.parts.backend.is_degraded_for(&ChannelName::order(self.order))
    }

    /// Waits until the storage has confirmed the lease.
    pub(super) async fn renew(&self) -> Result<(), RunError> {
        let mut failures = 0;
        while !self.try_to_extend(&mut failures).await {}
        self.check().await
    }

    /// The point of no return: from here on the order cannot be cancelled.
    async fn commit(&mut self) -> Result<(), RunError> {
        let mut failures = 0;
        loop {
            match self.lease.extend(true).await {
                Ok(held) => {
                    self.committed |= held == Held::Yes;
                    return self.check().await;
                }
                Err(error) => {
                    let what = "an order cannot be submitted yet";
                    self.desk.pause_after(self.order, &mut failures, &error, what).await;
                    self.check().await?;
                }
            }
        }
    }

    async fn append(&mut self, update: OrderUpdate) -> Result<(), RunError> {
        let OrderUpdate { standing, draft } = update;
        let appended = self.reports.append(draft).await;
        self.note(standing, appended)
    }

    fn note(&mut self, standing: Standing, appended: Result<(), PublishError>) -> Result<(), RunError> {
        match appended {
            Ok(()) => {
                self.attempts.reported(standing.attempt);
                self.standing = Some(standing);
                Ok(())
            }
            Err(PublishError::Refused { refusal, .. }) => {
                debug!(order = %self.order, refusal = %refusal, "an update came too late");
                Err(match refusal {
                    Refusal::Closed => RunError::Ended,
                    Refusal::StaleFence { .. } => RunError::LeaseLost,
                })
            }
            Err(error) => {
                if matches!(error, PublishError::NotFirst) {
                    self.attempts.is_unknown = true;
                }
                Err(RunError::Unavailable(Box::new(error)))
            }
        }
    }

    /// The order was executed: publishes its last update.
    pub(super) async fn confirm(&mut self, fields: &[(&str, Value)], message: &str) -> Result<(), RunError> {
        // It belongs to the attempt of the newest update.
        let attempt = self.standing.as_ref().map_or(self.attempts.current, |standing| standing.attempt);
        let update =
            self.update(EntryKind::Confirmed, 100, attempt, message, |payload| push_all(payload, fields));
        self.publish(update).await?;
        self.desk.stats.confirmed.add(1);
        Ok(())
    }

    /// The order will not be executed: publishes its last update.
    pub(super) async fn fail(&mut self, code: &str, message: &str, is_dead: bool) -> Result<(), RunError> {
        let attempts = self.attempts.end();
        let update = self.update(EntryKind::Failed, 0, attempts, message, |payload| {
            let error = format!(r#"{{"code":{},"message":{}}}"#, quoted(code), quoted(message));
            payload.push("error", &error);
            payload.push_number("attempts", attempts);
            if is_dead {
                payload.push("deadLetter", "true");
            }
        });
        self.append(update).await?;
        self.desk.stats.failed.add(1);
        Ok(())
    }

    /// An update of this run: the fields that all of its updates have, and those that `write` adds.
    fn update(
        &self,
        kind: EntryKind,
        progress: u8,
        attempt: u32,
        message: &str,
        write: impl FnOnce(&mut PayloadWriter),
    ) -> OrderUpdate {
        OrderUpdate::new(Standing { kind, progress, attempt }, Utc::now(), |payload| {
            payload.push_text("message", message);
            payload.push_number("maxAttempts", self.attempts.max);
            payload.push_number("run", self.run);
            payload.push_text("executor", &self.executor);
            write(payload);
        })
    }

    /// Ends the run in the queue. See [`Lease::finish`].
    pub(super) async fn finish(&self, ending: &Ending) -> Result<Held, RunError> {
        // The next worker to claim the job reads in the log how far the order came, so the reports go first.
        // Their errors are ignored: if the lease is lost, ending the claim says so too.
        let _appended = time::timeout(APPENDED_WITHIN, self.reports.settled()).await;
        Ok(self.lease.finish(ending).await?)
    }
}

impl From<StorageError> for RunError {
    fn from(error: StorageError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// Adds an executor's fields.
fn push_all(payload: &mut PayloadWriter, fields: &[(&str, Value)]) {
    fields.iter().for_each(|(name, value)| payload.push_value(name, value));
}

/// An order's standing after its newest update. A stage that only newer versions know counts as the nearest
/// stage that this version knows: past its point of no return, the order may have been submitted.
fn standing(newest: &Entry, committed: bool) -> Standing {
    let standing = Standing::of(newest);
    if standing.kind.unknown().is_none() || standing.kind.is_terminal() {
        return standing;
    }
    let kind = if committed { EntryKind::Submitted } else { EntryKind::Building };
    Standing { kind, ..standing }
}
