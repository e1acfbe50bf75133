//! Answers what follows any position that this node, or another one, ever issued.

use super::error_restless;
use super::replica::{Forked, Replica};
use super::replicas::Replicas;
use crate::model::{ChannelName, Epoch, Position};
use crate::storage::{EpochTransition, Page, PageLimit, Result};
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// How often a read begins anew because the channel changed under it.
const ROUNDS_MAX: usize = 16;

/// Where a page is to come from.
enum Source {
    Page(Page),
    /// The log.
    Log,
    /// The channel is to be forked first: the log acknowledged own entries that readers have not seen.
    Fork,
}

impl Replicas {
    pub(super) async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        let mut looks_at_known = true;
        for _ in 0..ROUNDS_MAX {
            let source = self.source(channel, after, limit);
            match source {
                Source::Page(page) => return Ok(page),
                Source::Fork => {
                    self.lock().fork(channel, None, false);
                    continue;
                }
                Source::Log => {}
            }
            let seen =
                self.lock().replicas.get(channel).map(|replica| (replica.log().cloned(), replica.highest()));
            // Where the entry at the position is known, it is read too, to find whether the log was set back and
            // has another one there.
            let known = after.filter(|after| looks_at_known && self.knows_entry_at(channel, after));
            let from = known.map(|after| Position { epoch: after.epoch.clone(), offset: after.offset - 1 });
            let one_more = PageLimit { entries: limit.entries.saturating_add(1), ..limit };
            let read = match &from {
                Some(from) => self.breaker.primary.read_within(channel, Some(from), one_more),
                None => self.breaker.primary.read_within(channel, after, limit),
            };
            match self.breaker.ask_log(channel, read).await {
                None => continue,
                Some(Err(error)) => return Err(error),
                Some(Ok(mut page)) if self.took(channel, seen, &page) => {
                    if page.epoch.is_none() || !self.awaits_birth(channel) {
                        if let Some(known) = known {
                            page.entries.retain(|entry| entry.offset > known.offset);
                            page.entries.truncate(limit.entries);
                            if page.entries.is_empty() && page.top > known.offset && limit.entries > 0 {
                                // The known entry alone filled the page.
                                looks_at_known = false;
                                continue;
                            }
                        }
                        return Ok(page);
                    }
                    // Another node has begun the log: open it, so that it is replicated, and read it again.
                    self.open_or_find(channel, self.node, None).await?;
                }
                Some(Ok(_)) => self.until_in_order(channel).await,
            }
        }
        Err(error_restless("read_after"))
    }

    /// Whether a channel is followed whose log had no epoch when it was looked at last.
    fn awaits_birth(&self, channel: &ChannelName) -> bool {
        self.replica_is(channel, |replica| replica.is_followed() && replica.epoch().is_none())
    }

    /// Whether the channel is not forked, and the entry at a position of its log is known here.
    fn knows_entry_at(&self, channel: &ChannelName, at: &Position) -> bool {
        #[cfg(test)]
        if mutant::is(Mutant::EntryBeforeNotRead) {
            return false;
        }
        let is_known = |replica: &Replica| {
            !replica.is_forked() && replica.is_of(&at.epoch) && replica.seen_at(at.offset).is_some()
        };
        at.offset > 0 && self.replica_is(channel, is_known)
    }

    /// Compares a page with what is known of the log, and adds it to the replica. False if the log has to be
    /// read again, because it differs or because the channel changed meanwhile.
    fn took(&self, channel: &ChannelName, seen: Option<(Option<Epoch>, u64)>, page: &Page) -> bool {
        let mut state = self.lock();
        let Some(replica) = state.replicas.get_mut(channel) else { return true };
        if replica.is_forked() {
            return false;
        }
        let Some(log) = replica.log() else { return true };
        let Some((known, highest)) = seen.filter(|(known, _)| known.as_ref() == Some(log)) else {
            // It changed while the page was on its way.
            return false;
        };
        let is_as_known = !replica.is_contradicted() && page.epoch == known && page.top >= highest;
        if is_as_known && !replica.contradicts(&page.entries) {
            replica.mirror_page(page.first, &page.entries);
            return true;
        }
        if !replica.is_suspect() {
            let (top, found) = (page.top, &page.epoch);
            tracing::warn!(channel = %channel, top, highest, ?found, "the log is not what it was");
        }
        state.suspect(channel);
        false
    }

    fn source(&self, channel: &ChannelName, after: Option<&Position>, limit: PageLimit) -> Source {
        let (is_primary, is_final) = (self.breaker.has_log(channel), self.breaker.is_standalone());
        let mut state = self.lock();
        let Some(replica) =
            state.replicas.get_mut(channel).filter(|replica| is_primary || replica.epoch().is_some())
        else {
            // Publishing and subscribing begin an epoch; reading alone does not.
            let none = Page { is_final, ..Page::of_no_log() };
            return if is_primary { Source::Log } else { Source::Page(none) };
        };
        let is_forked = replica.is_forked();
        if !is_forked && !is_primary && replica.has_unseen() {
            return Source::Fork;
        }
        if is_forked || !is_primary {
            replica.keep_mirror();
            let page = self.page_here(replica, channel, after, limit);
            return Source::Page(Page { is_final, ..page });
        }
        let of_log = after.is_none_or(|after| replica.is_of(&after.epoch));
        match after.filter(|_| !of_log).and_then(|after| Some((after, replica.transition_after(after)?))) {
            Some((after, transition)) => Source::Page(ended(after, transition)),
            None => Source::Log,
        }
    }

    /// A page of the local replica, which says what of the log it lacks.
    fn page_here(
        &self,
        replica: &Replica,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Page {
        let page = self.page_of_mirror(replica, channel, after, limit);
        let end_of_log = replica.fork().map_or(page.top, Forked::base);
        #[cfg(test)]
        if mutant::is(Mutant::OutOfReachIsGone) {
            return page;
        }
        let is_copy = replica.log().is_some() && !self.breaker.is_standalone();
        let out_of_reach = if is_copy { page.first.saturating_sub(1).min(end_of_log) } else { 0 };
        Page { out_of_reach, is_copy, ..page }
    }

    fn page_of_mirror(
        &self,
        replica: &Replica,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Page {
        if self.memory.mirrored(channel).is_none() {
            // Nothing has been accepted in it yet.
            let here = Page { epoch: replica.epoch().cloned(), ..Page::of_no_log() };
            let is_elsewhere = |after: &&Position| here.epoch.as_ref() != Some(&after.epoch);
            let transition = after
                .filter(is_elsewhere)
                .and_then(|after| Some(ended(after, replica.transition_after(after)?)));
            return transition.unwrap_or(here);
        }
        let Some(after) = after else { return self.memory.read_now_within(channel, None, limit) };
        let Some(fork) = replica.fork() else {
            if !replica.is_of(&after.epoch)
                && let Some(transition) = replica.transition_after(after)
            {
                return ended(after, transition);
            }
            return self.memory.read_now_within(channel, Some(after), limit);
        };
        let is_before = |end: u64| after.offset <= end;
        #[cfg(test)]
        let is_before = |end: u64| is_before(end) || mutant::is(Mutant::ForkBehindReader);
        if let Some((end, next)) = fork.end_of(&after.epoch).filter(|(end, _)| is_before(*end)) {
            // The entries of that epoch are kept in the one after it.
            let renamed = Position { epoch: fork.epoch().clone(), offset: after.offset };
            let mut page = self.memory.read_now_within(channel, Some(&renamed), limit);
            page.entries.retain(|entry| entry.offset <= end);
            page.first = page.first.min(end + 1);
            let to = Position { epoch: next.clone(), offset: end };
            let epoch = Some(after.epoch.clone());
            // Readers compare it with where they are.
            #[cfg(test)]
            let end = if mutant::is(Mutant::ForkBehindReader) { end.max(after.offset) } else { end };
            return Page { epoch, top: end, closed: false, next: Some(EpochTransition::whole(to)), ..page };
        }
        let is_elsewhere = after.epoch != *fork.epoch() && fork.end_of(&after.epoch).is_none();
        match is_elsewhere.then(|| replica.transition_after(after)).flatten() {
            // Readers of another node that has gone further than this one's base are told so.
            Some(transition) if transition.to.offset <= fork.base() => ended(after, transition),
            _ => self.memory.read_now_within(channel, Some(after), limit),
        }
    }
}

/// The end of an epoch, from where a reader goes on in another one.
fn ended(after: &Position, transition: EpochTransition) -> Page {
    let (epoch, first) = (Some(after.epoch.clone()), after.offset.saturating_add(1));
    Page { epoch, top: after.offset, first, next: Some(transition), ..Page::of_no_log() }
}
