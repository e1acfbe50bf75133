//! The reports: fields with stable names that include their units, as JSON and as text.
//!
//! A figure that was not measured is `null`, never zero.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{clock::Clock, cpu::CpuTime, credential::Kind, sequence::SequenceCounts};
use crate::figures::Spread;

/// The results of `fanout`.
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

/// The results of `idle`.
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

/// The results of `connect`.
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

/// The results of `handshakes`.
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

/// The results of `access`.
#[derive(Debug, Serialize)]
pub(super) struct AccessReport {
    pub(super) questions: u32,
    /// Identifying a client, by its credential.
    pub(super) authenticate: Vec<NsEach>,
    /// Deciding whether a principal may subscribe.
    pub(super) may_subscribe: Vec<NsEach>,
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

/// Prints the report, and writes it as JSON if requested.
pub(super) fn emit(
    kind: &'static str,
    report: &(impl Serialize + fmt::Display),
    json: Option<&Path>,
) -> anyhow::Result<()> {
    /// A report with the subcommand that made it.
    #[derive(Serialize)]
    struct Named<'a, R> {
        kind: &'static str,
        #[serde(flatten)]
        report: &'a R,
    }
    let text = || serde_json::to_string_pretty(&Named { kind, report });
    match json {
        Some(path) if path == Path::new("-") => println!("{}", text()?),
        Some(path) => {
            fs::write(path, text()? + "\n").with_context(|| format!("cannot write {}", path.display()))?;
            print!("{report}");
        }
        None => print!("{report}"),
    }
    Ok(())
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

// ===== text =====

impl fmt::Display for FanoutReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subscribers, stalled, delivered, .. } = self;
        let open_s = delivered.open_s;
        writeln!(out, "subscribers   {subscribers} ({stalled} stalled), open in {open_s:.2} s")?;
        if let (Some(messages), Some(rate)) = (self.messages, self.published_per_s) {
            writeln!(out, "published     {messages} messages, {rate:.1}/s")?;
        }
        delivered.fmt(out)
    }
}

impl fmt::Display for Delivered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deliveries, deliveries_per_s, window_s, frame_bytes, stale, broken_frames, .. } = self;
        writeln!(
            out,
            "deliveries    {deliveries} in {window_s:.2} s, {deliveries_per_s:.0}/s, {frame_bytes:.0} bytes each"
        )?;
        let SequenceCounts { received, lost, doubled, reordered } = self.sequences;
        writeln!(
            out,
            "checked       {received} received, {lost} lost, {doubled} doubled, {reordered} reordered, {stale} stale, \
             {broken_frames} broken"
        )?;
        writeln!(out, "other         {} frames, {} pings", self.other_frames, self.pings)?;
        write_counts(out, "closed", &self.closed_by_code)?;
        write_percentiles(out, "latency us", self.latency_us.as_ref())?;
        let cpu = &self.server;
        if let (Some(user), Some(system), Some(busy)) =
            (cpu.server_user_us_per_delivery, cpu.server_system_us_per_delivery, cpu.server_busy_ratio)
        {
            writeln!(
                out,
                "server cpu    {user:.2} us user + {system:.2} us system per delivery, {:.0}/cpu-s, busy {:.0} %",
                cpu.deliveries_per_cpu_s.unwrap_or(0.0),
                busy * 100.0
            )?;
        }
        write_memory(out, &self.memory)?;
        write_busy(out, self.client_busy_ratio)
    }
}

impl fmt::Display for IdleReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "connections   {} of {} open in {:.2} s, {:.0}/s, {} at a time",
            self.opened, self.connections, self.open_s, self.connections_per_s, self.open_concurrency
        )?;
        writeln!(out, "held          {} after settling, {} other frames", self.held, self.other_frames)?;
        write_counts(out, "failed", &self.failures_by_reason)?;
        write_counts(out, "closed", &self.closed_by_code)?;
        write_percentiles(out, "handshake us", self.handshake_us.as_ref())?;
        write_memory(out, &self.memory)
    }
}

impl fmt::Display for ConnectReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "connections   {} opened and closed in {:.2} s, {:.0}/s, {} at a time",
            self.opened, self.duration_s, self.connections_per_s, self.open_concurrency
        )?;
        write_counts(out, "failed", &self.failures_by_reason)?;
        write_percentiles(out, "handshake us", self.handshake_us.as_ref())?;
        if let Some(each) = self.server_cpu_us_per_connection {
            writeln!(out, "server cpu    {each:.1} us per connection")?;
        }
        write_busy(out, self.client_busy_ratio)
    }
}

impl fmt::Display for HandshakesReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { again, rounds, duration_s, open_concurrency, .. } = self;
        let come = if *again { "verified before" } else { "not verified before" };
        writeln!(
            out,
            "turns         {rounds} of {duration_s} s for each kind, {open_concurrency} at a time, tokens {come}"
        )?;
        for of in &self.kinds {
            let figure = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
            };
            let more = of.more_than_none_us.map(|us| format!(" ({us:+.1})")).unwrap_or_default();
            writeln!(
                out,
                "{:<13} {}/cpu-s, {} us each{more}, {:.0}/s, client busy {:.0} %",
                of.shown.as_str(),
                figure(of.handshakes_per_cpu_s, 0),
                figure(of.server_cpu_us_per_handshake, 1),
                of.handshakes_per_s,
                of.client_busy_ratio * 100.0
            )?;
            write_counts(out, "  failed", &of.failures_by_reason)?;
            write_percentiles(out, "  us", of.handshake_us.as_ref())?;
        }
        Ok(())
    }
}

impl fmt::Display for AccessReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (question, answers) in [("who shows", &self.authenticate), ("may subscribe", &self.may_subscribe)]
        {
            for NsEach { what, ns, ns_least, ns_most } in answers {
                writeln!(out, "{question:<13} {ns:>10.1} ns ({ns_least:.1} to {ns_most:.1})  {what}")?;
            }
        }
        Ok(())
    }
}

pub(super) fn write_counts<K: fmt::Display>(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    counts: &BTreeMap<K, u64>,
) -> fmt::Result {
    for (what, count) in counts {
        writeln!(out, "{name:<13} {count} by {what}")?;
    }
    Ok(())
}

pub(super) fn write_percentiles(
    out: &mut fmt::Formatter<'_>,
    name: &str,
    values: Option<&Percentiles>,
) -> fmt::Result {
    let Some(Percentiles { p50, p90, p99, p999, max, .. }) = values else { return Ok(()) };
    writeln!(out, "{name:<13} p50 {p50:.0}  p90 {p90:.0}  p99 {p99:.0}  p99.9 {p999:.0}  max {max:.0}")
}

pub(super) fn write_busy(out: &mut fmt::Formatter<'_>, client_busy_ratio: f64) -> fmt::Result {
    writeln!(out, "client cpu    busy {:.0} %", client_busy_ratio * 100.0)
}

fn write_memory(out: &mut fmt::Formatter<'_>, memory: &ServerMemory) -> fmt::Result {
    let mib = |bytes: Option<u64>| {
        bytes.map_or("-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / 1_048_576.0))
    };
    let Some(each) = memory.rss_bytes_per_connection else { return Ok(()) };
    writeln!(
        out,
        "server memory {} MiB before, {} open, {} at the end, {each:.0} bytes per connection",
        mib(memory.rss_before_bytes),
        mib(memory.rss_open_bytes),
        mib(memory.rss_end_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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
