//! Where a reader begins.

use crate::channels::pages::EncodedLatest;
use crate::channels::unborn::{in_log, told};
use crate::model::{ChannelName, ChannelPolicy, Epoch, Position};
use crate::storage::{
    Page, ReturnPoint, VersionVector, begin_elsewhere, had_at, is_fork, is_fork_of_unknown, lack_own,
    miss_in_fork,
};
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// Where a client wants to start.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    /// With the next entry.
    Now,
    /// With the oldest entry in the log. If there were older ones, the client is told.
    Oldest,
    /// After this position.
    After(Position),
}

impl Start {
    /// After a position, if the client sent one; otherwise with the oldest entry if the channel's policy
    /// says that readers want the whole log, or with the next entry.
    pub(crate) fn of(channel: &ChannelName, since: Option<Position>) -> Self {
        match since.map(in_log) {
            Some(Some(position)) => Self::After(position),
            #[cfg(test)]
            Some(None) if mutant::is(Mutant::UnbornIsNow) => Self::Now,
            // The log did not exist then, so nothing of it was received.
            Some(None) => Self::Oldest,
            None if ChannelPolicy::of(channel).is_wanted_whole => Self::Oldest,
            None => Self::Now,
        }
    }

    /// Whether it depends on the content of the log.
    pub(crate) fn is_in_log(&self) -> bool {
        !matches!(self, Self::Now)
    }

    /// What the client has received; `None` is just before the first entry of the log, in whatever epoch.
    pub(crate) fn had(&self) -> Option<&Position> {
        match self {
            Self::Now | Self::Oldest => None,
            Self::After(position) => Some(position),
        }
    }
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Where it wants to start.
    pub(crate) start: Start,
    /// Whether to begin with a snapshot if something would be missing, or if the client has no position.
    pub(crate) snapshot: bool,
}

impl Asked {
    /// As in [`Start::of`]; with a snapshot only if the channel has them.
    pub(crate) fn of(channel: &ChannelName, since: Option<Position>, snapshot: bool) -> Self {
        let snapshot = snapshot && ChannelPolicy::of(channel).has_snapshots;
        Self { start: Start::of(channel, since), snapshot }
    }
}

/// Where the entries begin for a client, and what it is told about that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartingPoint {
    /// The epoch of the log in which the entries begin.
    pub(crate) log_epoch: Epoch,
    /// What the client has received besides the entries up to `offset`, or is owed.
    pub(crate) had: VersionVector,
    /// The epoch for the client, which contains both.
    pub(crate) epoch: Epoch,
    /// Entries begin after this offset.
    pub(crate) offset: u64,
    /// How many entries between what the client has received and `offset` are gone; `None` if that is unknown.
    pub(crate) gap: Option<u64>,
    /// The channel's position when it was joined.
    pub(crate) joined_at: Position,
    /// The newest offset when the log was looked at.
    pub(crate) top: u64,
    /// Whether nothing will follow `top`.
    pub(crate) closed: bool,
    /// Whether the epoch is over, so that what follows `top` is in another one.
    pub(crate) is_over: bool,
    /// Whether nothing is missing for good.
    pub(crate) is_resumed: bool,
    /// Whether the client wants a snapshot in place of what it would miss.
    pub(crate) wants_snapshot: bool,
    /// Whether it gets one now.
    pub(crate) snapshot: bool,
}

impl StartingPoint {
    /// The starting point of a client that wants the next entries of a channel joined at this position.
    pub(crate) fn next(joined_at: Position) -> Self {
        let Position { epoch, offset } = joined_at.clone();
        let log_epoch = epoch.clone();
        let had = VersionVector::default();
        Self {
            log_epoch,
            had,
            epoch,
            offset,
            gap: Some(0),
            joined_at,
            top: offset,
            closed: false,
            is_over: false,
            is_resumed: true,
            wants_snapshot: false,
            snapshot: false,
        }
    }

    /// The starting point of a client that gets a snapshot, of which `page` is the first page. `is_new`: it
    /// has received nothing that it could miss.
    pub(crate) fn of_snapshot(joined_at: Position, page: &EncodedLatest, is_new: bool) -> Self {
        let Position { epoch: log_epoch, offset } = match &page.epoch {
            Some(epoch) => Position { epoch: epoch.clone(), offset: page.top },
            None => joined_at.clone(),
        };
        // A cached page may be older than the join.
        let top = if joined_at.epoch == log_epoch { offset.max(joined_at.offset) } else { offset };
        let had = VersionVector::of_part();
        let epoch = told(&log_epoch, &had);
        let gap = Some(0).filter(|_| is_new && !page.is_copy);
        Self {
            log_epoch,
            had,
            epoch,
            offset,
            gap,
            top,
            is_resumed: false,
            wants_snapshot: true,
            snapshot: true,
            ..Self::next(joined_at)
        }
    }

    /// The starting point of a client that has [`had`](Start::had) everything up to a position; `page` was
    /// read after that, once the channel was joined at `joined_at`.
    pub(crate) fn in_log(joined_at: Position, position: Option<&Position>, page: &Page) -> Self {
        let log_epoch = page.epoch.clone().unwrap_or_else(|| joined_at.epoch.clone());
        let (is_part, after) =
            (position.is_some_and(|at| had_at(at).is_part()), position.map_or(0, |at| at.offset));
        let is_known = position.is_none_or(|at| is_known(at, page));
        let (offset, gap, had) = Self::found(&log_epoch, position, page);
        let gap = gap.filter(|_| had.is_whole());
        let epoch = told(&log_epoch, &had);
        let is_resumed = match gap {
            _ if is_part => false,
            Some(gap) => gap == 0,
            // That the number of missing entries is unknown does not mean that any is missing for good.
            None => had.is_merely_owed() || (is_known && offset == after),
        };
        Self {
            log_epoch,
            had,
            epoch,
            offset,
            gap,
            top: page.top,
            closed: page.closed,
            is_over: page.next.is_some(),
            is_resumed,
            ..Self::next(joined_at)
        }
    }

    /// Where the entries begin, how many are gone, and what was received.
    fn found(
        log_epoch: &Epoch,
        position: Option<&Position>,
        page: &Page,
    ) -> (u64, Option<u64>, VersionVector) {
        let oldest = page.first.saturating_sub(1);
        if let Some(position) = position.filter(|position| !is_known(position, page)) {
            let (offset, had) = begin_elsewhere(had_at(position), log_epoch, page);
            return (offset, None, had);
        }
        let after = position.map_or(0, |position| position.offset);
        let (missing, mut had) = (oldest.saturating_sub(after), VersionVector::default());
        if missing > 0 && after < page.out_of_reach {
            let log = Some(log_epoch.clone()).filter(|log_epoch| !is_fork(log_epoch));
            match log {
                Some(_) => had.set_back(Some(ReturnPoint {
                    log,
                    to: after,
                    after: oldest,
                    until: oldest,
                    is_away: true,
                })),
                None => miss_in_fork(&mut had, log_epoch, after, oldest),
            }
            return (oldest, None, had);
        }
        match position {
            // The client keeps the epoch of its position, which says that what it has received is unknown or
            // incomplete. So the gap is unknown too.
            Some(position) if !had_at(position).is_whole() => (after.max(oldest), None, had),
            // This node knows nothing of the log, and the client wants all of it: it goes back to the
            // beginning as soon as the log can be read.
            None if !page.is_final && is_fork_of_unknown(log_epoch) => {
                if missing > 0 {
                    lack_own(&mut had, log_epoch, oldest);
                }
                had.set_back(Some(ReturnPoint::to_the_beginning()));
                (after.max(oldest), None, had)
            }
            _ => (after.max(oldest), Some(missing), had),
        }
    }

    /// Whether its channel is in a fork.
    pub(crate) fn is_forked(&self) -> bool {
        is_fork(&self.log_epoch)
    }

    /// Whether nothing is missing between what the client has received and what it gets.
    pub(crate) fn is_recovered(&self) -> bool {
        self.gap == Some(0)
    }

    /// The newest offset of this epoch to tell the client; `None` if the log continues in another epoch.
    pub(crate) fn told_top(&self) -> Option<u64> {
        Some(self.top.max(self.offset)).filter(|_| !self.is_over)
    }

    /// Whether something cannot be reached now, and comes later.
    pub(crate) fn is_owed(&self) -> bool {
        self.gap.is_none() && self.had.back().is_some_and(|back| back.to < back.after)
    }

    /// Whether the client has received everything that there will ever be.
    pub(crate) fn is_finished(&self) -> bool {
        let is_away = self.had.back().is_some_and(|back| back.is_away);
        self.closed && self.offset >= self.top && !is_away
    }
}

/// Whether a page continues at a position. Offsets beyond the top were never assigned in this log's present
/// state: it was set back to before them.
fn is_known(position: &Position, page: &Page) -> bool {
    page.epoch.as_ref() == Some(&position.epoch) && position.offset <= page.top
}
