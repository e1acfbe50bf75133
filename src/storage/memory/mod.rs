//! Storage in this process: bounded, ordered at once, gone when the process is.

mod job_table;
mod jobs;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{self, Instant};

use super::{
    AppendAnswer, AppendBatch, Appended, EPOCH_KEPT_FOR, Log, LogEvent, LogState, MemoryConfig, Page, Record,
    RecordKind, Records, Refusal, Result, Retention, StorageBackend, UNUSED_EPOCH_KEPT_FOR,
};
use crate::model::{BackendName, ChannelKind, ChannelName, Entry, EntryId, Epoch, NodeId};
use job_table::{JobTable, Now};

/// How often what has grown too old is removed, also where nobody reads or writes.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// After an overflow of the total, this part of it is free again, so that not each append evicts.
const HEADROOM_DIVISOR: usize = 20;

/// [`StorageBackend`] in this process. See [`Retention`] and [`MemoryConfig`] for its bounds.
#[derive(Debug, Clone)]
pub struct MemoryBackend {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    retention: Retention,
    total_bytes_max: usize,
    state: Mutex<State>,
    /// Apart from the rest: nothing needs both at once.
    jobs: Mutex<JobTable>,
}

#[derive(Debug, Default)]
struct State {
    channels: HashMap<ChannelName, Channel>,
    /// Sum of `Channel::bytes`.
    total_bytes: usize,
    records: BTreeMap<(&'static str, String), StoredRecord>,
}

#[derive(Debug)]
struct Channel {
    epoch: Epoch,
    top: u64,
    entries: VecDeque<Kept>,
    /// Cost of `entries`.
    bytes: usize,
    latest: HashMap<Arc<str>, Entry>,
    /// The newest applied sequence of each producer. Lives as long as the channel does.
    producers: HashMap<NodeId, u64>,
    touched: Instant,
    /// The newest fence of an applied entry.
    fence: u64,
    /// A terminal entry was applied.
    closed: bool,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    appended: Instant,
}

#[derive(Debug)]
struct StoredRecord {
    value: Bytes,
    expires: Instant,
}

impl MemoryBackend {
    /// An empty storage, and a future that removes what grows too old; it never ends.
    pub fn new(retention: Retention, config: MemoryConfig) -> (Self, impl Future<Output = ()> + Send) {
        let shared = Arc::new(Shared {
            retention,
            total_bytes_max: config.total_bytes,
            state: Mutex::default(),
            jobs: Mutex::default(),
        });
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
        (Self { shared }, sweeping)
    }
}

/// How much of a channel is kept.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    entries: usize,
    bytes: usize,
    age: Duration,
    /// Ages count from the newest entry on, so that all go together.
    together: bool,
}

impl Bounds {
    fn of(retention: &Retention, channel: &ChannelName) -> Self {
        let bytes = retention.bytes;
        match channel.kind() {
            ChannelKind::Zone => Self {
                entries: retention.entries,
                bytes,
                age: Duration::from_secs(retention.age_s),
                together: false,
            },
            ChannelKind::Order => Self {
                entries: retention.orders.updates,
                bytes,
                age: Duration::from_secs(retention.orders.age_s),
                together: true,
            },
        }
    }
}

impl Shared {
    fn sweep(&self, now: Instant) {
        let mut state = self.state.lock();
        let State { channels, total_bytes, records } = &mut *state;
        channels.retain(|name, channel| {
            let bounds = Bounds::of(&self.retention, name);
            *total_bytes -= channel.trim(&bounds, now);
            let kept_for = if channel.top == 0 { UNUSED_EPOCH_KEPT_FOR } else { bounds.age + EPOCH_KEPT_FOR };
            now.duration_since(channel.touched) < kept_for
        });
        records.retain(|_, record| record.expires > now);
    }
}

impl State {
    /// Removes the oldest entries of all channels until the total is within its bound with headroom.
    fn evict(&mut self, max: usize) {
        if self.total_bytes <= max {
            return;
        }
        let goal = max - max / HEADROOM_DIVISOR;
        while self.total_bytes > goal {
            let heads = self.channels.values_mut().filter(|channel| !channel.entries.is_empty());
            let Some(oldest) = heads.min_by_key(|channel| channel.entries[0].appended) else { return };
            // A run at a time: finding the channel costs more than removing from it.
            for _ in 0..oldest.entries.len().div_ceil(16) {
                self.total_bytes -= oldest.pop_front();
            }
        }
    }
}

impl Channel {
    fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            epoch,
            top: 0,
            entries: VecDeque::new(),
            bytes: 0,
            latest: HashMap::new(),
            producers: HashMap::new(),
            touched: now,
            fence: 0,
            closed: false,
        }
    }

    /// Removes the oldest entry; returns its cost.
    fn pop_front(&mut self) -> usize {
        let cost = self.entries.pop_front().map_or(0, |kept| kept.entry.draft.cost());
        self.bytes -= cost;
        cost
    }

    /// Applies the bounds; returns what that freed.
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
        freed
    }

    fn append(&mut self, batch: &AppendBatch, now: Instant) -> Vec<Appended> {
        self.touched = now;
        let by_offset = batch.channel.kind() == ChannelKind::Order;
        let Self { top, entries, bytes, latest, producers, fence, closed, .. } = self;
        let last = producers.entry(batch.producer).or_insert(0);
        let results = batch.entries.iter().map(|append| {
            if append.seq <= *last {
                return Appended::Duplicate;
            }
            if append.prev > *last {
                return Appended::Gap { last: *last };
            }
            if *closed {
                return Appended::Refused(Refusal::Closed);
            }
            if let Some(given) = append.fence {
                if given < *fence {
                    return Appended::Refused(Refusal::StaleFence { fence: given, newest: *fence });
                }
                *fence = given;
            }
            *closed = append.draft.kind.is_terminal();
            *last = append.seq;
            *top += 1;
            let id = EntryId { producer: batch.producer, seq: append.seq };
            let entry = Entry { offset: *top, id, draft: append.draft.clone() };
            if let Some(key) = &entry.draft.key
                && latest.get(key).is_none_or(|held| by_offset || held.draft.time <= entry.draft.time)
            {
                latest.insert(Arc::clone(key), entry.clone());
            }
            *bytes += entry.draft.cost();
            entries.push_back(Kept { entry, appended: now });
            Appended::Applied { offset: *top }
        });
        results.collect()
    }

    fn first(&self) -> u64 {
        self.entries.front().map_or(self.top + 1, |kept| kept.entry.offset)
    }
}

#[async_trait]
impl Log for MemoryBackend {
    async fn state(&self, channel: &ChannelName, producer: NodeId) -> Result<LogState> {
        let state = self.shared.state.lock();
        Ok(match state.channels.get(channel) {
            None => LogState { epoch: None, top: 0, last_seq: 0 },
            Some(held) => LogState {
                epoch: Some(held.epoch.clone()),
                top: held.top,
                last_seq: held.producers.get(&producer).copied().unwrap_or(0),
            },
        })
    }

    async fn mint_epoch(
        &self,
        channel: &ChannelName,
        expected: Option<&Epoch>,
        minted: &Epoch,
    ) -> Result<Epoch> {
        let mut state = self.shared.state.lock();
        let current = state.channels.get(channel).map(|held| held.epoch.clone());
        // Where the epoch that was to be replaced is gone already, the log needs a new life all the same.
        if current.as_ref() != expected
            && let Some(current) = current
        {
            return Ok(current);
        }
        let fresh = Channel::new(minted.clone(), Instant::now());
        if let Some(replaced) = state.channels.insert(channel.clone(), fresh) {
            state.total_bytes -= replaced.bytes;
        }
        Ok(minted.clone())
    }

    async fn append(&self, batch: &AppendBatch) -> Result<AppendAnswer> {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let Some(channel) = state.channels.get_mut(&batch.channel) else {
            return Ok(AppendAnswer::ForeignEpoch(None));
        };
        if channel.epoch != batch.epoch {
            return Ok(AppendAnswer::ForeignEpoch(Some(channel.epoch.clone())));
        }
        let before = channel.bytes;
        let results = channel.append(batch, now);
        channel.trim(&Bounds::of(&self.shared.retention, &batch.channel), now);
        let after = channel.bytes;
        state.total_bytes = state.total_bytes + after - before;
        state.evict(self.shared.total_bytes_max);
        Ok(AppendAnswer::Done(results))
    }

    async fn read_after(&self, channel: &ChannelName, offset: u64, limit: usize) -> Result<Page> {
        let now = Instant::now();
        let mut state = self.shared.state.lock();
        let State { channels, total_bytes, .. } = &mut *state;
        let Some(held) = channels.get_mut(channel) else {
            return Ok(Page { epoch: None, top: 0, first: 1, closed: false, entries: Vec::new() });
        };
        *total_bytes -= held.trim(&Bounds::of(&self.shared.retention, channel), now);
        let first = held.first();
        // Offsets are contiguous, so the place of an offset is known without a search.
        let skip = usize::try_from(offset.saturating_add(1).saturating_sub(first))
            .unwrap_or(usize::MAX)
            .min(held.entries.len());
        let entries = held.entries.range(skip..).take(limit).map(|kept| kept.entry.clone()).collect();
        Ok(Page { epoch: Some(held.epoch.clone()), top: held.top, first, closed: held.closed, entries })
    }

    async fn latest(&self, channel: &ChannelName) -> Result<Vec<Entry>> {
        let state = self.shared.state.lock();
        let mut entries: Vec<Entry> = state
            .channels
            .get(channel)
            .map(|held| held.latest.values().cloned().collect())
            .unwrap_or_default();
        drop(state);
        entries.sort_unstable_by_key(|entry| entry.offset);
        Ok(entries)
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
    use chrono::DateTime;

    use super::*;
    use crate::model::{DraftEntry, EntryKind};
    use crate::storage::Append;

    fn backend(retention: Retention, total_bytes: usize) -> MemoryBackend {
        MemoryBackend::new(retention, MemoryConfig { total_bytes }).0
    }

    async fn fill(store: &MemoryBackend, channel: &str, count: u64, bytes: usize) {
        let channel: ChannelName = channel.parse().unwrap();
        let producer = NodeId::random();
        let epoch = store.mint_epoch(&channel, None, &Epoch::random()).await.unwrap();
        let entries = (1..=count).map(|seq| {
            let data = Bytes::from(format!("{{\"p\":\"{}\"}}", "x".repeat(bytes)));
            let time = DateTime::from_timestamp_millis(0).unwrap();
            Append {
                seq,
                prev: seq - 1,
                draft: DraftEntry { time, kind: EntryKind::PriceUpdate, key: None, data },
                fence: None,
            }
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
        let old = store.read_after(&"zone:old".parse().unwrap(), 0, 1_000).await.unwrap();
        let new = store.read_after(&"zone:new".parse().unwrap(), 0, 1_000).await.unwrap();
        assert!(store.shared.state.lock().total_bytes <= 100_000);
        assert_eq!(new.entries.len(), 60);
        assert!(old.entries.len() < 40 && old.first == 51 - old.entries.len() as u64, "{}", old.first);
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
