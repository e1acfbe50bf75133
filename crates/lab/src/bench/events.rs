//! `bench events`: what it costs to bring events from one gateway to another, and how long it takes.
//!
//! Each run starts two gateways and a Redis. Events are published at the first gateway, as lines of one
//! request, and one WebSocket at the second gateway follows their type: live types travel over pub/sub,
//! durable ones through the log.

use std::{path::PathBuf, sync::Arc, sync::atomic::Ordering::Relaxed, thread, time::Duration};

use anyhow::{Context, anyhow};
use clap::Args;
use zonewire_kit::{eventually, redis::RedisServer, resp::Reply};
use zonewire_protocol::BridgeSubscriptions;

use super::{
    client::{Client, ClientPlan, Progress, Purpose, Seat},
    clock::{self, Clock, nanos},
    common::seconds,
    cpu::CpuTime,
    events_report::{EventsOf, EventsReport, EventsRun},
    payload::write_event,
    publisher::{PublishPlan, Publisher},
    report::Percentiles,
    target,
    watch::{drain, ready},
};
use crate::node::{Node, Start, find};

/// How long a gateway or Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long opening the connections may take.
const OPEN_S: f64 = 30.0;
/// How long to wait without arrivals after the last event.
const DRAIN_S: f64 = 3.0;
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

/// Arguments of `bench events`.
#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// How events travel from one gateway to the other [default: both, one after the other]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "HOW")]
    deliver: Vec<Delivery>,
    /// Events per second at which to measure the lag
    #[arg(long = "rate", value_delimiter = ',', default_values_t = [1_000.0, 5_000.0], value_parser = super::common::rate)]
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
    #[arg(long, default_value_t = 10_000.0, value_parser = super::common::rate)]
    from: f64,
    /// Length of a published event
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    payload_bytes: u32,
    /// The gateway's program [default: `zonewire` beside this one, or else on the PATH]
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// The only core for both gateways, set with `taskset`; run this program, and so Redis, on another one
    #[arg(long, value_name = "CORE")]
    gateway_core: Option<usize>,
    /// A setting of the gateways; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Write the report as JSON to FILE, or to standard output with `-`.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
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
    pub(super) fn as_str(self) -> &'static str {
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

/// Runs the measurement. Lost events are a result, not an error.
pub(super) fn run(args: &EventsArgs) -> anyhow::Result<EventsReport> {
    // Reads the gateways' logs meanwhile.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let all = [Delivery::Live, Delivery::Durable];
    let deliveries = if args.deliver.is_empty() { all.to_vec() } else { args.deliver.clone() };
    let program = runtime.block_on(find(args.gateway.as_deref()))?;
    let mut kinds = Vec::new();
    for delivery in deliveries {
        let turn = |rate: f64, warmup_s: f64, duration_s: f64| {
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
                let pair = Pair::start(args, program.clone(), delivery).await?;
                let measured = pair.measure(&plan).await;
                pair.end().await?;
                measured.with_context(|| format!("{} events at {rate} a second", delivery.as_str()))
            })
        };
        let mut at_rates = Vec::new();
        for rate in &args.rates {
            at_rates.push(turn(*rate, args.warmup, args.duration)?);
        }
        let (mut sustained, mut first_beyond, mut rate) = (None, None, args.from);
        while !args.no_limit && first_beyond.is_none() && rate <= RATE_MAX {
            let run = turn(rate, args.step / 4.0, args.step)?;
            match is_sustained(&run) {
                true => sustained = Some(run),
                false => first_beyond = Some(run),
            }
            rate *= STEP;
        }
        kinds.push(EventsOf { delivery, at_rates, sustained, first_beyond });
    }
    Ok(EventsReport { kind: "events", payload_bytes: args.payload_bytes as usize, kinds })
}

fn is_sustained(run: &EventsRun) -> bool {
    run.lost == 0 && run.published_per_s >= PUBLISHED_MIN * run.rate_per_s && run.behind_s <= BEHIND_S_MAX
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
    own: f64,
}

impl Pair {
    async fn start(args: &EventsArgs, program: PathBuf, delivery: Delivery) -> anyhow::Result<Self> {
        let redis = RedisServer::start(&[]).await.context("cannot start a Redis")?;
        let start = |index| Start {
            program: program.clone(),
            index,
            redis_url: Some(format!("redis://127.0.0.1:{}", redis.port)),
            config: None,
            token: None,
            settings: ["bridge.enabled=true", "storage.required=true"]
                .map(str::to_owned)
                .into_iter()
                .chain(args.settings.iter().cloned())
                .collect(),
            core: args.gateway_core,
            log: None,
            clock: None,
        };
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
            purpose: Purpose::Hold,
            open_concurrency: 1,
            handshake_timeout_s: OPEN_S,
            headers: Vec::new(),
            expect_subscribed: true,
            own_messages: true,
            started_ns: clock.now_ns(),
            arrivals_max: 0,
        };
        let client = ready(Client::start(vec![seat], &client, 1, clock)?, 1, OPEN_S, &clock)?;
        self.until_bridged().await?;
        let url = self.publisher.base.endpoint(&format!("api/events/{event}"));
        let publisher = Publisher::connect(&target::publish(&url, 1, false)?, clock)?;
        let publisher = publisher.context("nobody publishes")?;

        let Progress { measure_from_ns, .. } = &*client.progress;
        measure_from_ns.store(clock.now_ns() + nanos(plan.warmup_s), Relaxed);
        let plan_of_thread = plan.clone();
        let publishing = thread::Builder::new()
            .name("bench-publisher".to_owned())
            .spawn(move || publisher.run(&plan_of_thread))
            .context("cannot start the publisher")?;
        tokio::time::sleep(Duration::from_secs_f64(plan.warmup_s)).await;
        let before = self.cpu().await?;
        let (deliveries_before, began_ns) = (client.progress.deliveries.load(Relaxed), clock.now_ns());
        let published = publishing.join().map_err(|_| anyhow!("the publisher panicked"))??;
        let published_ns = clock.now_ns();
        drain(&client, published.by_channel.iter().sum(), DRAIN_S, &clock)?;
        let after = self.cpu().await?;
        let ended_ns = clock.now_ns();
        let last_ns = client.progress.last_delivery_ns.load(Relaxed);
        let deliveries = client.progress.deliveries.load(Relaxed) - deliveries_before;
        let tally = client.finish()?;

        let sequences = tally.sequences(Some(&published.by_channel));
        let window_s = clock::seconds(last_ns.saturating_sub(began_ns)).max(1e-9);
        let each = |cpu_s: f64| if deliveries > 0 { Some(cpu_s * 1e6 / deliveries as f64) } else { None };
        Ok(EventsRun {
            rate_per_s: plan.rate.unwrap_or_default(),
            published_per_s: published.measured as f64 / published.measured_s.max(1e-9),
            deliveries_per_s: deliveries as f64 / window_s,
            behind_s: clock::seconds(last_ns.saturating_sub(published_ns)),
            received: sequences.received,
            lost: sequences.lost,
            doubled: sequences.doubled,
            reordered: sequences.reordered,
            publish_late_us_max: published.late_ns_max as f64 / 1e3,
            lag_us: Percentiles::of(&tally.latency_ns),
            publisher_cpu_us_per_event: each(after.publisher - before.publisher),
            subscriber_cpu_us_per_event: each(after.subscriber - before.subscriber),
            redis_cpu_us_per_event: each(after.redis - before.redis),
            client_busy_ratio: (after.own - before.own) / clock::seconds(ended_ns - began_ns).max(1e-9),
        })
    }

    /// Waits until the second gateway receives the first one's live events; durable ones travel through the
    /// log.
    async fn until_bridged(&self) -> anyhow::Result<()> {
        if self.delivery == Delivery::Durable {
            return Ok(());
        }
        let (http, event) = (self.subscriber.base.http()?, self.delivery.event());
        let url = self.subscriber.base.endpoint("api/bridge/subscriptions");
        eventually("events are subscribed to", PATIENCE, async || {
            let answer = http.get(&url).timeout(PATIENCE).send().await.ok()?;
            let said: BridgeSubscriptions = serde_json::from_slice(&answer.bytes().await.ok()?).ok()?;
            said.types.iter().any(|of| of.event == event && of.active).then_some(())
        })
        .await
    }

    async fn cpu(&self) -> anyhow::Result<Cpu> {
        let of = |node: &Node| Ok::<_, anyhow::Error>(CpuTime::of(node.pid()?)?.total_s());
        Ok(Cpu {
            publisher: of(&self.publisher)?,
            subscriber: of(&self.subscriber)?,
            redis: redis_cpu_s(&self.redis).await?,
            own: CpuTime::own()?.total_s(),
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
            lost,
            behind_s,
            ..EventsRun::default()
        };
        assert!(is_sustained(&run(0, 990.0, 0.1)));
        assert!(!is_sustained(&run(1, 990.0, 0.1)));
        assert!(!is_sustained(&run(0, 900.0, 0.1)));
        assert!(!is_sustained(&run(0, 990.0, 2.0)));
    }
}
