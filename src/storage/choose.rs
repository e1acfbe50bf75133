//! Chooses the backend that the gateway begins with, once, at startup.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{self, BoxFuture};
use tokio::time::{self, Instant};

use super::disk::DiskState;
use super::memory::Folder;
use super::outage::failover::{First, Limits};
use super::outage::journal::JournalBounds;
use super::outage::spool::{Former, Spool, SpoolOptions};
use super::outage::switching::{LaneOf, OutageReader, Parts, Switching};
use super::redis::{ProbeFailure, RedisBackend, probe};
use super::status::{Served, Toll};
use super::{
    FolderError, Lost, MemoryBackend, Scope, SharedBackend, StatusReader, StatusWriter, StorageChoice,
    StorageConfig, StorageStatus,
};
use crate::model::{BackendName, BackendState, NodeId};

/// How often the health of the memory's disk is checked.
const FOLDER_LOOK: Duration = Duration::from_millis(250);

/// The pause between probes of a server that is loading.
const LOADING_RETRY: Duration = Duration::from_millis(250);

/// The chosen storage, and the futures that drive it.
pub struct Opened {
    /// The backend that was chosen.
    pub backend: SharedBackend,
    /// The storage in this process: the one that serves, or the one that takes over while Redis is away.
    pub(crate) memory: MemoryBackend,
    /// Reports what waits for Redis.
    pub(crate) outage: OutageReader,
    /// Changes the status. The driver holds it too.
    pub status_writer: Arc<StatusWriter>,
    /// Reads the status.
    pub status_reader: StatusReader,
    /// Must run for as long as the backend is used. With Redis, it ends when the backend is dropped.
    pub driver: BoxFuture<'static, ()>,
    /// Ends when the spool's thread has panicked, and never otherwise.
    pub(crate) spool_panicked: BoxFuture<'static, ()>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Redis is required, but does not serve.
    #[error(
        "Redis is required (`storage.required = true`) and cannot be used: {reason} [{code}]. Start \
         it, correct `storage.redis`, or set `storage.required = false` to begin in memory"
    )]
    RedisRequired {
        /// See [`ProbeFailure::code`].
        code: &'static str,
        /// For people. Holds no secrets.
        reason: String,
    },
    /// The directory of the spool cannot be used.
    #[error("`storage.journal.spool.data_dir` cannot be used")]
    Spool(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The memory's directory cannot be used.
    #[error("`storage.memory.data_dir` cannot be used")]
    Folder(#[source] FolderError),
}

/// Chooses the backend with at most one probe, so within about a second, except that a required Redis is
/// awaited while it loads its data. Unless memory is configured, the gateway moves to Redis whenever Redis
/// answers, even if it was away at startup.
///
/// # Errors
/// If Redis is required and cannot be used, or if a directory cannot be used.
pub async fn open(config: &StorageConfig, node: NodeId, lanes: LaneOf) -> Result<Opened, StartError> {
    let required = config.required && config.backend == StorageChoice::Redis;
    if config.backend == StorageChoice::Memory {
        let reason = "memory is configured".to_owned();
        return match &config.memory.data_dir {
            Some(dir) => in_folder(config, dir, reason).await,
            None => Ok(in_memory(config, BackendState::Healthy, "configured", reason)),
        };
    }
    let spool = spool(config).await?;
    let begin = move |redis, begun| switching(config, node, lanes, redis, spool, begun);
    let connected = async {
        let address = admitted(config, required).await?;
        let redis = RedisBackend::connect(&config.redis, config.retention.clone()).await?;
        Ok((address, redis))
    };
    let failure = match connected.await {
        Ok((address, redis)) => {
            tracing::info!(address, "serving from redis");
            let reason = format!("Redis at {address} answers");
            let status = StorageStatus::new(BackendName::Redis, BackendState::Healthy, "ok", reason);
            return Ok(begin(redis, Begun { first: First::Redis, status, address }));
        }
        Err(failure) => failure,
    };
    let reason = with_address(config, &failure);
    if required {
        return Err(StartError::RedisRequired { code: failure.code(), reason });
    }
    let Ok(redis) = RedisBackend::new(&config.redis, config.retention.clone()) else {
        tracing::warn!(code = failure.code(), reason, "redis cannot be used, serving from memory");
        return Ok(in_memory(config, BackendState::Degraded, failure.code(), reason));
    };
    let address = super::redis::Target::from_config(&config.redis);
    let address = address.map(|target| target.to_string()).unwrap_or_default();
    if config.backend == StorageChoice::Auto && !config.redis.is_configured() {
        let reason = match failure {
            ProbeFailure::Unreachable(_) => "no Redis is configured".to_owned(),
            found => {
                format!("no Redis is configured; the one found is not used: {}", with_address(config, &found))
            }
        };
        tracing::info!(reason, "serving from memory");
        let status =
            StorageStatus::new(BackendName::InMemory, BackendState::Healthy, "not_configured", reason);
        return Ok(begin(redis, Begun { first: First::Standalone, status, address }));
    }
    tracing::warn!(code = failure.code(), reason, "redis cannot be used, serving from memory");
    let status =
        StorageStatus::new(BackendName::InMemory, BackendState::Degraded, failure.code(), reason.clone());
    let first = First::Memory(Lost { code: failure.code(), reason });
    Ok(begin(redis, Begun { first, status, address }))
}

/// The failure, with the address at which it happened.
fn with_address(config: &StorageConfig, failure: &ProbeFailure) -> String {
    match super::redis::Target::from_config(&config.redis) {
        Ok(target) => format!("Redis at {target}: {failure}"),
        Err(_) => failure.to_string(),
    }
}

/// Probes Redis; with `patient`, repeats that while Redis is loading, for the configured time.
async fn admitted(config: &StorageConfig, patient: bool) -> Result<String, ProbeFailure> {
    let patience =
        if patient { Duration::from_millis(config.redis.loading_patience_ms) } else { Duration::ZERO };
    let deadline = Instant::now() + patience;
    loop {
        match probe(&config.redis).await {
            Err(ProbeFailure::Loading) if Instant::now() < deadline => {
                tracing::info!("redis is loading its data, waiting for it");
                time::sleep(LOADING_RETRY).await;
            }
            answer => return answer,
        }
    }
}

/// Opens the spool, if one is configured, with the entries that are left in it.
async fn spool(config: &StorageConfig) -> Result<(Option<Spool>, Vec<Former>), StartError> {
    let spool = &config.journal.spool;
    let Some(dir) = &spool.data_dir else { return Ok((None, Vec::new())) };
    let (opened, formers) = Spool::open(Path::new(dir), SpoolOptions::of(spool))
        .await
        .map_err(|error| StartError::Spool(Box::new(error)))?;
    let entries: usize = formers.iter().map(|former| former.entries.len()).sum();
    if entries > 0 {
        tracing::info!(
            entries,
            "the spool holds entries that an earlier process accepted; they are sent when redis serves"
        );
    }
    Ok((Some(opened), formers))
}

/// The initial state of a switching storage.
struct Begun {
    first: First,
    status: StorageStatus,
    /// The address of Redis, whether or not it answers.
    address: String,
}

/// A switching storage, with the initial state that the probe found.
fn switching(
    config: &StorageConfig,
    node: NodeId,
    lanes: LaneOf,
    (redis, redis_driver): (RedisBackend, BoxFuture<'static, ()>),
    (spool, formers): (Option<Spool>, Vec<Former>),
    begun: Begun,
) -> Opened {
    let Begun { first, status, address } = begun;
    let (memory, sweeping) = MemoryBackend::new(config.retention.clone(), config.memory.clone());
    let in_process = memory.clone();
    let (status_writer, status_reader) = StatusWriter::new(status);
    let status_writer = Arc::new(status_writer);
    let spool_panicked = match &spool {
        Some(spool) => spool.panicked().boxed(),
        None => future::pending().boxed(),
    };
    let (backend, driver) = Switching::new(Parts {
        node,
        memory,
        primary: Arc::new(redis),
        lanes,
        journal: JournalBounds::of(&config.journal, &config.retention.orders),
        spool,
        formers,
        ordering_deadline: Duration::from_millis(config.redis.ordering_deadline_ms),
        limits: Limits::default(),
        first,
        status: Arc::clone(&status_writer),
        well: format!("Redis at {address} answers"),
    });
    let driver = async move {
        tokio::select! {
            // It ends with the backend.
            () = driver => {}
            () = redis_driver => {}
            () = sweeping => {}
        }
    };
    Opened {
        memory: in_process,
        outage: backend.reader(),
        backend: Arc::new(backend),
        status_writer,
        status_reader,
        driver: Box::pin(driver),
        spool_panicked,
    }
}

fn in_memory(config: &StorageConfig, state: BackendState, code: &'static str, reason: String) -> Opened {
    let (backend, driver) = MemoryBackend::new(config.retention.clone(), config.memory.clone());
    let status = StorageStatus::new(BackendName::InMemory, state, code, reason);
    without_redis(backend, status, |_, _| driver.boxed())
}

/// Memory that persists its content in a folder.
async fn in_folder(config: &StorageConfig, dir: &Path, configured: String) -> Result<Opened, StartError> {
    let opening = MemoryBackend::open(config.retention.clone(), config.memory.clone(), dir);
    let (backend, found) = opening.await.map_err(StartError::Folder)?;
    if found.is_whole() {
        tracing::info!(dir = %dir.display(), "memory continues: {found}");
    } else {
        tracing::error!(dir = %dir.display(), "memory continues, but may lack something: {found}");
    }
    let reason = format!("{configured}; {found}");
    let status =
        StorageStatus::new(BackendName::InMemory, BackendState::Healthy, "configured", reason.clone());
    Ok(without_redis(backend, status, |backend, writer| match backend.folder() {
        Some(folder) => report_health(folder, writer, reason).boxed(),
        None => future::pending().boxed(),
    }))
}

/// A storage in this process alone.
fn without_redis(
    backend: MemoryBackend,
    status: StorageStatus,
    driver: impl FnOnce(&MemoryBackend, Arc<StatusWriter>) -> BoxFuture<'static, ()>,
) -> Opened {
    let (status_writer, status_reader) = StatusWriter::new(status);
    let status_writer = Arc::new(status_writer);
    Opened {
        driver: driver(&backend, Arc::clone(&status_writer)),
        memory: backend.clone(),
        outage: OutageReader::default(),
        backend: Arc::new(backend),
        status_writer,
        status_reader,
        spool_panicked: future::pending().boxed(),
    }
}

/// Keeps the status in step with the health of the folder's disk. Ends when the folder's thread has panicked.
fn report_health(
    folder: &Folder,
    status: Arc<StatusWriter>,
    well: String,
) -> impl Future<Output = ()> + Send + use<> {
    let (watch, panicked) = (folder.watch(), folder.panicked());
    let reporting = async move {
        let mut tick = time::interval(FOLDER_LOOK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let (state, reason_code, reason) = match watch.state() {
                DiskState::Working | DiskState::Closed => (BackendState::Healthy, "configured", well.clone()),
                state => (BackendState::Degraded, "disk", state.reason().unwrap_or_default()),
            };
            status.set(Served {
                backend: BackendName::InMemory,
                state,
                reason_code,
                reason,
                scope: Scope::All,
                primaries: 1,
                primaries_away: 0,
                toll: Toll::default(),
            });
        }
    };
    async move {
        tokio::select! {
            () = panicked => {}
            () = reporting => {}
        }
    }
}
