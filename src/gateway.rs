//! The composition root: turns a [`Config`] into a running gateway. The only place that knows every room:
//! `assembling` creates the parts and connects them, `threads` serve connections, and `stopping` runs a gateway
//! and stops its parts in order.

mod assembling;
mod reports;
mod stopping;
mod threads;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::{Config, Loaded};
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
    /// An essential part panicked, or ended by itself, which is a bug. What could be flushed was, and
    /// clients were told to reconnect.
    #[error("the gateway ended because of a bug: its part `{part}` panicked or ended by itself")]
    Failed {
        /// Which part; the log has more.
        part: &'static str,
    },
    /// It stopped as requested, but Redis was away or refused accepted entries, which existed nowhere else.
    #[error(
        "accepted, but lost with the gateway, because Redis did not take them: {entries} entries, {orders} orders"
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
    /// The required storage is unusable.
    #[error(transparent)]
    Storage(#[from] storage::StartError),
    /// Authentication cannot be set up, because keys cannot be read.
    #[error("`auth`: {0}")]
    Auth(String),
    /// The schema of orders cannot be read.
    #[error("`orders.schema`: {0}")]
    OrderSchema(String),
    /// A process that is only a worker cannot use Redis.
    #[error(
        "a process that is only a worker (`node.roles` has no gateway) needs Redis, where others place orders, \
         and Redis cannot be used: {reason} [{code}]. Start it, correct `storage.redis`, or add `gateway` to \
         `node.roles`"
    )]
    WorkerNeedsRedis {
        /// A stable code for the kind of failure.
        code: &'static str,
        /// The reason, for people. Contains no secrets.
        reason: String,
    },
    /// The certificate or its key is unusable.
    #[error("`http.tls`: {0}")]
    Tls(String),
    /// Listening on an address or a Unix socket failed.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address, or the path.
        address: String,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// A thread or its runtime could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// A gateway that accepts connections.
pub struct Gateway {
    address: SocketAddr,
    operators: Option<SocketAddr>,
    /// The Unix socket's file, removed with the gateway.
    _file: Option<UnixFile>,
    manager: Manager,
    config: Config,
    stops: Stops,
    /// Ends the storage when it is no longer needed or the gateway is dropped.
    storage: DropGuard,
    /// Tracks the channels and feeds.
    tracker: TaskTracker,
    /// Tracks the worker, which needs the channels until its last order is done or given back.
    work: TaskTracker,
    orders: Orders,
    registry: Registry,
    outage: OutageReader,
    /// Its files are closed at the end.
    memory: MemoryBackend,
    status: StatusReader,
    vital: Vital,
    threads: Vec<Thread>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration may contain secrets, such as those in the addresses of feeds.
        let Self { address, operators, manager, .. } = self;
        f.debug_struct("Gateway")
            .field("address", address)
            .field("operators", operators)
            .field("manager", manager)
            .finish_non_exhaustive()
    }
}

/// The tokens that stop the parts, in the order in which they are cancelled.
#[derive(Debug, Clone, Default)]
struct Stops {
    /// Makes `/health/ready` report not ready.
    leaving: CancellationToken,
    /// Stops feeds, the worker, and requests that may never end.
    stopping: CancellationToken,
    /// Stops accepting.
    accepting: CancellationToken,
    /// Cuts the connections that are still open after the drain.
    cut: CancellationToken,
    /// Ends channels once nothing waits.
    channels: CancellationToken,
    /// Ends the storage, which the channels need until they have flushed.
    storage: CancellationToken,
}

impl Gateway {
    /// Opens the storage, listens, and serves. Must be called in a multi-thread runtime, which runs the
    /// storage, channels and feeds; connections get their own threads.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: impl Into<Loaded>) -> Result<Self, StartError> {
        let loaded = config.into();
        let paper = PaperExecutor::new(loaded.config.orders.paper.clone());
        Self::start_with(loaded, Arc::new(paper)).await
    }

    /// Starts with the caller's executor, which executes orders in place of the built-in simulation
    /// (unless `orders.executor` is `external`, or this node is not a worker).
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_with(
        config: impl Into<Loaded>,
        executor: Arc<dyn OrderExecutor>,
    ) -> Result<Self, StartError> {
        // Boxed, because it is large and deeply nested: callers hold a pointer.
        Box::pin(assembling::assemble(config.into(), executor)).await
    }

    /// The address that it listens on, with the actual port if 0 was configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the operators' listener, if there is one.
    pub fn operators_address(&self) -> Option<SocketAddr> {
        self.operators
    }

    /// Providers online and orders in progress, for programs that embed a gateway.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The connections.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }
}
