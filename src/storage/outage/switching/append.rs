//! Appends: which way a batch goes, what the log's answer means, and when a channel continues without the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{self, Instant};

use super::backlog::Backlog;
use super::breaker::Breaker;
use super::replica::Known;
use super::replicas::{Locked, Replicas};
use super::{LaneOf, away};
use crate::model::{Epoch, Lane};
use crate::storage::{AppendAnswer, AppendBatch, Appended, LogState, OpenLog, Result};

/// A new measurement counts for one part in this many of the smoothed time of an append.
const NEWEST_PART: u64 = 8;

/// An append is late when it takes longer than the deadline, and longer than this many times the usual time.
const LATE_FACTOR: u32 = 4;

/// The bounds of how long an append waits for a fork that is about to be closed; between them it waits
/// [`LATE_FACTOR`] times as long as an append usually takes.
const CLOSED_WITHIN: Duration = Duration::from_millis(100);
const CLOSED_WITHIN_MAX: Duration = Duration::from_secs(1);

/// Which way a batch goes.
enum Way {
    /// Nothing is known of the channel here.
    Unknown,
    /// The channel is in another epoch here, in which the caller must append instead.
    Foreign(Option<Epoch>),
    /// To the log, which has reached at least offset `highest`. The append is late after `late_after`.
    Log { highest: u64, late_after: Duration },
    /// Into the fork, which may be about to be closed.
    Here { closing: bool },
}

/// Appends batches to the log, or has them accepted without it.
pub(super) struct Appender {
    breaker: Arc<Breaker>,
    replicas: Arc<Replicas>,
    backlog: Arc<Backlog>,
    lanes: LaneOf,
    /// The least time after which an append on lane `latest` is late: its channel continues without the log.
    pub(super) deadline: Duration,
    /// Smoothed time that an append takes, in nanoseconds.
    usual_ns: AtomicU64,
}

impl Appender {
    pub(super) fn new(backlog: &Arc<Backlog>, lanes: LaneOf, deadline: Duration) -> Self {
        let (backlog, replicas) = (Arc::clone(backlog), Arc::clone(&backlog.replicas));
        let breaker = Arc::clone(&replicas.breaker);
        Self { breaker, replicas, backlog, lanes, deadline, usual_ns: AtomicU64::new(0) }
    }

    pub(super) async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        if batch.producer != self.replicas.node {
            return self.append_for_another(batch).await;
        }
        match self.way(batch) {
            Way::Unknown => {
                // Not `open`, which would give the log an epoch.
                let asked = self.breaker.primary.state(&batch.channel, self.replicas.node);
                match self.breaker.ask_log(&batch.channel, asked).await {
                    Some(Ok(LogState { epoch: Some(epoch), top, last_seq })) => {
                        let producers = vec![(self.replicas.node, last_seq)];
                        let log = OpenLog { epoch, top, last_seq, producers, anchor: None };
                        if !self.replicas.take_up(&batch.channel, &log, &Known::default()) {
                            return Ok(AppendAnswer::ForeignEpoch(None));
                        }
                        if let Some(replica) = self.replicas.lock().replicas.get_mut(&batch.channel) {
                            replica.set_others_unknown();
                        }
                        Box::pin(self.append(batch)).await
                    }
                    Some(Ok(_)) | None => Ok(AppendAnswer::ForeignEpoch(None)),
                    Some(Err(error)) => Err(error),
                }
            }
            Way::Foreign(epoch) => Ok(AppendAnswer::ForeignEpoch(epoch)),
            Way::Here { closing } => {
                if closing {
                    self.until_closed(batch).await;
                    if let Way::Foreign(epoch) = self.way(batch) {
                        return Ok(AppendAnswer::ForeignEpoch(epoch));
                    }
                }
                self.backlog.append_here(batch, (self.lanes)(&batch.channel)).await
            }
            Way::Log { highest, late_after } => self.append_to_log(batch, highest, late_after).await,
        }
    }

    fn way(&self, batch: &AppendBatch) -> Way {
        let is_primary = self.breaker.has_log(&batch.channel);
        let mut state = self.replicas.lock();
        let is_held = self.backlog.has_formers(&batch.channel) || state.is_queued(&batch.channel);
        let Some(replica) = state.replicas.get_mut(&batch.channel) else { return Way::Unknown };
        replica.used = Instant::now();
        if replica.epoch().is_none() {
            return Way::Unknown;
        }
        if replica.epoch() != Some(&batch.epoch) {
            return Way::Foreign(replica.epoch().cloned());
        }
        if replica.is_forked() {
            return Way::Here { closing: replica.is_closing() };
        }
        if is_primary && !replica.is_suspect() && !is_held {
            let highest = replica.sending(newest_seq(batch));
            return Way::Log { highest, late_after: self.late_after() };
        }
        state.fork(&batch.channel, first_seq(batch), false);
        Way::Foreign(state.epoch_of(&batch.channel))
    }

    // Entries that begin a log

    pub(super) async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        match self.may_begin(batch) {
            Ok(known) => self.begin_in_log(batch, &known).await,
            // The log has begun, is being reconciled, or cannot be reached: the caller opens it to find out.
            Err(epoch) => Ok(AppendAnswer::ForeignEpoch(epoch)),
        }
    }

    /// Decides whether these entries may begin the log: as far as this node knows, the log has no epoch and
    /// does not have to be reconciled. Returns what is known of the log or, as the error, the channel's epoch
    /// on this node.
    fn may_begin(&self, batch: &AppendBatch) -> Result<Known, Option<Epoch>> {
        let channel = &batch.channel;
        let is_primary = self.breaker.has_log(channel);
        let mut state = self.replicas.lock();
        let is_held = self.backlog.has_formers(channel) || state.is_queued(channel);
        let replica = state.replica(channel);
        replica.used = Instant::now();
        let is_new = replica.epoch().is_none() && !replica.is_suspect() && !is_held;
        if !is_new || !is_primary || batch.producer != self.replicas.node {
            return Err(replica.epoch().cloned());
        }
        replica.beginning(&batch.epoch, newest_seq(batch));
        Ok(replica.known())
    }

    async fn begin_in_log(&self, batch: &AppendBatch, known: &Known) -> Result<AppendAnswer> {
        let (channel, begun) = (&batch.channel, Instant::now());
        let Some(answer) = self.breaker.ask_log(channel, self.breaker.primary.begin(batch)).await else {
            // Whether the call took effect will be known when the log is back.
            return Ok(AppendAnswer::ForeignEpoch(None));
        };
        let answer = answer?;
        if !matches!(answer, AppendAnswer::Done(_)) {
            return Ok(answer);
        }
        if self.replicas.take_up(channel, &OpenLog::begun_as(batch.epoch.clone()), known) {
            return Ok(self.appended(batch, answer, begun.elapsed(), 0));
        }
        // The channel forked meanwhile, or its log is in another epoch.
        Ok(AppendAnswer::ForeignEpoch(self.replicas.epoch_of(channel)))
    }

    // This node's own stream

    async fn append_to_log(
        &self,
        batch: &AppendBatch,
        highest: u64,
        late_after: Duration,
    ) -> Result<AppendAnswer> {
        let (lane, domain) = ((self.lanes)(&batch.channel), self.breaker.domain_of(&batch.channel));
        let begun = Instant::now();
        let late = async {
            match lane {
                Lane::Latest => time::sleep_until(begun + late_after).await,
                Lane::Every => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            biased;
            answer = self.breaker.primary.append(batch) => answer,
            () = self.breaker.until_away(domain) => return Ok(self.fork_and_answer(batch, false)),
            () = late => {
                // It counts as a measurement, so that a storage that is always slow is waited for longer.
                self.note_append_time(begun.elapsed());
                return Ok(self.fork_and_answer(batch, true));
            }
        };
        match answer {
            Ok(answer) => Ok(self.appended(batch, answer, begun.elapsed(), highest)),
            Err(error) if !error.is_outage() => Err(error),
            Err(error) if lane == Lane::Latest => {
                tracing::debug!(channel = %batch.channel, error = %error, "an append failed");
                self.breaker.beat_now(domain).notify_one();
                Ok(self.fork_and_answer(batch, false))
            }
            Err(error) => match self.breaker.verdict(domain, error).await {
                None => Ok(self.fork_and_answer(batch, false)),
                Some(error) => Err(error),
            },
        }
    }

    /// Handles the log's answer to an append, before which the log had reached at least offset `highest`.
    fn appended(
        &self,
        batch: &AppendBatch,
        answer: AppendAnswer,
        took: Duration,
        highest: u64,
    ) -> AppendAnswer {
        self.note_append_time(took);
        let mut state = self.replicas.lock();
        let is_queued = state.is_queued(&batch.channel);
        let Some(replica) = state.replicas.get_mut(&batch.channel) else { return answer };
        if replica.epoch() != Some(&batch.epoch) {
            // The channel is in another epoch by now, in which these entries are appended again or are known.
            return AppendAnswer::ForeignEpoch(replica.epoch().cloned());
        }
        match answer {
            AppendAnswer::Done(results) => {
                if are_in_place_of_others(&results, highest) {
                    tracing::warn!(channel = %batch.channel, highest, "the log lost entries, and has others in their place");
                    replica.contradicted();
                    return lost_log(state, batch);
                }
                if is_queued {
                    // Reconciling finds whether these entries follow what was seen. Until then they are in a
                    // fork as well; when they are sent again, the log takes them for duplicates.
                    state.fork(&batch.channel, first_seq(batch), false);
                    return AppendAnswer::ForeignEpoch(state.epoch_of(&batch.channel));
                }
                replica.acknowledged(batch, &results);
                state.mind_hole(&batch.channel);
                AppendAnswer::Done(results)
            }
            AppendAnswer::ForeignEpoch(found) => {
                tracing::warn!(channel = %batch.channel, ?found, "the log is in another epoch");
                lost_log(state, batch)
            }
        }
    }

    /// Forks the channel. The answer makes the caller repeat its append in the fork.
    fn fork_and_answer(&self, batch: &AppendBatch, late: bool) -> AppendAnswer {
        let mut state = self.replicas.lock();
        if state.replicas.get(&batch.channel).is_some_and(|replica| replica.epoch() == Some(&batch.epoch)) {
            state.fork(&batch.channel, first_seq(batch), late);
        }
        AppendAnswer::ForeignEpoch(state.epoch_of(&batch.channel))
    }

    // Other streams

    /// Appends entries of another producer, which only the log itself can accept.
    async fn append_for_another(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let (channel, has_own_ids) = (&batch.channel, has_own_ids(batch));
        let highest = {
            let mut state = self.replicas.lock();
            let is_held = self.backlog.has_formers(channel) || state.is_queued(channel);
            match state.replicas.get_mut(channel) {
                Some(replica) if replica.is_forked() => return Err(away("append")),
                // If the log lost entries, the reconciler appends those again first.
                Some(replica) if has_own_ids && (replica.is_suspect() || is_held) => {
                    return Err(away("append"));
                }
                Some(replica) if has_own_ids && replica.log().is_some_and(|log| *log != batch.epoch) => {
                    return Ok(AppendAnswer::ForeignEpoch(replica.log().cloned()));
                }
                Some(replica) => {
                    replica.used = Instant::now();
                    replica.highest()
                }
                None => 0,
            }
        };
        let answer = self.breaker.ask_log(channel, self.breaker.primary.append(batch)).await;
        let answer = answer.unwrap_or_else(|| Err(away("append")))?;
        if has_own_ids { self.appended_foreign(batch, answer, highest) } else { Ok(answer) }
    }

    /// Handles the log's answer to an append of entries that have ids of their own. Before it, the log had
    /// reached at least offset `highest`. Returns an error if the log may not keep the entries, so that the
    /// caller repeats the append, which does no harm.
    fn appended_foreign(
        &self,
        batch: &AppendBatch,
        answer: AppendAnswer,
        highest: u64,
    ) -> Result<AppendAnswer> {
        let (channel, mut state) = (&batch.channel, self.replicas.lock());
        let is_queued = state.is_queued(channel);
        let replica = state.replicas.get_mut(channel).filter(|replica| replica.epoch().is_some());
        let Some(replica) = replica else { return Ok(answer) };
        if is_queued || replica.epoch() != Some(&batch.epoch) {
            return Err(away("append"));
        }
        let AppendAnswer::Done(results) = &answer else {
            state.suspect(channel);
            return Ok(answer);
        };
        if are_in_place_of_others(results, highest) {
            tracing::warn!(%channel, highest, "the log lost entries, and has others in their place");
            replica.contradicted();
            state.suspect(channel);
            return Err(away("append"));
        }
        replica.acknowledged(batch, results);
        if let Some(Appended::Gap { last }) = results.iter().find(|one| matches!(one, Appended::Gap { .. }))
            && replica.foreign.has_after(batch.producer, *last)
        {
            // The log lost entries that this node puts back.
            state.suspect(channel);
        }
        state.mind_hole(channel);
        Ok(answer)
    }

    // How long an append takes

    pub(super) fn note_append_time(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / NEWEST_PART;
        let smoothed = |usual: u64| Some((usual / NEWEST_PART * (NEWEST_PART - 1)).saturating_add(ns));
        let _usual = self.usual_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, smoothed);
    }

    fn late_factor_of_usual(&self) -> Duration {
        Duration::from_nanos(self.usual_ns.load(Ordering::Relaxed)) * LATE_FACTOR
    }

    /// How long an append is waited for before its channel continues without the log.
    pub(super) fn late_after(&self) -> Duration {
        self.deadline.max(self.late_factor_of_usual())
    }

    /// Waits a little for a fork that is about to be closed.
    async fn until_closed(&self, batch: &AppendBatch) {
        let within = self.late_factor_of_usual().clamp(CLOSED_WITHIN, CLOSED_WITHIN_MAX);
        self.replicas.until_replica(&batch.channel, within, |replica| !replica.is_closing()).await;
    }
}

/// Handles the discovery that the log is not the one this node knew: queues the channel to be reconciled with
/// it, and forks the channel until then.
fn lost_log(mut state: Locked<'_>, batch: &AppendBatch) -> AppendAnswer {
    state.suspect(&batch.channel);
    state.fork(&batch.channel, first_seq(batch), false);
    AppendAnswer::ForeignEpoch(state.epoch_of(&batch.channel))
}

/// Whether an entry was applied at an offset up to `highest`, where the log had another entry before.
fn are_in_place_of_others(results: &[Appended], highest: u64) -> bool {
    results.iter().any(|result| matches!(*result, Appended::Applied { offset } if offset <= highest))
}

/// Whether all these entries of another producer have ids of their own (as trades do), the same for every
/// process. Other entries of another producer carry the fencing token of the lease whose holder numbers them.
fn has_own_ids(batch: &AppendBatch) -> bool {
    batch.entries.iter().all(|append| append.fence.is_none())
}

fn first_seq(batch: &AppendBatch) -> Option<u64> {
    batch.entries.first().map(|append| append.seq)
}

fn newest_seq(batch: &AppendBatch) -> u64 {
    batch.entries.last().map_or(0, |last| last.seq)
}
