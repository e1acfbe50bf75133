//! The Redis keys of programs that keep a whole registry in one key, as a JSON array in a string. They are
//! read at startup and on request, and kept up to date if so configured.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::time;
use tracing::{debug, info, warn};

use super::handle::{Condition, Registry, RegistryError};
use super::kind::RegistryKind;
use super::record::Body;
use crate::model::BackendState;
use crate::protocol::RegistrySynced;
use crate::storage::{OutsideKeys, Result as StorageResult, StorageError};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::seldom::{Seldom, warn_seldom};

/// The keys are written at most once in this time.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// They are written this often even if nothing changed: other programs may write them too, and they expire.
const WRITE_ANEW: Duration = Duration::from_secs(60);

/// How often to check whether startup is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why the keys were not read.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// No Redis is configured.
    #[error("there is no Redis here whose keys could be read; set storage.redis.url")]
    NoRedis,
    /// Redis is away.
    #[error("Redis is away, so its keys cannot be read; try again when `GET /api/registry` says `healthy`")]
    Degraded,
    /// Redis did not answer.
    #[error("the storage does not answer at the moment")]
    Unavailable(#[from] StorageError),
}

impl Registry {
    /// Reads the keys, and takes records that are unknown here; with `replace`, also in place of known ones.
    /// Unless `replace` is set, removed records stay removed. Elements that are not records are counted.
    ///
    /// # Errors
    /// See [`SyncError`].
    pub async fn sync(&self, replace: bool) -> Result<Vec<RegistrySynced>, SyncError> {
        let Some(keys) = self.0.parts.backend.outside_keys() else { return Err(SyncError::NoRedis) };
        if RegistryKind::ALL.into_iter().any(|kind| self.state(kind) != BackendState::Healthy) {
            return Err(SyncError::Degraded);
        }
        let mut synced = Vec::new();
        for kind in RegistryKind::ALL {
            synced.push(self.sync_one(kind, &*keys, replace).await?);
        }
        Ok(synced)
    }

    async fn sync_one(
        &self,
        kind: RegistryKind,
        keys: &dyn OutsideKeys,
        replace: bool,
    ) -> StorageResult<RegistrySynced> {
        let mut synced = RegistrySynced { registry: kind.as_str().to_owned(), ..RegistrySynced::default() };
        let Some(text) = keys.get(kind.legacy_key()).await? else { return Ok(synced) };
        let Ok(records) = serde_json::from_slice::<Vec<&RawValue>>(&text) else {
            warn!(key = kind.legacy_key(), "a Redis key holds no JSON array, and is not read");
            synced.invalid = 1;
            return Ok(synced);
        };
        synced.found = records.len();
        for json in records {
            match self.take_legacy(kind, json.get(), replace) {
                Ok(true) => synced.taken += 1,
                Ok(false) => {}
                Err(error) => {
                    debug!(registry = %kind, error = %error, "a record in a Redis key was not accepted");
                    synced.invalid += 1;
                }
            }
        }
        self.book(kind).stats.imported.add(synced.taken as u64);
        Ok(synced)
    }

    /// Returns whether the record was accepted.
    fn take_legacy(&self, kind: RegistryKind, json: &str, replace: bool) -> Result<bool, RegistryError> {
        let key = Body::read(kind, json, None, self.config().record_bytes_max)?.key;
        let known = self.book(kind).core.read().table.version(&key);
        let held = self.get(kind, &key);
        // If the keys are also kept up to date, they hold what is known already.
        if held.is_some_and(|held| held.text() == json) || (known.is_some() && !replace) {
            return Ok(false);
        }
        self.put(kind, None, json, &Condition::None).map(|_written| true)
    }

    /// The task that reads the keys at startup and keeps them up to date, if so configured.
    pub(super) fn exchange_legacy(self) -> Option<BoxFuture<'static, ()>> {
        let (imports, writes) = (self.config().legacy_import, self.config().legacy_write);
        let keys = self.0.parts.backend.outside_keys();
        let Some(keys) = keys.filter(|_| imports || writes) else {
            if imports || writes {
                warn!(
                    "registry.legacy_import and registry.legacy_write need Redis, and have no effect without it"
                );
            }
            return None;
        };
        Some(Box::pin(async move {
            if imports {
                self.import_at_start().await;
            }
            if writes {
                let [providers, orders] = RegistryKind::ALL;
                tokio::join!(self.keep_written(providers, &keys), self.keep_written(orders, &keys));
            }
        }))
    }

    async fn import_at_start(&self) {
        let mut failures = 0;
        loop {
            match self.sync(false).await {
                Ok(synced) => {
                    for RegistrySynced { registry, found, taken, invalid } in synced {
                        info!(registry, found, taken, invalid, "read the Redis key of a registry");
                    }
                    return;
                }
                Err(SyncError::Degraded) => time::sleep(LOOK_EVERY).await,
                Err(error) => {
                    failures += 1;
                    debug!(error = %error, "the Redis keys of registries cannot be read yet");
                    STORAGE_RETRY.pause(failures).await;
                }
            }
        }
    }

    async fn keep_written(&self, kind: RegistryKind, keys: &Arc<dyn OutsideKeys>) {
        let (book, mut failures, mut of_failures) = (self.book(kind), 0, Seldom::default());
        loop {
            if self.state(kind) == BackendState::Healthy {
                let ttl = self.config().ttl(kind);
                match keys.set(kind.legacy_key(), self.as_array(kind).into(), ttl).await {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        failures += 1;
                        book.stats.mirror_failures.add(1);
                        warn_seldom!(of_failures, key = kind.legacy_key(), error = %error, "a Redis key cannot be written");
                        STORAGE_RETRY.pause(failures).await;
                        continue;
                    }
                }
                time::sleep(WRITE_EVERY).await;
                // Either something changed or the time is up: write again.
                let _either = time::timeout(WRITE_ANEW.min(ttl / 3), book.changed.notified()).await;
            } else {
                time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// All records as one JSON array.
    fn as_array(&self, kind: RegistryKind) -> Vec<u8> {
        let core = self.book(kind).core.read();
        let mut out = vec![b'['];
        for record in core.table.records() {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(&record.json);
        }
        out.push(b']');
        out
    }
}
