//! A shared storage in which some logs are local: this node keeps them in memory, whatever happens to Redis.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    LogEvent, MemoryBackend, Outside, OutsideKeys, Place, PubSubLink, Result, SharedBackend, StorageBackend,
    Wrapper,
};
use crate::model::{BackendName, ChannelName};

/// Decides whether the log of a channel is local.
pub(crate) type IsOwn = Arc<dyn Fn(&ChannelName) -> bool + Send + Sync>;

/// A shared storage, except for the local logs.
pub(crate) struct OwnLogs {
    shared: SharedBackend,
    own: SharedBackend,
    is_own: IsOwn,
}

impl fmt::Debug for OwnLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnLogs").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl OwnLogs {
    pub(crate) fn new(shared: SharedBackend, own: MemoryBackend, is_own: IsOwn) -> Self {
        Self { shared, own: Arc::new(own), is_own }
    }
}

impl Wrapper for OwnLogs {
    type Target<'a> = &'a SharedBackend;

    async fn target<'a>(&'a self, place: Place<'_>) -> &'a SharedBackend {
        match place {
            Place::Channel(channel) if (self.is_own)(channel) => &self.own,
            _ => &self.shared,
        }
    }

    /// Local logs send nothing here, because only this process appends to them.
    fn incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        self.shared.take_incoming()
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

    /// Local logs also contain what other nodes send through the shared storage, and that does not arrive
    /// while the storage is away.
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
