//! What the switching backend asks of the storage that it prefers: a [`StorageBackend`] that may go
//! away and come back.

use async_trait::async_trait;
use tokio::sync::watch;

pub(in crate::storage) use super::redis::{Beat, LinkHealth};
use super::{MovedJob, Recorded, Result, StorageBackend};
use crate::model::NodeId;

/// A storage shared with other nodes, that may go away and come back.
#[async_trait]
pub(in crate::storage) trait Primary: StorageBackend {
    /// Whether its connections are up, now and from now on.
    fn link_health(&self) -> watch::Receiver<LinkHealth>;

    /// Proves that it answers and takes writes, and finds whether it lost what it had. Each loss is
    /// found once.
    async fn beat(&self, node: NodeId) -> Result<Beat>;

    /// Records a job that a node kept while this storage was away: from here on it is a job like any
    /// other. Repeating it does nothing. Never refused for want of a place in the queue, since the job
    /// was accepted.
    async fn record_job(&self, job: &MovedJob) -> Result<Recorded>;
}
