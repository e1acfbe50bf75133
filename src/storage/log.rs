//! The log role: named, ordered, bounded logs of entries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::lives::{begin_of_fork, log_of_fork};
use super::{Back, Had, Result};
use crate::model::{ChannelName, DraftEntry, Entry, EntryId, Epoch, NodeId, Position};

/// How long after its last append a log's epoch, top offset and latest entries are kept, beyond the age
/// of its entries, so that a market that publishes once a day keeps its positions; and for how long a
/// producer is remembered that is silent while others append.
pub const EPOCH_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// The same for a log that was begun, and not appended to yet: its producer may be gone.
pub const UNUSED_EPOCH_KEPT_FOR: Duration = Duration::from_secs(3600);

/// How long the removal of a key, or of all keys of a channel, is remembered, so that an entry that waited at
/// its gateway and is older does not bring a key back: for longer than entries wait with the usual settings, also
/// where a gateway is started anew with what it left on disk.
pub const REMOVED_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// The most removals of a channel that are remembered; the oldest go.
pub const REMOVED_MAX: usize = 10_000;

/// Where a log stands, as one producer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// The life of the log; `None` when there has been none, or it was lost.
    pub epoch: Option<Epoch>,
    /// The newest offset ever given in this epoch; 0 when there was none.
    pub top: u64,
    /// The newest sequence of the asking producer that was applied in this epoch; 0 when there was none.
    pub last_seq: u64,
}

/// Where a log that has an epoch stands, as one producer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLog {
    /// The life of the log.
    pub epoch: Epoch,
    /// The newest offset ever given in this epoch; 0 when there was none.
    pub top: u64,
    /// The newest sequence of the asking producer that was applied in this epoch; 0 when there was none,
    /// or when it was silent for longer than [`EPOCH_KEPT_FOR`] while others appended.
    pub last_seq: u64,
    /// The same of every producer that the log remembers and of which entries may come again, should it
    /// lose them: those that have not been silent for twice the age that entries get.
    pub producers: Vec<(NodeId, u64)>,
    /// The newest entry; `None` where it is not kept.
    pub anchor: Option<Anchor>,
}

impl OpenLog {
    /// One that begins its life as this: nothing is in it yet.
    pub(crate) fn begun_as(epoch: Epoch) -> Self {
        Self { epoch, top: 0, last_seq: 0, producers: Vec::new(), anchor: None }
    }
}

/// An entry, and where it stands in a log. Entries keep their places, so two states of a log in one
/// epoch that hold the same entry at an offset hold the same up to it. One that holds another entry
/// there, or ends before it, was set back: restored from an older copy, or left to a replica that was
/// behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Where it stands.
    pub offset: u64,
    /// Which entry it is.
    pub id: EntryId,
}

impl From<&Entry> for Anchor {
    fn from(entry: &Entry) -> Self {
        Self { offset: entry.offset, id: entry.id }
    }
}

/// An entry to append, with its place in its producer's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The producer's sequence for this entry; greater than `prev`.
    pub seq: u64,
    /// The producer's sequence before it. A producer that drops an entry passes that entry's
    /// `prev` on to the next one.
    pub prev: u64,
    /// What is appended.
    pub draft: DraftEntry,
    /// The lease under which it is appended (see [`Jobs`](super::Jobs)); `None` where none is needed.
    pub fence: Option<u64>,
}

impl Append {
    /// The entry that stands at an offset of the log.
    pub(super) fn at(&self, producer: NodeId, offset: u64) -> Entry {
        Entry { offset, id: EntryId { producer, seq: self.seq }, draft: self.draft.clone() }
    }
}

/// Entries of one producer for one channel, in the producer's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendBatch {
    /// The channel.
    pub channel: ChannelName,
    /// Applied only in this epoch.
    pub epoch: Epoch,
    /// Who appends.
    pub producer: NodeId,
    /// What is appended, in ascending `seq`.
    pub entries: Vec<Append>,
}

/// What became of one entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It stands in the log at this offset.
    Applied {
        /// Its offset.
        offset: u64,
    },
    /// It, or a later one of this producer, was applied before; nothing was done.
    Duplicate,
    /// An entry before it is missing (`prev` was not reached); nothing was done.
    Gap {
        /// The newest sequence of this producer that was applied.
        last: u64,
    },
    /// The log takes it neither now nor later; nothing was done.
    Refused(Refusal),
}

/// Why a log takes an entry neither now nor later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody appended under a newer lease.
    #[error("it was written under lease {fence}, and somebody has written under lease {newest} since")]
    StaleFence {
        /// The entry's fence.
        fence: u64,
        /// The newest fence that the log has seen.
        newest: u64,
    },
    /// The log holds a terminal entry, after which nothing comes.
    #[error("nothing may follow a terminal update")]
    Closed,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendAnswer {
    /// The epochs matched; one result for each entry, in order.
    Done(Vec<Appended>),
    /// The log is in another epoch (`None`: in none); nothing was done.
    ForeignEpoch(Option<Epoch>),
}

/// How much of a log is read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// The most entries.
    pub entries: usize,
    /// The most bytes of what the entries hold, roughly. One entry is read in any case.
    pub bytes: usize,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The life of the log that all of this page is about: the one of the position asked for, where
    /// the backend can tell what followed it; else the present one; `None` when there is none.
    pub epoch: Option<Epoch>,
    /// The newest offset given in this epoch, whether or not it is in this page.
    pub top: u64,
    /// The oldest offset that can be read; `top + 1` when none can.
    pub first: u64,
    /// What is before `first` is gone, but for what stands up to this offset: that may be kept where it
    /// cannot be reached now. 0 where everything that is kept can be read.
    pub out_of_reach: u64,
    /// Nobody else has this log, and nothing comes into it that a reader has had in another life.
    pub is_final: bool,
    /// It is what this node keeps of a log that cannot be reached, which may go on after `top`.
    pub is_copy: bool,
    /// A terminal entry was appended in this epoch: `top` stays what it is.
    pub closed: bool,
    /// Entries in ascending order of offset, without holes between them. None where the epoch is
    /// not the one asked for.
    pub entries: Vec<Entry>,
    /// Where it goes on after `top`, when this life has ended and that is known.
    pub next: Option<Seam>,
}

/// What the entries of one page of [`Log::latest`] come to at the most, in bytes; one entry may be there
/// in any case. The same is true of smaller pages, for those who ask for them.
pub const LATEST_BYTES_MAX: usize = 1 << 20;

/// Which latest entries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LatestOf {
    /// Those of keys that have one.
    Keys,
    /// These, and the removals that are remembered: of a key in its place, of all keys before all others. For
    /// who is to compare with them what comes late.
    RemovedToo,
}

/// A part of the latest entries of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LatestPage {
    /// One entry for each key, in the order of the keys' bytes.
    pub entries: Vec<Entry>,
    /// By entry, its offset in this life of the log; 0 where it is of one before.
    pub places: Vec<u64>,
    /// The last key that was looked at, where more may come after it.
    pub next: Option<String>,
    /// The life of the log when this was read; `None` where it had none. Of an order it is not told.
    pub epoch: Option<Epoch>,
    /// The newest offset in it then: no entry up to there is newer than one of its key that is here.
    pub top: u64,
    /// It is what this node keeps of a log that cannot be reached, which may have more keys, and newer
    /// entries.
    pub is_copy: bool,
}

impl Seam {
    /// One at which nothing is missing, and nothing comes again.
    pub fn whole(to: Position) -> Self {
        Self { to, had: Had::default(), late_to: 0, whole: true, skips: false }
    }

    /// One of which nothing is known: it cannot be said what was had, nor what is missing.
    pub fn unknown(to: Position) -> Self {
        Self { had: Had::unknown(), whole: false, ..Self::whole(to) }
    }

    /// The same for a reader that comes from a fork, and has to go back for something.
    pub(crate) fn with_back(mut self, from: &Epoch, back: Option<Back>) -> Self {
        let Some(back) = back else { return self };
        if back.log.is_some()
            && back.log != log_of_fork(from)
            && let Some((node, _)) = begin_of_fork(from)
        {
            // It came there from another log: of what the fork goes on from it has not had all.
            self.had.keep_only(node);
        }
        if back.is_of(&self.to.epoch) {
            self.to.offset = back.to;
            self.skips = false;
            if back.after > back.to {
                // What it is owed comes after its time.
                self.late_to = self.late_to.max(back.after);
            }
            let has_more = back.until > back.to;
            let log = Some(self.to.epoch.clone());
            self.had.set_back(has_more.then_some(Back { log, is_away: false, ..back }));
            return self;
        }
        // That log is gone. What is owed was in it, so nothing is left out.
        Self { late_to: self.late_to, ..Self::unknown(Position { offset: 0, ..self.to }) }
    }

    /// The same for a reader at an offset of a log that is over.
    pub(crate) fn of_another_log(mut self, back: Option<Back>, offset: u64) -> Self {
        let Some(back) = back else { return self };
        if back.is_away {
            // What is owed may be of any producer.
            self.had.name_nothing();
        }
        if back.is_away || back.until > offset {
            self.had.doubt();
        }
        self
    }

    /// The same before the first entry of a life.
    pub fn beginning(epoch: Epoch) -> Self {
        Self::whole(Position { epoch, offset: 0 })
    }
}

impl Page {
    /// A page of a log that has no life.
    pub(super) fn of_no_log() -> Self {
        Self {
            epoch: None,
            top: 0,
            first: 1,
            out_of_reach: 0,
            is_final: false,
            is_copy: false,
            closed: false,
            entries: Vec::new(),
            next: None,
        }
    }
}

/// The place where one life of a log goes over into the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seam {
    /// What comes after the last entry of the life before comes after this position.
    pub to: Position,
    /// After it there may be entries that a reader of the life before has had.
    pub had: Had,
    /// Entries up to this offset were appended while the reader could not get them.
    pub late_to: u64,
    /// Nothing is missing in between, but for what `skips` says.
    pub whole: bool,
    /// The life after it had entries up to there that a reader of the life before has not had, unless it
    /// knows better where to go on.
    pub skips: bool,
}

/// What the backend tells without being asked.
#[derive(Debug, Clone)]
pub enum LogEvent {
    /// Entries that were appended by anyone, this node included, to a followed channel.
    /// Contiguous offsets, ascending.
    Appended {
        /// The channel.
        channel: ChannelName,
        /// The life of the log that they were appended in.
        epoch: Epoch,
        /// What was appended.
        entries: Vec<Entry>,
    },
    /// This channel must be read from the log: it has begun another life, or entries may have been
    /// missed.
    Changed(ChannelName),
    /// The same for every followed channel.
    Suspect,
}

/// Logs of entries by channel.
///
/// Promises, for each channel:
/// - Offsets count from 1 without holes, in one order that every reader sees.
/// - An append is atomic: of a batch, the entries that fit the producer's chain are applied
///   together, in order, next to each other. Nobody sees a part.
/// - An entry is applied only where the batch's epoch is the log's and `prev <= last < seq`, with
///   `last` the newest sequence of that producer; so a repeated append does nothing.
/// - After a terminal entry (see [`EntryKind::is_terminal`](crate::model::EntryKind::is_terminal))
///   nothing is applied any more: such an append is [`Appended::Refused`]. So is an entry whose
///   fence is older than one that was applied; an entry without a fence passes. A refused entry
///   leaves its producer's chain as it was, so that one which follows it there is a gap: after a
///   refusal in the same batch, that does not mean that the log lost something. Repeating what was
///   applied is still a duplicate. A new epoch knows of no fence and no terminal entry.
/// - An append never makes an epoch; only [`open`](Log::open) and [`begin`](Log::begin) do, where there is none.
///   Nothing else makes anything of a log that nobody has appended to: following and reading leave no trace.
/// - What is kept is bounded by entries, bytes and age: the oldest goes first. The updates of an
///   order have bounds of their own, and go together when the newest of them is too old. Positions
///   stay meaningful when entries go: a [`Page`] says from where on entries are kept.
/// - After [`follow`](Log::follow) has answered, every later append is told in
///   [`incoming`](Log::take_incoming), or [`LogEvent::Suspect`] is.
///
/// Not promised: that an append that failed did not take effect ([`StorageError`](super::StorageError)
/// tells); that events come before or after the answer to the append that caused them; that an
/// event comes only once.
///
/// Implementations spawn nothing they do not own, retry nothing, and survive being dropped in
/// mid-call: the call then may or may not have taken effect.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync {
    /// Where the log stands, as `producer` sees it. Makes nothing.
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState>;

    /// Where the log stands, for a `producer` that follows it; `None` where it has no epoch. Makes
    /// nothing. A node that answers by itself, because the log cannot be reached and nothing is known
    /// of it here, names the life that it would go on in.
    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>>;

    /// The same for a `producer` that is about to append; a log that has no epoch begins its life as
    /// `minted`: empty, offsets from 1, no producer known. That is a compare-and-set: whoever opens it
    /// at the same time is answered the same.
    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog>;

    /// Appends a batch; see the promises above.
    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer>;

    /// The same for the first entries of a log that has no epoch: its life begins as the batch's, and with them, in
    /// one step. Where it has an epoch, nothing is done ([`AppendAnswer::ForeignEpoch`]). Not to be repeated: an
    /// epoch is begun as once, and the log may be lost after that. Where there was no answer, [`open`](Log::open)
    /// tells what became of it.
    async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let OpenLog { epoch, .. } = self.open(&batch.channel, batch.producer, &batch.epoch).await?;
        if epoch == batch.epoch {
            self.append(batch).await
        } else {
            Ok(AppendAnswer::ForeignEpoch(Some(epoch)))
        }
    }

    /// The oldest entries after a position, or of all that are kept, `limit` of them at the most.
    /// Reading removes nothing. Where the position is of a life that the backend cannot follow up, the
    /// page is of the present life and has no entries: those are read from its own positions.
    async fn read_after(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page> {
        self.read_within(channel, after, PageLimit { entries: limit, bytes: usize::MAX }).await
    }

    /// The same, of no more bytes than that, but for an entry that alone is larger.
    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page>;

    /// A reader wants what is kept and cannot be reached: from here on it is served by a life of its own,
    /// from which it comes back for that. Does nothing where everything can be reached.
    async fn fork_for_readers(&self, _channel: &ChannelName) {}

    /// The latest entry of each key, in the order of the keys' bytes: the first `limit` after the key
    /// `after`, or fewer where they come to [`LATEST_BYTES_MAX`].
    async fn latest(&self, channel: &ChannelName, after: Option<&str>, limit: usize) -> Result<LatestPage> {
        let limit = PageLimit { entries: limit, bytes: LATEST_BYTES_MAX };
        self.latest_within(channel, after, limit, LatestOf::Keys).await
    }

    /// The same, of no more bytes than that (at most [`LATEST_BYTES_MAX`]), but for an entry that alone is
    /// larger.
    ///
    /// The latest is the one that was appended last, whatever its own time says. In the channel of a zone
    /// one that is marked late replaces only what is older: by sequence where both have the same producer, else
    /// by time, and of the same time by producer. A removal of the key, or of the zone, takes it away by the
    /// same rule, and is what a late one is compared with from then on, for [`REMOVED_KEPT_FOR`]. It is kept
    /// as long as the epoch is (see [`EPOCH_KEPT_FOR`]), even when the entry itself has been pushed out of
    /// the log, but in a zone no longer than [`key_age_s`](super::Retention::key_age_s) after its key was
    /// appended to. Entries without a key are not here.
    ///
    /// Each key is in one page at the most, as it was when that was read. All pages, those of their entries
    /// left out that are newer than what was `top` in the first one, are together what was latest there,
    /// for as long as `epoch` is the same in all, and `top` no smaller in a later one; but for keys that
    /// were changed after that.
    async fn latest_within(
        &self,
        channel: &ChannelName,
        after: Option<&str>,
        limit: PageLimit,
        of: LatestOf,
    ) -> Result<LatestPage>;

    /// The keys that have a latest entry, in the order of their bytes.
    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>>;

    /// Asks for the channel's appends in `incoming`. Answers when they are certain to come.
    /// Following twice is following once.
    async fn follow(&self, channel: &ChannelName) -> Result<()>;

    /// Ends what `follow` began. Events on their way may still come.
    async fn unfollow(&self, channel: &ChannelName) -> Result<()>;

    /// Entries from followed channels. There is one receiver: the first call gets it. A backend
    /// whose appends are all made by this process sends nothing here: its appends' answers tell all.
    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>>;
}
