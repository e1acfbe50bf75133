//! The nodes that share a storage. Each writes a record of itself once a second; the record expires, so a
//! node that dies vanishes from the list, however it died.
//!
//! - `record` writes this node's record.
//! - `list` reads the records of the others, once for everybody who asks at the same time.
//! - `executors` compares the executors of the nodes.

mod executors;
mod list;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use zonewire_protocol::stats::{
    DeliveryLag, FleetNode, FleetTotals, FleetView, Live as _, NodeState, NodesCounts, NodesKnown, NodesView,
};

use self::list::Listed;
pub(crate) use self::record::OpenSockets;
use crate::model::{BackendName, BackendState, NodeId};
use crate::storage::{SharedBackend, StatusReader};
use crate::support::counter::Counter;

/// How long after its last record a node counts as gone, by the storage's clock. With [`list::KEPT`], a dead
/// node is listed for at most four seconds; five are promised (docs/PROTOCOL.md), the fifth being reserve for
/// slow readers. A node that fails to write twice in a row still counts as present.
const GONE_AFTER: Duration = Duration::from_millis(3_500);

/// The most nodes that are listed.
const NODES_MAX: usize = 1_024;

/// The longest record that is read.
const RECORD_BYTES_MAX: usize = 16 << 10;

/// What is needed to take part in a fleet.
#[derive(Debug)]
pub(crate) struct FleetParts {
    pub(crate) node: NodeId,
    pub(crate) backend: SharedBackend,
    pub(crate) storage: StatusReader,
    /// The kind of executor that executes orders placed here.
    pub(crate) executor: Arc<str>,
    /// Cancelled when this node is about to stop.
    pub(crate) leaving: CancellationToken,
}

/// The nodes that share the storage. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: FleetParts,
    /// The record that this node wrote last.
    own: Mutex<FleetNode>,
    /// The last reading of the others; `None` before the first.
    newest: Mutex<Option<Arc<Listed>>>,
    /// Locked while a reading is in progress.
    listing: tokio::sync::Mutex<()>,
    /// The kinds of executors of the others, as of the last reading.
    other_executors: Mutex<BTreeSet<String>>,
    counts: NodesCounts<Counter>,
}

impl Fleet {
    pub(crate) fn new(parts: FleetParts) -> Self {
        let now = Utc::now();
        let own = FleetNode {
            node: parts.node.to_string(),
            here: false,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: NodeState::Serving.into(),
            started_at: now,
            told_at: now,
            connections: 0,
            zones: Vec::new(),
            zones_left_out: 0,
            lag_ms: DeliveryLag::default(),
            executor: parts.executor.as_ref().to_owned(),
        };
        Self(Arc::new(Inner {
            parts,
            own: Mutex::new(own),
            newest: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
            other_executors: Mutex::default(),
            counts: NodesCounts::default(),
        }))
    }

    /// All nodes. Reads the others' records, unless a recent reading exists.
    pub(crate) async fn view(&self) -> FleetView {
        let listed = self.listed().await;
        let (mut nodes, mut notes) = (Vec::new(), Vec::new());
        match &listed.found {
            Ok(found) => {
                nodes.extend(found.others.iter().take(NODES_MAX - 1).cloned());
                if found.has_more || found.others.len() >= NODES_MAX {
                    notes.push(format!("there are more nodes than the {NODES_MAX} that are listed"));
                }
                if !found.unreadable.is_empty() {
                    let names = found.unreadable.join(", ");
                    notes.push(format!("this version cannot read the records of these nodes: {names}"));
                }
                if self.was_away_lately() {
                    let note = "Redis was away until a moment ago: nodes that have not written their record since may be missing";
                    notes.push(note.to_owned());
                }
            }
            Err(why) => notes.push(why.clone()),
        }
        nodes.push(FleetNode { here: true, state: self.state().into(), ..self.0.own.lock().clone() });
        nodes
            .sort_unstable_by(|one, other| (one.started_at, &one.node).cmp(&(other.started_at, &other.node)));
        let known = if listed.found.is_ok() { NodesKnown::All } else { NodesKnown::ThisOne };
        let connections = nodes.iter().map(|node| node.connections).fold(0, u64::saturating_add);
        FleetView {
            scope: "fleet".to_owned(),
            nodes_known: known.into(),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            totals: FleetTotals { nodes: nodes.len() as u64, connections },
            nodes,
        }
    }

    /// The counters, and the nodes as of the last reading. Reads nothing.
    pub(crate) fn counts(&self) -> NodesView {
        let mut nodes_by_state: BTreeMap<String, u64> =
            NodeState::ALL.into_iter().map(|state| (state.as_str().to_owned(), 0)).collect();
        let mut count = |state: &str| *nodes_by_state.entry(state.to_owned()).or_default() += 1;
        count(self.state().as_str());
        if let Some(Ok(found)) = self.0.newest.lock().as_ref().map(|listed| &listed.found) {
            // A state that only a newer version knows must not become the name of a metric.
            let known = |node: &'_ FleetNode| NodeState::ALL.into_iter().find(|state| node.state.is(*state));
            found.others.iter().for_each(|node| count(known(node).map_or("other", NodeState::as_str)));
        }
        NodesView { nodes_by_state, counts: self.0.counts.read() }
    }

    /// The state of this node.
    fn state(&self) -> NodeState {
        if self.0.parts.leaving.is_cancelled() {
            return NodeState::Draining;
        }
        match self.0.parts.storage.get().state {
            BackendState::Healthy => NodeState::Serving,
            BackendState::Degraded | BackendState::Recovering => NodeState::Degraded,
        }
    }

    /// Whether some nodes may not have written their records again since Redis was away.
    fn was_away_lately(&self) -> bool {
        let storage = self.0.parts.storage.get();
        storage.switches > 0 && storage.age() < GONE_AFTER
    }

    /// Whether there is no shared storage.
    fn is_by_itself(&self) -> bool {
        let storage = self.0.parts.storage.get();
        (storage.backend, storage.state) == (BackendName::InMemory, BackendState::Healthy)
    }
}
