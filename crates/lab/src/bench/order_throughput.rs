//! `bench order-throughput`: places orders as fast as they are accepted, until the last has ended.
//!
//! Nothing follows an order. The gateway's counters say how many have ended, since a socket or a request for
//! each order would be most of the load.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use hdrhistogram::Histogram;
use hyper::StatusCode;
use tokio::{task::JoinSet, time};
use zonewire_protocol::stats::{OrderCounts, StatsView};

use super::{
    client::histogram,
    clock::Clock,
    common::{GatewayArgs, at_least_one, seconds},
    cpu::{self, CpuTime},
    keep_alive::{KeepAlive, connect_all},
    report::{OrderThroughputReport, Percentiles, Stage},
};
use zonewire::client::block_on;

/// How often the gateways are asked how many orders have ended.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// The body of every order.
const ORDER: &str = r#"{"tokenIn":"SOL","tokenOut":"USDC","amount":1.5,"slippage":1}"#;

#[derive(Debug, Args)]
pub(super) struct OrderThroughputArgs {
    #[command(flatten)]
    pub(super) common: GatewayArgs,
    /// Orders to place. The gateway's `orders.queue_max` must have room for them.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    orders: u64,
    /// HTTP connections that place them, one request at a time on each.
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    connections: usize,
    /// Give up if not all orders have ended so many seconds after the first was placed.
    #[arg(long, default_value_t = 120.0, value_parser = seconds)]
    timeout: f64,
}

/// Orders that did not end are a result; a refused order is an error.
pub(super) fn run(args: &OrderThroughputArgs) -> anyhow::Result<OrderThroughputReport> {
    let common = &args.common;
    let width = args.connections.min(usize::try_from(args.orders).unwrap_or(usize::MAX));
    cpu::ensure_open_files(width, common.server.server_pid)?;
    let bases = common.gateways()?;
    let clock = Clock::start();
    block_on(async {
        let mut stats_connections = connect_all(&bases, bases.len(), clock).await?;
        let connections = connect_all(&bases, width, clock).await?;
        let before = counts(&mut stats_connections).await?;
        let server_before = common.server.server_pid.map(CpuTime::of).transpose()?;
        let own_before = CpuTime::own()?;

        let started_ns = clock.now_ns();
        let limit = Duration::from_secs_f64(args.timeout);
        let answer_ns = time::timeout(limit, place(connections, args.orders, clock))
            .await
            .with_context(|| format!("not all orders were accepted within {} s", args.timeout))??;
        let placed_s = clock.seconds_since(started_ns);
        let mut asked = 0;
        let (seen, whole_s) = loop {
            asked += 1;
            let seen = counts(&mut stats_connections).await?;
            let whole_s = clock.seconds_since(started_ns);
            let has_all = ended(&seen).saturating_sub(ended(&before)) >= args.orders;
            if has_all || whole_s >= args.timeout {
                break (seen, whole_s);
            }
            time::sleep(ASK_EVERY).await;
        };

        let server = common.server.server_pid.map(CpuTime::of).transpose()?;
        let server_s = server_before.zip(server).map(|(before, after)| after.since(before).total_s());
        // The readings enclose the window, so they include all CPU time spent on it.
        let read_s = clock.seconds_since(started_ns);
        let own_s = CpuTime::own()?.since(own_before).total_s();
        let since = |of: fn(&OrderCounts) -> u64| of(&seen).saturating_sub(of(&before));
        let stage = |count: u64, window_s: f64| Stage { count, per_s: count as f64 / window_s.max(1e-9) };
        Ok(OrderThroughputReport {
            urls: common.urls.clone(),
            orders: args.orders,
            connections: width,
            placed_s,
            window_s: whole_s,
            orders_per_s: since(ended) as f64 / whole_s.max(1e-9),
            placed: stage(args.orders, placed_s),
            runs: stage(since(|counts| counts.runs), whole_s),
            updates: stage(since(|counts| counts.updates), whole_s),
            ended: stage(since(ended), whole_s),
            confirmed: since(|counts| counts.confirmed),
            failed: since(|counts| counts.failed),
            retried: since(|counts| counts.retried),
            unfinished: args.orders.saturating_sub(since(ended)),
            answer_us: Percentiles::of(&answer_ns),
            stats_asked: asked,
            server_cpu_s: server_s,
            server_cpu_us_per_order: server_s.map(|server_s| server_s * 1e6 / args.orders as f64),
            server_busy_ratio: server_s.map(|server_s| server_s / read_s.max(1e-9)),
            client_busy_ratio: own_s / read_s.max(1e-9),
        })
    })
}

/// Places `orders` over all connections at once. Returns how long each answer took.
async fn place(connections: Vec<KeepAlive>, orders: u64, clock: Clock) -> anyhow::Result<Histogram<u64>> {
    let begun = Arc::new(AtomicU64::new(0));
    let mut placing = JoinSet::new();
    for mut connection in connections {
        let begun = Arc::clone(&begun);
        placing.spawn(async move {
            let mut answer_ns = histogram();
            while begun.fetch_add(1, Relaxed) < orders {
                let sent_ns = clock.now_ns();
                let answered = connection.post("/api/orders/execute", ORDER, StatusCode::ACCEPTED).await?;
                answer_ns.saturating_record(answered.at_ns.saturating_sub(sent_ns));
            }
            anyhow::Ok(answer_ns)
        });
    }
    let mut all = histogram();
    while let Some(placed) = placing.join_next().await {
        all.add(placed.context("a connection that places orders panicked")??)?;
    }
    Ok(all)
}

/// The counters, summed over the gateways.
async fn counts(stats_connections: &mut [KeepAlive]) -> anyhow::Result<OrderCounts> {
    let mut sum = OrderCounts::default();
    for connection in stats_connections {
        let answered = connection.get("/ws/stats").await?;
        let stats: StatsView = serde_json::from_slice(&answered.body).context("/ws/stats is not readable")?;
        sum += stats.orders.counts;
    }
    Ok(sum)
}

fn ended(counts: &OrderCounts) -> u64 {
    counts.confirmed + counts.failed
}
