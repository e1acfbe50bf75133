//! Converts the folder's rows into memory, and memory into rows.

use std::collections::HashMap;
use std::sync::Arc;

use super::Found;
use super::requests::FENCES_AT_ONCE;
use super::rows::{
    ChannelRow, Clock, Place, decode_entry, decode_producer, decode_record, encode_entry, encode_producer,
    encode_record, kept_kind,
};
use super::store::{Change, Store, StoreError};
use crate::model::{ChannelName, ChannelPolicy, Entry, Epoch};
use crate::storage::memory::job_table::JobTable;
use crate::storage::memory::{Channel, Keep, Kept, Shared, State, StoredRecord};
use crate::storage::{Bounds, MemoryConfig, Retention};

/// What has been read so far, row by row.
struct Loading {
    clock: Clock,
    state: State,
    jobs: JobTable,
    /// The channels by number.
    incarnations: HashMap<u64, Incarnation>,
    /// Rows to delete: damaged ones, and those of unknown channels.
    useless: Vec<Change>,
    found: Found,
    fences: u64,
}

struct Incarnation {
    name: ChannelName,
    channel: Channel,
    first: u64,
    /// Entries outside the log, which may be the latest of their keys.
    before: Vec<Entry>,
}

/// The content of the rows as memory, the changes that the rows need, and the size of the rows in bytes. With
/// `renewed`, each log continues in a new epoch, and numbering skips all fencing tokens and job tokens that
/// may have been given out.
pub(super) fn load(
    store: &Store,
    retention: Retention,
    config: &MemoryConfig,
    renewed: Option<&'static str>,
) -> Result<(Arc<Shared>, Found, Vec<Change>, u64), StoreError> {
    let clock = Clock::read();
    let mut loading = Loading {
        clock,
        state: State { keep: Some(Keep::default()), ..State::default() },
        jobs: JobTable::default(),
        incarnations: HashMap::new(),
        useless: Vec::new(),
        found: Found { renewed, ..Found::default() },
        fences: 0,
    };
    let bytes = store.each_row(|key, row| loading.take(key, row))?;
    let Loading { mut state, mut jobs, incarnations, useless, mut found, mut fences, .. } = loading;
    if renewed.is_some() {
        fences += 2 * FENCES_AT_ONCE;
        jobs.leave_out_tokens(2 * FENCES_AT_ONCE);
    }
    state.last_fence = fences;
    state.keep.get_or_insert_default().fences = fences;
    jobs.begin_noting();
    found.jobs = jobs.len();
    let memory = Shared::new(retention, config, state, jobs);
    let mut incarnations: Vec<(u64, Incarnation)> = incarnations.into_iter().collect();
    incarnations.sort_unstable_by_key(|(incarnation, _)| *incarnation);
    let mut changes = useless;
    for (incarnation, held) in incarnations {
        let epoch = renewed.map(|_why| Epoch::random());
        changes.extend(take_in(&memory, incarnation, held, epoch, &clock));
    }
    memory.sweep(clock.at);
    found.channels = memory.state.lock().channels.len();
    Ok((Arc::new(memory), found, changes, bytes))
}

impl Loading {
    fn take(&mut self, key: &[u8], row: Option<&[u8]>) {
        let place = Place::of(key);
        let is_taken = match (&place, row) {
            (Some(place), Some(row)) => self.take_row(place, row).is_some(),
            _ => false,
        };
        if !is_taken {
            self.found.unreadable += 1;
            self.useless.push(Change::Delete(key.to_vec()));
        }
    }

    fn take_row(&mut self, place: &Place, row: &[u8]) -> Option<()> {
        let clock = self.clock;
        match place {
            Place::Channel(incarnation) => {
                let row: ChannelRow = serde_json::from_slice(row).ok()?;
                let name: ChannelName = row.name.parse().ok()?;
                let keep = self.state.keep.get_or_insert_default();
                keep.last_incarnation = keep.last_incarnation.max(*incarnation);
                let mut channel = Channel::new(row.epoch, clock.past(row.touched_us));
                (channel.top, channel.fence, channel.closed) = (row.top, row.fence, row.closed);
                self.incarnations.insert(
                    *incarnation,
                    Incarnation { name, channel, first: row.first, before: Vec::new() },
                );
            }
            Place::Entry(incarnation, offset) => {
                let held = self.incarnations.get_mut(incarnation)?;
                let (appended_us, entry) = decode_entry(*offset, row)?;
                held.take(entry, appended_us, &clock);
                self.found.entries += 1;
            }
            Place::Producer(incarnation, node) => {
                let held = self.incarnations.get_mut(incarnation)?;
                let (seq, came_us) = decode_producer(row)?;
                held.channel.producers.note(*node, seq, clock.past(came_us));
            }
            Place::Record(kind, key) => {
                let (value, expires_us, written_us) = decode_record(row)?;
                let record = StoredRecord { value, expires: clock.moment(expires_us, written_us) };
                self.state.records.insert((kind.as_str(), key.clone()), record);
            }
            Place::Job(id) => self.jobs.take_row(*id, row, &clock).then_some(())?,
            Place::Jobs => self.jobs.take_table_row(row).then_some(())?,
            Place::Fences => self.fences = std::str::from_utf8(row).ok()?.parse().ok()?,
            // Read elsewhere.
            Place::Use | Place::Applied => {}
        }
        Some(())
    }
}

impl Incarnation {
    /// Entries come in order of offset.
    fn take(&mut self, entry: Entry, appended_us: i64, clock: &Clock) {
        let (policy, appended) = (ChannelPolicy::of(&self.name), clock.past(appended_us));
        self.channel.latest.note(&entry, policy, appended);
        if entry.offset < self.first || entry.offset > self.channel.top {
            self.before.push(entry);
            return;
        }
        let next = self.channel.entries.back().map_or(self.first, |kept| kept.entry.offset + 1);
        if entry.offset != next {
            // The missing entries could not be read. A log has no holes, so it begins after them.
            self.before.extend(self.channel.entries.drain(..).map(|kept| kept.entry));
            self.channel.bytes = 0;
        }
        self.channel.bytes += entry.draft.cost();
        self.channel.entries.push_back(Kept { entry, appended });
    }
}

/// Adds a channel to memory as the rows describe it, within its bounds; returns the changes that its rows
/// need.
fn take_in(
    memory: &Shared,
    incarnation: u64,
    held: Incarnation,
    epoch: Option<Epoch>,
    clock: &Clock,
) -> Vec<Change> {
    let Incarnation { name, mut channel, before, .. } = held;
    let (policy, bounds) = (ChannelPolicy::of(&name), Bounds::of(&memory.retention, &name));
    let mut changes = Vec::new();
    // The log must be complete up to its top; otherwise none of its entries can be kept.
    if channel.entries.back().is_some_and(|kept| kept.entry.offset != channel.top) {
        let late = channel.entries.drain(..).map(|kept| kept.entry);
        let gone = late.filter(|entry| !channel.latest.holds(entry, policy));
        changes.extend(gone.map(|entry| Change::set(&Place::Entry(incarnation, entry.offset), None)));
        channel.bytes = 0;
    }
    channel.begin_keeping(incarnation, policy);
    let useless = before.iter().filter(|entry| !channel.latest.holds(entry, policy));
    changes.extend(useless.map(|entry| Change::set(&Place::Entry(incarnation, entry.offset), None)));
    let silent = |came| clock.at.duration_since(came) > bounds.kept();
    channel.producers.retain(|node, came| {
        let is_kept = !silent(came);
        if !is_kept {
            changes.push(Change::set(&Place::Producer(incarnation, node), None));
        }
        is_kept
    });
    if let Some(epoch) = epoch {
        channel.epoch = epoch;
        let row = ChannelRow::of(&name, &channel, clock).encode();
        changes.push(Change::set(&Place::Channel(incarnation), Some(row)));
    }
    let mut state = memory.state.lock();
    // A channel has one number; if there were two, the later one wins.
    state.remove(&name);
    let (bytes, latest_bytes) = (channel.bytes, channel.latest.bytes());
    let due = channel.next_due(&bounds);
    state.channels.insert(name.clone(), Box::new(channel));
    state.total_bytes += bytes;
    state.latest_bytes += latest_bytes;
    state.orders += usize::from(policy.is_bounded_in_memory);
    state.reschedule(name.clone(), due);
    // Applies the bounds.
    state.change(&name, memory, |_| ());
    if state.orders > memory.orders_max {
        state.forget_orders(memory.orders_max);
    }
    changes
}

// From memory to rows

/// The removal of rows that memory no longer keeps.
pub(super) fn collect(memory: &Shared) -> Vec<Change> {
    let clock = Clock::read();
    let mut guard = memory.state.lock();
    let state = &mut *guard;
    let incarnations = state.keep.as_mut().map(|keep| std::mem::take(&mut keep.gone)).unwrap_or_default();
    let mut changes: Vec<Change> = incarnations.into_iter().map(Change::DropIncarnation).collect();
    for (name, channel) in &mut state.channels {
        let first = channel.first();
        let left = channel.latest.take_gone().into_iter().filter(|offset| *offset < first);
        let Some(keep) = &mut channel.keep else { continue };
        let incarnation = keep.incarnation;
        let gone: Vec<u64> = std::mem::take(&mut keep.gone).into_iter().chain(left).collect();
        if gone.is_empty() {
            continue;
        }
        changes.extend(gone.into_iter().map(|offset| Change::set(&Place::Entry(incarnation, offset), None)));
        let row = ChannelRow::of(name, channel, &clock).encode();
        changes.push(Change::set(&Place::Channel(incarnation), Some(row)));
    }
    changes
}

/// Removes expired records, and makes the changes of jobs that are due.
pub(super) fn tidy(memory: &Shared) -> Vec<Change> {
    let clock = Clock::read();
    let mut changes = Vec::new();
    memory.state.lock().records.retain(|(kind, key), record| {
        let is_over = record.expires <= clock.at;
        if is_over && let Some(kind) = kept_kind(kind) {
            changes.push(Change::set(&Place::Record(kind, key.clone()), None));
        }
        !is_over
    });
    memory.sweep(clock.at);
    let mut jobs = memory.jobs.lock();
    let before = jobs.table_row();
    jobs.tidy(crate::storage::memory::job_table::Now::read());
    let of_jobs = super::requests::changes_of_jobs(&mut jobs, &before);
    changes.extend(of_jobs.into_iter().flat_map(|(of_jobs, _)| of_jobs));
    changes
}

/// What a row should contain according to memory.
pub(super) fn current(memory: &Shared, key: &[u8]) -> Option<Change> {
    let (place, clock) = (Place::of(key)?, Clock::read());
    let state = memory.state.lock();
    let of_incarnation =
        |incarnation: u64| state.channels.iter().find(|(_, channel)| channel.incarnation() == incarnation);
    let content = match &place {
        Place::Channel(incarnation) => {
            of_incarnation(*incarnation).map(|(name, channel)| ChannelRow::of(name, channel, &clock).encode())
        }
        Place::Entry(incarnation, offset) => of_incarnation(*incarnation).and_then(|(_, channel)| {
            let at = offset.checked_sub(channel.first()).and_then(|at| usize::try_from(at).ok());
            let kept = at.and_then(|at| channel.entries.get(at)).map(|kept| (&kept.entry, kept.appended));
            let (entry, appended) = kept.or_else(|| channel.latest.at(*offset))?;
            Some(encode_entry(entry, clock.us(appended)))
        }),
        Place::Producer(incarnation, node) => of_incarnation(*incarnation).and_then(|(_, channel)| {
            channel.producers.get(*node).map(|(seq, came)| encode_producer(seq, clock.us(came)))
        }),
        Place::Record(kind, key) => state
            .records
            .get(&(kind.as_str(), key.clone()))
            .map(|record| encode_record(&record.value, clock.us(record.expires), clock.wall_us)),
        Place::Job(id) => memory.jobs.lock().row(*id, &clock),
        Place::Jobs => Some(memory.jobs.lock().table_row()),
        Place::Fences => state.keep.as_ref().map(|keep| keep.fences.to_string().into_bytes()),
        Place::Use | Place::Applied => return None,
    };
    Some(Change::set(&place, content))
}

/// All rows according to memory.
pub(super) fn all(memory: &Shared) -> Vec<Change> {
    let mut keys = vec![Place::Jobs, Place::Fences];
    let clock = Clock::read();
    let mut changes = Vec::new();
    {
        let state = memory.state.lock();
        for (name, channel) in &state.channels {
            let incarnation = channel.incarnation();
            let row = ChannelRow::of(name, channel, &clock).encode();
            changes.push(Change::set(&Place::Channel(incarnation), Some(row)));
            let entries = channel.entries.iter().map(|kept| (&kept.entry, kept.appended));
            for (entry, appended) in channel.latest.all().chain(entries) {
                let content = encode_entry(entry, clock.us(appended));
                changes.push(Change::set(&Place::Entry(incarnation, entry.offset), Some(content)));
            }
            for (node, seq, came) in channel.producers.iter() {
                let content = encode_producer(seq, clock.us(came));
                changes.push(Change::set(&Place::Producer(incarnation, node), Some(content)));
            }
        }
        let records = state.records.keys();
        keys.extend(records.filter_map(|(kind, key)| Some(Place::Record(kept_kind(kind)?, key.clone()))));
    }
    keys.extend(memory.jobs.lock().ids().map(Place::Job));
    changes.extend(keys.iter().filter_map(|place| current(memory, &place.key())));
    changes
}
