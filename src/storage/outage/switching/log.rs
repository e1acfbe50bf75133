//! The log role.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};

use super::line::{Known, Line};
use super::{Core, State, Switching};
use crate::model::{ChannelName, Epoch, Lane, NodeId, Position, new_epoch};
use crate::storage::outage::journal::{Gone, Reserved};
use crate::storage::outage::spool::{Spool, SpoolError};
use crate::storage::{
    Anchor, Append, AppendAnswer, AppendBatch, Appended, LatestOf, LatestPage, Log, LogEvent, LogState,
    OpenLog, Page, PageLimit, Result, StorageError,
};

/// The part that a new measurement has in the smoothed time of an append.
const NEWEST_PART: u32 = 8;

/// An append is late when it takes so many times as long as usual, if that is more than the deadline.
const LATE_FACTOR: u32 = 4;

/// How long an append waits for a fork that is about to be closed: so long, or where appends take
/// longer, as long as a look at the log may take, up to the most.
const CLOSED_WITHIN: Duration = Duration::from_millis(100);
const CLOSED_WITHIN_MAX: Duration = Duration::from_secs(1);

/// Which way a batch goes.
enum Way {
    /// Nothing is known of the channel here.
    Unknown,
    /// The caller must take up another life first.
    Foreign(Option<Epoch>),
    /// To the log, which goes at least to `highest`; it is late after so long.
    Log { highest: u64, late_after: Duration },
    /// It stays here; in a moment maybe no longer.
    Here { closing: bool },
}

#[async_trait]
impl Log for Switching {
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        let core = &self.core;
        loop {
            let area = core.area_of(channel);
            {
                let state = core.lock();
                let line = state.lines.get(channel);
                let is_here = line.is_some_and(Line::is_forked) || !core.is_primary(area);
                if is_here {
                    let epoch = line.and_then(|line| line.epoch().cloned());
                    let top = core.memory.mirrored(channel).map_or(0, |mirrored| mirrored.top);
                    let last_seq = if producer == core.node {
                        line.map_or(0, Line::newest)
                    } else {
                        core.memory.last_seq(channel, producer)
                    };
                    return Ok(LogState { epoch, top, last_seq });
                }
            }
            if let Some(answer) = core.ask(area, core.primary.state(channel, producer)).await {
                return answer;
            }
        }
    }

    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        self.core.find(channel, producer).await
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        let opened = self.core.open_or_find(channel, producer, Some(minted)).await?;
        opened.ok_or_else(|| away("open"))
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let core = &self.core;
        if batch.producer != core.node {
            return core.append_for_another(batch).await;
        }
        match core.way(batch) {
            Way::Unknown => {
                // Not `open`, which would make an epoch.
                let asked = core.primary.state(&batch.channel, core.node);
                match core.ask(core.area_of(&batch.channel), asked).await {
                    Some(Ok(LogState { epoch: Some(epoch), top, last_seq })) => {
                        let producers = vec![(core.node, last_seq)];
                        let log = OpenLog { epoch, top, last_seq, producers, anchor: None };
                        if !core.take_up(&batch.channel, &log, &Known::default()) {
                            return Ok(AppendAnswer::ForeignEpoch(None));
                        }
                        if let Some(line) = core.lock().lines.get_mut(&batch.channel) {
                            line.knows_no_others();
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
                    core.until_closed(&batch.channel).await;
                    if let Way::Foreign(epoch) = core.way(batch) {
                        return Ok(AppendAnswer::ForeignEpoch(epoch));
                    }
                }
                core.append_here(batch).await
            }
            Way::Log { highest, late_after } => core.append_to_log(batch, highest, late_after).await,
        }
    }

    async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        match self.core.may_begin(batch) {
            Ok(known) => self.core.begin_in_log(batch, &known).await,
            // It has begun, or begins here, without the log; opening it tells.
            Err(epoch) => Ok(AppendAnswer::ForeignEpoch(epoch)),
        }
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        self.core.read_within(channel, after, limit).await
    }

    async fn fork_for_readers(&self, channel: &ChannelName) {
        let core = &self.core;
        let is_primary = core.has_log(channel);
        {
            let mut state = core.lock();
            let is_in_log = |line: &Line| line.log().is_some() && !line.is_forked();
            if is_primary || !state.lines.get(channel).is_some_and(is_in_log) {
                return;
            }
            core.fork(&mut state, channel, None, false);
        }
        core.tell(LogEvent::Changed(channel.clone()));
    }

    async fn latest_within(
        &self,
        channel: &ChannelName,
        after: Option<&str>,
        limit: PageLimit,
        of: LatestOf,
    ) -> Result<LatestPage> {
        let core = &self.core;
        let asked = core.primary.latest_within(channel, after, limit, of);
        match core.ask_about_log(channel, asked).await {
            Some(page) => {
                let page = page?;
                core.mirror_latest(channel, &page);
                Ok(page)
            }
            None => Ok(core.latest_here(channel, after, limit, of)),
        }
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        let core = &self.core;
        match core.ask_about_log(channel, core.primary.keys(channel)).await {
            Some(keys) => keys,
            None => core.memory.keys(channel).await,
        }
    }

    async fn follow(&self, channel: &ChannelName) -> Result<()> {
        let core = &self.core;
        {
            let mut state = core.lock();
            if core.line(&mut state, channel).follow() {
                return Ok(());
            }
        }
        let answer = core.ask(core.area_of(channel), core.primary.follow(channel)).await;
        let mut state = core.lock();
        match answer {
            Some(Ok(())) => {
                if let Some(line) = state.lines.get_mut(channel) {
                    line.set_confirmed(true);
                }
                Ok(())
            }
            Some(Err(error)) if !error.is_outage() => Err(error),
            // It is made up for, and the channel is told to look at the log then.
            Some(Err(_)) | None => {
                core.doubt(&mut state, channel);
                Ok(())
            }
        }
    }

    async fn unfollow(&self, channel: &ChannelName) -> Result<()> {
        let core = &self.core;
        {
            let mut state = core.lock();
            if let Some(line) = state.lines.get_mut(channel) {
                line.unfollowed();
            }
            state.forget_if_blank(channel);
        }
        // A recovery may have waited for it.
        core.in_order.notify_waiters();
        // A subscriber that is not connected forgets the channel all the same.
        match core.primary.unfollow(channel).await {
            Err(error) if error.is_outage() => Ok(()),
            answer => answer,
        }
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        self.incoming.lock().take()
    }
}

impl State {
    fn took_so_long(&mut self, time: Duration) {
        self.append_time = (self.append_time * (NEWEST_PART - 1) + time) / NEWEST_PART;
    }
}

impl Core {
    fn is_forked(&self, channel: &ChannelName) -> bool {
        self.lock().lines.get(channel).is_some_and(Line::is_forked)
    }

    /// Takes what was latest in the log, for when it cannot be reached; others wait for the lock meanwhile.
    fn mirror_latest(&self, channel: &ChannelName, page: &LatestPage) {
        const AT_ONCE: usize = 256;
        for entries in page.entries.chunks(AT_ONCE) {
            let state = self.lock();
            let line = state.lines.get(channel);
            // In another life these offsets mean something else.
            let is_another =
                |line: &Line| line.is_forked() || (page.epoch.is_some() && line.log() != page.epoch.as_ref());
            if line.is_some_and(is_another) {
                return;
            }
            self.memory.mirror_latest(channel, entries);
        }
    }

    /// What is latest of what is kept on this node.
    fn latest_here(
        &self,
        channel: &ChannelName,
        after: Option<&str>,
        limit: PageLimit,
        of: LatestOf,
    ) -> LatestPage {
        let mut state = self.lock();
        let line = state.lines.get_mut(channel);
        let has_all = self.is_alone() || line.as_ref().is_some_and(|line| line.has_had_nothing());
        let epoch = line.and_then(|line| {
            line.keep_mirror();
            line.epoch().cloned()
        });
        let page = self.memory.latest_now(channel, after, limit, of);
        LatestPage { epoch, is_copy: !has_all, ..page }
    }

    /// What the log answers, unless it is away or this node goes on without it.
    async fn ask_about_log<T>(
        &self,
        channel: &ChannelName,
        asked: impl Future<Output = Result<T>>,
    ) -> Option<Result<T>> {
        let area = self.area_of(channel);
        if !self.is_primary(area) || self.is_forked(channel) {
            return None;
        }
        self.ask(area, asked).await
    }

    pub(super) async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        self.open_or_find(channel, producer, None).await
    }

    /// Takes up a log as it is now; one that has no epoch begins its life where `minted` says as what.
    async fn open_or_find(
        &self,
        channel: &ChannelName,
        producer: NodeId,
        minted: Option<&Epoch>,
    ) -> Result<Option<OpenLog>> {
        let asked = async |at: u64, minted: Option<&Epoch>| {
            // Where no entry of it is known that is to be looked at, one call does both.
            if let Some(minted) = minted.filter(|_| at == u64::MAX) {
                return self.primary.open(channel, producer, minted).await.map(Some);
            }
            match (self.primary.examine(channel, producer, at).await?, minted) {
                (Some(log), _) => Ok(Some(log)),
                (None, Some(minted)) => self.primary.open(channel, producer, minted).await.map(Some),
                (None, None) => Ok(None),
            }
        };
        if producer != self.node {
            let answer = self.ask(self.area_of(channel), asked(u64::MAX, minted)).await;
            return answer.unwrap_or_else(|| Err(away("open")));
        }
        let mut minted = minted.cloned();
        loop {
            if let Some(open) = self.open_here(channel, minted.is_some()) {
                return Ok(open);
            }
            let known = self.lock().lines.get(channel).map(Line::known).unwrap_or_default();
            let answer = self.ask(self.area_of(channel), asked(known.at(), minted.as_ref())).await;
            // A log that was begun with it may be lost by now: another one is not begun with the same.
            minted = minted.map(|_| new_epoch());
            match answer {
                None => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(None)) if self.has_no_log(channel) => return Ok(None),
                Some(Ok(log)) => {
                    if log.as_ref().is_some_and(|log| self.take_up(channel, log, &known)) {
                        return Ok(log);
                    }
                    self.until_in_order(channel).await;
                    let mut state = self.lock();
                    if state.lines.get(channel).is_some_and(Line::is_suspect) {
                        self.fork(&mut state, channel, None, false);
                    }
                }
            }
        }
    }

    /// The log was found to have no life. False where this node was in step with one, which is then
    /// looked at.
    fn has_no_log(&self, channel: &ChannelName) -> bool {
        let mut state = self.lock();
        let Some(line) = state.lines.get_mut(channel) else { return true };
        if !line.is_forked() && line.log().is_none() {
            line.found_unborn();
            return true;
        }
        if !line.is_forked() {
            self.doubt(&mut state, channel);
        }
        false
    }

    /// How a channel stands that is not to be asked for elsewhere; `Some(None)`: it is in no life, which
    /// is no answer for one that `appends`.
    fn open_here(&self, channel: &ChannelName, appends: bool) -> Option<Option<OpenLog>> {
        let is_primary = self.has_log(channel);
        let mut state = self.lock();
        let line = self.line(&mut state, channel);
        line.used = Instant::now();
        if !line.is_forked() {
            if is_primary {
                return None;
            }
            if line.log().is_none() {
                if line.is_unborn() && !appends {
                    // Nobody can have been told of anything in it.
                    return Some(None);
                }
                self.fork(&mut state, channel, None, false);
            }
        }
        let line = state.lines.get_mut(channel)?;
        line.keep_mirror();
        let top = self.memory.mirrored(channel).map_or(line.highest(), |mirrored| mirrored.top);
        let producers = self.memory.recent_producers(channel);
        let (epoch, last_seq) = (line.epoch()?.clone(), line.newest());
        let anchor = self.memory.last_ids(channel, top, 1).pop().map(|id| Anchor { offset: top, id });
        Some(Some(OpenLog { epoch, top, last_seq, producers, anchor }))
    }

    /// Takes up what the log was found to be; false when it is not what this node was in step with.
    /// `known` is how that was before the log was asked.
    fn take_up(&self, channel: &ChannelName, log: &OpenLog, known: &Known) -> bool {
        let mut state = self.lock();
        let line = self.line(&mut state, channel);
        if line.is_forked() {
            return false;
        }
        line.expire_tail();
        let is_same = line.log().is_none_or(|known| *known == log.epoch);
        if is_same && !line.is_set_back(log, known) && !line.is_suspect() {
            line.opened(log);
            return true;
        }
        self.doubt(&mut state, channel);
        false
    }

    /// Appends that are not this node's own stream: they need the log itself.
    async fn append_for_another(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let (channel, is_given) = (&batch.channel, is_given(batch));
        let highest = {
            let mut state = self.lock();
            let is_held = state.behind.contains_key(channel) || state.is_in_doubt(channel);
            match state.lines.get_mut(channel) {
                Some(line) if line.is_forked() => return Err(away("append")),
                // What the log lost is put back first.
                Some(line) if is_given && (line.is_suspect() || is_held) => return Err(away("append")),
                Some(line) if is_given && line.log().is_some_and(|log| *log != batch.epoch) => {
                    return Ok(AppendAnswer::ForeignEpoch(line.log().cloned()));
                }
                Some(line) => {
                    line.used = Instant::now();
                    line.highest()
                }
                None => 0,
            }
        };
        let answer = self.ask(self.area_of(channel), self.primary.append(batch)).await;
        let answer = answer.unwrap_or_else(|| Err(away("append")))?;
        if is_given { self.gave(batch, answer, highest) } else { Ok(answer) }
    }

    /// The log answered an append of entries that have ids of their own, before which it went at least to
    /// `highest`. They are not taken for appended where that is not certain: repeating it does no harm.
    fn gave(&self, batch: &AppendBatch, answer: AppendAnswer, highest: u64) -> Result<AppendAnswer> {
        let (channel, mut state) = (&batch.channel, self.lock());
        let is_in_doubt = state.is_in_doubt(channel);
        let line = state.lines.get_mut(channel).filter(|line| line.epoch().is_some());
        let Some(line) = line else { return Ok(answer) };
        if is_in_doubt || line.epoch() != Some(&batch.epoch) {
            return Err(away("append"));
        }
        let AppendAnswer::Done(results) = &answer else {
            self.doubt(&mut state, channel);
            return Ok(answer);
        };
        let in_place_of_others =
            |result: &Appended| matches!(*result, Appended::Applied { offset } if offset <= highest);
        if results.iter().any(in_place_of_others) {
            tracing::warn!(%channel, highest, "the log lost entries, and has others in their place");
            line.contradicted();
            self.doubt(&mut state, channel);
            return Err(away("append"));
        }
        line.acknowledged(batch, results);
        if let Some(Appended::Gap { last }) = results.iter().find(|one| matches!(one, Appended::Gap { .. }))
            && line.given.has_after(batch.producer, *last)
        {
            // It lost what this node puts back.
            self.doubt(&mut state, channel);
        }
        self.mind_hole(&mut state, channel);
        Ok(answer)
    }

    fn way(&self, batch: &AppendBatch) -> Way {
        let is_primary = self.has_log(&batch.channel);
        let mut state = self.lock();
        let is_held = state.behind.contains_key(&batch.channel) || state.is_in_doubt(&batch.channel);
        let Some(line) = state.lines.get_mut(&batch.channel) else { return Way::Unknown };
        line.used = Instant::now();
        if line.epoch().is_none() {
            return Way::Unknown;
        }
        if line.epoch() != Some(&batch.epoch) {
            return Way::Foreign(line.epoch().cloned());
        }
        if line.is_forked() {
            return Way::Here { closing: line.is_closing() };
        }
        if is_primary && !line.is_suspect() && !is_held {
            let highest = line.sending(newest_seq(batch));
            return Way::Log { highest, late_after: late_after(self.ordering_deadline, state.append_time) };
        }
        self.fork(&mut state, &batch.channel, first_seq(batch), false);
        Way::Foreign(epoch_of(&state, &batch.channel))
    }

    /// What is known of a log that may be begun with these entries: that it has no life, as far as is known here,
    /// and nothing is to be done about that. Else the life that it is in here.
    fn may_begin(&self, batch: &AppendBatch) -> Result<Known, Option<Epoch>> {
        let channel = &batch.channel;
        let is_primary = self.has_log(channel);
        let mut state = self.lock();
        let is_held = state.behind.contains_key(channel) || state.is_in_doubt(channel);
        let line = self.line(&mut state, channel);
        line.used = Instant::now();
        let is_new = line.epoch().is_none() && !line.is_suspect() && !is_held;
        if !is_new || !is_primary || batch.producer != self.node {
            return Err(line.epoch().cloned());
        }
        line.beginning(&batch.epoch, newest_seq(batch));
        Ok(line.known())
    }

    async fn begin_in_log(&self, batch: &AppendBatch, known: &Known) -> Result<AppendAnswer> {
        let (channel, begun) = (&batch.channel, Instant::now());
        let Some(answer) = self.ask(self.area_of(channel), self.primary.begin(batch)).await else {
            // Should it have taken effect, that is found when the log is back.
            return Ok(AppendAnswer::ForeignEpoch(None));
        };
        let answer = answer?;
        if !matches!(answer, AppendAnswer::Done(_)) {
            return Ok(answer);
        }
        if self.take_up(channel, &OpenLog::begun_as(batch.epoch.clone()), known) {
            return Ok(self.appended(batch, answer, begun.elapsed(), 0));
        }
        // It went on alone meanwhile, or in another life.
        Ok(AppendAnswer::ForeignEpoch(epoch_of(&self.lock(), channel)))
    }

    async fn append_to_log(
        &self,
        batch: &AppendBatch,
        highest: u64,
        late_after: Duration,
    ) -> Result<AppendAnswer> {
        let (lane, area) = ((self.lanes)(&batch.channel), self.area_of(&batch.channel));
        let begun = Instant::now();
        let deadline = match lane {
            Lane::Latest => Some(begun + late_after),
            Lane::Every => None,
        };
        let late = async {
            match deadline {
                Some(deadline) => time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            biased;
            answer = self.primary.append(batch) => answer,
            () = self.until_away(area) => return Ok(self.go_on_alone(batch, false)),
            () = late => {
                // It took at least so long; a storage that is always slow is waited for longer.
                self.took_so_long(begun.elapsed());
                return Ok(self.go_on_alone(batch, true));
            }
        };
        match answer {
            Ok(answer) => Ok(self.appended(batch, answer, begun.elapsed(), highest)),
            Err(error) if !error.is_outage() => Err(error),
            Err(error) if lane == Lane::Latest => {
                tracing::debug!(channel = %batch.channel, error = %error, "an append failed");
                self.beat_now(area).notify_one();
                Ok(self.go_on_alone(batch, false))
            }
            Err(error) => match self.verdict(area, error).await {
                None => Ok(self.go_on_alone(batch, false)),
                Some(error) => Err(error),
            },
        }
    }

    /// Waits a little for a fork that is about to be closed.
    async fn until_closed(&self, channel: &ChannelName) {
        let usual = self.lock().append_time;
        let within = (usual * LATE_FACTOR).clamp(CLOSED_WITHIN, CLOSED_WITHIN_MAX);
        self.until_line(channel, within, |line| !line.is_closing()).await;
    }

    /// Forks the channel; what was under way is appended to the fork next.
    fn go_on_alone(&self, batch: &AppendBatch, late: bool) -> AppendAnswer {
        let mut state = self.lock();
        let is_in_step =
            state.lines.get(&batch.channel).is_some_and(|line| line.epoch() == Some(&batch.epoch));
        if is_in_step {
            self.fork(&mut state, &batch.channel, first_seq(batch), late);
        }
        AppendAnswer::ForeignEpoch(epoch_of(&state, &batch.channel))
    }

    #[cfg(test)]
    pub(super) fn late_after(&self) -> Duration {
        late_after(self.ordering_deadline, self.lock().append_time)
    }

    pub(super) fn took_so_long(&self, time: Duration) {
        self.lock().took_so_long(time);
    }

    /// The log answered an append, before which it went at least to `highest`.
    fn appended(
        &self,
        batch: &AppendBatch,
        answer: AppendAnswer,
        took: Duration,
        highest: u64,
    ) -> AppendAnswer {
        let mut state = self.lock();
        state.took_so_long(took);
        let is_in_doubt = state.is_in_doubt(&batch.channel);
        let Some(line) = state.lines.get_mut(&batch.channel) else { return answer };
        if line.epoch() != Some(&batch.epoch) {
            // It moved on meanwhile; there, the same entries are appended again or known.
            return AppendAnswer::ForeignEpoch(line.epoch().cloned());
        }
        match answer {
            AppendAnswer::Done(results) => {
                let in_place_of_others =
                    |result: &Appended| matches!(*result, Appended::Applied { offset } if offset <= highest);
                if results.iter().any(in_place_of_others) {
                    tracing::warn!(channel = %batch.channel, highest, "the log lost entries, and has others in their place");
                    line.contradicted();
                    return self.lost_log(&mut state, batch);
                }
                if is_in_doubt {
                    // Whether they stand behind what was seen is found first; there, they are duplicates.
                    self.fork(&mut state, &batch.channel, first_seq(batch), false);
                    return AppendAnswer::ForeignEpoch(epoch_of(&state, &batch.channel));
                }
                line.acknowledged(batch, &results);
                self.mind_hole(&mut state, &batch.channel);
                AppendAnswer::Done(results)
            }
            AppendAnswer::ForeignEpoch(found) => {
                tracing::warn!(channel = %batch.channel, ?found, "the log is in another epoch");
                self.lost_log(&mut state, batch)
            }
        }
    }

    fn lost_log(&self, state: &mut State, batch: &AppendBatch) -> AppendAnswer {
        let channel = &batch.channel;
        self.doubt(state, channel);
        self.fork(state, channel, first_seq(batch), false);
        AppendAnswer::ForeignEpoch(epoch_of(state, channel))
    }

    /// Accepts entries without the log.
    async fn append_here(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let (channel, lane) = (&batch.channel, (self.lanes)(&batch.channel));
        let (results, fresh, room) = {
            let mut state = self.lock();
            if let Some(line) = state.lines.get_mut(channel) {
                line.make_mirror();
            }
            let Some(results) = self.memory.judge(batch) else {
                return Ok(AppendAnswer::ForeignEpoch(None));
            };
            let fresh: Vec<Append> = batch
                .entries
                .iter()
                .zip(&results)
                .filter(|(_, result)| matches!(result, Appended::Applied { .. }))
                .map(|(append, _)| append.clone())
                .collect();
            if let (Some(first), Some(line)) = (fresh.first(), state.lines.get_mut(channel))
                && line.step_to(first.seq)
            {
                // The fork's name is to tell what was had: a hole in the sequences gives it another.
                return Ok(AppendAnswer::ForeignEpoch(line.epoch().cloned()));
            }
            let journals = !self.is_alone() && !fresh.is_empty();
            let room = journals.then(|| state.journal.reserve(channel, lane, &fresh)).transpose();
            let room = room.map_err(|full| StorageError::Refused { op: "append", cause: Box::new(full) })?;
            (results, fresh, Room { core: self, reserved: room })
        };
        if let (Some(spool), true) = (&self.spool, room.reserved.is_some()) {
            match spool.append(self.node, channel, &fresh).await {
                Ok(()) => {}
                Err(error) if spool.is_required() || error == SpoolError::Full => {
                    return Err(StorageError::NotDurable { why: error.to_string() });
                }
                // It has said so; the journal goes on without its copy.
                Err(_) => {}
            }
        }
        let seqs = fresh.iter().map(|append| append.seq).collect();
        let gone = self.accept(batch, lane, fresh, room);
        match (gone, &self.spool) {
            (Err(epoch), spool) => {
                // They go another way now, and are not to be sent once more after a crash.
                if let Some(spool) = spool {
                    spool.forget(self.node, channel, seqs);
                }
                return Ok(AppendAnswer::ForeignEpoch(epoch));
            }
            (Ok(gone), Some(spool)) if !gone.is_empty() => self.forget(spool, gone),
            (Ok(_), _) => {}
        }
        Ok(AppendAnswer::Done(results))
    }

    /// Takes entries that were judged to fit; or says what the channel's life is, if it is another by
    /// now. Answers what the journal let go for them.
    fn accept(
        &self,
        batch: &AppendBatch,
        lane: Lane,
        fresh: Vec<Append>,
        mut room: Room<'_>,
    ) -> Result<Vec<Gone>, Option<Epoch>> {
        let mut state = self.lock();
        if epoch_of(&state, &batch.channel).as_ref() != Some(&batch.epoch) {
            let epoch = epoch_of(&state, &batch.channel);
            drop(state);
            return Err(epoch);
        }
        let gone = match room.reserved.take() {
            Some(reserved) => state.journal.commit(reserved, &batch.channel, lane, &fresh, Instant::now()),
            None => Vec::new(),
        };
        if let Some(line) = state.lines.get_mut(&batch.channel) {
            line.make_mirror();
            fresh.into_iter().for_each(|append| line.append_here(append));
        }
        // Should the fork be about to be closed, this is to be sent before.
        self.enqueue(&mut state, &batch.channel);
        Ok(gone)
    }

    /// The journal let go of entries: so does its copy.
    pub(super) fn forget(&self, spool: &Spool, gone: Vec<Gone>) {
        for Gone { channel, seq } in gone {
            spool.forget(self.node, &channel, vec![seq]);
        }
    }
}

/// Room in the journal; free again when it is dropped unused.
struct Room<'a> {
    core: &'a Core,
    reserved: Option<Reserved>,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            self.core.lock().journal.release(reserved);
        }
    }
}

/// Whether these entries have ids of their own, under which whoever appends them appends the same. Others that
/// are not this node's own stream are numbered by who has a lease.
fn is_given(batch: &AppendBatch) -> bool {
    batch.entries.iter().all(|append| append.fence.is_none())
}

/// How long an append is waited for before its channel goes on alone.
fn late_after(deadline: Duration, append_time: Duration) -> Duration {
    deadline.max(append_time * LATE_FACTOR)
}

fn first_seq(batch: &AppendBatch) -> Option<u64> {
    batch.entries.first().map(|append| append.seq)
}

fn newest_seq(batch: &AppendBatch) -> u64 {
    batch.entries.last().map_or(0, |last| last.seq)
}

fn epoch_of(state: &State, channel: &ChannelName) -> Option<Epoch> {
    state.lines.get(channel).and_then(|line| line.epoch().cloned())
}

/// The log changes each time that it is looked at.
pub(super) fn restless(op: &'static str) -> StorageError {
    StorageError::Unreachable { op, cause: "the log changed each time that it was looked at".into() }
}

/// What needs the log itself cannot be done now.
pub(super) fn away(op: &'static str) -> StorageError {
    StorageError::Unreachable { op, cause: "redis is away, and this cannot be done without it".into() }
}
