//! The jobs role: a bounded queue whose jobs are carried out once, also when workers die.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::Result;
use crate::model::JobId;

/// Leases shorter than this last this long.
pub const LEASE_MIN: Duration = Duration::from_millis(1);

/// Leases and delays longer than this, a year, last this long.
pub const LEASE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Jobs that one call claims or lists at the most, however many were asked for.
pub const JOBS_PER_CALL_MAX: usize = 1_000;

/// What kind of worker may claim a job.
pub type JobKind = Arc<str>;

/// Which attempt a job is at, as the end of a run said it with [`Ending::Retry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempt {
    /// The attempt that the next run is at, counting from 1; 0 when no run has said it.
    pub number: u32,
    /// The run that said so.
    pub said_by: u32,
}

/// A job to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its name; not used before.
    pub id: JobId,
    /// What is to be done.
    pub payload: Bytes,
    /// Which workers may claim it; `None` for any.
    pub kind: Option<JobKind>,
    /// Makes the call repeatable for who does not know whether it took effect.
    pub idempotency: Option<Idempotency>,
}

/// A caller's name for a request, and what the request said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The name.
    pub key: String,
    /// Equal for equal requests.
    pub fingerprint: String,
}

/// How much is kept. Those of the newest [`enqueue`](Jobs::enqueue) hold, whoever called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobBounds {
    /// Jobs that wait, are delayed or run; one more is refused. In memory, here and below, one of more than
    /// 4 KiB counts once for each 4 KiB begun.
    pub unfinished: usize,
    /// Jobs in all, finished ones included; the oldest finished ones go first. Unfinished jobs
    /// never go, so there may be as many jobs as `unfinished` says if that is more.
    pub kept: usize,
    /// How long a finished job, and an idempotency key since its job was queued, are kept. A key
    /// also goes with its job.
    pub kept_for: Duration,
}

/// What became of a new job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits.
    Queued,
    /// The same request was queued before, as this job; nothing was done.
    Repeated(JobId),
    /// The idempotency key was used for another request; nothing was done.
    Conflict,
    /// There are as many unfinished jobs as may be; nothing was done.
    Full,
}

/// A job that a worker may carry out for as long as its lease lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedJob {
    /// Its name.
    pub id: JobId,
    /// What is to be done.
    pub payload: Bytes,
    /// Names this claim; greater than that of every claim before it, of any job. Also the fence of
    /// what is appended under it.
    pub token: u64,
    /// How many times it has been claimed, this time included.
    pub run: u32,
    /// It was cancelled: it is to be ended, not carried out.
    pub cancelled: bool,
    /// A run before this one passed the point of no return, [`commit`](Jobs::commit).
    pub committed: bool,
    /// Which attempt it is at.
    pub attempt: Attempt,
    /// Which workers may claim it; `None` for any.
    pub kind: Option<JobKind>,
    /// When it was queued, by the storage's clock.
    pub enqueued_at: DateTime<Utc>,
}

/// Whether a claim still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// It does.
    Yes,
    /// It does, and the job was cancelled meanwhile: it is to be ended, not carried out.
    Cancelled,
    /// It does not: the lease ran out and the job may be somebody else's, or it ended.
    Lost,
}

/// How a run of a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The job is finished, well or not.
    Done,
    /// It is to be claimed again, not before this time has passed.
    Retry {
        /// How long it waits.
        after: Duration,
        /// The attempt that the next run is at; `None` leaves what the job says of it as it is.
        attempt: Option<u32>,
    },
    /// It was tried in vain as often as may be: it is finished, and listed as a dead letter.
    Dead {
        /// Why, for people.
        error: String,
    },
}

/// What became of a wish to cancel a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelling {
    /// Whoever claims it, or has it now, is told. It waits no longer for its turn. Asking again
    /// gives the same answer.
    Asked,
    /// It passed its point of no return.
    TooLate,
    /// It ended before.
    Ended,
    /// There is no such job.
    Unknown,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// It waits for a worker.
    Waiting,
    /// It waits until it is to be tried again.
    Delayed,
    /// A worker has it, or died with it.
    Claimed,
    /// It ended.
    Done,
    /// It ended in vain, and is listed as a dead letter.
    Dead,
}

impl JobState {
    /// Every state, in the order of their declaration.
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Delayed, Self::Claimed, Self::Done, Self::Dead];
}

/// A job as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its name.
    pub id: JobId,
    /// What is to be done.
    pub payload: Bytes,
    /// Where it stands.
    pub state: JobState,
    /// How many times it has been claimed.
    pub run: u32,
    /// The newest claim; 0 when there was none.
    pub token: u64,
    /// It was cancelled.
    pub cancelled: bool,
    /// It passed its point of no return.
    pub committed: bool,
    /// Which attempt it is at; says nothing once the job is a dead letter.
    pub attempt: Attempt,
    /// Which workers may claim it; `None` for any, and of a dead letter.
    pub kind: Option<JobKind>,
    /// When it was queued, by the storage's clock.
    pub enqueued_at: DateTime<Utc>,
    /// When its state last changed, by the storage's clock.
    pub changed_at: DateTime<Utc>,
    /// Why it is a dead letter; `None` when it is none.
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

/// Where a job stands, and what it is sorted by there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) enum Stand {
    /// Its turn came then.
    Waiting { since: Instant },
    /// Its turn comes then.
    Delayed { due: Instant },
    /// It is somebody's until then.
    Claimed { lease_ends: Instant },
    /// It ended then.
    Done { ended: Instant },
    /// It ended then, in vain.
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
}

/// A job that one node kept while the storage that nodes share was away, on its way there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct MovedJob {
    pub(in crate::storage) view: JobView,
    pub(in crate::storage) stand: Stand,
    /// The key that it was queued under, if that still leads to it.
    pub(in crate::storage) idempotency: Option<Idempotency>,
    pub(in crate::storage) bounds: JobBounds,
}

/// What became of a job that was to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Recorded {
    /// It is there, now or since an earlier call.
    Yes,
    /// It is there, without its idempotency key, which led to another job already.
    KeyTaken {
        /// The other job.
        by: JobId,
        /// The other request was the same one, and this job had not been begun: it was cancelled.
        cancelled: bool,
    },
}

/// A queue of jobs.
///
/// Promises: each call is atomic. Jobs are claimed in the order in which they were queued, or
/// became due again; before them those whose lease ran out, and before all others those that were
/// cancelled while they waited. A job of a kind is claimed by workers of that kind alone, and they
/// pass over those of other kinds. A job is claimed by one at a time: again only after its lease has
/// run out by the storage's clock, or its run ended with [`Ending::Retry`]. Tokens only grow. A call
/// under a token that is not the job's newest, or whose run has ended, does nothing and says
/// [`Held::Lost`]. A lease that has run out still holds while nobody else has claimed the job. What
/// is refused leaves nothing behind.
///
/// Not promised: that a worker whose lease ran out has stopped. It must watch its own monotonic
/// clock, and what it appends carries its token as a fence, which the log checks. Nor that jobs
/// outlast a week in which nobody calls anything here.
///
/// Implementations spawn nothing they do not own, retry nothing, and survive being dropped in
/// mid-call: the call then may or may not have taken effect.
#[async_trait]
pub trait Jobs: fmt::Debug + Send + Sync {
    /// Queues a job, unless there are too many, or its idempotency key is known. A key that is
    /// known is looked at first, so that a repetition is answered also when the queue is full.
    /// Repeating the call with the same `id` and no key queues nothing twice ([`Enqueued::Repeated`]).
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued>;

    /// The same; and while the storage that nodes share is away, this node may keep the job by itself,
    /// hand it out to its own workers, and put it there later. Which is one of the two: a job whose
    /// call was under way when the storage went is not kept here besides.
    async fn enqueue_here(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.enqueue(job, bounds).await
    }

    /// Claims the jobs of a kind, or of none, whose turn it is, `limit` of them (and
    /// [`JOBS_PER_CALL_MAX`]) at the most: cancelled ones, those whose lease ran out, and those that
    /// wait or are due again. Each gets a token of its own.
    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<ClaimedJob>>;

    /// Makes the lease last at least this long from now, also that of a job that was cancelled; one
    /// that lasts longer stays as it is.
    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held>;

    /// The point of no return: if the job was not cancelled, it cannot be from here on, not even
    /// between this run and the next. Extends the lease too. Repeating it does nothing more.
    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held>;

    /// Ends a run. [`Held::Cancelled`] is answered to [`Ending::Retry`] alone, and then nothing is
    /// done: a cancelled job is to be ended. Repeating a call that ended the job says
    /// [`Held::Lost`]; a repeated [`Ending::Retry`] too.
    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held>;

    /// Asks for a job to be ended instead of carried out.
    async fn cancel(&self, id: JobId) -> Result<Cancelling>;

    /// A job, if it is known.
    async fn job(&self, id: JobId) -> Result<Option<JobView>>;

    /// The jobs queued before `before` (which must be known still, else from the newest on), the
    /// newest first, in one state or in any, `limit` of them (and [`JOBS_PER_CALL_MAX`]) at the most.
    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>>;

    /// Takes a dead letter off the list: it is [`JobState::Done`] then, and kept no longer than it
    /// would have been. Says whether it was one.
    async fn settle_dead(&self, id: JobId) -> Result<bool>;

    /// How many jobs there are. Finished ones may count for a while after their time.
    async fn job_counts(&self) -> Result<JobCounts>;
}
