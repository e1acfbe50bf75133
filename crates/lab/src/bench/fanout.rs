//! `bench fanout`: publishes messages that every subscriber must receive.

use std::{sync::atomic::Ordering::Relaxed, thread, time::Duration};

use anyhow::ensure;
use clap::Args;

use super::{
    client::{ClientPlan, Purpose},
    clock::{Clock, nanos},
    common::{CommonArgs, WaitArgs, at_least_one, rate, seconds},
    cpu,
    payload::write_line,
    publisher::{PublishPlan, Published, Publisher},
    report::FanoutReport,
    target::PublishTarget,
    watch::{Reading, Subscribers},
};

/// The length of the measured part if neither a duration nor a number of messages is given.
const DURATION_S: f64 = 10.0;

/// Its maximum if only a number of messages is given.
const DURATION_S_MAX: f64 = 300.0;

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
    /// How many keys the messages of a channel use, one after the other.
    #[arg(long, default_value_t = 1)]
    keys: u64,
    /// A subscriber is ready only after a frame with `"type":"subscribed"`.
    #[arg(long)]
    expect_subscribed: bool,
    #[command(flatten)]
    waits: WaitArgs,
}

pub(super) fn run(args: &FanoutArgs) -> anyhow::Result<FanoutReport> {
    let common = &args.common;
    ensure!(args.stalled < args.subscribers, "--stalled must leave a subscriber that reads");
    cpu::ensure_open_files(args.subscribers, common.server.server_pid)?;
    let seats = common.seats(args.subscribers, args.stalled)?;
    let mut readers = vec![0; common.channels as usize];
    seats.iter().filter(|seat| !seat.stalled).for_each(|seat| readers[seat.channel] += 1);
    let target = common.publish_target(&args.publish)?;

    let clock = Clock::start();
    let plan = ClientPlan {
        expect_subscribed: args.expect_subscribed,
        own_messages: target != PublishTarget::None,
        ..common.client_plan(Purpose::Hold, &clock)
    };
    let pid = common.server.server_pid;
    let subscribers = Subscribers::open(seats, &plan, common.open.threads, &args.waits, pid, clock)?;
    // Connect only now, since a server may cut an idle POST.
    let publisher = Publisher::connect(&target, clock)?;
    let (start, published) = publish_and_drain(args, publisher, &readers, &subscribers, &clock)?;
    let published = published.as_ref();
    let by_channel = published.map(|published| published.by_channel.as_slice());
    let expected = by_channel.map(|by_channel| expected(&readers, by_channel));
    let (delivered, _tally) = subscribers.finish(&start, by_channel, expected)?;
    let statuses = |published: &Published| published.answers.iter().map(|answer| answer.status).collect();
    Ok(FanoutReport {
        urls: common.urls.clone(),
        channels: common.channels,
        subscribers: args.subscribers,
        stalled: args.stalled,
        rate_per_s: (!args.flat_out).then_some(args.rate),
        payload_bytes: args.payload_bytes as usize,
        keys: args.keys,
        messages: published.map(|published| published.measured),
        published_per_s: published.and_then(Published::per_s),
        publish_late_us_max: published.filter(|_| !args.flat_out).map(Published::late_us_max),
        publish_status: published.map(statuses).unwrap_or_default(),
        delivered,
    })
}

/// Publishes, or waits while somebody else does, then waits for the remaining messages. Returns the reading
/// at the start of the window.
fn publish_and_drain(
    args: &FanoutArgs,
    publisher: Option<Publisher>,
    readers: &[u64],
    subscribers: &Subscribers,
    clock: &Clock,
) -> anyhow::Result<(Reading, Option<Published>)> {
    let progress = &subscribers.client.progress;
    progress.measure_from_ns.store(clock.now_ns() + nanos(args.warmup), Relaxed);
    let plan = args.publish_plan();
    let duration = Duration::from_secs_f64(plan.duration_s);
    // Without a warm-up the reading must come first, or it would miss the first messages.
    let early = if args.warmup > 0.0 { None } else { Some(subscribers.reading()?) };
    let publishing = publisher.map(|publisher| publisher.start(plan)).transpose()?;
    let start = match early {
        Some(reading) => reading,
        None => {
            thread::sleep(Duration::from_secs_f64(args.warmup));
            subscribers.reading()?
        }
    };
    let Some(publishing) = publishing else {
        thread::sleep(duration);
        return Ok((start, None));
    };
    let published = publishing.end()?;
    subscribers.drain(expected(readers, &published.by_channel), args.waits.drain)?;
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
