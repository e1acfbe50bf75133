//! If one primary of a cluster is away, that is an outage of its own channels, and of no others.

use std::collections::HashSet;

use serde_json::{Value, json};
use zonewire_kit::redis::Cluster;

use crate::support::client::{Client, assert_has, is_birth};
use crate::support::eventually::until;
use crate::support::gateway::{LINES, Running, post, price};
use crate::support::redis::{Admin, cluster, on, zone_of_each};

/// Options of a cluster whose other primaries serve while one is away.
const PARTIAL: [&str; 2] = ["--cluster-require-full-coverage", "no"];

fn meta(zone: &str) -> String {
    format!("zw:{{zone:{zone}}}:meta")
}

/// A client that follows one zone at one gateway.
struct Reader {
    client: Client,
    zone: String,
    ids: HashSet<String>,
    /// The prices received so far, as `<gateway>-<number>`.
    had: Vec<String>,
    /// Messages other than prices and `backend_state`.
    told: Vec<Value>,
    states: Vec<Value>,
}

impl Reader {
    async fn at(gateway: &Running, zone: &str) -> Self {
        let (client, _) = gateway.market(zone).await;
        let (ids, had, told, states) = (HashSet::new(), Vec::new(), Vec::new(), Vec::new());
        Self { client, zone: zone.to_owned(), ids, had, told, states }
    }

    /// Reads the next message.
    async fn step(&mut self) {
        let message = self.client.next().await;
        match message["type"].as_str() {
            Some("price_update") => {
                assert!(self.ids.insert(message["id"].as_str().unwrap().to_owned()), "double: {message}");
                self.had.push(format!("{}-{}", message["key"].as_str().unwrap(), message["price"]));
            }
            Some("backend_state") => self.states.push(message),
            // The gateway that publishes first starts the log.
            _ if is_birth(&message) => {}
            _ => self.told.push(message),
        }
    }

    /// Reads until all of these prices have arrived.
    async fn until(&mut self, wanted: &[String]) {
        while !wanted.iter().all(|price| self.had.contains(price)) {
            self.step().await;
        }
    }

    /// Reads until this state is reported.
    async fn until_state(&mut self, state: &str) -> Value {
        while self.states.last().is_none_or(|told| told["state"] != state) {
            self.step().await;
        }
        self.states.last().unwrap().clone()
    }

    /// Checks that only prices have arrived, each gateway's in order.
    fn check_undisturbed(&self) {
        assert_eq!(self.told, [] as [Value; 0], "{}", self.zone);
    }

    /// Checks that every interruption was reported, and reported as without loss.
    fn check_recovered(&self) {
        assert!(!self.told.is_empty(), "{}", self.zone);
        for told in &self.told {
            assert_eq!((&told["type"], &told["recovered"]), (&json!("resync"), &json!(true)), "{told}");
        }
    }

    fn check_order_of_each(&self, gateways: usize) {
        for gateway in 0..gateways {
            let prefix = format!("{gateway}-");
            let of: Vec<u64> =
                self.had.iter().filter_map(|had| had.strip_prefix(&prefix)?.parse().ok()).collect();
            assert!(of.is_sorted(), "{}: {of:?}", self.zone);
        }
    }
}

/// Two gateways, and at each of them a reader of one zone of each primary.
struct Bench {
    /// By gateway, then by zone. They leave before the gateways stop.
    readers: Vec<Vec<Reader>>,
    gateways: [Running; 2],
    zones: [String; 3],
    /// The number of the last price posted at each gateway.
    posted: u64,
}

impl Bench {
    async fn on(cluster: &Cluster) -> Self {
        let zones = zone_of_each(cluster).await;
        let gateways = [Running::start(on(cluster)).await, Running::start(on(cluster)).await];
        let mut readers = Vec::new();
        for gateway in &gateways {
            let mut of_gateway = Vec::new();
            for zone in &zones {
                of_gateway.push(Reader::at(gateway, zone).await);
            }
            readers.push(of_gateway);
        }
        Self { gateways, zones, readers, posted: 0 }
    }

    /// Posts one price at each gateway to a zone, and returns the prices.
    async fn post(&mut self, zone: usize) -> Vec<String> {
        self.posted += 1;
        for (name, gateway) in self.gateways.iter().enumerate() {
            gateway.publish(&self.zones[zone], [price(&name.to_string(), self.posted)]).await;
        }
        (0..2).map(|gateway| format!("{gateway}-{}", self.posted)).collect()
    }

    /// Checks that prices posted to a zone at either gateway arrive at the readers of both, live.
    async fn check_served(&mut self, zone: usize) {
        for _ in 0..3 {
            let posted = self.post(zone).await;
            for readers in &mut self.readers {
                readers[zone].until(&posted).await;
            }
        }
    }

    /// Checks the outage of the first primary.
    async fn check_partial(&mut self) -> Vec<String> {
        // Whatever the gateways know yet, the zones of the other primaries are served throughout.
        for _ in 0..5 {
            self.check_served(1).await;
            self.check_served(2).await;
        }
        for readers in &mut self.readers {
            for (at, reader) in readers.iter_mut().enumerate() {
                let told = reader.until_state("degraded").await;
                let channels = if at == 0 { json!([format!("zone:{}", reader.zone)]) } else { json!([]) };
                assert_eq!(told["scope"], "some", "{told}");
                assert_has(&told, json!({ "channels": channels, "storage_backend": "redis" }));
                assert!(told["reason"].as_str().unwrap().starts_with("Redis "), "{told}");
            }
        }
        for gateway in &self.gateways {
            let health = gateway.get("/ws/health").await.json();
            assert_has(&health, json!({ "status": "degraded", "scope": "some", "ready": true }));
            assert_has(&health, json!({ "primaries": 3, "primaries_away": 1 }));
            assert!(health["reason"].as_str().unwrap().starts_with("1 of 3 primaries"), "{health}");
            assert_eq!(gateway.stats().await["scope"], "some");
            let redis = gateway.get("/health/redis").await;
            let told = redis.json();
            assert_eq!(redis.status, 503);
            assert_has(&told, json!({ "status": "degraded", "link": "partial" }));
            let metrics = gateway.get("/metrics").await.body;
            assert!(metrics.contains("zonewire_storage_primaries_away 1"), "{metrics}");
        }
        // Each gateway forks the zone of the primary that is away.
        let mut all = Vec::new();
        for _ in 0..3 {
            let posted = self.post(0).await;
            for (readers, own) in self.readers.iter_mut().zip(&posted) {
                readers[0].until(std::slice::from_ref(own)).await;
            }
            all.extend(posted);
        }
        self.check_served(1).await;
        self.check_served(2).await;
        all
    }

    /// Checks that all primaries are back, and that nothing posted is missing anywhere.
    async fn check_back(&mut self, posted: &[String]) {
        for readers in &mut self.readers {
            for reader in readers.iter_mut() {
                let told = reader.until_state("healthy").await;
                assert_eq!(told["scope"], "all", "{told}");
            }
            readers[0].until(posted).await;
        }
        for zone in 0..3 {
            self.check_served(zone).await;
        }
        for readers in &self.readers {
            readers[0].check_recovered();
            readers[1].check_undisturbed();
            readers[2].check_undisturbed();
            readers.iter().for_each(|reader| reader.check_order_of_each(2));
        }
        for gateway in &self.gateways {
            // Readers are told before it is counted.
            until("no channel is alone", async || gateway.stats().await["outage"]["channels_alone"] == 0)
                .await;
            let outage = gateway.stats().await["outage"].take();
            assert_eq!(outage["forks"], 1, "{outage}");
        }
    }
}

/// The log of a zone, as a gateway returns it.
async fn history(gateway: &Running, zone: &str) -> Vec<String> {
    let history = gateway.get(&format!("/api/zones/{zone}/history?limit=1000")).await.json();
    let entries = history["entries"].as_array().unwrap();
    entries.iter().map(|entry| format!("{}-{}", entry["key"].as_str().unwrap(), entry["price"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_interrupts_only_its_own_channels_until_its_replica_serves() {
    let Some(mut cluster) = cluster(1, &PARTIAL).await else { return };
    let mut bench = Bench::on(&cluster).await;
    for zone in 0..3 {
        bench.check_served(zone).await;
    }
    cluster.nodes[0].kill().await.unwrap();
    let posted = bench.check_partial().await;
    check_starts_with_the_others(&cluster, &mut bench).await;
    assert_eq!(cluster.nodes[3].admin(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await, "OK");
    bench.check_back(&posted).await;
    // Entries that had not reached the replica were appended again: the log has all, once.
    let log = history(&bench.gateways[0], &bench.zones[0]).await;
    assert_eq!(log.len(), log.iter().collect::<HashSet<_>>().len(), "{log:?}");
    for readers in &bench.readers {
        assert!(readers[0].had.iter().all(|had| log.contains(had)), "{log:?}");
    }
    assert_eq!(log, history(&bench.gateways[1], &bench.zones[0]).await);
}

/// Checks that a gateway started while a primary is away serves the zones of the others.
async fn check_starts_with_the_others(cluster: &Cluster, bench: &mut Bench) {
    let late = Running::changed(on(cluster), |config| config.storage.required = false).await;
    until("it has connected to the others", async || {
        let health = late.get("/ws/health").await.json();
        health["scope"] == "some" && health["primaries_away"] == 1
    })
    .await;
    bench.posted += 1;
    late.publish(&bench.zones[1], [price("late", bench.posted)]).await;
    let posted = [format!("late-{}", bench.posted)];
    for readers in &mut bench.readers {
        readers[1].until(&posted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_primary_delays_only_its_own_channels() {
    let Some(cluster) = cluster(0, &PARTIAL).await else { return };
    let mut bench = Bench::on(&cluster).await;
    for zone in 0..3 {
        bench.check_served(zone).await;
    }
    cluster.nodes[0].freeze().unwrap();
    let posted = bench.check_partial().await;
    cluster.nodes[0].thaw().unwrap();
    bench.check_back(&posted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_under_load_disturbs_nobody() {
    let Some(cluster) = cluster(0, &[]).await else { return };
    let mut bench = Bench::on(&cluster).await;
    let zone = bench.zones[0].clone();
    bench.check_served(0).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut posting = tokio::task::JoinSet::new();
    for (name, gateway) in bench.gateways.iter().enumerate() {
        let (address, zone, stopped) = (gateway.address, zone.clone(), stopped.clone());
        posting.spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                let body = price(&format!("load{name}"), count).to_string();
                let answer = post(address, &zone, LINES, body.as_bytes()).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                count += 1;
            }
            (0..count).map(|n| format!("load{name}-{n}")).collect::<Vec<_>>()
        });
    }
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        let before: Vec<usize> = bench.readers.iter().map(|readers| readers[0].had.len()).collect();
        cluster.move_slot(&meta(&zone), from, to).await.unwrap();
        // The load continues at the slot's new primary.
        for (readers, before) in bench.readers.iter_mut().zip(before) {
            while readers[0].had.len() < before + 20 {
                readers[0].step().await;
            }
        }
        until("it is told where it is now", async || {
            let names = cluster.nodes[to].list(&["PUBSUB", "SHARDCHANNELS"]).await;
            names.contains(&format!("zw:{{zone:{zone}}}"))
        })
        .await;
    }
    stop.send_replace(true);
    let posted: Vec<String> = posting.join_all().await.into_iter().flatten().collect();
    for readers in &mut bench.readers {
        readers[0].until(&posted).await;
        readers[0].check_undisturbed();
        assert_eq!(readers[0].states, [] as [Value; 0]);
    }
    for gateway in &bench.gateways {
        let stats = gateway.stats().await;
        assert_eq!((&stats["outage"]["forks"], &stats["state"]), (&json!(0), &json!("healthy")));
    }
    bench.check_served(0).await;
}
