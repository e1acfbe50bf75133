//! What a reader returns: steps to execute, and what it needs next.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::channels::live::LiveBatch;
use crate::model::{Epoch, Position};

/// Steps to execute for a reader, in order. The caller executes all of them before it calls the reader again.
pub(crate) type Steps = SmallVec<[Step; 1]>;

/// Entries of a batch, by index: those that were not received before.
pub(crate) type Runs = SmallVec<[Range<usize>; 1]>;

/// A step to execute for a reader.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Send these entries.
    Send {
        /// The batch that contains them.
        batch: Arc<LiveBatch>,
        /// Their indices: ascending ranges, none of them empty.
        runs: Runs,
        way: Way,
    },
    /// Send `resync`.
    Resync {
        /// The epoch that the client knew until now.
        old: Epoch,
        /// The client's position from now on.
        to: Position,
        /// Whether nothing is missing.
        recovered: bool,
        /// How many entries are missing; `None` if that is unknown.
        gap: Option<u64>,
        /// Whether a snapshot follows in place of them.
        snapshot: bool,
    },
    /// Send `snapshot_end`: the snapshot has been sent, as of this position.
    SnapshotEnd {
        /// The client's position.
        at: Position,
        /// Whether the snapshot is complete.
        is_whole: bool,
    },
    /// The log has ended, and everything that it still has was sent.
    Finished,
    /// The reader is no longer live: begin to execute [`turns`](super::Reader::turn).
    CatchUp,
    /// What was read does not fit what arrives live: the channel's actor has to read the log.
    Suspect,
}

/// How entries are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Frame by frame: a client for which too many frames wait is closed, unless newer ones replace them.
    Live,
    /// In one piece of bounded size; the next one waits until the client has accepted it.
    Piece,
    /// In one piece, as part of a snapshot, so their offsets mean nothing.
    Latest,
}

/// How much a reader may hold and send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// The most live entries held while older ones are read; beyond that they are dropped and read from the
    /// log.
    pub(crate) hold_entries_max: usize,
    /// The most bytes in one piece, except for a single larger entry.
    pub(crate) piece_bytes: usize,
    /// Whether something that was sent still waits for the client.
    pub(crate) is_behind: bool,
}

/// What a reader that is not live needs next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is live, or has ended. Nothing is left to do after these steps.
    Done(Steps),
    /// Another turn, once the client has accepted these.
    Send(Steps),
    /// A page of the log, for [`on_page`](super::Reader::on_page); or
    /// [`on_no_page`](super::Reader::on_no_page).
    Read(Wanted),
    /// A page of latest entries, for [`on_latest`](super::Reader::on_latest); or
    /// [`on_no_page`](super::Reader::on_no_page).
    ReadLatest(WantedLatest),
}

/// The latest entries that a reader wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WantedLatest {
    /// Those after this key; `None`: from the first key on.
    pub(crate) after: Option<String>,
    /// Read no earlier than at this position; `None`: read recently.
    pub(crate) at_least: Option<Position>,
}

/// The page of the log that a reader wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What follows this position; `None`: from the oldest entry on, without having received anything.
    pub(crate) after: Option<Position>,
    /// Entries up to this offset are late.
    pub(crate) late_to: u64,
    /// The log reached at least this far, as live entries show.
    pub(crate) seen: Option<Position>,
    /// Whether something before it could not be reached, and is waited for.
    pub(crate) is_owed: bool,
}

/// What follows the steps of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The same page again, once the client has accepted what was sent.
    Page,
    /// Another turn.
    Turn,
    /// Another turn after a pause: there was nothing to continue with.
    Pause,
}
