//! The jobs role. All jobs share a few keys with one hash tag, so that each call is one script; see
//! `job_scripts`.

use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use fred::types::{FromValue, Value};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use uuid::Uuid;

use super::commands::Priority;
use super::errors::corrupt;
use super::scripts::{Script, text};
use super::{EXACT_MAX, RedisBackend, job_scripts};
use crate::model::JobId;
use crate::storage::{
    Attempt, Cancelling, Ending, Enqueued, Held, Idempotency, JOBS_PER_CALL_MAX, JobBounds, JobCounts,
    JobKind, JobState, JobView, Jobs, LEASE_MAX, LEASE_MIN, MovedJob, NewJob, Recorded, Result,
};

/// The claims of this process. They are made one after the other, so that the server can tell for which of
/// them the answer was lost.
#[derive(Debug)]
pub(super) struct Claims {
    by: Uuid,
    made: Mutex<ClaimsMade>,
}

#[derive(Debug, Default)]
pub(super) struct ClaimsMade {
    /// How many claims there have been.
    last: u64,
    /// The outcome of all claims up to this one is known.
    known: u64,
}

impl Default for Claims {
    fn default() -> Self {
        Self { by: Uuid::new_v4(), made: Mutex::default() }
    }
}

/// The fields of a job in an answer.
const FIELDS: usize = 13;

impl RedisBackend {
    async fn run_on_jobs<R: FromValue>(
        &self,
        script: &Script,
        op: &'static str,
        args: Vec<Value>,
    ) -> Result<R> {
        let mut words = self.keys.jobs.clone();
        words.push_values(&args);
        let (priority, keys) = (Priority::Usual, job_scripts::KEYS.len());
        script.send(priority, &self.commands, op, keys, words).await
    }

    async fn hold(
        &self,
        op: &'static str,
        id: JobId,
        token: u64,
        lease: Duration,
        commits: bool,
    ) -> Result<Held> {
        let lease = micros(lease.clamp(LEASE_MIN, LEASE_MAX));
        let args = vec![text(id), text(token), lease, text(u8::from(commits))];
        let answer: String = self.run_on_jobs(&job_scripts::HOLD, op, args).await?;
        held(op, &answer)
    }

    /// Claims up to `limit` jobs, and releases those of claims whose answers were lost.
    async fn next_claim(
        &self,
        mut made: MutexGuard<'_, ClaimsMade>,
        kind: &str,
        limit: usize,
        lease: Duration,
    ) -> Result<Vec<JobView>> {
        made.last += 1;
        let args = vec![
            text(limit.min(JOBS_PER_CALL_MAX)),
            micros(lease.clamp(LEASE_MIN, LEASE_MAX)),
            Value::from(kind),
            text(self.claims.by.simple()),
            text(made.last),
            text(made.known),
        ];
        let jobs = self.views(&job_scripts::CLAIM, "claim", args).await?;
        made.known = made.last;
        Ok(jobs)
    }

    /// See [`Primary::settle_claims`](crate::storage::primary::Primary::settle_claims).
    pub(super) async fn settle_claims(&self) -> Result<()> {
        let made = self.claims.made.lock().await;
        if made.known < made.last {
            self.next_claim(made, "", 0, LEASE_MIN).await?;
        }
        Ok(())
    }

    /// See [`Primary::record_job`](crate::storage::primary::Primary::record_job).
    pub(super) async fn record_job(&self, job: &MovedJob) -> Result<Recorded> {
        const OP: &str = "record_job";
        let MovedJob { view, stand, idempotency, bounds } = job;
        let (key, fingerprint) = key_and_fingerprint(idempotency.as_ref());
        // The clocks may differ, so times are sent as time elapsed since.
        let wall = Utc::now();
        let ago = |time: DateTime<Utc>| micros((wall - time).to_std().unwrap_or_default());
        let args = vec![
            text(view.id),
            Value::Bytes(view.payload.clone()),
            key,
            fingerprint,
            Value::from(letter(view.state)),
            text(view.run),
            text(view.token),
            text(u8::from(view.cancelled)),
            text(u8::from(view.committed)),
            text(view.error.as_deref().unwrap_or_default()),
            ago(view.enqueued_at),
            ago(view.changed_at),
            text(micros_from_now(stand.time())),
            text(bounds.kept),
            micros(bounds.kept_for),
            text(view.attempt.number),
            text(view.attempt.said_by),
            kind_text(view.kind.as_ref()),
        ];
        let answer: Vec<String> = self.run_on_jobs(&job_scripts::RECORD, OP, args).await?;
        let words: Vec<&str> = answer.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["recorded"] => Ok(Recorded::Yes),
            ["taken", by, cancelled] => {
                Ok(Recorded::KeyTaken { by: job_id(OP, by)?, cancelled: *cancelled == "1" })
            }
            _ => Err(unexpected(OP)),
        }
    }

    async fn views(&self, script: &Script, op: &'static str, args: Vec<Value>) -> Result<Vec<JobView>> {
        let answer: Vec<Bytes> = self.run_on_jobs(script, op, args).await?;
        answer.chunks(FIELDS).map(|fields| view(Fields { op, fields })).collect()
    }
}

#[async_trait]
impl Jobs for RedisBackend {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        let (key, fingerprint) = key_and_fingerprint(job.idempotency.as_ref());
        let args = vec![
            text(job.id),
            Value::Bytes(job.payload.clone()),
            key,
            fingerprint,
            text(bounds.unfinished),
            text(bounds.kept),
            micros(bounds.kept_for),
            kind_text(job.kind.as_ref()),
        ];
        let answer: Vec<String> = self.run_on_jobs(&job_scripts::ENQUEUE, "enqueue", args).await?;
        let words: Vec<&str> = answer.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["queued"] => Ok(Enqueued::Queued),
            ["repeated", id] => Ok(Enqueued::Repeated(job_id("enqueue", id)?)),
            ["conflict"] => Ok(Enqueued::Conflict),
            ["full"] => Ok(Enqueued::Full),
            _ => Err(unexpected("enqueue")),
        }
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<JobView>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        self.next_claim(self.claims.made.lock().await, kind, limit, lease).await
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.hold("extend", id, token, lease, false).await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        self.hold("commit", id, token, lease, true).await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        let none = || Value::from("");
        let (state, more, attempt) = match ending {
            Ending::Done => (JobState::Done, none(), none()),
            Ending::Retry { after, attempt } => {
                (JobState::Delayed, micros((*after).min(LEASE_MAX)), attempt.map_or_else(none, text))
            }
            Ending::Dead { error } => (JobState::Dead, Value::from(error.as_str()), none()),
        };
        let args = vec![text(id), text(token), Value::from(letter(state)), more, attempt];
        let answer: String = self.run_on_jobs(&job_scripts::FINISH, "finish", args).await?;
        held("finish", &answer)
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        let answer: String = self.run_on_jobs(&job_scripts::CANCEL, "cancel", vec![text(id)]).await?;
        match answer.as_str() {
            "asked" => Ok(Cancelling::Asked),
            "late" => Ok(Cancelling::TooLate),
            "ended" => Ok(Cancelling::Ended),
            "unknown" => Ok(Cancelling::Unknown),
            _ => Err(unexpected("cancel")),
        }
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        Ok(self.views(&job_scripts::JOB, "job", vec![text(id)]).await?.pop())
    }

    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let state = Value::from(state.map_or("", letter));
        let before = Value::from(before.map(|id| id.to_string()).unwrap_or_default());
        let args = vec![state, before, text(limit.min(JOBS_PER_CALL_MAX))];
        self.views(&job_scripts::LIST, "list_jobs", args).await
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        let was: u64 = self.run_on_jobs(&job_scripts::SETTLE, "settle_dead", vec![text(id)]).await?;
        Ok(was == 1)
    }

    async fn job_counts(&self) -> Result<JobCounts> {
        let counts: Vec<u64> = self.run_on_jobs(&job_scripts::COUNTS, "job_counts", Vec::new()).await?;
        let [waiting, delayed, claimed, done, dead] = counts.as_slice() else {
            return Err(unexpected("job_counts"));
        };
        Ok(JobCounts { waiting: *waiting, delayed: *delayed, claimed: *claimed, done: *done, dead: *dead })
    }
}

/// The stored form of a state.
fn letter(state: JobState) -> &'static str {
    match state {
        JobState::Waiting => "w",
        JobState::Delayed => "d",
        JobState::Claimed => "c",
        JobState::Done => "o",
        JobState::Dead => "x",
    }
}

/// A script's answer for one job.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) op: &'static str,
    pub(super) fields: &'a [Bytes],
}

impl Fields<'_> {
    fn bytes(&self, at: usize) -> Result<Bytes> {
        // Copied, so that a job does not keep a whole reply alive.
        self.fields.get(at).map(|field| Bytes::copy_from_slice(field)).ok_or_else(|| unexpected(self.op))
    }

    fn text(&self, at: usize) -> Result<&str> {
        let field = self.fields.get(at).and_then(|field| std::str::from_utf8(field).ok());
        field.ok_or_else(|| unexpected(self.op))
    }

    fn number<N: FromStr>(&self, at: usize) -> Result<N> {
        self.text(at)?.parse().map_err(|_| unexpected(self.op))
    }

    fn id(&self, at: usize) -> Result<JobId> {
        job_id(self.op, self.text(at)?)
    }

    fn flag(&self, at: usize) -> Result<bool> {
        Ok(self.text(at)? == "1")
    }

    /// The fields of an attempt.
    fn attempt(&self, at: usize) -> Result<Attempt> {
        Ok(Attempt { number: self.number(at)?, said_by: self.number(at + 1)? })
    }

    fn kind(&self, at: usize) -> Result<Option<JobKind>> {
        let kind = self.text(at)?;
        Ok((!kind.is_empty()).then(|| kind.into()))
    }

    fn time(&self, at: usize) -> Result<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.number(at)?).ok_or_else(|| unexpected(self.op))
    }
}

pub(super) fn view(job: Fields<'_>) -> Result<JobView> {
    let written = job.text(1)?;
    let state = JobState::ALL.into_iter().find(|state| letter(*state) == written);
    let state = state.ok_or_else(|| unexpected(job.op))?;
    let error = if state == JobState::Dead { Some(job.text(8)?.to_owned()) } else { None };
    Ok(JobView {
        id: job.id(0)?,
        state,
        run: job.number(2)?,
        token: job.number(3)?,
        cancelled: job.flag(4)?,
        committed: job.flag(5)?,
        enqueued_at: job.time(6)?,
        changed_at: job.time(7)?,
        error,
        attempt: job.attempt(9)?,
        kind: job.kind(11)?,
        payload: job.bytes(12)?,
    })
}

pub(super) fn held(op: &'static str, answer: &str) -> Result<Held> {
    match answer {
        "yes" => Ok(Held::Yes),
        "cancelled" => Ok(Held::Cancelled),
        "lost" => Ok(Held::Lost),
        _ => Err(unexpected(op)),
    }
}

fn job_id(op: &'static str, text: &str) -> Result<JobId> {
    Uuid::try_parse(text).map(JobId).map_err(|_| unexpected(op))
}

fn unexpected(op: &str) -> crate::storage::StorageError {
    corrupt("{jobs}", format!("the answer to `{op}` has an unknown form"))
}

/// The idempotency key, if there is one, behind a letter, because a key may be empty.
fn key_and_fingerprint(idempotency: Option<&Idempotency>) -> (Value, Value) {
    let key = idempotency.map(|used| format!("k{}", used.key));
    (Value::from(key.unwrap_or_default()), text(idempotency.map_or("", |used| &used.fingerprint)))
}

fn kind_text(kind: Option<&JobKind>) -> Value {
    Value::from(kind.map_or("", |kind| &**kind))
}

/// Negative for past times.
fn micros_from_now(at: Instant) -> i64 {
    let now = Instant::now();
    let exact = |duration: Duration| i64::try_from(duration.min(LEASE_MAX).as_micros()).unwrap_or(i64::MAX);
    if at >= now { exact(at - now) } else { -exact(now - at) }
}

fn micros(duration: Duration) -> Value {
    text(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(EXACT_MAX / 4))
}
