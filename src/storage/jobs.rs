//! The jobs role: a bounded queue whose jobs are executed once, even when workers die.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Result;
use crate::model::JobId;

/// Shorter leases are extended to this.
pub const LEASE_MIN: Duration = Duration::from_millis(1);

/// Longer leases and delays are cut to this: a year.
pub const LEASE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The most jobs that one call claims or lists, whatever limit it is given.
pub const JOBS_PER_CALL_MAX: usize = 1_000;

/// What kind of worker may claim a job.
pub type JobKind = Arc<str>;

/// Which attempt a job is at, as the last run that ended with [`Ending::Retry`] stated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempt {
    /// The attempt of the next run, counting from 1; 0 if no run has stated it.
    pub number: u32,
    /// The run that stated it.
    pub said_by: u32,
}

/// A job to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its id, which was never used before.
    pub id: JobId,
    /// What is to be done.
    pub payload: Bytes,
    /// Which workers may claim it; `None` for any.
    pub kind: Option<JobKind>,
    /// Makes the call repeatable for a caller that does not know whether it took effect.
    pub idempotency: Option<Idempotency>,
}

/// A caller's name for a request, and a fingerprint of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The name.
    pub key: String,
    /// Equal for equal requests.
    pub fingerprint: String,
}

/// How much is kept. The bounds of the newest [`enqueue`](Jobs::enqueue) apply, whoever called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobBounds {
    /// Jobs that wait, are delayed or run; the next one is refused. In memory, a job of more than 4 KiB
    /// counts once for each 4 KiB begun, here and in `kept`.
    pub unfinished: usize,
    /// All jobs, finished ones included; the oldest finished ones are removed first. Unfinished jobs are
    /// never removed, so there may be as many jobs as `unfinished` allows if that is more.
    pub kept: usize,
    /// How long a finished job is kept, and an idempotency key after its job was queued. The key is also
    /// removed with its job.
    pub kept_for: Duration,
}

/// What became of a new job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits.
    Queued,
    /// The same request was queued before, as this job; nothing was changed.
    Repeated(JobId),
    /// The idempotency key was used for another request; nothing was changed.
    Conflict,
    /// The queue has as many unfinished jobs as it may have; nothing was changed.
    Full,
}

/// Whether a claim still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Yes.
    Yes,
    /// Yes, and the job was cancelled meanwhile: the worker must end it instead of executing it.
    Cancelled,
    /// No: the lease ran out and another worker may have the job, or the job ended.
    Lost,
}

/// How a run of a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The job is finished, successfully or not.
    Done,
    /// The job can be claimed again, but not before this time has passed.
    Retry {
        /// How long it waits.
        after: Duration,
        /// The attempt of the next run; `None` leaves the job's own record of it unchanged.
        attempt: Option<u32>,
    },
    /// The job failed as often as it may: it is finished, and listed as a dead letter.
    Dead {
        /// Why, for people.
        error: String,
    },
}

/// The outcome of a request to cancel a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelling {
    /// The worker that has the job, or claims it next, is told. The job no longer waits for its turn. Asking
    /// again gives the same answer.
    Asked,
    /// The job has passed its point of no return.
    TooLate,
    /// The job had ended before.
    Ended,
    /// There is no such job.
    Unknown,
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for a worker.
    Waiting,
    /// It waits until it is due to be tried again.
    Delayed,
    /// A worker claimed it, and has not ended its run; the worker may have died.
    Claimed,
    /// It ended.
    Done,
    /// It failed for good, and is listed as a dead letter.
    Dead,
}

impl JobState {
    /// Every state, in order of declaration.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Delayed, Self::Claimed, Self::Done, Self::Dead];
}

/// A job in its present state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// What is to be done.
    pub payload: Bytes,
    /// Its state.
    pub state: JobState,
    /// How many times it has been claimed, including the newest claim.
    pub run: u32,
    /// Identifies the newest claim, and is greater than the token of any earlier claim of any job; 0 if there was
    /// none. It is also the fencing token of everything appended under that claim.
    pub token: u64,
    /// It was cancelled: a worker that has it must end it instead of executing it.
    pub cancelled: bool,
    /// It has passed its point of no return, [`commit`](Jobs::commit), in this run or an earlier one.
    pub committed: bool,
    /// Which attempt it is at; meaningless once the job is a dead letter.
    pub attempt: Attempt,
    /// Which workers may claim it; `None` for any, and always `None` for a dead letter.
    pub kind: Option<JobKind>,
    /// When it was queued, by the storage's clock.
    pub enqueued_at: DateTime<Utc>,
    /// When its state last changed, by the storage's clock.
    pub changed_at: DateTime<Utc>,
    /// Why it is a dead letter; `None` in all other states.
    pub error: Option<String>,
}

/// How many jobs there are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobCounts {
    /// [`JobState::Waiting`]
    pub waiting: u64,
    /// [`JobState::Delayed`]
    pub delayed: u64,
    /// [`JobState::Claimed`]
    pub claimed: u64,
    /// [`JobState::Done`]
    pub done: u64,
    /// [`JobState::Dead`]
    pub dead: u64,
}

/// A job's state, with the time by which jobs in that state are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) enum Stand {
    /// Its turn came at `since`.
    Waiting { since: Instant },
    /// Its turn comes at `due`.
    Delayed { due: Instant },
    /// A worker has it until `lease_ends`.
    Claimed { lease_ends: Instant },
    /// It ended at `ended`.
    Done { ended: Instant },
    /// It became a dead letter at `ended`.
    Dead { ended: Instant, error: String },
}

impl Stand {
    pub(in crate::storage) fn state(&self) -> JobState {
        match self {
            Self::Waiting { .. } => JobState::Waiting,
            Self::Delayed { .. } => JobState::Delayed,
            Self::Claimed { .. } => JobState::Claimed,
            Self::Done { .. } => JobState::Done,
            Self::Dead { .. } => JobState::Dead,
        }
    }

    /// The time by which jobs in that state are sorted.
    pub(in crate::storage) fn time(&self) -> Instant {
        match *self {
            Self::Waiting { since: time }
            | Self::Delayed { due: time }
            | Self::Claimed { lease_ends: time }
            | Self::Done { ended: time }
            | Self::Dead { ended: time, .. } => time,
        }
    }
}

/// A job that one node kept while the shared storage was away, and now moves there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct MovedJob {
    pub(in crate::storage) view: JobView,
    pub(in crate::storage) stand: Stand,
    /// The idempotency key that it was queued under, if the key still leads to this job.
    pub(in crate::storage) idempotency: Option<Idempotency>,
    pub(in crate::storage) bounds: JobBounds,
}

/// The outcome of recording a moved job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Recorded {
    /// The job is recorded, now or since an earlier call.
    Yes,
    /// The job is recorded without its idempotency key, because the key already led to another job.
    KeyTaken {
        /// The other job.
        by: JobId,
        /// The other request was the same one, and no run of this job had begun, so this job was cancelled.
        cancelled: bool,
    },
}

/// A queue of jobs.
///
/// Promises: each call is atomic. Jobs are claimed in the order in which they were queued or became due
/// again; before them come jobs whose lease ran out, and before all others jobs that were cancelled while
/// they waited. Only workers of a job's kind claim it; they pass over jobs of other kinds. One worker at a
/// time has a job: it can be claimed again only after its lease has run out by the storage's clock, or its
/// run ended with [`Ending::Retry`]. Tokens only grow. A call under a token that is not the job's newest, or
/// whose run has ended, changes nothing and answers [`Held::Lost`]. A lease that has run out still holds
/// until somebody else claims the job. A refused call leaves no trace.
///
/// Not promised: that a worker whose lease ran out has stopped. It must watch its own monotonic clock, and
/// its appends carry its token as a fence, which the log checks. Nor that jobs outlast a week in which nobody
/// calls this role.
///
/// Implementations spawn nothing they do not own, retry nothing, and survive being dropped in
/// mid-call: the call then may or may not have taken effect.
#[async_trait]
pub trait Jobs: fmt::Debug + Send + Sync {
    /// Queues a job, unless there are too many or its idempotency key is known. The key is looked up first,
    /// so a repetition is answered even if the queue is full. Repeating the call with the same `id` and no
    /// key queues nothing twice ([`Enqueued::Repeated`]).
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued>;

    /// The same; but while the shared storage is away, this node may keep the job, hand it out to its own
    /// workers, and move it to the shared storage later. The job is never in both: if the storage went away
    /// during the call, the job is not kept here.
    async fn enqueue_here(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.enqueue(job, bounds).await
    }

    /// Claims the jobs of a kind, or of no kind, whose turn it is: cancelled ones, those whose lease ran out,
    /// and those that wait or are due again; at most `limit` of them, and at most [`JOBS_PER_CALL_MAX`]. Each
    /// gets its own token, and the worker may execute it for as long as its lease lasts.
    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<JobView>>;

    /// Makes the lease last at least this long from now, also for a cancelled job; a lease that lasts longer
    /// stays as it is.
    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held>;

    /// The point of no return: unless the job was cancelled before, it cannot be cancelled from here on, not
    /// even between this run and the next. Extends the lease too. Repeating it changes nothing more.
    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held>;

    /// Ends a run. Only [`Ending::Retry`] can be answered with [`Held::Cancelled`], and then nothing is
    /// changed: a cancelled job has to be ended. Repeating a call that ended the job answers [`Held::Lost`];
    /// so does repeating an [`Ending::Retry`].
    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held>;

    /// Asks for a job to be ended instead of executed.
    async fn cancel(&self, id: JobId) -> Result<Cancelling>;

    /// One job, if it is known.
    async fn job(&self, id: JobId) -> Result<Option<JobView>>;

    /// The jobs queued before the job `before` (if that is no longer known, from the newest on), the newest
    /// first, in one state or in any; at most `limit` of them, and at most [`JOBS_PER_CALL_MAX`].
    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>>;

    /// Takes a dead letter off the list: it becomes [`JobState::Done`], and is kept no longer than it would
    /// have been. Answers whether it was a dead letter.
    async fn settle_dead(&self, id: JobId) -> Result<bool>;

    /// How many jobs are in each state. Finished ones may be counted for a while after their time.
    async fn job_counts(&self) -> Result<JobCounts>;
}
