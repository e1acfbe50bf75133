//! Whether the primary serves: beats and connections in, the state machine's steps out, and what is
//! said of them. Also passes on what the primary tells, and lets go of what is no longer needed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};

use super::line::Line;
use super::{Core, Mode};
use crate::model::{BackendState, ChannelKind, ChannelName};
use crate::storage::failover::{Failover, First, Limits, Lost, Signal, Step};
use crate::storage::primary::Beat;
use crate::storage::{LogEvent, Result, StatusWriter};

/// Between beats.
const BEAT_EVERY: Duration = Duration::from_millis(200);

/// Between looks for what is no longer needed.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Channels that were appended to so shortly before a loss are looked at even where nothing seems to
/// be missing: a server may lose what it had just acknowledged.
const JUST_BEFORE: Duration = Duration::from_secs(5);

/// How long a line that nobody needs is remembered after its last use: what it holds may have to be
/// put back.
const ORDER_KEPT: Duration = Duration::from_secs(300);
const ZONE_KEPT: Duration = Duration::from_secs(3_600);

/// Bytes of own entries that are kept to be put back, in all; looked at every [`TIDY_EVERY`].
const TAILS_BYTES_MAX: usize = 256 << 20;

/// Lines that are remembered; past it, those that nobody needs go at once.
const LINES_MAX: usize = 100_000;

pub(super) async fn drive(
    core: Arc<Core>,
    limits: Limits,
    first: First,
    status: Arc<StatusWriter>,
    well: String,
) {
    let judge = Judge {
        failover: Failover::new(limits, first, Instant::now()),
        core: Arc::clone(&core),
        status,
        well,
        lost_at: Instant::now(),
        lost_data: false,
    };
    tokio::join!(
        judge.run(),
        core.put_in_order(),
        core.keep_records(),
        core.send_formers(),
        core.record_jobs(),
        core.pass_on(),
        core.tidy()
    );
}

/// Feeds the state machine and does what it says.
struct Judge {
    failover: Failover,
    core: Arc<Core>,
    status: Arc<StatusWriter>,
    well: String,
    /// When the primary was last left.
    lost_at: Instant,
    /// It was found to have lost data, and not all channels have been looked at since.
    lost_data: bool,
}

impl Judge {
    async fn run(mut self) {
        let core = Arc::clone(&self.core);
        let mut health = core.primary.link_health();
        let mut losses = health.borrow().losses;
        let mut is_up = health.borrow_and_update().is_up();
        let first = health.borrow().lost.clone();
        match first {
            None => self.take(Signal::LinkUp),
            Some(lost) => self.take(Signal::LinkDown(lost)),
        }
        let mut beat: Option<BoxFuture<'_, Result<Beat>>> = None;
        let mut beat_at = Instant::now();
        loop {
            let far = Instant::now() + Duration::from_secs(3_600);
            let tick = self.failover.next_tick().unwrap_or(far);
            let done = core.in_order.notified();
            let mut done = std::pin::pin!(done);
            done.as_mut().enable();
            let is_recovered = core.is_in_order() && core.jobs.are_recorded();
            if self.failover.state() == BackendState::Recovering && is_recovered {
                self.take(Signal::Rejoined);
                continue;
            }
            tokio::select! {
                biased;
                changed = health.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = health.borrow_and_update().clone();
                    if now.losses > losses || !now.is_up() {
                        let lost = now.lost.clone().unwrap_or_else(|| Lost {
                            code: "unreachable",
                            reason: "a connection was lost".to_owned(),
                        });
                        self.take(Signal::LinkDown(lost));
                        beat = None;
                    }
                    (losses, is_up) = (now.losses, now.is_up());
                    if is_up {
                        self.take(Signal::LinkUp);
                        beat_at = Instant::now();
                    }
                }
                answer = async { match &mut beat { Some(beat) => beat.await, None => std::future::pending().await } } => {
                    beat = None;
                    match answer {
                        Ok(Beat::Same | Beat::First) => self.take(Signal::BeatOk),
                        Ok(found) => match found.lost() {
                            Some(lost) => self.take(Signal::DataLost(lost)),
                            None => self.take(Signal::BeatOk),
                        },
                        Err(error) => self.take(Signal::BeatFailed(Lost::of(&error))),
                    }
                }
                () = time::sleep_until(beat_at), if beat.is_none() && is_up => {
                    beat_at = Instant::now() + BEAT_EVERY;
                    beat = Some(core.primary.beat(core.node).boxed());
                }
                () = core.beat_now.notified(), if beat.is_none() => beat_at = Instant::now(),
                () = time::sleep_until(tick) => self.take(Signal::Tick),
                () = done => {}
            }
        }
    }

    fn take(&mut self, signal: Signal) {
        let now = Instant::now();
        // It is told once, and most often before it is time to recover.
        self.lost_data |= matches!(signal, Signal::DataLost(_));
        let step = self.failover.on(signal, now);
        match step {
            Step::Stay => {}
            Step::Degrade | Step::AbortRecovery => self.lost_at = now,
            Step::StartRecovery | Step::Reconcile => self.begin_recovery(),
            Step::Recovered => {}
        }
        let state = self.failover.state();
        let lost = self.failover.reason().cloned();
        let mode = Mode { state, alone: self.failover.is_alone(), lost: lost.clone() };
        if mode.is_primary() && !self.core.is_primary() {
            self.core.jobs.primary_is_back();
        }
        self.core.mode.send_if_modified(|held| {
            let changed = *held != mode;
            *held = mode;
            changed
        });
        if !self.core.is_primary() {
            self.core.away.notify_waiters();
        }
        if self.failover.is_alone() {
            return;
        }
        let (code, reason) = match &lost {
            Some(lost) => (lost.code, lost.reason.clone()),
            None => ("ok", self.well.clone()),
        };
        let moved = self.status.set(self.core.serving(), state, code, reason.clone());
        if !moved {
            return;
        }
        match state {
            BackendState::Degraded => {
                tracing::warn!(code, reason, "redis does not serve; going on in memory");
            }
            BackendState::Recovering => {
                let channels = self.core.lock().queue.len();
                tracing::info!(code, reason, channels, "redis answers again; putting channels in order");
            }
            BackendState::Healthy => {
                let took_ms = u64::try_from((now - self.lost_at).as_millis()).unwrap_or(u64::MAX);
                tracing::info!(took_ms, "redis serves again, and everything is in order");
            }
        }
        if step != Step::Stay {
            self.core.work.notify_one();
        }
    }

    /// Has the channels looked at that may not be in step: those that went on alone, those of which
    /// something may have been missed, those that were in use shortly before, and all of a server that
    /// lost data.
    fn begin_recovery(&mut self) {
        let lost_data = std::mem::take(&mut self.lost_data);
        let since = self.lost_at.checked_sub(JUST_BEFORE);
        let mut state = self.core.lock();
        let is_due = |line: &Line| {
            let is_recent = || since.is_none_or(|since| line.used >= since);
            line.fork.is_some() || line.followed || (line.log.is_some() && (lost_data || is_recent()))
        };
        let due: Vec<ChannelName> =
            state.lines.iter().filter(|(_, line)| is_due(line)).map(|(name, _)| name.clone()).collect();
        state.queue.extend(due);
        state.awaited = state.queue.clone();
        drop(state);
        self.core.work.notify_one();
    }
}

/// What is kept to be put back is bounded in all: that of the channels that rest longest goes first.
fn bound_tails(lines: &mut HashMap<ChannelName, Line>) {
    let mut total: usize = lines.values().map(|line| line.tail.bytes()).sum();
    if total <= TAILS_BYTES_MAX {
        return;
    }
    let mut resting: Vec<(Instant, ChannelName)> =
        lines.iter().map(|(name, line)| (line.used, name.clone())).collect();
    resting.sort_unstable();
    for (_, name) in resting {
        if total <= TAILS_BYTES_MAX {
            return;
        }
        if let Some(line) = lines.get_mut(&name) {
            total -= line.tail.bytes();
            line.tail.clear();
        }
    }
}

impl Core {
    /// Passes on what the primary tells, and keeps a copy.
    async fn pass_on(&self) {
        let Some(mut incoming) = self.primary.take_incoming() else { return };
        loop {
            let event = tokio::select! {
                biased;
                () = self.overrun.notified() => {
                    if self.events.send(LogEvent::Suspect).await.is_err() {
                        return;
                    }
                    continue;
                }
                event = incoming.recv() => event,
            };
            let Some(event) = event else { return };
            let Some(event) = self.told(event) else { continue };
            match self.events.try_send(event) {
                Ok(()) => {}
                // Nobody waits here for one who does not keep up: it reads the log then.
                Err(mpsc::error::TrySendError::Full(_)) => self.overrun.notify_one(),
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
    }

    /// What the primary told, as it is passed on.
    fn told(&self, event: LogEvent) -> Option<LogEvent> {
        let LogEvent::Appended { channel, epoch, entries } = &event else { return Some(event) };
        if !self.is_primary() {
            // Nothing is known of what came before it: it is read when the channel is put in order.
            return None;
        }
        let mut state = self.lock();
        let Some(line) = state.lines.get_mut(channel) else { return Some(event) };
        if line.fork.is_some() {
            // Read when the fork is closed.
            return None;
        }
        if line.log.as_ref() == Some(epoch) && !line.contradicts(channel, &self.memory, entries) {
            line.mirror(channel, &self.memory, self.node, entries);
            self.mind_hole(&mut state, channel);
            return Some(event);
        }
        if line.log.is_none() {
            line.hear(epoch, entries);
            return Some(event);
        }
        line.suspect = true;
        self.enqueue(&mut state, channel);
        None
    }

    /// Lets go of what is no longer needed.
    async fn tidy(&self) {
        loop {
            time::sleep(TIDY_EVERY).await;
            let now = Instant::now();
            let gone = self.lock().journal.expire(now);
            if let Some(spool) = &self.spool {
                self.forget(spool, gone).await;
            }
            let mut state = self.lock();
            let is_many = state.lines.len() > LINES_MAX;
            let super::State { lines, journal, queue, awaited, holes, .. } = &mut *state;
            lines.retain(|name, line| {
                let kept = match name.kind() {
                    ChannelKind::Zone => ZONE_KEPT,
                    ChannelKind::Order => ORDER_KEPT,
                };
                let is_fresh = now.duration_since(line.used) < if is_many { TIDY_EVERY } else { kept };
                if is_fresh || line.followed || !journal.is_empty(name) {
                    return true;
                }
                // A fork whose entries have all grown too old has nothing to be put in order.
                let is_empty = line.fork.is_some() && self.memory.mirrored(name).is_none();
                if is_empty {
                    queue.remove(name);
                    awaited.remove(name);
                }
                !is_empty && (line.is_needed() || queue.contains(name))
            });
            holes.retain(|name, _| lines.contains_key(name));
            lines.iter_mut().for_each(|(name, line)| line.expire_tail(name, &self.memory));
            bound_tails(lines);
        }
    }
}
