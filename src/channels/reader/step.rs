//! What a reader answers: what is to be done for it, and what it needs.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::channels::live::LiveBatch;
use crate::model::{Epoch, Position};

/// What is to be done for a reader, in order. All of it before the reader is given anything else.
pub(crate) type Steps = SmallVec<[Step; 1]>;

/// Entries of a batch, by index: all that was not had before.
pub(crate) type Runs = SmallVec<[Range<usize>; 1]>;

/// Something to be done for a reader.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Send these entries.
    Send {
        /// Where they are.
        batch: Arc<LiveBatch>,
        /// Which they are: ascending, none of them empty.
        runs: Runs,
        way: Way,
    },
    /// Say `resync`.
    Resync {
        /// What the client called this life, or the one before, until now.
        old: Epoch,
        /// How it is called now, and where the client stands in it.
        to: Position,
        /// Nothing is missing.
        recovered: bool,
        /// How many entries are; `None` when that cannot be known.
        gap: Option<u64>,
        /// In place of them comes the latest entry of each key.
        snapshot: bool,
    },
    /// Say `snapshot_end`: the latest entries of keys have been sent, as they were at this position.
    SnapshotEnd {
        /// Where the client stands.
        at: Position,
        /// They are all.
        is_whole: bool,
    },
    /// The log has come to its end, and all that is kept of it has been sent.
    Finished,
    /// It is not up to date any more: begin to take [`turns`](super::Reader::turn).
    CatchUp,
    /// What is read does not fit what comes live: the channel has to look at the log.
    Doubt,
}

/// How entries are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Frame by frame: a client who leaves too many of them is cut, unless newer ones replace them.
    Live,
    /// In one piece, whose size is bounded; the next one waits until the client has taken it.
    Piece,
    /// The same of the latest entries of keys, whose offsets mean nothing.
    Latest,
}

/// How much a reader takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Live entries that are held while older ones are read; past that they are let go, and read.
    pub(crate) hold_entries_max: usize,
    /// Bytes sent in one piece, but for an entry that alone is larger.
    pub(crate) piece_bytes: usize,
    /// Something that was sent waits for the client.
    pub(crate) is_behind: bool,
}

/// What a reader that is not up to date needs next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// It is live, or has ended. Nothing is left to do after these steps.
    Done(Steps),
    /// Another turn, when the client has taken these.
    Send(Steps),
    /// What is in the log, for [`on_page`](super::Reader::on_page); or
    /// [`on_no_page`](super::Reader::on_no_page).
    Read(Wanted),
    /// What is latest of the keys, for [`on_latest`](super::Reader::on_latest); or
    /// [`on_no_page`](super::Reader::on_no_page).
    ReadLatest(WantedLatest),
}

/// Which latest entries a reader wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WantedLatest {
    /// Those after this key; `None`: from the first one on.
    pub(crate) after: Option<String>,
    /// As they are no earlier than here; `None`: as they were lately.
    pub(crate) at_least: Option<Position>,
}

/// What a reader wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What follows this position; `None`: the oldest entries, of which nothing was had.
    pub(crate) after: Option<Position>,
    /// Entries up to this offset come late.
    pub(crate) late_to: u64,
    /// The log went so far at least, as what came live shows.
    pub(crate) seen: Option<Position>,
    /// Something before that could not be reached, and is waited for.
    pub(crate) is_owed: bool,
}

/// What follows a page's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The same page again, when the client has taken what was sent.
    Page,
    /// Another turn.
    Turn,
    /// Another turn, in a while: there was nothing to go on with.
    Pause,
}
