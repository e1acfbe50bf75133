//! Memory with a directory that is closed and opened again between calls.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard, mpsc};
use tokio::time::{self, Instant};
use zonewire::model::{BackendName, ChannelName, Epoch, JobId, Lane, NodeId, Position};
use zonewire::storage::{
    AppendAnswer, AppendBatch, Cancelling, ClaimedJob, Ending, Enqueued, Fsync, Held, JobBounds, JobCounts,
    JobState, JobView, Jobs, LatestOf, LatestPage, Log, LogEvent, LogState, NewJob, OpenLog, Page, PageLimit,
    Record, RecordKind, Records, Result, Retention, SharedBackend, StorageBackend, StorageChoice,
    StorageConfig, open,
};

use super::client::LIMIT;

/// It is reopened before every call whose number is a multiple of this.
const EVERY: u64 = 5;

/// How often it is reopened at most, so that tests with thousands of calls end.
const MOST: u64 = 40;

/// Leases and records of processes end with the process, so calls about them do not reopen it.
#[derive(Debug)]
pub(crate) struct Reopening {
    dir: TempDir,
    retention: Retention,
    store: RwLock<Option<SharedBackend>>,
    calls: AtomicU64,
}

impl Reopening {
    pub(crate) async fn new(retention: Retention) -> Self {
        let dir = TempDir::new().unwrap();
        let store = opened(dir.path().to_owned(), &retention).await;
        Self { dir, retention, store: RwLock::new(Some(store)), calls: AtomicU64::new(0) }
    }

    /// The storage, reopened if it is time.
    async fn store(&self) -> RwLockReadGuard<'_, SharedBackend> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if calls.is_multiple_of(EVERY) && calls / EVERY <= MOST {
            // Dropping the last reference closes its files.
            *self.store.write().await = None;
        }
        self.same().await
    }

    /// The storage, opened if it is closed. If the caller that opens it is dropped midway, the next one opens
    /// it.
    async fn same(&self) -> RwLockReadGuard<'_, SharedBackend> {
        loop {
            match RwLockReadGuard::try_map(self.store.read().await, Option::as_ref) {
                Ok(found) => return found,
                Err(none) => drop(none),
            }
            let mut store = self.store.write().await;
            if store.is_none() {
                *store = Some(opened(self.dir.path().to_owned(), &self.retention).await);
            }
        }
    }

    async fn for_records(&self, kind: RecordKind) -> RwLockReadGuard<'_, SharedBackend> {
        if kind == RecordKind::Zone { self.store().await } else { self.same().await }
    }
}

/// Boxed, so that the caller's future can be sent between threads.
fn opened(dir: PathBuf, retention: &Retention) -> BoxFuture<'static, SharedBackend> {
    let mut config = StorageConfig {
        backend: StorageChoice::Memory,
        retention: retention.clone(),
        ..StorageConfig::default()
    };
    config.memory.data_dir = Some(dir);
    config.memory.fsync = Fsync::Never;
    config.memory.deadline_ms = 20_000;
    Box::pin(async move {
        let deadline = Instant::now() + LIMIT;
        loop {
            let lane: Arc<dyn Fn(&ChannelName) -> Lane + Send + Sync> = Arc::new(|_| Lane::Every);
            match open(&config, NodeId::random(), lane).await {
                Ok(opened) => return opened.backend,
                // The previous one may not have closed its files yet.
                Err(_) if Instant::now() < deadline => time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    })
}

#[async_trait]
impl Log for Reopening {
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        self.store().await.state(channel, producer).await
    }

    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        self.store().await.find(channel, producer).await
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        self.store().await.open(channel, producer, minted).await
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        self.store().await.append(batch).await
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        self.store().await.read_within(channel, after, limit).await
    }

    async fn latest_within(
        &self,
        channel: &ChannelName,
        after: Option<&str>,
        limit: PageLimit,
        of: LatestOf,
    ) -> Result<LatestPage> {
        self.store().await.latest_within(channel, after, limit, of).await
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        self.store().await.keys(channel).await
    }

    async fn follow(&self, channel: &ChannelName) -> Result<()> {
        self.store().await.follow(channel).await
    }

    async fn unfollow(&self, channel: &ChannelName) -> Result<()> {
        self.store().await.unfollow(channel).await
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        None
    }
}

#[async_trait]
impl Records for Reopening {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        self.for_records(kind).await.put(kind, key, value, ttl).await
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        self.for_records(kind).await.get(kind, key).await
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        self.for_records(kind).await.delete(kind, key).await
    }

    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        self.for_records(kind).await.list(kind, after, limit).await
    }

    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        self.same().await.hold(key, holder, ttl).await
    }

    async fn let_go(&self, key: &str, holder: &str) -> Result<()> {
        self.same().await.let_go(key, holder).await
    }
}

#[async_trait]
impl Jobs for Reopening {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.store().await.enqueue(job, bounds).await
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<ClaimedJob>> {
        self.store().await.claim(kind, limit, lease).await
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.store().await.extend(id, token, lease).await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.store().await.commit(id, token, lease).await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        self.store().await.finish(id, token, ending).await
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        self.store().await.cancel(id).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        self.store().await.job(id).await
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        self.store().await.list_jobs(state, before, limit).await
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        self.store().await.settle_dead(id).await
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        self.store().await.job_counts().await
    }
}

#[async_trait]
impl StorageBackend for Reopening {
    fn name(&self) -> BackendName {
        BackendName::InMemory
    }

    async fn ping(&self) -> Result<()> {
        self.store().await.ping().await
    }
}
