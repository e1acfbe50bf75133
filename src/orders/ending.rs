//! How a run ends: it ends its order, or leaves it to another run. Which attempt that run begins with is
//! decided in `attempts`.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tracing::{debug, error, info};

use super::desk::Desk;
use super::run::{Run, RunError};
use crate::storage::{Ending, Held};

impl Desk {
    /// The request of a claimed job. `None` if the order has its last update already, was cancelled, is
    /// unreadable or is out of attempts; its job has then been ended here.
    ///
    /// # Errors
    /// The order could not be ended; its lease runs out, and another claim ends it.
    pub(super) async fn to_be_done<T: DeserializeOwned>(
        &self,
        run: &mut Run,
        payload: &[u8],
    ) -> Result<Option<T>, RunError> {
        if let Some(ending) = run.left_over() {
            run.finish(&ending).await?;
            return Ok(None);
        }
        if run.cancelled {
            self.end_cancelled(run).await?;
            return Ok(None);
        }
        if run.attempts.are_used_up() {
            let message = "every try was broken off before its end";
            self.end(run, "worker_lost", message, true).await?;
            return Ok(None);
        }
        match serde_json::from_slice(payload) {
            Ok(request) => Ok(Some(request)),
            Err(error) => {
                error!(order = %run.order, error = %error, "an order in the queue is not readable");
                self.end(run, "corrupt", "the order is not readable", true).await?;
                Ok(None)
            }
        }
    }

    /// Publishes an order's last update, `failed`, and ends its job, as a dead letter if `is_dead`.
    pub(super) async fn end(
        &self,
        run: &mut Run,
        code: &str,
        message: &str,
        is_dead: bool,
    ) -> Result<(), RunError> {
        let published = run.fail(code, message, is_dead).await;
        if !matches!(published, Ok(()) | Err(RunError::Ended)) {
            return published;
        }
        let error = format!("{code}: {message}");
        // If another run was quicker with the last update, the job only has to end.
        let dead = published.is_ok() && is_dead;
        self.stats.dead.add(u64::from(dead));
        run.finish(&if dead { Ending::Dead { error } } else { Ending::Done }).await?;
        Ok(())
    }

    /// An attempt failed: schedules the next one, or ends the order. Returns how long the next attempt waits.
    ///
    /// # Errors
    /// Neither was possible, or the lease is lost.
    pub(super) async fn failed(
        &self,
        run: &mut Run,
        code: &str,
        message: &str,
        retry: bool,
    ) -> Result<Option<Duration>, RunError> {
        let attempt = run.attempts.current;
        if !retry || run.attempts.is_last() {
            self.end(run, code, message, retry).await?;
            return Ok(None);
        }
        let after = self.parts.config.retry().wait(attempt);
        debug!(order = %run.order, code, message, ?after, "an order is tried again");
        if !self.leave(run, &Ending::Retry { after, attempt: Some(attempt + 1) }).await? {
            return Ok(None);
        }
        self.stats.retried.add(1);
        Ok(Some(after))
    }

    /// Gives an order back, so that another worker can go on with it at once, in the same attempt.
    ///
    /// # Errors
    /// The order could not be given back, so its lease runs out; or the lease is lost.
    pub(super) async fn give_back(&self, run: &mut Run) -> Result<(), RunError> {
        let ending = Ending::Retry { after: Duration::ZERO, attempt: run.attempts.given_back() };
        if self.leave(run, &ending).await? {
            debug!(order = %run.order, attempt = run.attempts.current, "gave an order back");
            self.stats.given_back.add(1);
            self.queued.notify_waiters();
        }
        Ok(())
    }

    /// Leaves an order to another run; false if it was cancelled in time, and has been ended here.
    async fn leave(&self, run: &mut Run, ending: &Ending) -> Result<bool, RunError> {
        match run.finish(ending).await? {
            Held::Yes => Ok(true),
            Held::Cancelled => self.end_cancelled(run).await.map(|()| false),
            Held::Lost => Err(RunError::LeaseLost),
        }
    }

    /// Logs a failed ending; another claim takes the job up when the lease has run out.
    pub(super) fn note(&self, ended: Result<(), RunError>) {
        let Err(error) = ended else { return };
        if matches!(error, RunError::LeaseLost) {
            self.stats.leases_lost.add(1);
        }
        info!(error = %error, "an order could not be ended here; another claim does");
    }
}
