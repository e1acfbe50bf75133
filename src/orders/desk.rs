//! What all parts of this room share: the desk, and [`Orders`], the handle for other rooms. The methods of
//! `Orders` are in the files of the steps that they belong to (see the room's documentation).

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::OrderStats;
use super::config::OrdersConfig;
use super::interop::OrderMirror;
use super::schema::OrderSchema;
use super::updates::OrderWatch;
use crate::channels::Channels;
use crate::model::OrderId;
use crate::storage::{JobKind, SharedBackend, StorageError};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::recent::Recent;

/// How many orders without a job are remembered.
const JOBLESS_MAX: usize = 20_000;

/// Lists that are built at once.
const LISTS_AT_ONCE: usize = 2;

/// Leases of external workers that are remembered.
const LEASES_MAX: usize = 20_000;

/// All orders. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Orders(Arc<Desk>);

/// The parts of [`Orders`].
#[derive(Debug)]
pub struct OrdersParts {
    /// The storage of jobs.
    pub backend: SharedBackend,
    /// The channels that updates are published in.
    pub channels: Channels,
    /// The settings.
    pub config: OrdersConfig,
    /// Writes updates for external consumers.
    pub mirror: OrderMirror,
    /// Is notified of the progress of the orders that are executed here.
    pub watch: Option<Arc<dyn OrderWatch>>,
    /// The kind of jobs placed here, which workers of the same kind execute; also the kind that workers
    /// here claim.
    pub kind: JobKind,
    /// What orders look like.
    pub schema: OrderSchema,
}

#[cfg(test)]
impl OrdersParts {
    /// Orders of this kind in memory, with the default settings and nothing running.
    pub(super) fn in_memory(kind: &str) -> Orders {
        use crate::model::NodeId;
        use crate::storage::MemoryBackend;

        let (backend, _sweeping) = MemoryBackend::new(Default::default(), Default::default());
        let backend: SharedBackend = Arc::new(backend);
        let channels = Channels::without_shards(Arc::clone(&backend), NodeId::random());
        let (config, schema) = (OrdersConfig::default(), OrderSchema::load("swap").expect("is built in"));
        let mirror = OrderMirror::off();
        Orders::new(Self { backend, channels, config, mirror, watch: None, kind: kind.into(), schema })
    }
}

/// What all parts of this room share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) parts: OrdersParts,
    pub(super) stats: OrderStats,
    /// Notified when a job may be ready here: one was queued, given back or cancelled.
    pub(super) queued: Notify,
    /// Changes whenever somebody asks this process to cancel an order.
    pub(super) cancels: watch::Sender<()>,
    /// Orders that had no job when an external source reported on them. An order is placed under an id that
    /// nobody knew before, so these orders never get a job.
    pub(super) jobless: Mutex<Recent<OrderId, ()>>,
    /// The leases of external workers as far as this process may rely on them: their tokens and ends. Used
    /// when the storage cannot be asked.
    pub(super) leases: Mutex<Recent<OrderId, (u64, Instant)>>,
    /// Orders with an external worker's report under way; bounded by the requests under way.
    pub(super) settling: Mutex<HashSet<OrderId>>,
    /// Permits for building lists.
    pub(super) lists: Semaphore,
    /// Claims and reports that must run to their end even if their requests are dropped.
    pub(super) tasks: TaskTracker,
    /// The runtime of these tasks: the runtimes of requests end before the storage does.
    pub(super) runtime: Handle,
}

impl Desk {
    /// Counts a failed storage operation on an order, and pauses before the caller tries again.
    pub(super) async fn pause_after(
        &self,
        order: OrderId,
        failures: &mut u32,
        error: &StorageError,
        what: &'static str,
    ) {
        *failures += 1;
        self.stats.storage_failures.add(1);
        debug!(%order, %error, "{what}");
        STORAGE_RETRY.pause(*failures).await;
    }
}

impl Orders {
    /// Starts with the orders in the storage. Must be called within a runtime; the claims and reports that
    /// must run to their end run there.
    pub fn new(parts: OrdersParts) -> Self {
        Self(Arc::new(Desk {
            parts,
            stats: OrderStats::default(),
            queued: Notify::new(),
            cancels: watch::Sender::new(()),
            jobless: Mutex::new(Recent::new(JOBLESS_MAX, usize::MAX)),
            leases: Mutex::new(Recent::new(LEASES_MAX, usize::MAX)),
            settling: Mutex::default(),
            lists: Semaphore::new(LISTS_AT_ONCE),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        }))
    }

    /// The kind of executor that executes what is placed here.
    pub fn executor(&self) -> &str {
        &self.0.parts.kind
    }

    /// Waits for the claims and reports that are under way; no new ones may come.
    pub(crate) async fn settled(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        &self.0
    }

    /// What an order must look like, as a JSON Schema.
    pub fn schema(&self) -> Bytes {
        self.0.parts.schema.document()
    }

    /// The settings.
    pub fn config(&self) -> &OrdersConfig {
        &self.0.parts.config
    }

    /// The counters of this node.
    pub(crate) fn stats(&self) -> &OrderStats {
        &self.0.stats
    }
}
