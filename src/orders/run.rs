//! One run of an order's job: its lease, its attempt, and the updates that it may make.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::service::Desk;
use super::view::run_of;
use crate::channels::PublishError;
use crate::model::{Entry, EntryKind, JobId, OrderId};
use crate::protocol::{OrderUpdate, Standing, compact, quoted};
use crate::storage::{Attempt, Ending, Held, JobState, Refusal, Result as StorageResult, StorageError};
use crate::support::backoff::STORAGE_RETRY;

/// How often ending a run is tried; after that its lease runs out instead.
const FINISH_TRIES: u32 = 20;

/// Why a run cannot go on, or a report was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Somebody else may have the order by now, or it has ended.
    #[error("the lease of this order is lost")]
    LeaseLost,
    /// The order was cancelled before it was submitted.
    #[error("the order was cancelled")]
    Cancelled,
    /// The order has its last update already.
    #[error("the order has ended")]
    Ended,
    /// The report breaks a rule; the run may go on.
    #[error("{0}")]
    Invalid(String),
    /// The storage does not answer.
    #[error("the storage does not answer at the moment")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A lease as this process may rely on it.
#[derive(Debug)]
struct Lease {
    job: JobId,
    token: u64,
    lasts: Duration,
    state: Mutex<LeaseState>,
}

#[derive(Debug, Clone, Copy)]
struct LeaseState {
    /// By the monotonic clock, counted from before the call that asked for it.
    until: Instant,
    held: Held,
}

impl Lease {
    fn state(&self) -> LeaseState {
        *self.state.lock()
    }

    async fn extend(&self, desk: &Desk) -> StorageResult<Held> {
        let asked = Instant::now();
        let held = desk.backend.extend(self.job, self.token, self.lasts).await?;
        self.renewed(asked, held);
        Ok(held)
    }

    fn renewed(&self, asked: Instant, held: Held) {
        let mut state = self.state.lock();
        state.held = held;
        if held != Held::Lost {
            state.until = state.until.max(asked + self.lasts);
        }
    }
}

/// One run of an order's job.
#[derive(Debug)]
pub(super) struct Run {
    desk: Arc<Desk>,
    order: OrderId,
    run: u32,
    attempt: u32,
    /// The attempt that the next report may begin anew.
    anew: u32,
    /// How many runs there were since one ended by saying what comes next.
    runs_broken_off: u32,
    /// The last attempt there is was submitted, and then broken off: all that is left is to find out what
    /// became of it.
    only_finds_out: bool,
    executor: String,
    previous: Option<Entry>,
    standing: Option<Standing>,
    committed: bool,
    /// The attempt that this run has submitted, under a lease that the storage said holds.
    submitted: Option<u32>,
    lease: Arc<Lease>,
}

/// What a claim tells.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) order: OrderId,
    pub(super) token: u64,
    pub(super) run: u32,
    pub(super) committed: bool,
    /// What the job says of its attempts.
    pub(super) attempt: Attempt,
    /// When the claim was asked for.
    pub(super) asked: Instant,
    pub(super) lasts: Duration,
    /// The newest update there is.
    pub(super) newest: Option<Entry>,
}

impl Run {
    pub(super) fn new(desk: Arc<Desk>, claim: Claim, executor: &str) -> Self {
        let Claim { order, token, run, committed, attempt: said, asked, lasts, newest } = claim;
        let standing = newest.as_ref().map(|newest| standing(newest, committed));
        let attempts_max = desk.config.attempts_max;
        let state = LeaseState { until: asked + lasts, held: Held::Yes };
        let lease = Lease { job: order.into(), token, lasts, state: Mutex::new(state) };
        // Whoever told the newest update may have been broken off later than anybody said what comes next.
        let is_said =
            said.number > 0 && newest.as_ref().and_then(run_of).is_none_or(|run| run <= said.said_by);
        // What was submitted may have been carried out: whoever takes it up finds out, and ends it.
        let only_finds_out = !is_said
            && standing.as_ref().is_some_and(|standing| {
                standing.kind == EntryKind::Submitted && standing.attempt >= attempts_max
            });
        let attempt = match &standing {
            _ if is_said => said.number,
            // A run that told nothing has not used its attempt up.
            None => 1,
            Some(standing) => standing.attempt + u32::from(!only_finds_out),
        };
        debug!(%order, run, attempt, executor, "order claimed");
        Self {
            desk,
            order,
            run,
            attempt,
            anew: attempt + u32::from(only_finds_out),
            runs_broken_off: run.saturating_sub(said.said_by).saturating_sub(1),
            only_finds_out,
            executor: executor.to_owned(),
            previous: newest,
            standing,
            committed,
            submitted: None,
            lease: Arc::new(lease),
        }
    }

    pub(super) fn order(&self) -> OrderId {
        self.order
    }

    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(super) fn attempts_max(&self) -> u32 {
        self.desk.config.attempts_max
    }

    pub(super) fn run(&self) -> u32 {
        self.run
    }

    /// How many runs before this one were broken off one after the other, whether or not they told
    /// anything.
    pub(super) fn runs_broken_off(&self) -> u32 {
        self.runs_broken_off
    }

    /// The attempt that the next run is at if this one is given back; `None` where the job knows.
    pub(super) fn attempt_given_back(&self) -> Option<u32> {
        (!self.only_finds_out).then_some(self.attempt)
    }

    pub(super) fn executor(&self) -> &str {
        &self.executor
    }

    /// How far the run before came.
    pub(super) fn previous(&self) -> Option<Standing> {
        self.previous.as_ref().map(|previous| standing(previous, self.committed))
    }

    /// How the run of a worker that got as far as the last update, and no further, would have ended.
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

    pub(super) fn next_attempt(&mut self) -> bool {
        let left = self.attempt < self.attempts_max();
        self.attempt += u32::from(left);
        self.anew = self.anew.max(self.attempt);
        left
    }

    /// This is another call of a run that has told something already: its attempt goes on.
    pub(super) fn go_on(&mut self) {
        if let Some(standing) = &self.standing {
            (self.attempt, self.anew) = (standing.attempt, standing.attempt + 1);
        }
        self.previous = None;
    }

    /// Extends the lease well before its end, for as long as this is polled. Ends when the order was
    /// cancelled, which is always before it passed its point of no return. `cancels` changes whenever
    /// somebody asks this process to cancel an order; a change that was not seen yet is looked into.
    pub(super) fn keep_lease(
        &self,
        mut cancels: watch::Receiver<()>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (lease, desk) = (Arc::clone(&self.lease), Arc::clone(&self.desk));
        async move {
            let mut failures = 0;
            loop {
                let wait = match failures {
                    0 => lease.lasts / 3,
                    failures => STORAGE_RETRY.wait(failures),
                };
                tokio::select! {
                    () = time::sleep(wait) => {}
                    // The sender lives as long as the desk.
                    _ = cancels.changed() => {}
                }
                match lease.extend(&desk).await {
                    Ok(Held::Yes) => failures = 0,
                    Ok(Held::Cancelled) => return,
                    // The next report is told.
                    Ok(Held::Lost) => std::future::pending().await,
                    Err(error) => {
                        failures += 1;
                        desk.stats.storage_failures.add(1);
                        debug!(job = %lease.job, error = %error, "could not extend a lease yet");
                    }
                }
            }
        }
    }

    /// Whether the run may go on. Where the lease has run out by this process' own clock, it waits
    /// until the storage says whose it is.
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
            if let Err(error) = self.lease.extend(&self.desk).await {
                failures += 1;
                self.desk.stats.storage_failures.add(1);
                debug!(order = %self.order, error = %error, "whose an order is cannot be found out yet");
                STORAGE_RETRY.pause(failures).await;
            }
        }
    }

    /// Tells a step that the executor has come to.
    pub(super) async fn report(
        &mut self,
        kind: EntryKind,
        progress: u8,
        message: &str,
        fields: &[(&str, Value)],
    ) -> Result<(), RunError> {
        let mut own = self.own_fields(message);
        own.extend(fields.iter().map(|(name, value)| (*name, compact(value))));
        let standing = Standing { kind, progress, attempt: self.attempt };
        self.tell(OrderUpdate::new(standing, Utc::now(), &own)).await
    }

    /// Publishes an update that may follow on the newest one. Waits while the storage is away.
    pub(super) async fn tell(&mut self, update: OrderUpdate) -> Result<(), RunError> {
        self.check().await?;
        let next = &update.standing;
        let allowed = match &self.standing {
            Some(standing) => standing.allows(next, self.anew),
            None if next.attempt == self.anew => Ok(()),
            None => Err(format!("the first `attempt` is {}; {} was given", self.anew, next.attempt)),
        };
        allowed.map_err(RunError::Invalid)?;
        // What is told of an attempt after it was submitted allows nothing that was not allowed before.
        let attempt = next.attempt;
        let submits = next.kind == EntryKind::Submitted && self.submitted != Some(attempt);
        // From `submitted` on, and once it is confirmed, an order can no longer be cancelled.
        if submits || (next.kind == EntryKind::Confirmed && !self.committed) {
            self.commit().await?;
        }
        self.append(update).await?;
        if submits {
            // Whoever claimed the job while this was on its way knows nothing of it, or takes it for
            // the run before: what is sent from here on must be sent under a lease that holds.
            self.renew().await?;
            self.submitted = Some(attempt);
        }
        Ok(())
    }

    /// Lets the storage say that the lease holds.
    pub(super) async fn renew(&self) -> Result<(), RunError> {
        let mut failures = 0;
        while let Err(error) = self.lease.extend(&self.desk).await {
            failures += 1;
            self.desk.stats.storage_failures.add(1);
            debug!(order = %self.order, error = %error, "whose an order is cannot be found out yet");
            STORAGE_RETRY.pause(failures).await;
        }
        self.check().await
    }

    /// The point of no return: from here on the order cannot be cancelled.
    async fn commit(&mut self) -> Result<(), RunError> {
        let mut failures = 0;
        loop {
            let asked = Instant::now();
            match self.desk.backend.commit(self.lease.job, self.lease.token, self.lease.lasts).await {
                Ok(held) => {
                    self.lease.renewed(asked, held);
                    self.committed |= held == Held::Yes;
                    return self.check().await;
                }
                Err(error) => {
                    failures += 1;
                    self.desk.stats.storage_failures.add(1);
                    debug!(order = %self.order, error = %error, "an order cannot be submitted yet");
                    STORAGE_RETRY.pause(failures).await;
                    self.check().await?;
                }
            }
        }
    }

    async fn append(&mut self, update: OrderUpdate) -> Result<(), RunError> {
        let OrderUpdate { standing, draft } = update;
        match self.desk.append(self.order, vec![draft], Some(self.lease.token)).await {
            Ok(()) => {
                self.anew = standing.attempt + 1;
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
            Err(error) => Err(RunError::Unavailable(Box::new(error))),
        }
    }

    /// The order was carried out: its last update.
    pub(super) async fn confirm(
        &mut self,
        fields: Vec<(&str, String)>,
        message: &str,
    ) -> Result<(), RunError> {
        let mut own = self.own_fields(message);
        own.extend(fields);
        // It belongs to the attempt that was told of last.
        let attempt = self.standing.as_ref().map_or(self.attempt, |standing| standing.attempt);
        let standing = Standing { kind: EntryKind::Confirmed, progress: 100, attempt };
        self.tell(OrderUpdate::new(standing, Utc::now(), &own)).await?;
        self.desk.stats.confirmed.add(1);
        Ok(())
    }

    /// The order will not be carried out: its last update.
    pub(super) async fn fail(&mut self, code: &str, message: &str, is_dead: bool) -> Result<(), RunError> {
        let attempts = self.attempt.min(self.attempts_max());
        self.attempt = attempts;
        let mut own = self.own_fields(message);
        own.push(("error", format!(r#"{{"code":{},"message":{}}}"#, quoted(code), quoted(message))));
        own.push(("attempts", attempts.to_string()));
        if is_dead {
            own.push(("deadLetter", "true".to_owned()));
        }
        let standing = Standing { kind: EntryKind::Failed, progress: 0, attempt: attempts };
        self.append(OrderUpdate::new(standing, Utc::now(), &own)).await?;
        self.desk.stats.failed.add(1);
        Ok(())
    }

    fn own_fields(&self, message: &str) -> Vec<(&'static str, String)> {
        vec![
            ("message", quoted(message)),
            ("maxAttempts", self.attempts_max().to_string()),
            ("run", self.run.to_string()),
            ("executor", quoted(&self.executor)),
        ]
    }

    /// Ends the run in the queue. Tried again while the storage is away, for some seconds: the
    /// order's updates are where they belong already, and whoever claims the job after all sees that.
    pub(super) async fn finish(&self, ending: &Ending) -> Result<Held, RunError> {
        let mut failures = 0;
        loop {
            match self.desk.backend.finish(self.lease.job, self.lease.token, ending).await {
                // A call whose answer was lost may be what ended it.
                Ok(Held::Lost) if failures > 0 => return Ok(self.ended_as_ours().await),
                Ok(held) => return Ok(held),
                Err(error) => {
                    failures += 1;
                    self.desk.stats.storage_failures.add(1);
                    if failures > FINISH_TRIES {
                        warn!(order = %self.order, error = %error, "could not end a run; its lease runs out instead");
                        return Err(error.into());
                    }
                    STORAGE_RETRY.pause(failures).await;
                }
            }
        }
    }

    async fn ended_as_ours(&self) -> Held {
        let job = self.desk.backend.job(self.lease.job).await;
        match job {
            Ok(Some(job)) if job.token == self.lease.token && job.state != JobState::Claimed => Held::Yes,
            _ => Held::Lost,
        }
    }
}

impl From<StorageError> for RunError {
    fn from(error: StorageError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// Where an order stands with its newest update. One of a stage that only a newer version knows counts
/// as the nearest that this one knows: once the order has passed its point of no return, it may have
/// been submitted.
fn standing(newest: &Entry, committed: bool) -> Standing {
    let standing = Standing::of(newest);
    if standing.kind.unknown().is_none() || standing.kind.is_terminal() {
        return standing;
    }
    let kind = if committed { EntryKind::Submitted } else { EntryKind::Building };
    Standing { kind, ..standing }
}
