//! Where entries and records are kept: the roles, their implementations, and the choice at startup.
//!
//! The rest of the gateway sees only [`StorageBackend`].

mod choose;
mod codec;
mod config;
mod disk;
mod epoch_name;
mod error;
mod jobs;
mod log;
mod memory;
mod outage;
mod outside;
mod own_logs;
mod primary;
#[cfg(any(test, feature = "probes"))]
pub(crate) mod probes;
mod pubsub;
mod records;
mod redis;
mod status;
mod version_vector;
mod wrapper;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

pub use choose::{Opened, StartError, open};
use config::{AGE_MAX, Bounds};
pub use config::{
    Fsync, JournalConfig, MemoryConfig, OrderRetention, RedisConfig, Retention, SpoolConfig, SpoolFsync,
    StorageChoice, StorageConfig,
};
pub use epoch_name::{
    begin_elsewhere, begin_of_fork, had_at, is_fork, is_fork_of_unknown, lack_own, log_of_fork, miss_in_fork,
    told_epoch,
};
pub use error::{Result, StorageError};
pub use jobs::{
    Attempt, Cancelling, Ending, Enqueued, Held, Idempotency, JOBS_PER_CALL_MAX, JobBounds, JobCounts,
    JobKind, JobState, JobView, Jobs, LEASE_MAX, LEASE_MIN, NewJob,
};
use jobs::{MovedJob, Recorded, Stand};
pub use log::{
    Anchor, Append, AppendAnswer, AppendBatch, Appended, EPOCH_KEPT_FOR, EpochTransition, LATEST_BYTES_MAX,
    LatestOf, LatestPage, LatestQuery, Log, LogEvent, LogState, OpenLog, Page, PageLimit, REMOVED_KEPT_FOR,
    REMOVED_MAX, Refusal, UNUSED_EPOCH_KEPT_FOR,
};
pub use memory::{FolderError, MemoryBackend};
#[cfg(test)]
pub(crate) use outage::switching::redis_model;
pub(crate) use outage::switching::{OutageReader, SetAside};
pub use outside::{OUTSIDE_WINDOW, Outside, OutsideEvent, OutsideKeys, OutsideOrders};
pub(crate) use own_logs::OwnLogs;
pub use primary::{Beat, Concerned, LinkHealth, Lost, Place};
pub use pubsub::{Driven, Outgoing, PubSub, PubSubEvent, PubSubHealth, PubSubLink};
pub use records::{Record, RecordKind, Records};
pub use redis::{ProbeFailure, RedisBackend};
pub(crate) use status::StateSpell;
pub use status::{Scope, StatusReader, StatusWriter, StorageStatus};
pub use version_vector::{ReturnPoint, Run, VersionVector};
pub use wrapper::Wrapper;

use crate::model::{BackendName, ChannelName};

/// All that the gateway asks of a storage: the sum of its roles.
#[async_trait]
pub trait StorageBackend: Log + Records + Jobs + fmt::Debug + Send + Sync + 'static {
    /// Stable name for logs, metrics and `/ws/health`.
    fn name(&self) -> BackendName;

    /// Cheapest round trip that proves that the backend answers and can be written to.
    async fn ping(&self) -> Result<()>;

    /// Whether this node answers by itself because the storage that it shares with other nodes is away.
    fn is_degraded(&self) -> bool {
        false
    }

    /// The same for one channel, or for the job behind it.
    fn is_degraded_for(&self, _channel: &ChannelName) -> bool {
        self.is_degraded()
    }

    /// Exchanges updates of orders with outside workers, where the backend can. Call it once: each call opens
    /// a connection.
    fn outside_orders(&self) -> Option<Outside> {
        None
    }

    /// Reads and writes keys of other programs, where the backend can.
    fn outside_keys(&self) -> Option<Arc<dyn OutsideKeys>> {
        None
    }

    /// Publishes to other processes and receives their messages, where the backend can. Call it once: each
    /// call opens connections.
    fn pub_sub(&self) -> Option<PubSubLink> {
        None
    }
}

/// A backend as the rooms above hold it.
pub type SharedBackend = Arc<dyn StorageBackend>;
