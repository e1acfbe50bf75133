//! What is counted of the storage: its memory, and outages.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Timing;
use super::table::counts;
use crate::{BackendName, BackendState, Open, Scope};

/// A state that the storage was in, or is, from when it went over into it, and what it cost meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(optional_fields))]
pub struct StateSpell {
    /// Which one.
    pub state: Open<BackendState>,
    /// Which backend served.
    pub storage_backend: Open<BackendName>,
    /// Whether it was about all channels, as it began.
    pub scope: Open<Scope>,
    /// When it began.
    pub since: DateTime<Utc>,
    /// When it ended; absent for the one that lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// How long it lasted, or has so far, in milliseconds, by a clock that nobody sets.
    pub lasted_ms: u64,
    /// A stable word for why, as it began.
    pub reason_code: String,
    /// Why, for people.
    pub reason: String,
    /// Accepted entries that Redis was sent late, meanwhile.
    pub entries_late: u64,
    /// Entries that were put back into logs which had lost them.
    pub entries_put_back: u64,
    /// Accepted entries that the log will not have: they were too old or too many, or it refused them.
    pub entries_let_go: u64,
    /// Entries that were refused, because the journal was full.
    pub entries_refused: u64,
    /// Logs that had lost what they acknowledged.
    pub logs_lost: u64,
}

counts! {
    /// How full this process' own logs are.
    pub struct MemoryUsage {
        /// What the entries in this process cost, the latest ones of keys included, in bytes.
        bytes: usize = gauge("memory_bytes"),
        /// The bound of that.
        bytes_max: usize = gauge("memory_bytes_max"),
        /// Of these bytes, what the latest entries of keys cost.
        latest_bytes: usize = gauge("memory_latest_bytes"),
        /// Entries of logs that went because the bound was passed; readers who ask for them are told of the
        /// gap.
        evicted_entries: u64 = counter("memory_evicted", what = "entries"),
        /// Latest entries of keys that did.
        evicted_latest: u64 = counter("memory_evicted", what = "latest"),
        /// What memory keeps on disk (`storage.memory.data_dir`): `off`, `working`, `failed`, `stalled` or
        /// `closed`.
        disk: String,
        /// What is wrong with it; absent while nothing is.
        #[serde(skip_serializing_if = "Option::is_none")]
        disk_reason: Option<String>,
        /// The length of its files; room inside is used again.
        disk_bytes: u64 = gauge("memory_disk_bytes"),
        /// Transactions that it wrote for somebody who waited: with `fsync = "always"` as many fsyncs.
        disk_commits: u64 = counter("memory_disk_commits"),
        /// What was refused because the disk did not take it, or not in time; each try counted.
        disk_refused: u64 = counter("memory_disk_refused"),
        /// Its files that could not be read and were put aside, since the start of the process.
        disk_set_aside: u64 = counter("memory_disk_set_aside"),
    }

    /// How long the storage was in each state, what waits for Redis, and what became of channels that went
    /// on without it.
    pub struct OutageView {
        /// Changes of the storage's state.
        switches: u64 = counter("storage_switches"),
        /// Time spent in each state of the storage, in seconds.
        seconds_in_state: BTreeMap<String, f64> = counter("storage_state_seconds", by state),
        /// Channels that go on without Redis now.
        channels_alone: usize = gauge("channels_alone"),
        /// Channels to be put in order with Redis, those included.
        channels_waiting: usize = gauge("channels_waiting"),
        /// Of these, those that cannot be put in order while Redis serves all others (a key of theirs holds
        /// something else, say): health names them and why, they go on without Redis, and are tried again
        /// every 10 s.
        channels_set_aside: usize = gauge("channels_set_aside"),
        /// Accepted entries that wait for Redis.
        journal_entries: usize = gauge("journal_entries"),
        /// What they cost, in bytes.
        journal_bytes: usize = gauge("journal_bytes"),
        /// How long the oldest of them has waited, in milliseconds; absent when none waits.
        #[serde(skip_serializing_if = "Option::is_none")]
        journal_oldest_ms: Option<u64>,
        /// Accepted entries that the log will not have, since a newer price of the key took their place for
        /// want of room.
        journal_thinned: u64 = counter("journal_let_go", reason = "thinned"),
        /// Entries of zones that waited too long.
        journal_aged: u64 = counter("journal_let_go", reason = "aged"),
        /// Updates of orders beyond those that are kept of each.
        journal_order_overflow: u64 = counter("journal_let_go", reason = "order_overflow"),
        /// Entries refused, because the journal was full.
        journal_refused_full: u64 = counter("journal_refused"),
        /// Of the entries in the journal, those that would be lost with the process: there is no spool, or
        /// they are not in it.
        journal_in_memory_only: usize = gauge("journal_in_memory_only"),
        /// The journal's copy on disk: `off`, `working`, `failed`, `stalled` or `closed`.
        spool: String,
        /// What is wrong with it; absent while nothing is.
        #[serde(skip_serializing_if = "Option::is_none")]
        spool_reason: Option<String>,
        /// Entries in the journal's copy on disk, also those of former lives of this gateway.
        spool_entries: usize = gauge("spool_entries"),
        /// What they cost, in bytes.
        spool_bytes: u64 = gauge("spool_bytes"),
        /// Entries that the spool had no room for, each try counted.
        spool_full: u64 = counter("spool_not_written", reason = "full"),
        /// Entries that it did not take in time: the disk hangs.
        spool_slow: u64 = counter("spool_not_written", reason = "slow"),
        /// Entries that it could not write: the disk is full or fails.
        spool_failed: u64 = counter("spool_not_written", reason = "failed"),
        /// Channels that left Redis and came back.
        #[serde(flatten)]
        lines: LineCounts = of,
        /// Jobs of this node that Redis does not have yet.
        jobs_waiting: usize = gauge("jobs_not_recorded"),
        /// Jobs that were taken on without Redis.
        #[serde(flatten)]
        jobs: JobsAloneCounts = of,
        /// Small records (that a zone exists, say) that waited for Redis and were one too many.
        records_let_go: u64 = counter("records_let_go"),
    }

    /// Channels that left Redis and came back.
    pub struct LineCounts<N> {
        /// How long Redis took to answer a beat: a script that writes, five times a second, to each primary.
        redis_round_trip: Timing<N> = histogram("redis_round_trip_seconds"),
        /// Times that a channel went on alone.
        forks: N = counter("forks"),
        /// Of these, because an append was late while Redis served.
        forks_late: N = counter("forks_late"),
        /// Times that a channel came back in step with Redis.
        rejoins: N = counter("rejoins"),
        /// Times that this was tried again.
        rejoin_retries: N = counter("rejoin_retries"),
        /// Entries sent to the log when Redis was back.
        replayed: N = counter("journal_replayed"),
        /// Entries put back into logs that had lost them.
        put_back: N = counter("journal_put_back"),
        /// Accepted entries that the log refused when it was back: the order had ended, or was somebody
        /// else's.
        superseded: N = counter("journal_let_go", reason = "superseded"),
        /// Logs that had lost what they acknowledged.
        lost_logs: N = counter("logs_lost"),
    }

    /// Jobs that were taken on without Redis.
    pub struct JobsAloneCounts<N> {
        /// Jobs that this node took on without Redis.
        jobs_taken: N = counter("jobs_taken_alone"),
        /// Of these, those that Redis has had since.
        jobs_recorded: N = counter("jobs_recorded"),
        /// Times that recording one failed, and was tried again.
        job_retries: N = counter("job_record_retries"),
        /// Of these jobs, those whose idempotency key led to another job in Redis.
        key_conflicts: N = counter("idempotency_conflicts"),
    }
}
