//! `bench events`: what it costs to bring events from one gateway to another, and how long it takes.
//!
//! Each run starts two gateways and a Redis. Events are published at the first gateway, as lines of one
//! request, and one WebSocket at the second gateway follows their type: live types travel over pub/sub,
//! durable ones through the log.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum as _};
use zonewire_kit::{redis::RedisServer, resp::Reply};

use super::{
    client::{ClientPlan, Seat},
    clock::{self, Clock, nanos},
    common::{NodeArgs, WaitArgs, rate, seconds},
    cpu::CpuTime,
    payload::write_event,
    publisher::{PublishPlan, Publisher},
    report::{Delivered, EventsOf, EventsReport, EventsRun},
    target,
    watch::Subscribers,
};
use crate::node::{Node, Start};

/// How long a gateway or Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long opening the connection may take, and the wait without arrivals after the last event.
const WAITS: WaitArgs = WaitArgs { open_timeout: 30.0, settle: 0.0, drain: 3.0 };
/// There are so many symbols that no event is replaced by a newer one of its symbol, as long as the client
/// keeps up.
const SYMBOLS: u64 = 5_000;
/// A rate is sustained if at least this share of it was published, ...
const PUBLISHED_MIN: f64 = 0.97;
/// ... all of it arrived, and the last event arrived within this time of being published.
const BEHIND_S_MAX: f64 = 0.5;
/// The factor from one sustained rate to the next one that is tried.
const STEP: f64 = 1.5;
/// The greatest rate that is tried.
const RATE_MAX: f64 = 400_000.0;

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// How events travel from one gateway to the other [default: both, one after the other]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "HOW")]
    deliver: Vec<Delivery>,
    /// Events per second at which to measure the lag
    #[arg(long = "rate", value_delimiter = ',', default_values_t = [1_000.0, 5_000.0], value_parser = rate)]
    rates: Vec<f64>,
    /// Seconds that are measured at each rate
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
    /// Seconds of publishing before that, at each rate
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    warmup: f64,
    /// Do not search for the greatest rate without losses
    #[arg(long)]
    no_limit: bool,
    /// Seconds for which the search holds each rate
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    step: f64,
    /// Events per second at which the search begins; each further rate is half as much again
    #[arg(long, default_value_t = 10_000.0, value_parser = rate)]
    from: f64,
    /// Length of a published event
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    payload_bytes: u32,
    #[command(flatten)]
    nodes: NodeArgs,
}

/// How events travel from one gateway to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Delivery {
    /// Over pub/sub.
    Live,
    /// Through the log.
    Durable,
}

impl Delivery {
    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Durable => "durable",
        }
    }

    /// A type that is delivered this way by default.
    fn event(self) -> &'static str {
        match self {
            Self::Live => "ticker",
            Self::Durable => "trade",
        }
    }
}

/// Lost events are a result, not an error.
pub(super) fn run(args: &EventsArgs) -> anyhow::Result<EventsReport> {
    // Reads the gateways' logs meanwhile.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let deliveries =
        if args.deliver.is_empty() { Delivery::value_variants() } else { args.deliver.as_slice() };
    let start = runtime.block_on(args.nodes.start(&["bridge.enabled=true", "storage.required=true"]))?;
    let mut kinds = Vec::new();
    for &delivery in deliveries {
        let measure = |rate: f64, warmup_s: f64, duration_s: f64| {
            let plan = PublishPlan {
                rate: Some(rate),
                payload_len: args.payload_bytes as usize,
                keys: SYMBOLS,
                warmup_s,
                duration_s,
                messages: None,
                write: write_event,
            };
            runtime.block_on(async {
                let pair = Pair::start(&start, delivery).await?;
                let measured = pair.measure(&plan).await;
                pair.end().await?;
                measured.with_context(|| format!("{} events at {rate} a second", delivery.as_str()))
            })
        };
        let mut at_rates = Vec::new();
        for rate in &args.rates {
            at_rates.push(measure(*rate, args.warmup, args.duration)?);
        }
        let (mut sustained, mut first_beyond, mut rate) = (None, None, args.from);
        while !args.no_limit && first_beyond.is_none() && rate <= RATE_MAX {
            let run = measure(rate, args.step / 4.0, args.step)?;
            match is_sustained(&run) {
                true => sustained = Some(run),
                false => first_beyond = Some(run),
            }
            rate *= STEP;
        }
        kinds.push(EventsOf { delivery, at_rates, sustained, first_beyond });
    }
    Ok(EventsReport { payload_bytes: args.payload_bytes as usize, kinds })
}

fn is_sustained(run: &EventsRun) -> bool {
    run.sequences.lost == 0
        && run.published_per_s >= PUBLISHED_MIN * run.rate_per_s
        && run.behind_s <= BEHIND_S_MAX
}

/// Two gateways with a Redis of their own.
struct Pair {
    delivery: Delivery,
    publisher: Node,
    subscriber: Node,
    redis: RedisServer,
}

/// CPU time of each of them.
struct Cpu {
    publisher: f64,
    subscriber: f64,
    redis: f64,
}

impl Pair {
    async fn start(start: &Start, delivery: Delivery) -> anyhow::Result<Self> {
        let redis = RedisServer::start(&[]).await.context("cannot start a Redis")?;
        let redis_url = Some(format!("redis://127.0.0.1:{}", redis.port));
        let start = |index| Start { index, redis_url: redis_url.clone(), ..start.clone() };
        let (publisher, subscriber) = (Node::start(start(0)).await?, Node::start(start(1)).await?);
        Ok(Self { delivery, publisher, subscriber, redis })
    }

    async fn end(mut self) -> anyhow::Result<()> {
        for node in [&mut self.publisher, &mut self.subscriber] {
            node.check()?;
            node.kill().await?;
        }
        self.redis.kill().await
    }

    async fn measure(&self, plan: &PublishPlan) -> anyhow::Result<EventsRun> {
        let clock = Clock::start();
        let event = self.delivery.event();
        let socket =
            target::websocket(&self.subscriber.base.socket(&format!("ws/events?types={event}")), false)?;
        let seat = Seat { endpoint: Arc::new(socket), channel: 0, stalled: false, hello: None };
        let client = ClientPlan {
            open_concurrency: 1,
            handshake_timeout_s: WAITS.open_timeout,
            expect_subscribed: true,
            own_messages: true,
            started_ns: clock.now_ns(),
            ..ClientPlan::default()
        };
        let subscribers = Subscribers::open(vec![seat], &client, 1, &WAITS, None, clock)?;
        if self.delivery == Delivery::Live {
            // Durable events travel through the log.
            self.subscriber.until_bridged(event, PATIENCE).await?;
        }
        let url = self.publisher.base.endpoint(&format!("api/events/{event}"));
        let publisher = Publisher::connect(&target::publish(&url, 1, false)?, clock)?;
        let publisher = publisher.context("nobody publishes")?;

        let progress = &subscribers.client.progress;
        progress.measure_from_ns.store(clock.now_ns() + nanos(plan.warmup_s), Relaxed);
        let publishing = publisher.start(plan.clone())?;
        tokio::time::sleep(Duration::from_secs_f64(plan.warmup_s)).await;
        let (before, start) = (self.cpu().await?, subscribers.reading()?);
        let published = publishing.end()?;
        let published_ns = clock.now_ns();
        subscribers.drain(published.by_channel.iter().sum(), WAITS.drain)?;
        let after = self.cpu().await?;
        let last_ns = progress.last_delivery_ns.load(Relaxed);
        let (delivered, _tally) = subscribers.finish(&start, Some(&published.by_channel), None)?;

        let Delivered { deliveries, deliveries_per_s, sequences, client_busy_ratio, .. } = delivered;
        let each = |cpu_s: f64| if deliveries > 0 { Some(cpu_s * 1e6 / deliveries as f64) } else { None };
        Ok(EventsRun {
            rate_per_s: plan.rate.unwrap_or_default(),
            published_per_s: published.per_s().unwrap_or_default(),
            deliveries_per_s,
            behind_s: clock::seconds(last_ns.saturating_sub(published_ns)),
            sequences,
            publish_late_us_max: published.late_us_max(),
            lag_us: delivered.latency_us,
            publisher_cpu_us_per_event: each(after.publisher - before.publisher),
            subscriber_cpu_us_per_event: each(after.subscriber - before.subscriber),
            redis_cpu_us_per_event: each(after.redis - before.redis),
            client_busy_ratio,
        })
    }

    async fn cpu(&self) -> anyhow::Result<Cpu> {
        let of = |node: &Node| Ok::<_, anyhow::Error>(CpuTime::of(node.pid()?)?.total_s());
        Ok(Cpu {
            publisher: of(&self.publisher)?,
            subscriber: of(&self.subscriber)?,
            redis: redis_cpu_s(&self.redis).await?,
        })
    }
}

/// CPU time of Redis, by its own account.
async fn redis_cpu_s(redis: &RedisServer) -> anyhow::Result<f64> {
    let Reply::Text(info) = redis.target.run(&["INFO", "cpu"]).await? else {
        return Err(anyhow!("Redis does not state its CPU time"));
    };
    Ok(used_cpu_s(&info))
}

/// CPU time in user space and in the kernel, without child processes.
fn used_cpu_s(info: &str) -> f64 {
    let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    of("used_cpu_sys:").unwrap_or_default() + of("used_cpu_user:").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sequence::SequenceCounts;

    #[test]
    fn the_cpu_time_of_redis_is_read_without_its_children() {
        let info = "# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.25\r\nused_cpu_sys_children:7\r\n";
        assert!((used_cpu_s(info) - 3.75).abs() < 1e-9);
    }

    #[test]
    fn a_rate_is_sustained_when_all_of_it_comes_in_time() {
        let run = |lost, published_per_s, behind_s| EventsRun {
            rate_per_s: 1_000.0,
            published_per_s,
            sequences: SequenceCounts { lost, ..SequenceCounts::default() },
            behind_s,
            ..EventsRun::default()
        };
        assert!(is_sustained(&run(0, 990.0, 0.1)));
        assert!(!is_sustained(&run(1, 990.0, 0.1)));
        assert!(!is_sustained(&run(0, 900.0, 0.1)));
        assert!(!is_sustained(&run(0, 990.0, 2.0)));
    }
}
