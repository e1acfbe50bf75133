//! Which backend serves, decided once at startup.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::Utc;
use futures_util::future::BoxFuture;
use tokio::time::{self, Instant};

use super::probe::{ProbeFailure, probe};
use super::redis::RedisBackend;
use super::{
    MemoryBackend, SharedBackend, StatusReader, StatusWriter, StorageBackend, StorageChoice, StorageConfig,
    StorageStatus,
};
use crate::model::{BackendName, BackendState};

/// Between probes of a server that is loading.
const LOADING_RETRY: Duration = Duration::from_millis(250);
/// Between pings of a Redis that serves.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The storage that serves, and what keeps it going.
pub struct Opened {
    /// The backend that was chosen.
    pub backend: SharedBackend,
    /// Changes the status. The driver has a share in it.
    pub status_writer: Arc<StatusWriter>,
    /// Reads it.
    pub status_reader: StatusReader,
    /// Must run for as long as the backend is used; with Redis it ends when the backend is dropped.
    pub driver: BoxFuture<'static, ()>,
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
    /// Redis is required and does not serve.
    #[error(
        "Redis is required (`storage.required = true`) and cannot be used: {reason} [{code}]. Start \
         it, correct `storage.redis`, or set `storage.required = false` to begin in memory"
    )]
    RedisRequired {
        /// As [`ProbeFailure::code`].
        code: &'static str,
        /// For people. Holds no secrets.
        reason: String,
    },
}

/// Chooses the backend: at most one probe, so within about a second, except where a Redis that is
/// required is loading its data.
///
/// # Errors
/// Only where Redis is required and cannot be used.
pub async fn open(config: &StorageConfig) -> Result<Opened, StartError> {
    let required = config.required && config.backend == StorageChoice::Redis;
    if config.backend == StorageChoice::Memory {
        let reason = "memory is configured".to_owned();
        return Ok(in_memory(config, BackendState::Healthy, "configured", reason));
    }
    match connect(config, required).await {
        Ok(opened) => Ok(opened),
        Err(failure) if required => {
            Err(StartError::RedisRequired { code: failure.code(), reason: told(config, &failure) })
        }
        Err(failure) if config.backend == StorageChoice::Auto && !config.redis.is_configured() => {
            let reason = match failure {
                ProbeFailure::Unreachable(_) => "no Redis is configured".to_owned(),
                found => {
                    format!("no Redis is configured; the one found is not used: {}", told(config, &found))
                }
            };
            tracing::info!(reason, "serving from memory");
            Ok(in_memory(config, BackendState::Healthy, "not_configured", reason))
        }
        Err(failure) => {
            let reason = told(config, &failure);
            tracing::warn!(code = failure.code(), reason, "redis cannot be used, serving from memory");
            Ok(in_memory(config, BackendState::Degraded, failure.code(), reason))
        }
    }
}

/// The failure with the address it happened at.
fn told(config: &StorageConfig, failure: &ProbeFailure) -> String {
    match super::redis::Target::from_config(&config.redis) {
        Ok(target) => format!("Redis at {target}: {failure}"),
        Err(_) => failure.reason(),
    }
}

async fn connect(config: &StorageConfig, patient: bool) -> Result<Opened, ProbeFailure> {
    let patience =
        if patient { Duration::from_millis(config.redis.loading_patience_ms) } else { Duration::ZERO };
    let deadline = Instant::now() + patience;
    let connected = loop {
        match probe(&config.redis).await {
            Err(ProbeFailure::Loading) if Instant::now() < deadline => {
                tracing::info!("redis is loading its data, waiting for it");
                time::sleep(LOADING_RETRY).await;
            }
            answer => break answer?,
        }
    };
    let (backend, driver) = RedisBackend::connect(&config.redis, config.retention.clone()).await?;
    let backend: SharedBackend = Arc::new(backend);
    let reason = format!("Redis at {} answers", connected.address);
    tracing::info!(address = connected.address, "serving from redis");
    let (status_writer, status_reader) =
        status(BackendName::Redis, BackendState::Healthy, "ok", reason.clone());
    let status_writer = Arc::new(status_writer);
    let watch = watch(Arc::downgrade(&backend), Arc::clone(&status_writer), reason);
    let driver = async move {
        tokio::join!(driver, watch);
    };
    Ok(Opened { backend, status_writer, status_reader, driver: Box::pin(driver) })
}

fn in_memory(config: &StorageConfig, state: BackendState, code: &'static str, reason: String) -> Opened {
    let (backend, driver) = MemoryBackend::new(config.retention.clone(), config.memory.clone());
    let (status_writer, status_reader) = status(BackendName::InMemory, state, code, reason);
    Opened {
        backend: Arc::new(backend),
        status_writer: Arc::new(status_writer),
        status_reader,
        driver: Box::pin(driver),
    }
}

fn status(
    backend: BackendName,
    state: BackendState,
    reason_code: &'static str,
    reason: String,
) -> (StatusWriter, StatusReader) {
    StatusWriter::new(StorageStatus { backend, state, since: Utc::now(), reason_code, reason })
}

/// Says how Redis serves, until the backend is dropped.
async fn watch(backend: Weak<dyn StorageBackend>, status: Arc<StatusWriter>, well: String) {
    loop {
        time::sleep(WATCH_EVERY).await;
        let Some(backend) = backend.upgrade() else { return };
        match backend.ping().await {
            Ok(()) => {
                if status.set(BackendState::Healthy, "ok", well.clone()) {
                    tracing::info!("redis serves again");
                }
            }
            Err(error) => {
                let failure = ProbeFailure::of_call(&error);
                let reason = failure.reason();
                if status.set(BackendState::Degraded, failure.code(), reason.clone()) {
                    tracing::warn!(code = failure.code(), reason, "redis does not serve");
                }
            }
        }
    }
}
