//! The composition root: from a [`Config`](crate::config::Config) to a gateway that runs. The only place that knows every room:
//! `assembling` makes the parts and connects them, `threads` are those that serve connections, `stopping` runs
//! a gateway and stops its parts one after the other.

mod assembling;
mod fleet;
mod registries;
mod stopping;
mod threads;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::Loaded;
use crate::connections::Manager;
use crate::http::UnixFile;
use crate::orders::{OrderExecutor, Orders, PaperExecutor};
use crate::registry::Registry;
use crate::storage::{self, MemoryBackend, OutageReader, StatusReader};
use crate::support::panics::Vital;
use threads::Thread;

/// Why a gateway did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A part that it cannot do without panicked, or ended by itself, which is a bug. What could be
    /// flushed was, and clients were told to come back.
    #[error("the gateway ended because of a bug: its part `{part}` panicked or ended by itself")]
    Failed {
        /// Which one it was; the log says more.
        part: &'static str,
    },
    /// It ended as it was told to, while Redis was away or did not take what had been accepted, and
    /// that was nowhere else.
    #[error(
        "accepted and lost with the gateway, since Redis did not take them: {entries} entries, {orders} orders"
    )]
    Lost {
        /// Prices and updates of orders.
        entries: usize,
        /// Orders that were placed.
        orders: usize,
    },
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The storage that is required cannot be used.
    #[error(transparent)]
    Storage(#[from] storage::StartError),
    /// It cannot be told who may come in: keys cannot be read.
    #[error("`auth`: {0}")]
    Auth(String),
    /// What orders look like cannot be read.
    #[error("`orders.schema`: {0}")]
    OrderSchema(String),
    /// A worker alone cannot use the Redis that it needs.
    #[error(
        "a worker alone needs Redis, where others place orders (`node.roles` has no gateway), and Redis cannot \
         be used: {reason} [{code}]. Start it, correct `storage.redis`, or add `gateway` to `node.roles`"
    )]
    WorkerNeedsRedis {
        /// A stable word for the kind of failure.
        code: &'static str,
        /// For people. Holds no secrets.
        reason: String,
    },
    /// The certificate or its key cannot be used.
    #[error("`http.tls`: {0}")]
    Tls(String),
    /// An address, or a socket in the file system, cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address, or the path.
        address: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A thread or its runtime could not be made.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A gateway that accepts connections.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    operators: Option<SocketAddr>,
    /// Removed with the gateway.
    _file: Option<UnixFile>,
    manager: Manager,
    drain_lead: Duration,
    drain_window: Duration,
    close_grace: Duration,
    stops: Stops,
    /// Ends the storage, when it is no longer needed or the gateway is dropped.
    storage: DropGuard,
    /// Knows the channels and feeds.
    tracker: TaskTracker,
    /// Knows the worker, which needs the channels until its last order is done or given back.
    work: TaskTracker,
    orders: Orders,
    registry: Registry,
    outage: OutageReader,
    /// What it keeps on disk is closed at the end.
    memory: MemoryBackend,
    status: StatusReader,
    redis_configured: bool,
    vital: Vital,
    threads: Vec<Thread>,
}

/// What tells the parts to stop, in the order in which they are told.
#[derive(Debug, Clone, Default)]
struct Stops {
    /// Makes `/health/ready` say no.
    leaving: CancellationToken,
    /// Stops feeds and endless requests.
    stopping: CancellationToken,
    /// Stops accepting.
    accepting: CancellationToken,
    /// Cuts what is left after the drain.
    cut: CancellationToken,
    /// Ends channels once nothing waits.
    channels: CancellationToken,
    /// Ends the storage, which the channels need until they have flushed.
    storage: CancellationToken,
}

impl Gateway {
    /// Opens the storage, listens, and serves. Must be called in a multi-thread runtime, on which
    /// storage, channels and feeds run; connections get threads of their own.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: impl Into<Loaded>) -> Result<Self, StartError> {
        let loaded = config.into();
        let paper = PaperExecutor::new(loaded.config.orders.paper.clone());
        Self::start_with(loaded, Arc::new(paper)).await
    }

    /// The same with an executor of the caller's own, which carries orders out in place of the
    /// built-in simulation (unless `orders.executor` is `external`, or this node is no worker).
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_with(
        config: impl Into<Loaded>,
        executor: Arc<dyn OrderExecutor>,
    ) -> Result<Self, StartError> {
        // Boxed, since it is large and nests deeply: callers hold a pointer.
        Box::pin(assembling::assemble(config.into(), executor)).await
    }

    /// The address that it listens on, with the port that was taken for 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the operators' listener, where there is one.
    pub fn operators_address(&self) -> Option<SocketAddr> {
        self.operators
    }

    /// Who is online, and which orders are under way: for who has a gateway in its own process.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The connections.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }
}
