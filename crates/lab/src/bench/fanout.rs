//! `bench fanout`: publishes messages that every subscriber must receive.

use std::{sync::atomic::Ordering::Relaxed, thread, time::Duration};

use anyhow::{Context, anyhow, ensure};
use clap::Args;

use super::{
    client::{Client, ClientPlan, Progress, Purpose},
    clock::{self, Clock, nanos},
    common::{CommonArgs, at_least_one, rate, seconds},
    cpu,
    payload::write_line,
    publisher::{PublishPlan, Published, Publisher},
    report::{FanoutReport, Percentiles, ServerCpu, ServerMemory},
    target::PublishTarget,
    watch::{Reading, drain, ready},
};

/// The length of the measured part if neither a duration nor a number of messages is given.
const DURATION_S: f64 = 10.0;

/// Its maximum if only a number of messages is given.
const DURATION_S_MAX: f64 = 300.0;

/// Arguments of `bench fanout`.
#[derive(Debug, Args)]
pub(super) struct FanoutArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Connections.
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    subscribers: usize,
    /// How many of them stop reading once they are open.
    #[arg(long, default_value_t = 0)]
    stalled: usize,
    /// Where to publish: `http://host:port/path` (one chunked NDJSON POST per
    /// channel, with its number for an n in braces), `tcp://host:port` (lines) or `none`.
    #[arg(long, value_name = "TARGET")]
    publish: String,
    /// Messages per second over all channels.
    #[arg(long, default_value_t = 20.0, value_parser = rate, conflicts_with = "flat_out")]
    rate: f64,
    /// Publish as fast as the server accepts.
    #[arg(long)]
    flat_out: bool,
    /// Seconds of publishing that are measured [default: 10, or up to 300 with --messages].
    #[arg(long, value_parser = seconds)]
    duration: Option<f64>,
    /// Stop after this many measured messages.
    #[arg(long)]
    messages: Option<u64>,
    /// Seconds of publishing before the measured part.
    #[arg(long, default_value_t = 0.0, value_parser = seconds)]
    warmup: f64,
    /// Length of a published line.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    payload_bytes: u32,
    /// How many keys the messages of a channel use, in turn.
    #[arg(long, default_value_t = 1)]
    keys: u64,
    /// A subscriber is ready only after a frame with `"type":"subscribed"`.
    #[arg(long)]
    expect_subscribed: bool,
    /// How many seconds opening all connections may take.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    open_timeout: f64,
    /// Seconds of pause between opening and publishing.
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    settle: f64,
    /// How many seconds to wait without arrivals after the last publish.
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    drain: f64,
}

/// Runs the measurement.
pub(super) fn run(args: &FanoutArgs) -> anyhow::Result<FanoutReport> {
    let common = &args.common;
    ensure!(args.stalled < args.subscribers, "--stalled must leave a subscriber that reads");
    cpu::ensure_open_files(args.subscribers, common.server_pid)?;
    let seats = common.seats(args.subscribers, args.stalled)?;
    let mut readers = vec![0; common.channels as usize];
    seats.iter().filter(|seat| !seat.stalled).for_each(|seat| readers[seat.channel] += 1);
    let target = common.publish_target(&args.publish)?;

    let clock = Clock::start();
    let rss_before_bytes = common.server_pid.map(cpu::rss_bytes).transpose()?;
    let plan = ClientPlan {
        expect_subscribed: args.expect_subscribed,
        own_messages: target != PublishTarget::None,
        ..common.client_plan(Purpose::Hold, &clock)
    };
    let client = Client::start(seats, &plan, common.threads, clock)?;
    let client = ready(client, args.subscribers, args.open_timeout, &clock)?;
    let open_s = clock.seconds_since(plan.started_ns);
    thread::sleep(Duration::from_secs_f64(args.settle));
    let rss_open_bytes = common.server_pid.map(cpu::rss_bytes).transpose()?;

    // Connect only now, since a server may cut an idle POST.
    let publisher = Publisher::connect(&target, clock)?;
    let (start, published) = publish_and_drain(args, publisher, &readers, &client, &clock)?;
    let end = Reading::take(&client.progress, common.server_pid, &clock)?;
    let rss_end_bytes = common.server_pid.map(cpu::rss_bytes).transpose()?;
    let last_ns = client.progress.last_delivery_ns.load(Relaxed);
    let tally = client.finish()?;

    let by_channel = published.as_ref().map(|published| published.by_channel.as_slice());
    let sequences = tally.sequences(by_channel);
    let deliveries = end.deliveries - start.deliveries;
    let window_s = clock::seconds(last_ns.max(start.at_ns) - start.at_ns);
    // The readings enclose the window, so they include all CPU time spent on it.
    let read_s = clock::seconds(end.at_ns - start.at_ns);
    let cpu = start.server.zip(end.server).map(|(start, end)| end.since(start));
    let memory = ServerMemory { rss_before_bytes, rss_open_bytes, rss_end_bytes, ..ServerMemory::default() };
    let mut report = FanoutReport {
        kind: "fanout",
        urls: common.urls.clone(),
        channels: common.channels,
        subscribers: args.subscribers,
        stalled: args.stalled,
        rate_per_s: (!args.flat_out).then_some(args.rate),
        payload_bytes: args.payload_bytes as usize,
        keys: args.keys,
        open_s,
        messages: None,
        published_per_s: None,
        publish_late_us_max: None,
        publish_status: Vec::new(),
        window_s,
        deliveries,
        deliveries_per_s: if window_s > 0.0 { deliveries as f64 / window_s } else { 0.0 },
        frame_bytes: if deliveries > 0 { (end.bytes - start.bytes) as f64 / deliveries as f64 } else { 0.0 },
        received: sequences.received,
        expected: by_channel.map(|by_channel| expected(&readers, by_channel)),
        lost: sequences.lost,
        doubled: sequences.doubled,
        reordered: sequences.reordered,
        stale: tally.stale,
        other_frames: tally.other_frames,
        pings: tally.pings,
        broken_frames: tally.broken_frames,
        closed_by_code: tally.closed_by_code.clone(),
        latency_us: Percentiles::of(&tally.latency_ns),
        server: cpu.map(|cpu| ServerCpu::of(cpu, window_s, deliveries)).unwrap_or_default(),
        memory: memory.per_connection(args.subscribers as u64),
        client_busy_ratio: end.own.since(start.own).total_s() / read_s.max(1e-9),
    };
    if let Some(published) = &published {
        report.set_published(published);
    }
    Ok(report)
}

/// Publishes, or waits while somebody else does, then waits for the remaining messages. Returns the reading
/// at the start of the window.
fn publish_and_drain(
    args: &FanoutArgs,
    publisher: Option<Publisher>,
    readers: &[u64],
    client: &Client,
    clock: &Clock,
) -> anyhow::Result<(Reading, Option<Published>)> {
    let Progress { measure_from_ns, .. } = &*client.progress;
    measure_from_ns.store(clock.now_ns() + nanos(args.warmup), Relaxed);
    let plan = args.publish_plan();
    // Without a warm-up the reading must come first, or it would miss the first messages.
    let early = match args.warmup > 0.0 {
        true => None,
        false => Some(Reading::take(&client.progress, args.common.server_pid, clock)?),
    };
    let duration_s = plan.duration_s;
    let publishing = match publisher {
        Some(publisher) => Some(
            thread::Builder::new()
                .name("bench-publisher".to_owned())
                .spawn(move || publisher.run(&plan))
                .context("cannot start the publisher")?,
        ),
        None => None,
    };
    let start = match early {
        Some(reading) => reading,
        None => {
            thread::sleep(Duration::from_secs_f64(args.warmup));
            Reading::take(&client.progress, args.common.server_pid, clock)?
        }
    };
    let Some(publishing) = publishing else {
        thread::sleep(Duration::from_secs_f64(duration_s));
        return Ok((start, None));
    };
    let published = publishing.join().map_err(|_| anyhow!("the publisher panicked"))??;
    let total = expected(readers, &published.by_channel);
    drain(client, total, args.drain, clock)?;
    Ok((start, Some(published)))
}

/// How many messages the reading subscribers must receive in total.
fn expected(readers: &[u64], published: &[u64]) -> u64 {
    readers.iter().zip(published).map(|(readers, published)| readers * published).sum()
}

impl FanoutArgs {
    fn publish_plan(&self) -> PublishPlan {
        let default_s = if self.messages.is_some() { DURATION_S_MAX } else { DURATION_S };
        PublishPlan {
            rate: (!self.flat_out).then_some(self.rate),
            payload_len: self.payload_bytes as usize,
            keys: self.keys,
            warmup_s: self.warmup,
            duration_s: self.duration.unwrap_or(default_s),
            messages: self.messages,
            write: write_line,
        }
    }
}
