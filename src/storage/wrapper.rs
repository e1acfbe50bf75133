//! Wrappers around a storage: a wrapper implements only what it does differently, and passes on everything
//! else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    AppendAnswer, AppendBatch, Cancelling, ClaimedJob, Ending, Enqueued, Held, JobBounds, JobCounts,
    JobState, JobView, Jobs, LatestOf, LatestPage, Log, LogEvent, LogState, NewJob, OpenLog, Page, PageLimit,
    Record, RecordKind, Records, Result, StorageBackend,
};
use crate::model::{ChannelName, Epoch, JobId, NodeId, Position};

/// Decides where calls go. Every implementor gets all roles.
pub(super) trait Wrapper: fmt::Debug + Send + Sync {
    /// The wrapped storage.
    fn behind(&self) -> &dyn StorageBackend;

    /// The storage that has the log of a channel.
    fn log_of(&self, _channel: &ChannelName) -> &dyn StorageBackend {
        self.behind()
    }

    /// Makes a call to one of these storages.
    fn pass<R: Send>(
        &self,
        call: impl Future<Output = Result<R>> + Send,
    ) -> impl Future<Output = Result<R>> + Send {
        call
    }
}

#[async_trait]
impl<T: Wrapper> Log for T {
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        self.pass(self.log_of(channel).state(channel, producer)).await
    }

    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        self.pass(self.log_of(channel).find(channel, producer)).await
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        self.pass(self.log_of(channel).open(channel, producer, minted)).await
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.pass(self.log_of(&batch.channel).append(batch)).await
    }

    async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.pass(self.log_of(&batch.channel).begin(batch)).await
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        self.pass(self.log_of(channel).read_within(channel, after, limit)).await
    }

    async fn fork_for_readers(&self, channel: &ChannelName) {
        self.log_of(channel).fork_for_readers(channel).await;
    }

    async fn latest_within(
        &self,
        channel: &ChannelName,
        after: Option<&str>,
        limit: PageLimit,
        of: LatestOf,
    ) -> Result<LatestPage> {
        self.pass(self.log_of(channel).latest_within(channel, after, limit, of)).await
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        self.pass(self.log_of(channel).keys(channel)).await
    }

    async fn follow(&self, channel: &ChannelName) -> Result<()> {
        self.pass(self.log_of(channel).follow(channel)).await
    }

    async fn unfollow(&self, channel: &ChannelName) -> Result<()> {
        self.pass(self.log_of(channel).unfollow(channel)).await
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        self.behind().take_incoming()
    }
}

#[async_trait]
impl<T: Wrapper> Records for T {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        self.pass(self.behind().put(kind, key, value, ttl)).await
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        self.pass(self.behind().get(kind, key)).await
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        self.pass(self.behind().delete(kind, key)).await
    }

    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        self.pass(self.behind().list(kind, after, limit)).await
    }

    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        self.pass(self.behind().hold(key, holder, ttl)).await
    }

    async fn let_go(&self, key: &str, holder: &str) -> Result<()> {
        self.pass(self.behind().let_go(key, holder)).await
    }
}

#[async_trait]
impl<T: Wrapper> Jobs for T {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.pass(self.behind().enqueue(job, bounds)).await
    }

    async fn enqueue_here(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.pass(self.behind().enqueue_here(job, bounds)).await
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<ClaimedJob>> {
        self.pass(self.behind().claim(kind, limit, lease)).await
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.pass(self.behind().extend(id, token, lease)).await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.pass(self.behind().commit(id, token, lease)).await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        self.pass(self.behind().finish(id, token, ending)).await
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        self.pass(self.behind().cancel(id)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        self.pass(self.behind().job(id)).await
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        self.pass(self.behind().list_jobs(state, before, limit)).await
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        self.pass(self.behind().settle_dead(id)).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.pass(self.behind().job_counts()).await
    }
}
