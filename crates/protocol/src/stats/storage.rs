//! Counters of the storage: its memory, and outages.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Timing;
use super::table::counts;
use crate::{BackendName, BackendState, Open, Scope};

/// A state of the storage, from when it began, and what happened meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct StateSpell {
    /// The state.
    pub state: Open<BackendState>,
    /// The storage that served.
    pub storage_backend: Open<BackendName>,
    /// Whether it affected all channels when it began.
    pub scope: Open<Scope>,
    /// When it began.
    pub since: DateTime<Utc>,
    /// When it ended; absent for the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// How long it has lasted, in milliseconds of a monotonic clock.
    pub lasted_ms: u64,
    /// The reason when it began, as a stable code.
    pub reason_code: String,
    /// The reason, for people.
    pub reason: String,
    /// Accepted entries that reached Redis late meanwhile.
    pub entries_late: u64,
    /// Entries appended again to logs that had lost them.
    pub entries_put_back: u64,
    /// Accepted entries that the log will not have: they were too old or too many, or it refused them.
    pub entries_let_go: u64,
    /// Entries refused because the journal was full.
    pub entries_refused: u64,
    /// Logs that had lost acknowledged entries.
    pub logs_lost: u64,
}

counts! {
    /// The memory that this process' own logs take.
    pub struct MemoryUsage {
        /// Bytes of the channels in this process: their entries, the latest entry of each key, and what a channel
        /// takes by itself.
        bytes: usize = gauge("memory_bytes"),
        /// The bound on these bytes.
        bytes_max: usize = gauge("memory_bytes_max"),
        /// The part of these bytes that latest entries take.
        latest_bytes: usize = gauge("memory_latest_bytes"),
        /// Entries of logs that were evicted because of the bound; readers who ask for them are told of the
        /// gap.
        evicted_entries: u64 = counter("memory_evicted", what = "entries"),
        /// Latest entries of keys that were evicted because of the bound.
        evicted_latest: u64 = counter("memory_evicted", what = "latest"),
        /// The state of the memory storage's files (`storage.memory.data_dir`): `off`, `working`, `failed`,
        /// `stalled` or `closed`.
        disk: String,
        /// What is wrong with them; absent if nothing is.
        #[serde(skip_serializing_if = "Option::is_none")]
        disk_reason: Option<String>,
        /// The size of the files; free space inside is reused.
        disk_bytes: u64 = gauge("memory_disk_bytes"),
        /// Transactions written for callers that waited: with `fsync = "always"`, as many fsyncs.
        disk_commits: u64 = counter("memory_disk_commits"),
        /// Requests refused because the disk did not take the data, or not in time; each try counts.
        disk_refused: u64 = counter("memory_disk_refused"),
        /// Files that could not be read and were set aside, since the start of the process.
        disk_set_aside: u64 = counter("memory_disk_set_aside"),
    }

    /// How long the storage was in each state, what waits for Redis, and how channels fared without it.
    pub struct OutageView {
        /// Changes of the storage's state.
        switches: u64 = counter("storage_switches"),
        /// Time spent in each state of the storage, in seconds.
        seconds_in_state: BTreeMap<String, f64> = counter("storage_state_seconds", by state),
        /// Channels that currently continue without Redis, each in a fork.
        channels_alone: usize = gauge("channels_alone"),
        /// Channels to be reconciled with Redis, including those.
        channels_waiting: usize = gauge("channels_waiting"),
        /// Channels for which reconciling fails while Redis serves all others, for example because their
        /// key holds something else. Health lists them with the reason; they continue without Redis and are
        /// tried again every 10 s.
        channels_set_aside: usize = gauge("channels_set_aside"),
        /// Accepted entries that wait for Redis.
        journal_entries: usize = gauge("journal_entries"),
        /// Their bytes.
        journal_bytes: usize = gauge("journal_bytes"),
        /// How long the oldest of them has waited, in milliseconds; absent if none waits.
        #[serde(skip_serializing_if = "Option::is_none")]
        journal_oldest_ms: Option<u64>,
        /// Accepted entries that the log will not have, because a newer price of their key replaced them
        /// when the journal was full.
        journal_thinned: u64 = counter("journal_let_go", reason = "thinned"),
        /// Entries of zones dropped because they waited too long.
        journal_aged: u64 = counter("journal_let_go", reason = "aged"),
        /// Updates dropped because their order had more than may wait.
        journal_order_overflow: u64 = counter("journal_let_go", reason = "order_overflow"),
        /// Entries refused, because the journal was full.
        journal_refused_full: u64 = counter("journal_refused"),
        /// Entries in the journal that would be lost with the process, because there is no spool or they
        /// are not in it.
        journal_in_memory_only: usize = gauge("journal_in_memory_only"),
        /// The state of the spool, the journal's write-ahead log on disk: `off`, `working`, `failed`,
        /// `stalled` or `closed`.
        spool: String,
        /// What is wrong with it; absent if nothing is.
        #[serde(skip_serializing_if = "Option::is_none")]
        spool_reason: Option<String>,
        /// Entries in the spool, including those of earlier processes of this gateway.
        spool_entries: usize = gauge("spool_entries"),
        /// Their bytes.
        spool_bytes: u64 = gauge("spool_bytes"),
        /// Entries that the spool had no room for; each try counts.
        spool_full: u64 = counter("spool_not_written", reason = "full"),
        /// Entries that the disk did not write in time.
        spool_slow: u64 = counter("spool_not_written", reason = "slow"),
        /// Entries that could not be written: the disk is full or fails.
        spool_failed: u64 = counter("spool_not_written", reason = "failed"),
        /// Channels that left Redis and came back.
        #[serde(flatten)]
        lines: LineCounts = of,
        /// Jobs of this node that Redis does not have yet.
        jobs_waiting: usize = gauge("jobs_not_recorded"),
        /// Jobs accepted without Redis.
        #[serde(flatten)]
        jobs: JobsWithoutRedisCounts = of,
        /// Small records, such as that a zone exists, dropped because too many waited for Redis.
        records_let_go: u64 = counter("records_let_go"),
    }

    /// Channels that left Redis and came back.
    pub struct LineCounts<N> {
        /// The round trip of a health probe: a script that writes, five times a second, to each primary.
        redis_round_trip: Timing<N> = histogram("redis_round_trip_seconds"),
        /// Times that a channel began a fork, to continue without Redis.
        forks: N = counter("forks"),
        /// Forks that began because an append was late while Redis served.
        forks_late: N = counter("forks_late"),
        /// Times that a channel was reconciled with Redis.
        rejoins: N = counter("rejoins"),
        /// Times that reconciling a channel failed and was tried again.
        rejoin_retries: N = counter("rejoin_retries"),
        /// Entries sent to the log when Redis was back.
        replayed: N = counter("journal_replayed"),
        /// Entries appended again to logs that had lost them.
        put_back: N = counter("journal_put_back"),
        /// Accepted entries that the log refused when it was back: the order had ended, or belonged to
        /// another worker.
        superseded: N = counter("journal_let_go", reason = "superseded"),
        /// Logs that had lost acknowledged entries.
        lost_logs: N = counter("logs_lost"),
    }

    /// Jobs accepted without Redis.
    pub struct JobsWithoutRedisCounts<N> {
        /// Jobs that this node accepted without Redis.
        jobs_taken: N = counter("jobs_taken_alone"),
        /// Those of them that Redis has received since.
        jobs_recorded: N = counter("jobs_recorded"),
        /// Times that recording one failed and was tried again.
        job_retries: N = counter("job_record_retries"),
        /// Jobs accepted without Redis whose idempotency key belonged to another job in Redis.
        key_conflicts: N = counter("idempotency_conflicts"),
    }
}
