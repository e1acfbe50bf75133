//! Brings the jobs that live here to the primary, once that is back.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time;

use super::{LocalJobs, State};
use crate::model::{ChannelName, JobId};
use crate::storage::outage::switching::replica::Replica;
use crate::storage::outage::switching::until;
use crate::storage::{JobView, MovedJob, Recorded, Result};
use crate::support::backoff::STORAGE_RETRY;

/// Jobs that are on their way at the same time.
const AT_ONCE: usize = 16;

/// The most jobs that are examined at a time to find some that can be moved.
const LOOKED_AT: usize = 1_000;

/// The pause between examinations while no job can be moved, because the logs of their orders are being
/// reconciled.
const LOOK_EVERY: Duration = Duration::from_millis(25);

impl LocalJobs {
    /// Moves jobs to the primary whenever it serves and there are some. Never ends.
    ///
    /// Each is moved in its present state, even while it is being executed: its worker keeps the token and
    /// the rest of the lease. From then on every node can see the job, and take it over if this node dies. A
    /// job that was begun is moved only once the log has its order's updates, because the next worker reads
    /// there how far it came.
    pub(in crate::storage::outage::switching) async fn record_all(&self) {
        let breaker = &self.replicas.breaker;
        let (mut place, mut failures) = (0, 0);
        loop {
            breaker.until_primary(self.domain()).await;
            self.settle_claims().await;
            let (mut going, mut has_looked) = (Vec::new(), false);
            let some_can_go_or_notified = || {
                if !std::mem::replace(&mut has_looked, true) {
                    going = self.next_to_go(&mut place);
                    return !going.is_empty();
                }
                true
            };
            tokio::select! {
                biased;
                () = until(&self.moved, some_can_go_or_notified) => {}
                () = time::sleep(LOOK_EVERY), if !self.are_recorded() => {}
                // Only what needs no primary may change while it is away.
                () = breaker.until_away(self.domain()) => {}
            }
            if going.is_empty() {
                continue;
            }
            let recorded = join_all(going.iter().map(|job| self.record(job))).await;
            self.moved.notify_waiters();
            if self.are_recorded() {
                tracing::info!(recorded = self.stats.jobs_recorded.get(), "redis has all jobs of this node");
                self.replicas.in_order.notify_waiters();
            }
            let Some(error) = recorded.into_iter().find_map(Result::err) else {
                failures = 0;
                continue;
            };
            failures += 1;
            if breaker.is_primary(self.domain()) {
                tracing::warn!(error = %error, failures, "jobs that this node took on cannot be recorded yet");
            }
            STORAGE_RETRY.pause(failures).await;
        }
    }

    /// Gives back the claims whose answers were lost, before their leases expire.
    async fn settle_claims(&self) {
        let mut failures = 0;
        while let Some(Err(error)) = self.ask(self.replicas.breaker.primary.settle_claims()).await {
            failures += 1;
            tracing::debug!(error = %error, failures, "what was claimed without an answer is not given back yet");
            STORAGE_RETRY.pause(failures).await;
        }
    }

    /// The next jobs that can be moved; from now on they count as on their way.
    fn next_to_go(&self, place: &mut u64) -> Vec<MovedJob> {
        let waiting: Vec<(u64, JobId, u32)> = {
            let mut state = self.lock();
            // Finished jobs may be too old to be kept.
            state.table.tidy(super::Now::read());
            let moving = state.moving.values().map(|job| (*place, job.view.id, job.view.run));
            let mut waiting: Vec<_> = moving.collect();
            waiting.extend(state.table.after(*place).take(LOOKED_AT));
            waiting
        };
        let ready: Vec<(u64, JobId)> = {
            let state = self.replicas.lock();
            let is_in_log = |id: JobId| {
                let channel = ChannelName::order(id.into());
                let is_forked = state.replicas.get(&channel).is_some_and(Replica::is_forked);
                !is_forked && state.journal.is_empty(&channel)
            };
            let ready = waiting.iter().filter(|(_, id, run)| *run == 0 || is_in_log(*id));
            ready.map(|(place, id, _)| (*place, *id)).take(AT_ONCE).collect()
        };
        // The next call continues after these jobs or, if they are fewer than `AT_ONCE`, starts over.
        *place = if ready.len() == AT_ONCE { ready.last().map_or(0, |(place, _)| *place) } else { 0 };
        let mut state = self.lock();
        ready.into_iter().filter_map(|(_, id)| state.let_go(id)).collect()
    }

    async fn record(&self, job: &MovedJob) -> Result<()> {
        let id = job.view.id;
        let (breaker, stats) = (&self.replicas.breaker, &self.stats);
        let answer = tokio::select! {
            biased;
            () = breaker.until_away(self.domain()) => return Err(super::away("record_job")),
            answer = breaker.primary.record_job(job) => answer,
        };
        let recorded = match answer {
            Ok(recorded) => recorded,
            Err(error) => {
                stats.job_retries.add(1);
                breaker.beat_now(self.domain()).notify_one();
                return Err(error);
            }
        };
        stats.jobs_recorded.add(1);
        let mut view = job.view.clone();
        if let Recorded::KeyTaken { by, cancelled } = recorded {
            stats.key_conflicts.add(1);
            view.cancelled |= cancelled;
            tracing::error!(
                job = %id, other = %by, cancelled,
                "an idempotency key was used during the outage for this job, and elsewhere for another one"
            );
        }
        // The worker that claims it from now on may begin its log.
        if let Some(replica) = self.replicas.lock().replicas.get_mut(&ChannelName::order(id.into())) {
            replica.set_placed_here(false);
        }
        let mut state = self.lock();
        state.moving.remove(&id);
        state.saw(view);
        Ok(())
    }
}

impl State {
    /// Takes a job out of the table and marks it as on its way; returns a job that already is as it is.
    fn let_go(&mut self, id: JobId) -> Option<MovedJob> {
        if let Some(moving) = self.moving.get(&id) {
            return Some(moving.clone());
        }
        let job = self.table.take(id)?;
        self.moving.insert(id, job.clone());
        Some(job)
    }

    /// A job that is known here; one of the primary's in its last known state.
    pub(super) fn view(&mut self, id: JobId) -> Option<JobView> {
        let here = self.table.job(id, super::Now::read());
        let moving = || self.moving.get(&id).map(|job| job.view.clone());
        here.or_else(moving).or_else(|| self.seen.get(&id).cloned())
    }
}
