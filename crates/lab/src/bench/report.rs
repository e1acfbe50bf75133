//! The reports: fields with stable names that include their units, as JSON and as text.
//!
//! A figure that was not measured is `null`, never zero.

use std::{collections::BTreeMap, fs, io, path::Path};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::ser::Formatter;

use super::{clock::Clock, cpu::CpuTime, credential::Kind, events::Delivery, sequence::SequenceCounts};
use crate::figures::Spread;

#[derive(Debug, Serialize)]
pub(super) struct FanoutReport {
    /// The subscribers' URLs, as they were passed.
    pub(super) urls: Vec<String>,
    pub(super) channels: u32,
    /// All connections, including the stalled ones.
    pub(super) subscribers: usize,
    /// How many of them read nothing after opening. They do not count in any delivery.
    pub(super) stalled: usize,
    /// The requested messages per second; null means as fast as possible.
    pub(super) rate_per_s: Option<f64>,
    /// Length of a published line.
    pub(super) payload_bytes: usize,
    pub(super) keys: u64,
    /// Messages published in the measured part; null if somebody else published.
    pub(super) messages: Option<u64>,
    pub(super) published_per_s: Option<f64>,
    /// The longest delay of a message at a rate. More than a few milliseconds mean that the client was short
    /// of CPU.
    pub(super) publish_late_us_max: Option<f64>,
    /// The status of the server's answer to each `POST`.
    pub(super) publish_status: Vec<u16>,
    #[serde(flatten)]
    pub(super) delivered: Delivered,
}

/// What the subscribers of a run received, and what that cost.
#[derive(Debug, Serialize)]
pub(super) struct Delivered {
    /// From the first connect until every subscriber was ready.
    pub(super) open_s: f64,
    /// From the end of the warm-up to the last delivery.
    pub(super) window_s: f64,
    /// Messages received in the window, over all subscribers.
    pub(super) deliveries: u64,
    pub(super) deliveries_per_s: f64,
    /// The average size of a frame with a message, including header and envelope.
    pub(super) frame_bytes: f64,
    #[serde(flatten)]
    pub(super) sequences: SequenceCounts,
    /// How many had to be received: published messages times reading subscribers.
    pub(super) expected: Option<u64>,
    /// Messages sent before this run began.
    pub(super) stale: u64,
    /// Frames without a message: welcome, subscription, heartbeat.
    pub(super) other_frames: u64,
    pub(super) pings: u64,
    /// Connections that sent something that is not a frame.
    pub(super) broken_frames: u64,
    /// Connections that the server ended; 1006 means without a close frame.
    pub(super) closed_by_code: BTreeMap<u16, u64>,
    /// From just before a message was written until it was received.
    pub(super) latency_us: Option<Percentiles>,
    #[serde(flatten)]
    pub(super) server: ServerCpu,
    #[serde(flatten)]
    pub(super) memory: ServerMemory,
    /// CPU time of this process relative to the window. Near one per busy thread, or near the share of a core
    /// that it gets, the client is the bottleneck, and the figures say little about the server.
    pub(super) client_busy_ratio: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct IdleReport {
    pub(super) urls: Vec<String>,
    pub(super) connections: usize,
    pub(super) open_concurrency: usize,
    pub(super) opened: u64,
    pub(super) failed: u64,
    pub(super) failures_by_reason: BTreeMap<String, u64>,
    /// From the first connect until the last one was open or had failed.
    pub(super) open_s: f64,
    pub(super) connections_per_s: f64,
    /// How many were still open after settling.
    pub(super) held: u64,
    pub(super) closed_by_code: BTreeMap<u16, u64>,
    pub(super) other_frames: u64,
    pub(super) handshake_us: Option<Percentiles>,
    #[serde(flatten)]
    pub(super) memory: ServerMemory,
    /// The server's CPU time from the first connect to the end of settling.
    pub(super) server_cpu_s: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct ConnectReport {
    pub(super) urls: Vec<String>,
    pub(super) open_concurrency: usize,
    pub(super) duration_s: f64,
    pub(super) opened: u64,
    pub(super) failed: u64,
    pub(super) failures_by_reason: BTreeMap<String, u64>,
    pub(super) connections_per_s: f64,
    pub(super) handshake_us: Option<Percentiles>,
    pub(super) server_cpu_s: Option<f64>,
    pub(super) server_cpu_us_per_connection: Option<f64>,
    pub(super) client_busy_ratio: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct HandshakesReport {
    /// Whether the gateway had verified the tokens before.
    pub(super) again: bool,
    /// How many rounds there were.
    pub(super) rounds: u32,
    /// The measured part of a round, per kind.
    pub(super) duration_s: f64,
    pub(super) open_concurrency: usize,
    pub(super) kinds: Vec<HandshakesOfKind>,
}

/// The results of one kind of credential: medians over the rounds, and sums of counts.
#[derive(Debug, Serialize)]
pub(super) struct HandshakesOfKind {
    pub(super) shown: Kind,
    pub(super) opened: u64,
    pub(super) failed: u64,
    pub(super) failures_by_reason: BTreeMap<String, u64>,
    pub(super) handshakes_per_s: f64,
    /// Per second of the gateway's CPU time: the figure to compare.
    pub(super) handshakes_per_cpu_s: Option<f64>,
    pub(super) server_cpu_us_per_handshake: Option<f64>,
    /// How much more that is than without a credential.
    pub(super) more_than_none_us: Option<f64>,
    pub(super) handshake_us: Option<Percentiles>,
    pub(super) client_busy_ratio: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct AccessReport {
    pub(super) questions: u32,
    /// Identifying a client, by its credential.
    pub(super) authenticate: Vec<NsEach>,
    /// Deciding whether a principal may subscribe.
    pub(super) may_subscribe: Vec<NsEach>,
}

#[derive(Debug, Serialize)]
pub(super) struct EventsReport {
    pub(super) payload_bytes: usize,
    pub(super) kinds: Vec<EventsOf>,
}

/// The results of one kind of delivery.
#[derive(Debug, Serialize)]
pub(super) struct EventsOf {
    pub(super) delivery: Delivery,
    /// At each requested rate.
    pub(super) at_rates: Vec<EventsRun>,
    /// The greatest rate tried at which nothing was lost or delayed.
    pub(super) sustained: Option<EventsRun>,
    /// The first rate at which something was; null if that was not searched for, or not found.
    pub(super) first_beyond: Option<EventsRun>,
}

/// The results at one rate.
#[derive(Debug, Default, Serialize)]
pub(super) struct EventsRun {
    /// The requested rate.
    pub(super) rate_per_s: f64,
    pub(super) published_per_s: f64,
    /// From the end of the warm-up to the last arrival.
    pub(super) deliveries_per_s: f64,
    /// From the last publish, once answered, to the last arrival.
    pub(super) behind_s: f64,
    #[serde(flatten)]
    pub(super) sequences: SequenceCounts,
    /// The longest delay of a publish.
    pub(super) publish_late_us_max: f64,
    /// From just before an event was written to the first gateway until it was read at the second one's
    /// socket.
    pub(super) lag_us: Option<Percentiles>,
    /// CPU time of the first gateway, ...
    pub(super) publisher_cpu_us_per_event: Option<f64>,
    /// ... of the second one, ...
    pub(super) subscriber_cpu_us_per_event: Option<f64>,
    /// ... and of Redis, by its own account.
    pub(super) redis_cpu_us_per_event: Option<f64>,
    pub(super) client_busy_ratio: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct RegistryReport {
    /// How many records there are.
    pub(super) records: usize,
    /// Reads in this process, by one thread.
    pub(super) reads: Vec<NsEach>,
    /// The requested updates per second.
    pub(super) updates_asked_per_s: f64,
    #[serde(flatten)]
    pub(super) updates: Updates,
    /// How many gateways were cut off from Redis.
    pub(super) gateways: usize,
    /// For how long.
    pub(super) apart_s: f64,
    #[serde(flatten)]
    pub(super) apart: Apart,
}

/// The results of updates at a rate.
#[derive(Debug, Serialize)]
pub(super) struct Updates {
    /// The actual ones.
    pub(super) updates_per_s: f64,
    /// From an update until the log has the record.
    pub(super) behind_us: Option<Percentiles>,
    /// How many entries these updates became.
    pub(super) appended: u64,
    /// CPU time of this process, which includes the gateway, per update.
    pub(super) cpu_us_per_update: f64,
}

/// The results of gateways that were cut off.
#[derive(Debug, Serialize)]
pub(super) struct Apart {
    /// How many writes they accepted meanwhile.
    pub(super) written_apart: usize,
    /// From when Redis could be reached again until all gateways held the same; null if they never did.
    pub(super) converged_ms: Option<f64>,
    /// How many records then differed from the last write.
    pub(super) wrong: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct DeadPrimaryReport {
    /// Channels of the other primaries, and the requested appends per second to all of them.
    pub(super) healthy: u32,
    pub(super) rate_per_s: f64,
    /// Channels of the primary that failed, and the same of them.
    pub(super) forked: u32,
    pub(super) forked_rate_per_s: f64,
    /// All primaries serve; ...
    pub(super) before: Stretch,
    /// ... one does not, and all of its channels are forked; ...
    pub(super) during: Stretch,
    /// ... and all of them have been reconciled.
    pub(super) after: Stretch,
    /// How long it took to fork all of them.
    pub(super) forking_s: f64,
    /// From when the primary went on until everything was in step with the logs again.
    pub(super) reconciled_s: f64,
}

/// What was measured while the state of the cluster did not change.
#[derive(Debug, Serialize)]
pub(super) struct Stretch {
    pub(super) appends_per_s: f64,
    pub(super) others_per_s: f64,
    /// What an append to a channel of the other primaries took.
    pub(super) append_us: Option<Percentiles>,
    /// The same of the primary that failed.
    pub(super) other_append_us: Option<Percentiles>,
    /// CPU time of this process; 1 means one core.
    pub(super) busy_ratio: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct OrderUpdatesReport {
    /// The addresses of the sockets, as given.
    pub(super) urls: Vec<String>,
    /// Where updates were posted.
    pub(super) post_urls: Vec<String>,
    /// Each order has one socket.
    pub(super) orders: usize,
    /// HTTP connections that posted.
    pub(super) connections: usize,
    /// The requested updates per second.
    pub(super) rate_per_s: f64,
    pub(super) payload_bytes: usize,
    /// Updates that were posted and accepted in the measured part.
    pub(super) updates: u64,
    pub(super) updates_per_s: f64,
    /// The longest delay of a post. More than tens of milliseconds mean that answers took longer than the
    /// interval between two updates of a connection.
    pub(super) post_late_us_max: f64,
    #[serde(flatten)]
    pub(super) delivered: Delivered,
    /// From the answer to the arrival; zero if the arrival was first.
    pub(super) after_answer_us: Option<Percentiles>,
    /// The share of updates that arrived before their answer.
    pub(super) before_answer_ratio: Option<f64>,
    /// From just before the request was written to its answer.
    pub(super) answer_us: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
pub(super) struct OrderThroughputReport {
    /// The gateways, as given.
    pub(super) urls: Vec<String>,
    pub(super) orders: u64,
    /// HTTP connections that placed them.
    pub(super) connections: usize,
    /// From the first request until the last order was accepted.
    pub(super) placed_s: f64,
    /// From the first request until all orders were seen to have ended.
    pub(super) window_s: f64,
    /// Ended orders over the whole window.
    pub(super) orders_per_s: f64,
    /// Accepted, over the time of placing.
    pub(super) placed: Stage,
    /// Claims by workers; more than orders if some were retried.
    pub(super) runs: Stage,
    /// Updates written.
    pub(super) updates: Stage,
    pub(super) ended: Stage,
    pub(super) confirmed: u64,
    pub(super) failed: u64,
    pub(super) retried: u64,
    /// Orders that had not ended when the time was over.
    pub(super) unfinished: u64,
    /// From just before an order was sent until it was accepted.
    pub(super) answer_us: Option<Percentiles>,
    /// How often the gateways' counters were read after the last order was accepted.
    pub(super) stats_asked: u64,
    pub(super) server_cpu_s: Option<f64>,
    pub(super) server_cpu_us_per_order: Option<f64>,
    /// 1 means one core.
    pub(super) server_busy_ratio: Option<f64>,
    pub(super) client_busy_ratio: f64,
}

/// How many orders passed a stage, and how fast.
#[derive(Debug, Serialize)]
pub(super) struct Stage {
    pub(super) count: u64,
    pub(super) per_s: f64,
}

/// How long an action took in nanoseconds: the median of twenty parts, the least and the greatest.
#[derive(Debug, Serialize)]
pub(super) struct NsEach {
    pub(super) what: &'static str,
    pub(super) ns: f64,
    pub(super) ns_least: f64,
    pub(super) ns_most: f64,
}

/// A histogram in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Percentiles {
    pub(super) count: u64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// The server's CPU time in the measured window.
#[derive(Debug, Default, Serialize)]
pub(super) struct ServerCpu {
    pub(super) server_user_s: Option<f64>,
    pub(super) server_system_s: Option<f64>,
    /// 1 means one core.
    pub(super) server_busy_ratio: Option<f64>,
    pub(super) server_user_us_per_delivery: Option<f64>,
    pub(super) server_system_us_per_delivery: Option<f64>,
    pub(super) deliveries_per_cpu_s: Option<f64>,
}

/// The server's resident memory.
#[derive(Debug, Default, Serialize)]
pub(super) struct ServerMemory {
    /// Before the first connection.
    pub(super) rss_before_bytes: Option<u64>,
    /// With all connections open, before anything was published.
    pub(super) rss_open_bytes: Option<u64>,
    /// At the end, with the connections still open.
    pub(super) rss_end_bytes: Option<u64>,
    /// What each open connection added.
    pub(super) rss_bytes_per_connection: Option<f64>,
}

/// Prints the report for people, and writes it as JSON to this file; with `-` it prints only JSON.
pub(super) fn emit(kind: &'static str, report: &impl Serialize, json: Option<&Path>) -> anyhow::Result<()> {
    /// A report with the subcommand that made it.
    #[derive(Serialize)]
    struct Named<'a, R> {
        kind: &'static str,
        #[serde(flatten)]
        report: &'a R,
    }
    let named = Named { kind, report };
    if json == Some(Path::new("-")) {
        println!("{}", serde_json::to_string_pretty(&named)?);
        return Ok(());
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&named)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", for_people(&named)?);
    Ok(())
}

/// The report with a line for each field and for each item of a list; figures that were not measured are `-`.
fn for_people(report: &impl Serialize) -> anyhow::Result<String> {
    let mut text = Vec::new();
    report.serialize(&mut serde_json::Serializer::with_formatter(&mut text, Lines::default()))?;
    Ok(String::from_utf8(text)?.trim_start().to_owned())
}

/// How deep in the report it is.
#[derive(Default)]
struct Lines {
    depth: usize,
}

impl Lines {
    fn new_line<W: ?Sized + io::Write>(&self, out: &mut W) -> io::Result<()> {
        write!(out, "\n{:width$}", "", width = 2 * (self.depth - 1))
    }
}

impl Formatter for Lines {
    fn write_null<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b"-")
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        write!(out, "{value:.2}")
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, _out: &mut W) -> io::Result<()> {
        Ok(())
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, _out: &mut W) -> io::Result<()> {
        Ok(())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, _out: &mut W) -> io::Result<()> {
        self.depth += 1;
        Ok(())
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, _first: bool) -> io::Result<()> {
        self.new_line(out)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, _out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        if self.depth > 1 { out.write_all(b"(") } else { Ok(()) }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        match self.depth {
            1 => self.new_line(out),
            _ if first => Ok(()),
            _ => out.write_all(b", "),
        }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b" ")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        if self.depth > 0 { out.write_all(b")") } else { Ok(()) }
    }
}

impl Percentiles {
    /// `None` if nothing was recorded.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile: f64| us(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(histogram.max()),
        })
    }
}

impl NsEach {
    /// The number of parts of a measurement.
    const PARTS: u32 = 20;

    /// Does something for so many rounds at least.
    pub(super) fn time(what: &'static str, rounds: u32, mut act: impl FnMut()) -> Self {
        let (clock, rounds) = (Clock::start(), rounds.div_ceil(Self::PARTS).max(1));
        let parts = (0..Self::PARTS).map(|_| {
            let begun_ns = clock.now_ns();
            (0..rounds).for_each(|_| act());
            clock.now_ns().saturating_sub(begun_ns) as f64 / f64::from(rounds)
        });
        let Spread { least, median, most } = Spread::of(parts).unwrap_or_default();
        Self { what, ns: median, ns_least: least, ns_most: most }
    }
}

impl ServerCpu {
    pub(super) fn of(cpu: CpuTime, window_s: f64, deliveries: u64) -> Self {
        let per_delivery = |cpu_s: f64| (deliveries > 0).then(|| cpu_s * 1e6 / deliveries as f64);
        Self {
            server_user_s: Some(cpu.user_s),
            server_system_s: Some(cpu.system_s),
            server_busy_ratio: (window_s > 0.0).then(|| cpu.total_s() / window_s),
            server_user_us_per_delivery: per_delivery(cpu.user_s),
            server_system_us_per_delivery: per_delivery(cpu.system_s),
            deliveries_per_cpu_s: (cpu.total_s() > 0.0).then(|| deliveries as f64 / cpu.total_s()),
        }
    }
}

impl ServerMemory {
    /// Sets what each connection added, once `rss_open_bytes` is known.
    pub(super) fn per_connection(self, connections: u64) -> Self {
        let added = match (self.rss_before_bytes, self.rss_open_bytes) {
            (Some(before), Some(open)) if connections > 0 => {
                Some((open as f64 - before as f64) / connections as f64)
            }
            _ => None,
        };
        Self { rss_bytes_per_connection: added, ..self }
    }
}

impl HandshakesReport {
    /// Adds what each kind costs beyond none, if that was measured.
    pub(super) fn compared(mut self) -> Self {
        let none = self.kinds.iter().find(|of| of.shown == Kind::None);
        if let Some(none_us) = none.and_then(|none| none.server_cpu_us_per_handshake) {
            for of in self.kinds.iter_mut().filter(|of| of.shown != Kind::None) {
                of.more_than_none_us = of.server_cpu_us_per_handshake.map(|us| us - none_us);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_a_line_for_each_field_and_each_item() {
        #[derive(Serialize)]
        struct Report {
            urls: [&'static str; 1],
            rate_per_s: f64,
            server_cpu_s: Option<f64>,
            answers: Vec<Stage>,
            ended: Stage,
        }
        let ended = || Stage { count: 5, per_s: 0.25 };
        let report = Report {
            urls: ["ws://a/b"],
            rate_per_s: 20.0,
            server_cpu_s: None,
            answers: vec![ended(), ended()],
            ended: ended(),
        };
        let expected = [
            "urls ",
            "  ws://a/b",
            "rate_per_s 20.00",
            "server_cpu_s -",
            "answers ",
            "  (count 5, per_s 0.25)",
            "  (count 5, per_s 0.25)",
            "ended (count 5, per_s 0.25)",
        ];
        assert_eq!(for_people(&report).unwrap(), expected.join("\n"));
    }

    #[test]
    fn cpu_per_delivery_is_split() {
        let cpu = ServerCpu::of(CpuTime { user_s: 1.0, system_s: 3.0 }, 8.0, 2_000_000);
        assert_eq!(cpu.server_user_us_per_delivery, Some(0.5));
        assert_eq!(cpu.server_system_us_per_delivery, Some(1.5));
        assert_eq!(cpu.deliveries_per_cpu_s, Some(500_000.0));
        assert_eq!(cpu.server_busy_ratio, Some(0.5));
    }

    #[test]
    fn figures_that_were_not_measured_are_absent() {
        let cpu = ServerCpu::of(CpuTime::default(), 1.0, 0);
        assert_eq!(cpu.server_user_us_per_delivery, None);
        assert_eq!(cpu.deliveries_per_cpu_s, None);
        assert_eq!(ServerMemory::default().per_connection(5).rss_bytes_per_connection, None);
        let empty = Histogram::<u64>::new(3).unwrap();
        assert!(Percentiles::of(&empty).is_none());
    }

    #[test]
    fn memory_is_divided_by_the_connections() {
        let memory = ServerMemory {
            rss_before_bytes: Some(1000),
            rss_open_bytes: Some(3000),
            ..ServerMemory::default()
        };
        assert_eq!(memory.per_connection(4).rss_bytes_per_connection, Some(500.0));
    }

    #[test]
    fn percentiles_are_microseconds() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=100).for_each(|us| histogram.record(us * 1000).unwrap());
        let values = Percentiles::of(&histogram).unwrap();
        assert_eq!(values.count, 100);
        assert!((values.p50 - 50.0).abs() < 0.1 && (values.p99 - 99.0).abs() < 0.2, "{values:?}");
    }
}
