//! The jobs role: all nodes share the primary's jobs. While the primary is away, no job is claimed or ended
//! that another node may own. A job that this node accepts then lives in a table here, until the primary is
//! back and has recorded it.
//!
//! A job lives in one place at a time. Calls about it go there: to the table, or to the primary, which may be
//! away. While a job moves from the one to the other it belongs to neither: calls wait, and nobody claims it,
//! until the primary has said that it has it. A job does not go back to the table when the primary's answer is
//! lost, since the call may have taken effect, and then any node may have claimed the job.

mod recording;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{self, Instant};
use zonewire_protocol::stats::JobsWithoutRedisCounts;

use super::replica::Replica;
use super::replicas::Replicas;
use super::{Switching, away, until};
use crate::model::{ChannelName, JobId};
use crate::storage::memory::{JobTable, Now};
use crate::storage::primary::{Domain, Place};
use crate::storage::{
    Attempt, Cancelling, Ending, Enqueued, Held, JOBS_PER_CALL_MAX, JobBounds, JobCounts, JobState, JobView,
    Jobs, MovedJob, NewJob, Result, StorageError,
};
use crate::support::counter::Counter;
use crate::support::recent::Recent;

/// Jobs of the primary whose last known state is remembered.
const SEEN_MAX: usize = 10_000;
const SEEN_BYTES_MAX: usize = 16 << 20;

/// Idempotency keys that are remembered.
const KEYS_MAX: usize = 50_000;
const KEYS_BYTES_MAX: usize = 16 << 20;

/// How long nothing is claimed from the primary after it came back. Other nodes reconnect at about the same
/// time, and what they reported under leases that expired meanwhile is on its way to the log. A worker that
/// claimed such an order earlier would begin it anew, and its newer fencing token would make the log refuse
/// those reports.
const CLAIMS_WAIT: Duration = Duration::from_secs(1);

/// How long a call about a job waits while the job, or its updates, are on their way to the primary.
const ON_ITS_WAY_WITHIN: Duration = Duration::from_secs(1);

/// What this node knows about the primary's jobs, and the jobs that the primary does not have yet.
pub(super) struct LocalJobs {
    replicas: Arc<Replicas>,
    state: Mutex<State>,
    /// Notified when a job has moved to the primary, or when one may have to.
    moved: Notify,
    pub(super) stats: JobStats,
}

/// What became of jobs that this node accepted without the primary, counted.
pub(super) type JobStats = JobsWithoutRedisCounts<Counter>;

#[derive(Debug)]
struct State {
    /// Jobs that live here.
    table: JobTable,
    /// Jobs that are on their way to the primary.
    moving: BTreeMap<JobId, MovedJob>,
    /// The primary's jobs in their last known state.
    seen: Recent<JobId, JobView>,
    keys: Recent<String, KeyUse>,
    /// Nothing is claimed from the primary before then.
    claims_from: Option<Instant>,
}

/// What became of a request under an idempotency key.
#[derive(Debug, Clone)]
enum KeyUse {
    /// The request became this job.
    Job { id: JobId, fingerprint: String, since: Instant },
    /// The primary was asked and did not answer; or the key was that of another request.
    Unsure,
}

impl LocalJobs {
    pub(super) fn new(replicas: Arc<Replicas>) -> Self {
        let state = State {
            table: JobTable::default(),
            moving: BTreeMap::new(),
            seen: Recent::new(SEEN_MAX, SEEN_BYTES_MAX),
            keys: Recent::new(KEYS_MAX, KEYS_BYTES_MAX),
            claims_from: None,
        };
        Self { replicas, state: Mutex::new(state), moved: Notify::new(), stats: JobStats::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether the primary has all jobs.
    pub(super) fn are_recorded(&self) -> bool {
        self.waiting() == 0
    }

    /// How many it does not have.
    pub(super) fn waiting(&self) -> usize {
        let state = self.lock();
        state.table.len() + state.moving.len()
    }

    /// The primary serves again, or for the first time.
    pub(super) fn primary_is_back(&self) {
        self.lock().claims_from = Some(Instant::now() + CLAIMS_WAIT);
        self.moved.notify_waiters();
    }
}

impl State {
    /// What this node answers to a new job by itself; `None` where only the primary can answer.
    fn answer_here(&mut self, job: &NewJob) -> Option<Enqueued> {
        let moving = self.moving.values().find_map(|moving| {
            if moving.view.id == job.id {
                return Some(Enqueued::Repeated(job.id));
            }
            let (used, asked) = (moving.idempotency.as_ref()?, job.idempotency.as_ref()?);
            let is_same = used.fingerprint == asked.fingerprint;
            let answer = if is_same { Enqueued::Repeated(moving.view.id) } else { Enqueued::Conflict };
            (used.key == asked.key).then_some(answer)
        });
        moving.or_else(|| self.table.repeated(job, Now::read()))
    }

    /// What is known of a request by its idempotency key; an error where the primary may know more.
    fn known_key(&self, job: &NewJob, bounds: &JobBounds) -> Result<Option<Enqueued>> {
        let Some(asked) = &job.idempotency else { return Ok(None) };
        match self.keys.get(&asked.key) {
            None => Ok(None),
            Some(KeyUse::Job { since, .. }) if since.elapsed() >= bounds.kept_for => Ok(None),
            Some(KeyUse::Job { id, fingerprint, .. }) if *fingerprint == asked.fingerprint => {
                Ok(Some(Enqueued::Repeated(*id)))
            }
            Some(KeyUse::Job { .. }) => Ok(Some(Enqueued::Conflict)),
            Some(KeyUse::Unsure) => Err(away("enqueue")),
        }
    }

    fn key_use(&self, job: &NewJob) -> Option<&KeyUse> {
        self.keys.get(&job.idempotency.as_ref()?.key)
    }

    /// Notes what a key leads to.
    fn note_key(&mut self, job: &NewJob, leads_to: Option<JobId>) {
        let Some(asked) = &job.idempotency else { return };
        let used = match leads_to {
            Some(id) => KeyUse::Job { id, fingerprint: asked.fingerprint.clone(), since: Instant::now() },
            None => KeyUse::Unsure,
        };
        self.keys.insert(asked.key.clone(), used, asked.key.len() + asked.fingerprint.len());
    }

    /// Notes that the primary is about to be asked: until it answers, it is unknown which job the key leads
    /// to, unless that was known before.
    fn ask_for_key(&mut self, job: &NewJob) {
        if !matches!(self.key_use(job), Some(KeyUse::Job { .. })) {
            self.note_key(job, None);
        }
    }

    /// What the primary answered to a new job.
    fn enqueued(&mut self, job: &NewJob, answer: Enqueued) {
        match answer {
            Enqueued::Queued => {
                self.note_key(job, Some(job.id));
                self.saw(waiting(job));
            }
            Enqueued::Repeated(id) => self.note_key(job, Some(id)),
            // What is known of the key under another fingerprint is still right.
            Enqueued::Conflict => {
                let own = job.idempotency.as_ref().map(|asked| &asked.fingerprint);
                let used = self.key_use(job);
                if !matches!(used, Some(KeyUse::Job { fingerprint, .. }) if Some(fingerprint) != own) {
                    self.note_key(job, None);
                }
            }
            Enqueued::Full => {
                if let (Some(asked), Some(KeyUse::Unsure)) = (&job.idempotency, self.key_use(job)) {
                    self.keys.remove(&asked.key);
                }
            }
        }
    }

    fn saw(&mut self, view: JobView) {
        let cost = view.payload.len();
        self.seen.insert(view.id, view, cost);
    }

    /// Something happened to a job of the primary: its last known state changes too.
    fn change(&mut self, id: JobId, change: impl FnOnce(&mut JobView)) {
        if let Some(view) = self.seen.get_mut(&id) {
            change(view);
        }
    }

    /// All jobs that are known here, the newest first.
    fn known(&self) -> Vec<JobId> {
        let here =
            self.table.after(0).map(|(_, id, _)| id).filter_map(|id| Some((self.table.queued_at(id)?, id)));
        let moving = self.moving.values().map(|moving| (moving.view.enqueued_at, moving.view.id));
        let seen = self.seen.values().map(|view| (view.enqueued_at, view.id));
        let mut known: Vec<_> = here.chain(moving).chain(seen).collect();
        known.sort_by(|a, b| b.cmp(a));
        known.dedup_by_key(|(_, id)| *id);
        known.into_iter().map(|(_, id)| id).collect()
    }

    fn counts(&mut self) -> JobCounts {
        let mut counts = self.table.counts(Now::read());
        let moving = self.moving.values().map(|moving| moving.view.state);
        let seen = self.seen.values().map(|view| view.state);
        for state in moving.chain(seen) {
            match state {
                JobState::Waiting => counts.waiting += 1,
                JobState::Delayed => counts.delayed += 1,
                JobState::Claimed => counts.claimed += 1,
                JobState::Done => counts.done += 1,
                JobState::Dead => counts.dead += 1,
            }
        }
        counts
    }
}

/// A job that was queued just now.
fn waiting(job: &NewJob) -> JobView {
    let now = Utc::now();
    JobView {
        id: job.id,
        payload: job.payload.clone(),
        state: JobState::Waiting,
        run: 0,
        token: 0,
        cancelled: false,
        committed: false,
        attempt: Attempt::default(),
        kind: job.kind.clone(),
        enqueued_at: now,
        changed_at: now,
        error: None,
    }
}

impl LocalJobs {
    /// The failure domain of all jobs.
    pub(super) fn domain(&self) -> Domain {
        self.replicas.breaker.domain_at(Place::Jobs)
    }

    /// Makes a call to the primary; `None` if it is away.
    async fn ask<R>(&self, call: impl Future<Output = Result<R>>) -> Option<Result<R>> {
        self.replicas.breaker.ask(self.domain(), call).await
    }

    /// Makes a call that only the primary can answer.
    async fn ask_primary<R>(&self, op: &'static str, call: impl Future<Output = Result<R>>) -> Result<R> {
        self.ask(call).await.unwrap_or_else(|| Err(away(op)))
    }

    /// Makes a call about a job wherever the job lives: to the table, or to the primary.
    async fn where_it_lives<R>(
        &self,
        op: &'static str,
        id: JobId,
        here: impl FnOnce(&mut JobTable, Now) -> R,
        there: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        let waiting_since = Instant::now();
        loop {
            {
                let mut state = self.lock();
                let is_moving = state.moving.contains_key(&id);
                // A node that never had a primary has all jobs there are: one that it does not know is unknown.
                if state.table.has(id) || (!is_moving && self.replicas.breaker.is_standalone()) {
                    return Ok(here(&mut state.table, Now::read()));
                }
                if !is_moving {
                    break;
                }
            }
            let arrived = tokio::select! {
                biased;
                () = until(&self.moved, || !self.lock().moving.contains_key(&id)) => true,
                () = self.replicas.breaker.until_away(self.domain()) => false,
                () = time::sleep_until(waiting_since + ON_ITS_WAY_WITHIN) => false,
            };
            if !arrived {
                return Err(away(op));
            }
        }
        self.ask_primary(op, there).await
    }

    /// Waits until the log has the updates of an order that were reported in an outage.
    async fn until_in_log(&self, order: &ChannelName) -> Result<()> {
        let is_in_log = || !self.replicas.replica_is(order, Replica::is_forked);
        let in_log = until(&self.replicas.in_order, is_in_log);
        time::timeout(ON_ITS_WAY_WITHIN, in_log).await.map_err(|_elapsed| away("finish"))
    }

    /// Queues a job; in an outage here, where that is allowed.
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds, may_keep: bool) -> Result<Enqueued> {
        let breaker = &self.replicas.breaker;
        {
            let mut state = self.lock();
            if let Some(answer) = state.answer_here(job) {
                return Ok(answer);
            }
            let (is_primary, is_standalone) = (breaker.is_primary(self.domain()), breaker.is_standalone());
            if is_primary {
                state.ask_for_key(job);
            } else {
                if let Some(answer) = state.known_key(job, bounds)? {
                    return Ok(answer);
                }
                if !(may_keep || is_standalone) {
                    return Err(away("enqueue"));
                }
                let answer = state.table.enqueue(job, bounds, Now::read());
                if answer == Enqueued::Queued {
                    state.note_key(job, Some(job.id));
                    drop(state);
                    self.replicas.lock().replica(&ChannelName::order(job.id.into())).set_placed_here(true);
                    self.stats.jobs_taken.add(1);
                    // The primary may have come back meanwhile.
                    self.moved.notify_waiters();
                }
                return Ok(answer);
            }
        }
        // If the primary goes away before it answers, it may have the job, so this node must not keep it too.
        let answer = self.ask_primary("enqueue", breaker.primary.enqueue(job, bounds)).await?;
        self.lock().enqueued(job, answer);
        Ok(answer)
    }
}

#[async_trait]
impl Jobs for Switching {
    async fn enqueue(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.core.jobs.enqueue(job, bounds, false).await
    }

    async fn enqueue_here(&self, job: &NewJob, bounds: &JobBounds) -> Result<Enqueued> {
        self.core.jobs.enqueue(job, bounds, true).await
    }

    async fn claim(&self, kind: &str, limit: usize, lease: Duration) -> Result<Vec<JobView>> {
        let (breaker, jobs) = (&self.core.breaker, &self.core.jobs);
        {
            let mut state = jobs.lock();
            // A worker must be able to read in the order's log how far the run before it came, wherever that is.
            if !breaker.modes().is_all_primary() {
                return Ok(state.table.claim(kind, limit, lease, Now::read()));
            }
            if state.claims_from.is_some_and(|from| Instant::now() < from) {
                return Ok(Vec::new());
            }
        }
        let claimed = match jobs.ask(breaker.primary.claim(kind, limit, lease)).await {
            Some(answer) => answer?,
            // Claims whose answers were lost are given back when the primary is back.
            None => Vec::new(),
        };
        let mut state = jobs.lock();
        claimed.iter().for_each(|job| state.saw(job.clone()));
        drop(state);
        Ok(claimed)
    }

    async fn extend(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        let there = self.core.breaker.primary.extend(id, token, lease);
        self.core
            .jobs
            .where_it_lives("extend", id, |table, now| table.extend(id, token, lease, now), there)
            .await
    }

    async fn commit(&self, id: JobId, token: u64, lease: Duration) -> Result<Held> {
        let there = async {
            // Should this node die afterwards, no other could read that the order was submitted.
            if !self.core.breaker.has_log(&ChannelName::order(id.into())) {
                return Err(away("commit"));
            }
            let held = self.core.breaker.primary.commit(id, token, lease).await?;
            self.core.jobs.lock().change(id, |view| view.committed |= held == Held::Yes);
            Ok(held)
        };
        self.core
            .jobs
            .where_it_lives("commit", id, |table, now| table.commit(id, token, lease, now), there)
            .await
    }

    async fn finish(&self, id: JobId, token: u64, ending: &Ending) -> Result<Held> {
        let jobs = &self.core.jobs;
        let there = async {
            // The next worker reads in the order's log how far this run came.
            jobs.until_in_log(&ChannelName::order(id.into())).await?;
            let held = self.core.breaker.primary.finish(id, token, ending).await?;
            if held == Held::Yes {
                jobs.lock().change(id, |view| {
                    view.changed_at = Utc::now();
                    if let Ending::Retry { attempt: Some(number), .. } = *ending {
                        view.attempt = Attempt { number, said_by: view.run };
                    }
                    (view.state, view.error) = match ending {
                        Ending::Done => (JobState::Done, None),
                        Ending::Retry { .. } => (JobState::Delayed, None),
                        Ending::Dead { error } => (JobState::Dead, Some(error.clone())),
                    };
                });
            }
            Ok(held)
        };
        jobs.where_it_lives("finish", id, |table, now| table.finish(id, token, ending, now), there).await
    }

    async fn cancel(&self, id: JobId) -> Result<Cancelling> {
        let there = async {
            let answer = self.core.breaker.primary.cancel(id).await?;
            self.core.jobs.lock().change(id, |view| view.cancelled |= answer == Cancelling::Asked);
            Ok(answer)
        };
        self.core.jobs.where_it_lives("cancel", id, |table, now| table.cancel(id, now), there).await
    }

    async fn job(&self, id: JobId) -> Result<Option<JobView>> {
        let (breaker, jobs) = (&self.core.breaker, &self.core.jobs);
        {
            let mut state = jobs.lock();
            if let Some(view) = state.table.job(id, Now::read()) {
                return Ok(Some(view));
            }
            if let Some(moving) = state.moving.get(&id) {
                return Ok(Some(moving.view.clone()));
            }
        }
        match jobs.ask(breaker.primary.job(id)).await {
            Some(answer) => {
                let view = answer?;
                let mut state = jobs.lock();
                match &view {
                    Some(view) => state.saw(view.clone()),
                    None => state.seen.remove(&id),
                }
                drop(state);
                Ok(view)
            }
            None if breaker.is_standalone() => Ok(None),
            None => {
                let seen = jobs.lock().seen.get(&id).cloned();
                seen.ok_or(StorageError::Unknown { op: "job" }).map(Some)
            }
        }
    }

    /// While the primary is away, lists the jobs that live here, and the primary's in their last known state.
    async fn list_jobs(
        &self,
        state: Option<JobState>,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobView>> {
        let (breaker, jobs) = (&self.core.breaker, &self.core.jobs);
        match jobs.ask(breaker.primary.list_jobs(state, before, limit)).await {
            Some(answer) => {
                let views = answer?;
                let mut known = jobs.lock();
                for view in &views {
                    known.change(view.id, |held| *held = view.clone());
                }
                Ok(views)
            }
            None => {
                let mut held = jobs.lock();
                if breaker.is_standalone() {
                    return Ok(held.table.list(state, before, limit, Now::read()));
                }
                let known = held.known();
                let from = before.and_then(|before| known.iter().position(|id| *id == before));
                let later = known.into_iter().skip(from.map_or(0, |from| from + 1));
                let views = later.filter_map(|id| held.view(id));
                let wanted = views.filter(|view| state.is_none_or(|state| view.state == state));
                Ok(wanted.take(limit.min(JOBS_PER_CALL_MAX)).collect())
            }
        }
    }

    async fn settle_dead(&self, id: JobId) -> Result<bool> {
        let there = self.core.breaker.primary.settle_dead(id);
        self.core.jobs.where_it_lives("settle_dead", id, |table, now| table.settle_dead(id, now), there).await
    }

    /// While the primary is away, counts the jobs that are known here.
    async fn job_counts(&self) -> Result<JobCounts> {
        match self.core.jobs.ask(self.core.breaker.primary.job_counts()).await {
            Some(answer) => answer,
            None => Ok(self.core.jobs.lock().counts()),
        }
    }
}
