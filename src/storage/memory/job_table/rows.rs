//! The stored form of jobs, and how a change that could not be written is undone.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Image, Job, JobTable, KeyUse, Touched};
use crate::model::JobId;
use crate::storage::memory::folder::{Clock, json};
use crate::storage::{Attempt, JobBounds, JobState, Stand};

/// A job, without its payload.
#[derive(Debug, Serialize, Deserialize)]
struct JobRow {
    kind: Option<String>,
    place: u64,
    state: JobState,
    /// The time that belongs to the state: since when, until when, or at what time.
    time_us: i64,
    error: Option<String>,
    nth: u64,
    run: u32,
    token: u64,
    cancelled: bool,
    committed: bool,
    attempt: u32,
    attempt_said_by: u32,
    enqueued_at: DateTime<Utc>,
    changed_at: DateTime<Utc>,
    key: Option<KeyRow>,
    written_us: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyRow {
    key: String,
    fingerprint: String,
    since_us: i64,
}

/// The data that concern all jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TableRow {
    last_token: u64,
    /// The newest bounds: unfinished, kept, and for how long, in milliseconds.
    bounds: Option<(usize, usize, u64)>,
}

impl JobTable {
    /// From here on, changes of jobs are noted.
    pub(in crate::storage::memory) fn begin_noting(&mut self) {
        self.touched = Some(Touched::default());
    }

    /// The jobs that changed since the last call, as they were before.
    pub(in crate::storage::memory) fn take_touched(&mut self) -> Touched {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn note(&mut self, id: JobId) {
        if self.touched.as_ref().is_some_and(|touched| !touched.contains_key(&id)) {
            let image = self.image(id);
            self.touched.get_or_insert_default().insert(id, image);
        }
    }

    fn image(&self, id: JobId) -> Option<Image> {
        let job = self.jobs.get(&id)?.clone();
        let used = job.key.as_ref().and_then(|(key, _)| self.keys.get(key)).filter(|used| used.job == id);
        let fingerprint = used.map(|used| used.fingerprint.clone());
        Some(Image { job, fingerprint })
    }

    /// Restores jobs to what they were; this is not noted as a change.
    pub(in crate::storage::memory) fn restore(&mut self, before: Touched) {
        let noting = self.touched.take();
        // All are removed first, because they may have swapped places and keys.
        before.keys().for_each(|id| self.forget_if_known(*id));
        for (id, image) in before {
            if let Some(image) = image {
                self.put(id, image);
            }
        }
        self.touched = noting;
    }

    fn forget_if_known(&mut self, id: JobId) {
        if self.jobs.contains_key(&id) {
            self.forget(id);
        }
    }

    fn put(&mut self, id: JobId, Image { mut job, fingerprint }: Image) {
        match (&job.key, fingerprint) {
            (Some((key, since)), Some(fingerprint)) => {
                self.keys.insert(key.clone(), KeyUse { job: id, fingerprint });
                self.key_ages.insert((*since, job.place), id);
            }
            _ => job.key = None,
        }
        self.last_place = self.last_place.max(job.place);
        self.last_change = self.last_change.max(job.nth);
        self.last_token = self.last_token.max(job.token);
        self.by_age.insert(job.place, id);
        self.weight += job.weight();
        self.jobs.insert(id, job);
        self.index(id);
    }

    /// The row of a job; `None` if the job is unknown.
    pub(in crate::storage::memory) fn row(&self, id: JobId, clock: &Clock) -> Option<Vec<u8>> {
        let Image { job, fingerprint } = self.image(id)?;
        let (state, time) = (job.stand.state(), job.stand.time());
        let error = if let Stand::Dead { error, .. } = job.stand { Some(error) } else { None };
        let key = job.key.zip(fingerprint).map(|((key, since), fingerprint)| KeyRow {
            key,
            fingerprint,
            since_us: clock.us(since),
        });
        let mut row = json(&JobRow {
            kind: job.kind.map(|kind| kind.to_string()),
            place: job.place,
            state,
            time_us: clock.us(time),
            error,
            nth: job.nth,
            run: job.run,
            token: job.token,
            cancelled: job.cancelled,
            committed: job.committed,
            attempt: job.attempt.number,
            attempt_said_by: job.attempt.said_by,
            enqueued_at: job.enqueued_at,
            changed_at: job.changed_at,
            key,
            written_us: clock.wall_us,
        });
        row.push(b'\n');
        row.extend_from_slice(&job.payload);
        Some(row)
    }

    /// Adds the job of a row; returns whether the row could be read.
    pub(in crate::storage::memory) fn take_row(&mut self, id: JobId, row: &[u8], clock: &Clock) -> bool {
        // JSON has no line breaks.
        let Some(end) = row.iter().position(|byte| *byte == b'\n') else { return false };
        let Ok(head) = serde_json::from_slice::<JobRow>(&row[..end]) else { return false };
        let time = clock.moment(head.time_us, head.written_us);
        let over = time.min(clock.at);
        let stand = match head.state {
            JobState::Waiting => Stand::Waiting { since: over },
            JobState::Delayed => Stand::Delayed { due: time },
            JobState::Claimed => Stand::Claimed { lease_ends: time },
            JobState::Done => Stand::Done { ended: over },
            JobState::Dead => Stand::Dead { ended: over, error: head.error.unwrap_or_default() },
        };
        let since = |key: &KeyRow| clock.moment(key.since_us, head.written_us).min(clock.at);
        let job = Job {
            payload: Bytes::copy_from_slice(&row[end + 1..]),
            kind: head.kind.map(Into::into),
            place: head.place,
            stand,
            nth: head.nth,
            run: head.run,
            token: head.token,
            cancelled: head.cancelled,
            committed: head.committed,
            attempt: Attempt { number: head.attempt, said_by: head.attempt_said_by },
            enqueued_at: head.enqueued_at,
            changed_at: head.changed_at,
            key: head.key.as_ref().map(|key| (key.key.clone(), since(key))),
        };
        self.forget_if_known(id);
        self.put(id, Image { job, fingerprint: head.key.map(|key| key.fingerprint) });
        true
    }

    /// The row of the data that concern all jobs.
    pub(in crate::storage::memory) fn table_row(&self) -> Vec<u8> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let bounds = self.bounds.map(|bounds| (bounds.unfinished, bounds.kept, millis(bounds.kept_for)));
        json(&TableRow { last_token: self.last_token, bounds })
    }

    /// Applies that row; returns whether it could be read.
    pub(in crate::storage::memory) fn take_table_row(&mut self, row: &[u8]) -> bool {
        let Ok(TableRow { last_token, bounds }) = serde_json::from_slice(row) else { return false };
        self.last_token = self.last_token.max(last_token);
        self.bounds = bounds.map(|(unfinished, kept, millis)| JobBounds {
            unfinished,
            kept,
            kept_for: Duration::from_millis(millis),
        });
        true
    }

    /// Skips so many tokens: an earlier process may have given them out after the rows were written.
    pub(in crate::storage::memory) fn leave_out_tokens(&mut self, count: u64) {
        self.last_token = self.last_token.saturating_add(count);
    }

    pub(in crate::storage::memory) fn ids(&self) -> impl Iterator<Item = JobId> {
        self.jobs.keys().copied()
    }
}
