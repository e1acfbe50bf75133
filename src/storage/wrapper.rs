//! Wrappers around a storage: a wrapper decides where each call goes, and implements only what it does
//! differently.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    AppendAnswer, AppendBatch, Cancelling, Ending, Enqueued, Held, JobBounds, JobCounts, JobState, JobView,
    Jobs, LatestPage, LatestQuery, Log, LogEvent, LogState, NewJob, OpenLog, Page, PageLimit, Place, Record,
    RecordKind, Records, Result, SharedBackend,
};
use crate::model::{ChannelName, Epoch, JobId, NodeId, Position};

/// Decides where calls go. Every implementor gets all roles.
pub trait Wrapper: fmt::Debug + Send + Sync {
    /// A storage, and what has to be held during a call to it.
    type Target<'a>: Deref<Target = SharedBackend> + Send
    where
        Self: 'a;

    /// The storage to which a call about `place` goes.
    fn target<'a>(&'a self, place: Place<'_>) -> impl Future<Output = Self::Target<'a>> + Send;

    /// See [`Log::take_incoming`].
    fn incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        None
    }
}

#[async_trait]
impl<T: Wrapper> Log for T {
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        self.target(Place::Channel(channel)).await.state(channel, producer).await
    }

    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        self.target(Place::Channel(channel)).await.find(channel, producer).await
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        self.target(Place::Channel(channel)).await.open(channel, producer, minted).await
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.target(Place::Channel(&batch.channel)).await.append(batch).await
    }

    async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.target(Place::Channel(&batch.channel)).await.begin(batch).await
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        self.target(Place::Channel(channel)).await.read_within(channel, after, limit).await
    }

    async fn fork_for_readers(&self, channel: &ChannelName) {
        self.target(Place::Channel(channel)).await.fork_for_readers(channel).await;
    }

    async fn latest_within(&self, channel: &ChannelName, query: LatestQuery<'_>) -> Result<LatestPage> {
        self.target(Place::Channel(channel)).await.latest_within(channel, query).await
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        self.target(Place::Channel(channel)).await.keys(channel).await
    }

    async fn follow(&self, channel: &ChannelName) -> Result<()> {
        self.target(Place::Channel(channel)).await.follow(channel).await
    }

    async fn unfollow(&self, channel: &ChannelName) -> Result<()> {
        self.target(Place::Channel(channel)).await.unfollow(channel).await
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        self.incoming()
    }
}

#[async_trait]
impl<T: Wrapper> Records for T {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        self.target(Place::Records(kind)).await.put(kind, key, value, ttl).await
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        self.target(Place::Records(kind)).await.get(kind, key).await
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        self.target(Place::Records(kind)).await.delete(kind, key).await
    }

    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        self.target(Place::Records(kind)).await.list(kind, after, limit).await
    }

    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        self.target(Place::Leases).await.hold(key, holder, ttl).await
    }

    async fn let_go(&self, key: &str, holder: &str) -> Result<()> {
        self.target(Place::Leases).await.let_go(key, holder).await
    }
}

#[async_trait]
impl<T: Wrapper> Jobs for T {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.target(Place::Jobs).await.enqueue(job, bounds).await
    }

    async fn enqueue_here(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.target(Place::Jobs).await.enqueue_here(job, bounds).await
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<JobView>> {
        self.target(Place::Jobs).await.claim(kind, limit, lease).await
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.target(Place::Jobs).await.extend(id, token, lease).await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.target(Place::Jobs).await.commit(id, token, lease).await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        self.target(Place::Jobs).await.finish(id, token, ending).await
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        self.target(Place::Jobs).await.cancel(id).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        self.target(Place::Jobs).await.job(id).await
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        self.target(Place::Jobs).await.list_jobs(state, before, limit).await
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        self.target(Place::Jobs).await.settle_dead(id).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.target(Place::Jobs).await.job_counts().await
    }
}
