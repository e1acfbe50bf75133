//! The jobs role.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryBackend;
use super::job_table::Now;
use crate::model::JobId;
use crate::storage::{
    Cancelling, ClaimedJob, Ending, Enqueued, Held, JobBounds, JobCounts, JobState, JobView, Jobs, NewJob,
    Result,
};

#[async_trait]
impl Jobs for MemoryBackend {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        Ok(self.shared.jobs.lock().enqueue(job, bounds, Now::read()))
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<ClaimedJob>> {
        Ok(self.shared.jobs.lock().claim(kind, limit, lease, Now::read()))
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        Ok(self.shared.jobs.lock().extend(id, token, lease, Now::read()))
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        Ok(self.shared.jobs.lock().commit(id, token, lease, Now::read()))
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        Ok(self.shared.jobs.lock().finish(id, token, ending, Now::read()))
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        Ok(self.shared.jobs.lock().cancel(id, Now::read()))
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        Ok(self.shared.jobs.lock().job(id, Now::read()))
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        Ok(self.shared.jobs.lock().list(state, before, limit, Now::read()))
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        Ok(self.shared.jobs.lock().settle_dead(id, Now::read()))
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        Ok(self.shared.jobs.lock().counts(Now::read()))
    }
}
