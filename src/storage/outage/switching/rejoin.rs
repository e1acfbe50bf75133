//! Brings a channel back in step with the log: follow it, see what became of it, send what it lacks,
//! read what others wrote, and close the fork at a moment at which nothing waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{self, Instant};

use super::line::{Forked, Known, Line, Rejoined};
use super::send::{Address, BATCH};
use super::tail::TAIL_MAX;
use super::{Core, HOLE_WITHIN};
use crate::model::{ChannelName, ChannelPolicy, Entry, Epoch, NodeId, Position, new_epoch};
use crate::storage::primary::{Area, Place};
use crate::storage::{Anchor, Append, LogEvent, OpenLog, Result, StorageError};
use crate::support::backoff::STORAGE_RETRY;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// A fork is not closed earlier than this after it opened.
pub(super) const NOT_BEFORE: Duration = Duration::from_millis(200);

/// Channels that are put in order at the same time: enough to hide the round trips, few enough that
/// live appends are not held up by them.
const AT_ONCE: usize = 8;

/// Entries in one read.
const PAGE: usize = 1_000;

/// How often a channel that keeps changing is begun anew before it is left for a while.
const ROUNDS_MAX: usize = 16;

/// After so many failures in a row, which take some 10 s, what cannot be brought to the primary is set
/// aside: no recovery waits for it any more.
pub(super) const SET_ASIDE_AFTER: u32 = 15;

/// How often a channel that is set aside is tried again.
const SET_ASIDE_RETRY: Duration = Duration::from_secs(10);

/// After so many looks at the journal that found something new, appends wait for the fork to close.
const CLOSING_AFTER: u32 = 8;

/// How a try ended.
enum Tried {
    /// It is in order, or there is nothing to be in step with.
    Done,
    /// It is not, and is to be tried again then.
    Later(Instant),
    Failed(StorageError),
}

/// When a channel is to be tried again, and how often that failed.
#[derive(Debug, Clone, Copy)]
struct Delay {
    until: Instant,
    failures: u32,
}

impl Core {
    /// Puts channels in order, whenever there are some and the primary serves. Never ends.
    pub(super) async fn put_in_order(&self) {
        let mut under_way = FuturesUnordered::new();
        let mut working: BTreeSet<ChannelName> = BTreeSet::new();
        // Those that failed, or whose time has not come: they hold up no others.
        let mut delays: BTreeMap<ChannelName, Delay> = BTreeMap::new();
        loop {
            let now = Instant::now();
            let next_hole = self.look_at_holes(now);
            let modes = self.modes.borrow().clone();
            if modes.is_any_primary() {
                let waiting: Vec<ChannelName> = {
                    let state = self.lock();
                    delays.retain(|name, _| state.queue.contains(name));
                    let is_due = |name: &ChannelName| delays.get(name).is_none_or(|delay| delay.until <= now);
                    let is_free = |name: &&ChannelName| {
                        !working.contains(*name) && is_due(name) && !state.behind.contains_key(*name)
                    };
                    let free = state.queue.within(|area| modes.is_primary(area)).filter(is_free);
                    free.take(AT_ONCE.saturating_sub(working.len())).cloned().collect()
                };
                for channel in waiting {
                    working.insert(channel.clone());
                    under_way.push(self.try_in_order(channel));
                }
            }
            let later = delays.iter().filter(|(name, delay)| !working.contains(*name) && delay.until > now);
            let later = later.map(|(_, delay)| delay.until).chain(next_hole).min();
            let more = self.work.notified();
            tokio::select! {
                biased;
                Some((channel, tried)) = under_way.next() => {
                    working.remove(&channel);
                    let failures = delays.remove(&channel).map_or(0, |delay| delay.failures);
                    if let Some(delay) = self.delay(&channel, tried, failures) {
                        delays.insert(channel, delay);
                    }
                }
                () = more => {}
                () = async { time::sleep_until(later.unwrap_or(now)).await }, if later.is_some() => {}
            }
        }
    }

    /// Has channels put in order of whose log an entry does not come by itself. Answers when the next
    /// one is to be looked at.
    fn look_at_holes(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        let super::State { lines, holes, .. } = &mut *state;
        let mut stuck = Vec::new();
        holes.retain(|channel, (at, before)| {
            if *at > now {
                return true;
            }
            let hole = lines.get(channel).and_then(Line::hole);
            match hole {
                None => false,
                Some(after) if after > *before => {
                    (*at, *before) = (now + HOLE_WITHIN, after);
                    true
                }
                Some(_) => {
                    stuck.push(channel.clone());
                    false
                }
            }
        });
        let next = holes.values().map(|(at, _)| *at).min();
        stuck.iter().for_each(|channel| self.doubt(&mut state, channel));
        next
    }

    /// When a channel is to be tried again; `None` where it needs not.
    fn delay(&self, channel: &ChannelName, tried: Tried, failures: u32) -> Option<Delay> {
        match tried {
            Tried::Done => None,
            Tried::Later(until) => Some(Delay { until, failures }),
            Tried::Failed(error) => {
                let failures = failures + 1;
                self.stats.rejoin_retries.add(1);
                self.beat_now(self.area_of(channel)).notify_one();
                tracing::debug!(channel = %channel, error = %error, failures, "the channel cannot be put in order yet");
                let wait = if failures < SET_ASIDE_AFTER {
                    STORAGE_RETRY.wait(failures)
                } else {
                    self.set_aside(channel, &error);
                    SET_ASIDE_RETRY
                };
                Some(Delay { until: Instant::now() + wait, failures })
            }
        }
    }

    /// A channel cannot be put in order while its area serves: it goes on by itself, is tried again now and
    /// then, and keeps nothing else from being well.
    pub(super) fn set_aside(&self, channel: &ChannelName, error: &StorageError) {
        let why = error.with_causes();
        {
            let mut state = self.lock();
            state.queue.set_aside(channel);
            if state.set_aside.insert(channel.clone(), why.clone()).is_none() {
                tracing::error!(%channel, error = why, "the channel cannot be put in order, and is set aside");
            }
        }
        self.in_order.notify_waiters();
    }

    /// Whether nothing is left to be put in order, where the primary is one.
    #[cfg(test)]
    pub(super) fn is_in_order(&self) -> bool {
        self.is_area_in_order(Area::ONLY)
    }

    /// Whether nothing is left to be put in order of what is in an area.
    pub(super) fn is_area_in_order(&self, area: Area) -> bool {
        let is_recorded = self.primary.area_of(Place::Jobs) != area || self.jobs.are_recorded();
        is_recorded
            && self.lock().queue.awaited(area) == 0
            && self.has_written_records(area)
            && self.has_sent_formers(area)
    }

    /// Whether the log has all that former lives left for an area, but for channels that were set aside.
    fn has_sent_formers(&self, area: Area) -> bool {
        let left: Vec<ChannelName> = {
            let formers = self.formers.lock();
            let channels = formers.iter().map(|former| &former.channel);
            channels.filter(|channel| self.area_of(channel) == area).cloned().collect()
        };
        left.is_empty() || {
            let state = self.lock();
            left.iter().all(|channel| state.set_aside.contains_key(channel))
        }
    }

    /// Tries once, unless the primary is away.
    async fn try_in_order(&self, channel: ChannelName) -> (ChannelName, Tried) {
        let tried = tokio::select! {
            biased;
            () = self.until_away(self.area_of(&channel)) => Tried::Done,
            tried = self.rejoin(&channel) => tried,
        };
        if let Some(line) = self.lock().lines.get_mut(&channel) {
            line.set_closing(false);
        }
        self.in_order.notify_waiters();
        (channel, tried)
    }

    async fn rejoin(&self, channel: &ChannelName) -> Tried {
        let not_before = {
            let state = self.lock();
            let fork = state.lines.get(channel).and_then(Line::fork);
            fork.map(|fork| fork.rejoin_at).filter(|at| *at > Instant::now())
        };
        if let Some(at) = not_before {
            return Tried::Later(at);
        }
        for _ in 0..ROUNDS_MAX {
            match self.try_rejoin(channel).await {
                Ok(true) => return Tried::Done,
                // It changed while it was looked at.
                Ok(false) => {}
                Err(error) => return Tried::Failed(error),
            }
        }
        Tried::Failed(super::log::restless("rejoin"))
    }

    /// One look at the log and what follows from it; false when it has to begin anew.
    async fn try_rejoin(&self, channel: &ChannelName) -> Result<bool> {
        let followed = self.lock().lines.get(channel).is_some_and(Line::is_followed);
        if followed {
            self.primary.follow(channel).await?;
        }
        let Some((known, turn)) = self.known(channel) else {
            if followed {
                self.unfollow_if_left(channel).await;
            }
            return Ok(self.let_go(channel));
        };
        let found = match self.primary.examine(channel, self.node, known.at()).await? {
            Some(found) => found,
            None if self.stays_unborn(channel, followed) => {
                if followed {
                    self.unfollow_if_left(channel).await;
                }
                return Ok(true);
            }
            None => self.primary.open(channel, self.node, &new_epoch()).await?,
        };
        let Some(plan) = self.plan(channel, &known, &found) else { return Ok(false) };
        if plan.is_older {
            tracing::warn!(
                channel = %channel, top = found.top, seen = known.highest, last_seq = found.last_seq, acked = known.acked,
                "the log was set back; beginning a new epoch"
            );
            self.primary.renew_epoch(channel, &found.epoch, &new_epoch()).await?;
            return Ok(false);
        }
        #[cfg(test)]
        let plan = if mutant::is(Mutant::TailNotPutBack) {
            Plan { tail: Vec::new(), given: BTreeMap::new(), ..plan }
        } else {
            plan
        };
        let to = Address { channel, epoch: &found.epoch, producer: self.node };
        let put_back = self.send(to, &plan.tail, found.last_seq, &self.stats.put_back).await?;
        let Some(mut last) = put_back else { return Ok(false) };
        for (producer, entries) in &plan.given {
            let to = Address { producer: *producer, ..to };
            let had = newest_of(&found, *producer);
            if self.send(to, entries, had, &self.stats.put_back).await?.is_none() {
                return Ok(false);
            }
        }
        let mut read = Read { top: plan.base - u64::from(plan.before.is_some()), entries: Vec::new() };
        let mut looks = 0;
        loop {
            looks += 1;
            if looks == CLOSING_AFTER
                && let Some(line) = self.lock().lines.get_mut(channel)
            {
                // It is published to faster than it can be closed.
                line.set_closing(true);
            }
            // It keeps what is sent until the channel is in order: the log may lose it before.
            let fresh = {
                let mut state = self.lock();
                state.journal.are_in_log(channel, last);
                state.journal.after(channel, last, BATCH)
            };
            if !fresh.is_empty() {
                let sent = self.send(to, &fresh, last, &self.stats.replayed).await?;
                let Some(newest) = sent else { return Ok(false) };
                // What was refused waits no longer.
                last = newest;
                continue;
            }
            if !followed && self.lock().lines.get(channel).is_some_and(Line::is_followed) {
                // By now somebody here wants all of it.
                return Ok(false);
            }
            if !self.read_on(channel, &found.epoch, followed, &mut read).await? {
                return Ok(false);
            }
            if plan.is_contradicted_by(&read.entries) {
                if let Some(line) = self.lock().lines.get_mut(channel) {
                    line.contradicted();
                }
                return Ok(false);
            }
            if self.lock().queue.turn(channel) > turn {
                // What was found may be over.
                return Ok(false);
            }
            if self.close(channel, &found, &plan, last, &mut read, (followed, turn)) {
                if let Some(spool) = &self.spool {
                    spool.acknowledged(self.node, channel, last);
                }
                if followed {
                    self.unfollow_if_left(channel).await;
                }
                return Ok(true);
            }
        }
    }

    /// What is known of the log, before it is asked, and the channel's turn; `None` where the channel is not known any more.
    fn known(&self, channel: &ChannelName) -> Option<(Known, u64)> {
        let state = self.lock();
        Some((state.lines.get(channel)?.known(), state.queue.turn(channel)))
    }

    /// The log has no life: whether the channel is in order for that, because nothing is to be appended.
    fn stays_unborn(&self, channel: &ChannelName, followed: bool) -> bool {
        {
            let mut state = self.lock();
            let is_blank = state.lines.get(channel).is_some_and(Line::is_blank);
            if !is_blank || !state.journal.is_empty(channel) {
                return false;
            }
            if let Some(line) = state.lines.get_mut(channel) {
                if line.is_followed() && !followed {
                    return false;
                }
                line.stays_unborn();
            }
            state.forget_if_blank(channel);
            state.is_in_order(channel);
        }
        self.in_order.notify_waiters();
        self.tell(LogEvent::Changed(channel.clone()));
        true
    }

    /// What is to be done about the log as it was found; `None` when the line changed meanwhile.
    fn plan(&self, channel: &ChannelName, known: &Known, found: &OpenLog) -> Option<Plan> {
        let log = &known.log;
        let mut state = self.lock();
        let line = state.lines.get_mut(channel)?;
        if line.log() != log.as_ref() {
            return None;
        }
        line.expire_tail();
        let is_same = log.as_ref() == Some(&found.epoch);
        if is_same {
            #[cfg(test)]
            if mutant::is(Mutant::ForgottenIsLost) && self.has_forgotten(channel, found) {
                return Some(Plan { is_older: true, ..Plan::default() });
            }
            // Of what has ids of its own nothing is appended while the channel waits for this.
            let lacks_given = !line.given.after(|producer| newest_of(found, producer)).is_empty();
            if line.is_set_back(found, known) || lacks_given {
                return Some(Plan { is_older: true, ..Plan::default() });
            }
            let base = line.fork().map(Forked::base);
            let mirrored = self.memory.mirrored(channel).map_or(found.top, |mirrored| mirrored.top);
            let base = base.unwrap_or(mirrored);
            // What follows is read with the entry before it: another one may be in its place, and what was
            // seen since behind that.
            let before = line.seen_at(base);
            #[cfg(test)]
            let before = before.filter(|_| !mutant::is(Mutant::RejoinWithoutEntryBefore));
            return Some(Plan { base, before, ..Plan::default() });
        }
        let line = state.lines.get(channel)?;
        // Of a channel of which nothing was known the copy begins where the log is now, unless nobody else has
        // been there (this node may have, in a try that broke off); or with all of it, where that is wanted,
        // and of a log that had no life.
        let others =
            found.top > found.last_seq || found.producers.iter().any(|(producer, _)| *producer != self.node);
        let is_wanted_whole = ChannelPolicy::of(channel).is_wanted_whole || line.has_had_nothing();
        let joins = log.is_none() && !is_wanted_whole && others;
        let base = if joins { found.top } else { 0 };
        let skips = joins && found.top > 0;
        let tail = if log.is_none() {
            let journaled = state.journal.front(channel, 1).first().map_or(u64::MAX, |append| append.seq);
            self.own_entries(channel, found.last_seq, journaled)
        } else {
            line.tail.after(found.last_seq)
        };
        // Where nothing is young enough to be kept, it has merely expired.
        let end = line.fork().map_or(u64::MAX, Forked::base);
        let end = end.min(self.memory.mirrored(channel).map_or(0, |mirrored| mirrored.top));
        let is_young = !self.memory.last_ids(channel, end, 1).is_empty();
        #[cfg(test)]
        let is_young = is_young || mutant::is(Mutant::ExpiredIsLost);
        let loses = log.is_some() && is_young;
        let given = line.given.after(|producer| newest_of(found, producer));
        Some(Plan { is_older: false, base, before: None, skips, tail, given, loses })
    }

    /// Whether the log does not know what was seen of some producer.
    #[cfg(test)]
    fn has_forgotten(&self, channel: &ChannelName, found: &OpenLog) -> bool {
        let knows =
            |(node, seq): &(_, u64)| found.producers.iter().any(|(known, held)| known == node && held >= seq);
        self.memory.producers(channel).iter().any(|producer| !knows(producer))
    }

    /// What this node appended while it had no journal.
    fn own_entries(&self, channel: &ChannelName, after_seq: u64, before_seq: u64) -> Vec<Append> {
        let kept = self.memory.read_now(channel, None, usize::MAX).entries;
        let own = kept.into_iter().filter(|entry| {
            entry.id.producer == self.node && entry.id.seq > after_seq && entry.id.seq < before_seq
        });
        own.map(|entry| Append { seq: entry.id.seq, prev: 0, draft: entry.draft, fence: None }).collect()
    }

    /// Takes back that the channel is followed, if its last reader left while it was put in order.
    async fn unfollow_if_left(&self, channel: &ChannelName) {
        let is_followed = || self.lock().lines.get(channel).is_some_and(Line::is_followed);
        if is_followed() {
            return;
        }
        if let Err(error) = self.primary.unfollow(channel).await {
            // What comes all the same is let go of.
            tracing::debug!(%channel, %error, "the channel cannot be unfollowed");
        }
        let mut state = self.lock();
        if let Some(line) = state.lines.get_mut(channel).filter(|line| line.is_followed()) {
            // Whoever came meanwhile may have been unfollowed too.
            line.set_confirmed(false);
            self.doubt(&mut state, channel);
        }
    }

    /// Reads the log to its end, for the mirror; false when it is another one by now.
    async fn read_on(
        &self,
        channel: &ChannelName,
        epoch: &Epoch,
        followed: bool,
        read: &mut Read,
    ) -> Result<bool> {
        loop {
            let after = Position { epoch: epoch.clone(), offset: read.top };
            let limit = if followed { PAGE } else { 0 };
            let page = self.primary.read_after(channel, Some(&after), limit).await?;
            if page.epoch.as_ref() != Some(epoch) || page.top < read.top {
                return Ok(false);
            }
            if !followed {
                read.top = page.top;
                return Ok(true);
            }
            if page.first > read.top + 1 {
                read.entries.clear();
            }
            read.top = page.entries.last().map_or(page.top, |last| last.offset);
            read.entries.extend(page.entries);
            if read.top >= page.top {
                return Ok(true);
            }
        }
    }

    /// Closes the fork, unless something was accepted since the journal was looked at.
    fn close(
        &self,
        channel: &ChannelName,
        found: &OpenLog,
        plan: &Plan,
        last: u64,
        read: &mut Read,
        (followed, turn): (bool, u64),
    ) -> bool {
        {
            let mut state = self.lock();
            let is_over = state.queue.turn(channel) > turn;
            if is_over || !state.journal.after(channel, last, 1).is_empty() {
                return false;
            }
            let mut kept = plan.tail.clone();
            kept.extend(state.journal.newest(channel, TAIL_MAX));
            let Some(line) = state.lines.get_mut(channel) else {
                state.is_in_order(channel);
                return true;
            };
            if line.is_followed() && !followed {
                return false;
            }
            if plan.loses {
                self.stats.lost_logs.add(1);
            }
            if line.is_forked() {
                self.stats.rejoins.add(1);
            }
            let to = Rejoined {
                epoch: found.epoch.clone(),
                base: plan.base,
                top: read.top,
                acked: last,
                producers: if plan.base == 0 { vec![(self.node, last)] } else { found.producers.clone() },
                anchor: found.anchor,
                #[cfg(test)]
                read: if mutant::is(Mutant::RejoinWithoutReading) {
                    Vec::new()
                } else {
                    std::mem::take(&mut read.entries)
                },
                #[cfg(not(test))]
                read: std::mem::take(&mut read.entries),
                kept,
                skips: plan.skips,
            };
            line.rejoin(to);
            state.journal.acknowledged(channel, last);
            state.is_in_order(channel);
        }
        self.in_order.notify_waiters();
        self.tell(LogEvent::Changed(channel.clone()));
        true
    }

    /// A channel that nobody knows any more is in order.
    fn let_go(&self, channel: &ChannelName) -> bool {
        self.lock().is_in_order(channel);
        true
    }

    /// Tells whoever reads `incoming`; never waits for one who does not keep up.
    pub(super) fn tell(&self, event: LogEvent) {
        if self.events.try_send(event).is_err() {
            self.overrun.notify_one();
        }
    }
}

/// What is to be done about the log.
#[derive(Debug, Default)]
struct Plan {
    /// It was set back, and is in the same epoch.
    is_older: bool,
    /// Where readers go on.
    base: u64,
    /// The entry there, where it is known.
    before: Option<Anchor>,
    /// There is something before it that readers who go on there have not had.
    skips: bool,
    /// Own entries that it had, or never heard of.
    tail: Vec<Append>,
    /// By producer, entries that it had, and that have ids of their own.
    given: BTreeMap<NodeId, Vec<Append>>,
    /// It is in place of one that had entries which it should have yet.
    loses: bool,
}

/// The newest sequence that a log has of a producer, of which entries may come again.
fn newest_of(found: &OpenLog, producer: NodeId) -> u64 {
    found.producers.iter().find(|(known, _)| *known == producer).map_or(0, |(_, seq)| *seq)
}

impl Plan {
    /// Whether the log has another entry where readers go on than is known.
    fn is_contradicted_by(&self, entries: &[Entry]) -> bool {
        let at = |offset| entries.iter().find(|entry| entry.offset == offset);
        self.before.is_some_and(|before| at(before.offset).is_some_and(|entry| entry.id != before.id))
    }
}

#[derive(Debug)]
struct Read {
    top: u64,
    entries: Vec<Entry>,
}
