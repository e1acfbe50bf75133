//! `bench order-updates`: updates posted for many orders, each followed by a socket of its own.
//!
//! Each order belongs to one HTTP connection, which has one request in progress at a time. So the updates of
//! an order are posted in order, and a wrong order on its socket is the server's fault.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use hyper::StatusCode;
use tokio::{task::JoinSet, time};
use uuid::Uuid;

use super::{
    client::{ClientPlan, Seat, histogram},
    clock::{Clock, nanos},
    common::{GatewayArgs, WaitArgs, at_least_one, rate, seconds},
    cpu,
    keep_alive::{KeepAlive, connect_all},
    payload::write_update,
    report::{OrderUpdatesReport, Percentiles},
    target::Endpoint,
    watch::{Reading, Subscribers},
};
use zonewire::client::block_on;

/// The most updates of a run; each takes 48 bytes here.
const UPDATES_MAX: f64 = 10_000_000.0;

#[derive(Debug, Args)]
pub(super) struct OrderUpdatesArgs {
    #[command(flatten)]
    pub(super) common: GatewayArgs,
    /// Where to post, if not where the sockets are: http://host:port; repeatable.
    #[arg(long = "post-url", value_name = "URL")]
    post_urls: Vec<String>,
    /// Orders, each with a socket.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    orders: usize,
    /// Updates per second over all orders, in turn.
    #[arg(long, default_value_t = 1000.0, value_parser = rate)]
    rate: f64,
    /// Seconds of posting that are measured.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    duration: f64,
    /// Seconds of posting before the measured part.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    warmup: f64,
    /// HTTP connections that post, one request at a time on each.
    #[arg(long, default_value_t = 32, value_parser = at_least_one)]
    connections: usize,
    /// Length of an update.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    payload_bytes: u32,
    /// Handshakes under way at once.
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    open_concurrency: usize,
    #[command(flatten)]
    waits: WaitArgs,
}

/// What to post, and when.
#[derive(Debug, Clone)]
struct PostPlan {
    orders: Arc<[Uuid]>,
    /// Updates per second over all orders.
    rate: f64,
    payload_len: usize,
    started_ns: u64,
    measured_from_ns: u64,
    ends_ns: u64,
}

/// What one connection posted, or all of them.
#[derive(Debug, Default)]
struct Posted {
    /// By order, including the warm-up; all of these were accepted.
    by_order: Vec<u64>,
    /// Of the measured updates: when each was sent (all times differ) and when its answer arrived.
    answered: Vec<(u64, u64)>,
    /// The longest delay of an update.
    late_ns_max: u64,
}

/// An update that is not accepted ends it.
pub(super) fn run(args: &OrderUpdatesArgs) -> anyhow::Result<OrderUpdatesReport> {
    let common = &args.common;
    let total = args.rate * (args.warmup + args.duration);
    ensure!(total <= UPDATES_MAX, "{total:.0} updates are more than a run may have, {UPDATES_MAX:.0}");
    cpu::ensure_open_files(args.orders + args.connections, common.server.server_pid)?;
    let sockets = common.gateways()?;
    let bases = match args.post_urls.is_empty() {
        true => sockets.clone(),
        false => common.resolve(&args.post_urls)?,
    };
    // New orders, of which nothing is stored and which nobody else updates.
    let orders: Arc<[Uuid]> = (0..args.orders).map(|_| Uuid::new_v4()).collect();
    let seats = orders.iter().enumerate().map(|(channel, order)| Seat {
        endpoint: Arc::new(sockets[channel % sockets.len()].at(&format!("/ws/orders/{order}"))),
        channel,
        stalled: false,
        hello: None,
    });

    let clock = Clock::start();
    let plan = ClientPlan {
        open_concurrency: args.open_concurrency,
        handshake_timeout_s: args.waits.open_timeout,
        expect_subscribed: true,
        own_messages: true,
        started_ns: clock.now_ns(),
        arrivals_max: UPDATES_MAX as usize,
        ..ClientPlan::default()
    };
    let subscribers =
        Subscribers::open(seats.collect(), &plan, 1, &args.waits, common.server.server_pid, clock)?;
    let (start, posted) = post_and_drain(args, &bases, &orders, &subscribers, clock)?;
    let expected = posted.by_order.iter().sum();
    let (delivered, tally) = subscribers.finish(&start, Some(&posted.by_order), Some(expected))?;
    let compared = compare(&posted.answered, &tally.arrivals);
    let updates = posted.answered.len() as u64;
    Ok(OrderUpdatesReport {
        urls: common.urls.clone(),
        post_urls: if args.post_urls.is_empty() { common.urls.clone() } else { args.post_urls.clone() },
        orders: args.orders,
        connections: args.connections.min(args.orders),
        rate_per_s: args.rate,
        payload_bytes: args.payload_bytes as usize,
        updates,
        updates_per_s: updates as f64 / args.duration.max(1e-9),
        post_late_us_max: posted.late_ns_max as f64 / 1e3,
        delivered,
        after_answer_us: Percentiles::of(&compared.after_answer_ns),
        before_answer_ratio: compared.before_answer_ratio,
        answer_us: Percentiles::of(&compared.answer_ns),
    })
}

/// Posts to the end of the plan, then waits for the remaining updates. Returns the reading at the start of
/// the window.
fn post_and_drain(
    args: &OrderUpdatesArgs,
    bases: &[Endpoint],
    orders: &Arc<[Uuid]>,
    subscribers: &Subscribers,
    clock: Clock,
) -> anyhow::Result<(Reading, Posted)> {
    let progress = &subscribers.client.progress;
    let measured = block_on(async {
        let connections = connect_all(bases, args.connections.min(args.orders), clock).await?;
        let started_ns = clock.now_ns();
        let plan = PostPlan {
            orders: Arc::clone(orders),
            rate: args.rate,
            payload_len: args.payload_bytes as usize,
            started_ns,
            measured_from_ns: started_ns + nanos(args.warmup),
            ends_ns: started_ns + nanos(args.warmup + args.duration),
        };
        progress.measure_from_ns.store(plan.measured_from_ns, Relaxed);
        let reading = async {
            // Without a warm-up the reading must come first, or it would miss the first updates.
            if args.warmup > 0.0 {
                time::sleep(Duration::from_secs_f64(args.warmup)).await;
            }
            subscribers.reading()
        };
        tokio::try_join!(reading, post(connections, plan, clock))
    })?;
    subscribers.drain(measured.1.by_order.iter().sum(), args.waits.drain)?;
    Ok(measured)
}

/// Posts over all connections at once.
async fn post(connections: Vec<KeepAlive>, plan: PostPlan, clock: Clock) -> anyhow::Result<Posted> {
    let width = connections.len();
    let mut all = Posted { by_order: vec![0; plan.orders.len()], ..Posted::default() };
    let last_sent_ns = Arc::new(AtomicU64::new(0));
    let mut posting = JoinSet::new();
    for (place, connection) in connections.into_iter().enumerate() {
        let (plan, last_sent_ns) = (plan.clone(), Arc::clone(&last_sent_ns));
        posting.spawn(async move {
            let poster = Poster { connection, place, width, plan, last_sent_ns, clock };
            anyhow::Ok((place, poster.post().await?))
        });
    }
    while let Some(posted) = posting.join_next().await {
        let (place, posted) = posted.context("a connection that posts panicked")??;
        for (order, count) in all.by_order[place..].iter_mut().step_by(width).zip(posted.by_order) {
            *order = count;
        }
        all.answered.extend(posted.answered);
        all.late_ns_max = all.late_ns_max.max(posted.late_ns_max);
    }
    Ok(all)
}

/// One connection and its orders: every `width`th from `place` on.
#[derive(Debug)]
struct Poster {
    connection: KeepAlive,
    place: usize,
    width: usize,
    plan: PostPlan,
    /// Shared by all connections, so that the send time identifies an update.
    last_sent_ns: Arc<AtomicU64>,
    clock: Clock,
}

impl Poster {
    async fn post(mut self) -> anyhow::Result<Posted> {
        let PostPlan { orders, rate, payload_len, started_ns, measured_from_ns, ends_ns } = self.plan.clone();
        let own: Vec<usize> = (self.place..orders.len()).step_by(self.width).collect();
        let mut posted = Posted { by_order: vec![0; own.len()], ..Posted::default() };
        for seq in 0u64.. {
            for (index, place) in own.iter().enumerate() {
                let nth = seq as f64 * orders.len() as f64 + *place as f64;
                let due_ns = started_ns + nanos(nth / rate);
                self.sleep_until(due_ns.min(ends_ns)).await;
                // The clock decides too: a server that is slower than the rate must not prolong the run.
                let sent_ns = self.stamp();
                if due_ns.max(sent_ns) >= ends_ns {
                    return Ok(posted);
                }
                let mut update = String::with_capacity(payload_len);
                write_update(&mut update, seq, sent_ns, payload_len);
                let path = format!("/api/orders/{}/updates", orders[*place]);
                let answered = self.connection.post(&path, update, StatusCode::OK).await?;
                posted.by_order[index] += 1;
                if sent_ns >= measured_from_ns {
                    posted.answered.push((sent_ns, answered.at_ns));
                    posted.late_ns_max = posted.late_ns_max.max(sent_ns.saturating_sub(due_ns));
                }
            }
        }
        Ok(posted)
    }

    async fn sleep_until(&self, due_ns: u64) {
        let now_ns = self.clock.now_ns();
        if due_ns > now_ns {
            time::sleep(Duration::from_nanos(due_ns - now_ns)).await;
        }
    }

    /// The time, but later than any previous one. All connections run on one thread.
    fn stamp(&self) -> u64 {
        let now_ns = self.clock.now_ns().max(self.last_sent_ns.load(Relaxed) + 1);
        self.last_sent_ns.store(now_ns, Relaxed);
        now_ns
    }
}

/// The arrivals of updates compared with their answers.
#[derive(Debug)]
struct Compared {
    /// From sending to the answer.
    answer_ns: Histogram<u64>,
    /// From the answer to the arrival; zero if the arrival was first.
    after_answer_ns: Histogram<u64>,
    /// The share that arrived before its answer.
    before_answer_ratio: Option<f64>,
}

/// In both lists the first number is the send time, which identifies an update.
fn compare(answered: &[(u64, u64)], arrivals: &[(u64, u64)]) -> Compared {
    // Here zero is a valid value: most updates arrive before their answer.
    let exact = Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are valid");
    let (mut answer_ns, mut after_answer_ns, mut before) = (histogram(), exact, 0);
    for (sent_ns, at_ns) in answered {
        answer_ns.saturating_record(at_ns.saturating_sub(*sent_ns));
    }
    let by_sent: HashMap<u64, u64> = answered.iter().copied().collect();
    for (sent_ns, arrived_ns) in arrivals {
        if let Some(answered_ns) = by_sent.get(sent_ns) {
            after_answer_ns.saturating_record(arrived_ns.saturating_sub(*answered_ns));
            before += u64::from(arrived_ns < answered_ns);
        }
    }
    let count = after_answer_ns.len();
    let before_answer_ratio = (count > 0).then(|| before as f64 / count as f64);
    Compared { answer_ns, after_answer_ns, before_answer_ratio }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_compared_with_the_answers_of_the_same_updates() {
        let ms = |ms: u64| ms * 1_000_000;
        let answered = [(ms(1), ms(5)), (ms(2), ms(4)), (ms(3), ms(6))];
        // The second one arrives before its answer, the third is lost, and the first list entry is from the
        // warm-up.
        let arrivals = [(ms(0), ms(1)), (ms(1), ms(8)), (ms(2), ms(3))];
        let compared = compare(&answered, &arrivals);
        assert_eq!((compared.answer_ns.len(), compared.after_answer_ns.len()), (3, 2));
        assert_eq!(compared.before_answer_ratio, Some(0.5));
        let near = |ns: u64, ms: u64| ns.abs_diff(ms * 1_000_000) < 10_000;
        assert!(near(compared.answer_ns.max(), 4) && near(compared.after_answer_ns.max(), 3));
        assert_eq!(compared.after_answer_ns.min(), 0);
        assert_eq!(compare(&[], &[]).before_answer_ratio, None);
    }
}
