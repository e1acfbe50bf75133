//! Decides when to leave Redis and when to return: a state machine that does nothing itself.
//!
//! Callers report what they observed and when, and get back what to do. The machine has no clock, makes no
//! calls, and does not know what a recovery consists of.
//!
//! A loss is believed at once; a return only after health probes have been good for a dwell time. Each
//! relapse soon after a recovery doubles the dwell time, up to a maximum, so a Redis that comes and goes
//! moves the gateway at most once in that time. A quiet minute resets it.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::BackendState;
use crate::storage::Lost;

/// An observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) enum Signal {
    /// A health probe was answered, writes are accepted, and no data are missing.
    BeatOk,
    /// A health probe was refused, or not answered in time.
    BeatFailed(Lost),
    /// A connection was lost. If it is back already, report this before `LinkUp`.
    LinkDown(Lost),
    /// All connections are up, and every followed channel is subscribed.
    LinkUp,
    /// A health probe was answered, and Redis has lost data.
    DataLost(Lost),
    /// The work of the last `StartRecovery` or `Reconcile` is done. Its performer abandons earlier work
    /// before it begins new work, and reports only the last one.
    Reconciled,
    /// The time of [`Failover::next_tick`] has come.
    Tick,
}

/// What the caller has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(in crate::storage) enum Step {
    /// Nothing changes, except perhaps [`Failover::reason`].
    Stay,
    /// Serve from memory from now on.
    Degrade,
    /// Begin to reconcile memory and Redis.
    StartRecovery,
    /// Abandon the recovery; memory continues to serve.
    AbortRecovery,
    /// Redis serves again.
    Recovered,
    /// Redis answers, but has lost data: reconcile; if that is in progress, start over.
    Reconcile,
}

/// How much evidence of a return is required.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Limits {
    /// How long health probes must have been good, without a failure in between.
    pub(in crate::storage) dwell: Duration,
    /// The longest dwell time after relapses.
    pub(in crate::storage) dwell_max: Duration,
    /// The fewest good probes.
    pub(in crate::storage) good_beats: u32,
    /// A loss this long after a recovery is not a relapse.
    pub(in crate::storage) quiet: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dwell: Duration::from_millis(300),
            dwell_max: Duration::from_secs(2),
            good_beats: 2,
            quiet: Duration::from_secs(60),
        }
    }
}

/// The initial state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) enum First {
    /// Redis serves, and its connections are up.
    Redis,
    /// A configured Redis does not serve.
    Memory(Lost),
    /// Memory serves and that is healthy, because no Redis is configured. A Redis that appears is used; from
    /// then on, losing it counts as a loss.
    Standalone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mode {
    Standalone { run: Run },
    Healthy,
    Degraded { lost: Lost, run: Run },
    Recovering { lost: Lost },
}

/// A run of good health probes, without a failure in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Run {
    since: Option<Instant>,
    beats: u32,
}

impl Run {
    fn and_one(self, now: Instant) -> Self {
        Self { since: self.since.or(Some(now)), beats: self.beats.saturating_add(1) }
    }
}

/// The state machine.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Failover {
    limits: Limits,
    mode: Mode,
    /// When the visible state last changed.
    since: Instant,
    /// False while a connection is down; health probes prove nothing then.
    link_up: bool,
    /// The present dwell time: the limit, or longer after relapses.
    dwell: Duration,
    /// When a recovery last succeeded.
    recovered: Option<Instant>,
    /// When the gateway last left Redis, discovered it, or found that it had lost data while it served.
    lost_at: Instant,
}

impl Failover {
    pub(in crate::storage) fn new(limits: Limits, first: First, now: Instant) -> Self {
        let link_up = first == First::Redis;
        let mode = match first {
            First::Redis => Mode::Healthy,
            First::Memory(lost) => Mode::Degraded { lost, run: Run::default() },
            First::Standalone => Mode::Standalone { run: Run::default() },
        };
        let dwell = limits.dwell;
        Self { limits, mode, since: now, link_up, dwell, recovered: None, lost_at: now }
    }

    /// Processes an observation made at `now`, which never goes back.
    pub(in crate::storage) fn on(&mut self, signal: Signal, now: Instant) -> Step {
        match &signal {
            Signal::LinkUp => self.link_up = true,
            Signal::LinkDown(_) => self.link_up = false,
            _ => {}
        }
        let (before, was_standalone) = (self.state(), self.is_standalone());
        let mode = std::mem::replace(&mut self.mode, Mode::Healthy);
        let (mode, step) = self.arrow(mode, signal, now);
        self.mode = mode;
        match step {
            Step::Degrade => self.damp(self.recovered.is_some_and(|at| now - at < self.limits.quiet)),
            // A recovery that fails is a relapse, however long after the previous one.
            Step::AbortRecovery => self.damp(true),
            Step::Recovered => self.recovered = Some(now),
            Step::Stay | Step::StartRecovery | Step::Reconcile => {}
        }
        if self.state() != before {
            self.since = now;
        }
        let is_new = match step {
            Step::Degrade | Step::AbortRecovery => true,
            Step::Reconcile => before == BackendState::Healthy,
            Step::StartRecovery => was_standalone,
            Step::Recovered | Step::Stay => false,
        };
        if is_new {
            self.lost_at = now;
        }
        step
    }

    fn arrow(&self, mode: Mode, signal: Signal, now: Instant) -> (Mode, Step) {
        use Signal::{BeatFailed, BeatOk, DataLost, LinkDown, LinkUp, Reconciled, Tick};
        match (mode, signal) {
            // Standalone => Standalone | Recovering
            (Mode::Standalone { run }, BeatOk | DataLost(_)) => {
                let run = self.counted(run, now);
                if self.is_enough(run, now) { appeared() } else { (Mode::Standalone { run }, Step::Stay) }
            }
            // Standalone => Recovering
            (Mode::Standalone { run }, Tick) if self.is_enough(run, now) => appeared(),
            // Standalone => Standalone
            (Mode::Standalone { .. }, BeatFailed(_) | LinkDown(_)) => {
                (Mode::Standalone { run: Run::default() }, Step::Stay)
            }
            (mode @ Mode::Standalone { .. }, LinkUp | Reconciled | Tick) => (mode, Step::Stay),

            // Healthy => Degraded
            (Mode::Healthy, BeatFailed(lost) | LinkDown(lost)) => {
                (Mode::Degraded { lost, run: Run::default() }, Step::Degrade)
            }
            // Healthy => Recovering
            (Mode::Healthy, DataLost(lost)) => (Mode::Recovering { lost }, Step::Reconcile),
            // Healthy => Healthy
            (Mode::Healthy, BeatOk | LinkUp | Reconciled | Tick) => (Mode::Healthy, Step::Stay),

            // Degraded => Degraded | Recovering. The recovery finds out which data are missing.
            (Mode::Degraded { lost, run }, BeatOk | DataLost(_)) => {
                let run = self.counted(run, now);
                if self.is_enough(run, now) {
                    (Mode::Recovering { lost }, Step::StartRecovery)
                } else {
                    (Mode::Degraded { lost, run }, Step::Stay)
                }
            }
            // Degraded => Recovering
            (Mode::Degraded { lost, run }, Tick) if self.is_enough(run, now) => {
                (Mode::Recovering { lost }, Step::StartRecovery)
            }
            // Degraded => Degraded. The newest reason is reported.
            (Mode::Degraded { .. }, BeatFailed(lost) | LinkDown(lost)) => {
                (Mode::Degraded { lost, run: Run::default() }, Step::Stay)
            }
            (mode @ Mode::Degraded { .. }, LinkUp | Reconciled | Tick) => (mode, Step::Stay),

            // Recovering => Healthy
            (Mode::Recovering { .. }, Reconciled) => (Mode::Healthy, Step::Recovered),
            // Recovering => Degraded
            (Mode::Recovering { .. }, BeatFailed(lost) | LinkDown(lost)) => {
                (Mode::Degraded { lost, run: Run::default() }, Step::AbortRecovery)
            }
            // Recovering => Recovering. What was reconciled may be lost again.
            (Mode::Recovering { .. }, DataLost(lost)) => (Mode::Recovering { lost }, Step::Reconcile),
            (mode @ Mode::Recovering { .. }, BeatOk | LinkUp | Tick) => (mode, Step::Stay),
        }
    }

    fn counted(&self, run: Run, now: Instant) -> Run {
        // The probe may have been answered before the connection was lost.
        if self.link_up { run.and_one(now) } else { Run::default() }
    }

    fn is_enough(&self, run: Run, now: Instant) -> bool {
        self.enough_at(run).is_some_and(|at| now >= at)
    }

    /// When the run is long enough if nothing fails before; `None` while it has too few probes.
    fn enough_at(&self, run: Run) -> Option<Instant> {
        run.since.filter(|_| run.beats >= self.limits.good_beats).map(|since| since + self.dwell)
    }

    fn damp(&mut self, relapse: bool) {
        let doubled = self.dwell.saturating_mul(2).min(self.limits.dwell_max);
        self.dwell = if relapse { doubled } else { self.limits.dwell };
    }

    /// The visible state.
    pub(in crate::storage) fn state(&self) -> BackendState {
        match self.mode {
            Mode::Standalone { .. } | Mode::Healthy => BackendState::Healthy,
            Mode::Degraded { .. } => BackendState::Degraded,
            Mode::Recovering { .. } => BackendState::Recovering,
        }
    }

    /// Whether memory serves because no Redis is configured and none has appeared.
    pub(in crate::storage) fn is_standalone(&self) -> bool {
        matches!(self.mode, Mode::Standalone { .. })
    }

    /// Why Redis does not serve, or what it recovers from; `None` while healthy.
    pub(in crate::storage) fn reason(&self) -> Option<&Lost> {
        match &self.mode {
            Mode::Standalone { .. } | Mode::Healthy => None,
            Mode::Degraded { lost, .. } | Mode::Recovering { lost } => Some(lost),
        }
    }

    /// When the outage began that the present or last recovery ends: the gateway left Redis, discovered it,
    /// or found that it had lost data while it served.
    pub(in crate::storage) fn lost_at(&self) -> Instant {
        self.lost_at
    }

    /// When the visible state began.
    #[cfg(test)]
    pub(in crate::storage) fn since(&self) -> Instant {
        self.since
    }

    /// When to send a [`Signal::Tick`]; `None` while time alone changes nothing.
    pub(in crate::storage) fn next_tick(&self) -> Option<Instant> {
        match &self.mode {
            Mode::Standalone { run } | Mode::Degraded { run, .. } => self.enough_at(*run),
            Mode::Healthy | Mode::Recovering { .. } => None,
        }
    }
}

fn appeared() -> (Mode, Step) {
    let lost = Lost { code: "appeared", reason: "a Redis has appeared".to_owned() };
    (Mode::Recovering { lost }, Step::StartRecovery)
}

#[cfg(test)]
mod tests;
