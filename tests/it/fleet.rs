//! Nodes that share a Redis, and how each lists all of them.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::time::{Duration, Instant};
use zonewire_protocol::stats::{FleetView, NodeState, NodesKnown};

use crate::support::client::Client;
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Running, config, request, until_stat};
use crate::support::process::Process;
use crate::support::program::{run, zonewire};
use crate::support::redis::{Admin, cluster, on, redis, zone_of_each};

const RECORDS: &str = "zw:r:{node}";

async fn fleet(address: SocketAddr) -> FleetView {
    request(address, "GET", "/ws/stats?scope=fleet", &[], b"").await.read()
}

/// Waits until a node lists this many nodes.
async fn until_nodes(address: SocketAddr, count: u64) -> FleetView {
    eventually(&format!("{count} nodes"), async || {
        let view = fleet(address).await;
        (view.nodes_known.is(NodesKnown::All) && view.totals.nodes == count).then_some(view)
    })
    .await
}

async fn name_of(address: SocketAddr) -> String {
    let stats: Value = request(address, "GET", "/ws/stats", &[], b"").await.json();
    stats["node"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_lists_all_nodes_until_they_end() {
    let Some(server) = redis(&[]).await else { return };
    let start = async || Process::start_on(&server, &["http.drain_s=0"]).await;
    let (a, mut killed, mut stopped) = (start().await, start().await, start().await);
    let _client = Client::connect(&format!("ws://{}/ws/market/pjm", killed.address)).await;
    for process in [&a, &killed, &stopped] {
        let view = until_nodes(process.address, 3).await;
        let name = name_of(process.address).await;
        let here: Vec<&str> =
            view.nodes.iter().filter(|node| node.here).map(|node| node.node.as_str()).collect();
        assert_eq!((here, view.note), (vec![name.as_str()], None));
        assert!(view.nodes.windows(2).all(|two| two[0].started_at <= two[1].started_at));
    }
    let name = name_of(killed.address).await;
    eventually("its client is counted elsewhere", async || {
        let view = fleet(a.address).await;
        let node = view.nodes.iter().find(|node| node.node == name)?;
        let zones = node.zones.iter().any(|zone| zone.zone == "pjm" && zone.connections == 1);
        (node.connections == 1 && zones && view.totals.connections == 1).then_some(())
    })
    .await;
    let shown = run(&mut zonewire(&["stats", "--fleet", "--url", &format!("http://{}", a.address)])).await;
    assert_eq!((shown.code, shown.stdout.lines().count()), (Some(0), 4), "{shown:?}");
    assert!(shown.stdout.contains("pjm 1") && shown.stdout.contains("answers"), "{shown:?}");

    // A node that stops in order says so, and disappears with its process.
    let name = name_of(stopped.address).await;
    assert!(stopped.terminate().await.success());
    assert_eq!(server.admin(&["HEXISTS", RECORDS, &name]).await, "0");
    until_nodes(a.address, 2).await;

    // A node that is killed cannot: its last record expires.
    let killed_at = Instant::now();
    killed.kill().await;
    until_nodes(a.address, 1).await;
    // The promise is five seconds; the rest is for a busy machine.
    assert!(killed_at.elapsed() < Duration::from_secs(10), "{:?}", killed_at.elapsed());
    until("metrics know, too", async || {
        let metrics = request(a.address, "GET", "/metrics", &[], b"").await.body;
        metrics.contains("zonewire_fleet_nodes{state=\"serving\"} 1\n")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_redis_lists_only_itself_until_redis_is_back() {
    let Some(mut server) = redis(&[]).await else { return };
    let mut patient = on(&server);
    // Its clients may take their time to leave.
    patient.connections.close_grace_ms = 20_000;
    let (mut a, b) = (Running::start(patient).await, Running::start(on(&server)).await);
    until_nodes(a.address, 2).await;
    server.kill().await.unwrap();
    let view = eventually("it is said", async || {
        let view = fleet(a.address).await;
        view.nodes_known.is(NodesKnown::ThisOne).then_some(view)
    })
    .await;
    assert_eq!((view.nodes.len(), view.nodes[0].here), (1, true));
    assert!(view.nodes[0].state.is(NodeState::Degraded), "{view:?}");
    let note = view.note.unwrap();
    assert!(note.starts_with("Redis ") && note.ends_with("other nodes are unknown here"), "{note}");
    until_stat(&a, "/fleet/untold", 2).await;
    assert_eq!(a.stats().await["outage"]["records_let_go"], 0);

    server.restart().await.unwrap();
    for gateway in [&a, &b] {
        until_nodes(gateway.address, 2).await;
    }
    until("nothing is to be said any more", async || fleet(a.address).await.note.is_none()).await;

    // While it waits for its clients to leave, others see that it is draining.
    let client = a.connect("/ws/market/pjm").await;
    a.begin_stop();
    until("it drains", async || {
        let view = fleet(b.address).await;
        view.nodes.iter().any(|node| node.state.is(NodeState::Draining))
    })
    .await;
    drop(client);
    a.stop().await;
    until_nodes(b.address, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_nodes_are_listed_while_the_primary_of_their_records_serves() {
    let Some(mut cluster) = cluster(0, &["--cluster-require-full-coverage", "no"]).await else { return };
    let (a, _b) = (Running::start(on(&cluster)).await, Running::start(on(&cluster)).await);
    until_nodes(a.address, 2).await;
    let owner = cluster.owner(RECORDS).await.unwrap();
    let zone = &zone_of_each(&cluster).await[(owner + 1) % 3];
    cluster.nodes[owner].kill().await.unwrap();
    let view = eventually("others are not known", async || {
        let view = fleet(a.address).await;
        view.nodes_known.is(NodesKnown::ThisOne).then_some(view)
    })
    .await;
    assert_eq!(view.note.unwrap(), "Redis is away: other nodes are unknown here");
    // The other primaries serve meanwhile.
    a.publish(zone, [crate::support::gateway::price("A", 1)]).await;
    cluster.nodes[owner].restart().await.unwrap();
    until_nodes(a.address, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_in_memory_lists_itself() {
    let gateway = Running::start(config()).await;
    let (_client, _) = gateway.market("pjm").await;
    let view = eventually("its client is counted", async || {
        let view = fleet(gateway.address).await;
        (view.nodes[0].zones.len() == 1).then_some(view)
    })
    .await;
    assert_eq!((view.totals.nodes, view.totals.connections), (1, 1));
    assert!(view.nodes_known.is(NodesKnown::ThisOne) && view.note.is_some());
    gateway.get("/ws/stats?scope=").await.problem(400, "invalid_query");
    let url = format!("http://{}", gateway.address);
    let shown = run(&mut zonewire(&["stats", "--fleet", "--json", "--url", &url])).await.json_lines();
    assert_eq!(shown[0]["nodes"][0]["here"], true, "{shown:?}");
}
