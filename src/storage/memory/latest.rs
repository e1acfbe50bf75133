//! The latest entry of each key of a channel, and the memory that these entries take.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{ChannelPolicy, Entry, EntryKind};
use crate::storage::{LatestOf, LatestPage, LatestQuery, REMOVED_KEPT_FOR, REMOVED_MAX};
#[cfg(test)]
use crate::support::mutant::{self, Mutant};

/// The key under which [`Latest::removed`] has the removal of all keys; no entry has it.
const ALL_KEYS: &str = "";

/// What an entry takes here in addition to its own size: its place in the map, its offset and its time.
pub(super) const PLACE_BYTES: usize = 96;

/// The latest entry of each key. It outlives its entry in the log, so its size is counted separately.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Latest {
    /// Boxed, because a map of one key has room for eleven, and nearly all orders have one.
    by_key: BTreeMap<Arc<str>, Box<Held>>,
    /// Removals of keys that have had no entry since, and under [`ALL_KEYS`] the removal of all keys. Older
    /// entries that come late must not bring the keys back.
    removed: BTreeMap<Arc<str>, Box<Held>>,
    bytes: usize,
    /// Lower bounds of `since` in `by_key` and in `removed`.
    oldest: Option<Instant>,
    oldest_removed: Option<Instant>,
    /// With a folder on disk: the offsets of entries that were dropped.
    gone: Option<Vec<u64>>,
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct Held {
    entry: Entry,
    /// Its offset if that is of the log's present epoch; otherwise 0.
    rank: u64,
    /// When it was added.
    since: Instant,
}

impl Held {
    /// Whether `entry` takes its place as the last one of the key. The entry that was appended last does,
    /// whatever its own time says. An entry that is marked late waited at its gateway, and others may have
    /// been appended elsewhere after it was accepted, so it is compared. The policy may also say that all
    /// entries are compared, or none.
    fn gives_way_to(&self, entry: &Entry, policy: &ChannelPolicy) -> bool {
        let is_compared =
            |later: &Entry| !policy.latest_by_offset && (policy.latest_by_time || later.draft.marks.late);
        let replaces = |later: &Entry, before: &Entry| !is_compared(later) || is_newer(later, before);
        if entry.offset >= self.rank { replaces(entry, &self.entry) } else { !replaces(&self.entry, entry) }
    }

    fn is(&self, entry: &Entry) -> bool {
        self.entry.id == entry.id && self.rank == entry.offset
    }

    fn cost(&self) -> usize {
        self.entry.draft.cost() + PLACE_BYTES
    }
}

/// Whether `one` is the newer of two entries of a key, prices or removals. If one gateway accepted both,
/// their sequences decide; otherwise their times, and at equal times the gateways' ids, so that all nodes
/// agree.
fn is_newer(one: &Entry, other: &Entry) -> bool {
    if one.id.producer == other.id.producer {
        return one.id.seq >= other.id.seq;
    }
    let rank = |entry: &Entry| (entry.draft.time.timestamp_millis(), entry.id.producer);
    rank(one) > rank(other)
}

/// The key of which an entry may be the last one, and whether it is a removal.
fn key_of(entry: &Entry, policy: &ChannelPolicy) -> Option<(Arc<str>, bool)> {
    let draft = &entry.draft;
    match (&draft.kind, &draft.key) {
        (EntryKind::ZoneRemoved, _) => Some((Arc::from(ALL_KEYS), true)),
        (EntryKind::KeyRemoved, key) => Some((Arc::clone(key.as_ref()?), true)),
        _ => Some((draft.latest_key(policy)?, false)),
    }
}

impl Latest {
    /// The memory that all kept entries take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Box<Held>> {
        self.by_key.values_mut().chain(self.removed.values_mut())
    }

    /// Offsets restart with an epoch, so the remembered ones are zeroed; otherwise the next entry would look
    /// older.
    pub(super) fn forget_offsets(&mut self) {
        self.all_mut().for_each(|held| held.rank = 0);
    }

    /// The log continues after this offset in an epoch that lacks what came after it; entries that come at
    /// those offsets are newer than the ones remembered here.
    pub(super) fn forget_offsets_after(&mut self, top: u64) {
        self.all_mut().filter(|held| held.rank > top).for_each(|held| held.rank = 0);
    }

    /// The last entry of a key: its latest entry, or the removal of the key or of all keys.
    fn last(&self, key: &str) -> Option<&Held> {
        let removed = || self.removed.get(key).or_else(|| self.removed.get(ALL_KEYS));
        self.by_key.get(key).or_else(removed).map(|held| &**held)
    }

    /// From here on, dropped entries are noted.
    pub(super) fn begin_noting(&mut self) {
        self.gone = Some(Vec::new());
    }

    /// The offsets of entries that were dropped since the last call.
    pub(super) fn take_gone(&mut self) -> Vec<u64> {
        self.gone.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether this very entry is a latest entry or a removal that is kept.
    pub(super) fn holds(&self, entry: &Entry, policy: &ChannelPolicy) -> bool {
        let Some((key, is_removal)) = key_of(entry, policy) else { return false };
        let held = if is_removal { &self.removed } else { &self.by_key };
        held.get(&key).is_some_and(|held| held.is(entry))
    }

    /// The kept entry with this offset, and when it was added.
    pub(super) fn at(&self, offset: u64) -> Option<(&Entry, Instant)> {
        let mut kept = self.by_key.values().chain(self.removed.values());
        kept.find(|held| held.rank == offset).map(|held| (&held.entry, held.since))
    }

    /// All kept entries, each with the time when it was added.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Entry, Instant)> {
        self.by_key.values().chain(self.removed.values()).map(|held| (&held.entry, held.since))
    }

    /// Adds an entry if it is the last one of its key. A removal can be the last one of its key, or of all
    /// keys, by the same rule, and is then remembered.
    pub(super) fn note(&mut self, entry: &Entry, policy: &ChannelPolicy, now: Instant) {
        let Some((key, is_removal)) = key_of(entry, policy) else { return };
        let last = self.last(&key);
        if last.is_some_and(|last| last.is(entry)) {
            return;
        }
        let is_last = last.is_none_or(|last| last.gives_way_to(entry, policy));
        if &*key == ALL_KEYS {
            self.retain(|held| !held.gives_way_to(entry, policy));
        }
        #[cfg(test)]
        if is_removal && mutant::is(Mutant::RemovalsForgotten) {
            if is_last {
                self.take_away(&key);
            }
            return;
        }
        if is_last {
            self.put(&key, is_removal, entry.clone(), now);
        }
    }

    /// Replaces the entry of a key.
    fn put(&mut self, key: &Arc<str>, is_removal: bool, entry: Entry, now: Instant) {
        self.take_away(key);
        let held = Box::new(Held { rank: entry.offset, entry, since: now });
        self.bytes += held.cost();
        if is_removal {
            self.oldest_removed = Some(self.oldest_removed.map_or(now, |oldest| oldest.min(now)));
            self.removed.insert(Arc::clone(key), held);
            if self.removed.len() > REMOVED_MAX {
                self.let_go_of_removal();
            }
        } else {
            self.oldest = Some(self.oldest.map_or(now, |oldest| oldest.min(now)));
            self.by_key.insert(Arc::clone(key), held);
        }
    }

    fn take_away(&mut self, key: &str) {
        let gone = self.by_key.remove(key).into_iter().chain(self.removed.remove(key));
        for held in gone {
            self.bytes -= held.cost();
            note_gone(&mut self.gone, &held);
        }
    }

    /// Drops the oldest removal.
    fn let_go_of_removal(&mut self) {
        let first = self.removed.iter().min_by_key(|(_, held)| held.since);
        if let Some(key) = first.map(|(key, _)| Arc::clone(key)) {
            self.take_away(&key);
        }
    }

    fn retain(&mut self, stays: impl Fn(&Held) -> bool) {
        for held in [&mut self.by_key, &mut self.removed] {
            retain(held, &mut self.bytes, &mut self.gone, &stays);
        }
    }

    /// Drops entries that were added longer ago than `age`, and removals older than [`REMOVED_KEPT_FOR`].
    pub(super) fn expire(&mut self, age: Duration, now: Instant) {
        let Self { by_key, removed, bytes, oldest, oldest_removed, gone } = self;
        for (held, oldest, age) in [(by_key, oldest, age), (removed, oldest_removed, REMOVED_KEPT_FOR)] {
            if oldest.is_some_and(|oldest| oldest + age <= now) {
                retain(held, bytes, gone, |held| now.duration_since(held.since) < age);
                *oldest = held.values().map(|held| held.since).min();
            }
        }
    }

    /// When the first kept entry may expire.
    pub(super) fn due(&self, age: Duration) -> Option<Instant> {
        let latest = self.oldest.map(|oldest| oldest + age);
        let removed = self.oldest_removed.map(|oldest| oldest + REMOVED_KEPT_FOR);
        latest.into_iter().chain(removed).min()
    }

    /// The first entries after a key, within the limit.
    pub(super) fn page(&self, query: LatestQuery<'_>) -> LatestPage {
        let LatestQuery { after, limit, of } = query;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut page, mut bytes, mut last) = (LatestPage::default(), 0, None);
        let mut latest = self.by_key.range::<str, _>((from, Bound::Unbounded)).peekable();
        let removed = self.removed.range::<str, _>((from, Bound::Unbounded));
        let mut removed = removed.filter(|_| of == LatestOf::RemovedToo).peekable();
        // No key is in both.
        let in_order = std::iter::from_fn(|| match (latest.peek(), removed.peek()) {
            (Some((key, _)), Some((other, _))) if other < key => removed.next(),
            (Some(_), _) => latest.next(),
            (None, _) => removed.next(),
        });
        for (key, held) in in_order {
            bytes += held.cost();
            let is_full = page.entries.len() >= limit.entries || bytes > limit.bytes;
            if is_full && (limit.entries == 0 || !page.entries.is_empty()) {
                page.next = last.map(str::to_owned);
                break;
            }
            page.entries.push(held.entry.clone());
            page.places.push(held.rank);
            last = Some(&**key);
        }
        page
    }

    /// All keys that have a latest entry, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_key.keys()
    }

    /// Drops the oldest entries until at most `goal` bytes are left; returns how many were dropped.
    pub(super) fn shrink(&mut self, goal: usize) -> u64 {
        if self.bytes <= goal {
            return 0;
        }
        let all = self.by_key.iter().chain(&self.removed);
        let mut oldest_first: Vec<(Instant, u64, Arc<str>)> =
            all.map(|(key, held)| (held.since, held.entry.offset, Arc::clone(key))).collect();
        oldest_first.sort_unstable();
        let mut gone = 0;
        for (_, _, key) in oldest_first {
            if self.bytes <= goal {
                break;
            }
            self.take_away(&key);
            gone += 1;
        }
        gone
    }
}

/// Keeps the entries for which `stays` is true, and subtracts the size of the others.
fn retain(
    held: &mut BTreeMap<Arc<str>, Box<Held>>,
    bytes: &mut usize,
    gone: &mut Option<Vec<u64>>,
    stays: impl Fn(&Held) -> bool,
) {
    held.retain(|_, held| {
        let stays = stays(held);
        if !stays {
            *bytes -= held.cost();
            note_gone(gone, held);
        }
        stays
    });
}

fn note_gone(gone: &mut Option<Vec<u64>>, held: &Held) {
    if let Some(gone) = gone {
        gone.push(held.entry.offset);
    }
}

/// The bound to which sizes must be cut so that they fit into `goal` together: the largest give most.
pub(super) fn level(mut sizes: Vec<usize>, goal: usize) -> usize {
    sizes.sort_unstable();
    let (mut left, count) = (goal, sizes.len());
    for (at, size) in sizes.into_iter().enumerate() {
        let share = left / (count - at);
        if size > share {
            return share;
        }
        left -= size;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::model::{DraftEntry, EntryId, Marks, NodeId};
    use crate::storage::PageLimit;

    fn zone() -> &'static ChannelPolicy {
        ChannelPolicy::of(&"zone:pjm".parse().unwrap())
    }

    /// An entry of a key, or of all keys, that is marked late.
    fn late(kind: EntryKind, key: &str, by: u128, seq: u64, time_ms: i64, offset: u64) -> Entry {
        let draft = DraftEntry {
            kind,
            key: (key != ALL_KEYS).then(|| key.into()),
            marks: Marks { late: true, ..Marks::default() },
            ..DraftEntry::price(time_ms, "{}")
        };
        Entry { offset, id: EntryId { producer: NodeId(uuid::Uuid::from_u128(by)), seq }, draft }
    }

    fn shown(latest: &Latest) -> Vec<&str> {
        latest.keys().map(|key| &**key).collect()
    }

    /// Gateways may reconcile in any order, and the last entry of each key is the same, if a publisher's
    /// times increase.
    #[test]
    fn the_last_entry_of_a_key_does_not_depend_on_the_order_of_gateways() {
        use EntryKind::{KeyRemoved, PriceUpdate, ZoneRemoved};
        let a = [late(PriceUpdate, "k", 1, 1, 10, 0), late(KeyRemoved, "k", 1, 2, 50, 0)];
        let b = [late(PriceUpdate, "k", 2, 1, 30, 0), late(PriceUpdate, "l", 2, 2, 60, 0)];
        let c = [late(ZoneRemoved, "", 3, 1, 40, 0), late(PriceUpdate, "m", 3, 2, 40, 0)];
        for order in [[&a, &b, &c], [&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
            let mut latest = Latest::default();
            let now = Instant::now();
            order.into_iter().flatten().for_each(|entry| latest.note(entry, zone(), now));
            assert_eq!(shown(&latest), ["l", "m"], "{order:?}");
            let removed: Vec<&str> = latest.removed.keys().map(|key| &**key).collect();
            assert_eq!(removed, ["", "k"], "{order:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn removals_are_remembered_for_a_day_within_their_bound() {
        let (mut latest, start) = (Latest::default(), Instant::now());
        let removal = |n: usize| late(EntryKind::KeyRemoved, &format!("{n:05}"), 1, n as u64, 0, n as u64);
        for n in 1..=REMOVED_MAX + 1 {
            latest.note(&removal(n), zone(), start + Duration::from_millis(n as u64));
        }
        assert_eq!((latest.removed.len(), latest.removed.contains_key("00001")), (REMOVED_MAX, false));
        assert!(shown(&latest).is_empty() && latest.bytes() > REMOVED_MAX * 100);
        let limit = PageLimit { entries: 3, bytes: usize::MAX };
        let page = |of| latest.page(LatestQuery { after: None, limit, of });
        assert_eq!(page(LatestOf::Keys).entries.len(), 0);
        let page = page(LatestOf::RemovedToo);
        assert_eq!((page.places, page.next.as_deref()), (vec![2, 3, 4], Some("00004")));
        assert_eq!(latest.due(Duration::ZERO), Some(start + Duration::from_millis(1) + REMOVED_KEPT_FOR));
        latest.expire(Duration::MAX, start + REMOVED_KEPT_FOR + Duration::from_millis(10));
        assert_eq!(latest.removed.len(), REMOVED_MAX - 9);
        latest.expire(Duration::MAX, start + 2 * REMOVED_KEPT_FOR);
        assert_eq!((latest.removed.len(), latest.bytes()), (0, 0));
    }

    #[test]
    fn the_largest_sizes_are_cut_most() {
        for (sizes, goal, expected) in [
            (vec![], 10, usize::MAX),
            (vec![5, 5], 10, usize::MAX),
            (vec![100, 1, 1], 10, 8),
            (vec![100, 100, 1], 11, 5),
            (vec![100, 100], 0, 0),
        ] {
            assert_eq!(level(sizes.clone(), goal), expected, "{sizes:?} {goal}");
        }
    }
}
