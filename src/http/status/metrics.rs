//! `/metrics`: the statistics, for Prometheus.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use zonewire_protocol::stats::{Metric, MetricKind, Metrics, Number, StatsView, TIMING_BOUNDS_US};

use super::Sources;
use crate::model::{BackendName, BackendState};
use crate::support::{machine, telemetry};

impl Sources {
    /// The numbers of [`stats`](Self::stats), in the text format of OpenMetrics.
    ///
    /// # Errors
    /// Writing to a string cannot fail, but the encoder's type permits it.
    pub(crate) async fn metrics(&self) -> Result<String, fmt::Error> {
        let mut families = Families::default();
        let stats = self.stats(None).await;
        stats.tell(&mut |metric| families.add(metric));
        tell_more(&stats, &mut |metric| families.add(metric));
        self.tell_tasks(&mut |metric| families.add(metric));
        families.write()
    }

    /// The number of running tasks, to see whether they all end.
    fn tell_tasks(&self, to: &mut dyn FnMut(Metric<'_>)) {
        let help = "Running tasks: on the threads that serve connections, and all others";
        for (on, count) in
            [("serving", self.manager.tasks()), ("rest", self.runtime.metrics().num_alive_tasks())]
        {
            let (label, number) = (Some(("on", on)), Number::Count(count as u64));
            to(Metric { name: "tasks", kind: MetricKind::Gauge, help, label, number });
        }
    }
}

/// The metrics of one part, and those of every process, in the text format of OpenMetrics.
///
/// # Errors
/// As for a gateway's metrics.
pub(crate) fn metrics_of(part: &dyn Metrics) -> Result<String, fmt::Error> {
    let mut families = Families::default();
    part.tell(&mut |metric| families.add(metric));
    families.write()
}

/// Values that the statistics contain as words, or that matter only over time.
fn tell_more(stats: &StatsView, to: &mut dyn FnMut(Metric<'_>)) {
    let mut gauge = |name, help, label, number| {
        to(Metric { name, kind: MetricKind::Gauge, help, label, number });
    };
    gauge("uptime_seconds", "Time since the start", None, Number::Count(stats.uptime_s));
    let is = |is_so| Number::Count(u64::from(is_so));
    for state in BackendState::ALL {
        let help = "1 for the current state of the storage";
        gauge("storage_state", help, Some(("state", state.as_str())), is(stats.storage.state.is(state)));
    }
    for backend in [BackendName::Redis, BackendName::InMemory] {
        let (help, label) = ("1 for the storage that serves", Some(("backend", backend.as_str())));
        gauge("storage_backend", help, label, is(stats.storage.storage_backend.is(backend)));
    }
    let (all, away) = (stats.storage.primaries as u64, stats.storage.primaries_away as u64);
    let help = "Servers that share the channels (the primaries of a cluster, or 1)";
    gauge("storage_primaries", help, None, Number::Count(all));
    gauge("storage_primaries_away", "Servers among them that do not serve", None, Number::Count(away));
    let oldest = stats.outage.journal_oldest_ms.unwrap_or(0) as f64 / 1_000.0;
    let help = "How long the oldest entry in the journal has waited for Redis";
    gauge("journal_oldest_seconds", help, None, Number::Real(oldest));
    for state in ["off", "working", "failed", "stalled", "closed"] {
        let help = "1 for the current state of the spool, the journal's write-ahead log on disk";
        gauge("spool_state", help, Some(("state", state)), is(stats.outage.spool == state));
        let help = "1 for the current state of the memory storage's files";
        gauge("memory_disk_state", help, Some(("state", state)), is(stats.memory.disk == state));
    }
    let others = Number::Count(stats.orders.other_executors.len() as u64);
    let help = "Kinds of executors of other nodes on the same storage; 0 if all nodes have the same kind";
    gauge("other_executors", help, None, others);
    let (name, help) = ("log_lines_lost", "Log lines that could not be written to stderr");
    let number = Number::Count(telemetry::lines_lost());
    to(Metric { name, kind: MetricKind::Counter, help, label: None, number });
}

/// The process metrics of Prometheus' client libraries, by the same names; none on systems without Linux'
/// `/proc`.
fn tell_process(to: &mut dyn FnMut(Metric<'_>)) {
    let Some(process) = machine::process() else { return };
    let mut tell = |name, kind, help, number| to(Metric { name, kind, help, label: None, number });
    let (counter, gauge) = (MetricKind::Counter, MetricKind::Gauge);
    let number = Number::Real(process.cpu_s);
    tell("process_cpu_seconds", counter, "CPU time of this process", number);
    let number = Number::Count(process.resident_bytes);
    tell("process_resident_memory_bytes", gauge, "Resident memory of this process", number);
    let help = "Open file descriptors of this process, including sockets";
    tell("process_open_fds", gauge, help, Number::Count(process.open_files));
    let help = "Start time of this process, since 1970";
    tell("process_start_time_seconds", gauge, help, Number::Real(process.started_s));
    if let Some(files) = machine::open_files() {
        let help = "The most file descriptors that this process may open";
        tell("process_max_fds", gauge, help, Number::Count(files as u64));
    }
}

/// Metrics of the exchange of events over Redis whose names other programs share, so they have no prefix.
const OF_ANY_BRIDGE: [&str; 6] = [
    "redis_connected",
    "redis_events_published",
    "redis_events_received",
    "redis_errors",
    "redis_subscriptions",
    "redis_subscriptions_active",
];

/// Metrics by name, so that those of one name are adjacent in the text.
#[derive(Debug, Default)]
struct Families(Vec<Family>);

#[derive(Debug)]
struct Family {
    name: &'static str,
    kind: MetricKind,
    /// The help text for each value of the label, if they differ.
    help: Vec<(Option<String>, &'static str)>,
    samples: Vec<(Option<(&'static str, String)>, Number)>,
}

impl Families {
    /// Writes all metrics, and those of every process.
    fn write(mut self) -> Result<String, fmt::Error> {
        tell_process(&mut |metric| self.add(metric));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }

    fn add(&mut self, metric: Metric<'_>) {
        let Metric { name, kind, help, label, number } = metric;
        let help = help.trim_end_matches('.');
        let place = self.0.iter().position(|family| family.name == name).unwrap_or_else(|| {
            self.0.push(Family { name, kind, help: Vec::new(), samples: Vec::new() });
            self.0.len() - 1
        });
        let family = &mut self.0[place];
        if family.help.iter().all(|(_, known)| *known != help) {
            family.help.push((label.map(|(_, value)| value.to_owned()), help));
        }
        family.samples.push((label.map(|(name, value)| (name, value.to_owned())), number));
    }
}

impl Family {
    fn help(&self) -> String {
        match &self.help[..] {
            [(_, help)] => (*help).to_owned(),
            several => {
                let one = |(value, help): &(Option<String>, &str)| match value {
                    Some(value) => format!("`{value}`: {help}"),
                    None => (*help).to_owned(),
                };
                several.iter().map(one).collect::<Vec<_>>().join("; ")
            }
        }
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let kind = match family.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Histogram => MetricType::Histogram,
            };
            let is_common = family.name.starts_with("process_") || OF_ANY_BRIDGE.contains(&family.name);
            let prefix = if is_common { "" } else { "zonewire_" };
            let name = format!("{prefix}{}", family.name);
            let mut told = encoder.encode_descriptor(&name, &family.help(), None, kind)?;
            for (label, number) in &family.samples {
                match label {
                    Some((name, value)) => {
                        encode(family.kind, *number, told.encode_family(&[(*name, value.as_str())])?)?;
                    }
                    // Without a label there is only one sample.
                    None => {
                        encode(family.kind, *number, told)?;
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

fn encode(kind: MetricKind, number: Number, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    match (kind, number) {
        (MetricKind::Counter, Number::Count(count)) => ConstCounter::new(count).encode(encoder),
        (MetricKind::Counter, Number::Real(number)) => ConstCounter::new(number).encode(encoder),
        (_, Number::Count(count)) => {
            ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX)).encode(encoder)
        }
        (_, Number::Real(number)) => ConstGauge::new(number).encode(encoder),
        (_, Number::Timing(timing)) => {
            let bounds = TIMING_BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(timing.buckets).collect();
            let (count, sum_s) = (timing.buckets.iter().sum(), timing.sum_us as f64 / 1e6);
            encoder.encode_histogram::<NoLabelSet>(sum_s, count, &buckets, None)
        }
    }
}
