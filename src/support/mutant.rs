//! Rules that a test leaves out, to check that the simulation notices.

use std::cell::Cell;

/// A rule that is left out. Each variant says what happens without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A fork does not begin with the node's own entries that the log acknowledged and nobody here has
    /// seen.
    ForkWithoutInFlight,
    /// Entries that a log lost are not appended to it again by their node.
    TailNotPutBack,
    /// A fork is closed without following the log and reading what others wrote.
    RejoinWithoutReading,
    /// A reader's version vector is lost at an epoch transition.
    NothingWasHad,
    /// A reader counts as having been sent what any reader on its node was sent.
    OneHighWaterMark,
    /// A reader that enters a fork is not notified.
    ForksNotTold,
    /// A fork treats readers beyond its base as if they were at the base.
    ForkBehindReader,
    /// Readers of a log that did not exist count as having been sent what another node started it with.
    BirthElsewhereMissed,
    /// A position in a log that did not exist counts as no position.
    UnbornIsNow,
    /// The entry after a thinned one is linked to the thinned one, instead of the entry before that. Two
    /// mechanisms ensure the right link, each of which is enough: the journal passes `prev` on, and what is
    /// sent from it is linked again. This leaves out both.
    ThinnedWithoutPrev,
    /// Entries that can be read only once Redis is back count as gone.
    OutOfReachIsGone,
    /// The client is not sent its return point.
    WayBackNotTold,
    /// The client is not notified that it is unknown what it has received.
    DoubtNotTold,
    /// The client's position does not name which earlier entries of a producer it has not received.
    WhatWasNotHadIsNotTold,
    /// Version vectors also name producers that have been silent for so long that nothing of theirs can
    /// come again.
    SilentAreNamed,
    /// A producer that the log has forgotten counts as lost by it.
    ForgottenIsLost,
    /// A log that expired because nobody appended to it counts as lost.
    ExpiredIsLost,
    /// A node's expired entries are appended again to a log that lost them.
    ExpiredPutBack,
    /// The entry at the newest offset seen is not compared with the log's.
    AnchorNotCompared,
    /// Reading after a position does not check the entry at that position.
    EntryBeforeNotRead,
    /// The same check is left out when a channel is reconciled.
    RejoinWithoutEntryBefore,
    /// New entries of a log that waits to be reconciled count as following what was seen of it before.
    DoubtDisregarded,
    /// A snapshot's position is that of its last page, not of its first.
    SnapshotAsAtItsEnd,
    /// Only the first page of a snapshot is sent.
    SnapshotOfOnePage,
    /// A snapshot also sends entries that follow it live.
    SnapshotBehindPosition,
    /// A partial snapshot counts as complete.
    PartIsWhole,
    /// The client is not notified that a snapshot is partial.
    PartNotTold,
    /// A removal removes keys, but is not remembered.
    RemovalsForgotten,
    /// A snapshot contains no removals.
    RemovalsNotTold,
    /// Entries are not marked late for a reader that catches up with them after it received others elsewhere.
    CatchesUpInTime,
    /// Of the views that show an entry, only the first one found gets it.
    OneViewOfEach,
    /// A reader that catches up in a view gets all entries of the log.
    PagesOfViewsNotFiltered,
}

thread_local! {
    static NOW: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Leaves out a rule on this thread from here on.
pub(crate) fn set(mutant: Option<Mutant>) {
    NOW.set(mutant);
}

/// Whether this rule is left out.
pub(crate) fn is(mutant: Mutant) -> bool {
    NOW.get() == Some(mutant)
}
