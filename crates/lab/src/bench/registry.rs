//! `bench registry`: the performance of registries for a program that embeds a gateway.
//!
//! Reads are timed by one thread. Updates are made at a rate with a Redis, and for some of them the time is
//! measured until the log has them. Then three gateways are cut off from Redis, written to, and connected
//! again.

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use tokio::{sync::oneshot, task::JoinSet, time};
use zonewire::{
    config::{Config, StorageChoice},
    gateway::Gateway,
    registry::{Condition, Query, Record, Registry, RegistryError, RegistryKind},
};
use zonewire_kit::{
    eventually,
    proxy::{Mode, Proxy},
    redis::RedisServer,
};

use super::{
    client::histogram,
    clock::{self, Clock},
    common::{rate, seconds},
    cpu::CpuTime,
    report::{Apart, NsEach, Percentiles, RegistryReport, Updates},
};

/// The registry that is measured.
const KIND: RegistryKind = RegistryKind::Providers;
/// How long a gateway may take to become current.
const PATIENCE: Duration = Duration::from_secs(30);
/// The interval between groups of updates.
const GROUP: Duration = Duration::from_millis(1);
/// One of so many updates is timed until the log has it.
const LOOKED_AT: u64 = 50;
/// How often the gateways are compared.
const COMPARE_EVERY: Duration = Duration::from_millis(2);
/// How many gateways are cut off.
const GATEWAYS: usize = 3;
/// Writes per second at each of them meanwhile.
const APART_PER_S: f64 = 100.0;

#[derive(Debug, Args)]
pub(super) struct RegistryArgs {
    /// How many records there are
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    records: u32,
    /// Approximate bytes of each record
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(100..=10_000))]
    record_bytes: u32,
    /// How many records to read; a hundredth as many lists
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(2_000..=1_000_000_000))]
    reads: u32,
    /// Updates per second
    #[arg(long, default_value_t = 10_000.0, value_parser = rate)]
    rate: f64,
    /// For how many seconds to update
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
    /// For how many seconds three gateways are without Redis
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    apart: f64,
}

pub(super) fn run(args: &RegistryArgs) -> anyhow::Result<RegistryReport> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let reads = measure_reads(args).await?;
        let updates = measure_updates(args).await?;
        let apart = measure_apart(args).await?;
        Ok(RegistryReport {
            records: args.records as usize,
            reads,
            updates_asked_per_s: args.rate,
            updates,
            gateways: GATEWAYS,
            apart_s: args.apart,
            apart,
        })
    })
}

/// A gateway in this process.
struct Embedded {
    registry: Registry,
    stop: oneshot::Sender<()>,
    running: JoinSet<anyhow::Result<()>>,
}

impl Embedded {
    async fn start(redis_url: Option<String>) -> anyhow::Result<Self> {
        let mut config = Config::default();
        config.http.listen = ([127, 0, 0, 1], 0).into();
        config.http.shards = 1;
        config.http.drain_s = 0;
        let storage = if redis_url.is_some() { StorageChoice::Redis } else { StorageChoice::Memory };
        config.storage.backend = storage;
        config.storage.required = redis_url.is_some();
        config.storage.redis.url = redis_url;
        let gateway = Gateway::start(config).await.context("cannot start a gateway")?;
        let registry = gateway.registry().clone();
        let (stop, stopped) = oneshot::channel();
        let mut running = JoinSet::new();
        running.spawn(async move {
            // If the sender is dropped, the gateway stops too.
            let stopped = async { drop(stopped.await) };
            gateway.run(stopped).await.map_err(anyhow::Error::from)
        });
        let embedded = Self { registry, stop, running };
        eventually("the registry is healthy", PATIENCE, async || {
            (embedded.registry.view(KIND).state == "healthy").then_some(())
        })
        .await?;
        Ok(embedded)
    }

    /// Waits until nothing waits for the log.
    async fn until_written(&self) -> anyhow::Result<()> {
        eventually("all writes are in the log", PATIENCE, async || {
            (self.registry.view(KIND).waiting == 0).then_some(())
        })
        .await
    }

    async fn end(mut self) -> anyhow::Result<()> {
        drop(self.stop);
        match self.running.join_next().await {
            Some(ended) => ended.context("a gateway panicked")?,
            None => Ok(()),
        }
    }
}

fn key(n: u64) -> String {
    format!("provider-{n}")
}

/// A record of about so many bytes, in its `n`th version.
fn record(key: &str, n: u64, len: usize) -> String {
    let head = format!(r#"{{"userId":"{key}","status":"online","location":"Oslo","n":{n},"pad":""#);
    let pad = "x".repeat(len.saturating_sub(head.len() + 2));
    format!(r#"{head}{pad}"}}"#)
}

fn fill(registry: &Registry, args: &RegistryArgs) -> anyhow::Result<()> {
    for n in 0..u64::from(args.records) {
        let key = key(n);
        registry.put(KIND, Some(&key), &record(&key, 0, args.record_bytes as usize), &Condition::None)?;
    }
    Ok(())
}

// ===== reads =====

async fn measure_reads(args: &RegistryArgs) -> anyhow::Result<Vec<NsEach>> {
    let embedded = Embedded::start(None).await?;
    fill(&embedded.registry, args)?;
    let keys: Vec<String> = (0..u64::from(args.records)).map(key).collect();
    let of_one = |sort| Query {
        filter: vec![("status".to_owned(), "online".to_owned())],
        sort,
        after: None,
        limit: 100,
    };
    let (indexed, sorted) = (of_one(None), of_one(Some(("n".to_owned(), true))));
    let registry = &embedded.registry;
    let mut at = 0;
    let mut next = || {
        // In an order different from the table's.
        at = (at + 7_919) % keys.len();
        &keys[at]
    };
    let ask = |query: &Query| drop(black_box(registry.list(KIND, black_box(query))));
    let reads = vec![
        NsEach::time("a record by its key", args.reads, || {
            drop(black_box(registry.get(KIND, black_box(next()))))
        }),
        NsEach::time("100 records of one status", args.reads / 100, || ask(&indexed)),
        NsEach::time("the same, sorted by a field", args.reads / 1_000, || ask(&sorted)),
    ];
    embedded.end().await?;
    Ok(reads)
}

// ===== updates =====

async fn measure_updates(args: &RegistryArgs) -> anyhow::Result<Updates> {
    let mut redis = RedisServer::start(&[]).await.context("cannot start a Redis")?;
    let embedded = Embedded::start(Some(format!("redis://127.0.0.1:{}", redis.port))).await?;
    fill(&embedded.registry, args)?;
    embedded.until_written().await?;
    let (clock, mut behind, mut looks) = (Clock::start(), histogram(), JoinSet::new());
    let appended = || embedded.registry.view(KIND).counts.appended;
    let (appended_before, cpu_before) = (appended(), CpuTime::own()?);
    let (begun_ns, mut made) = (clock.now_ns(), 0_u64);
    let mut ticks = time::interval(GROUP);
    let is_over = || clock.seconds_since(begun_ns) >= args.duration;
    while !is_over() {
        ticks.tick().await;
        let due = (clock.seconds_since(begun_ns) * args.rate) as u64;
        // A machine that is too slow makes fewer updates, in the same time.
        while made < due && !is_over() {
            made += 1;
            let key = key(made % u64::from(args.records));
            let text = record(&key, made, args.record_bytes as usize);
            let written_ns = clock.now_ns();
            embedded.registry.put(KIND, Some(&key), &text, &Condition::None)?;
            if made.is_multiple_of(LOOKED_AT) {
                let registry = embedded.registry.clone();
                looks.spawn(async move {
                    registry.is_in_log(KIND, &key).await;
                    clock.now_ns() - written_ns
                });
            }
        }
    }
    let made_s = clock.seconds_since(begun_ns);
    embedded.until_written().await?;
    while let Some(took_ns) = looks.join_next().await {
        behind.saturating_record(took_ns.context("a look panicked")?.max(1));
    }
    let cpu_s = CpuTime::own()?.since(cpu_before).total_s();
    let appended = appended() - appended_before;
    embedded.end().await?;
    redis.kill().await?;
    Ok(Updates {
        updates_per_s: made as f64 / made_s.max(1e-9),
        behind_us: Percentiles::of(&behind),
        appended,
        cpu_us_per_update: cpu_s * 1e6 / made.max(1) as f64,
    })
}

// ===== apart =====

/// The records of a gateway: the version and text of each.
fn held(registry: &Registry) -> anyhow::Result<BTreeMap<Arc<str>, (String, Bytes)>> {
    let all = Query { limit: usize::MAX, ..Query::default() };
    let listed = registry.list(KIND, &all)?;
    let of =
        |record: &Arc<Record>| (Arc::clone(&record.key), (record.version.to_string(), record.json.clone()));
    Ok(listed.records.iter().map(of).collect())
}

fn are_equal(gateways: &[Embedded]) -> anyhow::Result<bool> {
    let mut all = Vec::new();
    for embedded in gateways {
        if embedded.registry.view(KIND).state != "healthy" {
            return Ok(false);
        }
        all.push(held(&embedded.registry)?);
    }
    Ok(all.windows(2).all(|two| two[0] == two[1]))
}

async fn until_equal(gateways: &[Embedded], clock: &Clock) -> anyhow::Result<Option<u64>> {
    let begun_ns = clock.now_ns();
    while clock.seconds_since(begun_ns) < PATIENCE.as_secs_f64() {
        if are_equal(gateways)? {
            return Ok(Some(clock.now_ns()));
        }
        time::sleep(COMPARE_EVERY).await;
    }
    Ok(None)
}

async fn measure_apart(args: &RegistryArgs) -> anyhow::Result<Apart> {
    let mut redis = RedisServer::start(&[]).await.context("cannot start a Redis")?;
    let proxy = Proxy::start(redis.target.address).await?;
    let mut gateways = Vec::new();
    for _ in 0..GATEWAYS {
        gateways.push(Embedded::start(Some(redis.target.through(proxy.address))).await?);
    }
    fill(&gateways[0].registry, args)?;
    let clock = Clock::start();
    until_equal(&gateways, &clock).await?.context("the gateways do not hold the same from the start")?;

    proxy.set(Mode::Refuse);
    let (begun_ns, mut last, mut written) = (clock.now_ns(), BTreeMap::new(), 0);
    let mut ticks = time::interval(Duration::from_secs_f64(1.0 / APART_PER_S));
    while clock.seconds_since(begun_ns) < args.apart {
        ticks.tick().await;
        for (place, embedded) in gateways.iter().enumerate() {
            written += 1;
            // Each record is written at all gateways, some ticks apart.
            let n = written as u64;
            let key = key((n / GATEWAYS as u64 + 7 * place as u64) % u64::from(args.records.min(500)));
            match n % 10 {
                0 => match embedded.registry.remove(KIND, &key, &Condition::None) {
                    Ok(_removed) => drop(last.insert(key, None)),
                    // It was removed here before, and there is nothing to report.
                    Err(RegistryError::Unknown) => {}
                    Err(error) => return Err(error.into()),
                },
                _ => {
                    let text = record(&key, n, args.record_bytes as usize);
                    embedded.registry.put(KIND, Some(&key), &text, &Condition::None)?;
                    last.insert(key, Some(n));
                }
            }
        }
    }
    let is_apart = gateways.iter().all(|embedded| embedded.registry.view(KIND).state == "degraded");
    ensure!(is_apart, "a gateway without Redis claims to know what the others wrote");
    let back_ns = clock.now_ns();
    proxy.set(Mode::Pass);
    let converged_ns = until_equal(&gateways, &clock).await?;
    let mut wrong = 0;
    for embedded in &gateways {
        wrong += wrong_in(&embedded.registry, &last);
    }
    for embedded in gateways {
        embedded.end().await?;
    }
    redis.kill().await?;
    Ok(Apart {
        written_apart: written,
        converged_ms: converged_ns.map(|at_ns| clock::seconds(at_ns - back_ns) * 1e3),
        wrong,
    })
}

/// The number of records that differ from the last write.
fn wrong_in(registry: &Registry, last: &BTreeMap<String, Option<u64>>) -> usize {
    let is_wrong = |(key, last): &(&String, &Option<u64>)| match (registry.get(KIND, key), last) {
        (None, None) => false,
        (Some(record), Some(n)) => !record.text().contains(&format!("\"n\":{n},")),
        _ => true,
    };
    last.iter().filter(is_wrong).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_json_of_the_length_asked_for() {
        let text = record("provider-7", 3, 300);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((text.len(), &value["n"], &value["userId"]), (300, &3.into(), &"provider-7".into()));
    }
}
