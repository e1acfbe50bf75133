//! Orders while Redis is away, and once it is back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use zonewire::config::{Config, Role};
use zonewire::model::{Lane, NodeId, OrderId};
use zonewire::orders::WhenDegraded;
use zonewire::storage::{
    Cancelling, Ending, Enqueued, Held, JobBounds, JobState, NewJob, Retention, SharedBackend, StorageChoice,
    StorageConfig, StorageError, open,
};
use zonewire_kit::proxy::Proxy;
use zonewire_kit::redis::{DURABLE, RedisServer};

use crate::jobs_contract::{job, keyed};
use crate::support::eventually::{eventually, until};
use crate::support::gateway::{Answer, Running, until_stat, until_state};
use crate::support::orders::{
    check_whole, get_order, new_order, paper, place, place_under, post_json, swap, types, until_status,
    update,
};
use crate::support::redis::{Configured, redis};
use crate::support::stores::connect;

/// A Redis that still has everything acknowledged after it was killed.
async fn durable() -> Option<RedisServer> {
    redis(&DURABLE).await
}

fn storage(server: &RedisServer) -> StorageConfig {
    let mut config =
        StorageConfig { backend: StorageChoice::Redis, required: true, ..StorageConfig::default() };
    config.redis = server.config();
    config
}

fn on(server: &RedisServer, when_degraded: WhenDegraded) -> Config {
    let mut config = paper();
    config.storage = storage(server);
    config.orders.when_degraded = when_degraded;
    config
}

async fn get(gateway: &Running, id: &str) -> Answer {
    gateway.get(&format!("/api/orders/{id}")).await
}

/// Waits until a node shows an order with this status, following redirects.
async fn until_shown(gateway: &Running, id: &str, status: &str) -> Value {
    eventually(&format!("order {id} is shown as {status}"), async || {
        let answer = get(gateway, id).await;
        (answer.status == 200).then(|| answer.json()).filter(|order| order["status"] == status)
    })
    .await
}

// Gateways

#[tokio::test(flavor = "multi_thread")]
async fn an_order_accepted_in_an_outage_is_executed_there_and_known_to_all_afterwards() {
    let Some(mut server) = durable().await else { return };
    let config = on(&server, WhenDegraded::Accept);
    let (a, b) = (Running::start(config.clone()).await, Running::start(config).await);
    let before = place_under(a.address, "before", &swap()).await.json()["orderId"].clone();
    server.kill().await.unwrap();
    until_state(a.address, "degraded").await;
    until_state(b.address, "degraded").await;

    let again = place_under(a.address, "before", &swap()).await;
    assert_eq!((again.status, &again.json()["orderId"]), (202, &before), "this node has seen the key");
    assert!(again.head.contains("idempotency-replayed: true"), "{again:?}");
    let id = place(a.address).await;
    let order = until_status(a.address, &id, "confirmed").await;
    assert_eq!((&order["degraded"], &order["gap"]), (&json!(true), &json!(0)), "{order}");
    check_whole(order["updates"].as_array().unwrap(), "confirmed");
    // No other node can have published updates of it, so its socket reports it complete, and ends during the
    // outage.
    let (mut client, subscribed) = a.subscribed(&format!("/ws/orders/{id}")).await;
    assert_eq!((&subscribed["recovered"], &subscribed["gap"]), (&json!(true), &json!(0)), "{subscribed}");
    let (told, code, _) = client.until_close().await;
    assert_eq!((told.iter().filter(|update| update["type"] == "confirmed").count(), code), (1, 1000));

    server.restart().await.unwrap();
    until_state(a.address, "healthy").await;
    until_state(b.address, "healthy").await;
    for gateway in [&a, &b] {
        let order = until_shown(gateway, &id, "confirmed").await;
        let updates = order["updates"].as_array().unwrap();
        check_whole(updates, "confirmed");
        assert!(updates.iter().all(|update| update["run"] == 1), "executed once: {order}");
        assert_eq!((&order["jobId"], &order["run"], order.get("degraded")), (&json!(id), &json!(1), None));
        until_shown(gateway, before.as_str().unwrap(), "confirmed").await;
    }
    // A job is counted after Redis has it.
    assert_eq!(until_stat(&a, "/outage/jobs_recorded", 1).await, 1);
    assert_eq!(a.stats().await["outage"]["jobs_taken"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_no_order_is_accepted_in_an_outage_and_known_ones_are_shown() {
    let Some(mut server) = durable().await else { return };
    let gateway = Running::start(on(&server, WhenDegraded::Reject)).await;
    let id = place(gateway.address).await;
    let before = until_status(gateway.address, &id, "confirmed").await;
    server.kill().await.unwrap();
    until_state(gateway.address, "degraded").await;
    post_json(gateway.address, "/api/orders/execute", &swap()).await.problem(503, "storage_degraded");
    let known = get_order(gateway.address, &id).await;
    assert_eq!((&known["status"], &known["degraded"]), (&json!("confirmed"), &json!(true)));
    assert_eq!(types(&known), types(&before));
    get(&gateway, &new_order()).await.problem(503, "unknown_while_degraded");
    server.restart().await.unwrap();
    until_state(gateway.address, "healthy").await;
    get(&gateway, &new_order()).await.problem(404, "unknown_order");
    let id = place(gateway.address).await;
    until_status(gateway.address, &id, "confirmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_in_progress_continues_and_is_submitted_once_redis_is_back() {
    let Some(mut server) = durable().await else { return };
    let mut config = on(&server, WhenDegraded::Reject);
    config.orders.paper.step_ms = 400;
    let (a, mut other) = (Running::start(config.clone()).await, config);
    other.node.roles = vec![Role::Gateway];
    let b = Running::start(other).await;
    let id = place(a.address).await;
    until_status(a.address, &id, "routing").await;
    server.kill().await.unwrap();
    until_state(a.address, "degraded").await;
    // It proceeds as far as it may without shared state.
    let order = until_status(a.address, &id, "building").await;
    assert_eq!(order["degraded"], true, "{order}");
    server.restart().await.unwrap();
    until_state(a.address, "healthy").await;
    for gateway in [&a, &b] {
        let order = until_shown(gateway, &id, "confirmed").await;
        let updates = order["updates"].as_array().unwrap();
        check_whole(updates, "confirmed");
        assert!(updates.iter().all(|update| update["run"] == 1 && update["attempt"] == 1), "{order}");
    }
    until("its job has ended", async || {
        let jobs = b.stats().await["orders"]["jobs"].clone();
        jobs["done"] == 1 && jobs["claimed"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_updates_are_accepted_in_an_outage() {
    let Some(mut server) = durable().await else { return };
    let config = on(&server, WhenDegraded::Reject);
    let kept = config.storage.retention.orders.updates;
    let (a, b) = (Running::start(config.clone()).await, Running::start(config).await);
    // Some producers number their runs too.
    let step = |progress: u32| json!({ "type": "routing", "progress": progress, "run": 1 });
    let (known, fresh, busy, ours) = (new_order(), new_order(), new_order(), place(a.address).await);
    until_status(a.address, &ours, "confirmed").await;
    update(a.address, &known, step(10)).await;
    server.kill().await.unwrap();
    until_state(a.address, "degraded").await;
    update(a.address, &known, step(15)).await;
    update(a.address, &fresh, step(10)).await;
    update(a.address, &known, step(20)).await;
    for _ in 0..kept + 3 {
        update(a.address, &busy, json!({ "type": "routing", "progress": 10 })).await;
    }
    let late = post_json(a.address, &format!("/api/orders/{ours}/updates"), &step(30)).await;
    late.problem(409, "has_job");
    get(&b, &known).await.problem(503, "unknown_while_degraded");
    server.restart().await.unwrap();
    for gateway in [&a, &b] {
        until_state(gateway.address, "healthy").await;
        let progress = async |id: &str| {
            let order = get(gateway, id).await.json();
            let updates = order["updates"].as_array().cloned().unwrap_or_default();
            updates.iter().map(|update| update["progress"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        until("all updates are there", async || {
            progress(&known).await == [10, 15, 20] && progress(&fresh).await == [10]
        })
        .await;
    }
    let mut watcher = b.connect(&format!("/ws/orders/{busy}")).await;
    for index in 0..kept {
        let update = watcher.next_of_type("routing").await;
        assert_eq!(update["late"], true, "{update}");
        let expected = if index == 0 { json!(true) } else { Value::Null };
        assert_eq!(
            update["missedBefore"], expected,
            "the oldest were dropped, which is reported once: {update}"
        );
    }
    update(b.address, &known, json!({ "type": "confirmed", "progress": 100 })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_only_the_worker_role_waits_for_redis_and_continues() {
    let Some(mut server) = durable().await else { return };
    let mut config = on(&server, WhenDegraded::Reject);
    config.node.roles = vec![Role::Worker];
    let worker = Running::start(config.clone()).await;
    config.node.roles = vec![Role::Gateway];
    let gateway = Running::start(config).await;
    server.kill().await.unwrap();
    until_state(worker.address, "degraded").await;
    until_state(gateway.address, "degraded").await;
    server.restart().await.unwrap();
    until_state(worker.address, "healthy").await;
    until_state(gateway.address, "healthy").await;
    let id = place(gateway.address).await;
    until_status(gateway.address, &id, "confirmed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_worker_queues_orders_for_those_with_one() {
    let Some(mut server) = durable().await else { return };
    let mut config = on(&server, WhenDegraded::Accept);
    config.node.roles = vec![Role::Worker];
    let _worker = Running::start(config.clone()).await;
    config.node.roles = vec![Role::Gateway];
    let gateway = Running::start(config).await;
    server.kill().await.unwrap();
    until_state(gateway.address, "degraded").await;
    let id = place(gateway.address).await;
    assert_eq!(get_order(gateway.address, &id).await["status"], "pending");
    server.restart().await.unwrap();
    check_whole(until_shown(&gateway, &id, "confirmed").await["updates"].as_array().unwrap(), "confirmed");
}

// The storage

const BOUNDS: JobBounds = JobBounds { unfinished: 100, kept: 1_000, kept_for: Duration::from_secs(3_600) };
const LEASE: Duration = Duration::from_secs(60);

/// Nodes with a switching storage.
struct Nodes {
    server: RedisServer,
    drivers: JoinSet<()>,
}

impl Nodes {
    async fn new() -> Option<Self> {
        Some(Self { server: durable().await?, drivers: JoinSet::new() })
    }

    async fn open(&mut self) -> SharedBackend {
        let config = storage(&self.server);
        let opened = eventually("redis lets us in", async || {
            open(&config, NodeId::random(), Arc::new(|_| Lane::Every)).await.ok()
        })
        .await;
        self.drivers.spawn(opened.driver);
        opened.backend
    }
}

async fn until_away(nodes: &[&SharedBackend]) {
    for node in nodes {
        until("redis is missed", async || node.is_degraded()).await;
    }
}

async fn until_back(nodes: &[&SharedBackend]) {
    for node in nodes {
        until("redis is back", async || !node.is_degraded()).await;
    }
}

/// Claims jobs from all nodes until `count` were claimed; none may be claimed twice.
async fn claim_all(nodes: &[&SharedBackend], count: usize) -> Vec<zonewire::storage::JobView> {
    let mut claimed: Vec<zonewire::storage::JobView> = Vec::new();
    eventually("all jobs are claimed", async || {
        for node in nodes {
            claimed.extend(node.claim("paper", 10, LEASE).await.unwrap_or_default());
        }
        (claimed.len() >= count).then_some(())
    })
    .await;
    let mut ids: Vec<_> = claimed.iter().map(|job| job.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), claimed.len()), (count, count), "no job is claimed twice");
    claimed
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_moved_to_redis_in_their_current_state() {
    let Some(mut nodes) = Nodes::new().await else { return };
    let (a, b) = (nodes.open().await, nodes.open().await);
    let shared = job("shared");
    assert_eq!(a.enqueue(&shared, &BOUNDS).await.unwrap(), Enqueued::Queued);
    nodes.server.kill().await.unwrap();
    until_away(&[&a, &b]).await;

    let refused = a.enqueue(&job("refused"), &BOUNDS).await;
    assert!(matches!(refused, Err(StorageError::Unreachable { .. })), "{refused:?}");
    let jobs: Vec<NewJob> =
        ["runs", "done", "dead", "delayed", "waits", "cancelled"].iter().map(|name| job(name)).collect();
    for job in &jobs {
        assert_eq!(a.enqueue_here(job, &BOUNDS).await.unwrap(), Enqueued::Queued);
        assert_eq!(a.enqueue_here(job, &BOUNDS).await.unwrap(), Enqueued::Repeated(job.id));
    }
    assert_eq!(b.claim("paper", 10, LEASE).await.unwrap(), [], "they belong to another node");
    let claimed = a.claim("paper", 4, LEASE).await.unwrap();
    let names: Vec<_> = claimed.iter().map(|job| job.payload.clone()).collect();
    assert_eq!(names, ["runs", "done", "dead", "delayed"], "and those in Redis belong to nobody");
    let [runs, done, dead, delayed] = claimed.as_slice() else { panic!("{claimed:?}") };
    assert_eq!(a.commit(runs.id, runs.token, LEASE).await.unwrap(), Held::Yes);
    assert_eq!(a.finish(done.id, done.token, &Ending::Done).await.unwrap(), Held::Yes);
    let ending = Ending::Dead { error: "in\nvain".to_owned() };
    assert_eq!(a.finish(dead.id, dead.token, &ending).await.unwrap(), Held::Yes);
    let ending = Ending::Retry { after: Duration::ZERO, attempt: None };
    assert_eq!(a.finish(delayed.id, delayed.token, &ending).await.unwrap(), Held::Yes);
    assert_eq!(a.cancel(jobs[5].id).await.unwrap(), Cancelling::Asked);
    assert!(matches!(a.cancel(shared.id).await, Err(StorageError::Unreachable { .. })));
    assert_eq!(a.job(shared.id).await.unwrap().unwrap().state, JobState::Waiting, "as it was seen last");
    let unknown = b.job(runs.id).await;
    assert!(matches!(unknown, Err(StorageError::Unknown { .. })), "{unknown:?}");
    let counts = a.job_counts().await.unwrap();
    assert_eq!((counts.waiting, counts.delayed, counts.claimed), (4, 0, 1), "{counts:?}");
    assert_eq!((counts.done, counts.dead), (1, 1), "{counts:?}");
    assert_eq!(a.list_jobs(None, None, 100).await.unwrap().len(), 7);

    nodes.server.restart().await.unwrap();
    until_back(&[&a, &b]).await;
    let mut views = Vec::new();
    for job in &jobs {
        let view = eventually("redis has the job", async || b.job(job.id).await.ok().flatten()).await;
        assert_eq!(view.payload, job.payload);
        views.push(view);
    }
    let stands: Vec<_> =
        views.iter().map(|view| (view.state, view.run, view.committed, view.cancelled)).collect();
    assert_eq!(stands[0], (JobState::Claimed, 1, true, false));
    assert_eq!(stands[1], (JobState::Done, 1, false, false));
    assert_eq!(stands[2], (JobState::Dead, 1, false, false));
    assert_eq!(views[2].error.as_deref(), Some("in\nvain"));
    assert_eq!(views[0].token, runs.token);
    let mine = eventually("this node agrees", async || a.extend(runs.id, runs.token, LEASE).await.ok()).await;
    assert_eq!(mine, Held::Yes, "its worker continues under the same token");

    let claimed = claim_all(&[&a, &b], 4).await;
    let first = &claimed[0];
    assert!((first.payload == "cancelled") && first.cancelled, "{first:?}");
    let mut names: Vec<_> = claimed.iter().map(|job| job.payload.clone()).collect();
    names.sort_unstable();
    assert_eq!(names, ["cancelled", "delayed", "shared", "waits"]);
    assert!(claimed.iter().all(|job| job.token > delayed.token), "tokens only grow");
    let again = claimed.iter().find(|job| job.id == delayed.id).unwrap();
    assert_eq!(again.run, 2);
    assert_eq!(a.finish(runs.id, runs.token, &Ending::Done).await.unwrap(), Held::Yes);
    assert_eq!(b.job(runs.id).await.unwrap().unwrap().state, JobState::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_on_two_sides_is_reported_and_the_repetition_cancelled() {
    let Some(mut nodes) = Nodes::new().await else { return };
    let (a, b) = (nodes.open().await, nodes.open().await);
    let known = keyed("known", "1");
    a.enqueue(&known, &BOUNDS).await.unwrap();
    let elsewhere = keyed("elsewhere", "1");
    b.enqueue(&elsewhere, &BOUNDS).await.unwrap();
    nodes.server.kill().await.unwrap();
    until_away(&[&a, &b]).await;
    assert_eq!(a.enqueue_here(&keyed("known", "1"), &BOUNDS).await.unwrap(), Enqueued::Repeated(known.id));
    assert_eq!(a.enqueue_here(&keyed("known", "2"), &BOUNDS).await.unwrap(), Enqueued::Conflict);
    let (twice, other, fresh) = (keyed("elsewhere", "1"), keyed("elsewhere-2", "1"), keyed("fresh", "1"));
    for job in [&twice, &other, &fresh] {
        assert_eq!(a.enqueue_here(job, &BOUNDS).await.unwrap(), Enqueued::Queued);
    }
    assert_eq!(a.enqueue_here(&keyed("fresh", "1"), &BOUNDS).await.unwrap(), Enqueued::Repeated(fresh.id));
    nodes.server.restart().await.unwrap();
    until_back(&[&a, &b]).await;
    let repeated = eventually("the key is known elsewhere", async || {
        let view = b.job(fresh.id).await.ok().flatten();
        view.and(b.enqueue(&keyed("fresh", "1"), &BOUNDS).await.ok())
    })
    .await;
    assert_eq!(repeated, Enqueued::Repeated(fresh.id));
    let view = eventually("the repetition is known", async || b.job(twice.id).await.ok().flatten()).await;
    assert!(view.cancelled, "nobody had started it, and the same order exists: {view:?}");
    assert_eq!(a.enqueue(&keyed("elsewhere", "1"), &BOUNDS).await.unwrap(), Enqueued::Repeated(elsewhere.id));
    let claimed = claim_all(&[&a, &b], 5).await;
    let cancelled: Vec<_> = claimed.iter().filter(|job| job.cancelled).map(|job| job.id).collect();
    assert_eq!(cancelled, [twice.id]);
}

/// A store beside the gateways, and a job that it can queue.
async fn store_and_job(server: &RedisServer, runs: &mut JoinSet<()>) -> (SharedBackend, NewJob) {
    let (store, driver) = connect(&server.patient_config(), &Retention::default()).await;
    runs.spawn(driver);
    let id = OrderId::random().into();
    (Arc::new(store), NewJob { id, payload: swap().to_string().into(), kind: None, idempotency: None })
}

fn some_jobs() -> JobBounds {
    JobBounds { unfinished: 10, kept: 20, kept_for: Duration::from_secs(3_600) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_an_unanswered_claim_does_not_wait_for_its_lease() {
    let Some(server) = redis(&[]).await else { return };
    let proxy = Proxy::start(server.target.address).await.unwrap();
    let mut config = on(&server, WhenDegraded::Reject);
    config.storage.redis.port = Some(proxy.address.port());
    // Longer than the test.
    config.orders.lease_s = 3_600;
    let gateway = Running::start(config).await;
    until_state(gateway.address, "healthy").await;
    let mut runs = JoinSet::new();
    let (store, job) = store_and_job(&server, &mut runs).await;

    proxy.lose_reply(job.id.to_string().as_bytes());
    assert_eq!(store.enqueue(&job, &some_jobs()).await.unwrap(), Enqueued::Queued);
    let order = until_shown(&gateway, &job.id.to_string(), "confirmed").await;
    assert!(proxy.has_lost_reply(), "it was claimed before");
    let updates = order["updates"].as_array().unwrap();
    check_whole(updates, "confirmed");
    assert!(updates.iter().all(|update| update["attempt"] == 1), "no attempt was used up: {order}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_an_unanswered_claim_are_available_once_the_claimant_is_back() {
    let Some(server) = redis(&[]).await else { return };
    let proxy = Proxy::start(server.target.address).await.unwrap();
    let mut config = server.patient_config();
    config.port = Some(proxy.address.port());
    let (claimant, driver) = connect(&config, &Retention::default()).await;
    let (claimant, mut runs): (SharedBackend, _) = (Arc::new(claimant), JoinSet::new());
    runs.spawn(driver);
    let (store, job) = store_and_job(&server, &mut runs).await;
    let lease = Duration::from_secs(3_600);
    assert_eq!(store.enqueue(&job, &some_jobs()).await.unwrap(), Enqueued::Queued);

    proxy.lose_reply(job.id.to_string().as_bytes());
    claimant.claim("paper", 1, lease).await.unwrap_err();
    let held = store.job(job.id).await.unwrap().unwrap();
    assert_eq!((held.state, held.run), (JobState::Claimed, 1));
    assert_eq!(store.claim("paper", 1, lease).await.unwrap(), [], "others cannot know that nobody has it");
    // For another kind of worker, but for the same process.
    let other = NewJob { id: OrderId::random().into(), kind: Some("other".into()), ..job.clone() };
    assert_eq!(store.enqueue(&other, &some_jobs()).await.unwrap(), Enqueued::Queued);
    let claimed = eventually("redis lets it in again", async || {
        claimant.claim("nobody's", 1, lease).await.ok().filter(|claimed| !claimed.is_empty())
    })
    .await;
    let [again] = claimed.as_slice() else { panic!("{claimed:?}") };
    assert_eq!(
        (again.id, again.run, again.cancelled),
        (job.id, 1, false),
        "as if it had not been claimed before"
    );
    assert!(again.token > held.token, "under a token of its own");
    assert_eq!(store.extend(job.id, held.token, lease).await.unwrap(), Held::Lost);
    assert_eq!(store.finish(job.id, again.token, &Ending::Done).await.unwrap(), Held::Yes);
    // A claim that was answered stays in effect.
    let known = claimant.claim("other", 1, lease).await.unwrap().remove(0);
    assert_eq!(claimant.claim("other", 1, lease).await.unwrap(), []);
    assert_eq!(store.extend(known.id, known.token, lease).await.unwrap(), Held::Yes);
}
