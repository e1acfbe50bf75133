//! A storage in which some logs are this node's own: they are in its memory, whatever becomes of Redis.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    AppendAnswer, AppendBatch, Cancelling, ClaimedJob, Ending, Enqueued, Held, JobBounds, JobCounts,
    JobState, JobView, Jobs, LatestOf, LatestPage, Log, LogEvent, LogState, MemoryBackend, NewJob, OpenLog,
    Outside, OutsideKeys, Page, PageLimit, PubSubLink, Record, RecordKind, Records, Result, SharedBackend,
    StorageBackend,
};
use crate::model::{BackendName, ChannelName, Epoch, JobId, NodeId, Position};

/// Says whether the log of a channel is this node's own.
pub(crate) type IsOwn = Arc<dyn Fn(&ChannelName) -> bool + Send + Sync>;

/// All of a shared storage, but for the logs that are this node's own.
pub(crate) struct OwnLogs {
    shared: SharedBackend,
    own: MemoryBackend,
    is_own: IsOwn,
}

impl fmt::Debug for OwnLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnLogs").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl OwnLogs {
    pub(crate) fn new(shared: SharedBackend, own: MemoryBackend, is_own: IsOwn) -> Self {
        Self { shared, own, is_own }
    }

    /// Where the log of a channel is.
    fn log_of(&self, channel: &ChannelName) -> &dyn StorageBackend {
        if (self.is_own)(channel) { &self.own } else { &*self.shared }
    }
}

#[async_trait]
impl Log for OwnLogs {
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        self.log_of(channel).state(channel, producer).await
    }

    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        self.log_of(channel).find(channel, producer).await
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        self.log_of(channel).open(channel, producer, minted).await
    }

    async fn renew_epoch(
        &self,
        channel: &ChannelName,
        expected: &Epoch,
        minted: &Epoch,
    ) -> Result<Option<Epoch>> {
        self.log_of(channel).renew_epoch(channel, expected, minted).await
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.log_of(&batch.channel).append(batch).await
    }

    async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.log_of(&batch.channel).begin(batch).await
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        self.log_of(channel).read_within(channel, after, limit).await
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
        self.log_of(channel).latest_within(channel, after, limit, of).await
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        self.log_of(channel).keys(channel).await
    }

    async fn follow(&self, channel: &ChannelName) -> Result<()> {
        self.log_of(channel).follow(channel).await
    }

    async fn unfollow(&self, channel: &ChannelName) -> Result<()> {
        self.log_of(channel).unfollow(channel).await
    }

    /// What is in this node's own logs all comes from this process.
    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        self.shared.take_incoming()
    }
}

#[async_trait]
impl Records for OwnLogs {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        self.shared.put(kind, key, value, ttl).await
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        self.shared.get(kind, key).await
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        self.shared.delete(kind, key).await
    }

    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        self.shared.list(kind, after, limit).await
    }

    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        self.shared.hold(key, holder, ttl).await
    }

    async fn let_go(&self, key: &str, holder: &str) -> Result<()> {
        self.shared.let_go(key, holder).await
    }
}

#[async_trait]
impl Jobs for OwnLogs {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.shared.enqueue(job, bounds).await
    }

    async fn enqueue_here(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.shared.enqueue_here(job, bounds).await
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<ClaimedJob>> {
        self.shared.claim(kind, limit, lease).await
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.shared.extend(id, token, lease).await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.shared.commit(id, token, lease).await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        self.shared.finish(id, token, ending).await
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        self.shared.cancel(id).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        self.shared.job(id).await
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        self.shared.list_jobs(state, before, limit).await
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        self.shared.settle_dead(id).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.shared.job_counts().await
    }
}

#[async_trait]
impl StorageBackend for OwnLogs {
    fn name(&self) -> BackendName {
        self.shared.name()
    }

    async fn ping(&self) -> Result<()> {
        self.shared.ping().await
    }

    fn is_degraded(&self) -> bool {
        self.shared.is_degraded()
    }

    /// While what nodes share is away, nothing of other nodes comes to this node's own logs either.
    fn is_degraded_for(&self, channel: &ChannelName) -> bool {
        if (self.is_own)(channel) { self.shared.is_degraded() } else { self.shared.is_degraded_for(channel) }
    }

    fn outside_orders(&self) -> Option<Outside> {
        self.shared.outside_orders()
    }

    fn outside_keys(&self) -> Option<Arc<dyn OutsideKeys>> {
        self.shared.outside_keys()
    }

    fn pub_sub(&self) -> Option<PubSubLink> {
        self.shared.pub_sub()
    }
}
