//! What the gateway tells of itself: health, stats, metrics. One snapshot feeds them all, so that
//! they never say different things.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::accept::AcceptStats;
use super::prices::IntakeStats;
use super::refusals::Refusals;
use super::room::BodyRoom;
use crate::access::Gate;
use crate::channels::Channels;
use crate::connections::{ConnectionInfo, DURATION_BUCKETS_S, Manager};
use crate::model::{BackendName, BackendState, NodeId};
use crate::orders::{InteropStats, InteropTotals, OrderTotals, Orders};
use crate::protocol::{
    AuthenticationView, ChannelSetAside, HealthView, RedisView, Scope, StorageView, WebSocketView,
};
use crate::storage::{
    self, JobCounts, MemoryBackend, MemoryUsage, OutageReader, OutageTotals, SetAside, StatusReader,
    StorageStatus,
};
use crate::support::telemetry;

/// How long the storage may take to count jobs; a snapshot does not wait for an outage to end.
const JOBS_WITHIN: Duration = Duration::from_millis(250);

/// What is asked for the snapshot.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) node: NodeId,
    pub(crate) started: Instant,
    pub(crate) manager: Manager,
    pub(crate) channels: Channels,
    pub(crate) orders: Orders,
    pub(crate) storage: StatusReader,
    pub(crate) memory: MemoryBackend,
    pub(crate) outage: OutageReader,
    /// Whether a Redis is named in the configuration.
    pub(crate) redis_configured: bool,
    pub(crate) accepts: Arc<AcceptStats>,
    pub(crate) intake: Arc<IntakeStats>,
    pub(crate) bodies: BodyRoom,
    /// The room of answers that their clients have not taken yet.
    pub(crate) answers: Arc<BodyRoom>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) interop: Arc<InteropStats>,
    pub(crate) gate: Arc<Gate>,
    /// It is about to stop, or stops: who asks whether it is ready is told no.
    pub(crate) leaving: CancellationToken,
}

impl From<StorageStatus> for StorageView {
    fn from(status: StorageStatus) -> Self {
        let StorageStatus { backend, state, since, reason_code, reason, primaries, primaries_away, .. } =
            status;
        let scope = match status.scope {
            storage::Scope::All => Scope::All,
            storage::Scope::Some(_) => Scope::Some,
        };
        Self {
            storage_backend: backend.into(),
            state: state.into(),
            since,
            scope: scope.into(),
            reason_code: reason_code.to_owned(),
            reason,
            primaries,
            primaries_away,
        }
    }
}

/// `/ws/stats`.
#[derive(Debug, Serialize)]
pub(crate) struct StatsView {
    node: String,
    version: &'static str,
    uptime_s: u64,
    timestamp: DateTime<Utc>,
    #[serde(flatten)]
    storage: StorageView,
    memory: MemoryUsage,
    outage: OutageView,
    connections: ConnectionsView,
    messages: MessagesView,
    channels: ChannelsView,
    orders: OrdersView,
    interop: InteropTotals,
    http: HttpView,
    /// Some of the open connections.
    connection_list: Vec<ConnectionInfo>,
    /// Shards too busy to say how many connections each zone has.
    silent_shards: usize,
}

/// How long the storage was in each state, and what waits for it.
#[derive(Debug, Serialize)]
struct OutageView {
    /// How often the state has changed.
    switches: u64,
    /// Seconds in each state since the start.
    seconds_in_state: BTreeMap<&'static str, f64>,
    #[serde(flatten)]
    totals: OutageTotals,
}

#[derive(Debug, Serialize)]
struct ConnectionsView {
    open: u64,
    total: u64,
    total_disconnections: u64,
    by_zone: BTreeMap<String, usize>,
    closed_by_reason: BTreeMap<&'static str, u64>,
    refused_by_limit: BTreeMap<&'static str, u64>,
    average_duration_s: f64,
    longest_open_s: u64,
    /// Ended connections by how long they lasted.
    durations: Vec<DurationBucket>,
}

/// Ended connections that lasted longer than the bucket before, and at the most this.
#[derive(Debug, Serialize)]
struct DurationBucket {
    up_to_s: u64,
    connections: u64,
}

#[derive(Debug, Serialize)]
struct MessagesView {
    sent: u64,
    received: u64,
    bytes_received: u64,
    errors: u64,
    error_rate_percent: f64,
    errors_by_code: BTreeMap<&'static str, u64>,
    conflated: u64,
    dropped_by_reason: BTreeMap<&'static str, u64>,
    replays: u64,
    replay_reads: u64,
    replay_bytes: usize,
    replayed: u64,
    snapshots: u64,
    snapshot_entries: u64,
    gaps_told: u64,
    paced: u64,
    panics: u64,
}

#[derive(Debug, Serialize)]
struct ChannelsView {
    active: usize,
    entries_accepted: u64,
    entries_unavailable: u64,
    entries_refused_by_reason: BTreeMap<&'static str, u64>,
    entries_delivered: u64,
    entries_missed: u64,
    entries_skipped_by_reason: BTreeMap<&'static str, u64>,
    appends: u64,
    storage_retries: u64,
    holes_repaired: u64,
    epoch_changes: u64,
    echoes_dropped: u64,
}

/// What this node did with orders, and how many there are on all nodes.
#[derive(Debug, Serialize)]
struct OrdersView {
    #[serde(flatten)]
    totals: OrderTotals,
    executor: String,
    other_executors: Vec<String>,
    /// `None` when the storage did not say in time.
    jobs: Option<JobsView>,
}

#[derive(Debug, Serialize)]
struct JobsView {
    waiting: u64,
    delayed: u64,
    claimed: u64,
    done: u64,
    dead: u64,
}

#[derive(Debug, Serialize)]
struct HttpView {
    open: u64,
    accepted: u64,
    refused: u64,
    refused_unanswered: u64,
    accept_failures: u64,
    bad_requests: u64,
    panics: u64,
    body_bytes: usize,
    answer_bytes: usize,
    requests_refused_by_reason: BTreeMap<&'static str, u64>,
    price_requests: u64,
    price_requests_refused: u64,
    prices_accepted: u64,
    tokens_accepted: u64,
    tokens_refused_by_reason: BTreeMap<&'static str, u64>,
    revocations: usize,
}

fn aside(SetAside { channel, reason }: SetAside) -> ChannelSetAside {
    ChannelSetAside { channel, reason }
}

impl Sources {
    pub(crate) fn health(&self) -> HealthView {
        let (storage, totals) = (self.storage.get(), self.manager.totals());
        let spool = self.outage.spool();
        let stopping = self.leaving.is_cancelled();
        HealthView {
            status: if stopping { "stopping" } else { storage.state.as_str() }.to_owned(),
            live: true,
            ready: !stopping,
            degraded: storage.state != BackendState::Healthy,
            storage: storage.into(),
            spool: spool.as_ref().map(|spool| spool.state.to_owned()),
            spool_reason: spool.and_then(|spool| spool.reason),
            channels_set_aside: self.outage.set_aside().into_iter().map(aside).collect(),
            node: self.node.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            connections: totals.open(),
            websocket: WebSocketView {
                open: totals.open(),
                total: totals.opened,
                messages_sent: totals.messages_sent,
                messages_received: totals.messages_received,
                errors: totals.errors,
                error_rate_percent: totals.error_rate_percent(),
            },
            executor: self.orders.executor().to_owned(),
            other_executors: self.orders.other_executors(),
            authentication: self.gate.is_on().then(|| {
                let health = self.gate.health();
                AuthenticationView {
                    revocations: if health.knows_revocations { "known" } else { "unknown" }.to_owned(),
                    keys: if health.problems.is_empty() { "fresh" } else { "stale" }.to_owned(),
                }
            }),
            timestamp: Utc::now(),
        }
    }

    pub(crate) fn redis(&self) -> RedisView {
        let storage = self.storage.get();
        let serving = storage.backend == BackendName::Redis;
        let status = match (serving, storage.state) {
            (true, BackendState::Degraded) => "partial",
            (true, _) => "up",
            (false, BackendState::Healthy) if !self.redis_configured => "not_configured",
            _ => "down",
        };
        RedisView { status: status.to_owned(), serving, storage: storage.into() }
    }

    /// Counts everything; with `list`, also what the shards have to be asked for, and up to so many
    /// connections.
    pub(crate) async fn stats(&self, list: Option<usize>) -> StatsView {
        let (overview, jobs) = tokio::join!(self.manager.stats(list), self.jobs());
        let (totals, channels) = (overview.totals, self.channels.stats());
        let storage = self.storage.get();
        let average = match totals.closed {
            0 => 0.0,
            closed => (totals.duration_ms_sum as f64 / closed as f64).round() / 1_000.0,
        };
        let durations = DURATION_BUCKETS_S.iter().zip(totals.durations);
        let by_zone =
            overview.by_zone.into_iter().map(|(channel, count)| (channel.subject().to_owned(), count));
        StatsView {
            node: self.node.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.started.elapsed().as_secs(),
            timestamp: Utc::now(),
            memory: self.memory.usage(),
            outage: OutageView {
                switches: storage.switches,
                seconds_in_state: BackendState::ALL
                    .map(|state| (state.as_str(), storage.spent_in(state).as_millis() as f64 / 1_000.0))
                    .into(),
                totals: self.outage.totals(),
            },
            storage: storage.into(),
            connections: ConnectionsView {
                open: totals.open(),
                total: totals.opened,
                total_disconnections: totals.closed,
                by_zone: by_zone.collect(),
                refused_by_limit: overview.refused.into(),
                average_duration_s: average,
                longest_open_s: overview.longest_open.as_secs(),
                durations: durations
                    .map(|(&up_to_s, connections)| DurationBucket { up_to_s, connections })
                    .collect(),
                closed_by_reason: totals.closed_by_reason.clone(),
            },
            messages: MessagesView {
                sent: totals.messages_sent,
                received: totals.messages_received,
                bytes_received: totals.bytes_received,
                errors: totals.errors,
                error_rate_percent: totals.error_rate_percent(),
                errors_by_code: totals.errors_by_code,
                conflated: totals.conflated,
                dropped_by_reason: totals.dropped_by_reason,
                replays: totals.replays,
                replay_reads: channels.pages_read.get(),
                replay_bytes: self.channels.page_bytes(),
                replayed: totals.replayed,
                snapshots: totals.snapshots,
                snapshot_entries: totals.snapshot_entries,
                gaps_told: totals.gaps_told,
                paced: totals.paced,
                panics: totals.panics,
            },
            channels: ChannelsView {
                active: self.channels.active(),
                entries_accepted: channels.accepted.get(),
                entries_unavailable: channels.unavailable.get(),
                entries_refused_by_reason: BTreeMap::from([
                    ("stale_lease", channels.refused_stale.get()),
                    ("order_ended", channels.refused_closed.get()),
                ]),
                entries_delivered: channels.delivered.get(),
                entries_missed: channels.missed.get(),
                entries_skipped_by_reason: BTreeMap::from([
                    ("unknown_kind", channels.skipped_unknown.get()),
                    ("unreadable", channels.skipped_unreadable.get()),
                ]),
                appends: channels.appends.get(),
                storage_retries: channels.retries.get(),
                holes_repaired: channels.holes.get(),
                epoch_changes: channels.epoch_changes.get(),
                echoes_dropped: channels.echoes_dropped.get(),
            },
            orders: OrdersView {
                totals: self.orders.stats().totals(),
                executor: self.orders.executor().to_owned(),
                other_executors: self.orders.other_executors(),
                jobs,
            },
            interop: self.interop.totals(),
            http: HttpView {
                open: overview.tcp as u64,
                accepted: self.accepts.accepted.get(),
                refused: self.accepts.refused.get(),
                refused_unanswered: self.accepts.unanswered.get(),
                accept_failures: self.accepts.failed.get(),
                bad_requests: self.accepts.bad_requests.get(),
                panics: self.accepts.panics.get(),
                body_bytes: self.bodies.bytes(),
                answer_bytes: self.answers.bytes(),
                requests_refused_by_reason: {
                    let mut refused = self.refusals.counts();
                    // Counted where it is said, so that what is said in the middle of a body counts too.
                    refused.insert("busy", self.bodies.refused() + self.answers.refused());
                    refused
                },
                price_requests: self.intake.requests.get(),
                price_requests_refused: self.intake.refused.get(),
                prices_accepted: self.intake.accepted.get(),
                tokens_accepted: self.gate.counts().0,
                tokens_refused_by_reason: self.gate.counts().1.into_iter().collect(),
                revocations: self.gate.revocations(),
            },
            connection_list: overview.connections,
            silent_shards: overview.silent_shards,
        }
    }

    async fn jobs(&self) -> Option<JobsView> {
        let counts = time::timeout(JOBS_WITHIN, self.orders.counts()).await.ok()?.ok()?;
        let JobCounts { waiting, delayed, claimed, done, dead } = counts;
        Some(JobsView { waiting, delayed, claimed, done, dead })
    }

    /// What [`stats`](Self::stats) says, in the text format of OpenMetrics.
    ///
    /// # Errors
    /// Writing to a string does not fail; the encoder's type says it could.
    pub(crate) async fn metrics(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("zonewire");
        registry.register_collector(Box::new(self.stats(None).await));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

/// Writes a snapshot's values as metrics.
struct Metrics<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Metrics<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        let metric = ConstGauge::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let metric = ConstGauge::new(value);
        metric.encode(self.0.encode_descriptor(name, help, Some(&Unit::Seconds), metric.metric_type())?)
    }

    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            ConstCounter::new(count).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'v str, i64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, count) in values {
            ConstGauge::new(count).encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }
}

impl OutageView {
    fn encode(&self, m: &mut Metrics<'_, '_>) -> fmt::Result {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let spent = self.seconds_in_state.iter().map(|(state, seconds)| (*state, *seconds as u64));
        m.counters("storage_state_seconds", "Time spent in each state of the storage", "state", spent)?;
        m.counter("storage_switches", "Changes of the storage's state", self.switches)?;
        let totals = &self.totals;
        m.gauge("channels_alone", "Channels that go on without Redis", signed(totals.channels_alone))?;
        let waiting = signed(totals.channels_waiting);
        m.gauge("channels_waiting", "Channels to be put in order with Redis", waiting)?;
        let set_aside = signed(totals.channels_set_aside);
        m.gauge("channels_set_aside", "Channels that cannot be put in order with Redis", set_aside)?;
        let entries = signed(totals.journal_entries);
        m.gauge("journal_entries", "Accepted entries that wait for Redis", entries)?;
        m.gauge("journal_bytes", "What the journal costs, in bytes", signed(totals.journal_bytes))?;
        let oldest = totals.journal_oldest_ms.unwrap_or(0) as f64 / 1_000.0;
        m.seconds("journal_oldest", "How long the oldest entry has waited for Redis", oldest)?;
        let let_go = [
            ("thinned", totals.journal_thinned),
            ("aged", totals.journal_aged),
            ("order_overflow", totals.journal_order_overflow),
            ("superseded", totals.superseded),
        ];
        m.counters("journal_let_go", "Accepted entries that the log will not have", "reason", let_go)?;
        m.counter("journal_refused", "Entries refused for want of room", totals.journal_refused_full)?;
        let in_memory_only = signed(totals.journal_in_memory_only);
        m.gauge("journal_in_memory_only", "Of these, entries that are not on disk", in_memory_only)?;
        let states = ["off", "working", "failed", "stalled", "closed"];
        let states = states.map(|state| (state, i64::from(totals.spool == state)));
        m.gauges("spool_state", "1 for how the journal's copy on disk does", "state", states)?;
        m.gauge("spool_entries", "Entries in the journal's copy on disk", signed(totals.spool_entries))?;
        let spool_bytes = i64::try_from(totals.spool_bytes).unwrap_or(i64::MAX);
        m.gauge("spool_bytes", "What they cost, in bytes", spool_bytes)?;
        let not_written =
            [("full", totals.spool_full), ("slow", totals.spool_slow), ("failed", totals.spool_failed)];
        m.counters("spool_not_written", "Entries that the disk did not take in time", "reason", not_written)?;
        m.counter("forks", "Times that a channel went on without Redis", totals.forks)?;
        m.counter("forks_late", "Of these, because an append was late", totals.forks_late)?;
        m.counter("rejoins", "Times that a channel came back in step", totals.rejoins)?;
        m.counter("rejoin_retries", "Times that this was tried again", totals.rejoin_retries)?;
        m.counter("journal_replayed", "Entries sent to the log when it was back", totals.replayed)?;
        m.counter("journal_put_back", "Entries put back into logs that had lost them", totals.put_back)?;
        m.counter("logs_lost", "Logs that had lost what they acknowledged", totals.lost_logs)?;
        let jobs = signed(totals.jobs_waiting);
        m.gauge("jobs_not_recorded", "Jobs of this node that Redis does not have yet", jobs)?;
        m.counter("jobs_taken_alone", "Jobs that this node took on without Redis", totals.jobs_taken)?;
        m.counter("jobs_recorded", "Of these, those that Redis has had since", totals.jobs_recorded)?;
        m.counter("records_let_go", "Records that Redis will not have", totals.records_let_go)?;
        m.counter("job_record_retries", "Times that this was tried again", totals.job_retries)?;
        m.counter(
            "idempotency_conflicts",
            "Of these jobs, those whose idempotency key led to another job in Redis",
            totals.key_conflicts,
        )
    }
}

impl Collector for StatsView {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut m = Metrics(&mut encoder);
        let (connections, messages, channels, http) =
            (&self.connections, &self.messages, &self.channels, &self.http);
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);

        m.seconds("uptime", "Time since the start", self.uptime_s as f64)?;
        let states = BackendState::ALL.map(|state| (state.as_str(), i64::from(self.storage.state.is(state))));
        m.gauges("storage_state", "1 for the state that the storage is in", "state", states)?;
        let backends = [BackendName::Redis, BackendName::InMemory]
            .map(|name| (name.as_str(), i64::from(self.storage.storage_backend.is(name))));
        m.gauges("storage_backend", "1 for the backend that serves", "backend", backends)?;
        let counts = [self.storage.primaries, self.storage.primaries_away];
        let [all, away] = counts.map(|count| signed(count as u64));
        m.gauge("storage_primaries", "Servers that share the channels among them", all)?;
        m.gauge("storage_primaries_away", "Of these, those that do not serve", away)?;

        let MemoryUsage { bytes, bytes_max, evicted_entries, evicted_latest, .. } = self.memory;
        let held = "Entries in this process, the latest ones of keys included, in bytes";
        m.gauge("memory_bytes", held, signed(bytes as u64))?;
        m.gauge("memory_bytes_max", "The bound of that", signed(bytes_max as u64))?;
        let evicted = [("entries", evicted_entries), ("latest", evicted_latest)];
        m.counters("memory_evicted", "Entries that went because the bound was passed", "what", evicted)?;

        self.outage.encode(&mut m)?;

        m.gauge("connections", "Open WebSocket connections", signed(connections.open))?;
        m.counter("connections_opened", "WebSocket connections opened", connections.total)?;
        let closed = connections.closed_by_reason.iter().map(|(reason, count)| (*reason, *count));
        m.counters("connections_closed", "WebSocket connections closed", "reason", closed)?;
        let refused = connections.refused_by_limit.iter().map(|(limit, count)| (*limit, *count));
        m.counters("connections_refused", "Connections refused by a limit", "limit", refused)?;

        m.counter("messages_sent", "Messages whose last byte was handed to the kernel", messages.sent)?;
        m.counter("messages_received", "Text messages received", messages.received)?;
        m.counter("received_bytes", "Bytes received on WebSockets", messages.bytes_received)?;
        let errors = messages.errors_by_code.iter().map(|(code, count)| (*code, *count));
        m.counters("message_errors", "Messages answered with an error", "code", errors)?;
        m.counter("messages_conflated", "Waiting messages replaced by a newer one", messages.conflated)?;
        let dropped = messages.dropped_by_reason.iter().map(|(reason, count)| (*reason, *count));
        m.counters("messages_dropped", "Messages that waited and were never sent", "reason", dropped)?;
        m.counter("replays", "Pages of the log that clients who catch up were given", messages.replays)?;
        let reads = messages.replay_reads;
        m.counter(
            "replay_reads",
            "Pages of logs and of latest entries read for clients; many share one",
            reads,
        )?;
        let bytes = messages.replay_bytes as u64;
        m.gauge("replay_bytes", "Bytes of these pages that wait for clients", signed(bytes))?;
        m.counter("replayed_entries", "Entries sent from the log", messages.replayed)?;
        let snapshots = messages.snapshots;
        m.counter("snapshots", "Times that a client began with the latest entry of each key", snapshots)?;
        m.counter("snapshot_entries", "Entries sent so", messages.snapshot_entries)?;
        m.counter("gaps_told", "Times that a client was told of missing entries", messages.gaps_told)?;
        m.counter("paced", "Times that a fan-out waited for readers", messages.paced)?;

        m.gauge("channels_active", "Channels in use", signed(channels.active as u64))?;
        m.counter("entries_accepted", "Entries acknowledged by the log", channels.entries_accepted)?;
        m.counter(
            "entries_unavailable",
            "Entries refused for want of storage",
            channels.entries_unavailable,
        )?;
        let refused = channels.entries_refused_by_reason.iter().map(|(reason, count)| (*reason, *count));
        m.counters("entries_refused", "Entries that the log takes neither now nor later", "reason", refused)?;
        m.counter("entries_delivered", "Entries handed to shards", channels.entries_delivered)?;
        m.counter("entries_missed", "Entries that left the log unseen", channels.entries_missed)?;
        let skipped = channels.entries_skipped_by_reason.iter().map(|(reason, count)| (*reason, *count));
        m.counters("entries_skipped", "Entries that this build cannot show", "reason", skipped)?;
        m.counter("storage_appends", "Appends sent to the storage", channels.appends)?;
        m.counter(
            "storage_retries",
            "Storage calls that failed and were repeated",
            channels.storage_retries,
        )?;
        m.counter(
            "holes_repaired",
            "Times that the log was read for missing entries",
            channels.holes_repaired,
        )?;
        m.counter("epoch_changes", "Times that a log began a new life", channels.epoch_changes)?;
        m.counter(
            "echoes_dropped",
            "Storage events let go; the log was read instead",
            channels.echoes_dropped,
        )?;

        let orders = &self.orders.totals;
        m.counter("orders_placed", "Orders queued by this node", orders.placed)?;
        m.counter("orders_repeated", "Requests that repeated an idempotency key", orders.repeated)?;
        m.counter("orders_refused_full", "Orders refused because the queue was full", orders.refused_full)?;
        m.counter("order_updates", "Updates of orders accepted", orders.updates)?;
        m.counter("order_updates_refused", "Updates that came too late", orders.updates_refused)?;
        m.counter(
            "order_updates_unchecked",
            "Outside updates taken while nobody could say whether their order has a job",
            orders.updates_unchecked,
        )?;
        m.counter("order_runs", "Jobs claimed through this node", orders.runs)?;
        let ended = [("confirmed", orders.confirmed), ("failed", orders.failed)];
        m.counters("orders_ended", "Orders that ended here", "status", ended)?;
        let given_back = "Runs that ended by giving their order back";
        m.counter("orders_given_back", given_back, orders.given_back)?;
        let others = i64::try_from(self.orders.other_executors.len()).unwrap_or(i64::MAX);
        m.gauge("other_executors", "Kinds of executors that other nodes have", others)?;
        m.counter("orders_retried", "Runs that ended with another try to come", orders.retried)?;
        m.counter("orders_dead", "Orders that became dead letters", orders.dead)?;
        m.counter("order_leases_lost", "Runs that stopped because their lease was lost", orders.leases_lost)?;
        m.counter("order_storage_failures", "Storage calls about jobs that failed", orders.storage_failures)?;
        if let Some(jobs) = &self.orders.jobs {
            let states = [
                ("waiting", signed(jobs.waiting)),
                ("delayed", signed(jobs.delayed)),
                ("claimed", signed(jobs.claimed)),
                ("done", signed(jobs.done)),
                ("dead", signed(jobs.dead)),
            ];
            m.gauges("jobs", "Jobs on all nodes", "state", states)?;
        }

        let outside = &self.interop;
        m.gauge("outside_orders", "Orders whose outside updates are followed", signed(outside.followed))?;
        m.counter("outside_updates", "Outside updates put into the log", outside.accepted)?;
        m.counter("outside_duplicates", "Outside updates that the log had already", outside.duplicates)?;
        let invalid = [
            ("not_json", outside.invalid.not_json),
            ("not_an_object", outside.invalid.not_an_object),
            ("no_stage", outside.invalid.no_stage),
            ("too_large", outside.invalid.too_large),
        ];
        m.counters("outside_invalid", "Outside updates that cannot be told", "reason", invalid)?;
        let refused = [
            ("closed", outside.refused.closed),
            ("stale_fence", outside.refused.stale_fence),
            ("has_job", outside.refused.has_job),
        ];
        m.counters("outside_refused", "Outside updates that the log did not take", "reason", refused)?;
        m.counter("outside_lost", "Outside updates heard and let go", outside.lost)?;
        m.counter("outside_gaps", "Times that outside updates may have been missed", outside.gaps)?;
        m.counter("outside_unreadable", "Lists of orders that are not lists", outside.unreadable)?;
        m.counter(
            "outside_retries",
            "Storage calls for outside updates that were repeated",
            outside.retries,
        )?;
        m.counter("mirrored_updates", "Own updates written for outside consumers", outside.mirrored)?;
        m.counter(
            "mirror_failures",
            "Own updates not written for outside consumers",
            outside.mirror_failures,
        )?;

        m.gauge("tcp_connections", "Open TCP connections, WebSockets among them", signed(http.open))?;
        m.counter("tcp_accepted", "TCP connections accepted", http.accepted)?;
        m.counter("tcp_refused", "TCP connections refused by a limit", http.refused)?;
        m.counter(
            "tcp_refused_unanswered",
            "Of these, those that were not told why",
            http.refused_unanswered,
        )?;
        m.counter("tcp_accept_failures", "Failed accepts", http.accept_failures)?;
        m.counter("http_bad_requests", "Connections that ended without a whole request", http.bad_requests)?;
        let panics = [("request", http.panics), ("connection", messages.panics), ("order", orders.panics)];
        m.counters("panics", "Panics that ended one request, connection or try", "where", panics)?;
        m.counter("log_lines_lost", "Lines of the log that stderr did not take", telemetry::lines_lost())?;
        let bytes = "What the bodies of requests hold that are being read, in bytes";
        m.gauge("body_bytes", bytes, signed(http.body_bytes as u64))?;
        let bytes = "What answers hold that their clients have not taken yet, in bytes";
        m.gauge("answer_bytes", bytes, signed(http.answer_bytes as u64))?;
        let refused = http.requests_refused_by_reason.iter().map(|(reason, count)| (*reason, *count));
        m.counters("requests_refused", "Requests answered with a problem, by its code", "reason", refused)?;
        m.counter("price_requests", "Requests that post prices", http.price_requests)?;
        m.counter("price_requests_refused", "Requests with a fault", http.price_requests_refused)?;
        m.counter("prices_accepted", "Prices accepted over HTTP", http.prices_accepted)?;
        m.counter("tokens_accepted", "Tokens and API keys that held", http.tokens_accepted)?;
        let refused = http.tokens_refused_by_reason.iter().map(|(reason, count)| (*reason, *count));
        m.counters("tokens_refused", "Tokens and API keys that did not hold, by reason", "reason", refused)?;
        m.gauge("revocations", "Revocations that are remembered", signed(http.revocations as u64))
    }
}
