//! The jobs role.

use std::time::Duration;

use async_trait::async_trait;

use super::Switching;
use super::log::away;
use crate::model::JobId;
use crate::storage::{
    Cancelling, ClaimedJob, Ending, Enqueued, Held, JobBounds, JobCounts, JobState, JobView, Jobs, NewJob,
    Result,
};

/// Jobs that were taken on while the primary was away.
#[derive(Debug, Default)]
pub(super) struct LocalJobs;

impl Switching {
    async fn ask_for_job<R>(&self, op: &'static str, call: impl Future<Output = Result<R>>) -> Result<R> {
        self.core.ask(call).await.unwrap_or_else(|| Err(away(op)))
    }
}

#[async_trait]
impl Jobs for Switching {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.ask_for_job("enqueue", self.core.primary.enqueue(job, bounds)).await
    }

    async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<ClaimedJob>> {
        self.ask_for_job("claim", self.core.primary.claim(limit, lease)).await
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.ask_for_job("extend", self.core.primary.extend(id, token, lease)).await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.ask_for_job("commit", self.core.primary.commit(id, token, lease)).await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        self.ask_for_job("finish", self.core.primary.finish(id, token, ending)).await
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        self.ask_for_job("cancel", self.core.primary.cancel(id)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        self.ask_for_job("job", self.core.primary.job(id)).await
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        self.ask_for_job("list_jobs", self.core.primary.list_jobs(state, before, limit)).await
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        self.ask_for_job("settle_dead", self.core.primary.settle_dead(id)).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.ask_for_job("job_counts", self.core.primary.job_counts()).await
    }
}
