//! Memory with a directory that is closed and opened again between calls.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::{self, Instant};
use zonewire::model::{BackendName, ChannelName, Lane, NodeId};
use zonewire::storage::{
    Fsync, Place, RecordKind, Result, Retention, SharedBackend, StorageBackend, StorageChoice, StorageConfig,
    Wrapper, open,
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

impl Wrapper for Reopening {
    type Target<'a> = RwLockReadGuard<'a, SharedBackend>;

    async fn target<'a>(&'a self, place: Place<'_>) -> RwLockReadGuard<'a, SharedBackend> {
        match place {
            Place::Channel(_) | Place::Jobs | Place::Records(RecordKind::Zone) => self.store().await,
            Place::Records(_) | Place::Leases => self.same().await,
        }
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
