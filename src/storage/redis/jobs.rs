//! The jobs role.

use std::time::Duration;

use async_trait::async_trait;

use super::RedisBackend;
use crate::model::JobId;
use crate::storage::{
    Cancelling, ClaimedJob, Ending, Enqueued, Held, JobBounds, JobCounts, JobState, JobView, Jobs, NewJob,
    Result, StorageError,
};

fn not_yet<T>(op: &'static str) -> Result<T> {
    Err(StorageError::Refused { op, cause: "not there yet".into() })
}

#[async_trait]
impl Jobs for RedisBackend {
    async fn enqueue(&self, _job: &NewJob, _bounds: &JobBounds) -> Result<Enqueued> {
        not_yet("enqueue")
    }

    async fn claim(&self, _limit: usize, _lease: Duration) -> Result<Vec<ClaimedJob>> {
        not_yet("claim")
    }

    async fn extend(&self, _id: JobId, _token: u64, _lease: Duration) -> Result<Held> {
        not_yet("extend")
    }

    async fn commit(&self, _id: JobId, _token: u64, _lease: Duration) -> Result<Held> {
        not_yet("commit")
    }

    async fn finish(&self, _id: JobId, _token: u64, _ending: &Ending) -> Result<Held> {
        not_yet("finish")
    }

    async fn cancel(&self, _id: JobId) -> Result<Cancelling> {
        not_yet("cancel")
    }

    async fn job(&self, _id: JobId) -> Result<Option<JobView>> {
        not_yet("job")
    }

    async fn list_jobs(
        &self,
        _state: Option<JobState>,
        _before: Option<JobId>,
        _limit: usize,
    ) -> Result<Vec<JobView>> {
        not_yet("list_jobs")
    }

    async fn settle_dead(&self, _id: JobId) -> Result<bool> {
        not_yet("settle_dead")
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        not_yet("job_counts")
    }
}
