//! `bench connect`: how fast connections are opened and closed.

use std::{sync::atomic::Ordering::Relaxed, thread, time::Duration};

use anyhow::ensure;
use clap::Args;

use super::{
    client::{Client, Purpose, Tally},
    clock::Clock,
    common::{CommonArgs, seconds},
    cpu::{self, CpuTime},
    report::{ConnectReport, Percentiles},
};

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// How many seconds to open and close connections
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    duration: f64,
}

/// Failed handshakes are a result, not an error.
pub(super) fn run(args: &ConnectArgs) -> anyhow::Result<ConnectReport> {
    let common = &args.common;
    let pid = common.server.server_pid;
    cpu::ensure_open_files(common.open.open_concurrency, pid)?;
    let seats = common.seats(common.open.open_concurrency, 0)?;

    let clock = Clock::start();
    let plan = common.client_plan(Purpose::Churn, &clock);
    let client = Client::start(seats, &plan, common.open.threads, clock)?;
    let (churned, tally) = churn(client, pid, args.duration, &clock)?;
    let Churned { opened, duration_s, server_cpu_s: cpu_s, own_cpu_s: own_s } = churned;

    Ok(ConnectReport {
        urls: common.urls.clone(),
        open_concurrency: common.open.open_concurrency,
        duration_s,
        opened,
        failed: tally.failed(),
        connections_per_s: opened as f64 / duration_s.max(1e-9),
        handshake_us: Percentiles::of(&tally.handshake_ns),
        server_cpu_s: cpu_s,
        server_cpu_us_per_connection: cpu_s.filter(|_| opened > 0).map(|cpu_s| cpu_s * 1e6 / opened as f64),
        client_busy_ratio: own_s / duration_s.max(1e-9),
        failures_by_reason: tally.failures,
    })
}

/// The result of opening and closing for a while.
#[derive(Debug)]
pub(super) struct Churned {
    pub(super) opened: u64,
    pub(super) duration_s: f64,
    pub(super) server_cpu_s: Option<f64>,
    pub(super) own_cpu_s: f64,
}

/// Lets a client open and close for so long, then ends it.
pub(super) fn churn(
    client: Client,
    server_pid: Option<u32>,
    for_s: f64,
    clock: &Clock,
) -> anyhow::Result<(Churned, Tally)> {
    let (begun_ns, own_before) = (clock.now_ns(), CpuTime::own()?);
    let before = server_pid.map(CpuTime::of).transpose()?;
    let opened_before = client.progress.opened.load(Relaxed);
    thread::sleep(Duration::from_secs_f64(for_s));
    ensure!(!client.has_died(), "a client loop ended early");
    let opened = client.progress.opened.load(Relaxed) - opened_before;
    let duration_s = clock.seconds_since(begun_ns);
    let after = server_pid.map(CpuTime::of).transpose()?;
    let server_cpu_s = before.zip(after).map(|(before, after)| after.since(before).total_s());
    let own_cpu_s = CpuTime::own()?.since(own_before).total_s();
    Ok((Churned { opened, duration_s, server_cpu_s, own_cpu_s }, client.finish()?))
}
