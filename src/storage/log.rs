//! The log role: named, ordered, bounded logs of entries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::epoch_name::{begin_of_fork, log_of_fork};
use super::{Result, ReturnPoint, VersionVector};
use crate::model::{ChannelName, DraftEntry, Entry, EntryId, Epoch, NodeId, Position};

/// How long a log's epoch, top offset and latest entries are kept after its last append, on top of the
/// retention age of its entries, so that a market that publishes once a day keeps its positions. Also how
/// long a silent producer is remembered while others append.
pub const EPOCH_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// The same for a log that was opened and never appended to: its producer may be gone.
pub const UNUSED_EPOCH_KEPT_FOR: Duration = Duration::from_secs(3600);

/// How long the removal of a key, or of all keys of a channel, is remembered, so that an older entry that
/// waited in a gateway's journal does not bring a key back. With default settings that is longer than entries
/// wait, even if a gateway restarts with a spool.
pub const REMOVED_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// The most removals that are remembered per channel; the oldest are dropped.
pub const REMOVED_MAX: usize = 10_000;

/// The state of a log, as one producer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogState {
    /// The epoch of the log; `None` if it never had one, or was lost.
    pub epoch: Option<Epoch>,
    /// The newest offset assigned in this epoch; 0 if there is none.
    pub top: u64,
    /// The newest sequence of `producer` that was applied in this epoch; 0 if there is none.
    pub last_seq: u64,
}

/// The state of a log that has an epoch, as one producer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLog {
    /// The epoch of the log.
    pub epoch: Epoch,
    /// The newest offset assigned in this epoch; 0 if there is none.
    pub top: u64,
    /// The newest sequence of `producer` that was applied in this epoch; 0 if there is none, or if the
    /// producer was silent for longer than [`EPOCH_KEPT_FOR`] while others appended.
    pub last_seq: u64,
    /// The newest sequence of each producer that the log remembers and whose entries may come again if the
    /// log loses them: producers that appended within twice the retention age.
    pub producers: Vec<(NodeId, u64)>,
    /// The newest entry or, in the answer to `examine`, the entry at the offset that was asked for if it is
    /// kept; `None` if no entry is kept.
    pub anchor: Option<Anchor>,
}

impl OpenLog {
    /// A log that begins with this epoch, empty.
    pub(crate) fn begun_as(epoch: Epoch) -> Self {
        Self { epoch, top: 0, last_seq: 0, producers: Vec::new(), anchor: None }
    }
}

/// An entry and its offset. Entries do not move, so two states of a log in one epoch that have the same entry
/// at an offset are equal up to it. A log that has another entry there, or ends before it, was set back:
/// restored from an older copy, or taken over by a replica that lagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Its offset.
    pub offset: u64,
    /// Its id.
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
    /// The producer's sequence before this one. A producer that drops an entry passes that entry's `prev` on
    /// to the next one.
    pub prev: u64,
    /// The content.
    pub draft: DraftEntry,
    /// The fencing token of the lease under which it is appended (see [`Jobs`](super::Jobs)); `None` if none
    /// is needed.
    pub fence: Option<u64>,
}

impl Append {
    /// The entry at an offset of the log.
    pub(super) fn at(&self, producer: NodeId, offset: u64) -> Entry {
        Entry { offset, id: EntryId { producer, seq: self.seq }, draft: self.draft.clone() }
    }
}

/// Entries of one producer for one channel, in the producer's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendBatch {
    /// The channel.
    pub channel: ChannelName,
    /// The batch is applied only if the log is in this epoch.
    pub epoch: Epoch,
    /// The producer.
    pub producer: NodeId,
    /// The entries, in ascending `seq`.
    pub entries: Vec<Append>,
}

/// The outcome of one entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The log has it at this offset.
    Applied {
        /// Its offset.
        offset: u64,
    },
    /// This entry, or a later one of this producer, was applied before; nothing was changed.
    Duplicate,
    /// An entry before it is missing (`prev` was not reached); nothing was changed.
    Gap {
        /// The newest sequence of this producer that was applied.
        last: u64,
    },
    /// The log will never accept it; nothing was changed.
    Refused(Refusal),
}

/// Why a log will never accept an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody has appended under a newer lease.
    #[error("it was appended under lease {fence}, but somebody has since appended under lease {newest}")]
    StaleFence {
        /// The entry's fence.
        fence: u64,
        /// The newest fence that the log has seen.
        newest: u64,
    },
    /// The log has a terminal entry, after which it accepts nothing.
    #[error("nothing may follow a terminal update")]
    Closed,
}

/// The outcome of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendAnswer {
    /// The epochs matched; one result for each entry, in order.
    Done(Vec<Appended>),
    /// The log is in another epoch, or has none (`None`); nothing was changed.
    ForeignEpoch(Option<Epoch>),
}

/// How much of a log is read in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// The most entries.
    pub entries: usize,
    /// The most bytes of entries, approximately. At least one entry is read.
    pub bytes: usize,
}

/// A part of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The epoch that the whole page is of: the one of the requested position if the backend knows how that
    /// epoch continued, otherwise the present one; `None` if there is none.
    pub epoch: Option<Epoch>,
    /// The newest offset assigned in this epoch, whether or not it is in this page.
    pub top: u64,
    /// The oldest offset that can be read; `top + 1` if there is none.
    pub first: u64,
    /// Entries up to this offset may be kept where they cannot be reached now; others before `first` are
    /// gone. 0 if everything that is kept can be read.
    pub out_of_reach: u64,
    /// No other node has this log, and no entry will be added to it that a reader has had in another epoch.
    pub is_final: bool,
    /// The page is from this node's local replica of a log that cannot be reached, and that may go on after
    /// `top`.
    pub is_copy: bool,
    /// A terminal entry was appended in this epoch, so `top` is final.
    pub closed: bool,
    /// Entries in ascending order of offset, without holes. Empty if the epoch is not the requested one.
    pub entries: Vec<Entry>,
    /// The epoch transition at `top`, if this epoch has ended and the transition is known.
    pub next: Option<EpochTransition>,
}

/// The most bytes of entries in one page of [`Log::latest`]; a page has at least one entry. Callers may ask
/// for smaller pages, to which the same applies.
pub const LATEST_BYTES_MAX: usize = 1 << 20;

/// Which latest entries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LatestOf {
    /// Latest entries of the keys that have one.
    Keys,
    /// Also the removals that are remembered: the removal of a key in the key's place, the removal of all
    /// keys before everything else. For callers that compare late entries with them.
    RemovedToo,
}

/// Which page of the latest entries of a channel is read.
#[derive(Debug, Clone, Copy)]
pub struct LatestQuery<'a> {
    /// It begins after this key; `None`: with the first.
    pub after: Option<&'a str>,
    /// The most entries and bytes of the page. More than [`LATEST_BYTES_MAX`] bytes must not be asked for.
    pub limit: PageLimit,
    /// Which entries.
    pub of: LatestOf,
}

/// A part of the latest entries of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LatestPage {
    /// One entry for each key, in the order of the keys' bytes.
    pub entries: Vec<Entry>,
    /// The offset of each entry in this epoch; 0 if the entry is from an earlier epoch.
    pub places: Vec<u64>,
    /// The last key that was considered, if more may follow.
    pub next: Option<String>,
    /// The epoch of the log when the page was read; `None` if it had none. Not set for orders.
    pub epoch: Option<Epoch>,
    /// The newest offset at that time: no entry up to it is newer than the one of its key in the page.
    pub top: u64,
    /// The page is from this node's local replica of a log that cannot be reached, which may have more keys
    /// and newer entries.
    pub is_copy: bool,
}

impl EpochTransition {
    /// A transition at which nothing is missing and nothing comes again.
    pub fn whole(to: Position) -> Self {
        Self { to, had: VersionVector::default(), late_to: 0, whole: true, skips: false }
    }

    /// A transition of which nothing is known: neither what a reader has had, nor what is missing.
    pub fn unknown(to: Position) -> Self {
        Self { had: VersionVector::unknown(), whole: false, ..Self::whole(to) }
    }

    /// The same transition for a reader that comes from a fork and has a return point.
    pub(crate) fn with_back(mut self, from: &Epoch, back: Option<ReturnPoint>) -> Self {
        let Some(back) = back else { return self };
        if back.log.is_some()
            && back.log != log_of_fork(from)
            && let Some((node, _)) = begin_of_fork(from)
        {
            // The reader came to the fork from another log, so it has not had all of the log that the fork
            // continues.
            self.had.keep_only(node);
        }
        if back.is_of(&self.to.epoch) {
            self.to.offset = back.to;
            self.skips = false;
            if back.after > back.to {
                // What the reader is owed arrives late.
                self.late_to = self.late_to.max(back.after);
            }
            let has_more = back.until > back.to;
            let log = Some(self.to.epoch.clone());
            self.had.set_back(has_more.then_some(ReturnPoint { log, is_away: false, ..back }));
            return self;
        }
        // The log of the return point is gone. What the reader was owed was in that log, so nothing is
        // skipped.
        Self { late_to: self.late_to, ..Self::unknown(Position { offset: 0, ..self.to }) }
    }

    /// The same transition for a reader at an offset of a log that has ended.
    pub(crate) fn of_another_log(mut self, back: Option<ReturnPoint>, offset: u64) -> Self {
        let Some(back) = back else { return self };
        if back.is_away {
            // Entries that the reader is owed may be of any producer.
            self.had.name_nothing();
        }
        if back.is_away || back.until > offset {
            self.had.doubt();
        }
        self
    }

    /// A transition to the beginning of an epoch.
    pub fn beginning(epoch: Epoch) -> Self {
        Self::whole(Position { epoch, offset: 0 })
    }
}

impl Page {
    /// A page of a log that has no epoch.
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

/// An epoch transition: where one epoch of a log ends, and the next one continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochTransition {
    /// The last entry of the old epoch is followed by what comes after this position.
    pub to: Position,
    /// What a reader of the old epoch has had that may come after `to`.
    pub had: VersionVector,
    /// Entries up to this offset were appended while the reader could not get them, so they are late.
    pub late_to: u64,
    /// Nothing is missing in between, except what `skips` says.
    pub whole: bool,
    /// The new epoch has entries up to `to` that a reader of the old one has not had, unless the reader has a
    /// return point.
    pub skips: bool,
}

/// What the backend reports without being asked.
#[derive(Debug, Clone)]
pub enum LogEvent {
    /// Entries appended to a followed channel by any node, including this one. Contiguous offsets, ascending.
    Appended {
        /// The channel.
        channel: ChannelName,
        /// The epoch that they were appended in.
        epoch: Epoch,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// The channel has to be read from the log: its epoch changed, or entries may have been missed.
    Changed(ChannelName),
    /// All followed channels have to be read from their logs.
    Suspect,
}

/// Logs of entries by channel.
///
/// Promises, for each channel:
/// - Offsets count from 1 without holes, in one order that every reader sees.
/// - An append is atomic: the entries of a batch that fit the producer's chain are applied together, in
///   order, at adjacent offsets. Nobody sees a part of them.
/// - An entry is applied only if the batch's epoch is the log's and `prev <= last < seq`, with `last` the
///   newest sequence of that producer; so repeating an append changes nothing.
/// - After a terminal entry (see [`EntryKind::is_terminal`](crate::model::EntryKind::is_terminal)) nothing is
///   applied any more: such an append is [`Appended::Refused`]. So is an entry whose fence is older than one
///   that was applied; an entry without a fence passes. A refused entry leaves its producer's chain as it
///   was, so the next entry of the chain is a gap: after a refusal in the same batch, a gap does not mean
///   that the log lost something. Repeating an applied entry is still a duplicate. A new epoch starts without
///   fence and without terminal entry.
/// - An append never creates an epoch; only [`open`](Log::open) and [`begin`](Log::begin) do, if there is
///   none. Nothing else creates anything for a log that nobody has appended to: following and reading leave
///   no trace.
/// - Retention is bounded by entries, bytes and age, and removes the oldest first. The updates of an order
///   have their own bounds, and expire together when the newest of them is too old. Positions stay meaningful
///   when entries expire: a [`Page`] says from which offset on entries are kept.
/// - After [`follow`](Log::follow) has returned, every later append is reported in
///   [`incoming`](Log::take_incoming), or [`LogEvent::Suspect`] is.
///
/// Not promised: that a failed append did not take effect ([`StorageError`](super::StorageError) tells); that
/// events come before or after the answer to the append that caused them; that an event comes only once.
///
/// Implementations spawn nothing they do not own, retry nothing, and may be dropped mid-call: the call then
/// may or may not have taken effect.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync {
    /// The state of the log, as `producer` sees it. Creates nothing.
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        let found = self.find(channel, producer).await?;
        let state = |OpenLog { epoch, top, last_seq, .. }| LogState { epoch: Some(epoch), top, last_seq };
        Ok(found.map(state).unwrap_or_default())
    }

    /// The state of the log, for a `producer` that follows it; `None` if it has no epoch. Creates nothing. If
    /// the log cannot be reached and this node has no replica of it, the answer names the fork that this node
    /// would continue in.
    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>>;

    /// The same for a `producer` that is about to append. A log that has no epoch begins with the epoch
    /// `minted`: empty, offsets from 1, no producers. That is a compare-and-set: callers that open the log at
    /// the same time get the same answer.
    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog>;

    /// Appends a batch, as promised above.
    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer>;

    /// Appends the first entries of a log that has no epoch: in one step, the log begins with the batch's
    /// epoch and with these entries. If the log has an epoch, nothing is changed
    /// ([`AppendAnswer::ForeignEpoch`]). Do not repeat the call: the log may have been lost since, and would
    /// begin again with the same epoch. If there was no answer, [`open`](Log::open) shows the outcome.
    async fn begin(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let OpenLog { epoch, .. } = self.open(&batch.channel, batch.producer, &batch.epoch).await?;
        if epoch == batch.epoch {
            self.append(batch).await
        } else {
            Ok(AppendAnswer::ForeignEpoch(Some(epoch)))
        }
    }

    /// The oldest entries after a position, or of all that are kept; at most `limit`. Reading removes
    /// nothing. If the backend cannot continue from the position's epoch, the page is of the present epoch
    /// and has no entries: read those from positions of that epoch.
    async fn read_after(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page> {
        self.read_within(channel, after, PageLimit { entries: limit, bytes: usize::MAX }).await
    }

    /// The same, limited also in bytes; a single entry may be larger.
    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page>;

    /// A reader wants entries that are kept but cannot be reached: from here on a fork serves it, and when
    /// the fork ends the reader goes back for them. Does nothing if everything can be reached.
    async fn fork_for_readers(&self, _channel: &ChannelName) {}

    /// The latest entry of each key, in byte order of the keys: the first `limit` after the key `after`, or
    /// fewer if they exceed [`LATEST_BYTES_MAX`].
    async fn latest(&self, channel: &ChannelName, after: Option<&str>, limit: usize) -> Result<LatestPage> {
        let limit = PageLimit { entries: limit, bytes: LATEST_BYTES_MAX };
        self.latest_within(channel, LatestQuery { after, limit, of: LatestOf::Keys }).await
    }

    /// The page of the latest entries that the query asks for, limited also in bytes; a page of a single entry
    /// may exceed that limit.
    ///
    /// The latest entry is the one that was appended last, whatever its own time is. In the channel of a
    /// zone, an entry that is marked late replaces only an older one: by sequence if both have the same
    /// producer, otherwise by time, and at equal times by producer. A removal of the key, or of the zone,
    /// removes the latest entry by the same rule; from then on late entries are compared with the removal,
    /// for [`REMOVED_KEPT_FOR`]. A latest entry is kept as long as the epoch is (see [`EPOCH_KEPT_FOR`]),
    /// even after the log has dropped the entry itself; in a zone, no longer than
    /// [`key_age_s`](super::Retention::key_age_s) after the last append to its key. Entries without a key are
    /// not included.
    ///
    /// Each key is in at most one page, as it was when that page was read. All pages together, without
    /// entries newer than `top` of the first page, are the state at that `top`, except for keys that changed
    /// after it. That holds while `epoch` is the same in all pages and `top` never decreases.
    async fn latest_within(&self, channel: &ChannelName, query: LatestQuery<'_>) -> Result<LatestPage>;

    /// The keys that have a latest entry, in byte order.
    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>>;

    /// Subscribes to the channel's appends, which come in `incoming`. Returns when they are certain to come.
    /// Following twice is the same as following once.
    async fn follow(&self, channel: &ChannelName) -> Result<()>;

    /// Ends what `follow` began. Events in transit may still come.
    async fn unfollow(&self, channel: &ChannelName) -> Result<()>;

    /// Entries from followed channels. There is one receiver: the first call gets it. A backend that only
    /// this process appends to sends nothing here, because the answers to the appends say everything.
    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>>;
}
