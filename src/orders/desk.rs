//! What all of this room share: the desk, and [`Orders`], by which other rooms hold it. What can be asked of
//! orders stands in the files of what happens to them (see the room).

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

/// Orders of which is remembered that outside updates were taken for want of a job.
const JOBLESS_MAX: usize = 20_000;

/// Lists that are made at once.
const LISTS_AT_ONCE: usize = 2;

/// Leases of workers outside that are remembered.
const LEASES_MAX: usize = 20_000;

/// All orders. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Orders(Arc<Desk>);

/// What orders need.
#[derive(Debug)]
pub struct OrdersParts {
    /// Where jobs are.
    pub backend: SharedBackend,
    /// Where updates go.
    pub channels: Channels,
    /// The settings.
    pub config: OrdersConfig,
    /// Where outside consumers look for updates.
    pub mirror: OrderMirror,
    /// Who is told how orders get on that are carried out here.
    pub watch: Option<Arc<dyn OrderWatch>>,
    /// Which workers carry out what is placed here, and what workers here carry out.
    pub kind: JobKind,
    /// What orders look like.
    pub schema: OrderSchema,
}

/// What all parts of this room share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) backend: SharedBackend,
    pub(super) channels: Channels,
    pub(super) config: OrdersConfig,
    pub(super) stats: OrderStats,
    pub(super) mirror: OrderMirror,
    pub(super) watch: Option<Arc<dyn OrderWatch>>,
    /// Of the orders that are placed and claimed here.
    pub(super) kind: JobKind,
    pub(super) schema: OrderSchema,
    /// Something was queued by this process.
    pub(super) queued: Notify,
    /// Changes whenever somebody asks this process to cancel an order.
    pub(super) cancels: watch::Sender<()>,
    /// Orders that had no job when somebody outside told of them: an order is placed under a name that
    /// nobody knew before, so they never get one.
    pub(super) jobless: Mutex<Recent<OrderId, ()>>,
    /// The leases of workers outside, as this process may rely on them: their tokens, and until when.
    /// Looked at where the storage cannot be asked.
    pub(super) leases: Mutex<Recent<OrderId, (u64, Instant)>>,
    /// Orders of which a worker outside is telling; bounded by the requests under way.
    pub(super) settling: Mutex<HashSet<OrderId>>,
    /// Places for lists that are being made.
    pub(super) lists: Semaphore,
    /// Claims and reports that must not be broken off with the requests that they came in.
    pub(super) tasks: TaskTracker,
    /// Where they run: requests' own threads end before the storage does.
    pub(super) runtime: Handle,
}

impl Desk {
    /// The storage did not do something for an order: counts that, and waits before another try.
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
    /// No order yet, but for those in the storage. Must be called in a runtime; what must not be
    /// broken off runs there.
    pub fn new(parts: OrdersParts) -> Self {
        let OrdersParts { backend, channels, config, mirror, watch, kind, schema } = parts;
        let stats = OrderStats::default();
        Self(Arc::new(Desk {
            backend,
            channels,
            config,
            stats,
            mirror,
            watch,
            kind,
            schema,
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

    /// The kind of executor that carries out what is placed here.
    pub fn executor(&self) -> &str {
        &self.0.kind
    }

    /// Waits for the claims and reports that are under way; none must come any more.
    pub(crate) async fn settled(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(super) fn desk(&self) -> &Arc<Desk> {
        &self.0
    }

    /// What an order must look like, as a JSON Schema.
    pub fn schema(&self) -> Bytes {
        self.0.schema.document()
    }

    /// The settings.
    pub fn config(&self) -> &OrdersConfig {
        &self.0.config
    }

    /// The counters of this node.
    pub(crate) fn stats(&self) -> &OrderStats {
        &self.0.stats
    }
}
