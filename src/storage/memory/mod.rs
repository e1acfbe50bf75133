//! Storage in this process: bounded, ordered immediately, and lost with the process unless it has a folder on
//! disk.

mod folder;
mod job_table;
mod jobs;
mod latest;
mod mirror;
mod producers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};
use zonewire_protocol::stats::MemoryUsage;

#[cfg(test)]
use super::EPOCH_KEPT_FOR;
use super::disk::DiskState;
use super::{
    AGE_MAX, Anchor, AppendAnswer, AppendBatch, Appended, Bounds, LatestPage, LatestQuery, Log, LogEvent,
    LogState, MemoryConfig, OpenLog, Page, PageLimit, Record, RecordKind, Records, Refusal, Result,
    Retention, StorageBackend, UNUSED_EPOCH_KEPT_FOR,
};
use crate::model::{BackendName, ChannelName, ChannelPolicy, Entry, Epoch, NodeId, Position};
use crate::support::chance::Hashing;
use crate::support::counter::Counter;
#[cfg(test)]
use crate::support::mutant::{self, Mutant};
pub use folder::FolderError;
use folder::Health;
#[cfg(any(test, feature = "probes"))]
pub(in crate::storage) use folder::probes;
pub(crate) use folder::{Folder, Found};
pub(in crate::storage) use job_table::{JobTable, Now};
use latest::{Latest, level};
use producers::Producers;

/// How often expired data is removed, also from channels that nobody reads or writes.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// After an overflow, one part in this many of the bound is freed, so that not every call evicts.
const HEADROOM_DIVISOR: usize = 20;

/// The latest entries of keys may take one part in this many of the bound; the logs keep the rest.
const LATEST_DIVISOR: usize = 2;

/// The most channels of orders that are kept. Each is kept for about a day, and a busy day has many.
const ORDERS_MAX: usize = 100_000;

/// About what the channel of an order that ended takes, with its newest update and spare room in maps, as
/// measured: no more channels of orders are kept than fit into the bound.
const ORDER_BYTES: usize = 4 << 10;

/// Bytes of a channel without its entries: the struct, its names and its slots in maps.
const CHANNEL_BYTES: usize = size_of::<Channel>() + 384;

/// [`StorageBackend`] in this process. See [`Retention`] and [`MemoryConfig`] for its bounds.
#[derive(Debug, Clone)]
pub struct MemoryBackend {
    shared: Arc<Shared>,
    /// The folder in which the contents survive the process.
    folder: Option<Folder>,
}

#[derive(Debug)]
struct Shared {
    retention: Retention,
    total_bytes_max: usize,
    put_back_bytes_max: usize,
    orders_max: usize,
    evictions: Evictions,
    state: Mutex<State>,
    /// Under a lock of its own, because nothing needs both at once.
    jobs: Mutex<JobTable>,
}

/// Evictions since the start because all channels together exceeded their bound.
#[derive(Debug, Default)]
struct Evictions {
    entries: Counter,
    latest: Counter,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
struct State {
    /// Boxed, because most are orders that ended, and a map has slots for up to twice as many as it contains.
    channels: HashMap<ChannelName, Box<Channel>, Hashing>,
    /// Sum of `Channel::bytes`.
    total_bytes: usize,
    /// Sum of the cost of each `Channel::latest`.
    latest_bytes: usize,
    /// How many of `channels` are orders'.
    orders: usize,
    /// Each channel once, by the time at which it is looked at again because something may have expired.
    due: BTreeMap<Due, ChannelName>,
    last_due: u64,
    records: BTreeMap<(&'static str, String), StoredRecord>,
    leases: HashMap<String, Lease, Hashing>,
    /// The fence of the lease that was taken last.
    last_fence: u64,
    /// What has yet to be reported to the folder; `None` if there is no folder.
    keep: Option<Keep>,
}

/// What the folder has to know about channels.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
struct Keep {
    /// The number of the newest incarnation of any channel. Each incarnation has its own number.
    last_incarnation: u64,
    /// The numbers of incarnations that have ended.
    gone: Vec<u64>,
    /// Fences up to this one may be issued.
    fences: u64,
}

/// What the folder has to know of one incarnation of a channel.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct KeptIncarnation {
    incarnation: u64,
    policy: &'static ChannelPolicy,
    /// Offsets of entries that were removed.
    gone: Vec<u64>,
}

/// A time, and a number that makes it unique.
type Due = (Instant, u64);

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Channel {
    /// Its key in [`State::due`].
    due: Due,
    epoch: Epoch,
    top: u64,
    entries: VecDeque<Kept>,
    /// Cost of `entries`.
    bytes: usize,
    latest: Latest,
    /// The newest applied sequence of each producer. Kept for as long as the channel is.
    producers: Producers,
    touched: Instant,
    /// The newest fence of an applied entry.
    fence: u64,
    /// A terminal entry was applied.
    closed: bool,
    keep: Option<Box<KeptIncarnation>>,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Kept {
    entry: Entry,
    appended: Instant,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Lease {
    holder: String,
    fence: u64,
    expires: Instant,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct StoredRecord {
    value: Bytes,
    expires: Instant,
}

impl MemoryBackend {
    /// An empty storage, and a future that removes expired data and never ends.
    pub fn new(retention: Retention, config: MemoryConfig) -> (Self, impl Future<Output = ()> + Send) {
        let shared = Arc::new(Shared::new(retention, &config, State::default(), JobTable::default()));
        let swept = Arc::clone(&shared);
        let sweeping = async move {
            let mut tick = time::interval(SWEEP_EVERY);
            tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                swept.sweep(Instant::now());
                swept.jobs.lock().tidy(Now::read());
            }
        };
        (Self { shared, folder: None }, sweeping)
    }

    /// A storage with the contents of its folder. It needs no future to be run.
    ///
    /// # Errors
    /// The folder cannot be used. Its contents are left unchanged.
    pub(crate) async fn open(
        retention: Retention,
        config: MemoryConfig,
        dir: &Path,
    ) -> Result<(Self, Found), FolderError> {
        let (folder, shared, found) = Folder::open(dir, retention, config).await?;
        Ok((Self { shared, folder: Some(folder) }, found))
    }

    /// The folder, where there is one.
    pub(crate) fn folder(&self) -> Option<&Folder> {
        self.folder.as_ref()
    }

    /// Writes what the folder does not have yet, and closes its files; from then on nothing is accepted. Does
    /// nothing without a folder.
    pub async fn close(&self) {
        if let Some(folder) = &self.folder {
            folder.close().await;
        }
    }
}

impl Shared {
    fn new(retention: Retention, config: &MemoryConfig, state: State, jobs: JobTable) -> Self {
        Self {
            retention,
            total_bytes_max: config.total_bytes,
            put_back_bytes_max: config.put_back_bytes,
            orders_max: ORDERS_MAX.min(config.total_bytes / ORDER_BYTES).max(1),
            evictions: Evictions::default(),
            state: Mutex::new(state),
            jobs: Mutex::new(jobs),
        }
    }
}

impl MemoryBackend {
    /// A copy with the same logs and records, without jobs.
    #[cfg(test)]
    pub(super) fn copy(&self) -> Self {
        let Shared { retention, total_bytes_max, put_back_bytes_max, orders_max, state, .. } = &*self.shared;
        let shared = Shared {
            retention: retention.clone(),
            total_bytes_max: *total_bytes_max,
            put_back_bytes_max: *put_back_bytes_max,
            orders_max: *orders_max,
            evictions: Evictions::default(),
            state: Mutex::new(state.lock().clone()),
            jobs: Mutex::default(),
        };
        Self { shared: Arc::new(shared), folder: None }
    }

    /// The bound of all retransmit buffers together, in bytes; they are kept in addition to what is stored
    /// here.
    pub(super) fn put_back_bytes_max(&self) -> usize {
        self.shared.put_back_bytes_max
    }

    /// How much memory is in use, and the state of the folder.
    pub(crate) fn usage(&self) -> MemoryUsage {
        let Shared { total_bytes_max, evictions, state, .. } = &*self.shared;
        let disk = self.folder.as_ref().map(Folder::state);
        let count = |of: fn(&Health) -> &Counter| self.folder.as_ref().map_or(0, |it| of(&it.health).get());
        let state = state.lock();
        MemoryUsage {
            bytes: state.bytes(),
            bytes_max: *total_bytes_max,
            latest_bytes: state.latest_bytes,
            evicted_entries: evictions.entries.get(),
            evicted_latest: evictions.latest.get(),
            disk: disk.as_ref().map_or("off", DiskState::as_str).to_owned(),
            disk_reason: disk.as_ref().and_then(DiskState::reason),
            disk_bytes: count(|health| &health.file_bytes),
            disk_commits: count(|health| &health.commits),
            disk_refused: count(|health| &health.refused),
            disk_set_aside: count(|health| &health.set_aside),
        }
    }

    /// Forgets producers that have been silent for longer than this, as a log in Redis does.
    #[cfg(test)]
    pub(super) fn forget_silent(&self, channel: &ChannelName, after: Duration) {
        if let Some(held) = self.shared.state.lock().channels.get_mut(channel) {
            held.producers.retain(|_, came| came.elapsed() <= after);
        }
    }

    /// Drops the entries of a channel that are too old, or the whole channel; returns the dropped entries.
    #[cfg(test)]
    pub(super) fn expire(&self, name: &ChannelName, is_over: bool) -> Vec<Entry> {
        let (now, bounds) = (Instant::now(), Bounds::of(&self.shared.retention, name));
        let mut state = self.shared.state.lock();
        let State { channels, total_bytes, .. } = &mut *state;
        let Some(held) = channels.get_mut(name) else { return Vec::new() };
        let is_due = |kept: &Kept| is_over || now.duration_since(kept.appended) >= bounds.age;
        let due: Vec<Entry> =
            held.entries.iter().take_while(|kept| is_due(kept)).map(|kept| kept.entry.clone()).collect();
        if is_over {
            state.remove(name);
            return due;
        }
        *total_bytes -= held.trim(&bounds, now);
        let first = held.first();
        due.into_iter().filter(|entry| entry.offset < first).collect()
    }

    /// [`Primary::examine`](super::primary::Primary::examine), synchronously.
    #[cfg(test)]
    pub(super) fn examine(&self, channel: &ChannelName, producer: NodeId, at: u64) -> Option<OpenLog> {
        self.shared.examine(channel, producer, at)
    }

    /// Gives a log another epoch, for stand-ins of Redis.
    #[cfg(test)]
    pub(super) fn renew_epoch(
        &self,
        channel: &ChannelName,
        expected: &Epoch,
        minted: &Epoch,
    ) -> Option<Epoch> {
        let mut state = self.shared.state.lock();
        let held = state.channels.get_mut(channel)?;
        if held.epoch == *expected {
            held.epoch = minted.clone();
        }
        Some(held.epoch.clone())
    }

    /// [`Log::open`], synchronously.
    pub(super) fn open_now(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> OpenLog {
        let mut state = self.shared.state.lock();
        if let Some(held) = state.channels.get(channel) {
            return held.open(producer, u64::MAX, &Bounds::of(&self.shared.retention, channel));
        }
        state.begin(channel, minted, &self.shared);
        OpenLog::begun_as(minted.clone())
    }

    /// [`Log::append`], synchronously.
    pub(super) fn append_now(&self, batch: &AppendBatch) -> AppendAnswer {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let Some(channel) = state.channels.get_mut(&batch.channel) else {
            return AppendAnswer::ForeignEpoch(None);
        };
        if channel.epoch != batch.epoch {
            return AppendAnswer::ForeignEpoch(Some(channel.epoch.clone()));
        }
        let bounds = Bounds::of(&self.shared.retention, &batch.channel);
        // Before the append: where entries expire together, a new one would keep those that are too old.
        state.total_bytes -= channel.trim(&bounds, now);
        let results = state.change(&batch.channel, &self.shared, |channel| channel.append(batch, now));
        AppendAnswer::Done(results.unwrap_or_default())
    }

    /// [`Log::latest_within`], synchronously.
    pub(super) fn latest_now(&self, channel: &ChannelName, query: LatestQuery<'_>) -> LatestPage {
        let mut state = self.shared.state.lock();
        state.expire_latest(channel, &self.shared.retention);
        let Some(held) = state.channels.get(channel) else { return LatestPage::default() };
        LatestPage { epoch: Some(held.epoch.clone()), top: held.top, ..held.latest.page(query) }
    }

    /// [`Log::read_after`], synchronously.
    pub(super) fn read_now(&self, channel: &ChannelName, after: Option<&Position>, limit: usize) -> Page {
        self.read_now_within(channel, after, PageLimit { entries: limit, bytes: usize::MAX })
    }

    /// [`Log::read_within`], synchronously.
    pub(super) fn read_now_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Page {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let State { channels, total_bytes, .. } = &mut *state;
        let Some(held) = channels.get_mut(channel) else {
            return Page { is_final: true, ..Page::of_no_log() };
        };
        *total_bytes -= held.trim(&Bounds::of(&self.shared.retention, channel), now);
        let first = held.first();
        let is_of_it = after.is_none_or(|after| after.epoch == held.epoch);
        let most = if is_of_it { limit.entries } else { 0 };
        let offset = after.map_or(0, |after| after.offset);
        // Offsets are contiguous, so an offset is found without a search.
        let skip = usize::try_from(offset.saturating_add(1).saturating_sub(first))
            .unwrap_or(usize::MAX)
            .min(held.entries.len());
        let mut bytes = 0;
        let fits = held.entries.range(skip..).take(most).enumerate().take_while(|(index, kept)| {
            bytes += kept.entry.draft.cost();
            *index == 0 || bytes <= limit.bytes
        });
        let entries = fits.map(|(_, kept)| kept.entry.clone()).collect();
        let (epoch, top, closed) = (Some(held.epoch.clone()), held.top, held.closed);
        Page { epoch, top, first, is_final: true, closed, entries, ..Page::of_no_log() }
    }
}

impl Shared {
    /// The state of a log, with the entry at an offset or, if that is not kept, the newest one.
    fn examine(&self, channel: &ChannelName, producer: NodeId, at: u64) -> Option<OpenLog> {
        let bounds = Bounds::of(&self.retention, channel);
        self.state.lock().channels.get(channel).map(|held| held.open(producer, at, &bounds))
    }

    fn sweep(&self, now: Instant) {
        let mut state = self.state.lock();
        state.sweep(&self.retention, now);
        state.records.retain(|_, record| record.expires > now);
        state.leases.retain(|_, lease| lease.expires > now);
    }
}

impl State {
    /// The memory that all channels take, in bytes.
    fn bytes(&self) -> usize {
        self.total_bytes + self.latest_bytes + self.channels.len() * CHANNEL_BYTES
    }

    /// Removes expired data. Visits only channels that may have some.
    fn sweep(&mut self, retention: &Retention, now: Instant) {
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= now
        {
            let name = entry.remove();
            let Some(channel) = self.channels.get_mut(&name) else { continue };
            let bounds = Bounds::of(retention, &name);
            self.total_bytes -= channel.trim(&bounds, now);
            let latest_before = channel.latest.bytes();
            channel.latest.expire(bounds.key_age, now);
            self.latest_bytes = self.latest_bytes + channel.latest.bytes() - latest_before;
            if now.duration_since(channel.touched) >= channel.kept_for(&bounds) {
                self.remove(&name);
            } else {
                let due = channel.next_due(&bounds).max(now + SWEEP_EVERY);
                self.reschedule(name, due);
            }
        }
    }

    /// Changes a channel, and then applies the bounds, its own and those of all; `None` if there is no
    /// channel.
    fn change<R>(
        &mut self,
        name: &ChannelName,
        shared: &Shared,
        act: impl FnOnce(&mut Channel) -> R,
    ) -> Option<R> {
        let channel = self.channels.get_mut(name)?;
        let bounds = Bounds::of(&shared.retention, name);
        let (before, latest_before) = (channel.bytes, channel.latest.bytes());
        let now = Instant::now();
        channel.latest.expire(bounds.key_age, now);
        let result = act(channel);
        channel.trim(&bounds, now);
        let (after, due) = (channel.bytes, channel.next_due(&bounds));
        let is_sooner = due < channel.due.0;
        self.latest_bytes = self.latest_bytes + channel.latest.bytes() - latest_before;
        if is_sooner {
            self.reschedule(name.clone(), due);
        }
        self.total_bytes = self.total_bytes + after - before;
        self.evict(shared.total_bytes_max, &shared.evictions);
        Some(result)
    }

    /// Removes the latest entries of keys without an update for too long.
    fn expire_latest(&mut self, name: &ChannelName, retention: &Retention) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        let before = channel.latest.bytes();
        channel.latest.expire(Bounds::of(retention, name).key_age, Instant::now());
        self.latest_bytes = self.latest_bytes + channel.latest.bytes() - before;
    }

    /// Begins a new incarnation of a channel, in place of the previous one if there is one.
    fn begin(&mut self, name: &ChannelName, epoch: &Epoch, shared: &Shared) {
        let incarnation = self.keep.as_mut().map_or(0, |keep| {
            keep.last_incarnation += 1;
            keep.last_incarnation
        });
        self.begin_as(name, epoch, shared, incarnation);
    }

    /// The same for an incarnation that has its number already.
    fn begin_as(&mut self, name: &ChannelName, epoch: &Epoch, shared: &Shared, incarnation: u64) {
        self.remove(name);
        let now = Instant::now();
        let mut fresh = Channel::new(epoch.clone(), now);
        if self.keep.is_some() {
            fresh.begin_keeping(incarnation, ChannelPolicy::of(name));
        }
        let due = fresh.next_due(&Bounds::of(&shared.retention, name));
        self.channels.insert(name.clone(), Box::new(fresh));
        self.orders += usize::from(ChannelPolicy::of(name).is_bounded_in_memory);
        self.reschedule(name.clone(), due);
        if self.orders > shared.orders_max {
            self.forget_orders(shared.orders_max);
        }
    }

    fn reschedule(&mut self, name: ChannelName, at: Instant) {
        let Some(channel) = self.channels.get_mut(&name) else { return };
        self.due.remove(&channel.due);
        self.last_due += 1;
        channel.due = (at, self.last_due);
        self.due.insert(channel.due, name);
    }

    fn remove(&mut self, name: &ChannelName) {
        let Some(removed) = self.channels.remove(name) else { return };
        self.due.remove(&removed.due);
        if let (Some(keep), Some(incarnation)) = (&mut self.keep, removed.keep) {
            keep.gone.push(incarnation.incarnation);
        }
        self.total_bytes -= removed.bytes;
        self.latest_bytes -= removed.latest.bytes();
        self.orders -= usize::from(ChannelPolicy::of(name).is_bounded_in_memory);
    }

    /// Removes channels of orders until they are within their bound with headroom: closed ones first, and
    /// among these, as among the others, those that were not appended to for longest.
    fn forget_orders(&mut self, max: usize) {
        let orders = self.channels.iter();
        let orders = orders.filter(|(name, _)| ChannelPolicy::of(name).is_bounded_in_memory);
        let mut orders: Vec<_> =
            orders.map(|(name, held)| ((!held.closed, held.touched, held.due.1), name.clone())).collect();
        let count = orders.len().saturating_sub(max - max / HEADROOM_DIVISOR);
        if count == 0 {
            return;
        }
        orders.select_nth_unstable(count - 1);
        orders.truncate(count);
        let open = orders.iter().filter(|((is_open, ..), _)| *is_open).count();
        tracing::debug!(count, open, max, "too many orders; forgetting the updates of the oldest");
        for (_, name) in orders {
            self.remove(&name);
        }
    }

    /// Removes the oldest entries of all channels until the total is within its bound with headroom. Before
    /// that, if the latest entries of keys take more than their part, removes latest entries of those
    /// channels that hold most of them.
    fn evict(&mut self, max: usize, evictions: &Evictions) {
        self.evict_latest(max / LATEST_DIVISOR, evictions);
        // At most three quarters: in a small memory with many channels the logs keep the rest, and not every change
        // visits all channels in vain.
        let others = (self.bytes() - self.total_bytes).min(max - max / 4);
        if self.total_bytes + others <= max {
            return;
        }
        let goal = max - max / HEADROOM_DIVISOR - others;
        let mut channels: Vec<&mut Box<Channel>> =
            self.channels.values_mut().filter(|channel| !channel.entries.is_empty()).collect();
        let heads =
            channels.iter().enumerate().map(|(at, channel)| Reverse((channel.entries[0].appended, at)));
        let mut heads: BinaryHeap<_> = heads.collect();
        while self.total_bytes > goal
            && let Some(Reverse((_, at))) = heads.pop()
        {
            let channel = &mut channels[at];
            // A sixteenth of the channel at a time, so that a long channel does not go through the heap for
            // each entry.
            for _ in 0..channel.entries.len().div_ceil(16) {
                self.total_bytes -= channel.pop_front();
                evictions.entries.add(1);
            }
            if let Some(head) = channel.entries.front() {
                heads.push(Reverse((head.appended, at)));
            }
        }
    }

    fn evict_latest(&mut self, max: usize, evictions: &Evictions) {
        if self.latest_bytes <= max {
            return;
        }
        let sizes = self.channels.values().map(|channel| channel.latest.bytes()).collect();
        let share = level(sizes, max - max / HEADROOM_DIVISOR);
        for channel in self.channels.values_mut() {
            let before = channel.latest.bytes();
            evictions.latest.add(channel.latest.shrink(share));
            self.latest_bytes = self.latest_bytes + channel.latest.bytes() - before;
        }
    }
}

impl Channel {
    fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            due: (now, 0),
            epoch,
            top: 0,
            entries: VecDeque::new(),
            bytes: 0,
            latest: Latest::default(),
            producers: Producers::default(),
            touched: now,
            fence: 0,
            closed: false,
            keep: None,
        }
    }

    /// From here on it records what it drops, for the folder.
    fn begin_keeping(&mut self, incarnation: u64, policy: &'static ChannelPolicy) {
        self.keep = Some(Box::new(KeptIncarnation { incarnation, policy, gone: Vec::new() }));
        self.latest.begin_noting();
    }

    /// The number of its incarnation; 0 without a folder.
    fn incarnation(&self) -> u64 {
        self.keep.as_ref().map_or(0, |keep| keep.incarnation)
    }

    /// How long the channel is kept after its last append.
    fn kept_for(&self, bounds: &Bounds) -> Duration {
        if self.top == 0 { UNUSED_EPOCH_KEPT_FOR } else { bounds.kept() }
    }

    /// When something in the channel expires next, unless it changes.
    fn next_due(&self, bounds: &Bounds) -> Instant {
        let first_to_go = if bounds.together { self.entries.back() } else { self.entries.front() };
        let due = match first_to_go {
            Some(kept) => kept.appended + bounds.age,
            None => self.touched + self.kept_for(bounds),
        };
        self.latest.due(bounds.key_age).map_or(due, |keys| keys.min(due))
    }

    /// Removes the oldest entry; returns its cost.
    fn pop_front(&mut self) -> usize {
        let Some(Kept { entry, .. }) = self.entries.pop_front() else { return 0 };
        let cost = entry.draft.cost();
        if let Some(keep) = &mut self.keep
            && !self.latest.holds(&entry, keep.policy)
        {
            keep.gone.push(entry.offset);
        }
        self.bytes -= cost;
        cost
    }

    /// Applies the bounds; returns the bytes that were freed.
    fn trim(&mut self, bounds: &Bounds, now: Instant) -> usize {
        let mut freed = 0;
        while let (Some(oldest), Some(newest)) = (self.entries.front(), self.entries.back()) {
            let since = if bounds.together { newest.appended } else { oldest.appended };
            let too_old = now.duration_since(since) >= bounds.age;
            if !too_old && self.entries.len() <= bounds.entries && self.bytes <= bounds.bytes {
                break;
            }
            freed += self.pop_front();
        }
        if self.entries.is_empty() {
            // The channel itself is kept for a day, and unused capacity would be most of its size.
            self.entries = VecDeque::new();
        }
        freed
    }

    /// What an append of this batch would do to each entry, in order. Changes nothing.
    fn judge(&self, batch: &AppendBatch) -> Vec<Appended> {
        let mut last = self.last_seq(batch.producer);
        let (mut top, mut fence, mut closed) = (self.top, self.fence, self.closed);
        let judged = batch.entries.iter().map(|append| {
            if append.seq <= last {
                return Appended::Duplicate;
            }
            if append.prev > last {
                return Appended::Gap { last };
            }
            if closed {
                return Appended::Refused(Refusal::Closed);
            }
            if let Some(given) = append.fence {
                if given < fence {
                    return Appended::Refused(Refusal::StaleFence { fence: given, newest: fence });
                }
                fence = given;
            }
            closed = append.draft.kind.is_terminal();
            last = append.seq;
            top += 1;
            Appended::Applied { offset: top }
        });
        judged.collect()
    }

    fn append(&mut self, batch: &AppendBatch, now: Instant) -> Vec<Appended> {
        let policy = ChannelPolicy::of(&batch.channel);
        let results = self.judge(batch);
        for (append, result) in batch.entries.iter().zip(&results) {
            let Appended::Applied { offset } = *result else { continue };
            self.fence = append.fence.unwrap_or(self.fence);
            self.closed = append.draft.kind.is_terminal();
            self.producers.note(batch.producer, append.seq, now);
            (self.top, self.touched) = (offset, now);
            let entry = append.at(batch.producer, offset);
            self.latest.note(&entry, policy, now);
            self.bytes += entry.draft.cost();
            self.entries.push_back(Kept { entry, appended: now });
        }
        results
    }

    fn last_seq(&self, producer: NodeId) -> u64 {
        self.producers.get(producer).map_or(0, |(seq, _)| seq)
    }

    /// The newest sequence of each producer whose entries may come again: see [`OpenLog::producers`].
    fn recent_producers(&self, bounds: &Bounds) -> Vec<(NodeId, u64)> {
        let silence = bounds.producers_silent();
        #[cfg(test)]
        let names_all = mutant::is(Mutant::SilentAreNamed) || mutant::is(Mutant::ForgottenIsLost);
        #[cfg(test)]
        let silence = if names_all { Duration::MAX } else { silence };
        let recent = self.producers.iter().filter(|(_, _, came)| came.elapsed() < silence);
        recent.map(|(node, seq, _)| (node, seq)).collect()
    }

    fn first(&self) -> u64 {
        self.entries.front().map_or(self.top + 1, |kept| kept.entry.offset)
    }

    /// The state of its log, for a producer. The anchor is the entry at the offset `at` or, if that is not
    /// kept, the newest one.
    fn open(&self, producer: NodeId, at: u64, bounds: &Bounds) -> OpenLog {
        let index = at.checked_sub(self.first()).and_then(|index| usize::try_from(index).ok());
        let kept = index.and_then(|index| self.entries.get(index)).or(self.entries.back());
        let entry = kept.map(|kept| &kept.entry);
        OpenLog {
            epoch: self.epoch.clone(),
            top: self.top,
            last_seq: self.last_seq(producer),
            producers: self.recent_producers(bounds),
            anchor: entry.filter(|entry| entry.id.is_known()).map(Anchor::from),
        }
    }
}

#[async_trait]
impl Log for MemoryBackend {
    /// Without the list of producers, which can be long.
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        let state = self.shared.state.lock();
        Ok(state.channels.get(channel).map_or_else(LogState::default, |held| LogState {
            epoch: Some(held.epoch.clone()),
            top: held.top,
            last_seq: held.last_seq(producer),
        }))
    }

    async fn find(&self, channel: &ChannelName, producer: NodeId) -> Result<Option<OpenLog>> {
        Ok(self.shared.examine(channel, producer, u64::MAX))
    }

    async fn open(&self, channel: &ChannelName, producer: NodeId, minted: &Epoch) -> Result<OpenLog> {
        match &self.folder {
            Some(folder) => folder.open_log(channel, producer, minted).await,
            None => Ok(self.open_now(channel, producer, minted)),
        }
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        match &self.folder {
            Some(folder) => folder.append(batch).await,
            None => Ok(self.append_now(batch)),
        }
    }

    async fn read_within(
        &self,
        channel: &ChannelName,
        after: Option<&Position>,
        limit: PageLimit,
    ) -> Result<Page> {
        Ok(self.read_now_within(channel, after, limit))
    }

    async fn latest_within(&self, channel: &ChannelName, query: LatestQuery<'_>) -> Result<LatestPage> {
        Ok(self.latest_now(channel, query))
    }

    async fn keys(&self, channel: &ChannelName) -> Result<Vec<Arc<str>>> {
        let mut state = self.shared.state.lock();
        state.expire_latest(channel, &self.shared.retention);
        let held = state.channels.get(channel);
        Ok(held.map(|held| held.latest.keys().cloned().collect()).unwrap_or_default())
    }

    async fn follow(&self, _channel: &ChannelName) -> Result<()> {
        Ok(())
    }

    async fn unfollow(&self, _channel: &ChannelName) -> Result<()> {
        Ok(())
    }

    fn take_incoming(&self) -> Option<mpsc::Receiver<LogEvent>> {
        None
    }
}

#[async_trait]
impl Records for MemoryBackend {
    async fn put(&self, kind: RecordKind, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        if let Some(folder) = self.folder.as_ref().filter(|_| folder::is_kept(kind)) {
            return folder.put_record(kind, key, value, ttl).await;
        }
        let record = StoredRecord { value, expires: Instant::now() + ttl };
        self.shared.state.lock().records.insert((kind.as_str(), key.to_owned()), record);
        Ok(())
    }

    async fn get(&self, kind: RecordKind, key: &str) -> Result<Option<Bytes>> {
        let state = self.shared.state.lock();
        let found = state.records.get(&(kind.as_str(), key.to_owned()));
        Ok(found.filter(|record| record.expires > Instant::now()).map(|record| record.value.clone()))
    }

    async fn delete(&self, kind: RecordKind, key: &str) -> Result<bool> {
        if let Some(folder) = self.folder.as_ref().filter(|_| folder::is_kept(kind)) {
            return folder.delete_record(kind, key).await;
        }
        let removed = self.shared.state.lock().records.remove(&(kind.as_str(), key.to_owned()));
        Ok(removed.is_some_and(|record| record.expires > Instant::now()))
    }

    async fn list(&self, kind: RecordKind, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        let now = Instant::now();
        let kind = kind.as_str();
        let from = match after {
            Some(key) => Bound::Excluded((kind, key.to_owned())),
            None => Bound::Included((kind, String::new())),
        };
        let state = self.shared.state.lock();
        let of_kind =
            state.records.range((from, Bound::Unbounded)).take_while(|((held, _), _)| *held == kind);
        let live = of_kind.filter(|(_, record)| record.expires > now);
        Ok(live
            .take(limit)
            .map(|((_, key), r)| Record { key: key.clone(), value: r.value.clone() })
            .collect())
    }

    async fn hold(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>> {
        if let Some(folder) = &self.folder {
            folder.have_fences().await?;
        }
        let now = Instant::now();
        let expires = now + ttl.min(AGE_MAX);
        let state = &mut *self.shared.state.lock();
        match state.leases.get_mut(key).filter(|lease| lease.expires > now) {
            Some(lease) if lease.holder != holder => return Ok(None),
            Some(lease) => {
                lease.expires = expires;
                return Ok(Some(lease.fence));
            }
            None => {}
        }
        state.last_fence += 1;
        let fence = state.last_fence;
        state.leases.insert(key.to_owned(), Lease { holder: holder.to_owned(), fence, expires });
        Ok(Some(fence))
    }

    async fn let_go(&self, key: &str, holder: &str) -> Result<()> {
        let mut state = self.shared.state.lock();
        if state.leases.get(key).is_some_and(|lease| lease.holder == holder) {
            state.leases.remove(key);
        }
        Ok(())
    }
}

#[async_trait]
impl StorageBackend for MemoryBackend {
    fn name(&self) -> BackendName {
        BackendName::InMemory
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::model::DraftEntry;
    use crate::storage::Append;

    fn backend(retention: Retention, total_bytes: usize) -> MemoryBackend {
        MemoryBackend::new(retention, MemoryConfig { total_bytes, ..MemoryConfig::default() }).0
    }

    async fn fill(store: &MemoryBackend, channel: &str, count: u64, bytes: usize) {
        let channel: ChannelName = channel.parse().unwrap();
        let producer = NodeId::random();
        let epoch = store.open(&channel, producer, &Epoch::random()).await.unwrap().epoch;
        let entries = (1..=count).map(|seq| {
            let draft = DraftEntry::price(0, format!("{{\"p\":\"{}\"}}", "x".repeat(bytes)));
            Append { seq, prev: seq - 1, draft, fence: None }
        });
        let batch = AppendBatch { channel, epoch, producer, entries: entries.collect() };
        store.append(&batch).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_entries_of_all_channels_go_when_the_total_is_passed() {
        let store = backend(Retention::default(), 100_000);
        fill(&store, "zone:old", 50, 1_000).await;
        time::advance(Duration::from_secs(1)).await;
        fill(&store, "zone:new", 60, 1_000).await;
        let old = store.read_after(&"zone:old".parse().unwrap(), None, 1_000).await.unwrap();
        let new = store.read_after(&"zone:new".parse().unwrap(), None, 1_000).await.unwrap();
        assert!(store.shared.state.lock().total_bytes <= 100_000);
        assert_eq!(new.entries.len(), 60);
        assert!(old.entries.len() < 40 && old.first == 51 - old.entries.len() as u64, "{}", old.first);
    }

    /// Appends a price of each of these keys.
    async fn price(store: &MemoryBackend, channel: &str, keys: impl Iterator<Item = u64>, bytes: usize) {
        let channel: ChannelName = channel.parse().unwrap();
        let epoch = store.open(&channel, NodeId::random(), &Epoch::random()).await.unwrap().epoch;
        for key in keys {
            let price = DraftEntry::price(0, "x".repeat(bytes));
            let draft = DraftEntry { key: Some(key.to_string().into()), ..price };
            let entries = vec![Append { seq: 1, prev: 0, draft, fence: None }];
            let (channel, epoch, producer) = (channel.clone(), epoch.clone(), NodeId::random());
            store.append(&AppendBatch { channel, epoch, producer, entries }).await.unwrap();
        }
    }

    async fn latest(store: &MemoryBackend, channel: &str) -> Vec<u64> {
        let entries = store.latest(&channel.parse().unwrap(), None, 1_000).await.unwrap().entries;
        let mut keys: Vec<u64> =
            entries.iter().map(|e| e.draft.key.as_ref().unwrap().parse().unwrap()).collect();
        keys.sort_unstable();
        keys
    }

    fn assert_counted(store: &MemoryBackend) {
        let state = store.shared.state.lock();
        let entries = state.channels.values().flat_map(|held| &held.entries);
        let bytes: usize = entries.map(|kept| kept.entry.draft.cost()).sum();
        let latest = state.channels.values().flat_map(|held| held.latest.all());
        let latest: usize = latest.map(|(entry, _)| entry.draft.cost() + latest::PLACE_BYTES).sum();
        assert_eq!((state.total_bytes, state.latest_bytes), (bytes, latest));
        assert!(bytes + latest <= store.shared.total_bytes_max, "{bytes} + {latest}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_entries_of_keys_are_within_the_total_too() {
        let store = backend(Retention::default(), 1 << 20);
        price(&store, "zone:small", 0..10, 100).await;
        price(&store, "zone:wide", 0..3_000, 20 << 10).await;
        assert_counted(&store);
        let usage = store.usage();
        assert!(usage.bytes <= usage.bytes_max && usage.latest_bytes <= usage.bytes_max / 2, "{usage:?}");
        assert_eq!(latest(&store, "zone:small").await.len(), 10, "it holds little");
        let wide = latest(&store, "zone:wide").await;
        assert_eq!(wide, (3_000 - wide.len() as u64..3_000).collect::<Vec<_>>(), "the oldest keys went");
        assert_eq!((wide.len() > 15, usage.evicted_latest), (true, 3_000 - wide.len() as u64));
        assert!(usage.evicted_entries > 0, "{usage:?}");
        // A key that is updated again counts once. Mirrored entries and new incarnations count as well.
        price(&store, "zone:wide", std::iter::repeat_n(7, 100), 100).await;
        assert_counted(&store);
        let name: ChannelName = "zone:small".parse().unwrap();
        let entries = store.latest(&name, None, 1_000).await.unwrap().entries;
        store.mirror_from(&name, &Epoch::random(), 5, &[]);
        store.mirror_latest(&"zone:wide".parse().unwrap(), &entries);
        assert_counted(&store);
        store.open(&name, NodeId::random(), &Epoch::random()).await.unwrap();
        store.shared.state.lock().remove(&"zone:wide".parse().unwrap());
        assert_counted(&store);
    }

    #[tokio::test(start_paused = true)]
    async fn more_channels_than_memory_has_room_for_leave_the_logs_a_part_of_it() {
        let max = 10 * CHANNEL_BYTES;
        let store = backend(Retention::default(), max);
        for n in 0..40 {
            fill(&store, &format!("zone:{n}"), 20, 10).await;
        }
        let entries = store.shared.state.lock().total_bytes;
        assert!((1..=max / 4).contains(&entries), "{entries} of {max}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_channels_of_too_many_orders_go_the_closed_and_old_ones_first() {
        let (mut store, _) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
        Arc::get_mut(&mut store.shared).unwrap().orders_max = 20;
        let mut orders = vec![];
        for n in 0..20 {
            let order = ChannelName::order(crate::model::OrderId::random());
            fill(&store, order.as_str(), 1, 10).await;
            store.shared.state.lock().channels.get_mut(&order).unwrap().closed = n == 7;
            orders.push(order);
            time::advance(Duration::from_millis(1)).await;
        }
        fill(&store, "zone:a", 1, 10).await;
        let known = |order: &ChannelName| store.shared.state.lock().channels.contains_key(order);
        assert!(orders.iter().all(&known));
        let newest = ChannelName::order(crate::model::OrderId::random());
        fill(&store, newest.as_str(), 1, 10).await;
        let gone: Vec<usize> = (0..20).filter(|n| !known(&orders[*n])).collect();
        assert_eq!(gone, [0, 7], "the closed one, then the oldest; one place stays free");
        assert!(known(&newest) && known(&"zone:a".parse().unwrap()));
        let state = store.shared.state.lock();
        let bytes: usize = state.channels.values().map(|channel| channel.bytes).sum();
        assert_eq!((state.orders, state.due.len(), state.total_bytes), (19, 20, bytes));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_channel_costs_nothing_after_its_time() {
        let store = backend(Retention { age_s: 10, ..Retention::default() }, 1 << 20);
        fill(&store, "zone:a", 3, 10).await;
        let left_after = |waited: Duration| {
            store.shared.sweep(Instant::now() + waited);
            let state = store.shared.state.lock();
            (state.channels.len(), state.total_bytes > 0)
        };
        assert_eq!(left_after(Duration::from_secs(9)), (1, true));
        assert_eq!(left_after(Duration::from_secs(10)), (1, false), "entries go, the epoch stays");
        assert_eq!(left_after(EPOCH_KEPT_FOR + Duration::from_secs(10)), (0, false));
    }
}
