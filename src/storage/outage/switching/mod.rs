//! The storage that survives an outage: it uses Redis while Redis serves, this node's memory while it does
//! not, and handles the change in both directions. Callers see no failover: calls are still answered, and
//! logs change their epochs by transitions that say what a reader has had. Each part uses only those above
//! it, and a few constants of `reconcile`:
//!
//! - `breaker`: who serves each failure domain. `monitor` probes the domains and sets their modes.
//! - `replicas`: the local replicas (`replica`, `retransmit`) with the journal and the reconcile `queue`, under one lock.
//!   `open` takes up a log, `read` answers from the log or the replica.
//! - `backlog`: accepts entries without the log, keeps them on disk, and sends them; also those of earlier
//!   processes (`earlier_processes`).
//! - `incoming`: what the primary publishes, on its way to replicas and readers.
//! - `append`: which way a batch goes. `reconcile`: brings channels back in step with their logs.
//! - `log`, `jobs`, `records`: the three roles.
//!
//! Locks are taken in one order: that of the replicas, or of jobs, or of records; then that of what earlier
//! processes left; then the modes. The memory storage locks within each of its calls, so its lock comes last.
//! No lock is held across an await.
//!
//! A channel forks on its own: when an own append does not reach the log (on lane `latest`: not in time),
//! when the log has changed its epoch or lost entries, or when readers need what cannot be reached. All other
//! channels stay in step throughout an outage.

mod append;
mod backlog;
mod breaker;
mod earlier_processes;
mod incoming;
mod jobs;
mod log;
mod monitor;
mod open;
mod queue;
mod read;
mod reconcile;
mod records;
#[cfg(test)]
pub(crate) mod redis_model;
mod replica;
mod replicas;
mod retransmit;
mod stats;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::failover::{First, Limits};
use super::journal::JournalBounds;
use super::spool::{Former, Spool};
use crate::model::{BackendName, ChannelName, Lane, NodeId};
use crate::storage::primary::{Domain, Place, Primary};
use crate::storage::{
    LogEvent, MemoryBackend, Outside, OutsideKeys, PubSubLink, Result, StatusWriter, StorageBackend,
    StorageError,
};
use append::Appender;
use backlog::Backlog;
use breaker::Breaker;
use incoming::Incoming;
use reconcile::Reconciler;
use replicas::Replicas;
pub(crate) use stats::{OutageReader, SetAside};

/// The lane of a channel.
pub(in crate::storage) type LaneOf = Arc<dyn Fn(&ChannelName) -> Lane + Send + Sync>;

/// What a switching storage is made of.
pub(in crate::storage) struct Parts {
    pub(in crate::storage) node: NodeId,
    pub(in crate::storage) memory: MemoryBackend,
    pub(in crate::storage) primary: Arc<dyn Primary>,
    pub(in crate::storage) lanes: LaneOf,
    pub(in crate::storage) journal: JournalBounds,
    /// The journal's copy on disk, and what earlier processes of this gateway left there.
    pub(in crate::storage) spool: Option<Spool>,
    pub(in crate::storage) formers: Vec<Former>,
    /// The least time after which an append on lane `latest` is late: its channel continues without the log.
    pub(in crate::storage) ordering_deadline: Duration,
    pub(in crate::storage) limits: Limits,
    pub(in crate::storage) first: First,
    pub(in crate::storage) status: Arc<StatusWriter>,
    /// The reason that the status gives while the primary serves.
    pub(in crate::storage) well: String,
}

/// [`StorageBackend`] that continues to serve while the storage it prefers is away.
#[derive(Debug)]
pub(in crate::storage) struct Switching {
    core: Arc<Core>,
    incoming: Mutex<Option<mpsc::Receiver<LogEvent>>>,
    /// Dropped with the storage, which ends the driver.
    _alive: oneshot::Sender<()>,
}

struct Core {
    breaker: Arc<Breaker>,
    replicas: Arc<Replicas>,
    backlog: Arc<Backlog>,
    incoming: Arc<Incoming>,
    appender: Appender,
    reconciler: Reconciler,
    jobs: jobs::LocalJobs,
    records: records::LocalRecords,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, modes) = (&self.replicas.node, self.breaker.modes());
        f.debug_struct("Core").field("node", node).field("modes", &*modes).finish_non_exhaustive()
    }
}

impl Switching {
    /// The storage, and a future that must run for as long as it is used.
    pub(in crate::storage) fn new(parts: Parts) -> (Self, BoxFuture<'static, ()>) {
        let breaker = Arc::new(Breaker::new(parts.primary, &parts.first));
        let replicas = Replicas::new(parts.node, parts.memory, Arc::clone(&breaker), parts.journal);
        let replicas = Arc::new(replicas);
        let backlog = Arc::new(Backlog::new(Arc::clone(&replicas), parts.spool, parts.formers));
        let (events, incoming) = Incoming::new(Arc::clone(&replicas));
        let events = Arc::new(events);
        let core = Arc::new(Core {
            appender: Appender::new(&backlog, parts.lanes, parts.ordering_deadline),
            reconciler: Reconciler {
                breaker: Arc::clone(&breaker),
                replicas: Arc::clone(&replicas),
                backlog: Arc::clone(&backlog),
                incoming: Arc::clone(&events),
            },
            jobs: jobs::LocalJobs::new(Arc::clone(&replicas)),
            records: records::LocalRecords::new(Arc::clone(&replicas)),
            breaker,
            replicas,
            backlog,
            incoming: events,
        });
        let driver = monitor::drive(Arc::clone(&core), parts.limits, parts.first, parts.status, parts.well);
        let (alive, dropped) = oneshot::channel();
        let driver = async move {
            tokio::select! {
                biased;
                () = driver => {}
                _ = dropped => {}
            }
        };
        (Self { core, incoming: Mutex::new(Some(incoming)), _alive: alive }, Box::pin(driver))
    }

    /// A reader of the state and the counters of this storage.
    pub(in crate::storage) fn reader(&self) -> OutageReader {
        OutageReader(Arc::downgrade(&self.core))
    }
}

#[async_trait]
impl StorageBackend for Switching {
    fn name(&self) -> BackendName {
        self.core.breaker.serving()
    }

    async fn ping(&self) -> Result<()> {
        let Core { breaker, replicas, .. } = &*self.core;
        let is_any_primary = breaker.modes().is_any_primary();
        if is_any_primary { breaker.primary.ping().await } else { replicas.memory.ping().await }
    }

    fn is_degraded(&self) -> bool {
        let modes = self.core.breaker.modes();
        !modes.is_standalone() && !modes.is_all_primary()
    }

    fn is_degraded_for(&self, channel: &ChannelName) -> bool {
        let breaker = &self.core.breaker;
        let is_away = |place| !breaker.is_primary(breaker.domain_at(place));
        !breaker.is_standalone() && (is_away(Place::Channel(channel)) || is_away(Place::Jobs))
    }

    fn outside_orders(&self) -> Option<Outside> {
        self.core.breaker.primary.outside_orders()
    }

    fn outside_keys(&self) -> Option<Arc<dyn OutsideKeys>> {
        self.core.breaker.primary.outside_keys()
    }

    fn pub_sub(&self) -> Option<PubSubLink> {
        self.core.breaker.primary.pub_sub()
    }
}

impl Core {
    /// Whether nothing is left that the recovery of a failure domain waits for.
    fn is_in_order(&self, domain: Domain) -> bool {
        (self.jobs.domain() != domain || self.jobs.are_recorded())
            && self.replicas.lock().queue.awaited(domain) == 0
            && self.records.are_written(domain)
            && self.backlog.has_sent_formers(domain)
    }
}

/// Waits until `holds` returns true. It is called now and after each notification of `changed`; one that
/// comes during a call is not missed.
async fn until(changed: &Notify, mut holds: impl FnMut() -> bool) {
    loop {
        let notified = changed.notified();
        let mut notified = std::pin::pin!(notified);
        notified.as_mut().enable();
        if holds() {
            return;
        }
        notified.await;
    }
}

/// The error when the log changed during each attempt to read it.
fn error_restless(op: &'static str) -> StorageError {
    StorageError::Unreachable { op, cause: "the log changed during each attempt to read it".into() }
}

/// The error when Redis is away and only the log itself could answer.
fn away(op: &'static str) -> StorageError {
    StorageError::Unreachable { op, cause: "redis is away, and this cannot be done without it".into() }
}
