//! Rules that a test leaves out, to see that the simulation notices.

use std::cell::Cell;

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// A fork does not begin with own entries that the log acknowledged and nobody here has seen.
    ForkWithoutInFlight,
    /// A log that lost them is not given own entries again.
    TailNotPutBack,
    /// A fork is closed without following the log and reading what others wrote.
    RejoinWithoutReading,
    /// What a reader has had is forgotten at a seam.
    NothingWasHad,
    /// A reader is taken to have had what any reader on its node has had.
    OneHighWaterMark,
    /// A reader that goes over into a fork is not told.
    ForksNotTold,
    /// A fork takes up readers that are beyond its base, as if they were there.
    ForkBehindReader,
    /// Readers of a log that had no life are taken to have had what another node began it with.
    BirthElsewhereMissed,
    /// A position of a log that had no life is taken for no position.
    UnbornIsNow,
    /// The entry after one that was thinned names it as the one before itself. Two mechanisms see to
    /// that, each of which is enough: the journal passes `prev` on, and what is sent from it is chained
    /// anew. This leaves out both.
    ThinnedWithoutPrev,
    /// What cannot be reached is taken for gone.
    OutOfReachIsGone,
    /// Where a reader has to go back to is not told.
    WayBackNotTold,
    /// That it cannot be said what was had is not told.
    DoubtNotTold,
    /// What a reader has not had of a producer before what it has had of it is not told.
    WhatWasNotHadIsNotTold,
    /// Producers that have been silent for too long for anything of theirs to come again are told, too.
    SilentAreNamed,
    /// A producer that the log does not know any more is taken for one that it has lost.
    ForgottenIsLost,
    /// A log that went because nobody appended to it is taken for one that was lost.
    ExpiredIsLost,
    /// Own entries that have grown too old are put back.
    ExpiredPutBack,
    /// Which entry stands where the newest one was seen is not looked at.
    AnchorNotCompared,
    /// What follows a position is read without a look at the entry that stands there.
    EntryBeforeNotRead,
    /// The same when a channel is put in order.
    RejoinWithoutEntryBefore,
    /// What comes of a log that is yet to be looked at is taken for what follows.
    DoubtDisregarded,
    /// A snapshot is taken for what the log was at its end, not at its beginning.
    SnapshotAsAtItsEnd,
    /// Of a snapshot only the first page is sent.
    SnapshotOfOnePage,
    /// Of latest entries also those are sent that come in what follows.
    SnapshotBehindPosition,
    /// What could be reached of a snapshot is taken for all.
    PartIsWhole,
    /// That a snapshot is not whole is not told.
    PartNotTold,
    /// A removal takes keys away, and is not remembered.
    RemovalsForgotten,
    /// A snapshot does not tell which keys were removed.
    RemovalsNotTold,
    /// Who has had something elsewhere is not told that what it catches up with comes late.
    CatchesUpInTime,
    /// Of the views that show an entry only the first one that is found gets it.
    OneViewOfEach,
    /// Who catches up in a view is given all that is kept.
    PagesOfViewsNotFiltered,
}

thread_local! {
    static NOW: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// From here on, on this thread.
pub(crate) fn set(mutant: Option<Mutant>) {
    NOW.set(mutant);
}

/// Whether this rule is left out.
pub(crate) fn is(mutant: Mutant) -> bool {
    NOW.get() == Some(mutant)
}
