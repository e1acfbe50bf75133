//! Nodes on one storage, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;
use zonewire_protocol::stats::{FleetView, NodeState, NodesKnown, Timing};

use super::record::record;
use super::{Fleet, FleetParts, GONE_AFTER, NODES_MAX, OpenSockets, RECORD_BYTES_MAX, list};
use crate::model::{BackendName, BackendState, NodeId};
use crate::storage::{
    MemoryBackend, MemoryConfig, RecordKind, Records as _, Retention, StatusReader, StatusWriter,
    StorageStatus,
};

/// Connections by zone; `None` if the shards never answer.
#[derive(Debug)]
struct Sockets(Option<Vec<(String, u64)>>);

#[async_trait]
impl OpenSockets for Sockets {
    fn totals(&self) -> (u64, Timing) {
        let open = self.0.as_ref().map_or(7, |zones| zones.iter().map(|(_, count)| count).sum());
        (open, Timing::default())
    }

    async fn by_zone(&self) -> Vec<(String, u64)> {
        match &self.0 {
            Some(zones) => zones.clone(),
            None => std::future::pending().await,
        }
    }
}

fn store() -> MemoryBackend {
    MemoryBackend::new(Retention::default(), MemoryConfig::default()).0
}

fn status(backend: BackendName, state: BackendState, code: &'static str) -> StorageStatus {
    StorageStatus::new(backend, state, code, String::new())
}

/// Memory that nodes share, in place of a healthy Redis.
fn shared() -> (StatusWriter, StatusReader) {
    StatusWriter::new(status(BackendName::Redis, BackendState::Healthy, "ok"))
}

struct Node {
    fleet: Fleet,
    leaving: CancellationToken,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Node {
    fn on(store: &MemoryBackend, storage: StatusReader, executor: &str) -> Self {
        let (leaving, stop) = (CancellationToken::new(), CancellationToken::new());
        let fleet = Fleet::new(FleetParts {
            node: NodeId::random(),
            backend: Arc::new(store.clone()),
            storage,
            executor: executor.into(),
            leaving: leaving.clone(),
        });
        Self { fleet, leaving, stop, running: JoinSet::new() }
    }

    fn announce_of(mut self, sockets: Sockets) -> Self {
        self.running.spawn(self.fleet.clone().announce(Arc::new(sockets), self.stop.clone()));
        self
    }

    fn announce(self) -> Self {
        self.announce_of(Sockets(Some(vec![("pjm".to_owned(), 2), ("ercot".to_owned(), 0)])))
    }

    fn name(&self) -> String {
        self.fleet.0.parts.node.to_string()
    }

    fn lists(&self) -> u64 {
        self.fleet.counts().counts.lists
    }
}

fn names(view: &FleetView) -> Vec<&str> {
    view.nodes.iter().map(|node| node.node.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn nodes_are_listed_until_they_stop_or_fall_silent() {
    let (store, (_writer, reader)) = (store(), shared());
    let node = || Node::on(&store, reader.clone(), "paper").announce();
    let (a, mut stopped, mut killed) = (node(), node(), node());
    time::sleep(Duration::from_millis(10)).await;
    let view = a.fleet.view().await;
    assert_eq!((view.nodes_known.clone(), view.note.clone()), (NodesKnown::All.into(), None));
    assert_eq!(
        names(&view),
        [a.name(), stopped.name(), killed.name()],
        "the one that runs longest is the first"
    );
    assert_eq!(view.nodes.iter().map(|node| node.here).collect::<Vec<_>>(), [true, false, false]);
    for node in &view.nodes {
        assert_eq!((node.state.as_str(), node.connections, node.zones_left_out), ("serving", 2, 0));
        assert_eq!((node.zones.len(), node.zones[0].zone.as_str(), node.zones[0].connections), (1, "pjm", 2));
        assert_eq!((node.lag_ms.p50, node.version.as_str()), (None, env!("CARGO_PKG_VERSION")));
    }
    assert_eq!((view.totals.nodes, view.totals.connections), (3, 6));

    stopped.leaving.cancel();
    time::sleep(Duration::from_millis(1)).await;
    let told = store.get(RecordKind::Node, &stopped.name()).await.unwrap().unwrap();
    assert!(std::str::from_utf8(&told).unwrap().contains(r#""state":"draining""#), "before its next second");
    stopped.stop.cancel();
    stopped.running.join_next().await.unwrap().unwrap();
    assert_eq!(store.get(RecordKind::Node, &stopped.name()).await.unwrap(), None);

    // The other node dies without deleting its record.
    killed.running.shutdown().await;
    time::sleep(list::KEPT).await;
    assert_eq!(names(&a.fleet.view().await), [a.name(), killed.name()]);
    time::sleep(Duration::from_secs(4) - list::KEPT).await;
    assert_eq!(names(&a.fleet.view().await), [a.name()]);
    assert!(GONE_AFTER + list::KEPT <= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_one_reading() {
    let (store, (_writer, reader)) = (store(), shared());
    let a = Node::on(&store, reader, "paper");
    let asking: JoinSet<_> = (0..100)
        .map(|_| {
            let fleet = a.fleet.clone();
            async move { fleet.view().await }
        })
        .collect();
    assert_eq!((asking.join_all().await.len(), a.lists()), (100, 1));
    time::sleep(list::KEPT / 2).await;
    a.fleet.view().await;
    assert_eq!(a.lists(), 1);
    time::sleep(list::KEPT).await;
    a.fleet.view().await;
    assert_eq!(a.lists(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_shards_are_busy_is_listed() {
    let (store, (_writer, reader)) = (store(), shared());
    let a = Node::on(&store, reader, "paper").announce_of(Sockets(None));
    for told in 1..5 {
        time::sleep(Duration::from_secs(1)).await;
        assert!(a.fleet.counts().counts.told >= told);
    }
    assert_eq!(a.fleet.view().await.nodes[0].connections, 7);
}

#[tokio::test(start_paused = true)]
async fn of_too_many_nodes_some_are_listed_and_a_note_says_so() {
    let (store, (_writer, reader)) = (store(), shared());
    let a = Node::on(&store, reader, "paper");
    let other = a.fleet.0.own.lock().clone();
    let put = async |name: String, value: Bytes| {
        store.put(RecordKind::Node, &name, value, Duration::from_secs(60)).await.unwrap();
    };
    let name = |n: usize| format!("{n:032x}");
    for n in 0..NODES_MAX - 1 {
        put(name(n), record(&other)).await;
    }
    let view = a.fleet.view().await;
    assert_eq!((view.nodes.len(), view.note), (NODES_MAX, None));
    assert_eq!(a.fleet.others().await.unwrap().len(), NODES_MAX - 1);

    // The records of nodes of other builds may hold anything.
    put(name(0), Bytes::from("{}")).await;
    put(name(1), vec![b' '; RECORD_BYTES_MAX + 1].into()).await;
    time::sleep(list::KEPT).await;
    let view = a.fleet.view().await;
    assert_eq!(view.nodes.len(), NODES_MAX - 2);
    let note = view.note.unwrap();
    assert!(note.ends_with(&format!("{}, {}", name(0), name(1))), "{note}");
    assert_eq!(a.fleet.counts().counts.unreadable, 2);
    assert_eq!(a.fleet.others().await.unwrap().len(), NODES_MAX - 1, "they exist all the same");

    for n in NODES_MAX - 1..NODES_MAX + 10 {
        put(name(n), record(&other)).await;
    }
    time::sleep(list::KEPT).await;
    let view = a.fleet.view().await;
    assert!(view.nodes.len() <= NODES_MAX && view.nodes.iter().any(|node| node.here));
    assert!(view.note.unwrap().starts_with("there are more nodes than the 1024"));
    assert_eq!(a.fleet.others().await, None, "it is unknown which nodes are gone");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_read_others_lists_itself() {
    let (store, (writer, reader)) = (store(), shared());
    let (a, b) =
        (Node::on(&store, reader.clone(), "paper").announce(), Node::on(&store, reader, "paper").announce());
    time::sleep(Duration::from_millis(10)).await;
    assert_eq!(a.fleet.view().await.nodes.len(), 2);
    assert_eq!(a.fleet.counts().nodes_by_state["serving"], 2);

    writer.replace(status(BackendName::InMemory, BackendState::Degraded, "unreachable"));
    time::sleep(list::KEPT).await;
    let view = a.fleet.view().await;
    assert_eq!((names(&view), view.nodes_known.as_str()), (vec![a.name().as_str()], "this_one"));
    assert_eq!(view.note.unwrap(), "Redis cannot be reached: other nodes are unknown here");
    assert!(view.nodes[0].state.is(NodeState::Degraded) && view.nodes[0].connections == 2);
    assert_eq!(a.fleet.others().await, None);
    let counts = a.fleet.counts().nodes_by_state;
    assert_eq!((counts["serving"], counts["degraded"], counts["draining"]), (0, 1, 0));

    let mut back = status(BackendName::Redis, BackendState::Healthy, "ok");
    back.switches = 2;
    writer.replace(back);
    time::sleep(list::KEPT).await;
    let view = a.fleet.view().await;
    assert_eq!((view.nodes.len(), view.nodes_known), (2, NodesKnown::All.into()));
    assert!(view.note.unwrap().contains("until a moment ago"));
    assert_eq!(a.fleet.others().await, None, "a node that has not written again need not be gone");
    time::sleep(GONE_AFTER).await;
    assert_eq!(a.fleet.view().await.note, None);
    assert_eq!(a.fleet.others().await.unwrap().len(), 1);

    // Without Redis, no record is written.
    writer.replace(status(BackendName::InMemory, BackendState::Healthy, "configured"));
    let told = a.fleet.counts().counts;
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!(a.fleet.counts().counts, told);
    let view = a.fleet.view().await;
    assert_eq!((view.nodes.len(), view.nodes_known), (1, NodesKnown::ThisOne.into()));
    assert!(view.note.unwrap().starts_with("memory is the storage"));
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn executors_of_others_are_known_and_remembered_while_redis_is_away() {
    let (store, (writer, reader)) = (store(), shared());
    let node = |executor| Node::on(&store, reader.clone(), executor).announce();
    let (mut a, _same, mut other) = (node("paper"), node("paper"), node("external"));
    a.running.spawn(a.fleet.clone().keep_up());
    time::sleep(Duration::from_secs(6)).await;
    assert_eq!(a.fleet.other_executors(), ["external"]);
    writer.replace(status(BackendName::InMemory, BackendState::Degraded, "unreachable"));
    time::sleep(Duration::from_secs(6)).await;
    assert_eq!(a.fleet.other_executors(), ["external"]);
    writer.replace(status(BackendName::Redis, BackendState::Healthy, "ok"));
    other.running.shutdown().await;
    time::sleep(Duration::from_secs(11)).await;
    assert_eq!(a.fleet.other_executors(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_longest_record_can_be_read() {
    let (store, (_writer, reader)) = (store(), shared());
    let zones = (0..10_000_u64).map(|n| (format!("{n:0>64}"), u64::MAX / 20_000)).collect();
    let a = Node::on(&store, reader.clone(), &"x".repeat(1_024)).announce_of(Sockets(Some(zones)));
    time::sleep(Duration::from_millis(10)).await;
    let record = store.get(RecordKind::Node, &a.name()).await.unwrap().unwrap();
    assert!(record.len() <= RECORD_BYTES_MAX, "{}", record.len());
    let b = Node::on(&store, reader, "paper");
    let view = b.fleet.view().await;
    let node = view.nodes.iter().find(|node| node.node == a.name()).unwrap();
    assert_eq!((node.zones.len(), node.zones_left_out), (64, 9_936));
}
