//! How a claimed order ends, or is left to another run.
//!
//! The rule of attempts: an attempt is used up when it fails, when its run ends by itself after it has
//! told something (its process died, or its lease ran out), and when the run says that it tries again.
//! A run that is given back uses up none, nor does one that ends by itself before it has told anything.
//! The job keeps what the end of a run said; what a run told that could not say anything more is in the
//! order's log.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tracing::{debug, error, info};

use super::run::{Run, RunError};
use super::service::Desk;
use crate::storage::{Ending, Held};

/// How many runs in a row may be broken off, for each attempt: those that tell nothing use up no attempt,
/// but must not go on for ever.
const RUNS_PER_ATTEMPT: u32 = 10;

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
        let runs_max = run.attempts_max().saturating_mul(RUNS_PER_ATTEMPT);
        if run.attempt() > run.attempts_max() || run.runs_broken_off() >= runs_max {
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
        let attempt = run.attempt();
        if !retry || attempt >= run.attempts_max() {
            self.end(run, code, message, retry).await?;
            return Ok(None);
        }
        let after = self.config.retry().wait(attempt);
        debug!(order = %run.order(), code, message, ?after, "an order is tried again");
        match run.finish(&Ending::Retry { after, attempt: Some(attempt + 1) }).await? {
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

    /// Lets others go on with an order at once, in the same attempt.
    ///
    /// # Errors
    /// It could not be given back, or is somebody else's: the lease runs out instead.
    pub(super) async fn give_back(&self, run: &mut Run) -> Result<(), RunError> {
        let ending = Ending::Retry { after: Duration::ZERO, attempt: run.attempt_given_back() };
        match run.finish(&ending).await? {
            Held::Yes => {
                debug!(order = %run.order(), attempt = run.attempt(), "gave an order back");
                self.stats.given_back.add(1);
                self.queued.notify_waiters();
                Ok(())
            }
            Held::Cancelled => self.end_cancelled(run).await,
            Held::Lost => Err(RunError::LeaseLost),
        }
    }

    /// What could not be ended is taken up by another claim, when the lease has run out.
    pub(super) fn note(&self, ended: Result<(), RunError>) {
        let Err(error) = ended else { return };
        if matches!(error, RunError::LeaseLost) {
            self.stats.leases_lost.add(1);
        }
        info!(error = %error, "an order could not be ended here; another claim does");
    }
}
