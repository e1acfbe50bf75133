//! Carries one type of events from log to log.
//!
//! An entry is appended under its own id: its producer, and that producer's sequence. A log applies each
//! sequence of a producer once, so appending an entry that the target already has changes nothing, whether it
//! was accepted there, came another way, was carried by another relay, or an answer was lost. The target's
//! log itself shows how far each producer is, so correctness depends on no other record: the position that is
//! stored at the target only saves reading what was carried before.

mod target;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use tokio::sync::{Notify, mpsc};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Shared, note_failure};
use crate::model::{ChannelName, Entry, Epoch, EventType, Position};
use crate::storage::{Log as _, PageLimit, RecordKind, Records as _, Result as StorageResult};
use crate::support::backoff::STORAGE_RETRY;
use crate::support::seldom::Seldom;
use target::Target;

/// How many batches of appended entries wait for a type; beyond that, the log is read.
pub(super) const TAIL_LEN: usize = 64;

/// The limit of one read of the log, and of the notified entries that are carried together.
const PAGE: PageLimit = PageLimit { entries: 500, bytes: 1 << 20 };

/// How often both logs are examined in any case: announcements may have been lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often the position is stored at the target, and for how long.
const NOTE_EVERY: Duration = Duration::from_secs(1);
const NOTED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// An entry that is older than this when it is read from the log is marked `late`; announced ones are not.
const LATE_AFTER: chrono::TimeDelta = chrono::TimeDelta::seconds(2);

/// How long the work in progress may take when the process stops.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Entries that were appended to the source's log, as its Redis announces them.
pub(super) type Tail = (Epoch, Vec<Entry>);

pub(super) struct Carrier {
    shared: Arc<Shared>,
    event: EventType,
    channel: ChannelName,
    tail: mpsc::Receiver<Tail>,
    /// Notified when announcements may be missing.
    suspect: Arc<Notify>,
    /// How far the source's log was carried; `None` if it is to be read from its oldest entry.
    at: Option<Position>,
    /// Whether entries before the next one left the source's log before they were carried.
    has_missed: bool,
    /// Whether the log is followed and the stored position was looked up.
    is_begun: bool,
    target: Target,
    noted: Option<Position>,
    note_at: Instant,
    of_failures: Seldom,
}

impl Carrier {
    pub(super) fn new(
        shared: Arc<Shared>,
        event: EventType,
        tail: mpsc::Receiver<Tail>,
        suspect: Arc<Notify>,
    ) -> Self {
        let channel = ChannelName::event(event);
        Self {
            target: Target::new(channel.clone()),
            shared,
            event,
            channel,
            tail,
            suspect,
            at: None,
            has_missed: false,
            is_begun: false,
            noted: None,
            note_at: Instant::now(),
            of_failures: Seldom::default(),
        }
    }

    /// Carries until `stop`, while this process has the lease. Work in progress is then completed, if that
    /// takes no longer than two seconds.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let ended = async {
            stop.cancelled().await;
            time::sleep(LAST_PATIENCE).await;
        };
        tokio::pin!(ended);
        while !stop.is_cancelled() {
            tokio::select! {
                () = shared.leases.until(self.event, true) => {}
                () = stop.cancelled() => return,
            }
            let carrying = self.carry_while_ours(&stop);
            tokio::select! {
                () = carrying => {}
                () = &mut ended => return,
            }
        }
        // This saves the next carrier some reading.
        let noting = self.note(true);
        tokio::select! {
            noted = noting => if let Err(error) = noted {
                note_failure(&shared, &mut Seldom::default(), self.event, &error);
            },
            () = &mut ended => {}
        }
    }

    async fn carry_while_ours(&mut self, stop: &CancellationToken) {
        let shared = Arc::clone(&self.shared);
        let (mut failures, mut is_behind) = (0, true);
        while shared.leases.of(self.event).is_ours() && !stop.is_cancelled() {
            let carried = if is_behind { self.read().await } else { self.wait(stop).await };
            match carried {
                Ok(has_more) => (failures, is_behind) = (0, has_more),
                Err(error) => {
                    failures += 1;
                    note_failure(&shared, &mut self.of_failures, self.event, &error);
                    is_behind = true;
                    tokio::select! {
                        () = STORAGE_RETRY.pause(failures) => {}
                        () = stop.cancelled() => {}
                    }
                }
            }
        }
        if shared.leases.of(self.event).is_anothers {
            // The relay that carries now stores its position, which `begin` looks up.
            self.is_begun = false;
            self.shared.counts.behind.of(self.event).set(0);
            if let Err(error) = shared.from.backend.unfollow(&self.channel).await {
                note_failure(&shared, &mut self.of_failures, self.event, &error);
            }
        }
    }

    /// Follows the log, and looks up how far it was carried.
    async fn begin(&mut self) -> StorageResult<()> {
        let shared = Arc::clone(&self.shared);
        shared.from.backend.follow(&self.channel).await?;
        let noted = shared.to.backend.get(RecordKind::Relay, &self.note_key()).await?;
        let noted = noted.as_deref().and_then(|noted| std::str::from_utf8(noted).ok());
        // A stored position that cannot be read saves nothing, and does no other harm.
        self.at = noted.and_then(|noted| noted.parse().ok());
        self.noted.clone_from(&self.at);
        self.target.forget();
        self.is_begun = true;
        Ok(())
    }

    fn note_key(&self) -> String {
        format!("{}:{}", self.shared.from.fleet(), self.event)
    }

    /// Stores the position if it has changed and was not stored a moment ago. It is never ahead of the
    /// target's log.
    async fn note(&mut self, at_once: bool) -> StorageResult<()> {
        let Some(at) = self.at.clone().filter(|at| self.noted.as_ref() != Some(at)) else { return Ok(()) };
        if !at_once && Instant::now() < self.note_at {
            return Ok(());
        }
        let value = Bytes::from(at.to_string());
        self.shared.to.backend.put(RecordKind::Relay, &self.note_key(), value, NOTED_FOR).await?;
        (self.noted, self.note_at) = (Some(at), Instant::now() + NOTE_EVERY);
        Ok(())
    }

    /// Carries the next entries of the log. Returns whether it may have more.
    async fn read(&mut self) -> StorageResult<bool> {
        if !self.is_begun {
            self.begin().await?;
        }
        let shared = Arc::clone(&self.shared);
        let page = shared.from.backend.read_within(&self.channel, self.at.as_ref(), PAGE).await?;
        let Some(epoch) = page.epoch else {
            // The log does not exist or was lost: its entries are at the target, or beyond reach.
            self.at = None;
            shared.counts.behind.of(self.event).set(0);
            return Ok(false);
        };
        if self.at.as_ref().is_some_and(|at| at.epoch != epoch || at.offset > page.top) {
            self.begin_anew("the source's log has a new epoch");
            return Ok(true);
        }
        let gone = page.first.saturating_sub(1);
        if let Some(at) = &self.at
            && gone > at.offset
        {
            let count = gone - at.offset;
            warn!(event = self.event.as_str(), count, "events were gone before they were carried");
            shared.counts.missed.of(self.event).add(count);
            self.has_missed = true;
        }
        let after = self.at.as_ref().map_or(gone, |at| at.offset.max(gone));
        // The position is past the missing entries now, so a retry does not count them again.
        self.at = Some(Position { epoch, offset: after });
        shared.counts.behind.of(self.event).set(page.top - after);
        let mut entries = page.entries;
        let now = Utc::now();
        for entry in &mut entries {
            // The target may have a newer entry of the same key by now.
            entry.draft.marks.late |= now - entry.draft.time > LATE_AFTER;
        }
        if !self.carry(entries).await? {
            return Ok(true);
        }
        let offset = self.at.as_ref().map_or(0, |at| at.offset);
        shared.counts.behind.of(self.event).set(page.top.saturating_sub(offset));
        self.note(false).await?;
        Ok(offset < page.top && offset > after)
    }

    /// Carries entries as they are announced; looks at the target's log now and then. Returns whether the source's log
    /// is to be read.
    async fn wait(&mut self, stop: &CancellationToken) -> StorageResult<bool> {
        let look_at = Instant::now() + LOOK_EVERY;
        loop {
            let is_noted = self.at == self.noted;
            let due = if is_noted { look_at } else { look_at.min(self.note_at) };
            let (suspect, shared) = (Arc::clone(&self.suspect), Arc::clone(&self.shared));
            let notified = tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = shared.leases.until(self.event, false) => return Ok(false),
                () = suspect.notified() => return Ok(true),
                tail = self.tail.recv() => tail,
                () = time::sleep_until(due) => None,
            };
            match notified {
                Some(tail) => {
                    if !self.take(tail).await? {
                        return Ok(true);
                    }
                    self.note(false).await?;
                }
                None if Instant::now() >= look_at => {
                    if let Some(why) = self.target.look(&self.shared, false).await? {
                        self.begin_anew(why);
                    }
                    return Ok(true);
                }
                None => self.note(true).await?,
            }
        }
    }

    /// Carries announced entries, together with those that are queued after them. False if the log must be
    /// read.
    async fn take(&mut self, first: Tail) -> StorageResult<bool> {
        let Some(at) = self.at.clone() else { return Ok(false) };
        let (mut entries, mut next) = (Vec::new(), Some(first));
        let mut last = at.offset;
        while let Some((epoch, come)) = next {
            let follows = come.first().is_some_and(|first| first.offset <= last + 1);
            if epoch != at.epoch || !follows {
                return Ok(false);
            }
            entries.extend(come.into_iter().filter(|entry| entry.offset > last));
            last = entries.last().map_or(last, |entry| entry.offset);
            let has_room = entries.len() < PAGE.entries;
            next = if has_room { self.tail.try_recv().ok() } else { None };
        }
        self.carry(entries).await
    }

    /// Makes the next read begin with the log's oldest entry. What the target has is not appended again.
    fn begin_anew(&mut self, why: &'static str) {
        info!(event = self.event.as_str(), why, "going through the log from its oldest entry");
        self.shared.counts.begun_anew.of(self.event).add(1);
        (self.at, self.noted) = (None, None);
        self.target.sent.clear();
    }

    /// Carries consecutive entries to the target, and moves the position past them. False if the log must be
    /// gone through from its beginning.
    async fn carry(&mut self, mut entries: Vec<Entry>) -> StorageResult<bool> {
        let Some(last) = entries.last().map(|last| last.offset) else { return Ok(true) };
        let newest = entries.last().map(|last| last.draft.time);
        let counts = &self.shared.counts;
        let all = entries.len();
        entries.retain(|entry| entry.id.is_known());
        let unreadable = all - entries.len();
        let readable = entries.len();
        if let Some(first) = entries.first_mut().filter(|_| self.has_missed) {
            first.draft.marks.missed_before = true;
        }
        let shared = Arc::clone(&self.shared);
        let (by_us, anew) = self.target.put(&shared, &entries).await?;
        counts.carried.of(self.event).add(by_us as u64);
        if let Some(why) = anew {
            self.begin_anew(why);
            return Ok(false);
        }
        counts.already_there.of(self.event).add((readable - by_us) as u64);
        if by_us > 0
            && let Some(newest) = newest
        {
            let lag_ms = (Utc::now() - newest).num_milliseconds().max(0);
            counts.lag.of(self.event).set(lag_ms.unsigned_abs());
        }
        if unreadable > 0 {
            warn!(event = self.event.as_str(), count = unreadable, "unreadable entries are not carried");
            counts.unreadable.of(self.event).add(unreadable as u64);
        }
        self.has_missed &= readable == 0;
        if let Some(at) = &mut self.at {
            at.offset = last;
        }
        Ok(true)
    }
}
