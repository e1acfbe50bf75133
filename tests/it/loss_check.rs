//! Is any update of any order lost, doubled or reordered? Several producers report on orders through two
//! nodes, while watchers come before, during and after, leave and return at random, at either node, and read
//! slowly.
//!
//! `just loss-check` runs it with a thousand orders of twenty updates.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::{self, JoinSet};
use uuid::Uuid;
use zonewire::config::Config;

use crate::support::client::{Came, Client, assert_has};
use crate::support::gateway::{Running, config};
use crate::support::orders::post_json;
use crate::support::redis::{Configured, on, redis};

/// How many orders the run has; without it, a short run.
const ORDERS: &str = "ZONEWIRE_LOSS_CHECK_ORDERS";

/// What a watcher received, over all its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The update with this number, from 1.
    Update(u64),
    /// A report that updates are missing here; how many, if known.
    Gap(Option<u64>),
}

/// What is wrong with what a watcher received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Updates are missing that were not reported missing.
    Lost { after: u64, before: u64 },
    /// The update arrived again.
    Doubled(u64),
    /// The update arrived after a later one.
    Reordered(u64),
}

/// Finds faults: updates 1 to `last` must all have arrived, once, in order, except for those reported
/// missing.
fn faults(told: &[Told], last: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut seen = vec![false; usize::try_from(last).unwrap() + 2];
    // The highest number so far, and how many may be missing after it.
    let (mut highest, mut excused) = (0, Some(0));
    for told in told.iter().copied().chain([Told::Update(last + 1)]) {
        match told {
            Told::Gap(missing) => excused = excused.zip(missing).map(|(a, b)| a + b),
            Told::Update(n) if seen[usize::try_from(n).unwrap()] => faults.push(Fault::Doubled(n)),
            Told::Update(n) => {
                seen[usize::try_from(n).unwrap()] = true;
                if n < highest {
                    faults.push(Fault::Reordered(n));
                    continue;
                }
                let missing = n - highest - 1;
                if excused.is_some_and(|excused| missing > excused) {
                    faults.push(Fault::Lost { after: highest, before: n });
                }
                (highest, excused) = (n, Some(0));
            }
        }
    }
    faults
}

#[test]
fn the_checker_finds_what_a_bad_sink_does() {
    let good: Vec<Told> = (1..=20).map(Told::Update).collect();
    assert_eq!(faults(&good, 20), []);
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let at = random.random_range(0..20_usize);
        let n = at as u64 + 1;

        let mut losing = good.clone();
        losing.remove(at);
        assert_eq!(faults(&losing, 20), [Fault::Lost { after: n - 1, before: n + 1 }], "seed {seed}");

        let mut doubling = good.clone();
        doubling.insert(random.random_range(at + 1..=20), Told::Update(n));
        assert_eq!(faults(&doubling, 20), [Fault::Doubled(n)], "seed {seed}");

        let mut reordering = good.clone();
        let at = random.random_range(0..19_usize);
        reordering.swap(at, at + 1);
        assert!(faults(&reordering, 20).contains(&Fault::Reordered(at as u64 + 1)), "seed {seed}");

        // A loss that is reported is not a fault; one that is under-reported is.
        let (from, to) = (random.random_range(0..10_usize), random.random_range(11..=20_usize));
        let missing = (to - from) as u64;
        let with = |gap: Option<u64>| {
            let mut told = good.clone();
            told.splice(from..to, [Told::Gap(gap)]);
            faults(&told, 20)
        };
        assert_eq!(with(Some(missing)), []);
        assert_eq!(with(None), []);
        assert_eq!(with(Some(missing - 1)), [Fault::Lost { after: from as u64, before: to as u64 + 1 }]);
    }
    assert_eq!(faults(&[], 3), [Fault::Lost { after: 0, before: 4 }]);
    // A gap excuses what is missing there, and nowhere else.
    let told = [Told::Gap(Some(1)), Told::Update(2), Told::Update(4)];
    assert_eq!(faults(&told, 4), [Fault::Lost { after: 2, before: 4 }]);
}

/// The `n`th update of `count`.
fn update(n: u64, count: u64) -> Value {
    if n == count {
        return json!({ "type": "confirmed", "txHash": "0x1", "n": n });
    }
    let (kind, progress) = match n * 4 / count {
        0 => ("routing", 10),
        1 => ("building", 50),
        _ => ("submitted", 75),
    };
    json!({ "type": kind, "progress": progress, "n": n })
}

/// When a watcher connects.
#[derive(Debug, Clone, Copy)]
enum When {
    Before,
    During,
    After,
}

/// One order of a run.
#[derive(Clone)]
struct Order {
    id: String,
    count: u64,
    /// How many of its updates have been accepted.
    accepted: watch::Receiver<u64>,
}

/// Follows an order to its end, and returns what it received.
async fn watch_order(order: Order, nodes: Arc<[SocketAddr]>, when: When, seed: u64) -> Vec<Told> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut accepted = order.accepted.clone();
    let come_at = match when {
        When::Before => 0,
        When::During => random.random_range(1..order.count),
        When::After => order.count,
    };
    accepted.wait_for(|accepted| *accepted >= come_at).await.unwrap();
    let mut told = Vec::new();
    let mut since: Option<(String, u64)> = None;
    loop {
        let node = nodes[random.random_range(0..nodes.len())];
        let mut url = format!("ws://{node}/ws/orders/{}", order.id);
        if let Some((epoch, offset)) = &since {
            url += &format!("?since={epoch}:{offset}");
        }
        // Every second one has hardly any buffer in its kernel.
        let mut client = if random.random_bool(0.5) {
            Client::connect(&url).await
        } else {
            Client::connect_small(&url).await
        };
        // Leaves after a few messages, or stays.
        let mut left = if random.random_bool(0.7) { random.random_range(1..12) } else { usize::MAX };
        while left > 0 {
            left -= 1;
            for _ in 0..random.random_range(0..20) {
                task::yield_now().await;
            }
            let text = match client.came().await {
                Came::Text(text) => text,
                Came::Ping => continue,
                Came::Close(1000, _) => return told,
                // Too slow: it reconnects where it stopped.
                Came::Close(4001, _) => break,
                other => panic!("{other:?} from {url}"),
            };
            let message: Value = serde_json::from_str(&text).unwrap();
            match message["type"].as_str().unwrap() {
                "connection" | "heartbeat" | "backend_state" | "closing" => {}
                "subscribed" | "resync" => {
                    let gap = message["gap"].as_u64();
                    if gap != Some(0) {
                        told.push(Told::Gap(gap));
                    }
                    let epoch = message["epoch"].as_str().unwrap().to_owned();
                    since = Some((epoch, message["offset"].as_u64().unwrap()));
                }
                "routing" | "building" | "submitted" | "confirmed" => {
                    told.push(Told::Update(message["n"].as_u64().unwrap()));
                    since.as_mut().unwrap().1 = message["offset"].as_u64().unwrap();
                }
                other => panic!("{other} from {url}: {message}"),
            }
        }
        if random.random_bool(0.5) {
            client.close().await;
        }
    }
}

/// Reports on an order, each update at a random node, in one or several calls.
async fn produce(
    order: String,
    count: u64,
    nodes: Arc<[SocketAddr]>,
    accepted: watch::Sender<u64>,
    seed: u64,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let path = format!("/api/orders/{order}/updates");
    let mut next = 1;
    while next <= count {
        let together = random.random_range(1..=3).min(count - next + 1);
        let updates: Vec<Value> = (next..next + together).map(|n| update(n, count)).collect();
        let node = nodes[random.random_range(0..nodes.len())];
        let answer = post_json(node, &path, &json!(updates)).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "accepted": together })), "{order}");
        next += together;
        accepted.send_replace(next - 1);
    }
}

/// Runs `orders` orders of `count` updates, each with `watchers` of each kind, so many at a time. Returns how
/// many updates the watchers received, and all faults.
async fn run(
    nodes: Arc<[SocketAddr]>,
    orders: usize,
    count: u64,
    at_once: usize,
    seed: u64,
) -> (u64, Vec<String>) {
    let places = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    for index in 0..orders {
        let (nodes, places) = (Arc::clone(&nodes), Arc::clone(&places));
        running.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let id = Uuid::new_v4().to_string();
            let (accepted, progress) = watch::channel(0);
            let order = Order { id: id.clone(), count, accepted: progress };
            let mut watchers = JoinSet::new();
            for (place, when) in
                [When::Before, When::Before, When::During, When::During, When::After].into_iter().enumerate()
            {
                let seed = seed + (index * 10 + place) as u64;
                watchers.spawn(watch_order(order.clone(), Arc::clone(&nodes), when, seed));
            }
            produce(id.clone(), count, nodes, accepted, seed + (index * 10 + 9) as u64).await;
            let told = watchers.join_all().await;
            let faulty = told.iter().filter_map(|told| {
                let found = faults(told, count);
                (!found.is_empty()).then(|| format!("order {id}: {found:?} in {told:?}"))
            });
            let updates = told.iter().flatten().filter(|told| matches!(told, Told::Update(_))).count();
            (updates as u64, faulty.collect::<Vec<_>>())
        });
    }
    let mut total = (0, Vec::new());
    while let Some(ended) = running.join_next().await {
        let (updates, faulty) = ended.unwrap();
        total.0 += updates;
        total.1.extend(faulty);
    }
    total
}

fn prepared(mut config: Config) -> Config {
    config.connections.order_linger_ms = 0;
    // Each request uses a new connection.
    config.connections.per_loopback_address_max = 20_000;
    config
}

async fn check(nodes: &[&Running], name: &str) {
    let orders: usize = std::env::var(ORDERS).map_or(40, |orders| orders.parse().unwrap());
    let addresses: Arc<[SocketAddr]> = nodes.iter().map(|node| node.address).collect();
    let seed = rand::random_range(0..1_000_000);
    println!("{name}: seed {seed}");
    let (updates, faulty) = run(addresses, orders, 20, 50, seed).await;
    println!(
        "{name}: {orders} orders x 20 updates, 5 watchers each: {updates} told, {} faults",
        faulty.len()
    );
    assert!(faulty.is_empty(), "seed {seed}: {faulty:#?}");
    assert_eq!(updates, orders as u64 * 20 * 5, "every watcher stayed within the window");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_reordered_on_memory() {
    let gateway = Running::start(prepared(config())).await;
    check(&[&gateway], "memory, one node").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_reordered_on_redis_with_two_nodes() {
    let Some(server) = redis(&[]).await else { return };
    let mut on_redis = prepared(on(&server));
    on_redis.storage.redis = server.patient_config();
    let (a, b) = (Running::start(on_redis.clone()).await, Running::start(on_redis).await);
    check(&[&a, &b], "redis, two nodes").await;
}

/// What a late watcher receives when 50 updates are stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_watcher_gets_the_stored_updates_and_a_gap_for_the_rest() {
    let gateway = Running::start(prepared(config())).await;
    for count in [0_u64, 1, 49, 50, 51, 60] {
        let id = Uuid::new_v4();
        let path = format!("/api/orders/{id}/updates");
        for n in 1..=count {
            let routing = json!({ "type": "routing", "progress": 10, "n": n });
            assert_eq!(post_json(gateway.address, &path, &routing).await.status, 200);
        }
        let mut client = gateway.connect(&format!("/ws/orders/{id}")).await;
        assert_eq!(client.next().await["type"], "connection");
        let subscribed = client.next().await;
        let gap = count.saturating_sub(50);
        let expected = json!({ "type": "subscribed", "gap": gap, "recovered": gap == 0, "offset": gap });
        println!("{count} updates");
        assert_has(&subscribed, expected);
        for n in gap + 1..=count {
            assert_eq!(client.next().await["n"].as_u64(), Some(n), "{count}");
        }
        assert_eq!(client.until_pong().await, [] as [Value; 0], "{count}");
        // And the next update arrives once.
        let last = json!({ "type": "confirmed", "n": count + 1 });
        assert_eq!(post_json(gateway.address, &path, &last).await.status, 200);
        let (rest, code, _) = client.until_close().await;
        assert_eq!((rest[0]["n"].as_u64(), code), (Some(count + 1), 1000), "{rest:?}");
    }
}
