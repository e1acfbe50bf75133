//! Whether the primary serves: beats and connections in, the state machine's steps out, and what is
//! said of them. Also passes on what the primary tells, and lets go of what is no longer needed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{self, Instant};

use super::line::Line;
use super::{Core, Mode, Modes, until};
use crate::model::{BackendState, ChannelName, ChannelPolicy};
use crate::storage::Lost;
use crate::storage::outage::failover::{Failover, First, Limits, Signal, Step};
use crate::storage::primary::{Area, Areas, Beat, LinkHealth};
use crate::storage::status::{Scope, Served};
use crate::storage::{LogEvent, Result, StatusWriter};
use crate::support::chance::Hashing;
use crate::support::counter::observe;

/// Between beats.
const BEAT_EVERY: Duration = Duration::from_millis(200);

/// Between looks for what is no longer needed.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Channels that were appended to so shortly before a loss are looked at even where nothing seems to
/// be missing: a server may lose what it had just acknowledged.
const JUST_BEFORE: Duration = Duration::from_secs(5);

/// Lines that are remembered; past it, those that nobody needs go at once.
const LINES_MAX: usize = 100_000;

pub(super) async fn drive(
    core: Arc<Core>,
    limits: Limits,
    first: First,
    status: Arc<StatusWriter>,
    well: String,
) {
    let announcer = Announcer { core: Arc::clone(&core), status, well };
    tokio::join!(
        watch_areas(&core, &announcer, limits, first),
        core.put_in_order(),
        core.keep_records(),
        core.send_formers(),
        core.record_jobs(),
        core.pass_on(),
        core.tidy()
    );
}

/// Keeps a judge for each area of the primary. Ends when the primary does.
async fn watch_areas(core: &Arc<Core>, announcer: &Announcer, limits: Limits, first: First) {
    let judge = |area, first: First, is_new| Judge {
        failover: Failover::new(limits, first, Instant::now()),
        area,
        is_new,
        core: Arc::clone(core),
        announcer,
        lost_data: false,
    };
    let mut areas = core.primary.areas();
    let mut judges = FuturesUnordered::new();
    let mut judged: BTreeSet<Area> = BTreeSet::new();
    let (mut moves, mut is_begun) = (0, false);
    // Some area was not served as it should be since slots last moved.
    let mut is_unwell = false;
    loop {
        let now = areas.borrow_and_update().clone();
        for (area, _) in now.present() {
            if judged.insert(area) {
                // Those of the beginning are as they were found then.
                let (first, is_new) = (if is_begun { First::Redis } else { first.clone() }, is_begun);
                core.set_mode(area, Some(Mode::at(&first)));
                let areas = areas.clone();
                judges.push(async move {
                    judge(area, first, is_new).run(areas).await;
                    area
                });
            }
        }
        // Before anybody has said who they are, one stands for all.
        is_begun |= now.present().any(|(_, part)| !part.name.is_empty());
        is_unwell |= !core.is_well();
        if std::mem::replace(&mut moves, now.moves) != now.moves {
            core.lock().queue.rearrange(|channel| core.area_of(channel));
            if std::mem::take(&mut is_unwell) {
                // What went on alone in one area may be in another now.
                core.look_at_all();
            }
        }
        announcer.announce();
        tokio::select! {
            biased;
            Some(area) = judges.next(), if !judges.is_empty() => {
                if areas.has_changed().is_err() {
                    return;
                }
                judged.remove(&area);
                is_unwell |= !core.is_well();
                core.set_mode(area, None);
                core.lock().queue.await_none(area);
            }
            changed = areas.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Feeds the state machine of an area and does what it says.
struct Judge<'a> {
    failover: Failover,
    area: Area,
    /// It has come to the others, and is not connected yet.
    is_new: bool,
    core: Arc<Core>,
    announcer: &'a Announcer,
    /// It was found to have lost data, and not all channels have been looked at since.
    lost_data: bool,
}

impl Judge<'_> {
    /// Runs until the area is no more.
    async fn run(mut self, mut areas: watch::Receiver<Areas>) {
        let (core, area) = (Arc::clone(&self.core), self.area);
        let now = |areas: &mut watch::Receiver<Areas>| -> Option<LinkHealth> {
            areas.borrow_and_update().part(area).map(|part| part.health.clone())
        };
        let Some(mut known) = now(&mut areas) else { return };
        while self.is_new && known.lost.as_ref().is_some_and(|lost| lost.code == "connecting") {
            // Calls wait for the connection; whether it can be made is not known yet.
            if areas.changed().await.is_err() {
                return;
            }
            let Some(health) = now(&mut areas) else { return };
            known = health;
        }
        match known.lost.clone() {
            None => self.take(Signal::LinkUp),
            Some(lost) => self.take(Signal::LinkDown(lost)),
        }
        let beat_now = core.beat_now(self.area);
        let mut beat: Option<BoxFuture<'_, Result<Beat, Lost>>> = None;
        let mut beat_at = Instant::now();
        loop {
            let far = Instant::now() + Duration::from_secs(3_600);
            let tick = self.failover.next_tick().unwrap_or(far);
            let is_recovering = self.failover.state() == BackendState::Recovering;
            tokio::select! {
                biased;
                () = until(&core.in_order, || core.is_area_in_order(area)), if is_recovering => {
                    self.take(Signal::Rejoined);
                }
                changed = areas.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Some(health) = now(&mut areas) else { return };
                    if health == known {
                        continue;
                    }
                    if health.losses > known.losses || !health.is_up() {
                        let lost = health.lost.clone().unwrap_or_else(|| Lost {
                            code: "unreachable",
                            reason: "a connection was lost".to_owned(),
                        });
                        self.take(Signal::LinkDown(lost));
                        beat = None;
                    }
                    known = health;
                    if known.is_up() {
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
                        Err(lost) => self.take(Signal::BeatFailed(lost)),
                    }
                }
                () = time::sleep_until(beat_at), if beat.is_none() && known.is_up() => {
                    beat_at = Instant::now() + BEAT_EVERY;
                    let (core, sent) = (&core, Instant::now());
                    let beating = async move {
                        let answer = core.primary.beat(area, core.node).await?;
                        observe(&core.stats.redis_round_trip, sent.elapsed());
                        Ok(answer)
                    };
                    beat = Some(beating.boxed());
                }
                () = beat_now.notified(), if beat.is_none() => beat_at = Instant::now(),
                () = time::sleep_until(tick) => self.take(Signal::Tick),
            }
        }
    }

    fn take(&mut self, signal: Signal) {
        let now = Instant::now();
        // It is told once, and most often before it is time to recover.
        self.lost_data |= matches!(signal, Signal::DataLost(_));
        let before = self.failover.state();
        let step = self.failover.on(signal, now);
        match step {
            Step::Stay => {}
            Step::StartRecovery | Step::Reconcile => self.begin_recovery(),
            Step::Degrade | Step::AbortRecovery | Step::Recovered => {}
        }
        let state = self.failover.state();
        let lost = self.failover.reason().cloned();
        let mode = Mode { state, alone: self.failover.is_alone(), lost };
        if mode.is_primary() && !self.core.is_primary(self.area) {
            self.core.jobs.primary_is_back();
        }
        self.core.set_mode(self.area, Some(mode));
        self.announcer.announce();
        if self.failover.is_alone() || state == before {
            return;
        }
        let (code, reason) = self.failover.reason().map_or(("ok", ""), |lost| (lost.code, &*lost.reason));
        let server = self.core.name_of(self.area);
        match state {
            BackendState::Degraded => {
                tracing::warn!(server, code, reason, "redis does not serve; going on in memory");
            }
            BackendState::Recovering => {
                let channels = self.core.lock().queue.awaited(self.area);
                tracing::info!(server, channels, "redis answers again; putting channels in order");
            }
            BackendState::Healthy => {
                let away_ms = u64::try_from((now - self.failover.lost_at()).as_millis()).unwrap_or(u64::MAX);
                tracing::info!(server, away_ms, "redis serves again, and everything is in order");
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
        let since = self.failover.lost_at().checked_sub(JUST_BEFORE);
        self.core.look_at(Some(self.area), |line| {
            let is_recent = || since.is_none_or(|since| line.used >= since);
            line.is_forked() || line.is_followed() || (line.log().is_some() && (lost_data || is_recent()))
        });
    }
}

/// Says how the storage serves, all areas together.
struct Announcer {
    core: Arc<Core>,
    status: Arc<StatusWriter>,
    well: String,
}

impl Announcer {
    fn announce(&self) {
        let core = &self.core;
        let modes = core.modes.borrow().clone();
        if modes.alone() {
            return;
        }
        let is_any = |state| modes.present().any(|mode| mode.state == state);
        let state = match () {
            () if is_any(BackendState::Degraded) => BackendState::Degraded,
            () if is_any(BackendState::Recovering) => BackendState::Recovering,
            () => BackendState::Healthy,
        };
        let of = modes.present().count();
        let concerned: Vec<Area> = (0..)
            .zip(&modes.0)
            .filter(|(_, mode)| mode.as_ref().is_some_and(|mode| mode.state != BackendState::Healthy))
            .map(|(number, _)| Area::new(number))
            .collect();
        let scope = if concerned.is_empty() || concerned.len() == of {
            Scope::All
        } else {
            Scope::Some(core.primary.channels_of(&concerned))
        };
        let lost = modes.present().find(|mode| mode.state == state).and_then(|mode| mode.lost.as_ref());
        let (code, reason) = match lost {
            Some(lost) if of > 1 => {
                let count = concerned.len();
                (lost.code, format!("{count} of {of} primaries of the cluster: {}", lost.reason))
            }
            Some(lost) => (lost.code, lost.reason.clone()),
            None => ("ok", self.well.clone()),
        };
        let away = modes.present().filter(|mode| mode.state == BackendState::Degraded).count();
        self.status.set(Served {
            backend: core.serving(),
            state,
            reason_code: code,
            reason,
            scope,
            primaries: of,
            primaries_away: away,
            toll: core.toll(),
        });
    }
}

/// What is kept to be put back is bounded in all: that of the channels that rest longest goes first.
fn bound_tails(lines: &mut HashMap<ChannelName, Line, Hashing>, bytes_max: usize) {
    let mut total: usize = lines.values().map(Line::kept_bytes).sum();
    if total <= bytes_max {
        return;
    }
    let mut resting: Vec<(Instant, ChannelName)> =
        lines.iter().map(|(name, line)| (line.used, name.clone())).collect();
    resting.sort_unstable();
    for (_, name) in resting {
        if total <= bytes_max {
            return;
        }
        if let Some(line) = lines.get_mut(&name) {
            total -= line.kept_bytes();
            line.keep_nothing();
        }
    }
}

impl Core {
    fn set_mode(&self, area: Area, mode: Option<Mode>) {
        self.modes.send_if_modified(|Modes(held)| {
            if held.len() <= area.index() {
                held.resize(area.index() + 1, None);
            }
            let changed = held[area.index()] != mode;
            held[area.index()] = mode;
            changed
        });
        self.away.notify_waiters();
    }

    /// Whether all areas are healthy.
    fn is_well(&self) -> bool {
        self.modes.borrow().present().all(|mode| mode.state == BackendState::Healthy)
    }

    /// The server of an area, for the log; nothing where there is one only.
    fn name_of(&self, area: Area) -> Option<String> {
        let areas = self.primary.areas();
        let name = areas.borrow().part(area)?.name.clone();
        (!name.is_empty()).then_some(name)
    }

    /// Has those lines looked at for which it is time, of an area or of all; a recovery of the area waits
    /// for them.
    fn look_at(&self, area: Option<Area>, is_due: impl Fn(&Line) -> bool) {
        let is_one = self.modes.borrow().present().count() < 2;
        let is_in = |name: &ChannelName| area.is_none_or(|area| is_one || self.area_of(name) == area);
        let mut state = self.lock();
        let lines = state.lines.iter().filter(|(name, line)| is_due(line) && is_in(name));
        let due: Vec<ChannelName> = lines.map(|(name, _)| name.clone()).collect();
        due.iter().for_each(|name| state.queue.look_anew(name, |name| self.area_of(name)));
        if let Some(area) = area {
            state.queue.await_all(area);
        }
        drop(state);
        self.work.notify_one();
    }

    /// The same of all that is known of any log.
    fn look_at_all(&self) {
        self.look_at(None, |line| line.is_forked() || line.is_followed() || line.log().is_some());
    }

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
        if !self.has_log(channel) {
            // Nothing is known of what came before it: it is read when the channel is put in order.
            return None;
        }
        let mut state = self.lock();
        let is_in_doubt = state.is_in_doubt(channel);
        let Some(line) = state.lines.get_mut(channel) else { return Some(event) };
        let is_of_log = line.is_of(epoch);
        if is_of_log && line.contradicts(entries) {
            self.doubt(&mut state, channel);
            return None;
        }
        if line.is_forked() || (is_of_log && is_in_doubt) {
            // Read when the fork is closed, or when the log has been looked at.
            return None;
        }
        if is_of_log {
            // What comes late of what is before the newest one seen cannot be told from what has taken its place
            // in a log that was set back.
            let top = self.memory.top(channel).unwrap_or(0);
            let known = entries.iter().take_while(|entry| entry.offset <= top).count();
            line.mirror(&entries[known..]);
            self.mind_hole(&mut state, channel);
            return Some(event);
        }
        if line.log().is_none() {
            line.hear(epoch, entries);
            return Some(event);
        }
        self.doubt(&mut state, channel);
        None
    }

    /// Lets go of what is no longer needed.
    async fn tidy(&self) {
        loop {
            time::sleep(TIDY_EVERY).await;
            let now = Instant::now();
            let gone = self.lock().journal.expire(now);
            if let Some(spool) = &self.spool {
                self.forget(spool, gone);
            }
            let mut state = self.lock();
            let is_many = state.lines.len() > LINES_MAX;
            let super::State { lines, journal, queue, set_aside, holes, .. } = &mut *state;
            lines.retain(|name, line| {
                let kept = if is_many { TIDY_EVERY } else { ChannelPolicy::of(name).remembered_for };
                let is_fresh = now.duration_since(line.used) < kept;
                if is_fresh || line.is_followed() || !journal.is_empty(name) {
                    return true;
                }
                // A fork whose entries have all grown too old has nothing to be put in order.
                let is_empty = line.is_forked() && self.memory.mirrored(name).is_none();
                if is_empty {
                    queue.remove(name);
                    set_aside.remove(name);
                }
                !is_empty && (line.is_needed() || queue.contains(name))
            });
            holes.retain(|name, _| lines.contains_key(name));
            lines.values_mut().for_each(Line::expire_tail);
            bound_tails(lines, self.memory.put_back_bytes_max());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{DraftEntry, NodeId};
    use crate::storage::{Append, MemoryBackend, MemoryConfig, Retention};

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_to_be_put_back_is_bounded_in_all() {
        let data = Bytes::from(vec![b'x'; 1 << 20]);
        let (memory, _) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        let mut lines = HashMap::default();
        let max: usize = 50 << 20;
        let count = (max >> 20) + 20;
        for n in 0..count {
            let name: ChannelName = format!("zone:{n:04}").parse().unwrap();
            let mut line = Line::new(name.clone(), NodeId::random(), memory.clone(), Instant::now());
            line.tail.keep(Append {
                seq: 1,
                prev: 0,
                draft: DraftEntry::price(0, data.clone()),
                fence: None,
            });
            lines.insert(name, line);
            time::advance(Duration::from_millis(1)).await;
        }
        bound_tails(&mut lines, max);
        assert!(lines.values().map(|line| line.tail.bytes()).sum::<usize>() <= max);
        let mut gone: Vec<&ChannelName> =
            lines.iter().filter(|(_, line)| line.tail.bytes() == 0).map(|(name, _)| name).collect();
        gone.sort_unstable();
        assert!((20..25).contains(&gone.len()), "{}", gone.len());
        assert_eq!(gone[gone.len() - 1].as_str(), format!("zone:{:04}", gone.len() - 1), "the oldest went");
    }
}
