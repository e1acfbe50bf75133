//! Pages of logs for readers that catch up: read once for all that want the same at about the same
//! time, encoded once, and bounded in all.
//!
//! After a restart thousands of readers come back to the same position. Whoever asks first reads; the
//! others wait for that, or are given what was read a moment ago. A page lives as long as something of
//! it waits for a reader, and what lives is counted. Where that is too much, pages are small: so a
//! reader that takes nothing holds little, and holds up nobody.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{self, Instant};

use super::live::LiveBatch;
use super::reader::Wanted;
use super::stats::ChannelStats;
use crate::model::{ChannelName, Entry, Lane, Position};
use crate::storage::{Page, PageLimit, SharedBackend, StorageError, is_fork};
use crate::support::chance::Hashing;

/// Bytes that one page is read for, and while there are too many of them.
const PAGE_BYTES: usize = 256 << 10;
const SMALL_PAGE_BYTES: usize = 16 << 10;

/// So many read from logs at once, and the others wait: what the storage is asked for all at once keeps it
/// from what must not wait, as the beats that tell whether it is there.
const READS_AT_ONCE: usize = 32;

/// How long a page is kept for others. Of the bytes that all pages may take, those that are kept are half.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// A page of a log, encoded for whoever reads it.
#[derive(Debug, Clone)]
pub(crate) struct EncodedPage {
    /// All that is said of it; the entries are in `batches`.
    pub(crate) head: Page,
    /// In ascending order, without holes between them; of each all are late, or none.
    pub(crate) batches: Vec<Arc<LiveBatch>>,
    bytes: usize,
}

impl EncodedPage {
    /// Encodes a page for readers to whom entries up to an offset come late; it is not counted.
    #[cfg(test)]
    pub(crate) fn encode(channel: &ChannelName, page: Page, late_to: u64) -> Self {
        Self::counted(channel, page, late_to, &Arc::default())
    }

    /// Encodes a page for readers to whom entries up to an offset come late. Its bytes count for as long
    /// as any of them live.
    fn counted(channel: &ChannelName, mut page: Page, late_to: u64, alive: &Arc<AtomicUsize>) -> Self {
        let entries = std::mem::take(&mut page.entries);
        let is_late = |entry: &Entry| entry.offset <= late_to || entry.draft.marks.late;
        let mut bytes = 0;
        let mut batches = Vec::new();
        if let Some(epoch) = &page.epoch {
            for run in entries.chunk_by(|a, b| is_late(a) == is_late(b)) {
                let late = run.first().is_some_and(is_late);
                // The lane does not matter: what is replayed is sent whole.
                let mut batch = LiveBatch::encode(channel, epoch, Lane::Every, late, run);
                bytes += batch.frames.len();
                batch.frames = Bytes::from_owner(Alive::new(batch.frames, alive));
                batches.push(Arc::new(batch));
            }
        }
        Self { head: page, batches, bytes }
    }

    fn last(&self) -> Option<u64> {
        self.batches.last().map(|batch| batch.last())
    }

    /// Whether it is an answer a moment later too. What is out of reach of a log may be within it the next
    /// moment; a fork stays as it is.
    fn may_be_kept(&self) -> bool {
        self.head.out_of_reach == 0 || self.head.epoch.as_ref().is_some_and(is_fork)
    }

    /// Whether it was read before something that the reader knows of was appended.
    fn is_behind(&self, wanted: &Wanted) -> bool {
        let Page { epoch, top, .. } = &self.head;
        wanted.seen.as_ref().is_some_and(|seen| epoch.as_ref() == Some(&seen.epoch) && *top < seen.offset)
    }

    /// Whether it answers a reader also when it was read before the reader asked: what it holds stays as
    /// it is, and either more follows, or it goes as far as the reader knows the log to go.
    fn answers(&self, wanted: &Wanted) -> bool {
        let Page { epoch, top, next, .. } = &self.head;
        let is_of_it = wanted.after.as_ref().is_none_or(|after| epoch.as_ref() == Some(&after.epoch));
        let is_full = self.last().is_some_and(|last| last < *top);
        let is_fresh = wanted
            .seen
            .as_ref()
            .is_some_and(|seen| epoch.as_ref() == Some(&seen.epoch) && seen.offset <= *top && next.is_none());
        // Who waits for something of the log itself wants to know when that can be read.
        let is_too_early = wanted.is_owed && self.head.is_copy && !epoch.as_ref().is_some_and(is_fork);
        is_of_it && !is_too_early && (is_full || is_fresh)
    }
}

/// Bytes that count for as long as any part of them lives.
struct Alive {
    bytes: Bytes,
    count: Arc<AtomicUsize>,
}

impl Alive {
    fn new(bytes: Bytes, count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes, count: Arc::clone(count) }
    }
}

impl AsRef<[u8]> for Alive {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

type Answer = Result<Arc<EncodedPage>, Arc<StorageError>>;
type Reading = BoxFuture<'static, Answer>;

/// Which page of a channel: what follows a position, and up to which offset that is late.
type Which = (Option<Position>, u64);

/// The pages of all channels of a node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pages(Arc<Inner>);

struct Inner {
    /// Places for those that read a log.
    reads: Semaphore,
    backend: SharedBackend,
    stats: Arc<ChannelStats>,
    state: Mutex<State>,
    /// Bytes of pages that live, or are being read.
    alive: Arc<AtomicUsize>,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    channels: HashMap<ChannelName, HashMap<Which, Slot, Hashing>, Hashing>,
    /// What is kept, the oldest first, and its bytes. What was replaced or forgotten since is in it too.
    kept: VecDeque<(Instant, ChannelName, Which)>,
    kept_bytes: usize,
}

#[derive(Default)]
struct Slot {
    reading: Option<WeakShared<Reading>>,
    kept: Option<(Instant, Arc<EncodedPage>)>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Pages {
    /// Past so many bytes of pages that live, pages are small.
    pub(super) fn new(backend: SharedBackend, stats: Arc<ChannelStats>, bytes_max: usize) -> Self {
        let (state, alive) = (Mutex::default(), Arc::default());
        let reads = Semaphore::new(READS_AT_ONCE);
        Self(Arc::new(Inner { reads, backend, stats, state, alive, bytes_max }))
    }

    /// Waits for a place to read from a log, or from what is kept beside it, for as long as it is held.
    pub(super) async fn place_to_read(&self) -> Option<SemaphorePermit<'_>> {
        self.0.reads.acquire().await.ok()
    }

    /// Bytes of all pages that live or are being read.
    pub(super) fn bytes(&self) -> usize {
        self.0.alive.load(Ordering::Relaxed)
    }

    /// What a reader wants, of at most so many entries.
    pub(super) async fn get(&self, channel: &ChannelName, wanted: &Wanted, entries: usize) -> Answer {
        loop {
            let (reading, is_mine) = match self.find_or_begin(channel, wanted, entries) {
                Ok(page) => {
                    self.0.stats.pages_shared.add(1);
                    return Ok(page);
                }
                Err(reading) => reading,
            };
            let answer = reading.await;
            if is_mine {
                return answer;
            }
            // Another one began to read before this one asked: what was appended in between is missing.
            match answer {
                Ok(page) if page.is_behind(wanted) => {}
                answer => {
                    self.0.stats.pages_shared.add(1);
                    return answer;
                }
            }
        }
    }

    /// What was read a moment ago; or a read that is under way, and whether that begins here.
    fn find_or_begin(
        &self,
        channel: &ChannelName,
        wanted: &Wanted,
        entries: usize,
    ) -> Result<Arc<EncodedPage>, (Shared<Reading>, bool)> {
        let now = Instant::now();
        let mut state = self.0.state.lock();
        state.expire(now, self.0.bytes_max / 2);
        let which: Which = (wanted.after.clone(), wanted.late_to);
        let slots = state.channels.entry(channel.clone()).or_default();
        let slot = slots.entry(which.clone()).or_default();
        let kept = slot.kept.as_ref().filter(|(_, page)| page.answers(wanted));
        if let Some((_, page)) = kept {
            return Ok(Arc::clone(page));
        }
        if let Some(reading) = slot.reading.as_ref().and_then(WeakShared::upgrade)
            && reading.peek().is_none()
        {
            return Err((reading, false));
        }
        let reading = self.clone().read(channel.clone(), which.clone(), entries).boxed().shared();
        slot.reading = reading.downgrade();
        // Should it be given up by all, it is forgotten in time.
        state.kept.push_back((now, channel.clone(), which));
        Err((reading, true))
    }

    async fn read(self, channel: ChannelName, which: Which, entries: usize) -> Answer {
        let inner = &self.0;
        let _place = self.place_to_read().await;
        let is_too_much = inner.alive.load(Ordering::Relaxed) >= inner.bytes_max;
        if is_too_much {
            inner.state.lock().expire(Instant::now(), 0);
        }
        let bytes = if is_too_much { SMALL_PAGE_BYTES } else { PAGE_BYTES };
        // What is on its way counts already.
        let _reserved = Reserved::new(bytes, &inner.alive);
        inner.stats.pages_read.add(1);
        let (after, late_to) = &which;
        let limit = PageLimit { entries, bytes };
        let page = inner.backend.read_within(&channel, after.as_ref(), limit).await.map_err(Arc::new)?;
        let page = Arc::new(EncodedPage::counted(&channel, page, *late_to, &inner.alive));
        if !is_too_much && !page.batches.is_empty() && page.may_be_kept() {
            inner.state.lock().keep(channel, which, &page, inner.bytes_max / 2);
        }
        Ok(page)
    }

    /// Lets go of what was kept long enough, also where nobody asks any more. Ends with the pages.
    pub(super) fn tidying(&self) -> impl Future<Output = ()> + Send + use<> {
        let pages = Arc::downgrade(&self.0);
        async move {
            loop {
                time::sleep(KEPT_FOR / 2).await;
                let Some(pages) = pages.upgrade() else { return };
                pages.state.lock().expire(Instant::now(), pages.bytes_max / 2);
            }
        }
    }

    /// The log of a channel is another one, or may be: what was read before is not given to others.
    pub(super) fn forget(&self, channel: &ChannelName) {
        let mut state = self.0.state.lock();
        let slots = state.channels.remove(channel);
        let kept = slots.iter().flat_map(HashMap::values).filter_map(|slot| slot.kept.as_ref());
        state.kept_bytes -= kept.map(|(_, page)| page.bytes).sum::<usize>();
    }
}

impl State {
    fn keep(&mut self, channel: ChannelName, which: Which, page: &Arc<EncodedPage>, kept_max: usize) {
        let now = Instant::now();
        // Where the channel was forgotten meanwhile, so was this.
        let Some(slot) = self.channels.get_mut(&channel).and_then(|slots| slots.get_mut(&which)) else {
            return;
        };
        let before = slot.kept.replace((now, Arc::clone(page)));
        self.kept_bytes += page.bytes;
        self.kept_bytes -= before.map_or(0, |(_, page)| page.bytes);
        self.kept.push_back((now, channel, which));
        self.expire(now, kept_max);
    }

    /// Lets go of what was kept long enough, and of more where there are too many bytes of it.
    fn expire(&mut self, now: Instant, bytes_max: usize) {
        while let Some((at, channel, which)) = self.kept.front()
            && (self.kept_bytes > bytes_max || now.duration_since(*at) >= KEPT_FOR)
        {
            let mut is_read = false;
            if let Some(slots) = self.channels.get_mut(channel) {
                if let Some(slot) = slots.get_mut(which) {
                    if slot.kept.as_ref().is_some_and(|(kept_at, _)| kept_at == at)
                        && let Some((_, page)) = slot.kept.take()
                    {
                        self.kept_bytes -= page.bytes;
                    }
                    is_read = slot.reading.as_ref().is_some_and(|reading| reading.upgrade().is_some());
                    if slot.kept.is_none() && !is_read {
                        slots.remove(which);
                    }
                }
                if slots.is_empty() {
                    self.channels.remove(channel);
                }
            }
            if let Some((_, channel, which)) = self.kept.pop_front()
                && is_read
            {
                // Looked at again once it has been read, or given up.
                self.kept.push_back((now, channel, which));
            }
        }
    }
}

/// Bytes that count until this is dropped.
struct Reserved {
    bytes: usize,
    count: Arc<AtomicUsize>,
}

impl Reserved {
    fn new(bytes: usize, count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, count: Arc::clone(count) }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
