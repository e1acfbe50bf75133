//! `bench idle`: what a silent connection costs.

use std::{sync::atomic::Ordering::Relaxed, thread, time::Duration};

use anyhow::ensure;
use clap::Args;

use super::{
    client::{Client, Purpose},
    clock::Clock,
    common::{CommonArgs, at_least_one, seconds},
    cpu::{self, CpuTime},
    report::{IdleReport, Percentiles, ServerMemory},
    watch::LOOK,
};

#[derive(Debug, Args)]
pub(super) struct IdleArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Connections to hold.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    connections: usize,
    /// Seconds between the last handshake and reading the server's memory.
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    settle: f64,
    /// How many seconds opening all connections may take.
    #[arg(long, default_value_t = 120.0, value_parser = seconds)]
    open_timeout: f64,
}

/// Failed handshakes are a result, not an error.
pub(super) fn run(args: &IdleArgs) -> anyhow::Result<IdleReport> {
    let common = &args.common;
    let pid = common.server.server_pid;
    cpu::ensure_open_files(args.connections, pid)?;
    let seats = common.seats(args.connections, 0)?;

    let clock = Clock::start();
    let rss_before_bytes = pid.map(cpu::rss_bytes).transpose()?;
    let cpu_before = pid.map(CpuTime::of).transpose()?;
    let plan = common.client_plan(Purpose::Hold, &clock);
    let client = Client::start(seats, &plan, common.open.threads, clock)?;
    while client.progress.opened.load(Relaxed) as usize + client.progress.failed.load(Relaxed)
        < args.connections
        && clock.seconds_since(plan.started_ns) < args.open_timeout
    {
        ensure!(!client.has_died(), "a client loop ended early");
        thread::sleep(LOOK);
    }
    let open_s = clock.seconds_since(plan.started_ns);
    thread::sleep(Duration::from_secs_f64(args.settle));
    let rss_open_bytes = pid.map(cpu::rss_bytes).transpose()?;
    let cpu_after = pid.map(CpuTime::of).transpose()?;
    let opened = client.progress.opened.load(Relaxed);
    let tally = client.finish()?;

    let ended: u64 = tally.closed_by_code.values().sum::<u64>() + tally.broken_frames;
    let held = opened.saturating_sub(ended);
    let memory = ServerMemory {
        rss_before_bytes,
        rss_open_bytes,
        rss_end_bytes: rss_open_bytes,
        ..ServerMemory::default()
    };
    Ok(IdleReport {
        urls: common.urls.clone(),
        connections: args.connections,
        open_concurrency: common.open.open_concurrency,
        opened,
        failed: tally.failed(),
        open_s,
        connections_per_s: opened as f64 / open_s.max(1e-9),
        held,
        other_frames: tally.other_frames,
        handshake_us: Percentiles::of(&tally.handshake_ns),
        memory: memory.per_connection(held),
        server_cpu_s: cpu_before.zip(cpu_after).map(|(before, after)| after.since(before).total_s()),
        failures_by_reason: tally.failures,
        closed_by_code: tally.closed_by_code,
    })
}
