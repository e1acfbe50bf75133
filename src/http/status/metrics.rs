//! `/metrics`: what the statistics say, for Prometheus.

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
    /// What [`stats`](Self::stats) says, in the text format of OpenMetrics.
    ///
    /// # Errors
    /// Writing to a string does not fail; the encoder's type says it could.
    pub(crate) async fn metrics(&self) -> Result<String, fmt::Error> {
        let mut families = Families::default();
        let stats = self.stats(None).await;
        stats.tell(&mut |metric| families.add(metric));
        tell_more(&stats, &mut |metric| families.add(metric));
        self.tell_tasks(&mut |metric| families.add(metric));
        families.write()
    }

    /// What is under way, to see whether all of it ends.
    fn tell_tasks(&self, to: &mut dyn FnMut(Metric<'_>)) {
        let help = "Tasks under way: those of the threads that serve connections, and all others";
        for (on, count) in
            [("serving", self.manager.tasks()), ("rest", self.runtime.metrics().num_alive_tasks())]
        {
            let (label, number) = (Some(("on", on)), Number::Count(count as u64));
            to(Metric { name: "tasks", kind: MetricKind::Gauge, help, label, number });
        }
    }
}

/// What one part says, and what is said of any process, in the text format of OpenMetrics.
///
/// # Errors
/// As of a gateway's metrics.
pub(crate) fn metrics_of(part: &dyn Metrics) -> Result<String, fmt::Error> {
    let mut families = Families::default();
    part.tell(&mut |metric| families.add(metric));
    families.write()
}

/// What is said there as words, or is only of interest over time.
fn tell_more(stats: &StatsView, to: &mut dyn FnMut(Metric<'_>)) {
    let mut gauge = |name, help, label, number| {
        to(Metric { name, kind: MetricKind::Gauge, help, label, number });
    };
    gauge("uptime_seconds", "Time since the start", None, Number::Count(stats.uptime_s));
    let is = |is_so| Number::Count(u64::from(is_so));
    for state in BackendState::ALL {
        let help = "1 for the state that the storage is in";
        gauge("storage_state", help, Some(("state", state.as_str())), is(stats.storage.state.is(state)));
    }
    for backend in [BackendName::Redis, BackendName::InMemory] {
        let label = Some(("backend", backend.as_str()));
        gauge(
            "storage_backend",
            "1 for the backend that serves",
            label,
            is(stats.storage.storage_backend.is(backend)),
        );
    }
    let (all, away) = (stats.storage.primaries as u64, stats.storage.primaries_away as u64);
    let help = "Servers that share the channels among them (the primaries of a cluster, or 1)";
    gauge("storage_primaries", help, None, Number::Count(all));
    gauge("storage_primaries_away", "Of these, those that do not serve", None, Number::Count(away));
    let oldest = stats.outage.journal_oldest_ms.unwrap_or(0) as f64 / 1_000.0;
    let help = "How long the oldest entry in the journal has waited for Redis";
    gauge("journal_oldest_seconds", help, None, Number::Real(oldest));
    for state in ["off", "working", "failed", "stalled", "closed"] {
        let help = "1 for how the journal's copy on disk does";
        gauge("spool_state", help, Some(("state", state)), is(stats.outage.spool == state));
        let help = "1 for how the disk does on which memory keeps what it has";
        gauge("memory_disk_state", help, Some(("state", state)), is(stats.memory.disk == state));
    }
    let others = Number::Count(stats.orders.other_executors.len() as u64);
    let help =
        "Kinds of executors that other nodes with the same storage have; 0 in a fleet that is of one mind";
    gauge("other_executors", help, None, others);
    let (name, help) = ("log_lines_lost", "Lines of the log that stderr did not take");
    let number = Number::Count(telemetry::lines_lost());
    to(Metric { name, kind: MetricKind::Counter, help, label: None, number });
}

/// What Prometheus' own client libraries say of a process, by the same names; nothing where the system does
/// not say it as Linux does.
fn tell_process(to: &mut dyn FnMut(Metric<'_>)) {
    let Some(process) = machine::process() else { return };
    let (counter, gauge) = (MetricKind::Counter, MetricKind::Gauge);
    for (name, kind, help, number) in [
        ("process_cpu_seconds", counter, "CPU time of this process", Number::Real(process.cpu_s)),
        (
            "process_resident_memory_bytes",
            gauge,
            "Memory that it takes",
            Number::Count(process.resident_bytes),
        ),
        (
            "process_open_fds",
            gauge,
            "Files that it has open, sockets among them",
            Number::Count(process.open_files),
        ),
        ("process_start_time_seconds", gauge, "When it began, since 1970", Number::Real(process.started_s)),
    ] {
        to(Metric { name, kind, help, label: None, number });
    }
    if let Some(files) = machine::open_files() {
        let (name, help) = ("process_max_fds", "Files that it may have open");
        to(Metric { name, kind: gauge, help, label: None, number: Number::Count(files as u64) });
    }
}

/// What is counted of exchanging events by Redis, by the names that others have for it.
const OF_ANY_BRIDGE: [&str; 6] = [
    "redis_connected",
    "redis_events_published",
    "redis_events_received",
    "redis_errors",
    "redis_subscriptions",
    "redis_subscriptions_active",
];

/// Metrics by name: those of one name follow each other in the text.
#[derive(Debug, Default)]
struct Families(Vec<Family>);

#[derive(Debug)]
struct Family {
    name: &'static str,
    kind: MetricKind,
    /// Of each value of the label, where they differ.
    help: Vec<(Option<String>, &'static str)>,
    samples: Vec<(Option<(&'static str, String)>, Number)>,
}

impl Families {
    /// All of them, and what is said of any process.
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
                    // There is one.
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
