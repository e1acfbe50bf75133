//! A node that uses the model in place of Redis, and a look into it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use zonewire_protocol::stats::OutageView;

use super::link::Link;
use super::primary::ModelRedis;
use super::{ModelServer, lost};
use crate::model::{BackendName, BackendState, ChannelName, Epoch, Lane, NodeId};
use crate::storage::outage::failover::{First, Limits};
use crate::storage::outage::journal::JournalBounds;
use crate::storage::outage::spool::Former;
use crate::storage::outage::switching::{LaneOf, Parts, Switching};
use crate::storage::primary::Domain;
use crate::storage::{MemoryBackend, MemoryConfig, SharedBackend, StatusReader, StatusWriter, StorageStatus};

/// A node's storage, as its channels hold it, and what is to be known of it besides.
pub(crate) struct Started {
    pub(crate) backend: SharedBackend,
    pub(crate) driver: BoxFuture<'static, ()>,
    pub(crate) status: StatusReader,
    pub(crate) inside: Inside,
}

/// A look into a node's storage.
#[derive(Debug, Clone)]
pub(crate) struct Inside(pub(in crate::storage) Arc<Switching>);

/// The state of a channel on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) log: Option<Epoch>,
    pub(crate) highest: u64,
    pub(crate) is_forked: bool,
    pub(crate) is_suspect: bool,
    pub(crate) is_followed: bool,
}

impl Inside {
    /// Entries that wait for the log.
    pub(crate) fn waiting(&self) -> usize {
        self.0.core.replicas.lock().journal.depth().entries
    }

    /// What it counted so far.
    pub(crate) fn totals(&self) -> OutageView {
        self.0.reader().view()
    }

    /// The state in which its calls are made, and by what they are answered.
    pub(crate) fn mode(&self) -> (BackendState, BackendName) {
        let state = self.0.core.breaker.modes().present().next().map(|mode| mode.state);
        (state.expect("there is one server"), self.0.core.breaker.serving())
    }

    pub(crate) fn is_in_order(&self) -> bool {
        self.0.core.is_in_order(Domain::ONLY)
    }

    pub(crate) fn stand(&self, channel: &ChannelName) -> Option<Stand> {
        let state = self.0.core.replicas.lock();
        let replica = state.replicas.get(channel)?;
        Some(Stand {
            log: replica.log().cloned(),
            highest: replica.highest(),
            is_forked: replica.is_forked(),
            is_suspect: replica.is_suspect(),
            is_followed: replica.is_followed(),
        })
    }
}

/// How a node is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) journal_entries: usize,
    pub(crate) order_updates: usize,
    /// It begins while the server is away.
    pub(crate) starts_degraded: bool,
    pub(crate) ordering_deadline: Duration,
}

impl ModelServer {
    /// The storage of a node that has no memory to fall back on.
    pub(crate) fn start_bare(&self, name: usize) -> SharedBackend {
        Arc::new(self.client(name, true))
    }

    fn client(&self, name: usize, is_connected: bool) -> ModelRedis {
        let (events, incoming) = mpsc::channel(256);
        let link = Arc::new(Link::new(name, events));
        self.0.state.lock().links.push(Arc::clone(&link));
        if is_connected {
            self.connect(name);
        }
        ModelRedis::new(self.clone(), link, incoming)
    }

    /// A node that uses this server.
    pub(crate) fn start(
        &self,
        name: usize,
        node: NodeId,
        setup: Setup,
        lanes: Arc<dyn Fn(&ChannelName) -> Lane + Send + Sync>,
    ) -> Started {
        self.start_after(Vec::new(), name, node, setup, lanes)
    }

    /// The same for a node whose earlier processes left entries.
    pub(in crate::storage) fn start_after(
        &self,
        formers: Vec<Former>,
        name: usize,
        node: NodeId,
        setup: Setup,
        lanes: LaneOf,
    ) -> Started {
        let first_lost = setup.starts_degraded.then(lost);
        let primary = self.client(name, first_lost.is_none());
        let retention = self.0.state.lock().ages.retention();
        let (memory, sweeping) = MemoryBackend::new(retention, MemoryConfig::default());
        let (backend, state) = match &first_lost {
            None => (BackendName::Redis, BackendState::Healthy),
            Some(_) => (BackendName::InMemory, BackendState::Degraded),
        };
        let (writer, status) = StatusWriter::new(StorageStatus::new(backend, state, "ok", String::new()));
        let (switching, driver) = Switching::new(Parts {
            node,
            memory,
            primary: Arc::new(primary),
            lanes,
            formers,
            spool: None,
            journal: JournalBounds {
                bytes: 64 << 20,
                entries: setup.journal_entries,
                age: Duration::from_secs(3_600),
                order_updates: setup.order_updates,
            },
            ordering_deadline: setup.ordering_deadline,
            limits: Limits::default(),
            first: first_lost.map_or(First::Redis, First::Memory),
            status: Arc::new(writer),
            well: "the model answers".to_owned(),
        });
        let switching = Arc::new(switching);
        let driver = async move {
            tokio::join!(driver, sweeping);
        };
        let inside = Inside(Arc::clone(&switching));
        Started { backend: switching, driver: Box::pin(driver), status, inside }
    }
}
