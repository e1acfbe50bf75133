//! The storage that survives an outage: Redis while it serves, this node's memory while it does not, and the
//! way there and back. Whoever uses it sees no failover: calls go on being answered, and logs go over into
//! other epochs, by transitions that say what a reader has had. Its parts, each of which knows only those above it:
//!
//! - `breaker`: who serves each failure domain. `monitor` probes the domains and sets their modes.
//! - `replicas`: the local replicas (`replica`, `retransmit`) with the journal and the reconcile `queue`, under one lock.
//!   `open` takes up a log, `read` answers from the log or the replica.
//! - `outbox`: accepts entries without the log, keeps them on disk, and sends them; also those of earlier
//!   processes (`former`).
//! - `incoming`: what the primary publishes, on its way to replicas and readers.
//! - `append`: which way a batch goes. `reconcile`: brings channels back in step with their logs.
//! - `jobs`, `records`: the other two roles in an outage. `log` is the first.
//!
//! Locks are taken in one order: that of the replicas, or of jobs, or of records; then that of what earlier
//! processes left; then the modes. No lock is held across an await.
//!
//! A channel forks by itself, at the first own append that the log does not take in time; a channel to which
//! this node does not publish stays in step throughout an outage.

mod append;
mod breaker;
mod former;
mod incoming;
mod jobs;
mod log;
#[cfg(test)]
pub(crate) mod model;
mod monitor;
mod open;
mod outbox;
mod queue;
mod read;
mod reconcile;
mod records;
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
use breaker::Breaker;
use incoming::Incoming;
use outbox::Outbox;
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
    /// How long an append on lane `latest` is waited for before its channel goes on without the log.
    pub(in crate::storage) ordering_deadline: Duration,
    pub(in crate::storage) limits: Limits,
    pub(in crate::storage) first: First,
    pub(in crate::storage) status: Arc<StatusWriter>,
    /// The reason that the status gives while the primary serves.
    pub(in crate::storage) well: String,
}

/// [`StorageBackend`] that goes on while the storage it prefers is away.
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
    outbox: Arc<Outbox>,
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
        let outbox = Arc::new(Outbox::new(Arc::clone(&replicas), parts.spool, parts.formers));
        let (events, incoming) = Incoming::new(Arc::clone(&replicas));
        let events = Arc::new(events);
        let core = Arc::new(Core {
            appender: Appender::new(&outbox, parts.lanes, parts.ordering_deadline),
            reconciler: Reconciler {
                breaker: Arc::clone(&breaker),
                replicas: Arc::clone(&replicas),
                outbox: Arc::clone(&outbox),
                incoming: Arc::clone(&events),
            },
            jobs: jobs::LocalJobs::new(Arc::clone(&replicas)),
            records: records::LocalRecords::new(Arc::clone(&replicas)),
            breaker,
            replicas,
            outbox,
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

    /// Reads how it fares.
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
        !modes.alone() && !modes.is_all_primary()
    }

    fn is_degraded_for(&self, channel: &ChannelName) -> bool {
        let breaker = &self.core.breaker;
        let is_away = |place| !breaker.is_primary(breaker.domain_at(place));
        !breaker.is_alone() && (is_away(Place::Channel(channel)) || is_away(Place::Jobs))
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
    /// Whether nothing of a failure domain is left to be reconciled that its recovery waits for.
    fn is_in_order(&self, domain: Domain) -> bool {
        (self.jobs.domain() != domain || self.jobs.are_recorded())
            && self.replicas.lock().queue.awaited(domain) == 0
            && self.records.are_written(domain)
            && self.outbox.has_sent_formers(domain)
    }
}

/// Returns when something holds, which is checked now and each time that `changed` is told, also if that is
/// during a check.
async fn until(changed: &Notify, mut holds: impl FnMut() -> bool) {
    loop {
        let told = changed.notified();
        let mut told = std::pin::pin!(told);
        told.as_mut().enable();
        if holds() {
            return;
        }
        told.await;
    }
}

/// The log changes each time that it is looked at.
fn restless(op: &'static str) -> StorageError {
    StorageError::Unreachable { op, cause: "the log changed each time that it was looked at".into() }
}

/// What needs the log itself cannot be done now.
fn away(op: &'static str) -> StorageError {
    StorageError::Unreachable { op, cause: "redis is away, and this cannot be done without it".into() }
}
