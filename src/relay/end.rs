//! One of the two fleets, from the relay's point of view.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;

use super::RelayError;
use crate::bridge::BridgeConfig;
use crate::config::Config;
use crate::model::NodeId;
use crate::storage::{
    LinkHealth, PubSub, PubSubLink, RecordKind, Records as _, RedisBackend, Result as StorageResult,
    StorageBackend as _, StorageError,
};

/// The record that holds a fleet's name.
const FLEET: &str = "fleet";

/// The lease under which the name is written.
const NAMING: &str = "relay:fleet";
const NAMING_FOR: Duration = Duration::from_secs(5);

/// A name never expires.
const FOR_GOOD: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A fleet, and the connections to its Redis.
#[derive(Debug)]
pub(super) struct End {
    /// Which of the two: `from` or `to`.
    name: &'static str,
    /// The fleet's Redis, without a fallback to memory: an entry is carried to a log that all share, or
    /// waits.
    pub(super) backend: RedisBackend,
    pub(super) pubsub: std::sync::Arc<dyn PubSub>,
    pub(super) bridge: BridgeConfig,
    /// The largest message that is carried.
    pub(super) message_bytes_max: usize,
    /// The id of this process at that Redis.
    pub(super) node: NodeId,
    /// The name of the fleet, once it is known.
    fleet: Mutex<Option<Uuid>>,
}

impl End {
    /// An end, and the future that must run while the end is in use; nothing connects before that.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub(super) fn new(
        name: &'static str,
        config: &Config,
    ) -> Result<(Self, BoxFuture<'static, ()>), RelayError> {
        let unusable = |reason: String| RelayError::Unusable { end: name, reason };
        let (backend, driver) = RedisBackend::new(&config.storage.redis, config.storage.retention.clone())
            .map_err(|failure| unusable(failure.to_string()))?;
        let link = backend.pub_sub().ok_or_else(|| unusable("it has no pub/sub".to_owned()))?;
        let PubSubLink { role: pubsub, driver: of_pubsub } = link;
        let health = backend.link_health();
        let end = Self {
            name,
            backend,
            pubsub,
            bridge: config.bridge.clone(),
            message_bytes_max: config.http.line_bytes_max,
            node: NodeId::random(),
            fleet: Mutex::default(),
        };
        let driver = async move {
            tokio::select! {
                () = driver => {}
                () = of_pubsub => {}
                () = log_health(name, health) => {}
            }
        };
        Ok((end, Box::pin(driver)))
    }

    /// The name of the fleet. [`identify`](Self::identify) must have run before anything is carried.
    pub(super) fn fleet(&self) -> Uuid {
        self.fleet.lock().unwrap_or_default()
    }

    /// Whether all connections are established.
    pub(super) fn is_connected(&self) -> bool {
        let pubsub = self.pubsub.health();
        self.backend.link_health().borrow().is_up() && pubsub.publishes && pubsub.hears
    }

    /// Looks up the name of the fleet. A fleet without a name gets one; one that lost its name gets the same
    /// again, so that its messages are still recognized when they come back.
    pub(super) async fn identify(&self) -> StorageResult<()> {
        let mut found = self.read_name().await?;
        if found.is_none() {
            let holder = self.node.to_string();
            if self.backend.hold(NAMING, &holder, NAMING_FOR).await?.is_none() {
                return Err(StorageError::Unknown { op: "hold" });
            }
            // Another process may have named it in between.
            found = self.read_name().await?;
            if found.is_none() {
                let name = self.fleet.lock().unwrap_or_else(Uuid::new_v4);
                let value = Bytes::from(name.to_string());
                self.backend.put(RecordKind::Relay, FLEET, value, FOR_GOOD).await?;
                found = Some(name);
            }
            self.backend.let_go(NAMING, &holder).await?;
        }
        let before = std::mem::replace(&mut *self.fleet.lock(), found);
        if before.is_some() && before != found {
            warn!(end = self.name, "the name of the fleet has changed");
        }
        Ok(())
    }

    async fn read_name(&self) -> StorageResult<Option<Uuid>> {
        let Some(value) = self.backend.get(RecordKind::Relay, FLEET).await? else { return Ok(None) };
        let name = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        name.map(Some).ok_or_else(|| StorageError::Corrupt {
            key: FLEET.to_owned(),
            cause: "it is no UUID: remove it, and the fleet gets another name".into(),
        })
    }
}

/// Logs when the connections to a Redis are lost, and when they are back. Does not end by itself.
async fn log_health(end: &'static str, mut health: watch::Receiver<LinkHealth>) {
    let mut logged = None;
    loop {
        let now = health.borrow_and_update().lost.as_ref().map(|lost| (lost.code, lost.reason.clone()));
        let is_first = logged.is_none() && matches!(now, Some(("connecting", _)));
        if !is_first && logged.as_ref() != Some(&now) {
            match &now {
                None => info!(end, "redis answers"),
                Some((code, reason)) => warn!(end, code, reason, "redis is away"),
            }
            logged = Some(now);
        }
        if health.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
