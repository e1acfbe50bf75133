//! `bench dead-primary`: what one dead primary of a cluster costs the channels of the others.
//!
//! A storage runs in this process, on a cluster of three. Channels of two primaries are appended to at a rate,
//! and the time of each append is measured, while many channels of the third primary are appended to as well:
//! at first in Redis, then, while that primary does not answer, in forks, and once more after all of them have
//! been reconciled.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use chrono::Utc;
use clap::Args;
use hdrhistogram::Histogram;
use tokio::{task::JoinSet, time};
use zonewire::{
    model::{BackendState, ChannelName, DraftEntry, EntryKind, Epoch, Lane, Marks, NodeId},
    storage::{
        self, Append, AppendAnswer, AppendBatch, Appended, SharedBackend, StatusReader, StorageChoice,
        StorageConfig,
    },
};
use zonewire_kit::redis::{Cluster, SLOTS, Several};

use super::{
    client::histogram,
    clock::{Clock, nanos},
    common::{rate, seconds},
    cpu::CpuTime,
    report::{DeadPrimaryReport, Percentiles, Stretch},
};

/// Tasks that append to the channels of one side, each to a share of them, one append at a time.
const WRITERS: usize = 32;
/// How long the storage may take to notice a failure, or to reconcile.
const PATIENCE: Duration = Duration::from_secs(120);
/// The content of each entry.
const DATA: &str = r#"{"key":"bench","price":41.25,"unit":"USD/MWh","source":"bench","volume":120.5,"note":"an entry like any other"}"#;
/// How often an append is tried, because the log went over into another epoch or did not answer.
const ROUNDS_MAX: u32 = 20;

#[derive(Debug, Args)]
pub(super) struct DeadPrimaryArgs {
    /// Channels of the primary that fails
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(1..=90_000))]
    forked: u32,
    /// Appends per second to all of them together
    #[arg(long, default_value_t = 2_000.0, value_parser = rate)]
    forked_rate: f64,
    /// Channels of the other primaries
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    healthy: u32,
    /// Appends per second to all of these, which are measured
    #[arg(long, default_value_t = 1_000.0, value_parser = rate)]
    rate: f64,
    /// For how many seconds to measure before the failure, during it, and after it
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
}

pub(super) fn run(args: &DeadPrimaryArgs) -> anyhow::Result<DeadPrimaryReport> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &DeadPrimaryArgs) -> anyhow::Result<DeadPrimaryReport> {
    let options = ["--cluster-require-full-coverage", "no"];
    let mut cluster = Cluster::start(Several { options: &options, ..Several::default() }).await?;
    let primary_of = |name: &str| slot(name) * cluster.nodes.len() / SLOTS;
    // Jobs need the primary that has them: the state of all other channels does not depend on the one that fails.
    let victim = (primary_of("jobs") + 1) % cluster.nodes.len();
    let node = NodeId::random();
    let mut config =
        StorageConfig { backend: StorageChoice::Redis, required: true, ..StorageConfig::default() };
    config.redis.url = Some(cluster.url());
    let opened = storage::open(&config, node, Arc::new(|_| Lane::Latest)).await?;
    let (backend, mut status) = (opened.backend, opened.status_reader);
    let mut background = JoinSet::new();
    background.spawn(opened.driver);
    if let Some(mut incoming) = backend.take_incoming() {
        background.spawn(async move { while incoming.recv().await.is_some() {} });
    }

    let clock = Clock::start();
    let named = |is_of_victim: bool, count: u32| {
        let names = (0..).map(|n: u32| format!("zone:bench-{n}"));
        names.filter(move |name| (primary_of(name) == victim) == is_of_victim).take(count as usize)
    };
    let mut healthy = Writers::new(&backend, node, named(false, args.healthy), clock)?;
    let mut forked = Writers::new(&backend, node, named(true, args.forked), clock)?;
    healthy.follow().await?;
    healthy.append_to_each().await?;
    forked.append_to_each().await?;

    let before = stretch(args, &mut healthy, &mut forked).await?;
    cluster.nodes[victim].freeze()?;
    until(&mut status, BackendState::Degraded).await?;
    let begun_ns = clock.now_ns();
    forked.append_to_each().await?;
    let forking_s = clock.seconds_since(begun_ns);
    ensure!(
        healthy.are_degraded(false) && forked.are_degraded(true),
        "another primary failed than was stopped"
    );
    let during = stretch(args, &mut healthy, &mut forked).await?;
    let begun_ns = clock.now_ns();
    cluster.nodes[victim].thaw()?;
    until(&mut status, BackendState::Healthy).await?;
    let reconciled_s = clock.seconds_since(begun_ns);
    let after = stretch(args, &mut healthy, &mut forked).await?;

    drop((healthy, forked, backend));
    background.shutdown().await;
    cluster.kill().await?;
    Ok(DeadPrimaryReport {
        healthy: args.healthy,
        rate_per_s: args.rate,
        forked: args.forked,
        forked_rate_per_s: args.forked_rate,
        before,
        during,
        after,
        forking_s,
        reconciled_s,
    })
}

/// Appends to both sides for as long as is asked, and measures what the healthy one waits.
async fn stretch(
    args: &DeadPrimaryArgs,
    healthy: &mut Writers,
    forked: &mut Writers,
) -> anyhow::Result<Stretch> {
    let (cpu_before, begun_ns) = (CpuTime::own()?, healthy.clock.now_ns());
    let (measured, others) = tokio::join!(
        healthy.at_rate(args.rate, args.duration),
        forked.at_rate(args.forked_rate, args.duration)
    );
    let (measured, others) = (measured?, others?);
    let took_s = healthy.clock.seconds_since(begun_ns).max(1e-9);
    Ok(Stretch {
        appends_per_s: measured.len() as f64 / took_s,
        others_per_s: others.len() as f64 / took_s,
        append_us: Percentiles::of(&measured),
        other_append_us: Percentiles::of(&others),
        busy_ratio: CpuTime::own()?.since(cpu_before).total_s() / took_s,
    })
}

async fn until(status: &mut StatusReader, state: BackendState) -> anyhow::Result<()> {
    let reached = async {
        while status.get().state != state {
            ensure!(status.changed().await, "the storage ended");
        }
        Ok(())
    };
    time::timeout(PATIENCE, reached).await.with_context(|| format!("the storage is never {state:?}"))?
}

/// A channel as its actor sees it.
struct Channel {
    name: ChannelName,
    epoch: Epoch,
    /// The newest sequence that was accepted.
    seq: u64,
}

/// Those who append to the channels of one side.
struct Writers {
    backend: SharedBackend,
    node: NodeId,
    clock: Clock,
    shares: Vec<Vec<Channel>>,
}

impl Writers {
    fn new(
        backend: &SharedBackend,
        node: NodeId,
        names: impl Iterator<Item = String>,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let mut shares: Vec<Vec<Channel>> = (0..WRITERS).map(|_| Vec::new()).collect();
        for (place, name) in names.enumerate() {
            let channel = Channel { name: name.parse()?, epoch: Epoch::random(), seq: 0 };
            shares[place % WRITERS].push(channel);
        }
        Ok(Self { backend: Arc::clone(backend), node, clock, shares })
    }

    async fn follow(&self) -> anyhow::Result<()> {
        for channel in self.shares.iter().flatten() {
            self.backend.follow(&channel.name).await?;
        }
        Ok(())
    }

    fn are_degraded(&self, degraded: bool) -> bool {
        self.shares.iter().flatten().all(|channel| self.backend.is_degraded_for(&channel.name) == degraded)
    }

    /// Appends one entry to each, as fast as they are taken.
    async fn append_to_each(&mut self) -> anyhow::Result<()> {
        self.write(None).await.map(drop)
    }

    /// Appends to one after the other, at this rate. Returns how long each append took.
    async fn at_rate(&mut self, rate: f64, duration_s: f64) -> anyhow::Result<Histogram<u64>> {
        let writers = self.shares.iter().filter(|share| !share.is_empty()).count();
        let period_ns = nanos(writers as f64 / rate).max(1);
        self.write(Some(Pace { period_ns, duration_ns: nanos(duration_s) })).await
    }

    async fn write(&mut self, pace: Option<Pace>) -> anyhow::Result<Histogram<u64>> {
        let (mut all, mut writers) = (histogram(), JoinSet::new());
        for (place, mut channels) in self.shares.drain(..).enumerate() {
            let (backend, node, clock) = (Arc::clone(&self.backend), self.node, self.clock);
            writers.spawn(async move {
                let took = match pace {
                    // They do not all begin at once.
                    Some(pace) => pace.write(&mut channels, &backend, node, clock, place).await?,
                    None => {
                        for channel in &mut channels {
                            channel.append(&backend, node).await?;
                        }
                        histogram()
                    }
                };
                anyhow::Ok((channels, took))
            });
        }
        while let Some(written) = writers.join_next().await {
            let (channels, took) = written.context("a writer panicked")??;
            self.shares.push(channels);
            all.add(took)?;
        }
        Ok(all)
    }
}

/// The pace of one writer.
#[derive(Debug, Clone, Copy)]
struct Pace {
    period_ns: u64,
    duration_ns: u64,
}

impl Pace {
    async fn write(
        self,
        channels: &mut [Channel],
        backend: &SharedBackend,
        node: NodeId,
        clock: Clock,
        place: usize,
    ) -> anyhow::Result<Histogram<u64>> {
        let (mut took, begun_ns, mut ended_ns, mut next) = (histogram(), clock.now_ns(), 0, 0);
        let mut due_ns = begun_ns + self.period_ns * place as u64 / WRITERS as u64;
        while due_ns < begun_ns + self.duration_ns && !channels.is_empty() {
            time::sleep(Duration::from_nanos(due_ns.saturating_sub(clock.now_ns()))).await;
            // An append that comes late because the one before it took long has waited since it was due.
            let from_ns = if ended_ns > due_ns { due_ns } else { clock.now_ns() };
            let count = channels.len();
            channels[next % count].append(backend, node).await?;
            ended_ns = clock.now_ns();
            took.saturating_record((ended_ns - from_ns).max(1));
            (due_ns, next) = (due_ns + self.period_ns, next + 1);
        }
        Ok(took)
    }
}

impl Channel {
    /// Appends one entry, in whatever epoch the log is.
    async fn append(&mut self, backend: &SharedBackend, node: NodeId) -> anyhow::Result<()> {
        let draft = DraftEntry {
            time: Utc::now(),
            kind: EntryKind::PriceUpdate,
            key: Some("bench".into()),
            data: DATA.into(),
            marks: Marks::default(),
        };
        let entry = Append { seq: self.seq + 1, prev: self.seq, draft, fence: None };
        for _ in 0..ROUNDS_MAX {
            let batch = AppendBatch {
                channel: self.name.clone(),
                epoch: self.epoch.clone(),
                producer: node,
                entries: vec![entry.clone()],
            };
            let answer = match backend.append(&batch).await {
                // As the channel's actor does; the time that it takes is measured.
                Err(error) if error.is_outage() => continue,
                answer => answer?,
            };
            match answer {
                AppendAnswer::Done(results) => match results[..] {
                    [Appended::Applied { .. } | Appended::Duplicate] => {
                        self.seq += 1;
                        return Ok(());
                    }
                    _ => bail!("an entry of {} was answered with {results:?}", self.name),
                },
                AppendAnswer::ForeignEpoch(_) => {
                    match backend.open(&self.name, node, &Epoch::random()).await {
                        Err(error) if error.is_outage() => {}
                        opened => self.epoch = opened?.epoch,
                    }
                }
            }
        }
        bail!("{} takes no entry", self.name)
    }
}

/// The slot of the keys of a channel in a cluster: the CRC16 of its name.
fn slot(name: &str) -> usize {
    let crc = name.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    });
    usize::from(crc) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As in the specification of Redis Cluster, and by `CLUSTER KEYSLOT`.
        assert_eq!((slot("123456789"), slot("foo")), (0x31C3, 12_182));
    }
}
