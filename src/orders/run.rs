//! One run of an order's job: its lease, its attempt, and the updates that it may make.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use super::service::Desk;
use crate::channels::PublishError;
use crate::model::{EntryKind, JobId, OrderId};
use crate::protocol::{OrderUpdate, Standing, quoted};
use crate::storage::{Ending, Held, Refusal, Result as StorageResult, StorageError};
use crate::support::backoff::Backoff;

/// Between tries of a storage call that failed, while a run goes on.
const RETRY: Backoff = Backoff {
    first: Duration::from_millis(50),
    max: Duration::from_millis(800),
    jitter: Duration::from_millis(50),
};

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
    executor: String,
    previous: Option<Standing>,
    standing: Option<Standing>,
    committed: bool,
    lease: Arc<Lease>,
}

/// What a claim tells.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) order: OrderId,
    pub(super) token: u64,
    pub(super) run: u32,
    pub(super) committed: bool,
    /// When the claim was asked for.
    pub(super) asked: Instant,
    pub(super) lasts: Duration,
    /// The newest update there is.
    pub(super) standing: Option<Standing>,
}

impl Run {
    pub(super) fn new(desk: Arc<Desk>, claim: Claim, executor: &str) -> Self {
        let Claim { order, token, run, committed, asked, lasts, standing } = claim;
        let state = LeaseState { until: asked + lasts, held: Held::Yes };
        let lease = Lease { job: order.into(), token, lasts, state: Mutex::new(state) };
        Self {
            desk,
            order,
            run,
            // A run that told nothing has not used its attempt up.
            attempt: standing.map_or(1, |standing| standing.attempt + 1),
            executor: executor.to_owned(),
            previous: standing,
            standing,
            committed,
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

    pub(super) fn executor(&self) -> &str {
        &self.executor
    }

    pub(super) fn previous(&self) -> Option<Standing> {
        self.previous
    }

    pub(super) fn next_attempt(&mut self) -> bool {
        let left = self.attempt < self.attempts_max();
        self.attempt += u32::from(left);
        left
    }

    /// This is another call of a run that has told something already: its attempt goes on.
    pub(super) fn go_on(&mut self) {
        self.attempt = self.standing.map_or(1, |standing| standing.attempt);
        self.previous = None;
    }

    /// Extends the lease well before its end, until it is lost or this is dropped. Never ends.
    pub(super) fn keep_lease(&self) -> impl Future<Output = ()> + Send + use<> {
        let (lease, desk) = (Arc::clone(&self.lease), Arc::clone(&self.desk));
        async move {
            let mut failures = 0;
            while lease.state().held != Held::Lost {
                let wait = match failures {
                    0 => lease.lasts / 3,
                    failures => RETRY.wait(failures, rand::random()),
                };
                time::sleep(wait).await;
                match lease.extend(&desk).await {
                    Ok(_held) => failures = 0,
                    Err(error) => {
                        failures += 1;
                        desk.stats.storage_failures.add(1);
                        debug!(job = %lease.job, error = %error, "could not extend a lease yet");
                    }
                }
            }
            std::future::pending().await
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
                time::sleep(RETRY.wait(failures, rand::random())).await;
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
        own.extend(fields.iter().map(|(name, value)| (*name, value.to_string())));
        let standing = Standing { kind, progress, attempt: self.attempt };
        self.tell(OrderUpdate::new(standing, Utc::now(), &own)).await
    }

    /// Publishes an update that may follow on the newest one. Waits while the storage is away.
    pub(super) async fn tell(&mut self, update: OrderUpdate) -> Result<(), RunError> {
        self.check().await?;
        if let Some(standing) = &self.standing {
            standing.allows(&update.standing).map_err(RunError::Invalid)?;
        }
        if update.standing.kind == EntryKind::Submitted {
            self.commit().await?;
        }
        self.append(update).await
    }

    /// The point of no return: from here on the order cannot be cancelled.
    async fn commit(&mut self) -> Result<(), RunError> {
        let mut failures = 0;
        while !self.committed {
            let asked = Instant::now();
            match self.desk.backend.commit(self.lease.job, self.lease.token, self.lease.lasts).await {
                Ok(held) => {
                    self.lease.renewed(asked, held);
                    match held {
                        Held::Yes => self.committed = true,
                        Held::Cancelled => return Err(RunError::Cancelled),
                        Held::Lost => return Err(RunError::LeaseLost),
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.desk.stats.storage_failures.add(1);
                    debug!(order = %self.order, error = %error, "an order cannot be submitted yet");
                    time::sleep(RETRY.wait(failures, rand::random())).await;
                    self.check().await?;
                }
            }
        }
        // What was committed by a run before this one still needs a lease of this one.
        self.check().await
    }

    async fn append(&mut self, update: OrderUpdate) -> Result<(), RunError> {
        let OrderUpdate { standing, draft } = update;
        match self.desk.append(self.order, vec![draft], Some(self.lease.token)).await {
            Ok(()) => {
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
        let standing = Standing { kind: EntryKind::Confirmed, progress: 100, attempt: self.attempt };
        self.append(OrderUpdate::new(standing, Utc::now(), &own)).await?;
        self.desk.stats.confirmed.add(1);
        Ok(())
    }

    /// The order will not be carried out: its last update.
    pub(super) async fn fail(&mut self, code: &str, message: &str) -> Result<(), RunError> {
        let attempts = self.attempt.min(self.attempts_max());
        self.attempt = attempts;
        let mut own = self.own_fields(message);
        own.push(("error", format!(r#"{{"code":{},"message":{}}}"#, quoted(code), quoted(message))));
        own.push(("attempts", attempts.to_string()));
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

    /// Ends the run in the queue. Tried again while the storage is away: the order's updates are
    /// where they belong already, and whoever claims the job after all sees that.
    pub(super) async fn finish(&self, ending: &Ending) -> Held {
        let mut failures = 0;
        loop {
            match self.desk.backend.finish(self.lease.job, self.lease.token, ending).await {
                Ok(held) => return held,
                Err(error) if failures < 20 => {
                    failures += 1;
                    self.desk.stats.storage_failures.add(1);
                    debug!(order = %self.order, error = %error, "could not end a run yet");
                    time::sleep(RETRY.wait(failures, rand::random())).await;
                }
                Err(error) => {
                    warn!(order = %self.order, error = %error, "could not end a run; its lease runs out instead");
                    return Held::Lost;
                }
            }
        }
    }
}

impl From<StorageError> for RunError {
    fn from(error: StorageError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}
