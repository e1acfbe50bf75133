//! Pages of logs for readers that catch up, and pages of latest entries for snapshots: read and encoded
//! once for all readers that need the same one at about the same time, and bounded in total.
//!
//! After a restart, thousands of readers resume at the same position. The first one causes a read; the
//! others wait for it, or get what was read a moment ago. The memory of a page counts as long as a part of
//! it waits for a reader. When there is too much of it, pages become small, so that a reader that accepts
//! nothing takes little memory and holds up nobody.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{self, Instant};

use super::PageStats;
use super::live::LiveBatch;
use super::reader::{Wanted, WantedLatest};
use super::views::{Filter, range_of, shown};
use crate::model::{ChannelName, Entry, EntryKind, Epoch, Lane, Position};
use crate::storage::{
    LatestOf, LatestPage, LatestQuery, Page, PageLimit, SharedBackend, StorageError, is_fork,
};
use crate::support::chance::Hashing;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// The size of a page in bytes, normally and when pages take too much memory.
const PAGE_BYTES: usize = 256 << 10;
const SMALL_PAGE_BYTES: usize = 16 << 10;

/// The most concurrent reads of logs; further ones wait. Too many requests at once would delay what must
/// not wait in the storage, such as the health probes.
const READS_AT_ONCE: usize = 32;

/// How long a page is cached for others. Of the bytes that all pages may take, a quarter is for cached
/// pages of logs, and another for those of latest entries.
const CACHED_FOR: Duration = Duration::from_secs(2);
const CACHED_PARTS: usize = 4;

/// A page of a log, encoded for any reader.
#[derive(Debug, Clone)]
pub(crate) struct EncodedPage {
    /// The page without its entries, which are in `batches`.
    pub(crate) head: Page,
    /// In ascending order and contiguous; in each, all entries are late, or none.
    pub(crate) batches: Vec<Arc<LiveBatch>>,
    bytes: usize,
}

impl EncodedPage {
    /// Encodes a page for readers to whom entries up to an offset are late; its memory is not counted.
    #[cfg(test)]
    pub(crate) fn encode(channel: &ChannelName, page: Page, late_to: u64) -> Self {
        Self::counted(channel, page, late_to, &Arc::default())
    }

    /// Encodes a page for readers to whom entries up to an offset are late. Its bytes are counted as long
    /// as any part of it is in memory.
    fn counted(channel: &ChannelName, mut page: Page, late_to: u64, in_memory: &Arc<AtomicUsize>) -> Self {
        let (entries, filter) = (std::mem::take(&mut page.entries), Filter::of(channel));
        let is_late = |entry: &Entry| entry.offset <= late_to || entry.draft.marks.late;
        let mut bytes = 0;
        let mut batches = Vec::new();
        if let Some(epoch) = &page.epoch {
            for run in entries.chunk_by(|a, b| is_late(a) == is_late(b)) {
                let late = run.first().is_some_and(is_late);
                // The lane does not matter, because a replay is sent whole.
                let mut batch = if filter.is_all() {
                    LiveBatch::encode(channel, epoch, Lane::Every, late, run)
                } else {
                    let (covers, shown) = (range_of(run), shown(&filter, run));
                    LiveBatch::encode_view(channel, epoch, Lane::Every, late, covers, &shown)
                };
                bytes += batch.frames.len();
                batch.frames = counted(batch.frames, in_memory);
                batches.push(Arc::new(batch));
            }
        }
        Self { head: page, batches, bytes }
    }

    fn last(&self) -> Option<u64> {
        self.batches.last().map(|batch| batch.last())
    }

    /// Whether the page may be cached. Entries of a log that are out of reach may become reachable at any
    /// moment; those of a fork do not.
    fn may_be_cached(&self) -> bool {
        self.head.out_of_reach == 0 || self.head.epoch.as_ref().is_some_and(is_fork)
    }
}

impl Cacheable for EncodedPage {
    type Wanted = Wanted;

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_behind(&self, wanted: &Wanted) -> bool {
        let Page { epoch, top, .. } = &self.head;
        wanted.seen.as_ref().is_some_and(|seen| epoch.as_ref() == Some(&seen.epoch) && *top < seen.offset)
    }

    /// The entries of a page do not change. The page is valid if more entries follow it, or if it reaches as
    /// far as the reader has seen the log reach.
    fn answers(&self, wanted: &Wanted) -> bool {
        let Page { epoch, top, next, .. } = &self.head;
        let is_of_it = wanted.after.as_ref().is_none_or(|after| epoch.as_ref() == Some(&after.epoch));
        let is_full = self.last().is_some_and(|last| last < *top);
        let is_fresh = wanted
            .seen
            .as_ref()
            .is_some_and(|seen| epoch.as_ref() == Some(&seen.epoch) && seen.offset <= *top && next.is_none());
        // A reader that waits for entries of the log itself needs to know when they can be read.
        let is_too_early = wanted.is_owed && self.head.is_copy && !epoch.as_ref().is_some_and(is_fork);
        is_of_it && !is_too_early && (is_full || is_fresh)
    }
}

/// Latest entries of the keys of a channel, encoded for any reader.
#[derive(Debug, Clone)]
pub(crate) struct EncodedLatest {
    /// The epoch of the log when they were read, and its newest offset.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) top: u64,
    /// The last key that was looked at, if more may follow it.
    pub(crate) next: Option<String>,
    /// Whether there may be further or newer ones that cannot be reached now.
    pub(crate) is_copy: bool,
    /// For each entry, its offset in this epoch; 0 if it is from an earlier epoch.
    pub(crate) places: Box<[u64]>,
    /// The entries, if there are any. The batch's offsets mean nothing.
    pub(crate) batch: Option<Arc<LiveBatch>>,
    bytes: usize,
}

impl EncodedLatest {
    /// Encodes a page; its memory is not counted.
    #[cfg(test)]
    pub(crate) fn encode(channel: &ChannelName, page: LatestPage) -> Self {
        Self::counted(channel, page, &Arc::default())
    }

    fn counted(channel: &ChannelName, page: LatestPage, in_memory: &Arc<AtomicUsize>) -> Self {
        let LatestPage { entries, places, next, epoch, top, is_copy } = page;
        // An entry that cannot be shown does not tell which one is the latest. A reader that gets only a
        // part gets another snapshot before any late entry arrives that would have to be compared with a
        // removal.
        let is_removal = |kind: &EntryKind| matches!(kind, EntryKind::KeyRemoved | EntryKind::ZoneRemoved);
        let tells_removals = !is_copy;
        #[cfg(test)]
        let tells_removals = tells_removals && !mutant::is(Mutant::RemovalsNotTold);
        let is_shown = |kind: &EntryKind| kind.unknown().is_none() && (tells_removals || !is_removal(kind));
        let filter = Filter::of(channel);
        let is_shown = |entry: &Entry| is_shown(&entry.draft.kind) && filter.shows(entry);
        let shown = entries.iter().zip(places).filter(|(entry, _)| is_shown(entry));
        let (entries, places): (Vec<&Entry>, Vec<u64>) = shown.unzip();
        let batch = epoch.as_ref().filter(|_| !entries.is_empty()).map(|epoch| {
            let mut batch = LiveBatch::encode_latest(channel, epoch, &entries);
            batch.frames = counted(batch.frames, in_memory);
            Arc::new(batch)
        });
        let bytes = batch.as_ref().map_or(0, |batch| batch.frames.len());
        Self { epoch, top, next, is_copy, places: places.into(), batch, bytes }
    }

    /// Whether the page may be cached.
    fn may_be_cached(&self) -> bool {
        self.epoch.as_ref().is_some_and(|epoch| !self.is_copy || is_fork(epoch))
    }
}

impl Cacheable for EncodedLatest {
    type Wanted = WantedLatest;

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_behind(&self, wanted: &WantedLatest) -> bool {
        wanted
            .at_least
            .as_ref()
            .is_some_and(|at| self.epoch.as_ref() == Some(&at.epoch) && self.top < at.offset)
    }

    fn answers(&self, wanted: &WantedLatest) -> bool {
        let is_of = |at: &Position| self.epoch.as_ref() == Some(&at.epoch);
        wanted.at_least.as_ref().is_none_or(|at| is_of(at) && self.top >= at.offset)
    }
}

/// The same bytes, counted as long as any part of them is in memory.
fn counted(bytes: Bytes, count: &Arc<AtomicUsize>) -> Bytes {
    struct InMemory {
        bytes: Bytes,
        _counted: Reserved,
    }
    impl AsRef<[u8]> for InMemory {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(InMemory { _counted: Reserved::new(bytes.len(), count), bytes })
}

/// A page that can be cached.
trait Cacheable: Send + Sync + 'static {
    /// What a reader asks for.
    type Wanted;

    /// Its memory in bytes.
    fn bytes(&self) -> usize;

    /// Whether it was read before something was appended that the reader knows about.
    fn is_behind(&self, wanted: &Self::Wanted) -> bool;

    /// Whether it is valid for a reader that asked after it was read.
    fn answers(&self, wanted: &Self::Wanted) -> bool;
}

type Answer<P> = Result<Arc<P>, Arc<StorageError>>;
type Reading<P> = BoxFuture<'static, Answer<P>>;

/// Identifies a page of a log: the channel or view, the position that it follows, and the offset up to
/// which entries are late.
type LogPageKey = (ChannelName, Option<Position>, u64);

/// Identifies a page of latest entries: the channel or view, and the key that it follows.
type LatestPageKey = (ChannelName, Option<String>);

/// The pages of all channels of a node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pages(Arc<Inner>);

struct Inner {
    /// Permits for concurrent reads of logs.
    reads: Semaphore,
    backend: SharedBackend,
    stats: PageStats,
    logs: Mutex<PageCache<LogPageKey, EncodedPage>>,
    latest: Mutex<PageCache<LatestPageKey, EncodedLatest>>,
    /// Bytes of pages in memory or being read.
    in_memory: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Inner {
    /// How many bytes of pages of either kind are cached.
    fn cached_max(&self) -> usize {
        self.bytes_max / CACHED_PARTS
    }
}

/// Pages of one kind that are being read or cached.
struct PageCache<K, P> {
    channels: HashMap<ChannelName, HashMap<K, Slot<P>, Hashing>, Hashing>,
    /// What is cached, the oldest first, and its bytes. Also contains what was replaced or forgotten since.
    cached: VecDeque<(Instant, ChannelName, K)>,
    cached_bytes: usize,
}

struct Slot<P> {
    reading: Option<WeakShared<Reading<P>>>,
    cached: Option<(Instant, Arc<P>)>,
}

impl<K, P> Default for PageCache<K, P> {
    fn default() -> Self {
        Self { channels: HashMap::default(), cached: VecDeque::new(), cached_bytes: 0 }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Pages {
    /// When pages take more than `bytes_max`, they become small.
    pub(super) fn new(backend: SharedBackend, bytes_max: usize) -> Self {
        let (logs, latest, stats) = (Mutex::default(), Mutex::default(), PageStats::default());
        let reads = Semaphore::new(READS_AT_ONCE);
        Self(Arc::new(Inner { reads, backend, stats, logs, latest, in_memory: Arc::default(), bytes_max }))
    }

    pub(super) fn stats(&self) -> &PageStats {
        &self.0.stats
    }

    /// Waits for a permit to read from a log, or from what is stored beside it.
    pub(super) async fn place_to_read(&self) -> Option<SemaphorePermit<'_>> {
        self.0.reads.acquire().await.ok()
    }

    /// Bytes of all pages in memory or being read.
    pub(super) fn bytes(&self) -> usize {
        self.0.in_memory.load(Ordering::Relaxed)
    }

    /// The page that a reader wants, of at most `entries` entries.
    pub(super) async fn get(
        &self,
        channel: &ChannelName,
        wanted: &Wanted,
        entries: usize,
    ) -> Answer<EncodedPage> {
        let log = channel.log();
        let key: LogPageKey = (channel.clone(), wanted.after.clone(), wanted.late_to);
        let read = || self.clone().read(log.clone(), key.clone(), entries).boxed();
        self.share(&self.0.logs, &log, &key, wanted, read).await
    }

    /// The page of latest entries that a reader wants.
    pub(super) async fn get_latest(
        &self,
        channel: &ChannelName,
        wanted: &WantedLatest,
        entries: usize,
    ) -> Answer<EncodedLatest> {
        let log = channel.log();
        let key: LatestPageKey = (channel.clone(), wanted.after.clone());
        let read = || self.clone().read_latest(log.clone(), key.clone(), entries).boxed();
        self.share(&self.0.latest, &log, &key, wanted, read).await
    }

    /// Returns what was read a moment ago; or waits for a read in progress, or for one that begins here.
    async fn share<K: Clone + Eq + Hash, P: Cacheable>(
        &self,
        cache: &Mutex<PageCache<K, P>>,
        log: &ChannelName,
        key: &K,
        wanted: &P::Wanted,
        read: impl Fn() -> Reading<P>,
    ) -> Answer<P> {
        loop {
            let (now, cached_max) = (Instant::now(), self.0.cached_max());
            let found = cache.lock().find_or_begin(now, cached_max, log, key, wanted, &read);
            let (reading, is_own) = match found {
                Ok(page) => {
                    self.0.stats.replay_reads_shared.add(1);
                    return Ok(page);
                }
                Err(reading) => reading,
            };
            let answer = reading.await;
            if is_own {
                return answer;
            }
            // The read began before this reader asked, so it may lack what was appended in between.
            match answer {
                Ok(page) if page.is_behind(wanted) => {}
                answer => {
                    self.0.stats.replay_reads_shared.add(1);
                    return answer;
                }
            }
        }
    }

    /// Reserves memory for a page to read, a small one if pages take too much memory; also returns whether
    /// they do. The bytes count while the page is being read.
    fn reserve(&self) -> (Reserved, bool) {
        let inner = &self.0;
        let is_too_much = inner.in_memory.load(Ordering::Relaxed) >= inner.bytes_max;
        if is_too_much {
            self.expire(0);
        }
        let bytes = if is_too_much { SMALL_PAGE_BYTES } else { PAGE_BYTES };
        inner.stats.replay_reads.add(1);
        (Reserved::new(bytes, &inner.in_memory), is_too_much)
    }

    async fn read(self, log: ChannelName, key: LogPageKey, entries: usize) -> Answer<EncodedPage> {
        let inner = &self.0;
        let _place = self.place_to_read().await;
        let (reserved, is_too_much) = self.reserve();
        let (channel, after, late_to) = &key;
        let limit = PageLimit { entries, bytes: reserved.bytes };
        let page = inner.backend.read_within(&log, after.as_ref(), limit).await.map_err(Arc::new)?;
        let page = Arc::new(EncodedPage::counted(channel, page, *late_to, &inner.in_memory));
        if !is_too_much && !page.batches.is_empty() && page.may_be_cached() {
            inner.logs.lock().cache(log, key, &page, inner.cached_max());
        }
        Ok(page)
    }

    async fn read_latest(
        self,
        log: ChannelName,
        key: LatestPageKey,
        entries: usize,
    ) -> Answer<EncodedLatest> {
        let inner = &self.0;
        let _place = self.place_to_read().await;
        let (reserved, is_too_much) = self.reserve();
        let limit = PageLimit { entries, bytes: reserved.bytes };
        let (channel, after) = &key;
        let prefix = Filter::of(channel).prefix();
        let begin = just_before(&prefix);
        let after = after.as_deref().or(begin.as_deref());
        let page =
            inner.backend.latest_within(&log, LatestQuery { after, limit, of: LatestOf::RemovedToo }).await;
        let mut page = page.map_err(Arc::new)?;
        // The keys that a view may show are contiguous; after them, the view has no more.
        page.next = page.next.filter(|next| next.starts_with(&prefix) || **next < *prefix);
        let page = Arc::new(EncodedLatest::counted(channel, page, &inner.in_memory));
        if !is_too_much && page.may_be_cached() {
            inner.latest.lock().cache(log, key, &page, inner.cached_max());
        }
        Ok(page)
    }

    fn expire(&self, bytes_max: usize) {
        let now = Instant::now();
        self.0.logs.lock().expire(now, bytes_max);
        self.0.latest.lock().expire(now, bytes_max);
    }

    /// Removes expired pages even if no reader asks any more. Completes when all handles to the pages are
    /// dropped.
    pub(super) fn tidying(&self) -> impl Future<Output = ()> + Send + use<> {
        let pages = Arc::downgrade(&self.0);
        async move {
            loop {
                time::sleep(CACHED_FOR / 2).await;
                let Some(pages) = pages.upgrade() else { return };
                let cached_max = pages.cached_max();
                Self(pages).expire(cached_max);
            }
        }
    }

    /// Called when the log of a channel is, or may be, another one: earlier pages, also of its views, are
    /// no longer shared.
    pub(super) fn forget(&self, log: &ChannelName) {
        self.0.logs.lock().forget(log);
        self.0.latest.lock().forget(log);
    }
}

/// A key that sorts before all that begin with a prefix, and after all that sort before those; `None` for
/// an empty prefix.
fn just_before(prefix: &str) -> Option<String> {
    let (last, rest) = prefix.as_bytes().split_last()?;
    let before = char::from(last.checked_sub(1)?);
    // Keys of events are ASCII.
    Some(format!("{}{before}\u{7f}", std::str::from_utf8(rest).ok()?))
}

impl<K: Clone + Eq + Hash, P: Cacheable> PageCache<K, P> {
    /// A cached page; or a read in progress, and whether it begins here.
    fn find_or_begin(
        &mut self,
        now: Instant,
        cached_max: usize,
        channel: &ChannelName,
        key: &K,
        wanted: &P::Wanted,
        read: impl FnOnce() -> Reading<P>,
    ) -> Result<Arc<P>, (Shared<Reading<P>>, bool)> {
        self.expire(now, cached_max);
        let slots = self.channels.entry(channel.clone()).or_default();
        let slot = slots.entry(key.clone()).or_insert(Slot { reading: None, cached: None });
        let cached = slot.cached.as_ref().filter(|(_, page)| page.answers(wanted));
        if let Some((_, page)) = cached {
            return Ok(Arc::clone(page));
        }
        if let Some(reading) = slot.reading.as_ref().and_then(WeakShared::upgrade)
            && reading.peek().is_none()
        {
            return Err((reading, false));
        }
        let reading = read().shared();
        slot.reading = reading.downgrade();
        // Makes the slot expire even if all readers give up the read.
        self.cached.push_back((now, channel.clone(), key.clone()));
        Err((reading, true))
    }

    fn cache(&mut self, channel: ChannelName, key: K, page: &Arc<P>, cached_max: usize) {
        let now = Instant::now();
        // If the channel was forgotten meanwhile, this page is not cached.
        let Some(slot) = self.channels.get_mut(&channel).and_then(|slots| slots.get_mut(&key)) else {
            return;
        };
        let before = slot.cached.replace((now, Arc::clone(page)));
        self.cached_bytes += page.bytes();
        self.cached_bytes -= before.map_or(0, |(_, page)| page.bytes());
        self.cached.push_back((now, channel, key));
        self.expire(now, cached_max);
    }

    fn forget(&mut self, channel: &ChannelName) {
        let slots = self.channels.remove(channel);
        let cached = slots.iter().flat_map(HashMap::values).filter_map(|slot| slot.cached.as_ref());
        self.cached_bytes -= cached.map(|(_, page)| page.bytes()).sum::<usize>();
    }

    /// Removes expired pages, and the oldest ones if there are too many bytes.
    fn expire(&mut self, now: Instant, bytes_max: usize) {
        while let Some((at, channel, key)) = self.cached.front()
            && (self.cached_bytes > bytes_max || now.duration_since(*at) >= CACHED_FOR)
        {
            let mut is_read = false;
            if let Some(slots) = self.channels.get_mut(channel) {
                if let Some(slot) = slots.get_mut(key) {
                    if slot.cached.as_ref().is_some_and(|(cached_at, _)| cached_at == at)
                        && let Some((_, page)) = slot.cached.take()
                    {
                        self.cached_bytes -= page.bytes();
                    }
                    is_read = slot.reading.as_ref().is_some_and(|reading| reading.upgrade().is_some());
                    if slot.cached.is_none() && !is_read {
                        slots.remove(key);
                    }
                }
                if slots.is_empty() {
                    self.channels.remove(channel);
                }
            }
            if let Some((_, channel, key)) = self.cached.pop_front()
                && is_read
            {
                // Checked again when it has been read, or given up.
                self.cached.push_back((now, channel, key));
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
