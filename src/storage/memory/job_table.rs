//! Jobs in memory: plain data without a clock; callers pass the time.
//!
//! Each job is in the index of its state, sorted by what jobs in that state wait for, and in two indexes by
//! age for lists. So no call visits more jobs than it returns or removes.

mod rows;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::model::JobId;
use crate::storage::{
    Attempt, Cancelling, Ending, Enqueued, Held, Idempotency, JOBS_PER_CALL_MAX, JobBounds, JobCounts,
    JobKind, JobState, JobView, LEASE_MAX, LEASE_MIN, MovedJob, NewJob, Stand,
};
use crate::support::chance::Hashing;

/// One moment on both clocks: the monotonic one decides, the wall clock is shown to people.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Now {
    pub(in crate::storage) at: Instant,
    pub(in crate::storage) wall: DateTime<Utc>,
}

impl Now {
    pub(in crate::storage) fn read() -> Self {
        Self { at: Instant::now(), wall: Utc::now() }
    }

    fn after(self, wait: Duration) -> Instant {
        self.at + wait.min(LEASE_MAX)
    }

    fn after_lease(self, lease: Duration) -> Instant {
        self.after(lease.max(LEASE_MIN))
    }
}

/// A job counts once for each begun part of its payload of this size, so that bounds on the number of jobs
/// also bound the memory.
const COUNTED_BYTES: usize = 4 << 10;

/// All known jobs. [`Jobs`](crate::storage::Jobs) says what the methods promise.
#[derive(Debug, Default)]
pub(in crate::storage) struct JobTable {
    jobs: HashMap<JobId, Job, Hashing>,
    /// The sum of what all jobs count for, and of those that have ended.
    weight: usize,
    ended_weight: usize,
    /// Grows with each job that is queued.
    last_place: u64,
    /// Grows with each change of a state, and so orders changes of one moment.
    last_change: u64,
    last_token: u64,
    /// The jobs that can be claimed, by kind; those under `None` by workers of every kind. No queue is empty.
    queues: HashMap<Option<JobKind>, Queue, Hashing>,
    /// By the time when they are due.
    delayed: BTreeMap<(Instant, u64), JobId>,
    /// By the time when they ended.
    ended: BTreeMap<(Instant, u64), JobId>,
    by_age: BTreeMap<u64, JobId>,
    by_state: [BTreeMap<u64, JobId>; JobState::ALL.len()],
    keys: HashMap<String, KeyUse, Hashing>,
    /// By the time when their jobs were queued.
    key_ages: BTreeMap<(Instant, u64), JobId>,
    /// The bounds of the newest call.
    bounds: Option<JobBounds>,
    /// With a folder on disk: every job that was changed, as it was before the change.
    touched: Option<Touched>,
}

/// Jobs as they were before a change; `None` for a job that did not exist.
pub(in crate::storage) type Touched = HashMap<JobId, Option<Image>, Hashing>;

/// All data of a job except its places in the indexes.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Image {
    job: Job,
    /// The fingerprint of the request under its idempotency key.
    fingerprint: Option<String>,
}

/// Jobs that one kind of worker may claim, now or after a lease has expired.
#[derive(Debug, Default)]
struct Queue {
    /// By the time when their turn came; cancelled jobs first.
    ready: BTreeMap<Turn, JobId>,
    /// By the end of their lease.
    claimed: BTreeMap<(Instant, u64), JobId>,
}

#[derive(Debug, Clone)]
struct Job {
    payload: Bytes,
    kind: Option<JobKind>,
    /// Its place among all jobs, in the order in which they were queued.
    place: u64,
    stand: Stand,
    /// Its place among the jobs that reached `stand` at the same moment.
    nth: u64,
    run: u32,
    token: u64,
    cancelled: bool,
    committed: bool,
    attempt: Attempt,
    enqueued_at: DateTime<Utc>,
    changed_at: DateTime<Utc>,
    /// The idempotency key that leads to this job, and the time since which it does.
    key: Option<(String, Instant)>,
}

/// When a job's turn came; the smallest is claimed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// False sorts first.
    is_not_cancelled: bool,
    since: Instant,
    nth: u64,
}

#[derive(Debug)]
struct KeyUse {
    job: JobId,
    fingerprint: String,
}

impl Job {
    fn weight(&self) -> usize {
        self.payload.len().div_ceil(COUNTED_BYTES).max(1)
    }

    fn turn(&self, since: Instant) -> Turn {
        Turn { is_not_cancelled: !self.cancelled, since, nth: self.nth }
    }

    fn view(&self, id: JobId) -> JobView {
        let error = if let Stand::Dead { error, .. } = &self.stand { Some(error.clone()) } else { None };
        JobView {
            id,
            payload: self.payload.clone(),
            state: self.stand.state(),
            run: self.run,
            token: self.token,
            cancelled: self.cancelled,
            committed: self.committed,
            attempt: self.attempt,
            kind: self.kind.clone(),
            enqueued_at: self.enqueued_at,
            changed_at: self.changed_at,
            error,
        }
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.claimed.is_empty()
    }

    /// The job whose turn it is, with a rank that also orders jobs of several queues: cancelled jobs, then
    /// jobs whose worker died, then the others.
    fn next(&self, now: Now) -> Option<((u8, Instant, u64), JobId)> {
        let ready = self.ready.first_key_value().map(|(turn, id)| {
            let rank = if turn.is_not_cancelled { 2 } else { 0 };
            ((rank, turn.since, turn.nth), *id)
        });
        let expired = self.claimed.first_key_value().filter(|((lease_ends, _), _)| *lease_ends <= now.at);
        let expired = expired.map(|((lease_ends, nth), id)| ((1, *lease_ends, *nth), *id));
        ready.into_iter().chain(expired).min_by_key(|(rank, _)| *rank)
    }
}

impl JobTable {
    pub(in crate::storage) fn enqueue(&mut self, new: &NewJob, bounds: &JobBounds, now: Now) -> Enqueued {
        self.bounds = Some(*bounds);
        if let Some(answer) = self.repeated(new, now) {
            return answer;
        }
        if self.weight - self.ended_weight >= bounds.unfinished {
            return Enqueued::Full;
        }
        while self.weight >= bounds.kept
            && let Some((_, oldest)) = self.ended.first_key_value()
        {
            self.forget(*oldest);
        }
        self.insert(new, now);
        Enqueued::Queued
    }

    /// The answer for a job that exists already, or whose key does.
    pub(in crate::storage) fn repeated(&mut self, new: &NewJob, now: Now) -> Option<Enqueued> {
        self.tidy(now);
        if let Some(idempotency) = &new.idempotency
            && let Some(used) = self.keys.get(&idempotency.key)
        {
            let is_same = used.fingerprint == idempotency.fingerprint;
            return Some(if is_same { Enqueued::Repeated(used.job) } else { Enqueued::Conflict });
        }
        self.jobs.contains_key(&new.id).then_some(Enqueued::Repeated(new.id))
    }

    // Jobs in transit to another storage

    pub(in crate::storage) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(in crate::storage) fn has(&self, id: JobId) -> bool {
        self.jobs.contains_key(&id)
    }

    /// Jobs with their places and how often they were claimed, oldest first, from after a place on.
    pub(in crate::storage) fn after(&self, place: u64) -> impl Iterator<Item = (u64, JobId, u32)> {
        let later = self.by_age.range(place.saturating_add(1)..);
        later.filter_map(|(place, id)| Some((*place, *id, self.jobs.get(id)?.run)))
    }

    pub(in crate::storage) fn queued_at(&self, id: JobId) -> Option<DateTime<Utc>> {
        self.jobs.get(&id).map(|job| job.enqueued_at)
    }

    /// Removes a job, whatever its state, and returns it; from now on it is unknown here.
    pub(in crate::storage) fn take(&mut self, id: JobId) -> Option<MovedJob> {
        let bounds = self.bounds?;
        let job = self.jobs.get(&id)?;
        let idempotency = job.key.as_ref().and_then(|(key, _)| {
            let used = self.keys.get(key).filter(|used| used.job == id)?;
            Some(Idempotency { key: key.clone(), fingerprint: used.fingerprint.clone() })
        });
        let moved = MovedJob { view: job.view(id), stand: job.stand.clone(), idempotency, bounds };
        self.forget(id);
        Some(moved)
    }

    fn insert(&mut self, new: &NewJob, now: Now) {
        self.note(new.id);
        if let Some(idempotency) = &new.idempotency {
            let used = KeyUse { job: new.id, fingerprint: idempotency.fingerprint.clone() };
            self.keys.insert(idempotency.key.clone(), used);
        }
        self.last_place += 1;
        self.last_change += 1;
        let job = Job {
            payload: new.payload.clone(),
            kind: new.kind.clone(),
            place: self.last_place,
            stand: Stand::Waiting { since: now.at },
            nth: self.last_change,
            run: 0,
            token: 0,
            cancelled: false,
            committed: false,
            attempt: Attempt::default(),
            enqueued_at: now.wall,
            changed_at: now.wall,
            key: new.idempotency.as_ref().map(|idempotency| (idempotency.key.clone(), now.at)),
        };
        if job.key.is_some() {
            self.key_ages.insert((now.at, job.place), new.id);
        }
        self.by_age.insert(job.place, new.id);
        self.weight += job.weight();
        self.jobs.insert(new.id, job);
        self.index(new.id);
    }

    pub(in crate::storage) fn claim(
        &mut self,
        kind: &str,
        limit: usize,
        lease: Duration,
        now: Now,
    ) -> Vec<JobView> {
        self.tidy(now);
        let limit = limit.min(JOBS_PER_CALL_MAX);
        let (of_any, of_kind) = (None, Some(JobKind::from(kind)));
        let mut claimed = Vec::new();
        while claimed.len() < limit
            && let Some(id) = self.next(&of_any, &of_kind, now)
        {
            claimed.extend(self.hand_out(id, lease, now));
        }
        claimed
    }

    /// The job whose turn it is, among jobs of one kind and of no kind.
    fn next(&self, of_any: &Option<JobKind>, of_kind: &Option<JobKind>, now: Now) -> Option<JobId> {
        let queues = [of_any, of_kind].into_iter().filter_map(|kind| self.queues.get(kind));
        queues.filter_map(|queue| queue.next(now)).min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    fn hand_out(&mut self, id: JobId, lease: Duration, now: Now) -> Option<JobView> {
        let micros = u64::try_from(now.wall.timestamp_micros()).unwrap_or(0);
        self.last_token = micros.max(self.last_token + 1);
        let token = self.last_token;
        self.stand(id, Stand::Claimed { lease_ends: now.after_lease(lease) }, now);
        let job = self.jobs.get_mut(&id)?;
        job.token = token;
        job.run = job.run.saturating_add(1);
        Some(job.view(id))
    }

    pub(in crate::storage) fn extend(&mut self, id: JobId, token: u64, lease: Duration, now: Now) -> Held {
        self.hold(id, token, lease, false, now)
    }

    pub(in crate::storage) fn commit(&mut self, id: JobId, token: u64, lease: Duration, now: Now) -> Held {
        self.hold(id, token, lease, true, now)
    }

    fn hold(&mut self, id: JobId, token: u64, lease: Duration, commits: bool, now: Now) -> Held {
        if held_under(&mut self.jobs, id, token).is_some() {
            self.note(id);
        }
        let Some(job) = held_under(&mut self.jobs, id, token) else { return Held::Lost };
        let (cancelled, changed_at) = (job.cancelled, job.changed_at);
        job.committed |= commits && !cancelled;
        let lease_ends = match job.stand {
            Stand::Claimed { lease_ends } => lease_ends.max(now.after_lease(lease)),
            _ => now.after_lease(lease),
        };
        // Neither the state nor the time of its last change changes.
        self.stand(id, Stand::Claimed { lease_ends }, Now { wall: changed_at, ..now });
        if cancelled { Held::Cancelled } else { Held::Yes }
    }

    pub(in crate::storage) fn finish(&mut self, id: JobId, token: u64, ending: &Ending, now: Now) -> Held {
        if held_under(&mut self.jobs, id, token).is_some() {
            self.note(id);
        }
        let Some(job) = held_under(&mut self.jobs, id, token) else { return Held::Lost };
        let stand = match ending {
            Ending::Retry { .. } if job.cancelled => return Held::Cancelled,
            Ending::Retry { after, attempt } => {
                if let Some(number) = *attempt {
                    job.attempt = Attempt { number, said_by: job.run };
                }
                Stand::Delayed { due: now.after(*after) }
            }
            Ending::Done => Stand::Done { ended: now.at },
            Ending::Dead { error } => Stand::Dead { ended: now.at, error: error.clone() },
        };
        self.stand(id, stand, now);
        Held::Yes
    }

    pub(in crate::storage) fn cancel(&mut self, id: JobId, now: Now) -> Cancelling {
        self.tidy(now);
        let Some(job) = self.jobs.get_mut(&id) else { return Cancelling::Unknown };
        if matches!(job.stand, Stand::Done { .. } | Stand::Dead { .. }) {
            return Cancelling::Ended;
        }
        if job.committed {
            return Cancelling::TooLate;
        }
        if !job.cancelled {
            let is_claimed = matches!(job.stand, Stand::Claimed { .. });
            self.note(id);
            if is_claimed {
                if let Some(job) = self.jobs.get_mut(&id) {
                    job.cancelled = true;
                }
            } else {
                // The index sorts by `cancelled`, so the job leaves its turn and gets another.
                self.unindex(id);
                self.change(id, Stand::Waiting { since: now.at }, now, true);
            }
        }
        Cancelling::Asked
    }

    pub(in crate::storage) fn job(&mut self, id: JobId, now: Now) -> Option<JobView> {
        self.tidy(now);
        self.jobs.get(&id).map(|job| job.view(id))
    }

    pub(in crate::storage) fn list(
        &mut self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
        now: Now,
    ) -> Vec<JobView> {
        self.tidy(now);
        let index = state.map_or(&self.by_age, |state| &self.by_state[state as usize]);
        let before = before.and_then(|id| self.jobs.get(&id)).map_or(u64::MAX, |job| job.place);
        let ids = index.range(..before).rev().take(limit.min(JOBS_PER_CALL_MAX));
        ids.filter_map(|(_, id)| self.jobs.get(id).map(|job| job.view(*id))).collect()
    }

    pub(in crate::storage) fn settle_dead(&mut self, id: JobId, now: Now) -> bool {
        self.tidy(now);
        let Some(Job { stand: Stand::Dead { ended, .. }, .. }) = self.jobs.get(&id) else { return false };
        let ended = *ended;
        self.stand(id, Stand::Done { ended }, now);
        true
    }

    pub(in crate::storage) fn counts(&mut self, now: Now) -> JobCounts {
        self.tidy(now);
        let count = |state: JobState| self.by_state[state as usize].len() as u64;
        JobCounts {
            waiting: count(JobState::Waiting),
            delayed: count(JobState::Delayed),
            claimed: count(JobState::Claimed),
            done: count(JobState::Done),
            dead: count(JobState::Dead),
        }
    }

    /// Performs the changes that are due: delayed jobs become ready, and old jobs and keys are removed.
    pub(in crate::storage) fn tidy(&mut self, now: Now) {
        while let Some(((due, _), id)) = self.delayed.first_key_value()
            && *due <= now.at
        {
            let (due, id) = (*due, *id);
            self.stand(id, Stand::Waiting { since: due }, now);
        }
        let Some(JobBounds { kept_for, .. }) = self.bounds else { return };
        let is_over = |since: Instant| now.at.duration_since(since) >= kept_for;
        while let Some(((ended, _), id)) = self.ended.first_key_value()
            && is_over(*ended)
        {
            let id = *id;
            self.forget(id);
        }
        while let Some(((queued, _), id)) = self.key_ages.first_key_value()
            && is_over(*queued)
        {
            let id = *id;
            self.note(id);
            self.key_ages.pop_first();
            if let Some((key, _)) = self.jobs.get_mut(&id).and_then(|job| job.key.take()) {
                self.keys.remove(&key);
            }
        }
    }

    /// Removes a job, and the key that leads to it.
    fn forget(&mut self, id: JobId) {
        self.note(id);
        self.unindex(id);
        if let Some(job) = self.jobs.remove(&id) {
            self.by_age.remove(&job.place);
            self.weight -= job.weight();
            if let Some((key, queued)) = job.key {
                self.keys.remove(&key);
                self.key_ages.remove(&(queued, job.place));
            }
        }
    }

    fn stand(&mut self, id: JobId, stand: Stand, now: Now) {
        self.note(id);
        self.unindex(id);
        self.change(id, stand, now, false);
    }

    /// Changes a job that is in no index, and adds it to the index of its new state.
    fn change(&mut self, id: JobId, stand: Stand, now: Now, cancels: bool) {
        if let Some(job) = self.jobs.get_mut(&id) {
            self.last_change += 1;
            job.nth = self.last_change;
            job.stand = stand;
            job.changed_at = now.wall;
            job.cancelled |= cancels;
        }
        self.index(id);
    }

    fn index(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        self.by_state[job.stand.state() as usize].insert(job.place, id);
        match job.stand {
            Stand::Waiting { since } => {
                self.queues.entry(job.kind.clone()).or_default().ready.insert(job.turn(since), id)
            }
            Stand::Delayed { due } => self.delayed.insert((due, job.nth), id),
            Stand::Claimed { lease_ends } => {
                self.queues.entry(job.kind.clone()).or_default().claimed.insert((lease_ends, job.nth), id)
            }
            Stand::Done { ended } | Stand::Dead { ended, .. } => {
                self.ended_weight += job.weight();
                self.ended.insert((ended, job.nth), id)
            }
        };
    }

    fn unindex(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        self.by_state[job.stand.state() as usize].remove(&job.place);
        let queue = self.queues.get_mut(&job.kind);
        match job.stand {
            Stand::Waiting { since } => queue.and_then(|queue| queue.ready.remove(&job.turn(since))),
            Stand::Delayed { due } => self.delayed.remove(&(due, job.nth)),
            Stand::Claimed { lease_ends } => {
                queue.and_then(|queue| queue.claimed.remove(&(lease_ends, job.nth)))
            }
            Stand::Done { ended } | Stand::Dead { ended, .. } => {
                let found = self.ended.remove(&(ended, job.nth));
                self.ended_weight -= found.map_or(0, |_| job.weight());
                found
            }
        };
        if self.queues.get(&job.kind).is_some_and(Queue::is_empty) {
            self.queues.remove(&job.kind);
        }
    }
}

/// The job, if this claim of it still holds.
fn held_under(jobs: &mut HashMap<JobId, Job, Hashing>, id: JobId, token: u64) -> Option<&mut Job> {
    jobs.get_mut(&id).filter(|job| job.token == token && matches!(job.stand, Stand::Claimed { .. }))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::storage::Idempotency;

    fn new(n: u128) -> NewJob {
        let idempotency = Idempotency { key: n.to_string(), fingerprint: String::new() };
        let kind = n.is_multiple_of(2).then(|| "even".into());
        NewJob { id: JobId(Uuid::from_u128(n)), payload: Bytes::new(), kind, idempotency: Some(idempotency) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_job_leaves_every_index() {
        let mut table = JobTable::default();
        let bounds = JobBounds { unfinished: 10, kept: 20, kept_for: Duration::from_secs(60) };
        let now = Now::read();
        // The first job runs for ever, so later jobs are removed before it.
        table.enqueue(&new(0), &bounds, now);
        table.claim("even", 1, LEASE_MAX, now);
        for n in 1..=100 {
            assert_eq!(table.enqueue(&new(n), &bounds, now), Enqueued::Queued);
            for job in table.claim("even", 1, Duration::MAX, now) {
                let error = String::new();
                let ending = if n % 2 == 0 { Ending::Done } else { Ending::Dead { error } };
                assert_eq!(table.finish(job.id, job.token, &ending, now), Held::Yes);
            }
        }
        let queued = |table: &JobTable| {
            let queues = table.queues.values();
            queues.map(|queue| queue.ready.len() + queue.claimed.len()).sum::<usize>()
        };
        let sizes = |table: &JobTable| {
            let by_state = table.by_state.iter().map(BTreeMap::len).sum::<usize>();
            let by_what_they_wait_for = queued(table) + table.delayed.len() + table.ended.len();
            let keys = (table.keys.len(), table.key_ages.len());
            (table.jobs.len(), table.by_age.len(), by_state, by_what_they_wait_for, keys)
        };
        assert_eq!(sizes(&table), (20, 20, 20, 20, (20, 20)));
        table.tidy(Now { at: now.at + Duration::from_secs(60), ..now });
        assert_eq!(sizes(&table), (1, 1, 1, 1, (0, 0)), "only the one that runs is left");
        assert_eq!(table.queues.len(), 1);
        assert_eq!((table.weight, table.ended_weight), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_job_counts_as_several() {
        let mut table = JobTable::default();
        let bounds = JobBounds { unfinished: 20, kept: 40, kept_for: Duration::from_secs(60) };
        let now = Now::read();
        let large = |n| NewJob { payload: vec![b' '; 10 * COUNTED_BYTES].into(), ..new(n) };
        let end_all = |table: &mut JobTable| {
            for job in table.claim("even", 100, LEASE_MAX, now) {
                assert_eq!(table.finish(job.id, job.token, &Ending::Done, now), Held::Yes);
            }
        };
        for n in [2, 4] {
            assert_eq!(table.enqueue(&large(n), &bounds, now), Enqueued::Queued);
        }
        assert_eq!(table.enqueue(&new(6), &bounds, now), Enqueued::Full);
        end_all(&mut table);
        for n in [8, 10] {
            assert_eq!(table.enqueue(&large(n), &bounds, now), Enqueued::Queued);
        }
        end_all(&mut table);
        assert_eq!((table.len(), table.weight), (4, 40));
        assert_eq!(table.enqueue(&new(12), &bounds, now), Enqueued::Queued);
        assert_eq!((table.len(), table.weight, table.has(JobId(Uuid::from_u128(2)))), (4, 31, false));
    }
}
