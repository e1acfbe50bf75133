//! The jobs role.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryBackend;
use super::job_table::{JobTable, Now};
use crate::model::JobId;
use crate::storage::{
    Cancelling, Ending, Enqueued, Held, JobBounds, JobCounts, JobState, JobView, Jobs, NewJob, Result,
};

impl MemoryBackend {
    /// Changes the jobs. If they are kept on disk, the change is written before the answer.
    async fn with_jobs<T: Send + 'static>(
        &self,
        op: &'static str,
        act: impl FnOnce(&mut JobTable, Now) -> T + Send + 'static,
    ) -> Result<T> {
        match &self.folder {
            Some(folder) => folder.with_jobs(op, act).await,
            None => Ok(act(&mut self.shared.jobs.lock(), Now::read())),
        }
    }

    /// Reads the jobs, as they are on disk.
    async fn looking_at_jobs<T: Send + 'static>(
        &self,
        op: &'static str,
        look: impl FnOnce(&mut JobTable, Now) -> T + Send + 'static,
    ) -> Result<T> {
        match &self.folder {
            Some(folder) => folder.looking_at_jobs(op, look).await,
            None => Ok(look(&mut self.shared.jobs.lock(), Now::read())),
        }
    }
}

#[async_trait]
impl Jobs for MemoryBackend {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        let (job, bounds) = (job.clone(), *bounds);
        self.with_jobs("enqueue", move |table, now| table.enqueue(&job, &bounds, now)).await
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<JobView>> {
        let kind = kind.to_owned();
        self.with_jobs("claim", move |table, now| table.claim(&kind, limit, lease, now)).await
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.with_jobs("extend", move |table, now| table.extend(id, token, lease, now)).await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.with_jobs("commit", move |table, now| table.commit(id, token, lease, now)).await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        let ending = ending.clone();
        self.with_jobs("finish", move |table, now| table.finish(id, token, &ending, now)).await
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        self.with_jobs("cancel", move |table, now| table.cancel(id, now)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        self.looking_at_jobs("job", move |table, now| table.job(id, now)).await
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        self.looking_at_jobs("list", move |table, now| table.list(state, before, limit, now)).await
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        self.with_jobs("settle_dead", move |table, now| table.settle_dead(id, now)).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.looking_at_jobs("counts", move |table, now| table.counts(now)).await
    }
}
